//! What exists in a vhost, as an immutable snapshot that every publish reads without a lock, and how a message
//! finds its queues there.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use crate::definition::{QueueDefinition, QueueOptions};
use crate::exchange::{Destination, Exchange, Grant, QueueTarget};
use crate::fact;
use crate::refusal::{Kind, Refusal, Resource};
use crate::retained::Retained;
use crate::session::Sessions;
use crate::value::Table;

/// Names a connection for as long as the process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId(pub u64);

/// A queue as the catalogue knows it.
#[derive(Debug)]
pub struct QueueEntry {
    /// Its name.
    pub name: Arc<str>,
    /// Where it lives.
    pub target: QueueTarget,
    /// What it was declared to be.
    pub definition: QueueDefinition,
    /// Its arguments, understood.
    pub options: Arc<QueueOptions>,
    /// The connection whose it is, for an exclusive queue.
    pub owner: Option<ConnectionId>,
}

/// A rule that leads from an exchange to a queue or exchange.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Binding {
    /// The exchange.
    pub source: Arc<str>,
    /// The destination is a queue, else an exchange.
    pub to_queue: bool,
    /// The destination's name.
    pub destination: Arc<str>,
    /// The routing key or pattern.
    pub key: Box<[u8]>,
    /// Arguments; part of what tells bindings apart.
    pub arguments: Table,
}

/// Everything in a vhost at one moment.
#[derive(Clone, Default)]
pub struct Snapshot {
    /// By name; the default exchange is not in it.
    pub exchanges: imbl::HashMap<Arc<str>, Arc<Exchange>>,
    /// By name.
    pub queues: imbl::HashMap<Arc<str>, Arc<QueueEntry>>,
    /// By identity, which begins with the source.
    pub(crate) bindings: imbl::OrdMap<Box<[u8]>, Arc<Binding>>,
    /// Identities by destination.
    pub(crate) by_destination: imbl::OrdMap<Box<[u8]>, Arc<Binding>>,
    /// Exchanges that have been a binding's source: only these go when their last binding goes.
    pub(crate) once_bound: imbl::HashSet<Arc<str>>,
}

impl Snapshot {
    /// Bindings from an exchange.
    pub fn bindings_from(&self, source: &str) -> Vec<Arc<Binding>> {
        under(&self.bindings, &fact::name(source))
    }

    /// Bindings to a queue or exchange.
    pub fn bindings_to(&self, to_queue: bool, destination: &str) -> Vec<Arc<Binding>> {
        under(&self.by_destination, &fact::destination(to_queue, destination))
    }

    /// Every binding.
    pub fn all_bindings(&self) -> impl Iterator<Item = &Arc<Binding>> {
        self.bindings.values()
    }

    /// Where a binding leads, as routing wants it.
    pub(crate) fn destination(&self, binding: &Binding) -> Option<Destination> {
        match binding.to_queue {
            true => self.queues.get(&binding.destination).map(|queue| Destination::Queue(queue.target)),
            false => Some(Destination::Exchange(Arc::clone(&binding.destination))),
        }
    }
}

fn under(map: &imbl::OrdMap<Box<[u8]>, Arc<Binding>>, prefix: &[u8]) -> Vec<Arc<Binding>> {
    let from = Box::<[u8]>::from(prefix);
    map.range(from..).take_while(|(id, _)| id.starts_with(prefix)).map(|(_, binding)| Arc::clone(binding)).collect()
}

/// A queue that a message goes to, and what a session wants of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// The queue.
    pub queue: QueueTarget,
    /// What its session wants, if it is a session's.
    pub grant: Grant,
}

impl Target {
    fn queue(queue: QueueTarget) -> Self {
        Self { queue, grant: Grant::default() }
    }
}

/// The queues that a message goes to, each once.
pub type Targets = SmallVec<[Target; 1]>;

/// One copy for each queue, however many bindings lead there.
fn merge(targets: &mut Targets) {
    targets.sort_unstable_by_key(|target| target.queue);
    targets.dedup_by(|one, kept| {
        let same = one.queue == kept.queue;
        if same {
            kept.grant = kept.grant.or(one.grant);
        }
        same
    });
}

/// Where a publish to one exchange with one key goes, as long as the catalogue stays as it is.
#[derive(Debug)]
pub struct Route {
    /// The catalogue's generation when this was found.
    pub generation: u64,
    /// The queues.
    pub targets: Targets,
    /// The key decided alone, so that the next message with it goes the same way.
    pub by_key_alone: bool,
}

/// A namespace of exchanges and queues.
pub struct Vhost {
    /// Its name.
    pub name: Arc<str>,
    snapshot: ArcSwap<Snapshot>,
    generation: AtomicU64,
    /// Held by whoever changes the vhost. Taken before a shard's lock, never after.
    pub(crate) changing: Mutex<()>,
    /// Taken with a session's lock held, and briefly.
    pub(crate) sessions: Mutex<Sessions>,
    /// Nothing but the journal's buffer is locked with it held.
    pub(crate) retained: Mutex<Retained>,
}

impl Vhost {
    /// A vhost with the given contents.
    pub fn new(name: Arc<str>, snapshot: Snapshot) -> Self {
        Self {
            name,
            snapshot: ArcSwap::from_pointee(snapshot),
            generation: AtomicU64::new(1),
            changing: Mutex::new(()),
            sessions: Mutex::default(),
            retained: Mutex::default(),
        }
    }

    /// What is in it now.
    pub fn snapshot(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// Grows with every change.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Puts a changed snapshot in place. The caller holds `changing`.
    pub(crate) fn replace(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Names an exchange of this vhost.
    pub fn exchange(&self, name: &str) -> Resource {
        Resource { kind: Kind::Exchange, name: name.into(), vhost: Arc::clone(&self.name) }
    }

    /// Names a queue of this vhost.
    pub fn queue(&self, name: &str) -> Resource {
        Resource { kind: Kind::Queue, name: name.into(), vhost: Arc::clone(&self.name) }
    }

    /// Finds the queues for a message. `keys` are the routing key and what else the publisher named; `headers` is
    /// asked only when an exchange looks at them.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when there is no such exchange.
    pub fn route(&self, exchange: &str, keys: &[&[u8]], headers: &dyn Fn() -> Table) -> Result<Route, Refusal> {
        self.route_from(None, exchange, keys, headers)
    }

    /// As [`Vhost::route`], for the client of the session with that queue: the route leaves out subscriptions of
    /// that session which do not want what it publishes itself.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when there is no such exchange.
    pub fn route_from(
        &self,
        session: Option<QueueTarget>,
        exchange: &str,
        keys: &[&[u8]],
        headers: &dyn Fn() -> Table,
    ) -> Result<Route, Refusal> {
        // The generation is read first: a change in between makes the route look older than it is, never newer.
        let generation = self.generation();
        let snapshot = self.snapshot();
        let mut route = Route { generation, targets: Targets::new(), by_key_alone: true };
        if exchange.is_empty() {
            to_queues_named(&snapshot, keys, &mut route.targets);
        } else {
            let first = snapshot.exchanges.get(exchange).ok_or_else(|| Refusal::NotFound(self.exchange(exchange)))?;
            let (route, visited) = (&mut route, SmallVec::new());
            Search { snapshot: &snapshot, session, keys, headers, route, visited }.run(first);
        }
        merge(&mut route.targets);
        Ok(route)
    }
}

/// The default exchange: each queue is bound to it by its name.
fn to_queues_named(snapshot: &Snapshot, keys: &[&[u8]], targets: &mut Targets) {
    for key in keys {
        let queue = std::str::from_utf8(key).ok().and_then(|name| snapshot.queues.get(name));
        targets.extend(queue.map(|queue| Target::queue(queue.target)));
    }
}

/// Follows exchange-to-exchange bindings and alternate exchanges, each exchange once, so that cycles end.
struct Search<'a> {
    snapshot: &'a Snapshot,
    session: Option<QueueTarget>,
    keys: &'a [&'a [u8]],
    headers: &'a dyn Fn() -> Table,
    route: &'a mut Route,
    visited: SmallVec<[&'a str; 4]>,
}

impl<'a> Search<'a> {
    fn run(&mut self, first: &'a Arc<Exchange>) {
        let mut pending: SmallVec<[&'a Arc<Exchange>; 4]> = smallvec::smallvec![first];
        while let Some(exchange) = pending.pop() {
            if self.visited.contains(&&*exchange.name) {
                continue;
            }
            self.visited.push(&exchange.name);
            self.route.by_key_alone &= !exchange.reads_headers();
            let mut found = false;
            for key in self.keys {
                exchange.route(key, self.headers, |destination| {
                    found = true;
                    match destination {
                        Destination::Queue(target) => self.route.targets.push(Target::queue(*target)),
                        Destination::Session(queue, grant) if grant.no_local() && self.session == Some(*queue) => {}
                        Destination::Session(queue, grant) => {
                            self.route.targets.push(Target { queue: *queue, grant: *grant });
                        }
                        Destination::Exchange(name) => pending.extend(self.snapshot.exchanges.get(name)),
                    }
                });
            }
            if !found && let Some(alternate) = exchange.definition.alternate() {
                match alternate {
                    "" => to_queues_named(self.snapshot, self.keys, &mut self.route.targets),
                    name => pending.extend(self.snapshot.exchanges.get(name)),
                }
            }
        }
    }
}
