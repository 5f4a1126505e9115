//! The four frames of INT-1 to INT-4, as declarations. Operators have them as scripts (`scripts/frames/`); a test of `plugins`
//! compares both. Tests and benches use these.

use super::{
    Checksum, Condition, Endian, Field, Framing, Kind, Message, Payload, Shape, Size, Spec, TextPattern, Wanted,
};

fn field(name: &str, shape: Shape) -> Field {
    Field { name: name.to_owned(), shape }
}

fn number(name: &str, bits: u8) -> Field {
    field(name, Shape::Number { bits, signed: false, endian: Endian::Big, constant: None })
}

fn rest(name: &str, pad: Option<u8>) -> Field {
    field(name, Shape::Bytes { size: Size::Rest, pad })
}

fn when(field: &str, value: u64) -> Vec<Condition> {
    vec![Condition { field: field.to_owned(), value: Wanted::Is(value) }]
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn payload(field: &str) -> Option<Payload> {
    Some(Payload::Field(field.to_owned()))
}

/// All four, with the names that they have as scripts.
pub fn all() -> [(&'static str, Spec); 4] {
    [("vehicle40", vehicle40()), ("padded1024", padded1024()), ("crlf_lines", crlf_lines()), ("gt06", gt06())]
}

/// Five bytes [INT-4]: the high 4 bits are the command, the low 36 the content.
///
/// ```text
/// 0 hello  content: number of the vehicle      8 welcome
/// 1 ping                                       9 pong
/// 2 position, 3 status: published              a accepted
/// 4 ack                                        b push    content: the payload, a decimal number
/// 5 bye                                        c refused content: reason code
/// ```
pub fn vehicle40() -> Spec {
    let message = |kind, command| Message { when: when("command", command), ..Message::new(kind) };
    let publish =
        |command, topic| Message { topic: some(topic), payload: payload("content"), ..message(Kind::Publish, command) };
    Spec {
        framing: Framing::Fixed { bytes: 5 },
        fields: vec![number("command", 4), number("content", 36)],
        messages: vec![
            Message { client: some("vehicle-{content}"), ..message(Kind::Hello, 0) },
            message(Kind::Ping, 1),
            publish(2, "vehicles/{client}/position"),
            publish(3, "vehicles/{client}/status"),
            message(Kind::Ack, 4),
            message(Kind::Bye, 5),
            message(Kind::Welcome, 8),
            message(Kind::Pong, 9),
            message(Kind::Accepted, 10),
            Message { payload: payload("content"), ..message(Kind::Push, 11) },
            Message { reason: some("content"), ..message(Kind::Refused, 12) },
        ],
        keep_alive_seconds: 120,
        clean_start: false,
    }
}

/// The messages of the two text frames, whose text is in the field `text`.
fn text_messages() -> Vec<Message> {
    let message = |kind, pattern: &str| Message {
        text: Some(TextPattern { field: "text".to_owned(), pattern: pattern.to_owned() }),
        ..Message::new(kind)
    };
    let tag = || some("tag");
    vec![
        Message {
            client: some("{name}"),
            user: some("{user}"),
            password: some("{password}"),
            ..message(Kind::Hello, "HELLO {name} {user} {password}")
        },
        Message { client: some("{name}"), ..message(Kind::Hello, "HELLO {name}") },
        message(Kind::Ping, "PING"),
        Message {
            tag: tag(),
            topic: some("{topic}"),
            payload: payload("payload"),
            ..message(Kind::Publish, "PUB {tag} {topic} {payload}")
        },
        // Without a payload, also where the space in front of it is padding.
        Message { tag: tag(), topic: some("{topic}"), ..message(Kind::Publish, "PUB {tag} {topic}") },
        Message { tag: tag(), ..message(Kind::Ack, "ACK {tag}") },
        message(Kind::Bye, "BYE"),
        message(Kind::Welcome, "WELCOME"),
        message(Kind::Pong, "PONG"),
        Message {
            tag: tag(),
            topic: some("{topic}"),
            payload: payload("payload"),
            ..message(Kind::Push, "MSG {tag} {topic} {payload}")
        },
        Message { tag: tag(), ..message(Kind::Accepted, "OK {tag}") },
        Message { tag: tag(), reason: some("reason"), ..message(Kind::Refused, "NO {tag} {reason}") },
    ]
}

/// 1,024 bytes, filled up with spaces [INT-1].
pub fn padded1024() -> Spec {
    Spec {
        framing: Framing::Fixed { bytes: 1024 },
        fields: vec![rest("text", Some(b' '))],
        messages: text_messages(),
        keep_alive_seconds: 120,
        clean_start: false,
    }
}

/// Lines that end with CR and LF [INT-2].
pub fn crlf_lines() -> Spec {
    Spec {
        framing: Framing::Delimited { by: b"\r\n".to_vec(), bytes_max: 4096 },
        fields: vec![rest("text", None)],
        messages: text_messages(),
        keep_alive_seconds: 120,
        clean_start: false,
    }
}

/// A frame like that of GT06 trackers [INT-3].
///
/// ```text
/// 78 78 | length | protocol | content … | serial (16) | CRC-16/X-25 | 0d 0a
///                  └──────── length counts ─────────────────────────┘
///         └──────────────── CRC covers ──────────────┘
/// 01 login (terminal id: 8 bytes BCD), 13 heartbeat, 12 location: each answered with its protocol number and serial
/// 80 push, 15 its acknowledgement, with the serial of the push
/// ```
pub fn gt06() -> Spec {
    let message =
        |kind, protocol| Message { when: when("protocol", protocol), tag: some("serial"), ..Message::new(kind) };
    let answer = |kind| Message {
        when: vec![Condition { field: "protocol".to_owned(), value: Wanted::Asked }],
        tag: some("serial"),
        ..Message::new(kind)
    };
    let checksum = Shape::Checksum {
        algorithm: Checksum::Crc16X25,
        from: "length".to_owned(),
        to: "serial".to_owned(),
        endian: Endian::Big,
    };
    Spec {
        framing: Framing::Length { field: "length".to_owned(), plus: 5, bytes_max: 260 },
        fields: vec![
            field("start", Shape::Constant(vec![0x78, 0x78])),
            number("length", 8),
            number("protocol", 8),
            rest("content", None),
            number("serial", 16),
            field("crc", checksum),
            field("stop", Shape::Constant(b"\r\n".to_vec())),
        ],
        messages: vec![
            Message { client: some("tracker-{content:bcd}"), ..message(Kind::Hello, 0x01) },
            message(Kind::Ping, 0x13),
            Message {
                topic: some("trackers/{client}/location"),
                payload: payload("content"),
                ..message(Kind::Publish, 0x12)
            },
            message(Kind::Ack, 0x15),
            answer(Kind::Welcome),
            answer(Kind::Pong),
            answer(Kind::Accepted),
            Message { payload: payload("content"), ..message(Kind::Push, 0x80) },
        ],
        keep_alive_seconds: 300,
        clean_start: false,
    }
}
