//! Carries commits to the disk, one at a time: which file is open, what is on its way, how long it takes.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use postroad_storage::young::{Commit, SegmentNumber};

use super::ring::CommitRing;

/// See the module head.
pub(crate) struct Carrier {
    /// Where the segments are.
    directory: PathBuf,
    /// Whether commits are synced (`durability = "fsync"`).
    syncs: bool,
    ring: CommitRing,
    open: Option<(SegmentNumber, File)>,
    under_way: Option<(Commit, Instant)>,
}

/// A commit that is as safe as `durability` asks.
pub(super) struct Carried {
    pub(super) commit: Commit,
    /// From the beginning of its write.
    pub(super) micros: u64,
}

impl Carrier {
    /// On the shard's own thread.
    ///
    /// # Errors
    /// When the kernel gives no ring.
    pub(crate) fn new(directory: PathBuf, syncs: bool) -> io::Result<Self> {
        let ring =
            CommitRing::new().map_err(|error| io::Error::new(error.kind(), format!("the log's io_uring: {error}")))?;
        Ok(Self { directory, syncs, ring, open: None, under_way: None })
    }

    /// Begins to write a commit whose file is there and long enough. Returns the file that was open before, if another one
    /// is now.
    ///
    /// # Errors
    /// As the file system says.
    pub(super) fn begin(&mut self, commit: Commit) -> io::Result<Option<File>> {
        crate::fault::point("commit-before");
        let segment = commit.segment;
        self.write(commit).map_err(|error| in_segment(segment, &error))
    }

    fn write(&mut self, commit: Commit) -> io::Result<Option<File>> {
        crate::fault::disk("write-fails")?;
        let mut before = None;
        if self.open.as_ref().is_none_or(|(open, _)| *open != commit.segment) {
            let opened = open(&self.directory.join(commit.segment.file_name()))?;
            before = self.open.replace((commit.segment, opened)).map(|(_, file)| file);
        }
        let (_, file) = self.open.as_ref().expect("opened above");
        let begun = Instant::now();
        self.ring.begin(file, &commit.bytes, commit.offset, self.syncs)?;
        self.under_way = Some((commit, begun));
        Ok(before)
    }

    /// The commit that has reached the disk meanwhile, if it has.
    ///
    /// # Errors
    /// When its write or sync has failed.
    pub(super) fn finished(&mut self) -> io::Result<Option<Carried>> {
        let Some(outcome) = self.ring.reap() else { return Ok(None) };
        let Some((commit, begun)) = self.under_way.take() else { return outcome.map(|()| None) };
        outcome.and_then(|()| self.synced()).map_err(|error| in_segment(commit.segment, &error))?;
        crate::fault::point("commit-after");
        let micros = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        Ok(Some(Carried { commit, micros }))
    }

    /// A sync that a test makes fail.
    fn synced(&self) -> io::Result<()> {
        if self.syncs { crate::fault::disk("fsync-fails") } else { Ok(()) }
    }

    /// Readable when [`Self::finished`] may have something.
    pub(crate) fn descriptor(&self) -> impl AsFd {
        &self.ring
    }
}

/// An error with the name of the segment that it is about.
pub(super) fn in_segment(segment: SegmentNumber, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("segment {}: {error}", segment.file_name()))
}

/// Direct I/O where the file system has it, the page cache where not (tmpfs, some overlays).
fn open(path: &Path) -> io::Result<File> {
    let options = || {
        let mut options = File::options();
        options.read(true).write(true);
        options
    };
    match options().custom_flags(libc::O_DIRECT).open(path) {
        Err(direct) if direct.raw_os_error() == Some(libc::EINVAL) => {
            let file = options().open(path)?;
            tracing::warn!(
                path = %path.display(), error = %direct,
                "direct I/O is refused here: the log goes through the page cache, which is slower"
            );
            Ok(file)
        }
        outcome => outcome,
    }
}
