//! `postroad topic list`, `postroad subscription list` and `filters`.

use anyhow::Result;
use postroad_base::utc;
use serde_json::Value;

use super::client::printable;
use super::{Api, Listing, parameters};
use crate::cli::{SubscriptionAction, TopicAction};

/// Runs `postroad topic`.
pub fn topic(action: &TopicAction) -> Result<()> {
    let TopicAction::List { api, filter, limit } = action;
    Api::new(api).list("/v1/topics", "topics", &parameters([("filter", filter)]), limit.unwrap_or(u64::MAX), RETAINED)
}

/// Runs `postroad subscription`.
pub fn subscription(action: &SubscriptionAction) -> Result<()> {
    match action {
        SubscriptionAction::List { api, client, filter, topic, limit } => {
            let given = parameters([("client", client), ("filter", filter), ("topic", topic)]);
            Api::new(api).list("/v1/subscriptions", "subscriptions", &given, limit.unwrap_or(u64::MAX), SUBSCRIBED)
        }
        SubscriptionAction::Filters { api, prefix, topic, limit } => {
            let given = parameters([("prefix", prefix), ("topic", topic)]);
            Api::new(api).list("/v1/filters", "filters", &given, limit.unwrap_or(u64::MAX), COUNTED)
        }
    }
}

const RETAINED: Listing = ("       BYTES PUBLISHED            TOPIC", retained);
const SUBSCRIBED: Listing = ("CLIENT                           QOS  FILTER", described);
const COUNTED: Listing = ("SUBSCRIBERS GROUPS  FILTER", counted);

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
