//! What the control thread asks of a shard, and what a shard tells about itself.
//!
//! The way there is a bounded channel per shard, given to [`crate::Handle::attach`]; the way back is a
//! bounded channel inside the request, with room for the one answer. A shard answers with `try_send` and
//! forgets: nobody waiting is no reason for it to wait.

use std::sync::Arc;

use bytestring::ByteString;
use postroad_base::{DeliveryTimes, ShardId};

use crate::clients::{ClientAction, ClientOrder, ClientReport, ClientsQuery};
use crate::groups::{GroupLeft, GroupQuestion, GroupReport, GroupsQuestion};
use crate::letters::{LetterImport, LetterOrder, LettersQuestion};
use crate::pending::{PendingOrder, PendingQuestion};
use crate::plugins::PluginsReport;
use crate::publication::Batch;
use crate::scheduled::{CancelOrder, ScheduledQuestion};
use crate::topics::{FiltersQuery, RetainedQuery, SubscriptionsQuery};
use crate::watching::Watch;

/// What a shard can be asked. Closed: a new need is a new variant.
#[derive(Debug)]
pub enum Request {
    /// Take a turn and say so. The watchdog is fed by the answers `[HA-3]`.
    Ping(flume::Sender<ShardId>),
    /// Give the current figures `[MON-1]`, `[MON-2]`.
    Report(flume::Sender<ShardReport>),
    /// Publish these.
    Publish(Box<Batch>),
    /// Find dead letters.
    Letters(Box<LettersQuestion>),
    /// Do something with one.
    Letter(Box<LetterOrder>),
    /// Keep one from elsewhere.
    ImportLetter(Box<LetterImport>),
    /// Tell what happens, line by line, for as long as somebody listens.
    Watch(Box<Watch>),
    /// Do something with a consumer group that lives there.
    Group(Box<GroupQuestion>),
    /// Who waits for what can be taken of one is gone.
    GroupLeft(Box<GroupLeft>),
    /// Tell of consumer groups.
    Groups(Box<GroupsQuestion>),
    /// Tell of one; `None`: there is none of this name.
    GroupState { name: ByteString, answer: flume::Sender<Option<GroupReport>> },
    /// Find subscriptions.
    Subscriptions(Box<SubscriptionsQuery>),
    /// Find filters, and how many have subscribed to each.
    Filters(Box<FiltersQuery>),
    /// Find retained messages.
    Retained(Box<RetainedQuery>),
    /// Show what waits for a client.
    Pending(Box<PendingQuestion>),
    /// Acknowledge some of it in its place.
    EndPending(Box<PendingOrder>),
    /// Find messages that are to be published later.
    Scheduled(Box<ScheduledQuestion>),
    /// Take one of them back.
    CancelScheduled(Box<CancelOrder>),
    /// Find clients.
    Clients(Box<ClientsQuery>),
    /// Tell of one client, after something was done to it; `None`: nothing is known of it.
    Client { client: ByteString, action: ClientAction, answer: flume::Sender<Option<ClientReport>> },
    /// Change what is known of one.
    ChangeClient(Box<ClientOrder>),
}

/// The figures of one shard. Counters count from the start of the process and never go down.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardReport {
    /// Whose figures these are.
    pub shard: ShardId,
    /// CPU time of the shard's thread, in microseconds.
    pub cpu_micros: u64,
    /// Time by which turns took longer than they should have, in microseconds.
    pub stall_micros: u64,
    /// Turns that took `stall_max` or longer.
    pub stalls: u64,
    /// The longest turn of all, in microseconds.
    pub stall_max_micros: u64,
    /// Turns of the shard's loop.
    pub turns: u64,
    /// Bytes that the shard knows to be held by its sessions, queues and buffers.
    pub memory_bytes: u64,
    /// Open connections.
    pub connections: u64,
    /// Sessions, connected or not.
    pub sessions: u64,
    /// Clients that can be pushed to while they are away.
    pub registrations: u64,
    /// Subscriptions of those sessions.
    pub subscriptions: u64,
    /// Retained messages that live here.
    pub retained: u64,
    /// Bytes of their topics, properties and payloads.
    pub retained_bytes: u64,
    /// Dead letters.
    pub dead_letters: u64,
    /// Bytes of their topics, properties and payloads.
    pub dead_letters_bytes: u64,
    /// Idempotency keys that are kept.
    pub idempotency_keys: u64,
    /// Messages that are to be published later.
    pub scheduled: ScheduledReport,
    /// Consumer groups.
    pub groups: GroupsReport,
    /// Deliveries that wait or are in flight.
    pub queued_messages: u64,
    /// Of them, those in flight.
    pub in_flight: u64,
    /// Deliveries of QoS 1 and 2 by lane.
    pub lanes: LanesReport,
    /// Clients that came back and have not been sent all that had waited.
    pub drains: DrainsReport,
    /// Times that clients asked for deliveries.
    pub pulls: u64,
    /// Messages taken in from publishers.
    pub published: u64,
    /// Messages sent to receivers.
    pub delivered: u64,
    /// Deliveries that receivers acknowledged.
    pub acknowledged: u64,
    /// Deliveries of QoS 1 and 2 that are over: outcome (a metric label) and count.
    pub ended: Vec<(&'static str, u64)>,
    /// How long those took that receivers have.
    pub times: DeliveryTimes,
    /// Messages sent to other shards.
    pub forwarded: u64,
    /// Times that reading stopped for want of credit from another shard.
    pub parked: u64,
    /// Times that accepting paused because the process had no file descriptor left.
    pub accept_paused: u64,
    /// Times that accepting waited for the ramp after the start.
    pub accept_ramped: u64,
    /// The log.
    pub log: LogReport,
    /// What was dropped or refused: reason (a metric label) and count.
    pub counted: Vec<(&'static str, u64)>,
    /// By listener.
    pub interfaces: Vec<InterfaceReport>,
    /// Lua plugins.
    pub plugins: PluginsReport,
}

/// Messages that are to be published later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScheduledReport {
    /// Whose time has not come, or that wait for room.
    pub waiting: u64,
    /// Due, and other shards have not answered.
    pub under_way: u64,
    /// Bytes of them all: topics, properties and payloads.
    pub bytes: u64,
}

impl ShardReport {
    /// All figures 0.
    pub fn new(shard: ShardId) -> Self {
        Self {
            shard,
            cpu_micros: 0,
            stall_micros: 0,
            stalls: 0,
            stall_max_micros: 0,
            turns: 0,
            memory_bytes: 0,
            connections: 0,
            sessions: 0,
            registrations: 0,
            subscriptions: 0,
            retained: 0,
            retained_bytes: 0,
            dead_letters: 0,
            dead_letters_bytes: 0,
            idempotency_keys: 0,
            scheduled: ScheduledReport::default(),
            groups: GroupsReport::default(),
            queued_messages: 0,
            in_flight: 0,
            lanes: LanesReport::default(),
            drains: DrainsReport::default(),
            pulls: 0,
            published: 0,
            delivered: 0,
            acknowledged: 0,
            ended: Vec::new(),
            times: DeliveryTimes::default(),
            forwarded: 0,
            parked: 0,
            accept_paused: 0,
            accept_ramped: 0,
            log: LogReport::default(),
            counted: Vec::new(),
            interfaces: Vec::new(),
            plugins: PluginsReport::default(),
        }
    }
}

/// Deliveries of QoS 1 and 2 by lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LanesReport {
    /// Put in flight, other than drained ones.
    pub realtime: u64,
    /// Put in flight, of what had waited when its client came back.
    pub drained: u64,
    /// Waiting for clients that are realtime.
    pub queued: u64,
    /// Waiting for clients that are away.
    pub offline: u64,
    /// Waiting for clients whose drain has not begun.
    pub awaiting: u64,
    /// Waiting for clients whose drain is under way.
    pub draining: u64,
    /// Put in flight again, by the retry lane: deliveries, and releases of QoS 2.
    pub retried: u64,
    /// Not acknowledged in time: to be sent again on the connection that they were sent on.
    pub overdue: u64,
    /// Deliveries that were sent again on a connection that lives.
    pub resent_live: u64,
    /// Deliveries that were sent again after a reconnect, or after a crash.
    pub resent_reconnect: u64,
    /// For how long the oldest of those four has waited since it was published, in milliseconds, in that order; 0 if none does.
    pub oldest_ms: [u64; 4],
}

/// The consumer groups of a shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupsReport {
    /// How many.
    pub count: u64,
    /// Deliveries of all of them that nobody has.
    pub waiting: u64,
    /// Deliveries of all of them that a consumer has.
    pub leased: u64,
    /// Deliveries given to consumers, each time.
    pub given: u64,
    /// The groups with most deliveries: name, waiting, leased.
    pub largest: Vec<(ByteString, u64, u64)>,
}

/// Clients that came back and have not been sent all that had waited.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainsReport {
    /// Those whose drain has not begun.
    pub awaiting: u64,
    /// Those whose drain is under way.
    pub begun: u64,
}

/// How often something took how long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// For each of [`Self::BOUNDS_MICROS`] how often it took no longer than that, but longer than the one before; last,
    /// how often it took longer than all of them.
    pub counts: [u64; Self::BOUNDS_MICROS.len() + 1],
    /// All of it together, in microseconds.
    pub sum_micros: u64,
}

impl Histogram {
    /// Upper bounds of the buckets, ascending: fine around what disks take for a sync, coarse where it hurts anyway.
    pub const BOUNDS_MICROS: [u64; 15] =
        [100, 200, 300, 400, 600, 800, 1_000, 1_500, 2_000, 3_000, 5_000, 10_000, 30_000, 100_000, 1_000_000];

    /// It took so long.
    pub fn observe(&mut self, micros: u64) {
        let bucket = Self::BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        self.counts[bucket] += 1;
        self.sum_micros += micros;
    }

    /// How often in all.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// The figures of one shard's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogReport {
    /// Commits written.
    pub commits: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Time from the beginning of each commit's write until the shard knew that it is safe.
    pub commit: Histogram,
    /// Bytes of the young generation's segments.
    pub young_bytes: u64,
    /// Bytes of the old generation on disk.
    pub old_bytes: u64,
}

/// The figures of one listener on one shard `[MON-1]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceReport {
    /// The listener's name.
    pub name: Arc<str>,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections open.
    pub open: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Packets received.
    pub received_packets: u64,
    /// Packets sent.
    pub sent_packets: u64,
    /// Errors: reason (a metric label) and count.
    pub errors: Vec<(&'static str, u64)>,
    /// Frames that ended their connection: what was broken (a metric label), and count.
    pub broken_frames: Vec<(&'static str, u64)>,
}

impl InterfaceReport {
    /// All figures 0.
    pub fn new(name: Arc<str>) -> Self {
        Self {
            name,
            accepted: 0,
            open: 0,
            received_bytes: 0,
            sent_bytes: 0,
            received_packets: 0,
            sent_packets: 0,
            errors: Vec::new(),
            broken_frames: Vec::new(),
        }
    }
}
