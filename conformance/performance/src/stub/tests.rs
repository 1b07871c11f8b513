//! The load generator against the stand-in: what the broker does wrong is what the report says.

mod mqtt;

use std::net::{SocketAddr, TcpListener};

use clap::Parser;

use super::{Mischief, StandIn};
use crate::backlog::{Backlog, backlog};
use crate::churn::churn;
use crate::connections::{Connections, connections};
use crate::options::{Load, Target};
use crate::queues::{Await, Queues, await_ready, queues};
use crate::report::Report;
use crate::survive::{Survive, survive};
use crate::throughput::throughput;

/// Reads options as the command line would.
#[derive(Parser)]
struct Options<T: clap::Args> {
    #[command(flatten)]
    options: T,
}

fn options<T: clap::Args>(words: &str) -> T {
    let line = std::iter::once("test").chain(words.split_whitespace());
    Options::<T>::try_parse_from(line).unwrap_or_else(|e| panic!("{e}")).options
}

fn stand_in(mischief: Mischief, every: u64) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || StandIn::new(listener, mischief, every).unwrap().serve());
    addr
}

fn numbered(load: Load) -> Load {
    load.check().unwrap();
    Load { target: load.target.clone().numbered(), ..load }
}

fn loaded(addr: SocketAddr, words: &str) -> Report {
    let load = numbered(options(&format!("--addr {addr} --patience 1 --settle 0.05 {words}")));
    throughput(load).unwrap()
}

/// Each of `counts` as the report has it, the other faults being 0.
#[track_caller]
fn check(report: &Report, counts: &[(&str, u64)]) {
    let json = report.json();
    let clean = ["lost", "dup", "reorder", "misrouted", "corrupt", "nacked", "stray_confirms", "in_doubt"];
    let others = clean.iter().filter(|name| !counts.iter().any(|count| count.0 == **name)).map(|name| (*name, 0));
    for (name, count) in counts.iter().copied().chain(others) {
        let shown = format!("\"{name}\":{count}");
        assert!(json.contains(&format!("{shown},")) || json.contains(&format!("{shown}}}")), "{shown} in {json}");
    }
}

#[test]
fn a_good_broker_has_no_faults() {
    let addr = stand_in(Mischief::None, 1);
    let flags = [
        "--auto-ack --window 100",
        "--size 1024 --prefetch 100",
        "--size 100000 --messages 50",
        "--confirm 1 --persistent --durable --prefetch 10",
        "--confirm 100 --producers 4 --queues 4 --consumers 4",
        "--producers 3 --queues 2 --consumers 2 --ack-every 7",
    ];
    for flags in flags {
        let report =
            loaded(addr, &format!("--messages 2000 {flags}").replace("--messages 2000 --size 100000", "--size 100000"));
        let sent = if flags.contains("100000") {
            50
        } else if flags.contains("--producers 3") {
            2001
        } else {
            2000
        };
        check(&report, &[("sent", sent), ("received", sent)]);
    }
}

#[test]
fn a_fan_out_owes_a_delivery_to_each_queue() {
    let addr = stand_in(Mischief::None, 1);
    let report = loaded(addr, "--messages 500 --fanout --queues 5 --consumers 5 --auto-ack --window 50");
    check(&report, &[("sent", 500), ("owed", 2500), ("received", 2500)]);
}

#[test]
fn a_schedule_is_kept_and_timed() {
    let report = loaded(stand_in(Mischief::None, 1), "--rate 2000 --seconds 0.5 --auto-ack");
    check(&report, &[("sent", 1000), ("unsent", 0)]);
    assert!(report.json().contains("lat_p99_us"));
}

#[test]
fn every_fault_is_counted_and_none_for_another() {
    let one = "--messages 1000 --auto-ack";
    check(&loaded(stand_in(Mischief::Drop, 100), one), &[("lost", 10), ("received", 990)]);
    check(&loaded(stand_in(Mischief::Repeat, 100), one), &[("dup", 10), ("received", 1000)]);
    check(&loaded(stand_in(Mischief::Swap, 99), one), &[("reorder", 10), ("received", 1000)]);
    check(&loaded(stand_in(Mischief::Flip, 100), one), &[("corrupt", 10), ("lost", 10)]);
    let two = "--messages 1000 --auto-ack --producers 2 --queues 2 --consumers 2";
    check(&loaded(stand_in(Mischief::Misroute, 100), two), &[("misrouted", 10), ("lost", 10)]);
    check(
        &loaded(stand_in(Mischief::Refuse, 100), "--messages 1000 --confirm 50"),
        &[("nacked", 10), ("confirmed", 990)],
    );
}

#[test]
fn a_backlog_in_one_go_and_in_parts() {
    let addr = stand_in(Mischief::None, 1);
    let run = |words: &str| {
        let mut options: Backlog =
            options(&format!("--addr {addr} --patience 1 --settle 0.05 --messages 3000 --hold 0 --run 77 {words}"));
        options.load = numbered(options.load);
        backlog(&options).unwrap()
    };
    check(&run(""), &[("sent", 3000), ("received", 3000)]);
    run("--phase fill --confirm 100");
    check(&run("--phase drain --take 2000"), &[("received", 2000)]);
}

#[test]
fn connections_churn_queues_and_readiness() {
    let addr = stand_in(Mischief::None, 1);
    let many: Connections = options(&format!("--addr {addr} --consumers 100 --auto-ack --hold 0 --settle 0.05"));
    let many = Connections { load: numbered(many.load), ..many };
    check(&connections(&many).unwrap(), &[("received", 100)]);

    let report = churn(numbered(options(&format!("--addr {addr} --producers 4 --auto-ack --seconds 0.3")))).unwrap();
    assert!(
        report.json().contains("\"lost\":0,\"dup\":0,\"reorder\":0,\"misrouted\":0,\"corrupt\":0"),
        "{}",
        report.json()
    );

    for deed in ["declare", "check", "delete"] {
        let options: Queues = options(&format!("--addr {addr} --count 450 --deed {deed} --run 5"));
        assert!(queues(&options).unwrap().json().contains("\"queues\":450"));
    }
    let target: Target = options(&format!("--addr {addr}"));
    assert!(await_ready(&Await { target, deadline: 5.0 }).unwrap().json().contains("ready_at_ns"));
}

#[test]
fn survival_without_a_death() {
    let addr = stand_in(Mischief::None, 1);
    let words = format!("--addr {addr} --producers 2 --queues 2 --consumers 2 --confirm 50 --messages 1000 --size 200");
    for live in ["", "--live"] {
        let options: Survive = options(&format!("{words} {live}"));
        let options = Survive { load: numbered(options.load), ..options };
        let report = survive(&options).unwrap();
        check(&report, &[("confirmed_unique", 1000), ("lost_confirmed", 0), ("dup_unexplained", 0), ("reconnects", 0)]);
    }
}
