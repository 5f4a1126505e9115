//! One frame of Lua's stack, and what functions of ours do on it.

use std::ffi::{CStr, c_int, c_void};
use std::marker::PhantomData;

use mlua::ffi;
use mlua::lua_State;

use super::{Host, Reference};

/// What a function of ours gives back: how many values it has pushed.
pub(crate) type Returned = Result<c_int, Fault>;

/// A function that scripts call.
pub(crate) type Function = fn(Stack<'_>) -> Returned;

/// Why a function of ours fails. Owns nothing: see the module head.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// This.
    Text(&'static str),
    /// An argument, from 1 on, is not what it must be.
    Argument(u8, &'static str),
    /// What lies in [`Host::scratch`].
    Scratch,
    /// The value at the top of the stack, as it is.
    Value,
    /// The call is over: [`Host::over`] says why.
    Over,
}

/// The types of Lua's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    None,
    Nil,
    Boolean,
    Number,
    String,
    Table,
    Function,
    Userdata,
    Thread,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "no value",
            Self::Nil => "nil",
            Self::Boolean => "a boolean",
            Self::Number => "a number",
            Self::String => "a string",
            Self::Table => "a table",
            Self::Function => "a function",
            Self::Userdata => "an object",
            Self::Thread => "a coroutine",
        }
    }
}

/// Calls into Lua from methods of [`Stack`].
macro_rules! lua {
    ($call:expr) => {
        // SAFETY: a `Stack` is made for a live state by who promises it (`Stack::new`), and used in its frame only; indices are
        // those that the caller has looked at. What may raise is called below `State::protected` (module head).
        unsafe { $call }
    };
}

/// One frame. What it lends lives as long as the value is on the stack.
#[derive(Clone, Copy)]
pub(crate) struct Stack<'a> {
    pub(super) state: *mut lua_State,
    frame: PhantomData<&'a ()>,
}

impl<'a> Stack<'a> {
    /// # Safety
    /// `state` is live as long as `'a`, and of a [`super::State`].
    pub(crate) unsafe fn new(state: *mut lua_State) -> Self {
        Self { state, frame: PhantomData }
    }

    pub(crate) fn raw(self) -> *mut lua_State {
        self.state
    }

    /// Collects garbage, if so many more bytes don't fit otherwise: for buffers of Lua, which ask for memory without a collection. Calls no script.
    pub(crate) fn make_room(self, bytes: usize) {
        if self.host().memory.wants_room(bytes) {
            lua!(ffi::lua_gc(self.state, ffi::LUA_GCCOLLECT));
        }
    }

    /// The host of the VM. Not to be held over a call into Lua.
    pub(crate) fn host<'h>(&self) -> &'h mut Host {
        // SAFETY: `State::new` writes the pointer to its host there, Lua copies it to each coroutine, and the host outlives them. One
        // thread runs a VM; no reference is held while Lua runs.
        unsafe { &mut **ffi::lua_getextraspace(self.state).cast::<*mut Host>() }
    }

    pub(crate) fn top(self) -> c_int {
        lua!(ffi::lua_gettop(self.state))
    }

    pub(crate) fn set_top(self, top: c_int) {
        lua!(ffi::lua_settop(self.state, top));
    }

    pub(crate) fn pop(self, count: c_int) {
        lua!(ffi::lua_pop(self.state, count));
    }

    /// The same place, counted from the bottom.
    pub(crate) fn absolute(self, index: c_int) -> c_int {
        lua!(ffi::lua_absindex(self.state, index))
    }

    /// Room for so many more values, or an error.
    pub(crate) fn reserve(self, count: c_int) {
        lua!(ffi::luaL_checkstack(self.state, count, c"too many values".as_ptr()));
    }

    /// The same, and raises nothing.
    pub(crate) fn has_room(self, count: c_int) -> bool {
        lua!(ffi::lua_checkstack(self.state, count)) != 0
    }

    pub(crate) fn kind(self, index: c_int) -> Kind {
        match lua!(ffi::lua_type(self.state, index)) {
            ffi::LUA_TNIL => Kind::Nil,
            ffi::LUA_TBOOLEAN => Kind::Boolean,
            ffi::LUA_TNUMBER => Kind::Number,
            ffi::LUA_TSTRING => Kind::String,
            ffi::LUA_TTABLE => Kind::Table,
            ffi::LUA_TFUNCTION => Kind::Function,
            ffi::LUA_TUSERDATA | ffi::LUA_TLIGHTUSERDATA => Kind::Userdata,
            ffi::LUA_TTHREAD => Kind::Thread,
            _ => Kind::None,
        }
    }

    pub(crate) fn is_nil(self, index: c_int) -> bool {
        matches!(self.kind(index), Kind::Nil | Kind::None)
    }

    pub(crate) fn is_true(self, index: c_int) -> bool {
        lua!(ffi::lua_toboolean(self.state, index)) != 0
    }

    pub(crate) fn boolean(self, index: c_int) -> Option<bool> {
        (self.kind(index) == Kind::Boolean).then(|| self.is_true(index))
    }

    /// A number that is whole, whatever its representation; no string.
    pub(crate) fn integer(self, index: c_int) -> Option<i64> {
        if self.kind(index) != Kind::Number {
            return None;
        }
        let mut is_whole = 0;
        let value = lua!(ffi::lua_tointegerx(self.state, index, &raw mut is_whole));
        (is_whole != 0).then_some(value)
    }

    /// Whether the number is kept as one without a fraction.
    pub(crate) fn is_integer(self, index: c_int) -> bool {
        lua!(ffi::lua_isinteger(self.state, index)) != 0
    }

    pub(crate) fn number(self, index: c_int) -> Option<f64> {
        (self.kind(index) == Kind::Number).then(|| lua!(ffi::lua_tonumber(self.state, index)))
    }

    /// The bytes of a string; of nothing else: a number would be converted, in memory that may not be there.
    #[inline]
    pub(crate) fn bytes(self, index: c_int) -> Option<&'a [u8]> {
        if self.kind(index) != Kind::String {
            return None;
        }
        let mut length = 0;
        let start = lua!(ffi::lua_tolstring(self.state, index, &raw mut length));
        // SAFETY: it is a string, which Lua keeps in place while it is on the stack.
        Some(unsafe { std::slice::from_raw_parts(start.cast(), length) })
    }

    pub(crate) fn text(self, index: c_int) -> Option<&'a str> {
        std::str::from_utf8(self.bytes(index)?).ok()
    }

    /// A number becomes its text, in its place. May raise.
    pub(crate) fn stringify(self, index: c_int) {
        lua!(ffi::lua_tolstring(self.state, index, std::ptr::null_mut()));
    }

    /// A number, or a text of one, that is whole.
    pub(crate) fn parsed_integer(self, index: c_int) -> Option<i64> {
        let mut is_whole = 0;
        let value = lua!(ffi::lua_tointegerx(self.state, index, &raw mut is_whole));
        (is_whole != 0).then_some(value)
    }

    /// Elements of a table, or bytes of a string, without asking a metatable.
    pub(crate) fn raw_len(self, index: c_int) -> usize {
        lua!(ffi::lua_rawlen(self.state, index))
    }

    pub(crate) fn push_nil(self) {
        lua!(ffi::lua_pushnil(self.state));
    }

    pub(crate) fn push_boolean(self, value: bool) {
        lua!(ffi::lua_pushboolean(self.state, value.into()));
    }

    pub(crate) fn push_integer(self, value: i64) {
        lua!(ffi::lua_pushinteger(self.state, value));
    }

    pub(crate) fn push_number(self, value: f64) {
        lua!(ffi::lua_pushnumber(self.state, value));
    }

    /// May raise.
    #[inline]
    pub(crate) fn push_bytes(self, value: &[u8]) {
        lua!(ffi::lua_pushlstring(self.state, value.as_ptr().cast(), value.len()));
    }

    /// What lies in [`Host::scratch`]. May raise.
    pub(crate) fn push_scratch(self) {
        let (start, length) = (self.host().scratch.as_ptr(), self.host().scratch.len());
        lua!(ffi::lua_pushlstring(self.state, start.cast(), length));
    }

    pub(crate) fn push_copy(self, index: c_int) {
        lua!(ffi::lua_pushvalue(self.state, index));
    }

    pub(crate) fn pointer(self, index: c_int) -> *mut c_void {
        lua!(ffi::lua_touserdata(self.state, index))
    }

    /// Where an object lies: equal for equal objects, and for nothing else.
    pub(crate) fn identity(self, index: c_int) -> *const c_void {
        lua!(ffi::lua_topointer(self.state, index))
    }

    /// A function of ours with `upvalues` values from the top: they are its upvalues 2 and following. May raise.
    pub(crate) fn push_function(self, function: Function, upvalues: c_int) {
        lua!(ffi::lua_pushlightuserdata(self.state, function as *mut c_void));
        if upvalues > 0 {
            lua!(ffi::lua_insert(self.state, -(upvalues + 1)));
        }
        lua!(ffi::lua_pushcclosure(self.state, trampoline, upvalues + 1));
    }

    /// A function of C. Takes no memory without upvalues.
    pub(crate) fn push_native(self, function: mlua::lua_CFunction) {
        lua!(ffi::lua_pushcfunction(self.state, function));
    }

    /// The C function at this place.
    pub(crate) fn native(self, index: c_int) -> Option<mlua::lua_CFunction> {
        lua!(ffi::lua_tocfunction(self.state, index))
    }

    /// Runs a function of C in this frame, on its arguments: it may raise.
    pub(crate) fn run_native(self, function: mlua::lua_CFunction) -> c_int {
        lua!(function(self.state))
    }

    /// Place of an upvalue of the running function of ours, from 2 on.
    pub(crate) fn upvalue(self, number: c_int) -> c_int {
        ffi::lua_upvalueindex(number)
    }

    pub(crate) fn push_reference(self, reference: Reference) {
        lua!(ffi::lua_rawgeti(self.state, ffi::LUA_REGISTRYINDEX, reference.0));
    }

    /// Takes the value at the top, keeps it. May raise.
    pub(crate) fn keep(self) -> Reference {
        Reference(lua!(ffi::luaL_ref(self.state, ffi::LUA_REGISTRYINDEX)).into())
    }

    /// May raise.
    pub(crate) fn push_table(self, elements: usize, entries: usize) {
        let bounded = |count: usize| c_int::try_from(count.min(1 << 16)).unwrap_or(0);
        lua!(ffi::lua_createtable(self.state, bounded(elements), bounded(entries)));
    }

    /// Pushes what the table has under the key at the top, which it takes. Asks no metatable.
    pub(crate) fn raw_get(self, table: c_int) {
        lua!(ffi::lua_rawget(self.state, table));
    }

    /// The same under a whole number.
    pub(crate) fn raw_get_at(self, table: c_int, key: i64) {
        lua!(ffi::lua_rawgeti(self.state, table, key));
    }

    /// Takes key and value from the top. May raise.
    pub(crate) fn raw_set(self, table: c_int) {
        lua!(ffi::lua_rawset(self.state, table));
    }

    /// Takes the value. May raise.
    pub(crate) fn raw_set_at(self, table: c_int, key: i64) {
        lua!(ffi::lua_rawseti(self.state, table, key));
    }

    /// Takes the value from the top and puts it under a key of text. May raise.
    pub(crate) fn raw_set_name(self, table: c_int, name: &str) {
        let table = self.absolute(table);
        self.push_bytes(name.as_bytes());
        lua!(ffi::lua_insert(self.state, -2));
        self.raw_set(table);
    }

    /// As `table[key]` of a script: asks metatables, so it may run one, and raise.
    pub(crate) fn get_at(self, table: c_int, key: i64) {
        lua!(ffi::lua_geti(self.state, table, key));
    }

    /// As `table[key] = value` of a script.
    pub(crate) fn set_at(self, table: c_int, key: i64) {
        lua!(ffi::lua_seti(self.state, table, key));
    }

    /// As `table[key]` of a script, with the key at the top.
    pub(crate) fn get(self, table: c_int) {
        lua!(ffi::lua_gettable(self.state, table));
    }

    /// As `#value` of a script: may run a metamethod, and raise.
    pub(crate) fn len(self, index: c_int) -> i64 {
        lua!(ffi::luaL_len(self.state, index))
    }

    /// As `left < right` of a script.
    pub(crate) fn is_less(self, left: c_int, right: c_int) -> bool {
        lua!(ffi::lua_compare(self.state, left, right, ffi::LUA_OPLT)) != 0
    }

    /// The next entry behind the key at the top, which is taken: key and value, if there is one. Asks no metatable. The key must be one of the table.
    pub(crate) fn next(self, table: c_int) -> bool {
        lua!(ffi::lua_next(self.state, table)) != 0
    }

    pub(crate) fn push_metatable(self, index: c_int) -> bool {
        lua!(ffi::lua_getmetatable(self.state, index)) != 0
    }

    /// Takes the metatable from the top.
    pub(crate) fn set_metatable(self, index: c_int) {
        lua!(ffi::lua_setmetatable(self.state, index));
    }

    /// An object of `size` bytes without any use to scripts but its metatable. May raise.
    pub(crate) fn push_userdata(self, size: usize) -> *mut c_void {
        lua!(ffi::lua_newuserdatauv(self.state, size, 0))
    }

    pub(crate) fn insert(self, index: c_int) {
        lua!(ffi::lua_insert(self.state, index));
    }

    pub(crate) fn remove(self, index: c_int) {
        lua!(ffi::lua_remove(self.state, index));
    }

    pub(crate) fn replace(self, index: c_int) {
        lua!(ffi::lua_replace(self.state, index));
    }

    /// Calls the function below the arguments. May raise, and run whatever the script likes.
    pub(crate) fn call(self, arguments: c_int, results: c_int) {
        lua!(ffi::lua_call(self.state, arguments, results));
    }

    /// Opens one of Lua's own libraries, and pushes its table.
    pub(crate) fn open_library(self, open: mlua::lua_CFunction) {
        self.push_native(open);
        self.push_bytes(b"_G");
        self.call(1, 1);
    }

    /// All results.
    pub(crate) const ALL: c_int = ffi::LUA_MULTRET;

    /// Text for people about a value, in one line (but see [`Host::keeps_lines`]): no metamethod is asked, so this calls nothing.
    pub(crate) fn describe(self, index: c_int, into: &mut String) {
        use std::fmt::Write as _;
        match self.kind(index) {
            Kind::String => {
                let bytes = self.bytes(index).unwrap_or_default();
                let text = String::from_utf8_lossy(&bytes[..bytes.len().min(1_000)]);
                if self.host().keeps_lines {
                    into.push_str(&text);
                } else {
                    text.chars().for_each(|character| push_visible(into, character));
                }
            }
            Kind::Number if self.is_integer(index) => {
                let _written = write!(into, "{}", self.integer(index).unwrap_or_default());
            }
            Kind::Number => {
                let _written = write!(into, "{}", self.number(index).unwrap_or_default());
            }
            Kind::Boolean => into.push_str(if self.is_true(index) { "true" } else { "false" }),
            other => into.push_str(other.name()),
        }
    }

    /// The line of the script that runs in the frame so many levels up, and of those above the first one that has any.
    pub(crate) fn line(self, from: c_int) -> Option<u32> {
        for level in from..from + 32 {
            // SAFETY: `lua_Debug` is plain data, which `lua_getstack` and `lua_getinfo` fill in.
            let mut about: ffi::lua_Debug = unsafe { std::mem::zeroed() };
            if lua!(ffi::lua_getstack(self.state, level, &raw mut about)) == 0 {
                return None;
            }
            lua!(ffi::lua_getinfo(self.state, c"l".as_ptr(), &raw mut about));
            if about.currentline > 0 {
                return u32::try_from(about.currentline).ok();
            }
        }
        None
    }

    /// Loads text or bytecode as a function; pushes it, or the error. Raises nothing.
    pub(crate) fn load(self, chunk: &[u8], name: &CStr, is_binary: bool) -> bool {
        let mode = if is_binary { c"b" } else { c"t" };
        let start = chunk.as_ptr().cast();
        lua!(ffi::luaL_loadbufferx(self.state, start, chunk.len(), name.as_ptr(), mode.as_ptr())) == ffi::LUA_OK
    }

    /// The function at the top as bytecode, with its lines.
    pub(crate) fn dump(self, into: &mut Vec<u8>) {
        lua!(ffi::lua_dump(self.state, write_dump, std::ptr::from_mut(into).cast(), 0));
    }

    /// Takes a value from the top: the function's environment.
    pub(crate) fn set_environment(self, function: c_int) {
        lua!(ffi::lua_setupvalue(self.state, function, 1));
    }

    /// Ends the function by an error.
    pub(super) fn raise(self, fault: Fault) -> ! {
        match fault {
            Fault::Text(text) => self.push_positioned(text.as_bytes()),
            Fault::Scratch => {
                lua!(ffi::luaL_where(self.state, 1));
                self.push_scratch();
                lua!(ffi::lua_concat(self.state, 2));
            }
            Fault::Argument(number, text) => {
                let host = self.host();
                host.scratch.clear();
                host.scratch.extend_from_slice(b"argument ");
                host.scratch.extend_from_slice(&[b'0' + number.min(9), b':', b' ']);
                host.scratch.extend_from_slice(text.as_bytes());
                self.raise(Fault::Scratch);
            }
            Fault::Value => {}
            Fault::Over => self.push_over(),
        }
        lua!(ffi::lua_error(self.state))
    }

    fn push_positioned(self, text: &[u8]) {
        lua!(ffi::luaL_where(self.state, 1));
        self.push_bytes(text);
        lua!(ffi::lua_concat(self.state, 2));
    }

    /// The value that ends a call that is over: takes no memory.
    fn push_over(self) {
        lua!(ffi::lua_pushlightuserdata(self.state, std::ptr::null_mut()));
    }

    /// Ends the running script, since the call is over. Every later instruction does, too.
    pub(super) fn end_call(self) -> ! {
        super::state::arm(self.state, 1);
        self.raise(Fault::Over)
    }
}

/// What would break a line, or move about in it, is written as its number: a payload must not forge lines of the log.
fn push_visible(into: &mut String, character: char) {
    if character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') {
        into.extend(character.escape_default());
    } else {
        into.push(character);
    }
}

unsafe extern "C-unwind" fn trampoline(state: *mut lua_State) -> c_int {
    // SAFETY: Lua calls this with its live state; upvalue 1 is the function that `push_function` put there.
    let (stack, function) = unsafe {
        let pointer = ffi::lua_touserdata(state, ffi::lua_upvalueindex(1));
        (Stack::new(state), std::mem::transmute::<*mut c_void, Function>(pointer))
    };
    match function(stack) {
        Ok(count) => count,
        Err(Fault::Over) => stack.end_call(),
        Err(fault) => stack.raise(fault),
    }
}

unsafe extern "C-unwind" fn write_dump(
    _state: *mut lua_State,
    part: *const c_void,
    length: usize,
    into: *mut c_void,
) -> c_int {
    // SAFETY: `into` is the vector that `dump` gave, `part` has `length` bytes.
    let (into, part) = unsafe { (&mut *into.cast::<Vec<u8>>(), std::slice::from_raw_parts(part.cast::<u8>(), length)) };
    into.extend_from_slice(part);
    0
}
