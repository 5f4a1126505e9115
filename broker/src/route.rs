//! From a message to its recipients: one walk of the index, one record, one pass over the sessions.
//!
//! The keys of the index: sessions by their place in the slab, other shards with [`REMOTE`] set,
//! share groups with [`GROUP`].

use std::sync::Arc;

use base::{
    Ended, KeyHolder, Message, MessageId, Qos, ReasonCode, Recipient, Record, ShardId, Step, SubscriptionIdentifier,
    TopicFilter,
};
use postroad_base as base;
use smallvec::SmallVec;

use crate::api::{Counted, Delivery, Effect, Forwarded};
use crate::broker::{Broker, Interested};
use crate::config::QueuePolicy;
use crate::directed::is_to_many;
use crate::followed::is_receipt;
use crate::hooks::Stamp;
use crate::queue::Entry;
use crate::session::{Role, Session, SessionIndex};
use crate::share::GroupIndex;

/// Marks a key of the index that stands for a shard.
pub(crate) const REMOTE: u32 = 1 << 31;
/// Marks a key of the index that stands for a share group.
pub(crate) const GROUP: u32 = 1 << 30;

/// Where a message that is to be routed comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A publisher of this shard.
    Here,
    /// Another shard, which cares for the other shards and for share groups.
    Shard,
}

/// One recipient on this shard, overlapping subscriptions merged.
#[derive(Debug)]
pub(crate) struct Match {
    pub session: SessionIndex,
    pub qos: Qos,
    pub retain: bool,
    pub identifiers: SmallVec<[SubscriptionIdentifier; 1]>,
    /// The queue has no room, and the policy is not to take it.
    pub full: bool,
    /// The share group by which it comes.
    pub group: Option<Arc<TopicFilter>>,
}

/// Room that is used again for each message.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub matches: Vec<Match>,
    /// Other shards that want it, each once.
    pub shards: SmallVec<[u16; 8]>,
    /// Share groups that want it, each once.
    pub groups: SmallVec<[GroupIndex; 2]>,
    /// Groups whose member on another shard gets it.
    pub share_forwards: SmallVec<[(u16, Arc<TopicFilter>); 1]>,
    /// Registered clients that are not here, for a push of QoS 0.
    pub absent: u64,
    /// A push is refused, whoever else would get it: why, and what its publisher's shard hears.
    pub refusal: Option<(Counted, Forwarded)>,
    /// A repeat: somebody who wants it has it already.
    pub known: bool,
    /// Whose key it is published under: its publisher's session may be another shard's.
    pub publisher: Option<KeyHolder>,
    /// QoS 2 from another shard: its publisher may repeat it.
    pub may_be_repeated: bool,
    /// Which plugins have seen the message.
    pub stamp: Stamp,
    walk: u64,
}

impl Scratch {
    pub fn walk(&self) -> u64 {
        self.walk
    }

    /// Another shard wants it.
    pub fn add_shard(&mut self, shard: ShardId, own: ShardId) {
        if shard != own && !self.shards.contains(&shard.0) {
            self.shards.push(shard.0);
        }
    }

    pub fn clear(&mut self) {
        self.matches.clear();
        self.shards.clear();
        self.groups.clear();
        self.share_forwards.clear();
        self.absent = 0;
        self.refusal = None;
        self.known = false;
        self.publisher = None;
        self.may_be_repeated = false;
        self.stamp = Stamp::default();
        self.walk += 1;
    }
}

impl Broker {
    /// Walks the index once: fills `scratch.matches` and `scratch.shards`.
    pub(crate) fn collect(&mut self, message: &Message, origin: Origin) {
        let Self { scratch, sessions, subscriptions, disk_full, config, .. } = self;
        scratch.clear();
        let is_receipt = is_receipt(&message.topic);
        subscriptions.matches(message.topic.as_str(), &mut |key, options: &Interested| {
            if key & GROUP != 0 {
                return scratch.groups.push(key & !GROUP);
            }
            if key & REMOTE != 0 {
                let shard = (key & !REMOTE) as u16;
                if !scratch.shards.contains(&shard) {
                    scratch.shards.push(shard);
                }
                return;
            }
            let session = &mut sessions[key as usize];
            // [MQTT-3.8.3-3]
            if options.no_local && message.publisher == session.id && !is_receipt {
                return;
            }
            merge(scratch, key, session, message, options);
            if message.qos == Qos::AtMostOnce && session.role == Role::Group && !*disk_full {
                // It is kept from here on; nobody could be told that there is no room.
                let kept = &mut scratch.matches[session.mark as usize];
                kept.qos = options.qos;
                kept.full = !config.limits.queue_policy.makes_room()
                    && session.queue.is_full_behind(0, message.size(), message.collapse_key(), config);
            }
        });
        if is_receipt {
            self.leave_receipt_to(message.publisher);
        }
        if origin == Origin::Shard {
            self.scratch.shards.clear();
        }
        if message.topic.is_reserved() {
            self.collect_directed(message, origin);
        }
        if message.may_be_repeated() {
            self.leave_out_known(message.id, origin);
        }
        if origin == Origin::Here {
            self.collect_groups(message);
        }
    }

    /// A repeat does not go to those who have it. Share groups are the publisher's shard's.
    fn leave_out_known(&mut self, id: MessageId, origin: Origin) {
        let Self { scratch, sessions, groups, repeats, .. } = self;
        let Some(takers) = repeats.known.get(id) else { return };
        let before = scratch.matches.len() + scratch.groups.len();
        scratch.matches.retain(|m| !takers.has(sessions[m.session as usize].id));
        if origin == Origin::Here {
            scratch.groups.retain(|index| !takers.groups.contains(groups.name_of(*index)));
        }
        scratch.known |= scratch.matches.len() + scratch.groups.len() < before;
    }

    /// Whether a recipient's queue is full and the policy is to tell the publisher. Who pushes to many is not told: one
    /// client that stays away would make it fail for all.
    pub(crate) fn must_reject(&mut self, message: &Message) -> bool {
        if !message.qos.is_acknowledged() || self.config.limits.queue_policy.makes_room() {
            return false;
        }
        let (size, key) = (message.size(), message.collapse_key());
        let Self { scratch, sessions, config, .. } = self;
        let mut any = false;
        for place in 0..scratch.matches.len() {
            let (in_front, rest) = scratch.matches.split_at_mut(place);
            let recipient = &mut rest[0];
            if !recipient.qos.is_acknowledged() {
                continue;
            }
            let queue = &sessions[recipient.session as usize].queue;
            // A member may get it otherwise, too.
            let more = if recipient.group.is_some() { more_of(in_front, recipient.session) } else { 0 };
            recipient.full = queue.is_full_behind(more, size, key, config);
            any |= recipient.full;
        }
        any && self.is_publisher_told(message)
    }

    /// Whether the policy is to tell a publisher that a queue is full.
    pub(crate) fn is_publisher_told(&self, message: &Message) -> bool {
        self.config.limits.queue_policy == QueuePolicy::RejectPublisher && !is_to_many(&message.topic)
    }

    /// Hands the message to the sessions that `collect` found; logs it first if one of them is to keep it.
    /// Whether there was any.
    pub(crate) fn spread(&mut self, message: &Arc<Message>) -> bool {
        let mut matches = std::mem::take(&mut self.scratch.matches);
        let absent = std::mem::take(&mut self.scratch.absent);
        self.count_by(Counted::DroppedQos0Offline, absent);
        let matched = !matches.is_empty() || absent > 0;
        matches.retain(|m| {
            if m.full {
                self.count(Counted::QueueOverflow);
                self.note_live(m.session, message, false);
                if self.is_followed(message) {
                    let how = Ended::With(base::Outcome::Overflow);
                    self.tell_of(m.session, message, Step::Over { how, reason_code: 0, attempts: 0 });
                }
            }
            !m.full
        });
        if self.hooks.is_some() {
            self.leave_out_for_plugins(message, &mut matches);
        }
        self.note_taken(message, &matches);
        let mut again = take_repeated(&mut matches);
        self.spread_once(message, &mut matches);
        while !again.is_empty() {
            let rest = take_repeated(&mut again);
            self.spread_once(message, &mut again);
            again = rest;
        }
        self.scratch.matches = matches;
        matched
    }

    /// One record, one pass. Each session stands in it once: a delivery's name in the log is its queue and the record's
    /// sequence. (A session in two groups of a topic once had two deliveries of one name: with one settled, a crash lost
    /// the other.)
    fn spread_once(&mut self, message: &Arc<Message>, matches: &mut Vec<Match>) {
        let recipients = self.recipients_to_log(matches);
        let sequence = if recipients.is_empty() {
            self.position()
        } else {
            self.append(Record::Publish { message: Arc::clone(message), recipients })
        };
        for m in matches.drain(..) {
            let entry = Entry {
                sequence,
                message: Arc::clone(message),
                identifiers: m.identifiers,
                qos: m.qos,
                retain: m.retain,
                dup: false,
                stored: false,
                group: m.group,
            };
            self.enqueue(m.session, entry);
        }
    }

    fn recipients_to_log(&self, matches: &[Match]) -> Vec<Recipient> {
        if !self.config.durable {
            return Vec::new();
        }
        let durable = |m: &&Match| m.qos.is_acknowledged() && self.sessions[m.session as usize].logged;
        matches
            .iter()
            .filter(durable)
            .map(|m| Recipient {
                queue: self.sessions[m.session as usize].id,
                qos: m.qos,
                retain: m.retain,
                given: false,
                identifiers: m.identifiers.clone(),
                group: m.group.clone(),
            })
            .collect()
    }

    /// The place of a message that is not logged.
    pub(crate) fn position(&mut self) -> base::Sequence {
        if self.config.durable {
            return self.gate.appended();
        }
        let sequence = self.gate.number();
        self.gate.commit_all();
        sequence
    }

    /// Gives one delivery to a session: out at once, or into its queue.
    pub(crate) fn enqueue(&mut self, index: SessionIndex, entry: Entry) {
        let is_watched = entry.message.retain && self.sessions[index as usize].watch.is_some();
        let message = is_watched.then(|| Arc::clone(&entry.message));
        let taken = self.take_delivery(index, entry);
        if let Some(message) = message {
            self.note_live(index, &message, taken);
        }
    }

    /// As `enqueue`, for what does not come live. Whether it was taken; if not, that is counted.
    pub(crate) fn take_delivery(&mut self, index: SessionIndex, entry: Entry) -> bool {
        if !entry.qos.is_acknowledged() {
            return self.deliver_qos0(index, entry);
        }
        if !self.make_room(index, &entry) {
            self.overflow(index, &entry);
            return false;
        }
        let session = &mut self.sessions[index as usize];
        session.maybe_shared |= entry.group.is_some();
        self.collapse(index, &entry);
        if self.is_followed(&entry.message) {
            self.tell_of(index, &entry.message, Step::Queued);
        }
        self.arrive(index, entry);
        true
    }

    /// There is no room for it.
    fn overflow(&mut self, index: SessionIndex, entry: &Entry) {
        if self.config.limits.queue_policy == QueuePolicy::FullSync {
            return self.ask_for_full_sync(index, entry);
        }
        self.count(Counted::QueueOverflow);
        self.end_undelivered(index, entry, base::Outcome::Overflow, 0);
    }

    fn deliver_qos0(&mut self, index: SessionIndex, entry: Entry) -> bool {
        if self.sessions[index as usize].connection.is_none() {
            self.count(Counted::DroppedQos0Offline);
            self.tell_over(index, &entry, Ended::Offline, 0);
            return false;
        }
        let Some(place) = self.ready(index) else {
            self.count(Counted::DroppedQos0Congested);
            self.tell_over(index, &entry, Ended::Congested, 0);
            return false;
        };
        let connection = self.connections[place as usize].id;
        self.send(index, connection, entry, None);
        true
    }

    /// PUBLISH of an entry of this queue to a connection.
    pub(crate) fn send(
        &mut self,
        index: SessionIndex,
        connection: base::ConnectionId,
        entry: Entry,
        tag: Option<base::Tag>,
    ) {
        self.stats.sent += 1;
        if self.is_followed(&entry.message) {
            self.tell_sent(index, &entry);
        }
        let topic = self.topic_of_device(index, &entry.message.topic);
        let Entry { message, identifiers, qos, retain, dup, .. } = entry;
        let delivery = Delivery { message, tag, qos, dup, retain, topic, identifiers };
        self.effects.push_back(Effect::Deliver { connection, delivery });
    }

    /// Whether this one has room, or gets it by the policy. What `must_reject` judged has, and so has a
    /// retained message for a new subscription; what comes for a client that is gone, or from the server, comes unjudged.
    fn make_room(&mut self, index: SessionIndex, entry: &Entry) -> bool {
        let (size, key) = (entry.size(), entry.collapse_key());
        let mut dropped = 0;
        let has_room = loop {
            let queue = &mut self.sessions[index as usize].queue;
            if !queue.is_full_behind(0, size, key, &self.config) {
                break true;
            }
            if !self.config.limits.queue_policy.is_oldest_first() {
                break false;
            }
            let Some(oldest) = queue.pop_for_room() else { break self.trim_stored(index) };
            queue.bytes -= oldest.size().min(queue.bytes);
            dropped += 1;
            self.end_undelivered(index, &oldest, base::Outcome::Overflow, 0);
        };
        self.count_by(Counted::QueueOverflow, dropped);
        has_room
    }
}

/// How many acknowledged deliveries of one message the session gets by these.
pub(crate) fn more_of(matches: &[Match], session: SessionIndex) -> usize {
    matches.iter().filter(|m| m.session == session && m.qos.is_acknowledged()).count()
}

/// Takes out deliveries to sessions that stand in front of them already: members of share groups that are subscribed
/// otherwise, too, get one for each.
fn take_repeated(matches: &mut Vec<Match>) -> Vec<Match> {
    let mut repeated = Vec::new();
    if matches.len() < 2 || matches.iter().all(|m| m.group.is_none()) {
        return repeated;
    }
    let mut place = 0;
    while place < matches.len() {
        let Match { session, group, .. } = &matches[place];
        if group.is_some() && matches[..place].iter().any(|m| m.session == *session) {
            repeated.push(matches.remove(place));
        } else {
            place += 1;
        }
    }
    repeated
}

/// Overlapping subscriptions of one session give one delivery: the highest QoS and all identifiers
/// `[MQTT-3.3.4-2]`, `[MQTT-3.3.4-3]`, `[MQTT-3.3.4-4]`.
fn merge(scratch: &mut Scratch, key: u32, session: &mut Session, message: &Message, options: &Interested) {
    let qos = options.qos.min(message.qos);
    // [MQTT-3.3.1-12], [MQTT-3.3.1-13]
    let retain = options.retain_as_published && message.retain;
    if session.mark_walk == scratch.walk {
        let earlier = &mut scratch.matches[session.mark as usize];
        earlier.qos = earlier.qos.max(qos);
        earlier.retain |= retain;
        if let Some(identifier) = options.identifier
            && let Err(place) = earlier.identifiers.binary_search(&identifier)
        {
            earlier.identifiers.insert(place, identifier);
        }
        return;
    }
    session.mark_walk = scratch.walk;
    session.mark = u32::try_from(scratch.matches.len()).expect("at most one match per session");
    scratch.matches.push(Match {
        session: key,
        qos,
        retain,
        identifiers: options.identifier.into_iter().collect(),
        full: false,
        group: None,
    });
}

/// The answer to a QoS 1 or 2 publish that was taken in `[MQTT-3.4.2-1]`.
pub(crate) fn reason_for(matched: bool) -> ReasonCode {
    if matched { ReasonCode::Success } else { ReasonCode::NoMatchingSubscribers }
}
