//! The way back of the server itself, from what fails too often.

use std::time::{Duration, Instant};

use postroad_control::{BY_ERROR_BUDGET, Note};

use super::Coordinator;

/// How long a note stands that the server went back by itself.
const NOTE_TIME: Duration = Duration::from_secs(3600);
/// Between two tries to leave what fails.
const GO_BACK_EVERY: Duration = Duration::from_secs(10);

/// A generation that has spent its budget: a shard says so once, so the wish to leave it is kept here while it runs.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) generation: u32,
    pub(super) why: String,
    /// What the operator was told last.
    pub(super) said: String,
    pub(super) again_at: Instant,
}

impl Coordinator {
    /// Scripts of this generation fail too often.
    pub(super) fn go_back(&mut self, generation: u32, why: &str) {
        let is_known = self.leaving.iter().any(|leaving| leaving.generation == generation);
        if !is_known {
            self.leave(Leaving { generation, why: why.to_owned(), said: String::new(), again_at: Instant::now() });
        }
    }

    /// What could not be left when it was asked for.
    pub(in crate::plugins) fn go_back_again(&mut self) {
        for leaving in std::mem::take(&mut self.leaving) {
            self.leave(leaving);
        }
    }

    pub(super) fn leave(&mut self, leaving: Leaving) {
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
            Ok(()) if is_running && self.history.is_behind() => format!(
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
}
