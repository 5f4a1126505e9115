//! `postroad record`: messages as lines of JSON, by a subscription like any other. Names are those of the API (`plugin::messages` reads them).

use std::fs::File;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};

use super::client::Message;
use super::subscribe::{Sink, subscribe_to};
use crate::cli::SubArgs;
use crate::plugin::RecordArgs;

/// Runs the command. Its time or its count reached is its end.
pub fn record(args: RecordArgs) -> Result<()> {
    let RecordArgs { filters, out, limit, seconds, qos, no_retained, connection } = args;
    let out: Box<dyn Write> = match &out {
        Some(file) => Box::new(File::create(file).with_context(|| format!("can't make {}", file.display()))?),
        None => Box::new(std::io::stdout()),
    };
    let mut subscription = SubArgs {
        connection,
        topic: filters,
        qos,
        count: limit,
        timeout: seconds,
        verbose: false,
        format: None,
        no_newline: false,
        no_retained,
        no_local: false,
        expiry: None,
        subscription_identifier: None,
    };
    let _end = subscribe_to(&mut subscription, Sink { render: Box::new(line), out })?;
    Ok(())
}

fn line(message: &Message) -> Vec<u8> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
    format!("{}\n", recorded(message, now)).into_bytes()
}

fn recorded(message: &Message, now_unix_ms: u64) -> Value {
    let Message { topic, payload, qos, retain, content_type, response_topic, expiry, user_properties, .. } = message;
    let mut line = json!({ "topic": topic, "qos": qos.number(), "retain": retain, "received_unix_ms": now_unix_ms });
    match std::str::from_utf8(payload) {
        Ok(text) => line["payload"] = text.into(),
        Err(_) => line["payload_base64"] = BASE64_STANDARD.encode(payload).into(),
    }
    let texts = [("content_type", content_type), ("response_topic", response_topic)];
    for (name, text) in texts.into_iter().filter_map(|(name, text)| Some((name, text.as_ref()?))) {
        line[name] = text.as_str().into();
    }
    if let Some(seconds) = expiry {
        line["ttl_seconds"] = (*seconds).into();
    }
    if !user_properties.is_empty() {
        line["properties"] = json!(user_properties);
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_what_came() {
        let message = Message { topic: "a/b".to_owned(), payload: vec![0xff], expiry: Some(3), ..Message::default() };
        let expected = json!({
            "topic": "a/b", "payload_base64": "/w==", "qos": 0, "retain": false, "received_unix_ms": 5, "ttl_seconds": 3,
        });
        assert_eq!(recorded(&message, 5), expected);
        let properties = vec![("k".to_owned(), "v".to_owned())];
        let text = Message { payload: b"x".to_vec(), user_properties: properties, ..Message::default() };
        assert_eq!(
            (&recorded(&text, 5)["payload"], &recorded(&text, 5)["properties"]),
            (&json!("x"), &json!([["k", "v"]]))
        );
    }
}
