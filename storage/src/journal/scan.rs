//! Reads a segment frame by frame when there is no index to trust, and tells a torn end from damage.

use std::io;

use portolan_core::store::Index;

use crate::encode::{self, Kind, Stored, u64_at};
use crate::filesystem::File;
use crate::journal::footer::{Builder, EnqueuedEntry, Mark, Place};
use crate::journal::frame::{self, Frame, Round};
use crate::journal::segment::{self, Class, Sizes};
use crate::journal::window::{AHEAD, Window};

/// Bytes that were on stable storage and are not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) from: u64,
    /// Where sound records go on.
    pub(crate) until: u64,
    /// Index of the first record lost.
    pub(crate) lost: Index,
    /// Index of the record that the sound ones go on with.
    pub(crate) next: Index,
}

/// Records of the last group, which had not been synced whole when the machine stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Torn {
    pub(crate) from: u64,
    /// Up to here there are sound records of the group, which without the rest do not count.
    pub(crate) until: u64,
    /// How many these are.
    pub(crate) dropped: u64,
    /// Offsets of sound records behind the first that is missing: they must not come back.
    pub(crate) stray: Vec<u64>,
    /// Something of a group was there.
    pub(crate) partial: bool,
}

/// What a segment's last chunk lacks of being the end of a whole group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lack {
    /// Nothing: everything before it counts.
    Nothing,
    /// The next segment should have gone on with the group that began with that record.
    Rest(Index),
    /// The segment begins with that chunk, which goes on with the group of the segment before if that is open. The
    /// record with which it begins, unless it has been dropped.
    Beginning(Option<Index>),
}

/// The mark at the beginning of the last chunk, and how much was found before it.
#[derive(Clone, Copy, Debug)]
struct Begun {
    at: u64,
    index: Index,
    /// `None` for one of format 1.
    says: Option<Round>,
    builder: Place,
    sizes: Sizes,
}

/// What a segment was found to hold.
#[derive(Debug, Default)]
pub(crate) struct Scanned {
    /// Index of its first record.
    pub(crate) first: Index,
    /// Index of the record after its last.
    pub(crate) next: Index,
    /// Where the next frame would go.
    pub(crate) end: u64,
    /// It ends with an index.
    pub(crate) sealed: bool,
    pub(crate) builder: Builder,
    pub(crate) damage: Vec<Damage>,
    pub(crate) torn: Option<Torn>,
    round: Option<Begun>,
    /// Its message records by size.
    pub(crate) sizes: Sizes,
}

/// A segment to scan.
pub(crate) struct Scan<'f> {
    pub(crate) file: &'f dyn File,
    pub(crate) number: u32,
    pub(crate) length: u64,
    /// Index of its first record, if that is known.
    pub(crate) begins: Option<Index>,
    /// Index of the first record in the next segment that was written to. That one is written only when this one
    /// is on stable storage.
    pub(crate) followed: Option<Index>,
}

impl Scan<'_> {
    /// Reads the whole segment.
    pub(crate) fn run(&self, window: &mut Window) -> io::Result<Scanned> {
        let seed = frame::seed(self.number);
        let mut found = Scanned { end: segment::HEADER as u64, ..Scanned::default() };
        let mut expected = self.begins;
        found.first = self.begins.unwrap_or_default();
        window.reset();
        loop {
            let frame = window.frame(self.file, found.end, self.length, seed, AHEAD)?;
            let fitting = frame
                .filter(|frame| expected.is_none_or(|index| index == frame.head.index) || frame.head.kind == Kind::Gap);
            let noted = fitting.map(|frame| note(&mut found, self.number, &frame));
            match noted {
                Some(Some(next)) => {
                    expected.get_or_insert_with(|| {
                        found.first = next.0;
                        next.0
                    });
                    expected = Some(next.1);
                    found.next = next.1;
                    if found.sealed {
                        return Ok(found);
                    }
                }
                _ => match self.hole(window, seed, &found, expected)? {
                    Hole::End => return Ok(found),
                    Hole::Torn(torn) => {
                        found.torn = Some(torn);
                        return Ok(found);
                    }
                    Hole::Damage(damage) => {
                        found.end = damage.until;
                        found.next = damage.next;
                        if expected.is_none() {
                            found.first = damage.next;
                        }
                        expected = Some(damage.next);
                        found.builder.mark(Mark::Gap(damage.next));
                        found.damage.push(damage);
                        if damage.until >= self.length {
                            found.sealed = true;
                            return Ok(found);
                        }
                    }
                },
            }
        }
    }

    /// Decides what it means that no fitting frame is at the end of what was found.
    fn hole(&self, window: &mut Window, seed: u32, found: &Scanned, expected: Option<Index>) -> io::Result<Hole> {
        if self.followed.is_some() && self.followed == expected {
            return Ok(Hole::End);
        }
        let lost = expected.unwrap_or_default();
        let mut stray = Vec::new();
        let mut resume = None;
        let mut proven = self.followed.is_some();
        let mut search = Search { file: self.file, length: self.length, seed, least: found.first };
        let mut offset = found.end + 8;
        while let Some((at, size, index, kind)) = search.next(window, offset)? {
            resume.get_or_insert((at, index));
            proven |= kind == Kind::Round;
            if proven {
                break;
            }
            stray.push(at);
            offset = at + size;
        }
        if proven {
            let (until, next) = resume.unwrap_or((self.length, self.followed.unwrap_or(lost)));
            return Ok(Hole::Damage(Damage { from: found.end, until, lost, next }));
        }
        let left = usize::try_from(self.length - found.end.min(self.length)).unwrap_or(usize::MAX);
        let head = window.bytes(self.file, found.end, left.min(frame::HEADER), AHEAD.min(left))?;
        let partial = !stray.is_empty() || frame::peek(head).is_some_and(|head| head.index == lost && lost > 0);
        Ok(Hole::Torn(Torn { from: found.end, until: found.end, dropped: 0, stray, partial }))
    }
}

impl Scanned {
    /// So many of its last records are part of a group that the next segment goes on with.
    pub(crate) fn open(&self) -> u32 {
        let goes_on = self.round.filter(|round| round.says.is_some_and(|says| says.goes_on));
        goes_on.map_or(0, |round| u32::try_from(self.next.saturating_sub(round.index)).unwrap_or(u32::MAX))
    }

    /// For the last segment: drops its last chunk unless that is the end of a whole group. What had been confirmed
    /// cannot be in it, as a group is confirmed when all of it is on stable storage.
    pub(crate) fn drop_partial(&mut self) -> Lack {
        let Some(round) = self.round else {
            let empty = self.end <= segment::HEADER as u64;
            return if empty { Lack::Beginning(None) } else { Lack::Nothing };
        };
        let Some(says) = round.says else { return Lack::Nothing };
        if self.end >= round.at + u64::from(says.length) && !says.goes_on {
            return Lack::Nothing;
        }
        let begins = round.at == segment::HEADER as u64;
        let Some(torn) = self.torn.as_mut().filter(|_| !self.sealed) else {
            return if begins { Lack::Beginning(Some(round.index)) } else { Lack::Rest(round.index) };
        };
        torn.partial = true;
        torn.from = round.at;
        torn.dropped = self.next.saturating_sub(round.index);
        self.builder.back_to(&round.builder);
        (self.sizes, self.end, self.next) = (round.sizes, round.at, round.index);
        if begins { Lack::Beginning(None) } else { Lack::Nothing }
    }
}

enum Hole {
    /// The segment is whole, only its index is not.
    End,
    Torn(Torn),
    Damage(Damage),
}

/// Adds a frame to what was found; says the index at it and after it. `None` when its payload is nonsense.
fn note(found: &mut Scanned, number: u32, frame: &Frame<'_>) -> Option<(Index, Index)> {
    let head = frame.head;
    let offset = u32::try_from(found.end).ok()?;
    let mut next = head.index;
    match head.kind {
        Kind::Round => {
            let says = Round::read(frame.payload);
            let (builder, sizes) = (found.builder.place(), found.sizes);
            found.round = Some(Begun { at: found.end, index: head.index, says, builder, sizes });
        }
        Kind::Index => found.sealed = true,
        Kind::Truncated => {
            let after = u64_at(frame.payload, 0)?;
            next = after.checked_add(1)?;
            found.builder.mark(Mark::Truncated(after));
        }
        Kind::Discarded => {
            let before = u32::try_from(u64_at(frame.payload, 0)?).ok()?;
            found.builder.mark(Mark::Discarded(before));
        }
        Kind::Gap => {
            next = u64_at(frame.payload, 0)?;
            found.builder.mark(Mark::Gap(next));
        }
        Kind::Opened => found.builder.mark(Mark::Opened),
        Kind::Closed => found.builder.mark(Mark::Closed),
        Kind::Enqueued
        | Kind::Referred
        | Kind::Settled
        | Kind::Redelivered
        | Kind::Released
        | Kind::Returned
        | Kind::Dropped
        | Kind::Fact
        | Kind::Forgotten => {
            next = head.index.checked_add(1)?;
            note_record(found, number, offset, frame)?;
        }
    }
    if !found.sealed {
        found.end += head.size() as u64;
    }
    Some((head.index, next))
}

fn note_record(found: &mut Scanned, number: u32, offset: u32, frame: &Frame<'_>) -> Option<()> {
    let class = Class::of(frame.head.size());
    let message = |queue, seq, expires_at| EnqueuedEntry {
        offset,
        class,
        queue,
        seq,
        expires_at,
        content: None,
        referred: false,
    };
    match encode::decode(frame.head.kind, frame.payload).ok()? {
        Stored::Enqueued(it) => {
            found.builder.enqueued(&message(it.queue, it.seq, it.expires_at), number);
            found.sizes.count(class, frame.head.size());
        }
        Stored::Referred { queue, seq, expires_at, content } => {
            let content = Some(content.segment()).filter(|content| *content <= number);
            let entry = EnqueuedEntry { content, referred: true, ..message(queue, seq, expires_at) };
            found.builder.enqueued(&entry, number);
            found.sizes.count(class, frame.head.size());
        }
        Stored::Settled { queue, ranges } => found.builder.settled(queue, ranges),
        Stored::Redelivered { queue, ranges } => found.builder.redelivered(queue, ranges),
        Stored::Released { queue, ranges } => found.builder.released(queue, ranges),
        Stored::Returned { queue, ranges, times } => found.builder.returned(queue, ranges, times),
        Stored::Dropped { queue } => found.builder.dropped(queue),
        Stored::Fact { .. } => found.builder.fact(offset),
    }
    Some(())
}

/// Looks for sound frames at any multiple of 8.
pub(crate) struct Search<'f> {
    pub(crate) file: &'f dyn File,
    pub(crate) length: u64,
    pub(crate) seed: u32,
    /// Frames with a lower index are left over from the file's earlier life.
    pub(crate) least: Index,
}

/// Bytes at the start of `bytes` that are zero for sure.
fn zeros_before(bytes: &[u8]) -> usize {
    let zero = |block: &&[u8]| block.iter().fold(0, |sum, byte| sum | byte) == 0;
    bytes.chunks(256).take_while(zero).map(<[u8]>::len).sum()
}

impl Search<'_> {
    /// Offset, size, index and kind of the first sound frame from `offset` on.
    pub(crate) fn next(&mut self, window: &mut Window, mut offset: u64) -> io::Result<Option<(u64, u64, Index, Kind)>> {
        while offset + frame::HEADER as u64 <= self.length {
            let Some(at) = self.candidate(window, offset)? else { return Ok(None) };
            if let Some(frame) = window.frame(self.file, at, self.length, self.seed, AHEAD)? {
                return Ok(Some((at, frame.head.size() as u64, frame.head.index, frame.head.kind)));
            }
            offset = at + 8;
        }
        Ok(None)
    }

    /// The next offset at which a frame may begin, judged by its header alone.
    fn candidate(&self, window: &mut Window, mut offset: u64) -> io::Result<Option<u64>> {
        loop {
            let left = usize::try_from(self.length.saturating_sub(offset)).unwrap_or(usize::MAX);
            let piece = window.bytes(self.file, offset, left.min(AHEAD / 4), left.min(AHEAD))?;
            if piece.len() < frame::HEADER {
                return Ok(None);
            }
            // Most of what is searched was never written to.
            let zeros = zeros_before(piece);
            if zeros > frame::HEADER {
                offset += ((zeros - frame::HEADER) / 8 * 8 + 8) as u64;
                continue;
            }
            let plausible = |head: &frame::Head| head.index >= self.least && head.length < left;
            let step = (0..=piece.len() - frame::HEADER)
                .step_by(8)
                .find(|at| piece.get(*at..).and_then(frame::peek).as_ref().is_some_and(plausible));
            match step {
                Some(step) => return Ok(Some(offset + step as u64)),
                None => offset += ((piece.len() - frame::HEADER) / 8 * 8 + 8) as u64,
            }
        }
    }
}
