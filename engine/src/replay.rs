//! From the old generation back to a broker: what was stored of each client, and where the reading of its queue begins.
//! The young generation is replayed by [`postroad_storage::young::recover`], behind it.

use ahash::AHashMap;
use postroad_base::{MessageId, QueueId, Record, Sequence};
use postroad_broker::Broker;
use postroad_storage::old::{Bounds, Old, OldError};

use crate::crash;

/// Replays the snapshot.
pub(crate) fn replay_state(old: &Old, broker: &mut Broker, poison: &[MessageId]) -> Result<(), OldError> {
    let mut stored = AHashMap::new();
    old.backlog_bounds(&mut |queue, bounds| {
        if bounds.count > 0 {
            stored.insert(queue, bounds);
        }
    })?;
    let sizes: Vec<_> = stored.iter().map(|(queue, bounds)| (*queue, *bounds)).collect();
    let as_of = old.as_of();
    let mut replay = |record| {
        take_in_hand(&record, poison);
        broker.replay(Sequence(0), as_of, record);
    };
    let mut watermarks = Watermarks { stored, held: None };
    old.load_state(&mut |_, record| watermarks.pass(record, &mut replay))?;
    watermarks.end(&mut replay);
    for (queue, bounds) in sizes {
        let number = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        broker.replay_stored(queue, number(bounds.count), number(bounds.bytes));
    }
    Ok(())
}

/// The watermarks of a snapshot on their way to the broker. It reads of stored deliveries only if a watermark below them
/// comes first, and a snapshot that was made without a broker (a change of the number of shards) holds one per queue.
/// So the bounds of what is stored of a queue decide: from before its first delivery to its last one at least. That one is
/// nowhere else any more, since all that is stored has left the young generation.
struct Watermarks {
    /// Of queues whose watermarks have not been replayed.
    stored: AHashMap<QueueId, Bounds>,
    /// The highest so far of the queue that is being read.
    held: Option<(QueueId, Sequence)>,
}

impl Watermarks {
    /// A record of the snapshot. The watermarks of a queue stand together.
    fn pass(&mut self, record: Record, replay: &mut impl FnMut(Record)) {
        match record {
            Record::Watermark { queue, upto } if self.stored.contains_key(&queue) => {
                let before = self.held.take_if(|(of, _)| *of == queue);
                self.release(replay);
                self.held = Some((queue, before.map_or(upto, |(_, before)| before.max(upto))));
            }
            record => {
                self.release(replay);
                replay(record);
            }
        }
    }

    /// That was the last one. Queues that have no watermark follow.
    fn end(mut self, replay: &mut impl FnMut(Record)) {
        self.release(replay);
        self.stored.into_iter().for_each(|(queue, bounds)| both_watermarks(queue, bounds, Sequence(0), replay));
    }

    fn release(&mut self, replay: &mut impl FnMut(Record)) {
        if let Some((queue, upto)) = self.held.take()
            && let Some(bounds) = self.stored.remove(&queue)
        {
            both_watermarks(queue, bounds, upto, replay);
        }
    }
}

fn both_watermarks(queue: QueueId, bounds: Bounds, upto: Sequence, replay: &mut impl FnMut(Record)) {
    replay(Record::Watermark { queue, upto: Sequence(bounds.first.0 - 1) });
    replay(Record::Watermark { queue, upto: upto.max(bounds.last) });
}

/// A message that makes the replay panic is named by `crash.json`; one that is known for it is not handled at all.
pub(crate) fn take_in_hand(record: &Record, poison: &[MessageId]) {
    let message = match record {
        Record::Publish { message, .. } | Record::Transfer { message, .. } | Record::Retain { message } => {
            Some(message)
        }
        _ => None,
    };
    crash::take_replay_in_hand(message.map(|message| message.id));
    if let Some(message) = message.filter(|message| !poison.contains(&message.id)) {
        crate::fault::planted("panic-replay", message.topic.as_str().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use postroad_base::PartitionId;

    use super::*;

    /// What the broker is told of a queue that has deliveries 10 to 20 stored.
    fn passed(watermarks: &[u64]) -> Vec<u64> {
        let queue = |ordinal| QueueId::new(PartitionId(1), ordinal);
        let bounds = Bounds { first: Sequence(10), last: Sequence(20), count: 3, bytes: 30 };
        let mut state = Watermarks { stored: [(queue(1), bounds)].into_iter().collect(), held: None };
        let mut replayed = Vec::new();
        let mut replay = |record| replayed.push(record);
        for &upto in watermarks {
            state.pass(Record::Watermark { queue: queue(1), upto: Sequence(upto) }, &mut replay);
        }
        state.pass(Record::Watermark { queue: queue(2), upto: Sequence(5) }, &mut replay);
        state.end(&mut replay);
        let of = |number| {
            let upto = |record: &Record| match record {
                Record::Watermark { queue: of, upto } if *of == queue(number) => Some(upto.0),
                _ => None,
            };
            replayed.iter().filter_map(upto).collect::<Vec<_>>()
        };
        assert_eq!(of(2), [5], "nothing is stored of it");
        of(1)
    }

    /// A single watermark below the first stored delivery, or among them, was believed: they were never read again.
    #[test]
    fn what_is_stored_is_read_whatever_the_watermarks_say() {
        assert_eq!(passed(&[]), [9, 20]);
        assert_eq!(passed(&[3]), [9, 20]);
        assert_eq!(passed(&[15]), [9, 20]);
        assert_eq!(passed(&[30]), [9, 30]);
        assert_eq!(passed(&[9, 30]), [9, 30], "as the broker writes it");
    }
}
