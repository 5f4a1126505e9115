//! Any bytes, as MQTT 3.1 and as 3.1.1.

#![no_main]

use libfuzzer_sys::fuzz_target;
use postroad_protocol::mqtt::Version;

fuzz_target!(|input: &[u8]| {
    postroad_fuzz::decoding::read_stream(input, Version::V3_1);
    postroad_fuzz::decoding::read_stream(input, Version::V3_1_1);
});
