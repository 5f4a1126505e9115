//! Publishes that may be repeated, and who has taken them: a repeat goes to the others only. Those of QoS 2, those under an
//! idempotency key (`keys`), and those that were put off and are due (`scheduled`).
//!
//! ```text
//! publisher's shard   routing ── all have taken it, committed ──► over
//!                        └── refused, or one of very many ──► MayRepeat to all ── PUBREL ──► Forget
//! a shard that took it   taken (young log) ── retired, not over ──► known ── over, or Forget ──► forgotten
//! ```
//!
//! After a crash a repeat is routed again, under the same id, unless the log says that all shards had answered. Who took it
//! is read from the young log. When its record leaves that log, another shard may still owe its answer: then the id is
//! kept. Each QoS 2 forward says what else its shard still routes, by the oldest id: what is older needs not be kept.
//!
//! What keeps the id of such a publish, its [`Holder`], says when nobody will repeat it: a tag with its release, a key with the
//! answer of all shards, a message that was due likewise.
//!
//! Why so: `docs/adr/0016-who-has-a-qos-2-message-and-until-when.md`.
//!
//! Invariants
//! - When a shard learns of an oldest id, each older one is over in the publisher's log, or the shard was told of it by
//!   `MayRepeat` and keeps it until `Forget`. (Between two shards everything arrives in the order of sending.)
//! - What is kept without having been told of, taken or known, is bounded: by `Config::routing_max` publishes of each shard.

use std::collections::VecDeque;
use std::sync::Arc;

use ahash::AHashSet;
use base::{KnownIds, Message, MessageId, Sequence, ShardId, TopicFilter};
use postroad_base as base;

use crate::api::{Effect, MeshMessage, OldestRouted};
use crate::broker::Broker;
use crate::config::Config;
use crate::gate::Waiter;
use crate::keys::KeyId;
use crate::route::Match;
use crate::session::InboundName;

#[derive(Debug)]
pub(crate) struct Repeats {
    own: ShardId,
    /// Who has taken what, beyond what the young log says.
    pub known: KnownIds,
    /// They are not stored yet as they are now.
    pub known_dirty: bool,
    /// Not all shards have told yet, after a recovery, what may be repeated and who is in which share group.
    pub recovering: bool,
    /// Ids that this shard was told of: kept until `Forget`.
    told: AHashSet<MessageId>,
    /// Shards that have not told theirs yet.
    missing: usize,
    /// Publishes of this shard's clients that other shards have to answer, or whose end is not committed; oldest first.
    routing: VecDeque<Routing>,
    /// By the shard that took the message in.
    sources: Vec<Source>,
}

/// A shard whose clients publish, this one or another.
#[derive(Clone, Debug, Default)]
struct Source {
    /// The oldest id that it routed when it was last heard of; none of this shard itself, and before it was heard of.
    oldest: Option<MessageId>,
    /// What of it was taken here and is not retired, by id. What is over is dropped from the front.
    taken: VecDeque<Taken>,
}

#[derive(Debug)]
struct Routing {
    holder: Holder,
    /// All shards have answered: it is over once this is committed.
    end: Option<Sequence>,
}

#[derive(Clone, Debug)]
struct Taken {
    /// Its records have this or a higher one.
    sequence: Sequence,
    id: MessageId,
    /// By this share group; `None`: by ordinary subscribers.
    group: Option<Arc<TopicFilter>>,
}

/// What keeps the id of a publish that may be repeated.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Holder {
    /// The tag of a publisher, at QoS 2; or one of the queue in which a message waited until it was due.
    Tag(InboundName),
    /// An idempotency key.
    Key(KeyId),
}

impl Holder {
    pub fn id(&self) -> MessageId {
        match self {
            Self::Tag(inbound) => inbound.id,
            Self::Key(key) => key.id,
        }
    }
}

impl Repeats {
    pub fn new(config: &Config) -> Self {
        Self {
            own: config.shard,
            known: KnownIds::default(),
            known_dirty: false,
            recovering: false,
            told: AHashSet::new(),
            missing: usize::from(config.placement.shards()),
            routing: VecDeque::new(),
            sources: vec![Source::default(); usize::from(config.placement.shards())],
        }
    }

    /// Whether its publisher may repeat it, after a recovery or a refusal, or if a crash comes before a slow shard answers.
    pub fn is_told(&self, id: MessageId) -> bool {
        !self.told.is_empty() && self.told.contains(&id)
    }

    /// Another shard has said what it still routes.
    pub fn heard(&mut self, from: ShardId, oldest: MessageId) {
        let source = &mut self.sources[usize::from(from.0)];
        source.oldest = Some(oldest).max(source.oldest);
    }

    /// Whether a publish of this shard is not over, and no shard has been told of it.
    fn is_routing(&self, id: MessageId) -> bool {
        self.place_of(id).is_some()
    }

    fn place_of(&self, id: MessageId) -> Option<usize> {
        self.routing.binary_search_by_key(&id, |routing| routing.holder.id()).ok()
    }

    /// It begins. Ids come in order.
    pub fn begin(&mut self, holder: Holder) {
        debug_assert!(self.routing.back().is_none_or(|newest| newest.holder.id() < holder.id()), "ids come in order");
        self.routing.push_back(Routing { holder, end: None });
    }

    /// No other shard had to be asked about what began last.
    pub fn ends_at_once(&mut self, id: MessageId) {
        self.routing.pop_back_if(|newest| newest.holder.id() == id);
        if let Some(source) = self.source_of(id) {
            while source.taken.pop_back_if(|newest| newest.id == id).is_some() {}
        }
    }

    fn source_of(&mut self, id: MessageId) -> Option<&mut Source> {
        self.sources.get_mut(usize::from(id.shard().0))
    }

    /// All shards have answered; that is committed with `end`.
    pub fn ends(&mut self, id: MessageId, end: Sequence) {
        if let Some(place) = self.place_of(id) {
            self.routing[place].end = Some(end);
        }
    }

    /// Whether an id that was taken here has to be remembered for its own sake, told of or not.
    fn is_under_way(&self, id: MessageId) -> bool {
        if id.shard() == self.own {
            return self.is_routing(id);
        }
        // A shard that has not been heard of, or is none any more: it is an id of a former run.
        let oldest = self.sources.get(usize::from(id.shard().0)).and_then(|source| source.oldest);
        oldest.is_some_and(|oldest| id >= oldest)
    }

    /// What was taken up to this record leaves the young log.
    pub fn outlive(&mut self, upto: Sequence) {
        for source in 0..self.sources.len() {
            let (gone, stay): (VecDeque<_>, _) =
                std::mem::take(&mut self.sources[source].taken).into_iter().partition(|taken| taken.sequence <= upto);
            self.sources[source].taken = stay;
            for taken in gone {
                if self.is_under_way(taken.id) {
                    self.know(taken.id, taken.group);
                }
            }
        }
        self.forget_what_is_over();
    }

    /// Ordinary subscribers here, or a share group, have it.
    pub fn know(&mut self, id: MessageId, group: Option<Arc<TopicFilter>>) {
        self.known_dirty |= self.known.know(id, group);
    }

    /// It was taken here: remembered as long as it is under way.
    fn take(&mut self, taken: Taken) {
        let source = usize::from(taken.id.shard().0);
        while let Some(oldest) = self.sources.get(source).and_then(|source| source.taken.front())
            && !self.is_under_way(oldest.id)
        {
            self.sources[source].taken.pop_front();
        }
        let Some(Source { taken: all, .. }) = self.sources.get_mut(source) else { return };
        if all.back().is_none_or(|newest| newest.id <= taken.id) {
            return all.push_back(taken);
        }
        // A share group's message that was refused elsewhere first.
        let place = all.partition_point(|older| older.id <= taken.id);
        all.insert(place, taken);
    }

    fn forget_what_is_over(&mut self) {
        if self.recovering || self.known.is_empty() {
            return;
        }
        let mut known = std::mem::take(&mut self.known);
        let before = known.len();
        known.retain(|id| self.is_told(id) || self.is_under_way(id));
        self.known_dirty |= known.len() < before;
        self.known = known;
    }
}

impl Broker {
    /// Publishes that are remembered in case they are repeated: what this shard was told of, and what it keeps of its
    /// own accord.
    pub fn remembered(&self) -> (usize, usize) {
        let taken = self.repeats.sources.iter().map(|source| source.taken.len());
        (self.repeats.told.len(), self.repeats.known.len() + self.repeats.routing.len() + taken.sum::<usize>())
    }

    /// What to say with a forward of this message: the oldest that this shard still routes, if it is one of these.
    pub(crate) fn oldest_routed(&self, message: &Message) -> OldestRouted {
        let is_routing = message.may_be_repeated() && self.repeats.is_routing(message.id);
        self.repeats.routing.front().filter(|_| is_routing).map(|oldest| oldest.holder.id()).into()
    }

    /// A message is about to be given to these.
    pub(crate) fn note_taken(&mut self, message: &Message, matches: &[Match]) {
        if !message.may_be_repeated() || matches.is_empty() {
            return;
        }
        let Self { repeats, scratch, gate, .. } = self;
        let (id, sequence) = (message.id, gate.appended().next());
        let is_told = repeats.is_told(id);
        if !is_told && !scratch.may_be_repeated && !repeats.is_routing(id) {
            return;
        }
        let ordinary = matches.iter().any(|m| m.group.is_none()).then_some(None);
        let groups = matches.iter().filter_map(|m| m.group.clone()).map(Some);
        for group in ordinary.into_iter().chain(groups) {
            if is_told {
                repeats.know(id, group);
            } else {
                repeats.take(Taken { sequence, id, group });
            }
        }
    }

    /// All shards have answered: a publish is over once what has been appended so far is committed.
    pub(crate) fn routing_ends(&mut self, id: MessageId) {
        self.repeats.ends(id, self.gate.appended());
        self.drop_routed();
    }

    fn drop_routed(&mut self) {
        let Self { repeats, gate, .. } = self;
        while repeats.routing.front().and_then(|oldest| oldest.end).is_some_and(|end| gate.is_committed(end)) {
            repeats.routing.pop_front();
        }
    }

    /// A shard is slow to answer while very many others do: instead of keeping all that is newer than what it owes, the
    /// others keep that alone. Half of the line at once, so that each goes through it once.
    pub(crate) fn tell_long_routed(&mut self) {
        self.drop_routed();
        let (most, routing) = (self.config.routing_max, &mut self.repeats.routing);
        if routing.len() <= most {
            return;
        }
        let newer = routing.split_off(most.div_ceil(2));
        let older = std::mem::replace(routing, newer);
        let is_over = |routing: &Routing| routing.end.is_some_and(|end| self.gate.is_committed(end));
        let long: Vec<_> = older.iter().filter(|routing| !is_over(routing)).map(|routing| routing.holder).collect();
        // What is released already nobody will repeat.
        let ids = long.iter().filter(|holder| self.will_be_forgotten(**holder)).map(Holder::id).collect();
        self.tell_may_repeat(ids);
        for holder in long {
            if let Holder::Key(key) = holder {
                self.forget_key_if_answered(key);
            }
        }
    }

    /// Notes that shards have to be told of its end. `false`: it was released already, nobody will repeat it.
    fn will_be_forgotten(&mut self, holder: Holder) -> bool {
        let InboundName { session, queue, tag, id } = match holder {
            Holder::Tag(inbound) => inbound,
            Holder::Key(key) => return self.key_will_be_forgotten(key),
        };
        let session = self.sessions.get_mut(session as usize).filter(|session| session.id == queue);
        let state = session.and_then(|session| session.inbound_mut(tag)).filter(|state| state.id == id);
        state.map(|state| state.told = true).is_some()
    }

    /// Tells all shards, this one too.
    pub(crate) fn tell_may_repeat(&mut self, ids: Vec<MessageId>) {
        if ids.is_empty() {
            return;
        }
        self.may_repeat(&ids);
        for to in self.mesh.others() {
            self.effects.push_back(Effect::Mesh { to, message: MeshMessage::MayRepeat { ids: ids.clone() } });
        }
    }

    /// Who has taken these, or will, is kept until `Forget`.
    pub(crate) fn may_repeat(&mut self, ids: &[MessageId]) {
        let Repeats { told, sources, known, known_dirty, .. } = &mut self.repeats;
        told.extend(ids);
        for id in ids {
            let Some(Source { taken, .. }) = sources.get(usize::from(id.shard().0)) else { continue };
            let first = taken.partition_point(|older| older.id < *id);
            for taken in taken.range(first..).take_while(|taken| taken.id == *id) {
                *known_dirty |= known.know(taken.id, taken.group.clone());
            }
        }
    }

    /// Share groups have taken a message, by members on whatever shard.
    pub(crate) fn know_groups(&mut self, id: MessageId, groups: &[Arc<TopicFilter>]) {
        groups.iter().for_each(|group| self.repeats.know(id, Some(Arc::clone(group))));
    }

    /// Tells the other shards, after a recovery, what publishers of this one may repeat.
    pub(crate) fn tell_repeatable(&mut self) {
        self.repeats.recovering = true;
        let inbound = self.sessions.iter().flat_map(|(_, session)| &session.inbound);
        let ids: Vec<_> = inbound.map(|(_, state)| state.id).chain(self.keys.may_be_routed_again()).collect();
        let taken = self.repeats.known.taken_by_groups();
        for to in self.mesh.others() {
            let message = MeshMessage::Repeatable { ids: ids.clone(), taken: taken.clone() };
            self.effects.push_back(Effect::Mesh { to, message });
        }
        self.repeatable(ids, Vec::new());
    }

    /// A shard has told which ids its publishers may repeat; once all have, the others are forgotten.
    /// That shard's members are known by then, too: ending queues may go on.
    pub(crate) fn repeatable(&mut self, ids: Vec<MessageId>, taken: Vec<(MessageId, TopicFilter)>) {
        let repeats = &mut self.repeats;
        repeats.told.extend(ids);
        taken.into_iter().for_each(|(id, group)| repeats.know(id, Some(Arc::new(group))));
        repeats.missing = repeats.missing.saturating_sub(1);
        if repeats.missing == 0 {
            repeats.recovering = false;
            repeats.forget_what_is_over();
            self.give_back_all();
        }
    }

    /// Nobody will repeat it.
    pub(crate) fn forget(&mut self, id: MessageId) {
        self.repeats.told.remove(&id);
        self.repeats.known_dirty |= self.repeats.known.forget(id);
    }

    /// A publish that other shards were told of is over.
    pub(crate) fn forget_everywhere(&mut self, id: MessageId) {
        self.forget(id);
        for to in self.mesh.others() {
            let effect = Effect::Mesh { to, message: MeshMessage::Forget { id } };
            self.after_commit(Waiter::Emit(Box::new(effect)));
        }
    }
}
