//! From the device: frames to events.

use std::sync::Arc;

use bytes::Bytes;
use postroad_base::{Message, MessageId, Now, Qos, QueueId, ReasonCode, Tag, TopicName};
use postroad_broker::api::{DisconnectCause, Event, Inbound};
use postroad_protocol::frame::{Accepts, Acknowledgement, Codec, Decoded, Fault, Frame, FrameError, Kind};
use postroad_protocol::gather::Gather;

use super::connection::starvation;
use super::handshake::Asked;
use super::in_flight::BROKER_TAG_BITS;
use super::{Broken, Connection, End};
/// As for MQTT.
pub use crate::mqtt::Received;

/// Publishes that may wait for their answer: each needs a tag of its own.
const UNANSWERED_MAX: usize = 65_535;

impl From<FrameError> for End {
    fn from(error: FrameError) -> Self {
        Self::broken(Broken::Frame(error.fault), error.detail)
    }
}

impl Connection {
    /// Takes the frame at the start of `bytes`. One per call: the broker may park the connection after any publish. What needs
    /// no broker is answered into `out`. Before the welcome nothing is taken, after the end everything is ignored.
    ///
    /// # Errors
    /// If the connection has to end: the device said goodbye, or something is broken.
    pub fn receive(
        &mut self,
        codec: &mut dyn Codec,
        now: Now,
        bytes: &[u8],
        out: &mut Gather,
    ) -> Result<Received, Box<End>> {
        if self.closed {
            return Ok(Received::Packet { size: bytes.len(), event: None });
        }
        if !self.is_connected() {
            return Ok(Received::Incomplete { needed: bytes.len() + 1 });
        }
        if self.starved {
            return Err(Box::new(starvation()));
        }
        let client = self.client.clone();
        let (frame, size) = match codec.decode(bytes, client.as_str()).map_err(|error| Box::new(error.into()))? {
            Decoded::Incomplete { needed } => return Ok(Received::Incomplete { needed }),
            Decoded::Frame { frame, size } => (frame, size),
        };
        self.touch(now);
        let asked = Asked::of(&frame);
        let event = match frame.kind {
            Kind::Publish => Some(self.publish(&frame)?),
            Kind::Ack => self.acknowledged(frame.tag),
            Kind::Ping => {
                if self.abilities.answers.pong {
                    self.write(codec, &asked.answer(Kind::Pong), out);
                }
                None
            }
            Kind::Bye => {
                self.closed = true;
                return Err(Box::new(goodbye()));
            }
            kind => return Err(Box::new(End::broken(Broken::Order, format!("{kind} after the hello")))),
        };
        Ok(Received::Packet { size, event })
    }

    fn publish(&mut self, frame: &Frame<'_>) -> Result<Event, Box<End>> {
        let topic = TopicName::new(frame.topic).map_err(|error| {
            let detail = format!("`{}` is not a topic name: {error}", frame.topic);
            Box::new(End::broken(Broken::Frame(Fault::Value), detail))
        })?;
        let tag = if self.is_answered(frame) { Some(self.expect_answer(Asked::of(frame))?) } else { None };
        let message = Message {
            id: MessageId(0),
            topic,
            properties: Bytes::new(),
            payload: Bytes::copy_from_slice(frame.payload),
            qos: if tag.is_some() { Qos::AtLeastOnce } else { Qos::AtMostOnce },
            retain: false,
            expires_at: None,
            publisher: QueueId::NONE,
            extras: None,
        };
        let message = Inbound { message: Arc::new(message), tag, dup: false, flaw: None };
        Ok(Event::Publish { connection: self.id, message })
    }

    /// Whether the device can be told that a publish is safe.
    fn is_answered(&self, frame: &Frame<'_>) -> bool {
        match self.abilities.answers.accepted {
            None => false,
            Some(Accepts::InTurn) => true,
            Some(Accepts::Tagged) => frame.tag.is_some(),
        }
    }

    /// Gives a publish its tag.
    fn expect_answer(&mut self, asked: Asked) -> Result<Tag, Box<End>> {
        if self.unanswered.len() >= UNANSWERED_MAX {
            let detail = "more publishes are unanswered than there are tags";
            return Err(Box::new(End::for_reason(ReasonCode::ReceiveMaximumExceeded, detail)));
        }
        self.serial = self.serial.checked_add(1).unwrap_or(1);
        let tag = Tag::new(self.serial).expect("from 1");
        self.unanswered.push_back((tag, asked));
        Ok(tag)
    }

    /// What is not in flight is nothing new to the broker, but for a tag of its own: it counts those.
    fn acknowledged(&mut self, named: Option<u64>) -> Option<Event> {
        let how = self.abilities.pushes?;
        let (connection, reason) = (self.id, ReasonCode::Success);
        match self.in_flight.acknowledge(named, how) {
            Some(push) => {
                let tag = push.tag?;
                Some(match push.qos {
                    Qos::ExactlyOnce => Event::Receive { connection, tag, reason },
                    _ => Event::Acknowledge { connection, tag, reason },
                })
            }
            None if matches!(how, Acknowledgement::Tagged { bits } if bits >= BROKER_TAG_BITS) => {
                let tag = Tag::new(u16::try_from(named?).ok()?)?;
                Some(Event::Acknowledge { connection, tag, reason })
            }
            None => None,
        }
    }
}

fn goodbye() -> End {
    End {
        cause: DisconnectCause::Normal { expiry: None },
        reason: ReasonCode::Success,
        broken: None,
        detail: "bye".to_owned(),
        by_client: true,
    }
}
