//! Tokens of Lua 5.4, with their places. Comments are tokens, too; blanks are what lies between.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// A name that is no keyword.
    Name,
    Keyword,
    /// A string, of any form. A long one may have several lines.
    String,
    Number,
    /// An operator, a bracket, a comma and the like.
    Symbol,
    /// From `--` to the end of the line, or of the long bracket.
    Comment,
    /// A byte that begins none.
    Unknown,
}

/// A token: a part of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token<'a> {
    pub(crate) kind: TokenKind,
    pub(crate) text: &'a str,
    /// Of its first byte, from 1 on.
    pub(crate) line: u32,
    /// In bytes, from 1 on.
    pub(crate) column: u32,
}

impl Token<'_> {
    pub(crate) fn is(&self, text: &str) -> bool {
        matches!(self.kind, TokenKind::Symbol | TokenKind::Keyword) && self.text == text
    }

    /// How many lines it has besides its first.
    pub(crate) fn line_breaks(&self) -> u32 {
        self.text.bytes().filter(|byte| *byte == b'\n').count() as u32
    }
}

const KEYWORDS: [&str; 22] = [
    "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "goto", "if", "in", "local", "nil",
    "not", "or", "repeat", "return", "then", "true", "until", "while",
];

/// Longer ones first.
const SYMBOLS: [&str; 33] = [
    "...", "..", "==", "~=", "<=", ">=", "<<", ">>", "//", "::", "+", "-", "*", "/", "%", "^", "#", "&", "~", "|", "<",
    ">", "=", "(", ")", "{", "}", "[", "]", ";", ":", ",", ".",
];

/// All tokens of a text. A `#` line at its head is none of Lua, and taken as a comment.
pub(crate) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let (mut at, mut line, mut line_start) = (0, 1, 0);
    while let Some(start) = next_token(text, at) {
        let between = &text[at..start];
        line += between.bytes().filter(|byte| *byte == b'\n').count() as u32;
        line_start = between.rfind('\n').map_or(line_start, |place| at + place + 1);
        let rest = &text[start..];
        let (kind, length) =
            if start == 0 && rest.starts_with('#') { (TokenKind::Comment, line_length(rest)) } else { token(rest) };
        let token = Token { kind, text: &rest[..length], line, column: (start - line_start + 1) as u32 };
        line += token.line_breaks();
        line_start = token.text.rfind('\n').map_or(line_start, |place| start + place + 1);
        at = start + length;
        tokens.push(token);
    }
    tokens
}

fn next_token(text: &str, at: usize) -> Option<usize> {
    let blank = |byte: u8| matches!(byte, b' ' | b'\t' | b'\r' | b'\n' | 0x0b | 0x0c);
    text.as_bytes()[at..].iter().position(|byte| !blank(*byte)).map(|place| at + place)
}

fn line_length(text: &str) -> usize {
    text.find('\n').unwrap_or(text.len())
}

/// Kind and length of the token at the head of a text that is not empty.
fn token(text: &str) -> (TokenKind, usize) {
    let first = text.as_bytes()[0];
    if first.is_ascii_alphabetic() || first == b'_' {
        let length = text.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
        let kind = if KEYWORDS.contains(&&text[..length]) { TokenKind::Keyword } else { TokenKind::Name };
        return (kind, length);
    }
    let begins_number = |text: &[u8]| text.first().is_some_and(u8::is_ascii_digit);
    if begins_number(text.as_bytes()) || first == b'.' && begins_number(&text.as_bytes()[1..]) {
        return (TokenKind::Number, number_length(text.as_bytes()));
    }
    if let Some(comment) = text.strip_prefix("--") {
        return (TokenKind::Comment, 2 + long_length(comment).unwrap_or_else(|| line_length(comment)));
    }
    if first == b'"' || first == b'\'' {
        return (TokenKind::String, string_length(text));
    }
    if first == b'['
        && let Some(length) = long_length(text)
    {
        return (TokenKind::String, length);
    }
    match SYMBOLS.into_iter().find(|symbol| text.starts_with(symbol)) {
        Some(symbol) => (TokenKind::Symbol, symbol.len()),
        None => (TokenKind::Unknown, text.chars().next().map_or(1, char::len_utf8)),
    }
}

/// As Lua's own reader: everything that may belong to a number, which the compiler has found to be one.
fn number_length(text: &[u8]) -> usize {
    let is_hex = text.len() > 1 && text[0] == b'0' && matches!(text[1], b'x' | b'X');
    let is_exponent = |byte: u8| matches!((is_hex, byte), (false, b'e' | b'E') | (true, b'p' | b'P'));
    let mut length = 0;
    while let Some(byte) = text.get(length) {
        let is_sign = length > 0 && matches!(byte, b'+' | b'-') && is_exponent(text[length - 1]);
        if !(is_sign || byte.is_ascii_alphanumeric() || *byte == b'.' || *byte == b'_') {
            break;
        }
        length += 1;
    }
    length
}

/// To the quote that ends it; without one to the end of the line.
fn string_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if bytes[at + 1..].starts_with(b"z") => {
                at += 2;
                at += bytes[at..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            }
            b'\\' => at += 1 + text[at + 1..].chars().next().map_or(0, char::len_utf8),
            b'\n' => return at,
            byte if byte == bytes[0] => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Of `[[…]]`, `[=[…]=]` and so on; without an end to the end of the text.
fn long_length(text: &str) -> Option<usize> {
    let level = text.strip_prefix('[')?.bytes().take_while(|byte| *byte == b'=').count();
    let inside = text[1 + level..].strip_prefix('[')?;
    let end = format!("]{}]", "=".repeat(level));
    Some(inside.find(&end).map_or(text.len(), |place| 2 + level + place + end.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> Vec<String> {
        let show = |token: &Token<'_>| format!("{}:{} {:?} {}", token.line, token.column, token.kind, token.text);
        tokens(text).iter().map(show).collect()
    }

    #[test]
    fn every_kind_of_token_is_read() {
        assert_eq!(
            shown(
                "local a <const> = 0x1p-4 .. 1e+5 -- c\n--[==[ x\n]] ]==] s = 'a\\'b' .. [[\nz]]..\"\\z  \n b\" ~= 3..4"
            ),
            [
                "1:1 Keyword local",
                "1:7 Name a",
                "1:9 Symbol <",
                "1:10 Name const",
                "1:15 Symbol >",
                "1:17 Symbol =",
                "1:19 Number 0x1p-4",
                "1:26 Symbol ..",
                "1:29 Number 1e+5",
                "1:34 Comment -- c",
                "2:1 Comment --[==[ x\n]] ]==]",
                "3:9 Name s",
                "3:11 Symbol =",
                "3:13 String 'a\\'b'",
                "3:20 Symbol ..",
                "3:23 String [[\nz]]",
                "4:4 Symbol ..",
                "4:6 String \"\\z  \n b\"",
                "5:5 Symbol ~=",
                "5:8 Number 3..4",
            ]
        );
    }

    #[test]
    fn what_is_not_closed_ends_somewhere() {
        for (text, count) in
            [("'abc\nx", 2), ("[[abc", 1), ("--[[abc", 1), ("'\\", 1), ("ä = \"ä\\ä\"", 3), ("#!lua\nx", 2)]
        {
            assert_eq!(tokens(text).len(), count, "{text:?}: {:?}", tokens(text));
        }
    }

    proptest! {
        #[test]
        fn tokens_are_the_text_without_blanks(text in "[-\\[\\]='\"a-z0-9.\\\\\n ~#ä]{0,80}") {
            let mut at = 0;
            for token in tokens(&text) {
                let start = token.text.as_ptr() as usize - text.as_ptr() as usize;
                prop_assert!(text[at..start].trim_ascii().is_empty());
                let head = &text[..start];
                prop_assert_eq!(token.line as usize, 1 + head.matches('\n').count());
                prop_assert_eq!(token.column as usize, 1 + start - head.rfind('\n').map_or(0, |place| place + 1));
                at = start + token.text.len();
            }
            prop_assert!(text[at..].trim_ascii().is_empty());
        }
    }
}
