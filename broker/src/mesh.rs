//! Between shards: credit, forwards, confirmations.
//!
//! Invariants
//! - A `Forward`, `ShareForward` or `Retain` is sent only against a credit, which `Confirm` or `Retained` gives back.
//! - A `Keyed` is sent only against a credit of its own kind, which `KeyAnswered` gives back (`keys` says why).
//! - A shard answers every `Forward`, also when it keeps nothing of it.
//! - Per pair of shards everything arrives in the order of sending, so `Interest` … `InterestSet` means: what
//!   the other shard takes in from now on comes here.

use std::collections::VecDeque;
use std::sync::Arc;

use ahash::AHashMap;
use base::{ConnectionId, LetterId, Message, MessageId, QueueId, ReasonCode, Sequence, ShardId, TopicFilter};
use bytestring::ByteString;
use postroad_base as base;
use smallvec::SmallVec;

use crate::api::{Effect, Forwarded, MeshMessage, OldestRouted};
use crate::broker::Broker;
use crate::config::Config;
use crate::gate::Waiter;
use crate::giving::Question;
use crate::hooks::Stamp;
use crate::interests::Interests;
use crate::repeats::Holder;
use crate::route::Origin;
use crate::session::SessionIndex;
use crate::share::Placing;

/// The state of this shard's conversations with the others.
#[derive(Debug)]
pub(crate) struct Mesh {
    shard: ShardId,
    peers: Vec<Peer>,
    pub tokens: AHashMap<u64, Token>,
    token_last: u64,
    pub interests: Interests,
    /// Publishes of clients that are gone, waiting for credit.
    pub deferred: VecDeque<(Arc<Message>, Stamp)>,
}

#[derive(Debug)]
struct Peer {
    /// May be overdrawn (see `has_credit`).
    credits: i64,
    /// Connections whose publish waits for a credit to this shard.
    waiting: VecDeque<ConnectionId>,
    /// Credits for keyed publishes.
    key_credits: u32,
    /// Connections whose publish waits for one of these.
    waiting_for_key: VecDeque<ConnectionId>,
    /// Messages for share groups that wait for one.
    placings: VecDeque<Box<Placing>>,
}

/// What a publish lacks to be taken in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Lack {
    /// A credit to this shard, which is to get it.
    Credit(ShardId),
    /// A credit for its key to the home of that.
    KeyCredit(ShardId),
    /// What goes in front of it is not safe yet; woken by `answer_ready`.
    Parts,
}

/// What an answer with this token is about.
#[derive(Debug)]
pub(crate) enum Token {
    /// For `Confirm` and `Retained`.
    Publish(Box<Pending>),
    Interest(ByteString),
    /// A portion of retained messages, for this session.
    Retained(SessionIndex, QueueId),
    Share(Box<Placing>),
}

/// A publish that other shards have to confirm.
#[derive(Debug)]
pub(crate) struct Pending {
    /// Answers that have not come yet.
    pub left: usize,
    /// Somebody has it.
    pub matched: bool,
    /// A shard did not take it, and the publisher is to be told why.
    pub refusal: Option<ReasonCode>,
    pub need: Sequence,
    /// The publisher's connection and the number of the answer in its line.
    pub answer: Option<(ConnectionId, u64)>,
    /// Answers to repeats of the same publish.
    pub answers_more: Vec<(ConnectionId, u64)>,
    /// What keeps its id, if it may be repeated.
    pub holder: Option<Holder>,
    /// It waits for the answer of its key, on this shard or another one.
    pub asks_key: bool,
    /// Its publisher is a client that hears the id.
    pub wants_id: bool,
    /// The message that its key holds, once that has answered.
    pub id: Option<MessageId>,
    /// If it may be repeated: share groups that have it, by members on whatever shard.
    pub groups: SmallVec<[Arc<TopicFilter>; 1]>,
    /// The message, if somebody follows it.
    pub followed: Option<Arc<Message>>,
    /// The dead letter in whose place it was published: that is over once somebody has this.
    pub letter: Option<LetterId>,
}

impl Pending {
    pub fn new(left: usize, matched: bool) -> Self {
        Self {
            left,
            matched,
            refusal: None,
            need: Sequence(0),
            answer: None,
            answers_more: Vec::new(),
            holder: None,
            asks_key: false,
            wants_id: false,
            id: None,
            groups: SmallVec::new(),
            followed: None,
            letter: None,
        }
    }

    /// It was repeated: that waits for the same answer. A session has one connection, so nobody hears those of another.
    pub fn answer_also(&mut self, connection: ConnectionId, number: u64) {
        self.answers_more.extend(self.answer.replace((connection, number)));
        self.answers_more.retain(|(of, _)| *of == connection);
    }
}

impl Mesh {
    pub fn new(config: &Config) -> Self {
        let credits = i64::from(config.mesh_credits);
        let peer = |_| Peer {
            credits,
            waiting: VecDeque::new(),
            key_credits: config.mesh_credits,
            waiting_for_key: VecDeque::new(),
            placings: VecDeque::new(),
        };
        Self {
            shard: config.shard,
            peers: (0..config.placement.shards()).map(peer).collect(),
            tokens: AHashMap::new(),
            token_last: 0,
            interests: Interests::default(),
            deferred: VecDeque::new(),
        }
    }

    pub fn next_token(&mut self) -> u64 {
        self.token_last += 1;
        self.token_last
    }

    /// A portion of retained messages for this session will come under this token.
    pub fn expect_retained(&mut self, token: u64, session: SessionIndex, queue: QueueId) {
        self.tokens.insert(token, Token::Retained(session, queue));
    }

    /// It has come.
    pub fn expected_retained(&mut self, token: u64) -> Option<(SessionIndex, QueueId)> {
        match self.tokens.remove(&token)? {
            Token::Retained(session, queue) => Some((session, queue)),
            other => {
                self.tokens.insert(token, other);
                None
            }
        }
    }

    /// Whether there is no other shard.
    pub fn is_alone(&self) -> bool {
        self.peers.len() < 2
    }

    /// All other shards.
    pub fn others(&self) -> impl Iterator<Item = ShardId> + use<> {
        let own = self.shard;
        (0..self.peers.len() as u16).map(ShardId).filter(move |shard| *shard != own)
    }

    /// One is enough, also for a publish that sends several messages to one shard (forward, retain, share
    /// groups): else a shard with a single credit could never take it. The overdraft is bounded by that.
    pub fn has_credit(&self, shard: ShardId) -> bool {
        self.peers[usize::from(shard.0)].credits > 0
    }

    pub fn take_credit(&mut self, shard: ShardId) {
        let peer = &mut self.peers[usize::from(shard.0)];
        peer.credits -= 1;
    }

    /// Takes a credit for a keyed publish, if there is one.
    pub fn take_key_credit(&mut self, shard: ShardId) -> bool {
        let credits = &mut self.peers[usize::from(shard.0)].key_credits;
        let Some(left) = credits.checked_sub(1) else { return false };
        *credits = left;
        true
    }

    /// A connection waits for what its publish lacks.
    pub fn wait(&mut self, lack: Lack, connection: ConnectionId) {
        match lack {
            Lack::Credit(shard) => self.peers[usize::from(shard.0)].waiting.push_back(connection),
            Lack::KeyCredit(shard) => self.peers[usize::from(shard.0)].waiting_for_key.push_back(connection),
            Lack::Parts => {}
        }
    }

    /// A message for a share group waits for a credit to the shard that was chosen for it.
    pub fn wait_with(&mut self, shard: ShardId, placing: Box<Placing>) {
        self.peers[usize::from(shard.0)].placings.push_back(placing);
    }

    /// The one that has waited longest.
    pub fn next_waiting_with(&mut self, shard: ShardId) -> Option<Box<Placing>> {
        self.peers[usize::from(shard.0)].placings.pop_front()
    }
}

impl Broker {
    pub(crate) fn mesh_message(&mut self, from: ShardId, message: MeshMessage) {
        match message {
            MeshMessage::Forward { message, token, oldest, stamp } => {
                self.forwarded(from, &message, token, oldest, stamp);
            }
            MeshMessage::Confirm { token, outcome } => {
                self.forward_answered(from, token, outcome);
                self.credit_back(from);
            }
            MeshMessage::Interest { filter, wanted, token } => self.interest(from, &filter, wanted, token),
            MeshMessage::InterestSet { token } => self.interest_set(token),
            MeshMessage::Retain { message, token } => {
                let refused = !self.retain(&message);
                let answer = Effect::Mesh { to: from, message: MeshMessage::Retained { token, refused } };
                self.after_commit(Waiter::Emit(Box::new(answer)));
            }
            MeshMessage::Retained { token, refused } => {
                let outcome = if refused { Forwarded::Full } else { Forwarded::NoneHere };
                self.forward_answered(from, token, outcome);
                self.credit_back(from);
            }
            MeshMessage::RetainedQuery { filter, after, looks_max, token } => {
                self.ask(Question { from, filter, after, looks_max, token });
            }
            MeshMessage::RetainedMatches { messages, token, rest } => {
                self.retained_matches(from, token, messages, rest);
            }
            MeshMessage::Fence { token } => self.fence(from, token),
            MeshMessage::FenceReached { token } => self.fence_reached(token),
            MeshMessage::Repeatable { ids, taken } => self.repeatable(ids, taken),
            MeshMessage::MayRepeat { ids } => self.may_repeat(&ids),
            MeshMessage::Forget { id } => self.forget(id),
            MeshMessage::ShareMembers { filter, connected } => self.share_members(from, &filter, connected),
            MeshMessage::Keyed { publish, token } => self.asked_for_key(from, *publish, token),
            MeshMessage::KeyAnswered { token, reason, id } => self.key_answered_by(from, token, reason, id),
            MeshMessage::ShareForward { filter, message, token, oldest, stamp } => {
                self.forwarded_to_group(from, &filter, &message, (token, oldest), stamp);
            }
            MeshMessage::PluginsCommitted { generation } => self.peer_committed(from, generation),
        }
    }

    /// Another shard's publisher: the same as our own, except that the answer goes to the shard.
    fn forwarded(&mut self, from: ShardId, message: &Arc<Message>, token: u64, oldest: OldestRouted, stamp: Stamp) {
        if message.may_be_repeated() && self.repeats.known.get(message.id).is_some_and(|takers| takers.here) {
            return self.confirm_committed(from, token, Forwarded::Taken);
        }
        self.collect(message, Origin::Shard);
        self.scratch.stamp = stamp;
        self.take_forwarded(from, message, token, oldest);
    }

    /// Answers a `Forward` once all that has been appended is committed.
    fn confirm_committed(&mut self, to: ShardId, token: u64, outcome: Forwarded) {
        let answer = Effect::Mesh { to, message: MeshMessage::Confirm { token, outcome } };
        self.after_commit(Waiter::Emit(Box::new(answer)));
    }

    /// Answers a `Forward` at once: nothing was written for it.
    pub(crate) fn confirm(&mut self, to: ShardId, token: u64, outcome: Forwarded) {
        self.effects.push_back(Effect::Mesh { to, message: MeshMessage::Confirm { token, outcome } });
    }

    /// `scratch.matches` holds who gets it. A group's message is not held against the known ids:
    /// it may have come here for others only.
    pub(crate) fn take_forwarded(&mut self, from: ShardId, message: &Arc<Message>, token: u64, oldest: OldestRouted) {
        if let Some(oldest) = oldest.id() {
            self.repeats.heard(from, oldest);
            self.scratch.may_be_repeated = true;
        }
        if let Some((why, outcome)) = self.scratch.refusal {
            self.count(why);
            return self.confirm(from, token, outcome);
        }
        if self.must_reject(message) {
            self.note_missed(message);
            return self.confirm(from, token, Forwarded::Full);
        }
        let before = self.gate.appended();
        let outcome = if self.spread(message) || self.scratch.known { Forwarded::Taken } else { Forwarded::NoneHere };
        if self.gate.appended() > before {
            self.confirm_committed(from, token, outcome);
        } else {
            self.confirm(from, token, outcome);
        }
    }

    /// The answer to a `Forward`, a `ShareForward` or a `Retain`.
    fn forward_answered(&mut self, from: ShardId, token: u64, outcome: Forwarded) {
        if !matches!(self.mesh.tokens.get(&token), Some(Token::Share(_))) {
            return self.publish_confirmed_by(token, None, outcome);
        }
        if let Some(Token::Share(placing)) = self.mesh.tokens.remove(&token) {
            self.share_answered(from, placing, outcome);
        }
    }

    /// One of those that a publish went to has answered.
    pub(crate) fn publish_confirmed_by(&mut self, token: u64, group: Option<Arc<TopicFilter>>, outcome: Forwarded) {
        let Some(Token::Publish(pending)) = self.mesh.tokens.get_mut(&token) else { return };
        pending.left -= 1;
        if outcome == Forwarded::Taken {
            pending.matched = true;
            if pending.holder.is_some() {
                pending.groups.extend(group);
            }
        }
        pending.refusal = outcome.refusal().or(pending.refusal);
        if pending.left == 0
            && let Some(Token::Publish(pending)) = self.mesh.tokens.remove(&token)
        {
            self.publish_confirmed(token, pending);
        }
    }

    fn credit_back(&mut self, from: ShardId) {
        let peer = &mut self.mesh.peers[usize::from(from.0)];
        peer.credits += 1;
        debug_assert!(peer.credits <= i64::from(self.config.mesh_credits), "each credit comes back once");
        self.publish_deferred();
        self.repairs_go_on(from);
        self.place_waiting(from);
        self.keys_go_on();
        self.due_goes_on(from);
        loop {
            let peer = &mut self.mesh.peers[usize::from(from.0)];
            if peer.credits <= 0 {
                return;
            }
            let Some(connection) = peer.waiting.pop_front() else { return };
            self.unpark(connection);
        }
    }
}

impl Broker {
    /// A keyed publish is answered.
    pub(crate) fn key_credit_back(&mut self, from: ShardId) {
        let most = self.config.mesh_credits;
        let peer = &mut self.mesh.peers[usize::from(from.0)];
        peer.key_credits += 1;
        debug_assert!(peer.key_credits <= most, "each credit comes back once");
        while let Some(peer) = self.mesh.peers.get_mut(usize::from(from.0)).filter(|peer| peer.key_credits > 0)
            && let Some(connection) = peer.waiting_for_key.pop_front()
        {
            self.unpark(connection);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shard does not answer, and the client comes back again and again with the same QoS 2 publish.
    #[test]
    fn only_the_connection_that_is_there_waits_for_an_answer() {
        let mut pending = Pending::new(1, true);
        for connection in 1..100 {
            pending.answer_also(ConnectionId(connection), 7);
            pending.answer_also(ConnectionId(connection), 8);
            assert_eq!(pending.answers_more, [(ConnectionId(connection), 7)]);
            assert_eq!(pending.answer, Some((ConnectionId(connection), 8)));
        }
    }
}
