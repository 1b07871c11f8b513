//! A journal in memory that checks what it is told, moves its records on demand, and says what a restart would find.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use portolan_core::message::Message;
use portolan_core::store::{
    Appended, Content, Index, Journal, Owner, Position, QueueId, Record, Recovered, RecoveredEntry, Relocation, Space,
    StoreError, Unit, Waiter,
};

#[derive(Clone)]
struct Kept {
    queue: QueueId,
    seq: u64,
    expires_at: u64,
    message: Message,
    /// The record that has the content.
    content: Position,
}

#[derive(Default)]
struct Book {
    last: Index,
    durable: Index,
    /// Durable only when the test says so.
    by_hand: bool,
    segment: u32,
    /// Segments before this one must not be referred to.
    leaving: u32,
    kept: BTreeMap<Position, Kept>,
    facts: BTreeMap<Vec<u8>, Vec<u8>>,
    redelivered: HashSet<(QueueId, u64)>,
    /// Marks by the segment that has them.
    released: Vec<(u32, QueueId, u64)>,
    returned: HashMap<(QueueId, u64), u32>,
    next_seq: HashMap<QueueId, u64>,
    /// Takes no messages any more.
    full: bool,
    /// Takes no facts any more.
    no_facts: bool,
    /// References to earlier records are refused, as when their segment is about to go.
    no_references: bool,
    damaged: HashSet<Position>,
    waiters: Vec<(Index, Arc<dyn Waiter>)>,
    /// Records of returns.
    returns: usize,
}

/// See the module.
#[derive(Default)]
pub struct Ledger(Mutex<Book>);

impl Ledger {
    pub fn set_full(&self, full: bool) {
        self.0.lock().full = full;
    }

    pub fn fail_facts(&self, fail: bool) {
        self.0.lock().no_facts = fail;
    }

    pub fn refuse_references(&self) {
        self.0.lock().no_references = true;
    }

    pub fn by_hand(&self) {
        self.0.lock().by_hand = true;
    }

    /// Everything so far is on stable storage.
    pub fn sync(&self) {
        let due = {
            let mut book = self.0.lock();
            book.durable = book.last;
            let durable = book.durable;
            let (due, later) = std::mem::take(&mut book.waiters).into_iter().partition(|(index, _)| *index <= durable);
            book.waiters = later;
            let due: Vec<_> = due;
            due.into_iter().map(|(_, waiter)| (durable, waiter)).collect::<Vec<_>>()
        };
        due.into_iter().for_each(|(durable, waiter)| waiter.durable(durable));
    }

    /// The body of everything that a restart would find, by queue and sequence number.
    pub fn bodies(&self, queue: QueueId) -> Vec<String> {
        let book = self.0.lock();
        let mut found: Vec<_> = book.kept.values().filter(|kept| kept.queue == queue).collect();
        found.sort_by_key(|kept| kept.seq);
        found.iter().map(|kept| String::from_utf8_lossy(kept.message.body()).into_owned()).collect()
    }

    pub fn records(&self) -> usize {
        self.0.lock().kept.len()
    }

    /// How many records told of returns.
    pub fn returns(&self) -> usize {
        self.0.lock().returns
    }

    /// How many records have a content of their own.
    pub fn contents(&self) -> usize {
        self.0.lock().kept.iter().filter(|(at, kept)| **at == kept.content).count()
    }

    pub fn facts(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.0.lock().facts.clone()
    }

    pub fn forget_facts(&self) {
        self.0.lock().facts.clear();
    }

    /// The next read of what is now stored fails.
    pub fn damage(&self, body: &str) {
        let mut book = self.0.lock();
        let hit: Vec<_> =
            book.kept.iter().filter(|(_, kept)| kept.message.body() == body.as_bytes()).map(|(at, _)| *at).collect();
        assert!(!hit.is_empty(), "{body} is stored");
        book.damaged.extend(hit);
    }

    /// Moves every record to a new segment, as the cleaner does, and frees the old one. Returns what was left behind.
    pub fn move_all(&self, owner: &dyn Owner) -> Vec<String> {
        let old: Vec<(Position, Kept)> = {
            let mut book = self.0.lock();
            book.segment += 1;
            book.leaving = book.segment + 1;
            // It stands in the segments that go.
            book.returned.clear();
            book.kept.iter().map(|(at, kept)| (*at, kept.clone())).collect()
        };
        let (damaged, sound): (Vec<_>, Vec<_>) = {
            let book = self.0.lock();
            old.iter().partition(|(from, _)| book.damaged.contains(from))
        };
        let relocations = sound.into_iter().map(|(from, kept)| Relocation {
            queue: kept.queue,
            seq: kept.seq,
            from: *from,
            content_at: kept.content,
            expires_at: kept.expires_at,
            message: afresh(&kept.message),
        });
        owner.relocate(relocations.collect()).expect("relocates");
        let mut left = Vec::new();
        for (at, kept) in damaged {
            let queue = owner.lost(kept.queue, kept.seq, *at).expect("appends");
            left.extend(queue.map(|queue| format!("{queue}/{}", kept.seq)));
        }
        let mut book = self.0.lock();
        let segment = book.segment;
        book.released.retain(|mark| mark.0 >= segment);
        for (at, kept) in old {
            let moved =
                book.kept.iter().any(|(to, other)| *to != at && (other.queue, other.seq) == (kept.queue, kept.seq));
            if book.kept.remove(&at).is_some() && !moved {
                left.push(String::from_utf8_lossy(kept.message.body()).into_owned());
            }
        }
        left
    }

    /// What opening the store would tell.
    pub fn recovered(&self, clean: bool) -> Recovered {
        let book = self.0.lock();
        let mut recovered = Recovered { clean, ..Recovered::default() };
        recovered.facts = book.facts.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        for (&position, kept) in &book.kept {
            let queue = recovered.queues.entry(kept.queue).or_default();
            let redelivered = !clean || book.redelivered.contains(&(kept.queue, kept.seq));
            let (seq, expires_at) = (kept.seq, kept.expires_at);
            let returns = book.returned.get(&(kept.queue, seq)).copied().unwrap_or(0);
            let released = book.released.iter().any(|(_, queue, mark)| (*queue, *mark) == (kept.queue, seq));
            queue.entries.push(RecoveredEntry { seq, position, expires_at, returns, redelivered, released });
        }
        for (&id, &next_seq) in &book.next_seq {
            let queue = recovered.queues.entry(id).or_default();
            queue.entries.sort_by_key(|entry| entry.seq);
            queue.next_seq = next_seq;
        }
        recovered
    }
}

/// The same message without knowledge of where it is stored, as it is read from a file.
fn afresh(message: &Message) -> Message {
    Message::assemble(*message.facts(), message.exchange(), message.routing_key(), message.properties(), message.body())
}

impl Book {
    fn enqueue(&mut self, position: Position, record: &Record<'_>) -> Result<(), StoreError> {
        let Record::Enqueued { queue, seq, expires_at, content } = record else { return Ok(()) };
        let (message, content) = match content {
            _ if self.full => return Err(StoreError::Full),
            Content::Inline(message) => (Message::clone(message), position),
            Content::At(at) if self.no_references || at.segment() < self.leaving => {
                return Err(StoreError::Missing(*at));
            }
            Content::At(at) => {
                let kept = self.kept.get(at).ok_or(StoreError::Missing(*at))?;
                (kept.message.clone(), kept.content)
            }
        };
        let next = self.next_seq.entry(*queue).or_insert(1);
        *next = (*next).max(seq + 1);
        self.kept.insert(position, Kept { queue: *queue, seq: *seq, expires_at: *expires_at, message, content });
        Ok(())
    }

    /// What is freed must be there, belong to the queue, and be freed once.
    fn free(&mut self, queue: QueueId, freed: &[Position]) -> Vec<u64> {
        let gone = freed.iter().map(|at| {
            let kept = self.kept.remove(at).unwrap_or_else(|| panic!("{at:?} is freed, but nothing is there"));
            assert_eq!(kept.queue.owner(), queue, "freed for another queue");
            kept.seq
        });
        gone.collect()
    }
}

impl Journal for Ledger {
    fn append(&self, record: &Record<'_>) -> Result<Appended, StoreError> {
        let mut book = self.0.lock();
        let index = book.last + 1;
        // The low bits are the journal's own: whoever loses them hands back a place that is none.
        let number = u64::from(book.segment + 1) << 32 | index << 3 | (index % 7 + 1);
        let position = Position::from_number(number).expect("not 0");
        match record {
            Record::Enqueued { .. } => book.enqueue(position, record)?,
            Record::Settled { queue, ranges, freed } => {
                let mut gone = book.free(*queue, freed);
                let mut told: Vec<u64> = ranges.iter().flat_map(|one| one.first..one.first + one.count).collect();
                gone.sort_unstable();
                told.sort_unstable();
                assert_eq!(gone, told, "what is settled is what is freed");
            }
            Record::Dropped { queue, freed } => drop(book.free(queue.owner(), freed)),
            Record::Redelivered { queue, ranges } => {
                let all = ranges.iter().flat_map(|one| one.first..one.first + one.count).map(|seq| (*queue, seq));
                book.redelivered.extend(all);
            }
            Record::Released { queue, ranges } => {
                let segment = book.segment;
                let all = ranges.iter().flat_map(|one| one.first..one.first + one.count);
                book.released.extend(all.map(|seq| (segment, *queue, seq)));
            }
            Record::Fact { .. } if book.no_facts => return Err(StoreError::Full),
            Record::Returned { queue, ranges, times } => {
                let all = ranges.iter().flat_map(|one| one.first..one.first + one.count);
                book.returned.extend(all.map(|seq| ((*queue, seq), *times)));
                book.returns += 1;
            }
            Record::Fact { key, value: Some(value) } => drop(book.facts.insert(key.to_vec(), value.to_vec())),
            Record::Fact { key, value: None } => drop(book.facts.remove(*key)),
        }
        book.last = index;
        if !book.by_hand {
            book.durable = index;
        }
        Ok(Appended { index, position })
    }

    fn unit(&self) -> Unit<'_> {
        Unit::trivial()
    }

    fn last(&self) -> Index {
        self.0.lock().last
    }

    fn durable(&self) -> Index {
        self.0.lock().durable
    }

    fn wait_for(&self, index: Index, waiter: Arc<dyn Waiter>) {
        let durable = {
            let mut book = self.0.lock();
            if book.durable < index {
                book.waiters.push((index, waiter));
                return;
            }
            book.durable
        };
        waiter.durable(durable);
    }

    fn nudge(&self) {}

    fn read(&self, positions: &[Position], each: &mut dyn FnMut(usize, Result<Message, StoreError>)) {
        for (place, position) in positions.iter().enumerate() {
            let found = {
                let book = self.0.lock();
                let kept = book.kept.get(position).filter(|_| !book.damaged.contains(position));
                kept.map(|kept| afresh(&kept.message)).ok_or(StoreError::Missing(*position))
            };
            each(place, found);
        }
    }

    /// Each record counts as a byte.
    fn backlog(&self) -> usize {
        let book = self.0.lock();
        (book.last - book.durable) as usize
    }

    fn space(&self) -> Space {
        Space::Plenty
    }

    fn disk_bytes(&self) -> u64 {
        0
    }
}
