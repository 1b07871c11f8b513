//! From what the store recovered to a running broker, and back: what the journal asks of us, and the clean stop.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::broker::Broker;
use crate::catalogue::{QueueEntry, Snapshot, Vhost};
use crate::definition::QueueDefinition;
use crate::effect::Effects;
use crate::exchange::{Exchange, ExchangeDefinition, QueueTarget};
use crate::fact::Fact;
use crate::queues::quorum_limit;
use crate::ready::Entry;
use crate::refusal::QueueKind;
use crate::store::{Position, QueueId, Record, Recovered, RecoveredQueue, StoreError};
use crate::topology::{PREDECLARED, add_binding};
use crate::upkeep::ranges;
use crate::value::Table;

/// Ids set aside at each start: more than one life of the broker can use, and enough for two thousand million lives.
const QUEUE_IDS: u64 = 1 << 32;

/// What recovery could not make sense of, for the operator.
#[derive(Debug, Default)]
pub struct Restored {
    /// Queues that came back.
    pub queues: usize,
    /// Sessions that came back.
    pub sessions: usize,
    /// Retained messages that came back.
    pub retained: usize,
    /// Messages that came back.
    pub messages: usize,
    /// Facts that this version does not understand or that refer to nothing.
    pub strange: usize,
}

impl Broker {
    /// Adds a vhost with the pre-declared exchanges, unless it exists.
    ///
    /// # Errors
    /// When the store takes no record.
    pub fn add_vhost(&self, name: &str) -> Result<Arc<Vhost>, StoreError> {
        if let Some(known) = self.vhost(name) {
            return Ok(known);
        }
        self.state(&Fact::Vhost { name: name.to_owned() }, true)?;
        Ok(self.insert_vhost(name))
    }

    fn insert_vhost(&self, name: &str) -> Arc<Vhost> {
        let mut snapshot = Snapshot::default();
        for (name, kind, internal) in PREDECLARED {
            let arguments = Table::default();
            let definition = ExchangeDefinition { kind, durable: true, auto_delete: false, internal, arguments };
            let exchange = Exchange::new(name.into(), Arc::new(definition));
            snapshot.exchanges.insert(name.into(), Arc::new(exchange));
        }
        let vhost = Arc::new(Vhost::new(name.into(), snapshot));
        self.vhosts.rcu(|vhosts| vhosts.update(name.into(), Arc::clone(&vhost)));
        vhost
    }

    /// Rebuilds the catalogue and the queues. For a broker that does not serve yet.
    pub fn restore(&self, recovered: Recovered, now: u64) -> Restored {
        let mut restored = Restored::default();
        let mut queues = recovered.queues;
        let mut building: HashMap<String, Building> = HashMap::new();
        // Facts come in key order: vhosts, exchanges, queues, bindings.
        for (_, value) in &recovered.facts {
            match Fact::read(value) {
                Some(Fact::Vhost { name }) => {
                    let vhost = self.insert_vhost(&name);
                    let snapshot = Snapshot::clone(&vhost.snapshot());
                    building.insert(name, Building { vhost, snapshot });
                }
                Some(fact) => {
                    let known = self.restore_fact(fact, &mut building, &mut queues, now, &mut restored);
                    restored.strange += usize::from(!known);
                }
                None => restored.strange += 1,
            }
        }
        for mut building in building.into_values() {
            self.end_empty_groups(&mut building, now, &mut Effects::default());
            building.vhost.replace(building.snapshot);
        }
        self.drop_unknown(&queues);
        restored
    }

    fn restore_fact(
        &self,
        fact: Fact,
        building: &mut HashMap<String, Building>,
        queues: &mut HashMap<QueueId, RecoveredQueue>,
        now: u64,
        restored: &mut Restored,
    ) -> bool {
        match fact {
            Fact::QueueIds { reserved } => {
                self.next_queue.fetch_max(reserved, Ordering::Relaxed);
                true
            }
            Fact::Exchange { vhost, name, definition } => {
                let Some(Building { snapshot, .. }) = building.get_mut(&vhost) else {
                    return false;
                };
                let exchange = Exchange::new(name.as_str().into(), Arc::new(definition));
                snapshot.exchanges.insert(name.as_str().into(), Arc::new(exchange));
                true
            }
            Fact::Queue { vhost, name, id, definition } => {
                let Some(building) = building.get_mut(&vhost) else {
                    return false;
                };
                let recovered = queues.remove(&QueueId(id)).unwrap_or_default();
                restored.queues += 1;
                restored.messages += recovered.entries.len();
                self.restore_queue(building, &name, QueueId(id), definition, recovered, now)
            }
            Fact::Binding { vhost, binding } => {
                let Some(Building { snapshot, .. }) = building.get_mut(&vhost) else {
                    return false;
                };
                let Some(to) = snapshot.destination(&binding) else {
                    return false;
                };
                add_binding(snapshot, &binding, &to).is_ok()
            }
            Fact::RetainedQueue { vhost, id } => {
                let Some(Building { vhost, .. }) = building.get(&vhost) else {
                    return false;
                };
                self.restore_retained(vhost, QueueId(id), queues, restored);
                true
            }
            fact => self.restore_session_fact(fact, building, queues, now, restored),
        }
    }

    fn restore_queue(
        &self,
        building: &mut Building,
        name: &str,
        id: QueueId,
        definition: QueueDefinition,
        recovered: RecoveredQueue,
        now: u64,
    ) -> bool {
        let resource = building.vhost.queue(name);
        let QueueDefinition { durable, exclusive, auto_delete, arguments, .. } = definition;
        let valid = QueueDefinition::validate(durable, exclusive, auto_delete, arguments, &resource);
        let Ok((definition, mut options)) = valid else {
            return false;
        };
        if definition.kind == QueueKind::Quorum {
            options.delivery_limit = quorum_limit(&definition, options.delivery_limit);
        }
        let mut effects = Effects::default();
        let entry = self.place(&building.vhost, name, id, definition, options, now, &mut effects);
        self.refill(entry.target, &recovered, now);
        let owner = None;
        building.snapshot.queues.insert(name.into(), Arc::new(QueueEntry { owner, ..entry }));
        true
    }

    /// Puts the messages that were found back into their queue.
    pub(crate) fn refill(&self, target: QueueTarget, recovered: &RecoveredQueue, now: u64) {
        self.next_queue.fetch_max(target.id.0 + 1, Ordering::Relaxed);
        self.in_queue(target, now, &mut Effects::default(), |queue, _| {
            queue.reserve(recovered.next_seq);
            for found in &recovered.entries {
                queue.restore(&Entry {
                    seq: found.seq,
                    position: Some(found.position),
                    message: None,
                    expires_at: found.expires_at,
                    returns: found.returns,
                    redelivered: found.redelivered,
                });
                if found.released {
                    queue.released.insert(found.seq);
                }
            }
        });
    }

    /// Makes sure that no queue gets an id that an earlier one had: records of that one may still be in the journal.
    /// For a broker that has been restored and does not serve yet.
    ///
    /// # Errors
    /// When the store takes no record.
    pub fn reserve_queue_ids(&self) -> Result<(), StoreError> {
        let reserved = self.next_queue.load(Ordering::Relaxed).saturating_add(QUEUE_IDS);
        self.reserved_ids.store(reserved, Ordering::Relaxed);
        self.state(&Fact::QueueIds { reserved }, true).map(drop)
    }

    /// Messages of queues that are no more, and transient ones that were paged out.
    fn drop_unknown(&self, queues: &HashMap<QueueId, RecoveredQueue>) {
        for (&queue, recovered) in queues {
            let freed: Vec<Position> = recovered.entries.iter().map(|entry| entry.position).collect();
            // Should the record not be taken, the next start drops them again.
            drop(self.journal.append(&Record::Dropped { queue, freed: &freed }));
        }
    }

    /// Notes which messages carry the redelivered mark, for a stop after which nothing is marked that was not.
    /// Empties the queues: the broker must not serve any more.
    pub fn note_redelivered(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            for queue in shard.queues_mut() {
                let mut seqs = queue.redelivered();
                if queue.identity.durable && !seqs.is_empty() {
                    let record = Record::Redelivered { queue: queue.identity.target.id, ranges: &ranges(&mut seqs) };
                    // Without it, the messages come unmarked: no promise is broken.
                    drop(self.journal.append(&record));
                }
            }
        }
    }

    /// Appends every fact of the catalogue anew.
    pub(crate) fn restate_all(&self) -> Result<(), StoreError> {
        // No vhost may change while its facts are written, or an old one could be written after its end.
        let vhosts = self.all_vhosts();
        let changing: Vec<_> = vhosts.iter().map(|vhost| vhost.changing.lock()).collect();
        self.facts().iter().try_for_each(|fact| self.state(fact, true).map(drop))?;
        drop(changing);
        vhosts.iter().try_for_each(|vhost| self.restate_retained(vhost))?;
        vhosts.iter().try_for_each(|vhost| self.restate_sessions(vhost))
    }

    fn facts(&self) -> Vec<Fact> {
        let reserved = self.reserved_ids.load(Ordering::Relaxed);
        let mut facts = Vec::new();
        facts.extend((reserved > 0).then_some(Fact::QueueIds { reserved }));
        for vhost in self.all_vhosts() {
            let name = vhost.name.to_string();
            let snapshot = vhost.snapshot();
            facts.push(Fact::Vhost { name: name.clone() });
            let exchanges = snapshot.exchanges.values().filter(|exchange| {
                exchange.definition.durable && !PREDECLARED.iter().any(|known| known.0 == &*exchange.name)
            });
            facts.extend(exchanges.map(|exchange| Fact::Exchange {
                vhost: name.clone(),
                name: exchange.name.to_string(),
                definition: ExchangeDefinition::clone(&exchange.definition),
            }));
            let survives = |queue: &&Arc<QueueEntry>| queue.definition.durable && !queue.definition.exclusive;
            facts.extend(snapshot.queues.values().filter(survives).map(|queue| Fact::Queue {
                vhost: name.clone(),
                name: queue.name.to_string(),
                id: queue.target.id.0,
                definition: queue.definition.clone(),
            }));
            let durable = snapshot.all_bindings().filter(|binding| crate::topology::is_durable(&snapshot, binding));
            facts.extend(durable.map(|b| Fact::Binding { vhost: name.clone(), binding: (**b).clone() }));
        }
        facts
    }
}

/// A vhost while its facts are read.
pub(crate) struct Building {
    pub(crate) vhost: Arc<Vhost>,
    pub(crate) snapshot: Snapshot,
}
