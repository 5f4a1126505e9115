//! Share groups: each message goes to one member (MQTT 5, section 4.8.2).
//!
//! Every shard knows every group: its own members one by one, those of other shards as a number. The
//! publisher's shard chooses where a message goes: its own members or another shard, in turn by the number of members
//! that have a connection; if none has, among the sessions that wait without one. The shard chooses the member: the
//! one with the fewest pending deliveries. From there it is the member's delivery like any other, in the member's queue.
//!
//! ```text
//! publisher's shard                        chosen shard
//!   Placing ── ShareForward (a credit) ──►   a member takes it, commits ──► Confirm Taken ──► Placing is over
//!      ▲                                     its last member has left   ──► Confirm NoMember ─┐
//!      └── chooses again ◄────────────────────────────────────────────────────────────────────┘
//! ```
//! When `NoMember` arrives, the word that the member has left arrived before it: the same shard is not chosen again
//! unless a member has come there meanwhile. So each round costs somebody a SUBSCRIBE and an UNSUBSCRIBE; after
//! `MISSED_MAX` rounds the publisher is told to try again.
//!
//! Rejected: one queue per group on a home shard (ADR 6 has the measurements).

use std::sync::Arc;

use ahash::AHashMap;
use base::{Message, ShardId, SubscriptionOptions, TopicFilter};
use bytestring::ByteString;
use postroad_base as base;
use slab::Slab;
use smallvec::SmallVec;

use crate::api::{Counted, Effect, Forwarded, MeshMessage};
use crate::broker::{Broker, Interested};
use crate::gate::Waiter;
use crate::give_back::GivenBack;
use crate::mesh::Token;
use crate::route::{GROUP, Match};
use crate::session::SessionIndex;

/// Place of a group in the slab.
pub(crate) type GroupIndex = u32;

/// How often a message may come to a shard whose last member has just left.
const MISSED_MAX: u8 = 32;

/// All groups.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    places: AHashMap<ByteString, GroupIndex>,
    groups: Slab<Group>,
    /// Recovery: names in deliveries of groups whose members come later.
    replayed: AHashMap<ByteString, Arc<TopicFilter>>,
    /// Sessions that have ended and give back what they held for groups.
    pub ending: usize,
}

#[derive(Debug)]
struct Group {
    filter: Arc<TopicFilter>,
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

/// How busy a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    Offline,
    /// It takes at QoS 0: nothing of it is ever pending.
    Unknown,
    Pending(usize),
}

impl Group {
    /// Who is next, shards in `full` left out: this shard's members together and the other shards, in turn by their
    /// connected members.
    fn choose(
        &mut self,
        own: ShardId,
        full: &[u16],
        load: impl Fn(&(SessionIndex, SubscriptionOptions)) -> Load,
    ) -> Option<Choice> {
        self.turn = self.turn.wrapping_add(1);
        let online = self.members.iter().filter(|member| load(member) != Load::Offline).count();
        let shards = || std::iter::once((own.0, online)).chain(self.remote.iter().map(|(s, n)| (*s, *n as usize)));
        if shards().all(|(_, count)| count == 0) {
            return self.choose_offline(own, full);
        }
        let open = || shards().filter(|(shard, _)| !full.contains(shard));
        let mut turn = self.turn.checked_rem(open().map(|(_, count)| count).sum())?;
        for (shard, count) in open() {
            if turn < count {
                let is_own = shard == own.0;
                return if is_own { self.least_loaded(load).map(Choice::Member) } else { Some(Choice::Shard(shard)) };
            }
            turn -= count;
        }
        None
    }

    fn choose_offline(&self, own: ShardId, full: &[u16]) -> Option<Choice> {
        let here = if full.contains(&own.0) { 0 } else { self.members.len() };
        let mut there = self.remote.iter().map(|(shard, _)| *shard).filter(|shard| !full.contains(shard));
        let turn = self.turn.checked_rem(here + there.clone().count())?;
        if turn < here { Some(Choice::Member(turn)) } else { there.nth(turn - here).map(Choice::Shard) }
    }

    /// As `choose`, among the members of this shard only.
    fn choose_here(&mut self, load: impl Fn(&(SessionIndex, SubscriptionOptions)) -> Load) -> Option<usize> {
        self.turn = self.turn.wrapping_add(1);
        self.least_loaded(load).or_else(|| self.turn.checked_rem(self.members.len()))
    }

    /// Of the connected members here the one with the fewest pending deliveries, in turn among equals: a slow member
    /// keeps no more than the others have to wait for. One at QoS 0 counts as the least busy of the others: else
    /// it would get everything as soon as all others have one pending.
    fn least_loaded(&self, load: impl Fn(&(SessionIndex, SubscriptionOptions)) -> Load) -> Option<usize> {
        let pending = |member| if let Load::Pending(count) = load(member) { Some(count) } else { None };
        let least = self.members.iter().filter_map(pending).min().unwrap_or(0);
        let len = self.members.len();
        let rank = |(place, member): (usize, _)| {
            let in_turn = (place + len - self.turn % len) % len;
            match load(member) {
                Load::Offline => None,
                Load::Unknown => Some((least, in_turn, place)),
                Load::Pending(count) => Some((count, in_turn, place)),
            }
        };
        self.members.iter().enumerate().filter_map(rank).min().map(|(_, _, place)| place)
    }

    fn is_empty(&self) -> bool {
        self.members.is_empty() && self.remote.is_empty()
    }
}

impl Groups {
    /// The one copy of a group's name, for deliveries that come from the log.
    pub fn name(&self, name: Arc<TopicFilter>) -> Arc<TopicFilter> {
        if let Some(&index) = self.places.get(name.as_str()) {
            return Arc::clone(&self.groups[index as usize].filter);
        }
        name
    }

    /// As `name`, while groups have no members yet.
    pub fn replayed_name(&mut self, name: Arc<TopicFilter>) -> Arc<TopicFilter> {
        Arc::clone(self.replayed.entry(name.as_byte_string().clone()).or_insert(name))
    }

    /// All members are there.
    pub fn forget_replayed(&mut self) {
        self.replayed = AHashMap::new();
    }

    pub fn name_of(&self, index: GroupIndex) -> &Arc<TopicFilter> {
        &self.groups[index as usize].filter
    }
}

/// A message on its way to one member of a group.
#[derive(Debug)]
pub(crate) struct Placing {
    pub group: Arc<TopicFilter>,
    pub message: Arc<Message>,
    pub cause: Cause,
    /// Shards that have no room for it.
    pub full: SmallVec<[u16; 4]>,
    /// Times that it came to a shard whose last member had left.
    pub missed: u8,
}

/// On whose behalf a message is placed.
#[derive(Debug)]
pub(crate) enum Cause {
    /// Of a publish: the token of what has to be confirmed, 0 for QoS 0.
    Publish(u64),
    /// Of a member whose session has ended.
    GiveBack(GivenBack),
}

/// What came of placing a message.
#[derive(Debug)]
pub(crate) enum Placed {
    Now(Box<Placing>, Forwarded),
    /// Another shard answers, or the log.
    Later,
    /// The chosen shard has no credit.
    NoCredit(Box<Placing>),
}

impl Placing {
    pub fn new(group: Arc<TopicFilter>, message: Arc<Message>, cause: Cause) -> Box<Self> {
        Box::new(Self { group, message, cause, full: SmallVec::new(), missed: 0 })
    }
}

impl Broker {
    /// Chooses who gets the message, for each group that `collect` found.
    pub(crate) fn collect_groups(&mut self, message: &Message) {
        for place in 0..self.scratch.groups.len() {
            let index = self.scratch.groups[place];
            match self.choose(index, &[]) {
                Some(Choice::Member(place)) => self.match_member(index, place, message),
                Some(Choice::Shard(shard)) => {
                    let group = Arc::clone(self.groups.name_of(index));
                    self.scratch.share_forwards.push((shard, group));
                }
                None => {}
            }
        }
    }

    fn choose(&mut self, index: GroupIndex, full: &[u16]) -> Option<Choice> {
        let own = self.config.shard;
        let Self { groups, sessions, connections, .. } = self;
        groups.groups[index as usize].choose(own, full, |member| load(sessions, connections, member))
    }

    fn match_member(&mut self, index: GroupIndex, place: usize, message: &Message) {
        let group = &self.groups.groups[index as usize];
        let (session, options) = group.members[place];
        self.scratch.matches.push(Match {
            session,
            qos: options.qos.min(message.qos),
            retain: options.retain_as_published && message.retain,
            identifiers: options.identifier.into_iter().collect(),
            full: false,
            group: Some(Arc::clone(&group.filter)),
        });
    }

    /// Another shard has chosen this one for a member of the group.
    pub(crate) fn forwarded_to_group(
        &mut self,
        from: ShardId,
        filter: &TopicFilter,
        message: &Arc<Message>,
        token: u64,
    ) {
        self.scratch.clear();
        let Self { groups, sessions, connections, .. } = self;
        let index = groups.places.get(filter.as_str()).copied();
        let place = index
            .and_then(|index| groups.groups[index as usize].choose_here(|member| load(sessions, connections, member)));
        let (Some(index), Some(place)) = (index, place) else {
            return self.confirm(from, token, Forwarded::NoMember);
        };
        self.match_member(index, place, message);
        self.take_forwarded(from, message, token);
    }

    /// Brings a message to a member of its group, wherever one is.
    pub(crate) fn place(&mut self, mut placing: Box<Placing>) -> Placed {
        loop {
            let index = self.groups.places.get(placing.group.as_str()).copied();
            let choice = index.and_then(|index| Some((index, self.choose(index, &placing.full)?)));
            match choice {
                None => {
                    let outcome = if placing.full.is_empty() { Forwarded::NoneHere } else { Forwarded::Full };
                    return Placed::Now(placing, outcome);
                }
                Some((_, Choice::Shard(shard))) => return self.place_there(ShardId(shard), placing),
                Some((index, Choice::Member(place))) => {
                    self.scratch.clear();
                    self.match_member(index, place, &placing.message);
                    if !self.must_reject(&placing.message) {
                        return self.place_here(placing);
                    }
                    if matches!(placing.cause, Cause::Publish(_)) {
                        return Placed::Now(placing, Forwarded::Full);
                    }
                    placing.full.push(self.config.shard.0);
                }
            }
        }
    }

    fn place_there(&mut self, shard: ShardId, placing: Box<Placing>) -> Placed {
        if !self.mesh.has_credit(shard) {
            return Placed::NoCredit(placing);
        }
        let message = self.share_forward(placing);
        self.mesh.take_credit(shard);
        self.effects.push_back(Effect::Mesh { to: shard, message });
        Placed::Later
    }

    /// The message to the chosen shard; the answer to it finds `placing` again.
    pub(crate) fn share_forward(&mut self, placing: Box<Placing>) -> MeshMessage {
        let token = self.mesh.next_token();
        let (filter, message) = ((*placing.group).clone(), Arc::clone(&placing.message));
        self.mesh.tokens.insert(token, Token::Share(placing));
        MeshMessage::ShareForward { filter, message, token }
    }

    /// The member stands in `scratch.matches`.
    fn place_here(&mut self, placing: Box<Placing>) -> Placed {
        let before = self.gate.appended();
        self.spread(&placing.message);
        if !self.config.durable || self.gate.appended() == before {
            return Placed::Now(placing, Forwarded::Taken);
        }
        let token = self.mesh.next_token();
        self.mesh.tokens.insert(token, Token::Share(placing));
        self.after_commit(Waiter::Placed(token));
        Placed::Later
    }

    /// Chooses again; what lacks credit waits for it.
    pub(crate) fn place_again(&mut self, placing: Box<Placing>) {
        match self.place(placing) {
            Placed::Now(placing, outcome) => self.placed(*placing, outcome),
            Placed::Later => {}
            Placed::NoCredit(placing) => self.mesh.placings.push_back(placing),
        }
    }

    /// Credit of this shard has come back.
    pub(crate) fn place_waiting(&mut self, shard: ShardId) {
        for _ in 0..self.mesh.placings.len() {
            if !self.mesh.has_credit(shard) {
                return;
            }
            if let Some(placing) = self.mesh.placings.pop_front() {
                self.place_again(placing);
            }
        }
    }

    /// The shard that was chosen for a message has answered.
    pub(crate) fn share_answered(&mut self, from: ShardId, mut placing: Box<Placing>, outcome: Forwarded) {
        match (outcome, &placing.cause) {
            (Forwarded::NoMember, _) if placing.missed < MISSED_MAX => {
                placing.missed += 1;
                self.place_again(placing);
            }
            (Forwarded::NoMember, _) => self.placed(*placing, Forwarded::Full),
            (Forwarded::Full, Cause::GiveBack(_)) => {
                placing.full.push(from.0);
                self.place_again(placing);
            }
            _ => self.placed_by(from, *placing, outcome),
        }
    }

    /// A commit has covered a delivery to a member here.
    pub(crate) fn placed_here(&mut self, token: u64) {
        if let Some(Token::Share(placing)) = self.mesh.tokens.remove(&token) {
            self.placed(*placing, Forwarded::Taken);
        }
    }

    fn placed(&mut self, placing: Placing, outcome: Forwarded) {
        self.placed_by(self.config.shard, placing, outcome);
    }

    fn placed_by(&mut self, shard: ShardId, placing: Placing, outcome: Forwarded) {
        match placing.cause {
            Cause::Publish(0) if outcome == Forwarded::NoneHere => self.count(Counted::NoSubscriber),
            Cause::Publish(0) => {}
            Cause::Publish(token) => self.publish_confirmed_by(token, (shard, Some(placing.group)), outcome),
            Cause::GiveBack(given) => self.given_back_later(given, outcome),
        }
    }

    /// The group of a filter, made if need be.
    fn group_mut(&mut self, filter: &TopicFilter) -> &mut Group {
        let Self { groups: Groups { places, groups, replayed, .. }, subscriptions, .. } = self;
        let index = *places.entry(filter.as_byte_string().clone()).or_insert_with(|| {
            let name = replayed.get(filter.as_str()).cloned().unwrap_or_else(|| Arc::new(filter.clone()));
            let group = Group { filter: name, members: Vec::new(), remote: Vec::new(), turn: 0 };
            let index = u32::try_from(groups.insert(group)).expect("fewer than 2^30 groups");
            subscriptions.insert(filter.pattern(), GROUP | index, Interested::default());
            index
        });
        &mut groups[index as usize]
    }

    fn drop_group_if_empty(&mut self, filter: &TopicFilter) {
        let Self { groups: Groups { places, groups, .. }, subscriptions, .. } = self;
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

fn load(
    sessions: &Slab<crate::session::Session>,
    connections: &Slab<crate::session::Connection>,
    (session, options): &(SessionIndex, SubscriptionOptions),
) -> Load {
    let session = &sessions[*session as usize];
    let Some(place) = session.connection else { return Load::Offline };
    if options.qos.is_acknowledged() {
        return Load::Pending(session.queue.messages());
    }
    let connection = &connections[place as usize];
    if connection.congested || connection.opening { Load::Pending(usize::MAX) } else { Load::Unknown }
}
