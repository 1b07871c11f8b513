//! A connection that consumes one queue, checks each delivery and acknowledges as it was told.

use crate::board::Board;
use crate::ledger::Order;
use crate::link::Link;
use crate::method;
use crate::mqtt::subscriber::Subscriber;
use crate::options::Load;
use crate::trouble::Trouble;
use crate::wire::{self, Event};

/// A consumer.
pub(crate) struct Consumer {
    pub(crate) link: Link,
    queue: usize,
    /// Empty if deliveries carry none.
    tag: Vec<u8>,
    order: Order,
    /// 0: deliveries need no acknowledgement.
    ack_every: u64,
    /// The last delivery that is to be acknowledged, and how many since the last acknowledgement.
    owing: (u64, u64),
    spill: Vec<u8>,
    /// If MQTT is spoken, which has no use for what is above.
    subscriber: Option<Subscriber>,
}

/// The consumer tag used on `queue`.
pub(crate) fn tag_of(queue: usize) -> String {
    format!("c{queue}")
}

impl Consumer {
    /// A consumer of `queue`, whose deliveries are on their way.
    pub(crate) fn new(load: &Load, queue: usize, link: Link, board: &Board) -> Self {
        let silent = load.raw || load.auto_ack;
        Self {
            link,
            queue,
            tag: if load.raw { Vec::new() } else { tag_of(queue).into_bytes() },
            order: board.ledger.order(queue),
            ack_every: if silent { 0 } else { load.ack_every },
            owing: (0, 0),
            spill: Vec::new(),
            subscriber: None,
        }
    }

    /// A subscriber, with a queue of its own.
    pub(crate) fn subscribed(subscriber: Subscriber, queue: usize, link: Link, board: &Board) -> Self {
        Self {
            link,
            queue,
            tag: Vec::new(),
            order: board.ledger.order(queue),
            ack_every: 0,
            owing: (0, 0),
            spill: Vec::new(),
            subscriber: Some(subscriber),
        }
    }

    /// Takes in what the broker sent and returns how much of it was whole. Acknowledgements wait in the link's output.
    pub(crate) fn absorb(&mut self, input: &[u8], board: &mut Board, now: u64) -> Result<usize, Trouble> {
        if let Some(subscriber) = &self.subscriber {
            return subscriber.absorb(input, (self.queue, &mut self.order), &mut self.link.output, board, now);
        }
        let mut at = 0;
        while let Some((event, used)) = wire::next(&input[at..], &mut self.spill)? {
            at += used;
            match event {
                Event::Delivery(delivery) => {
                    let tag = delivery.tag;
                    let keep = if delivery.consumer_tag == self.tag {
                        board.arrive(self.queue, &mut self.order, &delivery, now)
                    } else {
                        board.tally.misrouted += 1;
                        true
                    };
                    if keep && self.ack_every > 0 {
                        self.owe(tag);
                    }
                }
                Event::Heartbeat | Event::Other(method::BLOCKED | method::UNBLOCKED, _) => {}
                Event::Other(method::CLOSE | method::CHANNEL_CLOSE, args) => {
                    return Err(Trouble::closed(args));
                }
                Event::Other(method, _) => {
                    return Err(Trouble::Unexpected(format!("{method:?} to a consumer")));
                }
                Event::Confirm { .. } => {
                    return Err(Trouble::Unexpected("a confirm to a consumer".into()));
                }
            }
        }
        Ok(at)
    }

    #[inline]
    fn owe(&mut self, tag: u64) {
        self.owing = (tag, self.owing.1 + 1);
        if self.owing.1 >= self.ack_every {
            self.acknowledge();
        }
    }

    /// Acknowledges what is not yet acknowledged.
    #[inline]
    pub(crate) fn acknowledge(&mut self) {
        let (tag, count) = std::mem::take(&mut self.owing);
        if count > 0 {
            let [a, b, c, d, e, f, g, h] = tag.to_be_bytes();
            let multiple = u8::from(count > 1);
            // basic.ack on channel 1, spelt out because it is written once per message.
            self.link.output.extend_from_slice(&[
                1,
                0,
                1,
                0,
                0,
                0,
                13,
                0,
                60,
                0,
                80,
                a,
                b,
                c,
                d,
                e,
                f,
                g,
                h,
                multiple,
                wire::FRAME_END,
            ]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_acknowledgement_spelt_out_is_the_one_encoded() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let link = Link::connect(listener.local_addr().unwrap(), std::time::Duration::from_secs(5)).unwrap();
        let mut consumer = Consumer {
            link,
            queue: 0,
            tag: Vec::new(),
            order: Vec::new(),
            ack_every: 2,
            owing: (0, 0),
            spill: Vec::new(),
            subscriber: None,
        };
        consumer.owe(0x0102_0304_0506);
        assert!(consumer.link.output.is_empty());
        consumer.owe(0x0102_0304_0507);
        assert_eq!(consumer.link.output, method::ack(1, 0x0102_0304_0507, true));
        consumer.acknowledge();
        assert_eq!(consumer.link.output.len(), 21, "nothing is owed twice");
    }
}
