//! The rules of messaging as pure state machines: what a message is, where it is routed, who receives it and
//! what must be remembered.
//!
//! This crate owns the catalogue, the shards with their queues, and the traits that a store and a protocol
//! implement. It must not know sockets, disks, clocks or any wire format: time is an argument, storage is a trait,
//! and a protocol hands over bytes with the places of their pieces.

pub mod access;
pub mod alarms;
pub mod broker;
pub mod catalogue;
pub mod consumer;
pub mod counters;
pub mod dead_letter;
pub mod definition;
pub mod delivery;
mod departing;
pub mod effect;
pub mod engine;
pub mod exchange;
pub mod fact;
pub mod hub;
pub mod message;
mod moved;
pub mod outbox;
mod pattern;
mod patterns;
pub mod queue;
pub mod queues;
pub mod ready;
pub mod refusal;
pub mod restore;
mod restore_retained;
mod restore_sessions;
pub mod retained;
pub mod session;
pub mod session_census;
pub mod sessions;
pub mod shard;
pub mod store;
pub mod subscriptions;
pub mod topic;
pub mod topology;
pub mod upkeep;
pub mod value;
