//! The journal of a broker without a disk: messages stay as long as somebody needs them, and the process.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use portolan_core::message::Message;
use portolan_core::store::{Appended, Content, Index, Journal, Position, Record, Space, StoreError, Unit, Waiter};

/// Everything counts as durable at once, and is gone with the process.
#[derive(Debug, Default)]
pub struct MemoryJournal {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    last: Index,
    /// Messages by position. A reference holds its own share of the content.
    messages: HashMap<Position, Message>,
    bytes: u64,
}

impl Kept {
    fn keep(&mut self, position: Position, content: &Content<'_>) -> Result<(), StoreError> {
        let message = match content {
            Content::Inline(message) => Message::clone(message),
            Content::At(at) => self.messages.get(at).cloned().ok_or(StoreError::Missing(*at))?,
        };
        self.bytes += message.footprint() as u64;
        self.messages.insert(position, message);
        Ok(())
    }

    fn free(&mut self, freed: &[Position]) {
        for position in freed {
            if let Some(message) = self.messages.remove(position) {
                self.bytes = self.bytes.saturating_sub(message.footprint() as u64);
            }
        }
    }
}

impl Journal for MemoryJournal {
    fn append(&self, record: &Record<'_>) -> Result<Appended, StoreError> {
        let mut kept = self.kept.lock();
        let index = kept.last + 1;
        let position = Position::from_number(index << 3).ok_or(StoreError::Full)?;
        match record {
            Record::Enqueued { content, .. } => kept.keep(position, content)?,
            Record::Settled { freed, .. } | Record::Dropped { freed, .. } => kept.free(freed),
            Record::Redelivered { .. } | Record::Released { .. } | Record::Returned { .. } | Record::Fact { .. } => {}
        }
        kept.last = index;
        Ok(Appended { index, position })
    }

    fn unit(&self) -> Unit<'_> {
        Unit::trivial()
    }

    fn last(&self) -> Index {
        self.kept.lock().last
    }

    fn durable(&self) -> Index {
        self.last()
    }

    fn wait_for(&self, _index: Index, waiter: Arc<dyn Waiter>) {
        waiter.durable(self.last());
    }

    fn nudge(&self) {}

    fn read(&self, positions: &[Position], each: &mut dyn FnMut(usize, Result<Message, StoreError>)) {
        for (place, position) in positions.iter().enumerate() {
            let message = self.kept.lock().messages.get(position).cloned();
            each(place, message.ok_or(StoreError::Missing(*position)));
        }
    }

    fn backlog(&self) -> usize {
        0
    }

    fn space(&self) -> Space {
        Space::Plenty
    }

    fn disk_bytes(&self) -> u64 {
        self.kept.lock().bytes
    }
}
