//! Who may connect, publish and subscribe: the access rules of `acl.file` (docs/access.md).
//!
//! Rules are tried in the order of the file; the first that matches decides; if none does, the answer is no.
//! Invariants:
//! - An `allow` rule matches a subscribe only if its topic *covers* the whole requested filter; a `deny` rule
//!   if it only *overlaps* it. Else `deny secret/#` could be evaded by subscribing to `#`.
//! - What a client chose itself (`%c`, `%u`) can never widen a rule: a value with `/`, `+`, `#`, with a `$` in
//!   front, or of no length matches nothing.

mod file;
mod pattern;

use std::fmt;

use postroad_base::ClientId;

use crate::api::Principal;
use pattern::{Pattern, Values};

pub use file::AclError;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// To have a session.
    Connect,
    /// To publish to a topic name; the will and retained messages included.
    Publish,
    /// To get what matches a topic filter.
    Subscribe,
}

/// The rules of a server.
#[derive(Clone, PartialEq, Eq)]
pub struct Acl {
    connect: Vec<Rule>,
    publish: Vec<Rule>,
    subscribe: Vec<Rule>,
}

/// One rule, under one action.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    who: Who,
    /// `None`: every topic, also those that start with `$`; but letters of others (`$dead/…`) are allowed only by a rule that
    /// names them, since files are older than letters are.
    topic: Option<Pattern>,
    effect: Effect,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Who {
    Anyone,
    Anonymous,
    User(Box<str>),
    Group(Box<str>),
    Client(Box<str>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Effect {
    Allow,
    Deny,
}

/// The rules without a file: everything, except what reaches other clients through the reserved roots
/// (DESIGN 5), and publishing in the name of the server.
const DEFAULT: &str = include_str!("default.toml");

impl Default for Acl {
    fn default() -> Self {
        Self::parse(DEFAULT).expect("the built-in rules are tested")
    }
}

impl fmt::Debug for Acl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connect, publish, subscribe } = self;
        write!(f, "Acl({} connect, {} publish, {} subscribe rules)", connect.len(), publish.len(), subscribe.len())
    }
}

impl Acl {
    /// Reads the text of a rule file.
    ///
    /// # Errors
    /// Names the line, the rule, what is wrong and what to do.
    pub fn parse(text: &str) -> Result<Self, AclError> {
        file::parse(text)
    }

    /// Whether the client may do this. `topic` is a topic name for `Publish`, a topic filter for `Subscribe`
    /// (with its `$share/<name>/`, which makes no difference), anything for `Connect`.
    pub fn decide(&self, principal: &Principal, client: &ClientId, action: Action, topic: &str) -> bool {
        let values = Values { client: client.as_str(), user: principal.user.as_deref(), groups: &principal.groups };
        let topic = if action == Action::Subscribe { without_share(topic) } else { topic };
        self.rules(action)
            .iter()
            .find(|rule| rule.matches(action, values, topic))
            .is_some_and(|rule| rule.effect == Effect::Allow)
    }

    fn rules(&self, action: Action) -> &[Rule] {
        match action {
            Action::Connect => &self.connect,
            Action::Publish => &self.publish,
            Action::Subscribe => &self.subscribe,
        }
    }
}

impl Rule {
    fn matches(&self, action: Action, values: Values<'_>, topic: &str) -> bool {
        self.who.is(values)
            && match (&self.topic, action, self.effect) {
                (_, Action::Connect, _) => true,
                (None, _, Effect::Allow) => !is_of_letters(topic),
                (None, _, Effect::Deny) => true,
                (Some(pattern), Action::Publish, _) => pattern.matches(values, topic),
                (Some(pattern), Action::Subscribe, Effect::Allow) => pattern.covers(values, topic),
                (Some(pattern), Action::Subscribe, Effect::Deny) => pattern.overlaps(values, topic),
            }
    }
}

/// A topic, or a filter that matches nothing else.
fn is_of_letters(topic: &str) -> bool {
    topic == "$dead" || topic.starts_with("$dead/")
}

impl Who {
    fn is(&self, values: Values<'_>) -> bool {
        match self {
            Self::Anyone => true,
            Self::Anonymous => values.user.is_none(),
            Self::User(name) => values.user == Some(name),
            Self::Group(name) => values.groups.iter().any(|group| **group == **name),
            Self::Client(name) => values.client == &**name,
        }
    }
}

/// The filter inside `$share/<name>/<filter>`.
fn without_share(filter: &str) -> &str {
    filter.strip_prefix("$share/").and_then(|rest| rest.split_once('/')).map_or(filter, |(_, inner)| inner)
}

#[cfg(test)]
mod tests;
