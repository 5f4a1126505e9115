//! Any bytes, as MQTT 5.

#![no_main]

use libfuzzer_sys::fuzz_target;
use postroad_protocol::mqtt::Version;

fuzz_target!(|input: &[u8]| postroad_fuzz::decoding::read_stream(input, Version::V5));
