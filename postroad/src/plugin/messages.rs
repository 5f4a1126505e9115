//! Messages and dead letters as lines of JSON: what `postroad record` and `postroad dlq export` write, and what the API answers.
//!
//! Names are those of the API's dead letters, so that one reader is enough. A line with `reason` is a letter.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use postroad_base::{
    ClientId, Death, Extras, Message, MessageId, Outcome, Qos, QueueId, TopicName, WallMillis, Wishes,
};
use postroad_protocol::mqtt::{ForwardedParts, UserProperties};
use serde_json::Value;

/// A message or letter that somebody kept.
pub struct Kept {
    /// The message; of a letter with its death.
    pub message: Message,
    /// The letter's name.
    pub letter: Option<String>,
    /// When it came, or died.
    pub at: Option<WallMillis>,
    /// Who published it, if the line says so.
    pub client: Option<String>,
    pub user: Option<String>,
    pub groups: Option<Vec<String>>,
}

/// The time.
pub fn now() -> Result<WallMillis> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?;
    Ok(WallMillis(since.as_millis() as u64))
}

/// All lines of a file; `-` is standard input.
pub fn read(path: &Path) -> Result<Vec<Kept>> {
    let input: Box<dyn Read> = match path.to_str() {
        Some("-") => Box::new(std::io::stdin().lock()),
        _ => Box::new(std::fs::File::open(path).with_context(|| format!("can't read {}", path.display()))?),
    };
    let mut kept = Vec::new();
    for (number, line) in BufReader::new(input).lines().enumerate() {
        let line = line.with_context(|| format!("can't read {}", path.display()))?;
        if !line.trim().is_empty() {
            let value = serde_json::from_str(&line).map_err(anyhow::Error::from).and_then(|value| understood(&value));
            kept.push(value.with_context(|| format!("{}:{}", path.display(), number + 1))?);
        }
    }
    Ok(kept)
}

/// A line's object.
pub fn understood(value: &Value) -> Result<Kept> {
    if !value.is_object() {
        bail!("it is no object");
    }
    let topic = value["topic"].as_str().context("there is no topic")?;
    let at = time(value, "received_unix_ms").or(time(value, "died_unix_ms"));
    let (properties, wishes) = properties(value, at.unwrap_or_default())?;
    let qos = value["qos"].as_u64().unwrap_or(0);
    let published = time(value, "published_unix_ms").or(at).unwrap_or_default();
    let mut message = Message {
        id: id_of(value, published),
        topic: TopicName::new(topic).with_context(|| format!("topic {topic:?}"))?,
        payload: payload(value)?.into(),
        properties: properties.into(),
        qos: u8::try_from(qos).ok().and_then(Qos::from_number).with_context(|| format!("{qos} is no qos"))?,
        retain: value["retain"].as_bool().unwrap_or(false),
        expires_at: value["ttl_seconds"].as_u64().map(|seconds| at.unwrap_or_default().after(1000 * seconds)),
        publisher: QueueId::NONE,
        extras: Extras::of_wishes(wishes),
    };
    if let Some(reason) = value["reason"].as_str() {
        let extras = message.extras.get_or_insert_default();
        extras.death = Some(Box::new(death(value, reason)?));
        extras.requeues = number(value, "requeues");
    }
    let text = |name: &str| value[name].as_str().map(str::to_owned);
    let is_letter = message.death().is_some();
    let groups =
        value["groups"].as_array().map(|names| names.iter().filter_map(Value::as_str).map(str::to_owned).collect());
    let client = text("client").filter(|_| !is_letter);
    Ok(Kept { message, letter: text("id").filter(|_| is_letter), at, client, user: text("user"), groups })
}

fn time(value: &Value, name: &str) -> Option<WallMillis> {
    value[name].as_u64().map(WallMillis)
}

fn number(value: &Value, name: &str) -> u32 {
    value[name].as_u64().and_then(|number| u32::try_from(number).ok()).unwrap_or(0)
}

/// Its own, or one of the time at which it came: hooks see that it has one.
fn id_of(value: &Value, published: WallMillis) -> MessageId {
    let own = value["message_id"].as_str().and_then(|id| u128::from_str_radix(id, 16).ok());
    own.map_or(MessageId((u128::from(published.0) << 80) | 1), MessageId)
}

fn payload(value: &Value) -> Result<Vec<u8>> {
    match (value["payload"].as_str(), value["payload_base64"].as_str()) {
        (Some(text), _) => Ok(text.as_bytes().to_vec()),
        (None, Some(encoded)) => BASE64_STANDARD.decode(encoded).context("payload_base64"),
        (None, None) => Ok(Vec::new()),
    }
}

/// What travels with it, and what its publisher wished: among the user properties, by names of ours.
fn properties(value: &Value, at: WallMillis) -> Result<(Vec<u8>, Wishes)> {
    let listed = value["properties"].as_array().map(Vec::as_slice).unwrap_or_default();
    let pair = |pair: &'_ Value| Some((pair[0].as_str()?.to_owned(), pair[1].as_str()?.to_owned()));
    let pairs: Option<Vec<(String, String)>> = listed.iter().map(pair).collect();
    let pairs = pairs.context("properties: expected pairs of texts")?;
    let mut wishes = Wishes::default();
    let mut forwarded: Vec<(&str, &str)> = Vec::new();
    for (name, value) in &pairs {
        if !wishes.take(name, value, at).with_context(|| format!("property {name}"))? {
            forwarded.push((name, value));
        }
    }
    let correlation = value["correlation_data_base64"].as_str().map(|text| BASE64_STANDARD.decode(text)).transpose();
    let correlation = correlation.context("correlation_data_base64")?;
    let parts = ForwardedParts {
        payload_format: value["is_text"].as_bool().filter(|is_text| *is_text),
        content_type: value["content_type"].as_str(),
        response_topic: value["response_topic"].as_str(),
        correlation_data: correlation.as_deref(),
        user_properties: UserProperties::from_pairs(&forwarded),
    };
    Ok((parts.encode(), wishes))
}

fn death(value: &Value, reason: &str) -> Result<Death> {
    let outcome = Outcome::from_name(reason).with_context(|| format!("{reason:?} is no reason of a dead letter"))?;
    Ok(Death {
        client: ClientId::from(value["client"].as_str().context("a letter has a client")?),
        is_push: value["is_push"].as_bool().unwrap_or(false),
        is_group: value["is_group"].as_bool().unwrap_or(false),
        outcome,
        reason_code: value["reason_code"].as_u64().and_then(|code| u8::try_from(code).ok()).unwrap_or(0),
        attempts: number(value, "attempts"),
        sent: time(value, "first_sent_unix_ms").zip(time(value, "last_sent_unix_ms")),
        at: time(value, "died_unix_ms").unwrap_or_default(),
        error: value["error"].as_str().map(Into::into),
    })
}

/// What differs between two messages: the name of each field, and how both have it.
pub fn differences(before: &Message, after: &Message) -> Vec<(&'static str, String, String)> {
    let (before, after) = (fields(before), fields(after));
    let pairs = before.into_iter().zip(after);
    pairs
        .filter(|((_, left), (_, right))| left != right)
        .map(|((name, left), (_, right))| (name, left, right))
        .collect()
}

/// All fields as texts, always in the same order.
pub fn fields(message: &Message) -> Vec<(&'static str, String)> {
    let wishes = message.wishes().cloned().unwrap_or_default();
    let forwarded = postroad_protocol::mqtt::Forwarded::from_stored(&message.properties);
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "none".to_owned());
    let properties: BTreeMap<&str, &str> = forwarded.user_properties().iter().collect();
    vec![
        ("topic", message.topic.as_str().to_owned()),
        ("payload", shown(&message.payload)),
        ("qos", message.qos.number().to_string()),
        ("retain", message.retain.to_string()),
        ("priority", wishes.priority.name().to_owned()),
        ("expires", or_none(message.expires_at.map(|at| postroad_base::utc(at.0 / 1000)))),
        ("deliver_at", or_none(wishes.deliver_at.map(|at| postroad_base::utc(at.0 / 1000)))),
        ("collapse_key", or_none(wishes.collapse_key.map(|key| format!("{:?}", &*key)))),
        ("retry_attempts_max", or_none(wishes.attempts_max.map(|most| most.to_string()))),
        ("retry_age_max", or_none(wishes.age_max_ms.map(|millis| format!("{} s", millis / 1000)))),
        ("content_type", or_none(forwarded.content_type().map(|text| format!("{text:?}")))),
        ("properties", format!("{properties:?}")),
    ]
}

/// Longest part of a payload that is shown.
const SHOWN_MAX: usize = 100;

/// A payload in a line; equal ones only for equal payloads, by their hash if they are long.
fn shown(payload: &[u8]) -> String {
    let start = &payload[..payload.len().min(SHOWN_MAX)];
    let text = match std::str::from_utf8(start) {
        Ok(text) => format!("{text:?}"),
        Err(_) => start.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    if payload.len() <= SHOWN_MAX {
        return text;
    }
    let rest = payload[SHOWN_MAX..].iter().fold(0u32, |sum, byte| sum.wrapping_mul(31).wrapping_add((*byte).into()));
    format!("{text}… ({} bytes, {rest:08x})", payload.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_message_or_a_letter() {
        let of = |text: &str| understood(&serde_json::from_str(text).expect("JSON"));
        let kept = of(r#"{"topic":"a","payload_base64":"/w==","qos":1,"received_unix_ms":5,"ttl_seconds":2,"client":"c","groups":["g"],
            "properties":[["x","y"],["postroad-priority","high"]],"content_type":"t"}"#)
        .expect("a message");
        assert_eq!(
            (&kept.message.payload[..], kept.at, kept.client.as_deref()),
            (&[0xff][..], Some(WallMillis(5)), Some("c"))
        );
        assert_eq!(kept.message.expires_at, Some(WallMillis(2005)));
        let fields = fields(&kept.message);
        assert!(
            fields.contains(&("priority", "high".to_owned()))
                && fields.contains(&("properties", r#"{"x": "y"}"#.to_owned()))
        );
        let letter = of(
            r#"{"id":"0-1-2","topic":"a","payload":"p","qos":1,"client":"c","reason":"attempts","attempts":3,"died_unix_ms":7}"#,
        );
        let letter = letter.expect("a letter");
        assert_eq!(
            (letter.letter.as_deref(), letter.message.death().map(|death| death.attempts)),
            (Some("0-1-2"), Some(3))
        );
        for wrong in [
            "1",
            "{}",
            r#"{"topic":"a/#"}"#,
            r#"{"topic":"a","qos":3}"#,
            r#"{"topic":"a","payload_base64":"%"}"#,
            r#"{"topic":"a","properties":[["x"]]}"#,
            r#"{"topic":"a","properties":[["postroad-priority","x"]]}"#,
            r#"{"topic":"a","reason":"gone","client":"c"}"#,
            r#"{"topic":"a","reason":"attempts"}"#,
        ] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_differs_is_named() {
        let of = |text: &str| understood(&serde_json::from_str(text).expect("JSON")).expect("a message").message;
        let long = "x".repeat(200);
        let before = of(&format!(r#"{{"topic":"a","payload":"{long}y"}}"#));
        assert!(differences(&before, &before).is_empty());
        let after = of(&format!(r#"{{"topic":"b","payload":"{long}z","properties":[["k","v"]]}}"#));
        let names: Vec<&str> = differences(&before, &after).iter().map(|(name, ..)| *name).collect();
        assert_eq!(names, ["topic", "payload", "properties"]);
    }
}
