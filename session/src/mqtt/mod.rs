//! MQTT 3.1, 3.1.1 and 5.0 on one connection.
//!
//! Who keeps what: the packet identifiers of deliveries and the exactly-once state of publications outlive the
//! connection and are the broker's; what ends with the connection is kept here: quotas, topic aliases, keep alive,
//! limits of the peer.
//!
//! ```text
//! bytes ─► Handshake ─► ConnectRequest ─(authentication, hand-over)─► Connection::new ─► broker's Connect
//!                                                                          │
//! CONNACK ◄── connected ◄───────────────────── Effect::Connected ◄─────────┘
//! bytes ─► receive ─► events          effects ─► published, deliver, … ─► bytes
//!                └─► Closing ─► close ─► DISCONNECT (MQTT 5)
//! ```
//!
//! Invariants
//! - CONNACK is the first packet out `[MQTT-3.2.0-1]`, and nothing is read before it: what was pipelined behind CONNECT
//!   `[MQTT-3.1.4-5]` stays with the caller until then.
//! - Nothing larger than the client's maximum packet size is written `[MQTT-3.1.2-24]`.
//! - An idle connection owns no memory but its struct.

mod alias;
mod connection;
mod handshake;
mod inbound;
mod limits;
mod outbound;
mod reasons;
mod taken;
mod window;

pub use connection::{Closing, Connection};
pub use handshake::{ConnectRequest, Handshake, HandshakeStep, Refusal};
pub use inbound::Received;
pub use limits::Limits;
pub use outbound::Delivered;
