//! `postroad trace`: the life of a message, or what happens as it happens. `postroad receipts`: what becomes of messages.

use std::io::{BufRead, BufReader, Write};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use postroad_base::utc;
use serde_json::Value;
use ureq::Agent;

use super::client::printable;
use super::{Api, read, unreachable};
use crate::cli::{ApiArgs, ReceiptsArgs, TraceArgs};

/// Longer than a stream says nothing.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Runs `trace`.
pub fn trace(args: &TraceArgs) -> Result<()> {
    match &args.message {
        Some(message) => life(&args.api, message),
        None => watch(args),
    }
}

/// Every step of a message, oldest first.
fn life(api: &ApiArgs, message: &str) -> Result<()> {
    if message.is_empty() || !message.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        bail!("{message:?} names no message: 32 hexadecimal digits do, as publishing answers them");
    }
    let mut table = Steps::new(api.json);
    Api::new(api).walk(&format!("/v1/messages/{message}"), "steps", &[], u64::MAX, |step| table.row(step))
}

fn watch(args: &TraceArgs) -> Result<()> {
    let texts = [("client", &args.client), ("topic", &args.topic)];
    let mut asked: Vec<_> = texts.into_iter().filter_map(|(name, text)| Some((name, text.clone()?))).collect();
    asked.extend(args.lines_per_second.map(|most| ("lines_per_second", most.to_string())));
    let mut left = args.count.unwrap_or(u64::MAX);
    // A stream ends with its connection's age: then another one follows.
    while left > 0 {
        stream(&args.api, "/v1/trace", &asked, |line| {
            print_line(args.api.json, line)?;
            left -= 1;
            Ok(left > 0)
        })?;
    }
    Ok(())
}

fn print_line(json: bool, line: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{line}")?;
        return Ok(out.flush()?);
    }
    if let Some(left_out) = line["left_out"].as_u64() {
        writeln!(out, "… {left_out} lines were left out")?;
    }
    let text = |name: &str| printable(line[name].as_str().unwrap_or("-"));
    let shard = line["shard"].as_u64().unwrap_or(0);
    let (at, client, what, text) = (time(line), text("client"), text("what"), text("text"));
    writeln!(out, "{at} {shard:>3} {client:<24} {what:<5} {text}")?;
    Ok(out.flush()?)
}

/// Runs `receipts`.
pub fn receipts(args: &ReceiptsArgs) -> Result<()> {
    let ReceiptsArgs { api, message, publisher, level, after, follow, count } = args;
    let texts = [("message", message), ("publisher", publisher), ("level", level)];
    let texts: Vec<_> = texts.into_iter().filter_map(|(name, text)| Some((name, text.clone()?))).collect();
    let (mut table, mut after, mut left) = (Steps::new(api.json), *after, count.unwrap_or(u64::MAX));
    loop {
        let mut asked = texts.clone();
        asked.push(("follow", follow.to_string()));
        asked.extend(after.map(|after| ("after", after.to_string())));
        stream(api, "/v1/receipts", &asked, |step| {
            table.row(step)?;
            after = step["position"].as_u64().or(after);
            left -= 1;
            Ok(left > 0)
        })?;
        if !follow || left == 0 {
            return Ok(());
        }
    }
}

/// Takes each thing of a stream of JSON in lines, until it ends or `take` has enough.
fn stream(
    api: &ApiArgs,
    path: &str,
    parameters: &[(&str, String)],
    mut take: impl FnMut(&Value) -> Result<bool>,
) -> Result<()> {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .timeout_connect(Some(SILENCE_MAX))
        .timeout_recv_response(Some(SILENCE_MAX))
        .user_agent(concat!("postroad/", env!("CARGO_PKG_VERSION")));
    let server = Api { args: api, agent: config.build().into() };
    let url = server.url(path);
    let pairs = parameters.iter().map(|(name, value)| (*name, value.as_str()));
    let request = server.agent.get(&url).query_pairs(pairs).header("accept", "application/x-ndjson");
    let answer = server.signed(request).call().with_context(|| unreachable(&url))?;
    if !answer.status().is_success() {
        return read(&url, answer).map(drop);
    }
    for line in BufReader::new(answer.into_body().into_reader()).lines() {
        let line = line.with_context(|| format!("{url} broke off its answer"))?;
        if line.is_empty() {
            continue; // so that we know that it is there
        }
        let thing: Value = serde_json::from_str(&line).with_context(|| format!("{url} sent no JSON"))?;
        if let Some(detail) = thing["detail"].as_str() {
            bail!("{detail}");
        }
        if !take(&thing)? {
            return Ok(());
        }
    }
    Ok(())
}

/// A line for each step, below a head that comes with the first.
struct Steps {
    json: bool,
    has_head: bool,
}

impl Steps {
    fn new(json: bool) -> Self {
        Self { json, has_head: json }
    }

    fn row(&mut self, step: &Value) -> Result<()> {
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{step}")?;
            return Ok(out.flush()?);
        }
        if !std::mem::replace(&mut self.has_head, true) {
            writeln!(out, "{:<24} {:>5} {:<32} {:<24} {:<12} DETAIL", "TIME", "SHARD", "MESSAGE", "RECIPIENT", "STEP")?;
        }
        let text = |name: &str| printable(step[name].as_str().unwrap_or("-"));
        let shard = step["shard"].as_u64().unwrap_or(0);
        let (at, message, name) = (time(step), text("message_id"), text("step"));
        writeln!(out, "{at:<24} {shard:>5} {message:<32} {:<24} {name:<12} {}", recipient(step), details(step))?;
        Ok(out.flush()?)
    }
}

/// A client, or a consumer group, which may have the name of one.
fn recipient(step: &Value) -> String {
    match (step["client"].as_str(), step["group"].as_str()) {
        (Some(client), _) => printable(client),
        (None, Some(group)) => format!("group {}", printable(group)),
        (None, None) => "-".into(),
    }
}

/// What else is known of a step, in the order in which it is worth reading.
const DETAILS: [&str; 13] = [
    "topic",
    "qos",
    "payload_bytes",
    "publisher",
    "user",
    "has_subscribers",
    "attempts",
    "reason",
    "reason_code",
    "letter",
    "requeued_as",
    "original_id",
    "receipt",
];

fn details(step: &Value) -> String {
    let is_first = step["step"] == "published";
    // What each step repeats of the publication is told once.
    let repeats = |name: &str| !is_first && ["topic", "publisher", "user", "original_id"].contains(&name);
    let told = DETAILS.iter().filter(|name| !step[**name].is_null() && !repeats(name)).map(|name| {
        let value = step[*name].as_str().map_or_else(|| step[*name].to_string(), printable);
        format!("{name}={value}")
    });
    told.collect::<Vec<_>>().join(" ")
}

/// `2026-11-26T14:05:00.123Z`.
fn time(of: &Value) -> String {
    let millis = of["at_unix_ms"].as_u64().unwrap_or(0);
    let whole = utc(millis / 1000);
    format!("{}.{:03}Z", whole.trim_end_matches('Z'), millis % 1000)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_step_is_told_in_a_line() {
        let published =
            json!({"at_unix_ms": 1_795_772_448_183_u64, "step": "published", "topic": "t/1", "user": "anna", "qos": 1});
        assert_eq!(time(&published), "2026-11-27T09:40:48.183Z");
        assert_eq!(details(&published), "topic=t/1 qos=1 user=anna");
        assert_eq!(
            [json!({}), json!({"client": "a"}), json!({"group": "a"})].map(|step| recipient(&step)),
            ["-", "a", "group a"]
        );
        let dead = json!({"step": "dead", "topic": "t/1", "user": "anna", "reason": "refused", "reason_code": 131,
            "attempts": 2, "letter": "0-3-17\u{7}"});
        assert_eq!(details(&dead), "attempts=2 reason=refused reason_code=131 letter=0-3-17\u{FFFD}");
    }
}
