//! What runs from the start on.

use std::collections::BTreeSet;
use std::sync::Arc;

use postroad_control::{Action, Attempt, AttemptOutcome};
use postroad_plugins::Set;
use postroad_plugins::generations::{Budget, Mode, Prepared};

use super::record::scripts_of;
use super::trying::{Tried, loaded, tried};
use super::{Coordinator, Running};

impl Coordinator {
    /// Decides what runs from the start on: the folder, if somebody has touched it since it was last looked at; else, and if it does
    /// not load, what was committed last; else what was before. `None`: no plugins, as ever.
    ///
    /// # Errors
    /// Why none of them loads.
    pub(in crate::plugins) fn start(&mut self) -> Result<Option<Arc<Prepared>>, String> {
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
        self.write_down(&attempt, &set)?;
        Ok(self.started(number, set, tried, budget))
    }

    /// What was committed last, or what loads of what was before it.
    fn start_with_history(&mut self, folder: &str) -> Result<Arc<Prepared>, String> {
        let mut failed = "no plugins were ever committed here".to_owned();
        let mut seen = BTreeSet::new();
        let attempts: Vec<Attempt> = self.history.attempts().to_vec();
        let disabled = (self.disabled)();
        for attempt in attempts.iter().rev().filter(|attempt| attempt.outcome == AttemptOutcome::Committed) {
            if !seen.insert(&attempt.set) {
                continue;
            }
            let loaded = self.set_of(attempt).and_then(|set| {
                let (tried, _) = loaded(&set, &self.options.limits, &disabled, self.clock.now())?;
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
        let Tried { compiled, plugins, disabled } = tried;
        self.answers(Running { numbers: vec![number], set, plugins, limits, disabled: disabled.clone() });
        self.settled.values_mut().for_each(|settled| *settled = number);
        Arc::new(Prepared {
            generation: number,
            compiled,
            limits,
            mode: Mode::Replace,
            budget,
            disabled,
            is_rollback: false,
        })
    }
}
