//! A table of packets, right and wrong ones, against the decoder, and what servers send against the encoder.
#![allow(clippy::unwrap_used, clippy::expect_used)] // what is not as it should be is a failed test

use portolan_mqtt::codec::connect::{self, Connect};
use portolan_mqtt::codec::decode::{self, Packet};
use portolan_mqtt::codec::encode::{self, Connack, Delivery, Explanation, Peer};
use portolan_mqtt::codec::property::{self, Id, Value};
use portolan_mqtt::codec::{AckKind, MAX_PACKET, Qos, Version, split};
use portolan_mqtt::reason::Reason;

/// One line of the table.
struct Case {
    from_client: bool,
    version: Version,
    /// The code that it is refused with.
    refused: Option<u8>,
    bytes: Vec<u8>,
    about: &'static str,
}

fn cases() -> Vec<Case> {
    include_str!("packets.txt").lines().filter(|line| !line.starts_with('#')).map(case).collect()
}

fn case(line: &'static str) -> Case {
    let mut rest = line;
    let mut field = || {
        let (field, after) = rest.split_once(' ').unwrap();
        rest = after.trim_start();
        field
    };
    let (sender, version, verdict, bytes) = (field(), field(), field(), field());
    Case {
        from_client: sender == "client",
        version: match version {
            "3.1" => Version::V31,
            "3.1.1" => Version::V311,
            "5" => Version::V5,
            other => panic!("no version {other}"),
        },
        refused: (verdict != "ok").then(|| u8::from_str_radix(verdict, 16).unwrap()),
        bytes: hex(bytes),
        about: rest,
    }
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// The reason for which a client's packet is refused.
fn refusal(version: Version, bytes: &[u8]) -> Option<u8> {
    let frame = match split(bytes, MAX_PACKET) {
        Ok(frame) => frame.expect("the whole packet"),
        Err(malformed) => return Some(malformed.reason.code()),
    };
    assert_eq!(frame.size, bytes.len());
    if frame.is_connect() {
        return match connect::decode(&frame) {
            Ok(connect) => {
                assert_eq!(connect.version, version);
                None
            }
            Err(refused) => Some(refused.malformed.reason.code()),
        };
    }
    match decode::decode(&frame, version) {
        Ok(Packet::Publish(publish)) if !publish.payload_is_as_declared() => Some(Reason::PayloadFormatInvalid.code()),
        Ok(_) => None,
        Err(malformed) => Some(malformed.reason.code()),
    }
}

#[test]
fn what_clients_send_is_taken_or_refused_with_the_right_code() {
    let cases = cases();
    assert_eq!(cases.len(), 119);
    for case in cases.iter().filter(|case| case.from_client) {
        assert_eq!(refusal(case.version, &case.bytes), case.refused, "{}", case.about);
    }
}

#[test]
fn every_prefix_of_a_good_packet_waits_and_every_shorter_one_is_refused_or_another() {
    for case in cases().iter().filter(|case| case.refused.is_none()) {
        for cut in 0..case.bytes.len() {
            assert_eq!(split(&case.bytes[..cut], MAX_PACKET), Ok(None), "{}", case.about);
        }
        // The same with a remaining length that says so: a packet, or an answer, never a panic.
        let frame = split(&case.bytes, MAX_PACKET).unwrap().unwrap();
        for cut in 0..frame.body.len().min(127) {
            let shorter = [&[frame.first, cut as u8], &frame.body[..cut]].concat();
            let _ = refusal(case.version, &shorter);
        }
    }
}

/// The bytes of the case.
fn bytes_of(version: Version, about: &str) -> Vec<u8> {
    let found = cases().into_iter().find(|case| case.version == version && case.about == about);
    found.unwrap_or_else(|| panic!("no {about}")).bytes
}

#[track_caller]
fn writes(version: Version, about: &str, write: impl FnOnce(&mut Vec<u8>, Peer) -> bool) {
    let mut out = Vec::new();
    assert!(write(&mut out, Peer::new(version)));
    assert_eq!(out, bytes_of(version, about), "{about}");
}

const EXPLAINED: Explanation<'_> = Explanation { reason_string: Some("r"), user_properties: &[("k", "v")] };

#[test]
fn servers_send_the_same_bytes_before_5() {
    let v311 = Version::V311;
    let connack = Connack { session_present: true, ..Connack::new(Reason::Success) };
    writes(v311, "CONNACK", |out, peer| encode::connack(out, peer, &connack));
    let reasons = [Reason::Success, Reason::GrantedQos1, Reason::GrantedQos2, Reason::NotAuthorized];
    writes(v311, "SUBACK", |out, peer| encode::suback(out, peer, 3, &reasons, EXPLAINED));
    writes(v311, "UNSUBACK", |out, peer| encode::unsuback(out, peer, 9, &reasons[..1], EXPLAINED));
    writes(v311, "PINGRESP", |out, _| {
        encode::pingresp(out);
        true
    });
    for (about, kind) in acks() {
        writes(v311, about, |out, peer| encode::ack(out, peer, kind, 9, Reason::NotAuthorized, EXPLAINED));
    }
}

fn acks() -> [(&'static str, AckKind); 4] {
    [
        ("PUBACK", AckKind::Puback),
        ("PUBREC", AckKind::Pubrec),
        ("PUBREL", AckKind::Pubrel),
        ("PUBCOMP", AckKind::Pubcomp),
    ]
}

#[test]
fn servers_send_the_same_bytes_in_5() {
    let v5 = Version::V5;
    let connack = Connack {
        session_present: true,
        session_expiry: Some(10),
        receive_maximum: Some(20),
        maximum_qos: Some(Qos::AtLeastOnce),
        retain_available: Some(false),
        maximum_packet_size: Some(1000),
        assigned_client_id: Some("assigned"),
        topic_alias_maximum: Some(9),
        wildcard_subscriptions: Some(false),
        subscription_identifiers: Some(false),
        shared_subscriptions: Some(false),
        server_keep_alive: Some(30),
        response_information: Some("ri"),
        server_reference: Some("sref"),
        authentication_method: Some("am"),
        authentication_data: Some(b"ad"),
        explanation: Explanation { reason_string: Some("reason"), user_properties: &[("k", "v")] },
        ..Connack::new(Reason::Success)
    };
    let mut out = Vec::new();
    assert!(encode::connack(&mut out, Peer::new(v5), &connack));
    same_but_for_the_order(&out, &bytes_of(v5, "CONNACK all props"), 2);

    let codes = |codes: &[u8]| codes.iter().map(|code| Reason::from_code(*code).unwrap()).collect::<Vec<_>>();
    let reasons = codes(&[0, 1, 2, 0x80, 0x83, 0x87, 0x8f, 0x91, 0x97, 0x9e, 0xa1, 0xa2]);
    writes(v5, "SUBACK all codes", |out, peer| encode::suback(out, peer, 3, &reasons, EXPLAINED));
    let reasons = codes(&[0, 0x11, 0x80, 0x83, 0x87, 0x8f, 0x91]);
    writes(v5, "UNSUBACK all codes", |out, peer| encode::unsuback(out, peer, 3, &reasons, EXPLAINED));
    writes(v5, "DISCONNECT empty", |out, peer| encode::disconnect(out, peer, Reason::Success, None, Explanation::NONE));
    writes(v5, "AUTH continue", |out, peer| {
        encode::auth(out, peer, Reason::ContinueAuthentication, "SCRAM", Some(&[1, 2]), EXPLAINED)
    });
}

#[test]
fn acknowledgements_are_as_short_as_what_they_say() {
    let long = Explanation { reason_string: Some("why"), user_properties: &[("k", "v")] };
    for (name, kind) in acks() {
        let qos = matches!(kind, AckKind::Puback | AckKind::Pubrec);
        writes(Version::V5, &format!("{name} short"), |out, peer| {
            encode::ack(out, peer, kind, 9, Reason::Success, Explanation::NONE)
        });
        let (plain, explained) = match (qos, kind) {
            (true, AckKind::Puback) => (Reason::NoMatchingSubscribers, Reason::NoMatchingSubscribers),
            (true, _) => (Reason::UnspecifiedError, Reason::QuotaExceeded),
            (false, _) => (Reason::PacketIdentifierNotFound, Reason::PacketIdentifierNotFound),
        };
        writes(Version::V5, &format!("{name} rc only"), |out, peer| {
            encode::ack(out, peer, kind, 9, plain, Explanation::NONE)
        });
        writes(Version::V5, &format!("{name} rc+props"), |out, peer| encode::ack(out, peer, kind, 9, explained, long));
    }
}

/// A packet whose properties may come in any order.
#[derive(Debug, PartialEq)]
struct Apart {
    first: u8,
    head: Vec<u8>,
    properties: Vec<(Id, String)>,
    tail: Vec<u8>,
}

/// Takes a packet apart that has `head` bytes in front of its properties.
fn apart(packet: &[u8], head: usize) -> Apart {
    let frame = split(packet, MAX_PACKET).unwrap().unwrap();
    let (head, rest) = frame.body.split_at(head);
    let block = usize::from(rest[0]);
    let (block, tail) = rest[1..].split_at(block);
    let mut items: Vec<_> = property::items(block).map(|(id, value)| (id, format!("{value:?}"))).collect();
    items.sort_by_key(|(id, _)| *id);
    Apart { first: frame.first, head: head.to_vec(), properties: items, tail: tail.to_vec() }
}

#[track_caller]
fn same_but_for_the_order(ours: &[u8], theirs: &[u8], head: usize) {
    assert_eq!(apart(ours, head), apart(theirs, head));
    assert_eq!(ours.len(), theirs.len());
}

#[test]
fn a_delivery_carries_everything() {
    let mut properties = Vec::new();
    for (id, value) in [
        (Id::PayloadFormatIndicator, Value::Byte(1)),
        (Id::ResponseTopic, Value::Text("resp")),
        (Id::CorrelationData, Value::Bytes(&[0, 0xff])),
        (Id::UserProperty, Value::Pair("k", "v")),
        (Id::UserProperty, Value::Pair("k", "w")),
        (Id::ContentType, Value::Text("ct")),
    ] {
        assert!(encode::put_property(&mut properties, id, value));
    }
    let delivery = Delivery {
        dup: true,
        qos: Qos::ExactlyOnce,
        retain: true,
        packet_id: 7,
        topic: "a/b",
        properties: &properties,
        alias: Some(3),
        expiry: Some(60),
        identifiers: &[1, 268_435_455],
        payload: b"payload",
    };
    let mut out = Vec::new();
    assert!(encode::publish(&mut out, Version::V5, &delivery));
    assert_eq!(delivery.size(Version::V5), Some(out.len()));
    let theirs = bytes_of(Version::V5, "PUBLISH all props");
    assert_eq!(apart(&theirs, 7).properties.len(), 10, "nothing is lost in the comparison");
    same_but_for_the_order(&out, &theirs, 7);
}

fn connect(version: Version, about: &str) -> Connect<'static> {
    let bytes = bytes_of(version, about).leak();
    connect::decode(&split(bytes, MAX_PACKET).unwrap().unwrap()).unwrap()
}

#[test]
fn a_connect_of_5_tells_everything() {
    let found = connect(Version::V5, "CONNECT all props + will props");
    assert_eq!((found.client_id, found.user_name, found.password), ("cid", Some("u"), Some(&[0xff, 0][..])));
    assert!(found.clean_start && !found.bridge);
    assert_eq!(found.keep_alive, 60);
    let will = found.will.unwrap();
    assert_eq!((will.topic, will.payload, will.qos, will.retain), ("w/t", &b"wm"[..], Qos::AtLeastOnce, true));
    assert_eq!((will.delay, will.expiry, will.text), (5, Some(60), true));
    assert_eq!(property::user_properties(will.properties).collect::<Vec<_>>(), [("a", "b")]);
    assert!(will.payload_is_as_declared());
    let properties = found.properties;
    assert_eq!((properties.session_expiry, properties.receive_maximum), (3600, 10));
    assert_eq!((properties.maximum_packet_size, properties.topic_alias_maximum), (Some(65_536), 5));
    assert!(properties.request_response_information && !properties.request_problem_information);
    assert_eq!(
        (properties.authentication_method, properties.authentication_data),
        (Some("SCRAM"), Some(&[0, 1, 255][..]))
    );
    assert_eq!(property::user_properties(properties.raw).collect::<Vec<_>>(), [("k", "v"), ("k", "v2")]);
}

#[test]
fn a_connect_of_3_tells_everything() {
    let found = connect(Version::V311, "CONNECT will+user+pass");
    let will = found.will.unwrap();
    assert_eq!(
        (will.topic, will.payload, will.qos, will.retain),
        ("w/t", &[0, 1, 2, 0xff][..], Qos::AtLeastOnce, true)
    );
    assert_eq!((found.user_name, found.password), (Some("u"), Some(&b"p"[..])));
    assert_eq!(found.properties, connect::Properties::default());
    let found = connect(Version::V311, "CONNECT user only, empty username");
    assert_eq!((found.user_name, found.password), (Some(""), None), "an empty name is a name");
    assert_eq!(connect(Version::V31, "CONNECT MQIsdp/3").client_id, "cid");
}
