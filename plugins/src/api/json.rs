//! JSON (RFC 8259), strictly. Whole numbers of 64 bits are exact, floats are written as the shortest text that is read back the same.
//!
//! Frames here own nothing (`lua`): the reader is a place in a text, the writer writes to the scratch.

use super::data::{Key, array_len, is_null, mark_array, push_key, sort_keys};
use super::{nothing_but_scratch, say, saying};
use crate::lua::{Fault, Kind, Returned, Stack};

pub(super) fn encode(stack: Stack<'_>) -> Returned {
    encode_by(stack, write)
}

/// Writes the first argument, at most so deep, to the scratch, and gives that as a string.
pub(super) fn encode_by(stack: Stack<'_>, write: fn(Stack<'_>, i32, usize) -> Result<(), Fault>) -> Returned {
    stack.set_top(1);
    stack.host().scratch.clear();
    stack.host().keys.clear();
    let depth = stack.host().limits.depth;
    match write(stack, 1, depth) {
        Ok(()) => {
            stack.host().charge_bytes(stack.host().scratch.len())?;
            stack.push_scratch();
            Ok(1)
        }
        Err(fault) => explain(stack, fault),
    }
}

/// Data that can't be read or written is no error of the script: `nil` and why. A limit is one.
pub(super) fn explain(stack: Stack<'_>, fault: Fault) -> Returned {
    match fault {
        Fault::Text(text) => say(stack, format_args!("{text}")),
        Fault::Scratch => {}
        other => return Err(other),
    }
    nothing_but_scratch(stack)
}

/// Room on the stack and in the output for one more value.
pub(super) fn check_room(stack: Stack<'_>) -> Result<(), Fault> {
    if stack.host().scratch.len() > stack.host().limits.block_bytes {
        return Err(Fault::Text("the result is too large"));
    }
    if stack.has_room(8) { Ok(()) } else { Err(Fault::Text("no room on the stack")) }
}

fn put(stack: Stack<'_>, bytes: &[u8]) {
    stack.host().scratch.extend_from_slice(bytes);
}

fn write(stack: Stack<'_>, index: i32, depth: usize) -> Result<(), Fault> {
    use std::io::Write as _;
    stack.host().charge(2)?;
    check_room(stack)?;
    match stack.kind(index) {
        Kind::Nil | Kind::None => put(stack, b"null"),
        Kind::Boolean if stack.is_true(index) => put(stack, b"true"),
        Kind::Boolean => put(stack, b"false"),
        Kind::Number if stack.is_integer(index) => {
            let value = stack.integer(index).unwrap_or_default();
            write!(stack.host().scratch, "{value}").expect("writing to memory never fails");
        }
        Kind::Number => {
            let value = stack.number(index).filter(|value| value.is_finite());
            let value = value.ok_or(Fault::Text("JSON has no NaN and no infinity"))?;
            write!(stack.host().scratch, "{value:?}").expect("writing to memory never fails");
        }
        Kind::String => write_text(stack, stack.bytes(index).unwrap_or_default())?,
        Kind::Table => return write_table(stack, stack.absolute(index), depth),
        Kind::Userdata if is_null(stack, index) => put(stack, b"null"),
        other => return Err(saying(stack, format_args!("{} can't be written", other.name()))),
    }
    Ok(())
}

fn write_table(stack: Stack<'_>, table: i32, depth: usize) -> Result<(), Fault> {
    let depth = depth.checked_sub(1).ok_or(Fault::Text("the value is too deep, or holds itself"))?;
    if let Some(length) = array_len(stack, table)? {
        put(stack, b"[");
        for place in 1..=length {
            if place > 1 {
                put(stack, b",");
            }
            stack.raw_get_at(table, place as i64);
            write(stack, -1, depth)?;
            stack.pop(1);
        }
        put(stack, b"]");
        return Ok(());
    }
    let from = sort_keys(stack, table)?;
    let end = stack.host().keys.len();
    put(stack, b"{");
    for place in from..end {
        let Key::Bytes(name) = stack.host().keys[place] else {
            return Err(Fault::Text("a key of an object is no string: use postroad.array for arrays with gaps"));
        };
        if place > from {
            put(stack, b",");
        }
        write_text(stack, name)?;
        put(stack, b":");
        push_key(stack, Key::Bytes(name));
        stack.raw_get(table);
        write(stack, -1, depth)?;
        stack.pop(1);
    }
    stack.host().keys.truncate(from);
    put(stack, b"}");
    Ok(())
}

fn write_text(stack: Stack<'_>, bytes: &[u8]) -> Result<(), Fault> {
    stack.host().charge_bytes(bytes.len())?;
    let text =
        std::str::from_utf8(bytes).map_err(|_| Fault::Text("a string is not UTF-8: use postroad.base64.encode"))?;
    put(stack, b"\"");
    // A byte may be written as six.
    for part in text.as_bytes().chunks(PART) {
        check_room(stack)?;
        escape(&mut stack.host().scratch, part);
    }
    put(stack, b"\"");
    Ok(())
}

/// Bytes that are escaped at once.
const PART: usize = 4_096;

fn escape(scratch: &mut Vec<u8>, part: &[u8]) {
    use std::io::Write as _;
    for byte in part.iter().copied() {
        match byte {
            b'"' | b'\\' => scratch.extend_from_slice(&[b'\\', byte]),
            b'\n' => scratch.extend_from_slice(b"\\n"),
            b'\r' => scratch.extend_from_slice(b"\\r"),
            b'\t' => scratch.extend_from_slice(b"\\t"),
            0..0x20 => write!(scratch, "\\u{byte:04x}").expect("writing to memory never fails"),
            _ => scratch.push(byte),
        }
    }
}

pub(super) fn decode(stack: Stack<'_>) -> Returned {
    let text = stack.bytes(1).ok_or(Fault::Argument(1, "expected a string"))?;
    stack.set_top(1);
    stack.host().charge_bytes(text.len())?;
    let depth = stack.host().limits.depth;
    let mut reader = Reader { text, at: 0 };
    match reader.document(stack, depth) {
        Ok(()) => Ok(1),
        Err(Fault::Text(text)) => {
            let line = 1 + reader.text[..reader.at.min(text.len())].iter().filter(|byte| **byte == b'\n').count();
            explain(stack, saying(stack, format_args!("{text}, at byte {} (line {line})", reader.at + 1)))
        }
        Err(fault) => Err(fault),
    }
}

/// A place in a text.
struct Reader<'a> {
    text: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn document(&mut self, stack: Stack<'_>, depth: usize) -> Result<(), Fault> {
        self.value(stack, depth)?;
        self.skip_space();
        if self.at == self.text.len() { Ok(()) } else { Err(Fault::Text("something behind the value")) }
    }

    fn skip_space(&mut self) {
        while self.text.get(self.at).is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// The next byte that is no space.
    fn peek(&mut self) -> Result<u8, Fault> {
        self.skip_space();
        self.text.get(self.at).copied().ok_or(Fault::Text("the text ends too early"))
    }

    fn word(&mut self, word: &[u8]) -> Result<(), Fault> {
        if !self.text[self.at..].starts_with(word) {
            return Err(Fault::Text("not a value"));
        }
        self.at += word.len();
        Ok(())
    }

    /// Pushes the value. May raise.
    fn value(&mut self, stack: Stack<'_>, depth: usize) -> Result<(), Fault> {
        stack.host().charge(2)?;
        stack.reserve(6);
        match self.peek()? {
            b'{' => self.object(stack, depth),
            b'[' => self.array(stack, depth),
            b'"' => self.string(stack),
            b't' => self.word(b"true").map(|()| stack.push_boolean(true)),
            b'f' => self.word(b"false").map(|()| stack.push_boolean(false)),
            b'n' => self.word(b"null").map(|()| stack.push_reference(stack.host().kept.null)),
            b'-' | b'0'..=b'9' => self.number(stack),
            _ => Err(Fault::Text("not a value")),
        }
    }

    fn array(&mut self, stack: Stack<'_>, depth: usize) -> Result<(), Fault> {
        let depth = depth.checked_sub(1).ok_or(Fault::Text("the value is too deep"))?;
        self.at += 1;
        stack.push_table(0, 0);
        mark_array(stack);
        if self.peek()? == b']' {
            self.at += 1;
            return Ok(());
        }
        for place in 1.. {
            self.value(stack, depth)?;
            stack.raw_set_at(-2, place);
            match self.peek()? {
                b',' => self.at += 1,
                b']' => break,
                _ => return Err(Fault::Text("expected ',' or ']'")),
            }
        }
        self.at += 1;
        Ok(())
    }

    fn object(&mut self, stack: Stack<'_>, depth: usize) -> Result<(), Fault> {
        let depth = depth.checked_sub(1).ok_or(Fault::Text("the value is too deep"))?;
        self.at += 1;
        stack.push_table(0, 0);
        if self.peek()? == b'}' {
            self.at += 1;
            return Ok(());
        }
        loop {
            if self.peek()? != b'"' {
                return Err(Fault::Text("expected a key"));
            }
            self.string(stack)?;
            if self.peek()? != b':' {
                return Err(Fault::Text("expected ':'"));
            }
            self.at += 1;
            self.value(stack, depth)?;
            stack.raw_set(-3);
            match self.peek()? {
                b',' => self.at += 1,
                b'}' => break,
                _ => return Err(Fault::Text("expected ',' or '}'")),
            }
        }
        self.at += 1;
        Ok(())
    }

    fn number(&mut self, stack: Stack<'_>) -> Result<(), Fault> {
        let start = self.at;
        if self.text[self.at] == b'-' {
            self.at += 1;
        }
        let has_leading_zero = self.text.get(self.at) == Some(&b'0');
        let whole = self.digits();
        if whole == 0 || (has_leading_zero && whole > 1) {
            return Err(Fault::Text("not a number"));
        }
        let mut is_whole = true;
        if self.text.get(self.at) == Some(&b'.') {
            is_whole = false;
            self.at += 1;
            if self.digits() == 0 {
                return Err(Fault::Text("not a number"));
            }
        }
        if matches!(self.text.get(self.at), Some(b'e' | b'E')) {
            is_whole = false;
            self.at += 1;
            if matches!(self.text.get(self.at), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if self.digits() == 0 {
                return Err(Fault::Text("not a number"));
            }
        }
        let text = std::str::from_utf8(&self.text[start..self.at]).map_err(|_| Fault::Text("not a number"))?;
        match text.parse::<i64>() {
            Ok(value) if is_whole => stack.push_integer(value),
            _ => {
                let value = text.parse::<f64>().ok().filter(|value| value.is_finite());
                stack.push_number(value.ok_or(Fault::Text("the number is too large"))?);
            }
        }
        Ok(())
    }

    fn digits(&mut self) -> usize {
        let count = self.text[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        self.at += count;
        count
    }

    /// Most texts have no escapes: these are pushed as they stand.
    fn string(&mut self, stack: Stack<'_>) -> Result<(), Fault> {
        self.at += 1;
        let start = self.at;
        let plain = |byte: &u8| !matches!(byte, b'"' | b'\\' | 0..0x20);
        self.at += self.text[start..].iter().take_while(|byte| plain(byte)).count();
        if self.text.get(self.at) == Some(&b'"') {
            let text = &self.text[start..self.at];
            std::str::from_utf8(text).map_err(|_| Fault::Text("a string is not UTF-8"))?;
            self.at += 1;
            stack.push_bytes(text);
            return Ok(());
        }
        stack.host().scratch.clear();
        stack.host().scratch.extend_from_slice(&self.text[start..self.at]);
        self.escaped(stack)?;
        if std::str::from_utf8(&stack.host().scratch).is_err() {
            return Err(Fault::Text("a string is not UTF-8"));
        }
        stack.push_scratch();
        Ok(())
    }

    /// The rest of a string, from its first escape on, to the scratch.
    fn escaped(&mut self, stack: Stack<'_>) -> Result<(), Fault> {
        loop {
            let byte = *self.text.get(self.at).ok_or(Fault::Text("the text ends within a string"))?;
            self.at += 1;
            match byte {
                b'"' => return Ok(()),
                b'\\' => {
                    let code = self.escape()?;
                    stack.host().scratch.extend_from_slice(code.encode_utf8(&mut [0; 4]).as_bytes());
                }
                0..0x20 => return Err(Fault::Text("a control character in a string")),
                _ => stack.host().scratch.push(byte),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Fault> {
        let byte = *self.text.get(self.at).ok_or(Fault::Text("the text ends within a string"))?;
        self.at += 1;
        Ok(match byte {
            b'"' | b'\\' | b'/' => byte.into(),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode(),
            _ => return Err(Fault::Text("not an escape")),
        })
    }

    fn unicode(&mut self) -> Result<char, Fault> {
        let first = self.four_digits()?;
        if (0xD800..0xDC00).contains(&first) {
            if !self.text[self.at..].starts_with(b"\\u") {
                return Err(Fault::Text("half a surrogate pair"));
            }
            self.at += 2;
            let second = self.four_digits()?;
            if !(0xDC00..0xE000).contains(&second) {
                return Err(Fault::Text("half a surrogate pair"));
            }
            let code = 0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00);
            return char::from_u32(code).ok_or(Fault::Text("not a character"));
        }
        char::from_u32(first).ok_or(Fault::Text("half a surrogate pair"))
    }

    fn four_digits(&mut self) -> Result<u32, Fault> {
        let fault = Fault::Text("expected four hexadecimal digits");
        let digits = self.text.get(self.at..self.at + 4).ok_or(fault)?;
        self.at += 4;
        digits.iter().try_fold(0, |code, digit| Some(code * 16 + char::from(*digit).to_digit(16)?)).ok_or(fault)
    }
}
