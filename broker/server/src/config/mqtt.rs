//! The keys of `[mqtt]`, with their defaults.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::schema::GUEST;
use super::units::{ByteSize, Period};

/// `[mqtt]`
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mqtt {
    /// The vhost of clients whose user name and port name none.
    pub vhost: String,
    /// Who may connect without a name and password.
    pub anonymous: Anonymous,
    /// Whose rights they have.
    pub anonymous_user: String,
    /// A file of rules in Mosquitto's format, empty for none. Read again on SIGHUP.
    pub acl_file: PathBuf,
    /// What becomes of a publish that its client has no right to.
    pub publish_denied: PublishDenied,
    /// Bytes of one packet.
    pub packet_max: ByteSize,
    /// How long a session is kept without its client at most, 0 for ever.
    pub session_expiry_max: Period,
    /// The longest keep alive, 0 for no limit: clients that ask for more, or for none, get this one.
    pub keep_alive_max: Period,
    /// QoS 1 and 2 messages that a client may have sent and not finished.
    pub receive_max: u16,
    /// QoS 1 and 2 messages sent to a client and not finished.
    pub inflight_max: u16,
    /// Topic aliases that a client may use.
    pub topic_alias_max: u16,
    /// Topic aliases that we use towards a client which allows them.
    pub topic_alias_out: u16,
    /// Bytes of a client's id.
    pub client_id_max: usize,
    /// Levels of a topic or filter.
    pub topic_levels: usize,
    /// Subscriptions of one session.
    pub subscriptions: usize,
    /// Messages that a client may publish in a second, 0 for any number.
    pub publish_rate: u32,
    /// How often `$SYS` topics are published, 0 for never.
    pub sys_interval: Period,
    /// Vhosts by listening port: clients of that port whose user name names no vhost enter that one.
    pub vhosts: BTreeMap<String, String>,
}

/// Who may connect without a name and password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Anonymous {
    /// Nobody.
    Never,
    /// Clients on the same machine.
    Loopback,
    /// Everybody.
    Always,
}

/// What becomes of a publish that its client has no right to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PublishDenied {
    /// It is dropped, and acknowledged with a reason code where there is one.
    Drop,
    /// Its client is disconnected.
    Disconnect,
}

impl Default for Mqtt {
    fn default() -> Self {
        Self {
            vhost: "/".to_owned(),
            anonymous: Anonymous::Loopback,
            anonymous_user: GUEST.to_owned(),
            acl_file: PathBuf::new(),
            publish_denied: PublishDenied::Drop,
            packet_max: ByteSize(16 << 20),
            session_expiry_max: Period::seconds(0),
            keep_alive_max: Period::seconds(0),
            receive_max: u16::MAX,
            inflight_max: 1_000,
            topic_alias_max: 16,
            topic_alias_out: 16,
            client_id_max: 65_535,
            topic_levels: 128,
            subscriptions: 100_000,
            publish_rate: 0,
            sys_interval: Period::seconds(10),
            vhosts: BTreeMap::new(),
        }
    }
}

impl Mqtt {
    /// The vhost of a listener's clients who name none.
    pub fn vhost_of(&self, port: u16) -> &str {
        self.vhosts.get(&port.to_string()).unwrap_or(&self.vhost)
    }
}
