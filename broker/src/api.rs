//! The contract of a shard's heart: everything that can happen to it is an [`Event`], everything that it
//! wants done is an [`Effect`], everything that it says to other shards is a [`MeshMessage`].
//!
//! ```text
//!            Event                                   Effect
//! session ──────────►┐                       ┌──────────────► session  (Deliver, Publish…Done, …)
//! log     ──────────►│  Broker::handle(now)  ├──────────────► log      (Append)
//! mesh    ──────────►│  Broker::poll()       ├──────────────► mesh     (Mesh)
//! timer   ──────────►┘                       └──────────────► worker   (ReadBacklog, Ingest)
//! ```
//!
//! Persist, then acknowledge: an effect that tells somebody outside that something is safe is emitted only
//! when `Event::Committed` has covered the records that make it so (DESIGN 4). With `durable == false` no
//! record is appended and everything counts as committed at once.

use std::num::NonZeroU64;
use std::sync::Arc;

use base::{
    CancelAnswer, ClientId, ConnectionId, Digest, GroupAnswer, GroupOrder, KeyHolder, KeyName, Letter, LetterAction,
    LetterAnswer, LetterId, LetterQuery, Message, MessageId, Moved, PendingAnswer, PendingId, PendingPage, QueueId,
    ReasonCode, Recipient, Record, ScheduledPage, ScheduledQuery, Sequence, SessionExpiry, ShardId,
    SubscriptionIdentifier, SubscriptionOptions, Tag, TopicFilter, Will,
};
use bytestring::ByteString;
use postroad_base as base;
use smallvec::SmallVec;

use crate::config::{DeliveryMode, Resend};
use crate::hooks::Stamp;
use crate::index::Cursor;

/// What can happen to a shard.
#[derive(Debug)]
pub enum Event {
    /// A client, authenticated and handed over to this shard (its home), asks for its session.
    Connect(Box<Connect>),
    /// It published. At most one per connection may be waiting: after `Effect::Park` none until `Unpark`.
    Publish { connection: ConnectionId, message: Inbound },
    /// QoS 2, first half done by the publisher: PUBREL.
    Release { connection: ConnectionId, tag: Tag },
    /// QoS 1 delivery acknowledged: PUBACK. A reason of 0x80 or above refuses it.
    Acknowledge { connection: ConnectionId, tag: Tag, reason: ReasonCode },
    /// QoS 2 delivery received: PUBREC. A reason of 0x80 or above refuses it and frees the tag.
    Receive { connection: ConnectionId, tag: Tag, reason: ReasonCode },
    /// QoS 2 delivery complete: PUBCOMP.
    Complete { connection: ConnectionId, tag: Tag },
    /// SUBSCRIBE; the tag comes back in `Effect::Subscribed`.
    Subscribe { connection: ConnectionId, tag: Tag, filters: Vec<Subscribe> },
    /// UNSUBSCRIBE; the tag comes back in `Effect::Unsubscribed`.
    Unsubscribe { connection: ConnectionId, tag: Tag, filters: Vec<Result<TopicFilter, ReasonCode>> },
    /// The connection is over, for this reason. No later event names it.
    Disconnect { connection: ConnectionId, cause: DisconnectCause },
    /// The connection's output is above its limit: deliver nothing more to it until `Writable`.
    Congested { connection: ConnectionId },
    /// Its output has drained.
    Writable { connection: ConnectionId },
    /// Answer to `Effect::Probe`.
    Road { connection: ConnectionId, road: Road },
    /// The server itself publishes (`$SYS`); QoS 0 semantics for the sender.
    PublishInternal { message: Inbound },
    /// All records up to and with this one are as safe as `durability` asks.
    Committed { upto: Sequence },
    /// From another shard, in the order in which it was sent.
    Mesh { from: ShardId, message: MeshMessage },
    /// The answer to `Effect::ReadBacklog`: deliveries after the requested sequence, in order.
    Backlog { queue: QueueId, entries: Vec<BacklogEntry>, end: bool },
    /// The log wants its oldest segment back: answer with `Effect::Ingest`, covering records up to `upto`. Again only after
    /// `Ingested`.
    Retire { upto: Sequence },
    /// That ingestion is done: what it covered may leave memory.
    Ingested,
    /// The clients of this shard that `auth.file` registers, all of them: at the start and at each reload.
    Registrations { clients: Vec<(ClientId, Principal)> },
    /// Somebody looks for dead letters: answered by `Effect::LettersFound`, or asks again from where that says.
    FindLetters { token: u64, query: Box<LetterQuery> },
    /// Do this with a dead letter; `Effect::LetterDone` tells what became of it.
    Letter { token: u64, id: LetterId, action: Box<LetterAction> },
    /// Keep this dead letter from elsewhere, for a human if there is a note; `Effect::LetterKept` names it.
    ImportLetter { token: u64, message: Arc<Message>, note: Option<ByteString> },
    /// Somebody wants to see what waits for this client, behind this delivery, at most so many: answered by `Effect::Peeked`.
    Peek { token: u64, client: ClientId, after: Option<PendingId>, limit: usize },
    /// Somebody acknowledges these in the place of their client, which is not connected: answered by `Effect::PendingEnded`.
    EndPending { token: u64, client: ClientId, ids: Vec<PendingId> },
    /// Somebody looks for messages that wait for their time: answered by `Effect::ScheduledFound`.
    FindScheduled { token: u64, query: Box<ScheduledQuery> },
    /// Somebody takes back what waits for its time, if it is theirs (`None`: whoever's): answered by `Effect::CancelDone`.
    Cancel { token: u64, id: MessageId, of: Option<KeyHolder> },
    /// Do this with the consumer group of this name, which lives here, for this caller; `Effect::GroupDone` tells what became of it.
    Group { token: u64, name: ByteString, caller: Principal, order: Box<GroupOrder> },
    /// Whoever asked this group under this token is gone: a take that waits is over, and answered with nothing. What is leased by it
    /// already is still answered.
    GroupLeft { token: u64, name: ByteString },
    /// Stored bytes are near the limit of the disk (or have fallen below it): refuse publishes with 0x97.
    DiskFull { full: bool },
    /// The old generation is busy, and as much waits for it as it takes in at a time (or that is over): what can wait does.
    LogPressed { pressed: bool },
    /// Sending this delivery has made our own code panic again and again: take it out.
    SetAside { connection: ConnectionId, tag: Tag },
    /// An operator wants this client's connection to end. Its session stays.
    CutOff { client: ClientId },
    /// A caller of the API registers this client; `Effect::ClientDone` tells what became of it.
    Register { token: u64, client: ClientId, principal: Principal },
    /// A caller of the API wants nothing to be known of this client any more; `Effect::ClientDone` likewise.
    Unregister { token: u64, client: ClientId },
    /// An operator wants that this client is sent now what had waited for it, whatever the scheduler of drains says.
    DrainNow { client: ClientId },
    /// A deadline of `Broker::next_deadline` is over.
    Tick,
}

/// What a shard wants done.
#[derive(Debug)]
pub enum Effect {
    /// The session stands: send CONNACK, then whatever follows. `session_present` as MQTT means it.
    Connected { connection: ConnectionId, session_present: bool, inbound: Vec<Tag> },
    /// The session could not be made: CONNACK with this reason, close.
    ConnectRefused { connection: ConnectionId, reason: ReasonCode },
    /// A publish is taken in, under this id: of a caller, or at QoS 1 and 2 of a client that wants receipts of it. Its answer, if `tag` asks for one, comes later.
    Taken { connection: ConnectionId, tag: Option<Tag>, id: MessageId },
    /// PUBACK (QoS 1) or PUBREC (QoS 2) for the publisher's tag. In the order of the publishes.
    Published { connection: ConnectionId, tag: Tag, reason: ReasonCode },
    /// PUBCOMP for the publisher's tag.
    Completed { connection: ConnectionId, tag: Tag, reason: ReasonCode },
    /// SUBACK.
    Subscribed { connection: ConnectionId, tag: Tag, reasons: SmallVec<[ReasonCode; 1]> },
    /// UNSUBACK.
    Unsubscribed { connection: ConnectionId, tag: Tag, reasons: SmallVec<[ReasonCode; 1]> },
    /// PUBLISH to this connection.
    Deliver { connection: ConnectionId, delivery: Delivery },
    /// PUBREL to this connection.
    ReleaseDelivery { connection: ConnectionId, tag: Tag, reason: ReasonCode },
    /// Tell how far what was sent to this connection has come, with `Event::Road`. Nothing if it is gone.
    Probe { connection: ConnectionId },
    /// End the connection, telling the client why (DISCONNECT, where its version has one). The engine
    /// answers with `Event::Disconnect` only if it had not sent one before.
    Close { connection: ConnectionId, reason: ReasonCode },
    /// Read nothing more from this connection; its clocks stand still.
    Park { connection: ConnectionId },
    /// Go on reading.
    Unpark { connection: ConnectionId },
    /// Append to the shard's log. The n-th `Append` has sequence `first + n`; both sides count.
    Append { record: Record },
    /// Send to another shard; delivered once, in order per pair.
    Mesh { to: ShardId, message: MeshMessage },
    /// Read stored deliveries of this queue after this sequence from the old generation.
    ReadBacklog { queue: QueueId, after: Sequence, messages_max: usize, bytes_max: usize },
    /// Answer to `Event::Retire`: store this, then tell `Event::Ingested`.
    Ingest { batch: Box<Retirement> },
    /// This message is taken from these clients (none: it was retained), since handling it makes us panic. Keep it whole
    /// before anything that follows is done: the records after this one say that its deliveries are over.
    SetAside { message: Arc<Message>, clients: Vec<ClientId> },
    /// What a look for dead letters has found, and behind which one to go on; `None`: those were all. `ends`: the last letter of
    /// each queue when the look began, whether it was meant or not.
    LettersFound { token: u64, letters: Vec<Letter>, next: Option<LetterId>, ends: Vec<LetterId> },
    /// A letter from elsewhere is kept under this name; `None`: it is not.
    LetterKept { token: u64, id: Option<LetterId> },
    /// Some of what waits for a client; `None`: nothing is known of it.
    Peeked { token: u64, page: Option<Box<PendingPage>> },
    /// What became of deliveries that were acknowledged in the place of their client.
    PendingEnded { token: u64, answer: PendingAnswer },
    /// What a look for messages that wait for their time has found; `None`: too many look already.
    ScheduledFound { token: u64, page: Option<Box<ScheduledPage>> },
    /// What became of the wish to take one of them back.
    CancelDone { token: u64, answer: CancelAnswer },
    /// What became of an action.
    LetterDone { token: u64, answer: LetterAnswer },
    /// Something has happened to a message that somebody follows.
    Moved(Box<Moved>),
    /// What became of a registration by the API, or its end.
    ClientDone { token: u64, answer: ClientAnswer },
    /// What became of an order for a consumer group.
    GroupDone { token: u64, answer: Box<GroupAnswer> },
    /// Every shard stamps with this generation of plugins or a later one, and nothing of an earlier one is under way: those may go.
    PluginsSettled { generation: u32 },
    /// Something was dropped or refused: count it, and log it at debug level.
    Count { what: Counted, by: u64 },
}

/// What became of a registration by the API, or its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAnswer {
    /// Done, and as safe as `durability` asks.
    Done,
    /// `auth.file` names it, and has the last word.
    OfFile,
    /// As many are registered as may be.
    Full,
    /// Stored bytes are near the limit of the disk.
    DiskFull,
    /// Nothing is known of it.
    Unknown,
}

/// A client asking for its session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    /// The connection that it came on.
    pub connection: ConnectionId,
    /// Never empty: the server has given one to a client that came without.
    pub client: ClientId,
    /// Who chose it.
    pub name: ClientName,
    /// Who it proved to be; empty if it proved nothing.
    pub principal: Principal,
    /// End the old session first.
    pub clean_start: bool,
    /// How long the session outlives the connection.
    pub expiry: SessionExpiry,
    /// Unacknowledged QoS 1 and 2 deliveries that it takes at once (receive maximum).
    pub receive_maximum: u16,
    /// Whether it wants to be pushed what comes, or pulls it; `None`: as the server's configuration has it.
    pub delivery: Option<DeliveryMode>,
    /// What to publish if it vanishes.
    pub will: Option<Box<Will>>,
    /// Whether it can be told that a publish was refused. MQTT 3 can't: the connection ends, and the client sends it again.
    pub hears_refusals: bool,
    /// Whether its protocol lets a message be sent again while the connection lives. MQTT 5 does not `[MQTT-4.4.0-1]`.
    pub resend: Resend,
}

/// How far what was sent to a client has come, in bytes from some beginning of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Road {
    /// All that is meant for it so far, also what waits in our own output.
    pub sent: u64,
    /// Of these the first so many have arrived: its kernel has acknowledged them.
    pub arrived: u64,
    /// Something from the client has not been read, or may not be: maybe just the acknowledgement that is waited for.
    pub has_unread: bool,
}

/// Who chose a client's identifier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientName {
    /// The client.
    #[default]
    Chosen,
    /// The server, for a client that came without: nobody else knows it.
    Assigned,
    /// The server, for a caller of its API: no client can choose it. Nothing can be pushed to it, it is not counted as a
    /// client, and it hears the ids of what it publishes.
    Caller,
}

/// Who a client is, for access rules and directed pushes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Principal {
    /// The authenticated user name, if any.
    pub user: Option<ByteString>,
    /// The groups it belongs to.
    pub groups: Arc<[ByteString]>,
}

impl Principal {
    /// The user of `other`, and the groups of both.
    pub(crate) fn with_user_of(&self, other: &Self) -> Self {
        let mut groups: Vec<ByteString> = self.groups.iter().chain(other.groups.iter()).cloned().collect();
        groups.sort_unstable();
        groups.dedup();
        Self { user: other.user.clone(), groups: groups.into() }
    }

    /// Its user, or that of `other` if it has none; its groups.
    pub(crate) fn or_user_of(&self, other: &Self) -> Self {
        Self { user: self.user.clone().or_else(|| other.user.clone()), groups: Arc::clone(&self.groups) }
    }

    /// Whether it is a user, and `other` is not the same one.
    pub(crate) fn is_another_than(&self, other: &Self) -> bool {
        self.user.is_some() && self.user != other.user
    }
}

/// A message on its way in, before it has an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inbound {
    /// The message; `id` and `publisher` are filled in by the broker (any value on entry), so nobody else should share it.
    pub message: Arc<Message>,
    /// The publisher's tag; `None` for QoS 0.
    pub tag: Option<Tag>,
    /// The publisher says that it may have sent this before.
    pub dup: bool,
    /// Nobody could publish it: it is refused with this reason.
    pub flaw: Option<ReasonCode>,
}

/// One line of a SUBSCRIBE; a filter that is refused before it reaches the broker keeps its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// The filter, or the reason code with which it is refused.
    pub filter: Result<TopicFilter, ReasonCode>,
    /// Its options.
    pub options: SubscriptionOptions,
}

/// Why a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisconnectCause {
    /// DISCONNECT with reason 0: the will is discarded. `expiry` if the packet changed it.
    Normal { expiry: Option<SessionExpiry> },
    /// DISCONNECT with reason 4 or above: the will is published.
    WithWill { expiry: Option<SessionExpiry> },
    /// The connection broke, timed out, or was closed for an error of the client: the will is published.
    Lost,
    /// The server drains: the session stays as it is, the will is not published, expiry runs from now.
    ServerShutdown,
}

/// One message for one connection.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The message.
    pub message: Arc<Message>,
    /// `None` for QoS 0.
    pub tag: Option<Tag>,
    /// The level on this hop.
    pub qos: base::Qos,
    /// It may have been sent before.
    pub dup: bool,
    /// The retain flag on this hop.
    pub retain: bool,
    /// The topic as the device sees it, if it differs from the message's (directed pushes).
    pub topic: Option<base::TopicName>,
    /// Identifiers of the matching subscriptions.
    pub identifiers: SmallVec<[SubscriptionIdentifier; 1]>,
}

/// A delivery that was stored in the old generation.
#[derive(Clone, Debug, PartialEq)]
pub struct BacklogEntry {
    /// Its place in the queue.
    pub sequence: Sequence,
    /// What was decided at the commit.
    pub recipient: Recipient,
    /// The message.
    pub message: Arc<Message>,
}

/// What the old generation has to hold so that the young segments up to `upto` can go.
#[derive(Debug, Default)]
pub struct Retirement {
    /// The state below is that after all records up to and with this one.
    pub as_of: Sequence,
    /// Segments up to and with this record will be recycled.
    pub upto: Sequence,
    /// For each piece of state that changed since the last retirement: its records, or `None` if it is gone. Where one stands
    /// several times, the last one counts.
    pub state: Vec<(StateKey, Option<Vec<Record>>)>,
    /// Deliveries in those segments that are still pending.
    pub pending: Vec<(QueueId, BacklogEntry)>,
    /// Stored deliveries that were settled since the last retirement.
    pub settled: Vec<(QueueId, Sequence)>,
    /// Queues that ended: everything stored for them goes.
    pub ended: Vec<QueueId>,
}

/// Names a piece of state that is stored as one value in the old generation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StateKey {
    /// A queue with its subscriptions, will, watermark and QoS 2 state.
    Queue(QueueId),
    /// A retained message.
    Retained(base::TopicName),
    /// A registration.
    Registration(ClientId),
    /// The ordinals used in a partition.
    Ordinals(base::PartitionId),
    /// A publish under an idempotency key.
    Key(KeyName),
}

/// What shards say to each other. Closed: a new need is a new variant.
///
/// `Forward` uses the data queue and costs one credit, which the sender takes before it accepts the
/// publish; everything else goes by the control queue, which data can't fill.
#[derive(Clone, Debug)]
pub enum MeshMessage {
    /// Deliver this to your subscribers; confirm once it is as safe as `durability` asks. `token` 0: no
    /// confirmation is wanted (QoS 0), only the credit comes back. `oldest`: QoS 2; the oldest such publish that this shard
    /// still routes, maybe this one. What is older will not be repeated, but for what you were told of.
    Forward { message: Arc<Message>, token: u64, oldest: OldestRouted, stamp: Stamp },
    /// Answer to `Forward`: one credit back, and what became of it here.
    Confirm { token: u64, outcome: Forwarded },
    /// This shard wants (or no longer wants) messages for the filter; `token` comes back in `InterestSet`.
    Interest { filter: TopicFilter, wanted: bool, token: u64 },
    /// Answer to `Interest`.
    InterestSet { token: u64 },
    /// Store (empty payload: clear) the retained message of its topic, which lives on your shard, and
    /// confirm when safe.
    Retain { message: Arc<Message>, token: u64 },
    /// Answer to `Retain`. `refused`: there is no room for it (`retained.max`, `retained.bytes_max`).
    Retained { token: u64, refused: bool },
    /// Which retained messages match, from `after` on? Asked for a subscription, one portion at a time: look at no
    /// more than `looks_max` topics. The default cursor is the beginning, which is answered behind a fence.
    RetainedQuery { filter: TopicFilter, after: Cursor, looks_max: usize, token: u64 },
    /// Answer to `RetainedQuery`. `rest`: where the next portion begins; `None`: that was all.
    RetainedMatches { messages: Vec<Arc<Message>>, token: u64, rest: Option<Cursor> },
    /// Answer with `FenceReached` once all that you have taken in so far has left towards me.
    Fence { token: u64 },
    /// Answer to `Fence`: what was taken in before it has arrived before this.
    FenceReached { token: u64 },
    /// How many members of a share group have a connection on this shard now. That it has members at all is
    /// said by `Interest` with the whole `$share/<name>/<filter>`.
    ShareMembers { filter: TopicFilter, connected: u32 },
    /// As `Forward` (credit, `Confirm`), but for one member of this group on your shard, whom you choose;
    /// nobody else there gets it by this.
    ShareForward { filter: Arc<TopicFilter>, message: Arc<Message>, token: u64, oldest: OldestRouted, stamp: Stamp },
    /// After a recovery: QoS 2 ids that publishers of your peer may repeat, for want of an answer. All other
    /// ids may be forgotten once every shard has spoken.
    /// `taken`: QoS 2 messages that share groups have taken by members of this shard.
    Repeatable { ids: Vec<MessageId>, taken: Vec<(MessageId, TopicFilter)> },
    /// QoS 2: publishers may repeat these, if a crash comes: they have been routed for long; or, in any case: some shard has
    /// refused it. Remember who has taken them, or will, until `Forget`.
    MayRepeat { ids: Vec<MessageId> },
    /// A client of your peer publishes under a key that lives on your shard: take it in as if it was yours, and answer with
    /// `KeyAnswered`. It takes a credit of a kind of its own. Token 0: QoS 0.
    Keyed { publish: Box<AskedKey>, token: u64 },
    /// Answer to `Keyed`: one such credit back, what its publisher is told, and which message the key holds. With token 0: when it
    /// was taken in.
    KeyAnswered { token: u64, reason: ReasonCode, id: Option<MessageId> },
    /// QoS 2: an id that you were told of has been released, or its session has ended: nobody will repeat it.
    Forget { id: MessageId },
    /// All that this shard stamps from here on has this generation of plugins or a later one.
    PluginsCommitted { generation: u32 },
}

/// A publish and its key, on their way to the key's home.
#[derive(Clone, Debug)]
pub struct AskedKey {
    /// The key.
    pub name: KeyName,
    /// The message; its id is given by the home.
    pub message: Arc<Message>,
    /// Of what was published, before plugins changed it.
    pub digest: Digest,
    /// Which plugins have seen it.
    pub stamp: Stamp,
}

/// The oldest QoS 2 publish that a shard still routes, if it says so. (An `Option` of the id takes twice the room in each
/// effect.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OldestRouted(Option<(NonZeroU64, u64)>);

impl From<Option<MessageId>> for OldestRouted {
    fn from(id: Option<MessageId>) -> Self {
        let halves = |MessageId(id)| Some((NonZeroU64::new((id >> 64) as u64)?, id as u64)); // the upper one is a time
        Self(id.and_then(halves))
    }
}

impl OldestRouted {
    pub(crate) fn id(self) -> Option<MessageId> {
        self.0.map(|(upper, lower)| MessageId(u128::from(upper.get()) << 64 | u128::from(lower)))
    }
}

/// What a shard did with a message from another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forwarded {
    /// Somebody here has it; as safe as `durability` asks.
    Taken,
    /// Nobody here wants it (any more).
    NoneHere,
    /// A recipient's queue was full and the policy is to tell the publisher; nobody here got it. Or there is no room to
    /// retain it.
    Full,
    /// A push to a client that nobody has seen, where that is an error.
    UnknownClient,
    /// Answer to `ShareForward`: the last member of the group here has left. Choose again.
    NoMember,
}

impl Forwarded {
    /// What its publisher is told if it was refused.
    pub(crate) fn refusal(self) -> Option<ReasonCode> {
        match self {
            Self::Taken | Self::NoneHere | Self::NoMember => None,
            Self::Full => Some(ReasonCode::QuotaExceeded),
            Self::UnknownClient => Some(ReasonCode::TopicNameInvalid),
        }
    }
}

/// What is counted; the name of a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Counted {
    /// A publish with no subscriber.
    NoSubscriber,
    /// Dropped: QoS 0 to a connection that takes no more.
    DroppedQos0Congested,
    /// Dropped: QoS 0 to a session without connection.
    DroppedQos0Offline,
    /// Dropped or refused: a queue at its limit of messages or bytes.
    QueueOverflow,
    /// Expired before it could be sent.
    Expired,
    /// Dropped with the session that ended.
    SessionEnded,
    /// A delivery refused by the receiver.
    RefusedByReceiver,
    /// A publish refused by access rules.
    NotAuthorized,
    /// A publish refused for want of disk.
    DiskFull,
    /// A retained message refused: too many, or too many bytes.
    RetainedLimit,
    /// A subscription refused: too many.
    SubscriptionLimit,
    /// A subscription ended because the access rules no longer allow it.
    SubscriptionRevoked,
    /// A publish or subscription refused: its topic has too many levels.
    TopicLevels,
    /// A session taken over by a new connection of the same client.
    TakenOver,
    /// A session that ended by expiry.
    SessionExpired,
    /// A will that was published.
    WillPublished,
    /// An acknowledgement for a tag that is not in flight.
    UnknownTag,
    /// A push to a client that nobody has seen.
    UnknownClient,
    /// A client that could not be registered: too many are.
    RegistrationLimit,
    /// Dropped with a registration that `auth.file` no longer has.
    Unregistered,
    /// A delivery that was set aside: handling it makes the server panic.
    Poison,
    /// An acknowledgement of a delivery that had been given up.
    LateAcknowledgement,
    /// A connection that was closed since all that it had in flight had been given up.
    StuckConsumer,
    /// A publish refused for a wish that can't be.
    BadWish,
    /// A publish refused: another message was published under its key.
    KeyConflict,
    /// A publish refused: its publisher, or all, have too many keys.
    KeyLimit,
    /// A publish refused: too many messages, or bytes, are to be published later.
    ScheduledLimit,
    /// A publish refused: it is for too late.
    ScheduledDelay,
    /// A publish to `$pull/…` refused: it asks for no number of deliveries, or comes from nobody who gets any.
    BadPull,
    /// Dropped with the consumer group that somebody deleted.
    GroupDeleted,
    /// A lease of a group's delivery that was over before its consumer said anything.
    LeaseOver,
    /// A publish that a plugin dropped.
    PluginDropped,
    /// A publish, a connection or a subscription that a plugin refused, or something that a plugin made for which there was no room.
    PluginRefused,
    /// A publish that a plugin made a dead letter for a human.
    PluginParked,
    /// A delivery that a plugin left out.
    PluginLeftOut,
    /// A dead letter that a plugin could not send again: it stays.
    PluginRepairFailed,
}

const _: () = assert!(size_of::<Effect>() <= 112, "each is moved some times");
