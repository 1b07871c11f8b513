//! `$SYS/broker/…`: the broker's figures as retained topics, named as Mosquitto names them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use portolan_core::broker::{Batch, Broker};
use portolan_core::catalogue::Vhost;
use portolan_core::effect::Effects;
use portolan_core::message::{Facts, Message, Origin, Span};
use portolan_core::session::TOPICS;
use portolan_core::session_census::SessionCensus;
use portolan_core::value::Table;
use portolan_mqtt::topic;

use super::clients::Clients;
use crate::process;
use crate::time::now_ms;

/// Properties of these messages: QoS 0, published as retained, nothing else.
const PROPERTIES: &[u8] = &[0x04];
/// Over how many minutes loads are averaged.
const SPANS: [u32; 3] = [1, 5, 15];
/// What loads are of: each the topic and its place in [`Figures::flows`].
const FLOWS: [&str; FLOW_COUNT] = [
    "messages/received",
    "messages/sent",
    "publish/received",
    "publish/sent",
    "publish/dropped",
    "bytes/received",
    "bytes/sent",
    "connections",
    "sockets",
];
const FLOW_COUNT: usize = 9;

/// Publishes what changed, for as long as the broker runs.
pub async fn publish_regularly(broker: Arc<Broker>, clients: Arc<Clients>, every: Duration) {
    let mut board = Board::new();
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        board.publish(&broker, &clients, Instant::now());
    }
}

/// What is known at one moment.
#[derive(Clone, Debug, Default)]
struct Figures {
    flows: [u64; FLOW_COUNT],
    sessions: SessionCensus,
    online: u64,
    most_online: u64,
    stored: u64,
    stored_bytes: u64,
    retained: u64,
    heap: u64,
    uptime: u64,
}

/// What was published last, and the averages that go on.
struct Board {
    started: Instant,
    published: HashMap<String, String>,
    last: Option<(Instant, [u64; FLOW_COUNT])>,
    loads: [[f64; FLOW_COUNT]; SPANS.len()],
    most_heap: u64,
}

impl Board {
    fn new() -> Self {
        let loads = [[0.0; FLOW_COUNT]; SPANS.len()];
        Self { started: Instant::now(), published: HashMap::new(), last: None, loads, most_heap: 0 }
    }

    fn publish(&mut self, broker: &Broker, clients: &Clients, now: Instant) {
        let figures = self.look(broker, clients, now);
        self.average(&figures.flows, now);
        let mut changed = self.topics(&figures);
        changed.retain(|(topic, value)| self.published.get(topic) != Some(value));
        for vhost in broker.all_vhosts() {
            send(broker, &vhost, &changed);
        }
        self.published.extend(changed);
    }

    fn look(&mut self, broker: &Broker, clients: &Clients, now: Instant) -> Figures {
        let (received, delivered) = (&broker.counters.mqtt_received, &broker.counters.mqtt_delivered);
        let sum = |counters: &[portolan_core::counters::Counter; 3]| counters.iter().map(|one| one.get()).sum();
        let mut sessions = SessionCensus::default();
        broker.all_vhosts().iter().for_each(|vhost| sessions += vhost.session_census());
        let (online, most_online) = clients.count();
        let census = broker.census();
        let heap = process::memory().resident;
        self.most_heap = self.most_heap.max(heap);
        Figures {
            flows: [
                received.packets.get(),
                delivered.packets.get(),
                sum(&received.messages),
                sum(&delivered.messages),
                delivered.dropped.get(),
                received.bytes.get(),
                delivered.bytes.get(),
                clients.opened_in_all(),
                broker.counters.objects.connections_opened.get(),
            ],
            sessions,
            online: online as u64,
            most_online: most_online as u64,
            stored: census.ready + census.unsettled + census.retained,
            stored_bytes: census.bytes + census.retained_bytes,
            retained: census.retained,
            heap,
            uptime: now.saturating_duration_since(self.started).as_secs(),
        }
    }

    /// Mosquitto's averages: what came in a minute, each look at it counting the less the longer ago it was.
    fn average(&mut self, flows: &[u64; FLOW_COUNT], now: Instant) {
        let Some((before, old)) = self.last.replace((now, *flows)) else { return };
        let minutes = now.saturating_duration_since(before).as_secs_f64() / 60.0;
        if minutes <= 0.0 {
            return;
        }
        for (span, loads) in SPANS.iter().zip(&mut self.loads) {
            let kept = (-minutes / f64::from(*span)).exp();
            for ((load, new), old) in loads.iter_mut().zip(flows).zip(&old) {
                let rate = new.saturating_sub(*old) as f64 / minutes;
                *load = rate + kept * (*load - rate);
            }
        }
    }

    /// Every topic with its value.
    fn topics(&self, figures: &Figures) -> Vec<(String, String)> {
        let f = figures;
        let away = f.sessions.sessions.saturating_sub(f.sessions.held);
        let [received, sent, publishes, publishes_sent, dropped, bytes, bytes_sent, ..] = f.flows;
        let numbers = [
            ("clients/total", f.online + away),
            ("clients/connected", f.online),
            ("clients/active", f.online),
            ("clients/disconnected", away),
            ("clients/inactive", away),
            ("clients/maximum", f.most_online),
            ("messages/received", received),
            ("messages/sent", sent),
            ("messages/stored", f.stored),
            ("publish/messages/received", publishes),
            ("publish/messages/sent", publishes_sent),
            ("publish/messages/dropped", dropped),
            ("bytes/received", bytes),
            ("bytes/sent", bytes_sent),
            ("store/messages/count", f.stored),
            ("store/messages/bytes", f.stored_bytes),
            ("retained messages/count", f.retained),
            ("subscriptions/count", f.sessions.own + f.sessions.shared),
            ("shared_subscriptions/count", f.sessions.shared),
            ("heap/current", f.heap),
            ("heap/maximum", self.most_heap),
        ];
        let mut topics = vec![
            ("version".to_owned(), format!("portolan version {}", env!("CARGO_PKG_VERSION"))),
            ("uptime".to_owned(), format!("{} seconds", f.uptime)),
        ];
        topics.extend(numbers.map(|(topic, number)| (topic.to_owned(), number.to_string())));
        for (minutes, loads) in SPANS.iter().zip(&self.loads) {
            let loads = FLOWS.iter().zip(loads);
            topics.extend(loads.map(|(flow, load)| (format!("load/{flow}/{minutes}min"), format!("{load:.2}"))));
        }
        topics
    }
}

/// Retains each and sends it to the sessions that want it. Queues that are bound to everything get none of it: they
/// asked for what applications publish.
fn send(broker: &Broker, vhost: &Vhost, topics: &[(String, String)]) {
    let now = now_ms();
    let (mut effects, mut batch) = (Effects::default(), Batch::default());
    for (topic, value) in topics {
        let message = message(topic, value);
        if let Err(error) = broker.retain(vhost, &message, now, &mut effects) {
            tracing::debug!(?error, topic, "a $SYS topic is not retained");
        }
        let Ok(mut route) = vhost.route(TOPICS, &[message.routing_key()], &Table::default) else { return };
        route.targets.retain(|target| target.grant.is_session());
        batch.add(&route.targets, message, 0);
    }
    broker.publish(&mut batch, now, &mut effects);
    broker.carry_out(&mut effects, now);
}

fn message(topic: &str, value: &str) -> Message {
    let mut key = Vec::new();
    topic::append_key(&format!("$SYS/broker/{topic}"), &mut key);
    let none = Span::default();
    let facts = Facts {
        exchange: none,
        routing_key: none,
        properties: none,
        body: none,
        origin: Origin::Mqtt,
        priority: 0,
        persistent: false,
        ttl: None,
    };
    Message::assemble(facts, TOPICS.as_bytes(), &key, PROPERTIES, value.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flows(received: u64) -> [u64; FLOW_COUNT] {
        let mut flows = [0; FLOW_COUNT];
        flows[0] = received;
        flows
    }

    #[test]
    fn loads_approach_the_rate_and_decay() {
        let (mut board, start) = (Board::new(), Instant::now());
        for step in 0..=600_u32 {
            // 100 every 10 seconds are 600 a minute.
            board.average(&flows(u64::from(step) * 100), start + Duration::from_secs(10) * step);
        }
        for loads in &board.loads {
            assert!((loads[0] - 600.0).abs() < 1.0 && loads[1] == 0.0, "{loads:?}");
        }
        board.average(&flows(60_000), start + Duration::from_secs(6_060));
        let [one, five, fifteen] = board.loads.map(|loads| loads[0]);
        assert!(
            (one - 600.0 / std::f64::consts::E).abs() < 1.0 && one < five && five < fifteen,
            "{one} {five} {fifteen}"
        );
    }

    #[test]
    fn the_tree_is_the_one_that_dashboards_read() {
        let board = Board::new();
        let sessions = SessionCensus { sessions: 5, held: 2, own: 7, shared: 1 };
        let figures = Figures { sessions, online: 2, uptime: 61, retained: 9, ..Figures::default() };
        let topics: HashMap<String, String> = board.topics(&figures).into_iter().collect();
        for (topic, value) in [
            ("uptime", "61 seconds"),
            ("clients/total", "5"),
            ("clients/connected", "2"),
            ("clients/disconnected", "3"),
            ("retained messages/count", "9"),
            ("subscriptions/count", "8"),
            ("shared_subscriptions/count", "1"),
            ("load/messages/received/1min", "0.00"),
            ("load/publish/dropped/15min", "0.00"),
            ("load/sockets/5min", "0.00"),
        ] {
            assert_eq!(topics.get(topic).map(String::as_str), Some(value), "{topic}");
        }
        assert!(topics["version"].starts_with("portolan version "));
        let message = message("retained messages/count", "9");
        assert_eq!((message.routing_key(), message.body()), (&b"$SYS.broker.retained messages.count"[..], &b"9"[..]));
    }
}
