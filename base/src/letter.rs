//! Dead letters: deliveries that nobody has got, kept until somebody says what becomes of them (DESIGN 6).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytes::Bytes;
use bytestring::ByteString;

use crate::{Message, MessageId, Outcome, PartitionId, Qos, QueueId, Sequence, TopicFilter, WallMillis};

/// Names a dead letter for as long as there is one: `<partition>-<ordinal>-<sequence>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LetterId {
    /// The queue of the letters of its shard.
    pub queue: QueueId,
    /// Its place in it.
    pub sequence: Sequence,
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.queue.partition().0, self.queue.ordinal(), self.sequence.0)
    }
}

/// No letter has such a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a dead letter is named by three numbers, such as 0-3-1017")]
pub struct LetterIdError;

impl FromStr for LetterId {
    type Err = LetterIdError;

    fn from_str(text: &str) -> Result<Self, LetterIdError> {
        let mut parts = text.split('-');
        let mut next = || parts.next().filter(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
        let partition = next().and_then(|part| part.parse().ok()).ok_or(LetterIdError)?;
        let ordinal: u64 = next().and_then(|part| part.parse().ok()).ok_or(LetterIdError)?;
        let sequence = next().and_then(|part| part.parse().ok()).ok_or(LetterIdError)?;
        if parts.next().is_some() || ordinal >> QueueId::ORDINAL_BITS != 0 {
            return Err(LetterIdError);
        }
        Ok(Self { queue: QueueId::new(PartitionId(partition), ordinal), sequence: Sequence(sequence) })
    }
}

/// A dead letter as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub struct Letter {
    /// Its name.
    pub id: LetterId,
    /// The message, with [`Message::death`].
    pub message: Arc<Message>,
    /// The level at which its client was to get it.
    pub qos: Qos,
    /// It waits for a human.
    pub parked: Option<Parked>,
    /// Somebody works on it.
    pub is_leased: bool,
}

/// Why a letter waits for a human.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parked {
    /// Since when.
    pub at: WallMillis,
    /// In words.
    pub note: ByteString,
}

/// Which letters are meant: all that fit everything that is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LetterFilter {
    /// Of this client.
    pub client: Option<ByteString>,
    /// Whose topic matches.
    pub topic: Option<TopicFilter>,
    /// That ended so.
    pub outcome: Option<Outcome>,
    /// That ended then or later.
    pub since: Option<WallMillis>,
    /// That ended before.
    pub until: Option<WallMillis>,
    /// Parked, or not.
    pub is_parked: Option<bool>,
    /// Leased, or not.
    pub is_leased: Option<bool>,
}

impl LetterFilter {
    /// Whether this one is meant.
    pub fn fits(&self, letter: &Letter) -> bool {
        let Self { client, topic, outcome, since, until, is_parked, is_leased } = self;
        let Some(death) = letter.message.death() else { return false };
        client.as_ref().is_none_or(|client| death.client.0 == *client)
            && topic.as_ref().is_none_or(|topic| topic.matches(&letter.message.topic))
            && outcome.is_none_or(|outcome| death.outcome == outcome)
            && since.is_none_or(|since| death.at >= since)
            && until.is_none_or(|until| death.at < until)
            && is_parked.is_none_or(|is_parked| letter.parked.is_some() == is_parked)
            && is_leased.is_none_or(|is_leased| letter.is_leased == is_leased)
    }
}

/// A look for letters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LetterQuery {
    /// Behind this one, in the order of their names.
    pub after: Option<LetterId>,
    /// Which ones.
    pub filter: LetterFilter,
    /// In each of these queues only what is behind this letter: whoever follows letters has seen the others.
    pub seen: Vec<LetterId>,
    /// So many at most; 0: none, only where the queues end.
    pub limit: usize,
    /// Lease them for so many milliseconds: until then no other look that asks for what is not leased finds them.
    pub lease_ms: Option<u64>,
}

/// What is to be done with a letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LetterAction {
    /// Show it.
    Show,
    /// Send it to its client again, as a new message.
    Requeue(Requeue),
    /// It is over.
    Drop,
    /// A human is to look at it.
    Park {
        /// Why.
        note: ByteString,
    },
    /// No human needs to any more.
    Unpark,
    /// Whoever leased it gives it back.
    Release,
}

/// What is changed in a letter that is sent again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requeue {
    /// The new bytes.
    pub payload: Option<Bytes>,
    /// For how many seconds it is worth delivering. It has no limit otherwise: the old one may be over.
    pub ttl_seconds: Option<u32>,
}

/// What became of an action.
#[derive(Clone, Debug, PartialEq)]
pub enum LetterAnswer {
    /// Done, and as safe as `durability` asks. A requeue tells the id of the new message.
    Done(Option<MessageId>),
    /// It is this.
    Letter(Box<Letter>),
    /// There is no such letter (any more).
    Gone,
    /// Its client has neither a session nor a registration any more.
    NoClient,
    /// Its client's queue takes no more.
    QueueFull,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_letter_is_read_back() {
        let id = LetterId { queue: QueueId::new(PartitionId(3), 17), sequence: Sequence(1_000_000) };
        assert_eq!(id.to_string(), "3-17-1000000");
        assert_eq!("3-17-1000000".parse(), Ok(id));
        for wrong in ["", "3-17", "3-17-1-1", "a-1-1", "3--1", "-3-17-1", "+3-17-1", "70000-1-1", "3-281474976710656-1"]
        {
            assert_eq!(wrong.parse::<LetterId>(), Err(LetterIdError), "{wrong:?}");
        }
    }
}
