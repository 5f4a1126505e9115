//! What is encoded decodes to itself, at any split; what is garbage never panics.

mod common;

use common::*;
use postroad_base::{Qos, Tag};
use postroad_protocol::mqtt::*;
use proptest::prelude::*;

const MAX: u32 = PACKET_SIZE_MAX;

proptest! {
    #[test]
    fn every_packet_decodes_to_itself((version, packet) in version().prop_flat_map(|v| (Just(v), packet(v)))) {
        let bytes = encode(&packet, version);
        prop_assert_eq!(bytes.len(), packet.encoded_len(version));
        let size = bytes.len();
        check_decodes(&bytes, version, &packet, size);
    }

    /// [INT-5] A half packet is incomplete at every byte, and says truly how much it takes; a following one is left alone.
    #[test]
    fn every_split_is_incomplete((version, packet) in version().prop_flat_map(|v| (Just(v), packet(v)))) {
        let mut bytes = encode(&packet, version);
        let size = bytes.len();
        for cut in 0..size {
            match decode(&bytes[..cut], Some(version), MAX) {
                Ok(Decoded::Incomplete { needed }) => {
                    prop_assert!(needed > cut && needed >= 2 && needed <= size, "{} of {} at {}", needed, size, cut);
                }
                other => prop_assert!(false, "{:?} at {}", other, cut),
            }
        }
        bytes.extend_from_slice(&[0xff, 0x00, 0x10]);
        check_decodes(&bytes, version, &packet, size);
    }

    /// Bytes that decode without one packet's canonical form still mean the same after being written again.
    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), version in version()) {
        let _ = decode(&bytes, None, MAX);
        let _ = connect_version(&bytes);
        if let Ok(Decoded::Packet { packet, .. }) = decode(&bytes, Some(version), MAX) {
            let again = encode(&packet, version_of(&packet, version));
            let size = again.len();
            check_decodes(&again, version, &packet, size);
        }
    }

    /// One byte of a valid packet changed reaches deeper than pure noise does.
    #[test]
    fn mutations_never_panic(
        (version, packet) in version().prop_flat_map(|v| (Just(v), packet(v))),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = encode(&packet, version);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(Decoded::Packet { packet, .. }) = decode(&bytes, Some(version), MAX) {
            let again = encode(&packet, version_of(&packet, version));
            let size = again.len();
            check_decodes(&again, version, &packet, size);
        }
    }

    /// Head and tail make the same packet as the plain encoder.
    #[test]
    fn head_and_tail_are_a_publish((version, publish) in version().prop_flat_map(|v| (Just(v), publish(v)))) {
        let properties = publish.properties.forwarded.bytes();
        let topic = match (publish.topic, publish.properties.topic_alias) {
            ("", Some(alias)) => HeadTopic::Alias(alias),
            (name, Some(alias)) => HeadTopic::NameAndAlias(name, alias),
            (name, None) => HeadTopic::Name(name),
        };
        let head = PublishHead {
            dup: publish.dup,
            qos: publish.qos,
            retain: publish.retain,
            topic,
            tag: publish.tag,
            message_expiry: publish.properties.message_expiry,
            subscription_identifiers: &publish.properties.subscription_identifiers,
        };
        let mut out = b"before".to_vec();
        let tag_offset = encode_publish_head(version, &head, &properties, publish.payload.len(), &mut out);
        out.extend_from_slice(publish.payload);
        let packet = &mut out[6..];
        prop_assert_eq!(packet.len(), publish_size(version, &head, properties.len(), publish.payload.len()));
        prop_assert_eq!(&*packet, &*encode(&Packet::Publish(publish.clone()), version));

        prop_assert_eq!(tag_offset.is_some(), publish.qos.is_acknowledged());
        if let Some(offset) = tag_offset {
            let tag = Tag::new(0x1234).expect("not 0");
            patch_tag(packet, offset, tag);
            let patched = Packet::Publish(Publish { tag: Some(tag), ..publish });
            prop_assert_eq!(&*packet, &*encode(&patched, version));
        }
    }

    /// Properties that others stand between are gathered; their order stays [MQTT-3.3.2-18].
    #[test]
    fn forwarded_properties_survive_any_order(pairs in proptest::collection::vec((text(), text()), 1..4)) {
        let mut block = Vec::new();
        for (index, (name, value)) in pairs.iter().enumerate() {
            if index == 1 {
                block.extend_from_slice(&[0x02, 0, 0, 0, 9]); // message expiry
            }
            let pair = [(*name, *value)];
            let parts = ForwardedParts { user_properties: UserProperties::from_pairs(&pair), ..Default::default() };
            block.extend_from_slice(&parts.encode());
        }
        prop_assume!(block.len() < 100);
        let mut bytes = vec![0x30, (block.len() + 4) as u8, 0, 1, b'a', block.len() as u8];
        bytes.extend_from_slice(&block);
        let Ok(Decoded::Packet { packet: Packet::Publish(publish), .. }) = decode(&bytes, Some(Version::V5), MAX) else {
            return Err(TestCaseError::fail("not a PUBLISH"));
        };
        let stored = publish.properties.forwarded.bytes();
        prop_assert_eq!(matches!(stored, std::borrow::Cow::Borrowed(_)), pairs.len() == 1);
        let again = Forwarded::parse(&stored).expect("what bytes() gives is well formed");
        prop_assert_eq!(again, publish.properties.forwarded);
        prop_assert!(again.user_properties().iter().eq(pairs.iter().copied()));
    }
}

/// The first `size` of `bytes` are this packet.
fn check_decodes(bytes: &[u8], version: Version, packet: &Packet<'_>, size: usize) {
    let expected = Decoded::Packet { packet: packet.clone(), size };
    assert_eq!(decode(bytes, Some(version), MAX), Ok(expected));
}

/// A CONNECT is written in its own version.
fn version_of(packet: &Packet<'_>, otherwise: Version) -> Version {
    if let Packet::Connect(connect) = packet { connect.version } else { otherwise }
}

#[test]
fn forwarded_parts_are_read_back() {
    let pairs = [("k", "v"), ("k", "w")];
    let bytes = ForwardedParts {
        payload_format: Some(true),
        content_type: Some("text/plain"),
        response_topic: Some("re/ply"),
        correlation_data: Some(&[0, 255]),
        user_properties: UserProperties::from_pairs(&pairs),
    }
    .encode();
    let forwarded = Forwarded::parse(&bytes).expect("well formed");
    assert!(forwarded.payload_is_text());
    assert_eq!(forwarded.content_type(), Some("text/plain"));
    assert_eq!(forwarded.response_topic(), Some("re/ply"));
    assert_eq!(forwarded.correlation_data(), Some(&[0, 255][..]));
    assert_eq!(forwarded.user_properties().iter().collect::<Vec<_>>(), pairs);
    assert!(Forwarded::parse(&[0x02, 0, 0, 0, 1]).is_err(), "message expiry is not forwarded as it is");
}

#[test]
fn payload_is_checked_against_its_format() {
    let text = ForwardedParts { payload_format: Some(true), ..Default::default() }.encode();
    let publish = |payload, forwarded| Publish {
        dup: false,
        qos: Qos::AtMostOnce,
        retain: false,
        topic: "t",
        tag: None,
        payload,
        properties: PublishProperties { forwarded, ..Default::default() },
    };
    assert!(publish(&[0xff], Forwarded::NONE).payload_matches_format());
    assert!(publish(b"ok", Forwarded::from_stored(&text)).payload_matches_format());
    assert!(!publish(&[0xff], Forwarded::from_stored(&text)).payload_matches_format());
}
