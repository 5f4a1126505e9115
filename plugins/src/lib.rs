//! The Lua host [PLG]: plugins as text, compiled, sandboxed, and asked what the broker wants to know (`docs/adr/0030-lua-plugins.md`).
//!
//! Invariants
//! - Lua is seen by nobody outside this crate: answers are the broker's types ([`postroad_broker`]), state is [`Plain`] data.
//! - A call ends within its [`Limits`], whatever the script does, and leaves the VM fit for the next call.
//! - Time is an argument. `Instant` is read for two things only: the limit of a call's time, and the sampled cost of calls.

mod diagnostic;
mod figures;
pub mod generations;
mod limits;
mod plain;
mod source;
mod stores;
mod vm;

pub use diagnostic::Diagnostic;
pub use figures::{Failure, Figures, Hook, HookFigures, TestOutcome};
pub use limits::Limits;
pub use plain::Plain;
pub use source::{PluginName, SOURCE_BYTES_MAX, Set, SetError, SetHash, Source};
pub use stores::Stores;
pub use vm::{Compiled, Saved, Vm};
