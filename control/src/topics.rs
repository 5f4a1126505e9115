//! What the API tells of subscriptions and retained messages, and how they are looked for.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytestring::ByteString;
use postroad_base::{ShardId, TopicFilter, TopicName};
use serde::Serialize;

use crate::cursor::Cursor;
use crate::problem::Problem;
use crate::publication::topic_of;

/// A subscription as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SubscriptionReport {
    /// Whose it is.
    pub client: String,
    /// What it asks for, `$share/<name>/` included.
    pub filter: String,
    /// The level that was granted.
    pub qos: u8,
    /// It gets nothing of what its client publishes.
    pub no_local: bool,
    /// The retain flag stays as the publisher set it.
    pub retain_as_published: bool,
    /// The number that comes with each message.
    pub identifier: Option<u32>,
}

/// Which subscriptions are looked for: all that fit everything that is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionsFilter {
    /// Of this client.
    pub client: Option<ByteString>,
    /// With just this filter.
    pub filter: Option<TopicFilter>,
    /// To which a message for this topic goes.
    pub topic: Option<TopicName>,
}

/// A look at some of one shard's subscriptions.
#[derive(Clone, Debug)]
pub struct SubscriptionsQuery {
    /// Place of a session, and of that the filter behind which to go on.
    pub from: (u32, Option<TopicFilter>),
    /// No more are wanted than this.
    pub limit: usize,
    /// Which ones.
    pub filter: SubscriptionsFilter,
    /// Where the answer goes.
    pub answer: flume::Sender<SubscriptionsPage>,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionsPage {
    /// The subscriptions.
    pub subscriptions: Vec<SubscriptionReport>,
    /// Where to go on; `None`: that was all of this shard.
    pub next: Option<(u32, Option<TopicFilter>)>,
}

/// The retained message of a topic as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RetainedReport {
    /// Its topic.
    pub topic: String,
    /// Names the message.
    pub id: String,
    /// The level at which it was published.
    pub qos: u8,
    /// Bytes of its topic, properties and payload.
    pub bytes: usize,
    /// When it was published, in milliseconds since 1970.
    pub published_unix_ms: u64,
    /// When it is over; `None`: never.
    pub expires_unix_ms: Option<u64>,
}

/// A look at some of one shard's retained messages.
#[derive(Clone, Debug)]
pub struct RetainedQuery {
    /// With this topic it goes on; `None`: from the beginning.
    pub from: Option<String>,
    /// No more are wanted than this.
    pub limit: usize,
    /// Whose topics match.
    pub filter: TopicFilter,
    /// Where the answer goes.
    pub answer: flume::Sender<RetainedPage>,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetainedPage {
    /// In the order of the topics' bytes.
    pub retained: Vec<RetainedReport>,
    /// Where to go on; `None`: that was all of this shard.
    pub next: Option<String>,
}

/// Where to go on with the subscriptions of all shards, as text: `2.17`, or `2.17.YS9i` behind a filter.
pub(crate) type SubscriptionsCursor = Cursor<(u32, Option<TopicFilter>)>;

impl SubscriptionsCursor {
    pub fn text(self) -> String {
        let (place, behind) = self.place;
        let behind = behind.map(|filter| format!(".{}", BASE64_URL_SAFE_NO_PAD.encode(filter.as_str())));
        format!("{}.{place}{}", self.shard.0, behind.unwrap_or_default())
    }

    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '.');
        let (shard, place) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let filter = |text: &str| TopicFilter::new(decoded(text)?).ok();
        let behind = match parts.next() {
            Some(text) => Some(filter(text)?),
            None => None,
        };
        Some(Self { shard: ShardId(shard), place: (place, behind) })
    }
}

/// Where to go on with the retained messages of all shards, as text: `2`, or `2.YS9i` at a topic.
pub(crate) type RetainedCursor = Cursor<Option<String>>;

impl RetainedCursor {
    pub fn text(self) -> String {
        let topic = self.place.map(|topic| format!(".{}", BASE64_URL_SAFE_NO_PAD.encode(topic)));
        format!("{}{}", self.shard.0, topic.unwrap_or_default())
    }

    pub fn parse(text: &str) -> Option<Self> {
        let (shard, place) = match text.split_once('.') {
            Some((shard, topic)) => (shard, Some(decoded(topic)?)),
            None => (text, None),
        };
        Some(Self { shard: ShardId(shard.parse().ok()?), place })
    }
}

fn decoded(text: &str) -> Option<String> {
    String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

impl SubscriptionsFilter {
    /// As a caller says it; what is not set is not asked.
    pub(crate) fn of(client: Option<String>, filter: Option<&str>, topic: Option<&str>) -> Result<Self, Problem> {
        Ok(Self {
            client: client.map(Into::into),
            filter: filter.map(filter_of).transpose()?,
            topic: topic.map(topic_of).transpose().map_err(Problem::bad)?,
        })
    }

    /// Whether one with this filter is meant.
    pub fn fits(&self, filter: &TopicFilter) -> bool {
        self.filter.as_ref().is_none_or(|wanted| wanted == filter)
            && self.topic.as_ref().is_none_or(|topic| filter.matches(topic))
    }
}

/// A topic filter of a caller.
pub(crate) fn filter_of(text: &str) -> Result<TopicFilter, Problem> {
    TopicFilter::new(text).map_err(|error| Problem::bad(format!("filter: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_read_as_they_were_written() {
        for behind in [None, Some("a/#"), Some("$share/g/ä b/+")] {
            let place = (7, behind.map(|filter| TopicFilter::new(filter).expect("a filter")));
            let cursor = SubscriptionsCursor { shard: ShardId(3), place };
            assert_eq!(SubscriptionsCursor::parse(&cursor.clone().text()), Some(cursor));
        }
        for place in [None, Some("a/ä".to_owned())] {
            let cursor = RetainedCursor { shard: ShardId(3), place };
            assert_eq!(RetainedCursor::parse(&cursor.clone().text()), Some(cursor));
        }
        for text in ["", "1", "a.1", "1.a", "1.2.!", "1.2.", "70000.1"] {
            assert_eq!(SubscriptionsCursor::parse(text), None, "{text}");
        }
        for text in ["", "a", "1.!", "70000"] {
            assert_eq!(RetainedCursor::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_subscription_fits_what_is_set() {
        let of = |filter, topic| SubscriptionsFilter::of(None, filter, topic).expect("a good filter");
        let filter = TopicFilter::new("$share/g/a/+").expect("a filter");
        assert!(of(None, None).fits(&filter));
        assert!(of(Some("$share/g/a/+"), Some("a/b")).fits(&filter));
        assert!(!of(Some("a/+"), None).fits(&filter) && !of(None, Some("b/b")).fits(&filter));
        assert!(SubscriptionsFilter::of(None, Some("a/#/b"), None).is_err());
        assert!(SubscriptionsFilter::of(None, None, Some("a/#")).is_err());
    }
}
