//! `churn`: connect, declare, publish one message, close, again and again, while one steady consumer counts what comes.

use crate::board::Board;
use crate::clock::{SECOND, from_seconds, nanos, seconds_between};
use crate::consumer::Consumer;
use crate::dialogue::{Dialogue, Talk, declare, opening};
use crate::engine::consuming;
use crate::latency::Latency;
use crate::method::{self, Envelope, QueueKind};
use crate::options::Load;
use crate::poll::{Poll, Ready};
use crate::report::Report;
use crate::stamp::{Content, Stamp};
use crate::throughput::{head, set_up, tear_down};
use crate::trouble::Trouble;

/// The loops that come and go, and the consumer that stays.
struct Churn {
    load: Load,
    poll: Poll,
    board: Board,
    envelope: Envelope,
    consumer: Consumer,
    loops: Vec<Option<(Dialogue, u64)>>,
    scratch: Vec<u8>,
    times: Latency,
    rounds: u64,
}

/// Runs `--producers` loops at once.
pub(crate) fn churn(load: Load) -> Result<Report, Trouble> {
    let load = Load { queues: 1, consumers: 1, fanout: false, ..load };
    set_up(&load)?;
    let broker = load.target.broker();
    let mut churn = Churn::new(load)?;
    let start = nanos();
    let measure = start + from_seconds(churn.load.warmup);
    let end = measure + from_seconds(churn.load.seconds);
    churn.board.measure = measure;
    let first = broker.usage();
    churn.turn(end)?;
    let (publish_end, last) = (nanos(), broker.usage());
    churn.settle()?;

    let mut report = head("churn", &churn.load);
    let (ledger, tally) = (&churn.board.ledger, &churn.board.tally);
    report.figure("churn_rate", churn.rounds as f64 / seconds_between(measure, publish_end));
    report.percentiles("loop", &churn.times);
    let sent = ledger.sent();
    report.figure("broker_us_per_msg", first.zip(last).map(|(a, b)| b.since(&a).cpu_s() * 1e6 / sent as f64));
    report
        .count("sent", sent)
        .count("received", ledger.received())
        .count("lost", ledger.lost())
        .count("dup", tally.dup);
    report.count("reorder", tally.reorder).count("misrouted", tally.misrouted).count("corrupt", tally.corrupt);
    report.count("rss_before", first.map(|usage| usage.rss)).count("rss_after", broker.usage().map(|usage| usage.rss));
    let Churn { load, consumer, .. } = churn;
    consumer.link.set_nonblocking(false)?;
    Dialogue::over(consumer.link).close()?;
    tear_down(&load)?;
    Ok(report)
}

impl Churn {
    fn new(load: Load) -> Result<Self, Trouble> {
        let board = Board::new(Content::new(load.size, load.target.run), load.layout());
        let mut dialogue = Dialogue::begin(&load.target, consuming(&load, 0))?;
        dialogue.complete()?;
        let link = Box::new(dialogue).into_link();
        link.set_nonblocking(true)?;
        let poll = Poll::new()?;
        poll.add(&link, load.producers)?;
        Ok(Self {
            poll,
            envelope: Envelope::new("", &load.target.queue(0), load.size, load.persistent),
            consumer: Consumer::new(&load, 0, link, &board),
            board,
            loops: (0..load.producers).map(|_| None).collect(),
            scratch: Vec::new(),
            times: Latency::new(),
            rounds: 0,
            load,
        })
    }

    /// Loops until `end`, and until every loop has closed its last connection.
    fn turn(&mut self, end: u64) -> Result<(), Trouble> {
        let mut ready: Vec<Ready> = Vec::new();
        loop {
            let now = nanos();
            for index in 0..self.loops.len() {
                if now < end && self.loops[index].is_none() {
                    self.begin(index)?;
                }
            }
            if self.loops.iter().all(Option::is_none) {
                return Ok(());
            }
            self.poll.wait(SECOND / 50, &mut ready)?;
            ready.iter().try_for_each(|event| self.serve(event.token))?;
        }
    }

    fn begin(&mut self, index: usize) -> Result<(), Trouble> {
        let begun = nanos();
        let slip = self.board.send(index as u32, begun, begun);
        let mut parting = Vec::new();
        let stamp = Stamp::new(slip.due, slip.stream, slip.seq);
        self.envelope.append(&mut parting, |out| self.board.content.append(out, stamp));
        parting.extend(method::close());
        let mut steps = opening(&self.load.target);
        let kind = if self.load.durable { QueueKind::Durable } else { QueueKind::Transient };
        steps.push(declare(&self.load.target.queue(0), kind));
        steps.push((parting, method::CLOSE_OK));
        let dialogue = Dialogue::begin(&self.load.target, steps)?;
        dialogue.link().set_nonblocking(true)?;
        self.poll.add(dialogue.link(), index)?;
        self.loops[index] = Some((dialogue, begun));
        Ok(())
    }

    fn serve(&mut self, token: usize) -> Result<(), Trouble> {
        if token == self.loops.len() {
            return self.consume();
        }
        let Some(place) = self.loops.get_mut(token) else {
            return Ok(());
        };
        let Some((dialogue, begun)) = place else {
            return Ok(());
        };
        if dialogue.advance(&mut self.scratch)? {
            if *begun >= self.board.measure {
                self.rounds += 1;
                self.times.note(nanos() - *begun);
            }
            *place = None;
        }
        Ok(())
    }

    fn consume(&mut self) -> Result<(), Trouble> {
        if let Some(length) = self.consumer.link.receive(&mut self.scratch)? {
            let whole = self.consumer.absorb(&self.scratch[..length], &mut self.board, nanos())?;
            self.consumer.link.keep(&self.scratch[whole..length]);
            self.consumer.link.flush()?;
        }
        Ok(())
    }

    /// Waits for what was published and has not arrived.
    fn settle(&mut self) -> Result<(), Trouble> {
        let mut ready: Vec<Ready> = Vec::new();
        let start = nanos();
        while self.board.ledger.lost() > 0
            && nanos() < self.board.last.arrival.max(start) + from_seconds(self.load.patience)
        {
            self.poll.wait(SECOND / 50, &mut ready)?;
            ready.iter().try_for_each(|event| self.serve(event.token))?;
        }
        Ok(())
    }
}
