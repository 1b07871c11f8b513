//! Bodies leave memory for the journal and come back, while the journal moves them about.

use portolan_core::broker::Settings;
use portolan_core::delivery::Outcome;

use crate::client::Client;
use crate::kit::{CONNECTION, Claim, Kit, Post, int, kept, post, settings, text};

/// Everything is paged out at once.
fn tight() -> Kit {
    Kit::with(Settings { queue_memory: 0, memory_budget: 0, ..settings() })
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| format!("{n:05}")).collect()
}

fn store(kit: &Kit, queue: &str, range: std::ops::Range<u32>) {
    let posts: Vec<_> = numbers(range).iter().map(|body| kept(body)).collect();
    kit.publish_to("", queue, &posts);
}

#[test]
fn a_long_queue_keeps_its_head_in_memory_and_its_order() {
    let kit = Kit::with(Settings { queue_memory: 2000, ..settings() });
    kit.queue("q", &[]);
    store(&kit, "q", 0..3000);
    let census = kit.broker.census();
    assert_eq!(census.ready, 3000);
    assert!((2900..3000).contains(&census.paged), "{} are out", census.paged);
    assert!(kit.broker.memory() < 4000);
    let client = Client::new();
    kit.consume("q", &client, Claim { settled: true, ..Claim::default() });
    kit.load();
    assert_eq!(client.take(), numbers(0..3000));
    assert_eq!((kit.broker.memory(), kit.journal.records()), (0, 0));
}

#[test]
fn transient_messages_are_paged_out_when_memory_is_short_and_gone_after_a_restart() {
    let kit = Kit::with(Settings { memory_budget: 500, ..settings() });
    kit.queue("q", &[]);
    kit.declare_as(CONNECTION, "brief", |wish| wish.durable = false, &[]).unwrap();
    for queue in ["q", "brief"] {
        for body in numbers(0..100) {
            kit.publish(queue, post(&body));
        }
    }
    assert!(kit.broker.census().paged > 150);
    assert!(kit.broker.memory() < 1500);
    for _ in 0..10 {
        kit.settle(kit.get("q", false).unwrap().settle, Outcome::Accepted);
    }
    assert_eq!(kit.drain("brief"), numbers(0..100));
    let (kit, restored) = kit.restart(false);
    assert_eq!((restored.messages, kit.ready("q"), kit.journal.records()), (0, 0, 0));
}

#[test]
fn get_reads_for_itself() {
    let kit = tight();
    kit.queue("q", &[]);
    store(&kit, "q", 0..1200);
    assert_eq!(kit.drain("q"), numbers(0..1200));
}

#[test]
fn what_comes_back_paged_out_finds_its_place() {
    let (kit, client) = (tight(), Client::new());
    kit.queue("q", &[]);
    store(&kit, "q", 0..5);
    let consumer = kit.consume("q", &client, Claim { credit: Some(4), ..Claim::default() });
    kit.load();
    let got = client.take_all();
    kit.cancel(consumer);
    store(&kit, "q", 5..6);
    kit.settle_all([got[3].settle, got[1].settle], Outcome::Released);
    kit.settle_all([got[0].settle, got[2].settle], Outcome::Accepted);
    assert_eq!(kit.drain("q"), ["00001*", "00003*", "00004", "00005"]);
}

#[test]
fn moved_records_are_found_in_every_state() {
    let (kit, client) = (tight(), Client::new());
    kit.queue("dead", &[]);
    let dead = [("x-dead-letter-exchange", text("")), ("x-dead-letter-routing-key", text("dead"))];
    let id = kit.queue("q", &[&dead[..], &[("x-message-ttl", int(100))]].concat());
    store(&kit, "q", 0..2);
    kit.consume("q", &client, Claim { credit: Some(2), ..Claim::default() });
    kit.load();
    let held = client.take_all();
    store(&kit, "q", 2..1500);
    assert_eq!(kit.move_all(), [""; 0], "held and paged ones");
    kit.settle(held[0].settle, Outcome::Accepted);
    kit.load();
    assert_eq!(kit.move_all(), [""; 0], "with the head in memory");
    let fetch = kit.next_fetch();
    kit.pass(100);
    assert_eq!(kit.move_all(), [""; 0], "on their way out, their bodies still to be read");
    fetch.into_iter().for_each(|fetch| kit.answer(fetch));
    kit.load();
    let mut expected = numbers(3..1500);
    expected.sort();
    let mut dead = kit.drain("dead");
    dead.sort();
    assert_eq!(dead, expected);
    assert_eq!(kit.journal.bodies(id), ["00001", "00002"]);
}

#[test]
fn a_record_that_moves_before_it_is_read_is_read_where_it_went() {
    let (kit, client) = (tight(), Client::new());
    let id = kit.queue("q", &[]);
    store(&kit, "q", 0..10);
    kit.consume("q", &client, Claim::default());
    let fetch = kit.next_fetch().unwrap();
    assert_eq!(kit.move_all(), [""; 0]);
    kit.answer(fetch);
    kit.load();
    assert_eq!(client.take(), numbers(0..10));
    assert_eq!(kit.journal.bodies(id).len(), 10);
}

#[test]
fn a_body_that_cannot_be_read_is_lost_alone() {
    let (kit, client) = (tight(), Client::new());
    let id = kit.queue("q", &[]);
    store(&kit, "q", 0..5);
    kit.journal.damage("00002");
    kit.consume("q", &client, Claim::default());
    kit.load();
    assert_eq!(client.take(), ["00000", "00001", "00003", "00004"]);
    assert_eq!(kit.journal.bodies(id).len(), 4);
}

#[test]
fn limits_hold_for_what_is_paged_out() {
    let kit = tight();
    let id = kit.queue("q", &[("x-max-length", int(3))]);
    store(&kit, "q", 0..10);
    assert_eq!(kit.journal.bodies(id), numbers(7..10));
    kit.queue("bytes", &[("x-max-length-bytes", int(10))]);
    store(&kit, "bytes", 0..10);
    assert_eq!(kit.drain("bytes"), numbers(8..10));
}

#[test]
fn a_limit_in_bytes_holds_after_a_restart() {
    let kit = tight();
    kit.queue("q", &[("x-max-length-bytes", int(20))]);
    store(&kit, "q", 0..4);
    let (kit, _) = kit.restart(true);
    store(&kit, "q", 4..5);
    let bodies = kit.drain("q");
    assert_eq!(bodies.last().unwrap(), "00004", "the newest is last");
    store(&kit, "q", 5..15);
    assert_eq!(kit.drain("q"), numbers(11..15));
}

#[test]
fn purging_and_deleting_free_what_is_paged_out() {
    let kit = tight();
    kit.queue("q", &[]);
    store(&kit, "q", 0..700);
    kit.publish("q", Post { ttl: Some(5), ..post("transient") });
    assert_eq!(kit.purge("q"), 701);
    assert_eq!(kit.journal.records(), 0);
    store(&kit, "q", 0..700);
    assert_eq!(kit.delete("q"), 700);
    assert_eq!((kit.journal.records(), kit.broker.memory()), (0, 0));
}

#[test]
fn a_full_store_refuses_what_would_have_to_stay_in_memory_behind_what_is_stored() {
    let (kit, client) = (tight(), Client::new());
    kit.queue("q", &[]);
    kit.publish("q", post("a"));
    kit.publish("q", post("b"));
    kit.journal.set_full(true);
    kit.publish("q", post("c"));
    kit.journal.set_full(false);
    kit.publish("q", post("d"));
    kit.consume("q", &client, Claim { settled: true, ..Claim::default() });
    kit.load();
    assert_eq!((client.take(), kit.refused.get()), (vec!["a".into(), "b".into(), "d".into()], 1));
}
