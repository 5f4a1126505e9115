//! A member's session ends: what it has not acknowledged at QoS 1 goes to another member of the very group by which it
//! came. QoS 2 never: the member may have taken it `[MQTT-4.8.2-5]`.
//!
//! The session leaves its client, its groups and the index at once, but its queue lives on, *ending*, until each
//! delivery is committed at its new place; only then is `QueueEnd` logged. It gives back as a connected session
//! delivers: the window first, then what waits in memory and in the old generation, in portions, so many at a time.
//!
//! ```text
//! session ends ─► Disconnected, expiry 0 (logged: the mark) ─► Placing … Taken ─► Settle Moved ─► … ─► QueueEnd
//!                                                   └ no member any more, or no room anywhere: counted
//! ```
//! Crash: a queue with the mark, or whose client has a newer one, is ended again. What was committed at its new place
//! but not settled here comes twice (allowed at QoS 1); nothing is lost. After a recovery giving back waits until the
//! other shards have told who their members are.

use std::sync::Arc;

use base::{Ended, Message, Outcome, Qos, QueueId, Record, SessionExpiry, Tag};
use postroad_base as base;

use crate::api::{Counted, Forwarded};
use crate::broker::Broker;
use crate::filters::Filters;
use crate::hooks::Stamp;
use crate::queue::{Entry, Slot, State};
use crate::session::SessionIndex;
use crate::share::{Cause, Placed, Placing};

/// Deliveries of one ending queue under way at once.
const UNDER_WAY_MAX: usize = 64;

/// Names a delivery that is given back: its slot in the window of its old queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GivenBack {
    queue: QueueId,
    tag: Tag,
}

impl Broker {
    /// The session has left its client and the index: gives back what it has to, or is gone at once.
    pub(crate) fn begin_ending(&mut self, index: SessionIndex) {
        let session = &mut self.sessions[index as usize];
        session.ending = true;
        session.watch = None;
        session.queue.attach();
        self.groups.ending += 1;
        if !session.maybe_shared {
            let lost = session.queue.messages() as u64;
            self.count_by(Counted::SessionEnded, lost);
            let (to, ends) =
                (self.sessions[index as usize].addressee(), self.ends_of_queue(index, Ended::SessionEnded));
            self.end_queue(index);
            return self.tell_ends(&to, ends);
        }
        session.expiry = SessionExpiry(0);
        if session.logged {
            let (queue, expiry, at) = (session.id, session.expiry, self.now.wall);
            self.append(Record::Disconnected { queue, expiry, at });
            self.mark_dirty(index);
        }
        self.give_back(index);
    }

    /// Recovery: the queue was ending when the log ended.
    pub(crate) fn resume_ending(&mut self, index: SessionIndex) {
        let session = &mut self.sessions[index as usize];
        session.subscriptions = Filters::default();
        session.inbound.clear();
        session.will = None;
        session.watch = None;
        session.maybe_shared = true;
        session.queue.attach();
        self.groups.ending += 1;
        self.clients.remove(&self.sessions, index);
    }

    /// All shards have told who their members are: the ending queues go on.
    pub(crate) fn give_back_all(&mut self) {
        let ending = |(index, session): (usize, &crate::session::Session)| session.ending.then_some(index as u32);
        let ending: Vec<SessionIndex> = self.sessions.iter().filter_map(ending).collect();
        for index in ending {
            self.give_back(index);
        }
    }

    /// Goes on giving back, as far as it may.
    pub(crate) fn give_back(&mut self, index: SessionIndex) {
        if self.repeats.recovering {
            return;
        }
        while let Some((tag, entry)) = self.next_given_back(index) {
            let queue = self.sessions[index as usize].id;
            let given = GivenBack { queue, tag };
            // It is retained already.
            let message = Message { retain: false, ..(*entry.message).clone() };
            let Some(group) = entry.group else { continue };
            match self.place(Placing::new(
                group,
                Arc::new(message).without_collapse_key(),
                Cause::GiveBack(given),
                Stamp::default(),
            )) {
                Placed::Now(_, outcome) => self.given_back(index, tag, outcome),
                Placed::Later => {}
                Placed::NoCredit(shard, placing) => self.mesh.wait_with(shard, placing),
            }
        }
        self.read_backlog(index);
        let queue = &self.sessions[index as usize].queue;
        if queue.messages() == 0 && queue.backlog.is_none() {
            self.end_queue(index);
        }
    }

    /// The next delivery that is to be given back, now in the window; those that are not are dropped.
    fn next_given_back(&mut self, index: SessionIndex) -> Option<(Tag, Entry)> {
        loop {
            let queue = &mut self.sessions[index as usize].queue;
            if let Some(tag) = queue.resend.pop_front() {
                let entry = queue.window.get(tag).and_then(|slot| slot.entry.clone());
                if let Some(entry) = entry.filter(|entry| self.is_given_back(entry)) {
                    return Some((tag, entry));
                }
                self.drop_ended(index, tag);
                continue;
            }
            if queue.window.len() >= UNDER_WAY_MAX {
                return None;
            }
            let entry = queue.pop()?;
            let tag = queue.window.insert(entry.clone(), State::Held).expect("far fewer are under way than tags");
            if self.is_given_back(&entry) {
                return Some((tag, entry));
            }
            self.drop_ended(index, tag);
        }
    }

    fn is_given_back(&self, entry: &Entry) -> bool {
        let expired = entry.message.expires_at.is_some_and(|at| at <= self.now.wall);
        entry.group.is_some() && entry.qos == Qos::AtLeastOnce && !expired
    }

    /// It goes with its session. No record of its own: the end of the queue says it.
    fn drop_ended(&mut self, index: SessionIndex, tag: Tag) {
        self.count(Counted::SessionEnded);
        if let Some(Slot { entry: Some(entry), .. }) = self.take_ended(index, tag) {
            self.tell_over(index, &entry, Ended::SessionEnded, 0);
        }
    }

    fn take_ended(&mut self, index: SessionIndex, tag: Tag) -> Option<Slot> {
        let queue = &mut self.sessions[index as usize].queue;
        let slot = queue.window.remove(tag)?;
        if let Some(entry) = &slot.entry {
            queue.bytes -= entry.size().min(queue.bytes);
        }
        Some(slot)
    }

    fn given_back(&mut self, index: SessionIndex, tag: Tag, outcome: Forwarded) {
        match outcome {
            Forwarded::Taken => {
                if let Some(slot) = self.take_ended(index, tag) {
                    let moved = Ended::With(Outcome::Moved);
                    let over = slot.entry.as_ref().and_then(|entry| self.over(index, entry, moved, 0));
                    self.settle(index, slot.sequence, slot.stored, Outcome::Moved);
                    if let Some(entry) = &slot.entry {
                        self.tell_step(index, entry, over);
                    }
                }
            }
            Forwarded::Full => {
                self.count(Counted::QueueOverflow);
                if let Some(Slot { entry: Some(entry), .. }) = self.take_ended(index, tag) {
                    self.tell_over(index, &entry, Ended::With(Outcome::Overflow), 0);
                }
            }
            Forwarded::NoneHere | Forwarded::NoMember | Forwarded::UnknownClient => self.drop_ended(index, tag),
        }
    }

    /// The answer to one that was under way.
    pub(crate) fn given_back_later(&mut self, given: GivenBack, outcome: Forwarded) {
        let Some(index) = self.session_of_queue(given.queue) else { return };
        self.given_back(index, given.tag, outcome);
        self.give_back(index);
    }

    /// Nothing of the queue is left.
    fn end_queue(&mut self, index: SessionIndex) {
        let session = self.remove_session(index);
        self.groups.ending -= 1;
        if session.logged {
            self.append(Record::QueueEnd { queue: session.id });
            self.retiring.ended.push(session.id);
        }
    }
}
