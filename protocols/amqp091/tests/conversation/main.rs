//! The engine driven by bytes, without sockets: what a client sends, what it gets, and when.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

mod asking;
mod bytes;
mod channels;
mod confirming;
mod cutting;
/// The journal that the core's tests use, too.
#[allow(dead_code)]
#[path = "../../../../broker/core/tests/rules/ledger.rs"]
mod ledger;
mod receiving;
mod rig;
mod shaking;
mod show;
mod transactions;
mod translating;
mod types;
