//! One packet of each type in hex, per version: the wire may not change unnoticed.

mod common;

use std::fmt::Write;
use std::num::{NonZeroU16, NonZeroU32};

use common::encode;
use expect_test::{Expect, expect};
use postroad_base::{Qos, ReasonCode, SubscriptionOptions, Tag};
use postroad_protocol::mqtt::*;

fn tag() -> Tag {
    Tag::new(0x0102).expect("not 0")
}

/// Writes the packet in each version, and reads it back.
fn check(packet: &Packet<'_>, expected: Expect) {
    let mut text = String::new();
    for version in Version::ALL {
        let auth = matches!(packet, Packet::Auth(_));
        if auth && !version.is_v5() {
            continue;
        }
        let packet = match packet {
            Packet::Connect(connect) => &Packet::Connect(Box::new(Connect { version, ..(**connect).clone() })),
            other => other,
        };
        let bytes = encode(packet, version);
        write!(text, "{}", version.level()).expect("a string takes all");
        bytes.iter().for_each(|byte| write!(text, " {byte:02x}").expect("a string takes all"));
        text.push('\n');
        let decoded = decode(&bytes, Some(version), PACKET_SIZE_MAX);
        assert!(matches!(decoded, Ok(Decoded::Packet { size, .. }) if size == bytes.len()), "{decoded:?}");
    }
    expected.assert_eq(&text);
}

#[test]
fn connect() {
    let forwarded = ForwardedParts { content_type: Some("x"), ..ForwardedParts::default() }.encode();
    let will = WillPacket {
        topic: "w",
        payload: b"bye",
        qos: Qos::AtLeastOnce,
        retain: true,
        delay_seconds: 5,
        message_expiry: None,
        forwarded: Forwarded::from_stored(&forwarded),
    };
    let properties = ConnectProperties {
        session_expiry: Some(60),
        receive_maximum: NonZeroU16::new(10),
        ..ConnectProperties::default()
    };
    let connect = Connect {
        keep_alive: 30,
        will: Some(will),
        username: Some("u"),
        password: Some(b"p"),
        properties,
        ..Connect::new(Version::V5, "c")
    };
    check(
        &Packet::Connect(Box::new(connect)),
        expect![[r#"
        3 10 1d 00 06 4d 51 49 73 64 70 03 ee 00 1e 00 01 63 00 01 77 00 03 62 79 65 00 01 75 00 01 70
        4 10 1b 00 04 4d 51 54 54 04 ee 00 1e 00 01 63 00 01 77 00 03 62 79 65 00 01 75 00 01 70
        5 10 2e 00 04 4d 51 54 54 05 ee 00 1e 08 11 00 00 00 3c 21 00 0a 00 01 63 09 18 00 00 00 05 03 00 01 78 00 01 77 00 03 62 79 65 00 01 75 00 01 70
    "#]],
    );
}

#[test]
fn connack() {
    let properties = ConnAckProperties {
        assigned_client_id: Some("id"),
        maximum_qos: Some(Qos::AtLeastOnce),
        shared_subscription_available: false,
        ..ConnAckProperties::default()
    };
    let connack = ConnAck { properties, ..ConnAck::new(true, ReasonCode::Success) };
    check(
        &Packet::ConnAck(Box::new(connack)),
        expect![[r#"
        3 20 02 00 00
        4 20 02 01 00
        5 20 0c 01 00 09 24 01 12 00 02 69 64 2a 00
    "#]],
    );
    check(
        &Packet::ConnAck(Box::new(ConnAck::new(false, ReasonCode::Banned))),
        expect![[r#"
        3 20 02 00 05
        4 20 02 00 05
        5 20 03 00 8a 00
    "#]],
    );
}

#[test]
fn publish() {
    let forwarded = ForwardedParts { response_topic: Some("r"), ..ForwardedParts::default() }.encode();
    let properties = PublishProperties {
        message_expiry: Some(9),
        topic_alias: NonZeroU16::new(3),
        subscription_identifiers: NonZeroU32::new(200).into_iter().collect(),
        forwarded: Forwarded::from_stored(&forwarded),
    };
    let publish = Publish {
        dup: true,
        qos: Qos::ExactlyOnce,
        retain: true,
        topic: "a/b",
        tag: Some(tag()),
        payload: b"hi",
        properties,
    };
    check(
        &Packet::Publish(publish),
        expect![[r#"
        3 3d 09 00 03 61 2f 62 01 02 68 69
        4 3d 09 00 03 61 2f 62 01 02 68 69
        5 3d 19 00 03 61 2f 62 01 02 0f 02 00 00 00 09 23 00 03 0b c8 01 08 00 01 72 68 69
    "#]],
    );
}

#[test]
fn acknowledgements() {
    let pairs = [("k", "v")];
    check(
        &Packet::PubAck(Ack::new(tag(), ReasonCode::Success)),
        expect![[r#"
        3 40 02 01 02
        4 40 02 01 02
        5 40 02 01 02
    "#]],
    );
    check(
        &Packet::PubRec(Ack::new(tag(), ReasonCode::NoMatchingSubscribers)),
        expect![[r#"
        3 50 02 01 02
        4 50 02 01 02
        5 50 03 01 02 10
    "#]],
    );
    check(
        &Packet::PubRel(Ack::new(tag(), ReasonCode::Success)),
        expect![[r#"
        3 62 02 01 02
        4 62 02 01 02
        5 62 02 01 02
    "#]],
    );
    let ack = Ack {
        reason_string: Some("no"),
        user_properties: UserProperties::from_pairs(&pairs),
        ..Ack::new(tag(), ReasonCode::PacketIdentifierNotFound)
    };
    check(
        &Packet::PubComp(ack),
        expect![[r#"
        3 70 02 01 02
        4 70 02 01 02
        5 70 10 01 02 92 0c 1f 00 02 6e 6f 26 00 01 6b 00 01 76
    "#]],
    );
}

#[test]
fn subscriptions() {
    let options = SubscriptionOptions { qos: Qos::AtLeastOnce, no_local: true, ..SubscriptionOptions::default() };
    let subscribe = Subscribe {
        tag: tag(),
        identifier: NonZeroU32::new(7),
        user_properties: UserProperties::NONE,
        filters: vec![("a/#", options), ("b", SubscriptionOptions::default())],
    };
    check(
        &Packet::Subscribe(subscribe),
        expect![[r#"
        3 82 0c 01 02 00 03 61 2f 23 01 00 01 62 00
        4 82 0c 01 02 00 03 61 2f 23 01 00 01 62 00
        5 82 0f 01 02 02 0b 07 00 03 61 2f 23 05 00 01 62 00
    "#]],
    );
    let reasons = [ReasonCode::GrantedQos1, ReasonCode::NotAuthorized];
    check(
        &Packet::SubAck(SubAck::new(tag(), reasons.into_iter().collect())),
        expect![[r#"
        3 90 04 01 02 01 80
        4 90 04 01 02 01 80
        5 90 05 01 02 00 01 87
    "#]],
    );
    let unsubscribe = Unsubscribe { tag: tag(), user_properties: UserProperties::NONE, filters: vec!["a/#"] };
    check(
        &Packet::Unsubscribe(unsubscribe),
        expect![[r#"
        3 a2 07 01 02 00 03 61 2f 23
        4 a2 07 01 02 00 03 61 2f 23
        5 a2 08 01 02 00 00 03 61 2f 23
    "#]],
    );
    let reasons = [ReasonCode::NoSubscriptionExisted];
    check(
        &Packet::UnsubAck(UnsubAck::new(tag(), reasons.into_iter().collect())),
        expect![[r#"
        3 b0 02 01 02
        4 b0 02 01 02
        5 b0 04 01 02 00 11
    "#]],
    );
}

#[test]
fn the_rest() {
    check(
        &Packet::PingReq,
        expect![[r#"
        3 c0 00
        4 c0 00
        5 c0 00
    "#]],
    );
    check(
        &Packet::PingResp,
        expect![[r#"
        3 d0 00
        4 d0 00
        5 d0 00
    "#]],
    );
    check(
        &Packet::Disconnect(Disconnect::new(ReasonCode::Success)),
        expect![[r#"
        3 e0 00
        4 e0 00
        5 e0 00
    "#]],
    );
    let disconnect = Disconnect { reason_string: Some("x"), ..Disconnect::new(ReasonCode::SessionTakenOver) };
    check(
        &Packet::Disconnect(disconnect),
        expect![[r#"
        3 e0 00
        4 e0 00
        5 e0 06 8e 04 1f 00 01 78
    "#]],
    );
    let auth = Auth { authentication_method: Some("m"), ..Auth::new(ReasonCode::ContinueAuthentication) };
    check(
        &Packet::Auth(auth),
        expect![[r#"
        5 f0 06 18 04 15 00 01 6d
    "#]],
    );
}
