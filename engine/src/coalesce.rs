//! When a shard that has nothing left to do lets wake-ups coalesce, instead of waiting to be woken by the next packet.
//!
//! A wake-up costs some 20 µs of CPU whatever it is for: the switch to the shard's thread and back, a call to read and one
//! to write. A publisher that sends packet by packet causes one for each. So a shard whose last wait was brief sleeps for a
//! set time and then looks, once for all that has come, as network cards do with their interrupts. Two things end it:
//! - nothing had come: the next wait is for the signal again, so an idle shard has no timer and its first packet no delay;
//! - fewer than two packets had come for each of those who had sent some: then the time was lost, as for clients that send
//!   their next request when they have the answer to this one. Four of them did a quarter of their work with it. The
//!   shard waits for signals a number of times before it tries again, twice as often after each failure.

use std::time::Duration;

/// Waits without it after one failure, at most.
const SKIPS_MAX: u32 = 512;

/// What a turn has taken in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Inputs {
    /// Packets, and messages of other shards.
    pub(crate) packets: u64,
    /// Connections and shards that they came from.
    pub(crate) sources: u64,
}

/// Decides for one shard.
#[derive(Debug, Default)]
pub(crate) struct Coalescing {
    /// `coalesce_micros`; zero: never.
    time: Duration,
    /// The last wait for a signal was short enough that another packet is to be expected within `time`.
    brief: bool,
    /// Waits that are still to be made without it.
    skips: u32,
    /// The number of those after the last failure.
    penalty: u32,
    /// The shard has slept for it, and not looked yet.
    slept: bool,
}

impl Coalescing {
    pub(crate) fn new(time: Duration) -> Self {
        Self { time, ..Self::default() }
    }

    /// The option has changed.
    pub(crate) fn set_time(&mut self, time: Duration) {
        self.time = time;
    }

    /// A wait for a signal took so long.
    pub(crate) fn waited(&mut self, lasted: Duration) {
        self.brief = lasted < 2 * self.time;
    }

    /// There is nothing left to do: how long to sleep before looking; `None`: wait for a signal.
    pub(crate) fn begin(&mut self) -> Option<Duration> {
        if !self.brief {
            return None;
        }
        if self.skips > 0 {
            self.skips -= 1;
            return None;
        }
        self.slept = true;
        Some(self.time)
    }

    /// A turn found this.
    pub(crate) fn found(&mut self, inputs: Inputs) {
        if !std::mem::take(&mut self.slept) {
            return;
        }
        let Inputs { packets, sources } = inputs;
        if packets == 0 {
            self.brief = false;
        } else if packets >= 2 * sources.max(1) {
            self.penalty = 0;
        } else {
            self.penalty = (2 * self.penalty).clamp(1, SKIPS_MAX);
            self.skips = self.penalty;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_micros(50);
    const PIPELINED: Inputs = Inputs { packets: 2, sources: 1 };

    fn busy() -> Coalescing {
        let mut coalescing = Coalescing::new(TIME);
        coalescing.waited(Duration::from_micros(30));
        coalescing
    }

    #[test]
    fn a_shard_coalesces_as_long_as_it_finds_several() {
        let mut coalescing = busy();
        for _ in 0..100 {
            assert_eq!(coalescing.begin(), Some(TIME));
            coalescing.found(PIPELINED);
        }
    }

    #[test]
    fn the_first_packet_after_a_pause_is_not_kept_waiting() {
        let mut coalescing = busy();
        coalescing.waited(Duration::from_millis(1));
        assert_eq!(coalescing.begin(), None, "the wait was long");
        coalescing.waited(Duration::from_micros(30));
        assert_eq!(coalescing.begin(), Some(TIME));
        coalescing.found(Inputs::default());
        assert_eq!(coalescing.begin(), None, "nothing had come: it waits until it is woken");
    }

    /// Clients that wait for each answer before they ask again, and those that they are in talk with.
    #[test]
    fn where_one_comes_at_a_time_it_is_given_up_and_tried_again_seldom() {
        let mut coalescing = busy();
        let mut tried = 0;
        for _ in 0..10_000 {
            if coalescing.begin().is_some() {
                tried += 1;
                coalescing.found(Inputs { packets: 17, sources: 16 });
            }
            coalescing.waited(Duration::from_micros(30));
        }
        assert!((10..30).contains(&tried), "{tried} of 10,000");
        while coalescing.begin().is_none() {}
        coalescing.found(PIPELINED);
        assert_eq!(coalescing.begin(), Some(TIME), "it pays again: no more skips");
    }

    #[test]
    fn zero_is_never() {
        let mut coalescing = Coalescing::new(Duration::ZERO);
        coalescing.waited(Duration::ZERO);
        assert_eq!(coalescing.begin(), None);
    }
}
