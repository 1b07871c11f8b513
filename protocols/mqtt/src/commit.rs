//! What was gathered from the input happens: publishes reach their queues, settlements theirs, answers leave or
//! start to wait.

use portolan_core::broker::Batch;

use crate::codec::encode::{self, Explanation};
use crate::codec::{AckKind, Version};
use crate::engine::Connection;
use crate::reason::Reason;
use crate::work::Work;

/// Milliseconds between two log lines of a connection about a store that takes nothing.
const COMPLAIN_EVERY: u64 = 1_000;

impl Connection {
    /// Carries out what was gathered.
    pub(crate) fn commit(&mut self, work: &mut Work) {
        if !work.batch.is_empty() || !work.unanswered.is_empty() || work.arrived {
            self.publish_batch(work);
        }
        if !work.releases.is_empty() {
            self.release_batch(work);
        }
        if !work.settlements.is_empty() {
            self.broker.settle(&work.settlements, self.now, &mut work.effects);
            self.broker.counters.delivered.acknowledged.add(work.settlements.len() as u64);
            work.settlements.clear();
            self.resume_stalled(work);
        }
        self.broker.carry_out(&mut work.effects, self.now);
        self.count(work);
        if let Some(error) = work.effects.store_error.take()
            && self.now >= self.complained_at + COMPLAIN_EVERY
        {
            self.complained_at = self.now;
            tracing::warn!(client = self.client(), %error, "the store did not take everything");
        }
    }

    fn publish_batch(&mut self, work: &mut Work) {
        work.effects.persisted = false;
        self.publish_once(work);
        let persisted = work.effects.persisted | std::mem::take(&mut work.persisted);
        // A session that is full drops what comes by a rule that its owner has set; a store that is full must not be
        // taken for one that has the message.
        if work.effects.store_error.is_some() {
            for tag in &work.effects.refused {
                let at = (*tag as usize).checked_sub(1);
                if let Some(one) = at.and_then(|at| work.unanswered.get_mut(at)) {
                    one.reason = Reason::QuotaExceeded;
                }
            }
        }
        self.broker.counters.mqtt_delivered.dropped.add(work.effects.refused.len() as u64);
        work.effects.refused.clear();
        if work.unanswered.is_empty() {
            return;
        }
        self.free_refused(work);
        // The last index given out so far covers everything that this batch wrote.
        let durable = persisted.then(|| self.broker.journal.last());
        let mut inner = self.outbox.lock();
        let (deliveries, out) = inner.parts();
        for one in work.unanswered.drain(..) {
            if one.reason.is_error() && self.version != Version::V5 && one.reason == Reason::QuotaExceeded {
                // 3.x has no word for it: without an answer the client keeps the message and sends it again.
                continue;
            }
            deliveries.answer(out, durable, one.kind, one.packet_id, one.reason);
        }
    }

    /// Publishes what was gathered. Packet ids of QoS 2 messages are in the journal together with the messages or not at
    /// all: alone, they would make the sender's next attempt a second copy, or the only one look like it.
    fn publish_once(&mut self, work: &mut Work) {
        let arrived = std::mem::take(&mut work.arrived);
        let (Some(vhost), Some(session)) = (&self.vhost, self.session.as_ref().filter(|_| arrived)) else {
            return self.broker.publish(&mut work.batch, self.now, &mut work.effects);
        };
        let durable = self.promise.expiry > 0;
        let _unit = durable.then(|| self.broker.journal.unit());
        match self.broker.note_received(vhost, session) {
            Ok(()) => {
                work.persisted |= durable;
                self.broker.publish(&mut work.batch, self.now, &mut work.effects);
            }
            Err(error) => {
                // None of them was taken.
                work.batch = Batch::default();
                work.unanswered.iter_mut().for_each(|one| one.reason = Reason::QuotaExceeded);
                work.effects.store_error = Some(error);
            }
        }
    }

    /// A QoS 2 message that was not taken leaves its packet id free: the next one under it is not a second copy
    /// [MQTT-4.3.3-9].
    fn free_refused(&self, work: &mut Work) {
        let (Some(vhost), Some(session)) = (&self.vhost, &self.session) else { return };
        for one in work.unanswered.iter().filter(|one| one.kind == AckKind::Pubrec && one.reason.is_error()) {
            if let Err(error) = self.broker.complete(vhost, session, one.packet_id) {
                work.effects.store_error = Some(error);
            }
        }
    }

    /// PUBREL goes out once it is certain that the message will not be sent again.
    fn release_batch(&mut self, work: &mut Work) {
        if self.promise.expiry > 0 {
            let deliveries: Vec<_> = work.releases.iter().map(|(_, delivery)| *delivery).collect();
            work.effects.persisted = false;
            let earlier = work.effects.store_error.take();
            self.broker.release(&deliveries, self.now, &mut work.effects);
            if work.effects.store_error.is_some() {
                // Without PUBREL the client says it again when it comes back.
                work.releases.clear();
                return;
            }
            work.effects.store_error = earlier;
        }
        let durable = std::mem::take(&mut work.effects.persisted).then(|| self.broker.journal.last());
        let mut inner = self.outbox.lock();
        let (deliveries, out) = inner.parts();
        for (packet_id, _) in work.releases.drain(..) {
            match durable {
                None => {
                    let (peer, kind) = (deliveries.peer, AckKind::Pubrel);
                    encode::ack(&mut out.bytes, peer, kind, packet_id, Reason::Success, Explanation::NONE);
                }
                index => deliveries.answer(out, index, AckKind::Pubrel, packet_id, Reason::Success),
            }
        }
    }

    /// Consumers for which there was no place in the window, or no packet id, have another look.
    fn resume_stalled(&mut self, work: &mut Work) {
        if self.parked
            && let Some(session) = self.session.clone()
        {
            self.unpark(&session);
        }
        let stalled = std::mem::take(&mut self.outbox.lock().sessions.stalled);
        if !stalled.is_empty() {
            self.broker.resume(&stalled, self.now, &mut work.effects);
        }
    }

    fn count(&mut self, work: &mut Work) {
        let counters = &self.broker.counters;
        let received = &counters.mqtt_received;
        received.packets.add(std::mem::take(&mut work.packets));
        received.bytes.add(std::mem::take(&mut work.bytes));
        received.denied.add(std::mem::take(&mut work.denied));
        counters.mqtt_delivered.dropped.add(std::mem::take(&mut work.effects.missed));
        let mut sum = 0;
        for (counter, count) in received.messages.iter().zip(&mut work.received) {
            sum += *count;
            counter.add(std::mem::take(count));
        }
        if sum > 0 {
            received.payload_bytes.add(std::mem::take(&mut work.payload_bytes));
            counters.published.received.add(sum);
            counters.published.routed.add(std::mem::take(&mut work.routed));
            counters.published.unroutable_dropped.add(std::mem::take(&mut work.unroutable));
        }
    }
}
