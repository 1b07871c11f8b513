//! The frame splitter: cuts whole frames off the front of what was read, without copying.

use super::malformed::{Malformed, Snippet};

/// Bytes before the payload: type, channel, size.
pub const HEADER: usize = 7;
/// Bytes around the payload: the header and the end octet.
pub const OVERHEAD: usize = 8;
/// The octet that ends every frame.
pub const END: u8 = 0xCE;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// A method.
    Method = 1,
    /// A content header.
    Header = 2,
    /// A piece of a content body.
    Body = 3,
    /// A sign of life.
    Heartbeat = 8,
}

/// One whole frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it carries.
    pub kind: FrameKind,
    /// Channel number.
    pub channel: u16,
    /// What is between the header and the end octet.
    pub payload: &'a [u8],
    /// Bytes that the whole frame takes in the input.
    pub size: usize,
}

impl Frame<'_> {
    /// The error for a frame that may not come on its channel or in this state.
    pub fn unexpected(&self) -> Malformed {
        Malformed::unexpected(self.kind as u8, self.payload)
    }

    /// The error for a frame whose payload does not have the form of its type.
    #[cold]
    pub fn undecodable(&self) -> Malformed {
        Malformed::UnknownFrame { kind: self.kind as u8, payload: Snippet::new(self.payload) }
    }
}

/// Finds the frame at the front of `input`; `None` means that more bytes must come first.
///
/// `frame_max` is the negotiated frame size, never 0. It counts the 8 bytes around a payload, but RabbitMQ takes
/// payloads of up to `frame_max` bytes because some old clients forget the 8, and so do we.
#[inline]
pub fn split(input: &[u8], frame_max: usize) -> Result<Option<Frame<'_>>, Malformed> {
    let Some(&[kind, c1, c0, s3, s2, s1, s0]) = input.first_chunk::<HEADER>() else { return Ok(None) };
    let length = u32::from_be_bytes([s3, s2, s1, s0]) as usize;
    if length > frame_max {
        return Err(too_large(kind, length, frame_max));
    }
    let Some((payload, &[end])) = input.get(HEADER..HEADER + length + 1).and_then(|rest| rest.split_last_chunk::<1>())
    else {
        return Ok(None);
    };
    if end != END {
        return Err(bad_end(kind, end, payload));
    }
    let channel = u16::from_be_bytes([c1, c0]);
    let kind = match kind {
        1 => FrameKind::Method,
        2 => FrameKind::Header,
        3 => FrameKind::Body,
        8 if payload.is_empty() && channel == 0 => FrameKind::Heartbeat,
        _ => return Err(bad_kind(kind, payload)),
    };
    Ok(Some(Frame { kind, channel, payload, size: length + OVERHEAD }))
}

#[cold]
fn too_large(kind: u8, size: usize, frame_max: usize) -> Malformed {
    Malformed::FrameTooLarge { kind, size, max: frame_max.saturating_sub(OVERHEAD) }
}

#[cold]
fn bad_end(kind: u8, marker: u8, payload: &[u8]) -> Malformed {
    Malformed::FrameEnd { kind, marker, payload: Snippet::new(payload) }
}

/// An unknown type, or a heartbeat with a payload (RabbitMQ answers 501), or one on a channel (505).
#[cold]
fn bad_kind(kind: u8, payload: &[u8]) -> Malformed {
    if kind == FrameKind::Heartbeat as u8 && payload.is_empty() {
        return Malformed::unexpected(kind, payload);
    }
    Malformed::UnknownFrame { kind, payload: Snippet::new(payload) }
}

/// What a content header frame says of the body that follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentHeader<'a> {
    /// The class that the content belongs to, 60 for a message.
    pub class: u16,
    /// Length of the whole body.
    pub body_size: u64,
    /// Property flags and values as on the wire, unchecked.
    pub properties: &'a [u8],
}

/// Reads the payload of a header frame; `None` when it is too short. The weight is unused and not looked at.
#[inline]
pub fn content_header(payload: &[u8]) -> Option<ContentHeader<'_>> {
    let (fixed, properties) = payload.split_first_chunk::<12>()?;
    let &[c1, c0, _, _, size @ ..] = fixed;
    Some(ContentHeader { class: u16::from_be_bytes([c1, c0]), body_size: u64::from_be_bytes(size), properties })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FRAME_MAX: usize = 131_072;

    fn frame(kind: u8, channel: u16, payload: &[u8], end: u8) -> Vec<u8> {
        let mut bytes = vec![kind];
        bytes.extend(channel.to_be_bytes());
        bytes.extend(u32::try_from(payload.len()).unwrap().to_be_bytes());
        bytes.extend(payload);
        bytes.push(end);
        bytes
    }

    #[track_caller]
    fn refused(input: &[u8], code: u16, text: &str) {
        let malformed = split(input, FRAME_MAX).unwrap_err();
        assert_eq!((malformed.reply_code(), malformed.reply_text().as_str()), (code, text));
    }

    #[test]
    fn a_frame_is_cut_off_the_front() {
        let mut input = frame(1, 7, &[0, 20, 0, 10, 0], END);
        let size = input.len();
        input.extend(b"next");
        let expected = Frame { kind: FrameKind::Method, channel: 7, payload: &[0, 20, 0, 10, 0], size };
        assert_eq!(split(&input, FRAME_MAX), Ok(Some(expected)));
    }

    #[test]
    fn refusals_have_the_texts_of_rabbitmq() {
        refused(
            &frame(1, 1, &[0, 20, 0, 10, 0], 0),
            501,
            "FRAME_ERROR - type 1, all octets = <<0,20,0,10,0>>: {invalid_frame_end_marker,0}",
        );
        refused(
            &frame(3, 1, &[1, 0, 0, 0, 22, 0, 60, 0, 40, 0, 0, 13, 111, 114, 100, 101, 114], 54),
            501,
            "FRAME_ERROR - type 3, first 16 octets = <<1,0,0,0,22,0,60,0,40,0,0,13,111,114,100,101>>: \
             {invalid_frame_end_marker,54}",
        );
        refused(&frame(9, 0, b"abc", END), 501, r#"FRAME_ERROR - type 9, all octets = <<"abc">>: unknown_frame"#);
        refused(&frame(8, 0, b"xx", END), 501, r#"FRAME_ERROR - type 8, all octets = <<"xx">>: unknown_frame"#);
        refused(&frame(8, 1, b"", END), 505, "UNEXPECTED_FRAME - type 8, all octets = <<>>");
        let stray = frame(3, 0, b"x", END);
        let stray = split(&stray, FRAME_MAX).unwrap().unwrap().unexpected();
        assert_eq!(stray.reply_text(), r#"UNEXPECTED_FRAME - type 3, all octets = <<"x">>"#);
    }

    #[test]
    fn the_limit_comes_before_the_bytes() {
        let mut header = vec![3, 0, 1];
        header.extend(200_000u32.to_be_bytes());
        refused(&header, 501, "FRAME_ERROR - type 3, all octets = <<>>: {frame_too_large,200000,131064}");
    }

    #[test]
    fn eight_bytes_too_many_are_tolerated() {
        assert!(split(&frame(3, 1, &vec![0; FRAME_MAX], END), FRAME_MAX).unwrap().is_some());
        assert!(split(&frame(3, 1, &vec![0; FRAME_MAX + 1], END), FRAME_MAX).is_err());
    }

    #[test]
    fn a_heartbeat_is_eight_bytes() {
        let input = [8, 0, 0, 0, 0, 0, 0, END];
        let heartbeat = split(&input, FRAME_MAX).unwrap().unwrap();
        assert_eq!((heartbeat.kind, heartbeat.size), (FrameKind::Heartbeat, 8));
    }

    #[test]
    fn content_header_fields() {
        let payload = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0x10, 0, 2];
        let expected = ContentHeader { class: 60, body_size: 256, properties: &[0x10, 0, 2] };
        assert_eq!(content_header(&payload), Some(expected));
        assert_eq!(content_header(&payload[..11]), None);
    }

    proptest! {
        #[test]
        fn every_prefix_waits_and_the_whole_comes_back(
            kind in prop::sample::select(vec![1u8, 2, 3]),
            channel: u16,
            payload in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let input = frame(kind, channel, &payload, END);
            for cut in 0..input.len() {
                prop_assert_eq!(split(&input[..cut], FRAME_MAX), Ok(None));
            }
            let found = split(&input, FRAME_MAX).unwrap().unwrap();
            prop_assert_eq!((found.kind as u8, found.channel, found.payload), (kind, channel, &payload[..]));
            prop_assert_eq!(found.size, input.len());
        }

        #[test]
        fn no_bytes_make_it_panic(input in prop::collection::vec(any::<u8>(), 0..64), frame_max in 0usize..64) {
            let _ = split(&input, frame_max);
            let _ = content_header(&input);
        }
    }
}
