//! The text of an `auth.file`.

use postroad_engine::auth::{Anonymous, Auth};

/// A file that is refused says why; the registrations of one that is taken can be listed.
pub fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match Auth::parse(text, Anonymous::Deny) {
        Err(error) => assert!(!error.to_string().is_empty()),
        Ok(auth) => {
            let listed = auth.registrations().expect("a file was given").count();
            // Each has at least its `id = `.
            assert!(listed <= text.matches('=').count(), "{listed} registrations from {text:?}");
        }
    }
}
