//! A step as the history keeps it, and as the API shows it: JSON, so that who reads a file of an older release passes by what it
//! does not know, and misses nothing that it needs.

use postroad_base::{Addressee, MessageId, Moved, Published, ReceiptLevel, Step};
use serde::{Deserialize, Serialize};

/// One step in the life of a message.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default)]
pub(crate) struct StepRow {
    /// Its place in the history: for readers, where to go on. Stands in the key, not in the value.
    #[serde(skip_serializing_if = "is_zero")]
    pub position: u64,
    pub message_id: String,
    pub at_unix_ms: u64,
    pub shard: u16,
    pub step: String,
    /// The client to which the message was to go; without it and `group`: about the message as a whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The consumer group to which it was to go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// What the receipt of it is called, if the publisher asked for that one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receipt: Option<String>,
    /// The client that published the message; without: a caller of the API, or the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publisher: Option<String>,
    /// Who that proved to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub topic: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qos: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payload_bytes: Option<u64>,
    /// The message of which this one is a requeue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub original_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub has_subscribers: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason_code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub letter: Option<String>,
    /// The message as which a dead letter was sent again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requeued_as: Option<String>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What each step of a message repeats of its publication, so that one look tells whose it is, and what it repeats.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Origin {
    pub publisher: Option<String>,
    pub user: Option<String>,
    pub original_id: Option<String>,
}

impl Origin {
    pub fn of(published: &Published) -> Self {
        Self {
            publisher: published.by.as_ref().map(|client| client.as_str().to_owned()),
            user: published.user.as_ref().map(ToString::to_string),
            original_id: published.original.map(|id| id.to_string()),
        }
    }

    pub fn of_row(row: &StepRow) -> Self {
        Self { publisher: row.publisher.clone(), user: row.user.clone(), original_id: row.original_id.clone() }
    }
}

impl StepRow {
    pub fn new(moved: &Moved, origin: &Origin) -> Self {
        let (step, to) = (&moved.step, moved.to.as_ref());
        let row = Self {
            message_id: moved.id.to_string(),
            at_unix_ms: moved.at.0,
            shard: moved.shard.0,
            step: step.name().to_owned(),
            client: to.and_then(Addressee::client).map(|client| client.as_str().to_owned()),
            group: to.and_then(Addressee::group).map(str::to_owned),
            receipt: moved.receipt_level().map(|level| level.name().to_owned()),
            publisher: origin.publisher.clone(),
            user: origin.user.clone(),
            original_id: origin.original_id.clone(),
            topic: moved.topic.to_string(),
            attempts: step.attempts(),
            reason: step.reason().map(str::to_owned),
            ..Self::default()
        };
        match step {
            Step::Published(published) => {
                Self { qos: Some(published.qos.number()), payload_bytes: Some(published.bytes as u64), ..row }
            }
            Step::Stored { matched } => Self { has_subscribers: Some(*matched), ..row },
            Step::Sent { qos, .. } => Self { qos: Some(qos.number()), ..row },
            Step::Over { reason_code, .. } => Self { reason_code: Some(*reason_code), ..row },
            Step::Dead { letter, reason_code, .. } => {
                Self { letter: Some(letter.to_string()), reason_code: Some(*reason_code), ..row }
            }
            Step::Requeued { letter, id } => {
                Self { letter: Some(letter.to_string()), requeued_as: Some(id.to_string()), ..row }
            }
            Step::LetterOver { letter, .. } => Self { letter: Some(letter.to_string()), ..row },
            Step::Rejected { .. } | Step::Plugins { .. } | Step::Queued | Step::Acknowledged { .. } => row,
        }
    }
}

/// Which steps a reader of receipts wants: all that fit everything that is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Of this message.
    pub message: Option<MessageId>,
    /// Published by this client or this user.
    pub publisher: Option<String>,
    /// Published by this user, whatever else is asked for: what its caller may see.
    pub user: Option<String>,
    /// Of this level.
    pub level: Option<ReceiptLevel>,
}

impl Wanted {
    pub fn fits(&self, row: &StepRow) -> bool {
        let Self { message: _, publisher, user, level } = self; // the store looks for the message
        let is_by = |name: &String| row.publisher.as_ref() == Some(name) || row.user.as_ref() == Some(name);
        row.receipt.is_some()
            && publisher.as_ref().is_none_or(is_by)
            && user.as_ref().is_none_or(|user| row.user.as_ref() == Some(user))
            && level.is_none_or(|level| row.receipt.as_deref() == Some(level.name()))
    }
}
