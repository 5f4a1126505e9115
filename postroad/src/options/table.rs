//! The rows: every option of the server, in the order of the printed configuration.
//!
//! A default is what [`Settings::default`] says: it stands once, in the crate that uses it. `set` gets only
//! values that have passed the row's kind, so its conversions can't fail.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::time::Duration;

use postroad_engine::config::{
    DeliveryMode, Durability, Push, QueuePolicy, Resend, RestartDelivery, Shards, UnknownClient, Watch,
};

use super::kind::{Kind, Value};
use super::{Anonymous, Effect, LogFormat, Settings};

/// One option.
#[derive(Debug)]
pub struct Row {
    /// Its name in the file and for `--set`.
    pub key: &'static str,
    /// Type, unit and range.
    pub kind: Kind,
    /// When a change takes effect.
    pub effect: Effect,
    /// What it does, in whole sentences.
    pub doc: &'static str,
    /// The value in these settings.
    pub get: fn(&Settings) -> Value,
    /// Puts a checked value into these settings.
    pub set: fn(&mut Settings, &Value),
}

impl Row {
    /// The value if nothing is said.
    pub fn default(&self) -> Value {
        (self.get)(&Settings::default())
    }
}

use Effect::{Live, Restart};

const DAY: u64 = 86_400_000;
const TIB: u64 = 1 << 40;

/// A number of things; the field's type bounds it.
macro_rules! count {
    ($key:literal, $effect:expr, $min:expr, $max:expr, $unit:literal, $doc:expr, $($field:ident).+, $type:ty) => {
        Row {
            key: $key,
            kind: Kind::Count { min: $min, max: $max as u64, unit: $unit },
            effect: $effect,
            doc: $doc,
            get: |s| Value::Number(u64::try_from(s.$($field).+).expect("a count fits")),
            set: |s, v| s.$($field).+ = <$type>::try_from(v.number()).expect(CHECKED),
        }
    };
}

/// A number of things that is never 0.
macro_rules! count_from_1 {
    ($key:literal, $effect:expr, $unit:literal, $doc:expr, $($field:ident).+) => {
        Row {
            key: $key,
            kind: Kind::Count { min: 1, max: u16::MAX as u64, unit: $unit },
            effect: $effect,
            doc: $doc,
            get: |s| Value::Number(s.$($field).+.get().into()),
            set: |s, v| s.$($field).+ = non_zero(v),
        }
    };
}

macro_rules! bytes {
    ($key:literal, $effect:expr, $min:expr, $max:expr, $doc:expr, $($field:ident).+, $type:ty) => {
        Row {
            key: $key,
            kind: Kind::Bytes { min: $min, max: $max },
            effect: $effect,
            doc: $doc,
            get: |s| Value::Number(u64::try_from(s.$($field).+).expect("a size fits")),
            set: |s, v| s.$($field).+ = <$type>::try_from(v.number()).expect(CHECKED),
        }
    };
}

macro_rules! time {
    ($key:literal, $effect:expr, $min:expr, $max:expr, $doc:expr, $($field:ident).+) => {
        Row {
            key: $key,
            kind: Kind::Time { min: $min, max: $max, step: 1 },
            effect: $effect,
            doc: $doc,
            get: |s| Value::Number(millis(s.$($field).+)),
            set: |s, v| s.$($field).+ = Duration::from_millis(v.number()),
        }
    };
}

/// A time whose field is a number of milliseconds.
macro_rules! millis {
    ($key:literal, $effect:expr, $min:expr, $max:expr, $doc:expr, $($field:ident).+) => {
        Row {
            key: $key,
            kind: Kind::Time { min: $min, max: $max, step: 1 },
            effect: $effect,
            doc: $doc,
            get: |s| Value::Number(s.$($field).+),
            set: |s, v| s.$($field).+ = v.number(),
        }
    };
}

macro_rules! address {
    ($key:literal, $doc:expr, $($field:ident).+) => {
        Row {
            key: $key,
            kind: Kind::Address,
            effect: Restart,
            doc: $doc,
            get: |s| Value::Text(s.$($field).+.map_or_else(String::new, |address: SocketAddr| address.to_string())),
            set: |s, v| s.$($field).+ = optional(v).map(|text| text.parse().expect(CHECKED)),
        }
    };
}

macro_rules! path {
    ($key:literal, $effect:expr, $doc:expr, $($field:ident).+) => {
        Row {
            key: $key,
            kind: Kind::Path,
            effect: $effect,
            doc: $doc,
            get: |s| Value::Text(path_text(s.$($field).+.as_deref())),
            set: |s, v| s.$($field).+ = optional(v).map(PathBuf::from),
        }
    };
}

/// Words for the values of an enum: the words stand once, in the order of the values.
macro_rules! choice {
    ($key:literal, $effect:expr, $doc:expr, $($field:ident).+, [$($word:literal => $value:path),+]) => {
        Row {
            key: $key,
            kind: Kind::Choice(&[$($word),+]),
            effect: $effect,
            doc: $doc,
            get: |s| Value::Text(match s.$($field).+ { $($value => $word),+ }.to_owned()),
            set: |s, v| s.$($field).+ = match v.text() { $($word => $value,)+ _ => unreachable!("{CHECKED}") },
        }
    };
}

const CHECKED: &str = "the row's kind has checked the range";

/// Every option.
pub const ROWS: &[Row] = &[
    address!(
        "listen.mqtt",
        "Where MQTT clients connect (3.1, 3.1.1 and 5, over TCP). Port 0 picks a free one, see ports.json in the data directory. An address that others can reach needs auth.file.",
        shorthands.mqtt
    ),
    address!("listen.http", "Where /ready, /health and /metrics are served.", shorthands.http),
    address!("listen.websocket", "MQTT over WebSocket. Not in this version yet: leave it empty.", shorthands.websocket),
    address!("listen.native", "The native protocol. Not in this version yet: leave it empty.", shorthands.native),
    address!(
        "listen.grpc",
        "Where the API is served by gRPC (HTTP/2 without TLS), with health and reflection. Empty: not at all.",
        shorthands.grpc
    ),
    Row {
        key: "data_dir",
        kind: Kind::Path,
        effect: Restart,
        doc: "Where the log, the sessions and ports.json live. Made if it is missing. Relative to the directory of the start.",
        get: |s| Value::Text(path_text(Some(&s.engine.data_dir))),
        set: |s, v| s.engine.data_dir = v.text().into(),
    },
    Row {
        key: "shards",
        kind: Kind::AutoOrCount { min: 1, max: 1024 },
        effect: Restart,
        doc: "Shards of the server, each a thread on a core of its own. auto: one per core that the process may use. More shards than cores share the cores. At most storage.partitions.",
        get: |s| match s.engine.shards {
            Shards::Auto => Value::Text("auto".into()),
            Shards::Count(count) => Value::Number(count.get().into()),
        },
        set: |s, v| {
            s.engine.shards = match v {
                Value::Number(_) => Shards::Count(non_zero(v)),
                Value::Text(_) => Shards::Auto,
            }
        },
    },
    choice!("durability", Restart, "What is true before a publish is acknowledged. fsync: it is on the disk and survives a power cut. os: it is written and survives the end of the process. memory: there is no log, everything is gone with the process.", engine.durability,
        ["fsync" => Durability::Fsync, "os" => Durability::Os, "memory" => Durability::Memory]),
    Row {
        key: "storage.partitions",
        kind: Kind::Count { min: 1, max: u16::MAX as u64, unit: "partitions" },
        effect: Restart,
        doc: "Units of placement of clients on shards. Fixed when the data directory is made; later changes are refused there.",
        get: |s| Value::Number(s.engine.partitions.get().into()),
        set: |s, v| s.engine.partitions = non_zero(v),
    },
    bytes!(
        "storage.free_bytes_min",
        Live,
        0,
        TIB,
        "Free space on the disk of the data directory below which publishes are refused (reason 0x97), while deliveries and acknowledgements go on.",
        engine.storage_free_bytes_min,
        u64
    ),
    choice_level(),
    choice!("log.format", Restart, "How the server's own messages are written to standard error: text for people, json for collectors.", log_format,
        ["text" => LogFormat::Text, "json" => LogFormat::Json]),
    bytes!(
        "log.young_bytes",
        Restart,
        1 << 20,
        TIB,
        "Message log: bytes of recent segments kept per shard before the oldest is retired into the old generation. At least twice log.segment_bytes.",
        engine.log.young_bytes,
        u64
    ),
    time!(
        "log.young_age",
        Restart,
        1_000,
        DAY,
        "Message log: age of a record at which its segment is retired.",
        engine.log.young_age
    ),
    bytes!(
        "log.segment_bytes",
        Restart,
        64 << 10,
        1 << 30,
        "Message log: size of one segment file.",
        engine.log.segment_bytes,
        u64
    ),
    path!(
        "auth.file",
        Live,
        "Users, device tokens, groups and registrations; `postroad passwd` writes it. Empty: no user is known, and only loopback addresses may be listened on.",
        engine.auth_file
    ),
    choice!("auth.anonymous", Live, "Whether a client without user name and password is let in. auto: only while auth.file is empty.", anonymous,
        ["auto" => Anonymous::Auto, "allow" => Anonymous::Allow, "deny" => Anonymous::Deny]),
    path!(
        "acl.file",
        Live,
        "Access rules, first match wins. Empty: everybody may do everything but publish to the reserved roots.",
        engine.acl_file
    ),
    path!(
        "api.tokens_file",
        Live,
        "Who may call the API: names, groups and hashes of tokens; `postroad token` writes it. To acl.file each is the user of its name. Empty: only programs on this machine may, as the user $local.",
        tokens_file
    ),
    time!(
        "api.publish_timeout",
        Restart,
        100,
        600_000,
        "Time after which a publish through the API that has no answer is given up: the caller is told that nobody knows.",
        control.publish_timeout
    ),
    count!(
        "registrations.clients_max",
        Live,
        0,
        100_000_000,
        "clients",
        "Clients that can be pushed to while they are away, of all shards together: those of auth.file and those that once connected as a user. One more user's client is refused (0x97).",
        engine.registrations.clients_max,
        usize
    ),
    time!(
        "registrations.idle_max",
        Live,
        0,
        3650 * DAY,
        "How long a registration that is not in auth.file outlives the last visit of its client. Then it ends, with what waits for it. 0s: never.",
        engine.registrations.idle_max
    ),
    choice!("registrations.unknown_client", Live, "What happens to a push to $client/… for a client that nobody has seen. reject: an error to the publisher (0x90). queue: it waits until the client comes.", engine.registrations.unknown_client,
        ["reject" => UnknownClient::Reject, "queue" => UnknownClient::Queue]),
    path!(
        "plugins.dir",
        Live,
        "Where Lua plugins are: each NAME.lua of this folder is one. What runs is what was there when it was last read: at the start if it has changed since, at postroad plugin reload, and after SIGHUP. Empty: no plugins.",
        engine.plugins.dir
    ),
    choice!("plugins.watch", Live, "Whether the folder is looked at each second, and read again once it has changed and then stayed as it is for a second. on: so that what is edited there runs without a word. off: only when it is asked for.", engine.plugins.watch,
        ["on" => Watch::On, "off" => Watch::Off]),
    count!(
        "plugins.instructions_max",
        Live,
        10_000,
        10_000_000_000,
        "instructions",
        "Instructions that one call of a hook may take; above it the call fails. What the libraries do for a script counts too, by its size. A change of this and of the other limits of scripts loads the plugins anew.",
        engine.plugins.limits.instructions,
        u64
    ),
    count!(
        "plugins.load_instructions_max",
        Live,
        10_000,
        10_000_000_000,
        "instructions",
        "The same for the load of a plugin, and for its on_load, on_save and each self-test.",
        engine.plugins.limits.load_instructions,
        u64
    ),
    millis!(
        "plugins.call_timeout",
        Live,
        1,
        60000,
        "Time that one call of a hook may take; looked at every so many instructions. The shard serves nobody else meanwhile.",
        engine.plugins.limits.millis
    ),
    millis!(
        "plugins.load_timeout",
        Live,
        1,
        600000,
        "The same for the load of a plugin, and for its on_load, on_save and each self-test.",
        engine.plugins.limits.load_millis
    ),
    bytes!(
        "plugins.memory_max",
        Live,
        1 << 20,
        TIB,
        "Memory of all plugins of one shard. While a new generation stands beside the old one, each has so much.",
        engine.plugins.limits.memory_bytes,
        usize
    ),
    bytes!(
        "plugins.plugin_memory_max",
        Live,
        256 << 10,
        TIB,
        "Memory of one plugin of one shard.",
        engine.plugins.limits.plugin_memory_bytes,
        usize
    ),
    bytes!(
        "plugins.allocated_max",
        Live,
        64 << 10,
        TIB,
        "Memory that one call of a hook may ask for in all, whether it gives it back or not.",
        engine.plugins.limits.allocated_bytes,
        u64
    ),
    bytes!(
        "plugins.block_max",
        Live,
        4 << 10,
        TIB,
        "Size of one string or one part of a table of a script.",
        engine.plugins.limits.block_bytes,
        usize
    ),
    count!(
        "plugins.results_max",
        Live,
        1,
        100000,
        "messages",
        "Messages that one call of a hook may make.",
        engine.plugins.limits.results,
        usize
    ),
    bytes!(
        "plugins.result_bytes_max",
        Live,
        1 << 10,
        TIB,
        "Bytes of all messages that one call makes: payload, topic and properties.",
        engine.plugins.limits.result_bytes,
        usize
    ),
    count!(
        "plugins.store_entries_max",
        Live,
        0,
        1_000_000_000,
        "entries",
        "Entries that one plugin may store on one shard (postroad.store).",
        engine.plugins.limits.store_entries,
        usize
    ),
    bytes!(
        "plugins.store_bytes_max",
        Live,
        0,
        TIB,
        "Bytes of keys and values that one plugin may store on one shard.",
        engine.plugins.limits.store_bytes,
        usize
    ),
    count!(
        "plugins.metric_names_max",
        Live,
        0,
        10000,
        "names",
        "Counters and gauges of one plugin.",
        engine.plugins.limits.metric_names,
        usize
    ),
    count!(
        "plugins.log_lines_max",
        Live,
        0,
        1_000_000,
        "lines",
        "Lines that one plugin may log in a second on one shard; what is above is counted.",
        engine.plugins.limits.log_lines,
        u32
    ),
    count!(
        "plugins.depth_max",
        Live,
        1,
        1000,
        "levels",
        "Levels of tables in tables of what is read, written and handed to the next generation.",
        engine.plugins.limits.depth,
        usize
    ),
    count!(
        "plugins.quarantine_after",
        Live,
        1,
        1_000_000,
        "failures",
        "Failures in a row after which a plugin is not called any more on that shard, until the next reload. Its hooks are then open or closed, as it says.",
        engine.plugins.limits.quarantine_after,
        u32
    ),
    count!(
        "plugins.error_budget",
        Live,
        0,
        100,
        "%",
        "Of the calls of plugins since a reload so many may fail on a shard during plugins.probation; above it, or when a plugin is quarantined, all shards go back to the plugins before, by themselves. 100: never for the share of failures.",
        engine.plugins.error_budget,
        u8
    ),
    count!(
        "plugins.error_budget_calls",
        Live,
        1,
        1_000_000_000,
        "calls",
        "Calls on a shard before which the share of those that failed is not judged.",
        engine.plugins.error_budget_calls,
        u64
    ),
    time!(
        "plugins.probation",
        Live,
        0,
        DAY,
        "For how long after a reload plugins.error_budget is watched; a canary is watched for as long as it lasts. 0s: not at all.",
        engine.plugins.probation
    ),
    time!(
        "plugins.reload_timeout",
        Live,
        100,
        600_000,
        "Time for all shards to load a new generation of plugins. If one has not done so by then, nothing is changed.",
        engine.plugins.reload_timeout
    ),
    count!(
        "plugins.history_max",
        Live,
        2,
        10_000,
        "attempts",
        "Reloads that are remembered with the scripts of each, to go back to. The newest; the one that runs is always among them.",
        engine.plugins.history_max,
        usize
    ),
    count!(
        "connections.max",
        Live,
        0,
        10_000_000,
        "connections",
        "Client connections of all shards together. 0: as many as the limit on open files allows.",
        engine.connections_max,
        usize
    ),
    Row {
        key: "coalesce_micros",
        kind: Kind::Count { min: 0, max: 10_000, unit: "µs" },
        effect: Live,
        doc: "How long a busy shard lets wake-ups coalesce: it sleeps and then looks, instead of being woken by each packet. More saves CPU and delays what comes meanwhile by as much. A shard with little to do, or whose clients send their next request after each answer, does not. The kernel may add 50 µs. 0: never.",
        get: |s| Value::Number(u64::try_from(s.engine.coalesce.as_micros()).expect("a time fits")),
        set: |s, v| s.engine.coalesce = Duration::from_micros(v.number()),
    },
    bytes!(
        "connections.output_bytes_max",
        Live,
        4 << 10,
        1 << 30,
        "Unsent output of one connection above which nothing more is delivered to it until it drains.",
        engine.output_bytes_max,
        usize
    ),
    bytes!(
        "connections.not_sent_bytes_max",
        Live,
        1 << 10,
        1 << 30,
        "Bytes that the kernel holds unsent for one connection (TCP_NOTSENT_LOWAT). What is beyond waits in the server, where it can still expire. Holds for connections made after a change.",
        engine.not_sent_bytes_max,
        u32
    ),
    time!(
        "connections.stall_timeout",
        Live,
        0,
        32_000_000,
        "Time for which a peer may leave sent bytes unacknowledged, or its receive window shut, before its connection counts as dead (TCP_USER_TIMEOUT). Clients with keep alive 0 are probed after half of it. 0s: left to the kernel, and nobody is probed. Holds for connections made after a change.",
        engine.stall_timeout
    ),
    bytes!(
        "mqtt.packet_bytes_max",
        Live,
        128,
        268_435_460,
        "Largest packet taken, with its header. Clients of MQTT 5 are told.",
        engine.mqtt.packet_bytes_max,
        u32
    ),
    count_from_1!(
        "mqtt.receive_maximum",
        Live,
        "messages",
        "Publishes of QoS 1 and 2 of one client that may be unanswered at once.",
        engine.mqtt.receive_maximum
    ),
    count_from_1!(
        "mqtt.in_flight_max",
        Live,
        "messages",
        "Deliveries of QoS 1 and 2 in flight to one client at most, whatever it offers to take.",
        engine.mqtt.in_flight_max
    ),
    count!(
        "mqtt.topic_alias_maximum",
        Live,
        0,
        u16::MAX,
        "aliases",
        "Highest topic alias that a client may use. 0: none.",
        engine.mqtt.topic_alias_maximum,
        u16
    ),
    count!(
        "mqtt.topic_alias_outbound_max",
        Live,
        0,
        u16::MAX,
        "aliases",
        "Topic aliases that the server uses towards a client that allows them.",
        engine.mqtt.topic_alias_outbound_max,
        u16
    ),
    Row {
        key: "mqtt.keep_alive_max",
        kind: Kind::Time { min: 0, max: u16::MAX as u64 * 1000, step: 1000 },
        effect: Live,
        doc: "Longest keep alive granted. Clients of MQTT 5 that ask for more, or for none, are told this one. 0s: no limit.",
        get: |s| Value::Number(u64::from(s.engine.mqtt.keep_alive_max_seconds) * 1000),
        set: |s, v| s.engine.mqtt.keep_alive_max_seconds = u16::try_from(v.number() / 1000).expect(CHECKED),
    },
    time!(
        "mqtt.connect_timeout",
        Live,
        100,
        600_000,
        "Time from the accepted connection to a whole CONNECT.",
        engine.mqtt.connect_timeout
    ),
    Row {
        key: "mqtt.session_expiry_max",
        kind: Kind::TimeOrNever { min: 0, max: 4_294_967_294_000 },
        effect: Live,
        doc: "Longest time that a session outlives its connection. never: as long as the client asks for, also for ever.",
        get: |s| match s.engine.mqtt.session_expiry_max_seconds {
            u32::MAX => Value::Text("never".into()),
            seconds => Value::Number(u64::from(seconds) * 1000),
        },
        set: |s, v| {
            s.engine.mqtt.session_expiry_max_seconds = match v {
                Value::Number(ms) => u32::try_from(ms / 1000).expect(CHECKED),
                Value::Text(_) => u32::MAX,
            }
        },
    },
    count!(
        "mqtt.subscriptions_max",
        Live,
        1,
        10_000_000,
        "subscriptions",
        "Subscriptions of one session.",
        engine.mqtt.subscriptions_max,
        usize
    ),
    count_from_1!(
        "mqtt.topic_levels_max",
        Live,
        "levels",
        "Levels of a topic name or topic filter (the parts between its slashes). A publish with more is refused with reason 0x90, a subscription with 0x8F.",
        engine.mqtt.topic_levels_max
    ),
    count!(
        "queue.messages_max",
        Live,
        1,
        1_000_000_000,
        "messages",
        "Messages that wait in the queue of one session.",
        engine.queue.messages_max,
        usize
    ),
    bytes!(
        "queue.bytes_max",
        Live,
        1 << 10,
        TIB,
        "Bytes (topic, properties and payload) that wait in the queue of one session.",
        engine.queue.bytes_max,
        usize
    ),
    choice!("queue.policy", Live, "What happens to a message for a full queue. reject_publisher: the publisher is told (reason 0x97), nothing acknowledged is lost. drop_oldest: the oldest one that is not in flight makes room. reject_new: the new one does not enter. Both are counted as overflow. dead_letter_oldest: as drop_oldest, but the oldest one becomes a dead letter. full_sync: all that is not in flight is dropped with the new one, and a message on $sync/overflow tells the device to fetch its state anew.", engine.queue.policy,
        ["reject_publisher" => QueuePolicy::RejectPublisher, "drop_oldest" => QueuePolicy::DropOldest, "reject_new" => QueuePolicy::RejectNew, "dead_letter_oldest" => QueuePolicy::DeadLetterOldest, "full_sync" => QueuePolicy::FullSync]),
    count!(
        "retained.max",
        Live,
        0,
        1_000_000_000,
        "messages",
        "Retained messages of all shards together; each shard takes its part of them. Beyond it the publisher is told (reason 0x97); 0: retaining is not available.",
        engine.retained_max,
        usize
    ),
    bytes!(
        "retained.bytes_max",
        Live,
        1 << 10,
        TIB,
        "Bytes (topic, properties and payload) of the retained messages of all shards together.",
        engine.retained_bytes_max,
        usize
    ),
    count!(
        "retry.max_attempts",
        Live,
        0,
        1_000_000,
        "sends",
        "How often a delivery (QoS 1 and 2) is sent: once, again when it is not acknowledged in time (retry.resend), and again after each connection that broke before it was. Then it becomes a dead letter (attempts). 0: without limit. [[retry.topic]] and a publisher's wish go before it.",
        engine.retry.max_attempts,
        u32
    ),
    time!(
        "retry.max_age",
        Live,
        0,
        3650 * DAY,
        "How long a client may be connected with a delivery in flight, from its first send on, and not acknowledge it. Then it becomes a dead letter (unacknowledged); its packet identifier stays taken until the client answers. A connection whose whole window was given up is closed (0x83). 0s: for ever. [[retry.topic]] and a publisher's wish go before it.",
        engine.retry.max_age
    ),
    choice!("retry.resend", Live, "When what is not acknowledged (PUBLISH, and PUBREL of QoS 2) is sent again. live: as soon as it is late, on the connection that it was sent on, if that speaks MQTT 3.1 or 3.1.1 and its last copy has arrived; and after a reconnect. reconnect: after a reconnect only, as MQTT 5 has it, whose clients are sent nothing again on a connection that lives.", engine.retry.resend,
        ["live" => Resend::Live, "reconnect" => Resend::Reconnect]),
    count!(
        "retry.immediate",
        Live,
        0,
        100,
        "sends",
        "So many resends of a delivery on one connection follow as soon as its acknowledgement is late; later ones wait for a backoff besides.",
        engine.retry.immediate,
        u32
    ),
    time!(
        "retry.backoff_min",
        Live,
        0,
        DAY,
        "How long the first resend that waits does so, beyond the time at which the acknowledgement was late; each that follows waits twice as long, up to retry.backoff_max. Up to half of each wait is left out by chance, so that clients part. At most retry.backoff_max.",
        engine.retry.backoff_min
    ),
    time!("retry.backoff_max", Live, 0, DAY, "The longest such wait.", engine.retry.backoff_max),
    time!(
        "retry.ack_timeout_min",
        Live,
        100,
        3_600_000,
        "How long an acknowledgement is waited for at least. Within these two bounds it is late after the smoothed round trip of its connection and four times the deviation, as TCP has it, and twice as late after each resend. At most retry.ack_timeout_max.",
        engine.retry.ack_timeout_min
    ),
    time!(
        "retry.ack_timeout_max",
        Live,
        100,
        3_600_000,
        "How long an acknowledgement is waited for at most.",
        engine.retry.ack_timeout_max
    ),
    count!(
        "retry.per_second",
        Live,
        0,
        100_000_000,
        "sends",
        "Resends per second on connections that live, all shards together. Each shard has an equal part, one at least. They leave behind what is realtime and in front of the offline drain. 0: no limit.",
        engine.retry.per_second,
        u32
    ),
    count!(
        "dead_letters.max",
        Live,
        0,
        1_000_000_000,
        "letters",
        "Dead letters of all shards together; each shard takes its part of them. Beyond it the oldest go, counted as retention; 0: none are kept.",
        engine.dead_letters.max,
        usize
    ),
    bytes!(
        "dead_letters.bytes_max",
        Live,
        1 << 10,
        TIB,
        "Bytes (topic, properties and payload) of the dead letters of all shards together, likewise.",
        engine.dead_letters.bytes_max,
        usize
    ),
    time!(
        "dead_letters.age_max",
        Live,
        0,
        3650 * DAY,
        "How long a dead letter is kept. Then it goes, counted as retention. 0s: for ever.",
        engine.dead_letters.age_max
    ),
    count!(
        "dead_letters.requeues_max",
        Live,
        0,
        1_000_000,
        "requeues",
        "A message that has been requeued so often and dies again is parked: it waits for a human, and is leased to nobody.",
        engine.dead_letters.requeues_max,
        u32
    ),
    count!(
        "groups.max",
        Live,
        0,
        1_000_000,
        "groups",
        "Consumer groups that live on one shard (a group lives where its name says). Beyond it none is made.",
        engine.groups.max,
        usize
    ),
    count!(
        "groups.leases_max",
        Live,
        1,
        32_767,
        "deliveries",
        "Deliveries of one consumer group that consumers have, or had and are to be given again. Beyond it none is given until one of them is over.",
        engine.groups.leases_max,
        u16
    ),
    count!(
        "groups.waiting_max",
        Live,
        1,
        1_000_000,
        "consumers",
        "Consumers that wait for deliveries of one group at once. Beyond it one is told to try again.",
        engine.groups.waiting_max,
        usize
    ),
    time!(
        "groups.delay",
        Live,
        0,
        DAY,
        "How long a delivery that its consumer refused waits before it is given again, if the consumer does not say how long; twice as long each further time. What a consumer let go otherwise (its lease was over, or its connection) waits from the second time on.",
        engine.groups.delay
    ),
    time!("groups.delay_max", Live, 0, DAY, "The longest that it waits.", engine.groups.delay_max),
    time!(
        "idempotency.window",
        Live,
        1,
        7 * DAY,
        "How long an idempotency key is kept: a repeat under it is answered, not published again.",
        engine.idempotency.window
    ),
    count!(
        "idempotency.keys_max",
        Live,
        1,
        100_000_000,
        "keys",
        "Idempotency keys of one publisher on one shard. Beyond it a publish under a new key is refused (0x97).",
        engine.idempotency.keys_max,
        usize
    ),
    count!(
        "idempotency.total_max",
        Live,
        1,
        1_000_000_000,
        "keys",
        "Idempotency keys of all publishers on all shards together; each shard takes its part of them. Beyond it likewise. They are in memory.",
        engine.idempotency.total_max,
        usize
    ),
    count!(
        "scheduled.max",
        Live,
        0,
        1_000_000_000,
        "messages",
        "Messages on all shards together that are to be published later; each shard takes its part of them. Beyond it such a publish is refused (0x97).",
        engine.scheduled.max,
        usize
    ),
    bytes!(
        "scheduled.bytes_max",
        Live,
        1 << 10,
        TIB,
        "Their bytes (topic, properties and payload), likewise.",
        engine.scheduled.bytes_max,
        usize
    ),
    time!(
        "scheduled.delay_max",
        Live,
        1,
        3660 * DAY,
        "How much later a message can be published. What is for later than that is refused (0x83).",
        engine.scheduled.delay_max
    ),
    count!(
        "scheduled.per_second",
        Live,
        0,
        1_000_000_000,
        "messages per second",
        "How many of the messages that are due are published per second, by all shards together; each takes its part. 0: no limit.",
        engine.scheduled.per_second,
        u32
    ),
    time!(
        "sys.interval",
        Live,
        0,
        DAY,
        "Time between two publications of the $SYS topics. 0s: none.",
        engine.sys_interval
    ),
    time!(
        "crash.bar_time",
        Live,
        0,
        365 * DAY,
        "How long a client is kept away (0x8A) after two crashes of the server within ten minutes over what it sent. 0s: not at all. Deleting crash.json and reloading lifts every bar.",
        engine.crash_bar_time
    ),
    time!(
        "drain_timeout",
        Restart,
        0,
        3_600_000,
        "Time that a graceful stop may take before connections are cut, those of the API included.",
        engine.drain_timeout
    ),
    time!(
        "stall_max",
        Restart,
        10,
        600_000,
        "Time without a turn after which a shard counts as stalled: it is named in the log, in /health and in /ready, and counted.",
        engine.stall_max
    ),
    count!(
        "restart.accept_per_second",
        Restart,
        0,
        10_000_000,
        "connections",
        "Connections that each shard accepts in the first second after a start; in each second that follows twice as many, for ten seconds. So a crowd that comes back at once does not come all at once. 0: no limit.",
        engine.restart.accept_per_second,
        u32
    ),
    choice!("delivery.mode", Live, "Who says when a delivery of QoS 1 or 2 leaves. push: the server, as soon as its client takes it. pull: the client, by publishing to $pull/<n> for so many more. A client can choose for itself (user property postroad-delivery of its CONNECT), and so can its entry in auth.file; a connection that publishes to $pull/<n> pulls from then on. Holds for connections made after a change.", engine.delivery_mode,
        ["push" => DeliveryMode::Push, "pull" => DeliveryMode::Pull]),
    choice!("restart.delivery", Live, "What a client gets of its backlog when it comes back for the first time after a start. scheduled: nothing until the scheduler has come by, which takes restart.sessions_per_second, in order of return. pull: all of it as soon as it connects. drain.per_second and drain.jitter hold for both.", engine.restart.delivery,
        ["scheduled" => RestartDelivery::Scheduled, "pull" => RestartDelivery::Pull]),
    count!(
        "restart.sessions_per_second",
        Live,
        0,
        10_000_000,
        "clients",
        "Clients of each shard whose first backlog after a start begins to leave, per second, with restart.delivery = \"scheduled\". 0: no limit.",
        engine.restart.sessions_per_second,
        u32
    ),
    count!(
        "drain.per_second",
        Live,
        0,
        100_000_000,
        "deliveries",
        "Deliveries per second of all shards together that leave for clients that came back, of what had waited for them. Each shard has an equal part, one at least. What comes while a client is connected is not limited, but waits behind what is older. 0: no limit.",
        engine.drain.per_second,
        u32
    ),
    count!(
        "drain.shard_per_second",
        Live,
        0,
        100_000_000,
        "deliveries",
        "The same for each shard, if that is less than its part. 0: its part alone.",
        engine.drain.shard_per_second,
        u32
    ),
    time!(
        "drain.jitter",
        Live,
        0,
        3_600_000,
        "A client that comes back waits for what had waited for it for a random time below this one, so that a crowd spreads out. Keep it well below the time for which clients stay. 0s: it begins at once.",
        engine.drain.jitter
    ),
    count!(
        "trace.sample",
        Live,
        0,
        1_000_000,
        "in a million",
        "Of so many in a million messages, chosen by a hash of their ids, each step is kept, as if somebody had asked for receipts: see postroad trace. Steps of messages with a receipt level are always kept.",
        engine.trace_sample,
        u32
    ),
    time!(
        "trace.retention",
        Restart,
        1_000,
        3650 * DAY,
        "How long a step in the life of a message is kept.",
        control.trace_retention
    ),
    bytes!(
        "trace.bytes_max",
        Restart,
        1 << 20,
        TIB,
        "Bytes of the steps that are kept; beyond it the oldest go. The file history.redb takes up to twice that and 4 MiB.",
        control.trace_bytes_max,
        u64
    ),
    count!(
        "trace.queue_max",
        Restart,
        1,
        100_000_000,
        "steps",
        "Steps that may wait to be kept. Shards never wait for that: what comes beyond it is dropped, and counted.",
        control.trace_queue_max,
        usize
    ),
    count!(
        "trace.readers_max",
        Restart,
        1,
        65_535,
        "streams",
        "Streams of receipts and of what happens that may be read at once, by HTTP and gRPC together; half of them, rounded down, by callers that may read only what is their own (with 1: none). Keep it below http.connections_max, or readers keep others out.",
        control.trace_readers_max,
        usize
    ),
    count!(
        "trace.lines_per_second",
        Restart,
        1,
        1_000_000,
        "lines",
        "Lines per second of one who watches what happens (postroad trace --client); what comes beyond is left out, and the next line tells how much.",
        control.trace_lines_per_second,
        u32
    ),
    choice!("debug.push", Live, "off: nothing of QoS 1 or 2 leaves for clients, as if each had stopped reading; what they are to get is stored, and publishers are answered as ever. What is QoS 0 is dropped (dropped_qos0_congested). To look at storing and pushing apart.", engine.push,
        ["on" => Push::On, "off" => Push::Off]),
    count!(
        "http.connections_max",
        Restart,
        1,
        65_535,
        "connections",
        "HTTP connections open at once, and as many of gRPC; one above is closed unanswered. Of gRPC so many calls are served at once, so many takes wait, and so many streams are open, over all connections. Takes that wait by HTTP have half of its connections at most.",
        control.connections_max,
        usize
    ),
    bytes!(
        "http.request_bytes_max",
        Restart,
        8 << 10,
        1 << 20,
        "Size of a request's head, by HTTP and by gRPC.",
        control.request_bytes_max,
        usize
    ),
    bytes!(
        "http.body_bytes_max",
        Restart,
        1 << 10,
        1 << 30,
        "Size of an HTTP request's body, of one line of a stream, or of a gRPC message. Each open connection may hold so much; by gRPC, each call and twice that each stream.",
        control.body_bytes_max,
        usize
    ),
    time!(
        "http.request_timeout",
        Restart,
        100,
        600_000,
        "Time for an HTTP request to arrive, also for the next one on an open connection. By gRPC: for a connection to begin, and between two looks whether its peer is alive.",
        control.request_timeout
    ),
    time!(
        "http.connection_age_max",
        Restart,
        1_000,
        DAY,
        "Time that one connection may last, by HTTP and by gRPC.",
        control.connection_age_max
    ),
    time!(
        "http.shard_timeout",
        Restart,
        10,
        60_000,
        "Time that /metrics waits for a shard's figures.",
        control.shard_timeout
    ),
];

const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace"];

const fn choice_level() -> Row {
    Row {
        key: "log.level",
        kind: Kind::Choice(LEVELS),
        effect: Live,
        doc: "How much the server tells about itself on standard error. Nothing is written per message at info.",
        get: |s| Value::Text(s.log_level.into()),
        set: |s, v| s.log_level = LEVELS.iter().find(|level| **level == v.text()).expect(CHECKED),
    }
}

fn non_zero(value: &Value) -> NonZeroU16 {
    u16::try_from(value.number()).ok().and_then(NonZeroU16::new).expect(CHECKED)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn optional(value: &Value) -> Option<&str> {
    Some(value.text()).filter(|text| !text.is_empty())
}

/// Paths come from TOML or `--set`, hence are UTF-8.
fn path_text(path: Option<&Path>) -> String {
    path.map_or_else(String::new, |path| path.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_in_its_range_and_set_and_get_agree() {
        for row in ROWS {
            let default = row.default();
            let written = row.kind.toml(&default);
            assert_eq!(row.kind.parse(&row.kind.show(&default)), Ok(default.clone()), "{} = {written}", row.key);
            let mut settings = Settings::default();
            (row.set)(&mut settings, &default);
            assert_eq!((row.get)(&settings), default, "{}", row.key);
        }
    }

    #[test]
    fn every_row_changes_what_it_shows_and_nothing_else() {
        for row in ROWS {
            let other = match row.kind {
                Kind::Count { max, .. } | Kind::Bytes { max, .. } | Kind::Time { max, .. } => Value::Number(max),
                Kind::TimeOrNever { min, .. } => Value::Number(min),
                Kind::AutoOrCount { max, .. } => Value::Number(max),
                Kind::Choice(words) => {
                    Value::Text((*words.iter().find(|w| **w != row.default().text()).expect("two")).into())
                }
                Kind::Address => Value::Text("127.0.0.9:9".into()),
                Kind::Path => Value::Text("/other".into()),
            };
            let mut settings = Settings::default();
            (row.set)(&mut settings, &other);
            for any in ROWS {
                let expected = if any.key == row.key { other.clone() } else { any.default() };
                assert_eq!((any.get)(&settings), expected, "{} after setting {}", any.key, row.key);
            }
        }
    }

    /// A new field of the engine's configuration breaks this test's build: give it a row, then name it here.
    #[test]
    fn every_bound_of_the_engine_has_a_row() {
        use postroad_engine::config::{
            Config, DeadLetters, Drain, Groups, Idempotency, Log, Mqtt, Plugins, Queue, Registrations, Restart, Retry,
            Scheduled,
        };
        let Config {
            shards: _,
            durability: _,
            data_dir: _,
            listeners: _, // listen.* and [[listener]]
            partitions: _,
            mqtt,
            connections_max: _,
            coalesce: _,
            output_bytes_max: _,
            not_sent_bytes_max: _,
            stall_timeout: _,
            queue,
            registrations,
            retained_max: _,
            retained_bytes_max: _,
            retry,
            retry_topics: _, // [[retry.topic]]
            dead_letters,
            idempotency,
            scheduled,
            groups,
            log,
            storage_free_bytes_min: _,
            sys_interval: _,
            allow_anonymous: _, // auth.anonymous
            auth_file: _,
            acl_file: _,
            crash_bar_time: _,
            drain_timeout: _,
            stall_max: _,
            restart,
            drain,
            delivery_mode: _,
            push: _,         // debug.push
            trace_sample: _, // trace.sample
            plugins,
        } = Config::default();
        let Mqtt {
            packet_bytes_max: _,
            receive_maximum: _,
            in_flight_max: _,
            topic_alias_maximum: _,
            topic_alias_outbound_max: _,
            keep_alive_max_seconds: _,
            connect_timeout: _,
            session_expiry_max_seconds: _,
            subscriptions_max: _,
            topic_levels_max: _,
        } = mqtt;
        let Queue { messages_max: _, bytes_max: _, policy: _ } = queue;
        let Registrations { clients_max: _, idle_max: _, unknown_client: _ } = registrations;
        let Retry {
            max_attempts: _,
            max_age: _,
            resend: _,
            immediate: _,
            backoff_min: _,
            backoff_max: _,
            ack_timeout_min: _,
            ack_timeout_max: _,
            per_second: _,
        } = retry;
        let DeadLetters { max: _, bytes_max: _, age_max: _, requeues_max: _ } = dead_letters;
        let Idempotency { window: _, keys_max: _, total_max: _ } = idempotency;
        let Scheduled { max: _, bytes_max: _, delay_max: _, per_second: _ } = scheduled;
        let Groups { max: _, leases_max: _, waiting_max: _, delay: _, delay_max: _ } = groups;
        let Log { young_bytes: _, young_age: _, segment_bytes: _ } = log;
        let Restart { accept_per_second: _, delivery: _, sessions_per_second: _ } = restart;
        let Drain { per_second: _, shard_per_second: _, jitter: _ } = drain;
        let Plugins {
            dir: _,
            watch: _,
            limits,
            error_budget: _,
            error_budget_calls: _,
            probation: _,
            reload_timeout: _,
            history_max: _,
        } = plugins;
        let postroad_plugins::Limits {
            instructions: _,
            load_instructions: _,
            millis: _,
            load_millis: _,
            memory_bytes: _,
            plugin_memory_bytes: _,
            allocated_bytes: _,
            block_bytes: _,
            results: _,
            result_bytes: _,
            store_entries: _,
            store_bytes: _,
            metric_names: _,
            log_lines: _,
            quarantine_after: _,
            depth: _,
        } = limits;
        let sections = [
            ("mqtt.", 10),
            ("queue.", 3),
            ("registrations.", 3),
            ("retry.", 9),
            ("dead_letters.", 4),
            ("idempotency.", 3),
            ("scheduled.", 4),
            ("groups.", 5),
            ("restart.", 3),
            ("drain.", 3),
            ("plugins.", 23),
            ("trace.", 6), // of the control plane, but for trace.sample
            ("log.young", 2),
            ("log.segment", 1),
        ];
        for (section, fields) in sections {
            assert_eq!(ROWS.iter().filter(|row| row.key.starts_with(section)).count(), fields, "{section}");
        }
    }

    #[test]
    fn keys_are_unique_and_documented() {
        let mut keys: Vec<&str> = ROWS.iter().map(|row| row.key).collect();
        keys.sort_unstable();
        let all = keys.len();
        keys.dedup();
        assert_eq!(keys.len(), all);
        for row in ROWS {
            assert!(row.doc.ends_with('.') && row.doc.len() > 10, "{}: {:?}", row.key, row.doc);
        }
    }
}
