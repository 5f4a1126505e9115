//! One generation takes the place of another, or is tried beside it: see the drawing in [`crate::plugins`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use postroad_base::ShardId;
use postroad_control::{Action, Attempt, AttemptOutcome, BY_ERROR_BUDGET, PluginState, Trial};
use postroad_plugins::generations::{Mode, Prepared};
use postroad_plugins::{PluginName, Set, SetHash, Source};

use super::record::scripts_of;
use super::trying::{Tried, listed, loaded, tried};
use super::{Coordinator, Running};
use crate::plugins::{Step, Told};

/// What is to come to answer.
pub(super) struct Wanted {
    pub(super) set: Set,
    /// The hash of what lay in the folder then.
    pub(super) folder: String,
    pub(super) action: Action,
    pub(super) mode: Mode,
    pub(super) by: String,
    pub(super) note: String,
}

/// What all shards have made ready.
struct Ready {
    plugins: Vec<PluginState>,
    disabled: BTreeSet<SetHash>,
}

impl Coordinator {
    pub(super) fn load_again(&mut self, by: &str) -> Result<Attempt, String> {
        let has_other_limits = self.running.limits != self.options.limits;
        let note =
            if has_other_limits { "the limits of scripts have changed" } else { "other versions are not called" };
        let (set, note) = (self.running.set.clone(), note.to_owned());
        let folder = self.history.folder().unwrap_or_default().to_owned();
        self.introduce(Wanted { set, folder, action: Action::Replace, mode: Mode::Replace, by: by.to_owned(), note })
    }

    pub(super) fn reload(&mut self, trial: Trial, by: String) -> Result<Attempt, String> {
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

    pub(super) fn roll_back(&mut self, to: Option<u32>, by: String, note: &str) -> Result<Attempt, String> {
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

    pub(super) fn set_of(&self, attempt: &Attempt) -> Result<Set, String> {
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
            Ok(ready) => self.bring(number, wanted, ready),
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
    fn make_ready(&mut self, number: u32, wanted: &Wanted) -> Result<Ready, String> {
        let (limits, disabled, now) = (self.options.limits, (self.disabled)(), self.clock.now());
        let is_rollback = wanted.action == Action::Rollback;
        // What ran here has passed its tests when it came; it must not fail now for the state of the world.
        let Tried { compiled, plugins, .. } = if is_rollback {
            loaded(&wanted.set, &limits, &disabled, now)?.0
        } else {
            tried(&wanted.set, &limits, &disabled, now)?
        };
        self.wait_until_settled()?;
        let (mode, budget) = (wanted.mode, if is_rollback { None } else { self.budget_of(&wanted.set) });
        let prepared =
            Prepared { generation: number, compiled, limits, mode, budget, disabled: disabled.clone(), is_rollback };
        self.tell_all(&Step::Prepare(Arc::new(prepared)));
        self.wait_until_ready(number)?;
        Ok(Ready { plugins, disabled })
    }

    /// All shards are ready: it is written down, and answers.
    fn bring(&mut self, number: u32, wanted: Wanted, ready: Ready) -> Result<Attempt, String> {
        let Ready { plugins, disabled } = ready;
        let Wanted { set, folder, action, mode, by, note } = wanted;
        let outcome = if mode == Mode::Replace { AttemptOutcome::Committed } else { AttemptOutcome::Trying };
        let attempt = self.attempt(number, (action, outcome), Some(&set), &by, &folder, &note);
        crate::fault::point("plugins-ready");
        if by == BY_ERROR_BUDGET {
            self.remember(attempt.clone(), &scripts_of(&set));
        } else if let Err(why) = self.write_down(&attempt, &set) {
            self.tell_all(&Step::Discard { generation: number });
            return Err(why);
        }
        crate::fault::point("plugins-written");
        self.commit(number, &Step::Commit { generation: number });
        let running = Running { numbers: vec![number], set, plugins, limits: self.options.limits, disabled };
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

    pub(super) fn promote(&mut self, by: &str) -> Result<Attempt, String> {
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
        self.write_down(&attempt, &running.set)?;
        self.commit(number, &Step::Promote { generation: number });
        self.trial = None;
        self.answers(running);
        tracing::info!(generation = number, by, "the canary answers for everybody");
        Ok(attempt)
    }

    pub(super) fn abort(&mut self, by: &str, note: &str) -> Result<Attempt, String> {
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

    /// It is what answers from now on.
    pub(super) fn answers(&mut self, running: Running) {
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
    pub(super) fn wait(
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
}
