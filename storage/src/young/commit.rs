//! The header of a commit, and finding valid commits in the bytes of a segment.

use base::Sequence;
use postroad_base as base;

use super::{BLOCK_BYTES, FORMAT_VERSION, LogId, padded};

pub(super) const HEADER_BYTES: usize = 48;
const MAGIC: [u8; 4] = *b"PRC1";
const CRC_OFFSET: usize = 8;

const _: () = assert!(HEADER_BYTES as u64 <= BLOCK_BYTES);

/// What a header says; the checksum stands for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) version: u16,
    pub(super) epoch: u32,
    pub(super) log: LogId,
    pub(super) first: Sequence,
    pub(super) records: u32,
    pub(super) body_bytes: u32,
    /// Last sequence of the commit in front: `first - 1`, or less where a restart skipped sequences.
    pub(super) previous: Sequence,
}

impl Header {
    /// Fills the first [`HEADER_BYTES`] of `commit`, whose body follows them, checksum included.
    pub(super) fn seal(&self, commit: &mut [u8]) {
        assert_eq!(commit.len(), HEADER_BYTES + self.body_bytes as usize, "the header must fit its body");
        assert!(self.records > 0, "a commit holds a record");
        assert!(self.previous < self.first, "sequences ascend");
        let (head, body) = commit.split_at_mut(HEADER_BYTES);
        head.fill(0);
        head[0..4].copy_from_slice(&MAGIC);
        head[4..6].copy_from_slice(&self.version.to_le_bytes());
        head[6..8].copy_from_slice(&(HEADER_BYTES as u16).to_le_bytes());
        head[12..16].copy_from_slice(&self.epoch.to_le_bytes());
        head[16..24].copy_from_slice(&self.log.0.to_le_bytes());
        head[24..32].copy_from_slice(&self.first.0.to_le_bytes());
        head[32..36].copy_from_slice(&self.records.to_le_bytes());
        head[36..40].copy_from_slice(&self.body_bytes.to_le_bytes());
        head[40..48].copy_from_slice(&self.previous.0.to_le_bytes());
        let crc = crc32c::crc32c_append(crc32c::crc32c(head), body);
        head[CRC_OFFSET..CRC_OFFSET + 4].copy_from_slice(&crc.to_le_bytes());
    }

    /// The header at the start of `bytes` if magic and log id say that there is one of ours.
    pub(super) fn parse(bytes: &[u8], log: LogId) -> Option<Self> {
        let head = bytes.first_chunk::<HEADER_BYTES>()?;
        let header = Self {
            version: u16::from_le_bytes(part(head, 4)),
            epoch: u32::from_le_bytes(part(head, 12)),
            log: LogId(u64::from_le_bytes(part(head, 16))),
            first: Sequence(u64::from_le_bytes(part(head, 24))),
            records: u32::from_le_bytes(part(head, 32)),
            body_bytes: u32::from_le_bytes(part(head, 36)),
            previous: Sequence(u64::from_le_bytes(part(head, 40))),
        };
        (part::<4>(head, 0) == MAGIC && header.log == log).then_some(header)
    }

    /// The last record's sequence; `None` if the numbers make no sense: there must be a next sequence.
    pub(super) fn last(&self) -> Option<Sequence> {
        let last = self.first.0.checked_add(u64::from(self.records).checked_sub(1)?)?;
        (last < u64::MAX).then_some(Sequence(last))
    }

    /// Header and body, without the padding.
    pub(super) fn commit_bytes(&self) -> u64 {
        HEADER_BYTES as u64 + u64::from(self.body_bytes)
    }

    /// Whether `bytes`, which begin with this header, hold the commit whole and undamaged.
    fn is_valid(&self, bytes: &[u8]) -> bool {
        let Some(commit) = usize::try_from(self.commit_bytes()).ok().and_then(|len| bytes.get(..len)) else {
            return false;
        };
        let (head, body) = commit.split_at(HEADER_BYTES);
        let mut zeroed = [0; HEADER_BYTES];
        zeroed.copy_from_slice(head);
        zeroed[CRC_OFFSET..CRC_OFFSET + 4].fill(0);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&zeroed), body);
        crc.to_le_bytes() == head[CRC_OFFSET..CRC_OFFSET + 4] && self.last().is_some() && self.previous < self.first
    }
}

fn part<const N: usize>(head: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    *head[at..].first_chunk().expect("fields lie within the header")
}

/// A header found at a block boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) offset: u64,
    pub(super) header: Header,
    /// Whether the commit is whole; else it is torn or damaged.
    pub(super) valid: bool,
}

impl Found {
    /// Where the next commit would be.
    pub(super) fn end(&self) -> u64 {
        self.offset + padded(self.header.commit_bytes())
    }
}

/// All headers of `log` in a segment's bytes. After a valid commit the search goes on behind it, after
/// anything else at the next block.
pub(super) fn scan(segment: &[u8], log: LogId) -> Vec<Found> {
    let mut found = Vec::new();
    let mut offset = 0;
    while let Some(rest) = usize::try_from(offset).ok().and_then(|at| segment.get(at..)).filter(|r| !r.is_empty()) {
        let mut next = offset + BLOCK_BYTES;
        if let Some(header) = Header::parse(rest, log) {
            let one = Found { offset, header, valid: header.is_valid(rest) };
            if one.valid {
                next = one.end();
            }
            found.push(one);
        }
        offset = next;
    }
    found
}

/// Whether this release can read the commit's records.
pub(super) fn is_readable(header: &Header) -> bool {
    header.version <= FORMAT_VERSION
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by hand for the fuzz target `recovery_crafted`: a commit with a right checksum that ends at the last sequence of
    /// all made recovery overflow while it looked for the next one. No writer gets there.
    #[test]
    fn a_commit_behind_which_there_is_no_sequence_is_not_valid() {
        for (first, is_valid) in [(u64::MAX - 1, true), (u64::MAX, false)] {
            let log = LogId(1);
            let (first, previous) = (Sequence(first), Sequence(0));
            let header = Header { version: FORMAT_VERSION, epoch: 0, log, first, records: 1, body_bytes: 0, previous };
            let mut commit = [0; HEADER_BYTES];
            header.seal(&mut commit);
            assert_eq!(scan(&commit, log)[0].valid, is_valid, "{first:?}");
        }
    }
}
