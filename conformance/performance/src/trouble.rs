//! Why a run stopped before its end.

use crate::wire::Malformed;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the broker closed: {0}")]
    Closed(String),
    #[error("{0}")]
    Unexpected(String),
}

impl Trouble {
    /// From the arguments of connection.close or channel.close.
    pub(crate) fn closed(args: &[u8]) -> Self {
        let code = args.first_chunk::<2>().map_or(0, |code| u16::from_be_bytes(*code));
        let text = args.get(3..).map(|rest| &rest[..rest.len().min(args[2] as usize)]).unwrap_or_default();
        Self::Closed(format!("{code} {}", String::from_utf8_lossy(text)))
    }

    /// From what follows the fixed header of an MQTT DISCONNECT.
    pub(crate) fn disconnected(payload: &[u8]) -> Self {
        Self::Closed(format!("DISCONNECT with reason {:#04x}", payload.first().copied().unwrap_or(0)))
    }

    /// Whether the connection is gone, as it is when a broker dies, rather than misused.
    pub(crate) fn is_disconnect(&self) -> bool {
        matches!(self, Self::Io(_) | Self::Closed(_))
    }
}
