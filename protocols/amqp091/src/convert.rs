//! Between 0-9-1's properties and what the core and other protocols want to know or change of a message.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use portolan_core::dead_letter::Dialect;
use portolan_core::hub::{Dialects, Hub, names};
use portolan_core::message::{Facts, Message, Origin};
use portolan_core::value::{Table, Value};

use crate::codec::properties::{self, Edit, Edits, Property};
use crate::codec::{Limits, frame, table};

/// Reads and rewrites 0-9-1 properties for the core.
pub struct Amqp091;

/// Most bytes of properties made for a message of another protocol: they fit into a frame of the usual frame_max, and
/// leave room for the history of deaths.
const MOST: usize = 96 << 10;

/// What a content header has before its properties, and the header that counts deliveries.
const BESIDE: usize = frame::OVERHEAD + 12 + 64;

/// Longest short string.
const SHORT: usize = 255;

/// The headers of a message. Those that break the limits were refused when it was published.
fn headers(properties: &[u8]) -> Table {
    properties::headers(properties, Limits::default()).unwrap_or_default()
}

impl Dialect for Amqp091 {
    fn headers(&self, message: &Message) -> Table {
        headers(message.properties())
    }

    fn dead_lettered(&self, message: &Message, headers: &Table, exchange: &str, routing_key: &[u8]) -> Message {
        let edits = Edits { headers: Edit::Set(headers), expiration: Edit::Remove, ..Edits::default() };
        let rewritten = properties::rewrite(message.properties(), edits);
        let properties = rewritten.as_deref().unwrap_or(message.properties());
        let facts = Facts { ttl: None, ..*message.facts() };
        Message::assemble(facts, exchange.as_bytes(), routing_key, properties, message.body())
    }

    fn expiration(&self, message: &Message) -> Option<Arc<str>> {
        let facts = properties::facts(message.properties()).ok()?;
        text(facts.expiration)
    }

    fn hub(&self, message: &Message) -> Hub {
        // What is stored was checked when it was published.
        let Ok(found) = properties::locate(message.properties()) else { return Hub::default() };
        let mut hub = Hub {
            message_id: found.message_id().map(id),
            correlation_id: found.correlation_id().map(id),
            reply_to: text(found.reply_to()),
            content_type: text(found.content_type()),
            content_encoding: text(found.content_encoding()),
            subject: text(found.kind()),
            timestamp: found.timestamp(),
            user_id: text(found.user_id()),
            app_id: text(found.app_id()),
            application: headers(message.properties()),
            ..Hub::default()
        };
        if hub.correlation_id.is_none() {
            hub.correlation_id = hub.lift(names::CORRELATION_ID, |value| match value {
                Value::Text(_) | Value::Bytes(_) => Some(value.clone()),
                _ => None,
            });
        }
        hub.reply_topic = hub.lift(names::REPLY_TOPIC, |value| value.as_text().map(Arc::from));
        hub.retain = hub.lift(names::RETAIN, |value| (*value == Value::Bool(true)).then_some(())).is_some();
        hub.text = hub.lift(names::PAYLOAD_FORMAT, |value| (value.as_integer() == Some(1)).then_some(())).is_some();
        let qos = |value: &Value| value.as_integer().and_then(|qos| u8::try_from(qos).ok()).filter(|qos| *qos <= 2);
        hub.published_qos = hub.lift(names::PUBLISHED_QOS, qos);
        hub
    }

    fn encode(&self, hub: &Hub, message: &Message) -> Vec<u8> {
        encode(hub, message, MOST)
    }
}

fn text(octets: Option<&[u8]>) -> Option<Arc<str>> {
    octets.and_then(|octets| std::str::from_utf8(octets).ok()).map(Arc::from)
}

fn id(octets: &[u8]) -> Value {
    match std::str::from_utf8(octets) {
        Ok(text) => Value::text(text),
        Err(_) => Value::Bytes(octets.into()),
    }
}

fn octets(id: &Value) -> Option<Cow<'_, [u8]>> {
    match id {
        Value::Text(octets) | Value::Bytes(octets) => Some(Cow::Borrowed(octets)),
        other => other.as_integer().map(|number| Cow::Owned(number.to_string().into_bytes())),
    }
}

/// New properties, headers left out where the whole would be more than `most` bytes.
fn encode(hub: &Hub, message: &Message, most: usize) -> Vec<u8> {
    fn octets_of(text: &Option<Arc<str>>) -> Option<&[u8]> {
        text.as_deref().map(str::as_bytes)
    }
    let message_id = hub.message_id.as_ref().and_then(octets);
    let correlation_id = hub.correlation_id.as_ref().and_then(octets);
    let texts = [
        (Property::ContentType, names::CONTENT_TYPE, octets_of(&hub.content_type)),
        (Property::ContentEncoding, names::CONTENT_ENCODING, octets_of(&hub.content_encoding)),
        (Property::CorrelationId, names::CORRELATION_ID, correlation_id.as_deref()),
        (Property::ReplyTo, names::REPLY_TO, octets_of(&hub.reply_to)),
        (Property::MessageId, names::MESSAGE_ID, message_id.as_deref()),
        (Property::Kind, names::SUBJECT, octets_of(&hub.subject)),
        (Property::UserId, names::USER_ID, octets_of(&hub.user_id)),
        (Property::AppId, names::APP_ID, octets_of(&hub.app_id)),
    ];
    let facts = message.facts();
    let expiration = facts.ttl.map(|ttl| ttl.to_string());
    let beside = texts.iter().filter_map(|(.., octets)| *octets).filter(|octets| is_short(octets));
    // Flags, lengths, and the values of fixed size.
    let beside: usize = 2 + 4 + 2 + 8 + 21 + beside.map(|octets| 1 + octets.len()).sum::<usize>();
    let mut headers = Headers { encoded: Vec::new(), names: HashSet::default(), most: most.saturating_sub(beside) };
    headers.put_known(hub, message);
    for (property, name, octets) in texts {
        if let Some(octets) = octets.filter(|octets| !is_short(octets)) {
            let binary = property == Property::CorrelationId || std::str::from_utf8(octets).is_err();
            headers.put(name, &if binary { Value::Bytes(octets.into()) } else { Value::text(octets) });
        }
    }
    for (name, value) in &hub.application.0 {
        headers.put(name, value);
    }
    let headers = headers.encoded;
    properties::build(|property, out| match property {
        Property::Headers => put(out, (!headers.is_empty()).then_some(&headers), |out, headers| {
            out.extend_from_slice(&u32::try_from(headers.len()).unwrap_or_default().to_be_bytes());
            out.extend_from_slice(headers);
        }),
        Property::DeliveryMode => put(out, Some(1 + u8::from(facts.persistent)), Vec::push),
        Property::Priority => put(out, Some(facts.priority).filter(|priority| *priority > 0), Vec::push),
        Property::Expiration => put(out, expiration.as_deref().map(str::as_bytes), properties::put_short),
        Property::Timestamp => put(out, hub.timestamp, |out, seconds| out.extend_from_slice(&seconds.to_be_bytes())),
        other => {
            let known = texts.iter().find(|(property, ..)| *property == other).and_then(|(.., octets)| *octets);
            put(out, known.filter(|octets| is_short(octets)), properties::put_short)
        }
    })
}

fn put<T>(out: &mut Vec<u8>, value: Option<T>, put: impl FnOnce(&mut Vec<u8>, T)) -> bool {
    value.map(|value| put(out, value)).is_some()
}

/// Whether a client reads it where 0-9-1 has a short string: many take only UTF-8 there.
fn is_short(octets: &[u8]) -> bool {
    octets.len() <= SHORT && std::str::from_utf8(octets).is_ok()
}

/// Headers as they are written, of each name the first.
struct Headers<'a> {
    encoded: Vec<u8>,
    names: HashSet<&'a str, ahash::RandomState>,
    /// Bytes that they may take.
    most: usize,
}

impl<'a> Headers<'a> {
    /// Adds one, unless its name is there, or it or its name is too long.
    fn put(&mut self, name: &'a str, value: &Value) {
        if name.len() > SHORT || !self.names.insert(name) {
            return;
        }
        let before = self.encoded.len();
        table::put_field(&mut self.encoded, name, value);
        if self.encoded.len() > self.most {
            self.encoded.truncate(before);
        }
    }

    /// Adds what 0-9-1 has no property for, before what the application says, which cannot replace it.
    fn put_known(&mut self, hub: &Hub, message: &Message) {
        if let Some(qos) = hub.published_qos {
            // RabbitMQ 3.10 writes it as a signed byte.
            self.put(names::PUBLISHED_QOS, &Value::I8(qos.min(2).cast_signed()));
        }
        if hub.retain {
            self.put(names::RETAIN, &Value::Bool(true));
        }
        if hub.text {
            self.put(names::PAYLOAD_FORMAT, &Value::I8(1));
        }
        if let Some(key) = &hub.reply_topic {
            self.put(names::REPLY_TOPIC, &Value::text(&**key));
        }
        if message.routing_key().len() > SHORT {
            self.put(names::ROUTING_KEY, &Value::text(message.routing_key()));
        }
    }
}

/// The properties as a client of 0-9-1 gets them, with the number of returns where its queue counts them.
#[inline]
pub(crate) fn outgoing<'a>(
    dialects: &Dialects,
    message: &'a Message,
    returns: Option<u32>,
    frame_max: usize,
) -> Cow<'a, [u8]> {
    if message.facts().origin == Origin::Amqp091 && returns.is_none() {
        return Cow::Borrowed(message.properties());
    }
    made(dialects, message, returns, frame_max).into()
}

#[cold]
fn made(dialects: &Dialects, message: &Message, returns: Option<u32>, frame_max: usize) -> Vec<u8> {
    let properties = match message.facts().origin {
        Origin::Amqp091 => Cow::Borrowed(message.properties()),
        other => {
            let most = frame_max.saturating_sub(BESIDE).min(MOST);
            encode(&dialects.of(other).hub(message), message, most).into()
        }
    };
    match returns {
        Some(returns) => with_delivery_count(&properties, returns),
        None => properties.into_owned(),
    }
}

/// The properties with the header that tells how often the message came back, as quorum queues add it.
fn with_delivery_count(properties: &[u8], returns: u32) -> Vec<u8> {
    let mut headers = headers(properties);
    headers.set("x-delivery-count", Value::I64(returns.into()));
    let edits = Edits { headers: Edit::Set(&headers), ..Edits::default() };
    properties::rewrite(properties, edits).unwrap_or_else(|_| properties.to_vec())
}

#[cfg(test)]
mod tests;
