//! Lua's C interface, as little of it as the host needs. The only folder of the house that talks to Lua itself.
//!
//! ```text
//! Vm ──► State::protected(work) ──► lua_pcall ──► work(Stack, …) ──► script ──► function of ours: fn(Stack) -> Returned
//!              ▲                                                                        │ Fault: raised behind our last line
//!              └──────────────── longjmp over frames of Rust ◄──────────────────────────┘
//! ```
//! The safe layer of mlua is not used, its bindings are: near the limit of memory that layer panics by design (`Lua::globals` and others have no
//! error), its errors reach scripts as objects where Lua's own are texts, and a hook of each thousand instructions costs it several times what it
//! costs here.
//!
//! Invariants
//! - Whatever may raise an error of Lua runs below [`State::protected`]. An error leaves by `longjmp`, so **no frame between it and its catcher owns
//!   anything**: functions of ours own nothing at any call that may raise; what they build lies in [`Host`] or on Lua's stack.
//! - No finalizer of a script ever runs (`__gc` is refused), so collecting garbage calls nothing.
//! - A [`Stack`] is used in the frame that it was made for.

mod about;
mod buffer;
mod coroutine;
mod guard;
mod host;
mod memory;
mod stack;
mod state;

pub(crate) use buffer::Buffer;
pub(crate) use coroutine::{create, is_ended, resume, wrap};
pub(crate) use guard::{pcall, xpcall};
pub(crate) use host::{Host, Over};
pub(crate) use memory::Memory;
pub(crate) use stack::{Fault, Function, Kind, Returned, Stack};
pub(crate) use state::{Reference, State, Thrown};
