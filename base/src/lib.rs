//! The words of Postroad: identifiers, addresses, messages, log records, and the units that they are
//! counted in. Every other crate depends on this one; it depends on none of them.
//!
//! Nothing here does I/O, reads a clock, or knows a wire format.

mod group;
mod ids;
mod key;
mod known;
mod letter;
mod message;
mod partition;
mod pending;
mod qos;
mod reason;
mod record;
mod scheduled;
mod step;
mod time;
mod times;
mod topic;
mod wishes;

pub use group::{DeliveryId, DeliveryIdError, GroupAnswer, GroupOrder, GroupRefusal, Leased, Take, Verdict};
pub use ids::{ConnectionId, MessageId, MessageIdGenerator, QueueId, Sequence, ShardId, Tag};
pub use key::{Digest, KeyHolder, KeyName, KeyedPublish};
pub use known::{FormerShard, KnownIds, Takers};
pub use letter::{
    Letter, LetterAction, LetterAnswer, LetterFilter, LetterId, LetterIdError, LetterQuery, Parked, Requeue,
};
pub use message::{ClientId, Death, Extras, Message, Will};
pub use partition::{PartitionId, Placement};
pub use pending::{Pending, PendingAnswer, PendingId, PendingIdError, PendingPage};
pub use qos::Qos;
pub use reason::ReasonCode;
pub use record::{
    Outcome, QueueOwner, Recipient, Record, RegisteredBy, RetainHandling, SessionExpiry, SubscriptionIdentifier,
    SubscriptionOptions,
};
pub use scheduled::{CancelAnswer, ScheduledFilter, ScheduledMessage, ScheduledPage, ScheduledQuery};
pub use step::{Addressee, Ended, Moved, PluginDeed, Published, Step};
pub use time::{MonoMillis, Now, WallMillis, utc};
pub use times::DeliveryTimes;
pub use topic::{ShareName, TopicError, TopicFilter, TopicName, filter_matches, is_level_name, is_user_name};
pub use wishes::{Priority, ReceiptLevel, WishError, Wishes, property as wish_property};
