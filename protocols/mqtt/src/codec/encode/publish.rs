//! PUBLISH on its way to a client, the packet that there are most of.

use super::{MAX_REMAINING, put_var, var_size};
use crate::codec::property::{self, Id};
use crate::codec::{Qos, Version};

/// A message for one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery<'a> {
    /// Sent before on this session (MQTT-3.3.1-1); never with QoS 0.
    pub dup: bool,
    /// The lower of what was published and what was granted.
    pub qos: Qos,
    /// RETAIN
    pub retain: bool,
    /// Left out with QoS 0.
    pub packet_id: u16,
    /// Topic name; empty where the alias is known to the client.
    pub topic: &'a str,
    /// What travels with the message, as [`property::travelling`] leaves it; 5.0 only, as all that follows but the
    /// payload.
    pub properties: &'a [u8],
    /// Topic Alias
    pub alias: Option<u16>,
    /// What is left of the Message Expiry Interval, in seconds (MQTT5-3.3.2-6).
    pub expiry: Option<u32>,
    /// Identifiers of the subscriptions that it is for (MQTT5-3.3.4-3, -4).
    pub identifiers: &'a [u32],
    /// The message.
    pub payload: &'a [u8],
}

impl Delivery<'_> {
    /// Bytes of the whole packet, to hold against the client's Maximum Packet Size; `None` if no packet can hold it.
    #[inline]
    pub fn size(&self, version: Version) -> Option<usize> {
        self.remaining(version).map(|remaining| 1 + var_size(remaining) + remaining)
    }

    #[inline]
    fn remaining(&self, version: Version) -> Option<usize> {
        let packet_id = if self.qos == Qos::AtMostOnce { 0 } else { 2 };
        let properties = match version {
            Version::V31 | Version::V311 => 0,
            Version::V5 => {
                let block = self.block();
                var_size(block) + block
            }
        };
        let remaining = 2 + self.topic.len() + packet_id + properties + self.payload.len();
        (self.topic.len() <= usize::from(u16::MAX) && remaining <= MAX_REMAINING).then_some(remaining)
    }

    /// Bytes of all the properties.
    #[inline]
    fn block(&self) -> usize {
        let alias = if self.alias.is_some() { 3 } else { 0 };
        let expiry = if self.expiry.is_some() { 5 } else { 0 };
        let identifiers: usize = self.identifiers.iter().map(|id| 1 + var_size(*id as usize)).sum();
        self.properties.len() + alias + expiry + identifiers
    }
}

/// Appends PUBLISH; `false` if no packet can hold it.
#[inline]
pub fn publish(out: &mut Vec<u8>, version: Version, delivery: &Delivery<'_>) -> bool {
    let Some(size) = delivery.size(version) else { return false };
    out.reserve(size);
    let fits = publish_head(out, version, delivery);
    out.extend_from_slice(delivery.payload);
    fits
}

/// Appends all of PUBLISH but its payload, which must follow; `false` if no packet can hold it.
#[inline]
pub fn publish_head(out: &mut Vec<u8>, version: Version, delivery: &Delivery<'_>) -> bool {
    debug_assert!(
        property::items(delivery.properties).all(|(id, _)| !id.is_per_hop()),
        "what is about one hop does not travel"
    );
    let Some(remaining) = delivery.remaining(version) else { return false };
    let dup = delivery.dup && delivery.qos != Qos::AtMostOnce; // MQTT-3.3.1-2
    out.push(0x30 | u8::from(dup) << 3 | delivery.qos.bits() << 1 | u8::from(delivery.retain));
    put_var(out, remaining as u32);
    out.extend((delivery.topic.len() as u16).to_be_bytes());
    out.extend_from_slice(delivery.topic.as_bytes());
    // MQTT-2.3.1-5
    if delivery.qos != Qos::AtMostOnce {
        out.extend(delivery.packet_id.to_be_bytes());
    }
    if version == Version::V5 {
        put_properties(out, delivery);
    }
    true
}

#[inline]
fn put_properties(out: &mut Vec<u8>, delivery: &Delivery<'_>) {
    put_var(out, delivery.block() as u32);
    if let Some(seconds) = delivery.expiry {
        out.push(Id::MessageExpiryInterval.code());
        out.extend(seconds.to_be_bytes());
    }
    if let Some(alias) = delivery.alias {
        out.push(Id::TopicAlias.code());
        out.extend(alias.to_be_bytes());
    }
    for id in delivery.identifiers {
        out.push(Id::SubscriptionIdentifier.code());
        put_var(out, *id);
    }
    out.extend_from_slice(delivery.properties);
}
