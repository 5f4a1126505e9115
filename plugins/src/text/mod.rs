//! A plugin as text: what `postroad plugin check` and `fmt-check` see without running it.
//!
//! ```text
//! text ──► tokens (with comments and positions) ──┬─► names: which are free, and which paths below `postroad` they begin
//!                                                 └─► format: indentation, blanks
//! ```
//! Lua's own compiler says whether the text is Lua; what is here reads what it has taken. On anything else it ends, and says what it can.

mod format;
mod lexer;
mod names;

pub use format::{Flaw, flaws};
pub(crate) use names::{How, Part, Use, uses};
