//! Declarations that can't be: the error says where and why.

use postroad_protocol::frame::{
    Condition, Endian, Field, Framing, Kind, Message, Payload, Plan, Shape, Size, Spec, TextPattern, Wanted, examples,
};

fn error(change: impl FnOnce(&mut Spec)) -> String {
    changed(examples::gt06(), change)
}

fn changed(mut spec: Spec, change: impl FnOnce(&mut Spec)) -> String {
    change(&mut spec);
    Plan::compile(&spec).map(drop).expect_err("it can not be").to_string()
}

fn number(bits: u8, endian: Endian) -> Shape {
    Shape::Number { bits, signed: false, endian, constant: None }
}

fn bytes(size: Size) -> Shape {
    Shape::Bytes { size, pad: None }
}

fn field(name: &str, shape: Shape) -> Field {
    Field { name: name.to_owned(), shape }
}

#[test]
fn shipped_ones_compile() {
    for (_, spec) in examples::all() {
        Plan::compile(&spec).expect("it can be");
    }
}

#[test]
fn fields_add_up() {
    for (expected, change) in [
        ("field `Bad`: a name is small letters, digits and _, and not `client`", field("Bad", number(8, Endian::Big))),
        (
            "field `client`: a name is small letters, digits and _, and not `client`",
            field("client", number(8, Endian::Big)),
        ),
        ("field `crc`: there are two of this name", field("crc", number(8, Endian::Big))),
        ("field `x`: a number has 1 to 64 bits, not 65", field("x", number(65, Endian::Big))),
        ("field `x`: little endian is of whole bytes, not of 12 bits", field("x", number(12, Endian::Little))),
        ("field `x`: the frame ends 4 bits into a byte", field("x", number(4, Endian::Big))),
        ("field `x`: a constant has a byte at least, and no more than a frame", field("x", Shape::Constant(vec![]))),
        ("field `x`: it stands behind `content`, which takes the rest", field("x", bytes(Size::Rest))),
        ("field `x`: there is no field `y`", field("x", bytes(Size::Counted { field: "y".to_owned(), plus: 0 }))),
        (
            "field `x`: its size is said by `x`, which is no unsigned number in front of it",
            field("x", bytes(Size::Counted { field: "x".to_owned(), plus: 0 })),
        ),
        (
            "field `x`: it stands behind `content`, which takes the rest",
            field("x", bytes(Size::Counted { field: "serial".to_owned(), plus: 0 })),
        ),
        ("field `x`: it has 1 byte at least and no more than a frame, not 261", field("x", bytes(Size::Fixed(261)))),
        ("framing: the fields take 270 bytes, the longest frame has 260", field("x", bytes(Size::Fixed(260)))),
    ] {
        assert_eq!(error(|spec| spec.fields.push(change)), expected);
    }
}

#[test]
fn framing_is_possible() {
    let vehicle = |change: fn(&mut Spec)| changed(examples::vehicle40(), change);
    assert_eq!(
        vehicle(|spec| spec.framing = Framing::Fixed { bytes: 6 }),
        "framing: a frame has 6 bytes, its fields have 5"
    );
    let delimited = |by: &[u8], bytes_max| {
        let framing = Framing::Delimited { by: by.to_vec(), bytes_max };
        changed(examples::crlf_lines(), |spec| spec.framing = framing)
    };
    assert_eq!(delimited(b"", 10), "framing: a delimiter has 1 to 4 bytes, not 0");
    assert_eq!(delimited(b"\n", 1 << 20), "framing: a frame has 1 to 65536 bytes, not 1048576");
    let length =
        |field: &str| error(|spec| spec.framing = Framing::Length { field: field.to_owned(), plus: 0, bytes_max: 260 });
    assert_eq!(length("size"), "framing: there is no field `size`");
    assert_eq!(length("start"), "field `start`: it is the length, and no unsigned number that varies");
    assert_eq!(length("serial"), "field `serial`: it is the length, and stands behind a field of variable size");
    assert_eq!(
        error(|spec| spec.framing = Framing::Fields { bytes_max: 260 }),
        "field `content`: it takes the rest of a frame whose end is not known"
    );
}

#[test]
fn checksums_have_a_range() {
    let range = |from: &str, to: &str| {
        error(|spec| {
            let Shape::Checksum { from: begin, to: end, .. } = &mut spec.fields[5].shape else { panic!("the CRC") };
            (*begin, *end) = (from.to_owned(), to.to_owned());
        })
    };
    assert_eq!(range("serial", "length"), "field `crc`: the range ends before it begins");
    assert_eq!(range("nothing", "length"), "field `crc`: there is no field `nothing`");
    assert_eq!(range("length", "stop"), "field `crc`: the range holds a checksum that is not computed before this one");
}

#[test]
fn messages_say_what_their_kind_needs() {
    let message = |message: Message| error(|spec| spec.messages.push(message));
    let when = |field: &str, value| vec![Condition { field: field.to_owned(), value }];
    let publish = || Message {
        when: when("protocol", Wanted::Is(0x20)),
        topic: Some("t".to_owned()),
        ..Message::new(Kind::Publish)
    };
    let text = |pattern: &str| Some(TextPattern { field: "content".to_owned(), pattern: pattern.to_owned() });
    for (expected, given) in [
        ("it needs `topic`", Message { topic: None, ..publish() }),
        ("it has no use for `client`", Message { client: Some("x".to_owned()), ..publish() }),
        ("there is no field `x`", Message { topic: Some("{x}".to_owned()), ..publish() }),
        ("`{x` opens a brace and does not close it", Message { topic: Some("{x".to_owned()), ..publish() }),
        ("`content` is no unsigned number that varies", Message { tag: Some("content".to_owned()), ..publish() }),
        ("field `protocol` of 8 bits is never 256", Message { when: when("protocol", Wanted::Is(256)), ..publish() }),
        ("field `length` is a length", Message { when: when("length", Wanted::Is(6)), ..publish() }),
        ("field `stop` is no number that varies", Message { when: when("stop", Wanted::Is(6)), ..publish() }),
        ("only an answer repeats what it was asked", Message { when: when("protocol", Wanted::Asked), ..publish() }),
        (
            "an earlier message fits whatever this one fits",
            Message { when: when("protocol", Wanted::Is(0x12)), ..publish() },
        ),
        ("the JSON of no fields", Message { payload: Some(Payload::Json(vec![])), ..publish() }),
        ("`{a}{b}`: nothing stands between two words", Message { text: text("{a}{b}"), ..publish() }),
        ("`client` is no name for a word, or stands there twice", Message { text: text("{client}"), ..publish() }),
        (
            "there is no field `c`, and the text has no such word",
            Message { text: text("{a}"), topic: Some("{c}".to_owned()), ..publish() },
        ),
    ] {
        assert_eq!(message(given), format!("message 9 (publish): {expected}"));
    }
    let push = |change: fn(&mut Message)| error(|spec| change(&mut spec.messages[7]));
    assert_eq!(push(|push| push.payload = None), "message 8 (push): it needs `payload`");
    assert_eq!(
        push(|push| push.payload = Some(Payload::Json(vec!["content".to_owned()]))),
        "message 8 (push): JSON is read, not written"
    );
    assert_eq!(
        push(|push| push.payload = Some(Payload::Field("serial".to_owned()))),
        "message 8 (push): field `serial` is written already: by its shape, as a length, or twice"
    );
    assert_eq!(
        push(|push| push.payload = Some(Payload::Field("crc".to_owned()))),
        "message 8 (push): field `crc` is written already: by its shape, as a length, or twice"
    );
    assert_eq!(
        push(|push| push.topic = Some("a/{content}".to_owned())),
        "message 8 (push): the topic of a push is one name in braces: where it is written"
    );
    assert_eq!(message(Message::new(Kind::Pong)), "message 9 (pong): there is one already");
    assert_eq!(push(|push| push.tag = None), "message 4 (ack): it has a tag, and no push has one");
    assert_eq!(
        error(|spec| spec.messages.retain(|message| message.kind != Kind::Hello)),
        "framing: no message is a hello"
    );
    assert_eq!(
        error(|spec| spec.messages[0].client = Some("{client}".to_owned())),
        "message 1 (hello): there is no client before a hello"
    );
}
