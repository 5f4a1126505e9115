//! What a shard remembers of a client: its session, which may outlive its connection, and the connection.
//!
//! A registration's queue is a [`Session`] too, one without subscriptions, will and end ([`Role::Registration`]): its
//! deliveries live the same life. A connection drains both.

use std::collections::{BTreeMap, VecDeque};

use base::{
    Addressee, ClientId, ConnectionId, MessageId, QueueId, ReasonCode, Sequence, SessionExpiry, Tag, TopicFilter,
    TopicName, WallMillis, Will,
};
use postroad_base as base;

use crate::api::Principal;
use crate::config::Resend;
use crate::filters::Filters;
use crate::giving::Job;
use crate::hooks::Waiting;
use crate::overdue::Grain;
use crate::places::By;
use crate::queue::{Queue, Tags};
use crate::round_trip::RoundTrip;
use crate::timers::TimerKey;

/// Place of a session in the slab.
pub(crate) type SessionIndex = u32;
/// Place of a connection in the slab.
pub(crate) type ConnectionIndex = u32;

/// The session of a client, as long as it is not ending.
#[derive(Debug)]
pub(crate) struct ByClient;

impl By for ByClient {
    type Entry = Session;
    type Key = str;

    fn key(session: &Session) -> &str {
        session.client.as_str()
    }
}

/// The session whose queue it is, every one.
#[derive(Debug)]
pub(crate) struct ByQueue;

impl By for ByQueue {
    type Entry = Session;
    type Key = QueueId;

    fn key(session: &Session) -> &QueueId {
        &session.id
    }
}

/// Every connection that has a session here.
#[derive(Debug)]
pub(crate) struct ByConnection;

impl By for ByConnection {
    type Entry = Connection;
    type Key = ConnectionId;

    fn key(connection: &Connection) -> &ConnectionId {
        &connection.id
    }
}

/// What a [`Session`] is to its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Its MQTT session.
    Session,
    /// The queue of its registration: directed pushes, which no clean start discards (DESIGN 5).
    Registration,
    /// The dead letters of the shard: of no client (see `letters`).
    Letters,
    /// What a consumer group is to get; `client` is the name of the group (see `consumers`).
    Group,
    /// The messages of the shard that are to be published later: of no client (see `scheduled`).
    Scheduled,
}

impl Role {
    /// Whether its messages are not delivered one after the other, but looked for.
    pub fn is_read_out_of_turn(self) -> bool {
        matches!(self, Self::Letters | Self::Scheduled)
    }
}

/// A session `[MQTT-3.1.2-4]`.
#[derive(Debug)]
pub(crate) struct Session {
    pub client: ClientId,
    pub role: Role,
    /// Names its queue in the log, and itself as publisher (no-local).
    pub id: QueueId,
    /// Whether the log knows it: durable, and it outlives its connection.
    pub logged: bool,
    pub connection: Option<ConnectionIndex>,
    /// Who the client proved to be last.
    pub principal: Principal,
    /// The rules by which its subscriptions were judged last, for that principal.
    pub judged_by: u32,
    pub expiry: SessionExpiry,
    /// When its connection came or went last.
    pub since: WallMillis,
    /// Recovery: it had a connection when the log ended.
    pub was_connected: bool,
    /// It comes from a former run, and its drain has not begun in this one (see `drain`).
    pub recovered: bool,
    /// It is over; its queue lives on until what it held for share groups has moved (see `give_back`).
    pub ending: bool,
    /// Its queue may hold deliveries of share groups.
    pub maybe_shared: bool,
    pub will: Option<Box<Will>>,
    pub subscriptions: Filters,
    pub queue: Queue,
    /// QoS 2 publications of the client that it has not released.
    pub inbound: Vec<(Tag, InboundState)>,
    pub expiry_timer: Option<TimerKey>,
    pub will_timer: Option<TimerKey>,
    /// Present while retained messages are being given.
    pub watch: Option<Box<Watch>>,
    /// Changed since the last retirement.
    pub dirty: bool,
    /// The last retirement that found deliveries which were too young for it.
    pub too_young_in: u32,
    /// Everything up to here is settled or stored (see `recover`).
    pub watermark: Sequence,
    pub has_watermark: bool,
    /// Place in the scratch list of the walk `mark_walk`: merges overlapping subscriptions.
    pub mark: u32,
    pub mark_walk: u64,
}

/// Retained messages are being given for new subscriptions (see `giving`).
#[derive(Debug, Default)]
pub(crate) struct Watch {
    /// SUBSCRIBEs that are not answered yet.
    pub subscribing: usize,
    /// Subscriptions that have not been given all yet, with the number of their job; 0 until the SUBACK. The log knows them.
    pub due: BTreeMap<TopicFilter, u64>,
    /// Subscriptions to give for, one after the other. One whose number is not in `due` is over: it is passed by.
    pub jobs: VecDeque<Job>,
    pub job_last: u64,
    /// Names the portion that has been asked for.
    pub asked: Option<u64>,
    /// That portion may lack something that was dropped on its live way: ask again.
    pub is_stale: bool,
    /// Bytes of the next retained message, if it was the queue's bytes that left no room for it.
    pub needs: usize,
    /// A step that asks for the next portion waits for its turn.
    pub is_in_line: bool,
    /// What came live meanwhile, the place in time of the newest of each topic: the retained one must not follow, nor come twice.
    pub seen: ahash::AHashMap<TopicName, MessageId>,
}

/// A QoS 2 publication on its way in: whose, and under which tag. The tag may have been released since, and used again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InboundName {
    pub session: SessionIndex,
    pub queue: QueueId,
    pub tag: Tag,
    pub id: MessageId,
}

/// What became of a QoS 2 publication whose tag is not released yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct InboundState {
    pub id: MessageId,
    pub progress: Progress,
    /// Other shards have been told that it may be repeated: they are told of its end, too. It comes from a former run, was
    /// refused by some shard, or has been under way for long.
    pub told: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Other shards have to confirm it; the token names it.
    Routing(u64),
    /// It can be answered once this is committed.
    Routed { reason: ReasonCode, need: Sequence },
    /// A crash may have come between its record and its routing, or some shard refused it and the client was not told: a
    /// repeat is routed again, with the same id.
    Unknown,
}

impl Session {
    /// Whom what stands in its queue is for.
    pub fn addressee(&self) -> Addressee {
        match self.role {
            Role::Group => Addressee::Group(self.client.0.clone()),
            _ => Addressee::Client(self.client.clone()),
        }
    }

    pub fn new(client: ClientId, id: QueueId, logged: bool, expiry: SessionExpiry) -> Self {
        Self {
            client,
            role: Role::Session,
            id,
            logged,
            connection: None,
            principal: Principal::default(),
            judged_by: 0,
            expiry,
            since: WallMillis(0),
            was_connected: false,
            recovered: false,
            ending: false,
            maybe_shared: false,
            will: None,
            subscriptions: Filters::default(),
            queue: Queue::default(),
            inbound: Vec::new(),
            expiry_timer: None,
            will_timer: None,
            watch: None,
            dirty: false,
            too_young_in: 0,
            watermark: Sequence(0),
            has_watermark: false,
            mark: 0,
            mark_walk: 0,
        }
    }

    /// The queue of a registration.
    pub fn of_registration(client: ClientId, id: QueueId, logged: bool) -> Self {
        let queue = Queue::with_tags(Tags::High);
        Self { role: Role::Registration, queue, ..Self::new(client, id, logged, SessionExpiry::NEVER) }
    }

    /// A queue of dead letters.
    pub fn of_letters(id: QueueId, logged: bool) -> Self {
        let nobody = ClientId(bytestring::ByteString::new());
        Self { role: Role::Letters, ..Self::new(nobody, id, logged, SessionExpiry::NEVER) }
    }

    /// A queue of messages that are to be published later.
    pub fn of_scheduled(id: QueueId, logged: bool) -> Self {
        Self { role: Role::Scheduled, ..Self::of_letters(id, logged) }
    }

    /// The queue of a consumer group.
    pub fn of_group(name: bytestring::ByteString, id: QueueId, logged: bool) -> Self {
        Self { role: Role::Group, ..Self::new(ClientId(name), id, logged, SessionExpiry::NEVER) }
    }

    pub fn inbound_mut(&mut self, tag: Tag) -> Option<&mut InboundState> {
        self.inbound.iter_mut().find(|(known, _)| *known == tag).map(|(_, state)| state)
    }

    pub fn remove_inbound(&mut self, tag: Tag) -> Option<InboundState> {
        let place = self.inbound.iter().position(|(known, _)| *known == tag)?;
        Some(self.inbound.remove(place).1)
    }

    /// This subscription is to be given retained messages.
    pub fn retained_due(&mut self, filter: TopicFilter) {
        self.watch.get_or_insert_default().due.entry(filter).or_insert(0);
    }

    /// It has been, or is gone.
    pub fn retained_given(&mut self, filter: &TopicFilter) {
        if let Some(watch) = &mut self.watch {
            watch.due.remove(filter);
        }
    }
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// A client that can be told that a publish was refused.
    Client,
    /// One that can't: MQTT 3.
    DeafClient,
    /// A caller of the API ([`crate::api::ClientName::Caller`]).
    Caller,
}

/// A connection that has a session here.
#[derive(Debug)]
pub(crate) struct Connection {
    pub id: ConnectionId,
    pub session: SessionIndex,
    /// The queue of its client's registration, once something was pushed to it.
    pub registration: Option<SessionIndex>,
    /// Deliveries that it takes at once: receive maximum and our own limit.
    pub window_max: u16,
    /// Sent on this connection and not acknowledged.
    pub unacknowledged: u16,
    /// `Connected` has not left yet: nothing else may.
    pub opening: bool,
    pub congested: bool,
    /// It stands in line to be sent more of what waits for it.
    pub is_draining: bool,
    /// Deliveries whose PUBLISH waits for a commit: later ones must not overtake.
    pub held: u16,
    /// Deliveries that it has asked for and not been sent; `None`: it is pushed what comes (see `pull`).
    pub allowance: Option<u16>,
    /// Answers to publishes, in the order of receipt `[MQTT-4.6.0-2]`, `[MQTT-4.6.0-3]`.
    pub answers: VecDeque<Answer>,
    /// Number of the first of `answers`, counted from the beginning of the connection.
    pub answers_first: u64,
    /// The topic that it was allowed to publish to last: most publish to one, and the rules cost more than all
    /// the rest of a publish.
    pub allowed: Option<Box<str>>,
    /// Publishes that wait for credit, or for answers to earlier ones. Reading is stopped meanwhile.
    pub parked: Parked,
    /// Since when it is parked.
    pub unread_since: Grain,
    /// Parked because too many answers are due.
    pub waits_for_answers: bool,
    /// Who is at its other end.
    pub peer: Peer,
    /// Whether it may be sent again what it does not acknowledge.
    pub resend: Resend,
    /// When it is looked at for what is overdue.
    pub watched: Grain,
    /// How long it takes to acknowledge.
    pub round_trip: RoundTrip,
}

/// Publishes that wait: of few connections, so that the others have only the pointer.
#[derive(Debug, Default)]
#[allow(clippy::box_collection, reason = "a VecDeque is 32 bytes, which each idle connection would have")]
pub(crate) struct Parked(Option<Box<VecDeque<Waiting>>>);

impl Parked {
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub fn push_back(&mut self, waiting: Waiting) {
        self.0.get_or_insert_default().push_back(waiting);
    }

    pub fn push_front(&mut self, waiting: Waiting) {
        self.0.get_or_insert_default().push_front(waiting);
    }

    pub fn pop_front(&mut self) -> Option<Waiting> {
        let waiting = self.0.as_mut()?;
        let first = waiting.pop_front();
        if waiting.is_empty() {
            self.0 = None;
        }
        first
    }

    pub fn first(&self) -> Option<&Waiting> {
        self.0.as_ref()?.front()
    }

    pub fn into_iter(self) -> impl Iterator<Item = Waiting> {
        self.0.into_iter().flat_map(|waiting| *waiting)
    }
}

impl Connection {
    /// One whose CONNACK has not left.
    pub fn new(id: ConnectionId, session: SessionIndex, window_max: u16) -> Self {
        Self {
            id,
            session,
            registration: None,
            window_max,
            unacknowledged: 0,
            opening: true,
            congested: false,
            is_draining: false,
            held: 0,
            answers: VecDeque::new(),
            answers_first: 0,
            allowed: None,
            parked: Parked::default(),
            allowance: None,
            unread_since: Grain::NEVER,
            waits_for_answers: false,
            peer: Peer::Client,
            resend: Resend::Reconnect,
            watched: Grain::default(),
            round_trip: RoundTrip::default(),
        }
    }

    /// Whether it can be told that a publish was refused.
    pub fn hears_refusals(&self) -> bool {
        self.peer != Peer::DeafClient
    }

    /// Nothing is read from it.
    pub fn is_parked(&self) -> bool {
        self.waits_for_answers || !self.parked.is_empty()
    }

    /// Whether a part of what plugins made of a publish has not been answered.
    pub fn has_parts(&self) -> bool {
        self.answers.iter().any(|answer| answer.kind == AnswerKind::Part)
    }

    /// Whether what it has parked first has waited for parts in front of it, and those have all been answered.
    pub fn has_waited_for_parts(&self) -> bool {
        let waits = self.parked.first().is_some_and(Waiting::needs_parts);
        waits && !self.waits_for_answers && !self.has_parts()
    }

    pub fn is_caller(&self) -> bool {
        self.peer == Peer::Caller
    }

    /// Why a part of the publish that comes next was refused, if one was and its answer is still in the line.
    pub fn refused_part(&self) -> Option<ReasonCode> {
        let parts = self.answers.iter().rev().take_while(|answer| answer.kind == AnswerKind::Part);
        parts.filter(|part| part.reason.is_error()).map(|part| part.reason).last()
    }

    /// Whose delivery goes under this tag on this connection.
    pub fn owner_of(&self, tag: Tag) -> Option<SessionIndex> {
        match Tags::of(tag) {
            Tags::Low => Some(self.session),
            Tags::High => self.registration,
        }
    }
}

/// PUBACK, PUBREC or PUBCOMP in the making.
#[derive(Debug)]
pub(crate) struct Answer {
    pub tag: Tag,
    pub kind: AnswerKind,
    pub reason: ReasonCode,
    /// Leaves when this is committed …
    pub need: Sequence,
    /// … and no other shard has to confirm any more.
    pub waiting: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AnswerKind {
    Published,
    Completed,
    /// Nothing leaves: this part of what plugins made of a publish is safe, or was refused. What leaves comes behind it.
    Part,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An idle client costs these two, its places (4 bytes each), and its subscriptions: the target is 1.5 KiB
    /// with the connection's own state.
    #[test]
    fn an_idle_client_is_small() {
        let (session, connection) = (size_of::<Session>(), size_of::<Connection>());
        assert!(session <= 416 && connection <= 112, "session {session} bytes, connection {connection} bytes");
    }
}
