//! The methods that a load generator sends, encoded.

use crate::wire::{FRAME_END, FRAME_MAX};

/// A method by its class and number.
pub(crate) type Method = (u16, u16);

pub(crate) const START: Method = (10, 10);
pub(crate) const START_OK: Method = (10, 11);
pub(crate) const TUNE: Method = (10, 30);
pub(crate) const TUNE_OK: Method = (10, 31);
pub(crate) const OPEN: Method = (10, 40);
pub(crate) const OPEN_OK: Method = (10, 41);
pub(crate) const CLOSE: Method = (10, 50);
pub(crate) const CLOSE_OK: Method = (10, 51);
pub(crate) const BLOCKED: Method = (10, 60);
pub(crate) const UNBLOCKED: Method = (10, 61);
pub(crate) const CHANNEL_OPEN: Method = (20, 10);
pub(crate) const CHANNEL_OPEN_OK: Method = (20, 11);
pub(crate) const CHANNEL_CLOSE: Method = (20, 40);
pub(crate) const EXCHANGE_DECLARE: Method = (40, 10);
pub(crate) const EXCHANGE_DECLARE_OK: Method = (40, 11);
pub(crate) const EXCHANGE_DELETE: Method = (40, 20);
pub(crate) const EXCHANGE_DELETE_OK: Method = (40, 21);
pub(crate) const QUEUE_DECLARE: Method = (50, 10);
pub(crate) const QUEUE_DECLARE_OK: Method = (50, 11);
pub(crate) const QUEUE_BIND: Method = (50, 20);
pub(crate) const QUEUE_BIND_OK: Method = (50, 21);
pub(crate) const QUEUE_DELETE: Method = (50, 40);
pub(crate) const QUEUE_DELETE_OK: Method = (50, 41);
pub(crate) const QOS: Method = (60, 10);
pub(crate) const QOS_OK: Method = (60, 11);
pub(crate) const CONSUME: Method = (60, 20);
pub(crate) const CONSUME_OK: Method = (60, 21);
pub(crate) const PUBLISH: Method = (60, 40);
pub(crate) const DELIVER: Method = (60, 60);
pub(crate) const ACK: Method = (60, 80);
pub(crate) const NACK: Method = (60, 120);
pub(crate) const CONFIRM_SELECT: Method = (85, 10);
pub(crate) const CONFIRM_SELECT_OK: Method = (85, 11);

/// What opens every connection.
pub(crate) const PROTOCOL_HEADER: &[u8; 8] = b"AMQP\x00\x00\x09\x01";
/// A heartbeat.
pub(crate) const HEARTBEAT_FRAME: [u8; 8] = [8, 0, 0, 0, 0, 0, 0, FRAME_END];
/// Seconds between heartbeats, as agreed with the broker.
pub(crate) const HEARTBEAT: u16 = 60;
/// The one channel of a connection.
pub(crate) const CHANNEL: u16 = 1;

/// Splits the payload of a method frame into the method and its arguments.
#[inline]
pub(crate) fn split(payload: &[u8]) -> Option<(Method, &[u8])> {
    let (&[a, b, c, d], args) = payload.split_first_chunk::<4>()?;
    Some(((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])), args))
}

/// Writes one frame.
pub(crate) fn put_frame(out: &mut Vec<u8>, kind: u8, channel: u16, payload: &[u8]) {
    out.push(kind);
    out.extend(channel.to_be_bytes());
    out.extend((payload.len() as u32).to_be_bytes());
    out.extend_from_slice(payload);
    out.push(FRAME_END);
}

/// The arguments of a method as they are written one after the other.
struct Args(Vec<u8>);

impl Args {
    fn of((class, number): Method) -> Self {
        Self([class.to_be_bytes(), number.to_be_bytes()].concat())
    }

    fn octet(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    fn short(mut self, value: u16) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn long(mut self, value: u32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn long_long(mut self, value: u64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn name(mut self, value: &[u8]) -> Self {
        let value = &value[..value.len().min(255)];
        self.0.push(value.len() as u8);
        self.0.extend_from_slice(value);
        self
    }

    fn text(self, value: &[u8]) -> Self {
        let mut with = self.long(value.len() as u32);
        with.0.extend_from_slice(value);
        with
    }

    fn no_table(self) -> Self {
        self.long(0)
    }

    fn on(self, channel: u16) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.0.len() + 8);
        put_frame(&mut out, 1, channel, &self.0);
        out
    }
}

/// connection.start-ok with the PLAIN mechanism and the capabilities that ordinary clients announce.
pub(crate) fn start_ok(user: &str, password: &str) -> Vec<u8> {
    let mut can = Vec::new();
    for capability in ["publisher_confirms", "basic.nack", "consumer_cancel_notify", "connection.blocked"] {
        can.push(capability.len() as u8);
        can.extend_from_slice(capability.as_bytes());
        can.extend_from_slice(b"t\x01");
    }
    let table = Args(Vec::new()).name(b"product").octet(b'S').text(b"portolan-load").name(b"capabilities").octet(b'F');
    let response = format!("\0{user}\0{password}");
    let properties = table.text(&can).0;
    Args::of(START_OK).text(&properties).name(b"PLAIN").text(response.as_bytes()).name(b"en_US").on(0)
}

/// connection.tune-ok.
pub(crate) fn tune_ok() -> Vec<u8> {
    Args::of(TUNE_OK).short(CHANNEL).long(FRAME_MAX).short(HEARTBEAT).on(0)
}

/// connection.open.
pub(crate) fn open(vhost: &str) -> Vec<u8> {
    Args::of(OPEN).name(vhost.as_bytes()).name(b"").octet(0).on(0)
}

/// connection.close.
pub(crate) fn close() -> Vec<u8> {
    Args::of(CLOSE).short(200).name(b"done").short(0).short(0).on(0)
}

/// channel.open.
pub(crate) fn channel_open() -> Vec<u8> {
    Args::of(CHANNEL_OPEN).name(b"").on(CHANNEL)
}

/// confirm.select.
pub(crate) fn confirm_select() -> Vec<u8> {
    Args::of(CONFIRM_SELECT).octet(0).on(CHANNEL)
}

/// exchange.declare of a fan-out exchange.
pub(crate) fn exchange_declare(name: &str, durable: bool) -> Vec<u8> {
    let flags = u8::from(durable) << 1;
    Args::of(EXCHANGE_DECLARE).short(0).name(name.as_bytes()).name(b"fanout").octet(flags).no_table().on(CHANNEL)
}

/// exchange.delete.
pub(crate) fn exchange_delete(name: &str) -> Vec<u8> {
    Args::of(EXCHANGE_DELETE).short(0).name(name.as_bytes()).octet(0).on(CHANNEL)
}

/// What kind of queue to declare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueueKind {
    Transient,
    Durable,
    /// Transient, and gone when its last consumer is.
    AutoDelete,
    /// Only ask whether it is there.
    Passive,
}

/// queue.declare.
pub(crate) fn queue_declare(name: &str, kind: QueueKind) -> Vec<u8> {
    let flags = match kind {
        QueueKind::Transient => 0,
        QueueKind::Passive => 1,
        QueueKind::Durable => 1 << 1,
        QueueKind::AutoDelete => 1 << 3,
    };
    Args::of(QUEUE_DECLARE).short(0).name(name.as_bytes()).octet(flags).no_table().on(CHANNEL)
}

/// queue.bind without a routing key.
pub(crate) fn queue_bind(queue: &str, exchange: &str) -> Vec<u8> {
    let args = Args::of(QUEUE_BIND).short(0).name(queue.as_bytes()).name(exchange.as_bytes());
    args.name(b"").octet(0).no_table().on(CHANNEL)
}

/// queue.delete.
pub(crate) fn queue_delete(name: &str) -> Vec<u8> {
    Args::of(QUEUE_DELETE).short(0).name(name.as_bytes()).octet(0).on(CHANNEL)
}

/// The number of messages in a queue, from the arguments of queue.declare-ok.
pub(crate) fn message_count(declare_ok: &[u8]) -> Option<u32> {
    let (&length, rest) = declare_ok.split_first()?;
    Some(u32::from_be_bytes(*rest.get(length as usize..)?.first_chunk::<4>()?))
}

/// basic.qos for each consumer.
pub(crate) fn qos(prefetch: u16) -> Vec<u8> {
    Args::of(QOS).long(0).short(prefetch).octet(0).on(CHANNEL)
}

/// basic.consume.
pub(crate) fn consume(queue: &str, tag: &str, auto_ack: bool) -> Vec<u8> {
    let args = Args::of(CONSUME).short(0).name(queue.as_bytes()).name(tag.as_bytes());
    args.octet(u8::from(auto_ack) << 1).no_table().on(CHANNEL)
}

/// basic.ack.
pub(crate) fn ack(channel: u16, tag: u64, multiple: bool) -> Vec<u8> {
    Args::of(ACK).long_long(tag).octet(u8::from(multiple)).on(channel)
}

/// basic.nack with requeue.
pub(crate) fn nack(channel: u16, tag: u64) -> Vec<u8> {
    Args::of(NACK).long_long(tag).octet(2).on(channel)
}

/// A method without arguments.
pub(crate) fn bare(channel: u16, method: Method) -> Vec<u8> {
    Args::of(method).on(channel)
}

/// connection.start, connection.tune, queue.declare-ok, basic.consume-ok: what the stand-in broker answers.
pub(crate) mod reply {
    use super::{Args, CONSUME_OK, FRAME_MAX, HEARTBEAT, Method, OPEN_OK, QUEUE_DECLARE_OK, START, TUNE};

    pub(crate) fn start() -> Vec<u8> {
        Args::of(START).octet(0).octet(9).no_table().text(b"PLAIN").text(b"en_US").on(0)
    }

    pub(crate) fn tune() -> Vec<u8> {
        Args::of(TUNE).short(2047).long(FRAME_MAX).short(HEARTBEAT).on(0)
    }

    pub(crate) fn open_ok() -> Vec<u8> {
        Args::of(OPEN_OK).name(b"").on(0)
    }

    pub(crate) fn declare_ok(queue: &[u8], messages: u32) -> Vec<u8> {
        Args::of(QUEUE_DECLARE_OK).name(queue).long(messages).long(0).on(1)
    }

    pub(crate) fn consume_ok(tag: &[u8]) -> Vec<u8> {
        Args::of(CONSUME_OK).name(tag).on(1)
    }

    pub(crate) fn counted(method: Method) -> Vec<u8> {
        Args::of(method).long(0).on(1)
    }
}

/// The frames of basic.deliver, without the header and body that follow.
#[cfg(test)]
pub(crate) fn deliver_prefix(consumer: &[u8], tag: u64, redelivered: bool, exchange: &str, key: &str) -> Vec<u8> {
    let args = Args::of(DELIVER).name(consumer).long_long(tag).octet(u8::from(redelivered));
    args.name(exchange.as_bytes()).name(key.as_bytes()).on(CHANNEL)
}

/// Everything of a basic.publish that is the same for each message of a stream.
pub(crate) struct Envelope {
    before: Vec<u8>,
}

impl Envelope {
    /// For bodies of `size` octets, which must fit in one frame.
    pub(crate) fn new(exchange: &str, key: &str, size: usize, persistent: bool) -> Self {
        let args = Args::of(PUBLISH).short(0).name(exchange.as_bytes()).name(key.as_bytes());
        let mut before = args.octet(0).on(CHANNEL);
        put_frame(&mut before, 2, CHANNEL, &content_header(size as u64, persistent));
        before.push(3);
        before.extend(CHANNEL.to_be_bytes());
        before.extend((size as u32).to_be_bytes());
        Self { before }
    }

    /// Writes one message, its body by `body`.
    #[inline]
    pub(crate) fn append(&self, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
        out.extend_from_slice(&self.before);
        body(out);
        out.push(FRAME_END);
    }
}

/// The payload of a content header with the delivery mode as its only property.
pub(crate) fn content_header(size: u64, persistent: bool) -> Vec<u8> {
    // Property flags: bit 12 is delivery-mode (AMQP 0-9-1, 4.2.6.1).
    let mode = if persistent { 2 } else { 1 };
    Args(Vec::new()).short(60).short(0).long_long(size).short(1 << 12).octet(mode).0
}
