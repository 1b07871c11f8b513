//! What a protocol implements: a state machine that is driven by whatever moves the bytes.

use std::sync::Arc;
use std::time::Duration;

use crate::access::Access;
use crate::store::Index;

/// A user who has shown who he is.
pub trait Account: Send + Sync {
    /// The user's name.
    fn name(&self) -> &str;

    /// What the user may do in a vhost; `None` when nothing at all.
    fn access(&self, vhost: &str) -> Option<Arc<dyn Access>>;
}

/// What a client gave to show who it is.
#[derive(Clone, Debug)]
pub struct Credentials {
    /// The user's name.
    pub user: String,
    /// The password; never logged.
    pub password: Vec<u8>,
}

/// What an engine wants of its transport.
#[derive(Debug)]
pub enum Ask {
    /// More input.
    More,
    /// A check of credentials; answer with [`Engine::login`].
    Login(Credentials),
    /// No input until publishers may go on; then [`Engine::resume`].
    Pause,
    /// No input until the journal is durable up to there.
    Wait(Index),
    /// Send what is in the outbox, then close; in the silent case after a delay that makes guessing slow.
    Close {
        /// How long to wait first.
        after: Duration,
    },
}

/// One connection's protocol state. Sans I/O: bytes in, core calls, bytes out into the outbox.
pub trait Engine: Send {
    /// Takes what was read. Returns how much of it was used, counted from its start; the rest is handed in again
    /// with more behind it.
    fn receive(&mut self, input: &[u8], now: u64) -> (usize, Ask);

    /// The answer to [`Ask::Login`].
    fn login(&mut self, account: Option<Arc<dyn Account>>, now: u64) -> Ask;

    /// Publishers may go on.
    fn resume(&mut self, now: u64) -> Ask;

    /// The outbox called for its task: there is room again, or the client is lost.
    fn woken(&mut self, now: u64) -> Ask;

    /// Time passed. Says when to call again, in milliseconds since the epoch.
    fn tick(&mut self, now: u64) -> (u64, Ask);

    /// The broker stops, or an operator wants the connection gone: say goodbye in the protocol's own words.
    fn goodbye(&mut self, reason: &str, now: u64) -> Ask;

    /// The connection is over: give back what it held.
    fn end(&mut self, now: u64);

    /// Bytes of unused input that the transport must be able to keep.
    fn most_input(&self) -> usize;
}
