//! The API of scripts, as one table: what `postroad` has, and the fields of messages, letters, clients and subscriptions. What is installed, what
//! `postroad plugin check` knows, the stubs for editors and the reference all come from it.
//!
//! To add something, add an entry, and a function beside it.

mod answers;
mod data;
mod encodings;
mod fields;
mod hashes;
mod json;
mod keys;
mod log;
mod metrics;
mod msgpack;
mod reference;
mod store;
mod stubs;
mod time;

pub(crate) use answers::{Given, part_from_table, read_given};
pub(crate) use data::{Key, push_plain, read_plain};
pub use fields::{FIELDS, Field, METHODS, Method, Of};
pub use keys::{HOOK_KEYS, LIMIT_KEYS, PLUGIN_KEYS, TableKey};
pub use reference::reference;
pub use stubs::stubs;

use crate::lua::{Fault, Function, Returned, Stack};
use crate::sandbox;

/// One parameter or result. Types are written as language servers for Lua read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Value {
    /// Its name; of a parameter that may be left out, with a `?` behind.
    pub name: &'static str,
    /// Its type.
    pub kind: &'static str,
    /// What it is.
    pub doc: &'static str,
}

const fn v(name: &'static str, kind: &'static str, doc: &'static str) -> Value {
    Value { name, kind, doc }
}

/// What stands under a name.
#[derive(Clone, Copy)]
enum What {
    Function(Function),
    /// `postroad.null`.
    Null,
}

/// One name below `postroad`.
#[derive(Clone, Copy)]
pub struct Entry {
    /// Such as `json.encode`.
    pub name: &'static str,
    /// What it takes.
    pub parameters: &'static [Value],
    /// What it gives.
    pub results: &'static [Value],
    /// What it is for, in a sentence or two.
    pub doc: &'static str,
    /// The version that has it first.
    pub since: &'static str,
    what: What,
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.signature())
    }
}

impl Entry {
    /// Whether it is called; otherwise it is a value.
    pub fn is_function(&self) -> bool {
        matches!(self.what, What::Function(_))
    }

    /// Such as `postroad.store.get(key) -> value`.
    pub fn signature(&self) -> String {
        let names = |values: &[Value]| values.iter().map(|value| value.name).collect::<Vec<_>>().join(", ");
        let mut text = format!("postroad.{}", self.name);
        if self.is_function() {
            text += &format!("({})", names(self.parameters));
        }
        if !self.results.is_empty() {
            text += &format!(" -> {}", names(self.results));
        }
        text
    }
}

const fn f(
    name: &'static str,
    parameters: &'static [Value],
    results: &'static [Value],
    doc: &'static str,
    function: Function,
) -> Entry {
    Entry { name, parameters, results, doc, since: "0.2", what: What::Function(function) }
}

const BYTES: &[Value] = &[v("bytes", "string", "Any bytes.")];
const HASH: &[Value] = &[v("hash", "integer", "The hash.")];
const XXH64: &[Value] = &[v("bytes", "string", "Any bytes."), v("seed?", "integer", "0 without.")];
const TEXT: &[Value] = &[v("text", "string", "The text.")];
const LINE: &[Value] = &[v("...", "any", "What to write: texts, numbers, booleans; joined by spaces.")];
const DECODED: &[Value] = &[
    v("value", "any", "The value; `nil` if there is none."),
    v("error?", "string", "Then: what is wrong, and where."),
];
const ENCODED: &[Value] =
    &[v("bytes", "string?", "The bytes; `nil` if it can't be written."), v("error?", "string", "Then: why not.")];
const ANSWER: &[Value] = &[v("answer", "postroad.Answer", "To be returned by the hook.")];
const REASON: Value = v("reason?", "string", "Why, for logs and metrics.");
const PARTS: &[Value] =
    &[v("messages", "postroad.Part[]", "Tables with `topic`, `payload` and other fields of a message.")];

/// Everything below `postroad`, in the order of the reference.
pub static ENTRIES: &[Entry] = &[
    f(
        "drop",
        &[REASON],
        ANSWER,
        "The message goes to nobody, and its publisher hears that it was taken in; a dead letter is over.",
        answers::drop,
    ),
    f(
        "refuse",
        &[
            v("reason", "integer|string", "A reason code from 0x80 on, or its name, such as `\"quota_exceeded\"`."),
            v("text?", "string", "For the log."),
        ],
        ANSWER,
        "The publisher hears that its message was refused.",
        answers::refuse,
    ),
    f(
        "park",
        &[v("note", "string", "For the human.")],
        ANSWER,
        "The message becomes a dead letter that a human looks at; a letter stays one.",
        answers::park,
    ),
    f(
        "split",
        PARTS,
        ANSWER,
        "These messages in place of the one that came. What a part does not say it has from the message.",
        answers::split,
    ),
    f("stop", &[], ANSWER, "What was set holds, and later plugins are not asked.", answers::stop),
    f(
        "deny",
        &[
            v("reason?", "integer|string", "A reason code from 0x80 on, or its name; without one: not authorized."),
            v("text?", "string", "For the log."),
        ],
        ANSWER,
        "A client may not connect, or subscribe.",
        answers::deny,
    ),
    f(
        "groups",
        &[v("names", "string[]", "Names of groups.")],
        ANSWER,
        "The client that connects belongs to these groups, too.",
        answers::groups,
    ),
    f(
        "requeue",
        &[],
        ANSWER,
        "The dead letter is sent to its client again, with what was set in it; with another topic: it is published there.",
        answers::requeue,
    ),
    f("publish", PARTS, ANSWER, "These messages are published besides. No plugin sees them.", answers::publish),
    f(
        "match",
        &[v("filter", "string", "A topic filter."), v("topic", "string", "A topic name.")],
        &[v("matches", "boolean", "Whether the filter matches the topic.")],
        "As subscriptions match: `+`, `#`, and `$` at the start.",
        answers::matches,
    ),
    f(
        "now",
        &[],
        &[v("ms", "integer", "Milliseconds since 1970, UTC.")],
        "The time of the call. It stands still during one.",
        time::now,
    ),
    f("log.debug", LINE, &[], "Writes a line to the server's log.", log::debug),
    f(
        "log.info",
        LINE,
        &[],
        "Writes a line to the server's log. So many a second are written; what is more is counted.",
        log::info,
    ),
    f("log.warn", LINE, &[], "Writes a warning to the server's log.", log::warn),
    f("log.error", LINE, &[], "Writes an error to the server's log.", log::error),
    f(
        "counter",
        &[v("name", "string", "`[a-z][a-z0-9_]*`, at most 64 bytes.")],
        &[v("counter", "postroad.Counter", "With `counter:add(n)`.")],
        "A number that only grows, shown among the server's metrics.",
        metrics::counter,
    ),
    f(
        "gauge",
        &[v("name", "string", "As of a counter.")],
        &[v("gauge", "postroad.Gauge", "With `gauge:set(x)`.")],
        "A number that goes up and down, shown among the server's metrics.",
        metrics::gauge,
    ),
    f(
        "store.get",
        &[v("key", "string", "The key.")],
        &[v("value", "string|number|boolean|nil", "What is stored, and not over.")],
        "What the plugin has stored on this shard. It outlives reloads, and not the process.",
        store::get,
    ),
    f(
        "store.set",
        &[
            v("key", "string", "The key."),
            v("value", "string|number|boolean", "The value."),
            v("ttl?", "number", "Seconds for which it is kept; for ever without."),
        ],
        &[v("is_stored", "boolean", "`false`: there is no room.")],
        "Stores a value.",
        store::set,
    ),
    f(
        "store.incr",
        &[
            v("key", "string", "The key."),
            v("by?", "integer", "1 without."),
            v("ttl?", "number", "Seconds for which a new one is kept; one that is there keeps its time."),
        ],
        &[v("value", "integer?", "The sum; `nil`: there is no room.")],
        "Adds to a whole number, from 0 on.",
        store::incr,
    ),
    f(
        "store.delete",
        &[v("key", "string", "The key.")],
        &[v("was_there", "boolean", "Whether there was one.")],
        "Deletes a value.",
        store::delete,
    ),
    Entry {
        name: "null",
        parameters: &[],
        results: &[],
        doc: "The null of JSON and MessagePack: a table can't hold `nil`.",
        since: "0.2",
        what: What::Null,
    },
    f(
        "array",
        &[v("table?", "table", "A table; a new one without.")],
        &[v("array", "table", "The same.")],
        "Marks a table as an array: without this, an empty one is written as an object.",
        data::array,
    ),
    f(
        "json.encode",
        &[v("value", "any", "Tables, texts in UTF-8, numbers, booleans, `postroad.null`.")],
        ENCODED,
        "Writes JSON. Keys are sorted, so equal values give equal texts.",
        json::encode,
    ),
    f(
        "json.decode",
        TEXT,
        DECODED,
        "Reads JSON. Whole numbers of 64 bits are exact; arrays are marked as such.",
        json::decode,
    ),
    f(
        "msgpack.encode",
        &[v("value", "any", "As for JSON; texts may be any bytes.")],
        ENCODED,
        "Writes MessagePack, each number as the shortest that is exact. Keys are sorted.",
        msgpack::encode,
    ),
    f("msgpack.decode", BYTES, DECODED, "Reads MessagePack.", msgpack::decode),
    f("crc32", BYTES, HASH, "CRC-32 as of Ethernet, gzip and PNG.", hashes::crc32),
    f("sha256", BYTES, &[v("digest", "string", "32 bytes; see `postroad.hex.encode`.")], "SHA-256.", hashes::sha256),
    f("fnv1a", BYTES, HASH, "FNV-1a of 64 bits, as a signed integer.", hashes::fnv1a),
    f("xxh64", XXH64, HASH, "XXH64, as a signed integer.", hashes::xxh64),
    f("hex.encode", BYTES, TEXT, "Two small digits for each byte.", encodings::hex_encode),
    f("hex.decode", TEXT, DECODED, "Bytes from digits of either case.", encodings::hex_decode),
    f("base64.encode", BYTES, TEXT, "Base64 of RFC 4648 with padding.", encodings::base64_encode),
    f("base64.decode", TEXT, DECODED, "Bytes from base64, with or without padding.", encodings::base64_decode),
    f(
        "time.utc",
        &[v("ms", "integer", "Milliseconds since 1970."), v("offset?", "integer", "Minutes east of Greenwich.")],
        &[v(
            "fields",
            "postroad.Time",
            "`year`, `month`, `day`, `hour`, `minute`, `second`, `millisecond`, `weekday` (1 is Monday).",
        )],
        "The parts of a time.",
        time::utc,
    ),
    f(
        "time.text",
        &[v("ms", "integer", "Milliseconds since 1970.")],
        &[v("text", "string", "Such as `2026-11-26T14:05:00Z`.")],
        "A time as people and JSON write it.",
        time::text,
    ),
];

/// Makes the table `postroad` in the table `globals`, and the types of objects. May raise: once, when a VM is made.
pub(crate) fn install(stack: Stack<'_>) -> Result<(), Fault> {
    install_types(stack);
    stack.push_reference(stack.host().kept.globals);
    let globals = stack.top();
    stack.push_table(0, 32);
    let root = stack.top();
    for group in groups() {
        stack.push_table(0, 4);
        let real = stack.top();
        for entry in ENTRIES.iter().filter(|entry| group_of(entry) == Some(group)) {
            push_entry(stack, entry);
            stack.raw_set_name(real, leaf_of(entry));
        }
        sandbox::freeze(stack, real);
        stack.raw_set_name(root, group);
        stack.set_top(root);
    }
    for entry in ENTRIES.iter().filter(|entry| group_of(entry).is_none()) {
        push_entry(stack, entry);
        stack.raw_set_name(root, entry.name);
    }
    sandbox::freeze(stack, root);
    stack.raw_set_name(globals, "postroad");
    stack.set_top(globals - 1);
    Ok(())
}

fn group_of(entry: &Entry) -> Option<&'static str> {
    entry.name.split_once('.').map(|(group, _)| group)
}

fn leaf_of(entry: &Entry) -> &'static str {
    entry.name.rsplit('.').next().unwrap_or(entry.name)
}

/// Each once: entries of a group stand together.
fn groups() -> impl Iterator<Item = &'static str> {
    let before = std::iter::once(None).chain(ENTRIES.iter().map(group_of));
    let of = ENTRIES.iter().map(group_of).zip(before);
    of.filter(|(group, before)| group != before).filter_map(|(group, _)| group)
}

fn push_entry(stack: Stack<'_>, entry: &Entry) {
    match entry.what {
        What::Function(function) => stack.push_function(function, 0),
        What::Null => stack.push_reference(stack.host().kept.null),
    }
}

/// A type of objects: its metatable, which scripts can't see. `methods`: what `__index` has.
fn push_type(stack: Stack<'_>, name: &str, methods: &[(&str, Function)]) {
    stack.push_table(0, 4);
    stack.push_bytes(name.as_bytes());
    stack.raw_set_name(-2, "__name");
    stack.push_boolean(false);
    stack.raw_set_name(-2, "__metatable");
    if !methods.is_empty() {
        stack.push_table(0, methods.len());
        for (name, function) in methods {
            stack.push_function(*function, 0);
            stack.raw_set_name(-2, name);
        }
        stack.raw_set_name(-2, "__index");
    }
}

fn install_types(stack: Stack<'_>) {
    push_type(stack, "postroad.Answer", &[]);
    stack.host().kept.answer_type = stack.keep();
    push_type(stack, "postroad.array", &[]);
    stack.host().kept.array_type = stack.keep();
    push_type(stack, "postroad.Counter", &[("add", metrics::add)]);
    stack.host().kept.counter_type = stack.keep();
    push_type(stack, "postroad.Gauge", &[("set", metrics::set)]);
    stack.host().kept.gauge_type = stack.keep();
    stack.push_userdata(1);
    push_type(stack, "postroad.null", &[]);
    stack.set_metatable(-2);
    stack.host().kept.null = stack.keep();
    fields::install(stack);
}

/// Whether the value's metatable is this one.
fn is_of_type(stack: Stack<'_>, index: i32, kept: crate::lua::Reference) -> bool {
    let index = stack.absolute(index);
    if !stack.push_metatable(index) {
        return false;
    }
    stack.push_reference(kept);
    let is_same = stack.identity(-1) == stack.identity(-2);
    stack.pop(2);
    is_same
}

/// `nil` and what is wrong, from the scratch.
fn nothing_but_scratch(stack: Stack<'_>) -> Returned {
    stack.push_nil();
    stack.push_scratch();
    Ok(2)
}

/// Puts a text into the scratch.
fn say(stack: Stack<'_>, text: std::fmt::Arguments<'_>) {
    use std::io::Write as _;
    let scratch = &mut stack.host().scratch;
    scratch.clear();
    scratch.write_fmt(text).expect("writing to memory never fails");
}

/// As [`say`], as a fault.
fn saying(stack: Stack<'_>, text: std::fmt::Arguments<'_>) -> Fault {
    say(stack, text);
    Fault::Scratch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_entry_is_complete_and_stands_once() {
        let mut names: Vec<&str> = ENTRIES.iter().map(|entry| entry.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
        let mut seen: Vec<&str> = groups().collect();
        seen.sort_unstable();
        assert!(seen.windows(2).all(|pair| pair[0] != pair[1]), "entries of a group stand together: {seen:?}");
        for entry in ENTRIES {
            assert!(entry.doc.ends_with('.') && !entry.since.is_empty(), "{entry:?}");
            let mut values = entry.parameters.iter().chain(entry.results);
            assert!(values.all(|value| value.doc.ends_with('.') && !value.kind.is_empty()), "{entry:?}");
        }
    }
}
