//! PUBACK, PUBREC, PUBREL and PUBCOMP.

use super::flags;
use crate::codec::malformed::Malformed;
use crate::codec::property::{self, Place};
use crate::codec::reader::Reader;
use crate::codec::{AckKind, Frame, Version};
use crate::reason::Reason;

/// A client's word on a PUBLISH, its own or the server's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// Which of the four.
    pub kind: AckKind,
    /// Packet identifier of the PUBLISH.
    pub packet_id: u16,
    /// Success before 5.0.
    pub reason: Reason,
    /// Properties as they came.
    pub properties: &'a [u8],
}

pub(super) fn decode<'a>(frame: &Frame<'a>, kind: AckKind, version: Version) -> Result<Ack<'a>, Malformed> {
    flags(frame, kind.first() & 0x0f, version)?; // MQTT-3.6.1-1
    let mut reader = Reader::new(frame.body);
    let packet_id = reader.packet_id()?;
    let mut ack = Ack { kind, packet_id, reason: Reason::Success, properties: &[] };
    if version != Version::V5 {
        reader.end()?;
        return Ok(ack);
    }
    // 3.4.2.1, 3.4.2.2.1: reason and properties may be missing from the end.
    if !reader.is_empty() {
        ack.reason = legal(kind, reader.byte()?)?;
    }
    if !reader.is_empty() {
        ack.properties = reader.properties()?;
        property::read(ack.properties, Place::Ack, |_, _| ())?;
    }
    reader.end()?;
    Ok(ack)
}

/// MQTT5-3.4.2-1, 3.5.2-1, 3.6.2-1, 3.7.2-1.
fn legal(kind: AckKind, code: u8) -> Result<Reason, Malformed> {
    let listed = match kind {
        AckKind::Puback | AckKind::Pubrec => {
            matches!(code, 0 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99)
        }
        AckKind::Pubrel | AckKind::Pubcomp => matches!(code, 0 | 0x92),
    };
    Reason::from_code(code)
        .filter(|_| listed)
        .ok_or(Malformed::protocol("an acknowledgement has a reason code that its type does not have"))
}
