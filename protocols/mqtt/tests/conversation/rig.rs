//! The one helper that knows how an engine is driven: a broker in memory, clients on wires that are buffers, and a
//! transport that does with them what the real one does.

use std::io::{self, IoSlice};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use portolan_core::access::Access;
use portolan_core::alarms::Alarms;
use portolan_core::broker::{self, Broker, Fetcher};
use portolan_core::catalogue::ConnectionId;
use portolan_core::effect::Fetch;
use portolan_core::engine::{Account, Ask, Barred, Credentials, Directory, Engine, ScramKeys};
use portolan_core::hub::Dialects;
use portolan_core::outbox::Wire;
use portolan_core::store::{Index, Journal};
use portolan_mqtt::codec::Version;
use portolan_mqtt::observe::Unobserved;
use portolan_mqtt::{Connection, DeniedPublish, Mqtt, Settings};

use crate::bytes::{Connect, hello, lasting};
use crate::ledger::Ledger;
use crate::show;

/// Milliseconds since the epoch when a test begins.
pub const START: u64 = 1_000_000;

/// What the client has been sent.
#[derive(Clone, Default)]
pub struct Line(Arc<Mutex<Taken>>);

#[derive(Default)]
struct Taken {
    bytes: Vec<u8>,
    /// Bytes that it still takes, `None` for all.
    room: Option<usize>,
    wakes: usize,
}

impl Wire for Line {
    fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut taken = self.0.lock();
        let all: Vec<u8> = parts.iter().flat_map(|part| part.to_vec()).collect();
        let count = taken.room.unwrap_or(all.len()).min(all.len());
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        taken.room = taken.room.map(|room| room - count);
        taken.bytes.extend_from_slice(&all[..count]);
        Ok(count)
    }

    fn wake(&self) {
        self.0.lock().wakes += 1;
    }
}

/// `guest` may do everything but see topics below `secret`; so may everybody else.
struct User(String);

impl Account for User {
    fn name(&self) -> &str {
        &self.0
    }
    fn enter(&self, vhost: &str, _: Option<&str>) -> Result<Arc<dyn Access>, Barred> {
        if vhost == "/" { Ok(Arc::new(User(self.0.clone()))) } else { Err(Barred::NoAccess) }
    }
}

impl Access for User {
    fn user(&self) -> &str {
        &self.0
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
    fn write_topic(&self, _: &str, key: &[u8]) -> bool {
        !key.starts_with(b"secret")
    }
    fn read_topic(&self, _: &str, pattern: &[u8]) -> bool {
        !pattern.starts_with(b"secret")
    }
    fn receive_topic(&self, _: &str, key: &[u8]) -> bool {
        !key.starts_with(b"hidden")
    }
    fn checks_deliveries(&self) -> bool {
        self.0 == "watched"
    }
    fn unrestricted(&self) -> bool {
        false
    }
    fn impersonator(&self) -> bool {
        false
    }
}

/// Reads at once.
struct Reader(Weak<Broker>);

impl Fetcher for Reader {
    fn fetch(&self, fetch: Fetch) {
        let Some(broker) = self.0.upgrade() else { return };
        let positions: Vec<_> = fetch.entries.iter().map(|&(_, position)| position).collect();
        let mut bodies = Vec::new();
        broker.journal.read(&positions, &mut |at, body| bodies.push((fetch.entries[at].0, body)));
        broker.loaded(fetch.queue, bodies, START);
    }
}

/// The keys of `pencil` with few rounds, whoever asks.
struct Pencil;

impl Directory for Pencil {
    fn scram(&self, _: &str) -> ScramKeys {
        crate::proving::keys()
    }
}

pub fn settings() -> Settings {
    Settings {
        vhost: "/".into(),
        max_packet: 1 << 20,
        session_expiry_max: u32::MAX,
        keep_alive_max: 0,
        receive_max: 100,
        inflight_max: 100,
        topic_alias_max: 10,
        topic_alias_out: 10,
        client_id_max: 200,
        topic_levels: 32,
        subscriptions: 100,
        denied: DeniedPublish::Drop,
        publish_rate: 0,
        journal_backlog: usize::MAX,
        outbox_high: 1 << 20,
        outbox_low: 1 << 19,
        directory: Arc::new(Pencil),
        observer: Arc::new(Unobserved),
    }
}

/// What a transport reads no input for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Paused {
    No,
    Journal(Index),
    Alarm,
    Engine,
}

struct Client {
    engine: Connection,
    line: Line,
    version: Version,
    rest: Vec<u8>,
    paused: Paused,
    again: bool,
    tick_at: u64,
    open: bool,
    over: bool,
    told_over: bool,
}

/// A client in the rig.
#[derive(Clone, Copy, Debug)]
pub struct C(usize);

/// A broker and its clients.
pub struct Rig {
    pub broker: Arc<Broker>,
    pub journal: Arc<Ledger>,
    pub alarms: Arc<Alarms>,
    settings: Arc<Settings>,
    clients: Vec<Client>,
    pub now: u64,
}

fn broker_of(journal: &Arc<Ledger>) -> Arc<Broker> {
    let settings = broker::Settings {
        shards: 2,
        memory_budget: 1 << 30,
        queue_memory: 1 << 20,
        queues: 1000,
        exchanges: 1000,
        bindings: 1000,
        session_messages: 1000,
        sessions: 1000,
        retained_messages: 20,
        retained_bytes: 1 << 20,
    };
    let held: Arc<dyn Journal> = Arc::clone(journal) as _;
    let dialects = Dialects { amqp091: Box::new(crate::crossing::Foreign), mqtt: Box::new(Mqtt) };
    let broker = Arc::new(Broker::new(settings, held, dialects, Arc::default()));
    broker.set_fetcher(Box::new(Reader(Arc::downgrade(&broker))));
    broker
}

impl Rig {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// With other settings.
    pub fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let journal = Arc::<Ledger>::default();
        let broker = broker_of(&journal);
        broker.add_vhost("/").unwrap();
        let mut settings = settings();
        change(&mut settings);
        Self { broker, journal, alarms: Arc::default(), settings: Arc::new(settings), clients: Vec::new(), now: START }
    }

    /// The broker's process ends at once, and another one finds its journal.
    pub fn crash(&mut self) {
        for client in &mut self.clients {
            (client.over, client.told_over) = (true, true);
        }
        let recovered = self.journal.recovered(false);
        self.broker = broker_of(&self.journal);
        self.broker.restore(recovered, self.now);
    }

    /// A connection that has said nothing.
    pub fn raw(&mut self, version: Version) -> C {
        let line = Line::default();
        let id = ConnectionId(self.clients.len() as u64 + 1);
        let peer = "127.0.0.1:1".parse().unwrap();
        let (broker, settings) = (Arc::clone(&self.broker), Arc::clone(&self.settings));
        let alarms = Arc::clone(&self.alarms);
        let engine = Connection::new(broker, settings, alarms, id, peer, Box::new(line.clone()), self.now);
        self.clients.push(Client {
            engine,
            line,
            version,
            rest: Vec::new(),
            paused: Paused::No,
            again: false,
            tick_at: self.now + 1000,
            open: false,
            over: false,
            told_over: false,
        });
        C(self.clients.len() - 1)
    }

    /// A connection that has sent CONNECT.
    pub fn dial(&mut self, connect: &Connect) -> C {
        let client = self.raw(connect.version);
        self.send(client, &connect.bytes());
        client
    }

    /// A connection in use; what CONNACK says is checked to be a success.
    #[track_caller]
    pub fn connect(&mut self, connect: &Connect) -> C {
        let client = self.dial(connect);
        let heard = self.heard(client);
        let accepted = heard.first().is_some_and(|line| line.starts_with("connack") && line[9..].contains(" 00"));
        assert!(accepted && heard.len() == 1, "{heard:?}");
        client
    }

    /// A clean start.
    #[track_caller]
    pub fn clean(&mut self, version: Version, client: &str) -> C {
        self.connect(&hello(version, client))
    }

    /// A session that stays.
    #[track_caller]
    pub fn lasting(&mut self, version: Version, client: &str) -> C {
        self.connect(&lasting(version, client))
    }

    /// The client sends; everything that follows happens.
    pub fn send(&mut self, client: C, bytes: &[u8]) {
        let now = self.now;
        self.clients[client.0].input(bytes, now);
        self.settle();
    }

    /// Sends, and tells what came back.
    pub fn say(&mut self, client: C, bytes: &[u8]) -> Vec<String> {
        self.send(client, bytes);
        self.heard(client)
    }

    /// What came since the last look; `CLOSED` once at the end.
    pub fn heard(&mut self, client: C) -> Vec<String> {
        let client = &mut self.clients[client.0];
        let bytes = std::mem::take(&mut client.line.0.lock().bytes);
        let mut lines = show::lines(client.version, &bytes);
        if client.over && !std::mem::replace(&mut client.told_over, true) {
            lines.push("CLOSED".into());
        }
        lines
    }

    /// The same as bytes.
    pub fn raw_heard(&mut self, client: C) -> Vec<u8> {
        std::mem::take(&mut self.clients[client.0].line.0.lock().bytes)
    }

    /// The transport reads nothing of this client.
    pub fn is_paused(&self, client: C) -> bool {
        self.clients[client.0].paused != Paused::No
    }

    /// The client takes that many bytes more, or all.
    pub fn reads(&mut self, client: C, room: Option<usize>) {
        self.clients[client.0].line.0.lock().room = room;
        self.clients[client.0].engine.flush();
        self.settle();
    }

    /// The network is gone.
    pub fn cut(&mut self, client: C) {
        let now = self.now;
        let client = &mut self.clients[client.0];
        if !std::mem::replace(&mut client.over, true) {
            client.engine.end(now);
        }
        client.told_over = true;
        self.settle();
    }

    /// Time passes, a second at a time at most; clocks are looked at as engines want it.
    pub fn pass(&mut self, mut ms: u64) {
        while ms > 0 {
            let step = ms.min(1000);
            ms -= step;
            self.now += step;
            self.broker.tick(self.now);
            let now = self.now;
            for client in self.clients.iter_mut().filter(|client| !client.over && client.tick_at <= now) {
                let (at, ask) = client.engine.tick(now, client.paused == Paused::No);
                client.tick_at = at;
                client.engine.flush();
                client.follow(ask, now);
            }
            self.settle();
        }
    }

    /// Everything written so far is durable.
    pub fn sync(&mut self) {
        self.journal.sync();
        self.settle();
    }

    /// The broker stops.
    pub fn goodbye(&mut self, client: C) -> Vec<String> {
        let now = self.now;
        let ask = self.clients[client.0].engine.goodbye("stop", now);
        self.clients[client.0].follow(ask, now);
        self.settle();
        self.heard(client)
    }

    /// Calls whoever was woken until nobody is.
    fn settle(&mut self) {
        let now = self.now;
        let durable = self.journal.durable();
        loop {
            let mut quiet = true;
            for client in self.clients.iter_mut().filter(|client| !client.over) {
                quiet &= !client.turn(now, durable);
            }
            if quiet {
                return;
            }
        }
    }
}

impl Client {
    /// As the transport's task does when it is woken. False when there was nothing to do.
    fn turn(&mut self, now: u64, durable: Index) -> bool {
        let woken = std::mem::take(&mut self.line.0.lock().wakes) > 0;
        let caught_up = matches!(self.paused, Paused::Journal(index) if index <= durable);
        if caught_up {
            self.unpause();
        }
        if woken || caught_up {
            if self.paused == Paused::Engine {
                self.unpause();
            }
            self.engine.flush();
            let ask = self.engine.woken(now);
            self.follow(ask, now);
        }
        let again = self.paused == Paused::No && !self.over && std::mem::take(&mut self.again);
        if again && !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            self.handle(&rest, now);
        }
        woken || caught_up || again
    }

    fn unpause(&mut self) {
        self.paused = Paused::No;
        self.again = true;
    }

    fn input(&mut self, bytes: &[u8], now: u64) {
        if self.over {
            return;
        }
        let mut rest = std::mem::take(&mut self.rest);
        rest.extend_from_slice(bytes);
        if self.paused != Paused::No {
            self.rest = rest;
            return;
        }
        self.handle(&rest, now);
    }

    fn handle(&mut self, input: &[u8], now: u64) {
        let mut used = 0;
        loop {
            let (step, ask) = self.engine.receive(&input[used..], now);
            used += step;
            if !(matches!(ask, Ask::More) && step > 0 && used < input.len()) {
                let rest = &input[used..];
                assert!(rest.len() <= self.engine.most_input() + (1 << 16), "the transport can keep the rest");
                self.rest.extend_from_slice(rest);
                self.engine.flush();
                return self.follow(ask, now);
            }
        }
    }

    fn follow(&mut self, ask: Ask, now: u64) {
        match ask {
            Ask::More | Ask::Linger => {}
            Ask::Pause => self.paused = Paused::Alarm,
            Ask::Wait(index) => self.paused = Paused::Journal(index),
            Ask::Hold => self.paused = Paused::Engine,
            Ask::Close { .. } => {
                self.engine.flush();
                self.engine.end(now);
                self.over = true;
            }
            Ask::Login(credentials) => {
                let ask = self.engine.login(account(&credentials), now);
                self.engine.flush();
                if matches!(ask, Ask::More) && !self.rest.is_empty() {
                    let rest = std::mem::take(&mut self.rest);
                    self.handle(&rest, now);
                }
                return self.follow(ask, now);
            }
        }
        if self.engine.is_open() && !self.open {
            self.open = true;
            self.tick_at = now;
        }
    }
}

/// Who knows the password `guest`, or has no name at all.
fn account(credentials: &Credentials) -> Option<Arc<dyn Account>> {
    let name = match credentials {
        Credentials::Anonymous => "guest",
        Credentials::Password { user, password } if password == b"guest" => user,
        Credentials::Password { .. } => return None,
        Credentials::Proven { user } => user,
    };
    Some(Arc::new(User(name.to_owned())))
}

/// For races: what one does while the others have not been called yet.
impl Rig {
    /// The client sends; nobody who is woken by it is called.
    pub fn send_unserved(&mut self, client: C, bytes: &[u8]) {
        let now = self.now;
        self.clients[client.0].input(bytes, now);
    }

    /// The network is gone, and nobody who is woken by it is called.
    pub fn cut_unserved(&mut self, client: C) {
        let now = self.now;
        let client = &mut self.clients[client.0];
        client.engine.end(now);
        (client.over, client.told_over) = (true, true);
    }

    /// One of those who were woken is called.
    pub fn serve_only(&mut self, client: C) {
        let (now, durable) = (self.now, self.journal.durable());
        self.clients[client.0].turn(now, durable);
    }

    /// Everybody who was woken is called.
    pub fn serve(&mut self) {
        self.settle();
    }
}
