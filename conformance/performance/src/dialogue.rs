//! Requests and their replies, one after the other: how connections are opened, queues declared and consumers begun.

use std::collections::VecDeque;
use std::time::Duration;

use crate::link::Link;
use crate::method::{self, Method, QueueKind};
use crate::options::Target;
use crate::trouble::Trouble;
use crate::wire::{self, Event, FRAME_MAX};

/// How long one reply may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Something to send and the method that answers it.
pub(crate) type Step = (Vec<u8>, Method);

/// The steps to an open channel.
pub(crate) fn opening(target: &Target) -> Vec<Step> {
    let tuned = [method::tune_ok(), method::open(&target.vhost)].concat();
    vec![
        (method::PROTOCOL_HEADER.to_vec(), method::START),
        (method::start_ok(name(&target.user), name(&target.password)), method::TUNE),
        (tuned, method::OPEN_OK),
        (method::channel_open(), method::CHANNEL_OPEN_OK),
    ]
}

fn name(given: &Option<String>) -> &str {
    given.as_deref().unwrap_or("guest")
}

/// The opening of a connection, whatever is spoken on it.
pub(crate) trait Talk {
    /// Reads once and goes as far as that leads; true when all steps are answered.
    fn advance(&mut self, scratch: &mut Vec<u8>) -> Result<bool, Trouble>;

    /// Whether all steps are answered.
    fn is_done(&self) -> bool;

    /// The connection while steps are under way.
    fn link(&self) -> &Link;

    /// The connection, once every step is answered.
    fn into_link(self: Box<Self>) -> Link;

    /// Goes through the rest of the steps, waiting for each.
    fn complete(&mut self) -> Result<(), Trouble> {
        let mut scratch = Vec::new();
        let deadline = std::time::Instant::now() + PATIENCE;
        while !self.is_done() && !self.advance(&mut scratch)? {
            if std::time::Instant::now() > deadline {
                return Err(Trouble::Unexpected(format!("no answer within {} s", PATIENCE.as_secs())));
            }
        }
        Ok(())
    }
}

/// Steps under way on one connection.
pub(crate) struct Dialogue {
    link: Link,
    steps: VecDeque<Step>,
    reply: Vec<u8>,
}

impl Dialogue {
    /// Connects and sends the first request. The socket blocks until it is told otherwise.
    pub(crate) fn begin(target: &Target, steps: Vec<Step>) -> Result<Self, Trouble> {
        let mut begun = Self { link: Link::connect(target.addr, PATIENCE)?, steps: VecDeque::new(), reply: Vec::new() };
        begun.then(steps)?;
        Ok(begun)
    }

    /// A dialogue on a connection that is open.
    pub(crate) fn over(link: Link) -> Self {
        Self { link, steps: VecDeque::new(), reply: Vec::new() }
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

    fn hear(&mut self, method: Method, args: &[u8]) -> Result<(), Trouble> {
        match method {
            method::CLOSE | method::CHANNEL_CLOSE => return Err(Trouble::closed(args)),
            method::BLOCKED | method::UNBLOCKED => return Ok(()),
            method::TUNE => check_tune(args)?,
            _ => {}
        }
        match self.steps.front() {
            Some((_, expected)) if *expected == method => {}
            expected => {
                return Err(Trouble::Unexpected(format!("{method:?} instead of {:?}", expected.map(|s| s.1))));
            }
        }
        self.reply = args.to_vec();
        self.steps.pop_front();
        self.ask()
    }

    /// One more step, waited for.
    pub(crate) fn call(&mut self, request: Vec<u8>, expected: Method) -> Result<Vec<u8>, Trouble> {
        self.then(vec![(request, expected)])?;
        self.complete()?;
        Ok(std::mem::take(&mut self.reply))
    }

    /// Sends all of `requests` at once and waits for as many replies.
    pub(crate) fn call_many(&mut self, requests: &[Vec<u8>], expected: Method) -> Result<(), Trouble> {
        // The first step carries all the requests; the others only await their replies.
        let bytes = std::iter::once(requests.concat()).chain(std::iter::repeat(Vec::new()));
        self.then(requests.iter().zip(bytes).map(|(_, bytes)| (bytes, expected)).collect())?;
        self.complete()
    }

    /// Says goodbye and waits for the answer, by which time the broker has taken in all that was sent.
    pub(crate) fn close(mut self) -> Result<(), Trouble> {
        self.call(method::close(), method::CLOSE_OK).map(drop)
    }
}

impl Talk for Dialogue {
    fn advance(&mut self, scratch: &mut Vec<u8>) -> Result<bool, Trouble> {
        let Some(length) = self.link.receive(scratch)? else {
            return Ok(self.steps.is_empty());
        };
        let (mut at, mut spill) = (0, Vec::new());
        while !self.steps.is_empty() {
            let Some((event, used)) = wire::next(&scratch[at..length], &mut spill)? else {
                break;
            };
            at += used;
            if let Event::Other(method, args) = event {
                self.hear(method, args)?;
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

    fn into_link(self: Box<Self>) -> Link {
        self.link
    }
}

/// A channel for declarations.
pub(crate) fn open_channel(target: &Target) -> Result<Dialogue, Trouble> {
    let mut channel = Dialogue::begin(target, opening(target))?;
    channel.complete()?;
    Ok(channel)
}

/// The step that declares a queue.
pub(crate) fn declare(name: &str, kind: QueueKind) -> Step {
    (method::queue_declare(name, kind), method::QUEUE_DECLARE_OK)
}

fn check_tune(args: &[u8]) -> Result<(), Trouble> {
    let offered = args.get(2..6).and_then(|size| size.first_chunk::<4>()).map(|size| u32::from_be_bytes(*size));
    match offered {
        Some(size) if size == 0 || size >= FRAME_MAX => Ok(()),
        other => Err(Trouble::Unexpected(format!("frames of {FRAME_MAX} octets are needed, {other:?} were offered"))),
    }
}
