//! What the test kit needs of Lua beyond what plugins do.

use std::ffi::{c_int, c_void};

use mlua::ffi;

use super::{Kind, Stack};

impl Stack<'_> {
    /// For functions of ours, as an upvalue. Takes no memory.
    pub(crate) fn push_pointer(self, pointer: *mut c_void) {
        // SAFETY: the state is live, and a light value takes none of its memory.
        unsafe { ffi::lua_pushlightuserdata(self.raw(), pointer) };
    }

    /// The line at which the function begins; of one that is none of Lua's: `None`. Takes no memory that may be refused.
    pub(crate) fn defined_at(self, index: c_int) -> Option<u32> {
        if self.kind(index) != Kind::Function {
            return None;
        }
        self.push_copy(index);
        // SAFETY: `lua_Debug` is plain data, which `lua_getinfo` fills in; with `>` it takes the function from the stack.
        let about = unsafe {
            let mut about: ffi::lua_Debug = std::mem::zeroed();
            ffi::lua_getinfo(self.raw(), c">S".as_ptr(), &raw mut about);
            about
        };
        u32::try_from(about.linedefined).ok().filter(|line| *line > 0)
    }
}
