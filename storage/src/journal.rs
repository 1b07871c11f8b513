//! The journal: one sequence of records in segment files, and the store that the broker opens.

pub(crate) mod buffer;
mod clean;
mod extent;
mod facts;
mod footer;
pub mod frame;
mod group_commit;
mod prepare;
mod range;
mod read;
mod recover;
mod replay;
mod scan;
mod segment;
mod window;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex, RwLock};
use portolan_core::message::Message;
use portolan_core::store::{
    Appended, Index, Journal, Owner, Position, Record, Recovered, Space, StoreError, Unit, Waiter,
};

use crate::checkpoint::Checkpoint;
use crate::filesystem::Lock;
use crate::folder::{self, Found, io_error};
use crate::journal::buffer::{Limits, Sleep, State};
use crate::journal::footer::Mark;
use crate::journal::prepare::Segments;
use crate::journal::read::Readers;
use crate::journal::replay::Replayed;
use crate::journal::segment::Segment;
use crate::options::Options;

pub use range::RecordAt;

/// Name of the cleaning thread.
const CLEANER: &str = "journal-clean";
/// Freed positions handled under one hold of the lock, so that a purge of a million never blocks publishers.
const FREED_AT_ONCE: usize = 1024;

/// What the store's threads and its users share.
pub(crate) struct Shared {
    pub(crate) options: Options,
    /// The journal's folder.
    pub(crate) folder: PathBuf,
    pub(crate) state: Mutex<State>,
    /// Held for reading while a unit is appended, for writing while a group is cut. Taken before any other lock.
    units: RwLock<()>,
    /// Wakes the journal's thread.
    work: Condvar,
    /// Tells our own threads that a chunk has been synced.
    synced: Condvar,
    pub(crate) durable: AtomicU64,
    /// Position up to which everything is in the files.
    written: AtomicU64,
    pub(crate) segments: Segments,
    readers: Readers,
    pub(crate) cleaner: clean::Cleaner,
    pub(crate) checkpoint: Checkpoint,
}

/// The store on disk.
pub struct Store {
    shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Released last: until then no other broker may have the folder.
    lock: Mutex<Option<Lock>>,
}

impl Store {
    /// Opens the store in a data folder, new or used before, and tells what it knows.
    ///
    /// # Errors
    /// `InUse`, `TooNew`, `Damaged` unless damage is to be repaired, `Io`.
    pub fn open(options: &Options) -> Result<(Arc<Self>, Recovered), StoreError> {
        let files = &*options.files;
        let lock = folder::lock(files, &options.folder)?;
        let found = folder::check_format(files, &options.folder)?;
        let folder = options.folder.join("journal");
        files.create_folder(&folder).map_err(|error| io_error("cannot make", &folder, error))?;
        // The checkpoint takes longer to open than the journal does to read, so they go side by side.
        let opening = Checkpoint::begin_opening(options);
        let recovery = recover::recover(options, &folder, found)?;
        let mut replayed = replay::replay(&recovery.segments);
        let before = recovery.segments.first().map_or(0, |first| first.footer.first.saturating_sub(1));
        let checkpoint = Checkpoint::opening(opening, before, recovery.next);
        let state = Self::state(options, &recovery, &mut replayed);
        let shared = Arc::new(Shared {
            options: options.clone(),
            folder,
            durable: AtomicU64::new(recovery.void_after.unwrap_or(recovery.next - 1)),
            written: AtomicU64::new(written_up_to(&state)),
            state: Mutex::new(state),
            units: RwLock::new(()),
            work: Condvar::new(),
            synced: Condvar::new(),
            segments: Segments::new(),
            readers: Readers::default(),
            cleaner: clean::Cleaner::default(),
            checkpoint,
        });
        shared.first_files(recovery.prepared, found)?;
        if let Some(number) = recovery.wanted {
            shared.segments.want(number);
        }
        let facts = shared.facts(&replayed.facts)?;
        let mut recovered = shared.recovered(replayed, facts);
        let threads = Mutex::new(spawn(&shared)?);
        let store = Arc::new(Self { shared, threads, lock: Mutex::new(Some(lock)) });
        if let Some(after) = recovery.void_after {
            recovered = store.truncate_after(after)?;
        }
        // On a full disk it may find no room; a crash then looks like the clean stop before it, and messages that
        // were delivered since lack their mark.
        match store.shared.state.lock().append_mark(Mark::Opened) {
            Ok(()) | Err(StoreError::Full) => {}
            Err(error) => return Err(error),
        }
        store.shared.sync_all()?;
        Ok((store, recovered))
    }

    fn state(options: &Options, recovery: &recover::Recovery, replayed: &mut Replayed) -> State {
        let mut table = std::mem::take(&mut replayed.table);
        let next_number = recovery.segments.last().map_or(1, |last| last.number + u32::from(last.sealed));
        if table.iter().next_back().is_none_or(|last| last.number != next_number) {
            table.push(Segment::new(next_number, options.segment_bytes, recovery.next));
        }
        let limits = Limits {
            segment: options.segment_bytes,
            write: options.write_bytes,
            unsynced: options.unsynced_bytes,
            reserve: extent::keep(options.segment_bytes),
        };
        let mut state = State::new(table, recovery.offset, recovery.next, recovery.builder.clone(), limits);
        state.truncations = std::mem::take(&mut replayed.truncations);
        state.room.made = recovery.prepared.as_ref().map_or(next_number - u32::from(recovery.offset == 0), |it| it.0);
        state.room.reserved = recovery.prepared.as_ref().is_some_and(|(number, _)| *number != next_number);
        state
    }

    /// Tells the store who owns the state that it holds, so that it can clean.
    pub fn set_owner(&self, owner: Arc<dyn Owner>) {
        self.shared.cleaner.set_owner(owner);
    }

    /// Writes everything out, marks the stop as clean, and gives the folder free. Nothing can be appended after it.
    ///
    /// # Errors
    /// `Failed` when the journal had failed before or fails now.
    pub fn close(&self) -> Result<(), StoreError> {
        self.stop(true)
    }

    fn stop(&self, clean: bool) -> Result<(), StoreError> {
        let mut threads = std::mem::take(&mut *self.threads.lock());
        if threads.is_empty() {
            return Ok(());
        }
        // The cleaner first: it appends, and waits for what it appended.
        self.shared.cleaner.close();
        drop(self.shared.state.lock());
        self.shared.synced.notify_all();
        if let Some(at) = threads.iter().position(|thread| thread.thread().name() == Some(CLEANER)) {
            join(threads.swap_remove(at));
        }
        // From here on a segment that finds no room on the disk is an error rather than a reason to wait.
        self.shared.segments.close();
        let marked = self.shared.end(clean);
        self.shared.checkpoint.close();
        threads.into_iter().for_each(join);
        let reason = self.shared.state.lock().failed.clone();
        self.shared.fail_quietly("the store is closed");
        self.lock.lock().take();
        match reason {
            Some(reason) => Err(StoreError::Failed(reason)),
            None => marked,
        }
    }

    /// Bytes of live data, approximately: what the disk space is compared with.
    pub fn live_bytes(&self) -> u64 {
        self.shared.live_bytes()
    }
}

/// Waits for a thread's end. An owner may let go of the store last, on a thread of ours: that one ends by itself.
fn join(thread: JoinHandle<()>) {
    if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
        tracing::error!("a thread of the journal panicked");
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Err(error) = self.stop(false) {
            tracing::warn!(%error, "the store was not closed in good order");
        }
    }
}

fn written_up_to(state: &State) -> u64 {
    let active = state.table.iter().next_back().map_or(0, |segment| segment.number);
    u64::from(active) << 32 | u64::from(state.offset)
}

fn spawn(shared: &Arc<Shared>) -> Result<Vec<JoinHandle<()>>, StoreError> {
    let start = |name: &str, run: fn(&Shared)| {
        let its = Arc::clone(shared);
        let builder = std::thread::Builder::new().name(name.to_owned());
        let failed = |error| io_error("cannot start a thread for", &shared.folder, error);
        builder.spawn(move || run(&its)).map_err(failed)
    };
    Ok(vec![
        start("journal", group_commit::run)?,
        start("journal-prepare", prepare::run)?,
        start(CLEANER, clean::run)?,
        start("checkpoint", crate::checkpoint::run)?,
    ])
}

impl Shared {
    pub(crate) fn io(&self, what: &'static str, segment: u32, error: io::Error) -> StoreError {
        io_error(what, &segment::path(&self.folder, segment), error)
    }

    /// Segments before this one are on stable storage whole.
    fn written_segment(&self) -> u32 {
        (self.written.load(Ordering::Acquire) >> 32) as u32
    }

    /// Hands on the file found ready, or makes the very first one.
    fn first_files(
        &self,
        prepared: Option<(u32, Arc<dyn crate::filesystem::File>)>,
        found: Found,
    ) -> Result<(), StoreError> {
        self.reserve_active()?;
        self.look_at_disk();
        if let Some((number, file)) = prepared {
            self.segments.found(number, file, self.options.segment_bytes);
        } else if found == Found::Fresh {
            self.segments.make_first(self)?;
        }
        if found == Found::Fresh {
            folder::write_format(&*self.options.files, &self.options.folder)?;
        }
        Ok(())
    }

    fn recovered(&self, replayed: Replayed, facts: BTreeMap<Vec<u8>, Vec<u8>>) -> Recovered {
        let mut state = self.state.lock();
        for (key, value) in &facts {
            state.facts.learn(key, Some(value));
        }
        drop(state);
        let mut queues = replayed.queues;
        if !replayed.clean {
            // What was on its way to a consumer when the broker went down is not known.
            for entry in queues.values_mut().flat_map(|queue| &mut queue.entries) {
                entry.redelivered = true;
            }
        }
        Recovered { facts: facts.into_iter().collect(), queues, clean: replayed.clean }
    }

    /// Takes nothing more, and has the journal's thread write out what there is and end.
    fn end(&self, clean: bool) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        let marked = if clean { state.append_mark(Mark::Closed) } else { Ok(()) };
        state.closing = true;
        drop(state);
        self.work.notify_all();
        marked.and_then(|()| self.sync_all())
    }

    /// Waits until everything appended so far is on stable storage.
    pub(crate) fn sync_all(&self) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        let target = state.begun + u64::from(!state.chunk.bytes.is_empty());
        state.synced_watchers += 1;
        while state.synced < target && state.failed.is_none() {
            // On a full disk that may take until there is room, and the end of the store does not wait for it.
            if clean::is_cleaning() && self.cleaner.is_closing() {
                state.synced_watchers -= 1;
                return Err(StoreError::Failed("the store is being closed".into()));
            }
            self.hurry(&mut state);
            self.synced.wait(&mut state);
        }
        state.synced_watchers -= 1;
        match &state.failed {
            Some(reason) => Err(StoreError::Failed(Arc::clone(reason))),
            None => Ok(()),
        }
    }

    /// Has the buffer written at once.
    fn hurry(&self, state: &mut State) {
        state.urgent = true;
        if state.sleep != Sleep::Awake {
            state.sleep = Sleep::Awake;
            self.work.notify_one();
        }
    }

    /// Refuses whatever comes, without a word in the log.
    fn fail_quietly(&self, reason: &str) {
        let mut state = self.state.lock();
        state.failed.get_or_insert_with(|| reason.into());
        let waiters = std::mem::take(&mut state.waiters);
        self.synced.notify_all();
        drop(state);
        for (_, waiter) in waiters {
            waiter.failed();
        }
    }

    fn append(&self, record: &Record<'_>, group: u16, term: u32) -> Result<Appended, StoreError> {
        let mut state = self.state.lock();
        let before = state.appended;
        let appended = state.append(record, group, term, false).or_else(|error| match error {
            StoreError::Full if clean::is_cleaning() => state.append(record, group, term, true),
            error => Err(error),
        });
        if clean::is_cleaning() {
            state.copied += state.appended - before;
        }
        let wake = match state.sleep {
            Sleep::Awake => false,
            Sleep::Light => !state.full.is_empty() || state.unsynced >= state.limits.write,
            Sleep::Deep => true,
        };
        if wake {
            state.sleep = Sleep::Awake;
            self.work.notify_one();
        }
        let mirrored = !state.mirror.is_empty();
        // Positions count as freed even if the record found no room: that is what makes room.
        let freed = match record {
            Record::Settled { freed, .. } | Record::Dropped { freed, .. } => *freed,
            _ => &[],
        };
        let mut died = false;
        let mut pieces = freed.chunks(FREED_AT_ONCE);
        for position in pieces.next().unwrap_or_default() {
            died |= state.table.free(*position);
        }
        drop(state);
        for piece in pieces {
            let mut state = self.state.lock();
            for position in piece {
                died |= state.table.free(*position);
            }
        }
        if died {
            self.cleaner.wake();
        }
        if mirrored {
            self.checkpoint.wake();
        }
        appended
    }

    fn wait_for(&self, index: Index, waiter: Arc<dyn Waiter>) {
        let mut state = self.state.lock();
        if state.failed.is_some() {
            drop(state);
            return waiter.failed();
        }
        let durable = self.durable.load(Ordering::Acquire);
        if durable >= index {
            drop(state);
            return waiter.durable(durable);
        }
        state.waiters.push((index, waiter));
        let under_way = state.in_flight.back().map_or(durable, |chunk| chunk.last);
        if index > under_way {
            self.hurry(&mut state);
        }
    }

    pub(crate) fn live_bytes(&self) -> u64 {
        let state = self.state.lock();
        state.table.live_bytes() + state.facts.bytes
    }
}

impl Journal for Store {
    fn append(&self, record: &Record<'_>) -> Result<Appended, StoreError> {
        self.shared.append(record, 0, 0)
    }

    fn unit(&self) -> Unit<'_> {
        Unit::of(self.shared.units.read())
    }

    fn last(&self) -> Index {
        self.shared.state.lock().next - 1
    }

    fn durable(&self) -> Index {
        self.shared.durable.load(Ordering::Acquire)
    }

    fn wait_for(&self, index: Index, waiter: Arc<dyn Waiter>) {
        self.shared.wait_for(index, waiter);
    }

    fn nudge(&self) {
        self.shared.hurry(&mut self.shared.state.lock());
    }

    fn read(&self, positions: &[Position], each: &mut dyn FnMut(usize, Result<Message, StoreError>)) {
        self.shared.read(positions, each);
    }

    fn backlog(&self) -> usize {
        self.shared.state.lock().unsynced
    }

    fn space(&self) -> Space {
        if self.shared.state.lock().room.low { Space::Low } else { Space::Plenty }
    }

    fn disk_bytes(&self) -> u64 {
        let idle = self.shared.segments.idle_bytes(self.shared.options.segment_bytes);
        self.shared.state.lock().table.disk_bytes + idle
    }
}
