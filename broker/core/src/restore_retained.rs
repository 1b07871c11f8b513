//! Retained messages as the store knows them: found again at a start, moved by the cleaner.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::broker::Broker;
use crate::catalogue::Vhost;
use crate::fact::Fact;
use crate::restore::Restored;
use crate::retained::{Kept, Retained};
use crate::store::{Position, QueueId, RecoveredEntry, RecoveredQueue, Relocation, StoreError};
use crate::upkeep::append_to;

/// Bodies read at a time.
const BATCH: usize = 256;

impl Broker {
    /// Reads what a vhost has retained: unlike other messages they are all wanted in memory.
    pub(crate) fn restore_retained(
        &self,
        vhost: &Vhost,
        id: QueueId,
        queues: &mut HashMap<QueueId, RecoveredQueue>,
        restored: &mut Restored,
    ) {
        self.next_queue.fetch_max(id.0 + 1, Ordering::Relaxed);
        let recovered = queues.remove(&id).unwrap_or_default();
        let mut retained = vhost.retained.lock();
        retained.queue = Some(id);
        retained.next_seq = recovered.next_seq;
        for entries in recovered.entries.chunks(BATCH) {
            let gone = self.read_retained(&mut retained, entries, restored);
            // Should the record not be taken, the next start finds the same.
            drop(self.settle_retained(&retained, &gone));
        }
    }

    /// Reads some of them, in the order in which they came, and returns those that do not count any more.
    fn read_retained(
        &self,
        retained: &mut Retained,
        entries: &[RecoveredEntry],
        restored: &mut Restored,
    ) -> Vec<(u64, Position)> {
        let positions: Vec<Position> = entries.iter().map(|entry| entry.position).collect();
        let mut gone = Vec::new();
        self.journal.read(&positions, &mut |at, message| {
            let Some(entry) = entries.get(at) else { return };
            let stored = (entry.seq, entry.position);
            retained.next_seq = retained.next_seq.max(entry.seq + 1);
            let Ok(message) = message else {
                restored.strange += 1;
                gone.push(stored);
                return;
            };
            restored.retained += 1;
            if let Some(earlier) = retained.put(Kept::new(message, entry.expires_at, Some(stored))) {
                restored.retained -= 1;
                gone.extend(earlier.stored);
            }
        });
        gone
    }

    /// The vhost whose retained messages are stored under that id.
    pub(crate) fn retainer(&self, id: QueueId) -> Option<Arc<Vhost>> {
        self.vhosts.load().values().find(|vhost| vhost.retained.lock().queue == Some(id)).cloned()
    }

    /// Appends a retained message's record anew, if it still counts, because the journal wants its old place.
    pub(crate) fn relocate_retained(&self, vhost: &Vhost, moved: &Relocation) -> Result<(), StoreError> {
        vhost.retained.lock().moved(moved.message.routing_key(), (moved.seq, moved.from), || {
            let to = append_to(&*self.journal, moved.queue, moved.seq, moved.expires_at, &moved.message)?;
            Ok(to.position)
        })
    }

    /// Appends a retained message anew, because its record cannot be read: it is in memory.
    pub(crate) fn rescue_retained(&self, vhost: &Vhost, seq: u64, at: Position) -> Result<(), StoreError> {
        vhost.retained.lock().rescued((seq, at), |id, message, expires_at| {
            Ok(append_to(&*self.journal, id, seq, expires_at, message)?.position)
        })
    }

    /// Writes down under which id the retained messages of a vhost are stored.
    pub(crate) fn restate_retained(&self, vhost: &Vhost) -> Result<(), StoreError> {
        let retained = vhost.retained.lock();
        let Some(id) = retained.queue else { return Ok(()) };
        self.state(&Fact::RetainedQueue { vhost: vhost.name.to_string(), id: id.0 }, true).map(drop)
    }
}
