//! What is said over a connection, in whichever protocol: each call goes to the session of MQTT or to that of frames.

use std::borrow::Cow;

use bytes::Bytes;
use postroad_base::{ClientId, ConnectionId, MonoMillis, Now, ReasonCode, Tag};
use postroad_broker::api::{Connect, Delivery, DisconnectCause, Event, Principal};
use postroad_protocol::frame::Codec;
use postroad_protocol::gather::Gather;
use postroad_session::framed::{self, Broken};
use postroad_session::mqtt::{self, Limits, Received};

/// A client that introduced itself.
pub(crate) enum Request {
    Mqtt(mqtt::ConnectRequest),
    Framed(framed::ConnectRequest),
}

impl Request {
    /// The name that it has chosen.
    pub(crate) fn client(&self) -> Option<&ClientId> {
        match self {
            Self::Mqtt(request) => request.client.as_ref(),
            Self::Framed(request) => Some(&request.client),
        }
    }

    pub(crate) fn username(&self) -> Option<&str> {
        match self {
            Self::Mqtt(request) => request.username.as_deref(),
            Self::Framed(request) => request.username.as_deref(),
        }
    }

    pub(crate) fn password(&self) -> Option<&[u8]> {
        match self {
            Self::Mqtt(request) => request.password.as_deref(),
            Self::Framed(request) => request.password.as_deref(),
        }
    }

    /// What to say to who is not let in.
    pub(crate) fn refuse(&self, codec: &mut dyn Codec, reason: ReasonCode, detail: &str) -> Vec<u8> {
        match self {
            Self::Mqtt(request) => request.refuse(reason, detail),
            Self::Framed(request) => request.refuse(codec, reason),
        }
    }
}

/// The session's part of a connection that is served.
pub(crate) enum Session {
    Mqtt(Box<mqtt::Connection>),
    Framed(Box<framed::Connection>),
}

/// A connection has to end.
#[derive(Clone, Debug)]
pub(crate) struct Ending {
    pub(crate) cause: DisconnectCause,
    pub(crate) reason: ReasonCode,
    pub(crate) detail: Cow<'static, str>,
    pub(crate) by_client: bool,
    /// What was broken in frames.
    pub(crate) broken: Option<Broken>,
}

impl From<mqtt::Closing> for Ending {
    fn from(closing: mqtt::Closing) -> Self {
        let mqtt::Closing { cause, reason, detail, by_client } = closing;
        Self { cause, reason, detail: Cow::Borrowed(detail), by_client, broken: None }
    }
}

impl From<framed::End> for Ending {
    fn from(end: framed::End) -> Self {
        let framed::End { cause, reason, broken, detail, by_client } = end;
        Self { cause, reason, detail: Cow::Owned(detail), by_client, broken }
    }
}

/// What became of a delivery.
pub(crate) enum Delivered {
    /// It is in the output; maybe the broker has to know more.
    Sent(Option<Event>),
    /// Its client does not take it; the broker is to treat it as refused.
    Refused(Option<Event>),
}

impl Session {
    /// Starts it, and says what to ask the broker for.
    pub(crate) fn begin(
        id: ConnectionId,
        request: Request,
        client: ClientId,
        principal: Principal,
        limits: &Limits,
        now: Now,
    ) -> (Self, Connect) {
        match request {
            Request::Mqtt(request) => {
                let (session, connect) = mqtt::Connection::new(id, request, client, principal, limits, now);
                (Self::Mqtt(Box::new(session)), connect)
            }
            Request::Framed(request) => {
                let expiry = limits.session_expiry_max;
                let (session, connect) = framed::Connection::new(id, request, principal, expiry, now);
                (Self::Framed(Box::new(session)), connect)
            }
        }
    }

    pub(crate) fn is_connected(&self) -> bool {
        match self {
            Self::Mqtt(session) => session.is_connected(),
            Self::Framed(session) => session.is_connected(),
        }
    }

    pub(crate) fn deadline(&self) -> Option<MonoMillis> {
        match self {
            Self::Mqtt(session) => session.deadline(),
            Self::Framed(session) => session.deadline(),
        }
    }

    pub(crate) fn on_deadline(&self, now: Now) -> Option<Ending> {
        match self {
            Self::Mqtt(session) => session.on_deadline(now).map(Ending::from),
            Self::Framed(session) => session.on_deadline(now).map(Ending::from),
        }
    }

    /// When a packet or frame came last, or the connection was parked last.
    pub(crate) fn last_heard(&self) -> MonoMillis {
        match self {
            Self::Mqtt(session) => session.last_packet(),
            Self::Framed(session) => session.last_frame(),
        }
    }

    pub(crate) fn touch(&mut self, now: Now) {
        match self {
            Self::Mqtt(session) => session.touch(now),
            Self::Framed(session) => session.touch(now),
        }
    }

    /// Takes the packet or frame at the start of `bytes`; see `mqtt::Connection::receive_own` for `own`.
    pub(crate) fn receive(
        &mut self,
        codec: &mut dyn Codec,
        now: Now,
        (bytes, own): (&[u8], &Bytes),
        limits: &Limits,
        out: &mut Gather,
    ) -> Result<Received, Ending> {
        match self {
            Self::Mqtt(session) if own.is_empty() => Ok(session.receive(now, bytes, limits, out)?),
            Self::Mqtt(session) => Ok(session.receive_own(now, own, limits, out)?),
            Self::Framed(session) => session.receive(codec, now, bytes, out).map_err(|end| (*end).into()),
        }
    }

    pub(crate) fn connected(
        &mut self,
        codec: &mut dyn Codec,
        (session_present, inbound): (bool, &[Tag]),
        limits: &Limits,
        out: &mut Gather,
    ) {
        match self {
            Self::Mqtt(session) => session.connected(session_present, inbound, limits, out),
            Self::Framed(session) => session.connected(codec, out),
        }
    }

    pub(crate) fn connect_refused(&mut self, codec: &mut dyn Codec, reason: ReasonCode, out: &mut Gather) {
        match self {
            Self::Mqtt(session) => session.connect_refused(reason, out),
            Self::Framed(session) => session.connect_refused(codec, reason, out),
        }
    }

    pub(crate) fn refusal_ends(&self, reason: ReasonCode) -> Option<Ending> {
        match self {
            Self::Mqtt(session) => session.refusal_ends(reason).map(Ending::from),
            Self::Framed(session) => session.refusal_ends(reason).map(Ending::from),
        }
    }

    pub(crate) fn published(&mut self, codec: &mut dyn Codec, tag: Tag, reason: ReasonCode, out: &mut Gather) {
        match self {
            Self::Mqtt(session) => session.published(tag, reason, out),
            Self::Framed(session) => session.published(codec, tag, reason, out),
        }
    }

    pub(crate) fn close(&mut self, codec: &mut dyn Codec, reason: ReasonCode, detail: &str, out: &mut Gather) {
        match self {
            Self::Mqtt(session) => session.close(reason, detail, out),
            Self::Framed(session) => session.close(codec, reason, out),
        }
    }

    pub(crate) fn deliver(
        &mut self,
        codec: &mut dyn Codec,
        now: Now,
        delivery: &Delivery,
        out: &mut Gather,
    ) -> Delivered {
        match self {
            Self::Mqtt(session) => match session.deliver(now, delivery, out) {
                mqtt::Delivered::Sent => Delivered::Sent(None),
                mqtt::Delivered::TooLarge(event) => Delivered::Refused(event),
            },
            Self::Framed(session) => match session.deliver(codec, delivery, out) {
                framed::Delivered::Sent(event) => Delivered::Sent(event),
                framed::Delivered::Unfit(event) => Delivered::Refused(event),
            },
        }
    }

    /// As MQTT. What only MQTT has is asked for by no device of frames.
    pub(crate) fn mqtt(&mut self) -> Option<&mut mqtt::Connection> {
        match self {
            Self::Mqtt(session) => Some(session),
            Self::Framed(_) => None,
        }
    }
}
