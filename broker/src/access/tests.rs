//! The decisions, the file's errors, and `covers` and `overlaps` against enumerated topics.

use bytestring::ByteString;
use postroad_base::{ClientId, TopicFilter, filter_matches};
use proptest::prelude::*;

use super::pattern::{Pattern, Values};
use super::*;

fn principal(user: Option<&str>, groups: &[&str]) -> Principal {
    Principal { user: user.map(ByteString::from), groups: groups.iter().map(|g| ByteString::from(*g)).collect() }
}

/// Each line: user (`-`: none), client, action, topic.
fn decide(acl: &Acl, question: &str) -> bool {
    let mut words = question.splitn(4, ' ');
    let mut word = || words.next().unwrap_or("");
    let user = Some(word()).filter(|user| *user != "-");
    let groups: &[&str] = match user {
        Some("ann") => &["drivers", "night"],
        Some("$local") => &["$api"],
        _ => &[],
    };
    let client = ClientId::from(word());
    let action = match word() {
        "connect" => Action::Connect,
        "publish" => Action::Publish,
        "subscribe" => Action::Subscribe,
        other => panic!("{other}"),
    };
    acl.decide(&principal(user, groups), &client, action, word())
}

#[track_caller]
fn check(rules: &str, allowed: &[&str], denied: &[&str]) {
    let acl = Acl::parse(rules).expect("valid rules");
    check_acl(&acl, allowed, denied);
}

#[track_caller]
fn check_acl(acl: &Acl, allowed: &[&str], denied: &[&str]) {
    for question in allowed {
        assert!(decide(acl, question), "should be allowed: {question}");
    }
    for question in denied {
        assert!(!decide(acl, question), "should be denied: {question}");
    }
}

#[test]
fn without_a_file_all_is_allowed_but_the_reserved_roots() {
    check_acl(
        &Acl::default(),
        &[
            "- c1 connect",
            "- c1 publish a/b",
            "- c1 subscribe #",
            "- c1 subscribe +/+",
            "- c1 subscribe $SYS/#",
            "- c1 subscribe $client/c1/#",
            "- c1 subscribe $client/c1/inbox/+",
            "- c1 subscribe $share/g/$client/c1/jobs",
            "ann c1 subscribe $user/ann/#",
            "ann c1 subscribe $group/drivers/#",
            "ann c1 subscribe $group/night/x",
            "- c1 subscribe $all/#",
            "$local c1 connect",
            "$local c1 publish $client/c2/x",
            "$local c1 publish $all/x",
        ],
        &[
            "$local c1 publish $SYS/x",
            "$local c1 subscribe $client/c2/x",
            "- c1 publish $client/c1/x",
            "- c1 publish $client/c2/x",
            "- c1 publish $user/ann",
            "- c1 publish $group/drivers/x",
            "- c1 publish $all/x",
            "- c1 publish $all",
            "- c1 publish $SYS/x",
            "- c1 subscribe $client/#",
            "- c1 subscribe $client/+/x",
            "- c1 subscribe $client/c2/#",
            "- c1 subscribe $share/g/$client/c2/#",
            "- c1 subscribe $user/ann/#",
            "bob c1 subscribe $user/ann/#",
            "bob c1 subscribe $group/drivers/#",
            "ann c1 subscribe $group/day/#",
            "ann c1 subscribe $group/#",
            // Client ids that would widen a rule.
            "- + subscribe $client/+/#",
            "- # subscribe $client/#",
            "- a/b subscribe $client/a/b/x",
        ],
    );
}

#[test]
fn the_first_rule_that_matches_decides_and_none_means_no() {
    check(
        r#"
        [[rule]]
        principal = "user:eve"
        action = "*"
        effect = "deny"
        [[rule]]
        principal = "*"
        action = "connect"
        effect = "allow"
        [[rule]]
        principal = "group:drivers"
        action = "publish"
        topic = "fleet/%u/%c/#"
        effect = "allow"
        [[rule]]
        principal = "client:board"
        action = "subscribe"
        topic = "fleet/#"
        effect = "allow"
        [[rule]]
        principal = "anonymous"
        action = "*"
        topic = "public/#"
        effect = "allow"
        "#,
        &[
            "ann c1 connect",
            "- c1 connect",
            "ann c1 publish fleet/ann/c1",
            "ann c1 publish fleet/ann/c1/speed",
            "bob board subscribe fleet/+/speed",
            "bob board subscribe $share/g/fleet/#",
            "- c1 publish public/x",
            "- c1 subscribe public/#",
        ],
        &[
            "eve c1 connect",
            "eve board subscribe fleet/#",
            "ann c1 publish fleet/bob/c1/x",
            "ann c1 publish fleet/ann/c2/x",
            "bob c1 publish fleet/bob/c1/x",
            "bob board subscribe #",
            "bob board subscribe +/speed",
            "bob board publish fleet/x",
            "ann c1 subscribe public/x",
            "- c1 publish other",
        ],
    );
}

/// A rule for wide filters must not let a forbidden part through.
#[test]
fn a_deny_rule_holds_for_every_filter_that_overlaps_it() {
    check(
        r#"
        [[rule]]
        principal = "*"
        action = "*"
        topic = ["secret/#", "own/%u/key"]
        effect = "deny"
        [[rule]]
        principal = "*"
        action = "*"
        effect = "allow"
        "#,
        &[
            "ann c1 connect",
            "ann c1 subscribe public/#",
            "ann c1 subscribe other/ann/door",
            "ann c1 subscribe own/bob/#",
            "ann c1 subscribe $SYS/#",
            "- c1 subscribe own/#", // no user: the rule with %u matches nothing
        ],
        &[
            "ann c1 subscribe #",
            "ann c1 subscribe +",
            "ann c1 subscribe +/x",
            "ann c1 subscribe secret",
            "ann c1 subscribe $share/g/#",
            "ann c1 subscribe own/#",
            "ann c1 subscribe +/ann/key",
            "ann c1 publish secret/a/b",
        ],
    );
}

#[test]
fn what_a_client_chose_never_widens_a_rule() {
    let rules = r#"
        [[rule]]
        principal = "*"
        action = "*"
        topic = ["%c/#", "dev-%c/x", "100%%/%u"]
        effect = "allow"
        "#;
    check(
        rules,
        &["- c1 publish c1/x", "- c1 subscribe c1/+", "- c1 publish dev-c1/x", "u c1 publish 100%/u"],
        &[
            "- $SYS publish $SYS/x",
            "- $client subscribe $client/#",
            "- + subscribe +/#",
            "- + publish +/x",
            "- # subscribe #",
            "- a/b publish a/b",
            "- a/b publish a/b/c",
            "-  publish /x",
            "- c1 publish c1x/x",
            "- c1 publish dev-c1y/x",
            "- c1 publish 100%/u",
        ],
    );
}

#[test]
fn errors_say_where_and_what_to_do() {
    let rule = |lines: &str| format!("# ours\n\n[[rule]]\n{lines}\n");
    let error = |text: &str| Acl::parse(text).expect_err("must be refused").to_string();
    for (lines, expected) in [
        (
            "principal = \"bob\"\naction = \"*\"\neffect = \"deny\"",
            "line 3, rule 1: principal \"bob\" is unknown: write",
        ),
        ("principal = \"user:\"\naction = \"*\"\neffect = \"deny\"", "principal \"user:\" is unknown"),
        ("principal = \"*\"\naction = \"read\"\neffect = \"deny\"", "action \"read\" is unknown: write \"connect\""),
        ("principal = \"*\"\naction = []\neffect = \"deny\"", "action is an empty list"),
        ("principal = \"*\"\naction = \"connect\"\ntopic = \"a\"\neffect = \"deny\"", "topic has no meaning"),
        ("principal = \"*\"\naction = \"*\"\ntopic = \"a#\"\neffect = \"deny\"", "topic \"a#\": wildcard in the wrong"),
        ("principal = \"*\"\naction = \"*\"\ntopic = \"$share/g/a\"\neffect = \"deny\"", "leave out '$share"),
        ("principal = \"*\"\naction = \"*\"\ntopic = \"a/%x\"\neffect = \"deny\"", "'%' must be followed by"),
        (
            "principal = \"*\"\naction = \"*\"\neffect = \"maybe\"",
            "unknown variant `maybe`, expected `allow` or `deny`",
        ),
        (
            "principal = \"*\"\naction = \"*\"\neffect = \"deny\"\ntopics = \"a\"",
            "unknown field `topics`, expected one of",
        ),
        ("action = \"*\"\neffect = \"deny\"", "missing field `principal`"),
        ("principal = 7\naction = \"*\"\neffect = \"deny\"", "expected a text or a list of texts"),
        ("principal = ", "line 4"),
    ] {
        let error = error(&rule(lines));
        assert!(error.starts_with("access rules") && error.contains(expected), "{lines}\n→ {error}");
    }
    assert!(error("[[rules]]\n").contains("unknown field `rules`, expected `rule`"));
    let second =
        "[[rule]]\nprincipal = \"*\"\naction = \"*\"\neffect = \"deny\"\n".repeat(2).replacen("\"*\"", "\"x\"", 1);
    assert!(error(&second).contains("line 1, rule 1"));
}

#[test]
fn an_empty_file_denies_everything() {
    check("", &[], &["- c1 connect", "ann c1 publish a", "ann c1 subscribe a"]);
}

/// The example in the documentation is a valid file and does what the text beside it says.
#[test]
fn the_documented_example_works() {
    let page = include_str!("../../../docs/access.md");
    let example = page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    check(
        example,
        &[
            "backend b connect",
            "backend b publish $client/car-7/alert",
            "backend b publish anything",
            "car c1 connect",
            "car c1 publish fleet/c1/speed",
            "car c1 subscribe fleet/c1/commands/#",
            "ann c9 subscribe fleet/+/position",
        ],
        &[
            "- c1 connect",
            "car c1 publish fleet/c2/speed",
            "car c1 subscribe fleet/#",
            "ann c9 subscribe fleet/+/commands/x",
            "ann c9 publish fleet/c1/speed",
        ],
    );
    let built_in =
        page.split("```toml\n").nth(2).and_then(|rest| rest.split("```").next()).expect("the built-in rules");
    assert_eq!(Acl::parse(built_in), Ok(Acl::default()), "docs/access.md and default.toml differ");
}

const NO_VALUES: Values<'_> = Values { client: "c", user: None, groups: &[] };
/// Level names for patterns; topics also use two that no pattern holds.
const NAMES: [&str; 4] = ["a", "b", "", "$r"];

fn filter() -> impl Strategy<Value = String> {
    let level = prop_oneof![2 => prop::sample::select(&NAMES[..]), 2 => Just("+")];
    (prop::collection::vec(level, 0..3), any::<bool>())
        .prop_map(|(mut levels, all)| {
            levels.extend(all.then_some("#"));
            levels.join("/")
        })
        .prop_filter("a valid filter", |filter| TopicFilter::new(filter.clone()).is_ok())
}

/// Every topic of up to `depth` levels; among them the empty one, which is no valid topic, but of one level.
fn all_topics(depth: usize) -> Vec<String> {
    let names = ["a", "b", "", "$r", "other", "$other"];
    let mut topics: Vec<String> = names.map(String::from).into();
    let mut from = 0;
    for _ in 1..depth {
        let to = topics.len();
        let deeper: Vec<String> =
            topics[from..to].iter().flat_map(|topic| names.map(|name| format!("{topic}/{name}"))).collect();
        topics.extend(deeper);
        from = to;
    }
    topics
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Two levels before `#`: topics of four levels show every difference.
    #[test]
    fn covers_and_overlaps_are_what_enumeration_says(rule in filter(), asked in filter()) {
        let pattern = Pattern::parse(&rule).expect("valid");
        let topics = all_topics(4);
        let matches = |filter: &str, topic: &str| filter_matches(filter, topic);
        for topic in &topics {
            prop_assert_eq!(pattern.matches(NO_VALUES, topic), matches(&rule, topic), "{} ~ {}", rule, topic);
        }
        let mut of_asked = topics.iter().filter(|topic| matches(&asked, topic));
        let covered = of_asked.clone().all(|topic| matches(&rule, topic));
        prop_assert_eq!(pattern.covers(NO_VALUES, &asked), covered, "{} covers {}", rule, asked);
        let overlap = of_asked.any(|topic| matches(&rule, topic));
        prop_assert_eq!(pattern.overlaps(NO_VALUES, &asked), overlap, "{} overlaps {}", rule, asked);
    }

    /// Whatever a client calls itself and asks for: without a file it reads nobody's pushes but its own, and sends none.
    #[test]
    fn no_name_opens_the_reserved_roots(
        name in "[$+#/%ab]{0,4}|\\$client|\\$user|\\$group|\\$all|\\$SYS",
        root in prop::sample::select(&["$client", "$user", "$group"][..]),
        rest in "(/([+#%]|[ab]{0,2}|victim)){0,3}",
        share in prop::sample::select(&["", "$share/g/"][..]),
    ) {
        let acl = Acl::default();
        let who = principal(Some(&name), &[&name]);
        let client = ClientId::from(&*name);
        let asked = format!("{root}{rest}");
        prop_assert!(!acl.decide(&who, &client, Action::Publish, &asked), "{name:?} publishes to {asked}");
        let private = [format!("{root}/victim"), format!("{root}/victim/x"), format!("{root}/victim/a/b")];
        if private.iter().any(|topic| filter_matches(&asked, topic)) {
            let filter = format!("{share}{asked}");
            prop_assert!(!acl.decide(&who, &client, Action::Subscribe, &filter), "{name:?} subscribes to {filter}");
        }
    }
}
