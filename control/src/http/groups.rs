//! `/v1/groups`: what is kept for applications, and their taking of it.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytestring::ByteString;
use postroad_base::Verdict;
use serde::Deserialize;

use super::path::InPath;
use super::{json_page, limit_of};
use crate::groups::{LeasedJson, deliveries_of, filters_of, lease_of, name_of, refusal_of, take_of};
use crate::problem::{Kind, Problem};
use crate::publication::Caller;
use crate::shared::{Peer, Server};
use crate::tokens::Right;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    limit: Option<usize>,
    after: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    filters: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Taking {
    limit: Option<usize>,
    lease_seconds: Option<u64>,
    wait_seconds: u64,
}

/// What is said of deliveries; each method takes some of it.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Said {
    deliveries: Vec<String>,
    after_seconds: Option<u64>,
    dead: Option<bool>,
    reason: Option<String>,
    lease_seconds: Option<u64>,
}

/// The group that a path names, for a caller who may consume.
pub(super) struct Named {
    server: Arc<Server>,
    caller: Caller,
    name: ByteString,
}

impl FromRequestParts<Arc<Server>> for Named {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, server: &Arc<Server>) -> Result<Self, Problem> {
        let peer = *parts.extensions.get::<Peer>().expect("every request has the peer of its connection");
        let caller = server.http_caller(peer, &parts.headers, Right::Consume)?;
        let InPath(name) = InPath::from_request_parts(parts, server).await?;
        Ok(Self { server: Arc::clone(server), caller, name: name_of(&name)? })
    }
}

pub(super) async fn list(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    wanted: Result<Query<Wanted>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    server.http_caller(peer, &headers, Right::Consume)?;
    let Query(wanted) = wanted.map_err(|error| Problem::bad(error.body_text()))?;
    let limit = limit_of(wanted.limit)?;
    let groups = server.api.groups(wanted.after.as_deref(), limit).await?;
    let next = groups.last().filter(|_| groups.len() == limit).map(|last| last.group.clone());
    Ok(json_page(&serde_json::json!({ "groups": groups, "next": next })))
}

pub(super) async fn show(named: Named) -> Result<Response, Problem> {
    Ok(json_page(&named.server.api.group(&named.name).await?))
}

pub(super) async fn set(named: Named, body: Body) -> Result<Response, Problem> {
    let Named { server, caller, name } = named;
    let body = server.whole(body).await?;
    let Change { filters } = serde_json::from_slice(&body).map_err(|error| Problem::bad(error.to_string()))?;
    let is_new = server.api.set_group(&caller, &name, filters_of(&filters)?).await?;
    tracing::info!(group = &*name, caller = &*caller.name, is_new, "a consumer group was set through the API");
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, json_page(&serde_json::json!({ "group": &*name, "is_new": is_new }))).into_response())
}

pub(super) async fn delete(Named { server, caller, name }: Named) -> Result<Response, Problem> {
    server.api.delete_group(&caller, &name).await?;
    tracing::info!(group = &*name, caller = &*caller.name, "a consumer group was deleted through the API");
    Ok(json_page(&serde_json::json!({ "group": &*name })))
}

pub(super) async fn take(Named { server, caller, name }: Named, body: Body) -> Result<Response, Problem> {
    let Taking { limit, lease_seconds, wait_seconds } = server.json_or_default(body).await?;
    let take = take_of(limit_of(limit)?, lease_seconds, wait_seconds)?;
    let busy =
        |_| Problem::new(Kind::Busy, "half of http.connections_max connections wait for something to come; try again");
    let _place = if wait_seconds == 0 { None } else { Some(server.patient_http.try_acquire().map_err(busy)?) };
    let taken = server.until_it_stops(server.api.take(&caller, &name, take)).await??;
    let deliveries: Vec<LeasedJson> = taken.iter().map(LeasedJson::of).collect();
    Ok(json_page(&serde_json::json!({ "deliveries": deliveries })))
}

pub(super) async fn acknowledge(named: Named, body: Body) -> Result<Response, Problem> {
    named
        .answer(body, |said| match said {
            Said { after_seconds: None, dead: None, reason: None, lease_seconds: None, .. } => Ok(Verdict::Acknowledge),
            _ => Err(Problem::bad("what is acknowledged is over: deliveries is all that can be said")),
        })
        .await
}

pub(super) async fn refuse(named: Named, body: Body) -> Result<Response, Problem> {
    named
        .answer(body, |said| match said {
            Said { after_seconds, dead, reason, lease_seconds: None, .. } => {
                refusal_of(after_seconds, dead.unwrap_or(false), reason)
            }
            _ => Err(Problem::bad("a refused delivery is leased by nobody: give no lease_seconds")),
        })
        .await
}

pub(super) async fn extend(named: Named, body: Body) -> Result<Response, Problem> {
    named
        .answer(body, |said| match said {
            Said { after_seconds: None, dead: None, reason: None, lease_seconds, .. } => {
                Ok(Verdict::Extend { lease_ms: lease_of(lease_seconds)? })
            }
            _ => Err(Problem::bad("give deliveries and lease_seconds")),
        })
        .await
}

impl Named {
    async fn answer(
        self,
        body: Body,
        verdict: impl FnOnce(Said) -> Result<Verdict, Problem>,
    ) -> Result<Response, Problem> {
        let Self { server, caller, name } = self;
        let mut said: Said = server.json_or_default(body).await?;
        let deliveries = deliveries_of(&std::mem::take(&mut said.deliveries))?;
        Ok(json_page(&server.api.answer(&caller, &name, deliveries, verdict(said)?).await?))
    }
}
