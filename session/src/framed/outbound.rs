//! To the device: effects to frames.

use std::collections::VecDeque;

use postroad_base::{Qos, ReasonCode, Tag};
use postroad_broker::api::{Delivery, Event};
use postroad_protocol::frame::{Acknowledgement, Codec, Frame, Kind};
use postroad_protocol::gather::Gather;

use super::{Connection, End};

/// Answers whose room is kept when none waits any more.
const ROOM_KEPT_MAX: usize = 32;

/// What became of a delivery.
#[derive(Debug)]
pub enum Delivered {
    /// It is in the output. The event: that is all that will ever be known of it.
    Sent(Option<Event>),
    /// It can't be said in such frames, and was not sent; the broker is to treat it as refused.
    Unfit(Option<Event>),
}

impl Connection {
    /// Welcome, if the codec has one.
    pub fn connected(&mut self, codec: &mut dyn Codec, out: &mut Gather) {
        let Some(asked) = self.hello.take_if(|_| !self.closed) else { return };
        if self.abilities.answers.welcome {
            self.write(codec, &asked.answer(Kind::Welcome), out);
        }
    }

    /// A refusal, if the codec has one, after which the connection is closed.
    pub fn connect_refused(&mut self, codec: &mut dyn Codec, reason: ReasonCode, out: &mut Gather) {
        let Some(asked) = self.hello.take() else { return };
        if !std::mem::replace(&mut self.closed, true) && self.abilities.answers.refused {
            let refusal = Frame { reason: reason.number(), ..asked.answer(Kind::Refused) };
            let _ = codec.encode(&refusal, out.head()); // what can't be said is not: it closes either way
        }
    }

    /// Whether a publish refused for this reason ends the connection instead of being answered: the device can't be told, and
    /// to accept what was not taken would lose it. What is refused for good it would send for ever, so that is accepted, as
    /// for MQTT 3.
    pub fn refusal_ends(&self, reason: ReasonCode) -> Option<End> {
        let is_lost = reason.is_error() && !reason.is_final() && !self.abilities.answers.refused;
        is_lost.then(|| End::for_reason(reason, "a refused publish, which these frames can't tell of"))
    }

    /// Accepted or refused, unless [`Connection::refusal_ends`] the connection.
    pub fn published(&mut self, codec: &mut dyn Codec, tag: Tag, reason: ReasonCode, out: &mut Gather) {
        let place = self.unanswered.iter().position(|(known, _)| *known == tag);
        debug_assert!(place == Some(0) || self.closed, "answers come in the order of the publishes");
        let Some((_, asked)) = place.and_then(|place| self.unanswered.remove(place)) else { return };
        if self.unanswered.is_empty() && self.unanswered.capacity() > ROOM_KEPT_MAX {
            self.unanswered = VecDeque::new();
        }
        let is_refused = reason.is_error() && self.abilities.answers.refused;
        let answer = asked.answer(if is_refused { Kind::Refused } else { Kind::Accepted });
        let reason = if is_refused { reason.number() } else { 0 };
        self.write(codec, &Frame { reason, ..answer }, out);
    }

    /// The broker releases a QoS 2 delivery: these frames have no second step, so that is over too.
    pub fn release(&mut self, tag: Tag) -> Event {
        Event::Complete { connection: self.id, tag }
    }

    /// The server ends the connection: nothing is said, but before the welcome a refusal.
    pub fn close(&mut self, codec: &mut dyn Codec, reason: ReasonCode, out: &mut Gather) {
        if !self.is_connected() {
            return self.connect_refused(codec, reason, out);
        }
        self.closed = true;
    }

    /// Push.
    pub fn deliver(&mut self, codec: &mut dyn Codec, delivery: &Delivery, out: &mut Gather) -> Delivered {
        if !self.is_open() {
            return Delivered::Sent(None); // into the void: the session keeps what is not acknowledged
        }
        let reason = ReasonCode::PayloadFormatInvalid;
        let Some(how) = self.abilities.pushes else { return Delivered::Unfit(self.settled(delivery, reason)) };
        let Some(number) = self.in_flight.send(delivery.tag, delivery.qos, how) else {
            return Delivered::Unfit(self.settled(delivery, ReasonCode::ReceiveMaximumExceeded));
        };
        let topic = delivery.topic.as_ref().unwrap_or(&delivery.message.topic);
        let push = Frame {
            tag: Some(number),
            topic: topic.as_str(),
            payload: &delivery.message.payload,
            ..Frame::new(Kind::Push)
        };
        if codec.encode(&push, out.head()).is_err() {
            self.in_flight.take_back(delivery.tag);
            return Delivered::Unfit(self.settled(delivery, reason));
        }
        let is_over = how == Acknowledgement::None;
        Delivered::Sent(is_over.then(|| self.settled(delivery, ReasonCode::Success)).flatten())
    }

    /// The broker is told in the place of the device.
    fn settled(&self, delivery: &Delivery, reason: ReasonCode) -> Option<Event> {
        let (connection, tag) = (self.id, delivery.tag?);
        Some(match delivery.qos {
            Qos::ExactlyOnce => Event::Receive { connection, tag, reason },
            _ => Event::Acknowledge { connection, tag, reason },
        })
    }

    /// Writes an answer; if that can't be, the next [`Connection::receive`] or [`Connection::on_deadline`] ends the
    /// connection.
    pub(super) fn write(&mut self, codec: &mut dyn Codec, frame: &Frame<'_>, out: &mut Gather) {
        if self.is_open() && codec.encode(frame, out.head()).is_err() {
            self.starved = true;
        }
    }
}
