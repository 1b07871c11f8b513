//! PUBLISH, the packet that there are most of.

use crate::codec::malformed::Malformed;
use crate::codec::property::{self, Id, Place, Value};
use crate::codec::reader::{Reader, holds};
use crate::codec::{Frame, Qos, Version};
use crate::reason::Reason;

/// A message on its way to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Sent before, as far as the client knows; never with QoS 0.
    pub dup: bool,
    /// QoS of this hop.
    pub qos: Qos,
    /// Keep it for later subscribers.
    pub retain: bool,
    /// The payload is said to be UTF-8.
    pub text: bool,
    /// 0 with QoS 0, and only then.
    pub packet_id: u16,
    /// Topic Alias, not 0, not yet held against the maximum.
    pub alias: Option<u16>,
    /// Message Expiry Interval in seconds.
    pub expiry: Option<u32>,
    /// A valid topic name, empty only with an alias.
    pub topic: &'a str,
    /// All properties as they came; [`property::travelling`] is what goes with the message.
    pub properties: &'a [u8],
    /// The message.
    pub payload: &'a [u8],
}

impl Publish<'_> {
    /// Whether the payload is what the Payload Format Indicator says; if not, refuse with Payload format invalid,
    /// which PUBACK and PUBREC can say without closing the connection.
    pub fn payload_is_as_declared(&self) -> bool {
        !self.text || payload_is_text(self.payload)
    }
}

pub(crate) fn payload_is_text(payload: &[u8]) -> bool {
    std::str::from_utf8(payload).is_ok()
}

/// Decodes a PUBLISH.
#[inline]
pub fn publish<'a>(frame: &Frame<'a>, version: Version) -> Result<Publish<'a>, Malformed> {
    let mut reader = Reader::new(frame.body);
    let (qos, dup) = delivery(frame.first, version)?;
    let topic = topic_name(reader.bytes()?)?;
    let packet_id = match qos {
        Qos::AtMostOnce => 0,
        Qos::AtLeastOnce | Qos::ExactlyOnce => reader.packet_id()?,
    };
    let properties = match version {
        Version::V31 | Version::V311 => &[],
        Version::V5 => {
            frame.shortest()?;
            reader.properties()?
        }
    };
    let retain = frame.first & 1 != 0;
    let mut found = Publish {
        dup,
        qos,
        retain,
        text: false,
        packet_id,
        alias: None,
        expiry: None,
        topic,
        properties,
        payload: reader.rest,
    };
    if !properties.is_empty() {
        read_properties(&mut found)?;
    }
    // MQTT-4.7.3-1, MQTT5-3.3.2-1
    match topic.is_empty() && found.alias.is_none() {
        true => Err(no_topic()),
        false => Ok(found),
    }
}

#[inline]
fn delivery(first: u8, version: Version) -> Result<(Qos, bool), Malformed> {
    match (Qos::from_bits(first >> 1 & 3), first & 8 != 0) {
        // MQTT-3.3.1-2; a rule since 3.1.1.
        (Some(Qos::AtMostOnce), true) => match version {
            Version::V31 => Ok((Qos::AtMostOnce, false)),
            Version::V311 | Version::V5 => Err(Malformed::packet("DUP is set on a PUBLISH of QoS 0")),
        },
        (Some(qos), dup) => Ok((qos, dup)),
        // MQTT-3.3.1-4
        (None, _) => Err(Malformed::packet("the QoS of a PUBLISH is 3; use 0, 1 or 2")),
    }
}

/// The text of a topic name, which may be empty here.
#[inline]
pub(crate) fn topic_name(bytes: &[u8]) -> Result<&str, Malformed> {
    match std::str::from_utf8(bytes) {
        Ok(topic) if !holds(bytes, [0, b'+', b'#']) => Ok(topic),
        _ => Err(bad_topic(bytes)),
    }
}

#[cold]
fn bad_topic(bytes: &[u8]) -> Malformed {
    match std::str::from_utf8(bytes) {
        // MQTT-3.3.2-2, MQTT-4.7.1-1
        Ok(topic) if !topic.contains('\0') => {
            Malformed::new(Reason::TopicNameInvalid, "the topic holds + or #, which only filters may")
        }
        // MQTT-3.3.2-1, MQTT-1.5.3-1, MQTT-1.5.3-2
        _ => Malformed::packet("the topic is not UTF-8 or holds U+0000"),
    }
}

#[cold]
fn no_topic() -> Malformed {
    Malformed::protocol("a PUBLISH needs a topic, or in MQTT 5.0 a Topic Alias")
}

fn read_properties(publish: &mut Publish<'_>) -> Result<(), Malformed> {
    property::read(publish.properties, Place::Publish, |id, value| match (id, value) {
        (Id::PayloadFormatIndicator, Value::Byte(indicator)) => publish.text = indicator == 1,
        (Id::MessageExpiryInterval, Value::Four(seconds)) => publish.expiry = Some(seconds),
        (Id::TopicAlias, Value::Two(alias)) => publish.alias = Some(alias),
        _ => (),
    })
}
