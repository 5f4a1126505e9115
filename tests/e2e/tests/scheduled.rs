//! What is to be published later, listed and taken back through the real server: by HTTP, gRPC and on the command line, and killed
//! in the middle.

#![allow(clippy::unwrap_used, reason = "a failed step of the test is a failed test")]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::{Command, Output};
use std::sync::mpsc;
use std::time::{SystemTime, UNIX_EPOCH};

use postroad_base::Qos;
use postroad_e2e::PATIENCE;
use postroad_e2e::daemon::{Daemon, binary, wait_until};
use postroad_e2e::http::{self, Answer};
use postroad_e2e::mqtt::{Client, Options};
use postroad_e2e::random::Random;
use postroad_proto::v1;
use postroad_proto::v1::clients_client::ClientsClient;
use postroad_proto::v1::scheduled_client::ScheduledClient;
use serde_json::{Value, json};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

const SMALL_LOG: [&str; 4] = ["shards=2", "log.segment_bytes=64KiB", "log.young_bytes=1MiB", "log.young_age=1s"];

fn unix_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

fn postroad(daemon: &Daemon, token: &str, arguments: &[&str]) -> Output {
    let api = format!("http://{}", daemon.http_address());
    let mut command = Command::new(binary());
    command.args(arguments).env("POSTROAD_API", api).env("POSTROAD_TOKEN", token).output().unwrap()
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn new_token(file: &str, arguments: &[&str]) -> String {
    let output = Command::new(binary()).args(["token", "--file", file]).args(arguments).output().unwrap();
    printed(&output).trim().to_owned()
}

fn ask(address: SocketAddr, token: &str, request: &str, body: &Value) -> std::io::Result<Answer> {
    let bearer = format!("Bearer {token}");
    let headers = [("Content-Type", "application/json"), ("Authorization", &bearer)];
    let body = if body.is_null() { String::new() } else { body.to_string() };
    http::request(address, request, &headers, body.as_bytes())
}

fn done(daemon: &Daemon, token: &str, request: &str, body: &Value) -> Value {
    let answer = ask(daemon.http_address(), token, request, body).unwrap();
    assert_eq!(answer.code, 200, "{request}: {answer:?}");
    serde_json::from_str(&answer.body).unwrap()
}

/// Its id.
fn put_off(daemon: &Daemon, token: &str, topic: &str, payload: &str, at: u64) -> String {
    let body = json!({"topic": topic, "payload": payload, "qos": 2, "wishes": {"deliver_at_unix_ms": at}});
    done(daemon, token, "POST /v1/messages", &body)["id"].as_str().unwrap().to_owned()
}

/// Payloads of what is listed, of all pages.
fn listed(daemon: &Daemon, token: &str, query: &str) -> Vec<String> {
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let page = done(daemon, token, &format!("GET /v1/scheduled?limit=2{query}{after}"), &Value::Null);
        let messages = page["messages"].as_array().unwrap();
        found.extend(messages.iter().map(|message| message["payload"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    found.sort();
    found
}

/// Each sees and takes back its own, who has the right `clients` all; by HTTP and on the command line, through a retirement and a
/// kill -9.
#[test]
fn whose_it_is_sees_it_and_takes_it_back() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens.toml");
    let file = file.to_str().unwrap();
    let operator = new_token(file, &["--right", "clients", "operator"]);
    let [shop, bank] = ["shop", "bank"].map(|name| new_token(file, &[name]));
    let tokens = format!("api.tokens_file={file}");
    let mut daemon = Daemon::start_with(&[&SMALL_LOG[..], &[&tokens]].concat());
    let later = unix_ms() + 3_600_000;
    let first = put_off(&daemon, &shop, "order/1", "one", later);
    put_off(&daemon, &shop, "order/2", "two", later + 60_000);
    let third = put_off(&daemon, &shop, "stock/1", "three", later);
    let foreign = put_off(&daemon, &bank, "order/3", "four", later);
    wait_until("what waits is stored", || daemon.metric("postroad_log_old_bytes", "") > 0.0);
    let fifth = put_off(&daemon, &shop, "order/4", "five", later);

    assert_eq!(listed(&daemon, &operator, ""), ["five", "four", "one", "three", "two"]);
    assert_eq!(listed(&daemon, &shop, ""), ["five", "one", "three", "two"]);
    assert_eq!(listed(&daemon, &shop, "&topic=order/%23"), ["five", "one", "two"]);
    assert_eq!(listed(&daemon, &shop, &format!("&from_unix_ms={}", later + 1)), ["two"]);
    assert_eq!(
        listed(&daemon, &operator, &format!("&user=shop&until_unix_ms={}", later + 1)),
        ["five", "one", "three"]
    );
    assert_eq!(listed(&daemon, &operator, "&client=shop"), Vec::<String>::new());
    let delete = |daemon: &Daemon, token: &str, id: &str| {
        let answer = ask(daemon.http_address(), token, &format!("DELETE /v1/scheduled/{id}"), &Value::Null).unwrap();
        let body: Value = serde_json::from_str(&answer.body).unwrap();
        (answer.code, body["reason"].as_str().unwrap_or("").to_owned())
    };
    assert_eq!(delete(&daemon, &shop, &foreign), (404, "gone".to_owned()));
    assert_eq!(delete(&daemon, &shop, "nonsense"), (400, "bad_request".to_owned()));
    assert_eq!(delete(&daemon, "prt_0", &first), (401, "unauthorized".to_owned()));
    let asked = ask(daemon.http_address(), &shop, "GET /v1/scheduled?user=bank", &Value::Null).unwrap();
    assert_eq!(asked.code, 403, "{asked:?}");
    assert_eq!(delete(&daemon, &shop, &first), (200, String::new()));
    assert_eq!(delete(&daemon, &shop, &first), (200, String::new()), "who had no answer asks again");
    assert_eq!(delete(&daemon, &operator, &foreign), (200, String::new()));
    let by_hand = printed(&postroad(&daemon, &shop, &["scheduled", "cancel", &fifth]));
    assert_eq!(by_hand, format!("{fifth}: cancelled\n"));

    daemon.kill();
    daemon.restart();
    assert_eq!(listed(&daemon, &operator, ""), ["three", "two"]);
    assert_eq!(delete(&daemon, &shop, &first), (404, "gone".to_owned()));
    let both = postroad(&daemon, &shop, &["scheduled", "cancel", &first, &third, "--json"]);
    assert_eq!(both.status.code(), Some(1), "{both:?}");
    let told: Value = serde_json::from_slice(&both.stdout).unwrap();
    assert_eq!(told, json!({"message_id": third, "cancelled": true}));
    let table = printed(&postroad(&daemon, &operator, &["scheduled", "list", "--due-before", "7200"]));
    let rows: Vec<&str> = table.lines().collect();
    assert!(rows.len() == 2 && rows[0].starts_with("MESSAGE") && rows[1].ends_with(" order/2"), "{table}");
    assert_eq!(printed(&postroad(&daemon, &shop, &["scheduled", "list", "--due-after", "7200"])), "");
    let stranger = postroad(&daemon, "", &["scheduled", "list"]);
    let said = String::from_utf8(stranger.stderr).unwrap();
    assert!(stranger.status.code() == Some(1) && said.contains("POSTROAD_TOKEN"), "{said}");
}

/// What became of the tries to take one back.
#[derive(Debug, Default)]
struct Tries {
    /// It was taken back, says the server.
    cancelled: bool,
    /// It was not, says the server, since it is being published.
    published: bool,
    /// There is no such message, says the server.
    gone: bool,
    /// The server was killed before it said anything.
    unknown: bool,
}

/// Takes them back, one after the other, until the server goes away: number, and what it said.
fn take_back(address: SocketAddr, ids: Vec<(usize, String)>, told: &mpsc::Sender<(usize, Option<u16>)>) {
    for (number, id) in ids {
        let answer = ask(address, "", &format!("DELETE /v1/scheduled/{id}"), &Value::Null);
        let code = answer.ok().map(|answer| answer.code);
        told.send((number, code)).unwrap();
        if code.is_none() {
            return;
        }
    }
}

/// Taken back while they become due and the server is killed, with other numbers of shards: each is either taken back or published
/// once, as the server said.
#[test]
fn it_is_taken_back_or_published_and_never_both() {
    let mut random = Random::seeded("cancel");
    let mut daemon = Daemon::start_with(&SMALL_LOG);
    let mut client = Client::connect(daemon.mqtt(), &Options::persistent("subscriber")).unwrap();
    client.subscribe("w/#", Qos::ExactlyOnce).unwrap();
    client.disconnect().unwrap();
    let start = unix_ms();
    let ids: Vec<String> = (0..600)
        .map(|number| {
            let at = start + 1_500 + random.below(5_000);
            put_off(&daemon, "", &format!("w/{number}"), &number.to_string(), at)
        })
        .collect();
    let mut tries: Vec<Tries> = ids.iter().map(|_| Tries::default()).collect();
    let mut shards = 2;
    for life in 0..6 {
        let some: Vec<(usize, String)> = (0..60)
            .map(|_| random.below(ids.len() as u64) as usize)
            .map(|number| (number, ids[number].clone()))
            .collect();
        let (tell, told) = mpsc::channel();
        let address = daemon.http_address();
        let thread = std::thread::spawn(move || take_back(address, some, &tell));
        let enough = 20 + random.below(40);
        let mut heard: Vec<_> = (0..enough).filter_map(|_| told.recv_timeout(PATIENCE).ok()).collect();
        if life < 5 {
            daemon.kill();
            shards = (shards + random.below(3)) % 4 + 1;
            daemon.set(&format!("shards={shards}"));
            daemon.restart();
        }
        thread.join().unwrap();
        heard.extend(told.try_iter());
        for (number, code) in heard {
            match code {
                Some(200) => tries[number].cancelled = true,
                Some(409) => tries[number].published = true,
                Some(404) => tries[number].gone = true,
                Some(503 | 504) | None => tries[number].unknown = true,
                Some(other) => panic!("{other} for {number}"),
            }
        }
    }
    // The first counts none of those that are due and on their way.
    let scheduled = ["postroad_scheduled_messages", "postroad_scheduled_under_way_messages"];
    wait_until("all are due", || scheduled.iter().all(|name| daemon.metric(name, "") == 0.0));
    let mut other = Client::connect(daemon.mqtt(), &Options::transient("other")).unwrap();
    other.publish("w/end", b"end", Qos::AtLeastOnce, false).unwrap();
    let mut client = Client::connect(daemon.mqtt(), &Options::persistent("subscriber")).unwrap();
    let mut came: BTreeMap<String, usize> = BTreeMap::new();
    loop {
        let payload = String::from_utf8(client.next_message().unwrap().payload).unwrap();
        if payload == "end" {
            break;
        }
        *came.entry(payload).or_default() += 1;
    }
    for (number, tried) in tries.iter().enumerate() {
        let count = came.get(&number.to_string()).copied().unwrap_or(0);
        let is_so = match tried {
            Tries { cancelled: true, published: true, .. } => false,
            Tries { cancelled: true, .. } => count == 0,
            Tries { unknown: true, published: false, .. } => count <= 1,
            _ => count == 1,
        };
        assert!(is_so, "{number}: {tried:?}, and it came {count} times");
    }
    let (cancelled, gone) = (tries.iter().filter(|t| t.cancelled).count(), tries.iter().filter(|t| t.gone).count());
    assert!(cancelled > 20, "{cancelled} were taken back, {gone} were gone");
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE * 4, test).await.unwrap() })
}

async fn channel(daemon: &Daemon) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{}", daemon.grpc_address())).unwrap();
    endpoint.connect_timeout(PATIENCE).connect().await.unwrap()
}

fn with_token<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

/// The same by gRPC, with its rights.
#[test]
fn by_grpc_it_is_listed_and_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens.toml");
    let file = file.to_str().unwrap();
    let operator = new_token(file, &["--right", "clients", "operator"]);
    let [shop, bank] = ["shop", "bank"].map(|name| new_token(file, &[name]));
    let tracer = new_token(file, &["--right", "trace", "tracer"]);
    let tokens = format!("api.tokens_file={file}");
    let daemon = Daemon::start_with(&["listen.grpc=127.0.0.1:0", "shards=2", &tokens]);
    let later = unix_ms() + 3_600_000;
    let first = put_off(&daemon, &shop, "order/1", "one", later);
    let second = put_off(&daemon, &shop, "order/2", "two", later);
    run(async {
        let mut scheduled = ScheduledClient::new(channel(&daemon).await);
        let list = v1::ListScheduledRequest { page_size: 1, ..v1::ListScheduledRequest::default() };
        let (mut found, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = v1::ListScheduledRequest { page_token, ..list.clone() };
            let page = scheduled.list(with_token(&operator, request)).await.unwrap().into_inner();
            found.extend(page.messages);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        found.sort_by(|a, b| a.message_id.cmp(&b.message_id));
        let ids: Vec<&str> = found.iter().map(|message| &*message.message_id).collect();
        let mut expected = [&*first, &*second];
        expected.sort_unstable();
        assert_eq!(ids, expected);
        assert!(found.iter().all(|m| m.user.as_deref() == Some("shop") && m.deliver_at_unix_ms == later), "{found:?}");
        let nothing = scheduled.list(with_token(&bank, list.clone())).await.unwrap().into_inner();
        assert!(nothing.messages.is_empty(), "{nothing:?}");
        let refused = scheduled.list(with_token(&tracer, list)).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");

        let cancel = |id: &str| v1::CancelScheduledRequest { message_id: id.to_owned() };
        let refused = scheduled.cancel(with_token(&bank, cancel(&first))).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound, "{refused:?}");
        scheduled.cancel(with_token(&shop, cancel(&first))).await.unwrap();
        scheduled.cancel(with_token(&operator, cancel(&second))).await.unwrap();
        let wrong = scheduled.cancel(with_token(&operator, cancel("x"))).await.unwrap_err();
        assert_eq!(wrong.code(), Code::InvalidArgument, "{wrong:?}");
    });
    assert_eq!(listed(&daemon, &operator, ""), Vec::<String>::new());
    assert_eq!(daemon.metric("postroad_deliveries_ended_total", "outcome=\"cancelled\""), 2.0);
}

/// What waits for a device is shown and acknowledged by gRPC and on the command line as by HTTP.
#[test]
fn what_waits_for_a_client_is_shown_and_acknowledged() {
    let daemon = Daemon::start_with(&["listen.grpc=127.0.0.1:0", "shards=2"]);
    let mut car = Client::connect(daemon.mqtt(), &Options::persistent("car")).unwrap();
    car.subscribe("c/#", Qos::AtLeastOnce).unwrap();
    car.disconnect().unwrap();
    let mut other = Client::connect(daemon.mqtt(), &Options::transient("other")).unwrap();
    for number in 0..4 {
        other.publish(&format!("c/{number}"), b"x", Qos::AtLeastOnce, false).unwrap();
    }
    let ids = run(async {
        let mut clients = ClientsClient::new(channel(&daemon).await);
        let ask = |client: &str, page_token: String| v1::ListPendingRequest {
            client: client.to_owned(),
            page_size: 3,
            page_token,
        };
        let first = clients.list_pending(ask("car", String::new())).await.unwrap().into_inner();
        let rest = clients.list_pending(ask("car", first.next_page_token)).await.unwrap().into_inner();
        let all: Vec<v1::PendingDelivery> = first.deliveries.into_iter().chain(rest.deliveries).collect();
        let topics: Vec<String> = all.iter().map(|pending| pending.message.clone().unwrap().topic).collect();
        assert_eq!(topics, ["c/0", "c/1", "c/2", "c/3"]);
        assert!(all.iter().all(|pending| !pending.is_push && !pending.is_in_flight), "{all:?}");
        let unknown = clients.list_pending(ask("nobody", String::new())).await.unwrap_err();
        assert_eq!(unknown.code(), Code::NotFound, "{unknown:?}");

        let ids: Vec<String> = all.into_iter().map(|pending| pending.id).collect();
        let done = |client: &str, deliveries: &[&str]| v1::AcknowledgePendingRequest {
            client: client.to_owned(),
            deliveries: deliveries.iter().map(ToString::to_string).collect(),
        };
        let answer = clients.acknowledge_pending(done("car", &[&ids[0], "0-0-1"])).await.unwrap().into_inner();
        assert_eq!((answer.acknowledged, answer.gone), (vec![ids[0].clone()], vec!["0-0-1".to_owned()]));
        let none = clients.acknowledge_pending(done("car", &[])).await.unwrap_err();
        assert_eq!(none.code(), Code::InvalidArgument, "{none:?}");
        let connected = clients.acknowledge_pending(done("other", &[&ids[0]])).await.unwrap_err();
        assert_eq!(connected.code(), Code::FailedPrecondition, "{connected:?}");
        ids
    });
    let table = printed(&postroad(&daemon, "", &["client", "pending", "car"]));
    let rows: Vec<&str> = table.lines().collect();
    assert!(rows.len() == 4 && rows[0].starts_with("DELIVERY") && rows[1].ends_with(" c/1"), "{table}");
    let acknowledged = printed(&postroad(&daemon, "", &["client", "acknowledge", "car", &ids[1]]));
    assert_eq!(acknowledged, format!("{}: acknowledged\n", ids[1]));
    let gone = postroad(&daemon, "", &["client", "acknowledge", "car", &ids[2], &ids[1], "--json"]);
    let told: Value = serde_json::from_slice(&gone.stdout).unwrap();
    assert_eq!((gone.status.code(), told), (Some(1), json!({"acknowledged": [ids[2]], "gone": [ids[1]]})));
    let mut car = Client::connect(daemon.mqtt(), &Options::persistent("car")).unwrap();
    assert_eq!(car.next_message().unwrap().topic, "c/3");
}
