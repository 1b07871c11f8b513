//! Remembers which passwords have been verified, so that a login costs argon2's 20 ms once and not per connection.
//!
//! What is kept is a keyed digest of the password (BLAKE2s under a random key of this process), never the password:
//! a copy of this memory helps nobody who does not also have the key, and it dies with the process. Verified
//! passwords are one per user, and of refused ones the last few, so that an application that retries with a stale
//! password costs no argon2 either.

use std::collections::VecDeque;
use std::sync::OnceLock;

use blake2::Blake2sMac256;
use blake2::digest::{KeyInit, Mac};
use parking_lot::Mutex;
use rand::RngCore;
use subtle::ConstantTimeEq;

use super::hash::Hash;

/// How many refused passwords are remembered per user.
const REFUSED: usize = 16;

/// The key of this process.
pub(super) struct Key([u8; 32]);

/// A password under the key.
#[derive(Clone, Copy)]
pub(super) struct Digest([u8; 32]);

impl Key {
    pub(super) fn random() -> Self {
        let mut key = [0; 32];
        rand::rng().fill_bytes(&mut key);
        Self(key)
    }

    /// The digest of a user's password. `None` cannot happen: the key has the length that BLAKE2s takes.
    pub(super) fn digest(&self, user: &str, password: &[u8]) -> Option<Digest> {
        let mut mac = <Blake2sMac256 as KeyInit>::new_from_slice(&self.0).ok()?;
        // The length keeps ("ab", "c") and ("a", "bc") apart.
        mac.update(&(user.len() as u64).to_le_bytes());
        mac.update(user.as_bytes());
        mac.update(password);
        Some(Digest(mac.finalize().into_bytes().into()))
    }
}

/// What is known about a user's password.
pub(super) struct Proof {
    hash: Hash,
    verified: OnceLock<Digest>,
    refused: Mutex<VecDeque<Digest>>,
}

impl Proof {
    pub(super) fn new(hash: Hash) -> Self {
        Self { hash, verified: OnceLock::new(), refused: Mutex::new(VecDeque::new()) }
    }

    /// Whether the password is the right one, if that has been found out before.
    pub(super) fn known(&self, digest: &Digest) -> Option<bool> {
        let same = |known: &Digest| bool::from(known.0.ct_eq(&digest.0));
        match self.verified.get() {
            Some(verified) if same(verified) => Some(true),
            _ => self.refused.lock().iter().any(same).then_some(false),
        }
    }

    /// Finds it out, slowly, and remembers.
    pub(super) fn verify(&self, digest: &Digest, password: &[u8]) -> bool {
        let right = match self.hash.verify(password) {
            Ok(right) => right,
            Err(error) => {
                // Says nothing about the password, so there is nothing to remember.
                tracing::error!(%error, "a password cannot be verified");
                return false;
            }
        };
        if right {
            // Somebody else may have been quicker; the digest is the same then.
            let _ = self.verified.set(*digest);
        } else {
            let mut refused = self.refused.lock();
            if refused.len() == REFUSED {
                refused.pop_front();
            }
            refused.push_back(*digest);
        }
        right
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::hash;

    #[test]
    fn known_after_the_first_time() {
        let key = Key::random();
        let proof = Proof::new(hash::parse_hash("kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR").unwrap());
        let right = key.digest("u", b"test12").unwrap();
        let wrong = key.digest("u", b"test13").unwrap();
        assert_eq!((proof.known(&right), proof.known(&wrong)), (None, None));
        assert!(proof.verify(&right, b"test12"));
        assert!(!proof.verify(&wrong, b"test13"));
        assert_eq!((proof.known(&right), proof.known(&wrong)), (Some(true), Some(false)));
    }

    #[test]
    fn refused_ones_are_bounded() {
        let key = Key::random();
        let proof = Proof::new(hash::parse_hash("kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR").unwrap());
        for n in 0..100u32 {
            proof.verify(&key.digest("u", &n.to_le_bytes()).unwrap(), &n.to_le_bytes());
        }
        assert_eq!(proof.refused.lock().len(), REFUSED);
    }

    #[test]
    fn digests_differ_by_user_password_and_process() {
        let (key, other) = (Key::random(), Key::random());
        let digest = |key: &Key, user: &str, password: &str| key.digest(user, password.as_bytes()).unwrap().0;
        assert_eq!(digest(&key, "a", "bc"), digest(&key, "a", "bc"));
        assert_ne!(digest(&key, "a", "bc"), digest(&key, "ab", "c"));
        assert_ne!(digest(&key, "a", "bc"), digest(&other, "a", "bc"));
    }
}
