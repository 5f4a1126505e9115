//! SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK (MQTT 5, sections 3.8 to 3.11).
//!
//! Filters are checked as text here; where wildcards may stand is checked by `session` (`base::TopicFilter`), which can
//! answer a bad filter by a reason code of its own.

use postroad_base::{Qos, ReasonCode, RetainHandling, SubscriptionIdentifier, SubscriptionOptions, Tag};
use smallvec::SmallVec;

use super::ack::{read_ack_properties, read_tag, reason_of, write_ack_properties};
use super::property::{Block, Property, Set, UserProperties};
use super::reader::Reader;
use super::writer::Writer;
use super::{DecodeError, PacketType, Result, Version};

/// Asks for subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// Packet identifier.
    pub tag: Tag,
    /// Identifier for all subscriptions of this packet.
    pub identifier: Option<SubscriptionIdentifier>,
    /// What the application attached.
    pub user_properties: UserProperties<'a>,
    /// At least one. The `identifier` within the options is always `None`: it stands above.
    pub filters: Vec<(&'a str, SubscriptionOptions)>,
}

impl<'a> Subscribe<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>, version: Version) -> Result<Self> {
        let tag = read_tag(reader)?;
        let mut packet = Self { tag, identifier: None, user_properties: UserProperties::NONE, filters: Vec::new() };
        if version.is_v5() {
            let mut block = Block::open(reader, Set::SUBSCRIBE)?;
            while let Some(property) = block.next()? {
                if let Property::SubscriptionIdentifier(identifier) = property {
                    packet.identifier = Some(identifier);
                }
            }
            packet.user_properties = UserProperties::from_block(block.bytes());
        }
        if reader.is_empty() {
            return Err(DecodeError::protocol("SUBSCRIBE without a topic filter")); // [MQTT-3.8.3-2]
        }
        while !reader.is_empty() {
            let filter = reader.text()?; // [MQTT-3.8.3-1]
            let options = read_options(reader.byte()?, version)?;
            if options.no_local && filter.starts_with("$share/") {
                return Err(DecodeError::protocol("no local on a shared subscription")); // [MQTT-3.8.3-4]
            }
            packet.filters.push((filter, options));
        }
        Ok(packet)
    }

    pub(crate) fn write_body(&self, version: Version, writer: &mut Writer<'_>) {
        writer.u16(self.tag.get());
        if version.is_v5() {
            writer.properties(|writer| {
                writer.property(self.identifier.map(Property::SubscriptionIdentifier));
                self.user_properties.write(writer);
            });
        }
        for (filter, options) in &self.filters {
            writer.text(filter);
            writer.byte(options_byte(options, version));
        }
    }
}

/// ```text
/// 7 6 | 5 4             | 3                   | 2        | 1 0
/// 0 0 | retain handling | retain as published | no local | QoS
/// ```
/// MQTT 3 has the QoS only; 3.1 does not say that the rest is 0.
fn read_options(byte: u8, version: Version) -> Result<SubscriptionOptions> {
    let reserved = match version {
        Version::V3_1 => 0,
        Version::V3_1_1 => 0b1111_1100, // [MQTT-3-8.3-4] of 3.1.1
        Version::V5 => 0b1100_0000,     // [MQTT-3.8.3-5]
    };
    if byte & reserved != 0 {
        return Err(DecodeError::malformed("reserved bits of the subscription options are set"));
    }
    let qos = Qos::from_number(byte & 0b11).ok_or(DecodeError::protocol("subscription asks for QoS 3"))?;
    if !version.is_v5() {
        return Ok(SubscriptionOptions { qos, ..SubscriptionOptions::default() });
    }
    let retain_handling = match byte >> 4 & 0b11 {
        0 => RetainHandling::Always,
        1 => RetainHandling::IfNew,
        2 => RetainHandling::Never,
        _ => return Err(DecodeError::protocol("retain handling is 3")),
    };
    let (no_local, retain_as_published) = (byte & 0b100 != 0, byte & 0b1000 != 0);
    Ok(SubscriptionOptions { qos, no_local, retain_as_published, retain_handling, identifier: None })
}

fn options_byte(options: &SubscriptionOptions, version: Version) -> u8 {
    let qos = options.qos.number();
    if !version.is_v5() {
        return qos;
    }
    qos | u8::from(options.no_local) << 2
        | u8::from(options.retain_as_published) << 3
        | (options.retain_handling as u8) << 4
}

/// One reason code per filter, in its order.
pub type Reasons = SmallVec<[ReasonCode; 8]>;

/// Answers SUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubAck<'a> {
    /// Packet identifier of the SUBSCRIBE.
    pub tag: Tag,
    /// What each filter was granted. For MQTT 3 every failure is 0x80.
    pub reasons: Reasons,
    /// The reason in words.
    pub reason_string: Option<&'a str>,
    /// What the application attached.
    pub user_properties: UserProperties<'a>,
}

impl<'a> SubAck<'a> {
    /// Only reason codes.
    pub fn new(tag: Tag, reasons: Reasons) -> Self {
        Self { tag, reasons, reason_string: None, user_properties: UserProperties::NONE }
    }

    pub(crate) fn read(reader: &mut Reader<'a>, version: Version) -> Result<Self> {
        let mut packet = Self::new(read_tag(reader)?, Reasons::new());
        if version.is_v5() {
            (packet.reason_string, packet.user_properties) = read_ack_properties(reader)?;
        }
        packet.reasons = read_reasons(PacketType::SubAck, reader)?;
        let v3_only = |reason: &ReasonCode| matches!(reason.number(), 0..=2 | 0x80);
        if !version.is_v5() && !packet.reasons.iter().all(v3_only) {
            return Err(DecodeError::malformed("return code is reserved")); // [MQTT-3.9.3-2] of 3.1.1
        }
        Ok(packet)
    }

    pub(crate) fn write_body(&self, version: Version, writer: &mut Writer<'_>) {
        writer.u16(self.tag.get());
        if version.is_v5() {
            write_ack_properties(writer, self.reason_string, &self.user_properties);
        }
        for reason in &self.reasons {
            let failed_v3 = !version.is_v5() && reason.is_error();
            writer.byte(if failed_v3 { 0x80 } else { reason.number() });
        }
    }
}

fn read_reasons(packet_type: PacketType, reader: &mut Reader<'_>) -> Result<Reasons> {
    if reader.is_empty() {
        return Err(DecodeError::protocol("acknowledgement without a reason code")); // [MQTT-3.9.3-1]
    }
    let numbers = reader.take(reader.rest().len())?;
    numbers.iter().map(|&number| reason_of(packet_type, number)).collect()
}

/// Ends subscriptions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// Packet identifier.
    pub tag: Tag,
    /// What the application attached.
    pub user_properties: UserProperties<'a>,
    /// At least one.
    pub filters: Vec<&'a str>,
}

impl<'a> Unsubscribe<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>, version: Version) -> Result<Self> {
        let tag = read_tag(reader)?;
        let mut packet = Self { tag, user_properties: UserProperties::NONE, filters: Vec::new() };
        if version.is_v5() {
            let mut block = Block::open(reader, Set::UNSUBSCRIBE)?;
            while block.next()?.is_some() {}
            packet.user_properties = UserProperties::from_block(block.bytes());
        }
        if reader.is_empty() {
            return Err(DecodeError::protocol("UNSUBSCRIBE without a topic filter")); // [MQTT-3.10.3-2]
        }
        while !reader.is_empty() {
            packet.filters.push(reader.text()?); // [MQTT-3.10.3-1]
        }
        Ok(packet)
    }

    pub(crate) fn write_body(&self, version: Version, writer: &mut Writer<'_>) {
        writer.u16(self.tag.get());
        if version.is_v5() {
            writer.properties(|writer| self.user_properties.write(writer));
        }
        for filter in &self.filters {
            writer.text(filter);
        }
    }
}

/// Answers UNSUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsubAck<'a> {
    /// Packet identifier of the UNSUBSCRIBE.
    pub tag: Tag,
    /// What became of each filter; not sent, and empty when received, on MQTT 3.
    pub reasons: Reasons,
    /// The reason in words.
    pub reason_string: Option<&'a str>,
    /// What the application attached.
    pub user_properties: UserProperties<'a>,
}

impl<'a> UnsubAck<'a> {
    /// Only reason codes.
    pub fn new(tag: Tag, reasons: Reasons) -> Self {
        Self { tag, reasons, reason_string: None, user_properties: UserProperties::NONE }
    }

    pub(crate) fn read(reader: &mut Reader<'a>, version: Version) -> Result<Self> {
        let mut packet = Self::new(read_tag(reader)?, Reasons::new());
        if version.is_v5() {
            (packet.reason_string, packet.user_properties) = read_ack_properties(reader)?;
            packet.reasons = read_reasons(PacketType::UnsubAck, reader)?;
        }
        Ok(packet)
    }

    pub(crate) fn write_body(&self, version: Version, writer: &mut Writer<'_>) {
        writer.u16(self.tag.get());
        if version.is_v5() {
            write_ack_properties(writer, self.reason_string, &self.user_properties);
            for reason in &self.reasons {
                writer.byte(reason.number());
            }
        }
    }
}
