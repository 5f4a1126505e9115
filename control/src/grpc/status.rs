//! What went wrong, as gRPC has it: a code, and for programs an `ErrorInfo` of google.rpc with the reason.

use std::collections::HashMap;

use axum::body::Body;
use axum::http::Response;
use postroad_base::ReasonCode;
use postroad_proto::v1;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::problem::{Kind, Problem};

/// Whose reasons these are.
const DOMAIN: &str = "postroad";

impl Kind {
    /// Its code in gRPC.
    pub fn grpc(self) -> Code {
        match self {
            Self::Refused(ReasonCode::PacketIdentifierInUse) => Code::AlreadyExists,
            Self::Bad
            | Self::Refused(
                ReasonCode::TopicNameInvalid | ReasonCode::PacketTooLarge | ReasonCode::ImplementationSpecificError,
            ) => Code::InvalidArgument,
            Self::Unauthorized => Code::Unauthenticated,
            Self::Forbidden | Self::Refused(ReasonCode::NotAuthorized) => Code::PermissionDenied,
            Self::NotFound | Self::MethodNotAllowed | Self::UnsupportedMediaType => Code::Unimplemented,
            Self::UnknownClient | Self::UnknownGroup | Self::Gone => Code::NotFound,
            Self::TooLarge | Self::Busy | Self::NoStorage | Self::Refused(ReasonCode::QuotaExceeded) => {
                Code::ResourceExhausted
            }
            Self::NoClient
            | Self::Published
            | Self::ClientConnected
            | Self::NamedByFile
            | Self::ReloadRefused
            | Self::Refused(_) => Code::FailedPrecondition,
            Self::NotServing | Self::ConnectionAge => Code::Unavailable,
            Self::Timeout | Self::Unknown => Code::DeadlineExceeded,
        }
    }
}

impl From<Problem> for Status {
    fn from(problem: Problem) -> Self {
        let details = ErrorDetails::with_error_info(problem.reason(), DOMAIN, HashMap::new());
        Self::with_error_details(problem.kind.grpc(), problem.detail, details)
    }
}

impl From<Problem> for v1::Error {
    fn from(problem: Problem) -> Self {
        Self {
            code: problem.kind.grpc() as i32,
            reason: problem.reason().to_owned(),
            detail: problem.detail.into_owned(),
        }
    }
}

/// What tonic has against a request, in our words.
pub(super) fn problem_of(status: &Status) -> Option<Problem> {
    let kind = match status.code() {
        Code::OutOfRange | Code::ResourceExhausted => Kind::TooLarge,
        Code::InvalidArgument | Code::Internal => Kind::Bad,
        Code::Unimplemented => Kind::NotFound,
        _ => return None,
    };
    Some(Problem::new(kind, status.message().to_owned()))
}

/// An answer that tonic refused with is given as ours are: with a reason.
pub(super) fn with_reason(response: Response<Body>) -> Response<Body> {
    let is_ours = response.headers().contains_key("grpc-status-details-bin");
    let status = Status::from_header_map(response.headers()).filter(|_| !is_ours);
    match status.as_ref().and_then(problem_of) {
        Some(problem) => Status::from(problem).into_http(),
        None => response,
    }
}
