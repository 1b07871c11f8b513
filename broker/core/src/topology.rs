//! Exchanges and bindings: declaring, binding and deleting them, with the rules for each.

use std::sync::Arc;

use crate::access::Access;
use crate::broker::Broker;
use crate::catalogue::{Binding, ConnectionId, Snapshot, Vhost};
use crate::effect::Effects;
use crate::exchange::{Destination, Exchange, ExchangeDefinition, ExchangeKind};
use crate::fact::{self, Fact};
use crate::refusal::{Fault, Given, Permission, Refusal, Resource};
use crate::store::{Index, Record, StoreError};
use crate::value::Value;

/// Who asks, and when.
pub struct Caller<'a> {
    /// The connection.
    pub connection: ConnectionId,
    /// What its user may do.
    pub access: &'a dyn Access,
    /// Milliseconds since the epoch.
    pub now: u64,
}

impl Caller<'_> {
    /// Checks one permission.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`] when the user lacks it.
    pub fn must(&self, permission: Permission, resource: &Resource) -> Result<(), Refusal> {
        if self.access.unrestricted() {
            return Ok(());
        }
        let name = if resource.name.is_empty() { "amq.default" } else { &*resource.name };
        let may = match permission {
            Permission::Configure => self.access.configure(name),
            Permission::Write => self.access.write(name),
            Permission::Read => self.access.read(name),
        };
        if may {
            return Ok(());
        }
        let resource = Resource { name: name.into(), ..resource.clone() };
        Err(Refusal::Forbidden { permission, resource, user: self.access.user().into() })
    }
}

/// When a durable change counts: the journal must be durable up to there, `None` for at once.
pub type Durable = Option<Index>;

/// Names of this form are the broker's.
pub(crate) fn reserved(name: &str) -> bool {
    name.starts_with("amq.")
}

/// Each vhost has these from the start: name, type, internal.
pub(crate) const PREDECLARED: [(&str, ExchangeKind, bool); 6] = [
    ("amq.direct", ExchangeKind::Direct, false),
    ("amq.fanout", ExchangeKind::Fanout, false),
    ("amq.topic", ExchangeKind::Topic, false),
    ("amq.headers", ExchangeKind::Headers, false),
    ("amq.match", ExchangeKind::Headers, false),
    ("amq.rabbitmq.trace", ExchangeKind::Topic, true),
];

impl Broker {
    /// Writes a fact, or that it is none any more.
    pub(crate) fn state(&self, fact: &Fact, exists: bool) -> Result<Index, StoreError> {
        let value = fact.value();
        let record = Record::Fact { key: &fact.key(), value: exists.then_some(&*value) };
        Ok(self.journal.append(&record)?.index)
    }

    /// Declares an exchange, or checks that it exists as declared.
    ///
    /// # Errors
    /// The refusal that the declaration deserves.
    pub fn declare_exchange(
        &self,
        vhost: &Vhost,
        name: &str,
        definition: ExchangeDefinition,
        caller: &Caller<'_>,
    ) -> Result<Durable, Refusal> {
        let resource = vhost.exchange(name);
        if name.is_empty() {
            return Err(Refusal::DefaultExchange);
        }
        caller.must(Permission::Configure, &resource)?;
        if let Some(value) = definition.arguments.get("alternate-exchange") {
            if !matches!(value, Value::Text(_)) {
                let fault = Fault::NameType(value.clone());
                return Err(Refusal::InvalidArgument { argument: "alternate-exchange", resource, fault });
            }
            caller.must(Permission::Read, &resource)?;
            caller.must(Permission::Write, &vhost.exchange(definition.alternate().unwrap_or_default()))?;
        }
        let _changing = vhost.changing.lock();
        let snapshot = vhost.snapshot();
        if let Some(known) = snapshot.exchanges.get(name) {
            return same_exchange(&known.definition, &definition, &resource).map(|()| None);
        }
        if reserved(name) {
            return Err(Refusal::Reserved(resource));
        }
        if snapshot.exchanges.len() >= self.settings.exchanges {
            let what = format!("exchanges in vhost '{}'", vhost.name);
            return Err(Refusal::Limit { what, limit: self.settings.exchanges as u64 });
        }
        let durable = definition.durable.then(|| {
            let fact =
                Fact::Exchange { vhost: vhost.name.to_string(), name: name.to_owned(), definition: definition.clone() };
            self.state(&fact, true)
        });
        let durable = durable.transpose()?;
        let mut next = Snapshot::clone(&snapshot);
        next.exchanges.insert(name.into(), Arc::new(Exchange::new(name.into(), Arc::new(definition))));
        vhost.replace(next);
        Ok(durable)
    }

    /// Checks that an exchange exists.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], or [`Refusal::DefaultExchange`] for the nameless one.
    pub fn find_exchange(&self, vhost: &Vhost, name: &str) -> Result<Arc<Exchange>, Refusal> {
        if name.is_empty() {
            return Err(Refusal::DefaultExchange);
        }
        vhost.snapshot().exchanges.get(name).cloned().ok_or_else(|| Refusal::NotFound(vhost.exchange(name)))
    }

    /// Deletes an exchange with its bindings; one that does not exist is as good as deleted.
    ///
    /// # Errors
    /// When it is the broker's own, or in use and `if_unused`.
    pub fn delete_exchange(
        &self,
        vhost: &Vhost,
        name: &str,
        if_unused: bool,
        caller: &Caller<'_>,
    ) -> Result<Durable, Refusal> {
        let resource = vhost.exchange(name);
        if name.is_empty() {
            return Err(Refusal::DefaultExchange);
        }
        caller.must(Permission::Configure, &resource)?;
        if reserved(name) {
            return Err(Refusal::SystemExchange(resource));
        }
        let _changing = vhost.changing.lock();
        let mut next = Snapshot::clone(&vhost.snapshot());
        if !next.exchanges.contains_key(name) {
            return Ok(None);
        }
        if if_unused && !next.bindings_from(name).is_empty() {
            return Err(Refusal::InUse(resource));
        }
        let durable = self.remove_exchange(&mut next, vhost, name)?;
        vhost.replace(next);
        Ok(durable)
    }

    /// Takes an exchange and its bindings out of a snapshot, and with them auto-delete exchanges that lose their
    /// last binding.
    fn remove_exchange(&self, next: &mut Snapshot, vhost: &Vhost, name: &str) -> Result<Durable, StoreError> {
        let Some(exchange) = next.exchanges.remove(name) else {
            return Ok(None);
        };
        next.once_bound.remove(name);
        let mut durable = None;
        if exchange.definition.durable {
            let definition = ExchangeDefinition::clone(&exchange.definition);
            let fact = Fact::Exchange { vhost: vhost.name.to_string(), name: name.to_owned(), definition };
            durable = Some(self.state(&fact, false)?);
        }
        let own = next.bindings_from(name).into_iter().chain(next.bindings_to(false, name));
        let own: Vec<_> = own.collect();
        Ok(self.remove_bindings(next, vhost, &own)?.or(durable))
    }

    /// Takes bindings out of a snapshot.
    pub(crate) fn remove_bindings(
        &self,
        next: &mut Snapshot,
        vhost: &Vhost,
        bindings: &[Arc<Binding>],
    ) -> Result<Durable, StoreError> {
        let mut durable = None;
        for binding in bindings {
            if next.bindings.remove(&fact::binding_id(binding)).is_none() {
                continue;
            }
            next.by_destination.remove(&fact::binding_by_destination(binding));
            let destination = next.destination(binding);
            if let (Some(destination), Some(source)) = (destination, next.exchanges.get_mut(&binding.source)) {
                // Its arguments were accepted when it was made.
                drop(Arc::make_mut(source).bind(&binding.key, &binding.arguments, &destination, false));
            }
            if is_durable(next, binding) {
                let fact = Fact::Binding { vhost: vhost.name.to_string(), binding: Binding::clone(binding) };
                durable = Some(self.state(&fact, false)?);
            }
            durable = self.auto_delete(next, vhost, &binding.source)?.or(durable);
        }
        Ok(durable)
    }

    fn auto_delete(&self, next: &mut Snapshot, vhost: &Vhost, name: &str) -> Result<Durable, StoreError> {
        let goes = next.exchanges.get(name).is_some_and(|exchange| exchange.definition.auto_delete)
            && next.once_bound.contains(name)
            && next.bindings_from(name).is_empty();
        if goes { self.remove_exchange(next, vhost, name) } else { Ok(None) }
    }

    /// Binds, or with `bound` false unbinds. Both are idempotent.
    ///
    /// # Errors
    /// When source or destination is missing (only for binding), forbidden, or exclusive to another connection.
    pub fn bind(&self, vhost: &Vhost, binding: Binding, bound: bool, caller: &Caller<'_>) -> Result<Durable, Refusal> {
        let source = vhost.exchange(&binding.source);
        let destination = match binding.to_queue {
            true => vhost.queue(&binding.destination),
            false => vhost.exchange(&binding.destination),
        };
        if binding.source.is_empty() || !binding.to_queue && binding.destination.is_empty() {
            return Err(Refusal::DefaultExchange);
        }
        caller.must(Permission::Write, &destination)?;
        caller.must(Permission::Read, &source)?;
        let _changing = vhost.changing.lock();
        let mut next = Snapshot::clone(&vhost.snapshot());
        if !bound {
            let durable = self.remove_bindings(&mut next, vhost, &[Arc::new(binding)])?;
            vhost.replace(next);
            return Ok(durable);
        }
        let Some(exchange) = next.exchanges.get(&binding.source) else {
            return Err(Refusal::NotFound(source));
        };
        if exchange.definition.kind == ExchangeKind::Topic {
            topic_permission(Permission::Read, &source, &binding.key, caller)?;
        }
        let Some(to) = next.destination(&binding).filter(|to| exists(&next, to)) else {
            return Err(Refusal::NotFound(destination));
        };
        if let Some(queue) = next.queues.get(&binding.destination).filter(|_| binding.to_queue)
            && queue.owner.is_some_and(|owner| owner != caller.connection)
        {
            return Err(Refusal::Locked(destination));
        }
        let id = fact::binding_id(&binding);
        if next.bindings.contains_key(&id) {
            return Ok(None);
        }
        if next.bindings.len() >= self.settings.bindings {
            let what = format!("bindings in vhost '{}'", vhost.name);
            return Err(Refusal::Limit { what, limit: self.settings.bindings as u64 });
        }
        add_binding(&mut next, &binding, &to)?;
        let durable = match is_durable(&next, &binding) {
            true => Some(self.state(&Fact::Binding { vhost: vhost.name.to_string(), binding }, true)?),
            false => None,
        };
        vhost.replace(next);
        Ok(durable)
    }

    /// Ends what a connection had to itself.
    pub fn end_connection(
        &self,
        vhost: &Vhost,
        connection: ConnectionId,
        exclusive: &[Arc<str>],
        now: u64,
        effects: &mut Effects,
    ) {
        for name in exclusive {
            let queue = vhost.snapshot().queues.get(name).cloned();
            // One that went by itself may have left its name to another connection's queue.
            if let Some(queue) = queue.filter(|queue| queue.owner == Some(connection)) {
                self.remove_queue(vhost, &queue, now, effects);
            }
        }
    }
}

fn same_exchange(known: &ExchangeDefinition, new: &ExchangeDefinition, resource: &Resource) -> Result<(), Refusal> {
    let differs = |argument: &str, received, current| {
        Err(Refusal::Inequivalent { argument: argument.to_owned(), resource: resource.clone(), received, current })
    };
    if known.kind != new.kind {
        return differs("type", Given::Word(new.kind.name().into()), Given::Word(known.kind.name().into()));
    }
    let flags = [
        ("durable", new.durable, known.durable),
        ("auto_delete", new.auto_delete, known.auto_delete),
        ("internal", new.internal, known.internal),
    ];
    if let Some((name, received, current)) = flags.into_iter().find(|(_, received, current)| received != current) {
        return differs(name, Given::Flag(received), Given::Flag(current));
    }
    let name = "alternate-exchange";
    let (received, current) = (new.arguments.get(name), known.arguments.get(name));
    let same = match (received, current) {
        (Some(a), Some(b)) => a.same(b),
        (a, b) => a.is_none() && b.is_none(),
    };
    if same {
        return Ok(());
    }
    differs(name, Given::Argument(received.cloned()), Given::Argument(current.cloned()))
}

/// Adds a binding to a snapshot and to its source's routing.
pub(crate) fn add_binding(next: &mut Snapshot, binding: &Binding, to: &Destination) -> Result<(), Refusal> {
    if let Some(source) = next.exchanges.get_mut(&binding.source) {
        Arc::make_mut(source).bind(&binding.key, &binding.arguments, to, true)?;
    }
    let shared = Arc::new(binding.clone());
    next.once_bound.insert(Arc::clone(&binding.source));
    next.by_destination.insert(fact::binding_by_destination(binding), Arc::clone(&shared));
    next.bindings.insert(fact::binding_id(binding), shared);
    Ok(())
}

fn exists(snapshot: &Snapshot, destination: &Destination) -> bool {
    match destination {
        Destination::Queue(_) | Destination::Session(..) => true,
        Destination::Exchange(name) => snapshot.exchanges.contains_key(name),
    }
}

/// A binding is durable when both its ends are. An exclusive queue goes with its connection, so nothing of it is
/// remembered, whatever it was declared to be.
pub(crate) fn is_durable(snapshot: &Snapshot, binding: &Binding) -> bool {
    let source = snapshot.exchanges.get(&binding.source).is_none_or(|exchange| exchange.definition.durable);
    let destination = match binding.to_queue {
        true => snapshot
            .queues
            .get(&binding.destination)
            .is_none_or(|queue| queue.definition.durable && !queue.definition.exclusive),
        false => snapshot.exchanges.get(&binding.destination).is_none_or(|exchange| exchange.definition.durable),
    };
    source && destination
}

/// Checks the permission for a key of a topic exchange.
///
/// # Errors
/// [`Refusal::TopicForbidden`] when the user lacks it.
pub fn topic_permission(
    permission: Permission,
    exchange: &Resource,
    key: &[u8],
    caller: &Caller<'_>,
) -> Result<(), Refusal> {
    let may = caller.access.unrestricted()
        || match permission {
            Permission::Write => caller.access.write_topic(&exchange.name, key),
            Permission::Read | Permission::Configure => caller.access.read_topic(&exchange.name, key),
        };
    if may {
        return Ok(());
    }
    let key = String::from_utf8_lossy(key).into_owned();
    let user = caller.access.user().into();
    Err(Refusal::TopicForbidden { permission, resource: exchange.clone(), key, user })
}
