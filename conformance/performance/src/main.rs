//! `portolan-load`: loads a message broker over AMQP 0-9-1 or MQTT and checks every message that it delivers.

mod backlog;
mod board;
mod churn;
mod clock;
mod connections;
mod consumer;
mod dialogue;
mod engine;
mod latency;
mod ledger;
mod link;
mod meter;
mod method;
mod mqtt;
mod options;
mod poll;
mod producer;
mod queues;
mod relay;
mod report;
mod retained;
mod stamp;
mod stub;
mod subscriptions;
mod survive;
mod sync;
mod throughput;
mod trouble;
mod unconfirmed;
mod wire;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::options::Load;
use crate::report::Report;
use crate::trouble::Trouble;

/// Loads a message broker over AMQP 0-9-1 or MQTT and checks every message that it delivers.
///
/// One JSON line goes to standard output, one line for people to standard error. The exit status is 0 when the run
/// came to its end (the counts say how the broker did) and 1 when it did not.
#[derive(Parser)]
#[command(name = "portolan-load", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Publish for a time and wait until all has arrived
    Throughput(Load),
    /// Fill a queue with nobody consuming, then drain it
    Backlog(backlog::Backlog),
    /// Open many connections, each with a queue and a consumer, or a subscription
    Connections(connections::Connections),
    /// Connect, declare, publish one message, close, again and again
    Churn(Load),
    /// Publish with confirms while the broker is killed and restarted from outside
    Survive(survive::Survive),
    /// Set a retained message on many topics, replay them all, clear them (MQTT)
    Retained(retained::Retained),
    /// Publish before and after many subscriptions with wildcards are made (MQTT)
    Subscriptions(subscriptions::Subscriptions),
    /// Declare, look for or delete many queues
    Queues(queues::Queues),
    /// Wait until the broker opens a channel, or an MQTT connection
    Ready(queues::Await),
    /// Time a bare write and fdatasync of one message
    Sync(sync::Sync),
    /// Be the bare relay that brokers are measured against (load it with throughput --raw)
    Relay(relay::Relay),
    /// Be a stand-in broker without rules or storage, fast or misbehaving, to measure and check this program
    Stub(stub::Stub),
}

fn main() -> ExitCode {
    // A thousand connections need more descriptors than many systems allow at first.
    let files = getrlimit(Resource::Nofile);
    if let Err(e) = setrlimit(Resource::Nofile, rustix::process::Rlimit { current: files.maximum, ..files }) {
        eprintln!("the limit of open files stays at {:?}: {e}", files.current);
    }
    let report = match run(Cli::parse().command) {
        Ok(Some(report)) => report,
        Ok(None) => return ExitCode::SUCCESS,
        Err(trouble) => failed(&trouble),
    };
    println!("{}", report.json());
    eprintln!("{}", report.summary());
    if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn failed(trouble: &Trouble) -> Report {
    let mut report = Report::default();
    report.failure(&trouble.to_string());
    report
}

fn run(command: Command) -> Result<Option<Report>, Trouble> {
    Ok(Some(match command {
        Command::Throughput(load) => throughput::throughput(checked(load)?)?,
        Command::Churn(load) => churn::churn(amqp(checked(load)?)?)?,
        Command::Backlog(mut options) => {
            options.load = amqp(checked(options.load)?)?;
            backlog::backlog(&options)?
        }
        Command::Connections(mut options) => {
            options.load = checked(options.load)?;
            connections::connections(&options)?
        }
        Command::Survive(mut options) => {
            options.load = amqp(checked(options.load)?)?;
            survive::survive(&options)?
        }
        Command::Retained(mut options) => {
            options.load = checked(options.load)?;
            retained::retained(&options)?
        }
        Command::Subscriptions(mut options) => {
            options.load = checked(options.load)?;
            subscriptions::subscriptions(&options)?
        }
        Command::Queues(mut options) => {
            options.target = options.target.numbered();
            queues::queues(&options)?
        }
        Command::Ready(options) => queues::await_ready(&options)?,
        Command::Sync(options) => sync::sync(&options)?,
        Command::Relay(options) => return relay::relay(&options).map(|()| None),
        Command::Stub(options) => return stub::stub(&options).map(|()| None),
    }))
}

fn checked(mut load: Load) -> Result<Load, Trouble> {
    load.target = load.target.numbered();
    load.check().map_err(Trouble::Unexpected)?;
    Ok(load)
}

/// Refuses MQTT where only AMQP is spoken.
fn amqp(load: Load) -> Result<Load, Trouble> {
    match load.target.mqtt() {
        None => Ok(load),
        Some(_) => Err(Trouble::Unexpected("this speaks AMQP alone".into())),
    }
}
