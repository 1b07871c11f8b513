//! How much of the segment files has disk space: all that will be needed soon under load, little when it is quiet.
//!
//! Under load the active segment and the next one are there whole and zeroed, so that a sync changes nothing but
//! bytes. On a quiet node the active segment keeps space for [`KEEP`] bytes beyond what is written, and the rest of
//! its file is a hole. The journal's thread writes only where there is space: a file system that is full must be found
//! out before a write, since a failed write ends the journal.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use portolan_core::store::StoreError;

use crate::filesystem::{BLOCK, File};
use crate::journal::Shared;
use crate::journal::buffer::{Chunk, State};
use crate::journal::footer::{self, Footer, TRAILER};
use crate::journal::prepare::{AGAIN, Next, Segments, Slot, fill_with_zeros, is_full, spare_path};
use crate::journal::segment;
use crate::options::Options;

/// Space kept beyond what is written on a quiet node, at most.
const KEEP: u64 = 4 << 20;
/// Space that is used up faster than that is worth reserving whole.
const SOON: Duration = Duration::from_secs(2);
/// Seconds of load that may lie on the disk unclean.
const SLACK: u64 = 16;
/// Each second a load is at least a part of what it was in the one before: short pauses are no quiet.
const DECAY: u64 = 4;

const BLOCK_BYTES: u64 = BLOCK as u64;

/// Space kept beyond what is written on a quiet node: also what consumers need to make room on a full disk.
pub(crate) fn keep(segment_bytes: u64) -> u64 {
    (segment_bytes / 8).clamp(BLOCK_BYTES, KEEP).next_multiple_of(BLOCK_BYTES)
}

/// What may be a hole in a file of that length with space up to `firm`. Its last block may not: a segment must be able
/// to end on a full disk.
pub(crate) fn hole_beyond(firm: u64, length: u64) -> Range<u64> {
    let end = (length.saturating_sub(1) / BLOCK_BYTES * BLOCK_BYTES).max(firm);
    firm..end
}

/// The file that the journal's thread writes to.
#[derive(Debug, Default)]
pub(crate) struct Active {
    /// Its segment, 0 for none.
    pub(crate) number: u32,
    /// Bytes of the file.
    pub(crate) length: u64,
    /// Bytes written, or being written.
    pub(crate) end: u64,
    /// There is disk space up to here.
    pub(crate) firm: u64,
    /// Somebody changes `firm` and waits for the disk meanwhile.
    changing: bool,
    /// The journal's thread waits for that.
    hurry: bool,
    /// When space was last added.
    extended: Option<Instant>,
}

impl Active {
    pub(crate) fn new(number: u32, length: u64, firm: u64) -> Self {
        Self { number, length, firm: firm.min(length), ..Self::default() }
    }

    fn runs_low(&self, keep: u64) -> bool {
        !self.changing && self.firm < self.length && self.firm < self.end + keep / 4 * 3
    }
}

/// What there is to do about the active file.
pub(crate) struct Extension {
    number: u32,
    range: Range<u64>,
}

impl Segments {
    /// The journal's thread is about to write what goes up to `end`: sees to it that there is disk space. Waits for
    /// room if there is none, since the records are accepted.
    pub(crate) fn admit(&self, shared: &Shared, chunk: &Chunk, file: &dyn File, end: u64) -> Result<(), StoreError> {
        let end = end.next_multiple_of(BLOCK_BYTES).min(chunk.length);
        let keep = keep(shared.options.segment_bytes);
        let mut slot = self.slot.lock();
        while end > slot.active.firm {
            if slot.active.changing {
                slot.active.hurry = true;
                self.changed.wait(&mut slot);
                continue;
            }
            // The rest of the file at once if there is room, for this will not be the last time.
            let firm = slot.active.firm;
            slot.active.changing = true;
            drop(slot);
            let whole = file.reserve(firm, chunk.length - firm).map(|()| chunk.length);
            let reserved = whole.or_else(|_| file.reserve(firm, end - firm).map(|()| end));
            let reserved = reserved.map(|firm| shared.has_space(chunk.segment, firm));
            slot = self.slot.lock();
            slot.active.changing = false;
            match reserved {
                Ok(firm) => slot.active.firm = firm,
                Err(error) if is_full(&error) && !slot.closing => {
                    shared.set_low(true, "no room for the rest of a segment");
                    self.changed.wait_for(&mut slot, AGAIN / 4);
                }
                Err(error) => return Err(shared.io("cannot reserve space of", chunk.segment, error)),
            }
        }
        slot.active.end = end;
        if slot.active.runs_low(keep) {
            self.changed.notify_all();
        }
        Ok(())
    }

    /// Nothing more comes to the active segment but its index: sees to it that there is disk space for that.
    pub(crate) fn finish(
        &self,
        shared: &Shared,
        chunk: &Chunk,
        file: &dyn File,
        footer: &Footer,
    ) -> Result<(), StoreError> {
        let size = footer::frame_size(footer.entries.len()) as u64;
        self.admit(shared, chunk, file, u64::from(footer.end) + size)?;
        let mut slot = self.slot.lock();
        while slot.active.changing {
            slot.active.hurry = true;
            self.changed.wait(&mut slot);
        }
        // From here on nobody else touches the file.
        let whole = std::mem::take(&mut slot.active).firm >= chunk.length;
        loop {
            let end = if whole { Ok(()) } else { file.reserve(chunk.length - TRAILER as u64, TRAILER as u64) };
            let Err(error) = end else { return Ok(()) };
            if !is_full(&error) || slot.closing {
                return Err(shared.io("cannot reserve space of", chunk.segment, error));
            }
            shared.set_low(true, "no room for the end of a segment");
            self.changed.wait_for(&mut slot, AGAIN / 4);
        }
    }

    /// Gives back the space between a sealed segment's index and its end, where that is worth it.
    pub(crate) fn give_back_gap(&self, shared: &Shared, chunk: &Chunk, file: &dyn File, footer: &Footer) {
        let end = u64::from(footer.end) + footer::frame_size(footer.entries.len()) as u64;
        let from = end.next_multiple_of(BLOCK_BYTES);
        let until = (chunk.length - TRAILER as u64) / BLOCK_BYTES * BLOCK_BYTES;
        let Some(gap) = until.checked_sub(from).filter(|gap| *gap >= keep(shared.options.segment_bytes)) else {
            return;
        };
        if self.release(shared, chunk.segment, file, from..until) {
            shared.state.lock().table.set_hole(chunk.segment, gap);
        }
    }

    /// Bytes beyond a share of the live ones that may lie on the disk, which files held ready are a part of.
    pub(crate) fn slack(&self, options: &Options) -> u64 {
        let most = u64::from(options.slack_segments) * options.segment_bytes;
        let idle = self.idle_bytes(options.segment_bytes);
        self.slack.load(Ordering::Relaxed).min(most.saturating_sub(idle)).max(keep(options.segment_bytes))
    }

    fn release(&self, shared: &Shared, number: u32, file: &dyn File, range: Range<u64>) -> bool {
        if !self.slot.lock().holes {
            return false;
        }
        let Err(error) = file.release(range.start, range.end - range.start) else { return true };
        if error.kind() != io::ErrorKind::Unsupported {
            let error = shared.io("cannot give back space of", number, error);
            tracing::warn!(%error, "disk space that is not needed is kept");
        }
        self.slot.lock().holes = false;
        false
    }

    /// Files can have holes, so that a segment may end before its file is full.
    pub(crate) fn may_end_early(&self) -> bool {
        self.slot.lock().holes
    }
}

impl Slot {
    /// Space to add to the active file before its end is reached: the rest under load, else a piece.
    pub(crate) fn extension(&mut self, keep: u64) -> Option<Extension> {
        let active = &mut self.active;
        if !active.runs_low(keep) || self.closing {
            return None;
        }
        let again = active.extended.replace(Instant::now()).is_some_and(|before| before.elapsed() < SOON);
        self.quiet &= !again;
        let piece = active.end.max(active.firm) + keep;
        let until = if self.quiet { piece.min(active.length) } else { active.length };
        active.changing = true;
        Some(Extension { number: active.number, range: active.firm..until })
    }
}

impl Shared {
    /// The active segment's file has disk space up to `firm`.
    pub(crate) fn has_space(&self, number: u32, firm: u64) -> u64 {
        let mut state = self.state.lock();
        let Some(active) = state.table.get(number) else { return firm };
        let hole = hole_beyond(firm, active.length);
        state.table.set_hole(number, hole.end - hole.start);
        if state.table.iter().next_back().is_some_and(|active| active.number == number) {
            state.room.firm = state.room.firm.max(firm);
        }
        firm
    }

    /// At a start: what became of the active file's space is not known, so all of it is asked for.
    pub(crate) fn reserve_active(&self) -> Result<(), StoreError> {
        let state = self.state.lock();
        let offset = u64::from(state.offset);
        let Some(active) = state.table.iter().next_back().filter(|_| offset > 0) else { return Ok(()) };
        let (number, length) = (active.number, active.length);
        drop(state);
        let file = self.open_segment(number).map_err(|error| self.io("cannot open", number, error))?;
        let there = offset.next_multiple_of(BLOCK_BYTES).min(length);
        let firm = file.reserve(offset, length - offset).map_or(there, |()| length);
        self.state.lock().room.firm = 0;
        self.has_space(number, firm);
        self.segments.slot.lock().active = Active { end: there, ..Active::new(number, length, firm) };
        Ok(())
    }

    /// Adds space to the active file, as the preparing thread.
    pub(crate) fn extend(&self, extension: Extension) {
        let Extension { number, range } = extension;
        let reserved = self.open_segment(number).and_then(|file| {
            file.reserve(range.start, range.end - range.start)?;
            Ok(file)
        });
        if let Ok(file) = &reserved {
            // What is reserved may be written to; what is zeroed already is only faster.
            let filled = fill_with_zeros(self, number, range.clone(), &mut |done| {
                let mut slot = self.segments.slot.lock();
                slot.active.firm = done;
                slot.active.hurry || slot.closing
            });
            if let Err(error) = filled.and_then(|()| file.sync()) {
                tracing::warn!(%error, number, "cannot fill the segment with zeros");
            }
            self.has_space(number, range.end);
        }
        let mut slot = self.segments.slot.lock();
        slot.active.changing = false;
        slot.active.hurry = false;
        if reserved.is_ok() {
            slot.active.firm = range.end;
        }
        self.segments.changed.notify_all();
        if reserved.is_err() {
            // The journal's thread tries for itself when it must.
            self.segments.changed.wait_for(&mut slot, AGAIN);
        }
    }

    /// Gives back what a quiet node does not need: used files, the next segment's, the rest of the active one's.
    fn give_back(&self) -> io::Result<()> {
        // On a disk that is nearly full what we have is kept: consumers may need it.
        if self.state.lock().room.free < 4 * self.options.segment_bytes {
            return Ok(());
        }
        let spares = std::mem::take(&mut self.segments.slot.lock().spares);
        for spare in spares {
            self.options.files.remove(&spare_path(self, spare))?;
        }
        self.give_back_next()?;
        self.give_back_rest();
        Ok(())
    }

    /// The next segment's file goes, or what is not needed of it when it will be used soon.
    fn give_back_next(&self) -> io::Result<()> {
        let keep = keep(self.options.segment_bytes);
        let mut slot = self.segments.slot.lock();
        let far = slot.active.length > slot.active.end + 2 * keep;
        let Next::Ready { number, file, firm } = &slot.next else { return Ok(()) };
        let (number, file, firm) = (*number, Arc::clone(file), *firm);
        if number != slot.active.number + 1 || (!far && firm <= keep) {
            return Ok(());
        }
        slot.next = Next::Working;
        drop(slot);
        let mut state = self.state.lock();
        let unused = state.table.iter().next_back().is_some_and(|active| active.number < number);
        if unused {
            state.room.reserved = false;
            state.room.made = if far { number - 1 } else { number };
        }
        drop(state);
        let (next, done) = if unused && far {
            (Next::None { wanted: None }, self.options.files.remove(&segment::path(&self.folder, number)))
        } else if unused && self.segments.release(self, number, &*file, hole_beyond(keep, firm)) {
            (Next::Ready { number, file, firm: keep }, Ok(()))
        } else {
            (Next::Ready { number, file, firm }, Ok(()))
        };
        let mut slot = self.segments.slot.lock();
        slot.next = next;
        slot.hurry = false;
        self.segments.changed.notify_all();
        done
    }

    /// The active file's rest becomes a hole, but for what is kept.
    fn give_back_rest(&self) {
        let keep = keep(self.options.segment_bytes);
        let mut slot = self.segments.slot.lock();
        let (number, length, old) = (slot.active.number, slot.active.length, slot.active.firm);
        let worth = old > slot.active.end + 2 * keep;
        if !worth || slot.active.changing || !slot.holes || number == 0 {
            return;
        }
        slot.active.changing = true;
        drop(slot);
        let promised = self.state.lock().promise_less(number, keep, old);
        let released = promised.filter(|firm| self.release_rest(number, *firm, old));
        let mut state = self.state.lock();
        if let Some(firm) = released {
            let hole = hole_beyond(firm, length);
            state.table.set_hole(number, hole.end - hole.start);
        } else if promised.is_some() {
            state.room.firm = old;
        }
        drop(state);
        let mut slot = self.segments.slot.lock();
        slot.active.changing = false;
        slot.active.hurry = false;
        slot.active.firm = released.unwrap_or(old);
        self.segments.changed.notify_all();
    }

    fn release_rest(&self, number: u32, firm: u64, old: u64) -> bool {
        let mut slot = self.segments.slot.lock();
        // Records may have gone beyond it meanwhile. From here on the journal's thread waits before it goes there.
        if slot.active.end > firm {
            return false;
        }
        slot.active.firm = firm;
        drop(slot);
        let file = self.open_segment(number);
        file.is_ok_and(|file| self.segments.release(self, number, &*file, hole_beyond(firm, old)))
    }
}

impl State {
    /// Lets the active segment `number` count on `keep` bytes beyond its records only, where it counted on `old`. Says
    /// up to where that is; more has to be asked for from here on.
    fn promise_less(&mut self, number: u32, keep: u64, old: u64) -> Option<u64> {
        let active = self.table.iter().next_back().filter(|active| active.number == number)?;
        let firm = u64::from(self.offset).next_multiple_of(BLOCK_BYTES) + keep;
        if firm + BLOCK_BYTES > old.min(active.length) {
            return None;
        }
        self.room.firm = firm;
        Some(firm)
    }
}

/// Watches how much is going on.
pub(crate) struct Pace {
    looked: Instant,
    /// Bytes appended when last looked at: by everyone, and by the cleaner.
    appended: u64,
    copied: u64,
    live: u64,
    /// Bytes that came or went for each look, the cleaner's apart, and bytes written.
    load: u64,
    written: u64,
}

impl Pace {
    /// A start counts as a load: it takes some seconds to fade.
    pub(crate) fn new(shared: &Shared) -> Self {
        let much = SLACK * shared.options.segment_bytes;
        Self { looked: Instant::now(), appended: 0, copied: 0, live: 0, load: much, written: much }
    }

    /// Looks, if it is time.
    pub(crate) fn look(&mut self, shared: &Shared) {
        if self.looked.elapsed() < shared.options.pace {
            return;
        }
        self.looked = Instant::now();
        let state = shared.state.lock();
        let (appended, copied, live) = (state.appended, state.copied, state.table.live_bytes());
        drop(state);
        let written = appended - self.appended;
        let load = (written - (copied - self.copied)).max(live.abs_diff(self.live));
        (self.appended, self.copied, self.live) = (appended, copied, live);
        self.written = written.max(self.written / DECAY);
        self.load = load.max(self.load / DECAY);
        let options = &shared.options;
        let keep = keep(options.segment_bytes);
        let slack = self.load.saturating_mul(SLACK);
        if shared.segments.slack.swap(slack, Ordering::Relaxed) > slack {
            shared.cleaner.wake();
        }
        let quiet = self.written.max(self.load) < keep / 4;
        shared.segments.slot.lock().quiet = quiet;
        if quiet && let Err(error) = shared.give_back() {
            tracing::warn!(%error, "cannot give back a segment's file that is not needed");
        }
    }
}
