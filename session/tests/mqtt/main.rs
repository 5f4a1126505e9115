//! MQTT on one connection, packets in and packets out.

mod common;
mod inbound;
mod outbound;
