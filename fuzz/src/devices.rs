//! A broker in memory, and MQTT clients whose packets are mostly well formed and whose order is the fuzzer's.

use std::io::{self, IoSlice};
use std::sync::Arc;

use parking_lot::Mutex;
use portolan_amqp091::Amqp091;
use portolan_core::alarms::Alarms;
use portolan_core::broker::{self, Batch, Broker, Fetcher};
use portolan_core::catalogue::ConnectionId;
use portolan_core::effect::{Effects, Fetch};
use portolan_core::engine::{Account, Ask, Credentials, Directory, Engine, ScramKeys};
use portolan_core::hub::Dialects;
use portolan_core::message::{Facts, Message, Origin, Span};
use portolan_core::outbox::Wire;
use portolan_core::value::Table;
use portolan_mqtt::observe::Unobserved;
use portolan_mqtt::{Connection, DeniedPublish, Mqtt, Settings};
use portolan_storage::MemoryJournal;

use crate::feed::Feed;
use crate::peer::Anyone;

/// Milliseconds since the epoch when a run begins.
const NOW: u64 = 1_000_000;
/// Seconds that a session is kept at most.
const LONGEST: u32 = 100;
/// Bytes that a connection that takes nothing may have waiting: twice its high water, and what one input leads to.
const MOST_WAITING: usize = 64 << 10;

#[derive(Clone, Default)]
struct Line(Arc<Mutex<Taken>>);

#[derive(Default)]
struct Taken {
    bytes: Vec<u8>,
    stuck: bool,
    woken: bool,
}

impl Wire for Line {
    fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut taken = self.0.lock();
        if taken.stuck {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        parts.iter().for_each(|part| taken.bytes.extend_from_slice(part));
        Ok(parts.iter().map(|part| part.len()).sum())
    }

    fn wake(&self) {
        self.0.lock().woken = true;
    }
}

struct Keys;

impl Directory for Keys {
    fn scram(&self, _: &str) -> ScramKeys {
        ScramKeys { salt: vec![1; 16], iterations: 1, stored: [2; 32], server: [3; 32] }
    }
}

#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<Vec<Fetch>>>);

impl Fetcher for Shelf {
    fn fetch(&self, fetch: Fetch) {
        self.0.lock().push(fetch);
    }
}

/// A client's connection and what its transport keeps.
struct Device {
    engine: Connection,
    line: Line,
    rest: Vec<u8>,
    holds: bool,
    over: bool,
}

/// A broker small enough for its limits to be met, and its clients.
pub struct Field {
    pub broker: Arc<Broker>,
    shelf: Shelf,
    settings: Arc<Settings>,
    alarms: Arc<Alarms>,
    devices: Vec<Device>,
    dialled: u64,
    now: u64,
}

impl Default for Field {
    fn default() -> Self {
        let limits = broker::Settings {
            shards: 2,
            memory_budget: 4096,
            queue_memory: 512,
            queues: 20,
            exchanges: 20,
            bindings: 50,
            session_messages: 30,
            sessions: 1000,
            retained_messages: 8,
            retained_bytes: 4096,
        };
        let journal = Arc::new(MemoryJournal::default());
        let dialects = Dialects { amqp091: Box::new(Amqp091), mqtt: Box::new(Mqtt) };
        let broker = Arc::new(Broker::new(limits, journal, dialects, Arc::default()));
        let shelf = Shelf::default();
        broker.set_fetcher(Box::new(shelf.clone()));
        broker.add_vhost("/").expect("memory takes it");
        let settings = Settings {
            vhost: "/".into(),
            max_packet: 8192,
            session_expiry_max: LONGEST,
            keep_alive_max: 0,
            receive_max: 6,
            inflight_max: 5,
            topic_alias_max: 3,
            topic_alias_out: 2,
            client_id_max: 100,
            topic_levels: 8,
            subscriptions: 6,
            denied: DeniedPublish::Drop,
            publish_rate: 50,
            journal_backlog: usize::MAX,
            outbox_high: 4096,
            outbox_low: 2048,
            directory: Arc::new(Keys),
            observer: Arc::new(Unobserved),
        };
        let (settings, alarms) = (Arc::new(settings), Arc::default());
        Self { broker, shelf, settings, alarms, devices: Vec::new(), dialled: 0, now: NOW }
    }
}

impl Field {
    /// One more connection in the place of what was in that slot, which is cut.
    pub fn dial(&mut self, slot: usize) {
        let line = Line::default();
        self.dialled += 1;
        let (id, peer) = (ConnectionId(self.dialled), ([127, 0, 0, 1], 1).into());
        let (broker, settings) = (Arc::clone(&self.broker), Arc::clone(&self.settings));
        let wire = Box::new(line.clone());
        let engine = Connection::new(broker, settings, Arc::clone(&self.alarms), id, peer, wire, self.now);
        let fresh = Device { engine, line, rest: Vec::new(), holds: false, over: false };
        match self.devices.get_mut(slot) {
            Some(device) => std::mem::replace(device, fresh).end(self.now),
            None => self.devices.push(fresh),
        }
    }

    /// A client sends.
    pub fn send(&mut self, slot: usize, bytes: &[u8]) {
        if let Some(device) = self.devices.get_mut(slot) {
            device.input(bytes, self.now);
        }
    }

    /// A client stops or begins to take what it is sent.
    fn stick(&mut self, slot: usize) {
        if let Some(device) = self.devices.get_mut(slot) {
            let stuck = !device.line.0.lock().stuck;
            device.line.0.lock().stuck = stuck;
            device.turn(self.now);
        }
    }

    /// Everybody who was woken is called, until nobody is.
    pub fn serve(&mut self) {
        for _ in 0..1000 {
            let mut quiet = true;
            for device in &mut self.devices {
                if std::mem::take(&mut device.line.0.lock().woken) && !device.over {
                    quiet = false;
                    device.turn(self.now);
                }
            }
            if quiet {
                return;
            }
        }
        panic!("they wake each other for ever");
    }

    fn pass(&mut self, ms: u64) {
        self.now += ms;
        self.broker.tick(self.now);
        for device in self.devices.iter_mut().filter(|device| !device.over) {
            let (at, ask) = device.engine.tick(self.now, !device.holds);
            assert!(at > self.now, "a clock that never rests");
            device.follow(ask, self.now);
        }
    }

    /// Reads what queues asked for.
    fn load(&self) {
        loop {
            let Some(fetch) = self.shelf.0.lock().pop() else { return };
            let positions: Vec<_> = fetch.entries.iter().map(|&(_, position)| position).collect();
            let mut bodies = Vec::new();
            self.broker.journal.read(&positions, &mut |at, body| bodies.push((fetch.entries[at].0, body)));
            self.broker.loaded(fetch.queue, bodies, self.now);
        }
    }

    /// A message of AMQP.
    fn publish_foreign(&self, key: &[u8], persistent: bool) {
        let none = Span::default();
        let facts = Facts {
            exchange: none,
            routing_key: none,
            properties: none,
            body: none,
            origin: Origin::Amqp091,
            priority: 0,
            persistent,
            ttl: None,
        };
        let message = Message::assemble(facts, b"amq.topic", key, &[0, 0], b"foreign");
        let vhost = self.broker.vhost("/").expect("made at the start");
        let Ok(route) = vhost.route("amq.topic", &[key], &Table::default) else { return };
        let (mut batch, mut effects) = (Batch::default(), Effects::default());
        batch.add(&route.targets, message, 0);
        self.broker.publish(&mut batch, self.now, &mut effects);
        self.broker.carry_out(&mut effects, self.now);
    }

    /// Ends every connection. Sessions that were to end with theirs are gone; once the time of the others is over,
    /// nothing is left.
    pub fn end(mut self) {
        std::mem::take(&mut self.devices).into_iter().for_each(|device| device.end(self.now));
        let vhost = self.broker.vhost("/").expect("made at the start");
        for session in vhost.all_sessions() {
            let view = session.view();
            assert!(view.connection.is_none() && view.expiry > 0, "{} is held by nobody", view.client);
        }
        assert_eq!(self.broker.census().consumers, 0, "an ended connection consumes nothing");
        self.load();
        // Wills that are published late may be queued for sessions that end later.
        for _ in 0..3 {
            self.pass(u64::from(LONGEST) * 1000);
            self.load();
        }
        let census = self.broker.census();
        assert_eq!((vhost.session_count(), vhost.sessions_due()), (0, 0), "sessions end");
        assert_eq!((census.ready, census.unsettled), (0, 0), "what they had is gone");
    }
}

impl Device {
    fn input(&mut self, bytes: &[u8], now: u64) {
        self.rest.extend_from_slice(bytes);
        let stuck = self.line.0.lock().stuck;
        if self.over || self.holds || stuck && self.engine.congested() {
            // A transport would not have read it.
            self.rest.truncate(8192);
            return;
        }
        let input = std::mem::take(&mut self.rest);
        let mut used = 0;
        loop {
            let (step, ask) = self.engine.receive(&input[used..], now);
            used += step;
            let more = matches!(ask, Ask::More) && step > 0 && used < input.len();
            if !more {
                self.rest.extend_from_slice(&input[used..]);
                self.follow(ask, now);
                break;
            }
        }
        assert!(self.over || self.rest.len() <= self.engine.most_input() + 8192, "more is kept than is agreed");
    }

    /// As a transport does when it is woken.
    fn turn(&mut self, now: u64) {
        if self.over {
            return;
        }
        let held = std::mem::take(&mut self.holds);
        self.engine.flush();
        let ask = self.engine.woken(now);
        self.follow(ask, now);
        if held && !self.holds {
            self.input(&[], now);
        }
    }

    fn follow(&mut self, ask: Ask, now: u64) {
        match ask {
            Ask::Login(credentials) => {
                let known = !matches!(&credentials, Credentials::Password { password, .. } if password != b"guest");
                let account = known.then(|| Arc::new(Anyone) as Arc<dyn Account>);
                let ask = self.engine.login(account, now);
                self.follow(ask, now);
                if !self.holds && !self.over && !self.rest.is_empty() {
                    self.input(&[], now);
                }
            }
            Ask::Hold => self.holds = true,
            Ask::Close { .. } => {
                self.over = true;
                self.check();
                self.engine.end(now);
            }
            Ask::More | Ask::Pause | Ask::Wait(_) | Ask::Linger => self.check(),
        }
    }

    /// What was sent is whole packets.
    fn check(&mut self) {
        let stuck = std::mem::take(&mut self.line.0.lock().stuck);
        if stuck {
            // Only to see how much waits.
            let before = self.line.0.lock().bytes.len();
            self.engine.flush();
            let waited = self.line.0.lock().bytes.len() - before;
            assert!(waited <= MOST_WAITING, "{waited} bytes waited");
            self.line.0.lock().stuck = true;
        } else {
            self.engine.flush();
        }
        let written = std::mem::take(&mut self.line.0.lock().bytes);
        let mut rest = &written[..];
        while !rest.is_empty() {
            let (mut length, mut at) = (0, 1);
            loop {
                let byte = rest[at];
                length |= usize::from(byte & 0x7f) << (7 * (at - 1));
                at += 1;
                if byte < 0x80 {
                    break;
                }
            }
            assert!(rest[0] >> 4 != 0, "no packet type");
            rest = &rest[at + length..];
        }
    }

    fn end(mut self, now: u64) {
        if !self.over {
            self.check();
            self.engine.end(now);
        }
    }
}

const TOPICS: [&str; 8] = ["a", "a/b", "a/b/c", "b", "$SYS/x", "", "a/+", "x"];
const FILTERS: [&str; 12] =
    ["a", "a/b", "a/+", "#", "+/b", "$share/g/a", "$share/g/#", "$queue/a/b", "$SYS/#", "a/#/b", "$share/g", "b"];
const CLIENTS: [&str; 4] = ["c", "d", "", "e"];

fn text(value: &str) -> Vec<u8> {
    [&(value.len() as u16).to_be_bytes()[..], value.as_bytes()].concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut length = body.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(body);
    out
}

/// A block of properties, if the version has them; `ids` are those that fit.
fn block(feed: &mut Feed<'_>, five: bool, ids: &[u8]) -> Vec<u8> {
    if !five {
        return Vec::new();
    }
    let mut out = Vec::new();
    for _ in 0..feed.byte() % 3 {
        let id = feed.pick(ids);
        out.push(id);
        match id {
            0x01 | 0x17 | 0x19 => out.push(feed.byte() % 2),
            0x02 | 0x11 | 0x18 | 0x27 => out.extend(u32::from(feed.byte()).to_be_bytes()),
            0x21 | 0x22 | 0x23 => out.extend(u16::from(feed.byte() % 5).to_be_bytes()),
            0x0b => out.push(feed.byte() % 4),
            0x26 => out.extend([text("k"), text("v")].concat()),
            0x15 => out.extend(text("SCRAM-SHA-256")),
            0x16 => out.extend(text(feed.pick(&["n,,n=u,r=x", "c=biws,r=x,p=AAAA", ""]))),
            _ => out.extend(text(feed.pick(&["a/b", "x", ""]))),
        }
    }
    [vec![out.len() as u8], out].concat()
}

fn connect(feed: &mut Feed<'_>, five: bool) -> Vec<u8> {
    let (flags, client) = (feed.byte(), feed.pick(&CLIENTS));
    let will = flags & 4 != 0;
    let mut shown = flags & 0b0000_0110 | if will { flags & 0b0011_0000 } else { 0 };
    if will {
        shown |= flags & 0b1000;
    }
    let mut body = [text("MQTT"), vec![if five { 5 } else { 4 }, shown, 0, feed.byte()]].concat();
    body.extend(block(feed, five, &[0x11, 0x11, 0x21, 0x22, 0x27, 0x17, 0x15, 0x16]));
    body.extend(text(client));
    if will {
        body.extend(block(feed, five, &[0x18, 0x18, 0x02, 0x01, 0x26]));
        body.extend([text(feed.pick(&TOPICS)), text("will")].concat());
    }
    packet(0x10, &body)
}

/// One packet.
fn request(feed: &mut Feed<'_>) -> Vec<u8> {
    let what = feed.byte();
    let five = what & 0x80 == 0;
    let id = [0, feed.byte() % 8];
    match what % 20 {
        0 | 1 => connect(feed, five),
        2 | 3 => {
            let mut body = id.to_vec();
            body.extend(block(feed, five, &[0x0b, 0x26]));
            for _ in 0..feed.byte() % 3 + 1 {
                body.extend(text(feed.pick(&FILTERS)));
                body.push(feed.byte() % if five { 48 } else { 3 });
            }
            packet(0x82, &body)
        }
        4 => {
            let properties = block(feed, five, &[0x26]);
            packet(0xa2, &[&id[..], &properties, &text(feed.pick(&FILTERS))].concat())
        }
        5 | 6 => packet(0x40, &id),
        7 | 8 => packet(0x50, &id),
        9 | 10 => packet(0x62, &id),
        11 | 12 => packet(0x70, &id),
        13 => {
            // Ids of shared subscriptions come from the other end.
            let id = [0xff, 0xf8 | id[1]];
            packet(feed.pick(&[0x40, 0x50, 0x70]), &id)
        }
        14 => match feed.byte() % 6 {
            0 => packet(0xe0, &[]),
            1 if five => packet(0xe0, &[feed.pick(&[0, 4, 0x80])]),
            2 if five => packet(0xe0, &[&[0][..], &block(feed, five, &[0x11])].concat()),
            3 if five => packet(0xf0, &[&[feed.pick(&[0x18, 0x19])][..], &block(feed, five, &[0x15, 0x16])].concat()),
            _ => packet(0xc0, &[]),
        },
        15 => {
            let count = usize::from(feed.byte() % 32);
            packet(feed.byte(), feed.bytes(count))
        }
        _ => {
            let (flags, topic, size) = (feed.byte(), feed.pick(&TOPICS), feed.byte());
            let qos = flags >> 1 & 3;
            let mut body = text(topic);
            if qos > 0 {
                body.extend(id);
            }
            body.extend(block(feed, five, &[0x02, 0x23, 0x01, 0x08, 0x26]));
            body.extend(vec![b'x'; usize::from(size) * if flags & 0x40 != 0 { 20 } else { 1 }]);
            packet(0x30 | flags & 15, &body)
        }
    }
}

/// Plays a script: up to four connections, time, and reads from the journal.
pub fn play(input: &[u8]) {
    let mut feed = Feed(input);
    let mut field = Field::default();
    for slot in 0..4 {
        field.dial(slot);
    }
    while !feed.is_empty() {
        let what = feed.byte();
        let slot = usize::from(what >> 6);
        match what % 24 {
            0 => field.pass(u64::from(feed.byte()) * 10),
            1 => field.load(),
            2 => field.pass(20_000),
            3 | 4 => field.dial(slot),
            5 => field.stick(slot),
            6 => {
                let key = feed.pick(&[&b"a.b"[..], b"a", b"\xff", b"$SYS.x"]);
                field.publish_foreign(key, feed.byte() % 2 == 0);
            }
            // What it woke is called later.
            7 | 8 => field.send(slot, &request(&mut feed)),
            9 => {
                field.dial(slot);
                field.send(slot, &connect(&mut feed, what & 32 == 0));
            }
            _ => {
                field.send(slot, &request(&mut feed));
                field.serve();
            }
        }
    }
    field.serve();
    field.end();
}
