//! Helpers that know the store's API, so that the tests read like tables.
#![allow(dead_code, missing_docs, clippy::unwrap_used, clippy::expect_used, unreachable_pub)]

pub mod model;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use portolan_core::message::{Facts, Message, Origin, Span};
use portolan_core::store::{
    Appended, Content, Index, Journal, Position, QueueId, Record, Recovered, SeqRange, StoreError, Waiter,
};
use portolan_storage::faulty::FaultyFs;
use portolan_storage::{FileSystem, Options, RealFs, Store};

pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn message(body: &[u8]) -> Message {
    let facts = Facts {
        exchange: Span::default(),
        routing_key: Span::default(),
        properties: Span::default(),
        body: Span::default(),
        origin: Origin::Amqp091,
        priority: 3,
        persistent: true,
        ttl: Some(77),
    };
    Message::assemble(facts, b"exchange", b"routing.key", &[0x10, 0, 2], body)
}

pub fn body(queue: u64, seq: u64, len: usize) -> Vec<u8> {
    let mut body = format!("{queue}/{seq}/").into_bytes();
    body.resize(len.max(body.len()), (seq % 251) as u8);
    body
}

pub fn enqueue(journal: &dyn Journal, queue: u64, seq: u64, body: &[u8]) -> Result<Appended, StoreError> {
    let message = message(body);
    let content = Content::Inline(&message);
    journal.append(&Record::Enqueued { queue: QueueId(queue), seq, expires_at: 0, content })
}

pub fn refer(journal: &dyn Journal, queue: u64, seq: u64, to: Position) -> Result<Appended, StoreError> {
    let content = Content::At(to);
    journal.append(&Record::Enqueued { queue: QueueId(queue), seq, expires_at: 0, content })
}

pub fn settle(journal: &dyn Journal, queue: u64, seqs: &[u64], freed: &[Position]) -> Result<Appended, StoreError> {
    let ranges: Vec<_> = seqs.iter().map(|seq| SeqRange { first: *seq, count: 1 }).collect();
    journal.append(&Record::Settled { queue: QueueId(queue), ranges: &ranges, freed })
}

pub fn fact(journal: &dyn Journal, key: &str, value: Option<&str>) -> Result<Appended, StoreError> {
    journal.append(&Record::Fact { key: key.as_bytes(), value: value.map(str::as_bytes) })
}

pub fn read(journal: &dyn Journal, positions: &[Position]) -> Vec<Result<Message, StoreError>> {
    let mut out = Vec::new();
    journal.read(positions, &mut |place, message| {
        assert_eq!(place, out.len(), "in order");
        out.push(message);
    });
    out
}

pub fn bodies(journal: &dyn Journal, positions: &[Position]) -> Vec<Vec<u8>> {
    read(journal, positions).into_iter().map(|message| message.unwrap().body().to_vec()).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    Nothing,
    Durable(Index),
    Failed,
}

pub struct Ear {
    heard: Mutex<Heard>,
    changed: Condvar,
}

impl Ear {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { heard: Mutex::new(Heard::Nothing), changed: Condvar::new() })
    }

    pub fn wait(&self) -> Heard {
        let mut heard = self.heard.lock();
        while *heard == Heard::Nothing {
            assert!(!self.changed.wait_for(&mut heard, PATIENCE).timed_out(), "nothing heard");
        }
        *heard
    }
}

impl Waiter for Ear {
    fn durable(&self, durable: Index) {
        *self.heard.lock() = Heard::Durable(durable);
        self.changed.notify_all();
    }

    fn failed(&self) {
        *self.heard.lock() = Heard::Failed;
        self.changed.notify_all();
    }
}

/// Waits until everything appended is durable; false when the journal failed.
pub fn sync(journal: &dyn Journal) -> bool {
    let ear = Ear::new();
    journal.wait_for(journal.last(), Arc::clone(&ear) as Arc<dyn Waiter>);
    ear.wait() != Heard::Failed
}

/// Waits until `done`, asking again and again.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !done() {
        assert!(std::time::Instant::now() < deadline, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Small segments, on a file system in memory unless told otherwise.
pub fn small(files: Arc<dyn FileSystem>) -> Options {
    let mut options = Options::new("/data");
    options.segment_bytes = 32 << 10;
    options.free_floor = 0;
    options.checkpoint = false;
    options.files = files;
    options
}

pub fn on_disk(folder: &std::path::Path) -> Options {
    Options { folder: folder.to_path_buf(), checkpoint: true, ..small(Arc::new(RealFs)) }
}

pub fn open(options: &Options) -> (Arc<Store>, Recovered) {
    Store::open(options).unwrap()
}

pub fn refusal(options: &Options) -> StoreError {
    match Store::open(options) {
        Ok(_) => panic!("the store opened"),
        Err(error) => error,
    }
}

/// Live messages as (queue, seq), with their bodies checked against [`body`].
pub fn check_live(store: &Store, recovered: &Recovered, len: usize) -> BTreeMap<(u64, u64), Position> {
    let mut live = BTreeMap::new();
    for (queue, state) in &recovered.queues {
        let places: Vec<_> = state.entries.iter().map(|entry| entry.position).collect();
        for (entry, found) in state.entries.iter().zip(bodies(store, &places)) {
            assert_eq!(found, body(queue.0, entry.seq, len), "queue {} seq {}", queue.0, entry.seq);
            assert!(entry.seq < state.next_seq);
            live.insert((queue.0, entry.seq), entry.position);
        }
    }
    live
}

pub fn segments_of(files: &FaultyFs) -> Vec<std::path::PathBuf> {
    let mut paths = files.paths();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    paths
}
