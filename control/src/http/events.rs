//! `GET /v1/dead-letters` as Server-Sent Events: dead letters as they come about, for as long as the request goes on.
//!
//! ```text
//! id: 0-0-16,1-0-7        what was seen; the browser sends it back as Last-Event-ID
//! data: {"id": …}         a letter, as a list shows it
//!
//! :                       nothing for a while
//!
//! event: end              the server stops, or the connection is as old as it may be
//! data: {"reason": …}
//! ```

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::unfold;
use serde::Serialize;

use super::letters::{From, Wanted};
use crate::letters::{Begin, Follower, Heard, LetterJson, Seen, lease_ms};
use crate::problem::Problem;
use crate::shared::{Closing, Server};

const EVENTS: &str = "text/event-stream";
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// After which time a browser comes back, in milliseconds.
const RETRY_MILLIS: u32 = 1_000;

/// Whether the caller takes events.
pub(super) fn are_wanted(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let kinds = accepted.flat_map(|value| value.split(',')).map(|kind| kind.split(';').next().unwrap_or(kind).trim());
    kinds.into_iter().any(|kind| kind.eq_ignore_ascii_case(EVENTS))
}

pub(super) async fn follow(
    server: Arc<Server>,
    closing: Closing,
    wanted: Wanted,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    if wanted.limit.is_some() || wanted.after.is_some() {
        return Err(Problem::bad("limit and after are for pages"));
    }
    let lease = wanted.lease_seconds.map(|seconds| lease_ms(Some(seconds))).transpose()?;
    let begin = begin_of(headers, wanted.from, lease.is_some())?;
    let (wanted, _) = wanted.split()?;
    let filter = if lease.is_some() { wanted.filter_of_lease()? } else { wanted.filter()? };
    let (ending, stopping) = (Arc::clone(&server), closing);
    let end = async move { ending.end_of_stream(stopping, None).await };
    let heartbeat = server.settings.request_timeout;
    let follower = Follower::begin(server, filter, lease.map(Duration::from_millis), begin, end).await?;
    let first = Bytes::from(format!("retry: {RETRY_MILLIS}\nid: {}\n\n", follower.seen()));
    let body = unfold((Some(first), Some(follower)), move |(first, mut follower)| async move {
        if let Some(first) = first {
            return Some((Ok::<_, Infallible>(first), (None, follower)));
        }
        let heard = follower.as_mut()?.next(heartbeat).await;
        let is_over = matches!(heard, Heard::End(_));
        Some((Ok(event(heard)), (None, follower.filter(|_| !is_over))))
    });
    let mut answer = Body::from_stream(body).into_response();
    let head = answer.headers_mut();
    head.insert(header::CONTENT_TYPE, HeaderValue::from_static(EVENTS));
    head.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(answer)
}

/// Who leases letters wants those that are there.
fn begin_of(headers: &HeaderMap, from: Option<From>, is_leasing: bool) -> Result<Begin, Problem> {
    if let Some(seen) = headers.get(LAST_EVENT_ID) {
        let wrong = |_| Problem::bad("Last-Event-ID must be what came with a letter");
        return Ok(Begin::Behind(Seen::parse(seen.to_str().map_err(wrong)?)?));
    }
    let usual = if is_leasing { From::Oldest } else { From::Now };
    Ok(match from.unwrap_or(usual) {
        From::Now => Begin::Now,
        From::Oldest => Begin::Oldest,
    })
}

fn event(heard: Heard) -> Bytes {
    match heard {
        Heard::Letter(report, seen) => match LetterJson::of(&report) {
            Some(letter) => format!("id: {seen}\ndata: {}\n\n", line_of(&letter)),
            None => format!("id: {seen}\n\n"),
        },
        Heard::Nothing => ":\n\n".to_owned(),
        Heard::End(problem) => format!("event: end\ndata: {}\n\n", line_of(&problem)),
    }
    .into()
}

/// JSON without a line end, which would end the event.
fn line_of(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("texts and numbers")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::Kind;

    fn accepting(kinds: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static(kinds))])
    }

    #[test]
    fn events_are_for_who_asks_for_them() {
        for kinds in ["text/event-stream", "application/json, Text/Event-Stream;q=0.5"] {
            assert!(are_wanted(&accepting(kinds)), "{kinds}");
        }
        for kinds in ["*/*", "application/json", "text/event-stream2"] {
            assert!(!are_wanted(&accepting(kinds)), "{kinds}");
        }
        assert!(!are_wanted(&HeaderMap::new()));
    }

    #[test]
    fn the_last_event_wins_over_all_else() {
        let back = |id: &'static str| HeaderMap::from_iter([(LAST_EVENT_ID, HeaderValue::from_static(id))]);
        let seen = Seen::parse("0-0-16").expect("a place");
        assert_eq!(begin_of(&back("0-0-16"), Some(From::Oldest), true), Ok(Begin::Behind(seen)));
        assert_eq!(begin_of(&back("sixteen"), None, false).map_err(|problem| problem.kind), Err(Kind::Bad));
        let begins = |from, is_leasing| begin_of(&HeaderMap::new(), from, is_leasing);
        assert_eq!((begins(None, false), begins(None, true)), (Ok(Begin::Now), Ok(Begin::Oldest)));
        assert_eq!(
            (begins(Some(From::Oldest), false), begins(Some(From::Now), true)),
            (Ok(Begin::Oldest), Ok(Begin::Now))
        );
    }

    #[test]
    fn an_event_is_text_without_blank_lines_in_it() {
        let end = event(Heard::End(Problem::new(Kind::NotServing, "two\n\nlines")));
        let text = std::str::from_utf8(&end).expect("text");
        assert!(text.starts_with("event: end\ndata: {") && text.ends_with("}\n\n"), "{text}");
        assert_eq!(text.matches('\n').count(), 3, "{text}");
        assert_eq!(&event(Heard::Nothing)[..], b":\n\n");
    }
}
