//! The life of a delivery to a group.
//!
//! ```text
//! waits ─take─► leased ─acknowledge─► over
//!   ▲             │ ├─ bury ─► dead letter (refused)
//!   │             │ └─ refused, given back, lease over ─┬─► sent retry.max_attempts times, or too old: dead letter
//!   └── ready ◄───┴───────────── after a while ◄────────┘
//! ```
//!
//! What is leased, or was, is in the window of the queue, hence retired and recovered as what is in flight to a client; a
//! lease itself is only in memory. After a crash everything that was not acknowledged waits again; attempts are in the log
//! from the second on.
//!
//! Invariants
//! - Each delivery in the window is in `held`, and there it is either leased or delayed, with one place in `due`, or ready.
//! - What is given leaves after the commit of its cause and of its attempt; what is done with it is answered after its commit.
//! - A name says in which run of the server and for which time it was given: only who has it now may refuse or extend it. To
//!   acknowledge it is for anybody who had it, for the work is done; who comes second is told that it is over. So each has one
//!   outcome. A name that was not given counts for nothing. Of a former run it is known only how often a delivery was given, or
//!   that it may have been.
//! - What was leased for somebody who has not got it (`Verdict::Untaken`) was not given: its attempt does not count, and the next one
//!   gets it under the same name.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use base::{
    DeliveryId, GroupAnswer, GroupRefusal, Leased, MonoMillis, Outcome, Record, Sequence, Step, Tag, Take, Verdict,
    WallMillis,
};
use bytestring::ByteString;
use postroad_base as base;

use crate::api::Counted;
use crate::broker::Broker;
use crate::queue::{Attempts, Entry, Slot, State};
use crate::retry::RetryPolicy;
use crate::session::SessionIndex;
use crate::timers::{Timer, TimerKey};

/// Bytes of the messages that one take leases, one message at least.
const TAKEN_BYTES_MAX: usize = 4 << 20;
/// Leases and delays that one deadline ends: the rest is for the next one, at once.
const DUE_PER_TICK: usize = 256;

/// What is leased of a group, and who waits for more.
#[derive(Debug, Default)]
pub(super) struct Leases {
    held: BTreeMap<Sequence, Held>,
    /// When leases and delays end.
    due: BTreeSet<(MonoMillis, Sequence)>,
    /// To be given again, before what has not been given yet.
    ready: BTreeSet<Sequence>,
    takers: VecDeque<Taker>,
    timer: Option<TimerKey>,
    /// How many of `held` are leased.
    leased: usize,
}

/// A delivery in the window.
#[derive(Debug)]
struct Held {
    tag: Tag,
    attempt: u32,
    /// Its first attempt in this run.
    first: u32,
    /// How often it was given in former runs, or may have been.
    before: u32,
    stage: Stage,
    /// What the last consumer had against it.
    error: Option<ByteString>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Somebody has it until then.
    Leased(MonoMillis),
    /// Nobody gets it before then.
    Delayed(MonoMillis),
    Ready,
}

/// Somebody who waits for deliveries.
#[derive(Debug)]
struct Taker {
    token: u64,
    take: Take,
    until: MonoMillis,
}

/// Why a lease is over and its delivery is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Return {
    /// Its time, or its consumer.
    Left,
    /// It is to wait so long; `None`: as long as its attempts say.
    Refused(Option<u64>),
}

/// What came of looking for the next delivery to lease.
enum Next {
    Leased(Leased, usize),
    /// It was over.
    Over,
    Nothing,
}

impl Leases {
    pub fn leased(&self) -> usize {
        self.leased
    }

    pub fn takers(&self) -> usize {
        self.takers.len()
    }

    pub fn error_of(&self, sequence: Sequence) -> Option<ByteString> {
        self.held.get(&sequence)?.error.clone()
    }

    fn set_stage(&mut self, sequence: Sequence, stage: Stage) {
        let Some(held) = self.held.get_mut(&sequence) else { return };
        let before = std::mem::replace(&mut held.stage, stage);
        self.leave_stage(sequence, before);
        match stage {
            Stage::Leased(at) => {
                self.leased += 1;
                self.due.insert((at, sequence));
            }
            Stage::Delayed(at) => _ = self.due.insert((at, sequence)),
            Stage::Ready => _ = self.ready.insert(sequence),
        }
    }

    fn leave_stage(&mut self, sequence: Sequence, stage: Stage) {
        match stage {
            Stage::Leased(at) => {
                self.leased -= 1;
                self.due.remove(&(at, sequence));
            }
            Stage::Delayed(at) => _ = self.due.remove(&(at, sequence)),
            Stage::Ready => _ = self.ready.remove(&sequence),
        }
    }

    fn hold(&mut self, sequence: Sequence, held: Held, until: MonoMillis) {
        self.held.insert(sequence, held);
        self.due.insert((until, sequence));
        self.leased += 1;
    }

    /// It is over; its tag.
    fn release(&mut self, sequence: Sequence) -> Option<Tag> {
        let Held { tag, stage, .. } = self.held.remove(&sequence)?;
        self.leave_stage(sequence, stage);
        Some(tag)
    }

    /// Whether this is the lease that stands, in the run of this number.
    fn stands(&self, id: DeliveryId, start: u32) -> bool {
        let is_it = |held: &Held| held.attempt == id.attempt && matches!(held.stage, Stage::Leased(_));
        id.start == start && self.held.get(&id.sequence).is_some_and(is_it)
    }
}

impl Held {
    /// Whether somebody was given it under this name, as far as is known in the run of this number.
    fn was_given_as(&self, id: DeliveryId, start: u32) -> bool {
        match id.start == start {
            true => (self.first..=self.attempt).contains(&id.attempt),
            false => id.attempt <= self.before,
        }
    }
}

impl Broker {
    pub(super) fn take_from_group(&mut self, token: u64, index: SessionIndex, take: Take) {
        let waiting_max = self.config.limits.groups_waiting_max;
        let until = self.now.mono.after(take.wait_ms);
        let leases = self.consumers.leases_mut(index);
        if leases.takers.len() >= waiting_max {
            return self.group_refused(token, GroupRefusal::TooManyWait);
        }
        leases.takers.push_back(Taker { token, take, until });
        self.serve_group(index);
    }

    /// Gives what there is to those who wait, in the order in which they came.
    pub(crate) fn serve_group(&mut self, index: SessionIndex) {
        while let Some(&Taker { token, take, .. }) = self.consumers.leases_mut(index).takers.front() {
            let leased = self.lease_some(index, take);
            if leased.is_empty() {
                break;
            }
            self.consumers.leases_mut(index).takers.pop_front();
            self.group_done(token, GroupAnswer::Taken(leased));
        }
        if self.consumers.leases_mut(index).takers.is_empty() {
            while self.drop_expired(index) {}
        }
        self.read_backlog(index);
        self.answer_the_patient(index);
        self.set_group_alarm(index);
    }

    /// Who waits under this token is gone. It hears that there is nothing, so that its token is not kept for ever.
    pub(super) fn withdraw_taker(&mut self, index: SessionIndex, token: u64) {
        let takers = &mut self.consumers.leases_mut(index).takers;
        if let Some(place) = takers.iter().position(|taker| taker.token == token) {
            takers.remove(place);
            self.group_done(token, GroupAnswer::Taken(Vec::new()));
        }
    }

    /// Whether somebody waits for more than what is in memory.
    pub(crate) fn is_group_waited_for(&self, index: SessionIndex) -> bool {
        self.consumers.groups.get(&index).is_some_and(|group| !group.leases.takers.is_empty())
    }

    /// Who has waited for as long as it wanted hears that there is nothing, unless something is on its way from the disk.
    fn answer_the_patient(&mut self, index: SessionIndex) {
        let backlog = self.sessions[index as usize].queue.backlog.as_ref();
        if backlog.is_some_and(|backlog| backlog.reading) {
            return;
        }
        let now = self.now.mono;
        let leases = self.consumers.leases_mut(index);
        if leases.takers.iter().all(|taker| taker.until > now) {
            return;
        }
        let all = std::mem::take(&mut leases.takers).into_iter();
        let (over, waiting): (Vec<Taker>, Vec<Taker>) = all.partition(|taker| taker.until <= now);
        leases.takers = waiting.into();
        for taker in over {
            self.group_done(taker.token, GroupAnswer::Taken(Vec::new()));
        }
    }

    fn lease_some(&mut self, index: SessionIndex, take: Take) -> Vec<Leased> {
        let until = self.now.mono.after(take.lease_ms);
        let (mut leased, mut bytes) = (Vec::new(), 0);
        while leased.len() < take.limit && bytes < TAKEN_BYTES_MAX {
            match self.lease_next(index, until) {
                Next::Leased(delivery, size) => {
                    leased.push(delivery);
                    bytes += size;
                }
                Next::Over => {}
                Next::Nothing => break,
            }
        }
        self.stats.sent += leased.len() as u64;
        self.stats.leased += leased.len() as u64;
        leased
    }

    /// What comes back goes first: it is older.
    fn lease_next(&mut self, index: SessionIndex, until: MonoMillis) -> Next {
        match self.consumers.leases_mut(index).ready.first() {
            Some(&sequence) => self.lease_again(index, sequence, until),
            None => self.lease_first(index, until),
        }
    }

    fn lease_again(&mut self, index: SessionIndex, sequence: Sequence, until: MonoMillis) -> Next {
        let start = self.config.boot;
        let leases = self.consumers.leases_mut(index);
        let Some(tag) = leases.held.get(&sequence).map(|held| held.tag) else { return Next::Nothing };
        let session = &self.sessions[index as usize];
        let slot = session.queue.window.get(tag).expect("what is held is in the window");
        let entry = slot.entry.as_ref().expect("of a group nothing is released");
        if entry.message.expires_at.is_some_and(|at| at <= self.now.wall) {
            self.count(Counted::Expired);
            self.end_held(index, sequence, Outcome::Expired);
            return Next::Over;
        }
        let (message, size, queue, was_sent) = (Arc::clone(&entry.message), entry.size(), session.id, entry.dup);
        let followed = self.is_followed(&message).then(|| entry.clone());
        let held = self.consumers.leases_mut(index).held.get(&sequence);
        let (was_given, is_first) = held.map_or((false, true), |held| (held.attempt > 0, held.attempt < held.first));
        if is_first && let Some(slot) = self.sessions[index as usize].queue.window.get_mut(tag) {
            slot.note_sent(self.now); // nobody had it in this run: its age begins
        }
        if was_given {
            self.note_attempt(index, tag);
        }
        if let Some(entry) = followed {
            self.tell_sent(index, &entry);
        }
        let leases = self.consumers.leases_mut(index);
        leases.set_stage(sequence, Stage::Leased(until));
        let Some(held) = leases.held.get_mut(&sequence) else { return Next::Nothing };
        held.attempt = held.attempt.saturating_add(1);
        let id = DeliveryId { queue, sequence, start, attempt: held.attempt };
        Next::Leased(Leased { id, message, may_repeat: was_given || was_sent }, size)
    }

    fn lease_first(&mut self, index: SessionIndex, until: MonoMillis) -> Next {
        if self.drop_expired(index) {
            return Next::Over;
        }
        let leases_max = self.config.limits.groups_leases_max;
        let session = &mut self.sessions[index as usize];
        if session.queue.window.len() >= leases_max {
            return Next::Nothing;
        }
        let Some(entry) = session.queue.pop() else { return Next::Nothing };
        let most = self.retry_policy(&entry.message).attempts_max;
        let session = &mut self.sessions[index as usize];
        let before = session.queue.attempts_at(entry.sequence).map_or(0, |attempts| attempts.count);
        if most > 0 && before >= most {
            session.queue.bytes -= entry.size().min(session.queue.bytes); // a crash came before its last lease was over
            self.end_undelivered(index, &entry, Outcome::Attempts, 0);
            return Next::Over;
        }
        let (queue, sequence, size) = (session.id, entry.sequence, entry.size());
        let (message, may_repeat) = (Arc::clone(&entry.message), entry.dup || before > 0);
        let given_before = before.max(u32::from(entry.dup));
        let followed = self.is_followed(&message).then(|| entry.clone());
        let session = &mut self.sessions[index as usize];
        let tag = match session.queue.window.insert(entry, State::Sent) {
            Ok(tag) => tag,
            Err(entry) => {
                session.queue.unpop(*entry);
                return Next::Nothing;
            }
        };
        if let Some(slot) = session.queue.window.get_mut(tag) {
            slot.note_sent(self.now);
        }
        let logged = session.logged;
        session.queue.note_leaving(tag, logged);
        if before > 0 {
            self.note_attempt(index, tag);
        }
        if let Some(entry) = followed {
            self.tell_sent(index, &entry);
        }
        let attempt = before.saturating_add(1);
        let held =
            Held { tag, attempt, first: attempt, before: given_before, stage: Stage::Leased(until), error: None };
        self.consumers.leases_mut(index).hold(sequence, held, until);
        let id = DeliveryId { queue, sequence, start: self.config.boot, attempt };
        Next::Leased(Leased { id, message, may_repeat }, size)
    }

    /// The next one is over before it could be given; whether it was.
    fn drop_expired(&mut self, index: SessionIndex) -> bool {
        let next = self.sessions[index as usize].queue.next();
        let is_over = next.and_then(|next| next.message.expires_at).is_some_and(|at| at <= self.now.wall);
        if is_over {
            self.count(Counted::Expired);
            self.drop_next(index, Outcome::Expired);
        }
        is_over
    }

    /// Each delivery by itself. Answered once all of it is safe.
    pub(super) fn answer_for_group(
        &mut self,
        token: u64,
        index: SessionIndex,
        deliveries: &[DeliveryId],
        verdict: &Verdict,
    ) {
        let done = deliveries.iter().map(|id| self.answer_for(index, *id, verdict)).collect();
        self.group_done(token, GroupAnswer::Answered(done));
        self.serve_group(index);
    }

    fn answer_for(&mut self, index: SessionIndex, id: DeliveryId, verdict: &Verdict) -> bool {
        let DeliveryId { queue, sequence, .. } = id;
        let start = self.config.boot;
        let is_ours = self.sessions[index as usize].id == queue;
        let leases = self.consumers.leases_mut(index);
        if *verdict == Verdict::Acknowledge {
            let done = is_ours && self.acknowledge_for(index, id);
            if !done {
                self.count(Counted::LateAcknowledgement);
            }
            return done;
        }
        if !is_ours || !leases.stands(id, start) {
            return false;
        }
        match verdict {
            Verdict::Acknowledge => unreachable!("it has been"),
            Verdict::Refuse { after_ms, reason } => {
                leases.set_error(sequence, reason);
                self.count(Counted::RefusedByReceiver);
                self.end_lease(index, sequence, Return::Refused(*after_ms));
            }
            Verdict::Bury { reason } => {
                leases.set_error(sequence, reason);
                self.count(Counted::RefusedByReceiver);
                self.end_held(index, sequence, Outcome::Refused);
            }
            Verdict::Extend { lease_ms } => {
                let until = self.now.mono.after(*lease_ms);
                leases.set_stage(sequence, Stage::Leased(until));
            }
            Verdict::GiveBack => self.end_lease(index, sequence, Return::Left),
            Verdict::Untaken => self.untake(index, sequence),
        }
        true
    }

    /// Whether there was such a delivery: leased, to be given again, or given before a crash and waiting in memory.
    fn acknowledge_for(&mut self, index: SessionIndex, id: DeliveryId) -> bool {
        let (sequence, start) = (id.sequence, self.config.boot);
        let leases = self.consumers.leases_mut(index);
        if let Some(held) = leases.held.get(&sequence) {
            if !held.was_given_as(id, start) {
                return false;
            }
            let tag = held.tag;
            leases.release(sequence);
            let slot = self.take_held(index, tag);
            let entry = slot.entry.expect("of a group nothing is released");
            self.stats.times.observe(entry.age(self.now.wall));
            self.settle_done(index, &entry, slot.stored);
            return true;
        }
        if id.start == start {
            return false; // what waits has not been given by this run
        }
        let queue = &mut self.sessions[index as usize].queue;
        let logged = queue.attempts_at(sequence).map_or(0, |attempts| attempts.count);
        let was_given = |entry: &Entry| id.attempt <= logged.max(u32::from(entry.dup));
        let Some(entry) = queue.take_sequence_if(sequence, was_given) else { return false };
        self.settle_done(index, &entry, entry.stored);
        true
    }

    /// After the record that it waits for, whoever follows the message is told; before its attempts are forgotten, they are looked up.
    fn settle_done(&mut self, index: SessionIndex, entry: &Entry, stored: bool) {
        let attempts = self.sends(index, entry.sequence);
        self.settle(index, entry.sequence, stored, Outcome::Acknowledged);
        if self.is_followed(&entry.message) {
            self.tell_of(index, &entry.message, Step::Acknowledged { attempts });
        }
    }

    /// It leaves the window.
    fn take_held(&mut self, index: SessionIndex, tag: Tag) -> Slot {
        let queue = &mut self.sessions[index as usize].queue;
        let slot = queue.window.remove(tag).expect("what is held is in the window");
        queue.bytes -= slot.entry.as_ref().map_or(0, Entry::size).min(queue.bytes);
        queue.window.shrink();
        slot
    }

    /// It is over without having been acknowledged.
    fn end_held(&mut self, index: SessionIndex, sequence: Sequence, outcome: Outcome) {
        let Some(tag) = self.consumers.leases_mut(index).held.get(&sequence).map(|held| held.tag) else { return };
        let slot = self.take_held(index, tag);
        if let Some(entry) = slot.entry {
            self.sessions[index as usize].queue.note_sends(sequence, slot.first_sent);
            self.end_undelivered(index, &entry, outcome, 0); // its letter asks for the last error
        }
        self.consumers.leases_mut(index).release(sequence);
    }

    /// Nobody has it any more: it is given again, if it has not been given too often or for too long.
    fn end_lease(&mut self, index: SessionIndex, sequence: Sequence, why: Return) {
        let now = self.now.mono;
        let Some(held) = self.consumers.leases_mut(index).held.get(&sequence) else { return };
        let (tag, attempt) = (held.tag, held.attempt);
        let Some(slot) = self.sessions[index as usize].queue.window.get(tag) else { return };
        let Some(entry) = &slot.entry else { return };
        let RetryPolicy { attempts_max: most, age_max_ms: age_max, .. } = self.retry_policy(&entry.message);
        if most > 0 && attempt >= most {
            return self.end_held(index, sequence, Outcome::Attempts);
        }
        if age_max > 0 && slot.age(now) >= age_max {
            return self.end_held(index, sequence, Outcome::Unacknowledged);
        }
        let delay = match why {
            Return::Refused(Some(delay)) => delay,
            Return::Left if attempt == 1 => 0, // a consumer that was stopped is no fault of what it had
            Return::Left | Return::Refused(None) => self.backoff(attempt),
        };
        let stage = if delay == 0 { Stage::Ready } else { Stage::Delayed(now.after(delay)) };
        self.consumers.leases_mut(index).set_stage(sequence, stage);
    }

    /// It was leased for somebody who has not got it: the next one gets it, as the same attempt.
    fn untake(&mut self, index: SessionIndex, sequence: Sequence) {
        let leases = self.consumers.leases_mut(index);
        leases.set_stage(sequence, Stage::Ready);
        let Some(held) = leases.held.get_mut(&sequence) else { return };
        held.attempt -= 1;
        let (tag, attempt) = (held.tag, held.attempt);
        let session = &mut self.sessions[index as usize];
        if let Some(slot) = session.queue.window.get_mut(tag).filter(|_| attempt == 0) {
            slot.first_sent = WallMillis(0);
        }
        let Some(Attempts { first, last, .. }) = session.queue.attempts_at(sequence) else { return };
        session.queue.set_attempts(sequence, Attempts { count: attempt, first, last });
        let (queue, logged) = (session.id, session.logged);
        if logged {
            self.append(Record::Attempt { queue, sequence, attempts: attempt, first, last });
            self.mark_dirty(index);
        }
    }

    /// Doubles with each attempt.
    fn backoff(&self, attempt: u32) -> u64 {
        let doubled = self.config.limits.groups_delay_ms.saturating_mul(1 << (attempt - 1).min(32));
        doubled.min(self.config.limits.groups_delay_max_ms)
    }

    /// Leases and delays that are over end; who has waited long enough hears it.
    pub(super) fn leases_due(&mut self, index: SessionIndex) {
        let now = self.now.mono;
        self.consumers.leases_mut(index).timer = None;
        for _ in 0..DUE_PER_TICK {
            let leases = self.consumers.leases_mut(index);
            let Some(&(_, sequence)) = leases.due.first().filter(|(at, _)| *at <= now) else { break };
            match leases.held.get(&sequence).map(|held| held.stage) {
                Some(Stage::Leased(_)) => {
                    self.count(Counted::LeaseOver);
                    self.end_lease(index, sequence, Return::Left);
                }
                _ => leases.set_stage(sequence, Stage::Ready),
            }
        }
        self.serve_group(index);
    }

    /// The timer is set to the first thing that is due, or before that.
    fn set_group_alarm(&mut self, index: SessionIndex) {
        let queue = self.sessions[index as usize].id;
        let is_reading = self.sessions[index as usize].queue.backlog.as_ref().is_some_and(|backlog| backlog.reading);
        let leases = self.consumers.leases_mut(index);
        let due = leases.due.first().map(|(at, _)| *at);
        // What is read will answer them.
        let patience = leases.takers.iter().map(|taker| taker.until).min().filter(|_| !is_reading);
        let Some(first) = due.into_iter().chain(patience).min() else { return };
        if leases.timer.is_some_and(|(at, _)| at <= first) {
            return;
        }
        let before = leases.timer.take();
        self.timers.cancel(before);
        let timer = self.timers.set(first, Timer::Group(index, queue));
        self.consumers.leases_mut(index).timer = Some(timer);
    }

    /// The group ends: who waits for it hears that.
    pub(super) fn end_leases(&mut self, index: SessionIndex) {
        let leases = std::mem::take(self.consumers.leases_mut(index));
        self.timers.cancel(leases.timer);
        for taker in leases.takers {
            self.group_refused(taker.token, GroupRefusal::NoGroup);
        }
    }
}

impl Leases {
    fn set_error(&mut self, sequence: Sequence, reason: &Option<ByteString>) {
        if let Some(held) = self.held.get_mut(&sequence) {
            held.error = reason.clone();
        }
    }
}
