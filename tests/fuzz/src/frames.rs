//! Any declaration, and any bytes read by it.

use std::sync::Arc;

use postroad_protocol::frame::{
    Checksum, Codec, Condition, Declared, Decoded, Endian, Field, Frame, Framing, Kind, Message, Payload, Plan, Shape,
    Size, Spec, TextPattern, Wanted,
};

use crate::input::Input;

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "word"];
const TEXTS: [&str; 6] = ["{a}", "x{b}y", "{client}/{c:hex}", "{word}", "{d:bcd}", "{"];
const PATTERNS: [&str; 4] = ["A {word}", "{word} {more}", "{a}{b}", "B"];

/// A declaration, then bytes that come in two pieces, and as a payload for the device.
///
/// What holds: a declaration compiles or says where it is wrong; an input is a frame, broken, or not whole, and which of them
/// does not depend on where it is cut [INT-5]; what can be written is written whole.
pub fn check(input: &[u8]) {
    let mut input = Input(input);
    let spec = spec(&mut input);
    let plan = match Plan::compile(&spec) {
        Ok(plan) => Arc::new(plan),
        Err(error) => return assert!(!error.place.is_empty() && !error.detail.is_empty()),
    };
    let mut codec = Declared::new(plan);
    let cut = input.below(64);
    let stream = input.0;
    let whole = read(&mut codec, &[stream]);
    let (front, back) = stream.split_at(cut.min(stream.len()));
    let in_pieces = read(&mut codec, &[front, back]);
    // Of a frame whose end never comes it may be known sooner or later that it is broken.
    let is_early =
        whole.strip_prefix(&in_pieces[..]).is_some_and(|rest| matches!(rest, [fault] if !fault.starts_with("Frame")));
    assert!(in_pieces == whole || is_early, "{in_pieces:?} in pieces, {whole:?} as a whole");
    write(&mut codec, stream);
}

/// The frames of a stream, and the fault that ends it.
fn read(codec: &mut dyn Codec, pieces: &[&[u8]]) -> Vec<String> {
    let (mut seen, mut kept, mut wanted) = (Vec::new(), Vec::new(), 0);
    for piece in pieces {
        kept.extend_from_slice(piece);
        while kept.len() >= wanted && !kept.is_empty() {
            match codec.decode(&kept, "c1") {
                Ok(Decoded::Incomplete { needed }) => {
                    assert!(needed > kept.len());
                    wanted = needed;
                }
                Ok(Decoded::Frame { frame, size }) => {
                    seen.push(format!("{frame:?}"));
                    assert!((1..=kept.len()).contains(&size));
                    kept.drain(..size);
                    wanted = 0;
                }
                Err(error) => {
                    seen.push(error.fault.name().to_owned());
                    return seen;
                }
            }
        }
    }
    seen
}

fn write(codec: &mut dyn Codec, payload: &[u8]) {
    let most = codec.frame_bytes_max();
    for kind in [Kind::Welcome, Kind::Pong, Kind::Push, Kind::Accepted, Kind::Refused] {
        let mut out = vec![7];
        let frame = Frame { tag: Some(3), command: 2, topic: "t", payload, reason: 0x87, ..Frame::new(kind) };
        match codec.encode(&frame, &mut out) {
            Ok(()) => assert!(out.len() > 1 && out.len() <= 1 + most),
            Err(_) => assert_eq!(out, [7]),
        }
    }
}

fn spec(input: &mut Input<'_>) -> Spec {
    let bytes_max = 1 + input.below(600) as u32;
    let framing = match input.byte() % 4 {
        0 => Framing::Fixed { bytes: bytes_max },
        1 => Framing::Delimited { by: input.array::<4>()[..1 + input.below(4)].to_vec(), bytes_max },
        2 => Framing::Length { field: name(input), plus: signed(input), bytes_max },
        _ => Framing::Fields { bytes_max },
    };
    let fields =
        (0..input.below(6)).map(|place| Field { name: NAMES[place].to_owned(), shape: shape(input) }).collect();
    let mut messages = vec![Message { client: Some(template(input)), ..message(input, Kind::Hello) }];
    for _ in 0..input.below(6) {
        let kind = Kind::ALL[input.below(Kind::ALL.len())];
        messages.push(message(input, kind));
    }
    Spec { framing, fields, messages, keep_alive_seconds: 0, clean_start: false }
}

fn name(input: &mut Input<'_>) -> String {
    NAMES[input.below(NAMES.len())].to_owned()
}

fn template(input: &mut Input<'_>) -> String {
    TEXTS[input.below(TEXTS.len())].to_owned()
}

fn signed(input: &mut Input<'_>) -> i64 {
    i64::from(input.byte() as i8) >> input.below(8)
}

fn endian(input: &mut Input<'_>) -> Endian {
    if input.byte() % 2 == 0 { Endian::Big } else { Endian::Little }
}

fn shape(input: &mut Input<'_>) -> Shape {
    match input.byte() % 8 {
        0 => Shape::Constant(input.array::<3>().to_vec()),
        1 => Shape::Checksum {
            algorithm: Checksum::ALL[input.below(Checksum::ALL.len())],
            from: name(input),
            to: name(input),
            endian: endian(input),
        },
        2 | 3 => Shape::Bytes { size: size(input), pad: (input.byte() % 2 == 0).then(|| input.byte()) },
        4 => Shape::Number {
            bits: input.byte(),
            signed: input.byte() % 2 == 0,
            endian: endian(input),
            constant: (input.byte() % 2 == 0).then(|| u64::from_le_bytes(input.array())),
        },
        _ => Shape::Number { bits: [8, 16, 4][input.below(3)], signed: false, endian: Endian::Big, constant: None },
    }
}

fn size(input: &mut Input<'_>) -> Size {
    match input.byte() % 3 {
        0 => Size::Fixed(input.below(20) as u32),
        1 => Size::Rest,
        _ => Size::Counted { field: name(input), plus: signed(input) },
    }
}

fn message(input: &mut Input<'_>, kind: Kind) -> Message {
    let choice = input.byte();
    let on = |bit: u8| choice >> bit & 1 == 1;
    let value = if on(7) { Wanted::Asked } else { Wanted::Is(u64::from(input.byte() % 4)) };
    let is_payload = matches!(kind, Kind::Publish | Kind::Push);
    Message {
        kind,
        when: if on(0) { vec![Condition { field: name(input), value }] } else { Vec::new() },
        text: on(1)
            .then(|| TextPattern { field: name(input), pattern: PATTERNS[input.below(PATTERNS.len())].to_owned() }),
        client: None,
        user: (on(2) && kind == Kind::Hello).then(|| template(input)),
        password: (on(3) && kind == Kind::Hello).then(|| template(input)),
        topic: (kind == Kind::Publish || on(4) && kind == Kind::Push).then(|| template(input)),
        payload: is_payload.then(|| match on(5) {
            true => Payload::Field(name(input)),
            false => Payload::Json(vec![name(input), name(input)]),
        }),
        tag: on(6).then(|| name(input)),
        reason: (kind == Kind::Refused).then(|| name(input)),
    }
}
