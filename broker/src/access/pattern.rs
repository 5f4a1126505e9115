//! The topic of a rule: a topic filter with placeholders, ready to be compared without allocating.
//!
//! Three questions: does it *match* a topic name, does it *cover* a topic filter (every topic that the filter
//! matches, it matches too), does it *overlap* one (some topic matches both).

use bytestring::ByteString;
use postroad_base::{TopicError, TopicFilter};
use smallvec::SmallVec;

/// What placeholders stand for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Values<'a> {
    pub client: &'a str,
    pub user: Option<&'a str>,
    pub groups: &'a [ByteString],
}

/// A parsed filter with placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    levels: Vec<Level>,
    /// Whether `%g` occurs: then each group is tried.
    by_group: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Level {
    Plus,
    Hash,
    /// Compared with the level's text, one after the other.
    Text(SmallVec<[Piece; 1]>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<str>),
    Client,
    User,
    Group,
}

/// Why a text is no topic of a rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// As for any topic filter.
    #[error("{0}")]
    Topic(#[from] TopicError),
    /// Rules look through share groups.
    #[error("leave out '$share/<name>/': a rule for the filter behind it holds for shared subscriptions, too")]
    Shared,
    /// A `%` that stands for nothing.
    #[error("'%' must be followed by 'c' (client id), 'u' (user), 'g' (group) or '%' (a percent sign)")]
    Placeholder,
}

/// The values of one try: of the groups, one.
#[derive(Clone, Copy)]
struct Bound<'a> {
    client: &'a str,
    user: Option<&'a str>,
    group: Option<&'a str>,
}

impl Pattern {
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if TopicFilter::new(text)?.is_shared() {
            return Err(PatternError::Shared);
        }
        let levels = text.split('/').map(parse_level).collect::<Result<Vec<_>, _>>()?;
        let is_group = |level: &Level| matches!(level, Level::Text(pieces) if pieces.contains(&Piece::Group));
        let by_group = levels.iter().any(is_group);
        Ok(Self { levels, by_group })
    }

    /// Whether the topic name matches.
    pub fn matches(&self, values: Values<'_>, topic: &str) -> bool {
        self.any(values, |bound| matches(&self.levels, topic, bound))
    }

    /// Whether every topic name that matches `filter` matches.
    pub fn covers(&self, values: Values<'_>, filter: &str) -> bool {
        self.any(values, |bound| covers(&self.levels, filter, bound))
    }

    /// Whether some topic name that matches `filter` matches.
    pub fn overlaps(&self, values: Values<'_>, filter: &str) -> bool {
        self.any(values, |bound| overlaps(&self.levels, filter, bound))
    }

    fn any(&self, values: Values<'_>, mut test: impl FnMut(Bound<'_>) -> bool) -> bool {
        let Values { client, user, groups } = values;
        if !self.by_group {
            return test(Bound { client, user, group: None });
        }
        groups.iter().any(|group| test(Bound { client, user, group: Some(group) }))
    }
}

impl Level {
    fn is_wildcard(&self) -> bool {
        matches!(self, Self::Plus | Self::Hash)
    }

    /// Whether any name matches it at all.
    fn can_match(&self, bound: Bound<'_>) -> bool {
        match self {
            Self::Plus | Self::Hash => true,
            Self::Text(pieces) => pieces.iter().all(|piece| piece.text(bound).is_some()),
        }
    }

    /// Whether it is text, and this text.
    fn is(&self, name: &str, bound: Bound<'_>) -> bool {
        let Self::Text(pieces) = self else { return false };
        let rest = pieces.iter().try_fold(name, |rest, piece| rest.strip_prefix(piece.text(bound)?));
        rest == Some("")
    }
}

impl Piece {
    /// `None`: nothing matches.
    fn text<'a>(&'a self, bound: Bound<'a>) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Client => harmless(bound.client),
            Self::User => harmless(bound.user?),
            Self::Group => harmless(bound.group?),
        }
    }
}

/// A value that stays within its level and doesn't turn it into a reserved root.
fn harmless(value: &str) -> Option<&str> {
    (!value.is_empty() && !value.starts_with('$') && !value.contains(['/', '+', '#'])).then_some(value)
}

fn parse_level(text: &str) -> Result<Level, PatternError> {
    match text {
        "+" => return Ok(Level::Plus),
        "#" => return Ok(Level::Hash),
        _ => {}
    }
    let mut pieces: SmallVec<[Piece; 1]> = SmallVec::new();
    let mut literal = String::new();
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        let placeholder = if char == '%' { chars.next() } else { Some('%') };
        let piece = match placeholder {
            Some('c') => Some(Piece::Client),
            Some('u') => Some(Piece::User),
            Some('g') => Some(Piece::Group),
            Some('%') => None, // a character that stands for itself
            _ => return Err(PatternError::Placeholder),
        };
        match piece {
            None => literal.push(char),
            Some(piece) => {
                if !literal.is_empty() {
                    pieces.push(Piece::Text(std::mem::take(&mut literal).into()));
                }
                pieces.push(piece);
            }
        }
    }
    if !literal.is_empty() {
        pieces.push(Piece::Text(literal.into()));
    }
    Ok(Level::Text(pieces))
}

/// `[MQTT-4.7.2-1]`: a wildcard at the first level does not match names that start with `$`.
fn hidden(levels: &[Level], topic: &str) -> bool {
    topic.starts_with('$') && levels.first().is_some_and(Level::is_wildcard)
}

fn matches(levels: &[Level], topic: &str, bound: Bound<'_>) -> bool {
    if hidden(levels, topic) {
        return false;
    }
    let mut names = topic.split('/');
    for level in levels {
        match (level, names.next()) {
            (Level::Hash, _) => return true,
            (Level::Plus, Some(_)) => {}
            (text, Some(name)) if text.is(name, bound) => {}
            _ => return false,
        }
    }
    names.next().is_none()
}

fn covers(levels: &[Level], filter: &str, bound: Bound<'_>) -> bool {
    if hidden(levels, filter) {
        return false;
    }
    // A topic has at least one level: `+/#` is as good as `#`. Only at the start: `a/#` matches also `a`.
    if filter == "#" {
        return matches!(levels, [Level::Hash] | [Level::Plus, Level::Hash]);
    }
    let mut names = filter.split('/');
    for level in levels {
        match (level, names.next()) {
            (Level::Hash, _) => return true,
            (Level::Plus, Some(name)) if name != "#" => {}
            (text, Some(name)) if text.is(name, bound) => {}
            _ => return false,
        }
    }
    names.next().is_none()
}

fn overlaps(levels: &[Level], filter: &str, bound: Bound<'_>) -> bool {
    if hidden(levels, filter) || (filter.starts_with(['+', '#']) && starts_reserved(levels)) {
        return false;
    }
    let mut names = filter.split('/');
    for (depth, level) in levels.iter().enumerate() {
        match (level, names.next()) {
            (Level::Hash, _) => return true,
            (_, Some("#")) => return levels[depth..].iter().all(|level| level.can_match(bound)),
            (level, Some("+")) if level.can_match(bound) => {}
            (Level::Plus, Some(_)) => {}
            (text, Some(name)) if text.is(name, bound) => {}
            _ => return false,
        }
    }
    matches!(names.next(), None | Some("#"))
}

fn starts_reserved(levels: &[Level]) -> bool {
    let Some(Level::Text(pieces)) = levels.first() else { return false };
    matches!(pieces.first(), Some(Piece::Text(text)) if text.starts_with('$'))
}
