//! Time as an argument: nothing below `engine` reads a clock.

/// Milliseconds since 1970-01-01T00:00:00Z by the wall clock. May step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WallMillis(pub u64);

/// Milliseconds of a clock that never steps or goes back; its zero means nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MonoMillis(pub u64);

impl MonoMillis {
    /// This instant and `millis` more, saturating.
    #[must_use]
    pub fn after(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to this instant; 0 if that is later.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl WallMillis {
    /// This instant and `millis` more, saturating.
    #[must_use]
    pub fn after(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Milliseconds from `earlier` to this instant; 0 if that is later.
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// The instant at which something is handled, on both clocks. Timers run on `mono`; what outlives the
/// process (expiry, ids) is counted on `wall`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For durations within this process.
    pub mono: MonoMillis,
    /// For instants that are stored or shown.
    pub wall: WallMillis,
}
