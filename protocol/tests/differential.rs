//! Against a codec that we did not write: what we encode it decodes, what it encodes of that we decode, and nothing is
//! lost on the way round. It speaks 3.1.1 and 5, not 3.1.

mod common;

use common::{encode, packet};
use mqtt5_protocol::packet::MqttPacket;
use mqtt5_protocol::{FixedHeader, Packet as Theirs};
use postroad_protocol::mqtt::*;
use proptest::prelude::*;

fn their_decode(mut bytes: &[u8], version: Version) -> Result<Theirs, String> {
    let header = FixedHeader::decode(&mut bytes).map_err(|error| error.to_string())?;
    Theirs::decode_from_body_with_version(header.packet_type, &header, &mut bytes, version.level())
        .map_err(|error| error.to_string())
}

fn their_encode(packet: &Theirs) -> Vec<u8> {
    let mut out = Vec::new();
    match packet {
        Theirs::Connect(packet) => packet.encode(&mut out),
        Theirs::ConnAck(packet) => packet.encode(&mut out),
        Theirs::Publish(packet) => packet.encode(&mut out),
        Theirs::PubAck(packet) => packet.encode(&mut out),
        Theirs::PubRec(packet) => packet.encode(&mut out),
        Theirs::PubRel(packet) => packet.encode(&mut out),
        Theirs::PubComp(packet) => packet.encode(&mut out),
        Theirs::Subscribe(packet) => packet.encode(&mut out),
        Theirs::SubAck(packet) => packet.encode(&mut out),
        Theirs::Unsubscribe(packet) => packet.encode(&mut out),
        Theirs::UnsubAck(packet) => packet.encode(&mut out),
        Theirs::PingReq => mqtt5_protocol::packet::pingreq::PingReqPacket::default().encode(&mut out),
        Theirs::PingResp => mqtt5_protocol::packet::pingresp::PingRespPacket::default().encode(&mut out),
        Theirs::Disconnect(packet) => packet.encode(&mut out),
        Theirs::Auth(packet) => packet.encode(&mut out),
    }
    .expect("what was decoded can be encoded");
    out
}

/// Where the other codec is stricter than the specification, or says less than a packet holds.
fn is_beyond_them(packet: &Packet<'_>) -> bool {
    match packet {
        // Section 3.1.2.9 of MQTT 5 allows a password alone.
        Packet::Connect(connect) => connect.password.is_some() && connect.username.is_none(),
        _ => false,
    }
}

fn check(packet: &Packet<'_>, version: Version) -> Result<(), TestCaseError> {
    let theirs = their_decode(&encode(packet, version), version)
        .map_err(|error| TestCaseError::fail(format!("refused: {error}: {packet:?}")))?;
    if let (Packet::Publish(ours), Theirs::Publish(theirs)) = (packet, &theirs) {
        prop_assert_eq!(ours.topic, &theirs.topic_name);
        prop_assert_eq!(ours.payload, &theirs.payload[..]);
        prop_assert_eq!(ours.tag.map(postroad_base::Tag::get), theirs.packet_id);
        prop_assert_eq!((ours.dup, ours.retain), (theirs.dup, theirs.retain));
        prop_assert_eq!(ours.qos.number(), theirs.qos as u8);
    }
    let back = their_encode(&theirs);
    let decoded = decode(&back, Some(version), PACKET_SIZE_MAX);
    let expected = Decoded::Packet { packet: packet.clone(), size: back.len() };
    prop_assert_eq!(decoded, Ok(expected));
    Ok(())
}

proptest! {
    #[test]
    fn mqtt_5_goes_round(packet in packet(Version::V5)) {
        prop_assume!(!is_beyond_them(&packet));
        check(&packet, Version::V5)?;
    }

    #[test]
    fn mqtt_3_1_1_goes_round(packet in packet(Version::V3_1_1)) {
        check(&packet, Version::V3_1_1)?;
    }
}
