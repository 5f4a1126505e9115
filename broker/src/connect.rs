//! Sessions begin, are taken up, taken over, and end.

use std::sync::Arc;

use base::{
    ClientId, ConnectionId, Message, Outcome, PartitionId, QueueId, QueueOwner, ReasonCode, Record, SessionExpiry, Will,
};
use postroad_base as base;

use crate::access::Action;
use crate::api::{ClientName, Connect, Counted, DisconnectCause, Effect, Principal};
use crate::broker::Broker;
use crate::directed::is_directed;
use crate::gate::Waiter;
use crate::hooks::{Admission, Peer as Asked, Seen, Waiting};
use crate::pull::Pull;
use crate::session::{Connection, ConnectionIndex, Peer, Session, SessionIndex};
use crate::timers::Timer;

/// Ordinals of sessions that the log does not know start here, so that none is ever that of a logged one.
const UNLOGGED_ORDINALS: u64 = 1 << 47;

/// Whether the log knows the session of this queue.
pub(crate) fn is_logged(queue: QueueId) -> bool {
    queue.ordinal() < UNLOGGED_ORDINALS
}

impl Broker {
    pub(crate) fn connect(&mut self, mut connect: Connect) {
        let refused = self.connect_refusal(&connect).or_else(|| self.ask_admission(&mut connect));
        if let Some(reason) = refused {
            let connection = connect.connection;
            return self.effects.push_back(Effect::ConnectRefused { connection, reason });
        }
        let existing = self.session_to_resume(&connect);
        let expiry = connect.expiry.min(self.config.limits.session_expiry_max);
        // Before the session: after a crash in between, no push may find a session and no registration.
        self.register_connected(&connect.client, connect.name, &connect.principal);
        let index = match existing {
            Some(index) => self.resume_session(index, expiry),
            None => self.begin_session(connect.client.clone(), expiry),
        };
        self.judge_resumed(index, &connect.principal);
        self.set_will(index, connect.will);
        let connection = connect.connection;
        let window_max = connect.receive_maximum.clamp(1, self.config.limits.inflight_max.max(1));
        let made = Connection {
            peer: match (connect.name, connect.hears_refusals) {
                (ClientName::Caller, _) => Peer::Caller,
                (_, true) => Peer::Client,
                (_, false) => Peer::DeafClient,
            },
            resend: connect.resend,
            allowance: Connection::allowance_of(connect.delivery.unwrap_or(self.config.limits.delivery_mode)),
            ..Connection::new(connection, index, window_max)
        };
        let place = u32::try_from(self.connections.insert(made)).expect("fewer connections than 2^32");
        self.connection_places.insert(&self.connections, place);
        let session = &mut self.sessions[index as usize];
        session.connection = Some(place);
        session.since = self.now.wall;
        session.queue.attach();
        self.share_presence(index);
        let session_present = existing.is_some();
        if let Some(queue) = self.registration_queue_of(&connect.client) {
            if !session_present {
                self.settle_received(queue);
            }
            self.join_registration(place, queue);
        }
        // Also for a session that the log does not know: "not present" is a promise, and a crash must not bring back the one
        // whose end is not committed.
        self.after_commit(Waiter::Connected { connection, session_present });
    }

    /// The client's session, without its old connection; none if it is to begin anew `[MQTT-3.1.2-4]`.
    fn session_to_resume(&mut self, connect: &Connect) -> Option<SessionIndex> {
        let existing = self.session_of_client(connect.client.as_str())?;
        self.take_over(existing);
        // A session that does not outlive its connection is gone now.
        let existing = self.session_of_client(connect.client.as_str())?;
        if connect.clean_start {
            self.end_session(existing);
            return None;
        }
        Some(existing)
    }

    /// What plugins say: why it may not, or groups that it belongs to besides. Callers of the API are no clients.
    fn ask_admission(&mut self, connect: &mut Connect) -> Option<ReasonCode> {
        let hooks = self.hooks.as_mut().filter(|_| connect.name != ClientName::Caller)?;
        let answer = hooks.connect(self.now, connect);
        self.publish_for_plugins(answer.publish);
        match answer.answer {
            Admission::Allow => None,
            Admission::AllowWith(groups) => {
                let groups = Principal { user: None, groups: groups.into() };
                connect.principal = groups.with_user_of(&connect.principal);
                None
            }
            Admission::Deny(reason) => {
                self.count(Counted::PluginRefused);
                Some(reason)
            }
        }
    }

    fn connect_refusal(&self, connect: &Connect) -> Option<ReasonCode> {
        let Connect { principal, client, .. } = connect;
        if !self.acl.decide(principal, client, Action::Connect, "") {
            return Some(ReasonCode::NotAuthorized);
        }
        let known = self.session_of_client(client.as_str());
        let will = connect.will.as_ref();
        let is_no_topic =
            |will: &Will| self.has_too_many_levels(will.topic.as_str()) || Pull::of_topic(&will.topic).is_some();
        if will.is_some_and(|will| is_no_topic(will)) {
            return Some(ReasonCode::TopicNameInvalid);
        }
        if will.is_some_and(|will| !self.acl.decide(principal, client, Action::Publish, will.topic.as_str())) {
            return Some(ReasonCode::NotAuthorized);
        }
        if known.is_some_and(|index| self.is_foreign(index, principal)) {
            return Some(ReasonCode::NotAuthorized);
        }
        if self.registrations.get(client.as_str()).is_some_and(|known| known.principal.is_another_than(principal)) {
            return Some(ReasonCode::NotAuthorized);
        }
        let full = self.clients.len() >= self.config.sessions_max;
        if full && known.is_none() && connect.name != ClientName::Caller {
            return Some(ReasonCode::QuotaExceeded);
        }
        let may_be_new = connect.name != ClientName::Caller && principal.user.is_some();
        let is_new = may_be_new && self.registrations.find(client.as_str()).is_none();
        (is_new && !self.may_register()).then_some(ReasonCode::QuotaExceeded)
    }

    /// Whether the session belongs to another user. Knowing a client id gives nobody its subscriptions and messages, nor
    /// the means to cut its connection.
    fn is_foreign(&self, index: SessionIndex, principal: &Principal) -> bool {
        self.sessions[index as usize].principal.is_another_than(principal)
    }

    /// The client has forgotten its session: what it had received of its registration's queue is over, and what it had
    /// not is sent again.
    fn settle_received(&mut self, queue: SessionIndex) {
        for tag in self.sessions[queue as usize].queue.received() {
            if let Some(slot) = self.sessions[queue as usize].queue.window.remove(tag) {
                self.settle(queue, slot.sequence, slot.stored, Outcome::Acknowledged);
            }
        }
    }

    /// CONNACK leaves; then what waits for the client.
    pub(crate) fn opened(&mut self, connection: ConnectionId, session_present: bool) {
        let Some(place) = self.place_of(connection) else { return };
        self.connections[place as usize].opening = false;
        let index = self.session_of(place);
        let inbound = self.sessions[index as usize].inbound.iter().map(|(tag, _)| *tag).collect();
        self.effects.push_back(Effect::Connected { connection, session_present, inbound });
        self.answer_ready(connection);
        self.returned(place);
    }

    /// The old connection of the client goes, if it has one `[MQTT-3.1.4-3]`.
    fn take_over(&mut self, index: SessionIndex) {
        if self.sessions[index as usize].connection.is_some() {
            self.count(Counted::TakenOver);
            self.cut_off(index, ReasonCode::SessionTakenOver);
        }
    }

    /// The connection of this session goes, if it has one. A session that does not outlive it ends.
    pub(crate) fn cut_off(&mut self, index: SessionIndex, reason: ReasonCode) {
        let Some(place) = self.sessions[index as usize].connection else { return };
        let connection = self.connections[place as usize].id;
        self.effects.push_back(Effect::Close { connection, reason });
        self.detach(place, DisconnectCause::Lost);
    }

    fn begin_session(&mut self, client: ClientId, expiry: SessionExpiry) -> SessionIndex {
        let logged = self.config.durable && expiry.outlives_connection();
        let id = self.new_queue_id(&client, logged);
        let index = self.add_session(Session::new(client.clone(), id, logged, expiry));
        if logged {
            let at = self.now.wall;
            self.append(Record::QueueBegin { queue: id, owner: QueueOwner::Session(client), expiry, at });
            self.mark_dirty(index);
        }
        index
    }

    pub(crate) fn add_session(&mut self, session: Session) -> SessionIndex {
        let index = self.add_queue(session);
        self.clients.insert(&self.sessions, index);
        index
    }

    pub(crate) fn add_queue(&mut self, session: Session) -> SessionIndex {
        let index = u32::try_from(self.sessions.insert(session)).expect("fewer sessions than 2^30");
        self.queues.insert(&self.sessions, index);
        index
    }

    /// A queue that is no session's, and that nothing but a record ends, begins in the log.
    pub(crate) fn log_queue_begin(&mut self, index: SessionIndex, owner: QueueOwner) {
        let Session { id: queue, logged, .. } = self.sessions[index as usize];
        if logged {
            let (expiry, at) = (SessionExpiry::NEVER, self.now.wall);
            self.append(Record::QueueBegin { queue, owner, expiry, at });
            self.mark_dirty(index);
        }
    }

    /// It leaves the slab, after its client.
    pub(crate) fn remove_session(&mut self, index: SessionIndex) -> Session {
        let client = self.sessions[index as usize].client.as_str();
        debug_assert_ne!(self.session_of_client(client), Some(index), "{client:?} would be left with a stranger");
        self.queues.remove(&self.sessions, index);
        self.sessions.remove(index as usize)
    }

    pub(crate) fn new_queue_id(&mut self, client: &ClientId, logged: bool) -> QueueId {
        self.new_queue_id_in(self.config.placement.partition_of(client.as_str().as_bytes()), logged)
    }

    pub(crate) fn new_queue_id_in(&mut self, partition: PartitionId, logged: bool) -> QueueId {
        if !logged {
            self.ordinals_unlogged += 1;
            return QueueId::new(partition, UNLOGGED_ORDINALS + self.ordinals_unlogged);
        }
        let next = &mut self.ordinals[usize::from(partition.0)];
        *next += 1;
        self.retiring.dirty.insert(crate::api::StateKey::Ordinals(partition));
        QueueId::new(partition, *next - 1)
    }

    fn resume_session(&mut self, index: SessionIndex, expiry: SessionExpiry) -> SessionIndex {
        let session = &mut self.sessions[index as usize];
        session.expiry = expiry;
        self.timers.cancel(session.expiry_timer.take());
        if session.logged {
            let (queue, at) = (session.id, self.now.wall);
            self.append(Record::Connected { queue, expiry, at });
            self.mark_dirty(index);
        }
        index
    }

    pub(crate) fn disconnect(&mut self, connection: ConnectionId, cause: DisconnectCause) {
        if let Some(place) = self.place_of(connection) {
            self.detach(place, cause);
        }
    }

    /// Parts a connection from its session.
    fn detach(&mut self, place: ConnectionIndex, cause: DisconnectCause) {
        self.leave_drain(place);
        self.resends.forget(place);
        self.connection_places.remove(&self.connections, place);
        let connection = self.connections.remove(place as usize);
        self.parts_said.remove(&place);
        let index = connection.session;
        // Published at the end: until then the session is neither here nor away.
        let said = if connection.is_caller() { Vec::new() } else { self.ask_about_end(index, cause) };
        let session = &mut self.sessions[index as usize];
        session.connection = None;
        session.since = self.now.wall;
        session.forget_pulls();
        session.queue.detach(self.now.mono);
        if let Some(queue) = connection.registration {
            let registration = &mut self.sessions[queue as usize];
            registration.connection = None;
            registration.queue.detach(self.now.mono);
        }
        let session = &mut self.sessions[index as usize];
        if let DisconnectCause::Normal { expiry: Some(expiry) } | DisconnectCause::WithWill { expiry: Some(expiry) } =
            cause
        {
            session.expiry = expiry.min(self.config.limits.session_expiry_max);
        }
        let publisher = session.id;
        // QoS 0 has no second chance; what expects an answer is sent again by the client.
        for waiting in connection.parked.into_iter() {
            self.no_longer_parked(&waiting);
            // What expects an answer is sent again by the client.
            if !waiting.comes_again() {
                self.orphaned(index, publisher, waiting);
            }
        }
        self.tell_generation();
        match cause {
            DisconnectCause::Normal { .. } => self.discard_will(index),
            DisconnectCause::WithWill { .. } | DisconnectCause::Lost => self.schedule_will(index),
            // The will stays in the log with a session that stays, and goes with one that doesn't.
            DisconnectCause::ServerShutdown if self.sessions[index as usize].logged => {}
            DisconnectCause::ServerShutdown => self.discard_will(index),
        }
        self.share_presence(index);
        self.begin_expiry(index);
        self.publish_for_plugins(said);
    }

    /// What plugins want published since this client has gone.
    fn ask_about_end(&mut self, index: SessionIndex, cause: DisconnectCause) -> Vec<Message> {
        let Self { hooks: Some(hooks), sessions, now, .. } = self else { return Vec::new() };
        let Session { client, principal, .. } = &sessions[index as usize];
        hooks.disconnected(*now, Asked { client, principal, is_application: false }, cause)
    }

    /// QoS 0 whose client has gone before it was taken in.
    fn orphaned(&mut self, index: SessionIndex, publisher: QueueId, waiting: Waiting) {
        let (seen, stamp, digest) = (waiting.seen(), waiting.stamp().unwrap_or_default(), waiting.digest());
        let inbound = waiting.inbound;
        if let Some(why) = self.orphan_refusal(index, &inbound, seen) {
            return self.count(why);
        }
        let mut message = inbound.message;
        let owned = Arc::make_mut(&mut message);
        owned.publisher = publisher;
        owned.retain &= !is_directed(&owned.topic);
        let digest = digest.or_else(|| self.digest_if_keyed(&message));
        let decided = if seen == Seen::Not { self.decide_orphan(index, message) } else { (stamp, vec![message]) };
        let (stamp, messages) = decided;
        for message in messages {
            match self.key_of(index, &message).zip(digest) {
                Some((name, digest)) => self.publish_keyed_orphan(name, message, digest, stamp),
                None => self.publish_orphan(message, stamp),
            }
        }
    }

    fn begin_expiry(&mut self, index: SessionIndex) {
        let session = &self.sessions[index as usize];
        let (queue, expiry, at) = (session.id, session.expiry, self.now.wall);
        if !expiry.outlives_connection() {
            return self.end_session(index);
        }
        if session.logged {
            self.append(Record::Disconnected { queue, expiry, at });
            self.mark_dirty(index);
        }
        self.set_expiry_timer(index, u64::from(expiry.0) * 1000);
    }

    /// The session ends this much later, unless it never does.
    pub(crate) fn set_expiry_timer(&mut self, index: SessionIndex, millis: u64) {
        let session = &mut self.sessions[index as usize];
        if session.expiry != SessionExpiry::NEVER {
            let at = self.now.mono.after(millis);
            session.expiry_timer = Some(self.timers.set(at, Timer::SessionEnd(index, session.id)));
        }
    }

    pub(crate) fn session_expired(&mut self, index: SessionIndex, id: QueueId) {
        let Some(session) = self.sessions.get_mut(index as usize).filter(|session| session.id == id) else { return };
        session.expiry_timer = None;
        self.count(Counted::SessionExpired);
        self.end_session(index);
    }

    /// The session and all that it holds is gone, but for what goes to other members of share groups; a will that was
    /// still waiting is published `[MQTT-3.1.3-9]`.
    pub(crate) fn end_session(&mut self, index: SessionIndex) {
        self.publish_will(index);
        let subscriptions = std::mem::take(&mut self.sessions[index as usize].subscriptions);
        for (filter, _) in subscriptions.iter() {
            self.unindex_subscription(index, filter);
        }
        let session = &mut self.sessions[index as usize];
        let inbound = std::mem::take(&mut session.inbound);
        self.timers.cancel(session.expiry_timer.take());
        let client = session.client.clone();
        self.clients.remove(&self.sessions, index);
        self.registration_left(&client);
        self.begin_ending(index);
        for (_, state) in inbound.iter().filter(|(_, state)| state.told) {
            if !self.is_due_under(state.id) {
                self.forget_everywhere(state.id); // else it is forgotten when it has come to everybody
            }
        }
    }
}
