//! Share groups: each message goes to one member (MQTT 5, section 4.8.2).
//!
//! Every shard knows every group: its own members one by one, those of other shards as a number. The
//! publisher's shard chooses where a message goes, in turn among all members that have a connection; if none
//! has, among the sessions that wait without one. From there it is the member's delivery like any other,
//! in the member's queue.
//!
//! Rejected: one queue per group on a home shard. It would give away what a slow member has not taken yet, but cost a
//! second queue, a second log record and two more messages between shards for each delivery.

use ahash::AHashMap;
use base::{Message, ShardId, SubscriptionOptions, TopicFilter};
use bytestring::ByteString;
use postroad_base as base;
use slab::Slab;

use crate::api::{Effect, MeshMessage};
use crate::broker::{Broker, Interested};
use crate::queue::Entry;
use crate::route::{GROUP, Match};
use crate::session::SessionIndex;

/// Place of a group in the slab.
pub(crate) type GroupIndex = u32;

/// All groups.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    places: AHashMap<ByteString, GroupIndex>,
    groups: Slab<Group>,
}

#[derive(Debug)]
struct Group {
    filter: TopicFilter,
    members: Vec<(SessionIndex, SubscriptionOptions)>,
    /// Other shards with members, and how many of those have a connection.
    remote: Vec<(u16, u32)>,
    turn: usize,
}

/// Who gets the next message of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Member(usize),
    Shard(u16),
}

impl Group {
    /// The next in turn: `k`-th of the connected, counted over this shard's members and then the others'.
    fn choose(&mut self, connected: impl Fn(SessionIndex) -> bool) -> Option<Choice> {
        self.turn = self.turn.wrapping_add(1);
        let here = self.members.iter().filter(|(session, _)| connected(*session)).count();
        let there: usize = self.remote.iter().map(|(_, count)| *count as usize).sum();
        if here + there == 0 {
            return self.choose_offline();
        }
        let mut turn = self.turn % (here + there);
        if turn < here {
            let mut online = self.members.iter().enumerate().filter(|(_, (session, _))| connected(*session));
            return online.nth(turn).map(|(place, _)| Choice::Member(place));
        }
        turn -= here;
        for (shard, count) in &self.remote {
            if turn < *count as usize {
                return Some(Choice::Shard(*shard));
            }
            turn -= *count as usize;
        }
        None
    }

    fn choose_offline(&self) -> Option<Choice> {
        let turn = self.turn.checked_rem(self.members.len() + self.remote.len())?;
        match self.members.get(turn) {
            Some(_) => Some(Choice::Member(turn)),
            None => Some(Choice::Shard(self.remote[turn - self.members.len()].0)),
        }
    }

    /// As `choose`, among the members of this shard only.
    fn choose_here(&mut self, connected: impl Fn(SessionIndex) -> bool) -> Option<usize> {
        self.turn = self.turn.wrapping_add(1);
        let online = self.members.iter().filter(|(session, _)| connected(*session)).count();
        let Some(turn) = self.turn.checked_rem(online) else {
            return self.turn.checked_rem(self.members.len());
        };
        let mut online = self.members.iter().enumerate().filter(|(_, (session, _))| connected(*session));
        online.nth(turn).map(|(place, _)| place)
    }

    fn is_empty(&self) -> bool {
        self.members.is_empty() && self.remote.is_empty()
    }
}

impl Broker {
    /// Chooses who gets the message, for each group that `collect` found.
    pub(crate) fn collect_groups(&mut self, message: &Message) {
        let Self { groups, scratch, sessions, .. } = self;
        for &index in &scratch.groups {
            let group = &mut groups.groups[index as usize];
            match group.choose(|session| sessions[session as usize].connection.is_some()) {
                Some(Choice::Member(place)) => {
                    let (session, options) = group.members[place];
                    scratch.matches.push(match_of(session, options, message));
                }
                Some(Choice::Shard(shard)) => scratch.share_forwards.push((shard, group.filter.clone())),
                None => {}
            }
        }
    }

    /// Another shard has chosen this one for a member of the group.
    pub(crate) fn collect_share(&mut self, filter: &TopicFilter, message: &Message) {
        self.scratch.clear();
        let Self { groups, scratch, sessions, .. } = self;
        let Some(&index) = groups.places.get(filter.as_str()) else { return };
        let group = &mut groups.groups[index as usize];
        if let Some(place) = group.choose_here(|session| sessions[session as usize].connection.is_some()) {
            let (session, options) = group.members[place];
            scratch.matches.push(match_of(session, options, message));
        }
    }

    /// The group of a filter, made if need be.
    fn group_mut(&mut self, filter: &TopicFilter) -> &mut Group {
        let Self { groups: Groups { places, groups }, subscriptions, .. } = self;
        let index = *places.entry(filter.as_byte_string().clone()).or_insert_with(|| {
            let group = Group { filter: filter.clone(), members: Vec::new(), remote: Vec::new(), turn: 0 };
            let index = u32::try_from(groups.insert(group)).expect("fewer than 2^30 groups");
            subscriptions.insert(filter.pattern(), GROUP | index, Interested::default());
            index
        });
        &mut groups[index as usize]
    }

    fn drop_group_if_empty(&mut self, filter: &TopicFilter) {
        let Self { groups: Groups { places, groups }, subscriptions, .. } = self;
        let Some(&index) = places.get(filter.as_str()) else { return };
        if groups[index as usize].is_empty() {
            places.remove(filter.as_str());
            groups.remove(index as usize);
            subscriptions.remove(filter.pattern(), GROUP | index);
        }
    }

    pub(crate) fn share_join(&mut self, session: SessionIndex, filter: &TopicFilter, options: SubscriptionOptions) {
        let group = self.group_mut(filter);
        match group.members.iter_mut().find(|(member, _)| *member == session) {
            Some((_, known)) => *known = options,
            None => group.members.push((session, options)),
        }
        self.tell_members(filter);
    }

    pub(crate) fn share_leave(&mut self, session: SessionIndex, filter: &TopicFilter) {
        self.group_mut(filter).members.retain(|(member, _)| *member != session);
        self.tell_members(filter);
        self.drop_group_if_empty(filter);
    }

    /// A member's session has ended: what it had not acknowledged goes to another member. QoS 2 never: the
    /// member may have taken it `[MQTT-4.8.2-5]`.
    pub(crate) fn share_give_back(&mut self, filters: &[TopicFilter], entries: Vec<Entry>) -> u64 {
        let mut given = 0;
        for entry in entries {
            let shared = entry.shared && entry.qos == base::Qos::AtLeastOnce;
            let filter = filters.iter().find(|filter| shared && filter.matches(&entry.message.topic));
            let Some(&index) = filter.and_then(|filter| self.groups.places.get(filter.as_str())) else { continue };
            // It is retained already.
            let message = Message { retain: false, ..(*entry.message).clone() };
            self.scratch.clear();
            self.scratch.groups.push(index);
            self.collect_groups(&message);
            if self.lacking_credit(&message).is_none() && !self.must_reject(&message) {
                self.route(message, false);
                given += 1;
            }
        }
        given
    }

    /// A session got or lost its connection: its groups' other shards hear of it.
    pub(crate) fn share_presence(&mut self, session: SessionIndex) {
        let subscriptions = &self.sessions[session as usize].subscriptions;
        let shared: Vec<_> = subscriptions.iter().filter(|(f, _)| f.is_shared()).map(|(f, _)| f.clone()).collect();
        for filter in shared {
            self.tell_members(&filter);
        }
    }

    fn tell_members(&mut self, filter: &TopicFilter) {
        let Some(&index) = self.groups.places.get(filter.as_str()) else { return };
        let members = &self.groups.groups[index as usize].members;
        let online = |(session, _): &&(SessionIndex, _)| self.sessions[*session as usize].connection.is_some();
        let connected = u32::try_from(members.iter().filter(online).count()).unwrap_or(u32::MAX);
        for to in self.mesh.others() {
            let message = MeshMessage::ShareMembers { filter: filter.clone(), connected };
            self.effects.push_back(Effect::Mesh { to, message });
        }
    }

    /// Another shard has members now, or none any more.
    pub(crate) fn share_interest(&mut self, from: ShardId, filter: &TopicFilter, wanted: bool) {
        let group = self.group_mut(filter);
        let known = group.remote.iter().any(|(shard, _)| *shard == from.0);
        match (wanted, known) {
            (true, false) => group.remote.push((from.0, 0)),
            (false, _) => group.remote.retain(|(shard, _)| *shard != from.0),
            (true, true) => {}
        }
        self.drop_group_if_empty(filter);
    }

    pub(crate) fn share_members(&mut self, from: ShardId, filter: &TopicFilter, connected: u32) {
        let Some(&index) = self.groups.places.get(filter.as_str()) else { return };
        let mut remote = self.groups.groups[index as usize].remote.iter_mut();
        if let Some((_, count)) = remote.find(|(shard, _)| *shard == from.0) {
            *count = connected;
        }
    }
}

fn match_of(session: SessionIndex, options: SubscriptionOptions, message: &Message) -> Match {
    Match {
        session,
        qos: options.qos.min(message.qos),
        retain: options.retain_as_published && message.retain,
        identifiers: options.identifier.into_iter().collect(),
        full: false,
        shared: true,
    }
}
