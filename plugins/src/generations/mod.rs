//! The plugins of one shard over time: which generation handles what, and how one takes the place of another.
//!
//! ```text
//!           prepare            commit (replace)                       settled
//!  ready ◄─────────── set  ──────────────► answering ──► older ─────────────────► gone
//!    │                     ──────────────► trial ─┬─ promote ─► answering (the old one: older)
//!    └─ discard ─► gone     (canary, shadow)      └─ abort ───► older (a canary), gone (a shadow)
//! ```
//! Invariants
//! - A message is handled by the generation of its stamp, on every shard. A generation is ready on all shards before one of them
//!   stamps with it, and stays until no shard has anything under way that it stamped. A stamp that comes from another shard says, too,
//!   that the commit is decided: who is ready commits then, whenever the coordinator's word comes.
//! - After the end of a canary what answered goes on under a new number, above that of the canary ([`Plugins::abort`]), with its VM and
//!   its old stamps. It is the only number that comes without a preparation: a stamp above all that are known is that.
//! - `postroad.store` is of the shard, and all generations share it; a shadow has a copy, so that it changes nothing. It ends when no
//!   generation there has a plugin of that name.
//! - State is handed over twice: when the new generation is made ready, as a proof, and when it is committed, into a VM made anew, so
//!   that nothing is lost of what happened in between, and `on_load` is called once in each VM.

mod codecs;
mod past;
mod shadow;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;

use base::{ClientId, Message, MonoMillis, Now, Qos, ReasonCode, ShardId, TopicFilter};
use broker::api::{Connect, DisconnectCause};
use broker::hooks::{Admission, Answer, Decision, Hooks, Peer, Repair, Stamp};
use postroad_base as base;
use postroad_broker as broker;
use xxhash_rust::xxh64::xxh64;

use crate::{Compiled, Diagnostic, Figures, Hook, Limits, PluginName, Saved, SetHash, Stores, Vm};
use past::Past;
pub use past::{PluginTotals, Totals};
use shadow::Shadow;

/// How a generation comes to answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// At once, for everybody.
    #[default]
    Replace,
    /// For so many in a hundred clients, by a hash of their names.
    Canary {
        /// 1 to 99.
        percent: u8,
    },
    /// For nobody: it runs after the one that answers, on a copy.
    Shadow,
}

/// When a generation fails too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Of a hundred calls so many may fail.
    pub percent: u8,
    /// Calls before which that is not judged.
    pub calls_min: u64,
    /// For how long after the commit; a trial is judged for as long as it lasts.
    pub probation_ms: u64,
}

/// A generation on its way to the shards.
#[derive(Debug)]
pub struct Prepared {
    /// Its number: above all that were before it.
    pub generation: u32,
    /// Its scripts.
    pub compiled: Compiled,
    /// What they may take.
    pub limits: Limits,
    /// How it comes to answer.
    pub mode: Mode,
    /// What it may fail; `None`: it is not judged.
    pub budget: Option<Budget>,
    /// Versions of plugins in it that are never called ([`Vm::disable`]).
    pub disabled: BTreeSet<SetHash>,
    /// It ran before: if the state of what runs can't be handed over to it, it begins without.
    pub is_rollback: bool,
}

/// A generation that failed too often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spent {
    /// Which.
    pub generation: u32,
    /// What it did.
    pub why: String,
}

/// What is told of a shard's plugins.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// VMs in memory.
    pub generations: usize,
    /// Bytes of all of them.
    pub memory_bytes: usize,
    /// Messages whose generation was gone when they came, so that another one was asked: they had waited for credit of a key or of a
    /// share group.
    pub strays: u64,
    /// How often a shadow differed: in what, and how often.
    pub differences: Vec<(&'static str, u64)>,
    /// By plugin, in the order of their names.
    pub plugins: Vec<PluginTotals>,
}

/// Generations that may be in memory while they wait for what is under way; one more is refused.
const OLDER_MAX: usize = 4;

/// See the module head. A handle: clones are the same plugins.
#[derive(Clone, Debug)]
pub struct Plugins(Rc<RefCell<Generations>>);

#[derive(Debug)]
struct Generations {
    shard: ShardId,
    stores: Rc<RefCell<Stores>>,
    answering: Life,
    trial: Option<Trial>,
    ready: Option<Ready>,
    /// Oldest first.
    older: Vec<Life>,
    strays: u64,
    past: Past,
}

/// One VM, and the numbers that it answers under.
#[derive(Debug)]
struct Life {
    /// Ascending, at least one; new messages get the last.
    stamps: Vec<u32>,
    /// `None`: there were no plugins yet.
    vm: Option<Vm>,
    watch: Option<Watch>,
}

/// Judges a generation.
#[derive(Debug)]
struct Watch {
    budget: Budget,
    /// `None`: for as long as it is tried.
    until: Option<MonoMillis>,
}

#[derive(Debug)]
enum Trial {
    Canary { life: Life, percent: u8 },
    Shadow { generation: u32, shadow: Shadow },
}

#[derive(Debug)]
struct Ready {
    prepared: Arc<Prepared>,
    vm: Vm,
    /// What answers has an `on_save`, and it was asked: it is again at the commit.
    has_state: bool,
}

impl Plugins {
    /// None yet.
    pub fn new(shard: ShardId) -> Self {
        Self(Rc::new(RefCell::new(Generations {
            shard,
            stores: Rc::default(),
            answering: Life { stamps: vec![0], vm: None, watch: None },
            trial: None,
            ready: None,
            older: Vec::new(),
            strays: 0,
            past: Past::default(),
        })))
    }

    /// Makes a generation ready beside what runs, with its state.
    ///
    /// # Errors
    /// What is wrong with its scripts, or with the state that they were given; nothing is changed then.
    pub fn prepare(&self, now: Now, prepared: Arc<Prepared>) -> Result<(), Vec<Diagnostic>> {
        self.0.borrow_mut().prepare(now, prepared)
    }

    /// What was made ready comes to answer, as its mode says; `false`: it does not, for it was not made ready here.
    pub fn commit(&self, now: Now, generation: u32) -> bool {
        self.0.borrow_mut().commit(now, generation)
    }

    /// What was made ready is not needed.
    pub fn discard(&self, generation: u32) {
        let mut this = self.0.borrow_mut();
        this.ready.take_if(|ready| ready.prepared.generation == generation);
    }

    /// The canary answers for everybody; `false`: there is none.
    pub fn promote(&self, now: Now) -> bool {
        self.0.borrow_mut().promote(now)
    }

    /// The trial is over as if it had not been; what answers does so under a new number, for everybody. `false`: there is none.
    pub fn abort(&self, generation: u32) -> bool {
        self.0.borrow_mut().abort(generation)
    }

    /// Nothing is under way any more that was stamped with an older generation than this.
    pub fn settled(&self, generation: u32) {
        self.0.borrow_mut().settled(generation);
    }

    /// Whether the scripts of a generation have failed too often; told once of each.
    pub fn spent(&self, now: Now) -> Option<Spent> {
        let mut this = self.0.borrow_mut();
        let shard = this.shard;
        let Generations { answering, trial, .. } = &mut *this;
        let canary = trial.as_mut().and_then(Trial::canary);
        std::iter::once(answering).chain(canary).find_map(|life| life.spent(shard, now))
    }

    /// Nothing is there that could be asked: what answers is an empty set, or none, and all else is gone. From now on it handles, too, what
    /// nobody was asked about (stamp 0), so that nothing need ask it until something is made ready.
    pub fn rests(&self) -> bool {
        let mut this = self.0.borrow_mut();
        let is_empty = this.answering.vm.as_ref().is_none_or(|vm| vm.figures().is_empty());
        let rests = is_empty && this.trial.is_none() && this.ready.is_none() && this.older.is_empty();
        if rests && !this.answering.stamps.contains(&0) {
            this.answering.stamps.insert(0, 0);
        }
        rests
    }

    /// The generation that answers; 0: none yet.
    pub fn generation(&self) -> u32 {
        self.0.borrow().answering.stamp()
    }

    /// What is told of them.
    pub fn report(&self) -> Report {
        self.0.borrow().report()
    }
}

impl Generations {
    fn prepare(&mut self, now: Now, prepared: Arc<Prepared>) -> Result<(), Vec<Diagnostic>> {
        self.ready = None;
        if self.older.len() >= OLDER_MAX {
            return Err(vec![refusal("what older generations have stamped is still under way: try again")]);
        }
        let (vm, has_state) = self.first_successor(now, &prepared)?;
        self.ready = Some(Ready { prepared, vm, has_state });
        Ok(())
    }

    /// A VM that has taken over the state of what answers, or begins without if it must not fail, and whether there is an `on_save` (one
    /// that gives nothing yet, or fails, may give something at the commit).
    fn first_successor(&mut self, now: Now, prepared: &Prepared) -> Result<(Vm, bool), Vec<Diagnostic>> {
        match self.successor(now, prepared) {
            Err(failures) if prepared.is_rollback => {
                for failure in failures {
                    tracing::warn!(%failure, "what runs again begins without the state of what is left");
                }
                Ok((self.loaded(now, prepared, &Saved::default())?, true)) // it may be there at the commit
            }
            made => made,
        }
    }

    /// The same, with the state.
    fn successor(&mut self, now: Now, prepared: &Prepared) -> Result<(Vm, bool), Vec<Diagnostic>> {
        let saved = match &mut self.answering.vm {
            None => Saved::default(),
            Some(old) => old.save(now).map_err(|failure| vec![failure])?,
        };
        Ok((self.loaded(now, prepared, &saved)?, !saved.is_empty()))
    }

    fn loaded(&self, now: Now, prepared: &Prepared, saved: &Saved) -> Result<Vm, Vec<Diagnostic>> {
        let stores = match prepared.mode {
            Mode::Shadow => Rc::new(RefCell::new(self.stores.borrow().clone())),
            Mode::Replace | Mode::Canary { .. } => Rc::clone(&self.stores),
        };
        let mut vm = Vm::new(&prepared.compiled, &prepared.limits, self.shard, stores)?;
        vm.disable(&prepared.disabled);
        vm.load(now, saved).map_err(|failure| vec![failure])?;
        Ok(vm)
    }

    fn commit(&mut self, now: Now, generation: u32) -> bool {
        let Some(ready) = self.ready.take_if(|ready| ready.prepared.generation == generation) else {
            return self.answering.stamp() == generation
                || self.trial.as_ref().is_some_and(|trial| trial.is(generation));
        };
        let prepared = Arc::clone(&ready.prepared);
        let vm = self.handed_over(now, ready);
        match prepared.mode {
            Mode::Replace => {
                self.trial = None; // a shadow that is promoted: its scripts are made anew, with the store of the shard
                let next = Life { stamps: vec![generation], vm: Some(vm), watch: Watch::probation(&prepared, now) };
                let old = std::mem::replace(&mut self.answering, next);
                self.older.push(old);
            }
            Mode::Canary { percent } => {
                let life = Life { stamps: vec![generation], vm: Some(vm), watch: Watch::trial(&prepared) };
                self.trial = Some(Trial::Canary { life, percent });
            }
            Mode::Shadow => self.trial = Some(Trial::Shadow { generation, shadow: Shadow::new(vm) }),
        }
        true
    }

    /// The VM to commit. Once all shards were ready nothing may fail: if the state of now can't be handed over, that of a moment ago
    /// is there.
    fn handed_over(&mut self, now: Now, ready: Ready) -> Vm {
        let Ready { prepared, vm, has_state } = ready;
        if !has_state {
            return vm;
        }
        match self.successor(now, &prepared) {
            Ok((anew, _)) => anew,
            Err(failures) => {
                for failure in failures {
                    tracing::warn!(shard = self.shard.0, %failure, "the state at the commit can't be handed over: that of the preparation stays");
                }
                vm
            }
        }
    }

    fn promote(&mut self, now: Now) -> bool {
        match self.trial.take() {
            Some(Trial::Canary { mut life, .. }) => {
                if let Some(watch) = &mut life.watch {
                    watch.until = Some(now.mono.after(watch.budget.probation_ms));
                }
                let old = std::mem::replace(&mut self.answering, life);
                self.older.push(old);
                true
            }
            other => {
                self.trial = other;
                false
            }
        }
    }

    fn abort(&mut self, generation: u32) -> bool {
        let Some(trial) = self.trial.take() else { return false };
        if let Trial::Canary { life, .. } = trial {
            self.older.push(life);
        }
        self.answering.stamps.push(generation);
        true
    }

    fn settled(&mut self, generation: u32) {
        let is_over = |life: &mut Life| life.stamp() < generation;
        for life in self.older.extract_if(.., is_over) {
            if let Some(vm) = life.vm {
                self.past.add(&vm.figures());
            }
        }
        let answers = self.answering.stamp();
        self.answering.stamps.retain(|stamp| *stamp >= generation || *stamp == answers);
        let living: Vec<Figures> = self.counted().flat_map(Vm::figures).collect();
        self.past.keep_only(&living);
        if self.ready.is_none() {
            let lives = |name: &PluginName| living.iter().any(|figures| figures.plugin == *name);
            self.stores.borrow_mut().keep_only(lives);
        }
    }

    /// VMs whose answers count.
    fn counted(&self) -> impl Iterator<Item = &Vm> {
        let lives = self.older.iter().chain(self.canary()).chain([&self.answering]);
        lives.filter_map(|life| life.vm.as_ref())
    }

    fn report(&self) -> Report {
        let mut totals = Totals::from(&self.past);
        self.counted().for_each(|vm| totals.add(&vm.figures()));
        if let Some(vm) = &self.answering.vm {
            totals.measured(&vm.figures());
        }
        let shadow = self.trial.as_ref().and_then(Trial::shadow);
        let (generations, memory_bytes) = (self.counted().count(), self.counted().map(Vm::memory_bytes).sum::<usize>());
        Report {
            generations: generations + usize::from(shadow.is_some()),
            memory_bytes: memory_bytes + shadow.map_or(0, Shadow::memory_bytes),
            strays: self.strays,
            differences: shadow.map(Shadow::differences).unwrap_or_default(),
            plugins: totals.into_plugins(),
        }
    }

    /// Who answers for this client.
    fn life_of(&mut self, client: &str) -> &mut Life {
        match &mut self.trial {
            Some(Trial::Canary { life, percent }) if is_in_canary(client, *percent) => life,
            _ => &mut self.answering,
        }
    }

    fn vm_of(&mut self, client: &str) -> Option<&mut Vm> {
        self.life_of(client).vm.as_mut()
    }

    fn shadow(&mut self) -> Option<&mut Shadow> {
        match &mut self.trial {
            Some(Trial::Shadow { shadow, .. }) => Some(shadow),
            _ => None,
        }
    }

    fn canary(&self) -> Option<&Life> {
        match &self.trial {
            Some(Trial::Canary { life, .. }) => Some(life),
            _ => None,
        }
    }

    /// Who handles what is under this stamp.
    fn place_of(&self, stamp: Stamp) -> Place {
        let has = |life: &Life| life.stamps.contains(&stamp.0);
        let newest = self.canary().map_or(0, Life::stamp).max(self.answering.stamp());
        if has(&self.answering) {
            Place::Answering
        } else if self.canary().is_some_and(has) {
            Place::Canary
        } else if let Some(place) = self.older.iter().position(has) {
            Place::Older(place)
        } else if self.ready.as_ref().is_some_and(|ready| ready.prepared.generation == stamp.0) {
            Place::Ready
        } else if stamp.0 > newest || stamp == Stamp(0) {
            Place::Answering // nobody was asked about it: it is handled by the generation of now
        } else {
            Place::Gone
        }
    }

    fn vm_at(&self, place: Place) -> Option<&Vm> {
        match place {
            Place::Answering => self.answering.vm.as_ref(),
            Place::Canary => self.canary()?.vm.as_ref(),
            Place::Older(place) => self.older[place].vm.as_ref(),
            Place::Ready => self.ready.as_ref().map(|ready| &ready.vm),
            Place::Gone => self.older.first().unwrap_or(&self.answering).vm.as_ref(),
        }
    }

    fn vm_at_mut(&mut self, place: Place) -> Option<&mut Vm> {
        match place {
            Place::Answering => self.answering.vm.as_mut(),
            Place::Canary => self.trial.as_mut()?.canary()?.vm.as_mut(),
            Place::Older(place) => self.older[place].vm.as_mut(),
            Place::Ready => self.ready.as_mut().map(|ready| &mut ready.vm),
            Place::Gone => self.older.first_mut().unwrap_or(&mut self.answering).vm.as_mut(),
        }
    }

    fn deliver(&mut self, now: Now, stamp: Stamp, message: &Message, to: &[&ClientId]) -> Vec<usize> {
        if self.place_of(stamp) == Place::Ready {
            self.commit(now, stamp.0); // it is, where that comes from
        }
        let place = self.place_of(stamp);
        self.strays += u64::from(place == Place::Gone);
        let answer = match self.vm_at_mut(place) {
            Some(vm) if vm.wants_deliveries(message.topic.as_str()) => vm.deliver(now, message, to),
            _ => Vec::new(),
        };
        if let Some(shadow) = self.shadow().filter(|_| place == Place::Answering) {
            shadow.deliver(now, message, to, &answer);
        }
        answer
    }
}

/// Where a stamp's generation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Answering,
    Canary,
    Older(usize),
    Ready,
    /// Not any more: the oldest there is handles it.
    Gone,
}

impl Trial {
    fn is(&self, number: u32) -> bool {
        match self {
            Self::Canary { life, .. } => life.stamp() == number,
            Self::Shadow { generation, .. } => *generation == number,
        }
    }

    fn canary(&mut self) -> Option<&mut Life> {
        match self {
            Self::Canary { life, .. } => Some(life),
            Self::Shadow { .. } => None,
        }
    }

    fn shadow(&self) -> Option<&Shadow> {
        match self {
            Self::Canary { .. } => None,
            Self::Shadow { shadow, .. } => Some(shadow),
        }
    }
}

impl Watch {
    fn probation(prepared: &Prepared, now: Now) -> Option<Self> {
        let budget = prepared.budget?;
        Some(Self { budget, until: Some(now.mono.after(budget.probation_ms)) })
    }

    fn trial(prepared: &Prepared) -> Option<Self> {
        Some(Self { budget: prepared.budget?, until: None })
    }
}

impl Life {
    fn stamp(&self) -> u32 {
        *self.stamps.last().expect("a life has a number")
    }

    fn spent(&mut self, shard: ShardId, now: Now) -> Option<Spent> {
        let watch = self.watch.take_if(|watch| watch.until.is_some_and(|until| now.mono >= until)).is_some();
        let (Some(vm), Some(watch), false) = (&self.vm, &self.watch, watch) else { return None };
        let why = judged(&watch.budget, &vm.figures(), shard)?;
        self.watch = None;
        Some(Spent { generation: self.stamp(), why })
    }
}

/// What speaks against scripts that have counted this.
fn judged(budget: &Budget, figures: &[Figures], shard: ShardId) -> Option<String> {
    if let Some(quarantined) = figures.iter().find(|figures| figures.is_quarantined) {
        return Some(format!("plugin {} is quarantined on shard {}", quarantined.plugin, shard.0));
    }
    let asked = figures.iter().flat_map(|figures| &figures.hooks).filter(|(hook, _)| is_of_traffic(*hook));
    let (calls, errors) = asked.fold((0, 0), |(calls, errors), (_, hook)| (calls + hook.calls, errors + hook.errors));
    let is_spent = calls >= budget.calls_min && errors * 100 > u64::from(budget.percent) * calls;
    is_spent.then(|| format!("{errors} of {calls} calls failed on shard {}, more than {} %", shard.0, budget.percent))
}

fn is_of_traffic(hook: Hook) -> bool {
    !matches!(hook, Hook::Save | Hook::Load | Hook::Test)
}

/// The same for a name on every shard and after each start.
fn is_in_canary(client: &str, percent: u8) -> bool {
    xxh64(client.as_bytes(), 0) % 100 < u64::from(percent)
}

fn refusal(why: &str) -> Diagnostic {
    let plugin = PluginName::new("plugins").expect("a name");
    Diagnostic { file: "plugins".into(), line: None, column: None, plugin, hook: None, message: why.into() }
}

impl Hooks for Plugins {
    fn publish(&mut self, now: Now, message: &Message, from: Peer<'_>) -> (Stamp, Answer<Decision>) {
        let mut this = self.0.borrow_mut();
        let life = this.life_of(from.client.as_str());
        let stamp = Stamp(life.stamp());
        let answer = life.vm.as_mut().map(|vm| vm.publish(now, message, from)).unwrap_or_default();
        if let Some(shadow) = this.shadow() {
            shadow.publish(now, message, from, &answer);
        }
        (stamp, answer)
    }

    fn wants_deliveries(&self, stamp: Stamp, topic: &str) -> bool {
        let this = self.0.borrow();
        let wants = this.vm_at(this.place_of(stamp)).is_some_and(|vm| vm.wants_deliveries(topic));
        wants || this.trial.as_ref().and_then(Trial::shadow).is_some_and(|shadow| shadow.wants_deliveries(topic))
    }

    fn deliver(&mut self, now: Now, stamp: Stamp, message: &Message, to: &[&ClientId]) -> Vec<usize> {
        self.0.borrow_mut().deliver(now, stamp, message, to)
    }

    fn wants_letters(&self, topic: &str) -> bool {
        let this = self.0.borrow();
        let shadow = this.trial.as_ref().and_then(Trial::shadow);
        let shadow_wants = shadow.is_some_and(|shadow| shadow.wants_letters(topic));
        shadow_wants || this.counted().any(|vm| vm.wants_letters(topic))
    }

    fn dead_letter(&mut self, now: Now, letter: &Message) -> Answer<Repair> {
        let mut this = self.0.borrow_mut();
        let client = letter.death().map_or("", |death| death.client.as_str());
        let answer = match this.vm_of(client) {
            Some(vm) if vm.wants_letters(letter.topic.as_str()) => vm.dead_letter(now, letter),
            _ => Answer::default(),
        };
        if let Some(shadow) = this.shadow() {
            shadow.dead_letter(now, letter, &answer);
        }
        answer
    }

    fn connect(&mut self, now: Now, connect: &Connect) -> Answer<Admission> {
        let mut this = self.0.borrow_mut();
        let vm = this.vm_of(connect.client.as_str());
        let answer = vm.map(|vm| vm.connect(now, connect)).unwrap_or_default();
        if let Some(shadow) = this.shadow() {
            shadow.connect(now, connect, &answer);
        }
        answer
    }

    fn disconnected(&mut self, now: Now, peer: Peer<'_>, cause: DisconnectCause) -> Vec<Message> {
        let mut this = self.0.borrow_mut();
        let vm = this.vm_of(peer.client.as_str());
        let answer = vm.map(|vm| vm.disconnected(now, peer, cause)).unwrap_or_default();
        if let Some(shadow) = this.shadow() {
            shadow.disconnected(now, peer, cause, &answer);
        }
        answer
    }

    fn subscribe(
        &mut self,
        now: Now,
        peer: Peer<'_>,
        filter: &TopicFilter,
        qos: Qos,
    ) -> Answer<Result<Qos, ReasonCode>> {
        let mut this = self.0.borrow_mut();
        let vm = this.vm_of(peer.client.as_str());
        let answer = vm.map_or_else(|| Ok(qos).into(), |vm| vm.subscribe(now, peer, filter, qos));
        if let Some(shadow) = this.shadow() {
            shadow.subscribe(now, peer, (filter, qos), &answer);
        }
        answer
    }
}
