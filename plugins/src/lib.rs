//! The Lua host [PLG]: plugins as text, compiled, sandboxed, and asked what the broker wants to know (`docs/adr/0030-lua-plugins.md`).
//!
//! ```text
//! folder ─ Set::read ─► Set ─ compile ─► Compiled (bytecode, Send) ─► Vm (one for each shard and generation) ─► the broker's Decision, Repair, …
//! ```
//! | noun | file |
//! |---|---|
//! | a plugin's text, a folder's; bytecode of ours | `source`, `compiled` |
//! | Lua's C interface; the allocator, the count hook, coroutines | `lua` |
//! | what scripts find: the white list, patterns in counted steps | `sandbox` |
//! | what scripts find below `postroad`, and in messages: one table | `api` |
//! | what a plugin's table says; topic filters | `plugin`, `filters` |
//! | what a call is about, and what was set | `call` |
//! | a generation on a shard; the chain of plugins | `vm` |
//! | a plugin's tests | `kit` |
//! | what is seen of a text without running it | `text` |
//! | what is wrong with a plugin, or probably not meant | `check` |
//! | what plugins would do, and what that costs | `trial` |
//! | frames: a declaration, or functions | [`codec`] |
//! | one generation after the other on a shard | [`generations`] |
//!
//! Invariants
//! - Lua is seen by nobody outside this crate: answers are the broker's types ([`postroad_broker`]), state is [`Plain`] data.
//! - A call ends within its [`Limits`], whatever the script does, and leaves the VM fit for the next call.
//! - Time is an argument. `Instant` is read for two things only: the limit of a call's time, and the cost of calls.

pub mod api;
mod call;
pub mod check;
pub mod codec;
mod compiled;
mod diagnostic;
mod figures;
mod filters;
pub mod generations;
mod in_hand;
pub mod kit;
mod limits;
mod lua;
mod plain;
mod plugin;
pub mod sandbox;
mod source;
mod stores;
pub mod text;
pub mod trial;
mod vm;

pub use compiled::Compiled;
pub use diagnostic::Diagnostic;
pub use figures::{Failure, Figures, Hook, HookFigures, TestOutcome};
#[cfg(feature = "fault-points")]
pub use in_hand::plant;
pub use in_hand::{InHand, in_hand};
pub use limits::Limits;
pub use plain::Plain;
pub use source::{PluginName, SOURCE_BYTES_MAX, Set, SetError, SetHash, Source};
pub use stores::Stores;
pub use vm::{Callable, CodecTable, Saved, Vm};
