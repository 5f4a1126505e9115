//! What stands between the bytes of one connection and the broker, sans-IO: one state machine per connection and
//! protocol. [`mqtt`] speaks MQTT 3.1, 3.1.1 and 5.0.
//!
//! Bytes and instants come in as arguments; [`postroad_broker::api::Event`]s and bytes go out. What has to survive
//! the connection (subscriptions, queues, QoS 2 state) is the broker's.

pub mod mqtt;
