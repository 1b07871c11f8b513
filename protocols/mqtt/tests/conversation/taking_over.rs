//! Several connections that want one session.

use portolan_mqtt::codec::Version::{V5, V311};

use crate::bytes::*;
use crate::rig::Rig;

/// [MQTT-3.1.4-2] [MQTT-3.1.4-3] [MQTT5-3.1.4-3]: exact bytes, but for the reason.
#[test]
fn the_newcomer_gets_the_session() {
    let mut rig = Rig::new();
    let old = rig.lasting(V5, "c");
    let new = rig.dial(&lasting(V5, "c"));
    assert!(hex(&rig.raw_heard(old)).contains("8e"));
    assert_eq!(rig.heard(old), ["CLOSED"]);
    assert!(rig.heard(new)[0].starts_with("connack 1 00"));
    let newer = rig.dial(&lasting(V311, "c"));
    assert_eq!(rig.heard(new), ["disconnect 8e", "CLOSED"]);
    assert_eq!(rig.heard(newer), ["connack 1 00"]);
    let newest = rig.dial(&hello(V311, "c"));
    assert_eq!(rig.heard(newer), ["CLOSED"]);
    assert_eq!(rig.heard(newest), ["connack 0 00"]);
}

/// What was under way goes on with the newcomer, first what came first.
#[test]
fn nothing_is_lost_by_a_takeover() {
    let mut rig = Rig::new();
    let (old, sender) = (rig.lasting(V5, "c"), rig.clean(V5, "s"));
    rig.say(old, &subscribe(V5, 1, "t", 2));
    (1..=3).for_each(|n| rig.send(sender, &publish(V5, 2, n, "t", &n.to_string())));
    rig.say(old, &pubrec(2));
    let new = rig.dial(&lasting(V5, "c"));
    assert_eq!(rig.heard(new)[1..], ["t q2 #1 dup 1", "pubrel 2", "t q2 #3 dup 3"]);
    rig.cut(old);
    rig.send(sender, &publish(V5, 1, 9, "t", "4"));
    assert_eq!(rig.heard(new), ["t q1 #4 4"]);
}

/// Of three that race, one stays: the last.
#[test]
fn the_last_of_three_stays() {
    for (version, connect) in
        [(V5, lasting(V5, "c")), (V311, lasting(V311, "c")), (V5, hello(V5, "c")), (V311, hello(V311, "c"))]
    {
        let mut rig = Rig::new();
        let first = rig.connect(&connect);
        // None of them is served before all have come.
        let [second, third, fourth] = [(); 3].map(|()| rig.raw(version));
        for client in [second, third, fourth] {
            rig.send_unserved(client, &connect.bytes());
        }
        rig.serve();
        let told = |heard: Vec<String>| heard.last().is_some_and(|last| last == "CLOSED");
        assert!(told(rig.heard(first)) && told(rig.heard(second)) && told(rig.heard(third)));
        assert!(rig.heard(fourth)[0].contains(" 00"));
        assert_eq!(rig.say(fourth, PING), ["pingresp"]);
        assert_eq!(rig.broker.vhost("/").unwrap().session_count(), 1);
    }
}

/// A newcomer between the end of the old one and the call of the one that waits for it.
#[test]
fn who_comes_last_stays_whoever_was_promised_the_session() {
    for connect in [lasting(V5, "c"), hello(V5, "c")] {
        let mut rig = Rig::new();
        let first = rig.connect(&connect);
        let second = rig.raw(V5);
        rig.send_unserved(second, &connect.bytes());
        rig.serve_only(first);
        let third = rig.raw(V5);
        rig.send_unserved(third, &connect.bytes());
        rig.serve();
        assert_eq!(rig.heard(first), ["disconnect 8e", "CLOSED"]);
        assert_eq!(rig.heard(second).last().map(String::as_str), Some("CLOSED"));
        assert!(rig.heard(third)[0].contains(" 00"), "{:?}", connect.clean);
        assert_eq!(rig.say(third, PING), ["pingresp"]);
    }
}

/// Who waits and gives up leaves the session as it was.
#[test]
fn who_waits_may_leave() {
    for connect in [lasting(V5, "c"), hello(V5, "c")] {
        let mut rig = Rig::new();
        let first = rig.connect(&connect);
        let second = rig.raw(V5);
        rig.send_unserved(second, &connect.bytes());
        rig.cut_unserved(second);
        rig.serve();
        assert_eq!(rig.heard(first), ["disconnect 8e", "CLOSED"]);
        let kept = usize::from(!connect.clean);
        assert_eq!(rig.broker.vhost("/").unwrap().session_count(), kept);
        let second = rig.raw(V5);
        let first = rig.connect(&connect);
        rig.send_unserved(second, &connect.bytes());
        rig.serve_only(first);
        rig.cut_unserved(second);
        rig.serve();
        assert_eq!(rig.broker.vhost("/").unwrap().session_count(), kept, "granted, and gone before it knew");
        rig.connect(&connect);
    }
}

/// Packets that came before CONNACK wait with their sender.
#[test]
fn a_newcomer_need_not_wait_with_its_packets() {
    let mut rig = Rig::new();
    let old = rig.lasting(V311, "c");
    let new = rig.raw(V311);
    rig.send_unserved(new, &[lasting(V311, "c").bytes(), subscribe(V311, 1, "t", 0), PING.to_vec()].concat());
    rig.serve();
    assert_eq!(rig.heard(old), ["CLOSED"]);
    assert_eq!(rig.heard(new), ["connack 1 00", "suback 1 00", "pingresp"]);
}

/// [MQTT5-3.1.2-8]: the old connection's will is published, unless its delay lets the newcomer cancel it.
#[test]
fn a_takeover_is_an_end_without_goodbye() {
    let mut rig = Rig::new();
    let watcher = rig.clean(V5, "w");
    rig.say(watcher, &subscribe(V5, 1, "w", 0));
    rig.connect(&lasting(V5, "c").will(will("w", "at once")));
    let delayed = Will { properties: props::will_delay(5), ..will("w", "late") };
    rig.connect(&lasting(V5, "c").will(delayed.clone()));
    assert_eq!(rig.heard(watcher), ["w q0 at once"]);
    rig.lasting(V5, "c");
    rig.pass(10_000);
    assert!(rig.heard(watcher).is_empty(), "[MQTT5-3.1.3-9]");
    rig.connect(&lasting(V5, "c").will(delayed));
    rig.clean(V5, "c");
    assert_eq!(rig.heard(watcher), ["w q0 late"], "[MQTT5-3.1.2-4]: the session ended");
}
