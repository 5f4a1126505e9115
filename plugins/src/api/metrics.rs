//! `postroad.counter` and `postroad.gauge`: numbers of a plugin among the server's metrics. An object is the place of its number.

use super::is_of_type;
use crate::lua::{Fault, Reference, Returned, Stack};

/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 64;

pub(super) fn counter(stack: Stack<'_>) -> Returned {
    let name = name_argument(stack)?;
    let place = stack.host().account().counter(name).ok_or(Fault::Text("too many names of counters and gauges"))?;
    push_place(stack, place, stack.host().kept.counter_type)
}

pub(super) fn gauge(stack: Stack<'_>) -> Returned {
    let name = name_argument(stack)?;
    let place = stack.host().account().gauge(name).ok_or(Fault::Text("too many names of counters and gauges"))?;
    push_place(stack, place, stack.host().kept.gauge_type)
}

pub(super) fn add(stack: Stack<'_>) -> Returned {
    let place = place_argument(stack, stack.host().kept.counter_type)?;
    let by = if stack.is_nil(2) { Some(1) } else { stack.integer(2) };
    let by = by
        .and_then(|by| u64::try_from(by).ok())
        .ok_or(Fault::Argument(2, "a counter only grows: expected a whole number from 0 on"))?;
    if let Some((_, value)) = stack.host().account().counters.get_mut(place) {
        *value = value.saturating_add(by);
    }
    Ok(0)
}

pub(super) fn set(stack: Stack<'_>) -> Returned {
    let place = place_argument(stack, stack.host().kept.gauge_type)?;
    let to = stack.number(2).ok_or(Fault::Argument(2, "expected a number"))?;
    if let Some((_, value)) = stack.host().account().gauges.get_mut(place) {
        *value = to;
    }
    Ok(0)
}

fn name_argument<'a>(stack: Stack<'a>) -> Result<&'a str, Fault> {
    let fault = Fault::Argument(1, "expected a name: a-z, 0-9 and '_', a letter first, at most 64 bytes");
    let name = stack.text(1).ok_or(fault)?;
    let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    let begins = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
    if begins && name.len() <= NAME_BYTES_MAX && name.bytes().all(is_plain) { Ok(name) } else { Err(fault) }
}

fn push_place(stack: Stack<'_>, place: usize, kind: Reference) -> Returned {
    let memory = stack.push_userdata(size_of::<usize>());
    // SAFETY: the object has room for this, and Lua aligns it.
    unsafe { memory.cast::<usize>().write(place) };
    stack.push_reference(kind);
    stack.set_metatable(-2);
    Ok(1)
}

fn place_argument(stack: Stack<'_>, kind: Reference) -> Result<usize, Fault> {
    if !is_of_type(stack, 1, kind) {
        return Err(Fault::Argument(1, "call it as object:method(…)"));
    }
    // SAFETY: objects of these types are made by `push_place` alone, and scripts can give no metatable to an object.
    Ok(unsafe { stack.pointer(1).cast::<usize>().read() })
}
