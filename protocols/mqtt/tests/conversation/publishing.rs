//! Messages from clients, and when they are answered.

use portolan_mqtt::DeniedPublish;
use portolan_mqtt::codec::Version::{V5, V31, V311};

use crate::bytes::*;
use crate::rig::Rig;

/// [MQTT-3.3.4-1] [MQTT-4.3.3-2] [MQTT5-3.3.4-1] [MQTT5-4.3.3-8] [MQTT5-4.3.3-11]: exact bytes.
#[test]
fn each_qos_has_its_answer() {
    let mut rig = Rig::new();
    let watcher = rig.clean(V311, "w");
    rig.say(watcher, &subscribe(V311, 1, "#", 2));
    for version in [V31, V311, V5] {
        let client = rig.clean(version, "c");
        rig.send(client, &publish(version, 0, 0, "t", "x"));
        assert_eq!(hex(&rig.raw_heard(client)), "");
        rig.send(client, &publish(version, 1, 9, "t", "x"));
        assert_eq!(hex(&rig.raw_heard(client)), "40020009");
        rig.send(client, &publish(version, 2, 9, "t", "x"));
        assert_eq!(hex(&rig.raw_heard(client)), "50020009");
        rig.send(client, &pubrel(9));
        assert_eq!(hex(&rig.raw_heard(client)), "70020009");
    }
}

/// [MQTT5-3.4.2-1]: 0x10 for QoS 1 that nobody gets; 3.x has no place for it.
#[test]
fn nobody_listens() {
    let mut rig = Rig::new();
    let (five, three) = (rig.clean(V5, "five"), rig.clean(V311, "three"));
    rig.send(five, &publish(V5, 1, 4, "t", "x"));
    assert_eq!(hex(&rig.raw_heard(five)), "4003000410");
    rig.send(five, &publish(V5, 2, 5, "t", "x"));
    assert_eq!(hex(&rig.raw_heard(five)), "50020005");
    assert_eq!(rig.say(three, &publish(V311, 1, 4, "t", "x")), ["puback 4"]);
}

/// [MQTT-4.3.3-2] [MQTT5-4.3.3-10] [MQTT5-4.3.3-12] [MQTT-2.3.1-2]
#[test]
fn qos_2_arrives_once_however_often_it_is_sent() {
    let mut rig = Rig::new();
    let (client, watcher) = (rig.clean(V5, "c"), rig.clean(V5, "w"));
    rig.say(watcher, &subscribe(V5, 1, "t", 0));
    assert_eq!(rig.say(client, &publish(V5, 2, 2, "t", "a")), ["pubrec 2"]);
    assert_eq!(rig.say(client, &publish_with(V5, DUP, 2, 2, "t", b"a", &[])), ["pubrec 2"]);
    assert_eq!(rig.heard(watcher), ["t q0 a"]);
    assert_eq!(rig.say(client, &pubrel(2)), ["pubcomp 2"]);
    assert_eq!(rig.say(client, &pubrel(2)), ["pubcomp 2 92"], "[MQTT5-3.7.2-1]");
    assert_eq!(rig.say(client, &publish(V5, 2, 2, "t", "b")), ["pubrec 2"], "the id is free again");
    assert_eq!(rig.heard(watcher), ["t q0 b"]);
    let old = rig.clean(V311, "old");
    assert_eq!(rig.say(old, &pubrel(8)), ["pubcomp 8"]);
}

/// [MQTT5-4.3.2-5]: after PUBACK the same id is a new message, whatever DUP says.
#[test]
fn qos_1_arrives_each_time() {
    let mut rig = Rig::new();
    let (client, watcher) = (rig.clean(V311, "c"), rig.clean(V311, "w"));
    rig.say(watcher, &subscribe(V311, 1, "t", 1));
    rig.say(client, &publish(V311, 1, 1, "t", "a"));
    rig.say(client, &publish_with(V311, DUP, 1, 1, "t", b"a", &[]));
    // [MQTT-3.3.1-3]: DUP is not passed on.
    assert_eq!(rig.heard(watcher), ["t q1 #1 a", "t q1 #2 a"]);
}

/// [MQTT-4.3.2-2] [MQTT5-4.3.2-4]: the answer means that the message is safe.
#[test]
fn answers_wait_for_the_journal() {
    for version in [V311, V5] {
        let mut rig = Rig::new();
        let (keeper, client) = (rig.lasting(version, "k"), rig.lasting(version, "c"));
        rig.say(keeper, &subscribe(version, 1, "#", 2));
        rig.journal.by_hand();
        assert!(rig.say(client, &publish(version, 1, 1, "t", "a")).is_empty(), "PUBACK");
        assert!(rig.say(client, &publish(version, 2, 2, "t", "b")).is_empty(), "PUBREC");
        assert_eq!(rig.say(client, &publish(version, 0, 0, "t", "c")), [""; 0]);
        // QoS 1 need not wait: the keeper may get a message twice, never lose it. QoS 2 does; QoS 0 passes it, since no
        // window would bound how much of that waits.
        assert_eq!(rig.heard(keeper), ["t q1 #1 a", "t q0 c"]);
        rig.sync();
        assert_eq!(rig.heard(keeper), ["t q2 #2 b"]);
        assert_eq!(rig.heard(client), ["puback 1", "pubrec 2"], "{version:?}");
        assert!(rig.say(client, &pubrel(2)).is_empty(), "PUBCOMP");
        rig.sync();
        assert_eq!(rig.heard(client), ["pubcomp 2"]);
        assert!(rig.say(client, &subscribe(version, 3, "s", 1)).is_empty(), "SUBACK");
        assert!(rig.say(client, PING).is_empty(), "nothing overtakes SUBACK");
        rig.sync();
        assert_eq!(rig.heard(client), ["suback 3 01", "pingresp"]);
        assert!(rig.say(client, &unsubscribe(version, 4, &["s"])).is_empty(), "UNSUBACK");
        rig.sync();
        assert!(rig.heard(client)[0].starts_with("unsuback 4"));
        let fresh = rig.dial(&lasting(version, "fresh"));
        assert!(rig.heard(fresh).is_empty(), "CONNACK");
        rig.sync();
        assert!(rig.heard(fresh)[0].starts_with("connack 0 00"));
    }
}

/// A second copy must not be answered before the first is safe, on this connection or the next.
#[test]
fn a_duplicate_is_answered_no_sooner_than_the_first() {
    let mut rig = Rig::new();
    let (keeper, client) = (rig.lasting(V5, "k"), rig.lasting(V5, "c"));
    rig.say(keeper, &subscribe(V5, 1, "#", 2));
    rig.journal.by_hand();
    assert!(rig.say(client, &publish(V5, 2, 2, "t", "b")).is_empty());
    assert!(rig.say(client, &publish_with(V5, DUP, 2, 2, "t", b"b", &[])).is_empty());
    rig.cut(client);
    let again = rig.dial(&lasting(V5, "c"));
    rig.send(again, &publish_with(V5, DUP, 2, 2, "t", b"b", &[]));
    assert!(rig.heard(again).is_empty());
    rig.sync();
    let heard = rig.heard(again);
    assert!(heard[0].starts_with("connack 1 00") && heard[1..] == ["pubrec 2"], "{heard:?}");
    assert_eq!(rig.heard(keeper), ["t q2 #1 b"]);
}

/// [MQTT5-4.3.3-9]: a store that is full must not be taken for one that has the message, and the id is free.
#[test]
fn a_full_store_is_said_to_be_full() {
    let mut rig = Rig::new();
    let (keeper, five, three) = (rig.lasting(V5, "k"), rig.clean(V5, "five"), rig.clean(V311, "three"));
    rig.say(keeper, &subscribe(V5, 1, "#", 2));
    rig.journal.set_full(true);
    assert_eq!(rig.say(five, &publish(V5, 1, 1, "t", "a")), ["puback 1 97"]);
    assert_eq!(rig.say(five, &publish(V5, 2, 2, "t", "b")), ["pubrec 2 97"]);
    assert!(rig.say(three, &publish(V311, 1, 1, "t", "c")).is_empty(), "3.x keeps what is not answered");
    assert!(rig.say(three, &publish(V311, 2, 2, "t", "d")).is_empty());
    rig.journal.set_full(false);
    assert_eq!(rig.say(five, &publish_with(V5, DUP, 2, 2, "t", b"b", &[])), ["pubrec 2"]);
    assert_eq!(rig.say(three, &publish_with(V311, DUP, 2, 2, "t", b"d", &[])), ["pubrec 2"]);
    let heard = rig.heard(keeper);
    assert!(heard.len() == 2 && heard[0].ends_with(" b") && heard[1].ends_with(" d"), "{heard:?}");
}

/// [MQTT5-3.3.4-7]: no more under way than CONNACK allows; 3.x is not told of a bound, so it is held back instead.
#[test]
fn the_receive_maximum_is_for_those_who_know_it() {
    let mut rig = Rig::with(|settings| settings.receive_max = 2);
    let keeper = rig.lasting(V311, "k");
    rig.say(keeper, &subscribe(V311, 1, "#", 2));
    let two = |version, qos, first| {
        [publish(version, qos, first, "t", "a"), publish(version, qos, first + 1, "t", "b")].concat()
    };
    let client = rig.clean(V5, "c");
    assert_eq!(rig.say(client, &two(V5, 2, 1)), ["pubrec 1", "pubrec 2"]);
    assert_eq!(rig.say(client, &publish(V5, 2, 3, "t", "c")), ["disconnect 93", "CLOSED"]);
    rig.journal.by_hand();
    let client = rig.clean(V5, "c");
    assert!(rig.say(client, &two(V5, 1, 1)).is_empty());
    assert_eq!(rig.say(client, &publish(V5, 1, 3, "t", "c")), ["disconnect 93", "CLOSED"]);
    rig.sync();
    assert!(rig.raw_heard(client).is_empty(), "nothing follows DISCONNECT [MQTT5-3.14.4-1]");
    let old = rig.clean(V311, "old");
    assert!(rig.say(old, &[two(V311, 1, 1), two(V311, 1, 3)].concat()).is_empty());
    assert!(rig.is_paused(old));
    rig.sync();
    assert_eq!(rig.heard(old), ["puback 1", "puback 2", "puback 3", "puback 4"]);
    assert!(!rig.is_paused(old));
    assert_eq!(rig.say(old, &[two(V311, 2, 5), two(V311, 2, 7)].concat()).len(), 0);
    rig.sync();
    assert_eq!(rig.heard(old), ["pubrec 5", "pubrec 6", "pubrec 7", "pubrec 8"]);
}

/// [MQTT-3.3.5-2] [MQTT5-3.4.2-1] [MQTT5-3.5.2-1]
#[test]
fn what_may_not_be_published_goes_nowhere() {
    let mut rig = Rig::new();
    let watcher = rig.clean(V311, "w");
    rig.say(watcher, &subscribe_with(V311, 1, &[("#", 0), ("$SYS/#", 0), ("$x/#", 0)], &[]));
    let (five, three) = (rig.clean(V5, "five"), rig.clean(V311, "three"));
    for topic in ["secret/x", "$SYS/broker/version", "$share/g/t", "$queue/t"] {
        assert_eq!(rig.say(five, &publish(V5, 1, 1, topic, "x")), ["puback 1 87"]);
        assert_eq!(rig.say(five, &publish(V5, 2, 1, topic, "x")), ["pubrec 1 87"]);
        assert_eq!(rig.say(five, &publish(V5, 2, 1, topic, "x")), ["pubrec 1 87"], "[MQTT5-4.3.3-9]");
        assert!(rig.say(five, &publish(V5, 0, 0, topic, "x")).is_empty());
        assert_eq!(rig.say(three, &publish(V311, 1, 1, topic, "x")), ["puback 1"]);
        assert_eq!(rig.say(three, &publish(V311, 2, 1, topic, "x")), ["pubrec 1"]);
        assert_eq!(rig.say(three, &pubrel(1)), ["pubcomp 1"]);
    }
    let deep = "a/".repeat(40);
    assert_eq!(rig.say(five, &publish(V5, 1, 1, &deep, "x")), ["puback 1 90"]);
    assert!(rig.heard(watcher).is_empty());
    rig.say(three, &publish(V311, 0, 0, "$x/y", "fine"));
    assert_eq!(rig.heard(watcher), ["$x/y q0 fine"]);
}

/// The owner may want those who try it gone.
#[test]
fn what_may_not_be_published_can_end_the_connection() {
    let mut rig = Rig::with(|settings| settings.denied = DeniedPublish::Disconnect);
    let (five, three) = (rig.clean(V5, "five"), rig.clean(V311, "three"));
    assert_eq!(rig.say(five, &publish(V5, 0, 0, "secret", "x")), ["disconnect 87", "CLOSED"]);
    assert_eq!(rig.say(three, &publish(V311, 1, 1, "secret", "x")), ["CLOSED"]);
}

/// [MQTT5-3.3.2-7] [MQTT5-3.3.2-8] [MQTT5-3.3.2-9] [MQTT5-3.3.2-12]
#[test]
fn aliases_stand_for_topics() {
    let mut rig = Rig::new();
    let (client, watcher) = (rig.clean(V5, "c"), rig.clean(V5, "w"));
    rig.say(watcher, &subscribe(V5, 1, "#", 0));
    let send = |topic: &str, alias, payload: &[u8]| publish_with(V5, 0, 0, 0, topic, payload, &props::alias(alias));
    rig.send(client, &[send("a", 1, b"1"), send("", 1, b"2"), send("b", 1, b"3"), send("", 1, b"4")].concat());
    rig.send(client, &[send("c", 10, b"5"), send("", 10, b"6")].concat());
    assert_eq!(rig.heard(watcher), ["a q0 1", "a q0 2", "b q0 3", "b q0 4", "c q0 5", "c q0 6"]);
    rig.cut(client);
    for (bytes, answer) in [
        (send("", 1, b"x"), "disconnect 82"),
        (send("t", 11, b"x"), "disconnect 94"),
        (send("t", 0, b"x"), "disconnect 94"),
    ] {
        let client = rig.clean(V5, "c");
        assert_eq!(rig.say(client, &bytes), [answer, "CLOSED"]);
    }
}

/// [MQTT5-3.3.2-4]: text is what it says, or refused; not looked at if it says nothing.
#[test]
fn text_is_text() {
    let mut rig = Rig::new();
    let client = rig.clean(V5, "c");
    let text = props::byte(1, 1);
    assert_eq!(rig.say(client, &publish_with(V5, 0, 1, 1, "t", b"\xff", &text)), ["puback 1 99"]);
    assert_eq!(rig.say(client, &publish_with(V5, 0, 2, 1, "t", b"\xff", &text)), ["pubrec 1 99"]);
    assert_eq!(rig.say(client, &publish_with(V5, 0, 1, 1, "t", b"\xff", &[])), ["puback 1 10"]);
    assert_eq!(rig.say(client, &publish_with(V5, 0, 0, 0, "t", b"\xff", &text)), ["disconnect 99", "CLOSED"]);
}

/// A client that publishes too fast waits for the next second.
#[test]
fn a_fast_client_waits() {
    let mut rig = Rig::with(|settings| settings.publish_rate = 3);
    let (client, watcher) = (rig.clean(V311, "c"), rig.clean(V311, "w"));
    rig.say(watcher, &subscribe(V311, 1, "#", 0));
    rig.send(client, &publish(V311, 0, 0, "t", "x").repeat(3));
    assert!(rig.is_paused(client));
    rig.send(client, &publish(V311, 0, 0, "t", "late"));
    assert_eq!(rig.heard(watcher).len(), 3);
    rig.pass(1000);
    assert!(!rig.is_paused(client));
    assert_eq!(rig.heard(watcher), ["t q0 late"]);
}

/// [MQTT5-3.2.2-15]
#[test]
fn a_packet_is_no_larger_than_announced() {
    let mut rig = Rig::with(|settings| settings.max_packet = 1000);
    let client = rig.clean(V5, "c");
    assert_eq!(rig.say(client, &publish(V5, 0, 0, "t", &"x".repeat(900))), [""; 0]);
    assert_eq!(rig.say(client, &publish(V5, 0, 0, "t", &"x".repeat(1000))), ["disconnect 95", "CLOSED"]);
}

/// [MQTT-4.6.0-5] [MQTT5-4.6.0-6]: one publisher, one topic, one order.
#[test]
fn what_one_client_publishes_stays_in_order() {
    let mut rig = Rig::new();
    let (client, watcher) = (rig.clean(V311, "c"), rig.clean(V311, "w"));
    rig.say(watcher, &subscribe(V311, 1, "t", 2));
    let all: Vec<u8> = (1..=90).flat_map(|n| publish(V311, (n % 2 + 1) as u8, n, "t", &n.to_string())).collect();
    rig.send(client, &all);
    let got: Vec<String> = rig.heard(watcher).iter().map(|line| line.rsplit_once(' ').unwrap().1.to_owned()).collect();
    assert_eq!(got, (1..=90).map(|n| n.to_string()).collect::<Vec<_>>());
}
