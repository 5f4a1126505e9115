//! `postroad plugin list|history|reload|rollback|promote|abort`: what a running server does with its plugins.

use std::io::Write;

use anyhow::Result;
use postroad_base::utc;
use serde_json::{Value, json};

use super::client::{printable, show};
use super::{Api, told};
use crate::cli::{ApiArgs, OnlinePluginAction, TrialArgs};

/// Digits of a hash that are shown: enough to tell two apart.
const HASH_DIGITS: usize = 12;

/// Runs the command.
pub fn plugin(action: &OnlinePluginAction) -> Result<()> {
    match action {
        OnlinePluginAction::List { api } => told_as(api, Api::new(api).get("/v1/plugins", &[])?, list),
        OnlinePluginAction::History { api } => history(api),
        OnlinePluginAction::Reload { api, trial } => change(api, "reload", &asked(trial)),
        OnlinePluginAction::Rollback { api, to } => change(api, "rollback", &json!({ "to": to })),
        OnlinePluginAction::Promote { api } => change(api, "promote", &json!({})),
        OnlinePluginAction::Abort { api } => change(api, "abort", &json!({})),
    }
}

fn asked(trial: &TrialArgs) -> Value {
    match (trial.canary, trial.shadow) {
        (Some(percent), _) => json!({ "mode": "canary", "percent": percent }),
        (None, true) => json!({ "mode": "shadow" }),
        (None, false) => json!({ "mode": "replace" }),
    }
}

fn change(api: &ApiArgs, what: &str, body: &Value) -> Result<()> {
    told_as(api, Api::new(api).post(&format!("/v1/plugins/{what}"), body)?, |attempt| attempted(attempt) + "\n")
}

fn told_as(api: &ApiArgs, answer: Value, described: impl FnOnce(&Value) -> String) -> Result<()> {
    if api.json {
        return show(api, &answer);
    }
    Ok(write!(told(), "{}", described(&answer))?)
}

fn history(api: &ApiArgs) -> Result<()> {
    let page = Api::new(api).get("/v1/plugins/history", &[])?;
    let attempts = page["attempts"].as_array().cloned().unwrap_or_default();
    let mut out = std::io::stdout().lock();
    if !api.json && !attempts.is_empty() {
        writeln!(out, "GENERATION  WHEN                  ACTION    OUTCOME    SET           BY  NOTE")?;
    }
    for attempt in &attempts {
        let line = if api.json { attempt.to_string() } else { remembered(attempt) };
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn text(value: &Value) -> String {
    printable(value.as_str().unwrap_or_default())
}

fn hash(value: &Value) -> String {
    text(value).chars().take(HASH_DIGITS).collect()
}

fn attempted(attempt: &Value) -> String {
    let (action, outcome) = (text(&attempt["action"]), text(&attempt["outcome"]));
    let note = text(&attempt["note"]);
    let note = if note.is_empty() { note } else { format!(" ({note})") };
    let plugins = attempt["plugins"].as_object().map_or(0, serde_json::Map::len);
    let (generation, set) = (&attempt["generation"], hash(&attempt["set"]));
    format!("generation {generation}: {action} {outcome}, {plugins} plugins, set {set}{note}")
}

fn remembered(attempt: &Value) -> String {
    let when = utc(attempt["at"].as_u64().unwrap_or_default());
    let (action, outcome, set) = (text(&attempt["action"]), text(&attempt["outcome"]), hash(&attempt["set"]));
    let (by, note) = (text(&attempt["by"]), text(&attempt["note"]));
    let generation = attempt["generation"].to_string();
    format!("{generation:<11} {when:<21} {action:<9} {outcome:<10} {set:<13} {by}  {note}").trim_end().to_owned()
}

fn list(page: &Value) -> String {
    let mut lines = vec![format!("generation {}, set {}", page["generation"], hash(&page["set"]))];
    if let Some(trial) = page["trial"].as_object() {
        let mode = trial["mode"].as_str().map_or_else(
            || format!("canary for {} % of the clients", trial["mode"]["canary"]["percent"]),
            str::to_owned,
        );
        lines.push(format!("tried: generation {}, set {}, {mode}", trial["generation"], hash(&trial["set"])));
    }
    if let Some(why) = page["folder"].as_str() {
        lines.push(printable(why));
    }
    let plugins = page["plugins"].as_array().cloned().unwrap_or_default();
    if !plugins.is_empty() {
        lines.push("PRIORITY  PLUGIN            HASH          CALLS       ERRORS      HOOKS".to_owned());
    }
    lines.extend(plugins.iter().map(plugin_line));
    lines.join("\n") + "\n"
}

fn plugin_line(plugin: &Value) -> String {
    let hooks = plugin["hooks"].as_array().cloned().unwrap_or_default();
    let hooks: Vec<String> = hooks.iter().map(hook).collect();
    let stopped: Vec<String> =
        plugin["quarantined_shards"].as_array().into_iter().flatten().map(ToString::to_string).collect();
    let stopped =
        if stopped.is_empty() { String::new() } else { format!("  QUARANTINED on shards {}", stopped.join(", ")) };
    let (priority, calls, errors) =
        (plugin["priority"].to_string(), plugin["calls"].to_string(), plugin["errors"].to_string());
    let (name, hash) = (text(&plugin["name"]), hash(&plugin["hash"]));
    format!("{priority:<9} {name:<17} {hash:<13} {calls:<11} {errors:<11} {}{stopped}", hooks.join(" "))
}

fn hook(hook: &Value) -> String {
    let filters: Vec<String> = hook["filters"].as_array().into_iter().flatten().map(text).collect();
    let filters = if filters.is_empty() { String::new() } else { format!("({})", filters.join(", ")) };
    text(&hook["name"]) + &filters
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_is_told_line_by_line() {
        let page = json!({
            "generation": 7,
            "set": "0123456789abcdef",
            "trial": { "generation": 8, "set": "ff", "mode": { "canary": { "percent": 10 } } },
            "folder": "plugins.dir has changed",
            "plugins": [{
                "name": "tenant", "priority": 100, "hash": "aabb", "calls": 5, "errors": 1,
                "hooks": [{ "name": "route", "filters": ["a/#"] }, { "name": "on_connect", "filters": [] }],
                "quarantined_shards": [0, 3],
            }],
        });
        let told = list(&page);
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(
            lines[..3],
            [
                "generation 7, set 0123456789ab",
                "tried: generation 8, set ff, canary for 10 % of the clients",
                "plugins.dir has changed"
            ]
        );
        assert!(lines[4].starts_with("100       tenant"), "{told}");
        assert!(lines[4].ends_with("route(a/#) on_connect  QUARANTINED on shards 0, 3"), "{told}");
        assert_eq!(list(&json!({ "generation": 0, "set": "" })), "generation 0, set \n");
    }

    #[test]
    fn attempts_are_told_in_a_line() {
        let attempt = json!({
            "generation": 3, "at": 1_700_000_000, "by": "ann", "action": "rollback", "outcome": "committed",
            "set": "0123456789abcdef", "plugins": { "a": "x" }, "note": "back to generation 1",
        });
        assert_eq!(
            attempted(&attempt),
            "generation 3: rollback committed, 1 plugins, set 0123456789ab (back to generation 1)"
        );
        let line = remembered(&attempt);
        assert!(
            line.starts_with("3           2023-11-14T22:13:20Z") && line.ends_with("ann  back to generation 1"),
            "{line}"
        );
    }
}
