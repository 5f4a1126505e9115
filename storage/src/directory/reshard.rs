//! Another number of shards: the young logs are folded, partitions are copied into new databases, and the manifest
//! makes these current by one rename. The old set is only read (its torn tail is cut as at any start), so that a
//! crash leaves the old set or the new one whole.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;

use base::{FormerShard, KnownIds, PartitionId, Placement, QueueId, Sequence, ShardId};
use postroad_base as base;

use super::{DataDirectory, DirectoryError, at, highest, prepare_generation, random, shard_path};
use crate::old::{BodyKey, Bounds, Covered, Entry, Old, OldConfig, OldError, StateKey, Stored, entry};
use crate::record::encode_message;
use crate::snapshot::State;
use crate::young::{FileDirectory, recover};

/// One shard of the old set.
struct Source {
    old: Old,
    state: State,
    last: Sequence,
}

/// A delivery on its way.
type Delivery = (QueueId, Sequence, Stored);

impl DataDirectory {
    /// Moves everything to `shards` shards.
    pub(super) fn reshard(&mut self, shards: u16) -> Result<(), DirectoryError> {
        let next = self.manifest.with_shards(shards, &mut random(shards)?)?;
        tracing::info!(from = self.manifest.shards(), to = shards, "moving the data to another number of shards");
        let mut sources = self.shards().map(|shard| self.source(shard)).collect::<Result<Vec<_>, _>>()?;
        let last = highest(sources.iter().map(|source| source.last));
        sources.iter_mut().for_each(|source| source.state.set_watermarks(last));
        prepare_generation(&self.path, &next)?;
        let placement = next.placement();
        let known = known(&mut sources);
        for shard in (0..shards).map(ShardId) {
            let path = shard_path(&self.path, next.generation, shard).join("old");
            let target = Target { shard, placement: &placement, sources: &sources, known: &known };
            target.write(&path, last).map_err(|error| DirectoryError::Old { shard, error })?;
            let parent = path.parent().expect("joined above");
            crate::space::sync_directory(parent).map_err(at(parent))?;
        }
        drop(sources);
        next.write(&self.path)?;
        self.manifest = next;
        self.remove_leftovers()
    }

    fn source(&self, shard: ShardId) -> Result<Source, DirectoryError> {
        let old = self.open_old(shard)?;
        let covered = old.covered();
        let mut state = State::default();
        old.load_state(&mut |_, record| state.load(record)).map_err(|error| DirectoryError::Old { shard, error })?;
        let mut files = FileDirectory::new(self.young_path(shard));
        let mut replay = |sequence, record| state.replay(sequence, record, covered.as_of);
        let recovered = recover(&mut files, self.log_id(shard), covered, &mut replay)
            .map_err(|error| DirectoryError::Young { shard, error })?;
        state.finish();
        let last = Sequence(recovered.position.next().0 - 1).max(covered.as_of);
        Ok(Source { old, state, last })
    }
}

/// QoS 2 messages that may be repeated, and on which of the old shards they were taken.
fn known(sources: &mut [Source]) -> KnownIds {
    let repeatable: BTreeSet<_> = sources.iter().flat_map(|source| source.state.repeatable()).collect();
    let (mut known, shards) = (KnownIds::default(), sources.len() as u16);
    for (source, number) in sources.iter_mut().zip(0..) {
        // First: a young log names all QoS 2 messages of its time, of which hardly any may be repeated.
        source.state.forget_known(|id| !repeatable.contains(&id));
        known.know_former(source.state.known(), FormerShard { shard: ShardId(number), shards });
    }
    known
}

/// One shard of the new set.
struct Target<'a> {
    shard: ShardId,
    placement: &'a Placement,
    sources: &'a [Source],
    known: &'a KnownIds,
}

impl Target<'_> {
    fn write(&self, path: &std::path::Path, last: Sequence) -> Result<(), OldError> {
        let target = Old::open(path, OldConfig::new(self.placement.clone()))?;
        let mut references: BTreeMap<BodyKey, u64> = BTreeMap::new();
        let mut bounds: BTreeMap<QueueId, Bounds> = BTreeMap::new();
        target.write_sorted(self.deliveries().map(|delivery| {
            let (queue, sequence, stored) = delivery?;
            if let Some(body) = stored.shared_body(sequence) {
                *references.entry(body).or_default() += 1;
            }
            bounds.entry(queue).or_default().count_in(sequence, stored.bytes);
            Ok(entry::delivery(queue, sequence, &stored))
        }))?;
        self.write_bodies(&target, &references)?;
        let state = self.state().into_iter().map(Ok);
        let bounds = bounds.iter().map(|(queue, bounds)| Ok(entry::bounds(*queue, bounds)));
        let references = references.iter().map(|(body, count)| Ok(entry::references(*body, *count)));
        target.write_sorted(state.chain(bounds).chain(references))?;
        target.set_covered(Covered { as_of: last, upto: last })
    }

    fn is_ours(&self, partition: PartitionId) -> bool {
        self.placement.shard_of(partition) == self.shard
    }

    /// All deliveries of our partitions that still wait, by queue and sequence: a merge of what each source holds.
    fn deliveries(&self) -> impl Iterator<Item = Result<Delivery, OldError>> {
        let mut streams: Vec<_> = self.sources.iter().flat_map(|source| self.streams_of(source)).collect();
        std::iter::from_fn(move || {
            let first =
                streams.iter_mut().enumerate().filter_map(|(n, stream)| Some((rank(stream.peek()?), n))).min()?.1;
            streams[first].next()
        })
    }

    /// A source's stored deliveries, and those of its young generation.
    fn streams_of<'a>(&'a self, source: &'a Source) -> [Peekable<DeliveryStream<'a>>; 2] {
        let stored = source.old.all_deliveries().filter(|delivery| match delivery {
            Ok((queue, sequence, _)) => self.is_ours(queue.partition()) && !source.state.is_over((*queue, *sequence)),
            Err(_) => true,
        });
        let shared = self.shared_young(source);
        let young = source.state.pending().iter().filter(|((queue, _), _)| self.is_ours(queue.partition()));
        let young = young.map(move |(&(queue, sequence), (recipient, message))| {
            let is_shared = shared.contains_key(&(sequence, message.id));
            let stored =
                if is_shared { Stored::shared(recipient, message) } else { Stored::inline(recipient, message) };
            Ok((queue, sequence, stored))
        });
        let (stored, young): (DeliveryStream<'a>, DeliveryStream<'a>) = (Box::new(stored), Box::new(young));
        [stored.peekable(), young.peekable()]
    }

    /// Messages of the young generation that several of our queues wait for, encoded.
    fn shared_young(&self, source: &Source) -> BTreeMap<BodyKey, Vec<u8>> {
        let mut seen: BTreeMap<BodyKey, u64> = BTreeMap::new();
        let mut shared = BTreeMap::new();
        for ((queue, sequence), (_, message)) in source.state.pending() {
            if !self.is_ours(queue.partition()) {
                continue;
            }
            let count = seen.entry((*sequence, message.id)).or_default();
            *count += 1;
            if *count == 2 {
                let mut value = Vec::new();
                encode_message(&mut value, message);
                shared.insert((*sequence, message.id), value);
            }
        }
        shared
    }

    /// Bodies that our deliveries refer to. Gathered by key: two sources may hold the same one.
    fn write_bodies(&self, target: &Old, references: &BTreeMap<BodyKey, u64>) -> Result<(), OldError> {
        let mut streams: Vec<BodyStream<'_>> = Vec::new();
        for source in self.sources {
            streams.push(Box::new(source.old.all_bodies()));
            let young = self.shared_young(source).into_iter().map(|(body, value)| Ok((body, value.into())));
            streams.push(Box::new(young));
        }
        let mut streams: Vec<_> = streams.into_iter().map(Iterator::peekable).collect();
        let mut last = None;
        let merged = std::iter::from_fn(move || {
            let order = |item: &Result<(BodyKey, fjall::UserValue), OldError>| item.as_ref().ok().map(|(key, _)| *key);
            let first =
                streams.iter_mut().enumerate().filter_map(|(n, stream)| Some((order(stream.peek()?), n))).min()?.1;
            streams[first].next()
        });
        let wanted = merged.filter(move |item| match item {
            Ok((body, _)) => references.contains_key(body) && last.replace(*body) != Some(*body),
            Err(_) => true,
        });
        target.write_sorted(wanted.map(|item| item.map(|(body, value)| entry::body(body, value))))
    }

    /// Our pieces of state, sorted by key.
    fn state(&self) -> BTreeMap<Vec<u8>, Option<fjall::UserValue>> {
        let pieces = self.sources.iter().flat_map(|source| source.state.pieces());
        let ours = pieces.filter(|(key, _)| self.is_ours(self.partition_of(key)));
        let known = self.known.records(self.shard);
        let known = (!known.is_empty()).then(|| (StateKey::Queue(QueueId::of_known_ids(self.shard)), known));
        ours.chain(known).map(|(key, records)| -> Entry { entry::state(&key, self.placement, &records) }).collect()
    }

    fn partition_of(&self, key: &StateKey) -> PartitionId {
        match key {
            StateKey::Queue(queue) => queue.partition(),
            StateKey::Retained(topic) => self.placement.partition_of(topic.as_str().as_bytes()),
            StateKey::Registration(client) => self.placement.partition_of(client.as_str().as_bytes()),
            StateKey::Ordinals(partition) => *partition,
            StateKey::Key(name) => self.placement.partition_of_key(name),
        }
    }
}

type DeliveryStream<'a> = Box<dyn Iterator<Item = Result<Delivery, OldError>> + 'a>;
type BodyStream<'a> = Box<dyn Iterator<Item = Result<(BodyKey, fjall::UserValue), OldError>> + 'a>;

/// Errors come first, so that they end the copy.
fn rank(item: &Result<Delivery, OldError>) -> Option<(QueueId, Sequence)> {
    item.as_ref().ok().map(|(queue, sequence, _)| (*queue, *sequence))
}
