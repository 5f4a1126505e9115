//! Idempotency keys: a repeat under the same key of the same publisher is answered as the first publish was, and not
//! published again (DESIGN 3, `docs/adr/0023-keyed-and-scheduled-publishes.md`).
//!
//! ```text
//! publisher's shard         home of the key
//!  Keyed (a credit of ──►  nobody ── Key ──► routing ── all have answered ── Key again ──► answered ─► forgotten
//!        its own)                               │  ▲                                          (window over)
//!                                 one has refused  same body again: to those who lack it
//!                                               ▼  │
//!  KeyAnswered        ◄──                    refused ── another body takes the key
//! ```
//!
//! A key lives on one shard, whoever uses it: that shard takes the publish in, as if it were its own client's. Whoever asks
//! meanwhile waits for the same answer. What a crash finds under way is unknown: a repeat is routed again under the same id, and
//! who has it is left out (`repeats`).
//!
//! Crash story: `Key` is committed before anything of the message leaves to other shards, and stands in the log before the
//! message's own records: so a key without its message is possible, and then a repeat is routed; a message without its key is
//! not. The second `Key`, with the answer, stands behind the message's records.
//!
//! Invariants
//! - A credit for `Keyed` is given back by `KeyAnswered`. These credits are apart from those of data: a keyed publish waits on its
//!   home for credits of data, and with one kind of credit two shards could wait for each other for ever.
//! - A key whose publish is under way is not forgotten, however old it is.

use std::collections::VecDeque;
use std::sync::Arc;

use ahash::{AHashMap, AHashSet};
use base::{Digest, KeyHolder, KeyName, KeyedPublish, Message, MessageId, Qos, ReasonCode, Record, Sequence, ShardId};
use postroad_base as base;
use slab::Slab;

use crate::api::{AskedKey, Counted, Effect, Inbound, MeshMessage, StateKey};
use crate::broker::Broker;
use crate::gate::Waiter;
use crate::hooks::{Stamp, Waiting};
use crate::mesh::{Lack, Pending, Token};
use crate::places::{By, Places};
use crate::publish::wants_id;
use crate::repeats::Holder;
use crate::route::{Origin, Scratch, reason_for};
use crate::session::{AnswerKind, ConnectionIndex, InboundName, InboundState, Progress, Session, SessionIndex};
use crate::timers::{Timer, TimerKey};

/// Keys that one tick forgets.
const FORGOTTEN_PER_TICK: usize = 512;

/// Place of a key in the slab.
pub(crate) type KeyPlace = u32;

/// All keys that live on this shard.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    keys: Slab<Key>,
    places: Places<ByName>,
    /// How many each holder has.
    counts: AHashMap<KeyHolder, usize>,
    /// Those that can be forgotten one day, oldest first. Who stands here under another id is another one by now.
    line: VecDeque<(KeyPlace, MessageId)>,
    /// Asked for, and a shard that is to get the message has no credit.
    waiting: VecDeque<Box<Asked>>,
    timer: Option<TimerKey>,
    /// The line has more that are over than a tick has forgotten.
    has_more: bool,
}

#[derive(Debug)]
struct Key {
    name: KeyName,
    id: MessageId,
    digest: Digest,
    at: base::WallMillis,
    progress: KeyProgress,
    /// All shards were told that it may be repeated: they are told of its end, too.
    told: bool,
    /// It stands in the line of those that can be forgotten.
    in_line: bool,
    /// Who waits for the answer.
    askers: Vec<Asker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyProgress {
    /// Other shards have to confirm it.
    Routing,
    /// It can be answered once this is committed.
    Answered { reason: ReasonCode, need: Sequence },
    /// A crash may have come between its record and its routing.
    Unknown,
    /// Some shard has refused it, others may have it.
    Refused(ReasonCode),
}

/// Who is told what became of a keyed publish.
#[derive(Clone, Copy, Debug)]
enum Asker {
    /// A publish of this shard's client, by its token.
    Here(u64),
    /// Another shard; token 0 at QoS 0.
    Shard(ShardId, u64),
    /// The client is gone, and it was QoS 0.
    Nobody,
}

/// A publish that asks for its key.
#[derive(Debug)]
struct Asked {
    asker: Asker,
    name: KeyName,
    message: Arc<Message>,
    digest: Digest,
    stamp: Stamp,
}

/// What its publisher is told.
#[derive(Clone, Copy, Debug)]
struct KeyAnswer {
    reason: ReasonCode,
    /// The message that the key holds.
    id: MessageId,
    /// Not before this is committed.
    need: Sequence,
}

/// What came of asking.
#[derive(Debug)]
enum Keyed {
    Answered(KeyAnswer),
    UnderWay(KeyPlace),
    Refused(ReasonCode, Counted),
    NoCredit(ShardId),
}

/// What keeps the id of a keyed publish: its key, if that still has this id.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KeyId {
    pub place: KeyPlace,
    pub id: MessageId,
}

#[derive(Debug)]
struct ByName;

impl By for ByName {
    type Entry = Key;
    type Key = KeyName;

    fn key(key: &Key) -> &KeyName {
        &key.name
    }
}

impl Keys {
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether a tick has keys to forget.
    pub fn has_steps(&self) -> bool {
        self.has_more
    }

    fn find(&self, name: &KeyName) -> Option<KeyPlace> {
        self.places.find(&self.keys, name)
    }

    fn get_mut(&mut self, KeyId { place, id }: KeyId) -> Option<&mut Key> {
        self.keys.get_mut(place as usize).filter(|key| key.id == id)
    }

    fn add(&mut self, key: Key) -> KeyPlace {
        *self.counts.entry(key.name.holder.clone()).or_default() += 1;
        let place = KeyPlace::try_from(self.keys.insert(key)).expect("fewer keys than 2^32");
        self.places.insert(&self.keys, place);
        place
    }

    fn remove(&mut self, place: KeyPlace) -> Key {
        self.places.remove(&self.keys, place);
        let key = self.keys.remove(place as usize);
        if let Some(count) = self.counts.get_mut(&key.name.holder) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&key.name.holder);
            }
        }
        key
    }

    /// Ids under which repeats are routed again.
    pub fn may_be_routed_again(&self) -> impl Iterator<Item = MessageId> {
        self.keys.iter().filter(|(_, key)| key.told).map(|(_, key)| key.id)
    }
}

impl Key {
    fn record(&self) -> Record {
        let answer = match self.progress {
            KeyProgress::Routing | KeyProgress::Unknown => None,
            KeyProgress::Answered { reason, .. } => Some(reason),
            KeyProgress::Refused(reason) => Some(reason),
        };
        let Self { name, id, digest, at, .. } = self;
        let publish = KeyedPublish { name: name.clone(), id: *id, digest: *digest, at: *at, answer };
        Record::Key { publish: Box::new(publish) }
    }
}

// What a publisher of this shard asks for.
impl Broker {
    /// Takes in a publish that has a key, or gives it back with what it lacks.
    pub(crate) fn publish_keyed(
        &mut self,
        place: ConnectionIndex,
        name: KeyName,
        mut waiting: Waiting,
        earlier: Option<InboundState>,
    ) -> Result<(), (Box<Waiting>, Lack)> {
        let (digest, stamp) = (self.digest_of(&waiting), waiting.stamp().unwrap_or_default());
        let home = self.config.placement.home_of_key(&name);
        if home != self.config.shard {
            if !self.mesh.take_key_credit(home) {
                return Err((Box::new(waiting), Lack::KeyCredit(home)));
            }
            let token = self.await_key(place, &waiting.inbound, earlier);
            let publish = Box::new(AskedKey { name, message: waiting.inbound.message, digest, stamp });
            self.effects.push_back(Effect::Mesh { to: home, message: MeshMessage::Keyed { publish, token } });
            return Ok(());
        }
        match self.take_keyed(&name, &mut waiting.inbound.message, digest, stamp) {
            Keyed::NoCredit(shard) => return Err((Box::new(waiting), Lack::Credit(shard))),
            Keyed::Refused(reason, why) => self.refuse(place, &waiting, reason, why),
            Keyed::Answered(KeyAnswer { reason, id, need }) => {
                Arc::make_mut(&mut waiting.inbound.message).id = id;
                self.answer_at_once(place, &waiting.inbound, earlier, reason, need);
            }
            Keyed::UnderWay(key) => self.join(place, &waiting.inbound, earlier, key),
        }
        Ok(())
    }

    /// Of what was published, before plugins are asked, if it has a key.
    pub(crate) fn digest_if_keyed(&self, message: &Message) -> Option<Digest> {
        message.wishes()?.idempotency_key.as_ref()?;
        Some(self.config.placement.digest_of(message))
    }

    /// What was published, before plugins changed it.
    fn digest_of(&self, waiting: &Waiting) -> Digest {
        waiting.digest().unwrap_or_else(|| self.config.placement.digest_of(&waiting.inbound.message))
    }

    /// The key under which a client publishes this message, if it has one.
    pub(crate) fn key_of(&self, index: SessionIndex, message: &Message) -> Option<KeyName> {
        let key = message.wishes()?.idempotency_key.clone()?;
        Some(KeyName { holder: self.holder_of(index), key })
    }

    /// Whose keys, and whose messages for later, those of this session are.
    pub(crate) fn holder_of(&self, index: SessionIndex) -> KeyHolder {
        let session = &self.sessions[index as usize];
        KeyHolder::new(session.principal.user.as_ref(), &session.client)
    }

    /// The publish waits for the answer of its key; the token of that, 0 if nobody hears it.
    fn await_key(&mut self, place: ConnectionIndex, inbound: &Inbound, earlier: Option<InboundState>) -> u64 {
        let Some(tag) = inbound.tag else { return 0 };
        let token = self.mesh.next_token();
        let before = self.gate.appended();
        let held = self.hold_tag(place, inbound, earlier);
        let need = if self.gate.appended() > before { self.gate.appended() } else { Sequence(0) };
        if let Some(InboundName { session, tag, id, .. }) = held {
            let progress = Progress::Routing(token);
            self.note_inbound(session, tag, InboundState { id, progress, told: earlier.is_some() });
        }
        let number = self.answer(place, tag, AnswerKind::Published, ReasonCode::Success, need, true);
        let answer = Some((self.connections[place as usize].id, number));
        let (holder, wants_id) = (held.map(Holder::Tag), wants_id(&inbound.message));
        let pending = Pending { answer, holder, need, asks_key: true, wants_id, ..Pending::new(1, false) };
        self.mesh.tokens.insert(token, Token::Publish(Box::new(pending)));
        token
    }

    fn join(&mut self, place: ConnectionIndex, inbound: &Inbound, earlier: Option<InboundState>, key: KeyPlace) {
        let token = self.await_key(place, inbound, earlier);
        let key = &mut self.keys.keys[key as usize];
        if token != 0 {
            return key.askers.push(Asker::Here(token));
        }
        let id = key.id;
        self.tell_taken(place, None, id, &inbound.message);
    }

    /// At QoS 2 the tag is held, too, until its publisher releases it: longer than its key may last. By an id of its own, which is
    /// no message's.
    pub(crate) fn hold_tag(
        &mut self,
        place: ConnectionIndex,
        inbound: &Inbound,
        earlier: Option<InboundState>,
    ) -> Option<InboundName> {
        let tag = inbound.tag.filter(|_| inbound.message.qos == Qos::ExactlyOnce)?;
        let index = self.session_of(place);
        let Session { id: queue, logged, .. } = self.sessions[index as usize];
        let id = earlier.map_or_else(|| self.ids.next(self.now.wall), |state| state.id);
        if logged && earlier.is_none() {
            self.append(Record::InboundBegin { queue, tag, id });
            self.mark_dirty(index);
        }
        Some(InboundName { session: index, queue, tag, id })
    }

    /// A key of this shard or of another one has an answer for a publish of this shard's client.
    fn key_answered(&mut self, token: u64, reason: ReasonCode, id: Option<MessageId>, need: Sequence) {
        let Some(Token::Publish(mut pending)) = self.mesh.tokens.remove(&token) else { return };
        pending.need = pending.need.max(need);
        pending.id = id;
        pending.refusal = reason.is_error().then_some(reason);
        pending.matched = reason != ReasonCode::NoMatchingSubscribers;
        self.publish_confirmed(token, pending);
    }

    /// The home of a key has answered.
    pub(crate) fn key_answered_by(&mut self, from: ShardId, token: u64, reason: ReasonCode, id: Option<MessageId>) {
        self.key_answered(token, reason, id, Sequence(0));
        self.key_credit_back(from);
    }

    /// QoS 0 of a client that is gone before it was taken in.
    pub(crate) fn publish_keyed_orphan(&mut self, name: KeyName, message: Arc<Message>, digest: Digest, stamp: Stamp) {
        let home = self.config.placement.home_of_key(&name);
        if home == self.config.shard {
            let asked = Box::new(Asked { asker: Asker::Nobody, name, message, digest, stamp });
            return self.ask_or_wait(asked);
        }
        if !self.mesh.take_key_credit(home) {
            return self.count(Counted::DroppedQos0Congested);
        }
        let message = MeshMessage::Keyed { publish: Box::new(AskedKey { name, message, digest, stamp }), token: 0 };
        self.effects.push_back(Effect::Mesh { to: home, message });
    }
}

// What the home of a key does.
impl Broker {
    /// Another shard's publisher asks.
    pub(crate) fn asked_for_key(&mut self, from: ShardId, publish: AskedKey, token: u64) {
        let AskedKey { name, message, digest, stamp } = publish;
        self.ask_or_wait(Box::new(Asked { asker: Asker::Shard(from, token), name, message, digest, stamp }));
    }

    fn ask_or_wait(&mut self, asked: Box<Asked>) {
        if let Some(asked) = self.ask_key(asked) {
            self.keys.waiting.push_back(asked);
        }
    }

    /// Credit has come back.
    pub(crate) fn keys_go_on(&mut self) {
        while let Some(asked) = self.keys.waiting.pop_front() {
            if let Some(asked) = self.ask_key(asked) {
                return self.keys.waiting.push_front(asked);
            }
        }
    }

    /// Takes a keyed publish in and tells who asked, at once or later; or gives it back for want of credit.
    fn ask_key(&mut self, mut asked: Box<Asked>) -> Option<Box<Asked>> {
        let asker = asked.asker;
        match self.take_keyed(&asked.name, &mut asked.message, asked.digest, asked.stamp) {
            Keyed::NoCredit(_) => return Some(asked),
            Keyed::Answered(answer) => self.tell_asker(asker, answer),
            Keyed::Refused(reason, why) => {
                self.count(why);
                self.tell_shard(asker, reason, None);
            }
            Keyed::UnderWay(key) => match asker {
                Asker::Nobody => {}
                Asker::Shard(_, 0) => self.tell_shard(asker, ReasonCode::Success, None),
                asker => self.keys.keys[key as usize].askers.push(asker),
            },
        }
        None
    }

    fn tell_asker(&mut self, asker: Asker, answer: KeyAnswer) {
        let KeyAnswer { reason, id, need } = answer;
        match asker {
            Asker::Here(token) => self.key_answered(token, reason, Some(id), need),
            asker if self.gate.is_committed(need) => self.tell_shard(asker, reason, Some(id)),
            Asker::Shard(to, token) => {
                let message = MeshMessage::KeyAnswered { token, reason, id: Some(id) };
                self.after_commit(Waiter::Emit(Box::new(Effect::Mesh { to, message })));
            }
            Asker::Nobody => {}
        }
    }

    fn tell_shard(&mut self, asker: Asker, reason: ReasonCode, id: Option<MessageId>) {
        if let Asker::Shard(to, token) = asker {
            let message = MeshMessage::KeyAnswered { token, reason, id };
            self.effects.push_back(Effect::Mesh { to, message });
        }
    }

    fn take_keyed(&mut self, name: &KeyName, message: &mut Arc<Message>, digest: Digest, stamp: Stamp) -> Keyed {
        let known = self.living_key(name);
        let mut again = None;
        if let Some(place) = known {
            let key = &self.keys.keys[place as usize];
            match key.progress {
                KeyProgress::Refused(_) if key.digest != digest => {}
                _ if key.digest != digest => {
                    return Keyed::Refused(ReasonCode::PacketIdentifierInUse, Counted::KeyConflict);
                }
                KeyProgress::Routing => return Keyed::UnderWay(place),
                KeyProgress::Answered { reason, need } => {
                    return Keyed::Answered(KeyAnswer { reason, id: key.id, need });
                }
                KeyProgress::Unknown | KeyProgress::Refused(_) => again = Some(key.id),
            }
        } else if self.has_too_many_keys(&name.holder) {
            return Keyed::Refused(ReasonCode::QuotaExceeded, Counted::KeyLimit);
        }
        Arc::make_mut(message).id = again.unwrap_or_else(|| self.ids.next(self.now.wall));
        if let Some(refused) = self.refuses_keyed(message) {
            return refused;
        }
        self.scratch.stamp = stamp;
        if let Some(place) = known.filter(|_| again.is_some()) {
            return self.route_keyed(place, message, false);
        }
        if let Some(place) = known {
            self.forget_key(place); // refused, and another body takes it
        }
        self.stats.received += 1;
        let place = self.add_key(name, message.id, digest);
        self.route_keyed(place, message, true)
    }

    /// Why it is not taken in, or not yet. `collect` has been called for it, if it is to be routed now.
    fn refuses_keyed(&mut self, message: &Message) -> Option<Keyed> {
        let is_unwritable = self.disk_full.then_some((ReasonCode::QuotaExceeded, Counted::DiskFull));
        if let Some((reason, why)) = is_unwritable.or_else(|| self.lacks_room(message)) {
            return Some(Keyed::Refused(reason, why));
        }
        if self.is_for_later(message) {
            return self.schedule_refusal(message).map(|(reason, why)| Keyed::Refused(reason, why));
        }
        self.collect(message, Origin::Here);
        if let Some((why, outcome)) = self.scratch.refusal {
            return Some(Keyed::Refused(outcome.refusal().expect("it is refused"), why));
        }
        if let Some(shard) = self.lacking_credit(message) {
            return Some(Keyed::NoCredit(shard));
        }
        self.must_reject(message).then_some(Keyed::Refused(ReasonCode::QuotaExceeded, Counted::QueueOverflow))
    }

    fn add_key(&mut self, name: &KeyName, id: MessageId, digest: Digest) -> KeyPlace {
        let (at, progress) = (self.now.wall, KeyProgress::Routing);
        let name = name.clone();
        let place =
            self.keys.add(Key { name, id, digest, at, progress, told: false, in_line: true, askers: Vec::new() });
        self.keys.line.push_back((place, id));
        self.wait_for_old_keys();
        place
    }

    /// Hands the message to all who want it, or puts it off.
    fn route_keyed(&mut self, place: KeyPlace, message: &Arc<Message>, is_new: bool) -> Keyed {
        let (before, id) = (self.gate.appended(), message.id);
        self.keys.keys[place as usize].progress = KeyProgress::Routing;
        let is_for_later = self.is_for_later(message);
        if self.is_followed(message) {
            self.scratch.publisher = Some(self.keys.keys[place as usize].name.holder.clone());
        }
        if is_new && (is_for_later || self.leaves_traces(message)) {
            self.log_key(place);
        }
        if is_for_later {
            let by = self.keys.keys[place as usize].name.holder.clone();
            self.schedule(Arc::clone(message), Some(by));
            return self.answer_key_at_once(place, ReasonCode::Success);
        }
        let holder = Holder::Key(KeyId { place, id });
        if is_new && message.qos.is_acknowledged() {
            self.repeats.begin(holder);
        }
        let routed = self.route(Arc::clone(message), self.config.durable);
        let Some(Token::Publish(pending)) = routed.token.and_then(|token| self.mesh.tokens.get_mut(&token)) else {
            self.repeats.ends_at_once(id);
            return self.answer_key_at_once(place, routed.reason);
        };
        pending.holder = Some(holder);
        pending.need = if self.gate.appended() > before { self.gate.appended() } else { Sequence(0) };
        self.tell_long_routed();
        Keyed::UnderWay(place)
    }

    /// Whether anything but the key remembers the message that `collect` was called for.
    fn leaves_traces(&self, message: &Message) -> bool {
        let Scratch { matches, shards, share_forwards, .. } = &self.scratch;
        message.retain || !matches.is_empty() || !shards.is_empty() || !share_forwards.is_empty()
    }

    /// No other shard has to be asked. The log says so behind what it says of the message.
    fn answer_key_at_once(&mut self, place: KeyPlace, reason: ReasonCode) -> Keyed {
        let id = self.keys.keys[place as usize].id;
        self.set_key_answered(place, reason);
        let need = if self.config.durable { self.gate.appended() } else { Sequence(0) };
        self.keys.keys[place as usize].progress = KeyProgress::Answered { reason, need };
        Keyed::Answered(KeyAnswer { reason, id, need })
    }

    fn set_key_answered(&mut self, place: KeyPlace, reason: ReasonCode) {
        let key = &mut self.keys.keys[place as usize];
        key.progress = KeyProgress::Answered { reason, need: Sequence(0) };
        let (id, was_told) = (key.id, std::mem::take(&mut key.told));
        self.log_key(place);
        if was_told {
            self.forget_everywhere(id);
        }
    }

    /// All shards have answered.
    pub(crate) fn key_concluded(&mut self, key: KeyId, pending: &Pending) {
        let (place, id) = (key.place, key.id);
        if self.keys.get_mut(key).is_none() {
            return;
        }
        let reason = match pending.refusal {
            Some(reason) => {
                self.key_refused(place, reason, pending);
                reason
            }
            None => {
                let reason = reason_for(pending.matched);
                if !pending.matched {
                    self.count(Counted::NoSubscriber);
                }
                self.set_key_answered(place, reason);
                reason
            }
        };
        let key = &mut self.keys.keys[place as usize];
        if !std::mem::replace(&mut key.in_line, true) {
            self.keys.line.push_front((place, id)); // it was to be forgotten already
            self.keys.has_more = true;
        }
        let answer = KeyAnswer { reason, id, need: pending.need };
        for asker in std::mem::take(&mut self.keys.keys[place as usize].askers) {
            self.tell_asker(asker, answer);
        }
    }

    /// Some shard has refused it, others may have taken it: a repeat goes to those who have not.
    fn key_refused(&mut self, place: KeyPlace, reason: ReasonCode, pending: &Pending) {
        let key = &mut self.keys.keys[place as usize];
        key.progress = KeyProgress::Refused(reason);
        let (id, was_told) = (key.id, std::mem::replace(&mut key.told, true));
        if !was_told {
            self.tell_may_repeat(vec![id]);
        }
        self.know_groups(id, &pending.groups);
        self.log_key(place);
    }

    /// Notes that shards have to be told of its end. `false`: there is no such key any more.
    pub(crate) fn key_will_be_forgotten(&mut self, key: KeyId) -> bool {
        self.keys.get_mut(key).map(|key| key.told = true).is_some()
    }

    /// Shards have just been told of this one; if all have answered meanwhile, they may forget it once that is committed.
    pub(crate) fn forget_key_if_answered(&mut self, key: KeyId) {
        let Some(known) = self.keys.get_mut(key) else { return };
        if matches!(known.progress, KeyProgress::Answered { .. }) {
            known.told = false;
            self.forget_everywhere(key.id);
        }
    }

    fn log_key(&mut self, place: KeyPlace) {
        if !self.config.durable {
            return;
        }
        let key = &self.keys.keys[place as usize];
        let (name, record) = (key.name.clone(), key.record());
        self.append(record);
        self.retiring.dirty.insert(StateKey::Key(name));
    }

    /// As it is to be stored; `None` if nobody has this key.
    pub(crate) fn key_record(&self, name: &KeyName) -> Option<Record> {
        self.keys.find(name).map(|place| self.keys.keys[place as usize].record())
    }

    fn has_too_many_keys(&self, holder: &KeyHolder) -> bool {
        let of_holder = self.keys.counts.get(holder).copied().unwrap_or(0);
        of_holder >= self.config.limits.keys_max || self.keys.len() >= self.config.limits.keys_total_max
    }
}

// How keys end.
impl Broker {
    fn is_key_old(&self, at: base::WallMillis) -> bool {
        self.now.wall.since(at) >= self.config.limits.keys_window_ms
    }

    /// The key of this name, if its window is not over.
    fn living_key(&mut self, name: &KeyName) -> Option<KeyPlace> {
        let place = self.keys.find(name)?;
        let key = &self.keys.keys[place as usize];
        if !self.is_key_old(key.at) || key.progress == KeyProgress::Routing {
            return Some(place);
        }
        self.forget_key(place);
        None
    }

    fn forget_key(&mut self, place: KeyPlace) {
        let key = self.keys.remove(place);
        if self.config.durable {
            self.retiring.dirty.insert(StateKey::Key(key.name));
        }
        if key.told {
            self.forget_everywhere(key.id);
        }
    }

    fn wait_for_old_keys(&mut self) {
        if self.keys.timer.is_some() {
            return;
        }
        let Some(&(place, id)) = self.keys.line.front() else { return };
        let at = self.keys.get_mut(KeyId { place, id }).map_or(base::WallMillis(0), |key| key.at);
        let left = at.after(self.config.limits.keys_window_ms).since(self.now.wall);
        self.keys.timer = Some(self.timers.set(self.now.mono.after(left.max(1)), Timer::Keys));
    }

    /// Some keys may be over.
    pub(crate) fn keys_aged(&mut self) {
        self.keys.timer = None;
        self.keys.has_more = true;
    }

    /// The window is another one.
    pub(crate) fn keys_bounded(&mut self) {
        self.timers.cancel(self.keys.timer.take());
        self.keys.has_more = !self.keys.line.is_empty();
    }

    /// Forgets the oldest, so many at a time: without that the end of a crowd's window would be a long turn.
    pub(crate) fn forget_old_keys(&mut self) {
        self.keys.has_more = false;
        for _ in 0..FORGOTTEN_PER_TICK {
            let Some(&(place, id)) = self.keys.line.front() else { return };
            let (now, window) = (self.now.wall, self.config.limits.keys_window_ms);
            match self.keys.get_mut(KeyId { place, id }) {
                Some(key) if now.since(key.at) < window => return self.wait_for_old_keys(),
                Some(key) if key.progress == KeyProgress::Routing => key.in_line = false,
                Some(_) => self.forget_key(place),
                None => {}
            }
            self.keys.line.pop_front();
        }
        self.keys.has_more = true;
    }

    /// A record of the log.
    pub(crate) fn replay_key(&mut self, publish: KeyedPublish, is_snapshot: bool) {
        if !is_snapshot {
            self.retiring.dirty.insert(StateKey::Key(publish.name.clone()));
        }
        let told = publish.may_be_routed_again();
        let KeyedPublish { name, id, digest, at, answer } = publish;
        let progress = match answer {
            None => KeyProgress::Unknown,
            Some(reason) if reason.is_error() => KeyProgress::Refused(reason),
            Some(reason) => KeyProgress::Answered { reason, need: Sequence(0) },
        };
        if let Some(place) = self.keys.find(&name) {
            let key = &mut self.keys.keys[place as usize];
            return (key.id, key.digest, key.at, key.progress, key.told) = (id, digest, at, progress, told);
        }
        self.keys.add(Key { name, id, digest, at, progress, told, in_line: true, askers: Vec::new() });
    }

    /// All has been replayed. `taken_in`: messages that were put off; of them no more has to be known than that.
    pub(crate) fn keys_recovered(&mut self, taken_in: &AHashSet<MessageId>) {
        let mut line: Vec<_> = Vec::with_capacity(self.keys.len());
        for (place, key) in &mut self.keys.keys {
            if key.progress == KeyProgress::Unknown && taken_in.contains(&key.id) {
                let (reason, need) = (ReasonCode::Success, Sequence(0));
                (key.progress, key.told) = (KeyProgress::Answered { reason, need }, false);
                self.retiring.dirty.insert(StateKey::Key(key.name.clone()));
            }
            line.push((key.at, place as KeyPlace, key.id));
        }
        line.sort_unstable();
        self.keys.line = line.into_iter().map(|(_, place, id)| (place, id)).collect();
        self.wait_for_old_keys();
    }
}
