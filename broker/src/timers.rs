//! Deadlines of a shard, in one ordered map.

use std::collections::BTreeMap;
use std::num::NonZeroU64;

use base::{MonoMillis, QueueId, TopicName};
use postroad_base as base;

use crate::session::SessionIndex;

/// Names a deadline, to cancel it. (Not 0: so it takes no room to say that there is none.)
pub(crate) type TimerKey = (MonoMillis, NonZeroU64);

/// What is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// A session without connection ends.
    SessionEnd(SessionIndex, QueueId),
    /// A will's delay is over.
    Will(SessionIndex, QueueId),
    /// A retained message expires.
    Retained(TopicName),
    /// Registrations whose clients have not been here for long end.
    IdleRegistrations,
    /// Dead letters may be too old.
    Letters,
    /// Idempotency keys may be over.
    Keys,
    /// A lease of a consumer group is over, or somebody has waited for long enough.
    Group(SessionIndex, QueueId),
    /// A SUBSCRIBE has waited long enough for the other shards.
    Subscribe(u64),
}

/// All deadlines.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    due: BTreeMap<TimerKey, Timer>,
    count: u64,
}

impl Timers {
    pub fn set(&mut self, at: MonoMillis, timer: Timer) -> TimerKey {
        self.count += 1;
        let key = (at, NonZeroU64::new(self.count).expect("counted from 1"));
        self.due.insert(key, timer);
        key
    }

    pub fn cancel(&mut self, key: Option<TimerKey>) {
        if let Some(key) = key {
            self.due.remove(&key);
        }
    }

    pub fn next(&self) -> Option<MonoMillis> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// The next one that is due at `now`.
    pub fn pop(&mut self, now: MonoMillis) -> Option<Timer> {
        let entry = self.due.first_entry()?;
        (entry.key().0 <= now).then(|| entry.remove())
    }
}
