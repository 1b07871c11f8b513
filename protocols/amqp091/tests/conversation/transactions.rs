//! The tx class.

use crate::bytes::*;
use crate::rig::{Peer, Rig};

const SELECT: u16 = 10;
const COMMIT: u16 = 20;
const ROLLBACK: u16 = 30;

fn selected() -> (Rig, Peer) {
    let rig = Rig::new();
    let mut peer = rig.peer(1);
    assert_eq!(peer.say(&[declare(1, "q"), tx(1, SELECT)].concat()), ["1 declare-ok q 0 0", "1 tx-ok"]);
    (rig, peer)
}

#[test]
fn publishes_happen_with_the_commit_which_is_durable() {
    let (rig, mut peer) = selected();
    rig.journal.by_hand();
    peer.say(&[to("q", "a").on(1), to("q", "b").on(1)].concat());
    assert_eq!(rig.broker.census().ready, 0);
    assert_eq!(peer.say(&tx(1, COMMIT)), [""; 0]);
    assert_eq!(rig.broker.census().ready, 2);
    rig.journal.sync();
    assert_eq!(peer.heard(), ["1 commit-ok"]);
}

#[test]
fn a_rollback_forgets_publishes_and_holds_deliveries_again() {
    let (rig, mut peer) = selected();
    peer.say(&[open(2), to("q", "a").on(2), to("q", "b").on(2), consume(1, "q", "c", 0)].concat());
    peer.say(&[ack(1, 1, false), to("q", "never").on(1)].concat());
    assert_eq!(peer.say(&tx(1, ROLLBACK)), ["1 rollback-ok"]);
    assert_eq!(rig.broker.census().unsettled, 2);
    peer.say(&ack(1, 2, true));
    assert_eq!(rig.broker.census().unsettled, 2, "until the commit");
    assert_eq!(peer.say(&tx(1, COMMIT)), ["1 commit-ok"]);
    assert_eq!((rig.broker.census().unsettled, rig.broker.census().ready), (0, 0));
}

#[test]
fn returns_come_with_the_commit() {
    let (_rig, mut peer) = selected();
    assert_eq!(peer.say(&to("nope", "a").mandatory().on(1)), [""; 0]);
    assert_eq!(peer.say(&tx(1, COMMIT)), ["1 return 312  nope a", "1 commit-ok"]);
    peer.say(&to("nope", "b").mandatory().on(1));
    assert_eq!(peer.say(&tx(1, ROLLBACK)), ["1 rollback-ok"]);
    assert_eq!(peer.say(&tx(1, COMMIT)), ["1 commit-ok"]);
}

#[test]
fn what_a_closed_channel_did_not_commit_did_not_happen() {
    let (rig, mut peer) = selected();
    peer.say(&[open(2), to("q", "a").on(2), get(1, "q", false), ack(1, 1, false), to("q", "b").on(1)].concat());
    peer.say(&close(1));
    assert_eq!(peer.say(&get(2, "q", true)), ["2 get-ok 1* 0 a"]);
    assert_eq!(rig.broker.census().ready, 0);
}

#[test]
fn confirm_and_tx_do_not_mix() {
    let (_rig, mut peer) = selected();
    assert!(peer.say(&confirm_select(1))[0].starts_with("1 close 406 85 10 "));
    peer.say(&[close_ok(1), open(1), confirm_select(1)].concat());
    assert!(peer.say(&tx(1, SELECT))[0].starts_with("1 close 406 90 10 "));
    peer.say(&[close_ok(1), open(1)].concat());
    assert!(peer.say(&tx(1, COMMIT))[0].starts_with("1 close 406 90 20 "));
}

#[test]
fn a_commit_that_a_queue_refuses_says_so() {
    let (rig, mut peer) = selected();
    rig.journal.set_full(true);
    assert!(peer.say(&[to("q", "a").on(1), tx(1, COMMIT)].concat())[0].starts_with("1 close 406 90 20 "));
}
