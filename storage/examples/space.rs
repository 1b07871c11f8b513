//! Prints how much disk a backlog takes while nine tenths of it are consumed and afterwards, and how soon it comes back.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use portolan_core::message::{Facts, Message, Origin, Span};
use portolan_core::store::{Content, Journal, Owner, Position, QueueId, Record, Relocation, SeqRange, StoreError};
use portolan_storage::{Options, Store};

const MESSAGES: u64 = 1_000_000;
const BODY: usize = 1024;
const PATIENCE: Duration = Duration::from_secs(60);

/// One queue, and how many of its messages were moved.
struct Queue {
    store: Weak<Store>,
    live: Mutex<BTreeMap<u64, Position>>,
    moved: Mutex<u64>,
}

impl Owner for Queue {
    fn relocate(&self, entries: Vec<Relocation>) -> Result<(), StoreError> {
        let store = self.store.upgrade().ok_or(StoreError::Full)?;
        let mut live = self.live.lock();
        for entry in entries {
            if let Some(place) = live.get_mut(&entry.seq).filter(|place| **place == entry.from) {
                *place = append(&store, entry.seq, &entry.message)?;
                *self.moved.lock() += 1;
            }
        }
        Ok(())
    }

    fn lost(&self, _: QueueId, _: u64, _: Position) -> Result<Option<Arc<str>>, StoreError> {
        Ok(None)
    }

    fn restate(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

fn append(store: &Store, seq: u64, message: &Message) -> Result<Position, StoreError> {
    let content = Content::Inline(message);
    Ok(store.append(&Record::Enqueued { queue: QueueId(1), seq, expires_at: 0, content })?.position)
}

fn blocks(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => blocks(&entry.path()),
            Ok(data) => data.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}

fn main() {
    let folder = tempfile::tempdir_in(std::env::args().nth(1).unwrap_or_else(|| ".".into())).unwrap();
    let (store, _) = Store::open(&Options::new(folder.path())).unwrap();
    let (live, moved) = (Mutex::default(), Mutex::default());
    let queue = Arc::new(Queue { store: Arc::downgrade(&store), live, moved });
    store.set_owner(Arc::clone(&queue) as Arc<dyn Owner>);
    let nothing = Span::default();
    let facts = Facts {
        exchange: nothing,
        routing_key: nothing,
        properties: nothing,
        body: nothing,
        origin: Origin::Amqp091,
        priority: 0,
        persistent: true,
        ttl: None,
    };
    let message = Message::assemble(facts, b"", b"space", &[0x10, 0, 2], &[7; BODY]);
    let start = Instant::now();
    for seq in 0..MESSAGES {
        let position = loop {
            match append(&store, seq, &message) {
                Ok(position) => break position,
                Err(_) => std::thread::sleep(Duration::from_micros(200)),
            }
        };
        queue.live.lock().insert(seq, position);
    }
    println!("filled in {:.1} s: {} MiB on disk", start.elapsed().as_secs_f64(), blocks(folder.path()) >> 20);
    let start = Instant::now();
    for first in (0..MESSAGES / 10 * 9).step_by(100) {
        let mut live = queue.live.lock();
        let freed: Vec<_> = (first..first + 100).filter_map(|seq| live.remove(&seq)).collect();
        let ranges = [SeqRange { first, count: 100 }];
        store.append(&Record::Settled { queue: QueueId(1), ranges: &ranges, freed: &freed }).unwrap();
    }
    println!("consumed nine tenths in {:.1} s", start.elapsed().as_secs_f64());
    let bodies = MESSAGES / 10 * BODY as u64;
    let (start, mut last) = (Instant::now(), 0);
    while start.elapsed() < PATIENCE {
        let occupied = blocks(folder.path());
        if occupied != last {
            last = occupied;
            let (seconds, ratio) = (start.elapsed().as_secs_f64(), occupied as f64 / bodies as f64);
            let moved = *queue.moved.lock();
            println!("after {seconds:4.1} s: {ratio:.3} bytes of disk for each byte of body, {moved} messages moved");
        }
        std::thread::sleep(Duration::from_millis(250));
    }
}
