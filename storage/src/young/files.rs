//! The seam to the segment files of one log.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::SegmentNumber;

/// The segment files of one log. Bytes written are safe once `sync` of their segment has returned.
pub trait SegmentDirectory {
    /// All segments, in any order.
    fn list(&self) -> io::Result<Vec<SegmentNumber>>;
    /// All bytes of a segment, its preallocated rest included.
    fn read(&self, segment: SegmentNumber) -> io::Result<Vec<u8>>;
    /// Makes the segment if there is none, at least `bytes` long, the new part zero, and syncs it and the directory.
    fn prepare(&mut self, segment: SegmentNumber, bytes: u64) -> io::Result<()>;
    /// Writes within the segment's length.
    fn write(&mut self, segment: SegmentNumber, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes all that was written to the segment safe.
    fn sync(&mut self, segment: SegmentNumber) -> io::Result<()>;
    /// Makes the names of all segments safe. A process that was killed within [`Self::prepare`] may have left a file
    /// that is whole, but whose name a power cut would take, and with it every commit written to it afterwards.
    fn sync_names(&mut self) -> io::Result<()>;
    /// Deletes the segment.
    fn remove(&mut self, segment: SegmentNumber) -> io::Result<()>;
}

/// A directory of the file system, by plain blocking calls.
#[derive(Debug)]
pub struct FileDirectory {
    path: PathBuf,
    /// The segment last written to: appends hit it again and again.
    open: Option<(SegmentNumber, File)>,
}

impl FileDirectory {
    /// The directory at `path`, which must exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), open: None }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn segment_path(&self, segment: SegmentNumber) -> PathBuf {
        self.path.join(segment.file_name())
    }

    fn file(&mut self, segment: SegmentNumber) -> io::Result<&File> {
        if self.open.as_ref().is_none_or(|(number, _)| *number != segment) {
            let file = OpenOptions::new().read(true).write(true).open(self.segment_path(segment))?;
            self.open = Some((segment, file));
        }
        Ok(&self.open.as_ref().expect("opened above").1)
    }
}

impl SegmentDirectory for FileDirectory {
    fn list(&self) -> io::Result<Vec<SegmentNumber>> {
        let mut segments = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            segments.extend(entry?.file_name().to_str().and_then(SegmentNumber::from_file_name));
        }
        segments.sort_unstable();
        Ok(segments)
    }

    fn read(&self, segment: SegmentNumber) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(self.segment_path(segment))?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn prepare(&mut self, segment: SegmentNumber, bytes: u64) -> io::Result<()> {
        self.open = None;
        let path = self.segment_path(segment);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        let len = file.metadata()?.len();
        // Real zeros, not a hole: an append must not have to allocate, and its fdatasync no metadata to write.
        let zeros = vec![0; 1 << 20];
        let mut at = len;
        while at < bytes {
            let chunk = usize::try_from(bytes - at).unwrap_or(usize::MAX).min(zeros.len());
            file.write_all_at(&zeros[..chunk], at)?;
            at += chunk as u64;
        }
        file.sync_all()?;
        crate::space::sync_directory(&self.path)
    }

    fn write(&mut self, segment: SegmentNumber, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file(segment)?.write_all_at(bytes, offset)
    }

    fn sync(&mut self, segment: SegmentNumber) -> io::Result<()> {
        self.file(segment)?.sync_data()
    }

    fn sync_names(&mut self) -> io::Result<()> {
        crate::space::sync_directory(&self.path)
    }

    fn remove(&mut self, segment: SegmentNumber) -> io::Result<()> {
        self.open = None;
        std::fs::remove_file(self.segment_path(segment))
    }
}
