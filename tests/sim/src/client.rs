//! Clients as the specification wants them: they keep their half of the session across connections.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU32;

use base::{
    ConnectionId, Extras, Message, MessageId, Qos, QueueId, ReasonCode, SubscriptionOptions, Tag, TopicFilter,
    TopicName,
};
use postroad_base as base;
use postroad_broker::api::{Delivery, Effect, Event, Inbound, Subscribe};

use crate::letters::{REFUSAL, Refused};
use crate::oracle::{Name, Oracle, PUSH_TOPIC, SHARED_TOPIC};
use crate::plugins::{RAW, echo_of};
use crate::world::client_of_subscriber;

/// What both kinds of client have.
#[derive(Debug, Default)]
pub struct Link {
    /// The connection, if there is one.
    pub connection: Option<ConnectionId>,
    /// CONNACK has come.
    pub open: bool,
    /// CONNACK came on some connection: the session must be there from now on.
    pub known: bool,
    pub to_server: VecDeque<Event>,
    pub from_server: VecDeque<Effect>,
    /// The server reads nothing.
    pub parked: bool,
}

impl Link {
    /// The connection is gone, with all that was under way on it.
    pub fn cut(&mut self) {
        let known = self.known;
        *self = Self { known, ..Self::default() };
    }

    fn opened(&mut self, session_present: bool) -> Result<(), String> {
        if self.known && !session_present {
            return Err("a session that outlives its connection is gone".into());
        }
        (self.known, self.open) = (true, true);
        Ok(())
    }
}

/// Publishes numbered messages, and repeats what is not answered after a reconnect.
#[derive(Debug, Default)]
pub struct Publisher {
    pub link: Link,
    /// Sent, not answered, in order: tag, name.
    unanswered: VecDeque<(Tag, Name)>,
    /// QoS 2: PUBREC came, PUBCOMP has not.
    unreleased: VecDeque<Tag>,
    numbers: BTreeMap<(usize, u8), usize>,
    /// Its messages have priorities and collapse keys.
    wishes: bool,
    /// It publishes to where plugins fetch it.
    raw: bool,
    tag_last: u16,
}

/// Publishes under way at once.
const WINDOW: usize = 8;

impl Publisher {
    /// One whose messages have priorities and collapse keys, or not.
    /// And for plugins to fetch, or not.
    pub fn new(wishes: bool, raw: bool) -> Self {
        Self { wishes, raw, ..Self::default() }
    }

    pub fn has_room(&self) -> bool {
        self.link.open && self.unanswered.len() + self.unreleased.len() < WINDOW
    }

    pub fn is_idle(&self) -> bool {
        self.unanswered.is_empty() && self.unreleased.is_empty()
    }

    /// Sends the next message to a topic.
    pub fn publish(&mut self, publisher: usize, topic: usize, qos: u8) -> Name {
        let number = self.numbers.entry((topic, qos)).or_default();
        *number += 1;
        let name = Name { publisher, topic, qos, number: *number };
        let tag = self.free_tag();
        self.unanswered.push_back((tag, name));
        self.send(tag, name, false);
        name
    }

    fn free_tag(&mut self) -> Tag {
        loop {
            self.tag_last = self.tag_last % 9 + 1;
            let tag = Tag::new(self.tag_last).expect("1 to 9");
            let taken = self.unanswered.iter().any(|(other, _)| *other == tag) || self.unreleased.contains(&tag);
            if !taken {
                return tag;
            }
        }
    }

    fn send(&mut self, tag: Tag, name: Name, dup: bool) {
        let Some(connection) = self.link.connection else { return };
        let message = Message {
            id: MessageId(0),
            topic: if self.raw { raw(&topic_name(name.topic)) } else { topic_name(name.topic) },
            payload: name.text().into(),
            properties: Default::default(),
            qos: Qos::from_number(name.qos).expect("1 or 2"),
            retain: false,
            expires_at: None,
            publisher: QueueId::NONE,
            extras: if self.wishes { Extras::of_wishes(name.wishes()) } else { None },
        };
        let message = Inbound { message: message.into(), tag: Some(tag), dup, flaw: None };
        self.link.to_server.push_back(Event::Publish { connection, message });
    }

    /// Takes the next thing that the server sent.
    pub fn take(&mut self, effect: Effect, oracle: &mut Oracle) -> Result<(), String> {
        match effect {
            Effect::Connected { session_present, .. } => {
                self.link.opened(session_present)?;
                for (tag, name) in self.unanswered.clone() {
                    self.send(tag, name, true);
                }
                for tag in self.unreleased.clone() {
                    self.release(tag);
                }
            }
            Effect::Published { tag, reason, .. } => self.answered(tag, reason, oracle)?,
            Effect::Completed { tag, .. } => self.unreleased.retain(|other| *other != tag),
            other => return Err(format!("a publisher got {other:?}")),
        }
        Ok(())
    }

    fn answered(&mut self, tag: Tag, reason: ReasonCode, oracle: &mut Oracle) -> Result<(), String> {
        if reason.is_error() {
            return Err(format!("publish refused: {reason:?}"));
        }
        let Some(place) = self.unanswered.iter().position(|(other, _)| *other == tag) else {
            return if self.unreleased.contains(&tag) {
                Ok(())
            } else {
                Err(format!("answer to {tag:?} out of the blue"))
            };
        };
        // [MQTT-4.6.0-2], [MQTT-4.6.0-3]
        if place != 0 {
            return Err(format!("answer to {tag:?} overtook {place} others"));
        }
        let Some((_, name)) = self.unanswered.pop_front() else { return Ok(()) };
        oracle.acknowledged(name);
        if self.raw {
            oracle.acknowledged(echo_of(name));
        }
        if name.qos == 2 {
            self.unreleased.push_back(tag);
            self.release(tag);
        }
        Ok(())
    }

    fn release(&mut self, tag: Tag) {
        if let Some(connection) = self.link.connection {
            self.link.to_server.push_back(Event::Release { connection, tag });
        }
    }
}

/// Subscribes, takes, acknowledges late.
#[derive(Debug, Default)]
pub struct Subscriber {
    pub link: Link,
    /// QoS 2: received, not released `[MQTT-4.3.3-10]`.
    received: BTreeSet<Tag>,
    /// What it was before a new session that is not committed yet: at a crash the old one is back.
    received_before: Option<BTreeSet<Tag>>,
    /// Acknowledgements that it has not sent yet.
    pub due: VecDeque<Event>,
    /// SUBSCRIBE and UNSUBSCRIBE under way: tag, topic, whether it subscribes.
    requests: VecDeque<(Tag, usize, bool)>,
    tag_last: u16,
    pub taken: usize,
    /// What it has refused on this connection and the server has not read yet.
    refusing: BTreeMap<Tag, Refused>,
    /// It asks for what it gets.
    pub pulls: bool,
    /// It has asked on this connection for more than there is.
    pub has_pulled_all: bool,
    /// Deliveries that it has asked for, ever, and those that came for the first time.
    pulled: usize,
    fresh: usize,
    pull_tag_last: u16,
}

/// A subscriber that takes something.
#[derive(Clone, Copy, Debug)]
pub struct At {
    pub number: usize,
    /// Where its session lives.
    pub shard: usize,
    /// It refuses what is delivered.
    pub refuses: bool,
}

impl Subscriber {
    /// Whether it has asked for more than there is, if it has to ask.
    pub fn has_what_it_wants(&self) -> bool {
        !self.pulls || self.has_pulled_all
    }

    pub fn is_changing(&self) -> bool {
        !self.requests.is_empty()
    }

    /// Changes its subscription to a topic, or to a share group of the shared one, named by the subscription identifier.
    pub fn request(&mut self, topic: usize, subscribe: bool) {
        let Some(connection) = self.link.connection else { return };
        self.tag_last = self.tag_last % 1000 + 1;
        let tag = Tag::new(self.tag_last).expect("1 to 1000");
        self.requests.push_back((tag, topic, subscribe));
        let group = topic.checked_sub(SHARED_TOPIC);
        let share = group.map_or(String::new(), |group| format!("$share/g{group}/"));
        let filter = TopicFilter::new(format!("{share}+/{}", topic.min(SHARED_TOPIC))).expect("a filter");
        let identifier = group.and_then(|group| NonZeroU32::new(group as u32 + 1));
        self.link.to_server.push_back(if subscribe {
            let options = SubscriptionOptions { qos: Qos::ExactlyOnce, identifier, ..SubscriptionOptions::default() };
            Event::Subscribe { connection, tag, filters: vec![Subscribe { filter: Ok(filter), options }] }
        } else {
            Event::Unsubscribe { connection, tag, filters: vec![Ok(filter)] }
        });
    }

    /// Asks for so many deliveries more, 0: for none any more.
    pub fn pull(&mut self, count: u16, qos: u8) {
        let Some(connection) = self.link.connection else { return };
        self.pulled += usize::from(count);
        self.pull_tag_last = self.pull_tag_last % 1000 + 1;
        let qos = Qos::from_number(qos).expect("0 to 2");
        let message = Message {
            id: MessageId(0),
            topic: TopicName::new(format!("$pull/{count}")).expect("a topic"),
            payload: Default::default(),
            properties: Default::default(),
            qos,
            retain: false,
            expires_at: None,
            publisher: QueueId::NONE,
            extras: None,
        };
        let tag = Tag::new(self.pull_tag_last).filter(|_| qos.is_acknowledged());
        let message = Inbound { message: message.into(), tag, dup: false, flaw: None };
        self.link.to_server.push_back(Event::Publish { connection, message });
    }

    /// It begins anew, without its half of the session.
    pub fn forget(&mut self) {
        self.received.clear();
        self.link.known = false;
    }

    /// The connection is gone: what was asked for may or may not have happened.
    pub fn cut(&mut self) {
        self.link.cut();
        self.requests.clear();
        self.due.clear();
        self.refusing.clear();
        self.has_pulled_all = false;
    }

    /// The server has begun a new session. (A client whose CONNACK is lost can't know; that is not what is judged here.)
    pub fn begin(&mut self) {
        let received = std::mem::take(&mut self.received);
        self.received_before.get_or_insert(received);
    }

    /// A new session is not committed yet.
    pub fn has_begun(&self) -> bool {
        self.received_before.is_some()
    }

    /// Its CONNACK has left: the new session stays.
    pub fn begun(&mut self) {
        self.received_before = None;
    }

    /// A session that was not committed is forgotten.
    pub fn crash(&mut self) {
        if let Some(before) = self.received_before.take() {
            self.received = before;
        }
    }

    /// What it refuses by this, if it does.
    pub fn refusal(&mut self, event: &Event) -> Option<Refused> {
        match event {
            Event::Acknowledge { tag, reason, .. } | Event::Receive { tag, reason, .. } if reason.is_error() => {
                self.refusing.remove(tag)
            }
            _ => None,
        }
    }

    pub fn take(&mut self, at: At, effect: Effect, oracle: &mut Oracle) -> Result<(), String> {
        let number = at.number;
        let connection = self.link.connection.ok_or("no connection")?;
        match effect {
            Effect::Connected { session_present, .. } => self.link.opened(session_present)?,
            Effect::Subscribed { tag, reasons, .. } => {
                let Some((expected, topic, true)) = self.requests.pop_front() else { return Err("SUBACK?".into()) };
                if expected != tag {
                    return Err(format!("SUBACK {tag:?} instead of {expected:?}"));
                }
                if !reasons[0].is_error() {
                    oracle.subscribed(number, topic);
                }
            }
            Effect::Unsubscribed { tag, .. } => {
                let Some((expected, topic, false)) = self.requests.pop_front() else { return Err("UNSUBACK?".into()) };
                if expected != tag {
                    return Err(format!("UNSUBACK {tag:?} instead of {expected:?}"));
                }
                oracle.unsubscribed(number, topic);
            }
            Effect::Deliver { delivery, .. } => self.deliver(at, connection, &delivery, oracle)?,
            Effect::ReleaseDelivery { tag, .. } => {
                self.received.remove(&tag);
                self.due.push_back(Event::Complete { connection, tag });
            }
            Effect::Published { tag, reason: ReasonCode::Success, .. } if self.pulls => {
                // Of QoS 1 the server knows no such tag, and says so.
                self.link.to_server.push_back(Event::Release { connection, tag });
            }
            Effect::Completed { .. } if self.pulls => {}
            other => return Err(format!("a subscriber got {other:?}")),
        }
        Ok(())
    }

    fn deliver(
        &mut self,
        at: At,
        connection: ConnectionId,
        delivery: &Delivery,
        oracle: &mut Oracle,
    ) -> Result<(), String> {
        let tag = delivery.tag.ok_or("a delivery without tag")?;
        self.taken += 1;
        self.fresh += usize::from(!delivery.dup);
        if self.pulls && self.fresh > self.pulled {
            return Err(format!("{} deliveries came, {} were asked for", self.fresh, self.pulled));
        }
        if let Some(dropped) = overflow_of(&delivery.message) {
            oracle.overflowed(at.number, delivery.message.id, dropped);
            self.due.push_back(Event::Acknowledge { connection, tag, reason: ReasonCode::Success });
            return Ok(());
        }
        let name = Name::parse(&delivery.message.payload).ok_or("strange payload")?;
        if delivery.qos == Qos::ExactlyOnce && self.received.contains(&tag) {
            // It has it, so it can't refuse it any more.
            self.due.push_back(Event::Receive { connection, tag, reason: ReasonCode::Success });
            return if delivery.dup {
                Ok(())
            } else {
                Err(format!("{tag:?} used again before its release, without DUP"))
            };
        }
        let refused = came(at, name, delivery, oracle)?;
        let reason = if refused.is_some() { REFUSAL } else { ReasonCode::Success };
        self.due.push_back(match delivery.qos {
            Qos::ExactlyOnce => Event::Receive { connection, tag, reason },
            _ => Event::Acknowledge { connection, tag, reason },
        });
        match refused {
            Some(refused) => drop(self.refusing.insert(tag, refused)),
            None if delivery.qos == Qos::ExactlyOnce => drop(self.received.insert(tag)),
            None => {}
        }
        Ok(())
    }
}

/// How many deliveries were dropped, if it tells of that.
pub fn overflow_of(message: &Message) -> Option<usize> {
    let text = std::str::from_utf8(&message.payload).ok().filter(|_| message.topic.as_str() == "$sync/overflow")?;
    text.strip_prefix("{\"dropped\":")?.split(',').next()?.parse().ok()
}

/// Something new, or something that may come again; what is refused of it. Share groups' messages are not refused: a letter
/// does not say by which group it came.
fn came(at: At, name: Name, delivery: &Delivery, oracle: &mut Oracle) -> Result<Option<Refused>, String> {
    let At { number, shard, refuses } = at;
    if name.topic == SHARED_TOPIC {
        return match delivery.identifiers[..] {
            [group] => oracle.received_by_group(group.get() as usize - 1, name).map(|()| None),
            _ => Err(format!("{name:?} came by no group")),
        };
    }
    let generation = delivery.message.requeues();
    let life = oracle.letters.came(shard, number, name, &delivery.message)?;
    if generation == 0 {
        oracle.came(number, name)?;
    }
    if refuses {
        return Ok(Some((life, generation)));
    }
    oracle.letters.accepted(life, generation);
    oracle.received(number, name).map(|()| None)
}

/// Where plugins fetch what is meant for a topic.
fn raw(topic: &TopicName) -> TopicName {
    TopicName::new(format!("{RAW}{topic}")).expect("a topic")
}

pub fn topic_name(topic: usize) -> TopicName {
    let name = match topic.checked_sub(PUSH_TOPIC) {
        None => format!("t/{topic}"),
        Some(subscriber) => format!("$client/{}/p", client_of_subscriber(subscriber)),
    };
    TopicName::new(name).expect("a topic")
}
