//! Tables of scripts as data: arrays and maps, keys in an order of their own, and what `on_save` hands over.
//!
//! Lua's own order of keys differs from VM to VM; here it is sorted, so that shards, both VMs of a comparison and two runs say the same.

use bytes::Bytes;

use super::{is_of_type, saying};
use crate::Plain;
use crate::lua::{Fault, Kind, Returned, Stack};

/// Most values that are read as [`Plain`] at once: tables that share parts can stand for many more than they hold.
const VALUES_MAX: usize = 200_000;

/// A key of a map. Bytes lie in the table's key, which stays while nothing runs but us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Boolean(bool),
    Integer(i64),
    /// By its bits: any order will do.
    Number(u64),
    Bytes(&'static [u8]),
}

/// Reads the key at `index`. What it lends is valid while the table has it.
fn key_at(stack: Stack<'_>, index: i32) -> Result<Key, Fault> {
    Ok(match stack.kind(index) {
        Kind::Boolean => Key::Boolean(stack.is_true(index)),
        Kind::Number if stack.is_integer(index) => Key::Integer(stack.integer(index).unwrap_or_default()),
        Kind::Number => Key::Number(stack.number(index).unwrap_or_default().to_bits()),
        Kind::String => {
            let bytes = stack.bytes(index).unwrap_or_default();
            // SAFETY: the table holds the string; users of keys run no script, and change no table, before they have forgotten them.
            Key::Bytes(unsafe { std::mem::transmute::<&[u8], &'static [u8]>(bytes) })
        }
        other => return Err(saying(stack, format_args!("{} can't be a key", other.name()))),
    })
}

/// May raise.
pub(super) fn push_key(stack: Stack<'_>, key: Key) {
    match key {
        Key::Boolean(value) => stack.push_boolean(value),
        Key::Integer(value) => stack.push_integer(value),
        Key::Number(bits) => stack.push_number(f64::from_bits(bits)),
        Key::Bytes(bytes) => stack.push_bytes(bytes),
    }
}

/// Puts the keys of a table behind the others in `Host::keys`, sorted: from where. Whoever is done truncates them.
pub(super) fn sort_keys(stack: Stack<'_>, table: i32) -> Result<usize, Fault> {
    let table = stack.absolute(table);
    let from = stack.host().keys.len();
    stack.push_nil();
    while stack.next(table) {
        stack.pop(1);
        let key = key_at(stack, -1)?;
        stack.host().keys.push(key);
    }
    stack.host().keys[from..].sort_unstable();
    let count = stack.host().keys.len() - from;
    stack.host().charge(4 * count as u64)?;
    Ok(from)
}

/// How many elements, if it is an array: it was marked as one, or has the keys 1 to n and no others, and at least one.
pub(super) fn array_len(stack: Stack<'_>, table: i32) -> Result<Option<usize>, Fault> {
    let table = stack.absolute(table);
    let length = stack.raw_len(table);
    if is_of_type(stack, table, stack.host().kept.array_type) {
        return Ok(Some(length));
    }
    if length == 0 {
        return Ok(None);
    }
    stack.host().charge(length as u64)?;
    let mut entries = 0;
    stack.push_nil();
    while stack.next(table) {
        stack.pop(1);
        entries += 1;
        if entries > length {
            stack.pop(1);
            return Ok(None);
        }
    }
    Ok((entries == length).then_some(length))
}

/// Marks the table at the top as an array.
pub(super) fn mark_array(stack: Stack<'_>) {
    stack.push_reference(stack.host().kept.array_type);
    stack.set_metatable(-2);
}

pub(super) fn array(stack: Stack<'_>) -> Returned {
    match stack.kind(1) {
        Kind::None | Kind::Nil => stack.push_table(0, 0),
        Kind::Table => {
            if stack.push_metatable(1) {
                stack.pop(1);
                return Err(Fault::Argument(1, "expected a table without a metatable"));
            }
            stack.set_top(1);
        }
        _ => return Err(Fault::Argument(1, "expected a table")),
    }
    mark_array(stack);
    Ok(1)
}

pub(super) fn is_null(stack: Stack<'_>, index: i32) -> bool {
    let index = stack.absolute(index);
    stack.push_reference(stack.host().kept.null);
    let is_null = stack.identity(-1) == stack.identity(index);
    stack.pop(1);
    is_null
}

/// Reads a value as plain data. Raises nothing: what it builds is Rust's.
pub(crate) fn read_plain(stack: Stack<'_>, index: i32) -> Result<Plain, Fault> {
    let mut left = VALUES_MAX;
    let depth = stack.host().limits.depth;
    let from = stack.host().keys.len();
    let plain = read(stack, index, depth, &mut left);
    stack.host().keys.truncate(from);
    plain
}

fn read(stack: Stack<'_>, index: i32, depth: usize, left: &mut usize) -> Result<Plain, Fault> {
    *left = left.checked_sub(1).ok_or(Fault::Text("too much data"))?;
    Ok(match stack.kind(index) {
        Kind::None | Kind::Nil => Plain::Nil,
        Kind::Boolean => Plain::Boolean(stack.is_true(index)),
        Kind::Number if stack.is_integer(index) => Plain::Integer(stack.integer(index).unwrap_or_default()),
        Kind::Number => Plain::Number(stack.number(index).unwrap_or_default()),
        Kind::String => Plain::Bytes(Bytes::copy_from_slice(stack.bytes(index).unwrap_or_default())),
        Kind::Table => return read_table(stack, stack.absolute(index), depth, left),
        Kind::Userdata if is_null(stack, index) => Plain::Nil,
        other => return Err(saying(stack, format_args!("{} is no plain data", other.name()))),
    })
}

fn read_table(stack: Stack<'_>, table: i32, depth: usize, left: &mut usize) -> Result<Plain, Fault> {
    let depth = depth.checked_sub(1).ok_or(Fault::Text("data is too deep, or holds itself"))?;
    if !stack.has_room(8) {
        return Err(Fault::Text("no room on the stack"));
    }
    if let Some(length) = array_len(stack, table)? {
        let mut elements = Vec::with_capacity(length.min(*left));
        for place in 1..=length {
            stack.raw_get_at(table, place as i64);
            elements.push(read(stack, -1, depth, left)?);
            stack.pop(1);
        }
        return Ok(Plain::Array(elements));
    }
    let mut entries = Vec::new();
    stack.push_nil();
    while stack.next(table) {
        let key = read(stack, -2, 0, left)?;
        let value = read(stack, -1, depth, left)?;
        stack.pop(1);
        entries.push((key, value));
    }
    entries.sort_unstable_by(|(left, _), (right, _)| order(left).cmp(&order(right)));
    Ok(Plain::Map(entries))
}

fn order(key: &Plain) -> (u8, u64, &[u8]) {
    match key {
        Plain::Boolean(value) => (0, (*value).into(), &[]),
        Plain::Integer(value) => (1, (*value as u64) ^ (1 << 63), &[]),
        Plain::Number(value) => (2, value.to_bits(), &[]),
        Plain::Bytes(bytes) => (3, 0, bytes),
        _ => (4, 0, &[]),
    }
}

/// Pushes it. May raise: whoever owns `plain` is outside.
pub(crate) fn push_plain(stack: Stack<'_>, plain: &Plain) {
    stack.reserve(4);
    match plain {
        Plain::Nil => stack.push_nil(),
        Plain::Boolean(value) => stack.push_boolean(*value),
        Plain::Integer(value) => stack.push_integer(*value),
        Plain::Number(value) => stack.push_number(*value),
        Plain::Bytes(bytes) => stack.push_bytes(bytes),
        Plain::Array(elements) => {
            stack.push_table(elements.len(), 0);
            mark_array(stack);
            for (place, element) in elements.iter().enumerate() {
                push_plain(stack, element);
                stack.raw_set_at(-2, place as i64 + 1);
            }
        }
        Plain::Map(entries) => {
            stack.push_table(0, entries.len());
            for (key, value) in entries {
                push_plain(stack, key);
                push_plain(stack, value);
                stack.raw_set(-3);
            }
        }
    }
}
