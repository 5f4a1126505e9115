//! The API over HTTP: publishing, who may, and what happens when things go wrong [XCH-2], [REL-1].

#![allow(clippy::unwrap_used, reason = "a failed step of the test is a failed test")]

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;

use postroad_base::{Qos, ReasonCode};
use postroad_e2e::daemon::{Daemon, binary, wait_until};
use postroad_e2e::http::{self, Answer};
use postroad_e2e::mqtt::{Client, Incoming, Options};
use serde_json::{Value, json};

fn post_as(daemon: &Daemon, token: &str, body: &Value) -> Answer {
    let bearer = format!("Bearer {token}");
    let headers = [("Content-Type", "application/json"), ("Authorization", bearer.as_str())];
    let headers = if token.is_empty() { &headers[..1] } else { &headers };
    http::request(daemon.http_address(), "POST /v1/messages", headers, body.to_string().as_bytes()).unwrap()
}

fn post(daemon: &Daemon, body: &Value) -> Answer {
    post_as(daemon, "", body)
}

/// The body of an answer with this status.
fn expect(answer: &Answer, code: u16) -> Value {
    assert_eq!(answer.code, code, "{answer:?}");
    serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

fn subscriber(daemon: &Daemon, filter: &str) -> Client {
    let mut client = Client::connect(daemon.mqtt(), &Options::persistent("subscriber")).unwrap();
    client.subscribe(filter, Qos::AtLeastOnce).unwrap();
    client
}

fn payloads(client: &mut Client, count: usize) -> Vec<String> {
    (0..count).map(|_| String::from_utf8(client.next_message().unwrap().payload).unwrap()).collect()
}

/// What is answered is stored: it comes after a kill -9, to a subscriber that was away.
#[test]
fn what_is_answered_survives_kill_9() {
    let mut daemon = Daemon::start();
    subscriber(&daemon, "orders/#").disconnect().unwrap();
    let mut ids = HashSet::new();
    for number in 0..50 {
        let answer = expect(&post(&daemon, &json!({"topic": "orders/new", "payload": number.to_string()})), 200);
        assert_eq!((&answer["topic"], &answer["has_subscribers"]), (&json!("orders/new"), &json!(true)));
        ids.insert(answer["id"].as_str().unwrap().to_owned());
    }
    assert_eq!(ids.len(), 50);
    let nobody = expect(&post(&daemon, &json!({"topic": "elsewhere"})), 200);
    assert_eq!(nobody["has_subscribers"], json!(false));
    daemon.kill();
    daemon.restart();
    let mut client = Client::connect(daemon.mqtt(), &Options::persistent("subscriber")).unwrap();
    let expected: Vec<String> = (0..50).map(|number| number.to_string()).collect();
    assert_eq!(payloads(&mut client, 50), expected);
    let again = expect(&post(&daemon, &json!({"topic": "orders/new"})), 200);
    assert!(!ids.contains(again["id"].as_str().unwrap()), "an id came twice");
}

/// One request, many messages and targets; each has its own answer, in order. Plain bodies as curl sends them.
#[test]
fn lists_targets_and_plain_bodies() {
    let daemon = Daemon::start_with(&["registrations.unknown_client=reject"]);
    let mut client = subscriber(&daemon, "a/#");
    let list = json!([
        {"topics": ["a/1", "a/2"], "payload": "both", "qos": 2},
        {"topic": "$client/nobody/x", "payload": "lost"},
        {"topic": "a/3", "payload_base64": "AP8="},
        {"topic": "a/4", "payload": "unsaid", "qos": 0},
    ]);
    let answer = expect(&post(&daemon, &list), 200);
    let results = answer["results"].as_array().unwrap();
    let topics: Vec<&str> = results.iter().map(|result| result["topic"].as_str().unwrap()).collect();
    assert_eq!(topics, ["a/1", "a/2", "$client/nobody/x", "a/3", "a/4"]);
    let reasons: Vec<&Value> = results.iter().map(|result| &result["error"]["reason"]).collect();
    assert_eq!(reasons[2], &json!("topic_name_invalid"), "nobody has seen that client: {answer}");
    assert!([0, 1, 3, 4].iter().all(|place| reasons[*place].is_null()), "{answer}");
    assert!(results[3]["id"].is_string() && results[4]["id"].is_null(), "QoS 0 has no answer, hence no id: {answer}");
    let path = "POST /v1/messages?topic=a/5&qos=1";
    let answer = http::request(daemon.http_address(), path, &[("Content-Type", "text/csv")], b"1,2").unwrap();
    expect(&answer, 200);
    let mut received: Vec<(String, Vec<u8>)> = Vec::new();
    for _ in 0..5 {
        let message = client.next_message().unwrap();
        received.push((message.topic, message.payload));
    }
    received.sort();
    let expected: [(&str, &[u8]); 5] =
        [("a/1", b"both"), ("a/2", b"both"), ("a/3", &[0, 255]), ("a/4", b"unsaid"), ("a/5", b"1,2")];
    assert_eq!(received, expected.map(|(topic, payload)| (topic.to_owned(), payload.to_owned())));
}

/// Thousands of lines over one request, each answered once and in order, each delivered once and in order.
#[test]
fn a_stream_is_answered_line_by_line() {
    let daemon = Daemon::start();
    let mut client = subscriber(&daemon, "s/#");
    let count = 3_000;
    let line = |number: usize| match number {
        1_000 => "no JSON\n".to_owned(),
        _ => json!({"topic": "s/x", "payload": number.to_string()}).to_string() + "\n",
    };
    let body: String = (0..count).map(line).collect();
    let reader = std::thread::spawn(move || payloads(&mut client, count - 1));
    let headers = [("Content-Type", "application/x-ndjson")];
    let answer = http::request(daemon.http_address(), "POST /v1/messages", &headers, body.as_bytes()).unwrap();
    assert_eq!(answer.code, 200);
    let lines: Vec<Value> = answer.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), count);
    let ids: Vec<&str> = lines.iter().filter_map(|line| line["id"].as_str()).collect();
    assert!(ids.len() == count - 1 && ids.is_sorted(), "ids are not in the order of the lines");
    assert_eq!(lines[1_000]["error"]["reason"], json!("bad_request"));
    let expected: Vec<String> = (0..count).filter(|number| *number != 1_000).map(|number| number.to_string()).collect();
    assert_eq!(reader.join().unwrap(), expected);
}

/// A full queue, a large body, bad requests: a clear answer, and nothing else suffers.
#[test]
fn what_can_t_be_is_said() {
    let daemon = Daemon::start_with(&[
        "shards=1",
        "queue.messages_max=2",
        "http.body_bytes_max=64KiB",
        "mqtt.packet_bytes_max=32KiB",
    ]);
    subscriber(&daemon, "q").disconnect().unwrap();
    for _ in 0..2 {
        expect(&post(&daemon, &json!({"topic": "q"})), 200);
    }
    let full = post(&daemon, &json!({"topic": "q"}));
    assert_eq!(expect(&full, 429)["reason"], json!("quota_exceeded"));
    assert!(full.head.to_ascii_lowercase().contains("retry-after: 1"), "{}", full.head);
    expect(&post(&daemon, &json!({"topic": "other"})), 200);
    expect(&post(&daemon, &json!({"topic": "a/#"})), 400);
    expect(&post(&daemon, &json!({"topic": "a", "payload": "x".repeat(70_000)})), 413);
    let large = expect(&post(&daemon, &json!({"topic": "a", "payload": "x".repeat(50_000)})), 413);
    assert_eq!(large["reason"], json!("packet_too_large"));
    let many = json!({"topics": vec!["a"; 9_000], "payload": "x".repeat(100)});
    assert_eq!(expect(&post(&daemon, &many), 413)["reason"], json!("too_large"));
    let json_type = ("Content-Type", "application/json");
    let cases = [
        ("POST /v1/messages", &[json_type][..], "{", 400),
        ("POST /v1/messages?topic=a&qos=9", &[], "", 400),
        ("POST /v1/messages?tropic=a", &[], "", 400),
        ("POST /v1/messages", &[("Content-Type", "text/plain")], "x", 415),
        ("GET /v1/messages", &[], "", 405),
        ("POST /v2", &[json_type], "{}", 404),
        ("POST /ready", &[], "", 405),
    ];
    for (line, headers, body, code) in cases {
        let answer = http::request(daemon.http_address(), line, headers, body.as_bytes()).unwrap();
        assert_eq!(expect(&answer, code)["status"], json!(code), "{line}");
        assert!(answer.head.contains("application/problem+json"), "{line}: {}", answer.head);
    }
    // A web page and a name that was made to point here.
    for header in [("Origin", "http://localhost:8080"), ("Host", "evil.example")] {
        let path = "POST /v1/messages?topic=other";
        expect(&http::request(daemon.http_address(), path, &[header], b"x").unwrap(), 403);
    }
    // Half a request, and one that is cut off: the server goes on.
    let mut broken = TcpStream::connect(daemon.http_address()).unwrap();
    broken
        .write_all(b"POST /v1/messages?topic=other HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nhalf")
        .unwrap();
    drop(broken);
    let mut garbage = TcpStream::connect(daemon.http_address()).unwrap();
    garbage.write_all(&[0xFF; 2_000]).unwrap();
    drop(garbage.read_to_end(&mut Vec::new()));
    expect(&post(&daemon, &json!({"topic": "other"})), 200);
}

const RULES: &str = r#"
[[rule]]
principal = "user:billing"
action = "publish"
topic = "bills/#"
effect = "allow"

[[rule]]
principal = "group:back-end"
action = "publish"
topic = "news"
effect = "allow"

[[rule]]
principal = "*"
action = ["connect", "subscribe"]
effect = "allow"
"#;

fn postroad(arguments: &[&str], environment: &[(&str, &str)], input: &str) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.envs(environment.iter().copied()).spawn().unwrap();
    process.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    process.wait_with_output().unwrap()
}

fn new_token(arguments: &[&str]) -> String {
    let output = postroad(&[&["token"], arguments].concat(), &[], "");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A token is a user to the access rules; one that is taken away is refused from the reload on.
#[test]
fn tokens_say_who_may_what() {
    let folder = tempfile::tempdir().unwrap();
    let [tokens, rules] = ["tokens.toml", "acl.toml"].map(|name| folder.path().join(name));
    let file = tokens.to_str().unwrap();
    let billing = new_token(&["--file", file, "--group", "back-end", "billing"]);
    let other = new_token(&["--file", file, "other"]);
    fs::write(&rules, RULES).unwrap();
    let daemon = Daemon::start_with(&[&format!("api.tokens_file={file}"), &format!("acl.file={}", rules.display())]);
    let code = |token: &str, topic: &str| post_as(&daemon, token, &json!({"topic": topic})).code;
    assert_eq!([code(&billing, "bills/1"), code(&billing, "news"), code(&billing, "secrets")], [200, 200, 403]);
    assert_eq!([code(&other, "bills/1"), code(&other, "news")], [403, 403]);
    // At QoS 0 nobody says why, but that it was refused.
    let unsure = post_as(&daemon, &other, &json!({"topic": "bills/1", "qos": 0}));
    assert_eq!(expect(&unsure, 422)["reason"], json!("unspecified_error"));
    expect(&post_as(&daemon, &billing, &json!({"topic": "bills/1", "qos": 0})), 200);
    assert_eq!([code("", "bills/1"), code("prt_00000000000000000000000000000000", "bills/1")], [401, 401]);
    let bearer = [("Authorization", &*format!("Bearer {billing}"))];
    let list = http::request(daemon.http_address(), "GET /v1/clients", &bearer, &[]).unwrap();
    assert_eq!(expect(&list, 403)["detail"], json!("this token has not the right \"clients\""));
    let watcher = new_token(&["--file", file, "--right", "clients", "watcher"]);
    daemon.reload();
    let bearer = [("Authorization", &*format!("Bearer {watcher}"))];
    let list = http::request(daemon.http_address(), "GET /v1/clients", &bearer, &[]).unwrap();
    assert_eq!(expect(&list, 200), json!({"clients": [], "next": null}));
    assert_eq!(code(&watcher, "bills/1"), 403);
    let clients = daemon.metric("postroad_sessions", "");
    assert!(clients.abs() < f64::EPSILON, "a caller of the API is no client: {clients}");
    // The group goes, then the token.
    let text = fs::read_to_string(&tokens).unwrap();
    fs::write(&tokens, text.replace("groups = [\"back-end\"]", "")).unwrap();
    daemon.reload();
    assert_eq!([code(&billing, "bills/1"), code(&billing, "news")], [200, 403]);
    assert!(postroad(&["token", "--file", file, "--delete", "billing"], &[], "").status.success());
    daemon.reload();
    assert_eq!([code(&billing, "bills/1"), code(&other, "bills/1")], [401, 403]);
}

/// Two tokens of one name with different groups, at the same time: each has its own rights, and neither is in the other's way.
#[test]
fn tokens_of_one_name_are_callers_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let [tokens, rules] = ["tokens.toml", "acl.toml"].map(|name| folder.path().join(name));
    let file = tokens.to_str().unwrap();
    let with = new_token(&["--file", file, "--group", "back-end", "billing"]);
    let without = new_token(&["--file", file, "billing"]);
    fs::write(&rules, RULES).unwrap();
    let settings = [format!("api.tokens_file={file}"), format!("acl.file={}", rules.display()), "shards=1".to_owned()];
    let daemon = Daemon::start_with(&settings.each_ref().map(String::as_str));
    let body = |topic: &str| json!(vec![json!({"topic": topic}); 1_500]);
    std::thread::scope(|scope| {
        let callers = [(&with, true), (&without, false)].map(|(token, may_news)| {
            let daemon = &daemon;
            scope.spawn(move || {
                for _ in 0..10 {
                    for (topic, may) in [("news", may_news), ("bills/1", true)] {
                        let answer = expect(&post_as(daemon, token, &body(topic)), 200);
                        let results = answer["results"].as_array().unwrap();
                        let reason = if may { Value::Null } else { json!("not_authorized") };
                        assert!(
                            results.iter().all(|result| result["error"]["reason"] == reason),
                            "{topic}: {}",
                            results[0]
                        );
                    }
                }
            })
        });
        callers.into_iter().for_each(|caller| caller.join().unwrap());
    });
}

/// `postroad publish`: an id for each message, exit code 1 if one was not published.
#[test]
fn the_command_publishes() {
    let daemon = Daemon::start_with(&["shards=1", "queue.messages_max=400"]);
    let mut client = subscriber(&daemon, "cli/#");
    let api = format!("http://{}", daemon.http_address());
    let publish = |arguments: &[&str], input: &str| {
        let output = postroad(&[&["publish"], arguments].concat(), &[("POSTROAD_API", &api)], input);
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let (code, out, _) = publish(&["-m", "hello", "--ttl", "60", "--property", "k=v", "cli/a", "cli/b"], "");
    assert_eq!((code, out.lines().count()), (0, 2), "{out}");
    assert!(out.lines().next().unwrap().ends_with(" cli/a") && out.split(' ').next().unwrap().len() == 32, "{out}");
    assert_eq!(payloads(&mut client, 2), ["hello", "hello"]);
    let lines: String = (0..300).map(|number| format!("{number}\n")).collect();
    let (code, out, _) = publish(&["--lines", "--json", "cli/l"], &lines);
    assert_eq!((code, out.lines().count()), (0, 300));
    let first: Value = serde_json::from_str(out.lines().next().unwrap()).unwrap();
    assert_eq!((&first["topic"], first["id"].as_str().unwrap().len()), (&json!("cli/l"), 32));
    let expected: Vec<String> = (0..300).map(|number| number.to_string()).collect();
    assert_eq!(payloads(&mut client, 300), expected);
    client.disconnect().unwrap();
    let lines: String = (0..401).map(|number| format!("{number}\n")).collect();
    let (code, out, error) = publish(&["--lines", "cli/l"], &lines);
    assert_eq!((code, out.lines().count()), (1, 400));
    assert!(error.contains("cli/l") && error.contains("queue"), "{error}");
    let nowhere = postroad(&["publish", "-n", "x", "--api", "http://127.0.0.1:1"], &[], "");
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(String::from_utf8(nowhere.stderr).unwrap().contains("can't reach"));
}

/// Publishes go on while the server is asked to stop: each is answered 200 and there after the restart, or refused.
#[test]
fn nothing_answered_is_lost_when_it_stops() {
    let mut daemon = Daemon::start();
    subscriber(&daemon, "stop").disconnect().unwrap();
    let address = daemon.http_address();
    let (tell, told) = mpsc::channel();
    let publisher = std::thread::spawn(move || {
        let body = |number: u32| json!({"topic": "stop", "payload": number.to_string()}).to_string();
        let headers = [("Content-Type", "application/json")];
        let send = |number| http::request(address, "POST /v1/messages", &headers, body(number).as_bytes());
        let mut answered = 0;
        while send(answered).is_ok_and(|answer| answer.code == 200) {
            answered += 1;
            let _stopped_listening = tell.send(answered);
        }
        answered
    });
    told.iter().find(|answered| *answered == 20).unwrap();
    drop(told);
    daemon.terminate();
    let answered = publisher.join().unwrap();
    daemon.restart();
    let mut client = Client::connect(daemon.mqtt(), &Options::persistent("subscriber")).unwrap();
    let expected: Vec<String> = (0..answered).map(|number| number.to_string()).collect();
    assert_eq!(payloads(&mut client, expected.len()), expected);
}

fn get(daemon: &Daemon, path: &str) -> Answer {
    http::request(daemon.http_address(), &format!("GET {path}"), &[], &[]).unwrap()
}

/// Every client once, over pages of any size; what waits for each; a kick, after which the session is still there.
#[test]
fn clients_are_seen_and_kicked() {
    let daemon = Daemon::start_with(&["shards=2"]);
    let mut here = subscriber(&daemon, "t/#");
    let names: Vec<String> = (0..40).map(|number| format!("away/{number:02}")).collect();
    for (number, name) in names.iter().enumerate() {
        let mut client = Client::connect(daemon.mqtt(), &Options::persistent(name)).unwrap();
        client.subscribe(&format!("w/{number}"), Qos::AtLeastOnce).unwrap();
        client.disconnect().unwrap();
        let messages: Vec<Value> =
            (0..number).map(|_| json!({"topic": format!("w/{number}"), "payload": "1234"})).collect();
        expect(&post(&daemon, &json!(messages)), 200);
    }
    for limit in [1, 7, 1_000] {
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let page = expect(&get(&daemon, &format!("/v1/clients?limit={limit}&connected=false{after}")), 200);
            let clients = page["clients"].as_array().unwrap();
            assert!(clients.len() <= limit, "{page}");
            found.extend(clients.iter().map(|client| client["client"].as_str().unwrap().to_owned()));
            let Some(next) = page["next"].as_str() else { break };
            after = format!("&after={next}");
        }
        found.sort();
        assert_eq!(found, names, "limit {limit}");
    }
    let top = expect(&get(&daemon, "/v1/clients?order=backlog&limit=3"), 200);
    let of =
        |place: usize| (top["clients"][place]["client"].as_str().unwrap(), top["clients"][place]["backlog"].as_u64());
    assert_eq!([of(0), of(1), of(2)], [("away/39", Some(39)), ("away/38", Some(38)), ("away/37", Some(37))]);
    let one = expect(&get(&daemon, "/v1/clients/away%2F07"), 200);
    let queue = &one["session"]["queue"]; // topic, payload format indicator, payload
    assert_eq!(
        (&one["connected"], &queue["waiting"], &queue["bytes"]),
        (&json!(false), &json!(7), &json!(7 * (3 + 2 + 4)))
    );
    expect(&get(&daemon, "/v1/clients/nobody"), 404);
    for wrong in ["limit=0", "limit=5000", "after=x", "order=size", "colour=red"] {
        expect(&get(&daemon, &format!("/v1/clients?{wrong}")), 400);
    }
    let before = expect(&get(&daemon, "/v1/clients/subscriber"), 200);
    assert!(before["connected"] == json!(true) && before["address"].as_str().unwrap().starts_with("127."), "{before}");
    let path = "POST /v1/clients/subscriber/disconnect";
    let after = expect(&http::request(daemon.http_address(), path, &[], &[]).unwrap(), 200);
    assert_eq!((&after["connected"], &after["session"]["subscriptions"]), (&json!(false), &json!(1)));
    assert_eq!(here.receive().unwrap(), Incoming::Disconnect(ReasonCode::AdministrativeAction));
    let again = Client::connect(daemon.mqtt(), &Options::persistent("subscriber")).unwrap();
    assert!(again.session_present);
    let _transient = Client::connect(daemon.mqtt(), &Options::transient("passing")).unwrap();
    let path = "POST /v1/clients/passing/disconnect";
    let gone = expect(&http::request(daemon.http_address(), path, &[], &[]).unwrap(), 200);
    assert_eq!((&gone["connected"], &gone["session"]), (&json!(false), &Value::Null));
    expect(&get(&daemon, "/v1/clients/passing"), 404);
    expect(&get(&daemon, "/v1/clients/%00api%2F0%2F0%2F$local"), 404);
    let api = format!("http://{}", daemon.http_address());
    let client = |arguments: &[&str]| {
        let output = postroad(&[&["client"], arguments].concat(), &[("POSTROAD_API", &api)], "");
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, table) = client(&["top", "--limit", "2"]);
    let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((code, lines.len(), lines[1][..5].to_vec()), (Some(0), 3, vec!["away/39", "-", "away", "39", "390"]));
    let (code, list) = client(&["list", "--json", "--prefix", "away/1"]);
    assert_eq!((code, list.lines().count()), (Some(0), 10), "{list}");
    let (code, shown) = client(&["show", "away/00"]);
    assert!(code == Some(0) && shown.contains("\"backlog\": 0"), "{shown}");
    assert_eq!(client(&["kick", "nobody"]).0, Some(1));
    let watch = postroad(&["top", "--count", "1", "--interval", "1", "--clients", "2", "--api", &api], &[], "");
    let text = String::from_utf8(watch.stdout).unwrap();
    assert!(text.starts_with("serving, up ") && text.contains("away/39") && !text.contains("away/37"), "{text}");
}

/// The number of the first message that was not answered: what two threads publish, each in its own topic, until the server is gone.
fn publish_until_it_dies(daemon: &mut Daemon, first: [u32; 2], answers: usize) -> [u32; 2] {
    let address = daemon.http_address();
    let (tell, told) = mpsc::channel();
    let publishers = [0, 1].map(|publisher| {
        let tell = tell.clone();
        std::thread::spawn(move || {
            let headers = [("Content-Type", "application/json")];
            let mut number = first[publisher];
            loop {
                let body = json!({"topic": format!("storm/{publisher}"), "payload": number.to_string()}).to_string();
                let answer = http::request(address, "POST /v1/messages", &headers, body.as_bytes());
                if !answer.is_ok_and(|answer| answer.code == 200) {
                    return number;
                }
                number += 1;
                let _stopped_listening = tell.send(());
            }
        })
    });
    drop(tell); // if both end early, the wait does, too
    assert_eq!(told.iter().take(answers).count(), answers);
    drop(told);
    daemon.kill();
    publishers.map(|publisher| publisher.join().unwrap())
}

/// Killed again and again in the middle of publishing: what was answered is there, once and in order; what was not may be.
#[test]
fn what_is_answered_survives_kills_in_the_middle() {
    let mut daemon = Daemon::start_with(&["shards=2"]);
    subscriber(&daemon, "storm/#").disconnect().unwrap();
    // Numbers leave a gap where nobody knows.
    let (mut next, mut unknown) = ([0, 0], HashSet::new());
    for round in 0..8 {
        let failed = publish_until_it_dies(&mut daemon, next, 20 + 7 * round);
        unknown.extend(failed.iter().enumerate().map(|(publisher, number)| (publisher, *number)));
        next = failed.map(|number| number + 1);
        daemon.restart();
    }
    let mut client = Client::connect(daemon.mqtt(), &Options::persistent("subscriber")).unwrap();
    expect(&post(&daemon, &json!({"topic": "storm/end", "payload": "end"})), 200);
    let mut received: [Vec<u32>; 2] = [Vec::new(), Vec::new()];
    loop {
        let message = client.next_message().unwrap();
        let payload = String::from_utf8(message.payload).unwrap();
        match message.topic.as_str() {
            "storm/0" => received[0].push(payload.parse().unwrap()),
            "storm/1" => received[1].push(payload.parse().unwrap()),
            _ => break,
        }
    }
    for (publisher, received) in received.iter().enumerate() {
        assert!(received.is_sorted_by(|a, b| a < b), "publisher {publisher}: twice or out of order: {received:?}");
        let lost = |number: &u32| !received.contains(number) && !unknown.contains(&(publisher, *number));
        let lost: Vec<u32> = (0..next[publisher]).filter(lost).collect();
        assert!(lost.is_empty(), "publisher {publisher} lost what was answered: {lost:?}");
    }
}

/// A full disk refuses publishes through the API, too, and says so; with room again they go on.
#[test]
fn a_full_disk_is_said() {
    let mut daemon = Daemon::prepared(&[]);
    daemon.configure("[storage]\nfree_bytes_min = \"0B\"\n");
    daemon.restart();
    subscriber(&daemon, "d/#").disconnect().unwrap();
    let message = json!({"topic": "d/1"});
    expect(&post(&daemon, &message), 200);
    daemon.configure("[storage]\nfree_bytes_min = \"1024GiB\"\n"); // more than is free
    daemon.reload();
    wait_until("publishes are refused", || post(&daemon, &message).code == 429);
    daemon.configure("[storage]\nfree_bytes_min = \"0B\"\n");
    daemon.reload();
    wait_until("publishes are taken", || post(&daemon, &message).code == 200);
}

/// The document that the server gives says of each kind of answer which fields it has: exactly those that are there.
#[test]
fn answers_are_as_the_document_says() {
    let daemon = Daemon::start();
    drop(subscriber(&daemon, "o/#"));
    let document = expect(&get(&daemon, "/v1/openapi.json"), 200);
    let has_fields_of = |value: &Value, schema: &str| {
        let fields = |object: &Value| object.as_object().unwrap().keys().cloned().collect::<HashSet<_>>();
        let known = &document["components"]["schemas"][schema];
        let required: HashSet<String> =
            known["required"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect();
        assert_eq!(fields(value), required, "{schema}");
        assert_eq!(fields(&known["properties"]), required, "{schema}");
    };
    has_fields_of(&expect(&post(&daemon, &json!({"topic": "o/1"})), 200), "Published");
    let list = json!([{"topic": "o/1"}, {"topic": "$client/nobody/x"}]);
    let results = expect(&post(&daemon, &list), 200);
    has_fields_of(&results, "Results");
    has_fields_of(&results["results"][1], "Failed");
    has_fields_of(&results["results"][1]["error"], "Problem");
    has_fields_of(&expect(&post(&daemon, &json!({})), 400), "Problem");
    let clients = expect(&get(&daemon, "/v1/clients"), 200);
    has_fields_of(&clients, "Clients");
    has_fields_of(&clients["clients"][0], "Client");
    has_fields_of(&clients["clients"][0]["session"], "Session");
    has_fields_of(&clients["clients"][0]["session"]["queue"], "Queue");
    assert_eq!(clients["clients"][0]["registration"], Value::Null);
}

fn ask(daemon: &Daemon, method: &str, path: &str, body: &Value) -> Answer {
    let headers = [("Content-Type", "application/json")];
    let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    http::request(daemon.http_address(), &format!("{method} {path}"), &headers, &body).unwrap()
}

/// A client that never came is registered, pushed to while it is away, and keeps that over a kill -9 and a reload; then nothing
/// is known of it.
#[test]
fn clients_are_registered_and_forgotten() {
    let mut daemon = Daemon::start_with(&["shards=2"]);
    let path = "/v1/clients/truck%2F7";
    let known = expect(&ask(&daemon, "PUT", path, &json!({"groups": ["fleet", "fleet"]})), 200);
    assert_eq!((&known["registration"]["by"], &known["groups"]), (&json!("api"), &json!(["fleet"])));
    let push = |daemon: &Daemon| post(daemon, &json!({"topic": "$group/fleet/cmd", "payload": "lock"}));
    assert_eq!(expect(&push(&daemon), 200)["has_subscribers"], json!(true));
    daemon.kill();
    daemon.restart();
    daemon.reload();
    let known = expect(&get(&daemon, path), 200);
    assert_eq!((&known["registration"]["by"], &known["backlog"]), (&json!("api"), &json!(1)));
    let mut truck = Client::connect(daemon.mqtt(), &Options::transient("truck/7")).unwrap();
    assert_eq!(truck.next_message().unwrap().payload, b"lock");
    let api = format!("http://{}", daemon.http_address());
    let by_hand = |arguments: &[&str]| postroad(arguments, &[("POSTROAD_API", &api)], "");
    let output = by_hand(&["client", "register", "van", "--user", "anna", "--group", "fleet", "--json"]);
    let van: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&van["user"], &van["registration"]["by"]), (&json!("anna"), &json!("api")));
    assert!(Client::connect(daemon.mqtt(), &Options::transient("van")).is_err(), "it belongs to anna");
    assert!(by_hand(&["client", "unregister", "truck/7"]).status.success());
    assert!(truck.next_message().is_err(), "its connection has ended");
    assert_eq!(get(&daemon, path).code, 404);
    assert_eq!(ask(&daemon, "DELETE", path, &Value::Null).code, 404);
    daemon.kill();
    daemon.restart();
    assert_eq!(get(&daemon, path).code, 404, "it is forgotten for good");
    assert_eq!(get(&daemon, "/v1/clients/van").code, 200);
    for wrong in [json!({"user": "a/b"}), json!({"groups": ["$api"]}), json!({"name": "x"}), json!({"user": 7})] {
        assert_eq!(ask(&daemon, "PUT", "/v1/clients/x", &wrong).code, 400, "{wrong}");
    }
}

/// A client whose turn would come in an hour is sent at once what had waited for it.
#[test]
fn a_drain_is_kicked() {
    let daemon = Daemon::start_with(&["drain.jitter=1h"]);
    subscriber(&daemon, "t").disconnect().unwrap();
    for number in 0..20 {
        expect(&post(&daemon, &json!({"topic": "t", "payload": number.to_string()})), 200);
    }
    let mut client = Client::connect(daemon.mqtt(), &Options::persistent("subscriber")).unwrap();
    wait_until("it waits for its turn", || daemon.metric("postroad_drain_sessions", "awaiting") == 1.0);
    let kicked = expect(&ask(&daemon, "POST", "/v1/clients/subscriber/drain", &Value::Null), 200);
    assert_eq!(kicked["connected"], json!(true));
    assert_eq!(payloads(&mut client, 20), (0..20).map(|number| number.to_string()).collect::<Vec<_>>());
    assert_eq!(ask(&daemon, "POST", "/v1/clients/nobody/drain", &Value::Null).code, 404);
}

/// Each subscription and each retained topic is met once, over pages of any size and all shards.
#[test]
fn subscriptions_and_topics_are_seen() {
    let daemon = Daemon::start_with(&["shards=2"]);
    let mut expected: Vec<(String, String)> = Vec::new();
    for number in 0..6 {
        let name = format!("client-{number}");
        let mut client = Client::connect(daemon.mqtt(), &Options::persistent(&name)).unwrap();
        for filter in 0..number * 30 {
            let filter = format!("a/{number}/{filter}");
            client.subscribe(&filter, Qos::AtLeastOnce).unwrap();
            expected.push((name.clone(), filter));
        }
        client.subscribe("$share/g/b/+", Qos::ExactlyOnce).unwrap();
        expected.push((name, "$share/g/b/+".to_owned()));
    }
    let topics: Vec<String> = (0..40).map(|number| format!("kept/{number:02}")).collect();
    for topic in &topics {
        expect(&post(&daemon, &json!({"topic": topic, "payload": "x", "retain": true, "ttl_seconds": 3600})), 200);
    }
    let walk = |path: &str, list: &str, limit: usize| {
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let page = expect(&get(&daemon, &format!("{path}limit={limit}{after}")), 200);
            let things = page[list].as_array().unwrap();
            assert!(things.len() <= limit);
            found.extend(things.iter().cloned());
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return found,
            }
        }
    };
    let text = |thing: &Value, name: &str| thing[name].as_str().unwrap().to_owned();
    let group = ask(&daemon, "PUT", "/v1/groups/orders", &json!({"filters": ["b/+", "a/1/0"]}));
    expect(&group, 201);
    expected.sort();
    let mut counts: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    expected.iter().for_each(|(_, filter)| counts.entry(filter.clone()).or_default().0 += 1);
    ["b/+", "a/1/0"].into_iter().for_each(|filter| counts.entry(filter.to_owned()).or_default().1 += 1);
    let counts: Vec<(String, (u64, u64))> = counts.into_iter().collect();
    for limit in [1, 7, 1_000] {
        let count = |filter: &Value, name: &str| filter[name].as_u64().unwrap();
        let found = walk("/v1/filters?", "filters", limit);
        let told =
            found.iter().map(|found| (text(found, "filter"), (count(found, "subscribers"), count(found, "groups"))));
        assert_eq!(told.collect::<Vec<_>>(), counts, "pages of {limit}");
        let found = walk("/v1/subscriptions?", "subscriptions", limit);
        let mut pairs: Vec<_> = found.iter().map(|found| (text(found, "client"), text(found, "filter"))).collect();
        pairs.sort();
        assert_eq!(pairs, expected, "pages of {limit}");
        let mut kept: Vec<_> = walk("/v1/topics?", "topics", limit).iter().map(|topic| text(topic, "topic")).collect();
        kept.sort();
        assert_eq!(kept, topics, "pages of {limit}");
    }
    assert_eq!(walk("/v1/subscriptions?client=client-3&", "subscriptions", 7).len(), 91);
    assert_eq!(walk("/v1/subscriptions?client=nobody&", "subscriptions", 7), [] as [Value; 0]);
    let shared = walk("/v1/subscriptions?topic=b%2Fx&", "subscriptions", 2);
    assert_eq!((shared.len(), &shared[0]["qos"]), (6, &json!(2)));
    assert_eq!(walk("/v1/subscriptions?filter=a%2F5%2F7&", "subscriptions", 7).len(), 1);
    assert_eq!(walk("/v1/filters?prefix=a%2F2%2F&", "filters", 7).len(), 60);
    let both = walk("/v1/filters?topic=b%2Fx&", "filters", 1);
    assert_eq!(both.iter().map(|found| text(found, "filter")).collect::<Vec<_>>(), ["$share/g/b/+", "b/+"]);
    let one = walk("/v1/topics?filter=kept%2F07&", "topics", 7).remove(0);
    assert_eq!(one["bytes"], json!(10), "topic, payload, and that it is text");
    assert!(one["expires_unix_ms"].as_u64() > one["published_unix_ms"].as_u64(), "{one}");
    for wrong in [
        "/v1/topics?after=x",
        "/v1/topics?filter=a%23",
        "/v1/subscriptions?after=1",
        "/v1/subscriptions?limit=0",
        "/v1/filters?after=YQ%3D",
    ] {
        assert_eq!(get(&daemon, wrong).code, 400, "{wrong}");
    }
    let api = format!("http://{}", daemon.http_address());
    let by_hand = |arguments: &[&str]| {
        let output = postroad(arguments, &[("POSTROAD_API", &api)], "");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(by_hand(&["topic", "list", "--filter", "kept/#"]).lines().count(), 1 + 40);
    assert_eq!(by_hand(&["subscription", "list", "--client", "client-2"]).lines().count(), 1 + 61);
    assert_eq!(by_hand(&["subscription", "list", "--limit", "5"]).lines().count(), 1 + 5);
    let counted = by_hand(&["subscription", "filters", "--prefix", "$share"]);
    assert_eq!(counted, "SUBSCRIBERS GROUPS  FILTER\n          6      0  $share/g/b/+\n");
}

/// A reload and a stop through the API do what the signals do, tell what came of it, and are for who has the right.
#[test]
fn the_server_is_reloaded_and_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens.toml");
    let file = tokens.to_str().unwrap();
    let watcher = new_token(&["--file", file, "--right", "clients", "watcher"]);
    let operator = new_token(&["--file", file, "--right", "admin", "operator"]);
    let mut daemon = Daemon::prepared(&[&format!("api.tokens_file={file}")]);
    daemon.configure("[queue]\nmessages_max = 10\n");
    daemon.restart();
    let status = expect(&get(&daemon, "/v1/admin/status"), 200);
    assert_eq!((&status["phase"], &status["reason"]), (&json!("serving"), &Value::Null));
    let order = |daemon: &Daemon, what: &str, token: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", bearer.as_str())];
        http::request(daemon.http_address(), &format!("POST /v1/admin/{what}"), &headers, b"").unwrap()
    };
    for what in ["reload", "drain"] {
        assert_eq!((order(&daemon, what, &watcher).code, order(&daemon, what, "prt_x").code), (403, 401), "{what}");
    }
    daemon.configure("[queue]\nmessages_max = 20\n[log]\nyoung_bytes = \"128MiB\"\n");
    let reloaded = expect(&order(&daemon, "reload", &operator), 200);
    assert_eq!(reloaded["applied"], json!(["queue.messages_max: 10 -> 20"]), "{reloaded}");
    daemon.configure("[queue]\nmessages_max = \"many\"\n");
    let refused = expect(&order(&daemon, "reload", &operator), 409);
    assert_eq!(refused["reason"], json!("reload_refused"));
    assert!(refused["detail"].as_str().unwrap().contains("queue.messages_max"), "{refused}");
    daemon.configure("[queue]\nmessages_max = 30\n");
    let api = format!("http://{}", daemon.http_address());
    let environment = [("POSTROAD_API", api.as_str()), ("POSTROAD_TOKEN", operator.as_str())];
    let output = postroad(&["admin", "reload"], &environment, "");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains("applied: queue.messages_max: 20 -> 30\n"), "{said}");
    let stopping = order(&daemon, "drain", &operator);
    assert_eq!(stopping.code, 202, "{stopping:?}");
    assert!(daemon.wait_for_end().success());
}

/// What is wished on the command line reaches receivers: by the API, and as user properties of MQTT 5.
#[test]
fn wishes_are_given_on_the_command_line() {
    let daemon = Daemon::start();
    let mut client = subscriber(&daemon, "w/#");
    let api = format!("http://{}", daemon.http_address());
    let environment = [("POSTROAD_API", api.as_str())];
    let wishes = ["--priority", "high", "--collapse-key", "k", "--retry-attempts-max", "3", "--retry-age-max", "60"];
    let output = postroad(&[&["publish", "w/1", "-m", "x"], &wishes[..]].concat(), &environment, "");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(client.next_message().unwrap().payload, b"x");
    let port = daemon.mqtt().port().to_string();
    let pubs = ["pub", "-h", "127.0.0.1", "-p", &port, "-t", "w/2", "-q", "1", "-m", "y"];
    let output = postroad(&[&pubs[..], &wishes].concat(), &environment, "");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(client.next_message().unwrap().payload, b"y");
    let long = "k".repeat(256);
    let output = postroad(&[&pubs[..], &["--collapse-key", &long]].concat(), &environment, "");
    assert!(!output.status.success(), "a key that can't be is refused: {output:?}");
    let output = postroad(&["publish", "w/1", "-m", "x", "--collapse-key", &long], &environment, "");
    assert!(String::from_utf8_lossy(&output.stderr).contains("collapse_key"), "{output:?}");
    let output = postroad(&[&pubs[..], &["-V", "3.1.1", "--priority", "low"]].concat(), &environment, "");
    assert!(String::from_utf8_lossy(&output.stderr).contains("MQTT 5"), "{output:?}");
}
