//! How generations of plugins come to the shards, as the server's coordinator would have it: made ready on all, then taken by each when its turn
//! comes; for everybody, or as a canary for some clients, of which there are a few only: for one, two, all or none of those who publish. It is promoted or aborted
//! later.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use postroad_base::{Now, ShardId};
use postroad_plugins::generations::Mode;

use crate::Canary;
use crate::plugins::{Plugins, Seen, generation};
use crate::random::Random;

/// Of a thousand generations so many begin as canaries.
const CANARIES: usize = 400;

/// The plugins of all shards, and the change that is under way.
#[derive(Debug)]
pub struct Rollout {
    /// Where those of each shard stand; none before the start.
    pub shards: Vec<Plugins>,
    seen: Rc<RefCell<Seen>>,
    seed: u64,
    /// Of how many of a thousand publishes they make nothing.
    failures: usize,
    /// The newest generation, and what answered before its canary.
    newest: u32,
    before_canary: u32,
    change: Change,
    /// Plugins have this mistake.
    planted: Option<Canary>,
    /// Shards that have not made the change.
    left: Vec<usize>,
}

/// How the newest generation comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Replacement,
    Canary,
    Promotion,
    Abort,
}

/// A shard has made the change.
#[derive(Clone, Copy, Debug)]
pub struct Made {
    /// Which.
    pub shard: usize,
    /// Nothing is stamped there with less from now on, if so.
    pub committed: Option<u32>,
}

impl Rollout {
    /// Not started.
    pub fn new(seed: u64, failures: usize, planted: Option<Canary>) -> Self {
        Self {
            shards: Vec::new(),
            seen: Rc::default(),
            seed,
            failures,
            newest: 1,
            before_canary: 1,
            change: Change::Replacement,
            planted,
            left: Vec::new(),
        }
    }

    /// All shards begin with the newest generation, also after a crash.
    pub fn start(&mut self, shards: u16, now: Now) {
        self.left.clear();
        self.change = Change::Replacement;
        self.seen.borrow_mut().renamed.clear();
        let first = generation(self.newest, self.seed, self.failures, Mode::Replace);
        let begin = |shard| Plugins::new(ShardId(shard), &self.seen, (Arc::clone(&first), now), self.planted);
        self.shards = (0..shards).map(begin).collect();
    }

    /// What was seen so far; what went wrong is taken out.
    pub fn seen(&self) -> std::cell::RefMut<'_, Seen> {
        self.seen.borrow_mut()
    }

    /// The next change is made ready on all shards, or some shard makes it.
    pub fn step(&mut self, random: &mut Random, now: Now) -> Option<Made> {
        if self.left.is_empty() {
            if self.next_change(random, now) {
                self.left = (0..self.shards.len()).collect();
            }
            return None;
        }
        let shard = self.left.swap_remove(random.below(self.left.len()));
        let plugins = &self.shards[shard];
        match self.change {
            Change::Replacement | Change::Canary => plugins.commit(self.newest, now),
            Change::Promotion => plugins.promote(now),
            Change::Abort => plugins.abort(self.newest),
        }
        Some(Made { shard, committed: plugins.answers(self.newest).then_some(self.newest) })
    }

    /// Whether there is one: not while too many older generations are waited for.
    fn next_change(&mut self, random: &mut Random, now: Now) -> bool {
        let number = self.newest + 1;
        if self.change != Change::Canary {
            let is_canary = random.chance(CANARIES);
            let percent = 1 + random.below(99) as u8;
            let mode = if is_canary { Mode::Canary { percent } } else { Mode::Replace };
            let next = generation(number, self.seed + u64::from(number), self.failures, mode);
            if !self.shards.iter().all(|plugins| plugins.prepare(Arc::clone(&next), now)) {
                self.shards.iter().for_each(|plugins| plugins.discard(number));
                return false;
            }
            self.change = if is_canary { Change::Canary } else { Change::Replacement };
            (self.before_canary, self.newest) = (self.newest, number);
        } else if random.chance(500) {
            self.change = Change::Promotion;
            self.seen.borrow_mut().promoted += 1;
        } else {
            self.change = Change::Abort;
            let mut seen = self.seen.borrow_mut();
            let script = seen.script_of(self.before_canary);
            seen.renamed.insert(number, script);
            seen.aborted += 1;
            self.newest = number;
        }
        true
    }
}
