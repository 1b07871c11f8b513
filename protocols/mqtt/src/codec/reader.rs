//! The readers of MQTT's data types (1.5), each taking its bytes off the front.

use super::malformed::Malformed;

const CUT: Malformed = Malformed::packet("the packet ends within a field: one of its lengths is wrong");

/// What is left of a packet.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    pub(crate) rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub(crate) fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(CUT)?;
        self.rest = rest;
        Ok(*taken)
    }

    #[inline]
    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(CUT)?;
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    pub(crate) fn byte(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    #[inline]
    pub(crate) fn two(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn four(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    /// Variable Byte Integer (1.5.5).
    pub(crate) fn var(&mut self) -> Result<u32, Malformed> {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte == 0 && shift > 0 {
                return Err(Malformed::packet("encode lengths and identifiers in as few bytes as they need"));
            }
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed::packet("a length or identifier takes more than four bytes"))
    }

    /// Binary Data (1.5.6).
    #[inline]
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.two()?;
        self.take(usize::from(length))
    }

    /// UTF-8 Encoded String (1.5.4); `wrong` says which one is not.
    #[inline]
    pub(crate) fn text(&mut self, wrong: &'static str) -> Result<&'a str, Malformed> {
        let bytes = self.bytes()?;
        match std::str::from_utf8(bytes) {
            Ok(text) if !holds(bytes, [0, 0, 0]) => Ok(text),
            _ => Err(Malformed::packet(wrong)),
        }
    }

    /// A block of properties without its length (2.2.2).
    #[inline]
    pub(crate) fn properties(&mut self) -> Result<&'a [u8], Malformed> {
        if let Some((0, rest)) = self.rest.split_first() {
            self.rest = rest;
            return Ok(&[]);
        }
        let length = self.var()?;
        self.take(length as usize)
    }

    /// Packet Identifier, which is not 0 (MQTT-2.3.1-1, MQTT5-2.2.1-3).
    #[inline]
    pub(crate) fn packet_id(&mut self) -> Result<u16, Malformed> {
        match self.two()? {
            0 => Err(Malformed::protocol("the packet identifier is 0; use 1 to 65535")),
            id => Ok(id),
        }
    }

    /// Refuses bytes behind the last field.
    pub(crate) fn end(self) -> Result<(), Malformed> {
        match self.rest {
            [] => Ok(()),
            _ => Err(Malformed::packet("the packet goes on behind its last field")),
        }
    }
}

const ONES: u64 = 0x0101_0101_0101_0101;

/// Whether any byte is one of three: eight bytes at a time, without a branch for each.
#[inline]
pub(crate) fn holds(bytes: &[u8], wanted: [u8; 3]) -> bool {
    let (words, _) = bytes.as_chunks::<8>();
    if words.is_empty() {
        return bytes.iter().any(|byte| wanted.contains(byte));
    }
    let found = words.iter().fold(0, |found, word| found | equal(*word, wanted));
    // The last eight bytes overlap the words before them, and so need no loop of their own.
    found | bytes.last_chunk().map_or(0, |word| equal(*word, wanted)) != 0
}

/// Not 0 if one of the bytes is wanted. Carries may mark bytes above a wanted one, never without one.
#[inline]
fn equal(word: [u8; 8], wanted: [u8; 3]) -> u64 {
    let word = u64::from_le_bytes(word);
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let [first, second, third] = wanted.map(|byte| zero(word ^ (ONES * u64::from(byte))));
    (first | second | third) & (ONES << 7)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn variable_byte_integers_are_in_their_shortest_form() {
        for (bytes, value) in [
            (&[0][..], Some(0)),
            (&[0x7f], Some(127)),
            (&[0x80, 1], Some(128)),
            (&[0xff, 0xff, 0xff, 0x7f], Some(268_435_455)),
            (&[0x80, 0], None), // MQTT5-1.5.5-1
            (&[0xff, 0x80, 0], None),
            (&[0x80, 0x80, 0x80, 0x80, 1], None),
            (&[0x80], None),
        ] {
            assert_eq!(Reader::new(bytes).var().ok(), value, "{bytes:x?}");
        }
    }

    proptest! {
        #[test]
        fn holds_is_contains(bytes in prop::collection::vec(any::<u8>(), 0..40), wanted: [u8; 3]) {
            prop_assert_eq!(holds(&bytes, wanted), bytes.iter().any(|b| wanted.contains(b)));
        }
    }
}
