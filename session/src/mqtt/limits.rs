//! What the server grants a client, the same for all connections of a listener.

use postroad_base::SessionExpiry;

/// Bounds on what one connection may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest packet that is taken in, in bytes.
    pub packet_bytes_max: u32,
    /// Largest CONNECT, in bytes: it comes before anybody has proved anything.
    pub connect_bytes_max: u32,
    /// QoS 1 and 2 publications that an MQTT 5 client may have unanswered.
    pub receive_maximum: u16,
    /// Highest topic alias that a client may use; 0 is none.
    pub topic_alias_maximum: u16,
    /// Topic aliases that the server uses towards one client, if that takes as many.
    pub topic_alias_out_max: u16,
    /// Longest keep alive, in seconds; 0: any, none at all included. Only MQTT 5 clients can be told.
    pub keep_alive_max: u16,
    /// Longest session expiry; also that of an MQTT 3 session without clean session.
    pub session_expiry_max: SessionExpiry,
    /// Whether retained messages are taken.
    pub retain_available: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            packet_bytes_max: 1024 * 1024,
            connect_bytes_max: 128 * 1024,
            receive_maximum: 1024,
            topic_alias_maximum: 64,
            topic_alias_out_max: 32,
            keep_alive_max: 0,
            session_expiry_max: SessionExpiry::NEVER,
            retain_available: true,
        }
    }
}
