//! The checkpoint: sled holds the facts in force with the index that they stand for, so that a start need not read
//! all that the catalogue ever learned. The journal has everything in it too: it can be deleted at any time.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use portolan_core::store::Index;

use crate::journal::Shared;
use crate::journal::buffer::MirrorFact;
use crate::options::Options;

/// Facts gather for so long before they are mirrored.
const EVERY: Duration = Duration::from_millis(200);
/// The index is brought forward at least so often while the journal grows.
const IDLE: Duration = Duration::from_secs(10);
/// More facts than that do not wait in memory: the checkpoint is given up until the next start.
const MOST_WAITING: usize = 1 << 20;
const CACHE: u64 = 2 << 20;
/// Key of the index that the facts stand for; facts have keys that begin with another byte.
const INDEX_KEY: [u8; 1] = [0];
const FACT_KEY: u8 = 1;

/// Facts with the index that they stand for.
pub(crate) type Known = (Index, BTreeMap<Vec<u8>, Vec<u8>>);

/// The open checkpoint, or the lack of one.
#[derive(Default)]
pub(crate) struct Checkpoint {
    database: Mutex<Option<sled::Db>>,
    orders: Mutex<Orders>,
    changed: Condvar,
}

#[derive(Default)]
struct Orders {
    wanted: bool,
    closing: bool,
}

/// A checkpoint that is being read on a thread of its own.
pub(crate) struct Opening {
    folder: PathBuf,
    reading: Option<JoinHandle<Result<(sled::Db, Option<Known>), String>>>,
}

impl Checkpoint {
    pub(crate) fn begin_opening(options: &Options) -> Opening {
        let folder = options.folder.join("checkpoint");
        let there = folder.exists();
        let path = folder.clone();
        let read = move || {
            let database = open(&path).map_err(|error| error.to_string())?;
            let known = if there { Some(load(&database)?) } else { None };
            Ok((database, known))
        };
        // A thread also because sled panics on some damaged files: that ends the thread and nothing else.
        let start = || std::thread::Builder::new().name("checkpoint-open".to_owned()).spawn(read);
        let reading = if options.checkpoint { start().ok() } else { None };
        Opening { folder, reading }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.database.lock().is_some()
    }

    pub(crate) fn wake(&self) {
        let mut orders = self.orders.lock();
        if !orders.wanted {
            orders.wanted = true;
            self.changed.notify_all();
        }
    }

    pub(crate) fn close(&self) {
        self.orders.lock().closing = true;
        self.changed.notify_all();
    }
}

impl Opening {
    /// The checkpoint, with its facts if they can be used with a journal that begins after record `before` and ends
    /// before record `next`.
    pub(crate) fn finish(self, before: Index, next: Index) -> (Checkpoint, Option<Known>) {
        let Some(reading) = self.reading else { return (Checkpoint::default(), None) };
        let why = match reading.join() {
            Ok(Ok((database, None))) => return (Checkpoint::of(database), None),
            Ok(Ok((database, Some(known)))) if (before..next).contains(&known.0) => {
                return (Checkpoint::of(database), Some(known));
            }
            Ok(Ok((_, Some((index, _))))) if index < before => "it is older than the journal's first segment".into(),
            Ok(Ok(_)) => "it is newer than the journal".into(),
            Ok(Err(error)) => error,
            Err(_) => "sled panicked".into(),
        };
        tracing::warn!(folder = %self.folder.display(), reason = why, "checkpoint unusable, rebuilding it from the journal");
        let folder = self.folder.clone();
        let rebuild = move || {
            std::fs::remove_dir_all(&folder).map_err(|error| error.to_string())?;
            open(&folder).map_err(|error| error.to_string())
        };
        match std::thread::spawn(rebuild).join() {
            Ok(Ok(database)) => return (Checkpoint::of(database), None),
            Ok(Err(error)) => tracing::warn!(error, "no checkpoint can be kept until the next start"),
            Err(_) => tracing::warn!("no checkpoint can be kept until the next start: sled panicked"),
        }
        (Checkpoint::default(), None)
    }
}

impl Checkpoint {
    fn of(database: sled::Db) -> Self {
        Self { database: Mutex::new(Some(database)), ..Self::default() }
    }
}

fn open(folder: &Path) -> sled::Result<sled::Db> {
    sled::Config::new().path(folder).cache_capacity(CACHE).mode(sled::Mode::LowSpace).flush_every_ms(Some(1000)).open()
}

fn load(database: &sled::Db) -> Result<Known, String> {
    let text = |error: sled::Error| error.to_string();
    let index = database.get(INDEX_KEY).map_err(text)?.ok_or("it does not say what it stands for")?;
    let index = index.first_chunk().map(|bytes| Index::from_le_bytes(*bytes)).ok_or("its index is cut short")?;
    let mut facts = BTreeMap::new();
    for pair in database.scan_prefix([FACT_KEY]) {
        let (key, value) = pair.map_err(text)?;
        facts.insert(key.get(1..).unwrap_or_default().to_vec(), value.to_vec());
    }
    Ok((index, facts))
}

/// The checkpoint's thread.
pub(crate) fn run(shared: &Shared) {
    let checkpoint = &shared.checkpoint;
    if !checkpoint.is_open() {
        return;
    }
    let mut mirrored = 0;
    loop {
        let mut orders = checkpoint.orders.lock();
        if !orders.closing && !orders.wanted {
            checkpoint.changed.wait_for(&mut orders, IDLE);
        }
        if orders.wanted && !orders.closing {
            checkpoint.changed.wait_for(&mut orders, EVERY);
        }
        orders.wanted = false;
        let closing = orders.closing;
        drop(orders);
        let (facts, index) = take(shared);
        if index > mirrored || !facts.is_empty() {
            match mirror(checkpoint, &facts, index) {
                Ok(()) => mirrored = index,
                Err(error) => {
                    tracing::warn!(error, "the checkpoint failed, no more facts are mirrored until the next start");
                    shared.state.lock().stop_mirroring();
                    return drop_database(checkpoint);
                }
            }
        }
        if closing {
            return drop_database(checkpoint);
        }
    }
}

/// The facts that are on stable storage and not mirrored, and the index that they bring the checkpoint to.
fn take(shared: &Shared) -> (Vec<MirrorFact>, Index) {
    let mut state = shared.state.lock();
    let durable = shared.durable.load(Ordering::Acquire);
    let ready = state.mirror.iter().take_while(|fact| fact.index <= durable).count();
    let rest = state.mirror.split_off(ready);
    let facts = std::mem::replace(&mut state.mirror, rest);
    if state.mirror.len() > MOST_WAITING {
        state.stop_mirroring();
    }
    if !state.mirror.is_empty() {
        drop(state);
        shared.checkpoint.wake();
    }
    (facts, durable)
}

fn mirror(checkpoint: &Checkpoint, facts: &[MirrorFact], index: Index) -> Result<(), String> {
    let database = checkpoint.database.lock();
    let Some(database) = database.as_ref() else { return Ok(()) };
    let apply = || {
        let mut batch = sled::Batch::default();
        for fact in facts {
            let mut key = Vec::with_capacity(1 + fact.key.len());
            key.push(FACT_KEY);
            key.extend_from_slice(&fact.key);
            match &fact.value {
                Some(value) => batch.insert(key, value.as_slice()),
                None => batch.remove(key),
            }
        }
        // Together with the facts or not at all: the index never promises more than is there.
        batch.insert(&INDEX_KEY, &index.to_le_bytes());
        database.apply_batch(batch).map_err(|error| error.to_string())
    };
    catch_unwind(AssertUnwindSafe(apply)).unwrap_or_else(|_| Err("sled panicked".into()))
}

fn drop_database(checkpoint: &Checkpoint) {
    let database = checkpoint.database.lock().take();
    let flush = AssertUnwindSafe(|| {
        if let Some(database) = database
            && let Err(error) = database.flush()
        {
            tracing::warn!(%error, "the checkpoint was not flushed");
        }
    });
    if catch_unwind(flush).is_err() {
        tracing::warn!("the checkpoint was not flushed: sled panicked");
    }
}
