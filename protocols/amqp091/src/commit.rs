//! What was gathered from the input happens: publishes reach their queues, settlements theirs, confirms leave or
//! start to wait.

use portolan_core::delivery::SharedCredit;

use crate::channel::Mode;
use crate::codec::encode;
use crate::engine::Connection;

/// Milliseconds between two log lines of a connection about a store that takes nothing.
const COMPLAIN_EVERY: u64 = 1_000;

/// What a batch adds to the counters.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) received: u64,
    pub(crate) received_confirm: u64,
    pub(crate) routed: u64,
    pub(crate) returned: u64,
    pub(crate) dropped: u64,
    pub(crate) acknowledged: u64,
}

impl Connection {
    /// Carries out the batch.
    pub(crate) fn commit(&mut self) {
        if !self.batch.is_empty() || !self.confirming.is_empty() {
            self.publish_batch();
        }
        if !self.settlements.is_empty() {
            self.broker.settle(&self.settlements, self.now, &mut self.effects);
            self.settlements.clear();
            self.resume_sharers();
        }
        if !self.stalled.is_empty() {
            self.broker.resume(&self.stalled, self.now, &mut self.effects);
            self.stalled.clear();
        }
        self.broker.carry_out(&mut self.effects, self.now);
        self.count();
        if let Some(error) = self.effects.store_error.take()
            && self.now >= self.complained_at + COMPLAIN_EVERY
        {
            self.complained_at = self.now;
            tracing::warn!(%error, "the store did not take everything; what it refused was answered with nack");
        }
    }

    fn publish_batch(&mut self) {
        self.effects.persisted = false;
        self.broker.publish(&mut self.batch, self.now, &mut self.effects);
        // The last index given out so far covers everything that this batch wrote.
        let persisted = self.effects.persisted | std::mem::take(&mut self.retained);
        let durable = persisted.then(|| self.broker.journal.last());
        let refused = self.refuse_publishes();
        if self.confirming.is_empty() {
            return;
        }
        let mut inner = self.outbox.lock();
        let (deliveries, out) = inner.parts();
        let mut confirmed = 0;
        for key in self.confirming.drain(..) {
            let Some(channel) = self.channels.get(key as usize) else { continue };
            let Mode::Confirm(number) = channel.mode else { continue };
            let Some(session) = deliveries.session(channel.session) else { continue };
            let first = session.confirmed + 1;
            confirmed += number - session.confirmed;
            session.confirmed = number;
            // The last one that was not refused; none when all were, or the channel has had its turn.
            let taken = |number: &u64| refused.binary_search(&(key, *number)).is_err();
            let Some(number) = (first..=number).rev().find(taken) else { continue };
            match durable {
                Some(index) => session.confirms.wait(number, index),
                // Earlier ones wait for the journal: this one joins them rather than overtaking.
                None if !session.confirms.is_empty() => session.confirms.wait(number, 0),
                None => session.confirms.confirm(number, channel.number, out),
            }
        }
        drop(inner);
        self.broker.counters.published.confirmed.add(confirmed);
        self.tags.clear();
    }

    /// Publishes that a queue refused are answered with nack; the ack that follows does not cover them any more.
    /// Returns them, sorted: channel key and number.
    fn refuse_publishes(&mut self) -> Vec<(u32, u64)> {
        let mut refused = Vec::new();
        if self.effects.refused.is_empty() {
            return refused;
        }
        self.effects.refused.sort_unstable();
        self.effects.refused.dedup();
        let mut inner = self.outbox.lock();
        for tag in self.effects.refused.drain(..) {
            let Some(&(key, number)) = (tag as usize).checked_sub(1).and_then(|at| self.tags.get(at)) else { continue };
            let Some(channel) = self.channels.get(key as usize) else { continue };
            encode::nack(&mut inner.out().bytes, channel.number, number, false);
            refused.push((key, number));
        }
        refused.sort_unstable();
        refused
    }

    /// Consumers that share a window may go on after settlements, in whatever queue they are.
    pub(crate) fn resume_sharers(&mut self) {
        for (_, channel) in &self.channels {
            if channel.shared.is_some() {
                let consumers: Vec<_> = channel.consumers.values().map(|consumer| consumer.at).collect();
                self.broker.resume(&consumers, self.now, &mut self.effects);
            }
        }
    }

    fn count(&mut self) {
        let tally = std::mem::take(&mut self.tally);
        if tally.received > 0 {
            let published = &self.broker.counters.published;
            published.received.add(tally.received);
            published.received_confirm.add(tally.received_confirm);
            published.routed.add(tally.routed);
            published.unroutable_returned.add(tally.returned);
            published.unroutable_dropped.add(tally.dropped);
        }
        self.broker.counters.delivered.acknowledged.add(tally.acknowledged);
    }
}

/// Gives places in a shared window back.
pub(crate) fn give_back(shared: Option<&SharedCredit>, count: u32) {
    if let (Some(shared), true) = (shared, count > 0) {
        shared.give_back(count);
    }
}
