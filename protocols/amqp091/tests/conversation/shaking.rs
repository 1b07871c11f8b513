//! The handshake, heartbeats and the two goodbyes.

use portolan_core::engine::{Ask, Engine};

use crate::bytes::*;
use crate::rig::Rig;

#[test]
fn the_handshake_goes_through() {
    let rig = Rig::new();
    let mut peer = rig.raw(1);
    peer.shake(&[], 0);
    assert!(peer.engine.is_open());
    assert_eq!(peer.say(&open(1)), ["1 open-ok"]);
}

#[test]
fn other_protocols_get_the_header_and_are_closed() {
    for hello in [&b"AMQP\x03\x01\x00\x00"[..], b"AMQP\x00\x00\x09\x02", b"GET / HTTP/1.1\r\n", b"\x16\x03\x01"] {
        let mut peer = Rig::new().raw(1);
        assert_eq!(peer.say(hello), ["header"], "{hello:?}");
        assert!(peer.closes());
    }
}

#[test]
fn wrong_credentials_are_refused_aloud_only_to_those_who_ask() {
    let wrong = |capabilities: &[u8]| {
        let properties = long(&[short("capabilities"), vec![b'F'], long(capabilities)].concat());
        method(0, 10, 11, &[&properties, &short("PLAIN"), &long(b"\0guest\0wrong"), &short("en_US")])
    };
    let mut peer = Rig::new().raw(1);
    peer.say(HEADER);
    assert_eq!(peer.say(&wrong(b"")), [""; 0]);
    assert!(peer.closes());
    let mut peer = Rig::new().raw(1);
    peer.say(HEADER);
    peer.send(&wrong(&[short("authentication_failure_close"), vec![b't', 1]].concat()));
    peer.engine.flush();
    assert!(peer.heard()[0].starts_with("0 close 403 "));
}

#[test]
fn what_does_not_belong_into_a_handshake_ends_it_silently() {
    for steps in [
        vec![HEADER.to_vec(), open(1)],
        vec![HEADER.to_vec(), start_ok(&[]), open_vhost("/")],
        vec![HEADER.to_vec(), start_ok(&[]), tune_ok(10, 100, 0)],
    ] {
        let mut peer = Rig::new().raw(1);
        steps.iter().for_each(|step| peer.send(step));
        assert!(peer.closes());
        assert!(!peer.heard().iter().any(|line| line.contains("close")));
    }
}

#[test]
fn a_missing_vhost_closes_with_a_reason() {
    let mut peer = Rig::new().raw(1);
    for step in [HEADER.to_vec(), start_ok(&[]), tune_ok(10, 4096, 0), open_vhost("nope")] {
        peer.send(&step);
    }
    assert!(peer.heard().last().unwrap().starts_with("0 close 530 10 40 NOT_ALLOWED - vhost nope not found"));
    assert!(matches!(peer.ask, Ask::Linger) && peer.engine.is_closing());
    assert_eq!(peer.say(&close_connection_ok()), [""; 0]);
    assert!(peer.closes());
}

#[test]
fn the_client_says_goodbye() {
    let mut peer = Rig::new().peer(1);
    assert_eq!(peer.say(&close_connection()), ["0 close-ok"]);
    assert!(peer.closes());
}

#[test]
fn the_server_says_goodbye_and_hears_only_the_answer() {
    let rig = Rig::new();
    let mut peer = rig.peer(1);
    peer.say(&declare(1, "q"));
    assert_eq!(peer.goodbye("going down"), ["0 close 320 0 0 CONNECTION_FORCED - going down"]);
    assert_eq!(peer.say(&to("q", "ignored").on(1)), [""; 0]);
    assert_eq!(peer.say(b"even garbage, now"), [""; 0]);
    assert_eq!(rig.broker.census().ready, 0);
    let mut other = rig.peer(2);
    other.goodbye("going down");
    other.send(&close_connection_ok());
    assert!(other.closes());
}

#[test]
fn heartbeats_go_out_and_silence_ends_the_connection() {
    let rig = Rig::new();
    let mut peer = rig.raw(1);
    peer.shake(&[], 10);
    assert_eq!(peer.tick(5_000), ["heartbeat"]);
    assert_eq!(peer.tick(1_000), [""; 0]);
    assert_eq!(peer.tick(4_000), ["heartbeat"]);
    assert_eq!(peer.say(&heartbeat()), [""; 0]);
    peer.tick(20_000);
    assert!(!peer.closes());
    peer.tick(6_000);
    assert!(peer.closes());
}

#[test]
fn a_client_that_wants_no_heartbeats_may_be_silent() {
    let mut peer = Rig::new().peer(1);
    assert_eq!(peer.tick(1_000_000), [""; 0]);
    assert!(!peer.closes());
}

#[test]
fn silence_is_not_held_against_a_client_that_is_not_read() {
    let rig = Rig::new();
    let mut peer = rig.raw(1);
    peer.shake(&[], 10);
    peer.now += 100_000;
    let (_, ask) = peer.engine.tick(peer.now, false);
    assert!(matches!(ask, Ask::More));
}
