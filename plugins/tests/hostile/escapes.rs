//! Ways out of the sandbox.

use super::{check, hostile_file, says};
use crate::common::*;
use postroad_plugins::{Limits, PluginName, Set, Source};

#[test]
fn what_is_not_on_the_list_is_not_there() {
    let names = "load loadstring loadfile dofile require io os debug package print module setfenv getfenv newproxy unpack jit ffi warn";
    for name in names.split(' ') {
        assert_eq!(says(&format!("return _G.{name}")), "nil", "{name}");
        assert_eq!(says(&format!("return {name}")), "nil", "{name}");
    }
    assert_eq!(says("return string.dump"), "nil");
    assert_eq!(says("return ('').dump"), "nil");
}

#[test]
fn everything_that_is_there_is_on_the_list() {
    // Whatever a script can reach by walking over tables from its environment, by name.
    let found = says(
        "local seen, names = {}, {}
         local function walk(t, path)
             if seen[t] then return end
             seen[t] = true
             for k, v in next, t do
                 names[#names + 1] = path .. tostring(k)
                 if type(v) == 'table' then walk(v, path .. tostring(k) .. '.') end
             end
         end
         walk(_G, '')
         table.sort(names)
         return table.concat(names, ' ')",
    );
    expect_test::expect!["_G _VERSION assert collectgarbage coroutine error getmetatable ipairs math next pairs pcall postroad rawequal rawget rawlen rawset select setmetatable string table tonumber tostring type utf8 xpcall"].assert_eq(&found);
}

#[test]
fn bytecode_of_an_author_is_refused() {
    let limits = Limits::default();
    let name = PluginName::new("p").expect("a name");
    for text in ["\u{1b}Lua", "\u{1b}LuaT\0\u{19}\u{93}\r\n\u{1a}\n"] {
        let set = Set::from_sources(vec![Source::new(name.clone(), "p.lua", text)]).expect("a set");
        let errors = lines(&set.compile(&limits).expect_err("refused"));
        assert!(errors.contains("attempt to load a binary chunk"), "{errors}");
    }
}

#[test]
fn metatables_of_what_is_shared_are_hidden() {
    for value in [
        "''",
        "string",
        "math",
        "postroad",
        "postroad.log",
        "message",
        "postroad.null",
        "postroad.drop()",
        "postroad.array {}",
    ] {
        assert_eq!(says(&format!("return getmetatable({value})")), "false", "{value}");
        check(&format!("setmetatable({value}, {{}})"), "route: ");
    }
    check("setmetatable(string, nil)", "cannot change a protected metatable");
    check("setmetatable(postroad.drop(), {})", "cannot change a protected metatable");
}

#[test]
fn what_is_shared_can_t_be_changed() {
    for target in ["string", "table", "math", "utf8", "coroutine", "postroad", "postroad.store", "postroad.log"] {
        check(&format!("{target}.x = 1"), "this table is read-only");
        check(&format!("rawset({target}, 'x', 1)"), "this table is read-only");
        check(&format!("table.insert({target}, 1)"), "this table is read-only");
        check(&format!("table.move({{ 1 }}, 1, 1, 1, {target})"), "this table is read-only");
    }
    check("('').x = 1", "attempt to index a string value");
    check("string.format = nil", "this table is read-only");
}

#[test]
fn an_environment_is_a_plugins_own() {
    let mut vm = hostile_file(
        "leak = 1
         local env = _G
         for name in next, env do if name ~= 'error' then env[name] = nil end end
         return { route = function() error('done') end }",
    );
    super::check_vm(&mut vm, "done");
}

#[test]
fn finalizers_and_weak_tables_are_refused() {
    check("setmetatable({}, { __gc = function() end })", "'__gc' or '__mode' is refused");
    check("setmetatable({}, { __gc = true })", "'__gc' or '__mode' is refused");
    check("setmetatable({}, { __mode = 'k' })", "'__gc' or '__mode' is refused");
    // Lua marks an object as one to finalize when it gets its metatable, not later.
    check(
        "local meta = {}
         for i = 1, 100 do setmetatable({}, meta) end
         meta.__gc = function() while true do end end
         for i = 1, 10000 do local t = {} end
         error('done')",
        "done",
    );
}

/// A weak table would lose what only it holds: `setmetatable` can be asked first, and the field set later.
#[test]
fn a_table_can_t_be_made_weak_later() {
    let script = |mode: &str| {
        format!(
            "local meta, ephemerons = {{}}, {{}}
             setmetatable(ephemerons, meta)
             meta.__mode = '{mode}'
             return {{ route = function(message)
                 for i = 1, 100 do ephemerons[{{}}] = {{}} end
                 local count = 0
                 for _ in next, ephemerons do count = count + 1 end
                 message.payload = tostring(count)
             end }}"
        )
    };
    for mode in ["k", "v", "kv"] {
        let mut vm = vm_with(&[("bad", &script(mode))], &super::limits());
        for expected in ["100", "200", "300"] {
            vm.collect_garbage();
            let answer = publish(&mut vm, "a", "hello");
            assert_eq!(show(&answer), format!("replace\n  a \"{expected}\""), "{mode}");
        }
    }
}

#[test]
fn objects_take_no_other_self() {
    check("postroad.counter('c').add({}, 1)", "call it as object:method(…)");
    check("postroad.counter('c').add(postroad.gauge('g'), 1)", "call it as object:method(…)");
    check("postroad.counter('c').add(message, 1)", "call it as object:method(…)");
}

#[test]
fn a_message_is_nothing_after_its_call() {
    let mut vm = hostile_file(
        "local stash
         return {
             route = function(message) stash = message error('stashed') end,
             test = { late = function() return stash.topic end, set = function() stash.topic = 'x' end,
                      method = function() stash:also { topic = 'x' } end },
         }",
    );
    super::check_vm(&mut vm, "stashed");
    let outcomes = vm.self_test(NOW);
    assert_eq!(outcomes.len(), 3);
    for outcome in outcomes {
        let failure = outcome.failure.expect("it fails").to_string();
        assert!(failure.contains("the object is used after its call"), "{failure}");
    }
}

/// There is one object for each VM: kept beyond its call it is the later call's, with what that call may see and set.
#[test]
fn a_message_that_was_kept_is_that_of_the_later_call() {
    let mut vm = hostile_file(
        "local stash
         return { route = function(message)
             stash = stash or message
             error(stash.topic .. ' ' .. tostring(stash == message))
         end }",
    );
    for topic in ["first", "second"] {
        publish(&mut vm, topic, "hello");
        assert!(failures(&mut vm).contains(&format!("{topic} true")));
    }
}
