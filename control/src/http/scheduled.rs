//! `/v1/scheduled`: what is to be published later, and taking it back.

use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;

use super::path::InPath;
use super::{cursor_of, json_page, limit_of};
use crate::problem::Problem;
use crate::receipts::message_id;
use crate::scheduled::{ScheduledCursor, ScheduledJson, WantedScheduled};
use crate::shared::{Peer, Server};

/// Which messages.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    topic: Option<String>,
    user: Option<String>,
    client: Option<String>,
    from_unix_ms: Option<u64>,
    until_unix_ms: Option<u64>,
    limit: Option<usize>,
    after: Option<String>,
}

pub(super) async fn list(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    wanted: Result<Query<Wanted>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (_caller, own) = server.may_see_scheduled(|right| server.http_caller(peer, &headers, right))?;
    let Query(wanted) = wanted.map_err(|error| Problem::bad(error.body_text()))?;
    let Wanted { topic, user, client, from_unix_ms, until_unix_ms, limit, after } = wanted;
    let limit = limit_of(limit)?;
    let after = cursor_of(after.as_deref(), ScheduledCursor::parse)?;
    let wanted = WantedScheduled { topic, user, client, from_unix_ms, until_unix_ms };
    let (found, next) = server.scheduled(&wanted.filter(own.as_deref())?, after, limit).await?;
    let messages: Vec<ScheduledJson> = found.iter().map(ScheduledJson::of).collect();
    Ok(json_page(&serde_json::json!({ "messages": messages, "next": next.map(ScheduledCursor::text) })))
}

pub(super) async fn cancel(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    InPath(message): InPath,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (caller, own) = server.may_see_scheduled(|right| server.http_caller(peer, &headers, right))?;
    server.cancel_scheduled(&caller, message_id(&message)?, own.as_deref()).await?;
    Ok(json_page(&serde_json::json!({ "message_id": message, "cancelled": true })))
}
