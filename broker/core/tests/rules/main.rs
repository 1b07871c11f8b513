//! The rules of messaging, proved below any socket: commands in, deliveries and records out.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::expect_used)]

mod bounds;
mod client;
mod credit_model;
mod deadlines;
mod delivering;
mod devices;
mod dying;
mod kit;
mod ledger;
mod lifecycle;
mod moving;
mod outbox;
mod paging;
mod queue_model;
mod ready_model;
mod restart;
mod retained;
mod routing;
mod sessions;
mod subscriptions;
mod topic_model;
