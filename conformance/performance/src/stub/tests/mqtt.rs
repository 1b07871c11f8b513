//! The load generator against the stand-in by MQTT.

use super::{check, loaded, numbered, options, stand_in};
use crate::connections::{Connections, connections};
use crate::options::Target;
use crate::queues::{Await, await_ready};
use crate::report::Report;
use crate::retained::{Retained, retained};
use crate::stub::Mischief;
use crate::subscriptions::{Subscriptions, subscriptions};

#[track_caller]
fn has(report: &Report, count: &str) {
    let json = report.json();
    assert!(json.contains(&format!("\"{}", count)), "{count} in {json}");
}

#[test]
fn a_good_broker_has_no_faults() {
    let addr = stand_in(Mischief::None, 1);
    // The flags, and how many deliveries a message is owed.
    let flags = [
        ("--qos 0 --window 100", 1),
        ("--qos 1 --inflight 10 --size 1000", 1),
        ("--qos 2 --inflight 3 --window 50 --durable", 1),
        ("--qos 1 --producers 10 --queues 10 --wildcard --window 100", 1),
        ("--qos 0 --producers 2 --consumers 20 --window 50", 20),
        ("--qos 2 --queues 100 --consumers 10 --mixed", 1),
        ("--qos 0 --queues 4 --consumers 8 --producers 2 --mixed --window 100", 2),
    ];
    for proto in ["mqtt", "mqtt5"] {
        for (flags, fan) in flags {
            let report = loaded(addr, &format!("--proto {proto} --messages 2000 {flags}"));
            check(&report, &[("sent", 2000), ("received", 2000 * fan), ("misflagged", 0)]);
            if !flags.contains("--qos 0") {
                check(&report, &[("confirmed", 2000)]);
            }
        }
    }
}

#[test]
fn every_fault_is_counted_and_none_for_another() {
    for one in [
        "--proto mqtt --messages 1000",
        "--proto mqtt5 --messages 1000 --qos 1",
        "--proto mqtt --messages 1000 --qos 2",
    ] {
        check(&loaded(stand_in(Mischief::Drop, 100), one), &[("lost", 10), ("received", 990)]);
        check(&loaded(stand_in(Mischief::Repeat, 100), one), &[("dup", 10), ("received", 1000)]);
        check(&loaded(stand_in(Mischief::Swap, 99), one), &[("reorder", 10), ("received", 1000)]);
        check(&loaded(stand_in(Mischief::Flip, 100), one), &[("corrupt", 10), ("lost", 10)]);
    }
    // Only a filter with a wildcard lets through what has another topic.
    let all = "--proto mqtt --messages 1000 --wildcard --queues 2 --producers 2";
    check(&loaded(stand_in(Mischief::Misroute, 100), all), &[("misrouted", 10), ("lost", 10)]);
    for qos in [1, 2] {
        let refusing = format!("--proto mqtt5 --messages 1000 --inflight 50 --qos {qos}");
        check(&loaded(stand_in(Mischief::Refuse, 100), &refusing), &[("nacked", 10), ("confirmed", 990)]);
    }
}

#[test]
fn a_schedule_is_kept_and_timed() {
    let addr = stand_in(Mischief::None, 1);
    let report = loaded(addr, "--proto mqtt --qos 1 --inflight 1000 --rate 2000 --seconds 0.5");
    check(&report, &[("sent", 1000), ("unsent", 0)]);
    has(&report, "lat_p99_us");
    has(&report, "conf_p99_us");
}

#[test]
fn no_more_is_sent_ahead_than_the_broker_takes() {
    let load =
        numbered(options(&format!("--addr {} --proto mqtt5 --qos 1 --inflight 1001", stand_in(Mischief::None, 1))));
    let trouble = crate::throughput::throughput(load).map(|_| ()).unwrap_err().to_string();
    assert!(trouble.contains("no more than 1000"), "{trouble}");
}

#[test]
fn what_does_not_go_together_is_refused() {
    for flags in [
        "--proto mqtt --queues 3 --consumers 2",
        "--proto mqtt --auto-ack",
        "--proto mqtt --confirm 5",
        "--proto mqtt5 --fanout",
        "--qos 1",
        "--wildcard",
    ] {
        assert!(options::<crate::options::Load>(flags).check().is_err(), "{flags}");
    }
}

#[test]
fn connections_and_readiness() {
    let addr = stand_in(Mischief::None, 1);
    for proto in ["mqtt", "mqtt5"] {
        let words = format!("--addr {addr} --proto {proto} --consumers 100 --hold 0 --settle 0.05");
        let many: Connections = options(&words);
        let many = Connections { load: numbered(many.load), ..many };
        check(&connections(&many).unwrap(), &[("received", 100)]);
        let target: Target = options(&format!("--addr {addr} --proto {proto}"));
        has(&await_ready(&Await { target, deadline: 5.0 }).unwrap(), "ready_at_ns");
    }
}

fn replayed(mischief: Mischief, words: &str) -> Report {
    let addr = stand_in(mischief, 1003);
    let words = format!("--addr {addr} --proto mqtt --count 1000 --hold 0 --patience 1 --settle 0.05 {words}");
    let options: Retained = options(&words);
    retained(&Retained { load: numbered(options.load), ..options }).unwrap()
}

#[test]
fn what_is_retained_is_replayed_once_and_can_be_cleared() {
    for qos in 0..=2 {
        let report = replayed(Mischief::None, &format!("--qos {qos}"));
        check(&report, &[("sent", 1000), ("received", 1000), ("misflagged", 0), ("left", 0)]);
    }
    // The 1003rd message is the third to be replayed.
    check(&replayed(Mischief::Drop, "--qos 1"), &[("lost", 1), ("received", 999)]);
}

#[test]
fn subscriptions_are_made_and_get_nothing() {
    let addr = stand_in(Mischief::None, 1);
    let words =
        format!("--addr {addr} --proto mqtt5 --count 1000 --holders 4 --messages 500 --window 100 --settle 0.05");
    let options: Subscriptions = options(&words);
    let report = subscriptions(&Subscriptions { load: numbered(options.load), ..options }).unwrap();
    check(&report, &[("sent", 1000), ("received", 1000)]);
    has(&report, "subscribe_rate");
    has(&report, "rate_kept");
}
