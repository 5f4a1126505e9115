//! What a publisher is told once all shards have answered for its publish.
//!
//! ```text
//! all have it ─► InboundBegin, Key again ────► success
//! one refused ─► the publisher can be told ──► its tag is free, its key keeps the id for a repeat
//!             └► it can't: it will repeat ───► its tag keeps the id, those who have it leave it out (`repeats.rs`)
//! ```

use base::{ConnectionId, ReasonCode, Record, Sequence, Tag};
use postroad_base as base;

use crate::api::{Counted, Effect};
use crate::broker::Broker;
use crate::gate::Waiter;
use crate::mesh::Pending;
use crate::repeats::Holder;
use crate::route::reason_for;
use crate::session::{InboundName, Progress, SessionIndex};

impl Broker {
    /// All shards have confirmed the publish that this token names.
    pub(crate) fn publish_confirmed(&mut self, token: u64, pending: Box<Pending>) {
        let holder = pending.holder;
        match holder {
            Some(Holder::Key(key)) => self.key_concluded(key, &pending),
            Some(Holder::Tag(inbound)) if self.is_scheduled(inbound.session) => {
                self.due_concluded(token, inbound, &pending);
            }
            _ => self.conclude(token, &pending),
        }
        if let Some(letter) = pending.letter {
            self.repair_concluded(letter, &pending);
        }
        if let Some(message) = &pending.followed {
            self.tell_stored(message, pending.refusal, pending.matched);
        }
        if let Some(holder) = holder {
            self.routing_ends(holder.id());
        }
    }

    fn conclude(&mut self, token: u64, pending: &Pending) {
        let inbound = self.inbound_of(token, pending);
        let Some(reason) = pending.refusal else {
            let reason = reason_for(pending.matched);
            if !pending.matched && !pending.asks_key {
                self.count(Counted::NoSubscriber);
            }
            if let Some((index, tag)) = inbound {
                self.inbound_routed(index, tag, reason, pending.need);
            }
            // A key's answer may come before what it rests on is committed here.
            let need = if pending.asks_key { pending.need } else { Sequence(0) };
            return self.answer_confirmed(pending, reason, need);
        };
        match inbound {
            Some((index, tag)) => self.inbound_refused(index, tag, reason, pending),
            None => self.answer_confirmed(pending, reason, Sequence(0)),
        }
    }

    /// The session that it came from and the tag, if that still holds this publish: the client may have released it before
    /// it was answered, and used its tag again.
    fn inbound_of(&mut self, token: u64, pending: &Pending) -> Option<(SessionIndex, Tag)> {
        let Some(Holder::Tag(InboundName { session: index, queue, tag, .. })) = pending.holder else { return None };
        let session = self.sessions.get_mut(index as usize).filter(|session| session.id == queue)?;
        let holds_it = session.inbound_mut(tag)?.progress == Progress::Routing(token);
        holds_it.then_some((index, tag))
    }

    fn answer_confirmed(&mut self, pending: &Pending, reason: ReasonCode, need: Sequence) {
        for &(connection, number) in pending.answer.iter().chain(&pending.answers_more) {
            let Some(place) = self.place_of(connection) else { continue };
            let connection_state = &mut self.connections[place as usize];
            let id = pending.id.filter(|_| pending.wants_id || connection_state.is_caller());
            let place = number.checked_sub(connection_state.answers_first);
            if let Some(answer) = place.and_then(|place| connection_state.answers.get_mut(place as usize)) {
                answer.waiting = false;
                answer.reason = reason;
                answer.need = answer.need.max(need);
                if let Some(id) = id {
                    let tag = Some(answer.tag);
                    self.effects.push_back(Effect::Taken { connection, tag, id });
                }
            }
            self.answer_ready(connection);
            if !self.gate.is_committed(need) {
                self.after_commit(Waiter::Answers(connection));
            }
        }
    }

    fn inbound_routed(&mut self, index: SessionIndex, tag: Tag, reason: ReasonCode, need: Sequence) {
        let session = &mut self.sessions[index as usize];
        let (queue, logged) = (session.id, session.logged);
        let Some(state) = session.inbound_mut(tag) else { return };
        state.progress = Progress::Routed { reason, need };
        if logged {
            // Written again: all shards have it. They may forget the id when their young log does.
            let id = state.id;
            self.append(Record::InboundBegin { queue, tag, id });
            self.mark_dirty(index); // a retirement in between has stored the first record only
        }
    }

    /// Some shard has refused it, others may have taken it. A PUBREC with an error frees the tag `[MQTT-4.3.3-9]`. A client
    /// that can't be told (MQTT 3), or is gone, will send it again: its tag keeps the id, and those who have it
    /// don't take it again.
    fn inbound_refused(&mut self, index: SessionIndex, tag: Tag, reason: ReasonCode, pending: &Pending) {
        let mut need = Sequence(0);
        if self.hears_refusal(pending) {
            need = self.free_inbound(index, tag);
        } else if let Some(state) = self.sessions[index as usize].inbound_mut(tag) {
            state.progress = Progress::Unknown;
            let (id, was_told) = (state.id, std::mem::replace(&mut state.told, true));
            if !was_told {
                self.tell_may_repeat(vec![id]);
            }
            self.know_groups(id, &pending.groups);
        }
        self.answer_confirmed(pending, reason, need);
    }

    /// Whether anybody who waits for the answer can be told of a refusal.
    fn hears_refusal(&self, pending: &Pending) -> bool {
        let hears = |(connection, _): &(ConnectionId, u64)| {
            self.place_of(*connection).is_some_and(|place| self.connections[place as usize].hears_refusals())
        };
        pending.answer.iter().chain(&pending.answers_more).any(hears)
    }
}
