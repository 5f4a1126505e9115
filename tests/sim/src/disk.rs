//! One shard's log and old generation, as a model that forgets.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use base::{Message, QueueId, QueueOwner, Recipient, Record, Sequence, SessionExpiry, WallMillis};
use postroad_base as base;
use postroad_broker::Broker;
use postroad_broker::api::{BacklogEntry, Retirement, StateKey};

/// Log and old generation.
#[derive(Debug)]
pub struct Disk {
    /// Young records, oldest first.
    records: VecDeque<(Sequence, Record)>,
    /// How many of them survive a crash.
    committed: usize,
    next: Sequence,
    as_of: Sequence,
    state: BTreeMap<StateKey, Vec<Record>>,
    stored: BTreeMap<(QueueId, Sequence), BacklogEntry>,
}

impl Disk {
    pub fn new() -> Self {
        Self {
            records: VecDeque::new(),
            committed: 0,
            next: Sequence(1),
            as_of: Sequence(0),
            state: BTreeMap::new(),
            stored: BTreeMap::new(),
        }
    }

    /// An empty log, in front of it a queue of dead letters that a change of the number of shards has brought here.
    pub fn bring_letters(&mut self, queue: QueueId, letters: Vec<Arc<Message>>) {
        let (owner, expiry, at) = (QueueOwner::Dead, SessionExpiry::NEVER, WallMillis(0));
        let upto = Sequence(letters.len() as u64).max(self.as_of);
        let both = [Sequence(0), upto].map(|upto| Record::Watermark { queue, upto });
        let begin = Record::QueueBegin { queue, owner, expiry, at };
        self.state.insert(StateKey::Queue(queue), [begin].into_iter().chain(both).collect());
        for (message, sequence) in letters.into_iter().zip(1..).map(|(message, number)| (message, Sequence(number))) {
            let (identifiers, group) = (Default::default(), None);
            let recipient = Recipient { queue, qos: message.qos, retain: false, given: true, identifiers, group };
            self.stored.insert((queue, sequence), BacklogEntry { sequence, recipient, message });
        }
        (self.as_of, self.next) = (upto, upto.next());
    }

    pub fn append(&mut self, record: Record) {
        self.records.push_back((self.next, record));
        self.next = self.next.next();
    }

    pub fn uncommitted(&self) -> usize {
        self.records.len() - self.committed
    }

    /// The next `count` records are safe; the last of them.
    pub fn commit(&mut self, count: usize) -> Option<Sequence> {
        self.committed += count.min(self.uncommitted());
        self.last_committed()
    }

    /// The newest record that survives a crash.
    pub fn last_committed(&self) -> Option<Sequence> {
        self.records.get(self.committed.checked_sub(1)?).map(|(sequence, _)| *sequence)
    }

    /// The newest record.
    pub fn last(&self) -> Option<Sequence> {
        self.records.back().map(|(sequence, _)| *sequence)
    }

    /// Stores a batch. The segments go later: see `recycle`.
    pub fn ingest(&mut self, batch: &Retirement) {
        for (key, state) in &batch.state {
            match state {
                Some(records) => self.state.insert(key.clone(), records.clone()),
                None => self.state.remove(key),
            };
        }
        for (queue, entry) in &batch.pending {
            self.stored.insert((*queue, entry.sequence), entry.clone());
        }
        for key in &batch.settled {
            self.stored.remove(key);
        }
        self.stored.retain(|(queue, _), _| !batch.ended.contains(queue));
        self.state.retain(|key, _| !matches!(key, StateKey::Queue(queue) if batch.ended.contains(queue)));
        self.as_of = batch.as_of;
    }

    /// Gives up the segments up to `upto`.
    pub fn recycle(&mut self, upto: Sequence) {
        while self.committed > 0 && self.records.front().is_some_and(|(sequence, _)| *sequence <= upto) {
            self.records.pop_front();
            self.committed -= 1;
        }
    }

    pub fn portion(&self, queue: QueueId, after: Sequence, messages_max: usize) -> (Vec<BacklogEntry>, bool) {
        let all = self.stored.range((queue, after.next())..=(queue, Sequence(u64::MAX)));
        let entries: Vec<_> = all.map(|(_, entry)| entry.clone()).take(messages_max).collect();
        let end = entries.len() < messages_max;
        (entries, end)
    }

    /// Forgets what was not committed. What is left is replayed: the snapshot, how much is stored of each queue, the log.
    pub fn crash(&mut self, broker: &mut Broker) {
        self.records.truncate(self.committed);
        let last = self.last().unwrap_or(Sequence(0)).max(self.as_of);
        self.next = last.next();
        for record in self.state.values().flatten() {
            broker.replay(Sequence(0), self.as_of, record.clone());
        }
        let mut sizes: BTreeMap<QueueId, (usize, usize)> = BTreeMap::new();
        for ((queue, _), BacklogEntry { message, .. }) in &self.stored {
            let (messages, bytes) = sizes.entry(*queue).or_default();
            *messages += 1;
            *bytes += message.payload.len() + message.properties.len() + message.topic.as_str().len();
        }
        for (queue, (messages, bytes)) in sizes {
            broker.replay_stored(queue, messages, bytes);
        }
        for (sequence, record) in &self.records {
            broker.replay(*sequence, self.as_of, record.clone());
        }
    }

    /// Stored deliveries of queues that are not: space that never comes back.
    pub fn orphans(&self) -> usize {
        let lives = |queue: &QueueId| self.state.contains_key(&StateKey::Queue(*queue));
        self.stored.keys().filter(|(queue, _)| !lives(queue)).count()
    }

    pub fn next(&self) -> Sequence {
        self.next
    }
}
