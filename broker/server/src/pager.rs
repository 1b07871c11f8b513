//! Reads paged bodies back from the journal, on a thread of its own because the disk may take its time.

use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Weak};
use std::{io, thread};

use portolan_core::broker::{Broker, Fetcher};
use portolan_core::effect::Fetch;
use portolan_core::message::Message;
use portolan_core::store::StoreError;

use crate::time::now_ms;

/// Bytes read for one queue before its bodies are handed over; the queue asks again for the rest.
const PORTION: usize = 1 << 20;
/// Bodies read at once, as long as they are of ordinary size.
const STEP: usize = 64;

/// Hands fetches to the reading thread. Each queue has at most one under way, which bounds what waits here.
struct Pager(Sender<Fetch>);

impl Fetcher for Pager {
    fn fetch(&self, fetch: Fetch) {
        // The thread is gone only when the broker is.
        let _ = self.0.send(fetch);
    }
}

/// Starts the reading thread; it ends with the broker.
///
/// # Errors
/// When the system has no thread for us.
pub fn start(broker: &Arc<Broker>) -> io::Result<()> {
    let (sender, receiver) = mpsc::channel();
    broker.set_fetcher(Box::new(Pager(sender)));
    let broker = Arc::downgrade(broker);
    thread::Builder::new().name("pager".into()).spawn(move || read_all(&broker, &receiver)).map(drop)
}

fn read_all(broker: &Weak<Broker>, fetches: &Receiver<Fetch>) {
    for fetch in fetches {
        let Some(broker) = broker.upgrade() else { return };
        let bodies = read(&broker, &fetch);
        for (seq, body) in &bodies {
            if let Err(error) = body {
                tracing::error!(queue = fetch.queue.id.0, seq, %error, "a stored message cannot be read and is dropped");
            }
        }
        broker.loaded(fetch.queue, bodies, now_ms());
    }
}

fn read(broker: &Broker, fetch: &Fetch) -> Vec<(u64, Result<Message, StoreError>)> {
    let mut bodies = Vec::with_capacity(fetch.entries.len());
    let mut bytes = 0;
    let mut positions = Vec::with_capacity(STEP);
    for step in fetch.entries.chunks(STEP) {
        positions.clear();
        positions.extend(step.iter().map(|&(_, position)| position));
        broker.journal.read(&positions, &mut |at, body| {
            bytes += body.as_ref().map_or(0, |message| message.footprint());
            bodies.extend(step.get(at).map(|&(seq, _)| (seq, body)));
        });
        if bytes >= PORTION {
            break;
        }
    }
    bodies
}
