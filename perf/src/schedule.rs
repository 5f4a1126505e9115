//! Open-loop timetable: when each message *ought* to be sent, whatever the broker does.
//!
//! Latency counts from the intended time, never from the moment at which the generator got round to it: a
//! stall then shows in every message that fell into it (no coordinated omission). Bursts go round the
//! publishers in turn, evenly spaced:
//!
//! ```text
//! burst k (0, 1, …) at start + k · period, by publisher k mod N;  its messages share that time
//! ```

/// Rate and shape of an open loop.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Nanoseconds of the first burst.
    pub start: u64,
    /// Messages per second, all publishers together.
    pub rate: f64,
    /// Messages per burst, at least 1.
    pub burst: u64,
    /// Number of publishers, at least 1.
    pub publishers: u64,
}

impl Schedule {
    /// Nanoseconds between two bursts.
    fn period(&self) -> f64 {
        self.burst as f64 * 1e9 / self.rate
    }

    /// When the `message`-th message (from 0) of `publisher` ought to leave.
    pub fn intended(&self, publisher: u64, message: u64) -> u64 {
        let burst = (message / self.burst) * self.publishers + publisher;
        self.burst_time(burst)
    }

    /// When burst `burst` ought to leave.
    pub fn burst_time(&self, burst: u64) -> u64 {
        self.start + (burst as f64 * self.period()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::Latency;

    const MS: u64 = 1_000_000;

    fn thousand_per_second() -> Schedule {
        Schedule { start: 5 * MS, rate: 1_000.0, burst: 1, publishers: 1 }
    }

    #[test]
    fn one_publisher_sends_at_the_period() {
        let schedule = thousand_per_second();
        assert_eq!(schedule.intended(0, 0), 5 * MS);
        assert_eq!(schedule.intended(0, 7), 12 * MS);
    }

    #[test]
    fn bursts_go_round_the_publishers() {
        let schedule = Schedule { start: 0, rate: 1_000.0, burst: 10, publishers: 4 };
        assert_eq!(schedule.intended(0, 9), 0);
        assert_eq!(schedule.intended(1, 0), 10 * MS);
        assert_eq!(schedule.intended(3, 5), 30 * MS);
        assert_eq!(schedule.intended(0, 10), 40 * MS);
    }

    #[test]
    fn the_rate_does_not_drift() {
        let schedule = Schedule { start: 0, rate: 30_000.0, burst: 1, publishers: 3 };
        let hour = 3_600 * 1_000 * MS;
        let last = schedule.intended(2, 36_000_000 - 1);
        assert!(last < hour && hour - last < 2 * 33_334, "{last}");
    }

    /// A generator that is stopped for 100 ms must record what a patient client would have seen: each message of
    /// the stall is late by what remained of it, not one late message and 99 prompt ones.
    #[test]
    fn a_stall_is_charged_to_every_message_of_it() {
        let schedule = thousand_per_second();
        let mut latency = Latency::new();
        for message in 0..1_000 {
            let intended = schedule.intended(0, message);
            let stall = (500..600).contains(&message);
            let sent = if stall { schedule.intended(0, 600) } else { intended };
            latency.record(sent + MS / 10, intended);
        }
        let summary = latency.summary();
        assert_eq!(summary.count, 1_000);
        assert!((99_000.0..=101_000.0).contains(&summary.max_us), "{summary:?}");
        assert!(summary.p50_us < 110.0, "{summary:?}");
        assert!((80_000.0..=100_000.0).contains(&summary.p99_us), "{summary:?}");
    }
}
