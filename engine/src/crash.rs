//! What happens at a panic: the process stops and recovers from its log, since a shard that panicked half-way
//! through a change can't be trusted. Only decoding and per-connection state, which touch nothing shared, are
//! guarded: there one connection ends.
//!
//! What the shard had in hand is left behind in `crash.json` of the data directory.

use std::cell::{Cell, RefCell};
use std::panic::PanicHookInfo;
use std::path::{Path, PathBuf};
use std::sync::Once;

use postroad_base::{ConnectionId, ShardId};

thread_local! {
    /// Set on the threads of shards only.
    static SHARD: RefCell<Option<(ShardId, PathBuf)>> = const { RefCell::new(None) };
    static GUARDED: Cell<bool> = const { Cell::new(false) };
    static IN_HAND: Cell<Option<ConnectionId>> = const { Cell::new(None) };
}

const FILE_NAME: &str = "crash.json";

/// This thread is a shard's: a panic on it stops the process.
pub(crate) fn watch_this_thread(shard: ShardId, data_dir: &Path) {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            before(panic);
            stop_if_unguarded(panic);
        }));
    });
    SHARD.with(|own| *own.borrow_mut() = Some((shard, data_dir.join(FILE_NAME))));
}

/// Runs what may panic without harm to anything shared. `None` if it did.
pub(crate) fn guarded<T>(act: impl FnOnce() -> T) -> Option<T> {
    GUARDED.set(true);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
    GUARDED.set(false);
    outcome.ok()
}

/// The connection whose input is being handled.
pub(crate) fn in_hand(connection: Option<ConnectionId>) {
    IN_HAND.set(connection);
}

fn stop_if_unguarded(panic: &PanicHookInfo<'_>) {
    if GUARDED.get() {
        return;
    }
    let Some((shard, path)) = SHARD.with(|own| own.try_borrow().ok().and_then(|own| own.clone())) else { return };
    // Nothing can be done about a report that can't be written: the words are in the log already.
    let _unwritten = std::fs::write(path, report(shard, &panic.to_string()));
    std::process::abort();
}

fn report(shard: ShardId, text: &str) -> String {
    let at = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let connection = IN_HAND.get().map_or("null".to_owned(), |id| id.0.to_string());
    let shard = shard.0;
    let panic = quoted(text);
    format!("{{\"at\":{at},\"shard\":{shard},\"connection\":{connection},\"panic\":{panic}}}\n")
}

/// As a JSON string.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if u32::from(c) < 0x20 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_guarded_ends_alone() {
        assert_eq!(guarded(|| 1), Some(1));
        let empty: &[u8] = &[];
        assert_eq!(guarded(|| empty[std::hint::black_box(0)]), None);
        assert!(!GUARDED.get());
    }

    #[test]
    fn a_report_is_one_line_of_json() {
        in_hand(Some(ConnectionId(7)));
        let report = report(ShardId(1), "at \"x\"\nboom\\");
        assert!(report.contains(r#""shard":1,"connection":7,"panic":"at \"x\"\u000aboom\\"}"#), "{report}");
    }
}
