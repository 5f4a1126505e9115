//! Subscriptions that exist are judged again: when a client takes up its session, and when the access rules change.
//!
//! What is no longer allowed ends, as if the client had unsubscribed, and is counted. What was queued while it was
//! allowed is delivered. New rules are applied to sessions without connection too, by who their client proved to be
//! last, some sessions per turn: a session that waits for its turn is still served by the old rules.

use base::TopicFilter;
use postroad_base as base;
use std::sync::Arc;

use crate::access::{Acl, Action};
use crate::api::{Counted, Principal};
use crate::broker::Broker;
use crate::session::{Role, SessionIndex};
use crate::turns::Step;

/// Subscriptions (and places of sessions) that one step judges. A session is judged whole, so it may be more by
/// `subscriptions_max`.
const JUDGED_PER_STEP: usize = 256;

impl Broker {
    /// Replaces the access rules: what follows is judged by the new ones, and so are the subscriptions that exist,
    /// in the steps that follow.
    pub fn set_access(&mut self, acl: Arc<Acl>) {
        self.acl = acl;
        self.rules += 1;
        for (_, connection) in &mut self.connections {
            connection.allowed = None;
        }
        if self.sessions.is_empty() {
            return;
        }
        let is_under_way = self.judged.replace(0).is_some();
        if !is_under_way {
            self.later.push_back(Step::Judge);
        }
    }

    pub(crate) fn judge_some(&mut self) {
        let Some(mut place) = self.judged.take() else { return };
        let mut work = 0;
        while place < self.sessions.capacity() && work < JUDGED_PER_STEP {
            work += 1;
            // Of groups those are judged who consume, not who made them (`consumers`).
            let session = self.sessions.get(place).filter(|session| session.role != Role::Group);
            if let Some(session) = session {
                work += session.subscriptions.len();
                // `auth.file` may have put a client into other groups while it was away.
                let registered = self.registrations.get(session.client.as_str());
                let registered = registered.filter(|_| session.connection.is_none());
                let principal = registered.map_or(&session.principal, |known| &known.principal).clone();
                self.judge(place as SessionIndex, &principal);
            }
            place += 1;
        }
        if place < self.sessions.capacity() {
            self.judged = Some(place);
            self.later.push_back(Step::Judge);
        }
    }

    /// The client of this session has come as this one: nothing is to be judged if neither it nor the rules are new.
    pub(crate) fn judge_resumed(&mut self, index: SessionIndex, principal: &Principal) {
        let session = &mut self.sessions[index as usize];
        let is_judged = session.judged_by == self.rules && session.principal == *principal;
        session.principal = principal.clone();
        if !is_judged {
            self.judge(index, principal);
        }
    }

    /// Ends the subscriptions of a session that its client, being this one, may not make today.
    fn judge(&mut self, index: SessionIndex, principal: &Principal) {
        let session = &mut self.sessions[index as usize];
        if session.principal == *principal {
            session.judged_by = self.rules;
        }
        let session = &self.sessions[index as usize];
        let allowed =
            |filter: &TopicFilter| self.acl.decide(principal, &session.client, Action::Subscribe, filter.pattern());
        let filters = session.subscriptions.iter().map(|(filter, _)| filter);
        let revoked: Vec<_> = filters.filter(|filter| !allowed(filter)).cloned().collect();
        for filter in &revoked {
            self.drop_subscription(index, filter);
        }
        self.count_by(Counted::SubscriptionRevoked, revoked.len() as u64);
    }
}
