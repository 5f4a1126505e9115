//! No memory, at every single request for it: while a set is loaded, and in calls. Never a panic, never an abort, and the VM is fit for the next call.

use postroad_plugins::{Diagnostic, Set, Vm};

use super::limits;
use crate::common::*;

/// Uses all of the API and of the sandbox that takes memory.
const REAL: &str = r#"
local counter = postroad.counter("routed")
local seen = {}
local Tenant = {}
Tenant.__index = Tenant
function Tenant.new(name) return setmetatable({ name = name, count = 0 }, Tenant) end
function Tenant:topic(message) self.count = self.count + 1 return ("tenants/%s/%s/%d"):format(self.name, message.topic, self.count) end
local tenant = Tenant.new("t1")
return {
    description = "uses everything",
    priority = 10,
    limits = { instructions = 100000 },
    route = {
        filters = { "a/#", "b", "+/c" },
        run = function(message)
            counter:add(1)
            postroad.gauge("size"):set(#message.payload)
            local decoded = postroad.json.decode('{"a": [1, 2.5, "x\\n", null, {"b": true}], "long": "' .. ("y"):rep(60) .. '"}')
            local packed = postroad.msgpack.encode(decoded)
            local again = postroad.json.encode(postroad.msgpack.decode(packed))
            postroad.store.set("k", again, 60)
            local parts = {}
            for word in again:gmatch("%w+") do parts[#parts + 1] = word:upper():gsub("X", function(x) return x .. x end) end
            table.sort(parts, function(a, b) return a > b end)
            local co = coroutine.wrap(function(...) for _, value in ipairs({ ... }) do coroutine.yield(value) end end)
            local ok, err = pcall(error, { co(table.unpack(parts)) })
            message.topic = tenant:topic(message)
            message.payload = postroad.base64.encode(postroad.sha256(table.concat(parts, ",")))
            message:set_property("colour", postroad.hex.encode("red"))
            message:also { topic = "copy", properties = { a = "b" }, payload = postroad.store.get("k") }
            return postroad.publish { topic = "besides", payload = postroad.time.text(postroad.now()) }
        end,
    },
    on_save = function() return { count = tenant.count, list = { 1, 2, 3 } } end,
    on_load = function(previous) tenant.count = previous and previous.count or 0 end,
    test = { works = function() assert(postroad.match("a/#", "a")) end },
}"#;

fn expected(vm: &mut Vm) -> String {
    let text = show(&publish(vm, "a/b", "hello"));
    assert!(text.starts_with("replace\n  copy"), "{text}");
    text
}

#[test]
fn in_every_call() {
    let mut vm = vm_with(&[("real", REAL)], &limits());
    let right = expected(&mut vm).replace("/1\"", "");
    let mut refused = 0;
    for step in 0.. {
        vm.collect_garbage(); // so that nothing is found that the call before has left
        vm.refuse_memory_after(Some(step));
        let answer = show(&publish(&mut vm, "a/b", "hello"));
        vm.refuse_memory_after(None);
        let failures = failures(&mut vm);
        if failures.is_empty() {
            assert!(answer.starts_with("replace\n  copy"), "{answer}");
            break;
        }
        assert!(failures.contains("not enough memory"), "{failures}");
        assert_eq!(answer, "keep", "a call that fails changes nothing");
        refused += 1;
        // The next call is as if nothing had been.
        let text = expected(&mut vm);
        assert_eq!(text.lines().count(), right.lines().count());
    }
    assert!(refused > 80, "only {refused} requests: the script does less than it says");
    vm.collect_garbage();
    let held = vm.figures()[0].memory_bytes;
    for _ in 0..100 {
        expected(&mut vm);
    }
    vm.collect_garbage();
    assert!(vm.figures()[0].memory_bytes <= held + 1_000, "what failed has left something that grows");
}

#[test]
fn in_hooks_of_a_reload() {
    let mut vm = vm_with(&[("real", REAL)], &limits());
    let saved = vm.save(NOW).expect("saved");
    let mut step = 0;
    loop {
        vm.refuse_memory_after(Some(step));
        let save = vm.save(NOW).map(drop);
        let load = vm.load(NOW, &saved);
        let tests = vm.self_test(NOW);
        vm.refuse_memory_after(None);
        if save.is_ok() && load.is_ok() && tests.iter().all(|outcome| outcome.failure.is_none()) {
            break;
        }
        assert_eq!(vm.save(NOW), Ok(saved.clone()));
        step += 1;
    }
    assert!(step > 3, "{step}");
}

/// While loading, the limit of memory is what can be lowered from outside: step by step, until the plugin fits.
#[test]
fn while_a_set_is_loaded() {
    let set: Set = set(&[("real", REAL)]);
    let compiled = set.compile(&limits()).expect("compiled");
    let mut refused = 0;
    for plugin_memory_bytes in (0..).step_by(61) {
        let limits = postroad_plugins::Limits { plugin_memory_bytes, ..limits() };
        match Vm::new(&compiled, &limits, base::ShardId(0), stores()) {
            Ok(mut vm) => {
                drop(publish(&mut vm, "a/b", "hello"));
                break;
            }
            Err(diagnostics) => {
                let texts: Vec<&Diagnostic> = diagnostics.iter().collect();
                assert!(texts.iter().all(|diagnostic| diagnostic.message.contains("not enough memory")), "{texts:?}");
                refused += 1;
            }
        }
    }
    assert!(refused > 50, "{refused}");
    for plugin_memory_bytes in (0..).step_by(61) {
        let limits = postroad_plugins::Limits { plugin_memory_bytes, ..limits() };
        if set.compile(&limits).is_ok() {
            break;
        }
    }
}

use postroad_base as base;
