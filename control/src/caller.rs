//! Who calls.
//!
//! With `api.tokens_file` it is who shows a token, wherever it comes from. Without, it is a program on this machine; a web
//! page in a browser on this machine is not one, and it can neither hide where it comes from (`Origin`) nor, if its name was
//! made to point here, what it was looking for (`Host`).

use std::net::IpAddr;

use hyper::HeaderMap;
use hyper::header;

use crate::problem::{Kind, Problem};
use crate::publication::Caller;
use crate::shared::{Peer, Server};
use crate::tokens::Right;

impl Server {
    /// Who calls by HTTP, or why it may not.
    pub fn http_caller(&self, peer: Peer, headers: &HeaderMap, right: Right) -> Result<Caller, Problem> {
        match self.holder(headers, right)? {
            Some(caller) => Ok(caller),
            None => local(peer, headers).and_then(|caller| under_a_local_name(headers).map(|()| caller)),
        }
    }

    /// Who calls by gRPC, or why it may not. No page can be made to speak HTTP/2 without TLS, so under which name it was found
    /// says nothing.
    pub fn grpc_caller(&self, peer: Peer, headers: &HeaderMap, right: Right) -> Result<Caller, Problem> {
        match self.holder(headers, right)? {
            Some(caller) => Ok(caller),
            None => local(peer, headers),
        }
    }

    /// Whose token is shown; `None` where none is asked for.
    fn holder(&self, headers: &HeaderMap, right: Right) -> Result<Option<Caller>, Problem> {
        let Some(tokens) = self.tokens.borrow().clone() else { return Ok(None) };
        let secret = text(headers, header::AUTHORIZATION).and_then(|shown| shown.split_once(' '));
        let secret =
            secret.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, secret)| secret.trim());
        let Some(holder) = secret.and_then(|secret| tokens.holder(secret)) else {
            let why = "show a token of api.tokens_file: Authorization: Bearer prt_…";
            return Err(Problem::new(Kind::Unauthorized, why));
        };
        if !holder.rights.contains(&right) {
            let why = format!("this token has not the right {:?}", right.name());
            return Err(Problem::new(Kind::Forbidden, why));
        }
        Ok(Some(holder.caller.clone()))
    }
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn local(Peer(peer): Peer, headers: &HeaderMap) -> Result<Caller, Problem> {
    if !peer.ip().to_canonical().is_loopback() {
        return Err(Problem::new(Kind::Forbidden, "the API is for this machine alone until api.tokens_file is set"));
    }
    if headers.contains_key(header::ORIGIN) {
        return Err(not_for_pages());
    }
    Ok(Caller::local())
}

fn under_a_local_name(headers: &HeaderMap) -> Result<(), Problem> {
    text(headers, header::HOST).filter(|host| is_local_name(host)).map(|_| ()).ok_or_else(not_for_pages)
}

fn not_for_pages() -> Problem {
    let why = "without api.tokens_file the API is not for web pages, and only under a loopback address or localhost";
    Problem::new(Kind::Forbidden, why)
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

    fn headers(host: Option<&'static str>, origin: Option<&'static str>) -> HeaderMap {
        let given = [(header::HOST, host), (header::ORIGIN, origin)];
        let given = given.into_iter().filter_map(|(name, text)| Some((name, header::HeaderValue::from_static(text?))));
        given.collect()
    }

    #[test]
    fn only_programs_on_this_machine_need_no_token() {
        let here = Peer("127.0.0.1:5000".parse().expect("an address"));
        let mapped = Peer("[::ffff:127.0.0.1]:5000".parse().expect("an address"));
        let elsewhere = Peer("192.0.2.7:5000".parse().expect("an address"));
        let program = headers(Some("localhost"), None);
        assert_eq!(local(here, &program), Ok(Caller::local()));
        assert_eq!(local(mapped, &program), Ok(Caller::local()));
        assert!(local(elsewhere, &program).is_err());
        assert!(local(here, &headers(Some("localhost"), Some("http://localhost:8080"))).is_err(), "a web page");
    }

    #[test]
    fn a_name_that_was_made_to_point_here_is_none_of_ours() {
        for host in ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "127.9.9.9", "[::1]:8080"] {
            assert_eq!(under_a_local_name(&headers(Some(host), None)), Ok(()), "{host}");
        }
        for host in [None, Some(""), Some("evil.example:8080"), Some("127.0.0.1.evil.example"), Some("192.0.2.7")] {
            assert!(under_a_local_name(&headers(host, None)).is_err(), "{host:?}");
        }
    }
}
