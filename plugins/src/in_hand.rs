//! Whose script a thread runs: a panic in the midst of it is told of that plugin. A call costs two writes to a cell for it.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::{PluginName, SetHash};

/// A plugin whose script runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InHand {
    /// Its name.
    pub name: &'static str,
    /// The hash of its text.
    pub version: SetHash,
}

thread_local! {
    static IN_HAND: Cell<Option<InHand>> = const { Cell::new(None) };
}

/// Whose script this thread runs, or was running when it panicked.
pub fn in_hand() -> Option<InHand> {
    IN_HAND.get()
}

pub(crate) fn take_in_hand(plugin: Option<InHand>) {
    IN_HAND.set(plugin);
}

impl InHand {
    pub(crate) fn new(name: &PluginName, version: SetHash) -> Self {
        Self { name: lasting(name.as_str()), version }
    }
}

/// Names are short, and there are few: each that was ever loaded stays in memory.
fn lasting(name: &str) -> &'static str {
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = names.get(name) {
        return known;
    }
    let lasting: &'static str = String::leak(name.to_owned());
    names.insert(lasting);
    lasting
}

/// What tests want to happen in the midst of each call of a hook.
#[cfg(feature = "fault-points")]
static PLANTED: std::sync::OnceLock<fn(&str)> = std::sync::OnceLock::new();

/// For tests: `fault` runs in the midst of each call of a hook, and is given the plugin's name.
#[cfg(feature = "fault-points")]
pub fn plant(fault: fn(&str)) {
    let _the_first_one_counts = PLANTED.set(fault);
}

/// Where faults are planted.
#[inline]
pub(crate) fn point() {
    #[cfg(feature = "fault-points")]
    if let (Some(fault), Some(plugin)) = (PLANTED.get(), in_hand()) {
        fault(plugin.name);
    }
}
