//! The valid packets of the codec's own table, read by both.

use portolan_mqtt::codec::encode::{self, Connack, Delivery, Explanation, Peer};
use portolan_mqtt::codec::property::{Id, Value};
use portolan_mqtt::codec::{Qos, Version};
use portolan_mqtt::reason::Reason;
use rumqttd::protocol::{Packet, Publish, PublishProperties};

use crate::facts::reason_of;
use crate::{Checks, disagreements, ours, theirs};

/// A valid packet of the table.
pub struct Case {
    from_client: bool,
    /// As the table writes it.
    pub number: &'static str,
    /// The version of the connection.
    pub version: Version,
    /// The packet.
    pub bytes: Vec<u8>,
    /// What is particular about it.
    pub about: &'static str,
}

/// Every packet that the table calls valid.
pub fn cases() -> Vec<Case> {
    let lines = include_str!("../../../protocols/mqtt/tests/packets.txt").lines();
    lines.filter(|line| !line.starts_with('#')).filter_map(case).collect()
}

fn case(line: &'static str) -> Option<Case> {
    let mut rest = line;
    let mut field = || {
        let (field, after) = rest.split_once(' ')?;
        rest = after.trim_start();
        Some(field)
    };
    let (sender, number, verdict, hex) = (field()?, field()?, field()?, field()?);
    let version = match number {
        "3.1" => Version::V31,
        "3.1.1" => Version::V311,
        _ => Version::V5,
    };
    let byte = |at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(byte).collect();
    (verdict == "ok").then_some(Case { from_client: sender == "client", number, version, bytes: bytes?, about: rest })
}

/// Holds the readings of each packet against each other, but for those that are known to differ.
pub fn run(checks: &mut Checks) {
    let cases = cases();
    let whole = if cases.len() < 50 { Err(format!("only {} packets", cases.len())) } else { Ok(()) };
    checks.check("the table of packets is whole", whole);
    for case in &cases {
        let what = format!("{} {}", case.number, case.about);
        match disagreements::of(case) {
            Some(known) => {
                checks.check(&format!("{what}: {}", known.why), known.still_holds(&case.bytes, case.version))
            }
            None if case.from_client => {
                checks.check(&format!("{what} is read alike"), alike(&case.bytes, case.version));
                checks.check(&format!("{what} is read as rumqttd writes it"), returned(&case.bytes, case.version));
            }
            None => checks.check(&format!("{what} is written alike"), rewritten(&case.bytes, case.version)),
        }
    }
}

/// Both read the same from these bytes.
pub fn alike(bytes: &[u8], version: Version) -> Result<(), String> {
    ours::read(bytes, version)?.agree(theirs::facts(&theirs::read(bytes, version)?))
}

/// What rumqttd writes for what it has read, Portolan reads as the same packet.
fn returned(bytes: &[u8], version: Version) -> Result<(), String> {
    let again = theirs::write(theirs::read(bytes, version)?, version)?;
    ours::read(&again, version)?.agree(theirs::facts(&theirs::read(bytes, version)?))
}

/// What only servers send, Portolan does not read but write: its packet is as long, and says the same.
fn rewritten(bytes: &[u8], version: Version) -> Result<(), String> {
    let packet = theirs::read(bytes, version)?;
    let mut out = Vec::new();
    if !write(&mut out, &packet, Peer::new(version)) {
        return Err("Portolan does not write it".to_owned());
    }
    if out.len() != bytes.len() {
        return Err(format!("{} bytes instead of {}", out.len(), bytes.len()));
    }
    theirs::facts(&theirs::read(&out, version)?).agree(theirs::facts(&packet))
}

/// Writes what rumqttd read with Portolan's encoder.
fn write(out: &mut Vec<u8>, packet: &Packet, peer: Peer) -> bool {
    match packet {
        Packet::ConnAck(connack, None) => reason_of(connack.code).is_ok_and(|reason| {
            let answer = Connack { session_present: connack.session_present, ..Connack::new(reason) };
            encode::connack(out, peer, &answer)
        }),
        Packet::SubAck(ack, properties) => {
            let reasons: Vec<Reason> = ack.return_codes.iter().flat_map(reason_of).collect();
            let pairs = borrowed(properties.iter().flat_map(|p| &p.user_properties));
            let reason_string = properties.as_ref().and_then(|p| p.reason_string.as_deref());
            encode::suback(out, peer, ack.pkid, &reasons, Explanation { reason_string, user_properties: &pairs })
        }
        Packet::UnsubAck(ack, None) => encode::unsuback(out, peer, ack.pkid, &[Reason::Success], Explanation::NONE),
        Packet::PingResp(_) => {
            encode::pingresp(out);
            true
        }
        Packet::Publish(publish, Some(properties)) => delivered(out, publish, properties, peer.version),
        _ => false,
    }
}

fn borrowed<'a>(pairs: impl IntoIterator<Item = &'a (String, String)>) -> Vec<(&'a str, &'a str)> {
    pairs.into_iter().map(|(name, text)| (&name[..], &text[..])).collect()
}

fn delivered(out: &mut Vec<u8>, publish: &Publish, properties: &PublishProperties, version: Version) -> bool {
    let (dup, qos, packet_id) = theirs::delivery(publish);
    let (Some(qos), Ok(topic)) = (Qos::from_bits(qos), std::str::from_utf8(&publish.topic)) else { return false };
    let single = [
        (Id::PayloadFormatIndicator, properties.payload_format_indicator.map(Value::Byte)),
        (Id::ResponseTopic, properties.response_topic.as_deref().map(Value::Text)),
        (Id::CorrelationData, properties.correlation_data.as_deref().map(Value::Bytes)),
        (Id::ContentType, properties.content_type.as_deref().map(Value::Text)),
    ];
    let mut travelling = Vec::new();
    for (id, value) in single {
        if let Some(value) = value {
            encode::put_property(&mut travelling, id, value);
        }
    }
    for (name, text) in &properties.user_properties {
        encode::put_property(&mut travelling, Id::UserProperty, Value::Pair(name, text));
    }
    let identifiers: Vec<u32> = properties.subscription_identifiers.iter().map(|id| *id as u32).collect();
    let delivery = Delivery {
        dup,
        qos,
        retain: publish.retain,
        packet_id,
        topic,
        properties: &travelling,
        alias: properties.topic_alias,
        expiry: properties.message_expiry_interval,
        identifiers: &identifiers,
        payload: &publish.payload,
    };
    encode::publish(out, version, &delivery)
}
