//! What was promised, held against what came.
//!
//! - Acknowledged to the publisher ⇒ every subscriber whose SUBACK came before the first sending gets it.
//! - QoS 2 at both ends: never twice.
//! - First arrivals of one publisher, topic and QoS at one subscriber are in the order of publishing, as
//!   far as it was subscribed when they were sent first.
//! - To a share group that somebody never leaves: some member gets it, at QoS 2 one and only one, whoever else comes, goes
//!   and ends. Not owed any more: QoS 2 when a member's session ends, for it may have had it `[MQTT-4.8.2-5]`; at a crash
//!   what a session in memory may have had.
//! - Pushed to a client: it gets it, subscribed or not, connected or not, clean start or not.
//! - Refused by a client: it is a dead letter, and nothing else (`letters`).
//! - Of one collapse key: whoever does not get a message gets none, or has a newer one coming; the newest one comes.
//! - Published under a key: under one id, however often it is repeated (`wisher`). Put off: not early, and once. No order is promised
//!   of these.
//! - Taken back before it was due: nobody gets it (`wisher`).
//! - Published for the first time after an UNSUBACK came ⇒ it does not come there.
//! - Dropped by an overflow into one message (`full_sync`): no more than those messages tell its client.
//! - A client that pulls: no more comes for the first time than it has asked for; all that is owed, if it asks for enough.

use std::collections::{BTreeMap, BTreeSet};

use postroad_base::{MessageId, Priority, Wishes};

use crate::letters::{Letters, LifeId};

/// The topic that is subscribed to by share groups only.
pub const SHARED_TOPIC: usize = 2;
/// Share groups of that topic. Subscriber 0 never leaves them.
pub const GROUPS: usize = 2;
/// What subscribers ask for: the topics, but instead of the shared one its groups.
pub const FILTERS: usize = SHARED_TOPIC + GROUPS;

/// From here on: what is pushed to the first subscriber, the second, …
pub const PUSH_TOPIC: usize = SHARED_TOPIC + 1;

/// The publisher of what has a key, or is put off.
pub const WISHER: usize = 100;

/// A message: publisher, topic, level, number. Its text is the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    pub publisher: usize,
    pub topic: usize,
    pub qos: u8,
    pub number: usize,
}

impl Name {
    pub fn text(self) -> String {
        format!("{}/{}/{}/{}", self.publisher, self.topic, self.qos, self.number)
    }

    /// A topic has one priority: what is promised of the order holds for it.
    pub fn wishes(self) -> Wishes {
        let priority = [Priority::Normal, Priority::High, Priority::Low][self.topic % 3];
        Wishes { priority, collapse_key: self.collapse_key().map(Into::into), ..Wishes::default() }
    }

    /// Two of three messages of some topics have one.
    fn collapse_key(self) -> Option<String> {
        let Self { publisher, topic, qos, number } = self;
        let has_key = topic != SHARED_TOPIC && (topic + usize::from(qos)) % 2 == 0 && number % 3 > 0;
        has_key.then(|| format!("{publisher}/{topic}/{qos}"))
    }

    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?.split('#').next()?; // a requeue may have added to it
        let numbers: Vec<usize> = text.split('/').map(str::parse).collect::<Result<_, _>>().ok()?;
        let [publisher, topic, qos, number] = numbers[..] else { return None };
        Some(Self { publisher, topic, qos: u8::try_from(qos).ok()?, number })
    }
}

/// State of one subscriber's subscription to one topic, as the subscriber knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subscribed {
    No,
    /// SUBSCRIBE or UNSUBSCRIBE is under way: nothing is promised, nothing forbidden.
    Maybe,
    Yes,
}

#[derive(Debug, Default)]
pub struct Oracle {
    /// Publishes are refused now and then: what comes behind overtakes them.
    pub overtaking: bool,
    subscribed: BTreeMap<(usize, usize), Subscribed>,
    /// Subscribers that must get a message if it is acknowledged.
    owed: BTreeMap<Name, BTreeSet<usize>>,
    /// Subscribers that must not get it.
    barred: BTreeMap<Name, BTreeSet<usize>>,
    /// Some member of the share group must get it.
    owed_to_group: BTreeSet<(usize, Name)>,
    /// How many members of the share group got it.
    received_by_group: BTreeMap<(usize, Name), usize>,
    acknowledged: BTreeSet<Name>,
    received: BTreeMap<(usize, Name), usize>,
    /// By subscriber and message: how many deliveries it says were dropped.
    dropped: BTreeMap<usize, BTreeMap<MessageId, usize>>,
    /// What came, be it refused.
    came: BTreeSet<(usize, Name)>,
    /// Publishers wish: messages have priorities and collapse keys.
    pub wishes: bool,
    /// The newest message of each collapse key that was sent.
    newest_of_key: BTreeMap<String, usize>,
    /// What became of each delivery that may be refused.
    pub letters: Letters,
    /// Highest number that came, by subscriber, publisher, topic, level.
    newest: BTreeMap<(usize, usize, usize, u8), usize>,
}

impl Oracle {
    pub fn published(&mut self, name: Name, subscribers: usize) {
        if let Some(key) = self.collapse_key(name) {
            self.newest_of_key.insert(key, name.number);
        }
        if name.topic == SHARED_TOPIC {
            let stays = |group: &usize| self.subscribed.get(&(0, SHARED_TOPIC + group)) == Some(&Subscribed::Yes);
            return self.owed_to_group.extend((0..GROUPS).filter(stays).map(|group| (group, name)));
        }
        if let Some(subscriber) = name.topic.checked_sub(PUSH_TOPIC) {
            self.owed.entry(name).or_default().insert(subscriber);
            return;
        }
        for subscriber in 0..subscribers {
            match self.subscribed.get(&(subscriber, name.topic)).copied().unwrap_or(Subscribed::No) {
                Subscribed::Yes => drop(self.owed.entry(name).or_default().insert(subscriber)),
                Subscribed::No => drop(self.barred.entry(name).or_default().insert(subscriber)),
                Subscribed::Maybe => {}
            }
        }
    }

    fn collapse_key(&self, name: Name) -> Option<String> {
        if self.wishes && name.publisher != WISHER { name.collapse_key() } else { None }
    }

    /// Whether a newer message may have come before it could be sent. Where publishes are refused, one that is sent again is newer
    /// than what came meanwhile.
    fn may_be_collapsed(&self, name: Name) -> bool {
        let newest = self.collapse_key(name).and_then(|key| self.newest_of_key.get(&key));
        newest.is_some_and(|newest| *newest > name.number || (self.overtaking && name.number > 1))
    }

    /// Whether whoever was to get it has to, by now.
    pub fn is_owed(&self, name: Name) -> bool {
        self.acknowledged.contains(&name) && !self.may_be_collapsed(name)
    }

    /// It was taken back, or may have been: nobody has to get it.
    pub fn cancelled(&mut self, name: Name) {
        self.owed.remove(&name);
        self.owed_to_group.retain(|(_, owed)| *owed != name);
    }

    pub fn acknowledged(&mut self, name: Name) {
        self.acknowledged.insert(name);
    }

    /// SUBSCRIBE was sent: what was forbidden may come, if it is published again. What was promised stays
    /// promised, if there was a subscription before.
    pub fn subscribing(&mut self, subscriber: usize, topic: usize) {
        let state = self.subscribed.entry((subscriber, topic)).or_insert(Subscribed::Maybe);
        if *state == Subscribed::No {
            *state = Subscribed::Maybe;
        }
        for (name, barred) in &mut self.barred {
            if name.topic == topic {
                barred.remove(&subscriber);
            }
        }
    }

    /// It may end the subscription before this is delivered: what is owed there is not owed any more.
    pub fn unsubscribing(&mut self, subscriber: usize, topic: usize) {
        self.subscribing(subscriber, topic);
        self.subscribed.insert((subscriber, topic), Subscribed::Maybe);
        for (name, owed) in &mut self.owed {
            if name.topic == topic {
                owed.remove(&subscriber);
            }
        }
    }

    pub fn subscribed(&mut self, subscriber: usize, topic: usize) {
        self.subscribed.insert((subscriber, topic), Subscribed::Yes);
    }

    pub fn unsubscribed(&mut self, subscriber: usize, topic: usize) {
        self.subscribed.insert((subscriber, topic), Subscribed::No);
    }

    /// By a share group's member.
    pub fn received_by_group(&mut self, group: usize, name: Name) -> Result<(), String> {
        let count = self.received_by_group.entry((group, name)).or_default();
        *count += 1;
        if name.qos == 2 && *count > 1 {
            return Err(format!("{name:?} came to group {group} twice"));
        }
        Ok(())
    }

    /// The session of a member of share groups has ended, or may have.
    pub fn member_ended(&mut self) {
        let came = &self.received_by_group;
        self.owed_to_group.retain(|owed| owed.1.qos < 2 || came.contains_key(owed));
    }

    /// Sessions in memory, members of share groups, are gone, and what they had: the log knows nothing of it, so a repeat of
    /// what was not acknowledged goes to others.
    pub fn memory_lost(&mut self) {
        let acknowledged = &self.acknowledged;
        self.received_by_group.retain(|(_, name), _| acknowledged.contains(name));
        let came = &self.received_by_group;
        self.owed_to_group.retain(|owed| came.contains_key(owed));
    }

    /// Its client takes it.
    pub fn received(&mut self, subscriber: usize, name: Name) -> Result<(), String> {
        let count = self.received.entry((subscriber, name)).or_default();
        *count += 1;
        if name.qos == 2 && *count > 1 {
            return Err(format!("subscriber {subscriber} got {name:?} twice"));
        }
        Ok(())
    }

    /// Its client is told that so many deliveries were dropped.
    pub fn overflowed(&mut self, subscriber: usize, id: MessageId, dropped: usize) {
        self.dropped.entry(subscriber).or_default().insert(id, dropped);
    }

    /// It comes, as it was published, and whether it is taken or refused.
    pub fn came(&mut self, subscriber: usize, name: Name) -> Result<(), String> {
        let is_first = self.came.insert((subscriber, name));
        if self.barred.get(&name).is_some_and(|barred| barred.contains(&subscriber)) {
            return Err(format!("subscriber {subscriber} got {name:?} after it had unsubscribed"));
        }
        if !self.owed.get(&name).is_some_and(|owed| owed.contains(&subscriber)) {
            return Ok(()); // subscribed later: it may get a repeat by the publisher, in whatever order
        }
        if name.publisher == WISHER {
            return Ok(());
        }
        let key = (subscriber, name.publisher, name.topic, name.qos);
        let newest = self.newest.entry(key).or_default();
        // One that was collapsed, and is repeated by its publisher, comes late.
        let is_keyed = self.wishes && name.collapse_key().is_some();
        if is_first && name.number < *newest && !self.overtaking && !is_keyed {
            return Err(format!("subscriber {subscriber} got {name:?} after number {newest}"));
        }
        *newest = name.number.max(*newest);
        Ok(())
    }

    /// Everything has come to rest, and these are all letters.
    pub fn settle_letters(&mut self, found: &BTreeSet<LifeId>) -> Result<(), String> {
        let mut letters = std::mem::take(&mut self.letters);
        // What its publisher repeats comes under another id, and replaces the first.
        let outcome = letters.settle(found, |(subscriber, _), name, is_repeated| {
            let has_come = self.received.contains_key(&(*subscriber, name));
            self.may_be_collapsed(name) || (self.collapse_key(name).is_some() && (is_repeated || has_come))
        });
        self.letters = letters;
        outcome
    }

    /// Everything has come to rest: nothing may be owed.
    pub fn settle(&self) -> Result<(), String> {
        let came = &self.received_by_group;
        let owed = self.owed_to_group.iter().filter(|(_, name)| self.acknowledged.contains(name));
        let missing: Vec<_> = owed.filter(|owed| !came.contains_key(owed)).collect();
        // Where queues overflow, one subscriber is the only member.
        let mut left: BTreeMap<usize, usize> = self.dropped.iter().map(|(s, told)| (*s, told.values().sum())).collect();
        let mut is_told_of = |subscriber: usize| match left.get_mut(&subscriber) {
            Some(left) if *left > 0 => {
                *left -= 1;
                true
            }
            _ => false,
        };
        if let Some((group, name)) = missing.into_iter().find(|_| !is_told_of(0)) {
            return Err(format!("{name:?} was acknowledged, no member of group {group} got it"));
        }
        for name in &self.acknowledged {
            for subscriber in self.owed.get(name).into_iter().flatten() {
                let has_come = self.received.contains_key(&(*subscriber, *name));
                let is_over = self.may_be_collapsed(*name) || self.letters.follows(*subscriber, *name);
                if !has_come && !is_over && !is_told_of(*subscriber) {
                    return Err(format!("{name:?} was acknowledged, subscriber {subscriber} never got it"));
                }
            }
        }
        Ok(())
    }
}
