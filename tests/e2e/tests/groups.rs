//! Consumer groups through the real server: what devices send is kept for applications, which take it by HTTP, by gRPC and by
//! hand [PER-6].

#![allow(clippy::unwrap_used, reason = "a failed step of the test is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Output};

use postroad_base::Qos;
use postroad_e2e::PATIENCE;
use postroad_e2e::daemon::{Daemon, binary, wait_until};
use postroad_e2e::http;
use postroad_e2e::mqtt::{Client, Options};
use postroad_e2e::random::Random;
use postroad_e2e::tools::{mosquitto_pub, mosquitto_pub_lines, python};
use serde_json::{Value, json};

fn ask(address: SocketAddr, request: &str, body: &Value) -> std::io::Result<(u16, Value)> {
    let headers = [("Content-Type", "application/json")];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let length = [("Content-Length", &*body.len().to_string())];
    // The helper gives the length of what is posted.
    let headers =
        if request.starts_with("POST") || body.is_empty() { &headers[..] } else { &[headers[0], length[0]][..] };
    let answer = http::request(address, request, headers, body.as_bytes())?;
    let body = serde_json::from_str(&answer.body).map_err(std::io::Error::other)?;
    Ok((answer.code, body))
}

fn done(daemon: &Daemon, request: &str, body: &Value) -> Value {
    let (code, answer) = ask(daemon.http_address(), request, body).unwrap();
    assert!(code == 200 || code == 201, "{request}: {code} {answer}");
    answer
}

fn set(daemon: &Daemon, group: &str, filters: &[&str]) {
    done(daemon, &format!("PUT /v1/groups/{group}"), &json!({ "filters": filters }));
}

/// Names and payloads.
fn take(daemon: &Daemon, group: &str, body: &Value) -> Vec<(String, String)> {
    let taken = done(daemon, &format!("POST /v1/groups/{group}/take"), body);
    let text = |delivery: &Value, name: &str| delivery[name].as_str().unwrap().to_owned();
    let deliveries = taken["deliveries"].as_array().unwrap();
    deliveries.iter().map(|delivery| (text(delivery, "delivery"), text(delivery, "payload"))).collect()
}

fn acknowledge(daemon: &Daemon, group: &str, deliveries: &[String]) -> Value {
    done(daemon, &format!("POST /v1/groups/{group}/acknowledge"), &json!({ "deliveries": deliveries }))
}

/// mosquitto publishes at each level; what it sent is taken, once, with what travelled with it.
#[test]
fn what_devices_send_is_kept_and_taken() {
    let daemon = Daemon::start_with(&["shards=2"]);
    set(&daemon, "orders", &["dev/+/order"]);
    let arguments =
        ["-V", "mqttv5", "-D", "publish", "user-property", "k", "v", "-t", "dev/1/order", "-m", "one", "-q", "1"];
    mosquitto_pub(daemon.mqtt(), &arguments);
    mosquitto_pub(daemon.mqtt(), &["-t", "dev/2/order", "-m", "two", "-q", "2"]);
    mosquitto_pub(daemon.mqtt(), &["-t", "dev/3/order", "-m", "three", "-q", "0"]);
    mosquitto_pub(daemon.mqtt(), &["-t", "dev/3/other", "-m", "four", "-q", "1"]);
    wait_until("all have come", || done(&daemon, "GET /v1/groups/orders", &Value::Null)["waiting"] == 3);
    let taken = done(&daemon, "POST /v1/groups/orders/take", &json!({}));
    let deliveries = taken["deliveries"].as_array().unwrap();
    let of = |topic: &str| deliveries.iter().find(|delivery| delivery["topic"] == topic).unwrap();
    assert_eq!(deliveries.len(), 3, "{taken}");
    assert_eq!(of("dev/1/order")["properties"], json!([["k", "v"]]));
    assert_eq!((&of("dev/2/order")["qos"], &of("dev/2/order")["attempt"]), (&json!(2), &json!(1)));
    assert_eq!((&of("dev/3/order")["payload"], &of("dev/3/order")["qos"]), (&json!("three"), &json!(0)));
    let names: Vec<String> = deliveries.iter().map(|d| d["delivery"].as_str().unwrap().to_owned()).collect();
    assert_eq!(acknowledge(&daemon, "orders", &names), json!({"done": 3, "gone": []}));
    assert_eq!(acknowledge(&daemon, "orders", &names[..1]), json!({"done": 0, "gone": [names[0]]}));
    assert_eq!(take(&daemon, "orders", &json!({})), []);
}

/// Two consumers share what comes, none gets what the other has; who waits is woken by what comes.
#[test]
fn consumers_share_a_group() {
    let daemon = Daemon::start();
    set(&daemon, "work", &["work/#"]);
    let address = daemon.http_address();
    let consumer = move || {
        let mut payloads = Vec::new();
        loop {
            let asked = json!({"limit": 7, "wait_seconds": 20});
            let (code, taken) = ask(address, "POST /v1/groups/work/take", &asked).unwrap();
            assert_eq!(code, 200, "{taken}");
            let deliveries = taken["deliveries"].as_array().unwrap();
            let names: Vec<&Value> = deliveries.iter().map(|delivery| &delivery["delivery"]).collect();
            let ends = deliveries.iter().any(|delivery| delivery["payload"] == "end");
            payloads.extend(deliveries.iter().map(|delivery| delivery["payload"].as_str().unwrap().to_owned()));
            let (code, answered) =
                ask(address, "POST /v1/groups/work/acknowledge", &json!({ "deliveries": names })).unwrap();
            assert_eq!((code, &answered["gone"]), (200, &json!([])), "{answered}");
            if ends {
                return payloads;
            }
        }
    };
    let consumers = [std::thread::spawn(consumer), std::thread::spawn(consumer)];
    wait_until("both wait", || done(&daemon, "GET /v1/groups/work", &Value::Null)["waiting_consumers"] == 2);
    let text: String = (0..300).map(|number| format!("{number}\n")).collect();
    mosquitto_pub_lines(daemon.mqtt(), &["-t", "work/x", "-q", "1"], &text);
    mosquitto_pub_lines(daemon.mqtt(), &["-t", "work/x", "-q", "1"], "end\n");
    // The other one is ended by the second word, which comes when the first has been taken.
    wait_until("one has ended", || consumers.iter().any(std::thread::JoinHandle::is_finished));
    mosquitto_pub_lines(daemon.mqtt(), &["-t", "work/x", "-q", "1"], "end\n");
    let got: Vec<Vec<String>> = consumers.map(|consumer| consumer.join().unwrap()).into();
    let mut all: Vec<u32> = got.iter().flatten().filter_map(|payload| payload.parse().ok()).collect();
    all.sort_unstable();
    assert_eq!(all, (0..300).collect::<Vec<_>>(), "each once");
    assert!(got.iter().all(|payloads| payloads.len() > 1), "one had it all");
}

/// What is refused comes again, with its attempts, then not any more; its letter knows why, and goes back to the group.
#[test]
fn what_is_refused_becomes_a_letter_and_comes_back() {
    let daemon = Daemon::start_with(&["retry.max_attempts=2", "groups.delay=0s"]);
    set(&daemon, "orders", &["o/#"]);
    mosquitto_pub(daemon.mqtt(), &["-t", "o/1", "-m", "broken", "-q", "1"]);
    let refuse = |name: &str, body: Value| {
        let mut body = body;
        body["deliveries"] = json!([name]);
        assert_eq!(done(&daemon, "POST /v1/groups/orders/refuse", &body)["done"], 1);
    };
    let first = take(&daemon, "orders", &json!({})).remove(0).0;
    refuse(&first, json!({}));
    let second = take(&daemon, "orders", &json!({})).remove(0).0;
    assert!(first.ends_with("-1") && second.ends_with("-2"), "{first} {second}");
    refuse(&second, json!({"reason": "no number"}));
    assert_eq!(take(&daemon, "orders", &json!({})), []);
    let letters = || done(&daemon, "GET /v1/dead-letters", &Value::Null)["letters"].as_array().unwrap().clone();
    let letter = letters().remove(0);
    assert_eq!(
        (&letter["client"], &letter["is_group"], &letter["reason"], &letter["error"], &letter["attempts"]),
        (&json!("orders"), &json!(true), &json!("attempts"), &json!("no number"), &json!(2))
    );
    let id = letter["id"].as_str().unwrap();
    done(&daemon, &format!("POST /v1/dead-letters/{id}/requeue"), &json!({"payload": "mended"}));
    let (name, payload) = take(&daemon, "orders", &json!({})).remove(0);
    assert_eq!(payload, "mended");
    refuse(&name, json!({"dead": true, "reason": "still"}));
    assert_eq!((&letters()[0]["reason"], &letters()[0]["error"]), (&json!("refused"), &json!("still")));
}

/// Who is gone while it waits stands in nobody's way: its take is withdrawn, and what comes is for the next one, as if nobody had been
/// there.
#[test]
fn a_consumer_that_vanishes_while_it_waits_takes_nothing_with_it() {
    let daemon = Daemon::start();
    set(&daemon, "orders", &["o/#"]);
    let waiting = || done(&daemon, "GET /v1/groups/orders", &Value::Null)["waiting_consumers"].as_u64().unwrap();
    let mut stream = std::net::TcpStream::connect(daemon.http_address()).unwrap();
    let body = r#"{"wait_seconds": 60, "lease_seconds": 3600}"#;
    let head =
        format!("POST /v1/groups/orders/take HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
    std::io::Write::write_all(&mut stream, (head + body).as_bytes()).unwrap();
    wait_until("it waits", || waiting() == 1);
    drop(stream);
    wait_until("it is withdrawn", || waiting() == 0);
    mosquitto_pub(daemon.mqtt(), &["-t", "o/1", "-m", "x", "-q", "1"]);
    let taken = done(&daemon, "POST /v1/groups/orders/take", &json!({}));
    let first = &taken["deliveries"][0];
    assert_eq!((&first["payload"], &first["attempt"], &first["may_repeat"]), (&json!("x"), &json!(1), &json!(false)));
}

/// How long a take may wait is said by who asks, not by the time that a request has to come in.
#[test]
fn a_take_waits_for_longer_than_a_request_may_take() {
    let daemon = Daemon::start_with(&["http.request_timeout=200ms"]);
    set(&daemon, "orders", &["o/#"]);
    let address = daemon.http_address();
    let taker =
        std::thread::spawn(move || ask(address, "POST /v1/groups/orders/take", &json!({"wait_seconds": 60})).unwrap());
    wait_until("it waits", || done(&daemon, "GET /v1/groups/orders", &Value::Null)["waiting_consumers"] == 1);
    // A request that begins later and does not come is over first.
    let mut half = TcpStream::connect(address).unwrap();
    half.set_read_timeout(Some(PATIENCE)).unwrap();
    half.write_all(b"GET /ready HTTP/1.1\r\n").unwrap();
    half.read_to_end(&mut Vec::new()).unwrap();
    assert_eq!(done(&daemon, "GET /v1/groups/orders", &Value::Null)["waiting_consumers"], 1);
    mosquitto_pub(daemon.mqtt(), &["-t", "o/1", "-m", "x", "-q", "1"]);
    let (code, taken) = taker.join().unwrap();
    assert_eq!((code, &taken["deliveries"][0]["payload"]), (200, &json!("x")), "{taken}");
}

/// [PER-6] After a kill the name of a lease of before is nobody's: who had it may say that the work is done, not that another one is
/// to stop.
#[test]
fn a_name_of_before_a_kill_is_not_given_again() {
    let mut daemon = Daemon::start();
    set(&daemon, "orders", &["o/#"]);
    mosquitto_pub(daemon.mqtt(), &["-t", "o/1", "-m", "x", "-q", "1"]);
    let before = take(&daemon, "orders", &json!({"lease_seconds": 3600})).remove(0).0;
    daemon.kill();
    daemon.restart();
    let after = take(&daemon, "orders", &json!({"lease_seconds": 3600})).remove(0).0;
    assert_ne!(before, after);
    let refused = done(&daemon, "POST /v1/groups/orders/refuse", &json!({ "deliveries": [before] }));
    assert_eq!(refused, json!({"done": 0, "gone": [before]}));
    let never = format!("{}-3", after.rsplit_once('-').unwrap().0);
    assert_eq!(acknowledge(&daemon, "orders", std::slice::from_ref(&never)), json!({"done": 0, "gone": [never]}));
    assert_eq!(acknowledge(&daemon, "orders", &[before]), json!({"done": 1, "gone": []}));
    assert_eq!(acknowledge(&daemon, "orders", std::slice::from_ref(&after)), json!({"done": 0, "gone": [after]}));
}

/// With another number of shards a group is where its partition is, with its filters, what it has and what is over.
#[test]
fn a_group_moves_with_its_partition() {
    let mut daemon = Daemon::start_with(&["shards=3"]);
    for group in ["a", "b", "c", "d"] {
        set(&daemon, group, &["o/#"]);
    }
    for number in 0..6 {
        mosquitto_pub(daemon.mqtt(), &["-t", "o/1", "-m", &number.to_string(), "-q", "1"]);
    }
    let over = |taken: Vec<(String, String)>| taken.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    for group in ["a", "b"] {
        let taken = take(&daemon, group, &json!({"limit": 2}));
        assert_eq!(acknowledge(&daemon, group, &over(taken))["done"], 2);
    }
    for shards in ["shards=1", "shards=4"] {
        assert!(daemon.terminate().success());
        daemon.set(shards);
        daemon.restart();
    }
    mosquitto_pub(daemon.mqtt(), &["-t", "o/2", "-m", "6", "-q", "1"]);
    for (group, first) in [("a", 2), ("b", 2), ("c", 0), ("d", 0)] {
        let taken = take(&daemon, group, &json!({}));
        let payloads: Vec<String> = taken.iter().map(|(_, payload)| payload.clone()).collect();
        assert_eq!(payloads, (first..7).map(|number| number.to_string()).collect::<Vec<_>>(), "{group}");
        assert_eq!(acknowledge(&daemon, group, &over(taken))["gone"], json!([]));
    }
}

/// Who may not subscribe to what a group has may not take it either; and a token needs the right.
#[test]
fn tokens_and_rules_say_who_may_consume() {
    let mut daemon = Daemon::prepared(&[]);
    let folder = daemon.data().parent().unwrap().to_owned();
    let (tokens, acl) = (folder.join("groups-tokens.toml"), folder.join("groups-acl.toml"));
    let token = |name: &str, right: &str| {
        let mut command = Command::new(binary());
        command.args(["token", "--file", tokens.to_str().unwrap(), "--right", right, name]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    let (app, eve, publisher) = (token("app", "consume"), token("eve", "consume"), token("app", "publish"));
    let rule = |principal: &str, action: &str, topic: &str| {
        format!("[[rule]]\nprincipal = \"{principal}\"\naction = \"{action}\"\n{topic}effect = \"allow\"\n")
    };
    let rules =
        rule("*", "connect", "") + &rule("*", "publish", "") + &rule("user:app", "subscribe", "topic = \"o/#\"\n");
    std::fs::write(&acl, rules).unwrap();
    let paths = (tokens.to_str().unwrap(), acl.to_str().unwrap());
    daemon.configure(&format!("[api]\ntokens_file = {:?}\n[acl]\nfile = {:?}\n", paths.0, paths.1));
    daemon.restart();
    let ask = |token: &str, request: &str, body: &str| {
        let authorization = format!("Bearer {token}");
        let length = body.len().to_string();
        let mut headers = vec![("Authorization", &*authorization)];
        if request.starts_with("PUT") {
            headers.push(("Content-Length", &length));
        }
        http::request(daemon.http_address(), request, &headers, body.as_bytes()).unwrap().code
    };
    let filters = r#"{"filters": ["o/#"]}"#;
    assert_eq!(ask(&publisher, "PUT /v1/groups/orders", filters), 403);
    assert_eq!(ask(&eve, "PUT /v1/groups/orders", filters), 403);
    assert_eq!(ask(&app, "PUT /v1/groups/orders", filters), 201);
    assert_eq!(ask(&app, "PUT /v1/groups/orders", r#"{"filters": ["o/#", "p"]}"#), 403);
    assert_eq!(ask(&eve, "POST /v1/groups/orders/take", "{}"), 403);
    assert_eq!(ask(&eve, "DELETE /v1/groups/orders", ""), 403);
    assert_eq!(ask(&app, "POST /v1/groups/orders/take", "{}"), 200);
    assert_eq!(ask(&eve, "POST /v1/groups/none/take", "{}"), 404);
}

fn group(daemon: &Daemon, arguments: &[&str]) -> Output {
    let api = format!("http://{}", daemon.http_address());
    Command::new(binary()).arg("group").args(arguments).env("POSTROAD_API", api).output().unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// `postroad group`, for people and for scripts.
#[test]
fn groups_by_hand() {
    let daemon = Daemon::start_with(&["shards=2"]);
    assert_eq!(text(&group(&daemon, &["create", "orders", "o/#", "p"])), "orders: made\n");
    assert_eq!(text(&group(&daemon, &["create", "orders", "o/#"])), "orders: changed\n");
    assert_eq!(group(&daemon, &["take", "orders"]).status.code(), Some(3), "nothing is there");
    for number in 0..3 {
        mosquitto_pub(daemon.mqtt(), &["-t", "o/1", "-m", &number.to_string(), "-q", "1"]);
    }
    let table = text(&group(&daemon, &["list"]));
    assert!(table.starts_with("GROUP") && table.lines().count() == 2 && table.contains("o/#"), "{table}");
    let line = text(&group(&daemon, &["take", "orders"]));
    let name = line.split_whitespace().next().unwrap();
    assert!(line.ends_with("o/1  0\n"), "{line}");
    assert_eq!(text(&group(&daemon, &["ack", "orders", name])), "1 done\n");
    let again = group(&daemon, &["ack", "orders", name]);
    assert!(again.status.code() == Some(1) && String::from_utf8_lossy(&again.stderr).contains(name), "{again:?}");
    let json: Value = serde_json::from_str(text(&group(&daemon, &["take", "orders", "--json"])).trim()).unwrap();
    let refused = ["refuse", "orders", json["delivery"].as_str().unwrap(), "--dead", "--reason", "odd"];
    assert_eq!(text(&group(&daemon, &refused)), "1 done\n");
    assert!(text(&group(&daemon, &["take", "orders", "--ack", "-n", "10", "--wait", "1"])).ends_with("o/1  2\n"));
    assert!(text(&group(&daemon, &["show", "orders"])).contains("\"waiting\": 0"));
    assert_eq!(text(&group(&daemon, &["delete", "orders"])), "orders: deleted\n");
    let gone = group(&daemon, &["show", "orders"]);
    assert!(gone.status.code() == Some(1) && String::from_utf8_lossy(&gone.stderr).contains("404"), "{gone:?}");
}

/// A gRPC client that we did not write takes by calls and by a stream; what it has when the stream ends is free at once.
#[test]
fn grpcio_consumes() {
    let daemon = Daemon::start_with(&["shards=2", "listen.grpc=127.0.0.1:0"]);
    let output = python("grpcio_groups.py", daemon.grpc_address());
    assert!(output.trim_end().ends_with("all passed"), "{output}");
}

/// What is known of the messages of a group, after many kills.
#[derive(Default)]
struct Oracle {
    /// Published and answered.
    published: BTreeSet<String>,
    /// Taken, how often.
    taken: BTreeMap<String, u32>,
    /// Acknowledged, and that was answered.
    acknowledged: BTreeSet<String>,
    /// Acknowledged, and the server was gone before it answered.
    unknown: BTreeSet<String>,
}

impl Oracle {
    fn took(&mut self, payload: &str) {
        assert!(!self.acknowledged.contains(payload), "{payload} was acknowledged, and is given again");
        *self.taken.entry(payload.to_owned()).or_default() += 1;
    }
}

/// Takes and acknowledges until the server is gone; kills it in the middle.
fn consume_until_killed(daemon: &mut Daemon, random: &mut Random, oracle: &mut Oracle) {
    let kill_at = random.below(8);
    for step in 0.. {
        let limit = 1 + random.below(20);
        let taken = take(daemon, "orders", &json!({"limit": limit, "lease_seconds": 3600}));
        taken.iter().for_each(|(_, payload)| oracle.took(payload));
        // Some are kept: the server is killed with them.
        let done: Vec<(String, String)> = taken.into_iter().filter(|_| random.below(4) > 0).collect();
        let names: Vec<&String> = done.iter().map(|(name, _)| name).collect();
        let (address, body) = (daemon.http_address(), json!({ "deliveries": names }));
        let asked = (!names.is_empty())
            .then(|| std::thread::spawn(move || ask(address, "POST /v1/groups/orders/acknowledge", &body)));
        if step == kill_at {
            daemon.kill();
        }
        let payloads = done.into_iter().map(|(_, payload)| payload);
        match asked.map(|asked| asked.join().unwrap()) {
            Some(Ok((200, answered))) => {
                assert_eq!(answered["gone"], json!([]), "nobody else acknowledges");
                oracle.acknowledged.extend(payloads);
            }
            _ => oracle.unknown.extend(payloads),
        }
        if step == kill_at {
            return;
        }
    }
}

/// Killed again and again while devices publish and an application takes: nothing that was published is lost, and nothing comes
/// again whose acknowledgement was answered.
#[test]
fn groups_survive_kills_in_the_middle() {
    let mut random = Random::seeded("groups");
    let rounds = std::env::var("POSTROAD_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(15);
    // A small log, so that what waits moves to the old generation and is read back.
    let mut daemon =
        Daemon::start_with(&["shards=2", "log.segment_bytes=1MiB", "log.young_bytes=2MiB", "log.young_age=1s"]);
    let mut oracle = Oracle::default();
    set(&daemon, "orders", &["o/#"]);
    for round in 0..rounds {
        let mut device = Client::connect(daemon.mqtt(), &Options::transient(&format!("device-{round}"))).unwrap();
        for number in 0..30 {
            let payload = format!("{round}-{number}");
            device.publish(&format!("o/{number}"), payload.as_bytes(), Qos::AtLeastOnce, false).unwrap();
            oracle.published.insert(payload);
        }
        consume_until_killed(&mut daemon, &mut random, &mut oracle);
        daemon.restart();
    }
    loop {
        let taken = take(&daemon, "orders", &json!({"limit": 100}));
        if taken.is_empty() {
            break;
        }
        taken.iter().for_each(|(_, payload)| oracle.took(payload));
        let (names, payloads): (Vec<String>, Vec<String>) = taken.into_iter().unzip();
        assert_eq!(acknowledge(&daemon, "orders", &names)["gone"], json!([]));
        oracle.acknowledged.extend(payloads);
    }
    let lost: Vec<&String> = oracle
        .published
        .iter()
        .filter(|payload| !oracle.acknowledged.contains(*payload) && !oracle.unknown.contains(*payload))
        .collect();
    assert!(lost.is_empty(), "published, and never given: {lost:?}");
    let again = oracle.taken.values().filter(|count| **count > 1).count();
    println!("{} published, {again} given more than once, {} unknown", oracle.published.len(), oracle.unknown.len());
    assert!(again > 0, "the test did not test");
    assert_eq!(done(&daemon, "GET /v1/groups/orders", &Value::Null)["waiting"], 0);
}
