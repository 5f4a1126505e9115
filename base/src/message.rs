//! The message, as applications publish it and devices get it.

use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;

use crate::{
    Addressee, KeyHolder, LetterId, MessageId, Outcome, Priority, Qos, QueueId, TopicName, WallMillis, Wishes,
};

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
    /// What few messages have.
    pub extras: Option<Box<Extras>>,
}

/// What few messages have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// It is a dead letter: how its delivery ended. A published message has none.
    pub death: Option<Box<Death>>,
    /// The message that this one repeats, since somebody requeued a dead letter.
    pub original: Option<MessageId>,
    /// How many requeues lie between them.
    pub requeues: u32,
    /// It tells of this dead letter, on a topic below `$dead/`.
    pub letter: Option<LetterId>,
    /// What its publisher wished for it.
    pub wishes: Wishes,
    /// It was put off: who may take it back until it is due. `None` also if that is not known.
    pub scheduled_by: Option<KeyHolder>,
}

impl Extras {
    /// Of a message of which nothing else is to be said; `None` if nothing is wished either.
    pub fn of_wishes(wishes: Wishes) -> Option<Box<Self>> {
        (!wishes.is_none()).then(|| Box::new(Self { wishes, ..Self::default() }))
    }
}

/// How the delivery ended that a dead letter was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// Who was to get it.
    pub client: ClientId,
    /// Whether it had been pushed to the client, and waited for its registration, not for its session.
    pub is_push: bool,
    /// Whether `client` is the name of a consumer group, not of a client.
    pub is_group: bool,
    /// Why it did not.
    pub outcome: Outcome,
    /// The receiver's reason code, or 0.
    pub reason_code: u8,
    /// How often it was sent.
    pub attempts: u32,
    /// When it was sent first and last, if it is known.
    pub sent: Option<(WallMillis, WallMillis)>,
    /// When it ended.
    pub at: WallMillis,
    /// What its receiver had against it, in words, if it said so.
    pub error: Option<ByteString>,
}

impl Death {
    /// Who was to get it.
    pub fn addressee(&self) -> Addressee {
        if self.is_group { Addressee::Group(self.client.0.clone()) } else { Addressee::Client(self.client.clone()) }
    }
}

impl Message {
    /// Bytes of payload, topic and properties: what it counts against the bounds of a queue.
    pub fn size(&self) -> usize {
        self.payload.len() + self.properties.len() + self.topic.as_str().len()
    }

    /// How its delivery ended, if it is a dead letter.
    pub fn death(&self) -> Option<&Death> {
        self.extras.as_ref()?.death.as_deref()
    }

    /// The message that a requeue of this one repeats: the first of its line.
    pub fn original(&self) -> MessageId {
        self.extras.as_ref().and_then(|extras| extras.original).unwrap_or(self.id)
    }

    /// What its publisher wished for it; `None`: nothing, as for most.
    pub fn wishes(&self) -> Option<&Wishes> {
        self.extras.as_ref().map(|extras| &extras.wishes)
    }

    /// Who put it off, if it was and that is known.
    pub fn scheduled_by(&self) -> Option<&KeyHolder> {
        self.extras.as_ref()?.scheduled_by.as_ref()
    }

    /// Which of the messages that wait go first.
    pub fn priority(&self) -> Priority {
        self.wishes().map_or(Priority::Normal, |wishes| wishes.priority)
    }

    /// What has this key and has not been sent is replaced by it.
    pub fn collapse_key(&self) -> Option<&ByteString> {
        self.wishes()?.collapse_key.as_ref()
    }

    /// The same message, or a copy without its collapse key: it comes behind what may be newer, and is not to replace that.
    #[must_use]
    pub fn without_collapse_key(self: Arc<Self>) -> Arc<Self> {
        if self.collapse_key().is_none() {
            return self;
        }
        let mut message = Arc::unwrap_or_clone(self);
        if let Some(extras) = &mut message.extras {
            extras.wishes.collapse_key = None;
        }
        Arc::new(message)
    }

    /// How many requeues it has behind it.
    pub fn requeues(&self) -> u32 {
        self.extras.as_ref().map_or(0, |extras| extras.requeues)
    }
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
    /// What is wished for it: see [`Wishes::check_for_will`].
    pub wishes: Wishes,
}
