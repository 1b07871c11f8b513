//! Length limits and what happens beyond them.

use portolan_core::delivery::Outcome;

use crate::client::Client;
use crate::kit::{Claim, Kit, int, kept, text};

#[test]
fn the_oldest_go_beyond_the_length() {
    let kit = Kit::new();
    let id = kit.queue("q", &[("x-max-length", int(2))]);
    kit.store("q", &["a", "b", "c", "d"]);
    assert_eq!(kit.journal.bodies(id), ["c", "d"]);
    assert_eq!(kit.drain("q"), ["c", "d"]);
}

#[test]
fn the_oldest_go_beyond_the_bytes() {
    let kit = Kit::new();
    kit.queue("q", &[("x-max-length-bytes", int(5))]);
    kit.fill("q", &["aa", "bb", "c"]);
    assert_eq!(kit.ready("q"), 3);
    kit.fill("q", &["d"]);
    assert_eq!(kit.ready("q"), 3);
    assert_eq!(kit.drain("q"), ["bb", "c", "d"]);
    kit.fill("q", &["too long"]);
    assert_eq!(kit.ready("q"), 0);
}

#[test]
fn unsettled_messages_do_not_count_but_returned_ones_do() {
    let (kit, client) = (Kit::new(), Client::new());
    kit.queue("q", &[("x-max-length", int(1)), ("x-max-length-bytes", int(10))]);
    let consumer = kit.consume("q", &client, Claim { credit: Some(2), ..Claim::default() });
    kit.store("q", &["aaaa", "bbbb", "cccc"]);
    let got = client.take_all();
    assert_eq!((got.len(), kit.ready("q")), (2, 1));
    kit.cancel(consumer);
    kit.settle_all(got.iter().map(|got| got.settle), Outcome::Released);
    kit.store("q", &["dddd"]);
    kit.load();
    assert_eq!(kit.drain("q"), ["dddd"]);
}

#[test]
fn a_queue_without_room_lets_through_what_someone_waits_for() {
    let (kit, client) = (Kit::new(), Client::new());
    for overflow in ["drop-head", "reject-publish"] {
        kit.queue(overflow, &[("x-max-length", int(0)), ("x-overflow", text(overflow))]);
        kit.fill(overflow, &["lost"]);
        kit.consume(overflow, &client, Claim::default());
        kit.fill(overflow, &["seen"]);
        assert_eq!(client.take(), ["seen"], "{overflow}");
    }
    assert_eq!(kit.refused.get(), 1);
}

#[test]
fn new_messages_are_refused_where_asked_for() {
    let (kit, client) = (Kit::new(), Client::new());
    let id = kit.queue("q", &[("x-max-length", int(2)), ("x-overflow", text("reject-publish"))]);
    kit.store("q", &["a", "b", "c", "d"]);
    assert_eq!(kit.refused.take(), 2);
    assert_eq!(kit.journal.bodies(id), ["a", "b"]);
    kit.consume("q", &client, Claim { credit: Some(1), ..Claim::default() });
    kit.store("q", &["e", "f"]);
    assert_eq!(kit.refused.take(), 1);
    assert_eq!(kit.journal.bodies(id), ["a", "b", "e"]);
}

#[test]
fn refused_bytes_leave_room_for_smaller_messages() {
    let kit = Kit::new();
    kit.queue("q", &[("x-max-length-bytes", int(4)), ("x-overflow", text("reject-publish"))]);
    kit.fill("q", &["aaa", "bb", "c"]);
    assert_eq!(kit.refused.get(), 1);
    assert_eq!(kit.drain("q"), ["aaa", "c"]);
}

#[test]
fn refused_messages_can_be_dead_lettered() {
    let kit = Kit::new();
    kit.queue("dead", &[]);
    let arguments = [
        ("x-max-length", int(1)),
        ("x-overflow", text("reject-publish-dlx")),
        ("x-dead-letter-exchange", text("")),
        ("x-dead-letter-routing-key", text("dead")),
    ];
    kit.queue("q", &arguments);
    kit.store("q", &["a", "b"]);
    assert_eq!(kit.refused.get(), 1);
    assert_eq!(kit.headers("dead").get("x-last-death-reason"), Some(&text("maxlen")));
    assert_eq!(kit.drain("q"), ["a"]);
}

#[test]
fn a_full_queue_of_many_refuses_for_itself_alone() {
    let kit = Kit::new();
    kit.queue("small", &[("x-max-length", int(1)), ("x-overflow", text("reject-publish"))]);
    kit.queue("large", &[]);
    ["small", "large"].iter().for_each(|name| kit.bind("amq.fanout", name, ""));
    kit.publish_to("amq.fanout", "", &[kept("a"), kept("b")]);
    assert_eq!(kit.refused.get(), 1);
    assert_eq!((kit.ready("small"), kit.ready("large")), (1, 2));
}

#[test]
fn the_lowest_priority_is_dropped_first() {
    let kit = Kit::new();
    kit.queue("q", &[("x-max-length", int(2)), ("x-max-priority", int(2))]);
    for (body, priority) in [("high", 2), ("low", 0), ("high2", 2)] {
        kit.publish("q", crate::kit::Post { priority, ..kept(body) });
    }
    assert_eq!(kit.drain("q"), ["high", "high2"]);
}

#[test]
fn a_store_without_room_refuses_what_must_be_stored_and_takes_the_rest() {
    let kit = Kit::new();
    kit.queue("q", &[]);
    kit.journal.set_full(true);
    kit.store("q", &["a"]);
    kit.fill("q", &["b"]);
    assert_eq!(kit.refused.get(), 1);
    assert_eq!(kit.drain("q"), ["b"]);
}
