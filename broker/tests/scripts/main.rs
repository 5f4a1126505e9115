//! The broker, driven by scripts: text in, text out (see `world`).

#![allow(clippy::unwrap_used, reason = "a test may fail loudly")]

mod access;
mod drain;
mod durable;
mod full_sync;
mod groups;
mod keys;
mod letters;
mod mesh;
mod overdue;
mod peek;
mod plugins;
mod poison;
mod priorities;
mod pull;
mod receipts;
mod registrations;
mod resend;
mod retained;
mod scheduled;
mod single;
mod statements;
mod world;
