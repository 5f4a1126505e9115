//! A connection under test, its packets in, and what comes out as text.

use std::fmt::Write;

use postroad_base::{ClientId, ConnectionId, MonoMillis, Now, ReasonCode, Tag, WallMillis};
use postroad_broker::api::{self, Event, Principal};
use postroad_protocol::gather::Gather;
use postroad_protocol::mqtt::{Connect, Decoded, Packet, Version, decode};
use postroad_session::mqtt::{Closing, Connection, Handshake, HandshakeStep, Limits, Received, Refusal};

pub const ID: ConnectionId = ConnectionId(7);

pub fn at(millis: u64) -> Now {
    Now { mono: MonoMillis(millis), wall: WallMillis(1_000_000 + millis) }
}

pub fn tag(number: u16) -> Tag {
    Tag::new(number).expect("a test's tag is not 0")
}

pub fn bytes(version: Version, packet: &Packet<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    packet.encode(version, &mut out);
    out
}

pub fn handshake(input: &[u8], limits: &Limits) -> Result<HandshakeStep, Refusal> {
    Handshake.receive(input, limits)
}

/// Lets a client in and answers with success.
pub fn connected(connect: Connect<'_>, limits: &Limits) -> (Connection, api::Connect, String) {
    let version = connect.version;
    let input = bytes(version, &Packet::Connect(Box::new(connect)));
    let Ok(HandshakeStep::Connect { request, consumed }) = handshake(&input, limits) else {
        panic!("the handshake does not let the client in")
    };
    assert_eq!(consumed, input.len());
    let client = request.client.clone().unwrap_or_else(|| ClientId::from("assigned"));
    let (mut connection, ask) = Connection::new(ID, *request, client, Principal::default(), limits, at(0));
    let mut out = Gather::new();
    connection.connected(false, &[], limits, &mut out);
    let answer = written(version, &mut out);
    (connection, ask, answer)
}

pub fn simple(version: Version) -> Connection {
    connected(Connect::new(version, "c"), &Limits::default()).0
}

/// Hands one packet to the connection; the event, or why it closes.
pub fn receive(connection: &mut Connection, packet: &Packet<'_>) -> Result<Option<Event>, Closing> {
    receive_with(connection, packet, &Limits::default(), &mut Gather::new())
}

pub fn receive_with(
    connection: &mut Connection,
    packet: &Packet<'_>,
    limits: &Limits,
    out: &mut Gather,
) -> Result<Option<Event>, Closing> {
    let input = bytes(connection.version(), packet);
    match connection.receive(at(0), &input, limits, out)? {
        Received::Packet { size, event } => {
            assert_eq!(size, input.len());
            Ok(event)
        }
        Received::Incomplete { needed } => panic!("{needed} bytes needed, {} given", input.len()),
    }
}

pub fn reason_of(result: Result<Option<Event>, Closing>) -> Option<ReasonCode> {
    result.err().map(|closing| closing.reason)
}

/// Takes what was written and shows it, packet by packet.
pub fn written(version: Version, out: &mut Gather) -> String {
    let mut slices = [std::io::IoSlice::new(&[]); 64];
    let count = out.io_slices(&mut slices);
    let all: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
    let mut rest = &all[..];
    let mut text = String::new();
    while !rest.is_empty() {
        let Ok(Decoded::Packet { packet, size }) = decode(rest, Some(version), u32::MAX) else {
            panic!("the server wrote no packet: {rest:?}")
        };
        writeln!(text, "{packet:?}").expect("writing to a string");
        rest = &rest[size..];
    }
    let len = out.len();
    out.consume(len);
    text
}
