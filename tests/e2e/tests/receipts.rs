//! Receipts and the life of a message through the real server, MQTT, HTTP and the command line (DESIGN 6).

#![allow(clippy::unwrap_used, reason = "a failed step of the test is a failed test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use postroad_base::{Qos, ReasonCode, Tag};
use postroad_e2e::PATIENCE;
use postroad_e2e::daemon::{Daemon, binary, wait_until};
use postroad_e2e::http;
use postroad_e2e::mqtt::{Client, Incoming, Options};
use postroad_e2e::tools::python_beside;
use postroad_protocol::mqtt::{Ack, Packet};
use serde_json::{Value, json};

fn get(daemon: &Daemon, path: &str) -> (u16, Value) {
    let answer = http::request(daemon.http_address(), &format!("GET {path}"), &[], &[]).unwrap();
    (answer.code, serde_json::from_str(&answer.body).unwrap())
}

/// Publishes by HTTP, with receipts of this level; the id of the message.
fn publish(daemon: &Daemon, topic: &str, receipt: &str) -> String {
    let body = json!({"topic": topic, "payload": "hello", "wishes": {"receipt": receipt}}).to_string();
    let headers = [("Content-Type", "application/json")];
    let answer = http::request(daemon.http_address(), "POST /v1/messages", &headers, body.as_bytes()).unwrap();
    assert_eq!(answer.code, 200, "{answer:?}");
    serde_json::from_str::<Value>(&answer.body).unwrap()["id"].as_str().unwrap().to_owned()
}

/// The names of the steps that are kept of a message, with whom they concern.
fn life(daemon: &Daemon, id: &str) -> Vec<(String, String)> {
    let (code, page) = get(daemon, &format!("/v1/messages/{id}"));
    if code == 404 {
        return Vec::new();
    }
    let text = |step: &Value, name: &str| step[name].as_str().unwrap_or("-").to_owned();
    page["steps"].as_array().unwrap().iter().map(|step| (text(step, "step"), text(step, "client"))).collect()
}

fn steps_of(life: &[(String, String)], client: &str) -> Vec<String> {
    life.iter().filter(|(_, of)| of == client).map(|(step, _)| step.clone()).collect()
}

fn device(daemon: &Daemon, name: &str) -> Client {
    let mut client = Client::connect(daemon.mqtt(), &Options::persistent(name)).unwrap();
    if !client.session_present {
        client.subscribe("d/#", Qos::AtLeastOnce).unwrap();
    }
    client
}

/// Takes the next message and answers with this reason.
fn take(client: &mut Client, reason: ReasonCode) {
    loop {
        if let Incoming::Publish(message) = client.receive().unwrap() {
            let tag = Tag::new(message.id).unwrap();
            return client.send(&Packet::PubAck(Ack::new(tag, reason))).unwrap();
        }
    }
}

/// Both shards, two recipients on them or on one: what is told is the whole life of each delivery, through a kill -9, and a
/// dead letter with what became of it.
#[test]
fn the_life_of_a_message_survives_kill_9() {
    let mut daemon = Daemon::start_with(&["shards=2"]);
    let mut good = device(&daemon, "good");
    device(&daemon, "bad").disconnect().unwrap();
    let id = publish(&daemon, "d/1", "acknowledged");
    take(&mut good, ReasonCode::Success);
    wait_until("the acknowledgement is told", || steps_of(&life(&daemon, &id), "good").len() == 3);
    let before = life(&daemon, &id);
    assert_eq!(steps_of(&before, "-"), ["published", "stored"]);
    assert_eq!(steps_of(&before, "good"), ["queued", "sent", "acknowledged"]);
    assert_eq!(steps_of(&before, "bad"), ["queued"]);

    daemon.kill();
    daemon.restart();
    assert_eq!(life(&daemon, &id), before, "what was shown is kept");
    let mut bad = device(&daemon, "bad");
    take(&mut bad, ReasonCode::ImplementationSpecificError);
    wait_until("its end is told", || steps_of(&life(&daemon, &id), "bad").len() == 3);
    assert_eq!(steps_of(&life(&daemon, &id), "bad"), ["queued", "sent", "dead"]);
    let (_, page) = get(&daemon, &format!("/v1/messages/{id}"));
    let letter = page["steps"].as_array().unwrap().iter().find_map(|step| step["letter"].as_str()).unwrap().to_owned();
    let path = format!("POST /v1/dead-letters/{letter}/requeue");
    let answer = http::request(daemon.http_address(), &path, &[], &[]).unwrap();
    let again = serde_json::from_str::<Value>(&answer.body).unwrap()["message_id"].as_str().unwrap().to_owned();
    take(&mut bad, ReasonCode::Success);
    wait_until("the requeue is told", || steps_of(&life(&daemon, &again), "bad").len() == 3);
    assert_eq!(steps_of(&life(&daemon, &again), "bad"), ["queued", "sent", "acknowledged"]);
    assert_eq!(steps_of(&life(&daemon, &id), "bad").last().map(String::as_str), Some("requeued"));
}

/// A client that we did not write asks for receipts by a user property, and gets them on its own subscription; another one that
/// has subscribed to the same gets none of them. It is away for the last one, which waits for it.
#[test]
fn paho_gets_receipts_of_what_it_published() {
    let daemon = Daemon::start();
    let mut device = device(&daemon, "device");
    let mut curious = Client::connect(daemon.mqtt(), &Options::persistent("curious")).unwrap();
    curious.subscribe("$receipt/#", Qos::AtLeastOnce).unwrap();
    curious.subscribe("end", Qos::AtLeastOnce).unwrap();
    let mut paho = python_beside("receipts.py", daemon.mqtt());
    let mut said = BufReader::new(paho.stdout.take().unwrap()).lines();
    let mut next = || said.next().expect("it goes on").unwrap();
    let id = next().strip_prefix("id ").expect("the id that its PUBACK told").to_owned();
    // The order in which a message is sent and its publisher is answered is none that MQTT promises.
    let mut early = [next(), next()];
    early.sort();
    assert_eq!(early, ["sent device attempts=1 order 7", "stored None attempts=None order 7"]);
    assert_eq!(next(), "away");
    assert_eq!(steps_of(&life(&daemon, &id), "device"), ["queued", "sent"], "by the id of the PUBACK");
    take(&mut device, ReasonCode::Success);
    wait_until("the receipt waits", || daemon.metric("postroad_lane_messages", "offline") >= 1.0);
    writeln!(paho.stdin.take().unwrap(), "come back").unwrap();
    assert_eq!(next(), "acknowledged device attempts=1 order 7");
    assert!(paho.wait().unwrap().success());
    device.publish("end", b"", Qos::AtLeastOnce, false).unwrap();
    assert_eq!(curious.next_message().unwrap().topic, "end", "no receipt of others came before");
}

/// A command of ours that goes on, line by line.
struct Following(Child, mpsc::Receiver<String>);

impl Following {
    fn start(daemon: &Daemon, arguments: &[&str]) -> Self {
        let mut command = Command::new(binary());
        command.args(arguments).arg("--api").arg(format!("http://{}", daemon.http_address()));
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        let (lines, read) = mpsc::channel();
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
        Self(child, read)
    }

    /// The next line, as JSON.
    fn json(&self) -> Value {
        serde_json::from_str(&self.1.recv_timeout(PATIENCE).expect("the command says something")).unwrap()
    }

    fn has_line(&self) -> bool {
        self.1.try_recv().is_ok()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let _gone = self.0.kill();
        let _ended = self.0.wait();
    }
}

fn command(daemon: &Daemon, arguments: &[&str]) -> String {
    let mut command = Command::new(binary());
    command.args(arguments).arg("--api").arg(format!("http://{}", daemon.http_address()));
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_command_line_shows_lives_and_follows_receipts() {
    let daemon = Daemon::start();
    let mut client = device(&daemon, "device");
    let published = command(&daemon, &["publish", "d/1", "-m", "hello", "--receipt", "acknowledged"]);
    let id = published.split(' ').next().unwrap();
    let follow = Following::start(&daemon, &["receipts", "--follow", "--after", "0", "--json"]);
    let mut early = [follow.json()["receipt"].clone(), follow.json()["receipt"].clone()];
    early.sort_by_key(Value::to_string);
    assert_eq!(early, [json!("sent"), json!("stored")]);
    take(&mut client, ReasonCode::Success);
    let told = follow.json();
    assert_eq!(
        (&told["receipt"], &told["client"], &told["message_id"]),
        (&json!("acknowledged"), &json!("device"), &json!(id))
    );

    let table = command(&daemon, &["trace", id]);
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["TIME", "SHARD", "MESSAGE", "RECIPIENT", "STEP", "DETAIL"]);
    let steps: Vec<&str> = rows[1..].iter().map(|row| row[4]).collect();
    assert_eq!((steps[0], steps[steps.len() - 1], steps.len()), ("published", "acknowledged", 5), "{table}");
    assert!(rows[1].contains(&"topic=d/1") && rows[1].contains(&"user=$local"), "{table}");
    let once = command(&daemon, &["receipts", "--message", id, "--level", "acknowledged", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&once).unwrap(), told);
    let nothing = Command::new(binary())
        .args(["trace", &"0".repeat(32), "--api", &format!("http://{}", daemon.http_address())])
        .output()
        .unwrap();
    assert!(!nothing.status.success() && String::from_utf8_lossy(&nothing.stderr).contains("nothing is kept"));
}

/// Every message is sampled, nobody asked for receipts.
#[test]
fn sampled_messages_are_kept_and_nobody_is_told() {
    let daemon = Daemon::start_with(&["trace.sample=1000000"]);
    let mut client = device(&daemon, "device");
    let published = command(&daemon, &["publish", "d/1", "-m", "hello"]);
    take(&mut client, ReasonCode::Success);
    let id = published.split(' ').next().unwrap().to_owned();
    wait_until("the acknowledgement is told", || life(&daemon, &id).len() == 5);
    assert_eq!(command(&daemon, &["receipts"]), "");
}

/// What concerns a client is told as it happens, and costs a shard nothing once nobody looks.
#[test]
fn a_client_is_watched_live() {
    let daemon = Daemon::start_with(&["shards=2"]);
    let watch = Following::start(&daemon, &["trace", "--client", "device", "--json"]);
    // The shards know of it once a line comes: until then its client connects again and again.
    wait_until("the first line comes", || {
        Client::connect(daemon.mqtt(), &Options::transient("device")).unwrap().disconnect().unwrap();
        watch.has_line()
    });
    let mut client = Client::connect(daemon.mqtt(), &Options::transient("device")).unwrap();
    client.subscribe("d/#", Qos::AtLeastOnce).unwrap();
    publish(&daemon, "d/1", "dead");
    take(&mut client, ReasonCode::Success);
    client.disconnect().unwrap();
    let mut seen = Vec::new();
    while !seen.iter().any(|(what, text): &(String, String)| what == "end" && text.contains("Normal"))
        || !seen.iter().any(|(_, text)| text.starts_with("acknowledged d/1"))
    {
        let line = watch.json();
        assert_eq!(line["client"], "device", "{line}");
        seen.push((line["what"].as_str().unwrap().to_owned(), line["text"].as_str().unwrap().to_owned()));
    }
    for (what, begin) in [
        ("in", "SUBSCRIBE id=1 d/#"),
        ("out", "SUBACK id=1"),
        ("step", "queued d/1"),
        ("step", "sent d/1"),
        ("out", "PUBLISH d/1 qos=1"),
        ("write", ""),
        ("in", "PUBACK id=1 success"),
        ("step", "acknowledged d/1"),
    ] {
        assert!(seen.iter().any(|(of, text)| of == what && text.starts_with(begin)), "no {what} {begin:?} in {seen:?}");
    }
}

/// Who follows and reads nothing: deliveries go on, memory stays bounded, and the server stops in time.
#[test]
fn a_follower_that_stops_reading_does_not_hurt_the_server() {
    let mut daemon = Daemon::start_with(&["shards=2", "trace.queue_max=256"]);
    let mut stuck = Vec::new();
    for path in ["/v1/receipts?after=0", "/v1/trace?topic=d%2F%23", "/v1/trace?client=device"] {
        let mut stream = TcpStream::connect(daemon.http_address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut begin = [0; 15];
        stream.read_exact(&mut begin).unwrap();
        assert_eq!(&begin, b"HTTP/1.1 200 OK");
        stuck.push(stream); // and nothing more is read
    }
    let mut client = device(&daemon, "device");
    let before = daemon.rss_bytes();
    let body: String = (0..20_000)
        .map(|n| {
            json!({"topic": "d/1", "payload": n.to_string(), "wishes": {"receipt": "acknowledged"}}).to_string() + "\n"
        })
        .collect();
    let address = daemon.http_address();
    let headers = [("Content-Type", "application/x-ndjson")];
    let publisher =
        std::thread::spawn(move || http::request(address, "POST /v1/messages", &headers, body.as_bytes()).unwrap());
    for n in 0..20_000 {
        assert_eq!(client.next_message().unwrap().payload, n.to_string().as_bytes());
    }
    assert_eq!(publisher.join().unwrap().code, 200);
    let grown = daemon.rss_bytes().saturating_sub(before);
    assert!(grown < 200 << 20, "{grown} bytes more");
    assert!(daemon.terminate().success());
    drop(stuck);
}
