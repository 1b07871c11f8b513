//! How a record's payload looks in the journal, and how it is read back from any bytes whatsoever.

use portolan_core::message::{Facts, Message, Origin, Span};
use portolan_core::store::{Content, Position, QueueId, Record, SeqRange};
use thiserror::Error;

/// Newest version of the payloads below that this code writes and reads.
pub const VERSION: u8 = 1;

/// What a frame of the journal holds. Numbers from 16 are the journal's own marks and take no index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A message entered a queue, content included.
    Enqueued = 1,
    /// A message entered a queue, its content is in another record.
    Referred = 2,
    /// Messages left a queue.
    Settled = 3,
    /// Messages had been delivered before.
    Redelivered = 4,
    /// A queue is gone.
    Dropped = 5,
    /// The catalogue learned something.
    Fact = 6,
    /// The catalogue forgot something.
    Forgotten = 7,
    /// Clients have taken messages over.
    Released = 8,
    /// Messages came back from consumers.
    Returned = 9,
    /// Begins a chunk: everything before its group was on stable storage when it was written. Says how long the chunk
    /// is, and whether its group goes on in the next segment.
    Round = 16,
    /// The index at the end of a sealed segment.
    Index = 17,
    /// Every earlier record with a higher index than it names is void.
    Truncated = 18,
    /// Segments below the one it names are gone on purpose.
    Discarded = 19,
    /// The store was opened.
    Opened = 20,
    /// The store was closed in good order.
    Closed = 21,
    /// Fills the place of damaged bytes that an operator chose to skip.
    Gap = 22,
}

impl Kind {
    /// The kind with that number.
    pub fn from_number(number: u8) -> Option<Self> {
        const ALL: [Kind; 16] = [
            Kind::Enqueued,
            Kind::Referred,
            Kind::Settled,
            Kind::Redelivered,
            Kind::Dropped,
            Kind::Fact,
            Kind::Forgotten,
            Kind::Released,
            Kind::Returned,
            Kind::Round,
            Kind::Index,
            Kind::Truncated,
            Kind::Discarded,
            Kind::Opened,
            Kind::Closed,
            Kind::Gap,
        ];
        ALL.into_iter().find(|kind| *kind as u8 == number)
    }

    /// A record of the broker rather than a mark of the journal.
    pub fn is_record(self) -> bool {
        (self as u8) < Kind::Round as u8
    }
}

/// Bytes that are no payload of their kind.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

/// A record as it was read back.
#[derive(Clone, Copy, Debug)]
pub enum Stored<'a> {
    /// See [`Record::Enqueued`] with inline content.
    Enqueued(Enqueued<'a>),
    /// See [`Record::Enqueued`] with content elsewhere.
    Referred {
        /// The queue.
        queue: QueueId,
        /// Its sequence number there.
        seq: u64,
        /// Milliseconds since the epoch, 0 for never.
        expires_at: u64,
        /// Where the content is.
        content: Position,
    },
    /// See [`Record::Settled`].
    Settled {
        /// The queue.
        queue: QueueId,
        /// Which ones.
        ranges: Ranges<'a>,
    },
    /// See [`Record::Redelivered`].
    Redelivered {
        /// The queue.
        queue: QueueId,
        /// Which ones.
        ranges: Ranges<'a>,
    },
    /// See [`Record::Released`].
    Released {
        /// The queue.
        queue: QueueId,
        /// Which ones.
        ranges: Ranges<'a>,
    },
    /// See [`Record::Returned`].
    Returned {
        /// The queue.
        queue: QueueId,
        /// Which ones.
        ranges: Ranges<'a>,
        /// How often.
        times: u32,
    },
    /// See [`Record::Dropped`].
    Dropped {
        /// The queue.
        queue: QueueId,
    },
    /// See [`Record::Fact`].
    Fact {
        /// Names the fact.
        key: &'a [u8],
        /// What is known.
        value: Option<&'a [u8]>,
    },
}

/// A message and its place in a queue, not yet copied out of the bytes it was read from.
#[derive(Clone, Copy, Debug)]
pub struct Enqueued<'a> {
    /// The queue.
    pub queue: QueueId,
    /// Its sequence number there.
    pub seq: u64,
    /// Milliseconds since the epoch, 0 for never.
    pub expires_at: u64,
    facts: Facts,
    block: &'a [u8],
}

impl Enqueued<'_> {
    /// Copies the message out: the one allocation that a read costs.
    pub fn message(&self) -> Message {
        Message::new(self.facts, self.block)
    }
}

/// The ranges of a stored record.
#[derive(Clone, Copy, Debug)]
pub struct Ranges<'a>(&'a [u8]);

impl Iterator for Ranges<'_> {
    type Item = SeqRange;

    fn next(&mut self) -> Option<SeqRange> {
        let (range, rest) = self.0.split_first_chunk::<16>()?;
        self.0 = rest;
        Some(SeqRange { first: u64_at(range, 0)?, count: u64_at(range, 8)? })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.0.len() / 16, Some(self.0.len() / 16))
    }
}

impl ExactSizeIterator for Ranges<'_> {
    fn len(&self) -> usize {
        self.0.len() / 16
    }
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
}

const ENQUEUED: usize = 40;
const PERSISTENT: u8 = 1;
const WITH_TTL: u8 = 2;

/// The kind of frame that a record becomes.
pub(crate) fn kind(record: &Record<'_>) -> Kind {
    match record {
        Record::Enqueued { content: Content::Inline(_), .. } => Kind::Enqueued,
        Record::Enqueued { content: Content::At(_), .. } => Kind::Referred,
        Record::Settled { .. } => Kind::Settled,
        Record::Redelivered { .. } => Kind::Redelivered,
        Record::Released { .. } => Kind::Released,
        Record::Returned { .. } => Kind::Returned,
        Record::Dropped { .. } => Kind::Dropped,
        Record::Fact { value: Some(_), .. } => Kind::Fact,
        Record::Fact { value: None, .. } => Kind::Forgotten,
    }
}

/// Bytes of the record's payload.
pub(crate) fn payload_len(record: &Record<'_>) -> usize {
    match record {
        Record::Enqueued { content: Content::Inline(message), .. } => {
            ENQUEUED
                + if message.facts().ttl.is_some() { 8 } else { 0 }
                + message.exchange().len()
                + message.routing_key().len()
                + message.properties().len()
                + message.body().len()
        }
        Record::Enqueued { content: Content::At(_), .. } => 32,
        Record::Settled { ranges, .. } | Record::Redelivered { ranges, .. } | Record::Released { ranges, .. } => {
            8 + 16 * ranges.len()
        }
        Record::Returned { ranges, .. } => 12 + 16 * ranges.len(),
        Record::Dropped { .. } => 8,
        Record::Fact { key, value: Some(value) } => 4 + key.len() + value.len(),
        Record::Fact { key, value: None } => key.len(),
    }
}

/// Appends the record's payload to `out`, exactly [`payload_len`] bytes.
pub(crate) fn write_payload(record: &Record<'_>, out: &mut Vec<u8>) {
    match record {
        Record::Enqueued { queue, seq, expires_at, content } => {
            let mut fixed = [0; ENQUEUED];
            fixed[0..8].copy_from_slice(&queue.0.to_le_bytes());
            fixed[8..16].copy_from_slice(&seq.to_le_bytes());
            fixed[16..24].copy_from_slice(&expires_at.to_le_bytes());
            match content {
                Content::Inline(message) => write_message(message, &mut fixed, out),
                Content::At(position) => {
                    fixed[24..32].copy_from_slice(&position.number().to_le_bytes());
                    out.extend_from_slice(&fixed[..32]);
                }
            }
        }
        Record::Settled { queue, ranges, .. }
        | Record::Redelivered { queue, ranges }
        | Record::Released { queue, ranges } => {
            out.extend_from_slice(&queue.0.to_le_bytes());
            write_ranges(ranges, out);
        }
        Record::Returned { queue, ranges, times } => {
            out.extend_from_slice(&queue.0.to_le_bytes());
            out.extend_from_slice(&times.to_le_bytes());
            write_ranges(ranges, out);
        }
        Record::Dropped { queue, .. } => out.extend_from_slice(&queue.0.to_le_bytes()),
        Record::Fact { key, value: Some(value) } => {
            out.extend_from_slice(&(key.len() as u32).to_le_bytes());
            out.extend_from_slice(key);
            out.extend_from_slice(value);
        }
        Record::Fact { key, value: None } => out.extend_from_slice(key),
    }
}

fn write_ranges(ranges: &[SeqRange], out: &mut Vec<u8>) {
    for range in ranges {
        out.extend_from_slice(&range.first.to_le_bytes());
        out.extend_from_slice(&range.count.to_le_bytes());
    }
}

fn write_message(message: &Message, fixed: &mut [u8; ENQUEUED], out: &mut Vec<u8>) {
    let facts = message.facts();
    let (exchange, routing_key, properties) = (message.exchange(), message.routing_key(), message.properties());
    fixed[24..28].copy_from_slice(&(exchange.len() as u32).to_le_bytes());
    fixed[28..32].copy_from_slice(&(routing_key.len() as u32).to_le_bytes());
    fixed[32..36].copy_from_slice(&(properties.len() as u32).to_le_bytes());
    fixed[36] = if facts.persistent { PERSISTENT } else { 0 } | if facts.ttl.is_some() { WITH_TTL } else { 0 };
    fixed[37] = facts.origin as u8;
    fixed[38] = facts.priority;
    out.extend_from_slice(fixed);
    if let Some(ttl) = facts.ttl {
        out.extend_from_slice(&ttl.to_le_bytes());
    }
    out.extend_from_slice(exchange);
    out.extend_from_slice(routing_key);
    out.extend_from_slice(properties);
    out.extend_from_slice(message.body());
}

/// Reads a record's payload back.
///
/// # Errors
/// The bytes are not a payload of that kind. Any bytes are safe to try.
pub fn decode(kind: Kind, payload: &[u8]) -> Result<Stored<'_>, Malformed> {
    let queue = || u64_at(payload, 0).map(QueueId).ok_or(Malformed("record without a queue"));
    match kind {
        Kind::Enqueued => decode_enqueued(payload).map(Stored::Enqueued),
        Kind::Referred => decode_referred(payload).ok_or(Malformed("reference cut short")),
        Kind::Settled => Ok(Stored::Settled { queue: queue()?, ranges: decode_ranges(payload, 8)? }),
        Kind::Redelivered => Ok(Stored::Redelivered { queue: queue()?, ranges: decode_ranges(payload, 8)? }),
        Kind::Released => Ok(Stored::Released { queue: queue()?, ranges: decode_ranges(payload, 8)? }),
        Kind::Returned => {
            let times = u32_at(payload, 8).ok_or(Malformed("count cut short"))?;
            Ok(Stored::Returned { queue: queue()?, ranges: decode_ranges(payload, 12)?, times })
        }
        Kind::Dropped => Ok(Stored::Dropped { queue: queue()? }),
        Kind::Fact => {
            let len = u32_at(payload, 0).ok_or(Malformed("fact cut short"))? as usize;
            let (key, value) = payload[4..].split_at_checked(len).ok_or(Malformed("fact cut short"))?;
            Ok(Stored::Fact { key, value: Some(value) })
        }
        Kind::Forgotten => Ok(Stored::Fact { key: payload, value: None }),
        Kind::Round | Kind::Index | Kind::Truncated | Kind::Discarded | Kind::Opened | Kind::Closed | Kind::Gap => {
            Err(Malformed("a mark of the journal, not a record"))
        }
    }
}

fn decode_ranges(payload: &[u8], at: usize) -> Result<Ranges<'_>, Malformed> {
    match payload.get(at..) {
        Some(ranges) if ranges.len() % 16 == 0 => Ok(Ranges(ranges)),
        _ => Err(Malformed("ranges cut short")),
    }
}

fn decode_referred(payload: &[u8]) -> Option<Stored<'_>> {
    Some(Stored::Referred {
        queue: QueueId(u64_at(payload, 0)?),
        seq: u64_at(payload, 8)?,
        expires_at: u64_at(payload, 16)?,
        content: Position::from_number(u64_at(payload, 24)?)?,
    })
}

fn decode_enqueued(payload: &[u8]) -> Result<Enqueued<'_>, Malformed> {
    let short = Malformed("message cut short");
    let (fixed, rest) = payload.split_first_chunk::<ENQUEUED>().ok_or(short)?;
    let length = |at| u32_at(fixed, at).map_or(usize::MAX, |length| length as usize);
    let (exchange, routing_key, properties) = (length(24), length(28), length(32));
    let flags = fixed[36];
    let (ttl, block) = if flags & WITH_TTL == 0 {
        (None, rest)
    } else {
        let (ttl, block) = rest.split_first_chunk::<8>().ok_or(short)?;
        (Some(u64::from_le_bytes(*ttl)), block)
    };
    let body = block
        .len()
        .checked_sub(exchange)
        .and_then(|left| left.checked_sub(routing_key))
        .and_then(|left| left.checked_sub(properties))
        .ok_or(short)?;
    let facts = Facts {
        exchange: Span::new(0, exchange),
        routing_key: Span::new(exchange, routing_key),
        properties: Span::new(exchange + routing_key, properties),
        body: Span::new(exchange + routing_key + properties, body),
        origin: Origin::from_number(fixed[37]).ok_or(Malformed("message of an unknown protocol"))?,
        priority: fixed[38],
        persistent: flags & PERSISTENT != 0,
        ttl,
    };
    let number = |at| u64_at(fixed, at).unwrap_or_default();
    Ok(Enqueued { queue: QueueId(number(0)), seq: number(8), expires_at: number(16), facts, block })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn facts(priority: u8, persistent: bool, ttl: Option<u64>) -> Facts {
        let nothing = Span::default();
        Facts {
            exchange: nothing,
            routing_key: nothing,
            properties: nothing,
            body: nothing,
            origin: Origin::Amqp091,
            priority,
            persistent,
            ttl,
        }
    }

    fn written(record: &Record<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        write_payload(record, &mut out);
        assert_eq!(out.len(), payload_len(record));
        out
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(any::<u8>(), 0..300)
    }

    proptest! {
        #[test]
        fn a_message_comes_back(
            (exchange, key, properties, body) in (bytes(), bytes(), bytes(), bytes()),
            (queue, seq, expires_at) in any::<(u64, u64, u64)>(),
            (priority, persistent, ttl) in any::<(u8, bool, Option<u64>)>(),
        ) {
            let message = Message::assemble(facts(priority, persistent, ttl), &exchange, &key, &properties, &body);
            let content = Content::Inline(&message);
            let record = Record::Enqueued { queue: QueueId(queue), seq, expires_at, content };
            let payload = written(&record);
            let Ok(Stored::Enqueued(stored)) = decode(kind(&record), &payload) else { panic!("no message") };
            prop_assert_eq!((stored.queue.0, stored.seq, stored.expires_at), (queue, seq, expires_at));
            let copy = stored.message();
            prop_assert_eq!(copy.exchange(), exchange);
            prop_assert_eq!(copy.routing_key(), key);
            prop_assert_eq!(copy.properties(), properties);
            prop_assert_eq!(copy.body(), body);
            let found = copy.facts();
            prop_assert_eq!((found.priority, found.persistent, found.ttl), (priority, persistent, ttl));
        }

        #[test]
        fn ranges_and_facts_come_back(
            queue in any::<u64>(),
            pairs in proptest::collection::vec(any::<(u64, u64)>(), 0..20),
            (key, value) in (bytes(), proptest::option::of(bytes())),
        ) {
            let ranges: Vec<_> = pairs.iter().map(|(first, count)| SeqRange { first: *first, count: *count }).collect();
            let record = Record::Settled { queue: QueueId(queue), ranges: &ranges, freed: &[] };
            let payload = written(&record);
            let Ok(Stored::Settled { queue: found, ranges: back }) = decode(kind(&record), &payload) else { panic!() };
            prop_assert_eq!(found.0, queue);
            prop_assert_eq!(back.collect::<Vec<_>>(), &ranges[..]);
            let record = Record::Returned { queue: QueueId(queue), ranges: &ranges, times: queue as u32 };
            let payload = written(&record);
            let Ok(Stored::Returned { ranges: back, times, .. }) = decode(kind(&record), &payload) else { panic!() };
            prop_assert_eq!((back.collect::<Vec<_>>(), times), (ranges, queue as u32));
            let record = Record::Fact { key: &key, value: value.as_deref() };
            let payload = written(&record);
            let Ok(Stored::Fact { key: k, value: v }) = decode(kind(&record), &payload) else { panic!() };
            prop_assert_eq!((k, v), (&key[..], value.as_deref()));
        }

        #[test]
        fn any_bytes_are_safe_to_decode(number in any::<u8>(), payload in bytes()) {
            let Some(kind) = Kind::from_number(number % 24) else { return Ok(()) };
            match decode(kind, &payload) {
                Ok(Stored::Enqueued(stored)) => prop_assert!(stored.message().body().len() <= payload.len()),
                Ok(
                    Stored::Settled { ranges, .. }
                    | Stored::Redelivered { ranges, .. }
                    | Stored::Released { ranges, .. }
                    | Stored::Returned { ranges, .. },
                ) => {
                    prop_assert!(ranges.count() <= payload.len() / 16);
                }
                Ok(_) | Err(Malformed(_)) => {}
            }
        }
    }
}
