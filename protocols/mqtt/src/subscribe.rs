//! SUBSCRIBE and UNSUBSCRIBE.

use std::sync::Arc;

use portolan_core::catalogue::{Target, Vhost};
use portolan_core::engine::Ask;
use portolan_core::exchange::{Grant, QueueTarget};
use portolan_core::message::{Facts, Message, Origin};
use portolan_core::session::{Session, Subscription, TOPICS};
use portolan_core::subscriptions::{Filter, Subscribed};
use smallvec::smallvec;

use crate::codec::decode::{RetainHandling, Subscribe, SubscribeOptions, Unsubscribe};
use crate::codec::encode::{self, Explanation};
use crate::engine::Connection;
use crate::flags;
use crate::reason::Reason;
use crate::topic::{self, Share};
use crate::work::Work;

/// Retained messages that are handed over at once.
const REPLAYED_AT_ONCE: usize = 1024;

/// What one filter led to.
struct Entry {
    reason: Reason,
    /// Why not, for those who can change it.
    text: Option<&'static str>,
    durable: Option<u64>,
    /// A queue whose retained messages are wanted, with the pattern, the granted QoS and the identifier.
    replay: Option<(QueueTarget, Vec<u8>, Subscription)>,
}

impl Entry {
    fn refused(reason: Reason, text: &'static str) -> Self {
        Self { reason, text: Some(text), durable: None, replay: None }
    }
}

impl Connection {
    /// Adds subscriptions: as many single ones, with one answer \[MQTT-3.8.4-5\].
    pub(crate) fn subscribe(&mut self, subscribe: &Subscribe<'_>, work: &mut Work) -> Option<Ask> {
        self.commit(work);
        let (vhost, session) = (self.vhost.clone()?, self.session.clone()?);
        let mut reasons = Vec::with_capacity(subscribe.count);
        let mut replays = Vec::new();
        let (mut durable, mut why) = (None, None);
        for (text, options) in subscribe.filters.clone() {
            let identifier = subscribe.identifier.unwrap_or(0);
            let entry = self.subscribe_one(&vhost, &session, text, options, identifier, work);
            durable = durable.max(entry.durable);
            reasons.push(entry.reason);
            why = why.or(entry.text);
            replays.extend(entry.replay);
        }
        {
            let mut inner = self.outbox.lock();
            let peer = inner.sessions.peer;
            if let Some(index) = durable {
                inner.hold(index);
            }
            encode::suback(
                &mut inner.out().bytes,
                peer,
                subscribe.packet_id,
                &reasons,
                Explanation { reason_string: why, ..Explanation::NONE },
            );
        }
        for (queue, pattern, subscription) in replays {
            self.replay(&vhost, queue, &pattern, subscription, work);
        }
        None
    }

    fn subscribe_one(
        &mut self,
        vhost: &Arc<Vhost>,
        session: &Arc<Session>,
        text: &str,
        options: SubscribeOptions,
        identifier: u32,
        work: &mut Work,
    ) -> Entry {
        let Ok(parsed) = topic::Subscription::parse(text) else {
            return Entry::refused(
                Reason::TopicFilterInvalid,
                "write a shared subscription as $share/<group>/<filter>",
            );
        };
        if topic::levels(parsed.filter) > self.settings.topic_levels {
            return Entry::refused(Reason::TopicFilterInvalid, "the filter has too many levels (mqtt.topic_levels)");
        }
        let mut pattern = Vec::with_capacity(parsed.filter.len());
        topic::append_key(parsed.filter, &mut pattern);
        let allowed = self
            .access
            .as_ref()
            .is_some_and(|access| access.unrestricted() || access.read(TOPICS) && access.read_topic(TOPICS, &pattern));
        if !allowed {
            tracing::info!(client = self.client(), filter = text, "subscription refused: the user may not read it");
            return Entry::refused(Reason::NotAuthorized, "the user may not read what the filter matches");
        }
        let group = (parsed.share != Share::No).then_some(text);
        let filter = Filter { pattern: &pattern, group };
        if session.subscriptions() >= self.settings.subscriptions && !session.has(&filter) {
            let text = "the client has as many subscriptions as it may have (mqtt.subscriptions)";
            return Entry::refused(Reason::QuotaExceeded, text);
        }
        let subscription = Subscription {
            qos: options.qos.bits(),
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            identifier,
        };
        let subscribed =
            self.broker.subscribe_session(vhost, session, &filter, subscription, self.now, &mut work.effects);
        let Subscribed { new, queue, durable } = match subscribed {
            Ok(subscribed) => subscribed,
            Err(error) => {
                tracing::warn!(client = self.client(), %error, "subscription refused");
                return Entry::refused(Reason::QuotaExceeded, "the store takes nothing at the moment");
            }
        };
        let reason = [Reason::Success, Reason::GrantedQos1, Reason::GrantedQos2][usize::from(options.qos.bits())];
        match group {
            Some(group) => {
                self.attach_group(group, queue, subscription);
                // Shared subscriptions get nothing retained [MQTT5-4.8.2].
                Entry { reason, text: None, durable, replay: None }
            }
            None => {
                let noted = self.outbox.lock().sessions.grants.added(&pattern, subscription, new);
                if !noted {
                    self.refresh_grants(session);
                }
                self.attach_own(queue);
                let wanted = match options.retain_handling {
                    RetainHandling::Always => true,
                    RetainHandling::IfNew => new,
                    RetainHandling::Never => false,
                };
                Entry { reason, text: None, durable, replay: wanted.then_some((queue, pattern, subscription)) }
            }
        }
    }

    /// Sends what is retained under a new subscription, by way of the session's queue like everything else.
    fn replay(&mut self, vhost: &Arc<Vhost>, queue: QueueTarget, pattern: &[u8], one: Subscription, work: &mut Work) {
        let (broker, now) = (Arc::clone(&self.broker), self.now);
        let target = Target { queue, grant: Grant::session(one.qos, false) };
        let mut gathered = 0;
        broker.retained(vhost, pattern, true, now, &mut |message, expires_at| {
            let copy = replayed(&broker, message, expires_at, one, now);
            work.batch.add(&smallvec![target], copy, 0);
            gathered += 1;
            if gathered % REPLAYED_AT_ONCE == 0 {
                self.commit(work);
            }
        });
        self.commit(work);
    }

    /// Removes subscriptions, with one answer \[MQTT-3.10.4-6\].
    pub(crate) fn unsubscribe(&mut self, unsubscribe: &Unsubscribe<'_>, work: &mut Work) -> Option<Ask> {
        self.commit(work);
        let (vhost, session) = (self.vhost.clone()?, self.session.clone()?);
        let mut reasons = Vec::with_capacity(unsubscribe.count);
        for text in unsubscribe.filters.clone() {
            reasons.push(self.unsubscribe_one(&vhost, &session, text, work));
        }
        let durable = (self.promise.expiry > 0).then(|| self.broker.journal.last());
        self.refresh_grants(&session);
        let mut inner = self.outbox.lock();
        if let Some(index) = durable {
            inner.hold(index);
        }
        let peer = inner.sessions.peer;
        encode::unsuback(&mut inner.out().bytes, peer, unsubscribe.packet_id, &reasons, Explanation::NONE);
        None
    }

    /// Looks at the session's subscriptions anew, for what is delivered from here on.
    pub(crate) fn refresh_grants(&self, session: &Session) {
        // Before the outbox: its lock is taken after those of sessions and queues.
        let subscriptions = session.view().subscriptions;
        self.outbox.lock().sessions.grants.refresh(&subscriptions);
    }

    fn unsubscribe_one(&mut self, vhost: &Arc<Vhost>, session: &Arc<Session>, text: &str, work: &mut Work) -> Reason {
        let Ok(parsed) = topic::Subscription::parse(text) else { return Reason::NoSubscriptionExisted };
        let mut pattern = Vec::with_capacity(parsed.filter.len());
        topic::append_key(parsed.filter, &mut pattern);
        let group = (parsed.share != Share::No).then_some(text);
        if let Some(group) = group
            && let Some(at) = self.memberships.iter().position(|one| *one.group == *group)
        {
            let membership = self.memberships.swap_remove(at);
            self.broker.unsubscribe(membership.consumer, self.now, &mut work.effects);
        }
        let filter = Filter { pattern: &pattern, group };
        match self.broker.unsubscribe_session(vhost, session, &filter, self.now, &mut work.effects) {
            Some(_) => Reason::Success,
            None => Reason::NoSubscriptionExisted,
        }
    }
}

/// A retained message as one new subscription gets it.
fn replayed(
    broker: &portolan_core::broker::Broker,
    message: &Message,
    expires_at: u64,
    one: Subscription,
    now: u64,
) -> Message {
    let message = broker.dialects.translate(message, Origin::Mqtt);
    let (_, _, block) = flags::read(message.properties());
    let qos = message.qos().min(one.qos);
    let mut properties = Vec::with_capacity(block.len() + 5);
    flags::put_replay(&mut properties, qos, one.identifier);
    properties.extend_from_slice(block);
    let ttl = (expires_at != 0).then(|| expires_at.saturating_sub(now));
    let facts = Facts { origin: Origin::Mqtt, persistent: qos > 0, ttl, ..*message.facts() };
    Message::assemble(facts, message.exchange(), message.routing_key(), &properties, message.body())
}
