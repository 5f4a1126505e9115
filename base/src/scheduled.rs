//! Messages that are to be published later, as the API shows them and takes them back.

use std::sync::Arc;

use crate::{KeyHolder, Message, PendingId, TopicFilter, WallMillis};

/// Which of them are looked for: those that fit everything that is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScheduledFilter {
    /// Whose topics match.
    pub topic: Option<TopicFilter>,
    /// Published by this one.
    pub by: Option<KeyHolder>,
    /// Due then or later.
    pub from: Option<WallMillis>,
    /// Due before that.
    pub until: Option<WallMillis>,
}

impl ScheduledFilter {
    /// Whether this one is meant.
    pub fn fits(&self, message: &Message) -> bool {
        let at = message.wishes().and_then(|wishes| wishes.deliver_at).unwrap_or_default();
        self.topic.as_ref().is_none_or(|topic| topic.matches(&message.topic))
            && self.by.as_ref().is_none_or(|by| message.scheduled_by() == Some(by))
            && self.from.is_none_or(|from| at >= from)
            && self.until.is_none_or(|until| at < until)
    }
}

/// A look at those of one shard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScheduledQuery {
    /// Behind this place; `None`: from the oldest.
    pub after: Option<PendingId>,
    /// Which ones.
    pub filter: ScheduledFilter,
    /// At most so many.
    pub limit: usize,
}

/// One that waits.
#[derive(Clone, Debug, PartialEq)]
pub struct ScheduledMessage {
    /// The message.
    pub message: Arc<Message>,
    /// It was due, and somewhere was no room for it: it is tried again then.
    pub tried_again: Option<WallMillis>,
}

/// Some of those that wait, in the order in which they were published.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ScheduledPage {
    /// The messages. Fewer than were asked for, also none, is no sign of the end.
    pub messages: Vec<ScheduledMessage>,
    /// Behind which place to go on; `None`: those were all.
    pub next: Option<PendingId>,
}

/// What became of the wish to take one back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelAnswer {
    /// It was taken back, now or shortly before: it is never published.
    Cancelled,
    /// It is being published: some may have it.
    Published,
    /// None of this id waits here, or it is somebody else's.
    Unknown,
    /// Too many look already; nothing was done.
    Busy,
}
