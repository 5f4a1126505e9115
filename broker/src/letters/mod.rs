//! Dead letters: deliveries that nobody has got (DESIGN 6). Each stays until somebody acts on it, or until it is too old, or
//! there are too many.
//!
//! ```text
//!  a client's queue ──Transfer──► letters of the shard ──Transfer──► the client's queue (requeue)
//!                                        │ │
//!                                 parked ┘ └─Settle──► dropped, too old, one too many
//! ```
//!
//! The letters of a shard stand in one queue in the order in which they died: a [`Session`] of [`Role::Letters`], stored,
//! retired and recovered as any other, but read by whoever looks (`walk`), not in turn. Its `Backlog` says what is stored: what
//! of it is over stands in `skip` until the old generation has forgotten it. Another number of shards may bring several such
//! queues together; new letters go to the first one.
//!
//! Crash story: one record ends the delivery and makes the letter, one record ends the letter and makes the delivery. A lease
//! is only in memory: after a crash whatever was leased is free.

mod act;
mod walk;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use ahash::AHashMap;
use base::{
    Death, Ended, Extras, LetterId, Message, MessageId, MonoMillis, Outcome, Parked, PartitionId, Qos, QueueId,
    QueueOwner, Recipient, Record, Sequence, Step, TopicName, WallMillis, Wishes,
};
use postroad_base as base;
use smallvec::SmallVec;

use crate::api::{Counted, Effect};
use crate::broker::Broker;
use crate::config::QueuePolicy;
use crate::gate::Waiter;
use crate::hooks::Stamp;
use crate::queue::{Attempts, Entry};
use crate::session::{Role, Session, SessionIndex};
use crate::timers::{Timer, TimerKey};
pub(crate) use act::NOBODY;
use walk::Job;

/// Time between two looks for letters that are too old.
const SWEEP_MILLIS: u64 = 60_000;

/// The dead letters of a shard, beside their queues.
#[derive(Debug, Default)]
pub(crate) struct Letters {
    /// Their queues, by id. Mostly one.
    queues: BTreeMap<QueueId, SessionIndex>,
    /// Those that wait for a human.
    parked: BTreeMap<LetterId, Parked>,
    /// Until when somebody has them.
    leases: AHashMap<LetterId, MonoMillis>,
    /// What is asked of them, one after the other: each may have to read.
    jobs: VecDeque<Job>,
    /// The first one waits for a portion of the old generation.
    is_reading: bool,
    /// Over, and in the batch under way: the old generation forgets them.
    going: Vec<LetterId>,
    /// Forgotten by it; a portion that is being read may still hold them.
    gone: Vec<LetterId>,
    sweep: Option<TimerKey>,
    /// How many have come about since the start.
    made: u64,
    /// What is to be told of them, and receipts, in turns to come: both may come about in the middle of routing another message.
    announcements: VecDeque<Arc<Message>>,
}

/// Whether a delivery is over with its letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    WithIt,
    /// At QoS 2 its tag is still to be released.
    Later,
}

/// Announcements that one tick publishes.
const ANNOUNCED_PER_TICK: usize = 64;

impl Letters {
    /// Whether a tick is due for them.
    pub fn has_steps(&self) -> bool {
        !self.announcements.is_empty() || (!self.jobs.is_empty() && !self.is_reading)
    }

    /// It waits for a human, or no more.
    pub fn set_parked(&mut self, id: LetterId, parked: Option<Parked>) {
        match parked {
            Some(parked) => self.parked.insert(id, parked),
            None => self.parked.remove(&id),
        };
    }

    /// It is over.
    pub fn forget(&mut self, id: LetterId) {
        self.parked.remove(&id);
        self.leases.remove(&id);
    }

    /// The parked ones of this queue, for a snapshot.
    pub fn parked_into(&self, queue: QueueId, records: &mut Vec<Record>) {
        let all = LetterId { queue, sequence: Sequence(0) }..=LetterId { queue, sequence: Sequence(u64::MAX) };
        records.extend(self.parked.range(all).map(|(id, Parked { at, note })| Record::Park {
            queue,
            sequence: id.sequence,
            at: *at,
            note: Some(note.clone()),
        }));
    }

    /// These stored deliveries are over, says the batch that leaves now.
    pub fn retired(&mut self, settled: &[(QueueId, Sequence)]) {
        if self.queues.is_empty() {
            return;
        }
        let letters = settled.iter().filter(|(queue, _)| self.queues.contains_key(queue));
        self.going.extend(letters.map(|&(queue, sequence)| LetterId { queue, sequence }));
    }

    fn is_leased(&self, id: LetterId, now: MonoMillis) -> bool {
        self.leases.get(&id).is_some_and(|until| *until > now)
    }
}

impl Broker {
    /// How many letters have come about since the start: whoever follows them looks again when there are more.
    pub fn letters_made(&self) -> u64 {
        self.letters.made
    }

    /// A delivery is over that its receiver has not got: it becomes a dead letter, if it is one to keep.
    pub(crate) fn end_undelivered(&mut self, index: SessionIndex, entry: &Entry, outcome: Outcome, reason_code: u8) {
        if !self.is_letter(entry, outcome) {
            let over = self.over(index, entry, Ended::With(outcome), reason_code);
            self.settle(index, entry.sequence, entry.stored, outcome);
            return self.tell_step(index, entry, over);
        }
        self.make_letter(index, entry, outcome, reason_code, Ends::WithIt);
    }

    /// It becomes a dead letter.
    pub(crate) fn make_letter(
        &mut self,
        index: SessionIndex,
        entry: &Entry,
        outcome: Outcome,
        reason_code: u8,
        ends: Ends,
    ) {
        let message = self.letter_of(index, entry, outcome, reason_code);
        let from = &self.sessions[index as usize];
        let ended = (from.logged && ends == Ends::WithIt).then_some((from.id, entry.sequence, outcome));
        let letter = Entry { message: Arc::clone(&message), stored: false, dup: false, group: None, ..entry.clone() };
        let (letters, id) = self.add_letter(letter, ended);
        if self.is_followed(&message) {
            let (how, attempts) = (Ended::With(outcome), message.death().map_or(0, |death| death.attempts));
            self.tell_of(index, &message, Step::Dead { letter: id, how, reason_code, attempts });
        }
        if ends == Ends::WithIt {
            self.note_ended(index, entry.sequence, entry.stored, outcome);
        }
        if message.requeues() >= self.config.limits.requeues_max {
            let note = format!("died again after {} requeues", message.requeues());
            self.park(letters, id, Some(note.into()));
        }
        self.announce_letter(id, &message);
        if message.requeues() < self.config.limits.requeues_max {
            self.show_letter_later(id, &message);
        }
        self.keep_letters_few();
    }

    /// Keeps a letter from elsewhere. Nobody is told of it on `$dead/…`: it did not die here.
    pub(crate) fn import_letter(
        &mut self,
        token: u64,
        mut message: Arc<Message>,
        note: Option<bytestring::ByteString>,
    ) {
        if self.config.limits.letters_max == 0 || self.disk_full || message.death().is_none() {
            return self.effects.push_back(Effect::LetterKept { token, id: None });
        }
        if message.id == MessageId(0) {
            Arc::make_mut(&mut message).id = self.ids.next(self.now.wall);
        }
        let now = self.now.wall;
        if let Some(death) = Arc::make_mut(&mut message).extras.as_mut().and_then(|extras| extras.death.as_mut()) {
            death.at = death.at.min(now); // else it would keep what is behind it for ever
        }
        let id = self.keep_letter(message, note);
        self.after_commit(Waiter::Emit(Box::new(Effect::LetterKept { token, id: Some(id) })));
    }

    /// Keeps a letter that is the end of no delivery here, for a human if there is a note.
    pub(crate) fn keep_letter(&mut self, message: Arc<Message>, note: Option<bytestring::ByteString>) -> LetterId {
        let (qos, retain, identifiers, sequence) = (message.qos, message.retain, SmallVec::new(), Sequence(0));
        let letter = Entry { sequence, message, identifiers, qos, retain, dup: false, stored: false, group: None };
        let (letters, id) = self.add_letter(letter, None);
        if note.is_some() {
            self.park(letters, id, note);
        }
        self.keep_letters_few();
        id
    }

    /// What had no chance to be delivered, or was refused, is worth a look; what took its time is not, nor what tells of letters.
    pub(crate) fn is_letter(&self, entry: &Entry, outcome: Outcome) -> bool {
        let is_kept = match outcome {
            Outcome::Refused | Outcome::TooLarge | Outcome::Unacknowledged | Outcome::Attempts => true,
            Outcome::Overflow => self.config.limits.queue_policy == QueuePolicy::DeadLetterOldest,
            Outcome::Acknowledged
            | Outcome::Expired
            | Outcome::Moved
            | Outcome::Poison
            | Outcome::Requeued
            | Outcome::Dropped
            | Outcome::Retention
            | Outcome::Collapsed
            | Outcome::Cancelled
            | Outcome::Quarantined => false,
        };
        is_kept
            && entry.qos.is_acknowledged()
            && !is_of_server(&entry.message.topic)
            && self.config.limits.letters_max > 0
    }

    fn letter_of(&self, index: SessionIndex, entry: &Entry, outcome: Outcome, reason_code: u8) -> Arc<Message> {
        let session = &self.sessions[index as usize];
        let attempts = session.queue.attempts_at(entry.sequence);
        let was_sent = entry.dup || reason_code > 0 || outcome == Outcome::Unacknowledged;
        let death = Death {
            client: session.client.clone(),
            is_push: session.role == Role::Registration,
            is_group: session.role == Role::Group,
            outcome,
            reason_code,
            attempts: attempts.map_or(u32::from(was_sent), |attempts| attempts.count),
            sent: attempts.map(|Attempts { first, last, .. }| (first, last)),
            at: self.now.wall,
            error: self.consumers.error_of(index, entry.sequence),
        };
        let known = entry.message.extras.as_deref().cloned().unwrap_or_default();
        let extras = Extras { death: Some(Box::new(death)), ..known };
        Arc::new(Message { extras: Some(Box::new(extras)), ..(*entry.message).clone() })
    }

    /// Where new letters go.
    fn letters_queue(&mut self) -> SessionIndex {
        if let Some((_, index)) = self.letters.queues.first_key_value() {
            return *index;
        }
        let id = self.new_queue_id_in(PartitionId(self.config.shard.0), self.config.durable);
        let index = self.add_letters_queue(Session::of_letters(id, self.config.durable));
        self.log_queue_begin(index, QueueOwner::Dead);
        index
    }

    pub(crate) fn add_letters_queue(&mut self, session: Session) -> SessionIndex {
        let id = session.id;
        let index = self.add_queue(session);
        self.letters.queues.insert(id, index);
        index
    }

    /// Writes a letter down, with the delivery of which it is the end, if there is one, and keeps it. Its sequence is given here.
    fn add_letter(
        &mut self,
        mut letter: Entry,
        ended: Option<(QueueId, Sequence, Outcome)>,
    ) -> (SessionIndex, LetterId) {
        self.letters.made += 1;
        let letters = self.letters_queue();
        let to = self.sessions[letters as usize].id;
        // No publisher repeats it, and no other shard cares.
        let recipients = vec![Recipient { given: true, ..letter.recipient(to) }];
        let message = Arc::clone(&letter.message);
        letter.sequence = match ended {
            Some((queue, sequence, outcome)) => {
                self.append(Record::Transfer { queue, sequence, outcome, message, recipients })
            }
            None if self.config.durable => self.append(Record::Publish { message, recipients }),
            None => self.position(),
        };
        let id = LetterId { queue: to, sequence: letter.sequence };
        self.sessions[letters as usize].queue.push(letter);
        self.mark_dirty(letters);
        self.sweep_letters_later();
        (letters, id)
    }

    /// Tells who has subscribed to it, once it is safe. A letter of which nobody was told before a crash is found by whoever looks.
    fn announce_letter(&mut self, id: LetterId, message: &Arc<Message>) {
        let Some(death) = message.death() else { return };
        let Ok(topic) = TopicName::new(format!("$dead/{}/{}", death.outcome.name(), message.topic)) else { return };
        let extras = Extras {
            letter: Some(id),
            original: Some(message.original()),
            wishes: Wishes::default(),
            scheduled_by: None,
            ..message.extras.as_deref().cloned().unwrap_or_default()
        };
        let announcement = Message {
            topic,
            qos: Qos::AtLeastOnce,
            retain: false,
            expires_at: None,
            publisher: QueueId::NONE,
            extras: Some(Box::new(extras)),
            ..(**message).clone()
        };
        self.after_commit(Waiter::Announce(Arc::new(announcement)));
    }

    pub(crate) fn announce_later(&mut self, message: Arc<Message>) {
        if self.letters.announcements.len() >= self.config.deferred_max {
            return self.count(Counted::QueueOverflow); // what it tells of is so all the same
        }
        self.letters.announcements.push_back(message);
    }

    pub(crate) fn announce_some(&mut self) {
        for _ in 0..ANNOUNCED_PER_TICK {
            let Some(message) = self.letters.announcements.pop_front() else { return };
            self.publish_orphan(message, Stamp::default());
        }
    }

    fn park(&mut self, letters: SessionIndex, id: LetterId, note: Option<bytestring::ByteString>) {
        let at = self.now.wall;
        if self.sessions[letters as usize].logged {
            let LetterId { queue, sequence } = id;
            self.append(Record::Park { queue, sequence, at, note: note.clone() });
        }
        self.mark_dirty(letters);
        self.letters.set_parked(id, note.map(|note| Parked { at, note }));
    }

    /// Above the bounds the oldest go.
    fn keep_letters_few(&mut self) {
        if self.has_too_many_letters() {
            self.trim_letters();
        }
    }

    fn has_too_many_letters(&self) -> bool {
        let queues = self.letters.queues.values().map(|index| &self.sessions[*index as usize].queue);
        let (count, bytes) =
            queues.fold((0, 0), |(count, bytes), queue| (count + queue.messages(), bytes + queue.bytes_pending()));
        count > self.config.limits.letters_max || bytes > self.config.limits.letters_bytes_max
    }

    /// Whether one that died then is to go for its age.
    fn is_letter_old(&self, died: WallMillis) -> bool {
        let most = self.config.limits.letters_age_max_ms;
        most > 0 && self.now.wall.since(died) >= most
    }

    fn sweep_letters_later(&mut self) {
        if self.letters.sweep.is_none() {
            self.letters.sweep = Some(self.timers.set(self.now.mono.after(SWEEP_MILLIS), Timer::Letters));
        }
    }

    /// Some may be too old by now.
    pub(crate) fn letters_aged(&mut self) {
        self.letters.sweep = None;
        let Self { letters, now, .. } = self;
        letters.leases.retain(|_, until| *until > now.mono);
        self.trim_letters();
        if self.letters.queues.values().any(|index| self.sessions[*index as usize].queue.messages() > 0) {
            self.sweep_letters_later();
        }
    }

    /// The bounds are new.
    pub(crate) fn letters_bounded(&mut self) {
        self.letters_recovered();
        self.keep_letters_few();
    }

    /// Recovery is over: what was stored grows old, too.
    pub(crate) fn letters_recovered(&mut self) {
        if !self.letters.queues.is_empty() {
            self.sweep_letters_later();
        }
    }
}

/// Whether it tells of another message: nobody has to want to know.
pub(crate) fn is_announcement(topic: &TopicName) -> bool {
    topic.is_reserved() && ["$dead/", "$receipt/"].iter().any(|root| topic.as_str().starts_with(root))
}

/// What the server itself says ends without a letter: else one would follow from another.
pub(crate) fn is_of_server(topic: &TopicName) -> bool {
    topic.is_reserved()
        && ["$dead/", "$receipt/", "$sync/", "$SYS/"].iter().any(|root| topic.as_str().starts_with(root))
}
