//! What is counted for each plugin of a VM: for metrics, `plugin list`, and the error budget.

use std::collections::BTreeMap;

use crate::PluginName;

/// Everything that the host asks a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Hook {
    /// A client wants to connect.
    Connect,
    /// A connection is over.
    Disconnect,
    /// A client wants to subscribe.
    Subscribe,
    /// A client publishes.
    Inbound,
    /// A message is published.
    Route,
    /// A message is about to be given to clients of a shard.
    Deliver,
    /// A dead letter was made.
    DeadLetter,
    /// State goes to the next generation.
    Save,
    /// State comes from the generation before.
    Load,
    /// A self-test.
    Test,
    /// A function of a frame codec.
    Codec,
}

impl Hook {
    /// Every one.
    pub const ALL: [Self; 11] = [
        Self::Connect,
        Self::Disconnect,
        Self::Subscribe,
        Self::Inbound,
        Self::Route,
        Self::Deliver,
        Self::DeadLetter,
        Self::Save,
        Self::Load,
        Self::Test,
        Self::Codec,
    ];

    /// Its key in a plugin's table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "on_connect",
            Self::Disconnect => "on_disconnect",
            Self::Subscribe => "on_subscribe",
            Self::Inbound => "on_inbound",
            Self::Route => "route",
            Self::Deliver => "on_deliver",
            Self::DeadLetter => "on_dead_letter",
            Self::Save => "on_save",
            Self::Load => "on_load",
            Self::Test => "test",
            Self::Codec => "codec",
        }
    }
}

/// One hook of one plugin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HookFigures {
    /// Calls.
    pub calls: u64,
    /// Of these, the ones that failed.
    pub errors: u64,
    /// Nanoseconds in the calls that were measured: one of 64.
    pub sampled_ns: u64,
    /// How many were measured.
    pub sampled_calls: u64,
}

impl HookFigures {
    /// A call is over that was measured, if it was.
    pub(crate) fn measure(&mut self, started: Option<std::time::Instant>) {
        if let Some(started) = started {
            self.sampled_calls += 1;
            self.sampled_ns += started.elapsed().as_nanos() as u64;
        }
    }
}

/// One plugin of one VM.
#[derive(Clone, Debug, PartialEq)]
pub struct Figures {
    /// Which.
    pub plugin: PluginName,
    /// Its description.
    pub description: String,
    /// Its priority: smaller first.
    pub priority: u16,
    /// Its place in the chain, from 0 on.
    pub order: usize,
    /// The hooks that it has, with what was counted.
    pub hooks: Vec<(Hook, HookFigures)>,
    /// Its hooks are not called any more, or its codec is not, until the next reload.
    pub is_quarantined: bool,
    /// This version is not called, since the server has crashed in it ([`crate::Vm::disable`]).
    pub is_disabled: bool,
    /// Failures since the last call of a hook that went well.
    pub failures_in_a_row: u32,
    /// Bytes of memory that it holds now.
    pub memory_bytes: usize,
    /// Lines of log that were not written, for there were too many.
    pub log_lines_dropped: u64,
    /// Its counters (`postroad.counter`).
    pub counters: BTreeMap<String, u64>,
    /// Its gauges (`postroad.gauge`).
    pub gauges: BTreeMap<String, f64>,
}

/// How a call failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Whose.
    pub plugin: PluginName,
    /// In which hook.
    pub hook: Hook,
    /// The line of the script, if it is known.
    pub line: Option<u32>,
    /// The message that it was about, if it has an id.
    pub message_id: Option<postroad_base::MessageId>,
    /// What went wrong.
    pub text: String,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.lua:", self.plugin)?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        write!(f, " {}: {}", self.hook.name(), self.text)
    }
}

/// What a self-test said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestOutcome {
    /// Whose.
    pub plugin: PluginName,
    /// Its key in the table `test`.
    pub name: String,
    /// How it failed, if it did.
    pub failure: Option<Diagnostic>,
}

use crate::Diagnostic;
