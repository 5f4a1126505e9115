//! Declared frames: what the shipped ones are in bytes, what is broken, what a declaration may not be, and any of them there
//! and back.

mod common;
mod golden;
mod malformed;
mod round_trip;
mod specs;
mod splits;
