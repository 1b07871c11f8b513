//! What a server sends, appended to an output buffer as whole packets.

mod answers;
mod connack;
mod publish;

pub use answers::{ack, auth, disconnect, pingresp, suback, unsuback};
pub use connack::{Connack, connack};
pub use publish::{Delivery, publish, publish_head};

use super::Version;
use super::frame::MAX_REMAINING;
use super::property::{Id, Value};

/// What the client said that binds the server's encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Version of the connection.
    pub version: Version,
    /// Maximum Packet Size; `u32::MAX` if there is none. A packet that does not fit without its explanations is
    /// not sent (MQTT5-3.1.2-24, -25).
    pub max_packet: u32,
    /// Request Problem Information (MQTT5-3.1.2-29).
    pub problem_information: bool,
}

impl Peer {
    /// A client that said nothing of limits.
    pub fn new(version: Version) -> Self {
        Self { version, max_packet: u32::MAX, problem_information: true }
    }
}

/// Words for people, left out where the client does not want or cannot take them; 5.0 only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Explanation<'a> {
    /// Reason String
    pub reason_string: Option<&'a str>,
    /// User Properties
    pub user_properties: &'a [(&'a str, &'a str)],
}

impl<'a> Explanation<'a> {
    /// Nothing to add.
    pub const NONE: Self = Self { reason_string: None, user_properties: &[] };

    /// A reason string.
    pub fn text(text: &'a str) -> Self {
        Self { reason_string: Some(text), user_properties: &[] }
    }

    fn is_empty(self) -> bool {
        self.reason_string.is_none() && self.user_properties.is_empty()
    }
}

/// Appends a property, or nothing if a text or binary value has more than 65 535 bytes; says which.
pub fn put_property(out: &mut Vec<u8>, id: Id, value: Value<'_>) -> bool {
    let fits = |length: usize| length <= usize::from(u16::MAX);
    let ok = match value {
        Value::Text(text) => fits(text.len()),
        Value::Bytes(bytes) => fits(bytes.len()),
        Value::Pair(name, text) => fits(name.len()) && fits(text.len()),
        Value::Byte(_) | Value::Two(_) | Value::Four(_) | Value::Var(_) => true,
    };
    if !ok {
        return false;
    }
    out.push(id.code());
    match value {
        Value::Byte(byte) => out.push(byte),
        Value::Two(number) => out.extend(number.to_be_bytes()),
        Value::Four(number) => out.extend(number.to_be_bytes()),
        Value::Var(number) => put_var(out, number),
        Value::Text(text) => put_bytes(out, text.as_bytes()),
        Value::Bytes(bytes) => put_bytes(out, bytes),
        Value::Pair(name, text) => {
            put_bytes(out, name.as_bytes());
            put_bytes(out, text.as_bytes());
        }
    }
    true
}

/// A Variable Byte Integer in its shortest form; `number` is at most 268 435 455.
#[inline]
pub(crate) fn put_var(out: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Bytes that a Variable Byte Integer takes.
#[inline]
fn var_size(number: usize) -> usize {
    match number {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

/// Bytes behind a length of two; the caller knows that they fit.
fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    debug_assert!(bytes.len() <= usize::from(u16::MAX), "checked by the caller");
    out.extend((bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// The parts of a 5.0 packet that may explain itself.
struct Parts<'a> {
    first: u8,
    /// What comes before the properties.
    head: &'a [u8],
    /// Properties that stay whatever the size.
    own: Vec<u8>,
    explanation: Explanation<'a>,
    /// What comes behind the properties.
    tail: &'a [u8],
}

impl Parts<'_> {
    /// Appends the packet with as much explanation as fits: MQTT5-3.2.2-19, -20, 3.4.2-2, -3 and their like.
    fn put(mut self, out: &mut Vec<u8>, peer: Peer) -> bool {
        let bare = self.own.len();
        if let Some(text) = self.explanation.reason_string {
            put_property(&mut self.own, Id::ReasonString, Value::Text(text));
        }
        let explained = self.own.len();
        for (name, text) in self.explanation.user_properties {
            put_property(&mut self.own, Id::UserProperty, Value::Pair(name, text));
        }
        let Some(block) = [self.own.len(), explained, bare].into_iter().find(|block| self.fits(*block, peer)) else {
            return false;
        };
        out.push(self.first);
        put_var(out, self.remaining(block) as u32);
        out.extend_from_slice(self.head);
        put_var(out, block as u32);
        out.extend(self.own.iter().take(block));
        out.extend_from_slice(self.tail);
        true
    }

    fn remaining(&self, block: usize) -> usize {
        self.head.len() + var_size(block) + block + self.tail.len()
    }

    fn fits(&self, block: usize, peer: Peer) -> bool {
        let remaining = self.remaining(block);
        remaining <= MAX_REMAINING && 1 + var_size(remaining) + remaining <= peer.max_packet as usize
    }
}

/// Appends a packet whose few bytes are known; `false` if the client cannot take even those.
#[inline]
fn put_short(out: &mut Vec<u8>, peer: Peer, packet: &[u8]) -> bool {
    let fits = packet.len() <= peer.max_packet as usize;
    if fits {
        out.extend_from_slice(packet);
    }
    fits
}
