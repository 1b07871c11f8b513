//! `survive`: publish with confirms while the broker is killed and restarted; what was confirmed must all be there in the end.

use std::time::Duration;

use crate::clock::{SECOND, from_seconds, nanos, seconds_between};
use crate::engine::Engine;
use crate::options::Load;
use crate::producer::Plan;
use crate::report::Report;
use crate::throughput::{counts, head, set_up, tear_down};
use crate::trouble::Trouble;

/// How to survive.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Survive {
    #[command(flatten)]
    pub(crate) load: Load,
    /// Consume all the while, not only at the end
    #[arg(long)]
    pub(crate) live: bool,
    /// Seconds that the broker may take to come back
    #[arg(long, default_value_t = 60.0)]
    pub(crate) outage: f64,
}

/// Deaths that were lived through.
#[derive(Default)]
struct Deaths {
    count: u64,
    down_s: f64,
    first: String,
}

/// Publishes, reconnects whenever the connections are lost, and drains in the end.
pub(crate) fn survive(options: &Survive) -> Result<Report, Trouble> {
    let mut load = options.load.clone();
    if load.confirm == 0 || load.fanout || load.producers < load.queues {
        return Err(Trouble::Unexpected("survive needs --confirm, a producer to each queue, and no fan-out".into()));
    }
    (load.persistent, load.durable) = (true, true);
    set_up(&load)?;
    let mut engine = Engine::new(load)?;
    engine.board.expect_deaths();
    let mut deaths = Deaths::default();
    connect(&mut engine, options.live)?;
    let plan = Plan { drain: false, ..engine.plan() };
    let give_up = plan.end.saturating_add(from_seconds(options.outage));
    while let Err(trouble) = engine.run(&plan) {
        recover(&mut engine, options, &mut deaths, trouble, options.live)?;
        if nanos() > give_up {
            break;
        }
    }
    drain(&mut engine, options, &mut deaths)?;

    let mut report = head("survive", &engine.load);
    counts(&mut report, &engine);
    let board = &engine.board;
    report.count("confirmed_unique", board.confirmed_unique());
    report.count("lost_confirmed", board.lost_confirmed(board.ledger.sent()));
    report.count("dup_unexplained", board.tally.dup_unexplained).count("resent", board.tally.resent);
    report.count("reconnects", deaths.count).figure("down_s", deaths.down_s).text("first_disconnect", &deaths.first);
    report.percentiles("conf", &board.confirms);
    engine.close()?;
    tear_down(&engine.load)?;
    Ok(report)
}

fn connect(engine: &mut Engine, consumers: bool) -> Result<(), Trouble> {
    if consumers {
        engine.connect_consumers()?;
    }
    engine.connect_producers()
}

/// Connects again, for as long as an outage may last.
fn recover(
    engine: &mut Engine,
    options: &Survive,
    deaths: &mut Deaths,
    trouble: Trouble,
    consumers: bool,
) -> Result<(), Trouble> {
    if !trouble.is_disconnect() {
        return Err(trouble);
    }
    deaths.count += 1;
    if deaths.first.is_empty() {
        deaths.first = trouble.to_string();
    }
    let since = nanos();
    let deadline = since + from_seconds(options.outage);
    loop {
        engine.lose_all()?;
        match connect(engine, consumers) {
            Ok(()) => break,
            Err(trouble) if !trouble.is_disconnect() || nanos() > deadline => return Err(trouble),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
    deaths.down_s += seconds_between(since, nanos());
    Ok(())
}

/// Attaches the consumers, if they are not, and stays until everything sent has arrived or nothing comes any more.
fn drain(engine: &mut Engine, options: &Survive, deaths: &mut Deaths) -> Result<(), Trouble> {
    let start = nanos();
    // Whoever had to wait for a last confirm still gets it.
    let plan = Plan { start, measure: u64::MAX, end: start, gap: 0.0, drain: true };
    let mut attached = match options.live {
        true => Ok(()),
        false => engine.connect_consumers(),
    };
    // Duplicates may come after the last new message: listen on for a while.
    engine.load.settle = engine.load.settle.max(1.0);
    loop {
        match attached.and_then(|()| engine.run(&plan)) {
            Ok(_) => return Ok(()),
            Err(trouble) => recover(engine, options, deaths, trouble, true)?,
        }
        if nanos() > start + 10 * SECOND + from_seconds(options.outage) {
            return Err(Trouble::Unexpected("the drain was broken off too often".into()));
        }
        attached = Ok(());
    }
}
