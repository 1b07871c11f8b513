//! The one bounded outbox of a connection: any thread that has something for the client puts it in and sends it.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::delivery::ConsumerRef;
use crate::message::Message;
use crate::store::{Index, Journal, Waiter};

/// Bodies from this size on are sent from where they are instead of being copied into the outbox.
pub const SHARE_FROM: usize = 16 * 1024;
/// A buffer that grew beyond this is given back when it has been sent, so that idle connections stay small.
const KEEP: usize = 4 * 1024;

/// The way to the client.
pub trait Wire: Send + Sync {
    /// Writes what the peer takes now, without waiting.
    ///
    /// # Errors
    /// `WouldBlock` when it takes nothing now; anything else means that the connection is lost.
    fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize>;

    /// Wakes the connection's own task: it must wait until the peer takes more, resume consumers, or close.
    fn wake(&self);
}

/// A body, or a part of one, that is sent from where it is.
struct Shared {
    /// Before which of the encoded bytes.
    at: usize,
    message: Message,
    range: Range<usize>,
}

/// Bytes for the client: encoded ones, with large bodies in between by reference.
#[derive(Default)]
pub struct Chunk {
    /// Encoded bytes; append to them freely.
    pub bytes: Vec<u8>,
    sent: usize,
    /// Made with the first large body: most connections never see one.
    #[expect(clippy::box_collection, reason = "an empty deque takes four times the place of a pointer")]
    shared: Option<Box<VecDeque<Shared>>>,
    shared_bytes: usize,
}

impl Chunk {
    /// Bytes not yet sent.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.sent + self.shared_bytes
    }

    /// Everything has been sent.
    pub fn is_empty(&self) -> bool {
        self.sent == self.bytes.len() && self.shared_bytes == 0
    }

    /// Adds a part of a message's body by reference.
    pub fn share(&mut self, message: &Message, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        self.shared_bytes += range.len();
        self.shared.get_or_insert_default().push_back(Shared { at: self.bytes.len(), message: message.clone(), range });
    }

    /// Adds everything of another one.
    pub fn append(&mut self, mut other: Self) {
        if self.is_empty() {
            *self = other;
            return;
        }
        let base = self.bytes.len() - other.sent;
        self.bytes.extend_from_slice(&other.bytes[other.sent..]);
        self.shared_bytes += other.shared_bytes;
        if let Some(shared) = other.shared.take() {
            let moved = shared.into_iter().map(|part| Shared { at: base + part.at, ..part });
            self.shared.get_or_insert_default().extend(moved);
        }
    }

    /// Writes until all is sent or the wire takes no more.
    fn send(&mut self, wire: &dyn Wire) -> io::Result<()> {
        const PARTS: usize = 64;
        while !self.is_empty() {
            let written = match self.shared_bytes == 0 {
                true => wire.write(&[IoSlice::new(&self.bytes[self.sent..])])?,
                false => {
                    let mut parts = [IoSlice::new(&[]); PARTS];
                    let count = self.gather(&mut parts);
                    wire.write(&parts[..count])?
                }
            };
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.advance(written);
        }
        Ok(())
    }

    fn gather<'a>(&'a self, parts: &mut [IoSlice<'a>]) -> usize {
        let mut at = self.sent;
        let mut count = 0;
        for shared in self.shared.iter().flat_map(|shared| shared.iter()) {
            if count + 2 >= parts.len() {
                return count;
            }
            if shared.at > at {
                parts[count] = IoSlice::new(&self.bytes[at..shared.at]);
                at = shared.at;
                count += 1;
            }
            parts[count] = IoSlice::new(shared.message.body().get(shared.range.clone()).unwrap_or_default());
            count += 1;
        }
        parts[count] = IoSlice::new(&self.bytes[at..]);
        count + 1
    }

    fn advance(&mut self, mut written: usize) {
        while let Some(parts) = &mut self.shared
            && let Some(shared) = parts.front_mut()
        {
            let before = (shared.at - self.sent).min(written);
            self.sent += before;
            written -= before;
            let body = shared.range.len().min(written);
            shared.range.start += body;
            self.shared_bytes -= body;
            written -= body;
            if !shared.range.is_empty() {
                return;
            }
            parts.pop_front();
        }
        self.sent += written;
    }
}

/// What a protocol keeps beside the outbox because deliveries from any thread need it.
pub trait Sessions: Send {
    /// The journal is durable up to there: write the confirms that waited for it.
    fn durable(&mut self, durable: Index, out: &mut Chunk);

    /// The index that the oldest waiting confirm waits for.
    fn awaited(&self) -> Option<Index>;
}

/// An outbox's insides, to be had with its lock.
pub struct Inner<S> {
    /// The protocol's part.
    pub sessions: S,
    /// Ready to be sent.
    pending: Chunk,
    /// Being sent, outside the lock while `writing`.
    sending: Chunk,
    sending_bytes: usize,
    writing: bool,
    /// Written after a change that is not durable yet: sent when the journal has reached the index.
    held: Option<Box<Chunk>>,
    gate: Option<Index>,
    /// The journal will call when it has reached this index.
    waiting: Option<Index>,
    /// Consumers that were told that the outbox is full.
    paused: Vec<ConsumerRef>,
    closed: bool,
    failed: bool,
}

impl<S> Inner<S> {
    /// The protocol's part, and where to write.
    pub fn parts(&mut self) -> (&mut S, &mut Chunk) {
        let out = match self.gate {
            Some(_) => &mut **self.held.get_or_insert_default(),
            None => &mut self.pending,
        };
        (&mut self.sessions, out)
    }

    /// Where to write.
    pub fn out(&mut self) -> &mut Chunk {
        self.parts().1
    }

    /// What is written from here on must not leave before the journal is durable up to `index`.
    pub fn hold(&mut self, index: Index) {
        self.gate = self.gate.max(Some(index));
    }

    /// The client can be sent nothing more.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Bytes that wait in it.
    pub fn bytes(&self) -> usize {
        self.pending.len() + self.held.as_ref().map_or(0, |held| held.len()) + self.sending_bytes
    }

    /// Remembers a consumer that got [`Taken::Full`](crate::delivery::Taken::Full).
    pub fn pause(&mut self, consumer: ConsumerRef) {
        self.paused.push(consumer);
    }
}

/// A connection's outbox, shared by everyone who has something for the client.
pub struct Outbox<S> {
    inner: Mutex<Inner<S>>,
    marked: AtomicBool,
    wire: Box<dyn Wire>,
    journal: Arc<dyn Journal>,
    /// Above this many bytes consumers are paused.
    pub high_water: usize,
    /// Below this many bytes they are resumed.
    pub low_water: usize,
}

impl<S: Sessions + 'static> Outbox<S> {
    /// An empty outbox in front of a wire.
    pub fn new(
        sessions: S,
        wire: Box<dyn Wire>,
        journal: Arc<dyn Journal>,
        high_water: usize,
        low_water: usize,
    ) -> Arc<Self> {
        let inner = Inner {
            sessions,
            pending: Chunk::default(),
            sending: Chunk::default(),
            sending_bytes: 0,
            writing: false,
            held: None,
            gate: None,
            waiting: None,
            paused: Vec::new(),
            closed: false,
            failed: false,
        };
        let inner = Mutex::new(inner);
        Arc::new(Self { inner, marked: AtomicBool::new(false), wire, journal, high_water, low_water })
    }

    /// Its insides. Hold the lock briefly, and take no other lock with it.
    pub fn lock(&self) -> MutexGuard<'_, Inner<S>> {
        self.inner.lock()
    }

    /// True for the first caller since the last flush.
    pub fn mark(&self) -> bool {
        !self.marked.swap(true, Ordering::AcqRel)
    }

    /// Sends what is pending, unless another thread is at it: that one then sends this, too. What the wire does not
    /// take now is left to the connection's own task, which is woken for it.
    pub fn flush(&self) {
        if self.send() {
            self.wire.wake();
        }
    }

    /// As [`Outbox::flush`], for the connection's own task: true when the wire does not take everything now.
    pub fn send(&self) -> bool {
        self.marked.store(false, Ordering::Release);
        let mut inner = self.inner.lock();
        if inner.closed || inner.failed {
            return false;
        }
        if inner.writing {
            // Should that thread find the wire full, it wakes the task.
            return false;
        }
        loop {
            if inner.sending.is_empty() {
                if inner.pending.is_empty() {
                    break;
                }
                let inner = &mut *inner;
                std::mem::swap(&mut inner.sending, &mut inner.pending);
            }
            let mut sending = std::mem::take(&mut inner.sending);
            inner.sending_bytes = sending.len();
            inner.writing = true;
            drop(inner);
            let sent = sending.send(&*self.wire);
            inner = self.inner.lock();
            inner.writing = false;
            inner.sending_bytes = sending.len();
            match sent {
                Ok(()) => recycle(&mut inner.pending, sending),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    inner.sending = sending;
                    return true;
                }
                Err(_) => {
                    // The client is gone: there is nothing to wait for, and the task sees to the end.
                    inner.failed = true;
                    drop(inner);
                    self.wire.wake();
                    return false;
                }
            }
        }
        if !inner.paused.is_empty() && inner.bytes() <= self.low_water {
            drop(inner);
            self.wire.wake();
        }
        false
    }

    /// Wakes the connection's own task, which then calls [`Engine::woken`](crate::engine::Engine::woken).
    pub fn wake(&self) {
        self.wire.wake();
    }

    /// The journal's last index, where it is not durable that far yet.
    pub fn undurable(&self) -> Option<Index> {
        let last = self.journal.last();
        (self.journal.durable() < last).then_some(last)
    }

    /// Something waits to be sent.
    pub fn is_blocked(&self) -> bool {
        let inner = self.inner.lock();
        !inner.sending.is_empty() || !inner.pending.is_empty()
    }

    /// The wire failed.
    pub fn is_lost(&self) -> bool {
        self.inner.lock().failed
    }

    /// Consumers to resume, if there is room for them.
    pub fn take_paused(&self) -> Vec<ConsumerRef> {
        let mut inner = self.inner.lock();
        let room = inner.bytes() <= self.low_water;
        if room { std::mem::take(&mut inner.paused) } else { Vec::new() }
    }

    /// Takes nothing more, and forgets what is in it.
    pub fn close(&self) {
        let mut inner = self.inner.lock();
        inner.closed = true;
        inner.pending = Chunk::default();
        inner.held = None;
        inner.paused = Vec::new();
        if !inner.writing {
            inner.sending = Chunk::default();
            inner.sending_bytes = 0;
        }
    }

    /// Asks the journal to call when it has reached what the gate or a confirm waits for.
    pub fn await_durable(self: &Arc<Self>) {
        let mut inner = self.inner.lock();
        let awaited = [inner.gate, inner.sessions.awaited()].into_iter().flatten().min();
        let Some(index) = awaited.filter(|_| inner.waiting.is_none() && !inner.closed) else {
            return;
        };
        inner.waiting = Some(index);
        drop(inner);
        // Without the lock: a journal that is there already calls back at once.
        self.journal.wait_for(index, Arc::new(Durable(Arc::clone(self))));
    }
}

/// Keeps a small buffer for the next output.
fn recycle(pending: &mut Chunk, mut sent: Chunk) {
    if pending.bytes.capacity() == 0 && sent.bytes.capacity() <= KEEP {
        sent.bytes.clear();
        pending.bytes = sent.bytes;
    }
}

/// The outbox as the journal sees it.
struct Durable<S>(Arc<Outbox<S>>);

impl<S: Sessions + 'static> Waiter for Durable<S> {
    fn durable(&self, durable: Index) {
        let outbox = &self.0;
        {
            let mut inner = outbox.lock();
            inner.waiting = None;
            if inner.gate.is_some_and(|gate| gate <= durable) {
                inner.gate = None;
                if let Some(held) = inner.held.take() {
                    inner.pending.append(*held);
                }
            }
            let (sessions, out) = inner.parts();
            sessions.durable(durable, out);
        }
        outbox.flush();
        outbox.await_durable();
    }

    fn failed(&self) {
        // What waits is never confirmed; the connection is closed so that the client notices.
        self.0.lock().failed = true;
        self.0.wire.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Facts, Origin, Span};

    struct Slow(Mutex<(Vec<u8>, usize)>);

    impl Wire for Slow {
        fn write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
            let mut inner = self.0.lock();
            let all: Vec<u8> = parts.iter().flat_map(|part| part.to_vec()).collect();
            let take = all.len().min(inner.1);
            inner.0.extend_from_slice(&all[..take]);
            if take == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(take) }
        }
        fn wake(&self) {}
    }

    fn message(body: &[u8]) -> Message {
        let none = Span::default();
        let facts = Facts {
            exchange: none,
            routing_key: none,
            properties: none,
            body: none,
            origin: Origin::Amqp091,
            priority: 0,
            persistent: false,
            ttl: None,
        };
        Message::assemble(facts, b"", b"", b"", body)
    }

    #[test]
    fn shared_bodies_leave_in_their_place_whatever_the_peer_takes_at_once() {
        for step in 1..12 {
            let wire = Slow(Mutex::new((Vec::new(), step)));
            let mut chunk = Chunk::default();
            chunk.bytes.extend_from_slice(b"ab");
            chunk.share(&message(b"0123456789"), 2..6);
            chunk.share(&message(b"xyz"), 0..3);
            chunk.bytes.extend_from_slice(b"cd");
            assert_eq!(chunk.len(), 11);
            chunk.send(&wire).expect("takes it");
            assert_eq!(wire.0.lock().0, b"ab2345xyzcd", "in steps of {step}");
            assert!(chunk.is_empty());
        }
    }

    #[test]
    fn appended_chunks_keep_their_order() {
        let wire = Slow(Mutex::new((Vec::new(), 3)));
        let mut first = Chunk::default();
        first.bytes.extend_from_slice(b"ab");
        let mut second = Chunk::default();
        second.bytes.extend_from_slice(b"c");
        second.share(&message(b"DE"), 0..2);
        second.bytes.extend_from_slice(b"f");
        first.append(second);
        first.send(&wire).expect("takes it");
        assert_eq!(wire.0.lock().0, b"abcDEf");
    }
}
