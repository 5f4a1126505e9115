//! The threads that do for the log what blocks: the old generation, and deleting files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use postroad_base::{QueueId, Sequence, ShardId};
use postroad_broker::api::{BacklogEntry, Retirement, StateKey};
use postroad_storage::old::{self, IngestBatch, Old, Pending};

use super::{WorkDone, done};
use crate::shard::Inbox;

/// A portion of a queue's stored deliveries that the broker wants.
pub(super) struct Read {
    pub(super) queue: QueueId,
    pub(super) after: Sequence,
    pub(super) messages_max: usize,
    pub(super) bytes_max: usize,
}

enum Write {
    Ingest(Box<Retirement>),
    Remove(PathBuf),
}

/// Two threads of one shard, one that writes and one that reads, so that no drain waits for an ingestion.
/// They end when this is dropped.
///
/// The channels have no bound of their own: there is one retirement at a time, and one read per queue.
pub(crate) struct Worker {
    writes: Option<flume::Sender<Write>>,
    reads: Option<flume::Sender<Read>>,
    threads: Vec<JoinHandle<()>>,
}

impl Worker {
    /// `data_dir` is where a panic leaves its report.
    pub(crate) fn start(old: Arc<Old>, inbox: Arc<Inbox>, shard: ShardId, data_dir: &Path) -> std::io::Result<Self> {
        let name = format!("log-{}", shard.0);
        let watch = {
            let data_dir = data_dir.to_owned();
            move || crate::crash::watch_this_thread(shard, &data_dir)
        };
        let watch_too = watch.clone();
        let (writes, to_write) = flume::unbounded::<Write>();
        let (reads, to_read) = flume::unbounded::<Read>();
        let (old_to_read, inbox_to_read) = (Arc::clone(&old), Arc::clone(&inbox));
        let writer = thread::Builder::new().name(format!("{name}-write")).spawn(move || {
            watch();
            to_write.iter().for_each(|write| do_write(&old, &inbox, write));
        })?;
        let reader = thread::Builder::new().name(format!("{name}-read")).spawn(move || {
            watch_too();
            to_read.iter().for_each(|read| done(&inbox_to_read, do_read(&old_to_read, &read)));
        })?;
        Ok(Self { writes: Some(writes), reads: Some(reads), threads: vec![writer, reader] })
    }

    // A thread that is gone has panicked, and with it the process: nobody is left to tell.

    pub(super) fn ingest(&self, batch: Box<Retirement>) {
        let _gone = self.writes.as_ref().map(|writes| writes.send(Write::Ingest(batch)));
    }

    pub(super) fn remove(&self, path: PathBuf) {
        let _gone = self.writes.as_ref().map(|writes| writes.send(Write::Remove(path)));
    }

    pub(super) fn read(&self, read: Read) {
        let _gone = self.reads.as_ref().map(|reads| reads.send(read));
    }
}

/// Finishes what was begun and lets go of the old generation, so that it can be opened again.
impl Drop for Worker {
    fn drop(&mut self) {
        (self.writes, self.reads) = (None, None);
        for thread in self.threads.drain(..) {
            let _panicked = thread.join();
        }
    }
}

fn do_write(old: &Old, inbox: &Inbox, write: Write) {
    match write {
        Write::Ingest(batch) => {
            crate::fault::planted("panic-worker", b"");
            let as_of = batch.as_of;
            let work = match old.ingest(ingest_batch(*batch)) {
                Ok(()) => WorkDone::Ingested { as_of, old_bytes: old.disk_bytes() },
                Err(error) => WorkDone::Failed(error.to_string()),
            };
            done(inbox, work);
        }
        Write::Remove(path) => {
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "a segment that is not needed any more stays");
            }
        }
    }
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
    }
}
