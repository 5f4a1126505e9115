//! The stamp that every payload carries, and the receiver's book on it.
//!
//! ```text
//!  0        4           8                16              24            payload size
//!  ├ run ───┼ publisher ┼ sequence ──────┼ sent (ns) ────┼ filler 0xA5 ┤     integers big-endian
//! ```
//!
//! `run` tells messages of this run from leftovers of another one in the same broker. `sequence` counts from 0
//! per publisher; a [`Track`] per publisher and receiver follows it and tells four things apart exactly: in
//! order, repeated, late (out of order), missing.

use std::collections::BTreeMap;

/// Bytes of the stamp, hence the smallest payload.
pub const STAMP_BYTES: usize = 24;

/// What a payload says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Which run of the generator sent it.
    pub run: u32,
    /// Publisher number, from 0.
    pub publisher: u32,
    /// Message number of that publisher, from 0.
    pub sequence: u64,
    /// Intended time of sending, nanoseconds of the machine's monotonic clock.
    pub sent: u64,
}

impl Stamp {
    /// Writes the stamp over the first bytes of `payload`, which must hold [`STAMP_BYTES`].
    pub fn write(&self, payload: &mut [u8]) {
        payload[0..4].copy_from_slice(&self.run.to_be_bytes());
        payload[4..8].copy_from_slice(&self.publisher.to_be_bytes());
        payload[8..16].copy_from_slice(&self.sequence.to_be_bytes());
        payload[16..24].copy_from_slice(&self.sent.to_be_bytes());
    }

    /// Reads it back; `None` if the payload is too short to be ours.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let (stamp, _filler) = payload.split_first_chunk::<STAMP_BYTES>()?;
        let word = |at: usize| u32::from_be_bytes(stamp[at..at + 4].try_into().expect("four bytes"));
        let long = |at: usize| u64::from_be_bytes(stamp[at..at + 8].try_into().expect("eight bytes"));
        Some(Self { run: word(0), publisher: word(4), sequence: long(8), sent: long(16) })
    }
}

/// How one message stands to those before it of the same publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// The next one, or a later one (then what is between is missing for now).
    New,
    /// One that was missing: it came out of order.
    Late,
    /// One that was here before.
    Repeated,
}

/// A receiver's book on one publisher. Memory: a few words, and one entry for each gap.
#[derive(Clone, Debug, Default)]
pub struct Track {
    next: u64,
    gaps: BTreeMap<u64, u64>,
    /// Different messages received.
    pub received: u64,
    /// Messages that came after a later one.
    pub late: u64,
    /// Messages that came again.
    pub repeated: u64,
}

impl Track {
    /// Takes one message.
    pub fn arrive(&mut self, sequence: u64) -> Arrival {
        if sequence >= self.next {
            if sequence > self.next {
                self.gaps.insert(self.next, sequence);
            }
            self.next = sequence + 1;
            self.received += 1;
            return Arrival::New;
        }
        if self.fill(sequence) {
            self.received += 1;
            self.late += 1;
            return Arrival::Late;
        }
        self.repeated += 1;
        Arrival::Repeated
    }

    /// Messages of `0..sent` that have not come.
    pub fn missing(&self, sent: u64) -> u64 {
        sent.saturating_sub(self.received)
    }

    /// Removes `sequence` from the gap that holds it; false if none does.
    fn fill(&mut self, sequence: u64) -> bool {
        let Some((&start, &end)) = self.gaps.range(..=sequence).next_back() else { return false };
        if sequence >= end {
            return false;
        }
        self.gaps.remove(&start);
        if start < sequence {
            self.gaps.insert(start, sequence);
        }
        if sequence + 1 < end {
            self.gaps.insert(sequence + 1, end);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn track(sequences: &[u64]) -> Track {
        let mut track = Track::default();
        for &sequence in sequences {
            track.arrive(sequence);
        }
        track
    }

    #[test]
    fn a_stamp_is_read_back() {
        let stamp = Stamp { run: 7, publisher: 49, sequence: 1 << 40, sent: u64::MAX - 1 };
        let mut payload = vec![0xA5; 40];
        stamp.write(&mut payload);
        assert_eq!(Stamp::read(&payload), Some(stamp));
        assert!(payload[24..].iter().all(|&byte| byte == 0xA5));
        assert_eq!(Stamp::read(&payload[..23]), None);
    }

    #[test]
    fn in_order_is_clean() {
        let track = track(&[0, 1, 2, 3]);
        assert_eq!((track.received, track.late, track.repeated, track.missing(4)), (4, 0, 0, 0));
    }

    #[test]
    fn the_tail_and_the_head_can_be_missing() {
        let track = track(&[2, 3]);
        assert_eq!(track.missing(6), 4);
        assert_eq!((track.late, track.repeated), (0, 0));
    }

    #[test]
    fn a_gap_filled_later_is_out_of_order_not_lost() {
        let mut track = track(&[0, 5]);
        assert_eq!(track.missing(6), 4);
        assert_eq!(track.arrive(3), Arrival::Late);
        assert_eq!(track.arrive(3), Arrival::Repeated);
        for sequence in [1, 2, 4] {
            assert_eq!(track.arrive(sequence), Arrival::Late);
        }
        assert_eq!((track.missing(6), track.late, track.repeated), (0, 4, 1));
        assert!(track.gaps.is_empty());
    }

    /// A resend after a reconnect: 2 and 3 come again, and nothing is out of order.
    #[test]
    fn repeats_are_not_late() {
        let track = track(&[0, 1, 2, 3, 2, 3, 4]);
        assert_eq!((track.received, track.late, track.repeated, track.missing(5)), (5, 0, 2, 0));
    }
}
