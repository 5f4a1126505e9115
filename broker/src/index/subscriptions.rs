//! From a topic name to its subscribers.

use std::hash::Hash;

use ahash::RandomState;

use super::has_wildcard;
use super::list::List;
use super::text::Text;
use super::trie::Trie;
use crate::table::Table;

/// All subscriptions of a shard: of its own sessions, and of other shards that want a filter.
///
/// `K` names a subscriber, once per pattern; `V` is what it asked for. Patterns without a wildcard, nearly all, are
/// found by one look into a hash table of whole topics; the others are in a trie.
#[derive(Debug)]
pub struct Subscriptions<K, V> {
    exact: Table<Exact<K, V>>,
    hasher: RandomState,
    wildcards: Trie<K, V>,
    len: usize,
}

#[derive(Debug)]
struct Exact<K, V> {
    topic: Text,
    subscribers: List<K, V>,
}

impl<K, V> Default for Subscriptions<K, V> {
    fn default() -> Self {
        Self { exact: Table::default(), hasher: RandomState::new(), wildcards: Trie::default(), len: 0 }
    }
}

impl<K: Copy + Eq + Hash, V> Subscriptions<K, V> {
    /// Number of subscriptions: of pairs of a pattern and a key.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Number of different patterns.
    pub fn pattern_count(&self) -> usize {
        self.exact.len() + self.wildcards.patterns()
    }

    /// Whether anybody has subscribed to exactly this pattern.
    pub fn contains_pattern(&self, pattern: &str) -> bool {
        !self.subscribers(pattern).is_empty()
    }

    /// Who has subscribed to exactly this pattern, in no particular order.
    pub fn subscribers(&self, pattern: &str) -> &[(K, V)] {
        if has_wildcard(pattern) { self.wildcards.get(pattern) } else { self.exact_subscribers(pattern) }
    }

    /// Makes a subscription, or replaces its value and returns the old one.
    pub fn insert(&mut self, pattern: &str, key: K, value: V) -> Option<V> {
        let old = if has_wildcard(pattern) {
            self.wildcards.insert(pattern, key, value)
        } else {
            self.insert_exact(pattern, key, value)
        };
        self.len += usize::from(old.is_none());
        old
    }

    /// Ends a subscription; its value if there was one.
    pub fn remove(&mut self, pattern: &str, key: K) -> Option<V> {
        let old =
            if has_wildcard(pattern) { self.wildcards.remove(pattern, key) } else { self.remove_exact(pattern, key) };
        self.len -= usize::from(old.is_some());
        old
    }

    /// Calls `found` for each subscription whose pattern matches the topic name: a key comes as often as it
    /// has matching patterns. Allocates nothing (for a topic of up to 16 levels, in any case).
    pub fn matches(&self, topic: &str, found: &mut impl FnMut(K, &V)) {
        self.matching_lists(topic, &mut |subscribers| {
            for (key, value) in subscribers {
                found(*key, value);
            }
        });
    }

    /// As [`Self::matches`], but a call for each matching pattern, with all its subscribers.
    pub fn matching_lists(&self, topic: &str, found: &mut impl FnMut(&[(K, V)])) {
        let exact = self.exact_subscribers(topic);
        if !exact.is_empty() {
            found(exact);
        }
        self.wildcards.matches(topic, found);
    }

    /// All patterns, each once, in no particular order.
    pub fn patterns(&self) -> impl Iterator<Item = String> {
        self.exact.iter().map(|entry| entry.topic.as_str().to_owned()).chain(self.wildcards.pattern_texts())
    }

    /// Nodes, edges and level texts of the trie, and whole topics: all 0 when nothing is left.
    #[cfg(test)]
    pub(super) fn footprint(&self) -> (usize, usize, usize, usize) {
        let (nodes, edges, texts) = self.wildcards.footprint();
        (nodes, edges, texts, self.exact.len())
    }

    fn exact_subscribers(&self, topic: &str) -> &[(K, V)] {
        let entry =
            self.exact.find(self.hasher.hash_one(topic.as_bytes()), |entry| entry.topic.as_bytes() == topic.as_bytes());
        entry.map_or(&[], |entry| entry.subscribers.as_slice())
    }

    fn insert_exact(&mut self, topic: &str, key: K, value: V) -> Option<V> {
        let hash = self.hasher.hash_one(topic.as_bytes());
        if let Some(entry) = self.exact.find_mut(hash, |entry| entry.topic.as_bytes() == topic.as_bytes()) {
            return entry.subscribers.insert(key, value);
        }
        let entry = Exact { topic: Text::new(topic), subscribers: List::One((key, value)) };
        let hasher = &self.hasher;
        self.exact.insert(hash, entry, |entry| hasher.hash_one(entry.topic.as_bytes()));
        None
    }

    fn remove_exact(&mut self, topic: &str, key: K) -> Option<V> {
        let hash = self.hasher.hash_one(topic.as_bytes());
        let is = |entry: &Exact<K, V>| entry.topic.as_bytes() == topic.as_bytes();
        let entry = self.exact.find_mut(hash, is)?;
        let value = entry.subscribers.remove(key)?;
        if entry.subscribers.is_empty() {
            let hasher = &self.hasher;
            self.exact.remove(hash, is, |entry| hasher.hash_one(entry.topic.as_bytes()));
        }
        Some(value)
    }
}
