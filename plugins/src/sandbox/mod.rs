//! What scripts find in their environment: a white list. What is not named here is not there: no files, no processes, no loading of code, no
//! debugging, no finalizers.
//!
//! | bound | how |
//! |---|---|
//! | instructions, also of coroutines | the count hook (`lua::state`); what C does is charged by its size ([`Origin::Charged`], `strings`, `tables`) |
//! | time | the same hook looks at the clock; each instruction while one call is over, each fifty or ten while there are large blocks |
//! | patterns | a matcher of our own, in counted steps (`pattern`) |
//! | memory | the allocator (`lua::memory`), by plugin |
//! | depth | 200 levels of C (Lua's own bound), 5,000 of Lua |
//! | weak tables, of which Lua clears chains in one step, in quadratic time | there are none: Lua no longer knows the word (`State::unlearn_weak_tables`) |
//! | going on after a limit | `pcall`, `xpcall` and coroutines pass it on (`lua::guard`); each further instruction raises it again |
//! | other plugins | libraries are read-only proxies; environments, stores and memory are a plugin's own |
//!
//! What remains, beyond a limit that ends a call:
//! - One collection of all garbage can be in the middle of an instruction, up to three times in a call; it is as long as what the VM holds (bounded by
//!   `memory_bytes`).
//! - `<close>` variables that are open are still closed, each with no instruction of its own.
//! - One instruction can copy, compare or search a block of at most `block_bytes`; with such blocks the hook comes each ten instructions.
//! - Texts of functions and tables show addresses, and the order of `pairs` differs from VM to VM: scripts must not decide by them.

mod base;
mod pattern;
mod strings;
mod tables;

#[cfg(test)]
mod tests;

use mlua::ffi;

use crate::lua::{self, Fault, Function, Kind, Reference, Returned, Stack};

/// Where a function of the white list comes from.
#[derive(Clone, Copy)]
enum Origin {
    /// Lua's own, as it is: it does little, or what it does takes memory, which is bounded.
    Lua,
    /// Lua's own, and the length of its first argument is charged.
    Charged,
    /// Ours.
    Ours(Function),
    /// Ours, and may yield.
    Native(mlua::lua_CFunction),
}

use Origin::{Charged, Lua, Native, Ours};

/// A library by its name, and what of it is there.
type Library = (&'static str, mlua::lua_CFunction, &'static [(&'static str, Origin)]);

const BASE: &[(&str, Origin)] = &[
    ("assert", Lua),
    ("collectgarbage", Ours(base::collect_garbage)),
    ("error", Lua),
    ("getmetatable", Lua),
    ("ipairs", Lua),
    ("next", Lua),
    ("pairs", Lua),
    ("pcall", Native(lua::pcall)),
    ("rawequal", Lua),
    ("rawget", Lua),
    ("rawlen", Lua),
    ("rawset", Ours(base::raw_set)),
    ("select", Lua),
    ("setmetatable", Ours(base::set_metatable)),
    ("tonumber", Charged),
    ("tostring", Lua),
    ("type", Lua),
    ("xpcall", Native(lua::xpcall)),
];

const LIBRARIES: &[Library] = &[
    (
        "string",
        ffi::luaopen_string,
        &[
            ("byte", Ours(string_byte)),
            ("char", Lua),
            ("find", Ours(strings::find)),
            ("format", Charged),
            ("gmatch", Ours(strings::gmatch)),
            ("gsub", Ours(strings::gsub)),
            ("len", Lua),
            ("lower", Charged),
            ("match", Ours(strings::match_)),
            ("pack", Charged),
            ("packsize", Charged),
            ("rep", Ours(strings::rep)),
            ("reverse", Charged),
            ("sub", Lua),
            ("unpack", Charged),
            ("upper", Charged),
        ],
    ),
    (
        "table",
        ffi::luaopen_table,
        &[
            ("concat", Ours(tables::concat)),
            ("insert", Ours(tables::insert)),
            ("move", Ours(tables::move_)),
            ("pack", Lua),
            ("remove", Ours(tables::remove)),
            ("sort", Ours(tables::sort)),
            ("unpack", Ours(tables::unpack)),
        ],
    ),
    (
        "math",
        ffi::luaopen_math,
        &[
            ("abs", Lua),
            ("acos", Lua),
            ("asin", Lua),
            ("atan", Lua),
            ("ceil", Lua),
            ("cos", Lua),
            ("deg", Lua),
            ("exp", Lua),
            ("floor", Lua),
            ("fmod", Lua),
            ("huge", Lua),
            ("log", Lua),
            ("max", Lua),
            ("maxinteger", Lua),
            ("min", Lua),
            ("mininteger", Lua),
            ("modf", Lua),
            ("pi", Lua),
            ("rad", Lua),
            ("random", Ours(base::random)),
            ("randomseed", Ours(base::random_seed)),
            ("sin", Lua),
            ("sqrt", Lua),
            ("tan", Lua),
            ("tointeger", Lua),
            ("type", Lua),
            ("ult", Lua),
        ],
    ),
    (
        "utf8",
        ffi::luaopen_utf8,
        &[
            ("char", Lua),
            ("charpattern", Lua),
            ("codepoint", Ours(utf8_codepoint)),
            ("codes", Ours(utf8_codes)),
            ("len", Charged),
            ("offset", Charged),
        ],
    ),
    (
        "coroutine",
        ffi::luaopen_coroutine,
        &[
            ("close", Charged),
            ("create", Ours(lua::create)),
            ("isyieldable", Lua),
            ("resume", Ours(lua::resume)),
            ("running", Lua),
            ("status", Lua),
            ("wrap", Ours(lua::wrap)),
            ("yield", Lua),
        ],
    ),
];

/// Names of the white list: `string.find`, `pairs`, … For `check` and for editors.
pub fn names() -> impl Iterator<Item = (Option<&'static str>, &'static str)> {
    let base = BASE.iter().map(|(name, _)| (None, *name));
    base.chain(LIBRARIES.iter().flat_map(|(library, _, names)| names.iter().map(|(name, _)| (Some(*library), *name))))
}

/// Makes the table of everything that environments begin with, without `postroad`. May raise: once, when a VM is made.
pub(crate) fn prepare(stack: Stack<'_>) -> Result<Reference, Fault> {
    stack.push_table(0, 32);
    let globals = stack.top();
    ffi_open(stack, ffi::luaopen_base);
    lua::keep_refusal(stack);
    take(stack, BASE, globals)?;
    for (name, open, names) in LIBRARIES {
        ffi_open(stack, *open);
        stack.push_table(0, names.len());
        let real = stack.top();
        stack.push_copy(real - 1);
        take(stack, names, real)?;
        if *name == "string" {
            protect_strings(stack, real);
        }
        freeze(stack, real);
        stack.raw_set_name(globals, name);
        stack.set_top(globals);
    }
    stack.push_bytes(b"Lua 5.4");
    stack.raw_set_name(globals, "_VERSION");
    Ok(stack.keep())
}

fn ffi_open(stack: Stack<'_>, open: mlua::lua_CFunction) {
    stack.open_library(open);
}

/// Puts what the list names into `into`; the library's own table is at the top, and taken.
fn take(stack: Stack<'_>, names: &[(&str, Origin)], into: i32) -> Result<(), Fault> {
    let library = stack.top();
    for (name, from) in names {
        stack.push_bytes(name.as_bytes());
        stack.raw_get(library);
        match from {
            Lua => {}
            Charged => charge_first(stack)?,
            Ours(function) => {
                stack.pop(1);
                stack.push_function(*function, 0);
            }
            Native(function) => {
                stack.pop(1);
                stack.push_native(*function);
            }
        }
        stack.raw_set_name(into, name);
    }
    stack.set_top(library - 1);
    Ok(())
}

/// Puts ours in the place of the function at the top: it charges, and then is that one. Upvalue 2: its place in [`lua::Host::originals`].
fn charge_first(stack: Stack<'_>) -> Result<(), Fault> {
    let original = stack.native(-1).ok_or(Fault::Text("a function of the white list is none of Lua's"))?;
    stack.pop(1);
    let place = stack.host().originals.len();
    stack.host().originals.push(original);
    stack.push_integer(place as i64);
    stack.push_function(charged, 1);
    Ok(())
}

fn charged(stack: Stack<'_>) -> Returned {
    if lua::is_ended(stack, 1) {
        return Err(Fault::Text("the coroutine was ended by a limit"));
    }
    let bytes = if stack.kind(1) == Kind::String { stack.raw_len(1) } else { 0 };
    stack.host().charge_bytes(bytes)?;
    make_room(stack);
    let place = stack.integer(stack.upvalue(2)).unwrap_or_default();
    let original = stack.host().originals[place as usize];
    let count = stack.run_native(original);
    // Closing a coroutine swallows its errors.
    if stack.host().ended_by().is_some() { Err(Fault::Over) } else { Ok(count) }
}

/// Such functions write to buffers, of about as many bytes as their texts have, and once more for the result.
fn make_room(stack: Stack<'_>) {
    let texts = (1..=stack.top()).filter(|index| stack.kind(*index) == Kind::String);
    let bytes: usize = texts.map(|index| stack.raw_len(index)).sum();
    if bytes >= 512 {
        stack.make_room(bytes.saturating_mul(2));
    }
}

/// Strings have methods, and nobody changes them.
fn protect_strings(stack: Stack<'_>, library: i32) {
    stack.push_bytes(b"");
    if stack.push_metatable(-1) {
        stack.push_copy(library);
        stack.raw_set_name(-2, "__index");
        stack.push_boolean(false);
        stack.raw_set_name(-2, "__metatable");
        stack.pop(1);
    }
    stack.pop(1);
}

/// Pushes a table that shows what `real` has, and can't be changed. Nobody gets `real` itself.
pub(crate) fn freeze(stack: Stack<'_>, real: i32) {
    stack.push_table(0, 0);
    stack.push_table(0, 3);
    stack.push_copy(real);
    stack.raw_set_name(-2, "__index");
    stack.push_function(base::refuse_change, 0);
    stack.raw_set_name(-2, "__newindex");
    stack.push_boolean(false);
    stack.raw_set_name(-2, "__metatable");
    stack.set_metatable(-2);
}

/// Pushes a new environment: its own, with all that is in the table `globals`, and `_G`.
pub(crate) fn push_environment(stack: Stack<'_>, globals: Reference) {
    stack.push_reference(globals);
    stack.push_table(0, 40);
    stack.push_nil();
    while stack.next(-3) {
        stack.push_copy(-2);
        stack.insert(-2);
        stack.raw_set(-4);
    }
    stack.remove(-2);
    stack.push_copy(-1);
    stack.raw_set_name(-2, "_G");
}

/// Most values that `string.byte` and `utf8.codepoint` give.
const VALUES_MAX: i64 = 8_000;

/// First and last byte of a slice, from 1 on, as Lua counts.
fn slice(stack: Stack<'_>, length: usize) -> Result<(i64, i64), Fault> {
    let length = length as i64;
    let at = |value: i64| if value < 0 { length.saturating_add(value).saturating_add(1) } else { value };
    let first = at(strings::integer_argument(stack, 2, 1)?);
    let last = if stack.is_nil(3) { first } else { at(strings::integer_argument(stack, 3, 0)?) };
    Ok((first.max(1), last.min(length)))
}

fn string_byte(stack: Stack<'_>) -> Returned {
    let text = strings::string_argument(stack, 1)?;
    let (first, last) = slice(stack, text.len())?;
    if first > last {
        return Ok(0);
    }
    let count = last - first + 1;
    if count > VALUES_MAX {
        return Err(Fault::Text("string slice too long"));
    }
    stack.host().charge(count as u64)?;
    stack.reserve(count as i32);
    text[first as usize - 1..last as usize].iter().for_each(|byte| stack.push_integer((*byte).into()));
    Ok(count as i32)
}

/// Strict UTF-8: of what Lua's own takes with `lax`, nothing.
fn utf8_codepoint(stack: Stack<'_>) -> Returned {
    let text = strings::string_argument(stack, 1)?;
    let (first, last) = slice(stack, text.len())?;
    if first > last {
        return Ok(0);
    }
    if last - first >= VALUES_MAX {
        return Err(Fault::Text("string slice too long"));
    }
    stack.host().charge((last - first + 1) as u64)?;
    stack.reserve((last - first + 1) as i32);
    let mut at = first as usize - 1;
    let mut count = 0;
    while at < last as usize {
        let code = first_code(&text[at..]).ok_or(Fault::Text("invalid UTF-8 code"))?;
        stack.push_integer(u32::from(code).into());
        at += code.len_utf8();
        count += 1;
    }
    Ok(count)
}

/// Lua's own iterator skips what continues a character for as long as it does, if a script calls it by hand; ours does not begin then.
fn utf8_codes(stack: Stack<'_>) -> Returned {
    let text = strings::string_argument(stack, 1)?;
    stack.host().charge(1)?;
    if text.first().is_some_and(|byte| is_continuation(*byte)) {
        return Err(Fault::Argument(1, "invalid UTF-8 code"));
    }
    stack.set_top(1);
    stack.push_function(utf8_next, 0);
    stack.insert(1);
    stack.push_integer(0);
    Ok(3)
}

fn utf8_next(stack: Stack<'_>) -> Returned {
    let text = strings::string_argument(stack, 1)?;
    let at = usize::try_from(strings::integer_argument(stack, 2, 0)?).unwrap_or(usize::MAX);
    let rest = text.get(at..).unwrap_or_default();
    // A character of UTF-8 has three bytes more at most.
    let skipped = rest.iter().take(4).take_while(|byte| is_continuation(**byte)).count();
    let rest = &rest[skipped..];
    if rest.is_empty() {
        return Ok(0);
    }
    let code = first_code(rest).ok_or(Fault::Text("invalid UTF-8 code"))?;
    if rest.get(code.len_utf8()).is_some_and(|byte| is_continuation(*byte)) {
        return Err(Fault::Text("invalid UTF-8 code"));
    }
    stack.push_integer((at + skipped) as i64 + 1);
    stack.push_integer(u32::from(code).into());
    Ok(2)
}

fn is_continuation(byte: u8) -> bool {
    byte & 0xC0 == 0x80
}

fn first_code(bytes: &[u8]) -> Option<char> {
    let head = &bytes[..bytes.len().min(4)];
    let valid = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&head[..error.valid_up_to()]).ok()?,
    };
    valid.chars().next()
}
