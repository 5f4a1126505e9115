//! The API by gRPC, against the real binary: publishing, who may, and what happens when things go wrong [XCH-1], [REL-1].
//! What a shard must be made to do for it is in control/tests/grpc.rs.

#![allow(clippy::unwrap_used, reason = "a failed step of the test is a failed test")]

use std::collections::HashSet;
use std::fs;
use std::future::Future;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use futures_util::stream;
use postroad_base::Qos;
use postroad_e2e::PATIENCE;
use postroad_e2e::daemon::{Daemon, binary, wait_until};
use postroad_e2e::mqtt::{Client, Options};
use postroad_e2e::tools::python;
use postroad_proto::v1;
use postroad_proto::v1::clients_client::ClientsClient;
use postroad_proto::v1::dead_letters_client::DeadLettersClient;
use postroad_proto::v1::message::Content;
use postroad_proto::v1::messages_client::MessagesClient;
use postroad_proto::v1::publish_result::Outcome;
use postroad_proto::v1::topics_client::TopicsClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

const LISTEN: &str = "listen.grpc=127.0.0.1:0";

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE * 4, test).await.unwrap() })
}

async fn channel(daemon: &Daemon) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", daemon.grpc_address())).unwrap();
    endpoint.connect_timeout(PATIENCE).connect().await.unwrap()
}

fn subscriber(daemon: &Daemon, filter: &str) -> Client {
    let mut client = Client::connect(daemon.mqtt(), &Options::persistent("subscriber")).unwrap();
    client.subscribe(filter, Qos::AtLeastOnce).unwrap();
    client
}

fn message(topic: &str, text: impl ToString) -> v1::Message {
    let content = Some(Content::PayloadText(text.to_string()));
    v1::Message { topic: topic.to_owned(), content, ..v1::Message::default() }
}

fn request(message: v1::Message) -> v1::PublishRequest {
    v1::PublishRequest { message: Some(message) }
}

fn reason(status: &Status) -> (Code, String) {
    let info = status.get_details_error_info().unwrap_or_else(|| panic!("no reason in {status:?}"));
    (status.code(), info.reason)
}

/// Topics and payloads up to the message whose payload is `end`.
fn received(client: &mut Client) -> Vec<(String, String)> {
    let mut received = Vec::new();
    loop {
        let message = client.next_message().unwrap();
        let payload = String::from_utf8(message.payload).unwrap();
        if payload == "end" {
            return received;
        }
        received.push((message.topic, payload));
    }
}

fn publish_end(daemon: &Daemon, topic: &str) {
    run(async {
        let mut messages = MessagesClient::new(channel(daemon).await);
        messages.publish(request(message(topic, "end"))).await.unwrap();
    });
}

/// A client that we did not write, and that knows of us what reflection says; what it publishes reaches a subscriber by MQTT.
#[test]
fn grpcio() {
    let daemon = Daemon::start_with(&[LISTEN]);
    let mut client = Client::connect(daemon.mqtt(), &Options::persistent("subscriber")).unwrap();
    client.subscribe("g/#", Qos::ExactlyOnce).unwrap();
    let reader = std::thread::spawn(move || {
        let mut received = Vec::new();
        while received.last().is_none_or(|(topic, _)| topic != "g/end") {
            let message = client.next_message().unwrap();
            received.push((message.topic, message.payload));
        }
        received
    });
    let output = python("grpcio_suite.py", daemon.grpc_address());
    assert!(output.trim_end().ends_with("all passed"), "{output}");
    let received = reader.join().unwrap();
    let of = |wanted: &str| -> Vec<Vec<u8>> {
        received.iter().filter(|(topic, _)| topic == wanted).map(|(_, payload)| payload.clone()).collect()
    };
    assert_eq!((of("g/1"), of("g/2")), (vec![vec![0, 255]], vec![b"unsaid".to_vec()]));
    assert_eq!(
        (of("g/3").len(), of("g/4").len(), of("g/5"), of("g/6")),
        (1, 1, vec![b"all".to_vec()], vec![b"all".to_vec()])
    );
    let expected: Vec<Vec<u8>> = (0..300).flat_map(|n| (0..10).map(move |m| format!("{n}/{m}").into_bytes())).collect();
    assert_eq!(of("g/s"), expected, "a stream keeps its order");
    assert!(daemon.metric("postroad_grpc_requests_total", "") >= 10.0);
}

/// Publishes numbers in a stream, ten to a request, as fast as they are taken, until the stream ends. Gives the first number that
/// may be published without its answer having come, and the first that was not sent.
async fn publish_numbers(
    daemon_channel: Channel,
    topic: &'static str,
    first: u64,
    answered: flume::Sender<u64>,
) -> (u64, u64, Status) {
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(first));
    let next = std::sync::Arc::clone(&sent);
    let requests = stream::unfold((), move |()| {
        let number = next.fetch_add(10, std::sync::atomic::Ordering::Relaxed);
        let messages = (number..number + 10).map(|number| message(topic, number)).collect();
        std::future::ready(Some((v1::PublishStreamRequest { number, messages }, ())))
    });
    let mut messages = MessagesClient::new(daemon_channel);
    let mut answers = messages.publish_stream(requests).await.unwrap().into_inner();
    let (mut expected, mut all_published) = (first, true);
    let status = loop {
        match answers.message().await {
            Ok(Some(answer)) => {
                let published = |result: &v1::PublishResult| matches!(result.outcome, Some(Outcome::Published(_)));
                all_published &= answer.results.iter().all(published);
                if all_published {
                    assert_eq!(answer.number, expected, "answers come in order");
                    expected += 10;
                    let _stopped_listening = answered.send(expected);
                }
            }
            Ok(None) => break Status::ok(""),
            Err(status) => break status,
        }
    };
    (expected, sent.load(std::sync::atomic::Ordering::Relaxed), status)
}

/// Each number that was answered is there once and in order; one that was not may be, if it was sent.
fn check(received: &[(String, String)], answered: &[std::ops::Range<u64>], sent: &[std::ops::Range<u64>]) {
    let numbers: Vec<u64> = received.iter().map(|(_, payload)| payload.parse().unwrap()).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "twice or out of order: {numbers:?}");
    let there: HashSet<u64> = numbers.iter().copied().collect();
    let lost: Vec<u64> = answered.iter().cloned().flatten().filter(|number| !there.contains(number)).collect();
    assert!(lost.is_empty(), "answered and lost: {lost:?}");
    let made_up: Vec<&u64> = numbers.iter().filter(|number| !sent.iter().any(|sent| sent.contains(number))).collect();
    assert!(made_up.is_empty(), "never sent: {made_up:?}");
}

/// Killed again and again while a stream goes on: what was answered is delivered, once and in order.
#[test]
fn a_stream_survives_kill_9() {
    let mut daemon = Daemon::start_with(&[LISTEN, "shards=2", "queue.messages_max=1000000"]);
    subscriber(&daemon, "storm/#").disconnect().unwrap();
    let (mut first, mut answered, mut sent) = (0, Vec::new(), Vec::new());
    for round in 0..6 {
        let (tell, told) = flume::unbounded();
        let (end, address) = (first, daemon.grpc_address());
        let publisher = std::thread::spawn(move || {
            run(async move {
                let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
                publish_numbers(endpoint.connect().await.unwrap(), "storm/x", end, tell).await
            })
        });
        told.iter().find(|answered| *answered >= first + 200 + 170 * round).unwrap();
        daemon.kill();
        let (known, next, status) = publisher.join().unwrap();
        assert_ne!(status.code(), Code::Ok, "a kill is no good end");
        answered.push(first..known);
        sent.push(first..next + 10);
        first = next + 10;
        daemon.restart();
    }
    let mut client = Client::connect(daemon.mqtt(), &Options::persistent("subscriber")).unwrap();
    publish_end(&daemon, "storm/x");
    check(&received(&mut client), &answered, &sent);
}

/// Asked to stop while a stream goes on: the stream is told, the server ends well, and what was answered is there.
#[test]
fn a_stream_ends_in_order_when_the_server_stops() {
    let mut daemon = Daemon::start_with(&[LISTEN, "queue.messages_max=1000000"]);
    subscriber(&daemon, "stop").disconnect().unwrap();
    let (tell, told) = flume::unbounded();
    let address = daemon.grpc_address();
    let publisher = std::thread::spawn(move || {
        run(async move {
            let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
            publish_numbers(endpoint.connect().await.unwrap(), "stop", 0, tell).await
        })
    });
    told.iter().find(|answered| *answered >= 500).unwrap();
    assert!(daemon.terminate().success());
    let (known, next, status) = publisher.join().unwrap();
    assert_eq!(reason(&status), (Code::Unavailable, "busy".to_owned()));
    daemon.restart();
    let mut client = Client::connect(daemon.mqtt(), &Options::persistent("subscriber")).unwrap();
    publish_end(&daemon, "stop");
    check(&received(&mut client), std::slice::from_ref(&(0..known)), std::slice::from_ref(&(0..next + 10)));
}

const RULES: &str = r#"
[[rule]]
principal = "user:billing"
action = "publish"
topic = "bills/#"
effect = "allow"

[[rule]]
principal = "*"
action = ["connect", "subscribe"]
effect = "allow"
"#;

fn new_token(arguments: &[&str]) -> String {
    let output = Command::new(binary()).arg("token").args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn with_token<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    if !token.is_empty() {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    request
}

/// The same tokens, rights and rules as over HTTP; status and health are for everybody.
#[test]
fn tokens_say_who_may_what() {
    let folder = tempfile::tempdir().unwrap();
    let [tokens, rules] = ["tokens.toml", "acl.toml"].map(|name| folder.path().join(name));
    let file = tokens.to_str().unwrap();
    let billing = new_token(&["--file", file, "billing"]);
    let watcher = new_token(&["--file", file, "--right", "clients", "watcher"]);
    fs::write(&rules, RULES).unwrap();
    let settings = [LISTEN, &format!("api.tokens_file={file}"), &format!("acl.file={}", rules.display())];
    let daemon = Daemon::start_with(&settings);
    run(async {
        let channel = channel(&daemon).await;
        let mut messages = MessagesClient::new(channel.clone());
        let mut clients = ClientsClient::new(channel.clone());
        let bill = |topic: &str| request(message(topic, "x"));
        messages.publish(with_token(&billing, bill("bills/1"))).await.unwrap();
        let cases = [
            (billing.as_str(), "secrets", Code::PermissionDenied, "not_authorized"),
            (&watcher, "bills/1", Code::PermissionDenied, "forbidden"),
            ("prt_00000000000000000000000000000000", "bills/1", Code::Unauthenticated, "unauthorized"),
            ("", "bills/1", Code::Unauthenticated, "unauthorized"),
        ];
        for (token, topic, code, expected) in cases {
            let said = messages.publish(with_token(token, bill(topic))).await.unwrap_err();
            assert_eq!(reason(&said), (code, expected.to_owned()), "{topic}");
        }
        let said = messages.publish_stream(with_token(&watcher, stream::pending())).await.unwrap_err();
        assert_eq!(reason(&said), (Code::PermissionDenied, "forbidden".to_owned()));
        // In a stream each message is judged by itself.
        let parts =
            v1::PublishStreamRequest { number: 1, messages: vec![message("bills/1", ""), message("secrets", "")] };
        let mut answers =
            messages.publish_stream(with_token(&billing, stream::iter([parts]))).await.unwrap().into_inner();
        let results = answers.message().await.unwrap().unwrap().results;
        let Some(Outcome::Error(error)) = &results[1].outcome else { panic!("{results:?}") };
        assert!(matches!(results[0].outcome, Some(Outcome::Published(_))), "{results:?}");
        assert_eq!((error.code, error.reason.as_str()), (Code::PermissionDenied as i32, "not_authorized"));

        let list = v1::ListClientsRequest::default;
        let said = clients.list(with_token(&billing, list())).await.unwrap_err();
        assert_eq!(reason(&said), (Code::PermissionDenied, "forbidden".to_owned()));
        assert_eq!(clients.list(with_token(&watcher, list())).await.unwrap().into_inner().clients, []);
        let mut admin = v1::admin_client::AdminClient::new(channel);
        let status = admin.get_status(v1::GetStatusRequest {}).await.unwrap().into_inner();
        assert_eq!(status.phase(), v1::Phase::Serving);
        // Taken away, it is refused from the reload on.
        new_token(&["--file", file, "--delete", "billing"]);
        daemon.reload();
        let said = messages.publish(with_token(&billing, bill("bills/1"))).await.unwrap_err();
        assert_eq!(reason(&said), (Code::Unauthenticated, "unauthorized".to_owned()));
    });
}

/// Every client once, over pages of any size; the largest backlogs; a kick.
#[test]
fn clients_are_seen_and_kicked() {
    let daemon = Daemon::start_with(&[LISTEN, "shards=2"]);
    let names: Vec<String> = (0..20).map(|number| format!("away/{number:02}")).collect();
    for (number, name) in names.iter().enumerate() {
        let mut client = Client::connect(daemon.mqtt(), &Options::persistent(name)).unwrap();
        client.subscribe(&format!("w/{number}"), Qos::AtLeastOnce).unwrap();
        client.disconnect().unwrap();
    }
    let _here = subscriber(&daemon, "t");
    run(async {
        let channel = channel(&daemon).await;
        let mut messages = MessagesClient::new(channel.clone());
        for number in 0..names.len() {
            let messages_of = vec![message(&format!("w/{number}"), "1234"); number];
            let many = v1::PublishManyRequest { messages: messages_of, topics: Vec::new() };
            messages.publish_many(many).await.unwrap();
        }
        let mut clients = ClientsClient::new(channel);
        let filter = Some(v1::ClientFilter { connected: Some(false), ..v1::ClientFilter::default() });
        for page_size in [1, 7, 1_000] {
            let (mut found, mut page_token) = (Vec::new(), String::new());
            loop {
                let page = v1::ListClientsRequest { filter: filter.clone(), page_size, page_token };
                let page = clients.list(page).await.unwrap().into_inner();
                assert!(page.clients.len() <= page_size as usize);
                found.extend(page.clients.into_iter().map(|client| client.client));
                page_token = page.next_page_token;
                if page_token.is_empty() {
                    break;
                }
            }
            found.sort();
            assert_eq!(found, names, "pages of {page_size}");
        }
        let top = clients.top(v1::TopClientsRequest { filter: None, limit: 2 }).await.unwrap().into_inner();
        let top: Vec<(&str, u64)> = top.clients.iter().map(|client| (client.client.as_str(), client.backlog)).collect();
        assert_eq!(top, [("away/19", 19), ("away/18", 18)]);
        let one = clients.get(v1::GetClientRequest { client: "away/07".into() }).await.unwrap().into_inner();
        assert_eq!((one.connected, one.session.unwrap().queue.unwrap().waiting), (false, 7));
        let client = || "subscriber".to_owned();
        let before = clients.get(v1::GetClientRequest { client: client() }).await.unwrap().into_inner();
        assert!(before.connected && before.address.unwrap().starts_with("127."));
        let after = clients.disconnect(v1::DisconnectClientRequest { client: client() }).await.unwrap().into_inner();
        assert_eq!((after.connected, after.session.unwrap().subscriptions), (false, 1));
        let wrong = v1::ListClientsRequest { page_token: "x".into(), ..v1::ListClientsRequest::default() };
        let said = clients.list(wrong).await.unwrap_err();
        assert_eq!(reason(&said), (Code::InvalidArgument, "bad_request".to_owned()));
        let said = clients.get(v1::GetClientRequest { client: "nobody".into() }).await.unwrap_err();
        assert_eq!(reason(&said), (Code::NotFound, "unknown_client".to_owned()));
    });
}

fn dead_letter(topic: &str, payload: &[u8]) -> v1::DeadLetter {
    v1::DeadLetter {
        topic: topic.to_owned(),
        payload: payload.to_vec(),
        qos: 1,
        client: "nobody".to_owned(),
        reason: "refused".to_owned(),
        reason_code: 131,
        died_unix_ms: 5,
        properties: vec![v1::Property { name: "k".into(), value: "v".into() }],
        ..v1::DeadLetter::default()
    }
}

/// Letters by gRPC: kept, found, leased, parked, sent again to a topic, dropped, exported, and followed.
#[test]
fn letters_are_worked_on() {
    let daemon = Daemon::start_with(&[LISTEN, "shards=2"]);
    let mut repairer = subscriber(&daemon, "repair");
    run(async {
        let mut letters = DeadLettersClient::new(channel(&daemon).await);
        let follow = v1::FollowLettersRequest::default();
        let mut followed = letters.follow(follow).await.unwrap().into_inner();
        let begun = followed.message().await.unwrap().unwrap();
        assert_eq!(begun, v1::FollowLettersResponse { letter: None, seen: "-".into() });
        let mut ids = Vec::new();
        for number in 0..250_u32 {
            let letter = Some(dead_letter(&format!("t/{number}"), &[0xFF, number as u8]));
            ids.push(letters.import(v1::ImportLetterRequest { letter }).await.unwrap().into_inner().id);
        }
        for id in &ids {
            let heard = followed.message().await.unwrap().unwrap();
            let letter = heard.letter.unwrap();
            assert_eq!((&letter.id, letter.payload[0], letter.properties[0].name.as_str()), (id, 0xFF, "k"));
        }
        let filter = |topic: &str| Some(v1::LetterFilter { topic: Some(topic.into()), ..v1::LetterFilter::default() });
        let mut export = letters.export(v1::ExportLettersRequest { filter: None }).await.unwrap().into_inner();
        let mut exported = Vec::new();
        while let Some(letter) = export.message().await.unwrap() {
            exported.push(letter.id);
        }
        exported.sort();
        let mut sorted = ids.clone();
        sorted.sort();
        assert_eq!(exported, sorted);
        let (mut listed, mut page_token) = (Vec::new(), String::new());
        loop {
            let page = v1::ListLettersRequest { filter: None, page_size: 60, page_token };
            let page = letters.list(page).await.unwrap().into_inner();
            listed.extend(page.letters.into_iter().map(|letter| letter.id));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        listed.sort();
        assert_eq!(listed, sorted);
        let lease = |topic: &str| v1::LeaseLettersRequest { filter: filter(topic), limit: 1, seconds: 600 };
        let leased = letters.lease(lease("t/7")).await.unwrap().into_inner().letters.remove(0);
        let id = || leased.id.clone();
        assert!(letters.lease(lease("t/7")).await.unwrap().into_inner().letters.is_empty(), "somebody has it");
        letters.release(v1::ReleaseLetterRequest { id: id() }).await.unwrap();
        letters.park(v1::ParkLetterRequest { id: id(), note: "odd".into() }).await.unwrap();
        assert!(letters.lease(lease("t/7")).await.unwrap().into_inner().letters.is_empty(), "it waits for a human");
        let shown = letters.get(v1::GetLetterRequest { id: id() }).await.unwrap().into_inner();
        assert_eq!(shown.parked.unwrap().note, "odd");
        letters.unpark(v1::UnparkLetterRequest { id: id() }).await.unwrap();
        let again = |topic: Option<&str>| v1::RequeueLetterRequest {
            id: id(),
            topic: topic.map(str::to_owned),
            payload: Some(b"mended".to_vec()),
            ttl_seconds: None,
        };
        let said = letters.requeue(again(None)).await.unwrap_err();
        assert_eq!(reason(&said), (Code::FailedPrecondition, "no_client".to_owned()));
        let message_id = letters.requeue(again(Some("repair"))).await.unwrap().into_inner().message_id;
        assert_eq!((message_id.len(), &repairer.next_message().unwrap().payload[..]), (32, &b"mended"[..]));
        letters.drop(v1::DropLetterRequest { id: ids[8].clone() }).await.unwrap();
        for gone in [id(), ids[8].clone()] {
            let said = letters.get(v1::GetLetterRequest { id: gone }).await.unwrap_err();
            assert_eq!(reason(&said), (Code::NotFound, "gone".to_owned()));
        }
        for letter in [None, Some(dead_letter("t/#", b"")), Some(v1::DeadLetter { qos: 0, ..dead_letter("t", b"") })] {
            let said = letters.import(v1::ImportLetterRequest { letter }).await.unwrap_err();
            assert_eq!(reason(&said), (Code::InvalidArgument, "bad_request".to_owned()));
        }
        let behind = Some(v1::follow_letters_request::From::Behind("yesterday".into()));
        let said = letters.follow(v1::FollowLettersRequest { from: behind, ..follow_all() }).await.unwrap_err();
        assert_eq!(reason(&said), (Code::InvalidArgument, "bad_request".to_owned()));
    });
}

fn follow_all() -> v1::FollowLettersRequest {
    let from = Some(v1::follow_letters_request::From::Oldest(true));
    v1::FollowLettersRequest { from, ..v1::FollowLettersRequest::default() }
}

/// Without the right nobody sees a letter; and who has it may not publish one elsewhere by it.
#[test]
fn letters_need_their_right() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens.toml");
    let file = tokens.to_str().unwrap();
    let publisher = new_token(&["--file", file, "billing"]);
    let keeper = new_token(&["--file", file, "--right", "dead_letters", "keeper"]);
    let daemon = Daemon::start_with(&[LISTEN, &format!("api.tokens_file={file}")]);
    run(async {
        let mut letters = DeadLettersClient::new(channel(&daemon).await);
        let forbidden = (Code::PermissionDenied, "forbidden".to_owned());
        let list = v1::ListLettersRequest::default();
        let said = letters.list(with_token(&publisher, list.clone())).await.unwrap_err();
        assert_eq!(reason(&said), forbidden);
        let said = letters.follow(with_token(&publisher, follow_all())).await.unwrap_err();
        assert_eq!(reason(&said), forbidden);
        let said = letters.export(with_token(&publisher, v1::ExportLettersRequest::default())).await.unwrap_err();
        assert_eq!(reason(&said), forbidden);
        letters.list(with_token(&keeper, list)).await.unwrap();
        let letter = Some(dead_letter("t", b"x"));
        let import = with_token(&keeper, v1::ImportLetterRequest { letter });
        let id = letters.import(import).await.unwrap().into_inner().id;
        let topic = Some("elsewhere".to_owned());
        let again = v1::RequeueLetterRequest { id, topic, payload: None, ttl_seconds: None };
        let said = letters.requeue(with_token(&keeper, again)).await.unwrap_err();
        assert_eq!(reason(&said), forbidden);
    });
}

/// By gRPC as by HTTP: clients registered, forgotten and drained, subscriptions, topics, figures, a reload and a stop.
#[test]
fn operators_have_by_grpc_what_they_have_by_http() {
    let mut daemon = Daemon::start_with(&[LISTEN, "shards=2"]);
    let _here = subscriber(&daemon, "s/+");
    run(async {
        let channel = channel(&daemon).await;
        let mut clients = ClientsClient::new(channel.clone());
        let name = || "truck".to_owned();
        let register =
            v1::RegisterClientRequest { client: name(), user: Some("anna".into()), groups: vec!["g".into()] };
        let known = clients.register(register.clone()).await.unwrap().into_inner();
        assert_eq!((known.registration.unwrap().by.as_str(), known.user.as_deref()), ("api", Some("anna")));
        let drained = clients.drain(v1::DrainClientRequest { client: name() }).await.unwrap().into_inner();
        assert!(!drained.connected);
        clients.unregister(v1::UnregisterClientRequest { client: name() }).await.unwrap();
        let said = clients.unregister(v1::UnregisterClientRequest { client: name() }).await.unwrap_err();
        assert_eq!(reason(&said), (Code::NotFound, "unknown_client".to_owned()));
        let wrong = v1::RegisterClientRequest { user: Some("a/b".into()), ..register };
        assert_eq!(reason(&clients.register(wrong).await.unwrap_err()).0, Code::InvalidArgument);
        let mut messages = MessagesClient::new(channel.clone());
        let retained = v1::Message { retain: true, ..message("kept", "x") };
        messages.publish(request(retained)).await.unwrap();
        let mut topics = TopicsClient::new(channel.clone());
        let listed = topics.list_retained(v1::ListRetainedRequest::default()).await.unwrap().into_inner();
        assert_eq!((listed.topics[0].topic.as_str(), listed.topics[0].bytes), ("kept", 7));
        let of_topic = v1::ListSubscriptionsRequest { topic: Some("s/1".into()), ..Default::default() };
        let listed = topics.list_subscriptions(of_topic).await.unwrap().into_inner();
        assert_eq!((listed.subscriptions.len(), listed.subscriptions[0].filter.as_str()), (1, "s/+"));
        let mut admin = v1::admin_client::AdminClient::new(channel);
        let figures = admin.get_metrics(v1::GetMetricsRequest {}).await.unwrap().into_inner().text;
        assert!(figures.contains("postroad_connections"), "{figures}");
        let reloaded = admin.reload(v1::ReloadRequest {}).await.unwrap().into_inner();
        assert_eq!(reloaded, v1::ReloadResponse::default(), "nothing had changed");
        admin.drain(v1::DrainRequest {}).await.unwrap();
    });
    assert!(daemon.wait_for_end().success());
}

/// Streams are open when the server is asked to stop: each is told why, with a reason, and the server ends well.
#[test]
fn all_streams_are_told_when_the_server_stops() {
    let mut daemon = Daemon::start_with(&[LISTEN]);
    let address = daemon.grpc_address();
    let (ready, is_ready) = flume::bounded(1);
    let caller = std::thread::spawn(move || {
        run(async move {
            let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
            let channel = endpoint.connect().await.unwrap();
            let mut letters = DeadLettersClient::new(channel.clone());
            let mut followed = letters.follow(follow_all()).await.unwrap().into_inner();
            followed.message().await.unwrap().unwrap();
            let mut health = HealthClient::new(channel);
            let asked = HealthCheckRequest { service: "postroad.v1.DeadLetters".into() };
            let mut watch = health.watch(asked).await.unwrap().into_inner();
            watch.message().await.unwrap().unwrap();
            ready.send(()).unwrap();
            let followed = followed.message().await.unwrap_err();
            let watched = loop {
                match watch.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("it has no end of its own"),
                    Err(status) => break status,
                }
            };
            (followed, watched)
        })
    });
    is_ready.recv().unwrap();
    assert!(daemon.terminate().success());
    let (followed, watched) = caller.join().unwrap();
    assert_eq!(reason(&followed), (Code::Unavailable, "busy".to_owned()));
    assert_eq!(reason(&watched), (Code::Unavailable, "busy".to_owned()));
}

/// A full queue, a full disk, garbage on the port: a clear answer, and nothing else suffers.
#[test]
fn what_can_t_be_is_said() {
    let mut daemon = Daemon::prepared(&[LISTEN, "shards=1", "queue.messages_max=2"]);
    daemon.configure("[storage]\nfree_bytes_min = \"0B\"\n");
    daemon.restart();
    subscriber(&daemon, "q").disconnect().unwrap();
    let mut garbage = TcpStream::connect(daemon.grpc_address()).unwrap();
    garbage.write_all(&[0xFF; 2_000]).unwrap();
    drop(garbage.read_to_end(&mut Vec::new()));
    let publish =
        || run(async { MessagesClient::new(channel(&daemon).await).publish(request(message("q", "x"))).await });
    for _ in 0..2 {
        publish().unwrap();
    }
    let pressure = (Code::ResourceExhausted, "quota_exceeded".to_owned());
    assert_eq!(reason(&publish().unwrap_err()), pressure);
    let mut client = Client::connect(daemon.mqtt(), &Options::persistent("subscriber")).unwrap();
    let _taken = [client.next_message().unwrap(), client.next_message().unwrap()];
    client.disconnect().unwrap();
    wait_until("there is room again", || publish().is_ok());
    daemon.configure("[storage]\nfree_bytes_min = \"1024GiB\"\n"); // more than is free
    daemon.reload();
    wait_until("publishes are refused", || publish().is_err_and(|status| reason(&status) == pressure));
    let many = run(async {
        let request = v1::PublishManyRequest { messages: vec![message("q", "x")], topics: Vec::new() };
        MessagesClient::new(channel(&daemon).await).publish_many(request).await.unwrap().into_inner()
    });
    let Some(Outcome::Error(error)) = &many.results[0].outcome else { panic!("{many:?}") };
    assert_eq!((error.code, error.reason.as_str()), (Code::ResourceExhausted as i32, "quota_exceeded"));
}
