//! Whether a file is formatted: a few rules of our own, that a glance or an editor's own setting can keep.
//!
//! | rule | |
//! |---|---|
//! | `tab` | no tab stands at the head of a line or between tokens |
//! | `trailing-blank` | no blank stands at the end of a line |
//! | `line-end` | lines end by `\n`, without `\r` |
//! | `indentation` | a line is two spaces further in than the one that opened its block, table or brackets; what goes on with an expression any deeper |
//! | `blank-lines` | not more than one empty line, and none at the head |
//! | `final-newline` | the file ends by one line break |
//!
//! What is inside long strings and comments is the author's. A full formatter would decide every line break; as a crate that is twenty others and another command
//! line parser in the server's binary, so these rules say only what differs between editors.

use super::lexer::{Token, TokenKind, tokens};

/// Something that is not formatted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// From 1 on.
    pub line: u32,
    /// In bytes, from 1 on.
    pub column: u32,
    /// The name of the rule.
    pub rule: &'static str,
    /// What is wrong.
    pub text: String,
}

const STEP: usize = 2;

/// Everything that is not formatted, in the order of lines.
pub fn flaws(text: &str) -> Vec<Flaw> {
    let layout = Layout::of(text);
    let mut flaws = Vec::new();
    let mut empty = 1; // so that none stands at the head
    for (number, line) in text.split('\n').enumerate() {
        let about = &layout.lines[number];
        let at = |column: usize, rule: &'static str, text: String| Flaw {
            line: number as u32 + 1,
            column: column as u32 + 1,
            rule,
            text,
        };
        let line = match line.strip_suffix('\r') {
            Some(line) => {
                flaws.push(at(line.len(), "line-end", "the line ends by '\\r\\n'".to_owned()));
                line
            }
            None => line,
        };
        let kept = line.trim_end_matches([' ', '\t']);
        if kept.len() < line.len() && !about.ends_inside {
            flaws.push(at(kept.len(), "trailing-blank", "blanks at the end of the line".to_owned()));
        }
        empty = if line.is_empty() && !about.begins_inside { empty + 1 } else { 0 };
        if empty == 2 && number + 1 < layout.lines.len() {
            let text = if number == 0 { "an empty line at the head" } else { "more than one empty line" };
            flaws.push(at(0, "blank-lines", text.to_owned()));
        }
        if !about.begins_inside {
            let indentation = &kept[..kept.len() - kept.trim_start_matches([' ', '\t']).len()];
            if let Some(tab) = indentation.find('\t') {
                flaws.push(at(tab, "tab", "a tab in the indentation".to_owned()));
            } else if let Some(text) = about.wrong_indentation(indentation.len()) {
                flaws.push(at(0, "indentation", text));
            }
        }
        flaws.extend(about.tab.map(|tab| at(tab, "tab", "a tab between tokens".to_owned())));
    }
    if !text.is_empty() && (!text.ends_with('\n') || text.ends_with("\n\n")) {
        let line = text.lines().count().max(1) as u32;
        flaws.push(Flaw {
            line,
            column: 1,
            rule: "final-newline",
            text: "the file must end by one line break".to_owned(),
        });
    }
    flaws.sort_by_key(|flaw| (flaw.line, flaw.column));
    flaws
}

/// What is known of a line.
#[derive(Clone, Debug, Default)]
struct Line {
    /// It begins within a long string or comment.
    begins_inside: bool,
    ends_inside: bool,
    /// How far in it is to be, in spaces; `None`: it has no token.
    indentation: Option<usize>,
    /// It goes on with what the line before began: it may be further in.
    continues: bool,
    /// The first tab behind its first token, and outside of tokens.
    tab: Option<usize>,
}

impl Line {
    fn wrong_indentation(&self, is: usize) -> Option<String> {
        let expected = self.indentation?;
        let is_right = if self.continues { is >= expected } else { is == expected };
        let at_least = if self.continues { "at least " } else { "" };
        (!is_right).then(|| format!("{is} spaces, expected {at_least}{expected}"))
    }
}

struct Layout {
    lines: Vec<Line>,
}

/// A block, table or brackets that are open.
struct Open {
    /// Its insides are so far in.
    inside: usize,
    /// What opened it was on a line that is so far in: what closes it is, too. Brackets that are opened on one line are one step together, as
    /// in `call({`.
    outside: usize,
    /// Brackets, not a block: what stands behind a comma is no further in.
    is_bracket: bool,
}

/// How far in the line is that is read.
#[derive(Clone, Copy, Default)]
struct Head {
    expected: usize,
    /// The same, but of a line that goes on with another one: as it is.
    taken: usize,
}

impl Layout {
    fn of(text: &str) -> Self {
        let mut layout = Self { lines: vec![Line::default(); text.split('\n').count()] };
        let tokens = tokens(text);
        let mut open: Vec<Open> = Vec::new();
        let mut before: Option<Token<'_>> = None;
        let mut head = Head::default();
        for token in &tokens {
            layout.note_inside(token);
            let is_first = before.is_none_or(|before| before.line + before.line_breaks() != token.line);
            if is_first {
                head =
                    layout.note_first(token, &open, before.as_ref().filter(|before| before.kind != TokenKind::Comment));
            } else if let Some(before) = before {
                layout.note_tab(text, &before, token);
            }
            follow(token, head, &mut open);
            before = Some(*token);
        }
        layout
    }

    fn note_inside(&mut self, token: &Token<'_>) {
        let first = token.line as usize - 1;
        for line in first..first + token.line_breaks() as usize {
            self.lines[line].ends_inside = true;
            self.lines[line + 1].begins_inside = true;
        }
    }

    /// The first token of a line says how far in the line is to be.
    fn note_first(&mut self, token: &Token<'_>, open: &[Open], before: Option<&Token<'_>>) -> Head {
        let closes = is_closing(token);
        let innermost = open.last();
        let expected = innermost.map_or(0, |open| if closes { open.outside } else { open.inside });
        let line = &mut self.lines[token.line as usize - 1];
        line.indentation = Some(expected);
        let is_next = innermost.is_some_and(|open| open.is_bracket) && before.is_some_and(|before| before.is(","));
        line.continues = !closes && !is_next && before.is_some_and(|before| goes_on(before, token));
        let taken = if line.continues { expected.max(token.column as usize - 1) } else { expected };
        Head { expected, taken }
    }

    fn note_tab(&mut self, text: &str, before: &Token<'_>, token: &Token<'_>) {
        let offset = |part: &str| part.as_ptr() as usize - text.as_ptr() as usize;
        let between = &text[offset(before.text) + before.text.len()..offset(token.text)];
        let line = &mut self.lines[token.line as usize - 1];
        if let (Some(tab), None) = (between.find('\t'), line.tab) {
            line.tab = Some(token.column as usize - 1 - between.len() + tab);
        }
    }
}

fn is_closing(token: &Token<'_>) -> bool {
    ["end", "until", "else", "elseif", "}", ")", "]"].iter().any(|text| token.is(text))
}

/// Whether an expression that `before` ended a line of goes on.
fn goes_on(before: &Token<'_>, token: &Token<'_>) -> bool {
    const BINARY: [&str; 19] =
        ["or", "and", "..", "+", "*", "/", "//", "%", "^", "==", "~=", "<=", ">=", "<", ">", "&", "|", "<<", ">>"];
    let is_any = |token: &Token<'_>, of: &[&str]| of.iter().any(|text| token.is(text));
    is_any(before, &BINARY)
        || is_any(before, &["=", "-", "not", "return", ".", ":", "~", "#"])
        || is_any(token, &BINARY)
        || is_any(token, &["-", ".", ":", "~", "="])
        || before.is(",")
        || matches!(token.kind, TokenKind::String) && before.kind == TokenKind::Name
}

/// Opens and closes what the token does.
fn follow(token: &Token<'_>, head: Head, open: &mut Vec<Open>) {
    let is_any = |texts: &[&str]| texts.iter().any(|text| token.is(text));
    // The block of `then` ends at `else`, too; that of `elseif` begins at its own `then`.
    if is_any(&["end", "until", "}", ")", "]", "else", "elseif"]) {
        open.pop();
    }
    // `then` and `do` end what may go on over several lines, and begin a block of what that began.
    if is_any(&["do", "then", "else", "repeat"]) {
        open.push(Open { inside: head.expected + STEP, outside: head.expected, is_bracket: false });
    } else if is_any(&["function", "{", "(", "["]) {
        let is_bracket = !token.is("function");
        open.push(Open { inside: head.taken + STEP, outside: head.taken, is_bracket });
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proptest::prelude::*;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "as expect-test is used")]
    fn check(text: &str, expected: Expect) {
        let line = |flaw: &Flaw| format!("{}:{} {}: {}\n", flaw.line, flaw.column, flaw.rule, flaw.text);
        expected.assert_eq(&flaws(text).iter().map(line).collect::<String>());
    }

    #[test]
    fn what_is_formatted_is_left_alone() {
        check(
            r#"#!lua
-- A plugin.
local json, log = postroad.json, postroad.log

local PREFIXES = {
  a = 1,
  ["b"] = { 2, 3 },
  c = {
    d = function(x) return x end,
  },
}

local function name(topic)
  if topic == "a" then
    return "x"
  elseif topic == "b" or
    topic == "c" then
    return "y"
  else
    for _, value in ipairs(PREFIXES) do
      log.info(value, {
        a = 1,
      })
    end
  end
  repeat
    local done = true
  until done
  while false do
    break
  end
  local text = [[
 as it
	is  
]] .. "x"
    .. "y"
  table.sort(PREFIXES, function(left, right)
    return left < right
  end)
  return (text:gsub("a", "b")
    :gsub("c", "d"))
end

return {
  route = {
    filters = { "a/#" },
    run = function(message)
      message.topic = name(
        message.topic
      )
    end,
  },
}
"#,
            expect![[""]],
        );
    }

    #[test]
    fn each_rule_has_its_flaw() {
        check(
            "\nlocal a = 1 \n\tlocal b =\t2\r\nif a then\n   b = 1\nelse\nb = 2\n  end\n\n\n\nreturn {\n  x = 1,\n    y = 2,\n }",
            expect![[r#"
                1:1 blank-lines: an empty line at the head
                2:12 trailing-blank: blanks at the end of the line
                3:1 tab: a tab in the indentation
                3:11 tab: a tab between tokens
                3:13 line-end: the line ends by '\r\n'
                5:1 indentation: 3 spaces, expected 2
                7:1 indentation: 0 spaces, expected 2
                8:1 indentation: 2 spaces, expected 0
                10:1 blank-lines: more than one empty line
                14:1 indentation: 4 spaces, expected 2
                15:1 indentation: 1 spaces, expected 0
                15:1 final-newline: the file must end by one line break
            "#]],
        );
        check(
            "return {}\n\n",
            expect![[r#"
            2:1 final-newline: the file must end by one line break
        "#]],
        );
        check("", expect![[""]]);
    }

    proptest! {
        #[test]
        fn any_text_is_looked_at(text in "[-\\[\\]{}()='\"a-z \t\r\n]{0,60}") {
            let lines = text.split('\n').count() as u32;
            prop_assert!(flaws(&text).iter().all(|flaw| (1..=lines).contains(&flaw.line)));
        }
    }
}
