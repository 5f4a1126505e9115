//! The library `table`, each step of which is charged: Lua's own loop as far as a `__len` says, and no hook comes by.

use super::strings::{integer_argument, string_argument};
use crate::lua::{Buffer, Fault, Kind, Returned, Stack};

/// Most values that `table.unpack` gives.
const UNPACK_MAX: i64 = 8_000;

fn table_argument(stack: Stack<'_>, number: u8) -> Result<(), Fault> {
    if stack.kind(number.into()) == Kind::Table { Ok(()) } else { Err(Fault::Argument(number, "expected a table")) }
}

pub(super) fn insert(stack: Stack<'_>) -> Returned {
    table_argument(stack, 1)?;
    let end = stack.len(1).wrapping_add(1);
    match stack.top() {
        2 => stack.set_at(1, end),
        3 => {
            let position = stack.integer(2).ok_or(Fault::Argument(2, "expected a whole number"))?;
            if (position as u64).wrapping_sub(1) >= end as u64 {
                return Err(Fault::Argument(2, "position out of bounds"));
            }
            for index in (position + 1..=end).rev() {
                stack.host().charge(2)?;
                stack.get_at(1, index - 1);
                stack.set_at(1, index);
            }
            stack.set_at(1, position);
        }
        _ => return Err(Fault::Text("wrong number of arguments to 'insert'")),
    }
    Ok(0)
}

pub(super) fn remove(stack: Stack<'_>) -> Returned {
    table_argument(stack, 1)?;
    let size = stack.len(1);
    let position = integer_argument(stack, 2, size)?;
    if position != size && (position as u64).wrapping_sub(1) > size as u64 {
        return Err(Fault::Argument(2, "position out of bounds"));
    }
    stack.get_at(1, position);
    for index in position..size {
        stack.host().charge(2)?;
        stack.get_at(1, index + 1);
        stack.set_at(1, index);
    }
    stack.push_nil();
    stack.set_at(1, position.max(size));
    Ok(1)
}

pub(super) fn concat(stack: Stack<'_>) -> Returned {
    table_argument(stack, 1)?;
    let separator = if stack.is_nil(2) { &[][..] } else { string_argument(stack, 2)? };
    let first = integer_argument(stack, 3, 1)?;
    let last = if stack.is_nil(4) { stack.len(1) } else { integer_argument(stack, 4, 0)? };
    let mut buffer = Buffer::new();
    buffer.begin(stack);
    let mut index = first;
    while index <= last {
        stack.host().charge(2)?;
        stack.get_at(1, index);
        if !matches!(stack.kind(-1), Kind::String | Kind::Number) {
            return Err(Fault::Text("invalid value in table for 'concat': expected strings and numbers"));
        }
        stack.host().charge_bytes(stack.raw_len(-1))?;
        buffer.add_value();
        if index == last {
            break;
        }
        buffer.add(separator);
        index += 1;
    }
    buffer.finish();
    Ok(1)
}

pub(super) fn unpack(stack: Stack<'_>) -> Returned {
    let first = integer_argument(stack, 2, 1)?;
    let last = if stack.is_nil(3) { stack.len(1) } else { integer_argument(stack, 3, 0)? };
    if first > last {
        return Ok(0);
    }
    let count =
        last.checked_sub(first).filter(|span| *span < UNPACK_MAX).ok_or(Fault::Text("too many results to unpack"))? + 1;
    stack.host().charge(count as u64)?;
    stack.reserve(count as i32);
    for index in first..=last {
        stack.get_at(1, index);
    }
    Ok(count as i32)
}

pub(super) fn move_(stack: Stack<'_>) -> Returned {
    table_argument(stack, 1)?;
    let whole = |number: u8| stack.integer(number.into()).ok_or(Fault::Argument(number, "expected a whole number"));
    let (first, last, to) = (whole(2)?, whole(3)?, whole(4)?);
    let into = if stack.is_nil(5) { 1 } else { 5 };
    table_argument(stack, into)?;
    let into = i32::from(into);
    if last >= first {
        let count = last.checked_sub(first).filter(|_| first > 0 || last < i64::MAX + first);
        let span = count.ok_or(Fault::Argument(3, "too many elements to move"))?;
        to.checked_add(span).ok_or(Fault::Argument(4, "destination wrap around"))?;
        // From the end, if the places overlap and the destination lies behind.
        let is_backwards = to > first && to <= last && (into == 1 || stack.identity(1) == stack.identity(into));
        for step in 0..=span {
            let offset = if is_backwards { span - step } else { step };
            stack.host().charge(2)?;
            stack.get_at(1, first + offset);
            stack.set_at(into, to + offset);
        }
    }
    stack.push_copy(into);
    Ok(1)
}

/// A heap sort: as many comparisons whatever they say, so an order that contradicts itself is harmless.
pub(super) fn sort(stack: Stack<'_>) -> Returned {
    table_argument(stack, 1)?;
    let size = stack.len(1);
    if !stack.is_nil(2) && stack.kind(2) != Kind::Function {
        return Err(Fault::Argument(2, "expected a function"));
    }
    if size >= i64::from(i32::MAX) {
        return Err(Fault::Argument(1, "array too big"));
    }
    stack.set_top(2);
    for root in (1..=size / 2).rev() {
        sift(stack, root, size)?;
    }
    for end in (2..=size).rev() {
        stack.get_at(1, 1);
        stack.get_at(1, end);
        stack.set_at(1, 1);
        stack.set_at(1, end);
        sift(stack, 1, end - 1)?;
    }
    Ok(0)
}

/// Lets the value at `root` sink to its place among the first `size`.
fn sift(stack: Stack<'_>, mut root: i64, size: i64) -> Result<(), Fault> {
    loop {
        stack.host().charge(4)?;
        let mut child = 2 * root;
        if child > size {
            return Ok(());
        }
        stack.get_at(1, child);
        if child < size {
            stack.get_at(1, child + 1);
            if is_before(stack, -2, -1) {
                stack.remove(-2);
                child += 1;
            } else {
                stack.pop(1);
            }
        }
        stack.get_at(1, root);
        if !is_before(stack, -1, -2) {
            stack.pop(2);
            return Ok(());
        }
        // The child is below the root on the stack.
        stack.set_at(1, child);
        stack.set_at(1, root);
        root = child;
    }
}

fn is_before(stack: Stack<'_>, left: i32, right: i32) -> bool {
    if stack.is_nil(2) {
        return stack.is_less(left, right);
    }
    let (left, right) = (stack.absolute(left), stack.absolute(right));
    stack.push_copy(2);
    stack.push_copy(left);
    stack.push_copy(right);
    stack.call(2, 1);
    let is_before = stack.is_true(-1);
    stack.pop(1);
    is_before
}
