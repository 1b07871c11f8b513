//! A session: what a client with subscriptions has beyond its connection, and who has the session at the moment.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::catalogue::ConnectionId;
use crate::delivery::DeliveryRef;
use crate::exchange::{Grant, QueueTarget};
use crate::message::{Facts, Message, Origin, Span};
use crate::patterns::Patterns;
use crate::subscriptions::Filter;

/// The expiry of a session that never ends by itself \[MQTT 5, 3.1.2.11.2\].
pub const NEVER: u32 = u32::MAX;

/// A subscription as its client asked for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription {
    /// The highest QoS that it wants.
    pub qos: u8,
    /// Not what its own client publishes.
    pub no_local: bool,
    /// Messages keep the mark of having been published as retained.
    pub retain_as_published: bool,
    /// The client's number for it, 0 for none.
    pub identifier: u32,
}

impl Subscription {
    /// What routing must know of it.
    pub fn grant(&self) -> Grant {
        Grant::session(self.qos, self.no_local)
    }
}

/// A message to publish when its client is gone without a goodbye.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Will {
    /// The routing key.
    pub key: Vec<u8>,
    /// Its properties, in MQTT's encoding as [`Origin::Mqtt`] describes it.
    pub properties: Vec<u8>,
    /// The body.
    pub body: Vec<u8>,
    /// It becomes the topic's retained message.
    pub retain: bool,
    /// Seconds to wait for the client to come back.
    pub delay: u32,
    /// Time to live in milliseconds from when it is published.
    pub ttl: Option<u64>,
}

impl Will {
    /// The message to publish.
    pub fn message(&self) -> Message {
        let none = Span::default();
        let facts = Facts {
            exchange: none,
            routing_key: none,
            properties: none,
            body: none,
            origin: Origin::Mqtt,
            priority: 0,
            persistent: self.properties.first().is_some_and(|flags| flags & crate::message::MQTT_QOS > 0),
            ttl: self.ttl,
        };
        Message::assemble(facts, TOPICS.as_bytes(), &self.key, &self.properties, &self.body)
    }
}

/// The exchange whose keys topics are.
pub const TOPICS: &str = "amq.topic";

/// A connection that has a session or waits for it. Calls are short, never block and do not call back: the session is
/// locked meanwhile.
pub trait Holder: Send + Sync {
    /// Another connection wants the session: end, and give it back.
    fn displaced(&self);

    /// The session that it waited for is free: open it again.
    fn granted(&self);
}

/// A connection that holds or wants a session.
#[derive(Clone)]
pub struct Claim {
    /// The connection.
    pub connection: ConnectionId,
    /// How to reach it.
    pub holder: Arc<dyn Holder>,
}

/// A QoS 2 delivery of a group's message to a member whose connection ended: it is finished with that member
/// \[MQTT-4.8.2-4\].
pub struct Parked {
    /// Under which packet id.
    pub packet_id: u16,
    /// What to settle.
    pub delivery: DeliveryRef,
    /// The message, unless the client has it already and only lets go of it.
    pub message: Option<Message>,
    /// When the message expires, milliseconds since the epoch; 0 for never.
    pub expires_at: u64,
    /// What the member was granted.
    pub subscription: Subscription,
}

/// What outlives a client's connection. Found by the client's id in its vhost.
pub struct Session {
    /// The client's id.
    pub client: Arc<str>,
    /// Lock order: before the vhost's `sessions`, `changing` and any shard. So no recipient may look at a session.
    pub(crate) state: Mutex<State>,
}

/// A session's changing part.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) holder: Option<Claim>,
    /// Gets it next.
    pub(crate) waiting: Option<Claim>,
    /// Seconds that it is kept without a connection.
    pub(crate) expiry: u32,
    /// It is written in the store.
    pub(crate) durable: bool,
    /// Since when nobody has it, milliseconds since the epoch; 0 while somebody does.
    pub(crate) left_at: u64,
    /// Under which time its vhost lists it as due, 0 if it does not.
    pub(crate) listed: u64,
    /// Its own subscriptions, by pattern.
    pub(crate) subscriptions: Patterns,
    /// Those that it shares with others, by group.
    pub(crate) shared: BTreeMap<Box<str>, Subscription>,
    /// Where its messages wait; made with the first subscription.
    pub(crate) queue: Option<QueueTarget>,
    /// Packet ids of QoS 2 messages that were received and not yet released.
    pub(crate) received: BTreeSet<u16>,
    /// Those of them whose messages have not been published: not to be written before that.
    pub(crate) arriving: Vec<u16>,
    /// To be finished by the next connection.
    pub(crate) parked: Box<[Parked]>,
    pub(crate) will: Option<Box<Will>>,
    /// Taken out of its vhost: whoever still finds it must look again.
    pub(crate) over: bool,
}

impl State {
    /// When something is due without a connection: the will, or the end. 0 for never.
    pub(crate) fn due_at(&self) -> u64 {
        let end = self.ends_at();
        match &self.will {
            _ if self.left_at == 0 => 0,
            Some(will) if end == 0 => self.after(will.delay),
            Some(will) => self.after(will.delay).min(end),
            None => end,
        }
    }

    /// Its time without a connection is over.
    pub(crate) fn is_over_at(&self, now: u64) -> bool {
        (1..=now).contains(&self.ends_at())
    }

    fn ends_at(&self) -> u64 {
        match self.expiry {
            _ if self.left_at == 0 => 0,
            NEVER => 0,
            seconds => self.after(seconds),
        }
    }

    fn after(&self, seconds: u32) -> u64 {
        self.left_at.saturating_add(u64::from(seconds) * 1000)
    }
}

/// A session, as operators see it.
#[derive(Clone, Debug)]
pub struct SessionView {
    /// The client's id.
    pub client: Arc<str>,
    /// The connection that has it.
    pub connection: Option<ConnectionId>,
    /// Seconds that it is kept without a connection.
    pub expiry: u32,
    /// Since when nobody has it, milliseconds since the epoch.
    pub left_at: u64,
    /// Its own subscriptions, by pattern.
    pub subscriptions: Vec<(Box<[u8]>, Subscription)>,
    /// Those that it shares with others, by group.
    pub shared: Vec<(Box<str>, Subscription)>,
    /// Where its messages wait.
    pub queue: Option<QueueTarget>,
    /// QoS 2 messages received and not yet released.
    pub received: usize,
}

impl Session {
    pub(crate) fn new(client: Arc<str>, state: State) -> Arc<Self> {
        Arc::new(Self { client, state: Mutex::new(state) })
    }

    /// Where its messages wait, once it has subscribed to anything.
    pub fn queue(&self) -> Option<QueueTarget> {
        self.state.lock().queue
    }

    /// Keeps deliveries for the next connection, or until the session ends; then they are forgotten.
    pub fn park(&self, parked: Vec<Parked>) {
        let mut state = self.state.lock();
        state.parked = std::mem::take(&mut state.parked).into_iter().chain(parked).collect();
    }

    /// Takes what was kept from the last connection.
    pub fn unpark(&self) -> Box<[Parked]> {
        std::mem::take(&mut self.state.lock().parked)
    }

    /// A QoS 2 message arrives. False when it was received before and not released since; and how many such wait.
    pub fn receive_once(&self, packet_id: u16) -> (bool, usize) {
        let mut state = self.state.lock();
        let fresh = state.received.insert(packet_id);
        if fresh {
            state.arriving.push(packet_id);
        }
        (fresh, state.received.len())
    }

    /// How many subscriptions it has.
    pub fn subscriptions(&self) -> usize {
        let state = self.state.lock();
        state.subscriptions.len() + state.shared.len()
    }

    /// Whether it has a subscription with that filter.
    pub fn has(&self, filter: &Filter<'_>) -> bool {
        let state = self.state.lock();
        match filter.group {
            Some(group) => state.shared.contains_key(group),
            None => state.subscriptions.contains_key(filter.pattern),
        }
    }

    /// How it is now.
    pub fn view(&self) -> SessionView {
        let state = self.state.lock();
        SessionView {
            client: Arc::clone(&self.client),
            connection: state.holder.as_ref().map(|claim| claim.connection),
            expiry: state.expiry,
            left_at: state.left_at,
            subscriptions: state.subscriptions.iter().map(|(pattern, one)| (pattern.into(), *one)).collect(),
            shared: state.shared.iter().map(|(group, one)| (group.clone(), *one)).collect(),
            queue: state.queue,
            received: state.received.len(),
        }
    }
}

/// The sessions of a vhost.
#[derive(Default)]
pub(crate) struct Sessions {
    pub(crate) by_client: HashMap<Arc<str>, Arc<Session>, ahash::RandomState>,
    /// When to look at which session that nobody has: each at most once, by [`State::listed`].
    pub(crate) due: BTreeSet<(u64, Arc<str>)>,
    /// Shared subscriptions, by name: group and filter together.
    pub(crate) groups: HashMap<Box<str>, Group, ahash::RandomState>,
}

/// A shared subscription: one queue that its members consume from.
#[derive(Clone, Debug)]
pub struct Group {
    /// The queue.
    pub queue: QueueTarget,
    /// The pattern by which it is bound.
    pub pattern: Box<[u8]>,
    /// Sessions with this subscription.
    pub members: u32,
    /// It is written in the store.
    pub durable: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn will(delay: u32) -> Option<Box<Will>> {
        Some(Box::new(Will { key: vec![], properties: vec![1], body: vec![], retain: false, delay, ttl: None }))
    }

    #[test]
    fn the_will_is_due_after_its_delay_and_never_after_the_session() {
        let state = |expiry, will| State { expiry, will, left_at: 1000, ..State::default() };
        assert_eq!(state(60, None).due_at(), 61_000);
        assert_eq!(state(60, will(5)).due_at(), 6_000);
        assert_eq!(state(3, will(5)).due_at(), 4_000);
        assert_eq!(state(NEVER, None).due_at(), 0);
        assert_eq!(state(NEVER, will(5)).due_at(), 6_000);
        assert_eq!(State { left_at: 0, ..state(60, will(5)) }.due_at(), 0);
    }

    #[test]
    fn a_will_of_qos_1_is_persistent() {
        let message = will(0).unwrap().message();
        assert!(message.facts().persistent);
        assert_eq!((message.exchange(), message.qos()), (&b"amq.topic"[..], 1));
    }
}
