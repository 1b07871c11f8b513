//! Slows failed logins by where they come from. Only refusals wait: a right password is never slowed.

use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// What each recent failure adds to the wait.
const STEP: Duration = Duration::from_millis(250);
/// The longest wait. Less than a handshake may take, so that the client still hears why.
const LONGEST: Duration = Duration::from_secs(3);
/// Failures are forgotten after so long without a new one.
const MEMORY: Duration = Duration::from_secs(60);
/// How many sources are told apart. Two that share a place share the wait, which harms only failed logins.
const PLACES: usize = 1024;

/// Counts recent failures per source, in memory of a fixed size.
pub(super) struct Throttle {
    hasher: RandomState,
    places: Box<[Mutex<Place>]>,
}

#[derive(Clone, Copy, Default)]
struct Place {
    failures: u32,
    last: Option<Instant>,
}

impl Throttle {
    pub(super) fn new() -> Self {
        Self { hasher: RandomState::new(), places: (0..PLACES).map(|_| Mutex::default()).collect() }
    }

    /// Counts a failure; its answer should leave so long after the attempt came.
    pub(super) fn failed(&self, peer: SocketAddr, now: Instant) -> Duration {
        let place = self.hasher.hash_one(source(peer.ip())) as usize % PLACES;
        let Some(place) = self.places.get(place) else { return LONGEST };
        let mut place = place.lock();
        if place.last.is_some_and(|last| now.duration_since(last) > MEMORY) {
            place.failures = 0;
        }
        place.failures = place.failures.saturating_add(1);
        place.last = Some(now);
        STEP.saturating_mul(place.failures).min(LONGEST)
    }
}

/// One source: an IPv4 address, or the network of 64 bits that one IPv6 subscriber has to himself.
fn source(ip: IpAddr) -> u64 {
    match ip.to_canonical() {
        IpAddr::V4(ip) => u64::from(ip.to_bits()),
        IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_bound_and_are_forgotten() {
        let throttle = Throttle::new();
        let peer: SocketAddr = "192.0.2.1:999".parse().unwrap();
        let start = Instant::now();
        let waits: Vec<u128> = (0..20).map(|_| throttle.failed(peer, start).as_millis()).collect();
        assert_eq!((waits[0], waits[1], waits[11], waits[19]), (250, 500, 3_000, 3_000));
        assert_eq!(throttle.failed(peer, start + MEMORY * 2), STEP);
    }

    #[test]
    fn one_source_is_an_address_or_a_network() {
        let same = |a: &str, b: &str| source(a.parse().unwrap()) == source(b.parse().unwrap());
        assert!(!same("192.0.2.1", "192.0.2.2"));
        assert!(same("2001:db8::1", "2001:db8::ffff"));
        assert!(!same("2001:db8::1", "2001:db8:0:1::1"));
        assert!(same("::ffff:192.0.2.1", "192.0.2.1"));
    }
}
