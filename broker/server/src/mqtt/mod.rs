//! MQTT behind its listeners: what the configuration allows it, its connections, and what operators see of them.

pub mod clients;
pub mod sys;

use std::net::SocketAddr;
use std::sync::Arc;

use portolan_core::alarms::Alarms;
use portolan_core::broker::Broker;
use portolan_core::catalogue::ConnectionId;
use portolan_core::engine::Directory;
use portolan_core::outbox::Wire;
use portolan_core::session::NEVER;
use portolan_mqtt::{Connection, DeniedPublish, Settings};

use crate::config::{Config, Period, PublishDenied};
use crate::listener::Protocol;
use clients::Clients;

/// MQTT on one port.
pub struct Mqtt {
    broker: Arc<Broker>,
    settings: Arc<Settings>,
    alarms: Arc<Alarms>,
}

impl Mqtt {
    /// MQTT as configured for that port.
    pub fn new(
        config: &Config,
        port: u16,
        broker: &Arc<Broker>,
        alarms: &Arc<Alarms>,
        directory: Arc<dyn Directory>,
        clients: &Arc<Clients>,
    ) -> Self {
        let settings = Arc::new(settings(config, port, directory, clients));
        Self { broker: Arc::clone(broker), settings, alarms: Arc::clone(alarms) }
    }
}

impl Protocol for Mqtt {
    type Engine = Connection;

    fn connect(&self, id: ConnectionId, peer: SocketAddr, wire: Box<dyn Wire>, now: u64) -> Connection {
        let (broker, alarms) = (Arc::clone(&self.broker), Arc::clone(&self.alarms));
        Connection::new(broker, Arc::clone(&self.settings), alarms, id, peer, wire, now)
    }
}

fn settings(config: &Config, port: u16, directory: Arc<dyn Directory>, clients: &Arc<Clients>) -> Settings {
    let (mqtt, limits) = (&config.mqtt, &config.limits);
    Settings {
        vhost: mqtt.vhost_of(port).into(),
        max_packet: u32::try_from(mqtt.packet_max.0).unwrap_or(u32::MAX),
        session_expiry_max: match mqtt.session_expiry_max {
            Period(none) if none.is_zero() => NEVER,
            Period(most) => u32::try_from(most.as_secs()).unwrap_or(NEVER),
        },
        keep_alive_max: u16::try_from(mqtt.keep_alive_max.0.as_secs()).unwrap_or(u16::MAX),
        receive_max: mqtt.receive_max,
        inflight_max: mqtt.inflight_max,
        topic_alias_max: mqtt.topic_alias_max,
        topic_alias_out: mqtt.topic_alias_out,
        client_id_max: mqtt.client_id_max,
        topic_levels: mqtt.topic_levels,
        subscriptions: mqtt.subscriptions,
        denied: match mqtt.publish_denied {
            PublishDenied::Drop => DeniedPublish::Drop,
            PublishDenied::Disconnect => DeniedPublish::Disconnect,
        },
        publish_rate: mqtt.publish_rate,
        journal_backlog: config.storage.backlog_bytes.bytes(),
        outbox_high: limits.outbox_high.bytes(),
        outbox_low: limits.outbox_low.bytes(),
        directory,
        observer: Arc::clone(clients) as Arc<_>,
    }
}
