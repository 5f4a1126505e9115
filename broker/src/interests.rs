//! Which filters sessions of this shard want from the others, and which SUBSCRIBEs wait until all of these know.
//!
//! `Interest` … `InterestSet`: what the other shard takes in from now on comes here.

use ahash::AHashMap;
use base::{ShardId, SubscriptionOptions, TopicFilter};
use bytestring::ByteString;
use postroad_base as base;

use crate::api::{Effect, MeshMessage};
use crate::broker::Broker;
use crate::mesh::Token;
use crate::route::REMOTE;
use crate::session::SessionIndex;

/// The filters, by their whole text.
pub(crate) type Interests = AHashMap<ByteString, Interest>;

/// A filter that this shard has asked the others for.
#[derive(Debug, Default)]
pub(crate) struct Interest {
    /// Names the question to the other shards.
    token: u64,
    /// Subscriptions here.
    count: usize,
    /// Those who wait for the answers; none once all have come.
    waiting: Option<Box<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Shards that have not answered yet.
    missing: usize,
    /// SUBSCRIBEs.
    operations: Vec<u64>,
    /// The last one of each session.
    newest: AHashMap<SessionIndex, u64>,
}

/// A SUBSCRIBE by its name, and whose it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asker {
    pub operation: u64,
    pub session: SessionIndex,
}

impl Interest {
    /// Whether it has to wait, which it does from now on.
    fn wait(&mut self, asker: Option<Asker>) -> bool {
        let Some(waiting) = &mut self.waiting else { return false };
        if let Some(Asker { operation, session }) = asker {
            waiting.operations.push(operation);
            waiting.newest.insert(session, operation);
        }
        true
    }
}

impl Broker {
    /// Another shard wants (or no longer wants) messages for a filter.
    pub(crate) fn interest(&mut self, from: ShardId, filter: &TopicFilter, wanted: bool, token: u64) {
        let key = REMOTE | u32::from(from.0);
        match (filter.is_shared(), wanted) {
            (true, _) => self.share_interest(from, filter, wanted),
            (false, true) => drop(self.subscriptions.insert(filter.pattern(), key, SubscriptionOptions::default())),
            (false, false) => drop(self.subscriptions.remove(filter.pattern(), key)),
        }
        let message = MeshMessage::InterestSet { token };
        self.effects.push_back(Effect::Mesh { to: from, message });
    }

    pub(crate) fn interest_set(&mut self, token: u64) {
        let Some(Token::Interest(pattern)) = self.mesh.tokens.get(&token) else { return };
        let Some(interest) = self.mesh.interests.get_mut(pattern) else { return };
        let Some(waiting) = &mut interest.waiting else { return };
        waiting.missing = waiting.missing.saturating_sub(1);
        if waiting.missing > 0 {
            return;
        }
        let waiting = interest.waiting.take();
        self.mesh.tokens.remove(&token);
        for operation in waiting.into_iter().flat_map(|waiting| waiting.operations) {
            self.subscribe_interest_set(operation);
        }
    }

    /// A session here wants `filter`; `asker` is told when all shards know. Whether it has to wait.
    pub(crate) fn want(&mut self, filter: &TopicFilter, asker: Option<Asker>) -> bool {
        if self.mesh.is_alone() {
            return false;
        }
        let pattern = filter.as_byte_string().clone();
        let token = self.mesh.next_token();
        let missing = self.mesh.others().count();
        let interest = self.mesh.interests.entry(pattern.clone()).or_default();
        interest.count += 1;
        let is_first = interest.count == 1;
        if is_first {
            interest.token = token;
            interest.waiting = Some(Box::new(Waiting { missing, ..Waiting::default() }));
        }
        let waits = interest.wait(asker);
        if is_first {
            self.mesh.tokens.insert(token, Token::Interest(pattern));
            self.tell_interest(filter, true, token);
        }
        waits
    }

    /// A subscription is replaced: it waits as well if its filter is not known everywhere yet.
    pub(crate) fn want_still(&mut self, filter: &TopicFilter, asker: Asker) -> bool {
        self.mesh.interests.get_mut(filter.as_str()).is_some_and(|interest| interest.wait(Some(asker)))
    }

    /// A session here no longer wants `filter`.
    pub(crate) fn unwant(&mut self, filter: &TopicFilter) {
        let Some(interest) = self.mesh.interests.get_mut(filter.as_str()) else { return };
        interest.count -= 1;
        if interest.count > 0 {
            return;
        }
        let Some(Interest { token, waiting, .. }) = self.mesh.interests.remove(filter.as_str()) else { return };
        // Late answers to it are not about a later wish for the same filter.
        self.mesh.tokens.remove(&token);
        let token = self.mesh.next_token();
        self.tell_interest(filter, false, token);
        for operation in waiting.into_iter().flat_map(|waiting| waiting.operations) {
            self.subscribe_interest_set(operation); // it waits for nothing any more
        }
    }

    /// Whether some shard has not said yet that it knows of `filter`.
    pub(crate) fn is_unconfirmed(&self, filter: &TopicFilter) -> bool {
        self.mesh.interests.get(filter.as_str()).is_some_and(|interest| interest.waiting.is_some())
    }

    /// The last SUBSCRIBE of the same session that waits for `filter`, if it is a later one: the subscription is that one's.
    pub(crate) fn superseded_by(&self, filter: &TopicFilter, asker: Asker) -> Option<u64> {
        let waiting = self.mesh.interests.get(filter.as_str())?.waiting.as_ref()?;
        waiting.newest.get(&asker.session).copied().filter(|newest| *newest > asker.operation)
    }

    /// Filters that some shard has not confirmed yet: no listener opens before there are none (DESIGN 3).
    pub fn interests_pending(&self) -> usize {
        self.mesh.interests.values().filter(|interest| interest.waiting.is_some()).count()
    }

    fn tell_interest(&mut self, filter: &TopicFilter, wanted: bool, token: u64) {
        for to in self.mesh.others() {
            let message = MeshMessage::Interest { filter: filter.clone(), wanted, token };
            self.effects.push_back(Effect::Mesh { to, message });
        }
    }
}
