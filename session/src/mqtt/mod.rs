//! One MQTT connection.
//!
//! ```text
//! bytes ─► Handshake ─► ConnectRequest ─(authentication, hand-over)─► Connection::new ─► broker Connect
//!                                                                         │
//! CONNACK ◄── Connection::connected ◄──────────── Effect::Connected ◄─────┘
//! bytes ─► Connection::receive ─► events          effects ─► published, deliver, … ─► bytes
//!                             └─► Closing ─► Connection::close ─► DISCONNECT (MQTT 5)
//! ```
//!
//! Invariants
//! - Nothing is read before CONNACK has been written, and CONNACK is the first packet out `[MQTT-3.2.0-1]`: what was
//!   pipelined behind CONNECT `[MQTT-3.1.4-5]` stays with the caller until then.
//! - After [`Closing`] no event comes any more and no byte is looked at.
//! - Nothing larger than the client's maximum packet size is written `[MQTT-3.1.2-24]`.
//! - An idle connection owns one small struct and no buffer; aliases and windows take memory when they are used.

mod alias;
mod answer;
mod connection;
mod handshake;
mod reasons;
mod window;

use std::num::NonZeroU16;

use base::ReasonCode;
use bytestring::ByteString;
use postroad_base as base;
use postroad_broker::api::{DisconnectCause, Event};
use postroad_protocol::gather::Gather;

pub use connection::{Admission, Connection, Delivered};
pub use handshake::{ConnectRequest, Handshake, HandshakeStep, Refusal};

/// What the operator allows. Shared by all connections of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest packet taken, in bytes, with its header; MQTT 5 clients are told.
    pub packet_bytes_max: u32,
    /// Largest CONNECT taken, in bytes: what a stranger can make us hold.
    pub connect_bytes_max: u32,
    /// QoS 1 and 2 publications of a client that may be unfinished at once. MQTT 5 clients are told, and closed when
    /// they exceed it; others are read from no further until answers have left.
    pub receive_maximum: NonZeroU16,
    /// Highest topic alias that a client may use; 0: none.
    pub topic_alias_maximum: u16,
    /// Topic aliases that we use towards a client that allows them, at most.
    pub topic_alias_outbound_max: u16,
    /// Longest keep alive, in seconds; 0: no limit. MQTT 5 clients that ask for more, or for none, are told this one.
    pub keep_alive_max_seconds: u16,
    /// Longest time that a session outlives its connection, in seconds; `u32::MAX`: for ever is allowed.
    pub session_expiry_max_seconds: u32,
    /// Time from accept to a complete CONNECT, in milliseconds.
    pub connect_timeout_ms: u64,
    /// What response topics start with, if clients that ask for response information are told:
    /// `<this>/<client id>`.
    pub response_prefix: Option<ByteString>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            packet_bytes_max: 1 << 20,
            connect_bytes_max: 128 << 10,
            receive_maximum: const { NonZeroU16::new(1024).expect("1024 is not 0") },
            topic_alias_maximum: 32,
            topic_alias_outbound_max: 32,
            keep_alive_max_seconds: 0,
            session_expiry_max_seconds: u32::MAX,
            connect_timeout_ms: 10_000,
            response_prefix: None,
        }
    }
}

/// What one call of [`Connection::receive`] writes to.
#[derive(Debug)]
pub struct Turn<'a> {
    /// For the broker, in order.
    pub events: &'a mut Vec<Event>,
    /// The connection's output: answers that need no broker.
    pub out: &'a mut Gather,
    /// Packets that may still be taken in this turn; counted down. 0 afterwards: there may be more in the input.
    pub packets_max: usize,
}

/// Which side ended the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosedBy {
    /// By DISCONNECT: nothing is answered.
    Client,
    /// Because of an error, a limit or a decision: MQTT 5 clients are told.
    Server,
}

/// The connection is over. Events that were pushed before it still count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail} ({})", reason.name())]
pub struct Closing {
    /// Who ended it.
    pub by: ClosedBy,
    /// Why, for the DISCONNECT and the counter.
    pub reason: ReasonCode,
    /// In words, for the reason string and the log.
    pub detail: &'static str,
    /// For `Event::Disconnect`.
    pub cause: DisconnectCause,
}

impl Closing {
    /// The server ends the connection; the will is published.
    pub const fn server(reason: ReasonCode, detail: &'static str) -> Self {
        Self { by: ClosedBy::Server, reason, detail, cause: DisconnectCause::Lost }
    }

    const fn protocol(detail: &'static str) -> Self {
        Self::server(ReasonCode::ProtocolError, detail)
    }
}

impl From<postroad_protocol::mqtt::DecodeError> for Closing {
    fn from(error: postroad_protocol::mqtt::DecodeError) -> Self {
        Self::server(error.reason, error.detail)
    }
}
