//! The data path put together: store, broker, listeners; and its orderly end.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use portolan_amqp091::codec::Limits;
use portolan_amqp091::{Amqp091, Settings};
use portolan_core::broker::{self, Broker};
use portolan_core::hub::Dialects;
use portolan_core::refusal::QueueKind;
use portolan_core::store::{Index, Owner, Space, Waiter};
use portolan_mqtt::Mqtt;
use portolan_storage::{OnDamage, Options, Store};
use tokio::sync::watch;

use crate::admission::Admission;
use crate::config::{self, Config};
use crate::connection::Surroundings;
use crate::exit::Failure;
use crate::listener::Acceptor;
use crate::pager;
use crate::process;
use crate::serve::{DataPath, Parts};
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
    let around = Arc::new(Surroundings {
        authenticator: parts.authenticator.await.map_err(|error| Failure::Internal(error.to_string()))??,
        admission: Admission::new(&config.limits),
        alarms: Arc::clone(&parts.alarms),
        journal: Arc::clone(&broker.journal),
        handshake_timeout: config.limits.handshake_timeout.0,
        stop: stopped,
    });
    let acceptor = Arc::new(Acceptor {
        broker: Arc::clone(&broker),
        settings: Arc::new(amqp_settings(config)),
        alarms: Arc::clone(parts.alarms.alarms()),
        workers: Workers::start(config.node.worker_threads)
            .map_err(|error| Failure::Io { what: "cannot start", error })?,
        around,
        next_id: AtomicU64::new(1),
    });
    for bound in parts.amqp {
        let listener = bound.listen(config.listeners.backlog).and_then(|listener| acceptor.accept(listener));
        listener.map_err(|error| Failure::Io { what: "cannot listen for AMQP", error })?;
    }
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
    let dialects = Dialects { amqp091: Box::new(Amqp091), mqtt: Box::new(Mqtt) };
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
        write_bytes: bytes(storage.write_bytes),
        write_after: storage.write_after.0,
        unsynced_bytes: bytes(storage.buffer_bytes),
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
        queue_memory: bytes(limits.queue_memory),
        queues: limits.queues,
        exchanges: limits.exchanges,
        bindings: limits.bindings,
        session_messages: limits.session_messages,
        retained_messages: limits.retained_messages,
        retained_bytes: limits.retained_bytes.0,
    }
}

fn amqp_settings(config: &Config) -> Settings {
    let limits = &config.limits;
    Settings {
        channel_max: limits.channels,
        frame_max: limits.frame_max,
        heartbeat: u16::try_from(limits.heartbeat.0.as_secs()).unwrap_or(u16::MAX),
        message_max: bytes(limits.message_max),
        tables: Limits { depth: limits.table_depth, entries: limits.table_entries, bytes: bytes(limits.table_bytes) },
        default_types: default_types(&config.vhosts),
        unsettled: limits.unsettled_per_channel,
        consumers: limits.consumers_per_channel,
        consumer_timeout: u64::try_from(config.amqp.consumer_timeout.0.as_millis()).unwrap_or(u64::MAX),
        transaction_bytes: bytes(limits.transaction_bytes),
        journal_backlog: bytes(config.storage.backlog_bytes),
        product: config.amqp.product.clone(),
        version: config.amqp.version.clone(),
        outbox_high: bytes(limits.outbox_high),
        outbox_low: bytes(limits.outbox_low),
    }
}

/// What counts besides classic where a declaration names no type.
fn default_types(vhosts: &[config::Vhost]) -> HashMap<String, QueueKind> {
    let quorum = vhosts.iter().filter(|vhost| vhost.default_queue_type == config::QueueType::Quorum);
    quorum.map(|vhost| (vhost.name.clone(), QueueKind::Quorum)).collect()
}

fn bytes(size: crate::config::ByteSize) -> usize {
    usize::try_from(size.0).unwrap_or(usize::MAX)
}

impl Status for Broker {
    fn gauges(&self) -> Gauges {
        let census = self.census();
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
