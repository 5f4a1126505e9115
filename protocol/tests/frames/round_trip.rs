//! Any declaration: what the server writes, a device with the same fields would read as it was meant.

use postroad_protocol::frame::{
    Checksum, Codec, Condition, Decoded, Endian, Field, Frame, Framing, Kind, Message, Payload, Shape, Size, Spec,
    Wanted,
};
use proptest::prelude::*;

use crate::common::codec;

/// How the frame of a random declaration ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Fixed,
    Delimited,
    Length,
    Fields,
}

/// A run of bit fields, in whole bytes, that says no more than that it is there.
fn bit_fields() -> impl Strategy<Value = Vec<Shape>> {
    let number = |bits, signed, constant: Option<u64>| Shape::Number {
        bits,
        signed,
        endian: Endian::Big,
        constant: constant.map(|constant| constant & (u64::MAX >> (64 - bits))),
    };
    (1_u8..16, any::<bool>(), any::<Option<u64>>())
        .prop_map(move |(bits, signed, constant)| vec![number(bits, signed, constant), number(24 - bits, false, None)])
}

fn filler() -> impl Strategy<Value = Vec<Shape>> {
    let constant = prop::collection::vec(any::<u8>(), 1..4).prop_map(|bytes| vec![Shape::Constant(bytes)]);
    let little = prop::sample::select(vec![8_u8, 16, 24, 32, 64])
        .prop_map(|bits| vec![Shape::Number { bits, signed: false, endian: Endian::Little, constant: None }]);
    prop_oneof![Just(vec![]), bit_fields(), constant, little]
}

#[derive(Clone, Debug)]
struct Case {
    end: End,
    before: Vec<Shape>,
    behind: Vec<Shape>,
    /// Bits of the tag, and of the command.
    tag_bits: u8,
    checksum: Option<(Checksum, Endian)>,
    pad: Option<u8>,
    plus: i64,
    payload: Vec<u8>,
    tag: u64,
}

fn case() -> impl Strategy<Value = Case> {
    let end = prop::sample::select(vec![End::Fixed, End::Delimited, End::Length, End::Fields]);
    let endian = prop::sample::select(vec![Endian::Big, Endian::Little]);
    let checksum = prop::option::of((prop::sample::select(Checksum::ALL.to_vec()), endian));
    let tag_bits = 1_u8..60;
    let payload = prop::collection::vec(any::<u8>(), 0..40);
    (end, filler(), filler(), tag_bits, checksum, any::<Option<u8>>(), -3_i64..4, payload, any::<u64>()).prop_map(
        |(end, before, behind, tag_bits, checksum, pad, plus, payload, tag)| Case {
            end,
            before,
            behind,
            tag_bits,
            checksum,
            pad,
            plus,
            payload,
            tag,
        },
    )
}

fn number(name: &str, bits: u8) -> Field {
    named(name, Shape::Number { bits, signed: false, endian: Endian::Big, constant: None })
}

fn named(name: &str, shape: Shape) -> Field {
    Field { name: name.to_owned(), shape }
}

fn spec_of(case: &Case) -> Spec {
    let fillers = |prefix: &'static str, shapes: &[Shape]| -> Vec<Field> {
        shapes.iter().enumerate().map(|(n, shape)| named(&format!("{prefix}{n}"), shape.clone())).collect()
    };
    let mut fields = fillers("before", &case.before);
    fields.push(number("length", 16));
    fields.push(number("command", 4));
    fields.push(number("tag", case.tag_bits));
    let used = 4 + case.tag_bits;
    fields.extend((!used.is_multiple_of(8)).then(|| number("unused", 8 - used % 8)));
    let size = match case.end {
        End::Fields => Size::Counted { field: "length".to_owned(), plus: case.plus },
        _ => Size::Rest,
    };
    fields.push(named("payload", Shape::Bytes { size, pad: case.pad }));
    fields.extend(fillers("behind", &case.behind));
    if let Some((algorithm, endian)) = case.checksum {
        let (from, to) = ("length".to_owned(), "payload".to_owned());
        fields.push(named("checksum", Shape::Checksum { algorithm, from, to, endian }));
    }
    let framing = match case.end {
        End::Fixed => Framing::Fixed { bytes: 100 },
        End::Delimited => Framing::Delimited { by: b"\r\n".to_vec(), bytes_max: 200 },
        End::Length => Framing::Length { field: "length".to_owned(), plus: case.plus, bytes_max: 200 },
        End::Fields => Framing::Fields { bytes_max: 200 },
    };
    let when = |value| vec![Condition { field: "command".to_owned(), value: Wanted::Is(value) }];
    let message = |kind, command| Message {
        when: when(command),
        payload: Some(Payload::Field("payload".to_owned())),
        tag: Some("tag".to_owned()),
        ..Message::new(kind)
    };
    let hello = Message { when: when(1), client: Some("c".to_owned()), ..Message::new(Kind::Hello) };
    let publish = Message { topic: Some("t".to_owned()), ..message(Kind::Publish, 2) };
    Spec {
        framing,
        fields,
        messages: vec![hello, publish, message(Kind::Push, 2)],
        keep_alive_seconds: 0,
        clean_start: false,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn what_is_written_is_read(mut case in case()) {
        // What is padding at the end is no payload, and a frame of one size has to be filled up.
        if case.end == End::Fixed {
            case.pad = case.pad.or(Some(0));
        }
        while case.pad.is_some() && case.payload.last().copied() == case.pad {
            case.payload.pop();
        }
        let tag = case.tag & (u64::MAX >> (64 - case.tag_bits));
        let mut codec = codec(&spec_of(&case));
        let mut stream = vec![0xee];
        let push = Frame { tag: Some(tag), payload: &case.payload, ..Frame::new(Kind::Push) };
        if codec.encode(&push, &mut stream).is_err() {
            // Bytes that are the delimiter by chance, or a count below zero.
            prop_assert!(case.end == End::Delimited || case.plus > 0);
            prop_assert_eq!(stream, [0xee]);
            return Ok(());
        }
        stream.extend_from_slice(b"more");
        let input = &stream[1..];
        let frame = Frame { kind: Kind::Publish, command: 2, topic: "t", ..push };
        let size = input.len() - 4;
        prop_assert_eq!(codec.decode(input, "c"), Ok(Decoded::Frame { frame, size }));
        for cut in 0..size {
            let incomplete = codec.decode(&input[..cut], "c");
            let Ok(Decoded::Incomplete { needed }) = incomplete else {
                return Err(TestCaseError::fail(format!("{incomplete:?} at {cut}")));
            };
            prop_assert!(needed > cut && needed <= size);
        }
    }

    /// Whatever comes, decoding ends, says what it needs, and takes no more than there is.
    #[test]
    fn any_bytes_are_a_frame_or_none(case in case(), input in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut case = case;
        case.pad = case.pad.or(Some(0));
        let mut codec = codec(&spec_of(&case));
        match codec.decode(&input, "c") {
            Ok(Decoded::Incomplete { needed }) => prop_assert!(needed > input.len() && needed <= 200),
            Ok(Decoded::Frame { size, .. }) => prop_assert!((1..=input.len()).contains(&size)),
            Err(error) => prop_assert!(!error.detail.is_empty()),
        }
    }
}
