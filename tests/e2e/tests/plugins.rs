//! Plugins while the server runs [PLG-4]: one set takes the place of another, whole, on all shards, and no client feels it.

#![allow(clippy::unwrap_used, reason = "a failed step of the test is a failed test")]

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use postroad_base::{Qos, ReasonCode};
use postroad_e2e::daemon::{Daemon, binary, wait_until};
use postroad_e2e::http::{self, Answer};
use postroad_e2e::mqtt::{Client, Incoming, Message, Options};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder of plugins, and the server that runs them.
struct Server {
    daemon: Daemon,
    scripts: TempDir,
}

impl Server {
    /// Two shards that begin with these scripts.
    fn start(scripts: &[(&str, &str)], settings: &[&str]) -> Self {
        Self::started(scripts, settings, Daemon::start_with)
    }

    fn with_faults(fault: &str, scripts: &[(&str, &str)]) -> Self {
        Self::started(scripts, &[], |settings| Daemon::with_faults(fault, settings))
    }

    fn started(scripts: &[(&str, &str)], settings: &[&str], start: impl FnOnce(&[&str]) -> Daemon) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in scripts {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let dir = format!("plugins.dir={}", folder.path().display());
        let daemon = start(&[settings, &["shards=2", &dir]].concat());
        Self { daemon, scripts: folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scripts.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn post(&self, what: &str, body: &Value) -> io::Result<Answer> {
        let line = format!("POST /v1/plugins/{what}");
        http::request(self.daemon.http_address(), &line, &[], body.to_string().as_bytes())
    }

    /// Asks for a change, which must be made.
    fn change(&self, what: &str, body: &Value) -> Value {
        let answer = self.post(what, body).unwrap();
        assert_eq!(answer.code, 200, "{}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    }

    /// Asks for a change, which must be refused; why it is.
    fn refused(&self, what: &str, body: &Value) -> String {
        let answer = self.post(what, body).unwrap();
        assert_eq!(answer.code, 409, "{}", answer.body);
        let problem: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(problem["reason"], "reload_refused");
        problem["detail"].as_str().unwrap().to_owned()
    }

    fn page(&self, path: &str) -> Value {
        let (code, body) = self.daemon.http(path);
        assert_eq!(code, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    fn generation(&self) -> u64 {
        self.page("/v1/plugins")["generation"].as_u64().unwrap()
    }

    /// Newest first: generation, action and outcome.
    fn history(&self) -> Vec<String> {
        let page = self.page("/v1/plugins/history");
        let attempts = page["attempts"].as_array().unwrap().iter();
        let word = |value: &Value| value.as_str().unwrap().to_owned();
        let line = |attempt: &Value| {
            format!("{} {} {}", attempt["generation"], word(&attempt["action"]), word(&attempt["outcome"]))
        };
        attempts.map(line).collect()
    }

    fn client(&self, name: &str) -> Client {
        Client::connect(self.daemon.mqtt(), &Options::transient(name)).unwrap()
    }

    /// One that sees whatever becomes of what is published to `in`.
    fn witness(&self) -> Client {
        let mut witness = self.client("witness");
        witness.subscribe("#", Qos::AtLeastOnce).unwrap();
        witness
    }

    /// Where a message of this client comes to.
    fn way_of(&self, name: &str, witness: &mut Client) -> String {
        self.client(name).publish("in", b"x", Qos::AtLeastOnce, false).unwrap();
        witness.next_message().unwrap().topic
    }
}

fn to(topic: &str) -> String {
    format!("return {{ route = {{ filters = {{ 'in' }}, run = function(message) message.topic = '{topic}' end }} }}\n")
}

#[test]
fn a_reload_changes_what_runs_and_a_rollback_changes_it_back() {
    let server = Server::start(&[("a.lua", &to("one"))], &[]);
    let mut witness = server.witness();
    assert_eq!(server.way_of("ann", &mut witness), "one");
    server.write("a.lua", &to("two"));
    assert_eq!(server.way_of("ann", &mut witness), "one", "nobody has asked for it");
    let attempt = server.change("reload", &json!({}));
    assert_eq!((&attempt["generation"], &attempt["outcome"]), (&json!(2), &json!("committed")));
    assert_eq!(server.way_of("ann", &mut witness), "two");

    let page = server.page("/v1/plugins");
    assert_eq!((&page["generation"], &page["folder"], &page["trial"]), (&json!(2), &Value::Null, &Value::Null));
    let plugin = &page["plugins"][0];
    assert_eq!((&plugin["name"], &plugin["hash"]), (&json!("a"), &attempt["plugins"]["a"]));
    assert_eq!(plugin["hooks"], json!([{ "name": "route", "filters": ["in"] }]));
    assert_eq!((&plugin["calls"], &plugin["errors"]), (&json!(3), &json!(0)), "counted over generations");
    assert_eq!(server.daemon.metric("postroad_plugins_generation", ""), 2.0);
    assert_eq!(server.daemon.metric("postroad_plugin_calls_total", "plugin=\"a\",hook=\"route\""), 3.0);

    assert_eq!(server.change("rollback", &json!({}))["generation"], 3);
    assert_eq!(server.way_of("ann", &mut witness), "one");
    assert_eq!(server.refused("rollback", &json!({})), "nothing else ran before: see the history");
    assert_eq!(server.change("rollback", &json!({ "to": 2 }))["generation"], 4);
    assert_eq!(server.way_of("ann", &mut witness), "two");
    let expected = ["4 rollback committed", "3 rollback committed", "2 replace committed", "1 start committed"];
    assert_eq!(server.history(), expected);
}

#[test]
fn what_does_not_load_changes_nothing_and_says_where_it_is_wrong() {
    let server = Server::start(&[("a.lua", &to("one")), ("b.lua", "return {}")], &[]);
    let mut witness = server.witness();
    let b = server.path("b.lua").display().to_string();
    let tested = "return {\n  test = { one = function()\n    error('it does not do it')\n  end } }\n";
    for (text, line, words) in [
        ("return {\n  route = function(message) message.topic = = 'two' end,\n}\n", 2, "unexpected symbol"),
        ("return {\n  rout = function() end,\n}\n", 0, "rout"),
        (tested, 3, "it does not do it"),
    ] {
        server.write("a.lua", &to("two"));
        server.write("b.lua", text);
        let why = server.refused("reload", &json!({}));
        assert!(why.starts_with(&format!("{b}:")) && why.contains(words), "{why}");
        assert!(line == 0 || why.starts_with(&format!("{b}:{line}:")), "{why}");
        assert_eq!((server.way_of("ann", &mut witness), server.generation()), ("one".to_owned(), 1));
    }
    let folder = server.page("/v1/plugins")["folder"].as_str().unwrap().to_owned();
    assert!(folder.contains("refused") && folder.contains("it does not do it"), "{folder}");
    assert_eq!(server.daemon.metric("postroad_plugins_reloads_total", "refused"), 3.0);
    // Nor does a signal, nor a restart: nobody has touched the folder since.
    server.daemon.reload();
    assert_eq!(server.generation(), 1);
    let mut server = server;
    server.daemon.kill();
    server.daemon.restart();
    let mut witness = server.witness();
    assert_eq!((server.way_of("ann", &mut witness), server.generation()), ("one".to_owned(), 1));
    server.write("b.lua", "return {}");
    assert_eq!(server.change("reload", &json!({}))["outcome"], "committed");
    assert_eq!(server.way_of("ann", &mut witness), "two");
}

/// The same from the command line: exit codes, and errors that an editor can jump to.
#[test]
fn the_command_line_says_what_the_api_says() {
    let server = Server::start(&[("a.lua", &to("one"))], &[]);
    let api = format!("http://{}", server.daemon.http_address());
    let run = |arguments: &[&str]| {
        let mut command = Command::new(binary());
        let output = command.arg("plugin").args(arguments).args(["--api", &api]).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    };
    let (code, listed, _) = run(&["list"]);
    assert!(code == 0 && listed.starts_with("generation 1, set ") && listed.contains("route(in)"), "{listed}");
    server.write("a.lua", &to("two"));
    let (code, done, _) = run(&["reload", "--canary", "10"]);
    assert!(code == 0 && done.starts_with("generation 2: canary trying, 1 plugins"), "{done}");
    assert!(run(&["list"]).1.contains("tried: generation 2, set "));
    assert_eq!(run(&["promote"]).0, 0);
    server.write("a.lua", "return {\n  = 7 }\n");
    let (code, done, why) = run(&["reload"]);
    assert_eq!((code, done.as_str()), (1, ""));
    assert!(why.contains(&format!("{}:2:", server.path("a.lua").display())), "{why}");
    assert_eq!(run(&["rollback"]).0, 0);
    let (_, history, _) = run(&["history"]);
    let actions: Vec<&str> = history.lines().skip(1).filter_map(|line| line.split_whitespace().nth(2)).collect();
    assert_eq!(actions, ["rollback", "replace", "promote", "canary", "start"], "{history}");
    assert_eq!(run(&["reload", "--canary", "0"]).0, 2);
    let check = Command::new(binary())
        .args(["check-config", "--set", &format!("plugins.dir={}", server.scripts.path().display())])
        .output()
        .unwrap();
    assert!(!check.status.success() && String::from_utf8_lossy(&check.stderr).contains("a.lua:2:"));
}

/// What SIGHUP brings, and the watch of the folder.
#[test]
fn what_is_edited_comes_with_a_signal_or_by_itself() {
    let mut server = Server::start(&[("a.lua", &to("one"))], &[]);
    server.write("a.lua", &to("two"));
    server.daemon.reload();
    wait_until("the signal brings it", || server.generation() == 2);
    server.daemon.kill();
    server.daemon.set("plugins.watch=on");
    server.daemon.restart();
    assert_eq!(server.generation(), 2);
    server.write("a.lua", &to("three"));
    wait_until("the watch brings it", || server.generation() == 3);
    let mut witness = server.witness();
    assert_eq!(server.way_of("ann", &mut witness), "three");
    fs::remove_file(server.path("a.lua")).unwrap();
    wait_until("the watch takes it", || server.generation() == 4);
    assert_eq!(server.way_of("ann", &mut witness), "in");
    // Nobody is asked now, until there is a plugin again.
    server.write("a.lua", &to("four"));
    wait_until("the watch brings it again", || server.generation() == 5);
    assert_eq!(server.way_of("ann", &mut witness), "four");
}

#[test]
fn a_set_that_fails_goes_by_itself() {
    let budget = ["plugins.error_budget_calls=10", "plugins.quarantine_after=1000000"];
    let server = Server::start(&[("a.lua", &to("one"))], &budget);
    let mut witness = server.witness();
    server.write("a.lua", "return { route = function(message) error('no') end }");
    server.change("reload", &json!({}));
    // An error leaves the message as it is, so none is lost.
    let mut ways = BTreeMap::new();
    let mut number = 0;
    wait_until("it goes back", || {
        number += 1;
        *ways.entry(server.way_of(&format!("client-{number}"), &mut witness)).or_insert(0) += 1;
        server.generation() == 3
    });
    assert!(ways["in"] >= 10, "{ways:?}");
    assert_eq!(server.way_of("ann", &mut witness), "one");
    assert_eq!(server.daemon.metric("postroad_plugins_rollbacks_total", "error_budget"), 1.0);
    assert_eq!(server.history()[0], "3 rollback committed");
    let (_, ready) = server.daemon.http("/ready");
    assert!(ready.contains("plugins went back by themselves: generation 2 failed"), "{ready}");
}

#[test]
fn a_canary_is_for_some_clients_and_then_for_all_or_none() {
    let server = Server::start(&[("a.lua", &to("old"))], &[]);
    let mut witness = server.witness();
    server.write("a.lua", &to("new"));
    let canary = json!({ "mode": "canary", "percent": 40 });
    let clients: Vec<String> = (0..50).map(|number| format!("client-{number}")).collect();
    let mut ways = || clients.iter().map(|name| server.way_of(name, &mut witness)).collect::<Vec<_>>();
    assert_eq!(server.change("reload", &canary)["outcome"], "trying");
    let first = ways();
    let new = first.iter().filter(|way| *way == "new").count();
    assert!((5..40).contains(&new), "{new} of 50");
    assert_eq!(ways(), first, "the same ones");
    assert!(server.refused("reload", &json!({})).contains("promote or abort it first"));
    server.change("abort", &json!({}));
    assert!(ways().iter().all(|way| way == "old"));
    server.change("reload", &canary);
    assert_eq!(ways(), first, "the same ones, in each canary");
    server.change("promote", &json!({}));
    assert!(ways().iter().all(|way| way == "new"));
    assert_eq!(server.refused("abort", &json!({})), "no generation is tried");
}

#[test]
fn a_shadow_changes_nothing_and_its_differences_are_counted() {
    let server = Server::start(&[("a.lua", &to("old"))], &[]);
    let mut witness = server.witness();
    server.write("a.lua", &to("new"));
    server.change("reload", &json!({ "mode": "shadow" }));
    for number in 0..20 {
        assert_eq!(server.way_of(&format!("client-{number}"), &mut witness), "old");
    }
    let differences =
        |kind: &str| server.daemon.metric("postroad_plugins_shadow_differences_total", &format!("kind=\"{kind}\""));
    assert_eq!(["topic", "payload", "decision", "error"].map(differences), [20.0, 0.0, 0.0, 0.0]);
    server.change("promote", &json!({}));
    assert_eq!(server.way_of("ann", &mut witness), "new");
}

/// Before and after the line of the history is on the disk: what comes up is one of the two sets, and whole.
#[test]
fn a_crash_in_the_middle_of_a_reload_leaves_one_set_whole() {
    let both = |way: &str| {
        [("a.lua", to(way)), ("b.lua", format!("return {{ route = function(message) message.payload = '{way}' end }}"))]
    };
    for (fault, is_undone, expected, history) in [
        ("plugins-ready", true, "old", vec!["1 start committed"]),
        ("plugins-ready", false, "new", vec!["2 start committed", "1 start committed"]),
        ("plugins-written", true, "new", vec!["2 replace committed", "1 start committed"]),
        ("plugins-written", false, "new", vec!["2 replace committed", "1 start committed"]),
    ] {
        let old = both("old");
        let old: Vec<(&str, &str)> = old.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let mut server = Server::with_faults(fault, &old);
        both("new").iter().for_each(|(name, text)| server.write(name, text));
        assert!(server.post("reload", &json!({})).is_err(), "{fault}: it crashes");
        server.daemon.wait_for_end();
        // The operator takes back what crashed the server, or does not.
        if is_undone && fault == "plugins-ready" {
            old.iter().for_each(|(name, text)| server.write(name, text));
        }
        server.daemon.set_fault("");
        server.daemon.restart();
        let mut witness = server.witness();
        for name in ["ann", "bob", "cid", "dan"] {
            server.client(name).publish("in", b"x", Qos::AtLeastOnce, false).unwrap();
            let message = witness.next_message().unwrap();
            let came = (message.topic.as_str(), std::str::from_utf8(&message.payload).unwrap());
            assert_eq!(came, (expected, expected), "{fault}");
        }
        assert_eq!(server.history(), history, "{fault}");
    }
}

const PUBLISHERS: usize = 4;
const RECEIVERS: usize = 6;
const RELOADS: u32 = 100;
/// Publishes of one publisher that are not answered.
const IN_FLIGHT: u32 = 64;

/// Writes its mark in front of each payload; and leaves everybody out of what another version has marked, so that a message that two
/// versions see is lost.
fn marking(mark: &str) -> String {
    format!(
        "return {{
           route = {{ filters = {{ 'in/+' }}, run = function(message)
             message.topic = 'out' .. string.sub(message.topic, 3)
             message.payload = '{mark}' .. message.payload
           end }},
           on_deliver = {{ filters = {{ 'out/+' }}, run = function(message, clients)
             local left_out = {{}}
             if string.sub(message.payload, 1, 1) ~= '{mark}' then
               for place = 1, #clients do left_out[place] = false end
             end
             return left_out
           end }},
         }}"
    )
}

/// [PLG-4] A hundred reloads under load: nothing is lost, repeated or out of order, no connection ends, and no message is handled by
/// two versions.
#[test]
fn a_hundred_reloads_under_load_are_felt_by_nobody() {
    let server = Server::start(&[("mark.lua", &marking("a"))], &[]);
    let is_over = AtomicBool::new(false);
    let (sent, received) = std::thread::scope(|scope| {
        let receivers: Vec<_> = (0..RECEIVERS)
            .map(|number| {
                let mut receiver = server.client(&format!("receiver-{number}"));
                receiver.subscribe("out/+", Qos::AtLeastOnce).unwrap();
                scope.spawn(move || receive_all(&mut receiver))
            })
            .collect();
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|number| {
                let mut publisher = server.client(&format!("publisher-{number}"));
                let is_over = &is_over;
                scope.spawn(move || publish_until(&mut publisher, number, is_over))
            })
            .collect();
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for reload in 0..RELOADS {
                server.write("mark.lua", &marking(if reload % 2 == 0 { "b" } else { "a" }));
                server.change("reload", &json!({}));
            }
        }));
        is_over.store(true, Ordering::Release);
        let sent: Vec<u32> = publishers.into_iter().map(|publisher| publisher.join().unwrap()).collect();
        let received: Vec<Vec<u32>> = receivers.into_iter().map(|receiver| receiver.join().unwrap()).collect();
        done.unwrap();
        (sent, received)
    });
    assert!(sent.iter().all(|count| *count > 100), "there was no load: {sent:?}");
    received.iter().for_each(|received| assert_eq!(*received, sent));
    assert_eq!(server.generation(), u64::from(RELOADS) + 1);
    assert_eq!(server.daemon.metric("postroad_plugins_strays_total", ""), 0.0);
    wait_until("older generations are gone", || server.daemon.metric("postroad_plugins_loaded_generations", "") == 2.0);
}

/// Publishes numbers until it is over, then 0 for the end; how many. Each is answered, on this one connection.
fn publish_until(client: &mut Client, publisher: usize, is_over: &AtomicBool) -> u32 {
    let (mut sent, mut answered) = (0, 0);
    let mut is_last = false;
    while answered < sent || !is_last {
        while !is_last && sent - answered < IN_FLIGHT {
            is_last = is_over.load(Ordering::Acquire);
            sent += 1;
            let number = if is_last { 0 } else { sent };
            let id = (sent % 60_000) as u16 + 1;
            let (topic, payload) = (format!("in/{publisher}"), number.to_string().into_bytes());
            let message = Message { topic, payload, qos: Qos::AtLeastOnce, dup: false, retain: false, id };
            client.send_publish(&message).unwrap();
        }
        match client.receive().unwrap() {
            Incoming::PubAck(_, ReasonCode::Success) => answered += 1,
            other => panic!("publisher {publisher} got {other:?} for its PUBACK"),
        }
    }
    sent - 1
}

/// Receives until each publisher has said its end; how many messages of each, which came in their order, each once.
fn receive_all(client: &mut Client) -> Vec<u32> {
    let mut last = [0; PUBLISHERS];
    let mut ended = 0;
    while ended < PUBLISHERS {
        let message = client.next_message().unwrap();
        let publisher: usize = message.topic.strip_prefix("out/").unwrap().parse().unwrap();
        let number: u32 = std::str::from_utf8(&message.payload[1..]).unwrap().parse().unwrap();
        if number == 0 {
            ended += 1;
        } else {
            assert_eq!(number, last[publisher] + 1, "of publisher {publisher}");
            last[publisher] = number;
        }
    }
    last.to_vec()
}
