//! What the log stores. The state of a shard is a fold over these records; recovery replays them, and a
//! snapshot of the state is again a list of them.
//!
//! A record's `Sequence` is its position in the shard's log, given at the append, and stands beside the
//! record, not in it. The byte format is `storage`'s affair (`docs/storage-format.md`).

use std::sync::Arc;

use bytestring::ByteString;
use smallvec::SmallVec;

use crate::{
    ClientId, KeyedPublish, Message, MessageId, Priority, Qos, QueueId, Sequence, Tag, TopicFilter, TopicName,
    WallMillis, Will,
};

/// How long a session outlives its connection, in seconds. `u32::MAX` is for ever (MQTT 5, 3.1.2.11.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionExpiry(pub u32);

impl SessionExpiry {
    /// The session never ends by itself.
    pub const NEVER: Self = Self(u32::MAX);

    /// Whether the session outlives its connection at all.
    pub fn outlives_connection(self) -> bool {
        self.0 > 0
    }
}

/// Which retained messages a new subscription gets (MQTT 5, section 3.8.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum RetainHandling {
    /// All that match, at each SUBSCRIBE.
    #[default]
    Always = 0,
    /// Only if the subscription did not exist before.
    IfNew = 1,
    /// None.
    Never = 2,
}

/// Number that a subscriber attaches to a subscription and gets back with each message (1 to 268,435,455).
pub type SubscriptionIdentifier = std::num::NonZeroU32;

/// Options of one subscription (MQTT 5, section 3.8.3.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionOptions {
    /// Highest level at which messages are delivered.
    pub qos: Qos,
    /// Don't deliver what this same session published.
    pub no_local: bool,
    /// Keep the retain flag as the publisher set it.
    pub retain_as_published: bool,
    /// What to do about retained messages at the time of subscribing.
    pub retain_handling: RetainHandling,
    /// Number that comes back with each message.
    pub identifier: Option<SubscriptionIdentifier>,
}

/// Whose a queue is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum QueueOwner {
    /// An MQTT session that outlives its connection.
    Session(ClientId),
    /// A client's registration: directed pushes wait here; a clean start does not end it (DESIGN 5).
    Registration(ClientId),
    /// A share group: the name and the filter without its `$share/<name>/`.
    Share(ByteString, ByteString),
    /// The dead letters of a shard: one queue, in the lowest of its partitions. A change of the number of shards may bring
    /// several together.
    Dead,
    /// The messages of a shard that are not due yet: one queue, as for the dead letters.
    Scheduled,
    /// A consumer group: its subscriptions are those of the queue.
    Group(ByteString),
}

/// What made a registration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RegisteredBy {
    /// The first authenticated connection of its client.
    #[default]
    Connection = 0,
    /// An entry of `auth.file`; it goes when the entry goes.
    File = 1,
    /// A push to a client that nobody had seen, where `registrations.unknown_client = "queue"`.
    Push = 2,
    /// As `Connection`, of a client whose name the server made up: it goes with the session.
    Assigned = 3,
    /// A caller of the API; it stays until one says otherwise, or `auth.file` names it.
    Api = 4,
}

/// One queue that a message goes to, with what was decided about it at the commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// Whose queue.
    pub queue: QueueId,
    /// The lower of the message's level and the granted one.
    pub qos: Qos,
    /// The retain flag that the recipient will see.
    pub retain: bool,
    /// The message was retained, and is given to a new subscription: the others of this shard may not have got it.
    pub given: bool,
    /// Identifiers of all matching subscriptions, in ascending order.
    pub identifiers: SmallVec<[SubscriptionIdentifier; 1]>,
    /// The share group (`$share/<name>/<filter>`) by which it came: if the session ends, another member gets it.
    pub group: Option<Arc<TopicFilter>>,
}

/// Why a delivery is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Outcome {
    /// The receiver acknowledged it.
    Acknowledged = 0,
    /// Its time was over before it could be sent.
    Expired = 1,
    /// The queue's policy dropped it for want of room.
    Overflow = 2,
    /// The receiver refused it with a reason code of 0x80 or above.
    Refused = 3,
    /// It is larger than what the receiver takes.
    TooLarge = 4,
    /// It moved to another queue, which has committed it.
    Moved = 5,
    /// Handling it made the server panic twice: it was set aside, whole, in `quarantine/`.
    Poison = 6,
    /// The receiver has not acknowledged it for `retry.max_age` of its time here.
    Unacknowledged = 7,
    /// It has been sent `retry.max_attempts` times.
    Attempts = 8,
    /// A dead letter that somebody sent again.
    Requeued = 9,
    /// A dead letter that somebody dropped.
    Dropped = 10,
    /// A dead letter that was too old, or one too many.
    Retention = 11,
    /// A newer message of the same collapse key came before it could be sent.
    Collapsed = 12,
    /// A message that was to be published later, and that somebody took back before.
    Cancelled = 13,
    /// No delivery: a plugin kept what was published for a human.
    Quarantined = 14,
}

impl Outcome {
    /// Every one, in the order of their numbers.
    pub const ALL: [Self; 15] = [
        Self::Acknowledged,
        Self::Expired,
        Self::Overflow,
        Self::Refused,
        Self::TooLarge,
        Self::Moved,
        Self::Poison,
        Self::Unacknowledged,
        Self::Attempts,
        Self::Requeued,
        Self::Dropped,
        Self::Retention,
        Self::Collapsed,
        Self::Cancelled,
        Self::Quarantined,
    ];

    /// The one with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The one of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.name() == name)
    }

    /// The value of the metric label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Acknowledged => "acknowledged",
            Self::Expired => "expired",
            Self::Overflow => "overflow",
            Self::Refused => "refused",
            Self::TooLarge => "too_large",
            Self::Moved => "moved",
            Self::Poison => "poison",
            Self::Unacknowledged => "unacknowledged",
            Self::Attempts => "attempts",
            Self::Requeued => "requeued",
            Self::Dropped => "dropped",
            Self::Retention => "retention",
            Self::Collapsed => "collapsed",
            Self::Cancelled => "cancelled",
            Self::Quarantined => "quarantined",
        }
    }
}

impl Record {
    /// What has to be known of a delivery of this message before it is read, if there is something. Of a dead letter nothing is:
    /// it is not sent.
    pub fn noted(queue: QueueId, sequence: Sequence, message: &Message) -> Option<Self> {
        let wishes = message.wishes().filter(|_| message.death().is_none())?;
        let (is_high, collapse_key) = (wishes.priority == Priority::High, wishes.collapse_key.clone());
        let bytes = u32::try_from(message.size()).unwrap_or(u32::MAX);
        (is_high || collapse_key.is_some()).then_some(Self::Noted { queue, sequence, bytes, is_high, collapse_key })
    }
}

/// One entry of a shard's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A queue exists from here on. For a session: it outlives its connection; `expiry` says how long.
    QueueBegin { queue: QueueId, owner: QueueOwner, expiry: SessionExpiry, at: WallMillis },
    /// The session of this queue has a connection (again), with this expiry.
    Connected { queue: QueueId, expiry: SessionExpiry, at: WallMillis },
    /// The session's connection ended: its expiry runs from `at`.
    Disconnected { queue: QueueId, expiry: SessionExpiry, at: WallMillis },
    /// The queue and everything in it is gone.
    QueueEnd { queue: QueueId },
    /// The session's will, or that it has none any more.
    WillSet { queue: QueueId, will: Option<Box<Will>> },
    /// A subscription was made or its options were replaced.
    Subscribe { queue: QueueId, filter: TopicFilter, options: SubscriptionOptions },
    /// A subscription ended.
    Unsubscribe { queue: QueueId, filter: TopicFilter },
    /// A message for these queues of this shard.
    Publish { message: Arc<Message>, recipients: Vec<Recipient> },
    /// The delivery of the message at `sequence` to `queue` is over.
    Settle { queue: QueueId, sequence: Sequence, outcome: Outcome },
    /// The delivery (QoS 2) goes out under this packet identifier; committed before it leaves.
    Tagged { queue: QueueId, sequence: Sequence, tag: Tag },
    /// The receiver has the message (QoS 2, PUBREC): from now on only the release is repeated.
    Received { queue: QueueId, sequence: Sequence },
    /// A QoS 2 message came in under the peer's tag and was given this id; repeats are answered, not routed.
    InboundBegin { queue: QueueId, tag: Tag, id: MessageId },
    /// The peer released its tag (PUBREL).
    InboundEnd { queue: QueueId, tag: Tag },
    /// The retained message of its topic.
    Retain { message: Arc<Message> },
    /// The topic has no retained message any more.
    RetainClear { topic: TopicName },
    /// A client is registered: it can be addressed by `$client/`, `$user/` and `$group/` while it is away. What waits for
    /// it has a queue of its own, which begins with the first push.
    /// `seen` says when it was here last, to a day.
    Register { client: ClientId, by: RegisteredBy, seen: WallMillis, user: Option<ByteString>, groups: Vec<ByteString> },
    /// The registration is gone.
    Unregister { client: ClientId },
    /// Snapshots only: everything of `queue` up to and with `upto` is settled; what is still pending below comes as `Publish` records.
    Watermark { queue: QueueId, upto: Sequence },
    /// Snapshots only: the next free ordinal of the partition of this queue id.
    OrdinalsUsed { next: QueueId },
    /// The retained messages that match this subscription are to be given to the session.
    RetainedDue { queue: QueueId, filter: TopicFilter },
    /// They have been given.
    RetainedGiven { queue: QueueId, filter: TopicFilter },
    /// `Settle` and `Publish` in one: the delivery at `sequence` to `queue` is over, and what it was goes on as this message
    /// to these queues of this shard.
    Transfer { queue: QueueId, sequence: Sequence, outcome: Outcome, message: Arc<Message>, recipients: Vec<Recipient> },
    /// The delivery has been sent so often, for the last time then. Only from the second time on.
    Attempt { queue: QueueId, sequence: Sequence, attempts: u32, first: WallMillis, last: WallMillis },
    /// The queue has overflowed into the delivery at `sequence`, which stands for all that waits from `from` on up to it: that is over.
    /// So many have been dropped since such a delivery was acknowledged, the first of them at `since`.
    FullSync { queue: QueueId, sequence: Sequence, from: Sequence, dropped: u64, since: WallMillis },
    /// The dead letter is for a human, with this note; without one: no more.
    Park { queue: QueueId, sequence: Sequence, at: WallMillis, note: Option<ByteString> },
    /// A publish under an idempotency key, before anything of it leaves the shard; again once it is known what its publisher
    /// is told.
    Key { publish: Box<KeyedPublish> },
    /// Snapshots only: what has to be known of a stored delivery before it is read. Of those that have one of both.
    Noted { queue: QueueId, sequence: Sequence, bytes: u32, is_high: bool, collapse_key: Option<ByteString> },
}
