//! `queue.policy = "full_sync"`: a queue that overflows keeps nothing of what waits but one message, which tells its device that
//! it has missed something and has to fetch its whole state anew.
//!
//! ```text
//!  window │ a b c d e … │ f  has no room   ─►   window │ sync {dropped, since} │ g h …
//!                                                  a b c d e … f: over, Overflow
//! ```
//! What is in flight stays. The newcomer for which there is no room goes with what waits: its record is older than that of the
//! message that stands for it. If the queue overflows again before that message has left, a new one takes its place. Each tells
//! of all that was dropped since one was acknowledged: what was sent may not have come, and after a crash it waits again.
//!
//! One record, the newcomer's `Transfer`, ends a delivery and makes that message; `FullSync` says which deliveries in front of it
//! are over: so however many those are, they are over at once, and leave memory, log and old generation in steps. Those in the
//! old generation are read to be dropped, in portions, and nothing behind them leaves meanwhile.
//!
//! Crash story: `Transfer` without what follows: what waited comes, then the message. With `FullSync`: what it says is over and
//! stands in the log without its `Settle` is dropped by the recovery, also what had been in flight behind the first that waited:
//! the device will fetch that, too.

use std::collections::VecDeque;
use std::sync::Arc;

use base::{
    Ended, Extras, Message, Outcome, Priority, Qos, QueueId, Recipient, Record, Sequence, Tag, TopicName, WallMillis,
    Wishes,
};
use postroad_base as base;
use smallvec::SmallVec;

use crate::api::{Counted, Effect};
use crate::broker::Broker;
use crate::queue::{Entry, Queue};
use crate::session::SessionIndex;
use crate::turns::Step;

/// Where a device sees the message.
const TOPIC: &str = "$sync/overflow";

/// A message that stands for what was dropped.
#[derive(Debug)]
pub(crate) struct FullSync {
    /// Its own delivery.
    pub sequence: Sequence,
    /// What waits from here on up to it is over. Of the log's sequences: for a session that the log does not know, `over` is all.
    pub from: Sequence,
    /// How many were dropped since such a message was acknowledged.
    pub dropped: u64,
    /// When the first of them was.
    pub since: WallMillis,
    /// It has not been put in flight: another one would take its place.
    pub waits: bool,
    /// It is over itself, or no crash can put it back.
    pub is_settled: bool,
    /// What is over, is in memory, and has not been settled.
    pub over: VecDeque<Entry>,
}

impl FullSync {
    pub fn record(&self, queue: QueueId) -> Record {
        let Self { sequence, from, dropped, since, .. } = *self;
        Record::FullSync { queue, sequence, from, dropped, since }
    }

    /// Whether a delivery of this sequence that waits is over.
    pub fn covers(&self, sequence: Sequence) -> bool {
        self.from <= sequence && sequence < self.sequence
    }

    fn is_sent_as(&self, entry: &Entry) -> bool {
        entry.sequence == self.sequence && entry.message.topic.as_str() == TOPIC
    }
}

impl Queue {
    /// Whether the old generation may hold what is over.
    fn has_stored_overflown(&self) -> bool {
        let Some(sync) = self.full_sync() else { return false };
        self.backlog.as_ref().is_some_and(|backlog| !backlog.ended && backlog.after.next() < sync.sequence)
    }

    /// All that waits leaves the queue. What is in memory is given back; what is only stored is over when it is read, and counts
    /// no more; how many that is believed to be.
    fn take_all_waiting(&mut self) -> (VecDeque<Entry>, usize) {
        let (mut entries, mut stored) = (VecDeque::new(), 0);
        if let Some(backlog) = &mut self.backlog {
            std::mem::take(&mut backlog.portion).lines_mut().for_each(|line| entries.append(line));
            stored = std::mem::take(&mut backlog.unread);
            backlog.unread_bytes = 0;
            backlog.overflown += stored;
            backlog.high.clear(); // nothing of it is read out of turn
        }
        self.backlog.take_if(|backlog| backlog.ended);
        std::mem::take(&mut self.young).lines_mut().for_each(|line| entries.append(line));
        self.retain_collapsible(|_| false);
        self.bytes -= entries.iter().map(Entry::size).sum::<usize>().min(self.bytes);
        (entries, stored)
    }

    /// The first delivery that waits; if it is only stored, nothing is before this.
    fn first_waiting(&self) -> Option<Sequence> {
        let stored = self.backlog.as_ref().filter(|backlog| !backlog.ended).map(|backlog| backlog.after.next());
        let read = self.backlog.as_ref().and_then(|backlog| backlog.portion.oldest());
        let in_memory = read.into_iter().chain(self.young.oldest()).map(|entry| entry.sequence);
        in_memory.chain(stored).min()
    }

    /// The delivery of this tag has been put in flight.
    #[inline]
    pub fn note_leaving(&mut self, tag: Tag, is_logged: bool) {
        if self.full_sync().is_some() {
            self.note_full_sync_leaving(tag, is_logged);
        }
    }

    fn note_full_sync_leaving(&mut self, tag: Tag, is_logged: bool) {
        let entry = self.window.get(tag).and_then(|slot| slot.entry.as_ref());
        let is_sent = self.full_sync().zip(entry).is_some_and(|(sync, entry)| sync.is_sent_as(entry));
        if let Some(sync) = self.full_sync_mut().filter(|_| is_sent) {
            (sync.waits, sync.is_settled) = (false, !is_logged);
            self.tidy_full_sync();
        }
    }

    /// A delivery that the log knows is over.
    #[inline]
    pub fn forget_full_sync(&mut self, sequence: Sequence) {
        if let Some(sync) = self.full_sync_mut()
            && sync.sequence == sequence
        {
            (sync.waits, sync.is_settled) = (false, true);
            self.tidy_full_sync();
        }
    }

    /// Nothing is kept of it once the message is over, and all that it stands for: else that would wait again.
    fn tidy_full_sync(&mut self) {
        let is_done = self.full_sync().is_some_and(|sync| sync.is_settled && sync.over.is_empty());
        if is_done && !self.has_stored_overflown() {
            self.set_full_sync(None);
        }
    }
}

impl Broker {
    /// The queue has no room for this one: all that waits is dropped with it, and one message stands for all of it.
    pub(crate) fn ask_for_full_sync(&mut self, index: SessionIndex, newcomer: &Entry) {
        self.drop_overflown(index, usize::MAX);
        let now = self.now.wall;
        let queue = &mut self.sessions[index as usize].queue;
        let is_under_way = queue.has_stored_overflown();
        let earlier = queue.full_sync();
        let waits = earlier.is_some_and(|sync| sync.waits);
        let untold = earlier.filter(|sync| !sync.is_settled).map(|sync| (sync.dropped, sync.since));
        let first = earlier.filter(|sync| sync.waits || is_under_way).map(|sync| sync.from);
        let from = first.or(queue.first_waiting()).unwrap_or(newcomer.sequence);
        let (over, stored) = queue.take_all_waiting();
        // The message that stood for what was dropped before is none of those that were published.
        let dropped = (over.len() + stored + 1 - usize::from(waits)) as u64;
        let (before, since) = untold.unwrap_or((0, now));
        let message = self.full_sync_message(before + dropped, since);
        let sequence = self.log_overflow(index, newcomer, &message);
        let sync = FullSync { sequence, from, dropped: before + dropped, since, waits: true, is_settled: false, over };
        let session = &mut self.sessions[index as usize];
        let (id, record) = (session.id, session.logged.then(|| sync.record(session.id)));
        session.queue.set_full_sync(Some(sync));
        session.queue.push(entry_of_server(sequence, message));
        if let Some(record) = record {
            self.append(record);
        }
        self.mark_dirty(index);
        self.count_by(Counted::QueueOverflow, dropped);
        self.drop_some_overflown(index, id);
        self.pump(index);
    }

    fn full_sync_message(&mut self, dropped: u64, since: WallMillis) -> Arc<Message> {
        let topic = TopicName::new(TOPIC).expect("a topic name");
        let payload = format!("{{\"dropped\":{dropped},\"since_unix_ms\":{}}}", since.0);
        Arc::new(Message {
            id: self.ids.next(self.now.wall),
            topic,
            payload: payload.into(),
            properties: Default::default(),
            qos: Qos::AtLeastOnce,
            retain: false,
            expires_at: None,
            publisher: QueueId::NONE,
            extras: Extras::of_wishes(Wishes { priority: Priority::High, ..Wishes::default() }),
        })
    }

    /// The newcomer's delivery is over, and the message's begins; its place in the queue.
    fn log_overflow(&mut self, index: SessionIndex, newcomer: &Entry, message: &Arc<Message>) -> Sequence {
        let outcome = Outcome::Overflow;
        self.tell_over(index, newcomer, Ended::With(outcome), 0);
        let session = &self.sessions[index as usize];
        let queue = session.id;
        let sequence = if session.logged {
            let delivery = entry_of_server(Sequence(0), Arc::clone(message));
            let recipients = vec![Recipient { given: true, ..delivery.recipient(queue) }]; // no publisher repeats it
            let (sequence, message) = (newcomer.sequence, Arc::clone(message));
            self.append(Record::Transfer { queue, sequence, outcome, message, recipients })
        } else {
            self.position()
        };
        self.note_ended(index, newcomer.sequence, newcomer.stored, outcome);
        sequence
    }

    /// A step: settles some of what is over, and asks for what is stored of it. More wait for steps to come.
    pub(crate) fn drop_some_overflown(&mut self, index: SessionIndex, id: QueueId) {
        if self.sessions.get(index as usize).is_none_or(|session| session.id != id) {
            return;
        }
        if self.drop_overflown(index, self.config.retired_per_step) {
            self.later.push_back(Step::Drop(index, id));
        }
        self.read_overflown(index);
    }

    /// Settles so many of those that are over and in memory, at most. Whether there are more.
    fn drop_overflown(&mut self, index: SessionIndex, most: usize) -> bool {
        for _ in 0..most {
            let sync = self.sessions[index as usize].queue.full_sync_mut();
            let Some(entry) = sync.and_then(|sync| sync.over.pop_front()) else { break };
            self.end_undelivered(index, &entry, Outcome::Overflow, 0);
        }
        let queue = &mut self.sessions[index as usize].queue;
        queue.tidy_full_sync();
        queue.full_sync().is_some_and(|sync| !sync.over.is_empty())
    }

    /// Asks for the next portion of what is stored and over, if nobody has.
    fn read_overflown(&mut self, index: SessionIndex) {
        let session = &mut self.sessions[index as usize];
        if !session.queue.has_stored_overflown() {
            return;
        }
        let Some(backlog) = &mut session.queue.backlog else { return };
        if !std::mem::replace(&mut backlog.reading, true) {
            let (messages_max, bytes_max) = (self.config.backlog_messages_max, self.config.backlog_bytes_max);
            let (queue, after) = (session.id, backlog.after);
            self.effects.push_back(Effect::ReadBacklog { queue, after, messages_max, bytes_max });
        }
    }

    /// A portion held these.
    pub(crate) fn drop_stored_overflown(&mut self, index: SessionIndex, found: &[Entry]) {
        for entry in found {
            self.end_undelivered(index, entry, Outcome::Overflow, 0);
        }
        self.drop_overflown(index, 0);
        self.read_overflown(index);
    }

    /// Recovery: what the last overflow had not dropped yet. Nothing is in flight that is not known by its tag.
    pub(crate) fn full_sync_recovered(&mut self, index: SessionIndex) {
        let session = &mut self.sessions[index as usize];
        let (id, queue) = (session.id, &mut session.queue);
        let Some(&FullSync { from, sequence: end, .. }) = queue.full_sync() else { return };
        let covered: Vec<Sequence> =
            queue.young.iter().map(|entry| entry.sequence).filter(|at| (from..end).contains(at)).collect();
        let over: VecDeque<Entry> = covered.into_iter().filter_map(|at| queue.young.take(at)).collect();
        queue.bytes -= over.iter().map(Entry::size).sum::<usize>().min(queue.bytes);
        queue.retain_collapsible(|at| !(from..end).contains(&at));
        if let Some(backlog) = &mut queue.backlog {
            backlog.high.retain(|at| !(from..end).contains(at));
        }
        if let Some(sync) = queue.full_sync_mut() {
            sync.over = over;
        }
        self.later.push_back(Step::Drop(index, id));
    }
}

fn entry_of_server(sequence: Sequence, message: Arc<Message>) -> Entry {
    let (qos, retain, identifiers) = (message.qos, message.retain, SmallVec::new());
    Entry { sequence, message, identifiers, qos, retain, dup: false, stored: false, group: None }
}
