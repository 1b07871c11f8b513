//! SUBSCRIBE, UNSUBSCRIBE, and what matches.

use portolan_mqtt::codec::Version::{V5, V311};

use crate::bytes::*;
use crate::rig::Rig;

/// [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.8.4-4] [MQTT-3.8.4-5] [MQTT-3.9.3-1] [MQTT5-3.8.4-6] [MQTT5-3.9.3-1]
#[test]
fn one_code_for_each_filter_in_their_order() {
    let mut rig = Rig::new();
    let (five, three) = (rig.clean(V5, "five"), rig.clean(V311, "three"));
    let deep = "+/".repeat(40);
    let filters = [("a", 0), ("secret/x", 1), ("b", 1), ("$share//t", 1), ("c", 2), (&*deep, 0)];
    let heard = rig.say(five, &subscribe_with(V5, 7, &filters, &[]));
    assert_eq!(heard, ["suback 7 00 87 01 8f 02 8f"]);
    rig.send(three, &subscribe_with(V311, 7, &filters, &[]));
    assert_eq!(hex(&rig.raw_heard(three)), "9008000700800180".to_owned() + "0280");
}

/// Those who look after devices learn what to change [MQTT5-3.9.2-1].
#[test]
fn a_refusal_says_why() {
    let mut rig = Rig::with(|settings| settings.subscriptions = 1);
    let client = rig.clean(V5, "c");
    let says = |rig: &mut Rig, filter: &str, word: &str| {
        rig.send(client, &subscribe(V5, 1, filter, 0));
        let bytes = rig.raw_heard(client);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert!(text.contains(word), "{filter}: {text}");
    };
    says(&mut rig, "secret/x", "may not read");
    says(&mut rig, "$share/g", "$share");
    says(&mut rig, &"+/".repeat(40), "mqtt.topic_levels");
    rig.say(client, &subscribe(V5, 1, "one", 0));
    says(&mut rig, "two", "mqtt.subscriptions");
    assert_eq!(rig.say(client, &subscribe(V5, 1, "one", 1)), ["suback 1 01"], "no new one");
    let mute = rig.connect(&hello(V5, "mute").with(&props::byte(0x17, 0)));
    rig.send(mute, &subscribe(V5, 1, "secret/x", 0));
    assert_eq!(hex(&rig.raw_heard(mute)), "900400010087", "[MQTT5-3.1.2-29]");
}

/// [MQTT-3.10.4-1] [MQTT-3.10.4-2] [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.10.4-6] [MQTT5-3.11.3-1]: exact bytes.
#[test]
fn unsubscribing_ends_what_was_asked_for() {
    let mut rig = Rig::new();
    let (five, three, sender) = (rig.clean(V5, "five"), rig.clean(V311, "three"), rig.clean(V311, "s"));
    rig.say(five, &subscribe_with(V5, 1, &[("a", 1), ("b/#", 1)], &[]));
    rig.say(three, &subscribe_with(V311, 1, &[("a", 1), ("b/#", 1)], &[]));
    rig.send(five, &unsubscribe(V5, 7, &["x", "a", "b/+"]));
    assert_eq!(hex(&rig.raw_heard(five)), "b0060007001100".to_owned() + "11");
    rig.send(three, &unsubscribe(V311, 7, &["x", "a", "b/+"]));
    assert_eq!(hex(&rig.raw_heard(three)), "b0020007");
    rig.send(sender, &[publish(V311, 1, 1, "a", "no"), publish(V311, 1, 2, "b/c", "yes")].concat());
    assert_eq!(rig.heard(five), ["b/c q1 #1 yes"]);
    assert_eq!(rig.heard(three), ["b/c q1 #1 yes"]);
}

/// [MQTT-3.10.4-3]: what is under way is finished, also after a reconnect.
#[test]
fn what_is_under_way_outlives_its_subscription() {
    let mut rig = Rig::new();
    let (client, sender) = (rig.lasting(V5, "c"), rig.clean(V5, "s"));
    rig.say(client, &subscribe(V5, 1, "t", 2));
    rig.send(sender, &publish(V5, 2, 1, "t", "x"));
    assert_eq!(rig.heard(client), ["t q2 #1 x"]);
    rig.say(client, &unsubscribe(V5, 2, &["t"]));
    rig.cut(client);
    let client = rig.dial(&lasting(V5, "c"));
    assert_eq!(rig.heard(client)[1..], ["t q2 #1 dup x"]);
    assert_eq!(rig.say(client, &pubrec(1)), ["pubrel 1"]);
}

/// [MQTT-3.3.5-1] [MQTT5-3.3.4-2] [MQTT5-3.3.4-3] [MQTT5-3.3.4-4]: one copy, with the highest QoS and all identifiers.
#[test]
fn overlapping_subscriptions_make_one_copy() {
    let mut rig = Rig::new();
    let (client, sender) = (rig.clean(V5, "c"), rig.clean(V5, "s"));
    rig.say(client, &subscribe_with(V5, 1, &[("ov/#", 1)], &props::identifier(1)));
    rig.say(client, &subscribe_with(V5, 2, &[("ov/+", 2)], &props::identifier(200)));
    rig.say(client, &subscribe(V5, 3, "ov/x", 0));
    rig.send(sender, &publish(V5, 2, 1, "ov/x", "V"));
    let heard = rig.heard(client);
    assert_eq!(heard.len(), 1);
    assert!(heard[0].starts_with("ov/x q2 #1 ") && heard[0].ends_with(" V"), "{heard:?}");
    assert!(heard[0].contains(" sub=1") && heard[0].contains(" sub=200"));
    rig.send(sender, &publish(V5, 1, 1, "ov/y/z", "W"));
    assert_eq!(rig.heard(client), ["ov/y/z q1 #2 sub=1 W"]);
    rig.say(client, &subscribe_with(V5, 4, &[("ov/#", 0)], &props::identifier(5)));
    rig.send(sender, &publish(V5, 1, 1, "ov/y/z", "W"));
    assert_eq!(rig.heard(client), ["ov/y/z q0 sub=5 W"], "[MQTT5-3.8.4-3]");
}

/// [MQTT5-3.8.3-3]; another subscription that matches wants it all the same.
#[test]
fn no_local_is_for_the_clients_own() {
    let mut rig = Rig::new();
    let (client, sender) = (rig.clean(V5, "c"), rig.clean(V5, "s"));
    rig.say(client, &subscribe(V5, 1, "a/#", 1 | NO_LOCAL));
    rig.say(client, &publish(V5, 1, 1, "a/b", "own"));
    assert!(rig.heard(client).is_empty());
    rig.send(sender, &publish(V5, 1, 1, "a/b", "other"));
    assert_eq!(rig.heard(client), ["a/b q1 #1 other"]);
    rig.say(client, &subscribe(V5, 2, "a/b", 0));
    let heard = rig.say(client, &publish(V5, 1, 1, "a/b", "own"));
    assert!(heard.len() == 2 && heard[0].ends_with(" own"), "{heard:?}");
    rig.say(client, &unsubscribe(V5, 3, &["a/b"]));
    assert_eq!(rig.say(client, &publish(V5, 1, 1, "a/b", "own")).len(), 1);
    rig.say(client, &subscribe(V5, 4, "a/#", 0));
    assert_eq!(rig.say(client, &publish(V5, 0, 0, "a/b", "own")), ["a/b q0 own"], "replaced");
}

/// [MQTT-4.7.2-1] [MQTT5-4.7.2-1] [MQTT-4.7.1-3] [MQTT-4.7.3-4] [MQTT-1.5.3-3]
#[test]
fn filters_match_as_they_should() {
    let mut rig = Rig::new();
    let sender = rig.clean(V311, "s");
    for (filter, topics, none) in [
        ("#", &["a", "a/b", "/", "/a"][..], &["$foo", "$foo/x"][..]),
        ("+/x", &["a/x", "/x"], &["$foo/x", "a/b/x"]),
        ("$foo/#", &["$foo", "$foo/x"], &["foo"]),
        ("a/#", &["a", "a/", "a/b/c"], &["ab", "A"]),
        ("a/+", &["a/", "a/b"], &["a", "a/b/c"]),
        ("a.b/*", &["a.b/*"], &["a/b/c", "a.b/c", "a/b"]),
        ("+/+", &["/", "a/b"], &["a"]),
        ("\u{feff}t", &["\u{feff}t"], &["t"]),
        ("e\u{301}", &["e\u{301}"], &["\u{e9}"]),
    ] {
        let client = rig.clean(V311, "c");
        rig.say(client, &subscribe(V311, 1, filter, 0));
        for topic in topics.iter().chain(none) {
            rig.send(sender, &publish(V311, 0, 0, topic, "x"));
        }
        let expected: Vec<String> = topics.iter().map(|topic| format!("{topic} q0 x")).collect();
        assert_eq!(rig.heard(client), expected, "{filter}");
    }
}

/// [MQTT5-3.3.1-12] [MQTT5-3.3.1-13] [MQTT-3.3.1-9]: exact bytes of the golden transcripts.
#[test]
fn retain_as_published() {
    let mut rig = Rig::new();
    let (client, sender) = (rig.clean(V5, "c"), rig.clean(V5, "s"));
    rig.send(sender, &retained(V5, 1, 1, "rap/t", "R"));
    rig.send(client, &subscribe(V5, 1, "rap/t", 1));
    assert_eq!(hex(&rig.raw_heard(client)), "900400010001".to_owned() + "330b00057261702f7400010052");
    rig.send(sender, &retained(V5, 1, 1, "rap/t", "R2"));
    assert_eq!(hex(&rig.raw_heard(client)), "320c00057261702f740002005232");
    rig.say(client, &subscribe(V5, 2, "rap/t", 1 | RAP));
    rig.send(sender, &retained(V5, 1, 1, "rap/t", "R3"));
    rig.send(sender, &publish(V5, 1, 1, "rap/t", "R4"));
    assert_eq!(rig.heard(client), ["rap/t q1 #4 retain R3", "rap/t q1 #5 R4"]);
}

/// Mosquitto and RabbitMQ have `$SYS` for everybody who may read it: a topic like others, but for who publishes there.
#[test]
fn sys_is_read_by_its_name_only() {
    let mut rig = Rig::new();
    let (client, all) = (rig.clean(V311, "c"), rig.clean(V311, "all"));
    assert_eq!(rig.say(client, &subscribe(V311, 1, "$SYS/#", 0)), ["suback 1 00"]);
    rig.say(all, &subscribe_with(V311, 1, &[("#", 0), ("+/broker/#", 0)], &[]));
    crate::crossing::publish(&rig, b"$SYS.broker.uptime", b"9 seconds", false);
    assert_eq!(rig.heard(client), ["$SYS/broker/uptime q0 9 seconds"]);
    assert!(rig.heard(all).is_empty());
}
