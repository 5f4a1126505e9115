//! Plugins of a shard, as the simulator wants them: what publishers say goes through them, and what is refused is repaired by them.
//!
//! Publishers publish below `raw/`; what comes of it is the message that the oracle knows, and an echo of it, a part of its own, that is pushed to
//! the second subscriber. So all that is promised of a publish holds for what plugins made of it, and for its echo that it comes, if the
//! publish was acknowledged. A seeded share of calls fails, and the publisher is refused (its connection ends, and it sends again). A
//! share of dead letters is requeued.
//!
//! What is checked here: on each shard a message is handled by the generation that has seen it first, and none that is settled is asked.

use std::cell::RefCell;
use std::rc::Rc;

use base::{ClientId, Message, Now, Qos, ReasonCode, Requeue, TopicFilter, TopicName};
use postroad_base as base;
use postroad_broker::api::{Connect, DisconnectCause};
use postroad_broker::hooks::{Admission, Answer, Decision, Hooks, Peer, Repair, Stamp};

use crate::oracle::{Name, PUSH_TOPIC, SHARED_TOPIC};
use crate::random::Random;

/// What publishers publish below.
pub const RAW: &str = "raw/";
/// To whom echoes are pushed.
pub const ECHOED_TO: usize = 1;
/// The publisher of the first echo: each has one of its own.
const ECHO: usize = 1_000;

/// The echo of a message.
pub fn echo_of(name: Name) -> Name {
    let publisher = ECHO + name.publisher * 100 + name.topic * 3 + usize::from(name.qos);
    Name { publisher, topic: PUSH_TOPIC + ECHOED_TO, qos: 1, number: name.number }
}

/// Whether it is one.
pub fn is_echo(message: &Message) -> bool {
    Name::parse(&message.payload).is_some_and(|name| name.publisher >= ECHO)
}

/// What all shards' plugins have in common.
#[derive(Debug)]
pub struct Seen {
    /// Of a thousand calls so many fail.
    pub failures: usize,
    pub random: Random,
    /// What went wrong.
    pub broken: Option<String>,
    /// How often plugins were asked, failed, and repaired.
    pub asked: usize,
    pub failed: usize,
    pub repaired: usize,
}

impl Seen {
    pub fn new(seed: u64, failures: usize) -> Rc<RefCell<Self>> {
        let random = Random::new(seed ^ 0x9e37_79b9);
        Rc::new(RefCell::new(Self { failures, random, broken: None, asked: 0, failed: 0, repaired: 0 }))
    }
}

/// The plugins of one shard.
#[derive(Debug)]
pub struct Plugins {
    seen: Rc<RefCell<Seen>>,
    generation: Rc<RefCell<Generation>>,
}

/// Where a shard's plugins stand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Generation {
    pub current: u32,
    /// Nothing older is to be asked for.
    pub settled: u32,
}

impl Plugins {
    pub fn new(seen: &Rc<RefCell<Seen>>, generation: &Rc<RefCell<Generation>>) -> Self {
        Self { seen: Rc::clone(seen), generation: Rc::clone(generation) }
    }
}

/// Who reads a name does not look behind the mark.
fn marked(name: Name, stamp: Stamp) -> String {
    format!("{}#by {}", name.text(), stamp.0)
}

/// By which generation it was made.
fn mark_of(message: &Message) -> Option<Stamp> {
    let text = std::str::from_utf8(&message.payload).ok()?;
    text.split_once("#by ")?.1.parse().ok().map(Stamp)
}

fn echo(message: &Message, name: Name, stamp: Stamp) -> Message {
    Message {
        topic: crate::client::topic_name(PUSH_TOPIC + ECHOED_TO),
        payload: marked(echo_of(name), stamp).into(),
        qos: Qos::AtLeastOnce,
        extras: None,
        ..message.clone()
    }
}

impl Hooks for Plugins {
    fn publish(&mut self, _: Now, message: &Message, _: Peer<'_>) -> (Stamp, Answer<Decision>) {
        let stamp = Stamp(self.generation.borrow().current);
        let Some(topic) = message.topic.as_str().strip_prefix(RAW) else { return (stamp, Decision::Keep.into()) };
        let mut seen = self.seen.borrow_mut();
        seen.asked += 1;
        let failures = seen.failures;
        if failures > 0 && seen.random.chance(failures) {
            seen.failed += 1;
            return (stamp, Decision::Refuse(ReasonCode::ImplementationSpecificError).into());
        }
        let topic = TopicName::new(topic.to_owned()).expect("a topic without its first level");
        let name = Name::parse(&message.payload).expect("a publisher's text");
        let made = Message { topic, payload: marked(name, stamp).into(), ..message.clone() };
        (stamp, Decision::Replace(vec![echo(message, name, stamp), made]).into())
    }

    fn wants_deliveries(&self, _: Stamp, topic: &str) -> bool {
        topic != format!("t/{SHARED_TOPIC}") // of a share group what waits for credit may come later than its generation goes
    }

    fn deliver(&mut self, _: Now, stamp: Stamp, message: &Message, _: &[&ClientId]) -> Vec<usize> {
        let mut seen = self.seen.borrow_mut();
        let Generation { settled, .. } = *self.generation.borrow();
        let made = mark_of(message).filter(|_| message.extras.as_ref().is_none_or(|extras| extras.original.is_none()));
        if made.is_some_and(|made| made != stamp) {
            seen.broken = Some(format!("{:?} was made by {made:?}, and is handled by {stamp:?}", message.payload));
        }
        // In the line of a key it may wait for credit for longer.
        let has_key = message.wishes().is_some_and(|wishes| wishes.idempotency_key.is_some());
        if stamp.0 > 0 && stamp.0 < settled && !has_key {
            seen.broken = Some(format!("{:?} comes with {stamp:?}, but {settled} is settled", message.id));
        }
        Vec::new()
    }

    fn wants_letters(&self, _: &str) -> bool {
        true
    }

    fn dead_letter(&mut self, _: Now, _: &Message) -> Answer<Repair> {
        let mut seen = self.seen.borrow_mut();
        if !seen.random.chance(500) {
            return Repair::Keep.into();
        }
        seen.repaired += 1;
        Repair::Requeue(Requeue::default()).into()
    }

    fn connect(&mut self, _: Now, _: &Connect) -> Answer<Admission> {
        Admission::Allow.into()
    }

    fn disconnected(&mut self, _: Now, _: Peer<'_>, _: DisconnectCause) -> Vec<Message> {
        Vec::new()
    }

    fn subscribe(&mut self, _: Now, _: Peer<'_>, _: &TopicFilter, qos: Qos) -> Answer<Result<Qos, ReasonCode>> {
        Ok(qos).into()
    }
}
