//! A shard: a share of the queues, changed by whoever holds its lock, on commands that come in batches.

use std::collections::{BTreeSet, HashMap};

use slab::Slab;

use crate::delivery::Settlement;
use crate::effect::Context;
use crate::exchange::{Grant, QueueTarget};
use crate::message::Message;
use crate::queue::{Identity, Queue, Refused};
use crate::store::{QueueId, Record};
use crate::upkeep::ranges;

/// A message for one queue of the shard.
pub struct Enqueue {
    /// The queue.
    pub queue: QueueTarget,
    /// What its session wants of it, if it is a session's.
    pub grant: Grant,
    /// The message.
    pub message: Message,
    /// Returned in [`Effects::refused`](crate::effect::Effects::refused) when the queue refuses it.
    pub tag: u32,
}

/// The queues of a shard.
#[derive(Default)]
pub struct Shard {
    /// Boxed, so that growing moves pointers and leaves no large holes.
    queues: Slab<Box<Queue>>,
    /// When to look at which slot, earliest first.
    deadlines: BTreeSet<(u64, u32)>,
    /// The deadline set for each slot.
    set: Vec<u64>,
    /// The slot of each queue.
    slots: HashMap<QueueId, u32, ahash::RandomState>,
}

impl Shard {
    /// Adds a queue and returns its slot.
    pub fn insert(&mut self, now: u64, identity: impl FnOnce(u32) -> Identity) -> u32 {
        let entry = self.queues.vacant_entry();
        let slot = entry.key() as u32;
        let identity = identity(slot);
        self.slots.insert(identity.target.id, slot);
        entry.insert(Box::new(Queue::new(identity, now)));
        self.schedule(slot);
        slot
    }

    /// The queue there, unless it is gone.
    pub fn queue(&mut self, target: QueueTarget) -> Option<&mut Queue> {
        self.queues
            .get_mut(target.slot as usize)
            .map(|queue| &mut **queue)
            .filter(|queue| queue.identity.target.id == target.id)
    }

    /// Where the queue of that id is.
    pub fn find(&self, id: QueueId) -> Option<QueueTarget> {
        let slot = *self.slots.get(&id)?;
        self.queues.get(slot as usize).map(|queue| queue.identity.target)
    }

    /// Every queue, for gauges.
    pub fn queues(&self) -> impl Iterator<Item = &Queue> {
        self.queues.iter().map(|(_, queue)| &**queue)
    }

    /// Every queue, for a stop.
    pub fn queues_mut(&mut self) -> impl Iterator<Item = &mut Queue> {
        self.queues.iter_mut().map(|(_, queue)| &mut **queue)
    }

    /// Publishes a batch.
    pub fn enqueue(&mut self, batch: &mut Vec<Enqueue>, cx: &mut Context<'_>) {
        let mut last: Option<QueueTarget> = None;
        for Enqueue { queue: target, grant, message, tag } in batch.drain(..) {
            if last != Some(target) {
                self.finish(last.take(), cx);
                last = Some(target);
            }
            let Some(queue) = self.queue(target) else {
                continue;
            };
            match queue.enqueue(message, grant, cx) {
                Ok(()) => {}
                // Its publisher can do nothing about a session that lags behind.
                Err(Refused::Full) if grant.is_session() => cx.effects.missed += 1,
                Err(Refused::Full) => cx.effects.refused.push(tag),
                Err(Refused::Store(error)) => {
                    cx.effects.refused.push(tag);
                    cx.effects.store_error = Some(error);
                }
            }
        }
        self.finish(last, cx);
    }

    /// Ends deliveries, then serves the queues that they came from.
    pub fn settle(&mut self, batch: &[Settlement], cx: &mut Context<'_>) {
        let mut rest = batch;
        while let Some(first) = rest.first() {
            let target = first.delivery.queue;
            let run = rest.iter().take_while(|one| one.delivery.queue == target).count();
            let (these, others) = rest.split_at(run);
            rest = others;
            if let Some(queue) = self.queue(target) {
                for one in these {
                    queue.settle(one.delivery.key, one.outcome, cx);
                }
                queue.dispatch(cx);
            }
            self.finish(Some(target), cx);
        }
    }

    /// Does `work` with one queue and writes down what it settled.
    pub fn with<T>(
        &mut self,
        target: QueueTarget,
        cx: &mut Context<'_>,
        work: impl FnOnce(&mut Queue, &mut Context<'_>) -> T,
    ) -> Option<T> {
        let done = work(self.queue(target)?, cx);
        self.finish(Some(target), cx);
        Some(done)
    }

    /// Ends a queue and returns how many ready messages it had.
    pub fn remove(&mut self, target: QueueTarget, cx: &mut Context<'_>) -> Option<usize> {
        self.queue(target)?;
        let queue = self.queues.remove(target.slot as usize);
        self.slots.remove(&target.id);
        if let Some(at) = self.set.get_mut(target.slot as usize) {
            self.deadlines.remove(&(std::mem::take(at), target.slot));
        }
        Some(queue.end(cx))
    }

    /// The earliest time at which [`Shard::tick`] has something to do.
    pub fn next_deadline(&self) -> Option<u64> {
        self.deadlines.first().map(|&(at, _)| at)
    }

    /// Expires what is due.
    pub fn tick(&mut self, cx: &mut Context<'_>) {
        while let Some(&(at, slot)) = self.deadlines.first() {
            if at > cx.now {
                return;
            }
            self.deadlines.pop_first();
            if let Some(set) = self.set.get_mut(slot as usize) {
                *set = 0;
            }
            let Some(queue) = self.queues.get_mut(slot as usize) else {
                continue;
            };
            let target = queue.identity.target;
            if queue.is_idle(cx.now) {
                cx.effects.idle.push(target);
                continue;
            }
            queue.expire(cx);
            self.finish(Some(target), cx);
        }
    }

    /// After work on a queue: its settled messages become one record, its next deadline is set.
    fn finish(&mut self, target: Option<QueueTarget>, cx: &mut Context<'_>) {
        let Some(target) = target else { return };
        write_settled(target.id, cx);
        write_returned(target.id, cx);
        if self.queues.get(target.slot as usize).is_some_and(|queue| queue.timed) {
            self.schedule(target.slot);
        }
    }

    fn schedule(&mut self, slot: u32) {
        let deadline = self.queues.get(slot as usize).and_then(|queue| queue.deadline()).unwrap_or(0);
        if self.set.len() <= slot as usize {
            self.set.resize(slot as usize + 1, 0);
        }
        let set = &mut self.set[slot as usize];
        if *set != deadline {
            self.deadlines.remove(&(*set, slot));
            *set = deadline;
            if deadline != 0 {
                self.deadlines.insert((deadline, slot));
            }
        }
    }
}

/// Writes one record for what a queue settled.
pub fn write_settled(queue: QueueId, cx: &mut Context<'_>) {
    if cx.effects.settling.seqs.is_empty() {
        return;
    }
    let settling = &mut cx.effects.settling;
    let ranges = ranges(&mut settling.seqs);
    let record = Record::Settled { queue, ranges: &ranges, freed: &settling.positions };
    if let Err(error) = cx.journal.append(&record) {
        // The messages may come again after a restart: at least once allows that.
        cx.effects.store_error = Some(error);
    }
    settling.seqs.clear();
    settling.positions.clear();
}

/// Writes down how often messages of a queue came back, a record for each number.
fn write_returned(queue: QueueId, cx: &mut Context<'_>) {
    let returned = &mut cx.effects.settling.returned;
    if returned.is_empty() {
        return;
    }
    returned.sort_unstable();
    for same in returned.chunk_by(|one, other| one.0 == other.0) {
        let Some(&(times, _)) = same.first() else { continue };
        let mut seqs: Vec<u64> = same.iter().map(|&(_, seq)| seq).collect();
        // Without it, a restart counts fewer: the limit comes later, and nothing is lost.
        drop(cx.journal.append(&Record::Returned { queue, ranges: &ranges(&mut seqs), times }));
    }
    returned.clear();
}
