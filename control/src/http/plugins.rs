//! `/v1/plugins`: what runs, what has run, and to have others run in its place.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::json_page;
use crate::plugins::{PluginsWish, Trial};
use crate::problem::Problem;
use crate::shared::{Peer, Server};
use crate::tokens::Right;

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mode {
    #[default]
    Replace,
    Canary,
    Shadow,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Reload {
    mode: Mode,
    percent: Option<u8>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Rollback {
    to: Option<u32>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Nothing {}

impl Reload {
    fn trial(self) -> Result<Trial, Problem> {
        match (self.mode, self.percent) {
            (Mode::Replace, None) => Ok(Trial::Replace),
            (Mode::Shadow, None) => Ok(Trial::Shadow),
            (Mode::Canary, Some(percent @ 1..=99)) => Ok(Trial::Canary { percent }),
            (Mode::Canary, _) => Err(Problem::bad("a canary needs a percent, 1 to 99")),
            (Mode::Replace | Mode::Shadow, Some(_)) => Err(Problem::bad("percent is of a canary")),
        }
    }
}

pub(super) async fn list(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let caller = server.http_caller(peer, &headers, Right::Admin)?;
    Ok(json_page(&server.plugins(&caller).await?))
}

pub(super) async fn history(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let caller = server.http_caller(peer, &headers, Right::Admin)?;
    Ok(json_page(&serde_json::json!({ "attempts": server.plugins_history(&caller).await? })))
}

pub(super) async fn reload(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    change(&server, peer, &headers, body, |wanted: Reload| Ok(PluginsWish::Reload(wanted.trial()?))).await
}

pub(super) async fn rollback(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    change(&server, peer, &headers, body, |Rollback { to }| Ok(PluginsWish::Rollback(to))).await
}

pub(super) async fn promote(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    change(&server, peer, &headers, body, |Nothing {}| Ok(PluginsWish::Promote)).await
}

pub(super) async fn abort(
    State(server): State<Arc<Server>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    change(&server, peer, &headers, body, |Nothing {}| Ok(PluginsWish::Abort)).await
}

/// What the body says is asked of the coordinator.
async fn change<T: DeserializeOwned + Default>(
    server: &Server,
    peer: Peer,
    headers: &HeaderMap,
    body: Body,
    wish: impl FnOnce(T) -> Result<PluginsWish, Problem>,
) -> Result<Response, Problem> {
    let caller = server.http_caller(peer, headers, Right::Admin)?;
    let wish = wish(server.json_or_default(body).await?)?;
    Ok(json_page(&server.change_plugins(wish, &caller).await?))
}
