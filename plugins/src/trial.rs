//! Plugins beside the road: what they would do with messages and letters that somebody kept, and what a call costs. Nothing is published by it.
//!
//! A clock is read here only to measure calls ([`measure`]); time is an argument, as everywhere.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use base::{
    ClientId, ConnectionId, Death, Extras, Message, MessageId, MonoMillis, Now, Outcome, Qos, QueueId, ReasonCode,
    SessionExpiry, ShardId, TopicFilter, TopicName, WallMillis,
};
use broker::api::{ClientName, Connect, DisconnectCause, Principal};
use broker::hooks::{Answer, Decision, Peer, Repair};
use bytestring::ByteString;
use postroad_base as base;
use postroad_broker as broker;

use crate::{Diagnostic, Failure, Hook, Limits, Saved, Set, Stores, Vm};

/// Who publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publisher {
    /// Its name.
    pub client: ClientId,
    /// Who it proved to be.
    pub user: Option<ByteString>,
    /// Its groups.
    pub groups: Vec<ByteString>,
    /// It is an application: only `route` is asked.
    pub is_application: bool,
}

/// What would be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Done {
    /// Nothing: it goes on, or stays, as it is.
    Keep,
    /// These go on in its place.
    Replace(Vec<Message>),
    /// It goes to nobody; a letter is over.
    Drop,
    /// Its publisher would hear this.
    Refuse(ReasonCode),
    /// A human would look at it.
    Park(String),
    /// The letter is sent to its client again, like this.
    Requeue(Message),
    /// The letter is over, and this is published.
    Publish(Message),
}

/// What would be done, and what besides.
#[derive(Clone, Debug, PartialEq)]
pub struct Tried {
    /// With the message or letter.
    pub done: Done,
    /// Published besides.
    pub besides: Vec<Message>,
    /// What went wrong.
    pub failures: Vec<Failure>,
}

/// Plugins that are tried.
#[derive(Debug)]
pub struct Trial {
    vm: Vm,
    set: Set,
}

impl Trial {
    /// Of these plugins, as a server has them at its start.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn new(set: &Set, limits: &Limits, now: WallMillis) -> Result<Self, Vec<Diagnostic>> {
        let stores = Rc::new(RefCell::new(Stores::new()));
        let mut vm = Vm::new(&set.compile(limits)?, limits, ShardId(0), stores)?;
        vm.load(at(now), &Saved::default()).map_err(|diagnostic| vec![diagnostic])?;
        Ok(Self { vm, set: set.clone() })
    }

    /// What would become of a message.
    pub fn publish(&mut self, now: WallMillis, message: &Message, from: &Publisher) -> Tried {
        let principal = Principal { user: from.user.clone(), groups: from.groups.clone().into() };
        let peer = Peer { client: &from.client, principal: &principal, is_application: from.is_application };
        let Answer { answer, publish } = self.vm.publish(at(now), message, peer);
        let done = match answer {
            Decision::Keep => Done::Keep,
            Decision::Replace(mut messages) => {
                messages.iter_mut().for_each(|made| made.qos = made.qos.min(message.qos));
                Done::Replace(messages)
            }
            Decision::Drop => Done::Drop,
            Decision::Refuse(reason) => Done::Refuse(reason),
            Decision::Park(note) => Done::Park(note.to_string()),
        };
        self.tried(done, publish)
    }

    /// What would become of a dead letter.
    pub fn dead_letter(&mut self, now: WallMillis, letter: &Message) -> Tried {
        if !self.vm.wants_letters(letter.topic.as_str()) {
            return self.tried(Done::Keep, Vec::new());
        }
        let Answer { answer, publish } = self.vm.dead_letter(at(now), letter);
        let done = match answer {
            Repair::Keep => Done::Keep,
            Repair::Requeue(base::Requeue { payload, ttl_seconds }) => {
                let payload = payload.unwrap_or_else(|| letter.payload.clone());
                let expires_at = ttl_seconds.map(|seconds| now.after(1000 * u64::from(seconds)));
                Done::Requeue(Message { payload, expires_at, ..letter.clone() })
            }
            Repair::Publish(made) => Done::Publish(*made),
            Repair::Drop => Done::Drop,
            Repair::Park(note) => Done::Park(note.to_string()),
        };
        self.tried(done, publish)
    }

    fn tried(&mut self, done: Done, besides: Vec<Message>) -> Tried {
        Tried { done, besides, failures: self.vm.take_failures() }
    }
}

/// The clock that never steps has no meaning here, but that it goes on.
fn at(now: WallMillis) -> Now {
    Now { mono: MonoMillis(now.0), wall: now }
}

// What a call costs.

/// What calls of a hook cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// What was asked.
    pub hook: &'static str,
    /// How often.
    pub calls: usize,
    /// Of these so many failed.
    pub errors: usize,
    /// Nanoseconds: half of the calls took no longer. What reading the clock takes is taken off.
    pub median_ns: u64,
    /// 99 in a hundred took no longer.
    pub p99_ns: u64,
    /// On the average.
    pub mean_ns: f64,
    /// Bytes that a call asks Lua's allocator for, on the average.
    pub bytes: f64,
    /// Instructions on the average, as far as they are counted: by thousands, and what C does for the script.
    pub instructions: f64,
}

/// What `bench` asks a hook about, call after call.
#[derive(Debug)]
pub struct Subjects {
    /// Messages, for `on_inbound`, `route` and `on_deliver`. Empty: synthetic ones, which the hook's filters let pass.
    pub messages: Vec<Message>,
    /// Bytes of the payload of synthetic ones.
    pub payload_bytes: usize,
}

/// What hooks are measured for, and by which of them a plugin has it.
const MEASURED: [(&str, Hook); 7] = [
    ("on_inbound and route", Hook::Inbound),
    ("route", Hook::Route),
    ("on_deliver", Hook::Deliver),
    ("on_dead_letter", Hook::DeadLetter),
    ("on_connect", Hook::Connect),
    ("on_disconnect", Hook::Disconnect),
    ("on_subscribe", Hook::Subscribe),
];

/// Measures every hook that one of the plugins has: all of them as a chain.
pub fn measure(trial: &mut Trial, subjects: &Subjects, calls: usize, now: WallMillis) -> Vec<Measured> {
    let has = |trial: &Trial, hook: Hook| {
        trial.vm.figures().iter().any(|one| one.hooks.iter().any(|(known, _)| *known == hook))
    };
    let measured = MEASURED.into_iter().filter(|(_, hook)| has(trial, *hook)).collect::<Vec<_>>();
    measured.into_iter().map(|(name, hook)| measure_hook(trial, name, hook, subjects, calls, at(now))).collect()
}

fn measure_hook(
    trial: &mut Trial,
    name: &'static str,
    hook: Hook,
    subjects: &Subjects,
    calls: usize,
    now: Now,
) -> Measured {
    let messages = if subjects.messages.is_empty() {
        synthetic(trial, hook, subjects.payload_bytes)
    } else {
        subjects.messages.clone()
    };
    let messages: Vec<Message> = messages
        .into_iter()
        .map(|message| if hook == Hook::DeadLetter { letter_of(message, now.wall) } else { message })
        .collect();
    let ask = Asking::new();
    let clock = cost_of_clock();
    let errors_before = errors(&trial.vm);
    // What the first calls build, later ones find.
    (0..calls / 10 + 1).for_each(|call| ask.ask(&mut trial.vm, hook, &messages[call % messages.len()], now));
    let (bytes, instructions) = (trial.vm.allocated_bytes(), trial.vm.instructions_spent());
    let mut times: Vec<u64> = (0..calls)
        .map(|call| {
            let message = &messages[call % messages.len()];
            let start = Instant::now();
            ask.ask(&mut trial.vm, hook, message, now);
            (start.elapsed().as_nanos() as u64).saturating_sub(clock)
        })
        .collect();
    let per_call = |total: u64| total as f64 / calls as f64;
    let (bytes, instructions) = (trial.vm.allocated_bytes() - bytes, trial.vm.instructions_spent() - instructions);
    let mean_ns = per_call(times.iter().sum());
    times.sort_unstable();
    Measured {
        hook: name,
        calls,
        errors: (errors(&trial.vm) - errors_before) as usize,
        median_ns: times[calls / 2],
        p99_ns: times[calls * 99 / 100],
        mean_ns,
        bytes: per_call(bytes),
        instructions: per_call(instructions),
    }
}

fn errors(vm: &Vm) -> u64 {
    vm.figures().iter().flat_map(|figures| figures.hooks.iter().map(|(_, figures)| figures.errors)).sum()
}

/// The median of two reads with nothing between them.
fn cost_of_clock() -> u64 {
    let mut times: Vec<u64> = (0..1_001).map(|_| Instant::now().elapsed().as_nanos() as u64).collect();
    times.sort_unstable();
    times[500]
}

/// One message for each filter of the hook: `+` is `x`, `#` is `x/y`.
fn synthetic(trial: &Trial, hook: Hook, payload_bytes: usize) -> Vec<Message> {
    let filters = trial.set.sources().iter().flat_map(|source| trial.vm.filters_of(&source.name, hook));
    let mut topics: Vec<String> = filters.map(|filter| filter.replace('+', "x").replace('#', "x/y")).collect();
    if topics.is_empty() {
        topics.push("bench/topic".to_owned());
    }
    let message = |topic: String| Message {
        id: MessageId(1),
        topic: TopicName::new(topic).expect("a filter without wildcards is a topic"),
        payload: vec![b'x'; payload_bytes].into(),
        properties: bytes::Bytes::new(),
        qos: Qos::AtLeastOnce,
        retain: false,
        expires_at: None,
        publisher: QueueId::NONE,
        extras: None,
    };
    topics.into_iter().map(message).collect()
}

fn letter_of(message: Message, now: WallMillis) -> Message {
    if message.death().is_some() {
        return message;
    }
    let death = Death {
        client: ClientId::from("bench"),
        is_push: false,
        is_group: false,
        outcome: Outcome::Attempts,
        reason_code: 0,
        attempts: 5,
        sent: None,
        at: now,
        error: None,
    };
    let known = message.extras.as_deref().cloned().unwrap_or_default();
    Message { extras: Some(Box::new(Extras { death: Some(Box::new(death)), ..known })), ..message }
}

/// Who asks in a measurement.
struct Asking {
    client: ClientId,
    principal: Principal,
    connect: Connect,
    filter: TopicFilter,
}

impl Asking {
    fn new() -> Self {
        let (client, principal) =
            (ClientId::from("bench"), Principal { user: Some("bench".into()), groups: [].into() });
        let connect = Connect {
            connection: ConnectionId(1),
            client: client.clone(),
            name: ClientName::Chosen,
            principal: principal.clone(),
            clean_start: false,
            expiry: SessionExpiry::NEVER,
            receive_maximum: u16::MAX,
            delivery: None,
            will: None,
            hears_refusals: true,
            resend: broker::Resend::default(),
        };
        let filter = TopicFilter::new("bench/#").expect("it is one");
        Self { client, principal, connect, filter }
    }

    fn ask(&self, vm: &mut Vm, hook: Hook, message: &Message, now: Now) {
        let peer = Peer { client: &self.client, principal: &self.principal, is_application: hook == Hook::Route };
        match hook {
            Hook::Deliver => drop(vm.deliver(now, message, &[&self.client])),
            Hook::DeadLetter => drop(vm.dead_letter(now, message)),
            Hook::Connect => drop(vm.connect(now, &self.connect)),
            Hook::Disconnect => drop(vm.disconnected(now, peer, DisconnectCause::Lost)),
            Hook::Subscribe => drop(vm.subscribe(now, peer, &self.filter, Qos::AtLeastOnce)),
            _ => drop(vm.publish(now, message, peer)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{PluginName, Source};

    const NOW: WallMillis = WallMillis(1_767_225_600_000);

    fn trial(text: &str) -> Trial {
        let source = Source::new(PluginName::new("demo").expect("a name"), "demo.lua", text);
        let set = Set::from_sources(vec![source]).expect("one");
        Trial::new(&set, &Limits::default(), NOW).expect("it loads")
    }

    fn message(topic: &str) -> Message {
        let mut message = synthetic(&trial("return {}"), Hook::Route, 3).remove(0);
        message.topic = TopicName::new(topic).expect("a topic");
        message
    }

    fn publisher() -> Publisher {
        Publisher { client: ClientId::from("c"), user: None, groups: Vec::new(), is_application: false }
    }

    #[test]
    fn what_would_be_done_is_told() {
        let mut trial = trial(
            "return { route = function(m)\n if m.topic == 'drop' then return postroad.drop() end\n if m.topic == 'bad' then error('bad') end\n \
             m.topic = 'x/' .. m.topic\nend,\n on_dead_letter = { filters = { 'big' }, run = function(l) l.payload = 'x' return postroad.requeue() end } }",
        );
        let mut done = |topic: &str| trial.publish(NOW, &message(topic), &publisher());
        assert!(matches!(&done("a").done, Done::Replace(made) if made[0].topic.as_str() == "x/a"));
        assert_eq!(done("drop").done, Done::Drop);
        let bad = done("bad");
        assert_eq!((bad.done, bad.failures.len(), bad.failures[0].line), (Done::Keep, 1, Some(3)));
        let mut done = |topic: &str| trial.dead_letter(NOW, &letter_of(message(topic), NOW)).done;
        assert!(matches!(done("big"), Done::Requeue(made) if made.payload == "x"));
        assert_eq!(done("other"), Done::Keep);
    }

    #[test]
    fn every_hook_is_measured_on_messages_that_it_wants() {
        let mut trial = trial(
            "local function f() postroad.counter('n'):add(1) end return { route = { filters = { 'a/+/b/#' }, run = f }, on_inbound = f, on_deliver = f, \
             on_dead_letter = { filters = { 'z' }, run = f }, on_connect = f, on_disconnect = f, on_subscribe = function() error('x') end }",
        );
        let subjects = Subjects { messages: Vec::new(), payload_bytes: 10 };
        let measured = measure(&mut trial, &subjects, 200, NOW);
        let told: Vec<_> = measured.iter().map(|one| (one.hook, one.calls)).collect();
        assert_eq!(told, MEASURED.map(|(name, _)| (name, 200)));
        assert!(measured.iter().all(|one| one.median_ns <= one.p99_ns));
        // One in ten more to warm up, at which a plugin that fails may be quarantined.
        assert!(measured[6].errors > 0 && measured[..6].iter().all(|one| one.errors == 0), "{measured:?}");
        let figures = trial.vm.figures().remove(0);
        assert_eq!(
            figures.hooks.iter().find(|(hook, _)| *hook == Hook::DeadLetter).map(|(_, figures)| figures.calls),
            Some(221)
        );
    }
}
