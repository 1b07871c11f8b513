//! Where the two differ on valid packets, each with its reason; a difference that is gone is a failed check.

use portolan_mqtt::codec::Version;
use rumqttd::protocol::Packet;

use crate::Checks;
use crate::table::{Case, alike, cases};
use crate::{ours, theirs};

/// A packet that Portolan reads or writes and rumqttd cannot read.
pub struct Disagreement {
    number: &'static str,
    about: &'static str,
    /// How rumqttd's answer begins.
    answer: &'static str,
    /// What it lacks.
    pub why: &'static str,
}

const fn known(number: &'static str, about: &'static str, answer: &'static str, why: &'static str) -> Disagreement {
    Disagreement { number, about, answer, why }
}

const NOT_TEXT: &str = "rumqttd takes only passwords that are UTF-8, where the specification says binary data";
const NO_AUTH: &str = "rumqttd knows no AUTH";

const KNOWN: &[Disagreement] = &[
    known("3.1", "CONNECT MQIsdp/3", "InvalidProtocol", "rumqttd does not speak 3.1"),
    known("3.1.1", "CONNECT binary password", "PayloadNotUtf8", NOT_TEXT),
    known("5", "CONNECT all props + will props", "TopicNotUtf8", NOT_TEXT),
    known(
        "5",
        "CONNACK all props",
        "panicked",
        "rumqttd writes CONNACK of 5.0, but reaches unreachable!() when it reads it",
    ),
    known(
        "5",
        "UNSUBACK all codes",
        "panicked",
        "rumqttd writes UNSUBACK of 5.0, but reaches unreachable!() when it reads it",
    ),
    known(
        "5",
        "DISCONNECT rc only (0x04 with will)",
        "InsufficientBytes",
        "rumqttd wants a property length behind the reason, which 3.14.2.2.1 lets the sender leave out",
    ),
    known("5", "AUTH continue", "InvalidPacketType", NO_AUTH),
    known("5", "AUTH reauth", "InvalidPacketType", NO_AUTH),
    known("5", "AUTH empty (success)", "InvalidPacketType", NO_AUTH),
];

/// What is known to differ on this packet.
pub fn of(case: &Case) -> Option<&'static Disagreement> {
    KNOWN.iter().find(|known| known.is_about(case))
}

impl Disagreement {
    fn is_about(&self, case: &Case) -> bool {
        (self.number, self.about) == (case.number, case.about)
    }

    /// rumqttd still answers as it is said here.
    pub fn still_holds(&self, bytes: &[u8], version: Version) -> Result<(), String> {
        match theirs::read(bytes, version) {
            Ok(_) => Err("rumqttd reads it now; take it off the list".to_owned()),
            Err(answer) if answer.starts_with(self.answer) => Ok(()),
            Err(answer) => Err(format!("rumqttd answers {answer} instead of {}", self.answer)),
        }
    }
}

/// The list is of packets that there are, and what it hides is read alike without what makes the difference.
pub fn run(checks: &mut Checks) {
    let cases = cases();
    let gone = KNOWN.iter().find(|known| !cases.iter().any(|case| known.is_about(case)));
    let all_there = gone.map_or(Ok(()), |known| Err(known.about.to_owned()));
    checks.check("each known difference is about a packet of the table", all_there);
    for case in cases.iter().filter(|case| of(case).is_some_and(|known| known.why == NOT_TEXT)) {
        let what = format!("{} {} is read alike with a text as password", case.number, case.about);
        checks.check(&what, alike(&with_text_password(&case.bytes), case.version));
    }
    for reason in [0x04, 0x80, 0x93, 0x99] {
        let what = format!("5 DISCONNECT {reason:#04x} is read alike with its property length");
        checks.check(&what, alike(&[0xe0, 2, reason, 0], Version::V5));
    }
    let what = "rumqttd counts a byte too many for each subscription identifier, and cuts the properties";
    checks.check(what, identifiers_are_miscounted());
    checks.check("rumqttd takes an empty user name for none", empty_names_are_lost());
}

/// The packet, whose last field is a password of bytes that no text has, with one of `p`.
fn with_text_password(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for byte in bytes.iter_mut().rev().take_while(|byte| **byte == 0 || !byte.is_ascii()) {
        *byte = b'p';
    }
    bytes
}

/// Three identifiers, of which the last is taken for the beginning of the payload (`0b 03`).
fn identifiers_are_miscounted() -> Result<(), String> {
    let bytes = [0x30, 0x0b, 0, 1, b't', 6, 0x0b, 1, 0x0b, 2, 0x0b, 3, b'x'];
    match theirs::read(&bytes, Version::V5)? {
        Packet::Publish(publish, _) if publish.payload[..] == [0x0b, 3, b'x'] => Ok(()),
        other => Err(format!("no longer: {other:?}")),
    }
}

fn empty_names_are_lost() -> Result<(), String> {
    let bytes = [0x10, 0x0f, 0, 4, b'M', b'Q', b'T', b'T', 4, 0x82, 0, 60, 0, 1, b'c', 0, 0];
    ours::read(&bytes, Version::V311)?;
    match theirs::read(&bytes, Version::V311)? {
        Packet::Connect(_, _, _, _, None) => Ok(()),
        other => Err(format!("no longer: {other:?}")),
    }
}
