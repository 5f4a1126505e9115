//! What an operator can see of subscriptions and retained messages: walks in steps, since there may be millions of either.

use base::{ClientId, Message, SubscriptionOptions, TopicFilter};
use postroad_base as base;

use crate::broker::Broker;
use crate::index::Cursor;
use crate::session::{Role, Session};

/// A subscription as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriptionState<'a> {
    /// Whose it is.
    pub client: &'a ClientId,
    /// What it asks for.
    pub filter: &'a TopicFilter,
    /// How.
    pub options: &'a SubscriptionOptions,
    /// Whether `client` is the name of a consumer group, not of a client.
    pub is_group: bool,
}

/// Where a walk over all subscriptions of a shard goes on. The default is its beginning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionsCursor {
    /// The session's place.
    pub place: u32,
    /// Of that session those that are greater than this one.
    pub behind: Option<TopicFilter>,
}

/// A retained message as it is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetainedState<'a> {
    /// The message.
    pub message: &'a Message,
    /// Bytes of its topic, properties and payload.
    pub bytes: usize,
}

impl Broker {
    /// Walks on over the subscriptions, of one client if one is named, looking at so many sessions and subscriptions at most:
    /// `take` says whether it wants more. Where the walk goes on; `None` at its end. What is there all the time is met once.
    pub fn walk_subscriptions(
        &self,
        client: Option<&str>,
        from: SubscriptionsCursor,
        looks_max: usize,
        take: impl FnMut(SubscriptionState<'_>) -> bool,
    ) -> Option<SubscriptionsCursor> {
        self.walk_filters_of(client, |session| session.role == Role::Session, from, looks_max, take)
    }

    /// The same of all clients and consumer groups.
    pub fn walk_filters(
        &self,
        from: SubscriptionsCursor,
        looks_max: usize,
        take: impl FnMut(SubscriptionState<'_>) -> bool,
    ) -> Option<SubscriptionsCursor> {
        let subscribes = |session: &Session| matches!(session.role, Role::Session | Role::Group);
        self.walk_filters_of(None, subscribes, from, looks_max, take)
    }

    fn walk_filters_of(
        &self,
        client: Option<&str>,
        is_wanted: impl Fn(&Session) -> bool,
        from: SubscriptionsCursor,
        looks_max: usize,
        mut take: impl FnMut(SubscriptionState<'_>) -> bool,
    ) -> Option<SubscriptionsCursor> {
        let only = client.map(|client| self.session_of_client(client));
        let SubscriptionsCursor { mut place, mut behind } = from;
        let end = match only {
            Some(None) => return None,
            Some(Some(index)) => {
                if place != index {
                    (place, behind) = (index, None);
                }
                index as usize + 1
            }
            None => self.sessions.capacity(),
        };
        let mut looks = 0;
        while (place as usize) < end {
            let session = self.sessions.get(place as usize);
            let session = session.filter(|session| is_wanted(session) && !session.ending);
            looks += 1;
            for (filter, options) in
                session.into_iter().flat_map(|session| session.subscriptions.behind(behind.as_ref()))
            {
                let Session { client, role, .. } = &self.sessions[place as usize];
                looks += 1;
                let is_group = *role == Role::Group;
                if !take(SubscriptionState { client, filter, options, is_group }) || looks >= looks_max {
                    return Some(SubscriptionsCursor { place, behind: Some(filter.clone()) });
                }
            }
            (place, behind) = (place + 1, None);
            if looks >= looks_max {
                break;
            }
        }
        ((place as usize) < end).then_some(SubscriptionsCursor { place, behind: None })
    }

    /// Walks on over the retained messages of this shard whose topics match, in the order of the topics' bytes, looking at so
    /// many at most: `take` says whether it wants more. Where the walk goes on; `None` at its end.
    pub fn walk_retained(
        &self,
        filter: &TopicFilter,
        from: Cursor,
        looks_max: usize,
        mut take: impl FnMut(RetainedState<'_>) -> bool,
    ) -> Option<Cursor> {
        self.retained.portion_while(filter.pattern(), from, looks_max, &mut |_, kept| {
            take(RetainedState { message: &kept.message, bytes: kept.message.size() })
        })
    }
}
