//! What every implementation of the store promises, run on each: real files, faulty files, memory.
#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use portolan_core::store::{Journal, QueueId, Record, SeqRange, StoreError, Waiter};
use portolan_storage::encode::Stored;
use portolan_storage::faulty::FaultyFs;
use portolan_storage::{MemoryJournal, Options, Store};
use support::*;

/// Runs a contract on every journal.
fn on_each(contract: fn(&dyn Journal)) {
    contract(&MemoryJournal::default());
    on_each_store(|options| contract(&*open(options).0));
}

/// Runs a contract on every store that outlives its process.
fn on_each_store(contract: impl Fn(&Options)) {
    contract(&small(Arc::new(FaultyFs::new())));
    let folder = tempfile::tempdir().unwrap();
    contract(&on_disk(folder.path()));
}

#[test]
fn indexes_count_from_one_and_positions_rise() {
    on_each(|journal| {
        assert_eq!((journal.last(), journal.durable()), (0, 0));
        let mut before = None;
        for seq in 0..300 {
            let appended = enqueue(journal, 1, seq, &body(1, seq, 200)).unwrap();
            assert_eq!(appended.index, seq + 1);
            assert!(Some(appended.position) > before);
            before = Some(appended.position);
        }
        assert_eq!(journal.last(), 300);
    });
}

#[test]
fn messages_are_read_back_whole_before_and_after_they_are_durable() {
    on_each(|journal| {
        let mut places = Vec::new();
        for seq in 0..500 {
            places.push(enqueue(journal, 1, seq, &body(1, seq, (seq as usize * 37) % 3000)).unwrap().position);
            if seq % 100 == 50 {
                assert!(sync(journal));
            }
        }
        let check = || {
            for (seq, message) in read(journal, &places).into_iter().enumerate() {
                let message = message.unwrap();
                assert_eq!(message.body(), body(1, seq as u64, (seq * 37) % 3000));
                assert_eq!((message.exchange(), message.routing_key()), (&b"exchange"[..], &b"routing.key"[..]));
                assert_eq!(message.properties(), [0x10, 0, 2]);
                let facts = message.facts();
                assert_eq!((facts.priority, facts.persistent, facts.ttl), (3, true, Some(77)));
            }
        };
        check();
        assert!(sync(journal));
        check();
        places.reverse();
        assert!(bodies(journal, &places).last().unwrap().starts_with(b"1/0/"));
        assert_eq!(journal.backlog(), 0);
    });
}

#[test]
fn a_reference_shares_the_content() {
    on_each(|journal| {
        let first = enqueue(journal, 1, 0, b"shared").unwrap().position;
        let near = refer(journal, 2, 0, first).unwrap().position;
        for seq in 1..200 {
            enqueue(journal, 1, seq, &body(1, seq, 1000)).unwrap();
        }
        let far = refer(journal, 3, 0, first).unwrap().position;
        assert_eq!(bodies(journal, &[far, near, first]), [b"shared", b"shared", b"shared"]);
        assert!(sync(journal));
        assert_eq!(bodies(journal, &[first, near, far]), [b"shared", b"shared", b"shared"]);
    });
}

#[test]
fn what_cannot_be_read_is_an_error_for_that_one_only() {
    on_each(|journal| {
        let there = enqueue(journal, 1, 0, b"there").unwrap().position;
        let fact = fact(journal, "key", Some("value")).unwrap().position;
        let nowhere = portolan_core::store::Position::new(900, 64).unwrap();
        let results = read(journal, &[there, nowhere, fact, there]);
        assert!(results[0].is_ok() && results[3].is_ok());
        assert!(matches!(results[1], Err(StoreError::Missing(_))), "{:?}", results[1]);
        assert!(matches!(results[2], Err(StoreError::Missing(_))), "{:?}", results[2]);
    });
}

#[test]
fn a_waiter_is_told_once_it_is_durable() {
    on_each(|journal| {
        for seq in 0..50 {
            let index = enqueue(journal, 1, seq, b"x").unwrap().index;
            let ear = Ear::new();
            journal.wait_for(index, Arc::clone(&ear) as Arc<dyn Waiter>);
            assert!(matches!(ear.wait(), Heard::Durable(durable) if durable >= index));
            assert!(journal.durable() >= index);
            let late = Ear::new();
            journal.wait_for(1, Arc::clone(&late) as Arc<dyn Waiter>);
            assert!(matches!(late.wait(), Heard::Durable(_)));
        }
    });
}

#[test]
fn records_become_durable_without_anybody_waiting() {
    on_each(|journal| {
        let index = enqueue(journal, 1, 0, b"x").unwrap().index;
        until("durable by itself", || journal.durable() >= index);
        let index = enqueue(journal, 1, 1, b"x").unwrap().index;
        journal.nudge();
        until("durable after a nudge", || journal.durable() >= index);
    });
}

#[test]
fn a_record_larger_than_a_segment_has_one_of_its_own() {
    on_each_store(|options| {
        let (store, _) = open(options);
        let big = body(1, 1, 200_000);
        let small = enqueue(&*store, 1, 0, &body(1, 0, 10)).unwrap().position;
        let large = enqueue(&*store, 1, 1, &big).unwrap().position;
        let after = enqueue(&*store, 1, 2, &body(1, 2, 10)).unwrap().position;
        assert!(small.segment() < large.segment() && large < after);
        assert_eq!(bodies(&*store, &[large])[0], big);
        assert!(sync(&*store));
        drop(store);
        let (store, recovered) = open(options);
        let places: Vec<_> = recovered.queues[&QueueId(1)].entries.iter().map(|entry| entry.position).collect();
        assert_eq!(places, [small, large, after]);
        assert_eq!(bodies(&*store, &[large])[0], big);
        let first = enqueue(&*store, 1, 3, &big).unwrap().position;
        assert!(sync(&*store));
        assert_eq!(bodies(&*store, &[first])[0], big);
    });
}

#[test]
fn a_restart_knows_what_is_live() {
    on_each_store(|options| {
        let (store, recovered) = open(options);
        assert!(recovered.queues.is_empty() && recovered.facts.is_empty());
        let mut places = Vec::new();
        for seq in 0..1000 {
            places.push(enqueue(&*store, 1, seq, &body(1, seq, 100)).unwrap().position);
            enqueue(&*store, 2, seq, &body(2, seq, 100)).unwrap();
            fact(&*store, &format!("key{}", seq % 7), Some(&seq.to_string())).unwrap();
        }
        fact(&*store, "key3", None).unwrap();
        settle(&*store, 1, &[0, 1, 2, 999, 500], &[places[0], places[1], places[2], places[999], places[500]]).unwrap();
        store.append(&Record::Dropped { queue: QueueId(2), freed: &[] }).unwrap();
        let ranges = [SeqRange { first: 10, count: 5 }];
        store.append(&Record::Redelivered { queue: QueueId(1), ranges: &ranges }).unwrap();
        store.close().unwrap();
        for clean in [true, false, false] {
            let (store, recovered) = open(options);
            assert_eq!(recovered.clean, clean);
            assert!(!recovered.queues.contains_key(&QueueId(2)));
            let queue = &recovered.queues[&QueueId(1)];
            assert_eq!((queue.entries.len(), queue.next_seq), (995, 1000));
            assert_eq!(check_live(&store, &recovered, 100).len(), 995);
            let redelivered = queue.entries.iter().filter(|entry| entry.redelivered).count();
            assert_eq!(redelivered, if clean { 5 } else { 995 });
            let facts: Vec<_> = recovered.facts.iter().map(|(key, _)| String::from_utf8_lossy(key)).collect();
            assert_eq!(facts, ["key0", "key1", "key2", "key4", "key5", "key6"]);
            assert_eq!(recovered.facts[0].1, b"994");
        }
    });
}

#[test]
fn a_restart_knows_how_often_messages_came_back() {
    on_each_store(|options| {
        let (store, _) = open(options);
        let returned = |first, count, times| {
            let ranges = [SeqRange { first, count }];
            store.append(&Record::Returned { queue: QueueId(1), ranges: &ranges, times }).unwrap();
        };
        for seq in 0..1000 {
            enqueue(&*store, 1, seq, &body(1, seq, 100)).unwrap();
            if seq == 100 {
                returned(10, 5, 1);
                returned(12, 2, 2);
                returned(13, 1, 1);
            }
        }
        returned(998, 2, 7);
        returned(5000, u64::MAX, 9);
        store.close().unwrap();
        for _ in 0..2 {
            let (_store, recovered) = open(options);
            let entries = &recovered.queues[&QueueId(1)].entries;
            let counted: Vec<_> = entries.iter().filter(|entry| entry.returns > 0).collect();
            assert!(counted.iter().all(|entry| entry.redelivered));
            let counted: Vec<_> = counted.iter().map(|entry| (entry.seq, entry.returns)).collect();
            assert_eq!(counted, [(10, 1), (11, 1), (12, 2), (13, 2), (14, 1), (998, 7), (999, 7)]);
        }
    });
}

#[test]
fn nothing_is_accepted_after_a_close() {
    on_each_store(|options| {
        let (store, _) = open(options);
        enqueue(&*store, 1, 0, b"x").unwrap();
        store.close().unwrap();
        assert!(matches!(enqueue(&*store, 1, 1, b"x"), Err(StoreError::Failed(_))));
        let ear = Ear::new();
        store.wait_for(9, Arc::clone(&ear) as Arc<dyn Waiter>);
        assert_eq!(ear.wait(), Heard::Failed);
        store.close().unwrap();
    });
}

fn range(store: &Store, from: u64, to: u64) -> Vec<(u64, u32, u64)> {
    let mut found = Vec::new();
    store
        .read_range(from, to, &mut |record| {
            let seq = match record.record {
                Stored::Enqueued(enqueued) => enqueued.seq,
                _ => u64::MAX,
            };
            found.push((record.index, record.term, seq));
            true
        })
        .unwrap();
    found
}

#[test]
fn a_range_of_records_is_read_by_index() {
    on_each_store(|options| {
        let (store, _) = open(options);
        for seq in 0..600 {
            enqueue(&*store, 1, seq, &body(1, seq, 200)).unwrap();
        }
        let check = |store: &Store| {
            assert_eq!(range(store, 1, 600).len(), 600);
            assert_eq!(range(store, 300, 302), [(300, 0, 299), (301, 0, 300), (302, 0, 301)]);
            assert_eq!(range(store, 599, 9999), [(599, 0, 598), (600, 0, 599)]);
            assert_eq!(range(store, 601, 9999), []);
        };
        check(&store);
        let mut first = 0;
        let stop = &mut |record: &portolan_storage::RecordAt<'_>| {
            first += record.index;
            false
        };
        store.read_range(7, 600, stop).unwrap();
        assert_eq!(first, 7);
        drop(store);
        check(&open(options).0);
    });
}

#[test]
fn an_unconfirmed_tail_is_dropped() {
    on_each_store(|options| {
        let (store, _) = open(options);
        let mut places = Vec::new();
        for seq in 0..400 {
            let message = message(&body(1, seq, 200));
            let content = portolan_core::store::Content::Inline(&message);
            let record = Record::Enqueued { queue: QueueId(1), seq, expires_at: 0, content };
            places.push(store.append_in(7, 1, &record).unwrap().position);
        }
        fact(&*store, "voided", Some("x")).unwrap();
        settle(&*store, 1, &[5], &[places[5]]).unwrap();
        assert!(sync(&*store));
        let recovered = store.truncate_after(300).unwrap();
        assert_eq!((store.last(), store.durable()), (300, 300));
        assert_eq!(recovered.queues[&QueueId(1)].entries.len(), 300, "the settlement is void too");
        assert!(recovered.facts.is_empty());
        for seq in 300..350 {
            let message = message(&body(1, seq, 200));
            let content = portolan_core::store::Content::Inline(&message);
            let record = Record::Enqueued { queue: QueueId(1), seq, expires_at: 0, content };
            assert_eq!(store.append_in(7, 2, &record).unwrap().index, seq + 1);
        }
        let check = |store: &Store| {
            let all = range(store, 1, 9999);
            assert_eq!(all.len(), 350);
            assert!(all.iter().zip(1..).all(|(record, index)| record.0 == index && record.2 == index - 1));
            assert!(all.iter().all(|(index, term, _)| *term == if *index > 300 { 2 } else { 1 }));
        };
        check(&store);
        store.close().unwrap();
        drop(store);
        let (store, recovered) = open(options);
        check(&store);
        assert_eq!(check_live(&store, &recovered, 200).len(), 350);
        assert!(recovered.facts.is_empty());
        assert_eq!(store.last(), 350);
    });
}

#[test]
fn a_prefix_is_discarded() {
    on_each_store(|options| {
        let (store, _) = open(options);
        for seq in 0..1000 {
            enqueue(&*store, 1, seq, &body(1, seq, 200)).unwrap();
        }
        assert!(sync(&*store));
        let before = store.disk_bytes();
        store.discard_before(600).unwrap();
        assert!(store.disk_bytes() < before);
        let check = |store: &Store| {
            let first = store.first();
            assert!((400..=600).contains(&first), "{first}");
            assert!(matches!(store.read_range(1, 5, &mut |_| true), Err(StoreError::Missing(_))));
            assert_eq!(range(store, 600, 9999).len(), 401);
            assert_eq!(range(store, first, first).len(), 1);
        };
        check(&store);
        drop(store);
        check(&open(options).0);
    });
}
