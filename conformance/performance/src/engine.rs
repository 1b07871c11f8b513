//! The loop: one thread publishes on some connections, checks what comes by others, and watches the broker meanwhile.

use std::rc::Rc;

use crate::board::Board;
use crate::clock::{SECOND, from_seconds, nanos};
use crate::consumer::{Consumer, tag_of};
use crate::dialogue::{Dialogue, PATIENCE, Step, Talk, opening};
use crate::link::Link;
use crate::meter::{self, Broker, Usage};
use crate::method;
use crate::mqtt;
use crate::mqtt::subscriber::Subscriber;
use crate::options::Load;
use crate::poll::{Poll, Ready};
use crate::producer::{Pace, Plan, Producer};
use crate::stamp::Content;
use crate::trouble::Trouble;

/// The longest sleep.
const TICK: u64 = SECOND / 50;
/// How often the broker's memory is looked at.
const SAMPLE: u64 = SECOND / 5;
/// How often a heartbeat goes out on each connection.
const BEAT: u64 = 20 * SECOND;

/// How a run went in time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Course {
    /// When the figures begin to count.
    pub(crate) measure: u64,
    pub(crate) publish_end: u64,
    /// The broker and this process at `measure` and when all was done.
    pub(crate) broker: Option<(Usage, Usage)>,
    pub(crate) own: (Usage, Usage),
    pub(crate) rss_peak: u64,
}

/// A load and its connections.
pub(crate) struct Engine {
    pub(crate) load: Load,
    pub(crate) board: Board,
    pub(crate) producers: Vec<Producer>,
    consumers: Vec<Consumer>,
    /// The topics, if MQTT is spoken.
    topics: Rc<[Vec<u8>]>,
    poll: Poll,
    scratch: Vec<u8>,
    ready: Vec<Ready>,
    last_beat: u64,
}

impl Engine {
    /// An engine without connections.
    pub(crate) fn new(load: Load) -> Result<Self, Trouble> {
        let board = Board::new(Content::new(load.size, load.target.run), load.layout());
        let count = if load.target.mqtt().is_some() { load.queues } else { 0 };
        let topics = (0..count).map(|index| mqtt::topic::topic(&load.target, index).into_bytes()).collect();
        Ok(Self {
            load,
            board,
            topics,
            producers: Vec::new(),
            consumers: Vec::new(),
            poll: Poll::new()?,
            scratch: Vec::new(),
            ready: Vec::new(),
            last_beat: nanos(),
        })
    }

    /// The plan that the options describe, beginning now.
    pub(crate) fn plan(&self) -> Plan {
        let start = nanos();
        let measure = start + from_seconds(self.load.warmup);
        let timed = self.load.messages == 0;
        Plan {
            start,
            measure,
            end: if timed { measure + from_seconds(self.load.seconds) } else { u64::MAX },
            gap: if self.load.rate > 0.0 { SECOND as f64 / self.load.rate } else { 0.0 },
            drain: true,
        }
    }

    /// Opens all consumers.
    pub(crate) fn connect_consumers(&mut self) -> Result<(), Trouble> {
        for index in 0..self.load.consumers {
            let link = match self.load.raw {
                true => Link::connect(self.load.target.addr, PATIENCE)?,
                false => opened(begin_consuming(&self.load, index)?)?,
            };
            self.adopt_consumer(link, index)?;
        }
        Ok(())
    }

    /// Takes over the connection of consumer number `index`.
    pub(crate) fn adopt_consumer(&mut self, mut link: Link, index: usize) -> Result<(), Trouble> {
        link.set_nonblocking(true)?;
        self.poll.add(&link, self.load.producers + self.consumers.len())?;
        // Deliveries may have come with the reply to basic.consume, or to SUBSCRIBE.
        let early = link.take_tail();
        let queue = self.load.queue_of(index);
        let mut consumer = match self.load.target.mqtt() {
            None => Consumer::new(&self.load, queue, link, &self.board),
            Some(level) => {
                let subscriber = Subscriber::new(level, Rc::clone(&self.topics), self.load.retain);
                Consumer::subscribed(subscriber, queue, link, &self.board)
            }
        };
        let whole = consumer.absorb(&early, &mut self.board, nanos())?;
        consumer.link.flush()?;
        consumer.link.keep(&early[whole..]);
        self.consumers.push(consumer);
        Ok(())
    }

    /// Opens all producers, or opens again those that lost their connections.
    pub(crate) fn connect_producers(&mut self) -> Result<(), Trouble> {
        for index in 0..self.load.producers {
            let link = match self.load.raw {
                true => Link::connect(self.load.target.addr, PATIENCE)?,
                false => open_producer(&self.load, index)?,
            };
            link.set_nonblocking(true)?;
            self.poll.add(&link, index)?;
            match self.producers.get_mut(index) {
                Some(producer) => producer.revive(link),
                None => self.producers.push(Producer::new(&self.load, index, link)),
            }
        }
        Ok(())
    }

    /// Drops what is left of the connections after the broker's death.
    pub(crate) fn lose_all(&mut self) -> Result<(), Trouble> {
        self.consumers.clear();
        self.poll = Poll::new()?;
        self.board.reborn();
        Ok(())
    }

    /// Takes leave of the broker on every connection, so that it has taken in all acknowledgements.
    pub(crate) fn close(&mut self) -> Result<(), Trouble> {
        self.poll = Poll::new()?;
        self.consumers.iter_mut().for_each(Consumer::acknowledge);
        let producers = self.producers.drain(..).map(|producer| producer.link);
        let links: Vec<Link> = producers.chain(self.consumers.drain(..).map(|consumer| consumer.link)).collect();
        if self.load.raw {
            return Ok(());
        }
        for link in links {
            link.set_nonblocking(false)?;
            match self.load.target.mqtt() {
                None => Dialogue::over(link).close()?,
                Some(_) => mqtt::dialogue::part(link)?,
            }
        }
        Ok(())
    }

    /// Publishes by `plan` and, if that says so, stays until everything owed is here or nothing moves any more.
    pub(crate) fn run(&mut self, plan: &Plan) -> Result<Course, Trouble> {
        self.board.measure = plan.measure;
        self.board.publishing = true;
        let mut watch = Watch::new(self.load.target.broker(), plan.measure);
        let (settle, patience) = (from_seconds(self.load.settle), from_seconds(self.load.patience));
        let mut complete_at = None;
        loop {
            let now = nanos();
            watch.look(now);
            let pace = self.publish(plan, now)?;
            if pace == Pace::Finished {
                self.board.publishing = false;
                watch.published(now);
                if complete_at.is_none() && self.is_complete(plan) {
                    complete_at = Some(now);
                    watch.finish();
                }
            }
            if complete_at.is_some_and(|at| now >= at + if plan.drain { settle } else { 0 }) {
                break;
            }
            if now.saturating_sub(self.board.last.any().max(plan.start)) > patience {
                break;
            }
            self.beat(now)?;
            let wait = match pace {
                Pace::Busy => 0,
                _ if self.load.spin && self.board.publishing => 0,
                Pace::Until(due) => due.saturating_sub(now).min(TICK),
                Pace::Held | Pace::Finished => TICK,
            };
            self.listen(wait)?;
        }
        Ok(watch.course())
    }

    fn is_complete(&self, plan: &Plan) -> bool {
        let arrived = !plan.drain || self.board.ledger.received() >= self.board.ledger.owed();
        arrived && self.producers.iter().all(|producer| producer.is_settled() && !producer.link.is_behind())
    }

    /// Gives each producer its turn; the most urgent of their paces is that of all.
    fn publish(&mut self, plan: &Plan, now: u64) -> Result<Pace, Trouble> {
        let mut all = Pace::Finished;
        for index in 0..self.producers.len() {
            let room = self.room();
            let Some(producer) = self.producers.get_mut(index) else {
                break;
            };
            let was_behind = producer.link.is_behind();
            let pace = producer.pump(plan, room, &mut self.board, now)?;
            if producer.link.is_behind() && !was_behind {
                self.poll.watch_writes(&producer.link, index, true)?;
            }
            all = match (all, pace) {
                (Pace::Busy, _) | (_, Pace::Busy) => Pace::Busy,
                (Pace::Until(a), Pace::Until(b)) => Pace::Until(a.min(b)),
                (Pace::Until(due), _) | (_, Pace::Until(due)) => Pace::Until(due),
                (Pace::Held, _) | (_, Pace::Held) => Pace::Held,
                (Pace::Finished, Pace::Finished) => Pace::Finished,
            };
        }
        Ok(all)
    }

    /// How many messages one producer may send before the window is full.
    fn room(&self) -> u64 {
        if self.load.window == 0 {
            return u64::MAX;
        }
        let ledger = &self.board.ledger;
        let under_way = ledger.owed().saturating_sub(ledger.received()) / ledger.layout().fan();
        self.load.window.saturating_sub(under_way).div_ceil(self.load.producers as u64)
    }

    /// Waits at most `nanos` for the sockets, then reads and writes what they let it.
    fn listen(&mut self, wait: u64) -> Result<(), Trouble> {
        self.poll.wait(wait, &mut self.ready)?;
        let ready = std::mem::take(&mut self.ready);
        for event in &ready {
            self.serve(*event)?;
        }
        self.ready = ready;
        Ok(())
    }

    fn serve(&mut self, event: Ready) -> Result<(), Trouble> {
        let Self { producers, consumers, poll, scratch, board, .. } = self;
        let count = producers.len().max(self.load.producers);
        if let Some(producer) = producers.get_mut(event.token) {
            if event.readable
                && let Some(length) = producer.link.receive(scratch)?
            {
                let whole = producer.absorb(&scratch[..length], board, nanos())?;
                producer.link.keep(&scratch[whole..length]);
            }
            if event.writable && producer.link.flush()? {
                poll.watch_writes(&producer.link, event.token, false)?;
            }
        } else if let Some(consumer) = event.token.checked_sub(count).and_then(|index| consumers.get_mut(index)) {
            if event.readable
                && let Some(length) = consumer.link.receive(scratch)?
            {
                let whole = consumer.absorb(&scratch[..length], board, nanos())?;
                consumer.link.keep(&scratch[whole..length]);
            }
            let through = consumer.link.flush()?;
            if !through || event.writable {
                poll.watch_writes(&consumer.link, event.token, !through)?;
            }
        }
        Ok(())
    }

    /// Sends the heartbeats that were agreed on, where nothing else is under way.
    fn beat(&mut self, now: u64) -> Result<(), Trouble> {
        if self.load.raw || now < self.last_beat + BEAT {
            return Ok(());
        }
        self.last_beat = now;
        let beat: &[u8] = match self.load.target.mqtt() {
            None => &method::HEARTBEAT_FRAME,
            Some(_) => &mqtt::packet::PING_REQUEST,
        };
        let producers = self.producers.iter_mut().map(|producer| &mut producer.link);
        for link in producers.chain(self.consumers.iter_mut().map(|consumer| &mut consumer.link)) {
            if !link.is_behind() {
                link.output.extend_from_slice(beat);
                // Eight octets fit, or else the socket is full and the broker is not idle.
                link.flush()?;
            }
        }
        Ok(())
    }
}

/// Begins to connect consumer number `index`.
pub(crate) fn begin_consuming(load: &Load, index: usize) -> Result<Box<dyn Talk>, Trouble> {
    Ok(match load.target.mqtt() {
        None => Box::new(Dialogue::begin(&load.target, consuming(load, load.queue_of(index)))?),
        Some(level) => Box::new(mqtt::dialogue::Dialogue::consuming(load, level, index)?),
    })
}

fn open_producer(load: &Load, index: usize) -> Result<Link, Trouble> {
    let Some(level) = load.target.mqtt() else {
        let mut steps = opening(&load.target);
        if load.confirm > 0 {
            steps.push((method::confirm_select(), method::CONFIRM_SELECT_OK));
        }
        return opened(Box::new(Dialogue::begin(&load.target, steps)?));
    };
    let mut dialogue = mqtt::dialogue::Dialogue::begin(load, level, 'p', index)?;
    dialogue.complete()?;
    if dialogue.allowance() < load.ahead() {
        let most = dialogue.allowance();
        return Err(Trouble::Unexpected(format!("the broker takes no more than {most} unacknowledged messages")));
    }
    opened(Box::new(dialogue))
}

fn opened(mut talk: Box<dyn Talk>) -> Result<Link, Trouble> {
    talk.complete()?;
    Ok(talk.into_link())
}

/// The steps to a consumer of `queue`.
pub(crate) fn consuming(load: &Load, queue: usize) -> Vec<Step> {
    let mut steps = opening(&load.target);
    if load.prefetch > 0 {
        steps.push((method::qos(load.prefetch), method::QOS_OK));
    }
    let consume = method::consume(&load.target.queue(queue), &tag_of(queue), load.auto_ack);
    steps.push((consume, method::CONSUME_OK));
    steps
}

/// Looks at the broker and at this process while a run goes on.
struct Watch {
    broker: Broker,
    course: Course,
    first: Option<Usage>,
    begun: bool,
    next_sample: u64,
    finished: bool,
}

impl Watch {
    fn new(broker: Broker, measure: u64) -> Self {
        let course = Course { measure, ..Course::default() };
        Self { broker, course, first: None, begun: false, next_sample: 0, finished: false }
    }

    fn look(&mut self, now: u64) {
        if !self.begun && now >= self.course.measure {
            self.begun = true;
            self.first = self.broker.usage();
            self.course.own.0 = meter::own();
        }
        if now >= self.next_sample {
            self.next_sample = now + SAMPLE;
            let rss = self.broker.usage().map_or(0, |usage| usage.rss);
            self.course.rss_peak = self.course.rss_peak.max(rss);
        }
    }

    fn published(&mut self, now: u64) {
        if self.course.publish_end == 0 {
            self.course.publish_end = now;
        }
    }

    fn finish(&mut self) {
        self.finished = true;
        self.course.own.1 = meter::own();
        self.course.broker = self.first.zip(self.broker.usage());
    }

    fn course(mut self) -> Course {
        if !self.finished {
            self.finish();
        }
        self.published(nanos());
        self.course
    }
}
