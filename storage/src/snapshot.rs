//! The plain fold over records: what is left of a log, without a broker. For a change of the number of shards,
//! for looking at a log, and as the oracle of tests. `broker` has its own, faster one; both must agree.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use base::{
    ClientId, KeyName, KnownIds, Message, MessageId, PartitionId, QueueId, QueueOwner, ReasonCode, Recipient, Record,
    Sequence, Tag, TopicFilter, TopicName,
};
use postroad_base as base;

use crate::old::StateKey;

/// A delivery's name.
pub type DeliveryKey = (QueueId, Sequence);

/// A shard's state, folded from its records.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    queues: BTreeMap<QueueId, Queue>,
    retained: BTreeMap<TopicName, Arc<Message>>,
    registrations: BTreeMap<ClientId, Record>,
    /// Publishes under idempotency keys.
    keys: BTreeMap<KeyName, Record>,
    /// Messages of the young generation that were taken in to be published later.
    scheduled: BTreeSet<MessageId>,
    /// Next free ordinal, by partition.
    ordinals: BTreeMap<PartitionId, QueueId>,
    /// Deliveries of the young generation that are not settled.
    pending: BTreeMap<DeliveryKey, (Recipient, Arc<Message>)>,
    /// Deliveries that were settled: those of the old generation among them are over.
    settled: BTreeSet<DeliveryKey>,
    ended: BTreeSet<QueueId>,
    /// QoS 2 messages that were taken here.
    known: KnownIds,
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Queue {
    begin: Option<Record>,
    /// The last `Connected` or `Disconnected`.
    connection: Option<Record>,
    will: Option<Record>,
    subscriptions: BTreeMap<TopicFilter, Record>,
    /// Subscriptions that retained messages are still to be given for.
    retained_due: BTreeSet<TopicFilter>,
    watermark: Option<Sequence>,
    tagged: BTreeMap<Sequence, Tag>,
    received: BTreeSet<Sequence>,
    /// The last `Attempt` of each delivery that was sent more than once.
    attempts: BTreeMap<Sequence, Record>,
    /// The last `FullSync`, until its own delivery is over.
    full_sync: Option<(Sequence, Record)>,
    /// The `Park` of each dead letter that is parked.
    parked: BTreeMap<Sequence, Record>,
    /// The `Noted` of each delivery that has one and is not over.
    noted: BTreeMap<Sequence, Record>,
    inbound: BTreeMap<Tag, Inbound>,
}

/// A QoS 2 message that its publisher has not released.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Inbound {
    id: MessageId,
    /// All shards have confirmed it: a second record says so.
    routed: bool,
}

impl State {
    /// A record of the old generation's state.
    pub fn load(&mut self, record: Record) {
        self.apply_state(record);
    }

    /// A record of the young generation. The stored state has seen those up to `as_of`; of them only the
    /// deliveries matter.
    pub fn replay(&mut self, sequence: Sequence, record: Record, as_of: Sequence) {
        self.apply_deliveries(sequence, &record);
        if sequence > as_of {
            self.apply_state(record);
        }
    }

    fn apply_deliveries(&mut self, sequence: Sequence, record: &Record) {
        match record {
            Record::Transfer { queue, sequence: of, message, recipients, .. } => {
                self.settle((*queue, *of));
                self.add_pending(sequence, message, recipients);
            }
            Record::Publish { message, recipients } => {
                if recipients.iter().any(|recipient| self.is_scheduled(recipient.queue)) {
                    self.scheduled.insert(message.id);
                }
                let taken = |recipient: &&Recipient| message.may_be_repeated() && !recipient.given;
                for recipient in recipients.iter().filter(taken) {
                    self.known.know(message.id, recipient.group.clone());
                }
                self.add_pending(sequence, message, recipients);
            }
            Record::Settle { queue, sequence, .. } => self.settle((*queue, *sequence)),
            Record::QueueEnd { queue } => {
                self.ended.insert(*queue);
                self.pending.retain(|(of, _), _| of != queue);
            }
            // No delivery comes or goes with these.
            Record::QueueBegin { .. }
            | Record::Connected { .. }
            | Record::Disconnected { .. }
            | Record::WillSet { .. }
            | Record::Subscribe { .. }
            | Record::Unsubscribe { .. }
            | Record::RetainedDue { .. }
            | Record::RetainedGiven { .. }
            | Record::Tagged { .. }
            | Record::Received { .. }
            | Record::InboundBegin { .. }
            | Record::InboundEnd { .. }
            | Record::Retain { .. }
            | Record::RetainClear { .. }
            | Record::Register { .. }
            | Record::Unregister { .. }
            | Record::Watermark { .. }
            | Record::OrdinalsUsed { .. }
            | Record::Attempt { .. }
            | Record::FullSync { .. } // what it says is over is dropped by who owns the queue
            | Record::Park { .. }
            | Record::Noted { .. }
            | Record::Key { .. } => {}
        }
    }

    fn is_scheduled(&self, queue: QueueId) -> bool {
        self.queues.get(&queue).is_some_and(Queue::is_scheduled)
    }

    fn add_pending(&mut self, sequence: Sequence, message: &Arc<Message>, recipients: &[Recipient]) {
        let deliveries = recipients.iter().map(|one| ((one.queue, sequence), (one.clone(), Arc::clone(message))));
        self.pending.extend(deliveries);
        for one in recipients {
            if let Some(noted) = Record::noted(one.queue, sequence, message) {
                self.change(one.queue, |q| _ = q.noted.insert(sequence, noted));
            }
        }
    }

    fn settle(&mut self, delivery: DeliveryKey) {
        self.pending.remove(&delivery);
        self.change(delivery.0, |q| _ = q.noted.remove(&delivery.1));
        self.settled.insert(delivery);
    }

    fn apply_state(&mut self, record: Record) {
        match record {
            Record::InboundBegin { queue, .. } | Record::Subscribe { queue, .. } if queue.holds_known_ids() => {
                self.known.replay(record);
            }
            Record::QueueBegin { queue, .. } => {
                self.use_ordinal(queue);
                self.queues.entry(queue).or_default().begin = Some(record);
            }
            Record::Connected { queue, .. } | Record::Disconnected { queue, .. } => {
                self.change(queue, |q| q.connection = Some(record));
            }
            Record::QueueEnd { queue } => {
                self.queues.remove(&queue);
            }
            Record::WillSet { queue, ref will } => {
                let will = will.is_some().then(|| record.clone());
                self.change(queue, |q| q.will = will);
            }
            Record::Subscribe { queue, ref filter, .. } => {
                let filter = filter.clone();
                self.change(queue, |q| drop(q.subscriptions.insert(filter, record)));
            }
            Record::Unsubscribe { queue, filter } => self.change(queue, |q| {
                q.subscriptions.remove(&filter);
                q.retained_due.remove(&filter);
            }),
            Record::RetainedDue { queue, filter } => self.change(queue, |q| _ = q.retained_due.insert(filter)),
            Record::RetainedGiven { queue, filter } => self.change(queue, |q| _ = q.retained_due.remove(&filter)),
            Record::Settle { queue, sequence, .. } | Record::Transfer { queue, sequence, .. } => {
                self.change(queue, |q| {
                    q.tagged.remove(&sequence);
                    q.received.remove(&sequence);
                    q.attempts.remove(&sequence);
                    q.parked.remove(&sequence);
                    q.noted.remove(&sequence);
                    q.full_sync.take_if(|(of, _)| *of == sequence);
                });
            }
            Record::Attempt { queue, sequence, .. } => self.change(queue, |q| _ = q.attempts.insert(sequence, record)),
            Record::FullSync { queue, sequence, .. } => self.change(queue, |q| q.full_sync = Some((sequence, record))),
            Record::Park { queue, sequence, note: Some(_), .. } => {
                self.change(queue, |q| _ = q.parked.insert(sequence, record));
            }
            Record::Park { queue, sequence, note: None, .. } => self.change(queue, |q| _ = q.parked.remove(&sequence)),
            Record::Noted { queue, sequence, .. } => self.change(queue, |q| _ = q.noted.insert(sequence, record)),
            Record::Tagged { queue, sequence, tag } => self.change(queue, |q| _ = q.tagged.insert(sequence, tag)),
            Record::Received { queue, sequence } => self.change(queue, |q| _ = q.received.insert(sequence)),
            Record::InboundBegin { queue, tag, id } => self.change(queue, |q| {
                let routed = q.inbound.get(&tag).is_some_and(|earlier| earlier.id == id);
                q.inbound.insert(tag, Inbound { id, routed });
            }),
            Record::InboundEnd { queue, tag } => self.change(queue, |q| _ = q.inbound.remove(&tag)),
            Record::Retain { message } => drop(self.retained.insert(message.topic.clone(), message)),
            Record::RetainClear { topic } => drop(self.retained.remove(&topic)),
            Record::Register { ref client, .. } => drop(self.registrations.insert(client.clone(), record)),
            Record::Unregister { client } => drop(self.registrations.remove(&client)),
            Record::Key { ref publish } => drop(self.keys.insert(publish.name.clone(), record)),
            Record::Watermark { queue, upto } => {
                self.change(queue, |q| q.watermark = q.watermark.max(Some(upto)));
            }
            Record::OrdinalsUsed { next } => {
                let known = self.ordinals.entry(next.partition()).or_insert(next);
                *known = next.max(*known);
            }
            Record::Publish { .. } => {}
        }
    }

    /// Records of a queue that has ended, or never began, change nothing.
    fn change(&mut self, queue: QueueId, change: impl FnOnce(&mut Queue)) {
        if let Some(queue) = self.queues.get_mut(&queue) {
            change(queue);
        }
    }

    fn use_ordinal(&mut self, queue: QueueId) {
        let next = QueueId(queue.0 + 1);
        let known = self.ordinals.entry(queue.partition()).or_insert(next);
        *known = next.max(*known);
    }

    /// Every piece of state with the records that make it, but for what is known.
    pub fn pieces(&self) -> impl Iterator<Item = (StateKey, Vec<Record>)> {
        let queues = self.queues.iter().map(|(id, queue)| (StateKey::Queue(*id), queue.records(*id)));
        let retained = self.retained.iter().map(|(topic, message)| {
            (StateKey::Retained(topic.clone()), vec![Record::Retain { message: Arc::clone(message) }])
        });
        let registrations = self
            .registrations
            .iter()
            .map(|(client, record)| (StateKey::Registration(client.clone()), vec![record.clone()]));
        let ordinals = self
            .ordinals
            .iter()
            .map(|(partition, next)| (StateKey::Ordinals(*partition), vec![Record::OrdinalsUsed { next: *next }]));
        let keys = self.keys.iter().map(|(name, record)| (StateKey::Key(name.clone()), vec![record.clone()]));
        queues.chain(retained).chain(registrations).chain(ordinals).chain(keys)
    }

    /// All has been replayed. What was taken in for later needs no second record to be known as taken in.
    pub fn finish(&mut self) {
        let scheduled = std::mem::take(&mut self.scheduled);
        let publishers = self.queues.values_mut().filter(|queue| !queue.is_scheduled());
        let tagged = publishers.flat_map(|queue| queue.inbound.values_mut());
        tagged.filter(|inbound| scheduled.contains(&inbound.id)).for_each(|inbound| inbound.routed = true);
        for record in self.keys.values_mut() {
            if let Record::Key { publish } = record
                && scheduled.contains(&publish.id)
            {
                publish.answer.get_or_insert(ReasonCode::Success);
            }
        }
    }

    /// Everything up to and with `upto` has moved to the old generation, or is over.
    pub fn set_watermarks(&mut self, upto: Sequence) {
        self.queues.values_mut().for_each(|queue| queue.watermark = Some(upto));
    }

    /// QoS 2 messages that were taken here, also of those that nobody will repeat.
    pub fn known(&self) -> &KnownIds {
        &self.known
    }

    /// These need not be known any more.
    pub fn forget_known(&mut self, is_over: impl Fn(MessageId) -> bool) {
        self.known.retain(|id| !is_over(id));
    }

    /// Messages that publishers of this shard may repeat, so that they are routed again.
    pub fn repeatable(&self) -> impl Iterator<Item = MessageId> {
        let tagged = self.queues.values().flat_map(|queue| queue.inbound.values()).map(|inbound| inbound.id);
        let keyed = self.keys.values().filter_map(|record| match record {
            Record::Key { publish } if publish.may_be_routed_again() => Some(publish.id),
            _ => None,
        });
        tagged.chain(keyed)
    }

    /// Deliveries of the young generation that still wait, by queue and sequence.
    pub fn pending(&self) -> &BTreeMap<DeliveryKey, (Recipient, Arc<Message>)> {
        &self.pending
    }

    /// Whether a delivery that is stored in the old generation is over.
    pub fn is_over(&self, delivery: DeliveryKey) -> bool {
        self.settled.contains(&delivery) || self.ended.contains(&delivery.0)
    }
}

impl Queue {
    /// Whether its messages are not due yet.
    fn is_scheduled(&self) -> bool {
        matches!(self.begin, Some(Record::QueueBegin { owner: QueueOwner::Scheduled, .. }))
    }

    fn records(&self, id: QueueId) -> Vec<Record> {
        let mut records: Vec<_> = [&self.begin, &self.connection, &self.will].into_iter().flatten().cloned().collect();
        records.extend(self.subscriptions.values().cloned());
        records.extend(self.retained_due.iter().map(|f| Record::RetainedDue { queue: id, filter: f.clone() }));
        records.extend(self.watermark.map(|upto| Record::Watermark { queue: id, upto }));
        records.extend(self.tagged.iter().map(|(&sequence, &tag)| Record::Tagged { queue: id, sequence, tag }));
        records.extend(self.received.iter().map(|&sequence| Record::Received { queue: id, sequence }));
        records.extend(self.attempts.values().chain(self.parked.values()).chain(self.noted.values()).cloned());
        records.extend(self.full_sync.iter().map(|(_, record)| record.clone()));
        for (&tag, &Inbound { id: message, routed }) in &self.inbound {
            let times = if routed { 2 } else { 1 };
            records.extend((0..times).map(|_| Record::InboundBegin { queue: id, tag, id: message }));
        }
        records
    }
}
