//! Error objects: the host asks them nothing.

use super::check;

#[test]
fn objects_whose_text_fails_or_loops() {
    check("error(setmetatable({}, { __tostring = function() error('no') end }))", "an error that is a table");
    check("error(setmetatable({}, { __tostring = function() while true do end end }))", "an error that is a table");
    check("error(setmetatable({}, { __tostring = function() return 7 end, __name = {} }))", "an error that is a table");
    check(
        "error(setmetatable({}, { __index = function() while true do end end, __concat = error }))",
        "an error that is a table",
    );
    check("error(message)", "route: an object");
    check("error((coroutine.running()))", "route: a coroutine");
    check("error(nil)", "route: nil");
    check("error(false)", "route: false");
    check("error(('x'):rep(3e6))", "xxxxxx");
    check("error('\\255\\0')", "route: \u{fffd}");
    check("error(postroad.null)", "route: an object");
}

#[test]
fn a_text_that_fails_in_the_script() {
    check("tostring(setmetatable({}, { __tostring = function() return {} end }))", "'__tostring' must return a string");
    check("return ('%s'):format(setmetatable({}, { __tostring = function() error('mine') end }))", "mine");
    check("return nil .. 'x'", "attempt to concatenate a nil value");
}

#[test]
fn lines_are_those_of_the_script() {
    check("\n\nerror('here')", "bad.lua:4: route: here");
    check(
        "local function f()\nlocal x = nil\nx()\nend\nf()",
        "bad.lua:4: route: attempt to call a nil value (local 'x')",
    );
    check("\nerror({})", "bad.lua:3: route: an error that is a table");
    check("\nwhile true do end", "bad.lua:3: route: it took more than");
}

#[test]
fn what_a_hook_returns_can_mean_nothing() {
    check("return 1", "a number is no answer");
    check("return setmetatable({}, { __index = function() while true do end end })", "a table is no answer");
    check("return postroad.drop(), postroad.drop(), 7", "is no answer");
    check("return table.unpack({}, 1, 8001)", "too many results to unpack");
    check("local t = {} for i = 1, 20 do t[i] = postroad.drop() end return table.unpack(t)", "too many results");
    check(
        "local t = {} for i = 1, 65 do t[i] = { topic = 'x' } end return postroad.split(t)",
        "expected 1 to 64 messages, not 65",
    );
    check("for i = 1, 65 do message:also { topic = 'x' } end", "more than 64 messages");
    check(
        "local x = ('x'):rep(1e6) for i = 1, 9 do message:also { topic = 'x', payload = x } end",
        "its messages have more than 4194304 bytes",
    );
    check(
        "message.payload = ('x'):rep(1e6) local t = {} for i = 1, 9 do t[i] = { topic = 'x' } end return postroad.split(t)",
        "more bytes than plugins.result_bytes",
    );
    check("for i = 1, 300 do message:set_property('p' .. i, 'x') end", "more than 256 user properties");
}
