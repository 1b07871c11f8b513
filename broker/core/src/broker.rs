//! The broker as protocols see it: publish, settle, and the carrying out of what shards wish for.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use crate::catalogue::{Target, Targets, Vhost};
use crate::counters::Counters;
use crate::dead_letter::{bury, extra_keys, goes_in_circles};
use crate::definition::QueueOptions;
use crate::delivery::{ConsumerRef, DeliveryRef, Settlement};
use crate::effect::{Context, DeadLetter, Effects, Fetch};
use crate::exchange::QueueTarget;
use crate::hub::Dialects;
use crate::message::{Message, Origin};
use crate::queue::Queue;
use crate::sessions::session_options;
use crate::shard::{Enqueue, Shard};
use crate::store::{Journal, QueueId, StoreError};
use crate::value::Table;

/// Bounds and budgets.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How many shards the queues are spread over.
    pub shards: usize,
    /// Bytes of bodies in ready queues above which new ones are paged out.
    pub memory_budget: u64,
    /// Bytes of bodies that one queue keeps in memory when they are stored anyway.
    pub queue_memory: usize,
    /// Most queues in a vhost.
    pub queues: usize,
    /// Most exchanges in a vhost.
    pub exchanges: usize,
    /// Most bindings in a vhost.
    pub bindings: usize,
    /// Most messages that wait in a session.
    pub session_messages: u64,
    /// Sessions in a vhost.
    pub sessions: u64,
    /// Most retained messages in a vhost.
    pub retained_messages: u64,
    /// Most memory that the retained messages of a vhost take.
    pub retained_bytes: u64,
}

/// Reads paged bodies away from the threads that serve sockets, and answers with [`Broker::loaded`].
pub trait Fetcher: Send + Sync {
    /// Takes a request. Must not block.
    fn fetch(&self, fetch: Fetch);
}

/// A batch of messages on their way to their shards. Kept by a connection to be used again.
#[derive(Default)]
pub struct Batch {
    shards: Vec<Vec<Enqueue>>,
    used: Vec<u32>,
}

impl Batch {
    /// Adds a message for the queues of a route. `tag` comes back in [`Effects::refused`] for a queue that
    /// refuses it.
    pub fn add(&mut self, targets: &Targets, message: Message, tag: u32) {
        let Some((last, others)) = targets.split_last() else {
            return;
        };
        for target in others {
            self.put(*target, message.clone(), tag);
        }
        self.put(*last, message, tag);
    }

    fn put(&mut self, target: Target, message: Message, tag: u32) {
        let Target { queue, grant } = target;
        let shard = queue.shard as usize;
        if self.shards.len() <= shard {
            self.shards.resize_with(shard + 1, Vec::new);
        }
        let messages = &mut self.shards[shard];
        if messages.is_empty() {
            self.used.push(queue.shard);
        }
        messages.push(Enqueue { queue, grant, message, tag });
    }

    /// Nothing waits in it.
    pub fn is_empty(&self) -> bool {
        self.used.is_empty()
    }
}

/// What there is, counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Census {
    /// Queues.
    pub queues: u64,
    /// Exchanges, with those that every vhost has.
    pub exchanges: u64,
    /// Bindings.
    pub bindings: u64,
    /// Consumers.
    pub consumers: u64,
    /// Messages that wait for a consumer.
    pub ready: u64,
    /// Messages that a consumer holds.
    pub unsettled: u64,
    /// Of the ready ones, those whose body is in the journal only.
    pub paged: u64,
    /// Bytes of the bodies that wait in memory.
    pub bytes: u64,
    /// Retained messages.
    pub retained: u64,
    /// Bytes of memory that they take.
    pub retained_bytes: u64,
}

/// Everything that is shared by all connections.
pub struct Broker {
    pub(crate) vhosts: ArcSwap<imbl::HashMap<Arc<str>, Arc<Vhost>>>,
    pub(crate) shards: Box<[Mutex<Shard>]>,
    /// Each shard's next deadline, 0 for none: read without its lock.
    deadlines: Box<[AtomicU64]>,
    /// Holds what must survive.
    pub journal: Arc<dyn Journal>,
    /// Bounds and budgets.
    pub settings: Settings,
    /// What is counted.
    pub counters: Arc<Counters>,
    /// Who reads and writes properties.
    pub dialects: Arc<Dialects>,
    fetcher: OnceLock<Box<dyn Fetcher>>,
    memory: AtomicI64,
    /// Rules for the queues of sessions.
    pub(crate) session_options: Arc<QueueOptions>,
    pub(crate) next_queue: AtomicU64,
    /// Ids below this one are never given out again after a restart.
    pub(crate) reserved_ids: AtomicU64,
}

impl Broker {
    /// An empty broker. Give it a [`Fetcher`] before it serves.
    pub fn new(settings: Settings, journal: Arc<dyn Journal>, dialects: Dialects, counters: Arc<Counters>) -> Self {
        let shards = settings.shards.max(1);
        Self {
            vhosts: ArcSwap::default(),
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            deadlines: (0..shards).map(|_| AtomicU64::new(0)).collect(),
            journal,
            session_options: Arc::new(session_options(settings.session_messages)),
            settings,
            counters,
            dialects: Arc::new(dialects),
            fetcher: OnceLock::new(),
            memory: AtomicI64::new(0),
            next_queue: AtomicU64::new(1),
            reserved_ids: AtomicU64::new(0),
        }
    }

    /// Where paged bodies are asked for; the first one given counts.
    pub fn set_fetcher(&self, fetcher: Box<dyn Fetcher>) {
        drop(self.fetcher.set(fetcher));
    }

    /// The vhost of that name.
    pub fn vhost(&self, name: &str) -> Option<Arc<Vhost>> {
        self.vhosts.load().get(name).cloned()
    }

    /// Every vhost.
    pub fn all_vhosts(&self) -> Vec<Arc<Vhost>> {
        self.vhosts.load().values().cloned().collect()
    }

    /// An id that no queue ever had.
    pub(crate) fn new_queue_id(&self) -> QueueId {
        QueueId(self.next_queue.fetch_add(1, Ordering::Relaxed))
    }

    /// Bytes of bodies in ready queues.
    pub fn memory(&self) -> u64 {
        u64::try_from(self.memory.load(Ordering::Relaxed)).unwrap_or(0)
    }

    /// Does `work` with a locked shard, and keeps its deadline known.
    pub(crate) fn in_shard<T>(
        &self,
        shard: u32,
        now: u64,
        effects: &mut Effects,
        work: impl FnOnce(&mut Shard, &mut Context<'_>) -> T,
    ) -> Option<T> {
        let at = shard as usize;
        let mut locked = self.shards.get(at)?.lock();
        let mut cx = Context {
            now,
            journal: &*self.journal,
            effects,
            page_out: self.memory() > self.settings.memory_budget,
            queue_memory: self.settings.queue_memory,
        };
        let done = work(&mut locked, &mut cx);
        if let Some(deadline) = self.deadlines.get(at) {
            deadline.store(locked.next_deadline().unwrap_or(0), Ordering::Relaxed);
        }
        drop(locked);
        let memory = std::mem::take(&mut effects.memory);
        if memory != 0 {
            self.memory.fetch_add(memory, Ordering::Relaxed);
        }
        Some(done)
    }

    /// Does `work` with one queue; `None` when it is gone.
    pub fn in_queue<T>(
        &self,
        queue: QueueTarget,
        now: u64,
        effects: &mut Effects,
        work: impl FnOnce(&mut Queue, &mut Context<'_>) -> T,
    ) -> Option<T> {
        self.in_shard(queue.shard, now, effects, |shard, cx| shard.with(queue, cx, work)).flatten()
    }

    /// Publishes a batch; call [`Broker::carry_out`] afterwards.
    pub fn publish(&self, batch: &mut Batch, now: u64, effects: &mut Effects) {
        for shard in batch.used.drain(..) {
            if let Some(messages) = batch.shards.get_mut(shard as usize) {
                self.in_shard(shard, now, effects, |shard, cx| shard.enqueue(messages, cx));
            }
        }
    }

    /// Ends deliveries; call [`Broker::carry_out`] afterwards. Settlements of one queue that stand together are
    /// handled together.
    pub fn settle(&self, settlements: &[Settlement], now: u64, effects: &mut Effects) {
        let mut rest = settlements;
        while let Some(first) = rest.first() {
            let shard = first.delivery.queue.shard;
            let run = rest.iter().take_while(|one| one.delivery.queue.shard == shard).count();
            let (these, others) = rest.split_at(run);
            rest = others;
            self.in_shard(shard, now, effects, |shard, cx| shard.settle(these, cx));
        }
    }

    /// The clients of sessions have taken QoS 2 messages over: see [`Queue::release`].
    pub fn release(&self, deliveries: &[DeliveryRef], now: u64, effects: &mut Effects) {
        for delivery in deliveries {
            self.in_queue(delivery.queue, now, effects, |queue, cx| queue.release(delivery.key, cx));
        }
    }

    /// Consumers' outboxes or shared windows have room again; call [`Broker::carry_out`] afterwards.
    pub fn resume(&self, consumers: &[ConsumerRef], now: u64, effects: &mut Effects) {
        for consumer in consumers {
            self.in_queue(consumer.queue, now, effects, |queue, cx| queue.resume(consumer.key, cx));
        }
    }

    /// Paged bodies were read.
    pub fn loaded(&self, queue: QueueTarget, bodies: Vec<(u64, Result<Message, StoreError>)>, now: u64) {
        let mut effects = Effects::default();
        self.load(queue, bodies, now, &mut effects);
        self.carry_out(&mut effects, now);
    }

    /// As [`Broker::loaded`], for a caller that carries out effects itself.
    pub(crate) fn load(
        &self,
        queue: QueueTarget,
        bodies: Vec<(u64, Result<Message, StoreError>)>,
        now: u64,
        effects: &mut Effects,
    ) {
        self.counters.delivered.paged_in.add(bodies.len() as u64);
        let lost = self.in_queue(queue, now, effects, |queue, cx| queue.loaded(bodies, cx));
        self.counters.delivered.lost.add(lost.unwrap_or(0));
    }

    /// Expires what is due in every shard.
    pub fn tick(&self, now: u64) {
        let due = |deadline: &AtomicU64| (1..=now).contains(&deadline.load(Ordering::Relaxed));
        let mut effects = Effects::default();
        for (shard, _) in self.deadlines.iter().enumerate().filter(|(_, deadline)| due(deadline)) {
            self.in_shard(shard as u32, now, &mut effects, |shard, cx| shard.tick(cx));
        }
        self.tick_sessions(now, &mut effects);
        self.tick_retained(now, &mut effects);
        self.carry_out(&mut effects, now);
    }

    /// Does what shards wished for, with no lock held: dead-letters, reads, deletions, and in the end the flush of
    /// every connection that got something.
    pub fn carry_out(&self, effects: &mut Effects, now: u64) {
        // One thing can lead to another, but not for ever: each round needs a message or queue that the one before
        // it moved, and circles of dead letters are cut.
        while !(effects.dead_letters.is_empty()
            && effects.fetches.is_empty()
            && effects.unused.is_empty()
            && effects.idle.is_empty())
        {
            for fetch in std::mem::take(&mut effects.fetches) {
                if let Some(fetcher) = self.fetcher.get() {
                    fetcher.fetch(fetch);
                }
            }
            for queue in std::mem::take(&mut effects.unused) {
                self.delete_unused(queue, now, effects);
            }
            for queue in std::mem::take(&mut effects.idle) {
                self.delete_idle(queue, now, effects);
            }
            self.dead_letters(now, effects);
        }
        if effects.missed > 0 {
            self.counters.mqtt_delivered.dropped.add(std::mem::take(&mut effects.missed));
        }
        for recipient in effects.touched.drain(..) {
            recipient.flush();
        }
    }

    /// Publishes dead letters, then settles them in the queues that they left: should we fall in between, they are in
    /// both rather than in none. Until then they are the old queue's, and the journal can move them.
    fn dead_letters(&self, now: u64, effects: &mut Effects) {
        let letters = std::mem::take(&mut effects.dead_letters);
        let mut left = Vec::new();
        for run in letters.chunk_by(|one, other| one.queue == other.queue) {
            left.extend(run.iter().filter(|letter| self.dead_letter(letter, now, effects)).filter_map(|it| it.stored));
            if let Some(first) = run.first().filter(|_| !left.is_empty()) {
                self.in_queue(first.queue, now, effects, |queue, cx| queue.departed(&left, cx));
            }
            left.clear();
        }
    }

    /// Publishes a dead letter. False when the store did not take it: it stays where it was for the next start.
    fn dead_letter(&self, letter: &DeadLetter, now: u64, effects: &mut Effects) -> bool {
        // The history of deaths is a header of AMQP 0-9-1.
        let dying = self.dialects.translate(&letter.message, Origin::Amqp091);
        let dialect = &*self.dialects.amqp091;
        let expiration = dialect.expiration(&dying);
        let headers = bury(letter, dialect.headers(&dying), expiration.as_deref(), now);
        if let Some(vhost) = self.vhost(&letter.vhost) {
            let key = letter.target.routing_key.as_ref().map(|key| key.as_bytes());
            let key = key.unwrap_or(letter.message.routing_key());
            let message = dialect.dead_lettered(&dying, &headers, &letter.target.exchange, key);
            let targets = self.dead_letter_targets(&vhost, letter, key, &headers);
            let mut batch = Batch::default();
            batch.add(&targets, message, 0);
            let refused = effects.refused.len();
            let earlier = effects.store_error.take();
            self.publish(&mut batch, now, effects);
            // Nobody waits for a refusal of a dead letter.
            effects.refused.truncate(refused);
            if effects.store_error.is_some() {
                return false;
            }
            effects.store_error = earlier;
        }
        true
    }

    fn dead_letter_targets(&self, vhost: &Vhost, letter: &DeadLetter, key: &[u8], headers: &Table) -> Targets {
        let extra = match letter.target.routing_key {
            Some(_) => Vec::new(),
            None => extra_keys(headers, "CC"),
        };
        let keys: Vec<&[u8]> = std::iter::once(key).chain(extra.iter().map(|key| &**key)).collect();
        let Ok(route) = vhost.route(&letter.target.exchange, &keys, &|| headers.clone()) else {
            return Targets::new();
        };
        let mut targets = route.targets;
        targets.retain(|target| {
            let name = self.queue_name(target.queue);
            !name.is_some_and(|name| goes_in_circles(headers, &name, letter.reason))
        });
        targets
    }

    /// Counts everything, for operators. Takes each shard's lock for as long as its queues are counted.
    pub fn census(&self) -> Census {
        let mut census = Census::default();
        for vhost in self.all_vhosts() {
            let snapshot = vhost.snapshot();
            census.exchanges += snapshot.exchanges.len() as u64 + 1;
            census.bindings += snapshot.all_bindings().count() as u64;
            census.retained += vhost.retained_count();
            census.retained_bytes += vhost.retained_bytes();
        }
        for shard in &self.shards {
            for queue in shard.lock().queues() {
                census.queues += 1;
                census.consumers += queue.consumers().len() as u64;
                census.ready += queue.ready() as u64;
                census.unsettled += queue.unsettled() as u64;
                census.paged += queue.paged() as u64;
                census.bytes += queue.ready_bytes;
            }
        }
        census
    }

    fn queue_name(&self, target: QueueTarget) -> Option<Arc<str>> {
        let mut shard = self.shards.get(target.shard as usize)?.lock();
        shard.queue(target).map(|queue| Arc::clone(&queue.identity.name))
    }
}
