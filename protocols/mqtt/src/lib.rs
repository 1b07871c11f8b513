//! MQTT 3.1, 3.1.1 and 5.0: packets, topics and reason codes, sans I/O.
//!
//! This crate owns the protocol's bytes, codes and texts and the rules of its topics, and turns them into calls of
//! the core. It must not know sockets, disks, runtimes, other protocols, or rules of messaging that hold for all of
//! them; AMQP's topic keys appear only as what the names of topics become at the core's border.

mod acks;
mod aliases;
pub mod codec;
mod commit;
mod convert;
mod deliveries;
mod engine;
mod flags;
mod grants;
mod handshake;
mod leave;
pub mod observe;
mod parked;
mod publish;
mod rate;
pub mod reason;
mod routes;
mod scram;
mod settings;
mod subscribe;
pub mod topic;
mod work;

pub use convert::Mqtt;
pub use engine::Connection;
pub use settings::{DeniedPublish, Settings};
