//! Idempotency keys, and what is to be published later, through the real server, killed in the middle.

#![allow(clippy::unwrap_used, reason = "a failed step of the test is a failed test")]

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::mpsc;
use std::time::{SystemTime, UNIX_EPOCH};

use postroad_base::Qos;
use postroad_e2e::daemon::{Daemon, wait_until};
use postroad_e2e::http::{self, Answer};
use postroad_e2e::mqtt::{Client, Options};
use postroad_e2e::random::Random;
use postroad_e2e::tools::python_with;
use serde_json::{Value, json};

const SMALL_LOG: [&str; 4] = ["shards=2", "log.segment_bytes=64KiB", "log.young_bytes=1MiB", "log.young_age=1s"];

fn unix_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn subscriber(daemon: &Daemon) -> Client {
    let mut client = Client::connect(daemon.mqtt(), &Options::persistent("subscriber")).unwrap();
    if !client.session_present {
        client.subscribe("w/#", Qos::ExactlyOnce).unwrap();
    }
    client
}

fn post(daemon: &Daemon, body: &Value) -> Answer {
    let headers = [("Content-Type", "application/json")];
    http::request(daemon.http_address(), "POST /v1/messages", &headers, body.to_string().as_bytes()).unwrap()
}

fn id_of(answer: &Answer) -> String {
    assert_eq!(answer.code, 200, "{answer:?}");
    let body: Value = serde_json::from_str(&answer.body).unwrap();
    body["id"].as_str().unwrap().to_owned()
}

fn keyed(key: &str) -> Value {
    json!({"topic": format!("w/{key}"), "payload": key, "qos": 2, "wishes": {"idempotency_key": key}})
}

/// All that waits for the subscriber, by payload, up to a last one.
fn drained(daemon: &Daemon) -> BTreeMap<String, usize> {
    let mut other = Client::connect(daemon.mqtt(), &Options::transient("other")).unwrap();
    other.publish("w/end", b"end", Qos::AtLeastOnce, false).unwrap();
    let mut client = subscriber(daemon);
    let mut counts = BTreeMap::new();
    loop {
        let payload = String::from_utf8(client.next_message().unwrap().payload).unwrap();
        if payload == "end" {
            return counts;
        }
        *counts.entry(payload).or_default() += 1;
    }
}

/// A client that we did not write repeats what it published before the server was killed.
#[test]
fn paho_repeats_after_kill_9() {
    let mut daemon = Daemon::start_with(&["shards=2"]);
    subscriber(&daemon).disconnect().unwrap();
    let publish = |daemon: &Daemon, client, qos, payload| {
        let key = "postroad-idempotency-key=order 7";
        python_with("paho_wishes.py", daemon.mqtt(), &[client, "w/order", payload, qos, key])
    };
    assert_eq!(publish(&daemon, "paho", "1", "one"), "Success\nSuccess\n");
    daemon.kill();
    daemon.restart();
    assert_eq!(publish(&daemon, "paho", "1", "one"), "Success\nSuccess\n");
    assert_eq!(publish(&daemon, "paho", "1", "two"), "Packet identifier in use\nPacket identifier in use\n");
    assert_eq!(publish(&daemon, "another", "2", "two"), "Success\nSuccess\n", "another client has keys of its own");
    assert_eq!(drained(&daemon), [("one", 1), ("two", 1)].map(|(payload, count)| (payload.to_owned(), count)).into());
}

/// By curl, with the header that others have, too.
#[test]
fn curl_hears_the_same_answer() {
    let mut daemon = Daemon::start_with(&["shards=2"]);
    subscriber(&daemon).disconnect().unwrap();
    let curl = |daemon: &Daemon, body: &str| {
        let url = format!("http://{}/v1/messages?topic=w/curl&qos=2", daemon.http_address());
        let arguments = ["-sS", "-w", "\n%{http_code}", "-H", "Idempotency-Key: order 8", "--data-binary", body, &url];
        let output = Command::new("curl").args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let first = curl(&daemon, "one");
    assert!(first.ends_with("\n200"), "{first}");
    daemon.kill();
    daemon.restart();
    assert_eq!(curl(&daemon, "one"), first);
    let other = curl(&daemon, "two");
    assert!(other.contains("\"key_conflict\"") && other.ends_with("\n409"), "{other}");
    assert_eq!(drained(&daemon), [("one".to_owned(), 1)].into());
}

/// An application publishes under keys, the server is killed, and comes back with another number of shards; the application
/// repeats all: what was answered is answered as before, and nothing comes twice.
#[test]
fn keys_hold_through_kills_and_changes_of_the_number_of_shards() {
    let mut random = Random::seeded("keys");
    let mut daemon = Daemon::start_with(&SMALL_LOG);
    subscriber(&daemon).disconnect().unwrap();
    let mut ids: BTreeMap<String, String> = BTreeMap::new();
    let mut shards = 2;
    for life in 0..6 {
        let kill_after = random.below(60);
        let (address, (told, heard)) = (daemon.http_address(), mpsc::channel());
        let publisher = std::thread::spawn(move || {
            let mut answered = BTreeMap::new();
            for number in 0..100 {
                let (key, headers) = (format!("{life}-{number}"), [("Content-Type", "application/json")]);
                let body = keyed(&key).to_string();
                let Ok(answer) = http::request(address, "POST /v1/messages", &headers, body.as_bytes()) else { break };
                answered.insert(key, id_of(&answer));
                told.send(()).unwrap();
            }
            answered
        });
        (0..kill_after).for_each(|_| heard.recv().unwrap());
        daemon.kill();
        ids.extend(publisher.join().unwrap());
        shards = (shards + random.below(3)) % 4 + 1;
        daemon.set(&format!("shards={shards}"));
        daemon.restart();
        for number in 0..100 {
            let key = format!("{life}-{number}");
            let id = id_of(&post(&daemon, &keyed(&key)));
            assert_eq!(*ids.entry(key).or_insert_with(|| id.clone()), id, "a repeat has the same id");
        }
    }
    for (key, id) in &ids {
        assert_eq!(id_of(&post(&daemon, &keyed(key))), *id);
    }
    let conflict = post(&daemon, &json!({"topic": "w/x", "wishes": {"idempotency_key": "0-0"}}));
    assert_eq!(conflict.code, 409, "{conflict:?}");
    let expected: BTreeMap<_, _> = ids.into_keys().map(|key| (key, 1)).collect();
    assert_eq!(drained(&daemon), expected);
}

/// It waits through a kill, comes when it is due, and once.
#[test]
fn what_is_for_later_comes_after_a_restart_and_not_early() {
    let mut daemon = Daemon::start_with(&SMALL_LOG);
    subscriber(&daemon).disconnect().unwrap();
    let due = unix_ms() + 3_000;
    let wish = format!("postroad-deliver-at-unix-ms={due}");
    let answers = python_with("paho_wishes.py", daemon.mqtt(), &["paho", "w/later", "paho", "1", &wish]);
    assert_eq!(answers, "Success\nSuccess\n", "the same twice: there is no key");
    let body = json!({"topic": "w/later", "payload": "api", "qos": 2, "wishes": {"deliver_at_unix_ms": due}});
    id_of(&post(&daemon, &body));
    wait_until("it waits", || daemon.metric("postroad_scheduled_messages", "") > 0.0);
    daemon.kill();
    daemon.restart();
    let mut client = subscriber(&daemon);
    let mut came = BTreeMap::new();
    for _ in 0..3 {
        let message = client.next_message().unwrap();
        assert!(unix_ms() >= due, "{message:?} is early");
        *came.entry(String::from_utf8(message.payload).unwrap()).or_insert(0) += 1;
    }
    assert_eq!(came, [("api".to_owned(), 1), ("paho".to_owned(), 2)].into());
    wait_until("nothing waits", || daemon.metric("postroad_scheduled_messages", "") == 0.0);
}

/// Killed again and again while messages become due, with other numbers of shards: each comes, and none twice.
#[test]
fn what_is_due_while_the_server_is_killed_comes_once() {
    let mut random = Random::seeded("due");
    let mut daemon = Daemon::start_with(&SMALL_LOG);
    subscriber(&daemon).disconnect().unwrap();
    let (start, mut expected) = (unix_ms(), BTreeMap::new());
    for number in 0..600 {
        let payload = number.to_string();
        let at = start + 1_000 + random.below(4_000);
        let topic = format!("w/{number}");
        let body = json!({"topic": topic, "payload": payload, "qos": 2, "wishes": {"deliver_at_unix_ms": at}});
        id_of(&post(&daemon, &body));
        expected.insert(payload, 1);
    }
    let waiting = |daemon: &Daemon| daemon.metric("postroad_scheduled_messages", "") as u64;
    let mut shards = 2;
    for _ in 0..5 {
        let left = waiting(&daemon);
        let few = left.saturating_sub(1 + random.below(60));
        wait_until("some are due", || waiting(&daemon) <= few);
        daemon.kill();
        shards = (shards + random.below(3)) % 4 + 1;
        daemon.set(&format!("shards={shards}"));
        daemon.restart();
    }
    wait_until("all are due", || waiting(&daemon) == 0);
    assert_eq!(drained(&daemon), expected);
}
