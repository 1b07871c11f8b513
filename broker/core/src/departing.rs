//! Messages that leave their queue for its dead-letter exchange: until they have got there they are still the queue's,
//! so that the journal does not discard them in between.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::effect::{Context, DeadLetter, Fetch, Reason};
use crate::message::Message;
use crate::queue::Queue;
use crate::ready::Entry;
use crate::store::Position;

/// Bodies asked for at once.
const BODIES: usize = 512;

/// Stored messages on their way out, by sequence number.
#[derive(Debug, Default)]
pub(crate) struct Departing {
    /// Their bodies have to be read first.
    waiting: BTreeMap<u64, (Entry, Reason)>,
    /// The first of those that have been asked for and are not here yet.
    asked: Option<u64>,
    /// Handed to the dead-letter exchange; their records are not settled yet.
    handed: BTreeMap<u64, Position>,
}

impl Departing {
    /// Where the record of a message is.
    pub(crate) fn position(&self, seq: u64) -> Option<Position> {
        let waiting = || self.waiting.get(&seq).and_then(|(entry, _)| entry.position);
        self.handed.get(&seq).copied().or_else(waiting)
    }

    /// The journal moved a record.
    pub(crate) fn relocate(&mut self, seq: u64, to: Position) {
        if let Some(position) = self.handed.get_mut(&seq) {
            *position = to;
        } else if let Some((entry, _)) = self.waiting.get_mut(&seq) {
            entry.position = Some(to);
        }
    }

    /// The bodies that are missing next, unless some have been asked for.
    fn wanted(&mut self) -> Vec<(u64, Position)> {
        if self.asked.is_some() {
            return Vec::new();
        }
        let missing = self.waiting.iter().take(BODIES);
        let wanted: Vec<_> = missing.filter_map(|(&seq, (entry, _))| entry.position.map(|at| (seq, at))).collect();
        self.asked = wanted.first().map(|&(seq, _)| seq);
        wanted
    }

    /// A body that was asked for is here, or cannot be read.
    pub(crate) fn answered(&mut self, seq: u64) {
        if self.asked == Some(seq) {
            self.asked = None;
        }
    }

    /// Takes out a message that is lost.
    pub(crate) fn lose(&mut self, seq: u64) -> Option<Entry> {
        self.waiting.remove(&seq).map(|(entry, _)| entry)
    }

    /// Takes everything out and tells the places.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = Position> {
        let Self { waiting, handed, .. } = std::mem::take(self);
        waiting.into_values().filter_map(|(entry, _)| entry.position).chain(handed.into_values())
    }
}

impl Queue {
    /// The message leaves unaccepted: to the dead-letter exchange if there is one.
    pub(crate) fn depart(&mut self, mut entry: Entry, reason: Reason, cx: &mut Context<'_>) {
        if self.identity.options.dead_letter.is_none() {
            return self.forget(&entry, cx);
        }
        match (entry.message.take(), entry.position) {
            (Some(message), position) => {
                self.hand_on(message, reason, position.map(|position| (entry.seq, position)), cx);
            }
            (None, Some(_)) => {
                self.departing.waiting.insert(entry.seq, (entry, reason));
                self.read_departing(cx);
            }
            (None, None) => {}
        }
    }

    /// Asks for bodies of messages on their way out, a limited number at once.
    pub(crate) fn read_departing(&mut self, cx: &mut Context<'_>) {
        let entries = self.departing.wanted();
        if !entries.is_empty() {
            cx.effects.fetches.push(Fetch { queue: self.identity.target, entries });
        }
    }

    /// A body arrived: says whether the message was waiting for it to leave.
    pub(crate) fn departs(&mut self, seq: u64, message: &Message, cx: &mut Context<'_>) -> bool {
        let Some((entry, reason)) = self.departing.waiting.remove(&seq) else { return false };
        self.hand_on(message.clone(), reason, entry.position.map(|position| (seq, position)), cx);
        true
    }

    /// Hands a message to the dead-letter exchange. If it is stored it stays with the queue until
    /// [`Queue::departed`] is told that it got there: the journal may want to move its record meanwhile.
    pub(crate) fn hand_on(
        &mut self,
        message: Message,
        reason: Reason,
        stored: Option<(u64, Position)>,
        cx: &mut Context<'_>,
    ) {
        let Some(target) = &self.identity.options.dead_letter else { return };
        cx.effects.dead_letters.push(DeadLetter {
            queue: self.identity.target,
            queue_name: Arc::clone(&self.identity.name),
            vhost: Arc::clone(&self.identity.vhost),
            target: target.clone(),
            message,
            reason,
            stored: stored.map(|(seq, _)| seq),
        });
        self.departing.handed.extend(stored);
    }

    /// Dead letters are safe elsewhere: their records here are settled.
    pub fn departed(&mut self, seqs: &[u64], cx: &mut Context<'_>) {
        for &seq in seqs {
            if let Some(position) = self.departing.handed.remove(&seq) {
                cx.effects.settling.seqs.push(seq);
                cx.effects.settling.positions.push(position);
            }
        }
    }
}
