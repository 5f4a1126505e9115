//! MQTT 3.1 (`MQIsdp`, level 3), 3.1.1 (level 4) and 5.0 (level 5): one packet at a time.
//!
//! ```text
//! byte 0          bytes 1..=4         rest
//! type | flags    remaining length    variable header, payload     (MQTT 5, section 2.1)
//! ```
//!
//! Invariants
//! - [`decode`] borrows from its input and allocates nothing for PUBLISH and the acknowledgements. A length on the
//!   wire is compared with what is there before anything is sized by it.
//! - What decodes is valid in itself: whatever the specification forbids within *one* packet is refused here, with the
//!   reason code that it names. Rules between packets, and who may send what, are `session`'s.
//! - [`Packet::encode`] is infallible, knows its size first, and is the inverse of [`decode`]. Texts over 65,535 bytes
//!   and packets over [`PACKET_SIZE_MAX`] can't be written: making one is a bug of the caller and panics.

mod ack;
mod connect;
mod decode;
mod property;
mod publish;
mod reader;
mod subscribe;
mod writer;

use std::fmt;

use postroad_base::ReasonCode;

pub use ack::{Ack, Auth, Disconnect};
pub use connect::{ConnAck, ConnAckProperties, Connect, ConnectProperties, WillPacket};
pub use decode::{connect_version, decode};
pub use property::UserProperties;
pub use publish::{
    Forwarded, ForwardedParts, HeadTopic, Publish, PublishHead, PublishProperties, encode_publish_head, patch_tag,
    publish_size,
};
pub use subscribe::{Reasons, SubAck, Subscribe, UnsubAck, Unsubscribe};

use writer::Writer;

/// Largest packet that the format can express: a header byte, four bytes of length, 268,435,455 bytes.
pub const PACKET_SIZE_MAX: u32 = 1 + 4 + REMAINING_LENGTH_MAX;
/// Largest number that a variable byte integer holds (MQTT 5, section 1.5.5).
pub const REMAINING_LENGTH_MAX: u32 = 268_435_455;

/// The protocol that a connection speaks, fixed by its CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Version {
    /// MQTT 3.1: `MQIsdp`, level 3.
    V3_1 = 3,
    /// MQTT 3.1.1: `MQTT`, level 4.
    V3_1_1 = 4,
    /// MQTT 5.0: `MQTT`, level 5.
    V5 = 5,
}

impl Version {
    /// All of them, oldest first.
    pub const ALL: [Self; 3] = [Self::V3_1, Self::V3_1_1, Self::V5];

    /// Whether packets carry properties and reason codes.
    pub fn is_v5(self) -> bool {
        self == Self::V5
    }

    /// The protocol level byte of CONNECT.
    pub fn level(self) -> u8 {
        self as u8
    }

    /// The protocol name of CONNECT.
    pub fn protocol_name(self) -> &'static str {
        if self == Self::V3_1 { "MQIsdp" } else { "MQTT" }
    }
}

/// What the start of the input turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// Not a whole packet yet.
    Incomplete {
        /// Bytes that the whole packet takes, if its length is there already; else one more than there are, at least 2.
        needed: usize,
    },
    /// A packet that takes the first `size` bytes of the input.
    Packet {
        /// What it says.
        packet: Packet<'a>,
        /// How many bytes to take off the input.
        size: usize,
    },
}

/// Why bytes are no packet. Ends the connection; on MQTT 5 with this reason code (section 4.13).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail} ({})", reason.name())]
pub struct DecodeError {
    /// What the specification calls it.
    pub reason: ReasonCode,
    /// In words, for the log and the reason string.
    pub detail: &'static str,
}

impl DecodeError {
    pub(crate) const fn malformed(detail: &'static str) -> Self {
        Self { reason: ReasonCode::MalformedPacket, detail }
    }

    pub(crate) const fn protocol(detail: &'static str) -> Self {
        Self { reason: ReasonCode::ProtocolError, detail }
    }

    pub(crate) const fn topic(detail: &'static str) -> Self {
        Self { reason: ReasonCode::TopicNameInvalid, detail }
    }
}

pub(crate) type Result<T, E = DecodeError> = std::result::Result<T, E>;

/// The fifteen control packets, by the number in the upper half of the first byte (MQTT 5, section 2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PacketType {
    /// Client to server.
    Connect = 1,
    /// Server to client.
    ConnAck = 2,
    /// Both ways.
    Publish = 3,
    /// Both ways.
    PubAck = 4,
    /// Both ways.
    PubRec = 5,
    /// Both ways.
    PubRel = 6,
    /// Both ways.
    PubComp = 7,
    /// Client to server.
    Subscribe = 8,
    /// Server to client.
    SubAck = 9,
    /// Client to server.
    Unsubscribe = 10,
    /// Server to client.
    UnsubAck = 11,
    /// Client to server.
    PingReq = 12,
    /// Server to client.
    PingResp = 13,
    /// Both ways (MQTT 3: client to server).
    Disconnect = 14,
    /// Both ways, MQTT 5 only.
    Auth = 15,
}

impl PacketType {
    /// The type in the upper half of a packet's first byte; `None` for the forbidden 0.
    pub fn from_first_byte(byte: u8) -> Option<Self> {
        Some(match byte >> 4 {
            1 => Self::Connect,
            2 => Self::ConnAck,
            3 => Self::Publish,
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            8 => Self::Subscribe,
            9 => Self::SubAck,
            10 => Self::Unsubscribe,
            11 => Self::UnsubAck,
            12 => Self::PingReq,
            13 => Self::PingResp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }

    /// The first byte of a packet of this type; for PUBLISH with all flags clear.
    pub(crate) fn first_byte(self) -> u8 {
        (self as u8) << 4 | self.flags()
    }

    /// The flags that the type prescribes (MQTT 5, table 2-2); PUBLISH has its own.
    pub(crate) fn flags(self) -> u8 {
        match self {
            Self::PubRel | Self::Subscribe | Self::Unsubscribe => 0b0010,
            _ => 0,
        }
    }

    /// The name in the specification's words, for logs and metric labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::ConnAck => "CONNACK",
            Self::Publish => "PUBLISH",
            Self::PubAck => "PUBACK",
            Self::PubRec => "PUBREC",
            Self::PubRel => "PUBREL",
            Self::PubComp => "PUBCOMP",
            Self::Subscribe => "SUBSCRIBE",
            Self::SubAck => "SUBACK",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::UnsubAck => "UNSUBACK",
            Self::PingReq => "PINGREQ",
            Self::PingResp => "PINGRESP",
            Self::Disconnect => "DISCONNECT",
            Self::Auth => "AUTH",
        }
    }
}

impl fmt::Display for PacketType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One control packet. The two that come once per connection are boxed, so that moving any other stays cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet<'a> {
    /// The first packet of a client.
    Connect(Box<Connect<'a>>),
    /// The answer to it.
    ConnAck(Box<ConnAck<'a>>),
    /// A message.
    Publish(Publish<'a>),
    /// Acknowledges a PUBLISH of QoS 1.
    PubAck(Ack<'a>),
    /// QoS 2: the PUBLISH is received.
    PubRec(Ack<'a>),
    /// QoS 2: its identifier is released.
    PubRel(Ack<'a>),
    /// QoS 2: over.
    PubComp(Ack<'a>),
    /// Asks for subscriptions.
    Subscribe(Subscribe<'a>),
    /// The answer to it.
    SubAck(SubAck<'a>),
    /// Ends subscriptions.
    Unsubscribe(Unsubscribe<'a>),
    /// The answer to it.
    UnsubAck(UnsubAck<'a>),
    /// Are you there?
    PingReq,
    /// Yes.
    PingResp,
    /// The last packet of either side.
    Disconnect(Disconnect<'a>),
    /// A step of an enhanced authentication.
    Auth(Auth<'a>),
}

impl Packet<'_> {
    /// Which of the fifteen it is.
    pub fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::ConnAck(_) => PacketType::ConnAck,
            Self::Publish(_) => PacketType::Publish,
            Self::PubAck(_) => PacketType::PubAck,
            Self::PubRec(_) => PacketType::PubRec,
            Self::PubRel(_) => PacketType::PubRel,
            Self::PubComp(_) => PacketType::PubComp,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::SubAck(_) => PacketType::SubAck,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::UnsubAck(_) => PacketType::UnsubAck,
            Self::PingReq => PacketType::PingReq,
            Self::PingResp => PacketType::PingResp,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::Auth(_) => PacketType::Auth,
        }
    }

    /// Bytes that [`Packet::encode`] will write, to compare with the peer's maximum packet size first.
    pub fn encoded_len(&self, version: Version) -> usize {
        writer::packet_size(self.body_len(version))
    }

    /// Appends the packet to `out`. What `version` has no place for (properties, reason codes) is left out.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        let body_len = self.body_len(version);
        out.reserve(writer::packet_size(body_len));
        let mut writer = Writer::to(out);
        writer.byte(self.first_byte());
        writer.variable_int(writer::remaining_length(body_len));
        self.write_body(version, &mut writer);
    }

    fn first_byte(&self) -> u8 {
        match self {
            Self::Publish(publish) => publish.first_byte(),
            other => other.packet_type().first_byte(),
        }
    }

    fn body_len(&self, version: Version) -> usize {
        let mut counter = Writer::counter();
        self.write_body(version, &mut counter);
        counter.len()
    }

    fn write_body(&self, version: Version, writer: &mut Writer<'_>) {
        match self {
            Self::Connect(packet) => packet.write_body(writer),
            Self::ConnAck(packet) => packet.write_body(version, writer),
            Self::Publish(packet) => packet.write_body(version, writer),
            Self::PubAck(ack) | Self::PubRec(ack) | Self::PubRel(ack) | Self::PubComp(ack) => {
                ack.write_body(version, writer);
            }
            Self::Subscribe(packet) => packet.write_body(version, writer),
            Self::SubAck(packet) => packet.write_body(version, writer),
            Self::Unsubscribe(packet) => packet.write_body(version, writer),
            Self::UnsubAck(packet) => packet.write_body(version, writer),
            Self::PingReq | Self::PingResp => {}
            Self::Disconnect(packet) => packet.write_body(version, writer),
            Self::Auth(packet) => packet.write_body(writer),
        }
    }
}
