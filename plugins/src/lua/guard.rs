//! `pcall` and `xpcall` that let no script go on when its call is over.

use std::ffi::c_int;

use mlua::ffi;
use mlua::lua_State;

use super::Stack;

/// `pcall`.
pub(crate) unsafe extern "C-unwind" fn pcall(lua: *mut lua_State) -> c_int {
    // SAFETY: Lua calls this with its live state. Values: true, function, arguments.
    unsafe {
        ffi::luaL_checkany(lua, 1);
        ffi::lua_pushboolean(lua, 1);
        ffi::lua_insert(lua, 1);
        let status = ffi::lua_pcallk(lua, ffi::lua_gettop(lua) - 2, ffi::LUA_MULTRET, 0, 0, Some(finish));
        finish(lua, status, 0)
    }
}

/// `xpcall`.
///
/// Lua calls a handler where the error is raised. Where that is the count hook, no further hook comes as long as the handler runs: it could go on for
/// ever. So the script's handler stands behind one of ours, which does not call it when the call is over.
pub(crate) unsafe extern "C-unwind" fn xpcall(lua: *mut lua_State) -> c_int {
    // SAFETY: Lua calls this with its live state. Values: function, handler, true, function, arguments.
    unsafe {
        let count = ffi::lua_gettop(lua);
        ffi::luaL_checktype(lua, 2, ffi::LUA_TFUNCTION);
        ffi::lua_pushvalue(lua, 2);
        ffi::lua_pushcclosure(lua, handle, 1);
        ffi::lua_replace(lua, 2);
        ffi::lua_pushboolean(lua, 1);
        ffi::lua_pushvalue(lua, 1);
        ffi::lua_rotate(lua, 3, 2);
        let status = ffi::lua_pcallk(lua, count - 2, ffi::LUA_MULTRET, 2, 2, Some(finish));
        finish(lua, status, 2)
    }
}

/// The handler of an `xpcall`: upvalue 1 is the script's.
unsafe extern "C-unwind" fn handle(lua: *mut lua_State) -> c_int {
    // SAFETY: Lua calls this with its live state and the error.
    unsafe {
        if Stack::new(lua).host().ended_by().is_none() {
            ffi::lua_pushvalue(lua, ffi::lua_upvalueindex(1));
            ffi::lua_insert(lua, 1);
            ffi::lua_call(lua, 1, 1);
        }
    }
    1
}

/// Behind the protected call, also when it had yielded: `below` values are not its results.
unsafe extern "C-unwind" fn finish(lua: *mut lua_State, status: c_int, below: isize) -> c_int {
    // SAFETY: Lua calls this with its live state.
    let stack = unsafe { Stack::new(lua) };
    if stack.host().ended_by().is_some() {
        stack.end_call();
    }
    if matches!(status, ffi::LUA_OK | ffi::LUA_YIELD) {
        return stack.top() - below as c_int;
    }
    stack.push_boolean(false);
    stack.push_copy(-2);
    2
}
