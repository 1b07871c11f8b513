//! The connection's state machine: cuts frames from the input and hands each to its channel.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use portolan_core::access::Access;
use portolan_core::alarms::Alarms;
use portolan_core::broker::{Batch, Broker};
use portolan_core::catalogue::{ConnectionId, Vhost};
use portolan_core::delivery::{ConsumerRef, Recipient, Settlement};
use portolan_core::effect::Effects;
use portolan_core::engine::{Account, Ask, Engine};
use portolan_core::outbox::{Inner, Outbox, Wire};
use portolan_core::refusal::QueueKind;
use portolan_core::topology::Caller;
use slab::Slab;

use crate::channel::Channel;
use crate::codec::encode::{self, ServerMethod};
use crate::codec::frame::{self, Frame, FrameKind};
use crate::codec::method::{self, Method, MethodError};
use crate::codec::{Limits, Malformed};
use crate::deliveries::{Client, Deliveries};
use crate::handshake::Phase;
use crate::refusal::{Failure, Scope};
use crate::routes::Routes;

/// What the engine is allowed and what it announces.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Most channels of a connection.
    pub channel_max: u16,
    /// Largest frame, overhead included.
    pub frame_max: u32,
    /// Heartbeat proposed, in seconds.
    pub heartbeat: u16,
    /// Largest message body in bytes.
    pub message_max: usize,
    /// Bounds on tables.
    pub tables: Limits,
    /// Types of queues declared without one, of vhosts where that is not classic.
    pub default_types: HashMap<String, QueueKind>,
    /// Unsettled deliveries that one channel may hold.
    pub unsettled: usize,
    /// Consumers of one channel.
    pub consumers: usize,
    /// Milliseconds that a delivery may stay unsettled, 0 for ever.
    pub consumer_timeout: u64,
    /// Bytes of a transaction's publishes.
    pub transaction_bytes: usize,
    /// Bytes that may wait for the disk before publishers wait.
    pub journal_backlog: usize,
    /// Product name told to clients; some look for RabbitMQ.
    pub product: String,
    /// Version told to clients; some compare it.
    pub version: String,
    /// Outbox bytes above which consumers are paused.
    pub outbox_high: usize,
    /// Outbox bytes below which they are resumed.
    pub outbox_low: usize,
}

/// Time that a client gets to read why we close.
const LINGER: Duration = Duration::from_millis(0);
/// Delay before a close that gives no reason, so that guessing is slow.
pub(crate) const SILENCE: Duration = Duration::from_secs(3);

/// One AMQP 0-9-1 connection.
pub struct Connection {
    pub(crate) broker: Arc<Broker>,
    pub(crate) settings: Arc<Settings>,
    alarms: Arc<Alarms>,
    pub(crate) id: ConnectionId,
    pub(crate) outbox: Arc<Outbox<Deliveries>>,
    pub(crate) recipient: Arc<dyn Recipient>,
    pub(crate) phase: Phase,
    pub(crate) account: Option<Arc<dyn Account>>,
    pub(crate) vhost: Option<Arc<Vhost>>,
    pub(crate) access: Option<Arc<dyn Access>>,
    pub(crate) frame_max: usize,
    pub(crate) channel_max: u16,
    pub(crate) heartbeat_ms: u64,
    /// The client wants to hear of alarms.
    pub(crate) wants_blocked: bool,
    pub(crate) wants_login_refusal: bool,
    told_blocked: bool,
    /// It waits for the end of an alarm.
    blocked: bool,
    /// Content was seen since the last look at the alarms.
    pub(crate) published: bool,
    pub(crate) channels: Slab<Channel>,
    numbers: HashMap<u16, u32, ahash::RandomState>,
    /// The channel used last and its number: most frames are for it.
    last: (u16, u32),
    /// Exclusive queues of this connection.
    pub(crate) exclusive: Vec<Arc<str>>,
    pub(crate) routes: Routes,
    pub(crate) batch: Batch,
    pub(crate) effects: Effects,
    pub(crate) settlements: Vec<Settlement>,
    /// Consumers of channels that held too much and hold less now.
    pub(crate) stalled: Vec<ConsumerRef>,
    /// For each publish in the batch on a confirming channel: channel key and number.
    pub(crate) tags: Vec<(u32, u64)>,
    /// Channels with publishes to confirm in this batch.
    pub(crate) confirming: Vec<u32>,
    /// What the batch adds to the counters.
    pub(crate) tally: crate::commit::Tally,
    /// The batch wrote retained messages, which its confirms must wait for.
    pub(crate) retained: bool,
    pub(crate) now: u64,
    /// When the log was last told that the store takes nothing.
    pub(crate) complained_at: u64,
    heard_at: u64,
    last_said_at: u64,
    ended: bool,
}

impl Connection {
    /// A connection that has not been heard of yet.
    pub fn new(
        broker: Arc<Broker>,
        settings: Arc<Settings>,
        alarms: Arc<Alarms>,
        id: ConnectionId,
        wire: Box<dyn Wire>,
        now: u64,
    ) -> Self {
        let deliveries = Deliveries::new(settings.unsettled, Arc::clone(&broker.dialects));
        let journal = Arc::clone(&broker.journal);
        let outbox = Outbox::new(deliveries, wire, journal, settings.outbox_high, settings.outbox_low);
        Self {
            recipient: Arc::new(Client { outbox: Arc::clone(&outbox), counters: Arc::clone(&broker.counters) }),
            frame_max: settings.frame_max as usize,
            channel_max: settings.channel_max,
            broker,
            settings,
            alarms,
            id,
            outbox,
            phase: Phase::Header,
            account: None,
            vhost: None,
            access: None,
            heartbeat_ms: 0,
            wants_blocked: false,
            wants_login_refusal: false,
            told_blocked: false,
            blocked: false,
            published: false,
            channels: Slab::new(),
            numbers: HashMap::default(),
            last: (0, u32::MAX),
            exclusive: Vec::new(),
            routes: Routes::default(),
            batch: Batch::default(),
            effects: Effects::default(),
            settlements: Vec::new(),
            stalled: Vec::new(),
            tags: Vec::new(),
            confirming: Vec::new(),
            tally: crate::commit::Tally::default(),
            retained: false,
            now,
            complained_at: 0,
            heard_at: now,
            last_said_at: now,
            ended: false,
        }
    }

    /// Sends a method.
    pub(crate) fn say(&self, channel: u16, method: ServerMethod<'_>) {
        let mut inner = self.outbox.lock();
        encode::method(&mut inner.out().bytes, channel, method);
    }

    /// Sends a method once the journal is durable up to `durable`; nothing sent later overtakes it.
    pub(crate) fn say_durably(&self, channel: u16, method: ServerMethod<'_>, durable: Option<u64>) {
        let mut inner: parking_lot::MutexGuard<'_, Inner<Deliveries>> = self.outbox.lock();
        if let Some(index) = durable {
            inner.hold(index);
        }
        encode::method(&mut inner.out().bytes, channel, method);
    }

    /// Who asks, for the core. `None` before connection.open.
    pub(crate) fn with_caller<T>(
        &mut self,
        work: impl FnOnce(&Broker, &Vhost, &Caller<'_>, &mut Effects) -> T,
    ) -> Option<T> {
        let vhost = self.vhost.clone()?;
        let access = self.access.clone()?;
        let caller = Caller { connection: self.id, access: &*access, now: self.now };
        Some(work(&self.broker, &vhost, &caller, &mut self.effects))
    }

    /// The key of an open channel.
    #[inline]
    pub(crate) fn key_of(&mut self, number: u16) -> Option<u32> {
        if self.last.0 == number && self.last.1 != u32::MAX {
            return Some(self.last.1);
        }
        let key = *self.numbers.get(&number)?;
        self.last = (number, key);
        Some(key)
    }

    /// Handles every whole frame of the input; returns how much was used.
    fn frames(&mut self, input: &[u8]) -> (usize, Option<Ask>) {
        let mut used = 0;
        loop {
            let rest = &input[used..];
            // The usual case first: a whole publish with header and body in one piece.
            if let Some((size, ask)) = self.whole_publish(rest) {
                used += size;
                match ask {
                    Some(ask) => return (used, Some(ask)),
                    None => continue,
                }
            }
            let frame = match frame::split(rest, self.frame_max) {
                Ok(Some(frame)) => frame,
                Ok(None) => return (used, None),
                // Nobody can tell where the next frame would begin.
                Err(_) if self.phase == Phase::Closing => return (input.len(), None),
                Err(malformed) => return (input.len(), Some(self.fail((0, 0), &malformed.into()))),
            };
            if self.waits_for_rest(&frame, rest) {
                return (used, None);
            }
            used += frame.size;
            if let Some(ask) = self.frame(&frame) {
                return (used, Some(ask));
            }
        }
    }

    fn frame(&mut self, frame: &Frame<'_>) -> Option<Ask> {
        match self.phase {
            Phase::Running => {}
            Phase::Closing => return self.frame_while_closing(frame),
            _ => return self.frame_in_handshake(frame),
        }
        match frame.kind {
            FrameKind::Heartbeat => None,
            FrameKind::Method => self.method_frame(frame),
            FrameKind::Header | FrameKind::Body if frame.channel == 0 => {
                Some(self.fail((0, 0), &frame.unexpected().into()))
            }
            FrameKind::Header | FrameKind::Body => self.content_frame(frame),
        }
    }

    fn method_frame(&mut self, frame: &Frame<'_>) -> Option<Ask> {
        let ids = method_ids(frame.payload);
        if frame.channel == 0 {
            return self.connection_method(frame, ids);
        }
        let Some(key) = self.key_of(frame.channel) else { return self.unopened(frame, ids) };
        let channel = self.channels.get(key as usize)?;
        if channel.closing {
            return self.method_while_channel_closes(key, ids);
        }
        if channel.incoming.is_some() {
            let failure = self.channels[key as usize].incoming.as_ref().map(|one| one.interrupted());
            return failure.map(|failure| self.fail((60, 40), &failure));
        }
        match method::decode(frame.payload, self.settings.tables) {
            Ok(method) => {
                if !matches!(method, Method::Publish(_) | Method::Ack(_) | Method::Nack(_) | Method::Reject(_)) {
                    // What came before must have happened before the answer.
                    self.commit();
                }
                match self.channel_method(key, method, ids) {
                    Ok(()) => None,
                    Err(failure) => self.refuse(key, ids, &failure),
                }
            }
            Err(error) => Some(self.undecodable(&error)),
        }
    }

    fn undecodable(&mut self, error: &MethodError) -> Ask {
        let failure = Failure::from(error.fault.clone());
        self.fail((error.class, error.method), &failure)
    }

    /// A frame for a channel that is not open.
    fn unopened(&mut self, frame: &Frame<'_>, ids: (u16, u16)) -> Option<Ask> {
        if ids != (20, 10) {
            return Some(self.fail(ids, &Failure::connection(504, "expected 'channel.open'")));
        }
        if self.channels.len() >= usize::from(self.channel_max) {
            let max = self.channel_max;
            let text = format!("number of channels opened ({max}) has reached the negotiated channel_max ({max})");
            return Some(self.fail((0, 0), &Failure::connection(530, text)));
        }
        self.commit();
        let number = frame.channel;
        let session = self.outbox.lock().sessions.open(number);
        let key = self.channels.insert(Channel::new(number, session)) as u32;
        self.numbers.insert(number, key);
        self.broker.counters.objects.channels_opened.add(1);
        self.say(number, ServerMethod::ChannelOpenOk);
        None
    }

    /// We closed the channel: only the end of the closing counts.
    fn method_while_channel_closes(&mut self, key: u32, ids: (u16, u16)) -> Option<Ask> {
        match ids {
            (20, 41) => self.forget_channel(key),
            (20, 40) => {
                let number = self.channels.get(key as usize)?.number;
                self.say(number, ServerMethod::ChannelCloseOk);
            }
            (20, 10) => {
                let failure = Failure::connection(504, "second 'channel.open' seen");
                return Some(self.fail(ids, &failure));
            }
            _ => {}
        }
        None
    }

    fn connection_method(&mut self, frame: &Frame<'_>, ids: (u16, u16)) -> Option<Ask> {
        self.commit();
        let method = match method::decode(frame.payload, self.settings.tables) {
            Ok(method) => method,
            Err(error) => return Some(self.undecodable(&error)),
        };
        match method {
            Method::ConnectionClose(close) => {
                tracing::debug!(code = close.reply_code, text = &*close.reply_text, "client closes");
                self.release();
                self.say(0, ServerMethod::ConnectionCloseOk);
                Some(Ask::Close { after: LINGER })
            }
            Method::UpdateSecret { .. } => {
                self.say(0, ServerMethod::UpdateSecretOk);
                None
            }
            _ => {
                let text = "unexpected method in connection state running";
                Some(self.fail(ids, &Failure::connection(504, text)))
            }
        }
    }

    fn frame_while_closing(&mut self, frame: &Frame<'_>) -> Option<Ask> {
        if frame.kind != FrameKind::Method || frame.channel != 0 {
            return None;
        }
        match method_ids(frame.payload) {
            (10, 51) => Some(Ask::Close { after: LINGER }),
            (10, 50) => {
                self.say(0, ServerMethod::ConnectionCloseOk);
                Some(Ask::Close { after: LINGER })
            }
            _ => None,
        }
    }

    /// Tells the client what went wrong, and closes what that closes.
    pub(crate) fn refuse(&mut self, key: u32, ids: (u16, u16), failure: &Failure) -> Option<Ask> {
        if failure.scope == Scope::Connection {
            return Some(self.fail(ids, failure));
        }
        self.commit();
        let number = self.channels.get(key as usize)?.number;
        tracing::info!(channel = number, error = %failure.text, "channel closed");
        self.give_back_channel(key);
        if let Some(channel) = self.channels.get_mut(key as usize) {
            channel.closing = true;
        }
        let (class, method) = ids;
        let close = ServerMethod::ChannelClose { reply_code: failure.code, reply_text: &failure.text, class, method };
        self.say(number, close);
        None
    }

    /// Closes the connection, telling the client why.
    pub(crate) fn fail(&mut self, ids: (u16, u16), failure: &Failure) -> Ask {
        self.commit();
        tracing::warn!(error = %failure.text, "connection closed");
        self.release();
        // RabbitMQ blames no method for what it calls an internal error.
        let (class, method) = if failure.code == 541 { (0, 0) } else { ids };
        let close =
            ServerMethod::ConnectionClose { reply_code: failure.code, reply_text: &failure.text, class, method };
        self.say(0, close);
        self.phase = Phase::Closing;
        Ask::Linger
    }

    /// Frees the number of a closed channel.
    pub(crate) fn forget_channel(&mut self, key: u32) {
        if let Some(channel) = self.channels.try_remove(key as usize) {
            self.numbers.remove(&channel.number);
            self.last = (0, u32::MAX);
            self.outbox.lock().sessions.close(channel.session);
            self.broker.counters.objects.channels_closed.add(1);
        }
    }

    /// Gives back everything that the client holds.
    fn release(&mut self) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let keys: Vec<u32> = self.channels.iter().map(|(key, _)| key as u32).collect();
        for key in keys {
            self.give_back_channel(key);
            self.forget_channel(key);
        }
        if let Some(vhost) = self.vhost.clone() {
            let exclusive = std::mem::take(&mut self.exclusive);
            self.broker.end_connection(&vhost, self.id, &exclusive, self.now, &mut self.effects);
            self.broker.carry_out(&mut self.effects, self.now);
        }
    }

    /// After input: what was gathered happens, and the client hears of it.
    fn settle_up(&mut self, ask: Option<Ask>) -> Ask {
        self.commit();
        self.outbox.flush();
        self.outbox.await_durable();
        match ask {
            Some(ask) => ask,
            None if std::mem::take(&mut self.published) => self.may_publish_on(),
            None => Ask::More,
        }
    }

    fn unblock(&mut self) {
        if std::mem::take(&mut self.blocked) {
            self.broker.counters.objects.connections_unblocked.add(1);
        }
    }

    /// Whether the publisher may go on after what it just published.
    fn may_publish_on(&mut self) -> Ask {
        if let Some(reason) = self.alarms.shortage().reason() {
            if !std::mem::replace(&mut self.blocked, true) {
                self.broker.counters.objects.connections_blocked.add(1);
            }
            if self.wants_blocked {
                self.say(0, ServerMethod::Blocked { reason });
                self.told_blocked = true;
                self.outbox.flush();
            }
            return Ask::Pause;
        }
        if self.broker.journal.backlog() > self.settings.journal_backlog {
            return Ask::Wait(self.broker.journal.last());
        }
        Ask::More
    }
}

/// Class and method of a method frame, 0 where it is too short for them.
pub(crate) fn method_ids(payload: &[u8]) -> (u16, u16) {
    match payload {
        [a, b, c, d, ..] => (u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])),
        _ => (0, 0),
    }
}

impl Engine for Connection {
    fn receive(&mut self, input: &[u8], now: u64) -> (usize, Ask) {
        self.now = now;
        self.heard_at = now;
        if matches!(self.phase, Phase::Header) {
            return self.protocol_header(input);
        }
        let (used, ask) = self.frames(input);
        let ask = self.settle_up(ask);
        (used, ask)
    }

    fn login(&mut self, account: Option<Arc<dyn Account>>, now: u64) -> Ask {
        self.now = now;
        let ask = self.logged_in(account);
        self.outbox.flush();
        ask
    }

    fn resume(&mut self, now: u64) -> Ask {
        self.now = now;
        self.unblock();
        if std::mem::take(&mut self.told_blocked) {
            self.say(0, ServerMethod::Unblocked);
            self.outbox.flush();
        }
        Ask::More
    }

    fn woken(&mut self, now: u64) -> Ask {
        self.now = now;
        self.drop_cancelled();
        let paused = self.outbox.take_paused();
        if !paused.is_empty() {
            self.broker.resume(&paused, now, &mut self.effects);
            self.broker.carry_out(&mut self.effects, now);
        }
        if self.outbox.is_lost() { Ask::Close { after: LINGER } } else { Ask::More }
    }

    fn tick(&mut self, now: u64, reading: bool) -> (u64, Ask) {
        self.now = now;
        if !reading {
            self.heard_at = now;
        }
        let timeout = self.check_consumer_timeout();
        let every = if self.heartbeat_ms == 0 { 30_000 } else { self.heartbeat_ms / 2 };
        if self.heartbeat_ms == 0 || matches!(self.phase, Phase::Header) {
            return (now + every, timeout.unwrap_or(Ask::More));
        }
        // Two silent heartbeats, and a little for the road: RabbitMQ hangs up between the second and the third.
        if now.saturating_sub(self.heard_at) > self.heartbeat_ms * 5 / 2 {
            tracing::warn!(silent_ms = now - self.heard_at, "missed heartbeats from client");
            return (now + every, Ask::Close { after: LINGER });
        }
        if now.saturating_sub(self.last_said_at) + 50 >= every {
            self.last_said_at = now;
            self.outbox.lock().out().bytes.extend_from_slice(&encode::HEARTBEAT);
            self.outbox.flush();
        }
        (now + every, timeout.unwrap_or(Ask::More))
    }

    fn flush(&self) -> bool {
        self.outbox.send()
    }

    fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Closing)
    }

    fn is_closing(&self) -> bool {
        self.phase == Phase::Closing
    }

    fn congested(&self) -> bool {
        self.outbox.lock().bytes() > 2 * self.outbox.high_water
    }

    fn goodbye(&mut self, reason: &str, now: u64) -> Ask {
        self.now = now;
        if !matches!(self.phase, Phase::Running) {
            return Ask::Close { after: LINGER };
        }
        let ask = self.fail((0, 0), &Failure::connection(320, reason));
        self.outbox.flush();
        ask
    }

    fn end(&mut self, now: u64) {
        self.now = now;
        // No more deliveries; what is unsettled goes back.
        self.outbox.close();
        self.unblock();
        self.release();
    }

    fn most_input(&self) -> usize {
        // A publish is taken as one piece when method, header and one body frame are there.
        3 * (self.frame_max + 2 * frame::OVERHEAD)
    }
}

impl From<&Malformed> for Failure {
    fn from(malformed: &Malformed) -> Self {
        malformed.clone().into()
    }
}
