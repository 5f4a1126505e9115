//! The sans-IO heart of a shard: sessions, subscriptions, routing, the life of a delivery.
//!
//! `handle(now, Event)` in, `poll() -> Option<Effect>` out. No clock, socket, disk or Lua.

pub mod access;
pub mod api;
pub mod index;
