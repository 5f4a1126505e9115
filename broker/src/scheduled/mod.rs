//! Messages that their publishers want published later: each waits in a queue of its shard, and is published as of then
//! (DESIGN 4, `docs/adr/0023-keyed-and-scheduled-publishes.md`).
//!
//! ```text
//! publish ─ Publish ─► waiting ── its time has come ──► under way ── all shards have it ── Settle ─► over
//!    │                    ▲    InboundBegin (QoS 1, 2)      │                            InboundEnd
//!    └► answered          └──────── no room somewhere ──────┘
//! ```
//!
//! The queue is a [`Session`] of [`Role::Scheduled`], stored, retired and recovered as any other; nobody is a recipient of what
//! waits there. Another number of shards may bring several such queues together; new messages go to the first one. In memory a
//! message is its time and its sequence: its body is there while it is young, else it is read back when it is due.
//!
//! Crash story: a message that is due is to its queue what a QoS 2 message is to its publisher's session: `InboundBegin` is
//! committed before anything of it leaves, and who has it is known until `InboundEnd` (`repeats`). Its id is older than those that
//! the shard routes now, so all shards are told of it (`MayRepeat`). A crash in between finds it in its queue, and it is routed
//! again, under the same id, to those who have not got it. `Settle` stands before `InboundEnd`: a message that is still in its
//! queue is never taken for a new one.
//!
//! After a recovery the times of what is stored are read in portions. What is due goes in order of time, so it waits until all
//! times are known: of two that were due meanwhile the later one may be found first.
//!
//! Whoever looks at what waits, or takes one back, reads in the same turns (`desk`).

mod desk;

use std::collections::BTreeMap;
use std::sync::Arc;

use ahash::{AHashMap, AHashSet};
use base::{
    Ended, KeyHolder, Message, MessageId, MonoMillis, Now, Outcome, PartitionId, QueueId, QueueOwner, ReasonCode,
    Recipient, Record, Sequence, ShardId, Step, Tag, WallMillis,
};
use postroad_base as base;
use smallvec::SmallVec;

use crate::api::{BacklogEntry, Counted, Effect};
use crate::broker::Broker;
use crate::config::Config;
use crate::connect::is_logged;
use crate::drain::Bucket;
use crate::hooks::{Seen, Waiting};
use crate::mesh::{Pending, Token};
use crate::queue::Entry;
use crate::recover::take_young;
use crate::repeats::Holder;
use crate::retire::entry_of;
use crate::route::Origin;
use crate::session::{ConnectionIndex, InboundName, InboundState, Progress, Role, Session, SessionIndex};
use desk::Desk;

/// Messages that one tick publishes.
const DUE_PER_TICK: usize = 64;
/// While the log is pressed, so many, and then a pause: few, so that those who publish now do not wait for them, and not none.
const DUE_PRESSED: usize = 16;
const PAUSE_PRESSED_MILLIS: u64 = 10;
/// Messages of one queue that other shards have not all answered for: each has a tag.
const UNDER_WAY_MAX: usize = 256;
/// Tags of one queue that are taken: those that some shard has refused keep theirs until it takes them. With so many, what has none
/// waits, so that the search for one stays short.
const TAGS_MAX: usize = 4 * UNDER_WAY_MAX;
/// A message that found no room somewhere is published again so much later.
const PUT_OFF_MILLIS: u64 = 10_000;
/// The wall clock may step: nothing sleeps for longer than that.
const SLEEP_MILLIS_MAX: u64 = 60_000;

/// When, and which.
type Due = (WallMillis, QueueId, Sequence);

/// The messages of a shard that wait for their time, beside their queues.
#[derive(Debug)]
pub(crate) struct Scheduled {
    /// Their queues. Mostly one.
    queues: BTreeMap<QueueId, SessionIndex>,
    /// What waits, in order of time, each with its mark.
    waiting: BTreeMap<Due, Mark>,
    /// When those are tried again that were due and found no room somewhere.
    put_off: AHashMap<(QueueId, Sequence), WallMillis>,
    /// What is on its way to other shards.
    under_way: AHashMap<(QueueId, Tag), UnderWay>,
    /// Bodies that were read and are due.
    bodies: BTreeMap<(QueueId, Sequence), Entry>,
    reading: Option<Reading>,
    /// Who looks at them.
    desk: Desk,
    /// Recovery: what of the stored ones has not been looked at, by queue: from behind the first up to the last.
    unseen: BTreeMap<QueueId, (Sequence, Sequence)>,
    /// Recovery: messages that were due when the server ended, not found yet; whether they are over is known at the end.
    unfound: AHashMap<MessageId, (QueueId, Tag)>,
    /// Recovery: ids of young ones.
    replayed: AHashSet<MessageId>,
    /// The first one that is due lacks a credit to this shard.
    lacks: Option<ShardId>,
    rate: Bucket,
    /// Nothing is published before, since the log was pressed.
    paused_until: MonoMillis,
}

/// A few bits of a message's id: whoever looks for one by its id reads only those that have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark(u32);

impl Mark {
    fn of(id: MessageId) -> Self {
        let (millis, count) = ((id.0 >> 80) as u32, (id.0 >> 48) as u32);
        Self(millis.rotate_left(16) ^ count)
    }
}

#[derive(Clone, Copy, Debug)]
struct UnderWay {
    sequence: Sequence,
    size: usize,
}

/// What a portion of the old generation was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// The times of what is stored.
    Times,
    /// The body of this one, and maybe of others that are due.
    Body(Due),
    /// What whoever looks has asked for.
    Desk,
}

impl Scheduled {
    pub fn new(config: &Config) -> Self {
        Self {
            queues: BTreeMap::new(),
            waiting: BTreeMap::new(),
            put_off: AHashMap::new(),
            under_way: AHashMap::new(),
            bodies: BTreeMap::new(),
            reading: None,
            desk: Desk::default(),
            unseen: BTreeMap::new(),
            unfound: AHashMap::new(),
            replayed: AHashSet::new(),
            lacks: None,
            rate: Bucket::new(config.limits.scheduled_per_second),
            paused_until: MonoMillis(0),
        }
    }

    pub fn set_rate(&mut self, config: &Config, now: MonoMillis) {
        self.rate.set_rate(config.limits.scheduled_per_second, now);
    }

    fn no_longer_waits(&mut self, due: &Due) {
        let (_, queue, sequence) = *due;
        self.waiting.remove(due);
        self.bodies.remove(&(queue, sequence));
        self.put_off.remove(&(queue, sequence));
    }

    /// The same, of one of which it is not known for when it waits.
    fn due_of(&self, queue: QueueId, sequence: Sequence, message: &Message) -> Option<Due> {
        let at = message.wishes().and_then(|wishes| wishes.deliver_at).unwrap_or_default();
        let at = self.put_off.get(&(queue, sequence)).copied().unwrap_or(at);
        Some((at, queue, sequence)).filter(|due| self.waiting.contains_key(due))
    }

    /// Recovery: a young record holds this one.
    pub fn replayed(&mut self, id: MessageId) {
        self.replayed.insert(id);
    }

    /// Whether a step for who looks can be taken: what waits is known, and nothing is being read.
    fn desk_is_due(&self) -> bool {
        self.desk.is_wanted() && self.reading.is_none() && self.unseen.is_empty()
    }

    /// When the first one can be published.
    fn due(&self, now: Now) -> Option<MonoMillis> {
        if self.reading.is_some() || self.lacks.is_some() || self.under_way.len() >= UNDER_WAY_MAX {
            return None; // whatever ends that goes on
        }
        let (&(at, ..), _) = self.waiting.first_key_value()?;
        Some(match at.since(now.wall) {
            0 => self.rate.portion_at().max(self.paused_until),
            left => now.mono.after(left.min(SLEEP_MILLIS_MAX)),
        })
    }
}

// On its way in.
impl Broker {
    /// Whether it is not to be published now.
    pub(crate) fn is_for_later(&self, message: &Message) -> bool {
        message.wishes().is_some_and(|wishes| wishes.is_for_later(self.now.wall))
    }

    /// Whether this is a queue of messages that wait for their time.
    pub(crate) fn is_scheduled(&self, index: SessionIndex) -> bool {
        self.sessions.get(index as usize).is_some_and(|session| session.role == Role::Scheduled)
    }

    /// Takes a client's publish in, for later.
    pub(crate) fn put_off(&mut self, place: ConnectionIndex, waiting: Waiting, earlier: Option<InboundState>) {
        if let Some((reason, why)) = self.schedule_refusal(&waiting.inbound.message) {
            return self.refuse(place, &waiting, reason, why);
        }
        let (answered, seen) = (waiting.answered(), waiting.seen());
        let mut inbound = waiting.inbound;
        let index = self.session_of(place);
        let Session { id: queue, logged, .. } = self.sessions[index as usize];
        let known = Some(inbound.message.id).filter(|id| seen != Seen::Not && *id == self.ids.newest());
        let id = known.unwrap_or_else(|| earlier.map_or_else(|| self.ids.next(self.now.wall), |state| state.id));
        Arc::make_mut(&mut inbound.message).id = id;
        if seen != Seen::Part {
            self.stats.received += 1;
            self.tell_taken(place, inbound.tag, id, &inbound.message);
        }
        let exactly_once = inbound.tag.filter(|_| inbound.message.qos == base::Qos::ExactlyOnce);
        let begin = exactly_once.filter(|_| logged).map(|tag| Record::InboundBegin { queue, tag, id });
        if let Some(begin) = begin.clone().filter(|_| earlier.is_none()) {
            self.append(begin);
        }
        let by = self.holder_of(index);
        self.schedule(inbound.message, Some(by));
        if let Some(begin) = begin {
            self.append(begin); // no other shard has to have it
            self.mark_dirty(index);
        }
        let Some((tag, kind)) = answered else { return };
        let (reason, need) = (ReasonCode::Success, self.gate.appended());
        let need = if self.config.durable { need } else { Sequence(0) };
        if exactly_once.is_some() {
            let progress = Progress::Routed { reason, need };
            self.note_inbound(index, tag, InboundState { id, progress, told: earlier.is_some() });
        }
        self.answer(place, tag, kind, reason, need, false);
    }

    /// QoS 0 of a client that is gone before it was taken in.
    pub(crate) fn put_off_orphan(&mut self, message: Arc<Message>) {
        match self.schedule_refusal(&message) {
            Some((_, why)) => self.count(why),
            None => {
                let by = self.session_of_queue(message.publisher).map(|index| self.holder_of(index));
                self.schedule(message, by);
            }
        }
    }

    /// Why a message can't be put off, if so.
    pub(crate) fn schedule_refusal(&self, message: &Message) -> Option<(ReasonCode, Counted)> {
        let at = message.wishes().and_then(|wishes| wishes.deliver_at)?;
        if at.since(self.now.wall) > self.config.limits.scheduled_delay_max_ms {
            return Some((ReasonCode::ImplementationSpecificError, Counted::ScheduledDelay));
        }
        if self.disk_full {
            return Some((ReasonCode::QuotaExceeded, Counted::DiskFull));
        }
        let queues = self.scheduled.queues.values().map(|index| &self.sessions[*index as usize].queue);
        let (count, bytes) =
            queues.fold((0, 0), |(count, bytes), queue| (count + queue.messages(), bytes + queue.bytes_pending()));
        let is_too_much = count >= self.config.limits.scheduled_max
            || bytes + message.size() > self.config.limits.scheduled_bytes_max;
        is_too_much.then_some((ReasonCode::QuotaExceeded, Counted::ScheduledLimit))
    }

    /// Puts a message into the queue. Its id is given, and there is room. `by`: who may take it back.
    pub(crate) fn schedule(&mut self, mut message: Arc<Message>, by: Option<KeyHolder>) {
        if let Some(extras) = &mut Arc::make_mut(&mut message).extras {
            extras.scheduled_by = by;
        }
        let Some(at) = message.wishes().and_then(|wishes| wishes.deliver_at) else { return };
        if self.is_followed(&message) {
            self.tell_published(&message);
        }
        let index = self.scheduled_queue();
        let queue = self.sessions[index as usize].id;
        let (qos, retain, identifiers) = (message.qos, message.retain, SmallVec::new());
        let mut entry =
            Entry { sequence: Sequence(0), message, identifiers, qos, retain, dup: false, stored: false, group: None };
        entry.sequence = if self.config.durable {
            // Who has it is asked when it is due: the queue is no taker.
            let recipients = vec![Recipient { given: true, ..entry.recipient(queue) }];
            self.append(Record::Publish { message: Arc::clone(&entry.message), recipients })
        } else {
            self.position()
        };
        self.scheduled.waiting.insert((at, queue, entry.sequence), Mark::of(entry.message.id));
        self.sessions[index as usize].queue.push(entry);
        self.mark_dirty(index);
    }

    /// Where new ones go.
    fn scheduled_queue(&mut self) -> SessionIndex {
        if let Some((_, index)) = self.scheduled.queues.first_key_value() {
            return *index;
        }
        let id = self.new_queue_id_in(PartitionId(self.config.shard.0), self.config.durable);
        let index = self.add_scheduled_queue(Session::of_scheduled(id, self.config.durable));
        self.log_queue_begin(index, QueueOwner::Scheduled);
        index
    }

    pub(crate) fn add_scheduled_queue(&mut self, session: Session) -> SessionIndex {
        let id = session.id;
        let index = self.add_queue(session);
        self.scheduled.queues.insert(id, index);
        index
    }
}

// When it is due.
impl Broker {
    /// When a tick has something to do here. After a recovery not before all shards have told what they want: who would not be
    /// known to want it would not get it.
    pub(crate) fn scheduled_due(&self) -> Option<MonoMillis> {
        if self.repeats.recovering { None } else { self.scheduled.due(self.now) }
    }

    /// Whether a tick is due for who looks at what waits.
    pub(crate) fn desk_is_due(&self) -> bool {
        self.scheduled.desk_is_due()
    }

    /// Publishes what is due, in order of time, as much as one tick may.
    pub(crate) fn publish_due(&mut self) {
        if self.scheduled.waiting.is_empty() || self.now.mono < self.scheduled.paused_until {
            return;
        }
        let most = if self.log_pressed { DUE_PRESSED } else { DUE_PER_TICK };
        let most = most.min(self.scheduled.rate.room(self.now.mono));
        let mut count = 0;
        while count < most && self.publish_next_due() {
            count += 1;
        }
        self.scheduled.rate.take(count as u64, self.now.mono);
        if self.log_pressed {
            self.scheduled.paused_until = self.now.mono.after(PAUSE_PRESSED_MILLIS);
        }
    }

    /// A credit of this shard has come back.
    pub(crate) fn due_goes_on(&mut self, from: ShardId) {
        if self.scheduled.lacks.take_if(|shard| *shard == from).is_some()
            && self.scheduled.rate.room(self.now.mono) > 0
            && self.publish_next_due()
        {
            self.scheduled.rate.take(1, self.now.mono);
        }
    }

    /// Publishes the next one, if it is due and nothing is lacking.
    fn publish_next_due(&mut self) -> bool {
        let Some((&due, _)) = self.scheduled.waiting.first_key_value() else { return false };
        let (at, queue, sequence) = due;
        let is_ready = self.scheduled_due().is_some() && at <= self.now.wall;
        let Some(index) = self.scheduled.queues.get(&queue).copied().filter(|_| is_ready) else { return false };
        let young = self.sessions[index as usize].queue.young.find(sequence, |_| true).cloned();
        let Some(entry) = young.or_else(|| self.scheduled.bodies.get(&(queue, sequence)).cloned()) else {
            self.read_scheduled(queue, Sequence(sequence.0 - 1), Reading::Body(due));
            return false;
        };
        self.publish_entry(index, due, entry)
    }

    /// Whether it was dealt with; else it lacks a credit.
    fn publish_entry(&mut self, index: SessionIndex, due: Due, entry: Entry) -> bool {
        let message = self.as_of_now(&entry.message);
        if self.poison.has(message.id) {
            self.scheduled.no_longer_waits(&due);
            self.set_scheduled_aside(index, &entry);
            return true;
        }
        if message.expires_at.is_some_and(|at| at <= self.now.wall) {
            self.count(Counted::Expired);
            self.end_waiting(index, due, &entry, Outcome::Expired);
            return true;
        }
        if self.lacks_room(&message).is_some() || self.lacks_tags(index, message.id) {
            self.wait_longer(due, message.id); // its publisher was told that it is safe
            return true;
        }
        self.collect(&message, Origin::Here);
        match self.scratch.refusal {
            Some((why @ Counted::UnknownClient, _)) => {
                self.count(why);
                self.end_waiting(index, due, &entry, Outcome::Refused);
                return true;
            }
            Some(_) => {
                self.wait_longer(due, message.id);
                return true;
            }
            None => {}
        }
        if let Some(shard) = self.lacking_credit(&message) {
            self.scheduled.lacks = Some(shard);
            return false;
        }
        if self.must_reject(&message) {
            self.wait_longer(due, message.id); // its publisher was told that it is safe
            return true;
        }
        self.route_due(index, due, message, &entry);
        true
    }

    fn route_due(&mut self, index: SessionIndex, due: Due, message: Arc<Message>, entry: &Entry) {
        let (_, queue, sequence) = due;
        if !message.qos.is_acknowledged() {
            self.route(message, false);
            return self.end_waiting(index, due, entry, Outcome::Moved);
        }
        self.scheduled.no_longer_waits(&due);
        let id = message.id;
        let (logged, asks_others) = (self.sessions[index as usize].logged, self.asks_others(&message));
        let tag = self.tag_of_due(index, id);
        let session = &mut self.sessions[index as usize];
        let was_told = session.inbound_mut(tag).is_some_and(|state| state.told);
        if asks_others && !was_told {
            self.note_inbound(index, tag, InboundState { id, progress: Progress::Unknown, told: true });
            self.tell_may_repeat(vec![id]);
        }
        let routed = self.route(message, logged);
        let Some(token) = routed.token else {
            return self.end_due(index, tag, sequence, entry.size());
        };
        let inbound = InboundName { session: index, queue, tag, id };
        if let Some(Token::Publish(pending)) = self.mesh.tokens.get_mut(&token) {
            pending.holder = Some(Holder::Tag(inbound));
        }
        self.note_inbound(index, tag, InboundState { id, progress: Progress::Routing(token), told: true });
        self.scheduled.under_way.insert((queue, tag), UnderWay { sequence, size: entry.size() });
    }

    /// Whether other shards have to confirm what `collect` was called for.
    fn asks_others(&self, message: &Message) -> bool {
        let is_retained_elsewhere =
            || message.retain && self.config.placement.home(message.topic.as_str().as_bytes()) != self.config.shard;
        !self.scratch.shards.is_empty() || !self.scratch.share_forwards.is_empty() || is_retained_elsewhere()
    }

    /// Whether it has no tag, and very many others have one.
    fn lacks_tags(&self, index: SessionIndex, id: MessageId) -> bool {
        let inbound = &self.sessions[index as usize].inbound;
        inbound.len() >= TAGS_MAX && inbound.iter().all(|(_, state)| state.id != id)
    }

    /// The tag that holds its id; a new one unless it was due before, and has not come to everybody.
    fn tag_of_due(&mut self, index: SessionIndex, id: MessageId) -> Tag {
        let Session { inbound, id: queue, logged, .. } = &self.sessions[index as usize];
        if let Some((tag, _)) = inbound.iter().find(|(_, state)| state.id == id) {
            return *tag;
        }
        let is_free = |tag: &Tag| inbound.iter().all(|(taken, _)| taken != tag);
        let tag = (1..=u16::MAX).filter_map(Tag::new).find(is_free).expect("few are under way");
        let (queue, logged) = (*queue, *logged);
        if logged {
            self.append(Record::InboundBegin { queue, tag, id });
            self.mark_dirty(index);
        }
        self.note_inbound(index, tag, InboundState { id, progress: Progress::Unknown, told: false });
        tag
    }

    /// All shards have answered for a message that was due.
    pub(crate) fn due_concluded(&mut self, token: u64, inbound: InboundName, pending: &Pending) {
        let InboundName { session: index, queue, tag, .. } = inbound;
        let state = self.sessions[index as usize].inbound_mut(tag);
        let Some(state) = state.filter(|state| state.progress == Progress::Routing(token)) else { return };
        state.progress = Progress::Unknown;
        let id = state.id;
        let Some(UnderWay { sequence, size }) = self.scheduled.under_way.remove(&(queue, tag)) else { return };
        match pending.refusal {
            Some(ReasonCode::TopicNameInvalid) => {
                self.count(Counted::UnknownClient);
                self.end_scheduled(index, sequence, size, Outcome::Refused);
                self.free_inbound(index, tag);
            }
            // Its publisher was told that it is safe: those who have it leave it out when it comes again.
            Some(_) => {
                self.know_groups(id, &pending.groups);
                self.wait_longer((WallMillis(0), queue, sequence), id);
            }
            None => {
                if !pending.matched {
                    self.count(Counted::NoSubscriber);
                }
                self.end_due(index, tag, sequence, size);
            }
        }
    }

    /// It is with all who want it.
    fn end_due(&mut self, index: SessionIndex, tag: Tag, sequence: Sequence, size: usize) {
        self.end_scheduled(index, sequence, size, Outcome::Moved);
        self.free_inbound(index, tag);
    }

    /// It is over without having been routed.
    fn end_waiting(&mut self, index: SessionIndex, due: Due, entry: &Entry, outcome: Outcome) {
        self.scheduled.no_longer_waits(&due);
        self.end_scheduled(index, entry.sequence, entry.size(), outcome);
        self.free_due(index, entry.message.id);
        if outcome != Outcome::Moved && self.is_followed(&entry.message) {
            let how = Ended::With(outcome);
            self.tell(&entry.message, None, Step::Over { how, reason_code: 0, attempts: 0 });
        }
    }

    /// It was due before a crash, and is over now.
    fn free_due(&mut self, index: SessionIndex, id: MessageId) {
        let held = self.sessions[index as usize].inbound.iter().find(|(_, state)| state.id == id);
        if let Some(&(tag, _)) = held {
            self.free_inbound(index, tag);
        }
    }

    fn end_scheduled(&mut self, index: SessionIndex, sequence: Sequence, size: usize, outcome: Outcome) {
        let stored = self.take_scheduled(index, sequence, size);
        self.settle(index, sequence, stored, outcome);
    }

    /// It leaves its queue, as far as that is in memory. Whether the old generation has it.
    fn take_scheduled(&mut self, index: SessionIndex, sequence: Sequence, size: usize) -> bool {
        let queue = &mut self.sessions[index as usize].queue;
        if let Some(entry) = take_young(queue, sequence) {
            return entry.stored;
        }
        if let Some(backlog) = &mut queue.backlog {
            backlog.one_less(Some(size));
        }
        true
    }

    fn set_scheduled_aside(&mut self, index: SessionIndex, entry: &Entry) {
        let stored = self.take_scheduled(index, entry.sequence, entry.size());
        self.end_poisoned(&entry.message, &[(index, entry.sequence, stored)]);
        self.free_due(index, entry.message.id);
    }

    /// Somewhere is no room for it: later.
    fn wait_longer(&mut self, due: Due, id: MessageId) {
        self.scheduled.no_longer_waits(&due);
        let ((_, queue, sequence), at) = (due, self.now.wall.after(PUT_OFF_MILLIS));
        self.scheduled.waiting.insert((at, queue, sequence), Mark::of(id));
        self.scheduled.put_off.insert((queue, sequence), at);
    }

    /// As it is published. A session of a former run that the log did not know is nobody's today: its number may be
    /// another's.
    fn as_of_now(&self, message: &Arc<Message>) -> Arc<Message> {
        let is_of_this_run = message.id.boot() == self.config.boot;
        if is_of_this_run || message.publisher == QueueId::NONE || is_logged(message.publisher) {
            return Arc::clone(message);
        }
        Arc::new(Message { publisher: QueueId::NONE, ..(**message).clone() })
    }

    /// Whether a message is due and under way under this id.
    pub(crate) fn is_due_under(&self, id: MessageId) -> bool {
        let mut queues = self.scheduled.queues.values().map(|index| &self.sessions[*index as usize]);
        queues.any(|queue| queue.inbound.iter().any(|(_, state)| state.id == id))
    }
}

// What is stored.
impl Broker {
    fn read_scheduled(&mut self, queue: QueueId, after: Sequence, what: Reading) {
        self.scheduled.reading = Some(what);
        let (messages_max, bytes_max) = (self.config.backlog_messages_max, self.config.backlog_bytes_max);
        self.effects.push_back(Effect::ReadBacklog { queue, after, messages_max, bytes_max });
    }

    /// A portion has come.
    pub(crate) fn scheduled_read(&mut self, index: SessionIndex, entries: Vec<BacklogEntry>, end: bool) {
        let queue = self.sessions[index as usize].id;
        match self.scheduled.reading.take() {
            None => {}
            Some(Reading::Times) => {
                self.take_times(index, queue, &entries, end);
                // One portion is enough: what is left out is read again.
                if self.scheduled.bodies.is_empty() {
                    self.keep_due_bodies(queue, entries);
                }
            }
            Some(Reading::Body(due)) => {
                self.take_body(due, entries);
                self.serve_desk(); // else who publishes would read again and again, and nobody else
            }
            Some(Reading::Desk) => self.desk_read(&entries, end),
        }
        self.read_times();
    }

    fn take_body(&mut self, due: Due, mut entries: Vec<BacklogEntry>) {
        let (_, queue, sequence) = due;
        self.scheduled.bodies.clear();
        if entries.first().is_none_or(|first| first.sequence != sequence) {
            return self.scheduled.no_longer_waits(&due); // it is over, whatever was believed
        }
        let asked = entries.remove(0);
        self.keep_due_bodies(queue, entries);
        self.scheduled.bodies.insert((queue, sequence), entry_of(asked));
    }

    /// Of what was read, what is due now.
    fn keep_due_bodies(&mut self, queue: QueueId, entries: Vec<BacklogEntry>) {
        for item in entries {
            let due = self.scheduled.due_of(queue, item.sequence, &item.message);
            if due.is_some_and(|(at, ..)| at <= self.now.wall) {
                self.scheduled.bodies.insert((queue, item.sequence), entry_of(item));
            }
        }
    }

    /// Recovery is over: what is young is known, what is stored is looked through.
    pub(crate) fn scheduled_recovered(&mut self) {
        let taken_in = std::mem::take(&mut self.scheduled.replayed);
        self.keys_recovered(&taken_in);
        self.tags_recovered(&taken_in);
        let queues: Vec<_> = self.scheduled.queues.iter().map(|(queue, index)| (*queue, *index)).collect();
        for (queue, index) in queues {
            let session = &self.sessions[index as usize];
            if let Some(backlog) = &session.queue.backlog {
                self.scheduled.unseen.insert(queue, (backlog.after, backlog.until));
            }
            self.scheduled.unfound.extend(session.inbound.iter().map(|(tag, state)| (state.id, (queue, *tag))));
            let young: Vec<_> =
                session.queue.young.iter().map(|entry| (entry.sequence, Arc::clone(&entry.message))).collect();
            young.into_iter().for_each(|(sequence, message)| self.found(queue, sequence, &message));
        }
        self.read_times();
    }

    /// A client's message that was put off needs no second record to be known as taken in.
    fn tags_recovered(&mut self, taken_in: &AHashSet<MessageId>) {
        if taken_in.is_empty() {
            return;
        }
        for index in self.session_places() {
            let session = &mut self.sessions[index as usize];
            if session.role != Role::Session {
                continue;
            }
            let mut is_changed = false;
            for (_, state) in session.inbound.iter_mut().filter(|(_, state)| taken_in.contains(&state.id)) {
                is_changed |= state.progress == Progress::Unknown;
                state.progress = Progress::Routed { reason: ReasonCode::Success, need: Sequence(0) };
            }
            if is_changed {
                self.mark_dirty(index);
            }
        }
    }

    fn found(&mut self, queue: QueueId, sequence: Sequence, message: &Message) {
        self.scheduled.unfound.remove(&message.id);
        let at = message.wishes().and_then(|wishes| wishes.deliver_at).unwrap_or_default();
        self.scheduled.waiting.insert((at, queue, sequence), Mark::of(message.id));
    }

    /// Asks for the next times, if some are not known yet.
    fn read_times(&mut self) {
        if self.scheduled.reading.is_some() {
            return;
        }
        if let Some((&queue, &(after, _))) = self.scheduled.unseen.first_key_value() {
            return self.read_scheduled(queue, after, Reading::Times);
        }
        // All have been looked at: what was due and is not here is over, and only the end of its tag is missing.
        for (_, (queue, tag)) in std::mem::take(&mut self.scheduled.unfound) {
            if let Some(&index) = self.scheduled.queues.get(&queue) {
                self.free_inbound(index, tag);
            }
        }
    }

    fn take_times(&mut self, index: SessionIndex, queue: QueueId, entries: &[BacklogEntry], end: bool) {
        let Some(&(after, until)) = self.scheduled.unseen.get(&queue) else { return };
        for item in entries.iter().filter(|item| item.sequence <= until) {
            let backlog = self.sessions[index as usize].queue.backlog.as_ref();
            if !backlog.is_some_and(|backlog| backlog.skip.contains(&item.sequence)) {
                self.found(queue, item.sequence, &item.message);
            }
        }
        let after = entries.last().map_or(after, |last| last.sequence);
        if !end && after < until {
            self.scheduled.unseen.insert(queue, (after, until));
            return;
        }
        self.scheduled.unseen.remove(&queue);
        if let Some(backlog) = &mut self.sessions[index as usize].queue.backlog {
            backlog.skip.clear();
        }
    }
}
