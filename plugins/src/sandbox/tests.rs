//! Patterns, `rep` and `sort` against Lua's own, which are in a state of their own here. Both are given what ends soon.

use std::cell::RefCell;
use std::rc::Rc;

use mlua::ffi;
use postroad_base as base;
use proptest::prelude::*;

use crate::lua::{Host, Reference, Stack, State};
use crate::plugin::Account;
use crate::{Limits, PluginName, Stores};

/// Ours and Lua's own, in one state: `ours`, `own` are the libraries by name, `compare` runs a text in both.
struct Both {
    state: State,
    own: Reference,
    ours: Reference,
}

impl Both {
    fn new() -> Self {
        let host = Host::new(&Limits::default(), base::ShardId(0), Rc::new(RefCell::new(Stores::new())));
        let mut state = State::new(host).expect("memory");
        let name = PluginName::new("p").expect("a name");
        state.host_mut().memory.held.push(0);
        state.host_mut().accounts.push(Account::new(
            name,
            crate::SetHash([0; 32]),
            &Limits::default(),
            base::ShardId(0),
        ));
        let (mut own, mut ours) = Default::default();
        let made = state.protected(0, true, |stack| {
            let globals = super::prepare(stack)?;
            super::push_environment(stack, globals);
            ours = stack.keep();
            stack.push_table(0, 8);
            stack.open_library(ffi::luaopen_base);
            stack.pop(1);
            for (name, open) in [("string", ffi::luaopen_string as mlua::lua_CFunction), ("table", ffi::luaopen_table)]
            {
                stack.open_library(open);
                stack.raw_set_name(-2, name);
            }
            for name in ["pcall", "tostring", "select", "ipairs", "type", "next", "setmetatable"] {
                stack.push_reference(ours);
                stack.push_bytes(name.as_bytes());
                stack.raw_get(-2);
                stack.remove(-2);
                stack.raw_set_name(-2, name);
            }
            own = stack.keep();
            Ok(0)
        });
        made.expect("prepared");
        Self { state, own, ours }
    }

    /// What a text returns, in an environment: its results as one text.
    fn run(&mut self, text: &str, environment: Reference, arguments: &[&[u8]]) -> String {
        let mut said = String::new();
        let ran = self.state.protected(1, true, |stack: Stack<'_>| {
            assert!(stack.load(text.as_bytes(), c"=t", false), "{text}");
            stack.push_reference(environment);
            stack.set_environment(-2);
            arguments.iter().for_each(|argument| stack.push_bytes(argument));
            stack.call(arguments.len() as i32, 1);
            said = format!("{:?}", stack.bytes(-1).map(String::from_utf8_lossy));
            Ok(0)
        });
        ran.map_or_else(|thrown| format!("error: {}", thrown.text), |()| said)
    }
}

/// All results of a call, each with its type; of an error only that there was one.
const SHOW: &str = "
    local function show(...)
        local text = ''
        for i = 1, select('#', ...) do local v = select(i, ...) text = text .. type(v) .. ':' .. tostring(v) .. '|' end
        return text
    end
    local function try(f, ...)
        local function collect(ok, ...) if ok then return show(...) end return 'error' end
        return collect(pcall(f, ...))
    end
    local subject, pattern, replacement = ...
";

fn both(text: &str, arguments: &[&[u8]]) -> (String, String) {
    thread_local!(static BOTH: RefCell<Both> = RefCell::new(Both::new()));
    let text = format!("{SHOW}{text}");
    BOTH.with_borrow_mut(|both| {
        let (own, ours) = (both.own, both.ours);
        (both.run(&text, ours, arguments), both.run(&text, own, arguments))
    })
}

const PATTERNS: &str = "
    local out = ''
    for init = -3, 4 do
        out = out .. try(string.find, subject, pattern, init) .. ';' .. try(string.match, subject, pattern, init) .. ';'
        out = out .. try(string.find, subject, pattern, init, true) .. ';'
    end
    out = out .. try(string.gsub, subject, pattern, replacement) .. ';' .. try(string.gsub, subject, pattern, '<%0>', 2) .. ';'
    out = out .. try(string.gsub, subject, pattern, function(...) return (show(...)) end) .. ';'
    out = out .. try(string.gsub, subject, pattern, { a = 'A', b = false, ab = 7 }) .. ';'
    out = out .. try(function()
        local all, n = '', 0
        for a, b in string.gmatch(subject, pattern) do n = n + 1 all = all .. show(a, b) end
        return all
    end)
    return out";

fn pattern() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "a", "b", "ab", ".", "%a", "%A", "%d", "%s", "%w", "%p", "%x", "%g", "%c", "%u", "%l", "%z", "[ab]", "[^ab]",
        "[a-c]", "[%a_]", "[]]", "[^]]", "[a-]", "[%]]", "[", "]", "%", "%%", "(", ")", "()", "(a)", "(.-)", "(a*)",
        "%1", "%2", "%b()", "%bab", "%b", "%f[%w]", "%f[^%w]", "%f", "^", "$", "*", "+", "-", "?", "a*", "b+", ".-",
        "a?", " ",
    ]);
    prop::collection::vec(piece, 0..7).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    #[test]
    fn patterns_match_as_luas_own(
        subject in "[abcA1_ ()\\[\\]%é\\x00]{0,12}",
        pattern in pattern(),
        replacement in "[ab%012]{0,4}",
    ) {
        let (ours, own) = both(PATTERNS, &[subject.as_bytes(), pattern.as_bytes(), replacement.as_bytes()]);
        prop_assert_eq!(ours, own);
    }
}

#[test]
fn the_rest_of_the_library_behaves_as_luas_own() {
    for text in [
        "return try(string.rep, 'ab', 3) .. try(string.rep, 'ab', 3, ',') .. try(string.rep, '', 3, ',') .. try(string.rep, 'x', -1) .. try(string.rep, 'x', 1, ',')",
        "return try(string.rep, 7, '2') .. try(string.rep, 'x') .. try(string.rep, {}, 1)",
        "return try(string.byte, 'abc') .. try(string.byte, 'abc', -1) .. try(string.byte, 'abc', 1, -1) .. try(string.byte, 'abc', 0, 10) .. try(string.byte, 'abc', 3, 2)",
        "return try(string.find, 'a.b', '.', 1, true) .. try(string.find, 'abc', '', 10) .. try(string.find, 'abc', '', 4) .. try(string.find, '', '')",
        "return try(string.gsub, 'abc', '%w', '%%') .. try(string.gsub, 'abc', '', '-') .. try(string.gsub, 'hello', 'l', 7) .. try(string.gsub, 'x', 'x', '%9')",
        "return try(string.gsub, 'abc', 'b', true) .. try(string.gsub, 'abc', 'b', function() return {} end) .. try(string.gsub, 'x', 'x', '%')",
        "return try(function() return string.gmatch('abcb', 'b', 3)() end) .. try(string.match, 7, '%d') .. try(string.find, nil, 'x')",
        "local t = { 1, 2, 3 } table.insert(t, 4) table.insert(t, 1, 0) return show(table.concat(t, ','), try(table.insert, t, 9, 1), try(table.insert, t))",
        "local t = { 1, 2, 3 } return show(table.remove(t), table.remove(t, 1), table.concat(t, ','), table.remove({}), table.remove({}, 0), try(table.remove, t, 7))",
        "local t = { 1, 2, 3 } return show(table.concat(t), table.concat(t, '-', 2), table.concat(t, '-', 2, 3), table.concat(t, '-', 3, 2), try(table.concat, { {} }))",
        "return try(table.unpack, { 1, 2, 3 }) .. try(table.unpack, { 1, 2, 3 }, 2) .. try(table.unpack, { 1, 2 }, 1, 4) .. try(table.unpack, {}, 2, 1)",
        "local t = { 1, 2, 3, 4 } return show(table.concat(table.move(t, 1, 3, 2), ','), table.concat(table.move({ 1, 2, 3 }, 2, 3, 1), ','), table.concat(table.move({ 1, 2 }, 1, 2, 3, { 9, 9 }), ','))",
        "local t = { 5, 2, 8, 1 } table.sort(t) local u = { 'b', 'a', 'c' } table.sort(u, function(a, b) return a > b end) return show(table.concat(t, ','), table.concat(u, ','), try(table.sort, { 1, 'x' }))",
        "local t = setmetatable({}, { __index = function(_, k) return k <= 3 and k * 10 or nil end, __len = function() return 3 end }) return show(table.concat(t, ','), table.unpack(t))",
    ] {
        let (ours, own) = both(text, &[]);
        assert_eq!(ours, own, "{text}");
        assert!(!ours.starts_with("error"), "{ours}");
    }
}

proptest! {
    #[test]
    fn sorted_as_luas_own(numbers in prop::collection::vec(-20i64..20, 0..60)) {
        let list: Vec<String> = numbers.iter().map(ToString::to_string).collect();
        let text = format!("local t = {{ {} }} table.sort(t) local u = {{ table.unpack(t) }} table.sort(u, function(a, b) return a > b end)
            return table.concat(t, ',') .. ';' .. table.concat(u, ',')", list.join(","));
        let (ours, own) = both(&text, &[]);
        prop_assert_eq!(ours, own);
    }
}
