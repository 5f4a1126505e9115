//! Collapse keys: of the deliveries of one key that wait in a queue only the newest is sent.
//!
//! The queue knows the newest of each key wherever it is: in memory, or stored and not read (a snapshot says so by `Noted`).
//! What has been sent is not replaced. Crash story: the newer one is written down before the older one is over; killed in between,
//! both wait, and the start ends the older one.

use base::{Outcome, Sequence};
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

    fn collapse_by_key(&mut self, index: SessionIndex, entry: &Entry) {
        let Some(key) = entry.collapse_key() else { return };
        let queue = &mut self.sessions[index as usize].queue;
        let older = queue.collapsible(key);
        queue.set_collapsible(key.clone(), entry.sequence, entry.size());
        if let Some((older, size)) = older.filter(|(older, _)| *older < entry.sequence) {
            self.end_collapsed(index, older, size);
        }
    }

    fn end_collapsed(&mut self, index: SessionIndex, older: Sequence, size: usize) {
        let retirement = self.retiring.counts().0;
        let queue = &mut self.sessions[index as usize].queue;
        let stored = match queue.take_waiting(older) {
            Some(entry) => entry.stored,
            None => {
                queue.pass_unread(older, size, retirement);
                true
            }
        };
        self.settle(index, older, stored, Outcome::Collapsed);
    }

    /// Recovery: of the deliveries of one key that wait in memory, and the stored one, the newest stays.
    pub(crate) fn collapse_replayed(&mut self, index: SessionIndex) {
        let queue = &mut self.sessions[index as usize].queue;
        queue.forget_collapsible_in_flight();
        let waiting =
            queue.young.iter().filter_map(|entry| Some((entry.sequence, entry.collapse_key()?.clone(), entry.size())));
        let mut keyed: Vec<_> = waiting.collect();
        keyed.sort_unstable_by_key(|(sequence, ..)| *sequence);
        for (sequence, key, size) in keyed {
            let queue = &mut self.sessions[index as usize].queue;
            let older = queue.collapsible(&key);
            queue.set_collapsible(key, sequence, size);
            if let Some((older, size)) = older {
                self.end_collapsed(index, older, size);
            }
        }
    }
}

impl Queue {
    /// A stored delivery is over that nobody has read; `retirement` says with which one the old generation will know at the
    /// earliest.
    fn pass_unread(&mut self, sequence: Sequence, size: usize, retirement: u32) {
        if let Some(backlog) = &mut self.backlog {
            backlog.high.remove(&sequence);
            backlog.one_less(Some(size));
            backlog.passed.insert(sequence, retirement);
        }
    }

    /// Recovery: what is in the window was sent.
    fn forget_collapsible_in_flight(&mut self) {
        let in_flight: Vec<Sequence> = self.window.iter().map(|(_, slot)| slot.sequence).collect();
        if self.all_collapsible().next().is_some() {
            in_flight.into_iter().for_each(|sequence| self.forget_key_of(sequence));
        }
    }
}
