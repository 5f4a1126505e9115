//! Messages on their way in: checked, given an id, routed, answered.
//!
//! Crash story of QoS 2: `InboundBegin` with the message's id is committed before the message goes to
//! other shards; a repeat after a crash is routed again with the same id, and shards ignore an id that they
//! have committed (`repeats.rs`). So each shard gets it once, and the publisher gets its PUBREC `[MQTT-4.3.3-10]`.

use std::sync::Arc;

use ahash::AHashMap;
use base::{ConnectionId, Message, MessageId, Qos, QueueId, ReasonCode, Record, Sequence, ShardId, Tag};
use postroad_base as base;

use crate::access::Action;
use crate::api::{Counted, Effect, Inbound, MeshMessage};
use crate::broker::Broker;
use crate::directed::is_directed;
use crate::gate::Waiter;
use crate::hooks::{Seen, Stamp, Waiting};
use crate::letters::is_announcement;
use crate::mesh::{Lack, Pending, Token};
use crate::pull::{NO_MESSAGE, Pull};
use crate::repeats::Holder;
use crate::route::{Origin, reason_for};
use crate::session::{Answer, AnswerKind, ConnectionIndex, InboundName, InboundState, Progress, Session, SessionIndex};
use crate::share::{Cause, Placing};

/// Longer topics are judged each time.
const ALLOWED_LEN_MAX: usize = 256;

/// What came of routing a message.
#[derive(Debug)]
pub(crate) struct Routed {
    pub reason: ReasonCode,
    /// The answer leaves when this is committed.
    pub need: Sequence,
    /// Other shards have to confirm.
    pub token: Option<u64>,
}

impl Broker {
    pub(crate) fn publish(&mut self, connection: ConnectionId, inbound: Inbound) {
        let Some(place) = self.place_of(connection) else { return };
        let waiting = Waiting::new(inbound);
        let parked = &mut self.connections[place as usize].parked;
        if !parked.is_empty() {
            return parked.push_back(waiting);
        }
        if self.owes_too_much(place) {
            self.connections[place as usize].parked.push_back(waiting);
            return self.stop_reading(place);
        }
        if let Err((waiting, lack)) = self.try_publish(place, waiting) {
            self.park_first(place, *waiting);
            self.mesh.wait(lack, connection);
            self.stop_reading(place);
        }
    }

    /// Whether so many answers are due that nothing more is taken in; woken by `answer_ready`.
    fn owes_too_much(&mut self, place: ConnectionIndex) -> bool {
        let connection = &mut self.connections[place as usize];
        connection.waits_for_answers = connection.answers.len() >= self.config.answers_max;
        connection.waits_for_answers
    }

    /// Credit has come back, or answers have left: goes on with what a connection has parked.
    pub(crate) fn unpark(&mut self, connection: ConnectionId) {
        let Some(place) = self.place_of(connection) else { return };
        while !self.owes_too_much(place) {
            let Some(waiting) = self.unpark_first(place) else {
                self.look_after_reading(place);
                self.effects.push_back(Effect::Unpark { connection });
                break;
            };
            if let Err((waiting, lack)) = self.try_publish(place, waiting) {
                self.park_first(place, *waiting);
                self.mesh.wait(lack, connection);
                break;
            }
        }
        self.tell_generation();
    }

    /// Takes a publish in, or gives it back with what it lacks.
    pub(crate) fn try_publish(&mut self, place: ConnectionIndex, waiting: Waiting) -> Result<(), (Box<Waiting>, Lack)> {
        match waiting.seen() {
            Seen::Not => self.try_publish_as(Seen::Not, place, waiting),
            seen => self.try_publish_seen(seen, place, waiting),
        }
    }

    /// The same, of what plugins have decided on.
    #[cold]
    fn try_publish_seen(
        &mut self,
        seen: Seen,
        place: ConnectionIndex,
        waiting: Waiting,
    ) -> Result<(), (Box<Waiting>, Lack)> {
        self.try_publish_as(seen, place, waiting)
    }

    /// Made twice, once for what no plugin has seen: without plugins nothing but two looks, whether there are any, is paid for.
    #[inline(always)]
    fn try_publish_as(
        &mut self,
        seen: Seen,
        place: ConnectionIndex,
        mut waiting: Waiting,
    ) -> Result<(), (Box<Waiting>, Lack)> {
        let inbound = &mut waiting.inbound;
        let is_new = seen == Seen::Not;
        if is_new && let Some(pull) = Pull::of_topic(&inbound.message.topic) {
            self.pull(place, &waiting, pull);
            return Ok(());
        }
        let index = self.session_of(place);
        let exactly_once = inbound.tag.filter(|_| inbound.message.qos == Qos::ExactlyOnce);
        let earlier = exactly_once.and_then(|tag| self.sessions[index as usize].inbound_mut(tag).copied());
        if let (Some(tag), Some(state)) = (exactly_once, earlier)
            && state.progress != Progress::Unknown
        {
            self.tell_repeated(place, tag, state, &inbound.message);
            self.answer_repeat(place, tag, state);
            return Ok(());
        }
        let refusal = match inbound.flaw {
            Some(reason) => Some((reason, Counted::BadWish)),
            None => self.refusal(place, &inbound.message, seen),
        };
        if let Some((reason, why)) = refusal {
            self.refuse(place, &waiting, reason, why);
            return Ok(());
        }
        if !is_new && self.waits_for_parts(place, &waiting) {
            return Err((Box::new(waiting), Lack::Parts));
        }
        let message = Arc::make_mut(&mut waiting.inbound.message);
        message.publisher = self.sessions[index as usize].id;
        message.retain &= !is_directed(&message.topic);
        if is_new && self.hooks.is_some() {
            return self.publish_decided(place, waiting, earlier);
        }
        if self.name_if_for_now(seen, message, earlier) {
            return self.publish_now(seen, place, waiting, earlier);
        }
        self.publish_later(place, waiting, earlier)
    }

    /// Gives a message its id, unless it is to be published later; whether it was given one.
    ///
    /// Whoever has a repeat is left out. Ids go in the order in which messages are taken in: what plugins have seen keeps its id if nothing has come in
    /// between.
    #[inline(always)]
    pub(crate) fn name_if_for_now(&mut self, seen: Seen, message: &mut Message, earlier: Option<InboundState>) -> bool {
        if message.wishes().is_some_and(|wishes| wishes.are_not_for_now(self.now.wall)) {
            return false;
        }
        if seen == Seen::Not || message.id != self.ids.newest() {
            message.id = earlier.map_or_else(|| self.ids.next(self.now.wall), |state| state.id);
        }
        true
    }

    /// It is put off, or goes in the line of its key.
    pub(crate) fn publish_later(
        &mut self,
        place: ConnectionIndex,
        waiting: Waiting,
        earlier: Option<InboundState>,
    ) -> Result<(), (Box<Waiting>, Lack)> {
        match self.key_of(self.session_of(place), &waiting.inbound.message) {
            Some(name) => self.publish_keyed(place, name, waiting, earlier),
            None => {
                self.put_off(place, waiting, earlier);
                Ok(())
            }
        }
    }

    /// Takes in a message that has its id, refuses it, or gives it back with what it lacks.
    #[inline(always)]
    pub(crate) fn publish_now(
        &mut self,
        seen: Seen,
        place: ConnectionIndex,
        waiting: Waiting,
        earlier: Option<InboundState>,
    ) -> Result<(), (Box<Waiting>, Lack)> {
        self.collect(&waiting.inbound.message, Origin::Here);
        if seen != Seen::Not {
            self.scratch.stamp = waiting.stamp().unwrap_or_default();
        }
        if let Some((why, outcome)) = self.scratch.refusal {
            let reason = outcome.refusal().expect("it is refused");
            self.refuse(place, &waiting, reason, why);
            return Ok(());
        }
        if let Some(shard) = self.lacking_credit(&waiting.inbound.message) {
            return Err((Box::new(waiting), Lack::Credit(shard)));
        }
        if self.must_reject(&waiting.inbound.message) {
            self.refuse(place, &waiting, ReasonCode::QuotaExceeded, Counted::QueueOverflow);
            return Ok(());
        }
        match seen {
            Seen::Not => {
                let Inbound { message, tag, .. } = waiting.inbound;
                let answered = tag.map(|tag| (tag, AnswerKind::Published));
                self.count_taken(place, tag, &message);
                self.take_in(place, message, tag, answered, earlier);
            }
            _ => self.take_in_seen(place, waiting, earlier),
        }
        Ok(())
    }

    #[inline(always)]
    fn count_taken(&mut self, place: ConnectionIndex, tag: Option<Tag>, message: &Message) {
        self.stats.received += 1;
        self.tell_taken(place, tag, message.id, message);
    }

    /// Takes in what plugins have decided on. Of a publish that they have split the part with its tag counts.
    fn take_in_seen(&mut self, place: ConnectionIndex, waiting: Waiting, earlier: Option<InboundState>) {
        let (answered, deed, seen) = (waiting.answered(), waiting.deed(), waiting.seen());
        let Inbound { message, tag, .. } = waiting.inbound;
        if seen != Seen::Part {
            self.count_taken(place, tag, &message);
        }
        let changed = deed.filter(|_| self.is_followed(&message)).map(|did| (Arc::clone(&message), did));
        self.take_in(place, message, tag, answered, earlier);
        if let Some((message, did)) = changed {
            self.tell(&message, None, base::Step::Plugins { did });
        }
    }

    /// Goes to all who want it; its publisher is answered once it is safe.
    fn take_in(
        &mut self,
        place: ConnectionIndex,
        message: Arc<Message>,
        tag: Option<Tag>,
        answered: Option<(Tag, AnswerKind)>,
        earlier: Option<InboundState>,
    ) {
        let index = self.session_of(place);
        let session = &self.sessions[index as usize];
        let (queue, logged) = (session.id, session.logged);
        let id = message.id;
        let exactly_once = tag.filter(|_| message.qos == Qos::ExactlyOnce);
        let before = self.gate.appended();
        let inbound = exactly_once.map(|tag| InboundName { session: index, queue, tag, id });
        let outlives_crash = logged && inbound.is_some();
        if let (Some(inbound), None) = (inbound, earlier) {
            if logged {
                self.append(Record::InboundBegin { queue, tag: inbound.tag, id });
                self.mark_dirty(index);
            }
            self.repeats.begin(Holder::Tag(inbound));
        }
        let mut routed = self.route(message, outlives_crash);
        let Some((tag, kind)) = answered else { return };
        if self.gate.appended() > before {
            routed.need = self.gate.appended();
        }
        if exactly_once.is_some() {
            let progress = match routed.token {
                Some(token) => Progress::Routing(token),
                None => Progress::Routed { reason: routed.reason, need: routed.need },
            };
            self.note_inbound(index, tag, InboundState { id, progress, told: earlier.is_some() });
            if routed.token.is_some() {
                self.tell_long_routed();
            } else {
                self.repeats.ends_at_once(id);
            }
        }
        let answer = self.answer(place, tag, kind, routed.reason, routed.need, routed.token.is_some());
        if let Some(Token::Publish(pending)) = routed.token.and_then(|token| self.mesh.tokens.get_mut(&token)) {
            pending.answer = Some((self.connections[place as usize].id, answer));
            pending.holder = inbound.map(Holder::Tag);
            pending.need = routed.need;
        }
    }

    /// Callers hear under which id it was taken in, and so do clients who want receipts of it.
    #[inline]
    pub(crate) fn tell_taken(&mut self, place: ConnectionIndex, tag: Option<Tag>, id: MessageId, message: &Message) {
        let connection = &self.connections[place as usize];
        if connection.is_caller() || (tag.is_some() && wants_id(message)) {
            let connection = connection.id;
            self.effects.push_back(Effect::Taken { connection, tag, id });
        }
    }

    pub(crate) fn note_inbound(&mut self, index: SessionIndex, tag: Tag, state: InboundState) {
        let session = &mut self.sessions[index as usize];
        match session.inbound_mut(tag) {
            Some(known) => *known = state,
            None => session.inbound.push((tag, state)),
        }
    }

    /// Who has lost the answer has lost the id, too. Under a key the tag has another id: the key tells its own, once it has answered.
    fn tell_repeated(&mut self, place: ConnectionIndex, tag: Tag, state: InboundState, message: &Message) {
        let is_keyed = message.wishes().is_some_and(|wishes| wishes.idempotency_key.is_some());
        if !is_keyed && state.id != NO_MESSAGE && wants_id(message) {
            self.tell_taken(place, Some(tag), state.id, message);
        }
    }

    /// A QoS 2 publish whose tag is not released is answered again, not routed again `[MQTT-4.3.3-10]`.
    pub(crate) fn answer_repeat(&mut self, place: ConnectionIndex, tag: Tag, state: InboundState) {
        match state.progress {
            Progress::Routed { reason, need } => {
                self.answer(place, tag, AnswerKind::Published, reason, need, false);
            }
            Progress::Routing(token) => {
                let number = self.answer(place, tag, AnswerKind::Published, ReasonCode::Success, Sequence(0), true);
                let connection = self.connections[place as usize].id;
                if let Some(Token::Publish(pending)) = self.mesh.tokens.get_mut(&token) {
                    pending.answer_also(connection, number);
                }
            }
            Progress::Unknown => {}
        }
    }

    /// Why a publish can't be taken in, if so. Where a plugin sends it is the operator's will: access rules judge what came.
    #[inline(always)]
    fn refusal(&mut self, place: ConnectionIndex, message: &Message, seen: Seen) -> Option<(ReasonCode, Counted)> {
        if self.has_too_many_levels(message.topic.as_str()) {
            return Some((ReasonCode::TopicNameInvalid, Counted::TopicLevels));
        }
        if seen == Seen::Not && !self.may_publish(place, message.topic.as_str()) {
            return Some((ReasonCode::NotAuthorized, Counted::NotAuthorized));
        }
        // Known before the tag is taken: at QoS 2 it could not be told later.
        if seen == Seen::Decided
            && let Some(reason) = self.refused_part(place)
        {
            return Some((reason, Counted::PluginRefused));
        }
        self.lacks_room(message)
    }

    /// Why a part of the publish that is about to be taken in was refused, if that is known already.
    fn refused_part(&self, place: ConnectionIndex) -> Option<ReasonCode> {
        let connection = &self.connections[place as usize];
        // What has left the line belongs to the first publish in it, if there is one.
        let is_first = connection.answers.iter().all(|answer| answer.kind == AnswerKind::Part);
        let said = self.parts_said.get(&place).copied().filter(|reason| is_first && reason.is_error());
        connection.refused_part().or(said)
    }

    /// Why what waited to be taken in can't be, now that its connection is gone: nobody has judged it.
    pub(crate) fn orphan_refusal(&self, index: SessionIndex, inbound: &Inbound, seen: Seen) -> Option<Counted> {
        let Session { principal, client, .. } = &self.sessions[index as usize];
        let topic = inbound.message.topic.as_str();
        if seen == Seen::Not && Pull::of_topic(&inbound.message.topic).is_some() {
            return Some(Counted::BadPull); // nobody is there to get anything
        }
        if inbound.flaw.is_some() {
            return Some(Counted::BadWish);
        }
        if self.has_too_many_levels(topic) {
            return Some(Counted::TopicLevels);
        }
        if seen == Seen::Not && !self.acl.decide(principal, client, Action::Publish, topic) {
            return Some(Counted::NotAuthorized);
        }
        self.lacks_room(&inbound.message).map(|(_, why)| why)
    }

    /// Why there is no room for it, if so; whoever publishes it.
    pub(crate) fn lacks_room(&self, message: &Message) -> Option<(ReasonCode, Counted)> {
        if self.disk_full && (message.qos.is_acknowledged() || message.retain) {
            return Some((ReasonCode::QuotaExceeded, Counted::DiskFull));
        }
        // On another shard this is known only later (`MeshMessage::Retained`); here nobody needs to get it in vain.
        let is_home = || self.config.placement.home(message.topic.as_str().as_bytes()) == self.config.shard;
        if message.retain && message.qos.is_acknowledged() && is_home() && self.lacks_room_to_retain(message) {
            return Some((ReasonCode::QuotaExceeded, Counted::RetainedLimit));
        }
        None
    }

    /// Levels cost nodes of the index and time of each match; a million of them fit into one topic of a client.
    pub(crate) fn has_too_many_levels(&self, topic: &str) -> bool {
        topic.len() >= self.config.limits.topic_levels_max
            && topic.split('/').count() > self.config.limits.topic_levels_max
    }

    fn may_publish(&mut self, place: ConnectionIndex, topic: &str) -> bool {
        let connection = &mut self.connections[place as usize];
        if connection.allowed.as_deref() == Some(topic) {
            return true;
        }
        let session = &self.sessions[connection.session as usize];
        let allowed = self.acl.decide(&session.principal, &session.client, Action::Publish, topic);
        if allowed && topic.len() <= ALLOWED_LEN_MAX {
            connection.allowed = Some(topic.into());
        }
        allowed
    }

    pub(crate) fn refuse(&mut self, place: ConnectionIndex, waiting: &Waiting, reason: ReasonCode, why: Counted) {
        self.count(why);
        let Some((tag, kind)) = waiting.answered() else { return };
        let inbound = &waiting.inbound;
        if kind == AnswerKind::Part {
            self.answer(place, tag, kind, reason, Sequence(0), false);
            return;
        }
        let connection = &self.connections[place as usize];
        let frees = inbound.message.qos == Qos::ExactlyOnce && connection.hears_refusals();
        let need = if frees { self.free_inbound(connection.session, tag) } else { Sequence(0) };
        self.answer(place, tag, AnswerKind::Published, reason, need, false);
    }

    /// What became of a publish is known: its publisher is told once this is committed.
    pub(crate) fn answer_at_once(
        &mut self,
        place: ConnectionIndex,
        inbound: &Inbound,
        earlier: Option<InboundState>,
        reason: ReasonCode,
        need: Sequence,
    ) {
        self.tell_taken(place, inbound.tag, inbound.message.id, &inbound.message);
        let Some(tag) = inbound.tag else { return };
        let before = self.gate.appended();
        let held = self.hold_tag(place, inbound, earlier);
        let need = if self.gate.appended() > before { self.gate.appended() } else { need };
        if let Some(InboundName { session, tag, id, .. }) = held {
            let progress = Progress::Routed { reason, need };
            self.note_inbound(session, tag, InboundState { id, progress, told: earlier.is_some() });
        }
        self.answer(place, tag, AnswerKind::Published, reason, need, false);
    }

    /// The publisher will not repeat what it sent under this tag; the record to be committed before it is told, 0 if none.
    pub(crate) fn free_inbound(&mut self, index: SessionIndex, tag: Tag) -> Sequence {
        let session = &mut self.sessions[index as usize];
        let (queue, logged) = (session.id, session.logged);
        let Some(state) = session.remove_inbound(tag) else { return Sequence(0) };
        let need = if logged {
            self.mark_dirty(index);
            self.append(Record::InboundEnd { queue, tag })
        } else {
            Sequence(0)
        };
        if state.told && !self.is_due_under(state.id) {
            self.forget_everywhere(state.id);
        }
        need
    }

    /// Hands a message to everyone who wants it. `collect` has just been called for it, and credit is there.
    pub(crate) fn route(&mut self, message: Arc<Message>, outlives_crash: bool) -> Routed {
        let before = self.gate.appended();
        let followed = self.is_followed(&message).then(|| Arc::clone(&message));
        if let Some(message) = followed.as_ref().filter(|message| !Self::was_told_before(message)) {
            self.tell_published(message);
        }
        let shards = std::mem::take(&mut self.scratch.shards);
        let share_forwards = std::mem::take(&mut self.scratch.share_forwards);
        let matched = self.spread(&message) || self.scratch.known;
        let mut left = 0;
        let token = if message.qos.is_acknowledged() { self.mesh.next_token() } else { 0 };
        let oldest = self.oldest_routed(&message);
        for shard in &shards {
            let stamp = self.scratch.stamp;
            let forward = MeshMessage::Forward { message: Arc::clone(&message), token, oldest, stamp };
            self.mesh.take_credit(ShardId(*shard));
            self.send_mesh(ShardId(*shard), forward, outlives_crash);
            left += 1;
        }
        for (shard, group) in share_forwards {
            let placing = Placing::new(group, Arc::clone(&message), Cause::Publish(token), self.scratch.stamp);
            let forward = self.share_forward(placing);
            self.mesh.take_credit(ShardId(shard));
            self.send_mesh(ShardId(shard), forward, outlives_crash);
            left += 1;
        }
        if message.retain {
            let home = self.config.placement.home(message.topic.as_str().as_bytes());
            if home == self.config.shard {
                self.retain(&message); // `refusal` has looked for room
            } else {
                self.mesh.take_credit(home);
                self.send_mesh(home, MeshMessage::Retain { message: Arc::clone(&message), token }, outlives_crash);
                left += 1;
            }
        }
        let matched_here = matched;
        if left == 0 && !matched_here && !is_announcement(&message.topic) {
            self.count(Counted::NoSubscriber);
        }
        let need = if self.gate.appended() > before { self.gate.appended() } else { Sequence(0) };
        let awaited = token != 0 && left > 0;
        if awaited {
            let pending = Pending { followed, ..Pending::new(left, matched_here) };
            self.mesh.tokens.insert(token, Token::Publish(Box::new(pending)));
        } else if let Some(message) = followed {
            self.tell_stored(&message, None, matched_here || left > 0);
        }
        self.scratch.shards = shards;
        Routed { reason: reason_for(matched_here), need, token: awaited.then_some(token) }
    }

    fn send_mesh(&mut self, to: ShardId, message: MeshMessage, hold: bool) {
        let effect = Effect::Mesh { to, message };
        if hold {
            self.after_commit(Waiter::Emit(Box::new(effect)));
        } else {
            self.effects.push_back(effect);
        }
    }

    /// The first shard that has no credit for this message.
    pub(crate) fn lacking_credit(&self, message: &Message) -> Option<ShardId> {
        let home = message.retain.then(|| self.config.placement.home(message.topic.as_str().as_bytes()));
        let home = home.filter(|home| *home != self.config.shard);
        let shares = self.scratch.share_forwards.iter().map(|(shard, _)| *shard);
        let shards = self.scratch.shards.iter().copied().chain(shares).map(ShardId);
        shards.chain(home).find(|&shard| !self.mesh.has_credit(shard))
    }

    /// Adds an answer to the connection's line; its number. Sends what is ready.
    pub(crate) fn answer(
        &mut self,
        place: ConnectionIndex,
        tag: Tag,
        kind: AnswerKind,
        reason: ReasonCode,
        need: Sequence,
        waiting: bool,
    ) -> u64 {
        let connection = &mut self.connections[place as usize];
        let (id, number) = (connection.id, connection.answers_first + connection.answers.len() as u64);
        connection.answers.push_back(Answer { tag, kind, reason, need, waiting });
        if self.gate.is_committed(need) {
            self.answer_ready(id);
        } else {
            self.after_commit(Waiter::Answers(id));
        }
        number
    }

    /// Sends the answers at the head of the line that have nothing to wait for.
    pub(crate) fn answer_ready(&mut self, id: ConnectionId) {
        let Some(place) = self.place_of(id) else { return };
        let connection = &mut self.connections[place as usize];
        if connection.opening {
            return;
        }
        while let Some(answer) = connection.answers.front() {
            if answer.waiting || !self.gate.is_committed(answer.need) {
                break;
            }
            let (connection_id, tag, reason) = (connection.id, answer.tag, answer.reason);
            match answer.kind {
                AnswerKind::Published => {
                    let reason = reason_with_parts(&mut self.parts_said, place, reason);
                    self.effects.push_back(Effect::Published { connection: connection_id, tag, reason });
                }
                AnswerKind::Completed => {
                    self.effects.push_back(Effect::Completed { connection: connection_id, tag, reason });
                }
                AnswerKind::Part => note_part(&mut self.parts_said, place, reason),
            }
            connection.answers.pop_front();
            connection.answers_first += 1;
            if connection.has_waited_for_parts() {
                return self.unpark(id);
            }
        }
        if connection.waits_for_answers && connection.answers.len() * 2 <= self.config.answers_max {
            connection.waits_for_answers = false;
            self.unpark(id);
        }
    }

    /// PUBREL.
    pub(crate) fn release(&mut self, connection: ConnectionId, tag: Tag) {
        let Some(place) = self.place_of(connection) else { return };
        let index = self.session_of(place);
        if self.sessions[index as usize].inbound_mut(tag).is_none() {
            self.count(Counted::UnknownTag);
            let reason = ReasonCode::PacketIdentifierNotFound;
            self.answer(place, tag, AnswerKind::Completed, reason, Sequence(0), false);
            return;
        }
        let need = self.free_inbound(index, tag);
        self.answer(place, tag, AnswerKind::Completed, ReasonCode::Success, need, false);
    }

    /// The server publishes (`$SYS`): what finds no credit is dropped.
    pub(crate) fn publish_internal(&mut self, mut message: Arc<Message>) {
        let named = Arc::make_mut(&mut message);
        named.publisher = QueueId::NONE;
        named.id = self.ids.next(self.now.wall);
        self.collect(&message, Origin::Here);
        if self.lacking_credit(&message).is_some() || self.must_reject(&message) {
            return self.count(Counted::DroppedQos0Congested);
        }
        self.route(message, false);
    }

    /// Publishes for a client that is gone (will, parked QoS 0): waits for credit if need be.
    pub(crate) fn publish_orphan(&mut self, mut message: Arc<Message>, stamp: Stamp) {
        let named = Arc::make_mut(&mut message);
        named.id = self.ids.next(self.now.wall);
        named.retain &= !is_directed(&named.topic);
        if self.is_for_later(&message) {
            return self.put_off_orphan(message);
        }
        if !self.mesh.deferred.is_empty() {
            return self.defer(message, stamp);
        }
        if let Err(message) = self.try_orphan(message, stamp) {
            self.defer(message, stamp);
        }
    }

    fn try_orphan(&mut self, message: Arc<Message>, stamp: Stamp) -> Result<(), Arc<Message>> {
        self.collect(&message, Origin::Here);
        self.scratch.stamp = stamp;
        if self.lacking_credit(&message).is_some() {
            return Err(message);
        }
        if let Some((why, _)) = self.scratch.refusal {
            self.count(why);
        } else if self.must_reject(&message) {
            self.count(Counted::QueueOverflow);
        } else {
            self.route(message, false);
        }
        Ok(())
    }

    fn defer(&mut self, message: Arc<Message>, stamp: Stamp) {
        if self.mesh.deferred.len() >= self.config.deferred_max {
            return self.count(Counted::QueueOverflow);
        }
        self.mesh.deferred.push_back((message, stamp));
    }

    /// Credit has come back.
    pub(crate) fn publish_deferred(&mut self) {
        while let Some((message, stamp)) = self.mesh.deferred.pop_front() {
            if let Err(message) = self.try_orphan(message, stamp) {
                return self.mesh.deferred.push_front((message, stamp));
            }
        }
    }
}

/// A part is safe, or was refused: the first refusal counts, then whether anybody took one.
fn note_part(said: &mut AHashMap<ConnectionIndex, ReasonCode>, place: ConnectionIndex, reason: ReasonCode) {
    if reason == ReasonCode::NoMatchingSubscribers {
        return;
    }
    let said = said.entry(place).or_insert(reason);
    if !said.is_error() {
        *said = reason;
    }
}

/// What a publisher hears if its publish had parts. (At QoS 2 a refusal is known before its tag is taken.)
fn reason_with_parts(
    said: &mut AHashMap<ConnectionIndex, ReasonCode>,
    place: ConnectionIndex,
    reason: ReasonCode,
) -> ReasonCode {
    if said.is_empty() {
        return reason;
    }
    let tells = |said: &ReasonCode| match reason {
        ReasonCode::NoMatchingSubscribers => true,
        _ => said.is_error() && !reason.is_error(),
    };
    said.remove(&place).filter(tells).unwrap_or(reason)
}

/// Whether its publisher is told under which id it was taken in.
#[inline]
pub(crate) fn wants_id(message: &Message) -> bool {
    message.extras.as_ref().is_some_and(|extras| extras.wishes.receipt.is_some())
}
