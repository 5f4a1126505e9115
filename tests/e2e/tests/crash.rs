//! The crash story: a message or a client that makes the server panic is kept away at the third start, whole and named,
//! and everybody else is served [PER-2, PER-3].
//!
//! The panics are planted (`engine/src/fault.rs`); everything after them is the real thing.

#![allow(clippy::unwrap_used, reason = "a failed step of the test is a failed test")]

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;

use postroad_base::{Qos, ReasonCode};
use postroad_e2e::PATIENCE;
use postroad_e2e::daemon::{Daemon, wait_until};
use postroad_e2e::mqtt::{Client, Incoming, Message, Options};
use postroad_protocol::mqtt::{Connect, Packet, Version};
use serde_json::Value;

const TOPIC: &str = "poison/well";

fn connect(daemon: &Daemon, options: &Options) -> Client {
    Client::connect(daemon.mqtt(), options).unwrap()
}

/// The answer to a CONNECT, whatever it is.
fn knock(address: SocketAddr, version: Version, client_id: &str) -> ReasonCode {
    let mut client = Client::open(address, version).unwrap();
    client.send(&Packet::Connect(Box::new(Connect::new(version, client_id)))).unwrap();
    match client.receive().unwrap() {
        Incoming::ConnAck { reason, .. } => reason,
        other => panic!("expected CONNACK, got {other:?}"),
    }
}

/// Goes on with a session; the CONNACK may be lost with what comes behind it.
fn come_for_messages(daemon: &Daemon, client_id: &str) -> Client {
    let mut client = Client::open(daemon.mqtt(), Version::V5).unwrap();
    let mut hello = Connect::new(Version::V5, client_id);
    (hello.clean_start, hello.properties.session_expiry) = (false, Some(u32::MAX));
    client.send(&Packet::Connect(Box::new(hello))).unwrap();
    client
}

/// Sends the planted message, and leaves the rest to the server.
fn send(client: &mut Client, payload: &[u8]) {
    let message = Message {
        topic: TOPIC.into(),
        payload: payload.to_owned(),
        qos: Qos::AtLeastOnce,
        dup: false,
        retain: false,
        id: 9,
    };
    client.send_publish(&message).unwrap();
}

fn crashes(daemon: &Daemon) -> Vec<Value> {
    let text = fs::read(daemon.data().join("crash.json")).expect("a crash leaves crash.json");
    let report: Value = serde_json::from_slice(&text).expect("crash.json is JSON");
    report["crashes"].as_array().expect("a list of crashes").clone()
}

fn notes(daemon: &Daemon) -> Vec<String> {
    let (status, body) = daemon.http("/ready");
    assert_eq!(status, 200, "{body}");
    let body: Value = serde_json::from_str(&body).unwrap();
    body["notes"].as_array().unwrap().iter().map(|note| note.as_str().unwrap().to_owned()).collect()
}

/// The messages that were set aside.
fn quarantine(daemon: &Daemon) -> Vec<Value> {
    let folder = daemon.data().join("quarantine");
    let entries = fs::read_dir(folder).map(|entries| entries.map(|entry| entry.unwrap().path()).collect());
    let mut files: Vec<PathBuf> = entries.unwrap_or_default();
    files.sort();
    files.iter().map(|path| serde_json::from_slice(&fs::read(path).unwrap()).unwrap()).collect()
}

/// A message of each level arrives.
fn assert_serving(daemon: &Daemon) {
    let mut receiver = connect(daemon, &Options::transient("probe-receiver"));
    receiver.subscribe("probe/#", Qos::ExactlyOnce).unwrap();
    let mut sender = connect(daemon, &Options::transient("probe-sender"));
    for qos in [Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce] {
        sender.publish("probe/a", &[qos.number()], qos, false).unwrap();
        assert_eq!(receiver.next_message().unwrap().payload, [qos.number()]);
    }
}

/// A client whose messages make the server panic is refused at the third start, until the operator lifts the bar.
#[test]
fn a_client_that_crashes_the_server_twice_is_barred() {
    let mut daemon = Daemon::with_faults(&format!("panic-input={TOPIC}"), &["shards=2"]);
    for round in 1..=2 {
        let mut culprit = connect(&daemon, &Options::persistent("culprit"));
        send(&mut culprit, b"boom");
        assert!(!daemon.wait_for_end().success());
        assert_eq!(crashes(&daemon).len(), round);
        daemon.restart();
    }
    let report = &crashes(&daemon)[1];
    assert_eq!((report["client"].as_str(), report["doing"].as_str()), (Some("culprit"), Some("input")), "{report}");
    assert!(report["panic"].as_str().unwrap().contains("a planted fault"), "{report}");

    assert_serving(&daemon);
    assert_eq!(knock(daemon.mqtt(), Version::V5, "culprit") as u8, 0x8a);
    assert_eq!(knock(daemon.mqtt(), Version::V3_1_1, "culprit"), ReasonCode::NotAuthorized);
    let shown = notes(&daemon);
    assert!(shown.len() == 1 && shown[0].contains("\"culprit\" is barred until"), "{shown:?}");
    assert!(daemon.log().contains("\\\"culprit\\\" is barred") || daemon.log().contains("\"culprit\" is barred"));
    assert_eq!(daemon.metric("postroad_interface_errors_total", "reason=\"banned\"") as u64, 2);
    assert!(quarantine(&daemon).is_empty());

    fs::remove_file(daemon.data().join("crash.json")).unwrap();
    daemon.reload();
    assert!(notes(&daemon).is_empty());
    connect(&daemon, &Options::persistent("culprit"));
}

/// The bar ends by itself after `crash.bar_time`.
#[test]
fn a_bar_of_no_time_bars_nobody() {
    let mut daemon = Daemon::with_faults(&format!("panic-input={TOPIC}"), &["crash.bar_time=0s"]);
    for _ in 0..2 {
        let mut culprit = connect(&daemon, &Options::persistent("culprit"));
        send(&mut culprit, b"boom");
        assert!(!daemon.wait_for_end().success());
        daemon.restart();
    }
    assert!(notes(&daemon).is_empty());
    connect(&daemon, &Options::persistent("culprit"));
}

/// A plugin in whose call the server panics takes the blame for the client that it was asked about: at the third start that version of it is not called,
/// its hook is open, and the plugin behind it is asked, until the operator lets it off.
#[test]
fn a_plugin_that_crashes_the_server_twice_is_disabled() {
    let scripts = tempfile::tempdir().unwrap();
    let route = |to: &str| {
        let hook = format!("filters = {{ '{TOPIC}' }}, run = function(message) message.topic = '{to}' end");
        format!("return {{ route = {{ {hook} }} }}")
    };
    fs::write(scripts.path().join("bad.lua"), route("never")).unwrap();
    fs::write(scripts.path().join("good.lua"), route("good/well")).unwrap();
    let folder = format!("plugins.dir={}", scripts.path().display());
    let mut daemon = Daemon::with_faults("panic-plugin=bad", &["shards=2", &folder]);
    for _ in 0..2 {
        let mut innocent = connect(&daemon, &Options::persistent("innocent"));
        send(&mut innocent, b"boom");
        assert!(!daemon.wait_for_end().success());
        daemon.restart();
    }
    let report = &crashes(&daemon)[1];
    assert_eq!((report["client"].as_str(), report["plugin"].as_str()), (Some("innocent"), Some("bad")), "{report}");

    assert_serving(&daemon);
    let mut receiver = connect(&daemon, &Options::transient("receiver"));
    receiver.subscribe("#", Qos::AtLeastOnce).unwrap();
    let mut innocent = connect(&daemon, &Options::persistent("innocent"));
    send(&mut innocent, b"well");
    let message = receiver.next_message().unwrap();
    assert_eq!((message.topic.as_str(), message.payload.as_slice()), ("good/well", b"well".as_slice()));
    let shown = notes(&daemon);
    assert!(shown.len() == 1 && shown[0].contains("plugin bad is not called"), "{shown:?}");
    assert_eq!(daemon.metric("postroad_plugin_quarantined", "plugin=\"bad\"") as u64, 2, "on both shards");
    assert_eq!(daemon.metric("postroad_plugin_quarantined", "plugin=\"good\"") as u64, 0);

    let generation = daemon.metric("postroad_plugins_generation", "");
    fs::remove_file(daemon.data().join("crash.json")).unwrap();
    daemon.reload();
    assert!(notes(&daemon).is_empty());
    wait_until("it is loaded again", || daemon.metric("postroad_plugins_generation", "") > generation);
    send(&mut innocent, b"boom");
    assert!(!daemon.wait_for_end().success(), "it is called again");
}

/// A codec of functions runs where panics are guarded, in the VM of all plugins: that is no place to go on from.
#[test]
fn a_codec_that_crashes_the_server_twice_refuses_its_frames() {
    const LINES: &str = r#"
return {
  codec = {
    longest = 64,
    encode = function() return nil, "there is nothing to say" end,
    decode = function(bytes)
      local at = bytes:find("\n", 1, true)
      if not at then return nil, #bytes + 1 end
      return { kind = "hello", client = bytes:sub(1, at - 1) }, at
    end,
  },
}
"#;
    let scripts = tempfile::tempdir().unwrap();
    fs::write(scripts.path().join("lines.lua"), LINES).unwrap();
    let folder = format!("plugins.dir={}", scripts.path().display());
    let mut daemon = Daemon::with_faults("panic-plugin=lines", &["shards=1", &folder]);
    daemon.kill();
    daemon.configure("[[listener]]\nname = \"devices\"\naddress = \"127.0.0.1:0\"\ncodec = \"lines\"\n");
    daemon.restart();
    let hello = |daemon: &Daemon| {
        let ports: Value = serde_json::from_slice(&fs::read(daemon.data().join("ports.json")).unwrap()).unwrap();
        let port = u16::try_from(ports["devices"].as_u64().unwrap()).unwrap();
        let mut device = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        device.set_read_timeout(Some(PATIENCE)).unwrap();
        device.write_all(b"box\n").unwrap();
        device
    };
    for _ in 0..2 {
        let _device = hello(&daemon);
        assert!(!daemon.wait_for_end().success());
        daemon.restart();
    }
    let report = &crashes(&daemon)[1];
    assert_eq!((report["plugin"].as_str(), report["doing"].as_str()), (Some("lines"), Some("input")), "{report}");
    assert_serving(&daemon);
    assert_eq!(hello(&daemon).read(&mut [0; 9]).unwrap(), 0, "it is turned away");
    let label = "interface=\"devices\",reason=\"function\"";
    assert_eq!(daemon.metric("postroad_interface_broken_frames_total", label) as u64, 1);
}

/// With two shards, the one that panics is not the publisher's: it asks for the name.
#[test]
fn the_publisher_on_another_shard_is_found_out() {
    let mut daemon = Daemon::with_faults(&format!("panic-forward={TOPIC}"), &["shards=2"]);
    // Of eight sessions some live on the other shard, wherever the culprit lives.
    for number in 0..8 {
        let mut victim = connect(&daemon, &Options::persistent(&format!("victim-{number}")));
        victim.subscribe("poison/#", Qos::AtLeastOnce).unwrap();
    }
    for _ in 0..2 {
        let mut culprit = connect(&daemon, &Options::persistent("culprit"));
        send(&mut culprit, b"boom");
        assert!(!daemon.wait_for_end().success());
        daemon.restart();
    }
    let report = &crashes(&daemon)[1];
    assert_eq!((report["client"].as_str(), report["doing"].as_str()), (Some("culprit"), Some("forward")), "{report}");
    assert_eq!(knock(daemon.mqtt(), Version::V5, "culprit") as u8, 0x8a);
    assert_serving(&daemon);
}

/// A stored message whose delivery makes the server panic: the third start sets it aside, for all its recipients, and
/// what stands before and behind it is delivered.
#[test]
fn a_message_that_crashes_the_server_twice_is_set_aside() {
    let mut daemon = Daemon::with_faults("", &["shards=1"]);
    for victim in ["victim-1", "victim-2"] {
        let mut client = connect(&daemon, &Options::persistent(victim));
        client.subscribe("#", Qos::ExactlyOnce).unwrap();
        client.disconnect().unwrap();
    }
    let mut sender = connect(&daemon, &Options::transient("innocent"));
    sender.publish("before", b"1", Qos::AtLeastOnce, false).unwrap();
    sender.publish(TOPIC, b"boom \x00\xff", Qos::ExactlyOnce, false).unwrap();
    sender.publish("after", b"2", Qos::AtLeastOnce, false).unwrap();
    daemon.set_fault(&format!("panic-deliver={TOPIC}"));
    assert!(daemon.terminate().success());
    daemon.restart();
    for round in 1..=2 {
        let _victim = come_for_messages(&daemon, "victim-1");
        assert!(!daemon.wait_for_end().success());
        assert_eq!(crashes(&daemon).len(), round);
        daemon.restart();
    }
    let report = &crashes(&daemon)[1];
    assert_eq!(report["doing"].as_str(), Some("delivery"), "{report}");

    let kept = quarantine(&daemon);
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(kept[0]["id"], report["message"]);
    assert_eq!((&kept[0]["topic"], &kept[0]["qos"]), (&Value::from(TOPIC), &Value::from(2)));
    assert_eq!(kept[0]["payload"].as_str(), Some("Ym9vbSAA/w=="));
    let mut clients: Vec<_> = kept[0]["clients"].as_array().unwrap().iter().map(|c| c.as_str().unwrap()).collect();
    clients.sort_unstable();
    assert_eq!(clients, ["victim-1", "victim-2"]);
    let shown = notes(&daemon);
    let id = report["message"].as_str().unwrap();
    assert!(shown.iter().any(|note| note.contains(id) && note.contains("quarantine/poison-")), "{shown:?}");
    assert_eq!(daemon.metric("postroad_counted_total", "reason=\"poison\"") as u64, 2);

    for victim in ["victim-1", "victim-2"] {
        let mut client = connect(&daemon, &Options::persistent(victim));
        assert!(client.session_present);
        let came: Vec<_> = (0..2).map(|_| client.next_message().unwrap().payload).collect();
        assert_eq!(came, [b"1", b"2"], "{victim}");
    }
    assert_serving(&daemon);
    // What was set aside stays so, also for a server without the memory of its crashes.
    daemon.terminate();
    fs::remove_file(daemon.data().join("crash.json")).unwrap();
    daemon.restart();
    assert!(notes(&daemon).is_empty());
    assert_eq!(daemon.metric("postroad_counted_total", "reason=\"poison\"") as u64, 0);
}

/// A record whose replay panics would keep the server from starting for ever.
#[test]
fn a_record_that_can_t_be_replayed_is_set_aside() {
    let mut daemon = Daemon::with_faults("", &["shards=2"]);
    let mut victim = connect(&daemon, &Options::persistent("victim"));
    victim.subscribe("#", Qos::AtLeastOnce).unwrap();
    victim.disconnect().unwrap();
    let mut sender = connect(&daemon, &Options::transient("innocent"));
    sender.publish(TOPIC, b"boom", Qos::AtLeastOnce, false).unwrap();
    sender.publish("after", b"2", Qos::AtLeastOnce, false).unwrap();
    daemon.kill();
    daemon.set_fault(&format!("panic-replay={TOPIC}"));
    for round in 1..=2 {
        assert!(!daemon.start_and_end().success());
        assert_eq!(crashes(&daemon).len(), round);
    }
    daemon.restart();
    let report = &crashes(&daemon)[1];
    assert_eq!(report["doing"].as_str(), Some("recovery"), "{report}");
    assert_eq!(quarantine(&daemon).len(), 1);
    let mut victim = connect(&daemon, &Options::persistent("victim"));
    assert_eq!(victim.next_message().unwrap().payload, b"2");
}

/// Encoding is per-connection state: the connection ends, not the process; and since the client would come back for the
/// message for ever, it is set aside at the third time.
#[test]
fn a_message_that_can_t_be_encoded_ends_connections_until_it_is_set_aside() {
    let mut daemon = Daemon::with_faults(&format!("panic-encode={TOPIC}"), &[]);
    let mut victim = connect(&daemon, &Options::persistent("victim"));
    victim.subscribe("#", Qos::AtLeastOnce).unwrap();
    let mut sender = connect(&daemon, &Options::transient("innocent"));
    sender.publish(TOPIC, b"boom", Qos::AtLeastOnce, false).unwrap();
    sender.publish("after", b"2", Qos::AtLeastOnce, false).unwrap();
    assert!(victim.next_message().is_err(), "the connection stays open");
    for _ in 0..2 {
        let mut victim = come_for_messages(&daemon, "victim");
        assert!(victim.next_message().is_err(), "the connection stays open");
    }
    let mut victim = connect(&daemon, &Options::persistent("victim"));
    assert_eq!(victim.next_message().unwrap().payload, b"2");
    assert!(daemon.is_running());
    assert!(!daemon.data().join("crash.json").exists());
    assert_eq!(quarantine(&daemon)[0]["payload"].as_str(), Some("Ym9vbQ=="));
    wait_until("/ready names what was set aside", || notes(&daemon).iter().any(|note| note.contains("is set aside")));
    assert_eq!(daemon.metric("postroad_counted_total", "reason=\"panic_in_connection\"") as u64, 3);
    sender.publish("after", b"3", Qos::AtLeastOnce, false).unwrap();
    assert_eq!(victim.next_message().unwrap().payload, b"3");
}

/// A password check that panics is that client's misfortune. (A hash as cheap as this one has also shown what happened to
/// an answer that was there before somebody waited for it: the shard was borrowed twice.)
#[test]
fn a_check_that_panics_refuses_its_client() {
    // argon2id of "right" with 8 KiB and one pass: cheap, since its cost is not the question.
    let auth = "[[user]]\nname = \"u\"\npassword = \
        \"$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHRzYWx0$MD0KRw8jbYzCM1mkNxDtsr2eJZzUWsCVtSrq5sPQZnQ\"\n";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("auth.toml");
    fs::write(&path, auth).unwrap();
    let setting = format!("auth.file={}", path.display());
    let mut daemon = Daemon::with_faults("panic-hash=boom", &[&setting]);
    let answer = |daemon: &Daemon, password: &'static [u8]| {
        let mut client = Client::open(daemon.mqtt(), Version::V5).unwrap();
        let mut hello = Connect::new(Version::V5, "c");
        (hello.username, hello.password) = (Some("u"), Some(password));
        client.send(&Packet::Connect(Box::new(hello))).unwrap();
        match client.receive().unwrap() {
            Incoming::ConnAck { reason, .. } => reason,
            other => panic!("expected CONNACK, got {other:?}"),
        }
    };
    assert_eq!(answer(&daemon, b"boom"), ReasonCode::ServerUnavailable);
    assert_eq!(answer(&daemon, b"wrong"), ReasonCode::BadUserNameOrPassword, "the pool's thread is gone");
    assert!(daemon.is_running());
    assert_eq!(daemon.metric("postroad_counted_total", "reason=\"panic_in_connection\"") as u64, 1);
}

/// Every thread that works for a shard stops the process.
#[test]
fn a_panic_of_a_helping_thread_stops_the_process() {
    // A message that is larger than a segment has its file made within its commit.
    let worker = ("panic-worker", &["log.young_age=1s", "shards=1"][..], 1, "log-0-write");
    let prepare = ("panic-prepare", &["log.segment_bytes=65536", "shards=1"][..], 100_000, "log-0-files");
    for (fault, settings, bytes, thread) in [worker, prepare] {
        let mut daemon = Daemon::with_faults(fault, settings);
        let address = daemon.mqtt();
        let traffic = || -> std::io::Result<()> {
            let mut client = Client::connect(address, &Options::persistent("c"))?;
            client.subscribe("a", Qos::AtLeastOnce)?;
            loop {
                client.publish("a", &vec![b'x'; bytes], Qos::AtLeastOnce, false)?;
            }
        };
        let _ends_with_the_server = traffic();
        assert!(!daemon.wait_for_end().success());
        let report = &crashes(&daemon)[0];
        assert!(report["thread"].as_str().unwrap().contains(thread), "{report}");
        assert!(report["panic"].as_str().unwrap().contains(fault), "{report}");
    }
}
