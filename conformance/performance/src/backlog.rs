//! `backlog`: fill a queue with nobody consuming, then drain it; in one go, or in two with whatever may happen between.

use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::clock::{nanos, seconds_between};
use crate::dialogue::open_channel;
use crate::engine::{Course, Engine};
use crate::method::{self, QueueKind};
use crate::options::Load;
use crate::producer::Plan;
use crate::report::Report;
use crate::throughput::{counts, head, memory, set_up, tear_down};
use crate::trouble::Trouble;

/// Which half to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Phase {
    /// Fill and drain
    Both,
    /// Only fill
    Fill,
    /// Only drain what a fill with the same --run left
    Drain,
}

/// How to do it.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Backlog {
    #[command(flatten)]
    pub(crate) load: Load,
    /// Which half to do
    #[arg(long, value_enum, default_value_t = Phase::Both)]
    pub(crate) phase: Phase,
    /// Seconds between the fill and the look at the broker's memory
    #[arg(long, default_value_t = 3.0)]
    pub(crate) hold: f64,
    /// Drain: how many messages an earlier drain took
    #[arg(long, default_value_t = 0)]
    pub(crate) skip: u64,
    /// Drain: stop after this many messages and leave the rest; 0: take all
    #[arg(long, default_value_t = 0)]
    pub(crate) take: u64,
}

/// Runs it.
pub(crate) fn backlog(options: &Backlog) -> Result<Report, Trouble> {
    let load = options.load.clone();
    if load.messages == 0 || (load.producers, load.queues, load.consumers) != (1, 1, 1) {
        return Err(Trouble::Unexpected("a backlog needs --messages and has one producer, queue and consumer".into()));
    }
    let mut report = head("backlog", &load);
    let mut engine = Engine::new(load)?;
    if options.phase == Phase::Drain {
        engine.board.ledger.carry(0, engine.load.messages, options.skip);
    } else {
        fill(&mut report, &mut engine, options.hold)?;
    }
    if options.phase != Phase::Fill {
        drain(&mut report, &mut engine, options)?;
    }
    Ok(report)
}

fn fill(report: &mut Report, engine: &mut Engine, hold: f64) -> Result<(), Trouble> {
    let broker = engine.load.target.broker();
    set_up(&engine.load)?;
    let before = broker.usage_at_rest();
    engine.connect_producers()?;
    let plan = Plan { drain: false, ..engine.plan() };
    let mut course = engine.run(&plan)?;
    engine.close()?;
    await_depth(&engine.load)?;
    let filled = nanos();
    course.broker = course.broker.and_then(|(first, _)| Some(first).zip(broker.usage()));
    std::thread::sleep(Duration::from_secs_f64(hold.max(0.0)));
    let full = broker.usage();

    let sent = engine.board.tally.sent as f64;
    report.figure("fill_rate", sent / seconds_between(plan.start, filled));
    report.percentiles("conf", &engine.board.confirms);
    report.figure("broker_us_per_publish", course.broker.map(|(first, last)| last.since(&first).cpu_s() * 1e6 / sent));
    memory(report, before, full, &course);
    let grown = before.zip(full).map(|(before, full)| (full.rss as f64 - before.rss as f64) / sent);
    report.count("rss_full", full.map(|usage| usage.rss)).figure("rss_full_per_msg", grown);
    if engine.board.ledger.lost() > 0 && engine.board.tally.sent < engine.load.messages {
        return Err(Trouble::Unexpected(format!("only {sent} messages could be published")));
    }
    Ok(())
}

/// Waits until the queue says that it holds everything.
fn await_depth(load: &Load) -> Result<(), Trouble> {
    let mut channel = open_channel(&load.target)?;
    let (mut held, mut since) = (0, Instant::now());
    loop {
        let passive = method::queue_declare(&load.target.queue(0), QueueKind::Passive);
        let now_held = method::message_count(&channel.call(passive, method::QUEUE_DECLARE_OK)?).unwrap_or(0);
        if u64::from(now_held) >= load.messages {
            return channel.close();
        }
        if now_held != held {
            (held, since) = (now_held, Instant::now());
        }
        if since.elapsed().as_secs_f64() > load.patience {
            return Err(Trouble::Unexpected(format!("the queue holds {held} of {} messages", load.messages)));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn drain(report: &mut Report, engine: &mut Engine, options: &Backlog) -> Result<(), Trouble> {
    let broker = engine.load.target.broker();
    let owed = engine.board.ledger.owed();
    let wanted = if options.take > 0 { options.take.min(owed) } else { owed };
    engine.board.limit = options.skip + wanted;
    engine.board.ledger.leave(owed - wanted);
    let first = broker.usage();
    let start = nanos();
    engine.connect_consumers()?;
    let plan = Plan { start, measure: start, end: start, gap: 0.0, drain: true };
    let course: Course = engine.run(&plan)?;
    let drained = engine.board.ledger.received() as f64;
    counts(report, engine);
    report.figure("drain_rate", drained / seconds_between(start, engine.board.last.arrival));
    report.figure("drain_s", seconds_between(start, engine.board.last.arrival));
    let last = course.broker.map(|(_, last)| last);
    let spent = first.zip(last).map(|(first, last)| last.since(&first).cpu_s() * 1e6 / drained);
    report.figure("broker_us_per_drained", spent).count("rss_peak_draining", course.rss_peak);
    report.figure("gen_cores", course.own.1.cores_since(&course.own.0));
    engine.close()?;
    if engine.board.ledger.received() >= wanted && wanted == owed { tear_down(&engine.load) } else { Ok(()) }
}
