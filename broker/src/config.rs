//! What bounds a shard. Every bound is an option of the server's configuration; the defaults stand here.

use postroad_base::{Placement, SessionExpiry, ShardId};

use crate::retry::RetryPolicy;

/// What happens to a message whose recipient's queue is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueuePolicy {
    /// The publisher is told (0x97) and nobody gets it: nothing acknowledged is ever lost.
    #[default]
    RejectPublisher,
    /// The oldest message that is not in flight makes room.
    DropOldest,
    /// The new message is not queued for that recipient.
    DropNew,
    /// As `DropOldest`, but what makes room becomes a dead letter.
    DeadLetterOldest,
    /// All that is not in flight is dropped, the new message too, and one message tells the device to fetch its state anew.
    FullSync,
}

impl QueuePolicy {
    /// The oldest make room.
    pub(crate) fn is_oldest_first(self) -> bool {
        matches!(self, Self::DropOldest | Self::DeadLetterOldest)
    }

    /// A full queue makes room by itself: who publishes, and who chooses a member of a share group, need not look.
    pub(crate) fn makes_room(self) -> bool {
        matches!(self, Self::DropOldest | Self::DeadLetterOldest | Self::FullSync)
    }
}

/// What happens to a push to a client that nobody has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownClient {
    /// An error to the publisher (0x90), so that a typing error does not fill the disk.
    #[default]
    Reject,
    /// The client is registered by it, and gets it once it comes.
    Queue,
}

/// Whether deliveries leave. A switch to look at storing and pushing apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Push {
    /// They do.
    #[default]
    On,
    /// Each connection is as if it took no more: what is to be kept is stored and answered for, and waits. QoS 0 is dropped.
    Off,
}

/// Who says when a delivery leaves `[REL-1]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeliveryMode {
    /// The server, as soon as the client takes it.
    #[default]
    Push,
    /// The client, by asking for so many.
    Pull,
}

impl DeliveryMode {
    /// The one of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "push" => Some(Self::Push),
            "pull" => Some(Self::Pull),
            _ => None,
        }
    }

    /// As options, properties and `auth.file` call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Push => "push",
            Self::Pull => "pull",
        }
    }
}

/// What a client gets of its backlog when it comes back for the first time after a start `[PER-7]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RestartDelivery {
    /// Nothing until the scheduler has come by, which takes so many clients per second, in order of return.
    #[default]
    Scheduled,
    /// All of it, as at any return.
    Pull,
}

/// When what is not acknowledged is sent again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resend {
    /// On the connection that it was sent on, if that lets it; and after a reconnect.
    #[default]
    Live,
    /// After a reconnect only.
    Reconnect,
}

/// Configuration of one shard's broker.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which shard this is.
    pub shard: ShardId,
    /// Where names live.
    pub placement: Placement,
    /// Whether state goes through the log. `false`: no record, nothing waits (`durability = "memory"`).
    pub durable: bool,
    /// A random number drawn once per start of the process, for message ids.
    pub boot: u32,
    /// Publishes of one connection that are taken in and not answered: above that it is parked.
    pub answers_max: usize,
    /// Retained topics that are looked at in one turn for a new subscription, hence given at once at most.
    pub retained_portion_max: usize,
    /// Sessions on this shard.
    pub sessions_max: usize,
    /// Late deliveries that are sent again in one tick.
    pub resent_per_tick: usize,
    /// Publishes that may be under way to one other shard.
    pub mesh_credits: u32,
    /// QoS 2 publishes from the oldest one on whose end is not committed, be it for want of another shard's answer: above that
    /// all shards are told of the oldest, to remember these instead of all newer ones.
    pub routing_max: usize,
    /// Publishes of clients that are gone (wills, QoS 0 of a parked connection) that wait for credit.
    pub deferred_max: usize,
    /// How long a SUBSCRIBE waits for the other shards, in milliseconds.
    pub subscribe_timeout_ms: u64,
    /// Messages of one portion read from the old generation.
    pub backlog_messages_max: usize,
    /// Bytes of one such portion.
    pub backlog_bytes_max: usize,
    /// Pieces of state and deliveries that one step of a retirement puts together; deliveries that one step drops of a queue that
    /// has overflowed.
    pub retired_per_step: usize,
    /// Deliveries that have waited which leave between two ticks by themselves, and again as many by steps, beside as many as
    /// have come to wait meanwhile: more wait for the ticks that follow.
    pub drained_per_tick: usize,
    /// What a reload may change.
    pub limits: Limits,
}

/// The bounds that can be changed while a shard runs. They hold for what comes: nothing that is queued, retained or
/// subscribed already is dropped because a bound has become lower, and an open connection keeps its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Pending deliveries of one session.
    pub queue_messages_max: usize,
    /// Bytes of payload, topic and properties of one session's pending deliveries, in memory and stored.
    pub queue_bytes_max: usize,
    /// What happens above these.
    pub queue_policy: QueuePolicy,
    /// Unacknowledged deliveries of one connection, whatever its receive maximum.
    pub inflight_max: u16,
    /// Retained messages on this shard.
    pub retained_max: usize,
    /// Bytes of their topics, properties and payloads.
    pub retained_bytes_max: usize,
    /// Levels of a topic name or filter (a slash stands between two).
    pub topic_levels_max: usize,
    /// Subscriptions of one session.
    pub subscriptions_max: usize,
    /// Clients registered on this shard.
    pub registrations_max: usize,
    /// How long a registration that a connection or a push made outlives the last visit of its client, in milliseconds; 0:
    /// for ever.
    pub registrations_idle_max_ms: u64,
    /// What happens to a push to a client that nobody has seen.
    pub unknown_client: UnknownClient,
    /// Longest session expiry that is granted; `session` tells the client.
    pub session_expiry_max: SessionExpiry,
    /// When a delivery is sent again, and when it is given up, unless its topic or its publisher says otherwise.
    pub retry: RetryPolicy,
    /// Whether it is sent again while its connection lives.
    pub resend: Resend,
    /// Milliseconds for which an acknowledgement is waited for at least, however fast the client has been.
    pub ack_timeout_min_ms: u64,
    /// … and at most, however slow.
    pub ack_timeout_max_ms: u64,
    /// Resends per second on connections that live; 0: no limit (see `resend`).
    pub resent_per_second: u32,
    /// Dead letters of this shard: above that the oldest go.
    pub letters_max: usize,
    /// Bytes of their payloads, topics and properties.
    pub letters_bytes_max: usize,
    /// Milliseconds that a dead letter is kept; 0: for ever.
    pub letters_age_max_ms: u64,
    /// A message that has been requeued so often and dies again is parked.
    pub requeues_max: u32,
    /// Of so many in a million messages each step is told, asked for or not.
    /// For a moment after a change shards may disagree.
    pub trace_sample: u32,
    /// Milliseconds for which an idempotency key is kept.
    pub keys_window_ms: u64,
    /// Idempotency keys of one publisher on this shard.
    pub keys_max: usize,
    /// Idempotency keys of all publishers on this shard.
    pub keys_total_max: usize,
    /// Messages on this shard that are to be published later.
    pub scheduled_max: usize,
    /// Bytes of their payloads, topics and properties.
    pub scheduled_bytes_max: usize,
    /// How much later a message can be published, in milliseconds.
    pub scheduled_delay_max_ms: u64,
    /// Messages that were put off and are published per second; 0: no limit.
    pub scheduled_per_second: u32,
    /// Consumer groups on this shard.
    pub groups_max: usize,
    /// Deliveries of one group that are leased, or were and are to be given again; at most 32,767.
    pub groups_leases_max: usize,
    /// Consumers that wait for deliveries of one group.
    pub groups_waiting_max: usize,
    /// Milliseconds before a refused delivery is given again; twice as many each further time.
    pub groups_delay_ms: u64,
    /// At most so many.
    pub groups_delay_max_ms: u64,
    /// Whether deliveries leave.
    pub push: Push,
    /// Who says when, where neither the client nor its entry in `auth.file` chooses.
    /// An open connection keeps its own.
    pub delivery_mode: DeliveryMode,
    /// Deliveries per second from the backlogs of clients that came back; 0: no limit (see `drain`).
    pub drained_per_second: u32,
    /// Below this many milliseconds the drain of a client that came back waits; 0: it begins at once.
    /// Whoever waits goes on waiting for as long as was drawn.
    pub drain_jitter_ms: u64,
    /// What a client gets when it comes back for the first time after a start.
    pub restart_delivery: RestartDelivery,
    /// Clients per second whose first drain after a start begins, if that is scheduled; 0: no limit.
    pub restart_sessions_per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            queue_messages_max: 100_000,
            queue_bytes_max: 64 << 20,
            queue_policy: QueuePolicy::default(),
            inflight_max: 1024,
            retained_max: 1_000_000,
            retained_bytes_max: 1 << 30,
            topic_levels_max: 128,
            subscriptions_max: 10_000,
            registrations_max: 1_000_000,
            registrations_idle_max_ms: 180 * 86_400_000,
            unknown_client: UnknownClient::default(),
            session_expiry_max: SessionExpiry::NEVER,
            retry: RetryPolicy::DEFAULT,
            resend: Resend::default(),
            ack_timeout_min_ms: 5_000,
            ack_timeout_max_ms: 60_000,
            resent_per_second: 0,
            letters_max: 1_000_000,
            letters_bytes_max: 1 << 30,
            letters_age_max_ms: 30 * 86_400_000,
            requeues_max: 5,
            trace_sample: 0,
            keys_window_ms: 600_000,
            keys_max: 100_000,
            keys_total_max: 1_000_000,
            scheduled_max: 1_000_000,
            scheduled_bytes_max: 1 << 30,
            scheduled_delay_max_ms: 365 * 86_400_000,
            scheduled_per_second: 0,
            groups_max: 1_000,
            groups_leases_max: 10_000,
            groups_waiting_max: 1_000,
            groups_delay_ms: 1_000,
            groups_delay_max_ms: 300_000,
            push: Push::default(),
            delivery_mode: DeliveryMode::default(),
            drained_per_second: 0,
            drain_jitter_ms: 0,
            restart_delivery: RestartDelivery::default(),
            restart_sessions_per_second: 2_000,
        }
    }
}

impl Limits {
    /// What says when connections are looked at for what they have not acknowledged.
    pub(crate) fn watches(&self) -> (RetryPolicy, Resend, u64, u64) {
        (self.retry, self.resend, self.ack_timeout_min_ms, self.ack_timeout_max_ms)
    }
}

impl Config {
    /// The defaults.
    pub fn new(shard: ShardId, placement: Placement, durable: bool, boot: u32) -> Self {
        Self {
            shard,
            placement,
            durable,
            boot,
            answers_max: 4096,
            retained_portion_max: 128,
            sessions_max: 1_000_000,
            resent_per_tick: 256,
            mesh_credits: 1024,
            routing_max: 16_384,
            deferred_max: 10_000,
            subscribe_timeout_ms: 5_000,
            backlog_messages_max: 256,
            backlog_bytes_max: 1 << 20,
            retired_per_step: 512,
            drained_per_tick: 256,
            limits: Limits::default(),
        }
    }
}
