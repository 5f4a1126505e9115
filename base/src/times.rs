//! How long deliveries took.

/// Times from a message's publishing until a receiver had it, counted by powers of two: to count one costs a few
/// instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeliveryTimes {
    counts: [u64; Self::BUCKETS],
    sum_ms: u64,
}

impl DeliveryTimes {
    /// 1 ms, 2 ms, 4 ms … 70 minutes, and all that took longer.
    const BUCKETS: usize = 24;

    /// One more, in milliseconds.
    pub fn observe(&mut self, ms: u64) {
        let power = (u64::BITS - ms.saturating_sub(1).leading_zeros()) as usize;
        self.counts[power.min(Self::BUCKETS - 1)] += 1;
        self.sum_ms += ms;
    }

    /// For each bucket its upper bound in milliseconds (`None`: there is none), and how many lie in it and not in the one
    /// before.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let last = Self::BUCKETS - 1;
        self.counts.iter().enumerate().map(move |(power, count)| ((power < last).then_some(1 << power), *count))
    }

    /// All of them together, in milliseconds.
    pub fn sum_ms(&self) -> u64 {
        self.sum_ms
    }

    /// How many.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lies_in_the_first_bucket_that_holds_it() {
        for ms in (0..5_000).chain([1 << 22, (1 << 22) + 1, u64::MAX >> 1]) {
            let mut times = DeliveryTimes::default();
            times.observe(ms);
            let mut buckets = times.buckets();
            let (bound, _) = buckets.find(|(_, count)| *count == 1).expect("it is counted");
            assert!(bound.is_none_or(|bound| ms <= bound && (bound == 1 || ms > bound / 2)), "{ms} in {bound:?}");
            assert_eq!(bound.is_none(), ms > 1 << 22, "{ms}");
            assert_eq!((times.count(), times.sum_ms()), (1, ms));
        }
    }
}
