//! A string that grows on Lua's stack, so that an error of Lua leaks nothing.
//!
//! While it grows, Lua keeps a box for it at the top: what is pushed besides is taken away, or added by [`Buffer::add_value`], before the next call.

use std::mem::MaybeUninit;

use mlua::ffi;

use super::Stack;

/// Not to be moved between [`Buffer::begin`] and [`Buffer::finish`]: Lua points into it.
pub(crate) struct Buffer(MaybeUninit<ffi::luaL_Buffer>);

impl Buffer {
    pub(crate) fn new() -> Self {
        Self(MaybeUninit::uninit())
    }

    /// Once, before anything else.
    pub(crate) fn begin(&mut self, stack: Stack<'_>) {
        // SAFETY: Lua fills it in.
        unsafe { ffi::luaL_buffinit(stack.raw(), self.0.as_mut_ptr()) };
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        // SAFETY: `begin` was called; `bytes` are as long as they say.
        unsafe { ffi::luaL_addlstring(self.0.as_mut_ptr(), bytes.as_ptr().cast(), bytes.len()) };
    }

    /// Takes the string or number at the top, and adds it.
    pub(crate) fn add_value(&mut self) {
        // SAFETY: `begin` was called.
        unsafe { ffi::luaL_addvalue(self.0.as_mut_ptr()) };
    }

    /// Pushes the string.
    pub(crate) fn finish(&mut self) {
        // SAFETY: `begin` was called.
        unsafe { ffi::luaL_pushresult(self.0.as_mut_ptr()) };
    }
}
