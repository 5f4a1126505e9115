//! `postroad topic list` and `postroad subscription list`.

use std::io::Write;

use anyhow::Result;
use postroad_base::utc;
use serde_json::Value;

use super::Api;
use super::client::printable;
use crate::cli::{SubscriptionAction, TopicAction};

/// Runs `postroad topic`.
pub fn topic(action: &TopicAction) -> Result<()> {
    let TopicAction::List { api, filter, limit } = action;
    let parameters: Vec<_> = filter.clone().map(|filter| ("filter", filter)).into_iter().collect();
    let mut out = std::io::stdout().lock();
    let mut has_head = api.json;
    Api::new(api).walk("/v1/topics", "topics", &parameters, limit.unwrap_or(u64::MAX), |topic| {
        if api.json {
            return Ok(writeln!(out, "{topic}")?);
        }
        if !std::mem::replace(&mut has_head, true) {
            writeln!(out, "{:>12} {:<20} TOPIC", "BYTES", "PUBLISHED")?;
        }
        let number = |name: &str| topic[name].as_u64().unwrap_or(0);
        let text = printable(topic["topic"].as_str().unwrap_or("?"));
        Ok(writeln!(out, "{:>12} {:<20} {text}", number("bytes"), utc(number("published_unix_ms") / 1000))?)
    })
}

/// Runs `postroad subscription`.
pub fn subscription(action: &SubscriptionAction) -> Result<()> {
    let SubscriptionAction::List { api, client, filter, topic, limit } = action;
    let given = [("client", client), ("filter", filter), ("topic", topic)];
    let parameters: Vec<_> = given.into_iter().filter_map(|(name, text)| Some((name, text.clone()?))).collect();
    let mut out = std::io::stdout().lock();
    let limit = limit.unwrap_or(u64::MAX);
    let mut has_head = api.json;
    Api::new(api).walk("/v1/subscriptions", "subscriptions", &parameters, limit, |subscription| {
        if api.json {
            return Ok(writeln!(out, "{subscription}")?);
        }
        if !std::mem::replace(&mut has_head, true) {
            writeln!(out, "{:<32} {:<3}  FILTER", "CLIENT", "QOS")?;
        }
        Ok(writeln!(out, "{}", described(subscription))?)
    })
}

fn described(subscription: &Value) -> String {
    let text = |name: &str| printable(subscription[name].as_str().unwrap_or("?"));
    format!("{:<32} {:<3}  {}", text("client"), subscription["qos"].as_u64().unwrap_or(0), text("filter"))
}
