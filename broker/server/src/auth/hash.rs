//! Password hashes: argon2 for ours, RabbitMQ's salted SHA-2 for those that came from there.

use argon2::password_hash::{Output, ParamsString, PasswordHash, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rand::RngCore;
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;

use super::blocks::Blocks;

/// Bytes of salt in front of RabbitMQ's hashes.
const RABBIT_SALT: usize = 4;
/// Most bytes of salt in an argon2 hash, whose text of them has at most 64 characters.
const SALT: usize = 48;
/// Most memory, in KiB, that a stored argon2 hash may ask of us at each login.
const MOST_MEMORY: u32 = 1 << 18;

/// A hash that a password can be held against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hash {
    /// A PHC string, checked when it was read.
    Argon2(String),
    /// RabbitMQ's `rabbit_password_hashing_sha256` or `…_sha512`: salt, then hash of salt and password.
    Sha2 { salt: [u8; RABBIT_SALT], digest: Vec<u8> },
}

/// Reads a hash as it stands in a configuration; the error is for the operator.
pub(crate) fn parse_hash(text: &str) -> Result<Hash, String> {
    if text.starts_with('$') { parse_phc(text) } else { parse_rabbit(text) }
}

fn parse_phc(text: &str) -> Result<Hash, String> {
    let unusable = |why: &str| format!("not a usable hash ({why}): take the output of `portolan hash-password`");
    let hash = PasswordHash::new(text).map_err(|e| unusable(&e.to_string()))?;
    if hash.hash.is_none() || argon2::Algorithm::try_from(hash.algorithm).is_err() {
        return Err(unusable("not argon2"));
    }
    let params = argon2::Params::try_from(&hash).map_err(|e| unusable(&e.to_string()))?;
    if params.m_cost() > MOST_MEMORY || params.t_cost() > 64 {
        return Err(unusable("it would take more than 256 MiB or 64 passes at each login"));
    }
    Ok(Hash::Argon2(text.to_owned()))
}

fn parse_rabbit(text: &str) -> Result<Hash, String> {
    let expected = "neither an argon2 hash (`portolan hash-password` makes one) nor RabbitMQ's base64 of a salted \
                    SHA-256 or SHA-512";
    let bytes = STANDARD.decode(text).map_err(|_| expected.to_owned())?;
    let (salt, digest) = bytes.split_first_chunk::<RABBIT_SALT>().ok_or_else(|| expected.to_owned())?;
    match digest.len() {
        32 | 64 => Ok(Hash::Sha2 { salt: *salt, digest: digest.to_vec() }),
        // RabbitMQ's oldest hashes are MD5; they are what an attacker would wish for.
        16 => Err("an MD5 hash: set the password anew and take its argon2 or SHA-256 hash".to_owned()),
        _ => Err(expected.to_owned()),
    }
}

/// Hashes a password with argon2id. Takes some 20 ms and 19 MiB: not for a thread that serves sockets.
///
/// # Errors
/// When there is no memory for it, or the password is too long for argon2 (4 GiB).
pub fn hash_password(password: &[u8]) -> Result<String, String> {
    let mut salt = [0; 16];
    rand::rng().fill_bytes(&mut salt);
    let text = SaltString::encode_b64(&salt).map_err(|e| e.to_string())?;
    let argon2 = Argon2::default();
    let hash = PasswordHash {
        algorithm: Algorithm::default().ident(),
        version: Some(Version::default().into()),
        params: ParamsString::try_from(argon2.params()).map_err(|e| e.to_string())?,
        salt: Some(text.as_salt()),
        hash: Some(compute(&argon2, password, &salt, Params::DEFAULT_OUTPUT_LEN)?),
    };
    Ok(hash.to_string())
}

/// Whether a password has that hash; the parameters are the hash's.
fn verify_argon2(text: &str, password: &[u8]) -> Result<bool, String> {
    let hash = PasswordHash::new(text).map_err(|e| e.to_string())?;
    let (Some(salt), Some(expected)) = (hash.salt, hash.hash) else { return Err("not a whole hash".to_owned()) };
    let algorithm = Algorithm::try_from(hash.algorithm).map_err(|e| e.to_string())?;
    let version = hash.version.map_or(Ok(Version::default()), Version::try_from).map_err(|e| e.to_string())?;
    let params = Params::try_from(&hash).map_err(|e| e.to_string())?;
    let mut bytes = [0; SALT];
    let salt = salt.decode_b64(&mut bytes).map_err(|e| e.to_string())?;
    // Outputs are compared in constant time.
    Ok(compute(&Argon2::new(algorithm, version, params), password, salt, expected.len())? == expected)
}

fn compute(argon2: &Argon2<'_>, password: &[u8], salt: &[u8], length: usize) -> Result<Output, String> {
    let blocks = Blocks::new(argon2.params().block_count()).map_err(|e| format!("no memory for argon2: {e}"))?;
    let mut bytes = [0; Output::MAX_LENGTH];
    let out = bytes.get_mut(..length).ok_or("too long an output")?;
    argon2.hash_password_into_with_memory(password, salt, out, blocks).map_err(|e| e.to_string())?;
    Output::new(out).map_err(|e| e.to_string())
}

impl Hash {
    /// Whether that is the password. As slow as the hash was meant to be.
    ///
    /// # Errors
    /// When that cannot be found out, for want of memory; the error is for the log.
    pub(crate) fn verify(&self, password: &[u8]) -> Result<bool, String> {
        match self {
            Self::Argon2(text) => verify_argon2(text, password),
            Self::Sha2 { salt, digest } => {
                let salted = [salt.as_slice(), password].concat();
                let computed = if digest.len() == 32 {
                    Sha256::digest(&salted).to_vec()
                } else {
                    Sha512::digest(&salted).to_vec()
                };
                Ok(computed.ct_eq(digest).into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn argon2_round_trip() {
        let text = hash_password(b"correct horse").unwrap();
        assert!(text.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{text}");
        let hash = parse_hash(&text).unwrap();
        assert_eq!(hash.verify(b"correct horse"), Ok(true));
        assert_eq!(hash.verify(b"correct horse "), Ok(false));
        assert_ne!(text, hash_password(b"correct horse").unwrap(), "each hash has a salt of its own");
    }

    #[test]
    fn rabbitmq_sha256() {
        // The worked example of RabbitMQ's documentation: salt 908DC60A, password "test12".
        let hash = parse_hash("kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR").unwrap();
        assert_eq!(hash.verify(b"test12"), Ok(true));
        assert_eq!(hash.verify(b"test13"), Ok(false));
    }

    #[test]
    fn rabbitmq_sha512() {
        let salt = [0x90, 0x8d, 0xc6, 0x0a];
        let digest = Sha512::digest([salt.as_slice(), b"test12"].concat());
        let text = STANDARD.encode([salt.as_slice(), &digest].concat());
        let hash = parse_hash(&text).unwrap();
        assert_eq!(hash.verify(b"test12"), Ok(true));
        assert_eq!(hash.verify(b""), Ok(false));
    }

    #[test]
    fn what_is_no_hash_is_refused() {
        let md5 = STANDARD.encode([0; 20]);
        let greedy = "$argon2id$v=19$m=4194304,t=2,p=1$c29tZXNhbHRzb21l$SqlVijFGiPG+935vDSGEsA";
        for text in ["", "guest", "AAAA", "$argon2id$", "$2b$12$abcdefghijklmnopqrstuv", greedy, md5.as_str()] {
            assert!(parse_hash(text).is_err(), "{text}");
        }
    }
}
