//! A client's bytes from its first packet on, and a broker that says yes to everything.
//!
//! INT-5: how the network cuts the stream must not matter. So the same bytes are fed twice, whole and in pieces, and all
//! that comes out must be the same: events, answers, how it ends.

use std::io::IoSlice;
use std::sync::Arc;

use bytes::Bytes;
use postroad_base::{
    ClientId, ConnectionId, Message, MessageId, MonoMillis, Now, Qos, QueueId, ReasonCode, Tag, TopicName, WallMillis,
};
use postroad_broker::api::{Delivery, Event, Principal};
use postroad_protocol::gather::Gather;
use postroad_protocol::mqtt::{Decoded, PACKET_SIZE_MAX, Version, decode};
use postroad_session::mqtt::{Closing, Connection, Handshake, HandshakeStep, Limits, Received};

use crate::input::Input;

const ID: ConnectionId = ConnectionId(7);
const NOW: Now = Now { mono: MonoMillis(1_000), wall: WallMillis(1_000_000) };
/// Piece sizes that an input may name; they repeat.
const PIECES_MAX: usize = 8;

/// What can be seen of a conversation from outside.
#[derive(Debug, Default, PartialEq, Eq)]
struct Transcript {
    /// Each event and the end, in words.
    lines: Vec<String>,
    /// All that was written.
    output: Vec<u8>,
}

/// Feeds the conversation whole and in pieces.
pub fn check(input: &[u8]) {
    let mut input = Input(input);
    // How many events wait for their answers: a broker that commits answers late, and many at once.
    let patience = usize::from(input.byte() % 8);
    let count = 1 + input.below(PIECES_MAX);
    let pieces: Vec<usize> = input.slice(count).iter().map(|&size| usize::from(size).max(1)).collect();
    let stream = input.0;
    let whole = converse(stream, &[usize::MAX], patience);
    let cut = converse(stream, if pieces.is_empty() { &[1] } else { &pieces }, patience);
    assert_eq!(whole, cut, "in pieces of {pieces:?}");
}

fn converse(stream: &[u8], pieces: &[usize], patience: usize) -> Transcript {
    let mut client = Client::new(patience);
    let (mut from, mut sizes) = (0, pieces.iter().cycle());
    while from < stream.len() && !client.over {
        let size = *sizes.next().expect("there is a piece size");
        let upto = from.saturating_add(size).min(stream.len());
        client.buffer.extend_from_slice(&stream[from..upto]);
        client.read();
        from = upto;
    }
    client.answer_all();
    client.check_output();
    client.transcript
}

/// One connection, driven as `engine` drives it.
struct Client {
    limits: Limits,
    connection: Option<Connection>,
    version: Version,
    /// Largest packet that the client takes `[MQTT-3.1.2-24]`.
    size_max: u32,
    buffer: Vec<u8>,
    out: Gather,
    /// Events that the broker has not answered.
    waiting: Vec<Event>,
    patience: usize,
    over: bool,
    transcript: Transcript,
}

impl Client {
    fn new(patience: usize) -> Self {
        Self {
            // Small, so that an input can reach them.
            limits: Limits { packet_bytes_max: 4096, connect_bytes_max: 1024, receive_maximum: 4, ..Limits::default() },
            connection: None,
            version: Version::V3_1,
            size_max: PACKET_SIZE_MAX,
            buffer: Vec::new(),
            out: Gather::new(),
            waiting: Vec::new(),
            patience,
            over: false,
            transcript: Transcript::default(),
        }
    }

    /// Takes all whole packets off the buffer.
    fn read(&mut self) {
        while !self.over {
            let step = if self.connection.is_none() { self.shake_hands() } else { self.receive() };
            match step {
                Some(size) => drop(self.buffer.drain(..size)),
                None => return,
            }
        }
    }

    /// Bytes to take off; `None`: more are needed.
    fn shake_hands(&mut self) -> Option<usize> {
        match Handshake.receive(&self.buffer, &self.limits) {
            Ok(HandshakeStep::NeedMore { needed }) => {
                assert!(needed > self.buffer.len(), "{needed} bytes needed, {} there", self.buffer.len());
                None
            }
            Ok(HandshakeStep::Connect { request, consumed }) => {
                self.version = request.version;
                self.size_max = request.packet_bytes_max;
                self.note(format!("{request:?}"));
                let client = request.client.clone().unwrap_or_else(|| ClientId::from("assigned"));
                let (mut connection, ask) =
                    Connection::new(ID, *request, client, Principal::default(), &self.limits, NOW);
                self.note(format!("{ask:?}"));
                connection.connected(false, &[], &self.limits, &mut self.out);
                self.connection = Some(connection);
                Some(consumed)
            }
            Err(refusal) => {
                self.note(format!("refused: {:?} {}", refusal.reason, refusal.detail));
                self.transcript.output.extend_from_slice(&refusal.answer);
                self.over = true;
                None
            }
        }
    }

    fn receive(&mut self) -> Option<usize> {
        let connection = self.connection.as_mut().expect("the handshake is done");
        match connection.receive(NOW, &self.buffer, &self.limits, &mut self.out) {
            Ok(Received::Incomplete { needed }) => {
                assert!(needed > self.buffer.len(), "{needed} bytes needed, {} there", self.buffer.len());
                None
            }
            Ok(Received::Packet { size, event }) => {
                assert!(0 < size && size <= self.buffer.len(), "a packet of {size} of {} bytes", self.buffer.len());
                if let Some(event) = event {
                    self.note(format!("{event:?}"));
                    self.waiting.push(event);
                }
                if self.waiting.len() > self.patience {
                    self.answer_all();
                }
                Some(size)
            }
            Err(closing) => {
                self.end(closing);
                None
            }
        }
    }

    fn end(&mut self, closing: Closing) {
        self.answer_all();
        self.note(format!("{closing:?}"));
        let connection = self.connection.as_mut().expect("only a connection closes");
        if !closing.by_client {
            connection.close(closing.reason, closing.detail, &mut self.out);
        }
        self.over = true;
    }

    fn answer_all(&mut self) {
        for event in std::mem::take(&mut self.waiting) {
            self.answer(event);
        }
    }

    /// The broker's part.
    fn answer(&mut self, event: Event) {
        let connection = self.connection.as_mut().expect("events come from a connection");
        let out = &mut self.out;
        match event {
            Event::Publish { message, .. } => {
                if let Some(tag) = message.tag {
                    connection.published(tag, ReasonCode::Success, out);
                }
            }
            Event::Release { tag, .. } => connection.completed(tag, ReasonCode::Success, out),
            Event::Receive { tag, .. } => connection.release(tag, ReasonCode::Success, out),
            Event::Subscribe { tag, filters, .. } => {
                let reasons: Vec<_> = filters
                    .iter()
                    .map(|line| match &line.filter {
                        Ok(_) => ReasonCode::Success,
                        Err(reason) => *reason,
                    })
                    .collect();
                connection.subscribed(tag, &reasons, out);
                let _sent_or_too_large = connection.deliver(NOW, &delivery(tag), out);
            }
            Event::Unsubscribe { tag, filters, .. } => {
                let reasons: Vec<_> = filters.iter().map(|filter| filter.as_ref().err().copied()).collect();
                let reasons: Vec<_> = reasons.into_iter().map(|reason| reason.unwrap_or(ReasonCode::Success)).collect();
                connection.unsubscribed(tag, &reasons, out);
            }
            Event::Acknowledge { .. } | Event::Complete { .. } => {}
            other => panic!("no packet of a client means {other:?}"),
        }
    }

    fn note(&mut self, line: String) {
        self.transcript.lines.push(line);
    }

    /// Moves the output to the transcript. Each packet must be one, and no larger than the client takes.
    fn check_output(&mut self) {
        while !self.out.is_empty() {
            let mut slices = [IoSlice::new(&[]); 4];
            let filled = self.out.io_slices(&mut slices);
            let before = self.transcript.output.len();
            slices[..filled].iter().for_each(|slice| self.transcript.output.extend_from_slice(slice));
            self.out.consume(self.transcript.output.len() - before);
        }
        if self.connection.is_none() {
            return;
        }
        let mut rest = &self.transcript.output[..];
        while !rest.is_empty() {
            let Ok(Decoded::Packet { size, .. }) = decode(rest, Some(self.version), PACKET_SIZE_MAX) else {
                panic!("the server wrote no packet: {rest:?}")
            };
            assert!(!self.version.is_v5() || size <= self.size_max as usize, "{size} bytes for {}", self.size_max);
            rest = &rest[size..];
        }
    }
}

/// A message of each size class of the output buffer, at each level.
fn delivery(tag: Tag) -> Delivery {
    let number = tag.get();
    let qos = Qos::from_number((number % 3) as u8).expect("below 3");
    let message = Message {
        id: MessageId(u128::from(number)),
        topic: TopicName::new(format!("t/{}", number % 5)).expect("a topic name"),
        payload: Bytes::from(vec![b'x'; usize::from(number % 4) * 1500]),
        properties: Bytes::new(),
        qos,
        retain: false,
        expires_at: (number % 7 == 0).then_some(WallMillis(1_500_000)),
        publisher: QueueId::NONE,
        extras: None,
    };
    Delivery {
        message: Arc::new(message),
        tag: (qos != Qos::AtMostOnce).then_some(tag),
        qos,
        dup: false,
        retain: number % 2 == 0,
        topic: None,
        identifiers: Default::default(),
    }
}
