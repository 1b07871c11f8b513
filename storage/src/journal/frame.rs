//! The frame around each record: length, checksum, index, term, group, kind and version.

use crate::encode::{Kind, VERSION, u32_at, u64_at};

/// Bytes before the payload.
pub const HEADER: usize = 24;

/// What a frame says about its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes of payload.
    pub length: usize,
    /// Index of the record; for a mark of the journal, that of the next record.
    pub index: u64,
    /// Raft term, 0 when standing alone.
    pub term: u32,
    /// Replica group, 0 when standing alone.
    pub group: u16,
    /// What the payload is.
    pub kind: Kind,
}

impl Head {
    /// Bytes of the whole frame, padding included.
    pub fn size(&self) -> usize {
        size(self.length)
    }
}

/// What the mark at the beginning of a chunk says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Round {
    /// Bytes of the chunk from the mark on.
    pub(crate) length: u32,
    /// The next segment has more of its group.
    pub(crate) goes_on: bool,
}

impl Round {
    /// `None` for one of format 1, which did not say.
    pub(crate) fn read(payload: &[u8]) -> Option<Self> {
        Some(Self { length: u32_at(payload, 0)?, goes_on: u32_at(payload, 4)? != 0 })
    }
}

/// Bytes of the mark at the beginning of a chunk.
pub(crate) const ROUND: usize = HEADER + 8;

/// Appends the mark at the beginning of a chunk.
pub(crate) fn write_round(out: &mut Vec<u8>, seed: u32, index: u64, round: Round) {
    let head = Head { length: ROUND - HEADER, index, term: 0, group: 0, kind: Kind::Round };
    write(out, seed, &head, |out| {
        out.extend_from_slice(&round.length.to_le_bytes());
        out.extend_from_slice(&u32::from(round.goes_on).to_le_bytes());
    });
}

/// A frame whose checksum was right.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Its header.
    pub head: Head,
    /// Its payload.
    pub payload: &'a [u8],
}

/// Bytes of a frame with that much payload: frames start at multiples of 8.
pub fn size(payload: usize) -> usize {
    (HEADER + payload).next_multiple_of(8)
}

/// Where a segment's checksums start from, so that what an earlier life of a recycled file left behind never
/// passes for a record of this one.
pub fn seed(segment: u32) -> u32 {
    crc32c::crc32c(&segment.to_le_bytes())
}

/// Appends a frame whose payload `write` appends to the same buffer.
pub(crate) fn write(out: &mut Vec<u8>, seed: u32, head: &Head, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.reserve(head.size());
    let mut header = [0; HEADER];
    header[4..8].copy_from_slice(&(head.length as u32).to_le_bytes());
    header[8..16].copy_from_slice(&head.index.to_le_bytes());
    header[16..20].copy_from_slice(&head.term.to_le_bytes());
    header[20..22].copy_from_slice(&head.group.to_le_bytes());
    header[22] = head.kind as u8;
    header[23] = VERSION;
    out.extend_from_slice(&header);
    write(out);
    debug_assert_eq!(out.len() - start, HEADER + head.length, "the payload is as long as announced");
    let crc = crc32c::crc32c_append(seed, &out[start + 4..]);
    out[start..start + 4].copy_from_slice(&crc.to_le_bytes());
    let padding = (out.len() - start).next_multiple_of(8) - (out.len() - start);
    out.extend_from_slice(&[0; 8][..padding]);
}

/// The header at the start of `bytes`, when it could be one. Its checksum has not been looked at.
pub fn peek(bytes: &[u8]) -> Option<Head> {
    let header = bytes.first_chunk::<HEADER>()?;
    if header[23] != VERSION {
        return None;
    }
    Some(Head {
        length: u32_at(header, 4)? as usize,
        index: u64_at(header, 8)?,
        term: u32_at(header, 16)?,
        group: u16::from_le_bytes([header[20], header[21]]),
        kind: Kind::from_number(header[22])?,
    })
}

/// The frame at the start of `bytes`; `None` when there is no whole and sound one.
pub fn parse(bytes: &[u8], seed: u32) -> Option<Frame<'_>> {
    let head = peek(bytes)?;
    let covered = bytes.get(4..HEADER.checked_add(head.length)?)?;
    if u32_at(bytes, 0)? != crc32c::crc32c_append(seed, covered) {
        return None;
    }
    Some(Frame { head, payload: bytes.get(HEADER..HEADER + head.length)? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn framed(payload: &[u8], index: u64, segment: u32) -> Vec<u8> {
        let head = Head { length: payload.len(), index, term: 5, group: 6, kind: Kind::Fact };
        let mut out = Vec::new();
        write(&mut out, seed(segment), &head, |out| out.extend_from_slice(payload));
        out
    }

    proptest! {
        #[test]
        fn a_frame_comes_back_from_its_own_segment_only(
            payload in proptest::collection::vec(any::<u8>(), 0..200),
            index in any::<u64>(),
            segment in 1..u32::MAX,
        ) {
            let bytes = framed(&payload, index, segment);
            prop_assert_eq!(bytes.len(), size(payload.len()));
            let Some(frame) = parse(&bytes, seed(segment)) else { panic!("no frame") };
            prop_assert_eq!(frame.payload, payload);
            prop_assert_eq!((frame.head.index, frame.head.term, frame.head.group), (index, 5, 6));
            prop_assert!(parse(&bytes, seed(segment - 1)).is_none());
        }

        #[test]
        fn a_changed_bit_is_noticed(payload in proptest::collection::vec(any::<u8>(), 0..100), bit in any::<usize>()) {
            let mut bytes = framed(&payload, 9, 1);
            let bit = bit % ((HEADER + payload.len()) * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(parse(&bytes, seed(1)).is_none());
        }

        #[test]
        fn any_bytes_are_safe_to_parse(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(parse(&bytes, seed(1)).is_none());
        }
    }
}
