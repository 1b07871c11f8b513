//! What a producer published and the broker has not yet confirmed.

use std::collections::VecDeque;

/// A message that was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slip {
    pub(crate) due: u64,
    pub(crate) stream: u32,
    pub(crate) seq: u64,
}

/// The unconfirmed messages of one channel, by the numbers that confirms use: 1, 2, 3…
#[derive(Debug, Default)]
pub(crate) struct Unconfirmed {
    /// How many numbers are before the first slip.
    settled: u64,
    slips: VecDeque<Option<Slip>>,
    open: usize,
}

impl Unconfirmed {
    /// Adds the next message.
    #[inline]
    pub(crate) fn push(&mut self, slip: Slip) {
        self.slips.push_back(Some(slip));
        self.open += 1;
    }

    /// How many await their confirm.
    #[inline]
    pub(crate) fn open(&self) -> usize {
        self.open
    }

    /// Settles number `tag`, or with `multiple` all up to it (and with tag 0 all there are), handing each to `each`.
    /// False if that settled nothing: a confirm for something that was never published or was confirmed before.
    #[inline]
    pub(crate) fn settle(&mut self, tag: u64, multiple: bool, mut each: impl FnMut(Slip)) -> bool {
        let last = self.settled + self.slips.len() as u64;
        let tag = if multiple && tag == 0 { last } else { tag };
        if tag <= self.settled || tag > last {
            return false;
        }
        let at = (tag - self.settled) as usize - 1;
        let from = if multiple { 0 } else { at };
        let before = self.open;
        for slip in self.slips.range_mut(from..=at).filter_map(Option::take) {
            self.open -= 1;
            each(slip);
        }
        while self.slips.front() == Some(&None) {
            self.slips.pop_front();
            self.settled += 1;
        }
        self.open < before
    }

    /// Everything still open, oldest first; a new channel counts from 1 again.
    pub(crate) fn abandon(&mut self) -> Vec<Slip> {
        std::mem::take(self).slips.into_iter().flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(n: u64) -> Unconfirmed {
        let mut unconfirmed = Unconfirmed::default();
        (1..=n).for_each(|seq| unconfirmed.push(Slip { due: 0, stream: 0, seq }));
        unconfirmed
    }

    #[track_caller]
    fn check(unconfirmed: &mut Unconfirmed, tag: u64, multiple: bool, settled: &[u64]) {
        let mut seen = Vec::new();
        assert_eq!(unconfirmed.settle(tag, multiple, |slip| seen.push(slip.seq)), !settled.is_empty());
        assert_eq!(seen, settled);
    }

    #[test]
    fn each_is_settled_once() {
        let mut all = published(8);
        check(&mut all, 3, false, &[3]);
        check(&mut all, 3, false, &[]);
        check(&mut all, 4, true, &[1, 2, 4]);
        check(&mut all, 4, true, &[]);
        check(&mut all, 9, false, &[]);
        assert_eq!(all.open(), 4);
        check(&mut all, 6, false, &[6]);
        check(&mut all, 0, true, &[5, 7, 8]);
        assert_eq!(all.open(), 0);
    }

    #[test]
    fn what_is_abandoned_comes_back_in_order_and_counting_starts_again() {
        let mut all = published(5);
        check(&mut all, 2, false, &[2]);
        assert_eq!(all.abandon().iter().map(|slip| slip.seq).collect::<Vec<_>>(), [1, 3, 4, 5]);
        all.push(Slip { due: 0, stream: 0, seq: 9 });
        check(&mut all, 1, false, &[9]);
    }
}
