//! Scripts that do not end.

use super::check;

const OVER: &str = "route: it took more than 200000 instructions";

#[test]
fn an_endless_loop() {
    check("while true do end", OVER);
    check("goto here ::here:: local x = 1 repeat until false", OVER);
    check("for i = 1, math.huge do end", OVER);
}

#[test]
fn the_limit_can_t_be_caught() {
    check("while true do pcall(function() while true do end end) end", OVER);
    check("local f f = function() pcall(f) while true do end end f()", OVER);
    check("while true do xpcall(function() while true do end end, function() end) end", OVER);
    check("pcall(pcall, pcall, function() while true do end end) while true do end", OVER);
    check("local ok, e = pcall(function() while true do end end) error(e)", OVER);
}

#[test]
fn handlers_that_loop() {
    check("xpcall(error, function() while true do end end)", OVER);
    check("xpcall(function() while true do end end, function() while true do end end)", OVER);
    check("local function handler() error('again') end while true do xpcall(error, handler) end", OVER);
}

#[test]
fn closing_what_is_open_takes_no_more() {
    check(
        "local function spin() while true do end end
         local closing = setmetatable({}, { __close = spin })
         local function open() local a <close> = closing local b <close> = closing local c <close> = closing while true do end end
         open()",
        OVER,
    );
    check(
        "local closing = setmetatable({}, { __close = function() pcall(function() while true do end end) end })
         for _ in next, {}, nil, closing do end
         local function dive(n) local a <close> = closing if n > 0 then dive(n - 1) end while true do end end
         dive(1000)",
        OVER,
    );
}

#[test]
fn metamethods_that_loop() {
    check("local t = setmetatable({}, { __index = function(t, k) while true do end end }) return t.x", OVER);
    check("local t t = setmetatable({}, { __concat = function() while true do end end }) return t .. 'x'", OVER);
    check("local t = setmetatable({}, { __len = function() while true do end end }) table.insert(t, 1)", OVER);
    check(
        "local t = setmetatable({}, { __eq = function() while true do end end }) return t == setmetatable({}, getmetatable(t))",
        OVER,
    );
    check("local t = setmetatable({}, { __tostring = function() while true do end end }) tostring(t)", OVER);
    check("local t = setmetatable({}, { __pairs = function() while true do end end }) pairs(t)", OVER);
}

#[test]
fn chains_of_tables_end_by_themselves() {
    check("local t = {} setmetatable(t, { __index = t }) return t.x.y", "'__index' chain too long");
    check("local t = {} setmetatable(t, { __newindex = t }) t.x = 1", "'__newindex' chain too long");
}
