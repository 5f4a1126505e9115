//! One plugin and the others: quarantine, open and closed hooks.

use super::{GOOD, limits};
use crate::common::*;
use base::ClientId;
use postroad_base as base;
use postroad_plugins::{Callable, Hook, Limits, Plain, PluginName, Vm};

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

const CODEC: &str = "return {
    codec = { longest = 8, encode = function() end, decode = function(bytes) if bytes == 'loop' then while true do end end error('broken') end },
    route = function() end,
}";

fn decode_of(vm: &mut Vm) -> Callable {
    let name = PluginName::new("bad").expect("a name");
    let table = vm.codec_table(&name).expect("it has a codec").expect("it is read");
    table.functions[0].1.clone()
}

fn decode(vm: &mut Vm, function: &Callable, bytes: &'static str) -> String {
    vm.call(NOW, function, &[Plain::Bytes(bytes.into())]).expect_err("it fails").text
}

/// Frames come from clients: with twenty broken ones one could have a plugin's hooks switched off.
#[test]
fn broken_frames_quarantine_no_hooks_and_no_codec() {
    let limits = Limits { quarantine_after: 3, ..limits() };
    let mut vm = vm_with(&[("bad", CODEC), ("good", GOOD)], &limits);
    let function = decode_of(&mut vm);
    for _ in 0..10 {
        assert!(decode(&mut vm, &function, "x").contains("broken"));
    }
    let figures = &vm.figures()[0];
    assert!(!figures.is_quarantined && figures.failures_in_a_row == 0);
    let (hook, counted) = figures.hooks[1];
    assert_eq!((hook, counted.calls, counted.errors), (Hook::Codec, 10, 10));
}

/// Each such call holds up the shard, so a codec is called no more then; the hooks of the plugin are.
#[test]
fn a_codec_that_limits_end_in_a_row_is_called_no_more() {
    let limits = Limits { quarantine_after: 3, ..limits() };
    let mut vm = vm_with(&[("bad", CODEC), ("good", GOOD)], &limits);
    let function = decode_of(&mut vm);
    for frame in ["loop", "loop", "x", "loop", "loop"] {
        decode(&mut vm, &function, frame);
        assert!(!vm.figures()[0].is_quarantined);
    }
    assert!(decode(&mut vm, &function, "loop").contains("instructions"));
    assert!(vm.figures()[0].is_quarantined);
    assert_eq!(decode(&mut vm, &function, "loop"), "its codec is quarantined");
    publish(&mut vm, "a", "x");
    let hooks = &vm.figures()[0].hooks;
    let calls: Vec<(Hook, u64)> = hooks.iter().map(|(hook, counted)| (*hook, counted.calls)).collect();
    assert_eq!(calls, [(Hook::Route, 1), (Hook::Codec, 6)]);
}

#[test]
fn a_codecs_table_is_read_once() {
    let mut vm = vm_with(&[("bad", CODEC)], &limits());
    let function = decode_of(&mut vm);
    vm.collect_garbage();
    let bytes = vm.memory_bytes();
    for _ in 0..1_000 {
        assert_eq!(decode_of(&mut vm), function);
    }
    vm.collect_garbage();
    assert_eq!(vm.memory_bytes(), bytes);
}

/// Random numbers are a plugin's own: no neighbour can foresee them, or change them.
#[test]
fn random_numbers_are_a_plugins_own() {
    let dice = "return { priority = 900, route = function(m) m.payload = tostring(math.random(1000000)) end }";
    let meddler = "return { route = function() math.randomseed(7) math.random() end }";
    let mut alone = vm_with(&[("dice", dice)], &limits());
    let mut beside = vm_with(&[("dice", dice), ("meddler", meddler)], &limits());
    let drawn: Vec<String> = (0..5).map(|_| show(&publish(&mut alone, "a", "x"))).collect();
    let besides: Vec<String> = (0..5).map(|_| show(&publish(&mut beside, "a", "x"))).collect();
    assert_eq!(drawn, besides);
    assert!(drawn.windows(2).any(|pair| pair[0] != pair[1]), "{drawn:?}");
}

/// What is said of clients is paid by the plugin that hears it, so it hears of so many at once.
#[test]
fn a_message_for_many_clients_is_asked_about_in_parts() {
    let clients: Vec<ClientId> = (0..2_500).map(|n| ClientId::from(format!("client-{n}").as_str())).collect();
    let to: Vec<&ClientId> = clients.iter().collect();
    for (rest, expected) in
        [("", vec![0, 1_000, 2_000]), ("if clients[1] == 'client-1000' then error('bad') end", vec![0])]
    {
        let script =
            format!("return {{ on_deliver = function(message, clients) {rest} return {{ [1] = false }} end }}");
        let mut vm = vm_with(&[("bad", &script)], &limits());
        assert_eq!(vm.deliver(NOW, &message("a", "x"), &to), expected);
    }
    // Naming them costs instructions.
    let mut vm =
        vm_with(&[("bad", "return { limits = { instructions = 900 }, on_deliver = function() end }")], &limits());
    assert_eq!(vm.deliver(NOW, &message("a", "x"), &to), [0; 0]);
    assert!(failures(&mut vm).contains("it took more than 900 instructions"));
}
