//! From CONNECT to CONNACK, keep alive, and the end.

use portolan_mqtt::codec::Version::{V5, V31, V311};

use crate::bytes::*;
use crate::rig::Rig;

/// [MQTT-3.1.4-4] [MQTT-3.2.2-1] [MQTT-3.2.2-3] [MQTT5-3.1.4-5] [MQTT5-3.2.0-1] [MQTT5-3.2.2-1]: exact bytes.
#[test]
fn connack_is_the_first_answer_in_every_version() {
    let mut rig = Rig::new();
    for version in [V31, V311] {
        let client = rig.dial(&hello(version, "c"));
        assert_eq!(hex(&rig.raw_heard(client)), "20020000");
    }
    let client = rig.dial(&hello(V5, "five"));
    // Receive Maximum 100, Maximum Packet Size 1 MiB, Topic Alias Maximum 10.
    assert_eq!(hex(&rig.raw_heard(client)), "200e00000b2100642700100000".to_owned() + "22000a");
}

/// [MQTT-3.1.3-6] [MQTT-3.1.3-8] [MQTT5-3.1.3-6] [MQTT5-3.1.3-7] [MQTT5-3.2.2-16]
#[test]
fn a_client_without_an_id_gets_one_or_none() {
    let mut rig = Rig::new();
    let client = rig.dial(&hello(V311, ""));
    assert_eq!(rig.heard(client), ["connack 0 00"]);
    let client = rig.dial(&Connect { clean: false, ..hello(V311, "") });
    assert_eq!(hex(&rig.raw_heard(client)), "20020002");
    assert_eq!(rig.heard(client), ["CLOSED"]);
    let mut ids = Vec::new();
    for clean in [true, false] {
        let client = rig.dial(&Connect { clean, ..hello(V5, "") });
        let heard = rig.heard(client);
        let id = heard[0].split(' ').find_map(|word| word.strip_prefix("id=")).unwrap().to_owned();
        assert!(rig.broker.vhost("/").unwrap().session(&id).is_some());
        ids.push(id);
    }
    assert_ne!(ids[0], ids[1]);
}

/// [MQTT-3.1.4-1] [MQTT-3.1.2-2] [MQTT-3.2.2-4] [MQTT-3.2.2-5] [MQTT5-3.1.4-2] [MQTT5-3.2.2-6] [MQTT5-3.2.2-7]
#[test]
fn refusals_have_their_code_and_close() {
    let mut rig = Rig::with(|settings| settings.client_id_max = 30);
    let user = |version, name, password| Connect { user: Some(name), password: Some(password), ..hello(version, "c") };
    let level = |version, level| {
        let mut bytes = hello(version, "c").bytes();
        bytes[8] = level;
        bytes
    };
    let long = "x".repeat(31);
    for (version, bytes, answer) in [
        (V311, user(V311, "u", "wrong").bytes(), "connack 0 04"),
        (V5, user(V5, "u", "wrong").bytes(), "connack 0 86"),
        (V311, hello(V311, &long).bytes(), "connack 0 02"),
        (V5, hello(V5, &long).bytes(), "connack 0 85"),
        (V311, level(V311, 3), "connack 0 01"),
        (V5, hello(V5, "c").with(&props::method("GS2-KRB5")).bytes(), "connack 0 8c"),
        (V5, hello(V5, "c").will(will("secret/x", "w")).bytes(), "connack 0 87"),
        (V311, hello(V311, "c").will(will("secret/x", "w")).bytes(), "connack 0 05"),
        (V5, hello(V5, "c").will(will(&"a/".repeat(40)[..].to_owned().leak()[..], "w")).bytes(), "connack 0 90"),
    ] {
        let client = rig.raw(version);
        assert_eq!(rig.say(client, &bytes), [answer, "CLOSED"], "{}", hex(&bytes));
        assert!(rig.say(client, PING).is_empty());
    }
    assert_eq!(rig.broker.vhost("/").unwrap().session_count(), 0, "nothing is left of those who were refused");
}

/// [MQTT-3.1.0-1] [MQTT5-3.1.0-1] [MQTT5-3.14.0-1]: nothing is said to those who do not begin with CONNECT.
#[test]
fn a_stranger_hears_nothing() {
    let mut rig = Rig::new();
    for bytes in [PING.to_vec(), BYE.to_vec(), publish(V311, 0, 0, "t", "x"), b"GET / HTTP/1.1\r\n\r\n".to_vec()] {
        let client = rig.raw(V311);
        assert_eq!(rig.say(client, &bytes), ["CLOSED"]);
    }
}

/// [MQTT-3.1.0-2] [MQTT5-3.1.0-2]
#[test]
fn a_second_connect_is_one_too_many() {
    let mut rig = Rig::new();
    for (version, last) in [(V311, vec!["CLOSED"]), (V5, vec!["disconnect 82", "CLOSED"])] {
        let client = rig.clean(version, "c");
        assert_eq!(rig.say(client, &hello(version, "c").bytes()), last);
    }
}

/// A stranger cannot have us keep megabytes.
#[test]
fn a_packet_before_the_login_is_small() {
    let mut rig = Rig::new();
    let client = rig.raw(V311);
    assert_eq!(rig.say(client, &[0x10, 0x80, 0x80, 0x10]), ["CLOSED"]);
}

/// [MQTT-3.1.2-24] [MQTT5-3.1.2-22]
#[test]
fn silence_ends_after_one_and_a_half_times_the_keep_alive() {
    let mut rig = Rig::new();
    let old = rig.connect(&Connect { keep_alive: 10, ..hello(V311, "old") });
    let new = rig.connect(&Connect { keep_alive: 10, ..hello(V5, "new") });
    let calm = rig.connect(&Connect { keep_alive: 0, ..hello(V5, "calm") });
    rig.pass(14_000);
    assert!(rig.heard(old).is_empty());
    // Anything counts, not only PINGREQ.
    assert!(rig.say(old, &puback(7)).is_empty());
    rig.pass(1_000);
    assert_eq!(rig.heard(new), ["disconnect 8d", "CLOSED"]);
    rig.pass(13_000);
    assert!(rig.heard(old).is_empty());
    rig.pass(2_000);
    assert_eq!(rig.heard(old), ["CLOSED"]);
    rig.pass(1_000_000);
    assert_eq!(rig.say(calm, PING), ["pingresp"]);
}

/// [MQTT5-3.2.2-21] [MQTT5-3.2.2-22]: 5.0 is told a shorter keep alive; 3.x cannot be told and keeps its own.
#[test]
fn the_longest_keep_alive_is_for_those_who_can_be_told() {
    let mut rig = Rig::with(|settings| settings.keep_alive_max = 30);
    let client = rig.dial(&hello(V5, "a"));
    assert_eq!(rig.heard(client), ["connack 0 00 receive=100 packet=1048576 aliases=10 keep=30"]);
    let none = rig.dial(&Connect { keep_alive: 0, ..hello(V5, "b") });
    assert!(rig.heard(none)[0].ends_with("keep=30"));
    let old = rig.clean(V311, "c");
    rig.pass(44_000);
    assert!(rig.heard(client).is_empty());
    rig.pass(2_000);
    assert_eq!(rig.heard(client), ["disconnect 8d", "CLOSED"]);
    assert_eq!(rig.say(old, PING), ["pingresp"]);
}

/// [MQTT-3.12.4-1] [MQTT5-3.12.4-1], in the order of what came before.
#[test]
fn a_ping_is_answered_in_its_turn() {
    let mut rig = Rig::new();
    let client = rig.clean(V311, "c");
    let all = [publish(V311, 1, 1, "t", "x"), PING.to_vec(), subscribe(V311, 2, "t", 0)].concat();
    assert_eq!(rig.say(client, &all), ["puback 1", "pingresp", "suback 2 00"]);
}

/// [MQTT5-3.1.2-23]: what the client asks for beyond the bound, it is told it does not get.
#[test]
fn a_session_is_kept_no_longer_than_allowed() {
    let mut rig = Rig::with(|settings| settings.session_expiry_max = 100);
    let client = rig.dial(&hello(V5, "c").with(&props::session_expiry(u32::MAX)));
    assert!(rig.heard(client)[0].contains(" session=100"));
    let kept = rig.dial(&hello(V5, "d").with(&props::session_expiry(99)));
    assert!(!rig.heard(kept)[0].contains("session="));
    rig.cut(client);
    rig.pass(99_000);
    let again = rig.dial(&lasting(V5, "c"));
    assert!(rig.heard(again)[0].starts_with("connack 1"));
    rig.cut(again);
    rig.pass(101_000);
    let again = rig.dial(&lasting(V5, "c"));
    assert!(rig.heard(again)[0].starts_with("connack 0"), "[MQTT5-4.1.0-2]");
}

/// [MQTT5-3.14.2-1]: DISCONNECT shortens the session's life, and cannot call one into being.
#[test]
fn disconnect_changes_the_expiry() {
    let mut rig = Rig::new();
    let client = rig.lasting(V5, "c");
    assert_eq!(rig.say(client, &disconnect(0, &props::session_expiry(0))), ["CLOSED"]);
    let client = rig.dial(&lasting(V5, "c"));
    assert!(rig.heard(client)[0].starts_with("connack 0"));
    let client = rig.clean(V5, "d");
    assert_eq!(rig.say(client, &disconnect(0, &props::session_expiry(9))), ["disconnect 82", "CLOSED"]);
}

/// [MQTT-3.14.4-1] [MQTT5-3.14.4-1]
#[test]
fn nothing_counts_after_disconnect() {
    let mut rig = Rig::new();
    let (client, watcher) = (rig.clean(V311, "c"), rig.clean(V311, "w"));
    rig.say(watcher, &subscribe(V311, 1, "#", 0));
    assert_eq!(rig.say(client, &[BYE, &publish(V311, 0, 0, "t", "late")].concat()), ["CLOSED"]);
    assert!(rig.heard(watcher).is_empty());
}

/// Packets come in any pieces, and a client need not wait for CONNACK [MQTT5-3.1.4].
#[test]
fn bytes_come_as_they_like() {
    let mut rig = Rig::new();
    let all = [hello(V5, "c").bytes(), subscribe(V5, 1, "t", 1), publish(V5, 1, 1, "t", "x")].concat();
    let client = rig.raw(V5);
    all.iter().for_each(|byte| rig.send(client, &[*byte]));
    let heard = rig.heard(client);
    assert_eq!(&heard[1..], ["suback 1 01", "t q1 #1 x", "puback 1"]);
    let client = rig.raw(V5);
    assert_eq!(&rig.say(client, &all)[1..], ["suback 1 01", "t q1 #1 x", "puback 1"]);
}

/// The broker stops: 5.0 hears why, wills are published.
#[test]
fn the_broker_says_goodbye() {
    let mut rig = Rig::new();
    let (five, three) = (rig.clean(V5, "five"), rig.connect(&hello(V311, "three").will(will("w", "gone"))));
    rig.say(five, &subscribe(V5, 1, "w", 0));
    assert_eq!(rig.goodbye(three), ["CLOSED"]);
    assert_eq!(rig.heard(five), ["w q0 gone"]);
    assert_eq!(rig.goodbye(five), ["disconnect 8b", "CLOSED"]);
}

/// A CONNECT that the journal does not take leaves nothing behind, and the id is free when it does again.
#[test]
fn a_session_that_cannot_be_written_is_not_held() {
    let mut rig = Rig::new();
    rig.journal.fail_facts(true);
    let client = rig.dial(&lasting(V5, "c").will(will("w", "x")));
    assert_eq!(rig.heard(client), ["connack 0 88", "CLOSED"]);
    assert_eq!(rig.broker.vhost("/").unwrap().session_count(), 0);
    rig.journal.fail_facts(false);
    rig.lasting(V5, "c");
}
