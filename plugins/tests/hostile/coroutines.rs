//! Coroutines: each has a count of its own, which must be no way out.

use super::check;

const OVER: &str = "route: it took more than 200000 instructions";

#[test]
fn a_loop_in_a_coroutine() {
    check("coroutine.wrap(function() while true do end end)()", OVER);
    check("coroutine.resume(coroutine.create(function() while true do end end)) while true do end", OVER);
    check("while true do coroutine.resume(coroutine.create(function() while true do end end)) end", OVER);
    check("coroutine.wrap(function() coroutine.wrap(function() while true do end end)() end)()", OVER);
}

#[test]
fn one_coroutine_for_each_few_instructions() {
    check("while true do coroutine.wrap(function() for i = 1, 100 do end end)() end", OVER);
    check("while true do coroutine.create(print or function() end) end", OVER);
    check("local f f = function() coroutine.wrap(f)() end while true do pcall(f) end", OVER);
}

#[test]
fn one_coroutine_that_yields_for_ever() {
    check("local co = coroutine.wrap(function() while true do coroutine.yield() end end) while true do co() end", OVER);
    check(
        "local co = coroutine.create(function() while true do pcall(coroutine.yield) end end) while true do coroutine.resume(co) end",
        OVER,
    );
}

#[test]
fn coroutines_in_coroutines() {
    check("local function f() return coroutine.wrap(f)() end f()", "C stack overflow");
    check("local function f() coroutine.resume(coroutine.create(f)) while true do end end f()", OVER);
}

#[test]
fn closing_a_coroutine_hides_nothing() {
    check(
        "local spin = setmetatable({}, { __close = function() while true do end end })
         local co = coroutine.create(function() local x <close> = spin coroutine.yield() end)
         coroutine.resume(co)
         coroutine.close(co)
         while true do end",
        OVER,
    );
}

/// A hook that has raised an error leaves Lua in the belief that it still runs: in a coroutine that nobody unwinds, for ever. Found by a test that
/// hung.
#[test]
fn a_coroutine_that_a_limit_has_ended_is_never_closed() {
    let spin = "function() local x <close> = setmetatable({}, { __close = function() while true do end end }) while true do end end";
    for (make, first, again) in [
        ("coroutine.create", "coroutine.resume(co)", "assert(coroutine.status(co) == 'dead') coroutine.close(co)"),
        ("coroutine.wrap", "co()", "co()"),
        ("coroutine.wrap", "pcall(co)", "pcall(co) pcall(co) co()"),
    ] {
        let mut vm = super::hostile_file(&format!(
            "local co return {{ route = function() if co then {again} end co = {make}({spin}) {first} end }}"
        ));
        let mut texts = Vec::new();
        for _ in 0..2 {
            super::publish(&mut vm, "a", "hello");
            texts.push(super::failures(&mut vm));
        }
        assert!(texts[0].contains(OVER), "{texts:?}");
        assert!(texts[1].contains("the coroutine was ended by a limit"), "{texts:?}");
    }
}

#[test]
fn a_coroutine_that_outlives_its_call_counts_in_the_next() {
    let mut vm = super::hostile_file(
        "local co = coroutine.wrap(function() while true do for i = 1, 1e9 do if i % 1000 == 0 then coroutine.yield() end end end end)
         return { route = function() while true do co() end end }",
    );
    super::check_vm(&mut vm, "");
}

#[test]
fn the_main_coroutine_is_nobodys() {
    check(
        "local co = coroutine.running() coroutine.resume(co) local ok, e = coroutine.resume(co) error(e)",
        "cannot resume non-suspended coroutine",
    );
    check("coroutine.yield(1)", "attempt to yield from outside a coroutine");
    check("coroutine.close(coroutine.running())", "cannot close a running coroutine");
}
