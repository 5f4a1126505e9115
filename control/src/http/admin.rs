//! `/v1/admin`: how the server is, to read its configuration anew, and to stop.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};

use super::json_page;
use crate::problem::Problem;
use crate::shared::{Peer, Server};
use crate::tokens::Right;

/// For everybody, as `/ready` is.
pub(super) async fn status(State(server): State<Arc<Server>>) -> Response {
    json_page(&server.status_report())
}

pub(super) async fn reload(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let caller = server.http_caller(peer, &headers, Right::Admin)?;
    Ok(json_page(&server.reload(&caller).await?))
}

/// 202: it goes on until its clients have been told, and what was acknowledged is stored.
pub(super) async fn drain(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let caller = server.http_caller(peer, &headers, Right::Admin)?;
    server.drain(&caller)?;
    Ok((StatusCode::ACCEPTED, json_page(&serde_json::json!({ "phase": "draining" }))).into_response())
}
