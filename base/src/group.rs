//! Consumer groups: queues that applications consume through the API, under leases (DESIGN 6).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use bytestring::ByteString;

use crate::{LetterId, Message, QueueId, Sequence, TopicFilter};

/// Names a delivery as one consumer has it: `<partition>-<ordinal>-<sequence>-<start>-<attempt>`. Who gets it after that consumer gets
/// it under another attempt, so that a lease which is over can be told from the one that stands; and after a crash, which may forget
/// attempts, under another start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeliveryId {
    /// The queue of its group.
    pub queue: QueueId,
    /// Its place in it.
    pub sequence: Sequence,
    /// Which start of the server has given it: a random number of each.
    pub start: u32,
    /// For which time it was given, from 1 on.
    pub attempt: u32,
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { queue, sequence, start, attempt } = *self;
        write!(f, "{}-{start}-{attempt}", LetterId { queue, sequence })
    }
}

/// No delivery has such a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a delivery is named by five numbers, such as 0-3-1017-3094-1")]
pub struct DeliveryIdError;

impl FromStr for DeliveryId {
    type Err = DeliveryIdError;

    fn from_str(text: &str) -> Result<Self, DeliveryIdError> {
        let (rest, attempt) = text.rsplit_once('-').ok_or(DeliveryIdError)?;
        let (place, start) = rest.rsplit_once('-').ok_or(DeliveryIdError)?;
        let LetterId { queue, sequence } = place.parse().map_err(|_| DeliveryIdError)?;
        let (start, attempt) = (plain_number(start)?, plain_number(attempt)?);
        if attempt == 0 {
            return Err(DeliveryIdError);
        }
        Ok(Self { queue, sequence, start, attempt })
    }
}

/// Digits and nothing else.
fn plain_number(text: &str) -> Result<u32, DeliveryIdError> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_plain).ok_or(DeliveryIdError)
}

/// A delivery that a consumer has, for as long as its lease lasts.
#[derive(Clone, Debug, PartialEq)]
pub struct Leased {
    /// Its name in all that is said of it.
    pub id: DeliveryId,
    /// The message.
    pub message: Arc<Message>,
    /// Somebody may have had it before: it is another attempt, or a crash has come in between.
    pub may_repeat: bool,
}

/// What is asked of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupOrder {
    /// Make it if there is none, and let it subscribe to these filters and no others.
    Set {
        /// Each once or more often.
        filters: Vec<TopicFilter>,
    },
    /// End it, with all that waits in it.
    Delete,
    /// Lease what waits.
    Take(Take),
    /// Say of leased deliveries what becomes of them.
    Answer {
        /// Which.
        deliveries: Vec<DeliveryId>,
        /// What.
        verdict: Verdict,
    },
}

/// How deliveries are leased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Take {
    /// So many at most.
    pub limit: usize,
    /// For so many milliseconds.
    pub lease_ms: u64,
    /// If there are none, wait for the first one for so many milliseconds.
    pub wait_ms: u64,
}

/// What becomes of a leased delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is done.
    Acknowledge,
    /// It is to be given again.
    Refuse {
        /// Not before so many milliseconds are over; `None`: the group's own backoff.
        after_ms: Option<u64>,
        /// What was wrong: its dead letter tells it, if it becomes one.
        reason: Option<ByteString>,
    },
    /// It is to become a dead letter at once.
    Bury {
        /// What was wrong.
        reason: Option<ByteString>,
    },
    /// Its consumer needs so many milliseconds from now.
    Extend {
        /// How many.
        lease_ms: u64,
    },
    /// Its consumer has gone and has not begun with it.
    GiveBack,
    /// It has not come to any consumer: as if it had not been given.
    Untaken,
}

/// What became of an order.
#[derive(Clone, Debug, PartialEq)]
pub enum GroupAnswer {
    /// It subscribes to those filters, on every shard.
    Set {
        /// There was none of this name.
        is_new: bool,
    },
    /// It is gone.
    Deleted,
    /// These are leased; none if none came in time.
    Taken(Vec<Leased>),
    /// For each delivery in its order whether that was done: `false` for one that is over, or is another's.
    Answered(Vec<bool>),
    /// Nothing was done.
    Refused(GroupRefusal),
}

/// Why nothing was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupRefusal {
    /// There is no such group.
    #[error("there is no group of this name")]
    NoGroup,
    /// The access rules do not allow the caller all filters, those of the group and new ones.
    #[error("the access rules do not allow to subscribe to all filters of this group")]
    NotAuthorized,
    /// A filter that no group can have.
    #[error("a group's filter has no $share, and at most mqtt.topic_levels_max levels")]
    BadFilter,
    /// More filters than a session may have.
    #[error("more filters than subscriptions.max_per_session")]
    TooManyFilters,
    /// More groups than there may be.
    #[error("there are as many groups as groups.max allows")]
    TooManyGroups,
    /// Too many wait for deliveries of this group.
    #[error("groups.waiting_max consumers wait for this group")]
    TooManyWait,
    /// Some shard has not confirmed a filter in time: what was not confirmed is undone.
    #[error("a shard did not confirm the filters in time; what it did not confirm is undone: try again")]
    Unconfirmed,
    /// There is no room on the disk for another group.
    #[error("the disk is full")]
    DiskFull,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PartitionId;

    #[test]
    fn the_name_of_a_delivery_is_read_back() {
        let queue = QueueId::new(PartitionId(3), 17);
        let id = DeliveryId { queue, sequence: Sequence(1_000_000), start: u32::MAX, attempt: 2 };
        assert_eq!(id.to_string(), "3-17-1000000-4294967295-2");
        assert_eq!("3-17-1000000-4294967295-2".parse(), Ok(id));
        for wrong in [
            "",
            "3-17-1",
            "3-17-1-1",
            "3-17-1-9-0",
            "3-17-1-9-1-1",
            "3-17-1-9-+1",
            "3-17-1-+9-1",
            "3-17-1-9-",
            "3-17-1--1",
            "70000-1-1-9-1",
            "3-17-1-9-4294967296",
            "3-17-1-4294967296-1",
        ] {
            assert_eq!(wrong.parse::<DeliveryId>(), Err(DeliveryIdError), "{wrong:?}");
        }
    }
}
