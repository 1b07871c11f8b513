//! What a publisher sent with QoS 1 or 2 and the broker has not acknowledged to the end.

use std::collections::VecDeque;

use crate::mqtt::packet::Kind;
use crate::unconfirmed::Slip;

/// What an acknowledgement did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The broker has the message, or refused it.
    Settled { slip: Slip, taken: bool },
    /// The broker has the message; it is to be told that its id can be forgotten, by PUBREL.
    Release,
    /// It was for nothing that is under way.
    Stray,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flight {
    slip: Slip,
    /// Whether PUBREL was sent.
    released: bool,
}

/// The messages under way, by packet id.
pub(crate) struct Flights {
    qos: u8,
    flights: Vec<Option<Flight>>,
    /// Ids that are not in use, the one that has been so longest first.
    free: VecDeque<u16>,
}

impl Flights {
    /// Room for `most` messages, of which there can be no more than there are ids.
    pub(crate) fn new(qos: u8, most: usize) -> Self {
        let ids = if qos == 0 { 0 } else { most.min(usize::from(u16::MAX)) };
        Self { qos, flights: vec![None; ids + 1], free: (1..=ids as u16).collect() }
    }

    /// How many are under way.
    #[inline]
    pub(crate) fn open(&self) -> usize {
        self.flights.len() - 1 - self.free.len()
    }

    /// Whether the next message must wait for an acknowledgement.
    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        self.qos > 0 && self.free.is_empty()
    }

    /// Gives a message its id; 0 at QoS 0.
    #[inline]
    pub(crate) fn push(&mut self, slip: Slip) -> u16 {
        let Some(id) = self.free.pop_front() else {
            return 0;
        };
        self.flights[usize::from(id)] = Some(Flight { slip, released: false });
        id
    }

    /// Enters an acknowledgement.
    #[inline]
    pub(crate) fn settle(&mut self, kind: Kind, id: u16, good: bool) -> Outcome {
        let Some(place) = self.flights.get_mut(usize::from(id)) else {
            return Outcome::Stray;
        };
        let Some(flight) = place else {
            return Outcome::Stray;
        };
        let taken = match (kind, self.qos, flight.released) {
            (Kind::PubAck, 1, _) => good,
            (Kind::PubRec, 2, false) if good => {
                flight.released = true;
                return Outcome::Release;
            }
            (Kind::PubRec, 2, false) => false,
            (Kind::PubComp, 2, true) => good,
            _ => return Outcome::Stray,
        };
        let slip = flight.slip;
        *place = None;
        self.free.push_back(id);
        Outcome::Settled { slip, taken }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slip(seq: u64) -> Slip {
        Slip { due: 0, stream: 0, seq }
    }

    #[test]
    fn qos_1_is_settled_once() {
        let mut flights = Flights::new(1, 2);
        assert_eq!((flights.push(slip(0)), flights.push(slip(1)), flights.is_full()), (1, 2, true));
        assert_eq!(flights.settle(Kind::PubAck, 2, true), Outcome::Settled { slip: slip(1), taken: true });
        assert_eq!(flights.settle(Kind::PubAck, 2, true), Outcome::Stray);
        assert_eq!(flights.settle(Kind::PubAck, 7, true), Outcome::Stray);
        assert_eq!(flights.settle(Kind::PubRec, 1, true), Outcome::Stray);
        assert_eq!(flights.settle(Kind::PubAck, 1, false), Outcome::Settled { slip: slip(0), taken: false });
        assert_eq!((flights.open(), flights.push(slip(2))), (0, 2), "the id that has been free longest");
    }

    #[test]
    fn qos_2_takes_two_steps_in_their_order() {
        let mut flights = Flights::new(2, 10);
        flights.push(slip(0));
        flights.push(slip(1));
        assert_eq!(flights.settle(Kind::PubComp, 1, true), Outcome::Stray);
        assert_eq!(flights.settle(Kind::PubRec, 1, true), Outcome::Release);
        assert_eq!(flights.settle(Kind::PubRec, 1, true), Outcome::Stray);
        assert_eq!(flights.open(), 2);
        assert_eq!(flights.settle(Kind::PubComp, 1, true), Outcome::Settled { slip: slip(0), taken: true });
        assert_eq!(flights.settle(Kind::PubRec, 2, false), Outcome::Settled { slip: slip(1), taken: false });
        assert_eq!(flights.open(), 0);
    }

    #[test]
    fn qos_0_has_no_ids_and_is_never_full() {
        let mut flights = Flights::new(0, 100);
        assert_eq!((flights.push(slip(0)), flights.open(), flights.is_full()), (0, 0, false));
    }
}
