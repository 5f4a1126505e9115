//! Deliveries that wait for a client or are in flight to it, as the API shows them.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::{LetterId, LetterIdError, Message, Qos, QueueId, Sequence, TopicName};

/// Names a delivery for as long as it is pending: `<partition>-<ordinal>-<sequence>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PendingId {
    /// The queue of its client's session or registration.
    pub queue: QueueId,
    /// Its place in it.
    pub sequence: Sequence,
}

impl fmt::Display for PendingId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { queue, sequence } = *self;
        LetterId { queue, sequence }.fmt(f) // the same form
    }
}

/// No delivery has such a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a delivery is named by three numbers, such as 0-3-1017")]
pub struct PendingIdError;

impl FromStr for PendingId {
    type Err = PendingIdError;

    fn from_str(text: &str) -> Result<Self, PendingIdError> {
        let LetterId { queue, sequence } = text.parse().map_err(|_: LetterIdError| PendingIdError)?;
        Ok(Self { queue, sequence })
    }
}

/// A delivery that is not over.
#[derive(Clone, Debug, PartialEq)]
pub struct Pending {
    /// Its name.
    pub id: PendingId,
    /// It belongs to the registration of its client, not to its session.
    pub is_push: bool,
    /// It was sent, or is about to be, and is not acknowledged.
    pub is_in_flight: bool,
    /// The message.
    pub message: Arc<Message>,
    /// The topic as its client sees it.
    pub topic: TopicName,
    /// The level at which its client gets it.
    pub qos: Qos,
    /// The retain flag that its client sees.
    pub retain: bool,
}

/// Some of what waits for a client, oldest first: of its session, then of its registration.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PendingPage {
    /// The deliveries.
    pub deliveries: Vec<Pending>,
    /// Behind which one to go on; `None`: those were all.
    pub next: Option<PendingId>,
}

/// What became of deliveries that somebody has acknowledged in the place of their client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PendingAnswer {
    /// These are over by that; the others were over before, or are of another client.
    Ended(Vec<PendingId>),
    /// The client is here, and acknowledges by itself.
    Connected,
    /// Nothing is known of the client.
    NoClient,
}
