//! What waits for a client, shown to somebody else: to support, or to the device itself when it comes by HTTP. And what of it is
//! over by that: for a client that is not connected its deliveries are acknowledged by their names.
//!
//! ```text
//! Peek, EndPending ─► what is in memory ─┬──────────────────────────► Peeked, PendingEnded (once committed)
//!                                        └─ stored: ReadBacklog ─► ┘
//! ```
//! A look takes nothing, so it reads beside the turn of the queue: one read of a queue is under way at a time, whoever asked for
//! it. A page is of one queue, from one read at most.

use ahash::{AHashMap, AHashSet};
use base::{
    ClientId, Outcome, Pending, PendingAnswer, PendingId, PendingPage, Qos, QueueId, Record, Sequence, Step, Tag,
};
use postroad_base as base;

use crate::api::{BacklogEntry, Effect};
use crate::broker::Broker;
use crate::gate::Waiter;
use crate::queue::{Backlog, Entry, Queue, State};
use crate::retire::entry_of;
use crate::session::{Role, SessionIndex};

/// Bytes of the messages of one page, at most one message more.
const PAGE_BYTES_MAX: usize = 1 << 20;

/// Looks and acknowledgements that are not answered yet, by queue.
#[derive(Debug, Default)]
pub(crate) struct Peeks {
    /// What a read is under way for.
    reading: AHashMap<QueueId, Job>,
    /// What waits for a read that others have asked for.
    waiting: Vec<(QueueId, Job)>,
}

#[derive(Debug)]
enum Job {
    Show {
        token: u64,
        client: ClientId,
        after: Option<PendingId>,
        limit: usize,
    },
    /// `left` is in order, what is to be looked for first stands last.
    End {
        token: u64,
        client: ClientId,
        left: Vec<PendingId>,
        ended: Vec<PendingId>,
    },
}

/// What a read for a job has found.
struct Found {
    entries: Vec<BacklogEntry>,
    /// All that is stored up to here is among them; `None`: all that is stored.
    upto: Option<Sequence>,
}

impl Queue {
    /// Deliveries behind `after` that are in memory, in the order of the log: whether each is in flight. Of each line so many.
    fn in_memory_behind(&self, after: Sequence, limit: usize) -> Vec<(Entry, bool)> {
        let flight = self.window.iter().filter(|(_, slot)| slot.sequence > after && !slot.is_dead());
        let flight = flight.filter_map(|(_, slot)| Some((slot.entry.clone()?, true)));
        let read = self.backlog.iter().flat_map(|backlog| backlog.portion.behind(after, limit));
        let waiting = read.chain(self.young.behind(after, limit)).map(|entry| (entry.clone(), false));
        let mut all: Vec<_> = flight.chain(waiting).collect();
        all.sort_unstable_by_key(|(entry, _)| entry.sequence);
        all
    }

    /// Those of which only the release is left: the old generation may still hold them.
    fn received_sequences(&self) -> impl Iterator<Item = Sequence> {
        self.window.iter().filter(|(_, slot)| slot.is_received()).map(|(_, slot)| slot.sequence)
    }

    /// Where a read for what is stored behind `after` begins; `None`: nothing is.
    fn stored_behind(&self, after: Sequence) -> Option<Sequence> {
        let backlog = self.backlog.as_ref().filter(|backlog| !backlog.ended)?;
        let start = after.max(backlog.after);
        (backlog.until > start).then_some(start)
    }

    /// Whether a stored delivery that a read has found still waits there.
    fn waits_stored(&self, sequence: Sequence) -> bool {
        let waits = |backlog: &Backlog| {
            sequence > backlog.after
                && sequence <= backlog.until
                && !backlog.skip.contains(&sequence)
                && !backlog.passed.contains_key(&sequence)
        };
        let is_dropped = self.full_sync().is_some_and(|sync| sync.covers(sequence));
        !is_dropped && self.backlog.as_ref().is_some_and(|backlog| waits(backlog))
    }
}

impl Broker {
    /// Shows what waits for a client, behind this delivery, at most so many.
    pub(crate) fn peek(&mut self, token: u64, client: ClientId, after: Option<PendingId>, limit: usize) {
        self.do_peek(Job::Show { token, client, after, limit: limit.max(1) }, None);
    }

    /// These are acknowledged, in the place of their client.
    pub(crate) fn end_pending(&mut self, token: u64, client: ClientId, mut ids: Vec<PendingId>) {
        ids.sort_unstable_by(|a, b| b.cmp(a));
        ids.dedup();
        self.do_peek(Job::End { token, client, left: ids, ended: Vec::new() }, None);
    }

    fn do_peek(&mut self, job: Job, found: Option<Found>) {
        match job {
            Job::Show { token, client, after, limit } => self.show_pending(token, client, after, limit, found),
            Job::End { token, client, left, ended } => self.end_some_pending(token, client, left, ended, found),
        }
    }

    /// The queues of a client: its session's, its registration's.
    fn queues_of_client(&self, client: &ClientId) -> Vec<(QueueId, SessionIndex)> {
        let session = self.session_of_client(client.as_str());
        let registration = self.registration_queue_of(client);
        let queues = [session, registration].into_iter().flatten();
        queues.map(|index| (self.sessions[index as usize].id, index)).collect()
    }

    fn is_known_client(&self, client: &ClientId) -> bool {
        let session = self.session_of_client(client.as_str()).map(|index| &self.sessions[index as usize]);
        let is_caller = |place: u32| self.connections[place as usize].is_caller();
        let is_client = session.is_some_and(|session| !session.connection.is_some_and(is_caller));
        is_client || self.registrations.find(client.as_str()).is_some()
    }

    /// Asks for what is stored of this queue behind `after`, for the job.
    fn read_for(&mut self, index: SessionIndex, after: Sequence, most: usize, job: Job) {
        let session = &mut self.sessions[index as usize];
        let Some(backlog) = &mut session.queue.backlog else { return };
        if std::mem::replace(&mut backlog.reading, true) {
            return self.peeks.waiting.push((session.id, job));
        }
        self.peeks.reading.insert(session.id, job);
        let (queue, messages_max) = (session.id, most.min(self.config.backlog_messages_max));
        let bytes_max = self.config.backlog_bytes_max;
        self.effects.push_back(Effect::ReadBacklog { queue, after, messages_max, bytes_max });
    }

    /// A portion has come. Whether it is for a look: then the queue's own reading goes on.
    pub(crate) fn peeked(&mut self, queue: QueueId, entries: &[BacklogEntry], end: bool) -> bool {
        let Some(job) = self.peeks.reading.remove(&queue) else { return false };
        let (mut is_for_room, mut is_extended) = (false, false);
        if let Some(backlog) =
            self.session_of_queue(queue).and_then(|i| self.sessions[i as usize].queue.backlog.as_mut())
        {
            backlog.reading = false;
            is_extended = std::mem::take(&mut backlog.extended);
            is_for_room = std::mem::take(&mut backlog.trimming);
        }
        // What has left memory meanwhile lies behind what was read; if that was nothing, it is read anew.
        let upto = entries.last().map(|entry| entry.sequence).filter(|_| !end || is_extended);
        let has_looked = !entries.is_empty() || !is_extended;
        self.do_peek(job, has_looked.then(|| Found { entries: entries.to_vec(), upto }));
        if let Some(index) = self.session_of_queue(queue) {
            self.drop_stored_overflown(index, &[]);
            if is_for_room {
                self.trim(index);
            }
            self.pump(index);
        }
        true
    }

    /// A read of this queue for others is over, or the queue is: who waits for that goes on.
    pub(crate) fn peeks_go_on(&mut self, queue: QueueId) {
        if self.peeks.waiting.is_empty() {
            return;
        }
        while let Some(place) = self.peeks.waiting.iter().position(|(of, _)| *of == queue) {
            let (_, job) = self.peeks.waiting.remove(place);
            self.do_peek(job, None);
            let session = self.session_of_queue(queue).map(|index| &self.sessions[index as usize]);
            if session.and_then(|session| session.queue.backlog.as_ref()).is_some_and(|backlog| backlog.reading) {
                return; // the others wait on
            }
        }
    }

    fn show_pending(
        &mut self,
        token: u64,
        client: ClientId,
        after: Option<PendingId>,
        limit: usize,
        found: Option<Found>,
    ) {
        let queues = self.queues_of_client(&client);
        if !self.is_known_client(&client) {
            return self.tell_peek(Effect::Peeked { token, page: None });
        }
        // A queue that is gone has nothing left: its client's next one.
        let place = after.and_then(|after| queues.iter().position(|(queue, _)| *queue == after.queue));
        let place = place.unwrap_or_else(|| if after.is_some() { queues.len().saturating_sub(1) } else { 0 });
        let Some(&(queue, index)) = queues.get(place) else {
            return self.tell_peek(Effect::Peeked { token, page: Some(Box::default()) });
        };
        let from = after.filter(|after| after.queue == queue).map_or(Sequence(0), |after| after.sequence);
        let next_queue = queues.get(place + 1).map(|(queue, _)| PendingId { queue: *queue, sequence: Sequence(0) });
        if let (None, Some(start)) = (&found, self.sessions[index as usize].queue.stored_behind(from)) {
            return self.read_for(index, start, limit, Job::Show { token, client, after, limit });
        }
        let page = self.page_of(index, from, limit, found, next_queue);
        self.tell_peek(Effect::Peeked { token, page: Some(Box::new(page)) });
    }

    fn page_of(
        &self,
        index: SessionIndex,
        from: Sequence,
        limit: usize,
        found: Option<Found>,
        next_queue: Option<PendingId>,
    ) -> PendingPage {
        let session = &self.sessions[index as usize];
        let mut all = session.queue.in_memory_behind(from, limit + 1);
        let mut upto = None;
        if let Some(found) = found {
            let in_memory = all.iter().map(|(entry, _)| entry.sequence);
            let known: AHashSet<Sequence> = in_memory.chain(session.queue.received_sequences()).collect();
            let stored = found.entries.into_iter().filter(|item| {
                item.sequence > from && session.queue.waits_stored(item.sequence) && !known.contains(&item.sequence)
            });
            all.extend(stored.map(|item| (entry_of(item), false)));
            all.sort_unstable_by_key(|(entry, _)| entry.sequence);
            upto = found.upto;
        }
        let (mut page, mut bytes, mut looked) = (PendingPage::default(), 0, from);
        for (entry, is_in_flight) in all {
            if upto.is_some_and(|upto| entry.sequence > upto) {
                break;
            }
            if page.deliveries.len() >= limit || bytes >= PAGE_BYTES_MAX {
                page.next = Some(PendingId { queue: session.id, sequence: looked });
                return page;
            }
            looked = entry.sequence;
            bytes += entry.size();
            page.deliveries.push(self.pending_of(index, &entry, is_in_flight));
        }
        page.next = match upto {
            Some(upto) => Some(PendingId { queue: session.id, sequence: upto.max(looked) }),
            None => next_queue,
        };
        page
    }

    fn pending_of(&self, index: SessionIndex, entry: &Entry, is_in_flight: bool) -> Pending {
        let session = &self.sessions[index as usize];
        let seen = self.topic_of_device(index, &entry.message.topic);
        Pending {
            id: PendingId { queue: session.id, sequence: entry.sequence },
            is_push: session.role == Role::Registration,
            is_in_flight,
            message: entry.message.clone(),
            topic: seen.unwrap_or_else(|| entry.message.topic.clone()),
            qos: entry.qos,
            retain: entry.retain,
        }
    }

    fn end_some_pending(
        &mut self,
        token: u64,
        client: ClientId,
        mut left: Vec<PendingId>,
        mut ended: Vec<PendingId>,
        mut found: Option<Found>,
    ) {
        if !self.is_known_client(&client) {
            return self.tell_peek(Effect::PendingEnded { token, answer: PendingAnswer::NoClient });
        }
        let queues = self.queues_of_client(&client);
        let is_here = queues.iter().any(|(_, index)| self.sessions[*index as usize].connection.is_some());
        if is_here && ended.is_empty() {
            return self.tell_peek(Effect::PendingEnded { token, answer: PendingAnswer::Connected });
        }
        while let Some(&id) = left.last().filter(|_| !is_here) {
            let owner = queues.iter().find(|(queue, _)| *queue == id.queue).map(|(_, index)| *index);
            let is_over = owner.map(|index| self.end_if_pending(index, id.sequence, found.as_ref()));
            match (owner, is_over) {
                (Some(index), Some(None)) => {
                    let most = left.iter().filter(|other| other.queue == id.queue).count();
                    let after = Sequence(id.sequence.0 - 1);
                    return self.read_for(index, after, most, Job::End { token, client, left, ended });
                }
                (_, is_over) => {
                    ended.extend((is_over == Some(Some(true))).then_some(id));
                    left.pop();
                    if left.last().is_some_and(|next| next.queue != id.queue) {
                        found = None; // it was of the queue before
                    }
                }
            }
        }
        self.tell_peek(Effect::PendingEnded { token, answer: PendingAnswer::Ended(ended) });
    }

    /// Ends this delivery if it is pending: whether it was; `None`: it may be stored, and has to be read first.
    fn end_if_pending(&mut self, index: SessionIndex, sequence: Sequence, found: Option<&Found>) -> Option<bool> {
        let queue = &mut self.sessions[index as usize].queue;
        let in_flight = queue.window.iter().find(|(_, slot)| slot.sequence == sequence && !slot.is_dead());
        if let Some((tag, slot)) = in_flight {
            if slot.qos == Qos::ExactlyOnce {
                return Some(self.end_received(index, tag));
            }
            let slot = queue.window.remove(tag)?;
            let size = slot.entry.as_ref().map_or(0, Entry::size);
            queue.bytes -= size.min(queue.bytes);
            debug_assert!(slot.state != State::Sent, "its client is not connected");
            self.end_acknowledged(index, sequence, slot.stored, slot.entry.as_ref());
            return Some(true);
        }
        if let Some(entry) = queue.take_sequence(sequence) {
            self.end_acknowledged(index, sequence, entry.stored, Some(&entry));
            return Some(true);
        }
        if !queue.waits_stored(sequence) || sequence == Sequence(0) {
            return Some(false);
        }
        let found = found?;
        let item = found.entries.iter().find(|item| item.sequence == sequence);
        let Some(item) = item else {
            // What lies behind the portion has not been looked for.
            return found.upto.is_none_or(|upto| upto > sequence).then_some(false);
        };
        let retirement = self.retiring.counts().0;
        queue.pass_unread(sequence, item.message.size(), retirement);
        queue.retain_collapsible(|at| at != sequence);
        let entry = entry_of(item.clone());
        self.end_acknowledged(index, sequence, true, Some(&entry));
        Some(true)
    }

    /// At QoS 2 the client may have it, and knows its tag: as if it had said so, only the release is left. Whether it was not
    /// over before.
    fn end_received(&mut self, index: SessionIndex, tag: Tag) -> bool {
        let session = &mut self.sessions[index as usize];
        let (queue, logged) = (session.id, session.logged);
        let Some(slot) = session.queue.window.get_mut(tag) else { return false };
        if slot.is_received() {
            return false;
        }
        (slot.state, slot.restored) = (State::Released, false);
        let (sequence, entry) = (slot.sequence, slot.entry.take());
        if logged {
            self.append(Record::Received { queue, sequence });
            self.mark_dirty(index);
        }
        if let Some(entry) = entry {
            let queue = &mut self.sessions[index as usize].queue;
            queue.bytes -= entry.size().min(queue.bytes);
            self.stats.times.observe(entry.age(self.now.wall));
            self.tell_acknowledged(index, &entry);
        }
        true
    }

    /// Without an entry: its receiver has had it before, and that was told.
    fn end_acknowledged(&mut self, index: SessionIndex, sequence: Sequence, stored: bool, entry: Option<&Entry>) {
        let attempts = self.sends(index, sequence); // before they are forgotten
        self.settle(index, sequence, stored, Outcome::Acknowledged);
        if let Some(entry) = entry {
            self.stats.times.observe(entry.age(self.now.wall));
            if self.is_followed(&entry.message) {
                self.tell_of(index, &entry.message, Step::Acknowledged { attempts });
            }
        }
    }

    /// Told once all that was found or done is safe: a crash gives the name of a delivery that was not to another one.
    fn tell_peek(&mut self, effect: Effect) {
        self.after_commit(Waiter::Emit(Box::new(effect)));
    }
}
