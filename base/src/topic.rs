//! Topic names and topic filters (MQTT 5, section 4.7).

use std::fmt;

use bytestring::ByteString;

/// Why a text is no topic name, topic filter or share name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// `[MQTT-4.7.3-1]`
    #[error("topic is empty: it needs at least one character")]
    Empty,
    /// `[MQTT-4.7.3-3]`
    #[error("topic has {0} bytes: at most 65,535 are allowed")]
    TooLong(usize),
    /// `[MQTT-4.7.3-2]`
    #[error("topic holds the null character U+0000")]
    NullCharacter,
    /// `[MQTT-3.3.2-2]`
    #[error("topic name holds a wildcard: '+' and '#' are for topic filters")]
    WildcardInName,
    /// `[MQTT-4.7.1-1]`, `[MQTT-4.7.1-2]`
    #[error("wildcard in the wrong place: '+' must fill a level, '#' the last one")]
    MisplacedWildcard,
    /// `[MQTT-4.8.2-1]`, `[MQTT-4.8.2-2]`
    #[error("not of the form $share/<name>/<filter> with a name without '/', '+' and '#'")]
    BadShare,
}

fn check_length(text: &str) -> Result<(), TopicError> {
    match text.len() {
        0 => Err(TopicError::Empty),
        n if n > 65_535 => Err(TopicError::TooLong(n)),
        _ if text.as_bytes().contains(&0) => Err(TopicError::NullCharacter),
        _ => Ok(()),
    }
}

/// What a message is published to: no wildcards, 1 to 65,535 bytes, no U+0000.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName(ByteString);

impl TopicName {
    /// Checks `text`.
    ///
    /// # Errors
    /// As the variants of [`TopicError`] say.
    pub fn new(text: impl Into<ByteString>) -> Result<Self, TopicError> {
        let text = text.into();
        check_length(&text)?;
        if text.as_bytes().iter().any(|b| matches!(b, b'+' | b'#')) {
            return Err(TopicError::WildcardInName);
        }
        Ok(Self(text))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as shared text.
    pub fn as_byte_string(&self) -> &ByteString {
        &self.0
    }

    /// Whether it starts with `$`: then wildcards at the first level don't match it `[MQTT-4.7.2-1]`.
    #[inline]
    pub fn is_reserved(&self) -> bool {
        self.0.starts_with('$')
    }

    /// The parts between slashes.
    pub fn levels(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Name of a share group: the `<name>` of `$share/<name>/<filter>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShareName(pub ByteString);

/// What a subscriber asks for. Holds the whole text, `$share/<name>/` included.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicFilter {
    text: ByteString,
    /// Length of `$share/<name>/`; 0 for a filter that is not shared.
    share_prefix_len: u32,
}

impl TopicFilter {
    /// Checks `text`.
    ///
    /// # Errors
    /// As the variants of [`TopicError`] say.
    pub fn new(text: impl Into<ByteString>) -> Result<Self, TopicError> {
        let text = text.into();
        check_length(&text)?;
        let share_prefix_len = share_prefix_len(&text)?;
        let filter = &text[share_prefix_len..];
        if filter.is_empty() {
            return Err(TopicError::BadShare);
        }
        check_wildcards(filter)?;
        let share_prefix_len = u32::try_from(share_prefix_len).expect("a topic has at most 65,535 bytes");
        Ok(Self { text, share_prefix_len })
    }

    /// The whole text, as the subscriber sent it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The whole text, shared.
    pub fn as_byte_string(&self) -> &ByteString {
        &self.text
    }

    /// What topics are matched against: without `$share/<name>/`.
    pub fn pattern(&self) -> &str {
        &self.text[self.share_prefix_len as usize..]
    }

    /// The share group's name, if it is a shared subscription (MQTT 5, section 4.8.2).
    pub fn share(&self) -> Option<ShareName> {
        let prefix = &self.text[..self.share_prefix_len as usize];
        let name = prefix.strip_prefix("$share/")?.strip_suffix('/')?;
        Some(ShareName(ByteString::from(name)))
    }

    /// Whether it is of the form `$share/<name>/<filter>`.
    pub fn is_shared(&self) -> bool {
        self.share_prefix_len > 0
    }

    /// Whether it holds `+` or `#`.
    pub fn has_wildcard(&self) -> bool {
        self.pattern().bytes().any(|b| matches!(b, b'+' | b'#'))
    }

    /// Whether `topic` matches the pattern.
    pub fn matches(&self, topic: &TopicName) -> bool {
        filter_matches(self.pattern(), topic.as_str())
    }
}

impl fmt::Debug for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.text)
    }
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Length of `$share/<name>/` at the start of `text`, 0 if it is not shared.
fn share_prefix_len(text: &str) -> Result<usize, TopicError> {
    let Some(rest) = text.strip_prefix("$share/") else {
        return if text == "$share" { Err(TopicError::BadShare) } else { Ok(0) };
    };
    let (name, _) = rest.split_once('/').ok_or(TopicError::BadShare)?;
    if name.is_empty() || name.contains(['+', '#']) {
        return Err(TopicError::BadShare);
    }
    Ok("$share/".len() + name.len() + 1)
}

fn check_wildcards(filter: &str) -> Result<(), TopicError> {
    let mut levels = filter.split('/').peekable();
    while let Some(level) = levels.next() {
        let misplaced = match level {
            "+" => false,
            "#" => levels.peek().is_some(),
            other => other.contains(['+', '#']),
        };
        if misplaced {
            return Err(TopicError::MisplacedWildcard);
        }
    }
    Ok(())
}

/// Whether the topic name `topic` matches the filter `pattern` (no `$share/` in front), level by level.
///
/// The plain definition, and the oracle for every index: `#` also matches the parent level, and a
/// wildcard at the first level does not match a topic that starts with `$` (MQTT 5, 4.7.1 and 4.7.2).
pub fn filter_matches(pattern: &str, topic: &str) -> bool {
    if topic.starts_with('$') && pattern.starts_with(['+', '#']) {
        return false;
    }
    let mut names = topic.split('/');
    for level in pattern.split('/') {
        match (level, names.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (text, Some(name)) if text == name => {}
            _ => return false,
        }
    }
    names.next().is_none()
}

/// Whether a name can be one level of a topic (`$client/<id>/…`, `%u` in access rules) without changing what the topic means: 1 to
/// 1,024 bytes, none of them a slash, a wildcard or a control character.
pub fn is_level_name(name: &str) -> bool {
    let is_plain = |c: char| !c.is_control() && !matches!(c, '/' | '+' | '#');
    (1..=1024).contains(&name.len()) && name.chars().all(is_plain)
}

/// Whether a user or a group may have this name: a level, and none of ours, which begin with `$`. Nobody shall pass for a caller
/// of the API in the access rules.
pub fn is_user_name(name: &str) -> bool {
    is_level_name(name) && !name.starts_with('$')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matching_follows_the_examples_of_the_specification() {
        for (pattern, topic, expected) in [
            ("sport/tennis/player1/#", "sport/tennis/player1", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/ranking", true),
            ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
            ("sport/#", "sport", true),
            ("#", "a/b/c", true),
            ("sport/tennis/+", "sport/tennis/player1", true),
            ("sport/tennis/+", "sport/tennis/player1/ranking", false),
            ("sport/+", "sport", false),
            ("sport/+", "sport/", true),
            ("+/+", "/finance", true),
            ("/+", "/finance", true),
            ("+", "/finance", false),
            ("#", "$SYS/monitor", false),
            ("+/monitor/Clients", "$SYS/monitor/Clients", false),
            ("$SYS/#", "$SYS/monitor", true),
            ("$SYS/monitor/+", "$SYS/monitor/Clients", true),
            ("ACCOUNTS", "Accounts", false),
        ] {
            assert_eq!(filter_matches(pattern, topic), expected, "{pattern} ~ {topic}");
        }
    }

    #[test]
    fn filters_are_checked() {
        let check = |text: &str| TopicFilter::new(text).err();
        assert_eq!(check("a/+/b/#"), None);
        assert_eq!(check("#/a"), Some(TopicError::MisplacedWildcard));
        assert_eq!(check("a/b#"), Some(TopicError::MisplacedWildcard));
        assert_eq!(check("a+/b"), Some(TopicError::MisplacedWildcard));
        assert_eq!(check(""), Some(TopicError::Empty));
        assert_eq!(check("a\0"), Some(TopicError::NullCharacter));
        assert_eq!(check("$share/g/a/+"), None);
        for bad in ["$share", "$share/", "$share/g", "$share/g/", "$share//a", "$share/g+/a", "$share/#/a"] {
            assert_eq!(check(bad), Some(TopicError::BadShare), "{bad}");
        }
        assert_eq!(check(&"x".repeat(65_536)), Some(TopicError::TooLong(65_536)));
    }

    #[test]
    fn a_shared_filter_knows_its_parts() {
        let filter = TopicFilter::new("$share/group/a/#").expect("valid");
        assert_eq!(filter.pattern(), "a/#");
        assert_eq!(filter.share(), Some(ShareName(ByteString::from("group"))));
        let plain = TopicFilter::new("$shared/x").expect("valid");
        assert_eq!((plain.share(), plain.pattern()), (None, "$shared/x"));
    }

    #[test]
    fn names_hold_no_wildcards() {
        assert_eq!(TopicName::new("a/+").err(), Some(TopicError::WildcardInName));
        assert_eq!(TopicName::new("").err(), Some(TopicError::Empty));
        assert!(TopicName::new("$SYS/x").expect("valid").is_reserved());
    }
}
