//! The topic filters of one hook, so that a message that it does not want never enters Lua.
//!
//! Most filters are one topic, or a prefix with `#` behind; these are compared as texts. `base::filter_matches` is the oracle of the tests.

use std::collections::HashSet;

use base::filter_matches;
use postroad_base as base;

/// Filters, sorted by how they are compared.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filters {
    /// `#` is among them: everything but `$…`.
    everything: bool,
    exact: HashSet<Box<str>, ahash::RandomState>,
    /// `a/b` of `a/b/#`, without `+`.
    prefixes: Vec<Box<str>>,
    others: Vec<Box<str>>,
}

impl Filters {
    /// Every topic that does not begin with `$`.
    pub(crate) fn everything() -> Self {
        Self { everything: true, ..Self::default() }
    }

    /// Adds a filter that was checked.
    pub(crate) fn add(&mut self, filter: &str) {
        let prefix = filter.strip_suffix("/#").filter(|prefix| !prefix.contains('+') && !prefix.is_empty());
        if filter == "#" {
            self.everything = true;
        } else if let Some(prefix) = prefix {
            self.prefixes.push(prefix.into());
        } else if filter.contains(['+', '#']) {
            self.others.push(filter.into());
        } else {
            self.exact.insert(filter.into());
        }
    }

    /// As they were written, sorted; none if it is every topic that does not begin with `$`.
    pub(crate) fn texts(&self) -> Vec<String> {
        let written = self.exact.iter().chain(&self.others).map(ToString::to_string);
        let mut texts: Vec<String> = written.chain(self.prefixes.iter().map(|prefix| format!("{prefix}/#"))).collect();
        if self.everything && !texts.is_empty() {
            texts.push("#".to_owned());
        }
        texts.sort();
        texts
    }

    /// Whether one of them matches.
    #[inline]
    pub(crate) fn match_topic(&self, topic: &str) -> bool {
        (self.everything && !topic.starts_with('$'))
            || (!self.exact.is_empty() && self.exact.contains(topic))
            || self.prefixes.iter().any(|prefix| is_below(prefix, topic))
            || self.others.iter().any(|filter| filter_matches(filter, topic))
    }
}

/// `#` matches the level above it, too.
fn is_below(prefix: &str, topic: &str) -> bool {
    topic.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn level() -> impl Strategy<Value = &'static str> {
        prop::sample::select(vec!["a", "b", "ab", "", "$a", "+", "#"])
    }

    proptest! {
        #[test]
        fn as_the_plain_definition_says(
            filters in prop::collection::vec(prop::collection::vec(level(), 1..5), 0..4),
            topic in prop::collection::vec(prop::sample::select(vec!["a", "b", "ab", "", "$a"]), 1..5),
        ) {
            let filters: Vec<String> = filters.iter().map(|levels| levels.join("/")).collect();
            let filters = filters.into_iter().filter(|filter| base::TopicFilter::new(filter.as_str()).is_ok());
            let filters: Vec<String> = filters.collect();
            let topic = topic.join("/");
            let mut compiled = Filters::default();
            filters.iter().for_each(|filter| compiled.add(filter));
            let expected = filters.iter().any(|filter| filter_matches(filter, &topic));
            prop_assert_eq!(compiled.match_topic(&topic), expected, "{:?} ~ {}", filters, topic);
        }
    }
}
