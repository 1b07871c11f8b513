//! Who a client is and what it may do: users from the configuration, their passwords and permissions.

mod acl;
mod blocks;
mod hash;
mod pattern;
mod proof;
mod scram;
mod throttle;
mod user;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use portolan_core::counters::Counters;
use portolan_core::engine::{Directory, ScramKeys};
use thiserror::Error;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;

use crate::config::{self, Config};
pub(crate) use acl::Acl;
pub use hash::hash_password;
pub(crate) use hash::parse_hash;
use pattern::Compiled;
pub(crate) use pattern::{Pattern, fill_in};
use proof::{Key, Proof};
use scram::Seed;
pub(crate) use scram::parse_scram;
pub use scram::scram_password;
use throttle::Throttle;
pub use user::{Client, UserRecord};

/// Places where attempts for the same user from the same address wait for each other.
const GATES: usize = 64;

/// What a client offers to be let in.
#[derive(Clone, Copy)]
pub struct Credentials<'a> {
    /// The SASL mechanism, for the log.
    pub mechanism: &'a str,
    /// The name.
    pub user: &'a str,
    /// The password.
    pub password: &'a [u8],
}

/// Why a client was not let in. Clients are told only that they were not; the log says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LoginRefused {
    /// There is no such user.
    #[error("unknown user")]
    UnknownUser,
    /// The password is not the user's.
    #[error("wrong password")]
    WrongPassword,
    /// The user may connect from this machine only.
    #[error("user can only connect via localhost")]
    NotLoopback,
    /// Clients must say who they are.
    #[error("no anonymous clients (mqtt.anonymous)")]
    NotAnonymous,
}

/// Lets clients in.
///
/// A password that has been verified once since the start passes without argon2; all others are verified on
/// threads of their own, a few at a time and one at a time per user and address, so that logins, real ones or
/// guesses, cannot take the cores from those who are in.
pub struct Authenticator {
    users: HashMap<String, Arc<UserRecord>>,
    loopback_users: Vec<String>,
    anonymous: config::Anonymous,
    anonymous_user: String,
    scram: HashMap<String, ScramKeys>,
    seed: Seed,
    acl: Option<AclFile>,
    key: Key,
    hasher: RandomState,
    gates: Box<[Mutex<()>]>,
    verifications: Arc<Semaphore>,
    throttle: Throttle,
    counters: Arc<Counters>,
}

/// Rules that can change while we run.
struct AclFile {
    path: PathBuf,
    rules: Arc<ArcSwap<Acl>>,
}

impl AclFile {
    fn of(path: &std::path::Path) -> Result<Option<Self>, String> {
        if path.as_os_str().is_empty() {
            return Ok(None);
        }
        Ok(Some(Self { path: path.to_owned(), rules: Arc::new(ArcSwap::from_pointee(Acl::load(path)?)) }))
    }
}

impl Authenticator {
    /// Takes the users of a configuration. Hashes plain passwords, some 20 ms each.
    ///
    /// # Errors
    /// When a hash or pattern is unusable; [`config::load`] has told the operator before.
    pub fn new(config: &Config, counters: Arc<Counters>) -> Result<Self, String> {
        let acl = AclFile::of(&config.mqtt.acl_file)?;
        let rules = acl.as_ref().map(|file| &file.rules);
        let compiled = Arc::<Compiled>::default();
        let secrets = config.users.iter().flat_map(|user| {
            let plain = user.password.as_ref().map(config::Secret::reveal);
            [plain, user.password_hash.as_deref(), user.scram_sha_256.as_deref()]
        });
        let seed = Seed::of(secrets.flatten());
        let (mut users, mut scram) = (HashMap::new(), HashMap::new());
        for user in &config.users {
            if let Some(keys) = keys_of(user, &seed)? {
                scram.insert(user.name.clone(), keys);
            }
            let record = UserRecord::new(user, Proof::new(hash_of(user)?), rules.cloned(), &compiled)?;
            users.insert(user.name.clone(), Arc::new(record));
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            users,
            loopback_users: config.auth.loopback_users.clone(),
            anonymous: config.mqtt.anonymous,
            anonymous_user: config.mqtt.anonymous_user.clone(),
            scram,
            seed,
            acl,
            key: Key::random(),
            hasher: RandomState::new(),
            gates: (0..GATES).map(|_| Mutex::new(())).collect(),
            verifications: Arc::new(Semaphore::new((cores / 2).max(1))),
            throttle: Throttle::new(),
            counters,
        })
    }

    /// Lets a client in, or says why not after a while that grows with the failures from that address.
    ///
    /// # Errors
    /// When the client is not to be let in.
    pub async fn login(&self, credentials: Credentials<'_>, peer: SocketAddr) -> Result<Arc<UserRecord>, LoginRefused> {
        let started = Instant::now();
        let Credentials { mechanism, user, .. } = credentials;
        self.answer(started, self.check(credentials, peer).await, mechanism, user, peer).await
    }

    /// Lets a client in that says nothing of itself, as the configuration allows.
    ///
    /// # Errors
    /// When the client is not to be let in.
    pub async fn login_anonymous(&self, peer: SocketAddr) -> Result<Arc<UserRecord>, LoginRefused> {
        let allowed = match self.anonymous {
            config::Anonymous::Never => Err(LoginRefused::NotAnonymous),
            config::Anonymous::Loopback if !is_local(peer) => Err(LoginRefused::NotAnonymous),
            // Who opens it to everybody means the user named for it, wherever that one may log in from.
            _ => self.users.get(&self.anonymous_user).cloned().ok_or(LoginRefused::NotAnonymous),
        };
        self.answer(Instant::now(), allowed, "ANONYMOUS", "", peer).await
    }

    /// Lets a client in whose proof was checked with keys from our [`Directory`].
    ///
    /// # Errors
    /// When the client is not to be let in.
    pub async fn login_proven(&self, user: &str, peer: SocketAddr) -> Result<Arc<UserRecord>, LoginRefused> {
        let known = self.scram.contains_key(user);
        let found = if known { self.find(user, peer).cloned() } else { Err(LoginRefused::UnknownUser) };
        self.answer(Instant::now(), found, "SCRAM-SHA-256", user, peer).await
    }

    /// Reads the ACL file again. One that has a mistake changes nothing.
    pub fn reload_acl(&self) {
        let Some(AclFile { path, rules }) = &self.acl else { return };
        match Acl::load(path) {
            Ok(acl) => {
                rules.store(Arc::new(acl));
                tracing::info!(file = %path.display(), "mqtt.acl_file read again");
            }
            Err(error) => tracing::error!(%error, "mqtt.acl_file has a mistake: the rules from before stay in force"),
        }
    }

    async fn answer(
        &self,
        started: Instant,
        found: Result<Arc<UserRecord>, LoginRefused>,
        mechanism: &str,
        user: &str,
        peer: SocketAddr,
    ) -> Result<Arc<UserRecord>, LoginRefused> {
        match found {
            Ok(user) => {
                self.counters.objects.logins_succeeded.add(1);
                Ok(user)
            }
            Err(refused) => {
                self.counters.objects.logins_failed.add(1);
                let wait = self.throttle.failed(peer, started.into_std());
                tracing::warn!(%peer, user, mechanism, reason = %refused, wait_ms = wait.as_millis() as u64, "login refused");
                // Counted from the attempt's start: how long it took to find out says nothing to a guesser.
                tokio::time::sleep_until(started + wait).await;
                Err(refused)
            }
        }
    }

    fn find(&self, user: &str, peer: SocketAddr) -> Result<&Arc<UserRecord>, LoginRefused> {
        let found = self.users.get(user).ok_or(LoginRefused::UnknownUser)?;
        if !is_local(peer) && self.loopback_users.iter().any(|name| name == user) {
            return Err(LoginRefused::NotLoopback);
        }
        Ok(found)
    }

    async fn check(&self, offered: Credentials<'_>, peer: SocketAddr) -> Result<Arc<UserRecord>, LoginRefused> {
        let user = self.find(offered.user, peer)?;
        let right = match self.key.digest(offered.user, offered.password) {
            Some(digest) => match user.proof.known(&digest) {
                Some(right) => right,
                None => self.verify(user, digest, offered, peer).await,
            },
            None => false,
        };
        if right { Ok(user.clone()) } else { Err(LoginRefused::WrongPassword) }
    }

    async fn verify(
        &self,
        user: &Arc<UserRecord>,
        digest: proof::Digest,
        offered: Credentials<'_>,
        peer: SocketAddr,
    ) -> bool {
        let gate = self.hasher.hash_one((offered.user, peer.ip())) as usize % GATES;
        let _passage = match self.gates.get(gate) {
            Some(gate) => gate.lock().await,
            None => return false,
        };
        let Ok(permit) = self.verifications.clone().acquire_owned().await else { return false };
        // Of a thousand clients that connect at once after a restart, the first one found it out.
        if let Some(right) = user.proof.known(&digest) {
            return right;
        }
        self.counters.objects.passwords_verified.add(1);
        let (user, password) = (user.clone(), offered.password.to_vec());
        let verified = tokio::task::spawn_blocking(move || {
            // Held by the work, not by the client, who may be gone before it ends.
            let _permit = permit;
            user.proof.verify(&digest, &password)
        });
        verified.await.unwrap_or(false)
    }
}

impl Directory for Authenticator {
    fn scram(&self, user: &str) -> ScramKeys {
        self.scram.get(user).cloned().unwrap_or_else(|| self.seed.made_up(user))
    }
}

fn is_local(peer: SocketAddr) -> bool {
    peer.ip().to_canonical().is_loopback()
}

fn keys_of(user: &config::User, seed: &Seed) -> Result<Option<ScramKeys>, String> {
    match (&user.scram_sha_256, &user.password) {
        (Some(text), _) => parse_scram(text).map(Some),
        (None, Some(password)) => Ok(Some(seed.keys(&user.name, password.reveal()))),
        (None, None) => Ok(None),
    }
}

fn hash_of(user: &config::User) -> Result<hash::Hash, String> {
    match (&user.password_hash, &user.password) {
        (Some(hash), _) => parse_hash(hash),
        (None, Some(password)) => parse_hash(&hash_password(password.reveal().as_bytes())?),
        (None, None) => Err(format!("user `{}` has no password", user.name)),
    }
}

#[cfg(test)]
mod tests;
