//! The disk fails, fills up, or is slow.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use portolan_core::store::{Journal, QueueId, Record, SeqRange, Space, StoreError, Waiter};
use portolan_storage::Options;
use portolan_storage::faulty::{FaultyFs, Operation};
use support::*;

fn waiting(journal: &dyn Journal) -> Arc<Ear> {
    let ear = Ear::new();
    journal.wait_for(journal.last(), Arc::clone(&ear) as Arc<dyn Waiter>);
    ear
}

#[test]
fn a_failed_write_or_sync_stops_confirming_for_good() {
    for sync_fails in [false, true] {
        let files = FaultyFs::new();
        let (store, _) = open(&small(Arc::new(files.clone())));
        let place = enqueue(&*store, 1, 0, b"kept").unwrap().position;
        assert!(sync(&*store));
        let durable = store.durable();
        if sync_fails {
            files.fail_sync_after(0)
        } else {
            files.fail_write_after(0)
        }
        enqueue(&*store, 1, 1, b"lost").unwrap();
        let (first, second) = (waiting(&*store), waiting(&*store));
        assert_eq!((first.wait(), second.wait()), (Heard::Failed, Heard::Failed));
        assert_eq!(store.durable(), durable);
        assert!(matches!(enqueue(&*store, 1, 2, b"x"), Err(StoreError::Failed(_))));
        assert_eq!(waiting(&*store).wait(), Heard::Failed);
        assert_eq!(bodies(&*store, &[place]), [b"kept"], "reading goes on");
        let before = files.operations().len();
        assert!(matches!(store.close(), Err(StoreError::Failed(_))));
        let after = files.operations();
        let tried = after[before..]
            .iter()
            .any(|operation| matches!(operation, Operation::Write { file, .. } if file.ends_with("0000000001.seg")));
        assert!(!tried, "the same bytes are never tried again");
        drop(store);
        let (_, recovered) = open(&small(Arc::new(files.after_kill())));
        assert!(recovered.queues[&QueueId(1)].entries.iter().any(|entry| entry.seq == 0));
    }
}

#[test]
fn appending_never_waits_for_the_disk() {
    let files = FaultyFs::new();
    let options = Options { unsynced_bytes: 100_000, ..small(Arc::new(files.clone())) };
    let (store, _) = open(&options);
    files.hold_syncs();
    let ear = {
        enqueue(&*store, 1, 0, &body(1, 0, 100)).unwrap();
        waiting(&*store)
    };
    let mut places = Vec::new();
    let full = loop {
        let seq = places.len() as u64 + 1;
        match enqueue(&*store, 1, seq, &body(1, seq, 1000)) {
            Ok(appended) => places.push(appended.position),
            Err(error) => break error,
        }
    };
    assert!(matches!(full, StoreError::Full));
    assert!(places.len() > 80 && store.backlog() <= 100_000, "{}", places.len());
    settle(&*store, 1, &[1], &[places[0]]).unwrap();
    for (seq, body_) in bodies(&*store, &places).into_iter().enumerate() {
        assert_eq!(body_, body(1, seq as u64 + 1, 1000), "read from memory");
    }
    let group = waiting(&*store);
    let syncs = |files: &FaultyFs| {
        files.operations().iter().filter(|operation| matches!(operation, Operation::Sync { .. })).count()
    };
    let before = syncs(&files);
    files.release_syncs();
    assert!(matches!(ear.wait(), Heard::Durable(_)));
    assert!(matches!(group.wait(), Heard::Durable(index) if index > 80));
    assert!(syncs(&files) - before < 20, "one sync serves all that waited");
    assert_eq!(store.backlog(), 0);
    enqueue(&*store, 1, 1000, b"goes on").unwrap();
}

#[test]
fn a_full_disk_refuses_messages_and_recovers() {
    let files = FaultyFs::new();
    files.limit(Some(10 * (32 << 10)));
    let options = small(Arc::new(files));
    let (store, _) = open(&options);
    let mut places = Vec::new();
    loop {
        let seq = places.len() as u64;
        match enqueue(&*store, 1, seq, &body(1, seq, 500)) {
            Ok(appended) => places.push(appended.position),
            // A refusal may also be brief, while the next segment is being made.
            Err(StoreError::Full) if store.space() == Space::Low => break,
            Err(StoreError::Full) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
        if seq.is_multiple_of(10) {
            assert!(sync(&*store));
        }
    }
    assert!(sync(&*store), "what was accepted is kept");
    assert!(places.len() > 300, "{}", places.len());
    assert!(store.disk_bytes() <= 10 * (32 << 10));
    // Consumers go on.
    fact(&*store, "still", Some("possible")).unwrap();
    for (number, freed) in places.chunks(20).take(10).enumerate() {
        let ranges = [SeqRange { first: number as u64 * 20, count: 20 }];
        store.append(&Record::Settled { queue: QueueId(1), ranges: &ranges, freed }).unwrap();
    }
    assert!(sync(&*store));
    let kept = store.disk_bytes();
    until("messages are accepted again", || {
        let seq = places.len() as u64;
        enqueue(&*store, 1, seq, &body(1, seq, 500)).inspect(|appended| places.push(appended.position)).is_ok()
    });
    assert!(sync(&*store));
    assert!(kept <= 10 * (32 << 10));
    store.close().unwrap();
    drop(store);
    let (store, recovered) = open(&options);
    let live = check_live(&store, &recovered, 500);
    assert_eq!(live.len(), places.len() - 200);
}

#[test]
fn a_disk_below_its_floor_refuses_messages_until_there_is_room() {
    let files = FaultyFs::new();
    files.limit(Some(100 << 15));
    let options = Options { free_floor: 60 << 15, ..small(Arc::new(files.clone())) };
    let (store, _) = open(&options);
    assert_eq!(store.space(), Space::Plenty);
    files.limit(Some(50 << 15));
    until("low", || store.space() == Space::Low);
    assert!(matches!(enqueue(&*store, 1, 0, b"x"), Err(StoreError::Full)));
    fact(&*store, "key", Some("value")).unwrap();
    files.limit(None);
    until("room again", || store.space() == Space::Plenty);
    enqueue(&*store, 1, 0, b"x").unwrap();
    assert!(sync(&*store));
}

#[test]
fn settlements_that_fill_the_reserve_still_free_space() {
    let files = FaultyFs::new();
    files.limit(Some(6 << 15));
    let options = small(Arc::new(files));
    let (store, _) = open(&options);
    let mut places = Vec::new();
    while let Ok(appended) = enqueue(&*store, 1, places.len() as u64, &body(1, places.len() as u64, 500)) {
        places.push(appended.position);
        assert!(sync(&*store));
    }
    // Facts take the rest of the segment, as far as anything may.
    until("no room for facts", || matches!(fact(&*store, "key", Some(&"v".repeat(100))), Err(StoreError::Full)));
    drop(store);
    let (store, _) = open(&options);
    for (seq, place) in places.iter().enumerate() {
        let _ = settle(&*store, 1, &[seq as u64], &[*place]);
    }
    // Facts hold their segments until the owner states them anew; here there are none before the last segment.
    until("messages are accepted again", || enqueue(&*store, 2, 0, b"x").is_ok());
    assert!(sync(&*store));
}
