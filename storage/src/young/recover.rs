//! The strict scan that brings a log back after any stop (`docs/storage-format.md`, "Recovery").

use std::collections::BTreeSet;
use std::io;

use base::{Record, Sequence};
use postroad_base as base;

use super::commit::{Found, HEADER_BYTES, is_readable, scan};
use super::writer::{Position, Slot};
use super::{BLOCK_BYTES, LogId, SegmentDirectory, SegmentNumber};
use crate::old::Covered;
use crate::record::{RecordError, decode};

/// Why a log can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// The files can't be read or written.
    #[error("can't read the log: {0}")]
    Io(#[from] io::Error),
    /// Something in the middle of the log is damaged or missing: what follows was acknowledged.
    #[error(
        "log is damaged: records from {missing} on are not where they should be (segment {} offset {offset}), but later \
         ones up to {beyond} are there; run `postroad log check`, restore the disk, or accept the loss with `postroad \
         log repair`", segment.file_name()
    )]
    Gap { segment: SegmentNumber, offset: u64, missing: u64, beyond: u64 },
    /// Two commits claim the same sequence.
    #[error("log is damaged: segment {} offset {offset} holds record {sequence} a second time", segment.file_name())]
    Overlap { segment: SegmentNumber, offset: u64, sequence: u64 },
    /// A commit whose checksum is right holds what is no record: written by a bug.
    #[error("segment {} offset {offset}: record {sequence} can't be read: {error}", segment.file_name())]
    Record { segment: SegmentNumber, offset: u64, sequence: u64, error: RecordError },
    /// Written by a newer release.
    #[error("segment {} has format version {version}: this release reads up to {}", segment.file_name(), super::FORMAT_VERSION)]
    Newer { segment: SegmentNumber, version: u16 },
}

/// The unfinished end of a log: a commit that a crash cut short. Nobody was told that it was safe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// The file.
    pub segment: SegmentNumber,
    /// Where in it.
    pub offset: u64,
    /// The first sequence that it would have held; it is given again.
    pub sequence: Sequence,
}

/// A log that was brought back.
#[derive(Debug)]
pub struct Recovered {
    /// Where it goes on: for [`super::Writer::new`].
    pub position: Position,
    /// Records that were replayed.
    pub records: u64,
    /// What was cut, if anything: worth a warning in the server's log.
    pub torn: Option<TornTail>,
}

/// A commit and the segment that it is in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Located {
    pub(super) segment: SegmentNumber,
    pub(super) found: Found,
}

impl Located {
    fn first(&self) -> u64 {
        self.found.header.first.0
    }

    pub(super) fn last(&self) -> u64 {
        self.found.header.last().map_or(0, |last| last.0)
    }
}

/// What stands in the files of a log.
#[derive(Debug)]
pub(super) struct Survey {
    /// Each segment and its length.
    pub(super) segments: Vec<(SegmentNumber, u64)>,
    /// Valid commits above `covered`, that form one chain.
    pub(super) chain: Vec<Located>,
    /// Valid commits above the end of the chain. Not empty: corruption.
    pub(super) beyond: Vec<Located>,
    /// Headers above the end of the chain whose commit is not whole.
    pub(super) torn: Vec<Located>,
    /// Last sequence in the chain, or of what is covered if it is empty.
    pub(super) last: Sequence,
    /// The sequence after it.
    pub(super) next: Sequence,
}

/// Reads all segments. `covered`: the old generation holds all up to here.
pub(super) fn survey(files: &dyn SegmentDirectory, log: LogId, covered: Sequence) -> Result<Survey, RecoverError> {
    let mut segments = Vec::new();
    let (mut valid, mut broken) = (Vec::new(), Vec::new());
    for segment in files.list()? {
        let bytes = files.read(segment)?;
        segments.push((segment, bytes.len() as u64));
        for found in scan(&bytes, log) {
            if found.valid && !is_readable(&found.header) {
                return Err(RecoverError::Newer { segment, version: found.header.version });
            }
            let list = if found.valid { &mut valid } else { &mut broken };
            list.push(Located { segment, found });
        }
    }
    valid.retain(|commit| commit.last() > covered.0);
    valid.sort_by_key(Located::first);
    let mut last = covered.0;
    let mut chain_len = 0;
    for commit in &valid {
        let previous = commit.found.header.previous.0;
        // The first may begin below: `covered` need not be the end of a commit.
        let follows = if chain_len == 0 { previous <= last } else { previous == last };
        if !follows {
            break;
        }
        last = commit.last();
        chain_len += 1;
    }
    let next = last + 1;
    let beyond = valid.split_off(chain_len);
    broken.retain(|commit: &Located| commit.first() >= next);
    Ok(Survey { segments, chain: valid, beyond, torn: broken, last: Sequence(last), next: Sequence(next) })
}

impl Survey {
    /// Where the chain ends: the place of the next commit, if it is in the same segment.
    fn end(&self) -> Option<(SegmentNumber, u64)> {
        self.chain.last().map(|last| (last.segment, last.found.end()))
    }

    /// The error that `beyond` is, if it is one.
    pub(super) fn damage(&self) -> Option<RecoverError> {
        let first = self.beyond.first()?;
        if first.first() < self.next.0 {
            let (segment, offset) = (first.segment, first.found.offset);
            return Some(RecoverError::Overlap { segment, offset, sequence: first.first() });
        }
        // The header of the missing commit if it can still be read, else where it would be.
        let header = self.torn.iter().find(|torn| torn.first() == self.next.0);
        let place = header.map(|torn| (torn.segment, torn.found.offset)).or_else(|| self.end());
        let (segment, offset) = place.unwrap_or((first.segment, first.found.offset));
        let beyond = self.beyond.iter().map(Located::last).max().unwrap_or(0);
        Some(RecoverError::Gap { segment, offset, missing: self.next.0, beyond })
    }

    fn torn_tail(&self) -> Option<TornTail> {
        let torn = self.torn.iter().min_by_key(|torn| torn.first())?;
        Some(TornTail { segment: torn.segment, offset: torn.found.offset, sequence: torn.found.header.first })
    }

    /// Sequences up to `as_of` are taken, even if the records are gone.
    fn position(&self, as_of: Sequence) -> Position {
        let mut live: Vec<Slot> = Vec::new();
        for commit in &self.chain {
            let (used, last) = (commit.found.end(), Sequence(commit.last()));
            match live.last_mut().filter(|slot| slot.number == commit.segment) {
                // Not simply where the last one ends: a damaged disk may hold a commit of the chain behind it, as a copy, and only there.
                Some(slot) => (slot.used, slot.last) = (slot.used.max(used), last),
                None => {
                    let file_bytes =
                        self.segments.iter().find(|(n, _)| *n == commit.segment).map_or(used, |(_, len)| *len);
                    // The last page of a file that was cut short counts as used, not as room.
                    let file_bytes = (file_bytes / BLOCK_BYTES * BLOCK_BYTES).max(used);
                    live.push(Slot { number: commit.segment, file_bytes, used, last });
                }
            }
        }
        for slot in &mut live {
            slot.file_bytes = slot.file_bytes.max(slot.used);
        }
        let used: BTreeSet<_> = live.iter().map(|slot| slot.number).collect();
        let free = self.segments.iter().filter(|(number, _)| !used.contains(number));
        let free = free.map(|(number, len)| (*number, len / BLOCK_BYTES * BLOCK_BYTES)).collect();
        Position { next: self.next.max(as_of.next()), previous: self.last, live, free }
    }
}

/// Brings the log back: checks it, cuts a torn tail, and hands every record above what is covered (`Old::covered`) to
/// `replay` in order.
///
/// The log goes on above `as_of`: with `durability = "os"` a power cut may take records that the synced old
/// generation has seen, and a new record under such a sequence would be taken for one of them.
///
/// Before the first record is replayed, all that is replayed is synced, nothing that was cut can come back, and every
/// file that is there, also an empty one, has a name that stays.
///
/// # Errors
/// The log is left as it was unless the error is of I/O.
pub fn recover(
    files: &mut dyn SegmentDirectory,
    log: LogId,
    covered: impl Into<Covered>,
    replay: &mut dyn FnMut(Sequence, Record),
) -> Result<Recovered, RecoverError> {
    let covered: Covered = covered.into();
    let survey = survey(files, log, covered.upto)?;
    if let Some(damage) = survey.damage() {
        return Err(damage);
    }
    cut(files, &survey)?;
    files.sync_names()?;
    let records = replay_chain(files, &survey, covered.upto, replay)?;
    Ok(Recovered { position: survey.position(covered.as_of), records, torn: survey.torn_tail() })
}

/// Zeroes what is torn, and syncs all segments that hold the chain: a process that was killed may have
/// written them without the sync.
fn cut(files: &mut dyn SegmentDirectory, survey: &Survey) -> io::Result<()> {
    let mut changed: BTreeSet<_> = survey.chain.iter().map(|commit| commit.segment).collect();
    for torn in &survey.torn {
        files.write(torn.segment, torn.found.offset, &[0; HEADER_BYTES])?;
        changed.insert(torn.segment);
    }
    changed.into_iter().try_for_each(|segment| files.sync(segment))
}

fn replay_chain(
    files: &dyn SegmentDirectory,
    survey: &Survey,
    covered: Sequence,
    replay: &mut dyn FnMut(Sequence, Record),
) -> Result<u64, RecoverError> {
    let mut loaded: Option<(SegmentNumber, Vec<u8>)> = None;
    let mut records = 0;
    for commit in &survey.chain {
        if loaded.as_ref().is_none_or(|(number, _)| *number != commit.segment) {
            loaded = Some((commit.segment, files.read(commit.segment)?));
        }
        let bytes = loaded.as_ref().map(|(_, bytes)| bytes.as_slice()).expect("loaded above");
        for_each_record(bytes, commit, &mut |sequence, record| {
            if sequence > covered {
                replay(sequence, record);
                records += 1;
            }
        })?;
    }
    Ok(records)
}

/// Decodes the records of a commit that the survey found valid in these bytes.
pub(super) fn for_each_record(
    segment: &[u8],
    commit: &Located,
    then: &mut dyn FnMut(Sequence, Record),
) -> Result<(), RecoverError> {
    let header = &commit.found.header;
    let (segment_number, offset) = (commit.segment, commit.found.offset);
    let mut sequence = header.first;
    let fail = |sequence: Sequence, error| RecoverError::Record {
        segment: segment_number,
        offset,
        sequence: sequence.0,
        error,
    };
    let start = usize::try_from(offset).ok();
    let len = usize::try_from(header.commit_bytes()).ok();
    let commit = start.zip(len).and_then(|(start, len)| segment.get(start..)?.get(HEADER_BYTES..len));
    let mut body = commit.ok_or(fail(sequence, RecordError::Truncated))?;
    for _ in 0..header.records {
        let record = decode(&mut body).map_err(|error| fail(sequence, error))?;
        then(sequence, record);
        sequence = sequence.next();
    }
    if body.is_empty() { Ok(()) } else { Err(fail(sequence, RecordError::Invalid("bytes behind the last record"))) }
}
