//! What operators and their tools look at: /ready, /health and /metrics.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tokio::time::timeout;

use crate::line::Line;
use crate::metrics::{Snapshot, render};
use crate::report::{Request, ShardReport};
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
    let shards = Arc::clone(&server.shards.borrow());
    let reports = server.reports(&shards.lines).await;
    let process = crate::process::read();
    let phase = server.status.borrow().phase.name();
    let body = render(&Snapshot {
        build: &server.build,
        phase,
        uptime_seconds: server.started.elapsed().as_secs_f64(),
        process: &process,
        shards: &reports,
        shards_asked: shards.lines.len(),
        http: server.http.read(),
        grpc: server.grpc.read(),
        unanswered: server.unanswered.load(Ordering::Relaxed),
        history: server.history.figures.read(),
    });
    page(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body)
}

impl Server {
    /// Asks all shards at once; those that don't answer in time are missing from the result.
    async fn reports(&self, shards: &[Line]) -> Vec<ShardReport> {
        let (answers, answered) = flume::bounded(shards.len().max(1));
        let asked = shards.iter().filter(|shard| shard.ask(Request::Report(answers.clone()))).count();
        drop(answers);
        let mut reports: Vec<ShardReport> = Vec::with_capacity(asked);
        let collect = async {
            while let Ok(report) = answered.recv_async().await {
                reports.push(report);
            }
        };
        let _late = timeout(self.settings.shard_timeout, collect).await;
        self.count_unanswered(shards.len() - reports.len());
        reports.sort_by_key(|report| report.shard);
        reports
    }
}

fn page(code: StatusCode, kind: &'static str, body: String) -> Response {
    let mut page = (code, body).into_response();
    page.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    page.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    page
}
