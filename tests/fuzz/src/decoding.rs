//! What the decoder targets assert about any input.

use postroad_protocol::mqtt::{Decoded, Packet, Version, connect_version, decode};

/// Large enough to never be what refuses an input.
const SIZE_MAX: u32 = 1 << 20;

/// Reads packets off the front until the input is used up or refused. Each that decodes must keep its meaning when it is
/// written again, in as many bytes as were announced.
pub fn read_stream(mut input: &[u8], version: Version) {
    let _ = connect_version(input);
    let _ = decode(input, None, SIZE_MAX);
    loop {
        match decode(input, Some(version), SIZE_MAX) {
            Ok(Decoded::Packet { packet, size }) => {
                check_round_trip(&packet, version);
                input = &input[size..];
            }
            Ok(Decoded::Incomplete { needed }) => {
                assert!(needed > input.len());
                return;
            }
            Err(error) => {
                assert!(error.reason.is_error());
                return;
            }
        }
    }
}

fn check_round_trip(packet: &Packet<'_>, version: Version) {
    let version = if let Packet::Connect(connect) = packet { connect.version } else { version };
    let mut bytes = Vec::new();
    packet.encode(version, &mut bytes);
    assert_eq!(bytes.len(), packet.encoded_len(version));
    let expected = Decoded::Packet { packet: packet.clone(), size: bytes.len() };
    assert_eq!(decode(&bytes, Some(version), SIZE_MAX), Ok(expected));
}
