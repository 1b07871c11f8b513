//! PUBLISH from the client: which topic, may it, where to, and into the batch.

use std::borrow::Cow;
use std::sync::Arc;

use portolan_core::catalogue::Route;
use portolan_core::engine::Ask;
use portolan_core::message::{Facts, Message, Origin, Span};
use portolan_core::refusal::Refusal;
use portolan_core::session::TOPICS;
use portolan_core::value::Table;

use crate::codec::decode::Publish;
use crate::codec::{AckKind, Qos, Version, property};
use crate::engine::Connection;
use crate::flags;
use crate::reason::Reason;
use crate::settings::DeniedPublish;
use crate::topic;
use crate::work::{Unanswered, Work};

/// Why a publish goes nowhere though it is well written.
struct Denied {
    reason: Reason,
    text: &'static str,
}

impl Connection {
    /// Takes a message. `Some` when the connection ends by it.
    pub(crate) fn publish(&mut self, publish: &Publish<'_>, work: &mut Work) -> Option<Ask> {
        work.published = true;
        work.payload_bytes += publish.payload.len() as u64;
        self.rate.count(self.now);
        let topic: Cow<'_, str> = match publish.alias {
            None => Cow::Borrowed(publish.topic),
            Some(alias) => match self.resolve(alias, publish.topic) {
                Ok(topic) => topic.map_or(Cow::Borrowed(publish.topic), |known| Cow::Owned(known.into())),
                Err((reason, text)) => {
                    self.commit(work);
                    return Some(self.fail(reason, text));
                }
            },
        };
        if publish.qos == Qos::ExactlyOnce {
            match self.arrive_once(publish.packet_id, work) {
                Ok(true) => {}
                Ok(false) if work.unanswered.iter().any(|one| one.packet_id == publish.packet_id) => {
                    // What became of the first one is not certain before it is carried out.
                    self.commit(work);
                    return self.publish(publish, work);
                }
                // Received before: answered again, delivered once [MQTT-4.3.3-10].
                Ok(false) => {
                    self.await_answer(publish, Reason::Success, work);
                    return None;
                }
                Err(ask) => return Some(ask),
            }
        }
        if let Some(count) = work.received.get_mut(usize::from(publish.qos.bits())) {
            *count += 1;
        }
        match self.route(publish, &topic) {
            Ok(route) => {
                self.add(publish, &topic, &route, work);
                None
            }
            Err(denied) => self.deny(publish, &denied, work),
        }
    }

    /// The topic of an alias, or `None` when this publish sets it.
    fn resolve(&mut self, alias: u16, topic: &str) -> Result<Option<&str>, (Reason, &'static str)> {
        if alias > self.settings.topic_alias_max {
            return Err((Reason::TopicAliasInvalid, "the topic alias is higher than the maximum in CONNACK"));
        }
        let aliases = self.aliases.get_or_insert_default();
        if topic.is_empty() {
            let unknown = (Reason::ProtocolError, "the topic alias has not been set on this connection");
            return aliases.get(alias).map(Some).ok_or(unknown);
        }
        match aliases.set(alias, topic) {
            true => Ok(None),
            false => Err((Reason::QuotaExceeded, "topic aliases stand for more than 1 MiB of topics")),
        }
    }

    /// Remembers the packet id of a QoS 2 message. False when it is there already.
    fn arrive_once(&mut self, packet_id: u16, work: &mut Work) -> Result<bool, Ask> {
        let Some(session) = &self.session else { return Ok(false) };
        let (fresh, waiting) = session.receive_once(packet_id);
        work.arrived |= fresh;
        if self.version == Version::V5 && waiting > usize::from(self.settings.receive_max) {
            self.commit(work);
            let text = "more QoS 2 messages are under way than the receive maximum in CONNACK";
            return Err(self.fail(Reason::ReceiveMaximumExceeded, text));
        }
        Ok(fresh)
    }

    /// Finds the queues, from memory if this topic was used before.
    fn route(&mut self, publish: &Publish<'_>, topic: &str) -> Result<Arc<Route>, Denied> {
        let unknown = Denied { reason: Reason::UnspecifiedError, text: "there is no such vhost" };
        if publish.text && !publish.payload_is_as_declared() {
            let text = "the payload is not the UTF-8 that it is said to be";
            return Err(Denied { reason: Reason::PayloadFormatInvalid, text });
        }
        let Some(vhost) = &self.vhost else { return Err(unknown) };
        let routes = self.routes.get_or_insert_default();
        if let Some(route) = routes.find(topic.as_bytes(), vhost.generation()) {
            return Ok(route);
        }
        let mut key = Vec::with_capacity(topic.len());
        topic::append_key(topic, &mut key);
        if topic::levels(topic) > self.settings.topic_levels {
            let text = "the topic has too many levels (mqtt.topic_levels)";
            return Err(Denied { reason: Reason::TopicNameInvalid, text });
        }
        // The broker's own; and what looks like a shared subscription is never a topic.
        let reserved = topic.starts_with("$SYS/") || topic.starts_with("$share/") || topic.starts_with("$queue/");
        let allowed = !reserved
            && self.access.as_ref().is_some_and(|access| {
                access.unrestricted() || access.write(TOPICS) && access.write_topic(TOPICS, &key)
            });
        if !allowed {
            return Err(Denied { reason: Reason::NotAuthorized, text: "the user may not publish to this topic" });
        }
        let own = self.session.as_ref().and_then(|session| session.queue());
        let Ok(route) = vhost.route_from(own, TOPICS, &[&key], &Table::default) else { return Err(unknown) };
        let route = Arc::new(route);
        if route.by_key_alone {
            routes.keep(topic.as_bytes(), &route);
        }
        Ok(route)
    }

    /// Makes the message and puts it into the batch.
    fn add(&mut self, publish: &Publish<'_>, topic: &str, route: &Arc<Route>, work: &mut Work) {
        if route.targets.is_empty() && !publish.retain {
            work.unroutable += 1;
            let reason = match publish.qos {
                Qos::AtLeastOnce => Reason::NoMatchingSubscribers,
                _ => Reason::Success,
            };
            self.await_answer(publish, reason, work);
            return;
        }
        let message = message_of(publish, topic, &mut work.block);
        let mut reason = Reason::Success;
        if publish.retain {
            reason = self.retain(&message, work);
        }
        self.await_answer(publish, reason, work);
        if reason == Reason::Success {
            work.routed += 1;
            let tag = if publish.qos == Qos::AtMostOnce { 0 } else { work.unanswered.len() as u32 };
            work.batch.add(&route.targets, message, tag);
        }
    }

    fn retain(&mut self, message: &Message, work: &mut Work) -> Reason {
        let Some(vhost) = &self.vhost else { return Reason::UnspecifiedError };
        match self.broker.retain(vhost, message, self.now, &mut work.effects) {
            Ok(_) => {
                work.persisted |= std::mem::take(&mut work.effects.persisted);
                Reason::Success
            }
            Err(refusal @ Refusal::Limit { .. }) if self.version != Version::V5 => {
                // It cannot be told, and to publish it again would not help: those who listen get it.
                tracing::warn!(client = self.client(), ?refusal, "a message was not retained");
                Reason::Success
            }
            Err(refusal) => {
                tracing::warn!(client = self.client(), ?refusal, "a retained message was not taken");
                Reason::QuotaExceeded
            }
        }
    }

    /// The sender of a QoS 1 or 2 message is answered when the batch is carried out.
    fn await_answer(&self, publish: &Publish<'_>, reason: Reason, work: &mut Work) {
        let kind = match publish.qos {
            Qos::AtMostOnce => return,
            Qos::AtLeastOnce => AckKind::Puback,
            Qos::ExactlyOnce => AckKind::Pubrec,
        };
        work.unanswered.push(Unanswered { packet_id: publish.packet_id, kind, reason });
    }

    /// A publish that may not be: 5.0 learns why in the acknowledgement, before that nobody can be told.
    fn deny(&mut self, publish: &Publish<'_>, denied: &Denied, work: &mut Work) -> Option<Ask> {
        work.denied += 1;
        tracing::debug!(client = self.client(), topic = publish.topic, text = denied.text, "publish denied");
        let disconnects = self.settings.denied == DeniedPublish::Disconnect;
        let malformed = denied.reason == Reason::PayloadFormatInvalid && publish.qos == Qos::AtMostOnce;
        if disconnects || malformed {
            self.commit(work);
            return Some(self.fail(denied.reason, denied.text));
        }
        let reason = if self.version == Version::V5 { denied.reason } else { Reason::Success };
        self.await_answer(publish, reason, work);
        None
    }
}

/// The message in one block: exchange, key, flags and properties, payload.
fn message_of(publish: &Publish<'_>, topic: &str, block: &mut Vec<u8>) -> Message {
    block.clear();
    block.extend_from_slice(TOPICS.as_bytes());
    let exchange = Span::new(0, block.len());
    topic::append_key(topic, block);
    let routing_key = Span::new(TOPICS.len(), block.len() - TOPICS.len());
    let start = block.len();
    flags::put(block, publish.qos, publish.retain);
    if !publish.properties.is_empty() {
        block.extend_from_slice(&property::travelling(publish.properties));
    }
    let properties = Span::new(start, block.len() - start);
    let body = Span::new(block.len(), publish.payload.len());
    block.extend_from_slice(publish.payload);
    let facts = Facts {
        exchange,
        routing_key,
        properties,
        body,
        origin: Origin::Mqtt,
        priority: 0,
        persistent: publish.qos != Qos::AtMostOnce,
        ttl: publish.expiry.map(|seconds| u64::from(seconds) * 1000),
    };
    Message::new(facts, block)
}
