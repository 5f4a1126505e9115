//! The wire, sans-IO: bytes in, packets out, and back. No socket, no clock, no session state.
//!
//! [`mqtt`] is the codec of MQTT 3.1, 3.1.1 and 5.0, [`frame`] that of frames that operators define; [`gather`] is the output
//! buffer of one connection.
//! What needs memory of earlier packets (packet identifiers in use, aliases, quotas) is `session`'s.

pub mod frame;
pub mod gather;
pub mod mqtt;
