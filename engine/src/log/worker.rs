//! The threads that do for the log what blocks: the old generation, and deleting files.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use postroad_base::{QueueId, Sequence, ShardId};
use postroad_broker::api::{BacklogEntry, Retirement, StateKey};
use postroad_storage::old::{self, IngestBatch, Old, Pending};
use postroad_storage::young::{FileDirectory, SegmentDirectory, SegmentNumber};

use super::carrier::in_segment;
use super::{WorkDone, done};
use crate::shard::Inbox;

/// A portion of a queue's stored deliveries that the broker wants.
pub(super) struct Read {
    pub(super) queue: QueueId,
    pub(super) after: Sequence,
    pub(super) messages_max: usize,
    pub(super) bytes_max: usize,
}

/// What the files of the young generation need.
pub(super) enum FileWork {
    /// Make this segment ready to be written: so many bytes long, synced, with a name that stays.
    Prepare(SegmentNumber, u64),
    Remove(SegmentNumber),
    Close(File),
}

/// Three threads of one shard: one writes the old generation, one reads it, so that no drain waits for an ingestion, and
/// one makes and deletes segments, so that no commit waits for either. They end when this is dropped.
///
/// The channels have no bound of their own: there is one retirement at a time, one read per queue, and one spare in
/// preparation beside the file of one commit.
pub(crate) struct Worker {
    writes: Option<flume::Sender<Box<Retirement>>>,
    reads: Option<flume::Sender<Read>>,
    files: Option<flume::Sender<FileWork>>,
    threads: Vec<JoinHandle<()>>,
}

impl Worker {
    /// `young` is the directory of the segments; `data_dir` is where a panic leaves its report.
    pub(crate) fn start(
        old: Arc<Old>,
        young: PathBuf,
        inbox: Arc<Inbox>,
        shard: ShardId,
        data_dir: &Path,
    ) -> std::io::Result<Self> {
        let (writes, to_write) = flume::unbounded::<Box<Retirement>>();
        let (reads, to_read) = flume::unbounded::<Read>();
        let (files, to_do) = flume::unbounded::<FileWork>();
        let (old_to_read, inbox_to_read, inbox_to_do) = (Arc::clone(&old), Arc::clone(&inbox), Arc::clone(&inbox));
        let spawn = |part: &str, work: Box<dyn FnOnce() + Send>| {
            let data_dir = data_dir.to_owned();
            thread::Builder::new().name(format!("log-{}-{part}", shard.0)).spawn(move || {
                crate::crash::watch_this_thread(shard, &data_dir);
                work();
            })
        };
        let threads = vec![
            spawn("write", Box::new(move || to_write.iter().for_each(|batch| done(&inbox, ingest(&old, *batch)))))?,
            spawn(
                "read",
                Box::new(move || to_read.iter().for_each(|read| done(&inbox_to_read, do_read(&old_to_read, &read)))),
            )?,
            spawn(
                "files",
                Box::new(move || {
                    let mut directory = FileDirectory::new(young);
                    let answers = to_do.iter().filter_map(|work| do_file_work(&mut directory, work));
                    answers.for_each(|answer| done(&inbox_to_do, answer));
                }),
            )?,
        ];
        Ok(Self { writes: Some(writes), reads: Some(reads), files: Some(files), threads })
    }

    /// A worker without threads: a test does its work by hand.
    #[cfg(test)]
    pub(super) fn by_hand() -> (Self, flume::Receiver<FileWork>) {
        let (files, to_do) = flume::unbounded();
        (Self { writes: None, reads: None, files: Some(files), threads: Vec::new() }, to_do)
    }

    // A thread that is gone has panicked, and with it the process: nobody is left to tell.

    pub(super) fn ingest(&self, batch: Box<Retirement>) {
        let _gone = self.writes.as_ref().map(|writes| writes.send(batch));
    }

    pub(super) fn files(&self, work: FileWork) {
        let _gone = self.files.as_ref().map(|files| files.send(work));
    }

    pub(super) fn read(&self, read: Read) {
        let _gone = self.reads.as_ref().map(|reads| reads.send(read));
    }
}

/// Finishes what was begun and lets go of the old generation, so that it can be opened again.
impl Drop for Worker {
    fn drop(&mut self) {
        (self.writes, self.reads, self.files) = (None, None, None);
        for thread in self.threads.drain(..) {
            let _panicked = thread.join();
        }
    }
}

fn ingest(old: &Old, batch: Retirement) -> WorkDone {
    crate::fault::planted("panic-worker", b"");
    match old.ingest(ingest_batch(batch)) {
        Ok(()) => WorkDone::Ingested { old_bytes: old.disk_bytes() },
        Err(error) => WorkDone::Failed(error.to_string()),
    }
}

/// A spare that can't be made for want of room or descriptors is tried again later: nothing is in it, and the commit that
/// needs a file makes one or fails itself. Any other failure poisons the log, since a sync that has failed is not tried again.
fn do_file_work(directory: &mut FileDirectory, work: FileWork) -> Option<WorkDone> {
    match work {
        FileWork::Prepare(segment, bytes) => {
            crate::fault::planted("panic-prepare", b"");
            Some(match directory.prepare(segment, bytes) {
                Ok(()) => WorkDone::Prepared(segment),
                Err(error) if is_for_want(&error) => WorkDone::Unprepared(segment, error),
                Err(error) => WorkDone::Failed(in_segment(segment, &error).to_string()),
            })
        }
        FileWork::Remove(segment) => {
            if let Err(error) = directory.remove(segment) {
                tracing::warn!(?segment, %error, "a segment that is not needed any more stays");
            }
            None
        }
        FileWork::Close(file) => {
            drop(file);
            None
        }
    }
}

/// Room on the disk or file descriptors are missing, which may be there later.
fn is_for_want(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    let wants = [Errno::NOSPC, Errno::DQUOT, Errno::MFILE, Errno::NFILE];
    error.raw_os_error().is_some_and(|number| wants.contains(&Errno::from_raw_os_error(number)))
}

fn do_read(old: &Old, read: &Read) -> WorkDone {
    match old.read_backlog(read.queue, read.after, read.messages_max, read.bytes_max) {
        Ok(backlog) => {
            let entries = backlog.entries.into_iter().map(entry).collect();
            WorkDone::Backlog { queue: read.queue, entries, end: backlog.end }
        }
        Err(error) => WorkDone::Failed(error.to_string()),
    }
}

fn entry(entry: old::BacklogEntry) -> BacklogEntry {
    let old::BacklogEntry { sequence, recipient, message } = entry;
    BacklogEntry { sequence, recipient, message }
}

fn ingest_batch(batch: Retirement) -> IngestBatch {
    let Retirement { as_of, upto, state, pending, settled, ended } = batch;
    let state = state.into_iter().map(|(key, records)| (state_key(key), records)).collect();
    let pending = pending
        .into_iter()
        .map(|(queue, entry)| Pending {
            queue,
            sequence: entry.sequence,
            recipient: entry.recipient,
            message: entry.message,
        })
        .collect();
    IngestBatch { as_of, upto, state, pending, settled, ended }
}

fn state_key(key: StateKey) -> old::StateKey {
    match key {
        StateKey::Queue(queue) => old::StateKey::Queue(queue),
        StateKey::Retained(topic) => old::StateKey::Retained(topic),
        StateKey::Registration(client) => old::StateKey::Registration(client),
        StateKey::Ordinals(partition) => old::StateKey::Ordinals(partition),
        StateKey::Key(name) => old::StateKey::Key(name),
    }
}
