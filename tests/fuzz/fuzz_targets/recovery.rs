//! A log made by the writer, then torn and damaged, is opened.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| postroad_fuzz::recovery::check_damaged(input));
