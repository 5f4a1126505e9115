//! `coroutine.create`, `wrap` and `resume` that count, and let no script go on when its call is over.
//!
//! Lua gives a new coroutine the count hook of its maker, with a count of its own that begins anew. What a coroutine may do before its hook comes is
//! therefore charged when it is made: a script that makes one for each few instructions gains nothing. The count goes on over yields.
//!
//! A coroutine that the count hook has ended is in that hook for ever, as Lua sees it: no further hook comes, not even if it is closed in a later call and
//! its `<close>` variables run. Such a coroutine is marked, and never closed.

use std::ffi::c_int;

use mlua::ffi;
use mlua::lua_State;

use super::{Fault, Kind, Returned, Stack};

/// What one resume costs besides what it runs.
const RESUME: u64 = 10;

/// `coroutine.create`
pub(crate) fn create(stack: Stack<'_>) -> Returned {
    if stack.kind(1) != Kind::Function {
        return Err(Fault::Argument(1, "expected a function"));
    }
    let every = stack.host().look_every();
    stack.host().charge(u64::from(every.unsigned_abs()))?;
    // SAFETY: the state is live, the stack has room for some values more; the function moves to the new one.
    unsafe {
        let coroutine = ffi::lua_newthread(stack.raw());
        ffi::lua_pushvalue(stack.raw(), 1);
        ffi::lua_xmove(stack.raw(), coroutine, 1);
    }
    Ok(1)
}

/// `coroutine.resume`
pub(crate) fn resume(stack: Stack<'_>) -> Returned {
    let coroutine = coroutine_at(stack, 1)?;
    match resumed(stack, coroutine, stack.top() - 1)? {
        Some(count) => {
            stack.push_boolean(true);
            stack.insert(-(count + 1));
            Ok(count + 1)
        }
        None => {
            stack.push_boolean(false);
            stack.insert(-2);
            Ok(2)
        }
    }
}

/// `coroutine.wrap`: upvalue 2 of the function is the coroutine.
pub(crate) fn wrap(stack: Stack<'_>) -> Returned {
    create(stack)?;
    stack.push_function(wrapped, 1);
    Ok(1)
}

fn wrapped(stack: Stack<'_>) -> Returned {
    if is_ended(stack, stack.upvalue(2)) {
        return Err(Fault::Text("the coroutine was ended by a limit"));
    }
    let coroutine = coroutine_at(stack, stack.upvalue(2))?;
    if let Some(count) = resumed(stack, coroutine, stack.top())? {
        return Ok(count);
    }
    // SAFETY: both states are live; what it had to close is closed, and its error stands in for ours.
    unsafe {
        let status = ffi::lua_status(coroutine);
        if !matches!(status, ffi::LUA_OK | ffi::LUA_YIELD) {
            ffi::lua_closethread(coroutine, stack.raw());
            ffi::lua_xmove(coroutine, stack.raw(), 1);
        }
    }
    if stack.host().ended_by().is_some() { Err(Fault::Over) } else { Err(Fault::Value) }
}

fn coroutine_at(stack: Stack<'_>, index: c_int) -> Result<*mut lua_State, Fault> {
    // SAFETY: the state is live; it says whether there is a coroutine.
    let coroutine = unsafe { ffi::lua_tothread(stack.raw(), index) };
    if coroutine.is_null() { Err(Fault::Argument(1, "expected a coroutine")) } else { Ok(coroutine) }
}

/// Runs it until it yields or ends: how many values it gave, which are pushed; or `None` with its error pushed.
fn resumed(stack: Stack<'_>, coroutine: *mut lua_State, arguments: c_int) -> Result<Option<c_int>, Fault> {
    stack.host().charge(RESUME)?;
    let lua = stack.raw();
    let mut count = 0;
    // SAFETY: both states are live; values move only where there is room.
    let status = unsafe {
        if ffi::lua_checkstack(coroutine, arguments) == 0 {
            return Err(Fault::Text("too many arguments to resume"));
        }
        ffi::lua_xmove(lua, coroutine, arguments);
        stack.host().memory.running = coroutine;
        let status = ffi::lua_resume(coroutine, lua, arguments, &raw mut count);
        stack.host().memory.running = lua;
        status
    };
    let is_over = stack.host().ended_by().is_some();
    // SAFETY: as above.
    unsafe {
        if is_over {
            // It may be resumed in a later call: nothing of this one is left on its stack.
            if matches!(status, ffi::LUA_OK | ffi::LUA_YIELD) {
                ffi::lua_pop(coroutine, count);
            } else {
                ffi::lua_pop(coroutine, 1);
                mark(coroutine);
            }
            return Err(Fault::Over);
        }
        if !matches!(status, ffi::LUA_OK | ffi::LUA_YIELD) {
            ffi::lua_xmove(coroutine, lua, 1);
            return Ok(None);
        }
        if ffi::lua_checkstack(lua, count + 1) == 0 {
            ffi::lua_pop(coroutine, count);
            return Err(Fault::Text("too many results to resume"));
        }
        ffi::lua_xmove(coroutine, lua, count);
    }
    Ok(Some(count))
}

/// Ours in the extra space of a coroutine is the pointer to the host; without it, it was ended by a limit.
fn mark(coroutine: *mut lua_State) {
    // SAFETY: the coroutine is live, and dead to scripts: no function of ours runs in it any more.
    unsafe { ffi::lua_getextraspace(coroutine).cast::<*mut super::Host>().write(std::ptr::null_mut()) };
}

/// Whether there is a coroutine at this place that a limit has ended.
pub(crate) fn is_ended(stack: Stack<'_>, index: c_int) -> bool {
    // SAFETY: the state is live; a coroutine has an extra space of its own.
    unsafe {
        let coroutine = ffi::lua_tothread(stack.raw(), index);
        !coroutine.is_null() && ffi::lua_getextraspace(coroutine).cast::<*mut super::Host>().read().is_null()
    }
}
