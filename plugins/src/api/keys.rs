//! The keys of a plugin's table, of a hook's table, and of a codec's, for editors and the reference. What reads them is `plugin`; a test compares both.

/// A key of a table that a plugin returns.
#[derive(Clone, Copy, Debug)]
pub struct TableKey {
    /// Its name.
    pub name: &'static str,
    /// Its type, as language servers read it.
    pub kind: &'static str,
    /// What it is for.
    pub doc: &'static str,
}

const fn k(name: &'static str, kind: &'static str, doc: &'static str) -> TableKey {
    TableKey { name, kind, doc }
}

/// Keys of the plugin's table, in the order of the reference.
pub static PLUGIN_KEYS: &[TableKey] = &[
    k("description", "string?", "What the plugin is for, in a line: shown by `postroad plugin list`."),
    k(
        "priority",
        "integer?",
        "0 to 1000, 500 without: plugins with smaller ones are asked first, equal ones by their names.",
    ),
    k("limits", "postroad.Limits?", "Limits below those of the server."),
    k(
        "on_connect",
        "postroad.Hook<postroad.Client>?",
        "A client wants to connect. Returns nothing, `postroad.deny(…)` or `postroad.groups(…)`. If it fails, the client is refused.",
    ),
    k(
        "on_disconnect",
        "postroad.Hook<postroad.Gone>?",
        "A connection is over. Returns nothing, or `postroad.publish(…)`.",
    ),
    k(
        "on_subscribe",
        "postroad.Hook<postroad.Subscription>?",
        "A client wants to subscribe. Returns nothing or `postroad.deny(…)`, or sets `qos`. If it fails, the subscription is refused.",
    ),
    k(
        "on_inbound",
        "postroad.Hook<postroad.Message>?",
        "A client publishes a message (not an application, by the API). All `on_inbound` are asked before all `route`.",
    ),
    k(
        "route",
        "postroad.Hook<postroad.Message>?",
        "A message is published. What is set in it goes on; an answer may drop, refuse, park or split it.",
    ),
    k(
        "on_deliver",
        "postroad.DeliverHook?",
        "A message is about to be given to clients of a shard: a table `{ [place] = false }` leaves those out. Once for each message and shard.",
    ),
    k(
        "on_dead_letter",
        "postroad.Hook<postroad.Letter>?",
        "A delivery has become a dead letter. Returns nothing (it stays), `postroad.requeue()`, `postroad.drop(…)` or `postroad.park(…)`.",
    ),
    k("on_save", "(fun(): any)?", "Gives plain data to the next version of the plugin."),
    k(
        "on_load",
        "(fun(previous: any, from_version: string?))?",
        "Takes what `on_save` of the version before gave, and that version's hash; at a first start `nil`. The store can't be written meanwhile.",
    ),
    k("codec", "table?", "A frame format of the plugin's own, for listeners that name it."),
    k(
        "test",
        "table<string, fun()>?",
        "Self-tests: run before a reload replaces anything. One fails if it raises an error.",
    ),
];

/// Keys of a hook's table: a hook is this, or just the function.
pub static HOOK_KEYS: &[TableKey] = &[
    k("run", "function", "The hook."),
    k(
        "filters",
        "string[]?",
        "Topic filters, matched before Lua is entered: only what one of them matches is shown to the hook. Without: each topic that does not begin with `$`.",
    ),
    k(
        "on_error",
        "(\"open\"|\"closed\")?",
        "What holds if the hook fails: `open`, as if it was not there, or `closed`, the safe refusal. `open` without, but for `on_connect` and `on_subscribe`.",
    ),
];

/// Keys of `limits`.
pub static LIMIT_KEYS: &[TableKey] = &[
    k("instructions", "integer?", "Instructions of one call."),
    k("load_instructions", "integer?", "Instructions of loading, `on_load`, `on_save` and each self-test."),
    k("millis", "integer?", "Milliseconds of one call."),
    k("load_millis", "integer?", "Milliseconds of loading, `on_load`, `on_save` and each self-test."),
    k("memory_bytes", "integer?", "Bytes of memory that the plugin holds on a shard."),
    k("allocated_bytes", "integer?", "Bytes that one call asks for, whether it gives them back or not."),
    k("block_bytes", "integer?", "Bytes of one string, or one part of a table."),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin;

    #[test]
    fn each_key_that_is_read_is_told_and_no_other() {
        let pairs: [(&[TableKey], &[&str]); 3] =
            [(PLUGIN_KEYS, plugin::KEYS), (HOOK_KEYS, plugin::HOOK_KEYS), (LIMIT_KEYS, plugin::LIMIT_KEYS)];
        for (told, read) in pairs {
            let mut told: Vec<&str> = told.iter().map(|key| key.name).collect();
            let mut read = read.to_vec();
            told.sort_unstable();
            read.sort_unstable();
            assert_eq!(told, read);
        }
    }
}
