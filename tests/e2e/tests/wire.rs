//! What a server must do with bytes, on the wire of the real binary: normative statements of MQTT 3.1.1 and 5.0
//! that it could break, each case with its citation. Requests are written out in hex, so that a mistake of our
//! encoder cannot hide one of our decoder. Numbers without a mark are those of version 5; `3.1.1:` marks the others.

#![allow(clippy::unwrap_used, reason = "a failed step of the test is a failed test")]

use postroad_base::{Qos, ReasonCode};
use postroad_e2e::daemon::Daemon;
use postroad_e2e::mqtt::{Client, Incoming, Message, Options};
use postroad_protocol::mqtt::{Packet, Version};

const CONNECT_V4: &str = "10 0d 0004 4d515454 04 02 0000 0001";
const CONNECT_V5: &str = "10 0e 0004 4d515454 05 02 0000 00 0001";

/// A connection on which bytes are sent as they stand.
struct Wire {
    name: String,
    client: Client,
}

impl Wire {
    /// A TCP connection; `name` is shown if a step fails.
    fn open(daemon: &Daemon, version: Version, name: &str) -> Self {
        Self { name: name.to_owned(), client: Client::open(daemon.mqtt(), version).unwrap() }
    }

    /// Connected under a one-byte client id.
    fn connected(daemon: &Daemon, version: Version, name: &str, id: u8) -> Self {
        let mut wire = Self::open(daemon, version, name);
        let connect = if version.is_v5() { CONNECT_V5 } else { CONNECT_V4 };
        wire.send(&format!("{connect} {id:02x}"));
        wire.expect(&Incoming::ConnAck { session_present: false, reason: ReasonCode::Success });
        wire
    }

    fn send(&mut self, hex: &str) {
        let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        let bytes: Vec<u8> = digits.chunks(2).map(byte).collect();
        let _closed_already = self.client.send_bytes(&bytes);
    }

    fn receive(&mut self) -> Incoming {
        self.client.receive().unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    fn expect(&mut self, expected: &Incoming) {
        let got = self.receive();
        assert_eq!(&got, expected, "{}", self.name);
    }

    fn message(&mut self) -> Message {
        match self.receive() {
            Incoming::Publish(message) => message,
            other => panic!("{}: expected PUBLISH, got {other:?}", self.name),
        }
    }

    /// Nothing is under way to this client: the answer to PINGREQ is the next packet `[MQTT-3.12.4-1]`.
    fn expect_silence(&mut self) {
        self.send("c000");
        self.expect(&Incoming::PingResp);
    }

    /// The server ends the connection. Before that it may say why, which must be an error; the reason it gave.
    fn until_closed(mut self) -> Result<Option<u8>, String> {
        let mut said = None;
        loop {
            match self.client.receive() {
                Ok(Incoming::ConnAck { reason, .. } | Incoming::Disconnect(reason)) if reason as u8 != 0 => {
                    said = Some(reason as u8);
                }
                Ok(other) => return Err(format!("{}: expected the end, got {other:?}", self.name)),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    return Err(format!("{}: not closed", self.name));
                }
                Err(_) => return Ok(said),
            }
        }
    }

    /// The same, and the reason is one of these.
    fn until_closed_with(self, reasons: &[u8]) -> Result<(), String> {
        let name = self.name.clone();
        match self.until_closed()? {
            Some(said) if reasons.contains(&said) => Ok(()),
            other => Err(format!("{name}: reason {other:02x?}, not {reasons:02x?}")),
        }
    }

    fn expect_closed_with(self, reasons: &[u8]) {
        self.until_closed_with(reasons).unwrap_or_else(|error| panic!("{error}"));
    }
}

/// All failures at once.
fn all_well(outcomes: impl Iterator<Item = Result<(), String>>) {
    let failures: Vec<String> = outcomes.filter_map(Result::err).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Each `(name, version, bytes)` on a fresh TCP connection ends it without any service.
fn all_refused(daemon: &Daemon, cases: &[(&str, Version, &str)]) {
    all_well(cases.iter().map(|(name, version, hex)| {
        let mut wire = Wire::open(daemon, *version, name);
        wire.send(hex);
        wire.until_closed().map(|_| ())
    }));
}

/// Each `(name, version, bytes, reasons)` after a good CONNECT ends the connection, on version 5 for one of these
/// reasons; version 3 has no DISCONNECT from the server.
fn all_end(daemon: &Daemon, cases: &[(&str, Version, &str, &[u8])]) {
    all_well(cases.iter().map(|(name, version, hex, reasons)| {
        let mut wire = Wire::connected(daemon, *version, name, b'e');
        wire.send(hex);
        match version {
            Version::V5 => wire.until_closed_with(reasons),
            _ if wire.until_closed()?.is_none() => Ok(()),
            _ => Err(format!("{name}: DISCONNECT on version 3")),
        }
    }));
}

use Version::{V3_1_1 as V4, V5};

#[test]
fn connect_that_is_no_connect() {
    let daemon = Daemon::start();
    all_refused(
        &daemon,
        &[
            ("[MQTT-3.1.0-1] PINGREQ first", V5, "c000"),
            ("[MQTT-3.1.0-1] PUBLISH first", V4, "30 05 0001 61 6869"),
            ("[MQTT-3.1.0-1] SUBSCRIBE first", V5, "82 07 0001 00 0001 61 00"),
            ("[MQTT-3.1.2-3] reserved flag", V4, "10 0d 0004 4d515454 04 03 0000 0001 61"),
            ("[MQTT-3.1.2-3] reserved flag", V5, "10 0e 0004 4d515454 05 03 0000 00 0001 61"),
            ("[MQTT-3.1.2-11] will QoS without a will", V5, "10 0e 0004 4d515454 05 0a 0000 00 0001 61"),
            ("3.1.1: [MQTT-3.1.2-14] will QoS 3", V4, "10 13 0004 4d515454 04 1e 0000 0001 61 0001 62 0001 63"),
            ("[MQTT-3.1.2-13] will retain without a will", V5, "10 0e 0004 4d515454 05 22 0000 00 0001 61"),
            ("3.1.1: [MQTT-3.1.2-22] password without a name", V4, "10 10 0004 4d515454 04 42 0000 0001 61 0001 70"),
            ("[MQTT-1.5.4-1] ill-formed UTF-8", V5, "10 0f 0004 4d515454 05 02 0000 00 0002 c328"),
            ("3.1.1: [MQTT-1.5.3-1] a surrogate", V4, "10 0f 0004 4d515454 04 02 0000 0003 eda080"),
            ("[MQTT-1.5.4-2] U+0000", V5, "10 10 0004 4d515454 05 02 0000 00 0003 610062"),
            ("3.1.1: [MQTT-2.2.2-2] flags of CONNECT", V4, "12 0d 0004 4d515454 04 02 0000 0001 61"),
            ("[MQTT-1.5.5-1] a length of five bytes", V5, "10 8080808001"),
            ("section 2.1.2: packet type 0", V4, "00 00"),
            ("section 3.1.2.11: a property twice", V5, "10 14 0004 4d515454 05 02 0000 06 21000a 21000a 0001 61"),
            ("section 3.1.2.11.3: receive maximum 0", V5, "10 11 0004 4d515454 05 02 0000 03 210000 0001 61"),
            ("section 3.1.2.11.4: maximum packet size 0", V5, "10 13 0004 4d515454 05 02 0000 05 2700000000 0001 61"),
            ("section 2.2.2.2: unknown property", V5, "10 10 0004 4d515454 05 02 0000 02 7e00 0001 61"),
            ("section 2.2.2.2: a property of another packet", V5, "10 11 0004 4d515454 05 02 0000 03 23000a 0001 61"),
        ],
    );
}

#[test]
fn connect_answers() {
    let daemon = Daemon::start();
    let mut wire = Wire::open(&daemon, V4, "3.1.1: [MQTT-3.1.3-8] no client id, no clean session");
    wire.send("10 0c 0004 4d515454 04 00 0000 0000");
    wire.expect_closed_with(&[ReasonCode::ClientIdentifierNotValid as u8]); // return code 2, as our decoder names it

    for (version, hex) in [(V4, "10 0c 0004 4d515454 04 02 0000 0000"), (V5, "10 0d 0004 4d515454 05 02 0000 00 0000")]
    {
        let mut wire = Wire::open(&daemon, version, "[MQTT-3.1.3-6] an empty client id");
        wire.send(hex);
        wire.expect(&Incoming::ConnAck { session_present: false, reason: ReasonCode::Success });
    }

    let mut wire = Wire::open(&daemon, V5, "[MQTT-4.12.0-1] an unknown authentication method");
    wire.send("10 14 0004 4d515454 05 02 0000 06 15 0003 787878 0001 61");
    wire.expect_closed_with(&[0x8C]);

    let mut wire = Wire::connected(&daemon, V5, "[MQTT-3.1.0-2] a second CONNECT", b'a');
    wire.send(&format!("{CONNECT_V5} 61"));
    wire.expect_closed_with(&[0x82]);

    let old = Wire::connected(&daemon, V5, "[MQTT-3.1.4-3] take-over", b'a');
    let _new = Wire::connected(&daemon, V5, "[MQTT-3.1.4-3] take-over", b'a');
    old.expect_closed_with(&[0x8E]);
}

/// `[MQTT-3.1.2-22]`: silence for one and a half keep alives ends the connection; a PINGREQ in time prevents that.
#[test]
fn keep_alive() {
    let daemon = Daemon::start();
    let mut wire = Wire::open(&daemon, V5, "keep alive 1");
    wire.send("10 0e 0004 4d515454 05 02 0001 00 0001 6b");
    wire.expect(&Incoming::ConnAck { session_present: false, reason: ReasonCode::Success });
    wire.expect_silence();
    wire.expect_closed_with(&[0x8D]);
}

#[test]
fn malformed_and_forbidden_packets() {
    let daemon = Daemon::start();
    all_end(
        &daemon,
        &[
            ("[MQTT-3.3.1-4] QoS 3", V5, "36 08 0001 61 0001 00 6869", &[0x81]),
            ("[MQTT-3.3.1-4] QoS 3", V4, "36 07 0001 61 0001 6869", &[]),
            ("[MQTT-3.3.1-2] DUP at QoS 0", V5, "38 06 0001 61 00 6869", &[0x81, 0x82]),
            ("[MQTT-3.3.2-2] a wildcard in the topic", V5, "30 06 0001 23 00 6869", &[0x81, 0x82, 0x90]),
            ("[MQTT-3.3.2-2] a wildcard in the topic", V4, "30 07 0003 612f2b 6869", &[]),
            ("[MQTT-2.2.1-3] packet id 0", V5, "32 08 0001 61 0000 00 6869", &[0x81, 0x82]),
            ("3.1.1: [MQTT-2.3.1-1] packet id 0", V4, "32 07 0001 61 0000 6869", &[]),
            ("[MQTT-4.7.3-1] an empty topic", V4, "30 04 0000 6869", &[]),
            ("section 3.3.2.1: no topic, no alias", V5, "30 05 0000 00 6869", &[0x82]),
            ("[MQTT-3.3.2-8] alias 0", V5, "30 08 0001 61 03 230000 68", &[0x94]),
            ("[MQTT-3.3.2-9] alias above the maximum", V5, "30 08 0001 61 03 23ffff 68", &[0x94]),
            ("section 3.3.4: an unknown alias", V5, "30 07 0000 03 230001 68", &[0x82, 0x94]),
            ("[MQTT-3.3.4-6] a subscription identifier from a client", V5, "30 08 0001 61 02 0b01 6869", &[0x82]),
            ("[MQTT-3.8.1-1] flags of SUBSCRIBE", V5, "80 07 0001 00 0001 61 00", &[0x81]),
            ("[MQTT-3.8.1-1] flags of SUBSCRIBE", V4, "80 06 0001 0001 61 00", &[]),
            ("[MQTT-3.8.3-2] SUBSCRIBE of nothing", V5, "82 03 0001 00", &[0x82, 0x81]),
            ("3.1.1: [MQTT-3.8.3-3] SUBSCRIBE of nothing", V4, "82 02 0001", &[]),
            ("[MQTT-3.8.3-5] reserved option bits", V5, "82 07 0001 00 0001 61 c0", &[0x81, 0x82]),
            ("3.1.1: [MQTT-3-8.3-4] QoS 3 asked for", V4, "82 06 0001 0001 61 03", &[]),
            ("[MQTT-3.8.3-4] no local on a shared one", V5, "82 10 0001 00 000a 2473686172652f672f61 04", &[0x82]),
            ("section 3.8.3.1: retain handling 3", V5, "82 07 0001 00 0001 61 30", &[0x82]),
            ("[MQTT-3.10.1-1] flags of UNSUBSCRIBE", V5, "a0 06 0001 00 0001 61", &[0x81]),
            ("[MQTT-3.10.3-2] UNSUBSCRIBE of nothing", V5, "a2 03 0001 00", &[0x82, 0x81]),
            ("[MQTT-3.6.1-1] flags of PUBREL", V5, "60 02 0001", &[0x81]),
            ("[MQTT-3.14.1-1] flags of DISCONNECT", V5, "e1 00", &[0x81]),
            ("[MQTT-3.14.1-1] flags of DISCONNECT", V4, "e1 00", &[]),
            ("section 3.14.2.2.2: expiry where there was none", V5, "e0 07 00 05 1100000e10", &[0x82]),
            ("[MQTT-4.12.0-7] AUTH out of the blue", V5, "f0 00", &[0x82]),
            ("section 3.15: AUTH on 3.1.1", V4, "f0 00", &[]),
            ("section 3.2: CONNACK from a client", V5, "20 03 00 00 00", &[0x81, 0x82]),
            ("section 3.13: PINGRESP from a client", V4, "d0 00", &[]),
            ("section 3.12.1: PINGREQ with a body", V4, "c0 01 00", &[]),
        ],
    );
}

#[test]
fn publish_handshakes() {
    let daemon = Daemon::start();
    for version in [V4, V5] {
        let properties = if version.is_v5() { "00" } else { "" };
        let length = if version.is_v5() { "08" } else { "07" };
        let mut wire = Wire::connected(&daemon, version, "[MQTT-4.3.2-4] PUBACK with the id", b'h');
        wire.send(&format!("32 {length} 0001 61 0102 {properties} 6869"));
        let Incoming::PubAck(0x0102, reason) = wire.receive() else { panic!("{version:?}: no PUBACK") };
        assert!((reason as u8) < 0x80);

        wire.name = "[MQTT-4.3.3-8] PUBREC, [MQTT-4.3.3-11] PUBCOMP with the id".into();
        wire.send(&format!("34 {length} 0001 61 0102 {properties} 6869"));
        assert!(matches!(wire.receive(), Incoming::PubRec(0x0102, _)));
        wire.send(&format!("3c {length} 0001 61 0102 {properties} 6869"));
        assert!(matches!(wire.receive(), Incoming::PubRec(0x0102, _)), "[MQTT-4.3.3-10] the same again");
        wire.send("62 02 0102");
        wire.expect(&Incoming::PubComp(0x0102));
        wire.send("62 02 0999");
        wire.expect(&Incoming::PubComp(0x0999));
    }
}

#[test]
fn subscribe_answers() {
    let daemon = Daemon::start();
    let mut wire = Wire::connected(&daemon, V5, "[MQTT-3.8.4-6] one code per filter, in order", b's');
    wire.send("82 0f 0007 00 0001 61 01 0001 62 00 0001 63 02");
    wire.expect(&Incoming::SubAck(vec![ReasonCode::GrantedQos1, ReasonCode::Success, ReasonCode::GrantedQos2]));

    // Either answer is right: a SUBACK that says so, or the end of the connection.
    for (name, hex) in [
        ("[MQTT-4.7.1-1] # before the end", "82 0b 0008 00 0005 612f232f62 00"),
        ("[MQTT-4.7.1-2] + beside text", "82 08 0009 00 0002 612b 00"),
    ] {
        let mut wire = Wire::connected(&daemon, V5, name, b'f');
        wire.send(hex);
        match wire.receive() {
            Incoming::SubAck(reasons) => assert_eq!(reasons, [ReasonCode::TopicFilterInvalid], "{name}"),
            Incoming::Disconnect(reason) => assert!([0x81, 0x82, 0x8F].contains(&(reason as u8)), "{name}: {reason:?}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

/// [MQTT-3.1.4-2] The network connection is closed behind a CONNACK that refuses; [MQTT-3.14.4-2] behind a DISCONNECT.
#[test]
fn what_the_server_ends_it_closes() {
    let daemon = Daemon::start_with(&["auth.anonymous=deny"]);
    for (version, connect) in [(V4, CONNECT_V4), (V5, CONNECT_V5)] {
        let mut wire = Wire::open(&daemon, version, "a client that proves nothing");
        wire.send(&format!("{connect} 61"));
        wire.expect_closed_with(&[ReasonCode::NotAuthorized as u8, ReasonCode::BadUserNameOrPassword as u8]);
    }
    let daemon = Daemon::start();
    let old = Wire::connected(&daemon, V5, "the older connection of a client", b'a');
    let mut new = Wire::connected(&daemon, V5, "the newer connection of a client", b'a');
    old.expect_closed_with(&[ReasonCode::SessionTakenOver as u8]);
    new.expect_silence();
}

/// 3.1.1: [MQTT-4.8.0-2] A fault that will pass, met while a packet is processed, closes the connection that it came on:
/// here a full queue. Once it has passed, the packet is taken.
#[test]
fn a_passing_fault_closes_the_connection_of_version_3() {
    let daemon = Daemon::start_with(&["queue.messages_max=1"]);
    let mut away = Client::connect(daemon.mqtt(), &Options::persistent("away")).unwrap();
    away.subscribe("q", Qos::AtLeastOnce).unwrap();
    away.disconnect().unwrap();
    let publish = |number: u8| format!("32 05 0001 71 00{number:02x}");
    let mut wire = Wire::connected(&daemon, V4, "a publisher to a full queue", b'p');
    wire.send(&publish(1));
    wire.expect(&Incoming::PubAck(1, ReasonCode::Success));
    wire.send(&publish(2));
    assert_eq!(wire.until_closed(), Ok(None));
    let mut back = Client::connect(daemon.mqtt(), &Options::persistent("away")).unwrap();
    let message = back.next_message().unwrap();
    assert_eq!((&*message.topic, message.qos), ("q", Qos::AtLeastOnce));
    back.publish("elsewhere", b"", Qos::AtLeastOnce, false).unwrap(); // its PUBACK was read before this
    let mut wire = Wire::connected(&daemon, V4, "the publisher, once there is room", b'p');
    wire.send(&publish(2));
    wire.expect(&Incoming::PubAck(2, ReasonCode::Success));
}

/// Levels of a topic and bytes of retained messages are bounded, and the client is told as its version can be.
#[test]
fn limits_of_topics_and_retained_messages_are_told() {
    let daemon = Daemon::start_with(&["shards=1", "mqtt.topic_levels_max=3", "retained.bytes_max=1024"]);
    let mut wire = Wire::connected(&daemon, V5, "topics of four levels", b'l');
    wire.send("32 0c 0007 612f622f632f64 0001 00"); // a/b/c/d
    wire.expect(&Incoming::PubAck(1, ReasonCode::TopicNameInvalid));
    wire.send("82 0d 0002 00 0007 612f622f632f23 00"); // a/b/c/#
    wire.expect(&Incoming::SubAck(vec![ReasonCode::TopicFilterInvalid]));
    wire.send(&format!("33 87 08 0001 72 0003 00 {}", "78".repeat(1_025))); // r, 1,025 bytes
    wire.expect(&Incoming::PubAck(3, ReasonCode::QuotaExceeded));
    wire.send("33 07 0001 72 0004 00 78");
    let Incoming::PubAck(4, reason) = wire.receive() else { panic!("no PUBACK") };
    assert!((reason as u8) < 0x80, "{reason:?}");

    let mut wire = Wire::connected(&daemon, V4, "a topic of four levels on version 3", b'm');
    wire.send("82 0c 0002 0007 612f622f632f23 00");
    wire.expect(&Incoming::SubAck(vec![ReasonCode::UnspecifiedError]));
    wire.send("32 0b 0007 612f622f632f64 0001");
    assert_eq!(wire.until_closed(), Ok(None));
}

/// Publisher and subscriber of one daemon, by our client, for what is about delivery.
fn pair(daemon: &Daemon) -> (Client, Client) {
    let publisher = Client::connect(daemon.mqtt(), &Options::transient("publisher")).unwrap();
    let subscriber = Client::connect(daemon.mqtt(), &Options::transient("subscriber")).unwrap();
    (publisher, subscriber)
}

#[test]
fn levels_and_flags_of_deliveries() {
    let daemon = Daemon::start();
    let (mut publisher, mut subscriber) = pair(&daemon);
    publisher.publish("f/kept", b"x", Qos::ExactlyOnce, true).unwrap();
    subscriber.subscribe("f/+", Qos::AtLeastOnce).unwrap();
    let kept = subscriber.next_message().unwrap();
    assert!(kept.retain, "3.1.1: [MQTT-3.3.1-8] a retained message says so");
    assert_eq!(kept.qos, Qos::AtLeastOnce, "[MQTT-3.8.4-8] the lower of both levels");
    for (sent, delivered) in [(Qos::AtMostOnce, Qos::AtMostOnce), (Qos::ExactlyOnce, Qos::AtLeastOnce)] {
        publisher.publish("f/kept", b"y", sent, true).unwrap();
        let live = subscriber.next_message().unwrap();
        assert_eq!(live.qos, delivered, "[MQTT-3.8.4-8] the lower of both levels");
        assert!(!live.retain, "[MQTT-3.3.1-12] a live message is not a retained one");
        assert!(!live.dup, "[MQTT-3.3.1-3] DUP is not passed on");
    }
    subscriber.subscribe("f/+", Qos::AtMostOnce).unwrap();
    let again = subscriber.next_message().unwrap();
    assert_eq!((again.retain, again.qos), (true, Qos::AtMostOnce), "[MQTT-3.8.4-3] a new one replaces it");
}

#[test]
fn wildcards_and_reserved_topics() {
    let daemon = Daemon::start();
    let (mut publisher, mut subscriber) = pair(&daemon);
    for filter in ["#", "+/end"] {
        subscriber.subscribe(filter, Qos::AtMostOnce).unwrap();
    }
    publisher.publish("$other/end", b"hidden", Qos::AtLeastOnce, false).unwrap();
    publisher.publish("open", b"seen", Qos::AtLeastOnce, false).unwrap();
    let first = subscriber.next_message().unwrap();
    assert_eq!(first.payload, b"seen", "[MQTT-4.7.2-1] a wildcard does not start with $");

    subscriber.subscribe("tree/#", Qos::AtMostOnce).unwrap();
    let mut probe = Client::connect(daemon.mqtt(), &Options::transient("probe")).unwrap();
    probe.subscribe("tree/#", Qos::AtMostOnce).unwrap();
    for topic in ["tree", "tree/a/b", "Tree/a", "tree/"] {
        publisher.publish(topic, b"", Qos::AtLeastOnce, false).unwrap();
    }
    let seen: Vec<String> = (0..3).map(|_| probe.next_message().unwrap().topic).collect();
    assert_eq!(
        seen,
        ["tree", "tree/a/b", "tree/"],
        "# matches the parent too [section 4.7.1.2], by case [MQTT-4.7.3-4]"
    );
}

/// `[MQTT-3.3.4-9]`: no more unacknowledged deliveries than the client's Receive Maximum; QoS 0 passes by.
#[test]
fn receive_maximum_of_the_client() {
    let daemon = Daemon::start();
    let mut wire = Wire::open(&daemon, V5, "receive maximum 2");
    wire.send("10 11 0004 4d515454 05 02 0000 03 210002 0001 72");
    wire.expect(&Incoming::ConnAck { session_present: false, reason: ReasonCode::Success });
    wire.send("82 07 0001 00 0001 72 01");
    wire.expect(&Incoming::SubAck(vec![ReasonCode::GrantedQos1]));
    let (mut publisher, _) = pair(&daemon);
    for number in 0..5u8 {
        publisher.publish("r", &[number], Qos::AtLeastOnce, false).unwrap();
    }
    let held = [wire.message(), wire.message()];
    wire.expect_silence();
    for (number, message) in held.iter().enumerate() {
        wire.client.acknowledge(Packet::PubAck, message.id).unwrap();
        assert_eq!(wire.message().payload, [number as u8 + 2]);
    }
}

/// `[MQTT-3.1.2-24]`, `[MQTT-3.1.2-25]`: a packet above the client's Maximum Packet Size is not sent, as if it had been delivered.
#[test]
fn maximum_packet_size_of_the_client() {
    let daemon = Daemon::start();
    let mut wire = Wire::open(&daemon, V5, "maximum packet size 40");
    wire.send("10 13 0004 4d515454 05 02 0000 05 2700000028 0001 6d");
    wire.expect(&Incoming::ConnAck { session_present: false, reason: ReasonCode::Success });
    wire.send("82 07 0001 00 0001 6d 01");
    wire.expect(&Incoming::SubAck(vec![ReasonCode::GrantedQos1]));
    let (mut publisher, _) = pair(&daemon);
    publisher.publish("m", &[7; 100], Qos::AtLeastOnce, false).unwrap();
    publisher.publish("m", b"small", Qos::AtLeastOnce, false).unwrap();
    assert_eq!(wire.message().payload, b"small");
}

/// `[MQTT-3.14.4-3]`: DISCONNECT 0 removes the will; DISCONNECT 4 (section 3.14.2.1) and a cut publish it.
#[test]
fn wills() {
    let daemon = Daemon::start();
    let mut watcher = Client::connect(daemon.mqtt(), &Options::transient("watcher")).unwrap();
    watcher.subscribe("w", Qos::AtMostOnce).unwrap();
    for (ending, published) in [("e0 00", "none"), ("e0 01 04", "w4"), ("", "cut")] {
        let mut wire = Wire::open(&daemon, V5, "will");
        let payload: String = published.bytes().map(|byte| format!("{byte:02x}")).collect();
        let length = 0x0f + 4 + published.len() + 1;
        wire.send(&format!(
            "10 {length:02x} 0004 4d515454 05 06 0000 00 0001 77 00 0001 77 {:04x} {payload}",
            published.len()
        ));
        wire.expect(&Incoming::ConnAck { session_present: false, reason: ReasonCode::Success });
        wire.send(ending);
    }
    assert_eq!(watcher.next_message().unwrap().payload, b"w4");
    assert_eq!(watcher.next_message().unwrap().payload, b"cut");
}
