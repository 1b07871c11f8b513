//! The form between protocols: what a message says about itself, in the words of AMQP 1.0's sections, so that each
//! protocol needs one way in and one way out.

use std::sync::Arc;

use crate::dead_letter::Dialect;
use crate::message::{Message, Origin};
use crate::value::{Table, Value};

/// A message's properties in nobody's encoding. What a protocol has no place for becomes an entry of
/// [`Hub::application`] under a documented name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hub {
    /// The message's own name.
    pub message_id: Option<Value>,
    /// Which message it answers.
    pub correlation_id: Option<Value>,
    /// Where answers go: an address in the words of AMQP 0-9-1, a queue's name or a routing key of `amq.topic`.
    pub reply_to: Option<Arc<str>>,
    /// MIME type of the body.
    pub content_type: Option<Arc<str>>,
    /// MIME encoding of the body.
    pub content_encoding: Option<Arc<str>>,
    /// What the application calls this kind of message.
    pub subject: Option<Arc<str>>,
    /// Seconds since the epoch.
    pub timestamp: Option<u64>,
    /// The user who sent it.
    pub user_id: Option<Arc<str>>,
    /// The application that sent it.
    pub app_id: Option<Arc<str>>,
    /// The body is text in UTF-8.
    pub text: bool,
    /// Its publisher wants the topic's subscribers of the future to get it.
    pub retain: bool,
    /// The application's own, in order; names may come more than once.
    pub application: Table,
}

/// Who reads and writes properties of each origin.
pub struct Dialects {
    /// AMQP 0-9-1.
    pub amqp091: Box<dyn Dialect>,
    /// MQTT.
    pub mqtt: Box<dyn Dialect>,
}

impl Dialects {
    /// The one for messages of that origin.
    pub fn of(&self, origin: Origin) -> &dyn Dialect {
        match origin {
            Origin::Amqp091 => &*self.amqp091,
            Origin::Mqtt => &*self.mqtt,
        }
    }

    /// The message in another protocol's encoding; itself when it is in it already. Exchange, key and body stay.
    pub fn translate(&self, message: &Message, to: Origin) -> Message {
        let origin = message.facts().origin;
        if origin == to {
            return message.clone();
        }
        let properties = self.of(to).encode(&self.of(origin).hub(message), message);
        let facts = crate::message::Facts { origin: to, ..*message.facts() };
        Message::assemble(facts, message.exchange(), message.routing_key(), &properties, message.body())
    }
}
