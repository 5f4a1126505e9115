//! Decides which generation runs, and takes it to the shards. See the drawing in [`super`].
//!
//! | | |
//! |---|---|
//! | what it hears, and does when its time has come | here |
//! | what runs from the start on | `start` |
//! | a reload, a rollback, a trial and its end, and what the shards say to it | `change` |
//! | the way back of the server itself | `leaving` |
//! | the history, numbers, what may fail | `record` |
//! | a set in a VM that is thrown away | `trying` |
//!
//! Invariants
//! - What answers, or is tried, stands in the history, on the disk, before the first shard hears that it does. Two exceptions lead back to
//!   what stands there already: the end of a trial, and the way back from what has spent its budget; a full disk does not stop them.
//! - A number is given to one attempt only.
//! - While a generation is tried nothing else is.

mod change;
mod leaving;
mod record;
mod start;
mod trying;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use postroad_base::ShardId;
use postroad_control::{
    Attempt, Note, PluginState, PluginsAnswer, PluginsCounters, PluginsOrder, PluginsState, PluginsWish, Trial,
    TrialState,
};
use postroad_plugins::{Limits, Set, SetHash};

use super::folder::{self, Watcher};
use super::history::History;
use super::{Disabled, Parts, Tell, Told};
use crate::clock::Clock;
use crate::config::{self, Watch};
use leaving::Leaving;
pub(super) use trying::tried;

/// Between two looks at the folder.
const LOOK_EVERY: Duration = Duration::from_secs(1);

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
    /// Limits of scripts, or what is not called, have changed while something was tried.
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
    /// Versions in it that are not called.
    disabled: BTreeSet<SetHash>,
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
        let running =
            Running { numbers: vec![0], set, plugins: Vec::new(), limits: options.limits, disabled: BTreeSet::new() };
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
    /// again if its limits have changed, or what is not called.
    fn reload_if_touched(&mut self, by: &str) {
        if let Err(why) = self.nothing_is_tried() {
            self.limits_wait = self.is_to_be_loaded_again();
            tracing::warn!(by, why, "plugins.dir is not looked at");
            return;
        }
        // Looked at before it is read: what is written in between is seen by the next look.
        self.watcher.use_now(self.options.dir.as_deref());
        let found = self.read_folder();
        let runs = found.as_ref().is_ok_and(|set| set.hash() == self.running.set.hash());
        let done = if self.is_touched(&found) && !runs {
            self.reload(Trial::Replace, by.to_owned())
        } else if self.is_to_be_loaded_again() {
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

    /// What runs has other limits than it should, or something is not called that should be.
    fn is_to_be_loaded_again(&self) -> bool {
        let is_other = self.running.limits != self.options.limits || self.running.disabled != (self.disabled)();
        is_other && self.running.number() != 0
    }

    /// Of a configuration that was read while something was tried.
    pub(super) fn take_limits_that_wait(&mut self) {
        if self.trial.is_some() || !std::mem::take(&mut self.limits_wait) || !self.is_to_be_loaded_again() {
            return;
        }
        if let Err(why) = self.load_again("a reload of the configuration") {
            tracing::error!(why, "plugins keep the limits that they had");
        }
    }
}

enum Next {
    Told(Told),
    Order(PluginsOrder),
    /// The folder is to be looked at, what fails to be left, or the history to be written.
    Due,
    /// The server has ended.
    Nobody,
}

impl Running {
    fn number(&self) -> u32 {
        *self.numbers.last().expect("it has a number")
    }
}
