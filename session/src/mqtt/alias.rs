//! Topic aliases, each direction on its own (MQTT 5, section 3.3.2.3.4). They end with the connection.

use std::collections::HashMap;
use std::num::NonZeroU16;

use postroad_base::TopicName;
use postroad_protocol::mqtt::HeadTopic;

/// The aliases of one connection; made when the first one is used.
#[derive(Debug, Default)]
pub(super) struct Aliases {
    /// What the client's alias n stands for, at index n - 1.
    inbound: Vec<Option<TopicName>>,
    /// Copies of the topics: a slice of a message would keep its payload alive.
    outbound: HashMap<Box<str>, NonZeroU16>,
}

impl Aliases {
    /// Remembers what the client's alias stands for from now on.
    pub(super) fn learn(&mut self, alias: NonZeroU16, topic: TopicName) {
        let index = usize::from(alias.get()) - 1;
        if self.inbound.len() <= index {
            self.inbound.resize(index + 1, None);
        }
        self.inbound[index] = Some(topic);
    }

    /// What the client's alias stands for.
    pub(super) fn topic(&self, alias: NonZeroU16) -> Option<TopicName> {
        self.inbound.get(usize::from(alias.get()) - 1)?.clone()
    }

    /// How to name `topic` towards a client that takes aliases up to `most`. First come, first served: who pushes
    /// few topics often profits, who pushes many loses nothing.
    pub(super) fn name<'a>(&self, topic: &'a str, most: u16) -> HeadTopic<'a> {
        if let Some(&alias) = self.outbound.get(topic) {
            return HeadTopic::Alias(alias);
        }
        let next = u16::try_from(self.outbound.len() + 1).ok().filter(|&next| next <= most).and_then(NonZeroU16::new);
        next.map_or(HeadTopic::Name(topic), |alias| HeadTopic::NameAndAlias(topic, alias))
    }

    /// The packet with this alias has been written: the client knows it.
    pub(super) fn sent(&mut self, topic: &str, alias: NonZeroU16) {
        self.outbound.insert(topic.into(), alias);
    }
}
