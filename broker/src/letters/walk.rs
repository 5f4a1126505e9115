//! Looking for letters: those that are stored are read in portions, those in memory are behind them.

use base::{Letter, LetterId, LetterQuery, Outcome, QueueId, Sequence};
use postroad_base as base;

use super::act::Action;
use crate::api::{BacklogEntry, Effect};
use crate::broker::Broker;
use crate::gate::Waiter;
use crate::queue::Entry;
use crate::retire::entry_of;
use crate::session::SessionIndex;

/// Letters that one look takes in its hand; the rest is for the next one.
const LOOKS_MAX: usize = 1024;
/// Bytes of letters that one look finds.
const FOUND_BYTES_MAX: usize = 1 << 20;
/// Stored letters that are read at once to see whether the oldest are too old.
const AGE_LOOKS: usize = 8;

/// Something that is asked of the letters.
#[derive(Debug)]
pub(super) enum Job {
    Find(Find),
    Act(Action),
    /// The oldest go, as far as they are too many or too old.
    Trim(Trim),
}

/// Where letters are looked through for those that have to go.
#[derive(Debug)]
pub(super) struct Trim {
    /// This queue and those behind it.
    from: QueueId,
    /// What was stored when the portion was asked for: up to here.
    until: Sequence,
    /// The last portion was old: the next one may be, too.
    is_under_way: bool,
}

#[derive(Debug)]
pub(super) struct Find {
    token: u64,
    query: LetterQuery,
    /// The last letter of each queue when the look began.
    ends: Vec<LetterId>,
    found: Vec<Letter>,
    bytes: usize,
    looks: usize,
    /// What was stored when the portion was asked for: up to here.
    until: Sequence,
}

/// Where a job goes on.
#[derive(Debug)]
pub(super) enum Progress {
    Done,
    /// The same job once more.
    Again(Job),
    /// The same job, behind the others.
    Later(Job),
    /// Stored letters of this queue, from behind this one on, have to be read first.
    Read {
        job: Job,
        queue: SessionIndex,
        after: Sequence,
        most: usize,
    },
}

/// What the old generation has given for the job at hand.
pub(super) struct Portion<'a> {
    /// Without those that are over.
    pub entries: &'a [BacklogEntry],
    /// The last one that it held.
    last: Option<Sequence>,
    /// Nothing stored is behind it.
    end: bool,
}

impl Broker {
    pub(crate) fn find_letters(&mut self, token: u64, query: LetterQuery) {
        let (ends, found, until) = (self.ends_of_letters(), Vec::new(), Sequence(0));
        let find = Find { token, query, ends, found, bytes: 0, looks: 0, until };
        if find.query.limit == 0 {
            self.tell_found(find, None);
            return;
        }
        self.start_letters_job(Job::Find(find));
    }

    /// The last letter of each queue that holds any, or one behind it.
    fn ends_of_letters(&self) -> Vec<LetterId> {
        let end = |(&queue, &index): (&QueueId, &SessionIndex)| {
            let letters = &self.sessions[index as usize].queue;
            let stored = letters.backlog.as_ref().map(|backlog| backlog.until);
            let last = letters.young.normal().back().map(|entry| entry.sequence).max(stored)?;
            Some(LetterId { queue, sequence: last })
        };
        self.letters.queues.iter().filter_map(end).collect()
    }

    pub(super) fn start_letters_job(&mut self, job: Job) {
        self.letters.jobs.push_back(job);
        self.do_letters_jobs();
    }

    pub(super) fn trim_letters(&mut self) {
        if !self.letters.jobs.iter().any(|job| matches!(job, Job::Trim(_))) {
            self.start_letters_job(Job::Trim(Trim { from: QueueId(0), until: Sequence(0), is_under_way: false }));
        }
    }

    /// Each that is there; what puts itself behind them waits for the next tick, so that a long one keeps nobody waiting.
    pub(crate) fn do_letters_jobs(&mut self) {
        for _ in 0..self.letters.jobs.len() {
            if self.letters.is_reading {
                return;
            }
            if let Some(job) = self.letters.jobs.pop_front() {
                self.do_letters_job(job, None);
            }
        }
    }

    fn do_letters_job(&mut self, job: Job, mut portion: Option<Portion<'_>>) {
        let mut next = Some(job);
        while let Some(job) = next.take() {
            let progress = match job {
                Job::Find(find) => self.find_some(find, portion.take()),
                Job::Act(action) => self.act_or_read(action, portion.take()),
                Job::Trim(trim) => self.trim_some(trim, portion.take()),
            };
            match progress {
                Progress::Done => {}
                Progress::Again(job) => next = Some(job),
                Progress::Later(job) => self.letters.jobs.push_back(job),
                Progress::Read { job, queue, after, most } => {
                    self.letters.jobs.push_front(job);
                    self.letters.is_reading = true;
                    let (queue, bytes_max) = (self.sessions[queue as usize].id, self.config.backlog_bytes_max);
                    self.effects.push_back(Effect::ReadBacklog { queue, after, messages_max: most, bytes_max });
                }
            }
        }
    }

    /// A portion has come.
    pub(crate) fn letters_read(&mut self, index: SessionIndex, entries: &[BacklogEntry], end: bool) {
        self.letters.is_reading = false;
        let Some(job) = self.letters.jobs.pop_front() else { return };
        let skip = self.sessions[index as usize].queue.backlog.as_ref().map(|backlog| &backlog.skip);
        let lives = |entry: &&BacklogEntry| skip.is_none_or(|skip| !skip.contains(&entry.sequence));
        let living: Vec<BacklogEntry> = entries.iter().filter(lives).cloned().collect();
        self.do_letters_job(
            job,
            Some(Portion { entries: &living, last: entries.last().map(|entry| entry.sequence), end }),
        );
        self.forget_gone();
        self.do_letters_jobs();
    }

    /// The batch is stored: what it says is over is not found any more.
    pub(crate) fn letters_ingested(&mut self) {
        let going = std::mem::take(&mut self.letters.going);
        self.letters.gone.extend(going);
        self.forget_gone();
    }

    fn forget_gone(&mut self) {
        if self.letters.is_reading {
            return; // that read may have begun before
        }
        for LetterId { queue, sequence } in std::mem::take(&mut self.letters.gone) {
            let Some(index) = self.letters.queues.get(&queue) else { continue };
            if let Some(backlog) = &mut self.sessions[*index as usize].queue.backlog {
                backlog.skip.remove(&sequence);
            }
        }
    }

    /// The last letter of this queue that is stored and not in memory, if there is one behind `after`.
    pub(super) fn stored_behind(&self, index: SessionIndex, after: Sequence) -> Option<Sequence> {
        let backlog = self.sessions[index as usize].queue.backlog.as_ref()?;
        (backlog.unread > 0 && backlog.until > after).then_some(backlog.until)
    }

    pub(super) fn letter_of_entry(&self, id: LetterId, entry: &Entry) -> Letter {
        Letter {
            id,
            message: entry.message.clone(),
            qos: entry.qos,
            parked: self.letters.parked.get(&id).cloned(),
            is_leased: self.letters.is_leased(id, self.now.mono),
        }
    }

    fn find_some(&mut self, mut find: Find, portion: Option<Portion<'_>>) -> Progress {
        let after = find.query.after;
        let Some((queue, index)) = self.letters_queue_from(after) else {
            return self.tell_found(find, None);
        };
        let seen = find.query.seen.iter().copied().chain(after).filter(|seen| seen.queue == queue);
        let from = seen.map(|seen| seen.sequence).max().unwrap_or(Sequence(0));
        if let Some(portion) = portion {
            for item in portion.entries {
                let id = LetterId { queue, sequence: item.sequence };
                if !self.look_at(&mut find, id, &entry_of(item.clone())) {
                    return self.tell_found(find, Some(id));
                }
            }
            let looked = portion.last.unwrap_or(from).max(from);
            let sequence = if portion.end { looked.max(find.until) } else { looked };
            find.query.after = Some(LetterId { queue, sequence });
            return Progress::Again(Job::Find(find));
        }
        if let Some(until) = self.stored_behind(index, from) {
            find.until = until;
            let most = self.config.backlog_messages_max;
            return Progress::Read { job: Job::Find(find), queue: index, after: from, most };
        }
        let young = self.sessions[index as usize].queue.young.normal();
        let start = young.partition_point(|entry| entry.sequence <= from);
        let entries: Vec<Entry> = young.range(start..).take(LOOKS_MAX).cloned().collect();
        let is_last = start + entries.len() == young.len();
        for entry in &entries {
            let id = LetterId { queue, sequence: entry.sequence };
            if !self.look_at(&mut find, id, entry) {
                return self.tell_found(find, Some(id));
            }
            find.query.after = Some(id);
        }
        if !is_last {
            let next = find.query.after;
            return self.tell_found(find, next);
        }
        find.query.after = Some(LetterId { queue, sequence: Sequence(u64::MAX) });
        Progress::Again(Job::Find(find))
    }

    /// The queue in which a look goes on.
    fn letters_queue_from(&self, after: Option<LetterId>) -> Option<(base::QueueId, SessionIndex)> {
        let mut queues = self.letters.queues.iter().map(|(queue, index)| (*queue, *index));
        queues.find(|(queue, _)| {
            after.is_none_or(|after| {
                *queue > after.queue || (*queue == after.queue && after.sequence < Sequence(u64::MAX))
            })
        })
    }

    /// Takes the letter if it is meant. Whether the look goes on.
    fn look_at(&mut self, find: &mut Find, id: LetterId, entry: &Entry) -> bool {
        find.looks += 1;
        let letter = self.letter_of_entry(id, entry);
        if find.query.filter.fits(&letter) {
            if let Some(lease) = find.query.lease_ms {
                self.letters.leases.insert(id, self.now.mono.after(lease));
                self.sweep_letters_later();
            }
            find.bytes += entry.size();
            find.found.push(letter);
        }
        find.found.len() < find.query.limit && find.bytes < FOUND_BYTES_MAX && find.looks < LOOKS_MAX
    }

    /// Told once all that was found is safe: a crash gives the name of a letter that was not to another one, and whoever was
    /// told it would act on that.
    fn tell_found(&mut self, find: Find, next: Option<LetterId>) -> Progress {
        let Find { token, found: letters, ends, .. } = find;
        self.after_commit(Waiter::Emit(Box::new(Effect::LettersFound { token, letters, next, ends })));
        Progress::Done
    }

    /// The oldest letters go, as far as they have to; of several queues those of the first one first.
    fn trim_some(&mut self, mut trim: Trim, portion: Option<Portion<'_>>) -> Progress {
        let Some((queue, index)) = self.letters.queues.range(trim.from..).next().map(|(queue, index)| (*queue, *index))
        else {
            return Progress::Done;
        };
        trim.from = queue;
        let next_queue = |trim: Trim| Progress::Again(Job::Trim(Trim { from: QueueId(queue.0 + 1), ..trim }));
        if let Some(portion) = portion {
            for item in portion.entries {
                if !self.must_letter_go(item.message.death().map(|death| death.at)) {
                    return next_queue(trim);
                }
                self.end_letter(index, &entry_of(item.clone()), Outcome::Retention);
            }
            self.nothing_is_stored_before(index, portion.last, portion.end.then_some(trim.until));
            return Progress::Later(Job::Trim(Trim { is_under_way: true, ..trim }));
        }
        if let Some(until) = self.stored_behind(index, Sequence(0)) {
            let after =
                self.sessions[index as usize].queue.backlog.as_ref().map_or(Sequence(0), |backlog| backlog.after);
            let is_long = trim.is_under_way || self.has_too_many_letters();
            let most = if is_long { self.config.backlog_messages_max } else { AGE_LOOKS };
            return Progress::Read { job: Job::Trim(Trim { until, ..trim }), queue: index, after, most };
        }
        for _ in 0..LOOKS_MAX {
            let Some(entry) = self.sessions[index as usize].queue.young.normal().front().cloned() else {
                return next_queue(trim);
            };
            if !self.must_letter_go(entry.message.death().map(|death| death.at)) {
                return next_queue(trim);
            }
            self.end_letter(index, &entry, Outcome::Retention);
        }
        Progress::Later(Job::Trim(trim))
    }

    fn must_letter_go(&self, died: Option<base::WallMillis>) -> bool {
        self.has_too_many_letters() || died.is_some_and(|at| self.is_letter_old(at))
    }

    /// The oldest stored letters are over, up to this one; all that were stored up to `end`, whatever was believed, if that was
    /// the end then.
    fn nothing_is_stored_before(&mut self, index: SessionIndex, last: Option<Sequence>, end: Option<Sequence>) {
        if let Some(backlog) = &mut self.sessions[index as usize].queue.backlog {
            backlog.after = last.unwrap_or(backlog.after).max(backlog.after);
            if end == Some(backlog.until) {
                // It stays, for what it skips: the old generation may not have forgotten that yet.
                (backlog.unread, backlog.unread_bytes) = (0, 0);
            }
        }
    }
}
