//! Retained messages.

use portolan_mqtt::codec::Version::{V5, V311};

use crate::bytes::*;
use crate::rig::Rig;

/// [MQTT-3.3.1-5] [MQTT-3.3.1-6] [MQTT-3.3.1-8] [MQTT-3.3.1-12] [MQTT5-3.3.1-5] [MQTT5-3.3.1-8]
#[test]
fn the_last_one_is_for_later_subscribers_of_any_filter() {
    let mut rig = Rig::new();
    let sender = rig.clean(V311, "s");
    rig.send(sender, &retained(V311, 1, 1, "a/b", "old"));
    rig.send(sender, &retained(V311, 2, 1, "a/b", "new"));
    rig.send(sender, &publish(V311, 1, 1, "a/b", "passing"));
    rig.send(sender, &retained(V311, 0, 0, "a/c", "zero"));
    rig.send(sender, &retained(V311, 0, 0, "$a/b", "hidden"));
    for (filter, options, expected) in [
        ("a/b", 1, &["a/b q1 #1 retain new"][..]),
        ("a/+", 2, &["a/b q2 #1 retain new", "a/c q0 retain zero"]),
        ("#", 0, &["a/b q0 retain new", "a/c q0 retain zero"]),
        ("$a/#", 0, &["$a/b q0 retain hidden"]),
        ("a/d", 2, &[]),
    ] {
        let client = rig.clean(V5, "c");
        let mut heard = rig.say(client, &subscribe_with(V5, 1, &[(filter, options)], &[]));
        assert!(heard.remove(0).starts_with("suback"));
        assert_eq!(heard, expected, "{filter}");
    }
}

/// [MQTT-3.3.1-10] [MQTT-3.3.1-11] [MQTT5-3.3.1-6] [MQTT5-3.3.1-7]
#[test]
fn an_empty_one_removes_and_is_delivered() {
    let mut rig = Rig::new();
    let (sender, live) = (rig.clean(V311, "s"), rig.clean(V311, "l"));
    rig.say(live, &subscribe(V311, 1, "t", 1));
    rig.send(sender, &retained(V311, 1, 1, "t", "x"));
    rig.send(sender, &retained(V311, 1, 1, "t", ""));
    assert_eq!(rig.heard(live), ["t q1 #1 x", "t q1 #2"]);
    let client = rig.clean(V311, "c");
    assert_eq!(rig.say(client, &subscribe(V311, 1, "t", 1)), ["suback 1 01"]);
    assert_eq!(rig.broker.census().retained, 0);
}

/// [MQTT5-3.3.1-9] [MQTT5-3.3.1-10] [MQTT5-3.3.1-11] [MQTT-3.8.4-3] [MQTT5-3.8.4-4]
#[test]
fn the_subscriber_says_when_it_wants_them() {
    let mut rig = Rig::new();
    let (sender, client) = (rig.clean(V5, "s"), rig.lasting(V5, "c"));
    rig.send(sender, &retained(V5, 0, 0, "t", "x"));
    let identified = subscribe_with(V5, 1, &[("t", IF_NEW)], &props::identifier(9));
    assert_eq!(rig.say(client, &identified), ["suback 1 00", "t q0 retain sub=9 x"]);
    assert_eq!(rig.say(client, &identified), ["suback 1 00"]);
    assert_eq!(rig.say(client, &subscribe(V5, 2, "t", 0)), ["suback 2 00", "t q0 retain x"]);
    assert_eq!(rig.say(client, &subscribe(V5, 2, "t", NEVER)), ["suback 2 00"]);
    rig.say(client, &unsubscribe(V5, 3, &["t"]));
    assert_eq!(rig.say(client, &subscribe(V5, 2, "t", NEVER)), ["suback 2 00"]);
    rig.cut(client);
    let client = rig.dial(&lasting(V5, "c"));
    assert_eq!(rig.heard(client).len(), 1, "a resumed session is no new subscription");
    assert_eq!(rig.say(client, &subscribe(V5, 4, "t", IF_NEW)), ["suback 4 00"]);
    let old = rig.clean(V311, "old");
    for _ in 0..2 {
        assert_eq!(rig.say(old, &subscribe(V311, 1, "t", 0)), ["suback 1 00", "t q0 retain x"]);
    }
}

/// [MQTT5-3.3.2-6]: their time goes on while they wait, and ends.
#[test]
fn they_expire() {
    let mut rig = Rig::new();
    let (sender, client) = (rig.clean(V5, "s"), rig.clean(V5, "c"));
    rig.send(sender, &publish_with(V5, RETAIN, 1, 1, "t", b"x", &props::message_expiry(10)));
    rig.pass(4_000);
    assert_eq!(rig.say(client, &subscribe(V5, 1, "t", 1)), ["suback 1 01", "t q1 #1 retain expiry=6 x"]);
    rig.pass(7_000);
    assert_eq!(rig.say(client, &subscribe(V5, 1, "t", 1)), ["suback 1 01"]);
    assert_eq!(rig.broker.census().retained, 0);
}

/// Properties are kept with them.
#[test]
fn they_keep_their_properties() {
    let mut rig = Rig::new();
    let (sender, client) = (rig.clean(V5, "s"), rig.clean(V5, "c"));
    let properties = [props::words(3, "text/x"), props::pair("k", "v")].concat();
    rig.send(sender, &publish_with(V5, RETAIN, 2, 1, "t", b"x", &properties));
    let expected = ["suback 1 02", "t q2 #1 retain type=text/x k:v x"];
    assert_eq!(rig.say(client, &subscribe(V5, 1, "t", 2)), expected);
}

/// Beyond the vhost's limit 5.0 is told; 3.x is not, and its message goes where it can.
#[test]
fn there_are_no_more_than_allowed() {
    let mut rig = Rig::new();
    let (five, three, live) = (rig.clean(V5, "five"), rig.clean(V311, "three"), rig.clean(V311, "l"));
    rig.say(live, &subscribe(V311, 1, "over", 0));
    for n in 0..20 {
        assert_eq!(rig.say(five, &retained(V5, 1, 1, &n.to_string(), "x")), ["puback 1"]);
    }
    assert_eq!(rig.say(five, &retained(V5, 1, 1, "over", "5")), ["puback 1 97"]);
    assert_eq!(rig.say(five, &retained(V5, 2, 1, "over", "5")), ["pubrec 1 97"]);
    assert_eq!(rig.say(three, &retained(V311, 1, 1, "over", "3")), ["puback 1"]);
    assert_eq!(rig.heard(live), ["over q0 3"]);
    assert_eq!(rig.broker.census().retained, 20);
}

/// QoS 1 and 2 survive the process.
#[test]
fn they_survive_a_crash() {
    let mut rig = Rig::new();
    let sender = rig.clean(V5, "s");
    assert_eq!(rig.say(sender, &retained(V5, 1, 1, "t", "x")), ["puback 1"]);
    rig.crash();
    let client = rig.clean(V5, "c");
    assert_eq!(rig.say(client, &subscribe(V5, 1, "t", 0)), ["suback 1 00", "t q0 retain x"]);
}

/// PUBACK of a retained message waits for the journal though nobody subscribes.
#[test]
fn the_answer_waits_for_the_journal() {
    let mut rig = Rig::new();
    let sender = rig.clean(V5, "s");
    rig.journal.by_hand();
    assert!(rig.say(sender, &retained(V5, 1, 1, "t", "x")).is_empty());
    rig.sync();
    assert_eq!(rig.heard(sender), ["puback 1"]);
}
