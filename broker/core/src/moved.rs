//! What the journal does with a queue's records: it moves them to give space back, and finds some damaged.

use std::collections::HashMap;
use std::sync::Arc;

use crate::broker::Broker;
use crate::effect::{Context, Effects};
use crate::exchange::QueueTarget;
use crate::message::Message;
use crate::queue::Queue;
use crate::store::{Owner, Position, QueueId, Relocation, StoreError};
use crate::upkeep::{append, note_released};

/// Contents that have been appended anew, by their old places: records that shared one go on sharing it.
type Contents = HashMap<Position, Message, ahash::RandomState>;

/// Unsettled deliveries by sequence number, sorted.
type Held = Vec<(u64, usize)>;

impl Queue {
    /// Where the record of a message is, if the queue still has it.
    pub(crate) fn position(&self, seq: u64) -> Option<Position> {
        let ready = self.levels.iter().find_map(|level| level.position(seq));
        let unsettled = || self.unsettled.iter().find(|(_, held)| held.entry.seq == seq);
        ready.or_else(|| self.departing.position(seq)).or_else(|| unsettled().and_then(|(_, held)| held.entry.position))
    }

    fn held(&self) -> Held {
        let mut held: Held = self.unsettled.iter().map(|(key, held)| (held.entry.seq, key)).collect();
        held.sort_unstable();
        held
    }

    /// Appends the records of still live messages anew, because the journal wants their old places.
    ///
    /// # Errors
    /// When the journal takes no record: the old places must then be kept.
    fn relocate(
        &mut self,
        batch: &[Relocation],
        contents: &mut Contents,
        cx: &mut Context<'_>,
    ) -> Result<(), StoreError> {
        // One look at all unsettled deliveries serves the batch.
        let held = self.held();
        for moved in batch {
            let key = held.binary_search_by_key(&moved.seq, |&(seq, _)| seq).ok();
            let key = key.and_then(|at| held.get(at)).map(|&(_, key)| key);
            self.relocate_one(moved, key, contents, cx)?;
        }
        Ok(())
    }

    /// Appends a message that is stored already, with what has been noted of it.
    fn append_anew(
        &self,
        queue: QueueId,
        seq: u64,
        expires_at: u64,
        message: &Message,
        cx: &mut Context<'_>,
    ) -> Result<Position, StoreError> {
        let to = append(queue, seq, expires_at, message, cx)?;
        if self.released.contains(&seq) && self.identity.durable {
            note_released(self.identity.target.id, seq, cx)?;
        }
        Ok(to)
    }

    fn relocate_one(
        &mut self,
        moved: &Relocation,
        held: Option<usize>,
        contents: &mut Contents,
        cx: &mut Context<'_>,
    ) -> Result<(), StoreError> {
        let seq = moved.seq;
        let level = self.levels.iter().position(|level| level.position(seq) == Some(moved.from));
        let is_held =
            held.and_then(|key| self.unsettled.get(key)).is_some_and(|it| it.entry.position == Some(moved.from));
        if level.is_none() && !is_held && self.departing.position(seq) != Some(moved.from) {
            return Ok(());
        }
        let message = contents.entry(moved.content_at).or_insert_with(|| moved.message.clone());
        let to = self.append_anew(moved.queue, seq, moved.expires_at, message, cx)?;
        let mut returns = 0;
        if let Some(level) = level.and_then(|level| self.levels.get_mut(level)) {
            if !level.relocate(seq, moved.from, to) {
                return Err(StoreError::Missing(moved.from));
            }
            returns = level.returns(seq);
        } else if let Some(held) = held.and_then(|key| self.unsettled.get_mut(key)).filter(|_| is_held) {
            held.entry.position = Some(to);
            returns = held.entry.returns;
        } else {
            self.departing.relocate(seq, to);
        }
        self.count_again(seq, returns, cx);
        Ok(())
    }

    /// What said how often a message came back stands before its new record, and goes with its segment.
    fn count_again(&self, seq: u64, returns: u32, cx: &mut Context<'_>) {
        if returns > 0 && self.identity.options.delivery_limit.is_some() {
            cx.effects.settling.returned.push((returns, seq));
        }
    }

    /// The journal cannot read the record at `at`. A body that is still in memory is stored anew; else the message
    /// leaves the queue. True when it is lost.
    ///
    /// # Errors
    /// When the journal takes no record.
    fn lost(&mut self, queue: QueueId, seq: u64, at: Position, cx: &mut Context<'_>) -> Result<bool, StoreError> {
        if self.position(seq) != Some(at) {
            return Ok(false);
        }
        if let Some(place) = self.levels.iter().position(|level| level.position(seq).is_some()) {
            let body = self.levels.get(place).and_then(|level| level.body(seq));
            if let Some((message, expires_at)) = body {
                let to = self.append_anew(queue, seq, expires_at, &message, cx)?;
                self.levels[place].relocate(seq, at, to);
                self.count_again(seq, self.levels[place].returns(seq), cx);
                return Ok(false);
            }
            let level = &mut self.levels[place];
            let Some(entry) = level.remove(seq) else { return Ok(false) };
            self.forget(&entry, cx);
            return Ok(true);
        }
        if let Some((key, held)) = self.unsettled.iter().find(|(_, held)| held.entry.seq == seq) {
            let to = match &held.entry.message {
                Some(message) => Some(self.append_anew(queue, seq, held.entry.expires_at, message, cx)?),
                None => None,
            };
            let held = &mut self.unsettled[key];
            if let Some(to) = to {
                held.entry.position = Some(to);
                let returns = held.entry.returns;
                self.count_again(seq, returns, cx);
                return Ok(false);
            }
            // Its consumer has it. Should it come back, nothing is left to deliver.
            let entry = held.entry.clone();
            held.entry.position = None;
            self.forget(&entry, cx);
            return Ok(true);
        }
        let Some(entry) = self.departing.lose(seq) else {
            // It is being published to the dead-letter exchange at this moment.
            self.departed(&[seq], cx);
            return Ok(false);
        };
        self.forget(&entry, cx);
        Ok(true)
    }
}

impl Owner for Broker {
    fn relocate(&self, mut entries: Vec<Relocation>) -> Result<(), StoreError> {
        let mut effects = Effects::default();
        let mut contents = Contents::default();
        entries.sort_by_key(|moved| moved.queue.owner());
        for batch in entries.chunk_by(|one, other| one.queue.owner() == other.queue.owner()) {
            let Some(id) = batch.first().map(|moved| moved.queue.owner()) else { continue };
            if let Some(target) = self.target_of(id) {
                let relocate = |queue: &mut Queue, cx: &mut Context<'_>| queue.relocate(batch, &mut contents, cx);
                self.in_queue(target, 0, &mut effects, relocate).unwrap_or(Ok(()))?;
            } else if let Some(vhost) = self.retainer(id) {
                batch.iter().try_for_each(|moved| self.relocate_retained(&vhost, moved))?;
            }
        }
        Ok(())
    }

    fn lost(&self, queue: QueueId, seq: u64, at: Position) -> Result<Option<Arc<str>>, StoreError> {
        let id = queue.owner();
        let Some(target) = self.target_of(id) else {
            return match self.retainer(id) {
                Some(vhost) => self.rescue_retained(&vhost, seq, at).map(|()| None),
                None => Ok(None),
            };
        };
        let mut effects = Effects::default();
        let lost = self.in_queue(target, 0, &mut effects, |queue_of, cx| {
            let lost = queue_of.lost(queue, seq, at, cx)?;
            Ok(lost.then(|| Arc::clone(&queue_of.identity.name)))
        });
        let lost = lost.unwrap_or(Ok(None))?;
        self.counters.delivered.lost.add(u64::from(lost.is_some()));
        Ok(lost)
    }

    fn restate(&self) -> Result<(), StoreError> {
        self.restate_all()
    }
}

impl Broker {
    /// Finds a queue's place by its id.
    fn target_of(&self, id: QueueId) -> Option<QueueTarget> {
        let shard = (id.0 % self.shards.len() as u64) as usize;
        self.shards.get(shard)?.lock().find(id)
    }
}
