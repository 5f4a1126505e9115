//! Basic functions that are not Lua's own here.

use crate::lua::{Fault, Kind, Returned, Stack};

/// What a script is told at once that it can't have. Finalizers would run while the host allocates; Lua looks for one only here. Tables are never
/// weak, whatever is set later: see `State`.
const REFUSED: [&str; 2] = ["__gc", "__mode"];

pub(super) fn set_metatable(stack: Stack<'_>) -> Returned {
    if stack.kind(1) != Kind::Table {
        return Err(Fault::Argument(1, "expected a table"));
    }
    let kind = stack.kind(2);
    if !matches!(kind, Kind::Nil | Kind::Table) {
        return Err(Fault::Argument(2, "expected a table or nil"));
    }
    if is_protected(stack, 1) {
        return Err(Fault::Text("cannot change a protected metatable"));
    }
    if kind == Kind::Table {
        for name in REFUSED {
            stack.push_bytes(name.as_bytes());
            stack.raw_get(2);
            if !stack.is_nil(-1) {
                return Err(Fault::Text("a metatable with '__gc' or '__mode' is refused"));
            }
            stack.pop(1);
        }
    }
    stack.set_top(2);
    stack.set_metatable(1);
    Ok(1)
}

/// Whether the table's metatable says that it is nobody's to change.
fn is_protected(stack: Stack<'_>, table: i32) -> bool {
    has_field(stack, table, "__metatable")
}

fn has_field(stack: Stack<'_>, table: i32, name: &str) -> bool {
    if !stack.push_metatable(table) {
        return false;
    }
    stack.push_bytes(name.as_bytes());
    stack.raw_get(-2);
    let is_there = !stack.is_nil(-1);
    stack.pop(2);
    is_there
}

pub(super) fn raw_set(stack: Stack<'_>) -> Returned {
    if stack.kind(1) != Kind::Table {
        return Err(Fault::Argument(1, "expected a table"));
    }
    if is_protected(stack, 1) && has_field(stack, 1, "__newindex") {
        return Err(Fault::Text("this table is read-only"));
    }
    let is_key = match stack.kind(2) {
        Kind::None | Kind::Nil => false,
        Kind::Number => stack.number(2).is_some_and(|number| !number.is_nan()),
        _ => true,
    };
    if !is_key {
        return Err(Fault::Argument(2, "neither nil nor NaN can be a key"));
    }
    stack.set_top(3);
    stack.raw_set(1);
    Ok(1)
}

/// Only `collectgarbage("count")`: what a script may know.
pub(super) fn collect_garbage(stack: Stack<'_>) -> Returned {
    if stack.bytes(1) != Some(b"count") {
        return Err(Fault::Text("only collectgarbage(\"count\") is there"));
    }
    let host = stack.host();
    let held = host.memory.held.get(host.memory.owner).copied().unwrap_or_default();
    stack.push_number(held as f64 / 1024.0);
    Ok(1)
}

/// What stands behind read-only tables.
pub(super) fn refuse_change(_stack: Stack<'_>) -> Returned {
    Err(Fault::Text("this table is read-only"))
}

/// `math.random`: xorshift, from a seed of the plugin and the shard.
pub(super) fn random(stack: Stack<'_>) -> Returned {
    let account = stack.host().account();
    account.random ^= account.random << 13;
    account.random ^= account.random >> 7;
    account.random ^= account.random << 17;
    let drawn = account.random;
    let (low, high) = match stack.top() {
        0 => {
            stack.push_number((drawn >> 11) as f64 / (1u64 << 53) as f64);
            return Ok(1);
        }
        1 => match super::strings::integer_argument(stack, 1, 1)? {
            0 => (i64::MIN, i64::MAX), // any whole number, as in Lua
            high => (1, high),
        },
        _ => (super::strings::integer_argument(stack, 1, 1)?, super::strings::integer_argument(stack, 2, 1)?),
    };
    if low > high {
        return Err(Fault::Text("the interval is empty"));
    }
    let width = high.wrapping_sub(low) as u64;
    let offset = if width == u64::MAX { drawn } else { drawn % (width + 1) };
    stack.push_integer(low.wrapping_add(offset as i64));
    Ok(1)
}

pub(super) fn random_seed(stack: Stack<'_>) -> Returned {
    let seed = super::strings::integer_argument(stack, 1, 0)?;
    stack.host().account().random = (seed as u64) ^ 0x9E37_79B9_7F4A_7C15 | 1;
    Ok(0)
}
