//! `/v1/clients`: who is known, what waits for whom, and the end of a connection.

use std::sync::Arc;

use axum::Extension;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use postroad_base::ShardId;
use serde::Deserialize;

use super::{cursor_of, json_page, limit_of};
use crate::clients::{ClientsCursor, ClientsFilter};
use crate::problem::Problem;
use crate::shared::{Peer, Server};
use crate::tokens::Right;

/// Which clients, and in which order.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    connected: Option<bool>,
    user: Option<String>,
    group: Option<String>,
    prefix: Option<String>,
    #[serde(default)]
    backlog_min: usize,
    limit: Option<usize>,
    after: Option<String>,
    order: Option<Order>,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Order {
    /// As they come: pages of all.
    Any,
    /// The largest backlogs, one page.
    Backlog,
}

pub(super) async fn list(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    wanted: Result<Query<Wanted>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    server.http_caller(peer, &headers, Right::Clients)?;
    let Query(wanted) = wanted.map_err(|error| Problem::bad(error.body_text()))?;
    let limit = limit_of(wanted.limit)?;
    let after = cursor_of(wanted.after.as_deref(), ClientsCursor::parse)?;
    let filter = ClientsFilter {
        connected: wanted.connected,
        user: wanted.user.map(Into::into),
        group: wanted.group.map(Into::into),
        prefix: wanted.prefix,
        backlog_min: wanted.backlog_min,
    };
    let (clients, next) = match wanted.order {
        Some(Order::Backlog) if after.is_some() => return Err(Problem::bad("order=backlog has one page")),
        Some(Order::Backlog) => (server.api.clients_behind(&filter, limit).await?, None),
        Some(Order::Any) | None => {
            server.api.clients(&filter, after.unwrap_or(ClientsCursor::first_of(ShardId(0))), limit).await?
        }
    };
    Ok(json_page(&serde_json::json!({ "clients": clients, "next": next.map(ClientsCursor::text) })))
}

pub(super) async fn show(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    Path(client): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    server.http_caller(peer, &headers, Right::Clients)?;
    server.client(&client, false).await
}

/// The client as it is afterwards. It may be back at once: to keep it away is for `auth.file` and `acl.file`.
pub(super) async fn disconnect(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    Path(client): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let caller = server.http_caller(peer, &headers, Right::Clients)?;
    tracing::info!(client, caller = &*caller.name, "a client is disconnected through the API");
    server.client(&client, true).await
}

impl Server {
    async fn client(&self, client: &str, cut_off: bool) -> Result<Response, Problem> {
        Ok(json_page(&self.api.client(client, cut_off).await?))
    }
}
