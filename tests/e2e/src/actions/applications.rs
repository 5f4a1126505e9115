//! Applications: they publish through the API, take from the consumer group, and acknowledge in the place of a device.

use std::collections::BTreeMap;

use postroad_base::Qos;
use serde_json::{Value, json};

use super::ledger::{Ledger, Target, Wish, payload_of, text_of};
use super::{AWAY, Doer, GROUP, Shared, chance, device_name, unix_ms};
use crate::http;
use crate::random::Random;

/// Keys that are repeated long after they were answered.
const KEYS_REMEMBERED: usize = 40;
/// A lease that outlives the test: only a restart ends it.
const LEASE_SECONDS: u64 = 3_600;

/// A wish, with the message that asks for it.
fn wanted(name: &str, random: &mut Random) -> (Wish, Value) {
    let target = match random.below(AWAY as u64 + 3) as usize {
        device @ 0..=AWAY => Target::Device(device),
        _ => Target::Group,
    };
    let qos = if random.below(2) == 0 { Qos::AtLeastOnce } else { Qos::ExactlyOnce };
    let mut wish = Wish::plain(target, qos);
    let priority = ["high", "normal", "low"][random.below(3) as usize];
    let mut wishes = json!({ "priority": priority });
    let mut message = json!({"topic": topic_of(target), "payload": name, "qos": qos.number()});
    match random.below(8) {
        0 => {
            wish.collapse_key = Some(random.below(3));
            wishes["collapse_key"] = json!(format!("key {:?}", wish.collapse_key));
        }
        1 => {
            wish.deliver_at = Some(unix_ms() + random.below(2_500));
            wishes["deliver_at_unix_ms"] = json!(wish.deliver_at);
        }
        2 => {
            wish.is_short = random.below(2) == 0;
            message["ttl_seconds"] = json!(if wish.is_short { 1 } else { 3_600 });
        }
        3 => wishes["receipt"] = json!("acknowledged"),
        4 => wishes["retry_attempts_max"] = json!(3),
        _ => {}
    }
    message["wishes"] = wishes;
    (wish, message)
}

/// Where it goes to.
pub(super) fn topic_of(target: Target) -> String {
    match target {
        Target::Device(device) => format!("dev/{device}"),
        Target::Group => "g/1".to_owned(),
    }
}

/// Publishes and never asks twice: what was not answered may be there or not.
pub(super) fn publish(shared: &Shared, mut random: Random) {
    let mut number = 0;
    while !shared.is_settling() && !shared.is_over() {
        let name = format!("p-{number}");
        number += 1;
        let (wish, message) = wanted(&name, &mut random);
        shared.living();
        shared.ledger().asked(&name, wish);
        shared.about_to(Doer::Publisher);
        let Some((code, answer)) = shared.ask("POST /v1/messages", &message) else { continue };
        if shared.is_refusal(code, &answer) {
            shared.ledger().refused(&name);
            shared.ledger().count("publishes refused");
            continue;
        }
        assert_eq!(code, 200, "{message}: {answer}");
        shared.ledger().published(&name, Some(text_of(&answer, "id")));
    }
}

/// Publishes under keys: what was not answered is repeated until it is, and what was answered now and then, too.
pub(super) fn publish_under_keys(shared: &Shared, mut random: Random) {
    let mut answered: Vec<(String, Value)> = Vec::new();
    let mut number = 0;
    while !shared.is_settling() && !shared.is_over() {
        let name = format!("k-{number}");
        number += 1;
        let (wish, mut message) = wanted(&name, &mut random);
        message["wishes"]["idempotency_key"] = json!(name);
        shared.living();
        shared.ledger().asked(&name, wish);
        publish_until_answered(shared, &name, &message);
        if answered.len() == KEYS_REMEMBERED {
            answered.swap_remove(random.below(KEYS_REMEMBERED as u64) as usize);
        }
        answered.push((name, message));
        if chance(&mut random, 300) {
            let (name, message) = &answered[random.below(answered.len() as u64) as usize];
            publish_until_answered(shared, name, message);
            shared.ledger().count("keys repeated");
        }
    }
}

fn publish_until_answered(shared: &Shared, name: &str, message: &Value) {
    while !shared.is_over() {
        shared.about_to(Doer::Publisher);
        let Some((code, answer)) = shared.ask("POST /v1/messages", message) else {
            shared.ledger().count("keys without an answer");
            continue;
        };
        if shared.is_refusal(code, &answer) {
            // The key is free again; once there is room it is published.
            std::thread::park_timeout(super::PAUSE);
            continue;
        }
        assert_eq!(code, 200, "{message}: {answer}");
        shared.ledger().published(name, Some(text_of(&answer, "id")));
        return;
    }
}

/// Takes from the group; acknowledges, refuses, gives up or keeps what it has.
pub(super) fn consume(shared: &Shared, mut random: Random) {
    let mut consumer = Consumer { shared, life: 0, held: BTreeMap::new() };
    while !shared.is_over() {
        let life = shared.living();
        if life != consumer.life {
            (consumer.life, consumer.held) = (life, BTreeMap::new()); // a restart ends all leases
        }
        let asked = json!({"limit": 1 + random.below(8), "lease_seconds": LEASE_SECONDS});
        shared.about_to(Doer::Consumer);
        let Some((code, taken)) = shared.ask(&format!("POST /v1/groups/{GROUP}/take"), &asked) else { continue };
        if !shared.is_refusal(code, &taken) {
            assert_eq!(code, 200, "{taken}");
            consumer.decide(taken["deliveries"].as_array().expect("a list"), &mut random);
        }
    }
}

/// What a consumer does with a delivery, as often as it stands here.
const DECISIONS: [&str; 10] = [
    "acknowledge",
    "acknowledge",
    "acknowledge",
    "acknowledge",
    "acknowledge",
    "refuse",
    "refuse",
    "dead",
    "extend",
    "hold",
];

struct Consumer<'a> {
    shared: &'a Shared,
    /// The life in which it took what it holds.
    life: u64,
    /// Names of messages and of their deliveries.
    held: BTreeMap<String, String>,
}

impl Consumer<'_> {
    fn decide(&mut self, deliveries: &[Value], random: &mut Random) {
        let mut decided: BTreeMap<&str, Vec<(String, String)>> = BTreeMap::new();
        let is_settling = self.shared.is_settling();
        for delivery in deliveries {
            let (id, name) = (text_of(delivery, "delivery").to_owned(), payload_of(delivery).to_owned());
            let again = delivery["may_repeat"].as_bool().expect("it is said");
            self.shared.ledger().came(&name, Target::Group, again, unix_ms());
            assert!(!self.held.contains_key(&name) || self.is_killed(), "{name} is leased, and given again");
            let what = if is_settling { 0 } else { random.below(DECISIONS.len() as u64) as usize };
            decided.entry(DECISIONS[what]).or_default().push((name, id));
        }
        if is_settling {
            decided.entry("acknowledge").or_default().extend(std::mem::take(&mut self.held));
        }
        decided
            .into_iter()
            .filter(|(_, deliveries)| !deliveries.is_empty())
            .for_each(|(what, deliveries)| self.say(what, deliveries));
        if deliveries.is_empty() {
            std::thread::park_timeout(super::PAUSE);
        }
    }

    fn is_killed(&self) -> bool {
        self.shared.living() != self.life
    }

    /// Says of these deliveries what becomes of them.
    fn say(&mut self, what: &str, deliveries: Vec<(String, String)>) {
        let ids: Vec<&String> = deliveries.iter().map(|(_, id)| id).collect();
        let (path, body) = match what {
            "acknowledge" => ("acknowledge", json!({ "deliveries": ids })),
            "refuse" => ("refuse", json!({"deliveries": ids, "after_seconds": 0})),
            "dead" => ("refuse", json!({"deliveries": ids, "dead": true, "reason": "odd"})),
            "extend" => ("extend", json!({"deliveries": ids, "lease_seconds": LEASE_SECONDS})),
            _ => return self.held.extend(deliveries),
        };
        if path == "acknowledge" {
            let mut ledger = self.shared.ledger();
            deliveries.iter().for_each(|(name, _)| ledger.handed_out(name));
        }
        self.shared.about_to(Doer::Consumer);
        let answer = self.shared.ask(&format!("POST /v1/groups/{GROUP}/{path}"), &body);
        if what == "extend" {
            self.held.extend(deliveries.iter().cloned());
        }
        let Some((code, answer)) = answer.filter(|(code, answer)| !self.shared.is_refusal(*code, answer)) else {
            return;
        };
        assert_eq!(code, 200, "{what}: {answer}");
        let gone = answer["gone"].as_array().expect("a list");
        // After a restart, of what is only stored the old name is not known.
        assert!(gone.is_empty() || self.is_killed(), "{what}: nobody else has them: {answer}");
        if path == "acknowledge" {
            let mut ledger = self.shared.ledger();
            deliveries.iter().filter(|(_, id)| !gone.contains(&json!(id))).for_each(|(name, _)| ledger.stored(name));
        }
    }
}

/// Looks at what waits for the device that stays away, and acknowledges in its place.
pub(super) fn support(shared: &Shared, mut random: Random) {
    let path = format!("/v1/clients/{}/messages", device_name(AWAY));
    while !shared.is_over() {
        let page = shared.ask(&format!("GET {path}?limit={}", 1 + random.below(20)), &Value::Null);
        let Some((code, page)) = page.filter(|(code, body)| !shared.is_refusal(*code, body)) else { continue };
        assert_eq!(code, 200, "{page}");
        let mut ended: Vec<(String, String)> = Vec::new();
        for delivery in page["deliveries"].as_array().expect("a list") {
            let (id, name) = (text_of(delivery, "id").to_owned(), payload_of(delivery).to_owned());
            let mut ledger = shared.ledger();
            ledger.shown(&name, Target::Device(AWAY), shared.life());
            if shared.is_settling() || chance(&mut random, 300) {
                ledger.handed_out(&name);
                ended.push((name, id));
            }
        }
        if ended.is_empty() {
            std::thread::park_timeout(super::PAUSE * 5);
            continue;
        }
        let ids: Vec<&String> = ended.iter().map(|(_, id)| id).collect();
        let answer = shared.ask(&format!("POST {path}/acknowledge"), &json!({ "deliveries": ids }));
        let Some((code, answer)) = answer.filter(|(code, body)| !shared.is_refusal(*code, body)) else { continue };
        assert_eq!(code, 200, "{answer}");
        let mut ledger = shared.ledger();
        let acknowledged = answer["acknowledged"].as_array().expect("a list");
        ended.iter().filter(|(_, id)| acknowledged.contains(&json!(id))).for_each(|(name, _)| {
            ledger.note(name, format!("acknowledged in life {}", shared.life()));
            ledger.stored(name);
        });
    }
}

/// No receipt tells what was not: a message that nobody was given is acknowledged by nobody, and none is replaced or too old that can't be.
/// (Those of the last moment before a kill may be lost.)
pub(super) fn judge_receipts(shared: &Shared, ledger: &Ledger) {
    let headers = [("Accept", "application/x-ndjson")];
    let told = http::request(shared.http.address(), "GET /v1/receipts?after=0&follow=false", &headers, b"")
        .expect("it is running");
    assert_eq!(told.code, 200, "{told:?}");
    for line in told.body.lines().filter(|line| !line.is_empty()) {
        let step: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let Some(name) = ledger.name_of(text_of(&step, "message_id")) else { continue };
        match (step["step"].as_str(), step["reason"].as_str()) {
            (Some("acknowledged"), _) => assert!(ledger.has_come(name), "{name} was acknowledged by nobody: {step}"),
            (_, Some("expired")) => assert!(ledger.wish_of(name).is_short, "{name} can't expire: {step}"),
            (_, Some("collapsed")) => assert!(ledger.wish_of(name).collapse_key.is_some(), "{name} has no key: {step}"),
            _ => {}
        }
    }
}
