//! What happens to a queue apart from publishing and settling: consumers come and go, messages expire, bodies
//! are read back, records move, and the queue ends.

use std::sync::Arc;

use crate::consumer::Consumer;
use crate::delivery::SharedCredit;
use crate::effect::{Context, Reason};
use crate::message::Message;
use crate::queue::Queue;
use crate::ready::{Entry, Ready};
use crate::store::{Appended, Content, Journal, Position, QueueId, Record, SeqRange, StoreError};

/// Marks the id under which a transient message of a queue is paged out: recovery knows no queue of that id and
/// drops what it finds there.
const SHADOW: u64 = 1 << 63;

impl QueueId {
    /// The id for records that do not outlive the process.
    pub fn shadow(self) -> Self {
        Self(self.0 | SHADOW)
    }

    /// The queue that a record belongs to, paged out or persistent.
    pub fn owner(self) -> Self {
        Self(self.0 & !SHADOW)
    }

    /// The record does not outlive the process.
    pub fn is_shadow(self) -> bool {
        self.0 & SHADOW != 0
    }
}

/// Stores a transient message until it is wanted, so that it need not stay in memory.
pub(crate) fn shadow(
    target: crate::exchange::QueueTarget,
    seq: u64,
    message: &Message,
    cx: &mut Context<'_>,
) -> Option<Position> {
    append(target.id.shadow(), seq, 0, message, cx).map_err(|error| cx.effects.store_error = Some(error)).ok()
}

/// Writes down that a message is in a queue: with its content, unless another record has that already.
pub(crate) fn append(
    queue: QueueId,
    seq: u64,
    expires_at: u64,
    message: &Message,
    cx: &Context<'_>,
) -> Result<Position, StoreError> {
    append_to(cx.journal, queue, seq, expires_at, message).map(|appended| appended.position)
}

/// As [`append`], for who is no queue.
pub(crate) fn append_to(
    journal: &dyn Journal,
    queue: QueueId,
    seq: u64,
    expires_at: u64,
    message: &Message,
) -> Result<Appended, StoreError> {
    let write = |content| journal.append(&Record::Enqueued { queue, seq, expires_at, content });
    if let Some(position) = message.stored() {
        match write(Content::At(position)) {
            // The other record is about to go: this one keeps the content itself.
            Err(StoreError::Missing(_)) => {}
            appended => return appended,
        }
    }
    let appended = write(Content::Inline(message))?;
    message.set_stored(appended.position);
    Ok(appended)
}

/// Writes down that a message has been taken over. The mark stays in the journal no longer than what comes after it,
/// so a record that is moved has it written anew behind it.
pub(crate) fn note_released(queue: QueueId, seq: u64, cx: &Context<'_>) -> Result<(), StoreError> {
    let ranges = [SeqRange { first: seq, count: 1 }];
    cx.journal.append(&Record::Released { queue, ranges: &ranges }).map(drop)
}

/// Sorts sequence numbers into ranges.
pub fn ranges(seqs: &mut [u64]) -> Vec<SeqRange> {
    seqs.sort_unstable();
    let mut ranges: Vec<SeqRange> = Vec::new();
    for &seq in seqs.iter() {
        match ranges.last_mut() {
            Some(last) if last.first + last.count == seq => last.count += 1,
            _ => ranges.push(SeqRange { first: seq, count: 1 }),
        }
    }
    ranges
}

impl Queue {
    /// Adds a consumer and serves it.
    pub fn subscribe(&mut self, consumer: Consumer, cx: &mut Context<'_>) -> u32 {
        self.used_at = cx.now;
        self.consumers.add(consumer)
    }

    /// Removes a consumer; its unsettled deliveries stay with its session. True when it was the last one of a queue
    /// that goes with its last consumer.
    pub fn unsubscribe(&mut self, key: u32, cx: &mut Context<'_>) -> bool {
        let was = self.consumers.remove(key).is_some();
        self.used_at = cx.now;
        self.dispatch(cx);
        was && self.consumers.is_empty() && self.identity.auto_delete
    }

    /// A consumer's outbox or shared window has room again.
    pub fn resume(&mut self, key: u32, cx: &mut Context<'_>) {
        self.consumers.resume(key);
        self.dispatch(cx);
    }

    /// A consumer shares a window from now on.
    pub fn share_credit(&mut self, key: u32, shared: Arc<SharedCredit>) {
        self.consumers.share(key, shared);
    }

    /// Bodies that were asked for are here, or cannot be read and are lost.
    /// Returns how many are lost.
    pub fn loaded(&mut self, bodies: Vec<(u64, Result<Message, StoreError>)>, cx: &mut Context<'_>) -> u64 {
        let mut lost = 0;
        let before: usize = self.levels.iter().map(Ready::memory).sum();
        for (seq, body) in bodies {
            self.departing.answered(seq);
            self.levels.iter_mut().for_each(|level| level.answered(seq));
            match body {
                Ok(message) => self.arrive(seq, message, cx),
                Err(error) => match self.reread(seq, cx) {
                    Some(message) => self.arrive(seq, message, cx),
                    None => {
                        lost += u64::from(self.lose(seq, cx));
                        cx.effects.store_error = Some(error);
                    }
                },
            }
        }
        self.read_departing(cx);
        let after: usize = self.levels.iter().map(Ready::memory).sum();
        cx.effects.memory += after as i64 - before as i64;
        self.expire(cx);
        self.dispatch(cx);
        lost
    }

    /// Reads a body from where its record is now: the journal may have moved it between the request and the read.
    /// While the shard is locked it stays there.
    fn reread(&self, seq: u64, cx: &Context<'_>) -> Option<Message> {
        let mut found = None;
        cx.journal.read(&[self.position(seq)?], &mut |_, read| found = read.ok());
        found
    }

    fn arrive(&mut self, seq: u64, message: Message, cx: &mut Context<'_>) {
        if self.departs(seq, &message, cx) {
            return;
        }
        for level in &mut self.levels {
            if level.fill(seq, message.clone()) {
                self.ready_bytes += message.body().len() as u64;
                return;
            }
        }
    }

    /// The body of that message is damaged: it leaves the queue, and the caller tells the operator.
    fn lose(&mut self, seq: u64, cx: &mut Context<'_>) -> bool {
        let found = self.departing.lose(seq);
        let found = found.or_else(|| self.levels.iter_mut().find_map(|level| level.remove(seq)));
        if let Some(entry) = &found {
            self.forget(entry, cx);
        }
        found.is_some()
    }

    /// Removes expired messages from the front of each level. A message behind one that lives longer waits, as
    /// RabbitMQ's classic queues have it.
    pub fn expire(&mut self, cx: &mut Context<'_>) {
        if !self.timed {
            return;
        }
        for level in 0..self.levels.len() {
            self.levels[level].bring_head();
            while self.levels[level].front().is_some_and(|entry| self.is_expired(entry, cx.now)) {
                let Some(entry) = self.take(level, cx) else {
                    break;
                };
                self.depart(entry, Reason::Expired, cx);
                self.levels[level].bring_head();
            }
        }
    }

    /// When something must be done next: a message or the queue itself expires. Milliseconds since the epoch.
    pub fn deadline(&self) -> Option<u64> {
        if !self.timed {
            return None;
        }
        let leaves = |level: &&Ready| !level.front().is_some_and(|entry| self.stays(entry));
        let message = self.levels.iter().filter(leaves).map(Ready::front_expires_at).filter(|&at| at != 0).min();
        let own = self.identity.options.expires.map(|after| self.used_at + after);
        message.into_iter().chain(own.filter(|_| self.consumers.is_empty())).min()
    }

    /// The queue has not been used for its expiry time.
    pub fn is_idle(&self, now: u64) -> bool {
        let expires = self.identity.options.expires;
        expires.is_some_and(|after| self.consumers.is_empty() && self.used_at + after <= now)
    }

    /// Removes every ready message and returns how many there were.
    pub fn purge(&mut self, cx: &mut Context<'_>) -> usize {
        let mut count = 0;
        for level in 0..self.levels.len() {
            cx.effects.memory -= self.levels[level].memory() as i64;
            let entries = self.levels[level].drain();
            count += entries.len();
            entries.iter().for_each(|entry| self.forget(entry, cx));
        }
        self.ready_bytes = 0;
        count
    }

    /// The queue ends: everything in it goes, and its consumers are told. Returns the ready messages lost.
    pub fn end(mut self, cx: &mut Context<'_>) -> usize {
        let ready = self.ready();
        let mut freed: Vec<Position> = Vec::new();
        for level in &mut self.levels {
            cx.effects.memory -= level.memory() as i64;
            freed.extend(level.drain().iter().filter_map(|entry| entry.position));
        }
        freed.extend(self.unsettled.drain().filter_map(|unsettled| unsettled.entry.position));
        freed.extend(self.departing.drain());
        if self.identity.durable || !freed.is_empty() {
            let record = Record::Dropped { queue: self.identity.target.id, freed: &freed };
            if let Err(error) = cx.journal.append(&record) {
                cx.effects.store_error = Some(error);
            }
        }
        for consumer in self.consumers.drain() {
            consumer.recipient.cancelled(consumer.session, consumer.number);
            cx.touch(&consumer.recipient);
        }
        ready
    }

    /// Ready messages that carry the redelivered mark, for a clean stop.
    pub fn redelivered(&mut self) -> Vec<u64> {
        let all = self.levels.iter_mut().flat_map(Ready::drain);
        let held = self.unsettled.drain().map(|held| Entry { redelivered: true, ..held.entry });
        all.chain(held).filter(|entry| entry.redelivered && entry.position.is_some()).map(|e| e.seq).collect()
    }
}
