//! Opening a journal: which segments there are, what they hold, and what to do about what is not as it was written.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use portolan_core::store::{Index, StoreError};

use crate::encode::Kind;
use crate::filesystem::{BLOCK, File};
use crate::folder::{Found, io_error};
use crate::journal::footer::{self, Builder, Footer, TRAILER};
use crate::journal::frame::{self, Head};
use crate::journal::replay::Loaded;
use crate::journal::scan::{Damage, Lack, Scan, Scanned, Search, Torn};
use crate::journal::segment::{self, Header};
use crate::journal::window::Window;
use crate::options::{OnDamage, Options};

/// What was found in the journal's folder.
pub(crate) struct Recovery {
    /// Segments with records, oldest first.
    pub(crate) segments: Vec<Loaded>,
    /// Where the next frame goes, in the last of them or, when that one is sealed, in a new one.
    pub(crate) offset: u32,
    /// Index of the next record.
    pub(crate) next: Index,
    /// The index of the segment that is written on.
    pub(crate) builder: Builder,
    /// A file that is ready for the next segment.
    pub(crate) prepared: Option<(u32, Arc<dyn File>)>,
    /// Records after this one are void: the last group is not there as a whole, and began in a segment that is sealed.
    pub(crate) void_after: Option<Index>,
    /// The segment that has to be made ready anew.
    pub(crate) wanted: Option<u32>,
}

/// A segment file on the way in.
struct Candidate {
    number: u32,
    file: Arc<dyn File>,
    length: u64,
    /// What is known of its first record before it is read.
    first: Option<Index>,
    /// The same, if the header says so.
    begins: Option<Index>,
    /// Its header is as it was made.
    ready: bool,
}

struct Reader<'o> {
    options: &'o Options,
    folder: &'o Path,
    window: Window,
}

/// Reads the journal in `folder`.
pub(crate) fn recover(options: &Options, folder: &Path, found: Found) -> Result<Recovery, StoreError> {
    let mut reader = Reader { options, folder, window: Window::default() };
    let names = options.files.list(folder).map_err(|error| io_error("cannot list", folder, error))?;
    let mut numbers: Vec<u32> = names.iter().filter_map(|name| segment::number_in(name)).collect();
    numbers.sort_unstable();
    for name in names.iter().filter(|name| name.ends_with(".spare")) {
        reader.remove(&folder.join(name))?;
    }
    if found == Found::Known && numbers.is_empty() {
        return Err(reader.damaged(1, 0, "the journal has no segment left: restore the data folder from a backup"));
    }
    let mut begun = Vec::new();
    let mut unused = Vec::new();
    for number in numbers {
        let (candidate, is_begun) = reader.candidate(number)?;
        if is_begun { begun.push(candidate) } else { unused.push(candidate) }
    }
    let mut recovery = reader.load(&begun)?;
    reader.check_succession(&mut recovery, &unused, found)?;
    let next = recovery.segments.last().map_or(1, |last| last.number + u32::from(last.sealed || recovery.offset > 0));
    for candidate in unused {
        if candidate.number == next && recovery.offset == 0 {
            reader.scrub(&candidate)?;
            recovery.prepared = Some((next, candidate.file));
        } else {
            // There is time to make the next one while this one is filled, which reading through the file is not.
            reader.remove(&segment::path(folder, candidate.number))?;
            recovery.wanted = recovery.wanted.or((candidate.number == next).then_some(next));
        }
    }
    Ok(recovery)
}

impl Reader<'_> {
    fn path(&self, number: u32) -> PathBuf {
        segment::path(self.folder, number)
    }

    fn damaged(&self, number: u32, offset: u64, what: &str) -> StoreError {
        StoreError::Damaged { file: self.path(number), offset, what: what.into() }
    }

    fn failed(&self, what: &'static str, number: u32) -> impl FnOnce(io::Error) -> StoreError {
        let path = self.path(number);
        move |error| io_error(what, &path, error)
    }

    fn remove(&self, path: &Path) -> Result<(), StoreError> {
        self.options.files.remove(path).map_err(|error| io_error("cannot remove", path, error))
    }

    /// Opens a segment and says whether anything was written to it.
    fn candidate(&mut self, number: u32) -> Result<(Candidate, bool), StoreError> {
        let path = self.path(number);
        let file = self.options.files.open(&path).map_err(self.failed("cannot open", number))?;
        let actual = file.length().map_err(self.failed("cannot read", number))?;
        let mut bytes = [0; segment::HEADER];
        file.read_at(&mut bytes, 0).map_err(self.failed("cannot read", number))?;
        match Header::decode(&bytes) {
            Some(Header { number: named, length, first: Some(first) }) if named == number => {
                if actual < length {
                    let what = "the file does not have the length that it was made with: restore it from a backup, \
                                or start once with on_damage = \"repair\" to skip what is missing";
                    self.tolerate(self.damaged(number, actual, what))?;
                    file.allocate(length).map_err(self.failed("cannot repair", number))?;
                }
                Ok((Candidate { number, file, length, first: Some(first), begins: Some(first), ready: true }, true))
            }
            // Made ready, or recycled and not made ready yet: nothing that was synced is in it.
            Some(header) => {
                let ready = header.number == number && header.length <= actual;
                Ok((Candidate { number, file, length: actual, first: None, begins: None, ready }, false))
            }
            None => {
                let mut search = Search { file: &*file, length: actual, seed: frame::seed(number), least: 0 };
                self.window.reset();
                let frame = search.next(&mut self.window, 8).map_err(self.failed("cannot read", number))?;
                let first = frame.map(|(_, _, index, _)| index);
                if first.is_some() {
                    tracing::warn!(file = %path.display(), offset = 0, "segment header unreadable, records are read without it");
                }
                Ok((Candidate { number, file, length: actual, first, begins: None, ready: false }, first.is_some()))
            }
        }
    }

    /// Refuses damage, or logs it when the operator asked to go on.
    fn tolerate(&self, damage: StoreError) -> Result<(), StoreError> {
        match self.options.on_damage {
            OnDamage::Refuse => Err(damage),
            OnDamage::Repair => {
                tracing::error!(%damage, "damage skipped as asked");
                Ok(())
            }
        }
    }

    fn load(&mut self, begun: &[Candidate]) -> Result<Recovery, StoreError> {
        let mut recovery = Recovery {
            segments: Vec::new(),
            offset: 0,
            next: 1,
            builder: Builder::default(),
            prepared: None,
            void_after: None,
            wanted: None,
        };
        for (at, candidate) in begun.iter().enumerate() {
            let following = begun.get(at + 1);
            let trusted = match following {
                // Only a segment with a successor is on stable storage whole, and its index with it.
                Some(following) => {
                    self.footer(candidate)?.filter(|footer| following.first.is_none_or(|first| first == footer.next))
                }
                None => None,
            };
            let (number, length) = (candidate.number, candidate.length);
            let occupied = candidate.file.occupied().map_err(self.failed("cannot read", number))?;
            if let Some(footer) = trusted {
                recovery.next = footer.next;
                recovery.segments.push(Loaded { number, length, occupied, footer, sealed: true });
                continue;
            }
            if following.is_some() {
                tracing::warn!(file = %self.path(number).display(), "segment has no readable index, reading all of it");
            }
            let last = recovery.segments.last();
            let before = last.filter(|last| last.number + 1 == number).map(|_| recovery.next);
            let (scanned, lack) = self.scan(candidate, following, before)?;
            recovery.next = scanned.next;
            recovery.offset = scanned.end as u32;
            let sealed = scanned.sealed || following.is_some();
            let first = scanned.first;
            recovery.builder = scanned.builder.clone();
            let ahead = recovery.segments.last().filter(|_| before.is_some());
            recovery.void_after = void_after(lack, ahead.map(|ahead| &ahead.footer));
            let open = scanned.open();
            let mut footer = scanned.builder.footer(first, scanned.next, scanned.end as u32, scanned.sizes);
            footer.open = open;
            recovery.segments.push(Loaded { number, length, occupied, footer, sealed });
        }
        if recovery.segments.last().is_none_or(|last| last.sealed) {
            recovery.offset = 0;
            recovery.builder = Builder::default();
        }
        Ok(recovery)
    }

    /// The index at the end of a segment, when it is sound.
    fn footer(&mut self, candidate: &Candidate) -> Result<Option<Footer>, StoreError> {
        read_footer(&*candidate.file, candidate.number, candidate.length)
            .map_err(self.failed("cannot read", candidate.number))
    }

    fn scan(
        &mut self,
        candidate: &Candidate,
        following: Option<&Candidate>,
        before: Option<Index>,
    ) -> Result<(Scanned, Lack), StoreError> {
        let number = candidate.number;
        let scan = Scan {
            file: &*candidate.file,
            number,
            length: candidate.length,
            begins: candidate.begins.or(before),
            followed: following.map(|following| following.first.unwrap_or(Index::MAX)),
        };
        let mut scanned = scan.run(&mut self.window).map_err(self.failed("cannot read", number))?;
        if scanned.next == 0 {
            // Nothing of it was ever on stable storage.
            scanned.first = scan.begins.or(candidate.first).unwrap_or(1);
            scanned.next = scanned.first;
        }
        for damage in &scanned.damage {
            self.damage(candidate, damage)?;
        }
        let lack = if following.is_none() { scanned.drop_partial() } else { Lack::Nothing };
        if let Some(torn) = &scanned.torn {
            self.torn(candidate, torn)?;
        }
        Ok((scanned, lack))
    }

    fn damage(&self, candidate: &Candidate, damage: &Damage) -> Result<(), StoreError> {
        let file = self.path(candidate.number);
        if damage.lost == damage.next && damage.lost != 0 {
            tracing::warn!(file = %file.display(), offset = damage.from, "a mark of the journal is damaged, no record is");
        } else {
            let what = format!(
                "records {} up to {} cannot be read although they were on stable storage: restore the file from a \
                 backup, or start once with on_damage = \"repair\" to skip them",
                damage.lost, damage.next
            );
            self.tolerate(self.damaged(candidate.number, damage.from, &what))?;
        }
        write_gap(&*candidate.file, candidate.number, damage).map_err(self.failed("cannot repair", candidate.number))
    }

    /// Drops what a last, unsynced round left behind, so that none of it can come back later.
    fn torn(&self, candidate: &Candidate, torn: &Torn) -> Result<(), StoreError> {
        if torn.partial {
            let file = self.path(candidate.number);
            tracing::warn!(
                file = %file.display(), offset = torn.from, whole_records = torn.dropped + torn.stray.len() as u64,
                "dropped the end of the journal: it had not been synced when the machine stopped"
            );
        }
        let failed = |error| io_error("cannot wipe", &segment::path(self.folder, candidate.number), error);
        const BLANK: [u8; BLOCK] = [0; BLOCK];
        let mut from = torn.from;
        while from < torn.until {
            let piece = BLANK.get(..(torn.until - from).min(BLOCK as u64) as usize).unwrap_or_default();
            candidate.file.write_at(piece, from).map_err(failed)?;
            from += piece.len() as u64;
        }
        self.wipe(candidate, std::iter::once(torn.until).chain(torn.stray.iter().copied()))
    }

    fn wipe(&self, candidate: &Candidate, frames: impl Iterator<Item = u64>) -> Result<(), StoreError> {
        let mut wiped = false;
        for offset in frames.filter(|offset| offset + frame::HEADER as u64 <= candidate.length) {
            let written = candidate.file.write_at(&[0; frame::HEADER], offset);
            written.map_err(self.failed("cannot wipe", candidate.number))?;
            wiped = true;
        }
        if wiped {
            candidate.file.sync().map_err(self.failed("cannot sync", candidate.number))?;
        }
        Ok(())
    }

    /// A file that looks unused may hold frames whose header was lost with an unsynced round.
    fn scrub(&mut self, candidate: &Candidate) -> Result<(), StoreError> {
        let seed = frame::seed(candidate.number);
        let mut search = Search { file: &*candidate.file, length: candidate.length, seed, least: 1 };
        let mut stray = Vec::new();
        let mut offset = segment::HEADER as u64;
        self.window.reset();
        let failed = |error| io_error("cannot read", &segment::path(self.folder, candidate.number), error);
        while let Some((at, size, ..)) = search.next(&mut self.window, offset).map_err(failed)? {
            stray.push(at);
            offset = at + size;
        }
        self.wipe(candidate, stray.into_iter())
    }

    /// Segments must follow one another without a hole, from the first that was not discarded on.
    fn check_succession(&self, recovery: &mut Recovery, unused: &[Candidate], found: Found) -> Result<(), StoreError> {
        let discarded = recovery.segments.iter().map(|loaded| loaded.footer.discarded).max().unwrap_or(0);
        while let Some(loaded) = recovery.segments.first().filter(|loaded| loaded.number < discarded) {
            self.remove(&self.path(loaded.number))?;
            recovery.segments.remove(0);
        }
        let what = "the file is missing: restore it from a backup, or start once with on_damage = \"repair\" to go \
                    on without its records";
        let mut expected = discarded.max(1);
        let mut before = None;
        for loaded in &recovery.segments {
            if loaded.number != expected {
                self.tolerate(self.damaged(expected, 0, what))?;
                self.bridge(expected..loaded.number, before.unwrap_or(loaded.footer.first), loaded.footer.first)?;
            }
            expected = loaded.number + 1;
            before = Some(loaded.footer.next);
        }
        // A segment is sealed only when the next one is ready, and a new journal begins with one that is.
        let next = match recovery.segments.last() {
            Some(last) if last.sealed => last.number + 1,
            Some(_) => return Ok(()),
            None if found == Found::Known => 1,
            None => return Ok(()),
        };
        match unused.iter().find(|candidate| candidate.number == next) {
            None => {
                self.tolerate(self.damaged(next, 0, what))?;
                // It may have had the rest of what was confirmed.
                recovery.void_after = None;
            }
            Some(candidate) if !candidate.ready => {
                let what = "the file is not as it was made: restore it from a backup, or start once with on_damage = \
                            \"repair\" to go on without what may have been in it";
                self.tolerate(self.damaged(next, 0, what))?;
            }
            Some(_) => {}
        }
        Ok(())
    }
}

impl Reader<'_> {
    /// Puts small files in the place of missing ones, the first of which says that the records from `lost` up to
    /// `next` are gone, so that later starts go on without asking again.
    fn bridge(&self, missing: Range<u32>, lost: Index, next: Index) -> Result<(), StoreError> {
        let mut first = lost;
        for number in missing {
            let failed = |error| io_error("cannot repair", &self.path(number), error);
            let file = self.options.files.create(&self.path(number)).map_err(failed)?;
            let header = Header { number, length: BLOCK as u64, first: Some(first) };
            let from = segment::HEADER as u64;
            let gap = Damage { from, until: from + frame::size(8) as u64, lost: first, next };
            let written = file.allocate(header.length).and_then(|()| file.write_at(&header.encode(), 0));
            written.and_then(|()| write_gap(&*file, number, &gap)).map_err(failed)?;
            first = next;
        }
        self.options.files.sync_folder(self.folder).map_err(|error| io_error("cannot sync", self.folder, error))
    }
}

/// The last record that counts when the last segment lacks that, if others are still there.
fn void_after(lack: Lack, before: Option<&Footer>) -> Option<Index> {
    let began = match lack {
        Lack::Nothing => None,
        Lack::Rest(index) => Some(index),
        Lack::Beginning(index) => match before {
            Some(before) if before.open > 0 => before.next.checked_sub(u64::from(before.open)),
            _ => index,
        },
    };
    began?.checked_sub(1)
}

/// Fills the place of damaged records with a gap that says what comes next, so that later starts read on without
/// asking again.
pub(crate) fn write_gap(file: &dyn File, number: u32, damage: &Damage) -> io::Result<()> {
    let Some(room) = (damage.until - damage.from).checked_sub(frame::HEADER as u64) else { return Ok(()) };
    let Ok(length) = usize::try_from(room) else { return Ok(()) };
    // Only the mark of a round of format 1 is so short that a gap does not fit in its place.
    let (kind, index) = if length < 8 { (Kind::Round, damage.next) } else { (Kind::Gap, damage.lost) };
    let length = if length < 8 { 0 } else { length };
    let mut bytes = Vec::new();
    let head = Head { length, index, term: 0, group: 0, kind };
    frame::write(&mut bytes, frame::seed(number), &head, |out| {
        if length > 0 {
            out.extend_from_slice(&damage.next.to_le_bytes());
            out.resize(out.len() + length - 8, 0);
        }
    });
    file.write_at(&bytes, damage.from)?;
    file.sync()
}

/// The index at the end of a segment, when it is sound.
pub(crate) fn read_footer(file: &dyn File, number: u32, length: u64) -> io::Result<Option<Footer>> {
    let seed = frame::seed(number);
    let Some(at) = length.checked_sub(TRAILER as u64) else { return Ok(None) };
    let mut trailer = [0; TRAILER];
    file.read_at(&mut trailer, at)?;
    let Some((offset, size)) = footer::parse_trailer(&trailer, seed) else { return Ok(None) };
    if offset.checked_add(size as u64).is_none_or(|end| end > at) {
        return Ok(None);
    }
    let mut bytes = vec![0; size];
    let read = file.read_at(&mut bytes, offset)?;
    let frame = frame::parse(bytes.get(..read).unwrap_or_default(), seed);
    Ok(frame.filter(|frame| frame.head.kind == Kind::Index).and_then(|frame| Footer::parse(frame.payload)))
}
