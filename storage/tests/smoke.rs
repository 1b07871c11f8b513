//! A store on real files, opened again.
#![allow(missing_docs)]
mod support;
use portolan_core::store::{Journal, QueueId};
use portolan_storage::{Options, Store};
use support::*;

#[test]
fn a_message_comes_back_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = Options::new(folder.path());
    options.segment_bytes = 64 << 10;
    options.free_floor = 0;
    let (store, recovered) = Store::open(&options).unwrap();
    assert!(recovered.queues.is_empty());
    let mut places = Vec::new();
    for seq in 0..1000 {
        places.push(enqueue(&*store, 1, seq, &body(1, seq, 300)).unwrap().position);
        fact(&*store, &format!("k{}", seq % 10), Some(&seq.to_string())).unwrap();
        if seq % 77 == 0 {
            assert!(sync(&*store));
        }
    }
    assert_eq!(bodies(&*store, &places).len(), 1000);
    settle(&*store, 1, &[0, 5, 999], &[places[0], places[5], places[999]]).unwrap();
    store.close().unwrap();
    drop(store);
    for round in 0..3 {
        let (store, recovered) = Store::open(&options).unwrap();
        assert_eq!(recovered.clean, round == 0);
        let queue = &recovered.queues[&QueueId(1)];
        assert_eq!(queue.entries.len(), 997);
        assert_eq!(queue.next_seq, 1000);
        assert_eq!(recovered.facts.len(), 10);
        let places: Vec<_> = queue.entries.iter().map(|e| e.position).collect();
        for (entry, body_) in queue.entries.iter().zip(bodies(&*store, &places)) {
            assert_eq!(body_, body(1, entry.seq, 300));
        }
    }
}
