//! Turns the segments' indexes into the state that they stand for.

use std::collections::{HashMap, HashSet};

use portolan_core::store::{Index, Position, QueueId, RecoveredEntry, RecoveredQueue, SeqRange};

use crate::journal::footer::{self, Entry, Footer, Mark};
use crate::journal::segment::{Segment, Table};

/// A segment's index, wherever it was found.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) number: u32,
    pub(crate) length: u64,
    /// Bytes of disk that its file occupies.
    pub(crate) occupied: u64,
    pub(crate) footer: Footer,
    /// Nothing more will be appended to it.
    pub(crate) sealed: bool,
}

/// Where the body of a fact is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FactAt {
    pub(crate) index: Index,
    pub(crate) segment: u32,
    pub(crate) offset: u32,
}

/// What the indexes stand for.
#[derive(Debug, Default)]
pub(crate) struct Replayed {
    pub(crate) queues: HashMap<QueueId, RecoveredQueue>,
    pub(crate) facts: Vec<FactAt>,
    /// Segments below this one are gone on purpose.
    pub(crate) discarded: u32,
    /// The last thing in the journal is that it was closed.
    pub(crate) clean: bool,
    pub(crate) table: Table,
    pub(crate) truncations: Vec<Truncation>,
}

#[derive(Debug, Default)]
struct Queue {
    entries: Vec<RecoveredEntry>,
    /// The entries are in order, each number once.
    in_order: bool,
    settled: Vec<SeqRange>,
    redelivered: Vec<SeqRange>,
    released: Vec<SeqRange>,
    returned: Vec<(SeqRange, u32)>,
}

struct Reference {
    from: Position,
    queue: QueueId,
    seq: u64,
    content: u32,
}

/// A truncation: records before that place with a higher index are void.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Truncation {
    segment: u32,
    /// Entries of that segment before it.
    ordinal: usize,
    after: Index,
}

impl Truncation {
    /// It makes the record with that index void, which is entry `ordinal` of `segment`.
    pub(crate) fn voids(&self, segment: u32, ordinal: usize, index: Index) -> bool {
        self.after < index && (self.segment, self.ordinal) > (segment, ordinal)
    }
}

#[derive(Default)]
struct Collector {
    ids: HashMap<QueueId, usize>,
    queues: Vec<(QueueId, Queue)>,
    last: Option<(QueueId, usize)>,
    dropped: HashSet<QueueId>,
    references: Vec<Reference>,
    out: Replayed,
}

/// Replays segments, oldest first.
pub(crate) fn replay(segments: &[Loaded]) -> Replayed {
    let mut collector = Collector::default();
    collector.out.truncations = truncations(segments);
    let discarded = last_discard(segments);
    collector.make_room(segments.iter().filter(|loaded| loaded.number >= discarded));
    for loaded in segments.iter().filter(|loaded| loaded.number >= discarded) {
        let mut segment = Segment::new(loaded.number, loaded.length, loaded.footer.first);
        segment.sizes = loaded.footer.sizes;
        segment.hole = loaded.length.saturating_sub(loaded.occupied);
        let mut ordinal = 0;
        footer::visit(&loaded.footer.entries, loaded.number, loaded.footer.first, &mut |index, entry| {
            ordinal += 1;
            collector.entry(&mut segment, ordinal, index, entry);
        });
        collector.out.table.push(segment);
    }
    collector.out.discarded = discarded;
    collector.finish()
}

/// Discards are written before anything is removed, and the newest one names the highest segment.
fn last_discard(segments: &[Loaded]) -> u32 {
    segments.iter().map(|loaded| loaded.footer.discarded).max().unwrap_or(0)
}

fn truncations(segments: &[Loaded]) -> Vec<Truncation> {
    let mut found = Vec::new();
    for loaded in segments.iter().filter(|loaded| loaded.footer.truncates) {
        let mut ordinal = 0;
        footer::visit(&loaded.footer.entries, loaded.number, loaded.footer.first, &mut |_, entry| {
            ordinal += 1;
            if let Entry::Mark(Mark::Truncated(after)) = entry {
                found.push(Truncation { segment: loaded.number, ordinal, after });
            }
        });
    }
    found
}

impl Collector {
    fn queue(&mut self, id: QueueId) -> &mut Queue {
        let slot = match self.last {
            Some((last, slot)) if last == id => slot,
            _ => {
                let queues = &mut self.queues;
                *self.ids.entry(id).or_insert_with(|| {
                    queues.push((id, Queue { in_order: true, ..Queue::default() }));
                    queues.len() - 1
                })
            }
        };
        self.last = Some((id, slot));
        // The slot was taken from the map of this very list.
        &mut self.queues[slot].1
    }

    /// Counting first costs a tenth of what it saves: a list of a million that grows step by step touches twice the
    /// memory, and fresh memory is most of what a start costs.
    fn make_room<'a>(&mut self, segments: impl Iterator<Item = &'a Loaded>) {
        let mut counts: HashMap<QueueId, usize> = HashMap::new();
        for loaded in segments {
            let mut run = (QueueId(0), 0);
            footer::visit(&loaded.footer.entries, loaded.number, loaded.footer.first, &mut |_, entry| {
                let Entry::Enqueued(it) = entry else { return };
                if it.queue != run.0 {
                    *counts.entry(run.0).or_default() += run.1;
                    run = (it.queue, 0);
                }
                run.1 += 1;
            });
            *counts.entry(run.0).or_default() += run.1;
        }
        for (id, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            self.queue(id).entries.reserve_exact(count);
        }
    }

    fn entry(&mut self, segment: &mut Segment, ordinal: usize, index: Index, entry: Entry<'_>) {
        self.out.clean = entry == Entry::Mark(Mark::Closed);
        let number = segment.number;
        let void = self.out.truncations.iter().any(|truncation| truncation.voids(number, ordinal, index));
        match entry {
            Entry::Fact { offset } => {
                segment.facts += 1;
                if !void {
                    self.out.facts.push(FactAt { index, segment: number, offset });
                }
            }
            Entry::Mark(_) => {}
            _ if void => {}
            Entry::Enqueued(it) => {
                let Some(position) = footer::position(number, &it) else { return };
                let (seq, expires_at) = (it.seq, it.expires_at);
                let entry =
                    RecoveredEntry { seq, position, expires_at, returns: 0, redelivered: false, released: false };
                self.queue(it.queue).enqueued(entry);
                if let Some(content) = it.content {
                    self.references.push(Reference { from: position, queue: it.queue, seq: it.seq, content });
                }
            }
            Entry::Settled { queue, ranges } => extend(&mut self.queue(queue).settled, ranges),
            Entry::Redelivered { queue, ranges } => extend(&mut self.queue(queue).redelivered, ranges),
            Entry::Released { queue, ranges } => extend(&mut self.queue(queue).released, ranges),
            Entry::Returned { queue, ranges, times } => {
                self.queue(queue).returned.extend(ranges.iter().map(|range| (*range, times)));
            }
            Entry::Dropped { queue } => {
                self.dropped.insert(queue);
            }
        }
    }

    fn finish(mut self) -> Replayed {
        let mut out = self.out;
        for (id, queue) in self.queues {
            if !self.dropped.contains(&id) {
                out.queues.insert(id, queue.finish());
            }
        }
        for entry in out.queues.values().flat_map(|queue| &queue.entries) {
            out.table.enliven(entry.position);
        }
        self.references.retain(|reference| {
            let Some(queue) = out.queues.get(&reference.queue) else { return false };
            let found = queue.entries.binary_search_by_key(&reference.seq, |entry| entry.seq);
            found.is_ok_and(|at| queue.entries.get(at).is_some_and(|entry| entry.position == reference.from))
        });
        for reference in self.references {
            out.table.refer(reference.from, reference.content);
        }
        out
    }
}

/// Adds ranges, joining those that continue the last one.
fn extend(to: &mut Vec<SeqRange>, ranges: &[SeqRange]) {
    for range in ranges {
        match to.last_mut() {
            Some(last) if last.first.checked_add(last.count) == Some(range.first) => {
                last.count = last.count.saturating_add(range.count);
            }
            _ => to.push(*range),
        }
    }
}

impl Queue {
    fn enqueued(&mut self, entry: RecoveredEntry) {
        self.in_order &= self.entries.last().is_none_or(|last| last.seq < entry.seq);
        self.entries.push(entry);
    }

    fn finish(mut self) -> RecoveredQueue {
        if !self.in_order {
            // A later record of the same number replaces the earlier one: the cleaner moved the message.
            self.entries.sort_unstable_by_key(|entry| (entry.seq, std::cmp::Reverse(entry.position)));
            self.entries.dedup_by_key(|entry| entry.seq);
        }
        // Numbers are not used again while a record names them, so it does not matter what came first.
        let used = self.entries.last().map_or(0, |entry| entry.seq.saturating_add(1));
        let mut settled = Ranges::new(self.settled);
        let next_seq = settled.end().max(used);
        self.entries.retain(|entry| !settled.holds(entry.seq));
        let mut redelivered = Ranges::new(self.redelivered);
        let mut released = Ranges::new(self.released);
        for entry in &mut self.entries {
            entry.redelivered = redelivered.holds(entry.seq);
            entry.released = released.holds(entry.seq);
        }
        for (range, times) in self.returned {
            let from = self.entries.partition_point(|entry| entry.seq < range.first);
            let theirs = self.entries.iter_mut().skip(from);
            for entry in theirs.take_while(|entry| entry.seq - range.first < range.count) {
                entry.returns = entry.returns.max(times);
                entry.redelivered = true;
            }
        }
        if self.entries.len() < self.entries.capacity() / 2 {
            self.entries.shrink_to_fit();
        }
        RecoveredQueue { entries: self.entries, next_seq }
    }
}

/// Ranges to be asked in ascending order.
struct Ranges {
    ranges: Vec<SeqRange>,
    at: usize,
}

impl Ranges {
    fn new(mut ranges: Vec<SeqRange>) -> Self {
        ranges.sort_unstable_by_key(|range| range.first);
        Self { ranges, at: 0 }
    }

    fn end(&self) -> u64 {
        self.ranges.iter().map(|range| range.first.saturating_add(range.count)).max().unwrap_or(0)
    }

    fn holds(&mut self, seq: u64) -> bool {
        while let Some(range) = self.ranges.get(self.at) {
            if seq < range.first {
                return false;
            }
            if seq - range.first < range.count {
                return true;
            }
            self.at += 1;
        }
        false
    }
}
