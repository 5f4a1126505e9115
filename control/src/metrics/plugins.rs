//! Figures of plugins. Their names are labels, since there are few, and so are the names of what scripts count: the VM bounds them.

use std::fmt::Display;

use super::{Metric, Page, counter, gauge};
use crate::plugins::{HookReport, PluginReport, PluginsFigures};
use crate::report::ShardReport;

pub(super) fn page(out: &mut Page, figures: PluginsFigures, shards: &[ShardReport]) {
    coordinator(out, figures);
    scripts(out, shards);
    hooks(out, shards);
    own(out, shards);
}

fn coordinator(out: &mut Page, figures: PluginsFigures) {
    let PluginsFigures { generation, committed, trying, refused, rollbacks_asked, rollbacks_by_itself } = figures;
    out.single(
        gauge("postroad_plugins_generation", "The generation of plugins that answers; 0: none yet."),
        generation,
    );
    let reloads = counter("postroad_plugins_reloads_total", "Attempts to change what runs, by what became of them.");
    out.family(reloads);
    for (outcome, count) in [("committed", committed), ("trying", trying), ("refused", refused)] {
        out.sample(reloads.name, &[("outcome", outcome)], count);
    }
    let rollbacks = counter(
        "postroad_plugins_rollbacks_total",
        "Returns to what ran before: asked for, or because an error budget was spent.",
    );
    out.family(rollbacks);
    for (cause, count) in [("asked", rollbacks_asked), ("error_budget", rollbacks_by_itself)] {
        out.sample(rollbacks.name, &[("cause", cause)], count);
    }
}

fn scripts(out: &mut Page, shards: &[ShardReport]) {
    for (metric, value) in [
        (
            gauge("postroad_plugins_loaded_generations", "Generations in memory; more than one while they change."),
            (|s| s.plugins.generations) as fn(&ShardReport) -> u64,
        ),
        (gauge("postroad_plugins_memory_bytes", "Memory of scripts."), |s| s.plugins.memory_bytes),
        (
            counter(
                "postroad_plugins_strays_total",
                "Messages whose generation was gone, so that another one was asked.",
            ),
            |s| s.plugins.strays,
        ),
    ] {
        out.family(metric);
        for shard in shards {
            out.sample(metric.name, &[("shard", &shard.shard.0.to_string())], value(shard));
        }
    }
    let metric =
        counter("postroad_plugins_shadow_differences_total", "Answers of a shadow that differed, by what differed.");
    out.family(metric);
    for shard in shards {
        for (kind, count) in &shard.plugins.differences {
            out.sample(metric.name, &[("shard", &shard.shard.0.to_string()), ("kind", kind)], count);
        }
    }
    let metric = gauge(
        "postroad_plugin_quarantined",
        "1: the plugin failed too often, or the server crashed in it, and it is not called any more.",
    );
    each_plugin(out, shards, metric, |out, shard, plugin| {
        let labels = [("shard", shard), ("plugin", &*plugin.name)];
        out.sample(metric.name, &labels, u8::from(plugin.is_quarantined));
    });
}

type HookRow = (Metric, fn(&HookReport) -> f64);

const HOOK_ROWS: &[HookRow] = &[
    (counter("postroad_plugin_calls_total", "Calls of hooks of plugins."), |hook| hook.calls as f64),
    (counter("postroad_plugin_errors_total", "Of them, those that failed."), |hook| hook.errors as f64),
    (counter("postroad_plugin_sampled_seconds_total", "Time of the calls that were measured: one of 64."), |hook| {
        hook.sampled_nanos as f64 / 1e9
    }),
    (counter("postroad_plugin_sampled_calls_total", "How many calls were measured."), |hook| hook.sampled_calls as f64),
];

fn hooks(out: &mut Page, shards: &[ShardReport]) {
    for (metric, value) in HOOK_ROWS {
        each_plugin(out, shards, *metric, |out, shard, plugin| {
            for hook in &plugin.hooks {
                let labels = [("shard", shard), ("plugin", &plugin.name), ("hook", hook.name)];
                out.sample(metric.name, &labels, value(hook));
            }
        });
    }
}

/// What scripts count and measure.
fn own(out: &mut Page, shards: &[ShardReport]) {
    let metric = counter("postroad_plugin_counter_total", "What a script counts (postroad.counter).");
    each_plugin(out, shards, metric, |out, shard, plugin| samples(out, metric, shard, plugin, &plugin.counters));
    let metric = gauge("postroad_plugin_gauge", "What a script measures (postroad.gauge).");
    each_plugin(out, shards, metric, |out, shard, plugin| samples(out, metric, shard, plugin, &plugin.gauges));
}

fn samples<V: Display>(out: &mut Page, metric: Metric, shard: &str, plugin: &PluginReport, values: &[(String, V)]) {
    for (name, value) in values {
        out.sample(metric.name, &[("shard", shard), ("plugin", &plugin.name), ("name", name)], value);
    }
}

fn each_plugin(
    out: &mut Page,
    shards: &[ShardReport],
    metric: Metric,
    mut visit: impl FnMut(&mut Page, &str, &PluginReport),
) {
    out.family(metric);
    for shard in shards {
        let name = shard.shard.0.to_string();
        for plugin in &shard.plugins.plugins {
            visit(out, &name, plugin);
        }
    }
}

#[cfg(test)]
mod tests {
    use postroad_base::ShardId;

    use super::*;
    use crate::plugins::PluginsReport;

    #[test]
    fn plugins_are_shown_with_their_hooks_and_what_they_count() {
        let mut shard = ShardReport::new(ShardId(1));
        let hook = HookReport { name: "route", calls: 9, errors: 2, sampled_nanos: 1_500_000_000, sampled_calls: 3 };
        shard.plugins = PluginsReport {
            generations: 2,
            memory_bytes: 100,
            strays: 0,
            differences: vec![("topic", 4)],
            plugins: vec![PluginReport {
                name: "tenant".into(),
                is_quarantined: true,
                hooks: vec![hook],
                counters: vec![("seen".into(), 2)],
                gauges: vec![("level".into(), 3.0)],
            }],
        };
        let figures = PluginsFigures { generation: 7, refused: 3, rollbacks_by_itself: 1, ..PluginsFigures::default() };
        let mut out = Page(String::new());
        page(&mut out, figures, &[shard]);
        for line in [
            "postroad_plugins_generation 7",
            "postroad_plugins_reloads_total{outcome=\"refused\"} 3",
            "postroad_plugins_rollbacks_total{cause=\"error_budget\"} 1",
            "postroad_plugins_loaded_generations{shard=\"1\"} 2",
            "postroad_plugins_shadow_differences_total{shard=\"1\",kind=\"topic\"} 4",
            "postroad_plugin_quarantined{shard=\"1\",plugin=\"tenant\"} 1",
            "postroad_plugin_calls_total{shard=\"1\",plugin=\"tenant\",hook=\"route\"} 9",
            "postroad_plugin_errors_total{shard=\"1\",plugin=\"tenant\",hook=\"route\"} 2",
            "postroad_plugin_sampled_seconds_total{shard=\"1\",plugin=\"tenant\",hook=\"route\"} 1.5",
            "postroad_plugin_counter_total{shard=\"1\",plugin=\"tenant\",name=\"seen\"} 2",
            "postroad_plugin_gauge{shard=\"1\",plugin=\"tenant\",name=\"level\"} 3",
        ] {
            assert!(out.0.lines().any(|l| l == line), "missing {line:?} in\n{}", out.0);
        }
    }
}
