//! One generation of all plugins on one shard: loaded, asked, counted.
//!
//! ```text
//! publish ─► on_inbound of each, then route of each ─► Flow: the message as it is by now, and what was added
//!              │ filters: in Rust
//!              ▼
//!            ask ─► State::protected ─► script ─► answers ─► what was set and said, or a failure (and then open or closed)
//! ```
//! Invariants
//! - A call that fails changes nothing in what it is about, and makes nothing: what it had set and added is dropped. What it did besides stays: to its
//!   own variables, in `postroad.store`, counters and gauges, lines of log, `math.randomseed`.
//! - The message object shows the subject of the call that runs, and nothing between calls. There is one for each VM: kept by a script, it is the later
//!   call's. So no plugin sees what it is not asked about.
//! - Frames of clients come to a codec in any number. What they do to it is counted apart: no frame can put a plugin's hooks into quarantine, and its
//!   hooks no codec. A codec is in quarantine only for calls that a limit ended, each of which holds up the shard; an error of its script ends that
//!   connection, and is nobody else's matter.

mod chain;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Instant;

use base::{ClientId, Message, MessageId, Now, Qos, ReasonCode, ShardId, TopicFilter};
use broker::api::{Connect, DisconnectCause};
use broker::hooks::{Admission, Answer, Decision, Peer, Repair};
use postroad_base as base;
use postroad_broker as broker;

use crate::api::{self, Given, push_plain, read_given, read_plain};
use crate::call::{Draft, Subject};
use crate::compiled::{Compiled, Unit, chunk_name};
use crate::lua::{Fault, Host, Injected, Kind, Reference, Returned, Stack, State, Thrown};
use crate::plugin::{Account, Flaw, HookOf, Plugin, push_table};
use crate::{
    Diagnostic, Failure, Figures, Hook, Limits, Plain, PluginName, SetHash, Stores, TestOutcome, in_hand, sandbox,
};

/// One call of so many is measured: reading the clock twice costs as much as a small hook.
const SAMPLED: u64 = 64;
/// Failures that are kept for tools.
const FAILURES_KEPT: usize = 64;

/// What `on_save` of each plugin gave, for `on_load` of the next generation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Saved {
    /// By plugin: its state, and the version (the hash of its text) that gave it.
    states: BTreeMap<PluginName, (SetHash, Plain)>,
}

impl Saved {
    /// There is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.states.is_empty()
    }
}

/// One generation of all plugins on one shard.
#[derive(Debug)]
pub struct Vm {
    state: State,
    /// In the order of the chain.
    plugins: Vec<Plugin>,
    /// By hook: the places of the plugins that have it.
    chains: [Vec<usize>; Hook::ALL.len()],
    shard: ShardId,
    quarantine_after: u32,
    failures: Vec<Failure>,
    /// Of all calls of hooks.
    failed: u64,
}

/// A function of a codec's table. Good for the VM that gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callable {
    plugin: PluginName,
    function: Reference,
}

impl Callable {
    /// Whose it is.
    pub(crate) fn plugin(&self) -> &PluginName {
        &self.plugin
    }
}

/// The table `codec` of a plugin.
#[derive(Clone, Debug, PartialEq)]
pub struct CodecTable {
    /// What is data in it.
    pub data: Plain,
    /// The functions in it, by name.
    pub functions: Vec<(String, Callable)>,
}

/// What a call that went well has set and said.
#[derive(Debug, Default)]
struct Said {
    given: Vec<Given>,
    draft: Draft,
    also: Vec<Draft>,
}

/// A call failed; it is counted and logged. What then holds is the hook's: open or closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Failed {
    is_open: bool,
}

impl Vm {
    /// Loads all plugins. `on_load` is not called.
    ///
    /// # Errors
    /// Everything that is wrong with their tables.
    pub fn new(
        compiled: &Compiled,
        limits: &Limits,
        shard: ShardId,
        stores: Rc<RefCell<Stores>>,
    ) -> Result<Self, Vec<Diagnostic>> {
        let state = prepared(limits, shard, stores).map_err(|text| {
            let name = PluginName::new("postroad").expect("it is a name");
            vec![diagnostic(&name, "", None, None, text)]
        })?;
        let mut vm = Self {
            state,
            plugins: Vec::new(),
            chains: Default::default(),
            shard,
            quarantine_after: limits.quarantine_after.max(1),
            failures: Vec::new(),
            failed: 0,
        };
        let diagnostics: Vec<Diagnostic> =
            compiled.units.iter().flat_map(|unit| vm.load_plugin(unit, limits)).collect();
        if !diagnostics.is_empty() {
            return Err(diagnostics);
        }
        vm.plugins.sort_by(|left, right| (left.priority, &left.name).cmp(&(right.priority, &right.name)));
        for hook in Hook::ALL {
            let has = |place: &usize| vm.plugins[*place].hook(hook).is_some();
            vm.chains[hook as usize] = (0..vm.plugins.len()).filter(has).collect();
        }
        Ok(vm)
    }

    fn load_plugin(&mut self, unit: &Unit, limits: &Limits) -> Vec<Diagnostic> {
        let host = self.state.host_mut();
        host.memory.held.push(0);
        host.accounts.push(Account::new(unit.name.clone(), unit.hash, limits, self.shard));
        let owner = host.accounts.len();
        let mut plugin = Plugin::new(unit.name.clone(), unit.file.clone(), unit.hash, owner);
        let mut limits = *limits;
        let mut flaws: Vec<Flaw> = Vec::new();
        let name = chunk_name(&unit.name);
        // SAFETY: the subject borrows nothing.
        unsafe { self.state.host_mut().call.begin(Hook::Load, Subject::None) };
        self.state.host_mut().call.is_store_read_only = true;
        let loaded = self.state.protected(owner, true, |stack| {
            push_table(stack, &unit.bytecode, &name)?;
            plugin.read_table(stack, &mut limits, &mut flaws);
            Ok(0)
        });
        self.state.host_mut().call.end();
        self.state.host_mut().accounts[owner - 1].limits = limits;
        if let Err(thrown) = loaded {
            return vec![diagnostic(&unit.name, &unit.file, thrown.line, None, thrown.text)];
        }
        flaws.sort_unstable(); // Lua's order differs from VM to VM
        let diagnostics = flaws.into_iter().map(|(key, text)| diagnostic(&unit.name, &unit.file, None, key, text));
        let diagnostics = diagnostics.collect();
        self.plugins.push(plugin);
        diagnostics
    }

    /// Asks `on_save` of each plugin.
    ///
    /// # Errors
    /// The first failure.
    pub fn save(&mut self, now: Now) -> Result<Saved, Diagnostic> {
        let mut saved = Saved::default();
        for place in self.enabled(Hook::Save) {
            let mut state = Plain::Nil;
            let function = self.plugins[place].hook(Hook::Save).map_or(Reference::default(), |hook| hook.function);
            self.run_apart(place, Hook::Save, now, |stack| {
                stack.push_reference(function);
                stack.call(0, 1);
                state = read_plain(stack, -1)?;
                Ok(0)
            })?;
            let plugin = &self.plugins[place];
            saved.states.insert(plugin.name.clone(), (plugin.hash, state));
        }
        Ok(saved)
    }

    /// Gives each `on_load` what its `on_save` gave, or nil, and the version that it is of. The store can't be written meanwhile.
    ///
    /// # Errors
    /// The first failure.
    pub fn load(&mut self, now: Now, previous: &Saved) -> Result<(), Diagnostic> {
        for place in self.enabled(Hook::Load) {
            let plugin = &self.plugins[place];
            let function = plugin.hook(Hook::Load).map_or(Reference::default(), |hook| hook.function);
            let state = previous.states.get(&plugin.name);
            let version = state.map(|(hash, _)| hash.to_string());
            self.run_apart(place, Hook::Load, now, |stack| {
                stack.push_reference(function);
                push_plain(stack, state.map_or(&Plain::Nil, |(_, state)| state));
                match &version {
                    Some(version) => stack.push_bytes(version.as_bytes()),
                    None => stack.push_nil(),
                }
                stack.call(2, 0);
                Ok(0)
            })?;
        }
        Ok(())
    }

    /// Runs the self-tests. One fails if it raises an error.
    pub fn self_test(&mut self, now: Now) -> Vec<TestOutcome> {
        let mut outcomes = Vec::new();
        for place in (0..self.plugins.len()).filter(|place| !self.plugins[*place].is_disabled).collect::<Vec<_>>() {
            for (name, function) in self.plugins[place].tests.clone() {
                let ran = self.run_apart(place, Hook::Test, now, |stack| {
                    stack.push_reference(function);
                    stack.call(0, 0);
                    Ok(0)
                });
                outcomes.push(TestOutcome { plugin: self.plugins[place].name.clone(), name, failure: ran.err() });
            }
        }
        outcomes
    }

    /// A call that is no hook on traffic: more time, a store that can't be written, a diagnostic if it fails.
    fn run_apart<W>(&mut self, place: usize, hook: Hook, now: Now, work: W) -> Result<(), Diagnostic>
    where
        W: FnMut(Stack<'_>) -> Returned,
    {
        let host = self.state.host_mut();
        host.now = now;
        // SAFETY: the subject borrows nothing.
        unsafe { host.call.begin(hook, Subject::None) };
        host.call.is_store_read_only = true;
        let ran = self.state.protected(self.plugins[place].owner, true, work);
        self.state.host_mut().call.end();
        let plugin = &self.plugins[place];
        let hook = Some(hook.name().to_owned());
        ran.map_err(|thrown| diagnostic(&plugin.name, &plugin.file, thrown.line, hook, thrown.text))
    }

    /// What becomes of a message that is published: `on_inbound` if a client publishes it, then `route`.
    pub fn publish(&mut self, now: Now, message: &Message, from: Peer<'_>) -> Answer<Decision> {
        if self.chains[Hook::Route as usize].is_empty() && self.chains[Hook::Inbound as usize].is_empty() {
            return Answer::default();
        }
        chain::publish(self, now, message, from)
    }

    /// Whether [`Self::deliver`] may have something to say about this topic.
    pub fn wants_deliveries(&self, topic: &str) -> bool {
        self.wants(Hook::Deliver, topic)
    }

    /// A message is about to be given to these clients of this shard: the places of those that do not get it, in order.
    pub fn deliver(&mut self, now: Now, message: &Message, to: &[&ClientId]) -> Vec<usize> {
        chain::deliver(self, now, message, to)
    }

    /// Whether [`Self::dead_letter`] may have something to say about letters of this topic.
    pub fn wants_letters(&self, topic: &str) -> bool {
        self.wants(Hook::DeadLetter, topic)
    }

    /// What becomes of a dead letter that was just made.
    pub fn dead_letter(&mut self, now: Now, letter: &Message) -> Answer<Repair> {
        chain::dead_letter(self, now, letter)
    }

    /// Whether a client may connect.
    pub fn connect(&mut self, now: Now, connect: &Connect) -> Answer<Admission> {
        chain::connect(self, now, connect)
    }

    /// A connection is over: what to publish.
    pub fn disconnected(&mut self, now: Now, peer: Peer<'_>, cause: DisconnectCause) -> Vec<Message> {
        chain::disconnected(self, now, peer, cause)
    }

    /// At which level at most a client subscribes, or why it does not.
    pub fn subscribe(
        &mut self,
        now: Now,
        peer: Peer<'_>,
        filter: &TopicFilter,
        qos: Qos,
    ) -> Answer<Result<Qos, ReasonCode>> {
        chain::subscribe(self, now, peer, filter, qos)
    }

    /// The table `codec` of a plugin, if it has one.
    ///
    /// # Errors
    /// If it holds what is neither plain data nor, right in it, a function.
    pub fn codec_table(&mut self, plugin: &PluginName) -> Option<Result<CodecTable, Diagnostic>> {
        let place = self.plugins.iter().position(|known| known.name == *plugin)?;
        let codec = self.plugins[place].codec.as_ref()?;
        if let Some(read) = &codec.read {
            return Some(Ok(read.clone()));
        }
        let read = self.read_codec(place, codec.table);
        // Once: each reading keeps its functions in Lua's registry.
        if let (Ok(table), Some(codec)) = (&read, &mut self.plugins[place].codec) {
            codec.read = Some(table.clone());
        }
        Some(read)
    }

    fn read_codec(&mut self, place: usize, table: Reference) -> Result<CodecTable, Diagnostic> {
        let plugin = self.plugins[place].name.clone();
        let mut entries: Vec<(Plain, Plain)> = Vec::new();
        let mut functions: Vec<(String, Callable)> = Vec::new();
        let read = self.run_apart(place, Hook::Codec, Now::default(), |stack| {
            stack.push_reference(table);
            stack.push_nil();
            while stack.next(1) {
                if stack.kind(-1) == Kind::Function {
                    let function = stack.keep();
                    let name = stack.text(-1).unwrap_or_default().to_owned();
                    functions.push((name, Callable { plugin: plugin.clone(), function }));
                } else {
                    entries.push((read_plain(stack, -2)?, read_plain(stack, -1)?));
                    stack.pop(1);
                }
            }
            Ok(0)
        });
        functions.sort_by(|(left, _), (right, _)| left.cmp(right));
        entries.sort_by(|(left, _), (right, _)| left.as_str().cmp(&right.as_str()));
        read.map(|()| CodecTable { data: Plain::Map(entries), functions })
    }

    /// The file of a plugin, as it was named when the set was read.
    pub fn file_of(&self, plugin: &PluginName) -> Option<&str> {
        self.plugins.iter().find(|known| known.name == *plugin).map(|known| known.file.as_str())
    }

    /// Calls a function of a codec: at most four results.
    ///
    /// # Errors
    /// As it failed; that is counted as of the hook `codec`. If its calls were ended by limits so many times in a row, it is called no more.
    pub fn call(&mut self, now: Now, function: &Callable, arguments: &[Plain]) -> Result<Vec<Plain>, Failure> {
        let place = self.plugins.iter().position(|known| known.name == function.plugin);
        let place = place.expect("a callable is used with the VM that gave it");
        if self.plugins[place].is_disabled {
            let text = "the server has crashed in this version of it".to_owned();
            return Err(self.failure(place, Hook::Codec, None, text, None));
        }
        let codec = self.plugins[place].codec.as_mut().expect("a callable is of a codec");
        if codec.is_quarantined {
            return Err(self.failure(place, Hook::Codec, None, "its codec is quarantined".to_owned(), None));
        }
        let started = codec.figures.calls.is_multiple_of(SAMPLED).then(Instant::now);
        codec.figures.calls += 1;
        let mut results = Vec::new();
        let host = self.state.host_mut();
        host.now = now;
        // SAFETY: the subject borrows nothing.
        unsafe { host.call.begin(Hook::Codec, Subject::None) };
        let ran = self.state.protected(self.plugins[place].owner, false, |stack| {
            in_hand::point();
            stack.push_reference(function.function);
            arguments.iter().for_each(|argument| push_plain(stack, argument));
            stack.call(arguments.len() as i32, Stack::ALL);
            for index in 1..=stack.top().min(4) {
                results.push(read_plain(stack, index)?);
            }
            Ok(0)
        });
        self.state.host_mut().call.end();
        let codec = self.plugins[place].codec.as_mut().expect("a callable is of a codec");
        codec.figures.measure(started);
        match ran {
            Ok(()) => {
                codec.ended_in_a_row = 0;
                Ok(results)
            }
            Err(thrown) => Err(self.note_codec_failure(place, thrown)),
        }
    }

    fn note_codec_failure(&mut self, place: usize, thrown: Thrown) -> Failure {
        let plugin = &mut self.plugins[place];
        let codec = plugin.codec.as_mut().expect("a callable is of a codec");
        codec.figures.errors += 1;
        codec.ended_in_a_row = if thrown.over.is_some() { codec.ended_in_a_row + 1 } else { 0 };
        if codec.ended_in_a_row >= self.quarantine_after {
            codec.is_quarantined = true;
            let (name, row) = (plugin.name.as_str(), codec.ended_in_a_row);
            tracing::error!(
                plugin = name,
                shard = self.shard.0,
                "its codec is quarantined: limits ended {row} calls in a row"
            );
        }
        self.logged(place, Hook::Codec, None, thrown)
    }

    /// What was counted, in the order of the chain.
    pub fn figures(&self) -> Vec<Figures> {
        self.plugins.iter().enumerate().map(|(order, plugin)| self.figures_of(order, plugin)).collect()
    }

    fn figures_of(&self, order: usize, plugin: &Plugin) -> Figures {
        let host = self.state.host();
        let account = &host.accounts[plugin.owner - 1];
        let codec = plugin.codec.as_ref();
        let of = |hook: Hook| match hook {
            Hook::Codec => codec.map(|codec| (hook, codec.figures)),
            _ => plugin.hook(hook).map(|about| (hook, about.figures)),
        };
        Figures {
            plugin: plugin.name.clone(),
            description: plugin.description.clone(),
            priority: plugin.priority,
            order,
            hooks: Hook::ALL.into_iter().filter_map(of).collect(),
            is_quarantined: plugin.is_quarantined || codec.is_some_and(|codec| codec.is_quarantined),
            is_disabled: plugin.is_disabled,
            failures_in_a_row: plugin.failures_in_a_row,
            memory_bytes: host.memory.held[plugin.owner],
            log_lines_dropped: account.log.dropped,
            counters: account.counters.iter().cloned().collect(),
            gauges: account.gauges.iter().cloned().collect(),
        }
    }

    /// The failures since the last look, at most 64 of them: for tools. The server logs them itself.
    pub fn take_failures(&mut self) -> Vec<Failure> {
        std::mem::take(&mut self.failures)
    }

    /// The topic filters of a hook of a plugin; none: every topic that does not begin with `$`, or it knows no topics.
    pub fn filters_of(&self, plugin: &PluginName, hook: Hook) -> Vec<String> {
        let plugin = self.plugins.iter().find(|one| one.name == *plugin);
        plugin.and_then(|plugin| plugin.hook(hook)).map(|about| about.filters.texts()).unwrap_or_default()
    }

    /// Calls of hooks that failed since it was made.
    pub(crate) fn failed(&self) -> u64 {
        self.failed
    }

    /// Instructions that all calls have taken, as far as they were counted: by thousands, and what C did.
    pub fn instructions_spent(&self) -> u64 {
        self.state.host().spent_in_all()
    }

    /// Bytes that all calls have asked for, whether they gave them back or not.
    pub fn allocated_bytes(&self) -> u64 {
        self.state.host().memory.allocated_in_all
    }

    /// Bytes of memory of the whole VM.
    pub fn memory_bytes(&self) -> usize {
        self.state.host().memory.used
    }

    /// Collects all garbage: some milliseconds for each MiB. For tools and tests.
    pub fn collect_garbage(&mut self) {
        self.state.collect();
    }

    /// For tests: the request for memory behind so many others, and each later one, is refused; `None`: no more.
    #[doc(hidden)]
    pub fn refuse_memory_after(&mut self, requests: Option<u64>) {
        self.state.host_mut().memory.injected = requests.map_or(Injected::Nothing, Injected::All);
    }

    /// For tests: so many requests for memory behind so many others are refused, and no limit ends the call. Says whether it came to that the last time.
    #[doc(hidden)]
    pub fn refuse_memory_once(&mut self, behind: u64, times: u64) -> bool {
        let injected = &mut self.state.host_mut().memory.injected;
        matches!(std::mem::replace(injected, Injected::Some(behind, times)), Injected::Some(0, _))
    }

    /// These versions of plugins are never called: their hooks are open or closed, as in quarantine, and so is a codec of functions. Their texts
    /// have run when they were loaded. To be said before [`Self::load`], and once: what was not loaded must not be called later.
    pub fn disable(&mut self, versions: &BTreeSet<SetHash>) {
        self.plugins.iter_mut().for_each(|plugin| plugin.is_disabled |= versions.contains(&plugin.hash));
    }

    /// The plugins with that hook that may be called.
    fn enabled(&self, hook: Hook) -> Vec<usize> {
        let places = self.chains[hook as usize].iter().copied();
        places.filter(|place| !self.plugins[*place].is_disabled).collect()
    }

    fn wants(&self, hook: Hook, topic: &str) -> bool {
        let mut places = self.chains[hook as usize].iter();
        places.any(|place| self.plugins[*place].hook(hook).is_some_and(|about| about.filters.match_topic(topic)))
    }

    /// Asks one hook of one plugin. `clients`: the second argument of `on_deliver`.
    fn ask(
        &mut self,
        place: usize,
        hook: Hook,
        now: Now,
        subject: Subject<'_>,
        id: Option<MessageId>,
    ) -> Result<Said, Failed> {
        let mut given = Vec::new();
        let kept = self.state.host().kept.message;
        self.run(place, hook, now, subject, id, |stack, function| {
            stack.push_reference(function);
            stack.push_reference(kept);
            stack.call(1, Stack::ALL);
            for index in 1..=stack.top() {
                if !stack.is_nil(index) {
                    if given.len() == MOST_RESULTS {
                        return Err(Fault::Text("too many results"));
                    }
                    given.push(read_given(stack, index)?);
                }
            }
            Ok(0)
        })
        .map(|(draft, also)| Said { given, draft, also })
    }

    /// Runs a hook on a subject, and counts. Gives what it has set.
    fn run<W>(
        &mut self,
        place: usize,
        hook: Hook,
        now: Now,
        subject: Subject<'_>,
        id: Option<MessageId>,
        mut work: W,
    ) -> Result<(Draft, Vec<Draft>), Failed>
    where
        W: FnMut(Stack<'_>, Reference) -> Returned,
    {
        let plugin = &mut self.plugins[place];
        let owner = plugin.owner;
        let about = plugin.hooks[hook as usize].as_mut().expect("only plugins of the hook's chain are asked");
        let failed = Failed { is_open: about.is_open };
        if plugin.is_quarantined || plugin.is_disabled {
            return Err(failed);
        }
        let function = about.function;
        let started = about.figures.calls.is_multiple_of(SAMPLED).then(Instant::now);
        about.figures.calls += 1;
        let host = self.state.host_mut();
        host.now = now;
        // SAFETY: the call is ended below, before this function gives `subject` back.
        unsafe { host.call.begin(hook, subject) };
        let ran = self.state.protected(owner, false, |stack| {
            in_hand::point();
            work(stack, function)
        });
        let call = &mut self.state.host_mut().call;
        let set = ran.as_ref().ok().map(|()| {
            let draft = if call.draft.is_empty() { Draft::default() } else { std::mem::take(&mut call.draft) };
            (draft, if call.also.is_empty() { Vec::new() } else { std::mem::take(&mut call.also) })
        });
        call.end();
        if started.is_some() {
            self.hook_mut(place, hook).figures.measure(started);
        }
        match (ran, set) {
            (Ok(()), Some(set)) => {
                let plugin = &mut self.plugins[place];
                plugin.row_before = std::mem::take(&mut plugin.failures_in_a_row);
                Ok(set)
            }
            (Err(thrown), _) => {
                let _kept_for_tools = self.note_failure(place, hook, id, thrown);
                Err(failed)
            }
            (Ok(()), None) => unreachable!("what was set is taken from a call that went well"),
        }
    }

    fn hook_mut(&mut self, place: usize, hook: Hook) -> &mut HookOf {
        self.plugins[place].hooks[hook as usize].as_mut().expect("only plugins of the hook's chain are asked")
    }

    /// An answer that means nothing: a failure as any, of a call that ended well.
    fn fail(&mut self, place: usize, hook: Hook, id: Option<MessageId>, text: String) -> Failed {
        self.plugins[place].failures_in_a_row = self.plugins[place].row_before;
        let is_open = self.hook_mut(place, hook).is_open;
        let _kept_for_tools = self.note_failure(place, hook, id, Thrown { text, line: None, over: None });
        Failed { is_open }
    }

    /// Counts it, logs it so many times a second, and quarantines whose row is too long.
    fn note_failure(&mut self, place: usize, hook: Hook, message_id: Option<MessageId>, thrown: Thrown) -> Failure {
        let plugin = &mut self.plugins[place];
        if let Some(about) = &mut plugin.hooks[hook as usize] {
            about.figures.errors += 1;
        }
        plugin.failures_in_a_row += 1;
        if plugin.failures_in_a_row >= self.quarantine_after && !plugin.is_quarantined {
            plugin.is_quarantined = true;
            let (name, row) = (plugin.name.as_str(), plugin.failures_in_a_row);
            tracing::error!(plugin = name, shard = self.shard.0, "quarantined after {row} failures in a row");
        }
        self.logged(place, hook, message_id, thrown)
    }

    fn failure(
        &self,
        place: usize,
        hook: Hook,
        message_id: Option<MessageId>,
        text: String,
        line: Option<u32>,
    ) -> Failure {
        Failure { plugin: self.plugins[place].name.clone(), line, hook, message_id, text }
    }

    fn logged(&mut self, place: usize, hook: Hook, message_id: Option<MessageId>, thrown: Thrown) -> Failure {
        let now = self.state.host().now.mono;
        self.failed += 1;
        let failure = self.failure(place, hook, message_id, thrown.text, thrown.line);
        let plugin = &mut self.plugins[place];
        if plugin.failures.takes_line(now) {
            let id = message_id.map(tracing::field::display);
            tracing::warn!(plugin = plugin.name.as_str(), shard = self.shard.0, message = id, "{failure}");
        }
        if self.failures.len() < FAILURES_KEPT {
            self.failures.push(failure.clone());
        }
        failure
    }
}

/// Most results of one hook, nil among them not counted.
const MOST_RESULTS: usize = 8;

/// A state with libraries and API, and no plugin.
fn prepared(limits: &Limits, shard: ShardId, stores: Rc<RefCell<Stores>>) -> Result<State, String> {
    let mut state = State::new(Host::new(limits, shard, stores)).ok_or("no memory for a VM")?;
    let made = state.protected(0, true, |stack| {
        let globals = sandbox::prepare(stack)?;
        stack.host().kept.globals = globals;
        api::install(stack)?;
        Ok(0)
    });
    made.map_err(|thrown| thrown.text)?;
    Ok(state)
}

fn diagnostic(name: &PluginName, file: &str, line: Option<u32>, hook: Option<String>, message: String) -> Diagnostic {
    Diagnostic { file: file.to_owned(), line, column: None, plugin: name.clone(), hook, message }
}
