//! One attempt to give one message to one consumer, and how it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::exchange::QueueTarget;
use crate::message::Message;

/// Names an unsettled delivery: the queue that waits for its end, and the queue's own number for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryRef {
    /// The queue.
    pub queue: QueueTarget,
    /// The queue's number for the delivery.
    pub key: u32,
}

/// Names a consumer within its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConsumerRef {
    /// The queue.
    pub queue: QueueTarget,
    /// The queue's number for the consumer.
    pub key: u32,
}

/// A message on its way to a consumer.
#[derive(Debug)]
pub struct Delivery<'a> {
    /// The session that holds the consumer, in the numbering of its connection.
    pub session: u32,
    /// The consumer, in the numbering of its connection.
    pub consumer: u32,
    /// The consumer, in the numbering of its queue: what to resume when room returns.
    pub from: ConsumerRef,
    /// Now, in milliseconds since the epoch.
    pub now: u64,
    /// The message's number in its queue, the same whenever it is delivered.
    pub seq: u64,
    /// The message.
    pub message: &'a Message,
    /// A client holds it already: only the release of its QoS 2 packet id is wanted, see
    /// [`Queue::release`](crate::queue::Queue::release).
    pub released: bool,
    /// When it expires, milliseconds since the epoch; 0 for never.
    pub expires_at: u64,
    /// It was delivered before.
    pub redelivered: bool,
    /// Times it came back; only queues with a delivery limit count and tell.
    pub returns: Option<u32>,
    /// What to settle, `None` when the delivery is settled as it leaves.
    pub settle: Option<DeliveryRef>,
}

/// What a recipient says to a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Took it and has room for more.
    More,
    /// Took it, has room for more, and the delivery was settled as it left: nothing will be heard of it.
    Settled,
    /// As [`Taken::Settled`], and wants no more until it asks the queue to resume.
    SettledFull,
    /// Took it, and wants no more until it asks the queue to resume.
    Full,
    /// Did not take it, and wants no more until it asks the queue to resume: it holds too much, or the connection or
    /// session is about to be gone.
    Gone,
    /// As [`Taken::Gone`], but what needs no acknowledgement is welcome meanwhile.
    Closed,
}

/// A connection as the queues see it. All calls are short and never block; several threads may call at once.
pub trait Recipient: Send + Sync {
    /// Takes one delivery into the outbox.
    fn deliver(&self, delivery: &Delivery<'_>) -> Taken;

    /// The queue is gone, and with it the consumer.
    fn cancelled(&self, session: u32, consumer: u32);

    /// True for the first caller since the last [`Recipient::flush`]: that one must see to the flush.
    fn mark(&self) -> bool;

    /// Sends what the outbox holds.
    fn flush(&self);
}

/// How a delivery ends: the outcomes of every protocol in AMQP 1.0's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Processed: forget it.
    Accepted,
    /// Not processable: dead-letter or drop it.
    Rejected,
    /// Back to its queue, for anyone.
    Released,
}

/// The end of one delivery.
#[derive(Clone, Copy, Debug)]
pub struct Settlement {
    /// Which delivery.
    pub delivery: DeliveryRef,
    /// How it ended.
    pub outcome: Outcome,
}

/// A window that several consumers, perhaps of queues in different shards, share.
#[derive(Debug)]
pub struct SharedCredit {
    limit: AtomicU32,
    held: AtomicU32,
}

impl SharedCredit {
    /// A window of `limit` deliveries, 0 for no limit.
    pub fn new(limit: u32) -> Arc<Self> {
        Arc::new(Self { limit: AtomicU32::new(limit), held: AtomicU32::new(0) })
    }

    /// Changes the limit; what is held beyond a smaller one stays held.
    pub fn set_limit(&self, limit: u32) {
        self.limit.store(limit, Ordering::Release);
    }

    /// Takes one place if there is one.
    pub fn take(&self) -> bool {
        let limit = self.limit.load(Ordering::Acquire);
        let more = |held| (limit == 0 || held < limit).then_some(held + 1);
        self.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok()
    }

    /// Takes `count` places, whether there are so many or not: they are held already.
    pub fn hold(&self, count: u32) {
        self.held.fetch_add(count, Ordering::AcqRel);
    }

    /// Gives `count` places back.
    pub fn give_back(&self, count: u32) {
        let less = |held: u32| Some(held.saturating_sub(count));
        // The closure always yields a value, so this cannot fail.
        let _ = self.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_window_fills_and_reopens() {
        let credit = SharedCredit::new(2);
        assert!(credit.take() && credit.take() && !credit.take());
        credit.give_back(1);
        assert!(credit.take() && !credit.take());
        credit.set_limit(0);
        assert!(credit.take());
    }
}
