//! Frames as text, and streams cut into pieces.

use std::fmt::Write;
use std::sync::Arc;

use postroad_protocol::frame::{Codec, Declared, Decoded, Frame, Plan, Spec};

pub fn codec(spec: &Spec) -> Declared {
    Declared::new(Arc::new(Plan::compile(spec).expect("a spec that can be")))
}

/// Without spaces, to bytes.
pub fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("digits"), 16).expect("digits");
    digits.chunks(2).map(byte).collect()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}

/// One line that holds all that a frame says.
pub fn shown(frame: &Frame<'_>) -> String {
    let Frame { kind, tag, command, client, user, password, topic, payload, reason } = frame;
    let mut line = format!("{kind}");
    let mut say = |name: &str, value: String| write!(line, " {name}={value}").expect("a string takes all");
    tag.iter().for_each(|tag| say("tag", tag.to_string()));
    [*command].iter().filter(|command| **command > 0).for_each(|command| say("command", format!("{command:#x}")));
    [client].iter().filter(|client| !client.is_empty()).for_each(|client| say("client", client.to_string()));
    user.iter().for_each(|user| say("user", user.to_string()));
    password.iter().for_each(|password| say("password", password.escape_ascii().to_string()));
    [topic].iter().filter(|topic| !topic.is_empty()).for_each(|topic| say("topic", topic.to_string()));
    [payload]
        .iter()
        .filter(|bytes| !bytes.is_empty())
        .for_each(|bytes| say("payload", bytes.escape_ascii().to_string()));
    [*reason].iter().filter(|reason| **reason > 0).for_each(|reason| say("reason", format!("{reason:#x}")));
    line
}

/// What a stream says that comes in these pieces: a line for each frame, and the fault that ends it, if one does.
///
/// As the engine does it: decode whenever there is as much as was said to be needed.
pub fn read(codec: &mut dyn Codec, pieces: &[&[u8]]) -> Vec<String> {
    let (mut lines, mut kept, mut wanted) = (Vec::new(), Vec::new(), 0);
    for piece in pieces {
        kept.extend_from_slice(piece);
        while kept.len() >= wanted && !kept.is_empty() {
            match codec.decode(&kept, "c1") {
                Ok(Decoded::Incomplete { needed }) => {
                    assert!(needed > kept.len(), "{needed} bytes are there");
                    assert!(needed <= codec.frame_bytes_max(), "{needed} bytes are no frame");
                    wanted = needed;
                }
                Ok(Decoded::Frame { frame, size }) => {
                    lines.push(shown(&frame));
                    kept.drain(..size);
                    wanted = 0;
                }
                Err(error) => {
                    lines.push(format!("broken: {}", error.fault.name()));
                    return lines;
                }
            }
        }
    }
    lines
}
