//! End-to-end tests: the real binary as a process, and clients that we did not write.
//!
//! [`daemon`] starts, kills and restarts `postroad serve` on a data directory of its own; [`mqtt`] is a small
//! blocking client for what foreign clients cannot be made to do (abandon a handshake, stop reading, send
//! garbage); [`tools`] runs the foreign ones. Nothing here sleeps to let something happen: every wait has a
//! condition and a deadline, and running into the deadline is a failure.

pub mod actions;
pub mod daemon;
pub mod http;
pub mod mqtt;
pub mod random;
pub mod storm;
pub mod tools;

use std::time::Duration;

/// Longest wait for anything that ought to happen at once; generous, because test machines are busy.
pub const PATIENCE: Duration = Duration::from_secs(30);
