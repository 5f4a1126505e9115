//! `postroad pub`, `postroad sub` and `postroad record`: a small blocking MQTT client for people and scripts.
//!
//! One thread, one socket, one wait at a time: [`client::Client::next`] waits for a packet or a deadline
//! and sends PINGREQ when the keep alive asks for it. What an application should build on is the SDK.

mod client;
mod format;
mod publish;
mod record;
mod subscribe;

pub use publish::publish;
pub use record::record;
pub use subscribe::{End, subscribe};

/// Exit code of `sub` when its time was over before its count was reached (as the usual tools have it).
pub const EXIT_TIMEOUT: u8 = 27;
