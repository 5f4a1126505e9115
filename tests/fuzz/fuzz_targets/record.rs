//! Any bytes as records of the log.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| postroad_fuzz::stored::check(input));
