//! What went wrong, in the words that all transports share; each has its own numbers for it (`http::problem`, `grpc::status`).

use std::borrow::Cow;

use postroad_base::ReasonCode;

use crate::api::NoAnswer;
use crate::publication::Outcome;

/// An error answer: [`Problem::reason`] is for programs, `detail` for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    pub kind: Kind,
    pub detail: Cow<'static, str>,
}

/// What kind of problem: closed, so that each transport says of each what it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The request can't be.
    Bad,
    /// No token, or an unknown one.
    Unauthorized,
    /// Not from there, or not with this token.
    Forbidden,
    NotFound,
    MethodNotAllowed,
    UnsupportedMediaType,
    /// The request did not come in time.
    Timeout,
    TooLarge,
    UnknownClient,
    /// Nobody acknowledges in the place of a client that is here.
    ClientConnected,
    /// There is no such consumer group.
    UnknownGroup,
    /// There is no such dead letter, or message that waits for its time (any more).
    Gone,
    /// A message that is to be published later is being published: it can't be taken back.
    Published,
    /// A dead letter's client is nobody any more.
    NoClient,
    /// What is asked for can't be kept: there is no room on the disk, or none for its kind.
    NoStorage,
    /// The configuration can't be used; the text says why, and nothing is changed.
    ReloadRefused,
    /// `auth.file` says otherwise of a client.
    NamedByFile,
    /// The connection is as old as it may become.
    ConnectionAge,
    /// The broker refused the message.
    Refused(ReasonCode),
    /// Too much to do.
    Busy,
    /// The server is starting or stopping.
    NotServing,
    /// Nobody knows whether it was done.
    Unknown,
}

impl Problem {
    pub fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, detail: detail.into() }
    }

    pub fn bad(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::Bad, detail)
    }

    /// Why a message was not published, or may not have been; `None` if it was.
    pub fn of(outcome: Outcome) -> Option<Self> {
        let (kind, detail) = match outcome {
            Outcome::Published { .. } => return None,
            Outcome::Refused(reason) => (Kind::Refused(reason), refusal(reason)),
            Outcome::Busy => (Kind::Busy, "not published: the server has more to do than it can; try again"),
            Outcome::NotServing => (Kind::NotServing, "not published: the server is starting or stopping; try again"),
            Outcome::Unknown => (Kind::Unknown, "no answer came in time: it may have been published, or be later"),
        };
        Some(Self::new(kind, detail))
    }

    /// The word for programs.
    pub fn reason(&self) -> &'static str {
        match self.kind {
            Kind::Bad => "bad_request",
            Kind::Unauthorized => "unauthorized",
            Kind::Forbidden => "forbidden",
            Kind::NotFound => "not_found",
            Kind::MethodNotAllowed => "method_not_allowed",
            Kind::UnsupportedMediaType => "unsupported_media_type",
            Kind::Timeout => "timeout",
            Kind::TooLarge => "too_large",
            Kind::UnknownClient => "unknown_client",
            Kind::ClientConnected => "client_connected",
            Kind::UnknownGroup => "unknown_group",
            Kind::Gone => "gone",
            Kind::NoClient => "no_client",
            Kind::Published => "published",
            Kind::ReloadRefused => "reload_refused",
            Kind::NamedByFile => "named_by_file",
            Kind::NoStorage => ReasonCode::QuotaExceeded.name(),
            Kind::ConnectionAge => "connection_age",
            Kind::Refused(ReasonCode::PacketIdentifierInUse) => "key_conflict",
            Kind::Refused(ReasonCode::ImplementationSpecificError) => "too_late",
            Kind::Refused(reason) => reason.name(),
            Kind::Busy | Kind::NotServing => "busy",
            Kind::Unknown => "unknown",
        }
    }
}

fn refusal(reason: ReasonCode) -> &'static str {
    match reason {
        ReasonCode::NotAuthorized => "the access rules do not allow it",
        ReasonCode::TopicNameInvalid => "the topic has too many levels, or is that of a client which nobody has seen",
        ReasonCode::QuotaExceeded => {
            "a recipient's queue or the disk is full, there is no room to retain it or to keep it until it is due, or there are too many idempotency keys"
        }
        ReasonCode::PacketIdentifierInUse => "another message was published under this idempotency key",
        ReasonCode::ImplementationSpecificError => "it is to be published later than scheduled.delay_max allows",
        ReasonCode::PacketTooLarge => "the payload is above mqtt.packet_bytes_max",
        ReasonCode::UnspecifiedError => {
            "the access rules do not allow it, or its topic can't be (at QoS 0 nobody says which)"
        }
        _ => "the server refused it",
    }
}

impl From<NoAnswer> for Problem {
    fn from(why: NoAnswer) -> Self {
        match why {
            NoAnswer::NotServing => Self::new(Kind::NotServing, "the server is starting or stopping"),
            NoAnswer::NoShard => Self::bad("after: no cursor of this server; begin without"),
            NoAnswer::NotTaken => Self::new(Kind::Busy, "a shard has more to do than it can; nothing was done"),
            NoAnswer::Late => {
                Self::new(Kind::Unknown, "a shard did not answer in time: what was asked may have been done")
            }
        }
    }
}
