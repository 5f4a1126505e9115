//! What publishers wish beyond MQTT, through the real server, with clients that we did not write.

#![allow(clippy::unwrap_used, reason = "a failed step of the test is a failed test")]

use postroad_e2e::daemon::{Daemon, wait_until};
use postroad_e2e::http;
use postroad_e2e::tools::{Subscriber, mosquitto, mosquitto_pub, mosquitto_sub};
use serde_json::{Value, json};

/// A client of MQTT 3.1.1 that has subscribed to everything, and is away.
fn leaves_a_session(daemon: &Daemon) {
    mosquitto_sub(daemon.mqtt(), &["-V", "mqttv311", "-i", "device", "-c", "-q", "1", "-t", "#", "-E"]);
}

/// What it gets once it is back: so many.
fn comes_back(daemon: &Daemon, count: usize) -> Vec<String> {
    let count = count.to_string();
    let arguments = ["-V", "mqttv311", "-i", "device", "-c", "-q", "1", "-t", "#", "-C", &count, "-F", "%p"];
    mosquitto_sub(daemon.mqtt(), &arguments).lines().map(str::to_owned).collect()
}

fn publish(daemon: &Daemon, payload: &str, wishes: &[&str]) {
    let properties = wishes.iter().map(|wish| wish.split_once('=').unwrap());
    let mut arguments = vec!["-V", "mqttv5", "-q", "1", "-t", "news", "-m", payload];
    for (name, value) in properties {
        arguments.extend(["-D", "publish", "user-property", name, value]);
    }
    mosquitto_pub(daemon.mqtt(), &arguments);
}

fn post(daemon: &Daemon, headers: &[(&str, &str)], path: &str, body: &[u8]) -> (u16, Value) {
    let answer = http::request(daemon.http_address(), &format!("POST {path}"), headers, body).unwrap();
    (answer.code, serde_json::from_str(&answer.body).unwrap())
}

/// By properties of MQTT 5, by the API and by headers; to a receiver that knows none of it; through a kill -9.
#[test]
fn the_urgent_comes_first_and_of_one_key_the_newest() {
    let mut daemon = Daemon::start();
    leaves_a_session(&daemon);
    publish(&daemon, "low", &["postroad-priority=low"]);
    publish(&daemon, "10 degrees", &["postroad-collapse-key=temperature"]);
    publish(&daemon, "plain", &[]);
    publish(&daemon, "11 degrees", &["postroad-collapse-key=temperature", "postroad-priority=high"]);
    let wishes = json!({"topic": "news", "payload": "urgent", "wishes": {"priority": "high"}}).to_string();
    let (code, answer) = post(&daemon, &[("Content-Type", "application/json")], "/v1/messages", wishes.as_bytes());
    assert_eq!(code, 200, "{answer}");
    daemon.kill();
    daemon.restart();
    let headers = [("postroad-collapse-key", "temperature")];
    let (code, answer) = post(&daemon, &headers, "/v1/messages?topic=news", b"12 degrees");
    assert_eq!(code, 200, "{answer}");
    assert_eq!(comes_back(&daemon, 4), ["urgent", "plain", "12 degrees", "low"]);
    assert_eq!(daemon.metric("postroad_deliveries_ended_total", "outcome=\"collapsed\""), 1.0, "since the restart");
}

/// What mosquitto wishes for its will holds when it vanishes; a wish that can't be does not let it in.
#[test]
fn a_will_has_wishes() {
    let daemon = Daemon::start();
    leaves_a_session(&daemon);
    publish(&daemon, "plain", &[]);
    let will = |priority| {
        let begin = ["-V", "mqttv5", "-i", "vanishes", "-t", "none", "--will-topic", "news", "--will-payload", "gone"];
        [&begin[..], &["--will-qos", "1", "-D", "will", "user-property", "postroad-priority", priority]].concat()
    };
    drop(Subscriber::start(daemon.mqtt(), &will("high"))); // killed, without a DISCONNECT
    wait_until("it is published", || daemon.metric("postroad_counted_total", "reason=\"will_published\"") == 1.0);
    let refused = mosquitto("mosquitto_sub", daemon.mqtt()).args(will("urgent")).output().unwrap();
    assert!(!refused.status.success(), "{refused:?}");
    assert_eq!(comes_back(&daemon, 2), ["gone", "plain"]);
}

#[test]
fn a_wish_that_can_t_be_is_refused_and_says_why() {
    let daemon = Daemon::start();
    leaves_a_session(&daemon);
    let (code, problem) = post(&daemon, &[("postroad-priority", "urgent")], "/v1/messages?topic=news", b"x");
    assert_eq!(code, 400);
    assert!(problem["detail"].as_str().unwrap().contains("neither high nor normal nor low"), "{problem}");
    publish(&daemon, "refused", &["postroad-priority=urgent"]); // mosquitto_pub says nothing of the reason code
    publish(&daemon, "taken", &["postroad-letter=unknown names travel on"]);
    assert_eq!(comes_back(&daemon, 1), ["taken"]);
    assert_eq!(daemon.metric("postroad_counted_total", "reason=\"bad_wish\""), 1.0);
}
