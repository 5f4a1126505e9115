//! A connection whose device speaks in frames of an operator's own [INT-4]: what it may say when, and what it is told.
//!
//! ```text
//! bytes ─► Handshake ─► ConnectRequest ─(authentication, hand-over)─► Connection::new ─► broker's Connect
//!                                                                          │
//! welcome ◄── connected ◄───────────────────── Effect::Connected ◄─────────┘
//! publish ─► Event::Publish      Effect::Published ─► accepted | refused
//! ack     ─► Event::Acknowledge  Effect::Deliver   ─► push
//! ping    ─► pong                bye, a broken frame, silence ─► End
//! ```
//! The codec is an argument of each call and no part of the connection: it belongs to the listener, and a reload may put
//! another one in its place between two calls.
//!
//! Invariants
//! - Nothing is read before welcome, nothing but a refusal is said before it.
//! - An ack is for a push that is in flight on this connection, or for none. What has no tag is acknowledged in turn, so only
//!   one is in flight that has to be.
//! - Accepted frames leave in the order of the publishes that they answer.
//! - An idle connection owns no memory but its struct and its client's name.

mod connection;
mod handshake;
mod in_flight;
mod inbound;
mod outbound;

pub use connection::{Broken, Connection, End};
pub use handshake::{ConnectRequest, Handshake, HandshakeStep, Refusal};
pub use inbound::Received;
pub use outbound::Delivered;
