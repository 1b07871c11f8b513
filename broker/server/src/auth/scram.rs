//! Keys for SCRAM-SHA-256 \[RFC 5802, RFC 7677\]: made of passwords, read from the configuration, or made up.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use portolan_core::engine::ScramKeys;
use rand::RngCore;
use sha2::{Digest, Sha256};

/// Rounds of PBKDF2 where we choose: what RFC 7677 section 4 asks for at least, since small devices do them, too.
const ITERATIONS: u32 = 4096;
/// Most rounds that stored keys may ask of clients.
const MOST_ITERATIONS: u32 = 10_000_000;
const SALT: usize = 16;
const SCHEME: &str = "SCRAM-SHA-256";

/// Hashes a password for `scram_sha_256` in the configuration. The text is PostgreSQL's:
/// `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`.
///
/// # Errors
/// When the password is not text: SCRAM knows no others.
pub fn scram_password(password: &[u8]) -> Result<String, String> {
    let password = std::str::from_utf8(password).map_err(|_| "the password is not UTF-8".to_owned())?;
    let mut salt = [0; SALT];
    rand::rng().fill_bytes(&mut salt);
    let keys = keys_of(password, &salt);
    let text = |bytes: &[u8]| STANDARD.encode(bytes);
    let (salt, stored, server) = (text(&keys.salt), text(&keys.stored), text(&keys.server));
    Ok(format!("{SCHEME}${ITERATIONS}:{salt}${stored}:{server}"))
}

/// Reads what [`scram_password`] made; the error is for the operator.
pub(crate) fn parse_scram(text: &str) -> Result<ScramKeys, String> {
    let read = || {
        let (iterations, rest) = text.strip_prefix(SCHEME)?.strip_prefix('$')?.split_once(':')?;
        let (salt, keys) = rest.split_once('$')?;
        let (stored, server) = keys.split_once(':')?;
        let bytes = |text: &str| STANDARD.decode(text).ok();
        let keys = ScramKeys {
            salt: bytes(salt).filter(|salt| !salt.is_empty())?,
            iterations: iterations.parse().ok().filter(|rounds| (ITERATIONS..=MOST_ITERATIONS).contains(rounds))?,
            stored: bytes(stored)?.try_into().ok()?,
            server: bytes(server)?.try_into().ok()?,
        };
        Some(keys)
    };
    read().ok_or_else(|| "not SCRAM keys: take the output of `portolan hash-password --scram`".to_owned())
}

/// The secret that salts and made up keys come from. It is the same after a restart with the same users, or a guesser
/// would see that made up salts change where real ones do not.
pub(super) struct Seed([u8; 32]);

impl Seed {
    /// A secret made of others.
    pub(super) fn of<'a>(secrets: impl Iterator<Item = &'a str>) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"portolan scram");
        for secret in secrets {
            hash.update((secret.len() as u64).to_le_bytes());
            hash.update(secret);
        }
        Self(hash.finalize().into())
    }

    /// Keys of a password that stands in the configuration.
    pub(super) fn keys(&self, user: &str, password: &str) -> ScramKeys {
        keys_of(password, &self.salt(user))
    }

    /// Keys that no password has.
    pub(super) fn made_up(&self, user: &str) -> ScramKeys {
        let key = |what: &[u8]| hmac(&self.0, &[what, user.as_bytes()]);
        ScramKeys { salt: self.salt(user), iterations: ITERATIONS, stored: key(b"stored"), server: key(b"server") }
    }

    fn salt(&self, user: &str) -> Vec<u8> {
        let mut salt = hmac(&self.0, &[b"salt", user.as_bytes()]).to_vec();
        salt.truncate(SALT);
        salt
    }
}

fn keys_of(password: &str, salt: &[u8]) -> ScramKeys {
    let salted = salted(password.as_bytes(), salt);
    let stored = Sha256::digest(hmac(&salted, &[b"Client Key"])).into();
    ScramKeys { salt: salt.to_vec(), iterations: ITERATIONS, stored, server: hmac(&salted, &[b"Server Key"]) }
}

/// `Hi()` of RFC 5802 section 2.2: PBKDF2 with one block.
fn salted(password: &[u8], salt: &[u8]) -> [u8; 32] {
    let mut last = hmac(password, &[salt, &1u32.to_be_bytes()]);
    let mut sum = last;
    for _ in 1..ITERATIONS {
        last = hmac(password, &[&last]);
        sum.iter_mut().zip(last).for_each(|(sum, byte)| *sum ^= byte);
    }
    sum
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    // HMAC takes keys of any length.
    let Ok(mut mac) = <Hmac<Sha256> as Mac>::new_from_slice(key) else { return [0; 32] };
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_are_those_of_rfc_7677() {
        // Its example: user "user", password "pencil".
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let keys = keys_of("pencil", &salt);
        let message = "n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                       s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let signature = hmac(&keys.server, &[message.as_bytes()]);
        assert_eq!(STANDARD.encode(signature), "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
        let proof = STANDARD.decode("dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=").unwrap();
        let client = hmac(&keys.stored, &[message.as_bytes()]);
        let key: Vec<u8> = proof.iter().zip(client).map(|(a, b)| a ^ b).collect();
        assert_eq!(Sha256::digest(key).as_slice(), keys.stored);
    }

    #[test]
    fn what_is_printed_is_read() {
        let text = scram_password(b"secret").unwrap();
        let keys = parse_scram(&text).unwrap();
        assert_eq!((keys.stored, keys.iterations), (keys_of("secret", &keys.salt).stored, 4096));
        assert!(scram_password(b"\xff").is_err());
        let weak = text.replace("$4096:", "$1:");
        for bad in ["", "SCRAM-SHA-256", "SCRAM-SHA-256$4096:$AA==:AA==", &weak, &text[..text.len() - 4]] {
            assert!(parse_scram(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn made_up_keys_stay_and_differ_by_user() {
        let seed = || Seed::of(["a", "b"].into_iter());
        let (one, again, other) = (seed().made_up("x"), seed().made_up("x"), seed().made_up("y"));
        assert_eq!((&one.salt, one.stored, one.server), (&again.salt, again.stored, again.server));
        assert!(one.salt != other.salt && one.stored != other.stored && one.stored != one.server);
        assert_ne!(Seed::of(["ab"].into_iter()).made_up("x").salt, one.salt);
        assert_eq!(seed().keys("x", "password").salt, one.salt, "they look alike");
    }
}
