//! Latency histograms: three significant digits, 1 µs to 10 minutes; what lies outside is clamped, never lost.

use hdrhistogram::Histogram;
use serde::Serialize;

const LOWEST_NS: u64 = 1_000;
const HIGHEST_NS: u64 = 600_000_000_000;

/// A histogram of the nanoseconds between what ought to be and what was.
pub struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Self {
        Self::new()
    }
}

impl Latency {
    /// An empty one.
    pub fn new() -> Self {
        Self(Histogram::new_with_bounds(LOWEST_NS, HIGHEST_NS, 3).expect("constant bounds are valid"))
    }

    /// Counts one event at `at` that ought to have been at `intended`.
    pub fn record(&mut self, at: u64, intended: u64) {
        self.0.saturating_record(at.saturating_sub(intended).clamp(LOWEST_NS, HIGHEST_NS));
    }

    /// The figures of the report.
    pub fn summary(&self) -> Summary {
        let quantile = |q| self.0.value_at_quantile(q) as f64 / 1e3;
        Summary {
            count: self.0.len(),
            p50_us: quantile(0.5),
            p99_us: quantile(0.99),
            p999_us: quantile(0.999),
            p9999_us: quantile(0.9999),
            max_us: self.0.max() as f64 / 1e3,
        }
    }
}

/// Quantiles in microseconds; all 0 when nothing was counted.
#[derive(Clone, Debug, Serialize, PartialEq)]
pub struct Summary {
    /// Events counted.
    pub count: u64,
    /// Median.
    pub p50_us: f64,
    /// 99 %.
    pub p99_us: f64,
    /// 99.9 %.
    pub p999_us: f64,
    /// 99.99 %.
    pub p9999_us: f64,
    /// Worst.
    pub max_us: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_have_three_digits() {
        let mut latency = Latency::new();
        for us in 1..=10_000u64 {
            latency.record(us * 1_000, 0);
        }
        let summary = latency.summary();
        assert!((summary.p50_us - 5_000.0).abs() <= 5.0, "{summary:?}");
        assert!((summary.p9999_us - 9_999.0).abs() <= 10.0, "{summary:?}");
    }

    #[test]
    fn what_lies_outside_is_clamped() {
        let mut latency = Latency::new();
        latency.record(5, 9);
        latency.record(u64::MAX, 0);
        let summary = latency.summary();
        assert_eq!(summary.count, 2);
        assert!(summary.p50_us < 2.0 && summary.max_us >= 599e6, "{summary:?}");
    }
}
