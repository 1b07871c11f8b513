//! basic.publish: from frames to a message on its way to its queues.

use std::sync::Arc;

use portolan_core::catalogue::Route;
use portolan_core::dead_letter::extra_keys;
use portolan_core::definition::LONGEST_MS;
use portolan_core::engine::Ask;
use portolan_core::exchange::ExchangeKind;
use portolan_core::message::{Facts, Message, Origin, Span};
use portolan_core::refusal::{Permission, Refusal};
use portolan_core::session::TOPICS;
use portolan_core::topology::{Caller, topic_permission};
use portolan_core::value::{Table, Value};

use crate::channel::Mode;
use crate::codec::encode::{self, Content};
use crate::codec::frame::{self, Frame, FrameKind};
use crate::codec::method::{self, PublishArgs};
use crate::codec::properties::{self, Edit, Edits, PropertyFacts};
use crate::codec::table;
use crate::consume::REPLY_TO;
use crate::engine::{Connection, method_ids};
use crate::handshake::Phase;
use crate::refusal::{Failure, type_name};

const PUBLISH: (u16, u16) = (60, 40);
/// What a publish's method frame has behind the frame header.
const PUBLISH_IDS: [u8; 4] = [0, 60, 0, 40];

/// A message whose frames are still coming in.
pub(crate) struct Incoming {
    /// Exchange and routing key in wire form, properties and body, as far as they are here.
    block: Vec<u8>,
    names: usize,
    exchange: Span,
    routing_key: Span,
    mandatory: bool,
    /// Length of the properties and the announced size of the body, once the header is here.
    header: Option<(usize, usize)>,
    /// Content that only a server may send: taken in and thrown away, as RabbitMQ 3.10 does.
    stray: bool,
}

impl Incoming {
    pub(crate) fn new(args: &PublishArgs<'_>) -> Self {
        Self {
            block: args.names.to_vec(),
            names: args.names.len(),
            exchange: args.exchange_span(0),
            routing_key: args.routing_key_span(0),
            mandatory: args.mandatory,
            header: None,
            stray: false,
        }
    }

    pub(crate) fn stray() -> Self {
        let none = Span::default();
        Self {
            block: Vec::new(),
            names: 0,
            exchange: none,
            routing_key: none,
            mandatory: false,
            header: None,
            stray: true,
        }
    }

    /// What to say to a frame that does not belong here.
    pub(crate) fn interrupted(&self) -> Failure {
        let text = match self.header {
            None => "expected content header for class 60, got non content header frame instead",
            Some(_) => "expected content body, got non content body frame instead",
        };
        Failure::connection(505, text)
    }

    fn body_here(&self) -> usize {
        self.header.map_or(0, |(properties, _)| self.block.len() - self.names - properties)
    }
}

/// A whole message in one block of bytes.
struct Piece<'a> {
    block: &'a [u8],
    names: &'a [u8],
    exchange: Span,
    routing_key: Span,
    properties: Span,
    body: Span,
    mandatory: bool,
}

impl<'a> Piece<'a> {
    fn at(&self, span: Span) -> &'a [u8] {
        let start = span.start as usize;
        self.block.get(start..start + span.len as usize).unwrap_or_default()
    }
}

impl Connection {
    /// Takes a publish whose method, header and body frame lie before us in one piece. `None` when they do not.
    #[inline]
    pub(crate) fn whole_publish(&mut self, input: &[u8]) -> Option<(usize, Option<Ask>)> {
        if input.get(7..11)? != PUBLISH_IDS || self.phase != Phase::Running {
            return None;
        }
        let frame = frame::split(input, self.frame_max).ok()??;
        if frame.kind != FrameKind::Method || frame.channel == 0 {
            return None;
        }
        let args = method::publish(frame.payload.get(4..)?)?;
        let key = self.key_of(frame.channel)?;
        let channel = self.channels.get(key as usize)?;
        if channel.closing || channel.incoming.is_some() || args.immediate {
            return None;
        }
        let of_channel = |at: usize, kind: FrameKind| -> Option<Frame<'_>> {
            let next = frame::split(input.get(at..)?, self.frame_max).ok()??;
            (next.kind == kind && next.channel == frame.channel).then_some(next)
        };
        let header = of_channel(frame.size, FrameKind::Header)?;
        let content = frame::content_header(header.payload)?;
        let body_size = usize::try_from(content.body_size).ok()?;
        if content.class != 60 || body_size > self.settings.message_max {
            return None;
        }
        let mut size = frame.size + header.size;
        // The block begins with the names, so that nothing before them is kept.
        let names_at = frame::HEADER + 4 + PublishArgs::NAMES_AT;
        let properties_at = size - 1 - content.properties.len() - names_at;
        let mut block_end = size - 1;
        let mut body_at = size - names_at;
        if body_size > 0 {
            let body = of_channel(size, FrameKind::Body)?;
            if body.payload.len() != body_size {
                return None;
            }
            body_at += frame::HEADER;
            size += body.size;
            block_end = size - 1;
        }
        let piece = Piece {
            block: input.get(names_at..block_end)?,
            names: args.names,
            exchange: args.exchange_span(0),
            routing_key: args.routing_key_span(0),
            properties: Span::new(properties_at, content.properties.len()),
            body: Span::new(body_at, body_size),
            mandatory: args.mandatory,
        };
        let ask = match self.publish(key, &piece) {
            Ok(()) => None,
            Err(failure) => self.refuse(key, PUBLISH, &failure),
        };
        Some((size, ask))
    }

    /// Whether to wait for the rest of a publish that could then be taken as one piece.
    pub(crate) fn waits_for_rest(&mut self, frame: &Frame<'_>, input: &[u8]) -> bool {
        if frame.kind != FrameKind::Method || method_ids(frame.payload) != PUBLISH || self.phase != Phase::Running {
            return false;
        }
        // Where no publish belongs, the answer must not wait for more of it.
        let takes_publishes = self.key_of(frame.channel).and_then(|key| self.channels.get(key as usize));
        if !takes_publishes.is_some_and(|channel| !channel.closing && channel.incoming.is_none()) {
            return false;
        }
        let next = |at: usize| input.get(at..).map(|rest| frame::split(rest, self.frame_max));
        match next(frame.size) {
            Some(Ok(None)) => true,
            Some(Ok(Some(header))) if header.kind == FrameKind::Header && header.channel == frame.channel => {
                let content = frame::content_header(header.payload).filter(|content| content.class == 60);
                let size = content.map_or(0, |content| content.body_size);
                let fits = size > 0 && size <= (self.frame_max - frame::OVERHEAD) as u64;
                fits && matches!(next(frame.size + header.size), Some(Ok(None)))
            }
            _ => false,
        }
    }

    /// A header or body frame.
    pub(crate) fn content_frame(&mut self, frame: &Frame<'_>) -> Option<Ask> {
        let Some(key) = self.key_of(frame.channel) else {
            return Some(self.fail((0, 0), &Failure::connection(504, "expected 'channel.open'")));
        };
        let channel = self.channels.get_mut(key as usize)?;
        if channel.closing {
            return None;
        }
        let Some(incoming) = &mut channel.incoming else {
            let text = "expected method frame, got non method frame instead";
            return Some(self.fail((0, 0), &Failure::connection(505, text)));
        };
        let step = match (frame.kind, incoming.header) {
            (FrameKind::Header, None) => take_header(incoming, frame, self.settings.message_max),
            (FrameKind::Body, Some((_, size))) => take_body(incoming, frame, size),
            _ => Err(incoming.interrupted()),
        };
        match step {
            Err(failure) => self.refuse(key, PUBLISH, &failure),
            Ok(false) => None,
            Ok(true) => self.publish_assembled(key),
        }
    }

    fn publish_assembled(&mut self, key: u32) -> Option<Ask> {
        let incoming = self.channels.get_mut(key as usize)?.incoming.take()?;
        let (properties, body) = incoming.header?;
        if incoming.stray {
            return None;
        }
        let piece = Piece {
            block: &incoming.block,
            names: incoming.block.get(..incoming.names)?,
            exchange: incoming.exchange,
            routing_key: incoming.routing_key,
            properties: Span::new(incoming.names, properties),
            body: Span::new(incoming.names + properties, body),
            mandatory: incoming.mandatory,
        };
        match self.publish(key, &piece) {
            Ok(()) => None,
            Err(failure) => self.refuse(key, PUBLISH, &failure),
        }
    }

    /// Routes a whole message and adds it to the batch.
    fn publish(&mut self, key: u32, piece: &Piece<'_>) -> Result<(), Failure> {
        self.published = true;
        self.tally.received += 1;
        let raw = piece.at(piece.properties);
        let known = properties::facts(raw)?;
        let plain = known.headers.is_none()
            && known.reply_to.is_none()
            && known.user_id.is_none()
            && known.expiration.is_none();
        let extra = if plain { Extra::default() } else { self.examine(key, raw, &known)? };
        let route = self.route(piece, raw, &extra)?;
        let facts = Facts {
            exchange: piece.exchange,
            routing_key: piece.routing_key,
            properties: piece.properties,
            body: piece.body,
            origin: Origin::Amqp091,
            priority: known.priority.unwrap_or(0),
            // RabbitMQ 4: any other value is transient.
            persistent: known.delivery_mode == Some(2),
            ttl: extra.ttl,
        };
        let message = || match &extra.properties {
            None => Message::new(facts, piece.block),
            Some(changed) => {
                let (exchange, key) = (piece.at(piece.exchange), piece.at(piece.routing_key));
                Message::assemble(facts, exchange, key, changed, piece.at(piece.body))
            }
        };
        if extra.retain && piece.at(piece.exchange) == TOPICS.as_bytes() {
            self.retain(&message())?;
        }
        let Some(channel) = self.channels.get_mut(key as usize) else { return Ok(()) };
        let tag = match &mut channel.mode {
            Mode::Plain => 0,
            Mode::Confirm(number) => {
                *number += 1;
                if self.confirming.last() != Some(&key) {
                    self.confirming.push(key);
                }
                self.tally.received_confirm += 1;
                self.tags.push((key, *number));
                self.tags.len() as u32
            }
            Mode::Transaction(transaction) => {
                let message = message();
                transaction.bytes += message.footprint();
                if transaction.bytes > self.settings.transaction_bytes {
                    return Err(Failure::connection(506, "the transaction is too large"));
                }
                match (route.targets.is_empty(), piece.mandatory) {
                    (false, _) => transaction.publishes.push((route.targets.clone(), message)),
                    (true, true) => transaction.returns.push(message),
                    (true, false) => {}
                }
                return Ok(());
            }
        };
        if route.targets.is_empty() {
            self.unroutable(key, piece, raw);
        } else {
            self.tally.routed += 1;
            self.batch.add(&route.targets, message(), tag);
        }
        Ok(())
    }

    /// Keeps the message for later subscribers to its topic. A transaction does not hold this back: what is retained
    /// is the topic's state and no delivery.
    fn retain(&mut self, message: &Message) -> Result<(), Failure> {
        let Some(vhost) = self.vhost.clone() else { return Ok(()) };
        self.broker.retain(&vhost, message, self.now, &mut self.effects)?;
        self.retained |= std::mem::take(&mut self.effects.persisted);
        Ok(())
    }

    /// A message that no queue takes: returned if the publisher asked for that, else dropped.
    fn unroutable(&mut self, key: u32, piece: &Piece<'_>, properties: &[u8]) {
        if !piece.mandatory {
            self.tally.dropped += 1;
            return;
        }
        self.tally.returned += 1;
        let Some(channel) = self.channels.get(key as usize) else { return };
        let mut inner = self.outbox.lock();
        let (deliveries, out) = inner.parts();
        let content = Content { names: piece.names, properties, body: piece.at(piece.body) };
        encode::basic_return(&mut out.bytes, channel.number, 312, "NO_ROUTE", content, deliveries.frame_max());
    }

    /// Finds the queues, from memory if this exchange and key were used before.
    fn route(&mut self, piece: &Piece<'_>, properties: &[u8], extra: &Extra) -> Result<Arc<Route>, Failure> {
        let Some(vhost) = &self.vhost else { return Err(Failure::connection(504, "expected 'connection.open'")) };
        let by_key = extra.keys.is_empty();
        if by_key && let Some(route) = self.routes.find(piece.names, vhost.generation()) {
            return Ok(route);
        }
        let vhost = Arc::clone(vhost);
        let malformed = || Failure::from(crate::codec::Malformed::NotUtf8);
        let exchange = std::str::from_utf8(piece.at(piece.exchange)).map_err(|_| malformed())?;
        let key = piece.at(piece.routing_key);
        if let Some(access) = &self.access {
            let caller = Caller { connection: self.id, access: &**access, now: self.now };
            caller.must(Permission::Write, &vhost.exchange(exchange))?;
            let snapshot = vhost.snapshot();
            if let Some(known) = snapshot.exchanges.get(exchange) {
                if known.definition.internal {
                    return Err(Refusal::InternalExchange(vhost.exchange(exchange)).into());
                }
                if known.definition.kind == ExchangeKind::Topic {
                    topic_permission(Permission::Write, &vhost.exchange(exchange), key, &caller)?;
                }
            }
        }
        let keys: Vec<&[u8]> = std::iter::once(key).chain(extra.keys.iter().map(|key| &**key)).collect();
        let limits = self.settings.tables;
        let headers = || properties::headers(properties, limits).unwrap_or_default();
        let route = Arc::new(vhost.route(exchange, &keys, &headers)?);
        if by_key && route.by_key_alone {
            self.routes.keep(piece.names, &route);
        }
        Ok(route)
    }

    /// Looks at the properties that have rules.
    fn examine(&self, key: u32, raw: &[u8], known: &PropertyFacts<'_>) -> Result<Extra, Failure> {
        let mut extra = Extra::default();
        let user = self.account.as_ref().map_or("", |account| account.name());
        if let Some(claimed) = known.user_id
            && claimed != user.as_bytes()
            && !self.access.as_ref().is_some_and(|access| access.impersonator())
        {
            let claimed = String::from_utf8_lossy(claimed);
            let text = format!("user_id property set to '{claimed}' but authenticated user was '{user}'");
            return Err(Failure::channel(406, text));
        }
        if let Some(expiration) = known.expiration {
            extra.ttl = Some(parse_expiration(expiration)?);
        }
        let mut edits = Edits::default();
        let mut headers;
        if let Some(encoded) = known.headers {
            table::scan(encoded, self.settings.tables)?;
            if asks_to_retain(encoded) {
                let headers = table::read(encoded, self.settings.tables)?;
                extra.retain = headers.get(RETAIN) == Some(&Value::Bool(true));
            }
            if names_further_keys(encoded) {
                headers = table::read(encoded, self.settings.tables)?;
                extra.keys = further_keys(&headers)?;
                if headers.remove("BCC").is_some() {
                    edits.headers = Edit::Set(&headers);
                }
            }
        }
        let reply_queue = match known.reply_to {
            Some(reply_to) if reply_to == REPLY_TO.as_bytes() => {
                let queue = self.channels.get(key as usize).and_then(|channel| channel.reply_queue.clone());
                Some(queue.ok_or_else(|| Failure::channel(406, "fast reply consumer does not exist"))?)
            }
            _ => None,
        };
        if let Some(queue) = &reply_queue {
            edits.reply_to = Edit::Set(queue.as_bytes());
        }
        if edits != Edits::default() {
            extra.properties = Some(properties::rewrite(raw, edits)?);
        }
        Ok(extra)
    }
}

/// What the rarer properties lead to.
#[derive(Default)]
struct Extra {
    ttl: Option<u64>,
    /// Routing keys beyond the one of the publish.
    keys: Vec<Arc<[u8]>>,
    /// Those who subscribe to the topic later are to get it, too.
    retain: bool,
    /// Properties to deliver instead of those that came.
    properties: Option<Vec<u8>>,
}

/// The header by which a message stays with its topic for later subscribers, whatever their protocol.
const RETAIN: &str = "x-mqtt-retain";

/// The headers may hold [`RETAIN`]: a quick look that errs on the side of yes.
fn asks_to_retain(encoded: &[u8]) -> bool {
    encoded.windows(RETAIN.len()).any(|name| name == RETAIN.as_bytes())
}

/// The headers may hold CC or BCC: a quick look that errs on the side of yes.
fn names_further_keys(encoded: &[u8]) -> bool {
    encoded.windows(2).any(|pair| pair == b"CC")
}

fn further_keys(headers: &Table) -> Result<Vec<Arc<[u8]>>, Failure> {
    for name in ["CC", "BCC"] {
        match headers.get(name) {
            None | Some(Value::Array(_)) => {}
            Some(value) => {
                let kind = type_name(value);
                let text = format!("invalid message: {{unacceptable_type_in_header,\"{name}\",{kind}}}");
                return Err(Failure::channel(406, text));
            }
        }
    }
    let mut keys = extra_keys(headers, "CC");
    keys.extend(extra_keys(headers, "BCC"));
    Ok(keys)
}

fn parse_expiration(text: &[u8]) -> Result<u64, Failure> {
    let shown = String::from_utf8_lossy(text);
    let fail = |why: String| Err(Failure::channel(406, format!("invalid expiration '{shown}': {why}")));
    let digits_from = usize::from(matches!(text.first(), Some(b'-' | b'+')));
    let digits = text.iter().skip(digits_from).take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 {
        return fail("no_integer".to_owned());
    }
    let (number, leftover) = text.split_at(digits_from + digits);
    if !leftover.is_empty() {
        return fail(format!("{{leftover_string,\"{}\"}}", String::from_utf8_lossy(leftover)));
    }
    let number = std::str::from_utf8(number).unwrap_or_default();
    match number.parse::<i64>() {
        Ok(value) if value > LONGEST_MS => fail(format!("{{value_too_large,{value}}}")),
        Ok(value) => u64::try_from(value).or_else(|_| fail(format!("{{value_negative,{value}}}"))),
        Err(_) => fail(format!("{{value_too_large,{number}}}")),
    }
}

/// True when the message is complete.
fn take_header(incoming: &mut Incoming, frame: &Frame<'_>, message_max: usize) -> Result<bool, Failure> {
    let content = frame::content_header(frame.payload).ok_or_else(|| Failure::from(frame.undecodable()))?;
    if content.class != 60 {
        let text = format!("expected content header for class 60, got one for class {} instead", content.class);
        return Err(Failure::connection(505, text));
    }
    let size = usize::try_from(content.body_size).unwrap_or(usize::MAX);
    if size > message_max {
        let text = format!("message size {} is larger than configured max size {message_max}", content.body_size);
        return Err(Failure::channel(406, text));
    }
    properties::facts(content.properties)?;
    if !incoming.stray {
        incoming.block.extend_from_slice(content.properties);
    }
    incoming.header = Some((if incoming.stray { 0 } else { content.properties.len() }, size));
    Ok(size == 0)
}

/// True when the message is complete.
fn take_body(incoming: &mut Incoming, frame: &Frame<'_>, size: usize) -> Result<bool, Failure> {
    incoming.block.extend_from_slice(frame.payload);
    let here = incoming.body_here();
    if here > size {
        return Err(Failure::connection(501, "content body is longer than its header announced"));
    }
    Ok(here == size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn expiration_error(text: &str, why: &str) {
        let failure = parse_expiration(text.as_bytes()).expect_err("refused");
        assert_eq!(failure.text, format!("PRECONDITION_FAILED - invalid expiration '{text}': {why}"));
    }

    #[test]
    fn expirations_are_judged_as_rabbitmq_judges_them() {
        assert_eq!(parse_expiration(b"0"), Ok(0));
        assert_eq!(parse_expiration(b"315360000000"), Ok(315_360_000_000));
        expiration_error("abc", "no_integer");
        expiration_error("", "no_integer");
        expiration_error("1.5", "{leftover_string,\".5\"}");
        expiration_error("10 ", "{leftover_string,\" \"}");
        expiration_error("-1", "{value_negative,-1}");
        expiration_error("1099511627776", "{value_too_large,1099511627776}");
        expiration_error("99999999999999999999", "{value_too_large,99999999999999999999}");
    }
}
