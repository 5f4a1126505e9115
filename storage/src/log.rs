//! A whole log behind one trait: append, commit, know what is safe. For the simulator, the tests and the command
//! line; `engine` drives [`Writer`] itself, by io_uring.

mod faulty;
mod memory;

use std::io;

use base::{Record, Sequence};
use postroad_base as base;

use crate::old::Covered;
use crate::young::{
    FileDirectory, LogId, RecoverError, Recovered, Retired, SegmentDirectory, SegmentNumber, Writer, WriterConfig,
    recover,
};

pub use faulty::{Damage, FaultyDirectory};
pub use memory::{MemoryDirectory, MemoryLog};

/// What "safe" means when `commit` returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// On the disk: `durability = "fsync"`.
    Data,
    /// With the operating system: `durability = "os"`.
    Never,
}

/// The log of one shard.
pub trait Log {
    /// Gathers a record; it is safe once a `commit` that began afterwards has returned.
    fn append(&mut self, record: &Record) -> Sequence;
    /// Makes everything appended safe and says up to where that is.
    ///
    /// # Errors
    /// After an error the log is poisoned: it must not be used again, since what the disk holds is unknown.
    fn commit(&mut self) -> io::Result<Sequence>;
    /// The last record appended.
    fn last_sequence(&self) -> Sequence;
}

/// A log in segment files: the real one over [`FileDirectory`], a faulty one over [`FaultyDirectory`].
#[derive(Debug)]
pub struct SegmentLog<D> {
    writer: Writer,
    files: D,
    sync: Sync,
    safe: Sequence,
    poisoned: bool,
}

/// The real log: files, plain calls, fdatasync.
pub type FileLog = SegmentLog<FileDirectory>;

impl<D: SegmentDirectory> SegmentLog<D> {
    /// Recovers what is there and goes on behind it.
    ///
    /// # Errors
    /// As [`recover`].
    pub fn open(
        mut files: D,
        config: WriterConfig,
        covered: impl Into<Covered>,
        sync: Sync,
        replay: &mut dyn FnMut(Sequence, Record),
    ) -> Result<(Self, Recovered), RecoverError> {
        let recovered = recover(&mut files, config.log, covered, replay)?;
        let writer = Writer::new(config, recovered.position.clone());
        let safe = writer.last_sequence();
        Ok((Self { writer, files, sync, safe, poisoned: false }, recovered))
    }

    /// The oldest segment that can be retired, and its last record.
    pub fn oldest(&self) -> Option<(SegmentNumber, Sequence)> {
        self.writer.oldest_segment_last_sequence()
    }

    /// The segment is covered by the old generation.
    ///
    /// # Errors
    /// If its file can't be deleted.
    pub fn retire(&mut self, segment: SegmentNumber) -> io::Result<()> {
        match self.writer.retire(segment) {
            Retired::Recycled => Ok(()),
            Retired::Remove => self.files.remove(segment),
        }
    }

    /// The writer, for what it knows.
    pub fn writer(&mut self) -> &mut Writer {
        &mut self.writer
    }

    /// Gives the files back.
    pub fn into_files(self) -> D {
        self.files
    }

    fn commit_all(&mut self) -> io::Result<()> {
        while let Some(commit) = self.writer.begin_commit() {
            if commit.new_segment {
                self.files.prepare(commit.segment, commit.file_bytes)?;
            }
            self.files.write(commit.segment, commit.offset, &commit.bytes)?;
            if self.sync == Sync::Data {
                self.files.sync(commit.segment)?;
            }
            self.safe = commit.last;
            self.writer.finish_commit(commit);
        }
        Ok(())
    }
}

impl<D: SegmentDirectory> Log for SegmentLog<D> {
    fn append(&mut self, record: &Record) -> Sequence {
        self.writer.append(record)
    }

    fn commit(&mut self) -> io::Result<Sequence> {
        if self.poisoned {
            return Err(io::Error::other("the log is poisoned by an earlier error"));
        }
        if let Err(error) = self.commit_all() {
            self.poisoned = true;
            return Err(error);
        }
        Ok(self.safe)
    }

    fn last_sequence(&self) -> Sequence {
        self.writer.last_sequence()
    }
}

/// The log of shard `log` in the directory at `path`.
///
/// # Errors
/// As [`recover`].
pub fn open_files(
    path: &std::path::Path,
    log: LogId,
    covered: Covered,
    replay: &mut dyn FnMut(Sequence, Record),
) -> Result<(FileLog, Recovered), RecoverError> {
    let config = WriterConfig::new(log, 8 << 20, 64 << 20);
    SegmentLog::open(FileDirectory::new(path), config, covered, Sync::Data, replay)
}
