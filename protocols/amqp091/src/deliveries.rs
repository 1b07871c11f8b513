//! What any thread needs to deliver to this connection: delivery tags, what is unsettled, and waiting confirms.
//! Lives behind the outbox's lock.

use std::collections::VecDeque;
use std::sync::Arc;

use portolan_core::counters::Counters;
use portolan_core::delivery::{ConsumerRef, Delivery, DeliveryRef, Outcome, Recipient, Settlement, Taken};
use portolan_core::hub::Dialects;
use portolan_core::message::Message;
use portolan_core::outbox::{Chunk, Outbox, SHARE_FROM, Sessions};
use portolan_core::store::Index;
use slab::Slab;

use crate::codec::encode::{self, Content, ServerMethod};
use crate::codec::frame;
use crate::convert;

/// A delivery that the client has yet to settle.
#[derive(Clone, Copy)]
pub(crate) struct Held {
    pub(crate) delivery: DeliveryRef,
    /// Counts against the channel's shared window: it went to a consumer, not to a get.
    pub(crate) consumer: bool,
    /// When it was delivered, milliseconds since the epoch.
    pub(crate) at: u64,
}

/// The tags of one channel that are unsettled, in the order in which they were given out.
#[derive(Default)]
pub(crate) struct Tags {
    /// The last tag given out.
    last: u64,
    /// `None` for one that was settled before older ones; there are never more of these than of the others by much.
    held: VecDeque<(u64, Option<Held>)>,
    count: usize,
}

impl Tags {
    /// The next tag, for a delivery that is settled as it leaves.
    fn settled(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn give(&mut self, held: Held) -> u64 {
        self.last += 1;
        self.count += 1;
        self.held.push_back((self.last, Some(held)));
        self.last
    }

    fn index(&self, tag: u64) -> Option<usize> {
        // Tags in a row, the usual case, need no search.
        let guess = usize::try_from(tag.checked_sub(self.held.front()?.0)?).ok()?;
        let at = match self.held.get(guess) {
            Some((known, _)) if *known == tag => guess,
            _ => self.held.binary_search_by_key(&tag, |(known, _)| *known).ok()?,
        };
        self.held.get(at)?.1.as_ref().map(|_| at)
    }

    /// Takes out one delivery, or with `multiple` all up to it, tag 0 meaning all. `None` when the tag names
    /// nothing that is held: RabbitMQ 3.10 asks that of `multiple`, too.
    pub(crate) fn take(&mut self, tag: u64, multiple: bool, mut each: impl FnMut(u64, Held)) -> Option<()> {
        match (tag, multiple) {
            (0, true) => self.drain(self.held.len(), each),
            (0, false) => return None,
            (tag, true) => {
                let at = self.index(tag)?;
                self.drain(at + 1, each);
            }
            (tag, false) => {
                let at = self.index(tag)?;
                let held = self.held.get_mut(at)?.1.take()?;
                self.count -= 1;
                each(tag, held);
            }
        }
        while let Some((_, None)) = self.held.front() {
            self.held.pop_front();
        }
        if self.held.len() > 2 * self.count + 64 {
            // One old delivery must not keep a place for each that came and went after it.
            self.held.retain(|(_, held)| held.is_some());
        }
        if self.held.is_empty() && self.held.capacity() > 1024 {
            self.held = VecDeque::new();
        }
        Some(())
    }

    fn drain(&mut self, up_to: usize, mut each: impl FnMut(u64, Held)) {
        for (tag, held) in self.held.drain(..up_to) {
            if let Some(held) = held {
                self.count -= 1;
                each(tag, held);
            }
        }
    }

    /// Deliveries are unsettled again under their old tags: their settlement was rolled back.
    pub(crate) fn hold_again(&mut self, again: impl Iterator<Item = (u64, Held)>) {
        self.held.retain(|(_, held)| held.is_some());
        self.held.extend(again.map(|(tag, held)| (tag, Some(held))));
        self.held.make_contiguous().sort_unstable_by_key(|(tag, _)| *tag);
        self.count = self.held.len();
    }

    /// Deliveries that are not settled.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    fn all(&self) -> impl Iterator<Item = &Held> {
        self.held.iter().filter_map(|(_, held)| held.as_ref())
    }

    /// Those of them that went to consumers.
    pub(crate) fn with_consumers(&self) -> u32 {
        self.all().filter(|held| held.consumer).count() as u32
    }

    /// When the oldest one was delivered.
    fn oldest(&self) -> Option<u64> {
        self.all().next().map(|held| held.at)
    }
}

/// Publishes of one channel that wait for the journal: confirmed up to a number once it has reached an index.
#[derive(Default)]
pub(crate) struct Confirms {
    waiting: VecDeque<(u64, Index)>,
    /// The number up to which the client has its answer.
    answered: u64,
}

impl Confirms {
    /// Publishes up to `number` are confirmed when the journal is durable up to `index`.
    pub(crate) fn wait(&mut self, number: u64, index: Index) {
        match self.waiting.back_mut() {
            Some(last) if last.1 == index => last.0 = number,
            _ => self.waiting.push_back((number, index)),
        }
    }

    /// Nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Writes the confirm for everything up to `number`.
    pub(crate) fn confirm(&mut self, number: u64, channel: u16, out: &mut Chunk) {
        let multiple = number > self.answered + 1;
        self.answered = number;
        encode::ack(&mut out.bytes, channel, number, multiple);
    }

    fn due(&mut self, durable: Index) -> Option<u64> {
        let mut due = None;
        while let Some(&(number, index)) = self.waiting.front() {
            if index > durable {
                break;
            }
            due = Some(number);
            self.waiting.pop_front();
        }
        due
    }
}

/// A channel, as far as deliveries and confirms go.
pub(crate) struct Session {
    pub(crate) channel: u16,
    pub(crate) tags: Tags,
    pub(crate) confirms: Confirms,
    /// Publishes confirmed so far, for the counter.
    pub(crate) confirmed: u64,
    /// Consumers that got nothing more because the channel holds too much.
    pub(crate) stalled: Vec<ConsumerRef>,
}

/// A consumer, as far as deliveries go.
struct Tagged {
    tag: Arc<str>,
}

/// The delivery side of a connection.
pub(crate) struct Deliveries {
    sessions: Slab<Session>,
    consumers: Slab<Tagged>,
    frame_max: usize,
    /// The client understands basic.cancel from us.
    pub(crate) cancel_notify: bool,
    /// Consumers whose queues are gone: session and number. The engine forgets them.
    pub(crate) cancelled: Vec<(u32, u32)>,
    /// Exchange and routing key as they are written; kept for its memory.
    names: Vec<u8>,
    /// A delivery is refused from here on: session's limit of unsettled deliveries.
    most_unsettled: usize,
    /// Who reads the properties of messages from other protocols.
    dialects: Arc<Dialects>,
    tally: Tally,
}

impl Deliveries {
    pub(crate) fn new(most_unsettled: usize, dialects: Arc<Dialects>) -> Self {
        Self {
            sessions: Slab::new(),
            consumers: Slab::new(),
            frame_max: frame::OVERHEAD,
            cancel_notify: false,
            cancelled: Vec::new(),
            names: Vec::new(),
            most_unsettled,
            dialects,
            tally: Tally::default(),
        }
    }

    pub(crate) fn set_frame_max(&mut self, frame_max: usize) {
        self.frame_max = frame_max;
    }

    pub(crate) fn frame_max(&self) -> usize {
        self.frame_max
    }

    /// A channel opened.
    pub(crate) fn open(&mut self, channel: u16) -> u32 {
        let (tags, confirms, stalled) = Default::default();
        self.sessions.insert(Session { channel, tags, confirms, confirmed: 0, stalled }) as u32
    }

    /// A channel is over.
    pub(crate) fn close(&mut self, session: u32) -> Option<Session> {
        self.sessions.try_remove(session as usize)
    }

    pub(crate) fn session(&mut self, session: u32) -> Option<&mut Session> {
        self.sessions.get_mut(session as usize)
    }

    /// A consumer starts.
    pub(crate) fn add_consumer(&mut self, tag: Arc<str>) -> u32 {
        self.consumers.insert(Tagged { tag }) as u32
    }

    /// A consumer is over.
    pub(crate) fn remove_consumer(&mut self, number: u32) {
        drop(self.consumers.try_remove(number as usize));
    }

    /// When the oldest unsettled delivery of any channel was made, with that channel.
    pub(crate) fn oldest(&self) -> Option<(u64, u16)> {
        self.sessions.iter().filter_map(|(_, one)| Some((one.tags.oldest()?, one.channel))).min()
    }

    /// Writes a delivery. False when there is no such session or it holds too much.
    fn deliver(&mut self, delivery: &Delivery<'_>, out: &mut Chunk) -> bool {
        let Some(session) = self.sessions.get_mut(delivery.session as usize) else { return false };
        let Some(consumer) = self.consumers.get(delivery.consumer as usize) else { return false };
        let tag = match delivery.settle {
            None => session.tags.settled(),
            Some(_) if session.tags.count() >= self.most_unsettled => {
                session.stalled.push(delivery.from);
                return false;
            }
            Some(settle) => session.tags.give(Held { delivery: settle, consumer: true, at: delivery.now }),
        };
        match delivery.settle {
            Some(_) => self.tally.manual += 1,
            None => self.tally.auto += 1,
        }
        self.tally.redelivered += u64::from(delivery.redelivered);
        let message = delivery.message;
        self.names.clear();
        encode::put_names(&mut self.names, message.exchange(), message.routing_key());
        let properties = &*convert::outgoing(&self.dialects, message, delivery.returns, self.frame_max);
        let content = Content { names: &self.names, properties, body: message.body() };
        if message.body().len() < SHARE_FROM {
            let tag_text = consumer.tag.as_bytes();
            encode::deliver(
                &mut out.bytes,
                session.channel,
                tag_text,
                tag,
                delivery.redelivered,
                content,
                self.frame_max,
            );
        } else {
            let tag_text = consumer.tag.as_bytes();
            encode::deliver_head(&mut out.bytes, session.channel, tag_text, tag, delivery.redelivered, content.names);
            encode::header(&mut out.bytes, session.channel, properties, content.body.len());
            share_body(out, session.channel, message, self.frame_max);
        }
        true
    }

    /// The tag for a message fetched by a get.
    pub(crate) fn tag_for_get(&mut self, session: u32, settle: Option<DeliveryRef>, now: u64) -> u64 {
        let Some(session) = self.sessions.get_mut(session as usize) else { return 0 };
        match settle {
            Some(delivery) => session.tags.give(Held { delivery, consumer: false, at: now }),
            None => session.tags.settled(),
        }
    }
}

/// Writes the body frames of a large body, the bytes themselves by reference.
fn share_body(out: &mut Chunk, channel: u16, message: &Message, frame_max: usize) {
    for piece in encode::body_frames(channel, message.body().len(), frame_max) {
        out.bytes.extend_from_slice(&piece.header);
        out.share(message, piece.body);
        out.bytes.push(frame::END);
    }
}

impl Sessions for Deliveries {
    fn durable(&mut self, durable: Index, out: &mut Chunk) {
        for (_, session) in &mut self.sessions {
            if let Some(number) = session.confirms.due(durable) {
                session.confirms.confirm(number, session.channel, out);
            }
        }
    }

    fn awaited(&self) -> Option<Index> {
        self.sessions.iter().filter_map(|(_, one)| one.confirms.waiting.front().map(|&(_, index)| index)).min()
    }
}

/// The connection as queues see it.
pub(crate) struct Client {
    pub(crate) outbox: Arc<Outbox<Deliveries>>,
    pub(crate) counters: Arc<Counters>,
}

/// Deliveries since the last flush, for the counters: added once per flush and not per message.
#[derive(Clone, Copy, Default)]
struct Tally {
    manual: u64,
    auto: u64,
    redelivered: u64,
}

impl Recipient for Client {
    fn deliver(&self, delivery: &Delivery<'_>) -> Taken {
        let mut inner = self.outbox.lock();
        if inner.is_closed() {
            return Taken::Gone;
        }
        let (deliveries, out) = inner.parts();
        if !deliveries.deliver(delivery, out) {
            return Taken::Gone;
        }
        if inner.bytes() < self.outbox.high_water {
            return Taken::More;
        }
        inner.pause(delivery.from);
        Taken::Full
    }

    fn cancelled(&self, session: u32, consumer: u32) {
        let mut inner = self.outbox.lock();
        let (deliveries, out) = inner.parts();
        deliveries.cancelled.push((session, consumer));
        let channel = deliveries.sessions.get(session as usize).map(|session| session.channel);
        let tag = deliveries.consumers.get(consumer as usize).map(|consumer| Arc::clone(&consumer.tag));
        if let (Some(channel), Some(consumer_tag), true) = (channel, tag, deliveries.cancel_notify) {
            encode::method(&mut out.bytes, channel, ServerMethod::Cancel { consumer_tag: &consumer_tag });
        }
    }

    fn mark(&self) -> bool {
        self.outbox.mark()
    }

    fn flush(&self) {
        let tally = std::mem::take(&mut self.outbox.lock().sessions.tally);
        let delivered = &self.counters.delivered;
        delivered.consume_manual.add(tally.manual);
        delivered.consume_auto.add(tally.auto);
        delivered.redelivered.add(tally.redelivered);
        self.outbox.flush();
    }
}

/// A settlement of a held delivery.
pub(crate) fn settlement(held: Held, outcome: Outcome) -> Settlement {
    Settlement { delivery: held.delivery, outcome }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_core::exchange::QueueTarget;
    use portolan_core::store::QueueId;

    fn held(key: u32) -> Held {
        let queue = QueueTarget { id: QueueId(1), shard: 0, slot: 0 };
        Held { delivery: DeliveryRef { queue, key }, consumer: true, at: 0 }
    }

    fn keys(tags: &mut Tags, tag: u64, multiple: bool) -> Option<Vec<u32>> {
        let mut keys = Vec::new();
        tags.take(tag, multiple, |_, held| keys.push(held.delivery.key)).map(|()| keys)
    }

    #[test]
    fn tags_start_at_one_and_settled_ones_leave_no_trace() {
        let mut tags = Tags::default();
        assert_eq!((tags.settled(), tags.give(held(7)), tags.settled(), tags.give(held(8))), (1, 2, 3, 4));
        assert_eq!(keys(&mut tags, 1, false), None);
        assert_eq!(keys(&mut tags, 4, true), Some(vec![7, 8]));
        assert_eq!(tags.settled(), 5);
        assert!(tags.held.is_empty());
    }

    #[test]
    fn multiple_needs_a_tag_that_is_held() {
        let mut tags = Tags::default();
        for key in 1..=4 {
            tags.give(held(key));
        }
        assert_eq!(keys(&mut tags, 9, true), None);
        assert_eq!(keys(&mut tags, 2, false), Some(vec![2]));
        assert_eq!(keys(&mut tags, 2, true), None, "settled already");
        assert_eq!(keys(&mut tags, 3, true), Some(vec![1, 3]));
        assert_eq!(keys(&mut tags, 0, true), Some(vec![4]));
        assert_eq!(keys(&mut tags, 0, true), Some(vec![]), "nothing outstanding is fine");
        assert_eq!(keys(&mut tags, 0, false), None);
    }

    #[test]
    fn a_rolled_back_settlement_leaves_the_tag_as_it_was() {
        let mut tags = Tags::default();
        for key in 1..=3 {
            tags.give(held(key));
        }
        let mut taken = Vec::new();
        assert_eq!(tags.take(2, true, |tag, held| taken.push((tag, held))), Some(()));
        tags.hold_again(taken.into_iter());
        assert_eq!(tags.count(), 3);
        assert_eq!(keys(&mut tags, 2, false), Some(vec![2]));
        assert_eq!(keys(&mut tags, 0, true), Some(vec![1, 3]));
    }

    #[test]
    fn one_old_delivery_keeps_no_place_for_those_after_it() {
        let mut tags = Tags::default();
        assert_eq!(tags.give(held(0)), 1);
        for key in 1..100_000 {
            let tag = tags.give(held(key));
            assert_eq!(keys(&mut tags, tag, false), Some(vec![key]));
            tags.settled();
        }
        assert!(tags.held.len() < 100 && tags.held.capacity() < 1000);
        assert_eq!(keys(&mut tags, 1, false), Some(vec![0]));
    }

    #[test]
    fn confirms_are_due_in_order() {
        let mut confirms = Confirms::default();
        confirms.wait(3, 10);
        confirms.wait(5, 10);
        confirms.wait(9, 12);
        assert_eq!(confirms.due(9), None);
        assert_eq!(confirms.due(11), Some(5));
        assert_eq!(confirms.due(12), Some(9));
        assert!(confirms.is_empty());
    }
}
