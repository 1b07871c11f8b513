//! The machine's monotonic clock in nanoseconds, the same in every process, so that a stamp may outlive its writer.

use rustix::time::{ClockId, clock_gettime};

/// One second.
pub(crate) const SECOND: u64 = 1_000_000_000;

/// Now.
pub(crate) fn nanos() -> u64 {
    let t = clock_gettime(ClockId::Monotonic);
    t.tv_sec.unsigned_abs() * SECOND + t.tv_nsec.unsigned_abs()
}

/// `seconds` as nanoseconds; nothing for a negative number.
pub(crate) fn from_seconds(seconds: f64) -> u64 {
    (seconds.max(0.0) * SECOND as f64) as u64
}

/// The seconds from one moment to a later one.
pub(crate) fn seconds_between(from: u64, to: u64) -> f64 {
    to.saturating_sub(from) as f64 / SECOND as f64
}
