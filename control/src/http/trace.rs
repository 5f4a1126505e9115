//! `/v1/messages/{message}`: the life of a message. `/v1/receipts`: what becomes of messages, as it comes. `/v1/trace`: what
//! happens, while somebody looks.
//!
//! The last two are Server-Sent Events, or, if the caller accepts that, JSON in lines.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::future::{Either, select};
use futures_util::stream::unfold;
use postroad_base::{ReceiptLevel, TopicFilter};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use super::path::InPath;
use super::{json_page, limit_of};
use crate::history::Wanted;
use crate::problem::{Kind, Problem};
use crate::receipts::{Begin, Came, Following, Place, message_id, no_history};
use crate::report::Request;
use crate::server::wait_for_stop;
use crate::shared::{Peer, Server};
use crate::tokens::Right;
use crate::watching::{LINES_MAX, LineJson, Watch, WatchedLine};

/// As `receipts::NOTHING_AFTER`, for who watches.
const NOTHING_AFTER: Duration = Duration::from_secs(15);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    after: Option<u64>,
    limit: Option<usize>,
}

pub(super) async fn life(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    InPath(message): InPath,
    part: Result<Query<Part>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    server.http_caller(peer, &headers, Right::Trace)?;
    let Query(Part { after, limit }) = part.map_err(|error| Problem::bad(error.body_text()))?;
    let (id, after) = (message_id(&message)?, after.unwrap_or(0));
    let page = server.history.life(id, after, limit_of(limit)?).await.map_err(|_| no_history())?;
    if page.rows.is_empty() && after == 0 {
        let why =
            "nothing is kept of this message: nobody asked for receipts of it and it was not sampled, or it is too old";
        return Err(Problem::new(Kind::NotFound, why));
    }
    let next = page.more.then_some(page.upto);
    Ok(json_page(&serde_json::json!({ "message_id": message, "steps": page.rows, "next": next })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    message: Option<String>,
    publisher: Option<String>,
    level: Option<String>,
    after: Option<u64>,
    follow: Option<bool>,
}

pub(super) async fn receipts(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    asked: Result<Query<Asked>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (_caller, user) = server.may_see(Right::Trace, |right| server.http_caller(peer, &headers, right))?;
    let Query(asked) = asked.map_err(|error| Problem::bad(error.body_text()))?;
    let Asked { message, publisher, level, after, follow } = asked;
    let level = level
        .map(|name| ReceiptLevel::from_name(&name).ok_or_else(|| Problem::bad(format!("there is no level {name:?}"))));
    let message = message.as_deref().map(message_id).transpose()?;
    let wanted = Wanted { message, publisher, user, level: level.transpose()? };
    let begin = Begin { after: last_event(&headers)?.or(after), once: follow == Some(false) };
    let following = Following::begin(&server, wanted, begin).await?;
    let format = Format::of(&headers);
    let body = unfold(Some(following), move |following| async move {
        let mut following = following?;
        Some(match following.next().await {
            Came::Rows(rows) => {
                let told: Vec<u8> = rows
                    .iter()
                    .flat_map(|row| format.event(Some(row.position), row.receipt.as_deref().unwrap_or("step"), row))
                    .collect();
                (Ok::<_, Infallible>(Bytes::from(told)), Some(following))
            }
            Came::Nothing => (Ok(format.nothing_up_to(following.seen())), Some(following)),
            Came::Failed(problem) => (Ok(format.event(Some(following.seen()), "error", &problem).into()), None),
            Came::End if format == Format::Events => (Ok(format.nothing_up_to(following.seen())), None),
            Came::End => return None,
        })
    });
    Ok(format.response(Body::from_stream(body)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Looking {
    client: Option<String>,
    topic: Option<String>,
    lines_per_second: Option<u32>,
}

pub(super) async fn watch(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    looking: Result<Query<Looking>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let caller = server.http_caller(peer, &headers, Right::Trace)?;
    let Query(Looking { client, topic, lines_per_second }) =
        looking.map_err(|error| Problem::bad(error.body_text()))?;
    if client.is_none() && topic.is_none() {
        return Err(Problem::bad("name a client or a topic filter"));
    }
    let most = server.settings.trace_lines_per_second;
    let lines_per_second = lines_per_second.unwrap_or(most);
    if !(1..=most).contains(&lines_per_second) {
        return Err(Problem::bad(format!("lines_per_second must be 1 to {most} (trace.lines_per_second)")));
    }
    let topic = topic.map(TopicFilter::new).transpose().map_err(|error| Problem::bad(format!("topic: {error}")))?;
    tracing::info!(caller = &*caller.name, client, topic = topic.as_ref().map(|t| t.as_str()), "somebody watches");
    let place = server.reader_place(false)?;
    let lines = server.api.watch(client.map(Into::into), topic, lines_per_second)?;
    let format = Format::of(&headers);
    let watching = Watching { lines, ends: Instant::now() + server.settings.connection_age_max, server, _place: place };
    let body = unfold(watching, move |mut watching| async move {
        let told = match watching.next().await? {
            Some(line) => format.event(None, "line", &LineJson::from(&line)).into(),
            None => format.nothing(),
        };
        Some((Ok::<_, Infallible>(told), watching))
    });
    Ok(format.response(Body::from_stream(body)))
}

/// Who watches. The shards forget it when the lines' receiver is gone.
struct Watching {
    lines: flume::Receiver<WatchedLine>,
    ends: Instant,
    server: Arc<Server>,
    _place: Place,
}

impl Watching {
    /// The next line; `Some(None)`: nothing, for a while; `None`: that was all.
    async fn next(&mut self) -> Option<Option<WatchedLine>> {
        let until = self.ends.min(Instant::now() + NOTHING_AFTER);
        let stops = std::pin::pin!(wait_for_stop(self.server.stopped.clone()));
        let comes = std::pin::pin!(timeout_at(until, self.lines.recv_async()));
        match select(stops, comes).await {
            Either::Right((Ok(Ok(line)), _)) => Some(Some(line)),
            Either::Right((Err(_), _)) if Instant::now() < self.ends => Some(None),
            _ => None,
        }
    }
}

impl crate::api::Api {
    /// All shards tell what happens from now on.
    fn watch(
        &self,
        client: Option<bytestring::ByteString>,
        topic: Option<TopicFilter>,
        lines_per_second: u32,
    ) -> Result<flume::Receiver<WatchedLine>, Problem> {
        let (lines, told) = flume::bounded(LINES_MAX);
        let shards = self.all_lines()?;
        let count = u32::try_from(shards.lines.len()).unwrap_or(u32::MAX);
        let lines_per_second = lines_per_second.div_ceil(count.max(1));
        let watch = Watch { client, topic, lines_per_second, lines };
        let is_asked = shards.lines.iter().all(|line| line.ask(Request::Watch(Box::new(watch.clone()))));
        is_asked.then_some(told).ok_or_else(|| crate::api::NoAnswer::NotTaken.into())
    }
}

/// Where a reader that was cut off goes on, as browsers and their like say it.
fn last_event(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(id) = headers.get("last-event-id") else { return Ok(None) };
    let position = id.to_str().ok().and_then(|id| id.parse().ok());
    position.map(Some).ok_or_else(|| Problem::bad("Last-Event-ID must be the id of an event"))
}

/// How a stream is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Events,
    Lines,
}

impl Format {
    fn of(headers: &HeaderMap) -> Self {
        let accepts = headers.get(header::ACCEPT).and_then(|accepts| accepts.to_str().ok());
        let takes_lines = accepts.is_some_and(|accepts| accepts.contains("application/x-ndjson"));
        if takes_lines { Self::Lines } else { Self::Events }
    }

    fn event(self, id: Option<u64>, name: &str, data: &impl Serialize) -> Vec<u8> {
        let data = serde_json::to_string(data).expect("texts and numbers");
        match (self, id) {
            (Self::Lines, _) => format!("{data}\n").into_bytes(),
            (Self::Events, Some(id)) => format!("id: {id}\nevent: {name}\ndata: {data}\n\n").into_bytes(),
            (Self::Events, None) => format!("event: {name}\ndata: {data}\n\n").into_bytes(),
        }
    }

    fn nothing(self) -> Bytes {
        match self {
            Self::Lines => Bytes::from_static(b"\n"),
            Self::Events => Bytes::from_static(b":\n\n"),
        }
    }

    /// The same, and where to go on from: an id without data is no event, but the next connection's `Last-Event-ID`.
    fn nothing_up_to(self, position: u64) -> Bytes {
        match self {
            Self::Lines => self.nothing(),
            Self::Events => format!("id: {position}\n\n").into(),
        }
    }

    fn response(self, body: Body) -> Response {
        let kind = match self {
            Self::Lines => "application/x-ndjson",
            Self::Events => "text/event-stream",
        };
        let mut response = body.into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}
