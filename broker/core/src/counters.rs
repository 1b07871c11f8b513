//! What the broker counts since it started. Operators read it; nothing in the broker decides by it.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows. Add once per batch, not per message: two cores that add to the same number by turns
/// pay more for it than for routing the message.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Nothing may be concluded about the order in which other threads see it.
    pub fn add(&self, n: u64) {
        if n > 0 {
            self.0.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// The sum so far.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Everything that is counted, in groups by who adds to them.
#[derive(Debug, Default)]
pub struct Counters {
    /// Publishers' side.
    pub published: Published,
    /// Consumers' side.
    pub delivered: Delivered,
    /// Things that come and go.
    pub objects: Objects,
    /// What MQTT clients sent.
    pub mqtt_received: MqttReceived,
    /// What MQTT clients got.
    pub mqtt_delivered: MqttDelivered,
}

// Each group has cache lines of its own (128 bytes: the prefetcher fetches lines in pairs), so that publishers and
// consumers on different cores do not take them from each other.

/// What publishers did.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Published {
    /// Messages received.
    pub received: Counter,
    /// Of these, on a channel in confirm mode.
    pub received_confirm: Counter,
    /// Messages that reached at least one queue.
    pub routed: Counter,
    /// Confirms sent, each message counted once however many one reply covers.
    pub confirmed: Counter,
    /// Mandatory messages without a queue, returned.
    pub unroutable_returned: Counter,
    /// Other messages without a queue, dropped.
    pub unroutable_dropped: Counter,
    /// Bytes read from clients.
    pub bytes_in: Counter,
}

/// What consumers got.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Delivered {
    /// To consumers that acknowledge.
    pub consume_manual: Counter,
    /// To consumers that do not.
    pub consume_auto: Counter,
    /// Fetched one by one, to be acknowledged.
    pub get_manual: Counter,
    /// Fetched one by one, not to be acknowledged.
    pub get_auto: Counter,
    /// Fetches that found an empty queue.
    pub get_empty: Counter,
    /// Of all these, deliveries that were not the first of their message.
    pub redelivered: Counter,
    /// Acknowledged by a consumer.
    pub acknowledged: Counter,
    /// Bytes written to clients.
    pub bytes_out: Counter,
    /// Bodies given up from memory because the journal has them.
    pub paged_out: Counter,
    /// Bodies read back from the journal.
    pub paged_in: Counter,
    /// Stored messages that could not be read any more, and were dropped.
    pub lost: Counter,
}

impl Delivered {
    /// Deliveries of every kind.
    pub fn total(&self) -> u64 {
        [&self.consume_manual, &self.consume_auto, &self.get_manual, &self.get_auto].iter().map(|c| c.get()).sum()
    }
}

/// What came and went.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Objects {
    /// Connections accepted.
    pub connections_opened: Counter,
    /// Connections that ended, for whatever reason.
    pub connections_closed: Counter,
    /// Times that a connection was stopped for want of memory or disk.
    pub connections_blocked: Counter,
    /// Times that it was let go on, or ended.
    pub connections_unblocked: Counter,
    /// Channels opened.
    pub channels_opened: Counter,
    /// Channels closed.
    pub channels_closed: Counter,
    /// Queue declarations, of new and of existing queues.
    pub queues_declared: Counter,
    /// Queues made.
    pub queues_created: Counter,
    /// Queues deleted.
    pub queues_deleted: Counter,
    /// Logins that succeeded.
    pub logins_succeeded: Counter,
    /// Logins that were refused.
    pub logins_failed: Counter,
    /// Passwords that had to be hashed to find out whether they are right.
    pub passwords_verified: Counter,
}

/// What MQTT clients sent.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct MqttReceived {
    /// Messages published, by the QoS of the publish; repetitions of a QoS 2 message not counted.
    pub messages: [Counter; 3],
    /// Bytes of their payloads.
    pub payload_bytes: Counter,
    /// Packets of every kind.
    pub packets: Counter,
    /// Bytes read.
    pub bytes: Counter,
    /// Publishes that no client may make, or that came faster than they may.
    pub denied: Counter,
}

/// What MQTT clients got.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct MqttDelivered {
    /// Messages delivered, by the QoS of the delivery.
    pub messages: [Counter; 3],
    /// Bytes of their payloads.
    pub payload_bytes: Counter,
    /// Packets of every kind.
    pub packets: Counter,
    /// Bytes written.
    pub bytes: Counter,
    /// Messages that a session did not get: its queue was full, its client away or too slow, or the message too large.
    pub dropped: Counter,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_do_not_share_cache_lines() {
        assert_eq!(std::mem::align_of::<Counters>(), 128);
        assert_eq!(std::mem::size_of::<Counters>(), 5 * 128);
    }

    #[test]
    fn deliveries_of_every_kind_are_summed() {
        let counters = Counters::default();
        counters.delivered.consume_auto.add(3);
        counters.delivered.get_manual.add(2);
        counters.delivered.get_empty.add(9);
        assert_eq!(counters.delivered.total(), 5);
    }
}
