//! The specifications' statements about bytes, one by one: what each version's client is told when it breaks them.
#![allow(clippy::unwrap_used, clippy::expect_used)] // what is not as it should be is a failed test

use portolan_mqtt::codec::connect::{self, Refused};
use portolan_mqtt::codec::decode::{self, Packet, RetainHandling, SubscribeOptions};
use portolan_mqtt::codec::{MAX_PACKET, Qos, Version, split};
use portolan_mqtt::reason::Reason;

use Version::{V5, V31, V311};

/// A packet of fewer than 128 bytes.
fn packet(first: u8, parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    assert!(body.len() < 128);
    [&[first, body.len() as u8][..], &body].concat()
}

fn text(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text].concat()
}

/// The verdict on a packet after CONNECT: 0 if it is taken.
fn code(version: Version, bytes: &[u8]) -> u8 {
    let frame = split(bytes, MAX_PACKET).unwrap().unwrap();
    decode::decode(&frame, version).err().map_or(0, |malformed| malformed.reason.code())
}

#[track_caller]
fn taken(versions: &[Version], bytes: &[u8]) {
    for version in versions {
        assert_eq!(code(*version, bytes), 0, "{version:?} {bytes:x?}");
    }
}

#[track_caller]
fn refused(versions: &[Version], reason: u8, bytes: &[u8]) {
    for version in versions {
        assert_eq!(code(*version, bytes), reason, "{version:?} {bytes:x?}");
    }
}

/// CONNECT with these flags; what follows the keep alive is `rest`, in 5.0 behind empty properties.
fn connect(version: Version, flags: u8, rest: &[&[u8]]) -> Vec<u8> {
    let (name, level): (&[u8], u8) = match version {
        V31 => (b"MQIsdp", 3),
        V311 => (b"MQTT", 4),
        V5 => (b"MQTT", 5),
    };
    let properties: &[u8] = if version == V5 { &[0] } else { &[] };
    packet(0x10, &[&text(name), &[level, flags, 0, 60], properties, &rest.concat()])
}

fn connecting(bytes: &[u8]) -> Result<(), Refused> {
    connect::decode(&split(bytes, MAX_PACKET).unwrap().unwrap()).map(drop)
}

/// The verdict on a CONNECT: what it is refused with and whether that is said.
#[track_caller]
fn connect_refused(reason: u8, answer: Option<Version>, bytes: &[u8]) {
    let refused = connecting(bytes).expect_err("refused");
    assert_eq!((refused.malformed.reason.code(), refused.answer), (reason, answer), "{}", refused.malformed);
}

/// Refused in both versions: in 5.0 with a code, before in silence.
#[track_caller]
fn connect_malformed(flags: u8, rest: &[&[u8]]) {
    connect_refused(0x81, None, &connect(V311, flags, rest));
    let will: bool = flags & 4 != 0;
    // In 5.0 a Will has properties in front.
    let behind: Vec<&[u8]> = rest.iter().skip(1).copied().collect();
    let rest = if will { [&[rest[0], &[0]], &behind[..]].concat() } else { rest.to_vec() };
    connect_refused(0x81, Some(V5), &connect(V5, flags, &rest));
}

const ID: &[u8] = &[0, 1, b'c'];
const TOPIC: &[u8] = &[0, 1, b't'];

#[test]
fn mqtt_3_1_0_1_the_first_packet_is_connect() {
    connect_refused(0x82, None, &[0xc0, 0]);
    connect_refused(0x82, None, &packet(0x30, &[TOPIC]));
}

#[test]
fn mqtt_3_1_0_2_there_is_no_second_connect() {
    refused(&[V31, V311, V5], 0x82, &connect(V311, 2, &[ID]));
}

#[test]
fn mqtt_3_1_2_1_and_2_name_and_level_are_those_of_a_version() {
    for version in [V31, V311, V5] {
        assert_eq!(connecting(&connect(version, 2, &[ID])), Ok(()));
    }
    let levelled = |name: &[u8], level: u8| packet(0x10, &[&text(name), &[level, 2, 0, 60, 0], ID]);
    connect_refused(0x84, Some(V5), &levelled(b"MQTT", 6));
    connect_refused(0x84, Some(V5), &levelled(b"MQTT", 127));
    connect_refused(0x84, Some(V311), &levelled(b"MQTT", 3));
    connect_refused(0x84, Some(V31), &levelled(b"MQIsdp", 4));
    connect_refused(0x84, None, &levelled(b"mqtt", 4));
    connect_refused(0x84, None, &levelled(b"", 4));
    connect_refused(0x81, None, &packet(0x10, &[b"\0\x04MQ"]));
    connect_refused(0x81, None, &packet(0x10, &[b"\0\x04MQTT"]));
}

#[test]
fn bridges_set_the_top_bit_of_the_level() {
    for (name, level, version) in [(&b"MQTT"[..], 0x84, V311), (b"MQIsdp", 0x83, V31), (b"MQTT", 0x85, V5)] {
        let properties: &[u8] = if version == V5 { &[0] } else { &[] };
        let bytes = packet(0x10, &[&text(name), &[level, 2, 0, 60], properties, ID]);
        let found = connect::decode(&split(&bytes, MAX_PACKET).unwrap().unwrap()).unwrap();
        assert_eq!((found.version, found.bridge), (version, true));
    }
}

#[test]
fn mqtt_3_1_2_3_the_reserved_flag_is_0() {
    connect_malformed(3, &[ID]);
    assert_eq!(connecting(&connect(V31, 3, &[ID])), Ok(()), "not used in 3.1");
}

#[test]
fn mqtt_3_1_2_9_a_will_has_topic_and_payload() {
    connect_malformed(6, &[ID]);
    connect_malformed(6, &[ID, TOPIC]);
    assert_eq!(connecting(&connect(V311, 6, &[ID, TOPIC, &[0, 0]])), Ok(()));
    assert_eq!(connecting(&connect(V5, 6, &[ID, &[0], TOPIC, &[0, 0]])), Ok(()));
}

#[test]
fn mqtt_3_1_2_11_13_15_without_a_will_its_qos_and_retain_are_0() {
    for flags in [0x0a, 0x12, 0x22] {
        connect_malformed(flags, &[ID]);
        assert_eq!(connecting(&connect(V31, flags, &[ID])), Ok(()), "not used in 3.1");
    }
}

#[test]
fn mqtt_3_1_2_14_will_qos_is_not_3() {
    connect_malformed(0x1e, &[ID, TOPIC, &[0, 0]]);
}

#[test]
fn mqtt_3_1_2_18_to_21_flags_say_which_fields_follow() {
    connect_malformed(0x82, &[ID]); // a name is promised
    connect_malformed(0x02, &[ID, TOPIC]); // none is
    connect_malformed(0xc2, &[ID, TOPIC]); // a password is promised
    connect_malformed(0x82, &[ID, TOPIC, TOPIC]); // none is
    for version in [V31, V311, V5] {
        assert_eq!(connecting(&connect(version, 0xc2, &[ID, TOPIC, TOPIC])), Ok(()));
    }
}

#[test]
fn in_3_1_the_length_decides_whether_name_and_password_follow() {
    assert_eq!(connecting(&connect(V31, 0xc2, &[ID])), Ok(()));
    assert_eq!(connecting(&connect(V31, 0xc2, &[ID, TOPIC])), Ok(()));
    connect_refused(0x81, None, &connect(V31, 0xc2, &[ID, &[0]]));
}

#[test]
fn mqtt_3_1_2_22_a_password_needs_a_name_before_5() {
    for version in [V31, V311] {
        connect_refused(0x81, None, &connect(version, 0x42, &[ID, TOPIC]));
    }
    assert_eq!(connecting(&connect(V5, 0x42, &[ID, TOPIC])), Ok(()));
}

#[test]
fn mqtt_3_1_3_4_10_11_texts_are_utf_8() {
    for bad in [&b"\xff"[..], b"\0", b"\xed\xa0\x80", b"\xc0\x80"] {
        let bad = text(bad);
        connect_malformed(2, &[&bad]);
        connect_malformed(6, &[ID, &bad, &[0, 0]]);
        connect_malformed(0x82, &[ID, &bad]);
    }
    // MQTT-1.5.3-3: U+FEFF is an ordinary character.
    assert_eq!(connecting(&connect(V311, 2, &[&text(b"\xef\xbb\xbfc")])), Ok(()));
}

#[test]
fn mqtt_3_1_3_8_no_identifier_no_session() {
    connect_refused(0x85, Some(V311), &connect(V311, 0, &[&[0, 0]]));
    assert_eq!(connecting(&connect(V311, 2, &[&[0, 0]])), Ok(()));
    assert_eq!(connecting(&connect(V5, 0, &[&[0, 0]])), Ok(()));
    connect_refused(0x85, Some(V31), &connect(V31, 2, &[&[0, 0]]));
}

#[test]
fn a_will_topic_is_a_topic_name() {
    for (topic, reason) in [(&b""[..], 0x90), (b"a/+", 0x90), (b"#", 0x90)] {
        connect_refused(reason, Some(V5), &connect(V5, 6, &[ID, &[0], &text(topic), &[0, 0]]));
        connect_refused(reason, None, &connect(V311, 6, &[ID, &text(topic), &[0, 0]]));
    }
}

#[test]
fn mqtt_2_2_2_2_flags_are_those_of_the_type() {
    let ack = [0, 9];
    let subscribe = [&[0, 3][..], TOPIC, &[0]].concat();
    let unsubscribe = [&[0, 3][..], TOPIC].concat();
    for (first, body) in [
        (0x40, &ack[..]),
        (0x50, &ack),
        (0x62, &ack),
        (0x70, &ack),
        (0x82, &subscribe),
        (0xa2, &unsubscribe),
        (0xc0, &[]),
    ] {
        for flags in 0..16 {
            let bytes = packet(first & 0xf0 | flags, &[body]);
            match flags == first & 15 {
                true => taken(&[V31, V311], &bytes),
                false => refused(&[V311, V5], 0x81, &bytes),
            }
            taken(&[V31], &bytes);
        }
    }
    for flags in 1..16 {
        refused(&[V311, V5], 0x81, &[0xe0 | flags, 0]); // MQTT-3.14.1-1
        refused(&[V5], 0x81, &[0xf0 | flags, 0]); // MQTT5-3.15.1-1
        let mut bytes = connect(V5, 2, &[ID]);
        bytes[0] |= flags;
        connect_refused(0x81, Some(V5), &bytes);
    }
}

#[test]
fn packets_of_servers_and_packets_that_are_not() {
    for first in [0x20, 0x90, 0xb0, 0xd0] {
        refused(&[V31, V311, V5], 0x82, &[first, 0]);
    }
    refused(&[V31, V311, V5], 0x81, &[0, 0]);
    refused(&[V31, V311], 0x81, &[0xf0, 0]);
}

#[test]
fn mqtt5_1_5_5_1_the_remaining_length_is_in_its_shortest_form() {
    refused(&[V5], 0x81, &[0xc0, 0x80, 0]);
    refused(&[V5], 0x81, &[0x30, 0x84, 0, 0, 1, b't', 0]);
    taken(&[V31, V311], &[0xc0, 0x80, 0]);
    taken(&[V31, V311], &[0x30, 0x84, 0, 0, 1, b't', 0]);
}

#[test]
fn mqtt_2_3_1_1_packet_identifiers_are_not_0() {
    for first in [0x40, 0x50, 0x62, 0x70] {
        refused(&[V31, V311, V5], 0x82, &packet(first, &[&[0, 0]]));
        refused(&[V31, V311, V5], 0x81, &packet(first, &[&[0]]));
    }
    refused(&[V31, V311], 0x82, &packet(0x82, &[&[0, 0], TOPIC, &[0]]));
    refused(&[V5], 0x82, &packet(0x82, &[&[0, 0, 0], TOPIC, &[0]]));
    refused(&[V31, V311], 0x82, &packet(0xa2, &[&[0, 0], TOPIC]));
    refused(&[V31, V311, V5], 0x82, &packet(0x32, &[TOPIC, &[0, 0, 0]]));
    refused(&[V31, V311, V5], 0x82, &packet(0x34, &[TOPIC, &[0, 0, 0]]));
    taken(&[V31, V311, V5], &packet(0x30, &[TOPIC, &[0, 0, 0]])); // MQTT-2.3.1-5: payload, or no properties
}

#[test]
fn mqtt_3_3_1_2_no_dup_with_qos_0() {
    refused(&[V311, V5], 0x81, &packet(0x38, &[TOPIC, &[0]]));
    taken(&[V31], &packet(0x38, &[TOPIC, &[0]]));
    taken(&[V31, V311, V5], &packet(0x3a, &[TOPIC, &[0, 1, 0]]));
}

#[test]
fn mqtt_3_3_1_4_no_qos_3() {
    refused(&[V31, V311, V5], 0x81, &packet(0x36, &[TOPIC, &[0, 1, 0]]));
}

#[test]
fn mqtt_3_3_2_1_topics_are_utf_8() {
    for bad in [&b"\xff"[..], b"\0", b"a\0b", b"long enough\0", b"\xed\xa0\x80", b"a/+\0", b"a/#/\xff"] {
        refused(&[V31, V311, V5], 0x81, &packet(0x30, &[&text(bad), &[0]]));
    }
    refused(&[V31, V311, V5], 0x81, &packet(0x30, &[&[0, 9, b'a']]));
    refused(&[V31, V311, V5], 0x81, &packet(0x30, &[&[0]]));
    for good in ["/", "//", " ", "ü/€/😀", "\u{feff}", "$SYS/x", "\u{7f}\u{1}", "*.*"] {
        taken(&[V31, V311, V5], &packet(0x30, &[&text(good.as_bytes()), &[0]]));
    }
}

#[test]
fn mqtt_3_3_2_2_no_wildcards_in_topics() {
    for bad in ["+", "#", "a/+/b", "a/#", "a+", "#b", "a topic that is longer than/+"] {
        refused(&[V31, V311, V5], 0x90, &packet(0x30, &[&text(bad.as_bytes()), &[0]]));
    }
}

#[test]
fn mqtt_4_7_3_1_topics_are_not_empty_without_an_alias() {
    refused(&[V31, V311, V5], 0x82, &packet(0x30, &[&[0, 0, 0]]));
    taken(&[V5], &packet(0x30, &[&[0, 0, 3, 0x23, 0, 1]]));
    // The block of properties is payload before 5.0.
    refused(&[V31, V311], 0x82, &packet(0x30, &[&[0, 0, 3, 0x23, 0, 1]]));
}

#[test]
fn mqtt5_3_3_2_4_the_payload_can_be_held_against_its_indicator() {
    let declared = |payload: &[u8]| packet(0x30, &[TOPIC, &[2, 1, 1], payload]);
    for (payload, right) in [(&b"ok"[..], true), (b"\0", true), (b"\xff", false), (b"", true)] {
        let bytes = declared(payload);
        let publish = decode::publish(&split(&bytes, MAX_PACKET).unwrap().unwrap(), V5).unwrap();
        assert!(publish.text);
        assert_eq!(publish.payload_is_as_declared(), right, "{payload:x?}");
    }
}

#[test]
fn mqtt5_3_4_2_1_acknowledgements_have_their_own_reasons() {
    for reason in Reason::ALL {
        let code = reason.code();
        let publish = matches!(code, 0 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99);
        let release = matches!(code, 0 | 0x92);
        for (first, listed) in [(0x40, publish), (0x50, publish), (0x62, release), (0x70, release)] {
            for rest in [&[][..], &[0], &[4, 0x1f, 0, 1, b'r']] {
                let bytes = packet(first, &[&[0, 9, code], rest]);
                refused(&[V5], if listed { 0 } else { 0x82 }, &bytes);
                refused(&[V31, V311], 0x81, &bytes);
            }
        }
    }
    refused(&[V5], 0x82, &packet(0x40, &[&[0, 9, 0x55]]));
    refused(&[V5], 0x81, &packet(0x40, &[&[0, 9, 0, 0, 0]])); // bytes behind the properties
    refused(&[V5], 0x81, &packet(0x40, &[&[0, 9, 0, 1]]));
}

#[test]
fn mqtt_3_8_3_3_and_3_10_3_2_at_least_one_filter() {
    refused(&[V31, V311], 0x82, &packet(0x82, &[&[0, 3]]));
    refused(&[V5], 0x82, &packet(0x82, &[&[0, 3, 0]]));
    refused(&[V31, V311], 0x82, &packet(0xa2, &[&[0, 3]]));
    refused(&[V5], 0x82, &packet(0xa2, &[&[0, 3, 0]]));
}

#[test]
fn mqtt_3_8_3_4_options_before_5_are_a_qos() {
    for options in 0..=u8::MAX {
        let bytes = packet(0x82, &[&[0, 3], TOPIC, &[options]]);
        refused(&[V31, V311], if options < 3 { 0 } else { 0x81 }, &bytes);
    }
}

#[test]
fn mqtt5_3_8_3_5_options_in_5() {
    for options in 0..=u8::MAX {
        let bytes = packet(0x82, &[&[0, 3, 0], TOPIC, &[options]]);
        let expected = match options {
            0x40.. => 0x81,
            _ if options & 3 == 3 => 0x81,
            0x30.. => 0x82,
            _ => 0,
        };
        refused(&[V5], expected, &bytes);
    }
}

#[test]
fn subscriptions_come_in_their_order() {
    let filters = [&text(b"a/#")[..], &[0x2e], &text(b"$share/g/+"), &[0x11], TOPIC, &[0x08]].concat();
    let bytes = packet(0x82, &[&[0, 3, 3, 0x0b, 0x80, 1], &filters]);
    let frame = split(&bytes, MAX_PACKET).unwrap().unwrap();
    let Packet::Subscribe(subscribe) = decode::decode(&frame, V5).unwrap() else { panic!("SUBSCRIBE") };
    assert_eq!((subscribe.packet_id, subscribe.identifier, subscribe.count), (3, Some(128), 3));
    let found: Vec<_> = subscribe.filters.collect();
    let option = |qos, no_local, retain_as_published, retain_handling| SubscribeOptions {
        qos,
        no_local,
        retain_as_published,
        retain_handling,
    };
    let expected = [
        ("a/#", option(Qos::ExactlyOnce, true, true, RetainHandling::Never)),
        ("$share/g/+", option(Qos::AtLeastOnce, false, false, RetainHandling::IfNew)),
        ("t", option(Qos::AtMostOnce, false, true, RetainHandling::Always)),
    ];
    assert_eq!(found, expected);

    let bytes = packet(0xa2, &[&[0, 4], TOPIC, &text(b"#")]);
    let frame = split(&bytes, MAX_PACKET).unwrap().unwrap();
    let Packet::Unsubscribe(unsubscribe) = decode::decode(&frame, V311).unwrap() else { panic!("UNSUBSCRIBE") };
    assert_eq!((unsubscribe.packet_id, unsubscribe.count), (4, 2));
    assert_eq!(unsubscribe.filters.collect::<Vec<_>>(), ["t", "#"]);
}

#[test]
fn mqtt_4_7_1_2_and_3_filters_have_their_form() {
    for (filter, reason) in [
        (&b"a#"[..], 0x8f),
        (b"#/a", 0x8f),
        (b"a+/b", 0x8f),
        (b"+a", 0x8f),
        (b"", 0x81),     // MQTT-4.7.3-1
        (b"a\0", 0x81),  // MQTT-4.7.3-2
        (b"\xff", 0x81), // MQTT-3.8.3-1, MQTT-3.10.3-1
        (b"$share/g", 0),
        (b"$share//t", 0), // an entry of SUBACK refuses it
    ] {
        let filter = text(filter);
        refused(&[V31, V311], reason, &packet(0x82, &[&[0, 3], &filter, &[0]]));
        refused(&[V5], reason, &packet(0x82, &[&[0, 3, 0], &filter, &[0]]));
        refused(&[V31, V311], reason, &packet(0xa2, &[&[0, 3], &filter]));
        refused(&[V5], reason, &packet(0xa2, &[&[0, 3, 0], &filter]));
    }
}

#[test]
fn mqtt5_3_8_3_4_no_local_is_not_for_shared_subscriptions() {
    for filter in ["$share/g/t", "$queue/t"] {
        refused(&[V5], 0x82, &packet(0x82, &[&[0, 3, 0], &text(filter.as_bytes()), &[4]]));
        taken(&[V5], &packet(0x82, &[&[0, 3, 0], &text(filter.as_bytes()), &[0x28]]));
    }
    taken(&[V5], &packet(0x82, &[&[0, 3, 0], &text(b"$shared/t"), &[4]]));
}

#[test]
fn packets_without_a_body_have_none() {
    taken(&[V31, V311, V5], &[0xc0, 0]);
    refused(&[V31, V311, V5], 0x81, &[0xc0, 1, 0]);
    taken(&[V31, V311, V5], &[0xe0, 0]);
    refused(&[V31, V311], 0x81, &[0xe0, 1, 0]);
}

#[test]
fn mqtt5_3_14_2_1_a_client_disconnects_with_its_own_reasons() {
    for reason in Reason::ALL {
        let code = reason.code();
        let listed = matches!(code, 0 | 0x04 | 0x80..=0x83 | 0x90 | 0x93..=0x99);
        for rest in [&[][..], &[0], &[5, 0x11, 0, 0, 0, 9], &[4, 0x1f, 0, 1, b'r']] {
            refused(&[V5], if listed { 0 } else { 0x82 }, &packet(0xe0, &[&[code], rest]));
        }
    }
    // Server Reference is the server's, and nothing follows the properties.
    refused(&[V5], 0x82, &packet(0xe0, &[&[0, 4, 0x1c, 0, 1, b's']]));
    refused(&[V5], 0x81, &packet(0xe0, &[&[0, 0, 0]]));
}

#[test]
fn mqtt5_3_15_2_1_auth_continues_or_starts_again() {
    let method = [4, 0x15, 0, 1, b'm'];
    for reason in Reason::ALL {
        let listed = matches!(reason, Reason::ContinueAuthentication | Reason::ReAuthenticate);
        refused(&[V5], if listed { 0 } else { 0x82 }, &packet(0xf0, &[&[reason.code()], &method]));
    }
    refused(&[V5], 0x82, &[0xf0, 0]); // Success is the server's
    refused(&[V5], 0x82, &[0xf0, 1, 0x18]); // no method
    refused(&[V5], 0x82, &packet(0xf0, &[&[0x18, 0]]));
    refused(&[V5], 0x81, &packet(0xf0, &[&[0x18], &method, &[0]]));
}

#[test]
fn every_refusal_says_what_to_change() {
    let texts = [
        connecting(&[0xc0, 0]).unwrap_err().malformed.text,
        connecting(&connect(V311, 0, &[&[0, 0]])).unwrap_err().malformed.text,
        decode::decode(&split(&[0xc1, 0], 9).unwrap().unwrap(), V311).unwrap_err().text,
    ];
    assert!(texts.iter().all(|text| text.len() > 20 && text.len() < 100), "{texts:?}");
}
