//! Subscribing and unsubscribing sessions, alone or as members of a group that shares its messages.

use std::sync::Arc;

use crate::broker::Broker;
use crate::catalogue::Vhost;
use crate::effect::Effects;
use crate::exchange::{Destination, Exchange, Grant, QueueTarget};
use crate::fact::Fact;
use crate::session::{Group, Session, State, Subscription};
use crate::sessions::with_topics;
use crate::store::StoreError;
use crate::topology::Durable;

/// What a session subscribes to.
#[derive(Clone, Copy, Debug)]
pub struct Filter<'a> {
    /// As a pattern of the topic exchange.
    pub pattern: &'a [u8],
    /// For a shared subscription, the name of the group and its filter together.
    pub group: Option<&'a str>,
}

/// What a subscription led to.
#[derive(Clone, Copy, Debug)]
pub struct Subscribed {
    /// There was none with that filter.
    pub new: bool,
    /// The queue to consume from: the session's, or the group's.
    pub queue: QueueTarget,
    /// It counts once the journal is durable up to there.
    pub durable: Durable,
}

/// Members of a group take each message as its own session would: the member's own QoS is applied as it is delivered.
pub(crate) const GROUP_GRANT: u8 = 2;

impl Broker {
    /// Adds a subscription or replaces the one with the same filter; no message is missed in between
    /// \[MQTT-3.8.4-3\].
    ///
    /// # Errors
    /// When the store takes no record.
    pub fn subscribe_session(
        &self,
        vhost: &Arc<Vhost>,
        session: &Session,
        filter: &Filter<'_>,
        subscription: Subscription,
        now: u64,
        effects: &mut Effects,
    ) -> Result<Subscribed, StoreError> {
        let mut state = session.state.lock();
        let mut written = None;
        // The subscription is written after the queue that it refers to.
        let mut write = |durable: bool| {
            let fact = || subscription_fact(vhost, &session.client, *filter, subscription);
            written = durable.then(|| self.state(&fact(), true)).transpose()?;
            Ok::<(), StoreError>(())
        };
        let (new, queue) = match filter.group {
            Some(group) => {
                let new = !state.shared.contains_key(group);
                let queue = self.join(vhost, group, filter.pattern, new, state.durable, now, effects)?;
                if let Err(error) = write(state.durable) {
                    if new {
                        self.part(vhost, group, now, effects);
                    }
                    return Err(error);
                }
                state.shared.insert(group.into(), subscription);
                (new, queue)
            }
            None => {
                let queue = self.queue_of_session(vhost, session, &mut state, now, effects)?;
                write(state.durable)?;
                let old = state.subscriptions.insert(filter.pattern.into(), subscription);
                let (before, after) = (old.map(|old| old.grant()), subscription.grant());
                if before != Some(after) {
                    with_topics(vhost, |topics| rebind(topics, filter.pattern, queue, before, Some(after)));
                }
                (old.is_none(), queue)
            }
        };
        Ok(Subscribed { new, queue, durable: written })
    }

    /// Removes a subscription. Says which queue it led to; `None` when there was none.
    pub fn unsubscribe_session(
        &self,
        vhost: &Arc<Vhost>,
        session: &Session,
        filter: &Filter<'_>,
        now: u64,
        effects: &mut Effects,
    ) -> Option<QueueTarget> {
        let mut state = session.state.lock();
        let old = match filter.group {
            Some(group) => state.shared.remove(group)?,
            None => state.subscriptions.remove(filter.pattern)?,
        };
        if state.durable {
            let fact = subscription_fact(vhost, &session.client, *filter, old);
            if let Err(error) = self.state(&fact, false) {
                effects.store_error = Some(error);
            }
        }
        match filter.group {
            Some(group) => self.part(vhost, group, now, effects),
            None => {
                let queue = state.queue?;
                with_topics(vhost, |topics| rebind(topics, filter.pattern, queue, Some(old.grant()), None));
                Some(queue)
            }
        }
    }

    /// The session's queue, made when it is needed first: most devices only publish.
    fn queue_of_session(
        &self,
        vhost: &Arc<Vhost>,
        session: &Session,
        state: &mut State,
        now: u64,
        effects: &mut Effects,
    ) -> Result<QueueTarget, StoreError> {
        if let Some(queue) = state.queue {
            return Ok(queue);
        }
        let queue = self.place_session_queue(vhost, &session.client, None, state.durable, now, effects);
        state.queue = Some(queue);
        if state.durable
            && let Err(error) = self.state(&self.session_fact(vhost, &session.client, state), true)
        {
            state.queue = None;
            self.in_shard(queue.shard, now, effects, |shard, cx| shard.remove(queue, cx));
            return Err(error);
        }
        Ok(queue)
    }

    #[expect(clippy::too_many_arguments, reason = "one caller, which has all of them")]
    fn join(
        &self,
        vhost: &Arc<Vhost>,
        name: &str,
        pattern: &[u8],
        new: bool,
        durable: bool,
        now: u64,
        effects: &mut Effects,
    ) -> Result<QueueTarget, StoreError> {
        let mut sessions = vhost.sessions.lock();
        if let Some(group) = sessions.groups.get_mut(name) {
            if durable && !group.durable {
                // Its members so far end with their connections; this one comes back after a restart.
                self.state(&group_fact(vhost, name, group), true)?;
                group.durable = true;
                self.in_queue(group.queue, now, effects, |queue, _| queue.identity.durable = true);
            }
            group.members += u32::from(new);
            return Ok(group.queue);
        }
        let queue = self.place_session_queue(vhost, &name.into(), None, durable, now, effects);
        let group = Group { queue, pattern: pattern.into(), members: 1, durable };
        if durable && let Err(error) = self.state(&group_fact(vhost, name, &group), true) {
            self.in_shard(queue.shard, now, effects, |shard, cx| shard.remove(queue, cx));
            return Err(error);
        }
        sessions.groups.insert(name.into(), group);
        drop(sessions);
        let grant = Some(Grant::session(GROUP_GRANT, false));
        with_topics(vhost, |topics| rebind(topics, pattern, queue, None, grant));
        Ok(queue)
    }

    /// A member leaves; with the last one the group goes.
    fn part(&self, vhost: &Arc<Vhost>, name: &str, now: u64, effects: &mut Effects) -> Option<QueueTarget> {
        let mut sessions = vhost.sessions.lock();
        let group = sessions.groups.get_mut(name)?;
        group.members = group.members.saturating_sub(1);
        let queue = group.queue;
        if group.members > 0 {
            return Some(queue);
        }
        let group = sessions.groups.remove(name)?;
        // Before anyone can make it anew and write that down.
        if group.durable
            && let Err(error) = self.state(&group_fact(vhost, name, &group), false)
        {
            effects.store_error = Some(error);
        }
        drop(sessions);
        let grant = Some(Grant::session(GROUP_GRANT, false));
        with_topics(vhost, |topics| rebind(topics, &group.pattern, queue, grant, None));
        self.in_shard(queue.shard, now, effects, |shard, cx| shard.remove(queue, cx));
        Some(queue)
    }

    /// Removes every subscription of a session that ends, in one step.
    pub(crate) fn unsubscribe_all(
        &self,
        vhost: &Arc<Vhost>,
        client: &Arc<str>,
        state: &mut State,
        now: u64,
        effects: &mut Effects,
    ) {
        let own = std::mem::take(&mut state.subscriptions);
        let shared = std::mem::take(&mut state.shared);
        if state.durable {
            let own = own.iter().map(|(pattern, one)| (Filter { pattern, group: None }, one));
            let shared = shared.iter().map(|(group, one)| (Filter { pattern: &[], group: Some(group) }, one));
            for (filter, one) in own.chain(shared) {
                if let Err(error) = self.state(&subscription_fact(vhost, client, filter, *one), false) {
                    effects.store_error = Some(error);
                }
            }
        }
        if let Some(queue) = state.queue.filter(|_| !own.is_empty()) {
            with_topics(vhost, |topics| {
                for (pattern, one) in own.iter() {
                    rebind(topics, pattern, queue, Some(one.grant()), None);
                }
            });
        }
        for group in shared.keys() {
            self.part(vhost, group, now, effects);
        }
    }
}

/// Puts one grant of a queue in the place of another.
pub(crate) fn rebind(
    topics: &mut Exchange,
    pattern: &[u8],
    queue: QueueTarget,
    before: Option<Grant>,
    after: Option<Grant>,
) {
    topics.subscribe(pattern, |targets| {
        if let Some(grant) = after {
            targets.add(Destination::Session(queue, grant));
        }
        if let Some(grant) = before {
            targets.remove(&Destination::Session(queue, grant));
        }
    });
}

pub(crate) fn subscription_fact(vhost: &Vhost, client: &Arc<str>, filter: Filter<'_>, one: Subscription) -> Fact {
    Fact::Subscription {
        vhost: vhost.name.to_string(),
        client: client.to_string(),
        // That of a group is in the group's fact.
        pattern: if filter.group.is_some() { Vec::new() } else { filter.pattern.to_vec() },
        group: filter.group.map(str::to_owned),
        subscription: one,
    }
}

pub(crate) fn group_fact(vhost: &Vhost, name: &str, group: &Group) -> Fact {
    Fact::Group {
        vhost: vhost.name.to_string(),
        name: name.to_owned(),
        queue: group.queue.id.0,
        pattern: group.pattern.to_vec(),
    }
}
