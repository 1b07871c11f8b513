//! Between MQTT's properties and what other protocols and the core want to know of a message.

use std::sync::Arc;

use portolan_core::dead_letter::Dialect;
use portolan_core::hub::Hub;
use portolan_core::message::{Facts, Message};
use portolan_core::value::Table;

/// Reads and writes MQTT's properties for the core.
pub struct Mqtt;

impl Dialect for Mqtt {
    fn headers(&self, message: &Message) -> Table {
        self.hub(message).application
    }

    fn dead_lettered(&self, message: &Message, _: &Table, exchange: &str, routing_key: &[u8]) -> Message {
        let facts = Facts { ttl: None, ..*message.facts() };
        Message::assemble(facts, exchange.as_bytes(), routing_key, message.properties(), message.body())
    }

    fn expiration(&self, _: &Message) -> Option<Arc<str>> {
        None
    }

    fn hub(&self, _: &Message) -> Hub {
        Hub::default()
    }

    fn encode(&self, _: &Hub, message: &Message) -> Vec<u8> {
        vec![u8::from(message.facts().persistent)]
    }
}
