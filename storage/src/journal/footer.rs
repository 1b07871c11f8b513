//! The index at the end of a sealed segment: what a restart must know of its records, in a few bytes each.

use portolan_core::store::{Index, Position, QueueId, SeqRange};

use crate::encode::{Kind, u32_at, u64_at};
use crate::journal::frame::{self, Head};
use crate::journal::segment::{CLASSES, Class, Sizes};

/// Bytes at the very end of a sealed segment that say where its index is.
pub(crate) const TRAILER: usize = 32;
const MAGIC: &[u8; 8] = b"PTLindex";

const INLINE: u8 = 0;
const REFERRED: u8 = 1;
const SETTLED: u8 = 2;
const REDELIVERED: u8 = 3;
const DROPPED: u8 = 4;
const FACT: u8 = 5;
const MARK: u8 = 6;
const KIND: u8 = 7;
const CLASS_SHIFT: u32 = 3;
/// In the place of the class: what was said of messages that had been delivered before.
const RELEASED: u8 = REDELIVERED | 1 << CLASS_SHIFT;
const RETURNED: u8 = REDELIVERED | 2 << CLASS_SHIFT;
/// The message follows the one before it in the same queue.
const NEXT: u8 = 0x40;
const EXPIRES: u8 = 0x80;

/// What an index tells of one record or mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry<'a> {
    Enqueued(EnqueuedEntry),
    Settled {
        queue: QueueId,
        ranges: &'a [SeqRange],
    },
    Redelivered {
        queue: QueueId,
        ranges: &'a [SeqRange],
    },
    Released {
        queue: QueueId,
        ranges: &'a [SeqRange],
    },
    Returned {
        queue: QueueId,
        ranges: &'a [SeqRange],
        times: u32,
    },
    Dropped {
        queue: QueueId,
    },
    /// The value is at that offset.
    Fact {
        offset: u32,
    },
    Mark(Mark),
}

/// What an index tells of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EnqueuedEntry {
    pub(crate) offset: u32,
    pub(crate) class: Class,
    pub(crate) queue: QueueId,
    pub(crate) seq: u64,
    pub(crate) expires_at: u64,
    /// Segment of the content when it is in another one.
    pub(crate) content: Option<u32>,
    /// The content is in another record, wherever that is.
    pub(crate) referred: bool,
}

/// A mark of the journal that a restart must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Earlier records with a higher index are void.
    Truncated(Index),
    /// Segments below this one are gone on purpose.
    Discarded(u32),
    /// The next record has this index, whatever came before.
    Gap(Index),
    Opened,
    Closed,
}

/// Collects a segment's index while it is written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Builder {
    bytes: Vec<u8>,
    before: Before,
    truncates: bool,
    discarded: u32,
}

/// How far a [`Builder`] had got.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place {
    bytes: usize,
    before: Before,
    truncates: bool,
    discarded: u32,
}

/// What the next entry is told relative to.
#[derive(Clone, Copy, Debug, Default)]
struct Before {
    offset: u64,
    queue: u64,
    seq: u64,
    expires_at: u64,
}

fn zigzag(new: u64, old: u64) -> u64 {
    let delta = new.wrapping_sub(old) as i64;
    ((delta << 1) ^ (delta >> 63)) as u64
}

fn unzigzag(number: u64, old: u64) -> u64 {
    old.wrapping_add((number >> 1) ^ (number & 1).wrapping_neg())
}

impl Builder {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The index of a segment that begins with record `first` and ends at `end`, before record `next`.
    pub(crate) fn footer(self, first: Index, next: Index, end: u32, sizes: Sizes) -> Footer {
        let (truncates, discarded) = (self.truncates, self.discarded);
        Footer { first, next, end, sizes, truncates, discarded, open: 0, entries: self.bytes }
    }

    /// How far it has got, to come back to.
    pub(crate) fn place(&self) -> Place {
        Place { bytes: self.bytes.len(), before: self.before, truncates: self.truncates, discarded: self.discarded }
    }

    /// Forgets what was told since.
    pub(crate) fn back_to(&mut self, place: &Place) {
        self.bytes.truncate(place.bytes);
        (self.before, self.truncates, self.discarded) = (place.before, place.truncates, place.discarded);
    }

    /// Bytes that an entry with that many ranges takes at most.
    pub(crate) fn bound(ranges: usize) -> usize {
        48 + 20 * ranges
    }

    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.bytes.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.bytes.push(number as u8);
    }

    fn offset(&mut self, offset: u32) {
        let units = u64::from(offset) / 8;
        self.number(units.wrapping_sub(self.before.offset));
        self.before.offset = units;
    }

    fn queue(&mut self, queue: QueueId) {
        self.number(zigzag(queue.0, self.before.queue));
        self.before.queue = queue.0;
    }

    fn seq(&mut self, seq: u64) {
        self.number(zigzag(seq, self.before.seq));
        self.before.seq = seq;
    }

    pub(crate) fn enqueued(&mut self, entry: &EnqueuedEntry, segment: u32) {
        let next = entry.queue.0 == self.before.queue && entry.seq == self.before.seq.wrapping_add(1);
        let kind = if entry.referred { REFERRED } else { INLINE };
        let expires = if entry.expires_at == 0 { 0 } else { EXPIRES };
        self.bytes.push(kind | (entry.class.number() << CLASS_SHIFT) | if next { NEXT } else { 0 } | expires);
        self.offset(entry.offset);
        if next {
            self.before.seq = entry.seq;
        } else {
            self.queue(entry.queue);
            self.seq(entry.seq);
        }
        if entry.expires_at != 0 {
            self.number(zigzag(entry.expires_at, self.before.expires_at));
            self.before.expires_at = entry.expires_at;
        }
        if entry.referred {
            self.number(u64::from(segment.wrapping_sub(entry.content.unwrap_or(segment))));
        }
    }

    pub(crate) fn settled(&mut self, queue: QueueId, ranges: impl ExactSizeIterator<Item = SeqRange>) {
        self.ranges(SETTLED, queue, ranges);
    }

    pub(crate) fn redelivered(&mut self, queue: QueueId, ranges: impl ExactSizeIterator<Item = SeqRange>) {
        self.ranges(REDELIVERED, queue, ranges);
    }

    pub(crate) fn released(&mut self, queue: QueueId, ranges: impl ExactSizeIterator<Item = SeqRange>) {
        self.ranges(RELEASED, queue, ranges);
    }

    pub(crate) fn returned(&mut self, queue: QueueId, ranges: impl ExactSizeIterator<Item = SeqRange>, times: u32) {
        self.ranges(RETURNED, queue, ranges);
        self.number(u64::from(times));
    }

    fn ranges(&mut self, kind: u8, queue: QueueId, ranges: impl ExactSizeIterator<Item = SeqRange>) {
        self.bytes.push(kind);
        // Acknowledgements run behind the messages, so their numbers are told relative to one another only
        // within the record: the messages' own chain of numbers stays unbroken.
        self.number(zigzag(queue.0, self.before.queue));
        self.number(ranges.len() as u64);
        let mut end = self.before.seq;
        for range in ranges {
            self.number(zigzag(range.first, end));
            self.number(range.count);
            end = range.first.wrapping_add(range.count);
        }
    }

    pub(crate) fn dropped(&mut self, queue: QueueId) {
        self.bytes.push(DROPPED);
        self.number(zigzag(queue.0, self.before.queue));
    }

    pub(crate) fn fact(&mut self, offset: u32) {
        self.bytes.push(FACT);
        self.offset(offset);
    }

    pub(crate) fn mark(&mut self, mark: Mark) {
        let (which, number) = match mark {
            Mark::Truncated(after) => (0, after),
            Mark::Discarded(before) => {
                self.discarded = self.discarded.max(before);
                (1, u64::from(before))
            }
            Mark::Gap(next) => (2, next),
            Mark::Opened => (3, 0),
            Mark::Closed => (4, 0),
        };
        self.truncates |= which == 0;
        self.bytes.push(MARK | which << CLASS_SHIFT);
        self.number(number);
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    before: Before,
}

impl Reader<'_> {
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.bytes.split_first()?;
            self.bytes = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn offset(&mut self) -> Option<u32> {
        self.before.offset = self.before.offset.wrapping_add(self.number()?);
        u32::try_from(self.before.offset.checked_mul(8)?).ok()
    }

    fn queue(&mut self) -> Option<u64> {
        self.number().map(|number| unzigzag(number, self.before.queue))
    }

    fn enqueued(&mut self, tag: u8, segment: u32) -> Option<EnqueuedEntry> {
        let offset = self.offset()?;
        if tag & NEXT == 0 {
            self.before.queue = self.queue()?;
            self.before.seq = unzigzag(self.number()?, self.before.seq);
        } else {
            self.before.seq = self.before.seq.wrapping_add(1);
        }
        let mut expires_at = 0;
        if tag & EXPIRES != 0 {
            expires_at = unzigzag(self.number()?, self.before.expires_at);
            self.before.expires_at = expires_at;
        }
        let referred = tag & KIND == REFERRED;
        let mut content = None;
        if referred {
            let back = u32::try_from(self.number()?).ok()?;
            content = (back != 0).then_some(segment.checked_sub(back)?);
        }
        Some(EnqueuedEntry {
            offset,
            class: Class::from_number(tag >> CLASS_SHIFT),
            queue: QueueId(self.before.queue),
            seq: self.before.seq,
            expires_at,
            content,
            referred,
        })
    }

    fn ranges(&mut self, ranges: &mut Vec<SeqRange>) -> Option<QueueId> {
        let queue = self.queue()?;
        ranges.clear();
        let mut end = self.before.seq;
        for _ in 0..self.number()? {
            let first = unzigzag(self.number()?, end);
            let count = self.number()?;
            end = first.wrapping_add(count);
            ranges.push(SeqRange { first, count });
        }
        Some(QueueId(queue))
    }

    fn mark(&mut self, tag: u8) -> Option<Mark> {
        let number = self.number()?;
        match (tag >> CLASS_SHIFT) & 7 {
            0 => Some(Mark::Truncated(number)),
            1 => Some(Mark::Discarded(u32::try_from(number).ok()?)),
            2 => Some(Mark::Gap(number)),
            3 => Some(Mark::Opened),
            4 => Some(Mark::Closed),
            _ => None,
        }
    }
}

/// Tells `each` of the entries of `bytes` in order, with the index of each record (for a mark, that of the next
/// record). `None` when the bytes are no index; those before the mistake have been told by then.
pub(crate) fn visit(bytes: &[u8], segment: u32, first: Index, each: &mut dyn FnMut(Index, Entry<'_>)) -> Option<Index> {
    let mut reader = Reader { bytes, before: Before::default() };
    let mut ranges = Vec::new();
    let mut index = first;
    while let Some((&tag, rest)) = reader.bytes.split_first() {
        reader.bytes = rest;
        let entry = match tag & KIND {
            INLINE | REFERRED => Entry::Enqueued(reader.enqueued(tag, segment)?),
            SETTLED => Entry::Settled { queue: reader.ranges(&mut ranges)?, ranges: &ranges },
            REDELIVERED if tag == RELEASED => Entry::Released { queue: reader.ranges(&mut ranges)?, ranges: &ranges },
            REDELIVERED if tag == RETURNED => {
                let queue = reader.ranges(&mut ranges)?;
                Entry::Returned { queue, ranges: &ranges, times: u32::try_from(reader.number()?).ok()? }
            }
            REDELIVERED => Entry::Redelivered { queue: reader.ranges(&mut ranges)?, ranges: &ranges },
            DROPPED => Entry::Dropped { queue: QueueId(reader.queue()?) },
            FACT => Entry::Fact { offset: reader.offset()? },
            MARK => Entry::Mark(reader.mark(tag)?),
            _ => return None,
        };
        each(index, entry);
        index = match entry {
            Entry::Mark(Mark::Truncated(after)) => after.checked_add(1)?,
            Entry::Mark(Mark::Gap(next)) => next,
            Entry::Mark(_) => index,
            _ => index.checked_add(1)?,
        };
    }
    Some(index)
}

/// An index as it was read back from a segment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Footer {
    /// Index of the segment's first record.
    pub(crate) first: Index,
    /// Index of the first record after the segment.
    pub(crate) next: Index,
    /// Bytes of the segment up to the index.
    pub(crate) end: u32,
    /// Its message records by size.
    pub(crate) sizes: Sizes,
    /// It has marks that make earlier records void.
    pub(crate) truncates: bool,
    /// Segments below this one are gone on purpose; 0 when nothing in it says so.
    pub(crate) discarded: u32,
    /// So many of its last records are part of a group that goes on in the next segment.
    pub(crate) open: u32,
    /// The entries.
    pub(crate) entries: Vec<u8>,
}

const FIXED: usize = 32 + 12 * CLASSES;

/// Bytes of the frame that holds an index of that many bytes.
pub(crate) fn frame_size(entries: usize) -> usize {
    frame::size(FIXED + entries)
}

impl Footer {
    /// The frame to write at `self.end`.
    pub(crate) fn frame(&self, seed: u32) -> Vec<u8> {
        let mut out = Vec::new();
        let head = Head { length: FIXED + self.entries.len(), index: self.next, term: 0, group: 0, kind: Kind::Index };
        frame::write(&mut out, seed, &head, |out| {
            out.extend_from_slice(&self.first.to_le_bytes());
            out.extend_from_slice(&self.next.to_le_bytes());
            out.extend_from_slice(&self.end.to_le_bytes());
            out.extend_from_slice(&self.open.to_le_bytes());
            out.extend_from_slice(&u32::from(self.truncates).to_le_bytes());
            out.extend_from_slice(&self.discarded.to_le_bytes());
            for (bytes, records) in self.sizes.bytes.iter().zip(&self.sizes.records) {
                out.extend_from_slice(&bytes.to_le_bytes());
                out.extend_from_slice(&records.to_le_bytes());
            }
            out.extend_from_slice(&self.entries);
        });
        out
    }

    /// The bytes for the very end of the segment.
    pub(crate) fn trailer(&self, seed: u32) -> [u8; TRAILER] {
        let mut out = [0; TRAILER];
        out[..8].copy_from_slice(MAGIC);
        out[8..16].copy_from_slice(&u64::from(self.end).to_le_bytes());
        let size = frame_size(self.entries.len()) as u64;
        out[16..24].copy_from_slice(&size.to_le_bytes());
        let crc = crc32c::crc32c_append(seed, &out[..28]);
        out[28..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// The footer in the payload of a frame.
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        let mut sizes = Sizes::default();
        for (class, (bytes, records)) in sizes.bytes.iter_mut().zip(&mut sizes.records).enumerate() {
            *bytes = u64_at(payload, 32 + 12 * class)?;
            *records = u32_at(payload, 40 + 12 * class)?;
        }
        Some(Self {
            sizes,
            truncates: u32_at(payload, 24)? != 0,
            discarded: u32_at(payload, 28)?,
            first: u64_at(payload, 0)?,
            next: u64_at(payload, 8)?,
            end: u32_at(payload, 16)?,
            open: u32_at(payload, 20)?,
            entries: payload.get(FIXED..)?.to_vec(),
        })
    }
}

/// Where a trailer says that the index is: offset and size of its frame.
pub(crate) fn parse_trailer(bytes: &[u8], seed: u32) -> Option<(u64, usize)> {
    let bytes = bytes.first_chunk::<TRAILER>()?;
    if &bytes[..8] != MAGIC || u32_at(bytes, 28)? != crc32c::crc32c_append(seed, &bytes[..28]) {
        return None;
    }
    Some((u64_at(bytes, 8)?, usize::try_from(u64_at(bytes, 16)?).ok()?))
}

/// Position of a message that an index names.
pub(crate) fn position(segment: u32, entry: &EnqueuedEntry) -> Option<Position> {
    Position::new(segment, entry.offset | u32::from(entry.class.number()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SEGMENT: u32 = 40;

    #[derive(Clone, Debug)]
    enum Step {
        Enqueued { queue: u64, seq: u64, class: u8, expires_at: u64, back: Option<u32> },
        Settled(u64, Vec<(u64, u64)>),
        Returned(u64, Vec<(u64, u64)>, u32),
        Dropped(u64),
        Fact,
        Discarded(u32),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let near = || prop_oneof![0..20u64, any::<u64>()];
        let enqueued = (near(), near(), 0..8u8, near(), proptest::option::of(0..SEGMENT));
        let step = prop_oneof![
            enqueued.prop_map(|(queue, seq, class, expires_at, back)| Step::Enqueued {
                queue,
                seq,
                class,
                expires_at,
                back
            }),
            (near(), proptest::collection::vec((near(), near()), 0..5))
                .prop_map(|(queue, ranges)| Step::Settled(queue, ranges)),
            (near(), proptest::collection::vec((near(), near()), 0..5), any::<u32>())
                .prop_map(|(queue, ranges, times)| Step::Returned(queue, ranges, times)),
            near().prop_map(Step::Dropped),
            Just(Step::Fact),
            any::<u32>().prop_map(Step::Discarded),
        ];
        proptest::collection::vec(step, 0..50)
    }

    proptest! {
        #[test]
        fn an_index_tells_what_was_put_in(steps in steps()) {
            let mut builder = Builder::default();
            let mut told = Vec::new();
            for (number, step) in steps.iter().enumerate() {
                let offset = 64 + number as u32 * 128;
                let before = builder.bytes().len();
                let mut ranges = 0;
                match step {
                    Step::Enqueued { queue, seq, class, expires_at, back } => {
                        let entry = EnqueuedEntry {
                            offset,
                            class: Class::from_number(*class),
                            queue: QueueId(*queue),
                            seq: *seq,
                            expires_at: *expires_at,
                            content: back.filter(|back| *back > 0).map(|back| SEGMENT - back),
                            referred: back.is_some(),
                        };
                        builder.enqueued(&entry, SEGMENT);
                        told.push(format!("{:?}", Entry::Enqueued(entry)));
                    }
                    Step::Settled(queue, pairs) => {
                        let all: Vec<_> = pairs.iter().map(|(first, count)| SeqRange { first: *first, count: *count }).collect();
                        ranges = all.len();
                        builder.settled(QueueId(*queue), all.iter().copied());
                        told.push(format!("{:?}", Entry::Settled { queue: QueueId(*queue), ranges: &all }));
                    }
                    Step::Returned(queue, pairs, times) => {
                        let all: Vec<_> = pairs.iter().map(|(first, count)| SeqRange { first: *first, count: *count }).collect();
                        ranges = all.len();
                        let (queue, times) = (QueueId(*queue), *times);
                        builder.returned(queue, all.iter().copied(), times);
                        told.push(format!("{:?}", Entry::Returned { queue, ranges: &all, times }));
                    }
                    Step::Dropped(queue) => {
                        builder.dropped(QueueId(*queue));
                        told.push(format!("{:?}", Entry::Dropped { queue: QueueId(*queue) }));
                    }
                    Step::Fact => {
                        builder.fact(offset);
                        told.push(format!("{:?}", Entry::Fact { offset }));
                    }
                    Step::Discarded(before) => {
                        builder.mark(Mark::Discarded(*before));
                        told.push(format!("{:?}", Entry::Mark(Mark::Discarded(*before))));
                    }
                }
                prop_assert!(builder.bytes().len() - before <= Builder::bound(ranges));
            }
            let mut heard = Vec::new();
            let footer = builder.footer(1, 9, 4096, Sizes::default());
            let end = visit(&footer.entries, SEGMENT, 1, &mut |_, entry| heard.push(format!("{entry:?}")));
            prop_assert!(end.is_some());
            prop_assert_eq!(heard, told);
            let frame = footer.frame(7);
            let back = frame::parse(&frame, 7).and_then(|frame| Footer::parse(frame.payload));
            prop_assert_eq!(back.map(|back| back.entries), Some(footer.entries.clone()));
            prop_assert_eq!(parse_trailer(&footer.trailer(7), 7), Some((4096, frame.len())));
            prop_assert_eq!(parse_trailer(&footer.trailer(7), 8), None);
        }

        #[test]
        fn any_bytes_are_safe_to_visit(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut entries = 0;
            visit(&bytes, SEGMENT, 1, &mut |_, _| entries += 1);
            prop_assert!(entries <= bytes.len());
            Footer::parse(&bytes);
            parse_trailer(&bytes, 1);
        }
    }
}
