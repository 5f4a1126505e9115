//! Publishes through the plugins: asked once, on the publisher's shard; what they made goes on in the publisher's line.
//!
//! ```text
//! Waiting{Not} ─ Hooks::publish ─► Waiting{Decided} ──────────────────────────► take in, answer
//!                     └ Replace ─► Waiting{Part}, Waiting{Part}, …, Waiting{Decided, the tag}
//! ```
//! Answers leave in the order of the line (`session::Answer`), and each part has one that says nothing: so what the publisher hears says that all
//! parts are as safe as `durability` asks, or that one was refused.
//!
//! Crash story: of a QoS 2 publish that is repeated after a crash, the message with the tag has the id of the first time, and those
//! who have it are left out (`repeats`). Its other parts have new ids: they may come twice, as they may if the connection breaks before the publish is
//! answered.

use std::sync::Arc;

use base::{ClientId, Digest, Message, MessageId, PluginDeed, Qos, QueueId, ReasonCode, Sequence, Step, Tag};
use bytestring::ByteString;
use postroad_base as base;

use super::{Answer, Decision, Peer, Stamp};
use crate::api::{Counted, Effect, Inbound, MeshMessage};
use crate::broker::Broker;
use crate::gate::Waiter;
use crate::mesh::Lack;
use crate::session::{AnswerKind, ConnectionIndex, InboundState, SessionIndex};

/// A publish on its way in, with what plugins have said of it. Without plugins no more than the publish is moved.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub inbound: Inbound,
    decided: Option<Box<Decided>>,
}

/// What plugins have said.
#[derive(Clone, Copy, Debug)]
struct Decided {
    /// The generation that did.
    stamp: Stamp,
    /// What it did.
    deed: Option<PluginDeed>,
    /// This goes on besides, in front of what has the publisher's tag.
    part: Option<PartOf>,
    /// Of what came, if it has a key.
    digest: Option<Digest>,
}

/// Under which tag the publisher is answered.
#[derive(Clone, Copy, Debug)]
struct PartOf(Option<Tag>);

/// How far plugins have been asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    /// Not yet.
    Not,
    /// This is what goes on, under the publisher's tag.
    Decided,
    /// This goes on besides.
    Part,
}

impl Waiting {
    #[inline]
    pub fn new(inbound: Inbound) -> Self {
        Self { inbound, decided: None }
    }

    #[inline]
    pub fn seen(&self) -> Seen {
        match self.decided.as_deref() {
            None => Seen::Not,
            Some(Decided { part: None, .. }) => Seen::Decided,
            Some(_) => Seen::Part,
        }
    }

    /// Under which generation it goes on; `None`: that is not decided.
    #[inline]
    pub fn stamp(&self) -> Option<Stamp> {
        self.decided.as_ref().map(|decided| decided.stamp)
    }

    /// What plugins did with it.
    #[inline]
    pub fn deed(&self) -> Option<PluginDeed> {
        self.decided.as_ref()?.deed
    }

    /// Of what was published, before plugins changed it; `None`: of what this is.
    pub fn digest(&self) -> Option<Digest> {
        self.decided.as_ref()?.digest
    }

    /// It is QoS 2, and other parts go in front of it: those are safe before its tag is taken. (Once with the tag it is known to be routed, a repeat
    /// after a crash is answered, and plugins are not asked again: a part that was lost with another shard would be lost for ever.)
    pub fn needs_parts(&self) -> bool {
        self.inbound.message.qos == Qos::ExactlyOnce
            && self.seen() == Seen::Decided
            && self.deed() == Some(PluginDeed::Split)
    }

    /// Its publisher sends it again, with what it is a part of, if it is not taken in.
    pub fn comes_again(&self) -> bool {
        let part = self.decided.as_ref().and_then(|decided| decided.part);
        self.inbound.tag.is_some() || part.is_some_and(|part| part.0.is_some())
    }

    /// Under which tag, and as what, it is answered.
    #[inline]
    pub fn answered(&self) -> Option<(Tag, AnswerKind)> {
        match self.decided.as_ref().and_then(|decided| decided.part) {
            None => self.inbound.tag.map(|tag| (tag, AnswerKind::Published)),
            Some(PartOf(tag)) => {
                tag.filter(|_| self.inbound.message.qos.is_acknowledged()).map(|tag| (tag, AnswerKind::Part))
            }
        }
    }
}

/// Plugins that have been replaced are there until nothing has their stamp.
#[derive(Debug, Default)]
pub(crate) struct Settling {
    /// The generation that this shard has committed, and whether its peers have been told.
    committed: u32,
    told: u32,
    /// What each peer has said last.
    peers: std::collections::BTreeMap<u16, u32>,
    /// Up to which one all have.
    settled: u32,
    /// How many publishes wait here with each stamp.
    waiting: std::collections::BTreeMap<Stamp, usize>,
}

// What is published.
impl Broker {
    /// What plugins make of it goes on.
    pub(crate) fn publish_decided(
        &mut self,
        place: ConnectionIndex,
        mut waiting: Waiting,
        earlier: Option<InboundState>,
    ) -> Result<(), (Box<Waiting>, Lack)> {
        let message = Arc::make_mut(&mut waiting.inbound.message);
        message.id = earlier.map_or_else(|| self.ids.next(self.now.wall), |state| state.id);
        let digest = self.digest_if_keyed(&waiting.inbound.message);
        let index = self.session_of(place);
        let is_application = self.connections[place as usize].is_caller();
        let (stamp, Answer { answer, publish }) = self.decision(index, is_application, &waiting.inbound.message);
        self.publish_for_plugins(publish);
        match answer {
            Decision::Keep => {
                waiting.decided = Some(Box::new(Decided { stamp, deed: None, part: None, digest }));
                let message = Arc::make_mut(&mut waiting.inbound.message);
                if self.name_if_for_now(Seen::Decided, message, earlier) {
                    return self.publish_now(Seen::Decided, place, waiting, earlier);
                }
                self.publish_later(place, waiting, earlier)
            }
            Decision::Replace(messages) => self.go_on_with(place, waiting.inbound, (stamp, digest), messages),
            Decision::Refuse(reason) => {
                self.tell_ended_by_plugins(&waiting.inbound.message, PluginDeed::Refused);
                self.refuse(place, &waiting, reason, Counted::PluginRefused);
                Ok(())
            }
            Decision::Drop => {
                self.count(Counted::PluginDropped);
                self.tell_ended_by_plugins(&waiting.inbound.message, PluginDeed::Dropped);
                self.answer_at_once(place, &waiting.inbound, earlier, ReasonCode::Success, Sequence(0));
                Ok(())
            }
            Decision::Park(note) => {
                self.park_for_plugins(place, &waiting, earlier, note);
                Ok(())
            }
        }
    }

    /// It goes to nobody.
    fn tell_ended_by_plugins(&mut self, message: &Arc<Message>, did: PluginDeed) {
        if self.is_followed(message) {
            self.tell_published(message);
            self.tell(message, None, Step::Plugins { did });
        }
    }

    fn decision(&mut self, index: SessionIndex, is_application: bool, message: &Message) -> (Stamp, Answer<Decision>) {
        let Self { hooks, sessions, now, .. } = self;
        let Some(hooks) = hooks else { return (Stamp::default(), Decision::Keep.into()) };
        let session = &sessions[index as usize];
        hooks.publish(*now, message, Peer { client: &session.client, principal: &session.principal, is_application })
    }

    /// These go on in its place. What lacks something keeps those behind it waiting.
    fn go_on_with(
        &mut self,
        place: ConnectionIndex,
        inbound: Inbound,
        (stamp, digest): (Stamp, Option<Digest>),
        messages: Vec<Message>,
    ) -> Result<(), (Box<Waiting>, Lack)> {
        let Inbound { message: first, tag, dup, .. } = inbound;
        let last = messages.len().saturating_sub(1);
        let mut line = messages.into_iter().enumerate().map(|(number, message)| {
            let is_part = number < last;
            let message = Arc::new(made_of(&first, message, is_part));
            let part = is_part.then_some(PartOf(tag));
            let tag = tag.filter(|_| !is_part);
            let deed = Some(if last > 0 { PluginDeed::Split } else { PluginDeed::Changed });
            let decided = Some(Box::new(Decided { stamp, deed, part, digest }));
            Waiting { inbound: Inbound { message, tag, dup, flaw: None }, decided }
        });
        while let Some(next) = line.next() {
            if let Err(lacking) = self.try_publish(place, next) {
                let rest: Vec<_> = line.collect();
                rest.into_iter().rev().for_each(|waiting| self.park_first(place, waiting));
                return Err(lacking);
            }
        }
        Ok(())
    }

    /// It becomes a dead letter for a human.
    fn park_for_plugins(
        &mut self,
        place: ConnectionIndex,
        waiting: &Waiting,
        earlier: Option<InboundState>,
        note: ByteString,
    ) {
        let session = &self.sessions[self.session_of(place) as usize];
        let is_caller = self.connections[place as usize].is_caller();
        let user = session.principal.user.clone().map(ClientId);
        let client = if is_caller { user.unwrap_or_else(|| ClientId::from("")) } else { session.client.clone() };
        let Some(need) = self.quarantine(&waiting.inbound.message, client, note) else {
            return self.refuse(place, waiting, ReasonCode::QuotaExceeded, Counted::PluginRefused);
        };
        self.count(Counted::PluginParked);
        self.tell_ended_by_plugins(&waiting.inbound.message, PluginDeed::Parked);
        self.answer_at_once(place, &waiting.inbound, earlier, ReasonCode::Success, need);
    }

    /// A will, or QoS 0 of a client that has gone before it was taken in: nobody hears what becomes of it. What is to be published, and under
    /// which generation.
    pub(crate) fn decide_orphan(
        &mut self,
        index: SessionIndex,
        mut message: Arc<Message>,
    ) -> (Stamp, Vec<Arc<Message>>) {
        if self.hooks.is_none() {
            return (Stamp::default(), vec![message]);
        }
        Arc::make_mut(&mut message).id = self.ids.next(self.now.wall);
        let (stamp, Answer { answer, publish }) = self.decision(index, false, &message);
        self.publish_for_plugins(publish);
        match answer {
            Decision::Keep => return (stamp, vec![message]),
            Decision::Replace(messages) => {
                let last = messages.len().saturating_sub(1);
                let made = |(number, next)| Arc::new(made_of(&message, next, number < last));
                return (stamp, messages.into_iter().enumerate().map(made).collect());
            }
            Decision::Refuse(_) => self.count(Counted::PluginRefused),
            Decision::Drop => self.count(Counted::PluginDropped),
            Decision::Park(note) => {
                let client = self.sessions[index as usize].client.clone();
                let parked = self.quarantine(&message, client, note);
                self.count(if parked.is_some() { Counted::PluginParked } else { Counted::PluginRefused });
            }
        }
        (stamp, Vec::new())
    }

    /// What a plugin wants published besides: the server's own, and no hook sees it.
    pub(crate) fn publish_for_plugins(&mut self, messages: Vec<Message>) {
        for mut message in messages {
            message.publisher = QueueId::NONE;
            if let Some(extras) = &mut message.extras {
                extras.wishes.idempotency_key = None;
            }
            if self.has_too_many_levels(message.topic.as_str()) || self.lacks_room(&message).is_some() {
                self.count(Counted::PluginRefused);
                continue;
            }
            self.publish_orphan(Arc::new(message), Stamp::default());
        }
    }
}

// Waiting for credit, and for parts.
impl Broker {
    /// Whether it can't be taken in yet, since a part in front of it is not safe.
    pub(crate) fn waits_for_parts(&self, place: ConnectionIndex, waiting: &Waiting) -> bool {
        waiting.needs_parts() && self.connections[place as usize].has_parts()
    }

    pub(crate) fn park_first(&mut self, place: ConnectionIndex, waiting: Waiting) {
        if let Some(stamp) = waiting.stamp() {
            *self.settling.waiting.entry(stamp).or_default() += 1;
        }
        self.connections[place as usize].parked.push_front(waiting);
    }

    pub(crate) fn unpark_first(&mut self, place: ConnectionIndex) -> Option<Waiting> {
        let waiting = self.connections[place as usize].parked.pop_front()?;
        self.no_longer_parked(&waiting);
        Some(waiting)
    }

    /// To be said of each that is parked no more, before it is stamped again.
    pub(crate) fn no_longer_parked(&mut self, waiting: &Waiting) {
        let Some(stamp) = waiting.stamp() else { return };
        if let Some(count) = self.settling.waiting.get_mut(&stamp) {
            *count -= 1;
            if *count == 0 {
                self.settling.waiting.remove(&stamp);
            }
        }
    }
}

// Generations of plugins.
impl Broker {
    /// Who is asked from now on, on this shard.
    pub fn set_hooks(&mut self, hooks: Option<Box<dyn super::Hooks>>) {
        self.hooks = hooks;
    }

    /// The plugins of this shard stamp with `generation` or a later one from now on. Once that is so on every shard, and nothing with an earlier
    /// stamp is under way between them or waits for credit, `Effect::PluginsSettled` says so. (What waits for credit in the line of a key or
    /// of a share group may come later: whoever is asked about a generation that is gone answers by another.)
    pub fn plugins_committed(&mut self, generation: u32) {
        self.settling.committed = self.settling.committed.max(generation);
        self.tell_generation();
    }

    /// Peers are told behind all that has an earlier stamp.
    pub(crate) fn tell_generation(&mut self) {
        let Settling { committed, told, waiting, .. } = &mut self.settling;
        let waits = waiting.first_key_value().is_some_and(|(stamp, _)| stamp.0 < *committed);
        if committed <= told || waits {
            return;
        }
        *told = *committed;
        let generation = *told;
        for to in self.mesh.others() {
            // Behind what is held until it is committed, too.
            let message = MeshMessage::PluginsCommitted { generation };
            self.after_commit(Waiter::Emit(Box::new(Effect::Mesh { to, message })));
        }
        self.look_whether_settled();
    }

    pub(crate) fn peer_committed(&mut self, from: base::ShardId, generation: u32) {
        self.settling.peers.insert(from.0, generation);
        self.look_whether_settled();
    }

    fn look_whether_settled(&mut self) {
        let peers = self.mesh.others().map(|peer| self.settling.peers.get(&peer.0).copied().unwrap_or_default());
        let generation = peers.fold(self.settling.told, u32::min);
        if generation > self.settling.settled {
            self.settling.settled = generation;
            self.effects.push_back(Effect::PluginsSettled { generation });
        }
    }
}

/// What a plugin made of a message, with what it can't change: the level is not above what came; under the publisher's tag its key stays, and QoS 2
/// stays QoS 2, since the handshake is its publisher's.
fn made_of(first: &Message, message: Message, is_part: bool) -> Message {
    let is_handshake = !is_part && first.qos == Qos::ExactlyOnce;
    let qos = if is_handshake { first.qos } else { message.qos.min(first.qos) };
    let mut made = Message { id: first.id, publisher: first.publisher, qos, ..message };
    let key = first.wishes().and_then(|wishes| wishes.idempotency_key.clone()).filter(|_| !is_part);
    if key.is_some() || made.extras.is_some() {
        made.extras.get_or_insert_default().wishes.idempotency_key = key;
    }
    if is_part {
        made.id = MessageId(0);
    }
    made
}
