//! Segments: names, headers, and the table of what is still needed in which.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use portolan_core::store::{Index, Position};

use crate::encode::{u32_at, u64_at};

/// Bytes before a segment's first frame.
pub(crate) const HEADER: usize = 64;
const MAGIC: &[u8; 8] = b"PORTOLAN";
const FORMAT: u32 = 1;

/// Magnitude of a record's size, kept in the low bits of its position, which are free since frames start at
/// multiples of 8. It lets the journal know the live bytes of a segment, and how much to read, from positions alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Class(u8);

/// How many classes there are.
pub(crate) const CLASSES: usize = 8;
const LIMITS: [usize; CLASSES] = [128, 512, 2 << 10, 8 << 10, 32 << 10, 128 << 10, 1 << 20, usize::MAX];

impl Class {
    pub(crate) fn of(size: usize) -> Self {
        Self(LIMITS.iter().position(|limit| size <= *limit).unwrap_or(CLASSES - 1) as u8)
    }

    pub(crate) fn from_number(number: u8) -> Self {
        Self(number % CLASSES as u8)
    }

    pub(crate) fn of_position(position: Position) -> Self {
        Self::from_number(position.number() as u8)
    }

    pub(crate) fn number(self) -> u8 {
        self.0
    }

    /// Records of this class are at most that long, as far as it is worth reading in one go.
    pub(crate) fn limit(self) -> usize {
        LIMITS.get(usize::from(self.0)).copied().unwrap_or_default().min(1 << 20)
    }
}

/// Offset of the frame that a position points to.
pub(crate) fn offset_of(position: Position) -> u32 {
    position.offset() & !7
}

/// A segment's path in the journal's folder.
pub(crate) fn path(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number:010}.seg"))
}

/// The number in a segment's file name.
pub(crate) fn number_in(name: &str) -> Option<u32> {
    let digits = name.strip_suffix(".seg")?;
    if digits.len() == 10 { digits.parse().ok() } else { None }
}

/// What a segment's header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) number: u32,
    /// Bytes of the file.
    pub(crate) length: u64,
    /// Index of its first record; `None` while nothing has been written to it.
    pub(crate) first: Option<Index>,
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER] {
        let mut out = [0; HEADER];
        out[..8].copy_from_slice(MAGIC);
        out[8..12].copy_from_slice(&FORMAT.to_le_bytes());
        out[12..16].copy_from_slice(&self.number.to_le_bytes());
        out[16..24].copy_from_slice(&self.length.to_le_bytes());
        out[24..32].copy_from_slice(&self.first.unwrap_or_default().to_le_bytes());
        let crc = crc32c::crc32c(&out[..60]);
        out[60..].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.first_chunk::<HEADER>()?;
        let sound =
            &bytes[..8] == MAGIC && u32_at(bytes, 8)? == FORMAT && u32_at(bytes, 60)? == crc32c::crc32c(&bytes[..60]);
        sound.then_some(Self {
            number: u32_at(bytes, 12)?,
            length: u64_at(bytes, 16)?,
            first: Some(u64_at(bytes, 24)?).filter(|first| *first != 0),
        })
    }
}

/// Number and bytes of message records in each class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    pub(crate) records: [u32; CLASSES],
    pub(crate) bytes: [u64; CLASSES],
}

impl Sizes {
    /// Counts a record of `bytes` bytes.
    pub(crate) fn count(&mut self, class: Class, bytes: usize) {
        let class = usize::from(class.0);
        if let (Some(records), Some(sum)) = (self.records.get_mut(class), self.bytes.get_mut(class)) {
            *records += 1;
            *sum += bytes as u64;
        }
    }
}

/// What is known of a segment's contents.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) number: u32,
    /// Bytes of the file.
    pub(crate) length: u64,
    /// Those of them that take no disk space.
    pub(crate) hole: u64,
    /// Index of its first record.
    pub(crate) first: Index,
    /// Records of facts in it.
    pub(crate) facts: u32,
    /// References from later segments to contents in this one.
    pins: u32,
    live: [u32; CLASSES],
    /// Its message records, alive or not.
    pub(crate) sizes: Sizes,
    /// References from here to contents in earlier segments: the referring record's offset and the segment of the
    /// content, 0 once the reference is gone. In order of offset.
    references: Vec<(u32, u32)>,
}

impl Segment {
    pub(crate) fn new(number: u32, length: u64, first: Index) -> Self {
        Self {
            number,
            length,
            hole: 0,
            first,
            facts: 0,
            pins: 0,
            live: [0; CLASSES],
            sizes: Sizes::default(),
            references: Vec::new(),
        }
    }

    /// No message needs it any more.
    pub(crate) fn is_dead(&self) -> bool {
        self.pins == 0 && self.live.iter().all(|live| *live == 0)
    }

    /// Bytes of its live messages, from their numbers and the average size in each class.
    fn live_bytes(&self) -> u64 {
        let classes = self.live.iter().zip(&self.sizes.records).zip(&self.sizes.bytes);
        classes.map(|((live, all), bytes)| bytes * u64::from(*live) / u64::from((*all).max(1))).sum()
    }

    fn live_of(&mut self, class: Class) -> Option<&mut u32> {
        self.live.get_mut(usize::from(class.0))
    }
}

/// The journal's segments, oldest first, numbered without gaps.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    segments: VecDeque<Segment>,
    /// Bytes of all of them.
    pub(crate) disk_bytes: u64,
}

impl Table {
    pub(crate) fn push(&mut self, segment: Segment) {
        self.disk_bytes += segment.length - segment.hole;
        self.segments.push_back(segment);
    }

    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Segment> {
        self.segments.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.segments.len()
    }

    pub(crate) fn oldest(&self) -> Option<&Segment> {
        self.segments.front()
    }

    pub(crate) fn active(&mut self) -> Option<&mut Segment> {
        self.segments.back_mut()
    }

    pub(crate) fn get(&self, number: u32) -> Option<&Segment> {
        self.segments.get(self.place(number)?)
    }

    fn place(&self, number: u32) -> Option<usize> {
        Some(number.checked_sub(self.segments.front()?.number)? as usize)
    }

    pub(crate) fn get_mut(&mut self, number: u32) -> Option<&mut Segment> {
        let place = self.place(number)?;
        self.segments.get_mut(place)
    }

    /// So much of a segment's file takes no disk space.
    pub(crate) fn set_hole(&mut self, number: u32, hole: u64) {
        let Some(segment) = self.get_mut(number) else { return };
        let hole = hole.min(segment.length);
        let before = std::mem::replace(&mut segment.hole, hole);
        self.disk_bytes = self.disk_bytes + before - hole;
    }

    /// Bytes of disk without those of the active segment beyond `offset`, to which records have got.
    pub(crate) fn used_bytes(&self, offset: u32) -> u64 {
        let active = self.segments.back().map_or(0, |active| active.length - active.hole);
        self.disk_bytes - active + u64::from(offset).min(active)
    }

    /// Takes the oldest segment out.
    pub(crate) fn discard_oldest(&mut self) -> Option<Segment> {
        let segment = self.segments.pop_front()?;
        self.disk_bytes -= segment.length - segment.hole;
        for (_, content) in &segment.references {
            self.unpin(*content);
        }
        Some(segment)
    }

    /// A message at `position` is alive.
    pub(crate) fn enliven(&mut self, position: Position) {
        if let Some(live) =
            self.get_mut(position.segment()).and_then(|segment| segment.live_of(Class::of_position(position)))
        {
            *live += 1;
        }
    }

    /// The live message at `position` needs content in segment `content`.
    pub(crate) fn refer(&mut self, position: Position, content: u32) {
        if content == position.segment() {
            return;
        }
        if let Some(segment) = self.get_mut(position.segment()) {
            segment.references.push((offset_of(position), content));
        }
        if let Some(segment) = self.get_mut(content) {
            segment.pins += 1;
        }
    }

    /// The message at `position` is no longer needed. Says whether its segment, or that of its content, is now dead.
    pub(crate) fn free(&mut self, position: Position) -> bool {
        let Some(segment) = self.get_mut(position.segment()) else { return false };
        let mut died = false;
        if let Some(live) = segment.live_of(Class::of_position(position)) {
            *live = live.saturating_sub(1);
            died = *live == 0 && segment.is_dead();
        }
        died | self.release(position)
    }

    /// Frees the reference at `position` unless that has been done. Says whether the content's segment is now dead.
    fn release(&mut self, position: Position) -> bool {
        let Some(segment) = self.get_mut(position.segment()) else { return false };
        let offset = offset_of(position);
        let Ok(place) = segment.references.binary_search_by_key(&offset, |(offset, _)| *offset) else {
            return false;
        };
        let content = segment.references.get_mut(place).map(|(_, content)| std::mem::take(content));
        self.unpin(content.unwrap_or_default())
    }

    fn unpin(&mut self, number: u32) -> bool {
        let Some(segment) = self.get_mut(number) else { return false };
        segment.pins = segment.pins.saturating_sub(1);
        segment.is_dead()
    }

    /// Live records in later segments whose content is in segment `number`.
    pub(crate) fn referring_to(&self, number: u32) -> Vec<Position> {
        let later = self.segments.iter().filter(|segment| segment.number > number);
        let referring = later.flat_map(|segment| {
            let to = segment.references.iter().filter(move |(_, content)| *content == number);
            to.filter_map(|(offset, _)| Position::new(segment.number, *offset))
        });
        referring.collect()
    }

    /// The reference at `position` has been replaced by a newer record, unless it was freed before that.
    pub(crate) fn free_reference(&mut self, position: Position) {
        if self.refers(position) {
            self.free(position);
        }
    }

    /// Nothing lives in segment `number` any more: it has all been appended anew.
    pub(crate) fn forget(&mut self, number: u32) {
        if let Some(segment) = self.get_mut(number) {
            segment.live = [0; CLASSES];
        }
    }

    /// The reference at that place has not been freed.
    pub(crate) fn refers(&self, position: Position) -> bool {
        let Some(segment) = self.get(position.segment()) else { return false };
        let found = segment.references.binary_search_by_key(&offset_of(position), |(offset, _)| *offset);
        found.is_ok_and(|place| segment.references.get(place).is_some_and(|(_, content)| *content != 0))
    }

    /// Bytes of live messages, approximately.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.segments.iter().map(Segment::live_bytes).sum()
    }
}
