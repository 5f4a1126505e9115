//! Subcommands that call the API of a running server, over HTTP.

mod admin;
mod client;
mod dlq;
mod group;
mod plugin;
mod publish;
mod samples;
mod scheduled;
mod top;
mod topics;
mod trace;

use std::io::{self, Write};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ureq::http::{Response, StatusCode};
use ureq::{Agent, RequestBuilder};

use crate::cli::ApiArgs;

pub use admin::admin;
pub use client::client;
pub use dlq::{dlq, each_letter};
pub use group::group;
pub use plugin::plugin;
pub use publish::publish;
pub use scheduled::scheduled;
pub use top::top;
pub use topics::{subscription, topic};
pub use trace::{receipts, trace};

/// What the server gives as an answer at most.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// Things of a list that are asked for at once.
const PAGE: u64 = 500;

/// Longer than the server takes to say that it does not know.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(60);

/// The head of a list, and the line for each thing of it.
type Listing = (&'static str, fn(&serde_json::Value) -> String);

/// The way to the API.
struct Api<'a> {
    args: &'a ApiArgs,
    agent: Agent,
}

impl<'a> Api<'a> {
    fn new(args: &'a ApiArgs) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(ANSWER_TIME_MAX))
            .user_agent(concat!("postroad/", env!("CARGO_PKG_VERSION")));
        Self { args, agent: config.build().into() }
    }

    /// Posts JSON; what the server answers. Its problem is an error.
    fn post(&self, path: &str, body: &serde_json::Value) -> Result<serde_json::Value> {
        let url = self.url(path);
        let request = self.agent.post(&url).content_type("application/json");
        let answer = self.signed(request).send(body.to_string()).with_context(|| unreachable(&url))?;
        read(&url, answer)
    }

    /// As `post`, by PUT.
    fn put(&self, path: &str, body: &serde_json::Value) -> Result<serde_json::Value> {
        let url = self.url(path);
        let request = self.agent.put(&url).content_type("application/json");
        let answer = self.signed(request).send(body.to_string()).with_context(|| unreachable(&url))?;
        read(&url, answer)
    }

    /// What the server answers to a DELETE.
    fn delete(&self, path: &str) -> Result<serde_json::Value> {
        let url = self.url(path);
        let answer = self.signed(self.agent.delete(&url)).call().with_context(|| unreachable(&url))?;
        read(&url, answer)
    }

    /// As `post`, by GET, with these parameters.
    fn get(&self, path: &str, parameters: &[(&str, String)]) -> Result<serde_json::Value> {
        let url = self.url(path);
        let pairs = parameters.iter().map(|(name, value)| (*name, value.as_str()));
        let request = self.agent.get(&url).query_pairs(pairs);
        let answer = self.signed(request).call().with_context(|| unreachable(&url))?;
        read(&url, answer)
    }

    /// Each thing of a list, page by page, until there are so many.
    fn walk(
        &self,
        path: &str,
        list: &str,
        parameters: &[(&str, String)],
        limit: u64,
        mut take: impl FnMut(&serde_json::Value) -> Result<()>,
    ) -> Result<()> {
        let (mut left, mut after) = (limit, None::<String>);
        while left > 0 {
            let mut asked = parameters.to_vec();
            asked.push(("limit", left.min(PAGE).to_string()));
            asked.extend(after.map(|after| ("after", after)));
            let page = self.get(path, &asked)?;
            let things = page[list].as_array().with_context(|| format!("the answer has no {list}"))?;
            left -= (things.len() as u64).min(left);
            things.iter().try_for_each(&mut take)?;
            // A name, or a position.
            after = page["next"].as_str().map(str::to_owned).or(page["next"].as_u64().map(|next| next.to_string()));
            if after.is_none() {
                break;
            }
        }
        Ok(())
    }

    /// A line for each thing of a list, under a head; with --json without one, as it came.
    fn list(&self, path: &str, list: &str, parameters: &[(&str, String)], limit: u64, listing: Listing) -> Result<()> {
        let (head, line) = listing;
        let mut out = std::io::stdout().lock();
        let mut has_head = self.args.json;
        self.walk(path, list, parameters, limit, |thing| {
            if !std::mem::replace(&mut has_head, true) {
                writeln!(out, "{head}")?;
            }
            let line = if self.args.json { thing.to_string() } else { line(thing) };
            Ok(writeln!(out, "{line}")?)
        })
    }

    /// A page that is text.
    fn get_text(&self, path: &str) -> Result<String> {
        let url = self.url(path);
        let mut answer = self.signed(self.agent.get(&url)).call().with_context(|| unreachable(&url))?;
        if !answer.status().is_success() {
            bail!("{url}: {}", answer.status());
        }
        let text = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
        text.with_context(|| format!("{url} broke off its answer"))
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.args.api.trim_end_matches('/'))
    }

    fn signed<B>(&self, request: RequestBuilder<B>) -> RequestBuilder<B> {
        match &self.args.token {
            Some(token) => request.header("authorization", format!("Bearer {token}")),
            None => request,
        }
    }
}

/// Where commands that act tell what they have done. Once nobody reads it they go on in silence, to their end and its exit code;
/// lists end there.
fn told() -> impl Write {
    Told(Some(std::io::stdout().lock()))
}

/// `None`: its reader has gone.
struct Told<W>(Option<W>);

impl<W: Write> Told<W> {
    fn unless_gone<T>(&mut self, silent: T, speak: impl FnOnce(&mut W) -> io::Result<T>) -> io::Result<T> {
        let Some(out) = &mut self.0 else { return Ok(silent) };
        match speak(out) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.0 = None;
                Ok(silent)
            }
            spoken => spoken,
        }
    }
}

impl<W: Write> Write for Told<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.unless_gone(bytes.len(), |out| out.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.unless_gone((), Write::flush)
    }
}

/// A part of a path, which may hold any character.
fn escaped(name: &str) -> String {
    let mut escaped = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => escaped.push(char::from(byte)),
            _ => escaped += &format!("%{byte:02X}"),
        }
    }
    escaped
}

fn unreachable(url: &str) -> String {
    format!("can't reach {url} (does the server run, and is that its --api?)")
}

fn read(url: &str, mut answer: Response<ureq::Body>) -> Result<serde_json::Value> {
    let text = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
    let text = text.with_context(|| format!("{url} broke off its answer"))?;
    let parsed: Option<serde_json::Value> = serde_json::from_str(&text).ok();
    if answer.status().is_success() {
        return parsed.with_context(|| format!("{url} did not answer with JSON: is it a Postroad server?"));
    }
    let detail = parsed.as_ref().and_then(|problem| problem["detail"].as_str()).unwrap_or(text.trim());
    let hint = if answer.status() == StatusCode::UNAUTHORIZED { "; here: --token, or POSTROAD_TOKEN" } else { "" };
    bail!("{}: {detail}{hint}", answer.status())
}

/// Parameters of those that are given.
fn parameters<const N: usize>(texts: [(&'static str, &Option<String>); N]) -> Vec<(&'static str, String)> {
    texts.into_iter().filter_map(|(name, text)| Some((name, text.clone()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pipe that takes some writes and breaks.
    struct Pipe {
        left: usize,
        how: io::ErrorKind,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.left = self.left.checked_sub(1).ok_or(self.how)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A publish of 100,000 lines into `head` ended after 256 of them, with exit code 0.
    #[test]
    fn a_reader_that_goes_ends_no_act() {
        let mut told = Told(Some(Pipe { left: 1, how: io::ErrorKind::BrokenPipe }));
        for _ in 0..3 {
            told.write_all(b"done\n").expect("it goes on");
        }
        assert!(told.0.is_none());
        told.flush().expect("in silence");
        let mut told = Told(Some(Pipe { left: 0, how: io::ErrorKind::StorageFull }));
        assert_eq!(told.write_all(b"done\n").expect_err("that is no reader").kind(), io::ErrorKind::StorageFull);
    }
}
