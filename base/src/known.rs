//! QoS 2 messages that their publishers may repeat, and who has taken them: a repeat goes to the others only.
//!
//! As records they are the state of a queue that no session has, one for each shard. `InboundBegin` with tag 1: ordinary
//! subscribers have taken the message; with tag 2: the share groups of the `Subscribe` records that follow have. With another
//! number of shards a shard has clients of several former ones, of which only some may have taken it: that is
//! `InboundBegin` with tag 1, too, of the former shard's queue.

use std::collections::BTreeMap;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::{MessageId, PartitionId, Placement, QueueId, Record, ShardId, SubscriptionOptions, Tag, TopicFilter};

/// One of so many shards, before their number was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FormerShard {
    pub shard: ShardId,
    pub shards: u16,
}

/// Who has taken a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Takers {
    /// Ordinary subscribers of this shard.
    pub here: bool,
    /// Ordinary subscribers that lived there.
    pub former: SmallVec<[FormerShard; 1]>,
    /// Share groups, by members on whatever shard.
    pub groups: SmallVec<[Arc<TopicFilter>; 1]>,
}

/// The messages, by id.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KnownIds {
    takers: BTreeMap<MessageId, Takers>,
    /// Recovery: the last id that a record has named.
    last: MessageId,
}

impl FormerShard {
    /// The queue that says what it has taken. Its ordinal says how many shards there were.
    fn queue(self) -> QueueId {
        QueueId::new(PartitionId(self.shard.0), LAST_ORDINAL - u64::from(self.shards))
    }
}

impl Takers {
    /// Whether this ordinary subscriber has it.
    pub fn has(&self, queue: QueueId) -> bool {
        let lived_there =
            |former: &FormerShard| Placement::shard_among(queue.partition(), former.shards) == former.shard;
        self.here || self.former.iter().any(lived_there)
    }

    /// The records that say so of a message, as `shard` writes them.
    fn records(&self, shard: ShardId, id: MessageId) -> Vec<Record> {
        let queue = QueueId::of_known_ids(shard);
        let begin = |queue, number| Record::InboundBegin { queue, tag: tag(number), id };
        let options = SubscriptionOptions::default();
        let of_group = |group: &Arc<TopicFilter>| Record::Subscribe { queue, filter: (**group).clone(), options };
        let ordinary = self.here.then(|| begin(queue, ORDINARY));
        let former = self.former.iter().map(|former| begin(former.queue(), ORDINARY));
        let by_groups = (!self.groups.is_empty()).then(|| begin(queue, GROUPS));
        ordinary.into_iter().chain(former).chain(by_groups).chain(self.groups.iter().map(of_group)).collect()
    }

    fn add_former(&mut self, former: FormerShard) {
        if !self.here && !self.former.contains(&former) {
            self.former.push(former);
        }
    }
}

const ORDINARY: u16 = 1;
const GROUPS: u16 = 2;

fn tag(number: u16) -> Tag {
    Tag::new(number).expect("not 0")
}

/// Of a partition. Sessions never get so far.
const LAST_ORDINAL: u64 = (1 << QueueId::ORDINAL_BITS) - 1;

impl QueueId {
    /// The queue, of no session, whose records say what `shard` has taken: the last of the first partition that lives there.
    pub fn of_known_ids(shard: ShardId) -> Self {
        Self::new(PartitionId(shard.0), LAST_ORDINAL)
    }

    /// Whether it is such a queue, of a shard of now or a former one.
    pub fn holds_known_ids(self) -> bool {
        self.ordinal() >= LAST_ORDINAL - u64::from(u16::MAX)
    }
}

impl KnownIds {
    /// How many messages.
    pub fn len(&self) -> usize {
        self.takers.len()
    }

    /// Whether nothing is known of any message.
    pub fn is_empty(&self) -> bool {
        self.takers.is_empty()
    }

    /// Who has this message, if anybody.
    pub fn get(&self, id: MessageId) -> Option<&Takers> {
        if self.takers.is_empty() { None } else { self.takers.get(&id) }
    }

    /// Ordinary subscribers here, or a share group, have it. Whether that is news.
    pub fn know(&mut self, id: MessageId, group: Option<Arc<TopicFilter>>) -> bool {
        let takers = self.takers.entry(id).or_default();
        match group {
            None => {
                takers.former.clear();
                !std::mem::replace(&mut takers.here, true)
            }
            Some(group) if takers.groups.contains(&group) => false,
            Some(group) => {
                takers.groups.push(group);
                true
            }
        }
    }

    /// All that a shard knew, which lived with others before their number was changed.
    pub fn know_former(&mut self, known: &Self, shard: FormerShard) {
        for (&id, of_then) in &known.takers {
            let takers = self.takers.entry(id).or_default();
            of_then.former.iter().for_each(|former| takers.add_former(*former));
            if of_then.here {
                takers.add_former(shard);
            }
            for group in &of_then.groups {
                self.know(id, Some(Arc::clone(group)));
            }
        }
    }

    /// It needs not be known any more. Whether it was.
    pub fn forget(&mut self, id: MessageId) -> bool {
        self.takers.remove(&id).is_some()
    }

    /// Forgets the others.
    pub fn retain(&mut self, is_wanted: impl Fn(MessageId) -> bool) {
        self.takers.retain(|id, _| is_wanted(*id));
    }

    /// Messages that share groups have taken.
    pub fn taken_by_groups(&self) -> Vec<(MessageId, TopicFilter)> {
        let each = |(&id, takers): (&MessageId, &Takers)| {
            takers.groups.iter().map(move |group| (id, (**group).clone())).collect::<Vec<_>>()
        };
        self.takers.iter().flat_map(each).collect()
    }

    /// All as records of this shard.
    pub fn records(&self, shard: ShardId) -> Vec<Record> {
        self.takers.iter().flat_map(|(&id, takers)| takers.records(shard, id)).collect()
    }

    /// One of these.
    pub fn replay(&mut self, record: Record) {
        match record {
            Record::InboundBegin { queue, tag: named, id } => {
                self.last = id;
                let shards = LAST_ORDINAL - queue.ordinal();
                if named != tag(ORDINARY) {
                    return;
                }
                match u16::try_from(shards).expect("`holds_known_ids`") {
                    0 => drop(self.know(id, None)),
                    shards => {
                        let former = FormerShard { shard: ShardId(queue.partition().0), shards };
                        self.takers.entry(id).or_default().add_former(former);
                    }
                }
            }
            Record::Subscribe { filter, .. } => drop(self.know(self.last, Some(Arc::new(filter)))),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str) -> Arc<TopicFilter> {
        Arc::new(TopicFilter::new(name.to_owned()).unwrap())
    }

    fn replayed(records: Vec<Record>) -> KnownIds {
        let mut known = KnownIds::default();
        records.into_iter().for_each(|record| known.replay(record));
        known
    }

    #[test]
    fn records_say_it_all() {
        let mut known = KnownIds::default();
        known.know(MessageId(1), None);
        known.know(MessageId(2), Some(group("$share/g/a")));
        known.know(MessageId(2), Some(group("$share/h/a")));
        let mut moved = KnownIds::default();
        moved.know_former(&known, FormerShard { shard: ShardId(2), shards: 3 });
        moved.know(MessageId(3), None);
        for known in [known, moved] {
            let records = known.records(ShardId(5));
            assert!(records.iter().all(|record| match record {
                Record::InboundBegin { queue, .. } | Record::Subscribe { queue, .. } => queue.holds_known_ids(),
                _ => false,
            }));
            assert_eq!(replayed(records).takers, known.takers);
        }
    }

    /// Shard 2 of 3 had it, then all was moved to 1 shard, to 4, and what one of these knows to 2.
    #[test]
    fn who_had_it_has_it_whatever_the_number_of_shards() {
        let (id, first) = (MessageId(9), FormerShard { shard: ShardId(2), shards: 3 });
        let mut of_then = KnownIds::default();
        of_then.know(id, None);
        let (mut one, mut four, mut two) = (KnownIds::default(), KnownIds::default(), KnownIds::default());
        one.know_former(&of_then, first);
        four.know_former(&one, FormerShard { shard: ShardId(0), shards: 1 });
        four.know(id, None);
        two.know_former(&one, FormerShard { shard: ShardId(0), shards: 1 });
        two.know_former(&four, FormerShard { shard: ShardId(1), shards: 4 });
        let has = |known: &KnownIds| -> Vec<u16> {
            let takers = known.get(id).unwrap();
            (0..12).filter(|n| takers.has(QueueId::new(PartitionId(*n), 1))).collect()
        };
        assert_eq!(has(&one), [2, 5, 8, 11]);
        assert_eq!(has(&four), (0..12).collect::<Vec<_>>());
        assert_eq!(has(&two), [1, 2, 5, 8, 9, 11]);
    }
}
