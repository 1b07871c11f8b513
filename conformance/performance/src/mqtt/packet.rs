//! MQTT packets on the wire, written from templates and read in place; the numbers in brackets are clauses of MQTT 5.0.

use crate::wire::Malformed;

/// A topic, and so a packet id and some octets more, fits beside any body that the generator writes.
const REMAINING_MAX: usize = 0x0FFF_FFFF;

/// The property of CONNACK that says how many messages may be unacknowledged [3.2.2.3.3].
const RECEIVE_MAXIMUM: u8 = 0x21;
const SESSION_EXPIRY: u8 = 0x11;
/// Seconds that a durable session is kept, where MQTT 5 must be told.
const KEPT: u32 = 3600;
/// Reason codes from here on are errors [2.4].
const ERROR: u8 = 0x80;

/// The level that is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    V4,
    V5,
}

/// The kinds of packet, by their number [2.1.2].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Connect = 1,
    ConnAck = 2,
    Publish = 3,
    PubAck = 4,
    PubRec = 5,
    PubRel = 6,
    PubComp = 7,
    Subscribe = 8,
    SubAck = 9,
    Unsubscribe = 10,
    UnsubAck = 11,
    PingReq = 12,
    PingResp = 13,
    Disconnect = 14,
}

const KINDS: [Kind; 14] = [
    Kind::Connect,
    Kind::ConnAck,
    Kind::Publish,
    Kind::PubAck,
    Kind::PubRec,
    Kind::PubRel,
    Kind::PubComp,
    Kind::Subscribe,
    Kind::SubAck,
    Kind::Unsubscribe,
    Kind::UnsubAck,
    Kind::PingReq,
    Kind::PingResp,
    Kind::Disconnect,
];

/// A PUBLISH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Publish<'a> {
    pub(crate) topic: &'a [u8],
    /// 0 at QoS 0.
    pub(crate) id: u16,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    pub(crate) body: &'a [u8],
}

/// What the other side said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packet<'a> {
    Publish(Publish<'a>),
    /// PUBACK, PUBREC, PUBREL, PUBCOMP, and whether the reason is no error.
    Ack {
        kind: Kind,
        id: u16,
        good: bool,
    },
    /// Any other with what follows its fixed header.
    Other(Kind, &'a [u8]),
}

/// Reads the first packet of `input` and says how many octets it took; `None` until it is all there.
#[inline]
pub(crate) fn next(input: &[u8], level: Level) -> Result<Option<(Packet<'_>, usize)>, Malformed> {
    let Some((&first, rest)) = input.split_first() else {
        return Ok(None);
    };
    let Some((length, head)) = length(rest)? else {
        return Ok(None);
    };
    let Some(payload) = rest.get(head..head + length) else {
        return Ok(None);
    };
    let kind = *KINDS.get(usize::from(first >> 4).wrapping_sub(1)).ok_or(Malformed("no such kind of packet"))?;
    let packet = match kind {
        Kind::Publish => Packet::Publish(publish(first, payload, level)?),
        Kind::PubAck | Kind::PubRec | Kind::PubRel | Kind::PubComp => {
            let Some((id, rest)) = payload.split_first_chunk::<2>() else {
                return Err(Malformed("an acknowledgement that ends early"));
            };
            Packet::Ack { kind, id: u16::from_be_bytes(*id), good: rest.first().is_none_or(|&reason| reason < ERROR) }
        }
        kind => Packet::Other(kind, payload),
    };
    Ok(Some((packet, 1 + head + length)))
}

/// A variable byte integer and how many octets it takes [1.5.5].
#[inline]
fn length(input: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    let mut value = 0;
    for (at, &octet) in input.iter().take(4).enumerate() {
        value |= usize::from(octet & 0x7F) << (7 * at);
        if octet & 0x80 == 0 {
            return Ok(Some((value, at + 1)));
        }
    }
    if input.len() < 4 { Ok(None) } else { Err(Malformed("a length of more than four octets")) }
}

#[inline]
fn publish(first: u8, payload: &[u8], level: Level) -> Result<Publish<'_>, Malformed> {
    let short = Malformed("a PUBLISH that ends early");
    let qos = first >> 1 & 3;
    if qos == 3 {
        return Err(Malformed("a PUBLISH with QoS 3"));
    }
    let Some((topic, mut body)) = text(payload) else {
        return Err(short);
    };
    let mut id = 0;
    if qos > 0 {
        let Some((number, rest)) = body.split_first_chunk::<2>() else {
            return Err(short);
        };
        (id, body) = (u16::from_be_bytes(*number), rest);
    }
    if level == Level::V5 {
        body = properties(body).ok_or(short)?.1;
    }
    Ok(Publish { topic, id, qos, retain: first & 1 != 0, dup: first & 8 != 0, body })
}

/// A text and what follows it.
#[inline]
pub(crate) fn text(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (size, rest) = input.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*size)))
}

/// A block of properties and what follows it.
#[inline]
pub(crate) fn properties(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let (size, head) = length(input).ok()??;
    input.get(head..)?.split_at_checked(size)
}

/// What CONNACK says: its reason, and how many messages may be unacknowledged.
pub(crate) fn welcome(payload: &[u8], level: Level) -> Option<(u8, u16)> {
    let reason = *payload.get(1)?;
    let offered = match level {
        Level::V4 => None,
        Level::V5 => properties(payload.get(2..)?).and_then(|(block, _)| receive_maximum(block)),
    };
    Some((reason, offered.unwrap_or(u16::MAX)))
}

fn receive_maximum(mut block: &[u8]) -> Option<u16> {
    loop {
        let (&name, rest) = block.split_first()?;
        let taken = match name {
            RECEIVE_MAXIMUM => return Some(u16::from_be_bytes(*rest.first_chunk()?)),
            0x24 | 0x25 | 0x28..=0x2A => 1,
            0x13 | 0x22 => 2,
            0x11 | 0x27 => 4,
            // Texts, and the authentication data that looks like one.
            0x12 | 0x15 | 0x16 | 0x1A | 0x1C | 0x1F => 2 + text(rest)?.0.len(),
            // A user property has two texts.
            0x26 => 4 + text(rest)?.0.len() + text(text(rest)?.1)?.0.len(),
            _ => return None,
        };
        block = rest.get(taken..)?;
    }
}

/// How many of a SUBACK's filters were refused.
pub(crate) fn refused(payload: &[u8], level: Level) -> Option<usize> {
    let rest = payload.get(2..)?;
    let codes = if level == Level::V5 { properties(rest)?.1 } else { rest };
    Some(codes.iter().filter(|&&code| code >= ERROR).count())
}

/// Who connects, and how.
#[derive(Clone, Debug)]
pub(crate) struct Login<'a> {
    pub(crate) level: Level,
    pub(crate) client: &'a str,
    pub(crate) user: Option<&'a str>,
    pub(crate) password: Option<&'a str>,
    /// Seconds; 0: none.
    pub(crate) keep_alive: u16,
    /// Whether the session outlives the connection.
    pub(crate) durable: bool,
}

/// A CONNECT.
pub(crate) fn connect(login: &Login<'_>) -> Vec<u8> {
    let flag = |on: bool, bit: u8| u8::from(on) << bit;
    let flags = flag(!login.durable, 1) | flag(login.password.is_some(), 6) | flag(login.user.is_some(), 7);
    let mut body = Vec::new();
    put_text(&mut body, b"MQTT");
    body.extend([if login.level == Level::V5 { 5 } else { 4 }, flags]);
    body.extend(login.keep_alive.to_be_bytes());
    if login.level == Level::V5 {
        if login.durable {
            body.extend([5, SESSION_EXPIRY]);
            body.extend(KEPT.to_be_bytes());
        } else {
            body.push(0);
        }
    }
    for part in [Some(login.client), login.user, login.password].into_iter().flatten() {
        put_text(&mut body, part.as_bytes());
    }
    with_head(0x10, &body)
}

/// A SUBSCRIBE with all of `filters`, which are at least one.
pub(crate) fn subscribe<'a>(level: Level, id: u16, filters: impl Iterator<Item = &'a str>, qos: u8) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if level == Level::V5 {
        body.push(0);
    }
    for filter in filters {
        put_text(&mut body, filter.as_bytes());
        body.push(qos);
    }
    with_head(0x82, &body)
}

/// The four octets of an acknowledgement that says nothing but its id.
#[inline]
pub(crate) fn ack(kind: Kind, id: u16) -> [u8; 4] {
    let [a, b] = id.to_be_bytes();
    // PUBREL has a reserved flag set [3.6.1].
    let flags = if kind == Kind::PubRel { 2 } else { 0 };
    [(kind as u8) << 4 | flags, 2, a, b]
}

/// A PINGREQ.
pub(crate) const PING_REQUEST: [u8; 2] = [0xC0, 0];
/// A DISCONNECT without a reason.
pub(crate) const DISCONNECT: [u8; 2] = [0xE0, 0];

/// A packet with its fixed header.
pub(crate) fn with_head(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    put_length(&mut out, payload.len());
    out.extend_from_slice(payload);
    out
}

fn put_length(out: &mut Vec<u8>, value: usize) {
    let mut left = value.min(REMAINING_MAX);
    while left > 0x7F {
        out.push((left & 0x7F) as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u16).to_be_bytes());
    out.extend_from_slice(text);
}

/// Everything of a PUBLISH that is the same for each message to a topic.
pub(crate) struct Envelope {
    before: Vec<u8>,
    numbered: bool,
    after: &'static [u8],
}

impl Envelope {
    /// For bodies of `size` octets.
    pub(crate) fn new(level: Level, topic: &str, size: usize, qos: u8, retain: bool) -> Self {
        let after: &[u8] = if level == Level::V5 { &[0] } else { &[] };
        let numbered = qos > 0;
        let mut before = vec![0x30 | qos << 1 | u8::from(retain)];
        put_length(&mut before, 2 + topic.len() + 2 * usize::from(numbered) + after.len() + size);
        put_text(&mut before, topic.as_bytes());
        Self { before, numbered, after }
    }

    /// Writes one message, its body by `body`. At QoS 0 there is no id.
    #[inline]
    pub(crate) fn append(&self, out: &mut Vec<u8>, id: u16, body: impl FnOnce(&mut Vec<u8>)) {
        out.extend_from_slice(&self.before);
        if self.numbered {
            out.extend_from_slice(&id.to_be_bytes());
        }
        out.extend_from_slice(self.after);
        body(out);
    }
}

#[cfg(test)]
mod tests;
