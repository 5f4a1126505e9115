//! What is not acknowledged on a connection that lives, by the real server: MQTT 3.1.1 clients are sent it again, once the last
//! copy has arrived; MQTT 5 clients never [REL-2], [REL-4], [REL-6], [RTM-1].

#![allow(clippy::unwrap_used, reason = "a failed step of the test is a failed test")]

use std::collections::BTreeMap;

use postroad_base::Qos;
use postroad_e2e::daemon::{Daemon, wait_until};
use postroad_e2e::http;
use postroad_e2e::mqtt::{Client, Incoming, Message, Options};
use postroad_protocol::mqtt::{Packet, Version};
use serde_json::{Value, json};

/// Deadlines of a fifth of a second, which double up to half a second; waits of as long.
const FAST: [&str; 4] = [
    "retry.ack_timeout_min=200ms",
    "retry.ack_timeout_max=500ms",
    "retry.backoff_min=200ms",
    "retry.backoff_max=500ms",
];

fn fast(others: &[&str]) -> Daemon {
    Daemon::start_with(&[&FAST, others].concat())
}

fn get(daemon: &Daemon, path: &str) -> Value {
    let answer = http::request(daemon.http_address(), &format!("GET {path}"), &[], &[]).unwrap();
    assert_eq!(answer.code, 200, "{}", answer.body);
    serde_json::from_str(&answer.body).unwrap()
}

fn publish(daemon: &Daemon, message: &Value) {
    let headers = [("Content-Type", "application/json")];
    let body = message.to_string();
    let answer = http::request(daemon.http_address(), "POST /v1/messages", &headers, body.as_bytes()).unwrap();
    assert_eq!(answer.code, 200, "{}", answer.body);
}

fn letters(daemon: &Daemon, query: &str) -> Vec<Value> {
    get(daemon, &format!("/v1/dead-letters{query}"))["letters"].as_array().unwrap().clone()
}

fn resends(daemon: &Daemon, cause: &str) -> f64 {
    daemon.metric("postroad_resends_total", &format!("cause=\"{cause}\""))
}

/// A client with a session that lasts, subscribed to `<name>/#`.
fn client(daemon: &Daemon, name: &str, version: Version) -> Client {
    let mut client = Client::connect(daemon.mqtt(), &Options { version, ..Options::persistent(name) }).unwrap();
    if !client.session_present {
        client.subscribe(&format!("{name}/#"), Qos::ExactlyOnce).unwrap();
    }
    client
}

/// The next PUBLISH, of which nobody hears that it came.
fn silently(client: &mut Client) -> Message {
    match client.receive().unwrap() {
        Incoming::Publish(message) => message,
        other => panic!("no PUBLISH: {other:?}"),
    }
}

/// Sent four times on one connection, the last three with DUP, then given up; each copy has an answer of its own.
#[test]
fn a_client_that_does_not_acknowledge_is_sent_it_again_and_again() {
    let daemon = fast(&["retry.max_attempts=4", "retry.immediate=1"]);
    let mut device = client(&daemon, "old", Version::V3_1_1);
    publish(&daemon, &json!({"topic": "old/1", "payload": "held"}));
    let copies: Vec<Message> = (0..4).map(|_| silently(&mut device)).collect();
    assert_eq!(copies.iter().map(|copy| copy.dup).collect::<Vec<_>>(), [false, true, true, true]);
    assert!(copies.iter().all(|copy| copy.id == copies[0].id && copy.payload == b"held"), "{copies:?}");
    wait_until("it is given up", || letters(&daemon, "?reason=attempts").len() == 1);
    assert_eq!(letters(&daemon, "")[0]["attempts"], json!(4));
    assert_eq!(resends(&daemon, "live"), 3.0);
    assert_eq!(daemon.metric("postroad_lane_deliveries_total", "lane=\"retry\""), 3.0);

    for _ in 0..4 {
        device.acknowledge(Packet::PubAck, copies[0].id).unwrap();
    }
    wait_until("the late answer is counted", || daemon.metric("postroad_counted_total", "late_acknowledgement") == 1.0);
    publish(&daemon, &json!({"topic": "old/2", "payload": "fresh"}));
    assert_eq!(device.next_message().unwrap().payload, b"fresh");
    wait_until("it is acknowledged", || daemon.metric("postroad_in_flight_messages", "") == 0.0);
    assert_eq!(daemon.metric("postroad_counted_total", "unknown_tag"), 0.0, "each answer was due");
    let road = get(&daemon, "/v1/clients/old")["road"].clone();
    assert!(road["round_trip_ms"].is_u64() && road["ack_timeout_ms"].is_u64(), "{road}");
    assert_eq!(road["overdue"], json!(0));
}

/// QoS 2: PUBLISH until PUBREC, PUBREL until PUBCOMP.
#[test]
fn at_qos_2_each_half_is_repeated() {
    let daemon = fast(&[]);
    let mut device = client(&daemon, "old", Version::V3_1_1);
    publish(&daemon, &json!({"topic": "old/1", "payload": "once", "qos": 2}));
    let (first, second) = (silently(&mut device), silently(&mut device));
    assert_eq!((first.qos, first.dup, second.dup, first.id), (Qos::ExactlyOnce, false, true, second.id));
    device.acknowledge(Packet::PubRec, first.id).unwrap();
    // Further copies may have been under way.
    let mut releases = 0;
    while releases < 2 {
        releases += usize::from(device.receive().unwrap() == Incoming::PubRel(first.id));
    }
    device.acknowledge(Packet::PubComp, first.id).unwrap();
    wait_until("it is over", || daemon.metric("postroad_messages_acknowledged_total", "") == 1.0);
    assert_eq!(letters(&daemon, "").len(), 0);
}

/// [REL-4] While the kernel holds bytes for a client that reads nothing, it is sent nothing again. Another client that reads, and
/// does not acknowledge, is the clock. Once the first one reads, it gets each message, and some of them again.
#[test]
fn a_client_whose_buffers_are_full_is_not_sent_more_of_the_same() {
    const MESSAGES: usize = 80;
    let daemon = fast(&["retry.immediate=100"]);
    let mut jammed = client(&daemon, "jammed", Version::V3_1_1);
    let mut clock = client(&daemon, "clock", Version::V3_1_1);
    let mut publisher = Client::connect(daemon.mqtt(), &Options::transient("publisher")).unwrap();
    let body = vec![7; 256 << 10];
    for number in 0..MESSAGES {
        publisher.publish(&format!("jammed/{number}"), &body, Qos::AtLeastOnce, false).unwrap();
    }
    publish(&daemon, &json!({"topic": "clock/1", "payload": "tick"}));
    for tick in 0..5 {
        assert_eq!(silently(&mut clock).dup, tick > 0);
    }
    let report = get(&daemon, "/v1/clients/jammed");
    assert!(report["road"]["overdue"].as_u64() > Some(0), "{report}");
    assert!(report["session"]["queue"]["waiting"].as_u64() > Some(0), "its buffers are not full: {report}");
    let of_others = resends(&daemon, "live");
    assert!((4.0..=5.0).contains(&of_others), "the jammed client was sent something again: {of_others}");

    let (mut first, mut again) = (BTreeMap::new(), 0);
    while first.len() < MESSAGES || again == 0 {
        let copy = silently(&mut jammed);
        match first.get(&copy.topic) {
            None => assert!(!copy.dup, "{} comes for the first time", copy.topic),
            Some(id) => assert!(copy.dup && copy.id == *id, "{} comes again", copy.topic),
        }
        again += usize::from(first.insert(copy.topic, copy.id).is_some());
    }
    first.values().for_each(|id| jammed.acknowledge(Packet::PubAck, *id).unwrap());
    wait_until("all is acknowledged", || daemon.metric("postroad_messages_acknowledged_total", "") == MESSAGES as f64);
}

/// [MQTT-4.4.0-1] MQTT 5 forbids it: nothing comes before the answer to a ping. Age ends the delivery all the same, by its
/// publisher's wish.
#[test]
fn an_mqtt_5_client_is_sent_nothing_again() {
    let daemon = fast(&["retry.immediate=100"]);
    let (mut new, mut clock) = (client(&daemon, "new", Version::V5), client(&daemon, "clock", Version::V3_1_1));
    publish(&daemon, &json!({"topic": "new/1", "payload": "held"}));
    publish(&daemon, &json!({"topic": "new/2", "payload": "short", "wishes": {"retry_age_max_seconds": 1}}));
    publish(&daemon, &json!({"topic": "clock/1", "payload": "tick"}));
    assert!(!silently(&mut new).dup && !silently(&mut new).dup);
    (0..5).for_each(|_| drop(silently(&mut clock)));
    new.send(&Packet::PingReq).unwrap();
    assert_eq!(new.receive().unwrap(), Incoming::PingResp);
    wait_until("what its publisher gave a second is given up", || {
        letters(&daemon, "?reason=unacknowledged").len() == 1
    });
    assert_eq!(letters(&daemon, "")[0]["topic"], json!("new/2"));

    drop(new);
    let mut new = client(&daemon, "new", Version::V5);
    assert!(silently(&mut new).dup, "after the reconnect");
    assert_eq!(resends(&daemon, "reconnect"), 1.0);
}

/// [PER-2] What was sent again counts after kill -9: four attempts are four.
#[test]
fn attempts_survive_a_kill() {
    let mut daemon = fast(&["retry.max_attempts=4", "retry.immediate=100"]);
    let mut device = client(&daemon, "old", Version::V3_1_1);
    publish(&daemon, &json!({"topic": "old/1", "payload": "held"}));
    let copies: Vec<bool> = (0..3).map(|_| silently(&mut device).dup).collect();
    assert_eq!(copies, [false, true, true]);
    let commits = daemon.metric("postroad_log_records_total", "");
    publish(&daemon, &json!({"topic": "nobody", "payload": "x", "retain": true}));
    assert!(daemon.metric("postroad_log_records_total", "") > commits, "what was before it is on disk");
    daemon.kill();
    daemon.restart();
    let mut device = client(&daemon, "old", Version::V3_1_1);
    let last = silently(&mut device);
    assert!(last.dup && last.payload == b"held");
    wait_until("it is given up", || letters(&daemon, "?reason=attempts").len() == 1);
    assert_eq!(letters(&daemon, "")[0]["attempts"], json!(4));
}

/// A table by topic, changed by a reload; a wish of the publisher goes before it.
#[test]
fn topics_have_policies_and_a_reload_changes_them() {
    let mut daemon = Daemon::prepared(&FAST);
    let table = |attempts: u32| {
        format!("[[retry.topic]]\nfilter = \"old/alarm/#\"\nmax_attempts = {attempts}\nimmediate = 9\n")
    };
    daemon.configure(&table(2));
    daemon.restart();
    let mut device = client(&daemon, "old", Version::V3_1_1);
    let mut sends_until_given_up = |topic: &str, wishes: Value| {
        let before = letters(&daemon, "").len();
        publish(&daemon, &json!({"topic": topic, "payload": "x", "wishes": wishes}));
        wait_until("it is given up", || letters(&daemon, "").len() == before + 1);
        let attempts = letters(&daemon, "")[before]["attempts"].as_u64().unwrap();
        (0..attempts).for_each(|_| assert_eq!(silently(&mut device).topic, topic));
        attempts
    };
    assert_eq!(sends_until_given_up("old/alarm/1", json!({})), 2);
    assert_eq!(sends_until_given_up("old/alarm/1", json!({"retry_attempts_max": 1})), 1);
    assert_eq!(sends_until_given_up("old/other", json!({"retry_attempts_max": 3})), 3);
    daemon.configure(&table(3));
    daemon.reload();
    assert_eq!(sends_until_given_up("old/alarm/1", json!({})), 3);
}

/// A client that reads nothing, and whose buffers are full.
fn jam(daemon: &Daemon, client: &mut Client, name: &str) {
    let mut publisher = Client::connect(daemon.mqtt(), &Options::transient("publisher")).unwrap();
    let body = vec![7; 256 << 10];
    for number in 0..40 {
        publisher.publish(&format!("{name}/{number}"), &body, Qos::AtLeastOnce, false).unwrap();
    }
    let waiting = get(daemon, &format!("/v1/clients/{name}"))["session"]["queue"]["waiting"].clone();
    assert!(waiting.as_u64() > Some(0), "the buffers of {:?} are not full", client.stream());
}

/// [REL-5] A road on which nothing moves for `connections.stall_timeout` is dead: the connection is closed, and what was in flight
/// comes again with DUP, as one attempt more.
#[test]
fn a_dead_road_is_closed_and_what_was_in_flight_comes_again() {
    let daemon = fast(&["connections.stall_timeout=2s", "retry.resend=reconnect", "retry.max_attempts=2"]);
    let mut device = client(&daemon, "old", Version::V3_1_1);
    jam(&daemon, &mut device, "old");
    wait_until("the connection is closed", || get(&daemon, "/v1/clients/old")["connected"] == json!(false));
    drop(device);
    let mut device = client(&daemon, "old", Version::V3_1_1);
    let first = silently(&mut device);
    assert!(first.dup && first.topic == "old/0", "{} {}", first.dup, first.topic);
    drop(device);
    let mut device = client(&daemon, "old", Version::V3_1_1);
    silently(&mut device);
    assert_eq!(letters(&daemon, "?reason=attempts")[0]["attempts"], json!(2), "the break was one attempt, not more");
}

/// A client that reads nothing and goes on talking is alive: it outlasts another one that is silent, twice over. Once it is
/// silent, too, it is closed as any other.
#[test]
fn a_client_that_talks_is_not_dead_although_it_reads_nothing() {
    let daemon = fast(&["connections.stall_timeout=2s", "retry.resend=reconnect"]);
    let mut talker = client(&daemon, "talker", Version::V3_1_1);
    jam(&daemon, &mut talker, "talker");
    for silent in ["silent-1", "silent-2"] {
        let mut device = client(&daemon, silent, Version::V3_1_1);
        jam(&daemon, &mut device, silent);
        wait_until("the silent one is closed", || {
            talker.send(&Packet::PingReq).unwrap();
            get(&daemon, &format!("/v1/clients/{silent}"))["connected"] == json!(false)
        });
        assert_eq!(get(&daemon, "/v1/clients/talker")["connected"], json!(true), "after {silent}");
    }
    wait_until("it is closed, too", || get(&daemon, "/v1/clients/talker")["connected"] == json!(false));
}
