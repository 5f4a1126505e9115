//! A generation that answers nobody: it is asked after the one that does, about the same, and what differs is counted by kind.

use base::{ClientId, Message, Now, Qos, ReasonCode, TopicFilter};
use broker::api::{Connect, DisconnectCause};
use broker::hooks::{Admission, Answer, Decision, Peer, Repair};
use postroad_base as base;
use postroad_broker as broker;

use crate::Vm;

/// What can differ. Of one call each is counted once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// What becomes of it: kept, dropped, refused, let in.
    Decision,
    Topic,
    Payload,
    /// Who gets it, or how many messages it becomes, and what is published besides.
    Targets,
    /// Anything else of a message: level, time to live, priority.
    Wishes,
    /// The shadow failed.
    Error,
}

const NAMES: [&str; 6] = ["decision", "topic", "payload", "targets", "wishes", "error"];

/// See the module head.
#[derive(Debug)]
pub(super) struct Shadow {
    vm: Vm,
    differences: [u64; NAMES.len()],
}

impl Shadow {
    pub(super) fn new(vm: Vm) -> Self {
        Self { vm, differences: [0; NAMES.len()] }
    }

    pub(super) fn differences(&self) -> Vec<(&'static str, u64)> {
        NAMES.into_iter().zip(self.differences).collect()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.vm.memory_bytes()
    }

    pub(super) fn wants_deliveries(&self, topic: &str) -> bool {
        self.vm.wants_deliveries(topic)
    }

    pub(super) fn wants_letters(&self, topic: &str) -> bool {
        self.vm.wants_letters(topic)
    }

    pub(super) fn publish(&mut self, now: Now, message: &Message, from: Peer<'_>, theirs: &Answer<Decision>) {
        let ours = self.ask(|vm| vm.publish(now, message, from));
        self.compare_published(&ours.publish, &theirs.publish);
        match (becomes(&ours.answer, message), becomes(&theirs.answer, message)) {
            (Some(ours), Some(theirs)) => self.compare_messages(ours, theirs),
            _ => self.compare(Kind::Decision, &ours.answer, &theirs.answer),
        }
    }

    pub(super) fn deliver(&mut self, now: Now, message: &Message, to: &[&ClientId], theirs: &[usize]) {
        let ours = match self.wants_deliveries(message.topic.as_str()) {
            true => self.ask(|vm| vm.deliver(now, message, to)),
            false => Vec::new(),
        };
        self.compare(Kind::Targets, &*ours, theirs);
    }

    pub(super) fn dead_letter(&mut self, now: Now, letter: &Message, theirs: &Answer<Repair>) {
        let ours = match self.wants_letters(letter.topic.as_str()) {
            true => self.ask(|vm| vm.dead_letter(now, letter)),
            false => Answer::default(),
        };
        self.compare(Kind::Decision, &ours.answer, &theirs.answer);
        self.compare_published(&ours.publish, &theirs.publish);
    }

    pub(super) fn connect(&mut self, now: Now, connect: &Connect, theirs: &Answer<Admission>) {
        let ours = self.ask(|vm| vm.connect(now, connect));
        self.compare(Kind::Decision, &ours.answer, &theirs.answer);
        self.compare_published(&ours.publish, &theirs.publish);
    }

    pub(super) fn disconnected(&mut self, now: Now, peer: Peer<'_>, cause: DisconnectCause, theirs: &[Message]) {
        let ours = self.ask(|vm| vm.disconnected(now, peer, cause));
        self.compare_published(&ours, theirs);
    }

    pub(super) fn subscribe(
        &mut self,
        now: Now,
        peer: Peer<'_>,
        (filter, qos): (&TopicFilter, Qos),
        theirs: &Answer<Result<Qos, ReasonCode>>,
    ) {
        let ours = self.ask(|vm| vm.subscribe(now, peer, filter, qos));
        self.compare(Kind::Decision, &ours.answer, &theirs.answer);
        self.compare_published(&ours.publish, &theirs.publish);
    }

    fn ask<T>(&mut self, call: impl FnOnce(&mut Vm) -> T) -> T {
        let before = self.vm.failed();
        let answer = call(&mut self.vm);
        self.note(Kind::Error, self.vm.failed() != before);
        answer
    }

    fn note(&mut self, kind: Kind, differs: bool) {
        self.differences[kind as usize] += u64::from(differs);
    }

    fn compare<T: PartialEq + ?Sized>(&mut self, kind: Kind, ours: &T, theirs: &T) {
        self.note(kind, ours != theirs);
    }

    fn compare_published(&mut self, ours: &[Message], theirs: &[Message]) {
        self.compare(Kind::Targets, ours, theirs);
    }

    fn compare_messages(&mut self, ours: &[Message], theirs: &[Message]) {
        if ours.len() != theirs.len() {
            return self.note(Kind::Targets, true);
        }
        let differs = |differ: fn(&Message, &Message) -> bool| ours.iter().zip(theirs).any(|(a, b)| differ(a, b));
        let kinds = [
            (Kind::Topic, differs(|a, b| a.topic != b.topic)),
            (Kind::Payload, differs(|a, b| a.payload != b.payload)),
            (Kind::Wishes, differs(|a, b| rest(a) != rest(b))),
        ];
        kinds.into_iter().for_each(|(kind, differs)| self.note(kind, differs));
    }
}

/// The messages that go on, if any do.
fn becomes<'a>(decision: &'a Decision, message: &'a Message) -> Option<&'a [Message]> {
    match decision {
        Decision::Keep => Some(std::slice::from_ref(message)),
        Decision::Replace(messages) => Some(messages),
        Decision::Drop | Decision::Refuse(_) | Decision::Park(_) => None,
    }
}

/// What a publisher wishes of a message besides topic and payload.
fn rest(message: &Message) -> impl PartialEq + '_ {
    (message.qos, message.retain, message.expires_at, &message.properties, message.wishes())
}
