//! `/v1/dead-letters`: what nobody has got, and what becomes of it.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Query, State};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::Response;
use postroad_base::{LetterAction, LetterFilter, LetterId, MessageId, Requeue};
use serde::{Deserialize, de::DeserializeOwned};

use super::path::InPath;
use super::{cursor_of, events, json_page, limit_of};
use crate::letters::{LetterJson, LettersCursor, WantedLetters, gone, lease_ms, letter_id};
use crate::problem::Problem;
use crate::publication::{Caller, base64_of, checked, topic_of};
use crate::shared::{Closing, Peer, Server};
use crate::tokens::Right;

/// Which letters.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    client: Option<String>,
    topic: Option<String>,
    reason: Option<String>,
    since_unix_ms: Option<u64>,
    until_unix_ms: Option<u64>,
    parked: Option<bool>,
    leased: Option<bool>,
    pub(super) limit: Option<usize>,
    pub(super) after: Option<String>,
    /// Of a lease.
    seconds: Option<u64>,
    /// Of who follows letters.
    pub(super) lease_seconds: Option<u64>,
    pub(super) from: Option<From>,
}

/// Where it begins to follow letters.
#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(super) enum From {
    Now,
    Oldest,
}

/// How a letter is sent again.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Again {
    topic: Option<String>,
    payload: Option<String>,
    payload_base64: Option<String>,
    ttl_seconds: Option<u32>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    #[serde(default)]
    note: String,
}

impl Wanted {
    /// Which ones, and where the answer begins and ends.
    pub(super) fn split(self) -> Result<(WantedLetters, Part), Problem> {
        let Self { client, topic, reason, since_unix_ms, until_unix_ms, parked, leased, .. } = self;
        let part = Part {
            limit: limit_of(self.limit)?,
            from: cursor_of(self.after.as_deref(), LettersCursor::parse)?.unwrap_or_default(),
        };
        Ok((WantedLetters { client, topic, reason, since_unix_ms, until_unix_ms, parked, leased }, part))
    }
}

/// Which part of the letters that fit.
pub(super) struct Part {
    limit: usize,
    from: LettersCursor,
}

/// A page; or, to who asks for events, all that come from now on.
pub(super) async fn list(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    Extension(closing): Extension<Closing>,
    wanted: Result<Query<Wanted>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    server.http_caller(peer, &headers, Right::DeadLetters)?;
    let Query(wanted) = wanted.map_err(|error| Problem::bad(error.body_text()))?;
    if wanted.seconds.is_some() {
        return Err(Problem::bad("seconds are those of a lease: POST /v1/dead-letters/lease"));
    }
    if events::are_wanted(&headers) {
        return events::follow(server, closing, wanted, &headers).await;
    }
    if wanted.lease_seconds.is_some() || wanted.from.is_some() {
        return Err(Problem::bad("lease_seconds and from are for who follows letters: Accept: text/event-stream"));
    }
    let (wanted, part) = wanted.split()?;
    server.letters(part, wanted.filter()?, None).await
}

/// The next letters that nobody has, for a while: neither leased nor parked ones.
pub(super) async fn lease(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    server.http_caller(peer, &headers, Right::DeadLetters)?;
    let wanted: Wanted = server.json_or_default(body).await?;
    let lease = lease_ms(wanted.seconds)?;
    if wanted.after.is_some() || wanted.from.is_some() || wanted.lease_seconds.is_some() {
        return Err(Problem::bad("a lease is for seconds, from the oldest on"));
    }
    let (wanted, part) = wanted.split()?;
    server.letters(part, wanted.filter_of_lease()?, Some(lease)).await
}

/// The letter that a path names, for a caller who may act on it.
pub(super) struct Named {
    server: Arc<Server>,
    caller: Caller,
    id: LetterId,
}

impl FromRequestParts<Arc<Server>> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, server: &Arc<Server>) -> Result<Self, Problem> {
        let peer = *parts.extensions.get::<Peer>().expect("every request has the peer of its connection");
        let caller = server.http_caller(peer, &parts.headers, Right::DeadLetters)?;
        let InPath(id) = InPath::from_request_parts(parts, server).await?;
        Ok(Self { server: Arc::clone(server), caller, id: letter_id(&id)? })
    }
}

pub(super) async fn show(Named { server, id, .. }: Named) -> Result<Response, Problem> {
    let report = server.letter(id).await?;
    LetterJson::of(&report).map(|json| json_page(&json)).ok_or_else(gone)
}

/// To its client again; or, with a topic, to whoever subscribes to that.
pub(super) async fn requeue(
    named: Named,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let Again { topic, payload, payload_base64, ttl_seconds } = named.server.json_or_default(body).await?;
    let payload = match (payload, payload_base64) {
        (Some(_), Some(_)) => return Err(Problem::bad("give one of payload and payload_base64")),
        (Some(text), None) => Some(text.into()),
        (None, Some(text)) => Some(base64_of(&text).map_err(Problem::bad)?),
        (None, None) => None,
    };
    let requeue = Requeue { payload, ttl_seconds };
    let Some(topic) = topic else { return named.act(LetterAction::Requeue(requeue)).await };
    named.server.http_caller(peer, &headers, Right::Publish)?;
    let Named { server, caller, id } = named;
    let topic = topic_of(&topic).map_err(Problem::bad)?;
    let message_id = server.requeue_to(&caller, id, topic, requeue).await?;
    Ok(done(id, message_id))
}

pub(super) async fn drop_letter(named: Named) -> Result<Response, Problem> {
    named.act(LetterAction::Drop).await
}

pub(super) async fn park(named: Named, body: Body) -> Result<Response, Problem> {
    let Note { note } = named.server.json_or_default(body).await?;
    let note = checked("note", note).map_err(Problem::bad)?;
    named.act(LetterAction::Park { note }).await
}

pub(super) async fn unpark(named: Named) -> Result<Response, Problem> {
    named.act(LetterAction::Unpark).await
}

pub(super) async fn release(named: Named) -> Result<Response, Problem> {
    named.act(LetterAction::Release).await
}

/// A letter as `list` shows it, from another server or from a file: it is kept as a new one.
pub(super) async fn import(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    server.http_caller(peer, &headers, Right::DeadLetters)?;
    let body = server.whole(body).await?;
    let letter: LetterJson = serde_json::from_slice(&body).map_err(|error| Problem::bad(error.to_string()))?;
    let import = letter.import().map_err(Problem::bad)?;
    Ok(done(server.import_letter(import).await?, None))
}

impl Named {
    async fn act(&self, action: LetterAction) -> Result<Response, Problem> {
        let message_id = self.server.act_on_letter(self.id, action).await?;
        Ok(done(self.id, message_id))
    }
}

impl Server {
    async fn letters(&self, part: Part, filter: LetterFilter, lease_ms: Option<u64>) -> Result<Response, Problem> {
        let (letters, next) = self.api.letters(&filter, part.from, part.limit, lease_ms).await?;
        let letters: Vec<LetterJson> = letters.iter().filter_map(LetterJson::of).collect();
        Ok(json_page(&serde_json::json!({ "letters": letters, "next": next.map(LettersCursor::text) })))
    }

    /// An empty body means nothing special.
    pub(super) async fn json_or_default<T: DeserializeOwned + Default>(&self, body: Body) -> Result<T, Problem> {
        let body = self.whole(body).await?;
        if body.trim_ascii().is_empty() {
            return Ok(T::default());
        }
        serde_json::from_slice(&body).map_err(|error| Problem::bad(error.to_string()))
    }
}

fn done(id: LetterId, message_id: Option<MessageId>) -> Response {
    json_page(&serde_json::json!({ "id": id.to_string(), "message_id": message_id.map(|id| id.to_string()) }))
}
