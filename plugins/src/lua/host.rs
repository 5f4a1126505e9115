//! What functions of ours know besides their arguments: whose call it is, what is left of its limits, and what it is about.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use base::{Now, ShardId};
use postroad_base as base;

use super::{Fault, Memory, Reference};
use crate::call::Call;
use crate::plugin::Account;
use crate::{Limits, Stores};

/// Why a call was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// It took too many instructions.
    Instructions,
    /// It took too long.
    Time,
    /// It, or its plugin, held too much memory.
    Memory,
    /// It built too much that it threw away.
    Allocated,
    /// Functions called functions too deeply.
    Depth,
}

/// Functions that call functions: deeper than that is no use of a plugin. Lua's own bound (some 200,000) is too high for what has to
/// be done at each level when the call ends.
pub(super) const LEVELS_MAX: i32 = 5_000;
/// Instructions between two looks at the limits, by the largest blocks that there are: one instruction can copy, compare or search all of one.
const LOOK_EVERY: i32 = 1_000;
const LOOK_EVERY_LARGE: i32 = 50;
const LOOK_EVERY_HUGE: i32 = 10;
/// Charged instructions between two looks at the clock.
const CHARGED_BETWEEN_LOOKS: u64 = 10_000;
/// What [`Host::scratch`] and [`Host::keys`] keep from call to call: bytes, and keys.
const SCRATCH_KEPT: usize = 64 << 10;
const KEYS_KEPT: usize = 1_000;

/// Values that the host keeps in Lua.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Kept {
    /// The message object.
    pub(crate) message: Reference,
    /// The metatable of answers (`postroad.drop(…)`).
    pub(crate) answer_type: Reference,
    /// The metatable of arrays that may be empty (`postroad.array`).
    pub(crate) array_type: Reference,
    /// The metatables of counters and gauges.
    pub(crate) counter_type: Reference,
    pub(crate) gauge_type: Reference,
    /// `message:property`, `set_property`, `also`.
    pub(crate) methods: [Reference; 3],
    /// `postroad.null`.
    pub(crate) null: Reference,
    /// What every environment falls back to.
    pub(crate) globals: Reference,
}

/// Of one VM. Scripts never see it; what they may know of it, functions tell them.
#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) memory: Memory,
    pub(crate) limits: Limits,
    pub(crate) stores: Rc<RefCell<Stores>>,
    pub(crate) shard: ShardId,
    pub(crate) kept: Kept,
    /// Functions of Lua's own that stand behind ours (`sandbox`).
    pub(crate) originals: Vec<mlua::lua_CFunction>,
    /// By plugin, in the order of their owners: 1 is the first.
    pub(crate) accounts: Vec<Account>,
    /// The call that runs.
    pub(crate) now: Now,
    pub(crate) call: Call,
    pub(crate) over: Option<Over>,
    spent: u64,
    spent_before: u64,
    spent_max: u64,
    looked_at: u64,
    started: Option<Instant>,
    millis_max: u64,
    /// Where functions of ours build texts: they own none (module head).
    pub(crate) scratch: Vec<u8>,
    /// Keys of the tables that are being written.
    pub(crate) keys: Vec<crate::api::Key>,
    /// The last error that nobody caught: text, and line.
    pub(crate) error: String,
    pub(crate) error_line: Option<u32>,
    /// Texts of errors go to people who test, who want to see their lines. Else they go to a log, where a line must be one.
    pub(crate) keeps_lines: bool,
}

impl Host {
    pub(crate) fn new(limits: &Limits, shard: ShardId, stores: Rc<RefCell<Stores>>) -> Self {
        let mut memory = Memory::new();
        memory.used_max = limits.memory_bytes;
        memory.host_block_max = limits.block_bytes.max(limits.memory_bytes / 4);
        Self {
            memory,
            limits: *limits,
            stores,
            shard,
            kept: Kept::default(),
            originals: Vec::new(),
            accounts: Vec::new(),
            now: Now::default(),
            call: Call::default(),
            over: None,
            spent: 0,
            spent_before: 0,
            spent_max: u64::MAX,
            looked_at: 0,
            started: None,
            millis_max: u64::MAX,
            scratch: Vec::new(),
            keys: Vec::new(),
            error: String::new(),
            error_line: None,
            keeps_lines: false,
        }
    }

    /// A call of the plugin of this owner begins; 0 is the host's own work, without limits.
    pub(crate) fn begin(&mut self, owner: usize, is_load: bool) {
        let limits = self.accounts.get(owner.wrapping_sub(1)).map_or(&self.limits, |account| &account.limits);
        let (instructions, millis) = match (owner, is_load) {
            (0, _) => (u64::MAX, u64::MAX),
            (_, true) => (limits.load_instructions, limits.load_millis),
            (_, false) => (limits.instructions, limits.millis),
        };
        self.memory.held_max = limits.plugin_memory_bytes;
        self.memory.block_max = limits.block_bytes;
        self.memory.allocated_max = limits.allocated_bytes;
        self.memory.owner = owner;
        self.memory.begin();
        self.spent_before = self.spent_in_all();
        (self.spent_max, self.millis_max) = (instructions, millis);
        (self.spent, self.looked_at, self.started, self.over) = (0, 0, None, None);
        self.error.clear();
        self.error_line = None;
    }

    /// Instructions of all calls, as they were counted.
    pub(crate) fn spent_in_all(&self) -> u64 {
        self.spent_before.saturating_add(self.spent)
    }

    /// The plugin whose call runs.
    pub(crate) fn account(&mut self) -> &mut Account {
        let owner = self.memory.owner;
        self.accounts.get_mut(owner.wrapping_sub(1)).expect("scripts run for a plugin only")
    }

    /// Counts work that Lua has no instructions for.
    pub(crate) fn charge(&mut self, instructions: u64) -> Result<(), Fault> {
        self.count_forgotten();
        // What is above the limit is not done.
        self.spent = self.spent.saturating_add(instructions).min(self.spent_max.saturating_add(1));
        if self.spent > self.spent_max || self.spent - self.looked_at > CHARGED_BETWEEN_LOOKS {
            self.look();
        }
        if self.ended_by().is_some() { Err(Fault::Over) } else { Ok(()) }
    }

    fn count_forgotten(&mut self) {
        self.spent = self.spent.saturating_add(std::mem::take(&mut self.memory.uncounted));
    }

    /// What calls build outside of Lua's memory is given back, but for what most of them need.
    pub(super) fn shrink(&mut self) {
        if self.scratch.capacity() > SCRATCH_KEPT {
            self.scratch = Vec::new();
        }
        if self.keys.capacity() > KEYS_KEPT {
            self.keys = Vec::new();
        }
    }

    /// Charges as much as reading or writing so many bytes is worth.
    pub(crate) fn charge_bytes(&mut self, bytes: usize) -> Result<(), Fault> {
        self.charge(bytes as u64 / 64 + 1)
    }

    /// Work that may still be done, in instructions.
    pub(crate) fn left(&self) -> u64 {
        self.spent_max.saturating_sub(self.spent)
    }

    /// So many instructions were executed.
    pub(super) fn count(&mut self, instructions: u64) {
        self.count_forgotten();
        self.spent = self.spent.saturating_add(instructions);
        self.look();
    }

    /// Whether any limit is reached. The clock is read from the first look on only: most calls end before it.
    fn look(&mut self) {
        self.looked_at = self.spent;
        if self.over.is_some() || self.millis_max == u64::MAX {
            return;
        }
        let started = *self.started.get_or_insert_with(Instant::now);
        self.over = if self.memory.refused {
            Some(Over::Memory)
        } else if self.memory.is_used_up() {
            Some(Over::Allocated)
        } else if self.spent > self.spent_max {
            Some(Over::Instructions)
        } else if started.elapsed().as_millis() as u64 >= self.millis_max {
            Some(Over::Time)
        } else {
            None
        };
    }

    /// How the call ended, if by a limit. Something refused counts, whoever has caught the error.
    pub(crate) fn ended_by(&self) -> Option<Over> {
        self.over.or(self.memory.refused.then_some(Over::Memory))
    }

    /// Instructions until the next look.
    pub(super) fn look_every(&self) -> i32 {
        match (self.memory.large_blocks, self.memory.huge_blocks) {
            (0, _) => LOOK_EVERY,
            (_, 0) => LOOK_EVERY_LARGE,
            _ => LOOK_EVERY_HUGE,
        }
    }

    /// What is wrong, for a failure: a limit with its number.
    pub(crate) fn limit_text(&self, over: Over) -> String {
        match over {
            Over::Instructions => format!("it took more than {} instructions", self.spent_max),
            Over::Time => format!("it took more than {} ms", self.millis_max),
            Over::Memory => format!(
                "not enough memory: the plugin holds {} bytes of {}, all plugins {} of {}, one block has {} at most",
                self.memory.held.get(self.memory.owner).copied().unwrap_or_default(),
                self.memory.held_max,
                self.memory.used,
                self.memory.used_max,
                self.memory.block_max
            ),
            Over::Allocated => format!("it asked for more than {} bytes of memory", self.memory.allocated_max),
            Over::Depth => format!("functions call each other more than {LEVELS_MAX} levels deep"),
        }
    }
}
