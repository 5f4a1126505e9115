//! From the log back to the state: first the snapshot of the old generation, then the young records.
//!
//! Young records up to `as_of` are in the snapshot already. Of them, `Publish`, `Settle`, `Transfer`, `Tagged` and
//! `Received` still count, for deliveries above their queue's watermark: the snapshot holds no
//! deliveries. All five may be replayed twice without harm.

use std::sync::Arc;

use base::{LetterId, Message, Now, Parked, Priority, Qos, QueueId, QueueOwner, Recipient, Record, Sequence, Tag};
use bytestring::ByteString;
use postroad_base as base;

use crate::api::{Counted, Principal, StateKey};
use crate::broker::Broker;
use crate::full_sync::FullSync;
use crate::queue::{Attempts, Backlog, Entry, Queue, Slot, State, Window};
use crate::session::{InboundState, Progress, Role, Session, SessionIndex};
use crate::timers::Timer;

/// Wills of a former run wait at least this long: until the other shards have told what they want.
const WILL_DELAY_MIN_MS: u64 = 2_000;

/// What consumers of a group may have had at most, whatever its bound was in the former run: as many as a window has tags.
const WINDOW_OF_GROUP: usize = 32_767;

impl Broker {
    /// A record of the log. Snapshot records come first, with sequence 0; then the young ones in order.
    /// `as_of` is that of the snapshot (0 if there is none).
    pub fn replay(&mut self, sequence: Sequence, as_of: Sequence, record: Record) {
        self.gate.advance(sequence.max(as_of));
        let is_snapshot = sequence == Sequence(0);
        match record {
            Record::Publish { message, recipients } => self.replay_publish(sequence, &message, recipients),
            Record::Settle { queue, sequence: of, .. } => self.replay_settle(queue, of, sequence > as_of),
            Record::Transfer { queue, sequence: of, message, recipients, .. } => {
                self.replay_settle(queue, of, sequence > as_of);
                self.replay_publish(sequence, &message, recipients);
            }
            Record::Tagged { queue, sequence, tag } => self.replay_tagged(queue, sequence, tag),
            Record::Received { queue, sequence } => self.replay_received(queue, sequence),
            other if is_snapshot || sequence > as_of => self.replay_state(other, is_snapshot),
            _ => {}
        }
    }

    fn replay_state(&mut self, record: Record, is_snapshot: bool) {
        let queue = match &record {
            Record::QueueBegin { queue, .. }
            | Record::Connected { queue, .. }
            | Record::Disconnected { queue, .. }
            | Record::QueueEnd { queue }
            | Record::WillSet { queue, .. }
            | Record::Subscribe { queue, .. }
            | Record::Unsubscribe { queue, .. }
            | Record::RetainedDue { queue, .. }
            | Record::RetainedGiven { queue, .. }
            | Record::InboundBegin { queue, .. }
            | Record::InboundEnd { queue, .. }
            | Record::Attempt { queue, .. }
            | Record::FullSync { queue, .. }
            | Record::Park { queue, .. }
            | Record::Noted { queue, .. }
            | Record::Watermark { queue, .. } => *queue,
            Record::Retain { .. }
            | Record::RetainClear { .. }
            | Record::Register { .. }
            | Record::Unregister { .. }
            | Record::OrdinalsUsed { .. } => return self.replay_global(record),
            Record::Key { publish } => return self.replay_key((**publish).clone(), is_snapshot),
            Record::Publish { .. }
            | Record::Settle { .. }
            | Record::Transfer { .. }
            | Record::Tagged { .. }
            | Record::Received { .. } => {
                unreachable!("what is of deliveries was replayed before")
            }
        };
        if queue.holds_known_ids() {
            self.repeats.known_dirty |= !is_snapshot;
            return self.repeats.known.replay(record);
        }
        if let Record::QueueBegin { owner, expiry, at, .. } = record {
            return self.replay_begin(queue, owner, expiry, at, is_snapshot);
        }
        let Some(index) = self.session_of_queue(queue) else { return };
        if !is_snapshot {
            self.mark_dirty(index);
        }
        let session = &mut self.sessions[index as usize];
        match record {
            Record::Connected { expiry, at, .. } => {
                (session.expiry, session.since, session.was_connected) = (expiry, at, true);
                session.ending = false;
            }
            Record::Disconnected { expiry, at, .. } => {
                (session.expiry, session.since, session.was_connected) = (expiry, at, false);
                session.ending = !expiry.outlives_connection(); // the mark of `begin_ending`
            }
            Record::WillSet { will, .. } => session.will = will,
            Record::Subscribe { filter, options, .. } => drop(session.subscriptions.insert(&filter, options)),
            Record::Unsubscribe { filter, .. } => {
                session.subscriptions.remove(&filter);
                session.retained_given(&filter);
            }
            Record::RetainedDue { filter, .. } => session.retained_due(filter),
            Record::RetainedGiven { filter, .. } => session.retained_given(&filter),
            Record::InboundBegin { tag, id, .. } => {
                // A second record says that all shards have confirmed; of a single one nobody knows.
                let reason = base::ReasonCode::Success;
                let routed = Progress::Routed { reason, need: Sequence(0) };
                let known = session.remove_inbound(tag).is_some_and(|earlier| earlier.id == id);
                let progress = if known { routed } else { Progress::Unknown };
                session.inbound.push((tag, InboundState { id, progress, told: true }));
            }
            Record::InboundEnd { tag, .. } => drop(session.remove_inbound(tag)),
            Record::Watermark { upto, .. } => replay_watermark(session, upto),
            Record::Attempt { sequence, attempts, first, last, .. } => {
                session.queue.set_attempts(sequence, Attempts { count: attempts, first, last });
            }
            Record::FullSync { sequence, from, dropped, since, .. } => {
                let over = Default::default();
                let sync = FullSync { sequence, from, dropped, since, waits: true, is_settled: false, over };
                session.queue.set_full_sync(Some(sync));
            }
            Record::Park { sequence, at, note, .. } => {
                self.letters.set_parked(LetterId { queue, sequence }, note.map(|note| Parked { at, note }));
            }
            Record::Noted { sequence, bytes, is_high, collapse_key, .. } => {
                replay_noted(&mut session.queue, sequence, bytes, is_high, collapse_key);
            }
            Record::QueueEnd { .. } => self.replay_end(index),
            _ => unreachable!("it names no session's queue"),
        }
    }

    fn replay_global(&mut self, record: Record) {
        match record {
            Record::Retain { message } => {
                self.retiring.dirty.insert(StateKey::Retained(message.topic.clone()));
                self.retiring.replayed_retained.insert(message.topic.clone(), message);
            }
            Record::RetainClear { topic } => {
                self.retiring.replayed_retained.remove(&topic);
                self.retiring.dirty.insert(StateKey::Retained(topic));
            }
            Record::Register { client, by, seen, user, groups } => {
                let principal = Principal { user, groups: groups.into() };
                self.replay_registration(client, Some((principal, by, seen)));
            }
            Record::Unregister { client } => self.replay_registration(client, None),
            Record::OrdinalsUsed { next } => self.use_ordinals(next),
            _ => unreachable!("it names a queue"),
        }
    }

    fn use_ordinals(&mut self, next: QueueId) {
        if let Some(known) = self.ordinals.get_mut(usize::from(next.partition().0)) {
            *known = next.ordinal().max(*known);
        }
    }

    fn replay_begin(
        &mut self,
        queue: QueueId,
        owner: QueueOwner,
        expiry: base::SessionExpiry,
        at: base::WallMillis,
        is_snapshot: bool,
    ) {
        self.use_ordinals(QueueId::new(queue.partition(), queue.ordinal() + 1));
        if !is_snapshot {
            self.retiring.dirty.insert(StateKey::Ordinals(queue.partition()));
        }
        let index = match owner {
            QueueOwner::Session(client) => {
                // The older queue was ending.
                if let Some(older) = self.session_of_client(client.as_str()) {
                    self.sessions[older as usize].ending = true;
                }
                let mut session = Session::new(client, queue, true, expiry);
                (session.since, session.was_connected) = (at, true);
                self.add_session(session)
            }
            QueueOwner::Registration(client) => self.add_queue(Session::of_registration(client, queue, true)),
            QueueOwner::Dead => self.add_letters_queue(Session::of_letters(queue, true)),
            QueueOwner::Scheduled => self.add_scheduled_queue(Session::of_scheduled(queue, true)),
            QueueOwner::Group(name) => {
                let mut session = Session::of_group(name, queue, true);
                session.since = at;
                self.add_group_queue(session)
            }
            QueueOwner::Share(..) => return,
        };
        if !is_snapshot {
            self.mark_dirty(index);
        }
    }

    fn replay_end(&mut self, index: SessionIndex) {
        self.clients.remove(&self.sessions, index);
        self.consumers.forget(index);
        let session = self.remove_session(index);
        self.retiring.ended.push(session.id);
    }

    fn replay_publish(&mut self, sequence: Sequence, message: &Arc<Message>, recipients: Vec<Recipient>) {
        let is_poison = self.poison.has(message.id);
        for mut recipient in recipients {
            recipient.group = recipient.group.map(|name| self.groups.replayed_name(name));
            if message.may_be_repeated() && !recipient.given {
                // A retirement before all shards have told what may be repeated keeps them all.
                self.repeats.know(message.id, recipient.group.clone());
            }
            let Some(index) = self.session_of_queue(recipient.queue) else { continue };
            let session = &mut self.sessions[index as usize];
            if sequence <= session.watermark {
                continue;
            }
            if is_poison {
                self.poison.replay(message, recipient.queue, sequence);
                continue;
            }
            let shared = recipient.group.is_some();
            if session.role == Role::Scheduled {
                self.scheduled.replayed(message.id);
            }
            session.queue.push(Entry {
                sequence,
                message: Arc::clone(message),
                identifiers: recipient.identifiers,
                qos: recipient.qos,
                retain: recipient.retain,
                dup: false,
                stored: false,
                group: recipient.group,
            });
            session.maybe_shared |= shared;
            self.mark_dirty(index);
        }
    }

    /// `is_news`: the snapshot does not know of it.
    fn replay_settle(&mut self, queue: QueueId, sequence: Sequence, is_news: bool) {
        let Some(index) = self.session_of_queue(queue) else { return };
        self.mark_dirty(index);
        self.poison.replay_settle(queue, sequence);
        self.letters.forget(LetterId { queue, sequence });
        self.sessions[index as usize].queue.forget_attempts(sequence);
        self.sessions[index as usize].queue.forget_full_sync(sequence);
        let session = &mut self.sessions[index as usize];
        let tag = tag_at(&session.queue.window, sequence);
        if let Some(slot) = tag.and_then(|tag| session.queue.window.remove(tag))
            && let Some(entry) = slot.entry
        {
            session.queue.bytes -= entry.size();
        }
        if sequence <= session.watermark {
            self.retiring.settled.push((queue, sequence));
            if let Some(backlog) = &mut session.queue.backlog {
                backlog.high.remove(&sequence);
                backlog.skip.insert(sequence);
                if is_news {
                    backlog.one_less(None);
                }
                if is_news && !session.role.is_read_out_of_turn() {
                    backlog.passed.insert(sequence, 0); // a read that finds it does not count it again
                }
            }
        } else {
            take_young(&mut session.queue, sequence);
        }
    }

    fn replay_tagged(&mut self, queue: QueueId, sequence: Sequence, tag: Tag) {
        let Some(index) = self.session_of_queue(queue) else { return };
        self.mark_dirty(index);
        let session = &mut self.sessions[index as usize];
        if tag_at(&session.queue.window, sequence).is_some() {
            return;
        }
        let stored = sequence <= session.watermark;
        let mut entry = take_young(&mut session.queue, sequence);
        if let Some(entry) = &mut entry {
            entry.dup = true;
            session.queue.bytes += entry.size();
        }
        // Without one here, its body comes with the backlog, or is not needed any more (`Received`).
        if entry.is_some() || stored || self.poison.is_replayed(queue, sequence) {
            let slot = Slot { stored, restored: true, ..Slot::new(sequence, Qos::ExactlyOnce, State::Waiting, entry) };
            session.queue.window.restore(tag, slot);
        }
    }

    fn replay_received(&mut self, queue: QueueId, sequence: Sequence) {
        let Some(index) = self.session_of_queue(queue) else { return };
        self.mark_dirty(index);
        self.poison.replay_settle(queue, sequence); // the client has it: only the release is left
        let queue = &mut self.sessions[index as usize].queue;
        let Some(tag) = tag_at(&queue.window, sequence) else { return };
        if let Some(slot) = queue.window.get_mut(tag) {
            slot.state = State::Released;
            if let Some(entry) = slot.entry.take() {
                queue.bytes -= entry.size();
            }
        }
    }

    /// How much the old generation holds of this queue: it counts against the queue's limits. After the snapshot.
    pub fn replay_stored(&mut self, queue: QueueId, messages: usize, bytes: usize) {
        let Some(index) = self.session_of_queue(queue) else { return };
        if let Some(backlog) = &mut self.sessions[index as usize].queue.backlog {
            (backlog.unread, backlog.unread_bytes) = (messages, bytes);
        }
    }

    /// All has been replayed; `now` is the time of the recovery. The log goes on with `first`.
    ///
    /// Every session counts as disconnected now (DESIGN 6).
    pub fn recovered(&mut self, now: Now, first: Sequence) {
        self.now = now;
        self.gate.advance(Sequence(first.0.saturating_sub(1)));
        self.gate.commit_all();
        self.set_replayed_aside();
        self.registrations_recovered();
        for message in std::mem::take(&mut self.retiring.replayed_retained).into_values() {
            self.keep_replayed(message);
        }
        for (_, session) in &mut self.sessions {
            session.recovered = true;
            // A session that could not end before its will was published: it ends as others do.
            session.ending &= session.will.is_none();
        }
        let (ending, mut places): (Vec<_>, Vec<_>) =
            self.session_places().into_iter().partition(|index| self.sessions[*index as usize].ending);
        ending.into_iter().for_each(|index| self.resume_ending(index));
        places.retain(|&index| !self.sessions[index as usize].role.is_read_out_of_turn());
        for &index in &places {
            self.full_sync_recovered(index);
            self.mark_maybe_sent(index);
            self.collapse_replayed(index);
            self.give_due(index);
            for (filter, options) in self.sessions[index as usize].subscriptions.clone().iter() {
                self.want(filter, None);
                self.index_subscription(index, filter, *options);
            }
        }
        self.letters_recovered();
        self.scheduled_recovered();
        self.groups.forget_replayed();
        self.tell_repeatable();
        places.retain(|&index| self.sessions[index as usize].role == Role::Session);
        for index in places {
            self.begin_absence(index);
        }
    }

    /// What may have been sent before the crash is sent with DUP `[MQTT-3.3.1-1]`; QoS 2 only with its tag.
    fn mark_maybe_sent(&mut self, index: SessionIndex) {
        let session = &mut self.sessions[index as usize];
        let window = match session.role {
            Role::Group => WINDOW_OF_GROUP,
            _ => usize::from(self.config.limits.inflight_max),
        };
        let queue = &mut session.queue;
        if let Some(backlog) = &mut queue.backlog {
            backlog.maybe_sent = [window; Priority::ALL.len()];
        }
        for line in queue.young.lines_mut() {
            for entry in line.iter_mut().filter(|entry| entry.qos == Qos::AtLeastOnce).take(window) {
                entry.dup = true;
            }
        }
        // The window may be smaller now.
        let known: Vec<Sequence> = queue.attempts().map(|(sequence, _)| sequence).collect();
        for sequence in known {
            if let Some(entry) = queue.young.get_mut(sequence) {
                entry.dup = true;
            }
        }
    }

    fn begin_absence(&mut self, index: SessionIndex) {
        let wall = self.now.wall;
        let session = &mut self.sessions[index as usize];
        let lifetime = u64::from(session.expiry.0) * 1000;
        if std::mem::take(&mut session.was_connected) {
            session.since = wall;
            let (queue, expiry) = (session.id, session.expiry);
            self.append(Record::Disconnected { queue, expiry, at: wall });
            self.mark_dirty(index);
        }
        let session = &mut self.sessions[index as usize];
        let left = session.since.after(lifetime).since(wall);
        if let Some(will) = &session.will {
            let delay = (u64::from(will.delay_seconds) * 1000).max(WILL_DELAY_MIN_MS);
            let timer = Timer::Will(index, session.id);
            session.will_timer = Some(self.timers.set(self.now.mono.after(delay), timer));
        }
        // Its will needs the other shards' wishes, too: the end waits as long.
        let left = if session.will.is_some() { left.max(WILL_DELAY_MIN_MS) } else { left };
        if left == 0 && session.expiry != base::SessionExpiry::NEVER {
            self.count(Counted::SessionExpired);
            return self.end_session(index);
        }
        self.set_expiry_timer(index, left);
    }
}

/// The first watermark says up to where everything is over; a second one that the rest up to it is stored.
fn replay_watermark(session: &mut Session, upto: Sequence) {
    if session.watermark > Sequence(0) || session.has_watermark {
        let after = session.watermark;
        // How many it is `replay_stored` tells; without a word of it there are none: all of them are over, and the store knows.
        session.queue.backlog = Some(Box::new(Backlog { after, until: upto, ..Backlog::default() }));
        session.maybe_shared = true; // nobody knows before it is read
    }
    session.has_watermark = true;
    session.watermark = upto;
}

/// What is known of a stored delivery.
fn replay_noted(queue: &mut Queue, sequence: Sequence, bytes: u32, is_high: bool, collapse_key: Option<ByteString>) {
    let Some(backlog) = queue.backlog.as_mut().filter(|backlog| sequence <= backlog.until) else { return };
    if is_high {
        backlog.high.insert(sequence);
    }
    if let Some(key) = collapse_key
        && queue.collapsible(&key).is_none_or(|(newest, _)| newest < sequence)
    {
        queue.set_collapsible(key, sequence, bytes as usize);
    }
}

/// The tag of a delivery in the window.
pub(crate) fn tag_at(window: &Window, sequence: Sequence) -> Option<Tag> {
    window.iter().find(|(_, slot)| slot.sequence == sequence).map(|(tag, _)| tag)
}

/// Takes a delivery out of the ones that wait in memory.
pub(crate) fn take_young(queue: &mut Queue, sequence: Sequence) -> Option<Entry> {
    let entry = queue.young.take(sequence)?;
    queue.bytes -= entry.size();
    Some(entry)
}
