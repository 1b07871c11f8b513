//! `connections`: open many connections, each with a queue and a consumer or a subscription, and see what each costs.

use std::time::Duration;

use crate::clock::{nanos, seconds_between};
use crate::dialogue::{Dialogue, Talk, declare, open_channel};
use crate::engine::{Engine, begin_consuming, consuming};
use crate::latency::Latency;
use crate::link::Link;
use crate::method::QueueKind;
use crate::mqtt;
use crate::options::Load;
use crate::poll::Poll;
use crate::report::Report;
use crate::throughput::{counts, head};
use crate::trouble::Trouble;

/// How many, and how.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Connections {
    #[command(flatten)]
    pub(crate) load: Load,
    /// Connections that are being opened at once
    #[arg(long, default_value_t = 32)]
    pub(crate) parallel: usize,
    /// Seconds of idleness, to see what idle connections cost
    #[arg(long, default_value_t = 2.0)]
    pub(crate) hold: f64,
}

/// Opens them, looks at the broker, and sends a message to each.
pub(crate) fn connections(options: &Connections) -> Result<Report, Trouble> {
    let mut load = options.load.clone();
    (load.queues, load.producers, load.messages) = (load.consumers, 1, load.consumers as u64);
    let broker = load.target.broker();
    log_in(&load)?;
    let before = broker.usage_at_rest();
    let start = nanos();
    let (links, times) = open_all(&load, options.parallel.max(1))?;
    let opened = nanos();
    let connected = broker.usage();
    let mut engine = Engine::new(load)?;
    for (index, link) in links.into_iter().enumerate() {
        engine.adopt_consumer(link, index)?;
    }
    std::thread::sleep(Duration::from_secs(1));
    let settled = broker.usage();
    std::thread::sleep(Duration::from_secs_f64(options.hold.max(0.0)));
    let idle = broker.usage();
    engine.connect_producers()?;
    let plan = engine.plan();
    let course = engine.run(&plan)?;

    let n = engine.load.consumers as f64;
    let mut report = head("connections", &engine.load);
    counts(&mut report, &engine);
    report.figure("connect_rate", n / seconds_between(start, opened)).percentiles("connect", &times);
    report.figure("broker_us_per_connect", before.zip(connected).map(|(a, b)| b.since(&a).cpu_s() * 1e6 / n));
    report.count("rss_before", before.map(|usage| usage.rss)).count("rss_ready", settled.map(|usage| usage.rss));
    let growth = before.zip(settled).map(|(a, b)| (b.rss as f64 - a.rss as f64) / n);
    report.figure("rss_per_connection", growth);
    report.figure("idle_cores", settled.zip(idle).map(|(a, b)| b.cores_since(&a)));
    report.figure("deliver_all_s", seconds_between(plan.start, engine.board.last.arrival));
    report.count("rss_peak", course.rss_peak);
    engine.close()?;
    std::thread::sleep(Duration::from_secs(1));
    report.count("rss_after", broker.usage().map(|usage| usage.rss));
    Ok(report)
}

/// Opens a connection and closes it: what a broker does only for the first one is not to be counted.
pub(crate) fn log_in(load: &Load) -> Result<(), Trouble> {
    let Some(level) = load.target.mqtt() else {
        return open_channel(&load.target)?.close();
    };
    mqtt::dialogue::Dialogue::hello(&load.target, level)?.close()
}

fn begin(load: &Load, queue: usize) -> Result<Box<dyn Talk>, Trouble> {
    if load.target.mqtt().is_some() {
        return begin_consuming(load, queue);
    }
    let mut steps = consuming(load, queue);
    // The connection declares its own queue, which goes when its consumer goes.
    let consume = steps.pop();
    steps.push(declare(&load.target.queue(queue), QueueKind::AutoDelete));
    steps.extend(consume);
    Ok(Box::new(Dialogue::begin(&load.target, steps)?))
}

/// Opens a connection for each queue, some at a time, and says how long each took.
fn open_all(load: &Load, parallel: usize) -> Result<(Vec<Link>, Latency), Trouble> {
    let mut poll = Poll::new()?;
    let mut scratch = Vec::new();
    let mut under_way: Vec<Option<(Box<dyn Talk>, u64)>> = Vec::new();
    let mut links: Vec<Option<Link>> = Vec::new();
    let mut times = Latency::new();
    let (mut open, mut ready) = (0, Vec::new());
    while open < load.queues {
        while under_way.len() < load.queues && under_way.len() - open < parallel {
            let begun = nanos();
            let dialogue = begin(load, under_way.len())?;
            dialogue.link().set_nonblocking(true)?;
            poll.add(dialogue.link(), under_way.len())?;
            under_way.push(Some((dialogue, begun)));
            links.push(None);
        }
        poll.wait(crate::clock::SECOND, &mut ready)?;
        for event in &ready {
            let Some(place) = under_way.get_mut(event.token) else {
                continue;
            };
            let Some((dialogue, begun)) = place else {
                continue;
            };
            if dialogue.advance(&mut scratch)? {
                times.note(nanos() - *begun);
                links[event.token] = place.take().map(|(dialogue, _)| dialogue.into_link());
                open += 1;
            }
        }
    }
    Ok((links.into_iter().flatten().collect(), times))
}
