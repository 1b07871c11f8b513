//! The message broker: everything around the rules of messaging that touches sockets, files, users and time.
//!
//! This crate owns the configuration, the command line, users and their passwords, the listeners, the logs and the
//! process. Only here do the protocols, the store and the core meet; it must hold no rule of messaging and no wire
//! format of its own.

pub mod admission;
pub mod alarms;
pub mod amqp;
pub mod auth;
pub mod bind;
pub mod cli;
pub mod config;
pub mod connection;
pub mod exit;
pub mod http;
pub mod label;
pub mod listener;
pub mod logging;
pub mod mqtt;
pub mod node;
pub mod pager;
pub mod process;
pub mod serve;
pub mod signals;
pub mod status;
pub mod time;
pub mod wake;
pub mod wire;
pub mod workers;
