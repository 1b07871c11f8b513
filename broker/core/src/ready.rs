//! Messages that wait for a consumer, in order: the first ones in memory, a long tail as places in the journal.

use std::collections::VecDeque;

use crate::message::Message;
use crate::store::Position;

/// A message in a queue.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its number in the queue; lower ones came earlier.
    pub seq: u64,
    /// Where it is stored.
    pub position: Option<Position>,
    /// The message, `None` while it is only stored.
    pub message: Option<Message>,
    /// Milliseconds since the epoch, 0 for never.
    pub expires_at: u64,
    /// Times it came back from a consumer.
    pub returns: u32,
    /// It was delivered before.
    pub redelivered: bool,
}

impl Entry {
    /// Bytes of the body, 0 while it is only stored.
    pub fn body_bytes(&self) -> u64 {
        self.message.as_ref().map_or(0, |message| message.body().len() as u64)
    }
}

/// Entries of a chunk; also how many bodies are read at once.
const CHUNK: usize = 512;
/// A packed entry: 22 bits of segment above the chunk's lowest, 32 bits of offset with the journal's notes in it,
/// 10 bits of sequence number above the chunk's first.
const OFFSET_BITS: u32 = 32;
const SEQ_BITS: u32 = 10;

/// Up to [`CHUNK`] consecutive entries of the tail in 8 bytes each.
#[derive(Debug)]
struct Chunk {
    first_seq: u64,
    first_segment: u32,
    packed: Vec<u64>,
    /// Expiry times, empty when none of them expires.
    expires: Vec<u64>,
    /// Times they came back, empty when none of them did.
    returns: Vec<u32>,
    redelivered: bool,
}

impl Chunk {
    fn new(entry: &Entry, position: Position) -> Self {
        Self {
            first_seq: entry.seq,
            first_segment: position.segment(),
            packed: Vec::new(),
            expires: Vec::new(),
            returns: Vec::new(),
            redelivered: entry.redelivered,
        }
    }

    fn pack(&self, seq: u64, position: Position) -> Option<u64> {
        let seq = seq.checked_sub(self.first_seq).filter(|&seq| seq < 1 << SEQ_BITS)?;
        let segment = u64::from(position.segment().checked_sub(self.first_segment)?);
        let fits = segment < 1 << (64 - OFFSET_BITS - SEQ_BITS);
        fits.then_some(segment << (OFFSET_BITS + SEQ_BITS) | u64::from(position.offset()) << SEQ_BITS | seq)
    }

    fn unpack(&self, at: usize) -> Option<Entry> {
        let packed = *self.packed.get(at)?;
        let segment = self.first_segment.checked_add((packed >> (OFFSET_BITS + SEQ_BITS)) as u32)?;
        let offset = (packed >> SEQ_BITS) as u32;
        Some(Entry {
            seq: self.first_seq + (packed & ((1 << SEQ_BITS) - 1)),
            position: Position::new(segment, offset),
            message: None,
            expires_at: self.expires.get(at).copied().unwrap_or(0),
            returns: self.returns.get(at).copied().unwrap_or(0),
            redelivered: self.redelivered,
        })
    }

    /// Adds an entry if it can be expressed relative to this chunk.
    fn push(&mut self, entry: &Entry, position: Position) -> bool {
        let Some(packed) = self.pack(entry.seq, position) else {
            return false;
        };
        if self.packed.len() >= CHUNK || entry.redelivered != self.redelivered {
            return false;
        }
        if entry.expires_at != 0 || !self.expires.is_empty() {
            self.expires.resize(self.packed.len(), 0);
            self.expires.push(entry.expires_at);
        }
        if entry.returns != 0 || !self.returns.is_empty() {
            self.returns.resize(self.packed.len(), 0);
            self.returns.push(entry.returns);
        }
        self.packed.push(packed);
        true
    }

    fn remove(&mut self, seq: u64) -> Option<Entry> {
        let at = self.find(seq)?;
        let entry = self.unpack(at);
        self.packed.remove(at);
        if at < self.expires.len() {
            self.expires.remove(at);
        }
        if at < self.returns.len() {
            self.returns.remove(at);
        }
        entry
    }

    fn find(&self, seq: u64) -> Option<usize> {
        let relative = seq.checked_sub(self.first_seq)?;
        self.packed.binary_search_by_key(&relative, |packed| packed & ((1 << SEQ_BITS) - 1)).ok()
    }
}

/// One order of messages, first in first out.
#[derive(Debug, Default)]
pub struct Ready {
    head: VecDeque<Entry>,
    chunks: VecDeque<Chunk>,
    in_chunks: usize,
    /// Bytes of the messages that are in memory.
    memory: usize,
    /// The first of the head's bodies that have been asked for and are not here yet.
    awaiting: Option<u64>,
}

impl Ready {
    /// How many messages wait.
    pub fn len(&self) -> usize {
        self.head.len() + self.in_chunks
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.head.is_empty() && self.in_chunks == 0
    }

    /// Bytes of the bodies in memory.
    pub fn memory(&self) -> usize {
        self.memory
    }

    /// How many messages are only stored.
    pub fn paged(&self) -> usize {
        self.in_chunks
    }

    /// The next message to leave.
    pub fn front(&self) -> Option<&Entry> {
        self.head.front()
    }

    /// When the next message to leave expires, 0 for never.
    pub fn front_expires_at(&self) -> u64 {
        match self.head.front() {
            Some(entry) => entry.expires_at,
            None => self.chunks.front().and_then(|chunk| chunk.expires.first()).copied().unwrap_or(0),
        }
    }

    /// Later messages are stored only, so that the next one has to be, too.
    pub fn has_tail(&self) -> bool {
        self.in_chunks > 0
    }

    /// Takes the next message.
    pub fn pop(&mut self) -> Option<Entry> {
        let entry = self.head.pop_front()?;
        self.memory -= entry.message.as_ref().map_or(0, Message::footprint);
        if self.head.is_empty() && self.head.capacity() > 2 * CHUNK {
            self.head = VecDeque::new();
        }
        Some(entry)
    }

    /// Adds the newest message, keeping its body in memory.
    pub fn push(&mut self, entry: Entry) {
        // It comes after the tail, so the tail's places can no longer wait in their packed form.
        if self.in_chunks > 0 {
            self.unpack_until(usize::MAX);
        }
        self.memory += entry.message.as_ref().map_or(0, Message::footprint);
        self.head.push_back(entry);
    }

    /// Adds the newest message by its place alone.
    pub fn push_paged(&mut self, entry: &Entry, position: Position) {
        let fits = self.chunks.back_mut().is_some_and(|chunk| chunk.push(entry, position));
        if !fits {
            if let Some(full) = self.chunks.back_mut() {
                full.packed.shrink_to_fit();
            }
            let mut chunk = Chunk::new(entry, position);
            chunk.push(entry, position);
            self.chunks.push_back(chunk);
        }
        self.in_chunks += 1;
    }

    /// Returns a message to where it was.
    pub fn put_back(&mut self, entry: Entry) {
        self.memory += entry.message.as_ref().map_or(0, Message::footprint);
        match self.head.front() {
            Some(front) if front.seq < entry.seq => {
                let at = self.head.partition_point(|known| known.seq < entry.seq);
                self.head.insert(at, entry);
            }
            _ => self.head.push_front(entry),
        }
    }

    /// Moves the tail's first chunks to the head until it holds `enough` entries.
    fn unpack_until(&mut self, enough: usize) {
        while self.head.len() < enough {
            let Some(chunk) = self.chunks.pop_front() else {
                break;
            };
            self.in_chunks -= chunk.packed.len();
            self.head.extend((0..chunk.packed.len()).filter_map(|at| chunk.unpack(at)));
        }
    }

    /// Moves the tail's first chunks to the head until it holds a chunk's worth, and names the bodies to read for
    /// it; empty when none are missing or they have been asked for already.
    pub fn wanted(&mut self) -> Vec<(u64, Position)> {
        if self.awaiting.is_some() {
            return Vec::new();
        }
        self.unpack_until(CHUNK);
        let missing = self.head.iter().filter(|entry| entry.message.is_none());
        let wanted: Vec<_> = missing.take(CHUNK).filter_map(|entry| entry.position.map(|at| (entry.seq, at))).collect();
        self.awaiting = wanted.first().map(|&(seq, _)| seq);
        wanted
    }

    /// The head runs low and there is more behind it.
    pub fn runs_low(&self) -> bool {
        self.awaiting.is_none()
            && (self.in_chunks > 0 && self.head.len() < CHUNK || self.head.front().is_some_and(|e| e.message.is_none()))
    }

    /// A body that was asked for is here, or cannot be read: with the first one, the others are, too, or have to be
    /// asked for again.
    pub fn answered(&mut self, seq: u64) {
        if self.awaiting == Some(seq) {
            self.awaiting = None;
        }
    }

    /// Does not wait any longer for what has been asked for.
    pub fn end_wait(&mut self) {
        self.awaiting = None;
    }

    /// Makes the next entry's place and time known when only the tail holds any.
    pub fn bring_head(&mut self) {
        if self.head.is_empty() {
            self.unpack_until(1);
        }
    }

    /// Fills in a body. Returns false when no entry waits for it.
    pub fn fill(&mut self, seq: u64, message: Message) -> bool {
        let Ok(at) = self.head.binary_search_by_key(&seq, |entry| entry.seq) else {
            return false;
        };
        match self.head.get_mut(at) {
            Some(entry) if entry.message.is_none() => {
                self.memory += message.footprint();
                entry.message = Some(message);
                true
            }
            _ => false,
        }
    }

    /// The body of a message with its expiry time, if it is in memory.
    pub fn body(&self, seq: u64) -> Option<(Message, u64)> {
        let at = self.head.binary_search_by_key(&seq, |entry| entry.seq).ok()?;
        let entry = self.head.get(at)?;
        entry.message.clone().map(|message| (message, entry.expires_at))
    }

    /// Takes out one message wherever it is.
    pub fn remove(&mut self, seq: u64) -> Option<Entry> {
        let Ok(at) = self.head.binary_search_by_key(&seq, |entry| entry.seq) else {
            return self.remove_paged(seq);
        };
        let entry = self.head.remove(at)?;
        self.memory -= entry.message.as_ref().map_or(0, Message::footprint);
        Some(entry)
    }

    fn remove_paged(&mut self, seq: u64) -> Option<Entry> {
        let number = self.chunks.partition_point(|chunk| chunk.first_seq <= seq).checked_sub(1)?;
        let chunk = self.chunks.get_mut(number)?;
        let entry = chunk.remove(seq)?;
        self.in_chunks -= 1;
        if chunk.packed.is_empty() {
            self.chunks.remove(number);
        }
        Some(entry)
    }

    /// The journal moved a message; false when it is not here.
    pub fn relocate(&mut self, seq: u64, from: Position, to: Position) -> bool {
        if let Ok(at) = self.head.binary_search_by_key(&seq, |entry| entry.seq) {
            let here = self.head.get_mut(at).filter(|entry| entry.position == Some(from));
            return here.map(|entry| entry.position = Some(to)).is_some();
        }
        let at = self.chunks.partition_point(|chunk| chunk.first_seq <= seq);
        let Some(chunk) = at.checked_sub(1).and_then(|at| self.chunks.get_mut(at)) else {
            return false;
        };
        let Some(at) = chunk.find(seq) else {
            return false;
        };
        if chunk.unpack(at).and_then(|entry| entry.position) != Some(from) {
            return false;
        }
        match chunk.pack(seq, to) {
            Some(packed) => chunk.packed[at] = packed,
            None => return false,
        }
        true
    }

    /// How often a message came back.
    pub fn returns(&self, seq: u64) -> u32 {
        if let Ok(at) = self.head.binary_search_by_key(&seq, |entry| entry.seq) {
            return self.head.get(at).map_or(0, |entry| entry.returns);
        }
        let at = self.chunks.partition_point(|chunk| chunk.first_seq <= seq).checked_sub(1);
        let found = at.and_then(|at| self.chunks.get(at)).and_then(|chunk| chunk.unpack(chunk.find(seq)?));
        found.map_or(0, |entry| entry.returns)
    }

    /// The place of a message, if it is here.
    pub fn position(&self, seq: u64) -> Option<Position> {
        if let Ok(at) = self.head.binary_search_by_key(&seq, |entry| entry.seq) {
            return self.head.get(at)?.position;
        }
        let at = self.chunks.partition_point(|chunk| chunk.first_seq <= seq).checked_sub(1)?;
        let chunk = self.chunks.get(at)?;
        chunk.unpack(chunk.find(seq)?)?.position
    }

    /// Takes everything out.
    pub fn drain(&mut self) -> Vec<Entry> {
        let mut all: Vec<Entry> = std::mem::take(&mut self.head).into();
        for chunk in std::mem::take(&mut self.chunks) {
            all.extend((0..chunk.packed.len()).filter_map(|at| chunk.unpack(at)));
        }
        *self = Self { awaiting: self.awaiting, ..Self::default() };
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(seq: u64, segment: u32, offset: u32) -> Entry {
        let position = Position::new(segment, offset);
        Entry { seq, position, message: None, expires_at: seq % 3, returns: 0, redelivered: false }
    }

    #[test]
    fn the_tail_comes_back_as_it_went_in() {
        let mut ready = Ready::default();
        let entries: Vec<Entry> = (0..3000).map(|n| entry(n * 3, 7 + (n / 100) as u32, 8 + 8 * n as u32)).collect();
        for one in &entries {
            ready.push_paged(one, one.position.expect("has one"));
        }
        assert_eq!(ready.len(), 3000);
        for (one, drained) in entries.iter().zip(ready.drain()) {
            assert_eq!((one.seq, one.position, one.expires_at), (drained.seq, drained.position, drained.expires_at));
        }
        assert!(ready.is_empty());
    }

    #[test]
    fn returned_messages_find_their_place() {
        let mut ready = Ready::default();
        (0..4).for_each(|seq| ready.push(entry(seq, 1, 8)));
        let (zero, one) = (ready.pop().expect("0"), ready.pop().expect("1"));
        ready.put_back(one);
        ready.put_back(zero);
        let order: Vec<u64> = std::iter::from_fn(|| ready.pop()).map(|entry| entry.seq).collect();
        assert_eq!(order, [0, 1, 2, 3]);
    }

    #[test]
    fn a_moved_message_is_found_in_head_and_tail() {
        let mut ready = Ready::default();
        ready.push(entry(0, 1, 8));
        for seq in 1..2000 {
            let one = entry(seq, 1, 8 * seq as u32 + 8);
            ready.push_paged(&one, one.position.expect("has one"));
        }
        let to = Position::new(90, 64).expect("not 0");
        for seq in [0, 1, 1500] {
            let from = ready.position(seq).expect("here");
            assert!(ready.relocate(seq, from, to));
            assert_eq!(ready.position(seq), Some(to));
            assert!(!ready.relocate(seq, from, to), "no longer there");
        }
        assert_eq!(ready.position(5000), None);
    }

    #[test]
    fn wanted_names_the_next_bodies_once() {
        let mut ready = Ready::default();
        for seq in 0..1000 {
            let one = entry(seq, 1, 8 * seq as u32 + 8);
            ready.push_paged(&one, one.position.expect("has one"));
        }
        assert_eq!(ready.wanted().len(), CHUNK);
        assert!(ready.wanted().is_empty());
        ready.end_wait();
        assert_eq!(ready.wanted().len(), CHUNK, "still missing");
        assert_eq!(ready.len(), 1000);
    }
}
