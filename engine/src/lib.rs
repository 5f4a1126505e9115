//! The engine: executors pinned to cores, sockets, timers, the mesh between shards and the I/O of the
//! log. The only user of glommio (DESIGN 3). What is *decided* is decided in `broker` and `session`; here
//! it is only carried.
//!
//! ```text
//!  engine (start, stop) ─► one executor per shard ─► shard::turn ─► broker, session
//!                                                        └────────► log (io_uring)
//! ```
//! | for | see |
//! |---|---|
//! | what happens in a turn, and in which order | `shard::turn` |
//! | from accept to session, across shards | `shard::arriving` |
//! | bytes in, bytes out | `shard::reading`, `shard::writing` |
//! | commits, retirement | `log` |
//! | what is brought back at a start | `replay` |
//! | when a shard waits, and for what | `coalesce`, `poller` |
//! | which plugins run | `plugins` |
//! | who may come in | [`auth`] |
//! | what a listener's frames are, and MQTT beside frames | [`codecs`], `session` |

pub mod auth;
mod clock;
mod coalesce;
pub mod codecs;
pub mod config;
mod connection;
mod counters;
mod crash;
mod engine;
mod fault;
mod input;
mod listener;
mod log;
mod mesh;
mod plugins;
mod poller;
pub mod probe;
mod ramp;
mod random;
mod replay;
mod session;
mod shard;
mod wheel;

pub use config::Config;
pub use crash::watch_process;
pub use engine::{Engine, EngineError, Handle, Port, Running, files_besides_connections};
/// The data directory, for the tools that look at one while no server runs on it.
pub use postroad_storage::directory as data_directory;
