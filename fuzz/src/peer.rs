//! A broker in memory, and clients whose every byte is the fuzzer's.

use std::collections::HashMap;
use std::io::{self, IoSlice};
use std::sync::Arc;

use parking_lot::Mutex;
use portolan_amqp091::codec::{Limits, frame};
use portolan_amqp091::{Amqp091, Connection, Settings};
use portolan_core::access::Access;
use portolan_core::alarms::Alarms;
use portolan_core::broker::{self, Broker, Fetcher};
use portolan_core::catalogue::ConnectionId;
use portolan_core::effect::Fetch;
use portolan_core::engine::{Account, Ask, Barred, Credentials, Engine};
use portolan_core::hub::Dialects;
use portolan_core::outbox::Wire;
use portolan_mqtt::Mqtt;
use portolan_storage::MemoryJournal;

/// What every connection begins with: header, start-ok, tune-ok for frames of 4096 bytes, open of "/".
pub const HANDSHAKE: &[u8] = include_bytes!("handshake.bin");
/// The frame size that it agrees on.
const FRAME_MAX: usize = 4096;
/// Milliseconds since the epoch when a run begins.
const NOW: u64 = 1_000_000;

#[derive(Clone, Default)]
struct Line(Arc<Mutex<Vec<u8>>>);

impl Wire for Line {
    fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut written = self.0.lock();
        parts.iter().for_each(|part| written.extend_from_slice(part));
        Ok(parts.iter().map(|part| part.len()).sum())
    }

    fn wake(&self) {}
}

pub(crate) struct Anyone;

impl Account for Anyone {
    fn name(&self) -> &str {
        "guest"
    }
    fn enter(&self, _: &str, _: Option<&str>) -> Result<Arc<dyn Access>, Barred> {
        Ok(Arc::new(Anyone))
    }
}

impl Access for Anyone {
    fn user(&self) -> &str {
        "guest"
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
        false
    }
    fn impersonator(&self) -> bool {
        false
    }
}

/// Fetches wait until the world reads them, as they wait for a thread otherwise.
#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<Vec<Fetch>>>);

impl Fetcher for Shelf {
    fn fetch(&self, fetch: Fetch) {
        self.0.lock().push(fetch);
    }
}

/// A broker, small enough for its limits to be met.
pub struct World {
    pub broker: Arc<Broker>,
    shelf: Shelf,
    settings: Arc<Settings>,
    alarms: Arc<Alarms>,
    pub now: u64,
}

impl Default for World {
    fn default() -> Self {
        let limits = broker::Settings {
            shards: 2,
            memory_budget: 4096,
            queue_memory: 512,
            queues: 20,
            exchanges: 20,
            bindings: 50,
            session_messages: 1000,
            sessions: 1000,
            retained_messages: 1000,
            retained_bytes: 1 << 20,
        };
        let journal = Arc::new(MemoryJournal::default());
        let dialects = Dialects { amqp091: Box::new(Amqp091), mqtt: Box::new(Mqtt) };
        let broker = Arc::new(Broker::new(limits, journal, dialects, Arc::default()));
        let shelf = Shelf::default();
        broker.set_fetcher(Box::new(shelf.clone()));
        broker.add_vhost("/").expect("memory takes it");
        let settings = Settings {
            channel_max: 10,
            frame_max: 131_072,
            heartbeat: 60,
            message_max: 64 << 10,
            tables: Limits::default(),
            default_types: HashMap::new(),
            unsettled: 20,
            consumers: 5,
            consumer_timeout: 60_000,
            transaction_bytes: 8192,
            journal_backlog: usize::MAX,
            product: "Portolan".into(),
            version: "0".into(),
            outbox_high: 16 << 10,
            outbox_low: 8 << 10,
        };
        Self { broker, shelf, settings: Arc::new(settings), alarms: Arc::default(), now: NOW }
    }
}

impl World {
    /// A connection that has said nothing.
    pub fn raw(&self, id: u64) -> Peer {
        let line = Line::default();
        let (broker, settings) = (Arc::clone(&self.broker), Arc::clone(&self.settings));
        let alarms = Arc::clone(&self.alarms);
        let engine = Connection::new(broker, settings, alarms, ConnectionId(id), Box::new(line.clone()), self.now);
        Peer { engine, line, input: Vec::new(), over: false }
    }

    /// A connection in use.
    pub fn peer(&self, id: u64) -> Peer {
        let mut peer = self.raw(id);
        peer.send(HANDSHAKE, self.now);
        assert!(peer.engine.is_open() && !peer.engine.is_closing(), "the handshake goes through");
        peer
    }

    /// Reads what queues asked for.
    pub fn load(&self) {
        loop {
            let Some(fetch) = self.shelf.0.lock().pop() else { return };
            let positions: Vec<_> = fetch.entries.iter().map(|&(_, position)| position).collect();
            let mut bodies = Vec::new();
            self.broker.journal.read(&positions, &mut |at, body| bodies.push((fetch.entries[at].0, body)));
            self.broker.loaded(fetch.queue, bodies, self.now);
        }
    }

    /// Time passes.
    pub fn pass(&mut self, ms: u64, peers: &mut [Peer]) {
        self.now += ms;
        self.broker.tick(self.now);
        for peer in peers.iter_mut().filter(|peer| !peer.over) {
            let (_, ask) = peer.engine.tick(self.now, true);
            peer.heed(ask);
        }
    }

    /// Ends every connection; then nobody consumes or holds anything.
    pub fn end(self, peers: Vec<Peer>) {
        peers.into_iter().for_each(|peer| peer.leave(self.now));
        self.load();
        let census = self.broker.census();
        assert_eq!((census.consumers, census.unsettled), (0, 0), "an ended connection leaves nothing behind");
    }
}

/// A connection and what its transport keeps.
pub struct Peer {
    engine: Connection,
    line: Line,
    input: Vec<u8>,
    over: bool,
}

impl Peer {
    /// Hands bytes in as a transport does.
    pub fn send(&mut self, bytes: &[u8], now: u64) {
        if self.over {
            return;
        }
        self.input.extend_from_slice(bytes);
        while !self.over {
            let (used, ask) = self.engine.receive(&self.input, now);
            assert!(used <= self.input.len());
            self.input.drain(..used);
            match ask {
                Ask::Login(credentials) => {
                    let Credentials::Password { user, password } = &credentials else {
                        unreachable!("0-9-1 has no other")
                    };
                    let known = user == "guest" && password == b"guest";
                    let account = known.then(|| Arc::new(Anyone) as Arc<dyn Account>);
                    let ask = self.engine.login(account, now);
                    self.heed(ask);
                }
                ask => self.heed(ask),
            }
            if used == 0 || self.input.is_empty() {
                break;
            }
        }
        assert!(self.over || self.input.len() <= self.engine.most_input(), "more is kept than is agreed");
        if self.engine.is_open() {
            let ask = self.engine.woken(now);
            self.heed(ask);
        }
    }

    fn heed(&mut self, ask: Ask) {
        self.over |= matches!(ask, Ask::Close { .. });
    }

    /// The connection is lost.
    pub fn leave(mut self, now: u64) {
        self.check_output();
        self.engine.end(now);
    }

    /// Everything that was sent is whole frames of the agreed size.
    fn check_output(&mut self) {
        self.engine.flush();
        let written = std::mem::take(&mut *self.line.0.lock());
        let mut rest = &written[..];
        while !rest.is_empty() {
            if rest.starts_with(b"AMQP") {
                rest = &rest[8..];
                continue;
            }
            let frame = frame::split(rest, FRAME_MAX).expect("a frame").expect("a whole frame");
            rest = &rest[frame.size..];
        }
    }
}
