//! Any declaration of a frame, and any bytes read by it.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| postroad_fuzz::frames::check(input));
