//! What the coordinator of plugins asks of a shard, and what the shard tells it.

use postroad_control::{HookReport, PluginReport, PluginsReport};
use postroad_plugins::generations::{PluginTotals, Report};
use postroad_plugins::{Diagnostic, PluginName};

use super::Shard;
use crate::codecs::{CodecsOfShard, missing};
use crate::plugins::{Step, Told};

impl Shard {
    /// One step of a change, and the answer to it.
    pub(super) fn take_step(&mut self, step: Step) {
        let (shard, now) = (self.id, self.now);
        match step {
            Step::Prepare(prepared) => {
                let generation = prepared.generation;
                let outcome = self.plugins.prepare(now, prepared).and_then(|()| self.codecs_ready(generation));
                if outcome.is_ok() {
                    self.ask_plugins(); // another shard may stamp with it before this one commits
                }
                self.tell_coordinator(Told::Ready { shard, generation, outcome });
            }
            Step::Discard { generation } => {
                self.plugins.discard(generation);
                self.let_plugins_rest();
            }
            Step::Commit { generation } => {
                let is_done = self.plugins.commit(now, generation);
                self.committed(generation, is_done);
            }
            Step::Promote { generation } => {
                let is_done = self.plugins.promote(now);
                self.committed(generation, is_done);
            }
            Step::Abort { generation } => {
                let is_done = self.plugins.abort(generation);
                self.committed(generation, is_done);
            }
        }
    }

    /// A generation that takes the codec of a listener away is not ready.
    fn codecs_ready(&self, generation: u32) -> Result<(), Vec<Diagnostic>> {
        let listeners = &self.live.config.listeners;
        let Some(missing) = missing(listeners, |name| self.plugins.has_codec_ready(name), &*self.common.codecs) else {
            return Ok(());
        };
        self.plugins.discard(generation);
        let plugin = PluginName::new("plugins").expect("a name");
        let (file, hook) = ("plugins".to_owned(), Some("codec".to_owned()));
        Err(vec![Diagnostic { file, line: None, column: None, plugin, hook, message: missing }])
    }

    /// Nothing is stamped here with an older generation from now on: the others hear it behind all that was.
    fn committed(&mut self, generation: u32, is_done: bool) {
        debug_assert!(is_done, "generation {generation} was not ready here");
        if self.plugins.generation() == generation {
            let listeners = &self.live.config.listeners;
            self.codecs = CodecsOfShard::new(listeners, &self.plugins, &*self.common.codecs);
            self.codecs.set_time(self.now);
            self.broker.plugins_committed(generation);
        }
        self.tell_coordinator(Told::Committed { shard: self.id, generation });
    }

    /// The broker has plugins to ask from now on.
    pub(super) fn ask_plugins(&mut self) {
        if !std::mem::replace(&mut self.plugins_are_asked, true) {
            self.broker.set_hooks(Some(Box::new(self.plugins.clone())));
        }
    }

    /// Without plugins the broker has nobody to ask, and asks nobody.
    fn let_plugins_rest(&mut self) {
        if self.plugins_are_asked && self.plugins.rests() {
            self.plugins_are_asked = false;
            self.broker.set_hooks(None);
        }
    }

    /// Nothing is under way any more that an older generation has stamped.
    pub(super) fn plugins_settled(&mut self, generation: u32) {
        self.plugins.settled(generation);
        self.let_plugins_rest();
        self.tell_coordinator(Told::Settled { shard: self.id, generation });
    }

    /// Once a second: whether scripts fail too often.
    pub(super) fn judge_plugins(&mut self) {
        if let Some(spent) = self.plugins.spent(self.now) {
            tracing::warn!(shard = self.id.0, generation = spent.generation, why = spent.why, "plugins fail too often");
            self.tell_coordinator(Told::Spent { generation: spent.generation, why: spent.why });
        }
    }

    fn tell_coordinator(&self, told: Told) {
        let _stopped = self.common.coordinator.send(told); // unbounded: it never waits
    }

    pub(super) fn plugins_report(&self) -> PluginsReport {
        let Report { generations, memory_bytes, strays, differences, plugins } = self.plugins.report();
        PluginsReport {
            generations: generations as u64,
            memory_bytes: memory_bytes as u64,
            strays,
            differences,
            plugins: plugins.into_iter().map(report_of).collect(),
        }
    }
}

fn report_of(totals: PluginTotals) -> PluginReport {
    let PluginTotals { name, is_quarantined, hooks, counters, gauges } = totals;
    let hooks = hooks.into_iter().map(|(hook, counted)| HookReport {
        name: hook.name(),
        calls: counted.calls,
        errors: counted.errors,
        sampled_nanos: counted.sampled_ns,
        sampled_calls: counted.sampled_calls,
    });
    PluginReport {
        name,
        is_quarantined,
        hooks: hooks.collect(),
        counters: counters.into_iter().collect(),
        gauges: gauges.into_iter().collect(),
    }
}
