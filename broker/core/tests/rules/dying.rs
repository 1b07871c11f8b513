//! Dead letters: where they go, what they carry, and when they have gone round long enough.

use portolan_core::broker::Settings;
use portolan_core::delivery::{Outcome, Settlement};
use portolan_core::effect::Effects;
use portolan_core::exchange::ExchangeKind;
use portolan_core::value::{Table, Value};

use crate::client::Client;
use crate::kit::{Claim, Kit, Post, int, kept, settings, table, text};

fn to(exchange: &str, key: Option<&str>) -> Vec<(&'static str, Value)> {
    let key = key.map(|key| ("x-dead-letter-routing-key", text(key)));
    std::iter::once(("x-dead-letter-exchange", text(exchange))).chain(key).collect()
}

fn reject_one(kit: &Kit, queue: &str) {
    let got = kit.get(queue, false).expect("a message");
    kit.settle(got.settle, Outcome::Rejected);
    kit.load();
}

fn deaths(headers: &Table) -> Vec<(String, String, i64)> {
    let Some(Value::Array(deaths)) = headers.get("x-death") else { return Vec::new() };
    let field = |death: &Table, name| death.get(name).and_then(Value::as_text).unwrap_or_default().to_owned();
    let one = |death: &Value| match death {
        Value::Table(death) => {
            let count = death.get("count").and_then(Value::as_integer).unwrap_or_default();
            (field(death, "queue"), field(death, "reason"), count)
        }
        other => panic!("{other:?}"),
    };
    deaths.iter().map(one).collect()
}

#[test]
fn rejected_messages_go_to_the_exchange_with_their_own_key_or_the_queues() {
    let kit = Kit::new();
    kit.exchange("dlx", ExchangeKind::Direct);
    kit.queue("own", &to("dlx", None));
    kit.queue("other", &to("dlx", Some("special")));
    kit.queue("dead", &[]);
    for key in ["own", "special"] {
        kit.bind("dlx", "dead", key);
    }
    kit.store("own", &["a"]);
    kit.store("other", &["b"]);
    reject_one(&kit, "own");
    reject_one(&kit, "other");
    assert_eq!(kit.drain("dead"), ["a", "b"]);
    assert_eq!(kit.journal.records(), 0);
}

#[test]
fn a_missing_exchange_loses_the_message_and_only_it() {
    let kit = Kit::new();
    let id = kit.queue("q", &to("not there", None));
    kit.store("q", &["a", "b"]);
    reject_one(&kit, "q");
    assert_eq!(kit.journal.bodies(id), ["b"]);
}

#[test]
fn a_chain_of_deaths_is_counted_newest_first() {
    let kit = Kit::new();
    kit.queue("first", &to("", Some("second")));
    kit.queue("second", &[to("", Some("third")), vec![("x-message-ttl", int(10))]].concat());
    kit.queue("third", &to("", Some("first")));
    kit.store("first", &["a"]);
    for _ in 0..2 {
        reject_one(&kit, "first");
        kit.pass(10);
        kit.load();
        reject_one(&kit, "third");
    }
    let headers = kit.headers("first");
    let expected = [("third", "rejected", 2), ("second", "expired", 2), ("first", "rejected", 2)];
    assert_eq!(deaths(&headers), expected.map(|(queue, reason, count)| (queue.into(), reason.into(), count)));
    assert_eq!(headers.get("x-first-death-queue"), Some(&text("first")));
    assert_eq!(headers.get("x-last-death-queue"), Some(&text("third")));
}

#[test]
fn a_circle_without_rejection_ends() {
    let kit = Kit::new();
    let short = ("x-message-ttl", int(5));
    kit.queue("a", &[to("", Some("b")), vec![short.clone()]].concat());
    kit.queue("b", &[to("", Some("a")), vec![short]].concat());
    kit.store("a", &["m"]);
    for _ in 0..5 {
        kit.pass(5);
        kit.load();
    }
    assert_eq!(kit.broker.census().ready, 0);
    assert_eq!(kit.journal.records(), 0);
}

#[test]
fn a_queue_that_is_its_own_dead_letter_target_comes_to_rest() {
    let kit = Kit::new();
    kit.queue("ttl", &[to("", None), vec![("x-message-ttl", int(0))]].concat());
    kit.store("ttl", &["m"]);
    kit.pass(0);
    kit.load();
    kit.queue("short", &[to("", None), vec![("x-max-length", int(1))]].concat());
    kit.store("short", &["a", "b", "c"]);
    kit.queue(
        "refusing",
        &[to("", None), vec![("x-max-length", int(1)), ("x-overflow", text("reject-publish-dlx"))]].concat(),
    );
    kit.store("refusing", &["d", "e"]);
    assert_eq!(kit.drain("short"), ["c"]);
    assert_eq!(kit.drain("refusing"), ["d"]);
    assert_eq!(kit.journal.records(), 0);
}

#[test]
fn a_circle_with_a_rejection_goes_on() {
    let kit = Kit::new();
    kit.queue("work", &to("", Some("wait")));
    kit.queue("wait", &[to("", Some("work")), vec![("x-message-ttl", int(10))]].concat());
    kit.store("work", &["m"]);
    for _ in 0..4 {
        reject_one(&kit, "work");
        kit.pass(10);
        kit.load();
    }
    assert_eq!(kit.ready("work"), 1);
    assert_eq!(deaths(&kit.headers("work"))[0].2, 4);
}

#[test]
fn further_keys_lead_the_dead_too_unless_the_queue_names_its_own() {
    let kit = Kit::new();
    kit.exchange("dlx", ExchangeKind::Direct);
    kit.queue("q", &to("dlx", None));
    kit.queue("named", &to("dlx", Some("x")));
    for name in ["main", "copy"] {
        kit.queue(name, &[]);
    }
    kit.bind("dlx", "main", "q");
    kit.bind("dlx", "main", "x");
    kit.bind("dlx", "copy", "cc");
    let headers = table(&[("CC", Value::Array(vec![text("cc")]))]);
    for queue in ["q", "named"] {
        kit.publish(queue, Post { headers: headers.clone(), ..kept("m") });
        reject_one(&kit, queue);
    }
    assert_eq!((kit.ready("main"), kit.ready("copy")), (2, 1));
    let (first, second) = (kit.headers("main"), kit.headers("main"));
    assert!(first.get("CC").is_some() && second.get("CC").is_none());
}

#[test]
fn the_time_to_live_dies_with_the_message() {
    let kit = Kit::new();
    kit.queue("dead", &[]);
    kit.queue("q", &to("", Some("dead")));
    kit.publish("q", Post { ttl: Some(10), ..kept("m") });
    kit.pass(10);
    kit.pass(1_000_000);
    let headers = kit.headers("dead");
    let Some(Value::Array(deaths)) = headers.get("x-death") else { panic!("{headers:?}") };
    let Value::Table(death) = &deaths[0] else { panic!("{deaths:?}") };
    assert_eq!(death.get("original-expiration"), Some(&text("10")));
}

#[test]
fn a_dead_letter_that_cannot_be_stored_stays_where_it_was() {
    let kit = Kit::new();
    kit.queue("dead", &[]);
    let id = kit.queue("q", &to("", Some("dead")));
    kit.store("q", &["a"]);
    let got = kit.get("q", false).unwrap();
    kit.journal.set_full(true);
    kit.settle(got.settle, Outcome::Rejected);
    assert_eq!(kit.ready("dead"), 0);
    assert_eq!(kit.journal.bodies(id), ["a"], "a restart finds it");
}

#[test]
fn dead_letters_reach_consumers_in_order() {
    let (kit, client) = (Kit::new(), Client::new());
    kit.queue("dead", &[]);
    kit.queue("q", &to("", Some("dead")));
    kit.consume("dead", &client, Claim::default());
    kit.store("q", &["a", "b", "c"]);
    let got: Vec<_> = (0..3).map(|_| kit.get("q", false).unwrap().settle).collect();
    kit.settle_all(got, Outcome::Rejected);
    assert_eq!(client.take(), ["a", "b", "c"]);
}

/// Rejects a message and stops before anything is done about it that needs no lock.
fn reject_half(kit: &Kit, queue: &str) -> Effects {
    let got = kit.get(queue, false).expect("a message");
    let settlement = Settlement { delivery: got.settle.expect("unsettled"), outcome: Outcome::Rejected };
    let mut effects = Effects::default();
    kit.broker.settle(&[settlement], kit.now.get(), &mut effects);
    effects
}

#[test]
fn a_dead_letter_between_two_queues_is_still_the_old_ones() {
    let kit = Kit::new();
    let dead = kit.queue("dead", &[]);
    let id = kit.queue("q", &to("", Some("dead")));
    kit.store("q", &["a"]);
    let mut effects = reject_half(&kit, "q");
    assert_eq!(kit.move_all(), [""; 0], "the journal does not discard it");
    assert_eq!(kit.journal.bodies(id), ["a"], "a stop at this moment leaves it where it was");
    kit.broker.carry_out(&mut effects, kit.now.get());
    assert_eq!((kit.journal.bodies(id), kit.journal.bodies(dead)), (vec![], vec!["a".into()]));
    let (kit, restored) = kit.restart(false);
    assert_eq!((restored.messages, kit.drain("dead")), (1, vec!["a*".into()]));
}

#[test]
fn a_dead_letter_that_was_not_stored_can_still_be_moved() {
    let kit = Kit::new();
    kit.queue("dead", &[]);
    let id = kit.queue("q", &to("", Some("dead")));
    kit.store("q", &["a"]);
    kit.journal.set_full(true);
    reject_one(&kit, "q");
    kit.journal.set_full(false);
    assert_eq!(kit.move_all(), [""; 0]);
    assert_eq!(kit.journal.bodies(id), ["a"]);
    assert_eq!(kit.delete("q"), 0);
    assert_eq!(kit.journal.records(), 0);
}

#[test]
fn a_queue_that_ends_takes_its_dead_letters_along() {
    let kit = Kit::new();
    kit.queue("dead", &[]);
    kit.queue("q", &to("", Some("dead")));
    kit.store("q", &["a"]);
    let mut effects = reject_half(&kit, "q");
    kit.delete("q");
    kit.broker.carry_out(&mut effects, kit.now.get());
    assert_eq!(kit.drain("dead"), ["a"]);
    assert_eq!(kit.journal.records(), 0);
}

#[test]
fn a_backlog_that_expires_is_read_once() {
    const DYING: usize = 100_000;
    const ALIVE: usize = 1_000;
    let kit = Kit::with(Settings { queue_memory: 0, memory_budget: 0, ..settings() });
    let client = Client::new();
    kit.queue("dead", &[]);
    kit.queue("q", &to("", Some("dead")));
    let dying = |n: usize| Post { ttl: Some(100), ..kept(&n.to_string()) };
    let alive = |n: usize| kept(&n.to_string());
    let posts: Vec<_> = (0..DYING).map(dying).chain((0..ALIVE).map(alive)).collect();
    kit.publish_to("", "q", &posts);
    kit.pass(100);
    kit.consume("q", &client, Claim { settled: true, ..Claim::default() });
    // Were each message looked for among all others, or each answer followed by reading the next ones again, this
    // would not end.
    let all = DYING + ALIVE;
    let read = kit.load();
    assert!((all..all + 2_000).contains(&read), "{read} bodies for {all} messages");
    assert_eq!((client.take().len(), kit.ready("dead")), (ALIVE, DYING));
    assert_eq!(kit.journal.records(), DYING);
}
