//! DISCONNECT and AUTH.

use super::flags;
use crate::codec::malformed::Malformed;
use crate::codec::property::{self, Id, Place, Value};
use crate::codec::reader::Reader;
use crate::codec::{Frame, Version};
use crate::reason::Reason;

/// A client's farewell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Success is a normal disconnection, and what 3.x means; only it throws the Will away (MQTT5-3.14.4-3).
    pub reason: Reason,
    /// Session Expiry Interval, if it is to change.
    pub session_expiry: Option<u32>,
    /// Reason String
    pub reason_string: Option<&'a str>,
    /// All properties as they came.
    pub properties: &'a [u8],
}

/// A step of an enhanced authentication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Continue authentication or Re-authenticate.
    pub reason: Reason,
    /// Authentication Method
    pub method: &'a str,
    /// Authentication Data
    pub data: Option<&'a [u8]>,
    /// All properties as they came.
    pub properties: &'a [u8],
}

pub(super) fn disconnect<'a>(frame: &Frame<'a>, version: Version) -> Result<Disconnect<'a>, Malformed> {
    flags(frame, 0, version)?; // MQTT-3.14.1-1
    let mut found = Disconnect { reason: Reason::Success, session_expiry: None, reason_string: None, properties: &[] };
    let mut reader = Reader::new(frame.body);
    if version != Version::V5 {
        reader.end()?;
        return Ok(found);
    }
    // 3.14.2.1, 3.14.2.2.1: both may be missing.
    if !reader.is_empty() {
        found.reason = legal(reader.byte()?)?;
    }
    if !reader.is_empty() {
        found.properties = reader.properties()?;
    }
    reader.end()?;
    property::read(found.properties, Place::Disconnect, |id, value| match (id, value) {
        (Id::SessionExpiryInterval, Value::Four(seconds)) => found.session_expiry = Some(seconds),
        (Id::ReasonString, Value::Text(text)) => found.reason_string = Some(text),
        _ => (),
    })?;
    Ok(found)
}

/// MQTT5-3.14.2-1, the codes that a client may use.
fn legal(code: u8) -> Result<Reason, Malformed> {
    Reason::from_code(code)
        .filter(|_| matches!(code, 0 | 0x04 | 0x80..=0x83 | 0x90 | 0x93..=0x99))
        .ok_or(Malformed::protocol("DISCONNECT has a reason code that a client may not use"))
}

pub(super) fn auth<'a>(frame: &Frame<'a>) -> Result<Auth<'a>, Malformed> {
    flags(frame, 0, Version::V5)?; // MQTT5-3.15.1-1
    let mut reader = Reader::new(frame.body);
    // 3.15.2.1: without a code it is Success, which is the server's alone (MQTT5-3.15.2-1).
    let code = if reader.is_empty() { 0 } else { reader.byte()? };
    let reason = Reason::from_code(code)
        .filter(|reason| matches!(reason, Reason::ContinueAuthentication | Reason::ReAuthenticate))
        .ok_or(Malformed::protocol("AUTH has a reason code that a client may not use"))?;
    let properties = if reader.is_empty() { &[] } else { reader.properties()? };
    reader.end()?;
    let (mut method, mut data) = (None, None);
    property::read(properties, Place::Auth, |id, value| match (id, value) {
        (Id::AuthenticationMethod, Value::Text(text)) => method = Some(text),
        (Id::AuthenticationData, Value::Bytes(bytes)) => data = Some(bytes),
        _ => (),
    })?;
    // 3.15.2.2.2
    let method = method.ok_or(Malformed::protocol("AUTH comes without an Authentication Method"))?;
    Ok(Auth { reason, method, data, properties })
}
