//! Clients that pull, and queues that overflow into one message, by the real server and clients that we did not write [REL-1],
//! [PER-7].

#![allow(clippy::unwrap_used, reason = "a failed step of the test is a failed test")]

use std::fs;
use std::process::Command;

use postroad_e2e::daemon::{Daemon, binary, wait_until};
use postroad_e2e::http;
use postroad_e2e::tools::{Subscriber, mosquitto_pub, mosquitto_pub_lines, mosquitto_sub, python};

/// paho-mqtt, MQTT 5 and 3.1.1: allowance, what is in flight after a reconnect, what is refused.
#[test]
fn paho_pulls() {
    let daemon = Daemon::start();
    let output = python("pull_suite.py", daemon.mqtt());
    assert!(output.trim_end().ends_with("all passed"), "{output}");
    assert!(daemon.metric("postroad_pulls_total", "") > 5.0);
    let label = "reason=\"bad_pull\"";
    assert_eq!(daemon.metric("postroad_counted_total", label), 4.0);
}

/// A client of MQTT 3.1.1 that knows nothing of pulls gets what is QoS 0, where the option says pull; the rest waits for it, with
/// its session and through a kill -9, until it is pushed to again.
#[test]
fn mosquitto_is_not_pushed_to_where_all_pull() {
    let mut daemon = Daemon::start_with(&["delivery.mode=pull"]);
    let session = ["-V", "mqttv311", "-i", "sleeper", "-c", "-q", "1", "-t", "news/#"];
    let subscriber = Subscriber::start(daemon.mqtt(), &[&session[..], &["-C", "1"]].concat());
    mosquitto_pub_lines(daemon.mqtt(), &["-q", "1", "-t", "news/a"], "one\ntwo\n");
    let report = daemon.http("/v1/clients/sleeper").1;
    assert!(
        report.contains(r#""delivery":{"mode":"pull","allowance":0}"#) && report.contains(r#""backlog":2"#),
        "{report}"
    );
    mosquitto_pub(daemon.mqtt(), &["-q", "0", "-t", "news/a", "-m", "zero"]);
    assert_eq!(subscriber.messages(), ["news/a zero"]);
    daemon.kill();
    daemon.set("delivery.mode=push");
    daemon.restart();
    let received = mosquitto_sub(daemon.mqtt(), &[&session[..], &["-C", "2"]].concat());
    assert_eq!(received.lines().collect::<Vec<_>>(), ["one", "two"]);
}

/// `auth.file` says it of a user whose devices can't.
#[test]
fn a_user_of_auth_file_pulls() {
    let folder = tempfile::tempdir().unwrap();
    let auth = folder.path().join("auth.toml");
    let output =
        Command::new(binary()).args(["passwd", "--file"]).arg(&auth).args(["--token", "meter"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let token = text.split_whitespace().find(|word| word.starts_with("prt_")).unwrap();
    let users = fs::read_to_string(&auth).unwrap().replacen("name =", "delivery = \"pull\"\nname =", 1);
    fs::write(&auth, users).unwrap();
    let daemon = Daemon::start_with(&[&format!("auth.file={}", auth.display()), "auth.anonymous=allow"]);
    let login = ["-V", "mqttv311", "-u", "meter", "-P", token, "-q", "1", "-t", "t", "-C", "1"];
    let meter = Subscriber::start(daemon.mqtt(), &[&login[..], &["-i", "meter-1"]].concat());
    let other = Subscriber::start(daemon.mqtt(), &["-i", "other", "-q", "1", "-t", "t", "-C", "1"]);
    mosquitto_pub(daemon.mqtt(), &["-q", "1", "-t", "t", "-m", "waits"]);
    assert_eq!(other.messages(), ["t waits"]);
    mosquitto_pub(daemon.mqtt(), &["-q", "0", "-t", "t", "-m", "comes"]);
    assert_eq!(meter.messages(), ["t comes"]);
}

/// Deliveries that the car has not acknowledged.
fn backlog(daemon: &Daemon) -> u32 {
    let report = daemon.http("/v1/clients/car").1;
    report.split(r#""backlog":"#).nth(1).unwrap().split(',').next().unwrap().parse().unwrap()
}

/// The queue of a device that is away overflows twice, with a kill -9 and a retirement in between: it gets one message that tells of
/// all that was dropped, then what came after.
#[test]
fn a_device_is_told_to_fetch_its_state_anew() {
    let mut daemon =
        Daemon::start_with(&["queue.policy=full_sync", "queue.messages_max=50", "log.young_age=1s", "shards=1"]);
    let session = ["-V", "mqttv311", "-i", "car", "-c", "-q", "1", "-t", "state/#"];
    mosquitto_sub(daemon.mqtt(), &[&session[..], &["-E"]].concat());
    let lines = |range: std::ops::RangeInclusive<u32>| range.map(|n| format!("{n}\n")).collect::<String>();
    mosquitto_pub_lines(daemon.mqtt(), &["-q", "1", "-t", "state/a"], &lines(1..=80));
    let bytes_before = daemon.metric("postroad_log_old_bytes", "");
    wait_until("a retirement has stored what waits", || daemon.metric("postroad_log_old_bytes", "") > bytes_before);
    daemon.kill();
    daemon.restart();
    mosquitto_pub_lines(daemon.mqtt(), &["-q", "1", "-t", "state/a"], &lines(81..=120));
    daemon.kill();
    daemon.restart();
    mosquitto_pub_lines(daemon.mqtt(), &["-q", "1", "-t", "state/a"], &lines(121..=123));
    let waiting = backlog(&daemon);
    let received = mosquitto_sub(daemon.mqtt(), &[&session[..], &["-C", &waiting.to_string(), "-F", "%t %p"]].concat());
    let received: Vec<&str> = received.lines().collect();
    let dropped: u32 = received[0]
        .strip_prefix(r#"$sync/overflow {"dropped":"#)
        .unwrap_or_else(|| panic!("{received:?}"))
        .split(',')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let rest: Vec<String> = (dropped + 1..=123).map(|n| format!("state/a {n}")).collect();
    assert_eq!(received[1..], rest, "what was not dropped, all of it and in order");
    assert!(dropped > 80, "the second overflow is added to the first: {dropped}");
    wait_until("all of it is acknowledged", || backlog(&daemon) == 0);
}

/// What waits for a device is shown by HTTP, through a retirement and a kill -9, and over once it is acknowledged there.
#[test]
fn a_device_takes_its_messages_by_http() {
    let mut daemon = Daemon::start_with(&["log.young_age=1s", "shards=1"]);
    let session = ["-V", "mqttv311", "-i", "car", "-c", "-q", "1", "-t", "state/#"];
    mosquitto_sub(daemon.mqtt(), &[&session[..], &["-E"]].concat());
    mosquitto_pub_lines(daemon.mqtt(), &["-q", "1", "-t", "state/a"], "one\ntwo\nthree\n");
    let bytes_before = daemon.metric("postroad_log_old_bytes", "");
    wait_until("a retirement has stored what waits", || daemon.metric("postroad_log_old_bytes", "") > bytes_before);
    daemon.kill();
    daemon.restart();
    mosquitto_pub_lines(daemon.mqtt(), &["-q", "1", "-t", "state/a"], "four\n");
    let (mut deliveries, mut after) = (Vec::new(), String::new());
    loop {
        let (code, page) = daemon.http(&format!("/v1/clients/car/messages?limit=2{after}"));
        assert_eq!(code, 200, "{page}");
        let page: serde_json::Value = serde_json::from_str(&page).unwrap();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let found = page["deliveries"].as_array().unwrap().iter();
        deliveries.extend(found.map(|delivery| (text(&delivery["id"]), text(&delivery["payload"]))));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    let payloads: Vec<&str> = deliveries.iter().map(|(_, payload)| payload.as_str()).collect();
    assert_eq!(payloads, ["one", "two", "three", "four"]);
    let acknowledge = |daemon: &Daemon, ids: &[&str]| {
        let body = serde_json::json!({ "deliveries": ids }).to_string();
        let path = "POST /v1/clients/car/messages/acknowledge";
        let json = [("Content-Type", "application/json")];
        let answer = http::request(daemon.http_address(), path, &json, body.as_bytes()).unwrap();
        (answer.code, answer.body)
    };
    let (first, last) = (deliveries[0].0.as_str(), deliveries[3].0.as_str());
    let (code, body) = acknowledge(&daemon, &[first, last, "0-0-987654"]);
    assert_eq!((code, body.contains(r#""gone":["0-0-987654"]"#)), (200, true), "{body}");
    assert_eq!(acknowledge(&daemon, &["nonsense"]).0, 400);
    daemon.kill();
    daemon.restart();
    let (code, body) = acknowledge(&daemon, &[first]);
    assert!(code == 200 && body.contains(r#""acknowledged":[]"#), "what is acknowledged stays so: {body}");
    let received = mosquitto_sub(daemon.mqtt(), &[&session[..], &["-C", "2"]].concat());
    assert_eq!(received.lines().collect::<Vec<_>>(), ["two", "three"]);
    let watcher = Subscriber::start(daemon.mqtt(), &["-i", "car", "-c", "-q", "1", "-t", "state/#"]);
    let (code, body) = acknowledge(&daemon, &[first]);
    assert!(code == 409 && body.contains("client_connected"), "{body}");
    drop(watcher);
}
