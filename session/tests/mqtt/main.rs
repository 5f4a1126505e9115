//! MQTT on one connection, packets in and packets out.

mod common;
mod conformance;
mod inbound;
mod opening;
mod outbound;
mod script;
