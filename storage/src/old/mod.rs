//! The old generation: what is still pending when a segment leaves the young one, and the state of the shard, in
//! fjall. The keys are in `docs/storage-format.md`.
//!
//! Invariants:
//! - One keyspace, written only by bulk ingestion, one per retirement: a retirement is there whole or not at all.
//!   fjall's journal never holds anything of ours (DESIGN 4 says why).
//! - Doing a retirement again changes nothing: see [`Old::ingest`].
//! - A stored delivery ≤ `upto` that is not here is settled.
//!
//! Everything here blocks: call it on a worker thread. Readers run beside an ingestion, each on a snapshot.

mod ingest;
mod keys;
mod read;

use std::path::Path;
use std::sync::Mutex;

use base::{ClientId, KeyName, Message, PartitionId, Placement, QueueId, Recipient, Record, Sequence, TopicName};
use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use postroad_base as base;
use std::sync::Arc;

use crate::record::RecordError;

pub(crate) use ingest::{Entry, entry};
pub(crate) use keys::BodyKey;
pub(crate) use read::Stored;
pub use read::{Backlog, BacklogEntry};

/// Why the old generation can't do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum OldError {
    /// fjall reports an error: of I/O, or damage that its checksums found.
    #[error("old generation of the log: {0}")]
    Fjall(#[from] fjall::Error),
    /// A value is not what this format version writes.
    #[error("old generation of the log: {what} can't be read: {error}")]
    Value { what: &'static str, error: RecordError },
    /// A delivery refers to a body that is not there.
    #[error("old generation of the log: the body of the message at {sequence} is missing")]
    MissingBody { sequence: u64 },
}

/// Names a piece of state that is stored as one value.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StateKey {
    /// A queue with its subscriptions, will, watermark and QoS 2 state.
    Queue(QueueId),
    /// A retained message.
    Retained(TopicName),
    /// A registration.
    Registration(ClientId),
    /// The ordinals used in a partition.
    Ordinals(PartitionId),
    /// A publish under an idempotency key.
    Key(KeyName),
}

/// A delivery to store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Where it waits.
    pub queue: QueueId,
    /// Its place there.
    pub sequence: Sequence,
    /// What was decided at the commit.
    pub recipient: Recipient,
    /// The message; stored once if several deliveries of one sequence share it.
    pub message: Arc<Message>,
}

/// One retirement: what has to be stored so that the segments up to `upto` can be written again.
#[derive(Clone, Debug, Default)]
pub struct IngestBatch {
    /// `state` is that after all records up to and with this one.
    pub as_of: Sequence,
    /// Segments up to and with this record will be recycled.
    pub upto: Sequence,
    /// Each piece of state that changed: its records, or `None` if it is gone. Where one stands several times, the last one
    /// counts.
    pub state: Vec<(StateKey, Option<Vec<Record>>)>,
    /// All deliveries of records ≤ `upto` that are still pending and not stored yet. Any order.
    pub pending: Vec<Pending>,
    /// Stored deliveries that are over. Any order; what is not stored is ignored.
    pub settled: Vec<(QueueId, Sequence)>,
    /// Queues that ended: everything stored for them goes, their state too.
    pub ended: Vec<QueueId>,
}

/// Which records the old generation covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Covered {
    /// The stored state is that after all records up to and with this one.
    pub as_of: Sequence,
    /// All deliveries up to and with this one are stored or settled: recovery of the young generation begins behind it.
    pub upto: Sequence,
}

impl From<Sequence> for Covered {
    /// State and deliveries are covered up to the same record.
    fn from(sequence: Sequence) -> Self {
        Self { as_of: sequence, upto: sequence }
    }
}

/// What is stored of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Sequence of the first stored delivery.
    pub first: Sequence,
    /// No stored delivery has a higher one.
    pub last: Sequence,
    /// How many.
    pub count: u64,
    /// Topic, properties and payload of them all.
    pub bytes: u64,
}

impl Bounds {
    /// One more delivery, behind all counted so far.
    pub(crate) fn count_in(&mut self, sequence: Sequence, bytes: u64) {
        if self.count == 0 {
            self.first = sequence;
        }
        self.last = sequence;
        self.count += 1;
        self.bytes += bytes;
    }
}

/// How to open an old generation.
#[derive(Clone, Debug)]
pub struct OldConfig {
    /// Gives topics and clients their partition.
    pub placement: Placement,
    /// fjall's block cache.
    pub cache_bytes: u64,
}

impl OldConfig {
    /// With a cache of 16 MiB.
    pub fn new(placement: Placement) -> Self {
        Self { placement, cache_bytes: 16 << 20 }
    }
}

/// Tables of one old generation that are open at once at most.
pub const OLD_FILES_MAX: usize = 128;

/// The old generation of one shard.
pub struct Old {
    db: Database,
    data: Keyspace,
    placement: Placement,
    /// Held by the one ingestion at a time.
    writing: Mutex<Written>,
}

/// What an ingestion needs to know of the ones before it.
#[derive(Clone, Copy, Debug, Default)]
struct Written {
    covered: Covered,
    /// Bytes of stored deliveries.
    live_bytes: u64,
    /// Bytes of deliveries that became tombstones since the last full compaction.
    dead_bytes: u64,
}

impl std::fmt::Debug for Old {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Old").field("covered", &self.covered()).finish_non_exhaustive()
    }
}

impl Old {
    /// Opens the database at `path`, or makes an empty one. Reads no delivery: time goes by queues, not by messages.
    ///
    /// # Errors
    /// If fjall can't open it, or it holds values that this format version does not write.
    pub fn open(path: &Path, config: OldConfig) -> Result<Self, OldError> {
        let db = Database::builder(path)
            .worker_threads(1)
            .max_cached_files(Some(OLD_FILES_MAX))
            .cache_size(config.cache_bytes)
            .open()?;
        let data = db.keyspace("data", KeyspaceCreateOptions::default)?;
        sync_names(path)?;
        let old = Self { db, data, placement: config.placement, writing: Mutex::default() };
        let mut live_bytes = 0;
        old.backlog_bounds(&mut |_, bounds| live_bytes += bounds.bytes)?;
        let covered = old.read_covered()?;
        // What was dead before this start is not known: assume as much as is alive, so that it goes soon.
        *old.written() = Written { covered, live_bytes, dead_bytes: live_bytes };
        Ok(old)
    }

    /// Which records it covers.
    pub fn covered(&self) -> Covered {
        self.written().covered
    }

    /// The stored state is that after all records up to and with this one.
    pub fn as_of(&self) -> Sequence {
        self.covered().as_of
    }

    /// Recovery of the young generation begins behind this one.
    pub fn upto(&self) -> Sequence {
        self.covered().upto
    }

    /// Bytes of its tables on the disk.
    pub fn disk_bytes(&self) -> u64 {
        self.data.disk_space()
    }

    fn written(&self) -> std::sync::MutexGuard<'_, Written> {
        // The values are replaced whole after a successful ingestion: a panic before it leaves the old ones, which hold.
        self.writing.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// fjall syncs what is in a new keyspace's directory, but not the name of that directory: without this a power cut
/// could take the whole keyspace. `tests/power_cut.rs` found it.
fn sync_names(path: &Path) -> Result<(), OldError> {
    for directory in [path.join("keyspaces"), path.to_owned()] {
        crate::space::sync_directory(&directory).map_err(fjall::Error::from)?;
    }
    Ok(())
}

/// Bytes that count as a message's size.
pub(crate) fn message_bytes(message: &Message) -> u64 {
    (message.topic.as_str().len() + message.properties.len() + message.payload.len()) as u64
}
