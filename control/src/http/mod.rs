//! HTTP: the listeners and their limits, and what is found under which path.
//!
//! Limits: connections open at once, bytes of a head and of a body, time for a head, for a body and for a connection.

mod caller;
mod clients;
mod letters;
mod messages;
mod pages;
mod problem;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::timeout;
use tower::ServiceExt;

use crate::api::Api;
use crate::line::Shards;
use crate::metrics::HttpFigures;
use crate::server::{BuildInfo, Settings, Status};
use crate::tokens::Tokens;
use problem::Problem;

/// What is said of what is below `/v1`, for programs that write programs.
const OPENAPI: &str = include_str!("openapi.json");

/// What all requests share.
#[derive(Debug)]
pub(crate) struct Server {
    pub status: watch::Receiver<Status>,
    pub shards: watch::Receiver<Arc<Shards>>,
    pub tokens: watch::Receiver<Option<Arc<Tokens>>>,
    pub api: Api,
    pub build: BuildInfo,
    pub settings: Settings,
    pub started: Instant,
    pub figures: Figures,
    /// Shards that take no turns, as far as the watch has seen.
    pub stalled: watch::Receiver<Vec<usize>>,
}

/// What is counted here.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// Connections.
    open: AtomicUsize,
    requests: AtomicU64,
    refused: AtomicU64,
    unanswered: AtomicU64,
}

impl Figures {
    fn read(&self) -> HttpFigures {
        let [requests, refused, unanswered] =
            [&self.requests, &self.refused, &self.unanswered].map(|figure| figure.load(Ordering::Relaxed));
        HttpFigures { requests, refused, unanswered }
    }
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
struct Peer(SocketAddr);

/// Takes connections on these, for as long as the runtime lives.
pub(crate) fn serve(server: Arc<Server>, listeners: Vec<TcpListener>) {
    let router = router(&server);
    for listener in listeners {
        match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => drop(tokio::spawn(accept(Arc::clone(&server), router.clone(), listener))),
            Err(error) => tracing::error!(%error, "an HTTP listener could not be registered"),
        }
    }
}

fn router(server: &Arc<Server>) -> Router {
    Router::new()
        .route("/ready", get(pages::ready))
        .route("/health", get(pages::health))
        .route("/metrics", get(pages::metrics))
        .route("/v1/openapi.json", get(async || ([(header::CONTENT_TYPE, "application/json")], OPENAPI)))
        .route("/v1/messages", post(messages::publish))
        .route("/v1/clients", get(clients::list))
        .route("/v1/clients/{client}", get(clients::show))
        .route("/v1/clients/{client}/disconnect", post(clients::disconnect))
        .route("/v1/dead-letters", get(letters::list).post(letters::import))
        .route("/v1/dead-letters/lease", post(letters::lease))
        .route("/v1/dead-letters/{letter}", get(letters::show))
        .route("/v1/dead-letters/{letter}/requeue", post(letters::requeue))
        .route("/v1/dead-letters/{letter}/drop", post(letters::drop_letter))
        .route("/v1/dead-letters/{letter}/park", post(letters::park))
        .route("/v1/dead-letters/{letter}/unpark", post(letters::unpark))
        .route("/v1/dead-letters/{letter}/release", post(letters::release))
        .fallback(async || {
            Problem::new(
                StatusCode::NOT_FOUND,
                "not_found",
                "there are /ready, /health, /metrics, /v1/messages, /v1/clients and /v1/dead-letters",
            )
        })
        .method_not_allowed_fallback(async || {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this path has no such method")
        })
        .with_state(Arc::clone(server))
}

async fn accept(server: Arc<Server>, router: Router, listener: tokio::net::TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) if server.figures.open.load(Ordering::Relaxed) < server.settings.connections_max => {
                server.figures.open.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(connection(Open(Arc::clone(&server)), router.clone(), stream, Peer(peer)));
            }
            Ok(_) => drop(server.figures.refused.fetch_add(1, Ordering::Relaxed)),
            Err(error) => {
                // Out of descriptors, or the peer was faster: wait, or this loop would spin.
                tracing::debug!(%error, "accept failed on an HTTP listener");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Counts a connection as open for as long as it lives.
struct Open(Arc<Server>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.figures.open.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn connection(open: Open, router: Router, stream: tokio::net::TcpStream, peer: Peer) {
    let server = Arc::clone(&open.0);
    let settings = server.settings;
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        server.figures.requests.fetch_add(1, Ordering::Relaxed);
        request.extensions_mut().insert(peer);
        let router = router.clone();
        async move {
            if has_needless_body(&request) {
                return Ok(closing(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "this takes no body")));
            }
            router.oneshot(request).await
        }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.request_timeout)
        .max_buf_size(settings.request_bytes_max.max(8192))
        .serve_connection(TokioIo::new(stream), service);
    let mut served = std::pin::pin!(served);
    let mut ended = timeout(settings.connection_age_max, served.as_mut()).await;
    if ended.is_err() {
        // No more requests; the answer to the last one may still come.
        tracing::debug!("an HTTP connection reached its maximum age");
        served.as_mut().graceful_shutdown();
        ended = timeout(settings.publish_timeout, served).await;
    }
    if let Ok(Err(error)) = ended {
        tracing::debug!(%error, "an HTTP connection ended");
    }
    drop(open);
}

fn json_page(body: &impl Serialize) -> Response {
    let text = serde_json::to_string(body).expect("texts and flags") + "\n";
    let mut page = text.into_response();
    page.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    page
}

fn has_needless_body(request: &hyper::Request<Incoming>) -> bool {
    matches!(*request.method(), Method::GET | Method::HEAD) && request.body().size_hint().upper() != Some(0)
}

/// Nobody reads what follows.
fn closing(problem: Problem) -> Response {
    let mut response = problem.into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The routes stand in this file, one in a line.
    #[test]
    fn the_document_describes_every_route_and_no_other() {
        let routes = include_str!("mod.rs").lines().filter_map(|line| line.trim().strip_prefix(".route(\""));
        let of_route = |line: &'static str| {
            let (path, rest) = line.split_once("\", ").expect("a path, then what serves it");
            let methods = rest.split(").").filter_map(|served| served.split_once('('));
            methods.map(move |(method, _)| (path.to_owned(), method.to_owned())).collect::<Vec<_>>()
        };
        let routes: BTreeSet<(String, String)> =
            routes.flat_map(of_route).filter(|(path, _)| path.starts_with("/v1/")).collect();
        let document: serde_json::Value = serde_json::from_str(OPENAPI).expect("JSON");
        let paths = document["paths"].as_object().expect("paths");
        let methods = paths.iter().flat_map(|(path, item)| {
            item.as_object().expect("methods").keys().map(move |method| (path.clone(), method.clone()))
        });
        assert_eq!(methods.collect::<BTreeSet<_>>(), routes);
    }
}
