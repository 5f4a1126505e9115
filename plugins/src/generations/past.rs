//! What generations have counted that are gone: counters of a plugin go on when another version takes its place.

use std::collections::BTreeMap;

use crate::{Figures, Hook, HookFigures, PluginName};

/// What one plugin has counted, in whatever generations.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PluginTotals {
    /// Its name.
    pub name: String,
    /// It is not called any more in the generation that answers.
    pub is_quarantined: bool,
    /// By hook.
    pub hooks: BTreeMap<Hook, HookFigures>,
    /// By name.
    pub counters: BTreeMap<String, u64>,
    /// By name: of the generation that answers.
    pub gauges: BTreeMap<String, f64>,
}

/// Adds up what several generations have counted.
#[derive(Clone, Debug, Default)]
pub struct Totals(BTreeMap<PluginName, PluginTotals>);

/// See the module head. Of plugins that no generation has any more nothing is kept, so that names don't pile up.
#[derive(Debug, Default)]
pub(super) struct Past(Totals);

impl Past {
    pub(super) fn add(&mut self, figures: &[Figures]) {
        self.0.add(figures);
    }

    pub(super) fn keep_only(&mut self, living: &[Figures]) {
        self.0.0.retain(|name, _| living.iter().any(|figures| figures.plugin == *name));
    }
}

impl From<&Past> for Totals {
    fn from(past: &Past) -> Self {
        past.0.clone()
    }
}

impl Totals {
    pub(super) fn add(&mut self, figures: &[Figures]) {
        for one in figures {
            let totals = self.0.entry(one.plugin.clone()).or_default();
            for (hook, counted) in &one.hooks {
                let sum = totals.hooks.entry(*hook).or_default();
                sum.calls += counted.calls;
                sum.errors += counted.errors;
                sum.sampled_ns += counted.sampled_ns;
                sum.sampled_calls += counted.sampled_calls;
            }
            for (name, value) in &one.counters {
                *totals.counters.entry(name.clone()).or_default() += value;
            }
        }
    }

    /// These are of the generation that answers.
    pub(super) fn measured(&mut self, figures: &[Figures]) {
        for one in figures {
            let totals = self.0.entry(one.plugin.clone()).or_default();
            totals.is_quarantined = one.is_quarantined || one.is_disabled;
            totals.gauges.clone_from(&one.gauges);
        }
    }

    pub(super) fn into_plugins(self) -> Vec<PluginTotals> {
        self.0.into_iter().map(|(name, totals)| PluginTotals { name: name.to_string(), ..totals }).collect()
    }
}
