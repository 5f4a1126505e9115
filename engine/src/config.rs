//! What an operator can set, as plain values. The option table of `postroad` (names, ranges, help) maps
//! onto this struct; here stand the meaning, the unit and the default of each value.
//!
//! A value is *live* (a reload applies it to what happens from then on) or *restart*; see
//! [`Config::restart_differences`].

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use postroad_base::TopicFilter;
pub use postroad_broker::DeliveryMode;
use postroad_broker::RetryPolicy;
use postroad_plugins::Limits;

/// How many shards there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Shards {
    /// One per core that the process may use.
    #[default]
    Auto,
    /// This many; more than cores is allowed (they share cores).
    Count(NonZeroU16),
}

impl Shards {
    /// The number, given the number of cores. Never 0.
    pub fn count(self, cores: usize) -> u16 {
        match self {
            Self::Auto => u16::try_from(cores.max(1)).unwrap_or(u16::MAX),
            Self::Count(count) => count.get(),
        }
    }
}

/// What "safe" means before something is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Written to the log and synced to the disk: survives a power cut.
    #[default]
    Fsync,
    /// Written to the log, not synced: survives the process, not the machine.
    Os,
    /// No log: everything is gone with the process.
    Memory,
}

/// What a listener speaks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum ListenerProtocol {
    /// MQTT 3.1, 3.1.1 and 5 over TCP.
    #[default]
    Mqtt,
    /// Frames of an operator's own over TCP.
    Frames {
        /// What reads and writes them.
        codec: String,
    },
}

/// One address that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its name in logs, metrics and `ports.json`. Unique.
    pub name: String,
    /// Where it listens; port 0 lets the kernel pick one, the same for all shards.
    pub address: SocketAddr,
    /// What is spoken there.
    pub protocol: ListenerProtocol,
}

/// What happens to a message for a queue that is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueuePolicy {
    /// Tell the publisher (0x97): nothing acknowledged is lost.
    #[default]
    RejectPublisher,
    /// Drop the oldest message of the queue that is not in flight, counted as overflow.
    DropOldest,
    /// Refuse the new one for this queue, counted as overflow.
    RejectNew,
    /// As `DropOldest`, but it becomes a dead letter.
    DeadLetterOldest,
    /// All that is not in flight is dropped, the new one too, and one message tells the device to fetch its state anew.
    FullSync,
}

/// Whether deliveries leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Push {
    /// They do.
    #[default]
    On,
    /// They wait, stored; publishers are answered as ever. QoS 0 is dropped.
    Off,
}

/// What happens to a directed push to a client that nobody has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UnknownClient {
    /// An error to the publisher.
    #[default]
    Reject,
    /// The client is registered by it, and gets it once it comes.
    Queue,
}

/// How what had waited for clients leaves when they come back. All live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drain {
    /// Deliveries per second, all shards together; each shard has its part. 0: no limit.
    pub per_second: u32,
    /// Deliveries per second of one shard. 0: no limit but its part.
    pub shard_per_second: u32,
    /// The drain of a client begins after a time below this one, another one at each return. Zero: at once.
    pub jitter: Duration,
}

impl Drain {
    /// What one of so many shards may send per second; 0: no limit.
    pub(crate) fn rate_of_shard(&self, shards: usize) -> u32 {
        let part = part_of(self.per_second, shards);
        [part, self.shard_per_second].into_iter().filter(|rate| *rate > 0).min().unwrap_or(0)
    }
}

/// The part of a rate that one of so many shards has.
pub(crate) fn part_of(per_second: u32, shards: usize) -> u32 {
    per_second.div_ceil(u32::try_from(shards).unwrap_or(u32::MAX).max(1))
}

/// Lua plugins: where they come from, what a script may take, and how a new version is watched. All live: what limits a script
/// holds from the next reload of the plugins on, which a change of these values brings about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plugins {
    /// The folder. `None`: no plugins.
    pub dir: Option<PathBuf>,
    /// Whether the folder is looked at, and read again when it has changed.
    pub watch: Watch,
    /// What scripts may take.
    pub limits: Limits,
    /// Of a hundred calls so many may fail during the probation; 0: none may.
    pub error_budget: u8,
    /// Calls before which that is not judged.
    pub error_budget_calls: u64,
    /// For how long after a commit the error budget counts. Zero: never.
    pub probation: Duration,
    /// Time for all shards to make ready for a generation.
    pub reload_timeout: Duration,
    /// Attempts that are remembered, with their scripts.
    pub history_max: usize,
}

/// Whether something is looked at again and again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Watch {
    /// It is.
    On,
    /// Only when it is asked for.
    #[default]
    Off,
}

/// What a client gets when it comes back for the first time after a start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RestartDelivery {
    /// What waits for it once the scheduler has come by.
    #[default]
    Scheduled,
    /// All that waits for it, as at any return.
    Pull,
}

/// How a crowd that comes back after a start is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart {
    /// Restart. Connections that one shard accepts in the first second; in each that follows twice as many. 0: no limit.
    pub accept_per_second: u32,
    /// Live.
    pub delivery: RestartDelivery,
    /// Live. Clients of one shard whose first drain begins per second, if that is scheduled. 0: no limit.
    pub sessions_per_second: u32,
}

/// Clients that can be addressed while they are away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registrations {
    /// Clients at most, all shards together.
    pub clients_max: usize,
    /// How long one that a connection or a push made outlives the last visit of its client; zero: for ever.
    pub idle_max: Duration,
    /// What happens to a push to one that is not registered.
    pub unknown_client: UnknownClient,
}

/// Limits of the MQTT protocol. All live: they hold for connections made after the change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mqtt {
    /// Largest packet taken, in bytes, with its header. v5 clients are told.
    pub packet_bytes_max: u32,
    /// QoS 1 and 2 publishes of a client that may be unanswered at once.
    pub receive_maximum: NonZeroU16,
    /// QoS 1 and 2 deliveries in flight to one client at most, whatever it offers.
    pub in_flight_max: NonZeroU16,
    /// Highest topic alias that a client may use; 0: none.
    pub topic_alias_maximum: u16,
    /// Topic aliases that the server uses towards a client that allows them, at most.
    pub topic_alias_outbound_max: u16,
    /// Longest keep alive granted, in seconds; 0: no limit. v5 clients that ask for more, or for none, are told this one.
    pub keep_alive_max_seconds: u16,
    /// Time from accept to a complete CONNECT.
    pub connect_timeout: Duration,
    /// Longest time that a session outlives its connection, in seconds; `u32::MAX`: for ever is allowed.
    pub session_expiry_max_seconds: u32,
    /// Subscriptions of one session at most.
    pub subscriptions_max: usize,
    /// Levels of a topic name or filter at most.
    pub topic_levels_max: NonZeroU16,
}

/// Limits of the queue that a session has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Messages at most.
    pub messages_max: usize,
    /// Bytes at most (topic, properties and payload of each message).
    pub bytes_max: usize,
    /// What happens beyond.
    pub policy: QueuePolicy,
}

/// When what is not acknowledged is sent again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Resend {
    /// On the connection that it was sent on, if its protocol lets it; and after a reconnect.
    #[default]
    Live,
    /// After a reconnect only.
    Reconnect,
}

/// When a delivery that is not acknowledged is sent again, and when it is given up. All live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// How often it is sent at most; 0: without limit.
    pub max_attempts: u32,
    /// How long its client may be here with it, from its first send on; zero: for ever.
    pub max_age: Duration,
    /// Whether it is sent again while its connection lives.
    pub resend: Resend,
    /// So many such resends follow at once when the acknowledgement is late.
    pub immediate: u32,
    /// How long the one after those waits besides; each that follows twice as long …
    pub backoff_min: Duration,
    /// … up to this.
    pub backoff_max: Duration,
    /// For how long an acknowledgement is waited for, however fast the client has been …
    pub ack_timeout_min: Duration,
    /// … and however slow.
    pub ack_timeout_max: Duration,
    /// Such resends per second, all shards together; each shard has its part. 0: no limit.
    pub per_second: u32,
}

/// What holds instead for the messages of some topics; `None`: as for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryTopic {
    /// Which topics.
    pub filter: TopicFilter,
    /// As [`Retry::max_attempts`].
    pub max_attempts: Option<u32>,
    /// As [`Retry::max_age`].
    pub max_age: Option<Duration>,
    /// As [`Retry::immediate`].
    pub immediate: Option<u32>,
    /// As [`Retry::backoff_min`].
    pub backoff_min: Option<Duration>,
    /// As [`Retry::backoff_max`].
    pub backoff_max: Option<Duration>,
}

impl Retry {
    /// As the broker has it.
    pub(crate) fn policy(&self) -> RetryPolicy {
        RetryPolicy {
            attempts_max: self.max_attempts,
            age_max_ms: millis(self.max_age),
            immediate: self.immediate,
            backoff_min_ms: millis(self.backoff_min),
            backoff_max_ms: millis(self.backoff_max),
        }
    }

    /// What holds for these topics.
    pub(crate) fn policy_of(&self, topic: &RetryTopic) -> RetryPolicy {
        let retry = Self {
            max_attempts: topic.max_attempts.unwrap_or(self.max_attempts),
            max_age: topic.max_age.unwrap_or(self.max_age),
            immediate: topic.immediate.unwrap_or(self.immediate),
            backoff_min: topic.backoff_min.unwrap_or(self.backoff_min),
            backoff_max: topic.backoff_max.unwrap_or(self.backoff_max),
            ..*self
        };
        retry.policy()
    }
}

/// In milliseconds.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Deliveries that nobody has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeadLetters {
    /// Letters of all shards together at most; 0: none are kept. Above that the oldest go.
    pub max: usize,
    /// Their bytes (topic, properties and payload) at most, likewise.
    pub bytes_max: usize,
    /// How long one is kept; zero: for ever.
    pub age_max: Duration,
    /// A message that has been requeued so often and dies again waits for a human.
    pub requeues_max: u32,
}

/// Publishes under idempotency keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Idempotency {
    /// How long a key is kept.
    pub window: Duration,
    /// Keys of one publisher on one shard at most. Above that its publishes under new keys are refused.
    pub keys_max: usize,
    /// Keys of all publishers on all shards at most; each shard takes its part.
    pub total_max: usize,
}

/// Messages that are to be published later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheduled {
    /// On all shards together at most; above that they are refused.
    pub max: usize,
    /// Their bytes (topic, properties and payload) at most, likewise.
    pub bytes_max: usize,
    /// How much later.
    pub delay_max: Duration,
    /// How many of those that are due are published per second by all shards together; 0: no limit.
    pub per_second: u32,
}

impl Scheduled {
    /// What one of so many shards may publish per second; 0: no limit.
    pub(crate) fn rate_of_shard(&self, shards: usize) -> u32 {
        self.per_second.div_ceil(u32::try_from(shards).unwrap_or(u32::MAX).max(1))
    }
}

/// Consumer groups: what applications take through the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Groups {
    /// Groups that live on one shard at most.
    pub max: usize,
    /// Deliveries of one group that are leased, or were and are to be given again, at most; no more than 32,767.
    pub leases_max: u16,
    /// Consumers that wait for deliveries of one group at most.
    pub waiting_max: usize,
    /// Time before a refused delivery is given again; twice as long each further time.
    pub delay: Duration,
    /// It is never longer than this.
    pub delay_max: Duration,
}

impl Default for Groups {
    fn default() -> Self {
        Self {
            max: 1_000,
            leases_max: 10_000,
            waiting_max: 1_000,
            delay: Duration::from_secs(1),
            delay_max: Duration::from_secs(300),
        }
    }
}

/// The young generation of the log (DESIGN 4). All restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Log {
    /// Bytes of segments kept per shard before the oldest is retired.
    pub young_bytes: u64,
    /// Age of a record at which its segment is retired.
    pub young_age: Duration,
    /// Size of one segment file.
    pub segment_bytes: u64,
}

/// Everything that an operator can set.
#[derive(Clone, Debug)]
pub struct Config {
    /// Restart. Default: one per core.
    pub shards: Shards,
    /// Restart. Default: `Fsync`.
    pub durability: Durability,
    /// Restart. Where log, sessions and `ports.json` live.
    pub data_dir: PathBuf,
    /// Restart. Where clients connect.
    pub listeners: Vec<Listener>,
    /// Fixed when the data directory is made: units of placement, at least as many as shards.
    pub partitions: NonZeroU16,
    /// Live.
    pub mqtt: Mqtt,
    /// Connections of all shards together at most; 0: what the file limit allows. Live.
    pub connections_max: usize,
    /// Live. How long a busy shard lets wake-ups coalesce; zero: it is woken by each packet. See `crate::coalesce`.
    pub coalesce: Duration,
    /// Live. Unsent output of one connection, in bytes, above which nothing more is delivered to it.
    pub output_bytes_max: usize,
    /// Live, for connections made after the change. Bytes that the kernel holds unsent for one connection; what is
    /// beyond waits with us, where it can still expire or be dropped by its queue's policy.
    pub not_sent_bytes_max: u32,
    /// Live, for connections made after the change. Time for which sent bytes may stay unacknowledged by the peer's
    /// TCP, or its receive window shut, before the connection counts as dead; a client with keep alive 0 is probed
    /// after half of it. Zero: as long as the kernel thinks fit, a quarter of an hour and more, and no probes.
    pub stall_timeout: Duration,
    /// Live. Limits of each session's queue.
    pub queue: Queue,
    /// Live. Who can be pushed to.
    pub registrations: Registrations,
    /// Live. Retained messages of all shards together at most; 0: retaining is not available. Each shard has its part.
    pub retained_max: usize,
    /// Live. Their bytes (topic, properties and payload) at most, likewise.
    pub retained_bytes_max: usize,
    /// Live. When a delivery that is not acknowledged is sent again, and when it is given up.
    pub retry: Retry,
    /// Live. What holds instead for some topics; the first entry whose filter matches counts.
    pub retry_topics: Vec<RetryTopic>,
    /// Live. What is kept of deliveries that nobody has got.
    pub dead_letters: DeadLetters,
    /// Live. Publishes under idempotency keys.
    pub idempotency: Idempotency,
    /// Live. Messages that are to be published later.
    pub scheduled: Scheduled,
    /// Live. Consumer groups.
    pub groups: Groups,
    /// Restart.
    pub log: Log,
    /// Live. Free bytes of the data directory's disk below which publishes are refused.
    pub storage_free_bytes_min: u64,
    /// Live. Time between two publications of the `$SYS` topics; zero: none.
    pub sys_interval: Duration,
    /// Live. Whether a client without user name and password is let in.
    pub allow_anonymous: bool,
    /// Live. User names, hashes, groups, registrations (`postroad passwd` writes it). `None`: no user is known.
    pub auth_file: Option<PathBuf>,
    /// Live. Access rules. `None`: everything but the reserved roots.
    pub acl_file: Option<PathBuf>,
    /// Live. How long a client is kept away after the second crash that names it.
    pub crash_bar_time: Duration,
    /// Restart. Time that a graceful stop may take.
    pub drain_timeout: Duration,
    /// Restart. A turn of a shard that takes this long, or this long without one, is a stall: logged and counted.
    pub stall_max: Duration,
    /// After a start.
    pub restart: Restart,
    /// Live. The offline drain.
    pub drain: Drain,
    /// Live. Who says when a delivery leaves, where neither the client nor its entry in `auth.file` does.
    pub delivery_mode: DeliveryMode,
    /// Whether deliveries leave. Live.
    pub push: Push,
    /// Live. Of so many in a million messages each step is kept, asked for or not.
    pub trace_sample: u32,
    /// Live. Lua plugins.
    pub plugins: Plugins,
}

impl Default for Mqtt {
    fn default() -> Self {
        Self {
            packet_bytes_max: 1 << 20,
            receive_maximum: NON_ZERO_1024,
            in_flight_max: NON_ZERO_1024,
            topic_alias_maximum: 32,
            topic_alias_outbound_max: 32,
            keep_alive_max_seconds: 0,
            connect_timeout: Duration::from_secs(10),
            session_expiry_max_seconds: u32::MAX,
            subscriptions_max: 10_000,
            topic_levels_max: NON_ZERO_128,
        }
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self { messages_max: 100_000, bytes_max: 64 << 20, policy: QueuePolicy::default() }
    }
}

impl Default for Registrations {
    fn default() -> Self {
        Self {
            clients_max: 1_000_000,
            idle_max: Duration::from_secs(180 * 86_400),
            unknown_client: UnknownClient::default(),
        }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            max_attempts: 100,
            max_age: Duration::from_secs(86_400),
            resend: Resend::default(),
            immediate: 2,
            backoff_min: Duration::from_secs(10),
            backoff_max: Duration::from_secs(300),
            ack_timeout_min: Duration::from_secs(5),
            ack_timeout_max: Duration::from_secs(60),
            per_second: 0,
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { young_bytes: 64 << 20, young_age: Duration::from_secs(30), segment_bytes: 8 << 20 }
    }
}

impl Default for Restart {
    fn default() -> Self {
        Self { accept_per_second: 20_000, delivery: RestartDelivery::default(), sessions_per_second: 2_000 }
    }
}

impl Default for Plugins {
    fn default() -> Self {
        Self {
            dir: None,
            watch: Watch::default(),
            limits: Limits::default(),
            error_budget: 5,
            error_budget_calls: 100,
            probation: Duration::from_secs(60),
            reload_timeout: Duration::from_secs(10),
            history_max: 100,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            shards: Shards::default(),
            durability: Durability::default(),
            data_dir: PathBuf::from("postroad-data"),
            listeners: vec![Listener {
                name: "mqtt".to_owned(),
                address: SocketAddr::from((Ipv4Addr::LOCALHOST, 1883)),
                protocol: ListenerProtocol::Mqtt,
            }],
            partitions: NON_ZERO_256,
            mqtt: Mqtt::default(),
            connections_max: 0,
            coalesce: Duration::from_micros(100),
            output_bytes_max: 256 << 10,
            not_sent_bytes_max: 16 << 10,
            stall_timeout: Duration::from_secs(120),
            queue: Queue::default(),
            registrations: Registrations::default(),
            retained_max: 100_000,
            retained_bytes_max: 1 << 30,
            retry: Retry::default(),
            retry_topics: Vec::new(),
            dead_letters: DeadLetters {
                max: 1_000_000,
                bytes_max: 1 << 30,
                age_max: Duration::from_secs(30 * 86_400),
                requeues_max: 5,
            },
            idempotency: Idempotency { window: Duration::from_secs(600), keys_max: 100_000, total_max: 2_000_000 },
            scheduled: Scheduled {
                max: 1_000_000,
                bytes_max: 1 << 30,
                delay_max: Duration::from_secs(365 * 86_400),
                per_second: 0,
            },
            groups: Groups::default(),
            log: Log::default(),
            storage_free_bytes_min: 256 << 20,
            sys_interval: Duration::from_secs(10),
            allow_anonymous: true,
            auth_file: None,
            acl_file: None,
            crash_bar_time: Duration::from_secs(3600),
            drain_timeout: Duration::from_secs(10),
            stall_max: Duration::from_secs(1),
            restart: Restart::default(),
            drain: Drain::default(),
            delivery_mode: DeliveryMode::default(),
            push: Push::default(),
            trace_sample: 0,
            plugins: Plugins::default(),
        }
    }
}

const NON_ZERO_1024: NonZeroU16 = NonZeroU16::new(1024).expect("1024 is not 0");
const NON_ZERO_128: NonZeroU16 = NonZeroU16::new(128).expect("128 is not 0");
const NON_ZERO_256: NonZeroU16 = NonZeroU16::new(256).expect("256 is not 0");

impl Config {
    /// This configuration with the live values of `new`.
    pub(crate) fn with_live_of(&self, new: Self) -> Self {
        let old = self.clone();
        Self {
            shards: old.shards,
            durability: old.durability,
            data_dir: old.data_dir,
            listeners: old.listeners,
            partitions: old.partitions,
            log: old.log,
            drain_timeout: old.drain_timeout,
            stall_max: old.stall_max,
            restart: Restart { accept_per_second: old.restart.accept_per_second, ..new.restart },
            ..new
        }
    }

    /// The names (as in the option table) of the restart values that differ in `other`: a reload reports
    /// them and leaves them as they are.
    pub fn restart_differences(&self, other: &Self) -> Vec<&'static str> {
        let checks = [
            ("shards", self.shards == other.shards),
            ("durability", self.durability == other.durability),
            ("data_dir", self.data_dir == other.data_dir),
            ("listener", self.listeners == other.listeners),
            ("partitions", self.partitions == other.partitions),
            ("log", self.log == other.log),
            ("drain_timeout", self.drain_timeout == other.drain_timeout),
            ("stall_max", self.stall_max == other.stall_max),
            ("restart.accept_per_second", self.restart.accept_per_second == other.restart.accept_per_second),
        ];
        checks.iter().filter(|(_, same)| !same).map(|(name, _)| *name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_restart_values_are_reported() {
        let old = Config::default();
        let mut new = old.clone();
        new.mqtt.packet_bytes_max = 5;
        new.allow_anonymous = false;
        assert!(old.restart_differences(&new).is_empty());
        new.durability = Durability::Memory;
        new.listeners.clear();
        assert_eq!(old.restart_differences(&new), ["durability", "listener"]);
    }

    #[test]
    fn a_shard_drains_its_part_and_no_more_than_a_shard_may() {
        let rate =
            |per_second, shard_per_second| Drain { per_second, shard_per_second, ..Drain::default() }.rate_of_shard(4);
        assert_eq!([rate(0, 0), rate(0, 9), rate(100, 0), rate(100, 9), rate(20, 9)], [0, 9, 25, 9, 5]);
        assert_eq!(rate(1, 0), 1, "no limit would be the opposite");
    }

    /// The defaults of the broker stand in the broker; these are theirs.
    #[test]
    fn retry_is_by_default_as_the_broker_has_it() {
        let retry = Retry::default();
        assert_eq!(retry.policy(), RetryPolicy::DEFAULT);
        let filter = TopicFilter::new("a/#").expect("a filter");
        let mut topic = RetryTopic {
            filter,
            max_attempts: None,
            max_age: None,
            immediate: None,
            backoff_min: None,
            backoff_max: None,
        };
        assert_eq!(retry.policy_of(&topic), RetryPolicy::DEFAULT);
        (topic.max_attempts, topic.backoff_min) = (Some(3), Some(Duration::from_millis(7)));
        let policy = retry.policy_of(&topic);
        assert_eq!((policy.attempts_max, policy.backoff_min_ms, policy.immediate), (3, 7, 2));
    }

    #[test]
    fn auto_is_one_shard_per_core_and_never_none() {
        assert_eq!([0, 1, 8].map(|cores| Shards::Auto.count(cores)), [1, 1, 8]);
    }
}
