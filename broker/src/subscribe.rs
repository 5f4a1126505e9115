//! SUBSCRIBE and UNSUBSCRIBE.
//!
//! A subscription works on this shard at once. SUBACK waits until its record is committed and every other
//! shard sends us what matches; retained messages are asked for after that, so that nothing falls between.

use ahash::{AHashMap, AHashSet};
use base::{ConnectionId, Qos, QueueId, ReasonCode, Record, RetainHandling, SubscriptionOptions, Tag, TopicFilter};
use postroad_base as base;
use smallvec::SmallVec;

use crate::access::Action;
use crate::api::{Counted, Effect, Subscribe};
use crate::broker::Broker;
use crate::gate::Waiter;
use crate::hooks::Peer;
use crate::interests::Asker;
use crate::session::{ConnectionIndex, Session, SessionIndex};
use crate::timers::{Timer, TimerKey};

/// Who is answered once a subscription works.
#[derive(Debug)]
pub(crate) enum Asked {
    /// A client, by SUBACK.
    Client { connection: ConnectionId, tag: Tag },
    /// A caller, for a consumer group.
    Group { token: u64, is_new: bool, unwanted: Vec<TopicFilter> },
}

/// A SUBSCRIBE that is not answered yet.
#[derive(Debug)]
pub(crate) struct Operation {
    asked: Asked,
    session: SessionIndex,
    queue: QueueId,
    reasons: SmallVec<[ReasonCode; 1]>,
    /// What was granted, with its place in `reasons`.
    granted: Vec<Granted>,
    /// Some of it wants retained messages: the session watches what comes live.
    watches: bool,
    /// Filters that some shard has not confirmed yet.
    missing: usize,
    committed: bool,
    timer: Option<TimerKey>,
}

#[derive(Debug)]
struct Granted {
    place: usize,
    filter: TopicFilter,
    options: SubscriptionOptions,
    is_new: bool,
}

impl Granted {
    /// `[MQTT-3.3.1-9]`, `[MQTT-3.3.1-10]`, `[MQTT-3.3.1-11]`; none for shared subscriptions (4.8.2).
    fn wants_retained(&self) -> bool {
        let wanted = match self.options.retain_handling {
            RetainHandling::Always => true,
            RetainHandling::IfNew => self.is_new,
            RetainHandling::Never => false,
        };
        wanted && !self.filter.is_shared()
    }
}

impl Broker {
    pub(crate) fn subscribe(&mut self, connection: ConnectionId, tag: Tag, filters: Vec<Subscribe>) {
        let Some(place) = self.place_of(connection) else { return };
        let session = self.session_of(place);
        let name = self.mesh.next_token();
        let mut operation = self.operation(session, Asked::Client { connection, tag });
        for (place_of_line, line) in filters.into_iter().enumerate() {
            let reason = self.subscribe_one(place, name, place_of_line, line, &mut operation);
            operation.reasons.push(reason);
        }
        operation.watches = operation.granted.iter().any(Granted::wants_retained);
        if operation.watches {
            let wanted = operation.granted.iter().filter(|granted| granted.wants_retained());
            self.begin_watch(session, wanted.map(|granted| &granted.filter));
        }
        let is_opening = self.connections[place as usize].opening;
        self.begin_operation(name, operation, is_opening);
    }

    /// The session of a consumer group subscribes to these, which have been judged. `asked` hears when each shard knows.
    pub(crate) fn subscribe_to(
        &mut self,
        session: SessionIndex,
        asked: Asked,
        filters: Vec<(TopicFilter, SubscriptionOptions)>,
    ) {
        let name = self.mesh.next_token();
        let mut operation = self.operation(session, asked);
        for (place, (filter, options)) in filters.into_iter().enumerate() {
            let reason = self.grant(name, place, filter, options, &mut operation);
            operation.reasons.push(reason);
        }
        self.begin_operation(name, operation, false);
    }

    fn operation(&self, session: SessionIndex, asked: Asked) -> Operation {
        Operation {
            asked,
            session,
            queue: self.sessions[session as usize].id,
            reasons: SmallVec::new(),
            granted: Vec::new(),
            watches: false,
            missing: 0,
            committed: false,
            timer: None,
        }
    }

    fn begin_operation(&mut self, name: u64, mut operation: Operation, is_opening: bool) {
        let session = operation.session;
        if operation.missing > 0 {
            let at = self.now.mono.after(self.config.subscribe_timeout_ms);
            operation.timer = Some(self.timers.set(at, Timer::Subscribe(name)));
        }
        self.operations.insert(name, operation);
        if self.sessions[session as usize].logged || is_opening {
            self.after_commit(Waiter::Subscribe(name));
        } else {
            self.subscribe_committed(name);
        }
    }

    fn subscribe_one(
        &mut self,
        place: ConnectionIndex,
        name: u64,
        place_of_line: usize,
        line: Subscribe,
        operation: &mut Operation,
    ) -> ReasonCode {
        let filter = match line.filter {
            Ok(filter) => filter,
            Err(reason) => return reason,
        };
        if let Some((reason, why)) = self.subscription_refusal(place, &filter) {
            self.count(why);
            return reason;
        }
        match self.ask_about_subscription(place, &filter, line.options.qos) {
            Ok(qos) => self.grant(name, place_of_line, filter, SubscriptionOptions { qos, ..line.options }, operation),
            Err(reason) => {
                self.count(Counted::PluginRefused);
                reason
            }
        }
    }

    /// What plugins say: at which level at most, or why not.
    fn ask_about_subscription(
        &mut self,
        place: ConnectionIndex,
        filter: &TopicFilter,
        qos: Qos,
    ) -> Result<Qos, ReasonCode> {
        let Self { hooks: Some(hooks), sessions, connections, now, .. } = self else { return Ok(qos) };
        let Session { client, principal, .. } = &sessions[connections[place as usize].session as usize];
        let answer = hooks.subscribe(*now, Peer { client, principal, is_application: false }, filter, qos);
        self.publish_for_plugins(answer.publish);
        answer.answer.map(|at_most| at_most.min(qos))
    }

    fn grant(
        &mut self,
        name: u64,
        place: usize,
        filter: TopicFilter,
        options: SubscriptionOptions,
        operation: &mut Operation,
    ) -> ReasonCode {
        let index = operation.session;
        let is_new = self.sessions[index as usize].subscriptions.insert(&filter, options).is_none();
        let asker = Asker { operation: name, session: index };
        let waits = if is_new { self.want(&filter, Some(asker)) } else { self.want_still(&filter, asker) };
        operation.missing += usize::from(waits);
        self.index_subscription(index, &filter, options);
        let session = &self.sessions[index as usize];
        if session.logged {
            self.append(Record::Subscribe { queue: session.id, filter: filter.clone(), options });
            self.mark_dirty(index);
        }
        operation.granted.push(Granted { place, filter, options, is_new });
        granted(options.qos)
    }

    fn subscription_refusal(&self, place: ConnectionIndex, filter: &TopicFilter) -> Option<(ReasonCode, Counted)> {
        let connection = &self.connections[place as usize];
        let session = &self.sessions[connection.session as usize];
        if self.has_too_many_levels(filter.pattern()) {
            return Some((ReasonCode::TopicFilterInvalid, Counted::TopicLevels));
        }
        if !self.acl.decide(&session.principal, &session.client, Action::Subscribe, filter.pattern()) {
            return Some((ReasonCode::NotAuthorized, Counted::NotAuthorized));
        }
        let full = session.subscriptions.len() >= self.config.limits.subscriptions_max;
        if full && session.subscriptions.get(filter).is_none() {
            return Some((ReasonCode::QuotaExceeded, Counted::SubscriptionLimit));
        }
        None
    }

    /// Enters a subscription into the index (or the share group).
    pub(crate) fn index_subscription(
        &mut self,
        index: SessionIndex,
        filter: &TopicFilter,
        options: SubscriptionOptions,
    ) {
        if filter.is_shared() {
            return self.share_join(index, filter, options);
        }
        self.subscriptions.insert(filter.pattern(), index, options);
    }

    pub(crate) fn unindex_subscription(&mut self, index: SessionIndex, filter: &TopicFilter) {
        self.unwant(filter);
        if filter.is_shared() {
            return self.share_leave(index, filter);
        }
        self.subscriptions.remove(filter.pattern(), index);
    }

    pub(crate) fn subscribe_interest_set(&mut self, name: u64) {
        if let Some(operation) = self.operations.get_mut(&name) {
            operation.missing = operation.missing.saturating_sub(1);
            self.subscribe_done(name);
        }
    }

    pub(crate) fn subscribe_committed(&mut self, name: u64) {
        if let Some(operation) = self.operations.get_mut(&name) {
            operation.committed = true;
            self.subscribe_done(name);
        }
    }

    /// SUBACK, and retained messages after it, once nothing is missing.
    fn subscribe_done(&mut self, name: u64) {
        let ready = |operation: &Operation| operation.committed && operation.missing == 0;
        if !self.operations.get(&name).is_some_and(ready) {
            return;
        }
        let Some(operation) = self.operations.remove(&name) else { return };
        self.timers.cancel(operation.timer);
        let Operation { asked, reasons, session, queue, granted, watches, .. } = operation;
        match asked {
            Asked::Client { connection, tag } if self.place_of(connection).is_some() => {
                self.effects.push_back(Effect::Subscribed { connection, tag, reasons });
            }
            Asked::Client { .. } => {}
            Asked::Group { token, is_new, unwanted } => {
                let index = self.session_of_queue(queue);
                self.group_set(index, token, is_new, &unwanted, &reasons);
            }
        }
        if watches {
            let wanted = granted.into_iter().filter(Granted::wants_retained).map(|granted| granted.filter);
            self.give_retained_for(session, queue, wanted.collect());
        }
    }

    /// Some shard has not answered in time: what waits for it is undone and refused (DESIGN 3), but for what a later SUBSCRIBE
    /// of the session has asked for again. (That one was told that it had been granted what was undone.)
    pub(crate) fn subscribe_timeout(&mut self, name: u64) {
        let Some(operation) = self.operations.get_mut(&name) else { return };
        operation.timer = None;
        operation.missing = 0;
        let asker = Asker { operation: name, session: operation.session };
        let (queue, granted) = (operation.queue, std::mem::take(&mut operation.granted));
        let (undone, kept): (Vec<_>, _) = granted.into_iter().partition(|item| self.is_unconfirmed(&item.filter));
        if let Some(operation) = self.operations.get_mut(&name) {
            operation.granted = kept;
            for item in &undone {
                operation.reasons[item.place] = ReasonCode::UnspecifiedError;
            }
        }
        if self.sessions.get(asker.session as usize).is_some_and(|session| session.id == queue) {
            self.undo(asker, undone);
        }
        self.subscribe_done(name);
    }

    fn undo(&mut self, asker: Asker, undone: Vec<Granted>) {
        let mut inherited: AHashMap<u64, AHashSet<TopicFilter>> = AHashMap::new();
        for item in undone {
            match self.superseded_by(&item.filter, asker) {
                None => drop(self.drop_subscription(asker.session, &item.filter)),
                Some(heir) if item.is_new => drop(inherited.entry(heir).or_default().insert(item.filter)),
                Some(_) => {}
            }
        }
        for (heir, filters) in inherited {
            self.inherit(asker.session, heir, &filters);
        }
    }

    /// These subscriptions are new with this SUBSCRIBE, since an earlier one is refused: what is retained comes with it.
    fn inherit(&mut self, session: SessionIndex, heir: u64, filters: &AHashSet<TopicFilter>) {
        let Some(operation) = self.operations.get_mut(&heir) else { return };
        let (mut wanted, mut unwanted) = (Vec::new(), Vec::new());
        for item in operation.granted.iter_mut().filter(|item| filters.contains(&item.filter)) {
            item.is_new = true;
            if item.wants_retained() { wanted.push(item.filter.clone()) } else { unwanted.push(item.filter.clone()) }
        }
        let begins = !operation.watches && !wanted.is_empty();
        operation.watches |= begins;
        if begins {
            self.begin_watch(session, wanted.iter());
        }
        for filter in unwanted {
            self.given(session, &filter);
        }
    }

    pub(crate) fn unsubscribe(
        &mut self,
        connection: ConnectionId,
        tag: Tag,
        filters: Vec<Result<TopicFilter, ReasonCode>>,
    ) {
        let Some(place) = self.place_of(connection) else { return };
        let session = self.session_of(place);
        let mut reasons = SmallVec::new();
        for filter in filters {
            reasons.push(match filter {
                Err(reason) => reason,
                Ok(filter) if self.drop_subscription(session, &filter) => ReasonCode::Success,
                Ok(_) => ReasonCode::NoSubscriptionExisted,
            });
        }
        let effect = Effect::Unsubscribed { connection, tag, reasons };
        if self.sessions[session as usize].logged || self.connections[place as usize].opening {
            self.after_commit(Waiter::Emit(Box::new(effect)));
        } else {
            self.effects.push_back(effect);
        }
    }

    /// Ends a subscription; whether there was one `[MQTT-3.10.4-1]`, `[MQTT-3.10.4-2]`.
    pub(crate) fn drop_subscription(&mut self, index: SessionIndex, filter: &TopicFilter) -> bool {
        let session = &mut self.sessions[index as usize];
        if !session.subscriptions.remove(filter) {
            return false;
        }
        if session.logged {
            let queue = session.id;
            self.append(Record::Unsubscribe { queue, filter: filter.clone() });
            self.mark_dirty(index);
        }
        self.stop_giving(index, filter);
        self.unindex_subscription(index, filter);
        true
    }
}

fn granted(qos: Qos) -> ReasonCode {
    match qos {
        Qos::AtMostOnce => ReasonCode::Success,
        Qos::AtLeastOnce => ReasonCode::GrantedQos1,
        Qos::ExactlyOnce => ReasonCode::GrantedQos2,
    }
}
