//! What is wrong with a plugin, or went wrong in it, as people and editors read it.

use std::fmt;

use crate::PluginName;

/// Something wrong with a plugin, found before it handles traffic. Shown as `scripts/x.lua:12: message`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file, as it was named when the set was read.
    pub file: String,
    /// The line, from 1 on; `None` if it is about no line.
    pub line: Option<u32>,
    /// The column in bytes, from 1 on, if that is known.
    pub column: Option<u32>,
    /// The plugin.
    pub plugin: PluginName,
    /// The hook or key of the plugin's table that it is about.
    pub hook: Option<String>,
    /// What is wrong, in words.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
            if let Some(column) = self.column {
                write!(f, "{column}:")?;
            }
        }
        if let Some(hook) = &self.hook {
            write!(f, " {hook}:")?;
        }
        write!(f, " {}", self.message)
    }
}

impl std::error::Error for Diagnostic {}

/// The line at the head of a message of Lua (`name.lua:12: text`), and the text behind it.
pub(crate) fn split_position(message: &str) -> (Option<u32>, &str) {
    let mut from = 0;
    while let Some(colon) = message[from..].find(':') {
        let rest = &message[from + colon + 1..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits > 0 && rest[digits..].starts_with(": ") {
            return (rest[..digits].parse().ok(), &rest[digits + 2..]);
        }
        from += colon + 1;
    }
    (None, message)
}

/// The known word that was probably meant, if one is near: an edit or two away.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let scored = known.map(|candidate| (distance(word.as_bytes(), candidate.as_bytes()), candidate));
    scored.filter(|(score, candidate)| *score <= 1 + candidate.len() / 4).min().map(|(_, candidate)| candidate)
}

/// Levenshtein distance. Long words are no misspelling of ours, and not looked at.
fn distance(left: &[u8], right: &[u8]) -> usize {
    if left.len() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in right.iter().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_split_off() {
        assert_eq!(split_position("a.lua:12: no"), (Some(12), "no"));
        assert_eq!(split_position("a:b: c:7: d"), (Some(7), "d"));
        assert_eq!(split_position("no position: 7"), (None, "no position: 7"));
    }

    #[test]
    fn the_nearest_word_is_near() {
        let known = || ["route", "on_load", "on_save", "filters"].into_iter();
        assert_eq!(nearest("rout", known()), Some("route"));
        assert_eq!(nearest("on_lod", known()), Some("on_load"));
        assert_eq!(nearest("banana", known()), None);
        assert_eq!(nearest(&"x".repeat(10_000), known()), None);
    }
}
