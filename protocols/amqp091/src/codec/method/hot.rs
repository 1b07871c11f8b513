//! The methods that come with every message, read by hand.
//!
//! Each reader takes the arguments behind class and method id, and returns `None` for what does not have the
//! method's form; [`super::decode`] then says what is wrong with it.

use portolan_core::message::Span;

/// basic.publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishArgs<'a> {
    /// Exchange and routing key, each behind its length octet, as basic.deliver repeats them.
    ///
    /// RabbitMQ 3.10 does not ask for UTF-8 here, unlike in any other method.
    pub names: &'a [u8],
    exchange_len: u8,
    /// Return the message when no queue takes it.
    pub mandatory: bool,
    /// Return the message when no consumer takes it at once.
    pub immediate: bool,
}

impl<'a> PublishArgs<'a> {
    /// Where `names` lie within the arguments.
    pub const NAMES_AT: usize = 2;

    /// Name of the exchange.
    #[inline]
    pub fn exchange(&self) -> &'a [u8] {
        self.names.get(1..self.routing_key_at() - 1).unwrap_or_default()
    }

    /// The routing key.
    #[inline]
    pub fn routing_key(&self) -> &'a [u8] {
        self.names.get(self.routing_key_at()..).unwrap_or_default()
    }

    /// Where the exchange lies in a block that has `names` at `start`.
    #[inline]
    pub fn exchange_span(&self, start: usize) -> Span {
        Span::new(start + 1, usize::from(self.exchange_len))
    }

    /// Where the routing key lies in a block that has `names` at `start`.
    #[inline]
    pub fn routing_key_span(&self, start: usize) -> Span {
        let at = self.routing_key_at();
        Span::new(start + at, self.names.len().saturating_sub(at))
    }

    #[inline]
    fn routing_key_at(&self) -> usize {
        usize::from(self.exchange_len) + 2
    }
}

/// Reads basic.publish: reserved u16, exchange, routing key, bits mandatory and immediate.
#[inline]
pub fn publish(args: &[u8]) -> Option<PublishArgs<'_>> {
    let (_, fields) = args.split_first_chunk::<{ PublishArgs::NAMES_AT }>()?;
    let (&bits, names) = fields.split_last()?;
    let &exchange_len = names.first()?;
    let key_len_at = usize::from(exchange_len) + 1;
    let &routing_key_len = names.get(key_len_at)?;
    if names.len() != key_len_at + 1 + usize::from(routing_key_len) {
        return None;
    }
    Some(PublishArgs { names, exchange_len, mandatory: bits & 1 != 0, immediate: bits & 2 != 0 })
}

/// basic.ack, basic.nack or basic.reject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acknowledgement {
    /// The delivery, 0 for all with `multiple`.
    pub delivery_tag: u64,
    /// All deliveries up to this one.
    pub multiple: bool,
    /// Back to the queue with it; false for an ack.
    pub requeue: bool,
}

/// Reads basic.ack: delivery tag, bit multiple.
#[inline]
pub fn ack(args: &[u8]) -> Option<Acknowledgement> {
    let (delivery_tag, bits) = tag_and_bits(args)?;
    Some(Acknowledgement { delivery_tag, multiple: bits & 1 != 0, requeue: false })
}

/// Reads basic.nack: delivery tag, bits multiple and requeue.
#[inline]
pub fn nack(args: &[u8]) -> Option<Acknowledgement> {
    let (delivery_tag, bits) = tag_and_bits(args)?;
    Some(Acknowledgement { delivery_tag, multiple: bits & 1 != 0, requeue: bits & 2 != 0 })
}

/// Reads basic.reject: delivery tag, bit requeue.
#[inline]
pub fn reject(args: &[u8]) -> Option<Acknowledgement> {
    let (delivery_tag, bits) = tag_and_bits(args)?;
    Some(Acknowledgement { delivery_tag, multiple: false, requeue: bits & 1 != 0 })
}

#[inline]
fn tag_and_bits(args: &[u8]) -> Option<(u64, u8)> {
    let &[ref tag @ .., bits] = <&[u8; 9]>::try_from(args).ok()?;
    Some((u64::from_be_bytes(*tag), bits))
}

/// basic.get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Get<'a> {
    /// The queue, or the channel's current one when empty.
    pub queue: &'a str,
    /// Deliver it as already acknowledged.
    pub no_ack: bool,
}

/// Reads basic.get: reserved u16, queue, bit no-ack.
#[inline]
pub fn get(args: &[u8]) -> Option<Get<'_>> {
    let (&[_, _, len], fields) = args.split_first_chunk::<3>()?;
    let (&bits, queue) = fields.split_last()?;
    if queue.len() != usize::from(len) {
        return None;
    }
    Some(Get { queue: std::str::from_utf8(queue).ok()?, no_ack: bits & 1 != 0 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn publish_fields() {
        let read = publish(b"\0\0\x03abc\x02xy\x03").unwrap();
        assert_eq!((read.exchange(), read.routing_key(), read.names), (&b"abc"[..], &b"xy"[..], &b"\x03abc\x02xy"[..]));
        assert!(read.mandatory && read.immediate);
        assert_eq!((read.exchange_span(10), read.routing_key_span(10)), (Span::new(11, 3), Span::new(15, 2)));
        let bare = publish(&[0, 0, 0, 0, 0]).unwrap();
        assert_eq!((bare.exchange(), bare.routing_key(), bare.mandatory), (&b""[..], &b""[..], false));
    }

    #[test]
    fn publish_takes_names_that_are_no_text_and_reserved_bits() {
        let read = publish(b"\0\0\x01\xff\x01\xfe\xfc").unwrap();
        assert_eq!((read.exchange(), read.routing_key(), read.mandatory), (&b"\xff"[..], &b"\xfe"[..], false));
    }

    #[test]
    fn publish_of_another_length_is_refused() {
        let whole = b"\0\0\x03abc\x02xy\x00";
        for cut in 0..whole.len() {
            assert_eq!(publish(&whole[..cut]), None, "{cut}");
        }
        assert_eq!(publish(b"\0\0\x03abc\x02xy\x00\x00"), None);
    }

    #[test]
    fn acknowledgements() {
        let tag = |bits| [0, 0, 0, 0, 0, 0, 1, 2, bits];
        let all = Acknowledgement { delivery_tag: 258, multiple: true, requeue: false };
        assert_eq!(ack(&tag(3)), Some(all));
        assert_eq!(nack(&tag(3)), Some(Acknowledgement { requeue: true, ..all }));
        assert_eq!(reject(&tag(1)), Some(Acknowledgement { multiple: false, requeue: true, ..all }));
        assert_eq!(ack(&tag(1)[..8]), None);
        assert_eq!(ack(&[0; 10]), None);
    }

    #[test]
    fn get_fields() {
        assert_eq!(get(b"\0\0\x01q\x01"), Some(Get { queue: "q", no_ack: true }));
        assert_eq!(get(b"\0\0\x02q\x01"), None);
        assert_eq!(get(b"\0\0\x01\xff\x01"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_them_panic(args in prop::collection::vec(any::<u8>(), 0..20)) {
            if let Some(read) = publish(&args) {
                prop_assert_eq!(read.exchange().len() + read.routing_key().len() + 2, read.names.len());
            }
            let _ = (ack(&args), nack(&args), reject(&args), get(&args));
        }
    }
}
