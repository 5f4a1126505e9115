//! Plugins of a shard, as the simulator wants them: real ones, in Lua (`plugin.lua`). What publishers say goes through them, and what is refused is
//! repaired by them.
//!
//! Publishers publish below `raw/`; what comes of it is the message that the oracle knows, and an echo of it, a part of its own, that is pushed to
//! the second subscriber. So all that is promised of a publish holds for what plugins made of it, and for its echo that it comes, if the
//! publish was acknowledged. A seeded share of calls fails, in every way that a script can, and the publisher is refused (its connection ends, and
//! it sends again). A share of dead letters is requeued.
//!
//! What is checked here: on each shard a message is handled by the generation that has seen it first, and none that is settled is asked. Generations
//! themselves say so, too: a script that is asked to deliver what another one made gives it to nobody.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use base::{ClientId, Message, Now, Qos, ReasonCode, ShardId, TopicFilter};
use postroad_base as base;
use postroad_broker::api::{Connect, DisconnectCause};
use postroad_broker::hooks::{Admission, Answer, Decision, Hooks, Peer, Repair, Stamp};
use postroad_plugins::generations::{self, Mode, Prepared};
use postroad_plugins::{Limits, PluginName, Set, Source};

use crate::Canary;
use crate::oracle::{Name, PUSH_TOPIC, SHARED_TOPIC};

/// What publishers publish below.
pub const RAW: &str = "raw/";
/// To whom echoes are pushed.
const ECHOED_TO: usize = 1;
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

/// What was seen of all shards' plugins.
#[derive(Debug, Default)]
pub struct Seen {
    /// What went wrong.
    pub broken: Option<String>,
    /// How often plugins were asked about a publish, refused it (they failed), and requeued a letter.
    pub asked: usize,
    pub failed: usize,
    pub repaired: usize,
    /// How often a script was asked to whom to deliver what it had made.
    pub delivered: usize,
    /// How often a canary was asked about a publish, and canaries that were promoted, and aborted.
    pub tried: usize,
    pub promoted: usize,
    pub aborted: usize,
    /// Numbers under which an older script goes on, and the number that it has been made with: a canary was aborted.
    pub renamed: BTreeMap<u32, u32>,
}

impl Seen {
    /// The script that goes under this number.
    pub fn script_of(&self, generation: u32) -> u32 {
        self.renamed.get(&generation).copied().unwrap_or(generation)
    }
}

/// The plugins of one shard, watched.
#[derive(Clone, Debug)]
pub struct Plugins {
    inner: generations::Plugins,
    seen: Rc<RefCell<Seen>>,
    /// Nothing older than this generation is to be asked for.
    settled: Rc<RefCell<u32>>,
    planted: Option<Canary>,
}

/// A generation of the plugin, with a share of calls that fail.
pub fn generation(number: u32, seed: u64, failures: usize, mode: Mode) -> Arc<Prepared> {
    let topic = crate::client::topic_name(PUSH_TOPIC + ECHOED_TO);
    let text = include_str!("plugin.lua")
        .replace("SEED", &(seed & 0x7fff_ffff).to_string())
        .replace("FAILURES", &failures.to_string())
        .replace("GENERATION", &number.to_string())
        .replace("ECHO_TOPIC", topic.as_str())
        .replace("ECHO_NUMBER", &(PUSH_TOPIC + ECHOED_TO).to_string())
        .replace("ECHO", &ECHO.to_string());
    let name = PluginName::new("simulated").expect("a name");
    let set = Set::from_sources(vec![Source::new(name, "plugin.lua", text)]).expect("one plugin");
    let limits = Limits { instructions: 20_000, millis: 60_000, quarantine_after: u32::MAX, ..Limits::default() };
    let compiled = set.compile(&limits).expect("the plugin of the simulator is one");
    let disabled = BTreeSet::new();
    Arc::new(Prepared { generation: number, compiled, limits, mode, budget: None, disabled, is_rollback: false })
}

impl Plugins {
    /// Those of a shard that begins with this generation.
    pub fn new(
        shard: ShardId,
        seen: &Rc<RefCell<Seen>>,
        (first, now): (Arc<Prepared>, Now),
        planted: Option<Canary>,
    ) -> Self {
        let inner = generations::Plugins::new(shard);
        let plugins = Self { inner, seen: Rc::clone(seen), settled: Rc::default(), planted };
        let number = first.generation;
        plugins.prepare(first, now);
        plugins.commit(number, now);
        plugins
    }

    /// Whether it is ready: not while too many older ones are waited for.
    pub fn prepare(&self, prepared: Arc<Prepared>, now: Now) -> bool {
        self.inner.prepare(now, prepared).is_ok()
    }

    pub fn discard(&self, generation: u32) {
        self.inner.discard(generation);
    }

    /// A message of another shard may have done so already.
    pub fn commit(&self, generation: u32, now: Now) {
        if !self.inner.commit(now, generation) && self.inner.generation() != generation {
            self.complain(format!("generation {generation} does not answer, but {}", self.inner.generation()));
        }
    }

    /// The canary answers everybody.
    pub fn promote(&self, now: Now) {
        if !self.inner.promote(now) {
            self.complain("there is no canary to promote".to_owned());
        }
    }

    /// What answered before the canary goes on under this number.
    pub fn abort(&self, generation: u32) {
        if !self.inner.abort(generation) {
            self.complain("there is no canary to abort".to_owned());
        }
    }

    /// Whether new messages get this number, but for those of a canary.
    pub fn answers(&self, generation: u32) -> bool {
        self.inner.generation() == generation
    }

    pub fn settled(&self, generation: u32) {
        *self.settled.borrow_mut() = generation;
        self.inner.settled(generation);
    }

    fn complain(&self, what: String) {
        self.seen.borrow_mut().broken = Some(what);
    }
}

/// By which script it was made, unless it comes again from a letter.
fn mark_of(message: &Message) -> Option<u32> {
    let is_repeat = message.extras.as_ref().is_some_and(|extras| extras.original.is_some());
    let text = std::str::from_utf8(&message.payload).ok().filter(|_| !is_repeat)?;
    text.split_once("#by ")?.1.parse().ok()
}

impl Hooks for Plugins {
    fn publish(&mut self, now: Now, message: &Message, from: Peer<'_>) -> (Stamp, Answer<Decision>) {
        let (stamp, answer) = self.inner.publish(now, message, from);
        let is_meant = message.topic.as_str().starts_with(RAW);
        let mut seen = self.seen.borrow_mut();
        seen.asked += usize::from(is_meant);
        seen.tried += usize::from(is_meant && stamp.0 != self.inner.generation());
        match &answer.answer {
            Decision::Replace(messages) if is_meant && messages.len() == 2 => {}
            Decision::Refuse(ReasonCode::ImplementationSpecificError) if is_meant => seen.failed += 1,
            Decision::Keep if !is_meant => {}
            other => seen.broken = Some(format!("{} became {other:?}", message.topic)),
        }
        (stamp, answer)
    }

    fn wants_deliveries(&self, stamp: Stamp, topic: &str) -> bool {
        // Of a share group what waits for credit may come later than its generation goes.
        topic != format!("t/{SHARED_TOPIC}") && self.inner.wants_deliveries(stamp, topic)
    }

    fn deliver(&mut self, now: Now, stamp: Stamp, message: &Message, to: &[&ClientId]) -> Vec<usize> {
        let settled = *self.settled.borrow();
        let script = self.seen.borrow().script_of(stamp.0);
        let made = mark_of(message);
        if let Some(made) = made.filter(|made| *made != script) {
            self.complain(format!("{:?} was made by {made}, and is handled by {stamp:?} ({script})", message.payload));
        }
        // In the line of a key it may wait for credit for longer.
        let has_key = message.wishes().is_some_and(|wishes| wishes.idempotency_key.is_some());
        if stamp.0 > 0 && stamp.0 < settled && !has_key {
            self.complain(format!("{:?} comes with {stamp:?}, but {settled} is settled", message.id));
        }
        let asked = if self.planted == Some(Canary::WrongScript) { Stamp(self.inner.generation()) } else { stamp };
        let left_out = self.inner.deliver(now, asked, message, to);
        if made.is_none() || has_key {
            return Vec::new(); // an older script may have made it, and what is asked now can't know
        }
        self.seen.borrow_mut().delivered += 1;
        left_out
    }

    fn wants_letters(&self, topic: &str) -> bool {
        self.inner.wants_letters(topic)
    }

    fn dead_letter(&mut self, now: Now, letter: &Message) -> Answer<Repair> {
        let answer = self.inner.dead_letter(now, letter);
        self.seen.borrow_mut().repaired += usize::from(matches!(answer.answer, Repair::Requeue(_)));
        answer
    }

    fn connect(&mut self, now: Now, connect: &Connect) -> Answer<Admission> {
        self.inner.connect(now, connect)
    }

    fn disconnected(&mut self, now: Now, peer: Peer<'_>, cause: DisconnectCause) -> Vec<Message> {
        self.inner.disconnected(now, peer, cause)
    }

    fn subscribe(
        &mut self,
        now: Now,
        peer: Peer<'_>,
        filter: &TopicFilter,
        qos: Qos,
    ) -> Answer<Result<Qos, ReasonCode>> {
        self.inner.subscribe(now, peer, filter, qos)
    }
}
