//! What operators and their tools look at: /ready, /health and /metrics.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::server::Phase;
use crate::shared::Server;

/// 200 while clients are served, else 503 with the reason.
pub(super) async fn ready(State(server): State<Arc<Server>>) -> Response {
    let status = server.status.borrow().clone();
    let code = match status.phase {
        Phase::Serving => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let notes: Vec<_> = status.standing_notes().collect();
    let body = serde_json::json!({
        "ready": code == StatusCode::OK,
        "phase": status.phase.name(),
        "reason": status.phase.reason(),
        "notes": notes,
        "stalled_shards": *server.stalled.borrow(),
    });
    page(code, "application/json", format!("{body}\n"))
}

/// 200 as long as the process can do its work, whatever it waits for; 503 once it is poisoned.
pub(super) async fn health(State(server): State<Arc<Server>>) -> Response {
    let phase = server.status.borrow().phase.clone();
    let healthy = !matches!(phase, Phase::Poisoned(_));
    let body = serde_json::json!({
        "healthy": healthy,
        "phase": phase.name(),
        "version": server.build.version,
        "uptime_seconds": server.started.elapsed().as_secs(),
        "stalled_shards": *server.stalled.borrow(),
    });
    let code = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    page(code, "application/json", format!("{body}\n"))
}

pub(super) async fn metrics(State(server): State<Arc<Server>>) -> Response {
    page(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", server.metrics().await)
}

fn page(code: StatusCode, kind: &'static str, body: String) -> Response {
    let mut page = (code, body).into_response();
    page.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    page.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    page
}
