//! The data path put together: store, broker, listeners; and its orderly end.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use portolan_amqp091::Amqp091;
use portolan_core::broker::{self, Broker};
use portolan_core::engine::Directory;
use portolan_core::hub::Dialects;
use portolan_core::session_census::SessionCensus;
use portolan_core::store::{Index, Owner, Space, Waiter};
use portolan_storage::{OnDamage, Options, Store};
use tokio::sync::watch;

use crate::admission::Admission;
use crate::amqp::Amqp;
use crate::config::{self, Config};
use crate::connection::Surroundings;
use crate::exit::Failure;
use crate::http::Desk;
use crate::listener::{Acceptor, Common};
use crate::mqtt::{Mqtt, sys};
use crate::pager;
use crate::process;
use crate::serve::{DataPath, Parts};
use crate::signals;
use crate::status::{Gauges, Lifecycle, Phase, Status};
use crate::time::now_ms;
use crate::workers::Workers;

/// How often expiry is looked at. Consumers never see an expired message whatever this is; it decides how late a
/// dead letter or the deletion of an idle queue may be.
const TICK: Duration = Duration::from_millis(20);

/// A running node.
pub struct Node {
    broker: Arc<Broker>,
    store: Arc<Store>,
    stop: watch::Sender<Option<Arc<str>>>,
}

/// Opens the store, rebuilds the state, and serves.
///
/// # Errors
/// When the store does not open or a listener fails.
pub async fn start(parts: Parts) -> Result<Node, Failure> {
    let config = Arc::clone(&parts.config);
    let counters = Arc::clone(&parts.counters);
    let opened = tokio::task::spawn_blocking(move || open(&config, counters)).await;
    let (broker, store) = opened.map_err(|error| Failure::Internal(error.to_string()))??;
    // Never durable that far: it hears of nothing but the end.
    broker.journal.wait_for(Index::MAX, Arc::new(Watch(Arc::clone(&parts.lifecycle))));
    pager::start(&broker).map_err(|error| Failure::Io { what: "cannot start a thread", error })?;
    let (stop, stopped) = watch::channel(None);
    let config = &parts.config;
    let authenticator = parts.authenticator.await.map_err(|error| Failure::Internal(error.to_string()))??;
    signals::on_hangup({
        let authenticator = Arc::clone(&authenticator);
        move || authenticator.reload_acl()
    })
    .map_err(|error| Failure::Io { what: "cannot receive signals", error })?;
    let around = Arc::new(Surroundings {
        authenticator: Arc::clone(&authenticator),
        admission: Admission::new(&config.limits),
        alarms: Arc::clone(&parts.alarms),
        journal: Arc::clone(&broker.journal),
        handshake_timeout: config.limits.handshake_timeout.0,
        stop: stopped,
    });
    let common = Arc::new(Common {
        broker: Arc::clone(&broker),
        workers: Workers::start(config.node.worker_threads)
            .map_err(|error| Failure::Io { what: "cannot start", error })?,
        around,
        next_id: AtomicU64::new(1),
    });
    let (alarms, backlog) = (parts.alarms.alarms(), config.listeners.backlog);
    let amqp = Acceptor::new(Amqp::new(config, &broker, alarms), &common);
    for bound in parts.amqp {
        let listener = bound.listen(backlog).and_then(|listener| amqp.accept(listener));
        listener.map_err(|error| Failure::Io { what: "cannot listen for AMQP", error })?;
    }
    let sys = config.mqtt.sys_interval.0;
    if !parts.mqtt.is_empty() && !sys.is_zero() {
        tokio::spawn(sys::publish_regularly(Arc::clone(&broker), Arc::clone(&parts.clients), sys));
    }
    for bound in parts.mqtt {
        let (port, directory) = (bound.address().port(), Arc::clone(&authenticator) as Arc<dyn Directory>);
        let mqtt = Acceptor::new(Mqtt::new(config, port, &broker, alarms, directory, &parts.clients), &common);
        let listener = bound.listen(backlog).and_then(|listener| mqtt.accept(listener));
        listener.map_err(|error| Failure::Io { what: "cannot listen for MQTT", error })?;
    }
    let desk = Desk { broker: Arc::clone(&broker), authenticator, clients: parts.clients };
    parts.panel.open(desk);
    tokio::spawn(keep_time(Arc::clone(&broker)));
    Ok(Node { broker, store, stop })
}

/// Ends the node when the journal fails: a broker that confirms nothing is better restarted or replaced.
struct Watch(Arc<Lifecycle>);

impl Waiter for Watch {
    fn durable(&self, _: Index) {}

    fn failed(&self) {
        // A journal that is closed in good order tells its waiters the same.
        if *self.0.phase() != Phase::Draining {
            self.0.fail("the journal failed");
        }
    }
}

fn open(
    config: &Config,
    counters: Arc<portolan_core::counters::Counters>,
) -> Result<(Arc<Broker>, Arc<Store>), Failure> {
    let started = Instant::now();
    let (store, recovered) = Store::open(&store_options(config))?;
    let clean = recovered.clean;
    let dialects = Dialects { amqp091: Box::new(Amqp091), mqtt: Box::new(portolan_mqtt::Mqtt) };
    let broker = Arc::new(Broker::new(broker_settings(config), store.clone(), dialects, counters));
    let restored = broker.restore(recovered, now_ms());
    broker.reserve_queue_ids()?;
    for vhost in &config.vhosts {
        broker.add_vhost(&vhost.name)?;
    }
    if restored.strange > 0 {
        tracing::warn!(
            facts = restored.strange,
            "the store holds facts that this version cannot use; they are ignored"
        );
    }
    let (queues, messages) = (restored.queues, restored.messages);
    let took_ms = started.elapsed().as_millis() as u64;
    tracing::info!(queues, messages, clean, took_ms, "store opened");
    store.set_owner(Arc::clone(&broker) as Arc<dyn Owner>);
    Ok((broker, store))
}

async fn keep_time(broker: Arc<Broker>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        broker.tick(now_ms());
    }
}

fn store_options(config: &Config) -> Options {
    let storage = &config.storage;
    Options {
        segment_bytes: storage.segment_bytes.0,
        on_damage: match storage.on_damage {
            config::OnDamage::Refuse => OnDamage::Refuse,
            config::OnDamage::Repair => OnDamage::Repair,
        },
        write_bytes: storage.write_bytes.bytes(),
        write_after: storage.write_after.0,
        unsynced_bytes: storage.buffer_bytes.bytes(),
        free_floor: config.limits.disk_free.0,
        slack_segments: storage.slack_segments,
        clean_bytes_per_second: storage.clean_bytes_per_second.0,
        ..Options::new(&config.node.data_dir)
    }
}

fn broker_settings(config: &Config) -> broker::Settings {
    let limits = &config.limits;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    broker::Settings {
        shards: cores * 4,
        memory_budget: limits.message_memory.of(process::total_memory()),
        queue_memory: limits.queue_memory.bytes(),
        queues: limits.queues,
        exchanges: limits.exchanges,
        bindings: limits.bindings,
        session_messages: limits.session_messages,
        sessions: limits.sessions,
        retained_messages: limits.retained_messages,
        retained_bytes: limits.retained_bytes.0,
    }
}

impl Status for Broker {
    fn gauges(&self) -> Gauges {
        let census = self.census();
        let mut sessions = SessionCensus::default();
        self.all_vhosts().iter().for_each(|vhost| sessions += vhost.session_census());
        let objects = &self.counters.objects;
        let open = |opened: u64, closed: u64| opened.saturating_sub(closed);
        Gauges {
            connections: open(objects.connections_opened.get(), objects.connections_closed.get()),
            channels: open(objects.channels_opened.get(), objects.channels_closed.get()),
            consumers: census.consumers,
            queues: census.queues,
            exchanges: census.exchanges,
            bindings: census.bindings,
            messages_ready: census.ready,
            messages_unsettled: census.unsettled,
            message_bytes: census.bytes,
            messages_paged: census.paged,
            resident_bytes: self.memory(),
            connections_blocked: open(objects.connections_blocked.get(), objects.connections_unblocked.get()),
            sessions: sessions.sessions,
            subscriptions: sessions.own + sessions.shared,
            retained: census.retained,
            retained_bytes: census.retained_bytes,
            journal_bytes: self.journal.disk_bytes(),
            journal_last: self.journal.last(),
            journal_durable: self.journal.durable(),
        }
    }

    fn space(&self) -> Space {
        self.journal.space()
    }
}

impl DataPath for Node {
    fn status(&self) -> Arc<dyn Status> {
        Arc::clone(&self.broker) as Arc<dyn Status>
    }

    async fn drain(self, deadline: Instant) -> Result<(), Failure> {
        // Listeners stop accepting and connections say goodbye on the same word.
        let _ = self.stop.send(Some("broker forced connection closure with reason 'shutdown'".into()));
        let objects = &self.broker.counters.objects;
        while objects.connections_opened.get() > objects.connections_closed.get() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let (broker, store) = (self.broker, self.store);
        let closed = tokio::task::spawn_blocking(move || {
            broker.note_redelivered();
            store.close()
        });
        closed.await.map_err(|error| Failure::Internal(error.to_string()))??;
        Ok(())
    }
}
