//! Who calls.
//!
//! With `api.tokens_file` it is who shows a token, wherever it comes from. Without, it is a program on this machine; a web
//! page in a browser on this machine is not one, and it can neither hide where it comes from (`Origin`) nor, if its name was
//! made to point here, what it was looking for (`Host`).

use std::net::IpAddr;

use axum::http::{HeaderMap, StatusCode, header};

use super::problem::Problem;
use super::{Peer, Server};
use crate::publication::Caller;
use crate::tokens::Right;

impl Server {
    /// Who calls, or why it may not.
    pub(super) fn caller(&self, peer: Peer, headers: &HeaderMap, right: Right) -> Result<Caller, Problem> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let Some(tokens) = self.tokens.borrow().clone() else {
            return local(peer, text(header::HOST), headers.contains_key(header::ORIGIN));
        };
        let secret = text(header::AUTHORIZATION).and_then(|shown| shown.split_once(' '));
        let secret =
            secret.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, secret)| secret.trim());
        let Some(holder) = secret.and_then(|secret| tokens.holder(secret)) else {
            let why = "show a token of api.tokens_file: Authorization: Bearer prt_…";
            return Err(Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", why));
        };
        if !holder.rights.contains(&right) {
            let why = format!("this token has not the right {:?}", right.name());
            return Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", why));
        }
        Ok(holder.caller.clone())
    }
}

fn local(Peer(peer): Peer, host: Option<&str>, has_origin: bool) -> Result<Caller, Problem> {
    let forbidden = |detail| Err(Problem::new(StatusCode::FORBIDDEN, "forbidden", detail));
    if !peer.ip().to_canonical().is_loopback() {
        return forbidden("the API is for this machine alone until api.tokens_file is set");
    }
    if has_origin || !host.is_some_and(is_local_name) {
        return forbidden(
            "without api.tokens_file the API is not for web pages, and only under a loopback address or localhost",
        );
    }
    Ok(Caller::local())
}

/// `localhost`, `127.0.0.1:8080`, `[::1]:8080` and the like.
fn is_local_name(host: &str) -> bool {
    let without_port = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    };
    let is_loopback = without_port.parse().is_ok_and(|ip: IpAddr| ip.is_loopback());
    is_loopback || without_port.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_programs_on_this_machine_need_no_token() {
        let here = Peer("127.0.0.1:5000".parse().expect("an address"));
        let mapped = Peer("[::ffff:127.0.0.1]:5000".parse().expect("an address"));
        let elsewhere = Peer("192.0.2.7:5000".parse().expect("an address"));
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "127.9.9.9", "[::1]:8080"] {
            assert_eq!(local(here, Some(host), false), Ok(Caller::local()), "{host}");
            assert_eq!(local(mapped, Some(host), false), Ok(Caller::local()), "{host}");
            assert!(local(elsewhere, Some(host), false).is_err(), "{host}");
            assert!(local(here, Some(host), true).is_err(), "a web page, {host}");
        }
        for host in [None, Some(""), Some("evil.example:8080"), Some("127.0.0.1.evil.example"), Some("192.0.2.7")] {
            assert!(local(here, host, false).is_err(), "{host:?}");
        }
    }
}
