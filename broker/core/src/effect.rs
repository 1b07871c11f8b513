//! What a shard wants done once its lock is free: wake connections, read paged bodies, dead-letter, delete.

use std::sync::Arc;

use crate::definition::DeadLetterTarget;
use crate::delivery::Recipient;
use crate::exchange::QueueTarget;
use crate::message::Message;
use crate::store::{Journal, Position, StoreError};

/// Why a message left its queue without being accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A consumer rejected it.
    Rejected,
    /// It waited too long.
    Expired,
    /// The queue was full.
    MaxLength,
    /// It came back too often.
    DeliveryLimit,
}

impl Reason {
    /// The word that clients read in `x-death`.
    pub fn word(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::MaxLength => "maxlen",
            Self::DeliveryLimit => "delivery_limit",
        }
    }
}

/// A message to publish to its queue's dead-letter exchange.
#[derive(Debug)]
pub struct DeadLetter {
    /// The queue that it leaves.
    pub queue: QueueTarget,
    /// That queue's name.
    pub queue_name: Arc<str>,
    /// That queue's vhost.
    pub vhost: Arc<str>,
    /// Where to.
    pub target: DeadLetterTarget,
    /// The message.
    pub message: Message,
    /// Why.
    pub reason: Reason,
    /// Its sequence number there when it is stored: to be settled once the message is safe elsewhere.
    pub stored: Option<u64>,
}

/// Paged bodies that a queue needs.
#[derive(Debug)]
pub struct Fetch {
    /// The queue.
    pub queue: QueueTarget,
    /// Sequence numbers and places.
    pub entries: Vec<(u64, Position)>,
}

/// Collected while shards are locked, carried out afterwards.
#[derive(Default)]
pub struct Effects {
    /// Connections with something to send.
    pub touched: Vec<Arc<dyn Recipient>>,
    /// Bodies to read.
    pub fetches: Vec<Fetch>,
    /// Messages to dead-letter.
    pub dead_letters: Vec<DeadLetter>,
    /// Auto-delete queues whose last consumer left.
    pub unused: Vec<QueueTarget>,
    /// Queues that nobody used for their expiry time.
    pub idle: Vec<QueueTarget>,
    /// Tags of publishes that a queue refused.
    pub refused: Vec<u32>,
    /// Messages that sessions did not get because their clients were away and QoS 0 does not wait, or because too many
    /// wait already.
    pub missed: u64,
    /// Something was appended to the journal on behalf of a publisher.
    pub persisted: bool,
    /// The store's last complaint.
    pub store_error: Option<StoreError>,
    /// Bytes of ready bodies in memory, gained or lost.
    pub memory: i64,
    /// Settled messages whose record is not yet written.
    pub settling: Settling,
}

/// Settled messages of one queue, gathered for one record.
#[derive(Default)]
pub struct Settling {
    /// Sequence numbers.
    pub seqs: Vec<u64>,
    /// Where they are stored.
    pub positions: Vec<Position>,
    /// Those that came back to a queue that limits that: how often, and which.
    pub returned: Vec<(u32, u64)>,
}

/// What a shard works with: the time, the journal, and where its wishes go.
pub struct Context<'a> {
    /// Milliseconds since the epoch.
    pub now: u64,
    /// Takes records.
    pub journal: &'a dyn Journal,
    /// Takes wishes.
    pub effects: &'a mut Effects,
    /// Bodies in memory exceed the budget: page out what comes.
    pub page_out: bool,
    /// Bytes of bodies that one queue keeps in memory when they are stored anyway.
    pub queue_memory: usize,
}

impl Context<'_> {
    /// Sees to it that the recipient is flushed once.
    pub fn touch(&mut self, recipient: &Arc<dyn Recipient>) {
        if recipient.mark() {
            self.effects.touched.push(Arc::clone(recipient));
        }
    }
}
