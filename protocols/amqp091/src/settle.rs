//! Acknowledgements, recovery, and what happens to unsettled deliveries when a channel ends.

use portolan_core::delivery::Outcome;

use crate::channel::{Mode, TxAcknowledgement};
use crate::codec::method::Acknowledgement;
use crate::commit::give_back;
use crate::deliveries::{Held, settlement};
use crate::engine::Connection;
use crate::refusal::Failure;

/// What nack and reject mean.
pub(crate) fn refused(requeue: bool) -> Outcome {
    if requeue { Outcome::Released } else { Outcome::Rejected }
}

impl Connection {
    /// basic.ack, nack and reject.
    pub(crate) fn acknowledge(&mut self, key: u32, ack: Acknowledgement, outcome: Outcome) -> Result<(), Failure> {
        let Some(channel) = self.channels.get_mut(key as usize) else { return Ok(()) };
        let mut inner = self.outbox.lock();
        let Some(session) = inner.sessions.session(channel.session) else { return Ok(()) };
        let (tag, multiple) = (ack.delivery_tag, ack.multiple);
        let taken = match &mut channel.mode {
            Mode::Transaction(transaction) => {
                let mut held = Vec::new();
                let taken = session.tags.take(tag, multiple, |tag, one| held.push((tag, one)));
                transaction.acknowledgements.push(TxAcknowledgement { held, outcome });
                taken
            }
            Mode::Plain | Mode::Confirm(_) => {
                let settlements = &mut self.settlements;
                let before = settlements.len();
                let mut consumers = 0;
                let taken = session.tags.take(tag, multiple, |_, held: Held| {
                    consumers += u32::from(held.consumer);
                    settlements.push(settlement(held, outcome));
                });
                give_back(channel.shared.as_deref(), consumers);
                self.tally.acknowledged += (settlements.len() - before) as u64;
                taken
            }
        };
        self.stalled.append(&mut session.stalled);
        taken.ok_or_else(|| Failure::channel(406, format!("unknown delivery tag {tag}")))
    }

    /// basic.recover: everything unsettled on the channel goes back to its queue.
    pub(crate) fn recover(&mut self, key: u32, requeue: bool) -> Result<(), Failure> {
        if !requeue {
            return Err(Failure::connection(540, "requeue=false"));
        }
        self.release_held(key);
        self.commit();
        Ok(())
    }

    /// Gathers settlements that give back everything that the channel holds.
    fn release_held(&mut self, key: u32) {
        let Some(channel) = self.channels.get_mut(key as usize) else { return };
        let mut inner = self.outbox.lock();
        let Some(session) = inner.sessions.session(channel.session) else { return };
        let mut consumers = 0;
        let settlements = &mut self.settlements;
        // Tag 0 with multiple takes all there is.
        let _ = session.tags.take(0, true, |_, held: Held| {
            consumers += u32::from(held.consumer);
            settlements.push(settlement(held, Outcome::Released));
        });
        self.stalled.append(&mut session.stalled);
        drop(inner);
        if let Mode::Transaction(transaction) = &mut channel.mode {
            let held = transaction.acknowledgements.drain(..).flat_map(|one| one.held);
            settlements.extend(held.map(|(_, held)| settlement(held, Outcome::Released)));
        }
        give_back(channel.shared.as_deref(), consumers);
    }

    /// A channel ends: its consumers leave, what it held goes back, what it had not committed is forgotten.
    pub(crate) fn give_back_channel(&mut self, key: u32) {
        self.drop_cancelled();
        let Some(channel) = self.channels.get_mut(key as usize) else { return };
        channel.incoming = None;
        channel.reply_queue = None;
        let consumers = std::mem::take(&mut channel.consumers);
        let session = channel.session;
        for consumer in consumers.into_values() {
            self.broker.unsubscribe(consumer.at, self.now, &mut self.effects);
            self.outbox.lock().sessions.remove_consumer(consumer.number);
        }
        // The consumers went first, so that nothing comes back to them.
        self.release_held(key);
        if let Some(channel) = self.channels.get_mut(key as usize) {
            channel.mode = Mode::Plain;
        }
        if let Some(session) = self.outbox.lock().sessions.session(session) {
            session.confirms = Default::default();
        }
        self.commit();
    }
}
