//! Deliveries that are in flight and not acknowledged: when they are given up.
//!
//! ```text
//! sent ──PUBACK──► settled
//!  ├─ the connection breaks ─► sent again, one attempt more ─► retry.max_attempts: dead (attempts)
//!  └─ retry.max_age of connected time since it was first sent ─► dead (unacknowledged)
//! ```
//!
//! MQTT 5 forbids to send a message again on a live connection `[MQTT-4.4.0-1]`, and a slow road is no reason to cut it: so it
//! stays in flight, and its age counts. A dead delivery has left its queue, but its packet identifier stays taken until the
//! receiver answers (too late: counted) or the connection ends; at QoS 2 until PUBCOMP, since the receiver may have it. A
//! connection whose whole window is dead consumes nothing any more: it is closed (0x83), its session stays.
//!
//! Crash story: a letter and the end of its delivery are one record (`Transfer`). At QoS 2 the letter comes first, then
//! `Received`, in one turn, hence in one commit: as if the receiver had it, so that only the release is repeated.

use std::collections::VecDeque;

use base::{ConnectionId, MonoMillis, Outcome, Qos, ReasonCode, Record, Tag};
use postroad_base as base;

use crate::api::Counted;
use crate::broker::Broker;
use crate::gate::Waiter;
use crate::letters::Ends;
use crate::queue::{Attempts, Slot, State};
use crate::session::{ConnectionIndex, SessionIndex};

/// Connections that one tick looks at.
const LOOKS_PER_TICK: usize = 16;
/// A connection is looked at so many times in `retry.max_age`: that is how exact it is.
const LOOKS_PER_AGE: u64 = 8;
const PERIOD_MIN_MILLIS: u64 = 100;
/// Places in the line beyond two for each connection, before those of gone ones are taken out.
const LINE_SLACK: usize = 1024;

/// Connections that have something in flight, or had when they were looked at last.
#[derive(Debug, Default)]
pub(crate) struct Overdue {
    /// When each is looked at next, in this order: the period is the same for all.
    line: VecDeque<(MonoMillis, ConnectionId)>,
}

impl Overdue {
    pub fn next(&self) -> Option<MonoMillis> {
        self.line.front().map(|(due, _)| *due)
    }
}

impl Broker {
    /// Something has left on this connection: it is looked at in time.
    pub(crate) fn watch(&mut self, place: ConnectionIndex) {
        let (now, age_max) = (self.now.mono, self.config.retry_age_max_ms);
        let connection = &mut self.connections[place as usize];
        if !connection.is_watched && age_max > 0 {
            connection.is_watched = true;
            self.overdue.line.push_back((now.after(period(age_max)), connection.id));
            if self.overdue.line.len() > 2 * self.connections.len() + LINE_SLACK {
                self.forget_gone_connections();
            }
        }
    }

    /// Connections that come and go leave their places in the line: at most as many as there are others.
    fn forget_gone_connections(&mut self) {
        let mut line = std::mem::take(&mut self.overdue.line);
        line.retain(|(_, id)| self.place_of(*id).is_some());
        self.overdue.line = line;
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

    /// Whether a delivery that was sent before, here or in a former run, may be sent once more.
    pub(crate) fn has_attempts_left(&self, index: SessionIndex, sequence: base::Sequence) -> bool {
        let most = self.config.retry_attempts_max;
        let before = self.sessions[index as usize].queue.attempts_at(sequence).map_or(1, |attempts| attempts.count);
        most == 0 || before < most
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
            let now = self.now.mono;
            let Some((_, id)) = self.overdue.line.pop_front_if(|(due, _)| *due <= now) else { return };
            if let Some(place) = self.place_of(id) {
                self.check_connection(place);
            }
        }
    }

    fn check_connection(&mut self, place: ConnectionIndex) {
        let age_max = self.config.retry_age_max_ms;
        let connection = &mut self.connections[place as usize];
        connection.is_watched = connection.unacknowledged > 0 && age_max > 0;
        if !connection.is_watched {
            return;
        }
        self.overdue.line.push_back((self.now.mono.after(period(age_max)), connection.id));
        let now = self.now.mono;
        let is_over = |slot: &Slot| slot.state == State::Sent && !slot.dead && slot.age(now) >= age_max;
        let mut over: Vec<(SessionIndex, Tag)> = Vec::new();
        for index in self.queues_of(place) {
            let window = &self.sessions[index as usize].queue.window;
            let tags = window.in_order().into_iter().filter(|tag| window.get(*tag).is_some_and(is_over));
            over.extend(tags.map(|tag| (index, tag)));
        }
        for (index, tag) in over {
            self.die_in_flight(index, tag);
        }
        self.close_if_stuck(place);
    }

    /// It is over for the server; the receiver may still answer.
    fn die_in_flight(&mut self, index: SessionIndex, tag: Tag) {
        let queue = &mut self.sessions[index as usize].queue;
        let Some(slot) = queue.window.get_mut(tag) else { return };
        if slot.qos == Qos::ExactlyOnce {
            return self.die_once(index, tag, Outcome::Unacknowledged);
        }
        (slot.dead, slot.stored) = (true, false);
        let first_sent = slot.first_sent;
        if let Some(entry) = slot.entry.take() {
            queue.bytes -= entry.size().min(queue.bytes);
            queue.note_sends(entry.sequence, first_sent);
            self.end_undelivered(index, &entry, Outcome::Unacknowledged, 0);
        }
    }

    /// At QoS 2: a letter, and of the delivery only the release is left.
    fn die_once(&mut self, index: SessionIndex, tag: Tag, outcome: Outcome) {
        let session = &mut self.sessions[index as usize];
        let (queue, logged) = (session.id, session.logged);
        let Some(slot) = session.queue.window.get_mut(tag) else { return };
        slot.dead = true;
        let (sequence, Some(entry)) = (slot.sequence, slot.entry.take()) else { return };
        let first_sent = slot.first_sent;
        session.queue.bytes -= entry.size().min(session.queue.bytes);
        session.queue.note_sends(sequence, first_sent);
        if self.is_letter(&entry, outcome) {
            self.make_letter(index, &entry, outcome, 0, Ends::Later);
        }
        self.sessions[index as usize].queue.forget_attempts(sequence);
        if logged {
            self.append(Record::Received { queue, sequence });
            self.mark_dirty(index);
        }
    }

    /// Its whole window waits for answers that come too late or never.
    fn close_if_stuck(&mut self, place: ConnectionIndex) {
        let connection = &self.connections[place as usize];
        let is_full = connection.unacknowledged >= connection.window_max;
        let all_dead = |index: SessionIndex| {
            self.sessions[index as usize]
                .queue
                .window
                .iter()
                .all(|(_, slot)| !slot.counts || (slot.dead && slot.state == State::Sent))
        };
        if is_full && self.queues_of(place).all(all_dead) {
            self.count(Counted::StuckConsumer);
            self.cut_off(self.session_of(place), ReasonCode::ImplementationSpecificError);
        }
    }

    /// `retry.max_age` has changed: everybody is looked at in its time.
    pub(crate) fn watch_anew(&mut self) {
        let age_max = self.config.retry_age_max_ms;
        let due = self.now.mono.after(period(age_max));
        self.overdue.line.clear();
        for (_, connection) in &mut self.connections {
            connection.is_watched = connection.unacknowledged > 0 && age_max > 0;
            if connection.is_watched {
                self.overdue.line.push_back((due, connection.id));
            }
        }
    }

    /// Something that was given up is answered after all.
    pub(crate) fn acknowledged_late(&mut self, place: ConnectionIndex, tag: Tag) {
        self.count(Counted::LateAcknowledgement);
        let connection = &mut self.connections[place as usize];
        let Some(index) = connection.owner_of(tag) else { return };
        if self.sessions[index as usize].queue.window.remove(tag).is_some_and(|slot| slot.counts) {
            connection.unacknowledged -= 1;
        }
        self.pump_connection(place);
    }
}

/// Time between two looks at a connection.
fn period(age_max_ms: u64) -> u64 {
    (age_max_ms / LOOKS_PER_AGE).max(PERIOD_MIN_MILLIS)
}
