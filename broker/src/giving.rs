//! Retained messages for new subscriptions, a portion at a time.
//!
//! ```text
//! SUBSCRIBE ─► SUBACK ─► for each filter (unless it is clear that nothing matches), for each shard that may hold a match:
//!                          ask ─► (fence) ─► look at some topics ─► (fence) ─► give ─► has it room? ─► ask …
//! ```
//! A session asks for the next portion only when its queue and its connection have room (less than
//! half a portion waits), so a subscriber of a million
//! retained messages gets all of them, and costs one portion of memory. The place in the walk is a topic: the shard
//! that is asked remembers nothing, and a portion that comes at a bad time is forgotten and asked for again.
//!
//! What a subscriber is promised, and why it holds:
//! - *Each topic's last retained message, or one that was live.* What some shard took in before it knew of the
//!   subscription is at the topic's home before the first portion is looked for: a fence stands in front of it. What is
//!   taken in later comes live.
//! - *Nothing twice, nothing older after newer.* From SUBSCRIBE on, the session notes what comes live ([`Watch`]); the
//!   retained message of such a topic is not given unless it is newer. A fence in front of each portion from another
//!   shard makes sure that what is in the portion and also on its way here live has come. (Needless with two shards,
//!   where each pair of shards has one way, and for our own topics: their live copy comes by the same way, first.)
//! - A live QoS 0 message that the connection had no room for is not noted; if it might be newer than a portion under
//!   way, that portion is asked for again.

use std::sync::Arc;

use base::{Message, QueueId, Recipient, Record, ShardId, SubscriptionOptions, TopicFilter, TopicName};
use postroad_base as base;

use crate::api::{Counted, Effect, MeshMessage};
use crate::broker::Broker;
use crate::gate::Waiter;
use crate::index::Cursor;
use crate::queue::Entry;
use crate::retained::Kept;
use crate::session::{SessionIndex, Watch};
use crate::turns::Step;

/// A subscription whose retained messages are being given.
#[derive(Debug)]
pub(crate) struct Job {
    number: u64,
    filter: TopicFilter,
    /// The shard whose topics are walked now.
    source: ShardId,
    cursor: Cursor,
}

/// Who asks for what; the walk begins behind a fence.
#[derive(Debug)]
pub(crate) struct Question {
    pub from: ShardId,
    pub filter: TopicFilter,
    pub after: Cursor,
    pub looks_max: usize,
    pub token: u64,
}

/// What a question has brought.
#[derive(Debug)]
pub(crate) struct Portion {
    session: SessionIndex,
    queue: QueueId,
    token: u64,
    messages: Vec<Arc<Message>>,
    rest: Option<Cursor>,
}

/// What became of a retained message for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Given {
    /// It was given, or is not to be given.
    Done,
    /// The queue has no room now.
    NoRoom,
}

/// Topics that are looked at while a SUBSCRIBE is answered, to find that nothing matches.
const LOOKS_AT_ONCE: usize = 4;
/// So many jobs that are over may stand in the line besides as many as are not.
const JOBS_OVER_MAX: usize = 16;
/// Topics whose live messages a session is remembered to have, at most.
const SEEN_MAX: usize = 4096;

impl Watch {
    /// Begins to give for a subscription; what was given for it before is given again.
    fn add_job(&mut self, filter: TopicFilter, source: ShardId) {
        self.job_last += 1;
        self.due.insert(filter.clone(), self.job_last);
        if self.jobs.is_empty() {
            self.jobs.reserve_exact(1); // most have one
        }
        self.jobs.push_back(Job { number: self.job_last, filter, source, cursor: Cursor::default() });
        // A client that subscribes again and again, and reads nothing, must not lengthen the line.
        if self.jobs.len() > 2 * self.due.len() + JOBS_OVER_MAX {
            let (due, front) = (&self.due, self.jobs.front().map(|job| job.number));
            self.jobs.retain(|job| due.get(&job.filter) == Some(&job.number) || Some(job.number) == front);
        }
    }

    /// Passes by jobs that are over; what comes for the first one is forgotten with it.
    fn pass_by(&mut self) {
        while self.jobs.front().is_some_and(|job| self.due.get(&job.filter) != Some(&job.number)) {
            self.jobs.pop_front();
            self.asked = None;
        }
    }

    /// Whether the retained message of this topic has been given, or passed by, for all that is asked for.
    fn has_passed(&self, home: ShardId, topic: &TopicName) -> bool {
        let only = self.jobs.front().filter(|_| self.jobs.len() == 1 && self.subscribing == 0);
        only.is_some_and(|job| home < job.source || (home == job.source && job.cursor.has_passed(topic.as_str())))
    }
}

impl Broker {
    /// A SUBSCRIBE is being taken in, and retained messages are wanted for these filters: from now on is noted what comes
    /// live. The log knows that they are due, so that a crash does not end the giving.
    pub(crate) fn begin_watch<'a>(&mut self, index: SessionIndex, filters: impl Iterator<Item = &'a TopicFilter>) {
        self.sessions[index as usize].watch.get_or_insert_default().subscribing += 1;
        for filter in filters {
            self.due(index, filter);
        }
    }

    fn due(&mut self, index: SessionIndex, filter: &TopicFilter) {
        let session = &mut self.sessions[index as usize];
        if session.watch.as_ref().is_some_and(|watch| watch.due.contains_key(filter)) {
            return;
        }
        session.retained_due(filter.clone());
        if session.logged {
            let (queue, filter) = (session.id, filter.clone());
            self.append(Record::RetainedDue { queue, filter });
            self.mark_dirty(index);
        }
    }

    /// Recovery: what was due is given from the beginning.
    pub(crate) fn give_due(&mut self, index: SessionIndex) {
        let Some(watch) = &self.sessions[index as usize].watch else { return };
        for filter in watch.due.keys().cloned().collect::<Vec<_>>() {
            self.add_job(index, filter);
        }
        self.give_more(index);
    }

    /// All that is retained has been given for this subscription.
    pub(crate) fn given(&mut self, index: SessionIndex, filter: &TopicFilter) {
        let session = &mut self.sessions[index as usize];
        session.retained_given(filter);
        if session.logged {
            let (queue, filter) = (session.id, filter.clone());
            self.append(Record::RetainedGiven { queue, filter });
            self.mark_dirty(index);
        }
    }

    /// It is answered; what of it was granted is to be given.
    pub(crate) fn give_retained_for(&mut self, index: SessionIndex, queue: QueueId, filters: Vec<TopicFilter>) {
        let Some(session) = self.sessions.get_mut(index as usize).filter(|session| session.id == queue) else { return };
        let Some(watch) = &mut session.watch else { return };
        watch.subscribing -= 1;
        for filter in filters {
            if self.sessions[index as usize].subscriptions.get(&filter).is_some() {
                self.due(index, &filter); // again, if an earlier giving has ended meanwhile
                if self.nothing_is_retained_for(&filter) {
                    self.given(index, &filter);
                } else {
                    self.add_job(index, filter);
                }
            }
        }
        self.give_more(index);
    }

    /// Whether it takes no question to know that nothing is to be given. Most clients wait for nothing that is retained:
    /// a crowd of them that stands in line costs a KiB each, and leaves the heap full of holes.
    fn nothing_is_retained_for(&self, filter: &TopicFilter) -> bool {
        if self.mesh.others().next().is_some() {
            return false; // what they have taken in before may be under way
        }
        if !filter.has_wildcard() {
            return self.retained.get(filter.pattern()).is_none();
        }
        let mut found = false;
        let rest = self.retained.portion(filter.pattern(), Cursor::default(), LOOKS_AT_ONCE, &mut |_, _| found = true);
        !found && rest.is_none()
    }

    fn add_job(&mut self, index: SessionIndex, filter: TopicFilter) {
        let Some(source) = self.source_from(&filter, 0) else { return };
        if let Some(watch) = &mut self.sessions[index as usize].watch {
            watch.add_job(filter, source);
        }
    }

    /// The next shard, from this number on, that may hold a match.
    fn source_from(&self, filter: &TopicFilter, number: u16) -> Option<ShardId> {
        let home = (!filter.has_wildcard()).then(|| self.home_of(filter.pattern()));
        (number..self.config.placement.shards()).map(ShardId).find(|shard| home.is_none_or(|home| home == *shard))
    }

    fn home_of(&self, topic: &str) -> ShardId {
        self.config.placement.home(topic.as_bytes())
    }

    /// The subscription is gone.
    pub(crate) fn stop_giving(&mut self, index: SessionIndex, filter: &TopicFilter) {
        if self.sessions[index as usize].watch.is_some() {
            self.sessions[index as usize].retained_given(filter); // its Unsubscribe says so to the log
            self.give_more(index);
        }
    }

    /// Goes on, or ends the watch if all has been given.
    fn give_more(&mut self, index: SessionIndex) {
        let open = &mut self.sessions[index as usize].watch;
        let Some(watch) = open else { return };
        watch.pass_by();
        if watch.jobs.is_empty() && watch.subscribing == 0 {
            *open = None;
        }
        self.give_later(index);
    }

    /// As `give_later`; most sessions are not given anything.
    pub(crate) fn give_if_watched(&mut self, index: SessionIndex) {
        if self.sessions[index as usize].watch.is_some() {
            self.give_later(index);
        }
    }

    /// Goes on with giving in a turn to come, if there is something to give and room for it.
    pub(crate) fn give_later(&mut self, index: SessionIndex) {
        let session = &self.sessions[index as usize];
        let Some(watch) = &session.watch else { return };
        if watch.asked.is_some() || watch.is_in_line || watch.jobs.is_empty() || self.room_to_give(index).is_none() {
            return;
        }
        let session = &mut self.sessions[index as usize];
        if let Some(watch) = &mut session.watch {
            watch.is_in_line = true;
            self.later.push_back(Step::Give(index, session.id));
        }
    }

    /// For how many retained messages the session has room; `None`: not now.
    fn room_to_give(&self, index: SessionIndex) -> Option<usize> {
        self.ready(index)?;
        let session = &self.sessions[index as usize];
        let queue = &session.queue;
        let (pending, bytes) = (queue.messages(), queue.bytes_pending());
        let is_behind = pending - queue.window.len() > self.config.retained_portion_max / 2
            || bytes > self.config.limits.queue_bytes_max / 2;
        let needs = session.watch.as_ref().map_or(0, |watch| watch.needs);
        if pending > 0 && (is_behind || bytes + needs > self.config.limits.queue_bytes_max) {
            return None;
        }
        let room = self.config.limits.queue_messages_max.saturating_sub(pending);
        (room > 0 || pending == 0).then(|| room.min(self.config.retained_portion_max).max(1))
    }

    /// Asks for the next portion.
    pub(crate) fn give_next(&mut self, index: SessionIndex, queue: QueueId) {
        let Some(session) = self.sessions.get_mut(index as usize).filter(|session| session.id == queue) else { return };
        let Some(watch) = &mut session.watch else { return };
        watch.is_in_line = false;
        let Some(looks_max) = self.room_to_give(index) else { return };
        let token = self.mesh.next_token();
        let Some(watch) = self.sessions[index as usize].watch.as_mut().filter(|watch| watch.asked.is_none()) else {
            return;
        };
        let Some(job) = watch.jobs.front() else { return };
        (watch.asked, watch.is_stale, watch.needs) = (Some(token), false, 0);
        let (filter, after, source) = (job.filter.clone(), job.cursor.clone(), job.source);
        self.mesh.expect_retained(token, index, queue);
        if source == self.config.shard {
            self.ask(Question { from: source, filter, after, looks_max, token });
        } else {
            let message = MeshMessage::RetainedQuery { filter, after, looks_max, token };
            self.effects.push_back(Effect::Mesh { to: source, message });
        }
    }

    /// Somebody asks for what is retained here.
    pub(crate) fn ask(&mut self, question: Question) {
        if question.after.is_start() {
            self.behind_fence(Step::Answer(question));
        } else {
            self.later.push_back(Step::Answer(question));
        }
    }

    pub(crate) fn answer_question(&mut self, question: Question) {
        let Question { from, filter, after, looks_max, token } = question;
        let (mut messages, mut rest, now) = (Vec::new(), None, self.now.wall);
        let mut take = |kept: &Kept| {
            if kept.message.expires_at.is_none_or(|at| at > now) {
                messages.push(Arc::clone(&kept.message));
            }
        };
        if filter.has_wildcard() {
            rest = self.retained.portion(filter.pattern(), after, looks_max, &mut |_, kept| take(kept));
        } else {
            self.retained.get(filter.pattern()).into_iter().for_each(take);
        }
        if from == self.config.shard {
            return self.retained_matches(from, token, messages, rest);
        }
        // A QoS 2 message of a publisher here may be kept already and leave for its subscribers after its commit.
        let answer = Effect::Mesh { to: from, message: MeshMessage::RetainedMatches { messages, token, rest } };
        self.after_commit(Waiter::Emit(Box::new(answer)));
    }

    pub(crate) fn retained_matches(
        &mut self,
        from: ShardId,
        token: u64,
        messages: Vec<Arc<Message>>,
        rest: Option<Cursor>,
    ) {
        let Some((session, queue)) = self.mesh.expected_retained(token) else { return };
        let portion = Portion { session, queue, token, messages, rest };
        let has_two_ways = from != self.config.shard && self.config.placement.shards() > 2;
        if has_two_ways && !portion.messages.is_empty() {
            self.behind_fence(Step::Deliver(portion));
        } else {
            self.give_portion(portion);
        }
    }

    /// Gives what a question has brought, as far as there is room.
    pub(crate) fn give_portion(&mut self, portion: Portion) {
        let Portion { session: index, queue, token, messages, rest } = portion;
        let Some(session) = self.sessions.get(index as usize).filter(|session| session.id == queue) else { return };
        let Some(watch) = session.watch.as_ref().filter(|watch| watch.asked == Some(token)) else { return };
        let Some(job) = watch.jobs.front() else { return };
        let options = session.subscriptions.get(&job.filter).copied();
        let is_stale = watch.is_stale || self.ready(index).is_none();
        let mut cursor = None;
        if let Some(options) = options.filter(|_| !is_stale) {
            let full = messages.iter().find(|message| self.give_retained(index, message, options) == Given::NoRoom);
            if let (Some(message), Some(watch)) = (full, &mut self.sessions[index as usize].watch) {
                watch.needs = message.size();
            }
            cursor = full.map(|message| Some(Cursor::at(message.topic.as_str()))).or(Some(rest));
        }
        self.portion_given(index, cursor);
    }

    /// The walk goes on at this place (`Some(None)`: with the next shard), or at the old one.
    fn portion_given(&mut self, index: SessionIndex, cursor: Option<Option<Cursor>>) {
        let Some(watch) = &mut self.sessions[index as usize].watch else { return };
        watch.asked = None;
        match (cursor, watch.jobs.front_mut()) {
            (Some(Some(cursor)), Some(job)) => job.cursor = cursor,
            (Some(None), Some(job)) => {
                let (filter, next) = (job.filter.clone(), job.source.0 + 1);
                let source = self.source_from(&filter, next);
                let Some(watch) = &mut self.sessions[index as usize].watch else { return };
                match (source, watch.jobs.front_mut()) {
                    (Some(source), Some(job)) => (job.source, job.cursor) = (source, Cursor::default()),
                    _ => {
                        watch.jobs.pop_front();
                        self.given(index, &filter);
                    }
                }
            }
            _ => {}
        }
        self.give_more(index);
    }

    /// Gives a retained message to a session, with the retain flag `[MQTT-3.3.1-8]`, unless it got this one
    /// or a newer one live.
    fn give_retained(&mut self, index: SessionIndex, message: &Arc<Message>, options: SubscriptionOptions) -> Given {
        let session = &self.sessions[index as usize];
        let seen = session.watch.as_ref().and_then(|watch| watch.seen.get(&message.topic));
        let is_own = options.no_local && message.publisher == session.id;
        if is_own || seen.is_some_and(|newest| *newest >= message.place_in_time()) {
            return Given::Done;
        }
        let (queue, logged) = (session.id, session.logged);
        let mut entry = Entry {
            sequence: self.gate.appended(),
            message: Arc::clone(message).without_collapse_key(),
            identifiers: options.identifier.into_iter().collect(),
            qos: options.qos.min(message.qos),
            retain: true,
            dup: false,
            stored: false,
            group: None,
        };
        if entry.qos.is_acknowledged() {
            let waiting = &self.sessions[index as usize].queue;
            let is_full = waiting.is_full(entry.size(), &self.config);
            if is_full && waiting.messages() > 0 {
                return Given::NoRoom;
            }
            if is_full {
                self.count(Counted::QueueOverflow); // larger than any queue may be
                return Given::Done;
            }
        }
        if logged && entry.qos.is_acknowledged() {
            let recipients = vec![Recipient { given: true, ..entry.recipient(queue) }];
            entry.sequence = self.append(Record::Publish { message: Arc::clone(message), recipients });
        }
        self.take_delivery(index, entry);
        Given::Done
    }

    /// A message that `scratch` has recipients for was refused here, and may be retained elsewhere.
    pub(crate) fn note_missed(&mut self, message: &Message) {
        if message.retain {
            for place in 0..self.scratch.matches.len() {
                self.note_live(self.scratch.matches[place].session, message, false);
            }
        }
    }

    /// A message that is retained (or clears) has come live to a session that retained ones are being given to.
    pub(crate) fn note_live(&mut self, index: SessionIndex, message: &Message, taken: bool) {
        if !message.retain || self.sessions[index as usize].watch.is_none() {
            return;
        }
        let home = self.home_of(message.topic.as_str());
        let Some(watch) = &mut self.sessions[index as usize].watch else { return };
        if watch.seen.len() >= SEEN_MAX {
            // Asked again, what comes is not older than what has been seen; a topic may come twice.
            watch.seen.clear();
            watch.is_stale = true;
        }
        if !taken {
            watch.is_stale = true;
        } else if !watch.has_passed(home, &message.topic) {
            let place = message.place_in_time();
            let newest = watch.seen.entry(message.topic.clone()).or_insert(place);
            *newest = place.max(*newest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_subscribes_again_and_again_lengthens_no_line() {
        let mut watch = Watch::default();
        let filter = |number: u32| TopicFilter::new(format!("a/{}/#", number % 3)).expect("a filter");
        for number in 0..10_000 {
            watch.add_job(filter(number), ShardId(0));
            assert!(watch.jobs.len() <= 2 * 3 + JOBS_OVER_MAX, "{}", watch.jobs.len());
        }
        watch.pass_by();
        let left: Vec<_> = watch.jobs.iter().filter(|job| watch.due[&job.filter] == job.number).collect();
        assert_eq!(left.len(), 3, "each once");
    }
}
