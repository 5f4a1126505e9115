//! The author's tools against the real server [PLG]: what is recorded is tried, and so are its dead letters; nothing is changed by it.

#![allow(clippy::unwrap_used, reason = "a failed step of the test is a failed test")]

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Output, Stdio};

use postroad_base::{Qos, ReasonCode, Tag};
use postroad_e2e::daemon::{Daemon, binary, wait_until};
use postroad_e2e::mqtt::{Client, Incoming, Options};
use postroad_protocol::mqtt::{Ack, Packet};
use serde_json::Value;
use tempfile::TempDir;

fn tool(arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(arguments).stdin(Stdio::null());
    command
}

fn text(output: &Output) -> String {
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn plugin(text: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("demo.lua"), text).unwrap();
    folder
}

/// A recorder that has subscribed: it has written the retained message, so what is published from now on comes to it.
fn recorder(daemon: &Daemon, arguments: &[&str]) -> std::process::Child {
    let port = daemon.mqtt().port().to_string();
    tool(&[&["record", "-h", "127.0.0.1", "-p", &port], arguments].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

const PLUGIN: &str = r#"
return {
  route = {
    filters = { "in/#" },
    run = function(message)
      if message.topic == "in/bad" then error("no") end
      if message.payload == "drop" then return postroad.drop() end
      message.topic = "out/" .. message.topic
    end,
  },
  on_dead_letter = function(letter)
    letter.payload = "mended"
    return postroad.requeue()
  end,
}
"#;

#[test]
fn what_is_recorded_is_tried() {
    let daemon = Daemon::start();
    let mut client = Client::connect(daemon.mqtt(), &Options::transient("c")).unwrap();
    client.publish("in/first", b"first", Qos::AtLeastOnce, true).unwrap();
    let folder = plugin(PLUGIN);
    let file = folder.path().join("messages.jsonl");
    let mut recorder = recorder(&daemon, &["in/#", "other", "--limit", "5", "--out", file.to_str().unwrap()]);
    wait_until("it has subscribed", || fs::read_to_string(&file).is_ok_and(|text| text.contains("in/first")));
    for (topic, payload) in [("in/1", &b"x"[..]), ("in/2", b"drop"), ("in/bad", &[0xff, 0]), ("other", b"y")] {
        client.publish(topic, payload, Qos::AtLeastOnce, false).unwrap();
    }
    assert!(recorder.wait().unwrap().success());
    let recorded = fs::read_to_string(&file).unwrap();
    let topics: Vec<Value> =
        recorded.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["topic"].clone()).collect();
    assert_eq!(topics, ["in/first", "in/1", "in/2", "in/bad", "other"]);

    let tried = |more: &[&str]| {
        let arguments = ["plugin", "try", folder.path().to_str().unwrap(), "--messages", file.to_str().unwrap()];
        tool(&[&arguments, more].concat()).output().unwrap()
    };
    let output = tried(&[]);
    assert_eq!(output.status.code(), Some(1), "a hook failed");
    let told = text(&output);
    for part in [
        "in/1: change\n  topic              in/1\n  ->                 out/in/1\n",
        "in/2: drop\n",
        "in/bad: keep\n  error ",
    ] {
        assert!(told.contains(part), "{told}");
    }
    assert!(
        !told.contains("other")
            && told.ends_with("5 in all: 2 change, 1 drop, 2 keep; 0 published besides; 1 failures\n"),
        "{told}"
    );
    assert!(text(&tried(&["--all"])).contains("other: keep\n"));
    let lines = text(&tried(&["--json"]));
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!((&first["action"], &first["changes"][0][0]["to"]), (&"change".into(), &"out/in/first".into()));
}

/// Whoever records into `head` has it end by itself.
#[test]
fn a_recorder_ends_quietly_when_nobody_reads() {
    let daemon = Daemon::start();
    let mut client = Client::connect(daemon.mqtt(), &Options::transient("c")).unwrap();
    client.publish("a", b"first", Qos::AtLeastOnce, true).unwrap();
    let mut recorder = recorder(&daemon, &["a"]);
    let mut line = String::new();
    let mut reader = BufReader::new(recorder.stdout.take().unwrap());
    reader.read_line(&mut line).unwrap();
    assert!(line.contains("\"payload\":\"first\""), "{line}");
    drop(reader);
    client.publish("a", b"nobody reads", Qos::AtLeastOnce, false).unwrap();
    assert!(recorder.wait().unwrap().success());
    let mut said = String::new();
    recorder.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "");
}

#[test]
fn dead_letters_are_tried_and_stay() {
    let daemon = Daemon::start();
    let mut device = Client::connect(daemon.mqtt(), &Options::persistent("device")).unwrap();
    device.subscribe("d/#", Qos::AtLeastOnce).unwrap();
    let mut client = Client::connect(daemon.mqtt(), &Options::transient("c")).unwrap();
    client.publish("d/1", b"broken", Qos::AtLeastOnce, false).unwrap();
    let tag = loop {
        if let Incoming::Publish(message) = device.receive().unwrap() {
            break message.id;
        }
    };
    device.send(&Packet::PubAck(Ack::new(Tag::new(tag).unwrap(), ReasonCode::PayloadFormatInvalid))).unwrap();
    wait_until("it is a letter", || daemon.http("/v1/dead-letters").1.contains("\"d/1\""));
    let before = daemon.http("/v1/dead-letters").1;

    let folder = plugin(PLUGIN);
    let api = format!("http://{}", daemon.http_address());
    let arguments = ["plugin", "try", folder.path().to_str().unwrap(), "--letters", "--api", &api];
    let told = text(&tool(&arguments).output().unwrap());
    assert!(
        told.contains(" d/1: requeue\n  payload            \"broken\"\n  ->                 \"mended\"\n"),
        "{told}"
    );
    assert!(told.ends_with("1 in all: 1 requeue; 0 published besides; 0 failures\n"), "{told}");
    let told = text(&tool(&[&arguments[..], &["--reason", "attempts"]].concat()).output().unwrap());
    assert!(told.starts_with("0 in all"), "{told}");
    assert_eq!(daemon.http("/v1/dead-letters").1, before, "it is as it was");
}
