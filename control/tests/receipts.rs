//! Receipts and the lives of messages, over loopback, with steps told by the test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use postroad_base::{
    Addressee, Ended, MessageId, Moved, Outcome, Published, Qos, ReceiptLevel, ShardId, Step, TopicName, WallMillis,
};
use postroad_control::{
    BuildInfo, Control, Line, Listeners, Phase, Recorder, Request, Settings, Shards, Tokens, Watched, WatchedLine,
};
use serde_json::Value;

/// Longest wait for what ought to happen at once.
const PATIENCE: Duration = Duration::from_secs(30);

/// A control plane whose shards, if it has any, are played by the test.
struct Stage {
    control: Control,
    address: SocketAddr,
    recorder: Recorder,
    asked: flume::Receiver<Request>,
}

impl Stage {
    fn new(settings: Settings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let build = BuildInfo { version: "0.0.0-test", revision: "none" };
        let listeners = Listeners { http: vec![listener], grpc: Vec::new() };
        let settings = Settings { shard_timeout: PATIENCE, ..settings }; // the history has thousands of steps to take in first
        let mut control = Control::start(listeners, build, settings).expect("a thread");
        control.keep_history(None, 0).expect("a thread");
        let (queue, asked) = flume::bounded(16);
        control.handle().attach(Shards { lines: vec![Line::new(queue, || ())], ..Shards::default() });
        control.handle().enter(Phase::Serving);
        let (address, recorder) = (control.addresses()[0], control.recorder());
        Self { control, address, recorder, asked }
    }

    fn tell(&self, id: u128, client: Option<&str>, step: Step) {
        self.tell_of(id, client.map(|client| Addressee::Client(client.into())), step);
    }

    fn tell_of(&self, id: u128, to: Option<Addressee>, step: Step) {
        let topic = TopicName::new("t/1").expect("a topic");
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        let at = WallMillis(u64::try_from(now.as_millis()).expect("for some time to come"));
        let receipt = Some(ReceiptLevel::Acknowledged);
        let id = MessageId(id);
        self.recorder.tell(Box::new(Moved { id, topic, at, shard: ShardId(0), to, receipt, is_kept: true, step }));
    }

    /// A message by this user, with a receipt for each of two clients.
    fn message(&self, id: u128, user: &str) {
        let (by, user, qos) = (None, Some(user.into()), Qos::AtLeastOnce);
        self.tell(id, None, Step::Published(Box::new(Published { by, user, qos, bytes: 5, original: None })));
        self.tell(id, None, Step::Stored { matched: true });
        self.tell(id, Some("a"), Step::Queued);
        self.tell(id, Some("a"), Step::Acknowledged { attempts: 1 });
        let how = Ended::With(Outcome::Refused);
        self.tell(id, Some("b"), Step::Over { how, reason_code: 131, attempts: 2 });
    }

    fn open(&self, path: &str, headers: &str) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket option");
        let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).expect("it reads");
        BufReader::new(stream)
    }

    fn get_as(&self, path: &str, headers: &str) -> String {
        let mut answer = String::new();
        self.open(path, headers).read_to_string(&mut answer).expect("it answers");
        answer
    }

    fn get(&self, path: &str) -> String {
        self.get_as(path, "")
    }
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").expect("a head").1
}

/// The things of a stream in lines.
fn lines(answer: &str) -> Vec<Value> {
    body(answer).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn texts<'a>(things: &'a [Value], name: &str) -> Vec<&'a str> {
    things.iter().map(|thing| thing[name].as_str().unwrap_or("-")).collect()
}

const LINES: &str = "Accept: application/x-ndjson\r\n";

#[test]
fn the_life_of_a_message_is_told_page_by_page() {
    let stage = Stage::new(Settings::default());
    stage.message(7, "billing");
    stage.message(8, "billing");
    let path = format!("/v1/messages/{}", MessageId(7));
    let page: Value = serde_json::from_str(body(&stage.get(&format!("{path}?limit=3")))).expect("JSON");
    let steps = page["steps"].as_array().expect("steps");
    assert_eq!(texts(steps, "step"), ["published", "stored", "queued"]);
    assert_eq!(
        (&steps[0]["user"], &steps[0]["topic"], &steps[0]["qos"]),
        (&"billing".into(), &"t/1".into(), &1.into())
    );
    let rest = stage.get(&format!("{path}?after={}", page["next"]));
    let rest: Value = serde_json::from_str(body(&rest)).expect("JSON");
    let steps = rest["steps"].as_array().expect("steps");
    assert_eq!((texts(steps, "step"), texts(steps, "client")), (vec!["acknowledged", "over"], vec!["a", "b"]));
    assert_eq!((&steps[1]["reason"], &steps[1]["reason_code"]), (&"refused".into(), &131.into()));
    assert!(rest["next"].is_null());
    assert!(stage.get(&format!("/v1/messages/{}", MessageId(9))).starts_with("HTTP/1.0 404 "));
    assert!(stage.get("/v1/messages/7").starts_with("HTTP/1.0 400 "));
    stage.control.stop();
}

#[test]
fn receipts_are_followed_from_where_a_reader_was() {
    let stage = Stage::new(Settings::default());
    stage.message(7, "billing");
    stage.message(8, "orders");
    let all = lines(&stage.get_as("/v1/receipts?follow=false", LINES));
    assert_eq!(texts(&all, "receipt"), ["stored", "acknowledged", "dead", "stored", "acknowledged", "dead"]);
    let dead = lines(&stage.get_as("/v1/receipts?follow=false&level=dead&publisher=orders", LINES));
    assert_eq!((dead.len(), texts(&dead, "user")), (1, vec!["orders"]));
    let of_one = format!("/v1/receipts?follow=false&message={}", MessageId(8));
    assert_eq!(lines(&stage.get_as(&of_one, LINES)).len(), 3);

    // What an EventSource sends when it connects again.
    let headers = format!("Last-Event-ID: {}\r\n", all[4]["position"]);
    let mut events = stage.open("/v1/receipts?after=0", &headers);
    let mut next = |wanted: &str| loop {
        let mut line = String::new();
        assert_ne!(events.read_line(&mut line).expect("it goes on"), 0, "it has ended");
        if let Some(rest) = line.strip_prefix(wanted) {
            return rest.trim().to_owned();
        }
    };
    assert_eq!(next("content-type: "), "text/event-stream");
    assert_eq!(next("id: "), all[5]["position"].to_string());
    assert_eq!(next("event: "), "dead");
    stage.tell(9, Some("c"), Step::Sent { attempt: 1, qos: Qos::AtLeastOnce });
    assert_eq!(next("event: "), "sent");
    let data: Value = serde_json::from_str(&next("data: ")).expect("JSON");
    assert_eq!((&data["client"], &data["attempts"]), (&"c".into(), &1.into()));
    stage.control.stop();
}

/// The name of a group stood where that of a client does, and only the publication of a requeue said of what it was one.
#[test]
fn receipts_tell_groups_from_clients_and_requeues_from_what_they_repeat() {
    let stage = Stage::new(Settings::default());
    let (user, qos) = (Some("billing".into()), Qos::AtLeastOnce);
    let original = Some(MessageId(7));
    stage.tell(8, None, Step::Published(Box::new(Published { by: None, user, qos, bytes: 5, original })));
    stage.tell(8, Some("a"), Step::Acknowledged { attempts: 1 });
    stage.tell_of(8, Some(Addressee::Group("a".into())), Step::Acknowledged { attempts: 2 });
    let all = lines(&stage.get_as("/v1/receipts?follow=false", LINES));
    assert_eq!((texts(&all, "client"), texts(&all, "group")), (vec!["a", "-"], vec!["-", "a"]));
    let seven = MessageId(7).to_string();
    assert_eq!(texts(&all, "original_id"), [seven.as_str(); 2]);
    stage.control.stop();
}

/// A reader that asks for what is new gets nothing of what was before.
#[test]
fn without_a_position_a_reader_gets_what_is_new() {
    let stage = Stage::new(Settings::default());
    stage.message(7, "billing");
    assert_eq!(lines(&stage.get_as("/v1/receipts?follow=false", LINES)).len(), 3, "now they can be seen");
    let mut reader = stage.open("/v1/receipts", LINES);
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        reader.read_line(&mut line).expect("a head");
    }
    stage.tell(9, Some("c"), Step::Acknowledged { attempts: 1 });
    line.clear();
    reader.read_line(&mut line).expect("it goes on");
    let step: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(step["client"], "c");
    stage.control.stop();
}

/// SHA-256 of `a`, `b`, `c`, as `sha256sum` says.
const TOKENS: &str = r#"
[[token]]
name = "orders"
hash = "sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"

[[token]]
name = "operator"
hash = "sha256:3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d"
rights = ["trace"]

[[token]]
name = "clerk"
hash = "sha256:2e7d2c03a9507ae265ecf5b5356885a53393a2029d241394997265a1a25aefc6"
rights = ["clients"]
"#;

#[test]
fn without_the_right_to_trace_one_sees_receipts_of_one_s_own() {
    let stage = Stage::new(Settings::default());
    stage.control.handle().use_tokens(Some(Tokens::parse(TOKENS).expect("good tokens")));
    stage.message(7, "billing");
    stage.message(8, "orders");
    let as_who = |token: &str| format!("{LINES}Authorization: Bearer {token}\r\n");
    let receipts = |token: &str, more: &str| stage.get_as(&format!("/v1/receipts?follow=false{more}"), &as_who(token));
    assert_eq!(lines(&receipts("b", "")).len(), 6);
    let own = lines(&receipts("a", ""));
    assert_eq!(texts(&own, "user"), ["orders"; 3]);
    assert_eq!(lines(&receipts("a", "&publisher=billing")), [] as [Value; 0]);
    assert_eq!(lines(&receipts("a", &format!("&message={}", MessageId(7)))), [] as [Value; 0]);
    let status = |answer: &str| answer.split(' ').nth(1).map(str::to_owned);
    assert_eq!(status(&receipts("c", "")).as_deref(), Some("403"));
    assert_eq!(status(&receipts("nobody", "")).as_deref(), Some("401"));
    let life = format!("/v1/messages/{}", MessageId(8));
    assert_eq!(status(&stage.get_as(&life, &as_who("a"))).as_deref(), Some("403"));
    assert_eq!(status(&stage.get_as(&life, &as_who("b"))).as_deref(), Some("200"));
    assert_eq!(status(&stage.get_as("/v1/trace?client=x", &as_who("a"))).as_deref(), Some("403"));
    stage.control.stop();
}

/// One that reads nothing holds a place and no more: steps are taken in, and others read.
#[test]
fn a_reader_that_stops_reading_keeps_nobody_waiting() {
    let stage = Stage::new(Settings { trace_readers_max: 2, ..Settings::default() });
    let stuck = stage.open("/v1/receipts?after=0", LINES);
    for id in 0..3_000 {
        stage.message(id, "billing");
    }
    let seen = lines(&stage.get_as("/v1/receipts?follow=false", LINES));
    assert_eq!(seen.len(), 9_000);
    let second = stage.open("/v1/receipts?after=0", LINES);
    let third = stage.get("/v1/receipts?follow=false");
    assert!(third.starts_with("HTTP/1.0 503 ") && third.contains("trace.readers_max"), "{third}");
    drop((stuck, second));
    stage.control.stop();
}

/// A stream ends with the age of its connection: its reader goes on from its position by another one.
#[test]
fn a_stream_ends_with_its_connection_s_age() {
    let stage = Stage::new(Settings { connection_age_max: Duration::from_millis(50), ..Settings::default() });
    let answer = stage.get_as("/v1/receipts", LINES);
    assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
    stage.message(7, "billing");
    let all = lines(&stage.get_as("/v1/receipts?follow=false", LINES));
    let newest = &all.last().expect("three")["position"];
    let events = stage.get("/v1/receipts?level=sent");
    assert_eq!(body(&events), format!("id: {newest}\n\n"), "where the next one goes on");
    stage.control.stop();
}

/// Who wanted what is rare got no id for hours, and looked at all of it again after each break.
#[test]
fn a_reader_for_whom_nothing_fits_hears_how_far_it_was_looked() {
    let stage = Stage::new(Settings::default());
    for _ in 0..10_001 {
        stage.tell(7, Some("a"), Step::Acknowledged { attempts: 1 });
    }
    let mut events = stage.open("/v1/receipts?after=0&level=dead", "");
    let mut line = String::new();
    while !line.starts_with("id: ") {
        line.clear();
        assert_ne!(events.read_line(&mut line).expect("it goes on"), 0, "it has ended");
    }
    let rest = format!("/v1/receipts?follow=false&after={}", line["id: ".len()..].trim());
    assert_eq!(lines(&stage.get_as(&rest, LINES)).len(), 1);
    stage.control.stop();
}

/// Callers that publish had all places, and operators none.
#[test]
fn half_of_the_places_are_not_for_those_who_read_their_own() {
    let stage = Stage::new(Settings { trace_readers_max: 2, ..Settings::default() });
    stage.control.handle().use_tokens(Some(Tokens::parse(TOKENS).expect("good tokens")));
    let as_who = |token: &str| format!("{LINES}Authorization: Bearer {token}\r\n");
    let mut first = stage.open("/v1/receipts", &as_who("a"));
    let mut head = String::new();
    first.read_line(&mut head).expect("a head");
    assert!(head.starts_with("HTTP/1.0 200 "), "{head}");
    let second = stage.get_as("/v1/receipts?follow=false", &as_who("a"));
    assert!(
        second.starts_with("HTTP/1.0 503 ") && second.contains("half of trace.readers_max, rounded down"),
        "{second}"
    );
    assert!(stage.get_as("/v1/receipts?follow=false", &as_who("b")).starts_with("HTTP/1.0 200 "));
    drop(first);
    stage.control.stop();
    // Half of one was one.
    let stage = Stage::new(Settings { trace_readers_max: 1, ..Settings::default() });
    stage.control.handle().use_tokens(Some(Tokens::parse(TOKENS).expect("good tokens")));
    assert!(stage.get_as("/v1/receipts?follow=false", &as_who("a")).starts_with("HTTP/1.0 503 "));
    assert!(stage.get_as("/v1/receipts?follow=false", &as_who("b")).starts_with("HTTP/1.0 200 "));
    stage.control.stop();
}

#[test]
fn who_watches_gets_what_the_shards_tell_until_it_leaves() {
    let stage = Stage::new(Settings { trace_lines_per_second: 10, ..Settings::default() });
    for wrong in ["/v1/trace", "/v1/trace?client=a&lines_per_second=11", "/v1/trace?topic=a%2F%23%2Fb"] {
        assert!(stage.get(wrong).starts_with("HTTP/1.0 400 "), "{wrong}");
    }
    let mut reader = stage.open("/v1/trace?client=truck-7&topic=t%2F%23", LINES);
    let watch = loop {
        if let Request::Watch(watch) = stage.asked.recv_timeout(PATIENCE).expect("the shard is asked") {
            break *watch;
        }
    };
    assert_eq!((watch.client.as_deref(), watch.lines_per_second), (Some("truck-7"), 10));
    let line = WatchedLine {
        at: WallMillis(5),
        shard: ShardId(0),
        client: Some("truck-7".into()),
        what: Watched::In,
        text: "PUBACK id=1".into(),
        left_out: 3,
    };
    watch.lines.try_send(line).expect("it has room");
    let mut text = String::new();
    while !text.starts_with('{') {
        text.clear();
        reader.read_line(&mut text).expect("it goes on");
    }
    let line: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((&line["what"], &line["text"], &line["left_out"]), (&"in".into(), &"PUBACK id=1".into(), &3.into()));
    drop(reader);
    let begin = std::time::Instant::now();
    while !watch.lines.is_disconnected() {
        assert!(begin.elapsed() < PATIENCE, "the shard would tell for ever");
        std::thread::yield_now();
    }
    stage.control.stop();
}

fn letter(sequence: u64) -> postroad_control::LetterReport {
    let death = postroad_base::Death {
        client: postroad_base::ClientId("a".into()),
        is_push: false,
        is_group: false,
        outcome: Outcome::Refused,
        reason_code: 131,
        attempts: 1,
        sent: None,
        at: WallMillis(1),
        error: None,
    };
    let extras = postroad_base::Extras { death: Some(Box::new(death)), ..Default::default() };
    let message = postroad_base::Message {
        id: MessageId(u128::from(sequence)),
        topic: TopicName::new("t/1").expect("a topic"),
        payload: "x".into(),
        properties: Default::default(),
        qos: Qos::AtLeastOnce,
        retain: false,
        expires_at: None,
        publisher: postroad_base::QueueId::NONE,
        extras: Some(Box::new(extras)),
    };
    let id = format!("0-0-{sequence}").parse().expect("a name");
    let letter =
        postroad_base::Letter { id, message: message.into(), qos: Qos::AtLeastOnce, parked: None, is_leased: false };
    postroad_control::LetterReport { letter, properties: Default::default() }
}

/// The ends of all queues were seen as soon as the last page had come: the first letter of such a page came with an id behind the
/// others, and who broke off there never got them.
#[test]
fn a_letter_comes_with_a_place_before_the_rest_of_its_page() {
    let stage = Stage::new(Settings::default());
    let mut events = stage.open("/v1/dead-letters?from=oldest", "Accept: text/event-stream\r\n");
    let question = loop {
        match stage.asked.recv().expect("the control plane asks") {
            Request::Letters(question) => break question,
            _ => continue,
        }
    };
    let ends = vec!["0-0-9".parse().expect("a name"), "1-0-3".parse().expect("a name")];
    let page = postroad_control::LettersPage { letters: vec![letter(7), letter(8)], next: None, ends };
    question.answer.send(page).expect("somebody waits");
    let mut ids = Vec::new();
    while ids.len() < 3 {
        let mut line = String::new();
        assert_ne!(events.read_line(&mut line).expect("an event"), 0, "it goes on");
        ids.extend(line.strip_prefix("id: ").map(|id| id.trim_end().to_owned()));
    }
    assert_eq!(ids, ["-", "0-0-7", "0-0-9,1-0-3"]);
    drop(events);
    stage.control.stop();
}

/// It was 503, which a caller tries again for ever.
#[test]
fn a_cursor_of_a_shard_that_is_not_there_is_wrong() {
    let stage = Stage::new(Settings::default());
    for path in ["/v1/dead-letters?after=9", "/v1/topics?filter=%23&after=9", "/v1/subscriptions?after=9.0"] {
        let answer = stage.get(path);
        assert!(answer.starts_with("HTTP/1.0 400 "), "{path}: {answer}");
    }
    stage.control.stop();
}

/// It was half a second whatever the rest of the stop took: on a machine with much to do callers lost the end of their answers.
#[test]
fn a_stop_waits_as_long_as_it_is_told_for_answers_to_be_read() {
    let name = "a".repeat(10_000);
    for (patience, is_whole) in [(PATIENCE, true), (Duration::ZERO, false)] {
        let stage = Stage::new(Settings { publish_timeout: PATIENCE, ..Settings::default() });
        // More than both sockets hold.
        for id in 0..1_500 {
            stage.tell(id, Some(&name), Step::Acknowledged { attempts: 1 });
        }
        let mut reader = stage.open("/v1/receipts?follow=false", LINES);
        let mut head = String::new();
        reader.read_line(&mut head).expect("a head");
        let stopping = std::thread::spawn(move || stage.control.stop_within(patience));
        if !is_whole {
            stopping.join().expect("no panic");
        }
        let steps = reader.lines().map_while(Result::ok).filter(|line| line.starts_with('{')).count();
        assert_eq!(steps == 1_500, is_whole, "{steps} within {patience:?}");
    }
}

/// It was whole and empty: whoever asked for what there was took that for an answer.
#[test]
fn a_listing_that_is_cut_says_so_and_where_it_goes_on() {
    let stage = Stage::new(Settings { connection_age_max: Duration::from_millis(1), ..Settings::default() });
    for _ in 0..5_000 {
        stage.tell(7, Some("a"), Step::Acknowledged { attempts: 1 });
    }
    let how = Ended::With(Outcome::Refused);
    stage.tell(7, Some("b"), Step::Over { how, reason_code: 131, attempts: 2 });
    let listing = "/v1/receipts?follow=false&level=dead";
    let in_lines = lines(&stage.get_as(listing, LINES));
    assert_eq!((in_lines.len(), texts(&in_lines, "reason")), (1, vec!["connection_age"]));
    // As events it has an id, from which the next one goes on: in the end it comes to the one that fits.
    let mut after = 0_u64;
    let mut cut = 0;
    loop {
        let answer = stage.get(&format!("{listing}&after={after}"));
        if answer.contains("event: dead") {
            break;
        }
        assert!(answer.contains("event: error"), "{answer}");
        let id = body(&answer).lines().find_map(|line| line.strip_prefix("id: ")).expect("where it goes on");
        let seen = id.parse().expect("a position");
        assert!(seen > after, "it comes no further than {after}");
        (after, cut) = (seen, cut + 1);
    }
    assert!(cut >= 1);
    stage.control.stop();
}

/// Who came from elsewhere heard of a token that does not exist.
#[test]
fn a_refusal_where_there_are_no_tokens_speaks_of_none() {
    let stage = Stage::new(Settings::default());
    for path in ["/v1/receipts?follow=false", "/v1/scheduled"] {
        let answer = stage.get_as(path, "Origin: http://x\r\n");
        assert!(answer.starts_with("HTTP/1.0 403 ") && answer.contains("without api.tokens_file"), "{answer}");
    }
    stage.control.stop();
}
