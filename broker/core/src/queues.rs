//! Declaring, using and deleting queues, with the rules for each.

use std::sync::{Arc, LazyLock};

use crate::broker::Broker;
use crate::catalogue::{QueueEntry, Snapshot, Vhost};
use crate::consumer::Consumer;
use crate::definition::{QueueDefinition, QueueOptions};
use crate::delivery::ConsumerRef;
use crate::effect::Effects;
use crate::exchange::QueueTarget;
use crate::fact::Fact;
use crate::queue::{Get, Got, Identity};
use crate::refusal::{Permission, QueueKind, Refusal};
use crate::store::{Index, QueueId};
use crate::topology::{Caller, Durable, reserved};
use crate::value::Table;

/// A queue as its declarer wants it.
pub struct QueueWish<'a> {
    /// Its name.
    pub name: &'a str,
    /// We made the name up for the client.
    pub generated: bool,
    /// Survives a restart.
    pub durable: bool,
    /// For this connection only.
    pub exclusive: bool,
    /// Goes when its last consumer goes.
    pub auto_delete: bool,
    /// Arguments.
    pub arguments: Table,
}

/// What is said about a queue in answer to a declaration.
#[derive(Clone, Copy, Debug)]
pub struct Declared {
    /// Ready messages.
    pub ready: usize,
    /// Consumers.
    pub consumers: usize,
    /// The answer counts once the journal is durable up to there.
    pub durable: Durable,
    /// The queue is new.
    pub created: bool,
}

/// Returns of a quorum queue that names no limit itself: RabbitMQ 4's default.
const QUORUM_DELIVERY_LIMIT: u32 = 20;

impl Broker {
    /// Declares a queue, or checks that it exists as declared.
    ///
    /// # Errors
    /// The refusal that the declaration deserves.
    pub fn declare_queue(
        &self,
        vhost: &Vhost,
        wish: QueueWish<'_>,
        caller: &Caller<'_>,
        effects: &mut Effects,
    ) -> Result<Declared, Refusal> {
        let resource = vhost.queue(wish.name);
        caller.must(Permission::Configure, &resource)?;
        self.dead_letter_permissions(vhost, &wish, caller)?;
        let _changing = vhost.changing.lock();
        let snapshot = vhost.snapshot();
        if let Some(known) = snapshot.queues.get(wish.name) {
            self.owned(vhost, known, caller)?;
            if known.definition.exclusive != wish.exclusive {
                return Err(Refusal::Locked(resource));
            }
            known.definition.equivalent(wish.durable, wish.auto_delete, &wish.arguments, &resource)?;
            return Ok(self.look(known, caller.now, effects));
        }
        if reserved(wish.name) && !wish.generated {
            return Err(Refusal::Reserved(resource));
        }
        if snapshot.queues.len() >= self.settings.queues {
            let what = format!("queues in vhost '{}'", vhost.name);
            return Err(Refusal::Limit { what, limit: self.settings.queues as u64 });
        }
        let (definition, mut options) =
            QueueDefinition::validate(wish.durable, wish.exclusive, wish.auto_delete, wish.arguments, &resource)?;
        if definition.kind == QueueKind::Quorum {
            if wish.generated {
                return Err(Refusal::ServerNamed(definition.kind));
            }
            options.delivery_limit = quorum_limit(&definition, options.delivery_limit);
        }
        let id = self.new_queue_id();
        let owner = wish.exclusive.then_some(caller.connection);
        let survives = definition.durable && !definition.exclusive;
        let durable = survives.then(|| {
            let (vhost, name) = (vhost.name.to_string(), wish.name.to_owned());
            self.state(&Fact::Queue { vhost, name, id: id.0, definition: definition.clone() }, true)
        });
        let durable = durable.transpose()?;
        let entry = self.place(vhost, wish.name, id, definition, options, caller.now, effects);
        let mut next = Snapshot::clone(&snapshot);
        next.queues.insert(Arc::clone(&entry.name), Arc::new(QueueEntry { owner, ..entry }));
        vhost.replace(next);
        self.counters.objects.queues_created.add(1);
        Ok(Declared { ready: 0, consumers: 0, durable, created: true })
    }

    /// Makes the queue behind a client's direct replies: it has no owner, so that whoever knows its name can
    /// publish to it, and it goes with its consumer.
    pub fn make_reply_queue(&self, vhost: &Vhost, name: &str, now: u64, effects: &mut Effects) {
        let definition = QueueDefinition {
            kind: QueueKind::Classic,
            durable: false,
            exclusive: false,
            auto_delete: true,
            arguments: Table::default(),
        };
        let _changing = vhost.changing.lock();
        let id = self.new_queue_id();
        let entry = self.place(vhost, name, id, definition, QueueOptions::default(), now, effects);
        let mut next = Snapshot::clone(&vhost.snapshot());
        next.queues.insert(Arc::clone(&entry.name), Arc::new(entry));
        vhost.replace(next);
    }

    /// Makes the queue in its shard.
    #[expect(clippy::too_many_arguments, reason = "a queue is all of these")]
    pub(crate) fn place(
        &self,
        vhost: &Vhost,
        name: &str,
        id: QueueId,
        definition: QueueDefinition,
        options: QueueOptions,
        now: u64,
        effects: &mut Effects,
    ) -> QueueEntry {
        let shard = (id.0 % self.shards.len() as u64) as u32;
        let name: Arc<str> = name.into();
        let options = shared_options(options);
        let identity = |slot| Identity {
            target: QueueTarget { id, shard, slot },
            name: Arc::clone(&name),
            vhost: Arc::clone(&vhost.name),
            durable: definition.durable && !definition.exclusive,
            auto_delete: definition.auto_delete,
            always_persistent: definition.kind == QueueKind::Quorum,
            options: Arc::clone(&options),
        };
        let slot = self.in_shard(shard, now, effects, |shard, _| shard.insert(now, identity)).unwrap_or_default();
        QueueEntry { target: QueueTarget { id, shard, slot }, name, definition, options, owner: None }
    }

    fn dead_letter_permissions(&self, vhost: &Vhost, wish: &QueueWish<'_>, caller: &Caller<'_>) -> Result<(), Refusal> {
        let exchange = wish.arguments.get("x-dead-letter-exchange").and_then(crate::value::Value::as_text);
        let Some(exchange) = exchange else {
            return Ok(());
        };
        caller.must(Permission::Read, &vhost.queue(wish.name))?;
        caller.must(Permission::Write, &vhost.exchange(exchange))
    }

    /// Refuses a queue that is exclusive to another connection.
    fn owned(&self, vhost: &Vhost, queue: &QueueEntry, caller: &Caller<'_>) -> Result<(), Refusal> {
        match queue.owner {
            Some(owner) if owner != caller.connection => Err(Refusal::Locked(vhost.queue(&queue.name))),
            _ => Ok(()),
        }
    }

    fn look(&self, queue: &QueueEntry, now: u64, effects: &mut Effects) -> Declared {
        let counts = self.in_queue(queue.target, now, effects, |queue, cx| {
            queue.touch(cx.now);
            queue.expire(cx);
            (queue.ready(), queue.consumers().len())
        });
        let (ready, consumers) = counts.unwrap_or_default();
        Declared { ready, consumers, durable: None, created: false }
    }

    /// Finds a queue that the caller may use.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], or [`Refusal::Locked`] when it is exclusive to another connection.
    pub fn find_queue(&self, vhost: &Vhost, name: &str, caller: &Caller<'_>) -> Result<Arc<QueueEntry>, Refusal> {
        let queue = vhost.snapshot().queues.get(name).cloned();
        let queue = queue.ok_or_else(|| Refusal::NotFound(vhost.queue(name)))?;
        self.owned(vhost, &queue, caller)?;
        Ok(queue)
    }

    /// A passive declaration: says how the queue is, and keeps an expiring one alive.
    ///
    /// # Errors
    /// As [`Broker::find_queue`].
    pub fn inspect_queue(
        &self,
        vhost: &Vhost,
        name: &str,
        caller: &Caller<'_>,
        effects: &mut Effects,
    ) -> Result<Declared, Refusal> {
        let queue = self.find_queue(vhost, name, caller)?;
        Ok(self.look(&queue, caller.now, effects))
    }

    /// Deletes a queue; one that does not exist is as good as deleted. Returns the ready messages lost.
    ///
    /// # Errors
    /// When it is exclusive to another connection, or not empty or in use and the caller minds.
    pub fn delete_queue(
        &self,
        vhost: &Vhost,
        name: &str,
        if_unused: bool,
        if_empty: bool,
        caller: &Caller<'_>,
        effects: &mut Effects,
    ) -> Result<(usize, Durable), Refusal> {
        let resource = vhost.queue(name);
        caller.must(Permission::Configure, &resource)?;
        let Some(queue) = vhost.snapshot().queues.get(name).cloned() else {
            return Ok((0, None));
        };
        self.owned(vhost, &queue, caller)?;
        let state = self.in_queue(queue.target, caller.now, effects, |queue, cx| {
            queue.expire(cx);
            (queue.ready(), queue.consumers().is_empty())
        });
        let (ready, unused) = state.unwrap_or((0, true));
        if if_unused && !unused {
            return Err(Refusal::InUse(resource));
        }
        if if_empty && ready > 0 {
            return Err(Refusal::NotEmpty(resource));
        }
        Ok(self.remove_queue(vhost, &queue, caller.now, effects))
    }

    /// Takes a queue with its bindings out of the catalogue and its shard.
    pub(crate) fn remove_queue(
        &self,
        vhost: &Vhost,
        queue: &QueueEntry,
        now: u64,
        effects: &mut Effects,
    ) -> (usize, Option<Index>) {
        let changing = vhost.changing.lock();
        let mut next = Snapshot::clone(&vhost.snapshot());
        let known = next.queues.get(&queue.name).is_some_and(|known| known.target == queue.target);
        if !known {
            return (0, None);
        }
        let mut forget = || {
            let bindings = next.bindings_to(true, &queue.name);
            self.remove_bindings(&mut next, vhost, &bindings)?;
            next.queues.remove(&queue.name);
            if !queue.definition.durable || queue.definition.exclusive {
                return Ok(None);
            }
            let (vhost, name) = (vhost.name.to_string(), queue.name.to_string());
            let definition = queue.definition.clone();
            self.state(&Fact::Queue { vhost, name, id: queue.target.id.0, definition }, false).map(Some)
        };
        let durable = forget().unwrap_or_else(|error| {
            effects.store_error = Some(error);
            None
        });
        vhost.replace(next);
        drop(changing);
        let shard = queue.target.shard;
        let ready = self.in_shard(shard, now, effects, |shard, cx| shard.remove(queue.target, cx)).flatten();
        self.counters.objects.queues_deleted.add(1);
        (ready.unwrap_or(0), durable)
    }

    fn entry_of(&self, target: QueueTarget) -> Option<(Arc<Vhost>, Arc<QueueEntry>)> {
        let (vhost, name) = {
            let mut shard = self.shards.get(target.shard as usize)?.lock();
            let identity = &shard.queue(target)?.identity;
            (Arc::clone(&identity.vhost), Arc::clone(&identity.name))
        };
        let vhost = self.vhost(&vhost)?;
        let entry = vhost.snapshot().queues.get(&name).filter(|entry| entry.target == target).cloned()?;
        Some((vhost, entry))
    }

    /// Deletes an auto-delete queue, unless someone has come to consume from it meanwhile.
    pub(crate) fn delete_unused(&self, target: QueueTarget, now: u64, effects: &mut Effects) {
        let unused = self.in_queue(target, now, effects, |queue, _| queue.consumers().is_empty());
        if unused == Some(true)
            && let Some((vhost, entry)) = self.entry_of(target)
        {
            self.remove_queue(&vhost, &entry, now, effects);
        }
    }

    /// Deletes a queue that nobody used for its expiry time.
    pub(crate) fn delete_idle(&self, target: QueueTarget, now: u64, effects: &mut Effects) {
        let idle = self.in_queue(target, now, effects, |queue, _| queue.is_idle(now));
        if idle == Some(true)
            && let Some((vhost, entry)) = self.entry_of(target)
        {
            self.remove_queue(&vhost, &entry, now, effects);
        }
    }

    /// Removes the ready messages of a queue and returns how many there were.
    ///
    /// # Errors
    /// As [`Broker::find_queue`], or when the caller may not read.
    pub fn purge_queue(
        &self,
        vhost: &Vhost,
        name: &str,
        caller: &Caller<'_>,
        effects: &mut Effects,
    ) -> Result<usize, Refusal> {
        caller.must(Permission::Read, &vhost.queue(name))?;
        let queue = self.find_queue(vhost, name, caller)?;
        let purged = self.in_queue(queue.target, caller.now, effects, |queue, cx| queue.purge(cx));
        Ok(purged.unwrap_or(0))
    }

    /// Adds a consumer. `ready` is told its place before anything is delivered to it.
    ///
    /// # Errors
    /// As [`Broker::find_queue`], when the caller may not read, or when someone has the queue for itself.
    pub fn subscribe(
        &self,
        vhost: &Vhost,
        name: &str,
        consumer: Consumer,
        caller: &Caller<'_>,
        effects: &mut Effects,
        ready: impl FnOnce(ConsumerRef),
    ) -> Result<ConsumerRef, Refusal> {
        caller.must(Permission::Read, &vhost.queue(name))?;
        let entry = self.find_queue(vhost, name, caller)?;
        let target = entry.target;
        let quorum = entry.definition.kind == QueueKind::Quorum;
        let consumer = Consumer { exclusive: consumer.exclusive && !quorum, ..consumer };
        let added = self.in_queue(target, caller.now, effects, |queue, cx| {
            let others = queue.consumers();
            let alone = consumer.exclusive && (!others.is_empty() || entry.options.single_active_consumer);
            if others.has_exclusive() || alone {
                return None;
            }
            let consumer = ConsumerRef { queue: target, key: queue.subscribe(consumer, cx) };
            ready(consumer);
            queue.dispatch(cx);
            Some(consumer)
        });
        match added {
            Some(Some(consumer)) => Ok(consumer),
            Some(None) => Err(Refusal::ExclusiveUse(vhost.queue(name))),
            None => Err(Refusal::NotFound(vhost.queue(name))),
        }
    }

    /// Removes a consumer.
    pub fn unsubscribe(&self, consumer: ConsumerRef, now: u64, effects: &mut Effects) {
        let unused = self.in_queue(consumer.queue, now, effects, |queue, cx| queue.unsubscribe(consumer.key, cx));
        if unused == Some(true) {
            effects.unused.push(consumer.queue);
        }
    }

    /// Takes one message without a consumer.
    ///
    /// # Errors
    /// As [`Broker::find_queue`], or when the caller may not read.
    pub fn get(
        &self,
        vhost: &Vhost,
        name: &str,
        settled: bool,
        caller: &Caller<'_>,
        effects: &mut Effects,
    ) -> Result<Option<Got>, Refusal> {
        caller.must(Permission::Read, &vhost.queue(name))?;
        let queue = self.find_queue(vhost, name, caller)?;
        loop {
            match self.in_queue(queue.target, caller.now, effects, |queue, cx| queue.get(settled, cx)) {
                None | Some(Get::Empty) => return Ok(None),
                Some(Get::Message(got)) => return Ok(Some(*got)),
                Some(Get::Paged(fetch)) => {
                    // The one place where a connection waits for a read: a client that fetches one by one from a
                    // backlog waits for each answer anyway, and one read serves the next 500 of them.
                    let positions: Vec<_> = fetch.entries.iter().map(|&(_, position)| position).collect();
                    let mut bodies = Vec::with_capacity(positions.len());
                    self.journal.read(&positions, &mut |at, body| {
                        bodies.extend(fetch.entries.get(at).map(|&(seq, _)| (seq, body)));
                    });
                    if bodies.is_empty() {
                        return Ok(None);
                    }
                    self.load(fetch.queue, bodies, caller.now, effects);
                }
            }
        }
    }
}

/// The delivery limit of a quorum queue: its own, none for a negative one, else the default.
pub(crate) fn quorum_limit(definition: &QueueDefinition, given: Option<u32>) -> Option<u32> {
    let named = definition.arguments.get("x-delivery-limit").is_some();
    given.or((!named).then_some(QUORUM_DELIVERY_LIMIT))
}

/// Most queues have no arguments and share what that means.
fn shared_options(options: QueueOptions) -> Arc<QueueOptions> {
    static PLAIN: LazyLock<Arc<QueueOptions>> = LazyLock::new(Arc::default);
    if options == **PLAIN { Arc::clone(&PLAIN) } else { Arc::new(options) }
}
