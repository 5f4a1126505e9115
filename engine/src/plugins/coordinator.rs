//! Decides which generation runs, and takes it to the shards. See the drawing in [`super`].
//!
//! Invariants
//! - What answers, or is tried, stands in the history, on the disk, before the first shard hears that it does. Two exceptions lead back to
//!   what stands there already: the end of a trial, and the way back from what has spent its budget; a full disk does not stop them.
//! - A number is given to one attempt only.
//! - While a generation is tried nothing else is.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use postroad_base::{Now, ShardId};
use postroad_control::{
    Action, Attempt, AttemptOutcome, BY_ERROR_BUDGET, Note, PluginHook, PluginState, PluginsAnswer, PluginsCounters,
    PluginsOrder, PluginsState, PluginsWish, Trial, TrialState,
};
use postroad_plugins::generations::{Budget, Mode, Prepared};
use postroad_plugins::{Compiled, Diagnostic, Figures, Hook, Limits, PluginName, Saved, Set, SetHash, Source, Vm};

use super::folder::{self, Watcher};
use super::history::{History, Script};
use super::{Disabled, Parts, Step, Tell, Told};
use crate::clock::Clock;
use crate::config::{self, Watch};

/// Between two looks at the folder.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long a note stands that the server went back by itself.
const NOTE_TIME: Duration = Duration::from_secs(3600);
/// Between two tries to leave what fails.
const GO_BACK_EVERY: Duration = Duration::from_secs(10);
/// Between two tries to write what could not be written.
const WRITE_AGAIN_EVERY: Duration = Duration::from_secs(10);
/// Characters of a note in the history: what is behind says no more.
const NOTE_MAX: usize = 4096;

/// See the module head.
pub(super) struct Coordinator {
    options: config::Plugins,
    clock: Clock,
    shards: Vec<ShardId>,
    tell: Tell,
    disabled: Disabled,
    told: flume::Receiver<Told>,
    orders: flume::Receiver<PluginsOrder>,
    notes: flume::Sender<Note>,
    counters: Arc<PluginsCounters>,
    history: History,
    running: Running,
    trial: Option<(Running, Trial)>,
    /// The last number that was given.
    last: u32,
    watcher: Watcher,
    /// What is to be left, and could not be yet.
    leaving: Vec<Leaving>,
    /// The history is not written as it is remembered.
    write_again_at: Option<Instant>,
    /// Limits of scripts have changed while something was tried.
    limits_wait: bool,
    /// By shard: the generation below which nothing is under way there.
    settled: BTreeMap<ShardId, u32>,
    /// Heard while it waited for something else.
    later: VecDeque<Told>,
    is_stopping: bool,
}

/// A generation that answers, or is tried.
#[derive(Clone, Debug)]
struct Running {
    /// Ascending, at least one; the last is what it answers under.
    numbers: Vec<u32>,
    set: Set,
    plugins: Vec<PluginState>,
    limits: Limits,
}

/// A generation that has spent its budget: a shard says so once, so the wish to leave it is kept here while it runs.
#[derive(Debug)]
struct Leaving {
    generation: u32,
    why: String,
    /// What the operator was told last.
    said: String,
    again_at: Instant,
}

/// A set that loads.
#[derive(Debug)]
pub(super) struct Tried {
    compiled: Compiled,
    plugins: Vec<PluginState>,
}

/// What is to come to answer.
struct Wanted {
    set: Set,
    /// The hash of what lay in the folder then.
    folder: String,
    action: Action,
    mode: Mode,
    by: String,
    note: String,
}

impl Coordinator {
    /// Reads the history.
    ///
    /// # Errors
    /// Why it can't be read.
    pub(super) fn open(
        parts: Parts,
        orders: flume::Receiver<PluginsOrder>,
        counters: Arc<PluginsCounters>,
    ) -> Result<Self, String> {
        let Parts { place, options, shards, clock, tell, disabled, told, notes } = parts;
        let history = History::open(place).map_err(|error| format!("the history of plugins can't be read: {error}"))?;
        let shards: Vec<_> = (0..shards).filter_map(|shard| u16::try_from(shard).ok()).map(ShardId).collect();
        let set = folder::read(None)?;
        let running = Running { numbers: vec![0], set, plugins: Vec::new(), limits: options.limits };
        Ok(Self {
            last: history.next_generation() - 1,
            settled: shards.iter().map(|shard| (*shard, 0)).collect(),
            options,
            clock,
            shards,
            tell,
            disabled,
            told,
            orders,
            notes,
            counters,
            history,
            running,
            trial: None,
            watcher: Watcher::default(),
            leaving: Vec::new(),
            write_again_at: None,
            limits_wait: false,
            later: VecDeque::new(),
            is_stopping: false,
        })
    }

    /// Decides what runs from the start on: the folder, if somebody has touched it since it was last looked at; else, and if it does
    /// not load, what was committed last; else what was before. `None`: no plugins, as ever.
    ///
    /// # Errors
    /// Why none of them loads.
    pub(super) fn start(&mut self) -> Result<Option<Arc<Prepared>>, String> {
        let found = self.read_folder();
        let hash = self.hash_of(&found);
        if self.history.attempts().is_empty() && found.as_ref().is_ok_and(|set| set.sources().is_empty()) {
            return Ok(None);
        }
        let is_touched = self.is_touched(&found) || self.history.committed().is_none();
        let why = match is_touched.then(|| self.start_with_folder(found, &hash)) {
            Some(Ok(first)) => return Ok(Some(first)),
            Some(Err(why)) => why,
            None => String::new(),
        };
        self.start_with_history(&hash).map(Some).map_err(|failed| if why.is_empty() { failed } else { why })
    }

    fn start_with_folder(&mut self, found: Result<Set, String>, hash: &str) -> Result<Arc<Prepared>, String> {
        let (number, by) = (self.next_number(), "the start".to_owned());
        let (set, why) = match found {
            Ok(set) => match tried(&set, &self.options.limits, &(self.disabled)(), self.clock.now()) {
                Ok(tried) => return self.start_with_new(number, (set, tried), &by),
                Err(why) => (Some(set), why),
            },
            Err(why) => (None, why),
        };
        tracing::error!(why, "what is in plugins.dir does not load");
        let attempt = self.attempt(number, (Action::Start, AttemptOutcome::Refused), set.as_ref(), &by, hash, &why);
        self.remember(attempt, &set.as_ref().map(scripts_of).unwrap_or_default());
        Err(why)
    }

    fn start_with_new(&mut self, number: u32, (set, tried): (Set, Tried), by: &str) -> Result<Arc<Prepared>, String> {
        let budget = self.budget_of(&set);
        let (what, folder) = ((Action::Start, AttemptOutcome::Committed), set.hash().to_string());
        let attempt = self.attempt(number, what, Some(&set), by, &folder, "");
        self.history.add(attempt.clone(), &scripts_of(&set), self.options.history_max).map_err(not_written)?;
        self.counters.count(&attempt);
        Ok(self.started(number, set, tried, budget))
    }

    /// What was committed last, or what loads of what was before it.
    fn start_with_history(&mut self, folder: &str) -> Result<Arc<Prepared>, String> {
        let mut failed = "no plugins were ever committed here".to_owned();
        let mut seen = BTreeSet::new();
        let attempts: Vec<Attempt> = self.history.attempts().to_vec();
        for attempt in attempts.iter().rev().filter(|attempt| attempt.outcome == AttemptOutcome::Committed) {
            if !seen.insert(&attempt.set) {
                continue;
            }
            let loaded = self.set_of(attempt).and_then(|set| {
                let (tried, _) = loaded(&set, &self.options.limits, &(self.disabled)(), self.clock.now())?;
                Ok((tried, set))
            });
            match loaded {
                Ok((tried, set)) if seen.len() == 1 => {
                    if set.hash().to_string() != folder {
                        tracing::warn!(
                            generation = attempt.generation,
                            "what runs is not what is in plugins.dir: it was committed last"
                        );
                    }
                    let budget = self.budget_of(&set);
                    return Ok(self.started(attempt.generation, set, tried, budget));
                }
                Ok((tried, set)) => {
                    tracing::error!(
                        generation = attempt.generation,
                        why = failed,
                        "what ran last does not load: what ran before runs"
                    );
                    let number = self.next_number();
                    let what = (Action::Start, AttemptOutcome::Committed);
                    let attempt = self.attempt(number, what, Some(&set), "the start", folder, &failed);
                    self.remember(attempt, &scripts_of(&set));
                    return Ok(self.started(number, set, tried, None));
                }
                Err(why) if seen.len() == 1 => failed = why,
                Err(_) => {}
            }
        }
        Err(failed)
    }

    fn started(&mut self, number: u32, set: Set, tried: Tried, budget: Option<Budget>) -> Arc<Prepared> {
        let limits = self.options.limits;
        let Tried { compiled, plugins } = tried;
        self.answers(Running { numbers: vec![number], set, plugins, limits });
        self.settled.values_mut().for_each(|settled| *settled = number);
        Arc::new(Prepared { generation: number, compiled, limits, mode: Mode::Replace, budget, is_rollback: false })
    }

    /// Until it is stopped.
    pub(super) fn run(&mut self) {
        let mut look_at = Instant::now() + LOOK_EVERY;
        while !self.is_stopping {
            let look = (self.options.watch == Watch::On).then_some(look_at);
            let leave = self.leaving.iter().map(|leaving| leaving.again_at).min();
            match self.next(look.into_iter().chain(leave).chain(self.write_again_at).min()) {
                Next::Told(told) => self.heard(told),
                Next::Order(order) => self.obey(order),
                Next::Due => {}
                Next::Nobody => break,
            }
            let now = Instant::now();
            if self.write_again_at.is_some_and(|at| at <= now) {
                self.write_history_again();
            }
            if leave.is_some_and(|leave| leave <= now) {
                self.go_back_again();
            }
            if look.is_some_and(|look| look <= now) {
                self.look_at_folder();
                look_at = Instant::now() + LOOK_EVERY;
            }
            self.take_limits_that_wait();
            while let Some(told) = self.later.pop_front() {
                self.heard(told);
            }
        }
        self.write_history_again();
    }

    /// What stands in the channel.
    #[cfg(test)]
    pub(super) fn hear_all(&mut self) {
        while let Some(told) = self.later.pop_front().or_else(|| self.told.try_recv().ok()) {
            self.heard(told);
        }
    }

    fn next(&self, due: Option<Instant>) -> Next {
        let told = |told: Result<Told, _>| told.map_or(Next::Nobody, Next::Told);
        let order = |order: Result<PluginsOrder, _>| order.map_or(Next::Nobody, Next::Order);
        let selector = flume::Selector::new().recv(&self.told, told).recv(&self.orders, order);
        match due {
            Some(due) => selector.wait_deadline(due).unwrap_or(Next::Due),
            None => selector.wait(),
        }
    }

    fn heard(&mut self, told: Told) {
        match told {
            Told::Spent { generation, why } => self.go_back(generation, &why),
            Told::Options(options) => {
                self.options = *options;
                self.reload_if_touched("a reload of the configuration");
            }
            other => self.note(other),
        }
    }

    /// What needs no decision; the rest is for later.
    fn note(&mut self, told: Told) {
        match told {
            Told::Settled { shard, generation } => drop(self.settled.insert(shard, generation)),
            Told::Stop => self.is_stopping = true,
            Told::Ready { .. } | Told::Committed { .. } => {} // late: of an attempt that was given up
            later => self.later.push_back(later),
        }
    }

    pub(super) fn obey(&mut self, order: PluginsOrder) {
        let PluginsOrder { wish, by, answer } = order;
        let outcome = match wish {
            PluginsWish::List => Ok(PluginsAnswer::List(self.state())),
            PluginsWish::History => Ok(PluginsAnswer::History(self.history.attempts().iter().rev().cloned().collect())),
            PluginsWish::Reload(trial) => self.reload(trial, by).map(PluginsAnswer::Done),
            PluginsWish::Rollback(to) => self.roll_back(to, by, "").map(PluginsAnswer::Done),
            PluginsWish::Promote => self.promote(&by).map(PluginsAnswer::Done),
            PluginsWish::Abort => self.abort(&by, "").map(PluginsAnswer::Done),
        };
        let _gone = answer.try_send(outcome);
    }

    fn state(&self) -> PluginsState {
        let trial = self.trial.as_ref().map(|(running, mode)| TrialState {
            generation: running.number(),
            set: running.set.hash().to_string(),
            mode: *mode,
        });
        PluginsState {
            generation: self.running.number(),
            set: if self.running.number() == 0 { String::new() } else { self.running.set.hash().to_string() },
            trial,
            folder: self.what_of_folder(),
            plugins: self.running.plugins.clone(),
        }
    }

    /// Why what runs is not what is in the folder, if it is not.
    fn what_of_folder(&self) -> Option<String> {
        let found = match self.read_folder() {
            Ok(found) => found.hash(),
            Err(why) => return Some(why),
        };
        let is_tried = self.trial.as_ref().is_some_and(|(running, _)| running.set.hash() == found);
        if is_tried || self.running.set.hash() == found {
            return None;
        }
        // An attempt without a set could not read the folder, and has carried on what was known of it.
        let is_of_it = |attempt: &&Attempt| attempt.folder == found.to_string() && !attempt.set.is_empty();
        let last = self.history.attempts().iter().rev().find(is_of_it);
        Some(match last {
            Some(Attempt { note, action, outcome, .. }) => {
                let (action, outcome) = (action.name(), outcome.name());
                format!("what is in plugins.dir does not run: the last {action} was {outcome}: {note}")
                    .trim_end_matches([':', ' '])
                    .to_owned()
            }
            None => "plugins.dir has changed since it was read: a reload runs what is there".to_owned(),
        })
    }

    fn read_folder(&self) -> Result<Set, String> {
        folder::read(self.options.dir.as_deref())
    }

    /// The hash of what is there. What can't be read is not known to have been touched: then what was there at the last attempt is
    /// carried on, so that one failed look does not bring back what a rollback has left.
    fn hash_of(&self, found: &Result<Set, String>) -> String {
        let known = || self.history.folder().unwrap_or_default().to_owned();
        found.as_ref().map_or_else(|_| known(), |set| set.hash().to_string())
    }

    /// Whether the folder is to be tried: it is not what was there at the last attempt, or can't be read, which is to be said.
    fn is_touched(&self, found: &Result<Set, String>) -> bool {
        found.as_ref().map_or(true, |set| self.history.folder() != Some(&*set.hash().to_string()))
    }

    /// While something is tried, what was edited waits for the look after it.
    pub(super) fn look_at_folder(&mut self) {
        let Some(folder) = self.options.dir.clone() else { return };
        if self.watcher.look(&folder) && self.trial.is_none() {
            self.reload_if_touched("plugins.watch");
        }
    }

    /// Runs what is in the folder if somebody has touched it since the last attempt, and it does not run already; or loads what runs
    /// again if its limits have changed.
    fn reload_if_touched(&mut self, by: &str) {
        if let Err(why) = self.nothing_is_tried() {
            self.limits_wait = self.running.limits != self.options.limits;
            tracing::warn!(by, why, "plugins.dir is not looked at");
            return;
        }
        // Looked at before it is read: what is written in between is seen by the next look.
        self.watcher.use_now(self.options.dir.as_deref());
        let found = self.read_folder();
        let runs = found.as_ref().is_ok_and(|set| set.hash() == self.running.set.hash());
        let done = if self.is_touched(&found) && !runs {
            self.reload(Trial::Replace, by.to_owned())
        } else if self.has_other_limits() {
            self.load_again(by)
        } else {
            return;
        };
        if let Err(why) = done {
            tracing::error!(by, why, "plugins are as they were");
        }
    }

    fn nothing_is_tried(&self) -> Result<(), String> {
        match &self.trial {
            Some((tried, _)) => Err(format!("generation {} is tried: promote or abort it first", tried.number())),
            None => Ok(()),
        }
    }

    fn has_other_limits(&self) -> bool {
        self.running.limits != self.options.limits && self.running.number() != 0
    }

    /// Of a configuration that was read while something was tried.
    pub(super) fn take_limits_that_wait(&mut self) {
        if self.trial.is_some() || !std::mem::take(&mut self.limits_wait) || !self.has_other_limits() {
            return;
        }
        if let Err(why) = self.load_again("a reload of the configuration") {
            tracing::error!(why, "plugins keep the limits that they had");
        }
    }

    fn load_again(&mut self, by: &str) -> Result<Attempt, String> {
        let (set, note) = (self.running.set.clone(), "the limits of scripts have changed".to_owned());
        let folder = self.history.folder().unwrap_or_default().to_owned();
        self.introduce(Wanted { set, folder, action: Action::Replace, mode: Mode::Replace, by: by.to_owned(), note })
    }

    fn reload(&mut self, trial: Trial, by: String) -> Result<Attempt, String> {
        let (action, mode) = match trial {
            Trial::Replace => (Action::Replace, Mode::Replace),
            Trial::Canary { percent } => (Action::Canary, Mode::Canary { percent }),
            Trial::Shadow => (Action::Shadow, Mode::Shadow),
        };
        self.nothing_is_tried()?;
        self.watcher.use_now(self.options.dir.as_deref());
        match self.read_folder() {
            Ok(set) => {
                let folder = set.hash().to_string();
                self.introduce(Wanted { set, folder, action, mode, by, note: String::new() })
            }
            Err(why) => {
                let (number, folder) = (self.next_number(), self.hash_of(&Err(String::new())));
                let attempt = self.attempt(number, (action, AttemptOutcome::Refused), None, &by, &folder, &why);
                self.remember(attempt, &[]);
                Err(why)
            }
        }
    }

    fn roll_back(&mut self, to: Option<u32>, by: String, note: &str) -> Result<Attempt, String> {
        let target = match to {
            Some(to) => self
                .history
                .committed_as(to)
                .ok_or_else(|| format!("no generation {to} was committed: see the history")),
            None => self.history.before().ok_or_else(|| "nothing else ran before: see the history".to_owned()),
        }?;
        let set = self.set_of(target)?;
        let back_to = format!("back to generation {}", target.generation);
        let note = if note.is_empty() { back_to } else { format!("{back_to}: {note}") };
        let folder = self.history.folder().unwrap_or_default().to_owned();
        self.introduce(Wanted { set, folder, action: Action::Rollback, mode: Mode::Replace, by, note })
    }

    fn set_of(&self, attempt: &Attempt) -> Result<Set, String> {
        let gone = || format!("the scripts of generation {} are not there any more", attempt.generation);
        let scripts = self.history.scripts_of(attempt).ok_or_else(gone)?;
        let sources = scripts
            .into_iter()
            .map(|(name, text)| Some(Source::new(PluginName::new(&name)?, format!("{name}.lua"), text)));
        Set::from_sources(sources.collect::<Option<_>>().ok_or_else(gone)?).map_err(|error| error.to_string())
    }

    /// Takes a set to all shards, or leaves everything as it is.
    fn introduce(&mut self, wanted: Wanted) -> Result<Attempt, String> {
        if wanted.action != Action::Promote {
            self.nothing_is_tried()?;
        }
        let number = self.next_number();
        match self.make_ready(number, &wanted) {
            Ok(plugins) => self.bring(number, wanted, plugins),
            Err(why) => {
                self.tell_all(&Step::Discard { generation: number });
                let what = (wanted.action, AttemptOutcome::Refused);
                let attempt = self.attempt(number, what, Some(&wanted.set), &wanted.by, &wanted.folder, &why);
                self.remember(attempt, &scripts_of(&wanted.set));
                tracing::error!(generation = number, why, "plugins are refused, nothing is changed");
                Err(why)
            }
        }
    }

    /// On all shards; what its plugins are.
    fn make_ready(&mut self, number: u32, wanted: &Wanted) -> Result<Vec<PluginState>, String> {
        let (limits, disabled, now) = (self.options.limits, (self.disabled)(), self.clock.now());
        let is_rollback = wanted.action == Action::Rollback;
        // What ran here has passed its tests when it came; it must not fail now for the state of the world.
        let Tried { compiled, plugins } = if is_rollback {
            loaded(&wanted.set, &limits, &disabled, now)?.0
        } else {
            tried(&wanted.set, &limits, &disabled, now)?
        };
        self.wait_until_settled()?;
        let (mode, budget) = (wanted.mode, if is_rollback { None } else { self.budget_of(&wanted.set) });
        let prepared = Prepared { generation: number, compiled, limits, mode, budget, is_rollback };
        self.tell_all(&Step::Prepare(Arc::new(prepared)));
        self.wait_until_ready(number)?;
        Ok(plugins)
    }

    /// All shards are ready: it is written down, and answers.
    fn bring(&mut self, number: u32, wanted: Wanted, plugins: Vec<PluginState>) -> Result<Attempt, String> {
        let Wanted { set, folder, action, mode, by, note } = wanted;
        let outcome = if mode == Mode::Replace { AttemptOutcome::Committed } else { AttemptOutcome::Trying };
        let attempt = self.attempt(number, (action, outcome), Some(&set), &by, &folder, &note);
        crate::fault::point("plugins-ready");
        if by == BY_ERROR_BUDGET {
            self.remember(attempt.clone(), &scripts_of(&set));
        } else if let Err(error) = self.history.add(attempt.clone(), &scripts_of(&set), self.options.history_max) {
            self.tell_all(&Step::Discard { generation: number });
            return Err(self.refused_unwritten(attempt, &set, error));
        } else {
            self.counters.count(&attempt);
        }
        crate::fault::point("plugins-written");
        self.commit(number, &Step::Commit { generation: number });
        let running = Running { numbers: vec![number], set, plugins, limits: self.options.limits };
        match mode {
            Mode::Replace => {
                self.trial = None;
                self.answers(running);
            }
            Mode::Canary { percent } => self.trial = Some((running, Trial::Canary { percent })),
            Mode::Shadow => self.trial = Some((running, Trial::Shadow)),
        }
        tracing::info!(generation = number, action = action.name(), by, set = attempt.set, "plugins have changed");
        Ok(attempt)
    }

    fn promote(&mut self, by: &str) -> Result<Attempt, String> {
        let (running, trial) = self.trial.clone().ok_or("no generation is tried")?;
        let folder = self.history.folder().unwrap_or_default().to_owned();
        let note = format!("generation {} was tried", running.number());
        if trial == Trial::Shadow {
            let (set, action, mode) = (running.set, Action::Promote, Mode::Replace);
            return self.introduce(Wanted { set, folder, action, mode, by: by.to_owned(), note });
        }
        self.wait_until_settled()?;
        let number = running.number();
        let note = "it was tried as a canary";
        let what = (Action::Promote, AttemptOutcome::Committed);
        let attempt = self.attempt(number, what, Some(&running.set), by, &folder, note);
        if let Err(error) = self.history.add(attempt.clone(), &scripts_of(&running.set), self.options.history_max) {
            return Err(self.refused_unwritten(attempt, &running.set, error));
        }
        self.counters.count(&attempt);
        self.commit(number, &Step::Promote { generation: number });
        self.trial = None;
        self.answers(running);
        tracing::info!(generation = number, by, "the canary answers for everybody");
        Ok(attempt)
    }

    fn abort(&mut self, by: &str, note: &str) -> Result<Attempt, String> {
        let (tried, _) = self.trial.clone().ok_or("no generation is tried")?;
        self.wait_until_settled()?;
        let number = self.next_number();
        let (set, folder) = (self.running.set.clone(), self.history.folder().unwrap_or_default().to_owned());
        let over = format!("generation {} is not tried any more", tried.number());
        let note = if note.is_empty() { over } else { format!("{over}: {note}") };
        let mut attempt =
            self.attempt(number, (Action::Abort, AttemptOutcome::Committed), Some(&set), by, &folder, &note);
        attempt.from = tried.number();
        self.remember(attempt.clone(), &scripts_of(&set));
        self.commit(number, &Step::Abort { generation: number });
        self.trial = None;
        self.running.numbers.push(number);
        self.counters.runs(number);
        tracing::info!(generation = number, by, "the trial is over");
        Ok(attempt)
    }

    /// Scripts of this generation fail too often.
    fn go_back(&mut self, generation: u32, why: &str) {
        let is_known = self.leaving.iter().any(|leaving| leaving.generation == generation);
        if !is_known {
            self.leave(Leaving { generation, why: why.to_owned(), said: String::new(), again_at: Instant::now() });
        }
    }

    /// What could not be left when it was asked for.
    pub(super) fn go_back_again(&mut self) {
        for leaving in std::mem::take(&mut self.leaving) {
            self.leave(leaving);
        }
    }

    fn leave(&mut self, leaving: Leaving) {
        let Leaving { generation, why, said, .. } = leaving;
        let is_trial = self.trial.as_ref().is_some_and(|(tried, _)| tried.numbers.contains(&generation));
        let is_running = self.running.numbers.contains(&generation);
        if !is_trial && !is_running {
            return; // it is gone already
        }
        let mut done = Ok(());
        if self.trial.is_some() {
            done = self.abort(BY_ERROR_BUDGET, &why).map(drop);
        }
        if is_running && done.is_ok() {
            done = self.roll_back(None, BY_ERROR_BUDGET.to_owned(), &why).map(drop);
        }
        let text = match &done {
            Ok(()) if self.history.is_behind() => format!(
                "plugins went back by themselves: generation {generation} failed: {why}; this can't be written down yet: a start before that runs it again"
            ),
            Ok(()) => format!("plugins went back by themselves: generation {generation} failed: {why}"),
            Err(error) => format!("plugins of generation {generation} fail ({why}) and can't go back: {error}"),
        };
        if text != said {
            self.tell_operator(text.clone());
        }
        if done.is_err() {
            let again_at = Instant::now() + GO_BACK_EVERY;
            self.leaving.push(Leaving { generation, why, said: text, again_at });
        }
    }

    fn tell_operator(&self, text: String) {
        tracing::error!("{text}");
        let until = Some(std::time::SystemTime::now() + NOTE_TIME);
        let _full = self.notes.try_send(Note { text, until });
    }

    /// It is what answers from now on.
    fn answers(&mut self, running: Running) {
        self.counters.runs(running.number());
        self.running = running;
    }

    fn tell_all(&self, step: &Step) {
        self.shards.iter().for_each(|shard| (self.tell)(*shard, step.clone()));
    }

    /// It can't fail any more: who does not say in time that it has done it does it in its next turn.
    fn commit(&mut self, number: u32, step: &Step) {
        self.tell_all(step);
        let mut left: BTreeSet<ShardId> = self.shards.iter().copied().collect();
        let waited = self.wait(&mut left, |told| match told {
            Told::Committed { shard, generation } if *generation == number => Some((*shard, Ok(()))),
            _ => None,
        });
        if let Err(why) = waited {
            tracing::warn!(generation = number, why, "not all shards have said that they have committed it");
        }
    }

    fn wait_until_ready(&mut self, number: u32) -> Result<(), String> {
        let mut left: BTreeSet<ShardId> = self.shards.iter().copied().collect();
        self.wait(&mut left, |told| match told {
            Told::Ready { shard, generation, outcome } if *generation == number => {
                Some((*shard, outcome.clone().map_err(|failures| listed(&failures))))
            }
            _ => None,
        })
    }

    /// Nothing is under way that a generation before the one that answers has stamped.
    fn wait_until_settled(&mut self) -> Result<(), String> {
        let number = self.running.number();
        let mut left: BTreeSet<ShardId> =
            self.settled.iter().filter(|(_, settled)| **settled < number).map(|(shard, _)| *shard).collect();
        self.wait(&mut left, |told| match told {
            Told::Settled { shard, generation } if *generation >= number => Some((*shard, Ok(()))),
            _ => None,
        })
    }

    /// Until each of them has said what `answer` looks for, or one says no.
    fn wait(
        &mut self,
        left: &mut BTreeSet<ShardId>,
        answer: impl Fn(&Told) -> Option<(ShardId, Result<(), String>)>,
    ) -> Result<(), String> {
        let deadline = Instant::now() + self.options.reload_timeout;
        while !left.is_empty() {
            if self.is_stopping {
                return Err("the server stops".to_owned());
            }
            let late = |_| {
                format!("shard {} did not answer in plugins.reload_timeout", left.first().map_or(0, |shard| shard.0))
            };
            let told = self.told.recv_deadline(deadline).map_err(late)?;
            let answered = answer(&told);
            self.note(told);
            if let Some((shard, outcome)) = answered {
                outcome?;
                left.remove(&shard);
            }
        }
        Ok(())
    }

    fn next_number(&mut self) -> u32 {
        self.last = self.history.next_generation().max(self.last + 1);
        self.last
    }

    /// What a set may fail. One that runs already goes on with what is left of its probation: it came to run with an attempt before, and
    /// once that was found good there is nothing to go back to that has to do with what fails now (a restart, other limits, a reload that
    /// lifts a quarantine).
    fn budget_of(&self, set: &Set) -> Option<Budget> {
        match self.history.came_with(&set.hash().to_string()) {
            Some(came) => self.budget_left(came),
            None => Some(self.budget()),
        }
    }

    /// What a rollback has brought is not judged, nor what came since something else did not load.
    fn budget_left(&self, came: &Attempt) -> Option<Budget> {
        let is_judged = match came.action {
            Action::Replace | Action::Promote => true,
            Action::Start => came.set == came.folder,
            Action::Rollback | Action::Abort | Action::Canary | Action::Shadow => false,
        };
        let past_ms = (self.clock.now().wall.0 / 1000).saturating_sub(came.at).saturating_mul(1000);
        let budget = self.budget();
        let left = budget.probation_ms.checked_sub(past_ms).filter(|left| is_judged && *left > 0)?;
        Some(Budget { probation_ms: left, ..budget })
    }

    fn budget(&self) -> Budget {
        let config::Plugins { error_budget, error_budget_calls, probation, .. } = self.options;
        Budget { percent: error_budget, calls_min: error_budget_calls, probation_ms: config::millis(probation) }
    }

    fn attempt(
        &self,
        generation: u32,
        (action, outcome): (Action, AttemptOutcome),
        set: Option<&Set>,
        by: &str,
        folder: &str,
        note: &str,
    ) -> Attempt {
        let plugin = |source: &Source| (source.name.to_string(), source.hash.to_string());
        Attempt {
            generation,
            at: self.clock.now().wall.0 / 1000,
            by: by.to_owned(),
            action,
            outcome,
            set: set.map(|set| set.hash().to_string()).unwrap_or_default(),
            plugins: set.map(|set| set.sources().iter().map(plugin).collect()).unwrap_or_default(),
            folder: folder.to_owned(),
            from: self.running.number(),
            note: note.chars().take(NOTE_MAX).collect(),
        }
    }

    /// What changes nothing, or leads back to what stands there, is remembered if it can be. A way back that is tried again, and is
    /// refused as before, is no news: others would be forgotten for it.
    fn remember(&mut self, attempt: Attempt, scripts: &[Script]) {
        self.counters.count(&attempt);
        if self.history.attempts().last().is_some_and(|last| is_way_back_again(last, &attempt)) {
            return;
        }
        if let Err(error) = self.history.hold(attempt, scripts, self.options.history_max) {
            tracing::error!(%error, "the history of plugins can't be written: a start before it can goes by what stands there");
            self.write_again_at = Some(Instant::now() + WRITE_AGAIN_EVERY);
        }
    }

    /// What would come to answer can't be written down, so it does not.
    fn refused_unwritten(&mut self, attempt: Attempt, set: &Set, error: std::io::Error) -> String {
        let why = not_written(error);
        tracing::error!(generation = attempt.generation, why, "plugins are refused, nothing is changed");
        let (outcome, note) = (AttemptOutcome::Refused, why.clone());
        self.remember(Attempt { outcome, note, ..attempt }, &scripts_of(set));
        why
    }

    /// What is remembered and could not be written.
    pub(super) fn write_history_again(&mut self) {
        self.write_again_at = None;
        let was_behind = self.history.is_behind();
        match self.history.catch_up() {
            Ok(()) if was_behind => tracing::info!("the history of plugins is written again"),
            Ok(()) => {}
            Err(_) => self.write_again_at = Some(Instant::now() + WRITE_AGAIN_EVERY),
        }
    }
}

fn is_way_back_again(last: &Attempt, attempt: &Attempt) -> bool {
    let is_refused = |attempt: &Attempt| attempt.by == BY_ERROR_BUDGET && attempt.outcome == AttemptOutcome::Refused;
    is_refused(last)
        && is_refused(attempt)
        && (&last.set, &last.note, last.from) == (&attempt.set, &attempt.note, attempt.from)
}

enum Next {
    Told(Told),
    Order(PluginsOrder),
    /// The folder is to be looked at, or what fails to be left.
    Due,
    /// The server has ended.
    Nobody,
}

impl Running {
    fn number(&self) -> u32 {
        *self.numbers.last().expect("it has a number")
    }
}

/// Loads a set in a VM that is thrown away, as a shard will.
///
/// # Errors
/// Everything that is wrong with it.
fn loaded(set: &Set, limits: &Limits, disabled: &BTreeSet<SetHash>, now: Now) -> Result<(Tried, Vm), String> {
    let compiled = set.compile(limits).map_err(|failures| listed(&failures))?;
    let mut vm =
        Vm::new(&compiled, limits, ShardId(0), std::rc::Rc::default()).map_err(|failures| listed(&failures))?;
    vm.disable(disabled);
    vm.load(now, &Saved::default()).map_err(|failure| failure.to_string())?;
    let plugins = states_of(set, &vm);
    Ok((Tried { compiled, plugins }, vm))
}

/// The same, and its self-tests.
///
/// # Errors
/// Likewise.
pub(super) fn tried(set: &Set, limits: &Limits, disabled: &BTreeSet<SetHash>, now: Now) -> Result<Tried, String> {
    let (tried, mut vm) = loaded(set, limits, disabled, now)?;
    let failures: Vec<Diagnostic> = vm.self_test(now).into_iter().filter_map(|test| test.failure).collect();
    if failures.is_empty() { Ok(tried) } else { Err(listed(&failures)) }
}

/// In the order in which they are asked.
fn states_of(set: &Set, vm: &Vm) -> Vec<PluginState> {
    let hash_of =
        |name: &PluginName| set.sources().iter().find(|source| source.name == *name).map(|source| source.hash);
    let state = |figures: Figures| PluginState {
        hash: hash_of(&figures.plugin).map(|hash| hash.to_string()).unwrap_or_default(),
        hooks: figures.hooks.iter().map(|(hook, _)| hook_of(vm, &figures.plugin, *hook)).collect(),
        name: figures.plugin.to_string(),
        description: figures.description,
        priority: figures.priority,
    };
    vm.figures().into_iter().map(state).collect()
}

fn hook_of(vm: &Vm, plugin: &PluginName, hook: Hook) -> PluginHook {
    PluginHook { name: hook.name().to_owned(), filters: vm.filters_of(plugin, hook) }
}

fn listed(failures: &[Diagnostic]) -> String {
    failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

fn scripts_of(set: &Set) -> Vec<Script> {
    set.sources().iter().map(|source| (source.name.to_string(), Arc::clone(&source.text))).collect()
}

fn not_written(error: std::io::Error) -> String {
    format!("the history of plugins can't be written, nothing is changed: {error}")
}
