//! grpcurl against the real binary: a client that we did not write and that has no file of ours, as people use it by hand.
//! Each service is met by what the server's reflection tells of it.

#![allow(clippy::unwrap_used, reason = "a failed step of the test is a failed test")]

use std::process::Command;

use postroad_base::{Qos, ReasonCode, Tag};
use postroad_e2e::daemon::{Daemon, binary, wait_until};
use postroad_e2e::mqtt::{Client, Incoming, Options};
use postroad_e2e::tools::{Told, grpcurl};
use postroad_protocol::mqtt::{Ack, Packet};
use serde_json::{Value, json};

const LISTEN: &str = "listen.grpc=127.0.0.1:0";

/// What a call was answered, or an `Err` with what grpcurl shows of its error.
fn call(daemon: &Daemon, method: &str, request: &Value) -> Result<Value, String> {
    call_with(daemon, &[], method, request)
}

fn call_with(daemon: &Daemon, options: &[&str], method: &str, request: &Value) -> Result<Value, String> {
    let request = request.to_string();
    let options = [options, &["-d", &request]].concat();
    let Told { succeeded, output, error } =
        grpcurl(daemon.grpc_address(), &options, &[&format!("postroad.v1.{method}")]);
    if !succeeded {
        return Err(error);
    }
    Ok(serde_json::from_str(&output).unwrap_or_else(|error| panic!("{method}: {error}: {output}")))
}

/// That a call fails with this code, and with this reason among its details.
fn assert_refused(answer: Result<Value, String>, code: &str, reason: &str) {
    let error = answer.expect_err("it is to be refused");
    let details = ["Details:", "google.rpc.ErrorInfo", "\"domain\":\"postroad\"", &format!("\"reason\":\"{reason}\"")];
    for part in [&[&*format!("Code: {code}"), "Message: "][..], &details].concat() {
        assert!(error.contains(part), "{part} is not in {error}");
    }
}

/// By reflection alone: which services there are, what one can do, and what a message of it is.
#[test]
fn it_lists_and_describes_all_there_is() {
    let daemon = Daemon::start_with(&[LISTEN]);
    let ask = |words: &[&str]| {
        let told = grpcurl(daemon.grpc_address(), &[], words);
        assert!(told.succeeded, "{words:?}: {told:?}");
        told.output
    };
    let listed = ask(&["list"]);
    let services: Vec<&str> = listed.lines().filter(|line| line.starts_with("postroad.v1.")).collect();
    let all = ["Admin", "Clients", "Consumer", "DeadLetters", "Groups", "Messages", "Receipts", "Scheduled", "Topics"];
    assert_eq!(services, all.map(|name| format!("postroad.v1.{name}")), "{listed}");
    assert!(listed.contains("grpc.health.v1.Health"), "{listed}");
    let methods = ask(&["list", "postroad.v1.Messages"]);
    let expected = ["Publish", "PublishMany", "PublishStream"].map(|name| format!("postroad.v1.Messages.{name}"));
    assert_eq!(methods.lines().collect::<Vec<_>>(), expected);
    for service in services {
        assert!(ask(&["describe", service]).contains("rpc "), "{service}");
    }
    let described = ask(&["describe", "postroad.v1.PublishRequest"]);
    assert!(
        described.contains("message PublishRequest {") && described.contains(".postroad.v1.Message"),
        "{described}"
    );
    let unknown = grpcurl(daemon.grpc_address(), &[], &["describe", "postroad.v1.Nothing"]);
    assert!(!unknown.succeeded && unknown.error.contains("not found"), "{unknown:?}");
}

/// The server and each service of it serve; one that is not there is an error.
#[test]
fn it_checks_health() {
    let daemon = Daemon::start_with(&[LISTEN]);
    let check = |service: &str| {
        let request = json!({ "service": service }).to_string();
        grpcurl(daemon.grpc_address(), &["-d", &request], &["grpc.health.v1.Health/Check"])
    };
    for service in ["", "postroad.v1.Messages", "postroad.v1.DeadLetters", "postroad.v1.Consumer"] {
        let told = check(service);
        assert!(told.succeeded && told.output.contains("\"SERVING\""), "{service}: {told:?}");
    }
    let unknown = check("postroad.v1.Nothing");
    assert!(!unknown.succeeded && unknown.error.contains("Code: NotFound"), "{unknown:?}");
    let status = call(&daemon, "Admin/GetStatus", &json!({})).unwrap();
    assert!(status["version"].is_string(), "{status}");
}

/// What it publishes, its consumer takes, refuses and acknowledges, also by the stream.
#[test]
fn it_publishes_and_consumes() {
    let daemon = Daemon::start_with(&[LISTEN, "groups.delay=0s"]);
    assert_eq!(call(&daemon, "Groups/Set", &json!({"group": "orders", "filters": ["o/#"]})).unwrap()["isNew"], true);
    for payload in ["one", "two"] {
        let message = json!({"topic": "o/1", "payload_text": payload, "properties": [{"name": "k", "value": payload}]});
        let published = call(&daemon, "Messages/Publish", &json!({ "message": message })).unwrap();
        let id = published["published"]["id"].as_str().unwrap();
        assert!(id.len() == 32 && published["published"]["hasSubscribers"] == true, "{published}");
    }
    let take = |limit: u32| {
        let taken = call(&daemon, "Consumer/Take", &json!({"group": "orders", "limit": limit})).unwrap();
        taken["deliveries"].as_array().cloned().unwrap_or_default()
    };
    let taken = take(10);
    let payloads: Vec<&Value> = taken.iter().map(|delivery| &delivery["message"]["payloadText"]).collect();
    assert_eq!(payloads, [&json!("one"), &json!("two")]);
    assert_eq!(taken[1]["message"]["properties"], json!([{"name": "k", "value": "two"}]));
    let done = call(&daemon, "Consumer/Acknowledge", &json!({"group": "orders", "deliveries": [taken[0]["delivery"]]}));
    assert_eq!(done.unwrap()["done"], "1", "a 64-bit number is text in JSON");
    let refused = json!({"group": "orders", "deliveries": [taken[1]["delivery"]], "reason": "not now"});
    assert_eq!(call(&daemon, "Consumer/Refuse", &refused).unwrap()["done"], "1");
    let again = take(10);
    assert_eq!((again.len(), &again[0]["attempt"], &again[0]["mayRepeat"]), (1, &json!(2), &json!(true)));
    // The stream: one request begins it, another one says what becomes of the delivery; its answer has the number.
    let begun = json!({"begin": {"group": "orders"}});
    let acknowledged = json!({"number": "7", "acknowledge": {"deliveries": [again[0]["delivery"]]}});
    let requests = format!("{begun}{acknowledged}");
    let told = grpcurl(daemon.grpc_address(), &["-d", &requests], &["postroad.v1.Consumer/Consume"]);
    let answers = serde_json::Deserializer::from_str(&told.output).into_iter::<Value>();
    let answers: Vec<Value> = answers.map(Result::unwrap).collect();
    assert_eq!(answers, [json!({"answered": {"number": "7", "done": "1"}})], "{told:?}");
    assert_eq!(take(10), [] as [Value; 0]);
}

/// A letter is found, shown, parked and sent again; one that is gone is an error with its reason.
#[test]
fn it_works_on_dead_letters() {
    let daemon = Daemon::start_with(&[LISTEN]);
    let mut device = Client::connect(daemon.mqtt(), &Options::persistent("device")).unwrap();
    device.subscribe("d/#", Qos::AtLeastOnce).unwrap();
    let message = json!({"topic": "d/1", "payload_text": "broken"});
    call(&daemon, "Messages/Publish", &json!({ "message": message })).unwrap();
    let Incoming::Publish(came) = device.receive().unwrap() else { panic!("no PUBLISH") };
    let refusal = Ack::new(Tag::new(came.id).unwrap(), ReasonCode::ImplementationSpecificError);
    device.send(&Packet::PubAck(refusal)).unwrap();
    // The next one comes behind the refusal: it is in the log.
    call(&daemon, "Messages/Publish", &json!({"message": {"topic": "d/2", "payload_text": "sound"}})).unwrap();
    assert_eq!(device.next_message().unwrap().payload, b"sound");
    let mut letters = Value::Null;
    wait_until("the letter is there", || {
        letters = call(&daemon, "DeadLetters/List", &json!({"filter": {"reason": "refused"}})).unwrap();
        letters["letters"].is_array()
    });
    let letter = letters["letters"][0].clone();
    assert_eq!((&letter["client"], &letter["reasonCode"]), (&json!("device"), &json!(131)));
    let id = json!({"id": letter["id"]});
    assert_eq!(call(&daemon, "DeadLetters/Get", &id).unwrap(), letter);
    call(&daemon, "DeadLetters/Park", &json!({"id": letter["id"], "note": "why?"})).unwrap();
    assert_eq!(call(&daemon, "DeadLetters/Get", &id).unwrap()["parked"]["note"], "why?");
    assert_eq!(call(&daemon, "DeadLetters/Export", &json!({})).unwrap()["topic"], "d/1");
    // Bytes are Base64 in JSON.
    call(&daemon, "DeadLetters/Requeue", &json!({"id": letter["id"], "payload": "bWVuZGVk"})).unwrap();
    assert_eq!(device.next_message().unwrap().payload, b"mended");
    assert_refused(call(&daemon, "DeadLetters/Drop", &id), "NotFound", "gone");
}

/// Errors come with their code, their words and their details, and the server is none the worse.
#[test]
fn it_shows_errors_with_their_details() {
    let daemon = Daemon::start_with(&[LISTEN]);
    let publish = |topic: &str| call(&daemon, "Messages/Publish", &json!({"message": {"topic": topic}}));
    assert_refused(publish("a/#"), "InvalidArgument", "bad_request");
    assert_refused(call(&daemon, "Clients/Get", &json!({"client": "nobody"})), "NotFound", "unknown_client");
    assert_refused(call(&daemon, "Groups/Get", &json!({"group": "none"})), "NotFound", "unknown_group");
    let key = |payload: &str| {
        let message = json!({"topic": "a", "payload_text": payload, "wishes": {"idempotency_key": "k"}});
        call(&daemon, "Messages/Publish", &json!({ "message": message }))
    };
    let first = key("one").unwrap();
    assert_eq!(key("one").unwrap(), first);
    assert_refused(key("two"), "AlreadyExists", "key_conflict");
    assert!(publish("a/b").is_ok());
}

/// A token is shown as metadata; without one, and without the right, a call is refused.
#[test]
fn it_shows_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens.toml");
    let made = Command::new(binary()).arg("token").arg("--file").arg(&file).arg("billing").output().unwrap();
    let token = String::from_utf8(made.stdout).unwrap();
    let daemon = Daemon::start_with(&[LISTEN, &format!("api.tokens_file={}", file.display())]);
    let header = format!("authorization: Bearer {}", token.trim());
    let publish = json!({"message": {"topic": "a"}});
    assert_refused(call(&daemon, "Messages/Publish", &publish), "Unauthenticated", "unauthorized");
    assert!(call_with(&daemon, &["-H", &header], "Messages/Publish", &publish).is_ok());
    let listed = call_with(&daemon, &["-H", &header], "Clients/List", &json!({}));
    assert_refused(listed, "PermissionDenied", "forbidden");
    assert!(call(&daemon, "Admin/GetStatus", &json!({})).is_ok(), "status is for everybody");
}
