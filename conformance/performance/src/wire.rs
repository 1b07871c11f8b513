//! AMQP 0-9-1 on the wire, as much of it as a load generator reads: deliveries, confirms, and other methods whole.

use crate::method::{self, Method};

/// The largest frame that either side sends.
pub(crate) const FRAME_MAX: u32 = 131_072;
/// Octets of a frame around its payload.
pub(crate) const FRAME_OVERHEAD: usize = 8;
/// The octet that ends a frame.
pub(crate) const FRAME_END: u8 = 0xCE;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;
/// A whole message is awaited in memory; no message of a load run comes near this.
const BODY_MAX: u64 = 64 << 20;

/// What arrived does not read as AMQP 0-9-1.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed: {0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

/// A message that arrived, by basic.deliver or, from a relay, as the basic.publish that it was sent by.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Delivery<'a> {
    pub(crate) consumer_tag: &'a [u8],
    pub(crate) tag: u64,
    pub(crate) redelivered: bool,
    pub(crate) body: &'a [u8],
}

/// What the other side said.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event<'a> {
    Delivery(Delivery<'a>),
    /// basic.ack or basic.nack to a publisher.
    Confirm {
        tag: u64,
        multiple: bool,
        positive: bool,
    },
    /// Any other method with its arguments.
    Other(Method, &'a [u8]),
    Heartbeat,
}

struct Frame<'a> {
    kind: u8,
    payload: &'a [u8],
    /// Octets of the frame in the input.
    length: usize,
}

#[inline]
fn frame(input: &[u8]) -> Result<Option<Frame<'_>>, Malformed> {
    let Some((head, rest)) = input.split_first_chunk::<7>() else {
        return Ok(None);
    };
    let &[kind, _, _, a, b, c, d] = head;
    if !matches!(kind, METHOD | HEADER | BODY | HEARTBEAT) {
        return Err(Malformed("no such kind of frame"));
    }
    let size = u32::from_be_bytes([a, b, c, d]);
    if size > FRAME_MAX {
        return Err(Malformed("a frame larger than was agreed"));
    }
    let size = size as usize;
    match rest.get(size) {
        None => Ok(None),
        Some(&FRAME_END) => Ok(Some(Frame { kind, payload: &rest[..size], length: size + FRAME_OVERHEAD })),
        Some(_) => Err(Malformed("a frame without its end")),
    }
}

/// Reads the first event of `input` and says how many octets it took; `None` until it is all there.
/// A body that comes in several frames is put together in `spill`.
#[inline]
pub(crate) fn next<'a>(input: &'a [u8], spill: &'a mut Vec<u8>) -> Result<Option<(Event<'a>, usize)>, Malformed> {
    let Some(first) = frame(input)? else {
        return Ok(None);
    };
    match first.kind {
        HEARTBEAT => return Ok(Some((Event::Heartbeat, first.length))),
        METHOD => {}
        _ => return Err(Malformed("content without a method")),
    }
    let (method, args) = method::split(first.payload).ok_or(Malformed("a method without its number"))?;
    let read = match method {
        method::DELIVER => return content(input, first.length, deliver(args)?, spill),
        method::PUBLISH => return content(input, first.length, UNTAGGED, spill),
        method::ACK | method::NACK => confirm(args, method == method::ACK)?,
        other => Event::Other(other, args),
    };
    Ok(Some((read, first.length)))
}

const UNTAGGED: Delivery<'static> = Delivery { consumer_tag: &[], tag: 0, redelivered: false, body: &[] };

/// The arguments of basic.deliver, without the body that follows.
#[inline]
fn deliver(args: &[u8]) -> Result<Delivery<'_>, Malformed> {
    let short = Malformed("a basic.deliver that ends early");
    let Some((&length, rest)) = args.split_first() else {
        return Err(short);
    };
    let Some((consumer_tag, rest)) = rest.split_at_checked(length as usize) else {
        return Err(short);
    };
    let Some((tag, rest)) = rest.split_first_chunk::<8>() else {
        return Err(short);
    };
    let Some(&redelivered) = rest.first() else {
        return Err(short);
    };
    Ok(Delivery { consumer_tag, tag: u64::from_be_bytes(*tag), redelivered: redelivered & 1 != 0, body: &[] })
}

fn confirm(args: &[u8], positive: bool) -> Result<Event<'_>, Malformed> {
    let Some((tag, &[flags, ..])) = args.split_first_chunk::<8>() else {
        return Err(Malformed("a confirm that ends early"));
    };
    Ok(Event::Confirm { tag: u64::from_be_bytes(*tag), multiple: flags & 1 != 0, positive })
}

/// Reads the header and body that follow a method at `at`.
#[inline]
fn content<'a>(
    input: &'a [u8],
    mut at: usize,
    delivery: Delivery<'a>,
    spill: &'a mut Vec<u8>,
) -> Result<Option<(Event<'a>, usize)>, Malformed> {
    let Some(header) = part(input, &mut at, HEADER)? else {
        return Ok(None);
    };
    let Some((_, rest)) = header.split_first_chunk::<4>() else {
        return Err(Malformed("a header that ends early"));
    };
    let Some((size, _)) = rest.split_first_chunk::<8>() else {
        return Err(Malformed("a header that ends early"));
    };
    let size = u64::from_be_bytes(*size);
    if size > BODY_MAX {
        return Err(Malformed("a body larger than any that was sent"));
    }
    let size = size as usize;
    if size == 0 {
        return Ok(Some((Event::Delivery(delivery), at)));
    }
    let Some(body) = part(input, &mut at, BODY)? else {
        return Ok(None);
    };
    if body.len() == size {
        return Ok(Some((Event::Delivery(Delivery { body, ..delivery }), at)));
    }
    spill.clear();
    spill.extend_from_slice(body);
    while spill.len() < size {
        let Some(more) = part(input, &mut at, BODY)? else {
            return Ok(None);
        };
        spill.extend_from_slice(more);
    }
    if spill.len() > size {
        return Err(Malformed("a body longer than its header says"));
    }
    Ok(Some((Event::Delivery(Delivery { body: spill, ..delivery }), at)))
}

/// The payload of the next frame, which must be of `kind`; heartbeats may come between (AMQP 0-9-1, 4.2.7).
#[inline]
fn part<'a>(input: &'a [u8], at: &mut usize, kind: u8) -> Result<Option<&'a [u8]>, Malformed> {
    loop {
        let Some(found) = frame(&input[*at..])? else {
            return Ok(None);
        };
        *at += found.length;
        if found.kind == kind {
            return Ok(Some(found.payload));
        }
        if found.kind != HEARTBEAT {
            return Err(Malformed("content that is interrupted"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::method::{Envelope, deliver_prefix, put_frame};

    /// The event at the front of `input`, which it takes up whole.
    #[track_caller]
    fn check(input: &[u8], expected: &Event<'_>) {
        for cut in 0..input.len() {
            assert_eq!(next(&input[..cut], &mut Vec::new()), Ok(None), "cut at {cut}");
        }
        assert_eq!(next(input, &mut Vec::new()).unwrap(), Some((expected.reborrow(), input.len())));
    }

    impl Event<'_> {
        fn reborrow(&self) -> Event<'_> {
            match *self {
                Event::Delivery(Delivery { consumer_tag, tag, redelivered, body }) => {
                    Event::Delivery(Delivery { consumer_tag, tag, redelivered, body })
                }
                Event::Confirm { tag, multiple, positive } => Event::Confirm { tag, multiple, positive },
                Event::Other(method, args) => Event::Other(method, args),
                Event::Heartbeat => Event::Heartbeat,
            }
        }
    }

    fn delivered(frames: &[&[u8]], body_size: u64) -> Vec<u8> {
        let mut out = deliver_prefix(b"tag", 9, true, "", "q");
        let mut header = vec![0, 60, 0, 0];
        header.extend(body_size.to_be_bytes());
        header.extend([0x10, 0, 2]);
        put_frame(&mut out, HEADER, 1, &header);
        frames.iter().for_each(|body| put_frame(&mut out, BODY, 1, body));
        out
    }

    fn expected(body: &[u8]) -> Event<'_> {
        Event::Delivery(Delivery { consumer_tag: b"tag", tag: 9, redelivered: true, body })
    }

    #[test]
    fn a_delivery_in_one_frame_in_many_and_in_none() {
        check(&delivered(&[b"hello"], 5), &expected(b"hello"));
        check(&delivered(&[b"he", b"l", b"lo"], 5), &expected(b"hello"));
        check(&delivered(&[], 0), &expected(b""));
    }

    #[test]
    fn a_heartbeat_may_come_between() {
        let mut input = delivered(&[], 2);
        put_frame(&mut input, HEARTBEAT, 0, &[]);
        put_frame(&mut input, BODY, 1, b"ok");
        check(&input, &expected(b"ok"));
    }

    #[test]
    fn confirms() {
        check(&method::ack(1, 77, true), &Event::Confirm { tag: 77, multiple: true, positive: true });
        check(&method::nack(1, 3), &Event::Confirm { tag: 3, multiple: false, positive: false });
    }

    #[test]
    fn what_is_published_is_read_back() {
        let envelope = Envelope::new("", "queue", 5, true);
        let mut out = Vec::new();
        envelope.append(&mut out, |out| out.extend_from_slice(b"hello"));
        check(&out, &Event::Delivery(Delivery { body: b"hello", ..UNTAGGED }));
    }

    #[test]
    fn nonsense_is_refused() {
        for (input, why) in [
            (&b"HTTP/1.1 400 Bad"[..], "no such kind of frame"),
            (&[1, 0, 1, 0xFF, 0, 0, 0][..], "a frame larger than was agreed"),
            (&[8, 0, 0, 0, 0, 0, 0, 0][..], "a frame without its end"),
            (&[3, 0, 1, 0, 0, 0, 0, FRAME_END][..], "content without a method"),
        ] {
            assert_eq!(next(input, &mut Vec::new()), Err(Malformed(why)));
        }
        let mut long = delivered(&[b"he", b"llo!"], 5);
        assert_eq!(next(&long, &mut Vec::new()), Err(Malformed("a body longer than its header says")));
        long.truncate(long.len() - 12);
        long.extend(method::ack(1, 1, false));
        assert_eq!(next(&long, &mut Vec::new()), Err(Malformed("content that is interrupted")));
    }
}
