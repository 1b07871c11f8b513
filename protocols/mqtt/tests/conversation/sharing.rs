//! Shared subscriptions.

use portolan_mqtt::codec::Version::{V5, V311};

use crate::bytes::*;
use crate::rig::Rig;

/// [MQTT5-4.8.2-3]: each message to one member, in turns; 3.1.1 may take part.
#[test]
fn members_take_turns() {
    for (version, filter) in [(V5, "$share/g/sh/t"), (V311, "$share/g/sh/t"), (V311, "$queue/sh/t")] {
        let mut rig = Rig::new();
        let [a, b, sender] = ["a", "b", "s"].map(|id| rig.clean(version, id));
        for member in [a, b] {
            assert!(rig.say(member, &subscribe(version, 1, filter, 1))[0].ends_with(" 01"));
        }
        for n in 0..6 {
            rig.send(sender, &publish(version, 0, 0, "sh/t", &n.to_string()));
        }
        assert_eq!(rig.heard(a), ["sh/t q0 0", "sh/t q0 2", "sh/t q0 4"]);
        assert_eq!(rig.heard(b), ["sh/t q0 1", "sh/t q0 3", "sh/t q0 5"]);
    }
}

/// Each group gets its copy, and so does an own subscription.
#[test]
fn groups_are_apart() {
    let mut rig = Rig::new();
    let [a, b, c] = ["a", "b", "c"].map(|id| rig.clean(V5, id));
    rig.say(a, &subscribe_with(V5, 1, &[("$share/g/t", 1)], &props::identifier(4)));
    rig.say(b, &subscribe(V5, 1, "$share/h/t", 0));
    rig.say(c, &subscribe_with(V5, 1, &[("$share/g/t/#", 2), ("t", 0)], &[]));
    rig.say(c, &publish(V5, 1, 1, "t", "x"));
    assert_eq!(rig.heard(a), ["t q1 #65535 sub=4 x"]);
    assert_eq!(rig.heard(b), ["t q0 x"]);
}

/// [MQTT5-3.3.1-9]: no retained messages; [MQTT5-3.8.3-4] No Local is refused.
#[test]
fn nothing_retained_for_members() {
    let mut rig = Rig::new();
    let client = rig.clean(V5, "c");
    rig.say(client, &retained(V5, 0, 0, "t", "x"));
    assert_eq!(rig.say(client, &subscribe(V5, 1, "$share/g/t", 1)), ["suback 1 01"]);
    assert_eq!(rig.say(client, &subscribe(V5, 1, "$share/g/t", 1 | NO_LOCAL)), ["disconnect 82", "CLOSED"]);
}

/// What a member did not finish goes to another, in its old place; but not QoS 2 [MQTT5-4.8.2-5].
#[test]
fn a_members_end_gives_qos_1_to_the_others() {
    let mut rig = Rig::new();
    let [a, b, sender] = ["a", "b", "s"].map(|id| rig.clean(V5, id));
    rig.say(a, &subscribe(V5, 1, "$share/g/t", 2));
    rig.send(sender, &[publish(V5, 1, 1, "t", "one"), publish(V5, 2, 2, "t", "two")].concat());
    assert_eq!(rig.heard(a), ["t q1 #65535 one", "t q2 #65534 two"]);
    rig.say(b, &subscribe(V5, 1, "$share/g/t", 2));
    rig.cut(a);
    assert_eq!(rig.heard(b), ["t q1 #65535 one"]);
    let census = rig.broker.census();
    assert_eq!((census.ready, census.unsettled), (0, 1));
}

/// [MQTT5-4.8.2-4]: QoS 2 under way is finished with its member when that comes back, whatever the others do.
#[test]
fn qos_2_is_finished_with_its_member() {
    let mut rig = Rig::new();
    let [a, b] = ["a", "b"].map(|id| rig.lasting(V5, id));
    let sender = rig.clean(V5, "s");
    rig.say(a, &subscribe(V5, 1, "$share/g/t", 2));
    rig.send(sender, &[publish(V5, 2, 1, "t", "one"), publish(V5, 2, 2, "t", "two")].concat());
    assert_eq!(rig.heard(a), ["t q2 #65535 one", "t q2 #65534 two"]);
    assert_eq!(rig.say(a, &pubrec(65535)), ["pubrel 65535"]);
    rig.say(b, &subscribe(V5, 1, "$share/g/t", 2));
    rig.cut(a);
    assert!(rig.heard(b).is_empty());
    let a = rig.dial(&lasting(V5, "a"));
    let mut heard = rig.heard(a);
    heard.remove(0);
    heard.sort();
    assert_eq!(heard, ["pubrel 65535", "t q2 #65534 dup two"]);
    assert!(rig.say(a, &pubcomp(65535)).is_empty());
    assert_eq!(rig.say(a, &pubrec(65534)), ["pubrel 65534"]);
    assert!(rig.say(a, &pubcomp(65534)).is_empty());
    assert_eq!(rig.broker.census().unsettled, 0);
}

/// [MQTT5-4.8.2-5]: and with the member's session it ends.
#[test]
fn qos_2_ends_with_its_members_session() {
    let mut rig = Rig::new();
    let a = rig.connect(&hello(V5, "a").with(&props::session_expiry(10)));
    let [b, sender] = ["b", "s"].map(|id| rig.clean(V5, id));
    rig.say(a, &subscribe(V5, 1, "$share/g/t", 2));
    rig.say(b, &subscribe(V5, 1, "$share/g/t", 2));
    rig.send(sender, &publish(V5, 2, 1, "t", "one"));
    assert_eq!(rig.heard(a).len(), 1);
    rig.cut(a);
    rig.pass(11_000);
    assert!(rig.heard(b).is_empty());
    let census = rig.broker.census();
    assert_eq!((census.ready, census.unsettled), (0, 0));
}

/// [MQTT5-4.8.2-6]: an error ends the message for the group.
#[test]
fn an_error_ends_the_message() {
    let mut rig = Rig::new();
    let [a, b, sender] = ["a", "b", "s"].map(|id| rig.clean(V5, id));
    rig.say(a, &subscribe(V5, 1, "$share/g/t", 2));
    rig.send(sender, &[publish(V5, 1, 1, "t", "one"), publish(V5, 2, 2, "t", "two")].concat());
    rig.heard(a);
    rig.say(b, &subscribe(V5, 1, "$share/g/t", 2));
    assert!(rig.say(a, &[reasoned(0x40, 65535, 0x83), reasoned(0x50, 65534, 0x97)].concat()).is_empty());
    assert!(rig.heard(b).is_empty());
    assert_eq!(rig.broker.census().unsettled, 0);
}

/// Messages wait while all members are away, and go to the first one back.
#[test]
fn messages_wait_for_members_that_are_away() {
    let mut rig = Rig::new();
    let [a, b] = ["a", "b"].map(|id| rig.lasting(V5, id));
    let sender = rig.clean(V5, "s");
    for member in [a, b] {
        rig.say(member, &subscribe(V5, 1, "$share/g/t", 1));
        rig.cut(member);
    }
    rig.send(sender, &publish(V5, 1, 1, "t", "x"));
    let b = rig.dial(&lasting(V5, "b"));
    assert_eq!(rig.heard(b)[1..], ["t q1 #65535 x"]);
    rig.send(sender, &publish(V5, 1, 1, "t", "y"));
    assert_eq!(rig.heard(b), ["t q1 #65534 y"], "a member who is there is preferred");
}

/// Own and shared messages under one window, with ids that never meet.
#[test]
fn one_window_for_all_of_a_clients_subscriptions() {
    let mut rig = Rig::new();
    let client = rig.connect(&hello(V5, "c").with(&props::receive_maximum(2)));
    let sender = rig.clean(V5, "s");
    rig.say(client, &subscribe_with(V5, 1, &[("own", 1), ("$share/g/sh", 1)], &[]));
    for topic in ["own", "sh", "own", "sh"] {
        rig.send(sender, &publish(V5, 1, 1, topic, "x"));
    }
    assert_eq!(rig.heard(client), ["own q1 #1 x", "sh q1 #65535 x"]);
    rig.send(sender, &publish(V5, 0, 0, "own", "free"));
    assert_eq!(rig.heard(client), ["own q0 free"], "[MQTT5-3.3.4-10]");
    let mut all = rig.say(client, &[puback(1), puback(65535)].concat());
    all.sort();
    assert_eq!(all, ["own q1 #2 x", "sh q1 #65535 x"]);
}

/// Leaving needs the same words; with the last member the group is gone.
#[test]
fn members_leave() {
    let mut rig = Rig::new();
    let [a, b] = ["a", "b"].map(|id| rig.clean(V5, id));
    for member in [a, b] {
        rig.say(member, &subscribe(V5, 1, "$share/g/t", 1));
    }
    assert_eq!(rig.say(a, &unsubscribe(V5, 2, &["t", "$share/h/t", "$share/g/t"])), ["unsuback 2 11 11 00"]);
    assert_eq!(rig.say(b, &publish(V5, 0, 0, "t", "x")), ["t q0 x"]);
    assert_eq!(rig.say(b, &unsubscribe(V5, 2, &["$share/g/t"])), ["unsuback 2 00"]);
    assert_eq!(rig.say(b, &publish(V5, 1, 1, "t", "x")), ["puback 1 10"]);
}
