//! Seeded randomness (SplitMix64): the same seed gives the same test.

use std::time::{SystemTime, UNIX_EPOCH};

/// A generator; the seed is printed, so that a failure can be run again with `POSTROAD_SEED`.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From `POSTROAD_SEED`, or else the clock. `name` says whose seed is printed.
    pub fn seeded(name: &str) -> Self {
        let given = std::env::var("POSTROAD_SEED").ok().and_then(|seed| seed.parse().ok());
        let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_nanos() as u64);
        let seed = given.unwrap_or_else(clock);
        println!("{name}: POSTROAD_SEED={seed}");
        Self(seed)
    }

    /// From this seed, for one of several that go on beside each other.
    pub fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ mixed >> 31
    }

    /// A number of `0..bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound.max(1)
    }

    /// This many bytes.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.number() as u8).collect()
    }
}
