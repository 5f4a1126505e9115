//! Collapse keys: of the deliveries of one key that wait in a queue only the newest is sent.
//!
//! The queue knows the newest of each key wherever it is: in memory, or stored and not read (a snapshot says so by `Noted`).
//! What has been sent is not replaced. Crash story: the newer one is written down before the older one is over; killed in between,
//! both wait, and the start ends the older one.

use ahash::AHashSet;
use base::{Ended, Outcome, Sequence};
use bytestring::ByteString;
use postroad_base as base;

use crate::broker::Broker;
use crate::queue::{Entry, Queue};
use crate::session::SessionIndex;

impl Broker {
    /// This delivery is about to stand in the queue: the one of the same key that has not been sent is over.
    #[inline]
    pub(crate) fn collapse(&mut self, index: SessionIndex, entry: &Entry) {
        if entry.message.extras.is_some() {
            self.collapse_by_key(index, entry);
        }
    }

    #[cold]
    fn collapse_by_key(&mut self, index: SessionIndex, entry: &Entry) {
        let Some(key) = entry.collapse_key() else { return };
        let queue = &self.sessions[index as usize].queue;
        if let Some((older, size)) = queue.collapsible(key) {
            // A session may get one message twice, by a share group of which it is a member.
            let is_same = queue.find_waiting(older, key).is_some_and(|other| other.message.id == entry.message.id);
            if !is_same {
                self.end_collapsed(index, key, older, size);
            }
        }
        let queue = &mut self.sessions[index as usize].queue;
        queue.set_collapsible(key.clone(), entry.sequence, entry.size());
    }

    fn end_collapsed(&mut self, index: SessionIndex, key: &ByteString, older: Sequence, size: usize) {
        let retirement = self.retiring.counts().0;
        let queue = &mut self.sessions[index as usize].queue;
        let Some(entry) = queue.take_waiting(older, key) else {
            queue.pass_unread(older, size, retirement);
            return self.settle(index, older, true, Outcome::Collapsed);
        };
        let over = self.over(index, &entry, Ended::With(Outcome::Collapsed), 0);
        self.settle(index, older, entry.stored, Outcome::Collapsed);
        self.tell_step(index, &entry, over);
    }

    /// Recovery: of the deliveries of one key that wait in memory, and the stored one, the newest stays.
    pub(crate) fn collapse_replayed(&mut self, index: SessionIndex) {
        let queue = &mut self.sessions[index as usize].queue;
        queue.forget_collapsible_over();
        let keyed = queue
            .young
            .iter()
            .filter_map(|entry| Some((entry.sequence, entry.message.id, entry.collapse_key()?.clone(), entry.size())));
        let mut keyed: Vec<_> = keyed.collect();
        keyed.sort_unstable_by_key(|(sequence, ..)| *sequence);
        for (sequence, id, key, size) in keyed {
            let queue = &mut self.sessions[index as usize].queue;
            let older = queue.collapsible(&key);
            let is_same = older
                .is_some_and(|(older, _)| queue.find_waiting(older, &key).is_some_and(|other| other.message.id == id));
            if let Some((older, size)) = older.filter(|_| !is_same) {
                self.end_collapsed(index, &key, older, size);
            }
            self.sessions[index as usize].queue.set_collapsible(key, sequence, size);
        }
    }
}

impl Queue {
    /// A stored delivery is over that nobody has read; `retirement` says with which one the old generation will know at the
    /// earliest.
    pub fn pass_unread(&mut self, sequence: Sequence, size: usize, retirement: u32) {
        if let Some(backlog) = &mut self.backlog {
            backlog.high.remove(&sequence);
            backlog.one_less(Some(size));
            backlog.passed.insert(sequence, retirement);
        }
    }

    /// Recovery: what is in the window was sent, and some of what is stored is over.
    fn forget_collapsible_over(&mut self) {
        if self.all_collapsible().next().is_none() {
            return;
        }
        let in_flight: AHashSet<Sequence> = self.window.iter().map(|(_, slot)| slot.sequence).collect();
        let over = self.backlog.as_ref().map(|backlog| backlog.skip.clone()).unwrap_or_default();
        self.retain_collapsible(|sequence| !in_flight.contains(&sequence) && !over.contains(&sequence));
    }
}
