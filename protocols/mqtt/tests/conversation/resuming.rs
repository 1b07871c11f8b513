//! Sessions that outlive their connections.

use portolan_mqtt::codec::Version::{V5, V311};

use crate::bytes::*;
use crate::rig::Rig;

/// [MQTT-3.1.2-4] [MQTT-3.1.2-5] [MQTT-3.2.2-2] [MQTT5-3.1.2-5] [MQTT5-3.2.2-3] [MQTT5-4.5.0-1]
#[test]
fn messages_wait_for_a_client_that_is_away() {
    for version in [V311, V5] {
        let mut rig = Rig::new();
        let (client, sender) = (rig.lasting(version, "c"), rig.clean(V311, "s"));
        rig.say(client, &subscribe(version, 1, "t", 2));
        rig.say(client, BYE);
        for qos in 0..3 {
            rig.send(sender, &publish(V311, qos, 1, "t", &qos.to_string()));
            rig.send(sender, &pubrel(1));
        }
        let client = rig.dial(&lasting(version, "c"));
        let heard = rig.heard(client);
        assert!(heard[0].starts_with("connack 1 00"));
        assert_eq!(heard[1..], ["t q1 #1 1", "t q2 #2 2"], "QoS 0 does not wait");
        rig.send(sender, &publish(V311, 0, 0, "t", "live"));
        assert_eq!(rig.heard(client), ["t q0 live"], "the subscription is there still");
    }
}

/// [MQTT-4.4.0-1] [MQTT-4.6.0-1] [MQTT-3.3.1-1] [MQTT5-4.4.0-1] [MQTT5-3.3.1-1]
#[test]
fn what_was_under_way_comes_again_with_its_ids_in_its_order() {
    for version in [V311, V5] {
        let mut rig = Rig::new();
        let (client, sender) = (rig.lasting(version, "c"), rig.clean(V311, "s"));
        rig.say(client, &subscribe(version, 1, "t", 2));
        for n in 1..=5 {
            rig.send(sender, &publish(V311, 2 - (n % 2) as u8, n, "t", &n.to_string()));
        }
        assert_eq!(rig.heard(client).len(), 5);
        // 1 is done, of 2 and 4 the client has the message, 3 and 5 it never got.
        rig.say(client, &[puback(1), pubrec(4), pubrec(2)].concat());
        rig.cut(client);
        rig.send(sender, &publish(V311, 1, 9, "t", "6"));
        let client = rig.dial(&lasting(version, "c"));
        let again = ["pubrel 2", "t q1 #3 dup 3", "pubrel 4", "t q1 #5 dup 5", "t q1 #6 6"];
        assert_eq!(rig.heard(client)[1..], again, "{version:?}");
        rig.send(sender, &publish(V311, 1, 9, "t", "7"));
        assert_eq!(rig.heard(client), ["t q1 #7 7"]);
        rig.say(client, &[pubcomp(2), puback(3), pubcomp(4), puback(5), puback(6), puback(7)].concat());
        rig.cut(client);
        let client = rig.dial(&lasting(version, "c"));
        assert_eq!(rig.heard(client).len(), 1, "nothing is left");
        assert_eq!(rig.broker.census().unsettled, 0);
    }
}

/// The same after the broker's process ended without a goodbye.
#[test]
fn what_was_under_way_survives_a_crash() {
    let mut rig = Rig::new();
    let (client, sender) = (rig.lasting(V5, "c"), rig.clean(V5, "s"));
    rig.say(client, &subscribe(V5, 1, "t", 2));
    for n in 1..=3 {
        rig.send(sender, &publish(V5, 2, n, "t", &n.to_string()));
    }
    rig.heard(client);
    rig.say(client, &publish(V5, 2, 77, "t", "own"));
    rig.say(client, &pubrec(2));
    rig.crash();
    let client = rig.dial(&lasting(V5, "c"));
    let heard = rig.heard(client);
    assert!(heard[0].starts_with("connack 1 00"));
    let again = ["t q2 #1 dup 1", "pubrel 2", "t q2 #3 dup 3", "t q2 #4 dup own"];
    assert_eq!(heard[1..], again);
    assert_eq!(rig.say(client, &publish_with(V5, DUP, 2, 77, "t", b"own", &[])), ["pubrec 77"]);
    assert_eq!(rig.say(client, &pubrel(77)), ["pubcomp 77"]);
}

/// [MQTT-3.1.2-6] [MQTT5-3.1.2-4] [MQTT5-3.2.2-2] [MQTT-3.2.2-1]
#[test]
fn a_clean_start_forgets() {
    for version in [V311, V5] {
        let mut rig = Rig::new();
        let (client, sender) = (rig.lasting(version, "c"), rig.clean(V311, "s"));
        rig.say(client, &subscribe(version, 1, "t", 1));
        rig.cut(client);
        rig.send(sender, &publish(V311, 1, 1, "t", "x"));
        let client = rig.dial(&hello(version, "c"));
        let heard = rig.heard(client);
        assert!(heard.len() == 1 && heard[0].starts_with("connack 0 00"));
        rig.send(sender, &publish(V311, 1, 1, "t", "x"));
        assert!(rig.heard(client).is_empty());
        rig.cut(client);
        let client = rig.dial(&lasting(version, "c"));
        assert!(rig.heard(client)[0].starts_with("connack 0 00"), "[MQTT-3.2.2-3]");
        let census = rig.broker.census();
        assert_eq!((census.ready, census.unsettled), (0, 0));
    }
}

/// A session without subscriptions is one, too [MQTT5-3.2.2-3].
#[test]
fn an_empty_session_is_present() {
    let mut rig = Rig::new();
    let client = rig.lasting(V5, "c");
    rig.cut(client);
    let client = rig.dial(&lasting(V5, "c"));
    assert!(rig.heard(client)[0].starts_with("connack 1 00"));
}

/// [MQTT-4.3.3-2]: the ids of QoS 2 messages received are part of the session.
#[test]
fn qos_2_is_received_once_across_connections() {
    for version in [V311, V5] {
        let mut rig = Rig::new();
        let (client, watcher) = (rig.lasting(version, "c"), rig.clean(V311, "w"));
        rig.say(watcher, &subscribe(V311, 1, "t", 0));
        assert_eq!(rig.say(client, &publish(version, 2, 5, "t", "x")), ["pubrec 5"]);
        rig.cut(client);
        let client = rig.connect(&lasting(version, "c"));
        assert_eq!(rig.say(client, &publish_with(version, DUP, 2, 5, "t", b"x", &[])), ["pubrec 5"]);
        assert_eq!(rig.heard(watcher), ["t q0 x"]);
        assert_eq!(rig.say(client, &pubrel(5)), ["pubcomp 5"]);
    }
}

/// A smaller window on the next connection holds back even what was under way, and loses nothing.
#[test]
fn a_smaller_window_resumes_in_parts() {
    let mut rig = Rig::new();
    let (client, sender) = (rig.lasting(V5, "c"), rig.clean(V5, "s"));
    rig.say(client, &subscribe(V5, 1, "t", 2));
    (1..=4).for_each(|n| rig.send(sender, &publish(V5, 2, n, "t", &n.to_string())));
    rig.heard(client);
    rig.say(client, &pubrec(1));
    rig.cut(client);
    let client = rig.dial(&lasting(V5, "c").with(&props::receive_maximum(2)));
    assert_eq!(rig.heard(client)[1..], ["pubrel 1", "t q2 #2 dup 2"]);
    assert_eq!(rig.say(client, &pubcomp(1)), ["t q2 #3 dup 3"]);
    assert_eq!(rig.say(client, &reasoned(0x50, 2, 0x83)), ["t q2 #4 dup 4"]);
}

/// A 3.1.1 session goes on in 5.0, and ends with it if it says nothing of expiry.
#[test]
fn a_session_changes_its_version() {
    let mut rig = Rig::new();
    let (client, sender) = (rig.lasting(V311, "c"), rig.clean(V311, "s"));
    rig.say(client, &subscribe(V311, 1, "t", 1));
    rig.cut(client);
    rig.send(sender, &publish(V311, 1, 1, "t", "x"));
    let client = rig.dial(&Connect { clean: false, ..hello(V5, "c") });
    assert_eq!(rig.heard(client)[1..], ["t q1 #1 x"]);
    rig.cut(client);
    let client = rig.dial(&lasting(V311, "c"));
    assert_eq!(rig.heard(client), ["connack 0 00"]);
}
