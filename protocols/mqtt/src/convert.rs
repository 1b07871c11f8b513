//! Between MQTT's properties and what other protocols and the core want to know of a message.

use std::borrow::Cow;
use std::sync::Arc;

use portolan_core::dead_letter::Dialect;
use portolan_core::hub::{Dialects, Hub, names};
use portolan_core::message::{Facts, MQTT_QOS, Message, Origin};
use portolan_core::value::{Table, Value};

use crate::codec::encode::put_property;
use crate::codec::property::{self, Id, items, user_properties};
use crate::flags::{self, RETAIN};
use crate::topic::{self, Fit};

mod text;

/// Reads and writes MQTT's properties for the core.
pub struct Mqtt;

/// Most bytes of a property block made for a message of another protocol.
const MOST: usize = 1 << 20;

impl Dialect for Mqtt {
    fn headers(&self, message: &Message) -> Table {
        application(parts(message).1)
    }

    fn dead_lettered(&self, message: &Message, headers: &Table, exchange: &str, routing_key: &[u8]) -> Message {
        let hub = Hub { application: headers.clone(), ..read(message) };
        let facts = Facts { ttl: None, ..*message.facts() };
        Message::assemble(facts, exchange.as_bytes(), routing_key, &self.encode(&hub, message), message.body())
    }

    fn expiration(&self, message: &Message) -> Option<Arc<str>> {
        message.facts().ttl.map(|ttl| ttl.to_string().into())
    }

    fn hub(&self, message: &Message) -> Hub {
        let mut hub = read(message);
        let text = |value: &Value| value.as_text().map(Arc::from);
        hub.message_id = hub.lift(names::MESSAGE_ID, |value| Some(value.clone()));
        hub.content_encoding = hub.lift(names::CONTENT_ENCODING, text);
        hub.subject = hub.lift(names::SUBJECT, text);
        hub.app_id = hub.lift(names::APP_ID, text);
        hub.reply_to = hub.lift(names::REPLY_TO, text);
        hub.timestamp = hub.lift(names::TIMESTAMP, |value| {
            let digits = value.as_text()?;
            digits.parse().ok().filter(|seconds: &u64| seconds.to_string() == digits)
        });
        hub
    }

    fn encode(&self, hub: &Hub, message: &Message) -> Vec<u8> {
        let mut block = Block { out: vec![message.qos() | if hub.retain { RETAIN } else { 0 }] };
        if hub.text && std::str::from_utf8(message.body()).is_ok() {
            block.put(Id::PayloadFormatIndicator, property::Value::Byte(1));
        }
        if let Some(kind) = &hub.content_type {
            block.put(Id::ContentType, property::Value::Text(&text::clean(kind)));
        }
        block.put_response_topic(hub.reply_topic.as_deref());
        match &hub.correlation_id {
            Some(Value::Text(octets) | Value::Bytes(octets)) => {
                block.put(Id::CorrelationData, property::Value::Bytes(octets));
            }
            Some(other) => {
                let text = text::of(other).unwrap_or_default();
                block.put(Id::CorrelationData, property::Value::Bytes(text.as_bytes()));
            }
            None => {}
        }
        for (name, value) in &hub.application.0 {
            block.put_pair(name, value);
        }
        block.put_placeless(hub, message.facts().priority);
        block.out
    }
}

/// The flags of a message's properties and its block.
fn parts(message: &Message) -> (u8, &[u8]) {
    let (flags, _, block) = flags::read(message.properties());
    (flags, block)
}

/// The user properties in order, repetitions included: by name, the first is found.
fn application(block: &[u8]) -> Table {
    Table(user_properties(block).map(|(name, text)| (name.into(), Value::text(text))).collect())
}

/// What MQTT itself has a place for, and every user property.
fn read(message: &Message) -> Hub {
    let (flags, block) = parts(message);
    let mut hub = Hub {
        retain: flags & RETAIN != 0,
        published_qos: Some(flags & MQTT_QOS),
        application: application(block),
        ..Hub::default()
    };
    for (id, value) in items(block) {
        match (id, value) {
            (Id::PayloadFormatIndicator, property::Value::Byte(format)) => hub.text = format == 1,
            (Id::ContentType, property::Value::Text(kind)) => hub.content_type = Some(kind.into()),
            (Id::ResponseTopic, property::Value::Text(topic)) => hub.reply_topic = Some(key_of(topic)),
            (Id::CorrelationData, property::Value::Bytes(data)) => {
                hub.correlation_id = Some(match std::str::from_utf8(data) {
                    Ok(text) => Value::text(text),
                    Err(_) => Value::Bytes(data.into()),
                });
            }
            _ => {}
        }
    }
    hub
}

fn key_of(topic: &str) -> Arc<str> {
    let mut key = Vec::with_capacity(topic.len());
    topic::append_key(topic, &mut key);
    // Single-byte characters changed places, so this is UTF-8 still.
    String::from_utf8_lossy(&key).into()
}

/// A property block as it is written, behind the flags.
struct Block {
    out: Vec<u8>,
}

impl Block {
    /// Adds a property, unless it or the whole would be too long.
    fn put(&mut self, id: Id, value: property::Value<'_>) {
        let before = self.out.len();
        put_property(&mut self.out, id, value);
        if self.out.len() > MOST {
            self.out.truncate(before);
        }
    }

    /// Adds a user property, unless its value has no text.
    fn put_pair(&mut self, name: &str, value: &Value) {
        if let Some(text) = text::of(value) {
            self.put(Id::UserProperty, property::Value::Pair(&text::clean(name), &text));
        }
    }

    /// The key's topic if it has one, else the key as a user property.
    fn put_response_topic(&mut self, key: Option<&str>) {
        let Some(key) = key else { return };
        let mut topic = String::with_capacity(key.len());
        let fit = topic::append_topic(key.as_bytes(), &mut topic);
        match fit == Fit::Exact && topic::is_name(&topic) && matches!(text::clean(&topic), Cow::Borrowed(_)) {
            true => self.put(Id::ResponseTopic, property::Value::Text(&topic)),
            false => self.put_pair(names::REPLY_TOPIC, &Value::text(key)),
        }
    }

    /// Adds as user properties what MQTT has no property for.
    fn put_placeless(&mut self, hub: &Hub, priority: u8) {
        if let Some(id) = &hub.message_id {
            self.put_pair(names::MESSAGE_ID, id);
        }
        for (name, text) in [
            (names::CONTENT_ENCODING, &hub.content_encoding),
            (names::SUBJECT, &hub.subject),
            (names::APP_ID, &hub.app_id),
            (names::USER_ID, &hub.user_id),
            (names::REPLY_TO, &hub.reply_to),
        ] {
            if let Some(text) = text {
                self.put(Id::UserProperty, property::Value::Pair(name, &text::clean(text)));
            }
        }
        if let Some(seconds) = hub.timestamp {
            self.put_pair(names::TIMESTAMP, &Value::Timestamp(seconds));
        }
        if priority > 0 {
            self.put_pair(names::PRIORITY, &Value::U8(priority));
        }
    }
}

/// A message's properties as MQTT clients get them.
pub(crate) struct Outgoing<'a> {
    /// QoS and RETAIN as published, and what else the flags of a message of ours hold.
    pub(crate) flags: u8,
    /// The property block without its length, and without what each hop writes anew.
    pub(crate) properties: Cow<'a, [u8]>,
}

/// What a delivery says of a message; borrowed as it is stored if an MQTT client published it.
#[inline]
pub(crate) fn outgoing<'a>(dialects: &Dialects, message: &'a Message) -> Outgoing<'a> {
    match message.facts().origin {
        Origin::Mqtt => {
            let (flags, block) = parts(message);
            Outgoing { flags, properties: Cow::Borrowed(block) }
        }
        other => converted(dialects.of(other), message),
    }
}

#[cold]
fn converted<'a>(dialect: &dyn Dialect, message: &Message) -> Outgoing<'a> {
    let mut properties = Mqtt.encode(&dialect.hub(message), message);
    let flags = properties.drain(..1).next().unwrap_or_default();
    Outgoing { flags, properties: properties.into() }
}

#[cfg(test)]
mod tests;
