//! What is written down of each attempt, and what follows from it: its number, and what a set may still fail.

use std::sync::Arc;
use std::time::{Duration, Instant};

use postroad_control::{Action, Attempt, AttemptOutcome, BY_ERROR_BUDGET};
use postroad_plugins::generations::Budget;
use postroad_plugins::{Set, Source};

use super::Coordinator;
use crate::config;
use crate::plugins::history::Script;

/// Between two tries to write what could not be written.
const WRITE_AGAIN_EVERY: Duration = Duration::from_secs(10);
/// Characters of a note in the history: what is behind says no more.
const NOTE_MAX: usize = 4096;

impl Coordinator {
    pub(super) fn next_number(&mut self) -> u32 {
        self.last = self.history.next_generation().max(self.last + 1);
        self.last
    }

    /// What a set may fail. One that runs already goes on with what is left of its probation: it came to run with an attempt before, and
    /// once that was found good there is nothing to go back to that has to do with what fails now (a restart, other limits, a reload that
    /// lifts a quarantine).
    pub(super) fn budget_of(&self, set: &Set) -> Option<Budget> {
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

    pub(super) fn budget(&self) -> Budget {
        let config::Plugins { error_budget, error_budget_calls, probation, .. } = self.options;
        Budget { percent: error_budget, calls_min: error_budget_calls, probation_ms: config::millis(probation) }
    }

    pub(super) fn attempt(
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
    pub(super) fn remember(&mut self, attempt: Attempt, scripts: &[Script]) {
        self.counters.count(&attempt);
        if self.history.attempts().last().is_some_and(|last| is_way_back_again(last, &attempt)) {
            return;
        }
        if let Err(error) = self.history.hold(attempt, scripts, self.options.history_max) {
            tracing::error!(%error, "the history of plugins can't be written: a start before it can goes by what stands there");
            self.write_again_at = Some(Instant::now() + WRITE_AGAIN_EVERY);
        }
    }

    /// Writes down what is to come to answer. What can't be written does not answer: then it is remembered as refused.
    pub(super) fn write_down(&mut self, attempt: &Attempt, set: &Set) -> Result<(), String> {
        let scripts = scripts_of(set);
        let Err(error) = self.history.add(attempt.clone(), &scripts, self.options.history_max) else {
            self.counters.count(attempt);
            return Ok(());
        };
        let why = format!("the history of plugins can't be written, nothing is changed: {error}");
        tracing::error!(generation = attempt.generation, why, "plugins are refused, nothing is changed");
        self.remember(Attempt { outcome: AttemptOutcome::Refused, note: why.clone(), ..attempt.clone() }, &scripts);
        Err(why)
    }

    /// What is remembered and could not be written.
    pub(in crate::plugins) fn write_history_again(&mut self) {
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

pub(super) fn scripts_of(set: &Set) -> Vec<Script> {
    set.sources().iter().map(|source| (source.name.to_string(), Arc::clone(&source.text))).collect()
}
