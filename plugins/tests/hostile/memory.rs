//! Memory: what is held, what is thrown away, and one block.

use super::{check, check_vm, hostile_file};

const OVER: &str = "route: it took more than 200000 instructions";

#[test]
fn what_is_built_and_held() {
    check("local t = {} for i = 1, 1e9 do t[i] = { i, { i } } end", OVER);
    check("local t = {} while true do t[#t + 1] = ('x'):rep(100000) .. #t end", "not enough memory");
    check("local s = 'x' while true do s = s .. s end", "not enough memory");
    check("local t = {} for i = 1, 1e6 do t[i] = i end", OVER);
    check("local t = {} while true do t = setmetatable({}, { __index = t }) end", OVER);
    check("return postroad.json.decode('[' .. ('[],'):rep(250000) .. '[]]')", OVER);
    check(
        "local t = { ('x'):rep(1000) } for i = 1, 30 do t = { t, t } end return postroad.json.encode(t) or error('large')",
        "large",
    );
}

#[test]
fn what_is_built_and_thrown_away() {
    check("while true do local s = ('x'):rep(10000) end", OVER);
    check("local s = ('x'):rep(1e6) while true do local t = s .. 'x' end", "it asked for more than 67108864 bytes");
    check("while true do local t = { {}, {}, {} } end", OVER);
}

#[test]
fn a_plugin_that_is_full_stays_so_and_harms_nobody() {
    let mut vm = hostile_file(
        "local hoard = {}
         return { route = function() while true do hoard[#hoard + 1] = ('x'):rep(100000) .. #hoard end end }",
    );
    check_vm(&mut vm, "not enough memory: the plugin holds");
}

#[test]
fn the_limit_can_t_be_caught() {
    check(
        "local t = {} while true do pcall(function() t[#t + 1] = ('x'):rep(100000) .. #t end) end",
        "not enough memory",
    );
    check("while true do pcall(string.pack, 'c1000000000', 'x') end", "not enough memory");
    check(
        "local t = {} local co = coroutine.wrap(function() while true do t[#t + 1] = ('x'):rep(100000) .. #t end end) while true do pcall(co) end",
        "not enough memory",
    );
}

#[test]
fn coroutine_bombs() {
    check("local t = {} for i = 1, 1e9 do t[i] = coroutine.create(function() end) end", OVER);
    check(
        "local t = {} for i = 1, 1e9 do t[i] = coroutine.wrap(function(...) coroutine.yield(...) end) t[i](table.unpack({}, 1, 5000)) end",
        "not enough memory",
    );
}

/// What was refused for good was given when Lua asked once more.
#[test]
fn what_is_refused_is_not_given() {
    let mut vm = hostile_file(
        "local granted = 0
         return { limits = { block_bytes = 200 }, route = function()
             if granted > 0 then error('granted') end
             local s = ('x'):rep(150)
             local t = s .. s
             granted = 1
         end }",
    );
    check_vm(&mut vm, "not enough memory");
}

/// The stack of the main coroutine is the host's, and does not count as a block of the plugin that runs.
#[test]
fn what_is_the_hosts_is_not_held_against_a_plugin() {
    let mut vm = hostile_file(
        "local function deep(n) if n == 0 then return 0 end return 1 + deep(n - 1) end
         return { limits = { block_bytes = 4000 }, route = function() deep(190) end }",
    );
    crate::publish(&mut vm, "a", "hello");
    assert_eq!(crate::failures(&mut vm), "");
}

/// Lua's buffers ask for memory without a collection of garbage before: what is full of garbage is not full.
#[test]
fn buffers_find_room_where_there_is_garbage() {
    for build in
        ["s:upper()", "('%s|'):format(s)", "string.pack('s4', s)", "table.concat({ s, s })", "s:gsub('x', 'y', 3)"]
    {
        for garbage in 1..8 {
            let mut vm = hostile_file(&format!(
                "local s = ('x'):rep(150000)
                 return {{ limits = {{ memory_bytes = 1000000 }}, route = function()
                     for i = 1, {garbage} do local t = s .. i end
                     local built = {build}
                 end }}"
            ));
            for _ in 0..5 {
                crate::publish(&mut vm, "a", "hello");
                assert_eq!(crate::failures(&mut vm), "", "{build} behind {garbage} strings");
            }
        }
    }
}

/// One string of Lua's can stand in many places; what is read for Rust is a copy each time.
#[test]
fn what_is_handed_over_has_a_bound_of_bytes() {
    let mut vm = hostile_file(
        "return { on_save = function()
             local s, t = ('x'):rep(4000000), {}
             for i = 1, 100000 do t[i] = s end
             return t
         end }",
    );
    let error = vm.save(crate::NOW).expect_err("too much").to_string();
    assert!(error.contains("too many bytes"), "{error}");
}

#[test]
fn what_is_set_in_a_message_has_a_bound_of_bytes() {
    const OVER: &str = "its messages have more than 4194304 bytes";
    check("local v = ('x'):rep(65000) for i = 1, 256 do message:set_property(v:sub(5) .. i, v) end", OVER);
    check(
        "message.payload = ('x'):rep(3e6 // 1 | 0) message:also { topic = 'x', payload = ('x'):rep(2e6 // 1 | 0) }",
        OVER,
    );
    check(
        "local v, t = ('x'):rep(65000), {} for i = 1, 100 do t['p' .. i] = v end message:also { topic = 'x', properties = t }",
        OVER,
    );
    assert_eq!(
        crate::says("local text, why = postroad.json.encode(('\\1'):rep(2000000)) return tostring(text) .. why"),
        "nilthe result is too large"
    );
}
