//! What any thread needs to deliver to this connection: its window, its packet ids, what its subscriptions grant,
//! and answers that wait for the journal. Lives behind the outbox's lock.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use portolan_core::access::Access;
use portolan_core::counters::Counters;
use portolan_core::delivery::{ConsumerRef, Delivery, DeliveryRef, Recipient, Taken};
use portolan_core::hub::Dialects;
use portolan_core::message::{MQTT_QOS, Message, Origin};
use portolan_core::outbox::{Chunk, Outbox, SHARE_FROM, Sessions};
use portolan_core::session::Subscription;
use portolan_core::store::Index;

use crate::codec::encode::{self, Explanation, Peer};
use crate::codec::{AckKind, Qos, Version};
use crate::convert;
use crate::flags;
use crate::grants::{Granted, Grants};
use crate::reason::Reason;
use crate::topic;

/// The consumer of the session's own queue, in our numbering; groups have the numbers from 1 on.
pub(crate) const OWN: u32 = 0;

thread_local! {
    /// The topic being written; one for each thread, so that idle connections keep none.
    static TOPIC: RefCell<Written> = const { RefCell::new(Written { key: Vec::new(), topic: String::new() }) };
}

/// A routing key and its topic: of a message for many subscribers it is made once.
struct Written {
    key: Vec<u8>,
    topic: String,
}

impl Written {
    #[inline]
    fn topic(&mut self, key: &[u8]) -> &str {
        if self.key != key || self.topic.is_empty() {
            self.key.clear();
            self.key.extend_from_slice(key);
            self.topic.clear();
            topic::append_topic(key, &mut self.topic);
        }
        &self.topic
    }
}

/// A delivery of QoS 1 or 2 that the client has yet to acknowledge.
pub(crate) struct Held {
    pub(crate) delivery: DeliveryRef,
    pub(crate) qos: Qos,
    /// PUBREC came: what is awaited is PUBCOMP.
    pub(crate) released: bool,
    /// Of QoS 2 from a group's queue: what it takes to go on with it on another connection.
    pub(crate) shared: Option<Box<Shared>>,
}

/// What is kept of a group's message until its member has it.
pub(crate) struct Shared {
    pub(crate) message: Option<Message>,
    pub(crate) expires_at: u64,
    pub(crate) subscription: Subscription,
}

/// An answer that waits for the journal, or for one before it that does.
struct Answer {
    index: Index,
    kind: AckKind,
    packet_id: u16,
    reason: Reason,
}

/// The delivery side of a connection.
pub(crate) struct Deliveries {
    pub(crate) peer: Peer,
    /// QoS 1 and 2 deliveries that the client takes at a time.
    pub(crate) window: u16,
    pub(crate) held: HashMap<u16, Held, ahash::RandomState>,
    pub(crate) grants: Grants,
    answers: VecDeque<Answer>,
    /// Consumers that got nothing more because the window is closed or a packet id is taken.
    pub(crate) stalled: Vec<ConsumerRef>,
    /// Takes no deliveries any more: the session is being left.
    left: bool,
    /// Asked for each delivery, where permissions are on what is delivered.
    pub(crate) access: Option<Arc<dyn Access>>,
    aliases: Option<Box<Aliases>>,
    pub(crate) dialects: Arc<Dialects>,
    counters: Arc<Counters>,
    tally: Tally,
}

/// Deliveries since the last flush, for the counters: added once per flush and not per message.
#[derive(Clone, Copy, Default)]
struct Tally {
    messages: [u64; 3],
    payload_bytes: u64,
}

/// Topics that the client knows by number.
struct Aliases {
    most: u16,
    known: HashMap<Box<str>, u16, ahash::RandomState>,
}

impl Deliveries {
    pub(crate) fn new(dialects: Arc<Dialects>, counters: Arc<Counters>) -> Self {
        Self {
            peer: Peer::new(Version::V311),
            window: 0,
            held: HashMap::default(),
            grants: Grants::default(),
            answers: VecDeque::new(),
            stalled: Vec::new(),
            left: false,
            access: None,
            aliases: None,
            dialects,
            counters,
            tally: Tally::default(),
        }
    }

    /// Adds what was delivered since the last time to the counters.
    fn count(&mut self) {
        let tally = std::mem::take(&mut self.tally);
        let delivered = &self.counters.mqtt_delivered;
        for (counter, count) in delivered.messages.iter().zip(tally.messages) {
            counter.add(count);
            delivered.packets.add(count);
        }
        delivered.payload_bytes.add(tally.payload_bytes);
        let [at_most_once, at_least_once, exactly_once] = tally.messages;
        self.counters.delivered.consume_auto.add(at_most_once);
        self.counters.delivered.consume_manual.add(at_least_once + exactly_once);
    }

    /// We may set so many topic aliases.
    pub(crate) fn set_aliases(&mut self, most: u16) {
        self.aliases = (most > 0).then(|| Box::new(Aliases { most, known: HashMap::default() }));
    }

    /// Answers now, or once the journal is durable up to `index`. Answers keep the order of what they answer.
    pub(crate) fn answer(
        &mut self,
        out: &mut Chunk,
        durable: Option<Index>,
        kind: AckKind,
        packet_id: u16,
        reason: Reason,
    ) {
        match durable {
            None if self.answers.is_empty() => {
                encode::ack(&mut out.bytes, self.peer, kind, packet_id, reason, Explanation::NONE);
            }
            // One that could leave at once joins those that wait.
            index => self.answers.push_back(Answer { index: index.unwrap_or(0), kind, packet_id, reason }),
        }
    }

    /// More than `most` of the client's messages wait for the journal.
    pub(crate) fn unanswered_beyond(&self, most: usize) -> bool {
        let ours = |answer: &&Answer| answer.kind != AckKind::Pubrel;
        self.answers.len() > most && self.answers.iter().filter(ours).count() > most
    }

    /// The session is being left: nothing more is delivered, and nothing follows what is written by now
    /// [MQTT-3.14.4-1].
    pub(crate) fn leave(&mut self) {
        self.left = true;
        self.answers.clear();
    }

    fn deliver(&mut self, delivery: &Delivery<'_>, out: &mut Chunk) -> Taken {
        let own = delivery.consumer == OWN;
        if delivery.released {
            return self.release_again(delivery, out);
        }
        let message = delivery.message;
        let converted;
        let (flags, identifier, block) = match message.facts().origin {
            Origin::Mqtt => flags::read(message.properties()),
            Origin::Amqp091 => {
                converted = convert::outgoing(&self.dialects, message);
                (converted.flags, 0, &*converted.properties)
            }
        };
        TOPIC.with_borrow_mut(|written| {
            let topic = written.topic(message.routing_key());
            let granted = match own {
                _ if flags & flags::REPLAY != 0 => Granted::replay(flags & MQTT_QOS, identifier),
                true => self.grants.own(topic),
                false => self.grants.group(delivery.consumer),
            };
            if let Some(access) = &self.access
                && !access.receive_topic("amq.topic", message.routing_key())
            {
                return Taken::Settled;
            }
            self.write(delivery, message, (flags, block), &granted, topic, out)
        })
    }

    fn write(
        &mut self,
        delivery: &Delivery<'_>,
        message: &Message,
        (flags, block): (u8, &[u8]),
        granted: &Granted,
        topic: &str,
        out: &mut Chunk,
    ) -> Taken {
        let own = delivery.consumer == OWN;
        let qos = Qos::from_bits((flags & MQTT_QOS).min(granted.qos)).unwrap_or_default();
        let mut packet = encode::Delivery {
            dup: own && delivery.redelivered,
            qos,
            retain: flags & flags::REPLAY != 0 || granted.retain_as_published && flags & flags::RETAIN != 0,
            packet_id: 0,
            topic,
            properties: block,
            alias: None,
            expiry: remaining(delivery.expires_at, delivery.now),
            identifiers: &granted.identifiers,
            payload: message.body(),
        };
        let fits = packet.size(self.peer.version).is_some_and(|size| size as u64 <= u64::from(self.peer.max_packet));
        if !fits {
            // As if it had been sent [MQTT-3.1.2-25].
            self.counters.mqtt_delivered.dropped.add(1);
            return Taken::Settled;
        }
        if qos != Qos::AtMostOnce {
            let Some(packet_id) = self.packet_id(delivery) else {
                self.stalled.push(delivery.from);
                return Taken::Closed;
            };
            let Some(settle) = delivery.settle else { return Taken::Gone };
            let shared = (!own && qos == Qos::ExactlyOnce).then(|| {
                let subscription = self.grants.subscription(delivery.consumer);
                Box::new(Shared { message: Some(message.clone()), expires_at: delivery.expires_at, subscription })
            });
            self.held.insert(packet_id, Held { delivery: settle, qos, released: false, shared });
            packet.packet_id = packet_id;
        }
        if let Some(aliases) = &mut self.aliases {
            aliases.apply(&mut packet);
        }
        put(out, self.peer.version, &packet, message);
        if let Some(count) = self.tally.messages.get_mut(usize::from(qos.bits())) {
            *count += 1;
        }
        self.tally.payload_bytes += message.body().len() as u64;
        if qos == Qos::AtMostOnce { Taken::Settled } else { Taken::More }
    }

    /// The client has the message already and has said so: only PUBREL is to be sent again [MQTT-4.4.0-1].
    fn release_again(&mut self, delivery: &Delivery<'_>, out: &mut Chunk) -> Taken {
        let (Some(packet_id), Some(settle)) = (self.packet_id(delivery), delivery.settle) else {
            self.stalled.push(delivery.from);
            return Taken::Closed;
        };
        let held = Held { delivery: settle, qos: Qos::ExactlyOnce, released: true, shared: None };
        self.held.insert(packet_id, held);
        encode::ack(&mut out.bytes, self.peer, AckKind::Pubrel, packet_id, Reason::Success, Explanation::NONE);
        Taken::More
    }

    /// The client takes another one.
    pub(crate) fn has_place(&self) -> bool {
        self.held.len() < usize::from(self.window)
    }

    /// The packet id of a delivery, if the window has a place. One of the session's own queue follows from the
    /// message's number there, so that it is the same after a reconnect and after a restart.
    fn packet_id(&self, delivery: &Delivery<'_>) -> Option<u16> {
        if !self.has_place() {
            return None;
        }
        let free = |id: &u16| !self.held.contains_key(id);
        if delivery.consumer == OWN {
            let id = (delivery.seq.wrapping_sub(1) % u64::from(u16::MAX)) as u16 + 1;
            return Some(id).filter(free);
        }
        // From the other end, where the session's own ids come last.
        (1..=u16::MAX).rev().find(free)
    }
}

/// Writes PUBLISH; a large body is sent from where it is.
pub(crate) fn put(out: &mut Chunk, version: Version, packet: &encode::Delivery<'_>, message: &Message) {
    let length = packet.payload.len();
    if length < SHARE_FROM {
        encode::publish(&mut out.bytes, version, packet);
    } else if encode::publish_head(&mut out.bytes, version, packet) {
        out.share(message, 0..length);
    }
}

/// What is left of a message's time, in seconds, a begun one counted: 0 would mean that it is over.
pub(crate) fn remaining(expires_at: u64, now: u64) -> Option<u32> {
    let left = expires_at.checked_sub(now)?;
    (expires_at != 0).then(|| u32::try_from(left.div_ceil(1000)).unwrap_or(u32::MAX))
}

impl Aliases {
    /// The first topics get numbers, in the order in which they come.
    fn apply<'a>(&mut self, packet: &mut encode::Delivery<'a>) {
        if let Some(&alias) = self.known.get(packet.topic) {
            packet.alias = Some(alias);
            packet.topic = "";
        } else if self.known.len() < usize::from(self.most) {
            let alias = self.known.len() as u16 + 1;
            self.known.insert(packet.topic.into(), alias);
            packet.alias = Some(alias);
        }
    }
}

impl Sessions for Deliveries {
    fn durable(&mut self, durable: Index, out: &mut Chunk) {
        while let Some(answer) = self.answers.pop_front_if(|answer| answer.index <= durable) {
            let Answer { kind, packet_id, reason, .. } = answer;
            encode::ack(&mut out.bytes, self.peer, kind, packet_id, reason, Explanation::NONE);
        }
    }

    fn awaited(&self) -> Option<Index> {
        self.answers.front().map(|answer| answer.index)
    }
}

/// The connection as queues see it.
pub(crate) struct Client(pub(crate) Arc<Outbox<Deliveries>>);

impl Recipient for Client {
    fn deliver(&self, delivery: &Delivery<'_>) -> Taken {
        let mut inner = self.0.lock();
        let (deliveries, out) = inner.parts();
        if deliveries.left {
            return Taken::Gone;
        }
        let taken = deliveries.deliver(delivery, out);
        if matches!(taken, Taken::Gone | Taken::Closed) || inner.bytes() < self.0.high_water {
            return taken;
        }
        inner.pause(delivery.from);
        if taken == Taken::Settled { Taken::SettledFull } else { Taken::Full }
    }

    fn cancelled(&self, _: u32, _: u32) {
        // Only the end of the session takes its queue away, and then the connection is over.
    }

    fn mark(&self) -> bool {
        self.0.mark()
    }

    fn flush(&self) {
        self.0.lock().sessions.count();
        self.0.flush();
    }
}
