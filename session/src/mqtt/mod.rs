//! MQTT 3.1, 3.1.1 and 5.0 on one connection.
//!
//! Who keeps what: the packet identifiers of deliveries and the exactly-once state of publications outlive the
//! connection and are the broker's; what ends with the connection is kept here: quotas, topic aliases, keep alive,
//! limits of the peer.

mod alias;
mod connection;
mod handshake;
mod inbound;
mod limits;
mod outbound;

pub use connection::{Closing, Connection};
pub use handshake::{ConnectRequest, Handshake, HandshakeStep, Refusal};
pub use inbound::Received;
pub use limits::Limits;
pub use outbound::Delivered;
