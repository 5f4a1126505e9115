//! Nanosecond clocks. The monotonic clock is the machine's, so a stamp of one process can be read by another.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of `CLOCK_MONOTONIC`.
pub fn now() -> u64 {
    read(ClockId::Monotonic)
}

/// Nanoseconds from the beginning of the monotonic clock back to 1970, as both clocks stand now.
pub fn unix_offset() -> u64 {
    read(ClockId::Realtime) - now()
}

/// CPU nanoseconds that this process has used, user and system.
pub fn cpu() -> u64 {
    read(ClockId::ProcessCPUTime)
}

/// CPU nanoseconds that this thread has used, user and system.
pub fn thread_cpu() -> u64 {
    read(ClockId::ThreadCPUTime)
}

fn read(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Nanoseconds of this many seconds.
pub fn seconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}
