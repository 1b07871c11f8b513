//! Logging in by AUTH packets: SCRAM-SHA-256.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, Mac};
use portolan_core::engine::ScramKeys;
use portolan_mqtt::codec::Version::{V5, V311};
use sha2::{Digest, Sha256};

use crate::bytes::*;
use crate::rig::{C, Rig};

const SCRAM: &str = "SCRAM-SHA-256";
const ROUNDS: u32 = 3;

fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    mac.update(message);
    mac.finalize().into_bytes().into()
}

fn salted(password: &str) -> [u8; 32] {
    let mut last = hmac(password.as_bytes(), b"salt\0\0\0\x01");
    let mut sum = last;
    for _ in 1..ROUNDS {
        last = hmac(password.as_bytes(), &last);
        sum.iter_mut().zip(last).for_each(|(sum, one)| *sum ^= one);
    }
    sum
}

/// What the broker knows of a user with the password `pencil`.
pub fn keys() -> ScramKeys {
    let salted = salted("pencil");
    let stored = Sha256::digest(hmac(&salted, b"Client Key")).into();
    ScramKeys { salt: b"salt".to_vec(), iterations: ROUNDS, stored, server: hmac(&salted, b"Server Key") }
}

fn first(user: &str) -> Vec<u8> {
    format!("n,,n={user},r=abc").into_bytes()
}

/// The client's last message, and the signature that the server must show.
fn proof(user: &str, password: &str, challenge: &str) -> (Vec<u8>, String) {
    let nonce = challenge.split(',').next().unwrap();
    let without = format!("c=biws,{nonce}");
    let said = format!("n={user},r=abc,{challenge},{without}");
    let client_key = hmac(&salted(password), b"Client Key");
    let signature = hmac(&Sha256::digest(client_key), said.as_bytes());
    let proof: Vec<u8> = client_key.iter().zip(signature).map(|(key, sign)| key ^ sign).collect();
    let server = hmac(&hmac(&salted(password), b"Server Key"), said.as_bytes());
    (format!("{without},p={}", BASE64.encode(proof)).into_bytes(), format!("v={}", BASE64.encode(server)))
}

fn step(data: &[u8]) -> Vec<u8> {
    [props::method(SCRAM), props::data(data)].concat()
}

/// The challenge in an AUTH of the server.
fn challenge(heard: &[String]) -> String {
    let (line, rest) = heard.split_first().unwrap();
    assert!(rest.is_empty() && line.starts_with("auth 18 method=SCRAM-SHA-256 data=r=abc"), "{heard:?}");
    line.split_once("data=").unwrap().1.to_owned()
}

fn log_in(rig: &mut Rig, user: &str, password: &str) -> (C, Vec<String>, String) {
    let client = rig.dial(&hello(V5, "c").with(&step(&first(user))));
    let challenge = challenge(&rig.heard(client));
    let (last, signature) = proof(user, password, &challenge);
    let heard = rig.say(client, &auth(0x18, &step(&last)));
    (client, heard, signature)
}

/// [MQTT5-4.12.0-2] [MQTT5-4.12.0-3] [MQTT5-4.12.0-5] [MQTT5-3.2.0-1]
#[test]
fn a_proof_lets_in() {
    let mut rig = Rig::new();
    let (client, heard, signature) = log_in(&mut rig, "user", "pencil");
    assert!(heard.len() == 1 && heard[0].starts_with("connack 0 00"), "{heard:?}");
    assert!(heard[0].ends_with(&format!("method=SCRAM-SHA-256 data={signature}")));
    assert_eq!(rig.say(client, PING), ["pingresp"]);
}

/// [MQTT5-4.12.0-4] [MQTT5-3.1.4-2]
#[test]
fn a_wrong_proof_does_not() {
    let mut rig = Rig::new();
    let (_, heard, _) = log_in(&mut rig, "user", "pencl");
    assert_eq!(heard, ["connack 0 87", "CLOSED"]);
    let client = rig.dial(&hello(V5, "c").with(&step(b"nonsense")));
    assert_eq!(rig.heard(client), ["connack 0 87", "CLOSED"]);
}

/// [MQTT5-3.1.2-30]: only AUTH and DISCONNECT meanwhile.
#[test]
fn nothing_else_meanwhile() {
    let mut rig = Rig::new();
    for (bytes, answer) in [
        (publish(V5, 0, 0, "t", "x"), &["connack 0 82", "CLOSED"][..]),
        (auth(0x18, &[props::method("PLAIN"), props::data(b"x")].concat()), &["connack 0 82", "CLOSED"]),
        (BYE.to_vec(), &["CLOSED"]),
    ] {
        let client = rig.dial(&hello(V5, "c").with(&props::method(SCRAM)));
        assert_eq!(rig.heard(client), ["auth 18 method=SCRAM-SHA-256"]);
        assert_eq!(rig.say(client, &bytes), answer);
    }
}

/// [MQTT5-4.12.1-1] [MQTT5-4.12.1-2]
#[test]
fn a_client_may_prove_itself_again() {
    let mut rig = Rig::new();
    let (client, ..) = log_in(&mut rig, "user", "pencil");
    let heard = rig.say(client, &auth(0x19, &step(&first("user"))));
    let (last, signature) = proof("user", "pencil", &challenge(&heard));
    assert_eq!(rig.say(client, PING), ["pingresp"], "life goes on meanwhile");
    let heard = rig.say(client, &auth(0x18, &step(&last)));
    assert_eq!(heard, [format!("auth 00 method=SCRAM-SHA-256 data={signature}")]);
    let heard = rig.say(client, &auth(0x19, &step(&first("other"))));
    let (last, _) = proof("other", "pencil", &challenge(&heard));
    assert_eq!(rig.say(client, &auth(0x18, &step(&last))), ["disconnect 87", "CLOSED"], "as somebody else");
    let (client, ..) = log_in(&mut rig, "user", "pencil");
    assert_eq!(rig.say(client, &auth(0x19, &props::method("X"))), ["disconnect 82", "CLOSED"]);
}

/// [MQTT5-4.12.0-6] [MQTT5-4.12.0-7]
#[test]
fn auth_is_for_those_who_began_with_it() {
    let mut rig = Rig::new();
    let client = rig.clean(V5, "c");
    assert_eq!(rig.say(client, &auth(0x19, &props::method(SCRAM))), ["disconnect 82", "CLOSED"]);
    let old = rig.clean(V311, "c");
    assert_eq!(rig.say(old, &auth(0x19, &props::method(SCRAM))), ["CLOSED"]);
}
