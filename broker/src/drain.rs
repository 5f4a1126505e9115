//! The offline drain: a lane of its own for what had waited when its client came back `[RTM-2]`, `[PER-7]`.
//!
//! ```text
//!            something waits
//! CONNACK ───────┬─────────► delayed ────────► unscheduled ────────────► draining ⇄ in line ──► realtime
//!                │           drain.jitter      restart.delivery,         drain.per_second
//!                │                             first return after a
//!                └─ nothing: realtime          start only
//! ```
//!
//! What counts: the deliveries that were pending when the CONNACK left, of the session's queue and of its registration's,
//! so many that `Returned::owed` says. They are the oldest, and a queue is first in, first out, so the first `owed` that
//! leave are theirs. What comes meanwhile waits behind them, as any order in a session demands, but takes no token: once the
//! last of `owed` has left, the connection is realtime, with all that has come meanwhile. A client is hence held up by the
//! lane for a number of deliveries that does not grow, however much is published to it.
//!
//! Invariants
//! - A connection is in `Drain::returned` exactly while something is owed to it: else it is realtime.
//! - Of those, one stands in the set of its stage, under its `ticket`, exactly while it says `is_draining`.
//! - Somebody stands in line, and there are no tokens: no tick is due before there is a portion of them.
//! - Nothing is read from the old generation for who waits for its turn.

use std::collections::BTreeSet;

use ahash::AHashMap;
use base::{ConnectionId, MonoMillis};
use postroad_base as base;

use crate::broker::Broker;
use crate::config::{Config, RestartDelivery};
use crate::session::{Connection, ConnectionIndex, SessionIndex};
use crate::stats::Standing;
use crate::turns::{ARRIVED_TIMES_MAX, DRAINS_PER_TICK, ROOM_KEPT_MAX};

/// What a bucket holds at most, as time in which it comes: a tick that is late by so much loses nothing.
const BURST_MILLIS: u64 = 100;
/// Whoever has used up all tokens waits for what comes in so long, so that they do not leave one by one.
const PORTION_MILLIS: u64 = 10;
/// Connections whose turn begins in one tick at most.
const TURNS_PER_TICK: usize = 256;

/// How far a connection in the drain lane is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Its drain begins when its jitter is over.
    Delayed,
    /// After a start: its drain begins when the scheduler comes by.
    Unscheduled,
    /// Its turn has come.
    Draining,
}

/// What the lane knows of a connection.
#[derive(Clone, Copy, Debug)]
struct Returned {
    stage: Stage,
    /// Its place in the set of its stage.
    ticket: u64,
    /// So many of the next deliveries had waited before it came. Never 0.
    owed: usize,
    /// Deliveries that it is sent before those behind it in line.
    share_left: usize,
}

/// The scheduler of a shard's drains.
#[derive(Debug)]
pub(crate) struct Drain {
    deliveries: Bucket,
    sessions: Bucket,
    returned: AHashMap<ConnectionIndex, Returned>,
    /// By the time at which its jitter is over.
    delayed: BTreeSet<(u64, ConnectionId)>,
    /// In order of return.
    unscheduled: BTreeSet<(u64, ConnectionId)>,
    /// Those that would take more; who has had its share goes to the end.
    line: BTreeSet<(u64, ConnectionId)>,
    tickets: u64,
    /// How many deliveries may leave before the next tick by themselves.
    quota: usize,
    /// As [`Broker::arrived_behind`], for clients that drain.
    pub arrived_behind: usize,
}

impl Drain {
    pub fn new(config: &Config) -> Self {
        Self {
            deliveries: Bucket::new(config.limits.drained_per_second),
            sessions: Bucket::new(config.limits.restart_sessions_per_second),
            returned: AHashMap::new(),
            delayed: BTreeSet::new(),
            unscheduled: BTreeSet::new(),
            line: BTreeSet::new(),
            tickets: 0,
            quota: config.drained_per_tick,
            arrived_behind: 0,
        }
    }

    pub fn set_rates(&mut self, config: &Config, now: MonoMillis) {
        self.deliveries.set_rate(config.limits.drained_per_second, now);
        self.sessions.set_rate(config.limits.restart_sessions_per_second, now);
    }

    /// Whether each delivery takes a token.
    pub fn is_limited(&self) -> bool {
        self.deliveries.per_second > 0
    }

    /// Whether somebody waits for its turn or in line.
    pub fn is_waited_for(&self) -> bool {
        !(self.delayed.is_empty() && self.unscheduled.is_empty() && self.line.is_empty())
    }

    /// When a tick has something to do here.
    pub fn due(&self, config: &Config) -> Option<MonoMillis> {
        let delayed = self.delayed.first().map(|(at, _)| MonoMillis(*at));
        let unscheduled = (!self.unscheduled.is_empty()).then(|| match config.limits.restart_delivery {
            RestartDelivery::Scheduled => self.sessions.portion_at(),
            RestartDelivery::Pull => MonoMillis(0),
        });
        let line = (!self.line.is_empty()).then(|| self.deliveries.portion_at());
        [delayed, unscheduled, line].into_iter().flatten().min()
    }

    fn next_ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    /// No connection drains or waits to.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.returned.is_empty()
    }

    /// How far a connection is; `None`: it is realtime.
    #[inline]
    pub fn stage(&self, place: ConnectionIndex) -> Option<Stage> {
        if self.is_idle() {
            return None; // as most of the time: it is asked for each delivery
        }
        self.returned.get(&place).map(|returned| returned.stage)
    }

    /// How many connections wait for their drain to begin, and of how many it is under way.
    pub fn sessions(&self) -> (usize, usize) {
        let awaiting = self.delayed.len() + self.unscheduled.len();
        (awaiting, self.returned.len() - awaiting)
    }

    /// Where what waits in a queue with this connection is counted.
    pub fn standing_of(&self, connection: Option<ConnectionIndex>) -> Standing {
        match connection.map(|place| self.stage(place)) {
            None => Standing::Offline,
            Some(None) => Standing::Realtime,
            Some(Some(Stage::Draining)) => Standing::Draining,
            Some(Some(Stage::Delayed | Stage::Unscheduled)) => Standing::Awaiting,
        }
    }

    fn standing(&mut self, stage: Stage) -> &mut BTreeSet<(u64, ConnectionId)> {
        match stage {
            Stage::Delayed => &mut self.delayed,
            Stage::Unscheduled => &mut self.unscheduled,
            Stage::Draining => &mut self.line,
        }
    }

    /// The connection is realtime, or gone.
    fn forget(&mut self, place: ConnectionIndex) {
        self.returned.remove(&place);
        if self.returned.is_empty() && self.returned.capacity() > ROOM_KEPT_MAX {
            self.returned = AHashMap::new();
        }
    }
}

impl Broker {
    /// Whether some client waits for its drain to begin or to go on.
    pub fn has_drains(&self) -> bool {
        self.drain.is_waited_for()
    }

    /// CONNACK has left: what waits for the client from before is to be drained.
    pub(crate) fn returned(&mut self, place: ConnectionIndex) {
        let pending = |index| self.sessions[index as usize].queue.messages();
        let owed: usize = self.queues_of(place).map(pending).sum();
        if owed == 0 {
            self.drain_begins(place);
            return self.pump_connection(place);
        }
        let jitter = self.jitter_of(place);
        let ticket = self.now.mono.after(jitter).0;
        self.drain.returned.insert(place, Returned { stage: Stage::Delayed, ticket, owed, share_left: 0 });
        match jitter {
            0 => self.jitter_is_over(place),
            _ => self.stand(place, Stage::Delayed, ticket),
        }
    }

    /// An operator wants that the client is sent now what had waited: it leaves the lane, and its backlog goes as that of any
    /// other connection does, without jitter, turn or rate.
    pub(crate) fn drain_now(&mut self, client: &str) {
        let session = self.session_of_client(client);
        let Some(place) = session.and_then(|index| self.sessions[index as usize].connection) else { return };
        if self.drain.stage(place).is_none() {
            return;
        }
        self.leave_drain(place);
        self.connections[place as usize].is_draining = false;
        self.drain_begins(place);
        self.pump_connection(place);
    }

    /// The connection goes: it stands nowhere any more.
    pub(crate) fn leave_drain(&mut self, place: ConnectionIndex) {
        let Connection { id, is_draining, .. } = self.connections[place as usize];
        let Some(Returned { stage, ticket, .. }) = self.drain.returned.get(&place).copied() else { return };
        if is_draining {
            self.drain.standing(stage).remove(&(ticket, id));
        }
        self.drain.forget(place);
    }

    /// As [`Broker::pump_connection`], for one that is not realtime: sends as much of the backlog as may leave now.
    pub(crate) fn pump_drain(&mut self, place: ConnectionIndex) {
        if self.drain.is_limited() {
            // Who stands in line comes first: else acknowledgements of a few would take every token as it comes.
            let is_free = self.drain.line.is_empty() && self.drain.deliveries.room(self.now.mono) > 0;
            if !is_free {
                self.settle_owed(place, 0);
                return self.stand_if_owed(place);
            }
        }
        let most = self.drain.quota.min(self.drain.deliveries.room(self.now.mono));
        self.drain.quota -= self.send_owed(place, most);
    }

    /// It would take more of what has waited.
    pub(crate) fn stand_in_line(&mut self, place: ConnectionIndex) {
        match self.drain.returned.get(&place).copied() {
            Some(Returned { stage, ticket, .. }) => self.stand(place, stage, ticket),
            None => {
                self.connections[place as usize].is_draining = true;
                self.draining.push_back(self.connections[place as usize].id);
            }
        }
    }

    /// So many steps of what is owed have been done. With the last one, or if nothing waits, the lane is left.
    #[inline]
    pub(crate) fn settle_owed(&mut self, place: ConnectionIndex, sent: usize) {
        if !self.drain.is_idle() {
            self.settle_returned(place, sent);
        }
    }

    fn settle_returned(&mut self, place: ConnectionIndex, sent: usize) {
        let Some(Returned { stage, ticket, owed, share_left }) = self.drain.returned.get(&place).copied() else {
            return;
        };
        let nothing_waits = self.queues_of(place).all(|index| self.sessions[index as usize].queue.is_empty());
        let Connection { id, is_draining, .. } = self.connections[place as usize];
        if is_draining {
            self.drain.line.remove(&(ticket, id)); // an acknowledgement has sent one while it stands there
        }
        if sent >= owed || nothing_waits {
            self.drain.forget(place);
        } else {
            let (owed, has_had_it) = (owed - sent, sent >= share_left);
            let ticket = if has_had_it { self.drain.next_ticket() } else { ticket };
            let share_left = if has_had_it { self.quantum() } else { share_left - sent };
            self.drain.returned.insert(place, Returned { stage, ticket, owed, share_left });
        }
        if is_draining {
            self.stand_in_line(place);
        }
    }

    /// The turns that have come, and what those that stand in line are sent.
    pub(crate) fn drain_returned(&mut self) {
        let usual = self.config.drained_per_tick;
        let left = usual + std::mem::take(&mut self.drain.arrived_behind).min(ARRIVED_TIMES_MAX * usual);
        self.drain.quota = left;
        self.end_jitters();
        self.schedule_returned();
        self.serve_line(left);
    }

    fn end_jitters(&mut self) {
        for _ in 0..TURNS_PER_TICK {
            let now = self.now.mono.0;
            if self.drain.delayed.first().is_none_or(|(at, _)| *at > now) {
                return;
            }
            if let Some(place) = self.drain.delayed.pop_first().and_then(|(_, id)| self.place_of(id)) {
                self.jitter_is_over(place);
            }
        }
    }

    fn schedule_returned(&mut self) {
        for _ in 0..TURNS_PER_TICK {
            let is_free = self.config.limits.restart_delivery == RestartDelivery::Pull;
            if !is_free && self.drain.sessions.room(self.now.mono) == 0 {
                return;
            }
            let Some((_, id)) = self.drain.unscheduled.pop_first() else { return };
            if !is_free {
                self.drain.sessions.take(1, self.now.mono);
            }
            if let Some(place) = self.place_of(id) {
                self.drain_begins(place);
                self.begin_sending(place);
            }
        }
    }

    fn serve_line(&mut self, mut left: usize) {
        let now = self.now.mono;
        if self.drain.deliveries.portion_at() > now {
            return;
        }
        let share = (left / self.drain.line.len().max(1)).max(self.quantum());
        for _ in 0..self.drain.line.len() {
            let most = left.min(share).min(self.drain.deliveries.room(now));
            if most == 0 {
                return;
            }
            let Some((_, id)) = self.drain.line.pop_first() else { return };
            let Some(place) = self.place_of(id) else { continue };
            self.connections[place as usize].is_draining = false;
            let sent = self.send_owed(place, most);
            left -= sent.clamp(1, left); // who takes none has cost something, too
        }
    }

    /// Sends at most `most` of what is owed; how many steps it was. What expired takes no token.
    fn send_owed(&mut self, place: ConnectionIndex, most: usize) -> usize {
        let unacknowledged = self.connections[place as usize].unacknowledged;
        let owed = self.drain.returned.get(&place).map_or(0, |returned| returned.owed);
        let sent = self.send_waiting(place, most.min(owed));
        let left = self.connections[place as usize].unacknowledged - unacknowledged;
        self.drain.deliveries.take(left.into(), self.now.mono);
        sent
    }

    /// A delivery that waited has been put in flight.
    pub(crate) fn count_by_lane(&mut self, place: ConnectionIndex) {
        match self.drain.stage(place) {
            Some(_) => self.stats.drained += 1,
            None => self.stats.realtime += 1,
        }
    }

    fn jitter_is_over(&mut self, place: ConnectionIndex) {
        let is_first = self.queues_of(place).any(|index| self.sessions[index as usize].recovered);
        if is_first && self.config.limits.restart_delivery == RestartDelivery::Scheduled {
            let now = self.now.mono;
            if !self.drain.unscheduled.is_empty() || self.drain.sessions.room(now) == 0 {
                let ticket = self.drain.next_ticket();
                return self.stand(place, Stage::Unscheduled, ticket);
            }
            self.drain.sessions.take(1, now);
        }
        self.drain_begins(place);
        self.begin_sending(place);
    }

    /// What a start asks of a first drain has been done.
    fn drain_begins(&mut self, place: ConnectionIndex) {
        for index in self.queues_of(place) {
            self.sessions[index as usize].recovered = false;
        }
    }

    fn begin_sending(&mut self, place: ConnectionIndex) {
        let (ticket, quantum) = (self.drain.next_ticket(), self.quantum());
        self.connections[place as usize].is_draining = false;
        if let Some(returned) = self.drain.returned.get_mut(&place) {
            (returned.stage, returned.ticket, returned.share_left) = (Stage::Draining, ticket, quantum);
        }
        self.pump_connection(place);
    }

    fn stand(&mut self, place: ConnectionIndex, stage: Stage, ticket: u64) {
        let connection = &mut self.connections[place as usize];
        connection.is_draining = true;
        if let Some(returned) = self.drain.returned.get_mut(&place) {
            (returned.stage, returned.ticket) = (stage, ticket);
            self.drain.standing(stage).insert((ticket, connection.id));
        }
    }

    fn stand_if_owed(&mut self, place: ConnectionIndex) {
        match self.drain.stage(place) {
            Some(_) => self.stand_in_line(place),
            None => self.pump_connection(place),
        }
    }

    /// The queues that a connection drains.
    pub(crate) fn queues_of(&self, place: ConnectionIndex) -> impl Iterator<Item = SessionIndex> + use<> {
        let Connection { session, registration, .. } = self.connections[place as usize];
        std::iter::once(session).chain(registration)
    }

    /// Deliveries that one connection is sent before the next in line.
    fn quantum(&self) -> usize {
        self.config.drained_per_tick.div_ceil(DRAINS_PER_TICK)
    }

    /// How long the drain of this connection waits: anything below the option, another time at each return, so that who
    /// never stays for long is not unlucky for ever.
    fn jitter_of(&self, place: ConnectionIndex) -> u64 {
        let connection = &self.connections[place as usize];
        let client = &self.sessions[connection.session as usize].client;
        let seed = u64::from(self.config.boot) << 32 ^ connection.id.0;
        spread(client.as_str(), seed).checked_rem(self.config.limits.drain_jitter_ms).unwrap_or(0)
    }
}

/// A number that looks random, and follows from its arguments: FNV-1a, then the finalizer of SplitMix64.
pub(crate) fn spread(text: &str, seed: u64) -> u64 {
    let hash = text
        .bytes()
        .chain(seed.to_le_bytes())
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    let hash = (hash ^ hash >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ hash >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ hash >> 31
}

/// Tokens that come at a rate. What is not taken is kept, but no more than comes in [`BURST_MILLIS`].
#[derive(Debug)]
pub(crate) struct Bucket {
    /// 0: no limit.
    per_second: u64,
    /// When there were so many.
    at: MonoMillis,
    /// Thousandths of a token.
    level: u64,
}

impl Bucket {
    /// A full one.
    pub fn new(per_second: u32) -> Self {
        let mut bucket = Self { per_second: per_second.into(), at: MonoMillis(0), level: 0 };
        bucket.level = bucket.worth(BURST_MILLIS);
        bucket
    }

    /// What comes in so long, and one token at least: a rate of `n` per second is `n` thousandths per millisecond.
    fn worth(&self, millis: u64) -> u64 {
        (self.per_second * millis).max(1_000)
    }

    fn level(&self, now: MonoMillis) -> u64 {
        let come = self.per_second.saturating_mul(now.since(self.at));
        self.level.saturating_add(come).min(self.worth(BURST_MILLIS))
    }

    /// How many may be taken.
    pub fn room(&self, now: MonoMillis) -> usize {
        if self.per_second == 0 {
            return usize::MAX;
        }
        usize::try_from(self.level(now) / 1_000).unwrap_or(usize::MAX)
    }

    pub fn take(&mut self, tokens: u64, now: MonoMillis) {
        self.level = self.level(now).saturating_sub(tokens.saturating_mul(1_000));
        self.at = now;
    }

    /// When there is a portion of them.
    pub fn portion_at(&self) -> MonoMillis {
        let missing = self.worth(PORTION_MILLIS).saturating_sub(self.level);
        if self.per_second == 0 || missing == 0 {
            return MonoMillis(0);
        }
        self.at.after(missing.div_ceil(self.per_second))
    }

    /// From now on they come at this rate.
    pub fn set_rate(&mut self, per_second: u32, now: MonoMillis) {
        if self.per_second == u64::from(per_second) {
            return;
        }
        let (had_limit, level) = (self.per_second > 0, self.level(now));
        self.per_second = per_second.into();
        let full = self.worth(BURST_MILLIS);
        (self.at, self.level) = (now, if had_limit { level.min(full) } else { full });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_at_their_rate_and_none_is_lost_between() {
        let mut bucket = Bucket::new(3_000);
        let start = MonoMillis(5_000);
        bucket.take(bucket.room(start) as u64, start);
        let mut taken = 0;
        for millis in 1..=1_000 {
            let now = start.after(millis);
            let room = bucket.room(now) as u64;
            bucket.take(room, now);
            taken += room;
        }
        assert_eq!(taken, 3_000);
        assert_eq!(bucket.room(start.after(60_000)), 300, "a burst, whatever was not taken");
    }

    #[test]
    fn a_portion_is_there_when_it_says_so_and_not_before() {
        for per_second in [1, 7, 99, 100, 1_000, 1_000_000, u32::MAX] {
            let mut bucket = Bucket::new(per_second);
            let now = MonoMillis(77);
            bucket.take(bucket.room(now) as u64, now);
            let at = bucket.portion_at();
            assert!(bucket.room(at) >= 1, "{per_second}");
            assert!(bucket.level(MonoMillis(at.0 - 1)) < bucket.worth(PORTION_MILLIS), "{per_second}");
            assert!(at.since(now) <= 1_000 && at > now, "{per_second}");
        }
        assert_eq!(Bucket::new(0).room(MonoMillis(0)), usize::MAX);
    }

    #[test]
    fn a_new_rate_holds_from_then_on() {
        let mut bucket = Bucket::new(10);
        bucket.take(1, MonoMillis(0));
        bucket.set_rate(1_000, MonoMillis(50));
        assert_eq!((bucket.room(MonoMillis(50)), bucket.room(MonoMillis(60))), (0, 10), "half a token, and ten more");
        bucket.set_rate(0, MonoMillis(60));
        assert_eq!((bucket.room(MonoMillis(60)), bucket.portion_at()), (usize::MAX, MonoMillis(0)));
        bucket.take(1_000_000, MonoMillis(61));
        bucket.set_rate(20, MonoMillis(62));
        assert_eq!(bucket.room(MonoMillis(62)), 2, "nobody pays for what was free");
    }

    #[test]
    fn a_crowd_spreads_over_the_time_that_it_is_given() {
        let mut tenths = [0; 10];
        for number in 0..1_000 {
            tenths[(spread(&format!("client-{number}"), 1 << 32 ^ number) % 1_000 / 100) as usize] += 1;
        }
        assert!(tenths.iter().all(|count| (70..=130).contains(count)), "{tenths:?}");
    }
}
