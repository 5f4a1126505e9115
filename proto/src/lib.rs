//! The gRPC API on the wire: what `postroad/v1/postroad.proto` defines, as Rust.
//!
//! ```text
//! postroad.proto ─ tests/generated.rs ─► generated/postroad.v1.rs   messages, client and server stubs
//!                                      └► generated/postroad.v1.bin  the definition itself, for reflection
//! ```
//!
//! What is generated is committed, so that nobody needs a compiler of protocol buffers to build Postroad.

pub mod codec;

/// Version 1. Its messages only ever gain fields.
pub mod v1 {
    #![allow(missing_docs, clippy::all, reason = "generated; its documentation is that of the definition")]
    include!("generated/postroad.v1.rs");
}

/// The definition, as a `google.protobuf.FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/postroad.v1.bin");

pub use codec::{ENTRIES_MAX, MESSAGES_MAX};
