//! Plugins while the server runs: one generation takes the place of another on all shards, or on none.
//!
//! ```text
//!  API, SIGHUP, folder, a shard whose budget is spent
//!        │
//!        ▼                Step (inbox)                      Told (channel)
//!   coordinator ── prepare ──► all shards ──── ready ─────► coordinator ── one is not: discard ──► all shards
//!   (a thread)                                                   │ all are
//!                                                        history: write, fsync
//!                                                                │
//!                ── commit ──► all shards ── committed, settled ─► …
//! ```
//! - One change at a time; who asks meanwhile waits in a short queue, or is told that there is no room in it.
//! - What the history says was committed is what the next start runs, whole, wherever a crash has come between: shards load it before
//!   they take clients.
//! - The folder is read when somebody asks, and compared with what lay there at the last attempt: what an operator has not touched
//!   since does not come back by itself after a rollback.

mod coordinator;
mod folder;
mod history;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use postroad_base::{Now, ShardId};
use postroad_control::{Note, PluginsCounters, PluginsLine};
use postroad_plugins::generations::Prepared;
use postroad_plugins::{Diagnostic, SetHash};

use crate::clock::Clock;
use crate::config;
use coordinator::Coordinator;

/// What the coordinator asks of a shard.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Make it ready, and say whether it is.
    Prepare(Arc<Prepared>),
    /// Forget what was made ready.
    Discard { generation: u32 },
    /// Let it answer, as its mode says.
    Commit { generation: u32 },
    /// The canary, which has this number, answers for everybody.
    Promote { generation: u32 },
    /// The trial is over; what answers does so under this number.
    Abort { generation: u32 },
}

/// What the coordinator hears. Unbounded: a shard says each once for each step, the rest is from the operator.
#[derive(Debug)]
pub(crate) enum Told {
    /// Whether a generation is ready there.
    Ready { shard: ShardId, generation: u32, outcome: Result<(), Vec<Diagnostic>> },
    /// It answers there.
    Committed { shard: ShardId, generation: u32 },
    /// Nothing is under way there that an older one has stamped.
    Settled { shard: ShardId, generation: u32 },
    /// It fails too often.
    Spent { generation: u32, why: String },
    /// The configuration was read anew.
    Options(Box<config::Plugins>),
    /// The server ends.
    Stop,
}

/// The way to the shards, one step for each.
pub(crate) type Tell = Box<dyn Fn(ShardId, Step) + Send>;

/// Versions of plugins that the server has crashed in, as of now.
pub(crate) type Disabled = Box<dyn Fn() -> BTreeSet<SetHash> + Send>;

/// The coordinator before its thread is there.
pub(crate) struct Waiting(Coordinator);

/// Its thread.
pub(crate) struct Thread {
    told: flume::Sender<Told>,
    thread: std::thread::JoinHandle<()>,
}

/// Of its thread: shards' threads have 0, and nine times its share of a core.
const NICENESS: i32 = 10;
/// Orders that may wait.
const ORDERS_MAX: usize = 4;

/// What a coordinator is made of.
pub(crate) struct Parts {
    /// `plugins/` of the data directory; `None`: the history is in memory.
    pub(crate) place: Option<PathBuf>,
    pub(crate) options: config::Plugins,
    pub(crate) shards: usize,
    pub(crate) clock: Clock,
    pub(crate) tell: Tell,
    /// Versions of plugins that are not called, not for their self-tests either.
    pub(crate) disabled: Disabled,
    /// What it hears; the other end is the shards'.
    pub(crate) told: flume::Receiver<Told>,
    pub(crate) notes: flume::Sender<Note>,
}

/// Decides what runs from the start on. The second value goes to each shard, if there is one.
///
/// # Errors
/// Why nothing that could run loads.
pub(crate) fn open(parts: Parts) -> Result<(Waiting, PluginsLine, Option<Arc<Prepared>>), String> {
    let (orders, waiting) = flume::bounded(ORDERS_MAX);
    let counters = Arc::new(PluginsCounters::default());
    let mut coordinator = Coordinator::open(parts, waiting, Arc::clone(&counters))?;
    let first = coordinator.start()?;
    Ok((Waiting(coordinator), PluginsLine::new(orders, counters), first))
}

/// Whether the folder's plugins load, and pass their tests.
///
/// # Errors
/// Everything that is wrong with them.
pub(crate) fn check(options: &config::Plugins, now: Now) -> Result<(), String> {
    let Some(folder) = options.dir.as_deref() else { return Ok(()) };
    folder::read(Some(folder))
        .and_then(|set| coordinator::tried(&set, &options.limits, &BTreeSet::new(), now).map(drop))
}

impl Waiting {
    /// From now on it hears.
    pub(crate) fn run(self, told: flume::Sender<Told>) -> std::io::Result<Thread> {
        let Self(mut coordinator) = self;
        let thread = std::thread::Builder::new().name("plugins".into()).spawn(move || {
            // Shards may have no core to spare, and what it compiles and writes can wait for them. On Linux this is the thread's own.
            let _as_it_was = rustix::process::setpriority_process(None, NICENESS);
            coordinator.run();
        })?;
        Ok(Thread { told, thread })
    }
}

impl Thread {
    /// Ends it, whatever it waits for.
    pub(crate) fn stop(self) {
        let _has_ended = self.told.send(Told::Stop);
        if self.thread.join().is_err() {
            tracing::error!("the thread that changes plugins had panicked");
        }
    }
}

/// Where it keeps its history.
pub(crate) fn place_in(data_dir: &Path) -> PathBuf {
    data_dir.join("plugins")
}
