//! Functions of C that no hook sees.

use super::{check, says};

const OVER: &str = "route: it took more than 200000 instructions";

#[test]
fn patterns_that_backtrack() {
    check("return ('a'):rep(60):find(('a-'):rep(30) .. 'b')", OVER);
    check("return ('a'):rep(60):match(('a*'):rep(30) .. 'b')", OVER);
    check("return ('a'):rep(60):gsub(('.-'):rep(30) .. 'b', '')", OVER);
    check("for x in ('a'):rep(60):gmatch(('a?'):rep(60) .. ('a'):rep(60) .. 'b') do end", OVER);
    check("return ('a'):rep(100000):find('.-b')", OVER);
    check("return ('('):rep(100000):find('%b()')", OVER);
    check("return ('a'):rep(100000):find(('[' .. ('x'):rep(5000) .. ']'):rep(10))", OVER);
    check("return ('a'):rep(1e6):find(('a'):rep(5e5) .. 'b', 1, true)", OVER);
    check("while true do pcall(string.find, ('a'):rep(60), ('a-'):rep(30) .. 'b') end", OVER);
}

#[test]
fn texts_that_are_too_long() {
    check("return ('x'):rep(1e9)", "resulting string too large");
    check("return ('x'):rep(math.maxinteger)", "resulting string too large");
    check("while true do local x = ('x'):rep(1e6) end", "");
    check("return ('%99999d'):format(1)", "invalid conversion");
    check("local s = ('x'):rep(1e6) while true do local t = s:upper() end", "");
    check("local t = {} for i = 1, 8 do t[i] = ('x'):rep(1e6) end return table.concat(t)", "");
    check("local s = ('x'):rep(1000) return s:gsub('x', s):gsub('x', s)", "");
    check("return ('').rep('', 1e18, 'x')", "resulting string too large");
    check("return string.pack('c1000000000', 'x')", "not enough memory");
    check("return (' '):rep(1e6):gsub(' ', '%0%0%0%0%0%0')", "");
    check("return string.byte(('x'):rep(1e6), 1, 1e9)", "string slice too long");
    check("return utf8.codepoint(('x'):rep(1e6), 1, 1e6)", "string slice too long");
    check("return utf8.char(table.unpack({}, 1, 9000))", "too many results to unpack");
}

#[test]
fn repeating_nothing_takes_no_time() {
    assert_eq!(says("return #(''):rep(math.maxinteger)"), "0");
    assert_eq!(says("return #('x'):rep(0) + #('x'):rep(-5)"), "0");
}

#[test]
fn lengths_that_lie() {
    let lying = "local t = setmetatable({}, { __len = function() return 1e15 // 1 | 0 end, __index = function() return 'x' end })";
    check(&format!("{lying} table.insert(t, 1, 'x')"), OVER);
    check(&format!("{lying} table.remove(t, 1)"), OVER);
    check(&format!("{lying} return table.concat(t)"), OVER);
    check(&format!("{lying} return table.unpack(t)"), "too many results to unpack");
    check(&format!("{lying} table.sort(t)"), "array too big");
    check(
        "local t = setmetatable({}, { __len = function() return 2e9 // 1 | 0 end, __index = rawlen }) table.sort(t)",
        "",
    );
    check(
        "local t = setmetatable({}, { __len = function() return 'x' end }) table.insert(t, 1)",
        "object length is not an integer",
    );
    check("table.move({}, 1, 1e15 // 1 | 0, 2)", OVER);
    check("table.move({}, math.mininteger, math.maxinteger, 2)", "too many elements to move");
    check("table.move({}, 1, 10, math.maxinteger)", "destination wrap around");
    check("table.concat({}, 'x', 1, 1e15 // 1 | 0)", "invalid value");
    check("table.concat(setmetatable({}, { __index = string.len }), '', 1, 1e15 // 1 | 0)", "");
}

#[test]
fn orders_that_contradict_themselves() {
    check(
        "local t = {} for i = 1, 1000 do t[i] = i end table.sort(t, function() return true end) error('sorted')",
        "sorted",
    );
    check("local t = {} for i = 1, 100000 do t[i] = -i end table.sort(t, function(a, b) return a < b end)", OVER);
    check(
        "local t = {} for i = 1, 1000 do t[i] = i end table.sort(t, function(a, b) t = {} return a > b end) error('sorted')",
        "sorted",
    );
    check("table.sort({ 1, 2, 'x' })", "attempt to compare");
    assert_eq!(says("local t = { 5, 2, 8, 1, 9, 3 } table.sort(t, function() return true end) return #t"), "6");
}

#[test]
fn many_values() {
    check(
        "local function f(...) return select('#', ...) end local t = {} return f(table.unpack(t, 1, 1e7))",
        "too many results to unpack",
    );
    check("local t = {} while true do t = { table.unpack(t, 1, 8000) } end", "");
    check("while true do string.byte(('x'):rep(8000), 1, -1) end", "");
}

#[test]
fn log_and_metrics_are_bounded() {
    check("for i = 1, 1000 do postroad.log.info('x') end while true do postroad.log.info('x') end", OVER);
    check("for i = 1, 100 do postroad.counter('c' .. i) end", "too many names of counters and gauges");
    check("postroad.counter(('c'):rep(65))", "expected a name");
    check("postroad.counter('c'):add(-1)", "a counter only grows");
    check("for i = 1, 1e9 do postroad.store.set('k' .. i, ('x'):rep(1000)) end", OVER);
    assert_eq!(
        says(
            "local n = 0 for i = 1, 2500 do if postroad.store.set('k' .. i, ('x'):rep(2000)) then n = n + 1 end end return n < 2100 and n > 2000"
        ),
        "true"
    );
}
