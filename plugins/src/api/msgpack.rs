//! MessagePack. Whole numbers and floats keep their kind; strings are `str` if they are UTF-8, else `bin`; extensions are not read.

use super::data::{array_len, is_null, mark_array, push_key, sort_keys};
use super::json::{check_room, encode_by, explain};
use super::saying;
use crate::lua::{Fault, Kind, Returned, Stack};

pub(super) fn encode(stack: Stack<'_>) -> Returned {
    encode_by(stack, write)
}

fn put(stack: Stack<'_>, head: u8, bytes: &[u8]) {
    let scratch = &mut stack.host().scratch;
    scratch.push(head);
    scratch.extend_from_slice(bytes);
}

fn write(stack: Stack<'_>, index: i32, depth: usize) -> Result<(), Fault> {
    stack.host().charge(2)?;
    check_room(stack)?;
    match stack.kind(index) {
        Kind::Nil | Kind::None => put(stack, 0xC0, &[]),
        Kind::Boolean => put(stack, 0xC2 + u8::from(stack.is_true(index)), &[]),
        Kind::Number if stack.is_integer(index) => write_integer(stack, stack.integer(index).unwrap_or_default()),
        Kind::Number => write_number(stack, stack.number(index).unwrap_or_default()),
        Kind::String => write_string(stack, stack.bytes(index).unwrap_or_default())?,
        Kind::Table => return write_table(stack, stack.absolute(index), depth),
        Kind::Userdata if is_null(stack, index) => put(stack, 0xC0, &[]),
        other => return Err(saying(stack, format_args!("{} can't be written", other.name()))),
    }
    Ok(())
}

fn write_integer(stack: Stack<'_>, value: i64) {
    match value {
        -32..=0x7F => put(stack, value as u8, &[]),
        0x80..=0xFF => put(stack, 0xCC, &[value as u8]),
        0x100..=0xFFFF => put(stack, 0xCD, &(value as u16).to_be_bytes()),
        0x1_0000..=0xFFFF_FFFF => put(stack, 0xCE, &(value as u32).to_be_bytes()),
        0x1_0000_0000.. => put(stack, 0xCF, &(value as u64).to_be_bytes()),
        -0x80..=-33 => put(stack, 0xD0, &(value as i8).to_be_bytes()),
        -0x8000..=-0x81 => put(stack, 0xD1, &(value as i16).to_be_bytes()),
        -0x8000_0000..=-0x8001 => put(stack, 0xD2, &(value as i32).to_be_bytes()),
        _ => put(stack, 0xD3, &value.to_be_bytes()),
    }
}

fn write_number(stack: Stack<'_>, value: f64) {
    let short = value as f32;
    if f64::from(short).to_bits() == value.to_bits() {
        put(stack, 0xCA, &short.to_be_bytes());
    } else {
        put(stack, 0xCB, &value.to_be_bytes());
    }
}

/// A length that a head of one, two or four bytes says; the fixed head holds up to `fixed_max`.
fn write_length(stack: Stack<'_>, length: usize, (fixed, fixed_max): (u8, usize), heads: [u8; 3]) -> Result<(), Fault> {
    let length = u32::try_from(length).map_err(|_| Fault::Text("the result is too large"))?;
    match (u8::try_from(length), u16::try_from(length)) {
        _ if (length as usize) <= fixed_max => put(stack, fixed | length as u8, &[]),
        (Ok(short), _) if heads[0] != 0 => put(stack, heads[0], &[short]),
        (_, Ok(middle)) => put(stack, heads[1], &middle.to_be_bytes()),
        _ => put(stack, heads[2], &length.to_be_bytes()),
    }
    Ok(())
}

fn write_string(stack: Stack<'_>, bytes: &[u8]) -> Result<(), Fault> {
    stack.host().charge_bytes(bytes.len())?;
    if std::str::from_utf8(bytes).is_ok() {
        write_length(stack, bytes.len(), (0xA0, 31), [0xD9, 0xDA, 0xDB])?;
    } else {
        // No binary has 0 bytes here: those are UTF-8.
        write_length(stack, bytes.len(), (0, 0), [0xC4, 0xC5, 0xC6])?;
    }
    stack.host().scratch.extend_from_slice(bytes);
    Ok(())
}

fn write_table(stack: Stack<'_>, table: i32, depth: usize) -> Result<(), Fault> {
    let depth = depth.checked_sub(1).ok_or(Fault::Text("the value is too deep, or holds itself"))?;
    if let Some(length) = array_len(stack, table)? {
        write_length(stack, length, (0x90, 15), [0, 0xDC, 0xDD])?;
        for place in 1..=length {
            stack.raw_get_at(table, place as i64);
            write(stack, -1, depth)?;
            stack.pop(1);
        }
        return Ok(());
    }
    let from = sort_keys(stack, table)?;
    let end = stack.host().keys.len();
    write_length(stack, end - from, (0x80, 15), [0, 0xDE, 0xDF])?;
    for place in from..end {
        let key = stack.host().keys[place];
        push_key(stack, key);
        write(stack, -1, depth)?;
        stack.raw_get(table);
        write(stack, -1, depth)?;
        stack.pop(1);
    }
    stack.host().keys.truncate(from);
    Ok(())
}

pub(super) fn decode(stack: Stack<'_>) -> Returned {
    let bytes = stack.bytes(1).ok_or(Fault::Argument(1, "expected a string"))?;
    stack.set_top(1);
    stack.host().charge_bytes(bytes.len())?;
    let depth = stack.host().limits.depth;
    let mut reader = Reader { bytes, at: 0 };
    match reader.document(stack, depth) {
        Ok(()) => Ok(1),
        Err(Fault::Text(text)) => explain(stack, saying(stack, format_args!("{text}, at byte {}", reader.at + 1))),
        Err(fault) => Err(fault),
    }
}

/// A place in bytes.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn document(&mut self, stack: Stack<'_>, depth: usize) -> Result<(), Fault> {
        self.value(stack, depth)?;
        if self.at == self.bytes.len() { Ok(()) } else { Err(Fault::Text("something behind the value")) }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(Fault::Text("the bytes end too early"))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// A big-endian number of so many bytes.
    fn unsigned(&mut self, count: usize) -> Result<u64, Fault> {
        Ok(self.take(count)?.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    fn signed(&mut self, count: usize) -> Result<i64, Fault> {
        let unused = 64 - 8 * count as u32;
        Ok((self.unsigned(count)? << unused) as i64 >> unused)
    }

    /// Pushes the value. May raise.
    fn value(&mut self, stack: Stack<'_>, depth: usize) -> Result<(), Fault> {
        stack.host().charge(2)?;
        stack.reserve(6);
        let head = self.take(1)?[0];
        match head {
            0..=0x7F => stack.push_integer(head.into()),
            0x80..=0x8F => self.map(stack, (head & 15).into(), depth)?,
            0x90..=0x9F => self.array(stack, (head & 15).into(), depth)?,
            0xA0..=0xBF => stack.push_bytes(self.take((head & 31).into())?),
            0xC0 => stack.push_reference(stack.host().kept.null),
            0xC2 | 0xC3 => stack.push_boolean(head == 0xC3),
            0xC4..=0xC6 => self.string(stack, 1 << (head - 0xC4))?,
            0xCA => {
                let bits = self.unsigned(4)? as u32;
                stack.push_number(f32::from_bits(bits).into());
            }
            0xCB => {
                let bits = self.unsigned(8)?;
                stack.push_number(f64::from_bits(bits));
            }
            0xCC..=0xCF => {
                let value = self.unsigned(1 << (head - 0xCC))?;
                match i64::try_from(value) {
                    Ok(value) => stack.push_integer(value),
                    Err(_) => stack.push_number(value as f64),
                }
            }
            0xD0..=0xD3 => {
                let value = self.signed(1 << (head - 0xD0))?;
                stack.push_integer(value);
            }
            0xD9..=0xDB => self.string(stack, 1 << (head - 0xD9))?,
            0xDC | 0xDD => {
                let length = self.unsigned(2 << (head - 0xDC))?;
                self.array(stack, length, depth)?;
            }
            0xDE | 0xDF => {
                let length = self.unsigned(2 << (head - 0xDE))?;
                self.map(stack, length, depth)?;
            }
            0xE0..=0xFF => stack.push_integer((head as i8).into()),
            0xC1 => return Err(Fault::Text("a byte that MessagePack never uses")),
            0xC7..=0xC9 | 0xD4..=0xD8 => return Err(Fault::Text("extensions are not read")),
        }
        Ok(())
    }

    fn string(&mut self, stack: Stack<'_>, length_bytes: usize) -> Result<(), Fault> {
        let length = self.unsigned(length_bytes)? as usize;
        stack.push_bytes(self.take(length)?);
        Ok(())
    }

    /// Nothing is made room for: the length is somebody's word.
    fn array(&mut self, stack: Stack<'_>, length: u64, depth: usize) -> Result<(), Fault> {
        let depth = depth.checked_sub(1).ok_or(Fault::Text("the value is too deep"))?;
        stack.push_table(0, 0);
        mark_array(stack);
        for place in 1..=length {
            self.value(stack, depth)?;
            stack.raw_set_at(-2, place as i64);
        }
        Ok(())
    }

    fn map(&mut self, stack: Stack<'_>, length: u64, depth: usize) -> Result<(), Fault> {
        let depth = depth.checked_sub(1).ok_or(Fault::Text("the value is too deep"))?;
        stack.push_table(0, 0);
        for _ in 0..length {
            self.value(stack, depth)?;
            let is_key = match stack.kind(-1) {
                Kind::String | Kind::Boolean => true,
                Kind::Number => stack.number(-1).is_some_and(|number| !number.is_nan()),
                _ => false,
            };
            if !is_key {
                return Err(Fault::Text("a key that Lua's tables can't have"));
            }
            self.value(stack, depth)?;
            stack.raw_set(-3);
        }
        Ok(())
    }
}
