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

/// What waits for the journal, or for something before it that does.
struct Late {
    index: Index,
    packet: LatePacket,
}

enum LatePacket {
    Answer {
        kind: AckKind,
        packet_id: u16,
        reason: Reason,
    },
    /// A QoS 2 message: had the client got it and we had not, its publisher's repetition would be a second one.
    Publish(Box<Chunk>),
}

/// The delivery side of a connection.
pub(crate) struct Deliveries {
    pub(crate) peer: Peer,
    /// QoS 1 and 2 deliveries that the client takes at a time.
    pub(crate) window: u16,
    pub(crate) held: HashMap<u16, Held, ahash::RandomState>,
    pub(crate) grants: Grants,
    late: VecDeque<Late>,
    /// How many of them are messages.
    late_publishes: usize,
    /// The session outlives the connection: what it is sent exactly once must be certain first.
    pub(crate) lasting: bool,
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
            late: VecDeque::new(),
            late_publishes: 0,
            lasting: false,
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
            None if self.late.is_empty() => {
                encode::ack(&mut out.bytes, self.peer, kind, packet_id, reason, Explanation::NONE);
            }
            // One that could leave at once joins those that wait.
            index => {
                let packet = LatePacket::Answer { kind, packet_id, reason };
                self.late.push_back(Late { index: index.unwrap_or(0), packet });
            }
        }
    }

    /// More than `most` of the client's messages wait for the journal.
    pub(crate) fn unanswered_beyond(&self, most: usize) -> bool {
        let ours = |late: &&Late| match late.packet {
            LatePacket::Answer { kind, .. } => kind != AckKind::Pubrel,
            LatePacket::Publish(_) => false,
        };
        self.late.len() > most && self.late.iter().filter(ours).count() > most
    }

    /// The session is being left: nothing more is delivered, and nothing follows what is written by now
    /// [MQTT-3.14.4-1].
    pub(crate) fn leave(&mut self) {
        self.left = true;
        self.late.clear();
        self.late_publishes = 0;
    }

    /// `undurable` is the journal's last index where it is not durable that far yet.
    fn deliver(&mut self, delivery: &Delivery<'_>, undurable: Option<Index>, out: &mut Chunk) -> Taken {
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
            self.write(delivery, (flags, block), &granted, topic, undurable, out)
        })
    }

    fn write(
        &mut self,
        delivery: &Delivery<'_>,
        (flags, block): (u8, &[u8]),
        granted: &Granted,
        topic: &str,
        undurable: Option<Index>,
        out: &mut Chunk,
    ) -> Taken {
        let (own, message) = (delivery.consumer == OWN, delivery.message);
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
        // What comes behind one that waits keeps its place [MQTT-4.6.0-1]. The window bounds how much that is; QoS 0 has
        // no window, and no order among other QoS either.
        let behind = (self.late_publishes > 0 && qos != Qos::AtMostOnce).then_some(0);
        match undurable.filter(|_| qos == Qos::ExactlyOnce).or(behind) {
            Some(index) => {
                // Without an alias, which another packet might use before this one has set it.
                let mut chunk = Box::<Chunk>::default();
                put(&mut chunk, self.peer.version, &packet, message);
                self.late.push_back(Late { index, packet: LatePacket::Publish(chunk) });
                self.late_publishes += 1;
            }
            None => {
                if let Some(aliases) = &mut self.aliases {
                    aliases.apply(&mut packet);
                }
                put(out, self.peer.version, &packet, message);
            }
        }
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
        while let Some(late) = self.late.pop_front_if(|late| late.index <= durable) {
            match late.packet {
                LatePacket::Answer { kind, packet_id, reason } => {
                    encode::ack(&mut out.bytes, self.peer, kind, packet_id, reason, Explanation::NONE);
                }
                LatePacket::Publish(chunk) => {
                    self.late_publishes -= 1;
                    out.append(*chunk);
                }
            }
        }
    }

    fn awaited(&self) -> Option<Index> {
        self.late.front().map(|late| late.index)
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
        let undurable = if deliveries.lasting { self.0.undurable() } else { None };
        let taken = deliveries.deliver(delivery, undurable, out);
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
        let waits = {
            let deliveries = &mut self.0.lock().sessions;
            deliveries.count();
            !deliveries.late.is_empty()
        };
        self.0.flush();
        if waits {
            self.0.await_durable();
        }
    }
}
