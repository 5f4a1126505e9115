//! From the client: packets to events.

use std::num::NonZeroU16;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use postroad_base::{
    Extras, Message, MessageId, Now, QueueId, ReasonCode, SessionExpiry, TopicFilter, TopicName, Wishes,
};
use postroad_broker::api::{DisconnectCause, Event, Inbound, Subscribe as SubscribeLine};
use postroad_protocol::gather::Gather;
use postroad_protocol::mqtt::{
    Ack, Decoded, Disconnect, Forwarded, Packet, Publish, Subscribe, Unsubscribe, Version, decode,
};
use smallvec::SmallVec;

use super::{Closing, Connection, Limits};

/// What the start of the input was.
#[derive(Debug)]
pub enum Received {
    /// No whole packet: this many bytes are needed, counted from the start of the input.
    Incomplete {
        /// At least.
        needed: usize,
    },
    /// One packet.
    Packet {
        /// Bytes to take off the input.
        size: usize,
        /// What the broker has to know of it.
        event: Option<Event>,
    },
}

/// A payload up to this size is copied, wherever it lies: the packet around it need not be kept for it.
const COPIED_BYTES_MAX: usize = 4096;

type Handled = Result<Option<Event>, Closing>;

impl Connection {
    /// Takes the packet at the start of `bytes`. One per call: the broker may park the connection after any publish.
    /// What needs no broker is answered into `out`. Before CONNACK nothing is taken, after the end everything is ignored.
    ///
    /// # Errors
    /// If the connection has to end: the client said goodbye or broke a rule.
    pub fn receive(&mut self, now: Now, bytes: &[u8], limits: &Limits, out: &mut Gather) -> Result<Received, Closing> {
        self.receive_from(now, bytes, &Bytes::new(), limits, out)
    }

    /// As [`Self::receive`], for one packet that lies alone in memory of its own: a payload above [`COPIED_BYTES_MAX`]
    /// stays there.
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub fn receive_own(
        &mut self,
        now: Now,
        own: &Bytes,
        limits: &Limits,
        out: &mut Gather,
    ) -> Result<Received, Closing> {
        self.receive_from(now, own, own, limits, out)
    }

    fn receive_from(
        &mut self,
        now: Now,
        bytes: &[u8],
        own: &Bytes,
        limits: &Limits,
        out: &mut Gather,
    ) -> Result<Received, Closing> {
        if self.closed {
            return Ok(Received::Packet { size: bytes.len(), event: None }); // [MQTT-3.1.4-6]
        }
        if !self.is_connected() {
            return Ok(Received::Incomplete { needed: bytes.len() + 1 }); // it stays where it is [MQTT-3.1.4-5]
        }
        if self.starved {
            return Err(self.starvation());
        }
        match decode(bytes, Some(self.version), limits.packet_bytes_max)? {
            Decoded::Incomplete { needed } => Ok(Received::Incomplete { needed }),
            Decoded::Packet { packet, size } => {
                self.touch(now);
                let event = match packet {
                    Packet::Publish(publish) => self.publish(now, &publish, own, limits)?,
                    packet => self.packet(packet, limits, out)?,
                };
                Ok(Received::Packet { size, event })
            }
        }
    }

    fn packet(&mut self, packet: Packet<'_>, limits: &Limits, out: &mut Gather) -> Handled {
        let connection = self.id;
        match packet {
            Packet::PubAck(Ack { tag, reason, .. }) => Ok(Some(Event::Acknowledge { connection, tag, reason })),
            Packet::PubRec(Ack { tag, reason, .. }) => Ok(Some(Event::Receive { connection, tag, reason })),
            Packet::PubRel(Ack { tag, .. }) => Ok(Some(Event::Release { connection, tag })),
            Packet::PubComp(Ack { tag, .. }) => Ok(Some(Event::Complete { connection, tag })),
            Packet::Subscribe(subscribe) => self.subscribe(&subscribe),
            Packet::Unsubscribe(unsubscribe) => Ok(Some(self.unsubscribe(&unsubscribe))),
            Packet::PingReq => {
                self.write(&Packet::PingResp, out); // [MQTT-3.12.4-1], [CON-2]
                Ok(None)
            }
            Packet::Disconnect(disconnect) => {
                let closing = self.disconnect(&disconnect, limits);
                self.closed = closing.by_client;
                Err(closing)
            }
            Packet::Connect(_) => Err(protocol_error("second CONNECT")), // [MQTT-3.1.0-2]
            Packet::Auth(_) => Err(protocol_error("AUTH without an authentication method")), // [MQTT-4.12.0-7]
            _ => Err(protocol_error("packet that only a server sends")),
        }
    }

    fn publish(&mut self, now: Now, publish: &Publish<'_>, own: &Bytes, limits: &Limits) -> Handled {
        if !publish.properties.subscription_identifiers.is_empty() {
            return Err(protocol_error("PUBLISH from a client with a subscription identifier")); // [MQTT-3.3.4-6]
        }
        if publish.retain && !limits.retain_available {
            return Err(Closing::for_error(ReasonCode::RetainNotSupported, "retained messages are not taken"));
        }
        self.take_quota(publish, limits)?;
        let forwarded = publish.properties.forwarded.bytes();
        // What is small is copied into one allocation, a large payload stays where it was received.
        let stays = !own.is_empty() && publish.payload.len() > COPIED_BYTES_MAX;
        let copied_payload = if stays { &[] } else { publish.payload };
        let (topic, rest) = match self.aliased_topic(publish, limits)? {
            Some(topic) => (topic, copied(&[&forwarded, copied_payload])),
            None => {
                let mut all = copied(&[publish.topic.as_bytes(), &forwarded, copied_payload]);
                let topic = all.split_to(publish.topic.len());
                (topic_name(ByteString::try_from(topic).expect("these bytes were a str"))?, all)
            }
        };
        let lifetime = publish.properties.message_expiry;
        let (wishes, flaw) = wishes_of(&publish.properties.forwarded, now);
        let from = wishes.deliver_at.map_or(now.wall, |at| at.max(now.wall));
        let message = Message {
            id: MessageId(0),
            topic,
            properties: rest.slice(..forwarded.len()),
            payload: if stays { own.slice_ref(publish.payload) } else { rest.slice(forwarded.len()..) },
            qos: publish.qos,
            retain: publish.retain,
            expires_at: lifetime.map(|seconds| from.after(u64::from(seconds) * 1000)),
            publisher: QueueId::NONE,
            extras: Extras::of_wishes(wishes),
        };
        let message = Inbound { message: Arc::new(message), tag: publish.tag, dup: publish.dup, flaw };
        Ok(Some(Event::Publish { connection: self.id, message }))
    }

    /// `[MQTT-3.3.4-7]`: an MQTT 5 client may not have more unfinished than our receive maximum. MQTT 3 knows no such
    /// limit, but only 65,535 packet identifiers.
    fn take_quota(&mut self, publish: &Publish<'_>, limits: &Limits) -> Result<(), Closing> {
        let Some(tag) = publish.tag else { return Ok(()) };
        let (used, most) = match self.version {
            Version::V5 => (self.window.unfinished(), limits.receive_maximum),
            _ => (self.window.unanswered(), u16::MAX),
        };
        if used >= usize::from(most) {
            let detail = "more unfinished publications than the receive maximum";
            return Err(Closing::for_error(ReasonCode::ReceiveMaximumExceeded, detail));
        }
        self.window.publish(tag, publish.qos);
        Ok(())
    }

    /// The topic if an alias is involved: it has memory of its own then, since the table keeps it, and must not keep a
    /// payload.
    fn aliased_topic(&mut self, publish: &Publish<'_>, limits: &Limits) -> Result<Option<TopicName>, Closing> {
        let Some(alias) = publish.properties.topic_alias else { return Ok(None) };
        if publish.topic.is_empty() {
            return self.topic_of(alias, limits).map(Some);
        }
        check_alias(alias, limits)?;
        let topic = topic_name(ByteString::from(publish.topic))?;
        self.aliases().learn(alias, topic.clone());
        Ok(Some(topic))
    }

    fn topic_of(&mut self, alias: NonZeroU16, limits: &Limits) -> Result<TopicName, Closing> {
        check_alias(alias, limits)?;
        self.aliases.as_ref().and_then(|aliases| aliases.topic(alias)).ok_or(protocol_error("unknown topic alias"))
    }

    fn subscribe(&self, subscribe: &Subscribe<'_>) -> Handled {
        let mut filters = Vec::with_capacity(subscribe.filters.len());
        for &(text, mut options) in &subscribe.filters {
            let filter = TopicFilter::new(text).map_err(|_| ReasonCode::TopicFilterInvalid);
            if options.no_local && filter.as_ref().is_ok_and(TopicFilter::is_shared) {
                return Err(protocol_error("no-local on a shared subscription")); // [MQTT-3.8.3-4]
            }
            options.identifier = subscribe.identifier;
            filters.push(SubscribeLine { filter, options });
        }
        Ok(Some(Event::Subscribe { connection: self.id, tag: subscribe.tag, filters }))
    }

    fn unsubscribe(&self, unsubscribe: &Unsubscribe<'_>) -> Event {
        let filter = |text: &&str| TopicFilter::new(*text).map_err(|_| ReasonCode::TopicFilterInvalid);
        let filters = unsubscribe.filters.iter().map(filter).collect();
        Event::Unsubscribe { connection: self.id, tag: unsubscribe.tag, filters }
    }

    fn disconnect(&self, disconnect: &Disconnect<'_>, limits: &Limits) -> Closing {
        let expiry = disconnect.session_expiry.map(SessionExpiry);
        if expiry.is_some_and(SessionExpiry::outlives_connection) && !self.asked_to_last {
            return protocol_error("DISCONNECT gives a session an expiry that CONNECT did not"); // section 3.14.2.2.2
        }
        let expiry = expiry.map(|expiry| expiry.min(limits.session_expiry_max));
        let cause = if disconnect.reason == ReasonCode::Success {
            DisconnectCause::Normal { expiry } // [MQTT-3.14.4-3]
        } else {
            DisconnectCause::WithWill { expiry }
        };
        Closing { cause, reason: disconnect.reason, detail: "DISCONNECT", by_client: true }
    }
}

/// What the publisher wishes, beyond MQTT; and the reason with which it is refused if that can't be.
fn wishes_of(properties: &Forwarded<'_>, now: Now) -> (Wishes, Option<ReasonCode>) {
    let mut wishes = Wishes::default();
    if properties.is_empty() {
        return (wishes, None);
    }
    let mut all = properties.user_properties().iter();
    let taken = all
        .try_for_each(|(name, value)| wishes.take(name, value, now.wall).map(drop))
        .and_then(|()| wishes.check(now.wall));
    match taken {
        Ok(()) => (wishes, None),
        Err(_) => (Wishes::default(), Some(ReasonCode::ImplementationSpecificError)),
    }
}

fn check_alias(alias: NonZeroU16, limits: &Limits) -> Result<(), Closing> {
    if alias.get() > limits.topic_alias_maximum {
        return Err(Closing::for_error(ReasonCode::TopicAliasInvalid, "topic alias above the maximum")); // [MQTT-3.3.2-9]
    }
    Ok(())
}

/// One allocation for all parts: no slice may pin the receive buffer.
fn copied(parts: &[&[u8]]) -> Bytes {
    let size = parts.iter().map(|part| part.len()).sum();
    match size {
        0 => Bytes::new(),
        1..=64 => in_one::<64>(parts),
        65..=112 => in_one::<112>(parts),
        113..=176 => in_one::<176>(parts),
        177..=240 => in_one::<240>(parts),
        241..=304 => in_one::<304>(parts),
        305..=368 => in_one::<368>(parts),
        369..=496 => in_one::<496>(parts),
        497..=624 => in_one::<624>(parts),
        625..=752 => in_one::<752>(parts),
        753..=1008 => in_one::<1008>(parts),
        _ => {
            let mut all = BytesMut::with_capacity(size);
            parts.iter().for_each(|part| all.put_slice(part));
            all.freeze()
        }
    }
}

/// At most `N` bytes, in one piece of memory with the count of those who share them. A `Bytes` made of a vector takes a
/// second piece for the count as soon as topic and payload part. Count and length are 16 bytes more: the sizes above are those of
/// the allocator less these.
fn in_one<const N: usize>(parts: &[&[u8]]) -> Bytes {
    let mut all = SmallVec::<[u8; N]>::new();
    parts.iter().for_each(|part| all.extend_from_slice(part));
    Bytes::from_owner(all)
}

fn topic_name(text: ByteString) -> Result<TopicName, Closing> {
    TopicName::new(text).map_err(|_| Closing::for_error(ReasonCode::TopicNameInvalid, "not a topic name"))
}

fn protocol_error(detail: &'static str) -> Closing {
    Closing::for_error(ReasonCode::ProtocolError, detail)
}
