//! What a device of the shipped frames may say when, and what it is told. No clock, no socket.

use std::io::IoSlice;
use std::sync::Arc;

use bytes::Bytes;
use expect_test::expect;
use postroad_base::{
    ConnectionId, Message, MessageId, MonoMillis, Now, Qos, QueueId, ReasonCode, SessionExpiry, Tag, TopicName,
    WallMillis,
};
use postroad_broker::Resend;
use postroad_broker::api::{Connect, Delivery, DisconnectCause, Event, Principal};
use postroad_protocol::frame::{Declared, Kind, Plan, Spec, examples};
use postroad_protocol::gather::Gather;
use postroad_session::framed::{Connection, Delivered, End, Handshake, HandshakeStep, Received, Refusal};

const ID: ConnectionId = ConnectionId(7);
const HELLO_BYTES_MAX: usize = 2000;

fn at(millis: u64) -> Now {
    Now { mono: MonoMillis(millis), wall: WallMillis(1_000_000 + millis) }
}

/// A connection, its codec, and all that it has written.
struct Device {
    codec: Declared,
    connection: Connection,
    out: Gather,
}

fn codec(spec: &Spec) -> Declared {
    Declared::new(Arc::new(Plan::compile(spec).expect("it can be")))
}

fn hello(spec: &Spec, input: &[u8]) -> Result<HandshakeStep, Refusal> {
    Handshake.receive(&mut codec(spec), input, HELLO_BYTES_MAX)
}

impl Device {
    /// One that has said hello, and what it asks of the broker.
    fn introduced(spec: &Spec, input: &[u8]) -> (Self, Connect) {
        let mut codec = codec(spec);
        let step = Handshake.receive(&mut codec, input, HELLO_BYTES_MAX);
        let Ok(HandshakeStep::Connect { request, consumed }) = step else { panic!("{step:?}") };
        assert_eq!(consumed, input.len());
        let (connection, connect) = Connection::new(ID, *request, Principal::default(), SessionExpiry::NEVER, at(0));
        (Self { codec, connection, out: Gather::new() }, connect)
    }

    /// One that has been welcomed; the welcome is taken out of the output.
    fn new(spec: &Spec, input: &[u8]) -> Self {
        let (mut device, _) = Self::introduced(spec, input);
        device.connection.connected(&mut device.codec, &mut device.out);
        device.written();
        device
    }

    fn lines() -> Self {
        Self::new(&examples::crlf_lines(), b"HELLO d1\r\n")
    }

    /// What was written since the last call.
    fn written(&mut self) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 64];
        let count = self.out.io_slices(&mut slices);
        let all: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
        self.out.clear();
        all
    }

    fn text(&mut self) -> String {
        self.written().escape_ascii().to_string()
    }

    fn receive(&mut self, input: &[u8]) -> Result<Option<Event>, End> {
        match self.connection.receive(&mut self.codec, at(0), input, &mut self.out).map_err(|end| *end)? {
            Received::Packet { size, event } => {
                assert_eq!(size, input.len());
                Ok(event)
            }
            Received::Incomplete { needed } => panic!("{needed} bytes needed, {} given", input.len()),
        }
    }

    fn event(&mut self, input: &[u8]) -> Option<Event> {
        self.receive(input).expect("it goes on")
    }

    fn end(&mut self, input: &[u8]) -> String {
        let End { cause, reason, broken, detail, by_client } = self.receive(input).expect_err("it ends");
        let broken = broken.map(|broken| broken.name());
        format!("{cause:?} {reason:?} {broken:?} {detail} {by_client}")
    }

    fn publish(&mut self, input: &[u8]) -> (Option<Tag>, Arc<Message>) {
        let event = self.event(input);
        let Some(Event::Publish { connection: ID, message }) = event else { panic!("{event:?}") };
        (message.tag, message.message)
    }

    fn published(&mut self, tag: Option<Tag>, reason: ReasonCode) -> String {
        self.connection.published(&mut self.codec, tag.expect("it is answered"), reason, &mut self.out);
        self.text()
    }

    fn deliver(&mut self, delivery: &Delivery) -> Delivered {
        self.connection.deliver(&mut self.codec, delivery, &mut self.out)
    }

    /// Sends a push, and says what is written and which event that is.
    fn push(&mut self, delivery: &Delivery) -> String {
        let delivered = self.deliver(delivery);
        format!("{} {delivered:?}", self.text())
    }
}

fn delivery(tag: u16, qos: Qos, payload: &'static [u8]) -> Delivery {
    let message = Message {
        id: MessageId(1),
        topic: TopicName::new("$client/d1/do").expect("valid"),
        payload: Bytes::from_static(payload),
        properties: Bytes::new(),
        qos,
        retain: false,
        expires_at: None,
        publisher: QueueId::NONE,
        extras: None,
    };
    let topic = Some(TopicName::new("$push/do").expect("valid"));
    let tag = Tag::new(tag);
    Delivery { message: Arc::new(message), tag, qos, dup: false, retain: false, topic, identifiers: Default::default() }
}

fn push(tag: u16, payload: &'static [u8]) -> Delivery {
    delivery(tag, Qos::AtLeastOnce, payload)
}

#[test]
fn hello_asks_for_a_session_that_lasts() {
    let (mut device, connect) = Device::introduced(&examples::crlf_lines(), b"HELLO d1\r\n");
    assert_eq!((connect.client.as_str(), connect.clean_start, connect.expiry), ("d1", false, SessionExpiry::NEVER));
    assert_eq!((connect.receive_maximum, connect.resend, connect.hears_refusals), (u16::MAX, Resend::Live, true));
    let early = device.connection.receive(&mut device.codec, at(0), b"PING\r\n", &mut device.out);
    assert!(matches!(early, Ok(Received::Incomplete { .. })), "nothing is read before the welcome");
    assert!(matches!(device.deliver(&push(1, b"x")), Delivered::Sent(None)));
    assert_eq!(device.text(), "", "nor is anything else said");
    device.connection.connected(&mut device.codec, &mut device.out);
    assert_eq!(device.text(), r"WELCOME\r\n");
    let (_, connect) = Device::introduced(&examples::vehicle40(), &[0, 0, 0, 0x12, 0x67]);
    assert_eq!((connect.receive_maximum, connect.resend), (1, Resend::Reconnect), "no tags: one at a time");
}

#[test]
fn hello_has_credentials_and_nothing_else_comes_first() {
    let step = hello(&examples::crlf_lines(), b"HELLO d1 u secret\r\nPING\r\n").expect("a hello");
    let HandshakeStep::Connect { request, consumed } = step else { panic!("{step:?}") };
    assert_eq!((request.username.as_deref(), request.password.as_deref()), (Some("u"), Some(&b"secret"[..])));
    assert_eq!(consumed, b"HELLO d1 u secret\r\n".len());
    let refused = |input: &[u8]| {
        let Refusal { broken, detail } = hello(&examples::crlf_lines(), input).expect_err("refused");
        format!("{}: {detail}", broken.name())
    };
    assert_eq!(refused(b"PING\r\n"), "order: ping in the place of hello");
    assert_eq!(refused(b"GET / HTTP/1.1\r\n"), "command: no message of a device has such a text");
    assert_eq!(refused(b"HELLO \r\n"), "value: a client's name has 1 to 65,535 bytes, and none is 0");
    assert_eq!(refused(&[b'x'; 2001]), "too_long: a first frame of 2002 bytes at least");
    assert!(matches!(hello(&examples::crlf_lines(), b"HEL"), Ok(HandshakeStep::NeedMore { needed: 4 })));
}

#[test]
fn a_refused_hello_is_told_so_where_there_are_words() {
    let refused = |spec: &Spec, input: &[u8]| {
        let mut codec = codec(spec);
        let Ok(HandshakeStep::Connect { request, .. }) = Handshake.receive(&mut codec, input, HELLO_BYTES_MAX) else {
            panic!("a hello")
        };
        request.refuse(&mut codec, ReasonCode::NotAuthorized).escape_ascii().to_string()
    };
    assert_eq!(refused(&examples::crlf_lines(), b"HELLO d1\r\n"), r"NO 0 135\r\n");
    assert_eq!(refused(&examples::vehicle40(), &[0, 0, 0, 0, 1]), r"\xc0\x00\x00\x00\x87");
    let mut deaf = examples::crlf_lines();
    deaf.messages.retain(|message| message.kind != Kind::Refused);
    assert_eq!(refused(&deaf, b"HELLO d1\r\n"), "");
    let (mut device, _) = Device::introduced(&examples::crlf_lines(), b"HELLO d1\r\n");
    device.connection.close(&mut device.codec, ReasonCode::ServerShuttingDown, &mut device.out);
    assert_eq!(device.text(), r"NO 0 139\r\n", "before the welcome the end is a refusal");
}

#[test]
fn a_publish_is_answered_by_its_tag() {
    let mut device = Device::lines();
    let (first, message) = device.publish(b"PUB 7 a/b 21.5 degrees\r\n");
    assert_eq!(
        (message.topic.as_str(), &message.payload[..], message.qos),
        ("a/b", &b"21.5 degrees"[..], Qos::AtLeastOnce)
    );
    let (second, _) = device.publish(b"PUB 7 a/b again\r\n");
    assert_ne!(first, second, "the broker tells them apart");
    assert_eq!(device.published(first, ReasonCode::Success), r"OK 7\r\n");
    assert_eq!(device.published(second, ReasonCode::QuotaExceeded), r"NO 7 151\r\n");
    assert_eq!(
        device.end(b"PUB 8 a/# x\r\n").split(' ').take(3).collect::<Vec<_>>(),
        ["Lost", "MalformedPacket", "Some(\"value\")"]
    );
}

#[test]
fn answers_repeat_tag_and_command() {
    let login = b"\x78\x78\x0d\x01\x01\x23\x45\x67\x89\x01\x23\x45\x00\x01\x8c\xdd\r\n";
    let (mut device, connect) = Device::introduced(&examples::gt06(), login);
    assert_eq!(connect.client.as_str(), "tracker-0123456789012345");
    device.connection.connected(&mut device.codec, &mut device.out);
    expect![[r"xx\x05\x01\x00\x01\xd9\xdc\r\n"]].assert_eq(&device.text());
    assert!(device.event(b"\x78\x78\x05\x13\x00\x02\xdb\x6a\r\n").is_none());
    expect![[r"xx\x05\x13\x00\x02\xdbj\r\n"]].assert_eq(&device.text());
    let (tag, message) = device.publish(b"\x78\x78\x0a\x12ABC\r\n\x00\x03\x41\x14\r\n");
    assert_eq!(message.topic.as_str(), "trackers/tracker-0123456789012345/location");
    expect![[r"xx\x05\x12\x00\x03\x90?\r\n"]].assert_eq(&device.published(tag, ReasonCode::NotAuthorized));
    let lost = device.connection.refusal_ends(ReasonCode::QuotaExceeded).expect("it can't be told");
    assert_eq!((lost.reason, lost.broken), (ReasonCode::QuotaExceeded, None));
    assert!(device.connection.refusal_ends(ReasonCode::NotAuthorized).is_none());
    assert!(device.connection.refusal_ends(ReasonCode::PayloadFormatInvalid).is_none());
    assert!(device.connection.refusal_ends(ReasonCode::NoMatchingSubscribers).is_none());
}

#[test]
fn pushes_with_tags_are_acknowledged_by_tag() {
    let mut device = Device::lines();
    assert_eq!(device.push(&push(700, b"one")), r"MSG 700 $push/do one\r\n Sent(None)");
    assert_eq!(device.push(&push(701, b"two")), r"MSG 701 $push/do two\r\n Sent(None)");
    assert_eq!(device.push(&delivery(0, Qos::AtMostOnce, b"zero")), r"MSG 0 $push/do zero\r\n Sent(None)");
    let mut ack = |text: &[u8]| format!("{:?}", device.event(text));
    assert_eq!(ack(b"ACK 0\r\n"), "None");
    let acknowledged = |tag| format!("Some(Acknowledge {{ connection: {ID:?}, tag: Tag({tag}), reason: Success }})");
    assert_eq!(ack(b"ACK 701\r\n"), acknowledged(701));
    assert_eq!(ack(b"ACK 700\r\n"), acknowledged(700));
    assert_eq!(ack(b"ACK 9\r\n"), acknowledged(9), "the broker counts tags that it does not know");
    assert_eq!(ack(b"ACK 70000\r\n"), "None");
}

/// The frames have one step for what MQTT does in two.
#[test]
fn qos_2_is_acknowledged_in_one_step() {
    let mut device = Device::lines();
    device.push(&delivery(5, Qos::ExactlyOnce, b"x"));
    assert!(matches!(device.event(b"ACK 5\r\n"), Some(Event::Receive { tag, .. }) if tag.get() == 5));
    let tag = Tag::new(5).expect("not 0");
    assert!(matches!(device.connection.release(tag), Event::Complete { tag: of, .. } if of == tag));
}

#[test]
fn pushes_without_tags_are_acknowledged_in_turn() {
    let mut device = Device::new(&examples::vehicle40(), &[0, 0, 0, 0x12, 0x67]);
    assert!(device.event(&[0x40, 0, 0, 0, 0]).is_none(), "an ack of an earlier connection");
    assert_eq!(device.push(&delivery(0, Qos::AtMostOnce, b"1")), r"\xb0\x00\x00\x00\x01 Sent(None)");
    assert_eq!(device.push(&push(700, b"2")), r"\xb0\x00\x00\x00\x02 Sent(None)");
    assert!(device.event(&[0x40, 0, 0, 0, 0]).is_none(), "that of QoS 0");
    assert!(matches!(device.event(&[0x40, 0, 0, 0, 0]), Some(Event::Acknowledge { tag, .. }) if tag.get() == 700));
    let (tag, message) = device.publish(&[0x21, 0x23, 0x45, 0x67, 0x89]);
    assert_eq!((message.topic.as_str(), &message.payload[..]), ("vehicles/vehicle-4711/position", &b"4886718345"[..]));
    assert_eq!(device.published(tag, ReasonCode::Success), r"\xa0\x00\x00\x00\x00", "answered in turn");
}

/// What these frames can't say ends as refused, and a later ack is not for it.
#[test]
fn what_does_not_fit_is_refused() {
    let mut device = Device::new(&examples::vehicle40(), &[0, 0, 0, 0x12, 0x67]);
    let refused = device.push(&push(3, b"not a number"));
    assert_eq!(
        refused,
        format!(" Unfit(Some(Acknowledge {{ connection: {ID:?}, tag: Tag(3), reason: PayloadFormatInvalid }}))")
    );
    assert!(device.event(&[0x40, 0, 0, 0, 0]).is_none());
    assert!(matches!(device.deliver(&delivery(0, Qos::AtMostOnce, b"x")), Delivered::Unfit(None)));

    let mut silent = examples::crlf_lines();
    silent.messages.retain(|message| message.kind != Kind::Push);
    let mut device = Device::new(&silent, b"HELLO d1\r\n");
    assert!(device.push(&push(3, b"x")).starts_with(" Unfit(Some("));
    assert!(device.event(b"ACK 3\r\n").is_none());
}

/// Without ack frames: at most once.
#[test]
fn pushes_that_nobody_acknowledges_are_over_when_they_are_sent() {
    let mut spec = examples::crlf_lines();
    spec.messages.retain(|message| message.kind != Kind::Ack);
    let (_, connect) = Device::introduced(&spec, b"HELLO d1\r\n");
    assert_eq!((connect.receive_maximum, connect.resend), (u16::MAX, Resend::Reconnect));
    let mut device = Device::new(&spec, b"HELLO d1\r\n");
    let sent = device.push(&push(3, b"x"));
    assert_eq!(
        sent,
        format!(r"MSG 0 $push/do x\r\n Sent(Some(Acknowledge {{ connection: {ID:?}, tag: Tag(3), reason: Success }}))")
    );
    assert_eq!(device.end(b"ACK 3\r\n").split(' ').nth(2), Some("Some(\"command\")"));
}

/// Without accepted frames: at most once, and nothing is answered.
#[test]
fn publishes_that_nobody_answers_are_of_qos_0() {
    let mut spec = examples::crlf_lines();
    spec.messages.retain(|message| message.kind != Kind::Accepted);
    let mut device = Device::new(&spec, b"HELLO d1\r\n");
    let (tag, message) = device.publish(b"PUB 7 a/b x\r\n");
    assert_eq!((tag, message.qos), (None, Qos::AtMostOnce));
}

#[test]
fn a_broken_rule_or_frame_ends_the_connection() {
    assert_eq!(Device::lines().end(b"HELLO d1\r\n"), r#"Lost ProtocolError Some("order") hello after the hello false"#);
    assert_eq!(
        Device::lines().end(b"NONSENSE\r\n"),
        r#"Lost MalformedPacket Some("command") no message of a device has such a text false"#
    );
    assert_eq!(
        Device::lines().end(&[b'x'; 4096]),
        r#"Lost PacketTooLarge Some("too_long") no delimiter within 4096 bytes false"#
    );
    let mut device = Device::lines();
    assert_eq!(device.end(b"BYE\r\n"), "Normal { expiry: None } Success None bye true");
    assert!(matches!(device.receive(b"anything"), Ok(None)), "after the end all is ignored");
}

#[test]
fn silence_ends_the_connection() {
    let mut device = Device::lines();
    assert_eq!(device.connection.deadline(), Some(MonoMillis(180_000)));
    assert!(device.connection.on_deadline(at(179_999)).is_none());
    device.connection.touch(at(1000));
    assert!(device.connection.on_deadline(at(180_999)).is_none());
    let end = device.connection.on_deadline(at(181_000)).expect("it is over");
    assert_eq!((end.reason, end.cause), (ReasonCode::KeepAliveTimeout, DisconnectCause::Lost));
}

/// An answer that does not fit: the device would wait for it for ever.
#[test]
fn an_answer_that_can_not_be_written_ends_the_connection() {
    let mut spec = examples::crlf_lines();
    let accepted = spec.messages.iter_mut().find(|message| message.kind == Kind::Accepted).expect("there is one");
    let text = accepted.text.as_mut().expect("a text");
    text.pattern = format!("{} {{tag}}", "O".repeat(4086));
    let mut device = Device::new(&spec, b"HELLO d1\r\n");
    let (tag, _) = device.publish(b"PUB 12345678 a/b x\r\n");
    assert_eq!(device.published(tag, ReasonCode::Success), "");
    assert!(device.connection.deadline().is_some_and(|deadline| deadline <= MonoMillis(0)));
    assert_eq!(device.end(b"PING\r\n"), "Lost PacketTooLarge None an answer does not fit into its frame false");
}
