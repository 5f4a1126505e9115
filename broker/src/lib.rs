//! The sans-IO heart of a shard: sessions, subscriptions, routing, the life of a delivery.
//!
//! `handle(now, Event)` in, `poll() -> Option<Effect>` out. No clock, socket, disk or Lua.
//!
//! | noun | file |
//! |---|---|
//! | the flat `match` over events | `broker` |
//! | what waits for a commit | `gate` |
//! | sessions: begin, take-over, end | `connect`, `session` |
//! | publishes on their way in | `publish`, `route`, `mesh`, `confirmed`, `repeats` |
//! | publishes under idempotency keys, and those for later | `keys`, `scheduled` |
//! | deliveries on their way out: what waits, by priority and collapse key | `queue`, `waiting`, `collapse`, `deliver` |
//! | what had waited for a client that comes back: rate, jitter, turns after a start | `drain` |
//! | clients that ask for what they get | `pull` |
//! | queues that overflow into one message | `full_sync` |
//! | subscriptions, retained messages, wills | `subscribe`, `interests`, `filters`, `retained`, `will` |
//! | share groups, and what a member that ends gives back | `share`, `give_back` |
//! | what nobody acknowledges: when it is late, sent again, given up | `overdue`, `resend`, `retry`, `round_trip` |
//! | what nobody got | `letters` |
//! | what becomes of messages that somebody follows, and receipts | `followed` |
//! | what applications consume under leases | `consumers` |
//! | directed pushes and who can be pushed to | `directed`, `registration` |
//! | retained messages for new subscribers, access rules applied to what exists, work of many turns | `giving`, `fence`, `judge`, `turns` |
//! | what is found by a key, in little memory | `places`, `table` |
//! | the log, read and given back | `recover`, `retire` |
//! | what plugins decide | `hooks` |
//! | what operators see | `clients`, `stats`, `peek` |

pub mod access;
pub mod api;
mod broker;
pub mod clients;
mod collapse;
mod config;
mod confirmed;
mod connect;
pub mod consumers;
mod deliver;
mod directed;
mod drain;
mod fence;
mod filters;
mod followed;
mod full_sync;
mod gate;
mod give_back;
mod giving;
pub mod hooks;
pub mod index;
mod interests;
mod judge;
mod keys;
mod letters;
mod mesh;
mod overdue;
mod peek;
mod places;
mod poison;
mod publish;
mod pull;
mod queue;
mod recover;
mod registration;
mod repeats;
mod resend;
mod retained;
mod retire;
mod retry;
mod round_trip;
mod route;
mod scheduled;
mod session;
mod share;
mod stats;
mod subscribe;
mod table;
mod timers;
pub mod topics;
mod turns;
mod waiting;
mod will;

pub use broker::Broker;
pub use config::{Config, DeliveryMode, Limits, Push, QueuePolicy, Resend, RestartDelivery, UnknownClient};
pub use retry::RetryPolicy;
pub use stats::{LaneDepths, Standing, Stats};
