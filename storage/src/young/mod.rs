//! The young generation: commits in recycled segment files.
//!
//! Invariants, each with the crash that it is for:
//! - A commit is written only when the one in front of it is finished. So what a power cut leaves is a chain
//!   with at most its last link broken, and a gap can only be damage.
//! - A commit lies in one segment, at a multiple of [`BLOCK_BYTES`], padded to one (O_DIRECT).
//! - Order comes from sequences, never from file names; a recycled file keeps its name. So no rename has
//!   to be synced before a commit counts.
//! - A segment is written again only after `upto` in the old generation covers all that it held.

mod commit;
mod files;
mod recover;
mod repair;
mod writer;

pub use files::{FileDirectory, SegmentDirectory};
pub use recover::{RecoverError, Recovered, TornTail, recover};
pub use repair::{Problem, Report, check, repair};
pub use writer::{Commit, Position, Retired, Writer, WriterConfig};

/// Commits begin at, and are padded to, multiples of this.
pub const BLOCK_BYTES: u64 = 4096;
/// The format version that is written; older ones are read, newer ones refused.
pub const FORMAT_VERSION: u16 = 1;

/// Names the log of one shard: random, drawn when the log is made, never reused. Commits of other logs are not seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LogId(pub u64);

/// Number of a segment's file (its slot). Says nothing about order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentNumber(pub u32);

impl SegmentNumber {
    /// `0000002a.seg`
    pub fn file_name(self) -> String {
        format!("{:08x}.seg", self.0)
    }

    /// The number in a file's name; `None` if that is no segment's.
    pub fn from_file_name(name: &str) -> Option<Self> {
        let digits = name.strip_suffix(".seg").filter(|digits| digits.len() == 8)?;
        let number = u32::from_str_radix(digits, 16).ok().map(Self)?;
        (number.file_name() == name).then_some(number)
    }
}

/// `bytes` rounded up to whole blocks.
fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK_BYTES)
}
