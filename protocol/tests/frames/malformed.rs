//! Frames that are none, and how far they are read.

use postroad_protocol::frame::{
    Codec, Decoded, Fault, Field, Framing, Kind, Message, Payload, Shape, Size, Spec, examples,
};

use crate::common::{bytes, codec};

fn fault(spec: &Spec, input: &[u8]) -> String {
    codec(spec).decode(input, "").map(|decoded| format!("{decoded:?}")).expect_err("no frame").to_string()
}

#[test]
fn the_error_names_the_field() {
    let gt06 = examples::gt06();
    assert_eq!(fault(&gt06, &bytes("79")), "field `start`: not the constant that it has to be (constant)");
    assert_eq!(fault(&gt06, &bytes("7878 04")), "a frame of 9 bytes, its fields take 10 at least (length)");
    assert_eq!(
        fault(&gt06, &bytes("7878 0513 0002 db6b 0d0a")),
        "field `crc`: 0xdb6b came, 0xdb6a is right (checksum)"
    );
    assert_eq!(
        fault(&gt06, &bytes("7878 0513 0002 db6a 0d0b")),
        "field `stop`: not the constant that it has to be (constant)"
    );
    assert_eq!(
        fault(&examples::vehicle40(), &[0xf0, 0, 0, 0, 0]),
        "field `command`: 15 is no command of a device (command)"
    );
    assert_eq!(fault(&examples::crlf_lines(), b"HALLO\r\n"), "no message of a device has such a text (command)");
    assert_eq!(fault(&examples::crlf_lines(), b"HELLO \xff\r\n"), "the client is not well-formed UTF-8 (value)");
    assert_eq!(fault(&examples::crlf_lines(), b"ACK x\r\n"), "the tag is not a number (value)");
    assert_eq!(fault(&examples::crlf_lines(), &[b'x'; 4096]), "no delimiter within 4096 bytes (too_long)");
}

fn number(name: &str, bits: u8) -> Field {
    Field {
        name: name.to_owned(),
        shape: Shape::Number { bits, signed: false, endian: Default::default(), constant: None },
    }
}

fn counted(name: &str, by: &str, plus: i64) -> Field {
    let size = Size::Counted { field: by.to_owned(), plus };
    Field { name: name.to_owned(), shape: Shape::Bytes { size, pad: None } }
}

/// A header with two lengths, then two bodies [INT-3].
fn header_and_bodies(bytes_max: u32) -> Spec {
    let hello = Message {
        client: Some("{name}".to_owned()),
        password: Some("{secret}".to_owned()),
        ..Message::new(Kind::Hello)
    };
    Spec {
        framing: Framing::Fields { bytes_max },
        fields: vec![
            number("version", 8),
            number("a", 32),
            number("b", 8),
            counted("name", "a", -4),
            counted("secret", "b", 0),
        ],
        messages: vec![hello],
        keep_alive_seconds: 0,
        clean_start: false,
    }
}

#[test]
fn a_length_is_judged_before_anything_waits_for_it() {
    let spec = header_and_bodies(100);
    assert_eq!(fault(&spec, &bytes("01 ffffffff 00")), "field `name`: 4294967291 bytes, as its count says (too_long)");
    assert_eq!(fault(&spec, &bytes("01 00000003 00")), "field `name`: -1 bytes, as its count says (length)");
    assert_eq!(
        fault(&spec, &bytes("01 00000068 ff")),
        "field `name`: 100 bytes, as its count says (too_long)"
            .replace("name`: 100 bytes, as its count says", "name` ends behind the longest frame, 100 bytes")
    );
    let mut codec = codec(&spec);
    assert_eq!(codec.decode(&bytes("01 00000008 02"), ""), Ok(Decoded::Incomplete { needed: 12 }));
    assert_eq!(codec.decode(&bytes("01 0000"), ""), Ok(Decoded::Incomplete { needed: 6 }));
    let input = bytes("01 00000008 02 61626364 6566 99");
    let Ok(Decoded::Frame { frame, size }) = codec.decode(&input, "") else { panic!("a frame") };
    assert_eq!((frame.client, frame.password, size), ("abcd", Some(&b"ef"[..]), 12));
}

/// A frame of a fixed size in which the fields say something else.
#[test]
fn fields_that_do_not_fill_their_frame_are_no_frame() {
    let spec = Spec { framing: Framing::Fixed { bytes: 10 }, ..header_and_bodies(10) };
    assert_eq!(fault(&spec, &bytes("01 00000005 02 61626364")), "10 bytes are not what the fields take (length)");
    assert!(codec(&spec).decode(&bytes("01 00000006 02 61626364"), "").is_ok());
}

#[test]
fn a_template_is_filled_with_numbers_texts_digits_and_json() {
    let shape = Shape::Number { bits: 12, signed: true, endian: Default::default(), constant: None };
    let mut spec = header_and_bodies(100);
    spec.fields.insert(1, Field { name: "height".to_owned(), shape });
    spec.fields.insert(2, number("low", 4));
    let names = ["height", "low", "name", "secret", "client"].map(str::to_owned).to_vec();
    spec.messages.push(Message {
        when: vec![postroad_protocol::frame::Condition {
            field: "version".to_owned(),
            value: postroad_protocol::frame::Wanted::Is(2),
        }],
        topic: Some("{client}/{name}/{secret:hex}/{height}/{height:hex}/x".to_owned()),
        payload: Some(Payload::Json(names)),
        ..Message::new(Kind::Publish)
    });
    spec.messages.swap(0, 1);
    let mut codec = codec(&spec);
    let input = bytes("02 ffe5 00000007 02 61226f 00ff");
    let Ok(Decoded::Frame { frame, .. }) = codec.decode(&input, "c1") else { panic!("a frame") };
    assert_eq!(frame.topic, "c1/a\"o/00ff/-2/ffe/x");
    let json = r#"{"height":-2,"low":5,"name":"a\"o","secret":"00ff","client":"c1"}"#;
    assert_eq!(std::str::from_utf8(frame.payload), Ok(json));
}

/// A part of several pieces is put together of texts; a password that is one piece is bytes.
#[test]
fn each_piece_of_a_text_is_a_text() {
    let hello = |client: &str, password: &str| {
        let mut spec = header_and_bodies(100);
        let hello = spec.messages.iter_mut().find(|message| message.kind == Kind::Hello).expect("it has one");
        (hello.client, hello.password) = (Some(client.to_owned()), Some(password.to_owned()));
        let mut codec = codec(&spec);
        match codec.decode(&bytes("01 00000006 02 6122 00ff"), "") {
            Ok(Decoded::Frame { frame, .. }) => format!("{} {:?}", frame.client, frame.password.unwrap_or_default()),
            other => other.expect_err("it is whole").to_string(),
        }
    };
    assert_eq!(hello("{name}", "{secret}"), "a\" [0, 255]");
    assert_eq!(hello("{name}", "x{name}"), "a\" [120, 97, 34]");
    assert_eq!(hello("{name}", "x{secret}"), "the password is not well-formed UTF-8 (value)");
    assert_eq!(hello("{secret}", "{secret}"), "the client is not well-formed UTF-8 (value)");
    assert_eq!(hello("{name}{secret}", "{secret}"), "the client is not well-formed UTF-8 (value)");
}

#[test]
fn every_fault_has_a_name_of_its_own() {
    let mut names = Fault::ALL.map(Fault::name).to_vec();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), Fault::ALL.len());
}
