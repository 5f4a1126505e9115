//! The message log of a shard (DESIGN 4): what is stored, where the bytes go, how they come back.
//! The formats are in `docs/storage-format.md`.
//!
//! ```text
//! Record ─► young::Writer ─► Commit ─► (engine: io_uring)     segments, bounded
//!                                          │ retirement: what is still pending
//!                                          ▼
//!                                      old::Old               fjall, bulk ingestion
//! start:  Old::load_state, then young::recover
//! ```
//!
//! [`record`] and [`young`] do no I/O of their own: `engine` writes what [`young::Writer`] hands out, and recovery
//! reads through the seam [`young::SegmentDirectory`]. [`old`] and [`directory`] block and belong on a worker thread.

pub mod directory;
pub mod log;
pub mod old;
pub mod record;
pub mod snapshot;
pub mod space;
pub mod young;
