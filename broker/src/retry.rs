//! How often, for how long and how soon again: the rules by which a delivery is retried.
//!
//! ```text
//! what the publisher wished ► the first entry by topic whose filter matches ► the configuration
//! ```
//!
//! Nothing is kept of a decision: it is made anew from the configuration in force, so that a reload holds for what is under
//! way, too. A message without wishes costs two looks at nothing while there are no entries by topic.

use std::num::NonZeroU32;

use base::{Message, Sequence, TopicFilter};
use postroad_base as base;

use crate::broker::Broker;
use crate::drain::spread;
use crate::index::Subscriptions;
use crate::session::SessionIndex;

/// When a delivery is sent again, and when it is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How often it is sent at most; 0: without limit.
    pub attempts_max: u32,
    /// Milliseconds that its client may be here with it in flight and not acknowledge it; 0: for ever.
    pub age_max_ms: u64,
    /// So many resends on one connection follow at once when the acknowledgement is late; later ones wait besides.
    pub immediate: u32,
    /// How long the first of those waits, in milliseconds; each that follows twice as long.
    pub backoff_min_ms: u64,
    /// How long they wait at most.
    pub backoff_max_ms: u64,
}

impl RetryPolicy {
    /// The defaults.
    pub const DEFAULT: Self = Self {
        attempts_max: 100,
        age_max_ms: 86_400_000,
        immediate: 2,
        backoff_min_ms: 10_000,
        backoff_max_ms: 300_000,
    };

    /// Milliseconds beyond the deadline of an acknowledgement until the delivery is sent again, after so many resends on its
    /// connection. `seed` chooses up to half of it to be left out, so that those that were late together part.
    pub(crate) fn backoff(&self, resends: u8, seed: u64) -> u64 {
        let Some(doublings) = u32::from(resends).checked_sub(self.immediate) else { return 0 };
        let whole = self.backoff_min_ms.saturating_mul(1 << doublings.min(32)).min(self.backoff_max_ms);
        whole - spread("", seed).checked_rem(whole / 2 + 1).unwrap_or(0)
    }

    /// As a publisher wished.
    fn with(self, attempts_max: Option<NonZeroU32>, age_max_ms: Option<u64>) -> Self {
        Self {
            attempts_max: attempts_max.map_or(self.attempts_max, NonZeroU32::get),
            age_max_ms: age_max_ms.unwrap_or(self.age_max_ms),
            ..self
        }
    }
}

/// The entries by topic.
#[derive(Debug, Default)]
pub(crate) struct TopicPolicies(Subscriptions<u32, RetryPolicy>);

impl TopicPolicies {
    fn new(entries: &[(TopicFilter, RetryPolicy)]) -> Self {
        let mut policies = Subscriptions::default();
        for (place, (filter, policy)) in (0..).zip(entries) {
            policies.insert(filter.as_str(), place, *policy);
        }
        Self(policies)
    }

    /// Of the entries whose filters match, the first one.
    fn find(&self, topic: &str) -> Option<RetryPolicy> {
        let mut first: Option<(u32, RetryPolicy)> = None;
        self.0.matches(topic, &mut |place, policy| {
            if first.is_none_or(|(known, _)| place < known) {
                first = Some((place, *policy));
            }
        });
        first.map(|(_, policy)| policy)
    }
}

impl Broker {
    /// Policies for the messages of these topics, instead of [`crate::Limits::retry`]; the first one that matches holds. They
    /// replace those before, also for what is under way.
    pub fn set_retry_topics(&mut self, entries: &[(TopicFilter, RetryPolicy)]) {
        self.topic_policies = TopicPolicies::new(entries);
        self.watch_anew();
    }

    /// By which rules a message is retried.
    #[inline]
    pub(crate) fn retry_policy(&self, message: &Message) -> RetryPolicy {
        if self.has_usual_policy(message) { self.config.limits.retry } else { self.special_policy(message) }
    }

    /// Whether nothing is said of it but the configuration.
    #[inline]
    pub(crate) fn has_usual_policy(&self, message: &Message) -> bool {
        message.extras.is_none() && self.topic_policies.0.is_empty()
    }

    fn special_policy(&self, message: &Message) -> RetryPolicy {
        let by_topic = self.topic_policies.find(message.topic.as_str()).unwrap_or(self.config.limits.retry);
        message.wishes().map_or(by_topic, |wishes| by_topic.with(wishes.attempts_max, wishes.age_max_ms))
    }

    /// Whether a delivery that was sent before, here or in a former run, may be sent once more.
    pub(crate) fn has_attempts_left(&self, index: SessionIndex, sequence: Sequence, message: &Message) -> bool {
        let most = self.retry_policy(message).attempts_max;
        let before = self.sessions[index as usize].queue.attempts_at(sequence).map_or(1, |attempts| attempts.count);
        most == 0 || before < most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policies(filters: &[&str]) -> TopicPolicies {
        let policy = |place: usize| RetryPolicy { attempts_max: place as u32, ..RetryPolicy::DEFAULT };
        let filter = |text: &&str| TopicFilter::new(*text).expect("a filter");
        let entries: Vec<_> = filters.iter().map(filter).enumerate().map(|(place, f)| (f, policy(place))).collect();
        TopicPolicies::new(&entries)
    }

    #[test]
    fn the_first_entry_that_matches_holds() {
        let policies = policies(&["a/b", "a/+", "a/#", "a/b", "$client/+/alarm"]);
        let found = |topic| policies.find(topic).map(|policy| policy.attempts_max);
        assert_eq!(
            ["a/b", "a/c", "a/c/d", "b", "$client/x/alarm"].map(found),
            [Some(0), Some(1), Some(2), None, Some(4)]
        );
        assert_eq!(super::TopicPolicies::default().find("a"), None);
    }

    #[test]
    fn what_waits_waits_longer_each_time_up_to_its_most() {
        let policy = RetryPolicy { immediate: 2, backoff_min_ms: 1_000, backoff_max_ms: 6_000, ..RetryPolicy::DEFAULT };
        for (resends, most) in [(0, 0), (1, 0), (2, 1_000), (3, 2_000), (4, 4_000), (5, 6_000), (255, 6_000)] {
            let waits: Vec<u64> = (0..200).map(|seed| policy.backoff(resends, seed)).collect();
            assert!(waits.iter().all(|wait| (most / 2..=most).contains(wait)), "{resends}: {waits:?}");
            let spread = waits.iter().max().zip(waits.iter().min()).map_or(0, |(max, min)| max - min);
            assert!(most == 0 || spread > most / 4, "{resends}: {waits:?}");
        }
        let at_once = RetryPolicy { backoff_min_ms: 0, ..policy };
        assert_eq!(at_once.backoff(9, 1), 0);
    }
}
