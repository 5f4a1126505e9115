//! The shipped frames, byte for byte.

use expect_test::expect;
use postroad_protocol::frame::{Codec, Frame, Kind, Spec, examples};

use crate::common::{bytes, codec, hex, read};

fn written(spec: &Spec, frames: &[Frame<'_>]) -> String {
    let mut codec = codec(spec);
    let line = |frame: &Frame<'_>| {
        let mut out = Vec::new();
        match codec.encode(frame, &mut out) {
            Ok(()) => format!("{}: {}", frame.kind, hex(&out)),
            Err(error) => {
                assert!(out.is_empty());
                format!("{}: {error}", frame.kind)
            }
        }
    };
    frames.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn frame(kind: Kind) -> Frame<'static> {
    Frame::new(kind)
}

/// [INT-4]
#[test]
fn vehicle40() {
    let lines = read(
        &mut codec(&examples::vehicle40()),
        &[&bytes("0000001267 1000000000 2fffffffff 3000000000 4000000000 5000000000 6000000000")],
    );
    expect![[r#"
        hello client=vehicle-4711
        ping command=0x1
        publish command=0x2 topic=vehicles/c1/position payload=68719476735
        publish command=0x3 topic=vehicles/c1/status payload=0
        ack command=0x4
        bye command=0x5
        broken: command"#]]
    .assert_eq(&lines.join("\n"));
    let text = written(
        &examples::vehicle40(),
        &[
            frame(Kind::Welcome),
            frame(Kind::Pong),
            frame(Kind::Accepted),
            Frame { payload: b"68719476735", ..frame(Kind::Push) },
            Frame { payload: b"68719476736", ..frame(Kind::Push) },
            Frame { payload: b"stop", ..frame(Kind::Push) },
            Frame { reason: 0x87, ..frame(Kind::Refused) },
        ],
    );
    expect![[r#"
        welcome: 80 00 00 00 00
        pong: 90 00 00 00 00
        accepted: a0 00 00 00 00
        push: bf ff ff ff ff
        push: field `content` of 36 bits: the payload is no such number (unfit)
        push: field `content` of 36 bits: the payload is no such number (unfit)
        refused: c0 00 00 00 87"#]]
    .assert_eq(&text);
}

/// [INT-1]
#[test]
fn padded1024() {
    let mut codec = codec(&examples::padded1024());
    let mut out = Vec::new();
    codec.encode(&Frame { tag: Some(3), topic: "a/b", payload: b"hi there", ..frame(Kind::Push) }, &mut out).unwrap();
    assert_eq!(out, format!("{:1024}", "MSG 3 a/b hi there").into_bytes());
    let all = [7; 1024 - 10];
    let largest = Frame { tag: Some(3), topic: "a/b", payload: &all, ..frame(Kind::Push) };
    out.clear();
    codec.encode(&largest, &mut out).unwrap();
    assert_eq!(out.len(), 1024);
    let one_more = [7; 1024 - 9];
    let error = codec.encode(&Frame { payload: &one_more, ..largest }, &mut out).unwrap_err();
    expect!["field `text` has 1024 bytes, not 1025 (unfit)"].assert_eq(&error.to_string());
    assert_eq!(out.len(), 1024, "nothing was added");
    assert_eq!(read(&mut codec, &[format!("{:1024}", "HELLO d1").as_bytes()]), ["hello client=d1"]);
}

/// [INT-2]
#[test]
fn crlf_lines() {
    let lines = read(
        &mut codec(&examples::crlf_lines()),
        &[b"HELLO d1 u pass word\r\nHELLO d1\r\nPUB 7 a/b 21 degrees\r\nPUB 7 a/b \r\nACK 3\r\nBYE\r\nPUB x a/b c\r\n"],
    );
    expect![[r#"
        hello client=d1 user=u password=pass word
        hello client=d1
        publish tag=7 topic=a/b payload=21 degrees
        publish tag=7 topic=a/b
        ack tag=3
        bye
        broken: value"#]]
    .assert_eq(&lines.join("\n"));
    let mut codec = codec(&examples::crlf_lines());
    let mut text = |frame: Frame<'_>| {
        let mut out = Vec::new();
        codec.encode(&frame, &mut out).map(|()| String::from_utf8(out).unwrap()).map_err(|error| error.to_string())
    };
    let push = Frame { tag: Some(1), topic: "a/b", payload: b"x y", ..frame(Kind::Push) };
    assert_eq!(text(push), Ok("MSG 1 a/b x y\r\n".to_owned()));
    assert_eq!(text(Frame { tag: Some(9), reason: 0x87, ..frame(Kind::Refused) }), Ok("NO 9 135\r\n".to_owned()));
    assert_eq!(text(Frame { payload: b"x\r\ny", ..push }), Err("it holds the delimiter (unfit)".to_owned()));
    assert_eq!(text(Frame { payload: b"x\r", ..push }), Ok("MSG 1 a/b x\r\r\n".to_owned()));
    assert_eq!(text(Frame { topic: "a b", ..push }), Err("a word of the text holds ` ` (unfit)".to_owned()));
}

/// [INT-3]. The checksums are those of another implementation (Python's, bit by bit).
#[test]
fn gt06() {
    let lines = read(
        &mut codec(&examples::gt06()),
        &[&bytes(
            "7878 0d01 0123456789012345 0001 8cdd 0d0a 7878 0513 0002 db6a 0d0a 7878 0a12 4142430d0a 0003 4114 0d0a 7878 0515 0004 6885 0d0a 7878 0d01 01234567890123af 0001 f606 0d0a",
        )],
    );
    expect![[r#"
        hello tag=1 command=0x1 client=tracker-0123456789012345
        ping tag=2 command=0x13
        publish tag=3 command=0x12 topic=trackers/c1/location payload=ABC\r\n
        ack tag=4 command=0x15
        broken: value"#]]
    .assert_eq(&lines.join("\n"));
    let text = written(
        &examples::gt06(),
        &[
            Frame { tag: Some(1), command: 1, ..frame(Kind::Welcome) },
            Frame { tag: Some(2), command: 0x13, ..frame(Kind::Pong) },
            Frame { tag: Some(3), command: 0x12, ..frame(Kind::Accepted) },
            Frame { tag: Some(4), payload: b"stop", ..frame(Kind::Push) },
            Frame { payload: &[0; 251], ..frame(Kind::Push) },
            Frame { tag: Some(70000), payload: b"stop", ..frame(Kind::Push) },
        ],
    );
    expect![[r#"
        welcome: 78 78 05 01 00 01 d9 dc 0d 0a
        pong: 78 78 05 13 00 02 db 6a 0d 0a
        accepted: 78 78 05 12 00 03 90 3f 0d 0a
        push: 78 78 09 80 73 74 6f 70 00 04 b5 13 0d 0a
        push: longer than the longest frame, 260 bytes (unfit)
        push: field `serial` of 16 bits: the tag is too large (unfit)"#]]
    .assert_eq(&text);
}
