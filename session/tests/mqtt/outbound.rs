//! What clients are sent: CONNACK, deliveries, answers, and the end.

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use crate::common::*;
use crate::inbound::publish;
use bytes::Bytes;
use expect_test::{Expect, expect};
use postroad_base::{Message, MessageId, Qos, QueueId, ReasonCode, SessionExpiry, TopicName, WallMillis};
use postroad_broker::api::{Delivery, Event};
use postroad_protocol::gather::Gather;
use postroad_protocol::mqtt::{Connect, Decoded, ForwardedParts, Packet, UserProperties, Version, decode};
use postroad_session::mqtt::{Connection, Delivered, HandshakeStep, Limits};

fn message(topic: &str) -> Message {
    Message {
        id: MessageId(1),
        topic: TopicName::new(topic).expect("a test's topic"),
        payload: Bytes::from_static(b"hello"),
        properties: Bytes::new(),
        qos: Qos::AtLeastOnce,
        retain: false,
        expires_at: None,
        publisher: QueueId::NONE,
        extras: None,
    }
}

fn delivery(message: Message, qos: Qos, number: u16) -> Delivery {
    Delivery {
        message: Arc::new(message),
        tag: qos.is_acknowledged().then(|| tag(number)),
        qos,
        dup: false,
        retain: false,
        topic: None,
        identifiers: Default::default(),
    }
}

/// Delivers and decodes what the client would read: topic, alias, expiry.
fn deliver(connection: &mut Connection, delivery: &Delivery) -> (String, Option<u16>, Option<u32>) {
    deliver_at(0, connection, delivery)
}

fn deliver_at(millis: u64, connection: &mut Connection, delivery: &Delivery) -> (String, Option<u16>, Option<u32>) {
    let mut out = Gather::new();
    assert!(matches!(connection.deliver(at(millis), delivery, &mut out), Delivered::Sent));
    let mut slices = [std::io::IoSlice::new(&[]); 8];
    let count = out.io_slices(&mut slices);
    let all: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
    let Ok(Decoded::Packet { packet: Packet::Publish(publish), .. }) =
        decode(&all, Some(connection.version()), u32::MAX)
    else {
        panic!("no PUBLISH: {all:?}")
    };
    assert_eq!(publish.payload, b"hello");
    let properties = publish.properties;
    (publish.topic.to_string(), properties.topic_alias.map(NonZeroU16::get), properties.message_expiry)
}

/// A receipt says which message it is about, and carries what its publisher gave along to know it by; the rest of that message's
/// properties is none of its own.
#[test]
fn a_receipt_carries_the_correlation_data_of_its_message() {
    let pairs = [("colour", "red"), ("postroad-receipt", "stored")];
    let original = ForwardedParts {
        content_type: Some("text/plain"),
        correlation_data: Some(b"order 7"),
        user_properties: UserProperties::from_pairs(&pairs),
        ..ForwardedParts::default()
    };
    let properties: Bytes = original.encode().into();
    let receipt = Message { properties, ..message("$receipt/000000000000000000000000000000ff/stored/-") };
    let mut out = Gather::new();
    let sent = simple(Version::V5).deliver(at(0), &delivery(receipt, Qos::AtLeastOnce, 1), &mut out);
    assert!(matches!(sent, Delivered::Sent));
    let mut slices = [std::io::IoSlice::new(&[]); 8];
    let count = out.io_slices(&mut slices);
    let all: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
    let Ok(Decoded::Packet { packet: Packet::Publish(publish), .. }) = decode(&all, Some(Version::V5), u32::MAX) else {
        panic!("no PUBLISH: {all:?}")
    };
    let forwarded = publish.properties.forwarded;
    assert_eq!(forwarded.correlation_data(), Some(&b"order 7"[..]));
    assert_eq!(forwarded.content_type(), Some("application/json"));
    let user: Vec<_> = forwarded.user_properties().iter().collect();
    assert_eq!(user, [("postroad-message", "000000000000000000000000000000ff")]);
}

fn check_connack(connect: Connect<'_>, limits: &Limits, expected: Expect) {
    expected.assert_eq(&connected(connect, limits).2);
}

#[test]
fn connack_says_what_the_server_grants() {
    let limits = Limits { keep_alive_max: 60, session_expiry_max: SessionExpiry(100), ..Limits::default() };
    let mut connect = Connect::new(Version::V5, "");
    connect.properties.session_expiry = Some(u32::MAX);
    check_connack(
        connect,
        &limits,
        expect![[r#"
            ConnAck(ConnAck { session_present: false, reason: Success, properties: ConnAckProperties { session_expiry: Some(100), receive_maximum: Some(1024), maximum_qos: None, retain_available: true, maximum_packet_size: Some(1048576), assigned_client_id: Some("assigned"), topic_alias_maximum: 64, reason_string: None, user_properties: [], wildcard_subscription_available: true, subscription_identifiers_available: true, shared_subscription_available: true, server_keep_alive: Some(60), response_information: None, server_reference: None, authentication_method: None, authentication_data: None } })
        "#]],
    );
    check_connack(
        Connect::new(Version::V3_1_1, "c"),
        &limits,
        expect![[r#"
            ConnAck(ConnAck { session_present: false, reason: Success, properties: ConnAckProperties { session_expiry: None, receive_maximum: None, maximum_qos: None, retain_available: true, maximum_packet_size: None, assigned_client_id: None, topic_alias_maximum: 0, reason_string: None, user_properties: [], wildcard_subscription_available: true, subscription_identifiers_available: true, shared_subscription_available: true, server_keep_alive: None, response_information: None, server_reference: None, authentication_method: None, authentication_data: None } })
        "#]],
    );
}

/// [MQTT-3.2.2-21] Older clients can't be told, so theirs holds.
#[test]
fn a_too_long_keep_alive_is_replaced_for_mqtt_5_only() {
    let limits = Limits { keep_alive_max: 60, ..Limits::default() };
    for (version, keep_alive, deadline) in [
        (Version::V5, 0, Some(90_000)),
        (Version::V5, 100, Some(90_000)),
        (Version::V5, 10, Some(15_000)),
        (Version::V3_1_1, 100, Some(150_000)),
        (Version::V3_1_1, 0, None),
    ] {
        let mut connect = Connect::new(version, "c");
        connect.keep_alive = keep_alive;
        let (connection, ..) = connected(connect, &limits);
        assert_eq!(connection.deadline().map(|at| at.0), deadline, "{version:?} {keep_alive}");
    }
}

#[test]
fn mqtt_3_sessions_last_for_ever_or_not_at_all() {
    for (clean, expected) in [(true, SessionExpiry(0)), (false, SessionExpiry::NEVER)] {
        let mut connect = Connect::new(Version::V3_1_1, "c");
        connect.clean_start = clean;
        let (_, ask, _) = connected(connect, &Limits::default());
        assert_eq!((ask.clean_start, ask.expiry), (clean, expected));
    }
}

fn refusal(input: &[u8]) -> (ReasonCode, String) {
    let refusal = handshake(input, &Limits::default()).expect_err("not let in");
    (refusal.reason, refusal.answer.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[test]
fn connects_that_are_not_let_in_are_answered_as_their_version_wants() {
    let connect = |version, id, clean_start| {
        let mut connect = Connect::new(version, id);
        connect.clean_start = clean_start;
        bytes(version, &Packet::Connect(Box::new(connect)))
    };
    // [MQTT-3.1.3-8] of 3.1.1: return code 2.
    let unnamed = refusal(&connect(Version::V3_1_1, "", false));
    assert_eq!(unnamed, (ReasonCode::ClientIdentifierNotValid, "20020002".into()));
    // [MQTT-3.1.0-1]: nothing is sent.
    assert_eq!(refusal(&[0xc0, 0]), (ReasonCode::ProtocolError, String::new()));
    // [MQTT-3.1.2-2] of 3.1.1: return code 1 for a level that nobody knows.
    let mut unknown = connect(Version::V3_1_1, "c", true);
    unknown[8] = 0x84;
    assert_eq!(refusal(&unknown), (ReasonCode::UnsupportedProtocolVersion, "20020001".into()));
    // A malformed CONNECT of MQTT 3 is closed without an answer, one of MQTT 5 is told why.
    let mut malformed = connect(Version::V3_1_1, "c", true);
    malformed[9] |= 1;
    assert_eq!(refusal(&malformed), (ReasonCode::MalformedPacket, String::new()));
    let mut malformed = connect(Version::V5, "c", true);
    malformed[9] |= 1;
    let (reason, answer) = refusal(&malformed);
    assert_eq!(reason, ReasonCode::MalformedPacket);
    assert!(answer.starts_with("20"), "{answer}");
    let mut connect = Connect::new(Version::V5, "c");
    connect.properties.authentication_method = Some("SCRAM");
    let (reason, _) = refusal(&bytes(Version::V5, &Packet::Connect(Box::new(connect))));
    assert_eq!(reason, ReasonCode::BadAuthenticationMethod);
}

#[test]
fn a_half_connect_waits() {
    let input = bytes(Version::V5, &Packet::Connect(Box::new(Connect::new(Version::V5, "c"))));
    for len in 0..input.len() {
        let step = handshake(&input[..len], &Limits::default()).expect("not refused");
        assert!(matches!(step, HandshakeStep::NeedMore { needed } if needed > len), "{len}");
    }
}

fn taking(aliases: u16) -> Connection {
    let mut connect = Connect::new(Version::V5, "c");
    connect.properties.topic_alias_maximum = aliases;
    connected(connect, &Limits::default()).0
}

/// [MQTT-3.1.2-26] [MQTT-3.1.2-27]
#[test]
fn the_server_uses_as_many_aliases_as_the_client_takes() {
    let mut connection = taking(1);
    let of = |topic: &str| delivery(message(topic), Qos::AtMostOnce, 0);
    assert_eq!(deliver(&mut connection, &of("a")), ("a".into(), Some(1), None));
    assert_eq!(deliver(&mut connection, &of("a")), (String::new(), Some(1), None));
    assert_eq!(deliver(&mut connection, &of("b")), ("b".into(), None, None));
    assert_eq!(deliver(&mut taking(0), &of("a")), ("a".into(), None, None));
}

/// [MQTT-3.3.2-6] What it was published with, less the time that it has waited here.
#[test]
fn the_remaining_lifetime_goes_along() {
    let of = |at: u64| {
        delivery(Message { expires_at: Some(WallMillis(1_000_000 + at)), ..message("t") }, Qos::AtMostOnce, 0)
    };
    assert_eq!(deliver(&mut simple(Version::V5), &of(60_000)).2, Some(60));
    assert_eq!(deliver_at(20_000, &mut simple(Version::V5), &of(60_000)).2, Some(40));
    assert_eq!(deliver_at(59_999, &mut simple(Version::V5), &of(60_000)).2, Some(1), "rounded up: 0 would be no time");
    assert_eq!(deliver(&mut simple(Version::V3_1_1), &of(60_000)).2, None);
}

/// [MQTT-3.1.2-24] [MQTT-3.1.2-25] What is too large is not sent, counts as refused, and teaches no alias.
#[test]
fn what_is_larger_than_the_client_takes_is_not_sent() {
    let mut connect = Connect::new(Version::V5, "c");
    connect.properties.maximum_packet_size = NonZeroU32::new(20);
    connect.properties.topic_alias_maximum = 5;
    let (mut connection, ..) = connected(connect, &Limits::default());
    let mut out = Gather::new();
    let long = "a/topic/of/some/length";
    for (qos, expected) in [(Qos::AtLeastOnce, "Acknowledge"), (Qos::ExactlyOnce, "Receive"), (Qos::AtMostOnce, "")] {
        let Delivered::TooLarge(event) = connection.deliver(at(0), &delivery(message(long), qos, 4), &mut out) else {
            panic!("sent")
        };
        let text = event.as_ref().map(|event: &Event| format!("{event:?}")).unwrap_or_default();
        assert!(text.starts_with(expected), "{text}");
    }
    assert!(out.is_empty());
    assert_eq!(deliver(&mut connection, &delivery(message("t"), Qos::AtMostOnce, 0)), ("t".into(), Some(1), None));
}

#[test]
fn answers_are_packets_of_their_version() {
    for (version, expected) in [
        (
            Version::V5,
            expect![[r#"
                PubAck(Ack { tag: Tag(1), reason: NoMatchingSubscribers, reason_string: None, user_properties: [] })
                PubRel(Ack { tag: Tag(2), reason: Success, reason_string: None, user_properties: [] })
                PubComp(Ack { tag: Tag(3), reason: PacketIdentifierNotFound, reason_string: None, user_properties: [] })
                SubAck(SubAck { tag: Tag(4), reasons: [GrantedQos1, TopicFilterInvalid], reason_string: None, user_properties: [] })
                UnsubAck(UnsubAck { tag: Tag(5), reasons: [NoSubscriptionExisted], reason_string: None, user_properties: [] })
                Disconnect(Disconnect { reason: SessionTakenOver, session_expiry: None, reason_string: Some("another connection came"), server_reference: None, user_properties: [] })
            "#]],
        ),
        (
            Version::V3_1_1,
            expect![[r#"
                PubAck(Ack { tag: Tag(1), reason: Success, reason_string: None, user_properties: [] })
                PubRel(Ack { tag: Tag(2), reason: Success, reason_string: None, user_properties: [] })
                PubComp(Ack { tag: Tag(3), reason: Success, reason_string: None, user_properties: [] })
                SubAck(SubAck { tag: Tag(4), reasons: [GrantedQos1, UnspecifiedError], reason_string: None, user_properties: [] })
                UnsubAck(UnsubAck { tag: Tag(5), reasons: [], reason_string: None, user_properties: [] })
            "#]],
        ),
    ] {
        let mut connection = simple(version);
        let mut out = Gather::new();
        let publish = bytes(version, &Packet::Publish(publish("t", Qos::AtLeastOnce, 1)));
        connection.receive(at(0), &publish, &Limits::default(), &mut out).expect("allowed");
        connection.published(tag(1), ReasonCode::NoMatchingSubscribers, &mut out);
        connection.release(tag(2), ReasonCode::Success, &mut out);
        connection.completed(tag(3), ReasonCode::PacketIdentifierNotFound, &mut out);
        connection.subscribed(tag(4), &[ReasonCode::GrantedQos1, ReasonCode::TopicFilterInvalid], &mut out);
        connection.unsubscribed(tag(5), &[ReasonCode::NoSubscriptionExisted], &mut out);
        connection.close(ReasonCode::SessionTakenOver, "another connection came", &mut out);
        expected.assert_eq(&written(version, &mut out));
    }
}

/// [MQTT-3.14.2-3]
#[test]
fn a_reason_string_that_does_not_fit_is_left_out() {
    let mut connect = Connect::new(Version::V5, "c");
    connect.properties.maximum_packet_size = NonZeroU32::new(10);
    let (mut connection, ..) = connected(connect, &Limits::default());
    let mut out = Gather::new();
    connection.close(ReasonCode::ServerShuttingDown, "a long explanation", &mut out);
    assert!(out.len() <= 10 && !out.is_empty());
}

/// [MQTT-3.3.5-2] of 3.1.1. An acknowledgement without a reason must not be given for what was not taken.
#[test]
fn a_refusal_that_can_not_be_told_ends_the_connection() {
    for (version, reason, ends) in [
        (Version::V5, ReasonCode::QuotaExceeded, false),
        (Version::V3_1_1, ReasonCode::QuotaExceeded, true),
        (Version::V3_1, ReasonCode::ImplementationSpecificError, true),
        (Version::V3_1_1, ReasonCode::NotAuthorized, false),
        (Version::V3_1_1, ReasonCode::PayloadFormatInvalid, false),
        (Version::V3_1_1, ReasonCode::TopicNameInvalid, true),
        (Version::V3_1_1, ReasonCode::Success, false),
        (Version::V3_1_1, ReasonCode::NoMatchingSubscribers, false),
    ] {
        assert_eq!(simple(version).refusal_ends(reason).is_some(), ends, "{version:?} {reason:?}");
    }
}

/// [MQTT-3.4.2-3] [MQTT-3.5.2-3] [MQTT-3.1.2-29] The answer to a publication whose publisher wants receipts has the id of the message,
/// where the client takes it; others have none.
#[test]
fn an_answer_carries_the_id_where_that_is_wanted_and_fits() {
    let answers = |change: fn(&mut Connect<'_>), version| {
        let mut connect = Connect::new(version, "c");
        change(&mut connect);
        let mut connection = connected(connect, &Limits::default()).0;
        let mut out = Gather::new();
        for (number, qos) in
            [(1, Qos::AtLeastOnce), (2, Qos::ExactlyOnce), (3, Qos::AtLeastOnce), (4, Qos::AtLeastOnce)]
        {
            let packet = Packet::Publish(publish("t", qos, number));
            receive_with(&mut connection, &packet, &Limits::default(), &mut out).expect("it is taken in");
        }
        [1, 2, 4].into_iter().for_each(|number| connection.taken(tag(number), MessageId(u128::from(number))));
        let reasons = [(1, ReasonCode::Success), (2, ReasonCode::NoMatchingSubscribers)];
        let others = [(3, ReasonCode::Success), (4, ReasonCode::QuotaExceeded)];
        for (number, reason) in reasons.into_iter().chain(others) {
            connection.published(tag(number), reason, &mut out);
        }
        written(version, &mut out)
    };
    let id = |number: u128| format!("(\"postroad-id\", \"{}\")", MessageId(number));
    let all = answers(|_| (), Version::V5);
    let lines: Vec<&str> = all.lines().collect();
    assert!(lines[0].starts_with("PubAck") && lines[0].contains(&id(1)), "{all}");
    assert!(lines[1].starts_with("PubRec") && lines[1].contains(&id(2)), "{all}");
    assert!(lines.len() == 4 && !lines[2].contains("postroad") && !lines[3].contains("postroad"), "{all}");
    let unwanted = answers(|connect| connect.properties.request_problem_information = false, Version::V5);
    let too_large = answers(|connect| connect.properties.maximum_packet_size = NonZeroU32::new(40), Version::V5);
    for none in [unwanted, too_large, answers(|_| (), Version::V3_1_1)] {
        assert!(none.lines().count() == 4 && !none.contains("postroad"), "{none}");
    }
}
