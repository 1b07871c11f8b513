//! SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's side, without channel binding.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac};
use portolan_core::engine::{Directory, ScramKeys};
use rand::RngCore;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The method's name in AUTH and CONNECT.
pub(crate) const METHOD: &str = "SCRAM-SHA-256";

/// Bytes of random in our part of the nonce.
const NONCE: usize = 18;

/// An exchange under way.
pub(crate) enum Scram {
    /// The client's first message is awaited.
    First,
    /// Its proof is awaited.
    Proof(Box<Challenge>),
}

/// What the proof is held against.
pub(crate) struct Challenge {
    user: String,
    keys: ScramKeys,
    nonce: String,
    /// `client-first-message-bare,server-first-message`
    said: String,
}

/// What the exchange comes to.
pub(crate) enum Step {
    /// Say this and go on.
    Continue(Vec<u8>),
    /// The user is who it claims to be; say this with the good news.
    Proven { user: String, server_final: Vec<u8> },
}

impl Scram {
    /// Takes the client's next message. `None` when it is not what the exchange asks for, or the proof is wrong.
    pub(crate) fn step(&mut self, data: &[u8], directory: &dyn Directory) -> Option<Step> {
        let text = std::str::from_utf8(data).ok()?;
        match self {
            Self::First => {
                let mut random = [0; NONCE];
                rand::rng().fill_bytes(&mut random);
                let (challenge, server_first) = challenge(text, &BASE64.encode(random), directory)?;
                *self = Self::Proof(Box::new(challenge));
                Some(Step::Continue(server_first.into_bytes()))
            }
            Self::Proof(challenge) => {
                let server_final = challenge.check(text)?;
                Some(Step::Proven { user: challenge.user.clone(), server_final: server_final.into_bytes() })
            }
        }
    }
}

fn challenge(client_first: &str, random: &str, directory: &dyn Directory) -> Option<(Challenge, String)> {
    // A client that could bind to the channel but thinks that we cannot (`y`) is right.
    let bare = client_first.strip_prefix("n,").or_else(|| client_first.strip_prefix("y,"))?;
    // Nobody acts for somebody else here, so the authorisation identity stays empty.
    let bare = bare.strip_prefix(',')?;
    let mut parts = bare.split(',');
    let user = parts.next()?.strip_prefix("n=")?.replace("=2C", ",").replace("=3D", "=");
    let client_nonce = parts.next()?.strip_prefix("r=").filter(|nonce| !nonce.is_empty())?;
    let keys = directory.scram(&user);
    let nonce = format!("{client_nonce}{random}");
    let server_first = format!("r={nonce},s={},i={}", BASE64.encode(&keys.salt), keys.iterations);
    let said = format!("{bare},{server_first}");
    Some((Challenge { user, keys, nonce, said }, server_first))
}

impl Challenge {
    fn check(&self, client_final: &str) -> Option<String> {
        let (without_proof, proof) = client_final.rsplit_once(",p=")?;
        let mut parts = without_proof.split(',');
        // `n,,` or `y,,` in base64: what was said at the beginning.
        parts.next()?.strip_prefix("c=").filter(|header| matches!(*header, "biws" | "eSws"))?;
        parts.next()?.strip_prefix("r=").filter(|nonce| *nonce == self.nonce)?;
        let proof: [u8; 32] = BASE64.decode(proof).ok()?.try_into().ok()?;
        let message = format!("{},{without_proof}", self.said);
        let signature = hmac(&self.keys.stored, message.as_bytes())?;
        let key: Vec<u8> = proof.iter().zip(signature).map(|(proof, signature)| proof ^ signature).collect();
        let right: bool = Sha256::digest(&key).as_slice().ct_eq(&self.keys.stored).into();
        right.then_some(())?;
        let verifier = hmac(&self.keys.server, message.as_bytes())?;
        Some(format!("v={}", BASE64.encode(verifier)))
    }
}

fn hmac(key: &[u8], message: &[u8]) -> Option<[u8; 32]> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    mac.update(message);
    Some(mac.finalize().into_bytes().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7677, section 3: user `user`, password `pencil`.
    struct Example;

    impl Directory for Example {
        fn scram(&self, _: &str) -> ScramKeys {
            let salt = BASE64.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
            let mut salted = hmac(b"pencil", &[&salt[..], &[0, 0, 0, 1]].concat()).unwrap();
            let mut last = salted;
            for _ in 1..4096 {
                last = hmac(b"pencil", &last).unwrap();
                salted.iter_mut().zip(last).for_each(|(sum, one)| *sum ^= one);
            }
            let stored = Sha256::digest(hmac(&salted, b"Client Key").unwrap()).into();
            ScramKeys { salt, iterations: 4096, stored, server: hmac(&salted, b"Server Key").unwrap() }
        }
    }

    const FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=";
    const PROOF: &str = "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    #[test]
    fn the_example_of_the_rfc_comes_out() {
        let (challenge, first) = challenge(FIRST, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", &Example).unwrap();
        assert_eq!(first, "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
        let last = challenge.check(&format!("{FINAL}{PROOF}"));
        assert_eq!(last.as_deref(), Some("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
    }

    #[test]
    fn a_wrong_proof_or_nonce_and_garbage_are_refused() {
        let (challenge, _) = challenge(FIRST, "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0", &Example).unwrap();
        let wrong = PROOF.replace('d', "e");
        for last in [format!("{FINAL}{wrong}"), FINAL.to_owned(), format!("c=biws,r=x,p={PROOF}"), String::new()] {
            assert!(challenge.check(&last).is_none(), "{last}");
        }
        for first in ["", "p=tls-unique,,n=u,r=x", "n,a=x,n=u,r=y", "n,,n=u", "n,,n=u,r="] {
            assert!(super::challenge(first, "r", &Example).is_none(), "{first}");
        }
    }
}
