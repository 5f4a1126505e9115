//! What outlives the process, step by step (the storm is `kill9.rs`): sessions, queues, retained messages, open
//! QoS 2 handshakes, another number of shards.

#![allow(clippy::unwrap_used, reason = "a failed step of the test is a failed test")]

use postroad_base::Qos;
use postroad_e2e::daemon::Daemon;
use postroad_e2e::mqtt::{Client, Incoming, Message, Options};
use postroad_protocol::mqtt::Packet;

fn subscribe_and_leave(daemon: &Daemon, client_id: &str, filter: &str) {
    let mut client = Client::connect(daemon.mqtt(), &Options::persistent(client_id)).unwrap();
    client.subscribe(filter, Qos::ExactlyOnce).unwrap();
    client.disconnect().unwrap();
}

fn come_back(daemon: &Daemon, client_id: &str) -> Client {
    let client = Client::connect(daemon.mqtt(), &Options::persistent(client_id)).unwrap();
    assert!(client.session_present, "{client_id}: the session is gone");
    client
}

fn payloads(client: &mut Client, count: usize) -> Vec<String> {
    let mut received = Vec::new();
    while received.len() < count {
        match client.next_message() {
            Ok(message) => received.push(String::from_utf8(message.payload).unwrap()),
            Err(error) => panic!("{error}: {} of {count} messages came: {received:?}", received.len()),
        }
    }
    received
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

/// A publisher that dies between PUBREC and PUBREL with the server: the repeated PUBLISH is recognised, and the
/// subscriber has one message `[MQTT-4.3.3-10]`.
#[test]
fn an_open_qos_2_handshake_survives_kill_9() {
    let mut daemon = Daemon::start();
    subscribe_and_leave(&daemon, "subscriber", "two/#");
    let message = |dup| Message {
        topic: "two/a".into(),
        payload: b"once".to_vec(),
        qos: Qos::ExactlyOnce,
        dup,
        retain: false,
        id: 77,
    };
    let mut publisher = Client::connect(daemon.mqtt(), &Options::persistent("publisher")).unwrap();
    publisher.send_publish(&message(false)).unwrap();
    assert!(matches!(publisher.receive().unwrap(), Incoming::PubRec(77, _)));
    daemon.kill();
    daemon.restart();
    let mut publisher = come_back(&daemon, "publisher");
    publisher.send_publish(&message(true)).unwrap();
    assert!(matches!(publisher.receive().unwrap(), Incoming::PubRec(77, _)));
    publisher.acknowledge(Packet::PubRel, 77).unwrap();
    assert_eq!(publisher.receive().unwrap(), Incoming::PubComp(77));
    publisher.publish("two/end", b"end", Qos::ExactlyOnce, false).unwrap();
    assert_eq!(payloads(&mut come_back(&daemon, "subscriber"), 2), ["once", "end"]);
}

/// The same with another number of shards after the crash, for a subscriber that has acknowledged and for one that was
/// away. (Which ids were under way did not move with the data: both got the message once more.)
#[test]
fn an_open_qos_2_handshake_survives_another_number_of_shards() {
    let mut daemon = Daemon::start_with(&["shards=1"]);
    for shards in [3, 2, 1] {
        let [publisher, here, away, topic] =
            ["publisher", "here", "away", "two"].map(|name| format!("{name}-{shards}"));
        let message = |dup| Message {
            topic: topic.clone(),
            payload: b"once".to_vec(),
            qos: Qos::ExactlyOnce,
            dup,
            retain: false,
            id: 77,
        };
        subscribe_and_leave(&daemon, &away, &topic);
        subscribe_and_leave(&daemon, &here, &topic);
        let mut receiver = come_back(&daemon, &here);
        let mut sender = Client::connect(daemon.mqtt(), &Options::persistent(&publisher)).unwrap();
        sender.send_publish(&message(false)).unwrap();
        assert!(matches!(sender.receive().unwrap(), Incoming::PubRec(77, _)));
        let Incoming::Publish(first) = receiver.receive().unwrap() else { panic!("no message") };
        receiver.acknowledge(Packet::PubRec, first.id).unwrap();
        assert_eq!(receiver.receive().unwrap(), Incoming::PubRel(first.id));
        daemon.kill();
        daemon.set(&format!("shards={shards}"));
        daemon.restart();
        let mut sender = come_back(&daemon, &publisher);
        sender.send_publish(&message(true)).unwrap();
        assert!(matches!(sender.receive().unwrap(), Incoming::PubRec(77, _)));
        sender.acknowledge(Packet::PubRel, 77).unwrap();
        assert_eq!(sender.receive().unwrap(), Incoming::PubComp(77));
        sender.publish(&topic, b"end", Qos::ExactlyOnce, false).unwrap();
        assert_eq!(payloads(&mut come_back(&daemon, &here), 1), ["end"], "{shards} shards");
        assert_eq!(payloads(&mut come_back(&daemon, &away), 2), ["once", "end"], "{shards} shards");
    }
}

/// A receiver that has sent PUBREC gets PUBREL after the crash, and never the message again `[MQTT-4.3.3-6]`.
#[test]
fn a_received_qos_2_message_never_comes_again() {
    let mut daemon = Daemon::start();
    subscribe_and_leave(&daemon, "subscriber", "two/#");
    let mut publisher = Client::connect(daemon.mqtt(), &Options::transient("publisher")).unwrap();
    publisher.publish("two/a", b"first", Qos::ExactlyOnce, false).unwrap();
    let mut subscriber = come_back(&daemon, "subscriber");
    let Incoming::Publish(first) = subscriber.receive().unwrap() else { panic!("no message") };
    subscriber.acknowledge(Packet::PubRec, first.id).unwrap();
    // PUBREL leaves only once the receipt of the PUBREC is on disk.
    assert_eq!(subscriber.receive().unwrap(), Incoming::PubRel(first.id));
    daemon.kill();
    daemon.restart();
    let mut subscriber = come_back(&daemon, "subscriber");
    assert_eq!(subscriber.receive().unwrap(), Incoming::PubRel(first.id));
    subscriber.acknowledge(Packet::PubComp, first.id).unwrap();
    let mut publisher = Client::connect(daemon.mqtt(), &Options::transient("publisher")).unwrap();
    publisher.publish("two/a", b"second", Qos::ExactlyOnce, false).unwrap();
    assert_eq!(payloads(&mut subscriber, 1), ["second"]);
}

/// What was in flight and unacknowledged comes first, in order, with DUP `[MQTT-3.3.1-1]`, `[MQTT-4.6.0-1]`.
#[test]
fn unacknowledged_deliveries_come_again_with_dup() {
    let mut daemon = Daemon::start();
    subscribe_and_leave(&daemon, "subscriber", "one/#");
    let mut publisher = Client::connect(daemon.mqtt(), &Options::transient("publisher")).unwrap();
    for payload in numbers(0..5) {
        publisher.publish("one/a", payload.as_bytes(), Qos::AtLeastOnce, false).unwrap();
    }
    let mut subscriber = come_back(&daemon, "subscriber");
    for payload in numbers(0..5) {
        let Incoming::Publish(message) = subscriber.receive().unwrap() else { panic!("no message") };
        assert_eq!((message.payload, message.dup), (payload.into_bytes(), false));
    }
    daemon.kill();
    daemon.restart();
    let mut subscriber = come_back(&daemon, "subscriber");
    for payload in numbers(0..5) {
        let message = subscriber.next_message().unwrap();
        assert_eq!((message.payload, message.dup), (payload.into_bytes(), true));
    }
}

/// With the push side stopped publishes are stored and acknowledged, across a kill -9; with it back they are delivered.
#[test]
fn storing_goes_on_while_pushing_is_off() {
    let mut daemon = Daemon::prepared(&["shards=1"]);
    daemon.configure("[debug]\npush = \"off\"\n");
    daemon.restart();
    subscribe_and_leave(&daemon, "subscriber", "one/#");
    let mut subscriber = come_back(&daemon, "subscriber");
    let mut publisher = Client::connect(daemon.mqtt(), &Options::transient("publisher")).unwrap();
    for payload in numbers(0..200) {
        publisher.publish("one/a", payload.as_bytes(), Qos::AtLeastOnce, false).unwrap();
    }
    // All are committed: what were to leave would be here before this answer.
    subscriber.send(&Packet::PingReq).unwrap();
    assert_eq!(subscriber.receive().unwrap(), Incoming::PingResp);
    daemon.kill();
    daemon.restart();
    let mut subscriber = come_back(&daemon, "subscriber");
    subscriber.send(&Packet::PingReq).unwrap();
    assert_eq!(subscriber.receive().unwrap(), Incoming::PingResp);
    daemon.configure("");
    daemon.reload();
    assert_eq!(payloads(&mut subscriber, 200), numbers(0..200));
}

/// Retained messages, replaced and removed ones, after kill -9 `[MQTT-3.3.1-5]`.
#[test]
fn retained_messages_survive_kill_9() {
    let mut daemon = Daemon::start();
    let mut publisher = Client::connect(daemon.mqtt(), &Options::transient("publisher")).unwrap();
    for (topic, payload) in [("r/a", "old"), ("r/b", "gone"), ("r/a", "new"), ("r/b", ""), ("r/c", "kept")] {
        publisher.publish(topic, payload.as_bytes(), Qos::AtLeastOnce, true).unwrap();
    }
    daemon.kill();
    daemon.restart();
    let mut subscriber = Client::connect(daemon.mqtt(), &Options::transient("subscriber")).unwrap();
    subscriber.subscribe("r/+", Qos::AtLeastOnce).unwrap();
    let mut received = payloads(&mut subscriber, 2);
    received.sort_unstable();
    assert_eq!(received, ["kept", "new"]);
    let mut publisher = Client::connect(daemon.mqtt(), &Options::transient("publisher")).unwrap();
    publisher.publish("r/z", b"live", Qos::AtLeastOnce, false).unwrap();
    assert_eq!(payloads(&mut subscriber, 1), ["live"], "r/b came back");
}

/// The number of shards is free at each start: 1, then 8 (more than there are cores), then 2, by kill and by SIGTERM.
#[test]
fn data_opens_with_another_number_of_shards() {
    let mut daemon = Daemon::start_with(&["shards=1"]);
    let names: Vec<String> = (0..20).map(|number| format!("subscriber-{number}")).collect();
    for name in &names {
        subscribe_and_leave(&daemon, name, "shards/#");
    }
    for (round, shards) in [8, 2, 1].into_iter().enumerate() {
        let mut publisher = Client::connect(daemon.mqtt(), &Options::transient("publisher")).unwrap();
        for payload in numbers(round as u32 * 10..round as u32 * 10 + 10) {
            publisher.publish("shards/a", payload.as_bytes(), Qos::AtLeastOnce, false).unwrap();
        }
        if round % 2 == 0 {
            daemon.kill();
        } else {
            assert!(daemon.terminate().success(), "a graceful stop ends with 0");
        }
        daemon.set(&format!("shards={shards}"));
        daemon.restart();
    }
    for name in &names {
        assert_eq!(payloads(&mut come_back(&daemon, name), 30), numbers(0..30), "{name}");
    }
}

/// What waits for a client in both generations of the log comes whole and in order from another number of shards.
/// (The queue's old watermark hid what stood above it in the new set: it stayed on disk and never came.)
#[test]
fn both_generations_move_to_another_number_of_shards() {
    let mut daemon = Daemon::start_with(&["shards=1", "log.segment_bytes=64KiB", "log.young_bytes=1MiB"]);
    subscribe_and_leave(&daemon, "subscriber", "both");
    let mut publisher = Client::connect(daemon.mqtt(), &Options::transient("publisher")).unwrap();
    let payload = |number: u32| [number.to_string().as_bytes(), &[b' '; 32 << 10]].concat();
    for number in 0..60 {
        publisher.publish("both", &payload(number), Qos::AtLeastOnce, false).unwrap();
    }
    daemon.kill();
    daemon.set("shards=2");
    daemon.restart();
    let came = payloads(&mut come_back(&daemon, "subscriber"), 60);
    assert_eq!(came.iter().map(|payload| payload.trim().to_owned()).collect::<Vec<_>>(), numbers(0..60));
}

/// Clients on every one of 8 shards: each hears everyone, once and in each publisher's order.
#[test]
fn every_shard_hears_every_other() {
    const CLIENTS: usize = 24;
    const MESSAGES: usize = 10;
    let daemon = Daemon::start_with(&["shards=8"]);
    let connect = |number: usize| Client::connect(daemon.mqtt(), &Options::transient(&format!("member-{number}")));
    let mut receivers: Vec<Client> = (0..CLIENTS).map(|number| connect(number).unwrap()).collect();
    for receiver in &mut receivers {
        receiver.subscribe("all/+", Qos::AtLeastOnce).unwrap();
    }
    for number in 0..CLIENTS {
        let mut publisher = connect(CLIENTS + number).unwrap();
        for message in 0..MESSAGES {
            let payload = format!("{message}");
            publisher.publish(&format!("all/{number}"), payload.as_bytes(), Qos::AtLeastOnce, false).unwrap();
        }
    }
    for receiver in &mut receivers {
        let mut next = [0; CLIENTS];
        for _ in 0..CLIENTS * MESSAGES {
            let message = receiver.next_message().unwrap();
            let publisher: usize = message.topic["all/".len()..].parse().unwrap();
            assert_eq!(message.payload, next[publisher].to_string().into_bytes(), "{}", message.topic);
            next[publisher] += 1;
        }
        assert_eq!(next, [MESSAGES; CLIENTS]);
    }
}

/// The canary of this file: with `durability=memory` kill -9 does lose the session, so the tests above see the log.
#[test]
fn without_a_log_nothing_survives() {
    let mut daemon = Daemon::start_with(&["durability=memory"]);
    subscribe_and_leave(&daemon, "subscriber", "m/#");
    daemon.kill();
    daemon.restart();
    let client = Client::connect(daemon.mqtt(), &Options::persistent("subscriber")).unwrap();
    assert!(!client.session_present);
}
