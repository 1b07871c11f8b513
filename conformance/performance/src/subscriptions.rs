//! `subscriptions`: publish, make many subscriptions that match nothing of it, and publish again, to see what they cost.

use crate::clock::{nanos, seconds_between};
use crate::connections::log_in;
use crate::dialogue::Talk;
use crate::engine::{Course, Engine};
use crate::mqtt::dialogue::Dialogue;
use crate::mqtt::packet::{self, Kind, Level};
use crate::mqtt::topic::aside;
use crate::options::Load;
use crate::report::Report;
use crate::throughput::{counts, head};
use crate::trouble::Trouble;

/// Requests under way at once.
const AHEAD: usize = 200;

/// How many, and how.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Subscriptions {
    #[command(flatten)]
    pub(crate) load: Load,
    /// Subscriptions, each to a filter of its own with a wildcard
    #[arg(long, default_value_t = 100_000)]
    pub(crate) count: usize,
    /// Connections that they are dealt out to
    #[arg(long, default_value_t = 100)]
    pub(crate) holders: usize,
}

/// Runs it.
pub(crate) fn subscriptions(options: &Subscriptions) -> Result<Report, Trouble> {
    let load = options.load.clone();
    let Some(level) = load.target.mqtt() else {
        return Err(Trouble::Unexpected("only MQTT has subscriptions".into()));
    };
    let broker = load.target.broker();
    let mut report = head("subscriptions", &load);
    let mut engine = Engine::new(load)?;
    let (rate_before, cost_before) = publish(&mut engine)?;

    log_in(&engine.load)?;
    let before = broker.usage_at_rest();
    let start = nanos();
    let holders = subscribe(options, level)?;
    let took = seconds_between(start, nanos());
    let subscribed = broker.usage();
    let after = broker.usage_at_rest();

    let (rate_after, cost_after) = publish(&mut engine)?;
    for mut holder in holders {
        engine.board.tally.misrouted += holder.catch_up()?;
        holder.close()?;
    }
    let n = options.count as f64;
    counts(&mut report, &engine);
    report.figure("subscribe_rate", n / took);
    report.figure("broker_us_per_subscribe", before.zip(subscribed).map(|(a, b)| b.since(&a).cpu_s() * 1e6 / n));
    report.figure("rss_per_subscription", before.zip(after).map(|(a, b)| (b.rss as f64 - a.rss as f64) / n));
    report.figure("rate_before", rate_before).figure("rate_after", rate_after);
    report.figure("rate_kept", rate_after / rate_before);
    report.figure("broker_us_per_msg_before", cost_before).figure("broker_us_per_msg_after", cost_after);
    Ok(report)
}

/// Publishes and receives for a while; returns the rate, and the processor time per message.
fn publish(engine: &mut Engine) -> Result<(f64, Option<f64>), Trouble> {
    let earlier = engine.board.tally.received_measured;
    engine.connect_consumers()?;
    engine.connect_producers()?;
    let plan = engine.plan();
    let course: Course = engine.run(&plan)?;
    let n = (engine.board.tally.received_measured - earlier) as f64;
    let end = engine.board.last.arrival.max(course.publish_end);
    engine.close()?;
    let cost = course.broker.map(|(first, last)| last.since(&first).cpu_s() * 1e6 / n);
    Ok((n / seconds_between(course.measure, end), cost))
}

/// Makes the subscriptions, one to a packet, and returns the connections that hold them.
fn subscribe(options: &Subscriptions, level: Level) -> Result<Vec<Dialogue>, Trouble> {
    let holders = options.holders.clamp(1, options.count.max(1));
    let mut held = Vec::new();
    for holder in 0..holders {
        let mut dialogue = Dialogue::begin(&options.load, level, 'h', holder)?;
        dialogue.complete()?;
        let mine: Vec<usize> = (holder..options.count).step_by(holders).collect();
        for some in mine.chunks(AHEAD) {
            let request = |(at, &index): (usize, &usize)| {
                let filter = aside(&options.load.target, index);
                packet::subscribe(level, at as u16 + 1, std::iter::once(filter.as_str()), options.load.qos)
            };
            let requests: Vec<Vec<u8>> = some.iter().enumerate().map(request).collect();
            dialogue.call_many(&requests, Kind::SubAck)?;
        }
        held.push(dialogue);
    }
    Ok(held)
}
