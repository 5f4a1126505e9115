//! The API as annotations that language servers for Lua read (LuaCATS): completion and checks while one writes.

use std::fmt::Write as _;

use super::{ENTRIES, Entry, FIELDS, HOOK_KEYS, LIMIT_KEYS, METHODS, Method, Of, PLUGIN_KEYS, TableKey, Value};

/// Classes of objects that hooks are given, and of tables that stand for messages.
const OBJECTS: [(&str, Of, &str); 6] = [
    ("postroad.Message", Of::MESSAGE, "A message, during the call of a hook."),
    ("postroad.Letter", Of::LETTER, "A dead letter, during the call of a hook."),
    ("postroad.Client", Of::CONNECT, "Who wants to connect."),
    ("postroad.Gone", Of::GONE, "Whose connection is over."),
    ("postroad.Subscription", Of::SUBSCRIPTION, "Who wants to subscribe to what."),
    ("postroad.Part", Of::PART, "A table that stands for a message."),
];

/// What the tables do not say: types without functions of their own, and hooks. Classes have no generics that all servers read, so each kind of hook is written out.
const HEAD: &str = "---@meta postroad
-- The API of Postroad's plugins, for editors. Made by `postroad plugin stubs`; changes here are lost.

---An answer of a hook: made by functions of `postroad`, and returned.
---@class postroad.Answer

---@class postroad.Counter
local counter = {}

---Adds to the counter.
---@param n? integer 1 without.
function counter:add(n) end

---@class postroad.Gauge
local gauge = {}

---Sets the gauge.
---@param value number
function gauge:set(value) end

---@class postroad.Time
---@field year integer
---@field month integer
---@field day integer
---@field hour integer
---@field minute integer
---@field second integer
---@field millisecond integer
---@field weekday integer 1 is Monday.

";

/// The whole file, `postroad.lua`.
pub fn stubs() -> String {
    let mut out = HEAD.to_owned();
    for (name, of, doc) in OBJECTS {
        push_object(&mut out, name, of, doc);
    }
    push_keys(&mut out, "postroad.Limits", LIMIT_KEYS, "Limits of a plugin: they can only be lower than the server's.");
    for (hook, subject) in HOOKS {
        push_hook(&mut out, hook, subject);
    }
    push_keys(&mut out, "postroad.Plugin", PLUGIN_KEYS, "The table that a plugin's file returns.");
    out += "---The API.\npostroad = {}\n\n";
    for group in super::groups() {
        writeln!(out, "postroad.{group} = {{}}\n").expect("writing to memory never fails");
    }
    ENTRIES.iter().for_each(|entry| push_entry(&mut out, entry));
    out += TEST_KIT;
    out
}

/// A kind of hook, and what it is given.
const HOOKS: [(&str, &str); 6] = [
    ("postroad.Hook<postroad.Message>", "message: postroad.Message"),
    ("postroad.Hook<postroad.Letter>", "letter: postroad.Letter"),
    ("postroad.Hook<postroad.Client>", "client: postroad.Client"),
    ("postroad.Hook<postroad.Gone>", "gone: postroad.Gone"),
    ("postroad.Hook<postroad.Subscription>", "subscription: postroad.Subscription"),
    ("postroad.DeliverHook", "message: postroad.Message, clients: string[]"),
];

/// `postroad.Hook<postroad.Message>` is no name of a class: `postroad.MessageHook` is.
fn class_of(kind: &str) -> String {
    match kind.strip_prefix("postroad.Hook<").and_then(|rest| rest.split_once('>')) {
        Some((of, rest)) => format!("{of}Hook{rest}"),
        None => kind.to_owned(),
    }
}

fn push_hook(out: &mut String, hook: &str, subject: &str) {
    let name = class_of(hook);
    let results = if hook == "postroad.DeliverHook" {
        "table<integer, boolean>|nil"
    } else {
        "postroad.Answer?, postroad.Answer?"
    };
    let function = format!("(fun({subject}): {results})");
    let short = name.rsplit('.').next().unwrap_or(&name);
    writeln!(out, "---@class postroad.{short}Table").expect("writing to memory never fails");
    for TableKey { name, kind, doc } in HOOK_KEYS {
        let kind = if *name == "run" { function.as_str() } else { kind };
        push_field(out, name, kind, doc);
    }
    writeln!(out, "\n---@alias {name} {function}|postroad.{short}Table\n").expect("writing to memory never fails");
}

fn push_keys(out: &mut String, class: &str, keys: &[TableKey], doc: &str) {
    writeln!(out, "---{doc}\n---@class {class}").expect("writing to memory never fails");
    for TableKey { name, kind, doc } in keys {
        push_field(out, name, &class_of(kind), doc);
    }
    out.push('\n');
}

/// A type that may be nil has its `?` behind the name.
fn push_field(out: &mut String, name: &str, kind: &str, doc: &str) {
    let (name, kind) = match kind.strip_suffix('?') {
        Some(kind) => (format!("{name}?"), kind),
        None => (name.to_owned(), kind),
    };
    writeln!(out, "---@field {name} {kind} {doc}").expect("writing to memory never fails");
}

fn push_object(out: &mut String, class: &str, of: Of, doc: &str) {
    writeln!(out, "---{doc}\n---@class {class}").expect("writing to memory never fails");
    let is_part = of == Of::PART;
    for field in FIELDS.iter().filter(|field| if is_part { field.set.has(of) } else { field.read.has(of) }) {
        let optional = if is_part && field.name != "topic" && !field.kind.ends_with('?') { "?" } else { "" };
        push_field(out, field.name, &format!("{}{optional}", field.kind), field.doc);
    }
    let methods: Vec<&Method> = METHODS.iter().filter(|method| method.of.has(of)).collect();
    if !methods.is_empty() {
        let local = class.rsplit('.').next().unwrap_or(class).to_lowercase();
        writeln!(out, "local {local} = {{}}\n").expect("writing to memory never fails");
        for Method { name, parameters, results, doc, .. } in methods {
            push_function(out, &format!("{local}:{name}"), parameters, results, doc);
        }
        return;
    }
    out.push('\n');
}

fn push_entry(out: &mut String, entry: &Entry) {
    let name = format!("postroad.{}", entry.name);
    if entry.is_function() {
        push_function(out, &name, entry.parameters, entry.results, entry.doc);
    } else {
        writeln!(out, "---{}\n---@type userdata\n{name} = nil\n", entry.doc).expect("writing to memory never fails");
    }
}

fn push_function(out: &mut String, name: &str, parameters: &[Value], results: &[Value], doc: &str) {
    writeln!(out, "---{doc}").expect("writing to memory never fails");
    for Value { name, kind, doc } in parameters {
        writeln!(out, "---@param {name} {kind} {doc}").expect("writing to memory never fails");
    }
    for Value { name, kind, doc } in results {
        let (name, kind) = match name.strip_suffix('?') {
            Some(name) => (name, format!("{}?", kind.trim_end_matches('?'))),
            None => (*name, (*kind).to_owned()),
        };
        writeln!(out, "---@return {kind} {name} {doc}").expect("writing to memory never fails");
    }
    let names: Vec<&str> = parameters.iter().map(|value| value.name.trim_end_matches('?')).collect();
    writeln!(out, "function {name}({}) end\n", names.join(", ")).expect("writing to memory never fails");
}

/// What a case of a test file is given: `kit` has the words.
const TEST_KIT: &str = "---What a case of NAME_test.lua is given. See docs/plugin-tools.md.
---@class postroad.Test
---@field publish fun(message: table): table
---@field deliver fun(message: table): string[]
---@field dead_letter fun(letter: table): table
---@field connect fun(client: table): table
---@field disconnect fun(client: table): table
---@field subscribe fun(subscription: table): table
---@field now fun(): integer
---@field advance fun(ms: integer): integer
---@field counter fun(name: string): integer
---@field gauge fun(name: string): number?
---@field failures fun(): table[]
---@field reload fun()
---@field decode fun(bytes: string, client?: string): table
---@field encode fun(frame: table): string
---@field every_split fun(bytes: string, expected?: table[], client?: string): table[]
---@field equal fun(got: any, expected: any)
---@field ok fun(value: any, what?: string): any
---@field contains fun(whole: any, part: any)
---@field matches fun(text: string, pattern: string)
---@field raises fun(call: function, pattern?: string): string
---@field fail fun(text?: string)
---@field print fun(...)
---@field show fun(value: any): string
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kit;

    /// Whatever the tables have, editors hear of; and the file is Lua.
    #[test]
    fn everything_has_its_stub() {
        let text = stubs();
        for entry in ENTRIES {
            let name = format!("postroad.{}", entry.name);
            assert!(text.contains(&format!("function {name}(")) || text.contains(&format!("{name} = nil")), "{name}");
        }
        for field in FIELDS {
            assert!(text.contains(&format!("---@field {}", field.name)), "{}", field.name);
        }
        for name in kit::names() {
            assert!(text.contains(&format!("---@field {name} fun(")), "t.{name}");
        }
        let flaws = crate::text::flaws(&text);
        assert!(flaws.is_empty(), "{flaws:?}");
        let name = crate::PluginName::new("stubs").expect("a name");
        let source =
            crate::Source::new(name, "postroad.lua", format!("{}\nreturn {{}}", text.replace("postroad", "api")));
        let set = crate::Set::from_sources(vec![source]).expect("one");
        assert!(set.compile(&crate::Limits::default()).is_ok());
    }
}
