//! A plugin as text: what `postroad plugin check` and `fmt-check` see without running it.
//!
//! ```text
//! text ──► tokens (with comments and positions) ──┬─► names: which are free, and which paths below `postroad` they begin
//!                                                 └─► format: indentation, blanks
//! ```
//! Lua's own compiler says whether the text is Lua; what is here reads what it has taken. On anything else it ends, and says what it can.

mod lexer;
mod names;

#[expect(unused_imports, reason = "until check")]
pub(crate) use names::{Use, uses};
