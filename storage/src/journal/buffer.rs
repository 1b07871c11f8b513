//! Appending: records are encoded into memory under a short lock, and chunks of them handed to the journal's thread.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use portolan_core::store::{Appended, Content, Index, Position, Record, StoreError, Waiter};

use crate::encode::{self, Kind};
use crate::journal::footer::{self, Builder, EnqueuedEntry, Footer, Mark, TRAILER};
use crate::journal::frame::{self, Head, ROUND, Round, write_round};
use crate::journal::replay::Truncation;
use crate::journal::segment::{self, Class, Header, Segment, Table};

/// Consecutive bytes of one segment, written and synced together.
#[derive(Debug, Default)]
pub(crate) struct Chunk {
    pub(crate) segment: u32,
    /// Bytes of the segment's file.
    pub(crate) length: u64,
    /// Where in the segment it goes.
    pub(crate) start: u32,
    pub(crate) bytes: Vec<u8>,
    /// Last index of the journal up to here.
    pub(crate) last: Index,
    /// Written after the bytes when nothing more comes to this segment.
    pub(crate) footer: Option<Footer>,
    /// Where in the bytes the round's mark is, and its index.
    round: Option<(usize, Index)>,
    /// The last of its group: only with it are the records of the group durable.
    pub(crate) ends_group: bool,
}

/// What may go wrong on the way into the buffer, seen from the disk.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    /// Messages are not welcome.
    pub(crate) low: bool,
    /// Space for the next segment is reserved.
    pub(crate) reserved: bool,
    /// The active segment has disk space up to here; beyond it more is taken.
    pub(crate) firm: u64,
    /// Bytes that the disk had left when last asked, less what has been taken since.
    pub(crate) free: u64,
    /// The same of the room below the floor, which is for records that make room.
    pub(crate) below_floor: u64,
    /// Segments up to this one have their files.
    pub(crate) made: u32,
}

/// How the journal's thread sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sleep {
    Awake,
    /// It will look again soon by itself.
    Light,
    /// Until it is woken.
    Deep,
}

/// Everything behind the journal's lock.
pub(crate) struct State {
    pub(crate) table: Table,
    /// Where the next frame goes.
    pub(crate) offset: u32,
    /// Index of the next record.
    pub(crate) next: Index,
    pub(crate) builder: Builder,
    pub(crate) chunk: Chunk,
    /// Earlier chunks that the journal's thread has not taken yet.
    pub(crate) full: VecDeque<Chunk>,
    /// Chunks that it is writing.
    pub(crate) in_flight: VecDeque<Arc<Chunk>>,
    /// A buffer for the next chunk.
    pub(crate) spare: Vec<u8>,
    pub(crate) unsynced: usize,
    /// Bytes appended since the start, and those of them that the cleaner appended.
    pub(crate) appended: u64,
    pub(crate) copied: u64,
    pub(crate) waiters: Vec<(Index, Arc<dyn Waiter>)>,
    pub(crate) failed: Option<Arc<str>>,
    pub(crate) sleep: Sleep,
    /// Somebody waits for what is in the buffer.
    pub(crate) urgent: bool,
    pub(crate) closing: bool,
    pub(crate) room: Room,
    /// Content in this segment and older ones must not be referred to any more: they are about to go.
    pub(crate) leaving: u32,
    /// Counts chunks that are complete, and chunks synced, those of a group when its last one is.
    pub(crate) begun: u64,
    pub(crate) synced: u64,
    /// Chunks synced of a group whose last one is not.
    partly_synced: u64,
    /// Index at which the group that is gathering began.
    group: Option<Index>,
    /// Threads of ours that wait for a count.
    pub(crate) synced_watchers: u32,
    pub(crate) facts: FactSizes,
    /// Facts for the checkpoint.
    pub(crate) mirror: Vec<MirrorFact>,
    pub(crate) mirroring: bool,
    /// The checkpoint is to forget what it has before it takes them.
    pub(crate) mirror_anew: bool,
    /// Marks in the journal that make records void.
    pub(crate) truncations: Vec<Truncation>,
    pub(crate) limits: Limits,
    seed: u32,
}

/// A fact on its way to the checkpoint.
pub(crate) struct MirrorFact {
    pub(crate) index: Index,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Option<Vec<u8>>,
}

/// Fixed figures of the buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) segment: u64,
    pub(crate) write: usize,
    pub(crate) unsynced: usize,
    /// Kept free in the active segment for records other than messages while no next segment is assured.
    pub(crate) reserve: u64,
}

/// Knows how many bytes the facts in force take.
#[derive(Debug, Default)]
pub(crate) struct FactSizes {
    sizes: HashMap<u64, u32>,
    pub(crate) bytes: u64,
}

impl FactSizes {
    pub(crate) fn learn(&mut self, key: &[u8], value: Option<&[u8]>) {
        // Two checksums make 64 bits; a rare collision only blurs an estimate.
        let hash = u64::from(crc32c::crc32c(key)) << 32 | u64::from(crc32c::crc32c_append(!0, key)) ^ key.len() as u64;
        let size = value.map(|value| frame::size(4 + key.len() + value.len()) as u32);
        let before = match size {
            Some(size) => self.sizes.insert(hash, size),
            None => self.sizes.remove(&hash),
        };
        self.bytes = self.bytes + u64::from(size.unwrap_or(0)) - u64::from(before.unwrap_or(0));
    }
}

impl Chunk {
    /// Nothing more comes to it: its mark and its segment's index say so.
    fn complete(&mut self) {
        let goes_on = !self.ends_group;
        if let Some(footer) = self.footer.as_mut().filter(|_| !goes_on) {
            footer.open = 0;
        }
        let Some((at, index)) = self.round else { return };
        let mut mark = Vec::with_capacity(ROUND);
        let round = Round { length: (self.bytes.len() - at) as u32, goes_on };
        write_round(&mut mark, frame::seed(self.segment), index, round);
        if let Some(place) = self.bytes.get_mut(at..at + ROUND) {
            place.copy_from_slice(&mark);
        }
    }
}

/// Kept free for the marks without which no space can become free.
const VITAL: u64 = 1024;

/// How welcome a record is when space is scarce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// Takes space: a message.
    Ordinary,
    /// Frees space, or is small and rare, or comes from the cleaner.
    Pressing,
    /// Without it no space can become free.
    Vital,
}

impl State {
    pub(crate) fn new(table: Table, offset: u32, next: Index, builder: Builder, limits: Limits) -> Self {
        let seed = frame::seed(table.iter().next_back().map_or(0, |segment| segment.number));
        Self {
            table,
            offset,
            next,
            builder,
            chunk: Chunk::default(),
            full: VecDeque::new(),
            in_flight: VecDeque::new(),
            spare: Vec::new(),
            unsynced: 0,
            appended: 0,
            copied: 0,
            waiters: Vec::new(),
            failed: None,
            sleep: Sleep::Awake,
            urgent: false,
            closing: false,
            room: Room { low: false, reserved: false, firm: u64::MAX, free: 0, below_floor: 0, made: 0 },
            leaving: 0,
            begun: 0,
            synced: 0,
            partly_synced: 0,
            group: None,
            synced_watchers: 0,
            facts: FactSizes::default(),
            mirror: Vec::new(),
            mirroring: false,
            mirror_anew: false,
            truncations: Vec::new(),
            limits,
            seed,
        }
    }

    /// Adds a record; `pressing` when space is no reason to refuse it.
    pub(crate) fn append(
        &mut self,
        record: &Record<'_>,
        group: u16,
        term: u32,
        pressing: bool,
    ) -> Result<Appended, StoreError> {
        let length = encode::payload_len(record);
        let size = frame::size(length);
        let (need, ranges) = match record {
            Record::Enqueued { content, .. } => {
                if let Content::At(position) = content {
                    self.check_content(*position)?;
                }
                (if pressing { Need::Pressing } else { Need::Ordinary }, 0)
            }
            Record::Settled { ranges, .. }
            | Record::Redelivered { ranges, .. }
            | Record::Released { ranges, .. }
            | Record::Returned { ranges, .. } => (Need::Pressing, ranges.len()),
            Record::Dropped { .. } | Record::Fact { .. } => (Need::Pressing, 0),
        };
        self.make_room(size, Builder::bound(ranges), need)?;
        let class = match record {
            Record::Enqueued { .. } => Class::of(size),
            _ => Class::from_number(0),
        };
        let number = self.chunk.segment;
        let index = self.next;
        let missing = || StoreError::Failed("a record has no position".into());
        let position = Position::new(number, self.offset | u32::from(class.number())).ok_or_else(missing)?;
        let head = Head { length, index, term, group, kind: encode::kind(record) };
        frame::write(&mut self.chunk.bytes, self.seed, &head, |out| encode::write_payload(record, out));
        self.note(record, position, class, size);
        self.advance(size);
        self.next += 1;
        self.chunk.last = index;
        Ok(Appended { index, position })
    }

    fn check_content(&self, content: Position) -> Result<(), StoreError> {
        let number = content.segment();
        if number <= self.leaving || self.table.get(number).is_none() {
            return Err(StoreError::Missing(content));
        }
        Ok(())
    }

    /// Adds a mark of the journal.
    pub(crate) fn append_mark(&mut self, mark: Mark) -> Result<(), StoreError> {
        let (kind, number) = match mark {
            Mark::Truncated(after) => (Kind::Truncated, after),
            Mark::Discarded(before) => (Kind::Discarded, u64::from(before)),
            Mark::Gap(next) => (Kind::Gap, next),
            Mark::Opened => (Kind::Opened, 0),
            Mark::Closed => (Kind::Closed, 0),
        };
        let size = frame::size(8);
        let vital = matches!(mark, Mark::Discarded(_) | Mark::Truncated(_));
        self.make_room(size, Builder::bound(0), if vital { Need::Vital } else { Need::Pressing })?;
        let head = Head { length: 8, index: self.next, term: 0, group: 0, kind };
        frame::write(&mut self.chunk.bytes, self.seed, &head, |out| out.extend_from_slice(&number.to_le_bytes()));
        self.builder.mark(mark);
        self.advance(size);
        if let Mark::Truncated(after) = mark {
            self.next = after + 1;
        }
        self.chunk.last = self.next - 1;
        Ok(())
    }

    fn advance(&mut self, size: usize) {
        self.offset += size as u32;
        self.unsynced += size;
        self.appended += size as u64;
    }

    /// Remembers what the segment's index and the table must know of a record.
    fn note(&mut self, record: &Record<'_>, position: Position, class: Class, size: usize) {
        let offset = self.offset;
        match record {
            Record::Enqueued { queue, seq, expires_at, content } => {
                let elsewhere = match content {
                    Content::At(content) => Some(content.segment()),
                    Content::Inline(_) => None,
                };
                let number = position.segment();
                let entry = EnqueuedEntry {
                    offset,
                    class,
                    queue: *queue,
                    seq: *seq,
                    expires_at: *expires_at,
                    content: elsewhere,
                    referred: elsewhere.is_some(),
                };
                self.builder.enqueued(&entry, number);
                self.table.enliven(position);
                if let Some(content) = elsewhere {
                    self.table.refer(position, content);
                }
                if let Some(segment) = self.table.active() {
                    segment.sizes.count(class, size);
                }
            }
            Record::Settled { queue, ranges, .. } => self.builder.settled(*queue, ranges.iter().copied()),
            Record::Redelivered { queue, ranges } => self.builder.redelivered(*queue, ranges.iter().copied()),
            Record::Released { queue, ranges } => self.builder.released(*queue, ranges.iter().copied()),
            Record::Returned { queue, ranges, times } => self.builder.returned(*queue, ranges.iter().copied(), *times),
            Record::Dropped { queue, .. } => self.builder.dropped(*queue),
            Record::Fact { key, value } => {
                self.builder.fact(offset);
                self.facts.learn(key, *value);
                if let Some(segment) = self.table.active() {
                    segment.facts += 1;
                }
                if self.mirroring {
                    let (key, value) = (key.to_vec(), value.map(<[u8]>::to_vec));
                    self.mirror.push(MirrorFact { index: self.next, key, value });
                }
            }
        }
    }

    /// Sees to it that a frame of `size` bytes fits at `self.offset`, in a chunk that has begun.
    fn make_room(&mut self, size: usize, entry: usize, need: Need) -> Result<(), StoreError> {
        if let Some(reason) = &self.failed {
            return Err(StoreError::Failed(Arc::clone(reason)));
        }
        if self.closing {
            return Err(StoreError::Failed("the store is closed".into()));
        }
        let limit = if need == Need::Ordinary { self.limits.unsynced } else { 2 * self.limits.unsynced };
        let over = self.unsynced > 0 && self.unsynced.saturating_add(size) > limit;
        if over || (need == Need::Ordinary && self.room.low) {
            return Err(StoreError::Full);
        }
        let lead = self.lead();
        let tail = footer::frame_size(self.builder.bytes().len() + entry) + TRAILER;
        let end = u64::from(self.offset) + (lead + size + tail) as u64;
        let length = self.table.active().map_or(0, |segment| segment.length);
        // Twice what the next roll asks for: the reserve is not spent on a promise that the next look may break.
        let assured = self.room.reserved || self.may_take(2 * self.limits.segment);
        let keep = match need {
            _ if assured => 0,
            Need::Ordinary => self.limits.reserve,
            Need::Pressing => VITAL,
            Need::Vital => 0,
        };
        if end + keep > length {
            let alone = segment::HEADER + ROUND + size + footer::frame_size(entry) + TRAILER;
            self.roll(alone as u64, need)?;
        } else if end + keep > self.room.firm {
            self.take_room(length.saturating_sub(self.room.firm), need)?;
            self.room.firm = u64::MAX;
        }
        if self.chunk.bytes.is_empty() {
            self.begin_chunk();
        }
        Ok(())
    }

    /// Bytes that go before the next frame.
    fn lead(&self) -> usize {
        match (self.chunk.bytes.is_empty(), self.offset) {
            (false, _) => 0,
            (true, 0) => segment::HEADER + ROUND,
            (true, _) => ROUND,
        }
    }

    /// The disk had room for that much more when it was last asked.
    fn may_take(&self, bytes: u64) -> bool {
        self.room.free >= bytes.saturating_mul(2)
    }

    /// Counts on so many more bytes of the disk.
    fn take_room(&mut self, bytes: u64, need: Need) -> Result<(), StoreError> {
        if self.may_take(bytes) {
            self.room.free -= bytes;
        } else if need != Need::Ordinary && self.room.below_floor >= bytes.saturating_mul(2) {
            self.room.below_floor -= bytes;
        } else {
            return Err(StoreError::Full);
        }
        Ok(())
    }

    /// Ends the active segment before it is full, so that it can be cleaned: what comes next goes to another one.
    pub(crate) fn end_segment(&mut self) -> Result<(), StoreError> {
        let Some(oldest) = self.table.oldest().map(|oldest| oldest.number) else { return Ok(()) };
        if self.offset > 0 {
            self.roll(0, Need::Pressing)?;
        }
        // Says nothing new: a segment counts as written when something is in the one after it.
        self.append_mark(Mark::Discarded(oldest))
    }

    /// Ends the active segment and goes on in a new one that has room for `alone` bytes.
    fn roll(&mut self, alone: u64, need: Need) -> Result<(), StoreError> {
        let Some(active) = self.table.iter().next_back() else { return Err(StoreError::Full) };
        let (number, before, first, sizes) = (active.number, active.length, active.first, active.sizes);
        let length = if alone <= self.limits.segment { self.limits.segment } else { alone.next_multiple_of(4096) };
        let assured = self.room.reserved && length == self.limits.segment;
        let next = number.checked_add(1).filter(|_| u32::try_from(length).is_ok());
        let Some(next) = next else { return Err(StoreError::Full) };
        if assured {
            self.room.reserved = false;
        } else {
            self.take_room(length, need)?;
        }
        self.room.firm = u64::MAX;
        if self.offset == 0 {
            // Nothing has gone into the active segment: it can still be made as long as this record needs.
            if let Some(active) = self.table.active() {
                active.length = length;
                self.table.disk_bytes += length - before;
            }
            return Ok(());
        }
        let mut footer = std::mem::take(&mut self.builder).footer(first, self.next, self.offset, sizes);
        footer.open = self.group.map_or(0, |group| u32::try_from(self.next.saturating_sub(group)).unwrap_or(u32::MAX));
        let mut last = self.take_chunk();
        if last.bytes.is_empty() {
            last = Chunk { segment: number, length: before, start: self.offset, last: self.next - 1, ..last };
        }
        last.footer = Some(footer);
        self.full.push_back(last);
        self.begun += 1;
        self.table.push(Segment::new(next, length, self.next));
        self.offset = 0;
        self.seed = frame::seed(next);
        Ok(())
    }

    fn take_chunk(&mut self) -> Chunk {
        let bytes = std::mem::take(&mut self.spare);
        std::mem::replace(&mut self.chunk, Chunk { bytes, ..Chunk::default() })
    }

    fn begin_chunk(&mut self) {
        let Some(active) = self.table.active() else { return };
        let (number, length, first) = (active.number, active.length, active.first);
        let start = self.offset;
        self.chunk.segment = number;
        self.chunk.length = length;
        self.chunk.start = start;
        if start == 0 {
            self.chunk.bytes.extend_from_slice(&Header { number, length, first: Some(first) }.encode());
        }
        // The journal's thread writes a chunk only when all before it is on stable storage. That is what a round's
        // mark tells a recovery that finds a hole before it.
        self.chunk.round = Some((self.chunk.bytes.len(), self.next));
        write_round(&mut self.chunk.bytes, self.seed, self.next, Round { length: 0, goes_on: false });
        self.group.get_or_insert(self.next);
        self.chunk.last = self.next - 1;
        self.advance(self.chunk.bytes.len());
    }

    pub(crate) fn stop_mirroring(&mut self) {
        self.mirroring = false;
        self.mirror = Vec::new();
    }

    /// Nothing waits to be written.
    pub(crate) fn is_idle(&self) -> bool {
        self.full.is_empty() && self.chunk.bytes.is_empty()
    }

    /// Hands everything to the journal's thread, as one group: what recovery finds of it counts only when all of it
    /// is there.
    pub(crate) fn take(&mut self) {
        let mut group = std::mem::take(&mut self.full);
        if !self.chunk.bytes.is_empty() {
            let chunk = self.take_chunk();
            group.push_back(chunk);
            self.begun += 1;
        }
        if let Some(last) = group.back_mut() {
            last.ends_group = true;
        }
        group.iter_mut().for_each(Chunk::complete);
        self.in_flight.extend(group.into_iter().map(Arc::new));
        self.group = None;
        self.urgent = false;
    }

    /// The first chunk in flight is on stable storage: takes it off and returns who waited for it.
    pub(crate) fn done(&mut self, due: &mut Vec<Arc<dyn Waiter>>) {
        let Some(chunk) = self.in_flight.pop_front() else { return };
        self.partly_synced += 1;
        let ends_group = chunk.ends_group;
        if ends_group {
            self.synced += std::mem::take(&mut self.partly_synced);
        }
        self.unsynced = self.unsynced.saturating_sub(chunk.bytes.len());
        let last = chunk.last;
        if let Ok(mut chunk) = Arc::try_unwrap(chunk) {
            // A burst's buffer is given back: memory is for messages.
            if chunk.bytes.capacity() <= 2 * self.limits.write && self.spare.capacity() < chunk.bytes.capacity() {
                chunk.bytes.clear();
                self.spare = chunk.bytes;
            }
        }
        self.waiters.retain(|(index, waiter)| {
            let waits = *index > last || !ends_group;
            if !waits {
                due.push(Arc::clone(waiter));
            }
            waits
        });
    }
}
