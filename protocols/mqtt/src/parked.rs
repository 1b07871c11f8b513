//! QoS 2 deliveries of shared subscriptions, finished with their member on its next connection \[MQTT5-4.8.2-4\].

use portolan_core::message::{MQTT_QOS, Message, Origin};
use portolan_core::outbox::Chunk;
use portolan_core::session::{Parked, Session, Subscription};

use crate::codec::encode::{self, Explanation};
use crate::codec::{AckKind, Qos};
use crate::convert;
use crate::deliveries::{Deliveries, Held, Shared, put, remaining};
use crate::engine::Connection;
use crate::flags;
use crate::grants::Granted;
use crate::reason::Reason;
use crate::topic;

/// What the session keeps of a delivery whose connection ends; `None` if the delivery goes back to its queue.
pub(crate) fn of(packet_id: u16, held: &Held) -> Option<Parked> {
    let Shared { message, expires_at, subscription } = &**held.shared.as_ref()?;
    let (delivery, message) = (held.delivery, message.clone());
    Some(Parked { packet_id, delivery, message, expires_at: *expires_at, subscription: *subscription })
}

impl Connection {
    /// Goes on with what the last connection began, as far as the window has places.
    pub(crate) fn unpark(&mut self, session: &Session) {
        let mut rest = session.unpark().into_iter();
        {
            let mut inner = self.outbox.lock();
            let (deliveries, out) = inner.parts();
            while deliveries.has_place()
                && let Some(parked) = rest.next()
            {
                deliveries.go_on_with(parked, self.now, out);
            }
        }
        let rest: Vec<_> = rest.collect();
        self.parked = !rest.is_empty();
        if self.parked {
            session.park(rest);
        }
    }
}

impl Deliveries {
    fn go_on_with(&mut self, parked: Parked, now: u64, out: &mut Chunk) {
        let Parked { packet_id, delivery, message, expires_at, subscription } = parked;
        match &message {
            Some(message) => self.send_again(packet_id, message, remaining(expires_at, now), subscription, out),
            None => {
                let (kind, reason) = (AckKind::Pubrel, Reason::Success);
                encode::ack(&mut out.bytes, self.peer, kind, packet_id, reason, Explanation::NONE);
            }
        }
        let released = message.is_none();
        let shared = Some(Box::new(Shared { message, expires_at, subscription }));
        self.held.insert(packet_id, Held { delivery, qos: Qos::ExactlyOnce, released, shared });
    }

    fn send_again(
        &mut self,
        packet_id: u16,
        message: &Message,
        expiry: Option<u32>,
        subscription: Subscription,
        out: &mut Chunk,
    ) {
        let converted;
        let (flags, _, block) = match message.facts().origin {
            Origin::Mqtt => flags::read(message.properties()),
            Origin::Amqp091 => {
                converted = convert::outgoing(&self.dialects, message);
                (converted.flags, 0, &*converted.properties)
            }
        };
        debug_assert_eq!(flags & MQTT_QOS, Qos::ExactlyOnce.bits(), "only those are parked");
        let mut topic = String::new();
        topic::append_topic(message.routing_key(), &mut topic);
        let granted = Granted::alone(subscription);
        let packet = encode::Delivery {
            dup: true,
            qos: Qos::ExactlyOnce,
            retain: granted.retain_as_published && flags & flags::RETAIN != 0,
            packet_id,
            topic: &topic,
            properties: block,
            alias: None,
            expiry,
            identifiers: &granted.identifiers,
            payload: message.body(),
        };
        put(out, self.peer.version, &packet, message);
    }
}
