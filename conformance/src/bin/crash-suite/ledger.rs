//! What was published, confirmed, received and acknowledged, and whether the broker's conduct fits.

use std::collections::HashMap;
use std::sync::Arc;

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::message::{self, Id};
use crate::topology::{QUEUES, ROUTES};

/// What became of one message in one queue.
#[derive(Clone, Copy, Default)]
struct Fate {
    seen: bool,
    acked: bool,
    /// A later confirm on the same channel says that the ack is on stable storage.
    sealed: bool,
}

#[derive(Clone, Copy, Default)]
struct Entry {
    confirmed: bool,
    transient: bool,
    /// One per queue of its route.
    copies: [Fate; 2],
}

/// The messages of one publisher in one round, in order.
#[derive(Default)]
pub(crate) struct Batch {
    round: u32,
    publisher: u8,
    entries: Mutex<Vec<Entry>>,
}

impl Batch {
    /// Notes a message before it is sent.
    pub(crate) fn begin(&self, transient: bool) -> Id {
        let mut entries = locked(&self.entries);
        entries.push(Entry { transient, ..Entry::default() });
        let number = u32::try_from(entries.len() - 1).unwrap_or(u32::MAX);
        Id { round: self.round, publisher: self.publisher, number }
    }

    /// The broker says that it has it.
    pub(crate) fn confirmed(&self, id: Id) {
        if let Some(entry) = locked(&self.entries).get_mut(id.number as usize) {
            entry.confirmed = true;
        }
    }
}

/// All rounds.
#[derive(Default)]
pub(crate) struct Ledger {
    batches: Mutex<HashMap<(u32, u8), Arc<Batch>>>,
    wrong: Mutex<Vec<String>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    /// A new batch.
    pub(crate) fn batch(&self, round: u64, publisher: usize) -> Arc<Batch> {
        let (round, publisher) = (u32::try_from(round).unwrap_or(u32::MAX), u8::try_from(publisher).unwrap_or(u8::MAX));
        let batch = Arc::new(Batch { round, publisher, entries: Mutex::default() });
        locked(&self.batches).insert((round, publisher), Arc::clone(&batch));
        batch
    }

    fn complain(&self, text: String) {
        locked(&self.wrong).push(text);
    }

    /// Does something to one copy of a message; complains if there is no such message.
    fn copy<T>(&self, queue: usize, id: Id, action: impl FnOnce(&mut Fate) -> T) -> Option<T> {
        let batch = locked(&self.batches).get(&(id.round, id.publisher)).map(Arc::clone);
        let place = ROUTES.get(usize::from(id.publisher)).and_then(|r| r.queues.iter().position(|q| *q == queue));
        let (Some(batch), Some(place)) = (batch, place) else {
            self.complain(format!("{id} was never sent to {}", QUEUES[queue].0));
            return None;
        };
        let mut entries = locked(&batch.entries);
        match entries.get_mut(id.number as usize) {
            Some(entry) => Some(action(&mut entry.copies[place])),
            None => {
                self.complain(format!("{id} was never sent"));
                None
            }
        }
    }

    /// A delivery. Returns its id unless the body is damaged.
    pub(crate) fn delivered(&self, queue: usize, body: &[u8], redelivered: bool, restarted: bool) -> Option<Id> {
        let id = match message::decode(body) {
            Ok(id) => id,
            Err(why) => {
                self.complain(format!("{}: {why}", QUEUES[queue].0));
                return None;
            }
        };
        let before = self.copy(queue, id, |copy| std::mem::replace(copy, Fate { seen: true, ..*copy }))?;
        let name = QUEUES[queue].0;
        // An ack that a later confirm has sealed was read, so the broker knows that it delivered this once.
        if before.sealed && !redelivered {
            self.complain(format!("{id} came again from {name} after its ack was safe, and was not flagged"));
        }
        if before.seen && !restarted && !redelivered {
            self.complain(format!("{id} came twice from {name} without a restart and was not flagged"));
        }
        Some(id)
    }

    /// We sent an ack.
    pub(crate) fn acked(&self, queue: usize, id: Id) {
        self.copy(queue, id, |copy| copy.acked = true);
    }

    /// The acks of these are on stable storage.
    pub(crate) fn sealed(&self, queue: usize, ids: &[Id]) {
        for id in ids {
            self.copy(queue, *id, |copy| copy.sealed = true);
        }
    }

    /// A message of this publisher came before one that was published earlier.
    pub(crate) fn disordered(&self, queue: usize, earlier: Id, later: Id) {
        self.complain(format!("{}: {later} came before {earlier}", QUEUES[queue].0));
    }

    /// Everything that went wrong since the last judgement, the losses of this round included.
    pub(crate) fn judge(&self, round: u64) -> Vec<String> {
        let mut wrong = std::mem::take(&mut *locked(&self.wrong));
        for (publisher, route) in ROUTES.iter().enumerate() {
            let key = (u32::try_from(round).unwrap_or(u32::MAX), u8::try_from(publisher).unwrap_or(u8::MAX));
            let Some(batch) = locked(&self.batches).get(&key).map(Arc::clone) else { continue };
            for (number, entry) in locked(&batch.entries).iter().enumerate() {
                for (place, queue) in route.queues.iter().enumerate() {
                    let copy = entry.copies[place];
                    // Everything drained was acknowledged, so what is not was never seen again.
                    if entry.confirmed && !entry.transient && !copy.acked {
                        let name = QUEUES[*queue].0;
                        wrong.push(format!("confirmed message {number} of publisher {publisher} is lost from {name}"));
                    }
                }
            }
        }
        wrong
    }

    /// Persistent messages that were confirmed.
    pub(crate) fn confirmed(&self) -> usize {
        let batches: Vec<_> = locked(&self.batches).values().map(Arc::clone).collect();
        batches.iter().map(|b| locked(&b.entries).iter().filter(|e| e.confirmed && !e.transient).count()).sum()
    }

    /// One line over all rounds.
    pub(crate) fn summary(&self) -> String {
        format!("{} persistent messages were confirmed in all", self.confirmed())
    }
}
