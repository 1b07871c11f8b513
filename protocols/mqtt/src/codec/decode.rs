//! What a client may send after CONNECT, borrowed from the bytes that came.

mod ack;
mod closing;
mod publish;
mod subscribe;

pub use ack::Ack;
pub use closing::{Auth, Disconnect};
pub use publish::{Publish, publish};
pub(crate) use publish::{payload_is_text, topic_name};
pub use subscribe::{Filters, Names, RetainHandling, Subscribe, SubscribeOptions, Unsubscribe};

use super::malformed::Malformed;
use super::reader::Reader;
use super::{AckKind, Frame, Version};

/// A packet from a client, other than CONNECT.
#[derive(Clone, Debug)]
pub enum Packet<'a> {
    /// PUBLISH
    Publish(Publish<'a>),
    /// PUBACK, PUBREC, PUBREL, PUBCOMP
    Ack(Ack<'a>),
    /// SUBSCRIBE
    Subscribe(Subscribe<'a>),
    /// UNSUBSCRIBE
    Unsubscribe(Unsubscribe<'a>),
    /// PINGREQ
    Pingreq,
    /// DISCONNECT
    Disconnect(Disconnect<'a>),
    /// AUTH, only in 5.0
    Auth(Auth<'a>),
}

/// Decodes a packet that follows CONNECT; for PUBLISH alone, [`publish`] is quicker.
pub fn decode<'a>(frame: &Frame<'a>, version: Version) -> Result<Packet<'a>, Malformed> {
    if version == Version::V5 {
        frame.shortest()?;
    }
    match frame.kind() {
        // MQTT-3.1.0-2
        1 => Err(Malformed::protocol("CONNECT came a second time on the same connection")),
        3 => publish(frame, version).map(Packet::Publish),
        4 => ack::decode(frame, AckKind::Puback, version).map(Packet::Ack),
        5 => ack::decode(frame, AckKind::Pubrec, version).map(Packet::Ack),
        6 => ack::decode(frame, AckKind::Pubrel, version).map(Packet::Ack),
        7 => ack::decode(frame, AckKind::Pubcomp, version).map(Packet::Ack),
        8 => subscribe::subscribe(frame, version).map(Packet::Subscribe),
        10 => subscribe::unsubscribe(frame, version).map(Packet::Unsubscribe),
        12 => {
            flags(frame, 0, version)?;
            Reader::new(frame.body).end()?;
            Ok(Packet::Pingreq)
        }
        14 => closing::disconnect(frame, version).map(Packet::Disconnect),
        15 if version == Version::V5 => closing::auth(frame).map(Packet::Auth),
        2 | 9 | 11 | 13 => Err(Malformed::protocol("only servers send CONNACK, SUBACK, UNSUBACK and PINGRESP")),
        _ => Err(Malformed::packet("this version of MQTT has no packet of this type")),
    }
}

/// MQTT-2.2.2-1, MQTT-2.2.2-2, MQTT5-2.1.3-1. In 3.1 the flags are "not used" where they have no meaning, and a
/// SUBSCRIBE, UNSUBSCRIBE or PUBREL that is sent again has DUP set.
fn flags(frame: &Frame<'_>, expected: u8, version: Version) -> Result<(), Malformed> {
    match version == Version::V31 || frame.flags() == expected {
        true => Ok(()),
        false => Err(Malformed::packet("the flags in the packet's first byte are not those of its type")),
    }
}
