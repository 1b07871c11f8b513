//! An owner of the simplest kind.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use portolan_core::store::{Content, Journal, Owner, Position, Record, Relocation, StoreError};
use portolan_storage::{Options, Store};

use super::*;

/// A broker of the simplest kind: it knows which message of which queue is where.
pub struct Model {
    pub store: Weak<Store>,
    pub state: Mutex<State>,
}

#[derive(Default)]
pub struct State {
    pub live: BTreeMap<(u64, u64), Position>,
    pub facts: BTreeMap<String, String>,
    pub relocated: usize,
    pub restated: usize,
    pub lost: Vec<(u64, u64)>,
}

impl Model {
    pub fn new(store: &Arc<Store>) -> Arc<Self> {
        let model = Arc::new(Self { store: Arc::downgrade(store), state: Mutex::default() });
        store.set_owner(Arc::clone(&model) as Arc<dyn Owner>);
        model
    }

    pub fn store(&self) -> Arc<Store> {
        self.store.upgrade().unwrap()
    }

    pub fn enqueue(&self, queue: u64, seq: u64, len: usize) -> Position {
        let mut state = self.state.lock();
        let position = enqueue(&*self.store(), queue, seq, &body(queue, seq, len)).unwrap().position;
        state.live.insert((queue, seq), position);
        position
    }

    pub fn settle(&self, queue: u64, seq: u64) {
        let mut state = self.state.lock();
        let position = state.live.remove(&(queue, seq)).unwrap();
        settle(&*self.store(), queue, &[seq], &[position]).unwrap();
    }

    pub fn fact(&self, key: &str, value: &str) {
        let mut state = self.state.lock();
        state.facts.insert(key.to_owned(), value.to_owned());
        fact(&*self.store(), key, Some(value)).unwrap();
    }

    /// Reads a message; its place may change between the look and the read, and is then looked up again.
    pub fn read(&self, queue: u64, seq: u64) -> Vec<u8> {
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
    pub fn check_after_restart(&self, options: &Options, len: usize) {
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

    fn lost(&self, queue: QueueId, seq: u64, at: Position) -> Result<Option<Arc<str>>, StoreError> {
        let mut state = self.state.lock();
        let key = (queue.0, seq);
        if state.live.get(&key) != Some(&at) {
            return Ok(None);
        }
        state.live.remove(&key);
        state.lost.push(key);
        settle(&*self.store(), queue.0, &[seq], &[at])?;
        Ok(Some("a queue".into()))
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
