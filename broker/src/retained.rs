//! Retained messages: each lives on the home shard of its topic. How they come to new subscribers: `giving`.

use std::sync::Arc;

use base::{Message, QueueId, Record, TopicName};
use postroad_base as base;

use crate::api::{Counted, StateKey};
use crate::broker::Broker;
use crate::connect::is_logged;
use crate::timers::{Timer, TimerKey};

/// A retained message.
#[derive(Debug)]
pub(crate) struct Kept {
    pub message: Arc<Message>,
    timer: Option<TimerKey>,
}

impl Broker {
    /// Stores or clears the retained message of a topic that lives here `[MQTT-3.3.1-5]`, `[MQTT-3.3.1-6]`,
    /// `[MQTT-3.3.1-7]`. `false` if there is no room for it: then the older one stays.
    pub(crate) fn retain(&mut self, message: &Arc<Message>) -> bool {
        let topic = &message.topic;
        if self.is_overtaken(message) {
            return true;
        }
        if message.payload.is_empty() {
            if self.unkeep(topic) {
                self.log_retained(topic, None);
            }
            return true;
        }
        if self.lacks_room_to_retain(message) {
            self.count(Counted::RetainedLimit);
            return false;
        }
        self.keep(Arc::clone(message));
        self.log_retained(topic, Some(message));
        true
    }

    /// One that may have been repeated, or was to be published before now: what has been retained since is newer.
    fn is_overtaken(&self, message: &Message) -> bool {
        let kept = self.retained.get(message.topic.as_str());
        self.repeats.is_told(message.id)
            && kept.is_some_and(|kept| kept.message.place_in_time() > message.place_in_time())
    }

    /// Whether the message, whose topic lives here, is to be kept and can't be.
    pub(crate) fn lacks_room_to_retain(&self, message: &Message) -> bool {
        let old = self.retained.get(message.topic.as_str()).map(|kept| kept.message.size());
        let bytes = self.retained_bytes - old.unwrap_or(0) + message.size();
        let too_many = old.is_none() && self.retained.len() >= self.config.limits.retained_max;
        !message.payload.is_empty() && (too_many || bytes > self.config.limits.retained_bytes_max)
    }

    /// Keeps a message, instead of an older one; its time runs from now.
    pub(crate) fn keep(&mut self, message: Arc<Message>) {
        let topic = message.topic.clone();
        let timer = message.expires_at.map(|expires_at| {
            let at = self.now.mono.after(expires_at.since(self.now.wall));
            self.timers.set(at, Timer::Retained(topic.clone()))
        });
        self.retained_bytes += message.size();
        let old = self.retained.insert(topic.as_str(), Kept { message, timer });
        self.released(old);
    }

    /// Recovery: keeps a message of a former run. If the log did not know its publisher's session, nobody is its
    /// publisher any more: another session may have that number today, and no-local would withhold the message from it.
    pub(crate) fn keep_replayed(&mut self, mut message: Arc<Message>) {
        if !is_logged(message.publisher) {
            Arc::make_mut(&mut message).publisher = QueueId::NONE;
        }
        self.keep(message);
    }

    fn released(&mut self, old: Option<Kept>) {
        let Some(Kept { message, timer }) = old else { return };
        self.retained_bytes -= message.size();
        self.timers.cancel(timer);
    }

    /// Keeps nothing for this topic; whether there was something.
    pub(crate) fn unkeep(&mut self, topic: &TopicName) -> bool {
        let old = self.retained.remove(topic.as_str());
        let existed = old.is_some();
        self.released(old);
        existed
    }

    /// `[MQTT-3.3.2-5]` for a retained message: it makes room.
    pub(crate) fn retained_expired(&mut self, topic: &TopicName) {
        if self.unkeep(topic) {
            self.count(Counted::Expired);
            self.log_retained(topic, None);
        }
    }

    pub(crate) fn log_retained(&mut self, topic: &TopicName, message: Option<&Arc<Message>>) {
        if !self.config.durable {
            return;
        }
        self.append(match message {
            Some(message) => Record::Retain { message: Arc::clone(message) },
            None => Record::RetainClear { topic: topic.clone() },
        });
        self.retiring.dirty.insert(StateKey::Retained(topic.clone()));
    }
}
