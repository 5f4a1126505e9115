//! Before the CONNACK: the first packet of a connection, wherever it was accepted.

use bytes::Bytes;
use bytestring::ByteString;
use postroad_base::{ClientId, ReasonCode, SessionExpiry, TopicName, WallMillis, Will, WishError, Wishes};
use postroad_broker::DeliveryMode;
use postroad_protocol::mqtt::{
    ConnAck, Connect, DecodeError, Decoded, Forwarded, PACKET_SIZE_MAX, Packet, Version, WillPacket, connect_version,
    decode,
};

use super::{Limits, reasons};

/// Bytes of a CONNECT that hold its version: fixed header, the longer one of the names, level.
const VERSION_WITHIN: usize = 5 + 2 + 6 + 1;

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
    /// Whether it wants to be pushed what comes, or pulls it; `None`: it does not say.
    pub delivery: Option<DeliveryMode>,
    /// Largest packet that it takes, in bytes.
    pub packet_bytes_max: u32,
    /// Highest topic alias that it takes.
    pub topic_alias_maximum: u16,
    /// Whether it wants reason strings.
    pub problem_information: bool,
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
            // The size is known before the version is, and only some versions are told.
            Err(error) if error.reason == ReasonCode::PacketTooLarge && bytes.len() < VERSION_WITHIN => {
                Ok(HandshakeStep::NeedMore { needed: VERSION_WITHIN })
            }
            Err(error) => Err(Refusal::of_malformed(bytes, error)),
        }
    }
}

impl Refusal {
    /// MQTT 3 has no return code for a malformed CONNECT: it is closed without one (`[MQTT-3.1.4-1]`); MQTT 5 is told
    /// (section 4.13). What a client takes is not known yet, so nothing is said in words.
    fn of_malformed(bytes: &[u8], error: DecodeError) -> Self {
        let DecodeError { reason, detail } = error;
        let packet = first_packet(bytes).unwrap_or_default();
        let version = match reason {
            ReasonCode::UnsupportedProtocolVersion => version_for_unsupported(packet),
            _ => connect_version(packet).filter(|version| version.is_v5()),
        };
        let answer = version.map(|version| refusal_packet(version, reason, "", u32::MAX)).unwrap_or_default();
        Self { answer, reason, detail }
    }
}

/// The part of the first packet that has come. What follows the packet is no part of it, and what is wrong with its fixed
/// header is seen before the rest is there, if the network cuts it so: then this is `None`, even if the rest is there. Else
/// the answer would depend on where the network cuts [INT-5].
fn first_packet(bytes: &[u8]) -> Option<&[u8]> {
    let length_size = 1 + bytes.get(1..)?.iter().take(3).take_while(|&byte| byte & 0x80 != 0).count();
    let header = bytes.get(..1 + length_size)?;
    match decode(header, None, PACKET_SIZE_MAX) {
        Ok(Decoded::Incomplete { needed }) => Some(&bytes[..needed.min(bytes.len())]),
        _ => None,
    }
}

/// In which version to tell a client that its own is unknown: return code 1 for what is older than MQTT 5
/// (`[MQTT-3.1.2-2]` of 3.1.1), 0x84 for what is newer (`[MQTT-3.1.2-2]` of 5.0). `None`: it is no MQTT at all, and
/// the connection is closed `[MQTT-3.1.2-1]`.
fn version_for_unsupported(bytes: &[u8]) -> Option<Version> {
    let length_size = 1 + bytes.get(1..)?.iter().take_while(|&byte| byte & 0x80 != 0).count();
    let (name_len, rest) = bytes.get(1 + length_size..)?.split_first_chunk()?;
    let (name, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*name_len)))?;
    match (name, *rest.first()?) {
        (b"MQTT", 6..0x80) => Some(Version::V5),
        (b"MQTT" | b"MQIsdp", _) => Some(Version::V3_1_1),
        _ => None,
    }
}

/// A CONNACK within the size that the client takes `[MQTT-3.1.2-24]`: without the words, or none at all, if need be.
fn refusal_packet(version: Version, reason: ReasonCode, detail: &str, size_max: u32) -> Vec<u8> {
    let mut answer = ConnAck::new(false, reasons::of_connack(reason));
    answer.properties.reason_string = (version.is_v5() && !detail.is_empty()).then_some(detail);
    let mut packet = Packet::ConnAck(Box::new(answer));
    let is_too_large = |packet: &Packet<'_>| version.is_v5() && packet.encoded_len(version) > size_max as usize;
    if is_too_large(&packet) {
        packet = Packet::ConnAck(Box::new(ConnAck::new(false, reasons::of_connack(reason)))); // [MQTT-3.2.2-19]
    }
    let mut out = Vec::new();
    if !is_too_large(&packet) {
        packet.encode(version, &mut out);
    }
    out
}

impl ConnectRequest {
    fn from_packet(connect: &Connect<'_>, limits: &Limits) -> Result<Self, Refusal> {
        let version = connect.version;
        let size_max = connect.properties.maximum_packet_size.map_or(u32::MAX, |most| most.get());
        let wants_words = connect.properties.request_problem_information;
        let refuse_in_words = |reason, detail: &'static str, words: &str| {
            let answer = refusal_packet(version, reason, if wants_words { words } else { "" }, size_max);
            Refusal { answer, reason, detail }
        };
        let refuse = |reason, detail| refuse_in_words(reason, detail, detail);
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
        let will = connect.will.as_ref().map(own_will).transpose().map_err(|flaw| match flaw {
            WillFlaw::Topic => refuse(ReasonCode::TopicNameInvalid, "will topic is not a topic name"),
            WillFlaw::Wish(error) => {
                let reason = ReasonCode::ImplementationSpecificError;
                refuse_in_words(reason, "a wish for the will can't be", &error.to_string())
            }
        })?;
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
            delivery: asked_delivery(connect)
                .map_err(|detail| refuse(ReasonCode::ImplementationSpecificError, detail))?,
            packet_bytes_max: size_max,
            topic_alias_maximum: connect.properties.topic_alias_maximum,
            will,
            problem_information: connect.properties.request_problem_information,
        })
    }

    /// The CONNACK that refuses this request.
    pub fn refuse(&self, reason: ReasonCode, detail: &str) -> Vec<u8> {
        let words = if self.problem_information { detail } else { "" };
        refusal_packet(self.version, reason, words, self.packet_bytes_max)
    }
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

/// User property by which a client chooses between push and pull.
const DELIVERY_PROPERTY: &str = "postroad-delivery";

/// Whether it wants push or pull, if it says so; the last word counts.
fn asked_delivery(connect: &Connect<'_>) -> Result<Option<DeliveryMode>, &'static str> {
    let said = connect.properties.user_properties.iter().filter(|(name, _)| *name == DELIVERY_PROPERTY);
    said.map(|(_, value)| DeliveryMode::from_name(value).ok_or("postroad-delivery must be push or pull"))
        .try_fold(None, |_, mode| mode.map(Some))
}

/// Why a will can't be.
enum WillFlaw {
    Topic,
    Wish(WishError),
}

fn own_will(will: &WillPacket<'_>) -> Result<Box<Will>, WillFlaw> {
    Ok(Box::new(Will {
        topic: TopicName::new(will.topic).map_err(|_| WillFlaw::Topic)?,
        payload: Bytes::copy_from_slice(will.payload),
        properties: Bytes::copy_from_slice(&will.forwarded.bytes()),
        qos: will.qos,
        retain: will.retain,
        delay_seconds: will.delay_seconds,
        expiry_seconds: will.message_expiry,
        wishes: wishes_for_will(&will.forwarded).map_err(WillFlaw::Wish)?,
    }))
}

fn wishes_for_will(properties: &Forwarded<'_>) -> Result<Wishes, WishError> {
    let mut wishes = Wishes::default();
    let any_time = WallMillis(0); // what counts from now is refused, whenever that is
    for (name, value) in properties.user_properties().iter() {
        wishes.take(name, value, any_time)?;
    }
    wishes.check_for_will()?;
    Ok(wishes)
}
