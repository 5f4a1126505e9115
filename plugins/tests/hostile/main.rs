//! Scripts that mean harm, or are broken as if they did. Each call ends with the right error, within a bounded number of instructions and bytes; the
//! VM works afterwards; the plugin behind it in the chain is unharmed. Nothing here looks at a clock.

#[path = "../common/mod.rs"]
mod common;

mod coroutines;
mod depth;
mod errors;
mod escapes;
mod instructions;
mod libraries;
mod memory;
mod neighbours;
mod out_of_memory;

use broker::hooks::Decision;
use common::*;
use postroad_broker as broker;
use postroad_plugins::{Limits, Vm};

/// What comes behind the hostile one.
pub const GOOD: &str = r#"
local count = 0
return {
    priority = 900,
    route = function(message)
        count = count + 1
        message.topic = ("%s/%d"):format(message.topic, count)
        message.payload = postroad.json.encode({ n = count, s = message.payload:gsub("l+", "L") })
    end,
}"#;

pub fn limits() -> Limits {
    // Time is no limit of these tests: what ends a call is what is counted.
    Limits { millis: 600_000, load_millis: 600_000, quarantine_after: 1_000_000, ..Limits::default() }
}

/// Instructions and bytes behind a limit until it is noticed.
const INSTRUCTIONS_OVER: u64 = 20_000;
const BYTES_OVER: u64 = 9 << 20;

/// A VM of the hostile script and the good one. `body` is that of its `route`.
pub fn hostile_vm(body: &str) -> Vm {
    hostile_file(&format!("return {{ route = function(message)\n{body}\nend }}"))
}

pub fn hostile_file(text: &str) -> Vm {
    vm_with(&[("bad", text), ("good", GOOD)], &limits())
}

/// Publishes five times: each time the hostile plugin fails with `expected` in its text, and the good one does its work.
pub fn check(body: &str, expected: &str) {
    check_vm(&mut hostile_vm(body), expected);
}

pub fn check_vm(vm: &mut Vm, expected: &str) {
    for round in 1..=5 {
        check_round(vm, round, expected);
    }
    let figures = vm.figures();
    assert_eq!(figures[0].failures_in_a_row, 5);
    assert_eq!(figures[1].failures_in_a_row, 0);
    vm.collect_garbage();
    let held = vm.figures()[0].memory_bytes;
    assert!(held < limits().plugin_memory_bytes + (64 << 10), "{held} bytes");
}

fn check_round(vm: &mut Vm, round: u64, expected: &str) {
    let instructions_before = vm.instructions_spent();
    let allocated_before = vm.allocated_bytes();
    let answer = publish(vm, "a", "hello");
    let spent = vm.instructions_spent() - instructions_before;
    let allocated = vm.allocated_bytes() - allocated_before;
    let failures = failures(vm);
    assert!(failures.contains(expected) && failures.lines().count() == 1, "expected {expected:?}: {failures}");
    let expected = format!("replace\n  a/{round} \"{{\\\"n\\\":{round},\\\"s\\\":\\\"heLo\\\"}}\"");
    assert_eq!(show(&answer), expected, "the good plugin is harmed");
    assert!(spent <= limits().instructions + INSTRUCTIONS_OVER, "{spent} instructions");
    assert!(allocated <= 2 * limits().allocated_bytes + BYTES_OVER, "{allocated} bytes");
}

/// The script fails nothing, and says this by the topic of a message.
pub fn says(body: &str) -> String {
    let body = format!("message.payload = tostring((function() {body} end)())");
    let mut vm = vm_with(&[("bad", &format!("return {{ route = function(message) {body} end }}"))], &limits());
    let answer = publish(&mut vm, "a", "hello");
    let failures = failures(&mut vm);
    assert!(failures.is_empty(), "{failures}");
    let Decision::Replace(messages) = answer.answer else { panic!("{answer:?}") };
    String::from_utf8(messages[0].payload.to_vec()).expect("UTF-8")
}
