//! Share groups: each message goes to one member (MQTT 5, section 4.8.2).
//!
//! Every shard knows every group: its own members one by one, those of other shards as a number. The
//! publisher's shard chooses where a message goes: its own members or another shard, in turn by the number of members
//! that have a connection (and, if they pull, have asked for more); if none has, among the sessions that wait without one. The shard chooses the member: the
//! one with the fewest pending deliveries. Who has no room is left out, and a shard without room says so (`Full`): the
//! message goes to another one, and only when all are full the policy for full queues says what becomes of it. Once taken
//! it is the member's delivery like any other, in the member's queue.
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

use crate::api::{Counted, Effect, Forwarded, MeshMessage, OldestRouted};
use crate::broker::{Broker, Interested};
use crate::config::Config;
use crate::gate::Waiter;
use crate::give_back::GivenBack;
use crate::hooks::Stamp;
use crate::mesh::Token;
use crate::queue::Queue;
use crate::route::{GROUP, Match, Scratch, more_of};
use crate::session::{Connection, Session, SessionIndex};

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
    members: Vec<Member>,
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

/// How a member stands to a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Load {
    /// It has no room, and the policy is not to make any.
    Full,
    /// Without a connection, and subscribed at QoS 0: an acknowledged message would be lost with it.
    Lost,
    /// It would wait: the member has no connection, or is to pull and has not asked for more.
    Offline,
    /// It takes at QoS 0: nothing of it is ever pending.
    Unknown,
    Pending(usize),
}

impl Load {
    fn is_online(self) -> bool {
        matches!(self, Self::Unknown | Self::Pending(_))
    }
}

type Member = (SessionIndex, SubscriptionOptions);

impl Group {
    /// Who is next, other shards in `full` left out: this shard's members together and the other shards, in turn by
    /// their connected members; those here that have no room don't count. A waiting member is better than a loss: if no
    /// connected one is left, the others' turn comes.
    fn choose(&mut self, full: &[u16], load: impl Fn(&Member) -> Load) -> Option<Choice> {
        self.turn = self.turn.wrapping_add(1);
        let here = self.members.iter().filter(|member| load(member).is_online()).count();
        let there = || self.remote.iter().filter(|(shard, _)| !full.contains(shard));
        let connected = here + there().map(|(_, count)| *count as usize).sum::<usize>();
        let Some(mut turn) = self.turn.checked_rem(connected) else { return self.choose_offline(full, load) };
        if turn < here {
            return self.least_loaded(load).map(Choice::Member);
        }
        turn -= here;
        for &(shard, count) in there() {
            if turn < count as usize {
                return Some(Choice::Shard(shard));
            }
            turn -= count as usize;
        }
        None
    }

    /// Those that may keep it come first. Only where all members are on this shard and would lose it, one of them does:
    /// what a full member could take later is not lost with another.
    fn choose_offline(&self, full: &[u16], load: impl Fn(&Member) -> Load) -> Option<Choice> {
        let here = self.places(Load::Offline, &load);
        let mut there = self.remote.iter().map(|(shard, _)| *shard).filter(|shard| !full.contains(shard));
        match self.turn.checked_rem(here.clone().count() + there.clone().count()) {
            Some(turn) => here.map(Choice::Member).chain(there.by_ref().map(Choice::Shard)).nth(turn),
            None if self.remote.is_empty() => self.who_loses(&load).map(Choice::Member),
            None => None,
        }
    }

    /// As `choose`, among the members of this shard only.
    fn choose_here(&mut self, load: impl Fn(&Member) -> Load) -> Option<usize> {
        self.turn = self.turn.wrapping_add(1);
        let offline = || {
            let turn = self.turn.checked_rem(self.places(Load::Offline, &load).count())?;
            self.places(Load::Offline, &load).nth(turn)
        };
        self.least_loaded(&load).or_else(offline).or_else(|| self.who_loses(&load))
    }

    /// The members here that stand so.
    fn places<'a>(
        &'a self,
        wanted: Load,
        load: &'a impl Fn(&Member) -> Load,
    ) -> impl Iterator<Item = usize> + Clone + 'a {
        self.members.iter().enumerate().filter(move |(_, member)| load(member) == wanted).map(|(place, _)| place)
    }

    /// Every member here would lose it: whose turn it is.
    fn who_loses(&self, load: impl Fn(&Member) -> Load) -> Option<usize> {
        let all = self.members.iter().all(|member| load(member) == Load::Lost);
        self.turn.checked_rem(self.members.len()).filter(|_| all)
    }

    /// Of the connected members here the one with the fewest pending deliveries, in turn among equals: a slow member
    /// keeps no more than the others have to wait for. One at QoS 0 counts as the least busy of the others: else
    /// it would get everything as soon as all others have one pending.
    fn least_loaded(&self, load: impl Fn(&Member) -> Load) -> Option<usize> {
        let pending = |member| if let Load::Pending(count) = load(member) { Some(count) } else { None };
        let least = self.members.iter().filter_map(pending).min().unwrap_or(0);
        let len = self.members.len();
        let rank = |(place, member): (usize, _)| {
            let in_turn = (place + len - self.turn % len) % len;
            match load(member) {
                Load::Full | Load::Lost | Load::Offline => None,
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
    /// Which plugins have seen it.
    pub stamp: Stamp,
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
    NoCredit(ShardId, Box<Placing>),
}

impl Placing {
    pub fn new(group: Arc<TopicFilter>, message: Arc<Message>, cause: Cause, stamp: Stamp) -> Box<Self> {
        Box::new(Self { group, message, cause, stamp, full: SmallVec::new(), missed: 0 })
    }
}

impl Broker {
    /// Chooses who gets the message, for each group that `collect` found.
    pub(crate) fn collect_groups(&mut self, message: &Message) {
        for place in 0..self.scratch.groups.len() {
            let index = self.scratch.groups[place];
            match self.choose(index, &[], message) {
                Some(Choice::Member(place)) => self.match_member(index, place, message),
                Some(Choice::Shard(shard)) => {
                    let group = Arc::clone(self.groups.name_of(index));
                    self.scratch.share_forwards.push((shard, group));
                }
                None => self.match_full(index, message),
            }
        }
    }

    fn choose(&mut self, index: GroupIndex, full: &[u16], message: &Message) -> Option<Choice> {
        let Self { groups, sessions, connections, scratch, config, .. } = self;
        let offer = Offer::new(message, scratch, config);
        groups.groups[index as usize].choose(full, |member| offer.load(sessions, connections, member))
    }

    fn choose_here(&mut self, index: GroupIndex, message: &Message) -> Option<usize> {
        let Self { groups, sessions, connections, scratch, config, .. } = self;
        let offer = Offer::new(message, scratch, config);
        groups.groups[index as usize].choose_here(|member| offer.load(sessions, connections, member))
    }

    /// No member has room, nor is there another shard: one that is full stands for all, and the policy for full queues
    /// decides.
    fn match_full(&mut self, index: GroupIndex, message: &Message) {
        let Self { groups, sessions, connections, scratch, config, .. } = self;
        let offer = Offer::new(message, scratch, config);
        let load = |member: &Member| offer.load(sessions, connections, member);
        let place = groups.groups[index as usize].places(Load::Full, &load).next();
        if let Some(place) = place {
            self.match_member(index, place, message);
        }
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
        (token, oldest): (u64, OldestRouted),
        stamp: Stamp,
    ) {
        self.scratch.clear();
        self.scratch.stamp = stamp;
        let index = self.groups.places.get(filter.as_str()).copied();
        let Some(index) = index.filter(|&index| !self.groups.groups[index as usize].members.is_empty()) else {
            return self.confirm(from, token, Forwarded::NoMember);
        };
        let Some(place) = self.choose_here(index, message) else {
            return self.confirm(from, token, Forwarded::Full);
        };
        self.match_member(index, place, message);
        self.take_forwarded(from, message, token, oldest);
    }

    /// Brings a message to a member of its group, wherever one is.
    pub(crate) fn place(&mut self, placing: Box<Placing>) -> Placed {
        self.scratch.clear();
        self.scratch.stamp = placing.stamp;
        let Some(&index) = self.groups.places.get(placing.group.as_str()) else {
            let outcome = if placing.full.is_empty() { Forwarded::NoneHere } else { Forwarded::Full };
            return Placed::Now(placing, outcome);
        };
        match self.choose(index, &placing.full, &placing.message) {
            None => Placed::Now(placing, Forwarded::Full),
            Some(Choice::Shard(shard)) => self.place_there(ShardId(shard), placing),
            Some(Choice::Member(place)) => {
                self.match_member(index, place, &placing.message);
                self.place_here(placing)
            }
        }
    }

    fn place_there(&mut self, shard: ShardId, placing: Box<Placing>) -> Placed {
        if !self.mesh.has_credit(shard) {
            return Placed::NoCredit(shard, placing);
        }
        let message = self.share_forward(placing);
        self.mesh.take_credit(shard);
        self.effects.push_back(Effect::Mesh { to: shard, message });
        Placed::Later
    }

    /// The message to the chosen shard; the answer to it finds `placing` again.
    pub(crate) fn share_forward(&mut self, placing: Box<Placing>) -> MeshMessage {
        let token = self.mesh.next_token();
        let (filter, message) = (Arc::clone(&placing.group), Arc::clone(&placing.message));
        let (oldest, stamp) = (self.oldest_routed(&message), placing.stamp);
        self.mesh.tokens.insert(token, Token::Share(placing));
        MeshMessage::ShareForward { filter, message, token, oldest, stamp }
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
            Placed::NoCredit(shard, placing) => self.mesh.wait_with(shard, placing),
        }
    }

    /// Credit of this shard has come back: for those that wait for it, the longest first. Each may be chosen another
    /// shard now, and waits there if that has no credit: so each turn here shortens this line, and the loop ends. (One
    /// line for all shards was looked through with each credit: thousands of ending queues made that quadratic.)
    pub(crate) fn place_waiting(&mut self, shard: ShardId) {
        while self.mesh.has_credit(shard)
            && let Some(placing) = self.mesh.next_waiting_with(shard)
        {
            self.place_again(placing);
        }
    }

    /// The shard that was chosen for a message has answered.
    pub(crate) fn share_answered(&mut self, from: ShardId, mut placing: Box<Placing>, outcome: Forwarded) {
        match outcome {
            Forwarded::NoMember if placing.missed < MISSED_MAX => {
                placing.missed += 1;
                self.place_again(placing);
            }
            Forwarded::NoMember => self.placed(*placing, Forwarded::Full),
            Forwarded::Full => {
                placing.full.push(from.0);
                self.place_again(placing);
            }
            _ => self.placed(*placing, outcome),
        }
    }

    /// A commit has covered a delivery to a member here.
    pub(crate) fn placed_here(&mut self, token: u64) {
        if let Some(Token::Share(placing)) = self.mesh.tokens.remove(&token) {
            self.placed(*placing, Forwarded::Taken);
        }
    }

    fn placed(&mut self, placing: Placing, outcome: Forwarded) {
        match placing.cause {
            Cause::Publish(0) if outcome == Forwarded::NoneHere => self.count(Counted::NoSubscriber),
            Cause::Publish(0) => {}
            Cause::Publish(token) => {
                let outcome = self.outcome_for_publisher(&placing, outcome);
                self.publish_confirmed_by(token, Some(placing.group), outcome);
            }
            Cause::GiveBack(given) => self.given_back_later(given, outcome),
        }
    }

    /// What no member has room for is dropped, as by a full queue: its publisher hears of it only if that is the policy.
    fn outcome_for_publisher(&mut self, placing: &Placing, outcome: Forwarded) -> Forwarded {
        let is_given_up = placing.missed >= MISSED_MAX;
        if outcome != Forwarded::Full || is_given_up || self.is_publisher_told(&placing.message) {
            return outcome;
        }
        self.count(Counted::QueueOverflow);
        Forwarded::Taken
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

    /// A session got or lost its connection, or what it asked for: its groups' other shards hear of it.
    pub(crate) fn share_presence(&mut self, session: SessionIndex) {
        if self.groups.groups.is_empty() {
            return; // as mostly: then its subscriptions are not looked through
        }
        let subscriptions = &self.sessions[session as usize].subscriptions;
        let shared: Vec<_> = subscriptions.iter().filter(|(f, _)| f.is_shared()).map(|(f, _)| f.clone()).collect();
        for filter in shared {
            self.tell_members(&filter);
        }
    }

    fn tell_members(&mut self, filter: &TopicFilter) {
        let Some(&index) = self.groups.places.get(filter.as_str()) else { return };
        let members = &self.groups.groups[index as usize].members;
        let takes_part = |(session, options): &&Member| {
            let connection = self.sessions[*session as usize].connection;
            let would_wait =
                |place: u32| options.qos.is_acknowledged() && self.connections[place as usize].has_no_allowance();
            connection.is_some_and(|place| !would_wait(place))
        };
        let connected = u32::try_from(members.iter().filter(takes_part).count()).unwrap_or(u32::MAX);
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

/// A message that a member is looked for.
struct Offer<'a> {
    message: &'a Message,
    size: usize,
    scratch: &'a Scratch,
    config: &'a Config,
}

impl<'a> Offer<'a> {
    fn new(message: &'a Message, scratch: &'a Scratch, config: &'a Config) -> Self {
        Self { message, size: message.size(), scratch, config }
    }

    fn load(&self, sessions: &Slab<Session>, connections: &Slab<Connection>, (index, options): &Member) -> Load {
        let session = &sessions[*index as usize];
        let is_kept = options.qos.min(self.message.qos).is_acknowledged();
        if is_kept && !self.config.limits.queue_policy.makes_room() && self.is_full(*index, &session.queue) {
            return Load::Full;
        }
        match session.connection {
            None if self.message.qos.is_acknowledged() && !is_kept => Load::Lost,
            None => Load::Offline,
            Some(place) if is_kept && connections[place as usize].has_no_allowance() => Load::Offline,
            Some(_) if options.qos.is_acknowledged() => Load::Pending(session.queue.messages()),
            Some(place) => {
                let connection = &connections[place as usize];
                if connection.congested || connection.opening { Load::Pending(usize::MAX) } else { Load::Unknown }
            }
        }
    }

    /// As `must_reject` will judge it. The session may get the message otherwise, too: at most once by its own
    /// subscriptions and once by each group. Who has room for all of that is not looked for among the matches.
    fn is_full(&self, index: SessionIndex, queue: &Queue) -> bool {
        let is_full = |more| queue.is_full_behind(more, self.size, self.message.collapse_key(), self.config);
        is_full(1 + self.scratch.groups.len()) && is_full(more_of(&self.scratch.matches, index))
    }
}
