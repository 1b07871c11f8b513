//! What a run counts: the books, the times, and what became of every delivery and confirm.

use crate::latency::Latency;
use crate::ledger::{Arrival, Layout, Ledger, Order, Seen};
use crate::stamp::{Content, Stamp};
use crate::unconfirmed::Slip;
use crate::wire::Delivery;

/// Plain counts. Those named `measured` leave out the warm-up.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) sent: u64,
    pub(crate) sent_measured: u64,
    pub(crate) confirmed: u64,
    /// After the warm-up and before the end of publishing.
    pub(crate) confirmed_measured: u64,
    pub(crate) nacked: u64,
    pub(crate) received_measured: u64,
    /// Deliveries of a message that the queue had delivered before.
    pub(crate) dup: u64,
    /// Those of them that no redelivery rule explains.
    pub(crate) dup_unexplained: u64,
    pub(crate) reorder: u64,
    pub(crate) misrouted: u64,
    /// Retained messages that do not say so, and others that do.
    pub(crate) misflagged: u64,
    pub(crate) corrupt: u64,
    /// Confirms for what was never published, or was confirmed before.
    pub(crate) stray: u64,
    pub(crate) blocked: u64,
    /// Deliveries beyond those that a partial drain is to take.
    pub(crate) surplus: u64,
    pub(crate) resent: u64,
}

/// When something last happened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Last {
    pub(crate) sent: u64,
    pub(crate) arrival: u64,
    pub(crate) confirm: u64,
}

impl Last {
    pub(crate) fn any(&self) -> u64 {
        self.sent.max(self.arrival).max(self.confirm)
    }
}

/// What must be remembered of each stream when the broker may die under way.
#[derive(Default)]
pub(crate) struct Survival {
    confirmed: Vec<Seen>,
    resent: Vec<Seen>,
    /// What arrived since the last reconnection.
    this_life: Vec<Seen>,
}

impl Survival {
    fn new(streams: usize) -> Self {
        let empty = || vec![Seen::default(); streams];
        Self { confirmed: empty(), resent: empty(), this_life: empty() }
    }
}

/// The board on which producers and consumers write.
pub(crate) struct Board {
    pub(crate) content: Content,
    pub(crate) ledger: Ledger,
    pub(crate) tally: Tally,
    pub(crate) last: Last,
    pub(crate) latency: Latency,
    pub(crate) confirms: Latency,
    pub(crate) lag: Latency,
    /// When the warm-up ends.
    pub(crate) measure: u64,
    pub(crate) publishing: bool,
    /// Messages of each stream from this number on are left in the queue.
    pub(crate) limit: u64,
    survival: Option<Survival>,
}

impl Board {
    pub(crate) fn new(content: Content, layout: Layout) -> Self {
        Self {
            content,
            ledger: Ledger::new(layout),
            tally: Tally::default(),
            last: Last::default(),
            latency: Latency::new(),
            confirms: Latency::new(),
            lag: Latency::new(),
            measure: 0,
            publishing: true,
            limit: u64::MAX,
            survival: None,
        }
    }

    /// Remembers from now on what is needed to judge a run in which the broker dies.
    pub(crate) fn expect_deaths(&mut self) {
        self.survival = Some(Survival::new(self.ledger.layout().streams()));
    }

    /// All connections are gone; what had been delivered may rightly come again.
    pub(crate) fn reborn(&mut self) {
        if let Some(survival) = &mut self.survival {
            survival.this_life = vec![Seen::default(); survival.this_life.len()];
        }
    }

    /// Enters a message that goes out for the first time.
    #[inline]
    pub(crate) fn send(&mut self, stream: u32, due: u64, now: u64) -> Slip {
        self.tally.sent += 1;
        self.tally.sent_measured += u64::from(due >= self.measure);
        self.last.sent = now;
        Slip { due, stream, seq: self.ledger.send(stream) }
    }

    /// Enters a message that goes out again, because its confirm never came.
    pub(crate) fn resend(&mut self, slip: Slip, now: u64) {
        self.tally.resent += 1;
        self.last.sent = now;
        if let Some(resent) = self.survival.as_mut().and_then(|survival| survival.resent.get_mut(slip.stream as usize))
        {
            resent.add(slip.seq);
        }
    }

    /// Enters a delivery from `queue`; false if it is to be left unacknowledged.
    #[inline]
    pub(crate) fn arrive(&mut self, queue: usize, order: &mut Order, delivery: &Delivery<'_>, now: u64) -> bool {
        let Some(stamp) = self.open(delivery.body) else {
            return true;
        };
        self.enter(queue, order, stamp, delivery.redelivered, now)
    }

    /// The stamp of a body; `None` if it is damaged, which is counted.
    #[inline]
    pub(crate) fn open(&mut self, body: &[u8]) -> Option<Stamp> {
        let stamp = self.content.read(body);
        self.tally.corrupt += u64::from(stamp.is_none());
        stamp
    }

    /// Enters a whole delivery from `queue`; false if it is to be left unacknowledged.
    #[inline]
    pub(crate) fn enter(&mut self, queue: usize, order: &mut Order, stamp: Stamp, redelivered: bool, now: u64) -> bool {
        if stamp.seq >= self.limit {
            self.tally.surplus += 1;
            return false;
        }
        self.last.arrival = now;
        match self.ledger.arrive(queue, order, stamp.stream, stamp.seq) {
            Arrival::New => {}
            Arrival::Overtaken => self.tally.reorder += 1,
            Arrival::Again => {
                self.repeated(stamp, redelivered);
                return true;
            }
            Arrival::Misrouted => {
                self.tally.misrouted += 1;
                return true;
            }
        }
        if let Some(life) =
            self.survival.as_mut().and_then(|survival| survival.this_life.get_mut(stamp.stream as usize))
        {
            life.add(stamp.seq);
        }
        if now >= self.measure {
            self.tally.received_measured += 1;
            let age = stamp.age(now);
            if age <= now - self.measure {
                self.latency.note(age);
            }
        }
        true
    }

    fn repeated(&mut self, stamp: Stamp, redelivered: bool) {
        self.tally.dup += 1;
        let explained = self.survival.as_mut().is_some_and(|survival| {
            let stream = stamp.stream as usize;
            let sent_twice = survival.resent.get(stream).is_some_and(|resent| resent.has(stamp.seq));
            let new_to_this_life = survival.this_life.get_mut(stream).is_some_and(|life| life.add(stamp.seq));
            sent_twice || new_to_this_life
        });
        self.tally.dup_unexplained += u64::from(!explained && !redelivered);
    }

    /// Enters a confirm, or a refusal.
    #[inline]
    pub(crate) fn settle(&mut self, slip: Slip, positive: bool, now: u64) {
        self.last.confirm = now;
        if !positive {
            self.tally.nacked += 1;
            self.ledger.refused();
            return;
        }
        self.tally.confirmed += 1;
        if slip.due >= self.measure {
            self.tally.confirmed_measured += u64::from(self.publishing);
            self.confirms.note(now.saturating_sub(slip.due));
        }
        if let Some(confirmed) = self.survival.as_mut().and_then(|s| s.confirmed.get_mut(slip.stream as usize)) {
            confirmed.add(slip.seq);
        }
    }

    /// Confirmed messages that have arrived nowhere.
    pub(crate) fn lost_confirmed(&self, sent_to: u64) -> u64 {
        let Some(survival) = &self.survival else {
            return 0;
        };
        let missing = |(stream, confirmed): (usize, &Seen)| {
            (0..sent_to).filter(|&seq| confirmed.has(seq) && !self.ledger.has(stream, seq)).count() as u64
        };
        survival.confirmed.iter().enumerate().map(missing).sum()
    }

    /// Distinct messages that were confirmed.
    pub(crate) fn confirmed_unique(&self) -> u64 {
        self.survival.as_ref().map_or(self.tally.confirmed, |s| s.confirmed.iter().map(Seen::count).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout = Layout { producers: 1, topics: 1, queues: 1, groups: 1 };

    struct Desk {
        board: Board,
        order: Order,
        sent: Vec<Slip>,
    }

    fn desk(survival: bool) -> Desk {
        let mut board = Board::new(Content::new(32, 1), LAYOUT);
        if survival {
            board.expect_deaths();
        }
        let sent = (0..4).map(|at| board.send(0, at, at)).collect();
        let order = board.ledger.order(0);
        Desk { board, order, sent }
    }

    impl Desk {
        fn deliver(&mut self, index: usize, redelivered: bool) -> bool {
            let mut body = Vec::new();
            let Slip { due, stream, seq } = self.sent[index];
            self.board.content.append(&mut body, Stamp::new(due, stream, seq));
            let delivery = Delivery { consumer_tag: b"0", tag: 1, redelivered, body: &body };
            self.board.arrive(0, &mut self.order, &delivery, 100)
        }
    }

    #[test]
    fn repeats_are_explained_by_the_flag_a_resend_or_a_death() {
        let mut desk = desk(true);
        desk.deliver(0, false);
        desk.deliver(0, false);
        assert_eq!((desk.board.tally.dup, desk.board.tally.dup_unexplained), (1, 1));
        desk.deliver(0, true);
        assert_eq!((desk.board.tally.dup, desk.board.tally.dup_unexplained), (2, 1));
        desk.board.resend(desk.sent[1], 5);
        desk.deliver(1, false);
        desk.deliver(1, false);
        assert_eq!((desk.board.tally.dup, desk.board.tally.dup_unexplained), (3, 1));
        desk.board.reborn();
        desk.deliver(0, false);
        assert_eq!((desk.board.tally.dup, desk.board.tally.dup_unexplained), (4, 1));
        desk.deliver(0, false);
        assert_eq!((desk.board.tally.dup, desk.board.tally.dup_unexplained), (5, 2), "twice in one life");
    }

    #[test]
    fn without_deaths_nothing_but_the_flag_explains_a_repeat() {
        let mut desk = desk(false);
        desk.deliver(2, false);
        desk.deliver(2, false);
        assert_eq!((desk.board.tally.dup, desk.board.tally.dup_unexplained), (1, 1));
    }

    #[test]
    fn only_confirmed_messages_can_be_lost() {
        let mut desk = desk(true);
        desk.board.settle(desk.sent[0], true, 9);
        desk.board.settle(desk.sent[2], true, 9);
        desk.board.settle(desk.sent[3], false, 9);
        assert_eq!(desk.board.lost_confirmed(4), 2);
        desk.deliver(2, false);
        assert_eq!(desk.board.lost_confirmed(4), 1);
        assert_eq!((desk.board.confirmed_unique(), desk.board.tally.nacked, desk.board.ledger.lost()), (2, 1, 2));
    }

    #[test]
    fn a_partial_drain_leaves_the_rest() {
        let mut desk = desk(false);
        desk.board.limit = 1;
        assert!(desk.deliver(0, false));
        assert!(!desk.deliver(1, false));
        assert_eq!((desk.board.ledger.received(), desk.board.tally.surplus), (1, 1));
    }

    #[test]
    fn a_damaged_body_is_counted_and_not_taken_for_any_message() {
        let mut desk = desk(false);
        let delivery = Delivery { consumer_tag: b"0", tag: 1, redelivered: false, body: &[7; 32] };
        assert!(desk.board.arrive(0, &mut desk.order, &delivery, 100));
        assert_eq!((desk.board.tally.corrupt, desk.board.ledger.received()), (1, 0));
    }
}
