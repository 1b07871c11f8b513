//! `retained`: set a retained message on each of many topics, let one subscriber have them all, and clear them.

use std::time::Duration;

use crate::clock::{nanos, seconds_between};
use crate::connections::log_in;
use crate::dialogue::Talk;
use crate::engine::Engine;
use crate::mqtt::dialogue::{Dialogue, subscribing};
use crate::mqtt::packet::{Envelope, Level};
use crate::mqtt::topic::{all, topic};
use crate::options::Load;
use crate::producer::Plan;
use crate::report::Report;
use crate::throughput::{counts, head};
use crate::trouble::Trouble;

/// Topics that are cleared by one write.
const PIECE: usize = 500;

/// How many, and how.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Retained {
    #[command(flatten)]
    pub(crate) load: Load,
    /// Topics
    #[arg(long, default_value_t = 100_000)]
    pub(crate) count: usize,
    /// Seconds between setting and the look at the broker's memory
    #[arg(long, default_value_t = 2.0)]
    pub(crate) hold: f64,
}

/// Runs it.
pub(crate) fn retained(options: &Retained) -> Result<Report, Trouble> {
    let mut load = options.load.clone();
    let Some(level) = load.target.mqtt() else {
        return Err(Trouble::Unexpected("only MQTT has retained messages".into()));
    };
    (load.producers, load.queues, load.consumers) = (1, options.count, 1);
    (load.messages, load.wildcard, load.retain) = (options.count as u64, true, true);
    let mut report = head("retained", &load);
    let mut engine = Engine::new(load)?;
    set(&mut report, &mut engine, options.hold)?;
    replay(&mut report, &mut engine)?;
    clear(&mut report, &engine.load, level)?;
    Ok(report)
}

fn set(report: &mut Report, engine: &mut Engine, hold: f64) -> Result<(), Trouble> {
    let broker = engine.load.target.broker();
    log_in(&engine.load)?;
    let before = broker.usage_at_rest();
    engine.connect_producers()?;
    let plan = Plan { drain: false, ..engine.plan() };
    engine.run(&plan)?;
    // The broker has taken in all of it when it ends the connection.
    engine.close()?;
    let done = nanos();
    let after = broker.usage();
    std::thread::sleep(Duration::from_secs_f64(hold.max(0.0)));
    let full = broker.usage();
    let n = engine.board.tally.sent as f64;
    report.figure("set_rate", n / seconds_between(plan.start, done));
    report.figure("broker_us_per_set", before.zip(after).map(|(a, b)| b.since(&a).cpu_s() * 1e6 / n));
    report.count("rss_before", before.map(|usage| usage.rss)).count("rss_full", full.map(|usage| usage.rss));
    report.figure("rss_per_retained", before.zip(full).map(|(a, b)| (b.rss as f64 - a.rss as f64) / n));
    Ok(())
}

fn replay(report: &mut Report, engine: &mut Engine) -> Result<(), Trouble> {
    let broker = engine.load.target.broker();
    let first = broker.usage();
    let start = nanos();
    engine.connect_consumers()?;
    let plan = Plan { start, measure: start, end: start, gap: 0.0, drain: true };
    let course = engine.run(&plan)?;
    let n = engine.board.ledger.received() as f64;
    counts(report, engine);
    report.figure("replay_rate", n / seconds_between(start, engine.board.last.arrival));
    let last = course.broker.map(|(_, last)| last);
    report.figure("broker_us_per_replayed", first.zip(last).map(|(a, b)| b.since(&a).cpu_s() * 1e6 / n));
    report.count("rss_peak_replaying", course.rss_peak).figure("gen_cores", course.own.1.cores_since(&course.own.0));
    engine.close()
}

/// Clears every topic by an empty message, and looks whether any is left.
fn clear(report: &mut Report, load: &Load, level: Level) -> Result<(), Trouble> {
    let mut publisher = Dialogue::hello(&load.target, level)?;
    let begun = nanos();
    for from in (0..load.queues).step_by(PIECE) {
        let mut piece = Vec::new();
        for index in from..load.queues.min(from + PIECE) {
            Envelope::new(level, &topic(&load.target, index), 0, 0, true).append(&mut piece, 0, |_| {});
        }
        publisher.tell(&piece)?;
    }
    publisher.catch_up()?;
    report.figure("clear_rate", load.queues as f64 / seconds_between(begun, nanos()));
    publisher.close()?;
    let mut subscriber = Dialogue::hello(&load.target, level)?;
    subscriber.then(subscribing(level, &[all(&load.target)], 0))?;
    subscriber.complete()?;
    report.count("left", subscriber.catch_up()?);
    subscriber.close()
}
