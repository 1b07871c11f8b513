//! Sessions as the store knows them: from facts to sessions, and back.

use std::collections::HashMap;
use std::sync::Arc;

use crate::broker::Broker;
use crate::catalogue::Vhost;
use crate::effect::Effects;
use crate::exchange::{Exchange, Grant, QueueTarget};
use crate::fact::Fact;
use crate::restore::{Building, Restored};
use crate::session::{Group, Session, State, Subscription, TOPICS, Will};
use crate::sessions::list;
use crate::store::{QueueId, RecoveredQueue, StoreError};
use crate::subscriptions::{Filter, GROUP_GRANT, group_fact, rebind, subscription_fact};

impl Broker {
    /// False for a fact that refers to nothing.
    pub(crate) fn restore_session_fact(
        &self,
        fact: Fact,
        building: &mut HashMap<String, Building>,
        queues: &mut HashMap<QueueId, RecoveredQueue>,
        now: u64,
        restored: &mut Restored,
    ) -> bool {
        match fact {
            Fact::Session { vhost, client, queue, expiry, left_at, will } => {
                let Some(Building { vhost, .. }) = building.get(&vhost) else { return false };
                let client: Arc<str> = client.into();
                let queue = queue.map(|id| self.restore_session_queue(vhost, &client, id, queues, now, restored));
                restored.sessions += 1;
                // A connection that had it ended with the process.
                let left_at = if left_at == 0 { now } else { left_at };
                restore_session(vhost, client, queue, expiry, left_at, will);
                true
            }
            Fact::Group { vhost, name, queue, pattern } => {
                let Some(Building { vhost, snapshot }) = building.get_mut(&vhost) else { return false };
                let name: Arc<str> = name.into();
                let queue = self.restore_session_queue(vhost, &name, queue, queues, now, restored);
                let grant = Some(Grant::session(GROUP_GRANT, false));
                if let Some(topics) = snapshot.exchanges.get_mut(TOPICS) {
                    rebind(Arc::make_mut(topics), &pattern, queue, None, grant);
                }
                let group = Group { queue, pattern: pattern.into(), members: 0, durable: true };
                vhost.sessions.lock().groups.insert((&*name).into(), group);
                true
            }
            Fact::Subscription { vhost, client, pattern, group, subscription } => {
                let Some(Building { vhost, snapshot }) = building.get_mut(&vhost) else { return false };
                let Some(session) = vhost.session(&client) else { return false };
                let topics = snapshot.exchanges.get_mut(TOPICS).map(Arc::make_mut);
                restore_subscription(vhost, &session, topics, &pattern, group, subscription)
            }
            Fact::Received { vhost, client, packet_id } => {
                let Some(Building { vhost, .. }) = building.get(&vhost) else { return false };
                let Some(session) = vhost.session(&client) else { return false };
                session.state.lock().received.insert(packet_id)
            }
            _ => true,
        }
    }

    fn restore_session_queue(
        &self,
        vhost: &Arc<Vhost>,
        name: &Arc<str>,
        id: u64,
        queues: &mut HashMap<QueueId, RecoveredQueue>,
        now: u64,
        restored: &mut Restored,
    ) -> QueueTarget {
        let recovered = queues.remove(&QueueId(id)).unwrap_or_default();
        restored.messages += recovered.entries.len();
        let id = Some(QueueId(id));
        let target = self.place_session_queue(vhost, name, id, true, now, &mut Effects::default());
        self.refill(target, &recovered, now);
        target
    }

    /// Ends groups whose last member left in the moment in which the process ended.
    pub(crate) fn end_empty_groups(&self, building: &mut Building, now: u64, effects: &mut Effects) {
        let Building { vhost, snapshot } = building;
        let empty: Vec<(Box<str>, Group)> =
            vhost.sessions.lock().groups.extract_if(|_, group| group.members == 0).collect();
        for (name, group) in empty {
            let grant = Some(Grant::session(GROUP_GRANT, false));
            if let Some(topics) = snapshot.exchanges.get_mut(TOPICS) {
                rebind(Arc::make_mut(topics), &group.pattern, group.queue, grant, None);
            }
            self.in_shard(group.queue.shard, now, effects, |shard, cx| shard.remove(group.queue, cx));
            // Should the record not be taken, the next start ends it again.
            drop(self.state(&group_fact(vhost, &name, &group), false));
        }
    }

    /// Writes the facts of a vhost's sessions anew, each session with its lock held so that it does not change
    /// meanwhile.
    pub(crate) fn restate_sessions(&self, vhost: &Vhost) -> Result<(), StoreError> {
        for session in vhost.all_sessions() {
            let state = session.state.lock();
            if !state.durable {
                continue;
            }
            let client = &session.client;
            self.state(&self.session_fact(vhost, client, &state), true)?;
            let own = state.subscriptions.iter().map(|(pattern, one)| (Filter { pattern, group: None }, one));
            let shared = state.shared.iter().map(|(group, one)| (Filter { pattern: &[], group: Some(group) }, one));
            for (filter, one) in own.chain(shared) {
                self.state(&subscription_fact(vhost, client, filter, *one), true)?;
            }
            for &packet_id in state.received.iter().filter(|id| !state.arriving.contains(id)) {
                self.state(&self.received_fact(vhost, client, packet_id), true)?;
            }
        }
        let sessions = vhost.sessions.lock();
        let mut durable = sessions.groups.iter().filter(|(_, group)| group.durable);
        durable.try_for_each(|(name, group)| self.state(&group_fact(vhost, name, group), true).map(drop))
    }
}

fn restore_session(
    vhost: &Vhost,
    client: Arc<str>,
    queue: Option<QueueTarget>,
    expiry: u32,
    left_at: u64,
    will: Option<Will>,
) {
    let will = will.map(Box::new);
    let mut state = State { expiry, durable: true, left_at, queue, will, ..State::default() };
    list(vhost, &client, &mut state);
    let mut sessions = vhost.sessions.lock();
    sessions.by_client.insert(Arc::clone(&client), Session::new(client, state));
}

fn restore_subscription(
    vhost: &Vhost,
    session: &Session,
    topics: Option<&mut Exchange>,
    pattern: &[u8],
    group: Option<String>,
    subscription: Subscription,
) -> bool {
    let mut state = session.state.lock();
    if let Some(group) = group {
        let mut sessions = vhost.sessions.lock();
        let Some(known) = sessions.groups.get_mut(&*group) else { return false };
        known.members += 1;
        state.shared.insert(group.into(), subscription);
        return true;
    }
    let (Some(queue), Some(topics)) = (state.queue, topics) else { return false };
    rebind(topics, pattern, queue, None, Some(subscription.grant()));
    state.subscriptions.insert(pattern.into(), subscription);
    true
}
