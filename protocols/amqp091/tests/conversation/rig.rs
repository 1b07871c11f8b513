//! The one helper that knows how an engine is driven.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use portolan_amqp091::codec::Limits;
use portolan_amqp091::{Amqp091, Connection, Settings};
use portolan_core::access::Access;
use portolan_core::alarms::Alarms;
use portolan_core::broker::{self, Broker, Fetcher};
use portolan_core::catalogue::ConnectionId;
use portolan_core::effect::Fetch;
use portolan_core::engine::{Account, Ask, Barred, Credentials, Engine};
use portolan_core::hub::Dialects;
use portolan_core::outbox::Wire;
use portolan_core::store::Journal;

use crate::bytes::{HEADER, open, open_vhost, start_ok, tune_ok};
use crate::ledger::Ledger;
use crate::show;

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

struct User;

impl Account for User {
    fn name(&self) -> &str {
        "guest"
    }
    fn enter(&self, vhost: &str, _: Option<&str>) -> Result<Arc<dyn Access>, Barred> {
        if vhost == "/" { Ok(Arc::new(User)) } else { Err(Barred::NoAccess) }
    }
}

impl Access for User {
    fn user(&self) -> &str {
        "guest"
    }
    fn configure(&self, name: &str) -> bool {
        !name.starts_with("secret")
    }
    fn write(&self, name: &str) -> bool {
        !name.starts_with("secret")
    }
    fn read(&self, name: &str) -> bool {
        !name.starts_with("secret")
    }
    fn write_topic(&self, _: &str, _: &[u8]) -> bool {
        true
    }
    fn read_topic(&self, _: &str, _: &[u8]) -> bool {
        true
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
        broker.loaded(fetch.queue, bodies, 1_000_000);
    }
}

/// A broker to connect to.
pub struct Rig {
    pub broker: Arc<Broker>,
    pub journal: Arc<Ledger>,
    pub alarms: Arc<Alarms>,
    pub settings: Settings,
}

pub const FRAME_MAX: u32 = 4096;

impl Rig {
    pub fn new() -> Self {
        let journal = Arc::<Ledger>::default();
        let settings = broker::Settings {
            shards: 2,
            memory_budget: 1 << 30,
            queue_memory: 1 << 20,
            queues: 1000,
            exchanges: 1000,
            bindings: 1000,
            session_messages: 1000,
            sessions: 1000,
            retained_messages: 1000,
            retained_bytes: 1 << 20,
        };
        let held: Arc<dyn Journal> = Arc::clone(&journal) as _;
        let dialects = Dialects { amqp091: Box::new(Amqp091), mqtt: Box::new(crate::translating::Foreign) };
        let broker = Arc::new(Broker::new(settings, held, dialects, Arc::default()));
        broker.set_fetcher(Box::new(Reader(Arc::downgrade(&broker))));
        broker.add_vhost("/").unwrap();
        let settings = Settings {
            channel_max: 10,
            frame_max: 131_072,
            heartbeat: 60,
            message_max: 1 << 20,
            tables: Limits::default(),
            default_types: HashMap::new(),
            unsettled: 1000,
            consumers: 100,
            consumer_timeout: 0,
            transaction_bytes: 1 << 20,
            journal_backlog: usize::MAX,
            product: "Portolan".into(),
            version: "1".into(),
            outbox_high: 1 << 20,
            outbox_low: 1 << 19,
        };
        Self { broker, journal, alarms: Arc::default(), settings }
    }

    /// A connection that has not said anything.
    pub fn raw(&self, id: u64) -> Peer {
        let line = Line::default();
        let wire = Box::new(line.clone());
        let (broker, settings) = (Arc::clone(&self.broker), Arc::new(self.settings.clone()));
        let engine = Connection::new(broker, settings, Arc::clone(&self.alarms), ConnectionId(id), wire, 1_000_000);
        Peer { engine, line, input: Vec::new(), now: 1_000_000, ask: Ask::More, frame_max: 131_072 }
    }

    /// A connection in use, with channel 1 open.
    pub fn peer(&self, id: u64) -> Peer {
        let mut peer = self.raw(id);
        peer.shake(&["consumer_cancel_notify", "connection.blocked", "authentication_failure_close"], 0);
        peer.send(&open(1));
        peer.heard();
        peer
    }
}

/// A client of the engine.
pub struct Peer {
    pub engine: Connection,
    line: Line,
    input: Vec<u8>,
    pub now: u64,
    /// What the engine asked for last.
    pub ask: Ask,
    frame_max: usize,
}

impl Peer {
    pub fn shake(&mut self, capabilities: &[&str], heartbeat: u16) {
        self.send(HEADER);
        self.send(&start_ok(capabilities));
        self.send(&tune_ok(10, FRAME_MAX, heartbeat));
        self.send(&open_vhost("/"));
        let heard = self.heard();
        assert_eq!(heard, ["0 start", "0 tune 10 131072 60", "0 open-ok"]);
        self.frame_max = FRAME_MAX as usize;
    }

    /// Hands bytes in as a transport does: what is not used stays in front of what comes next.
    pub fn send(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
        loop {
            let (used, ask) = self.engine.receive(&self.input, self.now);
            self.input.drain(..used);
            self.ask = ask;
            match &self.ask {
                Ask::Login(credentials) => {
                    let known = matches!(&credentials, Credentials::Password { user, password } if user == "guest" && password == b"guest");
                    let account = known.then(|| Arc::new(User) as Arc<dyn Account>);
                    self.ask = self.engine.login(account, self.now);
                }
                Ask::Close { .. } => return,
                _ => {}
            }
            if used == 0 || self.input.is_empty() {
                assert!(self.input.len() <= self.engine.most_input(), "the transport can keep the rest");
                return;
            }
        }
    }

    /// Sends, and tells what came back.
    pub fn say(&mut self, bytes: &[u8]) -> Vec<String> {
        self.send(bytes);
        self.heard()
    }

    pub fn heard(&mut self) -> Vec<String> {
        show::lines(&self.raw_heard(), self.frame_max)
    }

    pub fn raw_heard(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.line.0.lock().bytes)
    }

    /// The client reads that many bytes more, or all.
    pub fn reads(&mut self, room: Option<usize>) {
        self.line.0.lock().room = room;
        self.engine.flush();
        while std::mem::take(&mut self.line.0.lock().wakes) > 0 {
            self.ask = self.engine.woken(self.now);
        }
    }

    /// Time passes; the engine is called as it wants.
    pub fn tick(&mut self, ms: u64) -> Vec<String> {
        self.now += ms;
        self.ask = self.engine.tick(self.now, true).1;
        self.heard()
    }

    pub fn resume(&mut self) -> Vec<String> {
        self.ask = self.engine.resume(self.now);
        self.heard()
    }

    pub fn goodbye(&mut self, reason: &str) -> Vec<String> {
        self.ask = self.engine.goodbye(reason, self.now);
        self.heard()
    }

    /// The transport found the connection gone.
    pub fn end(mut self) {
        self.engine.end(self.now);
    }

    pub fn closes(&self) -> bool {
        matches!(self.ask, Ask::Close { .. })
    }
}
