//! A recipient that writes down what it gets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use portolan_core::delivery::{ConsumerRef, Delivery, DeliveryRef, Recipient, Taken};

/// One delivery as the client saw it.
#[derive(Clone, Debug)]
pub struct Got {
    pub consumer: u32,
    pub body: String,
    pub redelivered: bool,
    pub released: bool,
    pub returns: Option<u32>,
    pub settle: Option<DeliveryRef>,
    pub from: ConsumerRef,
}

#[derive(Default)]
struct Inside {
    got: Vec<Got>,
    cancelled: Vec<u32>,
    /// Deliveries that fit before it says that it is full.
    room: Option<usize>,
    gone: bool,
}

/// See the module.
#[derive(Default)]
pub struct Client {
    inside: Mutex<Inside>,
    marked: AtomicBool,
    flushes: Mutex<usize>,
}

impl Client {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// What came since the last look: bodies, with a star when redelivered.
    pub fn take(&self) -> Vec<String> {
        self.take_all().into_iter().map(|got| if got.redelivered { got.body + "*" } else { got.body }).collect()
    }

    pub fn take_all(&self) -> Vec<Got> {
        std::mem::take(&mut self.inside.lock().got)
    }

    /// What came, as consumer:body.
    pub fn take_by_consumer(&self) -> Vec<String> {
        self.take_all().into_iter().map(|got| format!("{}:{}", got.consumer, got.body)).collect()
    }

    pub fn cancelled(&self) -> Vec<u32> {
        std::mem::take(&mut self.inside.lock().cancelled)
    }

    pub fn room(&self, room: Option<usize>) {
        self.inside.lock().room = room;
    }

    pub fn go(&self) {
        self.inside.lock().gone = true;
    }

    pub fn flushes(&self) -> usize {
        *self.flushes.lock()
    }
}

impl Recipient for Client {
    fn deliver(&self, delivery: &Delivery<'_>) -> Taken {
        let mut inside = self.inside.lock();
        if inside.gone {
            return Taken::Gone;
        }
        inside.got.push(Got {
            consumer: delivery.consumer,
            body: String::from_utf8_lossy(delivery.message.body()).into_owned(),
            redelivered: delivery.redelivered,
            released: delivery.released,
            returns: delivery.returns,
            settle: delivery.settle,
            from: delivery.from,
        });
        match &mut inside.room {
            Some(room) => {
                *room = room.saturating_sub(1);
                if *room == 0 { Taken::Full } else { Taken::More }
            }
            None => Taken::More,
        }
    }

    fn cancelled(&self, _session: u32, consumer: u32) {
        self.inside.lock().cancelled.push(consumer);
    }

    fn mark(&self) -> bool {
        !self.marked.swap(true, Ordering::AcqRel)
    }

    fn flush(&self) {
        self.marked.store(false, Ordering::Release);
        *self.flushes.lock() += 1;
    }
}
