//! One channel: what it holds between methods.

use std::collections::HashMap;
use std::sync::Arc;

use portolan_core::catalogue::Targets;
use portolan_core::delivery::{ConsumerRef, SharedCredit};
use portolan_core::message::Message;

use crate::publish::Incoming;

/// A consumer as its channel knows it.
pub(crate) struct ChannelConsumer {
    /// Its place in its queue.
    pub(crate) at: ConsumerRef,
    /// Its number among the connection's deliveries.
    pub(crate) number: u32,
    pub(crate) no_ack: bool,
}

/// What a channel does with publishes and acknowledgements beyond carrying them out.
pub(crate) enum Mode {
    Plain,
    /// Publishes are counted and confirmed; the number of the last one.
    Confirm(u64),
    /// They wait for tx.commit.
    Transaction(Box<Transaction>),
}

/// Publishes and acknowledgements since the last commit or rollback.
#[derive(Default)]
pub(crate) struct Transaction {
    pub(crate) publishes: Vec<(Targets, Message)>,
    pub(crate) bytes: usize,
    pub(crate) acknowledgements: Vec<TxAcknowledgement>,
    /// Mandatory messages without a queue, to be returned at commit.
    pub(crate) returns: Vec<Message>,
}

/// An acknowledgement in a transaction, as it came.
pub(crate) struct TxAcknowledgement {
    /// Tags with what they named.
    pub(crate) held: Vec<(u64, crate::deliveries::Held)>,
    pub(crate) outcome: portolan_core::delivery::Outcome,
}

/// An open channel.
pub(crate) struct Channel {
    pub(crate) number: u16,
    /// Its session among the connection's deliveries.
    pub(crate) session: u32,
    /// We sent channel.close: everything but close and close-ok is dropped.
    pub(crate) closing: bool,
    pub(crate) mode: Mode,
    /// Prefetch for consumers that come, 0 for none.
    pub(crate) prefetch: u16,
    /// The window of all consumers together, once the client asked for one.
    pub(crate) shared: Option<Arc<SharedCredit>>,
    pub(crate) consumers: HashMap<Arc<str>, ChannelConsumer>,
    /// The queue declared last, which an empty name stands for.
    pub(crate) current_queue: Option<Arc<str>>,
    /// A message that is still coming in.
    pub(crate) incoming: Option<Incoming>,
    /// The hidden queue behind amq.rabbitmq.reply-to.
    pub(crate) reply_queue: Option<Arc<str>>,
}

impl Channel {
    pub(crate) fn new(number: u16, session: u32) -> Self {
        Self {
            number,
            session,
            closing: false,
            mode: Mode::Plain,
            prefetch: 0,
            shared: None,
            consumers: HashMap::new(),
            current_queue: None,
            incoming: None,
            reply_queue: None,
        }
    }
}
