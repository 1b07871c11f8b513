//! Messages to clients: windows, packet ids, sizes, aliases, expiry.

use portolan_mqtt::codec::Version::{V5, V311};

use crate::bytes::*;
use crate::rig::Rig;

/// [MQTT-2.3.1-4] [MQTT-3.8.4-6] [MQTT-4.3.1-1] [MQTT5-3.8.4-8]: the lower of both QoS, ids from 1 on, DUP 0.
#[test]
fn the_lower_qos_wins() {
    let mut rig = Rig::new();
    let sender = rig.clean(V311, "s");
    for granted in 0..3 {
        let client = rig.clean(V311, "c");
        rig.say(client, &subscribe(V311, 1, "t", granted));
        for qos in 0..3 {
            rig.send(sender, &publish(V311, qos, 1, "t", "x"));
            rig.send(sender, &pubrel(1));
            let heard = rig.heard(client);
            assert!(heard.len() == 1 && heard[0].starts_with(&format!("t q{}", granted.min(qos))), "{heard:?}");
            assert!(!heard[0].contains("dup") && !heard[0].contains("#0"));
        }
        rig.cut(client);
    }
}

/// [MQTT5-3.3.4-9] [MQTT5-4.9.0-1] [MQTT5-4.9.0-2] [MQTT5-3.3.4-10] [MQTT5-4.9.0-3]
#[test]
fn the_clients_receive_maximum_holds_back_what_must_be_acknowledged_and_nothing_else() {
    let mut rig = Rig::new();
    let client = rig.connect(&hello(V5, "c").with(&props::receive_maximum(2)));
    let sender = rig.clean(V5, "s");
    rig.say(client, &subscribe(V5, 1, "t", 2));
    for n in 1..=4 {
        rig.send(sender, &publish(V5, 1, n, "t", &n.to_string()));
    }
    assert_eq!(rig.heard(client), ["t q1 #1 1", "t q1 #2 2"]);
    rig.send(sender, &publish(V5, 0, 0, "t", "free"));
    assert_eq!(rig.heard(client), ["t q0 free"]);
    assert_eq!(rig.say(client, PING), ["pingresp"]);
    assert_eq!(rig.say(client, &puback(2)), ["t q1 #3 3"]);
    assert_eq!(rig.say(client, &reasoned(0x40, 1, 0x80)), ["t q1 #4 4"], "[MQTT5-4.4.0-2]");
    rig.send(sender, &publish(V5, 2, 9, "t", "5"));
    assert!(rig.heard(client).is_empty());
    let heard = rig.say(client, &[puback(3), puback(4)].concat());
    assert_eq!(heard, ["t q2 #6 5"], "QoS 0 took a number, too");
    rig.send(sender, &publish(V5, 1, 1, "t", "6"));
    rig.send(sender, &publish(V5, 1, 1, "t", "7"));
    assert_eq!(rig.heard(client), ["t q1 #7 6"]);
    // PUBREC does not open the window, PUBCOMP does; an error in PUBREC does at once.
    assert_eq!(rig.say(client, &pubrec(6)), ["pubrel 6"]);
    assert_eq!(rig.say(client, &pubcomp(6)), ["t q1 #8 7"]);
}

/// 3.x has no receive maximum: the broker's bound is kept.
#[test]
fn the_brokers_window_is_for_everyone() {
    let mut rig = Rig::with(|settings| settings.inflight_max = 3);
    let (old, new, sender) = (rig.clean(V311, "old"), rig.clean(V5, "new"), rig.clean(V311, "s"));
    rig.say(old, &subscribe(V311, 1, "t", 1));
    rig.say(new, &subscribe(V5, 1, "t", 1));
    (1..10).for_each(|n| rig.send(sender, &publish(V311, 1, n, "t", "x")));
    assert_eq!((rig.heard(old).len(), rig.heard(new).len()), (3, 3));
}

/// [MQTT5-4.3.3-4] [MQTT5-4.3.3-5] [MQTT5-4.3.3-6] [MQTT-4.3.3-1], and words about ids that nobody knows.
#[test]
fn qos_2_goes_out_in_four_steps() {
    for version in [V311, V5] {
        let mut rig = Rig::new();
        let (client, sender) = (rig.clean(version, "c"), rig.clean(V311, "s"));
        rig.say(client, &subscribe(version, 1, "t", 2));
        rig.send(sender, &publish(V311, 2, 1, "t", "x"));
        assert_eq!(rig.heard(client), ["t q2 #1 x"]);
        assert!(rig.say(client, &puback(1)).is_empty(), "the wrong word for it");
        assert_eq!(rig.say(client, &pubrec(1)), ["pubrel 1"]);
        assert_eq!(rig.say(client, &pubrec(1)), ["pubrel 1"]);
        assert!(rig.say(client, &pubcomp(1)).is_empty());
        let unknown = if version == V5 { "pubrel 1 92" } else { "pubrel 1" };
        assert_eq!(rig.say(client, &pubrec(1)), [unknown]);
        assert!(rig.say(client, &[puback(5), pubcomp(5)].concat()).is_empty());
        assert_eq!(rig.broker.census().unsettled, 0);
    }
}

/// PUBREL waits until the journal will not have the message sent again [MQTT-4.3.3-1].
#[test]
fn pubrel_waits_for_the_journal() {
    let mut rig = Rig::new();
    let (client, sender) = (rig.lasting(V311, "c"), rig.clean(V311, "s"));
    rig.say(client, &subscribe(V311, 1, "t", 2));
    rig.send(sender, &publish(V311, 2, 1, "t", "x"));
    rig.heard(client);
    rig.journal.by_hand();
    assert!(rig.say(client, &pubrec(1)).is_empty());
    rig.sync();
    assert_eq!(rig.heard(client), ["pubrel 1"]);
}

/// [MQTT5-3.1.2-24] [MQTT5-3.1.2-25]: too large is as good as delivered, for this client alone.
#[test]
fn what_is_too_large_for_a_client_is_dropped_for_it() {
    let mut rig = Rig::new();
    let small = rig.connect(&hello(V5, "small").with(&props::packet_maximum(40)).with(&props::receive_maximum(1)));
    let (large, sender) = (rig.clean(V5, "large"), rig.clean(V5, "s"));
    for client in [small, large] {
        rig.say(client, &subscribe(V5, 1, "t", 1));
    }
    rig.send(sender, &publish(V5, 1, 1, "t", &"x".repeat(50)));
    rig.send(sender, &publish(V5, 1, 2, "t", "y"));
    assert_eq!(rig.heard(large).len(), 2);
    assert_eq!(rig.heard(small), ["t q1 #2 y"]);
    assert_eq!(rig.broker.counters.mqtt_delivered.dropped.get(), 1);
    rig.say(small, &puback(2));
    assert_eq!(rig.broker.vhost("/").unwrap().session("small").unwrap().queue().map(|_| ()), Some(()));
    let exact = publish(V5, 0, 0, "t", &"z".repeat(34));
    assert_eq!(exact.len(), 40);
    rig.send(sender, &exact);
    assert_eq!(rig.heard(small).len(), 1);
}

/// [MQTT5-3.1.2-26] [MQTT5-3.1.2-27] [MQTT5-3.3.2-11]
#[test]
fn topics_are_sent_once_to_those_who_take_aliases() {
    let mut rig = Rig::new();
    let two = rig.connect(&hello(V5, "two").with(&props::alias_maximum(2)));
    let (none, sender) = (rig.clean(V5, "none"), rig.clean(V5, "s"));
    for client in [two, none] {
        rig.say(client, &subscribe(V5, 1, "#", 0));
    }
    for topic in ["a", "b", "c", "a", "b", "c"] {
        rig.send(sender, &publish(V5, 0, 0, topic, "x"));
    }
    let expected = ["a q0 alias=1 x", "b q0 alias=2 x", "c q0 x", " q0 alias=1 x", " q0 alias=2 x", "c q0 x"];
    assert_eq!(rig.heard(two), expected);
    assert!(rig.heard(none).iter().all(|line| !line.contains("alias") && !line.starts_with(' ')));
}

/// [MQTT5-3.3.2-5] [MQTT5-3.3.2-6]
#[test]
fn messages_have_their_time() {
    let mut rig = Rig::new();
    let (away, sender) = (rig.lasting(V5, "c"), rig.clean(V5, "s"));
    rig.say(away, &subscribe(V5, 1, "t", 1));
    rig.cut(away);
    for (seconds, payload) in [(5, b"short"), (30, b"later")] {
        rig.send(sender, &publish_with(V5, 0, 1, 1, "t", payload, &props::message_expiry(seconds)));
    }
    rig.send(sender, &publish(V5, 1, 1, "t", "plain"));
    rig.pass(8_000);
    let client = rig.dial(&lasting(V5, "c"));
    assert_eq!(rig.heard(client)[1..], ["t q1 #2 expiry=22 later", "t q1 #3 plain"]);
}

/// [MQTT5-4.3.3-7] [MQTT5-4.3.3-13]: what has been sent once is sent again whatever its time.
#[test]
fn time_does_not_end_what_is_under_way() {
    let mut rig = Rig::new();
    let (client, sender) = (rig.lasting(V5, "c"), rig.clean(V5, "s"));
    rig.say(client, &subscribe(V5, 1, "t", 2));
    for id in [1, 2] {
        rig.send(sender, &publish_with(V5, 0, 2, id, "t", b"x", &props::message_expiry(5)));
    }
    rig.heard(client);
    rig.say(client, &pubrec(1));
    rig.cut(client);
    rig.pass(10_000);
    let client = rig.dial(&lasting(V5, "c"));
    let heard = rig.heard(client);
    assert_eq!(heard[1], "pubrel 1");
    assert!(heard[2].starts_with("t q2 #2 dup") && heard.len() == 3, "{heard:?}");
}

/// [MQTT5-3.3.2-15] [MQTT5-3.3.2-16] [MQTT5-3.3.2-17] [MQTT5-3.3.2-18] [MQTT5-3.3.2-20] [MQTT5-3.3.2-4]
#[test]
fn properties_arrive_as_they_left() {
    let mut rig = Rig::new();
    let (client, sender, old) = (rig.clean(V5, "c"), rig.clean(V5, "s"), rig.clean(V311, "old"));
    rig.say(client, &subscribe(V5, 1, "a.b/#", 0));
    rig.say(old, &subscribe(V311, 1, "a.b/#", 0));
    let properties = [
        props::byte(1, 1),
        props::words(3, "text/x"),
        props::words(8, "back/to.me"),
        [&[9][..], &blob(b"7")].concat(),
        props::pair("k", "1"),
        props::pair("j", "2"),
        props::pair("k", "1"),
    ];
    rig.send(sender, &publish_with(V5, 0, 0, 0, "a.b/c", b"x", &properties.concat()));
    let all = "a.b/c q0 text=1 type=text/x answer=back/to.me correlation=7 k:1 j:2 k:1 x";
    assert_eq!(rig.heard(client), [all]);
    assert_eq!(rig.heard(old), ["a.b/c q0 x"]);
}

/// A client that reads nothing is sent no more than its outbox takes, and everything once it reads again.
#[test]
fn a_slow_client_gets_everything_in_the_end() {
    let mut rig = Rig::with(|settings| (settings.outbox_high, settings.outbox_low) = (2000, 1000));
    let (client, sender) = (rig.clean(V311, "c"), rig.clean(V311, "s"));
    rig.say(client, &subscribe(V311, 1, "t", 0));
    rig.reads(client, Some(0));
    for n in 0..500 {
        rig.send(sender, &publish(V311, 0, 0, "t", &format!("{n:09}")));
    }
    rig.reads(client, Some(3000));
    rig.reads(client, None);
    let heard = rig.heard(client);
    assert_eq!(heard.len(), 500);
    assert!(heard.is_sorted());
}

/// A large body is not copied for each of its receivers, and arrives whole.
#[test]
fn a_large_body_arrives_whole() {
    let mut rig = Rig::new();
    let (client, sender) = (rig.clean(V5, "c"), rig.clean(V5, "s"));
    rig.say(client, &subscribe(V5, 1, "t", 1));
    let body: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
    let frame = publish_with(V5, 0, 1, 1, "t", &body, &[]);
    rig.send(sender, &[publish(V5, 1, 9, "t", "before"), frame, publish(V5, 1, 3, "t", "after")].concat());
    let expected =
        [publish(V5, 1, 1, "t", "before"), publish_with(V5, 0, 1, 2, "t", &body, &[]), publish(V5, 1, 3, "t", "after")];
    assert!(rig.raw_heard(client) == expected.concat());
}

/// Permissions on what is delivered, as in Mosquitto's ACL files.
#[test]
fn what_a_user_may_not_get_is_not_delivered() {
    let mut rig = Rig::new();
    let watched = Connect { user: Some("watched"), password: Some("guest"), ..hello(V311, "w") };
    let (client, sender) = (rig.connect(&watched), rig.clean(V311, "s"));
    rig.say(client, &subscribe(V311, 1, "#", 1));
    rig.send(sender, &publish(V311, 1, 1, "hidden/x", "no"));
    rig.send(sender, &publish(V311, 1, 1, "open/x", "yes"));
    assert_eq!(rig.heard(client), ["open/x q1 #2 yes"]);
    assert_eq!(rig.broker.census().unsettled, 1);
}
