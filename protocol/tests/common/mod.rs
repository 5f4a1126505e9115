//! Any valid packet of any version, for property tests.
//!
//! Packets borrow; what they borrow here is leaked, which a test process can afford.

#![allow(dead_code)] // each test file uses a part of it

use std::num::{NonZeroU16, NonZeroU32};

use postroad_base::{Qos, ReasonCode, RetainHandling, SubscriptionOptions, Tag};
use postroad_protocol::mqtt::*;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;

type Text = &'static str;

fn leak<T>(items: Vec<T>) -> &'static [T] {
    Vec::leak(items)
}

/// Text without U+0000, of one to four bytes per character.
pub fn text() -> impl Strategy<Value = Text> {
    let char_of = |low, high| proptest::char::range(low, high);
    let any_size = prop_oneof![
        char_of('\u{1}', '~'),
        char_of('\u{80}', '\u{7ff}'),
        char_of('\u{e000}', '\u{ffff}'),
        char_of('\u{10000}', '\u{10ffff}'),
    ];
    vec(any_size, 0..12).prop_map(|chars| &*String::leak(chars.into_iter().collect()))
}

pub fn topic() -> impl Strategy<Value = Text> {
    text().prop_map(|text| &*String::leak(format!("t{}", text.replace(['+', '#'], "/"))))
}

pub fn binary(max: usize) -> impl Strategy<Value = &'static [u8]> {
    vec(any::<u8>(), 0..max).prop_map(leak)
}

pub fn tag() -> impl Strategy<Value = Tag> {
    (1..=u16::MAX).prop_map(|number| Tag::new(number).expect("not 0"))
}

pub fn qos() -> impl Strategy<Value = Qos> {
    (0..=2_u8).prop_map(|number| Qos::from_number(number).expect("at most 2"))
}

fn nonzero_u16() -> impl Strategy<Value = NonZeroU16> {
    (1..=u16::MAX).prop_map(|number| NonZeroU16::new(number).expect("not 0"))
}

pub fn identifier() -> impl Strategy<Value = NonZeroU32> {
    (1..=REMAINING_LENGTH_MAX).prop_map(|number| NonZeroU32::new(number).expect("not 0"))
}

pub fn user() -> impl Strategy<Value = UserProperties<'static>> {
    vec((text(), text()), 0..3).prop_map(|pairs| UserProperties::from_pairs(leak(pairs)))
}

pub fn forwarded() -> impl Strategy<Value = Forwarded<'static>> {
    (of(any::<bool>()), of(text()), of(topic()), of(binary(20)), user()).prop_map(
        |(payload_format, content_type, response_topic, correlation_data, user_properties)| {
            let parts =
                ForwardedParts { payload_format, content_type, response_topic, correlation_data, user_properties };
            Forwarded::from_stored(leak(parts.encode()))
        },
    )
}

/// One of these codes.
fn reason(numbers: &'static [u8]) -> impl Strategy<Value = ReasonCode> {
    proptest::sample::select(numbers).prop_map(|number| ReasonCode::from_number(number).expect("known"))
}

pub fn publish(version: Version) -> impl Strategy<Value = Publish<'static>> {
    let properties =
        (of(any::<u32>()), of(nonzero_u16()), vec(identifier(), 0..4), forwarded()).prop_map(move |(e, a, ids, f)| {
            if !version.is_v5() {
                return PublishProperties::default();
            }
            PublishProperties { message_expiry: e, topic_alias: a, subscription_identifiers: ids.into(), forwarded: f }
        });
    (any::<[bool; 3]>(), qos(), topic(), tag(), binary(300), properties).prop_map(
        |([dup, retain, anonymous], qos, topic, tag, payload, properties)| Publish {
            dup: dup && qos.is_acknowledged(),
            qos,
            retain,
            topic: if anonymous && properties.topic_alias.is_some() { "" } else { topic },
            tag: qos.is_acknowledged().then_some(tag),
            payload,
            properties,
        },
    )
}

fn ack(version: Version, numbers: &'static [u8]) -> impl Strategy<Value = Ack<'static>> {
    (tag(), reason(numbers), of(text()), user()).prop_map(move |(tag, reason, reason_string, user_properties)| {
        if version.is_v5() {
            Ack { tag, reason, reason_string, user_properties }
        } else {
            Ack::new(tag, ReasonCode::Success)
        }
    })
}

fn will(version: Version) -> impl Strategy<Value = WillPacket<'static>> {
    (topic(), binary(40), qos(), any::<bool>(), any::<u32>(), of(any::<u32>()), forwarded()).prop_map(
        move |(topic, payload, qos, retain, delay_seconds, message_expiry, forwarded)| {
            let plain = WillPacket {
                topic,
                payload,
                qos,
                retain,
                delay_seconds: 0,
                message_expiry: None,
                forwarded: Forwarded::NONE,
            };
            if version.is_v5() { WillPacket { delay_seconds, message_expiry, forwarded, ..plain } } else { plain }
        },
    )
}

fn connect_properties() -> impl Strategy<Value = ConnectProperties<'static>> {
    let authentication = of((text(), of(binary(20))));
    (of(any::<u32>()), of(nonzero_u16()), of(identifier()), any::<u16>(), any::<[bool; 2]>(), user(), authentication)
        .prop_map(|(session_expiry, receive_maximum, maximum_packet_size, alias, wants, user_properties, auth)| {
            ConnectProperties {
                session_expiry,
                receive_maximum,
                maximum_packet_size,
                topic_alias_maximum: alias,
                request_response_information: wants[0],
                request_problem_information: wants[1],
                user_properties,
                authentication_method: auth.map(|(method, _)| method),
                authentication_data: auth.and_then(|(_, data)| data),
            }
        })
}

pub fn connect(version: Version) -> impl Strategy<Value = Connect<'static>> {
    (any::<bool>(), any::<u16>(), text(), of(will(version)), of(text()), of(binary(20)), connect_properties()).prop_map(
        move |(clean_start, keep_alive, client_id, will, username, password, properties)| Connect {
            version,
            clean_start,
            keep_alive,
            client_id,
            will,
            username,
            password: password.filter(|_| username.is_some() || version.is_v5()),
            properties: if version.is_v5() { properties } else { ConnectProperties::default() },
        },
    )
}

fn connack_properties() -> impl Strategy<Value = ConnAckProperties<'static>> {
    let numbers = (of(any::<u32>()), of(nonzero_u16()), of(identifier()), any::<u16>(), of(any::<u16>()));
    let texts = (of(text()), of(text()), of(text()), of(text()), of(text()), of(binary(9)), user());
    (numbers, texts, any::<[bool; 4]>(), of(0..=1_u8)).prop_map(|(numbers, texts, available, qos)| ConnAckProperties {
        session_expiry: numbers.0,
        receive_maximum: numbers.1,
        maximum_qos: qos.and_then(Qos::from_number),
        retain_available: available[0],
        maximum_packet_size: numbers.2,
        assigned_client_id: texts.0,
        topic_alias_maximum: numbers.3,
        reason_string: texts.1,
        user_properties: texts.6,
        wildcard_subscription_available: available[1],
        subscription_identifiers_available: available[2],
        shared_subscription_available: available[3],
        server_keep_alive: numbers.4,
        response_information: texts.2,
        server_reference: texts.3,
        authentication_method: texts.4,
        authentication_data: texts.5,
    })
}

fn connack(version: Version) -> impl Strategy<Value = ConnAck<'static>> {
    let numbers: &[u8] =
        if version.is_v5() { &[0, 0x80, 0x84, 0x8a, 0x8c, 0x95, 0x9f] } else { &[0, 0x84, 0x85, 0x88, 0x86, 0x87] };
    (any::<bool>(), reason(numbers), connack_properties()).prop_map(move |(present, reason, properties)| ConnAck {
        session_present: present && !reason.is_error() && version != Version::V3_1,
        reason,
        properties: if version.is_v5() { properties } else { ConnAckProperties::default() },
    })
}

fn options(version: Version) -> impl Strategy<Value = SubscriptionOptions> {
    let handling = prop_oneof![Just(RetainHandling::Always), Just(RetainHandling::IfNew), Just(RetainHandling::Never)];
    (qos(), any::<[bool; 2]>(), handling).prop_map(move |(qos, flags, retain_handling)| {
        let plain = SubscriptionOptions { qos, ..SubscriptionOptions::default() };
        if !version.is_v5() {
            return plain;
        }
        SubscriptionOptions { no_local: flags[0], retain_as_published: flags[1], retain_handling, ..plain }
    })
}

fn subscribe(version: Version) -> impl Strategy<Value = Subscribe<'static>> {
    (tag(), of(identifier()), user(), vec((text(), options(version)), 1..5)).prop_map(
        move |(tag, identifier, user_properties, filters)| Subscribe {
            tag,
            identifier: identifier.filter(|_| version.is_v5()),
            user_properties: if version.is_v5() { user_properties } else { UserProperties::NONE },
            filters,
        },
    )
}

fn unsubscribe(version: Version) -> impl Strategy<Value = Unsubscribe<'static>> {
    (tag(), user(), vec(text(), 1..5)).prop_map(move |(tag, user, filters)| Unsubscribe {
        tag,
        user_properties: if version.is_v5() { user } else { UserProperties::NONE },
        filters,
    })
}

fn suback(version: Version) -> impl Strategy<Value = SubAck<'static>> {
    let numbers: &[u8] = if version.is_v5() { &[0, 1, 2, 0x80, 0x87, 0x9e, 0xa2] } else { &[0, 1, 2, 0x80] };
    (tag(), vec(reason(numbers), 1..10), of(text()), user()).prop_map(move |(tag, reasons, text, user_properties)| {
        let plain = SubAck::new(tag, reasons.into());
        if version.is_v5() { SubAck { reason_string: text, user_properties, ..plain } } else { plain }
    })
}

fn unsuback(version: Version) -> impl Strategy<Value = UnsubAck<'static>> {
    (tag(), vec(reason(&[0, 0x11, 0x80, 0x91]), 1..10), of(text()), user()).prop_map(
        move |(tag, reasons, reason_string, user_properties)| {
            if version.is_v5() {
                UnsubAck { tag, reasons: reasons.into(), reason_string, user_properties }
            } else {
                UnsubAck::new(tag, Reasons::new())
            }
        },
    )
}

fn disconnect(version: Version) -> impl Strategy<Value = Disconnect<'static>> {
    (reason(&[0, 4, 0x81, 0x8e, 0xa2]), of(any::<u32>()), of(text()), of(text()), user()).prop_map(
        move |(reason, session_expiry, reason_string, server_reference, user_properties)| {
            if version.is_v5() {
                Disconnect { reason, session_expiry, reason_string, server_reference, user_properties }
            } else {
                Disconnect::new(ReasonCode::Success)
            }
        },
    )
}

fn auth() -> impl Strategy<Value = Auth<'static>> {
    (reason(&[0, 0x18, 0x19]), text(), of(binary(20)), of(text()), user()).prop_map(
        |(reason, method, authentication_data, reason_string, user_properties)| Auth {
            reason,
            authentication_method: Some(method),
            authentication_data,
            reason_string,
            user_properties,
        },
    )
}

/// Any packet that `version` can express.
pub fn packet(version: Version) -> BoxedStrategy<Packet<'static>> {
    const DELIVERY: &[u8] = &[0, 0x10, 0x80, 0x99];
    const RELEASE: &[u8] = &[0, 0x92];
    let common = prop_oneof![
        1 => connect(version).prop_map(|packet| Packet::Connect(Box::new(packet))),
        1 => connack(version).prop_map(|packet| Packet::ConnAck(Box::new(packet))),
        4 => publish(version).prop_map(Packet::Publish),
        1 => ack(version, DELIVERY).prop_map(Packet::PubAck),
        1 => ack(version, DELIVERY).prop_map(Packet::PubRec),
        1 => ack(version, RELEASE).prop_map(Packet::PubRel),
        1 => ack(version, RELEASE).prop_map(Packet::PubComp),
        1 => subscribe(version).prop_map(Packet::Subscribe),
        1 => suback(version).prop_map(Packet::SubAck),
        1 => unsubscribe(version).prop_map(Packet::Unsubscribe),
        1 => unsuback(version).prop_map(Packet::UnsubAck),
        1 => disconnect(version).prop_map(Packet::Disconnect),
        1 => Just(Packet::PingReq),
        1 => Just(Packet::PingResp),
    ];
    if version.is_v5() { prop_oneof![10 => common, 1 => auth().prop_map(Packet::Auth)].boxed() } else { common.boxed() }
}

pub fn version() -> impl Strategy<Value = Version> {
    proptest::sample::select(&Version::ALL[..])
}

pub fn encode(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    packet.encode(version, &mut out);
    out
}
