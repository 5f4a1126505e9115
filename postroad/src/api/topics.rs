//! `postroad topic list`, `postroad subscription list` and `filters`.

use std::io::Write;

use anyhow::Result;
use postroad_base::utc;
use serde_json::Value;

use super::Api;
use super::client::printable;
use crate::cli::{ApiArgs, SubscriptionAction, TopicAction};

/// Runs `postroad topic`.
pub fn topic(action: &TopicAction) -> Result<()> {
    let TopicAction::List { api, filter, limit } = action;
    rows(api, "/v1/topics", "topics", &parameters([("filter", filter)]), *limit, RETAINED)
}

/// Runs `postroad subscription`.
pub fn subscription(action: &SubscriptionAction) -> Result<()> {
    match action {
        SubscriptionAction::List { api, client, filter, topic, limit } => {
            let given = parameters([("client", client), ("filter", filter), ("topic", topic)]);
            rows(api, "/v1/subscriptions", "subscriptions", &given, *limit, SUBSCRIBED)
        }
        SubscriptionAction::Filters { api, prefix, topic, limit } => {
            let given = parameters([("prefix", prefix), ("topic", topic)]);
            rows(api, "/v1/filters", "filters", &given, *limit, COUNTED)
        }
    }
}

/// Those that are given.
fn parameters<const N: usize>(texts: [(&'static str, &Option<String>); N]) -> Vec<(&'static str, String)> {
    texts.into_iter().filter_map(|(name, text)| Some((name, text.clone()?))).collect()
}

/// A head, and a line for each thing.
type Table = (&'static str, fn(&Value) -> String);

const RETAINED: Table = ("       BYTES PUBLISHED            TOPIC", retained);
const SUBSCRIBED: Table = ("CLIENT                           QOS  FILTER", described);
const COUNTED: Table = ("SUBSCRIBERS GROUPS  FILTER", counted);

/// A line for each thing of a list, under a head unless there is none.
fn rows(
    api: &ApiArgs,
    path: &str,
    list: &str,
    parameters: &[(&str, String)],
    limit: Option<u64>,
    (head, line): Table,
) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let mut has_head = api.json;
    Api::new(api).walk(path, list, parameters, limit.unwrap_or(u64::MAX), |thing| {
        if !std::mem::replace(&mut has_head, true) {
            writeln!(out, "{head}")?;
        }
        let line = if api.json { thing.to_string() } else { line(thing) };
        Ok(writeln!(out, "{line}")?)
    })
}

fn described(subscription: &Value) -> String {
    let text = |name: &str| printable(subscription[name].as_str().unwrap_or("?"));
    format!("{:<32} {:<3}  {}", text("client"), subscription["qos"].as_u64().unwrap_or(0), text("filter"))
}

fn counted(filter: &Value) -> String {
    let number = |name: &str| filter[name].as_u64().unwrap_or(0);
    let text = printable(filter["filter"].as_str().unwrap_or("?"));
    format!("{:>11} {:>6}  {text}", number("subscribers"), number("groups"))
}

fn retained(topic: &Value) -> String {
    let number = |name: &str| topic[name].as_u64().unwrap_or(0);
    let text = printable(topic["topic"].as_str().unwrap_or("?"));
    format!("{:>12} {:<20} {text}", number("bytes"), utc(number("published_unix_ms") / 1000))
}
