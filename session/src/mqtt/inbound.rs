//! From the client: packets to events.

use std::num::NonZeroU16;

use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use postroad_base::{Message, MessageId, Now, QueueId, ReasonCode, SessionExpiry, TopicFilter, TopicName};
use postroad_broker::api::{DisconnectCause, Event, Inbound, Subscribe as SubscribeLine};
use postroad_protocol::gather::Gather;
use postroad_protocol::mqtt::{Ack, Decoded, Disconnect, Packet, Publish, Subscribe, Unsubscribe, decode};

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

type Handled = Result<Option<Event>, Closing>;

impl Connection {
    /// Takes the packet at the start of `bytes`. One per call: the broker may park the connection after any publish.
    /// What needs no broker is answered into `out`.
    ///
    /// # Errors
    /// If the connection has to end: the client said goodbye or broke a rule.
    pub fn receive(&mut self, now: Now, bytes: &[u8], limits: &Limits, out: &mut Gather) -> Result<Received, Closing> {
        match decode(bytes, Some(self.version), limits.packet_bytes_max)? {
            Decoded::Incomplete { needed } => Ok(Received::Incomplete { needed }),
            Decoded::Packet { packet, size } => {
                self.touch(now);
                let event = self.packet(now, packet, limits, out)?;
                Ok(Received::Packet { size, event })
            }
        }
    }

    fn packet(&mut self, now: Now, packet: Packet<'_>, limits: &Limits, out: &mut Gather) -> Handled {
        let connection = self.id;
        match packet {
            Packet::Publish(publish) => self.publish(now, &publish, limits),
            Packet::PubAck(Ack { tag, reason, .. }) => Ok(Some(Event::Acknowledge { connection, tag, reason })),
            Packet::PubRec(Ack { tag, reason, .. }) => Ok(Some(Event::Receive { connection, tag, reason })),
            Packet::PubRel(Ack { tag, .. }) => Ok(Some(Event::Release { connection, tag })),
            Packet::PubComp(Ack { tag, .. }) => Ok(Some(Event::Complete { connection, tag })),
            Packet::Subscribe(subscribe) => self.subscribe(&subscribe),
            Packet::Unsubscribe(unsubscribe) => Ok(Some(self.unsubscribe(&unsubscribe))),
            Packet::PingReq => {
                Packet::PingResp.encode(self.version, out.head()); // [MQTT-3.12.4-1], [CON-2]
                Ok(None)
            }
            Packet::Disconnect(disconnect) => Err(self.disconnect(&disconnect, limits)),
            Packet::Connect(_) => Err(protocol_error("second CONNECT")), // [MQTT-3.1.0-2]
            Packet::Auth(_) => Err(protocol_error("AUTH without an authentication method")), // [MQTT-4.12.0-6]
            _ => Err(protocol_error("packet that only a server sends")),
        }
    }

    fn publish(&mut self, now: Now, publish: &Publish<'_>, limits: &Limits) -> Handled {
        if !publish.properties.subscription_identifiers.is_empty() {
            return Err(protocol_error("PUBLISH from a client with a subscription identifier")); // [MQTT-3.3.4-6]
        }
        if publish.retain && !limits.retain_available {
            return Err(Closing::for_error(ReasonCode::RetainNotSupported, "retained messages are not taken"));
        }
        self.take_quota(publish, limits)?;
        let (topic, payload) = self.own(publish, limits)?;
        let lifetime = publish.properties.message_expiry;
        let message = Message {
            id: MessageId(0),
            topic,
            payload,
            properties: Bytes::copy_from_slice(&publish.properties.forwarded.bytes()),
            qos: publish.qos,
            retain: publish.retain,
            expires_at: lifetime.map(|seconds| now.wall.after(u64::from(seconds) * 1000)),
            publisher: QueueId::NONE,
        };
        let message = Inbound { message, tag: publish.tag, dup: publish.dup };
        Ok(Some(Event::Publish { connection: self.id, message }))
    }

    /// `[MQTT-3.3.4-8]`: an MQTT 5 client may not have more unanswered than our receive maximum. A repeated QoS 2
    /// publication is the same one. MQTT 3 clients know no such bound; parking holds them.
    fn take_quota(&mut self, publish: &Publish<'_>, limits: &Limits) -> Result<(), Closing> {
        let Some(tag) = publish.tag else { return Ok(()) };
        if self.is_open(tag) {
            return Ok(());
        }
        let used = usize::from(self.unanswered) + self.open.len();
        if self.version.is_v5() && used >= usize::from(limits.receive_maximum) {
            return Err(Closing::for_error(
                ReasonCode::ReceiveMaximumExceeded,
                "more unanswered than the receive maximum",
            ));
        }
        if publish.qos == postroad_base::Qos::ExactlyOnce {
            self.open.insert(tag);
        } else {
            self.unanswered = self.unanswered.saturating_add(1);
        }
        Ok(())
    }

    /// Topic and payload, copied together into one allocation of their own: no slice may pin the receive buffer.
    fn own(&mut self, publish: &Publish<'_>, limits: &Limits) -> Result<(TopicName, Bytes), Closing> {
        if publish.topic.is_empty() {
            let alias = publish.properties.topic_alias.ok_or(protocol_error("PUBLISH without a topic"))?;
            let topic = self.topic_of(alias, limits)?;
            return Ok((topic, Bytes::copy_from_slice(publish.payload)));
        }
        let mut both = BytesMut::with_capacity(publish.topic.len() + publish.payload.len());
        both.put_slice(publish.topic.as_bytes());
        both.put_slice(publish.payload);
        let mut topic = both.freeze();
        let payload = topic.split_off(publish.topic.len());
        let topic = ByteString::try_from(topic).map_err(|_| protocol_error("topic is not UTF-8"))?;
        let topic =
            TopicName::new(topic).map_err(|_| Closing::for_error(ReasonCode::TopicNameInvalid, "not a topic name"))?;
        if let Some(alias) = publish.properties.topic_alias {
            check_alias(alias, limits)?;
            // A copy of its own: the alias must not pin the payload.
            let own = TopicName::new(publish.topic).map_err(|_| protocol_error("not a topic name"))?;
            self.aliases().learn(alias, own);
        }
        Ok((topic, payload))
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
        if expiry.is_some_and(SessionExpiry::outlives_connection) && !self.expiry.outlives_connection() {
            return protocol_error("DISCONNECT gives a session an expiry that CONNECT did not"); // [MQTT-3.14.2-2] ff.
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

fn check_alias(alias: NonZeroU16, limits: &Limits) -> Result<(), Closing> {
    if alias.get() > limits.topic_alias_maximum {
        return Err(Closing::for_error(ReasonCode::TopicAliasInvalid, "topic alias above the maximum")); // [MQTT-3.3.2-9]
    }
    Ok(())
}

fn protocol_error(detail: &'static str) -> Closing {
    Closing::for_error(ReasonCode::ProtocolError, detail)
}
