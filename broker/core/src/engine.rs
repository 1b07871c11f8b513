//! What a protocol implements: a state machine that is driven by whatever moves the bytes.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::access::Access;
use crate::store::Index;

/// A user who has shown who he is.
pub trait Account: Send + Sync {
    /// The user's name.
    fn name(&self) -> &str;

    /// Enters a vhost, and says what the user may do there. The connection counts as one of the user's and of the
    /// vhost's until the account is dropped. Permissions may depend on the client's id, where the protocol has one.
    ///
    /// # Errors
    /// [`Barred`] when the user may not enter, or there are too many connections.
    fn enter(&self, vhost: &str, client: Option<&str>) -> Result<Arc<dyn Access>, Barred>;
}

/// Why a user cannot enter a vhost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barred {
    /// Has no permissions there.
    NoAccess,
    /// The vhost has as many connections as it may have.
    VhostFull(usize),
    /// The user has as many connections as it may have.
    UserFull(usize),
}

/// What a client gave to show who it is.
#[derive(Clone)]
pub enum Credentials {
    /// A name and a password.
    Password {
        /// The user's name.
        user: String,
        /// The password; never logged.
        password: Vec<u8>,
    },
    /// Nothing.
    Anonymous,
    /// The engine had it shown by an exchange of its own, see [`Directory`].
    Proven {
        /// The user's name.
        user: String,
    },
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { user, .. } => f.debug_struct("Password").field("user", user).finish_non_exhaustive(),
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Proven { user } => f.debug_struct("Proven").field("user", user).finish(),
        }
    }
}

/// What the other side must know to check a SCRAM proof \[RFC 5802\], without the password.
#[derive(Clone)]
pub struct ScramKeys {
    /// The salt.
    pub salt: Vec<u8>,
    /// Rounds of PBKDF2.
    pub iterations: u32,
    /// `StoredKey`.
    pub stored: [u8; 32],
    /// `ServerKey`.
    pub server: [u8; 32],
}

/// Keys of users, for engines that check proofs themselves.
pub trait Directory: Send + Sync {
    /// The user's keys for SCRAM-SHA-256. For an unknown user made up ones, always the same for one name, so that
    /// the exchange does not tell who exists.
    fn scram(&self, user: &str) -> ScramKeys;
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
    /// No input until [`Engine::woken`] asks for something else.
    Hold,
    /// Go on for a while so that the client can say goodbye, then close.
    Linger,
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

    /// Time passed. Says when to call again, in milliseconds since the epoch. While we are not `reading`, silence
    /// is not the client's fault.
    fn tick(&mut self, now: u64, reading: bool) -> (u64, Ask);

    /// Sends what is in the outbox; true when the wire does not take all of it now.
    fn flush(&self) -> bool;

    /// The handshake is over.
    fn is_open(&self) -> bool;

    /// We said goodbye and wait for the client's.
    fn is_closing(&self) -> bool;

    /// The client takes so little of what we have for it that its own input must wait.
    fn congested(&self) -> bool;

    /// The broker stops, or an operator wants the connection gone: say goodbye in the protocol's own words.
    fn goodbye(&mut self, reason: &str, now: u64) -> Ask;

    /// The connection is over: give back what it held.
    fn end(&mut self, now: u64);

    /// Bytes of unused input that the transport must be able to keep.
    fn most_input(&self) -> usize;
}
