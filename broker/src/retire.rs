//! The young log gives its oldest segments back: what is still pending in them moves to the old generation.
//!
//! Order: `Retire` → the batch is put together → it leaves as `Ingest` once the last record that it knows of is
//! committed (a state that the log might forget must not be stored) → `Ingested` → bodies that wait leave memory.
//!
//! A crowd may have changed hundreds of thousands of sessions, so the batch is put together in steps. What changes in
//! between is put into it again, behind what it has of it, which replaces that: all of it is as of the last step.
//!
//! A delivery counts as stored from the moment at which it is in a batch: if it is settled later, that batch or the next
//! one removes it.

use std::collections::BTreeMap;
use std::sync::Arc;

use ahash::{AHashMap, AHashSet};
use base::{Message, Outcome, Priority, QueueId, QueueOwner, Record, Sequence, TopicName};
use bytestring::ByteString;
use postroad_base as base;

use crate::api::{BacklogEntry, Counted, Effect, Retirement, StateKey};
use crate::broker::Broker;
use crate::gate::Waiter;
use crate::pull::NO_MESSAGE;
use crate::queue::{Attempts, Backlog, Entry, NOT_OVER, Queue};
use crate::session::{Progress, Role, Session, SessionIndex};

/// What changed since the last retirement.
#[derive(Debug, Default)]
pub(crate) struct Retiring {
    /// Retained topics and ordinals.
    pub dirty: AHashSet<StateKey>,
    /// Sessions; each marks itself `dirty`, so that it is here once.
    pub dirty_queues: Vec<QueueId>,
    /// Sessions, not all of them dirty, with deliveries that were too young for the last batch.
    too_young: Vec<QueueId>,
    /// Sessions with deliveries in memory that the batch under way holds.
    in_batch: Vec<QueueId>,
    /// The same of a batch that is stored: they are to leave memory.
    leaving: Vec<QueueId>,
    /// The batch that is being put together.
    assembly: Option<Box<Assembly>>,
    /// Retirements so far.
    count: u32,
    /// What the last batch covers, and the last one that is stored.
    upto: Sequence,
    stored: Sequence,
    /// Retirements whose batch is stored.
    stored_count: u32,
    pub ended: Vec<QueueId>,
    /// Recovery: kept once the clock is known, which their expiry needs.
    pub replayed_retained: AHashMap<TopicName, Arc<Message>>,
    /// Stored deliveries that are over.
    pub settled: Vec<(QueueId, Sequence)>,
}

/// A batch in the making, with what is still to be put into it.
#[derive(Debug)]
struct Assembly {
    batch: Retirement,
    queues: Vec<QueueId>,
    keys: Vec<StateKey>,
    /// The last record, and how much had changed, at the step before.
    appended: Sequence,
    changed: usize,
    /// Over what has changed during the one before.
    rounds: usize,
}

/// Rounds of a retirement over what has changed; the last one is one step.
const ROUNDS_MAX: usize = 4;
/// Stored deliveries that are read at once to be dropped.
const TRIMMED_MAX: usize = 8;
/// Stored deliveries that are read at once for those of high priority among them.
const READ_OUT_OF_TURN: usize = 32;

impl Retiring {
    /// Whether a tick is due for it.
    pub fn has_steps(&self) -> bool {
        self.assembly.is_some() || !self.leaving.is_empty()
    }

    /// Retirements so far, and those whose batch is stored.
    pub fn counts(&self) -> (u32, u32) {
        (self.count, self.stored_count)
    }

    /// Pieces of state that have changed and are in no batch.
    fn changed(&self) -> usize {
        self.dirty_queues.len() + self.dirty.len()
    }

    /// What has changed goes into the batch, too. Whether there is any.
    fn take_changed(&mut self, assembly: &mut Assembly) -> bool {
        let any = self.changed() > 0;
        assembly.changed = 0;
        assembly.rounds += 1;
        assembly.queues.append(&mut self.dirty_queues);
        assembly.keys.extend(self.dirty.drain());
        any
    }
}

impl Broker {
    /// The session's state has changed.
    pub(crate) fn mark_dirty(&mut self, index: SessionIndex) {
        let session = &mut self.sessions[index as usize];
        if session.logged && !session.dirty {
            session.dirty = true;
            self.retiring.dirty_queues.push(session.id);
        }
    }

    /// One retirement at a time: the next one begins after `Ingested`.
    pub(crate) fn retire(&mut self, upto: Sequence) {
        assert!(self.retiring.assembly.is_none(), "a batch is being put together: what is in it would be in none");
        self.retiring.count += 1;
        // Whoever got something since the last batch is dirty, or was too young for it: the others, of which there may be a
        // million, are not looked at.
        let queues = std::mem::take(&mut self.retiring.too_young);
        let batch = Retirement { upto, ..Retirement::default() };
        let mut assembly = Box::new(Assembly {
            batch,
            queues,
            keys: Vec::new(),
            appended: self.gate.appended(),
            changed: 0,
            rounds: 0,
        });
        self.retiring.take_changed(&mut assembly);
        self.retiring.assembly = Some(assembly);
        self.assemble_some();
    }

    /// The next steps of what a retirement has to do here.
    pub(crate) fn retire_some(&mut self) {
        self.leave_some();
        self.assemble_some();
    }

    /// The next step of the batch; the last one, if little is left.
    ///
    /// Four pieces for each change since the last step, if that is more than the usual: then a round over what has changed is
    /// shorter than the one before, and what the log takes in meanwhile is bounded by what had changed. Such a step is long only
    /// behind a turn that was: a fan-out to 100,000 sessions changes them all. Sessions with much in flight are many pieces for one
    /// change: the last round is one step, so that it ends whatever comes.
    fn assemble_some(&mut self) {
        let Some(mut assembly) = self.retiring.assembly.take() else { return };
        let appended = self.gate.appended().0 - std::mem::replace(&mut assembly.appended, self.gate.appended()).0;
        let changed = self.retiring.changed() - std::mem::replace(&mut assembly.changed, self.retiring.changed());
        let mut left = self.config.retired_per_step.max(4 * changed.max(appended as usize));
        loop {
            let Assembly { batch, queues, keys, .. } = &mut *assembly;
            while left > 0
                && let Some(queue) = queues.pop()
            {
                if !self.queue_into(queue, batch, &mut left) {
                    queues.push(queue);
                }
            }
            while left > 0
                && let Some(key) = keys.pop()
            {
                let state = self.state_of(&key);
                batch.state.push((key, state));
                left -= 1;
            }
            if !queues.is_empty() || !keys.is_empty() {
                self.retiring.assembly = Some(assembly);
                return;
            }
            if !self.retiring.take_changed(&mut assembly) {
                return self.give_to_old(assembly.batch);
            }
            if assembly.rounds >= ROUNDS_MAX {
                left = usize::MAX;
            }
        }
    }

    /// Nothing has changed that is not in it.
    fn give_to_old(&mut self, mut batch: Retirement) {
        self.known_ids_into(&mut batch);
        batch.as_of = self.gate.appended();
        self.retiring.upto = batch.upto;
        batch.settled = std::mem::take(&mut self.retiring.settled);
        self.letters.retired(&batch.settled);
        batch.ended = std::mem::take(&mut self.retiring.ended);
        let effect = Effect::Ingest { batch: Box::new(batch) };
        self.after_commit(Waiter::Emit(Box::new(effect)));
    }

    /// What is pending of this queue in the segments that go, and its state, if either has changed. `left` is what the step may
    /// still take, in pieces; whether the queue is done with, or the next step goes on with it.
    fn queue_into(&mut self, queue: QueueId, batch: &mut Retirement, left: &mut usize) -> bool {
        *left -= 1;
        let Some(index) = self.session_of_queue(queue) else {
            batch.state.push((StateKey::Queue(queue), None));
            return true;
        };
        let before = batch.pending.len();
        let is_whole = self.pending_into(index, batch, left);
        let session = &mut self.sessions[index as usize];
        session.dirty |= batch.pending.len() > before;
        if !is_whole {
            return false; // its state follows what is pending
        }
        if std::mem::take(&mut session.dirty) {
            session.watermark = session.watermark.max(batch.upto);
            let mut state = session_records(session);
            self.letters.parked_into(queue, &mut state);
            *left = left.saturating_sub(state.len());
            batch.state.push((StateKey::Queue(queue), Some(state)));
        }
        true
    }

    /// What is pending of this queue and not stored yet. Whether that is all, or `left` did not suffice.
    fn pending_into(&mut self, index: SessionIndex, batch: &mut Retirement, left: &mut usize) -> bool {
        let session = &mut self.sessions[index as usize];
        let queue = session.id;
        let (before, mut too_young, mut is_whole) = (batch.pending.len(), false, true);
        for (_, slot) in session.queue.window.iter_mut() {
            if let Some(entry) = &mut slot.entry {
                too_young |= entry.sequence > batch.upto;
                entry_into(entry, queue, batch);
                slot.stored |= entry.stored;
            }
        }
        *left = left.saturating_sub(batch.pending.len() - before);
        let mut count = 0;
        for line in session.queue.young.lines_mut() {
            let stored = line.partition_point(|entry| entry.stored);
            for entry in line.range_mut(stored..) {
                if entry.sequence > batch.upto {
                    too_young = true;
                    break;
                }
                if *left == 0 && count > 0 {
                    is_whole = false;
                    break;
                }
                entry_into(entry, queue, batch);
                *left = left.saturating_sub(1);
                count += 1;
            }
        }
        let number = self.retiring.count;
        if too_young && std::mem::replace(&mut session.too_young_in, number) != number {
            self.retiring.too_young.push(queue);
        }
        if is_whole && session.queue.young.oldest_stored().is_some() {
            self.retiring.in_batch.push(queue);
        }
        is_whole
    }

    /// Ids that publishers may repeat outlive the records that hold them, as if a queue of ours had taken them in.
    fn known_ids_into(&mut self, batch: &mut Retirement) {
        self.repeats.outlive(batch.upto);
        if !std::mem::take(&mut self.repeats.known_dirty) {
            return;
        }
        let queue = QueueId::of_known_ids(self.config.shard);
        let records = self.repeats.known.records(self.config.shard);
        batch.state.push((StateKey::Queue(queue), Some(records).filter(|records| !records.is_empty())));
    }

    fn state_of(&self, key: &StateKey) -> Option<Vec<Record>> {
        match key {
            StateKey::Retained(topic) => {
                let message = self.retained.get(topic.as_str())?.message.clone();
                Some(vec![Record::Retain { message }])
            }
            StateKey::Ordinals(partition) => {
                let next = QueueId::new(*partition, self.ordinals[usize::from(partition.0)]);
                Some(vec![Record::OrdinalsUsed { next }])
            }
            StateKey::Registration(client) => Some(vec![self.registration_record(client)?]),
            StateKey::Key(name) => Some(vec![self.key_record(name)?]),
            StateKey::Queue(_) => None,
        }
    }

    /// The batch is in the old generation: what it holds and waits leaves memory.
    pub(crate) fn ingested(&mut self) {
        (self.retiring.stored, self.retiring.stored_count) = (self.retiring.upto, self.retiring.count);
        let Retiring { leaving, in_batch, .. } = &mut self.retiring;
        leaving.append(in_batch);
        self.letters_ingested();
        self.leave_some();
    }

    fn leave_some(&mut self) {
        let mut left = self.config.retired_per_step;
        while left > 0
            && let Some(queue) = self.retiring.leaving.pop()
        {
            let count = self.leave_memory(queue, left);
            if count == left {
                self.retiring.leaving.push(queue); // there may be more of it
            }
            left = left.saturating_sub(1 + count);
        }
    }

    /// What is stored of this queue and waits leaves memory, to be read back in portions when its turn comes, `most` at a time; how
    /// many that was.
    fn leave_memory(&mut self, queue: QueueId, most: usize) -> usize {
        let Some(index) = self.session_of_queue(queue) else { return 0 };
        let (stored, stored_count) = (self.retiring.stored, self.retiring.stored_count);
        let Session { queue, role, .. } = &mut self.sessions[index as usize];
        let has_turns = !role.is_read_out_of_turn();
        let (mut count, mut first, mut last, mut high) = (0, None, Sequence(0), Vec::new());
        let (mut bytes, mut maybe_sent) = (0, [0; Priority::ALL.len()]);
        while count < most
            && let Some(entry) = queue.young.pop_stored(stored)
        {
            count += 1;
            bytes += entry.size();
            maybe_sent[entry.priority() as usize] += usize::from(entry.dup);
            first = first.or(Some((entry.sequence, entry.message.id.published_at())));
            last = entry.sequence;
            high.extend((has_turns && entry.priority() == Priority::High).then_some(last));
        }
        let Some((first, published)) = first else { return 0 };
        queue.bytes -= bytes.min(queue.bytes);
        let after = Sequence(first.0 - 1);
        let backlog = queue.backlog.get_or_insert_with(|| Box::new(Backlog { after, ..Backlog::default() }));
        backlog.high.extend(high);
        for (known, maybe_sent) in
            backlog.maybe_sent.iter_mut().zip(maybe_sent).filter(|(_, maybe_sent)| *maybe_sent > 0)
        {
            // What is older may have been sent before the crash, too.
            *known = (*known).max(backlog.unread + maybe_sent);
        }
        backlog.until = last;
        if backlog.unread == 0 {
            backlog.oldest_at = Some(published);
        }
        backlog.unread += count;
        backlog.unread_bytes += bytes;
        backlog.ended = false;
        backlog.extended = backlog.reading;
        queue.pass_what_went_before(stored_count);
        self.read_backlog(index);
        count
    }

    /// Asks for the next portion of a connected (or ending) session's stored deliveries, in time.
    pub(crate) fn read_backlog(&mut self, index: SessionIndex) {
        let is_wanted = match &self.sessions[index as usize] {
            Session { role: Role::Group, .. } => self.is_group_waited_for(index),
            session => session.ending || self.ready_for_next(index).is_some(),
        };
        let session = &mut self.sessions[index as usize];
        let is_restoring = session.queue.backlog.is_some() && session.queue.is_restoring();
        let Some(backlog) = &mut session.queue.backlog else { return };
        if !is_wanted || backlog.reading || backlog.ended {
            return;
        }
        let (mut messages_max, bytes_max) = (self.config.backlog_messages_max, self.config.backlog_bytes_max);
        let high = backlog.high.first().copied();
        let high = high.filter(|_| backlog.portion.front(Priority::High).is_none() && !is_restoring);
        backlog.out_of_turn = high.and_then(|_| backlog.high.last().copied());
        let after = match high {
            Some(high) => {
                messages_max = messages_max.min(READ_OUT_OF_TURN);
                Sequence(high.0 - 1)
            }
            None if !backlog.takes_portion(messages_max) => return,
            None => backlog.after,
        };
        backlog.reading = true;
        let queue = session.id;
        self.effects.push_back(Effect::ReadBacklog { queue, after, messages_max, bytes_max });
    }

    /// `drop_oldest`, and the oldest are stored: reads them, to drop them. Whether there are any; then the new one is
    /// taken in, and the queue is above its limit until they have come.
    pub(crate) fn trim_stored(&mut self, index: SessionIndex) -> bool {
        let session = &mut self.sessions[index as usize];
        let Some(backlog) = session.queue.backlog.as_mut().filter(|backlog| !backlog.ended) else { return false };
        backlog.trimming = true;
        if !std::mem::replace(&mut backlog.reading, true) {
            // Few at a time: what is read and not dropped stays in memory until the client comes.
            let (messages_max, bytes_max) =
                (self.config.backlog_messages_max.min(TRIMMED_MAX), self.config.backlog_bytes_max);
            let (queue, after) = (session.id, backlog.after);
            self.effects.push_back(Effect::ReadBacklog { queue, after, messages_max, bytes_max });
        }
        true
    }

    /// What was read to be dropped.
    pub(crate) fn trim(&mut self, index: SessionIndex) {
        let mut dropped = 0;
        loop {
            let queue = &mut self.sessions[index as usize].queue;
            let (messages_max, bytes_max) = (self.config.limits.queue_messages_max, self.config.limits.queue_bytes_max);
            if queue.messages() <= messages_max && queue.bytes_pending() <= bytes_max {
                break;
            }
            let Some(oldest) = queue.pop_for_room() else {
                self.trim_stored(index);
                break;
            };
            queue.bytes -= oldest.size().min(queue.bytes);
            dropped += 1;
            self.end_undelivered(index, &oldest, Outcome::Overflow, 0);
        }
        self.count_by(Counted::QueueOverflow, dropped);
    }

    /// A portion has come.
    pub(crate) fn backlog(&mut self, queue: QueueId, mut entries: Vec<BacklogEntry>, end: bool) {
        if self.peeked(queue, &entries, end) {
            return self.peeks_go_on(queue);
        }
        let Some(index) = self.session_of_queue(queue) else { return self.peeks_go_on(queue) };
        match self.sessions[index as usize].role {
            Role::Letters => return self.letters_read(index, &entries, end),
            Role::Scheduled => return self.scheduled_read(index, entries, end),
            Role::Session | Role::Registration | Role::Group => {}
        }
        let Some(mut backlog) = self.sessions[index as usize].queue.backlog.take() else {
            return self.peeks_go_on(queue);
        };
        backlog.reading = false;
        if let Some(asked) = backlog.out_of_turn.take() {
            return self.read_out_of_turn(index, backlog, entries, if end { Some(asked) } else { None });
        }
        let read = entries.len();
        // The others are in memory still: they become backlog with `Ingested`.
        entries.truncate(entries.iter().take_while(|item| item.sequence <= backlog.until).count());
        let end = end || entries.len() < read;
        let unwanted = self.take_portion(index, &mut backlog, entries, ReadFor::Turn);
        backlog.ended = end && !std::mem::take(&mut backlog.extended);
        if backlog.ended {
            (backlog.unread, backlog.unread_bytes, backlog.overflown) = (0, 0, 0);
            backlog.high.clear();
        }
        let is_for_room = std::mem::take(&mut backlog.trimming);
        if !backlog.ended || !backlog.portion.is_empty() {
            self.sessions[index as usize].queue.backlog = Some(backlog);
        }
        self.portion_taken(index, unwanted, is_for_room);
    }

    /// A portion is where it belongs: what is over of it ends, and what waited for it goes on.
    fn portion_taken(&mut self, index: SessionIndex, unwanted: Unwanted, is_for_room: bool) {
        let Unwanted { poisoned, overflown } = unwanted;
        self.set_stored_aside(index, poisoned);
        self.drop_stored_overflown(index, &overflown);
        if is_for_room {
            self.trim(index);
        }
        self.peeks_go_on(self.sessions[index as usize].id);
        self.pump(index);
    }

    /// Of these, the ones of high priority go before all others. The rest is read again in its turn. `end`: nothing more was stored
    /// up to there.
    fn read_out_of_turn(
        &mut self,
        index: SessionIndex,
        mut backlog: Box<Backlog>,
        mut entries: Vec<BacklogEntry>,
        end: Option<Sequence>,
    ) {
        let looked = end.max(entries.last().map(|item| item.sequence));
        entries.retain(|item| backlog.high.contains(&item.sequence));
        // What was looked for and not found is over.
        if let Some(looked) = looked {
            backlog.high = backlog.high.split_off(&looked.next());
        }
        let unwanted = self.take_portion(index, &mut backlog, entries, ReadFor::HighPriority);
        let is_for_room = std::mem::take(&mut backlog.trimming);
        self.sessions[index as usize].queue.backlog = Some(backlog);
        self.portion_taken(index, unwanted, is_for_room);
    }

    /// Each delivery that was read goes where it belongs, but for those that are not to be delivered.
    fn take_portion(
        &mut self,
        index: SessionIndex,
        backlog: &mut Backlog,
        entries: Vec<BacklogEntry>,
        read_for: ReadFor,
    ) -> Unwanted {
        let queue = &mut self.sessions[index as usize].queue;
        let in_window: AHashMap<Sequence, base::Tag> = queue.window.iter().map(|(tag, s)| (s.sequence, tag)).collect();
        let mut unwanted = Unwanted::default();
        for item in entries {
            let is_covered = queue.full_sync().is_some_and(|sync| sync.covers(item.sequence));
            let is_overflown = is_covered && !in_window.contains_key(&item.sequence);
            let waits = match read_for {
                ReadFor::Turn => backlog.note_read(&item, is_overflown),
                ReadFor::HighPriority => backlog.note_read_out_of_turn(&item),
            };
            if !waits {
                continue;
            }
            if self.poison.has(item.message.id) {
                if let Some(key) = item.message.collapse_key() {
                    queue.forget_collapsible(item.sequence, key);
                }
                unwanted.poisoned.push((item.message, item.sequence));
                continue;
            }
            if is_overflown {
                unwanted.overflown.push(entry_of(item));
                continue;
            }
            let mut entry = entry_of(item);
            entry.group = entry.group.map(|name| self.groups.name(name));
            match in_window.get(&entry.sequence) {
                None => add_to_portion(queue, backlog, entry),
                Some(tag) => give_body(queue, *tag, entry),
            }
        }
        unwanted
    }
}

/// Why stored deliveries were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadFor {
    /// Their turn has come.
    Turn,
    /// They go before others.
    HighPriority,
}

/// What a portion held and nobody is to get.
#[derive(Debug, Default)]
struct Unwanted {
    poisoned: Vec<(Arc<Message>, Sequence)>,
    overflown: Vec<Entry>,
}

impl Backlog {
    fn note_read_out_of_turn(&mut self, item: &BacklogEntry) -> bool {
        self.high.remove(&item.sequence);
        if self.skip.contains(&item.sequence) {
            return false;
        }
        self.one_less(Some(item.message.size()));
        self.passed.insert(item.sequence, NOT_OVER);
        true
    }

    /// One more has been read. Whether it still waits.
    fn note_read(&mut self, item: &BacklogEntry, is_overflown: bool) -> bool {
        self.after = self.after.max(item.sequence);
        self.high.remove(&item.sequence);
        if self.passed.remove(&item.sequence).is_some() {
            self.skip.remove(&item.sequence);
            return false;
        }
        if is_overflown && self.overflown > 0 {
            self.overflown -= 1;
        } else {
            self.unread = self.unread.saturating_sub(1);
            self.unread_bytes = self.unread_bytes.saturating_sub(item.message.size());
        }
        self.oldest_at = Some(item.message.id.published_at());
        !self.skip.remove(&item.sequence)
    }
}

fn add_to_portion(queue: &mut Queue, backlog: &mut Backlog, mut entry: Entry) {
    let maybe_sent = &mut backlog.maybe_sent[entry.priority() as usize];
    let was_sent = *maybe_sent > 0 || queue.attempts_at(entry.sequence).is_some();
    entry.dup = entry.qos == base::Qos::AtLeastOnce && was_sent;
    *maybe_sent = maybe_sent.saturating_sub(1);
    queue.bytes += entry.size();
    backlog.portion.push(entry);
}

/// In flight before a crash: only the body was missing.
fn give_body(queue: &mut Queue, tag: base::Tag, mut entry: Entry) {
    if let Some(slot) = queue.window.get_mut(tag).filter(|slot| slot.lacks_body()) {
        entry.dup = true;
        queue.bytes += entry.size();
        slot.entry = Some(entry);
    }
}

/// Puts a delivery into the batch that covers it, once.
fn entry_into(entry: &mut Entry, queue: QueueId, batch: &mut Retirement) {
    if !entry.stored && entry.sequence <= batch.upto {
        entry.stored = true;
        batch.pending.push((queue, backlog_entry(entry, queue)));
    }
}

fn backlog_entry(entry: &Entry, queue: QueueId) -> BacklogEntry {
    BacklogEntry { sequence: entry.sequence, recipient: entry.recipient(queue), message: entry.message.clone() }
}

pub(crate) fn entry_of(item: BacklogEntry) -> Entry {
    let BacklogEntry { sequence, recipient, message } = item;
    Entry {
        sequence,
        message,
        identifiers: recipient.identifiers,
        qos: recipient.qos,
        retain: recipient.retain,
        dup: false,
        stored: true,
        group: recipient.group,
    }
}

/// A session as records, in the order in which `recover` takes them.
///
/// The watermark says from where the young log counts. If something older is stored, another one stands in
/// front of it: where reading starts.
fn session_records(session: &Session) -> Vec<Record> {
    let Session { id: queue, expiry, since: at, .. } = *session;
    let mut records = Vec::new();
    match session.role {
        Role::Session => {
            let owner = QueueOwner::Session(session.client.clone());
            records.push(Record::QueueBegin { queue, owner, expiry, at });
            records.push(match session.connection {
                Some(_) => Record::Connected { queue, expiry, at },
                None => Record::Disconnected { queue, expiry, at },
            });
        }
        Role::Registration => {
            let owner = QueueOwner::Registration(session.client.clone());
            records.push(Record::QueueBegin { queue, owner, expiry, at });
        }
        Role::Letters => records.push(Record::QueueBegin { queue, owner: QueueOwner::Dead, expiry, at }),
        Role::Scheduled => records.push(Record::QueueBegin { queue, owner: QueueOwner::Scheduled, expiry, at }),
        Role::Group => {
            let owner = QueueOwner::Group(session.client.0.clone());
            records.push(Record::QueueBegin { queue, owner, expiry, at });
        }
    }
    if session.will.is_some() {
        records.push(Record::WillSet { queue, will: session.will.clone() });
    }
    let subscriptions = session.subscriptions.iter();
    records.extend(subscriptions.map(|(f, o)| Record::Subscribe { queue, filter: f.clone(), options: *o }));
    let due = session.watch.iter().flat_map(|watch| watch.due.keys());
    records.extend(due.map(|filter| Record::RetainedDue { queue, filter: filter.clone() }));
    if let Some(oldest) = oldest_stored(session) {
        records.push(Record::Watermark { queue, upto: Sequence(oldest.0 - 1) });
    }
    records.push(Record::Watermark { queue, upto: session.watermark });
    for (tag, state) in session.inbound.iter().filter(|(_, state)| state.id != NO_MESSAGE) {
        // Twice: routed, and confirmed by all shards (see `recover`).
        let times = if matches!(state.progress, Progress::Routed { .. }) { 2 } else { 1 };
        records.extend((0..times).map(|_| Record::InboundBegin { queue, tag: *tag, id: state.id }));
    }
    records.extend(noted(session));
    let attempts = session.queue.attempts();
    records.extend(attempts.map(|(sequence, Attempts { count: attempts, first, last })| Record::Attempt {
        queue,
        sequence,
        attempts,
        first,
        last,
    }));
    records.extend(session.queue.full_sync().map(|sync| sync.record(queue)));
    let window = &session.queue.window;
    for (tag, slot) in window.in_order().into_iter().filter_map(|tag| Some((tag, window.get(tag)?))) {
        if slot.qos != base::Qos::ExactlyOnce {
            continue;
        }
        let sequence = slot.sequence;
        records.push(Record::Tagged { queue, sequence, tag });
        if slot.entry.is_none() && (slot.is_dead() || slot.is_received()) {
            records.push(Record::Received { queue, sequence });
        }
    }
    records
}

/// What has to be known of stored deliveries before they are read.
fn noted(session: &Session) -> Vec<Record> {
    if session.role.is_read_out_of_turn() {
        return Vec::new(); // its order is another one, and nothing in it is replaced
    }
    let Session { id: queue, queue: Queue { window, young, backlog, .. }, .. } = session;
    let in_flight = window.iter().filter_map(|(_, slot)| slot.entry.as_ref());
    let read = backlog.iter().flat_map(|backlog| backlog.portion.iter());
    let in_memory = in_flight.chain(read).chain(young.iter()).filter(|entry| entry.stored);
    let mut noted: Vec<Record> =
        in_memory.filter_map(|entry| Record::noted(*queue, entry.sequence, &entry.message)).collect();
    let Some(backlog) = backlog else { return noted };
    let mut unread: BTreeMap<Sequence, (u32, Option<ByteString>)> =
        backlog.high.iter().map(|high| (*high, (0, None))).collect();
    for (key, (sequence, bytes)) in session.queue.all_collapsible() {
        if sequence > backlog.after && sequence <= backlog.until {
            unread.insert(sequence, (u32::try_from(bytes).unwrap_or(u32::MAX), Some(key.clone())));
        }
    }
    noted.extend(unread.into_iter().map(|(sequence, (bytes, collapse_key))| {
        let is_high = backlog.high.contains(&sequence);
        Record::Noted { queue: *queue, sequence, bytes, is_high, collapse_key }
    }));
    noted
}

/// The oldest delivery that is in the old generation and not over.
fn oldest_stored(session: &Session) -> Option<Sequence> {
    let queue = &session.queue;
    let window = queue.window.iter().filter(|(_, slot)| slot.stored).map(|(_, slot)| slot.sequence).min();
    let young = queue.young.oldest_stored().map(|entry| entry.sequence);
    let read = queue.backlog.as_ref().and_then(|backlog| backlog.portion.oldest()).map(|entry| entry.sequence);
    let unread = queue.backlog.as_ref().filter(|backlog| !backlog.ended).map(|backlog| backlog.after.next());
    [window, young, read, unread].into_iter().flatten().min()
}
