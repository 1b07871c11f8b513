//! How long things took.

use hdrhistogram::Histogram;

/// A distribution of nanoseconds, to three significant digits.
pub(crate) struct Latency(Option<Histogram<u64>>);

impl Latency {
    /// Nothing noted; up to an hour can be.
    pub(crate) fn new() -> Self {
        Self(Histogram::new_with_max(3_600_000_000_000, 3).ok())
    }

    /// Notes one.
    #[inline]
    pub(crate) fn note(&mut self, nanos: u64) {
        if let Some(histogram) = &mut self.0 {
            histogram.saturating_record(nanos);
        }
    }

    /// The microseconds that a share of those noted did not exceed; `None` if none were.
    pub(crate) fn micros(&self, share: f64) -> Option<f64> {
        let noted = self.0.as_ref().filter(|histogram| !histogram.is_empty())?;
        Some(noted.value_at_quantile(share) as f64 / 1000.0)
    }
}
