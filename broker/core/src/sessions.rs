//! Opening, leaving and ending sessions, with the rules for takeover, expiry and wills.

use std::sync::Arc;

use crate::broker::{Batch, Broker};
use crate::catalogue::{ConnectionId, Snapshot, Vhost};
use crate::consumer::Consumer;
use crate::definition::{Overflow, QueueOptions};
use crate::delivery::{ConsumerRef, Outcome, Settlement};
use crate::effect::Effects;
use crate::exchange::QueueTarget;
use crate::fact::Fact;
use crate::queue::Identity;
use crate::refusal::Refusal;
use crate::session::{Claim, Parked, Session, State, TOPICS, Will};
use crate::store::{QueueId, StoreError};
use crate::topology::Durable;
use crate::value::Table;

/// A session as its client wants it.
pub struct SessionWish<'a> {
    /// The client's id.
    pub client: &'a Arc<str>,
    /// Without anything from before.
    pub clean: bool,
    /// Seconds to keep it without a connection, [`NEVER`](crate::session::NEVER) for good.
    pub expiry: u32,
    /// To be published when the connection ends without a goodbye.
    pub will: Option<Will>,
    /// Who wants it.
    pub claim: Claim,
}

/// What became of a wish for a session.
pub enum Opened {
    /// The connection has it now.
    Held {
        /// The session.
        session: Arc<Session>,
        /// It was there before.
        present: bool,
        /// What was written counts once the journal is durable up to there.
        durable: Durable,
    },
    /// Another connection has it and was told to end: ask again when the claim's holder is granted it.
    Wait,
}

/// How a connection leaves its session.
pub struct Leave {
    /// A new expiry, which the client gave with its goodbye.
    pub expiry: Option<u32>,
    /// The will is published; else it is forgotten.
    pub will: bool,
}

impl Broker {
    /// Gives a session to a connection: makes it, resumes it, or displaces the connection that has it.
    ///
    /// # Errors
    /// `Limit` when the vhost has too many sessions to make one, `Unavailable` when the store takes no record.
    pub fn open_session(
        &self,
        vhost: &Arc<Vhost>,
        wish: SessionWish<'_>,
        now: u64,
        effects: &mut Effects,
    ) -> Result<Opened, Refusal> {
        loop {
            let session = {
                let mut sessions = vhost.sessions.lock();
                let limit = self.settings.sessions;
                if sessions.by_client.len() as u64 >= limit && !sessions.by_client.contains_key(wish.client) {
                    return Err(Refusal::Limit { what: format!("sessions in vhost '{}'", vhost.name), limit });
                }
                let fresh = || Session::new(Arc::clone(wish.client), State { left_at: now, ..State::default() });
                Arc::clone(sessions.by_client.entry(Arc::clone(wish.client)).or_insert_with(fresh))
            };
            let mut state = session.state.lock();
            if state.over {
                continue;
            }
            if let Some(holder) = &state.holder {
                holder.holder.displaced();
                if let Some(earlier) = state.waiting.replace(wish.claim) {
                    earlier.holder.displaced();
                }
                return Ok(Opened::Wait);
            }
            // Whoever was promised the session before came before: the last one stays.
            if let Some(earlier) = state.waiting.take_if(|claim| claim.connection != wish.claim.connection) {
                earlier.holder.displaced();
            }
            state.waiting = None;
            // One without expiry is new here, or had a connection when the broker ended.
            let present = state.expiry > 0 && !wish.clean && !state.is_over_at(now);
            let mut emptied = None;
            if !present {
                // Ending the session, by a clean start or by time, ends the will's delay, too [MQTT-3.1.2-8].
                if let Some(will) = state.will.take() {
                    self.publish_will(vhost, &will, now, effects);
                }
                let was_durable = state.durable;
                self.empty_session(vhost, &session.client, &mut state, now, effects);
                // The client must not find again after a restart what we say is gone.
                emptied = was_durable.then(|| self.journal.last());
            }
            let before = (state.will.take(), state.expiry, state.left_at);
            (state.will, state.expiry, state.left_at) = (wish.will.map(Box::new), wish.expiry, 0);
            match self.note_session(vhost, &session.client, &mut state) {
                Ok(durable) => {
                    state.holder = Some(wish.claim);
                    list(vhost, &session.client, &mut state);
                    drop(state);
                    return Ok(Opened::Held { session, present, durable: durable.or(emptied) });
                }
                Err(error) => {
                    (state.will, state.expiry, state.left_at) = before;
                    if !present {
                        self.end_session(vhost, &session, &mut state, now, effects);
                    }
                    return Err(error.into());
                }
            }
        }
    }

    /// The connection that has a session ends. Its consumers are gone and its deliveries given back before.
    pub fn leave_session(
        &self,
        vhost: &Arc<Vhost>,
        session: &Arc<Session>,
        connection: ConnectionId,
        leave: &Leave,
        now: u64,
        effects: &mut Effects,
    ) {
        let mut state = session.state.lock();
        if state.holder.as_ref().is_none_or(|claim| claim.connection != connection) {
            return;
        }
        state.holder = None;
        state.left_at = now;
        // What was to end with its connection does so: nothing of it was written down [MQTT-3.1.2.11.2].
        state.expiry = leave.expiry.filter(|_| state.expiry > 0).unwrap_or(state.expiry);
        let will = if leave.will { state.will.take_if(|will| will.delay == 0) } else { state.will.take() };
        if let Some(will) = will.filter(|_| leave.will) {
            self.publish_will(vhost, &will, now, effects);
        }
        if state.expiry == 0 && state.waiting.is_none() {
            self.end_session(vhost, session, &mut state, now, effects);
        } else if state.expiry == 0 {
            // It stays until the one who waits has come, so that others who want it find that one.
            self.empty_session(vhost, &session.client, &mut state, now, effects);
        } else {
            if let Err(error) = self.note_session(vhost, &session.client, &mut state) {
                effects.store_error = Some(error);
            }
            list(vhost, &session.client, &mut state);
        }
        if let Some(next) = &state.waiting {
            next.holder.granted();
        }
    }

    /// A connection that waits for a session gives up.
    pub fn forgo_session(&self, vhost: &Vhost, client: &str, connection: ConnectionId) {
        let session = vhost.sessions.lock().by_client.get(client).cloned();
        let Some(session) = session else { return };
        let mut state = session.state.lock();
        if state.waiting.take_if(|claim| claim.connection == connection).is_none() {
            return;
        }
        if state.holder.is_none() && state.expiry == 0 && !state.over {
            // Only kept for the one who waited, and empty.
            state.over = true;
            state.left_at = 0;
            list(vhost, &session.client, &mut state);
            vhost.sessions.lock().by_client.remove(&session.client);
        }
    }

    /// Publishes wills and ends sessions whose time has come.
    pub(crate) fn tick_sessions(&self, now: u64, effects: &mut Effects) {
        for vhost in self.all_vhosts() {
            loop {
                let client = {
                    let mut sessions = vhost.sessions.lock();
                    match sessions.due.first() {
                        Some((at, _)) if *at <= now => sessions.due.pop_first().map(|(_, client)| client),
                        _ => None,
                    }
                };
                let Some(client) = client else { break };
                let session = vhost.sessions.lock().by_client.get(&client).cloned();
                if let Some(session) = session {
                    self.look_at_session(&vhost, &session, now, effects);
                }
            }
        }
    }

    fn look_at_session(&self, vhost: &Arc<Vhost>, session: &Arc<Session>, now: u64, effects: &mut Effects) {
        let mut state = session.state.lock();
        let due = state.due_at();
        if state.over || due == 0 {
            return;
        }
        if due > now {
            return list(vhost, &session.client, &mut state);
        }
        if let Some(will) = state.will.take() {
            self.publish_will(vhost, &will, now, effects);
        }
        if state.is_over_at(now) {
            return self.end_session(vhost, session, &mut state, now, effects);
        }
        if let Err(error) = self.note_session(vhost, &session.client, &mut state) {
            effects.store_error = Some(error);
        }
        list(vhost, &session.client, &mut state);
    }

    /// An operator ends a session; its connection, if any, is told to end. False when there is none.
    pub fn drop_session(&self, vhost: &Arc<Vhost>, client: &str, now: u64, effects: &mut Effects) -> bool {
        let Some(session) = vhost.sessions.lock().by_client.get(client).cloned() else {
            return false;
        };
        let mut state = session.state.lock();
        if state.over {
            return false;
        }
        state.expiry = 0;
        match &state.holder {
            Some(claim) => claim.holder.displaced(),
            None => self.end_session(vhost, &session, &mut state, now, effects),
        }
        true
    }

    /// Everything goes, and the client's id is free.
    fn end_session(&self, vhost: &Arc<Vhost>, session: &Session, state: &mut State, now: u64, effects: &mut Effects) {
        if let Some(will) = state.will.take() {
            self.publish_will(vhost, &will, now, effects);
        }
        self.empty_session(vhost, &session.client, state, now, effects);
        state.over = true;
        state.left_at = 0;
        list(vhost, &session.client, state);
        vhost.sessions.lock().by_client.remove(&session.client);
    }

    /// Subscriptions, waiting messages and packet ids go, in memory and in the store.
    fn empty_session(&self, vhost: &Arc<Vhost>, client: &Arc<str>, state: &mut State, now: u64, effects: &mut Effects) {
        // They must not go to other members \[MQTT-4.8.2-5\].
        let accepted = |one: &Parked| Settlement { delivery: one.delivery, outcome: Outcome::Accepted };
        let parked: Vec<_> = std::mem::take(&mut state.parked).iter().map(accepted).collect();
        self.settle(&parked, now, effects);
        self.unsubscribe_all(vhost, client, state, now, effects);
        if let Some(queue) = state.queue.take() {
            self.in_shard(queue.shard, now, effects, |shard, cx| shard.remove(queue, cx));
        }
        let received = std::mem::take(&mut state.received);
        state.arriving.clear();
        if std::mem::take(&mut state.durable) {
            let gone = received.into_iter().map(|id| self.received_fact(vhost, client, id));
            let gone = gone.chain([self.session_fact(vhost, client, state)]);
            for fact in gone {
                if let Err(error) = self.state(&fact, false) {
                    effects.store_error = Some(error);
                }
            }
        }
    }

    /// Writes a session down that is to survive, as it is now.
    fn note_session(&self, vhost: &Vhost, client: &Arc<str>, state: &mut State) -> Result<Durable, StoreError> {
        if state.expiry == 0 && !state.durable {
            return Ok(None);
        }
        state.durable = true;
        self.state(&self.session_fact(vhost, client, state), true).map(Some)
    }

    pub(crate) fn session_fact(&self, vhost: &Vhost, client: &Arc<str>, state: &State) -> Fact {
        Fact::Session {
            vhost: vhost.name.to_string(),
            client: client.to_string(),
            queue: state.queue.map(|queue| queue.id.0),
            expiry: state.expiry,
            left_at: state.left_at,
            will: state.will.as_deref().cloned(),
        }
    }

    pub(crate) fn received_fact(&self, vhost: &Vhost, client: &Arc<str>, packet_id: u16) -> Fact {
        Fact::Received { vhost: vhost.name.to_string(), client: client.to_string(), packet_id }
    }

    /// Writes down the packet ids of the QoS 2 messages that have arrived. To be called in the unit in which these are
    /// published: a crash must not leave the one without the other.
    ///
    /// # Errors
    /// When the store takes no record.
    pub fn note_received(&self, vhost: &Vhost, session: &Session) -> Result<(), StoreError> {
        let mut state = session.state.lock();
        let arrived = std::mem::take(&mut state.arriving);
        if !state.durable {
            return Ok(());
        }
        let mut facts = arrived.into_iter().map(|id| self.received_fact(vhost, &session.client, id));
        facts.try_for_each(|fact| self.state(&fact, true).map(drop))
    }

    /// A QoS 2 message is released by its sender. False when no such message was received.
    ///
    /// # Errors
    /// When the store takes no record.
    pub fn complete(&self, vhost: &Vhost, session: &Session, packet_id: u16) -> Result<bool, StoreError> {
        let mut state = session.state.lock();
        if !state.received.remove(&packet_id) {
            return Ok(false);
        }
        state.arriving.retain(|id| *id != packet_id);
        if state.durable {
            self.state(&self.received_fact(vhost, &session.client, packet_id), false)?;
        }
        Ok(true)
    }

    /// Starts to deliver what waits in a queue of sessions. `ready` is told the consumer's place before anything is
    /// delivered to it. `None` when the queue is gone.
    pub fn attach(
        &self,
        queue: QueueTarget,
        consumer: Consumer,
        now: u64,
        effects: &mut Effects,
        ready: impl FnOnce(ConsumerRef),
    ) -> Option<ConsumerRef> {
        self.in_queue(queue, now, effects, |queue, cx| {
            let consumer = ConsumerRef { queue: queue.identity.target, key: queue.subscribe(consumer, cx) };
            ready(consumer);
            queue.dispatch(cx);
            consumer
        })
    }

    /// Makes a queue that no client declared.
    pub(crate) fn place_session_queue(
        &self,
        vhost: &Vhost,
        name: &Arc<str>,
        id: Option<QueueId>,
        durable: bool,
        now: u64,
        effects: &mut Effects,
    ) -> QueueTarget {
        let id = id.unwrap_or_else(|| self.new_queue_id());
        let shard = (id.0 % self.shards.len() as u64) as u32;
        let identity = |slot| Identity {
            target: QueueTarget { id, shard, slot },
            name: Arc::clone(name),
            vhost: Arc::clone(&vhost.name),
            durable,
            auto_delete: false,
            always_persistent: false,
            options: Arc::clone(&self.session_options),
        };
        let slot = self.in_shard(shard, now, effects, |shard, _| shard.insert(now, identity)).unwrap_or_default();
        QueueTarget { id, shard, slot }
    }

    /// Publishes a will, and keeps it as the topic's retained message if it is to be.
    fn publish_will(&self, vhost: &Arc<Vhost>, will: &Will, now: u64, effects: &mut Effects) {
        let message = will.message();
        let Ok(route) = vhost.route(TOPICS, &[&will.key], &Table::default) else {
            return;
        };
        if will.retain
            && let Err(Refusal::Unavailable(error)) = self.retain(vhost, &message, now, effects)
        {
            effects.store_error = Some(error);
        }
        let mut batch = Batch::default();
        batch.add(&route.targets, message, 0);
        let refused = effects.refused.len();
        self.publish(&mut batch, now, effects);
        // Nobody waits for a refusal of a will.
        effects.refused.truncate(refused);
    }
}

/// Lists a session under the time when something is due, and under no other.
pub(crate) fn list(vhost: &Vhost, client: &Arc<str>, state: &mut State) {
    let due = state.due_at();
    if due == state.listed {
        return;
    }
    let mut sessions = vhost.sessions.lock();
    if state.listed != 0 {
        sessions.due.remove(&(state.listed, Arc::clone(client)));
    }
    if due != 0 {
        sessions.due.insert((due, Arc::clone(client)));
    }
    state.listed = due;
}

/// Rules for the queues of sessions: what exceeds the limit is dropped as it comes, as Mosquitto does.
pub(crate) fn session_options(most: u64) -> QueueOptions {
    QueueOptions {
        max_length: Some(most),
        overflow: Overflow::RejectPublish,
        begun_stays: true,
        ..QueueOptions::default()
    }
}

impl Vhost {
    /// Its sessions, for operators.
    pub fn all_sessions(&self) -> Vec<Arc<Session>> {
        self.sessions.lock().by_client.values().cloned().collect()
    }

    /// The session of that client.
    pub fn session(&self, client: &str) -> Option<Arc<Session>> {
        self.sessions.lock().by_client.get(client).cloned()
    }

    /// The queue of a shared subscription.
    pub fn group(&self, name: &str) -> Option<QueueTarget> {
        self.sessions.lock().groups.get(name).map(|group| group.queue)
    }

    /// How many sessions wait for their end, or their will for its time.
    pub fn sessions_due(&self) -> usize {
        self.sessions.lock().due.len()
    }

    /// How many sessions there are.
    pub fn session_count(&self) -> usize {
        self.sessions.lock().by_client.len()
    }
}

/// Changes the routes of topics: `edit` gets the exchange of topics in a snapshot of its own.
pub(crate) fn with_topics(vhost: &Vhost, edit: impl FnOnce(&mut crate::exchange::Exchange)) {
    let _changing = vhost.changing.lock();
    let mut next = Snapshot::clone(&vhost.snapshot());
    if let Some(topics) = next.exchanges.get_mut(TOPICS) {
        edit(Arc::make_mut(topics));
    }
    vhost.replace(next);
}
