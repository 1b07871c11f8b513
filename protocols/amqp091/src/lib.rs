//! AMQP 0-9-1 as RabbitMQ speaks it: frames, methods and the state of a connection, sans I/O.
//!
//! This crate owns the protocol's bytes, codes and texts, and turns them into calls of the core. It must not know
//! sockets, disks, other protocols, or rules of messaging that hold for all of them.

mod channel;
pub mod codec;
mod commit;
mod consume;
mod convert;
mod deliveries;
mod engine;
mod handshake;
mod names;
mod publish;
mod refusal;
mod routes;
mod settle;
mod topology;
mod tx;

pub use convert::Amqp091;
pub use engine::{Connection, Settings};
