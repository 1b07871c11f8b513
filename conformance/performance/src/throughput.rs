//! `throughput`: publish for a time, as fast as may be, within a window or by a schedule, and wait until all has arrived.

use crate::clock::seconds_between;
use crate::dialogue::{Talk, declare, open_channel};
use crate::engine::{Course, Engine};
use crate::ledger::Layout;
use crate::meter::Usage;
use crate::method::{self, QueueKind};
use crate::mqtt;
use crate::options::Load;
use crate::report::Report;
use crate::trouble::Trouble;

/// Runs the load.
pub(crate) fn throughput(load: Load) -> Result<Report, Trouble> {
    let before = load.target.broker().usage();
    set_up(&load)?;
    let mut engine = Engine::new(load)?;
    engine.connect_consumers()?;
    engine.connect_producers()?;
    let ready = engine.load.target.broker().usage();
    let plan = engine.plan();
    let course = engine.run(&plan)?;
    let mut report = head("throughput", &engine.load);
    figures(&mut report, &engine, &course);
    memory(&mut report, before, ready, &course);
    engine.close()?;
    tear_down(&engine.load)?;
    Ok(report)
}

/// Declares what the load needs.
pub(crate) fn set_up(load: &Load) -> Result<(), Trouble> {
    if load.raw || load.target.mqtt().is_some() {
        return Ok(());
    }
    let mut channel = open_channel(&load.target)?;
    let kind = if load.durable { QueueKind::Durable } else { QueueKind::Transient };
    if load.fanout {
        let exchange = method::exchange_declare(&load.target.exchange(), load.durable);
        channel.call(exchange, method::EXCHANGE_DECLARE_OK)?;
    }
    for queue in (0..load.queues).map(|index| load.target.queue(index)) {
        channel.then(vec![declare(&queue, kind)])?;
        channel.complete()?;
        if load.fanout {
            channel.call(method::queue_bind(&queue, &load.target.exchange()), method::QUEUE_BIND_OK)?;
        }
    }
    channel.close()
}

/// Removes what [`set_up`] declared, and the sessions that consumers left.
pub(crate) fn tear_down(load: &Load) -> Result<(), Trouble> {
    if let Some(level) = load.target.mqtt() {
        let left = if load.durable { load.consumers } else { 0 };
        return (0..left).try_for_each(|index| mqtt::dialogue::Dialogue::forget(load, level, index));
    }
    if load.raw {
        return Ok(());
    }
    let mut channel = open_channel(&load.target)?;
    for index in 0..load.queues {
        channel.call(method::queue_delete(&load.target.queue(index)), method::QUEUE_DELETE_OK)?;
    }
    if load.fanout {
        channel.call(method::exchange_delete(&load.target.exchange()), method::EXCHANGE_DELETE_OK)?;
    }
    channel.close()
}

/// The beginning of every report about a load.
pub(crate) fn head(command: &str, load: &Load) -> Report {
    let mut report = Report::default();
    report.text("command", command).text("name", &load.target.name).text("scenario", &load.target.scenario);
    report.count("run", load.target.run).count("size", load.size as u64);
    report.count("producers", load.producers as u64).count("queues", load.queues as u64);
    report.count("consumers", load.consumers as u64);
    if load.target.mqtt().is_some() {
        report.count("qos", u64::from(load.qos));
    }
    report
}

/// What was counted and timed.
pub(crate) fn figures(report: &mut Report, engine: &Engine, course: &Course) {
    let (board, load) = (&engine.board, &engine.load);
    counts(report, engine);
    let publish_s = seconds_between(course.measure, course.publish_end);
    let e2e_s = seconds_between(course.measure, board.last.arrival.max(course.publish_end));
    report.figure("pub_rate", board.tally.sent_measured as f64 / publish_s);
    report.figure("e2e_rate", board.tally.received_measured as f64 / e2e_s);
    if load.ahead() > 0 {
        report.figure("confirm_rate", board.tally.confirmed_measured as f64 / publish_s);
    }
    report.percentiles("lat", &board.latency).percentiles("conf", &board.confirms);
    if load.rate > 0.0 {
        let due = (load.rate * (load.warmup + load.seconds)) as u64;
        report.figure("rate", load.rate).count("unsent", due.saturating_sub(board.tally.sent));
        report.percentiles("lag", &board.lag);
    }
    processor(report, board.ledger.layout(), board.tally.received_measured, course);
}

/// What came of every message.
pub(crate) fn counts(report: &mut Report, engine: &Engine) {
    let (tally, ledger) = (&engine.board.tally, &engine.board.ledger);
    report.count("sent", tally.sent).count("owed", ledger.owed()).count("received", ledger.received());
    report.count("lost", ledger.lost()).count("dup", tally.dup).count("reorder", tally.reorder);
    report.count("misrouted", tally.misrouted).count("corrupt", tally.corrupt);
    if engine.load.target.mqtt().is_some() {
        report.count("misflagged", tally.misflagged);
    }
    report.count("confirmed", tally.confirmed).count("nacked", tally.nacked).count("stray_confirms", tally.stray);
    report.count("in_doubt", engine.producers.iter().map(|producer| producer.in_doubt()).sum::<u64>());
    report.count("blocked", tally.blocked);
}

/// The processor time that `deliveries` cost.
fn processor(report: &mut Report, layout: Layout, deliveries: u64, course: &Course) {
    let messages = deliveries as f64 / layout.fan() as f64;
    if let Some((first, last)) = course.broker {
        let used = last.since(&first);
        report.figure("broker_us_per_msg", used.cpu_s() * 1e6 / messages);
        report.figure("broker_us_per_delivery", used.cpu_s() * 1e6 / deliveries as f64);
        report.figure("broker_user_s", used.user_s).figure("broker_system_s", used.system_s);
        report.figure("broker_cores", last.cores_since(&first));
    }
    let (first, last) = course.own;
    report.figure("gen_us_per_msg", last.since(&first).cpu_s() * 1e6 / messages);
    report.figure("gen_cores", last.cores_since(&first));
}

/// The broker's memory at the stages of a run.
pub(crate) fn memory(report: &mut Report, before: Option<Usage>, ready: Option<Usage>, course: &Course) {
    report.count("rss_before", before.map(|usage| usage.rss)).count("rss_ready", ready.map(|usage| usage.rss));
    report.count("rss_peak", Some(course.rss_peak).filter(|&peak| peak > 0));
}
