//! Dead letters through the real server: what a client refuses is found, acted on, and survives [REL-6], [REL-7], [REL-8].

#![allow(clippy::unwrap_used, reason = "a failed step of the test is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Output, Stdio};

use postroad_base::{Qos, ReasonCode, Tag};
use postroad_e2e::daemon::{Daemon, binary, wait_until};
use postroad_e2e::http::{self, Events};
use postroad_e2e::mqtt::{Client, Incoming, Options};
use postroad_e2e::random::Random;
use postroad_e2e::tools::Subscriber;
use postroad_protocol::mqtt::{Ack, Packet};
use serde_json::{Value, json};

const PATH: &str = "/v1/dead-letters";

fn get(daemon: &Daemon, path: &str) -> (u16, Value) {
    let answer = http::request(daemon.http_address(), &format!("GET {path}"), &[], &[]).unwrap();
    (answer.code, serde_json::from_str(&answer.body).unwrap())
}

fn post(daemon: &Daemon, path: &str, body: &Value) -> (u16, Value) {
    let headers = [("Content-Type", "application/json")];
    let body = body.to_string();
    let answer = http::request(daemon.http_address(), &format!("POST {path}"), &headers, body.as_bytes()).unwrap();
    (answer.code, serde_json::from_str(&answer.body).unwrap())
}

fn publish(daemon: &Daemon, topic: &str, payload: &str) {
    let (code, answer) = post(daemon, "/v1/messages", &json!({"topic": topic, "payload": payload}));
    assert_eq!(code, 200, "{answer}");
}

fn letters(daemon: &Daemon, query: &str) -> Vec<Value> {
    let (code, page) = get(daemon, &format!("{PATH}{query}"));
    assert_eq!(code, 200, "{page}");
    page["letters"].as_array().unwrap().clone()
}

fn device(daemon: &Daemon) -> Client {
    let mut client = Client::connect(daemon.mqtt(), &Options::persistent("device")).unwrap();
    if !client.session_present {
        client.subscribe("d/#", Qos::AtLeastOnce).unwrap();
    }
    client
}

/// What its client can't take is a letter, and a letter again if it is requeued as it is, until it is parked; it is not sent, and
/// what is mended or small comes.
#[test]
fn what_is_too_large_is_a_letter_each_time() {
    let daemon = Daemon::start_with(&["dead_letters.requeues_max=2"]);
    let options = Options { packet_bytes_max: Some(200), ..Options::persistent("device") };
    let mut client = Client::connect(daemon.mqtt(), &options).unwrap();
    client.subscribe("d/#", Qos::AtLeastOnce).unwrap();
    publish(&daemon, "d/1", &"x".repeat(1_000));
    let only = || letters(&daemon, "").into_iter().next();
    let died = |requeues: u64| only().filter(|letter| letter["requeues"] == requeues);
    for requeues in 0..2 {
        wait_until("it is a letter", || died(requeues).is_some());
        let letter = died(requeues).unwrap();
        assert_eq!((&letter["reason"], &letter["attempts"]), (&json!("too_large"), &json!(0)));
        let (code, answer) = post(&daemon, &format!("{PATH}/{}/requeue", letter["id"].as_str().unwrap()), &json!({}));
        assert_eq!(code, 200, "{answer}");
    }
    wait_until("it is for a human", || died(2).is_some_and(|letter| letter["parked"] != Value::Null));
    publish(&daemon, "d/2", "small");
    assert_eq!(client.next_message().unwrap().payload, b"small", "nothing has come before");
    let id = only().unwrap()["id"].as_str().unwrap().to_owned();
    assert_eq!(post(&daemon, &format!("{PATH}/{id}/requeue"), &json!({"payload": "mended"})).0, 200);
    assert_eq!(client.next_message().unwrap().payload, b"mended");
    assert!(letters(&daemon, "").is_empty());
}

/// The next PUBLISH is refused.
fn refuse(client: &mut Client) -> String {
    loop {
        if let Incoming::Publish(message) = client.receive().unwrap() {
            let tag = Tag::new(message.id).unwrap();
            client.send(&Packet::PubAck(Ack::new(tag, ReasonCode::ImplementationSpecificError))).unwrap();
            return String::from_utf8(message.payload).unwrap();
        }
    }
}

fn dlq(daemon: &Daemon, arguments: &[&str], input: &str) -> Output {
    let api = format!("http://{}", daemon.http_address());
    let mut child = Command::new(binary())
        .arg("dlq")
        .args(arguments)
        .env("POSTROAD_API", api)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Who may hear of letters is told on `$dead/…`, with how each ended; by default nobody may.
#[test]
fn a_letter_is_told_of_to_those_who_may_know() {
    let mut daemon = Daemon::prepared(&[]);
    let acl = daemon.data().parent().unwrap().join("letters-acl.toml");
    let everything = "[[rule]]\nprincipal = \"*\"\naction = \"*\"\neffect = \"allow\"\n";
    let letters_too = everything.replace("effect", "topic = \"$dead/#\"\neffect");
    std::fs::write(&acl, letters_too + everything).unwrap();
    daemon.configure(&format!("[acl]\nfile = {:?}\n", acl.to_str().unwrap()));
    daemon.restart();
    let format = "message %t %p %P";
    let watcher = Subscriber::start(
        daemon.mqtt(),
        &["-V", "mqttv5", "-q", "1", "-t", "$dead/refused/#", "-C", "1", "-F", format],
    );
    let mut client = device(&daemon);
    publish(&daemon, "d/1", "hello");
    assert_eq!(refuse(&mut client), "hello");
    let told = watcher.messages();
    assert_eq!(told.len(), 1);
    let id = letters(&daemon, "")[0]["id"].as_str().unwrap().to_owned();
    assert!(told[0].starts_with("$dead/refused/d/1 hello "), "{told:?}");
    for property in [
        format!("postroad-letter:{id}"),
        "postroad-client:device".to_owned(),
        "postroad-reason:refused".to_owned(),
        "postroad-reason-code:131".to_owned(),
    ] {
        assert!(told[0].contains(&property), "{property} is not in {told:?}");
    }
    let other = Daemon::start();
    let mut stranger = Client::connect(other.mqtt(), &Options::transient("stranger")).unwrap();
    assert!(stranger.subscribe("$dead/#", Qos::AtLeastOnce).is_err(), "the default rules let anybody read letters");
}

/// What was refused is shown whole, requeued with another payload, and gone; the second requeue says so.
#[test]
fn a_letter_is_repaired_and_sent_again() {
    let daemon = Daemon::start();
    let mut client = device(&daemon);
    let message = json!({"topic": "d/1", "payload": "brokn", "content_type": "text/plain", "properties": [["k", "v"]]});
    assert_eq!(post(&daemon, "/v1/messages", &message).0, 200);
    refuse(&mut client);
    wait_until("the letter is there", || letters(&daemon, "").len() == 1);
    let letter = letters(&daemon, "?client=device&reason=refused&topic=d/%2B").remove(0);
    let path = format!("{PATH}/{}", letter["id"].as_str().unwrap());
    assert_eq!(get(&daemon, &path), (200, letter.clone()));
    assert_eq!(
        (&letter["payload"], &letter["content_type"], &letter["properties"], &letter["reason_code"]),
        (&json!("brokn"), &json!("text/plain"), &json!([["k", "v"]]), &json!(131))
    );
    let (code, done) = post(&daemon, &format!("{path}/requeue"), &json!({"payload": "mended"}));
    assert_eq!(code, 200, "{done}");
    let again = client.next_message().unwrap();
    assert_eq!((again.topic.as_str(), &again.payload[..]), ("d/1", &b"mended"[..]));
    assert_ne!(done["message_id"], letter["message_id"], "a new message");
    assert_eq!(post(&daemon, &format!("{path}/requeue"), &json!({})).0, 404);
    assert_eq!(post(&daemon, &format!("{path}/drop"), &json!({})).0, 404);
    assert_eq!(get(&daemon, &path).0, 404);
    for wrong in ["/v1/dead-letters/x", "/v1/dead-letters?limit=0", "/v1/dead-letters?reason=bored"] {
        assert_eq!(get(&daemon, wrong).0, 400, "{wrong}");
    }
    assert_eq!(get(&daemon, "/v1/dead-letters/65535-1-1").0, 404);
}

/// Two workers lease: none gets what the other has; what is parked nobody gets; a letter goes to another topic.
#[test]
fn workers_share_letters_by_leases() {
    let daemon = Daemon::start();
    let mut client = device(&daemon);
    for number in 0..10 {
        publish(&daemon, &format!("d/{number}"), "x");
        refuse(&mut client);
    }
    wait_until("the letters are there", || letters(&daemon, "").len() == 10);
    let lease = |body: Value| {
        let (code, page) = post(&daemon, "/v1/dead-letters/lease", &body);
        assert_eq!(code, 200, "{page}");
        let ids = page["letters"].as_array().unwrap().iter().map(|letter| letter["id"].as_str().unwrap().to_owned());
        ids.collect::<BTreeSet<_>>()
    };
    let first = lease(json!({"limit": 4, "seconds": 3600}));
    let parked = letters(&daemon, "?leased=false&limit=1")[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(post(&daemon, &format!("{PATH}/{parked}/park"), &json!({"note": "odd"})).0, 200);
    let second = lease(json!({"limit": 1000, "seconds": 3600}));
    assert_eq!((first.len(), second.len()), (4, 5));
    assert!(first.is_disjoint(&second) && !first.contains(&parked) && !second.contains(&parked));
    assert_eq!(lease(json!({})), BTreeSet::new());
    let back = first.first().unwrap().clone();
    assert_eq!(post(&daemon, &format!("{PATH}/{back}/release"), &json!({})).0, 200);
    assert_eq!(lease(json!({"seconds": 3600})), BTreeSet::from([back.clone()]));
    let mut repairer = Client::connect(daemon.mqtt(), &Options::transient("repairer")).unwrap();
    repairer.subscribe("repair", Qos::AtLeastOnce).unwrap();
    assert_eq!(post(&daemon, &format!("{PATH}/{back}/requeue"), &json!({"topic": "repair"})).0, 200);
    assert_eq!(repairer.next_message().unwrap().topic, "repair");
    assert_eq!(letters(&daemon, "").len(), 9);
    assert_eq!(letters(&daemon, "?parked=true")[0]["parked"]["note"], json!("odd"));
    assert_eq!(daemon.metric("postroad_dead_letters{", ""), 9.0);
}

/// `postroad dlq`: a table, what is done to one and to all, and to another server by a file.
#[test]
fn letters_by_hand() {
    let daemon = Daemon::start_with(&["shards=2"]);
    let mut client = device(&daemon);
    for number in 0..6 {
        publish(&daemon, &format!("d/{number}"), &number.to_string());
        refuse(&mut client);
    }
    wait_until("the letters are there", || letters(&daemon, "").len() == 6);
    let table = text(&dlq(&daemon, &["list"], ""));
    assert!(table.lines().count() == 7 && table.starts_with("LETTER"), "{table}");
    let first = table.lines().nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    let shown = text(&dlq(&daemon, &["show", &first], ""));
    assert!(shown.contains("\"payload\": \"0\"") && shown.contains("\"reason\": \"refused\""), "{shown}");
    text(&dlq(&daemon, &["park", &first, "--note", "why?"], ""));
    assert!(text(&dlq(&daemon, &["list", "--parked"], "")).contains("why?"));
    let exported = text(&dlq(&daemon, &["export"], ""));
    assert_eq!(exported.lines().count(), 6);
    text(&dlq(&daemon, &["requeue", "--all", "--topic-filter", "d/5", "--message", "better"], ""));
    assert_eq!(client.next_message().unwrap().payload, b"better");
    text(&dlq(&daemon, &["unpark", &first], ""));
    text(&dlq(&daemon, &["drop", "--all"], ""));
    assert_eq!(letters(&daemon, ""), [] as [Value; 0]);
    let gone = dlq(&daemon, &["drop", &first], "");
    assert!(gone.status.code() == Some(1) && String::from_utf8_lossy(&gone.stderr).contains("404"), "{gone:?}");

    let mut other = Daemon::start();
    assert_eq!(text(&dlq(&other, &["import"], &exported)), "6 letters\n");
    let broken = dlq(&other, &["import"], "{\"topic\": \"a\"}\n");
    assert!(
        broken.status.code() == Some(1) && String::from_utf8_lossy(&broken.stderr).contains("line 1"),
        "{broken:?}"
    );
    other.kill();
    other.restart();
    let facts = |letter: &Value| {
        let names = ["message_id", "topic", "payload", "client", "reason", "died_unix_ms", "properties"];
        let mut facts: BTreeMap<String, Value> = names.map(|name| (name.to_owned(), letter[name].clone())).into();
        facts.insert("note".into(), letter["parked"]["note"].clone());
        facts
    };
    let before: Vec<_> = exported.lines().map(|line| facts(&serde_json::from_str(line).unwrap())).collect();
    let mut after: Vec<_> = letters(&other, "").iter().map(facts).collect();
    after.sort_by_key(|facts| facts["topic"].to_string());
    assert_eq!(after, before);
}

/// What a client holds for too long, or loses connection after connection, is given up; what is answered too late is counted,
/// and what else it is to get comes.
#[test]
fn what_is_never_acknowledged_is_given_up() {
    let daemon = Daemon::start_with(&["retry.max_age=1s"]);
    let mut client = device(&daemon);
    publish(&daemon, "d/1", "held");
    let Incoming::Publish(held) = client.receive().unwrap() else { panic!("no PUBLISH") };
    wait_until("it is given up", || letters(&daemon, "?reason=unacknowledged").len() == 1);
    publish(&daemon, "d/2", "fresh");
    let Incoming::Publish(fresh) = client.receive().unwrap() else { panic!("no PUBLISH") };
    assert_eq!(fresh.payload, b"fresh");
    assert_ne!(fresh.id, held.id, "its packet identifier is not free");
    client.acknowledge(Packet::PubAck, held.id).unwrap();
    wait_until("the late answer is counted", || daemon.metric("postroad_counted_total", "late_acknowledgement") >= 1.0);
}

/// What breaks connection after connection is sent `retry.max_attempts` times.
#[test]
fn what_was_sent_too_often_is_given_up() {
    let daemon = Daemon::start_with(&["retry.max_attempts=3"]);
    let mut client = device(&daemon);
    publish(&daemon, "d/3", "crasher");
    for attempt in 1..=3 {
        loop {
            let Incoming::Publish(message) = client.receive().unwrap() else { continue };
            assert_eq!((&message.payload[..], message.dup), (&b"crasher"[..], attempt > 1));
            break;
        }
        drop(client);
        client = device(&daemon);
    }
    publish(&daemon, "d/4", "after");
    assert_eq!(client.next_message().unwrap().payload, b"after", "a fourth attempt");
    let letter = letters(&daemon, "?reason=attempts").remove(0);
    assert_eq!((&letter["payload"], &letter["attempts"]), (&json!("crasher"), &json!(3)));
    assert!(letter["first_sent_unix_ms"].as_u64() <= letter["last_sent_unix_ms"].as_u64(), "{letter}");
}

/// What an operator did before the server was killed.
#[derive(Default)]
struct Actions {
    dropped: BTreeSet<String>,
    /// It may have been done, or not.
    unknown: BTreeSet<String>,
}

/// Drops, requeues and parks letters until the server is gone; kills it in the middle.
fn act_until_killed(daemon: &mut Daemon, random: &mut Random, actions: &mut Actions) {
    let kill_after = random.below(12);
    let all = letters(daemon, "?limit=1000");
    let address = daemon.http_address();
    for (number, letter) in all.iter().enumerate() {
        let (id, payload) = (letter["id"].as_str().unwrap(), letter["payload"].as_str().unwrap().to_owned());
        let what = ["drop", "requeue", "park"][random.below(3) as usize];
        let request = format!("POST {PATH}/{id}/{what}");
        let asked = std::thread::spawn(move || http::request(address, &request, &[], b""));
        if number as u64 == kill_after {
            daemon.kill();
        }
        match asked.join().unwrap() {
            Ok(answer) if answer.code == 200 && what == "drop" => drop(actions.dropped.insert(payload)),
            Ok(answer) if answer.code == 200 => {}
            _ if what == "drop" => drop(actions.unknown.insert(payload)),
            _ => {}
        }
        if number as u64 == kill_after {
            return;
        }
    }
    daemon.kill();
}

/// Killed again and again while a device refuses and an operator acts: nothing that was published is lost, but for what the
/// operator dropped, and that does not come back.
#[test]
fn letters_survive_kills_in_the_middle() {
    let mut random = Random::seeded("letters");
    let rounds = std::env::var("POSTROAD_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(15);
    let mut daemon = Daemon::start_with(&["shards=2", "dead_letters.requeues_max=1000"]);
    let (mut published, mut consumed) = (BTreeSet::new(), BTreeSet::new());
    let mut actions = Actions::default();
    for round in 0..rounds {
        let mut client = device(&daemon);
        for number in 0..10 {
            let payload = format!("{round}-{number}");
            publish(&daemon, &format!("d/{number}"), &payload);
            published.insert(payload);
        }
        // What was requeued or not acknowledged before comes again, too: the marker ends it.
        publish(&daemon, "d/end", "end");
        loop {
            let Incoming::Publish(message) = client.receive().unwrap() else { continue };
            let payload = String::from_utf8(message.payload).unwrap();
            assert!(!actions.dropped.contains(&payload), "{payload} was dropped, and came back");
            let is_end = payload == "end";
            if is_end || random.below(3) == 0 {
                client.acknowledge(Packet::PubAck, message.id).unwrap();
                consumed.insert(payload);
            } else {
                let tag = Tag::new(message.id).unwrap();
                client.send(&Packet::PubAck(Ack::new(tag, ReasonCode::ImplementationSpecificError))).unwrap();
            }
            if is_end {
                break;
            }
        }
        act_until_killed(&mut daemon, &mut random, &mut actions);
        daemon.restart();
    }
    let mut client = device(&daemon);
    publish(&daemon, "d/end", "the end");
    loop {
        let payload = String::from_utf8(client.next_message().unwrap().payload).unwrap();
        assert!(!actions.dropped.contains(&payload), "{payload} was dropped, and came back");
        if payload == "the end" {
            break;
        }
        consumed.insert(payload);
    }
    let kept: Vec<String> = all_letters(&daemon);
    let distinct: BTreeSet<String> = kept.iter().cloned().collect();
    assert!(distinct.is_disjoint(&actions.dropped), "dropped letters are there again");
    let lost: Vec<&String> = published
        .iter()
        .filter(|payload| {
            let sets = [&consumed, &actions.dropped, &actions.unknown, &distinct];
            !sets.iter().any(|set| set.contains(*payload))
        })
        .collect();
    assert!(lost.is_empty(), "published, and neither delivered nor kept: {lost:?}");
    println!(
        "{} published, {} consumed, {} dropped, {} letters left",
        published.len(),
        consumed.len(),
        actions.dropped.len(),
        kept.len()
    );
    assert!(!kept.is_empty() && !actions.dropped.is_empty(), "the test did not test");
}

fn all_letters(daemon: &Daemon) -> Vec<String> {
    let (mut payloads, mut after) = (Vec::new(), String::new());
    loop {
        let (code, page) = get(daemon, &format!("{PATH}?limit=7{after}"));
        assert_eq!(code, 200, "{page}");
        let found = page["letters"].as_array().unwrap().iter();
        payloads.extend(found.map(|letter| letter["payload"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return payloads,
        }
    }
}

fn follow(daemon: &Daemon, query: &str, last_event_id: Option<&str>) -> Events {
    let headers: Vec<_> = last_event_id.map(|id| ("Last-Event-ID", id)).into_iter().collect();
    let events = Events::ask(daemon.http_address(), &format!("{PATH}{query}"), &headers).unwrap();
    assert!(events.status.contains(" 200 "), "{}", events.status);
    events
}

/// What was said so far of where it stands: the first event.
fn begin(events: &mut Events) -> String {
    let event = events.next_event().unwrap().unwrap();
    assert_eq!((event.kind.as_str(), event.data.as_str()), ("", ""));
    event.id
}

/// The next letter's payload, its name, and what is sent back to go on behind it.
fn heard(events: &mut Events) -> (String, String, String) {
    let event = events.next_event().unwrap().expect("the stream goes on");
    let letter: Value = serde_json::from_str(&event.data).unwrap_or_else(|error| panic!("{event:?}: {error}"));
    let text = |name: &str| letter[name].as_str().unwrap().to_owned();
    (text("payload"), text("id"), event.id)
}

/// Whoever follows letters hears of each as it dies, and after a kill -9 goes on behind the last one that it has heard: also of
/// what died while nobody followed, and on a shard that had no letters then.
#[test]
fn followers_hear_of_letters_and_go_on_after_a_crash() {
    let mut daemon = Daemon::start_with(&["shards=4"]);
    let mut client = device(&daemon);
    let other = |number: usize| {
        let options = Options::persistent(&format!("other-{number}"));
        let mut client = Client::connect(daemon.mqtt(), &options).unwrap();
        client.subscribe(&format!("o/{number}"), Qos::AtLeastOnce).unwrap();
        client
    };
    let mut others: Vec<Client> = (0..8).map(other).collect();
    publish(&daemon, "d/1", "before");
    refuse(&mut client);
    wait_until("the letter is there", || letters(&daemon, "").len() == 1);
    let mut events = follow(&daemon, "", None);
    let begun = begin(&mut events);
    let mut everything = follow(&daemon, "?from=oldest", None);
    begin(&mut everything);
    publish(&daemon, "d/2", "first");
    refuse(&mut client);
    let (payload, _, seen) = heard(&mut events);
    assert_eq!(payload, "first", "what was there before is not new");
    assert_eq!([heard(&mut everything).0, heard(&mut everything).0], ["before", "first"]);
    let mut of_others = follow(&daemon, "?client=other-3&reason=refused", None);
    let nowhere = begin(&mut of_others);
    for (number, client) in others.iter_mut().enumerate() {
        publish(&daemon, &format!("o/{number}"), &format!("other {number}"));
        refuse(client);
    }
    assert_eq!(heard(&mut of_others).0, "other 3");
    wait_until("the letters are there", || letters(&daemon, "").len() == 10);
    daemon.kill();
    daemon.restart();
    let after = |seen: &str, count: usize| -> BTreeSet<String> {
        let mut events = follow(&daemon, "", Some(seen));
        begin(&mut events);
        (0..count).map(|_| heard(&mut events).0).collect()
    };
    let all_others: BTreeSet<String> = (0..8).map(|number| format!("other {number}")).collect();
    assert_eq!(after(&seen, 8), all_others, "behind what was heard");
    assert_eq!(after(&nowhere, 8), all_others);
    let with_first: BTreeSet<String> = all_others.iter().cloned().chain(["first".to_owned()]).collect();
    assert_eq!(after(&begun, 9), with_first, "behind where it began");
    let wrong = Events::ask(daemon.http_address(), PATH, &[("Last-Event-ID", "yesterday")]).unwrap();
    assert!(wrong.status.contains(" 400 "), "{}", wrong.status);
}

/// Letters that are leased to a follower come again until somebody acts on them, and go to one of two followers.
#[test]
fn what_nobody_acts_on_comes_again() {
    let daemon = Daemon::start_with(&["shards=2"]);
    let mut client = device(&daemon);
    publish(&daemon, "d/1", "one");
    refuse(&mut client);
    wait_until("the letter is there", || letters(&daemon, "").len() == 1);
    let mut events = follow(&daemon, "?lease_seconds=1", None);
    begin(&mut events);
    let (payload, id, _) = heard(&mut events);
    assert_eq!((payload.as_str(), heard(&mut events).0.as_str()), ("one", "one"), "its lease has ended");
    assert_eq!(post(&daemon, &format!("{PATH}/{id}/drop"), &json!({})).0, 200);
    publish(&daemon, "d/2", "two");
    refuse(&mut client);
    let (payload, id, _) = heard(&mut events);
    assert_eq!(payload, "two");
    assert_eq!(post(&daemon, &format!("{PATH}/{id}/park"), &json!({})).0, 200);
    // A steady flow of new letters holds up none that is to come again.
    publish(&daemon, "d/3", "again");
    refuse(&mut client);
    assert_eq!(heard(&mut events).0, "again");
    let mut payloads = Vec::new();
    for number in 0..10_000 {
        publish(&daemon, "d/4", &number.to_string());
        refuse(&mut client);
        let (payload, id, _) = heard(&mut events);
        payloads.push(payload.clone());
        if payload == "again" {
            break;
        }
        assert_eq!(post(&daemon, &format!("{PATH}/{id}/drop"), &json!({})).0, 200);
    }
    assert_eq!(payloads.last().map(String::as_str), Some("again"), "{payloads:?}");
    for wrong in ["?lease_seconds=0", "?lease_seconds=1&parked=true", "?limit=5", "?after=0"] {
        let wrong = Events::ask(daemon.http_address(), &format!("{PATH}{wrong}"), &[]).unwrap();
        assert!(wrong.status.contains(" 400 "), "{}", wrong.status);
    }
    assert_eq!(get(&daemon, &format!("{PATH}?lease_seconds=5")).0, 400, "a page leases nothing");
}

/// A follower that stops reading costs what is in the sockets and one page, and is cut off; all others go on.
#[test]
fn a_follower_that_stops_reading_is_cut_off() {
    let daemon = Daemon::start_with(&["http.request_timeout=1s"]);
    let letter = |number: usize| {
        json!({"topic": "t", "payload": format!("{number} {}", "x".repeat(200_000)), "qos": 1, "client": "c",
            "reason": "refused", "died_unix_ms": 5})
    };
    for number in 0..300 {
        assert_eq!(post(&daemon, PATH, &letter(number)).0, 200);
    }
    let before = daemon.rss_bytes();
    let deaf: Vec<Events> = (0..8).map(|_| follow(&daemon, "?from=oldest", None)).collect();
    let mut good = follow(&daemon, "?from=oldest", None);
    begin(&mut good);
    for number in 0..300 {
        assert!(heard(&mut good).0.starts_with(&format!("{number} ")));
    }
    wait_until("they are cut off", || daemon.metric("postroad_http_connections_cut_off_total", "") >= 8.0);
    let grown = daemon.rss_bytes().saturating_sub(before);
    assert!(grown < 120 << 20, "{} MiB for eight that do not read 60 MB each", grown >> 20);
    assert_eq!(post(&daemon, PATH, &letter(300)).0, 200);
    assert!(heard(&mut good).0.starts_with("300 "), "whoever reads goes on, also after a long silence");
    drop(deaf);
}

/// The server stops while somebody follows: the stream says so and ends, and holds up nothing.
#[test]
fn followers_are_told_that_the_server_stops() {
    let mut daemon = Daemon::start();
    let mut events = follow(&daemon, "", None);
    begin(&mut events);
    assert!(daemon.terminate().success());
    let end = events.next_event().unwrap().expect("an event tells of the end");
    let problem: Value = serde_json::from_str(&end.data).unwrap();
    assert_eq!((end.kind.as_str(), &problem["reason"]), ("end", &json!("busy")));
    assert_eq!(events.next_event().unwrap(), None);
}
