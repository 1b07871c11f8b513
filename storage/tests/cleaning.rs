//! Disk space comes back, however long one old message stays, and nothing that is live is lost on the way.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use portolan_core::store::{Content, Journal, Owner, Position, QueueId, Record, Relocation, StoreError};
use portolan_storage::faulty::FaultyFs;
use portolan_storage::{Options, Store};
use support::*;

/// A broker of the simplest kind: it knows which message of which queue is where.
struct Model {
    store: Weak<Store>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    live: BTreeMap<(u64, u64), Position>,
    facts: BTreeMap<String, String>,
    relocated: usize,
    restated: usize,
}

impl Model {
    fn new(store: &Arc<Store>) -> Arc<Self> {
        let model = Arc::new(Self { store: Arc::downgrade(store), state: Mutex::default() });
        store.set_owner(Arc::clone(&model) as Arc<dyn Owner>);
        model
    }

    fn store(&self) -> Arc<Store> {
        self.store.upgrade().unwrap()
    }

    fn enqueue(&self, queue: u64, seq: u64, len: usize) -> Position {
        let mut state = self.state.lock();
        let position = enqueue(&*self.store(), queue, seq, &body(queue, seq, len)).unwrap().position;
        state.live.insert((queue, seq), position);
        position
    }

    fn settle(&self, queue: u64, seq: u64) {
        let mut state = self.state.lock();
        let position = state.live.remove(&(queue, seq)).unwrap();
        settle(&*self.store(), queue, &[seq], &[position]).unwrap();
    }

    fn fact(&self, key: &str, value: &str) {
        let mut state = self.state.lock();
        state.facts.insert(key.to_owned(), value.to_owned());
        fact(&*self.store(), key, Some(value)).unwrap();
    }

    /// Reads a message; its place may change between the look and the read, and is then looked up again.
    fn read(&self, queue: u64, seq: u64) -> Vec<u8> {
        loop {
            let place = self.state.lock().live[&(queue, seq)];
            match read(&*self.store(), &[place]).remove(0) {
                Ok(message) => return message.body().to_vec(),
                Err(StoreError::Missing(_)) => assert_ne!(self.state.lock().live[&(queue, seq)], place),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The store, opened anew, knows exactly what the model knows.
    fn check_after_restart(&self, options: &Options, len: usize) {
        let state = self.state.lock();
        let (store, recovered) = open(options);
        assert_eq!(check_live(&store, &recovered, len), state.live);
        let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).unwrap();
        let facts: BTreeMap<_, _> = recovered.facts.iter().map(|(key, value)| (text(key), text(value))).collect();
        assert_eq!(facts, state.facts);
    }
}

impl Owner for Model {
    fn relocate(&self, entries: Vec<Relocation>) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        let mut moved: HashMap<Position, Position> = HashMap::new();
        for entry in entries {
            let key = (entry.queue.0, entry.seq);
            if state.live.get(&key) != Some(&entry.from) {
                continue;
            }
            let content = match moved.get(&entry.content_at) {
                Some(at) => Content::At(*at),
                None => Content::Inline(&entry.message),
            };
            let record = Record::Enqueued { queue: entry.queue, seq: entry.seq, expires_at: entry.expires_at, content };
            let position = self.store().append(&record)?.position;
            moved.entry(entry.content_at).or_insert(position);
            state.live.insert(key, position);
            state.relocated += 1;
        }
        Ok(())
    }

    fn restate(&self) -> Result<(), StoreError> {
        let mut state = self.state.lock();
        state.restated += 1;
        for (key, value) in &state.facts {
            fact(&*self.store(), key, Some(value))?;
        }
        Ok(())
    }
}

const LEN: usize = 300;

fn quick() -> Options {
    Options { clean_bytes_per_second: 1 << 30, slack_segments: 3, ..small(Arc::new(FaultyFs::new())) }
}

fn bound(store: &Store, options: &Options) -> u64 {
    store.live_bytes() * 3 / 2 + u64::from(options.slack_segments + 2) * options.segment_bytes
}

#[test]
fn dead_segments_go_without_an_owner() {
    let options = quick();
    let (store, _) = open(&options);
    let mut places = Vec::new();
    for seq in 0..2000 {
        places.push(enqueue(&*store, 1, seq, &body(1, seq, LEN)).unwrap().position);
    }
    assert!(sync(&*store));
    assert!(store.disk_bytes() > 20 * options.segment_bytes);
    let seqs: Vec<_> = (0..2000).collect();
    for (seqs, places) in seqs.chunks(100).zip(places.chunks(100)) {
        settle(&*store, 1, seqs, places).unwrap();
    }
    until("space is back", || store.disk_bytes() <= 4 * options.segment_bytes);
    drop(store);
    let (store, recovered) = open(&options);
    assert!(recovered.queues[&QueueId(1)].entries.is_empty());
    assert_eq!(recovered.queues[&QueueId(1)].next_seq, 2000);
    assert!(store.disk_bytes() <= 4 * options.segment_bytes);
}

#[test]
fn one_old_message_does_not_hold_the_disk() {
    let options = quick();
    let (store, _) = open(&options);
    let model = Model::new(&store);
    model.enqueue(9, 0, LEN);
    for number in 0..20 {
        model.fact(&format!("queue{number}"), "definition");
    }
    for seq in 0..6000 {
        model.enqueue(1, seq, LEN);
        if seq >= 50 {
            model.settle(1, seq - 50);
        }
        if seq % 200 == 0 {
            assert!(sync(&*store));
            until("the disk is within bounds", || store.disk_bytes() <= bound(&store, &options));
        }
    }
    {
        let state = model.state.lock();
        assert!(state.relocated > 0 && state.relocated < 3000, "{}", state.relocated);
        assert!(state.restated > 0);
    }
    assert_eq!(model.read(9, 0), body(9, 0, LEN));
    store.close().unwrap();
    model.check_after_restart(&options, LEN);
}

#[test]
fn small_survivors_among_large_dead_are_seen_as_small() {
    let options = quick();
    let (store, _) = open(&options);
    let model = Model::new(&store);
    for seq in 0..1000 {
        model.enqueue(1, seq, 50);
        model.enqueue(2, seq, 4000);
        model.settle(2, seq);
        if seq % 50 == 0 {
            assert!(sync(&*store));
        }
    }
    // A thousand small messages take some four segments; four megabytes went by.
    until("space is back", || store.disk_bytes() <= 14 * options.segment_bytes);
    for seq in 0..1000 {
        assert_eq!(model.read(1, seq), body(1, seq, 50));
    }
}

#[test]
fn content_stays_while_anything_refers_to_it() {
    let options = quick();
    let (store, _) = open(&options);
    let model = Model::new(&store);
    let content = model.enqueue(1, 0, LEN);
    for seq in 0..400 {
        model.enqueue(3, seq, LEN);
        model.settle(3, seq);
        if seq == 200 {
            let mut state = model.state.lock();
            if let Ok(appended) = refer(&*store, 2, 0, state.live[&(1, 0)]) {
                state.live.insert((2, 0), appended.position);
            }
        }
    }
    let _ = content;
    assert!(model.state.lock().live.contains_key(&(2, 0)));
    model.settle(1, 0);
    for seq in 400..5000 {
        model.enqueue(3, seq, LEN);
        model.settle(3, seq);
        if seq % 100 == 0 {
            assert!(sync(&*store));
        }
    }
    until("space is back", || store.disk_bytes() <= bound(&store, &options));
    assert_eq!(model.read(2, 0), body(1, 0, LEN));
    // The first place of the content has gone; nothing new may refer to it.
    assert!(matches!(refer(&*store, 4, 0, content), Err(StoreError::Missing(_))));
    store.close().unwrap();
    drop(store);
    let (store, recovered) = open(&options);
    let entry = recovered.queues[&QueueId(2)].entries[0];
    assert_eq!(bodies(&*store, &[entry.position])[0], body(1, 0, LEN));
}

#[test]
fn cleaning_and_power_loss_go_together() {
    let files = FaultyFs::new();
    let options = Options { clean_bytes_per_second: 1 << 30, slack_segments: 2, ..small(Arc::new(files.clone())) };
    let (store, _) = open(&options);
    let model = Model::new(&store);
    let mut images = Vec::new();
    for seq in 0..4000 {
        model.enqueue(1, seq, LEN);
        if seq % 40 != 0 {
            model.settle(1, seq);
        }
        if seq % 200 == 199 {
            assert!(sync(&*store));
            // What is live now was durably live, wherever the cleaner is moving it.
            let state = model.state.lock();
            images.push((files.after_power_loss(seq), state.live.keys().copied().collect::<Vec<_>>()));
        }
    }
    for (image, live) in images {
        let options = small(Arc::new(image));
        let (store, recovered) = open(&options);
        let found = check_live(&store, &recovered, LEN);
        for key in live {
            assert!(found.contains_key(&key), "{key:?} is lost");
        }
    }
}
