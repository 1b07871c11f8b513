//! `stub`: a stand-in broker without rules or storage, fast or misbehaving on purpose, by which this program is measured and checked.

mod mqtt;

use std::collections::{HashMap, VecDeque};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsFd;

use clap::ValueEnum;

use crate::clock::SECOND;
use crate::dialogue::PATIENCE;
use crate::link::Link;
use crate::method::{self, reply};
use crate::mqtt::packet::Level;
use crate::poll::{Poll, Ready};
use crate::trouble::Trouble;
use crate::wire::{self, Event, FRAME_END};

/// What to do wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mischief {
    /// Nothing
    #[default]
    None,
    /// Lose a message
    Drop,
    /// Deliver a message twice
    Repeat,
    /// Deliver a message after its successor
    Swap,
    /// Change a bit of a body
    Flip,
    /// Put a message in the next queue
    Misroute,
    /// Refuse a message with basic.nack, or a reason code of MQTT 5
    Refuse,
}

/// How to stand in.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Stub {
    /// The address to listen on
    #[arg(long)]
    pub(crate) listen: SocketAddr,
    /// What to do wrong
    #[arg(long, value_enum, default_value_t = Mischief::None)]
    pub(crate) mischief: Mischief,
    /// Do it to every N-th message
    #[arg(long, default_value_t = 100)]
    pub(crate) every: u64,
}

/// Serves until the process ends.
pub(crate) fn stub(options: &Stub) -> Result<(), Trouble> {
    let listener = TcpListener::bind(options.listen)?;
    StandIn::new(listener, options.mischief, options.every)?.serve()
}

struct Peer {
    link: Link,
    speech: Speech,
    confirming: bool,
    published: u64,
    confirmed: u64,
    /// The last packet id of MQTT.
    delivered: u16,
    /// What was subscribed to.
    filters: Vec<Vec<u8>>,
}

/// What a peer speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Speech {
    Unknown,
    Amqp,
    Mqtt(Level),
}

#[derive(Default)]
struct StandInQueue {
    name: Vec<u8>,
    /// The consumer's connection and tag.
    consumer: Option<(usize, Vec<u8>)>,
    delivered: u64,
    stored: VecDeque<Vec<u8>>,
    /// A message that its successor is to overtake.
    late: Option<Vec<u8>>,
    bound: bool,
}

/// The stand-in and all it knows.
pub(crate) struct StandIn {
    listener: TcpListener,
    poll: Poll,
    peers: Vec<Option<Peer>>,
    queues: Vec<StandInQueue>,
    names: HashMap<Vec<u8>, usize>,
    mischief: Mischief,
    every: u64,
    handled: u64,
    topics: mqtt::Topics,
    scratch: Vec<u8>,
    dirty: Vec<usize>,
}

const LISTENER: usize = usize::MAX >> 1;

impl StandIn {
    pub(crate) fn new(listener: TcpListener, mischief: Mischief, every: u64) -> Result<Self, Trouble> {
        listener.set_nonblocking(true)?;
        let poll = Poll::new()?;
        poll.add(&listener, LISTENER)?;
        Ok(Self {
            listener,
            poll,
            peers: Vec::new(),
            queues: Vec::new(),
            names: HashMap::new(),
            mischief,
            every: every.max(1),
            handled: 0,
            topics: mqtt::Topics::default(),
            scratch: Vec::new(),
            dirty: Vec::new(),
        })
    }

    pub(crate) fn serve(mut self) -> Result<(), Trouble> {
        let mut ready: Vec<Ready> = Vec::new();
        loop {
            self.poll.wait(SECOND, &mut ready)?;
            for event in &ready {
                if event.token == LISTENER {
                    self.accept()?;
                } else if self.attend(event.token, event.readable).is_err() {
                    self.forget(event.token);
                }
            }
        }
    }

    fn accept(&mut self) -> Result<(), Trouble> {
        while let Ok((socket, _)) = self.listener.accept() {
            let link = Link::over(socket, PATIENCE)?;
            link.set_nonblocking(true)?;
            self.poll.add(link.as_fd(), self.peers.len())?;
            self.peers.push(Some(Peer {
                link,
                speech: Speech::Unknown,
                confirming: false,
                published: 0,
                confirmed: 0,
                delivered: 0,
                filters: Vec::new(),
            }));
        }
        Ok(())
    }

    fn forget(&mut self, peer: usize) {
        if let Some(gone) = self.peers[peer].take() {
            self.topics.forget(peer, &gone.filters);
        }
        self.queues.iter_mut().for_each(|queue| {
            queue.consumer.take_if(|consumer| consumer.0 == peer);
        });
    }

    /// Reads from one peer, does what it asks, and writes to all whom that concerns.
    fn attend(&mut self, index: usize, readable: bool) -> Result<(), Trouble> {
        let Some(mut peer) = self.peers.get_mut(index).and_then(Option::take) else {
            return Ok(());
        };
        let mut scratch = std::mem::take(&mut self.scratch);
        let heard = if readable { self.hear(index, &mut peer, &mut scratch) } else { Ok(()) };
        self.scratch = scratch;
        self.peers[index] = Some(peer);
        self.dirty.push(index);
        while let Some(index) = self.dirty.pop() {
            if let Some(Some(peer)) = self.peers.get_mut(index) {
                let was_behind = peer.link.is_behind();
                let through = peer.link.flush()?;
                if was_behind || !through {
                    self.poll.watch_writes(&peer.link, index, !through)?;
                }
            }
        }
        heard
    }

    fn hear(&mut self, index: usize, peer: &mut Peer, scratch: &mut Vec<u8>) -> Result<(), Trouble> {
        let Some(length) = peer.link.receive(scratch)? else {
            return Ok(());
        };
        let (mut at, mut spill) = (0, Vec::new());
        if peer.speech == Speech::Unknown {
            if let Some(level) = mqtt::level_of(&scratch[..length]) {
                peer.speech = Speech::Mqtt(level);
            } else if length >= 8 && scratch.first() == method::PROTOCOL_HEADER.first() {
                (peer.speech, at) = (Speech::Amqp, 8);
                peer.link.output.extend(reply::start());
            }
        }
        if let Speech::Mqtt(level) = peer.speech {
            let whole = self.hear_mqtt(index, peer, level, &scratch[..length])?;
            peer.link.keep(&scratch[whole..length]);
            return Ok(());
        }
        while let Some((event, used)) = wire::next(&scratch[at..length], &mut spill)? {
            match event {
                Event::Delivery(delivery) => self.publish(peer, &scratch[at..], delivery.body),
                Event::Other(method, args) => self.answer(index, peer, method, args),
                Event::Confirm { .. } | Event::Heartbeat => {}
            }
            at += used;
        }
        if peer.confirming && peer.published > peer.confirmed {
            peer.confirmed = peer.published;
            peer.link.output.extend(method::ack(1, peer.published, true));
        }
        peer.link.keep(&scratch[at..length]);
        Ok(())
    }

    fn publish(&mut self, peer: &mut Peer, frame: &[u8], body: &[u8]) {
        peer.published += 1;
        let wrong = self.is_wrong();
        if wrong && self.mischief == Mischief::Refuse && peer.confirming {
            peer.link.output.extend(method::ack(1, peer.published - 1, true));
            peer.link.output.extend(method::nack(1, peer.published));
            peer.confirmed = peer.published;
            return;
        }
        // Frame head, class and method, a reserved short; then exchange and routing key.
        let (exchange, rest) = name_at(frame.get(13..).unwrap_or_default());
        if exchange.is_empty() {
            let (key, _) = name_at(rest);
            if let Some(&queue) = self.names.get(key) {
                self.put(queue, body, wrong);
            }
        } else {
            (0..self.queues.len())
                .filter(|&queue| self.queues[queue].bound)
                .collect::<Vec<_>>()
                .into_iter()
                .for_each(|queue| self.put(queue, body, wrong));
        }
    }

    /// Whether the next message is one to do wrong.
    fn is_wrong(&mut self) -> bool {
        self.handled += 1;
        self.mischief != Mischief::None && self.handled.is_multiple_of(self.every)
    }

    fn put(&mut self, queue: usize, body: &[u8], wrong: bool) {
        match self.mischief {
            Mischief::Drop if wrong => return,
            Mischief::Repeat if wrong => self.deliver(queue, body),
            Mischief::Swap if wrong => {
                self.queues[queue].late = Some(body.to_vec());
                return;
            }
            Mischief::Misroute if wrong => {
                return self.deliver((queue + 1) % self.queues.len(), body);
            }
            Mischief::Flip if wrong => {
                let mut damaged = body.to_vec();
                damaged.iter_mut().take(1).for_each(|octet| *octet ^= 4);
                return self.deliver(queue, &damaged);
            }
            _ => {}
        }
        self.deliver(queue, body);
        if let Some(late) = self.queues[queue].late.take() {
            self.deliver(queue, &late);
        }
    }

    fn deliver(&mut self, queue: usize, body: &[u8]) {
        let queue = &mut self.queues[queue];
        let Some((index, tag)) = &queue.consumer else {
            return queue.stored.push_back(body.to_vec());
        };
        let Some(Some(peer)) = self.peers.get_mut(*index) else {
            return;
        };
        queue.delivered += 1;
        put_delivery(&mut peer.link.output, tag, queue.delivered, &queue.name, body);
        if self.dirty.last() != Some(index) {
            self.dirty.push(*index);
        }
    }

    fn answer(&mut self, index: usize, peer: &mut Peer, method: method::Method, args: &[u8]) {
        let out = &mut peer.link.output;
        let name = || name_at(args.get(2..).unwrap_or_default()).0.to_vec();
        match method {
            method::START_OK => out.extend(reply::tune()),
            method::OPEN => out.extend(reply::open_ok()),
            method::CLOSE => out.extend(method::bare(0, method::CLOSE_OK)),
            method::CHANNEL_OPEN => out.extend(reply::counted(method::CHANNEL_OPEN_OK)),
            method::EXCHANGE_DECLARE => out.extend(method::bare(1, method::EXCHANGE_DECLARE_OK)),
            method::EXCHANGE_DELETE => out.extend(method::bare(1, method::EXCHANGE_DELETE_OK)),
            method::QOS => out.extend(method::bare(1, method::QOS_OK)),
            method::QUEUE_DELETE => out.extend(reply::counted(method::QUEUE_DELETE_OK)),
            method::CONFIRM_SELECT => {
                peer.confirming = true;
                out.extend(method::bare(1, method::CONFIRM_SELECT_OK));
            }
            method::QUEUE_DECLARE => {
                let queue = self.queue(name());
                let queue = &self.queues[queue];
                out.extend(reply::declare_ok(&queue.name, queue.stored.len() as u32));
            }
            method::QUEUE_BIND => {
                let queue = self.queue(name());
                self.queues[queue].bound = true;
                out.extend(method::bare(1, method::QUEUE_BIND_OK));
            }
            method::CONSUME => self.consume(index, peer, args),
            _ => {}
        }
    }

    fn consume(&mut self, index: usize, peer: &mut Peer, args: &[u8]) {
        let (name, rest) = name_at(args.get(2..).unwrap_or_default());
        let tag = name_at(rest).0.to_vec();
        let queue = self.queue(name.to_vec());
        peer.link.output.extend(reply::consume_ok(&tag));
        let queue = &mut self.queues[queue];
        for body in std::mem::take(&mut queue.stored) {
            queue.delivered += 1;
            put_delivery(&mut peer.link.output, &tag, queue.delivered, &queue.name, &body);
        }
        queue.consumer = Some((index, tag));
    }

    fn queue(&mut self, name: Vec<u8>) -> usize {
        let next = self.queues.len();
        let queue = *self.names.entry(name.clone()).or_insert(next);
        if queue == next {
            self.queues.push(StandInQueue { name, ..StandInQueue::default() });
        }
        queue
    }
}

/// A short string and what follows it; empty if it is not all there.
fn name_at(args: &[u8]) -> (&[u8], &[u8]) {
    let Some((&length, rest)) = args.split_first() else {
        return (&[], &[]);
    };
    rest.split_at_checked(length as usize).unwrap_or_default()
}

/// Writes basic.deliver with header and body.
fn put_delivery(out: &mut Vec<u8>, consumer: &[u8], tag: u64, queue: &[u8], body: &[u8]) {
    let method_size = (4 + 1 + consumer.len() + 8 + 1 + 1 + 1 + queue.len()) as u32;
    out.extend_from_slice(&[1, 0, 1]);
    out.extend_from_slice(&method_size.to_be_bytes());
    out.extend_from_slice(&[0, 60, 0, 60, consumer.len() as u8]);
    out.extend_from_slice(consumer);
    out.extend_from_slice(&tag.to_be_bytes());
    out.extend_from_slice(&[0, 0, queue.len() as u8]);
    out.extend_from_slice(queue);
    out.extend_from_slice(&[FRAME_END, 2, 0, 1, 0, 0, 0, 14, 0, 60, 0, 0]);
    out.extend_from_slice(&(body.len() as u64).to_be_bytes());
    out.extend_from_slice(&[0, 0, FRAME_END, 3, 0, 1]);
    out.extend_from_slice(&(body.len() as u32).to_be_bytes());
    out.extend_from_slice(body);
    out.push(FRAME_END);
}

#[cfg(test)]
mod tests;
