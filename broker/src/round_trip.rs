//! How long a client takes to acknowledge, and from when on an acknowledgement is late `[SPD-2]`.
//!
//! As RFC 6298 has it for TCP: a smoothed round trip and its mean deviation, of first sends only (Karn: nobody knows which
//! copy a late answer is for). What it measures is not the network alone: the client's own queue counts, too.

use crate::config::Config;

/// The acknowledgement round trip of a connection. Four bytes, since every connection has one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RoundTrip {
    /// Milliseconds, 1 at least; 0: nothing has been acknowledged yet.
    smoothed: u16,
    /// Mean deviation, in milliseconds.
    deviation: u16,
}

impl RoundTrip {
    /// Something was acknowledged so many milliseconds after its only send on this connection.
    #[inline]
    pub fn observe(&mut self, millis: u64) {
        let millis = u16::try_from(millis).unwrap_or(u16::MAX).max(1);
        if self.smoothed == 0 {
            return *self = Self { smoothed: millis, deviation: millis / 2 };
        }
        let part =
            |whole: u16, new: u16, of: u32| ((u32::from(whole) * (of - 1) + u32::from(new) + of / 2) / of) as u16;
        let deviation = part(self.deviation, self.smoothed.abs_diff(millis), 4);
        *self = Self { smoothed: part(self.smoothed, millis, 8), deviation };
    }

    /// The smoothed round trip in milliseconds; `None`: not known yet.
    pub fn smoothed(self) -> Option<u16> {
        (self.smoothed > 0).then_some(self.smoothed)
    }

    /// For how many milliseconds an acknowledgement is waited for, after so many resends on this connection: twice as long
    /// after each.
    #[inline]
    pub fn deadline(self, resends: u8, config: &Config) -> u64 {
        let most = config.limits.ack_timeout_max_ms;
        let first = u64::from(self.smoothed) + 4 * u64::from(self.deviation);
        let first = first.max(config.limits.ack_timeout_min_ms).max(1);
        first.saturating_mul(1 << resends.min(32)).min(most.max(config.limits.ack_timeout_min_ms))
    }
}

#[cfg(test)]
mod tests {
    use base::{Placement, ShardId};
    use postroad_base as base;
    use proptest::prelude::*;

    use super::*;

    fn config() -> Config {
        Config::new(ShardId(0), Placement::new(16, 1, [3; 16]), false, 7)
    }

    fn after(millis: &[u64]) -> RoundTrip {
        let mut trip = RoundTrip::default();
        millis.iter().for_each(|millis| trip.observe(*millis));
        trip
    }

    #[test]
    fn the_deadline_follows_what_is_measured_within_its_bounds() {
        let config = config();
        assert_eq!(RoundTrip::default().deadline(0, &config), 5_000, "nothing is known: the least");
        assert_eq!(after(&[20]).deadline(0, &config), 5_000, "fast: the least");
        assert_eq!(after(&[4_000]).deadline(0, &config), 12_000, "4 s, deviation 2 s");
        assert_eq!(after(&[1_000_000]).deadline(0, &config), 60_000, "the most");
        let steady = after(&[4_000; 50]);
        assert_eq!((steady.smoothed(), steady.deadline(0, &config)), (Some(4_000), 5_000), "{steady:?}");
        let steady = after(&[40_000; 50]);
        assert!((40_000..40_020).contains(&steady.deadline(0, &config)), "{steady:?}");
    }

    #[test]
    fn it_doubles_with_each_resend() {
        let config = config();
        let trip = after(&[20]);
        let deadlines: Vec<u64> = [0, 1, 2, 3, 4, 255].map(|resends| trip.deadline(resends, &config)).to_vec();
        assert_eq!(deadlines, [5_000, 10_000, 20_000, 40_000, 60_000, 60_000]);
    }

    #[test]
    fn bounds_that_contradict_each_other_do_no_harm() {
        let config = Config {
            limits: crate::Limits { ack_timeout_min_ms: 9, ack_timeout_max_ms: 3, ..config().limits },
            ..config()
        };
        assert_eq!(after(&[20_000]).deadline(7, &config), 9);
        let config = Config {
            limits: crate::Limits { ack_timeout_min_ms: 0, ack_timeout_max_ms: 0, ..config.limits },
            ..config
        };
        assert!(RoundTrip::default().deadline(0, &config) <= 1);
    }

    proptest! {
        /// Within rounding, what the formulas of RFC 6298 (section 2) say.
        #[test]
        fn it_is_that_of_the_rfc(millis in prop::collection::vec(1_u64..60_000, 1..100)) {
            let (mut smoothed, mut deviation) = (millis[0] as f64, millis[0] as f64 / 2.0);
            for millis in &millis[1..] {
                deviation = 0.75 * deviation + 0.25 * (smoothed - *millis as f64).abs();
                smoothed = 0.875 * smoothed + 0.125 * *millis as f64;
            }
            let trip = after(&millis);
            prop_assert!((f64::from(trip.smoothed) - smoothed).abs() <= 8.0, "{trip:?} {smoothed}");
            prop_assert!((f64::from(trip.deviation) - deviation).abs() <= 16.0, "{trip:?} {deviation}");
        }
    }
}
