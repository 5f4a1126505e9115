//! CONNECT and CONNACK (MQTT 5, sections 3.1 and 3.2; 3.1 is MQTT 3.1's own, laxer, text).

use std::num::{NonZeroU16, NonZeroU32};

use postroad_base::{Qos, ReasonCode};

use super::ack::read_reason;
use super::property::{Block, Property, Set, UserProperties, has_wildcard};
use super::publish::{Forwarded, ForwardedSpan};
use super::reader::Reader;
use super::writer::Writer;
use super::{DecodeError, PacketType, Result, Version};

const USER_NAME: u8 = 0b1000_0000;
const PASSWORD: u8 = 0b0100_0000;
const WILL_RETAIN: u8 = 0b0010_0000;
const WILL_QOS: u8 = 0b0001_1000;
const WILL: u8 = 0b0000_0100;
const CLEAN_START: u8 = 0b0000_0010;
const RESERVED: u8 = 0b0000_0001;

/// A client introduces itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect<'a> {
    /// What it speaks.
    pub version: Version,
    /// End the session that is there (MQTT 3: clean session, which also ends the new one with its connection).
    pub clean_start: bool,
    /// Seconds; 0 is none.
    pub keep_alive: u16,
    /// May be empty: the server chooses, or refuses.
    pub client_id: &'a str,
    /// What to publish if the connection dies.
    pub will: Option<WillPacket<'a>>,
    /// User name.
    pub username: Option<&'a str>,
    /// Password; on MQTT 3 only with a user name.
    pub password: Option<&'a [u8]>,
    /// MQTT 5 only.
    pub properties: ConnectProperties<'a>,
}

/// The will within a CONNECT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WillPacket<'a> {
    /// Where to: no wildcards, not empty.
    pub topic: &'a str,
    /// The bytes.
    pub payload: &'a [u8],
    /// At which level.
    pub qos: Qos,
    /// Whether to retain it.
    pub retain: bool,
    /// Seconds between the end of the connection and the publication.
    pub delay_seconds: u32,
    /// Seconds that the message is worth delivering.
    pub message_expiry: Option<u32>,
    /// What travels with the message unchanged.
    pub forwarded: Forwarded<'a>,
}

/// Properties of a CONNECT (section 3.1.2.11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectProperties<'a> {
    /// Seconds that the session outlives the connection; absent is 0, `u32::MAX` for ever.
    pub session_expiry: Option<u32>,
    /// Acknowledged publications that the client takes at a time; absent is 65,535.
    pub receive_maximum: Option<NonZeroU16>,
    /// Largest packet that the client takes; absent is no limit.
    pub maximum_packet_size: Option<NonZeroU32>,
    /// Highest topic alias that the client takes; 0 is none.
    pub topic_alias_maximum: u16,
    /// Whether the client would like response information in CONNACK.
    pub request_response_information: bool,
    /// Whether reason strings and user properties may come in any packet; absent is yes.
    pub request_problem_information: bool,
    /// What the application attached.
    pub user_properties: UserProperties<'a>,
    /// Name of an enhanced authentication's method.
    pub authentication_method: Option<&'a str>,
    /// What that method says first.
    pub authentication_data: Option<&'a [u8]>,
}

impl Default for ConnectProperties<'_> {
    fn default() -> Self {
        Self {
            session_expiry: None,
            receive_maximum: None,
            maximum_packet_size: None,
            topic_alias_maximum: 0,
            request_response_information: false,
            request_problem_information: true,
            user_properties: UserProperties::NONE,
            authentication_method: None,
            authentication_data: None,
        }
    }
}

impl Version {
    /// Protocol name and level. An unknown pair is 0x84, so that the server can say so `[MQTT-3.1.2-1]`, `[MQTT-3.1.2-2]`.
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self> {
        let name = reader.binary()?;
        match (name, reader.byte()?) {
            (b"MQTT", 5) => Ok(Self::V5),
            (b"MQTT", 4) => Ok(Self::V3_1_1),
            (b"MQIsdp", 3) => Ok(Self::V3_1),
            _ => Err(DecodeError {
                reason: ReasonCode::UnsupportedProtocolVersion,
                detail: "protocol name and level are not those of MQTT 3.1, 3.1.1 or 5.0",
            }),
        }
    }
}

impl<'a> Connect<'a> {
    /// A CONNECT with nothing but these.
    pub fn new(version: Version, client_id: &'a str) -> Self {
        Self {
            version,
            clean_start: true,
            keep_alive: 0,
            client_id,
            will: None,
            username: None,
            password: None,
            properties: ConnectProperties::default(),
        }
    }

    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self> {
        let version = Version::read(reader)?;
        let flags = reader.byte()?;
        check_flags(flags, version)?;
        let keep_alive = reader.u16()?;
        let properties = if version.is_v5() { ConnectProperties::read(reader)? } else { ConnectProperties::default() };
        let client_id = reader.text()?; // [MQTT-3.1.3-3], [MQTT-3.1.3-4]
        let will = if flags & WILL != 0 { Some(WillPacket::read(flags, reader, version)?) } else { None };
        // MQTT 3.1, section 3.1: the remaining length takes precedence over these two flags.
        let present = |flag, reader: &Reader<'_>| flags & flag != 0 && !(version == Version::V3_1 && reader.is_empty());
        let username = if present(USER_NAME, reader) { Some(reader.text()?) } else { None }; // [MQTT-3.1.3-12]
        let password = if present(PASSWORD, reader) { Some(reader.binary()?) } else { None };
        let clean_start = flags & CLEAN_START != 0;
        Ok(Self { version, clean_start, keep_alive, client_id, will, username, password, properties })
    }

    pub(crate) fn write_body(&self, writer: &mut Writer<'_>) {
        writer.text(self.version.protocol_name());
        writer.byte(self.version.level());
        writer.byte(self.flags());
        writer.u16(self.keep_alive);
        if self.version.is_v5() {
            writer.properties(|writer| self.properties.write(writer));
        }
        writer.text(self.client_id);
        if let Some(will) = &self.will {
            will.write(self.version, writer);
        }
        if let Some(username) = self.username {
            writer.text(username);
        }
        if let Some(password) = self.password {
            writer.binary(password);
        }
    }

    fn flags(&self) -> u8 {
        let present = |flag, is_present| if is_present { flag } else { 0 };
        let will = self.will.map_or(0, |will| WILL | will.qos.number() << 3 | present(WILL_RETAIN, will.retain));
        present(USER_NAME, self.username.is_some())
            | present(PASSWORD, self.password.is_some())
            | present(CLEAN_START, self.clean_start)
            | will
    }
}

/// MQTT 3.1 calls the reserved bit unused, and says nothing of will bits without a will.
fn check_flags(flags: u8, version: Version) -> Result<()> {
    if flags & WILL_QOS == WILL_QOS {
        return Err(DecodeError::malformed("will QoS is 3")); // [MQTT-3.1.2-12]
    }
    if flags & RESERVED != 0 && version != Version::V3_1 {
        return Err(DecodeError::malformed("reserved flag of CONNECT is set")); // [MQTT-3.1.2-3]
    }
    if flags & WILL == 0 && flags & (WILL_QOS | WILL_RETAIN) != 0 && version != Version::V3_1 {
        return Err(DecodeError::malformed("will QoS or will retain without a will")); // [MQTT-3.1.2-11], [MQTT-3.1.2-13]
    }
    if flags & PASSWORD != 0 && flags & USER_NAME == 0 && !version.is_v5() {
        return Err(DecodeError::malformed("password without a user name")); // [MQTT-3.1.2-22] of 3.1.1
    }
    Ok(())
}

impl<'a> ConnectProperties<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self> {
        let mut block = Block::open(reader, Set::CONNECT)?;
        let mut properties = Self { user_properties: UserProperties::from_block(block.bytes()), ..Self::default() };
        while let Some(property) = block.next()? {
            match property {
                Property::SessionExpiry(seconds) => properties.session_expiry = Some(seconds),
                Property::ReceiveMaximum(count) => properties.receive_maximum = Some(count),
                Property::MaximumPacketSize(size) => properties.maximum_packet_size = Some(size),
                Property::TopicAliasMaximum(alias) => properties.topic_alias_maximum = alias,
                Property::RequestResponseInformation(wanted) => properties.request_response_information = wanted,
                Property::RequestProblemInformation(wanted) => properties.request_problem_information = wanted,
                Property::AuthenticationMethod(method) => properties.authentication_method = Some(method),
                Property::AuthenticationData(data) => properties.authentication_data = Some(data),
                _ => {}
            }
        }
        if properties.authentication_data.is_some() && properties.authentication_method.is_none() {
            return Err(DecodeError::protocol("authentication data without a method")); // section 3.1.2.11.10
        }
        Ok(properties)
    }

    fn write(&self, writer: &mut Writer<'_>) {
        writer.property(self.session_expiry.map(Property::SessionExpiry));
        writer.property(self.receive_maximum.map(Property::ReceiveMaximum));
        writer.property(self.maximum_packet_size.map(Property::MaximumPacketSize));
        writer.property(unless(self.topic_alias_maximum, 0).map(Property::TopicAliasMaximum));
        writer.property(unless(self.request_response_information, false).map(Property::RequestResponseInformation));
        writer.property(unless(self.request_problem_information, true).map(Property::RequestProblemInformation));
        writer.property(self.authentication_method.map(Property::AuthenticationMethod));
        writer.property(self.authentication_data.map(Property::AuthenticationData));
        self.user_properties.write(writer);
    }
}

/// A value that is its default is not written.
fn unless<T: PartialEq>(value: T, default: T) -> Option<T> {
    (value != default).then_some(value)
}

impl<'a> WillPacket<'a> {
    fn read(flags: u8, reader: &mut Reader<'a>, version: Version) -> Result<Self> {
        let qos = Qos::from_number((flags & WILL_QOS) >> 3).ok_or(DecodeError::malformed("will QoS is 3"))?;
        let mut will = Self {
            topic: "",
            payload: &[],
            qos,
            retain: flags & WILL_RETAIN != 0,
            delay_seconds: 0,
            message_expiry: None,
            forwarded: Forwarded::NONE,
        };
        if version.is_v5() {
            will.read_properties(reader)?;
        }
        will.topic = reader.text()?; // [MQTT-3.1.3-11]
        if will.topic.is_empty() || has_wildcard(will.topic) {
            return Err(DecodeError::topic("will topic is empty or holds a wildcard")); // [MQTT-4.7.1-1], [MQTT-4.7.3-1]
        }
        will.payload = reader.binary()?;
        Ok(will)
    }

    fn read_properties(&mut self, reader: &mut Reader<'a>) -> Result<()> {
        let mut block = Block::open(reader, Set::WILL)?;
        let mut span = ForwardedSpan::default();
        loop {
            let start = block.position();
            let Some(property) = block.next()? else { break };
            match property {
                Property::WillDelay(seconds) => self.delay_seconds = seconds,
                Property::MessageExpiry(seconds) => self.message_expiry = Some(seconds),
                _ => span.add(start, block.position()),
            }
        }
        self.forwarded = span.of(block.bytes());
        Ok(())
    }

    fn write(&self, version: Version, writer: &mut Writer<'_>) {
        if version.is_v5() {
            let forwarded = self.forwarded.bytes();
            writer.properties(|writer| {
                writer.property(unless(self.delay_seconds, 0).map(Property::WillDelay));
                writer.property(self.message_expiry.map(Property::MessageExpiry));
                writer.raw(&forwarded);
            });
        }
        writer.text(self.topic);
        writer.binary(self.payload);
    }
}

/// The server's answer to CONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// Whether the session was there already. Never together with a failure `[MQTT-3.2.2-6]`.
    pub session_present: bool,
    /// Whether it may come in. On MQTT 3 as the nearest of its six return codes.
    pub reason: ReasonCode,
    /// MQTT 5 only.
    pub properties: ConnAckProperties<'a>,
}

/// Properties of a CONNACK (section 3.2.2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnAckProperties<'a> {
    /// Seconds that the session outlives the connection, if not as asked.
    pub session_expiry: Option<u32>,
    /// Acknowledged publications that the server takes at a time; absent is 65,535.
    pub receive_maximum: Option<NonZeroU16>,
    /// Highest level that the server takes; absent is 2.
    pub maximum_qos: Option<Qos>,
    /// Whether it retains.
    pub retain_available: bool,
    /// Largest packet that the server takes.
    pub maximum_packet_size: Option<NonZeroU32>,
    /// The client identifier that the server chose.
    pub assigned_client_id: Option<&'a str>,
    /// Highest topic alias that the server takes; 0 is none.
    pub topic_alias_maximum: u16,
    /// The reason in words.
    pub reason_string: Option<&'a str>,
    /// What the application attached.
    pub user_properties: UserProperties<'a>,
    /// Whether filters may hold wildcards.
    pub wildcard_subscription_available: bool,
    /// Whether subscriptions may have identifiers.
    pub subscription_identifiers_available: bool,
    /// Whether subscriptions may be shared.
    pub shared_subscription_available: bool,
    /// Keep alive that the client must use instead of its own, in seconds.
    pub server_keep_alive: Option<u16>,
    /// Base of response topics.
    pub response_information: Option<&'a str>,
    /// Another server to go to.
    pub server_reference: Option<&'a str>,
    /// Name of an enhanced authentication's method.
    pub authentication_method: Option<&'a str>,
    /// What that method says last.
    pub authentication_data: Option<&'a [u8]>,
}

impl Default for ConnAckProperties<'_> {
    fn default() -> Self {
        Self {
            session_expiry: None,
            receive_maximum: None,
            maximum_qos: None,
            retain_available: true,
            maximum_packet_size: None,
            assigned_client_id: None,
            topic_alias_maximum: 0,
            reason_string: None,
            user_properties: UserProperties::NONE,
            wildcard_subscription_available: true,
            subscription_identifiers_available: true,
            shared_subscription_available: true,
            server_keep_alive: None,
            response_information: None,
            server_reference: None,
            authentication_method: None,
            authentication_data: None,
        }
    }
}

impl<'a> ConnAck<'a> {
    /// Only an outcome.
    pub fn new(session_present: bool, reason: ReasonCode) -> Self {
        Self { session_present, reason, properties: ConnAckProperties::default() }
    }

    pub(crate) fn read(reader: &mut Reader<'a>, version: Version) -> Result<Self> {
        let flags = reader.byte()?;
        if flags & !1 != 0 && version != Version::V3_1 {
            return Err(DecodeError::malformed("reserved flags of CONNACK are set")); // [MQTT-3.2.2-1]
        }
        let session_present = flags & 1 != 0 && version != Version::V3_1;
        let reason =
            if version.is_v5() { read_reason(PacketType::ConnAck, reader)? } else { v3_reason(reader.byte()?)? };
        if session_present && reason.is_error() {
            return Err(DecodeError::protocol("session present in a refusal")); // [MQTT-3.2.2-6]
        }
        let properties = if version.is_v5() { ConnAckProperties::read(reader)? } else { ConnAckProperties::default() };
        Ok(Self { session_present, reason, properties })
    }

    pub(crate) fn write_body(&self, version: Version, writer: &mut Writer<'_>) {
        let session_present = self.session_present && !self.reason.is_error() && version != Version::V3_1;
        writer.byte(session_present.into());
        if !version.is_v5() {
            writer.byte(v3_return_code(self.reason));
            return;
        }
        writer.byte(self.reason.number());
        writer.properties(|writer| self.properties.write(writer));
    }
}

fn v3_reason(return_code: u8) -> Result<ReasonCode> {
    Ok(match return_code {
        0 => ReasonCode::Success,
        1 => ReasonCode::UnsupportedProtocolVersion,
        2 => ReasonCode::ClientIdentifierNotValid,
        3 => ReasonCode::ServerUnavailable,
        4 => ReasonCode::BadUserNameOrPassword,
        5 => ReasonCode::NotAuthorized,
        _ => return Err(DecodeError::protocol("return code is reserved")),
    })
}

/// The nearest of MQTT 3's six return codes (3.1.1, section 3.2.2.3).
fn v3_return_code(reason: ReasonCode) -> u8 {
    match reason {
        reason if !reason.is_error() => 0,
        ReasonCode::UnsupportedProtocolVersion => 1,
        ReasonCode::ClientIdentifierNotValid => 2,
        ReasonCode::BadUserNameOrPassword => 4,
        ReasonCode::NotAuthorized | ReasonCode::Banned | ReasonCode::BadAuthenticationMethod => 5,
        _ => 3,
    }
}

impl<'a> ConnAckProperties<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self> {
        let mut block = Block::open(reader, Set::CONNACK)?;
        let mut properties = Self { user_properties: UserProperties::from_block(block.bytes()), ..Self::default() };
        while let Some(property) = block.next()? {
            properties.set(property);
        }
        Ok(properties)
    }

    fn set(&mut self, property: Property<'a>) {
        match property {
            Property::SessionExpiry(seconds) => self.session_expiry = Some(seconds),
            Property::ReceiveMaximum(count) => self.receive_maximum = Some(count),
            Property::MaximumQos(qos) => self.maximum_qos = Some(qos),
            Property::RetainAvailable(available) => self.retain_available = available,
            Property::MaximumPacketSize(size) => self.maximum_packet_size = Some(size),
            Property::AssignedClientId(id) => self.assigned_client_id = Some(id),
            Property::TopicAliasMaximum(alias) => self.topic_alias_maximum = alias,
            Property::ReasonString(text) => self.reason_string = Some(text),
            Property::WildcardSubscriptionAvailable(available) => self.wildcard_subscription_available = available,
            Property::SubscriptionIdentifiersAvailable(available) => {
                self.subscription_identifiers_available = available
            }
            Property::SharedSubscriptionAvailable(available) => self.shared_subscription_available = available,
            Property::ServerKeepAlive(seconds) => self.server_keep_alive = Some(seconds),
            Property::ResponseInformation(text) => self.response_information = Some(text),
            Property::ServerReference(text) => self.server_reference = Some(text),
            Property::AuthenticationMethod(method) => self.authentication_method = Some(method),
            Property::AuthenticationData(data) => self.authentication_data = Some(data),
            _ => {}
        }
    }

    fn write(&self, writer: &mut Writer<'_>) {
        let unavailable = |available| unless(available, true);
        writer.property(self.session_expiry.map(Property::SessionExpiry));
        writer.property(self.receive_maximum.map(Property::ReceiveMaximum));
        // Absent is 2, and 2 can't be said (section 3.2.2.3.4).
        writer.property(self.maximum_qos.filter(|&qos| qos != Qos::ExactlyOnce).map(Property::MaximumQos));
        writer.property(unavailable(self.retain_available).map(Property::RetainAvailable));
        writer.property(self.maximum_packet_size.map(Property::MaximumPacketSize));
        writer.property(self.assigned_client_id.map(Property::AssignedClientId));
        writer.property(unless(self.topic_alias_maximum, 0).map(Property::TopicAliasMaximum));
        writer.property(self.reason_string.map(Property::ReasonString));
        self.user_properties.write(writer);
        writer.property(unavailable(self.wildcard_subscription_available).map(Property::WildcardSubscriptionAvailable));
        writer.property(
            unavailable(self.subscription_identifiers_available).map(Property::SubscriptionIdentifiersAvailable),
        );
        writer.property(unavailable(self.shared_subscription_available).map(Property::SharedSubscriptionAvailable));
        writer.property(self.server_keep_alive.map(Property::ServerKeepAlive));
        writer.property(self.response_information.map(Property::ResponseInformation));
        writer.property(self.server_reference.map(Property::ServerReference));
        writer.property(self.authentication_method.map(Property::AuthenticationMethod));
        writer.property(self.authentication_data.map(Property::AuthenticationData));
    }
}
