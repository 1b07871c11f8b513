//! The last message of each topic whose publisher wanted later subscribers to get it, shared by all protocols.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::ops::Bound;

use crate::broker::Broker;
use crate::catalogue::Vhost;
use crate::effect::Effects;
use crate::fact::Fact;
use crate::message::Message;
use crate::pattern::Pattern;
use crate::refusal::Refusal;
use crate::store::{Index, Position, QueueId, Record, StoreError};
use crate::topology::Durable;
use crate::upkeep::{append_to, ranges};

/// Topics looked at, and expired messages removed, before the lock is given to others.
const CHUNK: usize = 512;

/// A message that sorts by its routing key: the map's keys cost nothing beside the messages.
#[derive(Clone)]
struct ByKey(Message);

/// A retained message, by its routing key.
pub(crate) struct Kept {
    message: ByKey,
    /// Milliseconds since the epoch, 0 for never.
    expires_at: u64,
    /// Its sequence number and place in the store, unless it is in memory only.
    pub(crate) stored: Option<(u64, Position)>,
}

impl Kept {
    pub(crate) fn new(message: Message, expires_at: u64, stored: Option<(u64, Position)>) -> Self {
        Self { message: ByKey(message), expires_at, stored }
    }
}

macro_rules! ordered_by_key {
    ($kind:ty, $key:expr) => {
        impl Borrow<[u8]> for $kind {
            fn borrow(&self) -> &[u8] {
                let key: fn(&$kind) -> &[u8] = $key;
                key(self)
            }
        }
        impl Ord for $kind {
            fn cmp(&self, other: &Self) -> Ordering {
                Borrow::<[u8]>::borrow(self).cmp(other.borrow())
            }
        }
        impl PartialOrd for $kind {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }
        impl PartialEq for $kind {
            fn eq(&self, other: &Self) -> bool {
                self.cmp(other).is_eq()
            }
        }
        impl Eq for $kind {}
    };
}

ordered_by_key!(ByKey, |one| one.0.routing_key());
ordered_by_key!(Kept, |one| one.message.0.routing_key());

/// The retained messages of a vhost. Its lock is innermost, but for the journal's buffer.
#[derive(Default)]
pub(crate) struct Retained {
    topics: BTreeSet<Kept>,
    /// Those that expire, by when.
    due: BTreeSet<(u64, ByKey)>,
    /// Memory that the messages take.
    bytes: u64,
    /// The id under which the store keeps the persistent ones, made when it is needed first.
    pub(crate) queue: Option<QueueId>,
    /// Sequence numbers below this one have been used.
    pub(crate) next_seq: u64,
}

impl Retained {
    /// Puts a message in its topic's place and returns the one that was there.
    pub(crate) fn put(&mut self, kept: Kept) -> Option<Kept> {
        let due = (kept.expires_at != 0).then(|| (kept.expires_at, kept.message.clone()));
        self.bytes += kept.message.0.footprint() as u64;
        let old = self.topics.replace(kept);
        if let Some(old) = &old {
            self.forget(old);
        }
        self.due.extend(due);
        old
    }

    fn take(&mut self, key: &[u8]) -> Option<Kept> {
        let old = self.topics.take(key)?;
        self.forget(&old);
        Some(old)
    }

    fn forget(&mut self, old: &Kept) {
        self.bytes = self.bytes.saturating_sub(old.message.0.footprint() as u64);
        if old.expires_at != 0 {
            self.due.remove(&(old.expires_at, old.message.clone()));
        }
    }

    /// Where the record of a topic's message is.
    fn stored(&self, key: &[u8]) -> Option<(u64, Position)> {
        // Nothing is stored as long as there is no id for it: devices that only use QoS 0 pay for one look-up.
        self.queue?;
        self.topics.get(key).and_then(|kept| kept.stored)
    }

    /// The record of a topic's message moves, if that is still the topic's message.
    pub(crate) fn moved(
        &mut self,
        key: &[u8],
        from: (u64, Position),
        append: impl FnOnce() -> Result<Position, StoreError>,
    ) -> Result<(), StoreError> {
        let Some(kept) = self.topics.get(key).filter(|kept| kept.stored == Some(from)) else {
            return Ok(());
        };
        let (message, expires_at) = (kept.message.clone(), kept.expires_at);
        let to = append()?;
        self.topics.replace(Kept { message, expires_at, stored: Some((from.0, to)) });
        Ok(())
    }

    /// The record of a message cannot be read: it is appended anew, if it is still its topic's. Such a thing is rare
    /// enough to look at every topic for it.
    pub(crate) fn rescued(
        &mut self,
        from: (u64, Position),
        append: impl FnOnce(QueueId, &Message, u64) -> Result<Position, StoreError>,
    ) -> Result<(), StoreError> {
        let (Some(id), Some(kept)) = (self.queue, self.topics.iter().find(|kept| kept.stored == Some(from))) else {
            return Ok(());
        };
        let (message, expires_at) = (kept.message.clone(), kept.expires_at);
        let to = append(id, &message.0, expires_at)?;
        self.topics.replace(Kept { message, expires_at, stored: Some((from.0, to)) });
        Ok(())
    }

    /// Removes some messages whose time is over.
    fn expire(&mut self, now: u64) -> Vec<Kept> {
        let mut gone = Vec::new();
        while gone.len() < CHUNK
            && let Some((at, key)) = self.due.first()
            && *at <= now
        {
            let key = key.clone();
            match self.take(key.0.routing_key()) {
                Some(kept) => gone.push(kept),
                None => drop(self.due.pop_first()),
            }
        }
        gone
    }

    /// Copies matching messages after the one in `last`, which then is the last one looked at. False at the end.
    fn look(&self, search: &Search<'_>, last: &mut Option<Message>, found: &mut Vec<(Message, u64)>) -> bool {
        let prefix = search.pattern.prefix();
        let from = match last {
            Some(last) => Bound::Excluded(last.routing_key()),
            None => Bound::Included(prefix),
        };
        let mut looked = 0;
        let mut place = None;
        for kept in self.topics.range::<[u8], _>((from, Bound::Unbounded)) {
            let message = &kept.message.0;
            let key = message.routing_key();
            if !key.starts_with(prefix) {
                return false;
            }
            let hidden = search.hides_dollar && key.first() == Some(&b'$');
            if !hidden && !kept.is_over(search.now) && search.pattern.matches_under_prefix(key) {
                found.push((message.clone(), kept.expires_at));
            }
            looked += 1;
            if looked == CHUNK {
                place = Some(message.clone());
                break;
            }
        }
        *last = place;
        last.is_some()
    }

    fn get(&self, key: &[u8], now: u64) -> Option<(Message, u64)> {
        let kept = self.topics.get(key).filter(|kept| !kept.is_over(now))?;
        Some((kept.message.0.clone(), kept.expires_at))
    }

    /// Whether the limits leave room for a message.
    fn admit(&self, message: &Message, broker: &Broker, vhost: &Vhost) -> Result<(), Refusal> {
        let (most, most_bytes) = (broker.settings.retained_messages, broker.settings.retained_bytes);
        let count = self.topics.len() as u64 + 1;
        let bytes = self.bytes + message.footprint() as u64;
        if count <= most && bytes <= most_bytes {
            return Ok(());
        }
        let old = self.topics.get(message.routing_key());
        let (count, bytes) = match old {
            Some(old) => (count - 1, bytes.saturating_sub(old.message.0.footprint() as u64)),
            None => (count, bytes),
        };
        let what = |what: &str| format!("{what} in vhost '{}'", vhost.name);
        match (count <= most, bytes <= most_bytes) {
            (true, true) => Ok(()),
            (false, _) => Err(Refusal::Limit { what: what("retained messages"), limit: most }),
            (true, false) => Err(Refusal::Limit { what: what("bytes of retained messages"), limit: most_bytes }),
        }
    }
}

impl Kept {
    fn is_over(&self, now: u64) -> bool {
        self.expires_at != 0 && self.expires_at <= now
    }
}

/// What a subscription asks for.
struct Search<'a> {
    pattern: Pattern<'a>,
    hides_dollar: bool,
    now: u64,
}

impl Broker {
    /// Keeps a message for those who subscribe to its routing key later, in the place of an earlier one; one with an
    /// empty body only removes that \[MQTT-3.3.1-6\]. Persistent messages are stored.
    ///
    /// # Errors
    /// [`Refusal::Limit`] when there are too many, [`Refusal::Unavailable`] when the store takes no record. Then
    /// nothing has changed.
    pub fn retain(
        &self,
        vhost: &Vhost,
        message: &Message,
        now: u64,
        effects: &mut Effects,
    ) -> Result<Durable, Refusal> {
        let key = message.routing_key();
        let mut retained = vhost.retained.lock();
        if message.body().is_empty() {
            let durable = self.settle_retained(&retained, retained.stored(key).as_slice())?;
            effects.persisted |= durable.is_some();
            retained.take(key);
            return Ok(durable);
        }
        retained.admit(message, self, vhost)?;
        let expires_at = message.facts().ttl.map_or(0, |ttl| now.saturating_add(ttl));
        if !message.facts().persistent {
            // [MQTT-3.3.1-7] lets us keep it in memory only. The record of the earlier one must not bring that back.
            let durable = self.settle_retained(&retained, retained.stored(key).as_slice())?;
            effects.persisted |= durable.is_some();
            retained.put(Kept::new(message.clone(), expires_at, None));
            return Ok(durable);
        }
        let (index, stored) = self.store_retained(vhost, &mut retained, message, expires_at)?;
        effects.persisted = true;
        let old = retained.put(Kept::new(message.clone(), expires_at, Some(stored)));
        // After the new one: whatever a restart finds, it finds one of them, and of both it takes the later.
        let old = old.and_then(|old| old.stored);
        if let Err(error) = self.settle_retained(&retained, old.as_slice()) {
            effects.store_error = Some(error);
        }
        Ok(Some(index))
    }

    fn store_retained(
        &self,
        vhost: &Vhost,
        retained: &mut Retained,
        message: &Message,
        expires_at: u64,
    ) -> Result<(Index, (u64, Position)), StoreError> {
        let queue = match retained.queue {
            Some(queue) => queue,
            None => {
                let queue = self.new_queue_id();
                self.state(&Fact::RetainedQueue { vhost: vhost.name.to_string(), id: queue.0 }, true)?;
                *retained.queue.insert(queue)
            }
        };
        let seq = retained.next_seq.max(1);
        let appended = append_to(&*self.journal, queue, seq, expires_at, message)?;
        retained.next_seq = seq + 1;
        Ok((appended.index, (seq, appended.position)))
    }

    /// Writes down that records are no more.
    pub(crate) fn settle_retained(&self, retained: &Retained, gone: &[(u64, Position)]) -> Result<Durable, StoreError> {
        let Some(queue) = retained.queue.filter(|_| !gone.is_empty()) else {
            return Ok(None);
        };
        let (mut seqs, freed): (Vec<u64>, Vec<Position>) = gone.iter().copied().unzip();
        let record = Record::Settled { queue, ranges: &ranges(&mut seqs), freed: &freed };
        Ok(Some(self.journal.append(&record)?.index))
    }

    /// Hands every retained message whose key matches a topic pattern to `each`, with its expiry time in milliseconds
    /// since the epoch, 0 for never; in the order of their keys. With `hide_dollar`, patterns that begin with a
    /// wildcard do not match keys that begin with `$` \[MQTT-4.7.2-1\]. No lock is held while `each` runs; what
    /// changes meanwhile may be seen or not.
    pub fn retained(
        &self,
        vhost: &Vhost,
        pattern: &[u8],
        hide_dollar: bool,
        now: u64,
        each: &mut dyn FnMut(&Message, u64),
    ) {
        let pattern = Pattern::new(pattern);
        let stem = pattern.exact().or_else(|| (!pattern.begins_with_wildcard()).then(|| pattern.stem()));
        if let Some(stem) = stem.filter(|stem| pattern.matches(stem)) {
            let found = vhost.retained.lock().get(stem, now);
            if let Some((message, expires_at)) = found {
                each(&message, expires_at);
            }
        }
        if pattern.exact().is_some() {
            return;
        }
        let hides_dollar = hide_dollar && pattern.begins_with_wildcard();
        let search = Search { pattern, hides_dollar, now };
        let (mut last, mut found) = (None, Vec::new());
        loop {
            let more = vhost.retained.lock().look(&search, &mut last, &mut found);
            found.drain(..).for_each(|(message, expires_at)| each(&message, expires_at));
            if !more {
                return;
            }
        }
    }

    /// Removes retained messages whose time is over.
    pub(crate) fn tick_retained(&self, now: u64, effects: &mut Effects) {
        for vhost in self.all_vhosts() {
            loop {
                let mut retained = vhost.retained.lock();
                let gone = retained.expire(now);
                let stored: Vec<_> = gone.iter().filter_map(|kept| kept.stored).collect();
                // Untold, the next start finds that their time is over.
                if let Err(error) = self.settle_retained(&retained, &stored) {
                    effects.store_error = Some(error);
                }
                drop(retained);
                if gone.len() < CHUNK {
                    break;
                }
            }
        }
    }
}

impl Vhost {
    /// How many retained messages it has.
    pub fn retained_count(&self) -> u64 {
        self.retained.lock().topics.len() as u64
    }

    /// Bytes of memory that its retained messages take.
    pub fn retained_bytes(&self) -> u64 {
        self.retained.lock().bytes
    }
}
