//! Sessions: who has one, when it ends, and when its will is published.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use portolan_core::broker::Settings;
use portolan_core::catalogue::ConnectionId;
use portolan_core::effect::Effects;
use portolan_core::refusal::Refusal;
use portolan_core::session::{Claim, Holder, NEVER, Will};
use portolan_core::sessions::{Leave, Opened, SessionWish};
use portolan_core::store::Owner;

use crate::devices::Connected::{Fresh, Resumed, Wait};
use crate::devices::{Device, GOODBYE, WITH_WILL, own, publish, will};
use crate::kit::{CONNECTION, Kit, kept, settings};

/// A kit with a queue that gets every will.
fn kit() -> Kit {
    let kit = Kit::new();
    kit.broker.reserve_queue_ids().unwrap();
    kit.queue("wills", &[]);
    kit.bind("amq.topic", "wills", "will.#");
    kit
}

#[test]
fn a_session_is_there_until_its_time_without_a_connection_is_over() {
    let kit = kit();
    let device = Device::new("d", 1);
    assert_eq!(device.open(&kit, false, 10, None), Fresh);
    kit.pass(60_000);
    device.leave(&kit, &GOODBYE);
    kit.pass(9_999);
    assert_eq!(device.open(&kit, false, 10, None), Resumed);
    device.leave(&kit, &GOODBYE);
    kit.pass(10_000);
    assert_eq!(kit.vhost.session_count(), 0);
    assert_eq!(device.open(&kit, false, 10, None), Fresh);
    device.leave(&kit, &GOODBYE);
    // Nobody has ticked yet.
    kit.now.set(kit.now.get() + 10_000);
    assert_eq!(device.open(&kit, false, 0, None), Fresh);
    device.leave(&kit, &GOODBYE);
    assert_eq!(kit.vhost.session_count(), 0, "it ends with its connection");
}

#[test]
fn never_is_never() {
    let kit = kit();
    let device = Device::connected(&kit, "d", 1, NEVER);
    device.leave(&kit, &GOODBYE);
    kit.pass(1 << 40);
    assert_eq!(device.open(&kit, false, NEVER, None), Resumed);
}

#[test]
fn a_clean_start_takes_nothing_over() {
    let kit = kit();
    let device = Device::connected(&kit, "d", 1, 100);
    device.subscribe(&kit, "a", 1);
    assert!(device.session().receive_once(7).0);
    device.leave(&kit, &GOODBYE);
    publish(&kit, "a", &[kept("old")]);
    assert_eq!(kit.journal.records(), 1);
    assert_eq!(device.open(&kit, true, 100, None), Fresh);
    let view = device.session().view();
    assert_eq!((view.subscriptions.len(), view.queue, view.received), (0, None, 0));
    publish(&kit, "a", &[kept("nobody's")]);
    assert_eq!(kit.journal.records(), 0);
    let (kit, restored) = kit.restart(false);
    assert_eq!((restored.sessions, restored.strange), (1, 0));
    assert!(kit.vhost.session("d").unwrap().view().subscriptions.is_empty());
}

#[test]
fn a_goodbye_may_change_the_expiry_but_not_raise_it_from_nothing() {
    let kit = kit();
    let device = Device::connected(&kit, "d", 1, 100);
    device.leave(&kit, &Leave { expiry: Some(5), will: false });
    kit.pass(5_000);
    assert_eq!(kit.vhost.session_count(), 0);
    let device = Device::connected(&kit, "d", 2, 100);
    device.leave(&kit, &Leave { expiry: Some(0), will: false });
    assert_eq!(kit.vhost.session_count(), 0);
    let device = Device::connected(&kit, "d", 3, 0);
    device.leave(&kit, &Leave { expiry: Some(100), will: false });
    assert_eq!(kit.vhost.session_count(), 0);
}

#[test]
fn a_newcomer_waits_until_the_holder_has_left() {
    let kit = kit();
    let (old, new) = (Device::connected(&kit, "d", 1, 100), Device::new("d", 2));
    assert_eq!(new.open(&kit, false, 100, None), Wait);
    assert_eq!((old.link.displaced(), new.link.granted()), (1, 0));
    old.leave(&kit, &WITH_WILL);
    assert_eq!(new.link.granted(), 1);
    assert_eq!(new.open(&kit, false, 100, None), Resumed);
    old.leave(&kit, &WITH_WILL);
    assert_eq!(new.session().view().connection, Some(ConnectionId(2)), "who does not have it cannot leave it");
}

#[test]
fn of_two_that_wait_the_later_gets_it() {
    let kit = kit();
    let devices = [1, 2, 3].map(|connection| Device::new("d", connection));
    let [old, second, third] = &devices;
    old.open(&kit, true, 100, None);
    assert_eq!(second.open(&kit, false, 100, None), Wait);
    assert_eq!(third.open(&kit, false, 100, None), Wait);
    assert_eq!(second.link.displaced(), 1);
    kit.broker.forgo_session(&kit.vhost, "d", second.connection);
    old.leave(&kit, &WITH_WILL);
    assert_eq!((second.link.granted(), third.link.granted()), (0, 1));
    assert_eq!(third.open(&kit, false, 100, None), Resumed);
}

#[test]
fn one_that_gives_up_is_not_granted_anything() {
    let kit = kit();
    let (old, new) = (Device::connected(&kit, "d", 1, 100), Device::new("d", 2));
    new.open(&kit, false, 100, None);
    kit.broker.forgo_session(&kit.vhost, "d", new.connection);
    old.leave(&kit, &WITH_WILL);
    assert_eq!(new.link.granted(), 0);
    assert_eq!(new.open(&kit, false, 100, None), Resumed);
}

#[test]
fn a_session_that_ends_with_its_connection_is_not_there_for_the_newcomer() {
    let kit = kit();
    let (old, new) = (Device::connected(&kit, "d", 1, 0), Device::new("d", 2));
    assert_eq!(new.open(&kit, false, 100, None), Wait);
    old.leave(&kit, &WITH_WILL);
    assert_eq!((new.link.granted(), new.open(&kit, false, 100, None)), (1, Fresh));
}

#[test]
fn a_will_comes_when_the_client_is_gone_without_a_goodbye() {
    let kit = kit();
    let device = Device::new("d", 1);
    device.open(&kit, false, 0, will("at once", 0));
    device.leave(&kit, &WITH_WILL);
    assert_eq!(kit.drain("wills"), ["at once"]);
    device.open(&kit, false, 0, will("never", 0));
    device.leave(&kit, &GOODBYE);
    device.open(&kit, false, 100, will("never", 5));
    device.leave(&kit, &GOODBYE);
    kit.pass(200_000);
    assert_eq!(kit.drain("wills"), [""; 0]);
    device.open(&kit, false, 0, will("with the session", 5));
    device.leave(&kit, &WITH_WILL);
    assert_eq!(kit.drain("wills"), ["with the session"]);
}

#[test]
fn a_wills_delay_is_kept_to_the_millisecond_and_no_longer_than_the_session() {
    let kit = kit();
    let device = Device::new("d", 1);
    device.open(&kit, false, 100, will("delayed", 5));
    device.leave(&kit, &WITH_WILL);
    kit.pass(4_999);
    assert_eq!(kit.drain("wills"), [""; 0]);
    kit.pass(1);
    assert_eq!(kit.drain("wills"), ["delayed"]);
    assert_eq!(device.open(&kit, false, 3, will("cut", 5)), Resumed);
    device.leave(&kit, &WITH_WILL);
    kit.pass(2_999);
    assert_eq!(kit.drain("wills"), [""; 0]);
    kit.pass(1);
    assert_eq!((kit.drain("wills"), kit.vhost.session_count()), (vec!["cut".into()], 0));
}

#[test]
fn coming_back_cancels_the_will_and_a_clean_start_publishes_it() {
    let kit = kit();
    let device = Device::new("d", 1);
    device.open(&kit, false, 100, will("cancelled", 5));
    device.leave(&kit, &WITH_WILL);
    assert_eq!(device.open(&kit, false, 100, will("early", 5)), Resumed);
    kit.pass(10_000);
    assert_eq!(kit.drain("wills"), [""; 0]);
    device.leave(&kit, &WITH_WILL);
    assert_eq!(device.open(&kit, true, 100, None), Fresh);
    assert_eq!(kit.drain("wills"), ["early"]);
}

#[test]
fn a_will_is_retained_and_an_empty_one_clears() {
    let kit = kit();
    let retained = |kit: &Kit| {
        let mut bodies = Vec::new();
        kit.broker.retained(&kit.vhost, b"will.#", true, kit.now.get(), &mut |m, _| bodies.push(m.body().to_vec()));
        bodies
    };
    let device = Device::new("d", 1);
    let retain = |will: Option<Will>| will.map(|will| Will { retain: true, ..will });
    device.open(&kit, false, 0, retain(will("gone", 0)));
    device.leave(&kit, &WITH_WILL);
    assert_eq!((retained(&kit), kit.drain("wills")), (vec![b"gone".to_vec()], vec!["gone".into()]));
    device.open(&kit, false, 0, retain(will("", 0)));
    device.leave(&kit, &WITH_WILL);
    assert_eq!((retained(&kit).len(), kit.drain("wills")), (0, vec![String::new()]));
}

#[test]
fn an_operator_ends_a_session() {
    let kit = kit();
    let drop = |kit: &Kit| {
        kit.as_caller(CONNECTION, |caller, effects| kit.broker.drop_session(&kit.vhost, "d", caller.now, effects))
    };
    assert!(!drop(&kit));
    let device = Device::new("d", 1);
    device.open(&kit, false, 100, will("dropped", 50));
    assert!(drop(&kit));
    assert_eq!(device.link.displaced(), 1);
    device.leave(&kit, &Leave { expiry: Some(100), will: true });
    assert_eq!((kit.vhost.session_count(), kit.drain("wills")), (0, vec!["dropped".into()]));
    device.open(&kit, false, 100, None);
    device.leave(&kit, &GOODBYE);
    assert!(drop(&kit));
    let (_, restored) = kit.restart(false);
    assert_eq!(restored.sessions, 0);
}

#[test]
fn what_is_due_is_listed_once_and_not_for_ever() {
    let kit = kit();
    let device = Device::new("d", 1);
    for _ in 0..100 {
        device.open(&kit, false, 3600, will("w", 600));
        device.leave(&kit, &WITH_WILL);
        kit.pass(10);
    }
    assert_eq!(kit.vhost.sessions_due(), 1);
    device.open(&kit, false, 3600, None);
    assert_eq!(kit.vhost.sessions_due(), 0);
    device.leave(&kit, &GOODBYE);
    device.open(&kit, true, 0, None);
    device.leave(&kit, &GOODBYE);
    assert_eq!((kit.vhost.sessions_due(), kit.vhost.session_count()), (0, 0));
}

#[test]
fn a_qos_2_message_is_received_once_until_it_is_released() {
    let kit = kit();
    let device = Device::connected(&kit, "d", 1, 100);
    let once = |kit: &Kit, device: &Device| {
        let fresh = device.session().receive_once(7).0;
        kit.broker.note_received(&kit.vhost, &device.session()).unwrap();
        fresh
    };
    let complete = |kit: &Kit, device: &Device| kit.broker.complete(&kit.vhost, &device.session(), 7).unwrap();
    assert!(once(&kit, &device) && !once(&kit, &device));
    device.leave(&kit, &WITH_WILL);
    let (kit, _) = kit.restart(false);
    let device = Device::new("d", 2);
    device.resume(&kit, 100);
    assert!(!once(&kit, &device), "also after a restart");
    assert!(complete(&kit, &device) && !complete(&kit, &device));
    let (kit, _) = kit.restart(false);
    let device = Device::new("d", 3);
    device.resume(&kit, 100);
    assert!(once(&kit, &device));
}

#[test]
fn a_packet_id_is_not_written_before_its_message_is_published() {
    let kit = kit();
    let device = Device::connected(&kit, "d", 1, 100);
    assert!(device.session().receive_once(7).0);
    // The cleaner comes in between.
    kit.broker.restate().unwrap();
    let (kit, _) = kit.restart(false);
    let device = Device::new("d", 2);
    device.resume(&kit, 100);
    assert!(device.session().receive_once(7).0, "the message was not taken, so it must be when it comes again");
    kit.broker.note_received(&kit.vhost, &device.session()).unwrap();
    kit.journal.forget_facts();
    kit.broker.restate().unwrap();
    let (kit, _) = kit.restart(false);
    assert_eq!(kit.vhost.session("d").unwrap().view().received, 1);
}

#[test]
fn what_a_client_has_taken_over_is_only_let_go_of_after_a_crash() {
    let kit = kit();
    let device = Device::connected(&kit, "d", 1, 100);
    device.subscribe(&kit, "a", 2);
    publish(&kit, "a", &[kept("one"), kept("two")]);
    assert_eq!(device.take(), ["one", "two"]);
    device.take_over(&kit);
    publish(&kit, "a", &[kept("three")]);
    assert_eq!(device.take(), ["three"]);
    let (kit, _) = kit.restart(false);
    // However often the cleaner moves it.
    assert_eq!(kit.move_all(), [""; 0]);
    let device = Device::new("d", 2);
    device.resume(&kit, 100);
    assert_eq!(device.take(), ["one!", "two!", "three*"]);
    assert_eq!(kit.move_all(), [""; 0]);
    let (kit, _) = kit.restart(false);
    let device = Device::new("d", 3);
    device.resume(&kit, 100);
    assert_eq!(device.take(), ["one!", "two!", "three*"]);
    device.acknowledge(&kit);
    let (kit, _) = kit.restart(true);
    let device = Device::new("d", 4);
    device.resume(&kit, 100);
    assert_eq!((device.take(), kit.journal.records()), (vec![], 0));
}

#[test]
fn a_vhost_has_as_many_sessions_as_its_limit_says() {
    let kit = Kit::with(Settings { sessions: 2, ..settings() });
    let one = Device::connected(&kit, "one", 1, 100);
    let brief = Device::connected(&kit, "brief", 2, 0);
    let refused = Device::new("three", 3).try_open(&kit, true, 0, None);
    assert!(matches!(refused, Err(Refusal::Limit { limit: 2, .. })));
    // Those that are there can be had.
    one.leave(&kit, &GOODBYE);
    assert_eq!(one.open(&kit, false, 100, None), Resumed);
    brief.leave(&kit, &GOODBYE);
    Device::connected(&kit, "three", 3, 0);
}

/// Everything that a session has, with a will that has been waiting for 4 of its 10 seconds.
fn furnished() -> Kit {
    let kit = kit();
    let device = Device::new("d", 1);
    device.open(&kit, false, 100, will("late", 10));
    device.subscribe(&kit, "a.*", 1);
    device.subscribe(&kit, "b", 0);
    device.join(&kit, "g/c", "c");
    assert!(device.session().receive_once(9).0);
    kit.broker.note_received(&kit.vhost, &device.session()).unwrap();
    publish(&kit, "a.x", &[kept("held")]);
    device.leave(&kit, &WITH_WILL);
    publish(&kit, "a.y", &[kept("waiting")]);
    publish(&kit, "c", &[kept("shared")]);
    let brief = Device::connected(&kit, "brief", 2, 0);
    brief.subscribe(&kit, "a.*", 1);
    kit.pass(4_000);
    kit
}

fn check_furnished(kit: &Kit) {
    let view = kit.vhost.session("d").unwrap().view();
    let mut patterns: Vec<_> = view.subscriptions.iter().map(|(pattern, one)| (&**pattern, one.qos)).collect();
    patterns.sort_unstable();
    assert_eq!(patterns, [(&b"a.*"[..], 1), (&b"b"[..], 0)]);
    assert_eq!((view.shared.len(), view.received, kit.vhost.session_count()), (1, 1, 1));
    kit.pass(5_999);
    assert_eq!(kit.drain("wills"), [""; 0]);
    kit.pass(1);
    assert_eq!(kit.drain("wills"), ["late"]);
    let device = Device::new("d", 3);
    device.resume(kit, 100);
    publish(kit, "a.z", &[kept("new")]);
    publish(kit, "c", &[kept("new shared")]);
    let mut got = device.take();
    got.sort();
    assert_eq!(got, ["held*", "new", "new shared", "shared*", "waiting*"]);
    device.acknowledge(kit);
    device.leave(kit, &Leave { expiry: Some(0), will: false });
    assert_eq!((kit.vhost.session_count(), kit.vhost.group("g/c")), (0, None));
    assert_eq!((kit.journal.records(), kit.vhost.sessions_due()), (0, 0));
}

#[test]
fn everything_comes_back_after_a_crash() {
    let (kit, restored) = furnished().restart(false);
    assert_eq!((restored.sessions, restored.strange), (1, 0));
    check_furnished(&kit);
}

#[test]
fn everything_comes_back_after_the_cleaner_wrote_it_anew() {
    let kit = furnished();
    let before = kit.journal.facts();
    kit.journal.forget_facts();
    kit.broker.restate().unwrap();
    assert_eq!(kit.journal.facts(), before);
    assert_eq!(kit.move_all(), [""; 0]);
    let (kit, restored) = kit.restart(false);
    assert_eq!((restored.sessions, restored.strange), (1, 0));
    assert_eq!(kit.move_all(), [""; 0]);
    check_furnished(&kit);
}

#[test]
fn a_client_that_was_connected_has_left_when_the_broker_starts() {
    let kit = kit();
    let device = Device::new("d", 1);
    device.open(&kit, false, 100, will("w", 10));
    kit.pass(50_000);
    let (kit, _) = kit.restart(false);
    kit.pass(9_999);
    assert_eq!(kit.drain("wills"), [""; 0]);
    kit.pass(1);
    assert_eq!(kit.drain("wills"), ["w"]);
    kit.pass(90_000);
    assert_eq!(kit.vhost.session_count(), 0);
}

#[test]
fn a_session_that_was_to_end_with_its_connection_is_not_found_after_a_crash() {
    let kit = kit();
    let device = Device::connected(&kit, "d", 1, 100);
    device.subscribe(&kit, "a", 1);
    device.leave(&kit, &GOODBYE);
    device.resume(&kit, 0);
    let (kit, _) = kit.restart(false);
    let device = Device::new("d", 2);
    assert_eq!(device.open(&kit, false, 100, None), Fresh);
    assert!(device.session().view().subscriptions.is_empty());
}

#[test]
fn a_store_that_takes_nothing_leaves_a_session_that_can_be_opened_later() {
    let kit = kit();
    let device = Device::connected(&kit, "d", 1, 100);
    device.subscribe(&kit, "a", 1);
    device.leave(&kit, &GOODBYE);
    kit.journal.fail_facts(true);
    assert!(device.try_open(&kit, false, 100, None).is_err());
    assert!(Device::new("other", 2).try_open(&kit, false, 100, None).is_err());
    assert_eq!(kit.vhost.session_count(), 1);
    kit.journal.fail_facts(false);
    assert_eq!(device.open(&kit, false, 100, None), Resumed);
    kit.journal.fail_facts(true);
    let sub = portolan_core::session::Subscription::default();
    assert!(device.try_subscribe(&kit, own("b"), sub).is_err());
    let group = portolan_core::subscriptions::Filter { pattern: b"c", group: Some("g/c") };
    assert!(device.try_subscribe(&kit, group, sub).is_err());
    assert_eq!((device.session().view().subscriptions.len(), kit.vhost.group("g/c")), (1, None));
}

#[derive(Default)]
struct Flags {
    displaced: AtomicUsize,
    granted: AtomicUsize,
}

impl Holder for Flags {
    fn displaced(&self) {
        self.displaced.store(1, Ordering::SeqCst);
    }
    fn granted(&self) {
        self.granted.store(1, Ordering::SeqCst);
    }
}

#[test]
fn racing_connections_have_the_session_one_at_a_time() {
    let kit = kit();
    let (broker, vhost, now) = (Arc::clone(&kit.broker), Arc::clone(&kit.vhost), kit.now.get());
    let holders = AtomicUsize::new(0);
    let client: Arc<str> = "d".into();
    let end = Instant::now() + Duration::from_secs(60);
    let race = |connection: ConnectionId, expiry: u32| {
        let flags = Arc::new(Flags::default());
        let mut effects = Effects::default();
        loop {
            assert!(Instant::now() < end, "somebody waits for ever");
            let claim = Claim { connection, holder: Arc::clone(&flags) as _ };
            let wish = SessionWish { client: &client, clean: false, expiry, will: will("w", 0), claim };
            match broker.open_session(&vhost, wish, now, &mut effects).unwrap() {
                Opened::Held { session, .. } => {
                    assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "nobody else has it");
                    holders.fetch_sub(1, Ordering::SeqCst);
                    broker.leave_session(&vhost, &session, connection, &WITH_WILL, now, &mut effects);
                    broker.carry_out(&mut effects, now);
                    return;
                }
                Opened::Wait => {
                    while flags.granted.swap(0, Ordering::SeqCst) == 0 {
                        assert!(Instant::now() < end, "somebody waits for ever");
                        if flags.displaced.load(Ordering::SeqCst) == 1 {
                            return broker.forgo_session(&vhost, &client, connection);
                        }
                        std::thread::yield_now();
                    }
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for thread in 0..4u64 {
            let race = &race;
            scope.spawn(move || {
                for turn in 0..300 {
                    race(ConnectionId(thread * 1000 + turn), (turn % 3) as u32);
                }
            });
        }
        scope.spawn(|| (0..300).for_each(|_| broker.tick(now)));
        scope.spawn(|| (0..100).for_each(|_| broker.restate().unwrap()));
    });
    kit.pass(10_000);
    assert_eq!((kit.vhost.session_count(), kit.vhost.sessions_due()), (0, 0));
}
