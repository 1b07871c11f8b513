//! Disk space comes back, however long one old message stays, and nothing that is live is lost on the way.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use portolan_core::store::{Journal, Position, QueueId, StoreError};
use portolan_storage::faulty::FaultyFs;
use portolan_storage::{Options, Store};
use support::model::Model;
use support::*;

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
            // While its segment is about to go nothing may refer to it.
            until("referred to", || {
                let mut state = model.state.lock();
                let referred = refer(&*store, 2, 0, state.live[&(1, 0)]);
                referred.map(|appended| state.live.insert((2, 0), appended.position)).is_ok()
            });
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

/// Flips a bit in the record at `place`.
fn damage(files: &FaultyFs, place: Position) {
    let path = format!("/data/journal/{:010}.seg", place.segment());
    let at = (place.offset() & !7) as usize + 30;
    files.edit(path.as_ref(), |bytes| bytes[at] ^= 1).unwrap();
}

#[test]
fn the_owner_learns_what_cannot_be_read_while_its_file_is_there() {
    let files = FaultyFs::new();
    let options = Options { clean_bytes_per_second: 1 << 30, slack_segments: 2, ..small(Arc::new(files.clone())) };
    let (store, _) = open(&options);
    let model = Model::new(&store);
    let refer_to = |queue, seq, to: (u64, u64)| {
        let mut state = model.state.lock();
        let appended = refer(&*store, queue, seq, state.live[&to]).unwrap();
        state.live.insert((queue, seq), appended.position);
    };
    (0..10).for_each(|seq| _ = model.enqueue(1, seq, LEN));
    // One shares the content of a record that is damaged, here and from a later segment; one is damaged itself.
    refer_to(2, 0, (1, 3));
    (0..200).for_each(|seq| _ = model.enqueue(3, seq, LEN));
    refer_to(2, 1, (1, 3));
    refer_to(2, 2, (1, 4));
    (200..400).for_each(|seq| _ = model.enqueue(3, seq, LEN));
    assert!(sync(&*store));
    let places = model.state.lock().live.clone();
    assert!(places[&(2, 1)].segment() > places[&(2, 0)].segment());
    damage(&files, places[&(1, 3)]);
    damage(&files, places[&(1, 5)]);
    damage(&files, places[&(2, 2)]);
    model.settle(1, 5);
    (0..400).for_each(|seq| model.settle(3, seq));
    for seq in 400..3_000 {
        model.enqueue(3, seq, LEN);
        model.settle(3, seq);
    }
    until("space is back", || store.disk_bytes() <= bound(&store, &options));
    until("it is told", || model.state.lock().lost.len() == 4);
    let mut lost = model.state.lock().lost.clone();
    lost.sort_unstable();
    assert_eq!(lost, [(1, 3), (2, 0), (2, 1), (2, 2)]);
    store.close().unwrap();
    model.check_after_restart(&options, LEN);
}
