//! Accepting after a start: a crowd that comes back all at once is let in at a rate that doubles with each second `[PER-7]`.
//! Who waits, waits in the kernel's backlog, which costs us nothing.

use postroad_base::MonoMillis;

/// After so long everybody is let in: the rate has grown a thousandfold.
const RAMP_MILLIS: u64 = 10_000;

/// How many one shard may still let in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ramp {
    first_per_second: u64,
    opened: MonoMillis,
    taken: u64,
}

impl Ramp {
    /// From `opened` on so many in the first second, twice as many in the next one, and so on; 0: no limit.
    pub(crate) fn new(first_per_second: u32, opened: MonoMillis) -> Self {
        Self { first_per_second: u64::from(first_per_second), opened, taken: 0 }
    }

    /// How many may be let in now.
    pub(crate) fn room(&self, now: MonoMillis) -> usize {
        let elapsed = now.since(self.opened);
        if self.first_per_second == 0 || elapsed >= RAMP_MILLIS {
            return usize::MAX;
        }
        let (seconds, millis) = (elapsed / 1_000, elapsed % 1_000);
        let before = self.first_per_second * ((1 << seconds) - 1);
        let in_this_one = (self.first_per_second << seconds) * millis / 1_000;
        // What 50 ms would bring comes at once: a few clients shall not wait at all.
        let at_once = (self.first_per_second / 20).max(1);
        usize::try_from((before + in_this_one + at_once).saturating_sub(self.taken)).unwrap_or(usize::MAX)
    }

    /// One was let in.
    pub(crate) fn took(&mut self) {
        self.taken += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whoever comes is let in when there is room: how many that is at the end of each tenth of a second.
    fn let_in(first_per_second: u32, tenths: u64) -> Vec<u64> {
        let mut ramp = Ramp::new(first_per_second, MonoMillis(500));
        let mut taken = 0;
        (0..tenths)
            .map(|tenth| {
                while ramp.room(MonoMillis(500 + 100 * tenth)) > 0 {
                    ramp.took();
                    taken += 1;
                }
                taken
            })
            .collect()
    }

    #[test]
    fn the_rate_doubles_with_each_second() {
        let taken = let_in(1_000, 31);
        assert_eq!([taken[0], taken[1], taken[10], taken[20], taken[30]], [50, 150, 1_050, 3_050, 7_050]);
        assert_eq!(let_in(1, 11)[0], 1, "somebody is always let in");
    }

    #[test]
    fn in_the_end_and_without_a_ramp_there_is_no_limit() {
        assert_eq!(Ramp::new(1, MonoMillis(0)).room(MonoMillis(RAMP_MILLIS)), usize::MAX);
        assert_eq!(Ramp::new(0, MonoMillis(7)).room(MonoMillis(7)), usize::MAX);
        // The largest that can be set does not overflow.
        assert!(Ramp::new(u32::MAX, MonoMillis(0)).room(MonoMillis(RAMP_MILLIS - 1)) > 1 << 40);
    }
}
