//! `postroad.store`: see `stores`.

use base::MonoMillis;
use bytes::Bytes;
use postroad_base as base;

use crate::lua::{Fault, Kind, Returned, Stack};
use crate::stores::{Room, Store, Value};

/// Longest key, in bytes.
const KEY_BYTES_MAX: usize = 1_024;

fn key_argument<'a>(stack: Stack<'a>) -> Result<&'a [u8], Fault> {
    let key = stack.bytes(1).filter(|key| (1..=KEY_BYTES_MAX).contains(&key.len()));
    key.ok_or(Fault::Argument(1, "expected a key: a string of 1 to 1,024 bytes"))
}

/// Runs `work` on the plugin's store. It raises nothing: the store is borrowed.
fn with_store<T>(stack: Stack<'_>, work: impl FnOnce(&mut Store) -> T) -> T {
    let host = stack.host();
    let stores = std::rc::Rc::clone(&host.stores);
    work(stores.borrow_mut().of(&host.account().name))
}

fn check_writable(stack: Stack<'_>) -> Result<(), Fault> {
    if stack.host().call.is_store_read_only {
        return Err(Fault::Text(
            "the store is read-only while a plugin is loaded, in on_load, on_save and self-tests: they may be taken back",
        ));
    }
    Ok(())
}

/// When what is stored now for so many seconds is over.
fn end_argument(stack: Stack<'_>, number: u8) -> Result<Option<MonoMillis>, Fault> {
    if stack.is_nil(number.into()) {
        return Ok(None);
    }
    let seconds = stack.number(number.into()).filter(|seconds| seconds.is_finite() && *seconds > 0.0);
    let seconds = seconds.ok_or(Fault::Argument(number, "expected seconds: a number above 0"))?;
    Ok(Some(stack.host().now.mono.after((seconds * 1000.0).ceil() as u64)))
}

fn room(stack: Stack<'_>) -> Room {
    let limits = &stack.host().limits;
    Room { entries: limits.store_entries, bytes: limits.store_bytes }
}

pub(super) fn get(stack: Stack<'_>) -> Returned {
    let key = key_argument(stack)?;
    let now = stack.host().now.mono;
    let found = with_store(stack, |store| {
        let scratch = &mut stack.host().scratch;
        match store.get(now, key) {
            None => stack.push_nil(),
            Some(Value::Boolean(value)) => stack.push_boolean(*value),
            Some(Value::Integer(value)) => stack.push_integer(*value),
            Some(Value::Number(value)) => stack.push_number(*value),
            Some(Value::Bytes(bytes)) => {
                scratch.clear();
                scratch.extend_from_slice(bytes);
                return true;
            }
        }
        false
    });
    if found {
        stack.host().charge_bytes(stack.host().scratch.len())?;
        stack.push_scratch();
    }
    Ok(1)
}

pub(super) fn set(stack: Stack<'_>) -> Returned {
    let key = key_argument(stack)?;
    check_writable(stack)?;
    let until = end_argument(stack, 3)?;
    let (now, room) = (stack.host().now.mono, room(stack));
    stack.host().charge_bytes(stack.bytes(2).map_or(0, <[u8]>::len))?;
    let value = match stack.kind(2) {
        Kind::Boolean => Value::Boolean(stack.is_true(2)),
        Kind::Number if stack.is_integer(2) => Value::Integer(stack.integer(2).unwrap_or_default()),
        Kind::Number => Value::Number(stack.number(2).unwrap_or_default()),
        Kind::String => Value::Bytes(Bytes::copy_from_slice(stack.bytes(2).unwrap_or_default())),
        _ => return Err(Fault::Argument(2, "expected a string, a number or a boolean; see postroad.json.encode")),
    };
    let is_stored = with_store(stack, |store| store.set(now, key, value, until, room));
    stack.push_boolean(is_stored);
    Ok(1)
}

pub(super) fn incr(stack: Stack<'_>) -> Returned {
    let key = key_argument(stack)?;
    check_writable(stack)?;
    let by = if stack.is_nil(2) { Some(1) } else { stack.integer(2) };
    let by = by.ok_or(Fault::Argument(2, "expected a whole number"))?;
    let new_end = end_argument(stack, 3)?;
    let (now, room) = (stack.host().now.mono, room(stack));
    let sum = with_store(stack, |store| {
        let (was, until) = match store.get(now, key) {
            None => (0, new_end),
            Some(Value::Integer(value)) => (*value, store.until(key)),
            Some(_) => return Err(Fault::Text("what is stored is no whole number")),
        };
        let sum = was.saturating_add(by);
        Ok(store.set(now, key, Value::Integer(sum), until, room).then_some(sum))
    })?;
    match sum {
        Some(sum) => stack.push_integer(sum),
        None => stack.push_nil(),
    }
    Ok(1)
}

pub(super) fn delete(stack: Stack<'_>) -> Returned {
    let key = key_argument(stack)?;
    check_writable(stack)?;
    let was_there = with_store(stack, |store| store.remove(key));
    stack.push_boolean(was_there);
    Ok(1)
}
