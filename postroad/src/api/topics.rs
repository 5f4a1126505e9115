//! `postroad topic list`, `postroad subscription list` and `filters`.

use std::io::Write;

use anyhow::Result;
use serde_json::Value;

use super::Api;
use super::client::printable;
use crate::cli::{ApiArgs, SubscriptionAction, TopicAction};

/// Runs `postroad topic`.
pub fn topic(action: &TopicAction) -> Result<()> {
    let TopicAction::List { api, filter, limit } = action;
    rows(api, "/v1/topics", "topics", &parameters([("filter", filter)]), *limit, retained)
}

/// Runs `postroad subscription`.
pub fn subscription(action: &SubscriptionAction) -> Result<()> {
    match action {
        SubscriptionAction::List { api, client, filter, topic, limit } => {
            let given = parameters([("client", client), ("filter", filter), ("topic", topic)]);
            rows(api, "/v1/subscriptions", "subscriptions", &given, *limit, described)
        }
        SubscriptionAction::Filters { api, prefix, topic, limit } => {
            let given = parameters([("prefix", prefix), ("topic", topic)]);
            rows(api, "/v1/filters", "filters", &given, *limit, counted)
        }
    }
}

/// Those that are given.
fn parameters<const N: usize>(texts: [(&'static str, &Option<String>); N]) -> Vec<(&'static str, String)> {
    texts.into_iter().filter_map(|(name, text)| Some((name, text.clone()?))).collect()
}

/// A line for each thing of a list.
fn rows(
    api: &ApiArgs,
    path: &str,
    list: &str,
    parameters: &[(&str, String)],
    limit: Option<u64>,
    line: fn(&Value) -> String,
) -> Result<()> {
    let mut out = std::io::stdout().lock();
    Api::new(api).walk(path, list, parameters, limit.unwrap_or(u64::MAX), |thing| {
        let line = if api.json { thing.to_string() } else { line(thing) };
        Ok(writeln!(out, "{line}")?)
    })
}

fn described(subscription: &Value) -> String {
    let text = |name: &str| printable(subscription[name].as_str().unwrap_or("?"));
    format!("{:<32} {}  {}", text("client"), subscription["qos"], text("filter"))
}

fn counted(filter: &Value) -> String {
    let number = |name: &str| filter[name].as_u64().unwrap_or(0);
    let text = printable(filter["filter"].as_str().unwrap_or("?"));
    format!("{:>10} {:>6}  {text}", number("subscribers"), number("groups"))
}

fn retained(topic: &Value) -> String {
    let number = |name: &str| topic[name].as_u64().unwrap_or(0);
    let text = printable(topic["topic"].as_str().unwrap_or("?"));
    format!("{:>12} {:>14}  {text}", number("bytes"), number("published_unix_ms"))
}
