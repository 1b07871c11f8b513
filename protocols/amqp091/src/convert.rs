//! Between 0-9-1's properties and what the core wants to know or change of a message.

use std::sync::Arc;

use portolan_core::dead_letter::Dialect;
use portolan_core::hub::Hub;
use portolan_core::message::{Facts, Message};
use portolan_core::value::{Table, Value};

use crate::codec::Limits;
use crate::codec::properties::{self, Edit, Edits};

/// Reads and rewrites 0-9-1 properties for the core.
pub struct Amqp091;

/// The headers of a message. Those that break the limits were refused when it was published.
fn headers(message: &Message) -> Table {
    properties::headers(message.properties(), Limits::default()).unwrap_or_default()
}

impl Dialect for Amqp091 {
    fn headers(&self, message: &Message) -> Table {
        headers(message)
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
        std::str::from_utf8(facts.expiration?).ok().map(Into::into)
    }

    fn hub(&self, message: &Message) -> Hub {
        Hub { application: headers(message), ..Hub::default() }
    }

    fn encode(&self, hub: &Hub, _: &Message) -> Vec<u8> {
        let edits = Edits { headers: Edit::Set(&hub.application), ..Edits::default() };
        properties::rewrite(&[0, 0], edits).unwrap_or_else(|_| vec![0, 0])
    }
}

/// The properties with the header that tells how often the message came back, as quorum queues add it.
pub(crate) fn with_delivery_count(message: &Message, returns: u32) -> Vec<u8> {
    let mut headers = headers(message);
    headers.set("x-delivery-count", Value::I64(returns.into()));
    let edits = Edits { headers: Edit::Set(&headers), ..Edits::default() };
    properties::rewrite(message.properties(), edits).unwrap_or_else(|_| message.properties().to_vec())
}
