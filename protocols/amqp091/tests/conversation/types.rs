//! The type of a queue that is declared without one.

use portolan_core::refusal::QueueKind;

use crate::bytes::*;
use crate::rig::{Peer, Rig};

fn named(kind: &str) -> Vec<u8> {
    long(&[short("x-queue-type"), vec![b'S'], long(kind.as_bytes())].concat())
}

/// A peer in a vhost whose queues are quorum queues.
fn peer() -> Peer {
    let mut rig = Rig::new();
    rig.settings.default_types.insert("/".into(), QueueKind::Quorum);
    rig.peer(1)
}

#[test]
fn the_vhosts_type_is_that_of_a_queue_declared_without_one() {
    let mut peer = peer();
    let unsaid = [long(b""), named(""), named("undefined"), named("quorum")];
    for arguments in unsaid {
        assert_eq!(peer.say(&declare_with(1, "q", DURABLE, &arguments)), ["1 declare-ok q 0 0"]);
    }
    let heard = peer.say(&declare_with(1, "q", DURABLE, &named("classic")));
    assert!(heard[0].contains("inequivalent arg 'x-queue-type' for queue 'q' in vhost '/'"), "{heard:?}");
    let heard = peer.say(&[close_ok(1), open(1), declare(1, "")].concat());
    let refused = "Cannot declare a server-named queue for type rabbit_quorum_queue";
    assert!(heard[1].contains(refused), "{heard:?}");
}

#[test]
fn what_cannot_be_of_that_type_is_classic() {
    let mut peer = peer();
    for bits in [0, DURABLE | EXCLUSIVE, DURABLE | AUTO_DELETE, EXCLUSIVE | AUTO_DELETE] {
        let queue = format!("q{bits}");
        let ok = format!("1 declare-ok {queue} 0 0");
        assert_eq!(peer.say(&declare_with(1, &queue, bits, &long(b""))), [ok.as_str()]);
        assert_eq!(peer.say(&declare_with(1, &queue, bits, &named("classic"))), [ok.as_str()]);
    }
}

#[test]
fn a_queue_from_before_is_of_another_type() {
    let mut peer = peer();
    peer.say(&declare_with(1, "old", DURABLE, &named("classic")));
    let heard = peer.say(&declare(1, "old"));
    let text =
        "inequivalent arg 'x-queue-type' for queue 'old' in vhost '/': received 'quorum' but current is 'classic'";
    assert!(heard[0].contains(text), "{heard:?}");
}
