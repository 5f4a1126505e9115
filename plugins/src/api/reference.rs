//! The API as a page for people: `docs/plugin-reference.md`.

use std::fmt::Write as _;

use super::{ENTRIES, Entry, FIELDS, HOOK_KEYS, LIMIT_KEYS, METHODS, Method, Of, PLUGIN_KEYS, TableKey, Value};
use crate::sandbox;

const HEAD: &str = "# Plugins: reference

What a plugin's file returns, what its hooks are given, and what stands below `postroad`. This page is made from the table that installs all of it (`plugins/src/api/`):
`POSTROAD_BLESS=1 cargo test -p postroad generated`. The tools of an author are told in [plugin-tools.md](plugin-tools.md).

";

/// The whole page.
pub fn reference() -> String {
    let mut out = HEAD.to_owned();
    push_keys(&mut out, "## The plugin's table", PLUGIN_KEYS);
    push_keys(&mut out, "### A hook's table\n\nA hook is a function, or a table with it.", HOOK_KEYS);
    push_keys(
        &mut out,
        "### `limits`\n\nA plugin can lower the server's limits (`plugins.*`), not raise them.",
        LIMIT_KEYS,
    );
    push_fields(&mut out);
    push_methods(&mut out);
    out += "## Functions\n\n";
    ENTRIES.iter().for_each(|entry| push_entry(&mut out, entry));
    push_libraries(&mut out);
    out
}

/// A bar would end the cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to memory never fails");
    out.push('\n');
}

fn push_keys(out: &mut String, head: &str, keys: &[TableKey]) {
    line(out, format_args!("{head}\n\n| key | type | |\n|---|---|---|"));
    for TableKey { name, kind, doc } in keys {
        line(out, format_args!("| `{name}` | `{}` | {} |", cell(kind), cell(doc)));
    }
    out.push('\n');
}

/// Where a field is, by the names of the hooks.
const OBJECTS: [(Of, &str); 6] = [
    (Of::MESSAGE, "message"),
    (Of::LETTER, "letter"),
    (Of::CONNECT, "client"),
    (Of::GONE, "gone"),
    (Of::SUBSCRIPTION, "subscription"),
    (Of::PART, "part"),
];

fn places(of: Of) -> String {
    let names: Vec<&str> = OBJECTS.iter().filter(|(one, _)| of.has(*one)).map(|(_, name)| *name).collect();
    names.join(", ")
}

fn push_fields(out: &mut String) {
    *out += "## Fields of what hooks are given\n\nA *message* is given to `on_inbound`, `route` and `on_deliver` (where nothing can be set), a *letter* to `on_dead_letter`, a *client* to \
             `on_connect`, one that is *gone* to `on_disconnect`, a *subscription* to `on_subscribe`. A *part* is a table that stands for a message, in `split`, `publish` and `also`. \
             Used after its call, each of them raises an error.\n\n| field | type | read in | set in | |\n|---|---|---|---|---|\n";
    for field in FIELDS {
        let (read, set) = (places(field.read), places(field.set));
        line(out, format_args!("| `{}` | `{}` | {read} | {set} | {} |", field.name, cell(field.kind), cell(field.doc)));
    }
    out.push('\n');
}

fn push_methods(out: &mut String) {
    *out += "## Methods\n\n";
    for Method { name, parameters, results, doc, of } in METHODS {
        let names: Vec<&str> = parameters.iter().map(|value| value.name).collect();
        line(out, format_args!("### `message:{name}({})`\n\n{doc} Of: {}.\n", names.join(", "), places(*of)));
        push_values(out, parameters, results);
    }
}

fn push_entry(out: &mut String, entry: &Entry) {
    line(out, format_args!("### `{}`\n\n{}\n", entry.signature(), entry.doc));
    push_values(out, entry.parameters, entry.results);
}

fn push_values(out: &mut String, parameters: &[Value], results: &[Value]) {
    for (word, values) in [("", parameters), ("gives ", results)] {
        for Value { name, kind, doc } in values {
            line(out, format_args!("- {word}`{name}`: `{kind}`. {doc}"));
        }
    }
    if !parameters.is_empty() || !results.is_empty() {
        out.push('\n');
    }
}

fn push_libraries(out: &mut String) {
    *out += "## Lua's own\n\nLua 5.4, and of its libraries what is named here: no files, no processes, no loading of code.\n\n";
    let mut groups: Vec<(Option<&str>, Vec<String>)> = Vec::new();
    for (library, name) in sandbox::names() {
        if groups.last().is_none_or(|(last, _)| *last != library) {
            groups.push((library, Vec::new()));
        }
        let names = &mut groups.last_mut().expect("just put there").1;
        names.push(format!("`{name}`"));
    }
    for (library, names) in groups {
        line(
            out,
            format_args!("- {}: {}", library.map_or("basic".to_owned(), |name| format!("`{name}`")), names.join(", ")),
        );
    }
}
