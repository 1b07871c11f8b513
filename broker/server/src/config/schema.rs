//! Every configuration key, typed, with its default. `examples/portolan.toml` says when to change which.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::mqtt::Mqtt;
use super::units::{Addresses, ByteSize, Memory, Period, Secret};

/// The user that is there without any configuration.
pub(super) const GUEST: &str = "guest";

/// The whole configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The node itself.
    pub node: Node,
    /// Where clients reach it.
    pub listeners: Listeners,
    /// What clients may use up.
    pub limits: Limits,
    /// The journal.
    pub storage: Storage,
    /// What is logged and how.
    pub logging: Logging,
    /// AMQP 0-9-1.
    pub amqp: Amqp,
    /// MQTT.
    pub mqtt: Mqtt,
    /// Logging in.
    pub auth: Auth,
    /// The virtual hosts.
    pub vhosts: Vec<Vhost>,
    /// The users, with `guest` unless `auth.guest` is off.
    pub users: Vec<User>,
}

/// `[node]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// Name shown to clients and in metrics.
    pub name: String,
    /// Folder of the embedded store.
    pub data_dir: PathBuf,
    /// Time for closing clients and flushing after a SIGTERM.
    pub drain_timeout: Period,
    /// Threads that serve sockets, 0 for one per core.
    pub worker_threads: usize,
}

/// `[listeners]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listeners {
    /// AMQP 0-9-1.
    pub amqp: Addresses,
    /// MQTT 3.1, 3.1.1 and 5.0.
    pub mqtt: Addresses,
    /// Metrics and health.
    pub http: Addresses,
    /// Connections that may wait to be accepted, per address.
    pub backlog: u32,
}

/// `[limits]`: 0 means no limit of its own where the field says so.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections in all.
    pub connections: usize,
    /// Connections of one user, 0 for no limit of its own.
    pub connections_per_user: usize,
    /// Connections to one vhost, 0 for no limit of its own.
    pub connections_per_vhost: usize,
    /// Connections from one address, 0 for no limit of its own.
    pub connections_per_address: usize,
    /// Channels of one connection.
    pub channels: u16,
    /// Bytes of one frame.
    pub frame_max: u32,
    /// Bytes of one message.
    pub message_max: ByteSize,
    /// Heartbeat interval that clients are offered, 0 for none.
    pub heartbeat: Period,
    /// Time for a connection to log in and open its vhost.
    pub handshake_timeout: Period,
    /// Nesting of tables and lists.
    pub table_depth: usize,
    /// Encoded bytes of one table.
    pub table_bytes: ByteSize,
    /// Values in one table, those in tables within it included.
    pub table_entries: usize,
    /// Deliveries that one channel may hold unsettled, whatever prefetch it asked for: consumers wait then, and a
    /// channel that fetches another is closed.
    pub unsettled_per_channel: usize,
    /// Consumers on one channel.
    pub consumers_per_channel: usize,
    /// Bytes of messages published in one open transaction.
    pub transaction_bytes: ByteSize,
    /// Queues of one vhost.
    pub queues: usize,
    /// Exchanges of one vhost.
    pub exchanges: usize,
    /// Bindings of one vhost.
    pub bindings: usize,
    /// MQTT sessions of one vhost, with a connection or without.
    pub sessions: u64,
    /// Messages that wait in one session; what comes beyond is dropped.
    pub session_messages: u64,
    /// Retained messages of one vhost.
    pub retained_messages: u64,
    /// Memory that the retained messages of one vhost take.
    pub retained_bytes: ByteSize,
    /// Bytes waiting to be written to one connection at which its consumers pause.
    pub outbox_high: ByteSize,
    /// Bytes waiting at which they go on.
    pub outbox_low: ByteSize,
    /// Memory of the process at which publishers are blocked.
    pub memory: Memory,
    /// Bodies of waiting messages kept in memory, all queues together; beyond it they live in the journal only.
    pub message_memory: Memory,
    /// Bodies that one queue keeps in memory when the journal has them anyway.
    pub queue_memory: ByteSize,
    /// Free disk space below which publishers are blocked.
    pub disk_free: ByteSize,
}

/// `[storage]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    /// Size of one journal file.
    pub segment_bytes: ByteSize,
    /// Records are written at the latest when so much has gathered.
    pub write_bytes: ByteSize,
    /// Records are written at the latest after so long.
    pub write_after: Period,
    /// Bytes waiting for stable storage at which publishers wait.
    pub backlog_bytes: ByteSize,
    /// Bytes waiting for stable storage at which messages are refused.
    pub buffer_bytes: ByteSize,
    /// Journal files beyond one and a half times the live data before cleaning starts.
    pub slack_segments: u32,
    /// Bytes per second that cleaning reads at most.
    pub clean_bytes_per_second: ByteSize,
    /// What to do when stored bytes are not what was written.
    pub on_damage: OnDamage,
}

/// What to do when stored bytes are not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDamage {
    /// Do not start, and say where the damage is.
    Refuse,
    /// Drop what is damaged, say what that was, and start.
    Repair,
}

/// `[logging]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Logging {
    /// Text for people or JSON for collectors.
    pub format: LogFormat,
    /// A level, or a level and exceptions: `info,portolan::auth=debug`.
    pub level: String,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// `[amqp]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Amqp {
    /// Product announced to clients; several change their behaviour when it is not RabbitMQ.
    pub product: String,
    /// Version announced to clients; several compare it.
    pub version: String,
    /// Time for a consumer to acknowledge a delivery, 0 for ever.
    pub consumer_timeout: Period,
}

/// `[auth]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// There is a user `guest` with the password `guest` and every right, unless the users name one.
    pub guest: bool,
    /// Users that may connect from this machine only.
    pub loopback_users: Vec<String>,
}

/// `[[vhosts]]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vhost {
    /// Its name.
    pub name: String,
    /// Type of queues that are declared without one.
    #[serde(default)]
    pub default_queue_type: QueueType,
}

/// The types of queue that clients can ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QueueType {
    /// What a declaration without a type means.
    #[default]
    Classic,
    /// Always durable; replicated where there are standbys.
    Quorum,
}

/// `[[users]]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Its name.
    pub name: String,
    /// The password itself. A `password_hash` is better in a file.
    pub password: Option<Secret>,
    /// Output of `portolan hash-password`, or a hash exported from RabbitMQ.
    pub password_hash: Option<String>,
    /// Output of `portolan hash-password --scram`, for clients that log in by SCRAM-SHA-256. Made of `password` where
    /// that is given.
    pub scram_sha_256: Option<String>,
    /// What it may do beside messaging: `administrator`, `monitoring`, `impersonator`…
    #[serde(default)]
    pub tags: Vec<String>,
    /// Rights, one row per vhost. Without a row it may not enter the vhost.
    #[serde(default)]
    pub permissions: Vec<Permission>,
    /// Rights by routing key, one row per vhost and topic exchange. Without a row every key is allowed.
    #[serde(default)]
    pub topic_permissions: Vec<TopicPermission>,
}

/// `[[users.permissions]]`: regular expressions, not anchored, `''` matches nothing.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Permission {
    /// In which vhost.
    pub vhost: String,
    /// Queues and exchanges that the user may create and delete.
    #[serde(default)]
    pub configure: String,
    /// Exchanges that it may publish to, queues that it may bind.
    #[serde(default)]
    pub write: String,
    /// Queues that it may consume from, exchanges that it may bind from.
    #[serde(default)]
    pub read: String,
}

/// `[[users.topic_permissions]]`: as permissions, and `{username}`, `{vhost}` and `{client_id}` stand for the
/// connection's own. Clients of a protocol without ids have the empty one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicPermission {
    /// In which vhost.
    pub vhost: String,
    /// For which topic exchange.
    pub exchange: String,
    /// Routing keys that the user may publish with.
    #[serde(default)]
    pub write: String,
    /// Patterns that it may bind with.
    #[serde(default)]
    pub read: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node: Node::default(),
            listeners: Listeners::default(),
            limits: Limits::default(),
            storage: Storage::default(),
            logging: Logging::default(),
            amqp: Amqp::default(),
            mqtt: Mqtt::default(),
            auth: Auth::default(),
            vhosts: vec![Vhost { name: "/".to_owned(), default_queue_type: QueueType::Classic }],
            users: vec![],
        }
    }
}

impl Permission {
    fn everything(vhost: &str) -> Self {
        let all = || ".*".to_owned();
        Self { vhost: vhost.to_owned(), configure: all(), write: all(), read: all() }
    }
}

impl Default for Node {
    fn default() -> Self {
        Self {
            name: "portolan".to_owned(),
            data_dir: "./portolan-data".into(),
            drain_timeout: Period::seconds(10),
            worker_threads: 0,
        }
    }
}

impl Default for Listeners {
    fn default() -> Self {
        use std::net::{Ipv4Addr, Ipv6Addr};
        let everywhere =
            |port| Addresses(vec![(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()]);
        Self {
            amqp: everywhere(5672),
            mqtt: everywhere(1883),
            // No login stands before it yet, so it is not offered to the network.
            http: Addresses(vec![(Ipv4Addr::LOCALHOST, 15672).into()]),
            backlog: 4096,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 65_536,
            connections_per_user: 0,
            connections_per_vhost: 0,
            connections_per_address: 0,
            channels: 2_047,
            frame_max: 131_072,
            message_max: ByteSize(128 << 20),
            heartbeat: Period::seconds(60),
            handshake_timeout: Period::seconds(10),
            table_depth: 32,
            table_bytes: ByteSize(128 << 10),
            table_entries: 1_024,
            unsettled_per_channel: 100_000,
            consumers_per_channel: 65_536,
            transaction_bytes: ByteSize(128 << 20),
            queues: 500_000,
            exchanges: 100_000,
            bindings: 2_000_000,
            sessions: 1_000_000,
            session_messages: 100_000,
            retained_messages: 1_000_000,
            retained_bytes: ByteSize(1 << 30),
            outbox_high: ByteSize(1 << 20),
            outbox_low: ByteSize(256 << 10),
            memory: Memory::Share(0.4),
            message_memory: Memory::Share(0.2),
            queue_memory: ByteSize(1 << 20),
            disk_free: ByteSize(256 << 20),
        }
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            segment_bytes: ByteSize(64 << 20),
            write_bytes: ByteSize(1 << 20),
            write_after: Period(Duration::from_millis(50)),
            backlog_bytes: ByteSize(16 << 20),
            buffer_bytes: ByteSize(64 << 20),
            slack_segments: 4,
            clean_bytes_per_second: ByteSize(128 << 20),
            on_damage: OnDamage::Refuse,
        }
    }
}

impl Default for Logging {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".to_owned() }
    }
}

impl Default for Amqp {
    fn default() -> Self {
        Self {
            product: "RabbitMQ".to_owned(),
            version: "3.13.7".to_owned(),
            consumer_timeout: Period::seconds(30 * 60),
        }
    }
}

impl Default for Auth {
    fn default() -> Self {
        Self { guest: true, loopback_users: vec![GUEST.to_owned()] }
    }
}

impl Config {
    /// Adds the user that everybody's first program logs in as, with the run of every vhost.
    pub(super) fn admit_guest(&mut self) {
        if self.auth.guest && self.users.iter().all(|user| user.name != GUEST) {
            self.users.push(User {
                name: GUEST.to_owned(),
                password: Some(Secret::new(GUEST)),
                password_hash: None,
                scram_sha_256: None,
                tags: vec!["administrator".to_owned()],
                permissions: self.vhosts.iter().map(|vhost| Permission::everything(&vhost.name)).collect(),
                topic_permissions: vec![],
            });
        }
    }

    /// A configuration in which every key has a value and every list a row: the shape of what may be written.
    pub(super) fn shape() -> Self {
        let topic = TopicPermission {
            vhost: String::new(),
            exchange: String::new(),
            write: String::new(),
            read: String::new(),
        };
        let mut shape = Self::default();
        shape.admit_guest();
        for user in &mut shape.users {
            user.password_hash = Some(String::new());
            user.scram_sha_256 = Some(String::new());
            user.topic_permissions = vec![topic.clone()];
        }
        shape
    }
}
