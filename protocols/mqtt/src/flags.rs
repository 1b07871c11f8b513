//! The bytes that a message of MQTT carries before its property block: how it was published.

use portolan_core::message::MQTT_QOS;

use crate::codec::Qos;

/// It was published with RETAIN.
pub(crate) const RETAIN: u8 = 1 << 2;
/// A retained message, sent because of a new subscription.
pub(crate) const REPLAY: u8 = 1 << 3;
/// The identifier of that subscription follows the flags, in four bytes.
const IDENTIFIED: u8 = 1 << 4;

/// Appends the flags of a published message.
pub(crate) fn put(out: &mut Vec<u8>, qos: Qos, retain: bool) {
    out.push(qos.bits() & MQTT_QOS | if retain { RETAIN } else { 0 });
}

/// Appends the flags of a retained message for one new subscription.
pub(crate) fn put_replay(out: &mut Vec<u8>, qos: u8, identifier: u32) {
    let identified = if identifier == 0 { 0 } else { IDENTIFIED };
    out.push(qos & MQTT_QOS | RETAIN | REPLAY | identified);
    if identifier != 0 {
        out.extend(identifier.to_be_bytes());
    }
}

/// Takes properties apart: flags, the subscription's identifier or 0, and the property block.
pub(crate) fn read(properties: &[u8]) -> (u8, u32, &[u8]) {
    match properties {
        [] => (0, 0, &[]),
        [flags, a, b, c, d, block @ ..] if flags & IDENTIFIED != 0 => {
            (*flags, u32::from_be_bytes([*a, *b, *c, *d]), block)
        }
        [flags, block @ ..] => (*flags, 0, block),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_read_back() {
        let mut out = Vec::new();
        put(&mut out, Qos::ExactlyOnce, true);
        out.extend(b"block");
        assert_eq!(read(&out), (2 | RETAIN, 0, &b"block"[..]));
        for identifier in [0, 1, 268_435_455] {
            let mut out = Vec::new();
            put_replay(&mut out, 1, identifier);
            out.extend(b"block");
            let (flags, read_back, block) = read(&out);
            assert_eq!((flags & MQTT_QOS, flags & REPLAY, read_back, block), (1, REPLAY, identifier, &b"block"[..]));
        }
        assert_eq!(read(&[]), (0, 0, &[][..]));
    }
}
