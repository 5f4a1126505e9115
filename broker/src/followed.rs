//! Messages that somebody follows: each step of their lives is told, and their publishers get receipts.
//!
//! ```text
//!  a step ─► Waiter::Moved ─commit─► Effect::Moved ─► history, whoever watches
//!                                └─► $receipt/<message>/<level>/<whom> ─► the publisher's queue, if it has subscribed
//! ```
//!
//! Followed is a message whose publisher asked for receipts, one in as many as `trace.sample` says (chosen by a hash of its id, so
//! that all shards agree without a word), and, while somebody watches, every one. For all others a step costs a test or two.
//!
//! A receipt is a message of the server's own at QoS 1 that goes to the session which published, whatever shard that lives on,
//! and to nobody else. Crash story: what a step tells of is committed before it is told. Killed in between, the step is not told;
//! what it told of is so all the same (the delivery is over, the letter is there).

use std::sync::Arc;

use base::{
    Addressee, ClientId, Ended, KeyHolder, Message, Moved, Outcome, Published, Qos, QueueId, ReasonCode, Sequence,
    Step, TopicName,
};
use postroad_base as base;

use crate::api::Effect;
use crate::broker::Broker;
use crate::connect::is_logged;
use crate::gate::Waiter;
use crate::letters::is_of_server;
use crate::queue::{Entry, State};
use crate::session::{Session, SessionIndex};

/// What receipts are published under.
const ROOT: &str = "$receipt/";

/// A step that waits for its commit.
#[derive(Debug)]
pub(crate) struct Moving {
    message: Arc<Message>,
    moved: Moved,
}

impl Broker {
    /// While somebody watches, every message is followed. Only what would be followed anyway is kept.
    pub fn set_watched(&mut self, is_watched: bool) {
        self.is_watched = is_watched;
    }

    /// Whether the steps of this message are told.
    #[inline]
    pub(crate) fn is_followed(&self, message: &Message) -> bool {
        (message.extras.is_some() && message.wishes().is_some_and(|wishes| wishes.receipt.is_some()))
            || ((self.config.limits.trace_sample > 0 || self.is_watched) && self.is_sampled_or_watched(message))
    }

    #[cold]
    fn is_sampled_or_watched(&self, message: &Message) -> bool {
        self.is_watched || self.is_sampled(message)
    }

    fn is_sampled(&self, message: &Message) -> bool {
        let share = u64::from(self.config.limits.trace_sample);
        share > 0 && spread(message.id.0) % 1_000_000 < share && !is_of_server(&message.topic)
    }

    /// Something has happened to a followed message.
    #[cold]
    pub(crate) fn tell(&mut self, message: &Arc<Message>, to: Option<Addressee>, step: Step) {
        let receipt = message.wishes().and_then(|wishes| wishes.receipt);
        let is_kept = receipt.is_some() || self.is_sampled(message);
        let (at, shard) = (self.now.wall, self.config.shard);
        let moved = Moved { id: message.id, topic: message.topic.clone(), at, shard, to, receipt, is_kept, step };
        if matches!(moved.step, Step::Published(_)) {
            // Before it leaves for other shards: whoever keeps steps knows of the message before its next one comes.
            return self.effects.push_back(Effect::Moved(Box::new(moved)));
        }
        self.after_commit(Waiter::Moved(Box::new(Moving { message: Arc::clone(message), moved })));
    }

    /// The same, on its way to whom this queue is for.
    #[cold]
    pub(crate) fn tell_of(&mut self, index: SessionIndex, message: &Arc<Message>, step: Step) {
        let to = self.sessions[index as usize].addressee();
        self.tell(message, Some(to), step);
    }

    /// Its delivery to the client of this queue ends without an acknowledgement: the step, if it is followed. To be made while
    /// its attempts are known, and told behind the record of the end.
    #[must_use]
    pub(crate) fn over(&self, index: SessionIndex, entry: &Entry, how: Ended, reason_code: u8) -> Option<Step> {
        let attempts = self.is_followed(&entry.message).then(|| self.sends_of(index, entry, how))?;
        Some(Step::Over { how, reason_code, attempts })
    }

    /// The same for an end without a record, or behind it.
    #[cold]
    pub(crate) fn tell_over(&mut self, index: SessionIndex, entry: &Entry, how: Ended, reason_code: u8) {
        let step = self.over(index, entry, how, reason_code);
        self.tell_step(index, entry, step);
    }

    pub(crate) fn tell_step(&mut self, index: SessionIndex, entry: &Entry, step: Option<Step>) {
        if let Some(step) = step {
            self.tell_of(index, &entry.message, step);
        }
    }

    /// How often a delivery was sent that ends so.
    pub(crate) fn sends_of(&self, index: SessionIndex, entry: &Entry, how: Ended) -> u32 {
        let was_sent = entry.dup || matches!(how, Ended::With(Outcome::Refused | Outcome::Unacknowledged));
        let attempts = self.sessions[index as usize].queue.attempts_at(entry.sequence);
        attempts.map_or(u32::from(was_sent), |attempts| attempts.count)
    }

    /// A followed message was taken in: now, also if it is to be published later.
    #[cold]
    pub(crate) fn tell_published(&mut self, message: &Arc<Message>) {
        let holder = self.scratch.publisher.take();
        let publisher = self.session_of_queue(message.publisher).filter(|_| self.is_known_publisher(message));
        let publisher = publisher.map(|index| &self.sessions[index as usize]);
        let is_client = |session: &&Session| !session.client.as_str().starts_with('\0');
        let by = publisher.filter(is_client).map(|session| session.client.clone());
        let user = publisher.and_then(|session| session.principal.user.clone());
        let (holders_client, holders_user) = match holder {
            Some(KeyHolder::User(user)) => (None, Some(user)),
            Some(KeyHolder::Client(client)) => (Some(client), None),
            None => (None, None),
        };
        let published = Published {
            by: by.or(holders_client),
            user: user.or(holders_user),
            qos: message.qos,
            bytes: message.payload.len(),
            original: message.extras.as_ref().and_then(|extras| extras.original),
        };
        self.tell(message, None, Step::Published(Box::new(published)));
    }

    /// Whether its publication was told when it was put off.
    pub(crate) fn was_told_before(message: &Message) -> bool {
        message.wishes().is_some_and(|wishes| wishes.is_for_later(message.id.published_at()))
    }

    /// All shards have answered for a followed message.
    pub(crate) fn tell_stored(&mut self, message: &Arc<Message>, refusal: Option<ReasonCode>, matched: bool) {
        let step = match refusal {
            Some(reason) => Step::Rejected { reason },
            None => Step::Stored { matched },
        };
        self.tell(message, None, step);
    }

    /// It leaves for its recipient.
    #[cold]
    pub(crate) fn tell_sent(&mut self, index: SessionIndex, entry: &Entry) {
        let attempt = self.sends(index, entry.sequence);
        self.tell_of(index, &entry.message, Step::Sent { attempt, qos: entry.qos });
    }

    /// QoS 2: its recipient has it.
    pub(crate) fn tell_acknowledged(&mut self, index: SessionIndex, entry: &Entry) {
        if self.is_followed(&entry.message) {
            let attempts = self.sends(index, entry.sequence);
            self.tell_of(index, &entry.message, Step::Acknowledged { attempts });
        }
    }

    /// How often a delivery was sent that was: one that was sent once has no attempts on record.
    pub(crate) fn sends(&self, index: SessionIndex, sequence: Sequence) -> u32 {
        self.sessions[index as usize].queue.attempts_at(sequence).map_or(1, |attempts| attempts.count)
    }

    /// The queue goes with all that is in memory of it: what is to be told of that, behind the record of its end. What only the
    /// old generation holds is not read for this.
    #[must_use]
    pub(crate) fn ends_of_queue(&self, index: SessionIndex, how: Ended) -> Vec<(Arc<Message>, Step)> {
        let queue = &self.sessions[index as usize].queue;
        let in_flight = queue.window.iter().filter(|(_, slot)| slot.state != State::Released);
        // A group's are as they were leased; those of a client say of themselves that they were sent, since it has left.
        let in_flight = in_flight.filter_map(|(_, slot)| Some((slot.entry.as_ref()?, slot.state == State::Sent)));
        let portion = queue.backlog.iter().flat_map(|backlog| backlog.portion.iter());
        let waiting = portion.chain(queue.young.iter()).map(|entry| (entry, false));
        let told = in_flight.chain(waiting).filter(|(entry, _)| self.is_followed(&entry.message));
        let end = |(entry, was_sent): (&Entry, bool)| {
            let attempts = self.sends_of(index, entry, how).max(u32::from(was_sent));
            (Arc::clone(&entry.message), Step::Over { how, reason_code: 0, attempts })
        };
        told.map(end).collect()
    }

    pub(crate) fn tell_ends(&mut self, to: &Addressee, ends: Vec<(Arc<Message>, Step)>) {
        for (message, step) in ends {
            self.tell(&message, Some(to.clone()), step);
        }
    }

    /// A commit has covered a step.
    pub(crate) fn moved(&mut self, moving: Moving) {
        let Moving { message, moved } = moving;
        if let Some(receipt) = self.receipt_of(&message, &moved) {
            self.announce_later(Arc::new(receipt));
        }
        self.effects.push_back(Effect::Moved(Box::new(moved)));
    }

    /// What the publisher is told of it, if there is one that can be told.
    fn receipt_of(&self, message: &Message, moved: &Moved) -> Option<Message> {
        let level = moved.receipt_level()?;
        if !self.is_known_publisher(message) {
            return None;
        }
        let to = moved.to.as_ref().map_or("-".to_owned(), |to| one_level(to.name()));
        let topic = TopicName::new(format!("{ROOT}{}/{}/{to}", moved.id, level.name())).ok()?;
        let payload = serde_json::json!({
            "message": moved.id.to_string(),
            "original": message.extras.as_ref().and_then(|extras| extras.original).map(|id| id.to_string()),
            "topic": message.topic.as_str(),
            "level": level.name(),
            "client": moved.to.as_ref().and_then(Addressee::client).map(ClientId::as_str),
            "group": moved.to.as_ref().and_then(Addressee::group),
            "at_unix_ms": moved.at.0,
            "attempts": moved.step.attempts(),
            "reason": moved.step.reason(),
        });
        Some(Message {
            topic,
            payload: payload.to_string().into(),
            qos: Qos::AtLeastOnce,
            retain: false,
            expires_at: None,
            extras: None,
            ..message.clone()
        })
    }

    /// Whether the message's publisher is still whom its queue names: the names of queues that the log does not know begin anew
    /// with each start.
    fn is_known_publisher(&self, message: &Message) -> bool {
        let is_of_this_run = message.original().0 as u32 == self.config.boot;
        message.publisher != QueueId::NONE && (is_logged(message.publisher) || is_of_this_run)
    }

    /// Of what matches a receipt's topic only the session that it is for is left, and the way there.
    pub(crate) fn leave_receipt_to(&mut self, publisher: QueueId) {
        let Self { scratch, sessions, config, .. } = self;
        scratch.groups.clear();
        scratch.matches.retain(|found| sessions[found.session as usize].id == publisher);
        let home = config.placement.shard_of(publisher.partition());
        scratch.shards.retain(|shard| *shard == home.0);
    }
}

/// Whether it is a receipt: for one session, whoever else has subscribed to it.
pub(crate) fn is_receipt(topic: &TopicName) -> bool {
    topic.is_reserved() && topic.as_str().starts_with(ROOT)
}

/// A client's name as one level of a topic name: what would be more than that is written as in URLs.
fn one_level(name: &str) -> String {
    name.replace('%', "%25").replace('/', "%2F").replace('+', "%2B").replace('#', "%23")
}

/// Ids of one millisecond differ in few bits: this spreads them (the finalizer of SplitMix64).
fn spread(id: u128) -> u64 {
    let mut mixed = (id >> 64) as u64 ^ (id as u64).rotate_left(32);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    use base::{MessageIdGenerator, ShardId, WallMillis};

    use super::*;

    #[test]
    fn a_sample_takes_its_share_of_the_ids() {
        let mut ids = MessageIdGenerator::new(ShardId(1), 77);
        let taken = (0..100_000).filter(|n| spread(ids.next(WallMillis(n / 50)).0) % 1_000_000 < 10_000).count();
        assert!((800..1200).contains(&taken), "{taken} of 100,000 at a share of a hundredth");
    }
}
