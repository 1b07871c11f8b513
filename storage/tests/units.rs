//! A unit is in the journal whole or not at all, however the process or the machine ends.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use portolan_core::store::{Journal, QueueId, Record, Recovered, SeqRange};
use portolan_storage::Store;
use portolan_storage::faulty::FaultyFs;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use support::*;

const MEMBERS: u64 = 4;
const FACTS: &str = "unit";

/// Appends a unit: a fact, and a message for each of some queues.
fn append_unit(store: &Store, number: u64, len: usize) -> u64 {
    let _unit = store.unit();
    fact(store, &format!("{FACTS}{number:06}"), Some("here")).unwrap();
    let last = (1..=MEMBERS).map(|queue| enqueue(store, queue, number, &body(queue, number, len)).unwrap().index);
    last.max().unwrap()
}

/// The units that are there, none of them in part.
fn units(recovered: &Recovered, what: &str) -> BTreeSet<u64> {
    let mut found: BTreeMap<u64, u64> = BTreeMap::new();
    for (key, _) in &recovered.facts {
        let number = String::from_utf8_lossy(key)[FACTS.len()..].parse().unwrap();
        *found.entry(number).or_default() += 1;
    }
    for entry in (1..=MEMBERS).filter_map(|queue| recovered.queues.get(&QueueId(queue))).flat_map(|it| &it.entries) {
        *found.entry(entry.seq).or_default() += 1;
    }
    for (number, parts) in &found {
        assert_eq!(*parts, MEMBERS + 1, "{what}: unit {number} is there in part");
    }
    found.into_keys().collect()
}

fn reopened(files: &FaultyFs, what: &str) -> (Arc<Store>, BTreeSet<u64>) {
    let (store, recovered) =
        Store::open(&small(Arc::new(files.clone()))).unwrap_or_else(|error| panic!("{what}: {error}"));
    let found = units(&recovered, what);
    (store, found)
}

/// The segment that is written to, and where what has been written ends.
fn active(files: &FaultyFs) -> (PathBuf, usize) {
    let mut paths = files.paths();
    paths.retain(|path| path.extension().is_some_and(|ext| ext == "seg"));
    let written = |path: &PathBuf| files.edit(path, |bytes| bytes[24..32] != [0; 8]).unwrap();
    let path = paths.into_iter().filter(written).max().unwrap();
    let end = files.edit(&path, |bytes| bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1).unwrap();
    (path, end)
}

/// A torn write at every byte of the last group: all of its units are there, or none.
fn torn_everywhere(before: u64, last: u64, len: usize) {
    let files = FaultyFs::new();
    let (store, _) = open(&small(Arc::new(files.clone())));
    for number in 0..before {
        append_unit(&store, number, len);
    }
    assert!(sync(&*store));
    // While the journal's thread is busy with something else, what comes gathers for one group.
    files.hold_syncs();
    let done = files.operations().len();
    enqueue(&*store, 1 + MEMBERS, 0, b"in the way").unwrap();
    store.nudge();
    until("a write", || files.operations().len() > done);
    let (path, from) = active(&files);
    for number in before..before + last {
        append_unit(&store, number, len);
    }
    files.release_syncs();
    assert!(sync(&*store));
    let killed = files.after_kill();
    let (path_after, until) = active(&killed);
    // Of a segment that has just been begun, the header is there: it was when the file was made ready.
    let here = path == path_after;
    let from = if here { from } else { 64 };
    drop(store);
    for cut in (from..until).step_by(if here { 1 } else { 37 }) {
        let files = killed.after_kill();
        files.edit(&path_after, |bytes| bytes[cut..].fill(0)).unwrap();
        let what = format!("{before} and {last} units of {len}, cut at {cut}");
        let (store, found) = reopened(&files, &what);
        let all = found.len() as u64;
        // The last byte may be a zero of the padding.
        assert!(all == before || all == before + last, "{what}: {all} units");
        append_unit(&store, 900_000, len);
        assert!(sync(&*store));
        drop(store);
        for again in 0..2 {
            let (_, found) = reopened(&files, &what);
            assert_eq!(found.len() as u64, all + 1, "{what}, start {again}");
        }
    }
}

#[test]
fn a_torn_group_is_dropped_whole() {
    torn_everywhere(5, 2, 50);
}

#[test]
fn a_torn_group_in_several_segments_is_dropped_whole() {
    // Segments of 32 KiB: the last group begins in one and ends in another, with a whole one in between.
    torn_everywhere(3, 4, 3000);
    torn_everywhere(5, 8, 2000);
}

#[test]
fn a_group_is_confirmed_when_its_last_segment_is_synced() {
    let files = FaultyFs::new();
    let (store, _) = open(&small(Arc::new(files.clone())));
    assert!(sync(&*store));
    files.hold_syncs();
    append_unit(&store, 0, 10);
    store.nudge();
    let mut last = 0;
    for number in 1..8 {
        last = append_unit(&store, number, 3000);
    }
    let before = store.durable();
    files.fail_sync_after(2);
    files.release_syncs();
    assert!(!sync(&*store), "the sync of a later part of the group failed");
    assert!(store.durable() < last, "{before}");
    let durable = store.durable();
    drop(store);
    let (_, recovered) = open(&small(Arc::new(files.after_kill())));
    units(&recovered, "after a failed sync");
    assert!(recovered.queues.values().map(|queue| queue.entries.len() as u64).sum::<u64>() >= durable.min(MEMBERS));
}

/// Units and single records from several threads, and the power goes.
fn round(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut files = FaultyFs::new();
    let mut next = 0;
    let mut expected = BTreeSet::new();
    for life in 0..3 {
        let what = format!("seed {seed}, life {life}");
        let (store, found) = reopened(&files, &what);
        assert_eq!(found, expected, "{what}");
        let mut appended = Vec::new();
        for _ in 0..random.random_range(1..60) {
            let len = if random.random_range(0..6) == 0 { 9_000 } else { 100 };
            appended.push((append_unit(&store, next, len), next));
            next += 1;
            match random.random_range(0..10) {
                0 => assert!(sync(&*store), "{what}"),
                1 => store.nudge(),
                _ => {}
            }
        }
        let durable = store.durable();
        let lost = files.after_power_loss(random.random());
        let killed = files.after_kill();
        for (files, how) in [(&killed, "killed"), (&lost, "lost")] {
            let what = format!("{what}, {how}");
            let (again, found) = reopened(files, &what);
            for (_, number) in appended.iter().filter(|(index, _)| *index <= durable) {
                assert!(found.contains(number), "{what}: confirmed unit {number} is gone");
            }
            drop(again);
            if how == "lost" {
                expected = found;
            }
        }
        drop(store);
        files = lost;
    }
}

#[test]
fn power_loss_leaves_units_whole() {
    for seed in 0..100 {
        round(seed);
    }
}

#[test]
fn what_is_begun_at_the_same_time_is_whole_too() {
    for seed in 0..20 {
        let files = FaultyFs::new();
        let (store, _) = open(&small(Arc::new(files.clone())));
        let lost = std::thread::scope(|scope| {
            for thread in 0..3 {
                let store = &store;
                scope.spawn(move || {
                    for number in 0..40 {
                        append_unit(store, thread * 1000 + number, 300);
                    }
                });
            }
            for _ in 0..20 {
                store.nudge();
                std::thread::yield_now();
            }
            files.after_power_loss(seed)
        });
        reopened(&lost, &format!("seed {seed}"));
    }
}

#[test]
fn what_a_client_took_over_is_known_after_a_restart() {
    let files = FaultyFs::new();
    let options = small(Arc::new(files));
    let (store, _) = open(&options);
    let mut places = Vec::new();
    for seq in 0..600 {
        places.push(enqueue(&*store, 1, seq, &body(1, seq, 200)).unwrap().position);
    }
    let ranges = [SeqRange { first: 10, count: 3 }, SeqRange { first: 40, count: 1 }];
    store.append(&Record::Released { queue: QueueId(1), ranges: &ranges }).unwrap();
    settle(&*store, 1, &[11], &[places[11]]).unwrap();
    for seq in 600..900 {
        enqueue(&*store, 1, seq, &body(1, seq, 200)).unwrap();
    }
    assert!(sync(&*store));
    drop(store);
    for _ in 0..2 {
        let (store, recovered) = open(&options);
        let released = recovered.queues[&QueueId(1)].entries.iter().filter(|entry| entry.released);
        assert_eq!(released.map(|entry| entry.seq).collect::<Vec<_>>(), [10, 12, 40]);
        store.close().unwrap();
    }
}
