//! Power fails while records are being written: nothing durable is lost, and the store always opens.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;

use portolan_core::store::{Journal, Position, QueueId};
use portolan_storage::Store;
use portolan_storage::faulty::FaultyFs;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use support::*;

const ROUNDS: u64 = 100;
const LEN: usize = 150;

/// What was appended, with the index that made it so.
#[derive(Default)]
struct Model {
    enqueued: BTreeMap<(u64, u64), (u64, Position)>,
    settled: BTreeMap<(u64, u64), u64>,
    facts: Vec<(u64, String, Option<String>)>,
    next: BTreeMap<u64, u64>,
}

impl Model {
    fn step(&mut self, store: &Store, random: &mut StdRng) {
        let queue = random.random_range(1..4);
        match random.random_range(0..10) {
            0..6 => {
                let seq = *self.next.entry(queue).or_default();
                let length = if random.random_range(0..50) == 0 { 40_000 } else { LEN };
                let appended = enqueue(store, queue, seq, &body(queue, seq, length)).unwrap();
                self.next.insert(queue, seq + 1);
                self.enqueued.insert((queue, seq), (appended.index, appended.position));
            }
            6..9 => {
                let live = self.enqueued.iter().filter(|(key, _)| !self.settled.contains_key(*key));
                let Some((key, (_, position))) = live.into_iter().next() else { return };
                let index = settle(store, key.0, &[key.1], &[*position]).unwrap().index;
                self.settled.insert(*key, index);
            }
            _ => {
                let key = format!("key{}", random.random_range(0..5));
                let value = (random.random_range(0..3) > 0).then(|| random.random::<u32>().to_string());
                let index = fact(store, &key, value.as_deref()).unwrap().index;
                self.facts.push((index, key, value));
            }
        }
    }

    /// Everything durable is there, and nothing that was durably gone.
    fn check(&self, files: FaultyFs, durable: u64, what: &str) -> (Arc<Store>, u64) {
        let options = small(Arc::new(files));
        let (store, recovered) = Store::open(&options).unwrap_or_else(|error| panic!("{what}: {error}"));
        let last = store.last();
        assert!(last >= durable, "{what}: index {last} below the durable {durable}");
        let mut live = BTreeMap::new();
        for (queue, state) in &recovered.queues {
            let places: Vec<_> = state.entries.iter().map(|entry| entry.position).collect();
            for (entry, message) in state.entries.iter().zip(read(&*store, &places)) {
                let found = message.unwrap_or_else(|error| panic!("{what}: {error}")).body().to_vec();
                assert!(found.starts_with(format!("{}/{}/", queue.0, entry.seq).as_bytes()), "{what}");
                live.insert((queue.0, entry.seq), entry.position);
            }
        }
        for (key, (index, position)) in &self.enqueued {
            let gone = self.settled.get(key).is_some_and(|index| *index <= last);
            let expected = (*index <= last && !gone).then_some(position);
            assert_eq!(live.get(key), expected, "{what}: {key:?} of index {index}, last {last}");
        }
        let mut facts = BTreeMap::new();
        for (_, key, value) in self.facts.iter().filter(|(index, ..)| *index <= last) {
            match value {
                Some(value) => facts.insert(key.clone().into_bytes(), value.clone().into_bytes()),
                None => facts.remove(key.as_bytes()),
            };
        }
        assert_eq!(recovered.facts, facts.into_iter().collect::<Vec<_>>(), "{what}");
        (store, last)
    }

    /// Forgets what did not survive.
    fn forget_after(&mut self, last: u64) {
        self.enqueued.retain(|_, (index, _)| *index <= last);
        self.settled.retain(|_, index| *index <= last);
        self.facts.retain(|(index, ..)| *index <= last);
        for (queue, next) in &mut self.next {
            let enqueued = self.enqueued.range((*queue, 0)..(*queue + 1, 0));
            *next = enqueued.map(|((_, seq), _)| seq + 1).max().unwrap_or(0);
        }
    }
}

/// One life after another on the same disk, each ended by a power loss.
fn round(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut model = Model::default();
    let mut files = FaultyFs::new();
    for life in 0..4 {
        let what = format!("seed {seed}, life {life}");
        let (store, _) = Store::open(&small(Arc::new(files.clone()))).unwrap_or_else(|error| panic!("{what}: {error}"));
        for _ in 0..random.random_range(1..250) {
            model.step(&store, &mut random);
            match random.random_range(0..20) {
                0 => assert!(sync(&*store), "{what}"),
                1 => store.nudge(),
                _ => {}
            }
        }
        // What is durable before the lights go out must be there after.
        let durable = store.durable();
        let lost = files.after_power_loss(random.random());
        let killed = files.after_kill();
        model.check(killed, durable, &format!("{what}, killed"));
        let (again, last) = model.check(lost.clone(), durable, &what);
        model.forget_after(last);
        drop(again);
        drop(store);
        files = lost;
    }
}

#[test]
fn nothing_durable_is_lost() {
    for seed in 0..ROUNDS {
        round(seed);
    }
}

#[test]
fn a_queue_without_survivors_starts_anew() {
    let files = FaultyFs::new();
    let options = small(Arc::new(files.clone()));
    let (store, _) = open(&options);
    assert!(sync(&*store));
    files.hold_syncs();
    enqueue(&*store, 1, 0, b"never synced").unwrap();
    store.nudge();
    let lost = (0..20).map(|seed| files.after_power_loss(seed));
    for files in lost {
        let (store, recovered) = open(&small(Arc::new(files)));
        let next = recovered.queues.get(&QueueId(1)).map_or(0, |queue| queue.next_seq);
        assert_eq!(next, store.last());
    }
    files.release_syncs();
}
