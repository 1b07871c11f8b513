//! What the broker tells its operators about itself.

use std::sync::Arc;

use arc_swap::ArcSwap;
use portolan_core::store::Space;
use tokio::sync::Notify;

/// Numbers that go up and down, taken at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Connections now open.
    pub connections: u64,
    /// Channels now open.
    pub channels: u64,
    /// Consumers now subscribed.
    pub consumers: u64,
    /// Queues.
    pub queues: u64,
    /// Exchanges, with those that every vhost has.
    pub exchanges: u64,
    /// Bindings, without those of the default exchange.
    pub bindings: u64,
    /// Messages that wait for a consumer.
    pub messages_ready: u64,
    /// Messages that a consumer holds and has not settled.
    pub messages_unsettled: u64,
    /// Bytes of the bodies of all these.
    pub message_bytes: u64,
    /// Messages whose body is in the journal only.
    pub messages_paged: u64,
    /// Bytes of bodies in memory.
    pub resident_bytes: u64,
    /// Connections that are not read because of an alarm.
    pub connections_blocked: u64,
    /// MQTT's sessions.
    pub sessions: u64,
    /// Their subscriptions.
    pub subscriptions: u64,
    /// Retained messages.
    pub retained: u64,
    /// Bytes of memory that they take.
    pub retained_bytes: u64,
    /// Bytes of the journal on disk.
    pub journal_bytes: u64,
    /// Records appended since the journal began.
    pub journal_last: u64,
    /// Of these, how many are on stable storage.
    pub journal_durable: u64,
}

/// The running broker, as far as operators can see it.
pub trait Status: Send + Sync {
    /// The numbers now. Called a few times a minute, and may walk over everything.
    fn gauges(&self) -> Gauges;

    /// Whether the journal has room for publishers. Called twice a second.
    fn space(&self) -> Space;
}

/// How far the node has come between its start and its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Opening the store; no client is served yet.
    Starting,
    /// Serving.
    Ready,
    /// Closing clients before the end.
    Draining,
    /// It cannot keep its promises any more and will end, for that reason.
    Failed(Arc<str>),
}

/// The phase that the node is in; shared by everything that changes or shows it.
pub struct Lifecycle {
    phase: ArcSwap<Phase>,
    failure: Notify,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self { phase: ArcSwap::from_pointee(Phase::Starting), failure: Notify::new() }
    }
}

impl Lifecycle {
    /// The phase now.
    pub fn phase(&self) -> Arc<Phase> {
        self.phase.load_full()
    }

    /// Goes on to a phase; a failed node stays failed.
    pub fn enter(&self, phase: Phase) {
        let phase = Arc::new(phase);
        self.phase.rcu(|now| if matches!(**now, Phase::Failed(_)) { now.clone() } else { phase.clone() });
    }

    /// Ends the node because it cannot keep its promises: the journal failed, for example. May be called from any
    /// thread, any number of times; the first reason counts.
    pub fn fail(&self, reason: &str) {
        tracing::error!(reason, "the broker cannot go on");
        self.enter(Phase::Failed(reason.into()));
        self.failure.notify_one();
    }

    /// Waits until [`Lifecycle::fail`] is called and returns the reason.
    pub async fn failed(&self) -> Arc<str> {
        loop {
            if let Phase::Failed(reason) = &*self.phase() {
                return reason.clone();
            }
            self.failure.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_failure_stays() {
        let lifecycle = Lifecycle::default();
        lifecycle.enter(Phase::Ready);
        lifecycle.fail("the disk is gone");
        lifecycle.fail("again");
        lifecycle.enter(Phase::Draining);
        assert_eq!(&*lifecycle.failed().await, "the disk is gone");
        assert_eq!(*lifecycle.phase(), Phase::Failed("the disk is gone".into()));
    }
}
