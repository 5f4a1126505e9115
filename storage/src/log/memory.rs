//! Logs without a disk.

use std::collections::BTreeMap;
use std::io;

use base::{Record, Sequence};
use postroad_base as base;

use super::Log;
use crate::young::{SegmentDirectory, SegmentNumber};

/// `durability = "memory"`: counts, keeps nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryLog {
    last: Sequence,
}

impl Log for MemoryLog {
    fn append(&mut self, _record: &Record) -> Sequence {
        self.last = self.last.next();
        self.last
    }

    fn commit(&mut self) -> io::Result<Sequence> {
        Ok(self.last)
    }

    fn last_sequence(&self) -> Sequence {
        self.last
    }
}

/// Segment files in memory, safe as soon as they are written.
#[derive(Clone, Debug, Default)]
pub struct MemoryDirectory {
    /// The bytes of each file.
    pub files: BTreeMap<SegmentNumber, Vec<u8>>,
}

impl MemoryDirectory {
    fn file(&self, segment: SegmentNumber) -> io::Result<&Vec<u8>> {
        self.files.get(&segment).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl SegmentDirectory for MemoryDirectory {
    fn list(&self) -> io::Result<Vec<SegmentNumber>> {
        Ok(self.files.keys().copied().collect())
    }

    fn read(&self, segment: SegmentNumber) -> io::Result<Vec<u8>> {
        self.file(segment).cloned()
    }

    fn prepare(&mut self, segment: SegmentNumber, bytes: u64) -> io::Result<()> {
        let file = self.files.entry(segment).or_default();
        let len = usize::try_from(bytes).map_err(io::Error::other)?;
        file.resize(len.max(file.len()), 0);
        Ok(())
    }

    fn write(&mut self, segment: SegmentNumber, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let offset = usize::try_from(offset).map_err(io::Error::other)?;
        let file = self.files.get_mut(&segment).ok_or(io::ErrorKind::NotFound)?;
        let place = file.get_mut(offset..).and_then(|rest| rest.get_mut(..bytes.len()));
        place.ok_or_else(|| io::Error::other("write behind the end of a segment"))?.copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self, segment: SegmentNumber) -> io::Result<()> {
        self.file(segment).map(|_| ())
    }

    fn sync_names(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn remove(&mut self, segment: SegmentNumber) -> io::Result<()> {
        self.files.remove(&segment).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}
