//! From accept to a complete CONNECT: runs on the accepting shard, before anything is known of the client. The
//! [`ConnectRequest`] that comes out owns all that it says, so that it can go to the client's home shard.

use std::num::{NonZeroU16, NonZeroU32};

use base::{ClientId, MonoMillis, ReasonCode, SessionExpiry, TopicName, Will};
use bytes::Bytes;
use bytestring::ByteString;
use postroad_base as base;
use postroad_protocol::mqtt::{
    ConnAck, Connect, DecodeError, Decoded, Packet, Version, WillPacket, connect_version, decode,
};

use super::{Limits, reasons};

/// A connection that has not said CONNECT yet.
#[derive(Debug)]
pub struct Handshake {
    accepted_at: MonoMillis,
}

/// How far the handshake is.
#[derive(Debug, PartialEq, Eq)]
pub enum HandshakeStep {
    /// CONNECT is not complete; come again with the same bytes and more.
    NeedMore,
    /// The client has introduced itself. What follows `consumed` is kept until after `Connection::connected`.
    Connect {
        /// What it said.
        request: Box<ConnectRequest>,
        /// Bytes of the CONNECT.
        consumed: usize,
    },
}

/// The client can't come in: write `answer`, close.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail} ({})", reason.name())]
pub struct Refusal {
    /// CONNACK in the client's version; empty if its version has none for this, or it does not speak MQTT.
    pub answer: Vec<u8>,
    /// Why.
    pub reason: ReasonCode,
    /// In words.
    pub detail: &'static str,
}

/// A CONNECT, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectRequest {
    /// What the client speaks.
    pub version: Version,
    /// Its name; `None`: the server has to give it one `[MQTT-3.1.3-6]`.
    pub client: Option<ClientId>,
    /// End the session that is there.
    pub clean_start: bool,
    /// As asked, in seconds; 0 is none.
    pub keep_alive: u16,
    /// User name.
    pub username: Option<ByteString>,
    /// Password; MQTT 5 allows it without a user name.
    pub password: Option<Bytes>,
    /// As asked. MQTT 3: 0 with clean session, else for ever.
    pub expiry: SessionExpiry,
    /// Unacknowledged deliveries that the client takes.
    pub receive_maximum: NonZeroU16,
    /// Largest packet that it takes.
    pub maximum_packet_size: Option<NonZeroU32>,
    /// Highest topic alias that it takes.
    pub topic_alias_maximum: u16,
    /// Whether it wants response information.
    pub request_response_information: bool,
    /// Whether it wants reason strings.
    pub request_problem_information: bool,
    /// What to publish if it vanishes.
    pub will: Option<Box<Will>>,
}

impl Handshake {
    /// Of a connection accepted at `now`.
    pub fn new(now: MonoMillis) -> Self {
        Self { accepted_at: now }
    }

    /// When the client has had time enough `[MQTT-3.1.4-1]`; close without an answer then.
    pub fn deadline(&self, limits: &Limits) -> MonoMillis {
        self.accepted_at.after(limits.connect_timeout_ms)
    }

    /// Looks for a CONNECT at the start of `bytes`, which is everything received so far.
    ///
    /// # Errors
    /// If the client can't come in; the connection is over once the answer is written.
    pub fn receive(&mut self, bytes: &[u8], limits: &Limits) -> Result<HandshakeStep, Refusal> {
        let bytes_max = limits.connect_bytes_max.min(limits.packet_bytes_max);
        match decode(bytes, None, bytes_max) {
            Ok(Decoded::Incomplete { .. }) => Ok(HandshakeStep::NeedMore),
            Ok(Decoded::Packet { packet: Packet::Connect(connect), size }) => {
                let request = Box::new(ConnectRequest::of(&connect)?);
                Ok(HandshakeStep::Connect { request, consumed: size })
            }
            Ok(Decoded::Packet { .. }) => Err(Refusal::silent(ReasonCode::ProtocolError, "first packet is not CONNECT")),
            Err(error) => Err(Refusal::of_error(error, bytes)),
        }
    }
}

impl Refusal {
    /// CONNACK with this reason, in words that `version` has. The session is never present `[MQTT-3.2.2-6]`.
    pub fn new(version: Version, reason: ReasonCode, detail: &'static str) -> Self {
        let mut answer = Vec::new();
        Packet::ConnAck(Box::new(ConnAck::new(false, reasons::of_connack(reason)))).encode(version, &mut answer);
        Self { answer, reason, detail }
    }

    fn silent(reason: ReasonCode, detail: &'static str) -> Self {
        Self { answer: Vec::new(), reason, detail }
    }

    /// MQTT 3 has no return code for a malformed CONNECT: it is closed without one (3.1.1, section 3.1.4, and
    /// `[MQTT-3.1.4-1]`). MQTT 5 is told (section 4.13).
    fn of_error(error: DecodeError, bytes: &[u8]) -> Self {
        let DecodeError { reason, detail } = error;
        let version = match reason {
            ReasonCode::UnsupportedProtocolVersion => foreign_version(bytes),
            _ => connect_version(bytes).filter(|version| version.is_v5()),
        };
        version.map_or_else(|| Self::silent(reason, detail), |version| Self::new(version, reason, detail))
    }
}

/// In which version to tell a client that its own is unknown: return code 1 for what is older than MQTT 5 (3.1.1,
/// `[MQTT-3.1.2-2]`), 0x84 for what is newer (5.0, `[MQTT-3.1.2-2]`). `None`: it is no MQTT at all `[MQTT-3.1.2-1]`.
fn foreign_version(bytes: &[u8]) -> Option<Version> {
    let length_size = 1 + bytes.get(1..)?.iter().take_while(|&byte| byte & 0x80 != 0).count();
    let rest = bytes.get(1 + length_size..)?;
    let (name, level) = match rest {
        [0, 4, name @ .., _] if name.len() >= 4 => (&name[..4], rest.get(6)?),
        _ => (rest.get(2..8)?, rest.get(8)?),
    };
    match (name, level) {
        (b"MQTT", 6..0x80) => Some(Version::V5),
        (b"MQTT", _) => Some(Version::V3_1_1),
        (b"MQIsdp", _) if rest.starts_with(&[0, 6]) => Some(Version::V3_1),
        _ => None,
    }
}

impl ConnectRequest {
    fn of(connect: &Connect<'_>) -> Result<Self, Refusal> {
        let version = connect.version;
        let properties = &connect.properties;
        if properties.authentication_method.is_some() {
            // No method is known [MQTT-4.12.0-1].
            let reason = ReasonCode::BadAuthenticationMethod;
            return Err(Refusal::new(version, reason, "no enhanced authentication method is known here"));
        }
        Ok(Self {
            version,
            client: client_of(connect)?,
            clean_start: connect.clean_start,
            keep_alive: connect.keep_alive,
            username: connect.username.map(ByteString::from),
            password: connect.password.map(Bytes::copy_from_slice),
            expiry: expiry_of(connect),
            receive_maximum: properties.receive_maximum.unwrap_or(NonZeroU16::MAX),
            maximum_packet_size: properties.maximum_packet_size,
            topic_alias_maximum: properties.topic_alias_maximum,
            request_response_information: properties.request_response_information,
            request_problem_information: properties.request_problem_information,
            will: connect.will.as_ref().map(|will| will_of(will, version)).transpose()?,
        })
    }

    /// The CONNACK for a client that may not come in (authentication, access, load).
    pub fn refuse(&self, reason: ReasonCode, detail: &'static str) -> Refusal {
        let mut refusal = Refusal::new(self.version, reason, detail);
        if self.maximum_packet_size.is_some_and(|max| refusal.answer.len() > max.get() as usize) {
            refusal.answer.clear(); // [MQTT-3.1.2-24]
        }
        refusal
    }
}

/// An empty name: MQTT 3.1 asks for one of 1 to 23 characters, 3.1.1 allows it with clean session only
/// `[MQTT-3.1.3-7]`, `[MQTT-3.1.3-8]`, 5.0 always `[MQTT-3.1.3-6]`. Length and alphabet of others are free.
fn client_of(connect: &Connect<'_>) -> Result<Option<ClientId>, Refusal> {
    if !connect.client_id.is_empty() {
        return Ok(Some(ClientId::from(connect.client_id)));
    }
    let may_be_empty = match connect.version {
        Version::V3_1 => false,
        Version::V3_1_1 => connect.clean_start,
        Version::V5 => true,
    };
    if may_be_empty {
        return Ok(None);
    }
    let reason = ReasonCode::ClientIdentifierNotValid;
    Err(Refusal::new(connect.version, reason, "client identifier is empty, but the session is to be kept"))
}

fn expiry_of(connect: &Connect<'_>) -> SessionExpiry {
    match (connect.version, connect.clean_start) {
        (Version::V5, _) => SessionExpiry(connect.properties.session_expiry.unwrap_or(0)), // section 3.1.2.11.2
        (_, true) => SessionExpiry(0),
        (_, false) => SessionExpiry::NEVER,
    }
}

fn will_of(will: &WillPacket<'_>, version: Version) -> Result<Box<Will>, Refusal> {
    let topic = TopicName::new(will.topic)
        .map_err(|_| Refusal::of_will(version, "will topic is no topic name"))?;
    Ok(Box::new(Will {
        topic,
        payload: Bytes::copy_from_slice(will.payload),
        properties: Bytes::copy_from_slice(&will.forwarded.bytes()),
        qos: will.qos,
        retain: will.retain,
        delay_seconds: will.delay_seconds,
        expiry_seconds: will.message_expiry,
    }))
}

impl Refusal {
    fn of_will(version: Version, detail: &'static str) -> Self {
        Self::new(version, ReasonCode::TopicNameInvalid, detail)
    }
}

/// A request crosses shards.
const _: () = {
    const fn is_send<T: Send>() {}
    is_send::<Handshake>();
    is_send::<ConnectRequest>();
};
