//! Any text as a plugin; pieces of scripts in any combination.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| postroad_fuzz::scripts::check(input));
