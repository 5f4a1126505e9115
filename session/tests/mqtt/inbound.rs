//! What clients send, and what the connection makes of it.

use std::num::{NonZeroU16, NonZeroU32};

use crate::common::*;
use crate::script::packet;
use postroad_base::{Priority, Qos, ReasonCode, SessionExpiry, SubscriptionOptions, WallMillis};
use postroad_broker::api::{DisconnectCause, Event};
use postroad_protocol::gather::Gather;
use postroad_protocol::mqtt::{
    Ack, Auth, Connect, Disconnect, Forwarded, ForwardedParts, Packet, Publish, PublishProperties, Subscribe,
    Unsubscribe, UserProperties, Version,
};
use postroad_session::mqtt::{Connection, Limits, Received};
use proptest::prelude::*;

pub fn publish(topic: &str, qos: Qos, number: u16) -> Publish<'_> {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic,
        tag: qos.is_acknowledged().then(|| tag(number)),
        payload: b"hello",
        properties: PublishProperties::default(),
    }
}

fn aliased(topic: &str, alias: u16) -> Publish<'_> {
    let mut packet = publish(topic, Qos::AtMostOnce, 0);
    packet.properties.topic_alias = NonZeroU16::new(alias);
    packet
}

fn published_topic(connection: &mut Connection, packet: Publish<'_>) -> Result<String, ReasonCode> {
    match receive(connection, &Packet::Publish(packet)) {
        Ok(Some(Event::Publish { message, .. })) => Ok(message.message.topic.to_string()),
        Ok(other) => panic!("{other:?}"),
        Err(closing) => Err(closing.reason),
    }
}

#[test]
fn a_publish_becomes_a_message_of_its_own() {
    let mut connection = simple(Version::V5);
    let mut packet = publish("a/b", Qos::AtLeastOnce, 3);
    packet.properties.message_expiry = Some(60);
    let Ok(Some(Event::Publish { message, .. })) = receive(&mut connection, &Packet::Publish(packet)) else {
        panic!("no publish")
    };
    assert_eq!(message.tag, Some(tag(3)));
    assert_eq!(message.message.topic.as_str(), "a/b");
    assert_eq!(&message.message.payload[..], b"hello");
    assert_eq!(message.message.expires_at, Some(WallMillis(1_060_000)));
}

/// [MQTT-3.3.2-8] [MQTT-3.3.2-9] [MQTT-3.3.2-12]
#[test]
fn topic_aliases_are_learnt_replaced_and_bounded() {
    let mut connection = simple(Version::V5);
    assert_eq!(published_topic(&mut connection, aliased("", 1)), Err(ReasonCode::ProtocolError));
    let mut connection = simple(Version::V5);
    assert_eq!(published_topic(&mut connection, aliased("x", 2)), Ok("x".into()));
    assert_eq!(published_topic(&mut connection, aliased("", 2)), Ok("x".into()));
    assert_eq!(published_topic(&mut connection, aliased("y", 2)), Ok("y".into()));
    assert_eq!(published_topic(&mut connection, aliased("", 2)), Ok("y".into()));
    assert_eq!(published_topic(&mut connection, aliased("z", 65)), Err(ReasonCode::TopicAliasInvalid));
}

/// [MQTT-3.3.4-7] [MQTT-4.9.0-1] A client may have no more unfinished than our receive maximum; PUBACK, PUBCOMP and a
/// PUBREC that refuses make room.
#[test]
fn the_receive_maximum_bounds_unanswered_publications() {
    let limits = Limits { receive_maximum: 2, ..Limits::default() };
    let mut out = Gather::new();
    let mut connection = simple(Version::V5);
    let mut send = |connection: &mut Connection, qos, number| {
        let packet = Packet::Publish(publish("t", qos, number));
        reason_of(receive_with(connection, &packet, &limits, &mut out))
    };
    assert_eq!(send(&mut connection, Qos::AtLeastOnce, 1), None);
    assert_eq!(send(&mut connection, Qos::ExactlyOnce, 2), None);
    assert_eq!(send(&mut connection, Qos::AtMostOnce, 0), None);
    assert_eq!(send(&mut connection, Qos::AtLeastOnce, 3), Some(ReasonCode::ReceiveMaximumExceeded));

    let mut out = Gather::new();
    let mut connection = simple(Version::V5);
    let packet = |qos, number| Packet::Publish(publish("t", qos, number));
    for number in [1, 2] {
        receive_with(&mut connection, &packet(Qos::ExactlyOnce, number), &limits, &mut out).expect("within the bound");
    }
    connection.published(tag(1), ReasonCode::Success, &mut out);
    let full = receive_with(&mut connection, &packet(Qos::AtLeastOnce, 3), &limits, &mut out);
    assert_eq!(reason_of(full), Some(ReasonCode::ReceiveMaximumExceeded), "PUBREC of success frees nothing");
    connection.completed(tag(1), ReasonCode::Success, &mut out);
    connection.published(tag(2), ReasonCode::QuotaExceeded, &mut out);
    for number in [3, 4] {
        receive_with(&mut connection, &packet(Qos::AtLeastOnce, number), &limits, &mut out).expect("room for two");
    }
}

#[test]
fn wishes_are_read_from_user_properties_and_travel_on() {
    let published = |pairs: &[(&str, &str)]| {
        let encoded =
            ForwardedParts { user_properties: UserProperties::from_pairs(pairs), ..Default::default() }.encode();
        let mut packet = publish("t", Qos::AtLeastOnce, 1);
        packet.properties.forwarded = Forwarded::from_stored(&encoded);
        packet.properties.message_expiry = Some(10);
        match receive(&mut simple(Version::V5), &Packet::Publish(packet)) {
            Ok(Some(Event::Publish { message, .. })) => (message, encoded),
            other => panic!("{other:?}"),
        }
    };
    let (inbound, encoded) =
        published(&[("colour", "red"), ("postroad-priority", "high"), ("postroad-deliver-after-seconds", "60")]);
    assert_eq!(inbound.flaw, None);
    assert_eq!((inbound.message.priority(), &inbound.message.properties[..]), (Priority::High, &encoded[..]));
    let deliver_at = inbound.message.wishes().and_then(|wishes| wishes.deliver_at).expect("a time");
    assert_eq!(inbound.message.expires_at, Some(deliver_at.after(10_000)), "its time begins when it may be delivered");
    let (inbound, _) = published(&[("colour", "red")]);
    assert!(inbound.message.extras.is_none() && inbound.flaw.is_none());
    let (inbound, _) = published(&[("postroad-priority", "urgent")]);
    assert_eq!(inbound.flaw, Some(ReasonCode::ImplementationSpecificError));
}

#[test]
fn mqtt_3_knows_no_receive_maximum() {
    let limits = Limits { receive_maximum: 1, ..Limits::default() };
    let mut connection = simple(Version::V3_1_1);
    for number in 1..50 {
        let packet = Packet::Publish(publish("t", Qos::AtLeastOnce, number));
        receive_with(&mut connection, &packet, &limits, &mut Gather::new()).expect("no bound");
    }
}

/// [MQTT-3.3.4-6]
#[test]
fn a_client_may_not_send_subscription_identifiers() {
    let mut packet = publish("t", Qos::AtMostOnce, 0);
    packet.properties.subscription_identifiers.push(NonZeroU32::MIN);
    let result = receive(&mut simple(Version::V5), &Packet::Publish(packet));
    assert_eq!(reason_of(result), Some(ReasonCode::ProtocolError));
}

/// [MQTT-3.2.2-14]
#[test]
fn retained_messages_are_refused_where_there_are_none() {
    let limits = Limits { retain_available: false, ..Limits::default() };
    let packet = Packet::Publish(Publish { retain: true, ..publish("t", Qos::AtMostOnce, 0) });
    let result = receive_with(&mut simple(Version::V5), &packet, &limits, &mut Gather::new());
    assert_eq!(reason_of(result), Some(ReasonCode::RetainNotSupported));
}

#[test]
fn acknowledgements_reach_the_broker() {
    let mut connection = simple(Version::V5);
    let mut event = |packet| format!("{:?}", receive(&mut connection, &packet).expect("allowed").expect("an event"));
    let ack = |reason| Ack::new(tag(9), reason);
    assert!(event(Packet::PubAck(ack(ReasonCode::Success))).starts_with("Acknowledge {"));
    assert!(event(Packet::PubRec(ack(ReasonCode::QuotaExceeded))).contains("QuotaExceeded"));
    assert!(event(Packet::PubRel(ack(ReasonCode::Success))).starts_with("Release {"));
    assert!(event(Packet::PubComp(ack(ReasonCode::Success))).starts_with("Complete {"));
}

/// [MQTT-3.12.4-1] [CON-2]
#[test]
fn a_ping_is_answered_at_once() {
    for version in Version::ALL {
        let mut out = Gather::new();
        let event = receive_with(&mut simple(version), &Packet::PingReq, &Limits::default(), &mut out);
        assert!(event.expect("allowed").is_none());
        assert_eq!(written(version, &mut out), "PingResp\n");
    }
}

#[test]
fn packets_out_of_place_are_protocol_errors() {
    for (packet, why) in [
        (Packet::Connect(Box::new(Connect::new(Version::V5, "c"))), "[MQTT-3.1.0-2]"),
        (Packet::Auth(Auth::new(ReasonCode::ReAuthenticate)), "[MQTT-4.12.0-7]"),
        (Packet::PingResp, "section 2.1.2"),
    ] {
        let result = receive(&mut simple(Version::V5), &packet);
        assert_eq!(reason_of(result), Some(ReasonCode::ProtocolError), "{why}");
    }
}

fn subscribe<'a>(filters: &[(&'a str, SubscriptionOptions)]) -> Packet<'a> {
    let user_properties = UserProperties::from_pairs(&[]);
    let identifier = NonZeroU32::new(5);
    Packet::Subscribe(Subscribe { tag: tag(1), identifier, user_properties, filters: filters.to_vec() })
}

#[test]
fn each_filter_of_a_subscribe_keeps_its_place_and_gets_the_identifier() {
    let options = SubscriptionOptions { qos: Qos::AtLeastOnce, ..SubscriptionOptions::default() };
    let packet = subscribe(&[("a/#", options), ("a/#/b", options), ("$share/g/x", options)]);
    let Ok(Some(Event::Subscribe { filters, .. })) = receive(&mut simple(Version::V5), &packet) else {
        panic!("no subscribe")
    };
    let places: Vec<_> = filters.iter().map(|line| line.filter.as_ref().map(|filter| filter.as_str())).collect();
    assert_eq!(places, [Ok("a/#"), Err(&ReasonCode::TopicFilterInvalid), Ok("$share/g/x")]);
    assert!(filters.iter().all(|line| line.options.identifier == NonZeroU32::new(5)));
}

/// [MQTT-3.8.3-4]
#[test]
fn no_local_is_not_for_shared_subscriptions() {
    let options = SubscriptionOptions { no_local: true, ..SubscriptionOptions::default() };
    let result = receive(&mut simple(Version::V5), &subscribe(&[("$share/g/x", options)]));
    assert_eq!(reason_of(result), Some(ReasonCode::ProtocolError));
}

#[test]
fn unsubscribe_keeps_places_too() {
    let user_properties = UserProperties::from_pairs(&[]);
    let packet = Packet::Unsubscribe(Unsubscribe { tag: tag(4), user_properties, filters: vec!["a", "b#"] });
    let Ok(Some(Event::Unsubscribe { filters, .. })) = receive(&mut simple(Version::V5), &packet) else {
        panic!("no unsubscribe")
    };
    assert_eq!(filters[0].as_ref().map(|filter| filter.as_str()), Ok("a"));
    assert_eq!(filters[1], Err(ReasonCode::TopicFilterInvalid));
}

fn goodbye(connect: Connect<'_>, reason: ReasonCode, expiry: Option<u32>) -> (DisconnectCause, ReasonCode, bool) {
    let limits = Limits { session_expiry_max: SessionExpiry(1000), ..Limits::default() };
    let (mut connection, ..) = connected(connect, &limits);
    let mut packet = Disconnect::new(reason);
    packet.session_expiry = expiry;
    let closing = receive_with(&mut connection, &Packet::Disconnect(packet), &limits, &mut Gather::new())
        .expect_err("a DISCONNECT ends the connection");
    (closing.cause, closing.reason, closing.by_client)
}

/// [MQTT-3.14.4-1] [MQTT-3.14.4-3]
#[test]
fn disconnect_decides_about_will_and_expiry() {
    let mut lasting = Connect::new(Version::V5, "c");
    lasting.properties.session_expiry = Some(50);
    let normal = |expiry| (DisconnectCause::Normal { expiry }, ReasonCode::Success, true);
    assert_eq!(goodbye(lasting.clone(), ReasonCode::Success, None), normal(None));
    assert_eq!(goodbye(lasting.clone(), ReasonCode::Success, Some(9)), normal(Some(SessionExpiry(9))));
    assert_eq!(goodbye(lasting.clone(), ReasonCode::Success, Some(9999)), normal(Some(SessionExpiry(1000))));
    let (cause, ..) = goodbye(lasting, ReasonCode::DisconnectWithWill, None);
    assert_eq!(cause, DisconnectCause::WithWill { expiry: None });
    // Section 3.14.2.2.2: what CONNECT did not ask for can't be had at the end.
    let (cause, reason, by_client) = goodbye(Connect::new(Version::V5, "c"), ReasonCode::Success, Some(9));
    assert_eq!((cause, reason, by_client), (DisconnectCause::Lost, ReasonCode::ProtocolError, false));
}

/// [MQTT-3.1.2-22] [CON-4]
#[test]
fn one_and_a_half_keep_alives_of_silence_end_the_connection() {
    let mut connect = Connect::new(Version::V3_1_1, "c");
    connect.keep_alive = 10;
    let (mut connection, ..) = connected(connect, &Limits::default());
    assert_eq!(connection.on_deadline(at(14_999)), None);
    connection.touch(at(1_000));
    assert_eq!(connection.on_deadline(at(15_000)), None);
    let closing = connection.on_deadline(at(16_000)).expect("its time is over");
    assert_eq!((closing.reason, closing.cause), (ReasonCode::KeepAliveTimeout, DisconnectCause::Lost));
}

#[test]
fn without_keep_alive_there_is_no_deadline() {
    assert_eq!(simple(Version::V5).deadline(), None);
}

fn a_stream(version: Version) -> Vec<u8> {
    let options = SubscriptionOptions::default();
    let mut stream = Vec::new();
    for packet in [
        subscribe(&[("a", options), ("b/+", options)]),
        Packet::Publish(publish("a/b", Qos::ExactlyOnce, 1)),
        Packet::PubRel(Ack::new(tag(1), ReasonCode::Success)),
        Packet::PingReq,
        Packet::Publish(aliased("long/topic/name", 1)),
        Packet::Publish(aliased(if version.is_v5() { "" } else { "no/alias" }, 1)),
        Packet::Disconnect(Disconnect::new(ReasonCode::Success)),
    ] {
        packet.encode(version, &mut stream);
    }
    stream
}

/// Feeds `stream` in pieces of these sizes, in turn, and shows all that comes of it.
fn run(version: Version, stream: &[u8], sizes: &[usize]) -> Vec<String> {
    let mut connection = simple(version);
    let (mut seen, mut held, mut out) = (Vec::new(), Vec::new(), Gather::new());
    let mut rest = stream;
    for &size in sizes.iter().cycle() {
        let (piece, after) = rest.split_at(size.min(rest.len()));
        held.extend_from_slice(piece);
        rest = after;
        loop {
            match connection.receive(at(0), &held, &Limits::default(), &mut out) {
                Ok(Received::Incomplete { needed }) => {
                    assert!(needed > held.len());
                    break;
                }
                Ok(Received::Packet { size, event }) => {
                    held.drain(..size);
                    seen.extend(event.map(|event| format!("{event:?}")));
                }
                Err(closing) => {
                    seen.push(format!("{closing:?}"));
                    if !closing.by_client {
                        connection.close(closing.reason, closing.detail, &mut out);
                    }
                    written(version, &mut out);
                    return seen;
                }
            }
        }
        if rest.is_empty() {
            return seen;
        }
    }
    seen
}

proptest! {
    /// [INT-5] Sticky and half packets at any byte make no difference.
    #[test]
    fn any_split_gives_the_same_events(sizes in prop::collection::vec(1_usize..40, 1..20)) {
        for version in Version::ALL {
            let stream = a_stream(version);
            let whole = run(version, &stream, &[stream.len()]);
            prop_assert_eq!(whole.len(), 6); // subscribe, three publishes, release, the end
            prop_assert_eq!(run(version, &stream, &sizes), whole);
        }
    }

    /// Valid streams with a few wrong bytes get deeper than garbage does. Whatever they do, what is written is packets.
    #[test]
    fn damaged_streams_never_panic(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        size in 1_usize..100,
        old in any::<bool>(),
    ) {
        let version = if old { Version::V3_1_1 } else { Version::V5 };
        let mut stream = a_stream(version);
        for (index, byte) in damage {
            *index.get_mut(&mut stream) = byte;
        }
        run(version, &stream, &[size]);
    }

    /// A CONNECT that is cut anywhere waits for the rest; one that is damaged is let in, refused or waited for.
    #[test]
    fn damaged_connects_never_panic(damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)) {
        let mut stream = packet(
            "10 [ 'MQTT' 05 f6 00 3c ( 11 00 00 00 0a 27 00 00 00 40 17 00 26 'k' 'v' ) 'client' \
             ( 18 00 00 00 05 03 'text' ) 'will' 'bye' 'user' 'password' ]",
        );
        for (index, byte) in damage {
            *index.get_mut(&mut stream) = byte;
        }
        if let Err(refusal) = handshake(&stream, &Limits::default()) {
            prop_assert!(matches!(refusal.answer.first(), None | Some(0x20)));
        }
    }

    #[test]
    fn garbage_ends_the_connection_or_waits_but_never_panics(input in prop::collection::vec(any::<u8>(), 0..200)) {
        run(Version::V5, &input, &[usize::MAX]);
        let _ = handshake(&input, &Limits::default());
    }
}

/// What was received into memory of its own stays there if it is large; what is small is not worth keeping the packet
/// for (DESIGN 3, "Reading").
#[test]
fn only_a_large_payload_stays_in_the_packet_s_own_memory() {
    for (len, stays) in [(4096, false), (4097, true)] {
        let mut connection = simple(Version::V5);
        let payload = vec![7; len];
        let packet = Publish { payload: &payload, ..publish("a/b", Qos::AtMostOnce, 0) };
        let own = bytes::Bytes::from(bytes(Version::V5, &Packet::Publish(packet)));
        let received = connection.receive_own(at(0), &own, &Limits::default(), &mut Gather::new()).expect("allowed");
        let Received::Packet { event: Some(Event::Publish { message, .. }), size } = received else {
            panic!("{received:?}");
        };
        let message = message.message;
        assert_eq!((message.topic.as_str(), size), ("a/b", own.len()));
        assert!(message.payload == payload);
        assert_eq!(own.as_ptr_range().contains(&message.payload.as_ptr()), stays, "{len} bytes");
    }
}
