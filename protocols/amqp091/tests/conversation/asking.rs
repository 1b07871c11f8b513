//! Shortages: who is stopped, who is told.

use portolan_core::alarms::Shortage;
use portolan_core::engine::Ask;

use crate::bytes::*;
use crate::rig::Rig;

const SHORT: Shortage = Shortage { memory: true, disk: false };

#[test]
fn a_publisher_is_told_and_waits_while_consumers_go_on() {
    let rig = Rig::new();
    let (mut publisher, mut consumer) = (rig.peer(1), rig.peer(2));
    publisher.say(&[declare(1, "q"), to("q", "a").on(1)].concat());
    rig.alarms.set(SHORT);
    assert_eq!(consumer.say(&consume(1, "q", "c", 0)), ["1 consume-ok c", "1 deliver c 1 a"]);
    assert!(matches!(consumer.ask, Ask::More));
    assert_eq!(publisher.say(&to("q", "b").on(1)), ["0 blocked low on memory"]);
    assert!(matches!(publisher.ask, Ask::Pause));
    assert_eq!(consumer.heard(), ["1 deliver c 2 b"], "what came is not lost");
    rig.alarms.set(Shortage::default());
    assert_eq!(publisher.resume(), ["0 unblocked"]);
    publisher.send(&to("q", "c").on(1));
    assert!(matches!(publisher.ask, Ask::More));
    assert_eq!(publisher.resume(), [""; 0], "told once");
}

#[test]
fn connections_that_are_stopped_are_counted() {
    let rig = Rig::new();
    let blocked = || {
        let objects = &rig.broker.counters.objects;
        (objects.connections_blocked.get(), objects.connections_unblocked.get())
    };
    let (mut stays, mut leaves) = (rig.peer(1), rig.peer(2));
    stays.say(&declare(1, "q"));
    rig.alarms.set(SHORT);
    assert_eq!(blocked(), (0, 0), "those that publish nothing are not stopped");
    stays.send(&to("q", "a").on(1));
    stays.send(&to("q", "what was on its way").on(1));
    leaves.send(&to("q", "b").on(1));
    assert_eq!(blocked(), (2, 0));
    leaves.end();
    assert_eq!(blocked(), (2, 1));
    rig.alarms.set(Shortage::default());
    stays.resume();
    stays.end();
    assert_eq!(blocked(), (2, 2));
}

#[test]
fn a_client_that_does_not_ask_is_stopped_without_a_word() {
    let rig = Rig::new();
    let mut peer = rig.raw(1);
    peer.shake(&[], 0);
    peer.say(&[open(1), declare(1, "q")].concat());
    rig.alarms.set(SHORT);
    assert_eq!(peer.say(&to("q", "a").on(1)), [""; 0]);
    assert!(matches!(peer.ask, Ask::Pause));
    assert_eq!(peer.resume(), [""; 0]);
}
