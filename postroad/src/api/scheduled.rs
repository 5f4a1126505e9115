//! `postroad scheduled list|cancel`.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use postroad_base::utc;
use serde_json::Value;

use super::client::printable;
use super::{Api, Listing, parameters, told};
use crate::cli::{ApiArgs, ScheduledAction};

const PATH: &str = "/v1/scheduled";

/// Runs the command.
pub fn scheduled(action: &ScheduledAction) -> Result<()> {
    match action {
        ScheduledAction::List { api, limit, .. } => {
            Api::new(api).list(PATH, "messages", &asked(action)?, limit.unwrap_or(u64::MAX), WAITING)
        }
        ScheduledAction::Cancel { api, messages } => cancel(api, messages),
    }
}

const WAITING: Listing = ("MESSAGE                          DUE                  PUBLISHER        TOPIC", described);

fn asked(action: &ScheduledAction) -> Result<Vec<(&'static str, String)>> {
    let ScheduledAction::List { topic_filter, user, client, due_after, due_before, .. } = action else {
        return Ok(Vec::new());
    };
    let mut asked = parameters([("topic", topic_filter), ("user", user), ("client", client)]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    let from_now = |seconds: u64| now.saturating_add(seconds.saturating_mul(1000)).to_string();
    asked.extend(due_after.map(|seconds| ("from_unix_ms", from_now(seconds))));
    asked.extend(due_before.map(|seconds| ("until_unix_ms", from_now(seconds))));
    Ok(asked)
}

fn described(message: &Value) -> String {
    let text = |name: &str| message[name].as_str().map(printable);
    let publisher = text("user").or_else(|| text("client")).unwrap_or_else(|| "-".to_owned());
    let due = utc(message["deliver_at_unix_ms"].as_u64().unwrap_or(0) / 1000);
    let again = message["tried_again_unix_ms"].as_u64();
    let again = again.map_or(String::new(), |at| format!(" (no room, tried again {})", utc(at / 1000)));
    let (id, topic) = (text("message_id").unwrap_or_default(), text("topic").unwrap_or_default());
    format!("{id:<32} {due:<20} {publisher:<16} {topic}{again}")
}

/// Each that was named; one that can't be taken back is told and passed by.
fn cancel(api: &ApiArgs, messages: &[String]) -> Result<()> {
    let server = Api::new(api);
    let (mut out, mut failed) = (told(), 0);
    for message in messages {
        match path(message).and_then(|path| server.delete(&path)) {
            Ok(done) if api.json => writeln!(out, "{done}")?,
            Ok(_) => writeln!(out, "{message}: cancelled")?,
            Err(error) => {
                failed += 1;
                eprintln!("{message}: {}", printable(&format!("{error:#}")));
            }
        }
    }
    if failed > 0 {
        bail!("{failed} of {} messages were not cancelled: see above", messages.len());
    }
    Ok(())
}

/// An id has hexadecimal digits: anything else is none, and no part of a path.
fn path(message: &str) -> Result<String> {
    if message.len() != 32 || !message.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        bail!("it names no message: 32 hexadecimal digits do, as publishing answers them");
    }
    Ok(format!("{PATH}/{message}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_a_message_has_a_path() {
        let id = "0000000f462800000000000000000007";
        assert_eq!(path(id).expect("an id"), format!("/v1/scheduled/{id}"));
        for wrong in ["", "0-3-1017", "../clients", &id[1..]] {
            assert!(path(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_message_is_told_in_a_line() {
        let mut message = json!({
            "message_id": "0000000f462800000000000000000007", "deliver_at_unix_ms": 1_795_772_448_183_u64,
            "topic": "t/\u{1b}1", "user": null, "client": "truck-7", "tried_again_unix_ms": null,
        });
        let line = "0000000f462800000000000000000007 2026-11-27T09:40:48Z truck-7          t/\u{FFFD}1";
        assert_eq!(described(&message), line);
        message["tried_again_unix_ms"] = json!(1_795_772_458_183_u64);
        assert_eq!(described(&message), format!("{line} (no room, tried again 2026-11-27T09:40:58Z)"));
    }
}
