//! HTTP: its limits, and what is found under which path.
//!
//! Limits: connections open at once, bytes of a head and of a body, time for a head, for a body and for a connection.

mod admin;
mod clients;
mod document;
mod events;
mod groups;
mod letters;
mod messages;
mod pages;
mod path;
mod pending;
mod plugins;
mod problem;
mod scheduled;
mod topics;
mod trace;

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderValue, Method, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tower::ServiceExt;

use crate::checks::{LIMIT, LIMIT_MAX};
use crate::listener::{Figures, Protocol, serve_to_its_end};
use crate::problem::{Kind, Problem};
use crate::shared::{Closing, Peer, Server};
use crate::unread::Unread;

/// HTTP/1.1 on a connection.
#[derive(Clone)]
pub(crate) struct Http(Router);

impl Http {
    pub fn new(server: &Arc<Server>) -> Self {
        Self(router(server))
    }
}

impl Protocol for Http {
    const NAME: &str = "http";

    fn figures(server: &Server) -> &Figures {
        &server.http
    }

    async fn speak(self, server: Arc<Server>, stream: TcpStream, peer: Peer) {
        let (settings, counting) = (server.settings, Arc::clone(&server));
        let (closing, is_closing) = watch::channel(false);
        let unread = Unread::default();
        let answered = unread.clone();
        let service = service_fn(move |mut request: hyper::Request<Incoming>| {
            counting.http.count_request();
            request.extensions_mut().insert(peer);
            request.extensions_mut().insert(Closing(is_closing.clone()));
            let (router, unread) = (self.0.clone(), answered.clone());
            async move {
                if has_needless_body(&request) {
                    return Ok(refusing(Problem::new(Kind::TooLarge, "this takes no body")));
                }
                router.oneshot(request).await.map(|answer| unread.watch(answer, None))
            }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(settings.request_timeout)
            .max_buf_size(settings.request_bytes_max.max(8192))
            .serve_connection(TokioIo::new(stream), service);
        let close = || {
            closing.send_replace(true);
        };
        serve_to_its_end::<Self, _>(connection, &server, &unread, close).await;
    }
}

fn router(server: &Arc<Server>) -> Router {
    let routes = routes();
    let routes = if document::is_asserted() {
        routes.route_layer(axum::middleware::from_fn(document::assert_is_known))
    } else {
        routes
    };
    routes.with_state(Arc::clone(server))
}

fn routes() -> Router<Arc<Server>> {
    Router::new()
        .route("/ready", get(pages::ready))
        .route("/health", get(pages::health))
        .route("/metrics", get(pages::metrics))
        .route("/v1/openapi.json", get(async || ([(header::CONTENT_TYPE, "application/json")], document::OPENAPI)))
        .route("/v1/messages", post(messages::publish))
        .route("/v1/messages/{message}", get(trace::life))
        .route("/v1/scheduled", get(scheduled::list))
        .route("/v1/scheduled/{message}", delete(scheduled::cancel))
        .route("/v1/receipts", get(trace::receipts))
        .route("/v1/trace", get(trace::watch))
        .route("/v1/clients", get(clients::list))
        .route("/v1/clients/{client}", get(clients::show).put(clients::register).delete(clients::unregister))
        .route("/v1/clients/{client}/drain", post(clients::drain))
        .route("/v1/clients/{client}/disconnect", post(clients::disconnect))
        .route("/v1/clients/{client}/messages", get(pending::list))
        .route("/v1/clients/{client}/messages/acknowledge", post(pending::acknowledge))
        .route("/v1/dead-letters", get(letters::list).post(letters::import))
        .route("/v1/dead-letters/lease", post(letters::lease))
        .route("/v1/dead-letters/{letter}", get(letters::show))
        .route("/v1/dead-letters/{letter}/requeue", post(letters::requeue))
        .route("/v1/dead-letters/{letter}/drop", post(letters::drop_letter))
        .route("/v1/dead-letters/{letter}/park", post(letters::park))
        .route("/v1/dead-letters/{letter}/unpark", post(letters::unpark))
        .route("/v1/dead-letters/{letter}/release", post(letters::release))
        .route("/v1/groups", get(groups::list))
        .route("/v1/groups/{group}", get(groups::show).put(groups::set).delete(groups::delete))
        .route("/v1/groups/{group}/take", post(groups::take))
        .route("/v1/groups/{group}/acknowledge", post(groups::acknowledge))
        .route("/v1/groups/{group}/refuse", post(groups::refuse))
        .route("/v1/groups/{group}/extend", post(groups::extend))
        .route("/v1/subscriptions", get(topics::subscriptions))
        .route("/v1/filters", get(topics::filters))
        .route("/v1/topics", get(topics::topics))
        .route("/v1/plugins", get(plugins::list))
        .route("/v1/plugins/history", get(plugins::history))
        .route("/v1/plugins/reload", post(plugins::reload))
        .route("/v1/plugins/rollback", post(plugins::rollback))
        .route("/v1/plugins/promote", post(plugins::promote))
        .route("/v1/plugins/abort", post(plugins::abort))
        .route("/v1/admin/status", get(admin::status))
        .route("/v1/admin/reload", post(admin::reload))
        .route("/v1/admin/drain", post(admin::drain))
        .fallback(async || {
            Problem::new(
                Kind::NotFound,
                "there are /ready, /health, /metrics, and below /v1 what /v1/openapi.json lists",
            )
        })
        .method_not_allowed_fallback(async || Problem::new(Kind::MethodNotAllowed, "this path has no such method"))
}

/// How many a page has.
fn limit_of(wanted: Option<usize>) -> Result<usize, Problem> {
    let limit = wanted.unwrap_or(LIMIT);
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(Problem::bad(format!("limit must be 1 to {LIMIT_MAX}")));
    }
    Ok(limit)
}

/// Where a page begins, if it is not the first one.
fn cursor_of<C>(after: Option<&str>, parse: impl Fn(&str) -> Option<C>) -> Result<Option<C>, Problem> {
    let wrong = || Problem::bad("after must be what a page before gave as next");
    after.map(|text| parse(text).ok_or_else(wrong)).transpose()
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
fn refusing(problem: Problem) -> Response {
    let mut response = problem.into_response();
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
