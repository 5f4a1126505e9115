//! Wills `[MQTT-3.1.2-8]`: published when the connection is lost, or later, or when the session ends,
//! whichever comes first of the delay and the end `[MQTT-3.1.3-9]`.

use base::{Extras, Message, MessageId, QueueId, Record, Will};
use postroad_base as base;

use crate::api::Counted;
use crate::broker::Broker;
use crate::session::SessionIndex;
use crate::timers::Timer;

impl Broker {
    /// The connection is over without a DISCONNECT that discards the will.
    pub(crate) fn schedule_will(&mut self, index: SessionIndex) {
        let Some(will) = &self.sessions[index as usize].will else { return };
        if will.delay_seconds == 0 {
            return self.publish_will(index);
        }
        let at = self.now.mono.after(u64::from(will.delay_seconds) * 1000);
        let id = self.sessions[index as usize].id;
        let key = self.timers.set(at, Timer::Will(index, id));
        self.sessions[index as usize].will_timer = Some(key);
    }

    pub(crate) fn will_due(&mut self, index: SessionIndex, id: QueueId) {
        if self.sessions.get(index as usize).is_some_and(|session| session.id == id) {
            self.sessions[index as usize].will_timer = None;
            self.publish_will(index);
        }
    }

    /// Publishes the will, if there is one; it is gone then `[MQTT-3.1.2-10]`.
    pub(crate) fn publish_will(&mut self, index: SessionIndex) {
        let Some(will) = self.take_will(index) else { return };
        self.count(Counted::WillPublished);
        let publisher = self.sessions[index as usize].id;
        let expiry = will.expiry_seconds.map(|seconds| self.now.wall.after(u64::from(seconds) * 1000));
        let Will { topic, payload, properties, qos, retain, wishes, .. } = *will;
        let (id, extras) = (MessageId(0), Extras::of_wishes(wishes));
        let message = Message { id, topic, payload, properties, qos, retain, expires_at: expiry, publisher, extras };
        let (stamp, messages) = self.decide_orphan(index, message.into());
        messages.into_iter().for_each(|message| self.publish_orphan(message, stamp));
        // Logged after the publication: a crash in between publishes it again rather than never.
        self.log_will(index);
    }

    pub(crate) fn discard_will(&mut self, index: SessionIndex) {
        if self.take_will(index).is_some() {
            self.log_will(index);
        }
    }

    pub(crate) fn set_will(&mut self, index: SessionIndex, will: Option<Box<Will>>) {
        let had = self.take_will(index).is_some();
        let has = will.is_some();
        self.sessions[index as usize].will = will;
        if had || has {
            self.log_will(index);
        }
    }

    fn take_will(&mut self, index: SessionIndex) -> Option<Box<Will>> {
        let session = &mut self.sessions[index as usize];
        self.timers.cancel(session.will_timer.take());
        session.will.take()
    }

    fn log_will(&mut self, index: SessionIndex) {
        let session = &self.sessions[index as usize];
        if session.logged {
            let (queue, will) = (session.id, session.will.clone());
            self.append(Record::WillSet { queue, will });
            self.mark_dirty(index);
        }
    }
}
