//! What one call of a hook is about, and what the script has set.

use std::num::NonZeroU32;

use base::{Extras, Message, MessageId, Now, Priority, Qos, QueueId, TopicFilter, TopicName, WallMillis};
use broker::api::{Connect, DisconnectCause};
use broker::hooks::Peer;
use bytes::Bytes;
use bytestring::ByteString;
use postroad_base as base;
use postroad_broker as broker;
use postroad_protocol::mqtt::{Forwarded, ForwardedParts, UserProperties};

use crate::Hook;

/// What a script may read.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) enum Subject<'a> {
    /// Nothing: no call of a hook runs.
    #[default]
    None,
    /// A message, and who publishes it, if that is known here.
    Message(&'a Message, Option<Peer<'a>>),
    /// A dead letter.
    Letter(&'a Message),
    /// Who wants to connect.
    Connect(&'a Connect),
    /// Whose connection is over.
    Gone(Peer<'a>, DisconnectCause),
    /// Who wants to subscribe to what.
    Subscription(Peer<'a>, &'a TopicFilter, Qos),
}

/// A call that runs.
#[derive(Debug, Default)]
pub(crate) struct Call {
    pub(crate) hook: Option<Hook>,
    subject: Subject<'static>,
    /// What was set in the subject.
    pub(crate) draft: Draft,
    /// What `message:also` added.
    pub(crate) also: Vec<Draft>,
    /// Bytes of parts that were read from tables: they are no memory of Lua's, so they are bounded here.
    pub(crate) bytes: usize,
    /// `postroad.store` can't be written: `on_load` runs, which may be taken back.
    pub(crate) is_store_read_only: bool,
}

impl Call {
    /// # Safety
    /// [`Self::end`] is called before what `subject` borrows is gone.
    pub(crate) unsafe fn begin(&mut self, hook: Hook, subject: Subject<'_>) {
        self.end();
        self.hook = Some(hook);
        // SAFETY: only the lifetime changes; the caller ends the call before the true one is over, and `subject` lends no longer than a call.
        self.subject = unsafe { std::mem::transmute::<Subject<'_>, Subject<'static>>(subject) };
    }

    pub(crate) fn subject(&self) -> Subject<'_> {
        self.subject
    }

    pub(crate) fn end(&mut self) {
        self.hook = None;
        self.subject = Subject::None;
        self.is_store_read_only = false;
        if !self.draft.is_empty() {
            self.draft = Draft::default();
        }
        self.also.clear();
        self.bytes = 0;
    }
}

/// What a script set: in a message, or in a table that stands for one. `None`: as it was.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Draft {
    pub(crate) topic: Option<TopicName>,
    pub(crate) payload: Option<Bytes>,
    pub(crate) qos: Option<Qos>,
    pub(crate) retain: Option<bool>,
    pub(crate) priority: Option<Priority>,
    pub(crate) expires_at: Option<Option<WallMillis>>,
    /// Also as it was given, for requeues.
    pub(crate) ttl_seconds: Option<u32>,
    pub(crate) deliver_at: Option<Option<WallMillis>>,
    pub(crate) collapse_key: Option<Option<ByteString>>,
    pub(crate) attempts_max: Option<Option<NonZeroU32>>,
    pub(crate) age_max_ms: Option<Option<u64>>,
    pub(crate) content_type: Option<Option<ByteString>>,
    /// User properties by name; without a value: none of that name.
    pub(crate) properties: Vec<(ByteString, Option<ByteString>)>,
}

impl Draft {
    pub(crate) fn is_empty(&self) -> bool {
        let Self { topic, payload, qos, retain, priority, expires_at, .. } = self;
        let Self { ttl_seconds, deliver_at, collapse_key, attempts_max, age_max_ms, content_type, properties, .. } =
            self;
        topic.is_none()
            && payload.is_none()
            && qos.is_none()
            && retain.is_none()
            && priority.is_none()
            && expires_at.is_none()
            && ttl_seconds.is_none()
            && deliver_at.is_none()
            && collapse_key.is_none()
            && attempts_max.is_none()
            && age_max_ms.is_none()
            && content_type.is_none()
            && properties.is_empty()
    }

    /// Bytes that it brings.
    pub(crate) fn size(&self) -> usize {
        let text = |text: &Option<ByteString>| text.as_ref().map_or(0, |text| text.len());
        let properties: usize = self.properties.iter().map(|(name, value)| name.len() + text(value)).sum();
        self.topic.as_ref().map_or(0, |topic| topic.as_str().len())
            + self.payload.as_ref().map_or(0, Bytes::len)
            + text(self.collapse_key.as_ref().unwrap_or(&None))
            + text(self.content_type.as_ref().unwrap_or(&None))
            + properties
    }

    /// `message` with what is set. A topic that is not set stays.
    pub(crate) fn applied_to(self, mut message: Message) -> Message {
        let takes_wishes = self.priority.is_some()
            || self.deliver_at.is_some()
            || self.collapse_key.is_some()
            || self.attempts_max.is_some()
            || self.age_max_ms.is_some();
        if takes_wishes {
            let mut extras = message.extras.take().unwrap_or_default();
            let wishes = &mut extras.wishes;
            wishes.priority = self.priority.unwrap_or(wishes.priority);
            set(&mut wishes.deliver_at, self.deliver_at);
            set(&mut wishes.collapse_key, self.collapse_key);
            set(&mut wishes.attempts_max, self.attempts_max);
            set(&mut wishes.age_max_ms, self.age_max_ms);
            message.extras = (*extras != Extras::default()).then_some(extras);
        }
        if self.content_type.is_some() || !self.properties.is_empty() {
            message.properties = with_properties(&message.properties, self.content_type, &self.properties);
        }
        set(&mut message.expires_at, self.expires_at);
        message.topic = self.topic.unwrap_or(message.topic);
        message.payload = self.payload.unwrap_or(message.payload);
        message.qos = self.qos.unwrap_or(message.qos);
        message.retain = self.retain.unwrap_or(message.retain);
        message
    }

    /// A message of its own; `None` without a topic.
    pub(crate) fn into_message(self) -> Option<Message> {
        let topic = self.topic.clone()?;
        Some(self.applied_to(Message {
            id: MessageId::default(),
            topic,
            payload: Bytes::new(),
            properties: Bytes::new(),
            qos: Qos::AtMostOnce,
            retain: false,
            expires_at: None,
            publisher: QueueId::NONE,
            extras: None,
        }))
    }
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}

/// The first value of each name is replaced in its place, others of the name go; a new name comes last.
fn with_properties(
    stored: &[u8],
    content_type: Option<Option<ByteString>>,
    changes: &[(ByteString, Option<ByteString>)],
) -> Bytes {
    let was = Forwarded::from_stored(stored);
    let mut pairs: Vec<(&str, &str)> = was.user_properties().iter().collect();
    for (name, value) in changes {
        let place = pairs.iter().position(|(known, _)| **known == **name).unwrap_or(pairs.len());
        pairs.retain(|(known, _)| **known != **name);
        if let Some(value) = value {
            pairs.insert(place.min(pairs.len()), (name, value));
        }
    }
    let parts = ForwardedParts {
        payload_format: was.payload_format(),
        content_type: content_type.as_ref().map_or(was.content_type(), |text| text.as_deref()),
        response_topic: was.response_topic(),
        correlation_data: was.correlation_data(),
        user_properties: UserProperties::from_pairs(&pairs),
    };
    parts.encode().into()
}

/// Seconds that are left of a message's time, rounded up.
pub(crate) fn seconds_left(message: &Message, now: Now) -> Option<u64> {
    message.expires_at.map(|at| at.since(now.wall).div_ceil(1000))
}
