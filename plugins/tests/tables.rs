//! What is wrong with a plugin's table, before it handles traffic: with file and line.

mod common;

use common::*;
use expect_test::{Expect, expect};
use postroad_plugins::Limits;

fn check(text: &str, expected: Expect) {
    let said = match try_vm(&[("p", text)], &Limits::default()) {
        Ok(_) => "fine\n".to_owned(),
        Err(diagnostics) => lines(&diagnostics),
    };
    expected.assert_eq(&said);
}

#[test]
fn syntax() {
    check(
        "return {\n route = function(m)\n  if\n end }",
        expect![[r#"
        scripts/p.lua:4: unexpected symbol near 'end'
    "#]],
    );
    check(
        "return { route = function(m) goto nowhere end }",
        expect![[r#"
        scripts/p.lua:1: no visible label 'nowhere' for <goto> at line 1
    "#]],
    );
    check(
        "local x <const> = 1\nx = 2\nreturn {}",
        expect![[r#"
        scripts/p.lua:2: attempt to assign to const variable 'x'
    "#]],
    );
    check(
        &format!("return {}1{}", "(".repeat(300), ")".repeat(300)),
        expect![[r#"
        scripts/p.lua: C stack overflow
    "#]],
    );
}

#[test]
fn what_a_file_returns() {
    check(
        "",
        expect![[r#"
        scripts/p.lua: a plugin's file must return a table
    "#]],
    );
    check(
        "return 7",
        expect![[r#"
        scripts/p.lua: a plugin's file must return a table
    "#]],
    );
    check(
        "return {}",
        expect![[r#"
        fine
    "#]],
    );
    check(
        "\nerror('at load')",
        expect![[r#"
        scripts/p.lua:2: at load
    "#]],
    );
    check(
        "return require('x')",
        expect![[r#"
        scripts/p.lua:1: attempt to call a nil value (global 'require')
    "#]],
    );
    check(
        "while true do end",
        expect![[r#"
        scripts/p.lua:1: it took more than 20000000 instructions
    "#]],
    );
    check(
        "local t = {} while true do t[#t + 1] = {} end",
        expect![[r#"
        scripts/p.lua: not enough memory: the plugin holds 8388568 bytes of 8388608, all plugins 8413271 of 33554432, one block has 4194304 at most
    "#]],
    );
    check(
        "postroad.store.set('a', 1) return {}",
        expect![[r#"
        scripts/p.lua:1: the store is read-only while a plugin is loaded, in on_load, on_save and self-tests: they may be taken back
    "#]],
    );
}

#[test]
fn keys() {
    check(
        "return {\n  rout = function() end,\n}",
        expect![[r#"
        scripts/p.lua:2: rout: unknown key 'rout': did you mean 'route'?
    "#]],
    );
    check(
        "return {\n  on_publish = function() end,\n  priority = 7,\n}",
        expect![[r#"
        scripts/p.lua:2: on_publish: unknown key 'on_publish': known are description, priority, limits, on_connect, on_disconnect, on_subscribe, on_inbound, route, on_deliver, on_dead_letter, on_save, on_load, codec, test
    "#]],
    );
    check(
        "return { [7] = 1 }",
        expect![[r#"
        scripts/p.lua: a plugin's table has keys of text only
    "#]],
    );
    check(
        "return { description = 7 }",
        expect![[r#"
        scripts/p.lua:1: description: expected a text of 1,000 bytes at most, not a number
    "#]],
    );
    check(
        "return { priority = 1001 }",
        expect![[r#"
        scripts/p.lua:1: priority: expected a whole number from 0 to 1000
    "#]],
    );
    check(
        "return { priority = 'first' }",
        expect![[r#"
        scripts/p.lua:1: priority: expected a whole number from 0 to 1000
    "#]],
    );
    check(
        "return { codec = function() end }",
        expect![[r#"
        scripts/p.lua:1: codec: expected a table, not a function
    "#]],
    );
    check(
        "return { test = { 1 } }",
        expect![[r#"
        scripts/p.lua:1: test: expected functions under names, not a number
    "#]],
    );
    check(
        "return { on_save = {} }",
        expect![[r#"
        scripts/p.lua:1: on_save: expected a function, not a table
    "#]],
    );
}

#[test]
fn hooks() {
    check(
        "return { route = 'x' }",
        expect![[r#"
        scripts/p.lua:1: route: expected a function, or a table with 'run', not a string
    "#]],
    );
    check(
        "return { route = {} }",
        expect![[r#"
        scripts/p.lua:1: route: there is no function 'run'
    "#]],
    );
    check(
        "return { route = { run = 7 } }",
        expect![[r#"
        scripts/p.lua:1: route: there is no function 'run'
    "#]],
    );
    check(
        "return { route = { run = print or function() end, filter = { 'a' } } }",
        expect![[r#"
        scripts/p.lua:1: route: unknown key 'filter': did you mean 'filters'?
    "#]],
    );
    check(
        "return {\n  route = {\n    filters = { 'a/#/b', 'ok', 7, '$share/g/a' },\n    run = function() end } }",
        expect![[r#"
        scripts/p.lua:2: route: filter 1: wildcard in the wrong place: '+' must fill a level, '#' the last one
        scripts/p.lua:2: route: filter 3 is a number, not a text
        scripts/p.lua:2: route: filter 4: a plugin shares with nobody: leave out '$share/…/'
    "#]],
    );
    check(
        "return { route = { filters = {}, run = function() end } }",
        expect![[r#"
        scripts/p.lua:1: route: 'filters' must be an array of 1 to 1000 topic filters
    "#]],
    );
    check(
        "return { route = { filters = 'a/#', run = function() end } }",
        expect![[r#"
        scripts/p.lua:1: route: 'filters' must be an array of 1 to 1000 topic filters
    "#]],
    );
    check(
        "return { on_connect = { filters = { 'a' }, run = function() end } }",
        expect![[r#"
        scripts/p.lua:1: on_connect: this hook is about no topic: it has no filters
    "#]],
    );
    check(
        "return { route = { on_error = 'shut', run = function() end } }",
        expect![[r#"
        scripts/p.lua:1: route: 'on_error' must be "open" or "closed"
    "#]],
    );
}

#[test]
fn limits_can_only_be_lowered() {
    check(
        "return { limits = { instructions = 1000, memory_bytes = 100000 } }",
        expect![[r#"
        fine
    "#]],
    );
    check(
        "return { limits = { instructions = 1e9 } }",
        expect![[r#"
        scripts/p.lua:1: limits: 'instructions' must be a whole number from 1 to 200000: plugins can only lower the server's limits
    "#]],
    );
    check(
        "return { limits = { instrutions = 10 } }",
        expect![[r#"
        scripts/p.lua:1: limits: unknown key 'instrutions': did you mean 'instructions'?
    "#]],
    );
    check(
        "return { limits = { millis = 0 } }",
        expect![[r#"
        scripts/p.lua:1: limits: 'millis' must be a whole number from 1 to 20: plugins can only lower the server's limits
    "#]],
    );
    let mut vm = vm("return { limits = { instructions = 5000 }, route = function() while true do end end }");
    publish(&mut vm, "a", "");
    assert!(failures(&mut vm).contains("more than 5000 instructions"));
}

#[test]
fn all_flaws_of_all_files_are_said_at_once() {
    let Err(diagnostics) =
        try_vm(&[("a", "return {"), ("b", "return { x = 1 }"), ("c", "return {}")], &Limits::default())
    else {
        panic!("it is wrong");
    };
    expect![[r#"
        scripts/a.lua:1: unexpected symbol near <eof>
        scripts/b.lua:1: x: unknown key 'x': known are description, priority, limits, on_connect, on_disconnect, on_subscribe, on_inbound, route, on_deliver, on_dead_letter, on_save, on_load, codec, test
    "#]].assert_eq(&lines(&diagnostics));
}
