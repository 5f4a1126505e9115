mod common;
use common::*;
use postroad_plugins::Limits;
#[test]
fn probe() {
    let body = std::env::var("BODY").expect("BODY");
    let limits = Limits { millis: 600_000, ..Limits::default() };
    let mut vm = vm_with(&[("p", &format!("return {{ route = function(message)\n{body}\nend }}"))], &limits);
    let start = std::time::Instant::now();
    let answer = publish(&mut vm, "a", "hello");
    println!(
        "{:?} {} instr={} alloc={} {}",
        start.elapsed(),
        show(&answer),
        vm.instructions_spent(),
        vm.allocated_bytes(),
        failures(&mut vm)
    );
}
