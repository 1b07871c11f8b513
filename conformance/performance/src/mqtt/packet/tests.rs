//! Packets octet by octet, as MQTT 3.1.1 and 5.0 draw them, written and read.

use super::*;

/// The packet at the front of `input`, which it takes up whole.
#[track_caller]
fn check(input: &[u8], level: Level, expected: Packet<'_>) {
    for cut in 0..input.len() {
        assert_eq!(next(&input[..cut], level), Ok(None), "cut at {cut}");
    }
    assert_eq!(next(input, level), Ok(Some((expected, input.len()))));
}

fn login(level: Level) -> Login<'static> {
    Login { level, client: "c", user: None, password: None, keep_alive: 600, durable: false }
}

#[test]
fn connect_says_who_and_how() {
    assert_eq!(connect(&login(Level::V4)), b"\x10\x0d\x00\x04MQTT\x04\x02\x02\x58\x00\x01c");
    assert_eq!(connect(&login(Level::V5)), b"\x10\x0e\x00\x04MQTT\x05\x02\x02\x58\x00\x00\x01c");
    let known = Login { user: Some("u"), password: Some("pw"), durable: true, ..login(Level::V4) };
    assert_eq!(connect(&known), b"\x10\x14\x00\x04MQTT\x04\xc0\x02\x58\x00\x01c\x00\x01u\x00\x02pw");
    let kept = Login { durable: true, ..login(Level::V5) };
    assert_eq!(connect(&kept), b"\x10\x13\x00\x04MQTT\x05\x00\x02\x58\x05\x11\x00\x00\x0e\x10\x00\x01c");
}

#[test]
fn subscribe_has_all_filters() {
    let filters = || ["a/+", "b"].into_iter();
    assert_eq!(subscribe(Level::V4, 7, filters(), 1), b"\x82\x0c\x00\x07\x00\x03a/+\x01\x00\x01b\x01");
    assert_eq!(subscribe(Level::V5, 7, filters(), 2), b"\x82\x0d\x00\x07\x00\x00\x03a/+\x02\x00\x01b\x02");
}

#[test]
fn what_is_published_is_read_back() {
    for level in [Level::V4, Level::V5] {
        for qos in 0..=2 {
            // A length of one octet, of two, and of three.
            for size in [5, 200, 40_000] {
                let body = vec![b'x'; size];
                let mut out = Vec::new();
                Envelope::new(level, "a/b", size, qos, qos == 1).append(&mut out, 0x0102, |out| out.extend(&body));
                let id = if qos > 0 { 0x0102 } else { 0 };
                let read = Publish { topic: b"a/b", id, qos, retain: qos == 1, dup: false, body: &body };
                if size == 5 {
                    check(&out, level, Packet::Publish(read));
                } else {
                    assert_eq!(next(&out, level), Ok(Some((Packet::Publish(read), out.len()))));
                }
            }
        }
    }
}

#[test]
fn a_publish_in_octets() {
    let read = Publish { topic: b"t", id: 9, qos: 2, retain: true, dup: true, body: b"hi" };
    check(b"\x3d\x07\x00\x01t\x00\x09hi", Level::V4, Packet::Publish(read));
    check(b"\x3d\x0a\x00\x01t\x00\x09\x02\x01\x01hi", Level::V5, Packet::Publish(read));
}

#[test]
fn acknowledgements_and_their_reasons() {
    let acks = [(Kind::PubAck, 0x40), (Kind::PubRec, 0x50), (Kind::PubRel, 0x62), (Kind::PubComp, 0x70)];
    for (kind, first) in acks {
        assert_eq!(ack(kind, 0x0304), [first, 2, 3, 4]);
        check(&ack(kind, 0x0304), Level::V4, Packet::Ack { kind, id: 0x0304, good: true });
        // No matching subscribers is no error; an exceeded quota is one.
        check(&[first, 3, 3, 4, 0x10], Level::V5, Packet::Ack { kind, id: 0x0304, good: true });
        check(&[first, 4, 3, 4, 0x97, 0], Level::V5, Packet::Ack { kind, id: 0x0304, good: false });
    }
}

#[test]
fn answers_to_connect_and_subscribe() {
    check(&[0x20, 2, 0, 5], Level::V4, Packet::Other(Kind::ConnAck, &[0, 5]));
    assert_eq!(welcome(&[0, 5], Level::V4), Some((5, u16::MAX)));
    assert_eq!(welcome(&[0], Level::V4), None);
    assert_eq!(welcome(&[0, 0, 0], Level::V5), Some((0, u16::MAX)));
    let mut many = vec![0, 0, 26, 0x26, 0, 1, b'k', 0, 2, b'v', b'v', 0x12, 0, 1, b'i', 0x27, 0, 1, 0, 0, 0x13, 0, 9];
    many.extend([0x2A, 1, 0x21, 0, 20, 0x22]);
    assert_eq!(welcome(&many, Level::V5), Some((0, 20)));
    assert_eq!(refused(&[0, 1, 0, 1, 0x80, 2], Level::V4), Some(1));
    assert_eq!(refused(&[0, 1, 0, 1, 0x87, 0x97], Level::V5), Some(2));
}

#[test]
fn nonsense_is_refused() {
    for (input, why) in [
        (&b"\x00\x00"[..], "no such kind of packet"),
        (b"\xf0\x00", "no such kind of packet"),
        (b"\x30\xff\xff\xff\xff", "a length of more than four octets"),
        (b"\x36\x05\x00\x01t\x00\x01", "a PUBLISH with QoS 3"),
        (b"\x30\x01\x00", "a PUBLISH that ends early"),
        (b"\x32\x03\x00\x01t", "a PUBLISH that ends early"),
        (b"\x40\x01\x00", "an acknowledgement that ends early"),
    ] {
        assert_eq!(next(input, Level::V4), Err(Malformed(why)));
    }
    assert_eq!(next(b"\x30\x04\x00\x01t\x05", Level::V5), Err(Malformed("a PUBLISH that ends early")));
}
