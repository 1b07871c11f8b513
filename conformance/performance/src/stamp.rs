//! What a body holds: a stamp that says who sent it and when, sealed by a check value, and noise that only this run and this number have.

/// Octets of a stamp; the smallest body.
pub(crate) const STAMP: usize = 16;
/// How many streams a run can tell apart.
pub(crate) const STREAMS_MAX: usize = 1 << STREAM_BITS;

const STREAM_BITS: u32 = 20;
const TIME_MASK: u64 = (1 << (64 - STREAM_BITS)) - 1;
const CHECK_BITS: u32 = 28;
const SEQ_MAX: u64 = 1 << (64 - CHECK_BITS);
/// Bodies begin at one of this many places in the noise, so that two neighbours differ everywhere.
const PHASES: usize = 256;

/// Who sent a message, and when it was due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// When the message was to be sent, as the low bits of [`crate::clock::nanos`].
    due: u64,
    /// One producer writing to one destination.
    pub(crate) stream: u32,
    /// The message's number in its stream, from 0.
    pub(crate) seq: u64,
}

impl Stamp {
    /// A stamp for a message that was due at `due`.
    pub(crate) fn new(due: u64, stream: u32, seq: u64) -> Self {
        Self { due: due & TIME_MASK, stream, seq }
    }

    /// How long before `now` the message was due; 0 if that is in the future.
    #[inline]
    pub(crate) fn age(self, now: u64) -> u64 {
        // The clock's high bits are not sent, so the difference is taken in the ring of the low ones.
        let age = now.wrapping_sub(self.due) & TIME_MASK;
        if age > TIME_MASK / 2 { 0 } else { age }
    }
}

/// Makes and checks the bodies of one run.
pub(crate) struct Content {
    size: usize,
    key: u64,
    noise: Vec<u8>,
}

impl Content {
    /// Bodies of `size` octets (at least [`STAMP`]) for the run numbered `run`.
    pub(crate) fn new(size: usize, run: u64) -> Self {
        let size = size.max(STAMP);
        let key = mix(run ^ 0x5851_F42D_4C95_7F2D);
        let words = (size + PHASES).div_ceil(8) as u64;
        let noise = (0..words).flat_map(|i| mix(key.wrapping_add(i)).to_le_bytes()).collect();
        Self { size, key, noise }
    }

    /// Writes the body that `stamp` stands for.
    #[inline]
    pub(crate) fn append(&self, out: &mut Vec<u8>, stamp: Stamp) {
        let who = stamp.due << STREAM_BITS | u64::from(stamp.stream);
        let number = stamp.seq << CHECK_BITS | self.check(who, stamp.seq);
        out.extend_from_slice(&who.to_le_bytes());
        out.extend_from_slice(&number.to_le_bytes());
        if self.size > STAMP {
            out.extend_from_slice(self.tail(stamp.seq));
        }
    }

    /// The stamp of a body of this run, unless a single bit of the body is not as it was sent.
    #[inline]
    pub(crate) fn read(&self, body: &[u8]) -> Option<Stamp> {
        let (head, tail) = body.split_first_chunk::<STAMP>()?;
        let (who, number) = halves(head);
        let seq = number >> CHECK_BITS;
        let sealed = number & ((1 << CHECK_BITS) - 1) == self.check(who, seq);
        let whole = body.len() == self.size && (tail.is_empty() || tail == self.tail(seq));
        (sealed && whole).then_some(Stamp {
            due: who >> STREAM_BITS,
            stream: (who & (STREAMS_MAX as u64 - 1)) as u32,
            seq,
        })
    }

    fn tail(&self, seq: u64) -> &[u8] {
        let from = (seq as usize).wrapping_mul(37) % PHASES;
        &self.noise[from..from + self.size - STAMP]
    }

    #[inline]
    fn check(&self, who: u64, seq: u64) -> u64 {
        debug_assert!(seq < SEQ_MAX, "numbers fit beside the check value");
        mix(mix(who ^ self.key) ^ seq) >> (64 - CHECK_BITS)
    }
}

fn halves(head: &[u8; STAMP]) -> (u64, u64) {
    let both = u128::from_le_bytes(*head);
    (both as u64, (both >> 64) as u64)
}

/// Spreads every bit of `x` over the whole word.
#[inline]
fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 31)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    (x ^ (x >> 32)).wrapping_mul(0x9E6C_63D0_876A_3F6B)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(content: &Content, stamp: Stamp) -> Vec<u8> {
        let mut out = Vec::new();
        content.append(&mut out, stamp);
        out
    }

    #[test]
    fn what_is_written_is_read() {
        for size in [16, 17, 64, 1024, 100_000] {
            let content = Content::new(size, 7);
            for seq in [0, 1, 255, 256, SEQ_MAX - 1] {
                let stamp = Stamp::new(u64::MAX - 5, STREAMS_MAX as u32 - 1, seq);
                let sent = body(&content, stamp);
                assert_eq!(sent.len(), size);
                assert_eq!(content.read(&sent), Some(stamp));
            }
        }
    }

    #[test]
    fn every_flipped_bit_is_seen() {
        for size in [16, 80] {
            let content = Content::new(size, 1);
            let good = body(&content, Stamp::new(123_456_789, 3, 42));
            for bit in 0..size * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(content.read(&bad), None, "bit {bit} of {size} octets");
            }
        }
    }

    #[test]
    fn another_run_another_number_and_another_size_are_refused() {
        let content = Content::new(64, 1);
        let sent = body(&content, Stamp::new(5, 0, 1));
        assert_eq!(Content::new(64, 2).read(&sent), None);
        assert_eq!(content.read(&sent[..63]), None);
        assert_eq!(content.read(&[]), None);
        let mut spliced = sent[..16].to_vec();
        spliced.extend_from_slice(&body(&content, Stamp::new(5, 0, 2))[16..]);
        assert_eq!(content.read(&spliced), None, "a stamp with its neighbour's noise");
    }

    #[test]
    fn age_survives_the_clock_running_over() {
        let due = TIME_MASK - 10;
        assert_eq!(Stamp::new(due, 0, 0).age(due + 100), 100);
        assert_eq!(Stamp::new(due, 0, 0).age(due - 1), 0);
    }
}
