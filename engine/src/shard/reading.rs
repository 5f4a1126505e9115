//! From bytes to events. All connections receive into the shard's one buffer and are decoded in place; only
//! the start of a packet whose end has not come yet is copied to the connection.

use std::io;

use postroad_base::{ConnectionId, ReasonCode};
use postroad_broker::api::{DisconnectCause, Event};
use postroad_session::mqtt::{Closing, Handshake, HandshakeStep, Received, Refusal};

use super::Shard;
use crate::connection::{Connection, Stage};
use crate::counters::Refused;

/// Receive calls for one connection in one turn; who has more to say goes to the end of the line.
const RECEIVES_PER_TURN: usize = 2;
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

/// What the front of the input was.
enum Step {
    /// Nothing whole: wait.
    Incomplete,
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
    Closing(Closing),
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
            if matches!(outcome, Outcome::Done) {
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
        if !connection.unread.is_empty() && !self.take_in_kept(id) {
            return Outcome::Done;
        }
        let Some(connection) = self.connection(id) else { return Outcome::Done };
        let kept = connection.unread.len();
        if kept > buffer.len() / 2 {
            return self.receive_long(id);
        }
        buffer[..kept].copy_from_slice(&connection.unread);
        connection.unread.clear();
        let received = connection.receive(&mut buffer[kept..]);
        let room = buffer.len() - kept;
        let count = match self.judge(id, received, room) {
            Ok(count) => count,
            Err(outcome) => {
                self.take_in(id, &buffer[..kept]); // nothing new: back to where it was kept
                return self.after_receive(id, outcome);
            }
        };
        let hangup = self.take_in(id, &buffer[..kept + count]);
        if count == room || hangup { Outcome::More } else { Outcome::Done }
    }

    /// Handles whole packets among the bytes that are kept; the connection was parked before them. Whether it may read
    /// on. Only then may the socket be read: else each unpark would take in more than it handles, the peer would never
    /// feel the parking, and memory would grow with what it sends.
    fn take_in_kept(&mut self, id: ConnectionId) -> bool {
        let Some(connection) = self.connection(id) else { return false };
        let mut unread = std::mem::take(&mut connection.unread);
        let consumed = self.consume(id, &unread);
        let Some(connection) = self.connection(id) else { return false };
        if consumed < unread.len() {
            unread.drain(..consumed);
            connection.unread = unread;
        }
        let may_read = connection.may_read();
        if matches!(connection.stage, Stage::Authenticating(_)) {
            self.authenticate(id);
        }
        may_read
    }

    /// A packet that is long: straight into the connection's own memory.
    fn receive_long(&mut self, id: ConnectionId) -> Outcome {
        let Some(connection) = self.connection(id) else { return Outcome::Done };
        let mut unread = std::mem::take(&mut connection.unread);
        let kept = unread.len();
        let room = kept.max(64 * 1024);
        unread.resize(kept + room, 0);
        let received = connection.receive(&mut unread[kept..]);
        let result = self.judge(id, received, room);
        unread.truncate(kept + *result.as_ref().unwrap_or(&0));
        let hangup = self.take_in(id, &unread);
        match result {
            Ok(count) if count == room || hangup => Outcome::More,
            Ok(_) => Outcome::Done,
            Err(outcome) => self.after_receive(id, outcome),
        }
    }

    /// How many bytes came; an `Err` if none did.
    fn judge(&mut self, id: ConnectionId, received: io::Result<usize>, room: usize) -> Result<usize, End> {
        match received {
            Ok(0) => Err(End::Closed),
            Ok(count) => {
                debug_assert!(count <= room);
                let listener = self.connection(id).map_or(0, |connection| usize::from(connection.listener));
                self.counters.interfaces[listener].received_bytes += count as u64;
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(End::Nothing),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Err(End::Interrupted),
            Err(_) => Err(End::Closed),
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

    /// Handles the packets at the front of `bytes` and keeps the rest. Whether the peer has closed its side.
    fn take_in(&mut self, id: ConnectionId, bytes: &[u8]) -> bool {
        let consumed = self.consume(id, bytes);
        let Some(connection) = self.connection(id) else { return false };
        let rest = &bytes[consumed..];
        if rest.is_empty() {
            if connection.unread.capacity() > 0 {
                connection.unread = Vec::new();
            }
        } else {
            connection.unread = rest.to_vec();
        }
        let hangup = connection.flags.hangup;
        if matches!(connection.stage, Stage::Authenticating(_)) {
            self.authenticate(id);
            return false;
        }
        hangup
    }

    /// How many of the bytes were used.
    fn consume(&mut self, id: ConnectionId, bytes: &[u8]) -> usize {
        let mut at = 0;
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
                return bytes.len();
            }
            let step = decode_step(connection, self.now, &bytes[at..], &self.live.limits);
            match step {
                Step::Incomplete => break,
                Step::Packet { size, event } => {
                    at += size;
                    self.packet_came(id, event);
                }
                Step::Introduced { size } => {
                    at += size;
                    break;
                }
                Step::Refused(refusal) => {
                    self.refused_before_session(id, refusal);
                    return bytes.len();
                }
                Step::Closing(closing) => {
                    self.close_for(id, closing);
                    return bytes.len();
                }
                Step::Panicked => {
                    self.decoding_panicked(id, &bytes[at..]);
                    return bytes.len();
                }
            }
        }
        at
    }

    fn packet_came(&mut self, id: ConnectionId, event: Option<Event>) {
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

fn decode_step(
    connection: &mut Connection,
    now: postroad_base::Now,
    bytes: &[u8],
    limits: &postroad_session::mqtt::Limits,
) -> Step {
    let step = crate::crash::guarded(|| match &mut connection.stage {
        Stage::Handshake => match Handshake.receive(bytes, limits) {
            Ok(HandshakeStep::NeedMore { .. }) => Step::Incomplete,
            Ok(HandshakeStep::Connect { request, consumed }) => {
                connection.stage = Stage::Authenticating(request);
                Step::Introduced { size: consumed }
            }
            Err(refusal) => Step::Refused(refusal),
        },
        Stage::Serving(session) => match session.receive(now, bytes, limits, &mut connection.output) {
            Ok(Received::Incomplete { .. }) => Step::Incomplete,
            Ok(Received::Packet { size, event }) => Step::Packet { size, event },
            Err(closing) => Step::Closing(closing),
        },
        Stage::Authenticating(_) | Stage::Lingering { .. } => Step::Incomplete,
    });
    step.unwrap_or(Step::Panicked)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
