//! Requests and their answers, one after the other: how connections are opened and subscriptions made.

use std::collections::VecDeque;

use crate::dialogue::{PATIENCE, Talk};
use crate::link::Link;
use crate::mqtt::packet::{self, Kind, Level, Login, Packet};
use crate::mqtt::topic;
use crate::options::{Load, Target};
use crate::trouble::Trouble;

/// Something to send and the kind of packet that answers it.
pub(crate) type Step = (Vec<u8>, Kind);

/// Filters in one SUBSCRIBE.
const FILTERS: usize = 100;

/// Seconds of keep-alive on connections that are for this and that; rumqttd refuses those without any.
const SHORT: u16 = 60;

/// Steps under way on one connection.
pub(crate) struct Dialogue {
    link: Link,
    level: Level,
    steps: VecDeque<Step>,
    /// Messages that came before the last answer.
    early: Vec<u8>,
    /// How many they are.
    passed: u64,
    /// How many messages the broker lets be unacknowledged.
    allowance: u16,
}

/// The step that connects as client `id`.
fn connecting(target: &Target, level: Level, id: &str, keep_alive: u16, durable: bool) -> Step {
    let Target { user, password, .. } = target;
    let login = Login { level, client: id, user: user.as_deref(), password: password.as_deref(), keep_alive, durable };
    (packet::connect(&login), Kind::ConnAck)
}

/// The steps that subscribe to `filters`.
pub(crate) fn subscribing(level: Level, filters: &[String], qos: u8) -> Vec<Step> {
    let packet = |(number, some): (usize, &[String])| {
        packet::subscribe(level, number as u16 + 1, some.iter().map(String::as_str), qos)
    };
    filters.chunks(FILTERS).enumerate().map(|some| (packet(some), Kind::SubAck)).collect()
}

impl Dialogue {
    /// Connects as a publisher (`p`), a subscriber (`c`) or another. The socket blocks until it is told otherwise.
    pub(crate) fn begin(load: &Load, level: Level, what: char, index: usize) -> Result<Self, Trouble> {
        let id = topic::client(&load.target, what, index);
        let link = Link::connect_as(index, load.target.addr, PATIENCE)?;
        let durable = load.durable && what == 'c';
        Self::over(link, level, connecting(&load.target, level, &id, load.keep_alive, durable))
    }

    /// A connection for this and that.
    pub(crate) fn hello(target: &Target, level: Level) -> Result<Self, Trouble> {
        Self::as_client(target, level, &topic::client(target, 'x', 0))
    }

    fn as_client(target: &Target, level: Level, id: &str) -> Result<Self, Trouble> {
        let link = Link::connect(target.addr, PATIENCE)?;
        let mut known = Self::over(link, level, connecting(target, level, id, SHORT, false))?;
        known.complete()?;
        Ok(known)
    }

    fn over(link: Link, level: Level, first: Step) -> Result<Self, Trouble> {
        let steps = VecDeque::new();
        let mut begun = Self { link, level, steps, early: Vec::new(), passed: 0, allowance: u16::MAX };
        begun.then(vec![first])?;
        Ok(begun)
    }

    /// Connects consumer number `index` and subscribes for it.
    pub(crate) fn consuming(load: &Load, level: Level, index: usize) -> Result<Self, Trouble> {
        let mut begun = Self::begin(load, level, 'c', index)?;
        begun.then(subscribing(level, &topic::filters(load, index), load.qos))?;
        Ok(begun)
    }

    /// Ends the session that consumer number `index` left.
    pub(crate) fn forget(load: &Load, level: Level, index: usize) -> Result<(), Trouble> {
        Self::as_client(&load.target, level, &topic::client(&load.target, 'c', index))?.close()
    }

    /// Adds steps, and sends the first of them if nothing else is under way.
    pub(crate) fn then(&mut self, steps: Vec<Step>) -> Result<(), Trouble> {
        let idle = self.steps.is_empty();
        self.steps.extend(steps);
        if idle { self.ask() } else { Ok(()) }
    }

    fn ask(&mut self) -> Result<(), Trouble> {
        let Some((request, _)) = self.steps.front_mut() else {
            return Ok(());
        };
        self.link.output.append(request);
        // A request is far smaller than an idle socket's buffer.
        if self.link.flush()? { Ok(()) } else { Err(Trouble::Unexpected("a request did not fit the socket".into())) }
    }

    /// Sends all of `requests` at once and waits for as many answers of one kind.
    pub(crate) fn call_many(&mut self, requests: &[Vec<u8>], expected: Kind) -> Result<(), Trouble> {
        // The first step carries all the requests; the others only await their answers.
        let bytes = std::iter::once(requests.concat()).chain(std::iter::repeat(Vec::new()));
        self.then(requests.iter().zip(bytes).map(|(_, bytes)| (bytes, expected)).collect())?;
        self.complete()
    }

    /// Waits until the broker has taken in all that was sent, and says how many messages have come so far.
    pub(crate) fn catch_up(&mut self) -> Result<u64, Trouble> {
        self.call_many(&[packet::PING_REQUEST.to_vec()], Kind::PingResp)?;
        Ok(self.passed)
    }

    /// Sends what needs no answer.
    pub(crate) fn tell(&mut self, bytes: &[u8]) -> Result<(), Trouble> {
        self.link.output.extend_from_slice(bytes);
        self.link.flush()?;
        Ok(())
    }

    /// Says goodbye and waits for the end of the connection, by which time the broker has taken in all that was sent.
    pub(crate) fn close(self) -> Result<(), Trouble> {
        part(self.link)
    }

    fn hear(&mut self, kind: Kind, payload: &[u8]) -> Result<(), Trouble> {
        match self.steps.front() {
            Some((_, expected)) if *expected == kind => {}
            expected => {
                return Err(Trouble::Unexpected(format!("{kind:?} instead of {:?}", expected.map(|step| step.1))));
            }
        }
        let short = || Trouble::Unexpected(format!("{kind:?} ends early"));
        match kind {
            Kind::ConnAck => match packet::welcome(payload, self.level).ok_or_else(short)? {
                (0, allowance) => self.allowance = allowance,
                (reason, _) => return Err(Trouble::Closed(format!("CONNACK with reason {reason:#04x}"))),
            },
            Kind::SubAck => match packet::refused(payload, self.level).ok_or_else(short)? {
                0 => {}
                count => return Err(Trouble::Unexpected(format!("{count} subscriptions were refused"))),
            },
            _ => {}
        }
        self.steps.pop_front();
        self.ask()
    }

    /// How many messages the broker lets be unacknowledged.
    pub(crate) fn allowance(&self) -> usize {
        usize::from(self.allowance)
    }
}

impl Talk for Dialogue {
    fn advance(&mut self, scratch: &mut Vec<u8>) -> Result<bool, Trouble> {
        let Some(length) = self.link.receive(scratch)? else {
            return Ok(self.steps.is_empty());
        };
        let mut at = 0;
        while !self.steps.is_empty() {
            let Some((packet, used)) = packet::next(&scratch[at..length], self.level)? else {
                break;
            };
            let whole = &scratch[at..at + used];
            at += used;
            match packet {
                // What is retained may come before SUBACK (MQTT 5.0, 3.8.4).
                Packet::Publish(_) => {
                    self.passed += 1;
                    self.early.extend_from_slice(whole);
                }
                Packet::Ack { .. } => return Err(Trouble::Unexpected(format!("{packet:?} for nothing"))),
                Packet::Other(Kind::Disconnect, payload) => return Err(Trouble::disconnected(payload)),
                Packet::Other(kind, payload) => self.hear(kind, payload)?,
            }
        }
        self.link.keep(&scratch[at..length]);
        Ok(self.steps.is_empty())
    }

    fn is_done(&self) -> bool {
        self.steps.is_empty()
    }

    fn link(&self) -> &Link {
        &self.link
    }

    fn into_link(mut self: Box<Self>) -> Link {
        let tail = self.link.take_tail();
        self.early.extend_from_slice(&tail);
        self.link.keep(&self.early);
        self.link
    }
}

/// Says goodbye on a connection that may block.
pub(crate) fn part(mut link: Link) -> Result<(), Trouble> {
    link.output.extend_from_slice(&packet::DISCONNECT);
    link.flush()?;
    let mut scratch = Vec::new();
    loop {
        match link.receive(&mut scratch) {
            // What still comes has been counted as lost or was not owed.
            Ok(Some(_)) => link.keep(&[]),
            Ok(None) => return Err(Trouble::Unexpected("the broker does not end the connection".into())),
            Err(_) => return Ok(()),
        }
    }
}
