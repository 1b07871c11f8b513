//! Confirms, and everything that must not leave before the journal has it.

use portolan_core::engine::Ask;

use crate::bytes::*;
use crate::rig::{Peer, Rig};

/// A rig whose journal syncs by hand, with queue q and channel 1 in confirm mode.
fn confirming() -> (Rig, Peer) {
    let rig = Rig::new();
    let mut peer = rig.peer(1);
    peer.say(&[declare(1, "q"), confirm_select(1)].concat());
    rig.journal.by_hand();
    (rig, peer)
}

#[test]
fn a_confirm_leaves_after_the_sync_and_not_before() {
    let (rig, mut peer) = confirming();
    assert_eq!(peer.say(&to("q", "a").on(1)), [""; 0]);
    assert_eq!(peer.say(&[to("q", "b").on(1), to("q", "c").on(1)].concat()), [""; 0]);
    rig.journal.sync();
    assert_eq!(peer.heard(), ["1 ack 3+"]);
    peer.say(&to("q", "d").on(1));
    rig.journal.sync();
    assert_eq!(peer.heard(), ["1 ack 4"]);
}

#[test]
fn transient_messages_wait_only_for_those_before_them() {
    let (rig, mut peer) = confirming();
    assert_eq!(peer.say(&to("q", "a").transient().on(1)), ["1 ack 1"]);
    assert_eq!(peer.say(&to("q", "b").on(1)), [""; 0]);
    assert_eq!(peer.say(&to("q", "c").transient().on(1)), [""; 0]);
    rig.journal.sync();
    assert_eq!(peer.heard(), ["1 ack 3+"]);
}

#[test]
fn a_delivery_need_not_wait_for_the_disk() {
    let (rig, mut peer) = confirming();
    let mut other = rig.peer(2);
    other.say(&consume(1, "q", "c", 0));
    peer.say(&to("q", "a").on(1));
    assert_eq!(other.heard(), ["1 deliver c 1 a"]);
    assert_eq!(peer.heard(), [""; 0]);
}

#[test]
fn returns_come_before_their_acks() {
    let (_rig, mut peer) = confirming();
    assert_eq!(peer.say(&to("nope", "a").mandatory().on(1)), ["1 return 312  nope a", "1 ack 1"]);
    assert_eq!(peer.say(&to("nope", "b").on(1)), ["1 ack 2"], "dropped");
    let (rig, mut peer) = confirming();
    peer.say(&to("q", "a").on(1));
    assert_eq!(peer.say(&to("nope", "b").mandatory().on(1)), ["1 return 312  nope b"]);
    rig.journal.sync();
    assert_eq!(peer.heard(), ["1 ack 2+"]);
}

#[test]
fn a_refused_publish_is_answered_once() {
    let rig = Rig::new();
    let mut peer = rig.peer(1);
    let full =
        [&short("x-overflow")[..], b"S", &long(b"reject-publish"), &short("x-max-length"), b"I\0\0\0\x01"].concat();
    peer.say(&[declare_with(1, "full", DURABLE, &long(&full)), declare(1, "q"), confirm_select(1)].concat());
    rig.journal.by_hand();
    peer.send(&to("full", "fits").on(1));
    rig.journal.sync();
    assert_eq!(peer.heard(), ["1 ack 1"]);
    assert_eq!(peer.say(&to("full", "a").on(1)), ["1 nack 2"]);
    rig.journal.sync();
    assert_eq!(peer.heard(), [""; 0], "no ack for what was refused");
    assert_eq!(peer.say(&[to("q", "b").on(1), to("full", "c").on(1)].concat()), ["1 nack 4"]);
    rig.journal.sync();
    let heard = peer.heard();
    assert!(heard == ["1 ack 3"] || heard == ["1 ack 3+"], "{heard:?}");
    assert_eq!(peer.say(&[to("full", "d").on(1), to("q", "e").on(1)].concat()), ["1 nack 5"]);
    rig.journal.sync();
    assert_eq!(peer.heard(), ["1 ack 6+"]);
}

#[test]
fn a_store_without_room_is_a_nack() {
    let (rig, mut peer) = confirming();
    rig.journal.set_full(true);
    assert_eq!(peer.say(&to("q", "a").on(1)), ["1 nack 1"]);
    rig.journal.set_full(false);
    peer.say(&to("q", "b").on(1));
    rig.journal.sync();
    assert_eq!(peer.heard().len(), 1);
}

#[test]
fn every_channel_is_confirmed_once_however_publishes_alternate() {
    let (rig, mut peer) = confirming();
    peer.say(&[open(2), confirm_select(2)].concat());
    let mixed = || [1, 2, 1, 2, 1].map(|channel| to("q", "x").on(channel)).concat();
    peer.say(&mixed());
    rig.journal.sync();
    assert_eq!(peer.heard(), ["1 ack 3+", "2 ack 2+"]);
    let transient = [1, 2, 1, 2, 1].map(|channel| to("q", "x").transient().on(channel)).concat();
    assert_eq!(peer.say(&transient), ["1 ack 6+", "2 ack 4+"]);
}

#[test]
fn a_declaration_counts_when_it_is_durable_and_nothing_overtakes_it() {
    let rig = Rig::new();
    let mut peer = rig.peer(1);
    rig.journal.by_hand();
    assert_eq!(peer.say(&declare(1, "q")), [""; 0]);
    assert_eq!(peer.say(&[consume(1, "q", "c", NO_ACK), to("q", "a").on(1)].concat()), [""; 0]);
    rig.journal.sync();
    assert_eq!(peer.heard(), ["1 declare-ok q 0 0", "1 consume-ok c", "1 deliver c 1 a"]);
    assert_eq!(peer.say(&bind(1, "q", "amq.direct", "k")), [""; 0]);
    rig.journal.sync();
    assert_eq!(peer.heard(), ["1 bind-ok"]);
    assert_eq!(peer.say(&declare(1, "q")), ["1 declare-ok q 0 1"], "it exists already");
}

#[test]
fn confirms_of_a_closed_channel_are_forgotten() {
    let (rig, mut peer) = confirming();
    peer.say(&to("q", "a").on(1));
    assert_eq!(peer.say(&close(1)), ["1 close-ok"]);
    peer.say(&[open(1), confirm_select(1)].concat());
    rig.journal.sync();
    assert_eq!(peer.heard(), [""; 0]);
    peer.say(&to("q", "b").on(1));
    rig.journal.sync();
    assert_eq!(peer.heard(), ["1 ack 1"]);
}

#[test]
fn publishers_wait_for_a_disk_that_lags_behind() {
    let mut rig = Rig::new();
    rig.settings.journal_backlog = 2;
    let mut peer = rig.peer(1);
    peer.say(&declare(1, "q"));
    rig.journal.by_hand();
    peer.send(&to("q", "a").on(1));
    assert!(matches!(peer.ask, Ask::More));
    peer.send(&[to("q", "b").on(1), to("q", "c").on(1)].concat());
    assert!(matches!(peer.ask, Ask::Wait(_)));
}
