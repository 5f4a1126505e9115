//! Segment files of any content, under right checksums, are opened.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| postroad_fuzz::recovery::check_crafted(input));
