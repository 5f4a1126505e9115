//! The wire, sans-IO: bytes in, packets out, and back. No socket, no clock, no session state.
//!
//! [`mqtt`] is the codec of MQTT 3.1, 3.1.1 and 5.0; [`gather`] is the output buffer of one connection.
//! What needs memory of earlier packets (packet identifiers in use, aliases, quotas) is `session`'s.

pub mod gather;
pub mod mqtt;
