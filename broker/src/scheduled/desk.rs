//! What waits for its time, shown to whoever may see it; and taken back by whoever may.
//!
//! ```text
//! FindScheduled ─► jobs ─┬─ in memory ───────────────────────┬─► ScheduledFound (once committed)
//!                        └─ stored: ReadBacklog (Reading::Desk) ─┘
//! Cancel ─► jobs ─► marks of all that waits ─► body ─► Settle(Cancelled) ─► CancelDone (once committed)
//! ```
//!
//! A look goes through a queue in the order of publication, as it is stored; a portion or a thousand in memory is one step. For
//! an id all that waits is gone through in memory, by its [`Mark`](super::Mark), so many in one step: an index by id would cost
//! every message more than that, for a few that are taken back. Steps alternate with reads of what is due.
//!
//! Crash story: who waits can be taken back until its publishing begins, in one turn or the other, and either is in the log before
//! anybody is told: a message that was said to be taken back is never published. While times are still being read after a
//! recovery, jobs wait: before, nobody knows what waits.

use std::collections::VecDeque;
use std::ops::Bound;

use base::{
    CancelAnswer, KeyHolder, MessageId, Outcome, PendingId, QueueId, ScheduledMessage, ScheduledPage, ScheduledQuery,
    Sequence,
};
use postroad_base as base;

use super::{Due, Mark, Reading};
use crate::api::{BacklogEntry, Effect};
use crate::broker::Broker;
use crate::gate::Waiter;
use crate::queue::Entry;
use crate::retire::entry_of;
use crate::session::SessionIndex;

/// Messages that one look takes in its hand; the rest is for the next one.
const LOOKS_MAX: usize = 1024;
/// Bytes of the messages that one look finds, at most one message more.
const FOUND_BYTES_MAX: usize = 1 << 20;
/// Marks that are compared in one step: some 0.1 ms.
const MARKS_PER_STEP: usize = 8192;
/// Who waits for a step. Each of them is a request that somebody waits for, so they come to as many only if most have given up.
const JOBS_MAX: usize = 1024;
/// Messages that were taken back last: whoever has had no answer asks again, and is told the same.
const CANCELLED_KEPT: usize = 1024;

/// See the module head.
#[derive(Debug, Default)]
pub(super) struct Desk {
    /// The first one is served.
    jobs: VecDeque<Job>,
    /// Whose they were, to tell nobody else.
    cancelled: VecDeque<(MessageId, Option<KeyHolder>)>,
}

#[derive(Debug)]
enum Job {
    Find(Find),
    Cancel(Cancel),
}

impl Job {
    /// What has found something is served to its end before the others, so that one of them holds messages at a time; and what takes
    /// back, since it is short of time: what it looks for may be due.
    fn goes_first(&self) -> bool {
        match self {
            Self::Find(find) => !find.found.is_empty(),
            Self::Cancel(_) => true,
        }
    }
}

#[derive(Debug)]
struct Find {
    token: u64,
    query: ScheduledQuery,
    /// With their places.
    found: Vec<(PendingId, ScheduledMessage)>,
    bytes: usize,
    looks: usize,
    /// What was stored when the portion was asked for: up to here.
    until: Sequence,
}

#[derive(Debug)]
struct Cancel {
    token: u64,
    id: MessageId,
    /// Only if it is this one's; `None`: whoever's.
    of: Option<KeyHolder>,
    /// Those up to here have another mark, or were looked at.
    looked: Option<Due>,
}

/// How a step has ended.
#[derive(Debug)]
enum Progress {
    Done,
    /// Behind the others, unless it [goes first](Job::goes_first).
    Later(Job),
    /// Stored messages of this queue behind this one are read first.
    Read {
        job: Job,
        queue: QueueId,
        after: Sequence,
        most: usize,
    },
}

/// What the old generation has given for the job at hand.
struct Portion<'a> {
    entries: &'a [BacklogEntry],
    /// Nothing stored is behind it.
    end: bool,
}

impl Desk {
    pub fn is_wanted(&self) -> bool {
        !self.jobs.is_empty()
    }
}

impl Broker {
    /// Looks for messages that wait for their time.
    pub(crate) fn find_scheduled(&mut self, token: u64, query: ScheduledQuery) {
        if self.scheduled.desk.jobs.len() >= JOBS_MAX {
            return self.effects.push_back(Effect::ScheduledFound { token, page: None });
        }
        let query = ScheduledQuery { limit: query.limit.max(1), ..query };
        let find = Find { token, query, found: Vec::new(), bytes: 0, looks: 0, until: Sequence(0) };
        self.scheduled.desk.jobs.push_back(Job::Find(find));
    }

    /// Takes a message back that waits for its time, if it is this one's, or whoever's.
    pub(crate) fn cancel_scheduled(&mut self, token: u64, id: MessageId, of: Option<KeyHolder>) {
        if self.scheduled.desk.jobs.len() >= JOBS_MAX {
            return self.effects.push_back(Effect::CancelDone { token, answer: CancelAnswer::Busy });
        }
        self.scheduled.desk.jobs.push_back(Job::Cancel(Cancel { token, id, of, looked: None }));
    }

    /// Takes a step for the first who waits, if nothing is being read.
    pub(crate) fn serve_desk(&mut self) {
        if self.scheduled.desk_is_due()
            && let Some(job) = self.scheduled.desk.jobs.pop_front()
        {
            self.serve(job, None);
        }
    }

    /// What the first one has asked for has been read.
    pub(super) fn desk_read(&mut self, entries: &[BacklogEntry], end: bool) {
        if let Some(job) = self.scheduled.desk.jobs.pop_front() {
            self.serve(job, Some(Portion { entries, end }));
        }
    }

    fn serve(&mut self, job: Job, portion: Option<Portion<'_>>) {
        let progress = match job {
            Job::Find(find) => self.find_some_scheduled(find, portion),
            Job::Cancel(cancel) => self.cancel_or_look_on(cancel, portion),
        };
        match progress {
            Progress::Done => {}
            Progress::Later(job) if job.goes_first() => self.scheduled.desk.jobs.push_front(job),
            Progress::Later(job) => self.scheduled.desk.jobs.push_back(job),
            Progress::Read { job, queue, after, most } => {
                self.scheduled.desk.jobs.push_front(job);
                self.scheduled.reading = Some(Reading::Desk);
                let bytes_max = self.config.backlog_bytes_max;
                self.effects.push_back(Effect::ReadBacklog { queue, after, messages_max: most, bytes_max });
            }
        }
    }

    fn find_some_scheduled(&mut self, mut find: Find, portion: Option<Portion<'_>>) -> Progress {
        let after = find.query.after;
        let Some((queue, index)) = self.scheduled_queue_behind(after) else {
            return self.tell_scheduled(find, None);
        };
        let from = after.filter(|after| after.queue == queue).map_or(Sequence(0), |after| after.sequence);
        if let Some(portion) = portion {
            let last = portion.entries.last().map_or(from, |last| last.sequence);
            for item in portion.entries {
                if !self.look_at_scheduled(&mut find, queue, &entry_of(item.clone())) {
                    return self.tell_scheduled(find, Some(PendingId { queue, sequence: item.sequence }));
                }
            }
            let sequence = if portion.end { last.max(find.until) } else { last };
            find.query.after = Some(PendingId { queue, sequence });
            return Progress::Later(Job::Find(find));
        }
        if let Some(until) = self.stored_scheduled_behind(index, from) {
            find.until = until;
            let most = self.config.backlog_messages_max;
            return Progress::Read { job: Job::Find(find), queue, after: from, most };
        }
        self.find_young_scheduled(find, queue, index, from)
    }

    /// What is stored has been looked at, up to there; the rest is in memory.
    fn find_young_scheduled(
        &mut self,
        mut find: Find,
        queue: QueueId,
        index: SessionIndex,
        from: Sequence,
    ) -> Progress {
        // So many of each priority: the first so many of all are among them.
        let mut young: Vec<Entry> =
            self.sessions[index as usize].queue.young.behind(from, LOOKS_MAX).cloned().collect();
        young.sort_unstable_by_key(|entry| entry.sequence);
        for entry in young.iter().take(LOOKS_MAX) {
            if !self.look_at_scheduled(&mut find, queue, entry) {
                return self.tell_scheduled(find, Some(PendingId { queue, sequence: entry.sequence }));
            }
        }
        let sequence = match young.get(LOOKS_MAX - 1) {
            Some(last) => last.sequence,
            None => Sequence(u64::MAX), // that was all of this queue
        };
        find.query.after = Some(PendingId { queue, sequence });
        Progress::Later(Job::Find(find))
    }

    /// The queue in which a look goes on.
    fn scheduled_queue_behind(&self, after: Option<PendingId>) -> Option<(QueueId, SessionIndex)> {
        let goes_on = |queue: QueueId| {
            after.is_none_or(|after| {
                queue > after.queue || (queue == after.queue && after.sequence < Sequence(u64::MAX))
            })
        };
        let mut queues = self.scheduled.queues.iter().map(|(queue, index)| (*queue, *index));
        queues.find(|(queue, _)| goes_on(*queue))
    }

    /// The last one that is stored and not in memory, if there is one behind `after`.
    fn stored_scheduled_behind(&self, index: SessionIndex, after: Sequence) -> Option<Sequence> {
        let backlog = self.sessions[index as usize].queue.backlog.as_ref()?;
        (backlog.unread > 0 && backlog.until > after).then_some(backlog.until)
    }

    /// Takes it if it is meant, and waits. Whether the look goes on.
    fn look_at_scheduled(&mut self, find: &mut Find, queue: QueueId, entry: &Entry) -> bool {
        find.looks += 1;
        let waits = self.scheduled.due_of(queue, entry.sequence, &entry.message).is_some();
        if waits && find.query.filter.fits(&entry.message) {
            let tried_again = self.scheduled.put_off.get(&(queue, entry.sequence)).copied();
            find.bytes += entry.size();
            let found = ScheduledMessage { message: entry.message.clone(), tried_again };
            find.found.push((PendingId { queue, sequence: entry.sequence }, found));
        }
        find.found.len() < find.query.limit && find.bytes < FOUND_BYTES_MAX && find.looks < LOOKS_MAX
    }

    /// What waits still, told once all that was found is safe: a crash gives its place to another one. So nobody is shown what
    /// somebody was told before is taken back.
    fn tell_scheduled(&mut self, find: Find, next: Option<PendingId>) -> Progress {
        let Find { token, mut found, .. } = find;
        let waits = |place: &PendingId, found: &ScheduledMessage| {
            self.scheduled.due_of(place.queue, place.sequence, &found.message).is_some()
        };
        found.retain(|(place, found)| waits(place, found));
        let messages = found.into_iter().map(|(_, found)| found).collect();
        let page = Some(Box::new(ScheduledPage { messages, next }));
        self.after_commit(Waiter::Emit(Box::new(Effect::ScheduledFound { token, page })));
        Progress::Done
    }

    fn cancel_or_look_on(&mut self, mut cancel: Cancel, portion: Option<Portion<'_>>) -> Progress {
        if let Some(Portion { entries, .. }) = portion
            && let Some(due) = cancel.looked
            && let Some(asked) =
                entries.first().filter(|first| (first.sequence, first.message.id) == (due.2, cancel.id))
        {
            return self.cancel_this(cancel, due, &entry_of(asked.clone()));
        }
        if let Some(answer) = self.known_answer(&cancel) {
            return self.tell_cancelled(&cancel, answer);
        }
        let from = cancel.looked.map_or(Bound::Unbounded, Bound::Excluded);
        let mark = Mark::of(cancel.id);
        let mut last = None;
        for (due, of) in self.scheduled.waiting.range((from, Bound::Unbounded)).take(MARKS_PER_STEP) {
            last = Some(*due);
            if *of == mark {
                break;
            }
        }
        let Some(due) = last else { return self.tell_cancelled(&cancel, CancelAnswer::Unknown) };
        cancel.looked = Some(due);
        if self.scheduled.waiting.get(&due) != Some(&mark) {
            return Progress::Later(Job::Cancel(cancel));
        }
        self.cancel_if_it_is(cancel, due)
    }

    /// One that waits has the mark of the one that is wanted.
    fn cancel_if_it_is(&mut self, cancel: Cancel, due: Due) -> Progress {
        let (_, queue, sequence) = due;
        let index = self.scheduled.queues.get(&queue).copied();
        let young = index.and_then(|index| self.sessions[index as usize].queue.young.find(sequence, |_| true));
        match young.or_else(|| self.scheduled.bodies.get(&(queue, sequence))).cloned() {
            Some(entry) if entry.message.id == cancel.id => self.cancel_this(cancel, due, &entry),
            Some(_) => Progress::Later(Job::Cancel(cancel)),
            None => {
                let after = Sequence(sequence.0 - 1);
                Progress::Read { job: Job::Cancel(cancel), queue, after, most: 1 }
            }
        }
    }

    /// What is to be said without looking: it was taken back before, or is on its way.
    fn known_answer(&self, cancel: &Cancel) -> Option<CancelAnswer> {
        let known = self.scheduled.desk.cancelled.iter().find(|(id, _)| *id == cancel.id);
        if let Some((_, by)) = known {
            let is_theirs = cancel.of.is_none() || *by == cancel.of;
            return Some(if is_theirs { CancelAnswer::Cancelled } else { CancelAnswer::Unknown });
        }
        // Whose it is nobody knows without its body: that an id which they know is on its way may be told to all.
        self.is_due_under(cancel.id).then_some(CancelAnswer::Published)
    }

    /// It waits, and this is its body.
    fn cancel_this(&mut self, cancel: Cancel, due: Due, entry: &Entry) -> Progress {
        let Some(&index) = self.scheduled.queues.get(&due.1).filter(|_| self.scheduled.waiting.contains_key(&due))
        else {
            return self.tell_cancelled(&cancel, CancelAnswer::Unknown);
        };
        let by = entry.message.scheduled_by().cloned();
        if cancel.of.is_some() && cancel.of != by {
            return self.tell_cancelled(&cancel, CancelAnswer::Unknown);
        }
        if self.is_due_under(cancel.id) {
            return self.tell_cancelled(&cancel, CancelAnswer::Published); // some have it
        }
        self.end_waiting(index, due, entry, Outcome::Cancelled);
        let kept = &mut self.scheduled.desk.cancelled;
        if kept.len() == CANCELLED_KEPT {
            kept.pop_front();
        }
        kept.push_back((cancel.id, by));
        self.tell_cancelled(&cancel, CancelAnswer::Cancelled)
    }

    fn tell_cancelled(&mut self, cancel: &Cancel, answer: CancelAnswer) -> Progress {
        self.after_commit(Waiter::Emit(Box::new(Effect::CancelDone { token: cancel.token, answer })));
        Progress::Done
    }
}
