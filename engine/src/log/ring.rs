//! An io_uring for one commit at a time: a write and, linked behind it, a fdatasync, by one system call.
//!
//! The ring's descriptor is readable when there is something to [`CommitRing::reap`], so the shard waits for it as for its
//! sockets. What the kernel has to do in the shard's name, such as beginning the sync when the write has ended, it does at
//! the shard's next system call and not by an interrupt (`COOP_TASKRUN`); a shard that waits is woken for it. Deferring
//! even that (`DEFER_TASKRUN`) is not for us: such a ring does not wake who waits for its descriptor.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use io_uring::{IoUring, opcode, squeue, types};

/// The write and the sync.
const ENTRIES: u32 = 2;
const WRITE: u64 = 0;
const SYNC: u64 = 1;
/// `IORING_ENTER_GETEVENTS` of `io_uring_enter`.
const ENTER_GETEVENTS: u32 = 1;
/// What direct I/O wants memory to be aligned to, on every disk that we know.
const ALIGNMENT: usize = 4096;
/// Room that is kept for the next commit; a larger one's is given back.
const MEMORY_KEPT_MAX: usize = 4 << 20;

/// See the module head.
pub(super) struct CommitRing {
    ring: IoUring,
    /// What is written, and room to align it.
    memory: Vec<u8>,
    under_way: Option<UnderWay>,
}

struct UnderWay {
    bytes: usize,
    /// What has not ended.
    writes: bool,
    syncs: bool,
    failure: Option<io::Error>,
}

/// Whether the kernel gives such a ring.
///
/// # Errors
/// Its reason if not.
pub(crate) fn probe() -> io::Result<()> {
    CommitRing::new().map(drop)
}

impl CommitRing {
    /// To be called, as everything else here, by the shard's own thread.
    ///
    /// # Errors
    /// When the kernel gives no ring.
    pub(super) fn new() -> io::Result<Self> {
        let ring = IoUring::builder().setup_single_issuer().setup_coop_taskrun().build(ENTRIES)?;
        Ok(Self { ring, memory: Vec::new(), under_way: None })
    }

    /// Begins to write `bytes` to `file`, and to sync it behind that if `syncs`. `file` must stay open until
    /// [`Self::reap`] has told the end.
    ///
    /// # Errors
    /// When the kernel does not take it. Nothing more is to be begun then.
    ///
    /// # Panics
    /// If something is under way.
    pub(super) fn begin(&mut self, file: &File, bytes: &[u8], offset: u64, syncs: bool) -> io::Result<()> {
        assert!(self.under_way.is_none(), "one commit at a time");
        let at = self.fill(bytes);
        let file = types::Fd(file.as_raw_fd());
        let len = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        let write = opcode::Write::new(file, self.memory[at..].as_ptr(), len).offset(offset).build().user_data(WRITE);
        let sync = opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC).build().user_data(SYNC);
        let entries: &[squeue::Entry] = if syncs { &[write.flags(squeue::Flags::IO_LINK), sync] } else { &[write] };
        // SAFETY: `memory` is neither changed nor moved nor freed before all operations have ended: `fill` is reached only
        // with nothing under way, and `drop` waits. The caller keeps the file open.
        unsafe { self.ring.submission().push_multiple(entries) }.map_err(io::Error::other)?;
        let count = entries.len();
        self.under_way = Some(UnderWay { bytes: bytes.len(), writes: true, syncs, failure: None });
        self.submit(count)
    }

    /// Once: a kernel that took the write alone has unlinked the sync, which may then end before the write does.
    fn submit(&mut self, count: usize) -> io::Result<()> {
        let taken = loop {
            match self.ring.submit() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                outcome => break outcome,
            }
        };
        let taken_count = *taken.as_ref().unwrap_or(&0);
        if taken_count == count {
            return Ok(());
        }
        // What was not taken never ends. They are taken in order, the write first.
        self.under_way = self.under_way.take().filter(|_| taken_count > 0).map(|all| UnderWay { syncs: false, ..all });
        taken.and_then(|taken| Err(io::Error::other(format!("the kernel took {taken} of {count} operations"))))
    }

    /// Copies to aligned memory; returns where it begins in `memory`.
    fn fill(&mut self, bytes: &[u8]) -> usize {
        if self.memory.capacity() > MEMORY_KEPT_MAX {
            self.memory = Vec::new();
        }
        self.memory.clear();
        self.memory.reserve_exact(bytes.len() + ALIGNMENT);
        let at = self.memory.as_ptr().align_offset(ALIGNMENT);
        self.memory.resize(at, 0);
        self.memory.extend_from_slice(bytes);
        at
    }

    /// Takes in what has ended. `Some` once all of a commit has, with its outcome; after an error nothing is known of
    /// what the disk holds.
    pub(super) fn reap(&mut self) -> Option<io::Result<()>> {
        let under_way = self.under_way.as_mut()?;
        for ended in self.ring.completion() {
            match ended.user_data() {
                WRITE => under_way.writes = false,
                _ => under_way.syncs = false,
            }
            // The first failure is the reason: a sync is cancelled because the write before it has failed.
            if let Err(error) = judge(ended.user_data(), ended.result(), under_way.bytes) {
                under_way.failure.get_or_insert(error);
            }
        }
        if under_way.writes || under_way.syncs {
            return None;
        }
        self.under_way.take().map(|ended| ended.failure.map_or(Ok(()), Err))
    }

    /// Until something has ended, submitting nothing: not what the kernel has refused before.
    fn wait(&self) -> io::Result<()> {
        // SAFETY: no signal mask is passed, and nothing is submitted.
        let waited = unsafe { self.ring.submitter().enter::<libc::sigset_t>(0, 1, ENTER_GETEVENTS, None) };
        match waited {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            outcome => outcome.map(drop),
        }
    }
}

fn judge(operation: u64, result: i32, bytes: usize) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::from_raw_os_error(-result));
    }
    if operation == WRITE && result.unsigned_abs() as usize != bytes {
        return Err(io::Error::other(format!("{result} of {bytes} bytes written")));
    }
    Ok(())
}

impl AsFd for CommitRing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring is open for as long as it lives, and `self` is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }
}

/// Waits for what is under way: the kernel reads `memory` until then.
impl Drop for CommitRing {
    fn drop(&mut self) {
        while self.under_way.is_some() && self.reap().is_none() {
            if let Err(error) = self.wait() {
                tracing::error!(%error, "a ring with a commit under way can't be waited for: its memory is left to the kernel");
                std::mem::forget(std::mem::take(&mut self.memory));
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::OpenOptionsExt;

    use super::*;
    use crate::poller::Poller;

    /// Waits as the shard does.
    fn finish(ring: &mut CommitRing) -> io::Result<()> {
        let mut poller = Poller::new().expect("epoll");
        poller.add_read(&*ring, 7).expect("added");
        loop {
            if let Some(outcome) = ring.reap() {
                return outcome;
            }
            poller.wait().expect("waits");
            let mut ready = Vec::new();
            poller.collect(&mut ready).expect("collects");
            assert!(ready.iter().all(|ready| ready.token == 7 && ready.read), "{ready:?}");
        }
    }

    fn file(dir: &tempfile::TempDir, flags: i32) -> io::Result<File> {
        let mut options = File::options();
        options.create(true).truncate(false).read(true).write(true).custom_flags(flags);
        options.open(dir.path().join("f"))
    }

    /// By direct I/O where the file system of temporary files has it.
    fn direct_file(dir: &tempfile::TempDir) -> File {
        file(dir, libc::O_DIRECT).or_else(|_| file(dir, 0)).expect("made")
    }

    #[test]
    fn commits_stand_where_they_were_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = direct_file(&dir);
        let mut ring = CommitRing::new().expect("a ring");
        for (offset, syncs) in [(0, true), (8192, false), (4096, true)] {
            let byte = u8::try_from(offset / 4096 + 1).expect("small");
            ring.begin(&file, &[byte; 4096], offset, syncs).expect("taken");
            finish(&mut ring).expect("written");
        }
        let written = std::fs::read(dir.path().join("f")).expect("there");
        assert_eq!(written, [[1; 4096], [2; 4096], [3; 4096]].concat());
    }

    #[test]
    fn a_write_that_fails_is_the_reason_and_not_the_sync_that_was_cancelled() {
        let dir = tempfile::tempdir().expect("a directory");
        drop(file(&dir, 0).expect("made"));
        let read_only = File::open(dir.path().join("f")).expect("there");
        let mut ring = CommitRing::new().expect("a ring");
        ring.begin(&read_only, &[0; 4096], 0, true).expect("taken");
        let error = finish(&mut ring).expect_err("not open for writing");
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
        let file = file(&dir, 0).expect("there");
        ring.begin(&file, &[0; 4096], 0, true).expect("the ring is free again");
        finish(&mut ring).expect("written");
    }

    #[test]
    fn a_ring_that_is_dropped_has_finished() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = file(&dir, 0).expect("made");
        let mut ring = CommitRing::new().expect("a ring");
        ring.begin(&file, &vec![5; 1 << 20], 0, true).expect("taken");
        drop(ring);
        assert!(std::fs::read(dir.path().join("f")).expect("there") == vec![5; 1 << 20]);
    }

    #[test]
    fn the_memory_of_a_giant_is_given_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = file(&dir, 0).expect("made");
        let mut ring = CommitRing::new().expect("a ring");
        for bytes in [2 * MEMORY_KEPT_MAX, 4096] {
            ring.begin(&file, &vec![1; bytes], 0, false).expect("taken");
            finish(&mut ring).expect("written");
        }
        assert!(ring.memory.capacity() < MEMORY_KEPT_MAX);
    }
}
