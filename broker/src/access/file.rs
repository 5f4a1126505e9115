//! The rule file: TOML, a list of `[[rule]]`. Format: docs/access.md.

use serde::Deserialize;
use toml::Spanned;

use super::pattern::{Pattern, PatternError};
use super::{Acl, Action, Effect, Rule, Who};

/// Why a text is no rule file. All say where, what, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AclError {
    /// Not TOML, an unknown key, a missing key, a value of the wrong kind. The text shows the line.
    #[error("access rules: {0}")]
    Syntax(String),
    /// A rule that makes no sense.
    #[error("access rules, line {line}, rule {number}: {problem}")]
    Rule {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        number: usize,
        /// What is wrong with it.
        problem: RuleError,
    },
}

/// What is wrong with a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// An unknown form of principal.
    #[error("principal {0:?} is unknown: write \"user:NAME\", \"group:NAME\", \"client:ID\", \"anonymous\" or \"*\"")]
    Principal(String),
    /// An unknown action.
    #[error("action {0:?} is unknown: write \"connect\", \"publish\", \"subscribe\" or \"*\"")]
    Action(String),
    /// A rule for nothing.
    #[error("{0} is an empty list: name at least one, or leave the rule out")]
    Empty(&'static str),
    /// Connecting has no topic.
    #[error("topic has no meaning for action \"connect\": leave it out")]
    ConnectWithTopic,
    /// A bad filter.
    #[error("topic {0:?}: {1}")]
    Topic(String, PatternError),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    rule: Vec<Spanned<FileRule>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileRule {
    principal: OneOrMore,
    action: OneOrMore,
    topic: Option<OneOrMore>,
    effect: Effect,
}

#[derive(Clone, Deserialize)]
#[serde(untagged, expecting = "expected a text or a list of texts")]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    fn texts(&self, key: &'static str) -> Result<&[String], RuleError> {
        match self {
            Self::One(text) => Ok(std::slice::from_ref(text)),
            Self::More(texts) if texts.is_empty() => Err(RuleError::Empty(key)),
            Self::More(texts) => Ok(texts),
        }
    }
}

pub(super) fn parse(text: &str) -> Result<Acl, AclError> {
    let file: File = toml::from_str(text).map_err(|error| AclError::Syntax(error.to_string().trim_end().to_owned()))?;
    let mut acl = Acl { connect: Vec::new(), publish: Vec::new(), subscribe: Vec::new() };
    for (index, rule) in file.rule.iter().enumerate() {
        let place = |problem| AclError::Rule { line: line_of(text, rule.span().start), number: index + 1, problem };
        add(&mut acl, rule.get_ref()).map_err(place)?;
    }
    Ok(acl)
}

/// Lists are shorthands: a rule for each combination.
fn add(acl: &mut Acl, rule: &FileRule) -> Result<(), RuleError> {
    let topics = topics(rule)?;
    for action in actions(rule)? {
        for who in rule.principal.texts("principal")? {
            let who = parse_principal(who)?;
            let rule = |topic| Rule { who: who.clone(), topic, effect: rule.effect };
            match action {
                Action::Connect => acl.connect.push(rule(None)),
                Action::Publish => acl.publish.extend(topics.iter().cloned().map(rule)),
                Action::Subscribe => acl.subscribe.extend(topics.iter().cloned().map(rule)),
            }
        }
    }
    Ok(())
}

fn actions(rule: &FileRule) -> Result<Vec<Action>, RuleError> {
    let mut actions = Vec::new();
    for text in rule.action.texts("action")? {
        match &**text {
            "connect" if rule.topic.is_some() => return Err(RuleError::ConnectWithTopic),
            "connect" => actions.push(Action::Connect),
            "publish" => actions.push(Action::Publish),
            "subscribe" => actions.push(Action::Subscribe),
            // A rule with a topic never concerns connecting: else `deny` on one topic would lock clients out.
            "*" if rule.topic.is_some() => actions.extend([Action::Publish, Action::Subscribe]),
            "*" => actions.extend([Action::Connect, Action::Publish, Action::Subscribe]),
            other => return Err(RuleError::Action(other.to_owned())),
        }
    }
    Ok(actions)
}

fn topics(rule: &FileRule) -> Result<Vec<Option<Pattern>>, RuleError> {
    let Some(topic) = &rule.topic else { return Ok(vec![None]) };
    let parse =
        |text: &String| Pattern::parse(text).map(Some).map_err(|problem| RuleError::Topic(text.clone(), problem));
    topic.texts("topic")?.iter().map(parse).collect()
}

fn parse_principal(text: &str) -> Result<Who, RuleError> {
    let unknown = || RuleError::Principal(text.to_owned());
    match text {
        "*" => return Ok(Who::Anyone),
        "anonymous" => return Ok(Who::Anonymous),
        _ => {}
    }
    let (kind, name) = text.split_once(':').filter(|(_, name)| !name.is_empty()).ok_or_else(unknown)?;
    match kind {
        "user" => Ok(Who::User(name.into())),
        "group" => Ok(Who::Group(name.into())),
        "client" => Ok(Who::Client(name.into())),
        _ => Err(unknown()),
    }
}

/// Counted from 1.
fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}
