//! Wills.

use portolan_mqtt::codec::Version::{V5, V31, V311};

use crate::bytes::*;
use crate::rig::{C, Rig};

fn watched() -> (Rig, C) {
    let mut rig = Rig::new();
    let watcher = rig.connect(&Connect { keep_alive: 0, ..hello(V5, "watcher") });
    rig.say(watcher, &subscribe(V5, 1, "w/#", 2));
    (rig, watcher)
}

/// [MQTT-3.1.2-8] [MQTT-3.1.2-10] [MQTT-3.14.4-3] [MQTT5-3.1.2-8] [MQTT5-3.14.4-3]
#[test]
fn every_end_but_a_goodbye_publishes_it() {
    for version in [V31, V311, V5] {
        let (mut rig, watcher) = watched();
        let connect = hello(version, "c").will(Will { qos: 1, ..will("w/1", "w") });
        let client = rig.connect(&connect);
        rig.cut(client);
        rig.send(watcher, PING);
        assert_eq!(rig.heard(watcher), ["w/1 q1 #1 w", "pingresp"], "the network is gone");
        let client = rig.connect(&connect);
        rig.send(client, BYE);
        assert!(rig.heard(watcher).is_empty(), "a goodbye");
        let client = rig.connect(&connect);
        rig.send(client, &[0x00, 0x00]);
        assert_eq!(rig.heard(watcher), ["w/1 q1 #2 w"], "nonsense");
        rig.connect(&connect);
        rig.pass(91_000);
        let heard = rig.heard(watcher);
        assert_eq!(heard[0], "w/1 q1 #3 w", "silence");
    }
}

/// [MQTT5-3.14.4-3]: 0x04 asks for it; any error of the client publishes it, too.
#[test]
fn disconnect_may_ask_for_it() {
    let (mut rig, watcher) = watched();
    for reason in [0x04, 0x80, 0x81, 0x99] {
        let client = rig.connect(&hello(V5, "c").will(will("w/3", "w")));
        assert_eq!(rig.say(client, &disconnect(reason, &[])), ["CLOSED"]);
        assert_eq!(rig.heard(watcher), ["w/3 q0 w"]);
    }
}

/// [MQTT5-3.1.2-8] [MQTT5-3.1.3-9]: not before its delay, not after the client is back, at the latest with the
/// session's end.
#[test]
fn it_waits_for_its_delay() {
    let (mut rig, watcher) = watched();
    let delayed = Will { properties: props::will_delay(20), ..will("w/4", "w") };
    let client = rig.connect(&lasting(V5, "c").will(delayed.clone()));
    rig.cut(client);
    rig.pass(19_900);
    assert!(rig.heard(watcher).is_empty());
    rig.pass(200);
    assert_eq!(rig.heard(watcher), ["w/4 q0 w"]);
    let client = rig.connect(&lasting(V5, "c").will(delayed.clone()));
    rig.cut(client);
    rig.pass(10_000);
    rig.lasting(V5, "c");
    rig.pass(20_000);
    assert!(rig.heard(watcher).is_empty(), "the client is back");
    let client = rig.connect(&hello(V5, "short").with(&props::session_expiry(5)).will(delayed.clone()));
    rig.cut(client);
    rig.pass(5_000);
    assert_eq!(rig.heard(watcher), ["w/4 q0 w"], "with the session");
    let client = rig.connect(&hello(V5, "none").will(delayed.clone()));
    rig.cut(client);
    assert_eq!(rig.heard(watcher), ["w/4 q0 w"], "its session ends with the connection");
    let client = rig.connect(&lasting(V5, "c").will(delayed));
    rig.cut(client);
    rig.say(watcher, PING);
    rig.crash();
    let watcher = rig.clean(V5, "watcher");
    rig.say(watcher, &subscribe(V5, 1, "w/#", 2));
    rig.pass(21_000);
    assert_eq!(rig.heard(watcher), ["w/4 q0 w"], "also when the broker's process ends meanwhile");
}

/// [MQTT-3.1.2-16] [MQTT-3.1.2-17] [MQTT5-3.1.2-14] [MQTT5-3.1.2-15] [MQTT5-3.1.3-10]
#[test]
fn it_is_published_as_it_was_written() {
    let (mut rig, watcher) = watched();
    let properties =
        [props::words(3, "text/x"), props::pair("b", "1"), props::pair("a", "2"), props::message_expiry(9)];
    let kept = Will { qos: 2, retain: true, properties: properties.concat(), ..will("w/5", "last") };
    let client = rig.connect(&hello(V5, "c").will(kept));
    rig.cut(client);
    assert_eq!(rig.heard(watcher), ["w/5 q2 #1 expiry=9 type=text/x b:1 a:2 last"]);
    let late = rig.clean(V311, "late");
    assert_eq!(rig.say(late, &subscribe(V311, 1, "w/5", 1)), ["suback 1 01", "w/5 q1 #1 retain last"]);
    let client = rig.connect(&hello(V5, "c").will(Will { retain: true, ..will("w/5", "") }));
    rig.cut(client);
    let later = rig.clean(V311, "later");
    assert_eq!(rig.say(later, &subscribe(V311, 1, "w/5", 1)), ["suback 1 01"], "an empty one removes");
}

/// Nobody who is refused leaves a will, and nobody who only waited.
#[test]
fn a_refused_client_has_none() {
    let (mut rig, watcher) = watched();
    let wrong = Connect { user: Some("u"), password: Some("no"), ..hello(V5, "c") }.will(will("w/6", "w"));
    let client = rig.dial(&wrong);
    rig.cut(client);
    rig.lasting(V5, "held");
    let waiting = rig.raw(V5);
    rig.send_unserved(waiting, &lasting(V5, "held").will(will("w/6", "w")).bytes());
    rig.cut_unserved(waiting);
    rig.serve();
    assert!(rig.heard(watcher).is_empty());
}
