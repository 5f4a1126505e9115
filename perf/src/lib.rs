//! `postroad-bench`: an MQTT load generator that works against any broker.
//!
//! Purpose: answer "how many, how fast, how late, at what cost" for one broker, and prove while doing so that
//! nothing was lost, repeated or re-ordered. One thread, one epoll instance, no runtime: a generator that costs
//! more than the broker measures itself.
//!
//! ```text
//! options ─► scenario ─► links (epoll, sockets, buffers) ◄─► broker
//!               │            │ wire: packets in place
//!               ▼            ▼
//!            schedule ──► payload stamps ──► verifier, latency histograms ─► report
//! ```
//!
//! The codec ([`wire`]) is deliberately not that of `postroad-protocol`: it knows the few shapes that a generator
//! sends and reads, patches one prepared PUBLISH instead of encoding each, and does not share a mistake with the
//! broker that it measures.
//!
//! Beside the loads stand tools: the floors of what can be reached, [`sync_probe`] (the disk alone; with `--sync-probe` in a
//! thread of its own), [`loopback`] (the kernel's part of each message), [`stalls`] (what the machine withholds) and
//! [`null_server`] (what the generator takes itself); [`disturb`] (clients that misbehave); [`summary`] (medians of repeated
//! runs) and [`plot`] (pictures of them), and [`flamegraph`].

pub mod clock;
pub mod disturb;
pub mod flamegraph;
pub mod latency;
pub mod links;
pub mod loopback;
pub mod null_server;
pub mod options;
pub mod payload;
pub mod plot;
pub mod probe;
pub mod report;
pub mod scenario;
pub mod schedule;
pub mod stalls;
pub mod summary;
pub mod sync_probe;
pub mod wire;
