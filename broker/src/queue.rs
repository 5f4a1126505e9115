//! A queue of deliveries: what is in flight, what waits in memory, what waits in the old generation.
//!
//! ```text
//!   oldest                                                          newest
//!   window (in flight, by tag) │ backlog portion │ …on disk… │ young (memory)
//! ```
//!
//! What waits stands in lines by priority (`waiting`): high ones go first, wherever they are; a stored one is read out of turn.
//! Low ones go when no other is left, or too many of them have been read. Below, "in order" means: within a priority. Only as
//! long as QoS 2 deliveries of a former run are to be sent again, all goes in the order of the log: what may have been sent
//! before them, at QoS 1, stands among the others.
//!
//! Invariants
//! - Deliveries enter at the tail of `young` and leave through the window in that order.
//! - While there is a backlog, `young` holds only what is newer than all of it.
//! - A tag is the slot's index above the lowest tag of its range, so an acknowledgement is found without a search; freed
//!   tags are used again as late as possible.
//! - A tag is free when its delivery is over *and* the receiver has answered each packet that was sent under it on this
//!   connection. After a resend two answers come; the second one, taken for that of the next delivery under the tag, would lose it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use ahash::{AHashMap, AHashSet};
use base::{
    Message, MonoMillis, Now, Outcome, Priority, Qos, Recipient, Sequence, SubscriptionIdentifier, Tag, TopicFilter,
    WallMillis,
};
use bytestring::ByteString;
use postroad_base as base;
use smallvec::SmallVec;

use crate::config::Config;
use crate::full_sync::FullSync;
use crate::waiting::Waiting;

/// One delivery that waits or is in flight.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub sequence: Sequence,
    pub message: Arc<Message>,
    pub identifiers: SmallVec<[SubscriptionIdentifier; 1]>,
    pub qos: Qos,
    pub retain: bool,
    /// It may have been sent before.
    pub dup: bool,
    /// The old generation holds it.
    pub stored: bool,
    /// The share group by which it came: given to another member if the session ends.
    pub group: Option<Arc<TopicFilter>>,
}

impl Entry {
    /// What it counts against `queue_bytes_max`.
    pub fn size(&self) -> usize {
        self.message.size()
    }

    /// Nothing but its message is to be known of it: no publisher's wish, no time to live, no earlier attempt.
    #[inline]
    pub fn is_ordinary(&self) -> bool {
        self.message.extras.is_none() && self.message.expires_at.is_none() && !self.dup
    }

    /// In which line it waits. A dead letter stands where it died, whatever its message was.
    #[inline]
    pub fn priority(&self) -> Priority {
        match &self.message.extras {
            Some(extras) if extras.death.is_none() => extras.wishes.priority,
            _ => Priority::Normal,
        }
    }

    /// What has this key and has not been sent is replaced by it.
    pub fn collapse_key(&self) -> Option<&ByteString> {
        self.message.collapse_key()
    }

    /// Milliseconds since it was published, or was to be.
    pub fn age(&self, now: base::WallMillis) -> u64 {
        now.since(self.message.published_at())
    }

    /// As the log and the old generation hold it, unless it is `given`.
    pub fn recipient(&self, queue: base::QueueId) -> Recipient {
        let (identifiers, group) = (self.identifiers.clone(), self.group.clone());
        Recipient { queue, qos: self.qos, retain: self.retain, given: false, identifiers, group }
    }
}

/// Where a delivery in the window is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Its PUBLISH leaves when the commit has covered its cause.
    Held,
    /// To be sent on this connection (again).
    Waiting,
    /// Sent; PUBACK or PUBREC is due.
    Sent,
    /// QoS 2: the PUBREL leaves when the commit has covered the PUBREC.
    ReleaseHeld,
    /// QoS 2: PUBREL sent, or to be sent again after a reconnect; PUBCOMP is due.
    Released,
}

/// A delivery in the window.
#[derive(Debug)]
pub(crate) struct Slot {
    /// Place among the deliveries of this queue, in the order in which they were sent first.
    pub order: u64,
    pub sequence: Sequence,
    pub qos: Qos,
    pub state: State,
    /// It was sent on this connection, hence counts against its receive maximum.
    pub counts: bool,
    pub stored: bool,
    /// The log says that it was in flight when the server ended, and it has not been sent again.
    pub restored: bool,
    /// Why it was given up; its tag is taken until the receiver answers (see `overdue`).
    pub given_up: Option<Outcome>,
    /// How often its last packet (PUBLISH, or PUBREL) was sent again on this connection.
    pub resends: u8,
    /// Packets of it that were sent on this connection and not answered. `u8::MAX`: nobody knows how many.
    pub unanswered: u8,
    /// When it was sent for the first time; 0: not yet, as far as is known.
    pub first_sent: WallMillis,
    /// When its last packet was sent on this connection, and for how long it had been in flight before, in milliseconds.
    pub sent_at: MonoMillis,
    pub waited: u64,
    /// `None` once received, or given up: only the release is left, or the answer.
    pub entry: Option<Entry>,
}

impl Slot {
    /// One that has not been sent on this connection.
    pub fn new(sequence: Sequence, qos: Qos, state: State, entry: Option<Entry>) -> Self {
        Self {
            order: 0,
            sequence,
            qos,
            state,
            counts: false,
            stored: entry.as_ref().is_some_and(|entry| entry.stored),
            restored: false,
            given_up: None,
            resends: 0,
            unanswered: 0,
            first_sent: WallMillis(0),
            sent_at: MonoMillis(0),
            waited: 0,
            entry,
        }
    }

    /// It was given up.
    #[inline]
    pub fn is_dead(&self) -> bool {
        self.given_up.is_some()
    }

    /// QoS 2: the receiver has it, or is taken to have it; only the release is left.
    #[inline]
    pub fn is_received(&self) -> bool {
        matches!(self.state, State::ReleaseHeld | State::Released)
    }

    /// Recovery: it is to be sent again, and the old generation has its body.
    pub fn lacks_body(&self) -> bool {
        self.state == State::Waiting && self.entry.is_none()
    }

    /// It leaves now, for the first time on this connection.
    pub fn note_sent(&mut self, now: Now) {
        self.restored = false;
        (self.sent_at, self.resends, self.unanswered) = (now.mono, 0, 1);
        if self.first_sent == WallMillis(0) {
            self.first_sent = now.wall;
        }
    }

    /// Its last packet leaves once more.
    pub fn note_resent(&mut self, now: MonoMillis) {
        (self.waited, self.sent_at) = (self.age(now), now);
        self.resends = self.resends.saturating_add(1);
        self.unanswered = self.unanswered.saturating_add(1);
    }

    /// PUBACK, PUBREC or PUBCOMP has come.
    #[inline]
    pub fn note_answered(&mut self) {
        self.unanswered = one_answered(self.unanswered);
    }

    /// QoS 2: its PUBREL leaves, for the first time on this connection.
    pub fn note_released(&mut self, now: MonoMillis) {
        (self.state, self.sent_at, self.resends) = (State::Released, now, 0);
        self.unanswered = self.unanswered.saturating_add(1);
    }

    /// For how long its client has been here with it.
    pub fn age(&self, now: MonoMillis) -> u64 {
        self.waited + now.since(self.sent_at)
    }

    /// What an acknowledgement that comes now says of the round trip; nothing if it may be for any of several copies.
    #[inline]
    pub fn round_trip(&self, now: MonoMillis) -> Option<u64> {
        (self.resends == 0).then(|| now.since(self.sent_at))
    }
}

fn one_answered(unanswered: u8) -> u8 {
    if unanswered == u8::MAX { unanswered } else { unanswered.saturating_sub(1) }
}

/// The tags of a window. A connection drains two queues, its session's and its client's registration's: each has a half
/// of the 65,535 packet identifiers, so that a tag says whose it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tags {
    /// 1 to 32,767: sessions.
    #[default]
    Low,
    /// 32,768 to 65,535: registrations.
    High,
}

impl Tags {
    const HIGH_FIRST: u16 = 0x8000;

    pub fn of(tag: Tag) -> Self {
        if tag.get() < Self::HIGH_FIRST { Self::Low } else { Self::High }
    }

    fn first(self) -> u16 {
        match self {
            Self::Low => 1,
            Self::High => Self::HIGH_FIRST,
        }
    }

    fn count(self) -> usize {
        match self {
            Self::Low => usize::from(Self::HIGH_FIRST - 1),
            Self::High => usize::from(u16::MAX - Self::HIGH_FIRST) + 1,
        }
    }

    fn tag_at(self, index: usize) -> Tag {
        let offset = u16::try_from(index).expect("a window has at most 32,768 slots");
        Tag::new(self.first() + offset).expect("0 is in no range")
    }

    /// `None` for a tag of the other range.
    fn index_of(self, tag: Tag) -> Option<usize> {
        (Self::of(tag) == self).then(|| usize::from(tag.get() - self.first()))
    }
}

/// Deliveries in flight, by tag.
#[derive(Debug, Default)]
pub(crate) struct Window {
    tags: Tags,
    slots: Vec<Option<Slot>>,
    free: VecDeque<u16>,
    /// Not a usize: with it a session would be larger.
    used: u32,
    /// Some may be restored, and not sent again yet.
    has_restored: bool,
    next_order: u64,
}

/// Tags are used in turn among at least this many, so that a late duplicate acknowledgement hits nothing.
const TAGS_MIN: usize = 16;

impl Window {
    pub fn len(&self) -> usize {
        self.used as usize
    }

    /// Puts `entry` in flight under a tag that was free; gives it back if all are taken.
    pub fn insert(&mut self, entry: Entry, state: State) -> Result<Tag, Box<Entry>> {
        let index = if self.slots.len() < TAGS_MIN || self.free.is_empty() {
            if self.slots.len() >= self.tags.count() {
                return Err(Box::new(entry));
            }
            self.slots.push(None);
            self.slots.len() - 1
        } else {
            usize::from(self.free.pop_front().expect("not empty"))
        };
        let order = self.next_order();
        let slot = Slot::new(entry.sequence, entry.qos, state, Some(entry));
        self.slots[index] = Some(Slot { order, ..slot });
        self.used += 1;
        Ok(self.tags.tag_at(index))
    }

    fn next_order(&mut self) -> u64 {
        self.next_order += 1;
        self.next_order
    }

    /// Recovery: puts a delivery back under the tag that the log remembers.
    pub fn restore(&mut self, tag: Tag, slot: Slot) {
        let index = self.tags.index_of(tag).expect("the log names tags of the queue's own range");
        while self.slots.len() <= index {
            self.free.push_back(u16::try_from(self.slots.len()).expect("a tag has 16 bits"));
            self.slots.push(None);
        }
        self.free.retain(|&free| usize::from(free) != index);
        let order = self.next_order();
        self.has_restored |= slot.restored;
        if self.slots[index].is_none() {
            self.used += 1;
        }
        self.slots[index] = Some(Slot { order, ..slot });
    }

    /// A restored delivery is sent again: from now on its place is behind those that were sent in this run.
    pub fn note_place(&mut self, tag: Tag) {
        let order = self.next_order();
        if let Some(slot) = self.get_mut(tag) {
            slot.order = order;
        }
    }

    pub fn get(&self, tag: Tag) -> Option<&Slot> {
        self.slots.get(self.tags.index_of(tag)?)?.as_ref()
    }

    pub fn get_mut(&mut self, tag: Tag) -> Option<&mut Slot> {
        self.slots.get_mut(self.tags.index_of(tag)?)?.as_mut()
    }

    pub fn remove(&mut self, tag: Tag) -> Option<Slot> {
        let slot = self.take(tag)?;
        self.free(tag);
        Some(slot)
    }

    /// Takes a delivery out whose tag is not free yet.
    fn take(&mut self, tag: Tag) -> Option<Slot> {
        let slot = self.slots.get_mut(self.tags.index_of(tag)?)?.take()?;
        self.used -= 1;
        Some(slot)
    }

    fn free(&mut self, tag: Tag) {
        let index = self.tags.index_of(tag).expect("a tag that was given");
        self.free.push_back(u16::try_from(index).expect("a tag has 16 bits"));
    }

    /// Whether all tags are taken.
    pub fn is_exhausted(&self) -> bool {
        self.free.is_empty() && self.slots.len() >= self.tags.count()
    }

    /// The connection is over: nobody answers any more what was given up. At QoS 2 the release is left.
    fn forget_dead(&mut self) {
        for (place, slot) in self.slots.iter_mut().enumerate() {
            if slot.take_if(|slot| slot.is_dead() && slot.qos == Qos::AtLeastOnce).is_some() {
                self.free.push_back(u16::try_from(place).expect("a tag has 16 bits"));
                self.used -= 1;
            }
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (Tag, &Slot)> {
        let tags = self.tags;
        self.slots.iter().enumerate().filter_map(move |(index, slot)| Some((tags.tag_at(index), slot.as_ref()?)))
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Tag, &mut Slot)> {
        let tags = self.tags;
        self.slots.iter_mut().enumerate().filter_map(move |(index, slot)| Some((tags.tag_at(index), slot.as_mut()?)))
    }

    /// Tags in the order in which their deliveries were sent first. While some are restored it is that of the log: recovery puts
    /// QoS 2 back before older QoS 1 comes in, and until these are sent again all goes in that order.
    pub fn in_order(&self) -> VecDeque<Tag> {
        let by_log = self.iter().any(|(_, slot)| slot.restored && slot.state == State::Waiting);
        let place = |slot: &Slot| (if by_log { slot.sequence } else { Sequence(0) }, slot.order);
        let mut tags: Vec<_> = self.iter().map(|(tag, slot)| (place(slot), tag)).collect();
        tags.sort_unstable();
        tags.into_iter().map(|(_, tag)| tag).collect()
    }

    /// Gives memory back when nothing is in flight.
    pub fn shrink(&mut self) {
        if self.used == 0 && self.slots.capacity() > TAGS_MIN {
            self.slots = Vec::new();
            self.free = VecDeque::new();
        }
    }
}

/// What waits in the old generation.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// Everything up to and with this one has been read or is settled.
    pub after: Sequence,
    /// Nothing stored is newer.
    pub until: Sequence,
    /// A `ReadBacklog` is under way.
    pub reading: bool,
    /// The store has given all: what is in `portion` is the rest.
    pub ended: bool,
    pub portion: Waiting,
    /// More was stored while a read was under way: its `end` is not the end.
    pub extended: bool,
    /// How many are believed to be stored and unread.
    pub unread: usize,
    /// Their bytes.
    pub unread_bytes: usize,
    /// When the oldest of them was published, or a newer one that is not read yet; `None`: before the start of the server.
    pub oldest_at: Option<WallMillis>,
    /// Of those that are stored and unread, so many are believed to be over (see `full_sync`); they are not counted above.
    pub overflown: usize,
    /// The oldest are being read to be dropped, to make room.
    pub trimming: bool,
    /// Recovery: of each priority, by its number, so many of the next may have been sent before.
    pub maybe_sent: [usize; Priority::ALL.len()],
    /// Settled after they were stored and before they were read: not to be delivered.
    pub skip: AHashSet<Sequence>,
    /// Those of high priority that are neither read nor settled: they are read out of turn.
    pub high: BTreeSet<Sequence>,
    /// What is being read is the first of these; up to this one they were known when that was asked for.
    pub out_of_turn: Option<Sequence>,
    /// Not to be delivered, nor counted, when their turn comes: they were read out of turn, went from memory before older ones, or
    /// were collapsed. With the retirement by which the old generation will know at the earliest that they are over.
    pub passed: AHashMap<Sequence, u32>,
}

/// `passed` holds one that is not over.
pub(crate) const NOT_OVER: u32 = u32::MAX;

/// Low ones that were read while others are still stored, in number and bytes: with more the next of them goes.
const LOW_READ_MAX: usize = 512;
const LOW_READ_BYTES_MAX: usize = 256 << 10;
/// High ones that are read to find one of a lower priority that makes room.
const HIGH_READ_FOR_ROOM: usize = 64;

/// Where the delivery stands that goes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Portion(Priority),
    Young(Priority),
}

impl Queue {
    /// When the oldest of what waits was published; `Some(None)`: before the start of the server. Of what is stored it is known of
    /// the first one, and of what has been read of it last.
    pub fn oldest_waiting(&self) -> Option<Option<WallMillis>> {
        let published = |entry: &Entry| Some(entry.message.id.published_at());
        let backlog = self.backlog.as_deref();
        let stored = backlog.filter(|backlog| backlog.unread > 0).map(|backlog| backlog.oldest_at);
        let read = backlog.and_then(|backlog| backlog.portion.oldest()).map(published);
        self.young.oldest().map(published).into_iter().chain(stored).chain(read).min()
    }
}

impl Backlog {
    /// Whether another portion may be read, where it may have so many deliveries.
    pub fn takes_portion(&self, messages_max: usize) -> bool {
        let low = self.portion.len_of(Priority::Low);
        (self.portion.len() - low) * 2 <= messages_max && !self.has_many_low()
    }

    /// Whether so many low ones have been read that the next of them goes.
    fn has_many_low(&self) -> bool {
        self.portion.len_of(Priority::Low) >= LOW_READ_MAX || self.portion.low_bytes() >= LOW_READ_BYTES_MAX
    }

    /// A stored delivery of this size is over that nobody reads in its turn; `None`: of a size that is not known.
    pub fn one_less(&mut self, size: Option<usize>) {
        let size = size.unwrap_or(self.unread_bytes / self.unread.max(1));
        self.unread = self.unread.saturating_sub(1);
        self.unread_bytes = if self.unread == 0 { 0 } else { self.unread_bytes.saturating_sub(size) };
    }
}

/// A queue.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    pub window: Window,
    /// Tags to be sent again on this connection, in order.
    pub resend: VecDeque<Tag>,
    pub young: Waiting,
    pub backlog: Option<Box<Backlog>>,
    /// Pending bytes in memory.
    pub bytes: usize,
    /// What is known of few deliveries: most queues have only the pointer.
    rare: Option<Box<Rare>>,
}

#[derive(Debug, Default)]
struct Rare {
    /// Of deliveries that were sent more than once. They are, or were before a crash, in the window.
    resent: BTreeMap<Sequence, Attempts>,
    /// Tags whose deliveries are over, with the packets under them that the receiver has not answered.
    unanswered: BTreeMap<Tag, u8>,
    /// The newest delivery of each collapse key that was not sent, with its size.
    collapsible: AHashMap<ByteString, (Sequence, usize)>,
    /// Stored deliveries that ended while older ones, of a lower priority, waited in memory; with the retirement by which the old
    /// generation will know at the earliest. A read for those older ones may still find them.
    ahead: BTreeMap<Sequence, u32>,
    /// The message into which the queue has overflowed, until it is over.
    full_sync: Option<FullSync>,
}

impl Rare {
    fn is_empty(&self) -> bool {
        self.resent.is_empty()
            && self.unanswered.is_empty()
            && self.collapsible.is_empty()
            && self.ahead.is_empty()
            && self.full_sync.is_none()
    }
}

/// What ended ahead of others is looked through for what is forgotten whenever there is so much of it.
const AHEAD_LOOKED_THROUGH: usize = 64;

/// How often a delivery was sent, and when for the first and the last time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attempts {
    pub count: u32,
    pub first: WallMillis,
    pub last: WallMillis,
}

impl Queue {
    /// An empty one whose deliveries go out under these tags.
    pub fn with_tags(tags: Tags) -> Self {
        Self { window: Window { tags, ..Window::default() }, ..Self::default() }
    }

    /// The delivery under this tag is over on its connection, which lives. Its tag is free as soon as nothing is unanswered.
    pub fn leave(&mut self, tag: Tag) -> Option<Slot> {
        let unanswered = self.window.get(tag)?.unanswered;
        if unanswered == 0 {
            return self.window.remove(tag);
        }
        self.rare.get_or_insert_default().unanswered.insert(tag, unanswered);
        self.window.take(tag)
    }

    /// The receiver has answered a packet whose delivery is over; whether it was due to.
    pub fn answer_late(&mut self, tag: Tag) -> bool {
        let Some(unanswered) = self.rare.as_mut().and_then(|rare| rare.unanswered.get_mut(&tag)) else {
            return false;
        };
        *unanswered = one_answered(*unanswered);
        if *unanswered == 0 {
            self.free_unanswered(|other| other == tag);
        }
        true
    }

    /// One more packet has left under a tag whose delivery is over.
    pub fn ask_late(&mut self, tag: Tag) {
        if let Some(unanswered) = self.rare.as_mut().and_then(|rare| rare.unanswered.get_mut(&tag)) {
            *unanswered = unanswered.saturating_add(1);
        }
    }

    fn free_unanswered(&mut self, which: impl Fn(Tag) -> bool) {
        let Some(rare) = &mut self.rare else { return };
        let window = &mut self.window;
        rare.unanswered.retain(|tag, _| {
            let is_free = which(*tag);
            if is_free {
                window.free(*tag);
            }
            !is_free
        });
        self.drop_rare();
    }

    pub fn set_attempts(&mut self, sequence: Sequence, attempts: Attempts) {
        self.rare.get_or_insert_default().resent.insert(sequence, attempts);
    }

    /// For its letter: one that was sent once has no attempts on record.
    pub fn note_sends(&mut self, sequence: Sequence, first: WallMillis) {
        if first > WallMillis(0) && self.attempts_at(sequence).is_none() {
            self.set_attempts(sequence, Attempts { count: 1, first, last: first });
        }
    }

    /// The delivery is over.
    pub fn forget_attempts(&mut self, sequence: Sequence) {
        if let Some(rare) = &mut self.rare {
            rare.resent.remove(&sequence);
            self.drop_rare();
        }
    }

    fn drop_rare(&mut self) {
        self.rare.take_if(|rare| rare.is_empty());
    }

    /// How often a delivery was sent, if it was more than once.
    pub fn attempts_at(&self, sequence: Sequence) -> Option<Attempts> {
        self.rare.as_ref()?.resent.get(&sequence).copied()
    }

    pub fn attempts(&self) -> impl Iterator<Item = (Sequence, Attempts)> {
        self.rare.iter().flat_map(|rare| rare.resent.iter().map(|(sequence, attempts)| (*sequence, *attempts)))
    }

    #[inline]
    pub fn full_sync(&self) -> Option<&FullSync> {
        self.rare.as_ref()?.full_sync.as_ref()
    }

    #[inline]
    pub fn full_sync_mut(&mut self) -> Option<&mut FullSync> {
        self.rare.as_mut()?.full_sync.as_mut()
    }

    pub fn set_full_sync(&mut self, sync: Option<FullSync>) {
        self.rare.get_or_insert_default().full_sync = sync;
        self.drop_rare();
    }

    /// A stored delivery has ended, with this retirement under way or done; the batch of `stored` is stored.
    pub fn note_stored_end(&mut self, sequence: Sequence, retirement: u32, stored: u32) {
        let until = self.backlog.as_ref().map(|backlog| backlog.until);
        match &mut self.backlog {
            Some(backlog) if sequence <= backlog.until => {
                if let Some(passed) = backlog.passed.get_mut(&sequence) {
                    *passed = retirement;
                } else if sequence > backlog.after {
                    backlog.skip.insert(sequence);
                }
            }
            _ if until.is_some() || self.young.oldest().is_some_and(|oldest| oldest.sequence < sequence) => {
                let ahead = &mut self.rare.get_or_insert_default().ahead;
                if ahead.len().is_multiple_of(AHEAD_LOOKED_THROUGH) {
                    ahead.retain(|_, retirement| *retirement >= stored);
                }
                ahead.insert(sequence, retirement);
            }
            _ => {}
        }
    }

    /// Those in memory that are older become backlog: what went before them, and the old generation may still hold, is not to be
    /// found by that.
    pub fn pass_what_went_before(&mut self, stored: u32) {
        let Some(backlog) = &mut self.backlog else { return };
        let after = backlog.after;
        let in_flight =
            self.window.iter().filter(|(_, slot)| slot.stored && slot.entry.is_some() && slot.sequence > after);
        for (_, slot) in in_flight {
            backlog.passed.entry(slot.sequence).or_insert(NOT_OVER);
        }
        if !backlog.reading {
            backlog.passed.retain(|_, retirement| *retirement >= stored);
        }
        if let Some(rare) = &mut self.rare {
            let ahead = std::mem::take(&mut rare.ahead).into_iter();
            backlog.passed.extend(ahead.filter(|(_, retirement)| *retirement >= stored));
        }
        self.drop_rare();
    }

    /// The delivery of this key that waits to be sent, and its size.
    pub fn collapsible(&self, key: &ByteString) -> Option<(Sequence, usize)> {
        self.rare.as_ref()?.collapsible.get(key).copied()
    }

    /// Those of all keys.
    pub fn all_collapsible(&self) -> impl Iterator<Item = (&ByteString, (Sequence, usize))> {
        self.rare.iter().flat_map(|rare| rare.collapsible.iter().map(|(key, newest)| (key, *newest)))
    }

    /// This one waits to be sent, and is the newest of its key.
    pub fn set_collapsible(&mut self, key: ByteString, sequence: Sequence, size: usize) {
        self.rare.get_or_insert_default().collapsible.insert(key, (sequence, size));
    }

    /// This one waits no more.
    pub fn forget_collapsible(&mut self, sequence: Sequence, key: &ByteString) {
        if let Some(rare) = &mut self.rare
            && rare.collapsible.get(key).is_some_and(|(newest, _)| *newest == sequence)
        {
            rare.collapsible.remove(key);
            self.drop_rare();
        }
    }

    /// Those that fit do not wait under their keys any more.
    pub fn retain_collapsible(&mut self, waits: impl Fn(Sequence) -> bool) {
        if let Some(rare) = &mut self.rare {
            rare.collapsible.retain(|_, (newest, _)| waits(*newest));
            self.drop_rare();
        }
    }

    /// Pending deliveries, in flight or waiting.
    pub fn messages(&self) -> usize {
        let backlog = self.backlog.as_ref().map_or(0, |b| b.unread + b.portion.len());
        self.window.len() + self.young.len() + backlog
    }

    /// Bytes of the pending deliveries, in memory and stored.
    pub fn bytes_pending(&self) -> usize {
        self.bytes + self.backlog.as_ref().map_or(0, |backlog| backlog.unread_bytes)
    }

    /// Whether one more of this size is too much.
    pub fn is_full(&self, size: usize, config: &Config) -> bool {
        self.is_full_behind(0, size, None, config)
    }

    /// As `is_full`, when `more` of the same size are about to come before it. What is replaced by one of this collapse key makes
    /// room.
    #[inline]
    pub fn is_full_behind(&self, more: usize, size: usize, key: Option<&ByteString>, config: &Config) -> bool {
        let is_full = self.messages() + more >= config.limits.queue_messages_max
            || self.bytes_pending() + size * (more + 1) > config.limits.queue_bytes_max;
        is_full && !self.has_room_of(key, more, size, config)
    }

    /// Whether there is room once the delivery of this key is gone that one of this size replaces. It is asked by those that are full
    /// with it.
    #[cold]
    fn has_room_of(&self, key: Option<&ByteString>, more: usize, size: usize, config: &Config) -> bool {
        let Some((_, bytes)) = key.and_then(|key| self.collapsible(key)) else { return false };
        (self.messages() + more).saturating_sub(1) < config.limits.queue_messages_max
            && (self.bytes_pending() + size * (more + 1)).saturating_sub(bytes) <= config.limits.queue_bytes_max
    }

    pub fn push(&mut self, entry: Entry) {
        self.bytes += entry.size();
        self.young.push(entry);
    }

    /// Whether nothing waits to be sent, in memory or stored.
    pub fn is_empty(&self) -> bool {
        self.young.is_empty() && self.backlog.is_none() && self.resend.is_empty()
    }

    /// Whether something older than `sequence` has not been sent.
    pub fn has_older(&self, sequence: Sequence) -> bool {
        let unread = self.backlog.as_ref().is_some_and(|backlog| !backlog.ended && backlog.after < sequence);
        unread || self.oldest_in_memory().is_some_and(|oldest| oldest < sequence)
    }

    fn oldest_in_memory(&self) -> Option<Sequence> {
        let read = self.backlog.as_ref().and_then(|backlog| backlog.portion.oldest());
        read.or_else(|| self.young.oldest()).map(|entry| entry.sequence)
    }

    /// Whether something of a former run is to be sent again: until then all goes in the order of the log.
    pub fn is_restoring(&self) -> bool {
        let restored = |tag: &Tag| self.window.get(*tag).is_some_and(|slot| slot.restored);
        self.window.has_restored && self.resend.iter().any(restored)
    }

    fn oldest_place(&self) -> Option<Place> {
        let Some(backlog) = &self.backlog else {
            return self.young.oldest().map(|entry| Place::Young(entry.priority()));
        };
        let read = backlog.portion.oldest().map(|entry| Place::Portion(entry.priority()));
        let young = || self.young.oldest().filter(|_| backlog.ended).map(|entry| Place::Young(entry.priority()));
        read.or_else(young)
    }

    #[inline]
    fn next_place(&self) -> Option<Place> {
        if !self.resend.is_empty() && self.is_restoring() {
            return self.oldest_place();
        }
        match &self.backlog {
            None => self.young.first().map(Place::Young),
            Some(backlog) => self.next_place_of(backlog),
        }
    }

    fn next_place_of(&self, backlog: &Backlog) -> Option<Place> {
        let Backlog { portion, high, ended, .. } = backlog;
        let (first, first_young) = (portion.first(), self.young.first());
        match (first, first_young) {
            (Some(Priority::High), _) => Some(Place::Portion(Priority::High)),
            _ if !high.is_empty() => None, // the next of these is read
            (_, Some(Priority::High)) => Some(Place::Young(Priority::High)),
            (Some(Priority::Normal), _) => Some(Place::Portion(Priority::Normal)),
            (first, _) if !ended => first.filter(|_| backlog.has_many_low()).map(Place::Portion),
            (_, Some(Priority::Normal)) => Some(Place::Young(Priority::Normal)),
            (Some(priority), _) => Some(Place::Portion(priority)),
            (None, young) => young.map(Place::Young),
        }
    }

    /// The next delivery that has not been sent, if it is in memory.
    #[inline]
    pub fn next(&self) -> Option<&Entry> {
        Some(self.next_with_place()?.0)
    }

    /// The same, and how to take it: [`Queue::pop_at`].
    #[inline]
    pub fn next_with_place(&self) -> Option<(&Entry, Place)> {
        let place = self.next_place()?;
        let entry = match place {
            Place::Young(priority) => self.young.front(priority),
            Place::Portion(priority) => self.backlog.as_ref()?.portion.front(priority),
        };
        Some((entry?, place))
    }

    /// How soon the next one in memory is to be sent, again or for the first time: of two queues the one with the lower
    /// comes first.
    pub fn front_rank(&self) -> Option<(Reverse<Priority>, Sequence)> {
        let again = self.resend.front().and_then(|tag| self.window.get(*tag));
        let again = again.map(|slot| (Reverse(Priority::High), slot.sequence));
        let next = self.next().map(|entry| (Reverse(entry.priority()), entry.sequence));
        again.into_iter().chain(next).min()
    }

    pub fn pop(&mut self) -> Option<Entry> {
        let place = self.next_place()?;
        self.pop_at(place)
    }

    /// Takes the first one of that place.
    #[inline]
    pub fn pop_at(&mut self, place: Place) -> Option<Entry> {
        let entry = match place {
            Place::Young(priority) => self.young.pop(priority),
            Place::Portion(priority) => {
                let backlog = self.backlog.as_mut()?;
                let entry = backlog.portion.pop(priority);
                self.backlog.take_if(|backlog| backlog.ended && backlog.portion.is_empty());
                entry
            }
        };
        if self.rare.is_some()
            && let Some(entry) = &entry
            && let Some(key) = entry.collapse_key()
        {
            self.forget_collapsible(entry.sequence, key);
        }
        entry
    }

    /// Takes the oldest one out of those of the lowest priority, to make room. `None`: it would have to be read.
    pub fn pop_for_room(&mut self) -> Option<Entry> {
        for priority in Priority::ALL {
            if let Some(backlog) = &self.backlog {
                if backlog.portion.front(priority).is_some() {
                    return self.pop_at(Place::Portion(priority));
                }
                let is_unread = match priority {
                    Priority::Low => false, // unknown
                    Priority::Normal => {
                        let looked = backlog.portion.len_of(Priority::High);
                        !backlog.ended && backlog.unread > backlog.high.len() && looked < HIGH_READ_FOR_ROOM
                    }
                    Priority::High => !backlog.high.is_empty(),
                };
                if is_unread {
                    return None;
                }
            }
            if self.young.front(priority).is_some() {
                return self.pop_at(Place::Young(priority));
            }
        }
        None
    }

    /// The one of this key that waits in memory, wherever it stands.
    pub fn find_waiting(&self, sequence: Sequence, key: &ByteString) -> Option<&Entry> {
        let fits = |entry: &Entry| entry.collapse_key() == Some(key);
        let read = self.backlog.as_ref().and_then(|backlog| backlog.portion.find(sequence, fits));
        read.or_else(|| self.young.find(sequence, fits))
    }

    /// Takes it out.
    pub fn take_waiting(&mut self, sequence: Sequence, key: &ByteString) -> Option<Entry> {
        self.take_that(sequence, |entry| entry.collapse_key() == Some(key))
    }

    /// The same, of a queue in which each has a sequence of its own.
    pub fn take_sequence(&mut self, sequence: Sequence) -> Option<Entry> {
        self.take_that(sequence, |_| true)
    }

    /// The same, if it is one that fits.
    pub fn take_sequence_if(&mut self, sequence: Sequence, fits: impl Fn(&Entry) -> bool) -> Option<Entry> {
        self.take_that(sequence, fits)
    }

    fn take_that(&mut self, sequence: Sequence, fits: impl Fn(&Entry) -> bool) -> Option<Entry> {
        let fits = &fits;
        let read = self.backlog.as_mut().and_then(|backlog| backlog.portion.take_that(sequence, fits));
        let entry = read.or_else(|| self.young.take_that(sequence, fits))?;
        self.backlog.take_if(|backlog| backlog.ended && backlog.portion.is_empty());
        self.bytes -= entry.size().min(self.bytes);
        if let Some(key) = entry.collapse_key() {
            self.forget_collapsible(sequence, key);
        }
        Some(entry)
    }

    /// Puts the one that was taken last back.
    pub fn unpop(&mut self, entry: Entry) {
        if let Some(key) = entry.collapse_key() {
            self.set_collapsible(key.clone(), entry.sequence, entry.size());
        }
        match &mut self.backlog {
            Some(backlog) if entry.sequence <= backlog.until => backlog.portion.unpop(entry),
            _ => self.young.unpop(entry),
        }
    }

    /// The connection is over: what was sent is to be sent again, with DUP `[MQTT-3.3.1-1]`.
    pub fn detach(&mut self, now: MonoMillis) {
        self.resend.clear();
        self.window.forget_dead();
        self.free_unanswered(|_| true);
        for (_, slot) in self.window.iter_mut() {
            (slot.counts, slot.unanswered) = (false, 0);
            if slot.state == State::Sent {
                slot.waited = slot.age(now);
            }
            slot.state = match slot.state {
                State::Held | State::Waiting => State::Waiting,
                State::Sent if slot.is_dead() => State::Released,
                State::Sent => {
                    if let Some(entry) = &mut slot.entry {
                        entry.dup = true;
                    }
                    State::Waiting
                }
                State::ReleaseHeld | State::Released => State::Released,
            };
        }
        self.window.shrink();
    }

    /// What the receiver has (QoS 2, PUBREC) and has not completed.
    pub fn received(&self) -> Vec<Tag> {
        self.window.iter().filter(|(_, slot)| slot.is_received()).map(|(tag, _)| tag).collect()
    }

    /// A connection takes the queue up: what is in flight goes first, in its order `[MQTT-4.4.0-1]`.
    pub fn attach(&mut self) {
        self.resend = self.window.in_order();
        let has_restored = self.window.iter().any(|(_, slot)| slot.restored);
        self.window.has_restored = has_restored;
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An ordinary one.
    pub(crate) fn entry(sequence: u64) -> Entry {
        let message = Message {
            id: base::MessageId(u128::from(sequence)),
            topic: base::TopicName::new("t").unwrap(),
            payload: Default::default(),
            properties: Default::default(),
            qos: Qos::AtLeastOnce,
            retain: false,
            expires_at: None,
            publisher: base::QueueId::NONE,
            extras: None,
        };
        Entry {
            sequence: Sequence(sequence),
            message: Arc::new(message),
            identifiers: SmallVec::new(),
            qos: Qos::AtLeastOnce,
            retain: false,
            dup: false,
            stored: false,
            group: None,
        }
    }

    #[test]
    fn a_freed_tag_is_used_again_as_late_as_possible() {
        let mut window = Window::default();
        let mut tags = Vec::new();
        for n in 0..40 {
            let tag = window.insert(entry(n), State::Sent).unwrap();
            tags.push(tag.get());
            window.remove(tag);
        }
        assert_eq!(tags[..16], (1..=16).collect::<Vec<_>>());
        assert_eq!(tags[16..32], (1..=16).collect::<Vec<_>>());
    }

    /// [MQTT-2.2.1-4], [MQTT-4.3.3-1] Whatever is inserted and removed: no tag twice at once, never more than there are, order kept.
    #[test]
    fn all_tags_can_be_taken_and_no_more() {
        let mut window = Window::default();
        let mut seen = ahash::AHashSet::new();
        for n in 0..32_767 {
            assert!(seen.insert(window.insert(entry(n), State::Sent).unwrap()));
        }
        assert_eq!(window.insert(entry(32_767), State::Sent).unwrap_err().sequence, Sequence(32_767));
        let tag = Tag::new(777).unwrap();
        assert_eq!(window.remove(tag).map(|slot| slot.sequence), Some(Sequence(776)));
        assert!(window.get_mut(tag).is_none());
        assert_eq!(window.insert(entry(70_000), State::Sent).unwrap(), tag);
        assert_eq!(window.in_order().back(), Some(&tag));
    }

    /// Between them the two ranges are all 65,535 packet identifiers.
    #[test]
    fn a_registration_has_the_upper_half_of_the_tags() {
        let mut window = Queue::with_tags(Tags::High).window;
        let tags: Vec<u16> = (0..32_768).map(|n| window.insert(entry(n), State::Sent).unwrap().get()).collect();
        assert_eq!((tags[0], tags[32_767]), (32_768, 65_535));
        assert!(window.insert(entry(0), State::Sent).is_err());
        assert!(window.get(Tag::new(1).unwrap()).is_none(), "a session's tag");
        let tag = Tag::new(40_000).unwrap();
        assert_eq!(window.remove(tag).map(|slot| slot.sequence), Some(Sequence(7_232)));
        assert_eq!(window.insert(entry(9), State::Sent).unwrap(), tag);
    }

    #[test]
    fn a_restored_tag_is_taken() {
        let mut window = Window::default();
        let tag = Tag::new(3).unwrap();
        let slot = Slot::new(Sequence(7), Qos::ExactlyOnce, State::Waiting, None);
        window.restore(tag, slot);
        let others: Vec<u16> = (0..20).map(|n| window.insert(entry(n), State::Sent).unwrap().get()).collect();
        assert!(!others.contains(&3), "{others:?}");
        assert_eq!(window.len(), 21);
    }
}
