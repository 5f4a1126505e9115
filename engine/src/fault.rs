//! Fault points: places where a test can make the process stop or the disk fail. Compiled out unless the feature
//! `fault-points` is on; never in a release.
//!
//! The environment variable `POSTROAD_FAULT` lists them: `name`, `name@3` (the third time only) or `name=value` (each
//! time that the value is in hand), separated by commas.

use std::io;

/// Says that this is no release, if it is none and a fault is wanted.
pub(crate) fn announce() {
    if cfg!(feature = "fault-points")
        && let Ok(faults) = std::env::var("POSTROAD_FAULT")
    {
        tracing::warn!(faults, "fault points are compiled in");
        #[cfg(feature = "fault-points")]
        postroad_plugins::plant(|name| planted("panic-plugin", name.as_bytes()));
    }
}

/// Aborts the process if this point is named.
pub(crate) fn point(name: &str) {
    if named::is_due(name, b"") {
        tracing::error!(name, "fault point reached: aborting");
        std::process::abort();
    }
}

/// Panics if this point is named, for this value if it is named with one.
pub(crate) fn planted(name: &str, value: &[u8]) {
    assert!(!named::is_due(name, value), "a planted fault: {name}");
}

/// Fails as a broken disk would if this point is named.
pub(crate) fn disk(name: &str) -> io::Result<()> {
    if named::is_due(name, b"") { Err(io::Error::other(format!("a planted fault: {name}"))) } else { Ok(()) }
}

#[cfg(not(feature = "fault-points"))]
mod named {
    pub(super) fn is_due(_name: &str, _value: &[u8]) -> bool {
        false
    }
}

#[cfg(feature = "fault-points")]
mod named {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Named {
        name: String,
        value: Option<String>,
        /// 0: each time.
        time: u64,
        reached: AtomicU64,
    }

    pub(super) fn is_due(name: &str, value: &[u8]) -> bool {
        static ALL: OnceLock<Vec<Named>> = OnceLock::new();
        let all = ALL.get_or_init(|| {
            let text = std::env::var("POSTROAD_FAULT").unwrap_or_default();
            text.split(',').filter(|part| !part.is_empty()).map(parse).collect()
        });
        all.iter().any(|one| one.name == name && one.fits(value))
    }

    impl Named {
        fn fits(&self, value: &[u8]) -> bool {
            if self.value.as_ref().is_some_and(|wanted| wanted.as_bytes() != value) {
                return false;
            }
            let time = self.reached.fetch_add(1, Ordering::Relaxed) + 1;
            self.time == 0 || self.time == time
        }
    }

    fn parse(text: &str) -> Named {
        let (name, value) = text.split_once('=').map_or((text, None), |(name, value)| (name, Some(value.to_owned())));
        let (name, time) = name.split_once('@').unwrap_or((name, "0"));
        let time = time.parse().expect("POSTROAD_FAULT: a number follows @");
        Named { name: name.to_owned(), value, time, reached: AtomicU64::new(0) }
    }
}
