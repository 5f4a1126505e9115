//! Publishers that repeat by key, and that put off what they publish. Two clients of one user: what one has not heard of the other
//! repeats, on whatever shard that lives. They forget their sessions: only the key says that it is a repeat. Somebody takes some of what
//! they put off back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base::{
    CancelAnswer, ConnectionId, Extras, KeyHolder, Message, MessageId, Qos, QueueId, ReasonCode, ScheduledMessage,
    ScheduledPage, ScheduledQuery, Tag, WallMillis, Wishes,
};
use postroad_base as base;
use postroad_broker::api::{Effect, Event, Inbound};

use crate::client::{Link, topic_name};
use crate::oracle::{Name, Oracle, WISHER};
use crate::random::Random;

/// What somebody who takes back remembers to have seen.
const SEEN_MAX: usize = 12;
/// Publishes under way on one connection.
const WINDOW: usize = 6;

/// What is published under one key.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    pub name: Name,
    /// Under a key of its own.
    pub is_keyed: bool,
    /// Not before that.
    pub deliver_at: Option<WallMillis>,
    /// Somebody was told that it is safe.
    is_acknowledged: bool,
}

/// All that they have ever published, by number.
#[derive(Debug, Default)]
pub struct WishList {
    wishes: Vec<Wish>,
}

/// One of the clients.
#[derive(Debug, Default)]
pub struct Wisher {
    pub link: Link,
    /// Sent, not answered, in order: tag, number of the wish, whether it is the body that the wish has.
    unanswered: VecDeque<(Tag, usize, bool)>,
    /// QoS 2: PUBREC came, PUBCOMP has not.
    unreleased: VecDeque<Tag>,
    tag_last: u16,
}

impl Wish {
    /// Whether its key has its body, so that no other one is taken.
    pub fn was_taken(&self) -> bool {
        self.is_acknowledged
    }
}

impl WishList {
    pub fn get(&self, name: Name) -> Option<&Wish> {
        self.wishes.get(name.number).filter(|_| name.publisher == WISHER)
    }

    /// Something new.
    pub fn add(&mut self, topic: usize, qos: u8, is_keyed: bool, deliver_at: Option<WallMillis>) -> Wish {
        let name = Name { publisher: WISHER, topic, qos, number: self.wishes.len() };
        let wish = Wish { name, is_keyed, deliver_at, is_acknowledged: false };
        self.wishes.push(wish);
        wish
    }

    /// Something with a key, to be published once more; what nobody has heard of first.
    pub fn again(&self, random: &mut Random) -> Option<Wish> {
        let keyed: Vec<&Wish> = self.wishes.iter().filter(|wish| wish.is_keyed).collect();
        let open: Vec<&Wish> = keyed.iter().copied().filter(|wish| !wish.is_acknowledged).collect();
        let from = if open.is_empty() || random.chance(300) { keyed } else { open };
        (!from.is_empty()).then(|| *from[random.below(from.len())])
    }

    /// Whether all that can be repeated has been answered.
    pub fn is_heard(&self) -> bool {
        self.wishes.iter().all(|wish| wish.is_acknowledged || !wish.is_keyed)
    }
}

impl Wisher {
    pub fn has_room(&self) -> bool {
        self.link.open && self.unanswered.len() + self.unreleased.len() < WINDOW
    }

    pub fn is_idle(&self) -> bool {
        self.unanswered.is_empty() && self.unreleased.is_empty()
    }

    /// The connection is gone, and the session with it.
    pub fn cut(&mut self) {
        self.link = Link::default();
        self.unanswered.clear();
        self.unreleased.clear();
    }

    /// Sends a wish; `is_own`: with the body that it has, else with another one.
    pub fn publish(&mut self, wish: Wish, is_own: bool) {
        let Some(connection) = self.link.connection else { return };
        let tag = self.free_tag();
        self.unanswered.push_back((tag, wish.name.number, is_own));
        let wishes = Wishes {
            idempotency_key: wish.is_keyed.then(|| format!("key {}", wish.name.number).into()),
            deliver_at: wish.deliver_at,
            ..Wishes::default()
        };
        let text = if is_own { wish.name.text() } else { "nobody may get this".to_owned() };
        let message = Message {
            id: MessageId(0),
            topic: topic_name(wish.name.topic),
            payload: text.into(),
            properties: Default::default(),
            qos: Qos::from_number(wish.name.qos).expect("1 or 2"),
            retain: false,
            expires_at: None,
            publisher: QueueId::NONE,
            extras: Extras::of_wishes(wishes),
        };
        let message = Inbound { message: message.into(), tag: Some(tag), dup: false, flaw: None };
        self.link.to_server.push_back(Event::Publish { connection, message });
    }

    fn free_tag(&mut self) -> Tag {
        loop {
            self.tag_last = self.tag_last % 9 + 1;
            let tag = Tag::new(self.tag_last).expect("1 to 9");
            let taken = self.unanswered.iter().any(|(other, ..)| *other == tag) || self.unreleased.contains(&tag);
            if !taken {
                return tag;
            }
        }
    }

    /// Takes the next thing that the server sent. Whether a publish was refused that may be sent again.
    pub fn take(&mut self, effect: Effect, list: &mut WishList, oracle: &mut Oracle) -> Result<bool, String> {
        match effect {
            Effect::Connected { .. } => self.link.open = true,
            Effect::Published { connection, tag, reason } => {
                return self.answered(connection, tag, reason, list, oracle);
            }
            Effect::Completed { tag, .. } => self.unreleased.retain(|other| *other != tag),
            other => return Err(format!("a publisher got {other:?}")),
        }
        Ok(false)
    }

    fn answered(
        &mut self,
        connection: ConnectionId,
        tag: Tag,
        reason: ReasonCode,
        list: &mut WishList,
        oracle: &mut Oracle,
    ) -> Result<bool, String> {
        let Some((sent, number, is_own)) = self.unanswered.pop_front() else {
            return Err(format!("answer to {tag:?} out of the blue"));
        };
        if sent != tag {
            return Err(format!("answer to {tag:?} overtook that to {sent:?}"));
        }
        let wish = &mut list.wishes[number];
        match reason {
            ReasonCode::PacketIdentifierInUse if !is_own => return Ok(false),
            ReasonCode::QuotaExceeded => return Ok(true),
            reason if reason.is_error() => return Err(format!("{wish:?} was refused: {reason:?}")),
            _ if !is_own => return Err(format!("another body was taken under the key of {wish:?}")),
            _ => {}
        }
        wish.is_acknowledged = true;
        oracle.acknowledged(wish.name);
        if wish.name.qos == 2 {
            self.unreleased.push_back(tag);
            self.link.to_server.push_back(Event::Release { connection, tag });
        }
        Ok(false)
    }
}

/// Somebody who looks at what is put off and takes some of it back.
#[derive(Debug, Default)]
pub struct Canceller {
    token_last: u64,
    /// What was seen to wait, and on which shard.
    seen: Vec<(usize, MessageId, Name)>,
    /// Not answered yet.
    asked: BTreeMap<u64, Name>,
    /// The server says that they were taken back.
    cancelled: BTreeSet<Name>,
}

impl Canceller {
    /// What to ask a shard next.
    pub fn ask(&mut self, shard: usize, random: &mut Random) -> (usize, Event) {
        self.token_last += 1;
        let token = self.token_last;
        if self.seen.is_empty() || random.chance(500) {
            let query = ScheduledQuery { limit: 1 + random.below(5), ..ScheduledQuery::default() };
            return (shard, Event::FindScheduled { token, query: Box::new(query) });
        }
        // Some are asked for again.
        let place = random.below(self.seen.len());
        let (shard, id, name) = if random.chance(700) { self.seen.swap_remove(place) } else { self.seen[place] };
        self.asked.insert(token, name);
        let of = random.chance(500).then(|| KeyHolder::User("wisher".into()));
        (shard, Event::Cancel { token, id, of })
    }

    pub fn found(&mut self, shard: usize, page: ScheduledPage) -> Result<(), String> {
        for ScheduledMessage { message, .. } in page.messages {
            let name = Name::parse(&message.payload).ok_or(format!("{message:?} is nobody's"))?;
            if self.cancelled.contains(&name) {
                return Err(format!("{name:?} was taken back, and waits"));
            }
            self.seen.push((shard, message.id, name));
        }
        let most = self.seen.len().saturating_sub(SEEN_MAX);
        self.seen.drain(..most);
        Ok(())
    }

    /// The server has answered. Which one was taken back, if so.
    pub fn answered(&mut self, token: u64, answer: CancelAnswer, came: &WishIds) -> Result<Option<Name>, String> {
        let name = self.asked.remove(&token).ok_or("an answer to nobody")?;
        match answer {
            CancelAnswer::Cancelled if came.0.contains_key(&name) => {
                Err(format!("{name:?} was taken back, and had been published"))
            }
            CancelAnswer::Cancelled => {
                self.cancelled.insert(name);
                Ok(Some(name))
            }
            CancelAnswer::Published | CancelAnswer::Unknown if self.cancelled.contains(&name) => {
                // It was told so by a process that knew; this one knows nothing of it, but it does not wait either.
                if answer == CancelAnswer::Published {
                    Err(format!("{name:?} was taken back, and is due"))
                } else {
                    Ok(None)
                }
            }
            CancelAnswer::Published | CancelAnswer::Unknown => Ok(None),
            CancelAnswer::Busy => Err("nobody else looks".into()),
        }
    }

    /// What has not been answered, may be so.
    pub fn crash(&mut self) -> Vec<Name> {
        self.seen.clear();
        std::mem::take(&mut self.asked).into_values().collect()
    }

    pub fn is_at_rest(&self) -> bool {
        self.asked.is_empty()
    }

    /// It comes to somebody.
    pub fn came(&self, name: Name) -> Result<(), String> {
        if self.cancelled.contains(&name) { Err(format!("{name:?} was taken back, and comes")) } else { Ok(()) }
    }
}

/// Under which ids each wish has come: one.
#[derive(Debug, Default)]
pub struct WishIds(BTreeMap<Name, MessageId>);

impl WishIds {
    pub fn came(&mut self, name: Name, message: &Message) -> Result<(), String> {
        if name.publisher != WISHER {
            return Ok(());
        }
        let id = message.original();
        match *self.0.entry(name).or_insert(id) {
            known if known == id => Ok(()),
            known => Err(format!("{name:?} was published twice, as {known} and as {id}")),
        }
    }
}
