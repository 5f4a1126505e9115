//! What the fuzz targets do with an input and assert about it; one module per subject. README.md lists the targets.

pub mod access;
#[cfg(feature = "auth")]
pub mod accounts;
pub mod conversation;
pub mod decoding;
pub mod frames;
pub mod input;
pub mod recovery;
pub mod requests;
pub mod scripts;
pub mod stored;
