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
    /// Where answers go: a queue's name.
    pub reply_to: Option<Arc<str>>,
    /// Where answers go: a routing key of `amq.topic`.
    pub reply_topic: Option<Arc<str>>,
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
    /// The QoS that it was published with, if its publisher's protocol has such a thing.
    pub published_qos: Option<u8>,
    /// The application's own, in order; names may come more than once.
    pub application: Table,
}

/// What a field is called among [`Hub::application`] by a protocol that has no other place for it. All are RabbitMQ's
/// where it has one.
pub mod names {
    /// [`Hub::message_id`](super::Hub::message_id)
    pub const MESSAGE_ID: &str = "x-message-id";
    /// [`Hub::correlation_id`](super::Hub::correlation_id)
    pub const CORRELATION_ID: &str = "x-correlation-id";
    /// [`Hub::reply_to`](super::Hub::reply_to)
    pub const REPLY_TO: &str = "x-reply-to";
    /// [`Hub::reply_topic`](super::Hub::reply_topic)
    pub const REPLY_TOPIC: &str = "x-reply-to-topic";
    /// [`Hub::content_type`](super::Hub::content_type)
    pub const CONTENT_TYPE: &str = "x-content-type";
    /// [`Hub::content_encoding`](super::Hub::content_encoding)
    pub const CONTENT_ENCODING: &str = "x-content-encoding";
    /// [`Hub::subject`](super::Hub::subject)
    pub const SUBJECT: &str = "x-type";
    /// [`Hub::timestamp`](super::Hub::timestamp)
    pub const TIMESTAMP: &str = "x-timestamp";
    /// [`Hub::user_id`](super::Hub::user_id). Never read back: who sent a message is not for the sender to say.
    pub const USER_ID: &str = "x-user-id";
    /// [`Hub::app_id`](super::Hub::app_id)
    pub const APP_ID: &str = "x-app-id";
    /// [`Facts::priority`](crate::message::Facts::priority)
    pub const PRIORITY: &str = "x-priority";
    /// [`Hub::text`](super::Hub::text)
    pub const PAYLOAD_FORMAT: &str = "x-mqtt-payload-format";
    /// [`Hub::retain`](super::Hub::retain)
    pub const RETAIN: &str = "x-mqtt-retain";
    /// [`Hub::published_qos`](super::Hub::published_qos)
    pub const PUBLISHED_QOS: &str = "x-mqtt-publish-qos";
    /// The routing key, where a protocol cuts it.
    pub const ROUTING_KEY: &str = "x-routing-key";
}

impl Hub {
    /// Takes the first entry of that name out of [`Hub::application`] if `read` understands it: it stands for
    /// something that has a place of its own here.
    pub fn lift<T>(&mut self, name: &str, read: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        let entries = &mut self.application.0;
        let at = entries.iter().position(|(known, _)| &**known == name)?;
        let found = read(&entries.get(at)?.1)?;
        entries.remove(at);
        Some(found)
    }
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
