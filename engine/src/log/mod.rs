//! The I/O of one shard's log. Where bytes go is decided by `storage`; here they are written.
//!
//! ```text
//! Effect::Append ─► Writer ─(one commit at a time)─► commit task: io_uring write, fdatasync ─► Committed
//! Retire ─► broker ─► Ingest ─► worker thread: old generation ─► Ingested, segment recycled
//! ReadBacklog ────────────────► worker thread ────────────────► Backlog
//! ```
//! - While one commit is on its way to the disk, the next gathers: the disk sets the pace, nobody waits for
//!   a batch to fill.
//! - A write or sync that fails poisons the log: the shard stops acknowledging, the process ends with an
//!   error, and recovery reads what the disk really has. It is never tried again: after a failed fsync the
//!   kernel may say "done" about pages that it has dropped.

mod task;
mod worker;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::task::Waker;

use postroad_base::{MonoMillis, Now, QueueId, Record, Sequence};
use postroad_broker::api::{BacklogEntry, Event, Retirement};
use postroad_control::LogReport;
use postroad_storage::young::{Commit, Retired, SegmentNumber, Writer};

use crate::shard::{Order, Shard};

pub(crate) use task::run;
pub(crate) use worker::Worker;

/// What the worker has done.
pub(crate) enum WorkDone {
    Ingested { as_of: Sequence, old_bytes: u64 },
    Backlog { queue: QueueId, entries: Vec<BacklogEntry>, end: bool },
    Failed(String),
}

/// What a shard's log is made of.
pub(crate) struct ShardLog {
    writer: Writer,
    worker: Worker,
    /// Where the segments are.
    pub(crate) directory: PathBuf,
    /// The data directory, whose disk is watched.
    pub(crate) data_dir: PathBuf,
    /// Whether commits are synced (`durability = "fsync"`).
    pub(crate) syncs: bool,
    young_bytes: u64,
    young_age_millis: u64,
    /// Segments in use, with the time of their first commit.
    ages: VecDeque<(SegmentNumber, MonoMillis)>,
    /// The segment that the broker was asked to let go.
    retiring: Option<SegmentNumber>,
    /// The commit task, while it waits for something to write.
    waker: Option<Waker>,
    in_flight: bool,
    disk_full: bool,
    figures: LogReport,
}

/// What [`ShardLog::new`] needs to know.
pub(crate) struct LogOptions {
    pub(crate) directory: PathBuf,
    pub(crate) data_dir: PathBuf,
    pub(crate) syncs: bool,
    pub(crate) young_bytes: u64,
    pub(crate) young_age_millis: u64,
}

impl ShardLog {
    pub(crate) fn new(writer: Writer, worker: Worker, options: LogOptions) -> Self {
        let LogOptions { directory, data_dir, syncs, young_bytes, young_age_millis } = options;
        Self {
            writer,
            worker,
            directory,
            data_dir,
            syncs,
            young_bytes,
            young_age_millis,
            ages: VecDeque::new(),
            retiring: None,
            waker: None,
            in_flight: false,
            disk_full: false,
            figures: LogReport::default(),
        }
    }

    /// Whether everything appended is safe.
    pub(crate) fn is_idle(&self) -> bool {
        !self.in_flight && !self.writer.has_pending()
    }

    /// Wakes the commit task if it has something to do.
    pub(crate) fn wake_if_pending(&mut self) {
        if !self.in_flight
            && self.writer.has_pending()
            && let Some(waker) = self.waker.take()
        {
            waker.wake();
        }
    }

    /// Wakes the commit task, to see that there will be nothing more.
    pub(crate) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// The figures for a report.
    pub(crate) fn report(&self) -> LogReport {
        LogReport { young_bytes: self.writer.window_bytes(), ..self.figures.clone() }
    }

    /// What to write next; `None` if nothing is pending.
    fn begin_commit(&mut self, now: Now) -> Option<Commit> {
        let commit = self.writer.begin_commit()?;
        self.in_flight = true;
        if self.ages.back().is_none_or(|(segment, _)| *segment != commit.segment) {
            self.ages.push_back((commit.segment, now.mono));
        }
        Some(commit)
    }

    /// The oldest segment, if it is time to let it go: too many bytes, or too old.
    fn due_for_retirement(&mut self, now: Now) -> Option<(SegmentNumber, Sequence)> {
        if self.retiring.is_some() {
            return None;
        }
        let too_old = self.ages.front().is_none_or(|(_, since)| now.mono.since(*since) >= self.young_age_millis);
        if self.writer.window_bytes() == 0 || (!too_old && self.writer.window_bytes() <= self.young_bytes) {
            return None;
        }
        if self.writer.oldest_segment_last_sequence().is_none() {
            self.writer.seal();
        }
        self.writer.oldest_segment_last_sequence()
    }

    /// The old generation covers the segment that was let go.
    fn retired(&mut self) {
        let Some(segment) = self.retiring.take() else { return };
        if self.ages.front().is_some_and(|(oldest, _)| *oldest == segment) {
            self.ages.pop_front();
        }
        if self.writer.retire(segment) == Retired::Remove {
            self.worker.remove(self.directory.join(segment.file_name()));
        }
    }
}

impl Shard {
    /// A record for the log.
    pub(crate) fn append(&mut self, record: &Record) {
        if let Some(log) = &mut self.log {
            log.writer.append(record);
            log.figures.records += 1;
        }
    }

    pub(crate) fn ingest(&mut self, batch: Box<Retirement>) {
        if let Some(log) = &self.log {
            log.worker.ingest(batch);
        }
    }

    pub(crate) fn read_backlog(&mut self, queue: QueueId, after: Sequence, messages_max: usize, bytes_max: usize) {
        if let Some(log) = &self.log {
            log.worker.read(worker::Read { queue, after, messages_max, bytes_max });
        }
    }

    pub(crate) fn work_done(&mut self, done: WorkDone) {
        match done {
            WorkDone::Ingested { as_of, old_bytes } => {
                if let Some(log) = &mut self.log {
                    log.figures.old_bytes = old_bytes;
                    log.retired();
                }
                self.handle(Event::Ingested { upto: as_of });
                self.drain_effects();
                self.retire_if_due();
            }
            WorkDone::Backlog { queue, entries, end } => {
                self.handle(Event::Backlog { queue, entries, end });
                self.drain_effects();
            }
            WorkDone::Failed(reason) => self.poison(reason),
        }
    }

    /// Lets the oldest segment go if it is time.
    pub(crate) fn retire_if_due(&mut self) {
        let now = self.now;
        let Some(log) = &mut self.log else { return };
        let Some((segment, upto)) = log.due_for_retirement(now) else { return };
        log.retiring = Some(segment);
        self.handle(Event::Retire { upto });
        self.drain_effects();
    }

    /// Once a second: segments that have grown old, and room on the disk.
    pub(crate) fn housekeeping(&mut self) {
        self.retire_if_due();
        self.watch_disk();
    }

    fn watch_disk(&mut self) {
        let least = self.live.config.storage_free_bytes_min;
        let Some(log) = &mut self.log else { return };
        let full = match postroad_storage::space::free_bytes(&log.data_dir) {
            Ok(free) => free < least,
            Err(error) => {
                tracing::warn!(shard = self.id.0, %error, "can't ask for the room on the disk");
                return;
            }
        };
        if std::mem::replace(&mut log.disk_full, full) != full {
            tracing::warn!(shard = self.id.0, full, least, "free room on the disk crossed storage.free_bytes_min");
            self.handle(Event::DiskFull { full });
        }
    }

    /// What to write next, for the commit task; `Err` when there will be nothing more.
    pub(crate) fn next_commit(&mut self, waker: &Waker) -> Result<Option<Commit>, Stopped> {
        if self.is_stopped() {
            return Err(Stopped);
        }
        let now = self.now;
        let log = self.log.as_mut().ok_or(Stopped)?;
        let commit = log.begin_commit(now);
        match &commit {
            None => log.waker = Some(waker.clone()),
            // A second is long: a disk may fill up within it.
            Some(commit) if commit.new_segment => self.watch_disk(),
            Some(_) => {}
        }
        Ok(commit)
    }

    /// A commit is safe: what waited for it goes out.
    pub(crate) fn committed(&mut self, commit: Commit, micros: u64) {
        let upto = commit.last;
        let Some(log) = &mut self.log else { return };
        log.figures.commits += 1;
        log.figures.bytes += commit.bytes.len() as u64;
        log.figures.sync_micros += micros;
        log.writer.finish_commit(commit);
        log.in_flight = false;
        self.handle(Event::Committed { upto });
        self.drain_effects();
        self.retire_if_due();
    }
}

/// The shard has stopped.
pub(crate) struct Stopped;

/// Puts what the worker has done where its shard finds it.
pub(crate) fn done(inbox: &crate::shard::Inbox, work: WorkDone) {
    inbox.order(Order::Work(work));
}
