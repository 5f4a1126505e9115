//! Before the CONNACK: the first packet of a connection, wherever it was accepted.

use bytes::Bytes;
use bytestring::ByteString;
use postroad_base::{ClientId, ReasonCode, SessionExpiry, TopicName, Will};
use postroad_protocol::mqtt::{
    ConnAck, Connect, DecodeError, Decoded, Packet, Version, WillPacket, connect_version, decode,
};

use super::Limits;

/// Waits for the CONNECT.
#[derive(Clone, Copy, Debug, Default)]
pub struct Handshake;

/// How far the handshake is.
#[derive(Debug)]
pub enum HandshakeStep {
    /// The packet is not whole yet: at least this many bytes are needed.
    NeedMore {
        /// Bytes from the start of the connection.
        needed: usize,
    },
    /// A client introduces itself.
    Connect {
        /// What it asks for.
        request: Box<ConnectRequest>,
        /// Bytes that the packet took.
        consumed: usize,
    },
}

/// A CONNECT that is not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What to send before closing; empty where the specification wants nothing sent.
    pub answer: Vec<u8>,
    /// Why.
    pub reason: ReasonCode,
    /// Why, for the log.
    pub detail: &'static str,
}

/// A valid CONNECT, owned, so that it can move to the client's home shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectRequest {
    /// What the client speaks.
    pub version: Version,
    /// Who it says it is; `None`: the server gives it a name.
    pub client: Option<ClientId>,
    /// End the old session first.
    pub clean_start: bool,
    /// Seconds; 0 is none.
    pub keep_alive: u16,
    /// User name.
    pub username: Option<ByteString>,
    /// Password.
    pub password: Option<Bytes>,
    /// How long the session is to outlive the connection, cut to what the server grants.
    pub expiry: SessionExpiry,
    /// Whether `expiry` is not what the client asked for.
    pub expiry_was_cut: bool,
    /// Unacknowledged deliveries that it takes.
    pub receive_maximum: u16,
    /// Largest packet that it takes, in bytes.
    pub packet_bytes_max: u32,
    /// Highest topic alias that it takes.
    pub topic_alias_maximum: u16,
    /// What to publish if it vanishes.
    pub will: Option<Box<Will>>,
}

impl Handshake {
    /// Reads the CONNECT at the start of `bytes`.
    ///
    /// # Errors
    /// If the first packet is none `[MQTT-3.1.0-1]`, is malformed, or asks for what the server does not have.
    pub fn receive(&mut self, bytes: &[u8], limits: &Limits) -> Result<HandshakeStep, Refusal> {
        match decode(bytes, None, limits.connect_bytes_max) {
            Ok(Decoded::Incomplete { needed }) => Ok(HandshakeStep::NeedMore { needed }),
            Ok(Decoded::Packet { packet: Packet::Connect(connect), size }) => {
                let request = Box::new(ConnectRequest::from_packet(&connect, limits)?);
                Ok(HandshakeStep::Connect { request, consumed: size })
            }
            Ok(Decoded::Packet { .. }) => Err(Refusal {
                answer: Vec::new(),
                reason: ReasonCode::ProtocolError,
                detail: "first packet is not CONNECT",
            }),
            Err(error) => Err(Refusal::of_malformed(bytes, error)),
        }
    }
}

impl Refusal {
    /// An unknown version is answered in the shape that its sender most likely reads `[MQTT-3.1.2-2]`; a malformed
    /// MQTT 5 CONNECT with its reason (section 4.13), a malformed older one with nothing `[MQTT-3.1.4-1]`.
    fn of_malformed(bytes: &[u8], error: DecodeError) -> Self {
        let DecodeError { reason, detail } = error;
        let version = match (connect_version(bytes), reason) {
            (Some(Version::V5), _) => Some(Version::V5),
            (_, ReasonCode::UnsupportedProtocolVersion) => Some(version_of_unsupported(bytes)),
            _ => None,
        };
        let answer = version.map(|version| refusal_packet(version, reason, detail)).unwrap_or_default();
        Self { answer, reason, detail }
    }
}

/// A level above 5 is a later relative of MQTT 5; everything else is answered as MQTT 3.1.1 does.
fn version_of_unsupported(bytes: &[u8]) -> Version {
    let level = bytes.iter().skip_while(|byte| **byte != b'M').nth(4);
    if level.is_some_and(|&level| level > 5 && level < 0x80) { Version::V5 } else { Version::V3_1_1 }
}

fn refusal_packet(version: Version, reason: ReasonCode, detail: &str) -> Vec<u8> {
    let mut answer = ConnAck::new(false, reason);
    answer.properties.reason_string = (version.is_v5() && !detail.is_empty()).then_some(detail);
    let mut out = Vec::new();
    Packet::ConnAck(Box::new(answer)).encode(version, &mut out);
    out
}

impl ConnectRequest {
    fn from_packet(connect: &Connect<'_>, limits: &Limits) -> Result<Self, Refusal> {
        let version = connect.version;
        let refuse = |reason, detail| Refusal { answer: refusal_packet(version, reason, detail), reason, detail };
        if connect.properties.authentication_method.is_some() {
            // Section 4.12: we know no method.
            return Err(refuse(ReasonCode::BadAuthenticationMethod, "enhanced authentication is not supported"));
        }
        if connect.client_id.is_empty() && !may_be_unnamed(connect) {
            // [MQTT-3.1.3-8] of 3.1.1; MQTT 3.1 wants at least one character.
            return Err(refuse(
                ReasonCode::ClientIdentifierNotValid,
                "an empty client identifier needs a clean session",
            ));
        }
        if connect.will.is_some_and(|will| will.retain) && !limits.retain_available {
            return Err(refuse(ReasonCode::RetainNotSupported, "the will is retained")); // [MQTT-3.2.2-13]
        }
        let asked = asked_expiry(connect, limits);
        let expiry = asked.min(limits.session_expiry_max);
        Ok(Self {
            version,
            client: (!connect.client_id.is_empty()).then(|| ClientId::from(connect.client_id)),
            clean_start: connect.clean_start,
            keep_alive: connect.keep_alive,
            username: connect.username.map(ByteString::from),
            password: connect.password.map(Bytes::copy_from_slice),
            expiry,
            expiry_was_cut: expiry != asked,
            receive_maximum: connect.properties.receive_maximum.map_or(u16::MAX, |most| most.get()),
            packet_bytes_max: connect.properties.maximum_packet_size.map_or(u32::MAX, |most| most.get()),
            topic_alias_maximum: connect.properties.topic_alias_maximum,
            will: connect.will.as_ref().map(|will| own_will(will).map_err(|()| bad_will(version))).transpose()?,
        })
    }

    /// The CONNACK that refuses this request.
    pub fn refuse(&self, reason: ReasonCode, detail: &str) -> Vec<u8> {
        refusal_packet(self.version, reason, detail)
    }
}

fn bad_will(version: Version) -> Refusal {
    let (reason, detail) = (ReasonCode::TopicNameInvalid, "will topic is not a topic name");
    Refusal { answer: refusal_packet(version, reason, detail), reason, detail }
}

fn may_be_unnamed(connect: &Connect<'_>) -> bool {
    match connect.version {
        Version::V5 => true,                    // [MQTT-3.1.3-6]
        Version::V3_1_1 => connect.clean_start, // [MQTT-3.1.3-7] of 3.1.1
        Version::V3_1 => false,
    }
}

/// MQTT 3 knows two expiries: with the connection, and never.
fn asked_expiry(connect: &Connect<'_>, limits: &Limits) -> SessionExpiry {
    match (connect.version, connect.clean_start) {
        (Version::V5, _) => SessionExpiry(connect.properties.session_expiry.unwrap_or(0)),
        (_, true) => SessionExpiry(0),
        (_, false) => limits.session_expiry_max,
    }
}

fn own_will(will: &WillPacket<'_>) -> Result<Box<Will>, ()> {
    Ok(Box::new(Will {
        topic: TopicName::new(will.topic).map_err(|_| ())?,
        payload: Bytes::copy_from_slice(will.payload),
        properties: Bytes::copy_from_slice(&will.forwarded.bytes()),
        qos: will.qos,
        retain: will.retain,
        delay_seconds: will.delay_seconds,
        expiry_seconds: will.message_expiry,
    }))
}
