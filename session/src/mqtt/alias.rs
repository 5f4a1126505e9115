//! Topic aliases of one connection (MQTT 5, section 3.3.2.3.4). Both directions are tables of their own
//! `[MQTT-3.3.2-7]` ends with the connection, as does this.

use std::hash::{DefaultHasher, Hasher};
use std::num::NonZeroU16;

use base::TopicName;
use postroad_base as base;
use postroad_protocol::mqtt::HeadTopic;

/// Both tables; made when the first alias is used.
#[derive(Debug, Default)]
pub(super) struct Aliases {
    /// What the client's aliases stand for, by alias - 1. Grows to the highest alias used.
    inbound: Vec<Option<TopicName>>,
    /// Ours, by alias - 1. Its length is fixed at the first delivery.
    outbound: Box<[Slot]>,
}

/// One alias of ours. A topic has one slot that it can be in, by its hash: no list to search, no order to keep.
#[derive(Clone, Debug, Default)]
struct Slot {
    /// Hash of the last topic that came by and is not `topic`; 0 for none.
    candidate: u64,
    /// What the client knows the alias to stand for. A copy: a slice of the message would keep its payload alive.
    topic: Option<Box<str>>,
}

impl Aliases {
    /// The client's alias stands for this topic from now on `[MQTT-3.3.2-12]`.
    pub(super) fn set_inbound(&mut self, alias: NonZeroU16, topic: TopicName) {
        let index = usize::from(alias.get()) - 1;
        if self.inbound.len() <= index {
            self.inbound.resize(index + 1, None);
        }
        self.inbound[index] = Some(topic);
    }

    pub(super) fn inbound(&self, alias: NonZeroU16) -> Option<&TopicName> {
        self.inbound.get(usize::from(alias.get()) - 1)?.as_ref()
    }

    /// How to name `topic` to a client that takes aliases up to `maximum`. A topic gets an alias when it comes by
    /// for the second time without another one of its slot in between: what is sent once costs no byte more.
    pub(super) fn choose<'t>(&mut self, topic: &'t str, maximum: NonZeroU16) -> HeadTopic<'t> {
        if self.outbound.is_empty() {
            self.outbound = vec![Slot::default(); usize::from(maximum.get())].into();
        }
        let hash = hash_of(topic);
        let (slot, alias) = self.slot_of(hash);
        if slot.topic.as_deref() == Some(topic) {
            return HeadTopic::Alias(alias);
        }
        if slot.candidate == hash {
            return HeadTopic::NameAndAlias(topic, alias);
        }
        slot.candidate = hash;
        HeadTopic::Name(topic)
    }

    /// A packet that names `topic` and its alias has been written.
    pub(super) fn told(&mut self, topic: &str) {
        let slot = self.slot_of(hash_of(topic)).0;
        *slot = Slot { candidate: 0, topic: Some(topic.into()) };
    }

    fn slot_of(&mut self, hash: u64) -> (&mut Slot, NonZeroU16) {
        let index = (hash % self.outbound.len() as u64) as usize;
        let alias = u16::try_from(index + 1).ok().and_then(NonZeroU16::new);
        (&mut self.outbound[index], alias.expect("as many slots as a NonZeroU16 says"))
    }
}

/// Never 0. Equal hashes of two topics cost an alias, not correctness.
fn hash_of(topic: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(topic.as_bytes());
    hasher.finish().max(1)
}
