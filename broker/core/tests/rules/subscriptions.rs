//! Subscriptions of sessions, alone and shared: who gets which message, how often, and what waits for whom.

use portolan_core::broker::{Batch, Settings};
use portolan_core::session::Subscription;
use portolan_core::subscriptions::Filter;
use portolan_core::value::Table;

use crate::devices::{Device, GOODBYE, own, publish};
use crate::kit::{CONNECTION, Kit, kept, post, settings};

const NOTHING: [&str; 0] = [];

#[test]
fn overlapping_subscriptions_get_one_copy_with_the_highest_qos() {
    let kit = Kit::new();
    let device = Device::connected(&kit, "d", 1, 100);
    device.subscribe(&kit, "a.#", 0);
    device.subscribe(&kit, "a.b", 1);
    device.subscribe(&kit, "a.*", 0);
    publish(&kit, "a.b", &[kept("stored")]);
    assert_eq!(kit.journal.records(), 1);
    publish(&kit, "a.c", &[kept("not stored")]);
    assert_eq!((device.take(), kit.journal.records()), (vec!["stored".into(), "not stored".into()], 1));
    device.acknowledge(&kit);
    device.unsubscribe(&kit, own("a.b"));
    publish(&kit, "a.b", &[kept("not stored")]);
    assert_eq!((device.take().len(), kit.journal.records()), (1, 0));
}

#[test]
fn a_subscription_is_replaced_by_one_with_the_same_filter() {
    let kit = Kit::new();
    let device = Device::connected(&kit, "d", 1, 100);
    assert!(device.subscribe(&kit, "a", 0));
    publish(&kit, "a", &[kept("1")]);
    assert_eq!(kit.journal.records(), 0);
    assert!(!device.subscribe(&kit, "a", 1));
    publish(&kit, "a", &[kept("2")]);
    assert_eq!(kit.journal.records(), 1);
    assert!(!device.subscribe(&kit, "a", 1));
    publish(&kit, "a", &[kept("3")]);
    assert_eq!(device.take(), ["1", "2", "3"]);
    assert!(device.unsubscribe(&kit, own("a")));
    assert!(!device.unsubscribe(&kit, own("a")));
    publish(&kit, "a", &[kept("4")]);
    assert_eq!(device.take(), NOTHING);
}

#[test]
fn while_a_subscription_is_replaced_nothing_is_missed_or_doubled() {
    let kit = Kit::new();
    let device = Device::connected(&kit, "d", 1, 0);
    device.subscribe(&kit, "a", 1);
    let (broker, vhost, session) = (kit.broker.clone(), kit.vhost.clone(), device.session());
    std::thread::scope(|scope| {
        let changing = scope.spawn(move || {
            for turn in 0..2000u32 {
                let how = Subscription { qos: (turn % 3) as u8, no_local: turn % 2 == 0, ..Subscription::default() };
                let effects = &mut portolan_core::effect::Effects::default();
                broker.subscribe_session(&vhost, &session, &own("a"), how, 0, effects).unwrap();
            }
        });
        while !changing.is_finished() {
            let route = kit.vhost.route("amq.topic", &[b"a"], &Table::default).unwrap();
            assert_eq!(route.targets.len(), 1);
        }
    });
}

#[test]
fn no_local_leaves_out_what_its_own_client_publishes_and_nothing_else() {
    let kit = Kit::new();
    let (one, other) = (Device::connected(&kit, "1", 1, 0), Device::connected(&kit, "2", 2, 0));
    let quiet = Subscription { qos: 1, no_local: true, ..Subscription::default() };
    for device in [&one, &other] {
        device.subscribe_as(&kit, own("a"), quiet);
    }
    let publish_as = |device: &Device, body: &str| {
        let queue = device.session().queue();
        let route = kit.vhost.route_from(queue, "amq.topic", &[b"a"], &Table::default).unwrap();
        kit.as_caller(CONNECTION, |caller, effects| {
            let mut batch = Batch::default();
            batch.add(&route.targets, kit.message("amq.topic", "a", &post(body)), 1);
            kit.broker.publish(&mut batch, caller.now, effects);
        });
    };
    publish_as(&one, "of 1");
    publish_as(&other, "of 2");
    assert_eq!((one.take(), other.take()), (vec!["of 2".into()], vec!["of 1".into()]));
    one.subscribe(&kit, "#", 0);
    publish_as(&one, "again");
    assert_eq!(one.take(), ["again"], "another subscription wants it");
}

#[test]
fn wildcards_hide_keys_with_a_dollar_from_sessions_but_not_from_bindings() {
    let kit = Kit::new();
    kit.queue("q", &[]);
    kit.bind("amq.topic", "q", "#");
    let device = Device::connected(&kit, "d", 1, 0);
    device.subscribe(&kit, "#", 1);
    device.subscribe(&kit, "*.x", 1);
    publish(&kit, "$SYS.x", &[post("hidden")]);
    assert_eq!((device.take().len(), kit.drain("q")), (0, vec!["hidden".into()]));
    device.subscribe(&kit, "$SYS.#", 1);
    publish(&kit, "$SYS.x", &[post("asked for")]);
    assert_eq!(device.take(), ["asked for"]);
}

#[test]
fn only_what_is_at_least_once_waits_for_an_absent_client() {
    let kit = Kit::new();
    let device = Device::connected(&kit, "d", 1, 100);
    device.subscribe(&kit, "a", 1);
    device.subscribe(&kit, "b", 0);
    device.leave(&kit, &GOODBYE);
    publish(&kit, "a", &[post("dropped"), kept("waits")]);
    publish(&kit, "b", &[kept("dropped")]);
    assert_eq!((kit.refused.get(), kit.broker.counters.mqtt_delivered.dropped.get()), (0, 2));
    device.resume(&kit, 100);
    assert_eq!(device.take(), ["waits"]);
}

#[test]
fn only_sessions_that_survive_store_messages() {
    let kit = Kit::new();
    let (brief, lasting) = (Device::connected(&kit, "b", 1, 0), Device::connected(&kit, "l", 2, 100));
    brief.subscribe(&kit, "a", 1);
    publish(&kit, "a", &[kept("1")]);
    assert_eq!(kit.journal.records(), 0);
    lasting.subscribe(&kit, "a", 1);
    publish(&kit, "a", &[kept("2"), post("3")]);
    assert_eq!(kit.journal.records(), 1);
    assert_eq!((brief.take(), lasting.take().len()), (vec!["1".into(), "2".into(), "3".into()], 2));
    lasting.acknowledge(&kit);
    assert_eq!(kit.journal.records(), 0);
}

#[test]
fn qos_0_passes_a_closed_window() {
    let kit = Kit::new();
    let mut device = Device::connected(&kit, "d", 1, 100);
    device.window = 1;
    device.subscribe(&kit, "a", 1);
    publish(&kit, "a", &[kept("1"), kept("2"), post("at most once")]);
    assert_eq!(device.take(), ["1", "at most once"]);
    device.acknowledge(&kit);
    assert_eq!(device.take(), ["2"]);
}

#[test]
fn a_full_session_drops_what_comes_and_refuses_nobody() {
    let kit = Kit::with(Settings { session_messages: 2, ..settings() });
    kit.queue("q", &[]);
    kit.bind("amq.topic", "q", "a");
    let device = Device::connected(&kit, "d", 1, 100);
    device.subscribe(&kit, "a", 1);
    device.leave(&kit, &GOODBYE);
    publish(&kit, "a", &[kept("1"), kept("2"), kept("3")]);
    assert_eq!((kit.refused.get(), kit.broker.counters.mqtt_delivered.dropped.get()), (0, 1));
    device.resume(&kit, 100);
    assert_eq!((device.take(), kit.drain("q").len()), (vec!["1".into(), "2".into()], 3));
}

#[test]
fn members_of_a_group_take_turns() {
    let kit = Kit::new();
    let devices = [1, 2, 3].map(|n| Device::connected(&kit, &n.to_string(), n, 0));
    assert!(devices.iter().all(|device| device.join(&kit, "g/a", "a")));
    let alone = Device::connected(&kit, "alone", 4, 0);
    alone.subscribe(&kit, "a", 1);
    let other = Device::connected(&kit, "other", 5, 0);
    other.join(&kit, "h/a", "a");
    publish(&kit, "a", &["1", "2", "3", "4", "5", "6"].map(kept));
    for (device, expected) in devices.iter().zip([["1", "4"], ["2", "5"], ["3", "6"]]) {
        assert_eq!(device.take(), expected);
    }
    assert_eq!((alone.take().len(), other.take().len()), (6, 6));
    assert!(!devices[0].join(&kit, "g/a", "a"), "it is one already");
}

#[test]
fn what_a_member_leaves_behind_goes_to_the_others() {
    let kit = Kit::new();
    let devices = [1, 2].map(|n| Device::connected(&kit, &n.to_string(), n, 100));
    assert!(devices.iter().all(|device| device.join(&kit, "g/a", "a")));
    publish(&kit, "a", &[kept("1"), kept("2")]);
    devices[0].leave(&kit, &GOODBYE);
    assert_eq!(devices[1].take(), ["2", "1*"]);
    publish(&kit, "a", &[kept("3")]);
    assert_eq!(devices[1].take(), ["3"]);
    devices[1].leave(&kit, &GOODBYE);
    publish(&kit, "a", &[kept("4"), post("for nobody")]);
    devices[0].resume(&kit, 100);
    let mut got = devices[0].take();
    got.sort();
    assert_eq!(got, ["1*", "2*", "3*", "4"]);
}

#[test]
fn with_its_last_member_a_group_goes() {
    let kit = Kit::new();
    let devices = [1, 2].map(|n| Device::connected(&kit, &n.to_string(), n, 100));
    assert!(devices.iter().all(|device| device.join(&kit, "g/a", "a")));
    publish(&kit, "a", &[kept("1"), kept("2")]);
    let group = Filter { pattern: b"a", group: Some("g/a") };
    assert!(devices[0].unsubscribe(&kit, group));
    assert!(kit.vhost.group("g/a").is_some());
    devices[1].leave(&kit, &portolan_core::sessions::Leave { expiry: Some(0), will: false });
    assert_eq!((kit.vhost.group("g/a"), kit.journal.records()), (None, 0));
    publish(&kit, "a", &[kept("3")]);
    assert_eq!(kit.journal.records(), 0);
    let (kit, restored) = kit.restart(false);
    assert_eq!((restored.strange, kit.vhost.group("g/a")), (0, None));
}

#[test]
fn a_group_survives_with_the_first_member_that_does() {
    let kit = Kit::new();
    let brief = Device::connected(&kit, "b", 1, 0);
    brief.join(&kit, "g/a", "a");
    let lasting = Device::connected(&kit, "l", 2, 100);
    lasting.join(&kit, "g/a", "a");
    lasting.leave(&kit, &GOODBYE);
    brief.leave(&kit, &GOODBYE);
    publish(&kit, "a", &[kept("1")]);
    let (kit, restored) = kit.restart(false);
    assert_eq!(restored.strange, 0);
    let lasting = Device::new("l", 3);
    lasting.resume(&kit, 100);
    assert_eq!(lasting.take(), ["1*"]);
}

#[test]
fn a_group_without_members_does_not_come_back() {
    let kit = Kit::new();
    let (brief, lasting) = (Device::connected(&kit, "b", 1, 0), Device::connected(&kit, "l", 2, 100));
    lasting.join(&kit, "g/a", "a");
    brief.join(&kit, "g/a", "a");
    lasting.unsubscribe(&kit, Filter { pattern: b"a", group: Some("g/a") });
    publish(&kit, "a", &[kept("1")]);
    let (kit, restored) = kit.restart(false);
    assert_eq!((restored.strange, kit.vhost.group("g/a"), kit.journal.records()), (0, None, 0));
    publish(&kit, "a", &[kept("2")]);
    assert_eq!(kit.journal.records(), 0);
    let (_, restored) = kit.restart(false);
    assert_eq!(restored.strange, 0);
}
