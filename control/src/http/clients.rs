//! `/v1/clients`: who is known, what waits for whom, and the end of a connection.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;

use super::path::InPath;
use super::{cursor_of, json_page, limit_of};
use crate::clients::{ClientAction, ClientChange, ClientsCursor, ClientsFilter};
use crate::problem::Problem;
use crate::publication::Caller;
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
        Some(Order::Any) | None => server.api.clients(&filter, after.unwrap_or_default(), limit).await?,
    };
    Ok(json_page(&serde_json::json!({ "clients": clients, "next": next.map(ClientsCursor::text) })))
}

pub(super) async fn show(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    InPath(client): InPath,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let caller = server.http_caller(peer, &headers, Right::Clients)?;
    server.client_page(&caller, &client, ClientAction::Show).await
}

/// Whose a client is.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Registration {
    user: Option<String>,
    #[serde(default)]
    groups: Vec<String>,
}

/// It can be pushed to from now on, whether it has ever come or not.
pub(super) async fn register(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    InPath(client): InPath,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let caller = server.http_caller(peer, &headers, Right::Clients)?;
    let Registration { user, groups } = server.json_or_default(body).await?;
    let change = ClientChange::register(user, groups)?;
    Ok(json_page(&server.change_client(&caller, client, change).await?))
}

/// Nothing is known of it any more; if it comes again, it begins anew.
pub(super) async fn unregister(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    InPath(client): InPath,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let caller = server.http_caller(peer, &headers, Right::Clients)?;
    let left = server.change_client(&caller, client, ClientChange::Unregister).await?;
    Ok(json_page(&left)) // null
}

/// It is sent now what had waited for it.
pub(super) async fn drain(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    InPath(client): InPath,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let caller = server.http_caller(peer, &headers, Right::Clients)?;
    server.client_page(&caller, &client, ClientAction::Drain).await
}

/// The client as it is afterwards. It may be back at once: to keep it away is for `auth.file` and `acl.file`.
pub(super) async fn disconnect(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    InPath(client): InPath,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let caller = server.http_caller(peer, &headers, Right::Clients)?;
    server.client_page(&caller, &client, ClientAction::CutOff).await
}

impl Server {
    async fn client_page(&self, caller: &Caller, client: &str, action: ClientAction) -> Result<Response, Problem> {
        Ok(json_page(&self.act_on_client(caller, client, action).await?))
    }
}
