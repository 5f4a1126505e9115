//! The access rules.

use postroad_base::{ClientId, TopicFilter, TopicName};
use postroad_broker::access::{Acl, Action};
use postroad_broker::api::Principal;

use crate::input::Input;

/// The first byte chooses: a text as a rule file, or a pattern against a filter and a topic.
pub fn check(input: &[u8]) {
    let mut input = Input(input);
    let chooses_text = input.byte() % 2 == 0;
    let Ok(text) = std::str::from_utf8(input.0) else { return };
    if chooses_text { check_text(text) } else { check_pattern(text) }
}

/// A file that is refused says why; one that is taken can be asked anything.
fn check_text(text: &str) {
    match Acl::parse(text) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(acl) => {
            for action in [Action::Connect, Action::Publish, Action::Subscribe] {
                for topic in ["a/b", "#", "+/b", "$share/g/a/#", "$SYS/x", ""] {
                    acl.decide(&principal("u", "g"), &ClientId::from("c"), action, topic);
                }
            }
        }
    }
}

/// What a subscription would bring must have been allowed, and nothing that a rule denies (docs/access.md):
/// - what `allow` covers, it matches name by name;
/// - a filter that could bring a denied name is denied.
fn check_pattern(text: &str) {
    let mut parts = text.splitn(6, '\n');
    let mut next = || parts.next().unwrap_or_default();
    let (pattern, filter, topic) = (next(), next(), next());
    let (client, user, group) = (ClientId::from(next()), next(), next());
    let (Ok(filter), Ok(topic)) = (TopicFilter::new(filter), TopicName::new(topic)) else { return };
    let Some(allow) = rules(pattern, "allow") else { return };
    let deny = rules(pattern, "deny").expect("the same pattern under the other effect");
    let principal = principal(user, group);
    let is_named = allow.decide(&principal, &client, Action::Publish, topic.as_str());
    if !filter.matches(&topic) {
        return;
    }
    let is_subscribed = |acl: &Acl| acl.decide(&principal, &client, Action::Subscribe, filter.as_str());
    if is_subscribed(&allow) {
        assert!(is_named, "{pattern:?} lets {filter:?} in, but not {topic:?}");
    }
    if is_named {
        assert!(!is_subscribed(&deny), "{pattern:?} is denied, but {filter:?} brings {topic:?}");
    }
}

fn principal(user: &str, group: &str) -> Principal {
    Principal { user: Some(user.into()), groups: [group.into()].into() }
}

/// One rule for the pattern. With `deny`, everything else is allowed. `None`: it is no pattern.
fn rules(pattern: &str, effect: &str) -> Option<Acl> {
    let quoted: String = pattern.chars().map(|char| format!("\\U{:08X}", u32::from(char))).collect();
    let mut text = format!("[[rule]]\nprincipal = '*'\naction = '*'\ntopic = \"{quoted}\"\neffect = '{effect}'\n");
    text = text.replace("action = '*'", "action = ['publish', 'subscribe']");
    if effect == "deny" {
        text += "[[rule]]\nprincipal = '*'\naction = ['publish', 'subscribe']\neffect = 'allow'\n";
    }
    Acl::parse(&text).ok()
}
