//! `/v1/clients/{client}/messages`: what waits for a client, for support and for devices that come by HTTP.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use postroad_base::{PendingAnswer, PendingId, PendingIdError};
use serde::Deserialize;

use super::path::InPath;
use super::{cursor_of, json_page, limit_of};
use crate::checks::LIMIT_MAX;
use crate::clients::unknown_client;
use crate::pending::PendingJson;
use crate::problem::{Kind, Problem};
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
    let page = server.api.pending(known_name(&client)?, after, limit).await?.ok_or_else(unknown_client)?;
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
    let count = named.deliveries.len();
    if !(1..=LIMIT_MAX).contains(&count) {
        return Err(Problem::bad(format!("deliveries must name 1 to {LIMIT_MAX}")));
    }
    let ids: Result<Vec<PendingId>, PendingIdError> = named.deliveries.iter().map(|text| text.parse()).collect();
    let ids = ids.map_err(|error| Problem::bad(format!("deliveries: {error}")))?;
    let answer = server.api.end_pending(known_name(&client)?, ids.clone()).await?;
    let ended = match answer {
        PendingAnswer::Ended(ended) => ended,
        PendingAnswer::Connected => {
            return Err(Problem::new(Kind::ClientConnected, "the client is connected: it acknowledges by itself"));
        }
        PendingAnswer::NoClient => {
            return Err(unknown_client());
        }
    };
    tracing::info!(client, caller = &*caller.name, count = ended.len(), "deliveries are acknowledged through the API");
    let text = |ids: &[PendingId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    let gone: Vec<PendingId> = ids.into_iter().filter(|id| !ended.contains(id)).collect();
    Ok(json_page(&serde_json::json!({ "acknowledged": text(&ended), "gone": text(&gone) })))
}

/// No client has a name with a zero byte, callers of ours do.
fn known_name(client: &str) -> Result<&str, Problem> {
    if client.contains('\0') { Err(unknown_client()) } else { Ok(client) }
}
