//! From bytes to events. All connections receive into the shard's one buffer and are decoded in place; only
//! the start of a packet whose end has not come yet is copied to the connection ([`crate::input`]).

use std::io;

use bytes::Bytes;
use postroad_base::{ConnectionId, ReasonCode};
use postroad_broker::api::{DisconnectCause, Event};
use postroad_protocol::frame::Codec;
use postroad_session::framed;
use postroad_session::mqtt::{Closing, Handshake, HandshakeStep, Limits, Received, Refusal};

use super::Shard;
use crate::config::{Listener, ListenerProtocol};
use crate::connection::{Connection, Stage};
use crate::counters::Refused;
use crate::session::{Ending, Request};

/// Receive calls for one connection in one turn; who has more to say goes to the end of the line.
const RECEIVES_PER_TURN: usize = 2;
/// What a CONNECT is worth, in packets: a session is made or found.
const CONNECT_WORTH: u64 = 8;
/// Bytes that are worth as much as a packet, whole or not.
const BYTES_OF_WORTH: u64 = 4096;
/// What a connection may still send while we wait for it to close.
const LINGER_BYTES_MAX: usize = 1 << 20;
/// Bytes of a packet that are shown in the log when decoding it made us panic.
const EVIDENCE_BYTES_MAX: usize = 256;

/// What became of one receive call.
enum Outcome {
    /// The kernel has no more, or the connection may not be read.
    Done,
    /// There may be more.
    More,
}

/// What became of bytes that were looked at.
struct Consumed {
    /// Bytes at the front that nobody needs any more.
    used: usize,
    /// Bytes that the packet behind them needs at least; 0 if nobody knows.
    needed: usize,
}

/// What became of a connection whose input was taken in.
struct Taken {
    may_read: bool,
    /// The peer has closed its side, and nobody else will look.
    hangup: bool,
}

/// What the front of the input was.
enum Step {
    /// Nothing whole: wait until there are so many bytes (0: until something changes).
    Incomplete {
        needed: usize,
    },
    /// A packet of this size.
    Packet {
        size: usize,
        event: Option<Event>,
    },
    /// A CONNECT of this size; authentication comes next.
    Introduced {
        size: usize,
    },
    /// Refused before it was a session.
    Refused(Refusal),
    Ending(Ending),
    /// Our code panicked over it.
    Panicked,
}

impl Shard {
    /// Reads what the connection has sent, up to its share of a turn.
    pub(super) fn read(&mut self, id: ConnectionId) {
        crate::crash::take_in_hand(Some(id));
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut outcome = Outcome::More;
        for _ in 0..RECEIVES_PER_TURN {
            outcome = self.receive(id, &mut buffer);
            if matches!(outcome, Outcome::Done) || self.has_read_enough() {
                break;
            }
        }
        self.buffer = buffer;
        crate::crash::take_in_hand(None);
        if matches!(outcome, Outcome::More) {
            self.read_again(id);
        }
    }

    fn receive(&mut self, id: ConnectionId, buffer: &mut [u8]) -> Outcome {
        let Some(connection) = self.connection(id) else { return Outcome::Done };
        if !connection.may_read() {
            return Outcome::Done; // whoever lets it read again calls `read_again`
        }
        if connection.input.is_whole() && !self.take_in(id, &[]).may_read {
            return Outcome::Done;
        }
        let Some(connection) = self.connection(id) else { return Outcome::Done };
        let (received, room) = connection.receive(buffer);
        let count = match self.judge(id, received, room) {
            Ok(count) => count,
            Err(end) => return self.after_receive(id, end),
        };
        let Some(connection) = self.connection(id) else { return Outcome::Done };
        let fresh = connection.input.received(count);
        self.heard_from(id);
        let taken = self.take_in(id, &buffer[..fresh]);
        if count == room || taken.hangup { Outcome::More } else { Outcome::Done }
    }

    /// How many bytes came; an `Err` if none did.
    fn judge(&mut self, id: ConnectionId, received: io::Result<usize>, room: usize) -> Result<usize, End> {
        match received {
            Ok(0) => Err(End::Closed),
            Ok(count) => {
                debug_assert!(count <= room);
                self.inputs.sources += 1;
                self.worth += 1 + count as u64 / BYTES_OF_WORTH;
                let listener = self.connection(id).map_or(0, |connection| usize::from(connection.listener));
                self.counters.interfaces[listener].received_bytes += count as u64;
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(End::Nothing),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(End::Interrupted),
            Err(error) => {
                tracing::debug!(shard = self.id.0, connection = id.0, %error, "receiving ended");
                Err(End::Closed)
            }
        }
    }

    fn after_receive(&mut self, id: ConnectionId, end: End) -> Outcome {
        match end {
            End::Nothing => Outcome::Done,
            End::Interrupted => Outcome::More,
            End::Closed => {
                // If it was parked in between, its last packets wait; they are handled before its end is.
                if self.connection(id).is_some_and(|connection| connection.may_read()) {
                    self.lost(id, DisconnectCause::Lost);
                }
                Outcome::Done
            }
        }
    }

    /// Handles the packet that is kept, as soon as it is whole, then those in `fresh`, and keeps the rest.
    ///
    /// While packets that were kept are left, because the connection was parked before them, the socket may not be read:
    /// else each unpark would take in more than it handles, the peer would never feel the parking, and memory would
    /// grow with what it sends.
    fn take_in(&mut self, id: ConnectionId, mut fresh: &[u8]) -> Taken {
        while let Some(connection) = self.connection(id)
            && !connection.input.is_empty()
        {
            fresh = connection.input.fill(fresh);
            if !connection.input.is_whole() {
                break; // `fresh` is used up
            }
            if !self.take_in_kept(id) {
                if let Some(connection) = self.connection(id) {
                    connection.input.append(fresh);
                }
                fresh = &[];
                break;
            }
        }
        if !fresh.is_empty() {
            let Consumed { used, needed } = self.consume(id, Bytes::new(), fresh);
            if let Some(connection) = self.connection(id) {
                connection.input.keep(&fresh[used..], needed);
            }
        }
        let Some(connection) = self.connection(id) else { return Taken { may_read: false, hangup: false } };
        let taken = Taken { may_read: connection.may_read(), hangup: connection.flags.hangup };
        if matches!(connection.stage, Stage::Authenticating(_)) {
            self.authenticate(id);
            return Taken { hangup: false, ..taken };
        }
        taken
    }

    /// Handles whole packets among the bytes that are kept. Whether the connection may go on.
    fn take_in_kept(&mut self, id: ConnectionId) -> bool {
        let Some(connection) = self.connection(id) else { return false };
        let mut input = std::mem::take(&mut connection.input);
        let Consumed { used, needed } = match input.take_large() {
            Some(packet) => {
                let consumed = self.consume(id, packet.clone(), &packet);
                input.keep(&packet[consumed.used..], consumed.needed);
                Consumed { used: 0, ..consumed }
            }
            None => self.consume(id, Bytes::new(), input.front()),
        };
        input.advance(used, needed);
        let Some(connection) = self.connection(id) else { return false };
        connection.input = input;
        connection.may_read()
    }

    /// Handles the packets at the front of `bytes`. If they are one packet in memory of its own, that is `own`, and a
    /// payload stays there; else `own` is empty, and a payload that outlives the turn is copied.
    fn consume(&mut self, id: ConnectionId, own: Bytes, bytes: &[u8]) -> Consumed {
        let all = Consumed { used: bytes.len(), needed: 0 };
        let mut at = 0;
        let mut needed = 0;
        while at < bytes.len() {
            let Some(connection) = self.connections.get_mut(crate::connection::connection_index(id)) else { break };
            if connection.id != id || !connection.may_read() {
                break;
            }
            if let Stage::Lingering { discarded } = &mut connection.stage {
                *discarded += bytes.len() - at;
                let too_much = *discarded > LINGER_BYTES_MAX;
                if too_much {
                    self.remove(id);
                }
                return all;
            }
            let is_framed = is_framed(&self.live.config.listeners[usize::from(connection.listener)]);
            let codec = self.codecs.of(connection.listener);
            let speech = Speech { codec, is_framed, limits: &self.live.limits, now: self.now };
            let step = speech.step(connection, &own, &bytes[at..]);
            match step {
                Step::Incomplete { needed: least } => {
                    needed = least;
                    break;
                }
                Step::Packet { size, event } => {
                    if !self.watchers.is_empty() {
                        self.watched_packet(id, (!is_framed).then_some(bytes[at]), size, event.as_ref());
                    }
                    at += size;
                    self.packet_came(id, event);
                }
                Step::Introduced { size } => {
                    at += size;
                    self.worth += CONNECT_WORTH;
                    break;
                }
                Step::Refused(refusal) => {
                    self.refused_before_session(id, refusal);
                    return all;
                }
                Step::Ending(ending) => {
                    self.close_for(id, ending);
                    return all;
                }
                Step::Panicked => {
                    self.decoding_panicked(id, &bytes[at..]);
                    return all;
                }
            }
        }
        Consumed { used: at, needed }
    }

    fn packet_came(&mut self, id: ConnectionId, event: Option<Event>) {
        self.inputs.packets += 1;
        self.worth += 1;
        let most = self.live.config.output_bytes_max;
        if let Some(connection) = self.connection(id) {
            let (listener, has_output) = (usize::from(connection.listener), !connection.output.is_empty());
            // Deliveries stop at the limit; answers to who asks and does not read have to stop somewhere too.
            connection.flags.flooding |= connection.output.len() > 2 * most;
            self.counters.interfaces[listener].received_packets += 1;
            if has_output {
                self.mark_dirty(id);
            }
        }
        if let Some(event) = event {
            if let Event::Publish { message, .. } = &event {
                crate::fault::planted("panic-input", message.message.topic.as_str().as_bytes());
            }
            self.handle(event);
            self.drain_effects(); // before the next packet: this one may have parked the connection
        }
    }

    fn refused_before_session(&mut self, id: ConnectionId, refusal: Refusal) {
        tracing::debug!(shard = self.id.0, reason = ?refusal.reason, refusal.detail, "CONNECT refused");
        let Some(connection) = self.connection(id) else { return };
        connection.output.push(&refusal.answer);
        let listener = usize::from(connection.listener);
        self.counters.refused(listener, Refused::of(refusal.reason));
        self.linger(id);
    }

    /// Decoding and session code touch nothing shared before they return an event: only this connection ends.
    fn decoding_panicked(&mut self, id: ConnectionId, bytes: &[u8]) {
        let shown = &bytes[..bytes.len().min(EVIDENCE_BYTES_MAX)];
        tracing::error!(shard = self.id.0, connection = id.0, packet = %hex(shown), "decoding panicked: connection closed");
        self.counters.panics += 1;
        self.close_for(id, Closing::for_error(ReasonCode::UnspecifiedError, "internal error"));
    }
}

/// Why nothing came.
enum End {
    Nothing,
    Interrupted,
    Closed,
}

/// What is needed to understand a connection.
struct Speech<'a> {
    codec: &'a mut dyn Codec,
    is_framed: bool,
    limits: &'a Limits,
    now: postroad_base::Now,
}

impl Speech<'_> {
    fn step(self, connection: &mut Connection, own: &Bytes, bytes: &[u8]) -> Step {
        let Self { codec, is_framed, limits, now } = self;
        let out = &mut connection.output;
        let step = crate::crash::guarded(|| match &mut connection.stage {
            Stage::Handshake => {
                let (step, request) = if is_framed { hello(codec, bytes, limits) } else { connect(bytes, limits) };
                if let Some(request) = request {
                    connection.stage = Stage::Authenticating(request);
                }
                step
            }
            Stage::Serving(session) => match session.receive(codec, now, (bytes, own), limits, out) {
                Ok(Received::Incomplete { needed }) => Step::Incomplete { needed },
                Ok(Received::Packet { size, event }) => Step::Packet { size, event },
                Err(ending) => Step::Ending(ending),
            },
            Stage::Authenticating(_) | Stage::Lingering { .. } => Step::Incomplete { needed: 0 },
        });
        step.unwrap_or(Step::Panicked)
    }
}

/// What the front of the input is where a CONNECT is due, and the request if it is one.
fn connect(bytes: &[u8], limits: &Limits) -> (Step, Option<Box<Request>>) {
    match Handshake.receive(bytes, limits) {
        Ok(HandshakeStep::NeedMore { needed }) => (Step::Incomplete { needed }, None),
        Ok(HandshakeStep::Connect { request, consumed }) => {
            (Step::Introduced { size: consumed }, Some(Box::new(Request::Mqtt(*request))))
        }
        Err(refusal) => (Step::Refused(refusal), None),
    }
}

/// As [`connect`], for a hello.
fn hello(codec: &mut dyn Codec, bytes: &[u8], limits: &Limits) -> (Step, Option<Box<Request>>) {
    match framed::Handshake.receive(codec, bytes, limits.connect_bytes_max as usize) {
        Ok(framed::HandshakeStep::NeedMore { needed }) => (Step::Incomplete { needed }, None),
        Ok(framed::HandshakeStep::Connect { request, consumed }) => {
            (Step::Introduced { size: consumed }, Some(Box::new(Request::Framed(*request))))
        }
        Err(refusal) => (Step::Ending(framed::End::from(refusal).into()), None),
    }
}

fn is_framed(listener: &Listener) -> bool {
    matches!(listener.protocol, ListenerProtocol::Frames { .. })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
