//! The connection's state machine: cuts packets from the input and does what each asks.

use core::net::SocketAddr;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use portolan_core::access::Access;
use portolan_core::alarms::Alarms;
use portolan_core::broker::Broker;
use portolan_core::catalogue::{ConnectionId, Vhost};
use portolan_core::delivery::{ConsumerRef, Recipient};
use portolan_core::engine::{Account, Ask, Engine};
use portolan_core::outbox::{Outbox, Wire};
use portolan_core::session::{Holder, Session};

use crate::aliases::Aliases;
use crate::codec::decode::{self, Packet};
use crate::codec::encode::{self, Explanation};
use crate::codec::{Frame, Malformed, Version, split};
use crate::deliveries::{Client, Deliveries};
use crate::handshake::{Pending, Phase, Promise};
use crate::rate::Rate;
use crate::reason::Reason;
use crate::routes::Routes;
use crate::scram::Scram;
use crate::settings::Settings;
use crate::work::Work;

thread_local! {
    /// What is gathered from one input; kept for its memory, one for each thread.
    static WORK: Cell<Option<Box<Work>>> = const { Cell::new(None) };
}

/// Longest time between two looks at the clock.
const TICK_MS: u64 = 60_000;

/// Largest packet of a client that is not logged in: strangers must not have us keep more.
const STRANGER: usize = 64 * 1024;

/// How the connection is told about its session.
pub(crate) struct Link {
    /// Another connection wants the session.
    pub(crate) displaced: AtomicBool,
    /// The session that it waited for is free.
    pub(crate) granted: AtomicBool,
    outbox: Arc<Outbox<Deliveries>>,
}

impl Holder for Link {
    fn displaced(&self) {
        self.displaced.store(true, Ordering::Release);
        self.outbox.wake();
    }

    fn granted(&self) {
        self.granted.store(true, Ordering::Release);
        self.outbox.wake();
    }
}

/// A shared subscription that the connection consumes from.
pub(crate) struct Membership {
    pub(crate) group: Box<str>,
    pub(crate) number: u32,
    pub(crate) consumer: ConsumerRef,
}

/// One MQTT connection.
pub struct Connection {
    pub(crate) broker: Arc<Broker>,
    pub(crate) settings: Arc<Settings>,
    alarms: Arc<Alarms>,
    pub(crate) id: ConnectionId,
    pub(crate) peer: SocketAddr,
    pub(crate) outbox: Arc<Outbox<Deliveries>>,
    pub(crate) recipient: Arc<dyn Recipient>,
    pub(crate) phase: Phase,
    pub(crate) version: Version,
    pub(crate) account: Option<Arc<dyn Account>>,
    pub(crate) vhost: Option<Arc<Vhost>>,
    pub(crate) access: Option<Arc<dyn Access>>,
    pub(crate) session: Option<Arc<Session>>,
    pub(crate) link: Option<Arc<Link>>,
    /// Where the session's own messages come from.
    pub(crate) own: Option<ConsumerRef>,
    pub(crate) memberships: Vec<Membership>,
    /// What the session was promised at CONNECT.
    pub(crate) promise: Promise,
    pub(crate) pending: Option<Box<Pending>>,
    /// A new proof of who the client is, under way.
    pub(crate) proving: Option<Box<Scram>>,
    pub(crate) aliases: Option<Box<Aliases>>,
    pub(crate) routes: Option<Box<Routes>>,
    pub(crate) rate: Rate,
    pub(crate) now: u64,
    heard_at: u64,
    /// The session has deliveries of the last connection for which the window had no place.
    pub(crate) parked: bool,
    /// Input is held back because the client published too fast.
    too_fast: bool,
    /// When the log was last told that the store takes nothing.
    pub(crate) complained_at: u64,
    /// Why it ended, for the device's owner.
    pub(crate) ended_for: Option<&'static str>,
}

impl Connection {
    /// A connection that has not been heard of yet.
    pub fn new(
        broker: Arc<Broker>,
        settings: Arc<Settings>,
        alarms: Arc<Alarms>,
        id: ConnectionId,
        peer: SocketAddr,
        wire: Box<dyn Wire>,
        now: u64,
    ) -> Self {
        let deliveries = Deliveries::new(Arc::clone(&broker.dialects), Arc::clone(&broker.counters));
        let journal = Arc::clone(&broker.journal);
        let outbox = Outbox::new(deliveries, wire, journal, settings.outbox_high, settings.outbox_low);
        Self {
            recipient: Arc::new(Client(Arc::clone(&outbox))),
            rate: Rate::new(settings.publish_rate),
            broker,
            settings,
            alarms,
            id,
            peer,
            outbox,
            phase: Phase::Connect,
            version: Version::V311,
            account: None,
            vhost: None,
            access: None,
            session: None,
            link: None,
            own: None,
            memberships: Vec::new(),
            promise: Promise::default(),
            pending: None,
            proving: None,
            aliases: None,
            routes: None,
            now,
            heard_at: now,
            parked: false,
            too_fast: false,
            complained_at: 0,
            ended_for: None,
        }
    }

    pub(crate) fn link(&mut self) -> Arc<Link> {
        let fresh = || {
            let (displaced, granted) = (AtomicBool::new(false), AtomicBool::new(false));
            Arc::new(Link { displaced, granted, outbox: Arc::clone(&self.outbox) })
        };
        Arc::clone(self.link.get_or_insert_with(fresh))
    }

    /// Handles every whole packet of the input; returns how much was used.
    fn packets(&mut self, input: &[u8], work: &mut Work) -> (usize, Option<Ask>) {
        let mut used = 0;
        loop {
            if self.phase == Phase::Connect && input.get(used).is_some_and(|first| first >> 4 != 1) {
                // Known by its first byte; the rest of it need not be awaited.
                return (input.len(), Some(self.refuse_silently("the first packet was not CONNECT")));
            }
            let max_packet = match self.phase {
                Phase::Running => self.settings.max_packet as usize,
                _ => STRANGER.min(self.settings.max_packet as usize),
            };
            let frame = match split(&input[used..], max_packet) {
                Ok(Some(frame)) => frame,
                Ok(None) => return (used, None),
                Err(malformed) => return (input.len(), Some(self.malformed(&malformed, work))),
            };
            used += frame.size;
            work.packets += 1;
            let ask = match self.phase {
                Phase::Running if frame.is_publish() => match decode::publish(&frame, self.version) {
                    Ok(publish) => self.publish(&publish, work),
                    Err(malformed) => Some(self.malformed(&malformed, work)),
                },
                Phase::Running => self.packet(&frame, work),
                Phase::Over => return (input.len(), None),
                _ => self.before_running(&frame),
            };
            if let Some(ask) = ask {
                return (used, Some(ask));
            }
        }
    }

    fn packet(&mut self, frame: &Frame<'_>, work: &mut Work) -> Option<Ask> {
        let packet = match decode::decode(frame, self.version) {
            Ok(packet) => packet,
            Err(malformed) => return Some(self.malformed(&malformed, work)),
        };
        match packet {
            Packet::Publish(publish) => self.publish(&publish, work),
            Packet::Ack(ack) => self.acknowledged(&ack, work),
            Packet::Subscribe(subscribe) => self.subscribe(&subscribe, work),
            Packet::Unsubscribe(unsubscribe) => self.unsubscribe(&unsubscribe, work),
            Packet::Pingreq => {
                self.commit(work);
                encode::pingresp(&mut self.outbox.lock().out().bytes);
                None
            }
            Packet::Disconnect(disconnect) => {
                self.commit(work);
                Some(self.disconnected(&disconnect))
            }
            Packet::Auth(auth) => {
                self.commit(work);
                Some(self.reauthenticate(&auth)).flatten()
            }
        }
    }

    fn malformed(&mut self, malformed: &Malformed, work: &mut Work) -> Ask {
        self.commit(work);
        match self.phase {
            Phase::Running => self.fail(malformed.reason, malformed.text),
            _ => self.refuse_silently(malformed.text),
        }
    }

    /// Ends the connection for the client's fault or the broker's: the will is published \[MQTT-3.14.4-3\].
    pub(crate) fn fail(&mut self, reason: Reason, text: &'static str) -> Ask {
        tracing::warn!(client = self.client(), reason = reason.name(), text, "connection closed");
        {
            let mut inner = self.outbox.lock();
            let (deliveries, out) = inner.parts();
            encode::disconnect(&mut out.bytes, deliveries.peer, reason, None, Explanation::text(text));
        }
        self.ended_for = Some(text);
        self.leave(true, None);
        Ask::Close { after: Duration::ZERO }
    }

    /// The client's id, once it is known.
    pub(crate) fn client(&self) -> &str {
        self.session.as_ref().map_or("", |session| &*session.client)
    }

    /// Whether a publisher may go on after what it just published.
    fn may_publish_on(&mut self) -> Ask {
        if self.outbox.lock().sessions.unanswered_beyond(self.settings.receive_max.into()) {
            if self.version == Version::V5 {
                let text = "more messages are under way than the receive maximum in CONNACK";
                return self.fail(Reason::ReceiveMaximumExceeded, text);
            }
            // Before 5.0 the client knows of no maximum: it waits instead.
            return Ask::Wait(self.broker.journal.last());
        }
        if self.alarms.shortage().reason().is_some() {
            return Ask::Pause;
        }
        if self.broker.journal.backlog() > self.settings.journal_backlog {
            return Ask::Wait(self.broker.journal.last());
        }
        if self.rate.is_exceeded(self.now) {
            self.too_fast = true;
            return Ask::Hold;
        }
        Ask::More
    }

    /// Does `act` with the thread's work, and carries out what it gathered.
    pub(crate) fn working<T>(&mut self, act: impl FnOnce(&mut Self, &mut Work) -> T) -> T {
        let mut work = WORK.take().unwrap_or_default();
        let done = act(self, &mut work);
        self.commit(&mut work);
        WORK.set(Some(work));
        done
    }
}

impl Engine for Connection {
    fn receive(&mut self, input: &[u8], now: u64) -> (usize, Ask) {
        self.now = now;
        self.heard_at = now;
        let (used, ask, published) = self.working(|this, work| {
            work.bytes += input.len() as u64;
            let (used, ask) = this.packets(input, work);
            this.commit(work);
            (used, ask, std::mem::take(&mut work.published))
        });
        self.outbox.flush();
        self.outbox.await_durable();
        let ask = match ask {
            Some(ask) => ask,
            None if published => self.may_publish_on(),
            None => Ask::More,
        };
        (used, ask)
    }

    fn login(&mut self, account: Option<Arc<dyn Account>>, now: u64) -> Ask {
        self.now = now;
        let ask = self.logged_in(account);
        self.outbox.flush();
        self.outbox.await_durable();
        ask
    }

    fn resume(&mut self, now: u64) -> Ask {
        self.now = now;
        Ask::More
    }

    fn woken(&mut self, now: u64) -> Ask {
        self.now = now;
        if self.outbox.is_lost() {
            return Ask::Close { after: Duration::ZERO };
        }
        if let Some(ask) = self.link_says() {
            self.outbox.flush();
            return ask;
        }
        let paused = self.outbox.take_paused();
        if !paused.is_empty() {
            self.working(|this, work| this.broker.resume(&paused, this.now, &mut work.effects));
        }
        self.still()
    }

    fn tick(&mut self, now: u64, reading: bool) -> (u64, Ask) {
        self.now = now;
        if self.too_fast && !self.rate.is_exceeded(now) {
            self.too_fast = false;
            self.outbox.wake();
        }
        // A new second begins for those who are counted.
        let next = if self.settings.publish_rate > 0 { now / 1000 * 1000 + 1000 } else { now + TICK_MS };
        let patience = u64::from(self.promise.keep_alive) * 1500;
        if self.phase != Phase::Running || patience == 0 {
            return (next, self.still());
        }
        if !reading {
            // Silence is not the client's fault.
            self.heard_at = now;
        }
        if now >= self.heard_at + patience {
            let text = "nothing was heard for one and a half times the keep alive";
            let ask = self.fail(Reason::KeepAliveTimeout, text);
            self.outbox.flush();
            return (now + TICK_MS, ask);
        }
        ((self.heard_at + patience).min(next), self.still())
    }

    fn flush(&self) -> bool {
        self.outbox.send()
    }

    fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Over)
    }

    fn is_closing(&self) -> bool {
        self.phase == Phase::Over
    }

    fn congested(&self) -> bool {
        self.outbox.lock().bytes() > 2 * self.settings.outbox_high
    }

    fn goodbye(&mut self, _: &str, now: u64) -> Ask {
        self.now = now;
        if self.phase != Phase::Running {
            return Ask::Close { after: Duration::ZERO };
        }
        let ask = self.fail(Reason::ServerShuttingDown, "the broker is shutting down");
        self.outbox.flush();
        ask
    }

    fn end(&mut self, now: u64) {
        self.now = now;
        if self.ended_for.is_none() {
            self.ended_for = Some("the network connection was lost");
        }
        self.leave(true, None);
        self.outbox.close();
    }

    fn most_input(&self) -> usize {
        self.settings.max_packet as usize
    }
}
