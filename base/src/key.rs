//! Idempotency keys: a repeat under the same key of the same publisher is answered, not published again (DESIGN 3).

use bytestring::ByteString;

use crate::{ClientId, Message, MessageId, ReasonCode, WallMillis, Wishes};

/// Whose keys they are: those of two holders have nothing to do with each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyHolder {
    /// All clients of a user, and callers of the API by its name.
    User(ByteString),
    /// A client that has proved to be nobody.
    Client(ClientId),
}

/// A key of its holder.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyName {
    /// Whose it is.
    pub holder: KeyHolder,
    /// What its publisher calls it.
    pub key: ByteString,
}

impl KeyHolder {
    /// Whose keys a client uses, as the user that it proved to be, if it did.
    pub fn new(user: Option<&ByteString>, client: &ClientId) -> Self {
        match user {
            Some(user) => Self::User(user.clone()),
            None => Self::Client(client.clone()),
        }
    }

    /// Its kind as a number and its name.
    pub fn parts(&self) -> (u8, &ByteString) {
        match self {
            Self::User(name) => (0, name),
            Self::Client(ClientId(name)) => (1, name),
        }
    }

    /// The reverse of [`Self::parts`]; `None` for a kind that there is not.
    pub fn from_parts(kind: u8, name: ByteString) -> Option<Self> {
        match kind {
            0 => Some(Self::User(name)),
            1 => Some(Self::Client(ClientId(name))),
            _ => None,
        }
    }
}

impl KeyName {
    /// The name in bytes, each name's its own: it is placed by these, and stored under them.
    pub fn bytes(&self) -> Vec<u8> {
        let (kind, holder) = self.holder.parts();
        let mut bytes = Vec::with_capacity(5 + holder.len() + self.key.len());
        bytes.push(kind);
        bytes.extend_from_slice(&(holder.len() as u32).to_be_bytes()); // else "ab" + "c" would be "a" + "bc"
        bytes.extend_from_slice(holder.as_bytes());
        bytes.extend_from_slice(self.key.as_bytes());
        bytes
    }
}

/// What was published, in 16 bytes: a repeat under its key has the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Digest(pub u128);

/// A publish under a key, as the log holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyedPublish {
    /// Under which key.
    pub name: KeyName,
    /// The message's.
    pub id: MessageId,
    /// Of the message.
    pub digest: Digest,
    /// When it came.
    pub at: WallMillis,
    /// What its publisher is told, once that is known: an error means that some shard has refused it. Until then a repeat is
    /// routed again, to those who do not have it.
    pub answer: Option<ReasonCode>,
}

impl KeyedPublish {
    /// Whether a repeat is routed again, so that it has to be known who has the message.
    pub fn may_be_routed_again(&self) -> bool {
        self.answer.is_none_or(ReasonCode::is_error)
    }
}

impl Wishes {
    /// Whether it is not simply routed: it has a key, or is for later than `now`.
    pub fn are_not_for_now(&self, now: WallMillis) -> bool {
        self.idempotency_key.is_some() || self.is_for_later(now)
    }

    /// Whether nobody is to get it before a time that has not come.
    pub fn is_for_later(&self, now: WallMillis) -> bool {
        self.deliver_at.is_some_and(|at| at > now)
    }
}

impl Message {
    /// Whether it may be routed twice, so that those who have it have to be known: its publisher may repeat it, or a crash
    /// may come while it is due.
    pub fn may_be_repeated(&self) -> bool {
        let is_cared_for = |wishes: &Wishes| wishes.idempotency_key.is_some() || wishes.deliver_at.is_some();
        self.qos == crate::Qos::ExactlyOnce || self.wishes().is_some_and(is_cared_for)
    }

    /// When it was published, or is to be: what came for later counts from then.
    pub fn published_at(&self) -> WallMillis {
        let taken_in = self.id.published_at();
        self.wishes().and_then(|wishes| wishes.deliver_at).map_or(taken_in, |at| at.max(taken_in))
    }

    /// Its place in the order of publication among others of its topic: its id, as if it had been given when it was to be
    /// published.
    pub fn place_in_time(&self) -> MessageId {
        self.id.moved_to(self.published_at())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Extras, Placement, Qos, QueueId, TopicName};

    fn message(topic: &'static str, payload: &'static str, properties: &'static str) -> Message {
        Message {
            id: MessageId(7 << 80 | 1),
            topic: TopicName::new(topic).unwrap_or_else(|_| panic!("a topic")),
            payload: payload.into(),
            properties: properties.into(),
            qos: Qos::AtLeastOnce,
            retain: false,
            expires_at: None,
            publisher: QueueId::NONE,
            extras: None,
        }
    }

    fn name(holder: KeyHolder, key: &'static str) -> KeyName {
        KeyName { holder, key: key.into() }
    }

    #[test]
    fn names_have_bytes_of_their_own() {
        let user = |name: &'static str| KeyHolder::User(name.into());
        let names = [
            name(user("a"), "bc"),
            name(user("ab"), "c"),
            name(user(""), "abc"),
            name(KeyHolder::Client("a".into()), "bc"),
        ];
        let mut bytes: Vec<_> = names.iter().map(KeyName::bytes).collect();
        bytes.sort_unstable();
        bytes.dedup();
        assert_eq!(bytes.len(), names.len());
        for name in names {
            let (kind, holder) = name.holder.parts();
            assert_eq!(KeyHolder::from_parts(kind, holder.clone()), Some(name.holder));
        }
        assert_eq!(KeyHolder::from_parts(2, "a".into()), None);
    }

    #[test]
    fn a_digest_tells_what_was_published_apart() {
        let placement = Placement::new(16, 2, [9; 16]);
        let first = message("a", "bc", "");
        let digest = placement.digest_of(&first);
        assert_eq!(
            placement.digest_of(&Message { id: MessageId(9), expires_at: Some(WallMillis(1)), ..first.clone() }),
            digest
        );
        let others = [
            message("ab", "c", ""),
            message("a", "b", "c"),
            message("a", "bcd", ""),
            Message { qos: Qos::ExactlyOnce, ..first.clone() },
            Message { retain: true, ..first },
        ];
        for other in others {
            assert_ne!(placement.digest_of(&other), digest, "{other:?}");
        }
    }

    #[test]
    fn what_is_for_later_has_its_place_there() {
        let deliver_at = |at| Message {
            extras: Extras::of_wishes(Wishes { deliver_at: Some(WallMillis(at)), ..Wishes::default() }),
            ..message("a", "b", "")
        };
        assert_eq!(deliver_at(9).published_at(), WallMillis(9));
        assert_eq!(deliver_at(9).place_in_time(), MessageId(9 << 80 | 1));
        assert_eq!(deliver_at(5).place_in_time(), MessageId(7 << 80 | 1), "it came later than that");
        assert_eq!(message("a", "b", "").place_in_time(), MessageId(7 << 80 | 1));
        assert!(deliver_at(5).may_be_repeated() && !message("a", "b", "").may_be_repeated());
    }
}
