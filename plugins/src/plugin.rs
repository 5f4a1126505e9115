//! One plugin of a VM: its account at the host, and what its table says.

use base::{MonoMillis, ShardId, TopicFilter};
use postroad_base as base;

use crate::diagnostic::nearest;
use crate::filters::Filters;
use crate::in_hand::InHand;
use crate::lua::{Fault, Kind, Reference, Stack};
use crate::{CodecTable, Hook, HookFigures, Limits, PluginName, SetHash};

/// So many in a second, and how many more there were.
#[derive(Clone, Debug)]
pub(crate) struct Rate {
    per_second: u32,
    second: u64,
    count: u32,
    pub(crate) dropped: u64,
}

impl Rate {
    pub(crate) fn new(per_second: u32) -> Self {
        Self { per_second, second: 0, count: 0, dropped: 0 }
    }

    /// Whether one more may be written.
    pub(crate) fn takes_line(&mut self, now: MonoMillis) -> bool {
        if now.0 / 1000 != self.second {
            (self.second, self.count) = (now.0 / 1000, 0);
        }
        self.count += 1;
        let is_taken = self.count <= self.per_second;
        self.dropped += u64::from(!is_taken);
        is_taken
    }
}

/// What functions of ours know of the plugin that calls them.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) name: PluginName,
    pub(crate) in_hand: InHand,
    pub(crate) limits: Limits,
    pub(crate) log: Rate,
    pub(crate) counters: Vec<(String, u64)>,
    pub(crate) gauges: Vec<(String, f64)>,
    /// Of `math.random`: a plugin is no place for unpredictable numbers, and both VMs of a comparison have to agree.
    pub(crate) random: u64,
}

impl Account {
    pub(crate) fn new(name: PluginName, version: SetHash, limits: &Limits, shard: ShardId) -> Self {
        let log = Rate::new(limits.log_lines);
        let random = xxhash_rust::xxh64::xxh64(name.as_str().as_bytes(), u64::from(shard.0)) | 1; // never 0: it would stay so
        let in_hand = InHand::new(&name, version);
        Self { name, in_hand, limits: *limits, log, counters: Vec::new(), gauges: Vec::new(), random }
    }

    /// The place of a counter, which is made if there is room.
    pub(crate) fn counter(&mut self, name: &str) -> Option<usize> {
        let has_room = self.has_room();
        place(&mut self.counters, name, has_room)
    }

    /// The place of a gauge.
    pub(crate) fn gauge(&mut self, name: &str) -> Option<usize> {
        let has_room = self.has_room();
        place(&mut self.gauges, name, has_room)
    }

    fn has_room(&self) -> bool {
        self.counters.len() + self.gauges.len() < self.limits.metric_names
    }
}

fn place<T: Default>(numbers: &mut Vec<(String, T)>, name: &str, has_room: bool) -> Option<usize> {
    if let Some(place) = numbers.iter().position(|(known, _)| known == name) {
        return Some(place);
    }
    has_room.then(|| {
        numbers.push((name.to_owned(), T::default()));
        numbers.len() - 1
    })
}

/// A hook that a plugin has.
#[derive(Debug)]
pub(crate) struct HookOf {
    pub(crate) function: Reference,
    pub(crate) filters: Filters,
    /// What an error does: as if the hook was not there, or as if it had said no.
    pub(crate) is_open: bool,
    pub(crate) figures: HookFigures,
}

/// The codec of a plugin. Its calls are counted apart from those of hooks (`vm`).
#[derive(Debug)]
pub(crate) struct CodecOf {
    pub(crate) table: Reference,
    /// What is in the table, once it was read.
    pub(crate) read: Option<CodecTable>,
    pub(crate) figures: HookFigures,
    /// Calls that a limit ended, since the last one that ended otherwise.
    pub(crate) ended_in_a_row: u32,
    pub(crate) is_quarantined: bool,
}

/// What a plugin's table says, and how it fares.
#[derive(Debug)]
pub(crate) struct Plugin {
    pub(crate) name: PluginName,
    pub(crate) file: String,
    pub(crate) hash: SetHash,
    /// Of its account, from 1 on.
    pub(crate) owner: usize,
    pub(crate) description: String,
    pub(crate) priority: u16,
    /// By the number of the hook.
    pub(crate) hooks: [Option<HookOf>; Hook::ALL.len()],
    pub(crate) tests: Vec<(String, Reference)>,
    pub(crate) codec: Option<CodecOf>,
    pub(crate) failures_in_a_row: u32,
    /// The same before the last call, which ended well: its answer may still mean nothing.
    pub(crate) row_before: u32,
    pub(crate) is_quarantined: bool,
    /// This version is not called, whatever comes: see [`crate::Vm::disable`].
    pub(crate) is_disabled: bool,
    pub(crate) failures: Rate,
}

/// Failures of one plugin that are logged in one second.
const FAILURES_LOGGED: u32 = 5;

/// Something wrong in a table: under which key, and what.
pub(crate) type Flaw = (Option<String>, String);

pub(crate) const KEYS: &[&str] = &[
    "description",
    "priority",
    "limits",
    "on_connect",
    "on_disconnect",
    "on_subscribe",
    "on_inbound",
    "route",
    "on_deliver",
    "on_dead_letter",
    "on_save",
    "on_load",
    "codec",
    "test",
];
pub(crate) const HOOK_KEYS: &[&str] = &["run", "filters", "on_error"];
pub(crate) const LIMIT_KEYS: &[&str] =
    &["instructions", "load_instructions", "millis", "load_millis", "memory_bytes", "allocated_bytes", "block_bytes"];
/// Where a plugin stands that says nothing.
const PRIORITY_DEFAULT: u16 = 500;
/// Most filters of one hook.
const FILTERS_MAX: usize = 1_000;

impl Plugin {
    pub(crate) fn new(name: PluginName, file: String, hash: SetHash, owner: usize) -> Self {
        Self {
            name,
            file,
            hash,
            owner,
            description: String::new(),
            priority: PRIORITY_DEFAULT,
            hooks: std::array::from_fn(|_| None),
            tests: Vec::new(),
            codec: None,
            failures_in_a_row: 0,
            row_before: 0,
            is_quarantined: false,
            is_disabled: false,
            failures: Rate::new(FAILURES_LOGGED),
        }
    }

    pub(crate) fn hook(&self, hook: Hook) -> Option<&HookOf> {
        self.hooks[hook as usize].as_ref()
    }

    /// Reads the table at the top. `limits` are the server's on entry; the plugin may lower them. May raise, for want of memory: `self` and `flaws`
    /// are the caller's, outside the protected call.
    pub(crate) fn read_table(&mut self, stack: Stack<'_>, limits: &mut Limits, flaws: &mut Vec<Flaw>) {
        let table = stack.top();
        stack.push_nil();
        while stack.next(table) {
            match stack.text(-2) {
                Some(key) if KEYS.contains(&key) => self.read_key(stack, key, limits, flaws),
                Some(key) => flaws.push(unknown(None, key, KEYS)),
                None => flaws.push((None, "a plugin's table has keys of text only".to_owned())),
            }
            stack.set_top(table + 1);
        }
    }

    /// The value is at the top.
    fn read_key(&mut self, stack: Stack<'_>, key: &str, limits: &mut Limits, flaws: &mut Vec<Flaw>) {
        let mut flaw = |text: String| flaws.push((Some(key.to_owned()), text));
        match key {
            "description" => match stack.text(-1).filter(|text| text.len() <= 1_000) {
                Some(text) => self.description = text.to_owned(),
                None => flaw(format!("expected a text of 1,000 bytes at most, not {}", stack.kind(-1).name())),
            },
            "priority" => {
                match stack.integer(-1).and_then(|number| u16::try_from(number).ok()).filter(|number| *number <= 1_000)
                {
                    Some(priority) => self.priority = priority,
                    None => flaw("expected a whole number from 0 to 1000".to_owned()),
                }
            }
            "limits" => read_limits(stack, limits, flaws),
            "test" => self.read_tests(stack, flaws),
            "codec" if stack.kind(-1) == Kind::Table => {
                stack.push_copy(-1);
                let table = stack.keep();
                let figures = HookFigures::default();
                self.codec = Some(CodecOf { table, read: None, figures, ended_in_a_row: 0, is_quarantined: false });
            }
            "codec" => flaw(format!("expected a table, not {}", stack.kind(-1).name())),
            _ => self.read_hook(stack, key, flaws),
        }
    }

    fn read_hook(&mut self, stack: Stack<'_>, key: &str, flaws: &mut Vec<Flaw>) {
        let Some(hook) = Hook::ALL.into_iter().find(|hook| hook.name() == key) else { return };
        let is_plain_only = matches!(hook, Hook::Save | Hook::Load);
        let is_table = stack.kind(-1) == Kind::Table && !is_plain_only;
        match stack.kind(-1) {
            Kind::Function => stack.push_copy(-1),
            Kind::Table if is_table => {
                stack.push_bytes(b"run");
                stack.raw_get(-2);
            }
            other => {
                let expected = if is_plain_only { "a function" } else { "a function, or a table with 'run'" };
                return flaws.push((Some(key.to_owned()), format!("expected {expected}, not {}", other.name())));
            }
        }
        if stack.kind(-1) != Kind::Function {
            return flaws.push((Some(key.to_owned()), "there is no function 'run'".to_owned()));
        }
        // Before anything is owned here: it may raise.
        let function = stack.keep();
        let is_open = !matches!(hook, Hook::Connect | Hook::Subscribe);
        let mut read = HookOf { function, filters: Filters::everything(), is_open, figures: HookFigures::default() };
        if is_table {
            read_hook_table(stack, hook, &mut read, flaws);
        }
        self.hooks[hook as usize] = Some(read);
    }

    fn read_tests(&mut self, stack: Stack<'_>, flaws: &mut Vec<Flaw>) {
        let key = || Some("test".to_owned());
        if stack.kind(-1) != Kind::Table {
            return flaws.push((key(), format!("expected a table of functions, not {}", stack.kind(-1).name())));
        }
        let table = stack.top();
        stack.push_nil();
        while stack.next(table) {
            match (stack.text(-2), stack.kind(-1)) {
                (Some(_), Kind::Function) => {
                    let function = stack.keep();
                    let name = stack.text(-1).unwrap_or_default().to_owned();
                    self.tests.push((name, function));
                }
                (_, kind) => {
                    flaws.push((key(), format!("expected functions under names, not {}", kind.name())));
                    stack.pop(1);
                }
            }
        }
        self.tests.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
    }
}

fn unknown(of: Option<&str>, key: &str, known: &[&str]) -> Flaw {
    let shown: String = key.chars().take(64).collect();
    let text = match nearest(key, known.iter().copied()) {
        Some(near) => format!("unknown key '{shown}': did you mean '{near}'?"),
        None => format!("unknown key '{shown}': known are {}", known.join(", ")),
    };
    (Some(of.unwrap_or(&shown).to_owned()), text)
}

/// What a hook's table says besides `run`. Raises nothing.
fn read_hook_table(stack: Stack<'_>, hook: Hook, read: &mut HookOf, flaws: &mut Vec<Flaw>) {
    let key = || Some(hook.name().to_owned());
    let table = stack.top();
    stack.push_nil();
    while stack.next(table) {
        match stack.text(-2) {
            Some("run") => {}
            Some("on_error") => match stack.text(-1) {
                Some("open") => read.is_open = true,
                Some("closed") => read.is_open = false,
                _ => flaws.push((key(), "'on_error' must be \"open\" or \"closed\"".to_owned())),
            },
            Some("filters") => read_filters(stack, hook, &mut read.filters, flaws),
            Some(name) => flaws.push(unknown(Some(hook.name()), name, HOOK_KEYS)),
            None => flaws.push((key(), "a hook's table has keys of text only".to_owned())),
        }
        stack.set_top(table + 1);
    }
}

fn read_filters(stack: Stack<'_>, hook: Hook, filters: &mut Filters, flaws: &mut Vec<Flaw>) {
    let mut flaw = |text: String| flaws.push((Some(hook.name().to_owned()), text));
    if !matches!(hook, Hook::Inbound | Hook::Route | Hook::Deliver | Hook::DeadLetter) {
        return flaw("this hook is about no topic: it has no filters".to_owned());
    }
    let count = if stack.kind(-1) == Kind::Table { stack.raw_len(-1) } else { 0 };
    if count == 0 || count > FILTERS_MAX {
        return flaw(format!("'filters' must be an array of 1 to {FILTERS_MAX} topic filters"));
    }
    let table = stack.top();
    *filters = Filters::default();
    for place in 1..=count {
        stack.raw_get_at(table, place as i64);
        match stack.text(-1).map(TopicFilter::new) {
            Some(Ok(filter)) if filter.is_shared() => {
                flaw(format!("filter {place}: a plugin shares with nobody: leave out '$share/…/'"))
            }
            Some(Ok(filter)) => filters.add(filter.as_str()),
            Some(Err(error)) => flaw(format!("filter {place}: {error}")),
            None => flaw(format!("filter {place} is {}, not a text", stack.kind(-1).name())),
        }
        stack.pop(1);
    }
}

fn read_limits(stack: Stack<'_>, limits: &mut Limits, flaws: &mut Vec<Flaw>) {
    let key = || Some("limits".to_owned());
    if stack.kind(-1) != Kind::Table {
        return flaws.push((key(), format!("expected a table, not {}", stack.kind(-1).name())));
    }
    let table = stack.top();
    stack.push_nil();
    while stack.next(table) {
        let name = stack.text(-2).unwrap_or_default();
        let value = stack.integer(-1).and_then(|value| u64::try_from(value).ok());
        let most = match name {
            "instructions" => limits.instructions,
            "load_instructions" => limits.load_instructions,
            "millis" => limits.millis,
            "load_millis" => limits.load_millis,
            "memory_bytes" => limits.plugin_memory_bytes as u64,
            "allocated_bytes" => limits.allocated_bytes,
            "block_bytes" => limits.block_bytes as u64,
            _ => {
                flaws.push(unknown(Some("limits"), name, LIMIT_KEYS));
                stack.pop(1);
                continue;
            }
        };
        match value.filter(|value| (1..=most).contains(value)) {
            Some(value) => lower(limits, name, value),
            None => flaws.push((
                key(),
                format!("'{name}' must be a whole number from 1 to {most}: plugins can only lower the server's limits"),
            )),
        }
        stack.pop(1);
    }
}

fn lower(limits: &mut Limits, name: &str, value: u64) {
    let bytes = usize::try_from(value).unwrap_or(usize::MAX);
    match name {
        "instructions" => limits.instructions = value,
        "load_instructions" => limits.load_instructions = value,
        "millis" => limits.millis = value,
        "load_millis" => limits.load_millis = value,
        "memory_bytes" => limits.plugin_memory_bytes = bytes,
        "allocated_bytes" => limits.allocated_bytes = value,
        _ => limits.block_bytes = bytes,
    }
}

/// Pushes the plugin's table: loads its bytecode in an environment of its own, and runs it.
pub(crate) fn push_table(stack: Stack<'_>, bytecode: &[u8], name: &std::ffi::CStr) -> Result<(), Fault> {
    if !stack.load(bytecode, name, true) {
        return Err(Fault::Value);
    }
    crate::sandbox::push_environment(stack, stack.host().kept.globals);
    stack.set_environment(-2);
    stack.call(0, 1);
    if stack.kind(-1) != Kind::Table {
        return Err(Fault::Text("a plugin's file must return a table"));
    }
    Ok(())
}
