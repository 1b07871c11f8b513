//! The journal as a Raft log: reading a range, dropping an unconfirmed tail, discarding a prefix.

use portolan_core::store::{Appended, Index, Position, Record, Recovered, StoreError};

use crate::encode::{self, Kind, Stored};
use crate::journal::buffer::{FactSizes, State};
use crate::journal::footer::{self, Entry, Footer, Mark};
use crate::journal::frame::{self, Frame};
use crate::journal::recover::read_footer;
use crate::journal::replay::{self, Loaded, Truncation};
use crate::journal::scan::Scan;
use crate::journal::segment::{self, Class};
use crate::journal::window::{AHEAD, Window};
use crate::journal::{Shared, Store};

/// A record as the log has it.
#[derive(Clone, Copy, Debug)]
pub struct RecordAt<'a> {
    /// Its index.
    pub index: Index,
    /// Its term.
    pub term: u32,
    /// Its replica group.
    pub group: u16,
    /// Where it is.
    pub position: Position,
    /// What it says.
    pub record: Stored<'a>,
}

impl Store {
    /// Appends a record of a replica group in a term. [`Journal::append`](portolan_core::store::Journal::append) is
    /// group 0 in term 0.
    ///
    /// # Errors
    /// As for `append`.
    pub fn append_in(&self, group: u16, term: u32, record: &Record<'_>) -> Result<Appended, StoreError> {
        self.shared.append(record, group, term)
    }

    /// Index of the oldest record that is still here, one more than the last when there is none.
    pub fn first(&self) -> Index {
        let state = self.shared.state.lock();
        state.table.oldest().map_or(state.next, |segment| segment.first)
    }

    /// Shows `each` the records from `from` up to and including `to`, in order, as long as it returns true. Does I/O.
    ///
    /// # Errors
    /// `Missing` when the range begins before what has been discarded, `Damaged` when a record cannot be read.
    pub fn read_range(
        &self,
        from: Index,
        to: Index,
        each: &mut dyn FnMut(&RecordAt<'_>) -> bool,
    ) -> Result<(), StoreError> {
        self.shared.read_range(from, to, each)
    }

    /// Makes every record after `index` void and tells what the rest stands for: whoever holds state built from the
    /// dropped records starts again from that. The dropped indexes are given out anew.
    ///
    /// Nobody may append meanwhile.
    ///
    /// # Errors
    /// `Missing` when `index` is not in the journal any more, `Io` or `Failed` when it cannot be read or written.
    pub fn truncate_after(&self, index: Index) -> Result<Recovered, StoreError> {
        self.shared.truncate_after(index)
    }

    /// Discards whole segments in which every record is before `index`, live or not: the caller has a snapshot that
    /// stands for them. Some records before `index` may stay.
    ///
    /// # Errors
    /// `Io` or `Failed`.
    pub fn discard_before(&self, index: Index) -> Result<(), StoreError> {
        let last = {
            let state = self.shared.state.lock();
            let following = state.table.iter().skip(1);
            let whole = state.table.iter().zip(following).take_while(|(_, next)| next.first <= index);
            whole.last().map(|(segment, _)| segment.number)
        };
        let Some(last) = last else { return Ok(()) };
        self.shared.discard_while(&|segment| segment.number <= last)
    }
}

impl Shared {
    fn read_range(
        &self,
        from: Index,
        to: Index,
        each: &mut dyn FnMut(&RecordAt<'_>) -> bool,
    ) -> Result<(), StoreError> {
        self.sync_all()?;
        let mut spans = Vec::new();
        let mut range = {
            let state = self.state.lock();
            let mut following = state.table.iter().skip(1);
            for segment in state.table.iter() {
                let next = following.next().map(|next| next.first);
                // Where nothing was truncated, indexes rise from segment to segment.
                if state.truncations.is_empty() && next.is_some_and(|next| next <= from) {
                    continue;
                }
                let end = if next.is_none() { u64::from(state.offset) } else { segment.length };
                spans.push(Span { number: segment.number, end, next: next.unwrap_or(state.next) });
            }
            let first = state.table.oldest().map_or(state.next, |segment| segment.first);
            if from < first {
                return Err(self.discarded(&state));
            }
            let end = to.saturating_add(1).min(state.next);
            Range { next: from, end, window: Window::default(), truncations: state.truncations.clone() }
        };
        for span in spans {
            if range.next >= range.end || !range.segment(self, &span, each)? {
                break;
            }
        }
        Ok(())
    }

    fn discarded(&self, state: &State) -> StoreError {
        let oldest = state.table.oldest().map_or(0, |segment| segment.number);
        let gone = Position::new(oldest.saturating_sub(1), segment::HEADER as u32);
        gone.map_or(StoreError::Full, StoreError::Missing)
    }

    fn truncate_after(&self, index: Index) -> Result<Recovered, StoreError> {
        let _discarding = self.cleaner.discarding.lock();
        {
            let mut state = self.state.lock();
            let first = state.table.oldest().map_or(1, |segment| segment.first);
            if index.saturating_add(1) < first {
                return Err(self.discarded(&state));
            }
            if index.saturating_add(1) < state.next {
                state.append_mark(Mark::Truncated(index))?;
            }
        }
        self.sync_all()?;
        let loaded = self.load_again()?;
        let mut replayed = replay::replay(&loaded);
        {
            let mut state = self.state.lock();
            state.table = std::mem::take(&mut replayed.table);
            state.truncations = std::mem::take(&mut replayed.truncations);
            state.facts = FactSizes::default();
            state.mirror_anew = true;
        }
        let facts = self.facts_since(&replayed.facts, None, self.options.on_damage)?;
        Ok(self.recovered(replayed, facts))
    }

    /// Tells `each` what the index of a segment says, as far as it goes.
    pub(crate) fn visit_segment(&self, number: u32, each: &mut dyn FnMut(Index, Entry<'_>)) -> Result<(), StoreError> {
        let (segment, following, builder) = {
            let state = self.state.lock();
            let Some(segment) = state.table.get(number).cloned() else { return Ok(()) };
            let following = state.table.get(number + 1).map(|next| next.first);
            (segment, following, state.builder.clone())
        };
        let entries = match following {
            Some(next) => self.sealed_index(number, segment.length, next)?.entries,
            None => builder.bytes().to_vec(),
        };
        footer::visit(&entries, number, segment.first, each);
        Ok(())
    }

    /// The indexes of all segments as they are now.
    fn load_again(&self) -> Result<Vec<Loaded>, StoreError> {
        let mut loaded = Vec::new();
        let segments: Vec<_> = self.state.lock().table.iter().cloned().collect();
        let mut following = segments.iter().skip(1);
        for segment in &segments {
            let (number, length) = (segment.number, segment.length);
            let footer = match following.next() {
                Some(next) => self.sealed_index(number, length, next.first)?,
                None => {
                    let state = self.state.lock();
                    state.builder.clone().footer(segment.first, state.next, state.offset, segment.sizes)
                }
            };
            loaded.push(Loaded { number, length, occupied: length - segment.hole, footer, sealed: true });
        }
        Ok(loaded)
    }

    /// The index of a sealed segment, read from its end or, if that is damaged, from its records.
    pub(crate) fn sealed_index(&self, number: u32, length: u64, followed: Index) -> Result<Footer, StoreError> {
        let failed = |error| self.io("cannot read", number, error);
        let file = self.open_segment(number).map_err(failed)?;
        if let Some(footer) = read_footer(&*file, number, length).map_err(failed)? {
            return Ok(footer);
        }
        let scan = Scan { file: &*file, number, length, begins: None, followed: Some(followed) };
        let scanned = scan.run(&mut Window::default()).map_err(failed)?;
        if let Some(damage) = scanned.damage.iter().find(|damage| damage.lost != damage.next) {
            let what = "records cannot be read although they were on stable storage: restore the file from a backup";
            let (file, offset) = (segment::path(&self.folder, number), damage.from);
            return Err(StoreError::Damaged { file, offset, what: what.into() });
        }
        Ok(scanned.builder.footer(scanned.first, scanned.next, scanned.end as u32, scanned.sizes))
    }
}

/// A segment to read records from.
struct Span {
    number: u32,
    /// Where its frames end at latest.
    end: u64,
    /// Index of the record after it.
    next: Index,
}

struct Range {
    next: Index,
    end: Index,
    window: Window,
    truncations: Vec<Truncation>,
}

impl Range {
    /// Shows the segment's records that belong to the range; false when `each` has had enough.
    fn segment(
        &mut self,
        shared: &Shared,
        span: &Span,
        each: &mut dyn FnMut(&RecordAt<'_>) -> bool,
    ) -> Result<bool, StoreError> {
        let number = span.number;
        let failed = |error| shared.io("cannot read", number, error);
        let file = shared.open_segment(number).map_err(failed)?;
        let seed = frame::seed(number);
        self.window.reset();
        let mut offset = segment::HEADER as u64;
        let mut ordinal = 0;
        let mut after = 0;
        while offset < span.end && self.next < self.end {
            let frame = self.window.frame(&*file, offset, span.end, seed, AHEAD).map_err(failed)?;
            let Some(frame) = frame.filter(|frame| frame.head.kind != Kind::Index) else {
                if frame.is_some() || after == span.next {
                    break;
                }
                let what = "the record fails its checksum: restore the file from a backup".into();
                return Err(StoreError::Damaged { file: segment::path(&shared.folder, number), offset, what });
            };
            let head = frame.head;
            ordinal += usize::from(head.kind != Kind::Round);
            after = head.index;
            if head.kind.is_record() {
                after += 1;
                let void = self.truncations.iter().any(|truncation| truncation.voids(number, ordinal, head.index));
                if head.index == self.next && !void {
                    self.next += 1;
                    if !show(number, offset, &frame, each) {
                        return Ok(false);
                    }
                }
            }
            offset += head.size() as u64;
        }
        Ok(true)
    }
}

fn show(number: u32, offset: u64, frame: &Frame<'_>, each: &mut dyn FnMut(&RecordAt<'_>) -> bool) -> bool {
    let head = frame.head;
    let class = match head.kind {
        Kind::Enqueued | Kind::Referred => Class::of(head.size()).number(),
        _ => 0,
    };
    let position = Position::new(number, offset as u32 | u32::from(class));
    let (Some(position), Ok(record)) = (position, encode::decode(head.kind, frame.payload)) else { return true };
    each(&RecordAt { index: head.index, term: head.term, group: head.group, position, record })
}
