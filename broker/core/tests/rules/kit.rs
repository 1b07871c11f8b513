//! The one helper that knows the core's interface, so that the tests read like tables.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use parking_lot::Mutex;
use portolan_core::access::Access;
use portolan_core::broker::{Batch, Broker, Fetcher, Settings};
use portolan_core::catalogue::{Binding, ConnectionId, Vhost};
use portolan_core::consumer::Consumer;
use portolan_core::dead_letter::Dialect;
use portolan_core::delivery::{ConsumerRef, DeliveryRef, Outcome, Settlement, SharedCredit};
use portolan_core::effect::{Effects, Fetch};
use portolan_core::exchange::{ExchangeDefinition, ExchangeKind};
use portolan_core::hub::{Dialects, Hub};
use portolan_core::message::{Facts, Message, Origin, Span};
use portolan_core::queue::Got;
use portolan_core::queues::{Declared, QueueWish};
use portolan_core::refusal::Refusal;
use portolan_core::restore::Restored;
use portolan_core::store::{Journal, QueueId};
use portolan_core::topology::Caller;
use portolan_core::value::{Table, Value};

use crate::client::Client;
use crate::ledger::Ledger;

/// Properties are the headers, serialised.
struct Plain;

impl Dialect for Plain {
    fn headers(&self, message: &Message) -> Table {
        rmp_serde::from_slice(message.properties()).unwrap_or_default()
    }

    fn dead_lettered(&self, message: &Message, headers: &Table, exchange: &str, routing_key: &[u8]) -> Message {
        let facts = Facts { ttl: None, ..*message.facts() };
        Message::assemble(facts, exchange.as_bytes(), routing_key, &encode(headers), message.body())
    }

    fn expiration(&self, message: &Message) -> Option<Arc<str>> {
        message.facts().ttl.map(|ttl| ttl.to_string().into())
    }

    fn hub(&self, message: &Message) -> Hub {
        Hub { application: self.headers(message), ..Hub::default() }
    }

    fn encode(&self, hub: &Hub, _: &Message) -> Vec<u8> {
        encode(&hub.application)
    }
}

fn encode(headers: &Table) -> Vec<u8> {
    rmp_serde::to_vec(headers).expect("plain data")
}

struct Anything;

impl Access for Anything {
    fn user(&self) -> &str {
        "tester"
    }
    fn configure(&self, _: &str) -> bool {
        true
    }
    fn write(&self, _: &str) -> bool {
        true
    }
    fn read(&self, _: &str) -> bool {
        true
    }
    fn write_topic(&self, _: &str, _: &[u8]) -> bool {
        true
    }
    fn read_topic(&self, _: &str, _: &[u8]) -> bool {
        true
    }
    fn unrestricted(&self) -> bool {
        true
    }
    fn impersonator(&self) -> bool {
        true
    }
}

/// Fetches that wait until the test reads them.
#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<Vec<Fetch>>>);

impl Fetcher for Shelf {
    fn fetch(&self, fetch: Fetch) {
        self.0.lock().push(fetch);
    }
}

/// A message to publish.
#[derive(Clone, Default)]
pub struct Post {
    pub body: String,
    pub priority: u8,
    pub persistent: bool,
    pub ttl: Option<u64>,
    pub headers: Table,
}

/// A transient message.
pub fn post(body: &str) -> Post {
    Post { body: body.into(), ..Post::default() }
}

/// A persistent message.
pub fn kept(body: &str) -> Post {
    Post { persistent: true, ..post(body) }
}

pub fn table(values: &[(&str, Value)]) -> Table {
    Table(values.iter().map(|(name, value)| ((*name).into(), value.clone())).collect())
}

pub fn int(number: i64) -> Value {
    Value::I64(number)
}

pub fn text(text: &str) -> Value {
    Value::text(text)
}

/// How to consume.
#[derive(Clone, Default)]
pub struct Claim {
    pub number: u32,
    pub settled: bool,
    pub priority: i32,
    pub credit: Option<u32>,
    pub shared: Option<Arc<SharedCredit>>,
    pub exclusive: bool,
}

pub const CONNECTION: ConnectionId = ConnectionId(1);

/// A broker with one vhost, a clock that stands still and a journal that checks.
pub struct Kit {
    pub broker: Arc<Broker>,
    pub journal: Arc<Ledger>,
    pub vhost: Arc<Vhost>,
    pub now: Cell<u64>,
    /// Tags of publishes that a queue refused.
    pub refused: Cell<usize>,
    shelf: Shelf,
    effects: RefCell<Effects>,
    pub settings: Settings,
}

pub fn settings() -> Settings {
    Settings {
        shards: 3,
        memory_budget: 1 << 30,
        queue_memory: 1 << 20,
        queues: 1000,
        exchanges: 1000,
        bindings: 1000,
        session_messages: 1000,
        sessions: 1000,
        retained_messages: 100_000,
        retained_bytes: 1 << 30,
    }
}

impl Kit {
    pub fn new() -> Self {
        Self::with(settings())
    }

    pub fn with(settings: Settings) -> Self {
        let kit = Self::over(settings, Arc::default());
        kit.broker.add_vhost("/").expect("a vhost");
        Self { vhost: kit.broker.vhost("/").expect("a vhost"), ..kit }
    }

    fn over(settings: Settings, journal: Arc<Ledger>) -> Self {
        let held: Arc<dyn Journal> = Arc::clone(&journal) as _;
        let broker = Arc::new(Broker::new(
            settings.clone(),
            held,
            Dialects { amqp091: Box::new(Plain), mqtt: Box::new(Plain) },
            Arc::default(),
        ));
        let shelf = Shelf::default();
        broker.set_fetcher(Box::new(shelf.clone()));
        Self {
            vhost: Arc::new(Vhost::new("none".into(), Default::default())),
            broker,
            journal,
            now: Cell::new(1_000_000),
            refused: Cell::new(0),
            shelf,
            effects: RefCell::default(),
            settings,
        }
    }

    /// The same data in a new process; after a crash everything counts as redelivered.
    pub fn restart(self, clean: bool) -> (Self, Restored) {
        if clean {
            self.broker.note_redelivered();
        }
        let recovered = self.journal.recovered(clean);
        let kit = Self::over(self.settings.clone(), Arc::clone(&self.journal));
        kit.now.set(self.now.get());
        let restored = kit.broker.restore(recovered, kit.now.get());
        let vhost = kit.broker.vhost("/").expect("a vhost");
        (Self { vhost, ..kit }, restored)
    }

    pub fn as_caller<T>(&self, connection: ConnectionId, work: impl FnOnce(&Caller<'_>, &mut Effects) -> T) -> T {
        let caller = Caller { connection, access: &Anything, now: self.now.get() };
        let mut effects = self.effects.borrow_mut();
        let done = work(&caller, &mut effects);
        self.broker.carry_out(&mut effects, self.now.get());
        self.refused.set(self.refused.get() + effects.refused.drain(..).count());
        done
    }

    pub fn declare_as(
        &self,
        connection: ConnectionId,
        name: &str,
        change: impl FnOnce(&mut QueueWish<'_>),
        arguments: &[(&str, Value)],
    ) -> Result<Declared, Refusal> {
        let mut wish = QueueWish {
            name,
            generated: false,
            durable: true,
            exclusive: false,
            auto_delete: false,
            arguments: table(arguments),
        };
        change(&mut wish);
        self.as_caller(connection, |caller, effects| self.broker.declare_queue(&self.vhost, wish, caller, effects))
    }

    /// A durable queue.
    pub fn queue(&self, name: &str, arguments: &[(&str, Value)]) -> QueueId {
        self.declare_as(CONNECTION, name, |_| {}, arguments).expect("declared");
        self.id(name)
    }

    pub fn id(&self, name: &str) -> QueueId {
        self.vhost.snapshot().queues.get(name).expect("exists").target.id
    }

    pub fn exists(&self, name: &str) -> bool {
        self.vhost.snapshot().queues.contains_key(name)
    }

    pub fn exchange_exists(&self, name: &str) -> bool {
        self.vhost.snapshot().exchanges.contains_key(name)
    }

    pub fn exchange_with(&self, name: &str, kind: ExchangeKind, auto_delete: bool, arguments: &[(&str, Value)]) {
        let definition =
            ExchangeDefinition { kind, durable: true, auto_delete, internal: false, arguments: table(arguments) };
        self.as_caller(CONNECTION, |caller, _| self.broker.declare_exchange(&self.vhost, name, definition, caller))
            .expect("declared");
    }

    pub fn exchange(&self, name: &str, kind: ExchangeKind) {
        self.exchange_with(name, kind, false, &[]);
    }

    fn binding(source: &str, to_queue: bool, destination: &str, key: &str, arguments: &[(&str, Value)]) -> Binding {
        Binding {
            source: source.into(),
            to_queue,
            destination: destination.into(),
            key: key.as_bytes().into(),
            arguments: table(arguments),
        }
    }

    fn edit(&self, binding: Binding, bound: bool) {
        self.as_caller(CONNECTION, |caller, _| self.broker.bind(&self.vhost, binding, bound, caller)).expect("bound");
    }

    pub fn bind(&self, source: &str, queue: &str, key: &str) {
        self.bind_with(source, queue, key, &[]);
    }

    pub fn bind_with(&self, source: &str, queue: &str, key: &str, arguments: &[(&str, Value)]) {
        self.edit(Self::binding(source, true, queue, key, arguments), true);
    }

    pub fn unbind(&self, source: &str, queue: &str, key: &str) {
        self.edit(Self::binding(source, true, queue, key, &[]), false);
    }

    pub fn unbind_with(&self, source: &str, queue: &str, key: &str, arguments: &[(&str, Value)]) {
        self.edit(Self::binding(source, true, queue, key, arguments), false);
    }

    pub fn bind_exchange(&self, source: &str, destination: &str, key: &str) {
        self.edit(Self::binding(source, false, destination, key, &[]), true);
    }

    pub fn unbind_exchange(&self, source: &str, destination: &str, key: &str) {
        self.edit(Self::binding(source, false, destination, key, &[]), false);
    }

    /// Names of the queues that a message goes to.
    pub fn routed(&self, exchange: &str, keys: &[&str], headers: &[(&str, Value)]) -> Vec<String> {
        let keys: Vec<&[u8]> = keys.iter().map(|key| key.as_bytes()).collect();
        let headers = table(headers);
        let route = self.vhost.route(exchange, &keys, &|| headers.clone()).expect("an exchange");
        let snapshot = self.vhost.snapshot();
        let name = |id| snapshot.queues.values().find(|queue| queue.target.id == id).expect("exists").name.to_string();
        let mut names: Vec<_> = route.targets.iter().map(|target| name(target.queue.id)).collect();
        names.sort();
        names
    }

    pub fn message(&self, exchange: &str, key: &str, post: &Post) -> Message {
        let none = Span::default();
        let facts = Facts {
            exchange: none,
            routing_key: none,
            properties: none,
            body: none,
            origin: Origin::Amqp091,
            priority: post.priority,
            persistent: post.persistent,
            ttl: post.ttl,
        };
        Message::assemble(facts, exchange.as_bytes(), key.as_bytes(), &encode(&post.headers), post.body.as_bytes())
    }

    pub fn publish_to(&self, exchange: &str, key: &str, posts: &[Post]) {
        self.as_caller(CONNECTION, |caller, effects| {
            let mut batch = Batch::default();
            for post in posts {
                let headers = || post.headers.clone();
                let route = self.vhost.route(exchange, &[key.as_bytes()], &headers).expect("an exchange");
                batch.add(&route.targets, self.message(exchange, key, post), 1);
            }
            self.broker.publish(&mut batch, caller.now, effects);
        });
    }

    pub fn publish(&self, queue: &str, post: Post) {
        self.publish_to("", queue, &[post]);
    }

    /// Publishes transient messages with these bodies.
    pub fn fill(&self, queue: &str, bodies: &[&str]) {
        let posts: Vec<_> = bodies.iter().map(|body| post(body)).collect();
        self.publish_to("", queue, &posts);
    }

    /// Publishes persistent messages with these bodies.
    pub fn store(&self, queue: &str, bodies: &[&str]) {
        let posts: Vec<_> = bodies.iter().map(|body| kept(body)).collect();
        self.publish_to("", queue, &posts);
    }

    pub fn try_consume(&self, queue: &str, client: &Arc<Client>, claim: Claim) -> Result<ConsumerRef, Refusal> {
        let consumer = Consumer {
            recipient: Arc::clone(client) as _,
            session: 0,
            number: claim.number,
            settled: claim.settled,
            priority: claim.priority,
            credit: claim.credit,
            shared: claim.shared,
            exclusive: claim.exclusive,
        };
        self.as_caller(CONNECTION, |caller, effects| {
            self.broker.subscribe(&self.vhost, queue, consumer, caller, effects, |_| {})
        })
    }

    pub fn consume(&self, queue: &str, client: &Arc<Client>, claim: Claim) -> ConsumerRef {
        self.try_consume(queue, client, claim).expect("consumes")
    }

    pub fn cancel(&self, consumer: ConsumerRef) {
        self.as_caller(CONNECTION, |caller, effects| self.broker.unsubscribe(consumer, caller.now, effects));
    }

    pub fn resume(&self, consumer: ConsumerRef) {
        self.as_caller(CONNECTION, |caller, effects| self.broker.resume(&[consumer], caller.now, effects));
    }

    pub fn settle(&self, delivery: Option<DeliveryRef>, outcome: Outcome) {
        self.settle_all([delivery], outcome);
    }

    pub fn settle_all(&self, deliveries: impl IntoIterator<Item = Option<DeliveryRef>>, outcome: Outcome) {
        let end = |delivery: Option<DeliveryRef>| Settlement { delivery: delivery.expect("unsettled"), outcome };
        let settlements: Vec<_> = deliveries.into_iter().map(end).collect();
        self.as_caller(CONNECTION, |caller, effects| self.broker.settle(&settlements, caller.now, effects));
    }

    pub fn get(&self, queue: &str, settled: bool) -> Option<Got> {
        self.as_caller(CONNECTION, |caller, effects| {
            self.broker.get(&self.vhost, queue, settled, caller, effects).expect("may get")
        })
    }

    /// Takes everything that a client would get one by one: bodies, with a star when redelivered.
    pub fn drain(&self, queue: &str) -> Vec<String> {
        let show = |got: Got| {
            let body = String::from_utf8_lossy(got.message.body()).into_owned();
            if got.redelivered { body + "*" } else { body }
        };
        std::iter::from_fn(|| self.get(queue, true).map(show)).collect()
    }

    /// Takes one message and returns its headers.
    pub fn headers(&self, queue: &str) -> Table {
        Plain.headers(&self.get(queue, true).expect("a message").message)
    }

    pub fn ready(&self, queue: &str) -> usize {
        self.as_caller(CONNECTION, |caller, effects| {
            self.broker.inspect_queue(&self.vhost, queue, caller, effects).expect("exists").ready
        })
    }

    pub fn purge(&self, queue: &str) -> usize {
        self.as_caller(CONNECTION, |caller, effects| {
            self.broker.purge_queue(&self.vhost, queue, caller, effects).expect("exists")
        })
    }

    pub fn delete(&self, queue: &str) -> usize {
        self.as_caller(CONNECTION, |caller, effects| {
            self.broker.delete_queue(&self.vhost, queue, false, false, caller, effects).expect("may delete").0
        })
    }

    /// Time passes, and what is due expires.
    pub fn pass(&self, ms: u64) {
        self.now.set(self.now.get() + ms);
        self.broker.tick(self.now.get());
    }

    /// Reads what queues asked for, until they ask for no more. Returns how many bodies were read.
    pub fn load(&self) -> usize {
        let mut count = 0;
        while let Some(fetch) = self.next_fetch() {
            count += fetch.entries.len();
            self.answer(fetch);
        }
        count
    }

    pub fn next_fetch(&self) -> Option<Fetch> {
        let mut shelf = self.shelf.0.lock();
        (!shelf.is_empty()).then(|| shelf.remove(0))
    }

    pub fn answer(&self, fetch: Fetch) {
        let positions: Vec<_> = fetch.entries.iter().map(|&(_, position)| position).collect();
        let mut bodies = Vec::new();
        self.journal.read(&positions, &mut |at, body| bodies.push((fetch.entries[at].0, body)));
        self.broker.loaded(fetch.queue, bodies, self.now.get());
    }

    pub fn move_all(&self) -> Vec<String> {
        self.journal.move_all(&*self.broker)
    }
}
