//! Every packet that is wrong, to a running connection, while another one notices nothing.

use portolan_mqtt::codec::Version::{self, V5, V31, V311};

use crate::bytes::*;
use crate::rig::Rig;

struct Case {
    version: Version,
    code: u8,
    bytes: Vec<u8>,
    about: &'static str,
}

/// What clients must not send, of the table that the decoder is tested with.
fn cases() -> Vec<Case> {
    let case = |line: &'static str| {
        let mut all = line.split_whitespace();
        let (sender, version, verdict, bytes) = (all.next()?, all.next()?, all.next()?, all.next()?);
        let version = match version {
            "3.1" => V31,
            "3.1.1" => V311,
            _ => V5,
        };
        let code = u8::from_str_radix(verdict, 16).ok().filter(|_| sender == "client")?;
        let bytes = (0..bytes.len()).step_by(2).map(|at| u8::from_str_radix(&bytes[at..at + 2], 16).unwrap()).collect();
        Some(Case { version, code, bytes, about: line })
    };
    include_str!("../packets.txt").lines().filter_map(case).collect()
}

/// [MQTT-4.8.0-1] [MQTT5-4.13.1-1] and every statement whose violation the table holds: 5.0 hears the code, 3.x the
/// end of the line, and CONNECT is answered as far as its version allows.
#[test]
fn wrong_packets_end_their_connection_alone() {
    let mut rig = Rig::new();
    let (witness, watcher) = (rig.clean(V311, "witness"), rig.clean(V5, "watcher"));
    rig.say(witness, &subscribe(V311, 1, "other", 1));
    rig.say(watcher, &subscribe(V5, 1, "will/#", 0));
    let cases = cases();
    assert!(cases.len() > 60, "{}", cases.len());
    for case in &cases {
        let (version, about) = (case.version, case.about);
        let connect = case.bytes[0] >> 4 == 1;
        let client = match connect {
            true => rig.raw(version),
            false => rig.connect(&hello(version, "c").will(will("will/c", "w"))),
        };
        let heard = rig.say(client, &case.bytes);
        let code = format!("{:02x}", case.code);
        let expected: Vec<String> = match (connect, version, case.code) {
            (false, V5, _) => vec![format!("disconnect {code}"), "CLOSED".into()],
            (true, V5, _) => vec![format!("connack 0 {code}"), "CLOSED".into()],
            (true, V311, 0x84) => vec!["connack 0 01".into(), "CLOSED".into()],
            (true, V311, 0x85) => vec!["connack 0 02".into(), "CLOSED".into()],
            _ => vec!["CLOSED".into()],
        };
        // What may be closed in silence is not held to an answer.
        let silent = connect && heard == ["CLOSED"];
        assert!(heard == expected || silent, "{about}: {heard:?}, not {expected:?}");
        let wills: &[&str] = if connect { &[] } else { &["will/c q0 w"] };
        assert_eq!(rig.heard(watcher), wills, "{about}");
        assert_eq!(rig.say(witness, PING), ["pingresp"], "{about}");
    }
    rig.say(watcher, &publish(V5, 0, 0, "other", "still here"));
    assert_eq!(rig.heard(witness), ["other q0 still here"]);
    assert_eq!(rig.broker.vhost("/").unwrap().session_count(), 2);
}
