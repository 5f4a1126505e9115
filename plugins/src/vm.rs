//! Signatures of the VM, for those who wait for them; the bodies follow in the next commits.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use base::{ClientId, Message, Now, Qos, ReasonCode, ShardId, TopicFilter};
use broker::api::{Connect, DisconnectCause};
use broker::hooks::{Admission, Answer, Decision, Peer, Repair};
use postroad_base as base;
use postroad_broker as broker;

use crate::{Diagnostic, Figures, Limits, Plain, PluginName, Set, SetHash, Stores, TestOutcome};

/// A set as bytecode that we made. Goes to the shards.
#[derive(Clone, Debug)]
pub struct Compiled {
    hash: SetHash,
}

impl Compiled {
    /// Of the set that it was compiled from.
    pub fn hash(&self) -> SetHash {
        self.hash
    }
}

impl Set {
    /// Compiles every plugin and looks at its table.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn compile(&self, _limits: &Limits) -> Result<Compiled, Vec<Diagnostic>> {
        Ok(Compiled { hash: self.hash() })
    }
}

/// What `on_save` of each plugin gave, for `on_load` of the next generation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Saved {
    /// By plugin: its state, and the version (the hash of its text) that gave it.
    pub(crate) states: BTreeMap<PluginName, (SetHash, Plain)>,
}

/// One generation of all plugins on one shard.
#[derive(Debug)]
pub struct Vm {
    _not_send: Rc<RefCell<Stores>>,
}

impl Vm {
    /// Loads all plugins. `on_load` is not called.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn new(
        _compiled: &Compiled,
        _limits: &Limits,
        _shard: ShardId,
        stores: Rc<RefCell<Stores>>,
    ) -> Result<Self, Vec<Diagnostic>> {
        Ok(Self { _not_send: stores })
    }

    /// Asks `on_save` of each plugin.
    ///
    /// # Errors
    /// The first failure.
    pub fn save(&mut self, _now: Now) -> Result<Saved, Diagnostic> {
        Ok(Saved::default())
    }

    /// Gives each `on_load` what its `on_save` gave, or nil.
    ///
    /// # Errors
    /// The first failure.
    pub fn load(&mut self, _now: Now, _previous: &Saved) -> Result<(), Diagnostic> {
        Ok(())
    }

    /// Runs the self-tests.
    pub fn self_test(&mut self, _now: Now) -> Vec<TestOutcome> {
        Vec::new()
    }

    /// What becomes of a message that is published.
    pub fn publish(&mut self, _now: Now, _message: &Message, _from: Peer<'_>) -> Answer<Decision> {
        Answer::default()
    }

    /// Whether `deliver` may have something to say about this topic.
    pub fn wants_deliveries(&self, _topic: &str) -> bool {
        false
    }

    /// The places of those that do not get it.
    pub fn deliver(&mut self, _now: Now, _message: &Message, _to: &[&ClientId]) -> Vec<usize> {
        Vec::new()
    }

    /// Whether `dead_letter` may have something to say about letters of this topic.
    pub fn wants_letters(&self, _topic: &str) -> bool {
        false
    }

    /// What becomes of a dead letter.
    pub fn dead_letter(&mut self, _now: Now, _letter: &Message) -> Answer<Repair> {
        Answer::default()
    }

    /// Whether a client may connect.
    pub fn connect(&mut self, _now: Now, _connect: &Connect) -> Answer<Admission> {
        Answer::default()
    }

    /// A connection is over.
    pub fn disconnected(&mut self, _now: Now, _peer: Peer<'_>, _cause: DisconnectCause) -> Vec<Message> {
        Vec::new()
    }

    /// At which level at most a client subscribes, or why it does not.
    pub fn subscribe(
        &mut self,
        _now: Now,
        _peer: Peer<'_>,
        _filter: &TopicFilter,
        qos: Qos,
    ) -> Answer<Result<Qos, ReasonCode>> {
        Ok(qos).into()
    }

    /// What was counted, in the order of the chain.
    pub fn figures(&self) -> Vec<Figures> {
        Vec::new()
    }
}

// For `generations`, until the bodies are there.
impl Vm {
    pub(crate) fn failures(&self) -> u64 {
        0
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        0
    }
}

impl Saved {
    pub(crate) fn is_empty(&self) -> bool {
        self.states.is_empty()
    }
}
