//! What a subscriber does with each packet: it checks the message and acknowledges as its QoS demands.

use std::rc::Rc;

use crate::board::Board;
use crate::ledger::Order;
use crate::mqtt::packet::{self, Kind, Level, Packet, Publish};
use crate::trouble::Trouble;

/// A subscriber's own part.
pub(crate) struct Subscriber {
    level: Level,
    /// By number; all subscribers of a run share them.
    topics: Rc<[Vec<u8>]>,
    /// Whether all that comes was retained.
    replay: bool,
}

impl Subscriber {
    /// One that gets messages to some of `topics`: stored ones in a `replay`, otherwise such as are published now.
    pub(crate) fn new(level: Level, topics: Rc<[Vec<u8>]>, replay: bool) -> Self {
        Self { level, topics, replay }
    }

    /// Takes in what the broker sent and returns how much of it was whole. Answers are left in `output`.
    pub(crate) fn absorb(
        &self,
        input: &[u8],
        (queue, order): (usize, &mut Order),
        output: &mut Vec<u8>,
        board: &mut Board,
        now: u64,
    ) -> Result<usize, Trouble> {
        let mut at = 0;
        while let Some((packet, used)) = packet::next(&input[at..], self.level)? {
            at += used;
            match packet {
                Packet::Publish(publish) => {
                    self.enter(&publish, queue, order, board, now);
                    match publish.qos {
                        0 => {}
                        1 => output.extend_from_slice(&packet::ack(Kind::PubAck, publish.id)),
                        _ => output.extend_from_slice(&packet::ack(Kind::PubRec, publish.id)),
                    }
                }
                Packet::Ack { kind: Kind::PubRel, id, .. } => {
                    output.extend_from_slice(&packet::ack(Kind::PubComp, id));
                }
                Packet::Other(Kind::PingResp, _) => {}
                Packet::Other(Kind::Disconnect, payload) => return Err(Trouble::disconnected(payload)),
                other => return Err(Trouble::Unexpected(format!("{other:?} to a subscriber"))),
            }
        }
        Ok(at)
    }

    #[inline]
    fn enter(&self, publish: &Publish<'_>, queue: usize, order: &mut Order, board: &mut Board, now: u64) {
        let Some(stamp) = board.open(publish.body) else {
            return;
        };
        // Stream s goes to topic s % topics.
        let topic = if self.topics.len() == 1 { 0 } else { stamp.stream as usize % self.topics.len() };
        if self.topics[topic] != publish.topic {
            board.tally.misrouted += 1;
            return;
        }
        board.tally.misflagged += u64::from(publish.retain != self.replay);
        board.enter(queue, order, stamp, publish.dup, now);
    }
}
