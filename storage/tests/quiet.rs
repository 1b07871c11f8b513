//! A node that has little to do takes little disk: a share of what is live, and a few MiB.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use portolan_core::store::{Journal, Space, StoreError};
use portolan_storage::faulty::FaultyFs;
use portolan_storage::{FileSystem, Options, RealFs, Store};
use support::model::Model;
use support::*;

const SEGMENT: u64 = 1 << 20;
/// What such a segment keeps ready when it is quiet.
const KEEP: u64 = SEGMENT / 8;
const LEN: usize = 1000;

fn options(files: Arc<dyn FileSystem>) -> Options {
    Options { segment_bytes: SEGMENT, clean_bytes_per_second: 1 << 30, pace: Duration::from_millis(5), ..small(files) }
}

/// Bytes of disk once nothing goes on: a quarter of what is live, what is kept ready, what may lie dead, and the odd
/// block of a file.
fn at_rest(store: &Store) -> u64 {
    store.live_bytes() * 5 / 4 + 4 * KEEP + 16 * 1024
}

fn comes_to_rest(store: &Store) {
    until("the disk is back", || store.disk_bytes() <= at_rest(store));
}

fn fill(model: &Model, queue: u64, seqs: std::ops::Range<u64>) {
    for seq in seqs {
        model.enqueue(queue, seq, LEN);
        if seq % 500 == 0 {
            assert!(sync(&*model.store()));
        }
    }
    assert!(sync(&*model.store()));
}

#[test]
fn a_backlog_consumed_to_a_tenth_leaves_little_more_than_the_tenth() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { folder: folder.path().into(), ..options(Arc::new(RealFs)) };
    let (store, _) = open(&options);
    let model = Model::new(&store);
    fill(&model, 1, 0..20_000);
    (0..18_000).for_each(|seq| model.settle(1, seq));
    comes_to_rest(&store);
    // The file system says the same, in blocks.
    let blocks = |folder: &std::path::Path| {
        use std::os::unix::fs::MetadataExt;
        // Files may go while they are looked at.
        let files = std::fs::read_dir(folder).unwrap().flatten();
        files.filter_map(|file| Some(file.metadata().ok()?.blocks() * 512)).sum::<u64>()
    };
    let journal = folder.path().join("journal");
    until("the files are small", || blocks(&journal) <= 2_000 * LEN as u64 * 3 / 2);
    for seq in 18_000..20_000 {
        assert_eq!(model.read(1, seq), body(1, seq, LEN));
    }
    // A load after the rest finds room again.
    fill(&model, 2, 0..5_000);
    store.close().unwrap();
    model.check_after_restart(&options, LEN);
}

#[test]
fn what_is_consumed_here_and_there_comes_back_too() {
    let options = options(Arc::new(FaultyFs::new()));
    let (store, _) = open(&options);
    let model = Model::new(&store);
    fill(&model, 1, 0..20_000);
    (0..20_000).filter(|seq| seq % 10 != 3).for_each(|seq| model.settle(1, seq));
    comes_to_rest(&store);
    // And those that were copied, once they are consumed: the journal is gone through again.
    (0..20_000).filter(|seq| seq % 10 == 3 && seq % 100 != 3).for_each(|seq| model.settle(1, seq));
    comes_to_rest(&store);
    assert!(model.state.lock().relocated <= 4_000, "each message once for each time");
    store.close().unwrap();
    model.check_after_restart(&options, LEN);
}

#[test]
fn an_empty_node_is_small_and_stays_so() {
    let options = options(Arc::new(FaultyFs::new()));
    let (store, _) = open(&options);
    let model = Model::new(&store);
    comes_to_rest(&store);
    for round in 0..30 {
        fill(&model, 1, round * 200..(round + 1) * 200);
        (round * 200..(round + 1) * 200).for_each(|seq| model.settle(1, seq));
        comes_to_rest(&store);
    }
    assert!(store.disk_bytes() <= at_rest(&store));
    store.close().unwrap();
    model.check_after_restart(&options, LEN);
}

#[test]
fn copying_is_bounded_by_what_died() {
    let options = options(Arc::new(FaultyFs::new()));
    let (store, _) = open(&options);
    let model = Model::new(&store);
    fill(&model, 9, 0..3_000);
    for seq in 0..6_000 {
        model.enqueue(1, seq, LEN);
        model.settle(1, seq);
        if seq % 100 == 0 {
            assert!(sync(&*store));
            comes_to_rest(&store);
        }
    }
    let relocated = model.state.lock().relocated;
    assert!(relocated > 0 && relocated < 6 * 6_000, "{relocated} for 6000 that died");
}

#[test]
fn rest_and_power_loss_go_together() {
    let files = FaultyFs::new();
    let options = Options { segment_bytes: 64 << 10, ..options(Arc::new(files.clone())) };
    let (store, _) = open(&options);
    let model = Model::new(&store);
    let mut images = Vec::new();
    for round in 0..30 {
        fill(&model, 1, round * 20..(round + 1) * 20);
        (round * 20..(round + 1) * 20).filter(|seq| seq % 10 != 0).for_each(|seq| model.settle(1, seq));
        assert!(sync(&*store));
        let live: Vec<_> = model.state.lock().live.keys().copied().collect();
        images.push((files.after_power_loss(round), live.clone()));
        if round % 2 == 0 {
            comes_to_rest(&store);
            images.push((files.after_power_loss(round), live));
        }
    }
    for (image, live) in images {
        let (store, recovered) = open(&small(Arc::new(image)));
        let found = check_live(&store, &recovered, LEN);
        for key in live {
            assert!(found.contains_key(&key), "{key:?} is lost");
        }
    }
}

#[test]
fn what_was_given_back_may_be_gone_when_it_is_wanted() {
    let files = FaultyFs::new();
    files.limit(Some(40 * SEGMENT));
    let options = options(Arc::new(files.clone()));
    let (store, _) = open(&options);
    let model = Model::new(&store);
    fill(&model, 1, 0..2_000);
    until("the rest is given back", || store.disk_bytes() <= store.live_bytes() + 3 * KEEP);
    // Somebody else takes the whole disk.
    files.limit(Some(0));
    until("low", || store.space() == Space::Low);
    let mut seq = 1_999;
    let full = loop {
        seq += 1;
        match enqueue(&*store, 1, seq, &body(1, seq, LEN)) {
            Ok(appended) => model.state.lock().live.insert((1, seq), appended.position),
            Err(error) => break error,
        };
    };
    assert!(matches!(full, StoreError::Full) && seq < 2_100, "{full} at {seq}");
    // Consumers go on, and make room in the end.
    (0..seq).for_each(|seq| model.settle(1, seq));
    assert!(sync(&*store));
    until("space is back", || store.disk_bytes() <= SEGMENT + 8 * KEEP);
    files.limit(Some(40 * SEGMENT));
    // How much there is again is learned little by little.
    for seq in 0..2_000 {
        until("there is room again", || match enqueue(&*store, 2, seq, &body(2, seq, LEN)) {
            Ok(appended) => model.state.lock().live.insert((2, seq), appended.position).is_none(),
            Err(_) => false,
        });
    }
    store.close().unwrap();
    model.check_after_restart(&options, LEN);
}
