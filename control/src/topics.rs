//! What the API tells of subscriptions and retained messages, and how they are looked for.

use std::collections::BTreeMap;

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

/// How many have subscribed to a filter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FilterCount {
    /// Clients; of a filter that begins with `$share/<name>/`: members of the share group.
    pub subscribers: u64,
    /// Consumer groups.
    pub groups: u64,
}

impl FilterCount {
    /// One subscription.
    pub fn of_one(is_group: bool) -> Self {
        Self { subscribers: u64::from(!is_group), groups: u64::from(is_group) }
    }
}

/// Filters with their counts, in the order of their bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilterCounts(BTreeMap<TopicFilter, FilterCount>);

impl FilterCounts {
    /// Counts these, and keeps the first `limit` filters. One that was let go never comes back: so many stand before it for good.
    pub fn add(&mut self, filter: &TopicFilter, FilterCount { subscribers, groups }: FilterCount, limit: usize) {
        let is_behind = self.0.len() >= limit && self.0.last_key_value().is_some_and(|(last, _)| last < filter);
        if is_behind {
            return;
        }
        let count = self.0.entry(filter.clone()).or_default();
        count.subscribers += subscribers;
        count.groups += groups;
        if self.0.len() > limit {
            self.0.pop_last();
        }
    }
}

/// Which filters are looked for: all that fit everything that is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FiltersWanted {
    /// That begin so.
    pub prefix: Option<String>,
    /// To which a message for this topic goes.
    pub topic: Option<TopicName>,
    /// Behind this one, in the order of the filters' bytes.
    pub after: Option<TopicFilter>,
}

/// A look at some of one shard's subscriptions, for their filters.
#[derive(Clone, Debug)]
pub struct FiltersQuery {
    /// Place of a session, and of that the filter behind which to go on.
    pub from: (u32, Option<TopicFilter>),
    /// Which filters.
    pub wanted: FiltersWanted,
    /// So many of them, the first ones.
    pub limit: usize,
    /// Where the answer goes.
    pub answer: flume::Sender<FiltersPage>,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FiltersPage {
    /// The first ones of what was looked at.
    pub filters: FilterCounts,
    /// Where to go on; `None`: that was all of this shard.
    pub next: Option<(u32, Option<TopicFilter>)>,
}

/// A filter of all shards, and how many have subscribed to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct FilterReport {
    /// What is asked for, `$share/<name>/` included.
    pub filter: String,
    #[serde(flatten)]
    pub count: FilterCount,
}

impl FiltersWanted {
    /// As a caller says it; what is not set is not asked.
    pub(crate) fn of(prefix: Option<String>, topic: Option<&str>, after: Option<TopicFilter>) -> Result<Self, Problem> {
        Ok(Self { prefix, topic: topic.map(topic_of).transpose().map_err(Problem::bad)?, after })
    }

    /// Whether this one is meant.
    pub fn fits(&self, filter: &TopicFilter) -> bool {
        let Self { prefix, topic, after } = self;
        after.as_ref().is_none_or(|after| filter > after)
            && prefix.as_ref().is_none_or(|prefix| filter.as_str().starts_with(prefix))
            && topic.as_ref().is_none_or(|topic| filter.matches(topic))
    }

    /// The filter behind which a page begins, as text to callers.
    pub(crate) fn text_of(after: &TopicFilter) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(after.as_str())
    }

    pub(crate) fn parse(text: &str) -> Option<TopicFilter> {
        TopicFilter::new(decoded(text)?).ok()
    }
}

impl FilterCounts {
    /// What these and those are together.
    pub(crate) fn merge(&mut self, others: Self, limit: usize) {
        others.0.into_iter().for_each(|(filter, count)| self.add(&filter, count, limit));
    }

    /// A page of so many, and behind which one the next begins.
    pub(crate) fn page(self, limit: usize) -> (Vec<FilterReport>, Option<TopicFilter>) {
        let more = self.0.len() > limit;
        let last = self.0.keys().nth(limit.saturating_sub(1)).filter(|_| more).cloned();
        let report =
            |(filter, count): (TopicFilter, FilterCount)| FilterReport { filter: filter.as_str().to_owned(), count };
        (self.0.into_iter().take(limit).map(report).collect(), last)
    }
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

    /// Whatever comes in which order: a page is the first filters of all, counted over everything that was looked at.
    #[test]
    fn pages_of_filters_are_those_of_the_whole() {
        let filters = ["b", "a/#", "c", "$share/g/a/#", "a/+", "b/c", "a/#", "a/#", "c"]
            .map(|text| TopicFilter::new(text).expect("a filter"));
        let (mut pages, mut after) = (Vec::new(), None);
        loop {
            let wanted = FiltersWanted { after, ..FiltersWanted::default() };
            let mut all = FilterCounts::default();
            for part in filters.chunks(4) {
                let mut found = FilterCounts::default();
                let fits = part.iter().filter(|filter| wanted.fits(filter));
                fits.for_each(|filter| found.add(filter, FilterCount::of_one(false), 3));
                all.merge(found, 3);
            }
            let (page, next) = all.page(2);
            pages.push(page.into_iter().map(|report| (report.filter, report.count.subscribers)).collect::<Vec<_>>());
            after = next.and_then(|next| FiltersWanted::parse(&FiltersWanted::text_of(&next)));
            if after.is_none() {
                break;
            }
        }
        let told: Vec<_> =
            pages.iter().map(|page| page.iter().map(|(f, n)| (f.as_str(), *n)).collect::<Vec<_>>()).collect();
        assert_eq!(
            told,
            [vec![("$share/g/a/#", 1), ("a/#", 3)], vec![("a/+", 1), ("b", 1)], vec![("b/c", 1), ("c", 2)]]
        );
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
