//! Writing: one retirement becomes one sorted bulk ingestion.

use std::collections::{BTreeMap, BTreeSet};

use base::{QueueId, Sequence};
use fjall::{Readable, Snapshot, UserValue};
use postroad_base as base;

use super::keys::{
    BodyKey, body_key, bounds_key, delivery_key, meta_key, put_bounds, put_covered, references_key, state_key,
};
use super::read::{Stored, encode_records};
use super::{Bounds, Covered, IngestBatch, Old, OldError, Pending, StateKey, Written, message_bytes};
use crate::record::encode_message;
use crate::record::wire::put_varint;

/// Below this much garbage a full compaction is not worth its reading.
const DEAD_BYTES_MIN: u64 = 16 << 20;

impl Old {
    /// Stores a retirement, whole or not at all, and returns when it is on the disk.
    ///
    /// Safe to repeat after a crash at any point: state is replaced, settling what is gone is nothing, and
    /// deliveries that an earlier ingestion covered are skipped.
    ///
    /// # Errors
    /// If fjall can't read or write. Nothing is stored then, but the log must be treated as poisoned.
    ///
    /// # Panics
    /// If the batch covers less than is covered, or holds a delivery beyond its own `upto`.
    pub fn ingest(&self, batch: IngestBatch) -> Result<(), OldError> {
        let mut written = self.written();
        let covered = Covered { as_of: batch.as_of, upto: batch.upto };
        assert!(covered.upto <= covered.as_of, "state older than what is recycled: {covered:?}");
        assert!(
            covered.as_of >= written.covered.as_of && covered.upto >= written.covered.upto,
            "a retirement goes back: {covered:?} after {:?}",
            written.covered
        );
        let snapshot = self.db.snapshot();
        let mut plan = Plan { old: self, snapshot: &snapshot, changes: Changes::default() };
        plan.end_queues(&batch.ended)?;
        plan.settle(&batch)?;
        plan.add_pending(&batch, written.covered.upto);
        let (changes, totals) = plan.finish(&batch, covered)?;
        drop(snapshot);
        self.write(changes)?;
        *written = Written {
            covered,
            live_bytes: (written.live_bytes + totals.added).saturating_sub(totals.removed),
            dead_bytes: written.dead_bytes + totals.removed,
        };
        if written.dead_bytes >= written.live_bytes.max(DEAD_BYTES_MIN) {
            self.reclaim(&mut written)?;
        }
        Ok(())
    }

    /// Rewrites all tables, so that what is settled takes no room any more. `ingest` does it by itself when more
    /// is dead than alive.
    ///
    /// # Errors
    /// If fjall can't read or write.
    pub fn compact(&self) -> Result<(), OldError> {
        self.reclaim(&mut self.written())
    }

    fn reclaim(&self, written: &mut Written) -> Result<(), OldError> {
        // The first round leaves the tables before it on the disk until the next compaction: where little is alive,
        // that is done at once.
        let rounds = if written.live_bytes < DEAD_BYTES_MIN { 2 } else { 1 };
        for _ in 0..rounds {
            // fjall lets go of a tombstone once a newer ingestion is visible: write one.
            self.write([(meta_key(), Some(put_covered(written.covered)))].into())?;
            self.data.major_compact()?;
        }
        written.dead_bytes = 0;
        Ok(())
    }

    fn write(&self, changes: Keys) -> Result<(), OldError> {
        self.write_sorted(changes.into_iter().map(|(key, value)| Ok((key, value.map(UserValue::from)))))
    }

    /// One ingestion of entries whose keys ascend; no value is a tombstone. After an error nothing of it is there.
    pub(crate) fn write_sorted(&self, entries: impl Iterator<Item = Result<Entry, OldError>>) -> Result<(), OldError> {
        let mut ingestion = self.data.start_ingestion()?;
        for entry in entries {
            match entry? {
                (key, Some(value)) => ingestion.write(key, value)?,
                (key, None) => ingestion.write_tombstone(key)?,
            }
        }
        Ok(ingestion.finish()?)
    }

    /// What [`Self::write_sorted`] wrote is all that is there: `covered` holds from here on.
    pub(crate) fn set_covered(&self, covered: Covered) -> Result<(), OldError> {
        self.write([(meta_key(), Some(put_covered(covered)))].into())?;
        self.written().covered = covered;
        Ok(())
    }
}

/// A key and its value.
pub(crate) type Entry = (Vec<u8>, Option<UserValue>);

/// Entries of a database that is written whole, for a change of the number of shards.
pub(crate) mod entry {
    use super::*;

    pub(crate) fn delivery(queue: QueueId, sequence: Sequence, stored: &Stored) -> Entry {
        (delivery_key(queue, sequence), Some(stored.encode().into()))
    }

    pub(crate) fn body(body: BodyKey, value: UserValue) -> Entry {
        (body_key(body), Some(value))
    }

    pub(crate) fn references(body: BodyKey, count: u64) -> Entry {
        (references_key(body), Some(varint(count).into()))
    }

    pub(crate) fn bounds(queue: QueueId, bounds: &Bounds) -> Entry {
        (bounds_key(queue), Some(put_bounds(bounds).into()))
    }

    pub(crate) fn state(key: &StateKey, placement: &base::Placement, records: &[base::Record]) -> Entry {
        (state_key(key, placement), Some(encode_records(records).into()))
    }
}

fn varint(number: u64) -> Vec<u8> {
    let mut value = Vec::new();
    put_varint(&mut value, number);
    value
}

/// Sorted keys with their new values; no value: a tombstone.
type Keys = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// What one ingestion changes, gathered before anything is written.
#[derive(Default)]
struct Changes {
    keys: Keys,
    ended: BTreeSet<QueueId>,
    /// Per queue what leaves it and what comes.
    queues: BTreeMap<QueueId, QueueChange>,
    /// Shared bodies that lose so many references.
    released: BTreeMap<BodyKey, u64>,
}

#[derive(Default)]
struct QueueChange {
    removed: BTreeSet<Sequence>,
    removed_bytes: u64,
    added: BTreeSet<Sequence>,
    added_bytes: u64,
}

/// Bytes of deliveries that came and went.
#[derive(Default)]
struct Totals {
    added: u64,
    removed: u64,
}

struct Plan<'a> {
    old: &'a Old,
    snapshot: &'a Snapshot,
    changes: Changes,
}

impl Plan<'_> {
    fn end_queues(&mut self, ended: &[QueueId]) -> Result<(), OldError> {
        for &queue in ended {
            if !self.changes.ended.insert(queue) {
                continue;
            }
            for delivery in self.old.deliveries_of(self.snapshot, queue, Sequence(0)) {
                let (sequence, stored) = delivery?;
                self.remove(queue, sequence, &stored);
            }
        }
        Ok(())
    }

    fn settle(&mut self, batch: &IngestBatch) -> Result<(), OldError> {
        // Sorted: neighbours stand in one block.
        let settled: BTreeSet<_> = batch.settled.iter().copied().collect();
        for (queue, sequence) in settled {
            let known = self.changes.queues.get(&queue).is_some_and(|change| change.removed.contains(&sequence));
            if known {
                continue;
            }
            if let Some(stored) = self.old.delivery(self.snapshot, queue, sequence)? {
                self.remove(queue, sequence, &stored);
            }
        }
        Ok(())
    }

    fn remove(&mut self, queue: QueueId, sequence: Sequence, stored: &Stored) {
        let change = self.changes.queues.entry(queue).or_default();
        change.removed.insert(sequence);
        change.removed_bytes += stored.bytes;
        self.changes.keys.insert(delivery_key(queue, sequence), None);
        if let Some(body) = stored.shared_body(sequence) {
            *self.changes.released.entry(body).or_default() += 1;
        }
    }

    /// Deliveries ≤ `stored` are there already, or settled since: this retirement is being repeated.
    fn add_pending(&mut self, batch: &IngestBatch, stored: Sequence) {
        let settled: BTreeSet<_> = batch.settled.iter().copied().collect();
        let is_new = |one: &&Pending| {
            assert!(one.sequence <= batch.upto, "delivery {:?} beyond the retirement {:?}", one.sequence, batch.upto);
            one.sequence > stored
                && !settled.contains(&(one.queue, one.sequence))
                && !self.changes.ended.contains(&one.queue)
        };
        let unique: BTreeMap<_, _> =
            batch.pending.iter().filter(is_new).map(|one| ((one.queue, one.sequence), one)).collect();
        let mut by_body: BTreeMap<BodyKey, Vec<&Pending>> = BTreeMap::new();
        for one in unique.into_values() {
            by_body.entry((one.sequence, one.message.id)).or_default().push(one);
        }
        for (body, deliveries) in by_body {
            self.add_deliveries(body, &deliveries);
        }
    }

    fn add_deliveries(&mut self, body: BodyKey, deliveries: &[&Pending]) {
        for one in deliveries {
            let stored = match deliveries.len() {
                1 => Stored::inline(&one.recipient, &one.message),
                _ => Stored::shared(&one.recipient, &one.message),
            };
            self.changes.keys.insert(delivery_key(one.queue, one.sequence), Some(stored.encode()));
            let change = self.changes.queues.entry(one.queue).or_default();
            change.added.insert(one.sequence);
            change.added_bytes += message_bytes(&one.message);
        }
        if let [first, _, ..] = deliveries {
            let mut value = Vec::new();
            encode_message(&mut value, &first.message);
            self.changes.keys.insert(body_key(body), Some(value));
            self.changes.keys.insert(references_key(body), Some(varint(deliveries.len() as u64)));
        }
    }

    fn finish(mut self, batch: &IngestBatch, covered: Covered) -> Result<(Keys, Totals), OldError> {
        self.release_bodies()?;
        let totals = self.update_bounds()?;
        let mut keys = self.changes.keys;
        let placement = &self.old.placement;
        for (key, records) in &batch.state {
            keys.insert(state_key(key, placement), records.as_deref().map(encode_records));
        }
        for queue in &self.changes.ended {
            keys.insert(state_key(&StateKey::Queue(*queue), placement), None);
        }
        keys.insert(meta_key(), Some(put_covered(covered)));
        Ok((keys, totals))
    }

    fn release_bodies(&mut self) -> Result<(), OldError> {
        for (body, released) in std::mem::take(&mut self.changes.released) {
            let left = self.old.references(self.snapshot, body)?.saturating_sub(released);
            if left == 0 {
                self.changes.keys.insert(body_key(body), None);
            }
            self.changes.keys.insert(references_key(body), (left > 0).then(|| varint(left)));
        }
        Ok(())
    }

    fn update_bounds(&mut self) -> Result<Totals, OldError> {
        let mut totals = Totals::default();
        for (queue, change) in &self.changes.queues {
            totals.added += change.added_bytes;
            totals.removed += change.removed_bytes;
            let before = self.old.bounds(self.snapshot, *queue)?;
            let after = self.bounds_after(*queue, before, change)?;
            self.changes.keys.insert(bounds_key(*queue), (after.count > 0).then(|| put_bounds(&after)));
        }
        for queue in &self.changes.ended {
            self.changes.keys.insert(bounds_key(*queue), None);
        }
        Ok(totals)
    }

    fn bounds_after(&self, queue: QueueId, before: Bounds, change: &QueueChange) -> Result<Bounds, OldError> {
        let first_stored = if change.removed.contains(&before.first) {
            self.first_left(queue, before.first, &change.removed)?
        } else {
            (before.count > 0).then_some(before.first)
        };
        let first = [first_stored, change.added.first().copied()].into_iter().flatten().min();
        Ok(Bounds {
            first: first.unwrap_or_default(),
            last: change.added.last().copied().unwrap_or_default().max(before.last),
            count: (before.count + change.added.len() as u64).saturating_sub(change.removed.len() as u64),
            bytes: (before.bytes + change.added_bytes).saturating_sub(change.removed_bytes),
        })
    }

    /// The first stored delivery that stays. Looks at no more than what goes, and one.
    fn first_left(
        &self,
        queue: QueueId,
        from: Sequence,
        removed: &BTreeSet<Sequence>,
    ) -> Result<Option<Sequence>, OldError> {
        for entry in self.snapshot.range(&self.old.data, super::keys::deliveries(queue, from)) {
            let key = entry.key()?;
            let (_, sequence) = super::keys::parse_delivery(&key).map_err(super::read::wrong("a delivery"))?;
            if !removed.contains(&sequence) {
                return Ok(Some(sequence));
            }
        }
        Ok(None)
    }
}
