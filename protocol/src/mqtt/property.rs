//! The properties of MQTT 5 (section 2.2.2): one table for reading and writing all of them.
//!
//! A block of properties is a length and then `identifier, value` pairs. Identifiers are below 64, so "allowed in this
//! packet" and "seen before" are bit sets.

use std::num::{NonZeroU16, NonZeroU32};

use postroad_base::{Qos, ReasonCode, SubscriptionIdentifier};

use super::reader::Reader;
use super::writer::Writer;
use super::{DecodeError, REMAINING_LENGTH_MAX, Result};

/// One property with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Property<'a> {
    PayloadFormat(bool),
    MessageExpiry(u32),
    ContentType(&'a str),
    ResponseTopic(&'a str),
    CorrelationData(&'a [u8]),
    SubscriptionIdentifier(SubscriptionIdentifier),
    SessionExpiry(u32),
    AssignedClientId(&'a str),
    ServerKeepAlive(u16),
    AuthenticationMethod(&'a str),
    AuthenticationData(&'a [u8]),
    RequestProblemInformation(bool),
    WillDelay(u32),
    RequestResponseInformation(bool),
    ResponseInformation(&'a str),
    ServerReference(&'a str),
    ReasonString(&'a str),
    ReceiveMaximum(NonZeroU16),
    TopicAliasMaximum(u16),
    TopicAlias(NonZeroU16),
    MaximumQos(Qos),
    RetainAvailable(bool),
    User(&'a str, &'a str),
    MaximumPacketSize(NonZeroU32),
    WildcardSubscriptionAvailable(bool),
    SubscriptionIdentifiersAvailable(bool),
    SharedSubscriptionAvailable(bool),
}

/// A set of property identifiers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Set(u64);

impl Set {
    const fn of(identifiers: &[u8]) -> Self {
        let (mut bits, mut index) = (0, 0);
        while index < identifiers.len() {
            bits |= 1 << identifiers[index];
            index += 1;
        }
        Self(bits)
    }

    const fn holds(self, identifier: u8) -> bool {
        identifier < 64 && self.0 & 1 << identifier != 0
    }

    pub(crate) const CONNECT: Self = Self::of(&[0x11, 0x15, 0x16, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27]);
    pub(crate) const CONNACK: Self = Self::of(&[
        0x11, 0x12, 0x13, 0x15, 0x16, 0x1a, 0x1c, 0x1f, 0x21, 0x22, 0x24, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2a,
    ]);
    pub(crate) const PUBLISH: Self = Self::of(&[0x01, 0x02, 0x03, 0x08, 0x09, 0x0b, 0x23, 0x26]);
    pub(crate) const WILL: Self = Self::of(&[0x01, 0x02, 0x03, 0x08, 0x09, 0x18, 0x26]);
    /// PUBACK, PUBREC, PUBREL, PUBCOMP, SUBACK, UNSUBACK.
    pub(crate) const ACK: Self = Self::of(&[0x1f, 0x26]);
    pub(crate) const SUBSCRIBE: Self = Self::of(&[0x0b, 0x26]);
    pub(crate) const UNSUBSCRIBE: Self = Self::of(&[0x26]);
    pub(crate) const DISCONNECT: Self = Self::of(&[0x11, 0x1c, 0x1f, 0x26]);
    pub(crate) const AUTH: Self = Self::of(&[0x15, 0x16, 0x1f, 0x26]);
    /// What travels with a message unchanged.
    pub(crate) const FORWARDED: Self = Self::of(&[0x01, 0x03, 0x08, 0x09, 0x26]);
    /// User properties; of a PUBLISH also subscription identifiers.
    const REPEATABLE: Self = Self::of(&[0x26]);
    const REPEATABLE_IN_PUBLISH: Self = Self::of(&[0x0b, 0x26]);
}

impl<'a> Property<'a> {
    /// Reads the value of the property `identifier`, which the caller has found allowed.
    fn read(identifier: u8, reader: &mut Reader<'a>) -> Result<Self> {
        Ok(match identifier {
            0x01 => Self::PayloadFormat(flag(reader)?),
            0x02 => Self::MessageExpiry(reader.u32()?),
            0x03 => Self::ContentType(reader.text()?),
            0x08 => Self::ResponseTopic(response_topic(reader)?),
            0x09 => Self::CorrelationData(reader.binary()?),
            0x0b => Self::SubscriptionIdentifier(
                NonZeroU32::new(reader.variable_int()?).ok_or(DecodeError::protocol("subscription identifier is 0"))?,
            ),
            0x11 => Self::SessionExpiry(reader.u32()?),
            0x12 => Self::AssignedClientId(reader.text()?),
            0x13 => Self::ServerKeepAlive(reader.u16()?),
            0x15 => Self::AuthenticationMethod(reader.text()?),
            0x16 => Self::AuthenticationData(reader.binary()?),
            0x17 => Self::RequestProblemInformation(flag(reader)?),
            0x18 => Self::WillDelay(reader.u32()?),
            0x19 => Self::RequestResponseInformation(flag(reader)?),
            0x1a => Self::ResponseInformation(reader.text()?),
            0x1c => Self::ServerReference(reader.text()?),
            0x1f => Self::ReasonString(reader.text()?),
            0x21 => Self::ReceiveMaximum(
                NonZeroU16::new(reader.u16()?).ok_or(DecodeError::protocol("receive maximum is 0"))?,
            ),
            0x22 => Self::TopicAliasMaximum(reader.u16()?),
            0x23 => Self::TopicAlias(topic_alias(reader)?),
            0x24 => Self::MaximumQos(if flag(reader)? { Qos::AtLeastOnce } else { Qos::AtMostOnce }),
            0x25 => Self::RetainAvailable(flag(reader)?),
            0x26 => Self::User(reader.text()?, reader.text()?),
            0x27 => Self::MaximumPacketSize(
                NonZeroU32::new(reader.u32()?).ok_or(DecodeError::protocol("maximum packet size is 0"))?,
            ),
            0x28 => Self::WildcardSubscriptionAvailable(flag(reader)?),
            0x29 => Self::SubscriptionIdentifiersAvailable(flag(reader)?),
            0x2a => Self::SharedSubscriptionAvailable(flag(reader)?),
            _ => return Err(FOREIGN),
        })
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        writer.byte(self.identifier());
        match *self {
            Self::PayloadFormat(flag)
            | Self::RequestProblemInformation(flag)
            | Self::RequestResponseInformation(flag)
            | Self::RetainAvailable(flag)
            | Self::WildcardSubscriptionAvailable(flag)
            | Self::SubscriptionIdentifiersAvailable(flag)
            | Self::SharedSubscriptionAvailable(flag) => writer.byte(flag.into()),
            Self::MaximumQos(qos) => writer.byte(qos.number().min(1)),
            Self::MessageExpiry(seconds) | Self::SessionExpiry(seconds) | Self::WillDelay(seconds) => {
                writer.u32(seconds);
            }
            Self::MaximumPacketSize(size) => writer.u32(size.get()),
            Self::ContentType(text)
            | Self::ResponseTopic(text)
            | Self::AssignedClientId(text)
            | Self::AuthenticationMethod(text)
            | Self::ResponseInformation(text)
            | Self::ServerReference(text)
            | Self::ReasonString(text) => writer.text(text),
            Self::CorrelationData(bytes) | Self::AuthenticationData(bytes) => writer.binary(bytes),
            Self::SubscriptionIdentifier(identifier) => writer.variable_int(identifier.get().min(REMAINING_LENGTH_MAX)),
            Self::ServerKeepAlive(number) | Self::TopicAliasMaximum(number) => writer.u16(number),
            Self::ReceiveMaximum(number) | Self::TopicAlias(number) => writer.u16(number.get()),
            Self::User(name, value) => {
                writer.text(name);
                writer.text(value);
            }
        }
    }

    fn identifier(&self) -> u8 {
        match self {
            Self::PayloadFormat(_) => 0x01,
            Self::MessageExpiry(_) => 0x02,
            Self::ContentType(_) => 0x03,
            Self::ResponseTopic(_) => 0x08,
            Self::CorrelationData(_) => 0x09,
            Self::SubscriptionIdentifier(_) => 0x0b,
            Self::SessionExpiry(_) => 0x11,
            Self::AssignedClientId(_) => 0x12,
            Self::ServerKeepAlive(_) => 0x13,
            Self::AuthenticationMethod(_) => 0x15,
            Self::AuthenticationData(_) => 0x16,
            Self::RequestProblemInformation(_) => 0x17,
            Self::WillDelay(_) => 0x18,
            Self::RequestResponseInformation(_) => 0x19,
            Self::ResponseInformation(_) => 0x1a,
            Self::ServerReference(_) => 0x1c,
            Self::ReasonString(_) => 0x1f,
            Self::ReceiveMaximum(_) => 0x21,
            Self::TopicAliasMaximum(_) => 0x22,
            Self::TopicAlias(_) => 0x23,
            Self::MaximumQos(_) => 0x24,
            Self::RetainAvailable(_) => 0x25,
            Self::User(..) => 0x26,
            Self::MaximumPacketSize(_) => 0x27,
            Self::WildcardSubscriptionAvailable(_) => 0x28,
            Self::SubscriptionIdentifiersAvailable(_) => 0x29,
            Self::SharedSubscriptionAvailable(_) => 0x2a,
        }
    }

    pub(crate) fn is_forwarded(&self) -> bool {
        Set::FORWARDED.holds(self.identifier())
    }
}

/// `[MQTT-2.2.2.2]` An identifier that the packet does not have makes it malformed.
const FOREIGN: DecodeError = DecodeError::malformed("property is unknown or not allowed in this packet");

fn flag(reader: &mut Reader<'_>) -> Result<bool> {
    match reader.byte()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::protocol("property must be 0 or 1")),
    }
}

/// `[MQTT-3.3.2-14]` No wildcards; `[MQTT-3.3.2-13]` UTF-8.
fn response_topic<'a>(reader: &mut Reader<'a>) -> Result<&'a str> {
    let topic = reader.text()?;
    if topic.is_empty() || has_wildcard(topic) {
        return Err(DecodeError::protocol("response topic is empty or holds a wildcard"));
    }
    Ok(topic)
}

pub(crate) fn has_wildcard(topic: &str) -> bool {
    topic.bytes().any(|byte| matches!(byte, b'+' | b'#'))
}

/// `[MQTT-3.3.2-8]`
fn topic_alias(reader: &mut Reader<'_>) -> Result<NonZeroU16> {
    NonZeroU16::new(reader.u16()?)
        .ok_or(DecodeError { reason: ReasonCode::TopicAliasInvalid, detail: "topic alias is 0" })
}

/// Reads a block, checking each property against the packet's set and for repetition.
#[derive(Debug)]
pub(crate) struct Block<'a> {
    all: &'a [u8],
    reader: Reader<'a>,
    allowed: Set,
    repeatable: Set,
    seen: u64,
}

impl<'a> Block<'a> {
    /// Takes the block, with the length in front of it, off `reader`.
    pub(crate) fn open(reader: &mut Reader<'a>, allowed: Set) -> Result<Self> {
        let len = reader.variable_int()?;
        Ok(Self::over(reader.take(len as usize)?, allowed))
    }

    /// The block `all`, without a length in front.
    pub(crate) fn over(all: &'a [u8], allowed: Set) -> Self {
        Self { all, reader: Reader::new(all), allowed, repeatable: Set::REPEATABLE, seen: 0 }
    }

    pub(crate) fn of_publish(mut self) -> Self {
        self.repeatable = Set::REPEATABLE_IN_PUBLISH;
        self
    }

    /// The block's bytes.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.all
    }

    /// Offset of the property that comes next.
    pub(crate) fn position(&self) -> usize {
        self.all.len() - self.reader.rest().len()
    }

    pub(crate) fn next(&mut self) -> Result<Option<Property<'a>>> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        let identifier = self.reader.byte()?;
        if !self.allowed.holds(identifier) {
            return Err(FOREIGN);
        }
        if self.seen & 1 << identifier != 0 && !self.repeatable.holds(identifier) {
            return Err(DecodeError::protocol("property occurs twice"));
        }
        self.seen |= 1 << identifier;
        Property::read(identifier, &mut self.reader).map(Some)
    }
}

/// The properties of a block that was checked before. Ends early, and silently, on one that was not.
pub(crate) fn checked(block: &[u8]) -> impl Iterator<Item = Property<'_>> {
    let mut reader = Reader::new(block);
    std::iter::from_fn(move || {
        let identifier = reader.byte().ok()?;
        Property::read(identifier, &mut reader).ok()
    })
}

/// Name-value pairs that the application attached, in order; names may repeat.
#[derive(Clone, Copy)]
pub struct UserProperties<'a>(Source<'a>);

#[derive(Clone, Copy)]
enum Source<'a> {
    /// A checked block, in which only user properties count.
    Wire(&'a [u8]),
    Pairs(&'a [(&'a str, &'a str)]),
}

impl<'a> UserProperties<'a> {
    /// None.
    pub const NONE: Self = Self(Source::Wire(&[]));

    /// These, to be sent.
    pub fn from_pairs(pairs: &'a [(&'a str, &'a str)]) -> Self {
        Self(Source::Pairs(pairs))
    }

    pub(crate) fn from_block(block: &'a [u8]) -> Self {
        Self(Source::Wire(block))
    }

    /// The pairs, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let (block, pairs): (&[u8], &[_]) = match self.0 {
            Source::Wire(block) => (block, &[]),
            Source::Pairs(pairs) => (&[], pairs),
        };
        let on_the_wire = checked(block).filter_map(|property| match property {
            Property::User(name, value) => Some((name, value)),
            _ => None,
        });
        on_the_wire.chain(pairs.iter().copied())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    pub(crate) fn write(&self, writer: &mut Writer<'_>) {
        for (name, value) in self.iter() {
            Property::User(name, value).write(writer);
        }
    }
}

impl Default for UserProperties<'_> {
    fn default() -> Self {
        Self::NONE
    }
}

impl PartialEq for UserProperties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for UserProperties<'_> {}

impl std::fmt::Debug for UserProperties<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}
