//! Memory: what is held, what is thrown away, and one block.

use super::{check, check_vm, hostile_file};

#[test]
fn what_is_built_and_held() {
    check("local t = {} for i = 1, 1e9 do t[i] = { i, { i } } end", "");
    check("local t = {} while true do t[#t + 1] = ('x'):rep(100000) .. #t end", "not enough memory");
    check("local s = 'x' while true do s = s .. s end", "not enough memory");
    check("local t = {} for i = 1, 1e6 do t[i] = i end", "");
    check("local t = {} while true do t = setmetatable({}, { __index = t }) end", "");
    check("return postroad.json.decode('[' .. ('[],'):rep(60000) .. '[]]')", "");
    check(
        "local t = { ('x'):rep(1000) } for i = 1, 30 do t = { t, t } end return postroad.json.encode(t) or error('large')",
        "",
    );
}

#[test]
fn what_is_built_and_thrown_away() {
    check("while true do local s = ('x'):rep(10000) end", "");
    check("local s = ('x'):rep(1e6) while true do local t = s .. 'x' end", "it asked for more than 67108864 bytes");
    check("while true do local t = { {}, {}, {} } end", "");
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
    check("local t = {} for i = 1, 1e9 do t[i] = coroutine.create(function() end) end", "");
    check(
        "local t = {} for i = 1, 1e9 do t[i] = coroutine.wrap(function(...) coroutine.yield(...) end) t[i](table.unpack({}, 1, 5000)) end",
        "",
    );
}
