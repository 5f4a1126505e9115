//! Any text as access rules; any pattern against any filter and topic.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| postroad_fuzz::access::check(input));
