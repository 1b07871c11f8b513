//! The journal moves records, and finds some that it cannot read any more.

use std::sync::Arc;

use portolan_core::broker::Settings;
use portolan_core::delivery::Outcome;
use portolan_core::store::{Owner, Position, QueueId};
use portolan_core::value::Value;

use crate::client::Client;
use crate::kit::{Claim, Kit, int, kept, settings, text};

/// Everything is paged out at once.
fn tight() -> Kit {
    Kit::with(Settings { queue_memory: 0, memory_budget: 0, ..settings() })
}

fn store(kit: &Kit, queue: &str, count: usize) {
    let posts: Vec<_> = (0..count).map(|n| kept(&n.to_string())).collect();
    kit.publish_to("", queue, &posts);
}

fn to_dead() -> Vec<(&'static str, Value)> {
    vec![("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text("dead"))]
}

fn lost(kit: &Kit) -> u64 {
    kit.broker.counters.delivered.lost.get()
}

#[test]
fn what_cannot_be_read_leaves_its_queue_wherever_it_waits() {
    let (kit, client) = (tight(), Client::new());
    kit.queue("q", &[]);
    store(&kit, "q", 1_500);
    for body in ["0", "700", "1499"] {
        kit.journal.damage(body);
    }
    let named: Vec<String> = kit.move_all();
    assert_eq!(named, ["q/1", "q/701", "q/1500"]);
    assert_eq!((kit.ready("q"), lost(&kit), kit.journal.records()), (1_497, 3, 1_497));
    kit.consume("q", &client, Claim { settled: true, ..Claim::default() });
    kit.load();
    let expected: Vec<_> = (0..1_500).filter(|n| ![0, 700, 1_499].contains(n)).map(|n| n.to_string()).collect();
    assert_eq!(client.take(), expected);
    assert_eq!((lost(&kit), kit.journal.records()), (3, 0));
}

#[test]
fn what_is_still_in_memory_is_stored_anew() {
    let kit = Kit::new();
    let id = kit.queue("q", &[]);
    kit.store("q", &["a", "b"]);
    kit.journal.damage("a");
    assert_eq!(kit.move_all(), [""; 0]);
    assert_eq!((lost(&kit), kit.journal.bodies(id)), (0, vec!["a".into(), "b".into()]));
    let (kit, _) = kit.restart(true);
    assert_eq!(kit.drain("q"), ["a", "b"]);
}

#[test]
fn a_delivery_whose_record_is_lost_can_end_in_every_way() {
    for outcome in [Outcome::Accepted, Outcome::Released, Outcome::Rejected] {
        let (kit, client) = (tight(), Client::new());
        kit.queue("q", &[]);
        store(&kit, "q", 2);
        kit.consume("q", &client, Claim { credit: Some(1), ..Claim::default() });
        kit.load();
        kit.journal.damage("0");
        assert_eq!(kit.move_all(), ["q/1"]);
        kit.settle(client.take_all()[0].settle, outcome);
        kit.load();
        assert_eq!(client.take(), ["1"], "{outcome:?}");
        assert_eq!((kit.ready("q"), kit.journal.records(), lost(&kit)), (0, 1, 1));
    }
}

#[test]
fn what_was_about_to_be_dead_lettered_is_lost_too() {
    let kit = tight();
    kit.queue("dead", &[]);
    kit.queue("q", &[to_dead(), vec![("x-message-ttl", int(10))]].concat());
    store(&kit, "q", 2);
    kit.journal.damage("1");
    kit.pass(10);
    assert_eq!(kit.move_all(), ["q/2"]);
    kit.load();
    assert_eq!((kit.drain("dead"), kit.journal.records()), (vec!["0".into()], 0));
}

#[test]
fn copies_that_shared_a_content_share_it_again() {
    let kit = Kit::new();
    let ids: Vec<QueueId> = ["a", "b", "c"].map(|name| kit.queue(name, &[])).into();
    ["a", "b", "c"].iter().for_each(|name| kit.bind("amq.fanout", name, ""));
    kit.publish_to("amq.fanout", "", &[kept("m")]);
    kit.move_all();
    assert_eq!(ids.iter().map(|id| kit.journal.bodies(*id).len()).sum::<usize>(), 3);
    assert_eq!(kit.journal.contents(), 1);
}

#[test]
fn a_queue_is_found_by_its_id_until_it_is_gone() {
    let kit = Kit::new();
    let owner = Arc::clone(&kit.broker);
    let ids: Vec<QueueId> = (0..50).map(|n| kit.queue(&n.to_string(), &[])).collect();
    for (n, id) in ids.iter().enumerate() {
        let name = n.to_string();
        kit.store(&name, &["m"]);
        if n % 3 == 0 {
            kit.delete(&name);
            assert_eq!(owner.lost(*id, 1, Position::from_number(8).unwrap()).unwrap(), None);
        }
    }
    assert_eq!(kit.move_all(), [""; 0], "every queue that is left is found");
}
