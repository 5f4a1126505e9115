//! `postroad dlq list|show|requeue|drop|park|unpark|export|import`.

use std::io::{BufRead, BufReader, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::client::{printable, show};
use super::{Api, Listing, told};
use crate::cli::{ApiArgs, DlqAction, LetterChoice, LetterFilterArgs, RequeueArgs};
use crate::payload;

const PATH: &str = "/v1/dead-letters";

/// Runs the command.
pub fn dlq(action: &DlqAction) -> Result<()> {
    match action {
        DlqAction::List { api, filter, limit } => list(api, filter, limit.unwrap_or(u64::MAX)),
        DlqAction::Show { api, letter } => show(api, &Api::new(api).get(&path(letter, "")?, &[])?),
        DlqAction::Requeue(args) => each(&args.api, &args.choice, "requeue", &requeue_body(args)?),
        DlqAction::Drop { api, choice } => each(api, choice, "drop", &json!({})),
        DlqAction::Park { api, choice, note } => each(api, choice, "park", &json!({ "note": note })),
        DlqAction::Unpark { api, choice } => each(api, choice, "unpark", &json!({})),
        DlqAction::Export { api, filter } => {
            let mut out = std::io::stdout().lock();
            walk(&Api::new(api), filter, u64::MAX, |letter| Ok(writeln!(out, "{letter}")?))
        }
        DlqAction::Import { api, file } => import(api, file),
    }
}

fn requeue_body(args: &RequeueArgs) -> Result<Value> {
    let RequeueArgs { topic, ttl, message, file, stdin, .. } = args;
    let mut body = json!({});
    if let Some(topic) = topic {
        body["topic"] = topic.as_str().into();
    }
    if let Some(ttl) = ttl {
        body["ttl_seconds"] = (*ttl).into();
    }
    if let Some(payload) = payload::given(message.as_deref(), file.as_deref(), *stdin)? {
        body["payload_base64"] = BASE64_STANDARD.encode(payload).into();
    }
    Ok(body)
}

/// What is asked of the API for these letters.
fn parameters(filter: &LetterFilterArgs) -> Result<Vec<(&'static str, String)>> {
    let LetterFilterArgs { client, topic_filter, reason, since, until, parked, unparked } = filter;
    let texts = [("client", client), ("topic", topic_filter), ("reason", reason)];
    let mut asked: Vec<_> = texts.into_iter().filter_map(|(name, text)| Some((name, text.clone()?))).collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?.as_secs();
    let ago = |seconds: u64| (now.saturating_sub(seconds) * 1000).to_string();
    asked.extend(since.map(|seconds| ("since_unix_ms", ago(seconds))));
    asked.extend(until.map(|seconds| ("until_unix_ms", ago(seconds))));
    asked.extend((*parked || *unparked).then(|| ("parked", parked.to_string())));
    Ok(asked)
}

/// Shows each letter that is meant.
pub fn each_letter(api: &ApiArgs, filter: &LetterFilterArgs, take: impl FnMut(&Value) -> Result<()>) -> Result<()> {
    walk(&Api::new(api), filter, u64::MAX, take)
}

/// Every letter that is meant.
fn walk(server: &Api<'_>, filter: &LetterFilterArgs, limit: u64, take: impl FnMut(&Value) -> Result<()>) -> Result<()> {
    server.walk(PATH, "letters", &parameters(filter)?, limit, take)
}

fn list(api: &ApiArgs, filter: &LetterFilterArgs, limit: u64) -> Result<()> {
    Api::new(api).list(PATH, "letters", &parameters(filter)?, limit, LETTERS)
}

const LETTERS: Listing = (
    "LETTER           CLIENT                   REASON          ATTEMPTS  TOPIC                          NOTE",
    described,
);

fn described(letter: &Value) -> String {
    let text = |name: &str| printable(letter[name].as_str().unwrap_or("-"));
    let note = printable(letter["parked"]["note"].as_str().unwrap_or(""));
    let attempts = letter["attempts"].as_u64().unwrap_or(0);
    let (id, client, reason, topic) = (text("id"), text("client"), text("reason"), text("topic"));
    format!("{id:<16} {client:<24} {reason:<15} {attempts:>8}  {topic:<30} {note}")
}

/// Does it with each letter that was named, or that fits. One that somebody else was faster with is told and passed by.
fn each(api: &ApiArgs, choice: &LetterChoice, action: &str, body: &Value) -> Result<()> {
    let server = Api::new(api);
    let mut letters = choice.letter.clone();
    if choice.all {
        walk(&server, &choice.filter, u64::MAX, |letter| {
            letters.extend(letter["id"].as_str().map(str::to_owned));
            Ok(())
        })?;
    }
    let (mut out, mut failed) = (told(), 0);
    for letter in &letters {
        match server.post(&path(letter, action)?, body) {
            Ok(done) if api.json => writeln!(out, "{done}")?,
            Ok(done) => match done["message_id"].as_str() {
                Some(message) => writeln!(out, "{letter}: {action}: message {message}")?,
                None => writeln!(out, "{letter}: {action}")?,
            },
            Err(error) => {
                failed += 1;
                eprintln!("{letter}: {error:#}");
            }
        }
    }
    if failed > 0 {
        bail!("{failed} of {} letters failed: see above", letters.len());
    }
    Ok(())
}

fn import(api: &ApiArgs, file: &std::path::Path) -> Result<()> {
    let server = Api::new(api);
    let input: Box<dyn std::io::Read> = match file.to_str() {
        Some("-") => Box::new(std::io::stdin().lock()),
        _ => Box::new(std::fs::File::open(file).with_context(|| format!("can't read {}", file.display()))?),
    };
    let (mut out, mut count) = (told(), 0);
    for (number, line) in BufReader::new(input).lines().enumerate() {
        let line = line.with_context(|| format!("can't read {}", file.display()))?;
        if line.trim().is_empty() {
            continue;
        }
        let at = || format!("line {}; the {count} letters before it are kept", number + 1);
        let letter: Value = serde_json::from_str(&line).with_context(at)?;
        let kept = server.post(PATH, &letter).with_context(at)?;
        count += 1;
        if api.json {
            writeln!(out, "{kept}")?;
        }
    }
    if !api.json {
        writeln!(out, "{count} letters")?;
    }
    Ok(())
}

/// A letter's name has digits and dashes: anything else is none, and no part of a path.
fn path(letter: &str, action: &str) -> Result<String> {
    if letter.is_empty() || !letter.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        bail!("{letter:?} names no letter: three numbers do, such as 0-3-1017");
    }
    Ok(if action.is_empty() { format!("{PATH}/{letter}") } else { format!("{PATH}/{letter}/{action}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_letter_has_a_path() {
        assert_eq!(path("0-3-1017", "drop").expect("a letter"), "/v1/dead-letters/0-3-1017/drop");
        assert_eq!(path("0-3-1017", "").expect("a letter"), "/v1/dead-letters/0-3-1017");
        assert!(path("../clients", "").is_err() && path("", "drop").is_err());
    }
}
