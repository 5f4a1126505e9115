//! Where things live: client or name → partition → shard. One function for each step, so that a later
//! release can put a step "shard → node" behind them (DESIGN 9).

use std::hash::Hasher;

use siphasher::sip::SipHasher13;
use siphasher::sip128::{self, Hasher128};

use crate::{Digest, KeyName, Message, ShardId};

/// A slice of all clients: the unit of placement. The number of partitions is fixed when a data
/// directory is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionId(pub u16);

/// Maps names to partitions and partitions to shards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    partitions: u16,
    shards: u16,
    key: [u8; 16],
}

impl Placement {
    /// `key` is drawn when the data directory is made and kept there: with a key that outsiders don't
    /// know, nobody can aim many clients at one shard.
    ///
    /// # Panics
    /// If there are no partitions, or shards, or more shards than partitions.
    pub fn new(partitions: u16, shards: u16, key: [u8; 16]) -> Self {
        assert!(shards > 0 && partitions >= shards, "{partitions} partitions can't hold {shards} shards");
        Self { partitions, shards, key }
    }

    /// Number of partitions.
    pub fn partitions(&self) -> u16 {
        self.partitions
    }

    /// Number of shards.
    pub fn shards(&self) -> u16 {
        self.shards
    }

    /// The partition of a client, a share group or a retained topic, by its name.
    pub fn partition_of(&self, name: &[u8]) -> PartitionId {
        let mut hasher = SipHasher13::new_with_key(&self.key);
        hasher.write(name);
        PartitionId((hasher.finish() % u64::from(self.partitions)) as u16)
    }

    /// The partition of an idempotency key.
    pub fn partition_of_key(&self, name: &KeyName) -> PartitionId {
        self.partition_of(&name.bytes())
    }

    /// The shard on which an idempotency key lives, whoever uses it and wherever.
    pub fn home_of_key(&self, name: &KeyName) -> ShardId {
        self.shard_of(self.partition_of_key(name))
    }

    /// What was published, in short: topic, payload, properties, level and retain flag. Keyed, so that nobody can make two
    /// messages that look the same.
    pub fn digest_of(&self, message: &Message) -> Digest {
        let mut hasher = sip128::SipHasher13::new_with_key(&self.key);
        for part in [message.topic.as_str().as_bytes(), &message.payload, &message.properties] {
            hasher.write(&(part.len() as u64).to_le_bytes());
            hasher.write(part);
        }
        hasher.write(&[message.qos.number(), u8::from(message.retain)]);
        Digest(hasher.finish128().as_u128())
    }

    /// The shard that a partition lives on.
    pub fn shard_of(&self, partition: PartitionId) -> ShardId {
        Self::shard_among(partition, self.shards)
    }

    /// The shard that a partition lives on where there are so many.
    pub fn shard_among(partition: PartitionId, shards: u16) -> ShardId {
        ShardId(partition.0 % shards)
    }

    /// The shard of a name: `shard_of(partition_of(name))`.
    pub fn home(&self, name: &[u8]) -> ShardId {
        self.shard_of(self.partition_of(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_do_not_move_with_the_number_of_shards() {
        let (one, eight) = (Placement::new(256, 1, [7; 16]), Placement::new(256, 8, [7; 16]));
        for n in 0..1000_u32 {
            let name = format!("client-{n}");
            assert_eq!(one.partition_of(name.as_bytes()), eight.partition_of(name.as_bytes()));
        }
    }

    #[test]
    fn clients_spread_evenly() {
        let placement = Placement::new(256, 4, [1; 16]);
        let mut counts = [0_u32; 4];
        for n in 0..40_000_u32 {
            counts[usize::from(placement.home(format!("client-{n}").as_bytes()).0)] += 1;
        }
        assert!(counts.iter().all(|&c| (9_000..11_000).contains(&c)), "{counts:?}");
    }
}
