//! The life of a delivery: from the queue into the window, out, acknowledged.
//!
//! ```text
//! QoS 1  waiting ─► (held until its commit) ─► sent ─PUBACK─► settled
//! QoS 2  waiting ─► (held until its tag is committed) ─► sent ─PUBREC─► (held) ─► released ─PUBCOMP─► settled
//! ```

use std::sync::Arc;

use base::{ConnectionId, LetterId, Outcome, Qos, ReasonCode, Record, Sequence, Step, Tag};
use postroad_base as base;

use crate::api::{Counted, Effect};
use crate::broker::{Broker, Congestion};
use crate::config::Push;
use crate::drain::Stage;
use crate::gate::Waiter;
use crate::queue::{Entry, Slot, State};
use crate::session::{Connection, ConnectionIndex, Role, SessionIndex};

impl Broker {
    /// Something new stands in this queue, or its connection takes more: sends what it takes.
    pub(crate) fn pump(&mut self, index: SessionIndex) {
        let session = &self.sessions[index as usize];
        if session.ending {
            return self.give_back(index);
        }
        if session.role == Role::Group {
            return self.serve_group(index);
        }
        match session.connection {
            Some(place) => self.pump_connection(place),
            None => {
                while self.send_one(index) {} // what has expired goes
                self.read_backlog(index);
            }
        }
    }

    /// Puts a delivery into a queue. It leaves at once if nothing waits in front of it.
    pub(crate) fn arrive(&mut self, index: SessionIndex, entry: Entry) {
        let session = &self.sessions[index as usize];
        let waits = session.ending || session.role == Role::Group || !session.queue.is_empty();
        if !waits
            && entry.is_ordinary()
            && let Some(place) = self.ready_for_queued(index)
            && self.takes_another(place)
            && !self.connections[place as usize].is_draining
        {
            self.mark_dirty(index);
            self.sessions[index as usize].queue.bytes += entry.size();
            self.take_out(index, place, entry);
            return self.give_if_watched(index);
        }
        let session = &mut self.sessions[index as usize];
        let connection = session.connection;
        let is_draining = connection.is_some_and(|place| self.connections[place as usize].is_draining);
        session.queue.push(entry);
        self.mark_dirty(index);
        if waits {
            let takes_more = |place: &ConnectionIndex| !self.connections[*place as usize].has_no_allowance();
            match connection.filter(takes_more).map(|place| self.drain.stage(place)) {
                None => {}
                Some(None) => self.arrived_behind += 1,
                Some(Some(_)) => self.drain.arrived_behind += 1,
            }
            return self.pump(index);
        }
        if !is_draining {
            self.send_one(index);
            self.give_if_watched(index);
        }
    }

    /// A delivery is over: its connection takes another one. A queue in memory gives it at once, since a turn reads so many
    /// acknowledgements and no more; one with a backlog gives what it may.
    fn replace(&mut self, place: ConnectionIndex) {
        let Connection { session, registration, .. } = self.connections[place as usize];
        if registration.is_none() && self.drain.is_idle() && self.sessions[session as usize].queue.is_empty() {
            return self.give_if_watched(session); // as most of the time
        }
        if matches!(self.drain.stage(place), Some(Stage::Delayed | Stage::Unscheduled)) {
            return; // its turn has not come
        }
        let takes_tokens = self.drain.is_limited() && self.drain.stage(place).is_some();
        let has_backlog = |index| self.sessions[index as usize].queue.backlog.is_some();
        if takes_tokens || self.queues_of(place).any(has_backlog) {
            return self.pump_connection(place);
        }
        // What has expired is dropped on the way: that is not the one that takes the room.
        let before = self.connections[place as usize].unacknowledged;
        for _ in 0..self.config.drained_per_tick {
            let sent = self.send_next(session, registration);
            self.settle_owed(place, usize::from(sent));
            if !sent || self.connections[place as usize].unacknowledged > before {
                return self.give_if_watched(session);
            }
        }
        self.pump_connection(place);
    }

    /// Sends what a connection takes of the queues that it drains, as far as waiting deliveries may leave in this turn; the
    /// rest in turns to come.
    pub(crate) fn pump_connection(&mut self, place: ConnectionIndex) {
        if self.connections[place as usize].is_draining {
            return;
        }
        if self.drain.stage(place).is_some() {
            return self.pump_drain(place);
        }
        let most = self.drain_quota;
        self.drain_quota -= self.send_waiting(place, most);
    }

    /// A connection's turn has come to be sent what waits; how many it was.
    pub(crate) fn drain(&mut self, connection: ConnectionId, most: usize) -> usize {
        let Some(place) = self.place_of(connection) else { return 0 };
        self.connections[place as usize].is_draining = false;
        self.send_waiting(place, most)
    }

    /// At most `most` deliveries, of both queues the older one first. What the connection takes at once is counted for both
    /// together.
    pub(crate) fn send_waiting(&mut self, place: ConnectionIndex, most: usize) -> usize {
        let Connection { session, registration, .. } = self.connections[place as usize];
        let mut sent = 0;
        while sent < most && self.send_next(session, registration) {
            sent += 1;
        }
        self.settle_owed(place, sent);
        if sent == most && self.has_waiting(session, registration) {
            self.stand_in_line(place);
        }
        self.read_backlog(session);
        registration.into_iter().for_each(|registration| self.read_backlog(registration));
        self.give_if_watched(session);
        sent
    }

    fn send_next(&mut self, session: SessionIndex, registration: Option<SessionIndex>) -> bool {
        let Some(registration) = registration else { return self.resend_one(session) || self.send_one(session) };
        let [first, second] = self.older_first([session, registration]);
        self.resend_one(first) || self.send_one(first) || self.resend_one(second) || self.send_one(second)
    }

    /// Whether there may be something to send in memory.
    fn has_waiting(&self, session: SessionIndex, registration: Option<SessionIndex>) -> bool {
        let mut both = [Some(session), registration].into_iter().flatten();
        both.any(|index| {
            let queue = &self.sessions[index as usize].queue;
            queue.next().is_some() || !queue.resend.is_empty()
        })
    }

    fn older_first(&self, [one, other]: [SessionIndex; 2]) -> [SessionIndex; 2] {
        let front = |index: SessionIndex| self.sessions[index as usize].queue.front_rank();
        match (front(one), front(other)) {
            (Some(a), Some(b)) if b < a => [other, one],
            _ => [one, other],
        }
    }

    /// The session's connection, if it takes a delivery now.
    #[inline]
    pub(crate) fn ready(&self, index: SessionIndex) -> Option<ConnectionIndex> {
        let place = self.sessions[index as usize].connection?;
        let connection = &self.connections[place as usize];
        (!connection.opening && !connection.congested && self.config.limits.push == Push::On).then_some(place)
    }

    /// The same, if it takes one that has waited.
    #[inline]
    pub(crate) fn ready_for_queued(&self, index: SessionIndex) -> Option<ConnectionIndex> {
        self.ready(index).filter(|place| matches!(self.drain.stage(*place), None | Some(Stage::Draining)))
    }

    /// After a reconnect: what was in flight goes first, under its old tag `[MQTT-4.4.0-1]`.
    fn resend_one(&mut self, index: SessionIndex) -> bool {
        let queue = &mut self.sessions[index as usize].queue;
        let Some(&tag) = queue.resend.front() else { return false };
        let Some(place) = self.ready_for_queued(index) else { return false };
        let connection = &mut self.connections[place as usize];
        let queue = &mut self.sessions[index as usize].queue;
        let Some(slot) = queue.window.get_mut(tag) else {
            queue.resend.pop_front();
            return true;
        };
        let sequence = slot.sequence;
        let sent_before = slot.entry.as_ref().filter(|entry| entry.dup).map(|entry| Arc::clone(&entry.message));
        if slot.state == State::Released {
            queue.resend.pop_front();
            // It counts until PUBCOMP: else a client that never sends one would use up all tags.
            slot.counts = true;
            slot.note_released(self.now.mono);
            connection.unacknowledged += 1;
            let (connection, reason) = (connection.id, ReasonCode::Success);
            self.watch_for(place, None);
            self.effects.push_back(Effect::ReleaseDelivery { connection, tag, reason });
            return true;
        }
        if connection.unacknowledged >= connection.window_max {
            return false;
        }
        let is_restored = queue.window.get(tag).is_some_and(|slot| slot.restored);
        if is_restored && queue.has_older(sequence) {
            return false; // after a crash, what may have been sent stands on both sides [MQTT-4.4.0-1]
        }
        queue.resend.pop_front();
        if sent_before.is_some_and(|message| !self.has_attempts_left(index, sequence, &message)) {
            self.give_up_resend(index, place, tag);
            return true;
        }
        let queue = &mut self.sessions[index as usize].queue;
        if is_restored {
            queue.window.note_place(tag);
        }
        let Some(slot) = queue.window.get_mut(tag).filter(|slot| slot.state == State::Waiting) else { return true };
        let Some(entry) = slot.entry.clone() else { return true };
        slot.state = State::Sent;
        slot.counts = true;
        slot.note_sent(self.now);
        let waited = slot.waited;
        let connection = &mut self.connections[place as usize];
        connection.unacknowledged += 1;
        let connection = connection.id;
        self.count_by_lane(place);
        if entry.dup {
            self.note_attempt(index, tag);
            self.stats.resent_reconnect += 1;
        }
        self.watch(place, &entry.message, waited);
        self.send(index, connection, entry, Some(tag));
        true
    }

    /// Takes the next delivery from the queue into the window and sends it, or holds it for its commit.
    fn send_one(&mut self, index: SessionIndex) -> bool {
        let session = &mut self.sessions[index as usize];
        let Some((next, next_place)) = session.queue.next_with_place() else { return false };
        let resend = session.queue.resend.front().and_then(|tag| session.queue.window.get(*tag));
        if resend.is_some_and(|slot| slot.restored && slot.sequence <= next.sequence) {
            return false;
        }
        if next.message.expires_at.is_some_and(|at| at <= self.now.wall) {
            self.count(Counted::Expired);
            self.drop_next(index, Outcome::Expired);
            return true;
        }
        let sequence = next.sequence;
        let was_sent = next.dup && session.queue.attempts_at(sequence).is_some();
        let sent_before = was_sent.then(|| Arc::clone(&next.message));
        let Some(place) = self.ready_for_queued(index) else { return false };
        if sent_before.is_some_and(|message| !self.has_attempts_left(index, sequence, &message)) {
            self.drop_next(index, Outcome::Attempts);
            return true;
        }
        if !self.takes_another(place) {
            return false;
        }
        let Some(entry) = self.sessions[index as usize].queue.pop_at(next_place) else { return false };
        self.take_out(index, place, entry)
    }

    /// Whether the connection has room for a delivery, and wants one.
    #[inline]
    fn takes_another(&self, place: ConnectionIndex) -> bool {
        let connection = &self.connections[place as usize];
        connection.unacknowledged < connection.window_max && !connection.has_no_allowance()
    }

    /// Puts what was in front of the queue into the window, and sends it, or holds it for its commit; false if there is no tag for it.
    fn take_out(&mut self, index: SessionIndex, place: ConnectionIndex, entry: Entry) -> bool {
        let session = &mut self.sessions[index as usize];
        let (queue, sequence, qos, logged) = (session.id, entry.sequence, entry.qos, session.logged);
        let tag = match session.queue.window.insert(entry, State::Held) {
            Ok(tag) => tag,
            Err(entry) => {
                session.queue.unpop(*entry);
                self.look_in_time(place, self.now.mono); // whether the connection is stuck
                return false;
            }
        };
        if let Some(slot) = session.queue.window.get_mut(tag) {
            slot.counts = true;
        }
        session.queue.note_leaving(tag, logged);
        let connection = &mut self.connections[place as usize];
        connection.unacknowledged += 1;
        let (connection, held) = (connection.id, connection.held);
        self.spend_allowance(place);
        self.count_by_lane(place);
        if logged && qos == Qos::ExactlyOnce {
            self.append(Record::Tagged { queue, sequence, tag });
            self.mark_dirty(index);
        } else if !logged || (held == 0 && self.gate.is_committed(sequence)) {
            self.send_held(index, place, tag);
            return true;
        }
        self.connections[place as usize].held += 1;
        self.after_commit(Waiter::Deliver(connection, tag));
        true
    }

    /// The next one is over before it could be sent (again).
    pub(crate) fn drop_next(&mut self, index: SessionIndex, outcome: Outcome) {
        let queue = &mut self.sessions[index as usize].queue;
        let Some(entry) = queue.pop() else { return };
        queue.bytes -= entry.size().min(queue.bytes);
        self.end_undelivered(index, &entry, outcome, 0);
    }

    /// A commit has covered a held delivery.
    pub(crate) fn deliver_held(&mut self, connection: ConnectionId, tag: Tag) {
        let Some(place) = self.place_of(connection) else { return };
        let connection_state = &mut self.connections[place as usize];
        connection_state.held -= 1;
        if let Some(index) = connection_state.owner_of(tag) {
            self.send_held(index, place, tag);
        }
    }

    fn send_held(&mut self, index: SessionIndex, place: ConnectionIndex, tag: Tag) {
        let now = self.now;
        let queue = &mut self.sessions[index as usize].queue;
        let Some(slot) = queue.window.get_mut(tag).filter(|slot| slot.state == State::Held) else { return };
        let Some(entry) = slot.entry.clone() else { return };
        slot.state = State::Sent;
        slot.note_sent(now);
        if entry.dup && queue.attempts_at(entry.sequence).is_some() {
            self.note_attempt(index, tag);
            self.stats.resent_reconnect += 1;
        }
        self.watch(place, &entry.message, 0);
        let connection = self.connections[place as usize].id;
        self.send(index, connection, entry, Some(tag));
    }

    /// PUBACK.
    pub(crate) fn acknowledge(&mut self, connection: ConnectionId, tag: Tag, reason: ReasonCode) {
        let Some(place) = self.place_of(connection) else { return };
        let now = self.now.mono;
        let slot = self.slot_mut(place, tag).filter(|slot| slot.qos == Qos::AtLeastOnce && slot.state == State::Sent);
        let Some(slot) = slot else { return self.answered_late(place, tag) };
        slot.note_answered();
        if slot.is_dead() {
            return self.acknowledged_late(place, tag);
        }
        if let Some(millis) = slot.round_trip(now) {
            self.connections[place as usize].round_trip.observe(millis);
        }
        self.finish(place, tag, outcome_of(reason), reason as u8);
    }

    /// PUBREC.
    pub(crate) fn receive(&mut self, connection: ConnectionId, tag: Tag, reason: ReasonCode) {
        let Some(place) = self.place_of(connection) else { return };
        let index = self.connections[place as usize].owner_of(tag).unwrap_or_else(|| self.session_of(place));
        let session = &mut self.sessions[index as usize];
        let mut slot = session.queue.window.get_mut(tag).filter(|slot| slot.qos == Qos::ExactlyOnce);
        if let Some(slot) = &mut slot {
            slot.note_answered();
        }
        match slot.map(|slot| (slot.state, slot)) {
            Some((State::Sent, &mut Slot { given_up: Some(outcome), .. })) if reason.is_error() => {
                self.count(Counted::LateAcknowledgement);
                self.finish(place, tag, outcome, 0);
            }
            Some((State::Sent, _)) if reason.is_error() => self.finish(place, tag, outcome_of(reason), reason as u8),
            Some((State::Sent, slot)) if slot.is_dead() => {
                slot.state = State::ReleaseHeld; // the log knows
                self.count(Counted::LateAcknowledgement);
                self.after_commit(Waiter::Release(connection, tag));
            }
            Some((State::Sent, slot)) => {
                slot.state = State::ReleaseHeld;
                if let Some(millis) = slot.round_trip(self.now.mono) {
                    self.connections[place as usize].round_trip.observe(millis);
                }
                let (queue, sequence, logged) = (session.id, slot.sequence, session.logged);
                let entry = slot.entry.take();
                if let Some(entry) = &entry {
                    self.stats.times.observe(entry.age(self.now.wall));
                    session.queue.bytes -= entry.size().min(session.queue.bytes);
                }
                if logged {
                    self.append(Record::Received { queue, sequence });
                    self.mark_dirty(index);
                    self.after_commit(Waiter::Release(connection, tag));
                } else {
                    self.release_held(connection, tag);
                }
                if let Some(entry) = entry {
                    self.tell_acknowledged(index, &entry);
                }
            }
            Some((State::Released, slot)) => {
                slot.unanswered = slot.unanswered.saturating_add(1);
                self.effects.push_back(Effect::ReleaseDelivery { connection, tag, reason: ReasonCode::Success });
            }
            Some((State::ReleaseHeld, _)) => {} // the PUBREL is on its way
            _ => {
                if !reason.is_error() {
                    // Before the answer counts: with it the tag may be free, and a PUBCOMP is still to come.
                    self.sessions[index as usize].queue.ask_late(tag);
                }
                self.answered_late(place, tag);
                if !reason.is_error() {
                    let reason = ReasonCode::PacketIdentifierNotFound;
                    self.effects.push_back(Effect::ReleaseDelivery { connection, tag, reason });
                }
            }
        }
    }

    /// A commit has covered a PUBREC.
    pub(crate) fn release_held(&mut self, connection: ConnectionId, tag: Tag) {
        let Some(place) = self.place_of(connection) else { return };
        let now = self.now.mono;
        let slot = self.slot_mut(place, tag);
        if let Some(slot) = slot.filter(|slot| slot.state == State::ReleaseHeld) {
            slot.note_released(now);
            self.watch_for(place, None);
            self.effects.push_back(Effect::ReleaseDelivery { connection, tag, reason: ReasonCode::Success });
        }
    }

    /// PUBCOMP.
    pub(crate) fn complete(&mut self, connection: ConnectionId, tag: Tag) {
        let Some(place) = self.place_of(connection) else { return };
        let slot = self.slot_mut(place, tag).filter(|slot| slot.state == State::Released);
        let Some(slot) = slot else { return self.answered_late(place, tag) };
        slot.note_answered();
        let outcome = slot.given_up.unwrap_or(Outcome::Acknowledged);
        self.finish(place, tag, outcome, 0);
    }

    /// An answer to nothing that is in flight: to another copy of what is over, or out of the blue.
    fn answered_late(&mut self, place: ConnectionIndex, tag: Tag) {
        let owner = self.connections[place as usize].owner_of(tag);
        let was_due = owner.is_some_and(|index| self.sessions[index as usize].queue.answer_late(tag));
        if !was_due {
            self.count(Counted::UnknownTag);
        }
    }

    /// The delivery under this tag, of whichever queue it is.
    fn slot_mut(&mut self, place: ConnectionIndex, tag: Tag) -> Option<&mut Slot> {
        let index = self.connections[place as usize].owner_of(tag)?;
        self.sessions[index as usize].queue.window.get_mut(tag)
    }

    /// A delivery of a connected session is over; `reason_code` is what the receiver gave.
    pub(crate) fn finish(&mut self, place: ConnectionIndex, tag: Tag, outcome: Outcome, reason_code: u8) {
        let connection = &mut self.connections[place as usize];
        let Some(index) = connection.owner_of(tag) else { return };
        let queue = &mut self.sessions[index as usize].queue;
        let Some(slot) = queue.leave(tag) else { return };
        if slot.counts {
            connection.unacknowledged -= 1;
        }
        if let Some(entry) = &slot.entry {
            queue.bytes -= entry.size().min(queue.bytes);
        }
        if matches!(outcome, Outcome::Refused | Outcome::TooLarge) {
            self.count(Counted::RefusedByReceiver);
        }
        if let (Outcome::Acknowledged, Some(entry)) = (outcome, &slot.entry) {
            self.stats.times.observe(entry.age(self.now.wall));
        }
        match slot.entry {
            Some(entry) if outcome == Outcome::TooLarge => self.end_undelivered(index, &entry, outcome, 0), // our own reason
            Some(entry) if outcome != Outcome::Acknowledged => {
                self.sessions[index as usize].queue.note_sends(entry.sequence, slot.first_sent);
                self.end_undelivered(index, &entry, outcome, reason_code);
            }
            Some(entry) if self.is_followed(&entry.message) => {
                // After the record that it waits for; before its attempts are forgotten, they are looked up.
                let attempts = self.sends(index, slot.sequence);
                self.settle(index, slot.sequence, slot.stored, outcome);
                self.tell_of(index, &entry.message, Step::Acknowledged { attempts });
            }
            _ => self.settle(index, slot.sequence, slot.stored, outcome),
        }
        if outcome == Outcome::TooLarge {
            return self.pump_connection(place); // nobody had to read anything for it: a whole queue may be too large
        }
        self.replace(place);
    }

    /// A delivery is over: counts it, and writes it down where the log knows of it.
    pub(crate) fn settle(&mut self, index: SessionIndex, sequence: Sequence, stored: bool, outcome: Outcome) {
        let session = &self.sessions[index as usize];
        if session.logged {
            let queue = session.id;
            self.append(Record::Settle { queue, sequence, outcome });
        }
        self.note_ended(index, sequence, stored, outcome);
    }

    /// As `settle`, when a record of its own says so.
    #[inline]
    pub(crate) fn note_ended(&mut self, index: SessionIndex, sequence: Sequence, stored: bool, outcome: Outcome) {
        self.stats.ended[outcome as usize] += 1;
        let session = &mut self.sessions[index as usize];
        session.queue.forget_attempts(sequence);
        if session.role == Role::Letters {
            self.letters.forget(LetterId { queue: session.id, sequence });
        }
        let session = &mut self.sessions[index as usize];
        if !session.logged {
            return;
        }
        session.queue.forget_full_sync(sequence);
        if stored {
            self.retiring.settled.push((session.id, sequence));
            if session.role == Role::Scheduled {
                return self.mark_dirty(index); // who waits there is known: nothing that is over is looked for
            }
            if session.role == Role::Letters {
                // It may be the first batch that holds it, and letters in front of it: these become backlog, and it is read
                // among them.
                let backlog = session.queue.backlog.get_or_insert_default();
                if sequence > backlog.after {
                    backlog.skip.insert(sequence);
                }
            } else {
                let (count, stored_count) = self.retiring.counts();
                session.queue.note_stored_end(sequence, count, stored_count);
            }
        }
        self.mark_dirty(index);
    }

    pub(crate) fn set_congested(&mut self, connection: ConnectionId, congestion: Congestion) {
        let Some(place) = self.place_of(connection) else { return };
        let connection = &mut self.connections[place as usize];
        connection.congested = congestion == Congestion::Congested;
        if congestion == Congestion::Writable {
            self.pump_connection(place);
        }
    }
}

fn outcome_of(reason: ReasonCode) -> Outcome {
    match reason {
        // `session` says so: it is not sent `[MQTT-3.1.2-25]`, and over.
        ReasonCode::PacketTooLarge => Outcome::TooLarge,
        reason if reason.is_error() => Outcome::Refused,
        _ => Outcome::Acknowledged,
    }
}
