//! The operator: acts on dead letters, one request each, as they are found.

use std::collections::BTreeSet;

use postroad_base::Qos;
use serde_json::{Value, json};

use super::ledger::{Target, Wish, payload_of, qos_of, text_of};
use super::{Doer, Shared, chance};
use crate::random::Random;

const PATH: &str = "/v1/dead-letters";
/// A lease that outlives the test: only a restart ends it.
const LEASE_SECONDS: u64 = 3_600;

/// Looks for letters and acts on some, until all comes to rest; then sends nothing again any more, so that what is left stays.
pub(super) fn work(shared: &Shared, random: Random) {
    let mut operator = Operator { shared, random, names: 0, leased: BTreeSet::new(), life: 0 };
    while !shared.is_settling() && !shared.is_over() {
        if shared.living() != operator.life {
            (operator.life, operator.leased) = (shared.living(), BTreeSet::new()); // a restart ends all leases
        }
        if operator.turn().is_none() {
            shared.ledger().count("actions without an answer");
        }
        std::thread::park_timeout(super::PAUSE);
    }
}

/// All letters there are, a page at a time.
pub(super) fn all_letters(shared: &Shared) -> Vec<Value> {
    let (mut letters, mut after) = (Vec::new(), String::new());
    loop {
        let (code, page) = shared.ask(&format!("GET {PATH}?limit=1000{after}"), &Value::Null).expect("it is running");
        assert_eq!(code, 200, "{page}");
        letters.extend(page["letters"].as_array().expect("a list").iter().cloned());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return letters,
        }
    }
}

/// Brings in a new letter of the first device, under this name, from nowhere; whether that was refused for want of room.
pub(super) fn is_import_refused(shared: &Shared, name: &str) -> bool {
    let client = super::device_name(0);
    let letter =
        json!({"topic": "dev/0", "payload": name, "qos": 1, "client": client, "reason": "refused", "died_unix_ms": 5});
    shared.ledger().asked(name, Wish::plain(Target::Device(0), Qos::AtLeastOnce));
    let Some((code, answer)) = shared.ask(&format!("POST {PATH}"), &letter) else { return false };
    let is_refused = shared.is_refusal(code, &answer);
    assert!(is_refused || code == 200, "{code} {answer}");
    let mut ledger = shared.ledger();
    if is_refused {
        ledger.refused(name)
    } else {
        ledger.published(name, None)
    }
    is_refused && code == 507
}

struct Operator<'a> {
    shared: &'a Shared,
    random: Random,
    /// New names that were given.
    names: usize,
    /// Letters that nobody else may lease in this life.
    leased: BTreeSet<String>,
    life: u64,
}

impl Operator<'_> {
    /// One look, and what comes of it. `None` where an answer is missing: what was found may not be so any more.
    fn turn(&mut self) -> Option<()> {
        let letters = if chance(&mut self.random, 250) { self.lease()? } else { self.look("limit=30")? };
        for letter in &letters {
            // They are kept for a while, so that kills meet some.
            if chance(&mut self.random, 300) {
                self.act(letter)?;
            }
        }
        Some(())
    }

    fn look(&mut self, query: &str) -> Option<Vec<Value>> {
        let (code, page) = self.shared.ask(&format!("GET {PATH}?{query}"), &Value::Null)?;
        self.found(code, page)
    }

    /// None is leased twice in one life.
    fn lease(&mut self) -> Option<Vec<Value>> {
        let asked = json!({"limit": 1 + self.random.below(10), "seconds": LEASE_SECONDS});
        let (code, page) = self.shared.ask(&format!("POST {PATH}/lease"), &asked)?;
        let letters = self.found(code, page)?;
        for letter in &letters {
            let is_new = self.leased.insert(text_of(letter, "id").to_owned());
            assert!(is_new || self.shared.living() != self.life, "it is leased twice: {letter}");
            assert!(letter["parked"].is_null(), "it is parked, and leased: {letter}");
        }
        self.shared.ledger().count("looks that lease");
        Some(letters)
    }

    fn found(&self, code: u16, page: Value) -> Option<Vec<Value>> {
        if self.shared.is_refusal(code, &page) {
            return None;
        }
        assert_eq!(code, 200, "{page}");
        let letters = page["letters"].as_array().expect("a list").clone();
        let mut ledger = self.shared.ledger();
        letters.iter().for_each(|letter| ledger.letter_seen(letter));
        Some(letters)
    }

    fn act(&mut self, letter: &Value) -> Option<()> {
        let (id, name) = (text_of(letter, "id"), payload_of(letter));
        match self.random.below(12) {
            0..=4 => self.requeue(letter, None),
            5 => self.requeue(letter, Some(Target::Device(0))),
            6 => self.drop(id, name),
            number @ (7 | 8) => self.park(id, name, Some(format!("note {number}{}", self.names))),
            9 => self.park(id, name, None),
            10 => self.release(id),
            _ => self.import(letter),
        }
    }

    /// Asks for an action; `None` without an answer, else whether it was done. A letter that was found is there: nobody else acts.
    fn ask(&self, path: &str, body: &Value) -> Option<bool> {
        self.shared.about_to(Doer::Operator);
        let (code, answer) = self.shared.ask(&format!("POST {path}"), body)?;
        if self.shared.is_refusal(code, &answer) {
            return Some(false);
        }
        assert_eq!(code, 200, "{path}: {answer}");
        Some(true)
    }

    fn requeue(&mut self, letter: &Value, topic: Option<Target>) -> Option<()> {
        let (id, name) = (text_of(letter, "id"), payload_of(letter));
        self.names += 1;
        let to = format!("r{}.{name}", self.names);
        let mut body = json!({ "payload": to });
        if let Some(topic) = topic {
            body["topic"] = json!(super::applications::topic_of(topic));
        }
        self.shared.ledger().requeues(name, &to, topic, qos_of(letter));
        let is_done = self.ask(&format!("{PATH}/{id}/requeue"), &body)?;
        let mut ledger = self.shared.ledger();
        if is_done {
            ledger.requeued(name)
        } else {
            ledger.requeue_refused(name)
        }
        Some(())
    }

    fn drop(&mut self, id: &str, name: &str) -> Option<()> {
        self.shared.ledger().drops(name);
        let is_done = self.ask(&format!("{PATH}/{id}/drop"), &Value::Null)?;
        self.shared.ledger().dropped(name, is_done);
        Some(())
    }

    fn park(&mut self, id: &str, name: &str, note: Option<String>) -> Option<()> {
        let (action, body) = note.as_ref().map_or(("unpark", Value::Null), |note| ("park", json!({ "note": note })));
        self.shared.ledger().parks(name, note);
        let is_done = self.ask(&format!("{PATH}/{id}/{action}"), &body)?;
        self.shared.ledger().parked(name, is_done);
        self.leased.remove(id); // who parks gives its lease back
        Some(())
    }

    fn release(&mut self, id: &str) -> Option<()> {
        if self.ask(&format!("{PATH}/{id}/release"), &Value::Null)? {
            self.leased.remove(id);
        }
        Some(())
    }

    /// Brings in a letter as another server has exported it: as this one is shown, under a new name.
    fn import(&mut self, letter: &Value) -> Option<()> {
        self.names += 1;
        let name = format!("i-{}", self.names);
        let target = self.shared.ledger().wish_of(payload_of(letter)).target;
        let mut copy = letter.clone();
        copy["payload"] = json!(name);
        copy["message_id"] = Value::Null;
        copy["parked"] = Value::Null;
        self.shared.ledger().asked(&name, Wish::plain(target, qos_of(letter)));
        let is_done = self.ask(PATH, &copy)?;
        let mut ledger = self.shared.ledger();
        if is_done {
            ledger.published(&name, None);
            ledger.count("imported");
        } else {
            ledger.refused(&name);
            ledger.count("imports refused");
        }
        Some(())
    }
}
