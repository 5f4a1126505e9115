//! A test file in a sandbox of its own: its cases, and each one run.
//!
//! The file is loaded anew for each case, so no case sees what another one left behind. Functions of `t` are Lua (`kit.lua`) above one function of
//! ours, `ask`, which knows the [`World`] by a pointer.
//!
//! Invariant: `ask` owns things while it runs, so nothing in it raises an error of Lua (see `lua`): it asks no metatable, and the allocator refuses
//! nothing to owner 0, which it is while it runs.

use std::cell::RefCell;
use std::ffi::{CStr, CString};
use std::rc::Rc;

use base::ShardId;
use postroad_base as base;

use super::TestFile;
use super::world::{QUESTION_NAMES, World};
use crate::api::{push_plain, read_plain};
use crate::lua::{Fault, Host, Kind, Returned, Stack, State, Thrown};
use crate::plugin::Account;
use crate::{Limits, Plain, PluginName, Stores, api, sandbox};

const KIT: &[u8] = include_bytes!("kit.lua");
const KIT_NAME: &CStr = c"=t";

/// What a test file may use up: its author runs it, so this ends what was not meant, no more.
const LIMITS: Limits = Limits {
    instructions: 4_000_000_000,
    load_instructions: 4_000_000_000,
    millis: 60_000,
    load_millis: 60_000,
    memory_bytes: 512 << 20,
    plugin_memory_bytes: 512 << 20,
    allocated_bytes: 64 << 30,
    block_bytes: 128 << 20,
    results: 64,
    result_bytes: 4 << 20,
    store_entries: 10_000,
    store_bytes: 4 << 20,
    metric_names: 64,
    log_lines: 100,
    quarantine_after: 20,
    depth: 64,
};

/// One case of a test file. They run in the order of their lines.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Case {
    /// Where its function begins.
    pub(super) line: u32,
    /// What it shows.
    pub(super) name: String,
}

/// What went wrong: a text, and the line of the test file, if it is one of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) line: Option<u32>,
    pub(super) text: String,
}

impl From<Thrown> for Wrong {
    fn from(thrown: Thrown) -> Self {
        Self { line: thrown.line, text: thrown.text }
    }
}

/// The cases of a file.
pub(super) fn cases(test: &TestFile, plugin: &PluginName) -> Result<Vec<Case>, Wrong> {
    let mut state = sandboxed(plugin, Rc::new(RefCell::new(Stores::new())))?;
    let chunk = chunk_name(plugin);
    let (mut cases, mut flaw) = (Vec::new(), None);
    state.protected(1, true, |stack| {
        push_test_table(stack, test, &chunk)?;
        let table = stack.top();
        stack.push_nil();
        while stack.next(table) {
            match (stack.text(-2), stack.kind(-1)) {
                (Some(name), Kind::Function) => {
                    let line = stack.defined_at(-1).unwrap_or_default();
                    cases.push(Case { line, name: name.to_owned() });
                }
                (name, kind) => flaw = Some((name.unwrap_or("?").to_owned(), kind)),
            }
            stack.pop(1);
        }
        Ok(0)
    })?;
    if let Some((name, kind)) = flaw {
        let text = format!("a test file returns functions under names; [\"{name}\"] is {}", kind.name());
        return Err(Wrong { line: None, text });
    }
    cases.sort_unstable();
    Ok(cases)
}

/// Runs one case against `world`.
pub(super) fn run(test: &TestFile, plugin: &PluginName, case: &Case, world: &mut World) -> Result<(), Wrong> {
    let mut state = sandboxed(plugin, world.stores())?;
    state.host_mut().now = world.time();
    let (chunk, name) = (chunk_name(plugin), case.name.as_bytes());
    let world: *mut World = world;
    state.protected(1, true, |stack| {
        push_test_table(stack, test, &chunk)?;
        stack.push_bytes(name);
        stack.raw_get(-2);
        push_kit(stack, world)?;
        stack.call(1, 0);
        Ok(0)
    })?;
    Ok(())
}

/// A state with what plugins find, too.
fn sandboxed(plugin: &PluginName, stores: Rc<RefCell<Stores>>) -> Result<State, Wrong> {
    let no_memory = || Wrong { line: None, text: "no memory for a sandbox".to_owned() };
    let mut state = State::new(Host::new(&LIMITS, ShardId(0), stores)).ok_or_else(no_memory)?;
    state.protected(0, true, |stack| {
        let globals = sandbox::prepare(stack)?;
        stack.host().kept.globals = globals;
        api::install(stack)?;
        Ok(0)
    })?;
    let host = state.host_mut();
    host.keeps_lines = true;
    host.memory.held.push(0);
    host.accounts.push(Account::new(plugin.clone(), crate::SetHash([0; 32]), &LIMITS, ShardId(0)));
    Ok(state)
}

fn chunk_name(plugin: &PluginName) -> CString {
    CString::new(format!("@{plugin}_test.lua")).expect("a name has no byte 0")
}

/// Pushes what the test file returns.
fn push_test_table(stack: Stack<'_>, test: &TestFile, name: &CStr) -> Result<(), Fault> {
    push_chunk(stack, test.text.as_bytes(), name)?;
    stack.call(0, 1);
    if stack.kind(-1) != Kind::Table {
        return Err(Fault::Text("a test file must return a table of functions"));
    }
    Ok(())
}

/// Pushes a text as a function, in an environment of its own.
fn push_chunk(stack: Stack<'_>, text: &[u8], name: &CStr) -> Result<(), Fault> {
    if !stack.load(text, name, false) {
        return Err(Fault::Value);
    }
    sandbox::push_environment(stack, stack.host().kept.globals);
    stack.set_environment(-2);
    Ok(())
}

/// Pushes `t`.
fn push_kit(stack: Stack<'_>, world: *mut World) -> Result<(), Fault> {
    push_chunk(stack, KIT, KIT_NAME)?;
    stack.push_pointer(world.cast());
    stack.push_function(ask, 1);
    stack.push_table(QUESTION_NAMES.len(), 0);
    for (place, name) in QUESTION_NAMES.iter().enumerate() {
        stack.push_bytes(name.as_bytes());
        stack.raw_set_at(-2, place as i64 + 1);
    }
    stack.call(2, 1);
    Ok(())
}

/// `ask(name, about)`: `true` and the answer, or `false` and what is wrong.
fn ask(stack: Stack<'_>) -> Returned {
    let owner = std::mem::take(&mut stack.host().memory.owner);
    let asked = asked(stack);
    stack.host().memory.owner = owner;
    asked
}

fn asked(stack: Stack<'_>) -> Returned {
    // SAFETY: `run` gives the pointer to its world, which it borrows for longer than the state lives that this function is of; the plugin's own VM, which
    // the world asks, does not know it.
    let world = unsafe { &mut *stack.pointer(stack.upvalue(2)).cast::<World>() };
    stack.set_top(2);
    let name = stack.text(1).unwrap_or_default();
    let answer = match read_plain(stack, 2) {
        Ok(about) => world.ask(name, &about),
        Err(Fault::Over) => return Err(Fault::Over),
        Err(Fault::Text(text)) => Err(format!("t.{name}: {text}")),
        Err(_) => Err(format!("t.{name}: {}", String::from_utf8_lossy(&stack.host().scratch))),
    };
    stack.host().now = world.time();
    stack.push_boolean(answer.is_ok());
    push_plain(stack, &answer.unwrap_or_else(|text| Plain::from(text.as_str())));
    Ok(2)
}
