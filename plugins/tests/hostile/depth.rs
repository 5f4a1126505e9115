//! Too deep: the stack of Lua, and that of C.

use super::check;

#[test]
fn recursion_of_scripts() {
    check("local function f() return 1 + f() end f()", "functions call each other more than 5000 levels deep");
    // Each call copies what the one before was given, in one instruction: the clock is what bounds this, and here a lower limit.
    let mut vm = super::hostile_file(
        "return { limits = { instructions = 20000 }, route = function() local function f(...) return f(1, ...) end f() end }",
    );
    super::check_vm(&mut vm, "it took more than 20000 instructions");
    check("local function f() pcall(f) return f() + 1 end f()", "");
}

#[test]
fn recursion_through_c() {
    check("local function f() return ('x'):gsub('x', f) end f()", "C stack overflow");
    check("local function f() table.sort({ 1, 2, 3 }, f) end f()", "C stack overflow");
    check(
        "local t = setmetatable({}, {}) getmetatable(t).__index = function(t, k) return t[k] end return t.x",
        "C stack overflow",
    );
    check("local t = setmetatable({}, {}) getmetatable(t).__tostring = tostring tostring(t)", "C stack overflow");
    check(
        "local t = setmetatable({}, {}) getmetatable(t).__lt = function(a, b) return a < b end return t < t",
        "C stack overflow",
    );
    check("local function f() return pcall(f) end f() while true do end", "more than 200000 instructions");
}

#[test]
fn deep_texts() {
    check("return postroad.json.decode(('['):rep(100000)) or error('refused')", "refused");
    check("return postroad.msgpack.decode(('\\x91'):rep(100000)) or error('refused')", "refused");
    check(
        "local t = {} for i = 1, 1000 do t = { t } end return postroad.json.encode(t) or error('refused')",
        "refused",
    );
    check("local t = {} t.t = t return postroad.msgpack.encode(t) or error('refused')", "refused");
    check("return ('x'):find(('('):rep(1000))", "too many captures");
    check("return ('x'):rep(1000):find(('x?'):rep(1000) .. ('x'):rep(1000))", "pattern too complex");
}
