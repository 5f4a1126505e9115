//! `string.find`, `match`, `gmatch`, `gsub` and `rep`, in counted steps.
//!
//! A step of the matcher looks at one byte of the pattern; four of them count as one instruction.

use super::pattern::{Capture, Matcher, PatternError, find_plain};
use crate::lua::{Buffer, Fault, Kind, Returned, Stack};

/// Steps for the price of an instruction.
const STEPS: u64 = 4;

fn fault(stack: Stack<'_>, error: PatternError) -> Fault {
    match error {
        PatternError::Steps => {
            // More than is left: the limit of instructions ends the call.
            let left = stack.host().left();
            stack.host().charge(left.saturating_add(1)).err().unwrap_or(Fault::Over)
        }
        PatternError::Malformed(text) => Fault::Text(text),
    }
}

/// Most steps that are taken at once: then the clock is looked at, by charging them.
const STEPS_AT_ONCE: u64 = 400_000;

fn budget(stack: Stack<'_>) -> u64 {
    stack.host().left().saturating_mul(STEPS).min(STEPS_AT_ONCE)
}

/// A string, or a number as text in its place on the stack, as Lua's own functions take it.
pub(super) fn string_argument(stack: Stack<'_>, number: u8) -> Result<&[u8], Fault> {
    let index = i32::from(number);
    if stack.kind(index) == Kind::Number {
        stack.stringify(index);
    }
    stack.bytes(index).ok_or(Fault::Argument(number, "expected a string"))
}

/// An index of a string of this length, from 0 on: negative ones count from the end.
fn start_of(init: i64, length: usize) -> usize {
    let length = length as i64;
    let start = match init {
        0 => 1,
        init if init > 0 => init,
        init => (length.saturating_add(init).saturating_add(1)).max(1),
    };
    usize::try_from(start - 1).unwrap_or(usize::MAX)
}

pub(super) fn integer_argument(stack: Stack<'_>, number: u8, default: i64) -> Result<i64, Fault> {
    let index = i32::from(number);
    match stack.kind(index) {
        Kind::None | Kind::Nil => Ok(default),
        Kind::String => stack.parsed_integer(index).ok_or(Fault::Argument(number, "expected a whole number")),
        _ => stack.integer(index).ok_or(Fault::Argument(number, "expected a whole number")),
    }
}

pub(super) fn find(stack: Stack<'_>) -> Returned {
    find_or_match(stack, true)
}

pub(super) fn match_(stack: Stack<'_>) -> Returned {
    find_or_match(stack, false)
}

fn find_or_match(stack: Stack<'_>, is_find: bool) -> Returned {
    let subject = string_argument(stack, 1)?;
    let pattern = string_argument(stack, 2)?;
    let start = start_of(integer_argument(stack, 3, 1)?, subject.len());
    let is_plain = is_find && (stack.is_true(4) || !pattern.iter().any(|byte| b"^$*+?.([%-".contains(byte)));
    if start > subject.len() {
        stack.push_nil();
        return Ok(1);
    }
    if is_plain {
        return find_text(stack, subject, pattern, start);
    }
    let Some((matcher, from, to)) = search(stack, subject, pattern, start)? else {
        stack.push_nil();
        return Ok(1);
    };
    if is_find {
        stack.push_integer(from as i64 + 1);
        stack.push_integer(to as i64);
        return Ok(2 + push_captures(stack, subject, &matcher, None)?);
    }
    push_captures(stack, subject, &matcher, Some((from, to)))
}

fn find_text(stack: Stack<'_>, subject: &[u8], needle: &[u8], start: usize) -> Returned {
    stack.host().charge_bytes(needle.len())?;
    // All that is left at once: comparing bytes is fast, and its steps are few.
    let steps = stack.host().left();
    match find_plain(subject, needle, start, steps).map_err(|error| fault(stack, error))? {
        Some(at) => {
            stack.host().charge_bytes(at - start)?;
            stack.push_integer(at as i64 + 1);
            stack.push_integer((at + needle.len()) as i64);
            Ok(2)
        }
        None => {
            stack.host().charge_bytes(subject.len() - start)?;
            stack.push_nil();
            Ok(1)
        }
    }
}

type Search<'a> = Option<(Matcher<'a>, usize, usize)>;

/// The first match at or behind `start`, from where to where.
fn search<'a>(stack: Stack<'_>, subject: &'a [u8], pattern: &'a [u8], start: usize) -> Result<Search<'a>, Fault> {
    let (pattern, is_anchored) = pattern.strip_prefix(b"^").map_or((pattern, false), |rest| (rest, true));
    let mut matcher = Matcher::new(subject, pattern, 0);
    let mut at = start;
    loop {
        let end = run(stack, &mut matcher, at)?;
        if let Some(end) = end {
            return Ok(Some((matcher, at, end)));
        }
        at += 1;
        if at > subject.len() || is_anchored {
            return Ok(None);
        }
    }
}

/// One match at one place, and its steps charged. A match that needs more than [`STEPS_AT_ONCE`] begins anew with all that is left, after a look at
/// the clock: so no match is longer between two looks than the call's instructions.
fn run(stack: Stack<'_>, matcher: &mut Matcher<'_>, at: usize) -> Result<Option<usize>, Fault> {
    let given = budget(stack);
    matcher.steps = given;
    let mut found = matcher.match_at(at);
    stack.host().charge((given - matcher.steps) / STEPS)?;
    if found == Err(PatternError::Steps) {
        let given = stack.host().left().saturating_mul(STEPS);
        matcher.steps = given;
        found = matcher.match_at(at);
        stack.host().charge((given - matcher.steps) / STEPS)?;
    }
    found.map_err(|error| fault(stack, error))
}

/// The captures, or `whole` if there are none and it is given.
fn push_captures(
    stack: Stack<'_>,
    subject: &[u8],
    matcher: &Matcher<'_>,
    whole: Option<(usize, usize)>,
) -> Result<i32, Fault> {
    let count = if matcher.captures() == 0 && whole.is_some() { 1 } else { matcher.captures() };
    stack.reserve(count as i32 + 1);
    let (from, to) = whole.unwrap_or_default();
    for index in 0..count {
        push_capture(stack, subject, matcher.capture(index, from, to).map_err(|error| fault(stack, error))?);
    }
    Ok(count as i32)
}

fn push_capture(stack: Stack<'_>, subject: &[u8], capture: Capture) {
    match capture {
        Capture::Span(from, to) => stack.push_bytes(&subject[from..to]),
        Capture::Position(position) => stack.push_integer(position as i64),
    }
}

/// Upvalues 2 to 5: subject, pattern, where to go on, end of the last match (-1: none yet).
pub(super) fn gmatch(stack: Stack<'_>) -> Returned {
    let subject = string_argument(stack, 1)?;
    string_argument(stack, 2)?;
    let start = start_of(integer_argument(stack, 3, 1)?, subject.len()).min(subject.len() + 1);
    stack.set_top(2);
    stack.push_integer(start as i64);
    stack.push_integer(-1);
    stack.push_function(gmatch_next, 4);
    Ok(1)
}

fn gmatch_next(stack: Stack<'_>) -> Returned {
    let subject = stack.bytes(stack.upvalue(2)).unwrap_or_default();
    let pattern = stack.bytes(stack.upvalue(3)).unwrap_or_default();
    let start = stack.integer(stack.upvalue(4)).unwrap_or_default() as usize;
    let last_end = usize::try_from(stack.integer(stack.upvalue(5)).unwrap_or(-1)).ok();
    let mut matcher = Matcher::new(subject, pattern, 0); // in gmatch, '^' is no anchor
    for at in start..=subject.len() {
        let end = run(stack, &mut matcher, at)?;
        if let Some(end) = end.filter(|end| Some(*end) != last_end) {
            for upvalue in [4, 5] {
                stack.push_integer(end as i64);
                stack.replace(stack.upvalue(upvalue));
            }
            return push_captures(stack, subject, &matcher, Some((at, end)));
        }
    }
    Ok(0)
}

pub(super) fn gsub(stack: Stack<'_>) -> Returned {
    let subject = string_argument(stack, 1)?;
    let pattern = string_argument(stack, 2)?;
    match stack.kind(3) {
        Kind::Number => stack.stringify(3),
        Kind::String | Kind::Table | Kind::Function => {}
        _ => return Err(Fault::Argument(3, "expected a string, a function or a table")),
    }
    let most = integer_argument(stack, 4, i64::MAX)?;
    let (pattern, is_anchored) = pattern.strip_prefix(b"^").map_or((pattern, false), |rest| (rest, true));
    stack.set_top(3);
    let mut buffer = Buffer::new();
    buffer.begin(stack);
    let mut matcher = Matcher::new(subject, pattern, 0);
    let (mut at, mut last_end, mut count) = (0, None, 0);
    while count < most {
        let end = run(stack, &mut matcher, at)?.filter(|end| Some(*end) != last_end);
        if let Some(end) = end {
            count += 1;
            add_replacement(stack, &mut buffer, subject, &matcher, (at, end))?;
            at = end;
            last_end = Some(end);
        } else if at < subject.len() {
            buffer.add(&subject[at..=at]);
            at += 1;
        } else {
            break;
        }
        if is_anchored {
            break;
        }
    }
    if let Some(rest) = subject.get(at..) {
        buffer.add(rest);
    }
    buffer.finish();
    stack.push_integer(count);
    Ok(2)
}

fn add_replacement(
    stack: Stack<'_>,
    buffer: &mut Buffer,
    subject: &[u8],
    matcher: &Matcher<'_>,
    (from, to): (usize, usize),
) -> Result<(), Fault> {
    match stack.kind(3) {
        Kind::String => return add_text(stack, buffer, subject, matcher, (from, to)),
        Kind::Function => {
            stack.push_copy(3);
            let count = push_captures(stack, subject, matcher, Some((from, to)))?;
            stack.call(count, 1);
        }
        _ => {
            push_capture(stack, subject, matcher.capture(0, from, to).map_err(|error| fault(stack, error))?);
            stack.get(3);
        }
    }
    if !stack.is_true(-1) {
        stack.pop(1);
        buffer.add(&subject[from..to]);
        return Ok(());
    }
    if !matches!(stack.kind(-1), Kind::String | Kind::Number) {
        return Err(Fault::Text("invalid replacement value: expected a string, a number, nil or false"));
    }
    buffer.add_value();
    Ok(())
}

fn add_text(
    stack: Stack<'_>,
    buffer: &mut Buffer,
    subject: &[u8],
    matcher: &Matcher<'_>,
    (from, to): (usize, usize),
) -> Result<(), Fault> {
    let mut rest = stack.bytes(3).unwrap_or_default();
    stack.host().charge_bytes(rest.len())?;
    while let Some(percent) = rest.iter().position(|byte| *byte == b'%') {
        buffer.add(&rest[..percent]);
        match rest.get(percent + 1) {
            Some(b'%') => buffer.add(b"%"),
            Some(b'0') => buffer.add(&subject[from..to]),
            Some(digit @ b'1'..=b'9') => {
                let index = usize::from(digit - b'1');
                match matcher.capture(index, from, to) {
                    Ok(Capture::Span(from, to)) => buffer.add(&subject[from..to]),
                    Ok(position) => {
                        push_capture(stack, subject, position);
                        buffer.add_value();
                    }
                    Err(PatternError::Malformed("invalid capture index")) => {
                        return Err(Fault::Text("invalid capture index in replacement string"));
                    }
                    Err(error) => return Err(fault(stack, error)),
                }
            }
            _ => return Err(Fault::Text("invalid use of '%' in replacement string")),
        }
        rest = &rest[percent + 2..];
    }
    buffer.add(rest);
    Ok(())
}

/// Lua's own takes as long as `n` says, also for empty strings.
pub(super) fn rep(stack: Stack<'_>) -> Returned {
    let text = string_argument(stack, 1)?;
    let count = integer_argument(stack, 2, 0)?;
    let separator = if stack.is_nil(3) { &[][..] } else { string_argument(stack, 3)? };
    if stack.is_nil(2) {
        return Err(Fault::Argument(2, "expected a whole number"));
    }
    let count = u64::try_from(count).unwrap_or(0);
    let bytes = (text.len() as u64).saturating_add(separator.len() as u64).saturating_mul(count);
    if count == 0 || bytes == 0 {
        stack.push_bytes(b"");
        return Ok(1);
    }
    if bytes > stack.host().limits.block_bytes as u64 {
        return Err(Fault::Text("resulting string too large"));
    }
    stack.host().charge(bytes / 64 + 1)?;
    fill(&mut stack.host().scratch, text, separator, bytes as usize - separator.len());
    stack.push_scratch();
    Ok(1)
}

/// Text and separator again and again, by doubling, up to so many bytes.
fn fill(scratch: &mut Vec<u8>, text: &[u8], separator: &[u8], bytes: usize) {
    scratch.clear();
    scratch.extend_from_slice(text);
    scratch.extend_from_slice(separator);
    while scratch.len() < bytes {
        scratch.extend_from_within(..scratch.len().min(bytes - scratch.len()));
    }
    scratch.truncate(bytes);
}
