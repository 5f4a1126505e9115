//! `/v1/subscriptions`, `/v1/filters` and `/v1/topics`: who asks for what, how many do, and which messages are retained.

use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;

use super::{cursor_of, json_page, limit_of};
use crate::problem::Problem;
use crate::shared::{Peer, Server};
use crate::tokens::Right;
use crate::topics::{FiltersWanted, RetainedCursor, SubscriptionsCursor, SubscriptionsFilter, filter_of};

/// Which subscriptions.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Subscriptions {
    client: Option<String>,
    filter: Option<String>,
    topic: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

/// Which filters.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filters {
    prefix: Option<String>,
    topic: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

/// Which topics.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Topics {
    filter: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

pub(super) async fn subscriptions(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    wanted: Result<Query<Subscriptions>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    server.http_caller(peer, &headers, Right::Clients)?;
    let Query(Subscriptions { client, filter, topic, limit, after }) =
        wanted.map_err(|error| Problem::bad(error.body_text()))?;
    let (limit, after) = (limit_of(limit)?, cursor_of(after.as_deref(), SubscriptionsCursor::parse)?);
    let filter = SubscriptionsFilter::of(client, filter.as_deref(), topic.as_deref())?;
    let (subscriptions, next) = server.api.subscriptions(&filter, after, limit).await?;
    let next = next.map(SubscriptionsCursor::text);
    Ok(json_page(&serde_json::json!({ "subscriptions": subscriptions, "next": next })))
}

pub(super) async fn filters(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    wanted: Result<Query<Filters>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    server.http_caller(peer, &headers, Right::Clients)?;
    let Query(Filters { prefix, topic, limit, after }) = wanted.map_err(|error| Problem::bad(error.body_text()))?;
    let (limit, after) = (limit_of(limit)?, cursor_of(after.as_deref(), FiltersWanted::parse)?);
    let wanted = FiltersWanted::of(prefix, topic.as_deref(), after)?;
    let (filters, next) = server.api.filters(&wanted, limit).await?;
    let next = next.as_ref().map(FiltersWanted::text_of);
    Ok(json_page(&serde_json::json!({ "filters": filters, "next": next })))
}

pub(super) async fn topics(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    wanted: Result<Query<Topics>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    server.http_caller(peer, &headers, Right::Clients)?;
    let Query(Topics { filter, limit, after }) = wanted.map_err(|error| Problem::bad(error.body_text()))?;
    let (limit, after) = (limit_of(limit)?, cursor_of(after.as_deref(), RetainedCursor::parse)?);
    let filter = filter_of(filter.as_deref().unwrap_or("#"))?;
    let from = after.unwrap_or_default();
    let (topics, next) = server.api.retained(&filter, from, limit).await?;
    Ok(json_page(&serde_json::json!({ "topics": topics, "next": next.map(RetainedCursor::text) })))
}
