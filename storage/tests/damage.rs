//! Bytes of the journal that are not what was written: repaired and told, or refused with the place. Never a panic,
//! never a silent loss.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::path::PathBuf;
use std::sync::Arc;

use portolan_core::store::{Journal, QueueId, StoreError};
use portolan_storage::faulty::FaultyFs;
use portolan_storage::{OnDamage, Options, Store};
use support::*;

const LEN: usize = 150;
const MESSAGES: u64 = 400;

/// A journal of several segments, stopped without a warning, each tenth record synced before the next.
fn journal() -> (FaultyFs, u64) {
    let files = FaultyFs::new();
    let (store, _) = open(&small(Arc::new(files.clone())));
    for seq in 0..MESSAGES {
        enqueue(&*store, 1, seq, &body(1, seq, LEN)).unwrap();
        if seq % 10 == 0 {
            fact(&*store, &format!("key{seq}"), Some("value")).unwrap();
            assert!(sync(&*store));
        }
    }
    assert!(sync(&*store));
    let durable = store.durable();
    (files.after_kill(), durable)
}

fn repairing(files: &FaultyFs) -> Options {
    Options { on_damage: OnDamage::Repair, ..small(Arc::new(files.clone())) }
}

#[derive(Debug, PartialEq)]
enum Outcome {
    /// Everything is there.
    Whole,
    /// All but some messages, which say so when they are read.
    Unreadable(usize),
    /// The last round is gone.
    Torn(u64),
    Refused,
}

fn outcome(files: &FaultyFs, durable: u64) -> Outcome {
    let (store, recovered) = match Store::open(&small(Arc::new(files.clone()))) {
        Ok(opened) => opened,
        Err(StoreError::Damaged { file, what, .. }) => {
            assert!(file.starts_with("/data") && !what.is_empty());
            return Outcome::Refused;
        }
        Err(error) => panic!("{error}"),
    };
    if store.last() < durable {
        return Outcome::Torn(durable - store.last());
    }
    let queue = &recovered.queues[&QueueId(1)];
    let places: Vec<_> = queue.entries.iter().map(|entry| entry.position).collect();
    assert_eq!(places.len() as u64, MESSAGES, "what is on the disk must be accounted for");
    let results = read(&*store, &places);
    let unreadable = results.iter().filter(|result| match result {
        Ok(_) => false,
        Err(StoreError::Damaged { .. }) => true,
        Err(error) => panic!("{error}"),
    });
    match unreadable.count() {
        0 => Outcome::Whole,
        some => Outcome::Unreadable(some),
    }
}

/// Opens with repair, twice: the second time must find nothing to complain about.
fn repaired(files: &FaultyFs) -> u64 {
    let (store, recovered) = Store::open(&repairing(files)).unwrap();
    let live = recovered.queues.get(&QueueId(1)).map_or(0, |queue| queue.entries.len()) as u64;
    let appended = enqueue(&*store, 1, 1_000_000, &body(1, 1_000_000, LEN)).unwrap();
    assert!(sync(&*store));
    assert_eq!(bodies(&*store, &[appended.position])[0], body(1, 1_000_000, LEN));
    live
}

fn copy(files: &FaultyFs) -> FaultyFs {
    files.after_kill()
}

fn flip(files: &FaultyFs, path: &std::path::Path, at: usize, bit: u8) {
    files.edit(path, |bytes| bytes[at] ^= 1 << bit).unwrap();
}

#[test]
fn a_flipped_bit_anywhere_is_repaired_told_or_refused() {
    let (files, durable) = journal();
    assert_eq!(outcome(&copy(&files), durable), Outcome::Whole);
    let paths = segments_of(&files);
    assert!(paths.len() >= 4, "{paths:?}");
    let mut refused = 0;
    for (number, path) in paths.iter().enumerate() {
        let length = files.edit(path, |bytes| bytes.len()).unwrap();
        // Every byte of the header and the first frames, then a sample of the rest.
        for at in (0..400).chain((400..length).step_by(211)).chain(length - 40..length) {
            let files = copy(&files);
            flip(&files, path, at, (at % 8) as u8);
            match outcome(&files, durable) {
                Outcome::Whole => {}
                Outcome::Unreadable(some) => assert_eq!(some, 1, "segment {number}, byte {at}"),
                // Only the last round can pass for one that had not been synced.
                Outcome::Torn(records) => assert!(records <= 11, "segment {number}, byte {at}: {records}"),
                Outcome::Refused => {
                    refused += 1;
                    assert!(repaired(&files) + 11 >= MESSAGES - 11, "segment {number}, byte {at}");
                    let clean = copy(&files);
                    Store::open(&small(Arc::new(clean))).unwrap();
                }
            }
        }
    }
    assert!(refused > 0);
}

#[test]
fn a_torn_tail_is_dropped_and_does_not_come_back() {
    let (files, durable) = journal();
    let paths = segments_of(&files);
    let written = |path: &&PathBuf| files.edit(path, |bytes| bytes[24..32] != [0; 8]).unwrap();
    let active = paths.iter().rev().find(written).unwrap();
    let end = files.edit(active, |bytes| bytes.iter().rposition(|byte| *byte != 0).unwrap()).unwrap();
    for back in [0, 10, 30, 100, 500, 1500] {
        let files = copy(&files);
        files.edit(active, |bytes| bytes[end - back] ^= 0xff).unwrap();
        match outcome(&files, durable) {
            Outcome::Torn(records) => assert!(records <= 10),
            other => panic!("{back} bytes from the end: {other:?}"),
        }
        let (store, recovered) = open(&small(Arc::new(files.clone())));
        let live = recovered.queues[&QueueId(1)].entries.len();
        drop(store);
        let (_, recovered) = open(&small(Arc::new(files)));
        assert_eq!(recovered.queues[&QueueId(1)].entries.len(), live);
    }
}

#[test]
fn a_missing_segment_is_refused_by_name() {
    let (files, _) = journal();
    let paths = segments_of(&files);
    let written = |path: &&PathBuf| files.edit(path, |bytes| bytes[24..32] != [0; 8]).unwrap();
    for path in paths.iter().filter(written) {
        let files = copy(&files);
        portolan_storage::FileSystem::remove(&files, path).unwrap();
        match refusal(&small(Arc::new(files.clone()))) {
            StoreError::Damaged { file, what, .. } => {
                assert_eq!(&file, path);
                assert!(what.contains("missing") && what.contains("repair"), "{what}");
            }
            other => panic!("{other}"),
        }
        assert!(repaired(&files) > 0);
        // Asked once is enough.
        drop(open(&small(Arc::new(files))));
    }
    for path in &paths {
        portolan_storage::FileSystem::remove(&files, path).unwrap();
    }
    assert!(matches!(refusal(&small(Arc::new(files))), StoreError::Damaged { .. }));
}

#[test]
fn a_truncated_segment_is_refused_or_told() {
    let (files, durable) = journal();
    for path in segments_of(&files) {
        for length in [0, 10, 63, 64, 100, 5000, 20_000, 32_000, 32_767] {
            let files = copy(&files);
            files.edit(&path, |bytes| bytes.truncate(length)).unwrap();
            match outcome(&files, durable) {
                Outcome::Whole | Outcome::Refused => {}
                other => panic!("{} cut to {length}: {other:?}", path.display()),
            }
            repaired(&files);
        }
    }
}

#[test]
fn a_damaged_index_costs_only_time() {
    let (files, durable) = journal();
    for path in segments_of(&files).iter().take(2) {
        for back in [1, 20, 31, 33, 60, 200] {
            let files = copy(&files);
            let length = files.edit(path, |bytes| bytes.len()).unwrap();
            flip(&files, path, length - back, 3);
            assert_eq!(outcome(&files, durable), Outcome::Whole, "{back} bytes from the end");
        }
    }
}

#[test]
fn garbage_never_panics() {
    use rand::{Rng, SeedableRng};
    let (files, _) = journal();
    let mut random = rand::rngs::StdRng::seed_from_u64(7);
    for _ in 0..150 {
        let files = copy(&files);
        for path in segments_of(&files) {
            if random.random_range(0..3) > 0 {
                continue;
            }
            files
                .edit(&path, |bytes| {
                    let from = random.random_range(0..bytes.len());
                    let until = random.random_range(from..bytes.len());
                    random.fill(&mut bytes[from..until]);
                })
                .unwrap();
        }
        let _ = Store::open(&small(Arc::new(files.clone())));
        repaired(&files);
    }
}

#[test]
fn any_bytes_are_safe_to_open_as_a_segment() {
    use rand::{Rng, SeedableRng};
    let (files, _) = journal();
    let first = segments_of(&files).remove(0);
    for seed in 0..300 {
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let files = copy(&files);
        for path in segments_of(&files).iter().skip(1) {
            portolan_storage::FileSystem::remove(&files, path).unwrap();
        }
        files
            .edit(&first, |bytes| {
                // Sound frames in the wrong places, cut and repeated, with some noise between them.
                for _ in 0..random.random_range(1..6) {
                    let from = random.random_range(0..bytes.len() - 8) / 8 * 8;
                    let length = random.random_range(0..bytes.len() - from);
                    let to = random.random_range(64..bytes.len() - length.min(bytes.len() - 65)) / 8 * 8;
                    let length = length.min(bytes.len() - to);
                    bytes.copy_within(from..from + length, to);
                }
                for _ in 0..random.random_range(0..30) {
                    let at = random.random_range(64..bytes.len());
                    bytes[at] = random.random();
                }
            })
            .unwrap();
        if let Err(error) = Store::open(&small(Arc::new(copy(&files)))) {
            assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        }
        repaired(&files);
    }
}
