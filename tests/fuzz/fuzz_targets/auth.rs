//! Any text as an `auth.file`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| postroad_fuzz::accounts::check(input));
