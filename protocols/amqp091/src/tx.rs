//! The tx class: publishes and acknowledgements that wait for a commit.

use portolan_core::delivery::{Settlement, SharedCredit};
use portolan_core::message::Message;

use crate::channel::{Mode, Transaction};
use crate::codec::encode::{self, Content, ServerMethod};
use crate::deliveries::{Held, settlement};
use crate::engine::Connection;
use crate::refusal::Failure;

type Done = Result<(), Failure>;

fn not_transactional() -> Failure {
    Failure::channel(406, "channel is not transactional")
}

impl Connection {
    pub(crate) fn tx_select(&mut self, key: u32) -> Done {
        let Some(channel) = self.channels.get_mut(key as usize) else { return Ok(()) };
        match channel.mode {
            Mode::Plain => channel.mode = Mode::Transaction(Box::default()),
            Mode::Transaction(_) => {}
            Mode::Confirm(_) => return Err(Failure::channel(406, "cannot switch from confirm to tx mode")),
        }
        let number = channel.number;
        self.say(number, ServerMethod::TxSelectOk);
        Ok(())
    }

    /// Takes what was gathered since the last commit.
    fn take_transaction(&mut self, key: u32) -> Result<Transaction, Failure> {
        let channel = self.channels.get_mut(key as usize).ok_or_else(not_transactional)?;
        match &mut channel.mode {
            Mode::Transaction(transaction) => Ok(std::mem::take(transaction)),
            Mode::Plain | Mode::Confirm(_) => Err(not_transactional()),
        }
    }

    /// Everything happens, and commit-ok follows once the persistent part is durable.
    pub(crate) fn tx_commit(&mut self, key: u32) -> Done {
        let transaction = self.take_transaction(key)?;
        let Some(channel) = self.channels.get(key as usize) else { return Ok(()) };
        let (number, shared) = (channel.number, channel.shared.clone());
        for message in &transaction.returns {
            self.return_message(number, message);
        }
        for (targets, message) in transaction.publishes {
            self.tally.routed += 1;
            self.batch.add(&targets, message, 0);
        }
        let settlements = acknowledged(transaction.acknowledgements, shared.as_deref());
        self.tally.acknowledged += settlements.len() as u64;
        self.settlements.extend(settlements);
        let acknowledges = !self.settlements.is_empty();
        self.effects.persisted = false;
        {
            // After a crash, all of the transaction has happened, or nothing.
            let _unit = self.broker.journal.unit();
            self.broker.publish(&mut self.batch, self.now, &mut self.effects);
            self.broker.settle(&self.settlements, self.now, &mut self.effects);
        }
        let refused = !self.effects.refused.is_empty();
        self.effects.refused.clear();
        let persisted = self.effects.persisted;
        self.settlements.clear();
        if acknowledges {
            self.resume_sharers();
        }
        self.commit();
        if refused {
            return Err(Failure::channel(406, "partial tx completion"));
        }
        let durable = (persisted || acknowledges).then(|| self.broker.journal.last());
        self.say_durably(number, ServerMethod::TxCommitOk, durable);
        Ok(())
    }

    /// Publishes are dropped; what was acknowledged is held again, and stays with the client.
    pub(crate) fn tx_rollback(&mut self, key: u32) -> Done {
        let transaction = self.take_transaction(key)?;
        let Some(channel) = self.channels.get(key as usize) else { return Ok(()) };
        let (number, session) = (channel.number, channel.session);
        {
            let mut inner = self.outbox.lock();
            if let Some(session) = inner.sessions.session(session) {
                let held = transaction.acknowledgements.into_iter().flat_map(|one| one.held);
                session.tags.hold_again(held);
            }
        }
        self.say(number, ServerMethod::TxRollbackOk);
        Ok(())
    }

    fn return_message(&mut self, number: u16, message: &Message) {
        self.tally.returned += 1;
        let mut names = Vec::new();
        encode::put_names(&mut names, message.exchange(), message.routing_key());
        let content = Content { names: &names, properties: message.properties(), body: message.body() };
        let mut inner = self.outbox.lock();
        let (deliveries, out) = inner.parts();
        encode::basic_return(&mut out.bytes, number, 312, "NO_ROUTE", content, deliveries.frame_max());
    }
}

fn acknowledged(
    acknowledgements: Vec<crate::channel::TxAcknowledgement>,
    shared: Option<&SharedCredit>,
) -> Vec<Settlement> {
    let mut settlements = Vec::new();
    for one in acknowledgements {
        let consumers = one.held.iter().filter(|(_, held)| held.consumer).count() as u32;
        crate::commit::give_back(shared, consumers);
        settlements.extend(one.held.into_iter().map(|(_, held): (u64, Held)| settlement(held, one.outcome)));
    }
    settlements
}
