//! Cutting packets out of the stream by their fixed header.

use super::malformed::Malformed;
use crate::reason::Reason;

/// Longest packet that the encoding allows, its fixed header included.
pub const MAX_PACKET: usize = 5 + MAX_REMAINING;

/// Largest remaining length (2.2.3).
pub(crate) const MAX_REMAINING: usize = 268_435_455;

/// One whole packet that is not decoded yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Type and flags.
    pub first: u8,
    /// Everything behind the fixed header.
    pub body: &'a [u8],
    /// Length of the whole packet.
    pub size: usize,
    /// The remaining length took more bytes than it needs.
    pub(crate) padded: bool,
}

impl Frame<'_> {
    /// The number of the packet type.
    pub fn kind(&self) -> u8 {
        self.first >> 4
    }

    /// Whether it is the packet that a conversation starts with.
    pub fn is_connect(&self) -> bool {
        self.kind() == 1
    }

    /// Whether it carries a message.
    pub fn is_publish(&self) -> bool {
        self.kind() == 3
    }

    pub(crate) fn flags(&self) -> u8 {
        self.first & 0x0f
    }

    /// MQTT5-1.5.5-1. Before 5.0 no statement asks for the shortest form, and devices that reserve a header of fixed
    /// size pad it; so only 5.0 refuses.
    pub(crate) fn shortest(&self) -> Result<(), Malformed> {
        match self.padded {
            true => Err(Malformed::packet("encode the remaining length in as few bytes as it needs")),
            false => Ok(()),
        }
    }
}

/// Cuts one packet off the front of `input`; `None` means "wait for more bytes".
///
/// `max_packet` bounds the whole packet, and does so before its body has arrived.
#[inline]
pub fn split(input: &[u8], max_packet: usize) -> Result<Option<Frame<'_>>, Malformed> {
    let Some((&first, rest)) = input.split_first() else { return Ok(None) };
    let (remaining, header) = match rest.first() {
        Some(&byte) if byte < 0x80 => (usize::from(byte), 2),
        _ => match remaining_length(rest)? {
            Some((remaining, bytes)) => (remaining, 1 + bytes),
            None => return Ok(None),
        },
    };
    let size = header + remaining;
    if size > max_packet {
        return Err(too_large());
    }
    let Some(body) = input.get(header..size) else { return Ok(None) };
    let padded = header > 2 && remaining < 1 << (7 * (header - 2));
    Ok(Some(Frame { first, body, size, padded }))
}

#[cold]
fn too_large() -> Malformed {
    Malformed::new(Reason::PacketTooLarge, "the packet is larger than the server's Maximum Packet Size")
}

/// The remaining length and how many bytes hold it.
fn remaining_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Ok(Some((value, index + 1)));
        }
    }
    match bytes.len() < 4 {
        true => Ok(None),
        false => Err(Malformed::packet("the remaining length takes more than four bytes")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(first: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        crate::codec::encode::put_var(&mut bytes, u32::try_from(body.len()).unwrap());
        bytes.extend(body);
        bytes
    }

    #[test]
    fn a_packet_is_cut_off_the_front() {
        let input = [0xc0, 0, 0x40, 2, 0, 9, 0x30];
        let ping = split(&input, 100).unwrap().unwrap();
        assert_eq!((ping.first, ping.body, ping.size), (0xc0, &[][..], 2));
        let ack = split(&input[2..], 100).unwrap().unwrap();
        assert_eq!((ack.kind(), ack.body, ack.size), (4, &[0, 9][..], 4));
        assert_eq!(split(&input[6..], 100), Ok(None));
    }

    #[test]
    fn the_limit_comes_before_the_bytes() {
        // MQTT5-3.2.2-15: the limit counts the whole packet.
        assert_eq!(split(&[0x30, 98], 100), Ok(None));
        for header in [&[0x30, 99][..], &[0x30, 0xff, 0xff, 0xff, 0x7f]] {
            assert_eq!(split(header, 100).unwrap_err().reason, Reason::PacketTooLarge);
        }
        assert_eq!(split(&[0x30, 0xff, 0xff, 0xff, 0x7f], MAX_PACKET), Ok(None));
    }

    #[test]
    fn a_length_of_five_bytes_is_malformed_once_the_fourth_says_so() {
        assert_eq!(split(&[0x30, 0x80, 0x80, 0x80], 100), Ok(None));
        let malformed = split(&[0x30, 0x80, 0x80, 0x80, 0x80], 100).unwrap_err();
        assert_eq!(malformed.reason, Reason::MalformedPacket);
    }

    #[test]
    fn padding_is_seen() {
        for (bytes, padded) in [
            (&[0xc0, 0][..], false),
            (&[0xc0, 0x80, 0], true),
            (&[0xc0, 0x80, 0x80, 0], true),
            (&[0xc0, 0x80, 0x80, 0x80, 0], true),
        ] {
            assert_eq!(split(bytes, 100).unwrap().unwrap().shortest().is_err(), padded, "{bytes:x?}");
        }
        for (size, padding) in [(127, &[0xff, 0][..]), (128, &[0x80, 0x81, 0]), (16_384, &[0x80, 0x80, 0x81, 0])] {
            let input = frame(0x30, &vec![0; size]);
            assert!(split(&input, MAX_PACKET).unwrap().unwrap().shortest().is_ok());
            let mut input = [&[0x30][..], padding].concat();
            input.resize(input.len() + size, 0);
            assert!(split(&input, MAX_PACKET).unwrap().unwrap().shortest().is_err(), "{size}");
        }
    }

    proptest! {
        #[test]
        fn every_prefix_waits_and_the_whole_comes_back(first: u8, body in prop::collection::vec(any::<u8>(), 0..300)) {
            let input = frame(first, &body);
            for cut in 0..input.len() {
                prop_assert_eq!(split(&input[..cut], MAX_PACKET), Ok(None));
            }
            let found = split(&input, MAX_PACKET).unwrap().unwrap();
            prop_assert_eq!((found.first, found.body, found.size), (first, &body[..], input.len()));
        }

        #[test]
        fn no_bytes_make_it_panic(input in prop::collection::vec(any::<u8>(), 0..64), max in 0usize..64) {
            if let Ok(Some(frame)) = split(&input, max) {
                prop_assert!(frame.size <= max && frame.size <= input.len());
            }
        }
    }
}
