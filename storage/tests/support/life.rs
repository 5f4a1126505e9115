//! One shard's store lived through by hand: both generations, with retirements, as `engine` and `broker` do it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use postroad_base::{Message, MessageId, PartitionId, Placement, QueueId, Record, Sequence, ShardId};
use postroad_storage::directory::{DataDirectory, DirectoryOptions};
use postroad_storage::log::{FileLog, Log, SegmentLog, Sync};
use postroad_storage::old::{IngestBatch, Old, Pending, StateKey};
use postroad_storage::snapshot::State;
use postroad_storage::young::{FileDirectory, WriterConfig, recover};

/// A shard with its log open.
pub struct Shard {
    pub id: ShardId,
    pub old: Old,
    pub log: FileLog,
    /// The young generation's state on top of the old one's.
    pub state: State,
}

/// Opens all shards of a directory.
pub fn open(path: &Path, shards: u16) -> (DataDirectory, Vec<Shard>) {
    let directory = DataDirectory::open(path, DirectoryOptions { shards, partitions: 16 }).unwrap();
    let opened = (0..shards).map(|shard| open_shard(&directory, ShardId(shard))).collect();
    (directory, opened)
}

pub fn open_shard(directory: &DataDirectory, id: ShardId) -> Shard {
    let old = directory.open_old(id).unwrap();
    let covered = old.covered();
    let mut state = State::default();
    old.load_state(&mut |_, record| state.load(record)).unwrap();
    let config = WriterConfig::new(directory.log_id(id), 16 << 10, 64 << 10);
    let files = FileDirectory::new(directory.young_path(id));
    let mut replay = |sequence, record| state.replay(sequence, record, covered.as_of);
    let log = SegmentLog::open(files, config, covered, Sync::Data, &mut replay).unwrap().0;
    Shard { id, old, log, state }
}

/// All records as they lie in the files of a shard: the pieces of state, then the young generation.
pub fn raw_records(directory: &DataDirectory, id: ShardId) -> Vec<Record> {
    let mut records = Vec::new();
    let old = directory.open_old(id).unwrap();
    old.load_state(&mut |_, record| records.push(record)).unwrap();
    let mut files = FileDirectory::new(directory.young_path(id));
    recover(&mut files, directory.log_id(id), old.covered(), &mut |_, record| records.push(record)).unwrap();
    records
}

impl Shard {
    /// Appends to the next commit.
    pub fn append(&mut self, record: Record) -> Sequence {
        let sequence = self.log.append(&record);
        self.state.replay(sequence, record, Sequence(0));
        sequence
    }

    /// Appends and commits.
    pub fn write(&mut self, record: Record) -> Sequence {
        let sequence = self.append(record);
        self.log.commit().unwrap();
        sequence
    }

    /// Retires all segments but the active one: state of now, what is pending in them.
    pub fn retire(&mut self) {
        let Some((_, upto)) = self.log.oldest() else { return };
        let before = self.old.upto();
        let pending = self.state.pending().iter().filter(|((_, sequence), _)| *sequence <= upto && *sequence > before);
        let known = StateKey::Queue(QueueId::of_known_ids(self.id));
        let known = (known, self.state.known().records(self.id));
        let pieces = self.state.pieces().chain([known].into_iter().filter(|(_, records)| !records.is_empty()));
        let mut state: Vec<_> = pieces.map(|(key, records)| (key, Some(records))).collect();
        state.sort_by(|a, b| a.0.cmp(&b.0));
        let batch = IngestBatch {
            as_of: self.log.last_sequence(),
            upto,
            state,
            pending: pending
                .map(|(&(queue, sequence), (recipient, message))| Pending {
                    queue,
                    sequence,
                    recipient: recipient.clone(),
                    message: Arc::clone(message),
                })
                .collect(),
            settled: self.stored().into_keys().filter(|delivery| self.state.is_over(*delivery)).collect(),
            ended: Vec::new(),
        };
        self.old.ingest(batch).unwrap();
        while let Some((segment, _)) = self.log.oldest().filter(|(_, last)| *last <= upto) {
            self.log.retire(segment).unwrap();
        }
    }

    fn stored(&self) -> BTreeMap<(QueueId, Sequence), Arc<Message>> {
        let mut queues = Vec::new();
        self.old.backlog_bounds(&mut |queue, _| queues.push(queue)).unwrap();
        let mut stored = BTreeMap::new();
        for queue in queues {
            let backlog = self.old.read_backlog(queue, Sequence(0), usize::MAX, usize::MAX).unwrap();
            stored.extend(backlog.entries.into_iter().map(|entry| ((queue, entry.sequence), entry.message)));
        }
        stored
    }

    /// Everything that still waits in this shard, by queue and sequence.
    pub fn waiting(&self) -> BTreeMap<(QueueId, Sequence), Arc<Message>> {
        let mut waiting = self.stored();
        waiting.retain(|delivery, _| !self.state.is_over(*delivery));
        let upto = self.old.upto();
        let young = self.state.pending().iter().filter(|((_, sequence), _)| *sequence > upto);
        waiting.extend(young.map(|(delivery, (_, message))| (*delivery, Arc::clone(message))));
        waiting
    }

    /// The records of the state, piece by piece.
    pub fn records(&self) -> Vec<Record> {
        self.state.pieces().flat_map(|(_, records)| records).collect()
    }

    /// Those that another number of shards does not change. Watermarks say how much of a queue has left the young
    /// generation.
    pub fn lasting_records(&self) -> Vec<Record> {
        let mut records = self.records();
        records.retain(|record| !matches!(record, Record::Watermark { .. }));
        records
    }
}

/// Who has a message: partitions, by their subscribers, and groups.
pub type Takers = (Vec<u16>, BTreeSet<String>);

/// The QoS 2 messages that may be repeated, and who has them. Another number of shards does not change that.
pub fn taken(shards: &[Shard]) -> BTreeMap<MessageId, Takers> {
    let repeatable: BTreeSet<_> = shards.iter().flat_map(|shard| shard.state.repeatable()).collect();
    repeatable.into_iter().map(|id| (id, takers(shards, id))).collect()
}

fn takers(shards: &[Shard], id: MessageId) -> Takers {
    let of = |shard: &ShardId| shards[usize::from(shard.0)].state.known().get(id);
    let has = |partition: &u16| {
        let queue = QueueId::new(PartitionId(*partition), 1);
        of(&Placement::shard_among(queue.partition(), shards.len() as u16)).is_some_and(|takers| takers.has(queue))
    };
    let groups = shards.iter().filter_map(|shard| of(&shard.id)).flat_map(|takers| &takers.groups);
    ((0..16).filter(has).collect(), groups.map(|group| group.as_str().to_owned()).collect())
}
