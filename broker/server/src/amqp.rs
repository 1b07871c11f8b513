//! AMQP 0-9-1 behind its listeners: what the configuration allows it, and its connections.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use portolan_amqp091::codec::Limits;
use portolan_amqp091::{Connection, Settings};
use portolan_core::alarms::Alarms;
use portolan_core::broker::Broker;
use portolan_core::catalogue::ConnectionId;
use portolan_core::outbox::Wire;
use portolan_core::refusal::QueueKind;

use crate::config::{self, Config};
use crate::listener::Protocol;

/// AMQP 0-9-1.
pub struct Amqp {
    broker: Arc<Broker>,
    settings: Arc<Settings>,
    alarms: Arc<Alarms>,
}

impl Amqp {
    /// AMQP as configured.
    pub fn new(config: &Config, broker: &Arc<Broker>, alarms: &Arc<Alarms>) -> Self {
        Self { broker: Arc::clone(broker), settings: Arc::new(settings(config)), alarms: Arc::clone(alarms) }
    }
}

impl Protocol for Amqp {
    type Engine = Connection;

    fn connect(&self, id: ConnectionId, _: SocketAddr, wire: Box<dyn Wire>, now: u64) -> Connection {
        let (broker, alarms) = (Arc::clone(&self.broker), Arc::clone(&self.alarms));
        Connection::new(broker, Arc::clone(&self.settings), alarms, id, wire, now)
    }
}

fn settings(config: &Config) -> Settings {
    let limits = &config.limits;
    Settings {
        channel_max: limits.channels,
        frame_max: limits.frame_max,
        heartbeat: u16::try_from(limits.heartbeat.0.as_secs()).unwrap_or(u16::MAX),
        message_max: limits.message_max.bytes(),
        tables: Limits { depth: limits.table_depth, entries: limits.table_entries, bytes: limits.table_bytes.bytes() },
        default_types: default_types(&config.vhosts),
        unsettled: limits.unsettled_per_channel,
        consumers: limits.consumers_per_channel,
        consumer_timeout: u64::try_from(config.amqp.consumer_timeout.0.as_millis()).unwrap_or(u64::MAX),
        transaction_bytes: limits.transaction_bytes.bytes(),
        journal_backlog: config.storage.backlog_bytes.bytes(),
        product: config.amqp.product.clone(),
        version: config.amqp.version.clone(),
        outbox_high: limits.outbox_high.bytes(),
        outbox_low: limits.outbox_low.bytes(),
    }
}

/// What counts besides classic where a declaration names no type.
fn default_types(vhosts: &[config::Vhost]) -> HashMap<String, QueueKind> {
    let quorum = vhosts.iter().filter(|vhost| vhost.default_queue_type == config::QueueType::Quorum);
    quorum.map(|vhost| (vhost.name.clone(), QueueKind::Quorum)).collect()
}
