//! The only reader of clocks. Everything below `engine` gets [`Now`] as an argument.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use postroad_base::{MonoMillis, Now, WallMillis};

/// Gives instants; one per process, copied to each shard, so that all of them count from the same zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now() }
    }

    /// This instant on both clocks.
    pub(crate) fn now(&self) -> Now {
        // The zero of the monotonic clock lies one hour back: an early instant minus a timeout stays positive.
        let mono = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(3_600_000);
        Now { mono: MonoMillis(mono), wall: WallMillis(wall_millis()) }
    }
}

fn wall_millis() -> u64 {
    // A clock before 1970 counts as 1970: ids stand still there, nothing else minds.
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}
