//! A connection that publishes, as far ahead as the schedule, the windows and the socket let it.

use std::collections::VecDeque;

use crate::board::Board;
use crate::clock::{SECOND, nanos};
use crate::link::Link;
use crate::method;
use crate::mqtt::flights::{Flights, Outcome};
use crate::mqtt::packet::{self, Kind, Level, Packet};
use crate::mqtt::topic::topic;
use crate::options::Load;
use crate::stamp::Stamp;
use crate::trouble::Trouble;
use crate::unconfirmed::{Slip, Unconfirmed};
use crate::wire::{self, Event};

/// A producer writes about this much at a time, then the others have their turn. (With twice as much, RabbitMQ 3.10
/// needs a fifth more processor time for a small message.)
const BATCH: usize = 32 * 1024;
/// The clock is read once for this many messages.
const CLOCK_EVERY: u64 = 32;
/// What the schedule had due before the end may still go out for this long.
const GRACE: u64 = SECOND;

/// When to publish, in [`nanos`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) start: u64,
    /// The end of the warm-up.
    pub(crate) measure: u64,
    /// The end of publishing.
    pub(crate) end: u64,
    /// Between two messages of all producers together; 0: as fast as may be.
    pub(crate) gap: f64,
    /// Whether to stay until everything owed has arrived.
    pub(crate) drain: bool,
}

/// What a producer would do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// More, at once.
    Busy,
    /// Nothing before this moment.
    Until(u64),
    /// Nothing before something arrives or the socket takes more.
    Held,
    /// Nothing any more.
    Finished,
}

/// One stream of a producer.
struct Lane {
    stream: u32,
    envelope: Envelope,
}

/// What is the same for all messages of a lane.
enum Envelope {
    Amqp(method::Envelope),
    Mqtt(packet::Envelope),
}

impl Lane {
    fn new(load: &Load, stream: usize) -> Self {
        let to = load.layout().topic_of(stream);
        let envelope = match (load.target.mqtt(), load.fanout) {
            (Some(level), _) => {
                let topic = topic(&load.target, to);
                Envelope::Mqtt(packet::Envelope::new(level, &topic, load.size, load.qos, load.retain))
            }
            (None, true) => {
                Envelope::Amqp(method::Envelope::new(&load.target.exchange(), "", load.size, load.persistent))
            }
            (None, false) => {
                Envelope::Amqp(method::Envelope::new("", &load.target.queue(to), load.size, load.persistent))
            }
        };
        Self { stream: stream as u32, envelope }
    }
}

/// What a producer is apart from its connection, which may die.
pub(crate) struct Producer {
    pub(crate) link: Link,
    index: u64,
    producers: u64,
    lanes: Vec<Lane>,
    turn: usize,
    sent: u64,
    quota: u64,
    confirm: usize,
    unconfirmed: Unconfirmed,
    resend: VecDeque<Slip>,
    /// The level of MQTT and what is under way, if that is spoken; then nothing is unconfirmed.
    mqtt: Option<(Level, Flights)>,
}

impl Producer {
    /// Producer number `index` of a load.
    pub(crate) fn new(load: &Load, index: usize, link: Link) -> Self {
        let streams = index..load.layout().streams();
        let quota = if load.messages > 0 { load.messages.div_ceil(load.producers as u64) } else { u64::MAX };
        Self {
            link,
            index: index as u64,
            producers: load.producers as u64,
            lanes: streams.step_by(load.producers).map(|stream| Lane::new(load, stream)).collect(),
            turn: 0,
            sent: 0,
            quota,
            confirm: load.confirm,
            unconfirmed: Unconfirmed::default(),
            resend: VecDeque::new(),
            mqtt: load.target.mqtt().map(|level| (level, Flights::new(load.qos, load.ahead()))),
        }
    }

    /// Messages on this connection that await their confirm.
    fn open(&self) -> usize {
        self.unconfirmed.open() + self.mqtt.as_ref().map_or(0, |(_, flights)| flights.open())
    }

    /// Whether every message is confirmed that is to be.
    pub(crate) fn is_settled(&self) -> bool {
        self.open() == 0 && self.resend.is_empty()
    }

    /// Messages without a confirm.
    pub(crate) fn in_doubt(&self) -> u64 {
        (self.open() + self.resend.len()) as u64
    }

    /// Goes on over a new connection with what the old one left unconfirmed.
    pub(crate) fn revive(&mut self, link: Link) {
        let mut doubtful = VecDeque::from(self.unconfirmed.abandon());
        doubtful.append(&mut self.resend);
        self.resend = doubtful;
        self.link = link;
    }

    /// Publishes up to a batch, and of new messages no more than `room`.
    pub(crate) fn pump(&mut self, plan: &Plan, room: u64, board: &mut Board, mut now: u64) -> Result<Pace, Trouble> {
        if self.link.is_behind() {
            return Ok(Pace::Held);
        }
        let mut fresh = 0;
        let pace = loop {
            if self.link.output.len() >= BATCH {
                break Pace::Busy;
            }
            if self.is_full() {
                break Pace::Held;
            }
            if let Some(slip) = self.resend.pop_front() {
                board.resend(slip, now);
                self.write(slip, board);
                continue;
            }
            if self.sent >= self.quota {
                break Pace::Finished;
            }
            if fresh >= room {
                break Pace::Held;
            }
            if fresh % CLOCK_EVERY == CLOCK_EVERY - 1 {
                now = nanos();
            }
            let due = match self.next_due(plan, &mut now) {
                Ok(due) => due,
                Err(pace) => break pace,
            };
            if plan.gap > 0.0 && due >= plan.measure {
                board.lag.note(now - due);
            }
            let slip = board.send(self.lanes[self.turn].stream, due, now);
            self.turn = if self.turn + 1 == self.lanes.len() { 0 } else { self.turn + 1 };
            self.sent += 1;
            fresh += 1;
            self.write(slip, board);
        };
        let through = self.link.flush()?;
        Ok(if through { pace } else { Pace::Held })
    }

    /// When the next message is due, if it is due by now.
    #[inline]
    fn next_due(&self, plan: &Plan, now: &mut u64) -> Result<u64, Pace> {
        if *now < plan.start {
            return Err(Pace::Until(plan.start));
        }
        if plan.gap == 0.0 {
            return if *now < plan.end { Ok(*now) } else { Err(Pace::Finished) };
        }
        let due = plan.start + ((self.sent * self.producers + self.index) as f64 * plan.gap) as u64;
        if due >= plan.end || *now >= plan.end.saturating_add(GRACE) {
            return Err(Pace::Finished);
        }
        if due > *now {
            *now = nanos();
        }
        if due > *now { Err(Pace::Until(due)) } else { Ok(due) }
    }

    /// Whether the next message must wait for a confirm.
    #[inline]
    fn is_full(&self) -> bool {
        match &self.mqtt {
            Some((_, flights)) => flights.is_full(),
            None => self.confirm > 0 && self.unconfirmed.open() >= self.confirm,
        }
    }

    #[inline]
    fn write(&mut self, slip: Slip, board: &Board) {
        if self.confirm > 0 {
            self.unconfirmed.push(slip);
        }
        // Stream s belongs to producer s % producers, which counts its lanes from 0.
        let lane = &self.lanes[slip.stream as usize / self.producers as usize];
        let stamp = Stamp::new(slip.due, slip.stream, slip.seq);
        let body = |out: &mut Vec<u8>| board.content.append(out, stamp);
        match &lane.envelope {
            Envelope::Amqp(envelope) => envelope.append(&mut self.link.output, body),
            Envelope::Mqtt(envelope) => {
                let id = self.mqtt.as_mut().map_or(0, |(_, flights)| flights.push(slip));
                envelope.append(&mut self.link.output, id, body);
            }
        }
    }

    /// Takes in what the broker said and returns how much of it was whole.
    pub(crate) fn absorb(&mut self, input: &[u8], board: &mut Board, now: u64) -> Result<usize, Trouble> {
        if self.mqtt.is_some() {
            return self.absorb_mqtt(input, board, now);
        }
        let (mut at, mut spill) = (0, Vec::new());
        while let Some((event, used)) = wire::next(&input[at..], &mut spill)? {
            at += used;
            match event {
                Event::Confirm { tag, multiple, positive } => {
                    let known = self.unconfirmed.settle(tag, multiple, |slip| board.settle(slip, positive, now));
                    board.tally.stray += u64::from(!known);
                }
                Event::Heartbeat | Event::Other(method::UNBLOCKED, _) => {}
                Event::Other(method::BLOCKED, _) => board.tally.blocked += 1,
                Event::Other(method::CLOSE | method::CHANNEL_CLOSE, args) => {
                    return Err(Trouble::closed(args));
                }
                Event::Other(method, _) => {
                    return Err(Trouble::Unexpected(format!("{method:?} to a producer")));
                }
                Event::Delivery(_) => {
                    return Err(Trouble::Unexpected("a delivery to a producer".into()));
                }
            }
        }
        Ok(at)
    }

    fn absorb_mqtt(&mut self, input: &[u8], board: &mut Board, now: u64) -> Result<usize, Trouble> {
        let Some((level, flights)) = &mut self.mqtt else {
            return Ok(0);
        };
        let mut at = 0;
        while let Some((packet, used)) = packet::next(&input[at..], *level)? {
            at += used;
            match packet {
                Packet::Ack { kind, id, good } => match flights.settle(kind, id, good) {
                    Outcome::Settled { slip, taken } => board.settle(slip, taken, now),
                    Outcome::Release => {
                        board.last.confirm = now;
                        self.link.output.extend_from_slice(&packet::ack(Kind::PubRel, id));
                    }
                    Outcome::Stray => board.tally.stray += 1,
                },
                Packet::Other(Kind::PingResp, _) => {}
                Packet::Other(Kind::Disconnect, payload) => return Err(Trouble::disconnected(payload)),
                other => return Err(Trouble::Unexpected(format!("{other:?} to a publisher"))),
            }
        }
        Ok(at)
    }
}
