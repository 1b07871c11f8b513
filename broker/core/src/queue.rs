//! A queue: the only thing that stores messages and remembers who holds which.

use std::collections::BTreeSet;
use std::sync::Arc;

use slab::Slab;
use smallvec::{SmallVec, smallvec};

use crate::consumer::Consumers;
use crate::definition::{Overflow, QueueOptions};
use crate::delivery::{ConsumerRef, Delivery, DeliveryRef, Outcome, Taken};
use crate::departing::Departing;
use crate::effect::{Context, Fetch, Reason};
use crate::exchange::{Grant, QueueTarget};
use crate::message::Message;
use crate::ready::{Entry, Ready};
use crate::store::{Position, StoreError};
use crate::upkeep::{append, note_released, shadow};

/// The queue's number for a message fetched without a consumer.
const NO_CONSUMER: u32 = u32::MAX;

/// A delivery whose end the queue awaits.
pub(crate) struct Unsettled {
    pub(crate) entry: Entry,
    consumer: u32,
    serial: u64,
}

/// What a queue is, apart from its messages.
pub struct Identity {
    /// Where it is.
    pub target: QueueTarget,
    /// Its name.
    pub name: Arc<str>,
    /// Its vhost.
    pub vhost: Arc<str>,
    /// Survives a restart.
    pub durable: bool,
    /// Goes when its last consumer goes.
    pub auto_delete: bool,
    /// Every message is persistent, whatever its publisher said.
    pub always_persistent: bool,
    /// Its arguments, understood.
    pub options: Arc<QueueOptions>,
}

/// Messages in order, who holds which, and who wants more.
pub struct Queue {
    /// What it is.
    pub identity: Identity,
    /// By priority, lowest first; one level unless the queue has priorities.
    pub(crate) levels: SmallVec<[Ready; 1]>,
    pub(crate) unsettled: Slab<Unsettled>,
    /// Messages on their way to the dead-letter exchange.
    pub(crate) departing: Departing,
    pub(crate) consumers: Consumers,
    next_seq: u64,
    /// Bytes of the ready bodies in memory.
    pub(crate) ready_bytes: u64,
    /// When it was last declared, got from, or lost its last consumer: milliseconds since the epoch.
    pub(crate) used_at: u64,
    /// A message in it carries an expiry time, or the queue itself may expire.
    pub(crate) timed: bool,
    /// Messages that the client of a session has taken over and not yet let go of; see [`Queue::release`].
    pub(crate) released: BTreeSet<u64>,
}

/// A message given to a `get`.
pub struct Got {
    /// The message.
    pub message: Message,
    /// What to settle, `None` when it was settled as it left.
    pub settle: Option<DeliveryRef>,
    /// It was delivered before.
    pub redelivered: bool,
    /// Times it came back, where the queue counts.
    pub returns: Option<u32>,
    /// Ready messages left.
    pub remaining: usize,
}

/// What a `get` finds.
pub enum Get {
    /// Nothing.
    Empty,
    /// A message.
    Message(Box<Got>),
    /// A message whose body must be read first; ask again when [`Queue::loaded`] has it.
    Paged(Fetch),
}

/// The queue is full and refuses, or the store does.
pub enum Refused {
    /// Over its length limit.
    Full,
    /// The journal took no record.
    Store(StoreError),
}

impl Queue {
    /// An empty queue.
    pub fn new(identity: Identity, now: u64) -> Self {
        let options = &identity.options;
        let mut levels = smallvec![];
        levels.resize_with(usize::from(options.max_priority) + 1, Ready::default);
        Self {
            levels,
            unsettled: Slab::new(),
            departing: Departing::default(),
            consumers: Consumers::new(options.single_active_consumer),
            next_seq: 1,
            ready_bytes: 0,
            used_at: now,
            timed: options.expires.is_some(),
            released: BTreeSet::new(),
            identity,
        }
    }

    /// Ready messages.
    pub fn ready(&self) -> usize {
        self.levels.iter().map(Ready::len).sum()
    }

    /// Unsettled deliveries.
    pub fn unsettled(&self) -> usize {
        self.unsettled.len()
    }

    /// Ready messages that are not in memory.
    pub fn paged(&self) -> usize {
        self.levels.iter().map(Ready::paged).sum()
    }

    /// Consumers.
    pub fn consumers(&self) -> &Consumers {
        &self.consumers
    }

    /// Someone did something that keeps an expiring queue alive.
    pub fn touch(&mut self, now: u64) {
        self.used_at = now;
    }

    /// A message that recovery found.
    pub fn restore(&mut self, entry: &Entry) {
        self.next_seq = self.next_seq.max(entry.seq + 1);
        self.timed |= entry.expires_at != 0;
        match (self.levels.len(), entry.position) {
            (1, Some(position)) => self.levels[0].push_paged(entry, position),
            // Priorities are in the bodies, which recovery does not read: a level is only order, so all wait in
            // the lowest one.
            (_, Some(position)) => {
                if let Some(level) = self.levels.first_mut() {
                    level.push_paged(entry, position);
                }
            }
            (_, None) => {}
        }
    }

    /// Sequence numbers below this one have been used.
    pub fn reserve(&mut self, next_seq: u64) {
        self.next_seq = self.next_seq.max(next_seq);
    }

    /// Takes a message in, and delivers it at once when someone waits for it. `grant` says what a session wants.
    ///
    /// # Errors
    /// [`Refused`] when the queue or the store is full.
    pub fn enqueue(&mut self, message: Message, grant: Grant, cx: &mut Context<'_>) -> Result<(), Refused> {
        let at_most_once = grant.is_session() && grant.qos().min(message.qos()) == 0;
        if at_most_once && self.consumers.is_empty() {
            // [MQTT-3.1.2-5] leaves it to us; Mosquitto does the same.
            cx.effects.missed += 1;
            return Ok(());
        }
        if self.identity.options.overflow != Overflow::DropHead && self.is_full(message.body().len()) {
            return Err(self.refuse(message, cx));
        }
        let facts = message.facts();
        let expires_at = self.expiry(facts.ttl, cx.now);
        let persistent =
            self.identity.durable && !at_most_once && (facts.persistent || self.identity.always_persistent);
        let level = usize::from(facts.priority).min(self.levels.len() - 1);
        let seq = self.next_seq;
        self.next_seq += 1;
        let position = match persistent {
            true => Some(self.persist(seq, expires_at, &message, cx).map_err(Refused::Store)?),
            false => None,
        };
        cx.effects.persisted |= persistent;
        self.timed |= expires_at != 0;
        let entry = Entry { seq, position, message: Some(message), expires_at, returns: 0, redelivered: false };
        if self.consumers.any_in_line()
            && self.is_empty()
            && let Some(key) = self.consumers.pick()
        {
            self.hand_over(key, entry, cx);
            if !self.is_empty() {
                // That one was lost; someone else may take it.
                self.dispatch(cx);
            }
            return Ok(());
        }
        if at_most_once && let Some(key) = self.consumers.with_room() {
            // Its window is closed to what must be acknowledged, which must not delay this [MQTT-3.3.4-10].
            self.hand_over(key, entry, cx);
            return Ok(());
        }
        self.wait(level, entry, cx)?;
        self.shorten(cx);
        if self.consumers.any_in_line() {
            self.dispatch(cx);
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.levels.iter().all(Ready::is_empty)
    }

    /// The lower of the queue's and the message's time to live counts.
    fn expiry(&self, ttl: Option<u64>, now: u64) -> u64 {
        match (self.identity.options.message_ttl, ttl) {
            (None, None) => 0,
            (Some(one), None) | (None, Some(one)) => now + one,
            (Some(one), Some(other)) => now + one.min(other),
        }
    }

    fn persist(
        &self,
        seq: u64,
        expires_at: u64,
        message: &Message,
        cx: &mut Context<'_>,
    ) -> Result<Position, StoreError> {
        append(self.identity.target.id, seq, expires_at, message, cx)
    }

    /// Adds the newest message to the ready ones. Its body stays in memory unless it is stored anyway and the
    /// queue has enough of them, or memory is short: then it goes to the journal first if need be.
    fn wait(&mut self, level: usize, entry: Entry, cx: &mut Context<'_>) -> Result<(), Refused> {
        let Some(ready) = self.levels.get_mut(level) else {
            return Ok(());
        };
        let stored_enough = entry.position.is_some() && ready.memory() >= cx.queue_memory;
        let before = ready.memory();
        // A limit in bytes needs the sizes at hand, and bounds the memory by itself.
        let may_page = self.identity.options.max_length_bytes.is_none();
        let mut paged = None;
        if may_page && (stored_enough || ready.has_tail() || cx.page_out) {
            paged = match (entry.position, &entry.message) {
                (Some(position), _) => Some(position),
                (None, Some(message)) => shadow(self.identity.target, entry.seq, message, cx),
                (None, None) => None,
            };
            if paged.is_none() && ready.has_tail() {
                // The store has no room, and nothing may stay in memory behind a tail that is stored.
                return Err(Refused::Store(cx.effects.store_error.clone().unwrap_or(StoreError::Full)));
            }
        }
        match paged {
            Some(position) => ready.push_paged(&Entry { position: Some(position), ..entry }, position),
            // Also when the store has no room: memory is all there is, and the alarm stops the publishers.
            None => {
                self.ready_bytes += entry.body_bytes();
                ready.push(entry);
            }
        }
        cx.effects.memory += ready.memory() as i64 - before as i64;
        Ok(())
    }

    fn is_full(&self, body: usize) -> bool {
        let options = &self.identity.options;
        options.max_length.is_some_and(|most| self.ready() as u64 >= most && self.consumers_all_busy())
            || options
                .max_length_bytes
                .is_some_and(|most| self.ready_bytes + body as u64 > most && self.consumers_all_busy())
    }

    /// Nobody would take a message at once.
    fn consumers_all_busy(&self) -> bool {
        !(self.consumers.any_in_line() && self.is_empty())
    }

    fn refuse(&mut self, message: Message, cx: &mut Context<'_>) -> Refused {
        if self.identity.options.overflow == Overflow::RejectPublishDeadLetter {
            self.hand_on(message, Reason::MaxLength, None, cx);
        }
        Refused::Full
    }

    /// Drops the oldest ready messages beyond the limits.
    fn shorten(&mut self, cx: &mut Context<'_>) {
        let (most, most_bytes) = (self.identity.options.max_length, self.identity.options.max_length_bytes);
        if most.is_none() && most_bytes.is_none() || self.identity.options.overflow != Overflow::DropHead {
            return;
        }
        let over = |queue: &Self| {
            most.is_some_and(|most| queue.ready() as u64 > most)
                || most_bytes.is_some_and(|most| queue.ready_bytes > most && queue.ready() > 0)
        };
        // Someone may be waiting for what would be dropped.
        if over(self) && self.consumers.any_in_line() {
            self.dispatch(cx);
        }
        while over(self) {
            // The lowest priority goes first.
            let Some(level) = self.levels.iter().position(|level| !level.is_empty()) else {
                return;
            };
            let Some(entry) = self.take(level, cx) else {
                return;
            };
            self.depart(entry, Reason::MaxLength, cx);
        }
    }

    /// Takes the oldest message of a level, body or not.
    pub(crate) fn take(&mut self, level: usize, cx: &mut Context<'_>) -> Option<Entry> {
        let ready = self.levels.get_mut(level)?;
        // When only the tail is left, its places are enough: the bodies are not needed.
        ready.bring_head();
        let before = ready.memory();
        let entry = ready.pop()?;
        cx.effects.memory += ready.memory() as i64 - before as i64;
        self.uncount(&entry);
        Some(entry)
    }

    fn uncount(&mut self, entry: &Entry) {
        self.ready_bytes = self.ready_bytes.saturating_sub(entry.body_bytes());
    }

    /// Its time is over, and that still matters.
    pub(crate) fn is_expired(&self, entry: &Entry, now: u64) -> bool {
        entry.expires_at != 0 && entry.expires_at <= now && !self.stays(entry)
    }

    /// It has been delivered before, and then its time does not matter here.
    pub(crate) fn stays(&self, entry: &Entry) -> bool {
        self.identity.options.begun_stays && (entry.returns > 0 || self.released.contains(&entry.seq))
    }

    /// Delivers while someone has credit and something is ready.
    pub fn dispatch(&mut self, cx: &mut Context<'_>) {
        while self.consumers.any_in_line() {
            let Some(level) = self.levels.iter().rposition(|level| !level.is_empty()) else {
                return;
            };
            match self.levels[level].front() {
                Some(entry) if self.is_expired(entry, cx.now) => {
                    if let Some(entry) = self.take(level, cx) {
                        self.depart(entry, Reason::Expired, cx);
                    }
                }
                Some(Entry { message: Some(_), .. }) => {
                    let Some(key) = self.consumers.pick() else {
                        return;
                    };
                    let Some(entry) = self.take(level, cx) else {
                        return;
                    };
                    self.hand_over(key, entry, cx);
                }
                Some(_) | None => return self.fetch(level, cx),
            }
            if self.levels[level].runs_low() {
                self.fetch(level, cx);
            }
        }
    }

    fn fetch(&mut self, level: usize, cx: &mut Context<'_>) {
        let entries = self.levels[level].wanted();
        if !entries.is_empty() {
            cx.effects.fetches.push(Fetch { queue: self.identity.target, entries });
        }
    }

    /// Gives one message to one consumer.
    fn hand_over(&mut self, key: u32, entry: Entry, cx: &mut Context<'_>) {
        let (Some(consumer), Some(message)) = (self.consumers.get(key), &entry.message) else {
            return self.return_entry(entry, cx);
        };
        let settle = (!consumer.settled).then(|| self.unsettled.vacant_key() as u32);
        let delivery = Delivery {
            session: consumer.session,
            consumer: consumer.number,
            now: cx.now,
            from: ConsumerRef { queue: self.identity.target, key },
            seq: entry.seq,
            message,
            released: !self.released.is_empty() && self.released.contains(&entry.seq),
            expires_at: entry.expires_at,
            redelivered: entry.redelivered,
            returns: self.identity.options.delivery_limit.map(|_| entry.returns),
            settle: settle.map(|key| DeliveryRef { queue: self.identity.target, key }),
        };
        let taken = consumer.recipient.deliver(&delivery);
        if matches!(taken, Taken::Gone | Taken::Closed) {
            // If its connection is ending, that will unsubscribe it, which is what ends a queue that goes with it.
            self.consumers.refund(key);
            match taken {
                Taken::Closed => self.consumers.step_out(key),
                _ => self.consumers.pause(key),
            }
            return self.return_entry(entry, cx);
        }
        let recipient = Arc::clone(&consumer.recipient);
        cx.touch(&recipient);
        let settled = matches!(taken, Taken::Settled | Taken::SettledFull);
        match settle {
            Some(_) if !settled => {
                let serial = self.consumers.serial(key);
                let entry = self.slim(entry);
                self.unsettled.insert(Unsettled { entry, consumer: key, serial });
            }
            _ => self.forget(&entry, cx),
        }
        self.consumers.served(key, matches!(taken, Taken::Full | Taken::SettledFull), settled);
    }

    /// A stored message need not stay in memory while a consumer works on it, unless it may be dead-lettered, or
    /// its priority or size is needed when it comes back.
    fn slim(&self, mut entry: Entry) -> Entry {
        let options = &self.identity.options;
        let needed = options.dead_letter.is_some() || options.max_length_bytes.is_some() || self.levels.len() > 1;
        if entry.position.is_some() && !needed {
            entry.message = None;
        }
        entry
    }

    fn return_entry(&mut self, entry: Entry, cx: &mut Context<'_>) {
        let priority = entry.message.as_ref().map_or(0, |message| message.facts().priority);
        let level = usize::from(priority).min(self.levels.len() - 1);
        self.ready_bytes += entry.body_bytes();
        let before = self.levels[level].memory();
        self.levels[level].put_back(entry);
        cx.effects.memory += self.levels[level].memory() as i64 - before as i64;
    }

    /// The message is done with: its record, if any, is settled.
    pub(crate) fn forget(&mut self, entry: &Entry, cx: &mut Context<'_>) {
        if !self.released.is_empty() {
            self.released.remove(&entry.seq);
        }
        if let Some(position) = entry.position {
            cx.effects.settling.seqs.push(entry.seq);
            cx.effects.settling.positions.push(position);
        }
    }

    /// The client of a session has taken a QoS 2 message over (PUBREC). From here on, and also after a restart, it
    /// is delivered as [`Delivery::released`] until it is settled (PUBCOMP).
    pub fn release(&mut self, key: u32, cx: &mut Context<'_>) {
        let Some(Unsettled { entry, .. }) = self.unsettled.get(key as usize) else { return };
        let (seq, stored) = (entry.seq, entry.position.is_some() && self.identity.durable);
        if !self.released.insert(seq) || !stored {
            return;
        }
        match note_released(self.identity.target.id, seq, cx) {
            Ok(()) => cx.effects.persisted = true,
            Err(error) => {
                self.released.remove(&seq);
                cx.effects.store_error = Some(error);
            }
        }
    }

    /// Ends one delivery. False when the queue knows no such delivery.
    pub fn settle(&mut self, key: u32, outcome: Outcome, cx: &mut Context<'_>) -> bool {
        let Some(Unsettled { mut entry, consumer, serial }) = self.unsettled.try_remove(key as usize) else {
            return false;
        };
        match outcome {
            Outcome::Accepted => self.forget(&entry, cx),
            Outcome::Rejected => self.depart(entry, Reason::Rejected, cx),
            // Its record was damaged while a consumer had it, see [`Owner::lost`](crate::store::Owner::lost).
            Outcome::Released if entry.message.is_none() && entry.position.is_none() => {}
            Outcome::Released => {
                entry.redelivered = true;
                entry.returns = entry.returns.saturating_add(1);
                let limit = self.identity.options.delivery_limit;
                if limit.is_some_and(|limit| entry.returns > limit) {
                    self.depart(entry, Reason::DeliveryLimit, cx);
                } else {
                    if limit.is_some() && self.identity.durable && entry.position.is_some() {
                        cx.effects.settling.returned.push((entry.returns, entry.seq));
                    }
                    self.return_entry(entry, cx);
                }
            }
        }
        if consumer != NO_CONSUMER {
            self.consumers.credit(consumer, serial);
        }
        true
    }

    /// Takes the next message without a consumer.
    pub fn get(&mut self, settled: bool, cx: &mut Context<'_>) -> Get {
        self.used_at = cx.now;
        self.expire(cx);
        let Some(level) = self.levels.iter().rposition(|level| !level.is_empty()) else {
            return Get::Empty;
        };
        if self.levels[level].front().is_none_or(|entry| entry.message.is_none()) {
            self.levels[level].end_wait();
            let entries = self.levels[level].wanted();
            return Get::Paged(Fetch { queue: self.identity.target, entries });
        }
        let Some(entry) = self.take(level, cx) else {
            return Get::Empty;
        };
        let Some(message) = entry.message.clone() else {
            return Get::Empty;
        };
        let (redelivered, returns) = (entry.redelivered, entry.returns);
        let settle = match settled {
            true => {
                self.forget(&entry, cx);
                None
            }
            false => {
                let entry = self.slim(entry);
                let key = self.unsettled.insert(Unsettled { entry, consumer: NO_CONSUMER, serial: 0 }) as u32;
                Some(DeliveryRef { queue: self.identity.target, key })
            }
        };
        let returns = self.identity.options.delivery_limit.map(|_| returns);
        Get::Message(Box::new(Got { message, settle, redelivered, returns, remaining: self.ready() }))
    }
}
