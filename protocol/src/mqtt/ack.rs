//! PUBACK, PUBREC, PUBREL, PUBCOMP (one shape, sections 3.4 to 3.7), DISCONNECT (3.14) and AUTH (3.15).

use postroad_base::{ReasonCode, Tag};

use super::property::{Block, Property, Set, UserProperties};
use super::reader::Reader;
use super::writer::Writer;
use super::{DecodeError, PacketType, Result, Version};

/// A step of the acknowledgement of a PUBLISH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack<'a> {
    /// Packet identifier of the PUBLISH.
    pub tag: Tag,
    /// What became of it. MQTT 3 only knows success.
    pub reason: ReasonCode,
    /// The reason in words.
    pub reason_string: Option<&'a str>,
    /// What the application attached.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Ack<'a> {
    /// The plain acknowledgement of `tag`: success on MQTT 5.
    pub fn new(tag: Tag, reason: ReasonCode) -> Self {
        Self { tag, reason, reason_string: None, user_properties: UserProperties::NONE }
    }

    pub(crate) fn read(packet_type: PacketType, reader: &mut Reader<'a>, version: Version) -> Result<Self> {
        let mut ack = Self::new(read_tag(reader)?, ReasonCode::Success);
        if !version.is_v5() || reader.is_empty() {
            return Ok(ack);
        }
        ack.reason = read_reason(packet_type, reader)?;
        if !reader.is_empty() {
            (ack.reason_string, ack.user_properties) = read_ack_properties(reader)?;
        }
        Ok(ack)
    }

    /// The reason code may be left out if it is success, the properties if there are none (section 3.4.2.1).
    pub(crate) fn write_body(&self, version: Version, writer: &mut Writer<'_>) {
        writer.u16(self.tag.get());
        let bare = self.reason_string.is_none() && self.user_properties.is_empty();
        if !version.is_v5() || bare && self.reason == ReasonCode::Success {
            return;
        }
        writer.byte(self.reason.number());
        if !bare {
            write_ack_properties(writer, self.reason_string, &self.user_properties);
        }
    }
}

/// `[MQTT-2.2.1-3]` A packet identifier is never 0.
pub(crate) fn read_tag(reader: &mut Reader<'_>) -> Result<Tag> {
    Tag::new(reader.u16()?).ok_or(DecodeError::protocol("packet identifier is 0"))
}

/// The block of an acknowledgement: a reason string and user properties.
pub(crate) fn read_ack_properties<'a>(reader: &mut Reader<'a>) -> Result<(Option<&'a str>, UserProperties<'a>)> {
    let mut block = Block::open(reader, Set::ACK)?;
    let mut reason_string = None;
    while let Some(property) = block.next()? {
        if let Property::ReasonString(text) = property {
            reason_string = Some(text);
        }
    }
    Ok((reason_string, UserProperties::from_block(block.bytes())))
}

pub(crate) fn write_ack_properties(writer: &mut Writer<'_>, reason_string: Option<&str>, user: &UserProperties<'_>) {
    writer.properties(|writer| {
        writer.property(reason_string.map(Property::ReasonString));
        user.write(writer);
    });
}

/// A reason code, if it is one that this packet may carry (the tables of sections 3.2 to 3.15; `[MQTT-3.2.2-8]`,
/// `[MQTT-3.4.2-1]`, `[MQTT-3.5.2-1]`, `[MQTT-3.6.2-1]`, `[MQTT-3.7.2-1]`, `[MQTT-3.9.3-2]`, `[MQTT-3.11.3-2]`,
/// `[MQTT-3.14.2-1]`, `[MQTT-3.15.2-1]`).
pub(crate) fn read_reason(packet_type: PacketType, reader: &mut Reader<'_>) -> Result<ReasonCode> {
    reason_of(packet_type, reader.byte()?)
}

pub(crate) fn reason_of(packet_type: PacketType, number: u8) -> Result<ReasonCode> {
    let allowed = match packet_type {
        PacketType::ConnAck => matches!(number, 0 | 0x80..=0x8a | 0x8c | 0x90 | 0x95 | 0x97 | 0x99..=0x9d | 0x9f),
        PacketType::PubAck | PacketType::PubRec => {
            matches!(number, 0 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99)
        }
        PacketType::PubRel | PacketType::PubComp => matches!(number, 0 | 0x92),
        PacketType::SubAck => {
            matches!(number, 0..=2 | 0x80 | 0x83 | 0x87 | 0x8f | 0x91 | 0x97 | 0x9e | 0xa1 | 0xa2)
        }
        PacketType::UnsubAck => matches!(number, 0 | 0x11 | 0x80 | 0x83 | 0x87 | 0x8f | 0x91),
        PacketType::Disconnect => {
            matches!(number, 0 | 0x04 | 0x80..=0x83 | 0x87 | 0x89 | 0x8b..=0x90 | 0x93..=0xa2)
        }
        PacketType::Auth => matches!(number, 0 | 0x18 | 0x19),
        _ => false,
    };
    const UNKNOWN: DecodeError = DecodeError::protocol("reason code is not one of this packet");
    match number {
        0 => Ok(ReasonCode::Success),
        _ if !allowed => Err(UNKNOWN),
        _ => ReasonCode::from_number(number).ok_or(UNKNOWN),
    }
}

/// The end of a connection, said by either side (MQTT 3: by the client only, and without a reason).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disconnect<'a> {
    /// Why. Success: normal.
    pub reason: ReasonCode,
    /// New expiry of the session, in seconds (client only `[MQTT-3.14.2-2]`).
    pub session_expiry: Option<u32>,
    /// The reason in words.
    pub reason_string: Option<&'a str>,
    /// Another server to go to (server only).
    pub server_reference: Option<&'a str>,
    /// What the application attached.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Disconnect<'a> {
    /// Only a reason.
    pub fn new(reason: ReasonCode) -> Self {
        Self {
            reason,
            session_expiry: None,
            reason_string: None,
            server_reference: None,
            user_properties: UserProperties::NONE,
        }
    }

    pub(crate) fn read(reader: &mut Reader<'a>, version: Version) -> Result<Self> {
        let mut packet = Self::new(ReasonCode::Success);
        if !version.is_v5() || reader.is_empty() {
            return Ok(packet);
        }
        packet.reason = read_reason(PacketType::Disconnect, reader)?;
        if reader.is_empty() {
            return Ok(packet);
        }
        let mut block = Block::open(reader, Set::DISCONNECT)?;
        while let Some(property) = block.next()? {
            match property {
                Property::SessionExpiry(seconds) => packet.session_expiry = Some(seconds),
                Property::ReasonString(text) => packet.reason_string = Some(text),
                Property::ServerReference(text) => packet.server_reference = Some(text),
                _ => {}
            }
        }
        packet.user_properties = UserProperties::from_block(block.bytes());
        Ok(packet)
    }

    pub(crate) fn write_body(&self, version: Version, writer: &mut Writer<'_>) {
        if !version.is_v5() || *self == Self::new(ReasonCode::Success) {
            return;
        }
        writer.byte(self.reason.number());
        if *self == Self::new(self.reason) {
            return;
        }
        writer.properties(|writer| {
            writer.property(self.session_expiry.map(Property::SessionExpiry));
            writer.property(self.reason_string.map(Property::ReasonString));
            writer.property(self.server_reference.map(Property::ServerReference));
            self.user_properties.write(writer);
        });
    }
}

/// A step of an enhanced authentication (MQTT 5, section 4.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Auth<'a> {
    /// Success, continue authentication, or re-authenticate.
    pub reason: ReasonCode,
    /// Name of the method.
    pub authentication_method: Option<&'a str>,
    /// What the method says.
    pub authentication_data: Option<&'a [u8]>,
    /// The reason in words.
    pub reason_string: Option<&'a str>,
    /// What the application attached.
    pub user_properties: UserProperties<'a>,
}

impl<'a> Auth<'a> {
    /// Only a reason.
    pub fn new(reason: ReasonCode) -> Self {
        Self {
            reason,
            authentication_method: None,
            authentication_data: None,
            reason_string: None,
            user_properties: UserProperties::NONE,
        }
    }

    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self> {
        let mut packet = Self::new(ReasonCode::Success);
        if reader.is_empty() {
            return Ok(packet);
        }
        packet.reason = read_reason(PacketType::Auth, reader)?;
        let mut block = Block::open(reader, Set::AUTH)?;
        while let Some(property) = block.next()? {
            match property {
                Property::AuthenticationMethod(text) => packet.authentication_method = Some(text),
                Property::AuthenticationData(bytes) => packet.authentication_data = Some(bytes),
                Property::ReasonString(text) => packet.reason_string = Some(text),
                _ => {}
            }
        }
        packet.user_properties = UserProperties::from_block(block.bytes());
        if packet.authentication_method.is_none() {
            return Err(DecodeError::protocol("AUTH without an authentication method")); // section 3.15.2.2.2
        }
        Ok(packet)
    }

    pub(crate) fn write_body(&self, writer: &mut Writer<'_>) {
        if *self == Self::new(ReasonCode::Success) {
            return;
        }
        writer.byte(self.reason.number());
        writer.properties(|writer| {
            writer.property(self.authentication_method.map(Property::AuthenticationMethod));
            writer.property(self.authentication_data.map(Property::AuthenticationData));
            writer.property(self.reason_string.map(Property::ReasonString));
            self.user_properties.write(writer);
        });
    }
}
