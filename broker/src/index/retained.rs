//! From a topic filter to what is stored under matching topic names.
//!
//! One ordered map of whole topics, in the order of their bytes, walked by *skipping*: a key that does not
//! match says what the next key must at least be to match, and the walk goes there. So
//! `fleet/+/status` makes one search per vehicle, however much else is stored below each. A position in the
//! walk is nothing but a text; it stays good while entries come and go (a trie would have to keep its nodes).
//!
//! Order of bytes is not order of levels: `a-b` stands between `a` and `a/b`. What holds, and is
//! enough: everything below `a` starts with `a/`, stands together, and ends before `a0` (`0` follows `/`).

use std::collections::BTreeMap;
use std::collections::btree_map::Range;
use std::ops::Bound;

/// Retained messages (or what stands for them) by topic.
#[derive(Debug)]
pub struct Retained<V> {
    topics: BTreeMap<Box<str>, V>,
}

/// Where a walk goes on. The default is its beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// No smaller topic is of interest any more.
    from: String,
}

impl Cursor {
    /// A walk goes on with this topic, if it matches.
    pub fn at(topic: &str) -> Self {
        Self { from: topic.to_owned() }
    }

    /// The topic with which the walk goes on.
    pub fn topic(&self) -> &str {
        &self.from
    }

    /// Whether nothing has been passed yet.
    pub fn is_start(&self) -> bool {
        self.from.is_empty()
    }

    /// Whether the walk has passed this topic.
    pub fn has_passed(&self, topic: &str) -> bool {
        *topic < *self.from
    }
}

impl<V> Default for Retained<V> {
    fn default() -> Self {
        Self { topics: BTreeMap::new() }
    }
}

impl<V> Retained<V> {
    /// Number of topics.
    pub fn len(&self) -> usize {
        self.topics.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// Stores under a topic; what was there before.
    pub fn insert(&mut self, topic: &str, value: V) -> Option<V> {
        if let Some(old) = self.topics.get_mut(topic) {
            return Some(std::mem::replace(old, value));
        }
        self.topics.insert(topic.into(), value)
    }

    /// Takes out what is stored under a topic.
    pub fn remove(&mut self, topic: &str) -> Option<V> {
        self.topics.remove(topic)
    }

    /// What is stored under a topic.
    pub fn get(&self, topic: &str) -> Option<&V> {
        self.topics.get(topic)
    }

    /// Everything, in the order of the topics' bytes.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &V)> {
        self.topics.iter().map(|(topic, value)| (&**topic, value))
    }

    /// Calls `found` for each topic that matches the pattern, in the order of the topics' bytes.
    pub fn matches(&self, pattern: &str, found: &mut impl FnMut(&str, &V)) {
        let rest = self.portion(pattern, Cursor::default(), usize::MAX, found);
        assert_eq!(rest, None, "the whole map is one portion");
    }

    /// As [`Self::matches`], but looks at no more than `looks_max` topics (at least one), matching or not.
    /// Returns where to go on, `None` at the end.
    ///
    /// A topic that is stored all the while is found exactly once. One that comes or goes meanwhile is found
    /// if it is there when the walk comes by.
    pub fn portion(
        &self,
        pattern: &str,
        cursor: Cursor,
        looks_max: usize,
        found: &mut impl FnMut(&str, &V),
    ) -> Option<Cursor> {
        self.portion_while(pattern, cursor, looks_max, &mut |topic, value| {
            found(topic, value);
            true
        })
    }

    /// The same; the portion ends as soon as `found` says that it wants no more.
    pub fn portion_while(
        &self,
        pattern: &str,
        cursor: Cursor,
        looks_max: usize,
        found: &mut impl FnMut(&str, &V) -> bool,
    ) -> Option<Cursor> {
        let mut target = cursor.from;
        if target.is_empty() {
            target.push_str(smallest_match(pattern));
        }
        let mut walk = self.range_from(&target);
        let mut next = walk.next();
        let (mut looks, mut wants_more) = (0, true);
        while let Some((topic, value)) = next {
            if !wants_more || looks >= looks_max.max(1) {
                return Some(Cursor { from: String::from(&**topic) });
            }
            looks += 1;
            let step = step(pattern, topic, &mut target);
            if step == Step::Match {
                wants_more = found(topic, value);
            }
            if step == Step::End {
                return None;
            }
            next = walk.next();
            // Often the next topic is already far enough: then a search is saved.
            if step == Step::Skip && next.is_some_and(|(topic, _)| **topic < *target) {
                walk = self.range_from(&target);
                next = walk.next();
            }
        }
        None
    }

    fn range_from(&self, from: &str) -> Range<'_, Box<str>, V> {
        self.topics.range::<str, _>((Bound::Included(from), Bound::Unbounded))
    }
}

/// How to go on from a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It matches; the next one may, too.
    Match,
    /// It doesn't; the next one may.
    Next,
    /// Nothing matches before `target`.
    Skip,
    /// Nothing matches any more.
    End,
}

/// Nothing smaller than this matches: the text before the first wildcard, without the slash
/// (`a/#` matches `a`).
fn smallest_match(pattern: &str) -> &str {
    match pattern.find(['+', '#']) {
        Some(wildcard) => pattern[..wildcard].strip_suffix('/').unwrap_or(""),
        None => pattern,
    }
}

/// Compares level by level. Writes `target` if it returns [`Step::Skip`].
fn step(pattern: &str, topic: &str, target: &mut String) -> Step {
    if topic.starts_with('$') && pattern.starts_with(['+', '#']) {
        return skip_to(target, "", "%"); // [MQTT-4.7.2-1]; '%' follows '$'
    }
    let mut levels = pattern.split('/').peekable();
    let mut start = 0; // where the topic's current level starts; behind the end: there is none
    while let Some(level) = levels.next() {
        if level == "#" {
            return Step::Match;
        }
        let Some(name) = topic.get(start..).map(|rest| rest.split('/').next().unwrap_or(rest)) else {
            return Step::Next; // the topic ends before the pattern; what is below it may match
        };
        if level != "+" && level != name {
            return step_to_level(topic, start, level, levels.peek().is_some(), target);
        }
        start += name.len() + 1;
    }
    match topic.get(..start) {
        // It goes on where the pattern ends: nothing below matches. `0` follows `/`.
        Some(above) => skip_to(target, &above[..above.len() - 1], "0"),
        None => Step::Match,
    }
}

/// The topic's level at `start` is not `level`, as it should be.
fn step_to_level(topic: &str, start: usize, level: &str, goes_on: bool, target: &mut String) -> Step {
    let prefix = &topic[..start];
    if skip_to(target, prefix, level) == Step::Skip && **target > *topic {
        return Step::Skip;
    }
    target.push('/');
    if goes_on && **target > *topic {
        return Step::Skip;
    }
    match prefix.strip_suffix('/') {
        Some(above) => skip_to(target, above, "0"), // behind everything with this prefix
        None => Step::End,
    }
}

fn skip_to(target: &mut String, prefix: &str, suffix: &str) -> Step {
    target.clear();
    target.push_str(prefix);
    target.push_str(suffix);
    Step::Skip
}
