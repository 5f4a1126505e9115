//! One plugin and the others: quarantine, open and closed hooks.

use super::{GOOD, limits};
use crate::common::*;
use postroad_plugins::Limits;

#[test]
fn a_plugin_that_fails_in_a_row_is_asked_no_more() {
    let limits = Limits { quarantine_after: 3, ..limits() };
    let bad = "return { route = function(m) if m.payload ~= 'fine' then error('bad') end end }";
    let mut vm = vm_with(&[("bad", bad), ("good", GOOD)], &limits);
    for payload in ["x", "x", "fine", "x", "x"] {
        publish(&mut vm, "a", payload);
        assert!(!vm.figures()[0].is_quarantined);
    }
    publish(&mut vm, "a", "x");
    assert!(vm.figures()[0].is_quarantined && !vm.figures()[1].is_quarantined);
    let calls = vm.figures()[0].hooks[0].1.calls;
    assert_eq!(show(&publish(&mut vm, "a", "x")), "replace\n  a/7 \"{\\\"n\\\":7,\\\"s\\\":\\\"x\\\"}\"");
    assert_eq!(vm.figures()[0].hooks[0].1.calls, calls);
}

#[test]
fn a_closed_hook_stays_closed_in_quarantine() {
    let limits = Limits { quarantine_after: 2, ..limits() };
    let bad = "return { route = { on_error = 'closed', filters = { 'a/#' }, run = function(m) error('bad') end } }";
    let mut vm = vm_with(&[("bad", bad), ("good", GOOD)], &limits);
    for _ in 0..4 {
        assert_eq!(show(&publish(&mut vm, "a/b", "x")), "refuse 0x83");
    }
    assert_eq!(vm.figures()[0].hooks[0].1.errors, 2);
    assert!(show(&publish(&mut vm, "b", "x")).starts_with("replace"));
}
