//! To the client: effects to packets.

use std::num::{NonZeroU16, NonZeroU32};

use postroad_base::{Now, Qos, ReasonCode, Tag, TopicName};
use postroad_broker::api::{Delivery, Event};
use postroad_protocol::gather::Gather;
use postroad_protocol::mqtt::{
    Ack, ConnAck, Disconnect, HeadTopic, Packet, PublishHead, SubAck, UnsubAck, Version, encode_publish_head,
    publish_size,
};

use super::{Connection, Limits};

/// What became of a delivery.
#[derive(Debug)]
pub enum Delivered {
    /// It is in the output.
    Sent,
    /// It is larger than the client takes, and was not sent `[MQTT-3.1.2-24]`; the broker is to treat it as refused.
    TooLarge(Option<Event>),
}

impl Connection {
    /// CONNACK of success. `inbound`: the client's QoS 2 tags that are still open.
    pub fn connected(&mut self, session_present: bool, inbound: &[Tag], limits: &Limits, out: &mut Gather) {
        self.open = inbound.iter().copied().collect();
        let Some(welcome) = self.welcome.take() else { return };
        // MQTT 3.1 keeps the byte of the flag reserved.
        let session_present = session_present && self.version != Version::V3_1;
        let mut answer = ConnAck::new(session_present, ReasonCode::Success);
        if self.version.is_v5() {
            let properties = &mut answer.properties;
            properties.session_expiry = welcome.expiry_was_cut.then_some(self.expiry.0);
            properties.receive_maximum = NonZeroU16::new(limits.receive_maximum);
            properties.maximum_packet_size = NonZeroU32::new(limits.packet_bytes_max);
            properties.topic_alias_maximum = limits.topic_alias_maximum;
            properties.retain_available = limits.retain_available;
            properties.server_keep_alive = welcome.server_keep_alive;
            properties.assigned_client_id = welcome.assigned.as_ref().map(|client| client.as_str());
        }
        self.encode(&Packet::ConnAck(Box::new(answer)), out);
    }

    /// CONNACK of failure, after which the connection is closed.
    pub fn connect_refused(&mut self, reason: ReasonCode, out: &mut Gather) {
        self.encode(&Packet::ConnAck(Box::new(ConnAck::new(false, reason))), out);
    }

    /// PUBACK, or PUBREC for a QoS 2 publication. MQTT 3 has no reason to give: a refused publication is acknowledged
    /// all the same, since the alternative is to close the connection (`[MQTT-3.3.5-2]` of 3.1.1 leaves the choice).
    pub fn published(&mut self, tag: Tag, reason: ReasonCode, out: &mut Gather) {
        let ack = Ack::new(tag, reason);
        if !self.is_open(tag) {
            self.unanswered = self.unanswered.saturating_sub(1);
            return self.encode(&Packet::PubAck(ack), out);
        }
        if reason.is_error() && self.version.is_v5() {
            self.open.remove(&tag);
        }
        self.encode(&Packet::PubRec(ack), out);
    }

    /// PUBCOMP.
    pub fn completed(&mut self, tag: Tag, reason: ReasonCode, out: &mut Gather) {
        self.open.remove(&tag);
        self.encode(&Packet::PubComp(Ack::new(tag, reason)), out);
    }

    /// PUBREL.
    pub fn release(&mut self, tag: Tag, reason: ReasonCode, out: &mut Gather) {
        self.encode(&Packet::PubRel(Ack::new(tag, reason)), out);
    }

    /// SUBACK, one reason per filter in their order `[MQTT-3.8.4-6]`.
    pub fn subscribed(&mut self, tag: Tag, reasons: &[ReasonCode], out: &mut Gather) {
        self.encode(&Packet::SubAck(SubAck::new(tag, reasons.iter().copied().collect())), out);
    }

    /// UNSUBACK, one reason per filter in their order `[MQTT-3.11.3-1]`.
    pub fn unsubscribed(&mut self, tag: Tag, reasons: &[ReasonCode], out: &mut Gather) {
        self.encode(&Packet::UnsubAck(UnsubAck::new(tag, reasons.iter().copied().collect())), out);
    }

    /// DISCONNECT, which only MQTT 5 servers send. The reason string is left out where it makes the packet too large
    /// `[MQTT-3.14.2-3]`.
    pub fn close(&mut self, reason: ReasonCode, detail: &str, out: &mut Gather) {
        if !self.version.is_v5() {
            return;
        }
        let mut disconnect = Disconnect::new(reason);
        disconnect.reason_string = (!detail.is_empty()).then_some(detail);
        let size = Packet::Disconnect(disconnect).encoded_len(self.version);
        if size > self.packet_bytes_max as usize {
            disconnect.reason_string = None;
        }
        self.encode(&Packet::Disconnect(disconnect), out);
    }

    /// PUBLISH.
    pub fn deliver(&mut self, now: Now, delivery: &Delivery, out: &mut Gather) -> Delivered {
        let message = &*delivery.message;
        let topic = delivery.topic.as_ref().unwrap_or(&message.topic);
        let head = PublishHead {
            dup: delivery.dup,
            qos: delivery.qos,
            retain: delivery.retain,
            topic: self.name(topic),
            tag: delivery.tag,
            // What is left, rounded up: 0 would mean "at once" `[MQTT-3.3.2-6]`.
            message_expiry: message.expires_at.map(|at| seconds_up(at.since(now.wall))),
            subscription_identifiers: &delivery.identifiers,
        };
        let size = publish_size(self.version, &head, message.properties.len(), message.payload.len());
        if size > self.packet_bytes_max as usize {
            return Delivered::TooLarge(self.refused(delivery));
        }
        encode_publish_head(self.version, &head, &message.properties, message.payload.len(), out.head());
        out.push_payload(&message.payload);
        if let HeadTopic::NameAndAlias(_, alias) = head.topic {
            self.aliases().sent(topic, alias);
        }
        Delivered::Sent
    }

    fn name<'a>(&mut self, topic: &'a TopicName) -> HeadTopic<'a> {
        let most = self.topic_alias_maximum;
        if most == 0 || !self.version.is_v5() {
            return HeadTopic::Name(topic.as_str());
        }
        self.aliases().name(topic, most)
    }

    fn refused(&self, delivery: &Delivery) -> Option<Event> {
        let (connection, tag, reason) = (self.id, delivery.tag?, ReasonCode::PacketTooLarge);
        Some(match delivery.qos {
            Qos::ExactlyOnce => Event::Receive { connection, tag, reason },
            _ => Event::Acknowledge { connection, tag, reason },
        })
    }

    fn encode(&self, packet: &Packet<'_>, out: &mut Gather) {
        packet.encode(self.version, out.head());
    }
}

fn seconds_up(millis: u64) -> u32 {
    u32::try_from(millis.div_ceil(1000)).unwrap_or(u32::MAX)
}
