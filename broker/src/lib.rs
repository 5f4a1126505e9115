//! The sans-IO heart of a shard: sessions, subscriptions, routing, the life of a delivery.
//!
//! `handle(now, Event)` in, `poll() -> Option<Effect>` out. No clock, socket, disk or Lua.
//!
//! | noun | file |
//! |---|---|
//! | the flat `match` over events | `broker` |
//! | what waits for a commit | `gate` |
//! | sessions: begin, take-over, end | `connect`, `session` |
//! | publishes on their way in | `publish`, `route`, `mesh` |
//! | deliveries on their way out | `queue`, `deliver` |
//! | subscriptions, share groups, retained messages, wills | `subscribe`, `share`, `retained`, `will` |
//! | directed pushes and who can be pushed to | `directed`, `registration` |
//! | the log, read and given back | `recover`, `retire` |

pub mod access;
pub mod api;
mod broker;
mod config;
mod connect;
mod deliver;
mod directed;
mod gate;
pub mod index;
mod mesh;
mod publish;
mod queue;
mod recover;
mod registration;
mod retained;
mod retire;
mod route;
mod session;
mod share;
mod stats;
mod subscribe;
mod timers;
mod will;

pub use broker::Broker;
pub use config::{Config, QueuePolicy, UnknownClient};
pub use stats::Stats;
