//! The retry lane: what is not acknowledged in time is sent again on a connection that lives, if its protocol lets it
//! `[REL-2]`, `[REL-4]`, `[RTM-1]`.
//!
//! ```text
//! sent ─► late ──Probe──► road busy: wait, ask again
//!   ▲    (deadline          │
//!   │     + backoff)        └─► road clear ─► in line ─► sent again, DUP, one attempt more (PUBREL: released again)
//!   └──────────────────────────────────────────┘   └─► attempts_max: given up (attempts)
//! ```
//!
//! Late is what was not acknowledged within the connection's deadline (`round_trip`), which doubles with each resend. The first
//! `immediate` resends on a connection follow at once; later ones wait for a backoff besides. When that is follows from the
//! slot alone (when it was sent, how often it was sent again), so no state is kept for it.
//!
//! A connected client is not a deliverable one: while our own output or the kernel still holds a byte of the last copy, another
//! one would only lengthen the jam. So the engine is asked how far the road is clear (`Effect::Probe`). On a connection that is
//! busy all the time there is always something on the road: the first answer marks where the last copies end, and they have
//! arrived once the mark has. Nor is anything sent while something from the client lies unread: it may be the acknowledgement.
//!
//! Resends stand behind what is realtime and in front of the offline drain (`turns`), with a budget for each tick and, if wanted,
//! a rate. There is state for connections only on which something is late.
//!
//! Crash story: attempts are in the log from the second on (`Record::Attempt`), so they count on. All else is of the connection,
//! which a crash ends.

use std::collections::VecDeque;

use ahash::AHashMap;
use base::{ConnectionId, MonoMillis, Outcome, Tag};
use postroad_base as base;

use crate::api::{Effect, Road};
use crate::broker::Broker;
use crate::config::Config;
use crate::drain::Bucket;
use crate::queue::{Slot, State};
use crate::session::{ConnectionIndex, SessionIndex};
use crate::turns::{DRAINS_PER_TICK, ROOM_KEPT_MAX};

/// Where the road has to be clear up to.
#[derive(Clone, Copy, Debug)]
struct Mark {
    /// What was sent before this instant …
    before: MonoMillis,
    /// … has arrived when so many bytes have.
    sent: u64,
}

/// What the lane knows of a connection on which something is late.
#[derive(Clone, Copy, Debug, Default)]
struct Late {
    /// How much that is, by the last look.
    count: usize,
    /// The first answer that told of its road.
    mark: Option<Mark>,
    /// Its road is clear.
    is_in_line: bool,
}

/// The lane of a shard.
#[derive(Debug)]
pub(crate) struct Resends {
    late: AHashMap<ConnectionIndex, Late>,
    /// Those whose road is clear, in that order. Whoever has had its share goes to the end.
    line: VecDeque<ConnectionId>,
    tokens: Bucket,
}

impl Resends {
    pub fn new(config: &Config) -> Self {
        Self { late: AHashMap::new(), line: VecDeque::new(), tokens: Bucket::new(config.limits.resent_per_second) }
    }

    pub fn set_rate(&mut self, config: &Config, now: MonoMillis) {
        self.tokens.set_rate(config.limits.resent_per_second, now);
    }

    /// When a tick has something to do here.
    pub fn due(&self) -> Option<MonoMillis> {
        (!self.line.is_empty()).then(|| self.tokens.portion_at())
    }

    /// Deliveries that are late, by the last looks.
    pub fn overdue(&self) -> usize {
        self.late.values().map(|late| late.count).sum()
    }

    /// The same of one connection.
    pub fn overdue_of(&self, place: ConnectionIndex) -> usize {
        self.late.get(&place).map_or(0, |late| late.count)
    }

    /// A look has found so many that are late; whether its road is to be asked for.
    pub fn found(&mut self, place: ConnectionIndex, count: usize) -> bool {
        if count == 0 {
            self.forget(place);
            return false;
        }
        let late = self.late.entry(place).or_default();
        late.count = count;
        !late.is_in_line
    }

    /// Nothing is late there any more, or the connection is gone.
    pub fn forget(&mut self, place: ConnectionIndex) {
        if self.late.is_empty() {
            return; // as most of the time
        }
        self.late.remove(&place);
        if self.late.is_empty() && self.late.capacity() > ROOM_KEPT_MAX {
            self.late = AHashMap::new();
        }
    }
}

impl Broker {
    /// How far what was sent to a connection has come: the answer to `Effect::Probe`.
    pub(crate) fn road(&mut self, connection: ConnectionId, road: Road) {
        let Some(place) = self.place_of(connection) else { return };
        let Some(late) = self.resends.late.get_mut(&place) else { return };
        let mark = *late.mark.get_or_insert(Mark { before: self.now.mono, sent: road.sent });
        let is_clear = !road.has_unread && road.arrived >= mark.sent;
        if is_clear && !std::mem::replace(&mut late.is_in_line, true) {
            self.resends.line.push_back(connection);
        }
    }

    /// When a delivery is to be sent again on its connection; `None`: not at all, as far as is known.
    pub(crate) fn resend_due(&self, place: ConnectionIndex, index: SessionIndex, slot: &Slot) -> Option<MonoMillis> {
        let is_waiting = slot.state == State::Released || (slot.state == State::Sent && !slot.is_dead());
        if !is_waiting || !self.is_resent_to(place) {
            return None;
        }
        let late = slot.sent_at.after(self.ack_deadline(place, slot.resends));
        if late > self.now.mono {
            return Some(late); // it needs no more than this comparison: most are acknowledged before
        }
        let seed = slot.sequence.0 ^ u64::from(slot.resends) << 56 ^ u64::from(self.config.boot) << 24;
        match &slot.entry {
            // What has no attempts left waits for nothing more.
            Some(entry) if !self.has_attempts_left(index, slot.sequence, &entry.message) => Some(late),
            Some(entry) => Some(late.after(self.retry_policy(&entry.message).backoff(slot.resends, seed))),
            None => Some(late.after(self.config.limits.retry.backoff(slot.resends, seed))),
        }
    }

    /// Sends again what is late on the connections whose road is clear.
    pub(crate) fn resend_some(&mut self) {
        if self.resends.line.is_empty() || self.resends.tokens.portion_at() > self.now.mono {
            return;
        }
        let mut left = self.config.resent_per_tick;
        let quantum = left.div_ceil(DRAINS_PER_TICK);
        for _ in 0..self.resends.line.len() {
            let most = left.min(quantum).min(self.resends.tokens.room(self.now.mono));
            if most == 0 {
                return;
            }
            let Some(connection) = self.resends.line.pop_front() else { return };
            let sent = self.resend_late(connection, most);
            left -= sent.clamp(1, left); // who takes none has cost something, too
        }
    }

    /// Sends at most `most` of what is late there again; how many it was.
    fn resend_late(&mut self, connection: ConnectionId, most: usize) -> usize {
        let Some(place) = self.place_of(connection) else { return 0 };
        let Some(late) = self.resends.late.get_mut(&place) else { return 0 };
        late.is_in_line = false;
        let Some(Mark { before, .. }) = late.mark else { return 0 };
        if self.ready(self.session_of(place)).is_none() {
            return 0; // it takes nothing: the next look asks anew
        }
        let found = self.late_before(place, before);
        let sent = found.len().min(most);
        for &(index, tag) in &found[..sent] {
            self.send_again(place, index, tag);
        }
        let Some(late) = self.resends.late.get_mut(&place) else { return sent };
        late.count -= sent.min(late.count);
        late.is_in_line = found.len() > sent;
        if late.is_in_line {
            self.resends.line.push_back(connection);
        } else {
            late.mark = None;
            if late.count == 0 {
                self.resends.forget(place);
            }
        }
        sent
    }

    /// What is late and was sent before this instant, of each queue in the order in which it was sent first `[MQTT-4.6.0-1]`: with
    /// priorities that is not the order of the log.
    fn late_before(&self, place: ConnectionIndex, before: MonoMillis) -> Vec<(SessionIndex, Tag)> {
        let mut all = Vec::new();
        for index in self.queues_of(place) {
            let is_late = |slot: &Slot| {
                let due = self.resend_due(place, index, slot);
                due.is_some_and(|due| due <= self.now.mono) && slot.sent_at < before
            };
            let late = self.sessions[index as usize].queue.window.iter().filter(|(_, slot)| is_late(slot));
            let mut found: Vec<_> = late.map(|(tag, slot)| (slot.order, tag)).collect();
            found.sort_unstable();
            all.extend(found.into_iter().map(|(_, tag)| (index, tag)));
        }
        all
    }

    fn send_again(&mut self, place: ConnectionIndex, index: SessionIndex, tag: Tag) {
        let connection = self.connections[place as usize].id;
        let Some(slot) = self.sessions[index as usize].queue.window.get(tag) else { return };
        if slot.state == State::Released {
            return self.release_again(connection, index, tag);
        }
        let (sequence, Some(entry)) = (slot.sequence, slot.entry.clone()) else { return };
        if !self.has_attempts_left(index, sequence, &entry.message) {
            return self.die_in_flight(index, tag, Outcome::Attempts);
        }
        let now = self.now;
        let Some(slot) = self.sessions[index as usize].queue.window.get_mut(tag) else { return };
        slot.note_resent(now.mono);
        if let Some(entry) = &mut slot.entry {
            entry.dup = true;
        }
        self.note_attempt(index, tag);
        self.take_token();
        self.stats.resent_live += 1;
        self.send(index, connection, crate::queue::Entry { dup: true, ..entry }, Some(tag));
    }

    fn release_again(&mut self, connection: ConnectionId, index: SessionIndex, tag: Tag) {
        let now = self.now.mono;
        let Some(slot) = self.sessions[index as usize].queue.window.get_mut(tag) else { return };
        slot.note_resent(now);
        self.take_token();
        let reason = base::ReasonCode::Success;
        self.effects.push_back(Effect::ReleaseDelivery { connection, tag, reason });
    }

    fn take_token(&mut self) {
        self.resends.tokens.take(1, self.now.mono);
        self.stats.retried += 1;
    }
}
