//! A set, tried in a VM that is thrown away.

use std::collections::BTreeSet;

use postroad_base::{Now, ShardId};
use postroad_control::{PluginHook, PluginState};
use postroad_plugins::{Compiled, Diagnostic, Figures, Hook, Limits, PluginName, Saved, Set, SetHash, Vm};

/// A set that loads.
#[derive(Debug)]
pub(in crate::plugins) struct Tried {
    pub(super) compiled: Compiled,
    pub(super) plugins: Vec<PluginState>,
    /// Versions in it that are not called.
    pub(super) disabled: BTreeSet<SetHash>,
}

/// Loads a set in a VM that is thrown away, as a shard will.
///
/// # Errors
/// Everything that is wrong with it.
pub(super) fn loaded(
    set: &Set,
    limits: &Limits,
    disabled: &BTreeSet<SetHash>,
    now: Now,
) -> Result<(Tried, Vm), String> {
    let compiled = set.compile(limits).map_err(|failures| listed(&failures))?;
    let mut vm =
        Vm::new(&compiled, limits, ShardId(0), std::rc::Rc::default()).map_err(|failures| listed(&failures))?;
    vm.disable(disabled);
    vm.load(now, &Saved::default()).map_err(|failure| failure.to_string())?;
    let plugins = states_of(set, &vm);
    Ok((Tried { compiled, plugins, disabled: disabled.clone() }, vm))
}

/// The same, and its self-tests.
///
/// # Errors
/// Likewise.
pub(in crate::plugins) fn tried(
    set: &Set,
    limits: &Limits,
    disabled: &BTreeSet<SetHash>,
    now: Now,
) -> Result<Tried, String> {
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

pub(super) fn listed(failures: &[Diagnostic]) -> String {
    failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
