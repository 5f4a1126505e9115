//! Any bytes as requests of the gRPC API.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| postroad_fuzz::requests::check_bytes(input));
