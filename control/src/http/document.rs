//! The OpenAPI document of what is below `/v1`, for programs that write programs; and that it is true.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use axum::extract::{MatchedPath, Request};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;

pub(super) const OPENAPI: &str = include_str!("openapi.json");

/// Path, method and status of each answer in it.
static ANSWERS: LazyLock<BTreeSet<(String, String, u16)>> = LazyLock::new(|| {
    let document: serde_json::Value = serde_json::from_str(OPENAPI).expect("JSON");
    let mut answers = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().expect("paths") {
        for (method, operation) in methods.as_object().expect("methods") {
            let statuses = operation["responses"].as_object().expect("answers").keys();
            answers
                .extend(statuses.map(|status| {
                    (path.clone(), method.to_uppercase(), status.parse().expect("a status is a number"))
                }));
        }
    }
    answers
});

/// Whether it has this answer.
pub(super) fn knows(path: &str, method: &str, status: u16) -> bool {
    ANSWERS.contains(&(path.to_owned(), method.to_owned(), status))
}

/// Whether it is asserted: in builds with assertions, and where tests run a release.
pub(super) fn is_asserted() -> bool {
    cfg!(debug_assertions) || std::env::var_os("POSTROAD_ASSERT_ANSWERS").is_some()
}

/// An answer that the document does not know of is our fault.
pub(super) async fn assert_is_known(path: MatchedPath, request: Request, next: Next) -> Response {
    let method = request.method().to_string();
    let answer = next.run(request).await;
    let (path, status) = (path.as_str(), answer.status());
    let is_told = !path.starts_with("/v1/")
        || status == StatusCode::METHOD_NOT_ALLOWED
        || knows(path, &method.replace("HEAD", "GET"), status.as_u16());
    assert!(is_told, "openapi.json does not say that {method} {path} answers {status}");
    answer
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn operations() -> Vec<(String, String, Value)> {
        let document: Value = serde_json::from_str(OPENAPI).expect("JSON");
        let paths = document["paths"].as_object().expect("paths").clone();
        let of_path = |(path, methods): (String, Value)| {
            let methods = methods.as_object().expect("methods").clone();
            methods.into_iter().map(move |(method, operation)| (path.clone(), method, operation))
        };
        paths.into_iter().flat_map(of_path).collect()
    }

    /// The routes stand in `mod.rs`, one in a line.
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
        let described: BTreeSet<_> = operations().into_iter().map(|(path, method, _)| (path, method)).collect();
        assert_eq!(described, routes);
    }

    /// Answers that come of what all requests of a kind share, and that no test may happen to provoke. It lacked many of them.
    #[test]
    fn the_document_knows_what_is_answered_everywhere() {
        let public = ["/v1/openapi.json", "/v1/admin/status"];
        let without_shards = ["/v1/admin/", "/v1/messages/", "/v1/receipts", "/v1/trace"];
        let publishes = ["/v1/messages", "/v1/dead-letters/{letter}/requeue"];
        for (path, method, operation) in operations().iter().filter(|(path, ..)| !public.contains(&&**path)) {
            let mut statuses = vec![401, 403, 503];
            let (takes_body, parameters) = (operation["requestBody"].is_object(), &operation["parameters"]);
            if takes_body || parameters.is_array() {
                statuses.push(400);
            }
            if takes_body {
                statuses.extend([408, 413]);
            }
            if !without_shards.iter().any(|prefix| path.starts_with(prefix)) {
                statuses.push(504);
            }
            if publishes.contains(&&**path) {
                statuses.extend([409, 413, 422, 429]);
            }
            let missing = |status: &u16| !ANSWERS.contains(&(path.clone(), method.to_uppercase(), *status));
            let missing: Vec<u16> = statuses.into_iter().filter(missing).collect();
            assert!(missing.is_empty(), "{method} {path} lacks {missing:?}");
        }
    }
}
