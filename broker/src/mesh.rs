//! Between shards: who wants what, credit, confirmations.
//!
//! Invariants
//! - A `Forward`, `ShareForward` or `Retain` is sent only against a credit, which `Confirm` or `Retained` gives back.
//! - A shard answers every `Forward`, also when it keeps nothing of it.
//! - Per pair of shards everything arrives in the order of sending, so `Interest` … `InterestSet` means: what
//!   the other shard takes in from now on comes here.

use std::collections::VecDeque;
use std::sync::Arc;

use ahash::{AHashMap, AHashSet};
use base::{
    ConnectionId, KnownIds, Message, MessageId, QueueId, ReasonCode, Sequence, ShardId, SubscriptionOptions, Tag,
    Takers, TopicFilter,
};
use bytestring::ByteString;
use postroad_base as base;
use smallvec::SmallVec;

use crate::api::{Effect, Forwarded, MeshMessage};
use crate::broker::Broker;
use crate::config::Config;
use crate::gate::Waiter;
use crate::giving::Question;
use crate::route::{Match, Origin, REMOTE};
use crate::session::SessionIndex;
use crate::share::Placing;

/// The state of this shard's conversations with the others.
#[derive(Debug)]
pub(crate) struct Mesh {
    shard: ShardId,
    peers: Vec<Peer>,
    pub tokens: AHashMap<u64, Token>,
    token_last: u64,
    /// Filters that sessions here want, by their whole text.
    pub interests: AHashMap<ByteString, Interest>,
    /// Publishes of clients that are gone, waiting for credit.
    pub deferred: VecDeque<Message>,
    /// QoS 2 messages that may be repeated, and who has taken them: a repeat is not taken again.
    pub known: KnownIds,
    /// Not all shards have told yet what they want.
    pub recovering: bool,
    /// Ids of a former run that publishers may repeat.
    repeatable: AHashSet<MessageId>,
    /// Shards that have not told theirs yet.
    repeatable_missing: usize,
}

#[derive(Debug)]
struct Peer {
    /// May be overdrawn (see `has_credit`).
    credits: i64,
    /// Connections whose publish waits for a credit to this shard.
    waiting: VecDeque<ConnectionId>,
    /// Messages for share groups that wait for one.
    placings: VecDeque<Box<Placing>>,
}

/// A filter that this shard has asked the others for.
#[derive(Debug, Default)]
pub(crate) struct Interest {
    /// Names the question to the other shards.
    token: u64,
    /// Subscriptions here.
    pub count: usize,
    /// Shards that have not answered yet.
    pub missing: usize,
    /// SUBSCRIBEs that wait for them.
    pub operations: Vec<u64>,
}

/// What an answer with this token is about.
#[derive(Debug)]
pub(crate) enum Token {
    /// For `Confirm` and `Retained`; once one has refused, for `Remembered`.
    Publish(Box<Pending>),
    Interest(ByteString),
    /// A portion of retained messages, for this session.
    Retained(SessionIndex, QueueId),
    Share(Box<Placing>),
}

/// A publish that other shards have to confirm. If one of them refuses it and its publisher can't be told, it stands once
/// more, for those who have taken it and have to remember that (`confirmed.rs`).
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
    /// QoS 2: whose tag it came under.
    pub inbound: Option<(SessionIndex, QueueId, Tag)>,
    /// QoS 2: who has it.
    pub taken: SmallVec<[Taken; 2]>,
}

impl Pending {
    pub fn new(left: usize, matched: bool, taken: SmallVec<[Taken; 2]>) -> Self {
        Self {
            left,
            matched,
            refusal: None,
            need: Sequence(0),
            answer: None,
            answers_more: Vec::new(),
            inbound: None,
            taken,
        }
    }

    /// It was repeated: that waits for the same answer. A session has one connection, so nobody hears those of another.
    pub fn answer_also(&mut self, connection: ConnectionId, number: u64) {
        self.answers_more.extend(self.answer.replace((connection, number)));
        self.answers_more.retain(|(of, _)| *of == connection);
    }
}

/// A shard that has taken a message, and for which share group.
pub(crate) type Taken = (ShardId, Option<Arc<TopicFilter>>);

impl Mesh {
    pub fn new(config: &Config) -> Self {
        let credits = i64::from(config.mesh_credits);
        let peer = |_| Peer { credits, waiting: VecDeque::new(), placings: VecDeque::new() };
        Self {
            shard: config.shard,
            peers: (0..config.placement.shards()).map(peer).collect(),
            tokens: AHashMap::new(),
            token_last: 0,
            interests: AHashMap::new(),
            deferred: VecDeque::new(),
            known: KnownIds::default(),
            recovering: false,
            repeatable: AHashSet::new(),
            repeatable_missing: usize::from(config.placement.shards()),
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

    pub fn wait(&mut self, shard: ShardId, connection: ConnectionId) {
        self.peers[usize::from(shard.0)].waiting.push_back(connection);
    }

    /// A message for a share group waits for a credit to the shard that was chosen for it.
    pub fn wait_with(&mut self, shard: ShardId, placing: Box<Placing>) {
        self.peers[usize::from(shard.0)].placings.push_back(placing);
    }

    /// The one that has waited longest.
    pub fn next_waiting_with(&mut self, shard: ShardId) -> Option<Box<Placing>> {
        self.peers[usize::from(shard.0)].placings.pop_front()
    }

    /// Whether its publisher may repeat it, after a recovery or a refusal.
    pub fn is_repeatable(&self, id: MessageId) -> bool {
        !self.repeatable.is_empty() && self.repeatable.contains(&id)
    }
}

impl Broker {
    pub(crate) fn mesh_message(&mut self, from: ShardId, message: MeshMessage) {
        match message {
            MeshMessage::Forward { message, token } => self.forwarded(from, &message, token),
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
            MeshMessage::Remember { id, group, token } => {
                self.remember(id, group.map(Arc::new));
                let answer = Effect::Mesh { to: from, message: MeshMessage::Remembered { token } };
                self.after_commit(Waiter::Emit(Box::new(answer)));
            }
            MeshMessage::Remembered { token } => self.remembered(token),
            MeshMessage::Forget { id } => self.forget(id),
            MeshMessage::ShareMembers { filter, connected } => self.share_members(from, &filter, connected),
            MeshMessage::ShareForward { filter, message, token } => {
                self.forwarded_to_group(from, &filter, &message, token);
            }
        }
    }

    /// Another shard's publisher: the same as our own, except that the answer goes to the shard.
    fn forwarded(&mut self, from: ShardId, message: &Arc<Message>, token: u64) {
        if message.qos == base::Qos::ExactlyOnce && self.mesh.known.get(message.id).is_some_and(|takers| takers.here) {
            return self.confirm_committed(from, token, Forwarded::Taken);
        }
        self.collect(message, Origin::Shard);
        self.take_forwarded(from, message, token);
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
    pub(crate) fn take_forwarded(&mut self, from: ShardId, message: &Arc<Message>, token: u64) {
        if let Some((why, outcome)) = self.scratch.refusal {
            self.count(why);
            return self.confirm(from, token, outcome);
        }
        if self.must_reject(message) {
            self.note_missed(message);
            return self.confirm(from, token, Forwarded::Full);
        }
        // What was refused is not known: it may be taken when it is repeated.
        if self.scratch.matches.iter().all(|m| m.group.is_none()) {
            self.know_if_repeatable(message);
        }
        let before = self.gate.appended();
        let outcome = if self.spread(message) || self.scratch.known { Forwarded::Taken } else { Forwarded::NoneHere };
        if self.gate.appended() > before {
            self.confirm_committed(from, token, outcome);
        } else {
            self.confirm(from, token, outcome);
        }
    }

    /// A shard has told which ids its publishers may repeat; once all have, the others are forgotten.
    /// That shard's members are known by then, too: ending queues may go on.
    pub(crate) fn repeatable(&mut self, ids: Vec<MessageId>, taken: Vec<(MessageId, TopicFilter)>) {
        self.mesh.repeatable.extend(ids);
        for (id, group) in taken {
            self.mesh.known.know(id, Some(Arc::new(group)));
        }
        self.mesh.repeatable_missing = self.mesh.repeatable_missing.saturating_sub(1);
        if self.mesh.repeatable_missing == 0 {
            let Mesh { known, repeatable, .. } = &mut self.mesh;
            known.retain(|id| repeatable.contains(&id));
            self.retiring.known_dirty = true;
            self.mesh.recovering = false;
            self.give_back_all();
        }
    }

    /// A publish was taken here, but not everywhere, and will be repeated. Logged at once: a retirement may have taken
    /// the publish itself out of the young log before the refusal came, and a crash may come before the next one.
    pub(crate) fn remember(&mut self, id: MessageId, group: Option<Arc<TopicFilter>>) {
        self.mesh.repeatable.insert(id);
        if !self.mesh.known.know(id, group.clone()) {
            return;
        }
        self.retiring.known_dirty = true;
        if self.config.durable {
            let takers = Takers { here: group.is_none(), groups: group.into_iter().collect(), ..Takers::default() };
            for record in takers.records(self.config.shard, id) {
                self.append(record);
            }
        }
    }

    /// A message that may be repeated goes to members of share groups.
    pub(crate) fn know_groups_if_repeatable(&mut self, id: MessageId, matches: &[Match]) {
        if self.mesh.repeatable.is_empty() || !self.mesh.repeatable.contains(&id) {
            return;
        }
        for group in matches.iter().filter_map(|m| m.group.as_ref()) {
            self.mesh.known.know(id, Some(Arc::clone(group)));
            self.retiring.known_dirty = true;
        }
    }

    /// A message that may be a repeat of a former run's was taken: not again.
    pub(crate) fn know_if_repeatable(&mut self, message: &Message) {
        if !self.mesh.repeatable.is_empty() && self.mesh.repeatable.contains(&message.id) {
            self.mesh.known.know(message.id, None);
            self.retiring.known_dirty = true;
        }
    }

    pub(crate) fn forget(&mut self, id: MessageId) {
        self.mesh.repeatable.remove(&id);
        self.retiring.known_dirty |= self.mesh.known.forget(id);
    }

    /// A publication of a former run is over: no shard has to remember it.
    pub(crate) fn forget_everywhere(&mut self, id: MessageId) {
        self.forget(id);
        for to in self.mesh.others() {
            let effect = Effect::Mesh { to, message: MeshMessage::Forget { id } };
            self.after_commit(Waiter::Emit(Box::new(effect)));
        }
    }

    /// The answer to a `Forward`, a `ShareForward` or a `Retain`.
    fn forward_answered(&mut self, from: ShardId, token: u64, outcome: Forwarded) {
        if !matches!(self.mesh.tokens.get(&token), Some(Token::Share(_))) {
            return self.publish_confirmed_by(token, (from, None), outcome);
        }
        if let Some(Token::Share(placing)) = self.mesh.tokens.remove(&token) {
            self.share_answered(from, placing, outcome);
        }
    }

    /// One of those that a publish went to has answered.
    pub(crate) fn publish_confirmed_by(&mut self, token: u64, by: Taken, outcome: Forwarded) {
        let Some(Token::Publish(pending)) = self.mesh.tokens.get_mut(&token) else { return };
        pending.left -= 1;
        if outcome == Forwarded::Taken {
            pending.matched = true;
            if pending.inbound.is_some() {
                pending.taken.push(by);
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
        self.place_waiting(from);
        loop {
            let peer = &mut self.mesh.peers[usize::from(from.0)];
            if peer.credits <= 0 {
                return;
            }
            let Some(connection) = peer.waiting.pop_front() else { return };
            self.unpark(connection);
        }
    }

    /// Another shard wants (or no longer wants) messages for a filter.
    fn interest(&mut self, from: ShardId, filter: &TopicFilter, wanted: bool, token: u64) {
        let key = REMOTE | u32::from(from.0);
        match (filter.is_shared(), wanted) {
            (true, _) => self.share_interest(from, filter, wanted),
            (false, true) => drop(self.subscriptions.insert(filter.pattern(), key, SubscriptionOptions::default())),
            (false, false) => drop(self.subscriptions.remove(filter.pattern(), key)),
        }
        let message = MeshMessage::InterestSet { token };
        self.effects.push_back(Effect::Mesh { to: from, message });
    }

    fn interest_set(&mut self, token: u64) {
        let Some(Token::Interest(pattern)) = self.mesh.tokens.get(&token) else { return };
        let Some(interest) = self.mesh.interests.get_mut(pattern) else { return };
        interest.missing = interest.missing.saturating_sub(1);
        if interest.missing > 0 {
            return;
        }
        let operations = std::mem::take(&mut interest.operations);
        self.mesh.tokens.remove(&token);
        for operation in operations {
            self.subscribe_interest_set(operation);
        }
    }

    /// A session here wants `filter`; `operation` is told when all shards know. Whether it has to wait.
    pub(crate) fn want(&mut self, filter: &TopicFilter, operation: Option<u64>) -> bool {
        if self.mesh.peers.len() < 2 {
            return false;
        }
        let pattern = filter.as_byte_string().clone();
        let missing = self.mesh.peers.len() - 1;
        let interest = self.mesh.interests.entry(pattern.clone()).or_default();
        interest.count += 1;
        if interest.count == 1 {
            interest.missing = missing;
            interest.token = self.mesh.token_last + 1;
            self.tell_interest(&pattern, true);
        }
        let Some(interest) = self.mesh.interests.get_mut(&pattern) else { return false };
        if interest.missing > 0 {
            interest.operations.extend(operation);
        }
        interest.missing > 0
    }

    /// A session here no longer wants `filter`.
    pub(crate) fn unwant(&mut self, filter: &TopicFilter) {
        let pattern = filter.as_byte_string().clone();
        let Some(interest) = self.mesh.interests.get_mut(&pattern) else { return };
        interest.count -= 1;
        if interest.count == 0 {
            let token = interest.token;
            let waiting = std::mem::take(&mut interest.operations);
            self.mesh.interests.remove(&pattern);
            // Late answers to it are not about a later wish for the same filter.
            self.mesh.tokens.remove(&token);
            self.tell_interest(&pattern, false);
            for operation in waiting {
                self.subscribe_interest_set(operation); // it waits for nothing any more
            }
        }
    }

    /// Filters that some shard has not confirmed yet: no listener opens before there are none (DESIGN 3).
    pub fn interests_pending(&self) -> usize {
        self.mesh.interests.values().filter(|interest| interest.missing > 0).count()
    }

    fn tell_interest(&mut self, pattern: &ByteString, wanted: bool) {
        let Ok(filter) = TopicFilter::new(pattern.clone()) else { return };
        let token = self.mesh.next_token();
        if wanted {
            self.mesh.tokens.insert(token, Token::Interest(pattern.clone()));
        }
        for to in self.mesh.others() {
            let message = MeshMessage::Interest { filter: filter.clone(), wanted, token };
            self.effects.push_back(Effect::Mesh { to, message });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shard does not answer, and the client comes back again and again with the same QoS 2 publish.
    #[test]
    fn only_the_connection_that_is_there_waits_for_an_answer() {
        let mut pending = Pending::new(1, true, SmallVec::new());
        for connection in 1..100 {
            pending.answer_also(ConnectionId(connection), 7);
            pending.answer_also(ConnectionId(connection), 8);
            assert_eq!(pending.answers_more, [(ConnectionId(connection), 7)]);
            assert_eq!(pending.answer, Some((ConnectionId(connection), 8)));
        }
    }
}
