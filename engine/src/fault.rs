//! Fault points: places where a test can make the process stop, as a crash would. Compiled out unless the
//! feature `fault-points` is on; never in a release.

/// Aborts the process if the environment variable `POSTROAD_FAULT` names this point.
#[cfg(feature = "fault-points")]
pub(crate) fn point(name: &str) {
    use std::sync::OnceLock;
    static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
    let chosen = CHOSEN.get_or_init(|| std::env::var("POSTROAD_FAULT").ok());
    if chosen.as_deref() == Some(name) {
        tracing::error!(name, "fault point reached: aborting");
        std::process::abort();
    }
}

/// Does nothing in this build.
#[cfg(not(feature = "fault-points"))]
pub(crate) fn point(_name: &str) {}
