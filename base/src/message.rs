//! The message, as applications publish it and devices get it.

use bytes::Bytes;
use bytestring::ByteString;

use crate::{MessageId, Qos, QueueId, TopicName, WallMillis};

/// Name of a client, unique on the server (MQTT: client identifier).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(pub ByteString);

impl ClientId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for ClientId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<&str> for ClientId {
    fn from(name: &str) -> Self {
        Self(ByteString::from(name))
    }
}

/// One published message. Immutable and shared (`Arc<Message>`) by all that deliver it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Given by the shard that took it in.
    pub id: MessageId,
    /// Where it was published to.
    pub topic: TopicName,
    /// The application's bytes.
    pub payload: Bytes,
    /// Properties that travel with it unchanged: payload format indicator, content type, response topic,
    /// correlation data, user properties, in the encoding of MQTT 5 (section 2.2.2) without the length
    /// in front. Opaque below `protocol`. Empty for most.
    pub properties: Bytes,
    /// The level that the publisher chose; each recipient gets the lower of this and what it was granted.
    pub qos: Qos,
    /// Whether the publisher asked to retain it.
    pub retain: bool,
    /// When it stops being worth delivering.
    pub expires_at: Option<WallMillis>,
    /// The queue of the session that published it (for the no-local option), or `QueueId::NONE`.
    pub publisher: QueueId,
}

/// What to publish when a connection ends without DISCONNECT (MQTT 5, section 3.1.2.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    /// Where to.
    pub topic: TopicName,
    /// The bytes.
    pub payload: Bytes,
    /// As `Message::properties`.
    pub properties: Bytes,
    /// At which level.
    pub qos: Qos,
    /// Whether to retain it.
    pub retain: bool,
    /// Seconds between the end of the connection and the publication.
    pub delay_seconds: u32,
    /// Seconds that the message is worth delivering, from its publication on.
    pub expiry_seconds: Option<u32>,
}
