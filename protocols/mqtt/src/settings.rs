//! What the engine is allowed and what it announces.

use std::sync::Arc;

use portolan_core::engine::Directory;

use crate::observe::Observer;

/// What happens to a publish that its user may not make.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeniedPublish {
    /// It is acknowledged and dropped; 5.0 tells why in the acknowledgement.
    #[default]
    Drop,
    /// The connection ends.
    Disconnect,
}

/// Bounds, announcements and surroundings of all connections of a listener.
#[derive(Clone)]
pub struct Settings {
    /// The vhost of user names that name none.
    pub vhost: Arc<str>,
    /// Largest packet, both ways.
    pub max_packet: u32,
    /// Longest time that a session is kept without a connection, in seconds; `u32::MAX` for ever.
    pub session_expiry_max: u32,
    /// Longest keep alive in seconds, 0 for no bound.
    pub keep_alive_max: u16,
    /// QoS 1 and 2 publishes that a client may have under way.
    pub receive_max: u16,
    /// QoS 1 and 2 deliveries under way to a client that names no lower number.
    pub inflight_max: u16,
    /// Topic aliases that a client may set.
    pub topic_alias_max: u16,
    /// Topic aliases that we set, where the client takes so many.
    pub topic_alias_out: u16,
    /// Bytes of a client id.
    pub client_id_max: usize,
    /// Levels of a topic or filter.
    pub topic_levels: usize,
    /// Subscriptions of one session.
    pub subscriptions: usize,
    /// What happens to a publish that its user may not make.
    pub denied: DeniedPublish,
    /// Messages a second that one client may publish, 0 for any number.
    pub publish_rate: u32,
    /// Bytes that may wait for the disk before publishers wait.
    pub journal_backlog: usize,
    /// Outbox bytes above which deliveries pause.
    pub outbox_high: usize,
    /// Outbox bytes below which they go on.
    pub outbox_low: usize,
    /// Keys of users, for SCRAM.
    pub directory: Arc<dyn Directory>,
    /// Hears of connections.
    pub observer: Arc<dyn Observer>,
}
