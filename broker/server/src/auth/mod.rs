//! Who a client is and what it may do: users from the configuration, their passwords and permissions.

mod blocks;
mod hash;
mod pattern;
mod proof;
mod throttle;
mod user;

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;

use portolan_core::counters::Counters;
use thiserror::Error;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;

use crate::config::{self, Config};
pub use hash::hash_password;
pub(crate) use hash::parse_hash;
pub(crate) use pattern::{Pattern, fill_in};
use proof::{Key, Proof};
use throttle::Throttle;
pub use user::UserRecord;

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
}

/// Lets clients in.
///
/// A password that has been verified once since the start passes without argon2; all others are verified on
/// threads of their own, a few at a time and one at a time per user and address, so that logins, real ones or
/// guesses, cannot take the cores from those who are in.
pub struct Authenticator {
    users: HashMap<String, Arc<UserRecord>>,
    loopback_users: Vec<String>,
    key: Key,
    hasher: RandomState,
    gates: Box<[Mutex<()>]>,
    verifications: Arc<Semaphore>,
    throttle: Throttle,
    counters: Arc<Counters>,
}

impl Authenticator {
    /// Takes the users of a configuration. Hashes plain passwords, some 20 ms each.
    ///
    /// # Errors
    /// When a hash or pattern is unusable; [`config::load`] has told the operator before.
    pub fn new(config: &Config, counters: Arc<Counters>) -> Result<Self, String> {
        let mut users = HashMap::new();
        for user in &config.users {
            let record = UserRecord::new(user, Proof::new(hash_of(user)?))?;
            users.insert(user.name.clone(), Arc::new(record));
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            users,
            loopback_users: config.auth.loopback_users.clone(),
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
        match self.check(credentials, peer).await {
            Ok(user) => {
                self.counters.objects.logins_succeeded.add(1);
                Ok(user)
            }
            Err(refused) => {
                self.counters.objects.logins_failed.add(1);
                let wait = self.throttle.failed(peer, started.into_std());
                let Credentials { mechanism, user, .. } = credentials;
                tracing::warn!(%peer, user, mechanism, reason = %refused, wait_ms = wait.as_millis() as u64, "login refused");
                // Counted from the attempt's start: how long it took to find out says nothing to a guesser.
                tokio::time::sleep_until(started + wait).await;
                Err(refused)
            }
        }
    }

    async fn check(&self, offered: Credentials<'_>, peer: SocketAddr) -> Result<Arc<UserRecord>, LoginRefused> {
        let user = self.users.get(offered.user).ok_or(LoginRefused::UnknownUser)?;
        let local = peer.ip().to_canonical().is_loopback();
        if !local && self.loopback_users.iter().any(|name| name == offered.user) {
            return Err(LoginRefused::NotLoopback);
        }
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

fn hash_of(user: &config::User) -> Result<hash::Hash, String> {
    match (&user.password_hash, &user.password) {
        (Some(hash), _) => parse_hash(hash),
        (None, Some(password)) => parse_hash(&hash_password(password.reveal().as_bytes())?),
        (None, None) => Err(format!("user `{}` has no password", user.name)),
    }
}

#[cfg(test)]
mod tests;
