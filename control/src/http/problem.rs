//! What went wrong, as RFC 9457 has it, with the MQTT reason where there is one.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use postroad_base::ReasonCode;
use serde::Serialize;

use crate::publication::Outcome;

/// An error answer. `reason` is for programs, `detail` for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    pub title: &'static str,
    pub status: u16,
    pub reason: &'static str,
    pub detail: String,
}

impl Problem {
    pub fn new(status: StatusCode, reason: &'static str, detail: impl Into<String>) -> Self {
        let title = status.canonical_reason().unwrap_or("error");
        Self { title, status: status.as_u16(), reason, detail: detail.into() }
    }

    pub fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_request", detail)
    }

    /// Why a message was not published, or may not have been; `None` if it was.
    pub fn of(outcome: Outcome) -> Option<Self> {
        let refused = |status, reason: ReasonCode, detail| Some(Self::new(status, reason.name(), detail));
        match outcome {
            Outcome::Published { .. } => None,
            Outcome::Refused(reason @ ReasonCode::NotAuthorized) => {
                refused(StatusCode::FORBIDDEN, reason, "the access rules do not allow it")
            }
            Outcome::Refused(reason @ ReasonCode::TopicNameInvalid) => refused(
                StatusCode::UNPROCESSABLE_ENTITY,
                reason,
                "the topic has too many levels, or is that of a client which nobody has seen",
            ),
            Outcome::Refused(reason @ ReasonCode::QuotaExceeded) => refused(
                StatusCode::TOO_MANY_REQUESTS,
                reason,
                "a recipient's queue or the disk is full, or there is no room to retain it",
            ),
            Outcome::Refused(reason @ ReasonCode::PacketTooLarge) => {
                refused(StatusCode::PAYLOAD_TOO_LARGE, reason, "the payload is above mqtt.packet_bytes_max")
            }
            Outcome::Refused(reason @ ReasonCode::UnspecifiedError) => refused(
                StatusCode::UNPROCESSABLE_ENTITY,
                reason,
                "the access rules do not allow it, or its topic can't be (at QoS 0 nobody says which)",
            ),
            Outcome::Refused(reason) => refused(StatusCode::INTERNAL_SERVER_ERROR, reason, "the server refused it"),
            Outcome::Busy => Some(Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "busy",
                "not published: the server is starting, stopping, or has more to do than it can; try again",
            )),
            Outcome::Unknown => Some(Self::new(
                StatusCode::GATEWAY_TIMEOUT,
                "unknown",
                "no answer came in time: it may have been published, or be later",
            )),
        }
    }

    pub fn code(&self) -> StatusCode {
        StatusCode::from_u16(self.status).expect("made from one")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let code = self.code();
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
