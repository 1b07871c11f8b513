//! Bytes to packets and back: what a client may send is decoded without a copy, what a server sends is appended to
//! an output buffer.

pub mod connect;
pub mod decode;
pub mod encode;
mod frame;
mod malformed;
pub mod property;
mod reader;

pub use connect::Connect;
pub use decode::Packet;
pub use frame::{Frame, MAX_PACKET, split};
pub use malformed::Malformed;

/// A version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Version {
    /// 3.1: `MQIsdp`, level 3
    V31,
    /// 3.1.1: `MQTT`, level 4
    V311,
    /// 5.0: `MQTT`, level 5
    V5,
}

/// How often a message may arrive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Qos {
    /// QoS 0
    #[default]
    AtMostOnce = 0,
    /// QoS 1
    AtLeastOnce = 1,
    /// QoS 2
    ExactlyOnce = 2,
}

impl Qos {
    /// From two bits; 3 is none (MQTT-3.3.1-4).
    pub fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }

    /// The two bits.
    pub fn bits(self) -> u8 {
        self as u8
    }
}

/// The four packets that settle a PUBLISH.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AckKind {
    /// Answers a PUBLISH of QoS 1.
    Puback,
    /// Answers a PUBLISH of QoS 2.
    Pubrec,
    /// Answers PUBREC.
    Pubrel,
    /// Answers PUBREL.
    Pubcomp,
}

impl AckKind {
    /// First byte on the wire (MQTT-3.6.1-1: PUBREL has a bit set).
    pub fn first(self) -> u8 {
        match self {
            Self::Puback => 0x40,
            Self::Pubrec => 0x50,
            Self::Pubrel => 0x62,
            Self::Pubcomp => 0x70,
        }
    }
}
