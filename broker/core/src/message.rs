//! The immutable message: one block of bytes with a few parsed facts beside it, shared by reference.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use triomphe::ThinArc;

use crate::store::Position;

/// Where a piece of a message lies within its block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// Length in bytes.
    pub len: u32,
}

impl Span {
    /// A span of `len` bytes from `start`.
    pub fn new(start: usize, len: usize) -> Self {
        // A block is limited to far less than 4 GiB before a message is made of it; saturating keeps a
        // mistake there from becoming a wrong slice.
        Self { start: u32::try_from(start).unwrap_or(u32::MAX), len: u32::try_from(len).unwrap_or(0) }
    }

    fn of(self, block: &[u8]) -> &[u8] {
        let start = self.start as usize;
        block.get(start..start + self.len as usize).unwrap_or_default()
    }
}

/// The protocol family whose encoding a message's properties are in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Origin {
    /// AMQP 0-9-1 basic properties: flags and values as on the wire.
    Amqp091 = 1,
    /// MQTT: one byte of flags ([`MQTT_QOS`] and what the protocol adds), then the property block of MQTT 5.
    Mqtt = 2,
}

/// The bits of the first byte of an MQTT message's properties that hold the QoS it was published with.
pub const MQTT_QOS: u8 = 0b11;

impl Origin {
    /// The origin with that number in a stored record.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Amqp091, Self::Mqtt].into_iter().find(|origin| *origin as u8 == number)
    }
}

/// What every queue needs to know of a message without parsing it again.
#[derive(Clone, Copy, Debug)]
pub struct Facts {
    /// Name of the exchange that it was published to.
    pub exchange: Span,
    /// The routing key of the publish.
    pub routing_key: Span,
    /// Properties in the encoding of `origin`.
    pub properties: Span,
    /// The body.
    pub body: Span,
    /// Whose encoding the properties are in.
    pub origin: Origin,
    /// Priority, 0 when not given.
    pub priority: u8,
    /// The publisher asked for it to survive a restart.
    pub persistent: bool,
    /// Time to live in milliseconds, when the publisher set one.
    pub ttl: Option<u64>,
}

struct Header {
    facts: Facts,
    /// Where the content is stored, 0 as long as it is not: a message in many queues is stored once.
    stored: AtomicU64,
}

/// An immutable message. Cloning shares it.
#[derive(Clone)]
pub struct Message(ThinArc<Header, u8>);

impl Message {
    /// Copies `block` into a new message; this is the only allocation that a message costs.
    pub fn new(facts: Facts, block: &[u8]) -> Self {
        Self(ThinArc::from_header_and_slice(Header { facts, stored: AtomicU64::new(0) }, block))
    }

    /// Makes a message of separate pieces.
    pub fn assemble(facts: Facts, exchange: &[u8], routing_key: &[u8], properties: &[u8], body: &[u8]) -> Self {
        let mut block = Vec::with_capacity(exchange.len() + routing_key.len() + properties.len() + body.len());
        let mut put = |piece: &[u8]| {
            let span = Span::new(block.len(), piece.len());
            block.extend_from_slice(piece);
            span
        };
        let facts = Facts {
            exchange: put(exchange),
            routing_key: put(routing_key),
            properties: put(properties),
            body: put(body),
            ..facts
        };
        Self::new(facts, &block)
    }

    /// The parsed facts.
    pub fn facts(&self) -> &Facts {
        &self.0.header.header.facts
    }

    /// Name of the exchange that it was published to.
    pub fn exchange(&self) -> &[u8] {
        self.facts().exchange.of(&self.0.slice)
    }

    /// The routing key of the publish.
    pub fn routing_key(&self) -> &[u8] {
        self.facts().routing_key.of(&self.0.slice)
    }

    /// The properties, in the encoding of [`Facts::origin`].
    pub fn properties(&self) -> &[u8] {
        self.facts().properties.of(&self.0.slice)
    }

    /// The body.
    pub fn body(&self) -> &[u8] {
        self.facts().body.of(&self.0.slice)
    }

    /// The delivery guarantee that its publisher gave it, in MQTT's numbers: for other protocols, a persistent
    /// message is delivered at least once.
    pub fn qos(&self) -> u8 {
        match self.facts().origin {
            Origin::Amqp091 => u8::from(self.facts().persistent),
            Origin::Mqtt => self.properties().first().map_or(0, |flags| flags & MQTT_QOS),
        }
    }

    /// Bytes of memory that it holds.
    pub fn footprint(&self) -> usize {
        self.0.slice.len() + size_of::<Header>() + 2 * size_of::<usize>()
    }

    /// Where the content is stored.
    pub fn stored(&self) -> Option<Position> {
        Position::from_number(self.0.header.header.stored.load(Ordering::Relaxed))
    }

    /// Remembers where the content was stored.
    ///
    /// Relaxed is enough: the position only saves a second copy of the body, and whoever reads it takes the
    /// journal's lock before acting on it.
    pub fn set_stored(&self, position: Position) {
        self.0.header.header.stored.store(position.number(), Ordering::Relaxed);
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("exchange", &String::from_utf8_lossy(self.exchange()))
            .field("routing_key", &String::from_utf8_lossy(self.routing_key()))
            .field("body_bytes", &self.body().len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_come_back_as_they_went_in() {
        let facts = Facts {
            exchange: Span::default(),
            routing_key: Span::default(),
            properties: Span::default(),
            body: Span::default(),
            origin: Origin::Amqp091,
            priority: 0,
            persistent: true,
            ttl: None,
        };
        let message = Message::assemble(facts, b"amq.topic", b"a.b", &[0, 0], b"body");
        assert_eq!(message.exchange(), b"amq.topic");
        assert_eq!(message.routing_key(), b"a.b");
        assert_eq!(message.properties(), [0, 0]);
        assert_eq!(message.body(), b"body");
        assert_eq!(message.stored(), None);
    }

    #[test]
    fn a_span_outside_the_block_is_empty_rather_than_a_panic() {
        assert_eq!(Span { start: 5, len: 9 }.of(b"short"), b"");
    }
}
