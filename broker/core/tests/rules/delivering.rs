//! Who gets which message, in what order, and what becomes of it.

use std::sync::Arc;

use portolan_core::delivery::{Outcome, SharedCredit};
use portolan_core::refusal::Refusal;

use crate::client::Client;
use crate::kit::{Claim, Kit, int, kept, post, text};

#[test]
fn messages_come_in_the_order_in_which_they_were_published() {
    let (kit, client) = (Kit::new(), Client::new());
    kit.queue("q", &[]);
    kit.fill("q", &["a", "b"]);
    kit.consume("q", &client, Claim::default());
    kit.fill("q", &["c"]);
    assert_eq!(client.take(), ["a", "b", "c"]);
}

#[test]
fn what_is_returned_comes_again_in_its_old_place_and_is_marked() {
    let (kit, client) = (Kit::new(), Client::new());
    kit.queue("q", &[]);
    kit.fill("q", &["a", "b", "c", "d"]);
    kit.consume("q", &client, Claim { credit: Some(3), ..Claim::default() });
    let got = client.take_all();
    assert_eq!(got.len(), 3);
    kit.settle_all([got[2].settle, got[0].settle], Outcome::Released);
    assert_eq!(client.take(), ["a*", "c*"]);
    kit.settle(got[1].settle, Outcome::Accepted);
    assert_eq!(client.take(), ["d"]);
}

#[test]
fn settled_messages_are_forgotten_by_the_journal_and_others_kept() {
    let (kit, client) = (Kit::new(), Client::new());
    let id = kit.queue("q", &[]);
    kit.consume("q", &client, Claim::default());
    kit.store("q", &["a", "b", "c", "d"]);
    let got = client.take_all();
    kit.settle(got[1].settle, Outcome::Accepted);
    kit.settle(got[2].settle, Outcome::Rejected);
    kit.settle(got[3].settle, Outcome::Released);
    assert_eq!(kit.journal.bodies(id), ["a", "d"]);
}

#[test]
fn transient_messages_and_queues_write_nothing() {
    let (kit, client) = (Kit::new(), Client::new());
    kit.queue("q", &[]);
    kit.declare_as(crate::kit::CONNECTION, "brief", |wish| wish.durable = false, &[]).unwrap();
    kit.fill("q", &["a"]);
    kit.store("brief", &["b"]);
    assert_eq!(kit.journal.records(), 0);
    kit.consume("brief", &client, Claim::default());
    assert_eq!(client.take(), ["b"]);
}

#[test]
fn automatic_settlement_ends_a_delivery_as_it_leaves() {
    let (kit, client) = (Kit::new(), Client::new());
    let id = kit.queue("q", &[]);
    kit.store("q", &["a"]);
    kit.consume("q", &client, Claim { settled: true, credit: Some(1), ..Claim::default() });
    kit.store("q", &["b"]);
    assert!(client.take_all().iter().all(|got| got.settle.is_none()));
    assert!(kit.journal.bodies(id).is_empty());
    assert_eq!(kit.broker.census().unsettled, 0);
}

#[test]
fn a_delivery_ends_once() {
    let (kit, client) = (Kit::new(), Client::new());
    kit.queue("q", &[]);
    kit.consume("q", &client, Claim { credit: Some(1), ..Claim::default() });
    kit.fill("q", &["a", "b", "c"]);
    let first = client.take_all()[0].settle;
    kit.settle(first, Outcome::Accepted);
    assert_eq!(client.take_all().len(), 1);
    kit.cancel(kit.consume("q", &Client::new(), Claim { credit: Some(0), ..Claim::default() }));
    assert_eq!(kit.broker.census().unsettled, 1);
}

#[test]
fn credit_bounds_what_is_unsettled_and_comes_back_with_each_end() {
    let (kit, client) = (Kit::new(), Client::new());
    kit.queue("q", &[]);
    kit.consume("q", &client, Claim { credit: Some(2), ..Claim::default() });
    kit.fill("q", &["a", "b", "c", "d"]);
    let got = client.take_all();
    assert_eq!(got.len(), 2);
    kit.settle(got[0].settle, Outcome::Accepted);
    assert_eq!(client.take(), ["c"]);
    kit.settle(got[1].settle, Outcome::Rejected);
    assert_eq!(client.take(), ["d"]);
}

#[test]
fn a_shared_window_counts_over_queues() {
    let (kit, client) = (Kit::new(), Client::new());
    let shared = SharedCredit::new(2);
    kit.queue("p", &[]);
    kit.queue("q", &[]);
    let claim = |number| Claim { number, shared: Some(Arc::clone(&shared)), ..Claim::default() };
    kit.consume("p", &client, claim(1));
    let second = kit.consume("q", &client, claim(2));
    kit.fill("p", &["a"]);
    kit.fill("q", &["b", "c"]);
    let got = client.take_all();
    assert_eq!(got.len(), 2);
    shared.give_back(1);
    kit.settle(got[0].settle, Outcome::Accepted);
    kit.resume(second);
    assert_eq!(client.take(), ["c"]);
}

#[test]
fn equals_take_turns_and_priority_goes_first() {
    let (kit, client) = (Kit::new(), Client::new());
    kit.queue("q", &[]);
    for number in 0..3 {
        kit.consume("q", &client, Claim { number, ..Claim::default() });
    }
    kit.fill("q", &["a", "b", "c", "d"]);
    assert_eq!(client.take_by_consumer(), ["0:a", "1:b", "2:c", "0:d"]);
    kit.consume("q", &client, Claim { number: 9, priority: 1, credit: Some(2), ..Claim::default() });
    kit.fill("q", &["e", "f", "g"]);
    let got = client.take_by_consumer();
    assert_eq!(got[..2], ["9:e", "9:f"]);
    assert_ne!(&got[2][..1], "9");
}

#[test]
fn a_single_active_consumer_is_followed_by_the_next_in_line() {
    let (kit, client) = (Kit::new(), Client::new());
    kit.queue("q", &[("x-single-active-consumer", portolan_core::value::Value::Bool(true))]);
    let first = kit.consume("q", &client, Claim { number: 1, credit: Some(1), ..Claim::default() });
    kit.consume("q", &client, Claim { number: 2, priority: 5, ..Claim::default() });
    kit.fill("q", &["a", "b"]);
    assert_eq!(client.take_by_consumer(), ["1:a"]);
    kit.cancel(first);
    assert_eq!(client.take_by_consumer(), ["2:b"]);
    let exclusive = kit.try_consume("q", &client, Claim { exclusive: true, ..Claim::default() });
    assert!(matches!(exclusive, Err(Refusal::ExclusiveUse(_))));
}

#[test]
fn an_exclusive_consumer_is_alone() {
    let (kit, client) = (Kit::new(), Client::new());
    kit.queue("q", &[]);
    let exclusive = || Claim { exclusive: true, ..Claim::default() };
    let first = kit.consume("q", &client, exclusive());
    for claim in [exclusive(), Claim::default()] {
        assert!(matches!(kit.try_consume("q", &client, claim), Err(Refusal::ExclusiveUse(_))));
    }
    kit.cancel(first);
    kit.consume("q", &client, Claim::default());
    assert!(matches!(kit.try_consume("q", &client, exclusive()), Err(Refusal::ExclusiveUse(_))));
}

#[test]
fn a_full_recipient_gets_nothing_until_it_resumes() {
    let (kit, client) = (Kit::new(), Client::new());
    kit.queue("q", &[]);
    client.room(Some(1));
    let consumer = kit.consume("q", &client, Claim::default());
    kit.fill("q", &["a", "b", "c"]);
    assert_eq!(client.take(), ["a"]);
    client.room(None);
    kit.resume(consumer);
    assert_eq!(client.take(), ["b", "c"]);
}

#[test]
fn every_recipient_is_flushed_after_a_batch() {
    let (kit, client) = (Kit::new(), Client::new());
    kit.queue("q", &[]);
    kit.consume("q", &client, Claim::default());
    let before = client.flushes();
    kit.fill("q", &["a", "b", "c"]);
    assert_eq!(client.flushes(), before + 1);
}

#[test]
fn a_lost_client_leaves_its_message_to_the_others_unmarked() {
    let (kit, lost, client) = (Kit::new(), Client::new(), Client::new());
    kit.queue("q", &[]);
    kit.consume("q", &lost, Claim::default());
    kit.consume("q", &client, Claim::default());
    lost.go();
    kit.fill("q", &["a"]);
    assert_eq!(client.take(), ["a"]);
    kit.fill("q", &["b", "c"]);
    assert_eq!(client.take(), ["b", "c"]);
}

#[test]
fn a_lost_client_still_counts_until_its_connection_lets_go() {
    let (kit, lost, client) = (Kit::new(), Client::new(), Client::new());
    kit.declare_as(crate::kit::CONNECTION, "q", |wish| wish.auto_delete = true, &[]).unwrap();
    let first = kit.consume("q", &lost, Claim::default());
    lost.go();
    kit.fill("q", &["a"]);
    let second = kit.consume("q", &client, Claim::default());
    assert_eq!(client.take(), ["a"]);
    kit.cancel(first);
    kit.fill("q", &["b"]);
    assert_eq!(client.take(), ["b"], "its end is not the other one's");
    kit.cancel(second);
    assert!(!kit.exists("q"));
}

#[test]
fn the_end_of_a_lost_client_ends_a_queue_that_goes_with_it() {
    let (kit, lost) = (Kit::new(), Client::new());
    kit.declare_as(crate::kit::CONNECTION, "q", |wish| wish.auto_delete = true, &[]).unwrap();
    let consumer = kit.consume("q", &lost, Claim::default());
    lost.go();
    kit.fill("q", &["a"]);
    kit.cancel(consumer);
    assert!(!kit.exists("q"));
}

#[test]
fn get_takes_the_next_one_and_says_how_many_are_left() {
    let kit = Kit::new();
    let id = kit.queue("q", &[]);
    kit.store("q", &["a", "b", "c"]);
    let got = kit.get("q", false).unwrap();
    assert_eq!((got.message.body(), got.redelivered, got.remaining), (&b"a"[..], false, 2));
    assert_eq!(kit.journal.bodies(id), ["a", "b", "c"]);
    kit.settle(got.settle, Outcome::Released);
    kit.load();
    let again = kit.get("q", true).unwrap();
    assert_eq!((again.message.body(), again.redelivered), (&b"a"[..], true));
    assert_eq!(kit.journal.bodies(id), ["b", "c"]);
    assert_eq!(kit.drain("q"), ["b", "c"]);
    assert!(kit.get("q", true).is_none());
}

#[test]
fn higher_priorities_leave_first_and_return_to_their_place() {
    let (kit, client) = (Kit::new(), Client::new());
    kit.queue("q", &[("x-max-priority", int(5))]);
    for (body, priority) in [("low", 0), ("mid", 3), ("high", 5), ("beyond", 200), ("mid2", 3)] {
        kit.publish("q", crate::kit::Post { priority, ..kept(body) });
    }
    let consumer = kit.consume("q", &client, Claim { credit: Some(3), ..Claim::default() });
    let got = client.take_all();
    assert_eq!(got.iter().map(|got| &*got.body).collect::<Vec<_>>(), ["high", "beyond", "mid"]);
    kit.cancel(consumer);
    kit.settle_all(got.iter().map(|got| got.settle), Outcome::Released);
    kit.load();
    assert_eq!(kit.drain("q"), ["high*", "beyond*", "mid*", "mid2", "low"]);
}

#[test]
fn quorum_queues_count_returns_and_give_up_at_their_limit() {
    let (kit, client) = (Kit::new(), Client::new());
    kit.queue("dead", &[]);
    let arguments = [
        ("x-queue-type", text("quorum")),
        ("x-delivery-limit", int(2)),
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text("dead")),
    ];
    let id = kit.queue("q", &arguments);
    kit.consume("q", &client, Claim::default());
    kit.publish("q", post("a"));
    assert_eq!(kit.journal.bodies(id), ["a"], "quorum queues keep everything");
    for returns in 0..3 {
        let got = client.take_all();
        assert_eq!((got[0].returns, got[0].redelivered), (Some(returns), returns > 0));
        kit.settle(got[0].settle, Outcome::Released);
        kit.load();
    }
    assert!(client.take().is_empty());
    assert!(kit.journal.bodies(id).is_empty());
    assert_eq!(kit.headers("dead").get("x-first-death-reason"), Some(&text("delivery_limit")));
}

#[test]
fn one_message_in_many_queues_is_stored_once_and_again_where_it_cannot_be_referred_to() {
    let kit = Kit::new();
    let ids = ["a", "b", "c"].map(|name| {
        let id = kit.queue(name, &[]);
        kit.bind("amq.fanout", name, "");
        id
    });
    kit.publish_to("amq.fanout", "", &[kept("one")]);
    kit.journal.refuse_references();
    kit.publish_to("amq.fanout", "", &[kept("two")]);
    assert_eq!(kit.refused.get(), 0);
    for id in ids {
        assert_eq!(kit.journal.bodies(id), ["one", "two"]);
    }
}
