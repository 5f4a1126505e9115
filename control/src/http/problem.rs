//! What went wrong, as RFC 9457 has it.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use postroad_base::ReasonCode;
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use crate::problem::{Kind, Problem};

impl Kind {
    /// Its number in HTTP.
    pub fn http(self) -> StatusCode {
        match self {
            Self::Bad => StatusCode::BAD_REQUEST,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Forbidden | Self::Refused(ReasonCode::NotAuthorized) => StatusCode::FORBIDDEN,
            Self::NotFound | Self::UnknownClient | Self::UnknownGroup | Self::Gone => StatusCode::NOT_FOUND,
            Self::NoClient
            | Self::Published
            | Self::ClientConnected
            | Self::NamedByFile
            | Self::ReloadRefused
            | Self::Refused(ReasonCode::PacketIdentifierInUse) => StatusCode::CONFLICT,
            Self::NoStorage => StatusCode::INSUFFICIENT_STORAGE,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge | Self::Refused(ReasonCode::PacketTooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Refused(ReasonCode::QuotaExceeded) => StatusCode::TOO_MANY_REQUESTS,
            // Whatever else the broker has against a message, it is no fault of the server.
            Self::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Busy | Self::NotServing | Self::ConnectionAge => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unknown => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let status = self.kind.http();
        let mut problem = serializer.serialize_struct("Problem", 4)?;
        problem.serialize_field("title", status.canonical_reason().unwrap_or("error"))?;
        problem.serialize_field("status", &status.as_u16())?;
        problem.serialize_field("reason", self.reason())?;
        problem.serialize_field("detail", &self.detail)?;
        problem.end()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let code = self.kind.http();
        let body = serde_json::to_string(&self).expect("texts and a number") + "\n";
        let mut response = (code, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if matches!(code, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if code == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reasons without a number of their own were 500, of which the document knows nothing: builds with assertions panicked.
    #[test]
    fn whatever_a_message_is_refused_for_the_document_knows_the_answer() {
        let known = [403, 409, 413, 422, 429];
        for &reason in ReasonCode::ALL.iter().filter(|reason| reason.is_error()) {
            let status = Kind::Refused(reason).http().as_u16();
            assert!(known.contains(&status), "{reason:?}: {status}");
        }
        for path in ["/v1/messages", "/v1/dead-letters/{letter}/requeue"] {
            for status in known {
                assert!(super::super::document::knows(path, "POST", status), "{path} {status}");
            }
        }
    }
}
