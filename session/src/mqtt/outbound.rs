//! To the client: effects to packets.

use std::borrow::Cow;
use std::num::{NonZeroU16, NonZeroU32};

use postroad_base::{Message, MessageId, Now, Qos, ReasonCode, Tag};
use postroad_broker::api::{Delivery, Event};
use postroad_protocol::gather::Gather;
use postroad_protocol::mqtt::{
    Ack, ConnAck, Disconnect, Forwarded, ForwardedParts, HeadTopic, Packet, PublishHead, SubAck, UnsubAck,
    UserProperties, Version, encode_publish_head, publish_size,
};

use super::{Closing, Connection, Limits, reasons};

/// User property of an answer: the id of the message.
const ID_PROPERTY: &str = "postroad-id";

/// What became of a delivery.
#[derive(Debug)]
pub enum Delivered {
    /// It is in the output.
    Sent,
    /// It is larger than the client takes, and was not sent `[MQTT-3.1.2-24]`; the broker is to treat it as refused.
    TooLarge(Option<Event>),
}

impl Connection {
    /// CONNACK of success. `inbound`, the client's QoS 2 tags that are still open, take nothing from the receive
    /// maximum: that begins anew with each connection (section 4.9).
    pub fn connected(&mut self, session_present: bool, _inbound: &[Tag], limits: &Limits, out: &mut Gather) {
        let Some(welcome) = self.welcome.take_if(|_| !self.closed) else { return };
        // MQTT 3.1 keeps the byte of the flag reserved.
        let session_present = session_present && self.version != Version::V3_1;
        let mut answer = ConnAck::new(session_present, ReasonCode::Success);
        if self.version.is_v5() {
            let properties = &mut answer.properties;
            properties.session_expiry = welcome.session_expiry;
            properties.receive_maximum = NonZeroU16::new(limits.receive_maximum);
            properties.maximum_packet_size = NonZeroU32::new(limits.packet_bytes_max);
            properties.topic_alias_maximum = limits.topic_alias_maximum;
            properties.retain_available = limits.retain_available;
            properties.server_keep_alive = welcome.server_keep_alive;
            properties.assigned_client_id = welcome.assigned.as_ref().map(|client| client.as_str());
        }
        self.write(&Packet::ConnAck(Box::new(answer)), out);
    }

    /// CONNACK of failure, after which the connection is closed.
    pub fn connect_refused(&mut self, reason: ReasonCode, out: &mut Gather) {
        if !self.is_connected() && !std::mem::replace(&mut self.closed, true) {
            let packet = Packet::ConnAck(Box::new(ConnAck::new(false, reasons::of_connack(reason))));
            self.encode(&packet, out);
        }
    }

    /// Whether a publication refused for this reason ends the connection instead of being answered. MQTT 3 answers have
    /// no reason: acknowledging what was not taken would lose it, so the client has to come back and send it again. What
    /// is refused for good it would send for ever, so that is acknowledged (`[MQTT-3.3.5-2]` of 3.1.1).
    pub fn refusal_ends(&self, reason: ReasonCode) -> Option<Closing> {
        let is_lost = reason.is_error() && !reason.is_final() && !self.version.is_v5();
        is_lost.then(|| Closing::for_error(reason, "a refused publication, which MQTT 3 can't be told of"))
    }

    /// The publication is taken in under this id, which its answer is to carry if the client takes such properties
    /// `[MQTT-3.1.2-29]`.
    pub fn taken(&mut self, tag: Tag, id: MessageId) {
        if self.problem_information && self.version.is_v5() {
            self.taken.get_or_insert_default().note(tag, id);
        }
    }

    /// PUBACK, or PUBREC for a QoS 2 publication, unless [`Connection::refusal_ends`] the connection.
    pub fn published(&mut self, tag: Tag, reason: ReasonCode, out: &mut Gather) {
        if self.taken.is_some() {
            return self.published_as(tag, reason, out);
        }
        let ack = Ack::new(tag, reasons::of_puback(reason));
        if let Some(packet) = self.answer_of(ack) {
            self.write(&packet, out);
        }
    }

    /// With the id of the message, if its publisher wants that, and takes a packet that is so much larger `[MQTT-3.4.2-3]`,
    /// `[MQTT-3.5.2-3]`.
    fn published_as(&mut self, tag: Tag, reason: ReasonCode, out: &mut Gather) {
        let id = self.taken.as_mut().and_then(|taken| taken.take(tag)).filter(|_| !reason.is_error());
        self.taken.take_if(|taken| taken.is_empty());
        let id = id.map(|id| id.to_string());
        let pair = id.as_deref().map(|id| [(ID_PROPERTY, id)]);
        let user_properties = pair.as_ref().map_or(UserProperties::NONE, |pair| UserProperties::from_pairs(pair));
        let plain = Ack::new(tag, reasons::of_puback(reason));
        let Some(mut packet) = self.answer_of(Ack { user_properties, ..plain }) else { return };
        if !self.fits(&packet) {
            packet = match packet {
                Packet::PubRec(_) => Packet::PubRec(plain),
                _ => Packet::PubAck(plain),
            };
        }
        self.write(&packet, out);
    }

    /// The answer to the oldest publication under its tag.
    fn answer_of<'a>(&mut self, ack: Ack<'a>) -> Option<Packet<'a>> {
        match self.window.answer(ack.tag, ack.reason.is_error()) {
            Some(Qos::ExactlyOnce) => Some(Packet::PubRec(ack)), // [MQTT-4.3.3-8]
            Some(_) => Some(Packet::PubAck(ack)),                // [MQTT-4.3.2-4]
            None => {
                debug_assert!(false, "{:?} was not published on this connection", ack.tag);
                None
            }
        }
    }

    /// PUBCOMP.
    pub fn completed(&mut self, tag: Tag, reason: ReasonCode, out: &mut Gather) {
        self.window.complete(tag);
        self.write(&Packet::PubComp(Ack::new(tag, reasons::of_pubrel(reason))), out); // [MQTT-4.3.3-11]
    }

    /// PUBREL.
    pub fn release(&mut self, tag: Tag, reason: ReasonCode, out: &mut Gather) {
        self.write(&Packet::PubRel(Ack::new(tag, reasons::of_pubrel(reason))), out); // [MQTT-4.3.3-4]
    }

    /// SUBACK, one reason per filter in their order `[MQTT-3.8.4-6]`.
    pub fn subscribed(&mut self, tag: Tag, reasons: &[ReasonCode], out: &mut Gather) {
        let reasons = reasons.iter().copied().map(reasons::of_suback).collect();
        self.write(&Packet::SubAck(SubAck::new(tag, reasons)), out);
    }

    /// UNSUBACK, one reason per filter in their order `[MQTT-3.11.3-1]`.
    pub fn unsubscribed(&mut self, tag: Tag, reasons: &[ReasonCode], out: &mut Gather) {
        let reasons = reasons.iter().copied().map(reasons::of_unsuback).collect();
        self.write(&Packet::UnsubAck(UnsubAck::new(tag, reasons)), out);
    }

    /// The server ends the connection: DISCONNECT, which MQTT 3 does not have, or before CONNACK a CONNACK that refuses
    /// `[MQTT-3.14.0-1]`. The reason string is left out if the client wants none, or if it makes the packet too large
    /// `[MQTT-3.14.2-3]`.
    pub fn close(&mut self, reason: ReasonCode, detail: &str, out: &mut Gather) {
        if !self.is_connected() {
            return self.connect_refused(reason, out);
        }
        if std::mem::replace(&mut self.closed, true) || !self.version.is_v5() {
            return;
        }
        let mut disconnect = Disconnect::new(reasons::of_disconnect(reason));
        disconnect.reason_string = Some(detail).filter(|detail| !detail.is_empty() && self.problem_information);
        if !self.fits(&Packet::Disconnect(disconnect)) {
            disconnect.reason_string = None;
        }
        self.encode(&Packet::Disconnect(disconnect), out);
    }

    /// PUBLISH.
    pub fn deliver(&mut self, now: Now, delivery: &Delivery, out: &mut Gather) -> Delivered {
        if !self.is_open() {
            return Delivered::Sent; // into the void: the session keeps what is not acknowledged
        }
        let message = &*delivery.message;
        let properties = properties_of(message);
        let topic = delivery.topic.as_ref().unwrap_or(&message.topic);
        let mut head = PublishHead {
            dup: delivery.dup,
            qos: delivery.qos,
            retain: delivery.retain,
            topic: HeadTopic::Name(topic.as_str()),
            tag: delivery.tag,
            // What is left, rounded up: 0 would mean "at once" `[MQTT-3.3.2-6]`.
            message_expiry: message.expires_at.map(|at| seconds_up(at.since(now.wall))),
            subscription_identifiers: &delivery.identifiers,
        };
        let (version, size_max) = (self.version, self.packet_bytes_max as usize);
        let fits =
            |head: &PublishHead<'_>| publish_size(version, head, properties.len(), message.payload.len()) <= size_max;
        if !fits(&head) {
            return Delivered::TooLarge(self.refused(delivery));
        }
        if self.topic_alias_maximum > 0 && version.is_v5() {
            let most = self.topic_alias_maximum;
            let named = PublishHead { topic: self.aliases().name(topic.as_str(), most), ..head };
            if fits(&named) {
                head = named; // to introduce an alias takes three bytes more
            }
        }
        encode_publish_head(self.version, &head, &properties, message.payload.len(), out.head());
        out.push_payload(&message.payload);
        if let HeadTopic::NameAndAlias(_, alias) = head.topic {
            self.aliases().sent(topic.as_str(), alias);
        }
        Delivered::Sent
    }

    fn refused(&self, delivery: &Delivery) -> Option<Event> {
        let (connection, tag, reason) = (self.id, delivery.tag?, ReasonCode::PacketTooLarge);
        Some(match delivery.qos {
            Qos::ExactlyOnce => Event::Receive { connection, tag, reason },
            _ => Event::Acknowledge { connection, tag, reason },
        })
    }

    /// Writes an answer if the client takes one of its size `[MQTT-3.1.2-24]`; else it stays without, and the next
    /// [`Connection::receive`] or [`Connection::on_deadline`] ends the connection.
    pub(super) fn write(&mut self, packet: &Packet<'_>, out: &mut Gather) {
        if self.is_open() && !self.encode(packet, out) {
            self.starved = true;
        }
    }

    /// Whether it fits, and is in the output.
    fn encode(&self, packet: &Packet<'_>, out: &mut Gather) -> bool {
        let fits = self.fits(packet);
        if fits {
            packet.encode(self.version, out.head());
        }
        fits
    }

    fn fits(&self, packet: &Packet<'_>) -> bool {
        !self.version.is_v5() || packet.encoded_len(self.version) <= self.packet_bytes_max as usize
    }
}

/// Those of its publisher; what tells of a dead letter also says of which, and how it ended. A receipt has only what tells its
/// publisher which message it is about.
fn properties_of(message: &Message) -> Cow<'_, [u8]> {
    if let Some(id) = message_of_receipt(message) {
        let original = Forwarded::from_stored(&message.properties);
        let pairs = [("postroad-message", id)];
        let parts = ForwardedParts {
            payload_format: Some(true),
            content_type: Some("application/json"),
            correlation_data: original.correlation_data(),
            user_properties: UserProperties::from_pairs(&pairs),
            ..ForwardedParts::default()
        };
        return Cow::Owned(parts.encode());
    }
    let letter = message.extras.as_ref().and_then(|extras| Some((extras.letter?, extras.death.as_ref()?)));
    let Some((letter, death)) = letter else { return Cow::Borrowed(&message.properties) };
    let texts = [
        ("postroad-letter", letter.to_string()),
        ("postroad-message", message.original().to_string()),
        (if death.is_group { "postroad-group" } else { "postroad-client" }, death.client.as_str().to_owned()),
        ("postroad-reason", death.outcome.name().to_owned()),
        ("postroad-reason-code", death.reason_code.to_string()),
        ("postroad-attempts", death.attempts.to_string()),
        ("postroad-died-unix-ms", death.at.0.to_string()),
    ];
    let error = death.error.iter().map(|error| ("postroad-error", error.to_string()));
    let texts: Vec<(&str, String)> = texts.into_iter().chain(error).collect();
    let pairs: Vec<(&str, &str)> = texts.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let user_properties = UserProperties::from_pairs(&pairs);
    let parts = ForwardedParts { user_properties, ..ForwardedParts::default() };
    Cow::Owned([&message.properties, parts.encode().as_slice()].concat())
}

/// The message that a receipt is about: `$receipt/<message>/…`.
fn message_of_receipt(message: &Message) -> Option<&str> {
    if !message.topic.is_reserved() {
        return None;
    }
    message.topic.as_str().strip_prefix("$receipt/")?.split('/').next()
}

fn seconds_up(millis: u64) -> u32 {
    u32::try_from(millis.div_ceil(1000)).unwrap_or(u32::MAX)
}
