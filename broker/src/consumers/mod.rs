//! Consumer groups: what devices send is kept for applications, which take it through the API (PER-6).
//!
//! A group is a [`Session`] of [`Role::Group`] without a connection, on the home shard of its name: its subscriptions, its
//! queue with its bounds, retirement and recovery are those of any session. What is its own is how the queue is emptied:
//! under leases (`lease`). Callers are judged at each order by the access rules of that moment, for all filters of
//! the group: who could not subscribe to them may not take what they have brought either.
//!
//! ```text
//! Event::Group ─► judged ─┬► Set, Delete: here         ─► Effect::GroupDone, once it is committed
//!                         └► Take, Answer: `lease`     ─┘ (Set: and once every shard knows the filters)
//! ```

mod lease;

use std::collections::BTreeMap;

use ahash::{AHashMap, AHashSet};
use base::{
    Ended, GroupAnswer, GroupOrder, GroupRefusal, Qos, QueueId, QueueOwner, ReasonCode, Record, RetainHandling,
    Sequence, SubscriptionOptions, TopicFilter, WallMillis,
};
use bytestring::ByteString;
use postroad_base as base;

use crate::access::Action;
use crate::api::{Counted, Effect, Principal};
use crate::broker::Broker;
use crate::clients::QueueState;
use crate::gate::Waiter;
use crate::session::{Session, SessionIndex};
use crate::subscribe::Asked;
use lease::Leases;

/// Callers whose right to a group is remembered until the rules or its filters change.
const ALLOWED_MAX: usize = 8;

/// What groups subscribe with. What is published at QoS 0 is kept like all else (see `route`), what is retained already is
/// no news, and at QoS 2 a lease would promise too much: a consumer that dies has or has not done its work.
const OPTIONS: SubscriptionOptions = SubscriptionOptions {
    qos: Qos::AtLeastOnce,
    no_local: false,
    retain_as_published: false,
    retain_handling: RetainHandling::Never,
    identifier: None,
};

/// The groups of a shard, beside their queues.
#[derive(Debug, Default)]
pub(crate) struct Consumers {
    names: BTreeMap<ByteString, SessionIndex>,
    groups: AHashMap<SessionIndex, Group>,
}

#[derive(Debug, Default)]
struct Group {
    leases: Leases,
    /// Who may, by the rules of this number.
    allowed: Vec<Principal>,
    allowed_by: u32,
}

/// A consumer group as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupState {
    /// Its name.
    pub name: ByteString,
    /// What it subscribes to, in ascending order.
    pub filters: Vec<TopicFilter>,
    /// What is in its queue: in flight are those that somebody has.
    pub queue: QueueState,
    /// Consumers that wait for something to come.
    pub waiting_consumers: usize,
    /// When the oldest of the deliveries that are in memory was published.
    pub oldest: Option<WallMillis>,
}

impl Consumers {
    pub fn find(&self, name: &str) -> Option<SessionIndex> {
        self.names.get(name).copied()
    }

    pub fn len(&self) -> usize {
        self.names.len()
    }

    pub fn leased(&self) -> usize {
        self.groups.values().map(|group| group.leases.leased()).sum()
    }

    fn leases_mut(&mut self, index: SessionIndex) -> &mut Leases {
        &mut self.groups.get_mut(&index).expect("every session of this role is here").leases
    }

    /// What the last consumer had against a delivery.
    pub fn error_of(&self, index: SessionIndex, sequence: Sequence) -> Option<ByteString> {
        self.groups.get(&index)?.leases.error_of(sequence)
    }

    /// Recovery: the group has ended.
    pub fn forget(&mut self, index: SessionIndex) {
        if self.groups.remove(&index).is_some() {
            self.names.retain(|_, known| *known != index);
        }
    }
}

impl Broker {
    pub(crate) fn group_order(&mut self, token: u64, name: &ByteString, caller: &Principal, order: GroupOrder) {
        let index = self.consumers.find(name);
        if index.is_none() && !matches!(order, GroupOrder::Set { .. }) {
            return self.group_refused(token, GroupRefusal::NoGroup);
        }
        if index.is_some_and(|index| !self.may_consume(index, caller)) {
            self.count(Counted::NotAuthorized);
            return self.group_refused(token, GroupRefusal::NotAuthorized);
        }
        match (order, index) {
            (GroupOrder::Set { filters }, _) => self.set_group(token, name, caller, filters),
            (GroupOrder::Delete, Some(index)) => self.delete_group(token, index),
            (GroupOrder::Take(take), Some(index)) => self.take_from_group(token, index, take),
            (GroupOrder::Answer { deliveries, verdict }, Some(index)) => {
                self.answer_for_group(token, index, &deliveries, &verdict);
            }
            (_, None) => unreachable!("it has been refused"),
        }
    }

    /// Nobody waits for the answer to this order any more.
    pub(crate) fn group_left(&mut self, token: u64, name: &str) {
        if let Some(index) = self.consumers.find(name) {
            self.withdraw_taker(index, token);
        }
    }

    /// Told at once: nothing has changed.
    fn group_refused(&mut self, token: u64, why: GroupRefusal) {
        self.effects.push_back(Effect::GroupDone { token, answer: Box::new(GroupAnswer::Refused(why)) });
    }

    /// Told once all that it says is safe.
    fn group_done(&mut self, token: u64, answer: GroupAnswer) {
        let effect = Effect::GroupDone { token, answer: Box::new(answer) };
        self.after_commit(Waiter::Emit(Box::new(effect)));
    }

    /// Whether a caller may have what this group's filters bring.
    fn may_consume(&mut self, index: SessionIndex, caller: &Principal) -> bool {
        let rules = self.rules;
        let Some(group) = self.consumers.groups.get_mut(&index) else { return false };
        if group.allowed_by != rules {
            group.allowed.clear();
            group.allowed_by = rules;
        }
        if group.allowed.contains(caller) {
            return true;
        }
        let filters = self.sessions[index as usize].subscriptions.iter().map(|(filter, _)| filter);
        if !self.is_allowed_all(caller, filters) {
            return false;
        }
        if let Some(group) = self.consumers.groups.get_mut(&index) {
            if group.allowed.len() >= ALLOWED_MAX {
                group.allowed.remove(0);
            }
            group.allowed.push(caller.clone());
        }
        true
    }

    fn is_allowed_all<'a>(&self, caller: &Principal, mut filters: impl Iterator<Item = &'a TopicFilter>) -> bool {
        let nobody = base::ClientId(ByteString::new()); // a caller is a user; no placeholder stands for its client
        self.acl.decide(caller, &nobody, Action::Connect, "")
            && filters.all(|filter| self.acl.decide(caller, &nobody, Action::Subscribe, filter.pattern()))
    }

    fn set_group(&mut self, token: u64, name: &ByteString, caller: &Principal, filters: Vec<TopicFilter>) {
        if let Some(why) = self.group_refusal(name, caller, &filters) {
            return self.group_refused(token, why);
        }
        let known = self.consumers.find(name);
        let index = known.unwrap_or_else(|| self.begin_group(name.clone()));
        let wanted: AHashSet<&TopicFilter> = filters.iter().collect();
        let present = self.sessions[index as usize].subscriptions.iter().map(|(filter, _)| filter);
        let unwanted: Vec<TopicFilter> = present.filter(|filter| !wanted.contains(filter)).cloned().collect();
        if let Some(group) = self.consumers.groups.get_mut(&index) {
            group.allowed.clear();
        }
        let present = &self.sessions[index as usize].subscriptions;
        let works = |filter: &TopicFilter| present.get(filter).is_some() && !self.is_unconfirmed(filter);
        let missing = filters.into_iter().filter(|filter| !works(filter)).map(|filter| (filter, OPTIONS)).collect();
        // They go once the new ones hold: else a shard that is slow would leave the group without any.
        let asked = Asked::Group { token, is_new: known.is_none(), unwanted };
        self.subscribe_to(index, asked, missing);
    }

    /// Every shard has answered for its filters, or has not in time. `None`: it was deleted meanwhile.
    pub(crate) fn group_set(
        &mut self,
        index: Option<SessionIndex>,
        token: u64,
        is_new: bool,
        unwanted: &[TopicFilter],
        reasons: &[ReasonCode],
    ) {
        let Some(index) = index else {
            return self.group_done(token, GroupAnswer::Refused(GroupRefusal::NoGroup));
        };
        if reasons.iter().any(|reason| reason.is_error()) {
            return self.group_done(token, GroupAnswer::Refused(GroupRefusal::Unconfirmed));
        }
        for filter in unwanted {
            self.drop_subscription(index, filter);
        }
        self.group_done(token, GroupAnswer::Set { is_new });
    }

    fn group_refusal(&mut self, name: &str, caller: &Principal, filters: &[TopicFilter]) -> Option<GroupRefusal> {
        let is_bad = |filter: &TopicFilter| filter.is_shared() || self.has_too_many_levels(filter.pattern());
        if filters.iter().any(is_bad) {
            return Some(GroupRefusal::BadFilter);
        }
        if filters.len() > self.config.limits.subscriptions_max {
            self.count(Counted::SubscriptionLimit);
            return Some(GroupRefusal::TooManyFilters);
        }
        if !self.is_allowed_all(caller, filters.iter()) {
            self.count(Counted::NotAuthorized);
            return Some(GroupRefusal::NotAuthorized);
        }
        if self.disk_full {
            self.count(Counted::DiskFull);
            return Some(GroupRefusal::DiskFull);
        }
        let is_new = self.consumers.find(name).is_none();
        (is_new && self.consumers.len() >= self.config.limits.groups_max).then_some(GroupRefusal::TooManyGroups)
    }

    fn begin_group(&mut self, name: ByteString) -> SessionIndex {
        let logged = self.config.durable;
        let partition = self.config.placement.partition_of(name.as_bytes());
        let id = self.new_queue_id_in(partition, logged);
        let index = self.add_group_queue(Session::of_group(name.clone(), id, logged));
        self.log_queue_begin(index, QueueOwner::Group(name));
        index
    }

    pub(crate) fn add_group_queue(&mut self, session: Session) -> SessionIndex {
        let name = session.client.0.clone();
        let index = self.add_queue(session);
        self.consumers.names.insert(name, index);
        self.consumers.groups.insert(index, Group::default());
        index
    }

    fn delete_group(&mut self, token: u64, index: SessionIndex) {
        let subscriptions = std::mem::take(&mut self.sessions[index as usize].subscriptions);
        for (filter, _) in subscriptions.iter() {
            self.unindex_subscription(index, filter);
        }
        let lost = self.sessions[index as usize].queue.messages() as u64;
        self.count_by(Counted::GroupDeleted, lost);
        let (to, ends) = (self.sessions[index as usize].addressee(), self.ends_of_queue(index, Ended::SessionEnded));
        self.end_leases(index);
        self.consumers.forget(index);
        let session = self.remove_session(index);
        if session.logged {
            self.append(Record::QueueEnd { queue: session.id });
            self.retiring.ended.push(session.id);
        }
        self.tell_ends(&to, ends);
        self.group_done(token, GroupAnswer::Deleted);
    }

    /// One group of this shard.
    pub fn group_state(&self, name: &str) -> Option<GroupState> {
        let index = self.consumers.find(name)?;
        let (session, group) = (&self.sessions[index as usize], self.consumers.groups.get(&index)?);
        let (leased, pending) = (group.leases.leased(), session.queue.messages());
        let queue = QueueState { waiting: pending - leased, in_flight: leased, bytes: session.queue.bytes_pending() };
        let in_window = session.queue.window.iter().filter_map(|(_, slot)| slot.entry.as_ref());
        let in_memory = in_window.chain(session.queue.next()).map(|entry| entry.message.id.published_at());
        Some(GroupState {
            name: session.client.0.clone(),
            filters: session.subscriptions.iter().map(|(filter, _)| filter.clone()).collect(),
            queue,
            waiting_consumers: group.leases.takers(),
            oldest: in_memory.min(),
        })
    }

    /// Those with most deliveries, the largest first.
    pub fn largest_groups(&self, most: usize) -> Vec<GroupState> {
        let pending = |index: SessionIndex| self.sessions[index as usize].queue.messages();
        let mut all: Vec<_> = self.consumers.names.iter().map(|(name, index)| (pending(*index), name)).collect();
        all.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(b.1)));
        all.into_iter().take(most).filter_map(|(_, name)| self.group_state(name)).collect()
    }

    /// The groups of this shard whose names are behind this one, in order.
    pub fn group_states(&self, after: Option<&str>) -> impl Iterator<Item = GroupState> {
        let from = match after {
            Some(name) => std::ops::Bound::Excluded(ByteString::from(name)),
            None => std::ops::Bound::Unbounded,
        };
        let behind = self.consumers.names.range((from, std::ops::Bound::Unbounded));
        behind.filter_map(|(name, _)| self.group_state(name))
    }

    /// A deadline of this group, unless that has ended since.
    pub(crate) fn group_due(&mut self, index: SessionIndex, queue: QueueId) {
        if self.sessions.get(index as usize).is_some_and(|session| session.id == queue) {
            self.leases_due(index);
        }
    }
}
