//! The pages, over loopback, with shards played by threads.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, SystemTime};

use postroad_base::{MessageId, Placement, ReasonCode, ShardId};
use postroad_control::{
    BuildInfo, Control, HookReport, Line, Listeners, Note, Outcome, Phase, PluginReport, Request, Settings,
    ShardReport, Shards,
};

fn start(settings: Settings) -> (Control, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let build = BuildInfo { version: "0.0.0-test", revision: "none" };
    let control =
        Control::start(Listeners { http: vec![listener], grpc: Vec::new() }, build, settings).expect("a thread");
    let address = control.addresses()[0];
    (control, address)
}

/// A line without a bell: who plays the shard waits for the queue.
fn line(places: usize) -> (Line, flume::Receiver<Request>) {
    let (queue, questions) = flume::bounded(places);
    (Line::new(queue, || ()), questions)
}

fn shards(lines: Vec<Line>) -> Shards {
    let placement = Placement::new(16, lines.len() as u16, [7; 16]);
    Shards { lines, placement: Some(placement), ..Shards::default() }
}

fn post(address: SocketAddr, json: &str) -> String {
    let head =
        "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n";
    exchange(address, &format!("{head}Content-Length: {}\r\n\r\n{json}", json.len()))
}

/// Sends `head` as it is and reads to the end of the connection.
fn exchange(address: SocketAddr, head: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket option");
    stream.write_all(head.as_bytes()).expect("send");
    let mut answer = Vec::new();
    // A reset after the answer is as good as an end.
    let _ended = stream.read_to_end(&mut answer);
    String::from_utf8(answer).expect("text")
}

fn get(address: SocketAddr, path: &str) -> String {
    exchange(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"))
}

fn assert_status(answer: &str, status: u16) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "wanted {status}, got: {answer}");
}

#[test]
fn ready_follows_the_phases_and_says_why_not() {
    let (control, address) = start(Settings::default());
    let handle = control.handle();
    let before = get(address, "/ready");
    assert_status(&before, 503);
    assert!(before.contains(r#""phase":"starting""#) && before.contains("recovering the log"), "{before}");

    handle.enter(Phase::Serving);
    let note = |text: &str, until| Note { text: text.to_owned(), until };
    let hour = Duration::from_secs(3600);
    handle.note(note("client c6 is barred", Some(SystemTime::now() - hour)));
    handle.note(note("client c7 is barred", Some(SystemTime::now() + hour)));
    handle.note(note("a delivery is set aside", None));
    handle.note(note("a delivery is set aside", None));
    let serving = get(address, "/ready");
    assert_status(&serving, 200);
    assert!(serving.contains(r#""notes":["client c7 is barred","a delivery is set aside"]"#), "{serving}");
    handle.replace_notes(vec![note("another", None)]);
    assert!(get(address, "/ready").contains(r#""notes":["another"]"#));

    handle.enter(Phase::Draining);
    assert_status(&get(address, "/ready"), 503);
    assert_status(&get(address, "/health"), 200);

    handle.enter(Phase::Poisoned("fdatasync failed on shard 3".into()));
    handle.enter(Phase::Serving);
    let poisoned = get(address, "/ready");
    assert_status(&poisoned, 503);
    assert!(poisoned.contains("fdatasync failed on shard 3"), "{poisoned}");
    assert_status(&get(address, "/health"), 503);
    control.stop();
}

#[test]
fn metrics_come_from_every_shard_and_a_silent_one_is_told() {
    let settings = Settings { shard_timeout: Duration::from_millis(50), ..Settings::default() };
    let (control, address) = start(settings);
    let (lively, questions) = line(4);
    let (silent, never_read) = line(1);
    control.handle().attach(shards(vec![lively, silent]));
    let shard = std::thread::spawn(move || {
        while let Ok(request) = questions.recv() {
            if let Request::Report(answer) = request {
                let mut report = ShardReport::new(ShardId(0));
                report.connections = 17;
                answer.try_send(report).expect("room for one answer");
            }
        }
    });
    let page = get(address, "/metrics");
    assert_status(&page, 200);
    assert!(page.contains("text/plain; version=0.0.4"), "{page}");
    assert!(page.contains("postroad_connections{shard=\"0\"} 17\n"), "{page}");
    assert!(page.contains("postroad_shards 2\n") && page.contains("postroad_shards_answering 1\n"), "{page}");
    assert!(page.contains("postroad_shard_requests_unanswered_total 1\n"), "{page}");
    assert!(page.contains("postroad_build_info{version=\"0.0.0-test\""), "{page}");
    // The silent shard's channel holds the first question: the second must not wait for room.
    assert_status(&get(address, "/metrics"), 200);
    assert_eq!(never_read.len(), 1);
    control.handle().attach(Shards::default());
    control.stop();
    drop(never_read);
    shard.join().expect("the played shard ends with its channel");
}

fn plugin() -> PluginReport {
    PluginReport {
        name: "tenant".into(),
        hooks: vec![HookReport { name: "route", ..HookReport::default() }],
        counters: vec![("seen".into(), 1)],
        gauges: vec![("level".into(), 1.0)],
        ..PluginReport::default()
    }
}

/// What the operator guide tells to watch is there to be watched.
#[test]
fn every_metric_that_the_operator_guide_names_is_exported() {
    let guide = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/operator-guide.md");
    let guide = std::fs::read_to_string(guide).expect("the guide is there");
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = guide.split(|c: char| !is_name(c) && c != '*');
    // `postroad_interface_*` stands for all that begin so; a name of a file or option has no such prefix.
    let names: Vec<&str> = words.filter(|word| word.starts_with("postroad_") || word.starts_with("process_")).collect();
    assert!(names.len() > 15, "{names:?}");
    let (control, address) = start(Settings::default());
    let (shard, questions) = line(4);
    control.handle().attach(shards(vec![shard]));
    let answering = std::thread::spawn(move || {
        for question in questions.iter() {
            if let Request::Report(answer) = question {
                let mut report = ShardReport::new(ShardId(0));
                report.interfaces.push(postroad_control::InterfaceReport::new("mqtt".into()));
                report.counted.push(("queue_overflow", 1));
                report.ended.push(("refused", 1));
                report.plugins.differences.push(("topic", 1));
                report.plugins.plugins.push(plugin());
                answer.try_send(report).expect("room for one answer");
            }
        }
    });
    let page = get(address, "/metrics");
    for name in names {
        let (sample, star) = (name.trim_end_matches('*'), name.ends_with('*'));
        let is_sample = |line: &str| {
            let known = line.split(|c| !is_name(c)).next().unwrap_or_default();
            if star { known.starts_with(sample) } else { known == sample }
        };
        assert!(page.lines().any(is_sample), "{name} is not exported");
    }
    control.handle().attach(Shards::default());
    control.stop();
    answering.join().expect("ends with its channel");
}

/// Played by hand: the shard answers nothing until the pages say so, then everything until they say that.
#[test]
fn a_shard_that_takes_no_turn_is_named_until_it_turns_again() {
    let (control, address) = start(Settings { stall_max: Duration::from_millis(50), ..Settings::default() });
    control.handle().enter(Phase::Serving);
    let (shard, questions) = line(4);
    control.handle().attach(shards(vec![shard]));
    while !get(address, "/health").contains(r#""stalled_shards":[0]"#) {}
    let ready = get(address, "/ready");
    assert_status(&ready, 200);
    assert!(ready.contains(r#""stalled_shards":[0]"#), "{ready}");
    let answering = std::thread::spawn(move || {
        for question in questions.iter() {
            if let Request::Ping(answer) = question {
                let _nobody_waits_at_the_end = answer.try_send(ShardId(0));
            }
        }
    });
    while !get(address, "/health").contains(r#""stalled_shards":[]"#) {}
    control.handle().attach(Shards::default());
    control.stop();
    answering.join().expect("ends with its channel");
}

#[test]
fn what_no_page_takes_is_refused() {
    let (control, address) = start(Settings::default());
    assert_status(&get(address, "/nothing"), 404);
    assert_status(
        &exchange(address, "POST /ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"),
        405,
    );
    assert_status(&exchange(address, "GET /ready HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"), 413);
    let long = "y".repeat(64 * 1024);
    assert_status(&exchange(address, &format!("GET /ready HTTP/1.1\r\nHost: x\r\nLong: {long}\r\n\r\n")), 431);
    assert_status(&exchange(address, "garbage\r\n\r\n"), 400);
    control.stop();
}

#[test]
fn an_unfinished_request_is_closed_when_its_time_is_over() {
    let settings = Settings { request_timeout: Duration::from_millis(50), ..Settings::default() };
    let (control, address) = start(settings);
    let answer = exchange(address, "GET /ready HTTP/1.1\r\nHost:");
    assert!(!answer.contains(" 200 "), "{answer}");
    control.stop();
}

#[test]
fn a_connection_above_the_limit_is_closed_and_counted() {
    let (control, address) = start(Settings { connections_max: 1, ..Settings::default() });
    let mut first = TcpStream::connect(address).expect("connect");
    first.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket option");
    first.write_all(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n").expect("send");
    let mut answer = [0; 15];
    first.read_exact(&mut answer).expect("the first connection is served");
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    assert_eq!(get(address, "/health"), "", "the second connection must be closed unanswered");
    first.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("send");
    let mut rest = String::new();
    first.read_to_string(&mut rest).expect("read");
    assert!(rest.contains("postroad_http_connections_refused_total 1\n"), "{rest}");
    control.stop();
}

/// Whatever the shard does, the caller is told no more and no less than what is known.
#[test]
fn a_publish_is_answered_by_its_shard_or_said_to_be_unknown() {
    let settings = Settings { publish_timeout: Duration::from_millis(50), ..Settings::default() };
    let (control, address) = start(settings);
    let (queue, questions) = flume::bounded(4);
    control.handle().attach(shards(vec![Line::new(queue.clone(), || ())]));
    let message = r#"{"topic": "a", "payload": "x"}"#;
    assert_status(&post(address, message), 503); // starting
    control.handle().enter(Phase::Serving);
    // The shard has the batch and says nothing.
    let answer = post(address, message);
    assert_status(&answer, 504);
    assert!(answer.contains(r#""reason":"unknown""#), "{answer}");
    // Its queue is full: not published.
    let (nobody, _) = flume::bounded(1);
    while queue.try_send(Request::Ping(nobody.clone())).is_ok() {}
    assert_status(&post(address, message), 503);
    let answering = std::thread::spawn(move || {
        let batches = questions.iter().filter_map(|question| match question {
            Request::Publish(batch) => Some(batch),
            _ => None,
        });
        let id = Some(MessageId(7));
        let outcomes = [
            None, // the one that was given up
            Some(Outcome::Published { id, has_subscribers: true }),
            Some(Outcome::Refused(ReasonCode::QuotaExceeded)),
            None,
        ];
        for (outcome, batch) in outcomes.into_iter().zip(batches) {
            if let Some(outcome) = outcome {
                batch.answer.try_send(vec![outcome]).expect("the caller waits");
            }
        }
    });
    let mut published = String::new();
    while !published.contains(" 200 ") {
        published = post(address, message); // until the one that was given up has left the queue
    }
    assert!(
        published.contains(r#"{"topic":"a","id":"00000000000000000000000000000007","has_subscribers":true}"#),
        "{published}"
    );
    assert_status(&post(address, message), 429);
    // Dropped without an answer, as by a shard that ends.
    assert_status(&post(address, message), 504);
    answering.join().expect("it ends after its last outcome");
    assert_status(&post(address, message), 503); // nobody is there
    control.stop();
}

/// Some answered in axum's words, as plain text.
#[test]
fn a_path_that_is_no_text_is_a_problem_whatever_the_route() {
    let (control, address) = start(Settings::default());
    control.handle().enter(Phase::Serving);
    let document = get(address, "/v1/openapi.json");
    let (_, document) = document.split_once("\r\n\r\n").expect("a head");
    let document: serde_json::Value = serde_json::from_str(document).expect("JSON");
    let paths = document["paths"].as_object().expect("paths");
    let mut asked = 0;
    for (path, methods) in paths.iter().filter(|(path, _)| path.contains('{')) {
        let (before, rest) = path.split_once('{').expect("it has one");
        let (_, after) = rest.split_once('}').expect("it ends");
        for method in methods.as_object().expect("methods").keys() {
            let method = method.to_uppercase();
            let head = format!(
                "{method} {before}%FF{after} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            );
            let answer = exchange(address, &head);
            assert_status(&answer, 400);
            assert!(answer.contains("application/problem+json"), "{method} {path}: {answer}");
            asked += 1;
        }
    }
    assert!(asked >= 20, "{asked}");
    control.stop();
}

/// Takes that waited could have every connection: nobody could publish what they waited for, or ask whether the server is ready.
#[test]
fn takes_that_wait_leave_connections_to_others() {
    let (control, address) = start(Settings { connections_max: 3, ..Settings::default() });
    let (line, asked) = line(8);
    control.handle().attach(shards(vec![line]));
    control.handle().enter(Phase::Serving);
    let take = |wait: u64| {
        let body = format!(r#"{{"wait_seconds": {wait}}}"#);
        let head = "POST /v1/groups/work/take HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json";
        format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.write_all(take(60).as_bytes()).expect("it is taken");
        let question = asked.recv_timeout(Duration::from_secs(30)).expect("the shard is asked");
        waiting.push((stream, question));
    }
    let third = exchange(address, &take(60));
    assert_status(&third, 503);
    assert!(third.contains("\"busy\""), "{third}");
    assert_status(&get(address, "/health"), 200);
    control.stop();
}
