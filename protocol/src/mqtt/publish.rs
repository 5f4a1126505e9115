//! PUBLISH (MQTT 5, section 3.3), both as a packet and as head and tail: a message to a thousand subscribers is the
//! same forwarded properties and payload behind a thousand heads.
//!
//! ```text
//! 3x | remaining length | topic | tag (QoS > 0) | length | expiry alias ids | forwarded properties | payload
//! `----------------- head, per recipient ---------------------------------' `---- shared by all ----------'
//! ```

use std::borrow::Cow;
use std::num::NonZeroU16;

use postroad_base::{Qos, SubscriptionIdentifier, Tag};
use smallvec::SmallVec;

use super::ack::read_tag;
use super::property::{self, Block, Property, Set, UserProperties, has_wildcard};
use super::reader::Reader;
use super::writer::{Writer, length_prefix, packet_size, remaining_length, variable_int, variable_int_size};
use super::{DecodeError, PacketType, Result, Version};

/// A message on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish<'a> {
    /// Sent before, perhaps.
    pub dup: bool,
    /// Level of this hop.
    pub qos: Qos,
    /// To be retained, or sent because it was.
    pub retain: bool,
    /// The topic name; empty if only the alias tells.
    pub topic: &'a str,
    /// Packet identifier: present exactly if the level is not 0.
    pub tag: Option<Tag>,
    /// The application's bytes.
    pub payload: &'a [u8],
    /// MQTT 5 only.
    pub properties: PublishProperties<'a>,
}

/// Properties of a PUBLISH.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishProperties<'a> {
    /// Seconds that the message is worth delivering.
    pub message_expiry: Option<u32>,
    /// Stands for the topic.
    pub topic_alias: Option<NonZeroU16>,
    /// Identifiers of the matching subscriptions (server to client only).
    pub subscription_identifiers: SmallVec<[SubscriptionIdentifier; 1]>,
    /// What travels with the message unchanged.
    pub forwarded: Forwarded<'a>,
}

impl<'a> Publish<'a> {
    pub(crate) fn read(first: u8, reader: &mut Reader<'a>, version: Version) -> Result<Self> {
        let (dup, retain) = (first & 0b1000 != 0, first & 1 != 0);
        let qos = Qos::from_number(first >> 1 & 0b11).ok_or(DecodeError::malformed("QoS 3"))?; // [MQTT-3.3.1-4]
        if dup && !qos.is_acknowledged() {
            return Err(DecodeError::malformed("DUP on QoS 0")); // [MQTT-3.3.1-2]
        }
        let topic = reader.text()?; // [MQTT-3.3.2-1]
        if has_wildcard(topic) {
            return Err(DecodeError::topic("topic name holds a wildcard")); // [MQTT-3.3.2-2]
        }
        let tag = if qos.is_acknowledged() { Some(read_tag(reader)?) } else { None };
        let properties = if version.is_v5() { PublishProperties::read(reader)? } else { PublishProperties::default() };
        if topic.is_empty() && properties.topic_alias.is_none() {
            return Err(no_topic(version));
        }
        Ok(Self { dup, qos, retain, topic, tag, payload: reader.rest(), properties })
    }

    pub(crate) fn first_byte(&self) -> u8 {
        first_byte(self.dup, self.qos, self.retain)
    }

    pub(crate) fn write_body(&self, version: Version, writer: &mut Writer<'_>) {
        writer.text(self.topic);
        if let Some(tag) = self.tag {
            writer.u16(tag.get());
        }
        if version.is_v5() {
            writer.properties(|writer| self.properties.write(writer));
        }
        writer.raw(self.payload);
    }

    /// Whether the payload is what its payload format indicator says: UTF-8 if that is 1. The check is the receiver's
    /// choice (section 3.3.2.3.2); a failure is 0x99, payload format invalid.
    pub fn payload_matches_format(&self) -> bool {
        !self.properties.forwarded.payload_is_text() || std::str::from_utf8(self.payload).is_ok()
    }
}

fn no_topic(version: Version) -> DecodeError {
    if version.is_v5() {
        return DecodeError::protocol("neither topic name nor topic alias"); // section 3.3.2.1
    }
    DecodeError::topic("topic name is empty") // [MQTT-4.7.3-1]
}

fn first_byte(dup: bool, qos: Qos, retain: bool) -> u8 {
    PacketType::Publish.first_byte() | u8::from(dup) << 3 | qos.number() << 1 | u8::from(retain)
}

impl<'a> PublishProperties<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self> {
        if reader.skip_zero() {
            return Ok(Self::default()); // most messages have none
        }
        let mut block = Block::open(reader, Set::PUBLISH)?.of_publish();
        let mut properties = Self::default();
        let mut span = ForwardedSpan::default();
        loop {
            let start = block.position();
            let Some(property) = block.next()? else { break };
            match property {
                Property::MessageExpiry(seconds) => properties.message_expiry = Some(seconds),
                Property::TopicAlias(alias) => properties.topic_alias = Some(alias),
                Property::SubscriptionIdentifier(id) => properties.subscription_identifiers.push(id),
                _ => span.add(start, block.position()),
            }
        }
        properties.forwarded = span.of(block.bytes());
        Ok(properties)
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.property(self.message_expiry.map(Property::MessageExpiry));
        writer.property(self.topic_alias.map(Property::TopicAlias));
        for &identifier in &self.subscription_identifiers {
            Property::SubscriptionIdentifier(identifier).write(writer);
        }
        writer.raw(&self.forwarded.bytes());
    }
}

/// Properties that travel with a message unchanged, from publisher to subscriber: payload format indicator, content
/// type, response topic, correlation data, user properties (MQTT 5, sections 3.3.2.3 and 3.1.3.2).
#[derive(Clone, Copy, Default)]
pub struct Forwarded<'a> {
    /// Checked properties, from the first one to the last one that is forwarded.
    block: &'a [u8],
    /// Whether others stand between them.
    has_gaps: bool,
}

impl<'a> Forwarded<'a> {
    /// None.
    pub const NONE: Self = Self { block: &[], has_gaps: false };

    /// From what [`Forwarded::bytes`] gave (`base::Message::properties`), unchecked.
    pub fn from_stored(bytes: &'a [u8]) -> Self {
        Self { block: bytes, has_gaps: false }
    }

    /// From bytes that somebody else made.
    ///
    /// # Errors
    /// If they are not a list of well-formed properties of this kind.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let mut block = Block::over(bytes, Set::FORWARDED);
        while block.next()?.is_some() {}
        Ok(Self::from_stored(bytes))
    }

    /// The encoding to keep in `base::Message::properties`: borrowed if these properties stand together on the wire.
    pub fn bytes(&self) -> Cow<'a, [u8]> {
        if !self.has_gaps {
            return Cow::Borrowed(self.block);
        }
        let mut out = Vec::with_capacity(self.block.len());
        let mut writer = Writer::to(&mut out);
        property::checked(self.block).filter(Property::is_forwarded).for_each(|property| property.write(&mut writer));
        Cow::Owned(out)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.block.is_empty()
    }

    /// Whether the publisher says that the payload is UTF-8 (payload format indicator 1).
    pub fn payload_is_text(&self) -> bool {
        self.payload_format() == Some(true)
    }

    /// The payload format indicator as it was sent: `Some(true)` is UTF-8, `Some(false)` unspecified bytes.
    pub fn payload_format(&self) -> Option<bool> {
        self.find(|property| if let Property::PayloadFormat(text) = property { Some(text) } else { None })
    }

    /// What the payload is, in the application's words.
    pub fn content_type(&self) -> Option<&'a str> {
        self.find(|property| if let Property::ContentType(text) = property { Some(text) } else { None })
    }

    /// Where an answer goes.
    pub fn response_topic(&self) -> Option<&'a str> {
        self.find(|property| if let Property::ResponseTopic(topic) = property { Some(topic) } else { None })
    }

    /// What the requester knows its request by.
    pub fn correlation_data(&self) -> Option<&'a [u8]> {
        self.find(|property| if let Property::CorrelationData(data) = property { Some(data) } else { None })
    }

    /// What the application attached; their order stays `[MQTT-3.3.2-18]`.
    pub fn user_properties(&self) -> UserProperties<'a> {
        UserProperties::from_block(self.block)
    }

    fn find<T>(&self, pick: impl Fn(Property<'a>) -> Option<T>) -> Option<T> {
        property::checked(self.block).find_map(pick)
    }
}

/// By meaning: only user properties have an order.
impl PartialEq for Forwarded<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.payload_format() == other.payload_format()
            && self.content_type() == other.content_type()
            && self.response_topic() == other.response_topic()
            && self.correlation_data() == other.correlation_data()
            && self.user_properties() == other.user_properties()
    }
}

impl Eq for Forwarded<'_> {}

impl std::fmt::Debug for Forwarded<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(property::checked(self.block).filter(Property::is_forwarded)).finish()
    }
}

/// Where the forwarded properties stand in a block, found while it is read.
#[derive(Debug, Default)]
pub(crate) struct ForwardedSpan {
    range: Option<(usize, usize)>,
    has_gaps: bool,
}

impl ForwardedSpan {
    pub(crate) fn add(&mut self, start: usize, end: usize) {
        let (first, last) = self.range.unwrap_or((start, start));
        self.has_gaps |= last != start;
        self.range = Some((first, end));
    }

    pub(crate) fn of(self, block: &[u8]) -> Forwarded<'_> {
        let (start, end) = self.range.unwrap_or((0, 0));
        Forwarded { block: &block[start..end], has_gaps: self.has_gaps }
    }
}

/// Forwarded properties in parts, to be encoded by who publishes.
#[derive(Clone, Copy, Debug, Default)]
pub struct ForwardedParts<'a> {
    /// See [`Forwarded::payload_format`].
    pub payload_format: Option<bool>,
    /// See [`Forwarded::content_type`].
    pub content_type: Option<&'a str>,
    /// See [`Forwarded::response_topic`].
    pub response_topic: Option<&'a str>,
    /// See [`Forwarded::correlation_data`].
    pub correlation_data: Option<&'a [u8]>,
    /// See [`Forwarded::user_properties`].
    pub user_properties: UserProperties<'a>,
}

impl ForwardedParts<'_> {
    /// Their encoding, for [`Forwarded::from_stored`] and `base::Message::properties`.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = Writer::to(&mut out);
        writer.property(self.payload_format.map(Property::PayloadFormat));
        writer.property(self.content_type.map(Property::ContentType));
        writer.property(self.response_topic.map(Property::ResponseTopic));
        writer.property(self.correlation_data.map(Property::CorrelationData));
        self.user_properties.write(&mut writer);
        out
    }
}

/// How a head names its topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadTopic<'a> {
    /// In full.
    Name(&'a str),
    /// By an alias that the receiver knows (MQTT 5).
    Alias(NonZeroU16),
    /// In full, and the alias stands for it from now on (MQTT 5).
    NameAndAlias(&'a str, NonZeroU16),
}

impl<'a> HeadTopic<'a> {
    fn name(self) -> &'a str {
        match self {
            Self::Name(name) | Self::NameAndAlias(name, _) => name,
            Self::Alias(_) => "",
        }
    }

    fn alias(self) -> Option<NonZeroU16> {
        match self {
            Self::Name(_) => None,
            Self::Alias(alias) | Self::NameAndAlias(_, alias) => Some(alias),
        }
    }
}

/// What differs between the recipients of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishHead<'a> {
    /// Sent before.
    pub dup: bool,
    /// Level of this hop.
    pub qos: Qos,
    /// Retain flag for this recipient.
    pub retain: bool,
    /// The topic.
    pub topic: HeadTopic<'a>,
    /// Packet identifier: present exactly if the level is not 0.
    pub tag: Option<Tag>,
    /// Seconds that are left.
    pub message_expiry: Option<u32>,
    /// Identifiers of the matching subscriptions.
    pub subscription_identifiers: &'a [SubscriptionIdentifier],
}

impl PublishHead<'_> {
    fn own_properties_len(&self) -> usize {
        let identifiers = self.subscription_identifiers.iter().map(|id| 1 + variable_int_size(id.get() as usize));
        usize::from(self.message_expiry.is_some()) * 5
            + usize::from(self.topic.alias().is_some()) * 3
            + identifiers.sum::<usize>()
    }

    fn body_len(&self, version: Version, properties_len: usize, payload_len: usize) -> usize {
        let properties = if version.is_v5() {
            let len = self.own_properties_len() + properties_len;
            variable_int_size(len) + len
        } else {
            0
        };
        2 + self.topic.name().len() + usize::from(self.tag.is_some()) * 2 + properties + payload_len
    }
}

/// Size of the whole packet, to compare with the receiver's maximum packet size before writing `[MQTT-3.1.2-24]`.
/// `properties_len` is that of the forwarded properties; it counts for MQTT 5 only.
pub fn publish_size(version: Version, head: &PublishHead<'_>, properties_len: usize, payload_len: usize) -> usize {
    packet_size(head.body_len(version, properties_len, payload_len))
}

/// Appends everything but the payload, which the caller appends or gathers. `properties` are forwarded ones (MQTT 5;
/// left out for older versions, as are expiry, alias and identifiers).
///
/// Returns where the tag stands, counted from the packet's first byte, for [`patch_tag`] on copies of the packet.
pub fn encode_publish_head(
    version: Version,
    head: &PublishHead<'_>,
    properties: &[u8],
    payload_len: usize,
    out: &mut Vec<u8>,
) -> Option<usize> {
    debug_assert_eq!(head.qos.is_acknowledged(), head.tag.is_some(), "[MQTT-2.2.1-2]");
    debug_assert!(version.is_v5() || !matches!(head.topic, HeadTopic::Alias(_)), "no alias before MQTT 5");
    let start = out.len();
    let body_len = head.body_len(version, properties.len(), payload_len);
    out.reserve(packet_size(body_len) - payload_len);
    out.push(first_byte(head.dup, head.qos, head.retain));
    push_variable_int(out, remaining_length(body_len));
    let name = head.topic.name();
    out.extend_from_slice(&length_prefix(name.len()).to_be_bytes());
    out.extend_from_slice(name.as_bytes());
    let tag_offset = head.tag.map(|tag| {
        out.extend_from_slice(&tag.get().to_be_bytes());
        out.len() - 2 - start
    });
    if version.is_v5() {
        push_variable_int(out, remaining_length(head.own_properties_len() + properties.len()));
        push_own_properties(head, out);
        out.extend_from_slice(properties);
    }
    tag_offset
}

fn push_own_properties(head: &PublishHead<'_>, out: &mut Vec<u8>) {
    let mut writer = Writer::to(out);
    writer.property(head.message_expiry.map(Property::MessageExpiry));
    writer.property(head.topic.alias().map(Property::TopicAlias));
    for &identifier in head.subscription_identifiers {
        Property::SubscriptionIdentifier(identifier).write(&mut writer);
    }
}

fn push_variable_int(out: &mut Vec<u8>, value: u32) {
    let (bytes, len) = variable_int(value);
    out.extend_from_slice(&bytes[..len]);
}

/// Writes another tag into an encoded PUBLISH, at the offset that [`encode_publish_head`] returned.
///
/// # Panics
/// If the packet is too short to hold it there.
pub fn patch_tag(packet: &mut [u8], tag_offset: usize, tag: Tag) {
    packet[tag_offset..tag_offset + 2].copy_from_slice(&tag.get().to_be_bytes());
}
