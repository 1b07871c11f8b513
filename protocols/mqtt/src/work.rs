//! What is gathered from one input and happens together: publishes, settlements, releases.

use portolan_core::broker::Batch;
use portolan_core::delivery::{DeliveryRef, Settlement};
use portolan_core::effect::Effects;

use crate::codec::AckKind;
use crate::reason::Reason;

/// A publish in the batch that its sender wants to have answered.
pub(crate) struct Unanswered {
    pub(crate) packet_id: u16,
    pub(crate) kind: AckKind,
    pub(crate) reason: Reason,
}

/// Gathered from one input.
#[derive(Default)]
pub(crate) struct Work {
    pub(crate) batch: Batch,
    pub(crate) effects: Effects,
    /// Publishes to answer; a publish's tag in the batch is its place here, counted from 1.
    pub(crate) unanswered: Vec<Unanswered>,
    pub(crate) settlements: Vec<Settlement>,
    /// QoS 2 deliveries that the client has taken over: to be remembered before PUBREL is sent.
    pub(crate) releases: Vec<(u16, DeliveryRef)>,
    /// Bytes of the message being made.
    pub(crate) block: Vec<u8>,
    /// Something was written that answers must wait for, apart from what the batch writes.
    pub(crate) persisted: bool,
    /// QoS 2 messages came whose packet ids have to be written down with them.
    pub(crate) arrived: bool,
    /// A message came.
    pub(crate) published: bool,
    /// For the counters.
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
    pub(crate) payload_bytes: u64,
    pub(crate) received: [u64; 3],
    pub(crate) routed: u64,
    pub(crate) unroutable: u64,
    pub(crate) denied: u64,
}
