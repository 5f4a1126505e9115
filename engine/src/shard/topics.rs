//! What operators ask of subscriptions and retained messages.

use postroad_broker::index::Cursor;
use postroad_broker::topics::{RetainedState, SubscriptionState, SubscriptionsCursor};
use postroad_control::{
    FilterCount, FilterCounts, FiltersPage, FiltersQuery, RetainedPage, RetainedQuery, RetainedReport,
    SubscriptionReport, SubscriptionsPage, SubscriptionsQuery,
};

use super::Shard;

/// What one question looks at: millions are many questions, and deliveries go on in between.
const LOOKS_MAX: usize = 2048;

impl Shard {
    pub(super) fn find_subscriptions(&self, query: SubscriptionsQuery) {
        let SubscriptionsQuery { from: (place, behind), limit, filter, answer } = query;
        let (mut subscriptions, from) = (Vec::new(), SubscriptionsCursor { place, behind });
        let next = self.broker.walk_subscriptions(filter.client.as_deref(), from, LOOKS_MAX, |state| {
            if filter.fits(state.filter) {
                subscriptions.push(subscription_report(state));
            }
            subscriptions.len() < limit
        });
        let next = next.map(|cursor| (cursor.place, cursor.behind));
        let _gone = answer.try_send(SubscriptionsPage { subscriptions, next });
    }

    /// Of what one look finds the first filters, in the order of their bytes: those of the whole are among these.
    pub(super) fn find_filters(&self, query: FiltersQuery) {
        let FiltersQuery { from: (place, behind), wanted, limit, answer } = query;
        let (mut filters, from) = (FilterCounts::default(), SubscriptionsCursor { place, behind });
        let next = self.broker.walk_filters(from, LOOKS_MAX, |state| {
            if wanted.fits(state.filter) {
                filters.add(state.filter, FilterCount::of_one(state.is_group), limit);
            }
            true
        });
        let next = next.map(|cursor| (cursor.place, cursor.behind));
        let _gone = answer.try_send(FiltersPage { filters, next });
    }

    pub(super) fn find_retained(&self, query: RetainedQuery) {
        let RetainedQuery { from, limit, filter, answer } = query;
        let from = from.as_deref().map(Cursor::at).unwrap_or_default();
        let mut retained = Vec::new();
        let next = self.broker.walk_retained(&filter, from, LOOKS_MAX, |state| {
            retained.push(retained_report(state));
            retained.len() < limit
        });
        let next = next.map(|cursor| cursor.topic().to_owned());
        let _gone = answer.try_send(RetainedPage { retained, next });
    }
}

fn subscription_report(state: SubscriptionState<'_>) -> SubscriptionReport {
    let SubscriptionState { client, filter, options, is_group: _ } = state;
    SubscriptionReport {
        client: client.as_str().to_owned(),
        filter: filter.as_str().to_owned(),
        qos: options.qos.number(),
        no_local: options.no_local,
        retain_as_published: options.retain_as_published,
        identifier: options.identifier.map(|identifier| identifier.get()),
    }
}

fn retained_report(state: RetainedState<'_>) -> RetainedReport {
    let RetainedState { message, bytes } = state;
    RetainedReport {
        topic: message.topic.to_string(),
        id: message.id.to_string(),
        qos: message.qos.number(),
        bytes,
        published_unix_ms: message.id.published_at().0,
        expires_unix_ms: message.expires_at.map(|at| at.0),
    }
}
