//! What is retained comes to later subscribers, and nothing more than the limits allow.

use portolan_core::broker::Settings;
use portolan_core::effect::Effects;
use portolan_core::message::Message;
use portolan_core::refusal::Refusal;
use portolan_core::topology::Durable;

use crate::kit::{Kit, Post, kept, post, settings};

fn try_retain(kit: &Kit, key: &str, post: &Post) -> Result<Durable, Refusal> {
    let message = kit.message("amq.topic", key, post);
    kit.as_caller(crate::kit::CONNECTION, |caller, effects: &mut Effects| {
        kit.broker.retain(&kit.vhost, &message, caller.now, effects)
    })
}

fn retain(kit: &Kit, key: &str, post: &Post) -> Durable {
    try_retain(kit, key, post).unwrap()
}

fn clear(kit: &Kit, key: &str) -> Durable {
    retain(kit, key, &post(""))
}

/// Bodies in the order in which they come.
fn retained(kit: &Kit, pattern: &str) -> Vec<String> {
    let mut found = Vec::new();
    kit.broker.retained(&kit.vhost, pattern.as_bytes(), true, kit.now.get(), &mut |message: &Message, _| {
        found.push(String::from_utf8_lossy(message.body()).into_owned());
    });
    found
}

fn hidden_queue_bodies(kit: &Kit) -> Vec<String> {
    let recovered = kit.journal.recovered(true);
    let mut bodies: Vec<String> = recovered.queues.keys().flat_map(|&id| kit.journal.bodies(id)).collect();
    bodies.sort();
    bodies
}

#[test]
fn the_last_one_counts_and_an_empty_one_clears() {
    let kit = Kit::new();
    assert!(retain(&kit, "a.b", &kept("1")).is_some());
    assert!(retain(&kit, "a.b", &kept("2")).is_some());
    retain(&kit, "a.c", &post("memory"));
    assert_eq!(retained(&kit, "a.*"), ["2", "memory"]);
    assert_eq!(hidden_queue_bodies(&kit), ["2"]);
    assert!(clear(&kit, "a.b").is_some());
    assert_eq!(clear(&kit, "a.c"), None);
    assert_eq!(clear(&kit, "never.was"), None);
    assert_eq!(retained(&kit, "#"), [""; 0]);
    assert_eq!((kit.vhost.retained_count(), kit.vhost.retained_bytes()), (0, 0));
    assert_eq!(kit.journal.records(), 0);
}

#[test]
fn patterns_find_what_they_match_in_the_order_of_keys() {
    let kit = Kit::new();
    for key in ["a", "a.b", "a.b.c", "a-b", "ab", "b", "", ".", "$SYS.x"] {
        retain(&kit, key, &post(if key.is_empty() { "empty" } else { key }));
    }
    let cases: &[(&str, &[&str])] = &[
        ("a", &["a"]),
        ("a.#", &["a", "a.b", "a.b.c"]),
        ("a.*", &["a.b"]),
        ("a.#.c", &["a.b.c"]),
        ("*", &["a", "a-b", "ab", "b"]),
        ("#", &["empty", ".", "a", "a-b", "a.b", "a.b.c", "ab", "b"]),
        ("*.*", &[".", "a.b"]),
        ("", &["empty"]),
        (".#", &["."]),
        ("$SYS.#", &["$SYS.x"]),
        ("$SYS.x", &["$SYS.x"]),
        ("x.#", &[]),
    ];
    for (pattern, expected) in cases {
        assert_eq!(retained(&kit, pattern), *expected, "{pattern}");
    }
}

#[test]
fn keys_with_a_dollar_are_hidden_only_from_those_who_want_that() {
    let kit = Kit::new();
    retain(&kit, "$SYS.x", &post("x"));
    let mut found = 0;
    for pattern in ["#", "*.x", "*.#"] {
        assert_eq!(retained(&kit, pattern), [""; 0]);
        kit.broker.retained(&kit.vhost, pattern.as_bytes(), false, kit.now.get(), &mut |_, _| found += 1);
    }
    assert_eq!(found, 3);
}

#[test]
fn many_come_in_pieces_and_each_once() {
    let kit = Kit::new();
    let keys: Vec<String> = (0..3000).map(|n| format!("t.{n:04}.x")).collect();
    for key in &keys {
        retain(&kit, key, &post(key));
    }
    assert_eq!(retained(&kit, "t.#"), keys);
    assert_eq!(retained(&kit, "#"), keys);
    assert_eq!(retained(&kit, "t.*.x"), keys);
    assert_eq!(retained(&kit, "t.*.y"), [""; 0]);
}

#[test]
fn nothing_is_locked_while_they_are_handed_out() {
    let kit = Kit::new();
    retain(&kit, "a", &post("1"));
    kit.broker.retained(&kit.vhost, b"#", true, kit.now.get(), &mut |_, _| {
        clear(&kit, "a");
    });
    kit.broker.retained(&kit.vhost, b"a", true, kit.now.get(), &mut |_, _| panic!("cleared"));
}

#[test]
fn time_ends_them() {
    let kit = Kit::new();
    retain(&kit, "a", &Post { ttl: Some(50), ..kept("brief") });
    retain(&kit, "b", &Post { ttl: Some(50), ..kept("replaced") });
    retain(&kit, "b", &kept("for good"));
    retain(&kit, "c", &Post { ttl: Some(70), ..post("memory") });
    let mut times = Vec::new();
    kit.broker.retained(&kit.vhost, b"#", true, kit.now.get(), &mut |_, at| times.push(at));
    assert_eq!(times, [kit.now.get() + 50, 0, kit.now.get() + 70]);
    kit.now.set(kit.now.get() + 60);
    assert_eq!(retained(&kit, "#"), ["for good", "memory"], "also before the tick");
    assert_eq!(retained(&kit, "a"), [""; 0]);
    kit.pass(0);
    assert_eq!((kit.vhost.retained_count(), kit.journal.records()), (2, 1));
    kit.pass(60);
    assert_eq!(kit.vhost.retained_count(), 1);
}

#[test]
fn a_limit_refuses_and_changes_nothing() {
    let kit = Kit::with(Settings { retained_messages: 2, retained_bytes: 1000, ..settings() });
    retain(&kit, "a", &kept("1"));
    retain(&kit, "b", &kept("2"));
    let records = kit.journal.records();
    assert!(matches!(try_retain(&kit, "c", &kept("3")), Err(Refusal::Limit { limit: 2, .. })));
    retain(&kit, "a", &kept("4"));
    let large = "x".repeat(900);
    assert!(matches!(try_retain(&kit, "a", &kept(&large)), Err(Refusal::Limit { limit: 1000, .. })));
    assert_eq!((retained(&kit, "#"), kit.journal.records()), (vec!["4".into(), "2".into()], records));
    clear(&kit, "b");
    retain(&kit, "c", &kept("5"));
}

#[test]
fn a_store_that_is_full_leaves_what_was() {
    let kit = Kit::new();
    retain(&kit, "a", &kept("1"));
    kit.journal.set_full(true);
    assert!(matches!(try_retain(&kit, "a", &kept("2")), Err(Refusal::Unavailable(_))));
    assert_eq!(retained(&kit, "a"), ["1"]);
    assert!(clear(&kit, "a").is_some());
}

#[test]
fn persistent_ones_survive_and_others_do_not_bring_back_what_they_replaced() {
    let kit = Kit::new();
    kit.broker.reserve_queue_ids().unwrap();
    retain(&kit, "a", &kept("1"));
    retain(&kit, "a", &kept("2"));
    retain(&kit, "b", &kept("stored"));
    retain(&kit, "b", &post("memory"));
    retain(&kit, "c", &Post { ttl: Some(50), ..kept("brief") });
    let (kit, restored) = kit.restart(false);
    assert_eq!((restored.retained, restored.strange), (2, 0));
    assert_eq!(retained(&kit, "#"), ["2", "brief"]);
    retain(&kit, "a", &kept("3"));
    let (kit, _) = kit.restart(true);
    assert_eq!(retained(&kit, "#"), ["3", "brief"]);
    kit.pass(60);
    assert_eq!((retained(&kit, "#"), kit.journal.records()), (vec!["3".into()], 1));
}

#[test]
fn of_two_records_for_one_topic_the_later_counts() {
    let kit = Kit::new();
    retain(&kit, "a", &kept("old"));
    let old = kit.journal.recovered(true).queues;
    let (id, queue) = old.iter().next().unwrap();
    let message = kit.message("amq.topic", "a", &kept("new"));
    // As if the process had ended between the new record and the old one's end.
    let content = portolan_core::store::Content::Inline(&message);
    let record = portolan_core::store::Record::Enqueued { queue: *id, seq: queue.next_seq, expires_at: 0, content };
    portolan_core::store::Journal::append(&*kit.journal, &record).unwrap();
    let (kit, restored) = kit.restart(false);
    assert_eq!((retained(&kit, "a"), restored.retained), (vec!["new".into()], 1));
    assert_eq!(hidden_queue_bodies(&kit), ["new"]);
}

#[test]
fn the_cleaner_moves_them() {
    let kit = Kit::new();
    kit.queue("q", &[]);
    kit.bind("amq.topic", "q", "#");
    let message = kit.message("amq.topic", "shared", &kept("shared"));
    retain(&kit, "a", &kept("1"));
    kit.publish_to("amq.topic", "b", &[kept("queued")]);
    kit.as_caller(crate::kit::CONNECTION, |caller, effects| {
        kit.broker.retain(&kit.vhost, &message, caller.now, effects).unwrap();
    });
    kit.journal.forget_facts();
    portolan_core::store::Owner::restate(&*kit.broker).unwrap();
    assert_eq!(kit.move_all(), [""; 0]);
    retain(&kit, "a", &kept("2"));
    let (kit, restored) = kit.restart(true);
    assert_eq!((restored.strange, restored.retained), (0, 2));
    assert_eq!(kit.move_all(), [""; 0]);
    assert_eq!(retained(&kit, "#"), ["2", "shared"]);
    assert_eq!(kit.drain("q"), ["queued"]);
    clear(&kit, "a");
    clear(&kit, "shared");
    assert_eq!(kit.journal.records(), 0);
}

#[test]
fn damage_costs_one_message() {
    let kit = Kit::new();
    retain(&kit, "a", &kept("1"));
    retain(&kit, "b", &kept("2"));
    kit.journal.damage("1");
    let (kit, restored) = kit.restart(false);
    assert_eq!((restored.retained, restored.strange), (1, 1));
    assert_eq!((retained(&kit, "#"), kit.journal.records()), (vec!["2".into()], 1));
}
