//! Lua's patterns (manual, 6.4.1), matched in counted steps. Lua's own matcher can take years for `("a"):rep(50):find(("a-"):rep(50) .. "b")`, and no
//! hook comes by; this one stops when its steps are used up. Pure: a subject, a pattern, and a number of steps.

/// Captures of one pattern.
pub(crate) const CAPTURES_MAX: usize = 32;
/// Levels of the matcher, as in Lua.
const DEPTH_MAX: u32 = 200;

/// Why nothing can be said about a match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PatternError {
    /// The steps are used up.
    Steps,
    /// The pattern means nothing.
    Malformed(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    /// Its end has not been met.
    Open,
    /// `()`: only where it is.
    Position,
    Bytes(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Group {
    start: usize,
    length: Length,
}

/// What a capture holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Capture {
    /// Bytes of the subject, from here to there.
    Span(usize, usize),
    /// A place in the subject, from 1 on.
    Position(usize),
}

/// A pattern at work on a subject. Owns nothing: see `lua`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Matcher<'a> {
    subject: &'a [u8],
    pattern: &'a [u8],
    groups: [Group; CAPTURES_MAX],
    level: usize,
    depth: u32,
    /// Steps that may still be taken.
    pub(crate) steps: u64,
}

type Found = Result<Option<usize>, PatternError>;

impl<'a> Matcher<'a> {
    /// `pattern` without the `^` in front.
    pub(crate) fn new(subject: &'a [u8], pattern: &'a [u8], steps: u64) -> Self {
        let groups = [Group { start: 0, length: Length::Open }; CAPTURES_MAX];
        Self { subject, pattern, groups, level: 0, depth: 0, steps }
    }

    /// Where a match ends that begins at `start`.
    pub(crate) fn match_at(&mut self, start: usize) -> Found {
        self.level = 0;
        self.depth = 0;
        self.run(start, 0)
    }

    /// Captures of the last match, as far as the pattern has any.
    pub(crate) fn captures(&self) -> usize {
        self.level
    }

    /// One of them; the whole match as 0 if there are none.
    pub(crate) fn capture(&self, index: usize, start: usize, end: usize) -> Result<Capture, PatternError> {
        if index >= self.level {
            if index == 0 {
                return Ok(Capture::Span(start, end));
            }
            return Err(PatternError::Malformed("invalid capture index"));
        }
        let group = self.groups[index];
        match group.length {
            Length::Bytes(length) => Ok(Capture::Span(group.start, group.start + length)),
            Length::Position => Ok(Capture::Position(group.start + 1)),
            Length::Open => Err(PatternError::Malformed("unfinished capture")),
        }
    }

    fn step(&mut self, count: usize) -> Result<(), PatternError> {
        let left = self.steps.checked_sub(count as u64).ok_or(PatternError::Steps);
        self.steps = *left.as_ref().unwrap_or(&0);
        left.map(|_| ())
    }

    /// One level down; what comes behind is tried at each way to match what is here.
    fn run(&mut self, at: usize, from: usize) -> Found {
        if self.depth == DEPTH_MAX {
            return Err(PatternError::Malformed("pattern too complex"));
        }
        self.depth += 1;
        let found = self.run_here(at, from);
        self.depth -= 1;
        found
    }

    fn run_here(&mut self, mut at: usize, mut from: usize) -> Found {
        loop {
            self.step(1)?;
            let Some(&byte) = self.pattern.get(from) else { return Ok(Some(at)) };
            let next = self.pattern.get(from + 1).copied();
            match (byte, next) {
                (b'(', Some(b')')) => return self.open(at, from + 2, Length::Position),
                (b'(', _) => return self.open(at, from + 1, Length::Open),
                (b')', _) => return self.close(at, from + 1),
                (b'$', None) => return Ok((at == self.subject.len()).then_some(at)),
                (b'%', Some(b'b')) => match self.balanced(at, from + 2)? {
                    Some(end) => (at, from) = (end, from + 4),
                    None => return Ok(None),
                },
                (b'%', Some(b'f')) => match self.frontier(at, from + 2)? {
                    Some(behind) => from = behind,
                    None => return Ok(None),
                },
                (b'%', Some(digit @ b'0'..=b'9')) => match self.repeated(at, digit)? {
                    Some(end) => (at, from) = (end, from + 2),
                    None => return Ok(None),
                },
                _ => {
                    let end = self.class_end(from)?;
                    match self.pattern.get(end) {
                        Some(b'?') => {
                            if self.single(at, from, end)?
                                && let Some(found) = self.run(at + 1, end + 1)?
                            {
                                return Ok(Some(found));
                            }
                            from = end + 1;
                        }
                        Some(b'+') => {
                            return if self.single(at, from, end)? { self.most(at + 1, from, end) } else { Ok(None) };
                        }
                        Some(b'*') => return self.most(at, from, end),
                        Some(b'-') => return self.least(at, from, end),
                        _ if self.single(at, from, end)? => (at, from) = (at + 1, end),
                        _ => return Ok(None),
                    }
                }
            }
        }
    }

    fn open(&mut self, at: usize, from: usize, length: Length) -> Found {
        if self.level == CAPTURES_MAX {
            return Err(PatternError::Malformed("too many captures"));
        }
        self.groups[self.level] = Group { start: at, length };
        self.level += 1;
        let found = self.run(at, from)?;
        if found.is_none() {
            self.level -= 1;
        }
        Ok(found)
    }

    fn close(&mut self, at: usize, from: usize) -> Found {
        let open = self.groups[..self.level].iter().rposition(|group| group.length == Length::Open);
        let group = open.ok_or(PatternError::Malformed("invalid pattern capture"))?;
        self.groups[group].length = Length::Bytes(at - self.groups[group].start);
        let found = self.run(at, from)?;
        if found.is_none() {
            self.groups[group].length = Length::Open;
        }
        Ok(found)
    }

    fn balanced(&mut self, at: usize, from: usize) -> Found {
        let (Some(&open), Some(&close)) = (self.pattern.get(from), self.pattern.get(from + 1)) else {
            return Err(PatternError::Malformed("malformed pattern (missing arguments to '%b')"));
        };
        if self.subject.get(at) != Some(&open) {
            return Ok(None);
        }
        let mut depth = 1;
        for (offset, &byte) in self.subject[at + 1..].iter().enumerate() {
            self.step(1)?;
            if byte == close {
                depth -= 1;
                if depth == 0 {
                    return Ok(Some(at + offset + 2));
                }
            } else if byte == open {
                depth += 1;
            }
        }
        Ok(None)
    }

    /// The place in the pattern behind the set, if the frontier is here.
    fn frontier(&mut self, at: usize, from: usize) -> Found {
        if self.pattern.get(from) != Some(&b'[') {
            return Err(PatternError::Malformed("missing '[' after '%f' in pattern"));
        }
        let end = self.class_end(from)?;
        self.step(2 * (end - from))?;
        let before = if at == 0 { 0 } else { self.subject[at - 1] };
        let here = self.subject.get(at).copied().unwrap_or(0);
        let is_here = !self.in_set(before, from, end - 1) && self.in_set(here, from, end - 1);
        Ok(is_here.then_some(end))
    }

    fn repeated(&mut self, at: usize, digit: u8) -> Found {
        let invalid = PatternError::Malformed("invalid capture index in pattern");
        let index =
            usize::from(digit).checked_sub(usize::from(b'1')).filter(|index| *index < self.level).ok_or(invalid)?;
        let group = self.groups[index];
        let Length::Bytes(length) = group.length else {
            return if group.length == Length::Open { Err(invalid) } else { Ok(None) };
        };
        self.step(length / 16)?;
        let is_same = self.subject.get(at..at + length) == Some(&self.subject[group.start..group.start + length]);
        Ok(is_same.then_some(at + length))
    }

    fn most(&mut self, at: usize, from: usize, end: usize) -> Found {
        let mut count = 0;
        while self.single(at + count, from, end)? {
            count += 1;
        }
        loop {
            if let Some(found) = self.run(at + count, end + 1)? {
                return Ok(Some(found));
            }
            if count == 0 {
                return Ok(None);
            }
            count -= 1;
        }
    }

    fn least(&mut self, mut at: usize, from: usize, end: usize) -> Found {
        loop {
            if let Some(found) = self.run(at, end + 1)? {
                return Ok(Some(found));
            }
            if !self.single(at, from, end)? {
                return Ok(None);
            }
            at += 1;
        }
    }

    /// Where the class that begins at `from` ends.
    fn class_end(&mut self, from: usize) -> Result<usize, PatternError> {
        let mut end = from + 1;
        match self.pattern[from] {
            b'%' if end == self.pattern.len() => Err(PatternError::Malformed("malformed pattern (ends with '%')")),
            b'%' => Ok(end + 1),
            b'[' => {
                if self.pattern.get(end) == Some(&b'^') {
                    end += 1;
                }
                let mut is_first = true; // a ']' right at the start is one of the set
                loop {
                    self.step(1)?;
                    let byte = self.pattern.get(end).ok_or(MISSING)?;
                    end += 1;
                    match byte {
                        b']' if !is_first => return Ok(end),
                        b'%' => {
                            // As in Lua, what is escaped is skipped if there is anything.
                            end += 1;
                        }
                        _ => {}
                    }
                    is_first = false;
                }
            }
            _ => Ok(end),
        }
    }

    fn single(&mut self, at: usize, from: usize, end: usize) -> Result<bool, PatternError> {
        self.step(end - from)?;
        let Some(&byte) = self.subject.get(at) else { return Ok(false) };
        Ok(match self.pattern[from] {
            b'.' => true,
            b'%' => is_of_class(byte, self.pattern[from + 1]),
            b'[' => self.in_set(byte, from, end - 1),
            plain => plain == byte,
        })
    }

    /// `from` is at the '[', `end` at the ']'.
    fn in_set(&self, byte: u8, from: usize, end: usize) -> bool {
        let set = &self.pattern[from + 1..end];
        let (set, is_inverted) = set.strip_prefix(b"^").map_or((set, false), |rest| (rest, true));
        let mut rest = set;
        loop {
            rest = match rest {
                [] => return is_inverted,
                [b'%', class, rest @ ..] => {
                    if is_of_class(byte, *class) {
                        return !is_inverted;
                    }
                    rest
                }
                [first, b'-', last, rest @ ..] => {
                    if (*first..=*last).contains(&byte) {
                        return !is_inverted;
                    }
                    rest
                }
                [plain, rest @ ..] => {
                    if *plain == byte {
                        return !is_inverted;
                    }
                    rest
                }
            };
        }
    }
}

const MISSING: PatternError = PatternError::Malformed("malformed pattern (missing ']')");

/// `%a` and the like; the capital letter is the opposite; what is no letter of a class is itself.
fn is_of_class(byte: u8, class: u8) -> bool {
    let is_in = match class.to_ascii_lowercase() {
        b'a' => byte.is_ascii_alphabetic(),
        b'c' => byte.is_ascii_control(),
        b'd' => byte.is_ascii_digit(),
        b'g' => byte.is_ascii_graphic(),
        b'l' => byte.is_ascii_lowercase(),
        b'p' => byte.is_ascii_punctuation(),
        b's' => byte == b' ' || (b'\t'..=b'\r').contains(&byte),
        b'u' => byte.is_ascii_uppercase(),
        b'w' => byte.is_ascii_alphanumeric(),
        b'x' => byte.is_ascii_hexdigit(),
        b'z' => byte == 0,
        _ => return class == byte,
    };
    is_in != class.is_ascii_uppercase()
}

/// Where `needle` is in `subject` from `start` on. Takes steps as its bytes are compared.
pub(crate) fn find_plain(subject: &[u8], needle: &[u8], start: usize, steps: u64) -> Found {
    let Some((&first, others)) = needle.split_first() else { return Ok(Some(start)) };
    let mut left = steps;
    let mut at = start;
    while at + needle.len() <= subject.len() {
        let span = &subject[at..=subject.len() - needle.len()];
        let Some(offset) = span.iter().position(|byte| *byte == first) else { return Ok(None) };
        at += offset;
        left = left.checked_sub((offset / 16 + others.len() / 16 + 1) as u64).ok_or(PatternError::Steps)?;
        if &subject[at + 1..at + needle.len()] == others {
            return Ok(Some(at));
        }
        at += 1;
    }
    Ok(None)
}
