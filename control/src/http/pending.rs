//! `/v1/clients/{client}/messages`: what waits for a client, for support and for devices that come by HTTP.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use postroad_base::PendingId;
use serde::Deserialize;

use super::path::InPath;
use super::{cursor_of, json_page, limit_of};
use crate::pending::{Acknowledged, PendingJson};
use crate::problem::Problem;
use crate::shared::{Peer, Server};
use crate::tokens::Right;

/// Which page.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    after: Option<String>,
    limit: Option<usize>,
}

/// Which deliveries are acknowledged.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    #[serde(default)]
    deliveries: Vec<String>,
}

pub(super) async fn list(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    InPath(client): InPath,
    wanted: Result<Query<Wanted>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    server.http_caller(peer, &headers, Right::Clients)?;
    let Query(wanted) = wanted.map_err(|error| Problem::bad(error.body_text()))?;
    let limit = limit_of(wanted.limit)?;
    let after: Option<PendingId> = cursor_of(wanted.after.as_deref(), |text| text.parse().ok())?;
    let page = server.pending(&client, after, limit).await?;
    let deliveries: Vec<PendingJson> = page.deliveries.iter().map(PendingJson::of).collect();
    let next = page.next.map(|next| next.to_string());
    Ok(json_page(&serde_json::json!({ "deliveries": deliveries, "next": next })))
}

pub(super) async fn acknowledge(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    InPath(client): InPath,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let caller = server.http_caller(peer, &headers, Right::Clients)?;
    let named: Named = server.json_or_default(body).await?;
    let Acknowledged { ended, gone } = server.acknowledge_pending(&caller, &client, &named.deliveries).await?;
    let text = |ids: &[PendingId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    Ok(json_page(&serde_json::json!({ "acknowledged": text(&ended), "gone": text(&gone) })))
}
