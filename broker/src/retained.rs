//! Retained messages: each lives on the home shard of its topic.

use std::sync::Arc;

use base::{Message, QueueId, Record, ShardId, SubscriptionOptions, TopicFilter, TopicName};
use postroad_base as base;

use crate::api::{Counted, Effect, MeshMessage, StateKey};
use crate::broker::Broker;
use crate::mesh::{Query, Token};
use crate::queue::Entry;
use crate::session::SessionIndex;
use crate::timers::{Timer, TimerKey};

/// Messages of one answer to another shard.
const PORTION: usize = 64;

/// A retained message.
#[derive(Debug)]
pub(crate) struct Kept {
    pub message: Arc<Message>,
    timer: Option<TimerKey>,
}

impl Broker {
    /// Stores or clears the retained message of a topic that lives here `[MQTT-3.3.1-5]`, `[MQTT-3.3.1-6]`,
    /// `[MQTT-3.3.1-7]`.
    pub(crate) fn retain(&mut self, message: &Arc<Message>) {
        let topic = &message.topic;
        if message.payload.is_empty() {
            if self.unkeep(topic) {
                self.log_retained(topic, None);
            }
            return;
        }
        let known = self.retained.get(topic.as_str()).is_some();
        if !known && self.retained.len() >= self.config.retained_max {
            return self.count(Counted::RetainedLimit);
        }
        self.keep(Arc::clone(message));
        self.log_retained(topic, Some(message));
    }

    /// Keeps a message, instead of an older one; its time runs from now.
    pub(crate) fn keep(&mut self, message: Arc<Message>) {
        let topic = message.topic.clone();
        let timer = message.expires_at.map(|expires_at| {
            let at = self.now.mono.after(expires_at.since(self.now.wall));
            self.timers.set(at, Timer::Retained(topic.clone()))
        });
        let old = self.retained.insert(topic.as_str(), Kept { message, timer });
        self.timers.cancel(old.and_then(|old| old.timer));
    }

    /// Keeps nothing for this topic; whether there was something.
    pub(crate) fn unkeep(&mut self, topic: &TopicName) -> bool {
        let old = self.retained.remove(topic.as_str());
        let existed = old.is_some();
        self.timers.cancel(old.and_then(|old| old.timer));
        existed
    }

    /// `[MQTT-3.3.2-5]` for a retained message: it makes room.
    pub(crate) fn retained_expired(&mut self, topic: &TopicName) {
        if self.unkeep(topic) {
            self.count(Counted::Expired);
            self.log_retained(topic, None);
        }
    }

    fn log_retained(&mut self, topic: &TopicName, message: Option<&Arc<Message>>) {
        if !self.config.durable {
            return;
        }
        self.append(match message {
            Some(message) => Record::Retain { message: Arc::clone(message) },
            None => Record::RetainClear { topic: topic.clone() },
        });
        self.retiring.dirty.insert(StateKey::Retained(topic.clone()));
    }

    /// What is retained here for a filter and has not expired.
    fn retained_here(&self, filter: &TopicFilter) -> Vec<Arc<Message>> {
        let mut found = Vec::new();
        self.retained.matches(filter.pattern(), &mut |_, Kept { message, .. }| {
            if message.expires_at.is_none_or(|at| at > self.now.wall) {
                found.push(Arc::clone(message));
            }
        });
        found
    }

    /// A new subscription asks all shards that may hold a match.
    pub(crate) fn ask_retained(
        &mut self,
        session: SessionIndex,
        queue: QueueId,
        filter: &TopicFilter,
        options: SubscriptionOptions,
    ) {
        for to in self.mesh.others() {
            if !filter.has_wildcard() && self.config.placement.home(filter.pattern().as_bytes()) != to {
                continue;
            }
            let token = self.mesh.next_token();
            let query = Query { session, queue, filter: filter.clone(), options };
            self.mesh.tokens.insert(token, Token::Retained(Box::new(query)));
            self.sessions[session as usize].watch.get_or_insert_default().queries += 1;
            let message = MeshMessage::RetainedQuery { filter: filter.clone(), token };
            self.effects.push_back(Effect::Mesh { to, message });
        }
        for message in self.retained_here(filter) {
            self.give_retained(session, &message, options);
        }
    }

    pub(crate) fn retained_query(&mut self, from: ShardId, filter: &TopicFilter, token: u64) {
        let found = self.retained_here(filter);
        let portions = found.len().div_ceil(PORTION).max(1);
        for portion in 0..portions {
            let part = &found[portion * PORTION..found.len().min((portion + 1) * PORTION)];
            let end = portion + 1 == portions;
            let message = MeshMessage::RetainedMatches { messages: part.to_vec(), token, end };
            self.effects.push_back(Effect::Mesh { to: from, message });
        }
    }

    pub(crate) fn retained_matches(&mut self, token: u64, messages: &[Arc<Message>], end: bool) {
        let Some(Token::Retained(query)) = self.mesh.tokens.get(&token) else { return };
        let (index, queue, options) = (query.session, query.queue, query.options);
        let known = |session: &crate::session::Session| session.id == queue;
        let alive = self.sessions.get(index as usize).is_some_and(known);
        // Unsubscribed meanwhile: nothing more for it.
        let wanted = alive && self.sessions[index as usize].subscription(&query.filter).is_some();
        if wanted {
            for message in messages {
                self.give_retained(index, message, options);
            }
        }
        if end {
            self.mesh.tokens.remove(&token);
        }
        if end && alive {
            self.query_ended(index);
        }
    }

    fn query_ended(&mut self, index: SessionIndex) {
        let watch = &mut self.sessions[index as usize].watch;
        if let Some(open) = watch {
            open.queries -= 1;
            if open.queries == 0 {
                *watch = None;
            }
        }
    }

    /// Gives a retained message to a session, with the retain flag `[MQTT-3.3.1-8]`, unless it got this one
    /// or a newer one live.
    fn give_retained(&mut self, index: SessionIndex, message: &Arc<Message>, options: SubscriptionOptions) {
        let session = &self.sessions[index as usize];
        if options.no_local && message.publisher == session.id {
            return;
        }
        let seen = session.watch.as_ref().and_then(|watch| watch.seen.get(&message.topic));
        if seen.is_some_and(|newest| *newest >= message.id) {
            return;
        }
        let (queue, logged) = (session.id, session.logged);
        let mut entry = Entry {
            sequence: self.gate.appended(),
            message: Arc::clone(message),
            identifiers: options.identifier.into_iter().collect(),
            qos: options.qos.min(message.qos),
            retain: true,
            dup: false,
            stored: false,
            shared: false,
        };
        if logged && entry.qos.is_acknowledged() {
            let recipients = vec![entry.recipient(queue)];
            entry.sequence = self.append(Record::Publish { message: Arc::clone(message), recipients });
        }
        self.enqueue(index, entry);
    }

    /// A retained message (or its clearing) went to a session that asks for older ones.
    pub(crate) fn note_seen(&mut self, index: SessionIndex, message: &Message) {
        if !message.retain {
            return;
        }
        if let Some(watch) = &mut self.sessions[index as usize].watch {
            let newest = watch.seen.entry(message.topic.clone()).or_insert(message.id);
            *newest = message.id.max(*newest);
        }
    }
}
