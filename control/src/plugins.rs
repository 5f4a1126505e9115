//! Plugins: what runs, what has run, and to have others run in its place.
//!
//! What becomes of them is decided by the coordinator in `engine`, one order after the other: a few may wait there, one more is told to
//! try again. What they count is in the shards' reports.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::problem::{Kind, Problem};
use crate::publication::Caller;
use crate::report::ShardReport;
use crate::shared::Server;

/// How a new generation comes to answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trial {
    /// At once, for everybody.
    #[default]
    Replace,
    /// For so many in a hundred clients, until it is promoted or aborted.
    Canary {
        /// By a hash of their names.
        percent: u8,
    },
    /// For nobody: it runs after the old one, on a copy, and where it differs is counted.
    Shadow,
}

/// What is wanted of the coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PluginsWish {
    /// To tell what runs.
    List,
    /// To tell what was tried.
    History,
    /// To read the folder, and run what is there.
    Reload(Trial),
    /// To run what was committed under this generation again; `None`: what ran before.
    Rollback(Option<u32>),
    /// To have the generation that is tried answer for everybody.
    Promote,
    /// To end the trial as if it had not been.
    Abort,
}

/// A wish, and who has it.
#[derive(Debug)]
pub struct PluginsOrder {
    /// What.
    pub wish: PluginsWish,
    /// Whose name goes into the history.
    pub by: String,
    /// Where the answer goes; nobody waiting is no reason to wait. An error says why nothing is changed.
    pub answer: flume::Sender<Result<PluginsAnswer, String>>,
}

/// What becomes of a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginsAnswer {
    /// What runs.
    List(PluginsState),
    /// What was tried, the newest first.
    History(Vec<Attempt>),
    /// It is done, and this stands in the history.
    Done(Attempt),
}

/// What runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PluginsState {
    /// The generation that answers; 0: there never was one.
    pub generation: u32,
    /// The hash of its set; empty if there never was one.
    pub set: String,
    /// A generation that is tried beside it.
    pub trial: Option<TrialState>,
    /// Why what runs is not what is in the folder, if it is not.
    pub folder: Option<String>,
    /// In the order in which they are asked.
    pub plugins: Vec<PluginState>,
}

/// A generation that is tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TrialState {
    /// Its number.
    pub generation: u32,
    /// The hash of its set.
    pub set: String,
    /// How.
    pub mode: Trial,
}

/// One plugin of the generation that answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PluginState {
    /// The file's name without its end.
    pub name: String,
    /// What it says of itself.
    pub description: String,
    /// Smaller ones are asked first.
    pub priority: u16,
    /// SHA-256 of its text, in hexadecimal digits.
    pub hash: String,
    /// What it hears.
    pub hooks: Vec<PluginHook>,
}

/// One hook of a plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PluginHook {
    /// Its name in the script.
    pub name: String,
    /// For which topics; none: for all that do not begin with `$`, or the hook knows no topics.
    pub filters: Vec<String>,
}

/// One line of the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Which generation it was to be.
    pub generation: u32,
    /// Seconds since 1970.
    pub at: u64,
    /// Who wanted it.
    pub by: String,
    /// What was wanted.
    pub action: Action,
    /// What became of it.
    pub outcome: AttemptOutcome,
    /// The hash of the set; empty if it could not be read.
    pub set: String,
    /// The hash of each plugin in it.
    pub plugins: BTreeMap<String, String>,
    /// The hash of what lay in the folder.
    pub folder: String,
    /// The generation that it took the place of, or that was tried.
    pub from: u32,
    /// What is to be said besides: why it was refused, what made the server go back.
    pub note: String,
}

/// What an attempt was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// The server started with it.
    Start,
    /// A reload.
    Replace,
    /// The beginning of a canary.
    Canary,
    /// The beginning of a shadow.
    Shadow,
    /// The end of a trial that went well.
    Promote,
    /// The end of one that did not.
    Abort,
    /// Back to what was committed before.
    Rollback,
}

/// What became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// It answers for everybody.
    Committed,
    /// It is tried.
    Trying,
    /// Nothing is changed.
    Refused,
}

impl Action {
    /// Its name, as it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Replace => "replace",
            Self::Canary => "canary",
            Self::Shadow => "shadow",
            Self::Promote => "promote",
            Self::Abort => "abort",
            Self::Rollback => "rollback",
        }
    }
}

impl AttemptOutcome {
    /// Its name, as it is shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Committed => "committed",
            Self::Trying => "trying",
            Self::Refused => "refused",
        }
    }
}

/// Who wants what the server does by itself since scripts fail too often.
pub const BY_ERROR_BUDGET: &str = "(error budget)";

/// What the coordinator counts.
#[derive(Debug, Default)]
pub struct PluginsCounters {
    generation: AtomicU64,
    committed: AtomicU64,
    trying: AtomicU64,
    refused: AtomicU64,
    rollbacks_asked: AtomicU64,
    rollbacks_by_itself: AtomicU64,
}

/// The same at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PluginsFigures {
    /// The generation that answers.
    pub generation: u64,
    /// Attempts that were committed.
    pub committed: u64,
    /// Trials begun.
    pub trying: u64,
    /// Attempts that changed nothing.
    pub refused: u64,
    /// Rollbacks that somebody asked for.
    pub rollbacks_asked: u64,
    /// Rollbacks, and ends of trials, because an error budget was spent.
    pub rollbacks_by_itself: u64,
}

impl PluginsCounters {
    /// This generation answers from now on.
    pub fn runs(&self, generation: u32) {
        self.generation.store(generation.into(), Ordering::Relaxed);
    }

    /// One more attempt.
    pub fn count(&self, attempt: &Attempt) {
        let counter = match attempt.outcome {
            AttemptOutcome::Committed => &self.committed,
            AttemptOutcome::Trying => &self.trying,
            AttemptOutcome::Refused => &self.refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let is_committed = attempt.outcome == AttemptOutcome::Committed;
        match attempt.action {
            Action::Rollback | Action::Abort if is_committed && attempt.by == BY_ERROR_BUDGET => {
                self.rollbacks_by_itself.fetch_add(1, Ordering::Relaxed);
            }
            Action::Rollback if is_committed => {
                self.rollbacks_asked.fetch_add(1, Ordering::Relaxed);
            }
            _ => {}
        }
    }

    pub(crate) fn read(&self) -> PluginsFigures {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PluginsFigures {
            generation: read(&self.generation),
            committed: read(&self.committed),
            trying: read(&self.trying),
            refused: read(&self.refused),
            rollbacks_asked: read(&self.rollbacks_asked),
            rollbacks_by_itself: read(&self.rollbacks_by_itself),
        }
    }
}

/// The way to the coordinator.
#[derive(Clone)]
pub struct PluginsLine {
    /// Bounded.
    orders: flume::Sender<PluginsOrder>,
    counters: Arc<PluginsCounters>,
}

impl fmt::Debug for PluginsLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginsLine").field("waiting", &self.orders.len()).finish_non_exhaustive()
    }
}

impl PluginsLine {
    /// `orders` must be bounded.
    pub fn new(orders: flume::Sender<PluginsOrder>, counters: Arc<PluginsCounters>) -> Self {
        Self { orders, counters }
    }

    pub(crate) fn figures(&self) -> PluginsFigures {
        self.counters.read()
    }
}

/// What a shard tells of its plugins.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PluginsReport {
    /// Generations whose scripts are in memory: one, or more while one takes the place of another.
    pub generations: u64,
    /// Bytes of all their scripts.
    pub memory_bytes: u64,
    /// Messages whose generation was gone when they came, so that another one was asked.
    pub strays: u64,
    /// How often a shadow differed: in what, and how often.
    pub differences: Vec<(&'static str, u64)>,
    /// By plugin.
    pub plugins: Vec<PluginReport>,
}

/// What a shard tells of one plugin: since the start, whatever generations it was in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PluginReport {
    /// Its name.
    pub name: String,
    /// It is not called any more on this shard.
    pub is_quarantined: bool,
    /// By hook.
    pub hooks: Vec<HookReport>,
    /// What its script counts: name and sum.
    pub counters: Vec<(String, u64)>,
    /// What its script measures: name and last value.
    pub gauges: Vec<(String, f64)>,
}

/// What a shard tells of one hook of a plugin.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HookReport {
    /// Its name in the script.
    pub name: &'static str,
    /// Calls.
    pub calls: u64,
    /// Of them, those that failed.
    pub errors: u64,
    /// Time of the calls that were measured, in nanoseconds.
    pub sampled_nanos: u64,
    /// How many those are.
    pub sampled_calls: u64,
}

/// What runs, with what shards count.
#[derive(Debug, Serialize)]
pub(crate) struct PluginsPage {
    #[serde(flatten)]
    state: PluginsStateHead,
    plugins: Vec<PluginPage>,
}

#[derive(Debug, Serialize)]
struct PluginsStateHead {
    generation: u32,
    set: String,
    trial: Option<TrialState>,
    folder: Option<String>,
}

#[derive(Debug, Serialize)]
struct PluginPage {
    #[serde(flatten)]
    state: PluginState,
    /// On all shards that answered, since the start.
    calls: u64,
    errors: u64,
    /// Shards on which it is not called any more.
    quarantined_shards: Vec<u16>,
}

impl PluginsPage {
    fn new(state: PluginsState, shards: &[ShardReport]) -> Self {
        let PluginsState { generation, set, trial, folder, plugins } = state;
        let plugins = plugins.into_iter().map(|plugin| PluginPage::new(plugin, shards)).collect();
        Self { state: PluginsStateHead { generation, set, trial, folder }, plugins }
    }
}

impl PluginPage {
    fn new(state: PluginState, shards: &[ShardReport]) -> Self {
        let mut page = Self { state, calls: 0, errors: 0, quarantined_shards: Vec::new() };
        for shard in shards {
            let Some(plugin) = shard.plugins.plugins.iter().find(|plugin| plugin.name == page.state.name) else {
                continue;
            };
            page.calls += plugin.hooks.iter().map(|hook| hook.calls).sum::<u64>();
            page.errors += plugin.hooks.iter().map(|hook| hook.errors).sum::<u64>();
            if plugin.is_quarantined {
                page.quarantined_shards.push(shard.shard.0);
            }
        }
        page
    }
}

impl Server {
    /// What runs.
    pub(crate) async fn plugins(&self, caller: &Caller) -> Result<PluginsPage, Problem> {
        let PluginsAnswer::List(state) = self.ask_for_plugins(PluginsWish::List, caller).await? else {
            return Err(other_answer());
        };
        let shards = Arc::clone(&self.shards.borrow());
        Ok(PluginsPage::new(state, &self.reports(&shards.lines).await))
    }

    /// What was tried, the newest first.
    pub(crate) async fn plugins_history(&self, caller: &Caller) -> Result<Vec<Attempt>, Problem> {
        match self.ask_for_plugins(PluginsWish::History, caller).await? {
            PluginsAnswer::History(attempts) => Ok(attempts),
            _ => Err(other_answer()),
        }
    }

    /// Changes what runs.
    pub(crate) async fn change_plugins(&self, wish: PluginsWish, caller: &Caller) -> Result<Attempt, Problem> {
        tracing::info!(caller = &*caller.name, ?wish, "plugins are to change, through the API");
        match self.ask_for_plugins(wish, caller).await? {
            PluginsAnswer::Done(attempt) => Ok(attempt),
            _ => Err(other_answer()),
        }
    }

    async fn ask_for_plugins(&self, wish: PluginsWish, caller: &Caller) -> Result<PluginsAnswer, Problem> {
        let not_now = || Problem::new(Kind::NotServing, "the server is starting or stopping");
        let line = self.shards.borrow().plugins.clone().ok_or_else(not_now)?;
        let (answer, answered) = flume::bounded(1);
        let order = PluginsOrder { wish, by: caller.name.to_string(), answer };
        line.orders.try_send(order).map_err(|error| match error {
            flume::TrySendError::Full(_) => Problem::new(Kind::Busy, "plugins are changing: try again"),
            flume::TrySendError::Disconnected(_) => not_now(),
        })?;
        let late = "plugins were not changed in time: they may be, later; the history says what becomes of it";
        match timeout(self.settings.plugins_timeout, answered.recv_async()).await {
            Ok(Ok(Ok(answer))) => Ok(answer),
            Ok(Ok(Err(why))) => Err(Problem::new(Kind::ReloadRefused, why)),
            Ok(Err(_)) => Err(not_now()),
            Err(_) => Err(Problem::new(Kind::Unknown, late)),
        }
    }
}

/// The coordinator answers each wish with what belongs to it.
fn other_answer() -> Problem {
    Problem::new(Kind::Unknown, "the answer is to another question: a fault of the server")
}

#[cfg(test)]
mod tests {
    use postroad_base::ShardId;

    use super::*;

    #[test]
    fn what_shards_count_is_added_up_by_plugin() {
        let report = |shard, calls, is_quarantined| {
            let hooks =
                vec![HookReport { name: "route", calls, errors: calls / 2, sampled_nanos: 1, sampled_calls: 1 }];
            let plugin = PluginReport { name: "tenant".into(), is_quarantined, hooks, ..PluginReport::default() };
            let mut report = ShardReport::new(ShardId(shard));
            report.plugins.plugins.push(plugin);
            report
        };
        let plugin = |name: &str| PluginState { name: name.into(), ..PluginState::default() };
        let state = PluginsState { plugins: vec![plugin("tenant"), plugin("new")], ..PluginsState::default() };
        let page = PluginsPage::new(state, &[report(0, 4, false), report(1, 6, true)]);
        let figures = |page: &PluginPage| (page.calls, page.errors, page.quarantined_shards.clone());
        assert_eq!(figures(&page.plugins[0]), (10, 5, vec![1]));
        assert_eq!(figures(&page.plugins[1]), (0, 0, vec![]));
    }

    #[test]
    fn attempts_are_counted_by_what_became_of_them() {
        let attempt = |action, outcome, by: &str| Attempt {
            generation: 1,
            at: 0,
            by: by.to_owned(),
            action,
            outcome,
            set: String::new(),
            plugins: BTreeMap::new(),
            folder: String::new(),
            from: 0,
            note: String::new(),
        };
        let counters = PluginsCounters::default();
        counters.count(&attempt(Action::Rollback, AttemptOutcome::Committed, "ann"));
        counters.count(&attempt(Action::Rollback, AttemptOutcome::Refused, BY_ERROR_BUDGET));
        counters.count(&attempt(Action::Canary, AttemptOutcome::Trying, "ann"));
        counters.count(&attempt(Action::Rollback, AttemptOutcome::Committed, BY_ERROR_BUDGET));
        counters.count(&attempt(Action::Abort, AttemptOutcome::Committed, "ann"));
        counters.runs(7);
        let expected = PluginsFigures {
            generation: 7,
            committed: 3,
            trying: 1,
            refused: 1,
            rollbacks_asked: 1,
            rollbacks_by_itself: 1,
        };
        assert_eq!(counters.read(), expected);
    }
}
