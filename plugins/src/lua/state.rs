//! One Lua state with its host: made, called under protection, ended.

use std::ffi::{c_int, c_void};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::ptr::NonNull;

use mlua::ffi;
use mlua::lua_State;

use super::host::LEVELS_MAX;
use super::{Host, Over, Returned, Stack, memory};
use crate::diagnostic::split_position;
use crate::in_hand::take_in_hand;

/// A value that the host keeps, by its place in Lua's registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reference(pub(super) i64);

/// What ended a protected call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Thrown {
    pub(crate) text: String,
    pub(crate) line: Option<u32>,
    pub(crate) over: Option<Over>,
}

/// Not `Send`: it has pointers.
#[derive(Debug)]
pub(crate) struct State {
    lua: NonNull<lua_State>,
    host: NonNull<Host>,
    /// What is in use is near the limit of memory: see [`Self::pace`].
    is_tight: bool,
}

impl State {
    /// An empty state. `None` if there is no memory for it.
    pub(crate) fn new(host: Host) -> Option<Self> {
        let host = NonNull::from(Box::leak(Box::new(host)));
        // SAFETY: the host was just made; the pointer to its memory lives as long as the state, which `drop` closes first.
        let lua = unsafe {
            let memory = &raw mut (*host.as_ptr()).memory;
            NonNull::new(ffi::lua_newstate(memory::allocate, memory.cast()))
        };
        let Some(lua) = lua else {
            // SAFETY: it came from a box, and nothing points to it.
            drop(unsafe { Box::from_raw(host.as_ptr()) });
            return None;
        };
        // SAFETY: the extra space of a state has room for one pointer, and is ours.
        unsafe { ffi::lua_getextraspace(lua.as_ptr()).cast::<*mut Host>().write(host.as_ptr()) };
        let state = Self { lua, host, is_tight: false };
        state.unlearn_weak_tables();
        Some(state)
    }

    /// Takes from Lua the word by which a metatable makes tables weak, whenever a script sets it: see `sandbox`.
    ///
    /// Lua keeps a short text once, and compares such texts by address. The one `__mode` that it looks for was made with the state, and stays; with
    /// other bytes in it no text that a script writes is that one. They are drawn by lot, 42 bits of them, so that no script finds them; none is ASCII, as is all
    /// that Lua itself looks for.
    fn unlearn_weak_tables(&self) {
        const MODE: &[u8] = b"__mode";
        let lot = RandomState::new().build_hasher().finish().to_ne_bytes();
        // SAFETY: the state is live and not running. The text is there, so that pushing it takes no memory and raises nothing (a step of collecting
        // garbage may run: there are no finalizers, and the host is refused nothing); its bytes lie in a
        // block that came from `memory::allocate`, so they may be written, and as many are. Lua looks for them in its table of texts only by their
        // hash, which it keeps beside them.
        unsafe {
            let lua = self.lua.as_ptr();
            let text = ffi::lua_pushlstring(lua, MODE.as_ptr().cast(), MODE.len());
            for (place, byte) in lot[..MODE.len()].iter().enumerate() {
                text.cast_mut().cast::<u8>().add(place).write(byte | 0x80);
            }
            ffi::lua_settop(lua, 0);
        }
    }

    /// Between calls only: the state is not running.
    pub(crate) fn host(&self) -> &Host {
        // SAFETY: it lives as long as the state, and no other reference is held (see `Stack::host`).
        unsafe { self.host.as_ref() }
    }

    pub(crate) fn host_mut(&mut self) -> &mut Host {
        // SAFETY: as above.
        unsafe { self.host.as_mut() }
    }

    /// Runs `work` for an owner, under its limits. What `work` leaves on the stack is gone.
    pub(crate) fn protected<W>(&mut self, owner: usize, is_load: bool, mut work: W) -> Result<(), Thrown>
    where
        W: FnMut(Stack<'_>) -> Returned,
    {
        self.host_mut().begin(owner, is_load);
        take_in_hand(self.host().accounts.get(owner.wrapping_sub(1)).map(|account| account.in_hand));
        let lua = self.lua.as_ptr();
        // SAFETY: the state is live and not running: its stack is empty but for what is pushed here, which takes no memory. `work` outlives the call.
        let status = unsafe {
            (*self.host.as_ptr()).memory.running = lua;
            arm(lua, self.host().look_every());
            ffi::lua_settop(lua, 0);
            ffi::lua_pushcfunction(lua, note_error);
            ffi::lua_pushcfunction(lua, run::<W>);
            ffi::lua_pushlightuserdata(lua, (&raw mut work).cast::<c_void>());
            let status = ffi::lua_pcall(lua, 1, 0, 1);
            ffi::lua_settop(lua, 0);
            status
        };
        take_in_hand(None);
        self.pace();
        let host = self.host_mut();
        host.shrink();
        host.memory.running = std::ptr::null_mut();
        host.memory.owner = 0;
        let over = host.ended_by().filter(|_| owner != 0);
        if status == ffi::LUA_OK && over.is_none() { Ok(()) } else { Err(self.thrown(owner, status, over)) }
    }

    /// Lua lets garbage grow to as much as what is in use. Where that would meet the limit of memory, and cost a whole collection at once, it
    /// collects earlier.
    fn pace(&mut self) {
        let memory = &self.host().memory;
        let is_tight = memory.used >= memory.held_max.min(memory.used_max) / 4;
        if is_tight != self.is_tight {
            self.is_tight = is_tight;
            // SAFETY: the state is live and not running; this sets a number.
            unsafe { ffi::lua_gc(self.lua.as_ptr(), ffi::LUA_GCSETPAUSE, if is_tight { 120 } else { 200 }) };
        }
    }

    fn thrown(&mut self, owner: usize, status: c_int, over: Option<Over>) -> Thrown {
        let host = self.host_mut();
        host.memory.owner = owner; // the text says how much it holds
        let said = std::mem::take(&mut host.error);
        let (line_in_text, text) = split_position(&said);
        let line = line_in_text.or(host.error_line);
        let text = match (over, status) {
            (Some(over), _) => host.limit_text(over),
            (None, ffi::LUA_ERRMEM) => host.limit_text(Over::Memory),
            (None, ffi::LUA_ERRERR) => "an error while an error was handled".to_owned(),
            _ => text.to_owned(),
        };
        host.memory.owner = 0;
        Thrown { text, line, over }
    }

    /// Collects all garbage.
    pub(crate) fn collect(&mut self) {
        // SAFETY: the state is not running; collecting raises nothing, since there are no finalizers.
        unsafe { ffi::lua_gc(self.lua.as_ptr(), ffi::LUA_GCCOLLECT) };
    }
}

impl Drop for State {
    fn drop(&mut self) {
        self.host_mut().memory.owner = 0;
        // SAFETY: the state is live and not running. It is closed before the host goes, since it gives its memory back to it.
        unsafe {
            ffi::lua_close(self.lua.as_ptr());
            drop(Box::from_raw(self.host.as_ptr()));
        }
    }
}

/// Lets the count hook come after so many instructions, and again.
pub(super) fn arm(lua: *mut lua_State, every: c_int) {
    // SAFETY: callers give a live state; setting a hook is safe at any time, even from a signal, says the manual.
    unsafe { ffi::lua_sethook(lua, Some(count_hook), ffi::LUA_MASKCOUNT, every) };
}

/// The same, while something runs: how many instructions at most it forgets to count by that.
pub(super) fn arm_anew(lua: *mut lua_State, every: c_int) -> u64 {
    // SAFETY: as in `arm`.
    let forgotten = unsafe { ffi::lua_gethookcount(lua) };
    arm(lua, every);
    u64::from(forgotten.unsigned_abs())
}

unsafe extern "C-unwind" fn run<W: FnMut(Stack<'_>) -> Returned>(lua: *mut lua_State) -> c_int {
    // SAFETY: `protected` gives the pointer to its `W`, which it keeps until this has ended.
    let (stack, work) = unsafe { (Stack::new(lua), &mut *ffi::lua_touserdata(lua, 1).cast::<W>()) };
    stack.set_top(0);
    match work(stack) {
        Ok(_) => 0,
        Err(fault) => stack.raise(fault),
    }
}

/// Each so many instructions of whichever coroutine: Lua gives a new one the hook of the one that made it.
unsafe extern "C-unwind" fn count_hook(lua: *mut lua_State, _about: *mut ffi::lua_Debug) {
    // SAFETY: Lua calls this with its live state.
    let stack = unsafe { Stack::new(lua) };
    // SAFETY: as above; it says after how many instructions this came.
    let every = unsafe { ffi::lua_gethookcount(lua) };
    let host = stack.host();
    host.count(u64::from(every.unsigned_abs()));
    if host.over.is_none() && is_deep(lua) {
        host.over = Some(Over::Depth);
    }
    if host.over.is_some() {
        stack.end_call();
    }
    if every != host.look_every() {
        arm(lua, host.look_every());
    }
}

fn is_deep(lua: *mut lua_State) -> bool {
    // SAFETY: `lua_Debug` is plain data that `lua_getstack` fills in; the state is live.
    unsafe {
        let mut about: ffi::lua_Debug = std::mem::zeroed();
        ffi::lua_getstack(lua, LEVELS_MAX, &raw mut about) == 1
    }
}

/// Called where an error that nobody catches is raised: notes its text and line, and asks the error object nothing.
unsafe extern "C-unwind" fn note_error(lua: *mut lua_State) -> c_int {
    // SAFETY: Lua calls this with its live state.
    let stack = unsafe { Stack::new(lua) };
    let host = stack.host();
    let mut text = std::mem::take(&mut host.error);
    text.clear();
    stack.describe(1, &mut text);
    if stack.kind(1) == super::Kind::Table {
        text.insert_str(0, "an error that is ");
    }
    host.error = text;
    host.error_line = stack.line(1);
    1
}
