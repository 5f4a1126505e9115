//! Plays a conversation written as text: what the client sends, byte by byte, and what the broker wants, line by line;
//! what comes of each line stands below it.
//!
//! ```text
//! > 30 [ 'a/b' ( 02 00 00 00 0a ) "hi" ]     the client sends: 'text' has two bytes of length in front, "text" none,
//!                                            [ ] and ( ) have a variable byte integer in front: the length inside
//! connected present                          the broker's Effect::Connected; likewise published, completed, release,
//! published 1 97                             subscribed, unsubscribed (tag, reason codes), refused (reason code)
//! deliver 1 4 a/b hello                      Effect::Deliver: QoS, tag, topic, payload
//! close 8e why                               the server ends the connection
//! at 15000                                   milliseconds since the CONNECT
//! ```

use std::fmt::Write;
use std::sync::Arc;

use bytes::Bytes;
use expect_test::Expect;
use postroad_base::{ClientId, Message, MessageId, Now, Qos, QueueId, ReasonCode, TopicName};
use postroad_broker::api::{Delivery, Event, Principal};
use postroad_protocol::gather::Gather;
use postroad_session::mqtt::{Closing, Connection, Delivered, Handshake, HandshakeStep, Limits, Received};

use crate::common::{ID, at, tag};

/// Plays `script` and compares it, answers included.
pub fn check(script: &str, expected: Expect) {
    check_with(&Limits::default(), script, expected);
}

pub fn check_with(limits: &Limits, script: &str, expected: Expect) {
    expected.assert_eq(&played_with(limits, script));
}

/// The script with what came of each line.
pub fn played(script: &str) -> String {
    played_with(&Limits::default(), script)
}

fn played_with(limits: &Limits, script: &str) -> String {
    let mut player = Player { limits, now: at(0), session: None, out: Gather::new(), text: String::new() };
    for line in script.lines().map(str::trim).filter(|line| !line.is_empty()) {
        writeln!(player.text, "{line}").expect("writing to a string");
        player.play(line);
        player.show_output();
    }
    player.text
}

/// The bytes of a line.
pub fn packet(text: &str) -> Vec<u8> {
    let mut blocks = vec![Vec::new()];
    for token in tokens(text) {
        let (first, inside) = (token.as_bytes()[0], &token[1..token.len().max(2) - 1]);
        match first {
            b'[' | b'(' => blocks.push(Vec::new()),
            b']' | b')' => {
                let block = blocks.pop().expect("a bracket was opened");
                let outer = blocks.last_mut().expect("a bracket was opened");
                push_length(outer, block.len());
                outer.extend(block);
            }
            b'"' => blocks.last_mut().expect("there is one").extend(inside.as_bytes()),
            b'\'' => {
                let block = blocks.last_mut().expect("there is one");
                block.extend(u16::try_from(inside.len()).expect("short").to_be_bytes());
                block.extend(inside.as_bytes());
            }
            _ => blocks.last_mut().expect("there is one").push(number(token)),
        }
    }
    assert_eq!(blocks.len(), 1, "a bracket is not closed: {text}");
    blocks.remove(0)
}

fn tokens(text: &str) -> Vec<&str> {
    let (mut rest, mut tokens) = (text.trim_start(), Vec::new());
    while let Some(first) = rest.chars().next() {
        let len = match first {
            '"' | '\'' => rest[1..].find(first).expect("a closing quote") + 2,
            _ => rest.find(' ').unwrap_or(rest.len()),
        };
        tokens.push(&rest[..len]);
        rest = rest[len..].trim_start();
    }
    tokens
}

fn number(hex: &str) -> u8 {
    u8::from_str_radix(hex, 16).unwrap_or_else(|_| panic!("{hex:?} is no byte"))
}

fn push_length(out: &mut Vec<u8>, mut length: usize) {
    loop {
        let more = if length > 127 { 0x80 } else { 0 };
        out.push((length % 128) as u8 | more);
        length /= 128;
        if length == 0 {
            return;
        }
    }
}

struct Player<'a> {
    limits: &'a Limits,
    now: Now,
    session: Option<Connection>,
    out: Gather,
    text: String,
}

impl Player<'_> {
    fn play(&mut self, line: &str) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let words: Vec<&str> = rest.split_whitespace().collect();
        match word {
            "at" => return self.wait(rest),
            ">" if self.session.is_none() => return self.handshake(&packet(rest)),
            ">" => return self.receive(&packet(rest)),
            _ => {}
        }
        let session = self.session.as_mut().expect("CONNECT was let in");
        let out = &mut self.out;
        let reasons = |words: &[&str]| -> Vec<ReasonCode> {
            words.iter().map(|word| ReasonCode::from_number(number(word)).expect("a reason code")).collect()
        };
        let tag_of = |word: &str| tag(word.parse().expect("a tag"));
        match word {
            "connected" => session.connected(rest == "present", &[], self.limits, out),
            "refused" => session.connect_refused(reasons(&words)[0], out),
            "published" => session.published(tag_of(words[0]), reasons(&words[1..])[0], out),
            "completed" => session.completed(tag_of(words[0]), reasons(&words[1..])[0], out),
            "release" => session.release(tag_of(words[0]), reasons(&words[1..])[0], out),
            "subscribed" => session.subscribed(tag_of(words[0]), &reasons(&words[1..]), out),
            "unsubscribed" => session.unsubscribed(tag_of(words[0]), &reasons(&words[1..]), out),
            "close" => session.close(reasons(&words[..1])[0], &words[1..].join(" "), out),
            "deliver" => self.deliver(&words),
            other => panic!("no such line: {other}"),
        }
    }

    fn handshake(&mut self, input: &[u8]) {
        match Handshake.receive(input, self.limits) {
            Ok(HandshakeStep::NeedMore { needed }) => self.say(&format!("needs {needed} bytes")),
            Ok(HandshakeStep::Connect { request, consumed }) => {
                assert_eq!(consumed, input.len());
                if request.username.is_some() || request.password.is_some() {
                    self.say(&format!("user {:?} password {:?}", request.username, request.password));
                }
                let client = request.client.clone().unwrap_or_else(|| ClientId::from("given"));
                let (session, connect) =
                    Connection::new(ID, *request, client, Principal::default(), self.limits, self.now);
                self.session = Some(session);
                let connect = format!("{connect:?}")
                    .replace("connection: ConnectionId(7), ", "")
                    .replace(", delivery: None", "")
                    .replace(", hears_refusals: true, resend: Reconnect", ""); // as MQTT 5 has it
                self.say(&connect.replace(", principal: Principal { user: None, groups: [] }", ""));
            }
            Err(refusal) => {
                self.out.push(&refusal.answer);
                self.say(&format!("refused: {} ({})", refusal.detail, refusal.reason.name()));
            }
        }
    }

    fn receive(&mut self, input: &[u8]) {
        let session = self.session.as_mut().expect("CONNECT was let in");
        match session.receive(self.now, input, self.limits, &mut self.out) {
            Ok(Received::Incomplete { needed }) => self.say(&format!("needs {needed} bytes")),
            Ok(Received::Packet { size, event }) => {
                assert_eq!(size, input.len());
                if let Some(event) = event {
                    self.say(&shown(&event));
                }
            }
            Err(closing) => self.close(closing),
        }
    }

    fn wait(&mut self, millis: &str) {
        self.now = at(millis.parse().expect("milliseconds"));
        if let Some(closing) = self.session.as_ref().and_then(|session| session.on_deadline(self.now)) {
            self.close(closing);
        }
    }

    fn close(&mut self, closing: Closing) {
        let Closing { cause, reason, detail, by_client } = closing;
        self.say(&format!("over: {detail} ({}), {cause:?}", reason.name()));
        if !by_client {
            self.session.as_mut().expect("CONNECT was let in").close(reason, "", &mut self.out);
        }
    }

    fn deliver(&mut self, words: &[&str]) {
        let qos = Qos::from_number(number(words[0])).expect("0, 1 or 2");
        let message = Message {
            id: MessageId(1),
            topic: TopicName::new(words[2]).expect("a topic"),
            payload: Bytes::copy_from_slice(words[3].as_bytes()),
            properties: Bytes::new(),
            qos,
            retain: false,
            expires_at: None,
            publisher: QueueId::NONE,
            extras: None,
        };
        let tag = qos.is_acknowledged().then(|| tag(words[1].parse().expect("a tag")));
        let (message, identifiers) = (Arc::new(message), Default::default());
        let delivery = Delivery { message, tag, qos, dup: false, retain: false, topic: None, identifiers };
        let session = self.session.as_mut().expect("CONNECT was let in");
        if let Delivered::TooLarge(event) = session.deliver(self.now, &delivery, &mut self.out) {
            self.say(&event.map_or_else(|| "too large".to_owned(), |event| shown(&event)));
        }
    }

    fn say(&mut self, what: &str) {
        writeln!(self.text, "    {what}").expect("writing to a string");
    }

    fn show_output(&mut self) {
        let mut slices = [std::io::IoSlice::new(&[]); 16];
        let count = self.out.io_slices(&mut slices);
        let bytes: Vec<String> =
            slices[..count].iter().flat_map(|slice| slice.iter()).map(|byte| format!("{byte:02x}")).collect();
        if !bytes.is_empty() {
            self.say(&format!("< {}", bytes.join(" ")));
        }
        self.out.clear();
    }
}

fn shown(event: &Event) -> String {
    if let Event::Publish { message, .. } = event {
        let (message, tag, dup) = (&*message.message, message.tag.map(|tag| tag.get()), message.dup);
        let Message { topic, payload, properties, qos, retain, expires_at, .. } = message;
        let text = format!(
            "Publish {topic} {payload:?} {qos:?} tag {tag:?} dup {dup} retain {retain} expires {expires_at:?} {properties:x}"
        );
        return text.trim_end().to_owned();
    }
    format!("{event:?}").replace("connection: ConnectionId(7), ", "")
}
