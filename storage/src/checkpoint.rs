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

use crate::encode::u32_at;
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
/// Key of the index that the facts stand for.
const INDEX_KEY: &[u8] = b"index";
/// Facts are kept in that many buckets, each one value of the database: sled reads a thousand values in a few
/// milliseconds, and fifty thousand in a few hundred.
const BUCKETS: u32 = 1024;
const BUCKET_KEY: &[u8] = b"bucket/";

/// Facts with the index that they stand for.
pub(crate) type Known = (Index, BTreeMap<Vec<u8>, Vec<u8>>);

/// The database and what was in it, if it was there before.
type Read = Result<(sled::Db, Option<Known>), String>;

/// The open checkpoint, or the lack of one.
#[derive(Default)]
pub(crate) struct Checkpoint {
    database: Mutex<Option<sled::Db>>,
    /// It is still being opened, for a journal with these records before and after it.
    opening: Mutex<Option<(Opening, Index, Index)>>,
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
    reading: Option<JoinHandle<Read>>,
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

    /// It takes facts, now or as soon as it is open.
    pub(crate) fn is_open(&self) -> bool {
        self.is_opening() || self.database.lock().is_some()
    }

    /// Its own thread is to wait for it to open, and to bring all facts to it.
    pub(crate) fn is_opening(&self) -> bool {
        self.opening.lock().is_some()
    }

    /// A checkpoint that goes on opening beside whatever its user does, for a journal that begins after record
    /// `before` and ends before record `next`.
    pub(crate) fn opening(opening: Opening, before: Index, next: Index) -> Self {
        let opening = opening.reading.is_some().then_some((opening, before, next));
        Self { opening: Mutex::new(opening), ..Self::default() }
    }

    /// Waits until it is open, and tells its facts unless somebody has waited before.
    pub(crate) fn finish_opening(&self) -> Option<Known> {
        let (opening, before, next) = self.opening.lock().take()?;
        let (database, known) = opening.finish(before, next);
        *self.database.lock() = database;
        known
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
    fn finish(self, before: Index, next: Index) -> (Option<sled::Db>, Option<Known>) {
        let Some(reading) = self.reading else { return (None, None) };
        let why = match reading.join() {
            Ok(Ok((database, None))) => return (Some(database), None),
            Ok(Ok((database, Some(known)))) if (before..next).contains(&known.0) => {
                return (Some(database), Some(known));
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
            Ok(Ok(database)) => return (Some(database), None),
            Ok(Err(error)) => tracing::warn!(error, "no checkpoint can be kept until the next start"),
            Err(_) => tracing::warn!("no checkpoint can be kept until the next start: sled panicked"),
        }
        (None, None)
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
    for pair in database.scan_prefix(BUCKET_KEY) {
        let (_, bucket) = pair.map_err(text)?;
        read_bucket(&bucket, &mut facts).ok_or("one of its buckets is cut short")?;
    }
    Ok((index, facts))
}

fn bucket_of(key: &[u8]) -> Vec<u8> {
    let number = (crc32c::crc32c(key) % BUCKETS).to_be_bytes();
    [BUCKET_KEY, &number].concat()
}

fn read_bucket(mut bytes: &[u8], facts: &mut BTreeMap<Vec<u8>, Vec<u8>>) -> Option<()> {
    while !bytes.is_empty() {
        let (key, value) = (u32_at(bytes, 0)? as usize, u32_at(bytes, 4)? as usize);
        let (pair, rest) = bytes.get(8..)?.split_at_checked(key.checked_add(value)?)?;
        let (key, value) = pair.split_at_checked(key)?;
        facts.insert(key.to_vec(), value.to_vec());
        bytes = rest;
    }
    Some(())
}

fn write_bucket(facts: &BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (key, value) in facts {
        bytes.extend_from_slice(&(key.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&(value.len() as u32).to_le_bytes());
        bytes.extend_from_slice(key);
        bytes.extend_from_slice(value);
    }
    bytes
}

/// The checkpoint's thread.
pub(crate) fn run(shared: &Shared) {
    let checkpoint = &shared.checkpoint;
    drop(checkpoint.finish_opening());
    if !checkpoint.is_open() {
        return shared.state.lock().stop_mirroring();
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
        let (facts, index, anew) = take(shared);
        if index > mirrored || anew || !facts.is_empty() {
            match mirror(checkpoint, &facts, index, anew) {
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
fn take(shared: &Shared) -> (Vec<MirrorFact>, Index, bool) {
    let mut state = shared.state.lock();
    let durable = shared.durable.load(Ordering::Acquire);
    let anew = std::mem::take(&mut state.mirror_anew);
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
    (facts, durable, anew)
}

fn mirror(checkpoint: &Checkpoint, facts: &[MirrorFact], index: Index, anew: bool) -> Result<(), String> {
    let database = checkpoint.database.lock();
    let Some(database) = database.as_ref() else { return Ok(()) };
    let apply = || {
        let text = |error: sled::Error| error.to_string();
        let mut changes: BTreeMap<Vec<u8>, Vec<&MirrorFact>> = BTreeMap::new();
        for fact in facts {
            changes.entry(bucket_of(&fact.key)).or_default().push(fact);
        }
        let mut batch = sled::Batch::default();
        if anew {
            for key in database.scan_prefix(BUCKET_KEY).keys() {
                batch.remove(key.map_err(text)?);
            }
        }
        for (bucket, changed) in changes {
            let mut facts = BTreeMap::new();
            let before = if anew { None } else { database.get(&bucket).map_err(text)? };
            if let Some(bytes) = before {
                read_bucket(&bytes, &mut facts).ok_or("one of its buckets is cut short")?;
            }
            for fact in changed {
                match &fact.value {
                    Some(value) => facts.insert(fact.key.clone(), value.clone()),
                    None => facts.remove(&fact.key),
                };
            }
            batch.insert(bucket, write_bucket(&facts));
        }
        // Together with the facts or not at all: the index never promises more than is there.
        batch.insert(INDEX_KEY, &index.to_le_bytes());
        database.apply_batch(batch).map_err(text)
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
