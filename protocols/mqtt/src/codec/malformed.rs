//! What is wrong with a packet: the code that MQTT 5.0 has for it, and what the device's owner has to change.

use crate::reason::Reason;

/// Bytes that a client may not send. The connection is closed: with this reason in 5.0, in silence before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Code for CONNACK or DISCONNECT.
    pub reason: Reason,
    /// What to change; fit to be a reason string.
    pub text: &'static str,
}

impl Malformed {
    #[cold]
    pub(crate) const fn new(reason: Reason, text: &'static str) -> Self {
        Self { reason, text }
    }

    /// It cannot be read (0x81).
    #[cold]
    pub(crate) const fn packet(text: &'static str) -> Self {
        Self::new(Reason::MalformedPacket, text)
    }

    /// It can be read, but may not be said (0x82).
    #[cold]
    pub(crate) const fn protocol(text: &'static str) -> Self {
        Self::new(Reason::ProtocolError, text)
    }
}

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.reason, self.text)
    }
}

impl std::error::Error for Malformed {}
