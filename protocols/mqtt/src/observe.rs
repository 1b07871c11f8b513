//! What operators may see of connections: told as they open and close.

use core::net::SocketAddr;
use std::sync::Arc;

use portolan_core::catalogue::ConnectionId;

use crate::codec::Version;

/// A connection whose CONNECT was accepted.
#[derive(Clone, Debug)]
pub struct Opened {
    /// The client's id, given or assigned.
    pub client: Arc<str>,
    /// Who it logged in as.
    pub user: Arc<str>,
    /// The vhost that it entered.
    pub vhost: Arc<str>,
    /// Which MQTT it speaks.
    pub version: Version,
    /// The keep alive in force, seconds, 0 for none.
    pub keep_alive: u16,
    /// Its address.
    pub peer: SocketAddr,
    /// It began without anything from before.
    pub clean: bool,
    /// Seconds that its session is kept after it.
    pub expiry: u32,
}

/// Hears of connections. Calls come from the threads that serve sockets and must be short.
pub trait Observer: Send + Sync {
    /// A connection was accepted.
    fn opened(&self, connection: ConnectionId, opened: Opened);

    /// A connection that named its client ended, accepted or not. The reason is for the device's owner.
    fn closed(&self, connection: ConnectionId, client: &str, reason: &str);
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn opened(&self, _: ConnectionId, _: Opened) {}

    fn closed(&self, _: ConnectionId, _: &str, _: &str) {}
}
