//! Peers that misbehave: garbage, half-open connections, a subscriber that stops reading. The server's memory
//! stays bounded and everybody else goes on.

#![allow(clippy::unwrap_used, reason = "a failed step of the test is a failed test")]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

use postroad_base::Qos;
use postroad_e2e::PATIENCE;
use postroad_e2e::daemon::Daemon;
use postroad_e2e::mqtt::{Client, Message, Options, publish_packet};
use postroad_e2e::random::Random;
use postroad_protocol::mqtt::{Packet, Version};

const MIB: u64 = 1 << 20;

/// An ordinary pair of clients: a message of each QoS arrives.
fn assert_serving(daemon: &Daemon) {
    let mut receiver = Client::connect(daemon.mqtt(), &Options::transient("probe-receiver")).unwrap();
    receiver.subscribe("probe/#", Qos::ExactlyOnce).unwrap();
    let mut sender = Client::connect(daemon.mqtt(), &Options::transient("probe-sender")).unwrap();
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        sender.publish("probe/a", &[qos.number()], qos, false).unwrap();
        assert_eq!(receiver.next_message().unwrap().payload, [qos.number()]);
    }
}

fn open(daemon: &Daemon) -> TcpStream {
    let stream = TcpStream::connect(daemon.mqtt()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Sends these bytes and the end of the stream, and waits until the server has closed its side too.
fn send_and_wait_for_close(daemon: &Daemon, bytes: &[u8]) {
    let mut stream = open(daemon);
    let _closed_early = stream.write_all(bytes);
    let _closed_early = stream.shutdown(Shutdown::Write);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "not closed: {error}"),
    }
}

/// Random bytes, random bytes after a good CONNECT, and good packets with one byte changed.
#[test]
fn garbage_closes_its_connection_only() {
    let mut random = Random::seeded("garbage");
    let mut daemon = Daemon::start();
    let connect = b"\x10\x0f\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x02gx";
    let publish = b"\x32\x0c\x00\x03a/b\x00\x01\x00hello"; // QoS 1
    for round in 0..300u32 {
        let mut bytes = Vec::new();
        match round % 3 {
            0 => bytes.extend(random.bytes(1 + random.clone().below(4_000) as usize)),
            1 => {
                bytes.extend(connect);
                bytes.extend(random.bytes(200));
            }
            _ => {
                bytes.extend(connect);
                bytes.extend(publish);
                let at = random.below(bytes.len() as u64) as usize;
                bytes[at] = random.number() as u8;
            }
        }
        send_and_wait_for_close(&daemon, &bytes);
    }
    assert!(daemon.is_foreign() || daemon.is_running(), "the daemon died");
    assert_serving(&daemon);
}

/// Connections that never say CONNECT, or half of one, or announce a huge packet: they hold no memory worth
/// speaking of, and nobody waits for them.
#[test]
fn half_open_connections_cost_little() {
    let daemon = Daemon::start();
    assert_serving(&daemon);
    let before = if daemon.is_foreign() { 0 } else { daemon.rss_bytes() };
    let mut held = Vec::new();
    for number in 0..400u32 {
        let mut stream = open(&daemon);
        let _closed_at_once = match number % 4 {
            0 => Ok(()),
            1 => stream.write_all(b"\x10"),
            2 => stream.write_all(b"\x10\x20\x00\x04MQTT\x05"),
            _ => stream.write_all(b"\x10\xff\xff\xff\x7f\x00\x04MQTT\x05"), // 256 MiB to come
        };
        held.push(stream);
    }
    assert_serving(&daemon);
    if !daemon.is_foreign() {
        let grown = daemon.rss_bytes().saturating_sub(before);
        assert!(grown < 16 * MIB, "400 half-open connections took {grown} bytes");
    }
}

/// [PER-7] A crowd that comes at once right after the start is let in bit by bit: all of it, and nobody is refused.
#[test]
fn after_a_start_a_crowd_is_let_in_bit_by_bit() {
    let daemon = Daemon::start_with(&["shards=1", "restart.accept_per_second=100"]);
    let clients: Vec<_> = (0..60)
        .map(|number| {
            let address = daemon.mqtt();
            let name = format!("crowd-{number}");
            std::thread::spawn(move || Client::connect(address, &Options::transient(&name)).unwrap())
        })
        .collect();
    let clients: Vec<Client> = clients.into_iter().map(|client| client.join().unwrap()).collect();
    if !daemon.is_foreign() {
        assert!(daemon.metric("postroad_accept_ramp_waits_total", "") >= 1.0, "{} came at once", clients.len());
    }
}

/// A subscriber that stops reading, at QoS 0: what it does not read is dropped, not collected.
#[test]
fn a_subscriber_that_stops_reading_at_qos_0() {
    flood_a_stalled_subscriber(Qos::AtMostOnce, 600);
}

/// The same at QoS 1: its queue is bounded in memory by `queue.bytes_max`.
#[test]
fn a_subscriber_that_stops_reading_at_qos_1() {
    flood_a_stalled_subscriber(Qos::AtLeastOnce, 300);
}

/// Publishes `mebibytes` past a subscriber that reads nothing, while another one reads all.
fn flood_a_stalled_subscriber(qos: Qos, mebibytes: usize) {
    const BODY_BYTES: usize = 64 << 10;
    const PER_MEBIBYTE: usize = (1 << 20) / BODY_BYTES;
    let daemon = Daemon::start_with(&["queue.bytes_max=16777216"]);
    let mut stalled = Client::connect(daemon.mqtt(), &Options::transient("stalled")).unwrap();
    stalled.subscribe("flood/#", qos).unwrap();
    let mut reader = Client::connect(daemon.mqtt(), &Options::transient("reader")).unwrap();
    reader.subscribe("other/#", Qos::AtLeastOnce).unwrap();
    let mut sender = Client::connect(daemon.mqtt(), &Options::transient("sender")).unwrap();
    let before = if daemon.is_foreign() { 0 } else { daemon.rss_bytes() };
    let mut most = 0;
    let body = vec![7; BODY_BYTES];
    for number in 0..mebibytes {
        for _ in 0..PER_MEBIBYTE {
            flood_one(&mut sender, &body, qos);
        }
        // A barrier: it comes back only after the server has taken all that was sent before it.
        let mark = (number as u32).to_be_bytes();
        sender.publish("other/mark", &mark, Qos::AtLeastOnce, false).unwrap();
        assert_eq!(reader.next_message().unwrap().payload, mark);
        if !daemon.is_foreign() {
            most = most.max(daemon.rss_bytes());
        }
    }
    let grown = most.saturating_sub(before);
    println!("{qos:?}: {mebibytes} MiB published, {} MiB grown", grown / MIB);
    assert!(grown < 96 * MIB, "the server grew by {grown} bytes");
    assert_serving(&daemon);
    drop(stalled);
}

fn flood_one(sender: &mut Client, body: &[u8], qos: Qos) {
    if qos.is_acknowledged() {
        sender.publish("flood/a", body, qos, false).unwrap();
    } else {
        let message =
            Message { topic: "flood/a".into(), payload: body.to_owned(), qos, dup: false, retain: false, id: 0 };
        sender.send(&Packet::Publish(publish_packet(&message))).unwrap();
    }
}

/// A packet larger than `mqtt.packet_bytes_max` ends the connection with 0x95 `[MQTT-3.2.2-15]`, and costs no memory.
#[test]
fn a_packet_that_is_too_large_is_refused_by_its_header() {
    let daemon = Daemon::start();
    let mut client = Client::connect(daemon.mqtt(), &Options::transient("greedy")).unwrap();
    client.send_bytes(b"\x30\xff\xff\xff\x7f\x00\x01a").unwrap();
    let Ok(postroad_e2e::mqtt::Incoming::Disconnect(reason)) = client.receive() else {
        panic!("no DISCONNECT for a packet of 256 MiB");
    };
    assert_eq!(reason as u8, 0x95);
    assert!(client.receive().is_err(), "the connection stays open");
    assert_serving(&daemon);
}

/// The answer to an unknown protocol level is 0x84, or 1 in the old form `[MQTT-3.1.2-2]`.
#[test]
fn an_unknown_protocol_level_is_told_so() {
    let daemon = Daemon::start();
    let mut client = Client::open(daemon.mqtt(), Version::V5).unwrap();
    client.send_bytes(b"\x10\x0e\x00\x04MQTT\x09\x02\x00\x3c\x00\x02zz").unwrap();
    let mut answer = Vec::new();
    let _reset_after_the_answer = client.stream().read_to_end(&mut answer);
    assert!(answer.first() == Some(&0x20), "no CONNACK in {answer:?}");
    assert!(matches!(answer.get(3), Some(0x84 | 0x01)), "another reason in {answer:?}");
}
