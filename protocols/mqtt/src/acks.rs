//! PUBACK, PUBREC, PUBREL and PUBCOMP from the client.

use portolan_core::delivery::{Outcome, Settlement};
use portolan_core::engine::Ask;

use crate::codec::decode::Ack;
use crate::codec::encode::{self, Explanation};
use crate::codec::{AckKind, Qos, Version};
use crate::deliveries::Held;
use crate::engine::Connection;
use crate::reason::Reason;
use crate::work::Work;

impl Connection {
    /// Takes a word on a message. Ends nothing: packet ids that we do not know are answered or passed over.
    pub(crate) fn acknowledged(&mut self, ack: &Ack<'_>, work: &mut Work) -> Option<Ask> {
        match ack.kind {
            AckKind::Puback => self.settle(ack, Qos::AtLeastOnce, work),
            AckKind::Pubcomp => self.settle(ack, Qos::ExactlyOnce, work),
            AckKind::Pubrec => self.received(ack, work),
            AckKind::Pubrel => self.released(ack, work),
        }
        None
    }

    /// A delivery is over.
    fn settle(&mut self, ack: &Ack<'_>, qos: Qos, work: &mut Work) {
        let held = {
            let mut inner = self.outbox.lock();
            let held = &mut inner.sessions.held;
            let known = held.get(&ack.packet_id).is_some_and(|held| held.qos == qos);
            if known { held.remove(&ack.packet_id) } else { None }
        };
        if let Some(Held { delivery, .. }) = held {
            // An error in it ends the message all the same [MQTT-4.4.0-2].
            work.settlements.push(Settlement { delivery, outcome: Outcome::Accepted });
        }
    }

    /// PUBREC: the client has the message, and it must not be sent again.
    fn received(&mut self, ack: &Ack<'_>, work: &mut Work) {
        let mut inner = self.outbox.lock();
        let (deliveries, out) = inner.parts();
        let known = deliveries.held.get_mut(&ack.packet_id).filter(|held| held.qos == Qos::ExactlyOnce);
        let Some(held) = known else {
            // What the client asks about is over for us; in 5.0 it can be told so.
            let (peer, reason) = (deliveries.peer, Reason::PacketIdentifierNotFound);
            encode::ack(&mut out.bytes, peer, AckKind::Pubrel, ack.packet_id, reason, Explanation::NONE);
            return;
        };
        if ack.reason.is_error() {
            let delivery = held.delivery;
            deliveries.held.remove(&ack.packet_id);
            work.settlements.push(Settlement { delivery, outcome: Outcome::Accepted });
            return;
        }
        held.released = true;
        if let Some(shared) = &mut held.shared {
            shared.message = None;
        }
        work.releases.push((ack.packet_id, held.delivery));
    }

    /// PUBREL: the sender of a QoS 2 message lets go of its packet id.
    fn released(&mut self, ack: &Ack<'_>, work: &mut Work) {
        // A publish with the same id may be in the batch.
        if !work.unanswered.is_empty() {
            self.commit(work);
        }
        let (Some(vhost), Some(session)) = (&self.vhost, &self.session) else { return };
        let known = match self.broker.complete(vhost, session, ack.packet_id) {
            Ok(known) => known,
            Err(error) => {
                // Unanswered, the client asks again.
                work.effects.store_error = Some(error);
                return;
            }
        };
        let reason = match known || self.version != Version::V5 {
            true => Reason::Success,
            false => Reason::PacketIdentifierNotFound,
        };
        // Should we forget after a crash that the id is free, a new message under it would be taken for the old one.
        let durable = (known && self.promise.expiry > 0).then(|| self.broker.journal.last());
        let mut inner = self.outbox.lock();
        let (deliveries, out) = inner.parts();
        deliveries.answer(out, durable, AckKind::Pubcomp, ack.packet_id, reason);
    }
}
