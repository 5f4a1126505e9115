//! A hashed timing wheel: the timers of one shard. One kernel timer drives it, none per connection.
//!
//! ```text
//! slot 0 1 2 … 1023, each 64 ms wide; an entry waits in slot (due / 64 ms) mod 1024 until its round comes
//! ```
//! There is no cancel: an owner whose timer is no longer due ignores it, or inserts the later one. So a
//! keep alive that is extended by each packet costs one insertion per period, not one per packet.
//! Entries fire up to one slot late, never early.

use postroad_base::MonoMillis;

const SLOT_MILLIS: u64 = 64;
const SLOTS: usize = 1024;

/// Timers by due time; each carries a number that means something to its owner.
#[derive(Debug)]
pub(crate) struct Wheel {
    slots: Vec<Vec<Entry>>,
    /// Slots up to and with this tick have been looked at.
    tick: u64,
    len: usize,
    /// No entry is due before this tick (may be too early, never too late).
    earliest: u64,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    due_tick: u64,
    owner: u64,
}

impl Wheel {
    pub(crate) fn new(now: MonoMillis) -> Self {
        Self { slots: vec![Vec::new(); SLOTS], tick: now.0 / SLOT_MILLIS, len: 0, earliest: u64::MAX }
    }

    /// Fires `owner` at `due` or up to one slot later.
    pub(crate) fn insert(&mut self, due: MonoMillis, owner: u64) {
        let due_tick = due.0.div_ceil(SLOT_MILLIS).max(self.tick + 1);
        self.slots[slot_of(due_tick)].push(Entry { due_tick, owner });
        self.len += 1;
        self.earliest = self.earliest.min(due_tick);
    }

    /// Appends the owners of all entries that are due to `fired`.
    pub(crate) fn expire(&mut self, now: MonoMillis, fired: &mut Vec<u64>) {
        let now_tick = now.0 / SLOT_MILLIS;
        if now_tick < self.earliest {
            self.tick = self.tick.max(now_tick);
            return;
        }
        let from = self.tick.max(self.earliest - 1);
        let rounds = (now_tick - from).min(SLOTS as u64);
        for tick in now_tick - rounds + 1..=now_tick {
            let slot = &mut self.slots[slot_of(tick)];
            let before = slot.len();
            slot.retain(|entry| {
                let due = entry.due_tick <= now_tick;
                if due {
                    fired.push(entry.owner);
                }
                !due
            });
            self.len -= before - slot.len();
            if slot.is_empty() && slot.capacity() > 64 {
                *slot = Vec::new();
            }
        }
        self.tick = now_tick;
        self.earliest = self.find_earliest();
    }

    /// When to call `expire` next; `None` if nothing waits. May be early, never late.
    pub(crate) fn next(&self) -> Option<MonoMillis> {
        (self.len > 0).then(|| MonoMillis(self.earliest * SLOT_MILLIS))
    }

    /// The first tick after `self.tick` whose slot holds anything: an entry there may belong to a later
    /// round, then the wheel is looked at once per round for nothing.
    fn find_earliest(&self) -> u64 {
        if self.len == 0 {
            return u64::MAX;
        }
        let ticks = self.tick + 1..=self.tick + SLOTS as u64;
        ticks.into_iter().find(|tick| !self.slots[slot_of(*tick)].is_empty()).unwrap_or(u64::MAX)
    }
}

fn slot_of(tick: u64) -> usize {
    (tick % SLOTS as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fired(wheel: &mut Wheel, now: u64) -> Vec<u64> {
        let mut fired = Vec::new();
        wheel.expire(MonoMillis(now), &mut fired);
        fired.sort_unstable();
        fired
    }

    #[test]
    fn fires_late_by_less_than_a_slot_and_never_early() {
        let mut wheel = Wheel::new(MonoMillis(1_000_000));
        for (owner, due) in [(1, 1_000_001), (2, 1_000_500), (3, 1_100_000), (4, 1_000_000)] {
            wheel.insert(MonoMillis(due), owner);
        }
        assert_eq!(fired(&mut wheel, 1_000_000), [0; 0]);
        assert_eq!(fired(&mut wheel, 1_000_065), [1, 4]);
        assert_eq!(fired(&mut wheel, 1_000_499), [0; 0]);
        assert_eq!(fired(&mut wheel, 1_000_565), [2]);
        assert_eq!(fired(&mut wheel, 1_099_999), [0; 0], "a later round of the same slot");
        assert_eq!(fired(&mut wheel, 1_100_064), [3]);
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn next_is_never_later_than_the_earliest_entry() {
        let mut wheel = Wheel::new(MonoMillis(0));
        let mut seed = 7_u64;
        let mut dues = Vec::new();
        for owner in 0..500 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let due = 1 + (seed >> 40) % 300_000;
            dues.push(due);
            wheel.insert(MonoMillis(due), owner);
        }
        let (mut now, mut all) = (0, Vec::new());
        while let Some(next) = wheel.next() {
            assert!(next.0 > now, "time moves on");
            now = next.0;
            for owner in fired(&mut wheel, now) {
                let due = dues[usize::try_from(owner).expect("small")];
                assert!(now >= due && now < due + 2 * SLOT_MILLIS, "due {due}, fired {now}");
                all.push(owner);
            }
        }
        all.sort_unstable();
        assert_eq!(all, (0..500).collect::<Vec<_>>());
    }

    #[test]
    fn a_jump_over_many_rounds_fires_everything_once() {
        let mut wheel = Wheel::new(MonoMillis(0));
        for owner in 0..3000 {
            wheel.insert(MonoMillis(owner * 100), owner);
        }
        assert_eq!(fired(&mut wheel, 10_000_000).len(), 3000);
        assert_eq!((wheel.next(), wheel.len), (None, 0));
    }
}
