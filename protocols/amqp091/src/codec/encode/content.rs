//! Content on its way to a client: deliver, get-ok and return, each with header and body frames.
//!
//! Written by hand because every message passes here: one reservation, then copies.

use std::ops::Range;

use crate::codec::frame::{END, FrameKind, HEADER, OVERHEAD};

use super::short;

/// What a message brings along as it came in.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    /// Exchange and routing key as two short strings; see [`put_names`].
    pub names: &'a [u8],
    /// Property flags and values.
    pub properties: &'a [u8],
    /// The body.
    pub body: &'a [u8],
}

/// Appends exchange and routing key as two short strings, the form that [`Content::names`] takes.
pub fn put_names(out: &mut Vec<u8>, exchange: &[u8], routing_key: &[u8]) {
    put_short(out, exchange);
    put_short(out, routing_key);
}

/// Appends basic.deliver with all of its content.
#[inline]
pub fn deliver(
    out: &mut Vec<u8>,
    channel: u16,
    consumer_tag: &[u8],
    delivery_tag: u64,
    redelivered: bool,
    content: Content<'_>,
    frame_max: usize,
) {
    // Two frames around less than 64 fixed bytes, and one more frame for the usual body.
    out.reserve(96 + consumer_tag.len() + content.names.len() + content.properties.len() + content.body.len());
    let Content { names, properties, body } = content;
    deliver_head(out, channel, consumer_tag, delivery_tag, redelivered, names);
    header(out, channel, properties, body.len());
    put_body(out, channel, body, frame_max);
}

/// Appends the method frame of basic.deliver; [`header`] and the body must follow.
#[inline]
pub fn deliver_head(
    out: &mut Vec<u8>,
    channel: u16,
    consumer_tag: &[u8],
    delivery_tag: u64,
    redelivered: bool,
    names: &[u8],
) {
    let consumer_tag = short(consumer_tag);
    method(out, channel, 60, 4 + 1 + consumer_tag.len() + 9 + names.len());
    put_short(out, consumer_tag);
    put_tag(out, delivery_tag, u8::from(redelivered));
    out.extend_from_slice(names);
    out.push(END);
}

/// Appends basic.get-ok with all of its content.
pub fn get_ok(
    out: &mut Vec<u8>,
    channel: u16,
    delivery_tag: u64,
    redelivered: bool,
    message_count: u32,
    content: Content<'_>,
    frame_max: usize,
) {
    let Content { names, properties, body } = content;
    method(out, channel, 71, 4 + 9 + names.len() + 4);
    put_tag(out, delivery_tag, u8::from(redelivered));
    out.extend_from_slice(names);
    out.extend_from_slice(&message_count.to_be_bytes());
    out.push(END);
    header(out, channel, properties, body.len());
    put_body(out, channel, body, frame_max);
}

/// Appends basic.return with all of its content. The text is cut to what a short string holds.
pub fn basic_return(
    out: &mut Vec<u8>,
    channel: u16,
    reply_code: u16,
    reply_text: &str,
    content: Content<'_>,
    frame_max: usize,
) {
    let Content { names, properties, body } = content;
    let text = short(reply_text.as_bytes());
    method(out, channel, 50, 4 + 2 + 1 + text.len() + names.len());
    out.extend_from_slice(&reply_code.to_be_bytes());
    put_short(out, text);
    out.extend_from_slice(names);
    out.push(END);
    header(out, channel, properties, body.len());
    put_body(out, channel, body, frame_max);
}

/// Appends the header frame of a message.
#[inline]
pub fn header(out: &mut Vec<u8>, channel: u16, properties: &[u8], body_size: usize) {
    out.extend_from_slice(&frame_header(FrameKind::Header, channel, 12 + properties.len()));
    out.extend_from_slice(&[0, 60, 0, 0]);
    out.extend_from_slice(&(body_size as u64).to_be_bytes());
    out.extend_from_slice(properties);
    out.push(END);
}

/// Appends the body frames: none for an empty body.
#[inline]
pub fn put_body(out: &mut Vec<u8>, channel: u16, body: &[u8], frame_max: usize) {
    let longest = longest_piece(frame_max);
    if body.len() > longest {
        out.reserve(body.len() + OVERHEAD * body.len().div_ceil(longest));
    }
    for piece in body.chunks(longest) {
        out.extend_from_slice(&frame_header(FrameKind::Body, channel, piece.len()));
        out.extend_from_slice(piece);
        out.push(END);
    }
}

/// One body frame of a body that is sent by reference: `header`, the bytes at `body`, then [`END`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyFrame {
    /// What stands before the bytes.
    pub header: [u8; HEADER],
    /// Where the bytes lie within the body.
    pub body: Range<usize>,
}

/// The frames that a body of that size takes.
pub fn body_frames(channel: u16, body_size: usize, frame_max: usize) -> impl Iterator<Item = BodyFrame> {
    let longest = longest_piece(frame_max);
    (0..body_size).step_by(longest).map(move |start| {
        let body = start..body_size.min(start.saturating_add(longest));
        BodyFrame { header: frame_header(FrameKind::Body, channel, body.len()), body }
    })
}

/// What fits one body frame. The handshake agrees on 4096 bytes at least; a piece is never empty even if it had not.
#[inline]
fn longest_piece(frame_max: usize) -> usize {
    frame_max.saturating_sub(OVERHEAD).max(1)
}

#[inline]
fn frame_header(kind: FrameKind, channel: u16, length: usize) -> [u8; HEADER] {
    let [c1, c0] = channel.to_be_bytes();
    // Nothing longer than a received frame or the configured frame size is ever put into one frame.
    let [s3, s2, s1, s0] = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [kind as u8, c1, c0, s3, s2, s1, s0]
}

/// Starts a method of class basic.
#[inline]
fn method(out: &mut Vec<u8>, channel: u16, id: u8, length: usize) {
    out.extend_from_slice(&frame_header(FrameKind::Method, channel, length));
    out.extend_from_slice(&[0, 60, 0, id]);
}

#[inline]
fn put_short(out: &mut Vec<u8>, text: &[u8]) {
    let text = short(text);
    out.push(u8::try_from(text.len()).unwrap_or_default());
    out.extend_from_slice(text);
}

/// A delivery tag and the octet of bits after it.
#[inline]
fn put_tag(out: &mut Vec<u8>, delivery_tag: u64, bits: u8) {
    out.extend_from_slice(&delivery_tag.to_be_bytes());
    out.push(bits);
}

/// Appends basic.ack.
#[inline]
pub fn ack(out: &mut Vec<u8>, channel: u16, delivery_tag: u64, multiple: bool) {
    method(out, channel, 80, 13);
    put_tag(out, delivery_tag, u8::from(multiple));
    out.push(END);
}

/// Appends basic.nack; a server never asks for a requeue.
#[inline]
pub fn nack(out: &mut Vec<u8>, channel: u16, delivery_tag: u64, multiple: bool) {
    method(out, channel, 120, 13);
    put_tag(out, delivery_tag, u8::from(multiple));
    out.push(END);
}

#[cfg(test)]
mod tests {
    use amq_protocol::frame::{AMQPFrame, parse_frame};
    use amq_protocol::protocol::{AMQPClass, basic};
    use proptest::prelude::*;

    use super::*;

    const CONTENT: Content<'_> = Content { names: b"\x01x\x02rk", properties: &[0x10, 0, 2], body: b"body" };

    fn frames(mut bytes: &[u8]) -> Vec<AMQPFrame> {
        let mut frames = Vec::new();
        while !bytes.is_empty() {
            let (rest, frame) = parse_frame(bytes).unwrap();
            frames.push(frame);
            bytes = rest;
        }
        frames
    }

    #[track_caller]
    fn is_content_of(frames: &[AMQPFrame], body: &[u8], frame_max: usize) {
        assert!(
            matches!(&frames[0], AMQPFrame::Header(3, head)
                if head.class_id == 60 && head.body_size == body.len() as u64 && *head.properties.delivery_mode() == Some(2)),
            "{frames:?}"
        );
        let mut joined: Vec<u8> = Vec::new();
        for frame in &frames[1..] {
            let AMQPFrame::Body(3, piece) = frame else { panic!("{frame:?}") };
            assert!(!piece.is_empty() && piece.len() + OVERHEAD <= frame_max);
            joined.extend(piece);
        }
        assert_eq!(joined, body);
    }

    #[test]
    fn deliver_on_the_wire() {
        let mut out = Vec::new();
        deliver(&mut out, 3, b"tag", 258, true, CONTENT, 4096);
        let expected = [
            &[1, 0, 3, 0, 0, 0, 22, 0, 60, 0, 60, 3][..],
            b"tag",
            &[0, 0, 0, 0, 0, 0, 1, 2, 1],
            b"\x01x\x02rk\xce",
            &[2, 0, 3, 0, 0, 0, 15, 0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0x10, 0, 2, 0xCE],
            &[3, 0, 3, 0, 0, 0, 4],
            b"body\xce",
        ]
        .concat();
        assert_eq!(out, expected);
    }

    #[test]
    fn an_empty_body_has_no_frame() {
        let mut out = Vec::new();
        deliver(&mut out, 3, b"t", 1, false, Content { body: b"", ..CONTENT }, 4096);
        is_content_of(&frames(&out)[1..], b"", 4096);
    }

    #[test]
    fn get_ok_and_return_read_back() {
        let mut out = Vec::new();
        get_ok(&mut out, 3, 9, true, 77, CONTENT, 4096);
        let read = frames(&out);
        let expected = basic::GetOk {
            delivery_tag: 9,
            redelivered: true,
            exchange: "x".into(),
            routing_key: "rk".into(),
            message_count: 77,
        };
        assert_eq!(read[0], AMQPFrame::Method(3, AMQPClass::Basic(basic::AMQPMethod::GetOk(expected))));
        is_content_of(&read[1..], b"body", 4096);

        out.clear();
        basic_return(&mut out, 3, 312, "NO_ROUTE", CONTENT, 4096);
        let read = frames(&out);
        let expected = basic::Return {
            reply_code: 312,
            reply_text: "NO_ROUTE".into(),
            exchange: "x".into(),
            routing_key: "rk".into(),
        };
        assert_eq!(read[0], AMQPFrame::Method(3, AMQPClass::Basic(basic::AMQPMethod::Return(expected))));
        is_content_of(&read[1..], b"body", 4096);
    }

    #[test]
    fn confirms_read_back() {
        let mut out = Vec::new();
        ack(&mut out, 3, 258, true);
        nack(&mut out, 3, 1, false);
        let ack = basic::Ack { delivery_tag: 258, multiple: true };
        let nack = basic::Nack { delivery_tag: 1, multiple: false, requeue: false };
        let expected = [basic::AMQPMethod::Ack(ack), basic::AMQPMethod::Nack(nack)];
        assert_eq!(frames(&out), expected.map(|method| AMQPFrame::Method(3, AMQPClass::Basic(method))));
    }

    proptest! {
        #[test]
        fn deliver_reads_back_whatever_the_body(
            body in prop::collection::vec(any::<u8>(), 0..5000),
            frame_max in 1000usize..6000,
        ) {
            let mut out = Vec::new();
            deliver(&mut out, 3, b"tag", 1, false, Content { body: &body, ..CONTENT }, frame_max);
            let read = frames(&out);
            let expected = basic::Deliver {
                consumer_tag: "tag".into(),
                delivery_tag: 1,
                redelivered: false,
                exchange: "x".into(),
                routing_key: "rk".into(),
            };
            prop_assert_eq!(&read[0], &AMQPFrame::Method(3, AMQPClass::Basic(basic::AMQPMethod::Deliver(expected))));
            is_content_of(&read[1..], &body, frame_max);
        }

        #[test]
        fn a_body_sent_by_reference_is_the_same_on_the_wire(
            body in prop::collection::vec(any::<u8>(), 0..400),
            frame_max in 0usize..100,
        ) {
            let mut copied = Vec::new();
            put_body(&mut copied, 3, &body, frame_max);
            let mut referred = Vec::new();
            for frame in body_frames(3, body.len(), frame_max) {
                referred.extend(frame.header);
                referred.extend(&body[frame.body]);
                referred.push(END);
            }
            prop_assert_eq!(copied, referred);
        }
    }
}
