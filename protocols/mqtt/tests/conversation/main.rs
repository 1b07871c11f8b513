//! The engine driven by bytes, without sockets: what clients send, what they get, and when. Tests name the statements
//! of MQTT 3.1.1 (MQTT-…) and 5.0 (MQTT5-…) that they hold the engine to.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

mod bytes;
/// The journal that the core's tests use, too.
#[allow(dead_code)]
#[path = "../../../../broker/core/tests/rules/ledger.rs"]
mod ledger;
mod rig;
mod show;

mod crossing;
mod delivering;
mod malformed;
mod proving;
mod publishing;
mod resuming;
mod retaining;
mod shaking;
mod sharing;
mod subscribing;
mod taking_over;
mod willing;
