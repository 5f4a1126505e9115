//! What is no packet, with the reason code that the specification names.

use postroad_base::ReasonCode::{self, *};
use postroad_protocol::mqtt::{Decoded, Version, connect_version, decode};

const V3: Version = Version::V3_1_1;
const V5: Version = Version::V5;

fn refused(version: Option<Version>, bytes: &[u8]) -> Option<ReasonCode> {
    match decode(bytes, version, 1000) {
        Err(error) => Some(error.reason),
        Ok(Decoded::Packet { size, .. }) => {
            assert_eq!(size, bytes.len());
            None
        }
        Ok(Decoded::Incomplete { needed }) => panic!("{bytes:02x?} is {} bytes of {needed}", bytes.len()),
    }
}

/// The packet of a first byte and a body of less than 128 bytes.
fn framed(first: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![first, u8::try_from(body.len()).expect("short")];
    packet.extend_from_slice(body);
    packet
}

#[track_caller]
fn check(version: Version, first: u8, body: &[u8], expected: Option<ReasonCode>, why: &str) {
    assert_eq!(refused(Some(version), &framed(first, body)), expected, "{why}: {first:02x} {body:02x?}");
}

/// A CONNECT of client "c": name, level, flags, what follows the keep alive.
fn connect(name: &str, level: u8, flags: u8, rest: &[u8]) -> Vec<u8> {
    let mut body = vec![0, name.len() as u8];
    body.extend_from_slice(name.as_bytes());
    body.extend_from_slice(&[level, flags, 0, 60]);
    body.extend_from_slice(rest);
    framed(0x10, &body)
}

#[test]
fn fixed_header() {
    for first in [0x01, 0x0f, 0x11, 0x21, 0x41, 0x51, 0x60, 0x63, 0x80, 0x91, 0xa0, 0xb1, 0xc1, 0xd8, 0xe1, 0xf1] {
        check(V5, first, &[], Some(MalformedPacket), "[MQTT-2.1.3-1] flags and type");
    }
    check(V5, 0x00, &[], Some(MalformedPacket), "section 2.1.2: type 0 is forbidden");
    check(V3, 0xf0, &[], Some(MalformedPacket), "AUTH is of MQTT 5");
    let five = [0x30, 0xff, 0xff, 0xff, 0xff, 0x01];
    assert_eq!(refused(Some(V5), &five), Some(MalformedPacket), "section 2.1.4: five bytes of length");
    assert_eq!(refused(Some(V5), &[0xc0, 0x80, 0x00]), Some(MalformedPacket), "[MQTT-1.5.5-1]");
    assert_eq!(refused(Some(V5), &[0x30, 0xe6, 0x07]), Some(PacketTooLarge), "1,001 bytes, judged by the header");
    check(V5, 0xc0, &[0], Some(MalformedPacket), "bytes behind PINGREQ");
}

#[test]
fn the_first_packet_is_connect() {
    for first in [0x20, 0x30, 0x40, 0x82, 0xc0, 0xe0, 0xf0] {
        assert_eq!(refused(None, &framed(first, &[])), Some(ProtocolError), "[MQTT-3.1.0-1] {first:02x}");
    }
    assert_eq!(refused(None, &connect("MQTT", 5, 2, &[0, 0, 1, b'c'])), None);
}

#[test]
fn mqtt_3_1_may_repeat_what_it_retries() {
    check(Version::V3_1, 0x6a, &[0, 1], None, "PUBREL with DUP");
    check(Version::V3_1, 0x8a, &[0, 1, 0, 1, b'a', 0xfc], None, "SUBSCRIBE with DUP, unused bits");
    check(V3, 0x6a, &[0, 1], Some(MalformedPacket), "[MQTT-2.2.2-2] of 3.1.1");
}

#[test]
fn connect_names_a_version() {
    for (name, level) in [("MQTT", 3), ("MQTT", 6), ("MQIsdp", 4), ("mqtt", 5), ("MQTT", 0x84), ("", 4)] {
        let packet = connect(name, level, 2, &[0, 0, 1, b'c']);
        assert_eq!(refused(None, &packet), Some(UnsupportedProtocolVersion), "[MQTT-3.1.2-1] {name} {level}");
        assert_eq!(connect_version(&packet), None);
    }
    assert_eq!(connect_version(&connect("MQIsdp", 3, 2, &[])), Some(Version::V3_1));
    assert_eq!(connect_version(&connect("MQTT", 4, 0xff, &[])), Some(V3), "also if the rest is malformed");
    assert_eq!(connect_version(&[0x10]), None);
}

#[test]
fn connect_flags() {
    let v5 = |flags, rest: &[u8]| refused(None, &connect("MQTT", 5, flags, rest));
    let v3 = |flags, rest: &[u8]| refused(None, &connect("MQTT", 4, flags, rest));
    let v31 = |flags, rest: &[u8]| refused(None, &connect("MQIsdp", 3, flags, rest));
    assert_eq!(v5(0x03, &[0, 0, 1, b'c']), Some(MalformedPacket), "[MQTT-3.1.2-3] reserved");
    assert_eq!(v3(0x03, &[0, 1, b'c']), Some(MalformedPacket), "[MQTT-3.1.2-3] reserved");
    assert_eq!(v31(0x03, &[0, 1, b'c']), None, "MQTT 3.1: unused");
    assert_eq!(v5(0x1e, &[0, 0, 1, b'c', 0, 0, 1, b't', 0, 0]), Some(MalformedPacket), "[MQTT-3.1.2-12] will QoS 3");
    assert_eq!(v5(0x0a, &[0, 0, 1, b'c']), Some(MalformedPacket), "[MQTT-3.1.2-11] will QoS without will");
    assert_eq!(v5(0x22, &[0, 0, 1, b'c']), Some(MalformedPacket), "[MQTT-3.1.2-13] will retain without will");
    assert_eq!(v3(0x42, &[0, 1, b'c', 0, 1, b'p']), Some(MalformedPacket), "[MQTT-3.1.2-22] of 3.1.1");
    assert_eq!(v5(0x42, &[0, 0, 1, b'c', 0, 1, b'p']), None, "MQTT 5 allows a password alone");
    assert_eq!(v5(0x82, &[0, 0, 1, b'c']), Some(MalformedPacket), "[MQTT-3.1.2-17] user name missing");
    assert_eq!(v31(0xc2, &[0, 1, b'c']), None, "MQTT 3.1: the length takes precedence over the flags");
    assert_eq!(v5(0x02, &[0, 0, 1, b'c', 9]), Some(MalformedPacket), "bytes behind");
    assert_eq!(v5(0x06, &[0, 0, 1, b'c', 0, 0, 1, b'#', 0, 0]), Some(TopicNameInvalid), "[MQTT-4.7.1-1] will topic");
    assert_eq!(v5(0x06, &[0, 0, 1, b'c', 0, 0, 0, 0, 0]), Some(TopicNameInvalid), "[MQTT-4.7.3-1] will topic");
}

#[test]
fn texts() {
    for bad in [&[0x00][..], &[0xff], &[0xc0, 0x80], &[0xed, 0xa0, 0x80], &[0xe2, 0x82], &[0xf4, 0x90, 0x80, 0x80]] {
        let mut body = vec![0, bad.len() as u8];
        body.extend_from_slice(bad);
        check(V3, 0x30, &body, Some(MalformedPacket), "[MQTT-1.5.4-1], [MQTT-1.5.4-2] topic");
        let mut rest = vec![0];
        rest.extend_from_slice(&body);
        let packet = connect("MQTT", 5, 2, &rest);
        assert_eq!(refused(None, &packet), Some(MalformedPacket), "[MQTT-3.1.3-4] {bad:02x?}");
    }
    check(V3, 0x30, &[0, 3, 0xef, 0xbb, 0xbf], None, "[MQTT-1.5.4-3] U+FEFF is text");
    check(V3, 0x30, &[0, 9, b'a'], Some(MalformedPacket), "text longer than the packet");
}

#[test]
fn publish() {
    check(V5, 0x36, &[0, 1, b'a', 0, 1, 0], Some(MalformedPacket), "[MQTT-3.3.1-4] QoS 3");
    check(V5, 0x38, &[0, 1, b'a', 0], Some(MalformedPacket), "[MQTT-3.3.1-2] DUP on QoS 0");
    check(V5, 0x32, &[0, 1, b'a', 0, 0, 0], Some(ProtocolError), "[MQTT-2.2.1-3] packet identifier 0");
    check(V5, 0x32, &[0, 1, b'a', 0], Some(MalformedPacket), "packet identifier cut off");
    check(V5, 0x30, &[0, 1, b'a'], Some(MalformedPacket), "properties cut off");
    check(V5, 0x30, &[0, 1, b'+', 0], Some(TopicNameInvalid), "[MQTT-3.3.2-2] wildcard");
    check(V3, 0x30, &[0, 3, b'a', b'/', b'#'], Some(TopicNameInvalid), "[MQTT-3.3.2-2] wildcard");
    check(V3, 0x30, &[0, 0], Some(TopicNameInvalid), "[MQTT-4.7.3-1] empty topic");
    check(V5, 0x30, &[0, 0, 0], Some(ProtocolError), "section 3.3.2.1: no topic and no alias");
    check(V5, 0x30, &[0, 0, 3, 0x23, 0, 1], None, "an alias instead");
    check(V5, 0x30, &[0, 1, b'a', 3, 0x23, 0, 0], Some(TopicAliasInvalid), "[MQTT-3.3.2-8] alias 0");
}

#[test]
fn properties_of_publish() {
    let check = |properties: &[u8], expected, why| {
        let mut body = vec![0, 1, b'a', properties.len() as u8];
        body.extend_from_slice(properties);
        check(V5, 0x30, &body, expected, why);
    };
    check(&[0x01, 2], Some(ProtocolError), "section 3.3.2.3.2: payload format 2");
    check(&[0x01, 1, 0x01, 1], Some(ProtocolError), "section 3.3.2.3.2: twice");
    check(&[0x02, 0, 0, 0], Some(MalformedPacket), "cut off");
    check(&[0x0b, 0], Some(ProtocolError), "section 3.3.2.3.8: subscription identifier 0");
    check(&[0x0b, 1, 0x0b, 2], None, "several subscription identifiers");
    check(&[0x0b, 0x80, 0x00], Some(MalformedPacket), "[MQTT-1.5.5-1]");
    check(&[0x08, 0, 1, b'#'], Some(ProtocolError), "[MQTT-3.3.2-14] response topic");
    check(&[0x26, 0, 1, b'k', 0, 1, b'v', 0x26, 0, 1, b'k', 0, 1, b'v'], None, "user properties repeat");
    check(&[0x26, 0, 1, b'k'], Some(MalformedPacket), "half a user property");
    for foreign in [&[0x11, 0, 0, 0, 1][..], &[0x1f, 0, 0], &[0x00], &[0x2b, 0], &[0x7f, 0], &[0x81, 0x00]] {
        check(foreign, Some(MalformedPacket), "section 2.2.2.2: identifier is not of this packet");
    }
}

#[test]
fn properties_of_connect() {
    let check = |properties: &[u8], expected, why| {
        let mut rest = vec![properties.len() as u8];
        rest.extend_from_slice(properties);
        rest.extend_from_slice(&[0, 1, b'c']);
        assert_eq!(refused(None, &connect("MQTT", 5, 2, &rest)), expected, "{why}");
    };
    check(&[0x21, 0, 0], Some(ProtocolError), "section 3.1.2.11.3: receive maximum 0");
    check(&[0x27, 0, 0, 0, 0], Some(ProtocolError), "section 3.1.2.11.4: maximum packet size 0");
    check(&[0x17, 2], Some(ProtocolError), "section 3.1.2.11.7");
    check(&[0x19, 2], Some(ProtocolError), "section 3.1.2.11.6");
    check(&[0x16, 0, 1, 0], Some(ProtocolError), "section 3.1.2.11.10: data without a method");
    check(&[0x11, 0, 0, 0, 1, 0x11, 0, 0, 0, 1], Some(ProtocolError), "section 3.1.2.11.2: twice");
    check(&[0x23, 0, 1], Some(MalformedPacket), "topic alias is not of CONNECT");
    check(&[0x18, 0, 0, 0, 1], Some(MalformedPacket), "will delay is a property of the will");
}

#[test]
fn subscriptions() {
    check(V5, 0x82, &[0, 1, 0], Some(ProtocolError), "[MQTT-3.8.3-2] no filter");
    check(V3, 0x82, &[0, 1], Some(ProtocolError), "[MQTT-3.8.3-3] of 3.1.1: no filter");
    check(V5, 0x82, &[0, 0, 0, 0, 1, b'a', 0], Some(ProtocolError), "[MQTT-2.2.1-3]");
    check(V5, 0x82, &[0, 1, 0, 0, 1, b'a', 0x40], Some(MalformedPacket), "[MQTT-3.8.3-5] reserved");
    check(V3, 0x82, &[0, 1, 0, 1, b'a', 0x04], Some(MalformedPacket), "[MQTT-3-8.3-4] of 3.1.1: reserved");
    check(V5, 0x82, &[0, 1, 0, 0, 1, b'a', 0x03], Some(ProtocolError), "section 3.8.3.1: QoS 3");
    check(V5, 0x82, &[0, 1, 0, 0, 1, b'a', 0x30], Some(ProtocolError), "section 3.8.3.1: retain handling 3");
    check(V5, 0x82, &[0, 1, 0, 0, 1, b'a'], Some(MalformedPacket), "options cut off");
    check(V5, 0x82, &[0, 1, 4, 0x0b, 1, 0x0b, 2, 0, 1, b'a', 0], Some(ProtocolError), "section 3.8.2.1.2: twice");
    let shared = [&[0, 1, 0, 0, 10][..], b"$share/g/a", &[0x04]].concat();
    check(V5, 0x82, &shared, Some(ProtocolError), "[MQTT-3.8.3-4] no local, shared");
    check(V5, 0xa2, &[0, 1, 0], Some(ProtocolError), "[MQTT-3.10.3-2]");
    check(V5, 0xa2, &[0, 1, 2, 0x0b, 1, 0, 1, b'a'], Some(MalformedPacket), "identifier in UNSUBSCRIBE");
    check(V5, 0x90, &[0, 1, 0], Some(ProtocolError), "[MQTT-3.9.3-1] no reason code");
    check(V5, 0x90, &[0, 1, 0, 0x11], Some(ProtocolError), "[MQTT-3.9.3-2] reason code of another packet");
    check(V3, 0x90, &[0, 1, 0x87], Some(MalformedPacket), "[MQTT-3.9.3-2] of 3.1.1");
    check(V5, 0xb0, &[0, 1, 0, 0x01], Some(ProtocolError), "[MQTT-3.11.3-2]");
    check(V3, 0xb0, &[0, 1, 0], Some(MalformedPacket), "UNSUBACK of 3.1.1 has no payload");
}

#[test]
fn acknowledgements() {
    for first in [0x40, 0x50, 0x62, 0x70] {
        check(V5, first, &[0, 0], Some(ProtocolError), "[MQTT-2.2.1-3]");
        check(V5, first, &[0], Some(MalformedPacket), "cut off");
        check(V5, first, &[0, 1, 0xff], Some(ProtocolError), "[MQTT-3.4.2-1], [MQTT-3.6.2-1] reason code");
        check(V3, first, &[0, 1, 0], Some(MalformedPacket), "3.1.1 has no reason code");
        check(V5, first, &[0, 1, 0, 0], None, "empty properties");
        check(V5, first, &[0, 1, 0, 0, 0], Some(MalformedPacket), "bytes behind");
        check(V5, first, &[0, 1, 0, 6, 0x1f, 0, 0, 0x1f, 0, 0], Some(ProtocolError), "section 3.4.2.2.2: twice");
    }
    check(V5, 0x62, &[0, 1, 0x10], Some(ProtocolError), "[MQTT-3.6.2-1] a code of PUBREC");
}

#[test]
fn connack_disconnect_auth() {
    check(V5, 0x20, &[2, 0, 0], Some(MalformedPacket), "[MQTT-3.2.2-1]");
    check(V5, 0x20, &[1, 0x87, 0], Some(ProtocolError), "[MQTT-3.2.2-6]");
    check(V5, 0x20, &[0, 0x93, 0], Some(ProtocolError), "[MQTT-3.2.2-8]");
    check(V5, 0x20, &[0, 0, 2, 0x24, 2], Some(ProtocolError), "section 3.2.2.3.4: maximum QoS 2");
    check(V3, 0x20, &[0, 6], Some(ProtocolError), "return code 6 is reserved");
    check(V3, 0xe0, &[0], Some(MalformedPacket), "DISCONNECT of 3.1.1 has no reason");
    check(V5, 0xe0, &[0x01], Some(ProtocolError), "[MQTT-3.14.2-1]");
    check(V5, 0xe0, &[0x00, 3, 0x21, 0, 1], Some(MalformedPacket), "property of CONNECT");
    check(V5, 0xf0, &[0x80, 0], Some(ProtocolError), "[MQTT-3.15.2-1]");
    check(V5, 0xf0, &[0x18, 0], Some(ProtocolError), "section 3.15.2.2.2: no method");
}
