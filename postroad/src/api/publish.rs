//! `postroad publish`: an answer for each message and topic; exit code 1 if one was not published.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::CommandFactory;
use clap::error::ErrorKind;
use serde_json::{Value, json};

use super::{Api, told};
use crate::cli::{Cli, PublishArgs};
use crate::payload;

/// Lines that are sent together.
const LINES_MAX: usize = 256;
/// Bytes of payload after which lines are sent, however few.
const BYTES_MAX: usize = 1 << 20;

/// Runs the command.
pub fn publish(args: &PublishArgs) -> Result<ExitCode> {
    if args.wishes.idempotency_key.is_some() && args.topic.len() > 1 {
        // Neither is wrong by itself, so that the parser can't say it.
        let why = "--idempotency-key is of one message to one topic: give one TOPIC, or a key for each";
        let mut command = Cli::command();
        command.build();
        let publish = command.find_subcommand_mut("publish").expect("it runs");
        publish.error(ErrorKind::ArgumentConflict, why).exit();
    }
    let mut run = Run { args, api: Api::new(&args.api), failed: false };
    if args.payload.lines {
        run.lines()?;
    } else {
        run.send(&[payload::whole(&args.payload)?])?;
    }
    Ok(ExitCode::from(u8::from(run.failed)))
}

struct Run<'a> {
    args: &'a PublishArgs,
    api: Api<'a>,
    /// Something was not published.
    failed: bool,
}

impl Run<'_> {
    fn lines(&mut self) -> Result<()> {
        let (mut waiting, mut bytes) = (Vec::new(), 0);
        for line in payload::lines() {
            let line = line.context("can't read standard input")?;
            bytes += line.len();
            waiting.push(line);
            if waiting.len() == LINES_MAX || bytes >= BYTES_MAX {
                self.send(&waiting)?;
                (waiting, bytes) = (Vec::new(), 0);
            }
        }
        if waiting.is_empty() { Ok(()) } else { self.send(&waiting) }
    }

    fn send(&mut self, payloads: &[Vec<u8>]) -> Result<()> {
        let messages: Vec<Value> = payloads.iter().map(|payload| self.message(payload)).collect();
        let answer = self.api.post("/v1/messages", &json!(messages))?;
        let results = answer["results"].as_array().context("the answer has no results")?;
        let mut out = told();
        for result in results {
            let error = result["error"]["detail"].as_str();
            self.failed |= error.is_some();
            match error {
                _ if self.args.api.json => writeln!(out, "{result}")?,
                Some(detail) => eprintln!("postroad: {}: {detail}", text(&result["topic"])),
                None => writeln!(out, "{}", described(result))?,
            }
        }
        Ok(())
    }

    fn message(&self, payload: &[u8]) -> Value {
        let PublishArgs { topic, qos, retain, ttl, content_type, property, wishes, .. } = self.args;
        let mut message = json!({ "topics": topic, "qos": qos, "retain": retain, "properties": property });
        message["wishes"] = wishes.json();
        match std::str::from_utf8(payload) {
            Ok(text) => message["payload"] = json!(text),
            Err(_) => message["payload_base64"] = json!(STANDARD.encode(payload)),
        }
        if let Some(seconds) = ttl {
            message["ttl_seconds"] = json!(seconds);
        }
        if let Some(kind) = content_type {
            message["content_type"] = json!(kind);
        }
        message
    }
}

fn described(result: &Value) -> String {
    let id = result["id"].as_str().unwrap_or("-");
    let nobody = if result["has_subscribers"] == json!(false) { " (no subscriber)" } else { "" };
    format!("{id} {}{nobody}", text(&result["topic"]))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("?")
}
