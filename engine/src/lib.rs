//! The engine: executors pinned to cores, sockets, timers, the mesh between shards and the I/O of the
//! log. The only user of glommio (DESIGN 3). What is *decided* is decided in `broker` and `session`; here
//! it is only carried.

pub mod auth;
pub mod config;

pub use config::Config;
