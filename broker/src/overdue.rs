//! Deliveries that are in flight and not acknowledged: when that is late, and when they are given up.
//!
//! ```text
//! sent ──PUBACK, PUBREC──► settled
//!  ├─ the acknowledgement is late, and the protocol lets it ─► sent again (`resend`), one attempt more ─┐
//!  ├─ the connection breaks ─► sent again on the next one, one attempt more ────────────────────────────┤
//!  │                                                        attempts_max, without acknowledgement: dead (attempts) ◄┘
//!  └─ age_max of connected time since it was first sent ─► dead (unacknowledged)
//! ```
//!
//! MQTT 5 forbids to send a message again on a live connection `[MQTT-4.4.0-1]`, and a slow road is no reason to cut it: so it
//! stays in flight, and its age counts. A dead delivery has left its queue, but its packet identifier stays taken until the
//! receiver answers (too late: counted) or the connection ends; at QoS 2 until PUBCOMP, since the receiver may have it. A
//! connection whose whole window is dead consumes nothing any more: it is closed (0x83), its session stays.
//!
//! No delivery has a timer. A connection with something in flight stands in one line, at the time at which the first of it
//! is late or too old; then its window is looked through. Who acknowledges in time is looked at once per deadline while
//! something is in flight, and costs an ordinary send and acknowledgement a comparison each.
//!
//! Crash story: a letter and the end of its delivery are one record (`Transfer`). At QoS 2 the letter comes first, then
//! `Received`, in one turn, hence in one commit: as if the receiver had it, so that only the release is repeated.

use std::collections::BTreeMap;

use base::{ConnectionId, Ended, Message, MonoMillis, Outcome, Qos, ReasonCode, Record, Sequence, Tag};
use postroad_base as base;

use crate::api::{Counted, Effect};
use crate::broker::Broker;
use crate::config::Resend;
use crate::gate::Waiter;
use crate::letters::Ends;
use crate::queue::{Attempts, Slot, State};
use crate::session::{ConnectionIndex, SessionIndex};

/// Connections that one tick looks at.
const LOOKS_PER_TICK: usize = 16;
/// Looks that are due within so many milliseconds of each other stand together.
const GRAIN_MILLIS: u64 = 100;
/// Places in the line beyond two for each connection, before those that are over are taken out.
const LINE_SLACK: usize = 1024;

/// An instant, in so many grains of the clock, or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Grain(u32);

impl Grain {
    pub const NEVER: Self = Self(u32::MAX);

    /// At the end of the grain that holds this instant.
    pub fn at(due: MonoMillis) -> Self {
        Self(u32::try_from(due.0.div_ceil(GRAIN_MILLIS)).unwrap_or(u32::MAX - 1))
    }

    fn due(self) -> MonoMillis {
        MonoMillis(u64::from(self.0) * GRAIN_MILLIS)
    }
}

impl Default for Grain {
    fn default() -> Self {
        Self::NEVER
    }
}

/// Connections that have something in flight, or had when they were looked at last, by the time of the next look.
///
/// Each says itself when that is (`Connection::watched`): a place at another time is over, and passed by.
#[derive(Debug, Default)]
pub(crate) struct Overdue {
    line: BTreeMap<Grain, Vec<ConnectionId>>,
    places: usize,
}

impl Overdue {
    /// When a tick has something to do here.
    pub fn next(&self) -> Option<MonoMillis> {
        self.line.first_key_value().map(|(watched, _)| watched.due())
    }

    fn insert(&mut self, watched: Grain, connection: ConnectionId) {
        self.line.entry(watched).or_default().push(connection);
        self.places += 1;
    }

    fn pop(&mut self, now: MonoMillis) -> Option<(Grain, ConnectionId)> {
        let mut first = self.line.first_entry().filter(|first| first.key().due() <= now)?;
        let (watched, connection) = (*first.key(), first.get_mut().pop());
        if first.get().is_empty() {
            first.remove();
        }
        self.places -= 1;
        connection.map(|connection| (watched, connection))
    }

    fn retain(&mut self, keep: impl Fn(Grain, ConnectionId) -> bool) {
        self.line.retain(|watched, connections| {
            connections.retain(|connection| keep(*watched, *connection));
            !connections.is_empty()
        });
        self.places = self.line.values().map(Vec::len).sum();
    }
}

/// What a look at a connection has found.
#[derive(Debug, Default)]
struct Look {
    /// In flight for too long, by the order in which they were sent first.
    too_old: Vec<(Sequence, u64, SessionIndex, Tag)>,
    /// Not acknowledged in time: to be sent again, or given up, as soon as it is known that the last copy has arrived.
    late: usize,
    /// When the next one is late or too old.
    next: Option<MonoMillis>,
}

impl Look {
    fn again(&mut self, at: MonoMillis) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }
}

impl Broker {
    /// A delivery has left, after `waited` milliseconds in flight before: its connection is looked at in time.
    #[inline]
    pub(crate) fn watch(&mut self, place: ConnectionIndex, message: &Message, waited: u64) {
        let is_usual = waited == 0 && self.has_usual_policy(message);
        if is_usual && self.connections[place as usize].watched != Grain::NEVER {
            return; // it is looked at for what was sent before, hence is late before
        }
        let age_max = self.retry_policy(message).age_max_ms;
        let age = (age_max > 0).then(|| age_max.saturating_sub(waited));
        self.watch_for(place, age);
    }

    /// The connection is looked at when what leaves now will be late, or too old in so many milliseconds.
    pub(crate) fn watch_for(&mut self, place: ConnectionIndex, age: Option<u64>) {
        let deadline = self.is_resent_to(place).then(|| self.ack_deadline(place, 0));
        if let Some(wait) = deadline.into_iter().chain(age).min() {
            self.look_in_time(place, self.now.mono.after(wait));
        }
    }

    /// A look at the connection is due then at the latest.
    pub(crate) fn look_in_time(&mut self, place: ConnectionIndex, due: MonoMillis) {
        let connection = &mut self.connections[place as usize];
        let watched = Grain::at(due);
        if watched < connection.watched {
            connection.watched = watched;
            self.overdue.insert(watched, connection.id);
            if self.overdue.places > 2 * self.connections.len() + LINE_SLACK {
                self.forget_places();
            }
        }
    }

    /// Nothing is read from the connection from now on.
    pub(crate) fn stop_reading(&mut self, place: ConnectionIndex) {
        let connection = &mut self.connections[place as usize];
        connection.unread_since = Grain::at(self.now.mono);
        let connection = connection.id;
        self.effects.push_back(Effect::Park { connection });
    }

    /// The connection is read from again. What has passed meanwhile was no time of what is in flight; and what has lain unread is
    /// read before anything of it is found to be too old.
    pub(crate) fn look_after_reading(&mut self, place: ConnectionIndex) {
        let since = std::mem::replace(&mut self.connections[place as usize].unread_since, Grain::NEVER);
        let (now, unread) = (self.now.mono, self.now.mono.since(since.due()));
        if unread >= GRAIN_MILLIS {
            for index in self.queues_of(place) {
                for (_, slot) in self.sessions[index as usize].queue.window.iter_mut() {
                    slot.sent_at = slot.sent_at.after(unread).min(now);
                }
            }
        }
        let connection = &mut self.connections[place as usize];
        if connection.watched.due() <= self.now.mono.after(GRAIN_MILLIS) {
            connection.watched = Grain::NEVER; // the place in the line is passed by
            self.look_in_time(place, self.now.mono.after(2 * GRAIN_MILLIS));
        }
    }

    /// Connections that come and go leave their places in the line, and so do looks that were put forward: at most as many as
    /// there are others.
    fn forget_places(&mut self) {
        let mut overdue = std::mem::take(&mut self.overdue);
        overdue.retain(|watched, id| self.is_watched_at(watched, id).is_some());
        self.overdue = overdue;
    }

    /// The connection, if it is to be looked at then.
    fn is_watched_at(&self, watched: Grain, id: ConnectionId) -> Option<ConnectionIndex> {
        self.place_of(id).filter(|place| self.connections[*place as usize].watched == watched)
    }

    /// Whether what is not acknowledged on this connection is sent again on it.
    pub(crate) fn is_resent_to(&self, place: ConnectionIndex) -> bool {
        self.connections[place as usize].resend == Resend::Live && self.config.limits.resend == Resend::Live
    }

    /// For how long an acknowledgement of this connection is waited for, after so many resends.
    pub(crate) fn ack_deadline(&self, place: ConnectionIndex, resends: u8) -> u64 {
        self.connections[place as usize].round_trip.deadline(resends, &self.config)
    }

    /// It is sent once more: remembered, so that it is counted across connections and crashes.
    pub(crate) fn note_attempt(&mut self, index: SessionIndex, tag: Tag) {
        let session = &mut self.sessions[index as usize];
        let Some(slot) = session.queue.window.get(tag) else { return };
        let (queue, sequence, last) = (session.id, slot.sequence, self.now.wall);
        let sent_first = if slot.first_sent.0 == 0 { last } else { slot.first_sent };
        let known = session.queue.attempts_at(sequence);
        let Attempts { count, first, .. } = known.unwrap_or(Attempts { count: 1, first: sent_first, last });
        let attempts = count.saturating_add(1);
        session.queue.set_attempts(sequence, Attempts { count: attempts, first, last });
        if session.logged {
            self.append(Record::Attempt { queue, sequence, attempts, first, last });
            self.mark_dirty(index);
        }
    }

    /// In the window from an earlier connection, and has been sent too often.
    pub(crate) fn give_up_resend(&mut self, index: SessionIndex, place: ConnectionIndex, tag: Tag) {
        let queue = &mut self.sessions[index as usize].queue;
        let Some(Slot { qos, entry: Some(_), .. }) = queue.window.get(tag) else { return };
        if *qos == Qos::ExactlyOnce {
            self.die_once(index, tag, Outcome::Attempts);
            let connection = &mut self.connections[place as usize];
            connection.unacknowledged += 1;
            let id = connection.id;
            if let Some(slot) = self.sessions[index as usize].queue.window.get_mut(tag) {
                (slot.counts, slot.state) = (true, State::ReleaseHeld);
            }
            return self.after_commit(Waiter::Release(id, tag));
        }
        if let Some(Slot { entry: Some(entry), .. }) = queue.window.remove(tag) {
            queue.bytes -= entry.size().min(queue.bytes);
            self.end_undelivered(index, &entry, Outcome::Attempts, 0);
        }
    }

    /// Looks at the connections whose time has come.
    pub(crate) fn check_overdue(&mut self) {
        for _ in 0..LOOKS_PER_TICK {
            let Some((watched, id)) = self.overdue.pop(self.now.mono) else { return };
            if let Some(place) = self.is_watched_at(watched, id) {
                self.connections[place as usize].watched = Grain::NEVER;
                self.check_connection(place);
            }
        }
    }

    fn check_connection(&mut self, place: ConnectionIndex) {
        let id = self.connections[place as usize].id;
        let mut look = self.look(place);
        if self.connections[place as usize].is_parked() {
            // Its acknowledgements may lie unread, so its clocks stand still.
            look.too_old.clear();
            look.again(self.now.mono.after(self.ack_deadline(place, 0)));
        }
        look.too_old.sort_unstable();
        for (.., index, tag) in std::mem::take(&mut look.too_old) {
            self.die_in_flight(index, tag, Outcome::Unacknowledged);
        }
        self.close_if_stuck(place);
        if self.place_of(id).is_none() {
            return; // it was
        }
        if self.resends.found(place, look.late) {
            self.effects.push_back(Effect::Probe { connection: id });
        }
        if look.late > 0 {
            look.again(self.now.mono.after(self.ack_deadline(place, 0))); // how far the road is then
        }
        if let Some(next) = look.next {
            self.look_in_time(place, next.max(self.now.mono.after(1)));
        }
    }

    fn look(&self, place: ConnectionIndex) -> Look {
        let mut look = Look::default();
        if self.connections[place as usize].unacknowledged == 0 {
            return look;
        }
        for index in self.queues_of(place) {
            for (tag, slot) in self.sessions[index as usize].queue.window.iter() {
                match self.age_left(slot) {
                    Some(0) => look.too_old.push((slot.sequence, slot.order, index, tag)),
                    left => {
                        left.into_iter().for_each(|left| look.again(self.now.mono.after(left)));
                        match self.resend_due(place, index, slot) {
                            Some(due) if due <= self.now.mono => look.late += 1,
                            due => due.into_iter().for_each(|due| look.again(due)),
                        }
                    }
                }
            }
        }
        look
    }

    /// For how many milliseconds more it may be in flight; `None`: for ever, or it is not.
    fn age_left(&self, slot: &Slot) -> Option<u64> {
        let entry = slot.entry.as_ref().filter(|_| slot.state == State::Sent)?;
        let age_max = self.retry_policy(&entry.message).age_max_ms;
        (age_max > 0).then(|| age_max.saturating_sub(slot.age(self.now.mono)))
    }

    /// It is over for the server; the receiver may still answer.
    pub(crate) fn die_in_flight(&mut self, index: SessionIndex, tag: Tag, outcome: Outcome) {
        let queue = &mut self.sessions[index as usize].queue;
        let Some(slot) = queue.window.get_mut(tag) else { return };
        if slot.qos == Qos::ExactlyOnce {
            return self.die_once(index, tag, outcome);
        }
        (slot.given_up, slot.stored) = (Some(outcome), false);
        let first_sent = slot.first_sent;
        if let Some(entry) = slot.entry.take() {
            queue.bytes -= entry.size().min(queue.bytes);
            queue.note_sends(entry.sequence, first_sent);
            self.end_undelivered(index, &entry, outcome, 0);
        }
    }

    /// At QoS 2: a letter, and of the delivery only the release is left.
    fn die_once(&mut self, index: SessionIndex, tag: Tag, outcome: Outcome) {
        let session = &mut self.sessions[index as usize];
        let (queue, logged) = (session.id, session.logged);
        let Some(slot) = session.queue.window.get_mut(tag) else { return };
        slot.given_up = Some(outcome);
        let (sequence, Some(entry)) = (slot.sequence, slot.entry.take()) else { return };
        let first_sent = slot.first_sent;
        session.queue.bytes -= entry.size().min(session.queue.bytes);
        session.queue.note_sends(sequence, first_sent);
        let is_letter = self.is_letter(&entry, outcome);
        let over = self.over(index, &entry, Ended::With(outcome), 0).filter(|_| !is_letter);
        if is_letter {
            self.make_letter(index, &entry, outcome, 0, Ends::Later);
        }
        self.sessions[index as usize].queue.forget_attempts(sequence);
        if logged {
            self.append(Record::Received { queue, sequence });
            self.mark_dirty(index);
        }
        self.tell_step(index, &entry, over);
    }

    /// Its whole window, or each packet identifier that there is, waits for answers that come too late or never.
    fn close_if_stuck(&mut self, place: ConnectionIndex) {
        let connection = &self.connections[place as usize];
        let has_no_tag = |index: SessionIndex| self.sessions[index as usize].queue.window.is_exhausted();
        let is_full = connection.unacknowledged >= connection.window_max || self.queues_of(place).any(has_no_tag);
        let all_dead = |index: SessionIndex| {
            self.sessions[index as usize]
                .queue
                .window
                .iter()
                .all(|(_, slot)| !slot.counts || (slot.is_dead() && slot.state == State::Sent))
        };
        if is_full && self.queues_of(place).all(all_dead) {
            self.count(Counted::StuckConsumer);
            self.cut_off(self.session_of(place), ReasonCode::ImplementationSpecificError);
        }
    }

    /// What makes a delivery late or too old has changed: everybody is looked at.
    pub(crate) fn watch_anew(&mut self) {
        let busy = self.connections.iter().filter(|(_, connection)| connection.unacknowledged > 0);
        let busy: Vec<ConnectionIndex> = busy.map(|(place, _)| place as ConnectionIndex).collect();
        busy.into_iter().for_each(|place| self.look_in_time(place, self.now.mono));
    }

    /// Something that was given up is answered after all.
    pub(crate) fn acknowledged_late(&mut self, place: ConnectionIndex, tag: Tag) {
        self.count(Counted::LateAcknowledgement);
        let connection = &mut self.connections[place as usize];
        let Some(index) = connection.owner_of(tag) else { return };
        if self.sessions[index as usize].queue.leave(tag).is_some_and(|slot| slot.counts) {
            connection.unacknowledged -= 1;
        }
        self.pump_connection(place);
    }
}
