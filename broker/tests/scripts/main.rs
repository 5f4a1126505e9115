//! The broker, driven by scripts: text in, text out (see `world`).

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

mod durable;
mod mesh;
mod registrations;
mod single;
mod statements;
mod world;
