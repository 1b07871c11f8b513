//! Times to live, of messages and of queues, and when a shard wants to be called.

use crate::client::Client;
use crate::kit::{CONNECTION, Claim, Kit, Post, int, kept, post, settings, text};
use portolan_core::broker::Settings;
use portolan_core::delivery::Outcome;
use portolan_core::value::Value;

fn lives(body: &str, ttl: u64) -> Post {
    Post { ttl: Some(ttl), ..kept(body) }
}

/// Where expired messages go when they are to be seen.
const TO_DEAD: [&str; 2] = ["x-dead-letter-exchange", "x-dead-letter-routing-key"];

fn with_dead(kit: &Kit, name: &str, arguments: &[(&str, Value)]) {
    if !kit.exists("dead") {
        kit.queue("dead", &[]);
    }
    let mut all = arguments.to_vec();
    all.push((TO_DEAD[0], text("")));
    all.push((TO_DEAD[1], text("dead")));
    kit.queue(name, &all);
}

#[test]
fn the_shorter_of_queue_and_message_counts() {
    for (queue, message, dies_at) in
        [(Some(50), None, 50), (None, Some(70), 70), (Some(50), Some(70), 50), (Some(70), Some(50), 50)]
    {
        let kit = Kit::new();
        let arguments: Vec<_> = queue.map(|ttl| ("x-message-ttl", int(ttl))).into_iter().collect();
        with_dead(&kit, "q", &arguments);
        kit.publish("q", Post { ttl: message, ..kept("a") });
        kit.pass(dies_at - 1);
        assert_eq!((kit.ready("q"), kit.ready("dead")), (1, 0), "{queue:?} {message:?}");
        kit.pass(1);
        assert_eq!(kit.ready("dead"), 1, "{queue:?} {message:?}");
        assert_eq!(kit.drain("q"), [""; 0]);
    }
}

#[test]
fn nothing_to_wait_for_is_no_time_to_live_unless_someone_waits() {
    let (kit, client) = (Kit::new(), Client::new());
    kit.queue("q", &[("x-message-ttl", int(0))]);
    kit.fill("q", &["lost"]);
    assert!(kit.get("q", true).is_none());
    kit.consume("q", &client, Claim { credit: Some(1), ..Claim::default() });
    kit.fill("q", &["seen", "lost"]);
    assert_eq!(client.take(), ["seen"]);
    kit.pass(0);
    assert_eq!(kit.ready("q"), 0);
}

#[test]
fn a_message_behind_a_longer_lived_one_waits_and_is_never_delivered() {
    let (kit, client) = (Kit::new(), Client::new());
    kit.queue("q", &[]);
    kit.publish("q", lives("long", 1000));
    kit.publish("q", lives("short", 10));
    kit.pass(20);
    assert_eq!(kit.ready("q"), 2);
    kit.consume("q", &client, Claim { settled: true, ..Claim::default() });
    assert_eq!(client.take(), ["long"]);
    assert_eq!(kit.ready("q"), 0);
}

#[test]
fn an_expired_message_that_comes_back_expires() {
    let (kit, client) = (Kit::new(), Client::new());
    with_dead(&kit, "q", &[("x-message-ttl", int(10))]);
    let consumer = kit.consume("q", &client, Claim::default());
    kit.store("q", &["a"]);
    kit.pass(50);
    let got = client.take_all();
    kit.cancel(consumer);
    kit.settle(got[0].settle, Outcome::Released);
    kit.pass(0);
    assert_eq!((kit.ready("q"), kit.ready("dead")), (0, 1));
}

#[test]
fn stored_messages_expire_though_nobody_looks() {
    let settings = Settings { memory_budget: 0, queue_memory: 0, ..settings() };
    let kit = Kit::with(settings);
    with_dead(&kit, "q", &[("x-message-ttl", int(10))]);
    kit.store("q", &["a", "b"]);
    kit.publish("q", post("c"));
    assert!(kit.broker.census().paged > 0, "the bodies are out");
    kit.pass(10);
    kit.load();
    assert_eq!(kit.broker.census().ready, 3, "all of them among the dead");
    assert_eq!(kit.drain("dead"), ["a", "b", "c"]);
}

#[test]
fn messages_expire_after_a_restart_though_nobody_looks() {
    let kit = Kit::new();
    with_dead(&kit, "q", &[]);
    kit.publish("q", lives("a", 100));
    kit.publish("q", kept("b"));
    let (kit, _) = kit.restart(true);
    kit.pass(100);
    kit.load();
    assert_eq!(kit.drain("dead"), ["a"]);
    assert_eq!(kit.drain("q"), ["b"]);
}

#[test]
fn an_unused_queue_goes_and_use_keeps_it() {
    let (kit, client) = (Kit::new(), Client::new());
    let arguments = [("x-expires", int(100))];
    kit.queue("idle", &arguments);
    let used: [(&str, &dyn Fn()); 3] = [
        ("declared", &|| assert!(kit.declare_as(CONNECTION, "declared", |_| {}, &[("x-expires", int(100))]).is_ok())),
        ("got", &|| assert!(kit.get("got", true).is_none())),
        ("inspected", &|| assert_eq!(kit.ready("inspected"), 0)),
    ];
    for (name, _) in used {
        kit.queue(name, &arguments);
    }
    kit.queue("consumed", &arguments);
    let consumer = kit.consume("consumed", &client, Claim::default());
    kit.pass(60);
    used.iter().for_each(|(_, how)| how());
    kit.fill("idle", &["publishing is no use"]);
    kit.pass(60);
    assert!(!kit.exists("idle"));
    for (name, _) in used {
        assert!(kit.exists(name), "{name}");
    }
    kit.pass(1000);
    for (name, _) in used {
        assert!(!kit.exists(name), "{name}");
    }
    assert!(kit.exists("consumed"));
    kit.cancel(consumer);
    kit.pass(99);
    assert!(kit.exists("consumed"));
    kit.pass(1);
    assert!(!kit.exists("consumed"));
}

#[test]
fn a_queue_that_goes_takes_its_messages_without_dead_letters() {
    let kit = Kit::new();
    with_dead(&kit, "q", &[("x-expires", int(10))]);
    kit.store("q", &["a"]);
    kit.pass(10);
    assert_eq!((kit.exists("q"), kit.ready("dead")), (false, 0));
    assert_eq!(kit.journal.records(), 0);
}

#[test]
fn each_priority_expires_by_itself() {
    let kit = Kit::new();
    kit.queue("q", &[("x-max-priority", int(1))]);
    kit.publish("q", Post { priority: 1, ..lives("high", 1000) });
    kit.publish("q", lives("low", 10));
    kit.pass(10);
    assert_eq!(kit.drain("q"), ["high"]);
}
