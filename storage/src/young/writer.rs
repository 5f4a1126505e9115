//! Decides where bytes go. Does no I/O: `engine` writes each [`Commit`] and reports it finished.
//!
//! ```text
//! append ─► gathering ─(begin_commit)─► in flight ─(finish_commit)─► in its segment
//!              ▲ goes on meanwhile
//! slots:  free ─► active ─► sealed ─(retire)─► free | removed
//! ```

use std::collections::{BTreeMap, VecDeque};

use base::{Record, Sequence};
use postroad_base as base;

use super::commit::{HEADER_BYTES, Header};
use super::{BLOCK_BYTES, FORMAT_VERSION, LogId, SegmentNumber, padded};
use crate::record;

/// A buffer larger than this is not kept for reuse.
const SPARE_BYTES_MAX: usize = 4 << 20;

/// How a [`Writer`] lays out its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterConfig {
    /// Which log the commits belong to.
    pub log: LogId,
    /// Length of a segment file; a multiple of [`BLOCK_BYTES`].
    pub segment_bytes: u64,
    /// Largest body of a commit, unless a single record is larger. Bounds what one write carries.
    pub commit_bytes_max: usize,
    /// Retired segments kept for reuse; more are removed.
    pub free_segments_max: usize,
}

/// Files that are ready to be written before they are needed: one that the next commit may begin, and one that is
/// being made meanwhile. Making one takes as long as writing it, so one is enough; the second is for a burst.
const SPARE_SEGMENTS: usize = 2;

impl WriterConfig {
    /// Segments of `segment_bytes`, about `young_bytes` in all.
    pub fn new(log: LogId, segment_bytes: u64, young_bytes: u64) -> Self {
        let segment_bytes = padded(segment_bytes.max(BLOCK_BYTES));
        Self {
            log,
            segment_bytes,
            commit_bytes_max: usize::try_from(segment_bytes / 4).unwrap_or(usize::MAX).min(1 << 20),
            free_segments_max: usize::try_from(young_bytes / segment_bytes).unwrap_or(usize::MAX).saturating_add(1),
        }
    }
}

/// Where a log goes on: what recovery found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    pub(super) next: Sequence,
    /// Last sequence that a commit holds.
    pub(super) previous: Sequence,
    /// In order of sequence; the last one goes on at `used`.
    pub(super) live: Vec<Slot>,
    /// Number and length of the others.
    pub(super) free: Vec<(SegmentNumber, u64)>,
}

impl Position {
    /// An empty log whose first record gets `next`, which is at least 1.
    pub fn fresh(next: Sequence) -> Self {
        Self { next, previous: Sequence(next.0.saturating_sub(1)), live: Vec::new(), free: Vec::new() }
    }

    /// The sequence that the next record gets.
    pub fn next(&self) -> Sequence {
        self.next
    }
}

/// A segment in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) number: SegmentNumber,
    /// Length of the file.
    pub(super) file_bytes: u64,
    /// Bytes from offset 0 that commits take.
    pub(super) used: u64,
    /// Sequence of the last record in it.
    pub(super) last: Sequence,
}

/// Bytes to write, and where to. Give it back to [`Writer::finish_commit`] once they are as safe as `durability` asks.
#[derive(Debug, PartialEq, Eq)]
pub struct Commit {
    /// The file.
    pub segment: SegmentNumber,
    /// Where in it, a multiple of [`BLOCK_BYTES`].
    pub offset: u64,
    /// A multiple of [`BLOCK_BYTES`] long.
    pub bytes: Vec<u8>,
    /// Sequence of the last record in it.
    pub last: Sequence,
    /// The file must first be made, or made longer: `file_bytes` long, the new part zeros, synced, and its directory too.
    pub new_segment: bool,
    /// Length that the file must have.
    pub file_bytes: u64,
}

/// What to do with the file of a retired segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retired {
    /// Keep it: it will be written again.
    Recycled,
    /// Delete it.
    Remove,
}

/// A commit that is closed but not begun.
#[derive(Debug)]
struct Closed {
    /// Header space and body.
    bytes: Vec<u8>,
    first: Sequence,
    records: u32,
}

/// The writing side of one shard's young generation.
#[derive(Debug)]
pub struct Writer {
    config: WriterConfig,
    next: Sequence,
    /// Last sequence of the last commit begun.
    previous: Sequence,
    /// Commits that are full, in order, in front of `gathering`.
    closed: VecDeque<Closed>,
    gathering: Closed,
    /// Last sequence of the commit that is being written.
    in_flight: Option<Sequence>,
    /// In order of sequence; the last one is written to, unless `sealed`.
    live: VecDeque<Slot>,
    sealed: bool,
    free: BTreeMap<SegmentNumber, u64>,
    /// The file that somebody makes ready at the moment.
    preparing: Option<SegmentNumber>,
    number_next: u32,
    spare: Vec<u8>,
}

impl Writer {
    /// Goes on where recovery says.
    ///
    /// # Panics
    /// If `segment_bytes` is 0 or no multiple of [`BLOCK_BYTES`].
    pub fn new(config: WriterConfig, position: Position) -> Self {
        assert!(config.segment_bytes > 0 && config.segment_bytes.is_multiple_of(BLOCK_BYTES), "whole blocks only");
        let numbers = position.live.iter().map(|slot| slot.number).chain(position.free.iter().map(|free| free.0));
        Self {
            config,
            next: position.next,
            previous: position.previous,
            closed: VecDeque::new(),
            number_next: numbers.map(|number| number.0 + 1).max().unwrap_or(0),
            gathering: Closed::empty(Vec::new(), position.next),
            in_flight: None,
            live: position.live.into(),
            sealed: false,
            free: position.free.into_iter().collect(),
            preparing: None,
            spare: Vec::new(),
        }
    }

    /// Gathers the record into the open commit and says where in the log it stands. Nothing is safe yet.
    pub fn append(&mut self, record: &Record) -> Sequence {
        let sequence = self.next;
        let before = self.gathering.bytes.len();
        record::encode(record, &mut self.gathering.bytes);
        let body = self.gathering.bytes.len() - HEADER_BYTES;
        if self.gathering.records > 0 && body > self.config.commit_bytes_max {
            self.close_before(before);
        }
        self.gathering.records += 1;
        self.next = sequence.next();
        sequence
    }

    /// Closes the open commit at `len`; what stands behind begins the next one.
    fn close_before(&mut self, len: usize) {
        let mut next = Closed::empty(std::mem::take(&mut self.spare), self.next);
        next.bytes.extend_from_slice(&self.gathering.bytes[len..]);
        self.gathering.bytes.truncate(len);
        self.closed.push_back(std::mem::replace(&mut self.gathering, next));
    }

    /// Bytes of records that no commit has taken yet.
    pub fn pending_bytes(&self) -> usize {
        let closed: usize = self.closed.iter().map(Closed::body_bytes).sum();
        closed + self.gathering.body_bytes()
    }

    /// Whether every record appended stands in a commit that is finished.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_none() && !self.has_pending()
    }

    /// Whether there are records that no commit has taken yet.
    pub fn has_pending(&self) -> bool {
        self.gathering.records > 0 || !self.closed.is_empty()
    }

    /// Sequence of the last record appended (`next - 1`; 0 in a log that never had one).
    pub fn last_sequence(&self) -> Sequence {
        Sequence(self.next.0.saturating_sub(1))
    }

    /// Takes what is gathered; while it is being written, the next gathers. `None` if nothing is pending, or
    /// while a commit is in flight: the next one must not reach the disk before it (module head of `young`).
    pub fn begin_commit(&mut self) -> Option<Commit> {
        if self.in_flight.is_some() || !self.has_pending() {
            return None;
        }
        let mut taken = match self.closed.pop_front() {
            Some(closed) => closed,
            None => {
                let next = Closed::empty(std::mem::take(&mut self.spare), self.next);
                std::mem::replace(&mut self.gathering, next)
            }
        };
        let header = self.header(&taken);
        header.seal(&mut taken.bytes);
        let bytes = padded(taken.bytes.len() as u64);
        taken.bytes.resize(usize::try_from(bytes).expect("a commit has less than 4 GiB"), 0);
        let last = header.last().expect("a commit holds a record");
        self.in_flight = Some(last);
        self.previous = last;
        Some(self.place(taken.bytes, last))
    }

    fn header(&self, closed: &Closed) -> Header {
        Header {
            version: FORMAT_VERSION,
            epoch: 0,
            log: self.config.log,
            first: closed.first,
            records: closed.records,
            previous: self.previous,
            body_bytes: u32::try_from(closed.body_bytes()).expect("a record has less than 4 GiB: packets have 256 MiB"),
        }
    }

    /// Finds room for a commit and accounts for it.
    fn place(&mut self, bytes: Vec<u8>, last: Sequence) -> Commit {
        let len = bytes.len() as u64;
        let has_room = !self.sealed && self.live.back().is_some_and(|slot| slot.file_bytes - slot.used >= len);
        let new_segment = !has_room && self.open_segment(len);
        let slot = self.live.back_mut().expect("a segment is open");
        let offset = slot.used;
        slot.used += len;
        slot.last = last;
        Commit { segment: slot.number, offset, bytes, last, new_segment, file_bytes: slot.file_bytes }
    }

    /// Makes a segment with room for `len` the active one; whether its file must first be made or grow.
    fn open_segment(&mut self, len: u64) -> bool {
        let needed = len.max(self.config.segment_bytes);
        let fitting = self.free.iter().find(|(_, bytes)| **bytes >= needed).map(|(number, _)| *number);
        let free = fitting.or_else(|| self.free.keys().next().copied());
        let (number, file_bytes) = match free.and_then(|number| self.free.remove_entry(&number)) {
            Some(free) => free,
            None => (self.new_number(), 0),
        };
        self.live.push_back(Slot { number, file_bytes: file_bytes.max(needed), used: 0, last: Sequence(0) });
        self.sealed = false;
        file_bytes < needed
    }

    fn new_number(&mut self) -> SegmentNumber {
        let number = SegmentNumber(self.number_next);
        self.number_next += 1;
        number
    }

    /// A file to make ready ahead of need, so that no commit has to wait for it: its number, and the length for
    /// [`super::SegmentDirectory::prepare`]. Tell [`Self::spare_ready`] when that is done; until then there is no other.
    pub fn spare_wanted(&mut self) -> Option<(SegmentNumber, u64)> {
        let bytes = self.config.segment_bytes;
        let ready = self.free.values().filter(|len| **len >= bytes).count();
        if self.preparing.is_some() || ready >= SPARE_SEGMENTS {
            return None;
        }
        // One that a killed process left half made, or a new one.
        let short = self.free.iter().find(|(_, len)| **len < bytes).map(|(number, _)| *number);
        let number = match short {
            Some(number) => {
                self.free.remove(&number);
                number
            }
            None => self.new_number(),
        };
        self.preparing = Some(number);
        Some((number, bytes))
    }

    /// The file that [`Self::spare_wanted`] named is made, synced, and has a name in the directory.
    ///
    /// # Panics
    /// If it is not that one.
    pub fn spare_ready(&mut self, segment: SegmentNumber) {
        assert_eq!(self.preparing.take(), Some(segment), "a file was made that nobody asked for");
        self.free.insert(segment, self.config.segment_bytes);
    }

    /// That file could not be made. It may be half made, and is wanted again later.
    ///
    /// # Panics
    /// If it is not that one.
    pub fn spare_failed(&mut self, segment: SegmentNumber) {
        assert_eq!(self.preparing.take(), Some(segment), "nobody asked for that file");
        self.free.insert(segment, 0);
    }

    /// Whether the next commit finds a file that it can be written to at once, unless it is larger than a segment.
    pub fn has_room(&self) -> bool {
        let active = !self.sealed && self.live.back().is_some_and(|slot| slot.used < slot.file_bytes);
        active || self.free.values().any(|len| *len >= self.config.segment_bytes)
    }

    /// The commit is as safe as `durability` asks; its buffer is used again.
    ///
    /// # Panics
    /// If it is not the commit in flight.
    pub fn finish_commit(&mut self, commit: Commit) {
        assert_eq!(self.in_flight.take(), Some(commit.last), "finished a commit that was not begun");
        if commit.bytes.capacity() <= SPARE_BYTES_MAX {
            self.spare = commit.bytes;
        }
    }

    /// Bytes of commits in segments that are not retired.
    pub fn window_bytes(&self) -> u64 {
        self.live.iter().map(|slot| slot.used).sum()
    }

    /// Closes the active segment, so that it can be retired although it is not full (`log.young_age`).
    pub fn seal(&mut self) {
        self.sealed = !self.live.is_empty();
    }

    /// The oldest segment that no commit goes to any more, and the last record in it: what a retirement covers.
    pub fn oldest_segment_last_sequence(&self) -> Option<(SegmentNumber, Sequence)> {
        self.closed_segments().next().map(|(number, last, _)| (number, last))
    }

    /// The segments in use, oldest first; the last one may still be written to.
    pub fn segments(&self) -> impl Iterator<Item = SegmentNumber> {
        self.live.iter().map(|slot| slot.number)
    }

    /// The segments that no commit goes to any more, oldest first: number, last record, bytes of commits.
    pub fn closed_segments(&self) -> impl Iterator<Item = (SegmentNumber, Sequence, u64)> {
        let all = self.sealed && self.in_flight.is_none();
        let count = if all { self.live.len() } else { self.live.len().saturating_sub(1) };
        self.live.iter().take(count).map(|slot| (slot.number, slot.last, slot.used))
    }

    /// The old generation covers the segment: it may be written again. What to do with its file.
    ///
    /// # Panics
    /// If it is not the one that [`Self::oldest_segment_last_sequence`] names.
    pub fn retire(&mut self, segment: SegmentNumber) -> Retired {
        let oldest = self.oldest_segment_last_sequence().map(|(number, _)| number);
        assert_eq!(oldest, Some(segment), "segments are retired in order, and never the active one");
        let slot = self.live.pop_front().expect("there is an oldest segment");
        if slot.file_bytes == self.config.segment_bytes && self.free.len() < self.config.free_segments_max {
            self.free.insert(slot.number, slot.file_bytes);
            return Retired::Recycled;
        }
        Retired::Remove
    }
}

impl Closed {
    /// Reuses the room of `buffer`.
    fn empty(mut buffer: Vec<u8>, first: Sequence) -> Self {
        buffer.clear();
        buffer.resize(HEADER_BYTES, 0);
        Self { bytes: buffer, first, records: 0 }
    }

    fn body_bytes(&self) -> usize {
        self.bytes.len() - HEADER_BYTES
    }
}
