//! Identifiers. Each is a newtype, so that no two of them can be mixed up.

use std::fmt;

use crate::{PartitionId, WallMillis};

/// Index of a shard: one executor on one core. Counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u16);

/// A connection, unique within the process for as long as the process lives.
///
/// The engine makes it; `broker` and `session` only carry it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// Position of a record in the log of one shard. Strictly increasing, never reused, also when the data
/// moves to another number of shards (the new logs start above every old one).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The position after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// What a delivery is called on its wire: for MQTT the packet identifier. Never 0 `[MQTT-2.2.1-3]`.
///
/// The broker allocates tags for what it sends and remembers the peer's tags of QoS 2 publications;
/// to the log they are opaque.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tag(pub std::num::NonZeroU16);

impl Tag {
    /// The tag of this number; `None` for 0.
    pub fn new(number: u16) -> Option<Self> {
        std::num::NonZeroU16::new(number).map(Self)
    }

    /// The number that goes on the wire.
    pub fn get(self) -> u16 {
        self.0.get()
    }
}

/// A durable queue of deliveries: of an MQTT session, of a client's registration, or of a share group.
///
/// Holds its partition in the upper 16 bits and an ordinal, never reused in that partition, in the lower
/// 48, so that the number keeps its meaning when the partition moves to another shard or node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct QueueId(pub u64);

impl QueueId {
    /// Number of bits that hold the ordinal.
    pub const ORDINAL_BITS: u32 = 48;
    /// No queue: the publisher of what the server itself publishes.
    pub const NONE: Self = Self(u64::MAX);

    /// The `ordinal`-th queue of `partition`.
    ///
    /// # Panics
    /// If the ordinal needs more than 48 bits: 9,000 years of 1,000 new sessions a second.
    pub fn new(partition: PartitionId, ordinal: u64) -> Self {
        assert!(ordinal < 1 << Self::ORDINAL_BITS, "queue ordinal {ordinal} out of range");
        Self(u64::from(partition.0) << Self::ORDINAL_BITS | ordinal)
    }

    /// The partition that it belongs to.
    pub fn partition(self) -> PartitionId {
        PartitionId((self.0 >> Self::ORDINAL_BITS) as u16)
    }

    /// Its number within the partition.
    pub fn ordinal(self) -> u64 {
        self.0 & ((1 << Self::ORDINAL_BITS) - 1)
    }
}

impl fmt::Debug for QueueId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NONE {
            return f.write_str("QueueId(none)");
        }
        write!(f, "QueueId({}/{})", self.partition().0, self.ordinal())
    }
}

/// Identifier of a message: unique across restarts, shards and nodes, and sorts by time of publication.
///
/// From the top: 48 bits of milliseconds since 1970, 32 bits of a counter, 16 bits of the shard,
/// 32 bits drawn anew at each start of the process.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(pub u128);

impl MessageId {
    /// The shard that took it in, among as many as there were then.
    pub fn shard(self) -> ShardId {
        ShardId((self.0 >> 32) as u16)
    }

    /// What was drawn at the start of the process that took it in.
    pub fn boot(self) -> u32 {
        self.0 as u32
    }

    /// The same, as of another time.
    #[must_use]
    pub fn moved_to(self, at: WallMillis) -> Self {
        Self((u128::from(at.0) << 80) | (self.0 & ((1 << 80) - 1)))
    }

    /// When the message was published, by the clock of the server that took it in.
    pub fn published_at(self) -> WallMillis {
        WallMillis((self.0 >> 80) as u64)
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MessageId({self})")
    }
}

/// Makes the message ids of one shard. They never go back, also when the wall clock does.
#[derive(Clone, Debug)]
pub struct MessageIdGenerator {
    shard: ShardId,
    boot: u32,
    millis: u64,
    counter: u32,
}

impl MessageIdGenerator {
    /// `boot` is a random number that the caller draws once per start of the process.
    pub fn new(shard: ShardId, boot: u32) -> Self {
        Self { shard, boot, millis: 0, counter: 0 }
    }

    /// The next id at `wall`. If the clock went back, time stands still in the ids until it has caught up.
    pub fn next(&mut self, wall: WallMillis) -> MessageId {
        if wall.0 > self.millis {
            self.millis = wall.0;
            self.counter = 0;
        } else {
            self.counter = self.counter.checked_add(1).unwrap_or_else(|| {
                self.millis += 1; // 4 billion ids in a millisecond: borrow the next one
                0
            });
        }
        self.newest()
    }

    /// The one that was given last.
    pub fn newest(&self) -> MessageId {
        let millis = u128::from(self.millis) & ((1 << 48) - 1);
        MessageId(
            millis << 80 | u128::from(self.counter) << 48 | u128::from(self.shard.0) << 32 | u128::from(self.boot),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queue_id_keeps_partition_and_ordinal() {
        let id = QueueId::new(PartitionId(513), 77);
        assert_eq!((id.partition(), id.ordinal()), (PartitionId(513), 77));
    }

    #[test]
    fn message_ids_sort_by_time_and_never_go_back() {
        let mut generator = MessageIdGenerator::new(ShardId(1), 42);
        let ids: Vec<_> = [5, 5, 9, 3, 9, 10].map(|ms| generator.next(WallMillis(ms))).into();
        assert!(ids.windows(2).all(|w| w[0] < w[1]), "{ids:?}");
        assert_eq!(ids[5].published_at(), WallMillis(10));
    }

    #[test]
    fn ids_of_two_shards_and_two_starts_differ() {
        let id = |shard, boot| MessageIdGenerator::new(ShardId(shard), boot).next(WallMillis(1));
        assert_ne!(id(0, 1), id(1, 1));
        assert_eq!(id(513, u32::MAX).shard(), ShardId(513));
        assert_ne!(id(0, 1), id(0, 2));
    }
}
