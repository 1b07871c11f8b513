//! The books of a run: what was sent on each stream, what arrived in each queue, and so what was lost, repeated or overtaken.

use std::collections::VecDeque;

/// A set of numbers that fills up from the bottom: all below `base` and those marked in `ahead`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    base: u64,
    ahead: VecDeque<u64>,
    count: u64,
}

impl Seen {
    /// Adds `seq`; false if it was there.
    #[inline]
    pub(crate) fn add(&mut self, seq: u64) -> bool {
        let Some(offset) = seq.checked_sub(self.base) else {
            return false;
        };
        let (word, bit) = ((offset / 64) as usize, 1 << (offset % 64));
        if word >= self.ahead.len() {
            self.ahead.resize(word + 1, 0);
        }
        let Some(marks) = self.ahead.get_mut(word).filter(|marks| **marks & bit == 0) else {
            return false;
        };
        *marks |= bit;
        self.count += 1;
        while self.ahead.front() == Some(&u64::MAX) {
            self.ahead.pop_front();
            self.base += 64;
        }
        true
    }

    /// Whether `seq` was added.
    pub(crate) fn has(&self, seq: u64) -> bool {
        let Some(offset) = seq.checked_sub(self.base) else {
            return true;
        };
        self.ahead.get((offset / 64) as usize).is_some_and(|marks| marks & 1 << (offset % 64) != 0)
    }

    /// How many numbers were added.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }
}

/// Which producer writes which stream to which queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    /// Publishing connections.
    pub(crate) producers: usize,
    /// Where streams are addressed to: queues, topics, or one exchange. Stream `s` goes to topic `s % topics`.
    pub(crate) topics: usize,
    /// Queues; each has at least one consumer. A subscriber of topics has a queue of its own.
    pub(crate) queues: usize,
    /// Topics and queues fall into so many groups, which divide both: topic `t` reaches queue `q` if both are
    /// in the same, `t % groups == q % groups`. With a single group every stream reaches every queue.
    pub(crate) groups: usize,
}

impl Layout {
    /// How many streams there are. Stream `s` is written by producer `s % producers`.
    pub(crate) fn streams(self) -> usize {
        self.producers.max(self.topics)
    }

    /// The topic that a stream is addressed to.
    pub(crate) fn topic_of(self, stream: usize) -> usize {
        stream % self.topics
    }

    /// How many deliveries one message is owed.
    pub(crate) fn fan(self) -> u64 {
        (self.queues / self.groups) as u64
    }

    /// The streams whose messages belong in `queue`.
    pub(crate) fn streams_of(self, queue: usize) -> impl Iterator<Item = usize> {
        (queue % self.groups..self.streams()).step_by(self.groups)
    }

    /// Where `stream` stands among those of `queue`; `None` if it has no business there.
    #[inline]
    fn place(self, queue: usize, stream: usize) -> Option<usize> {
        if stream >= self.streams() {
            return None;
        }
        if self.groups == 1 {
            return Some(stream);
        }
        // Topics are a multiple of the groups, so a stream is in the same one as its topic.
        (stream % self.groups == queue % self.groups).then(|| stream / self.groups)
    }
}

/// How a delivery stands in the books.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// The first of its message in this queue, in order.
    New,
    /// The first, but a later message of its stream was here before.
    Overtaken,
    /// Its message had arrived.
    Again,
    /// It belongs in another queue, or nowhere.
    Misrouted,
}

/// What one consumer last saw of each stream: the number after the highest.
pub(crate) type Order = Vec<u64>;

/// The books.
pub(crate) struct Ledger {
    layout: Layout,
    sent: Vec<u64>,
    arrived: Vec<Vec<Seen>>,
    owed: u64,
    received: u64,
}

impl Ledger {
    /// Empty books.
    pub(crate) fn new(layout: Layout) -> Self {
        let places = |queue| layout.streams_of(queue).map(|_| Seen::default()).collect();
        Self {
            layout,
            sent: vec![0; layout.streams()],
            arrived: (0..layout.queues).map(places).collect(),
            owed: 0,
            received: 0,
        }
    }

    /// Enters a message on `stream` and returns its number.
    #[inline]
    pub(crate) fn send(&mut self, stream: u32) -> u64 {
        let next = &mut self.sent[stream as usize];
        *next += 1;
        self.owed += self.layout.fan();
        *next - 1
    }

    /// Takes back a message that the broker refused.
    pub(crate) fn refused(&mut self) {
        self.owed = self.owed.saturating_sub(self.layout.fan());
    }

    /// Enters messages that an earlier run sent on `stream`, all of them or those from `skip` on still owed.
    pub(crate) fn carry(&mut self, stream: u32, sent: u64, skip: u64) {
        self.sent[stream as usize] = sent;
        self.owed += sent.saturating_sub(skip) * self.layout.fan();
        for queue in 0..self.layout.queues {
            if let Some(place) = self.layout.place(queue, stream as usize) {
                self.arrived[queue][place] = Seen { base: skip / 64 * 64, ..Seen::default() };
                (skip / 64 * 64..skip).for_each(|seq| {
                    self.arrived[queue][place].add(seq);
                });
            }
        }
    }

    /// Owes `deliveries` less: they stay where they are.
    pub(crate) fn leave(&mut self, deliveries: u64) {
        self.owed = self.owed.saturating_sub(deliveries);
    }

    /// What a consumer of `queue` has seen so far: nothing.
    pub(crate) fn order(&self, queue: usize) -> Order {
        vec![0; self.arrived.get(queue).map_or(0, Vec::len)]
    }

    /// Enters a delivery from `queue` to the consumer that keeps `order`.
    #[inline]
    pub(crate) fn arrive(&mut self, queue: usize, order: &mut Order, stream: u32, seq: u64) -> Arrival {
        let stream = stream as usize;
        let Some(place) = self.layout.place(queue, stream) else {
            return Arrival::Misrouted;
        };
        if seq >= self.sent[stream] {
            return Arrival::Misrouted; // nobody sent that
        }
        if !self.arrived[queue][place].add(seq) {
            return Arrival::Again;
        }
        self.received += 1;
        if seq < order[place] {
            return Arrival::Overtaken;
        }
        order[place] = seq + 1;
        Arrival::New
    }

    /// Deliveries owed so far, refused messages left out.
    pub(crate) fn owed(&self) -> u64 {
        self.owed
    }

    /// Deliveries that arrived, each counted once.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Messages sent on all streams.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.iter().sum()
    }

    /// Whether message `seq` of `stream` has reached every queue that it is owed to.
    pub(crate) fn has(&self, stream: usize, seq: u64) -> bool {
        (0..self.layout.queues)
            .filter_map(|queue| self.layout.place(queue, stream).map(|place| &self.arrived[queue][place]))
            .all(|seen| seen.has(seq))
    }

    /// Deliveries owed and never made.
    pub(crate) fn lost(&self) -> u64 {
        self.owed.saturating_sub(self.received)
    }

    /// How the streams are laid out.
    pub(crate) fn layout(&self) -> Layout {
        self.layout
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Layout = Layout { producers: 1, topics: 1, queues: 1, groups: 1 };

    /// Books on which `sent` messages of stream 0 went out, and one consumer of queue 0.
    fn books(layout: Layout, sent: u64) -> (Ledger, Order) {
        let mut ledger = Ledger::new(layout);
        (0..sent).for_each(|seq| assert_eq!(ledger.send(0), seq));
        let order = ledger.order(0);
        (ledger, order)
    }

    #[track_caller]
    fn check(arrivals: &[(u64, Arrival)], sent: u64, lost: u64) {
        let (mut ledger, mut order) = books(ONE, sent);
        for &(seq, arrival) in arrivals {
            assert_eq!(ledger.arrive(0, &mut order, 0, seq), arrival, "message {seq}");
        }
        assert_eq!(ledger.lost(), lost);
    }

    #[test]
    fn all_in_order() {
        check(&(0..1000).map(|seq| (seq, Arrival::New)).collect::<Vec<_>>(), 1000, 0);
    }

    #[test]
    fn a_gap_is_a_loss() {
        check(&[(0, Arrival::New), (2, Arrival::New), (3, Arrival::New)], 5, 2);
    }

    #[test]
    fn a_repeat_is_seen_near_and_far() {
        check(&[(0, Arrival::New), (0, Arrival::Again), (1, Arrival::New), (0, Arrival::Again)], 2, 0);
        let (mut ledger, mut order) = books(ONE, 500);
        (0..500).for_each(|seq| assert_eq!(ledger.arrive(0, &mut order, 0, seq), Arrival::New));
        (0..500).for_each(|seq| assert_eq!(ledger.arrive(0, &mut order, 0, seq), Arrival::Again));
    }

    #[test]
    fn a_late_one_is_overtaken_and_not_lost() {
        check(&[(1, Arrival::New), (0, Arrival::Overtaken), (2, Arrival::New), (0, Arrival::Again)], 3, 0);
    }

    #[test]
    fn order_is_each_consumers_own() {
        let (mut ledger, mut first) = books(ONE, 2);
        let mut second = ledger.order(0);
        assert_eq!(ledger.arrive(0, &mut first, 0, 1), Arrival::New);
        assert_eq!(ledger.arrive(0, &mut second, 0, 0), Arrival::New);
    }

    #[test]
    fn a_message_nobody_sent_and_one_of_another_queue_are_misrouted() {
        check(&[(7, Arrival::Misrouted)], 5, 5);
        let (mut ledger, mut order) = books(Layout { producers: 2, topics: 2, queues: 2, groups: 2 }, 1);
        assert_eq!(ledger.arrive(1, &mut order, 0, 0), Arrival::Misrouted);
        assert_eq!(ledger.arrive(0, &mut order, 9, 0), Arrival::Misrouted);
        assert_eq!(ledger.arrive(0, &mut order, 0, 0), Arrival::New);
    }

    #[test]
    fn a_fan_out_owes_every_queue() {
        let (mut ledger, mut order) = books(Layout { producers: 1, topics: 1, queues: 3, groups: 1 }, 2);
        assert_eq!(ledger.owed(), 6);
        assert_eq!(ledger.arrive(0, &mut order, 0, 0), Arrival::New);
        for queue in [1, 2] {
            assert!(!ledger.has(0, 0));
            let mut own = ledger.order(queue);
            assert_eq!(ledger.arrive(queue, &mut own, 0, 0), Arrival::New);
        }
        assert!(ledger.has(0, 0));
        assert_eq!(ledger.lost(), 3);
    }

    #[test]
    fn topics_reach_the_queues_of_their_group() {
        // Four topics and two subscribers, of which each has two; then two topics that four subscribers share.
        for (topics, queues, fan) in [(4, 2, 1), (2, 4, 2)] {
            let layout = Layout { producers: 1, topics, queues, groups: 2 };
            let mut ledger = Ledger::new(layout);
            assert_eq!((0..topics as u32).map(|stream| ledger.send(stream)).max(), Some(0));
            assert_eq!((ledger.owed(), layout.fan()), (topics as u64 * fan, fan));
            for queue in 0..queues {
                let mut order = ledger.order(queue);
                for stream in 0..topics {
                    let expected = if stream % 2 == queue % 2 { Arrival::New } else { Arrival::Misrouted };
                    assert_eq!(ledger.arrive(queue, &mut order, stream as u32, 0), expected);
                }
            }
            assert_eq!(ledger.lost(), 0);
        }
    }

    #[test]
    fn a_refused_message_is_not_owed() {
        let (mut ledger, _) = books(ONE, 2);
        ledger.refused();
        assert_eq!(ledger.lost(), 1);
    }

    #[test]
    fn carried_messages_are_owed_from_where_the_last_run_stopped() {
        let mut ledger = Ledger::new(ONE);
        ledger.carry(0, 200, 130);
        let mut order = ledger.order(0);
        assert_eq!(ledger.owed(), 70);
        assert_eq!(ledger.arrive(0, &mut order, 0, 129), Arrival::Again);
        assert_eq!(ledger.arrive(0, &mut order, 0, 130), Arrival::New);
        assert_eq!(ledger.lost(), 69);
    }

    #[test]
    fn seen_agrees_with_a_plain_set() {
        let (mut seen, mut plain, mut x) = (Seen::default(), std::collections::HashSet::new(), 1_u64);
        for _ in 0..20_000 {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let seq = (x >> 33) % 5000;
            assert_eq!(seen.add(seq), plain.insert(seq));
        }
        assert!((0..6000).all(|seq| seen.has(seq) == plain.contains(&seq)));
        assert_eq!(seen.count(), plain.len() as u64);
    }
}
