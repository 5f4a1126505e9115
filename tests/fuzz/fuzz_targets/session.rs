//! Any bytes as a client's whole conversation, cut into any pieces.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| postroad_fuzz::conversation::check(input));
