//! The consumers of a queue: whose turn it is, and who has credit and room.

use std::collections::VecDeque;
use std::sync::Arc;

use slab::Slab;

use crate::delivery::{Recipient, SharedCredit};

/// A live claim on a queue's messages.
pub struct Consumer {
    /// The connection that it lives on.
    pub recipient: Arc<dyn Recipient>,
    /// Its session there.
    pub session: u32,
    /// Its number there.
    pub number: u32,
    /// Deliveries are settled as they leave.
    pub settled: bool,
    /// Higher ones are served first.
    pub priority: i32,
    /// Deliveries that it may still receive, `None` for no limit.
    pub credit: Option<u32>,
    /// A window that it shares with the other consumers of its session.
    pub shared: Option<Arc<SharedCredit>>,
    /// It asked to be the only one.
    pub exclusive: bool,
}

struct Slot {
    consumer: Consumer,
    /// Tells this consumer from an earlier one with the same key.
    serial: u64,
    /// The outbox has room.
    room: bool,
    /// It stands in line.
    in_line: bool,
}

/// Who consumes from a queue.
#[derive(Default)]
pub struct Consumers {
    slots: Slab<Slot>,
    /// Those with credit and room, highest priority first, round robin among equals.
    line: VecDeque<u32>,
    /// In the order in which they came; the first one is the active one where only one is.
    arrived: Vec<u32>,
    next_serial: u64,
    single_active: bool,
}

impl Consumers {
    /// No consumers; with `single_active` one at a time will receive.
    pub fn new(single_active: bool) -> Self {
        Self { single_active, ..Self::default() }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// One of them has the queue for itself.
    pub fn has_exclusive(&self) -> bool {
        self.slots.len() == 1 && self.slots.iter().all(|(_, slot)| slot.consumer.exclusive)
    }

    /// Someone stands in line.
    pub fn any_in_line(&self) -> bool {
        !self.line.is_empty()
    }

    /// Adds one; it is in line at once.
    pub fn add(&mut self, consumer: Consumer) -> u32 {
        self.next_serial += 1;
        if self.slots.is_empty() {
            // Most queues have one consumer, and there may be many thousands of such queues.
            self.slots.reserve_exact(1);
        }
        let slot = Slot { consumer, serial: self.next_serial, room: true, in_line: false };
        let key = self.slots.insert(slot) as u32;
        if self.single_active {
            self.arrived.push(key);
        }
        self.line_up(key);
        key
    }

    /// Removes one.
    pub fn remove(&mut self, key: u32) -> Option<Consumer> {
        let slot = self.slots.try_remove(key as usize)?;
        self.line.retain(|&other| other != key);
        self.arrived.retain(|&other| other != key);
        if self.single_active
            && let Some(&first) = self.arrived.first()
        {
            self.line_up(first);
        }
        Some(slot.consumer)
    }

    /// All of them, for a queue that ends.
    pub fn drain(&mut self) -> Vec<Consumer> {
        self.line.clear();
        self.arrived.clear();
        self.slots.drain().map(|slot| slot.consumer).collect()
    }

    /// Who is served next: has credit and room, and with a shared window a place in it, which is now taken.
    pub fn pick(&mut self) -> Option<u32> {
        while let Some(&key) = self.line.front() {
            let slot = self.slots.get(key as usize)?;
            match &slot.consumer.shared {
                Some(shared) if !shared.take() => self.step_out(key),
                _ => return Some(key),
            }
        }
        None
    }

    /// Puts back what [`Consumers::pick`] took for a delivery that did not happen.
    pub fn refund(&mut self, key: u32) {
        if let Some(slot) = self.slots.get(key as usize)
            && let Some(shared) = &slot.consumer.shared
        {
            shared.give_back(1);
        }
    }

    /// The consumer with that key.
    pub fn get(&self, key: u32) -> Option<&Consumer> {
        self.slots.get(key as usize).map(|slot| &slot.consumer)
    }

    /// Tells it from other consumers with the same key, before and after.
    pub fn serial(&self, key: u32) -> u64 {
        self.slots.get(key as usize).map_or(0, |slot| slot.serial)
    }

    /// A consumer that takes what costs no credit.
    pub fn with_room(&self) -> Option<u32> {
        self.slots.iter().find(|(_, slot)| slot.room).map(|(key, _)| key as u32)
    }

    /// It took a delivery: uses credit, unless that was settled as it left, and goes to the end of its priority's
    /// line.
    pub fn served(&mut self, key: u32, full: bool, settled: bool) {
        let Some(slot) = self.slots.get_mut(key as usize) else {
            return;
        };
        slot.room = !full;
        if !slot.consumer.settled
            && !settled
            && let Some(credit) = &mut slot.consumer.credit
        {
            *credit = credit.saturating_sub(1);
        }
        let goes_on = !full && (slot.consumer.settled || slot.consumer.credit != Some(0));
        if !goes_on {
            self.step_out(key);
        } else if self.line.len() > 1 {
            self.step_out(key);
            self.line_up(key);
        }
    }

    /// A delivery of it ended.
    pub fn credit(&mut self, key: u32, serial: u64) {
        let Some(slot) = self.slots.get_mut(key as usize).filter(|slot| slot.serial == serial) else {
            return;
        };
        if let Some(credit) = &mut slot.consumer.credit {
            *credit = credit.saturating_add(1);
        }
        self.line_up(key);
    }

    /// It takes nothing until it resumes.
    pub fn pause(&mut self, key: u32) {
        self.step_out(key);
        if let Some(slot) = self.slots.get_mut(key as usize) {
            slot.room = false;
        }
    }

    /// Its outbox, or the window that it shares, has room again.
    pub fn resume(&mut self, key: u32) {
        if let Some(slot) = self.slots.get_mut(key as usize) {
            slot.room = true;
            self.line_up(key);
        }
    }

    /// From now on it shares a window.
    pub fn share(&mut self, key: u32, shared: Arc<SharedCredit>) {
        if let Some(slot) = self.slots.get_mut(key as usize) {
            slot.consumer.shared = Some(shared);
        }
    }

    /// It is not served until it lines up again.
    pub(crate) fn step_out(&mut self, key: u32) {
        match self.line.front() {
            Some(&front) if front == key => drop(self.line.pop_front()),
            _ => self.line.retain(|&other| other != key),
        }
        if let Some(slot) = self.slots.get_mut(key as usize) {
            slot.in_line = false;
        }
    }

    fn line_up(&mut self, key: u32) {
        if self.single_active && self.arrived.first() != Some(&key) {
            return;
        }
        let Some(slot) = self.slots.get_mut(key as usize) else {
            return;
        };
        let has_credit = slot.consumer.settled || slot.consumer.credit != Some(0);
        if slot.in_line || !slot.room || !has_credit {
            return;
        }
        slot.in_line = true;
        let priority = slot.consumer.priority;
        let of = |key: u32| self.slots.get(key as usize).map_or(0, |slot| slot.consumer.priority);
        match self.line.back() {
            Some(&last) if of(last) < priority => {
                let at = self.line.partition_point(|&other| of(other) >= priority);
                self.line.insert(at, key);
            }
            _ => self.line.push_back(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::{Delivery, Taken};

    struct Nobody;
    impl Recipient for Nobody {
        fn deliver(&self, _: &Delivery<'_>) -> Taken {
            Taken::More
        }
        fn cancelled(&self, _: u32, _: u32) {}
        fn mark(&self) -> bool {
            false
        }
        fn flush(&self) {}
    }

    fn consumer(priority: i32, credit: Option<u32>) -> Consumer {
        Consumer {
            recipient: Arc::new(Nobody),
            session: 1,
            number: 0,
            settled: false,
            priority,
            credit,
            shared: None,
            exclusive: false,
        }
    }

    fn serve(consumers: &mut Consumers, times: usize) -> Vec<Option<u32>> {
        let mut serve_one = || {
            let key = consumers.pick()?;
            consumers.served(key, false, false);
            Some(key)
        };
        (0..times).map(|_| serve_one()).collect()
    }

    #[test]
    fn equals_take_turns() {
        let mut consumers = Consumers::default();
        for _ in 0..3 {
            consumers.add(consumer(0, None));
        }
        assert_eq!(serve(&mut consumers, 4), [Some(0), Some(1), Some(2), Some(0)]);
    }

    #[test]
    fn higher_priority_is_served_until_it_is_full() {
        let mut consumers = Consumers::default();
        consumers.add(consumer(0, None));
        consumers.add(consumer(5, Some(2)));
        assert_eq!(serve(&mut consumers, 3), [Some(1), Some(1), Some(0)]);
        consumers.credit(1, consumers.serial(1));
        assert_eq!(serve(&mut consumers, 2), [Some(1), Some(0)]);
    }

    #[test]
    fn only_the_first_is_active_and_the_next_takes_over() {
        let mut consumers = Consumers::new(true);
        consumers.add(consumer(0, Some(1)));
        consumers.add(consumer(9, None));
        assert_eq!(serve(&mut consumers, 2), [Some(0), None]);
        consumers.remove(0);
        assert_eq!(serve(&mut consumers, 1), [Some(1)]);
    }

    #[test]
    fn credit_of_a_former_consumer_goes_nowhere() {
        let mut consumers = Consumers::default();
        let key = consumers.add(consumer(0, Some(1)));
        let old = consumers.serial(key);
        consumers.remove(key);
        assert_eq!(consumers.add(consumer(0, Some(1))), key);
        serve(&mut consumers, 1);
        consumers.credit(key, old);
        assert_eq!(consumers.pick(), None);
    }

    #[test]
    fn a_shared_window_stops_everyone_in_it() {
        let shared = SharedCredit::new(1);
        let mut consumers = Consumers::default();
        for _ in 0..2 {
            consumers.add(Consumer { shared: Some(Arc::clone(&shared)), ..consumer(0, None) });
        }
        assert_eq!(serve(&mut consumers, 2), [Some(0), None]);
        shared.give_back(1);
        consumers.resume(1);
        assert_eq!(serve(&mut consumers, 2), [Some(1), None]);
    }
}
