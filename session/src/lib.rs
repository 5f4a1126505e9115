//! What a protocol demands of packets in their order: one state machine per connection, between the bytes of
//! `protocol` and the events and effects of `broker`. Sans-IO: no clock, no socket.
//!
//! ```text
//! bytes ──► Handshake ──► ConnectRequest ─(authentication, hand-over)─► Connection::new ──► Event::Connect
//! bytes ──► Connection::receive ──► Event            Effect ──► Connection::{connected, deliver, …} ──► Gather
//! ```

pub mod framed;
pub mod mqtt;
