//! Both indexes against `base::filter_matches`, the plain definition.

use std::collections::{BTreeMap, BTreeSet};

use postroad_base::{TopicFilter, TopicName, filter_matches};
use proptest::prelude::*;

use super::retained::{Cursor, Retained};
use super::subscriptions::Subscriptions;

/// Few names, so that filters and topics meet. Among them: the empty level, texts that sort around `/`, texts of
/// which one starts the other, a `$` level, more than one byte per character.
const NAMES: [&str; 10] = ["", "a", "b", "aa", "a-", "a0", " ", "$x", "$SYS", "é"];

fn topic() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(&NAMES[..]), 1..6)
        .prop_map(|levels| levels.join("/"))
        .prop_filter("a topic is not empty", |topic| TopicName::new(topic.clone()).is_ok())
}

fn pattern() -> impl Strategy<Value = String> {
    let level = prop_oneof![3 => prop::sample::select(&NAMES[..]), 2 => Just("+")];
    (prop::collection::vec(level, 0..6), any::<bool>())
        .prop_map(|(mut levels, all)| {
            levels.extend(all.then_some("#"));
            levels.join("/")
        })
        .prop_filter("a valid filter", |pattern| TopicFilter::new(pattern.clone()).is_ok())
}

#[derive(Clone, Debug)]
enum Change {
    Insert(String, u8),
    Remove(String, u8),
    /// Removes the n-th that is there.
    RemoveKnown(usize),
}

fn change(text: impl Strategy<Value = String> + Clone + 'static) -> impl Strategy<Value = Change> {
    prop_oneof![
        5 => (text.clone(), 0_u8..4).prop_map(|(text, key)| Change::Insert(text, key)),
        1 => (text, 0_u8..4).prop_map(|(text, key)| Change::Remove(text, key)),
        3 => any::<usize>().prop_map(Change::RemoveKnown),
    ]
}

fn any_filter() -> impl Strategy<Value = String> + Clone {
    prop_oneof![pattern(), topic()].boxed()
}

type Model = BTreeMap<(String, u8), usize>;

fn expected(model: &Model, topic: &str) -> Vec<(u8, usize)> {
    let matching = model.iter().filter(|((pattern, _), _)| filter_matches(pattern, topic));
    let mut found: Vec<_> = matching.map(|((_, key), value)| (*key, *value)).collect();
    found.sort_unstable();
    found
}

fn found(index: &Subscriptions<u8, usize>, topic: &str) -> Vec<(u8, usize)> {
    let mut found = Vec::new();
    index.matches(topic, &mut |key, value| found.push((key, *value)));
    found.sort_unstable();
    found
}

fn apply(index: &mut Subscriptions<u8, usize>, model: &mut Model, change: Change, value: usize) {
    match change {
        Change::Insert(pattern, key) => {
            assert_eq!(index.insert(&pattern, key, value), model.insert((pattern, key), value));
        }
        Change::Remove(pattern, key) => {
            assert_eq!(index.remove(&pattern, key), model.remove(&(pattern, key)));
        }
        Change::RemoveKnown(_) if model.is_empty() => {}
        Change::RemoveKnown(n) => {
            let (pattern, key) = model.keys().nth(n % model.len()).expect("within the length").clone();
            assert_eq!(index.remove(&pattern, key), model.remove(&(pattern, key)));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn subscriptions_match_as_the_definition_says(
        changes in prop::collection::vec(change(any_filter()), 0..60),
        topics in prop::collection::vec(topic(), 1..30),
    ) {
        let (mut index, mut model) = (Subscriptions::default(), Model::new());
        for (value, change) in changes.into_iter().enumerate() {
            apply(&mut index, &mut model, change, value);
            prop_assert_eq!(index.len(), model.len());
        }
        for topic in &topics {
            prop_assert_eq!(found(&index, topic), expected(&model, topic), "{}", topic);
        }
        let patterns: BTreeSet<String> = model.keys().map(|(pattern, _)| pattern.clone()).collect();
        prop_assert_eq!(index.pattern_count(), patterns.len());
        prop_assert_eq!(index.patterns().collect::<BTreeSet<_>>(), patterns.clone());
        prop_assert_eq!(index.patterns().count(), patterns.len());
        for topic in topics.iter().chain(&patterns) {
            prop_assert_eq!(index.contains_pattern(topic), patterns.contains(topic), "{}", topic);
        }
        for (pattern, key) in model.keys() {
            prop_assert!(index.remove(pattern, *key).is_some());
        }
        prop_assert_eq!((index.len(), index.footprint()), (0, (0, 0, 0, 0)), "something stayed behind");
    }

    #[test]
    fn retained_match_as_the_definition_says(
        topics in prop::collection::vec(topic(), 0..60),
        removed in prop::collection::vec(topic(), 0..30),
        pattern in any_filter(),
        looks_max in 1_usize..5,
    ) {
        let (mut index, mut model) = (Retained::default(), BTreeMap::new());
        for (value, topic) in topics.into_iter().enumerate() {
            prop_assert_eq!(index.insert(&topic, value), model.insert(topic, value));
        }
        for topic in &removed {
            prop_assert_eq!(index.get(topic), model.get(topic));
            prop_assert_eq!(index.remove(topic), model.remove(topic));
        }
        prop_assert_eq!(index.len(), model.len());
        let expected: Vec<_> = model.into_iter().filter(|(topic, _)| filter_matches(&pattern, topic)).collect();
        let mut whole = Vec::new();
        index.matches(&pattern, &mut |topic, value| whole.push((topic.to_owned(), *value)));
        prop_assert_eq!(&whole, &expected);
        let (mut portions, mut cursor) = (Vec::new(), Some(Cursor::default()));
        while let Some(from) = cursor {
            let before = portions.len();
            cursor = index.portion(&pattern, from, looks_max, &mut |topic, v| portions.push((topic.to_owned(), *v)));
            prop_assert!(portions.len() - before <= looks_max);
        }
        prop_assert_eq!(&portions, &expected);
    }
}

/// Near the end of a page each portion looked at as many topics as were still wanted: at one, in the end, of thousands.
#[test]
fn a_walk_looks_on_until_it_has_what_is_wanted() {
    let mut index: Retained<()> = Retained::default();
    for vehicle in 0..100 {
        index.insert(&format!("fleet/{vehicle:03}/{}", if vehicle % 10 == 0 { "door" } else { "light" }), ());
    }
    let (mut pages, mut cursor) = (Vec::new(), Some(Cursor::default()));
    while let Some(from) = cursor {
        let mut found = Vec::new();
        cursor = index.portion_while("fleet/+/door", from, 50, &mut |topic, ()| {
            found.push(topic.to_owned());
            found.len() < 3
        });
        pages.push(found.len());
    }
    assert_eq!(pages, [3, 3, 3, 1]);
}

#[test]
fn a_walk_goes_on_while_topics_come_and_go() {
    let mut index: Retained<u32> = Retained::default();
    for name in ["a/1", "a/3", "a/5", "b"] {
        index.insert(name, 0);
    }
    let mut seen = Vec::new();
    let cursor = index.portion("a/+", Cursor::default(), 1, &mut |topic, _| seen.push(topic.to_owned()));
    index.remove("a/3"); // the very place where the walk stands
    index.insert("a/0", 0); // behind it
    index.insert("a/4", 0); // ahead of it
    let cursor = index.portion("a/+", cursor.expect("more follows"), 100, &mut |t, _| seen.push(t.to_owned()));
    assert_eq!((seen, cursor), (["a/1", "a/4", "a/5"].map(String::from).into(), None));
}

/// What is looked at is what could match, not what is stored: counted in looks, by portions of one.
#[test]
fn a_walk_skips_what_cannot_match() {
    let mut index: Retained<()> = Retained::default();
    for vehicle in 0..20 {
        for signal in 0..100 {
            index.insert(&format!("fleet/{vehicle}/signals/{signal}"), ());
        }
        index.insert(&format!("fleet/{vehicle}/status"), ());
    }
    for (pattern, matches_expected, looks_most) in [
        ("fleet/+/status", 20, 61),
        ("fleet/7/#", 101, 102),
        ("fleet/7/status", 1, 2),
        ("fleet/+", 0, 21),
        ("fleet", 0, 1),
        ("other/#", 0, 1),
        ("+/+/signals/42", 20, 81),
        ("#", 2_020, 2_020),
    ] {
        let (mut matches, mut looks, mut cursor) = (0, 0, Some(Cursor::default()));
        while let Some(from) = cursor {
            cursor = index.portion(pattern, from, 1, &mut |_, ()| matches += 1);
            looks += 1;
        }
        assert_eq!(matches, matches_expected, "{pattern}");
        assert!(looks <= looks_most, "{pattern}: {looks} looks");
    }
}

/// No recursion anywhere: a filter and a topic of as many levels as fit need no more stack than others.
#[test]
fn the_deepest_filter_matches_the_deepest_topic() {
    let deep_topic = "/".repeat(65_535);
    let deep_pattern = format!("{}+", "+/".repeat(32_767));
    let half_topic = "/".repeat(32_767);
    let mut index = Subscriptions::default();
    for pattern in [&deep_topic, &half_topic, &deep_pattern, "#"] {
        assert_eq!(index.insert(pattern, 0_u8, 0), None);
    }
    assert_eq!(found(&index, &deep_topic).len(), 2);
    assert_eq!(found(&index, &half_topic).len(), 3);
    for pattern in [&deep_topic, &half_topic, &deep_pattern, "#"] {
        assert_eq!(index.remove(pattern, 0), Some(0));
    }
    assert_eq!(index.footprint(), (0, 0, 0, 0));
    let mut retained = Retained::default();
    retained.insert(&half_topic, ());
    let mut matches = 0;
    retained.matches(&deep_pattern, &mut |_, ()| matches += 1);
    assert_eq!(matches, 1);
}

#[test]
fn reserved_topics_are_hidden_from_wildcards_at_the_first_level() {
    // [MQTT-4.7.2-1]
    let mut index = Subscriptions::default();
    for (key, pattern) in ["#", "+/x", "+/#", "$SYS/#", "$SYS/+", "$SYS/x"].into_iter().enumerate() {
        index.insert(pattern, key as u8, 0);
    }
    let keys = |topic| found(&index, topic).into_iter().map(|(key, _)| key).collect::<Vec<_>>();
    assert_eq!(keys("$SYS/x"), [3, 4, 5]);
    assert_eq!(keys("a/x"), [0, 1, 2]);
    assert_eq!(keys("$SYS"), [3]);
    let mut retained = Retained::default();
    for topic in ["$SYS/x", "a/x"] {
        retained.insert(topic, ());
    }
    let mut topics = Vec::new();
    retained.matches("#", &mut |topic, ()| topics.push(topic.to_owned()));
    assert_eq!(topics, ["a/x"]);
}
