//! `queues` and `ready`: declare, look for or delete many queues, and find out when a broker first answers.

use std::time::Duration;

use crate::clock::{from_seconds, nanos, seconds_between};
use crate::dialogue::open_channel;
use crate::method::{self, Method, QueueKind};
use crate::mqtt::dialogue::Dialogue;
use crate::options::Target;
use crate::report::Report;
use crate::trouble::Trouble;

/// Requests under way at once.
const AHEAD: usize = 200;

/// What to do with the queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Deed {
    /// Declare them
    Declare,
    /// See that each is there
    Check,
    /// Delete them
    Delete,
}

/// Which queues.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Queues {
    #[command(flatten)]
    pub(crate) target: Target,
    /// What to do
    #[arg(long, value_enum, default_value_t = Deed::Declare)]
    pub(crate) deed: Deed,
    /// How many
    #[arg(long, default_value_t = 1000)]
    pub(crate) count: usize,
    /// Declare them durable
    #[arg(long)]
    pub(crate) durable: bool,
}

/// Does it.
pub(crate) fn queues(options: &Queues) -> Result<Report, Trouble> {
    let broker = options.target.broker();
    let mut channel = open_channel(&options.target)?;
    let before = broker.usage_at_rest();
    let start = nanos();
    for from in (0..options.count).step_by(AHEAD) {
        let names = (from..options.count.min(from + AHEAD)).map(|index| options.target.queue(index));
        let requests: Vec<Vec<u8>> = names.map(|name| request(options, &name)).collect();
        channel.call_many(&requests, answer(options.deed))?;
    }
    let took = seconds_between(start, nanos());
    std::thread::sleep(Duration::from_secs(1));
    let after = broker.usage();
    channel.close()?;
    let n = options.count as f64;
    let mut report = Report::default();
    report.text("command", "queues").text("name", &options.target.name).text("scenario", &options.target.scenario);
    report.count("run", options.target.run).count("queues", options.count as u64).figure("took_s", took);
    if options.deed == Deed::Declare {
        report.figure("declare_rate", n / took);
        report.figure("rss_per_queue", before.zip(after).map(|(a, b)| (b.rss as f64 - a.rss as f64) / n));
    }
    Ok(report)
}

fn request(options: &Queues, name: &str) -> Vec<u8> {
    match options.deed {
        Deed::Declare if options.durable => method::queue_declare(name, QueueKind::Durable),
        Deed::Declare => method::queue_declare(name, QueueKind::Transient),
        Deed::Check => method::queue_declare(name, QueueKind::Passive),
        Deed::Delete => method::queue_delete(name),
    }
}

fn answer(deed: Deed) -> Method {
    match deed {
        Deed::Declare | Deed::Check => method::QUEUE_DECLARE_OK,
        Deed::Delete => method::QUEUE_DELETE_OK,
    }
}

/// How long to try.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Await {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Give up after this many seconds
    #[arg(long, default_value_t = 300.0)]
    pub(crate) deadline: f64,
}

/// Tries until a channel, or a connection of MQTT, can be opened, and reports the moment by the monotonic clock.
pub(crate) fn await_ready(options: &Await) -> Result<Report, Trouble> {
    let end = nanos() + from_seconds(options.deadline);
    loop {
        match knock(&options.target) {
            Ok(at) => {
                let mut report = Report::default();
                report.text("command", "ready").text("name", &options.target.name).count("ready_at_ns", at);
                return Ok(report);
            }
            Err(trouble) if nanos() > end => return Err(trouble),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Opens and closes, and returns the moment between.
fn knock(target: &Target) -> Result<u64, Trouble> {
    if let Some(level) = target.mqtt() {
        let open = Dialogue::hello(target, level)?;
        let at = nanos();
        return open.close().map(|()| at);
    }
    let channel = open_channel(target)?;
    let at = nanos();
    channel.close().map(|()| at)
}
