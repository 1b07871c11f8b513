//! What Portolan's encoder writes, read by rumqttd, or written by it from the same values where it cannot read.

use portolan_mqtt::codec::encode::{self, Connack, Delivery, Explanation, Peer};
use portolan_mqtt::codec::property::{self, Id, Value};
use portolan_mqtt::codec::{AckKind, MAX_PACKET, Qos, Version, split};
use portolan_mqtt::reason::Reason;
use rumqttd::protocol::{
    ConnAck, ConnAckProperties, ConnectReturnCode as Code, Packet, UnsubAck, UnsubAckProperties, UnsubAckReason,
};

use crate::facts::{Facts, name, reason_of};
use crate::random::Random;
use crate::{Checks, ours, theirs};

/// Packets of each type and version.
const ROUNDS: usize = 400;

const KINDS: [AckKind; 4] = [AckKind::Puback, AckKind::Pubrec, AckKind::Pubrel, AckKind::Pubcomp];
const QOS: [Qos; 3] = [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce];

/// The codes that 3.9.3 lists.
const SUBACK: &[u8] = &[0, 1, 2, 0x80, 0x83, 0x87, 0x8f, 0x91, 0x97, 0x9e, 0xa1, 0xa2];
/// 3.4.2.1 and 3.5.2.1
const RECEIVED: &[u8] = &[0, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
/// 3.6.2.1 and 3.7.2.1
const RELEASED: &[u8] = &[0, 0x92];
/// 3.2.2.3 of 3.1.1, by what the codes are in 5.0
const REFUSALS: &[u8] = &[0, 0x84, 0x85, 0x88, 0x86, 0x87];
/// 3.14.2.1, what a server may send
const FAREWELLS: &[u8] = &[
    0, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8b, 0x8d, 0x8e, 0x8f, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99,
    0x9a, 0x9b, 0x9c, 0x9d, 0x9e, 0x9f, 0xa0, 0xa1, 0xa2,
];

/// Random packets of every type that servers send, in both versions that rumqttd speaks.
pub fn run(checks: &mut Checks) {
    let v311 = Version::V311;
    let v5 = Version::V5;
    for (number, version) in [("3.1.1", v311), ("5", v5)] {
        rounds(checks, &format!("{number} PUBLISH"), |random| delivery(random, version));
        rounds(checks, &format!("{number} SUBACK"), |random| suback(random, version));
        for kind in KINDS {
            rounds(checks, &format!("{number} {}", ours::ack_name(kind)), |random| ack(random, kind, version));
        }
    }
    rounds(checks, "3.1.1 CONNACK", connack_before_5);
    rounds(checks, "3.1.1 UNSUBACK", unsuback_before_5);
    rounds(checks, "5 DISCONNECT", disconnect);
    rounds(checks, "5 CONNACK, against what rumqttd writes,", connack);
    rounds(checks, "5 UNSUBACK, against what rumqttd writes,", unsuback);
}

fn rounds(checks: &mut Checks, what: &str, mut round: impl FnMut(&mut Random) -> Result<(), String>) {
    let mut random = Random::new();
    let outcome = (0..ROUNDS).try_for_each(|number| round(&mut random).map_err(|why| format!("round {number}: {why}")));
    checks.check(&format!("{what} is read as it was meant, {ROUNDS} times"), outcome);
}

fn reason(code: u8) -> Result<Reason, String> {
    Reason::from_code(code).ok_or_else(|| format!("no reason {code:#x}"))
}

/// Words for people, as they are owned here.
struct Words {
    reason_string: Option<String>,
    pairs: Vec<(String, String)>,
}

impl Words {
    fn new(random: &mut Random) -> Self {
        match random.flag() {
            true => Self { reason_string: random.maybe(Random::text), pairs: random.pairs() },
            false => Self { reason_string: None, pairs: Vec::new() },
        }
    }

    fn pairs(&self) -> Vec<(&str, &str)> {
        self.pairs.iter().map(|(name, text)| (&name[..], &text[..])).collect()
    }

    fn say(&self, facts: &mut Facts, version: Version) {
        if version != Version::V5 {
            return;
        }
        if let Some(text) = &self.reason_string {
            facts.property("", Id::ReasonString, Value::Text(text));
        }
        for (name, text) in &self.pairs {
            facts.property("", Id::UserProperty, Value::Pair(name, text));
        }
    }
}

/// What was meant is what rumqttd reads.
fn read_as(facts: Facts, written: bool, out: &[u8], version: Version) -> Result<(), String> {
    match written {
        true => facts.agree(theirs::facts(&theirs::read(out, version)?)),
        false => Err("not written".to_owned()),
    }
}

fn delivery(random: &mut Random, version: Version) -> Result<(), String> {
    let (text, response, content) = (random.maybe(Random::flag), random.text(), random.text());
    let (correlation, pairs, identifier) = (random.maybe(Random::bytes), random.pairs(), random.four() >> 4);
    let travelling = [
        (Id::PayloadFormatIndicator, text.map(|text| Value::Byte(text.into()))),
        (Id::ContentType, random.maybe(|_| Value::Text(&content))),
        (Id::ResponseTopic, random.maybe(|_| Value::Text(&response))),
        (Id::CorrelationData, correlation.as_deref().map(Value::Bytes)),
    ];
    let pairs = pairs.iter().map(|(name, text)| (Id::UserProperty, Value::Pair(name, text)));
    let travelling: Vec<_> = travelling.into_iter().filter_map(|(id, value)| Some((id, value?))).chain(pairs).collect();
    let mut block = Vec::new();
    for (id, value) in &travelling {
        encode::put_property(&mut block, *id, *value);
    }
    // One at most: see the known disagreements.
    let identifiers: Vec<u32> = random.maybe(|_| identifier.max(1)).into_iter().collect();
    let (topic, payload) = (random.text(), random.bytes());
    let delivery = Delivery {
        dup: random.flag(),
        qos: random.one(&QOS),
        retain: random.flag(),
        packet_id: random.two(),
        topic: &topic,
        properties: &block,
        alias: random.maybe(Random::two),
        expiry: random.maybe(Random::four),
        identifiers: &identifiers,
        payload: &payload,
    };
    let mut out = Vec::new();
    let written = encode::publish(&mut out, version, &delivery);
    let settled = delivery.qos != Qos::AtMostOnce;
    let mut facts = Facts::of("PUBLISH");
    let packet_id = if settled { delivery.packet_id } else { 0 };
    facts.say("delivery", (delivery.dup && settled, delivery.qos.bits(), delivery.retain, packet_id));
    facts.say("topic", topic.as_bytes());
    facts.say("payload", &payload[..]);
    if version != Version::V5 {
        facts.say("hop", (false, None::<u32>, None::<u16>));
        return read_as(facts, written, &out, version);
    }
    facts.say("hop", (text == Some(true), delivery.expiry, delivery.alias));
    let hop = [
        (Id::MessageExpiryInterval, delivery.expiry.map(Value::Four)),
        (Id::TopicAlias, delivery.alias.map(Value::Two)),
        (Id::SubscriptionIdentifier, identifiers.first().copied().map(Value::Var)),
    ];
    for (id, value) in hop.into_iter().filter_map(|(id, value)| Some((id, value?))).chain(travelling) {
        facts.property("", id, value);
    }
    read_as(facts, written, &out, version)
}

/// Facts of a packet with an identifier and reasons.
fn answered(packet: &str, packet_id: u16, reasons: &[Reason], words: &Words, version: Version) -> Facts {
    let mut facts = Facts::of(packet);
    facts.say("packet id", packet_id);
    reasons.iter().for_each(|reason| facts.say("reason", name(reason)));
    words.say(&mut facts, version);
    facts
}

fn ack(random: &mut Random, kind: AckKind, version: Version) -> Result<(), String> {
    let codes = if matches!(kind, AckKind::Puback | AckKind::Pubrec) { RECEIVED } else { RELEASED };
    let (packet_id, reason, words) = (random.two(), reason(random.one(codes))?, Words::new(random));
    let explanation = Explanation { reason_string: words.reason_string.as_deref(), user_properties: &words.pairs() };
    let mut out = Vec::new();
    let written = encode::ack(&mut out, Peer::new(version), kind, packet_id, reason, explanation);
    let read = if version == Version::V5 { reason } else { Reason::Success };
    read_as(answered(ours::ack_name(kind), packet_id, &[read], &words, version), written, &out, version)
}

fn suback(random: &mut Random, version: Version) -> Result<(), String> {
    let (packet_id, words) = (random.two(), Words::new(random));
    let count = 1 + random.below(5);
    let reasons: Vec<Reason> = (0..count).map(|_| reason(random.one(SUBACK))).collect::<Result<_, _>>()?;
    let explanation = Explanation { reason_string: words.reason_string.as_deref(), user_properties: &words.pairs() };
    let mut out = Vec::new();
    let written = encode::suback(&mut out, Peer::new(version), packet_id, &reasons, explanation);
    // MQTT-3.9.3-2: before 5.0 there is one code for all that fails.
    let told = |reason: &Reason| match version {
        Version::V31 | Version::V311 if reason.code() >= 0x80 => Reason::UnspecifiedError,
        _ => *reason,
    };
    let read: Vec<Reason> = reasons.iter().map(told).collect();
    read_as(answered("SUBACK", packet_id, &read, &words, version), written, &out, version)
}

fn connack_before_5(random: &mut Random) -> Result<(), String> {
    let (session_present, reason) = (random.flag(), reason(random.one(REFUSALS))?);
    let mut out = Vec::new();
    let answer = Connack { session_present, ..Connack::new(reason) };
    let written = encode::connack(&mut out, Peer::new(Version::V311), &answer);
    let mut facts = Facts::of("CONNACK");
    facts.say("session present", session_present && reason == Reason::Success);
    facts.say("reason", name(reason));
    read_as(facts, written, &out, Version::V311)
}

fn unsuback_before_5(random: &mut Random) -> Result<(), String> {
    let packet_id = random.two();
    let mut out = Vec::new();
    let written =
        encode::unsuback(&mut out, Peer::new(Version::V311), packet_id, &[Reason::Success], Explanation::NONE);
    let words = Words { reason_string: None, pairs: Vec::new() };
    read_as(answered("UNSUBACK", packet_id, &[], &words, Version::V311), written, &out, Version::V311)
}

fn disconnect(random: &mut Random) -> Result<(), String> {
    let (reason, server, words) = (reason(random.one(FAREWELLS))?, random.maybe(Random::text), Words::new(random));
    let explanation = Explanation { reason_string: words.reason_string.as_deref(), user_properties: &words.pairs() };
    let mut out = Vec::new();
    let written = encode::disconnect(&mut out, Peer::new(Version::V5), reason, server.as_deref(), explanation);
    // A reason alone is a known disagreement; with its length of no properties, the same packet is read.
    if let [0xe0, 1, code] = out[..] {
        out = vec![0xe0, 2, code, 0];
    }
    let mut facts = Facts::of("DISCONNECT");
    facts.say("reason", name(reason));
    facts.say("session expiry", None::<u32>);
    if let Some(server) = &server {
        facts.property("", Id::ServerReference, Value::Text(server));
    }
    words.say(&mut facts, Version::V5);
    read_as(facts, written, &out, Version::V5)
}

/// The facts of an answer of 5.0, taken apart without either decoder of such packets: what stands in front of the
/// properties, these, and what stands behind them.
fn apart(bytes: &[u8]) -> Result<Facts, String> {
    let frame = split(bytes, MAX_PACKET).map_err(|malformed| format!("{malformed:?}"))?.ok_or("not all of it")?;
    let (head, mut rest) = frame.body.split_at_checked(2).ok_or("too short")?;
    let (mut block, mut shift) = (0, 0);
    while let Some((byte, behind)) = rest.split_first() {
        block |= usize::from(byte & 0x7f) << shift;
        (rest, shift) = (behind, shift + 7);
        if *byte < 0x80 {
            break;
        }
    }
    let (block, tail) = rest.split_at_checked(block).ok_or("the properties are cut off")?;
    let mut facts = Facts::of("answer");
    facts.say("size", (frame.first, frame.size, bytes.len()));
    facts.say("around", (head, tail));
    property::items(block).for_each(|(id, value)| facts.property("", id, value));
    Ok(facts)
}

/// Portolan's packet is that of rumqttd but for the order of the properties.
fn written_alike(written: bool, out: &[u8], packet: Packet) -> Result<(), String> {
    match written {
        true => apart(out)?.agree(apart(&theirs::write(packet, Version::V5)?)?),
        false => Err("not written".to_owned()),
    }
}

const CONNACK: &[Code] = &[
    Code::Success,
    Code::UnspecifiedError,
    Code::MalformedPacket,
    Code::ProtocolError,
    Code::ImplementationSpecificError,
    Code::UnsupportedProtocolVersion,
    Code::ClientIdentifierNotValid,
    Code::BadUserNamePassword,
    Code::NotAuthorized,
    Code::ServerUnavailable,
    Code::ServerBusy,
    Code::Banned,
    Code::BadAuthenticationMethod,
    Code::TopicNameInvalid,
    Code::PacketTooLarge,
    Code::QuotaExceeded,
    Code::PayloadFormatInvalid,
    Code::RetainNotSupported,
    Code::QoSNotSupported,
    Code::UseAnotherServer,
    Code::ServerMoved,
    Code::ConnectionRateExceeded,
];

fn connack(random: &mut Random) -> Result<(), String> {
    let (code, words) = (random.one(CONNACK), Words::new(random));
    let connack = ConnAck { session_present: code == Code::Success && random.flag(), code };
    let flag = |random: &mut Random| random.maybe(|random| random.flag().into());
    let properties = ConnAckProperties {
        session_expiry_interval: random.maybe(Random::four),
        receive_max: random.maybe(Random::two),
        max_qos: flag(random),
        retain_available: flag(random),
        max_packet_size: random.maybe(Random::four),
        assigned_client_identifier: random.maybe(Random::text),
        topic_alias_max: random.maybe(Random::two),
        reason_string: words.reason_string,
        user_properties: words.pairs,
        wildcard_subscription_available: flag(random),
        subscription_identifiers_available: flag(random),
        shared_subscription_available: flag(random),
        server_keep_alive: random.maybe(Random::two),
        response_information: random.maybe(Random::text),
        server_reference: random.maybe(Random::text),
        authentication_method: random.maybe(Random::text),
        authentication_data: random.maybe(|random| random.bytes().into()),
    };
    let p = &properties;
    let pairs: Vec<_> = p.user_properties.iter().map(|(name, text)| (&name[..], &text[..])).collect();
    let answer = Connack {
        reason: reason_of(code)?,
        session_present: connack.session_present,
        session_expiry: p.session_expiry_interval,
        receive_maximum: p.receive_max,
        maximum_qos: p.max_qos.and_then(Qos::from_bits),
        retain_available: p.retain_available.map(|set| set == 1),
        maximum_packet_size: p.max_packet_size,
        assigned_client_id: p.assigned_client_identifier.as_deref(),
        topic_alias_maximum: p.topic_alias_max,
        wildcard_subscriptions: p.wildcard_subscription_available.map(|set| set == 1),
        subscription_identifiers: p.subscription_identifiers_available.map(|set| set == 1),
        shared_subscriptions: p.shared_subscription_available.map(|set| set == 1),
        server_keep_alive: p.server_keep_alive,
        response_information: p.response_information.as_deref(),
        server_reference: p.server_reference.as_deref(),
        authentication_method: p.authentication_method.as_deref(),
        authentication_data: p.authentication_data.as_deref(),
        explanation: Explanation { reason_string: p.reason_string.as_deref(), user_properties: &pairs },
    };
    let mut out = Vec::new();
    let written = encode::connack(&mut out, Peer::new(Version::V5), &answer);
    written_alike(written, &out, Packet::ConnAck(connack, Some(properties.clone())))
}

const UNSUBACK: &[UnsubAckReason] = &[
    UnsubAckReason::Success,
    UnsubAckReason::NoSubscriptionExisted,
    UnsubAckReason::UnspecifiedError,
    UnsubAckReason::ImplementationSpecificError,
    UnsubAckReason::NotAuthorized,
    UnsubAckReason::TopicFilterInvalid,
    UnsubAckReason::PacketIdentifierInUse,
];

fn unsuback(random: &mut Random) -> Result<(), String> {
    let (pkid, words, count) = (random.two(), Words::new(random), 1 + random.below(5));
    let reasons: Vec<_> = (0..count).map(|_| random.one(UNSUBACK)).collect();
    let ours: Vec<Reason> = reasons.iter().map(reason_of).collect::<Result<_, _>>()?;
    let explanation = Explanation { reason_string: words.reason_string.as_deref(), user_properties: &words.pairs() };
    let mut out = Vec::new();
    let written = encode::unsuback(&mut out, Peer::new(Version::V5), pkid, &ours, explanation);
    let properties = UnsubAckProperties { reason_string: words.reason_string, user_properties: words.pairs };
    written_alike(written, &out, Packet::UnsubAck(UnsubAck { pkid, reasons }, Some(properties)))
}
