//! Any packet through encoder and decoder, any bytes through the decoder, and what the encoder leaves out for whom.
#![allow(clippy::unwrap_used, clippy::expect_used)] // what is not as it should be is a failed test

use portolan_mqtt::codec::decode::{self, Packet};
use portolan_mqtt::codec::encode::{self, Connack, Delivery, Explanation, Peer};
use portolan_mqtt::codec::property::{self, Id, Value};
use portolan_mqtt::codec::{AckKind, MAX_PACKET, Qos, Version, connect, split};
use portolan_mqtt::reason::Reason;
use proptest::prelude::*;

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];
const KINDS: [AckKind; 4] = [AckKind::Puback, AckKind::Pubrec, AckKind::Pubrel, AckKind::Pubcomp];

fn qos() -> impl Strategy<Value = Qos> {
    prop::sample::select(vec![Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce])
}

/// What travels with a message.
fn travelling() -> impl Strategy<Value = Vec<u8>> {
    let pairs = prop::collection::vec(("[a-zä]{0,5}", "[a-zä]{0,5}"), 0..4);
    (any::<Option<bool>>(), prop::option::of("[a-z/]{1,9}"), prop::option::of("[ -~]{0,9}"), pairs).prop_map(
        |(format, response, content, pairs)| {
            let mut block = Vec::new();
            if let Some(text) = format {
                encode::put_property(&mut block, Id::PayloadFormatIndicator, Value::Byte(text.into()));
            }
            if let Some(topic) = response {
                encode::put_property(&mut block, Id::ResponseTopic, Value::Text(&topic));
            }
            if let Some(content) = content {
                encode::put_property(&mut block, Id::ContentType, Value::Text(&content));
            }
            for (name, text) in pairs {
                encode::put_property(&mut block, Id::UserProperty, Value::Pair(&name, &text));
            }
            block
        },
    )
}

proptest! {
    #[test]
    fn a_delivery_comes_back(
        version in prop::sample::select(&VERSIONS),
        (qos, dup, retain, packet_id) in (qos(), any::<bool>(), any::<bool>(), 1u16..),
        topic in "[a-z/.*ü$]{1,40}",
        properties in travelling(),
        (alias, expiry) in (prop::option::of(1u16..), any::<Option<u32>>()),
        payload in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let delivery = Delivery {
            dup, qos, retain, packet_id, topic: &topic, properties: &properties, alias, expiry, identifiers: &[], payload: &payload,
        };
        let mut out = Vec::new();
        prop_assert!(encode::publish(&mut out, version, &delivery));
        prop_assert_eq!(delivery.size(version), Some(out.len()));
        let found = decode::publish(&split(&out, MAX_PACKET).unwrap().unwrap(), version).unwrap();
        prop_assert_eq!((found.topic, found.payload, found.qos, found.retain), (&topic[..], &payload[..], qos, retain));
        prop_assert_eq!(found.dup, dup && qos != Qos::AtMostOnce);
        prop_assert_eq!(found.packet_id, if qos == Qos::AtMostOnce { 0 } else { packet_id });
        if version == Version::V5 {
            prop_assert_eq!((found.alias, found.expiry), (alias, expiry));
            prop_assert_eq!(&*property::travelling(found.properties), &properties[..]);
        } else {
            prop_assert_eq!((found.alias, found.expiry, found.properties), (None, None, &[][..]));
        }
    }

    #[test]
    fn an_acknowledgement_comes_back_and_is_never_too_large(
        version in prop::sample::select(&VERSIONS),
        kind in prop::sample::select(&KINDS),
        packet_id in 1u16..,
        good: bool,
        (reason_string, pairs) in (prop::option::of("[a-z]{0,20}"), prop::collection::vec(("[a-z]{0,9}", "[a-z]{0,9}"), 0..3)),
        (max_packet, problem_information) in (0u32..60, any::<bool>()),
    ) {
        let reason = match kind {
            _ if good => Reason::Success,
            AckKind::Puback | AckKind::Pubrec => Reason::QuotaExceeded,
            AckKind::Pubrel | AckKind::Pubcomp => Reason::PacketIdentifierNotFound,
        };
        let pairs: Vec<_> = pairs.iter().map(|(name, text)| (&name[..], &text[..])).collect();
        let explanation = Explanation { reason_string: reason_string.as_deref(), user_properties: &pairs };
        let peer = Peer { version, max_packet, problem_information };
        let mut out = Vec::new();
        let written = encode::ack(&mut out, peer, kind, packet_id, reason, explanation);
        prop_assert!(out.len() <= max_packet as usize);
        prop_assert_eq!(written, !out.is_empty());
        if !written {
            prop_assert!(max_packet < 5, "the shortest forms fit");
            return Ok(());
        }
        let frame = split(&out, MAX_PACKET).unwrap().unwrap();
        prop_assert_eq!(frame.size, out.len());
        let Ok(Packet::Ack(ack)) = decode::decode(&frame, version) else { panic!("an acknowledgement") };
        let expected = if version == Version::V5 { reason } else { Reason::Success };
        prop_assert_eq!((ack.kind, ack.packet_id, ack.reason), (kind, packet_id, expected));
        if !problem_information || version != Version::V5 {
            prop_assert!(ack.properties.is_empty());
        }
    }

    #[test]
    fn no_bytes_make_it_panic(first: u8, body in prop::collection::vec(any::<u8>(), 0..127)) {
        let bytes = [&[first, body.len() as u8][..], &body].concat();
        let frame = split(&bytes, MAX_PACKET).unwrap().unwrap();
        let _ = connect::decode(&frame);
        for version in VERSIONS {
            let _ = decode::decode(&frame, version);
        }
    }

    /// Right packets with a few bytes changed get further than any bytes do.
    #[test]
    fn no_change_makes_it_panic(
        at in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let packets: Vec<&str> = include_str!("packets.txt").lines().filter(|line| !line.starts_with('#')).collect();
        let hex = at.get(&packets).split_whitespace().nth(3).unwrap();
        let mut bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        for (place, byte) in changes {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if let Ok(Some(frame)) = split(&bytes, MAX_PACKET) {
            let _ = connect::decode(&frame);
            for version in VERSIONS {
                let _ = decode::decode(&frame, version);
            }
        }
    }
}

const PAIRS: &[(&str, &str)] = &[("key", "value")];
const EXPLANATION: Explanation<'_> = Explanation { reason_string: Some("reason"), user_properties: PAIRS };

/// The properties of what `write` writes, whose body has `head` bytes in front of them.
fn written(peer: Peer, head: usize, write: impl FnOnce(&mut Vec<u8>, Peer) -> bool) -> Option<Vec<Id>> {
    let mut out = Vec::new();
    if !write(&mut out, peer) {
        assert!(out.is_empty());
        return None;
    }
    assert!(out.len() <= peer.max_packet as usize);
    let body = split(&out, MAX_PACKET).unwrap().unwrap().body;
    let Some((block, rest)) = body.get(head..).and_then(|rest| rest.split_first()) else { return Some(Vec::new()) };
    Some(property::items(&rest[..usize::from(*block)]).map(|(id, _)| id).collect())
}

/// A packet as it is written to a client.
type Write = fn(&mut Vec<u8>, Peer) -> bool;

#[test]
fn explanations_go_where_they_do_not_fit() {
    // MQTT5-3.2.2-19, -20, 3.9.2-1, -2, 3.11.2-1, -2, 3.14.2-3, -4, 3.15.2-2, -3
    let connack: Write = |out, peer| {
        encode::connack(out, peer, &Connack { explanation: EXPLANATION, ..Connack::new(Reason::NotAuthorized) })
    };
    let suback: Write = |out, peer| encode::suback(out, peer, 1, &[Reason::Success], EXPLANATION);
    let unsuback: Write = |out, peer| encode::unsuback(out, peer, 1, &[Reason::Success], EXPLANATION);
    let disconnect: Write = |out, peer| encode::disconnect(out, peer, Reason::ServerBusy, None, EXPLANATION);
    // What stays, the reason string, the user property and their identifiers.
    for (write, head, bare) in [(connack, 2, 5), (suback, 2, 6), (unsuback, 2, 6), (disconnect, 1, 4)] {
        let limited = |max_packet| written(Peer { max_packet, ..Peer::new(Version::V5) }, head, write);
        let (text, pair) = (9, 13);
        assert_eq!(limited(bare + text + pair), Some(vec![Id::ReasonString, Id::UserProperty]));
        assert_eq!(limited(bare + text + pair - 1), Some(vec![Id::ReasonString]));
        assert_eq!(limited(bare + text), Some(vec![Id::ReasonString]));
        if head == 2 {
            assert_eq!(limited(bare + text - 1), Some(vec![]));
            assert_eq!(limited(bare), Some(vec![]));
            assert_eq!(limited(bare - 1), None, "MQTT5-3.1.2-24: it is not sent");
        }
    }
}

#[test]
fn mqtt5_3_1_2_29_problem_information_only_where_it_is_wanted() {
    let peer = Peer { problem_information: false, ..Peer::new(Version::V5) };
    let both = Some(vec![Id::ReasonString, Id::UserProperty]);
    let connack = Connack { explanation: EXPLANATION, ..Connack::new(Reason::NotAuthorized) };
    assert_eq!(written(peer, 2, |out, peer| encode::connack(out, peer, &connack)), both);
    let disconnect: Write = |out, peer| encode::disconnect(out, peer, Reason::ServerBusy, None, EXPLANATION);
    assert_eq!(written(peer, 1, disconnect), both);
    let suback: Write = |out, peer| encode::suback(out, peer, 1, &[Reason::Success], EXPLANATION);
    assert_eq!(written(peer, 2, suback), Some(vec![]));
    let auth: Write = |out, peer| encode::auth(out, peer, Reason::ContinueAuthentication, "m", None, EXPLANATION);
    assert_eq!(written(peer, 1, auth), Some(vec![Id::AuthenticationMethod]));
}

#[test]
fn before_5_a_server_has_few_words() {
    for version in [Version::V31, Version::V311] {
        let peer = Peer::new(version);
        let mut out = Vec::new();
        assert!(!encode::disconnect(&mut out, peer, Reason::ServerBusy, None, EXPLANATION));
        assert!(!encode::auth(&mut out, peer, Reason::ContinueAuthentication, "m", None, EXPLANATION));
        assert!(!encode::connack(&mut out, peer, &Connack::new(Reason::MalformedPacket)), "MQTT-3.2.2-6");
        assert!(out.is_empty());
        let refusal = Connack { session_present: true, ..Connack::new(Reason::BadUserNameOrPassword) };
        assert!(encode::connack(&mut out, peer, &refusal));
        assert_eq!(out, [0x20, 2, 0, 4], "MQTT-3.2.2-4");
    }
    let resumed = Connack { session_present: true, ..Connack::new(Reason::Success) };
    for (version, flags) in [(Version::V31, 0), (Version::V311, 1)] {
        let mut out = Vec::new();
        assert!(encode::connack(&mut out, Peer::new(version), &resumed));
        assert_eq!(out, [0x20, 2, flags, 0]);
    }
}

#[test]
fn mqtt5_3_2_2_6_a_refusal_has_no_session() {
    let refusal = Connack { session_present: true, ..Connack::new(Reason::Banned) };
    let mut out = Vec::new();
    assert!(encode::connack(&mut out, Peer::new(Version::V5), &refusal));
    assert_eq!(out, [0x20, 3, 0, 0x8a, 0]);
}

#[test]
fn a_server_says_where_to_go() {
    let mut out = Vec::new();
    let go = |out: &mut Vec<u8>, max_packet| {
        let peer = Peer { max_packet, ..Peer::new(Version::V5) };
        encode::disconnect(out, peer, Reason::UseAnotherServer, Some("s"), Explanation::NONE)
    };
    assert!(go(&mut out, 100));
    assert_eq!(out, [0xe0, 6, 0x9c, 4, 0x1c, 0, 1, b's']);
    out.clear();
    assert!(go(&mut out, 7));
    assert_eq!(out, [0xe0, 1, 0x9c], "the code alone, where the client takes no more");
}

#[test]
fn what_no_packet_can_hold_is_not_written() {
    let topic = "t".repeat(65_536);
    let delivery = Delivery {
        dup: false,
        qos: Qos::AtMostOnce,
        retain: false,
        packet_id: 0,
        topic: &topic,
        properties: &[],
        alias: None,
        expiry: None,
        identifiers: &[],
        payload: &[],
    };
    let mut out = Vec::new();
    assert!(!encode::publish(&mut out, Version::V311, &delivery));
    assert_eq!(delivery.size(Version::V5), None);
    assert!(!encode::put_property(&mut out, Id::ReasonString, Value::Text(&topic)));
    assert!(out.is_empty());
    // MQTT-4.7.3-3
    let longest = Delivery { topic: &topic[1..], ..delivery };
    assert!(encode::publish(&mut out, Version::V311, &longest));
    let found = decode::publish(&split(&out, MAX_PACKET).unwrap().unwrap(), Version::V311).unwrap();
    assert_eq!(found.topic.len(), 65_535);
}
