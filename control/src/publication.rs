//! What a caller of the API publishes, and what became of it.

use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use bytestring::ByteString;
use postroad_base::{MessageId, Qos, ReasonCode, TopicName, WallMillis, WishError, Wishes, wish_property};
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;

/// Who calls the API: a user to the access rules.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    /// The name of its token, or [`Caller::LOCAL`].
    pub name: ByteString,
    /// The groups that it belongs to, sorted; [`Caller::GROUP`] is one of them.
    pub groups: Arc<[ByteString]>,
}

impl Caller {
    /// Who comes from this machine where no token is asked for. No token and no user can have this name.
    pub const LOCAL: &str = "$local";

    /// The group of all callers. Nobody else can be in it.
    pub const GROUP: &str = "$api";

    /// A caller of these groups, and that of all callers.
    pub fn new(name: &str, groups: &[String]) -> Self {
        let mut groups: Vec<ByteString> = groups.iter().map(|group| group.as_str().into()).collect();
        groups.push(ByteString::from_static(Self::GROUP));
        groups.sort_unstable();
        groups.dedup();
        Self { name: name.into(), groups: groups.into() }
    }

    /// The one from this machine.
    pub fn local() -> Self {
        Self::new(Self::LOCAL, &[])
    }
}

/// One message that is to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Where to.
    pub topic: TopicName,
    /// The application's bytes.
    pub payload: Bytes,
    /// How surely it is delivered; each subscriber gets the lower of this and what it was granted.
    pub qos: Qos,
    /// Whether it becomes the retained message of its topic.
    pub retain: bool,
    /// For how long it is worth delivering.
    pub ttl_seconds: Option<u32>,
    /// What travels with it, as MQTT 5 has it.
    pub properties: Arc<Properties>,
    /// What its publisher wishes beyond that.
    pub wishes: Arc<Wishes>,
}

/// What travels with a message unchanged (MQTT 5, section 3.3.2.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    /// The payload is text in UTF-8.
    pub is_text: bool,
    /// What the payload is.
    pub content_type: Option<ByteString>,
    /// Where an answer is expected.
    pub response_topic: Option<ByteString>,
    /// What the answer should carry.
    pub correlation_data: Option<Bytes>,
    /// Names and values, in order.
    pub user: Vec<(ByteString, ByteString)>,
}

/// Properties as a caller gave them.
#[derive(Debug, Default)]
pub(crate) struct GivenProperties {
    pub is_text: bool,
    pub content_type: Option<String>,
    pub response_topic: Option<String>,
    pub correlation_data: Option<Bytes>,
    pub user: Vec<(String, String)>,
}

impl GivenProperties {
    /// As MQTT can carry them; else why not.
    pub fn checked(self) -> Result<Properties, String> {
        let Self { is_text, content_type, response_topic, correlation_data, user } = self;
        let text = |name: &str, text: Option<String>| text.map(|text| checked(name, text)).transpose();
        let response_topic = text("response_topic", response_topic)?;
        if let Some(topic) = &response_topic {
            topic_of(topic).map_err(|why| format!("response_topic: {why}"))?;
        }
        if correlation_data.as_ref().is_some_and(|data| data.len() > TEXT_BYTES_MAX) {
            return Err(format!("correlation_data has more than {TEXT_BYTES_MAX} bytes"));
        }
        let pairs = user.into_iter();
        let user: Result<_, String> =
            pairs.map(|(name, value)| Ok((checked("a property", name)?, checked("a property", value)?))).collect();
        let content_type = text("content_type", content_type)?;
        Ok(Properties { is_text, content_type, response_topic, correlation_data, user: user? })
    }
}

/// The time by which wishes are judged.
pub(crate) fn wall_now() -> WallMillis {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    WallMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Wishes as a caller gave them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct GivenWishes {
    pub priority: Option<String>,
    pub collapse_key: Option<String>,
    pub deliver_at_unix_ms: Option<u64>,
    pub deliver_after_seconds: Option<u64>,
    pub idempotency_key: Option<String>,
    pub receipt: Option<String>,
    pub retry_attempts_max: Option<u32>,
    pub retry_age_max_seconds: Option<u64>,
}

impl GivenWishes {
    /// As the broker takes them; else why not. A field is read as the user property of MQTT 5 is that means the same.
    pub fn checked(self, now: WallMillis) -> Result<Wishes, String> {
        let Self {
            priority, collapse_key, deliver_at_unix_ms, deliver_after_seconds, idempotency_key, receipt, ..
        } = self;
        let Self { retry_attempts_max, retry_age_max_seconds, .. } = self;
        if deliver_at_unix_ms.is_some() && deliver_after_seconds.is_some() {
            return Err("give one of deliver_at_unix_ms and deliver_after_seconds".into());
        }
        let text = |number: Option<u64>| number.map(|number| number.to_string());
        let given = [
            (wish_property::PRIORITY, priority),
            (wish_property::COLLAPSE_KEY, collapse_key),
            (wish_property::DELIVER_AT, text(deliver_at_unix_ms)),
            (wish_property::DELIVER_AFTER, text(deliver_after_seconds)),
            (wish_property::IDEMPOTENCY_KEY, idempotency_key),
            (wish_property::RECEIPT, receipt),
            (wish_property::RETRY_ATTEMPTS_MAX, text(retry_attempts_max.map(u64::from))),
            (wish_property::RETRY_AGE_MAX, text(retry_age_max_seconds)),
        ];
        let mut wishes = Wishes::default();
        let why = |error: WishError| {
            let name = error.name.trim_start_matches(wish_property::PREFIX).replace('-', "_");
            format!("{name}: {}", error.why)
        };
        for (name, value) in given.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            wishes.take(name, &value, now).map_err(why)?;
        }
        wishes.check(now).map_err(why)?;
        Ok(wishes)
    }
}

impl Publication {
    /// How many bytes it takes, about.
    pub fn bytes(&self) -> usize {
        self.topic.as_str().len() + self.payload.len() + self.properties.bytes()
    }
}

impl Properties {
    /// How many bytes they take, about.
    pub fn bytes(&self) -> usize {
        let texts = [&self.content_type, &self.response_topic].into_iter().flatten().map(|text| text.len());
        let user = self.user.iter().map(|(name, value)| 5 + name.len() + value.len());
        texts.chain(user).sum::<usize>() + self.correlation_data.as_ref().map_or(0, Bytes::len)
    }
}

/// Longest text and binary that MQTT has (version 5, sections 1.5.4 and 1.5.6).
const TEXT_BYTES_MAX: usize = u16::MAX as usize;
pub(crate) fn topic_of(topic: &str) -> Result<TopicName, String> {
    TopicName::new(topic).map_err(|error| format!("topic {:?}: {error}", excerpt(topic)))
}

/// As much of it as an error says back.
fn excerpt(text: &str) -> String {
    const CHARS_MAX: usize = 100;
    let mut excerpt: String = text.chars().take(CHARS_MAX).collect();
    if excerpt.len() < text.len() {
        excerpt.push('…');
    }
    excerpt
}

/// A text as MQTT can carry it.
pub(crate) fn checked(name: &str, text: String) -> Result<ByteString, String> {
    if text.len() > TEXT_BYTES_MAX || text.contains('\0') {
        return Err(format!("{name} must have at most {TEXT_BYTES_MAX} bytes, none of them 0"));
    }
    Ok(text.into())
}

pub(crate) fn base64_of(text: &str) -> Result<Bytes, String> {
    let decoded = BASE64_STANDARD.decode(text);
    decoded.map(Into::into).map_err(|error| format!("bad base64: {error}"))
}

/// Messages of one caller for one shard. They are taken in in this order.
#[derive(Debug)]
pub struct Batch {
    /// Who publishes.
    pub caller: Caller,
    /// What.
    pub messages: Vec<Publication>,
    /// Where the outcomes go, one for each message and in their order, once there are all. Gone without an answer: nobody
    /// knows.
    pub answer: flume::Sender<Vec<Outcome>>,
    /// To be kept until then.
    pub turn: Turn,
}

/// The right to have a batch with a shard: whoever takes one in keeps it for as long as it holds messages of it.
#[derive(Debug)]
pub struct Turn {
    pub(crate) _permit: OwnedSemaphorePermit,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Taken in; at QoS 1 and 2 as safe as `durability` asks.
    Published {
        /// It names the message for ever; a message of QoS 0 has none that anybody is told.
        id: Option<MessageId>,
        /// Whether anybody is to get it, as far as is known; always so at QoS 0.
        has_subscribers: bool,
    },
    /// Not published, for this reason.
    Refused(ReasonCode),
    /// Not published: the server has no room for it now.
    Busy,
    /// Not published: the server is starting or stopping.
    NotServing,
    /// The answer did not come in time: it may have been published.
    Unknown,
}
