//! What plugins decide, as the broker asks it: [`Hooks`] is implemented outside (`plugins`), and its answers are data.
//!
//! ```text
//! Event::Publish ─► refusal? ─► Hooks::publish ─► Keep │ Replace(messages) │ Drop │ Refuse │ Park ─► collect, route
//!                                  (once, on the publisher's shard)
//! any shard:  collect ─► Hooks::deliver ─► spread          a letter is made ─► Hooks::dead_letter ─► act on it
//! ```
//! Invariants
//! - A message is given to [`Hooks::publish`] at most once, however often it waits for credit; what a hook made is never given to one.
//! - Nothing here panics or fails: an error of a script is an answer, too, decided by the implementation (`docs/adr/0030-lua-plugins.md`).

mod letters;
mod publishing;

use base::{ClientId, Message, Now, Qos, ReasonCode, TopicFilter};
use bytestring::ByteString;
use postroad_base as base;

use crate::api::{Connect, DisconnectCause, Principal};

pub(crate) use letters::Repairs;
pub(crate) use publishing::{Seen, Settling, Waiting};

/// Which generation of plugins handles a message, on every shard that it comes to. 0: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stamp(pub u32);

/// Who publishes, connects or subscribes.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// Its name; that of a caller of the API is no client's.
    pub client: &'a ClientId,
    /// Who it proved to be.
    pub principal: &'a Principal,
    /// It is an application: a caller of the API.
    pub is_application: bool,
}

/// What becomes of a message that is published.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Decision {
    /// It goes on as it is.
    #[default]
    Keep,
    /// These go on in its place, in this order, under the publisher's one answer. At least one; `id` and `publisher` are the broker's to fill in.
    Replace(Vec<Message>),
    /// It is taken in, and nobody gets it.
    Drop,
    /// Its publisher hears this.
    Refuse(ReasonCode),
    /// It is taken in, and becomes a dead letter for a human, with this note.
    Park(ByteString),
}

/// Whether a client may connect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// As it is.
    #[default]
    Allow,
    /// And it belongs to these groups, too.
    AllowWith(Vec<ByteString>),
    /// It hears this.
    Deny(ReasonCode),
}

/// What becomes of a dead letter that was just made.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Repair {
    /// It stays until somebody acts on it.
    #[default]
    Keep,
    /// It is sent to its client again, with what is changed.
    Requeue(base::Requeue),
    /// It is over, and this is published in its place.
    Publish(Box<Message>),
    /// It is over.
    Drop,
    /// A human is to look at it.
    Park(ByteString),
}

/// An answer, and what a plugin wants published besides. Those messages are seen by no hook.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Answer<T> {
    /// The answer.
    pub answer: T,
    /// What else to publish, as the server: nobody waits for it, and it is dropped (and counted) where there is no room.
    pub publish: Vec<Message>,
}

impl<T> From<T> for Answer<T> {
    fn from(answer: T) -> Self {
        Self { answer, publish: Vec::new() }
    }
}

/// The plugins of one shard. Calls come from within `Broker::handle`: an implementation never calls back.
pub trait Hooks: std::fmt::Debug {
    /// What becomes of a message that this one publishes, and under which generation.
    fn publish(&mut self, now: Now, message: &Message, from: Peer<'_>) -> (Stamp, Answer<Decision>);

    /// Whether [`Self::deliver`] of this generation may have something to say about this topic.
    fn wants_deliveries(&self, stamp: Stamp, topic: &str) -> bool;

    /// A message is about to be given to these clients of this shard: the places of those that do not get it, in order.
    fn deliver(&mut self, now: Now, stamp: Stamp, message: &Message, to: &[&ClientId]) -> Vec<usize>;

    /// Whether [`Self::dead_letter`] may have something to say about letters of this topic.
    fn wants_letters(&self, topic: &str) -> bool;

    /// This letter was made ([`Message::death`] says how).
    fn dead_letter(&mut self, now: Now, letter: &Message) -> Answer<Repair>;

    /// A client that access rules let in wants to connect.
    fn connect(&mut self, now: Now, connect: &Connect) -> Answer<Admission>;

    /// Its connection is over.
    fn disconnected(&mut self, now: Now, peer: Peer<'_>, cause: DisconnectCause) -> Vec<Message>;

    /// A client that access rules let subscribe does so: at which level at most, or with which reason code it is refused.
    fn subscribe(
        &mut self,
        now: Now,
        peer: Peer<'_>,
        filter: &TopicFilter,
        qos: Qos,
    ) -> Answer<Result<Qos, ReasonCode>>;
}
