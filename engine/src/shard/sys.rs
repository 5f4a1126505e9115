//! The `$SYS` topics: what the server says about itself to MQTT clients.
//!
//! Each shard puts its figures where all see them; shard 0 publishes the sums. Not retained: they would be
//! written to the log each time, and a subscriber gets the next ones within `sys.interval` anyway.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use postroad_base::{Message, MessageId, MonoMillis, Qos, QueueId, ShardId, TopicName};
use postroad_broker::api::{Event, Inbound};

use super::{Phase, Shard};

/// Topics below `$SYS/broker/` and the figures that they show, summed over all shards.
const TOPICS: [&str; FIGURES] = [
    "clients/connected",
    "clients/total",
    "subscriptions/count",
    "retained messages/count",
    "messages/received",
    "messages/sent",
    "bytes/received",
    "bytes/sent",
];
const FIGURES: usize = 8;

/// One shard's figures, in the order of the topics. Each is written by its shard alone; a sum may mix
/// instants, which no reader can tell.
#[derive(Debug, Default)]
pub(crate) struct SysFigures([AtomicU64; FIGURES]);

impl Shard {
    /// Once a second: publishes what is due.
    pub(super) fn publish_sys_if_due(&mut self) {
        let interval = u64::try_from(self.live.config.sys_interval.as_millis()).unwrap_or(u64::MAX);
        if interval == 0 || self.now.mono < self.sys_due || self.phase != Phase::Serving {
            return;
        }
        self.sys_due = self.now.mono.after(interval);
        self.put_sys_figures();
        if self.id == ShardId(0) {
            self.publish_sys();
        }
    }

    fn put_sys_figures(&self) {
        let stats = self.broker.stats();
        let sum = |figure: fn(&crate::counters::Interface) -> u64| self.counters.interfaces.iter().map(figure).sum();
        let figures: [u64; FIGURES] = [
            stats.connections as u64,
            stats.sessions as u64,
            stats.subscriptions as u64,
            stats.retained as u64,
            stats.received,
            stats.sent,
            sum(|interface| interface.received_bytes),
            sum(|interface| interface.sent_bytes),
        ];
        let own = &self.common.sys[usize::from(self.id.0)].0;
        own.iter().zip(figures).for_each(|(place, figure)| place.store(figure, Ordering::Relaxed));
    }

    fn publish_sys(&mut self) {
        let uptime = self.now.mono.since(self.started) / 1000;
        self.publish_internal(
            "$SYS/broker/version",
            concat!("postroad version ", env!("CARGO_PKG_VERSION")).to_owned(),
        );
        self.publish_internal("$SYS/broker/uptime", format!("{uptime} seconds"));
        for (place, topic) in TOPICS.iter().enumerate() {
            let sum: u64 = self.common.sys.iter().map(|shard| shard.0[place].load(Ordering::Relaxed)).sum();
            self.publish_internal(&format!("$SYS/broker/{topic}"), sum.to_string());
        }
    }

    fn publish_internal(&mut self, topic: &str, payload: String) {
        let message = Message {
            id: MessageId(0),
            topic: TopicName::new(topic).expect("ours have no wildcards"),
            payload: Bytes::from(payload),
            properties: Bytes::new(),
            qos: Qos::AtMostOnce,
            retain: false,
            expires_at: None,
            publisher: QueueId::NONE,
            extras: None,
        };
        self.handle(Event::PublishInternal {
            message: Inbound { message: message.into(), tag: None, dup: false, flaw: None },
        });
        self.drain_effects();
    }

    /// When the `$SYS` topics are published for the first time: soon, so that a subscriber need not wait.
    pub(super) fn first_sys_due(now: MonoMillis) -> MonoMillis {
        now.after(1_000)
    }
}
