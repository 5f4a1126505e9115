//! What happens to a message that somebody follows (DESIGN 6): its publication, and then, per recipient, what becomes of its
//! delivery.

use bytestring::ByteString;

use crate::{ClientId, LetterId, MessageId, Outcome, Qos, ReasonCode, ReceiptLevel, ShardId, TopicName, WallMillis};

/// One step in the life of a message. Told once the records that make it so are as safe as `durability` asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Which message.
    pub id: MessageId,
    /// Where that was published to.
    pub topic: TopicName,
    /// When, by the clock of the shard on which it happened.
    pub at: WallMillis,
    /// On which shard.
    pub shard: ShardId,
    /// To whom the message was to go; `None`: this is about the message as a whole.
    pub to: Option<Addressee>,
    /// Of what its publisher asked to be told.
    pub receipt: Option<ReceiptLevel>,
    /// Whether the history of messages keeps it: not what is told only since somebody is watching.
    pub is_kept: bool,
    /// What.
    pub step: Step,
}

/// To whom a message is to go: a group may have the name of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Addressee {
    /// A client: its session or its registration.
    Client(ClientId),
    /// A consumer group of this name.
    Group(ByteString),
}

/// What has happened. Closed: who shows steps shows all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The server has taken it in. It may not be safe yet.
    Published(Box<Published>),
    /// All shards that it went to have it, and its publisher is told so. `matched`: somebody is to get it.
    Stored {
        /// Whether somebody is to get it.
        matched: bool,
    },
    /// It was not published: its publisher is told why.
    Rejected {
        /// Why.
        reason: ReasonCode,
    },
    /// Plugins have changed what was published, or ended it.
    Plugins {
        /// What they did.
        did: PluginDeed,
    },
    /// It stands in the recipient's queue.
    Queued,
    /// It was written to the recipient's connection, for the `attempt`-th time.
    Sent {
        /// Counted from 1.
        attempt: u32,
        /// The level on this hop.
        qos: Qos,
    },
    /// The recipient has it.
    Acknowledged {
        /// How often it was sent.
        attempts: u32,
    },
    /// Its delivery ended otherwise.
    Over {
        /// How.
        how: Ended,
        /// What the recipient gave as a reason, or 0.
        reason_code: u8,
        /// How often it was sent.
        attempts: u32,
    },
    /// As `Over`, and it is a dead letter now.
    Dead {
        /// Its name.
        letter: LetterId,
        /// How the delivery ended.
        how: Ended,
        /// What the recipient gave as a reason, or 0.
        reason_code: u8,
        /// How often it was sent.
        attempts: u32,
    },
    /// Its dead letter was sent again, as a new message with this id.
    Requeued {
        /// The name that the letter had.
        letter: LetterId,
        /// The new message.
        id: MessageId,
    },
    /// Its dead letter is over without that.
    LetterOver {
        /// The name that it had.
        letter: LetterId,
        /// How.
        how: Ended,
    },
}

/// What is known of a publication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The client that published it; `None`: a caller of the API, or the server.
    pub by: Option<ClientId>,
    /// Who that proved to be.
    pub user: Option<ByteString>,
    /// The level that the publisher chose.
    pub qos: Qos,
    /// Bytes of its payload.
    pub bytes: usize,
    /// It repeats this message, whose dead letter was sent again.
    pub original: Option<MessageId>,
}

/// What plugins did with a message that was published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PluginDeed {
    /// Another message goes on in its place.
    Changed,
    /// Several go on in its place; this is the one that its publisher is answered for.
    Split,
    /// Nobody gets it.
    Dropped,
    /// Its publisher was told that it is refused.
    Refused,
    /// It is a dead letter for a human.
    Parked,
}

impl PluginDeed {
    /// In a word, as the API shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Split => "split",
            Self::Dropped => "dropped",
            Self::Refused => "refused",
            Self::Parked => "parked",
        }
    }
}

/// How a delivery ended that its recipient has not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With this outcome.
    With(Outcome),
    /// The session ended, and with it all that waited for it.
    SessionEnded,
    /// The registration was taken back.
    Unregistered,
    /// QoS 0, which waits for nobody: the recipient was away.
    Offline,
    /// QoS 0: the recipient's connection took no more.
    Congested,
    /// A plugin left the recipient out.
    LeftOut,
}

impl Ended {
    /// In a word, as metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::With(outcome) => outcome.name(),
            Self::SessionEnded => "session_ended",
            Self::Unregistered => "unregistered",
            Self::Offline => "offline",
            Self::Congested => "congested",
            Self::LeftOut => "left_out",
        }
    }
}

impl Addressee {
    /// Its name, of whichever kind.
    pub fn name(&self) -> &str {
        match self {
            Self::Client(client) => client.as_str(),
            Self::Group(name) => name,
        }
    }

    /// The client, if it is one.
    pub fn client(&self) -> Option<&ClientId> {
        match self {
            Self::Client(client) => Some(client),
            Self::Group(_) => None,
        }
    }

    /// The name of the group, if it is one.
    pub fn group(&self) -> Option<&str> {
        match self {
            Self::Client(_) => None,
            Self::Group(name) => Some(name),
        }
    }
}

impl Step {
    /// In a word, as the API shows it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Published(_) => "published",
            Self::Stored { .. } => "stored",
            Self::Rejected { .. } => "rejected",
            Self::Plugins { .. } => "plugins",
            Self::Queued => "queued",
            Self::Sent { .. } => "sent",
            Self::Acknowledged { .. } => "acknowledged",
            Self::Over { .. } => "over",
            Self::Dead { .. } => "dead",
            Self::Requeued { .. } => "requeued",
            Self::LetterOver { .. } => "letter_over",
        }
    }

    /// What a receipt of it is called; `None`: there is none. A delivery that moved to another recipient goes on.
    pub fn level(&self) -> Option<ReceiptLevel> {
        match self {
            Self::Stored { .. } => Some(ReceiptLevel::Stored),
            Self::Sent { .. } => Some(ReceiptLevel::Sent),
            Self::Acknowledged { .. } => Some(ReceiptLevel::Acknowledged),
            Self::Over { how: Ended::With(Outcome::Moved), .. } => None,
            Self::Over { .. } | Self::Dead { .. } => Some(ReceiptLevel::Dead),
            Self::Published(_)
            | Self::Rejected { .. }
            | Self::Plugins { .. }
            | Self::Queued
            | Self::Requeued { .. }
            | Self::LetterOver { .. } => None,
        }
    }

    /// How often it was sent, if this says so.
    pub fn attempts(&self) -> Option<u32> {
        match self {
            Self::Sent { attempt, .. } => Some(*attempt),
            Self::Acknowledged { attempts } | Self::Over { attempts, .. } | Self::Dead { attempts, .. } => {
                Some(*attempts)
            }
            _ => None,
        }
    }

    /// How it ended, if this is an end.
    pub fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Over { how, .. } | Self::Dead { how, .. } | Self::LetterOver { how, .. } => Some(how.name()),
            Self::Rejected { reason } => Some(reason.name()),
            Self::Plugins { did } => Some(did.name()),
            _ => None,
        }
    }
}

impl ReceiptLevel {
    /// Whether who asked for this level is told of what has that one.
    pub fn covers(self, other: Self) -> bool {
        match self {
            Self::Stored | Self::Sent => other <= self,
            Self::Acknowledged => true,
            Self::Dead => other == Self::Dead,
        }
    }
}

impl Moved {
    /// What its receipt is called, if its publisher asked for that one.
    pub fn receipt_level(&self) -> Option<ReceiptLevel> {
        self.step.level().filter(|level| self.receipt.is_some_and(|asked| asked.covers(*level)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_covers_those_before_it_and_dead_only_failures() {
        let covered = |asked: ReceiptLevel| {
            ReceiptLevel::ALL
                .into_iter()
                .filter(|level| asked.covers(*level))
                .map(ReceiptLevel::name)
                .collect::<Vec<_>>()
        };
        assert_eq!(covered(ReceiptLevel::Stored), ["stored"]);
        assert_eq!(covered(ReceiptLevel::Sent), ["stored", "sent"]);
        assert_eq!(covered(ReceiptLevel::Acknowledged), ["stored", "sent", "acknowledged", "dead"]);
        assert_eq!(covered(ReceiptLevel::Dead), ["dead"]);
    }
}
