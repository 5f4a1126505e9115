//! The task that writes commits: one per shard, one commit at a time.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::task::Poll;
use std::time::Instant;

use glommio::io::{BufferedFile, DmaFile, OpenOptions};
use postroad_storage::young::{Commit, FileDirectory, SegmentDirectory, SegmentNumber};

use crate::shard::Shard;

/// Writes commits until the shard stops.
pub(crate) async fn run(shard: Rc<RefCell<Shard>>, directory: PathBuf, syncs: bool) {
    let mut segments = Segments { directory, syncs, open: None };
    while let Some(commit) = next_commit(&shard).await {
        crate::fault::point("commit-before");
        let begin = Instant::now();
        let written = segments.write(&commit).await;
        let micros = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
        crate::fault::point("commit-after");
        match written {
            Ok(()) => shard.borrow_mut().outside_turn(|shard| shard.committed(commit, micros)),
            Err(error) => {
                let name = commit.segment.file_name();
                return shard.borrow_mut().outside_turn(|shard| shard.poison(format!("segment {name}: {error}")));
            }
        }
    }
    segments.close().await;
}

async fn next_commit(shard: &Rc<RefCell<Shard>>) -> Option<Commit> {
    poll_fn(|context| match shard.borrow_mut().next_commit(context.waker()) {
        Ok(Some(commit)) => Poll::Ready(Some(commit)),
        Ok(None) => Poll::Pending,
        Err(_stopped) => Poll::Ready(None),
    })
    .await
}

struct Segments {
    directory: PathBuf,
    syncs: bool,
    open: Option<(SegmentNumber, Segment)>,
}

/// An open segment. Direct I/O where the file system has it, the page cache where not (tmpfs, some overlays).
///
/// One O_DSYNC write instead of write and fdatasync was measured and is slower through io_uring on a busy machine (a
/// commit took 0.75 instead of 0.33 ms), though not by plain calls: its end waits for a kernel worker of no priority.
enum Segment {
    Direct(DmaFile),
    Buffered(BufferedFile),
}

impl Segments {
    async fn write(&mut self, commit: &Commit) -> io::Result<()> {
        if commit.new_segment {
            self.close().await;
            self.prepare(commit).await?;
        }
        crate::fault::disk("write-fails")?;
        let syncs = self.syncs;
        let segment = self.segment(commit.segment).await?;
        segment.write(&commit.bytes, commit.offset).await?;
        if syncs {
            crate::fault::disk("fsync-fails")?;
            segment.sync().await?;
        }
        Ok(())
    }

    /// Making a file and filling it with zeros blocks: not on this core.
    async fn prepare(&self, commit: &Commit) -> io::Result<()> {
        let (directory, segment, bytes) = (self.directory.clone(), commit.segment, commit.file_bytes);
        let make = move || {
            crate::fault::planted("panic-prepare", b"");
            FileDirectory::new(directory).prepare(segment, bytes)
        };
        glommio::executor().spawn_blocking(make).await
    }

    async fn segment(&mut self, number: SegmentNumber) -> io::Result<&Segment> {
        if self.open.as_ref().is_none_or(|(open, _)| *open != number) {
            self.close().await;
            let segment = Segment::open(&self.directory.join(number.file_name())).await?;
            self.open = Some((number, segment));
        }
        Ok(&self.open.as_ref().expect("opened above").1)
    }

    async fn close(&mut self) {
        let closed = match self.open.take() {
            Some((_, Segment::Direct(file))) => file.close().await,
            Some((_, Segment::Buffered(file))) => file.close().await,
            None => Ok(()),
        };
        if let Err(error) = closed {
            // Everything in it was synced before: nothing is lost by a close that fails.
            tracing::warn!(%error, "closing a segment");
        }
    }
}

impl Segment {
    async fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        match options.dma_open(path).await {
            Ok(file) => Ok(Self::Direct(file)),
            Err(direct) => {
                let file = options.buffered_open(path).await?;
                tracing::warn!(
                    path = %path.display(), error = %direct,
                    "direct I/O is refused here: the log goes through the page cache, which is slower"
                );
                Ok(Self::Buffered(file))
            }
        }
    }

    async fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let written = match self {
            Self::Direct(file) => {
                let mut buffer = file.alloc_dma_buffer(bytes.len());
                buffer.as_bytes_mut()[..bytes.len()].copy_from_slice(bytes);
                file.write_at(buffer, offset).await?
            }
            Self::Buffered(file) => file.write_at(bytes.to_vec(), offset).await?,
        };
        if written < bytes.len() {
            return Err(io::Error::other(format!("{written} of {} bytes written", bytes.len())));
        }
        Ok(())
    }

    async fn sync(&self) -> io::Result<()> {
        match self {
            Self::Direct(file) => file.fdatasync().await?,
            Self::Buffered(file) => file.fdatasync().await?,
        }
        Ok(())
    }
}
