//! Packets of the server as short lines.

use std::fmt::Write as _;

use portolan_mqtt::codec::Version;

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken
    }
    fn byte(&mut self) -> u8 {
        self.take(1)[0]
    }
    fn two(&mut self) -> u16 {
        u16::from_be_bytes(self.take(2).try_into().unwrap())
    }
    fn four(&mut self) -> u32 {
        u32::from_be_bytes(self.take(4).try_into().unwrap())
    }
    fn text(&mut self) -> String {
        let length = self.two().into();
        String::from_utf8_lossy(self.take(length)).into_owned()
    }
    fn var(&mut self) -> usize {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.byte();
            value |= usize::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return value;
            }
        }
        panic!("five bytes of length");
    }
}

/// ` name=value` for each property. Reason strings are for people and left out, but must say something.
fn properties(reader: &mut Reader<'_>) -> String {
    let length = reader.var();
    let mut block = Reader(reader.take(length));
    let mut out = String::new();
    while !block.0.is_empty() {
        let id = block.byte();
        let piece = match id {
            0x01 => format!("text={}", block.byte()),
            0x02 => format!("expiry={}", block.four()),
            0x03 => format!("type={}", block.text()),
            0x08 => format!("answer={}", block.text()),
            0x09 => format!("correlation={}", block.text()),
            0x0b => format!("sub={}", block.var()),
            0x11 => format!("session={}", block.four()),
            0x12 => format!("id={}", block.text()),
            0x13 => format!("keep={}", block.two()),
            0x15 => format!("method={}", block.text()),
            0x16 => format!("data={}", block.text()),
            0x1f => {
                assert!(!block.text().is_empty(), "an empty reason");
                continue;
            }
            0x21 => format!("receive={}", block.two()),
            0x22 => format!("aliases={}", block.two()),
            0x23 => format!("alias={}", block.two()),
            0x26 => format!("{}:{}", block.text(), block.text()),
            0x27 => format!("packet={}", block.four()),
            other => panic!("property {other:#x}"),
        };
        let _ = write!(out, " {piece}");
    }
    out
}

fn reason(reader: &mut Reader<'_>) -> String {
    if reader.0.is_empty() {
        return String::new();
    }
    let mut out = format!(" {:02x}", reader.byte());
    if !reader.0.is_empty() {
        out += &properties(reader);
    }
    out
}

fn line(version: Version, first: u8, body: &[u8]) -> String {
    let mut reader = Reader(body);
    let five = version == Version::V5;
    let mut out = match first >> 4 {
        2 => {
            let mut out = format!("connack {} {:02x}", reader.byte(), reader.byte());
            if five {
                out += &properties(&mut reader);
            }
            out
        }
        3 => publish(first, &mut reader, five),
        kind @ 4..=7 => {
            assert_eq!(first & 15, if kind == 6 { 2 } else { 0 }, "reserved flags");
            let name = ["puback", "pubrec", "pubrel", "pubcomp"][usize::from(kind - 4)];
            let id = reader.two();
            format!("{name} {id}{}", if five { reason(&mut reader) } else { String::new() })
        }
        kind @ (9 | 11) => {
            let mut out = format!("{} {}", if kind == 9 { "suback" } else { "unsuback" }, reader.two());
            if five {
                out += &properties(&mut reader);
            }
            for code in reader.take(reader.0.len()) {
                let _ = write!(out, " {code:02x}");
            }
            out
        }
        13 => "pingresp".into(),
        14 => format!("disconnect{}", reason(&mut reader)),
        15 => format!("auth{}", reason(&mut reader)),
        other => panic!("packet type {other}"),
    };
    assert!(reader.0.is_empty(), "{out} and {:?}", reader.0);
    if out.ends_with(' ') {
        out.pop();
    }
    out
}

fn publish(first: u8, reader: &mut Reader<'_>, five: bool) -> String {
    let (qos, topic) = (first >> 1 & 3, reader.text());
    let mut out = format!("{topic} q{qos}");
    if qos > 0 {
        let _ = write!(out, " #{}", reader.two());
    }
    if first & 8 != 0 {
        out += " dup";
    }
    if first & 1 != 0 {
        out += " retain";
    }
    if five {
        out += &properties(reader);
    }
    let payload = reader.take(reader.0.len());
    match payload.len() {
        0..100 => out + " " + &String::from_utf8_lossy(payload),
        many => format!("{out} [{many} bytes]"),
    }
}

/// Whole packets, as lines.
pub fn lines(version: Version, bytes: &[u8]) -> Vec<String> {
    let mut reader = Reader(bytes);
    let mut out = Vec::new();
    while !reader.0.is_empty() {
        let first = reader.byte();
        let length = reader.var();
        out.push(line(version, first, reader.take(length)));
    }
    out
}
