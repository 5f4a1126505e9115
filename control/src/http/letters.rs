//! `/v1/dead-letters`: what nobody has got, and what becomes of it.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::Response;
use postroad_base::{
    LetterAction, LetterFilter, LetterId, LetterIdError, MessageId, Outcome, ReasonCode, Requeue, ShardId, TopicFilter,
    TopicName, WallMillis, Wishes,
};
use serde::{Deserialize, de::DeserializeOwned};

use super::{cursor_of, json_page, limit_of};
use crate::letters::{LetterJson, LetterResult, LettersCursor};
use crate::problem::{Kind, Problem};
use crate::publication::Outcome::Published;
use crate::publication::{Caller, Publication, base64_of, checked, topic_of};
use crate::shared::{Peer, Server};
use crate::tokens::Right;

/// How long a lease is, if nothing else is said, and at most, in seconds.
const LEASE_SECONDS: u64 = 60;
const LEASE_SECONDS_MAX: u64 = 86_400;

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
    limit: Option<usize>,
    after: Option<String>,
    /// Of a lease.
    seconds: Option<u64>,
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
    fn filter(&self) -> Result<LetterFilter, Problem> {
        let topic = self.topic.as_deref().map(TopicFilter::new).transpose();
        let outcome = self
            .reason
            .as_deref()
            .map(|name| Outcome::from_name(name).ok_or_else(|| Problem::bad(format!("there is no reason {name:?}"))));
        Ok(LetterFilter {
            client: self.client.clone().map(Into::into),
            topic: topic.map_err(|error| Problem::bad(format!("topic: {error}")))?,
            outcome: outcome.transpose()?,
            since: self.since_unix_ms.map(WallMillis),
            until: self.until_unix_ms.map(WallMillis),
            is_parked: self.parked,
            is_leased: self.leased,
        })
    }
}

pub(super) async fn list(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    wanted: Result<Query<Wanted>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    server.http_caller(peer, &headers, Right::DeadLetters)?;
    let Query(wanted) = wanted.map_err(|error| Problem::bad(error.body_text()))?;
    if wanted.seconds.is_some() {
        return Err(Problem::bad("seconds are those of a lease: POST /v1/dead-letters/lease"));
    }
    server.letters(&wanted, wanted.filter()?, None).await
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
    let seconds = wanted.seconds.unwrap_or(LEASE_SECONDS);
    if !(1..=LEASE_SECONDS_MAX).contains(&seconds) {
        return Err(Problem::bad(format!("seconds must be 1 to {LEASE_SECONDS_MAX}")));
    }
    if wanted.parked.is_some() || wanted.leased.is_some() || wanted.after.is_some() {
        return Err(Problem::bad("a lease is of letters that are neither parked nor leased, from the oldest on"));
    }
    let filter = LetterFilter { is_parked: Some(false), is_leased: Some(false), ..wanted.filter()? };
    server.letters(&wanted, filter, Some(seconds * 1000)).await
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
        let id = Path::<String>::from_request_parts(parts, server).await;
        let Path(id) = id.map_err(|error| Problem::bad(error.body_text()))?;
        let id = id.parse().map_err(|error: LetterIdError| Problem::bad(error.to_string()))?;
        Ok(Self { server: Arc::clone(server), caller, id })
    }
}

pub(super) async fn show(named: Named) -> Result<Response, Problem> {
    named.act(LetterAction::Show).await
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
    named.publish(topic_of(&topic).map_err(Problem::bad)?, requeue).await
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
    match server.api.import_letter(import).await? {
        Some(id) => Ok(done(id, None)),
        None => Err(Problem::new(Kind::NoStorage, "the disk is full, or dead_letters.max is 0")),
    }
}

impl Named {
    async fn act(&self, action: LetterAction) -> Result<Response, Problem> {
        let is_change = !matches!(action, LetterAction::Show);
        let result = self.server.api.act_on_letter(self.id, action).await?;
        if is_change {
            tracing::debug!(letter = %self.id, ?result, "a dead letter was acted on through the API");
        }
        match result {
            LetterResult::Done(message_id) => Ok(done(self.id, message_id)),
            LetterResult::Letter(report) => LetterJson::of(&report).map(|json| json_page(&json)).ok_or_else(gone),
            LetterResult::Gone => Err(gone()),
            LetterResult::NoClient => Err(Problem::new(
                Kind::NoClient,
                "its client has neither a session nor a registration any more: name a topic",
            )),
            LetterResult::QueueFull => {
                Err(Problem::new(Kind::Refused(ReasonCode::QuotaExceeded), "its client's queue is full"))
            }
        }
    }

    /// To whoever subscribes to this topic. Published first: if we end in between, both are there, and nothing is lost.
    async fn publish(&self, topic: TopicName, requeue: Requeue) -> Result<Response, Problem> {
        let Self { server, caller, id } = self;
        let LetterResult::Letter(report) = server.api.act_on_letter(*id, LetterAction::Show).await? else {
            return Err(gone());
        };
        let publication = Publication {
            topic,
            payload: requeue.payload.unwrap_or_else(|| report.letter.message.payload.clone()),
            qos: report.letter.qos,
            retain: false,
            ttl_seconds: requeue.ttl_seconds,
            properties: Arc::clone(&report.properties),
            wishes: report.letter.message.wishes().map(Wishes::of_repeat).unwrap_or_default().into(),
        };
        let outcome = server.api.publish(caller, vec![publication], server.api.publish_deadline()).await[0];
        let message_id = match (Problem::of(outcome), outcome) {
            (None, Published { id, has_subscribers: true }) => id,
            (Some(problem), _) => return Err(problem),
            (None, _) => {
                return Err(Problem::new(Kind::NoClient, "nobody subscribes to that topic: the letter stays"));
            }
        };
        // Not "busy" from here on: it is published.
        match server.api.act_on_letter(*id, LetterAction::Drop).await {
            Ok(LetterResult::Gone) => {
                Err(Problem::new(Kind::Gone, "published; but somebody was faster with the letter itself"))
            }
            Ok(_) => Ok(done(*id, message_id)),
            Err(_) => Err(Problem::new(Kind::Unknown, "published; the letter may still be there, drop it")),
        }
    }
}

impl Server {
    async fn letters(&self, wanted: &Wanted, filter: LetterFilter, lease_ms: Option<u64>) -> Result<Response, Problem> {
        let limit = limit_of(wanted.limit)?;
        let from = cursor_of(wanted.after.as_deref(), LettersCursor::parse)?;
        let from = from.unwrap_or(LettersCursor::first_of(ShardId(0)));
        let (letters, next) = self.api.letters(&filter, from, limit, lease_ms).await?;
        let letters: Vec<LetterJson> = letters.iter().filter_map(LetterJson::of).collect();
        Ok(json_page(&serde_json::json!({ "letters": letters, "next": next.map(LettersCursor::text) })))
    }

    /// An empty body means nothing special.
    async fn json_or_default<T: DeserializeOwned + Default>(&self, body: Body) -> Result<T, Problem> {
        let body = self.whole(body).await?;
        if body.trim_ascii().is_empty() {
            return Ok(T::default());
        }
        serde_json::from_slice(&body).map_err(|error| Problem::bad(error.to_string()))
    }
}

fn gone() -> Problem {
    Problem::new(Kind::Gone, "there is no such letter (any more)")
}

fn done(id: LetterId, message_id: Option<MessageId>) -> Response {
    json_page(&serde_json::json!({ "id": id.to_string(), "message_id": message_id.map(|id| id.to_string()) }))
}
