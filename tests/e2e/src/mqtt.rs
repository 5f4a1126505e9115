//! A small blocking MQTT client. It does what it is told and nothing by itself: no reconnect, no resend, no
//! acknowledgement, so that a test can leave any handshake open.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU32;

use postroad_base::{Qos, ReasonCode, SubscriptionOptions, Tag};
use postroad_protocol::mqtt::{
    Ack, Connect, Decoded, Disconnect, PACKET_SIZE_MAX, Packet, Publish, PublishProperties, Subscribe, UserProperties,
    Version, decode,
};

use crate::PATIENCE;

/// How to connect.
#[derive(Clone, Debug)]
pub struct Options {
    /// Protocol version.
    pub version: Version,
    /// Client identifier.
    pub client_id: String,
    /// Begin afresh.
    pub clean_start: bool,
    /// Seconds that the session outlives the connection (v5), `u32::MAX` = for ever.
    pub session_expiry: u32,
    /// Largest packet that it takes (v5), in bytes; `None`: any.
    pub packet_bytes_max: Option<u32>,
}

impl Options {
    /// MQTT 5 with a session that ends with its connection.
    pub fn transient(client_id: &str) -> Self {
        Self {
            version: Version::V5,
            client_id: client_id.to_owned(),
            clean_start: true,
            session_expiry: 0,
            packet_bytes_max: None,
        }
    }

    /// MQTT 5, going on with a session that never ends.
    pub fn persistent(client_id: &str) -> Self {
        Self { clean_start: false, session_expiry: u32::MAX, ..Self::transient(client_id) }
    }
}

/// A received PUBLISH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Topic name.
    pub topic: String,
    /// Payload.
    pub payload: Vec<u8>,
    /// Level.
    pub qos: Qos,
    /// Sent before, perhaps.
    pub dup: bool,
    /// Was retained.
    pub retain: bool,
    /// Packet identifier, 0 at QoS 0.
    pub id: u16,
}

/// A received packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// CONNACK.
    ConnAck { session_present: bool, reason: ReasonCode },
    /// PUBLISH.
    Publish(Message),
    /// PUBACK.
    PubAck(u16, ReasonCode),
    /// PUBREC.
    PubRec(u16, ReasonCode),
    /// PUBREL.
    PubRel(u16),
    /// PUBCOMP.
    PubComp(u16),
    /// SUBACK.
    SubAck(Vec<ReasonCode>),
    /// DISCONNECT.
    Disconnect(ReasonCode),
    /// PINGRESP.
    PingResp,
    /// Anything else.
    Other,
}

/// A connection.
pub struct Client {
    stream: TcpStream,
    version: Version,
    input: Vec<u8>,
    start: usize,
    next_id: u16,
    unreleased: HashSet<u16>,
    /// Whether the server had a session.
    pub session_present: bool,
}

impl Client {
    /// Connects and waits for CONNACK; a refusal is an error that names the reason.
    pub fn connect(address: SocketAddr, options: &Options) -> io::Result<Self> {
        let mut client = Self::open(address, options.version)?;
        let mut connect = Connect::new(options.version, &options.client_id);
        connect.clean_start = options.clean_start;
        connect.properties.session_expiry = (options.session_expiry > 0).then_some(options.session_expiry);
        connect.properties.maximum_packet_size = options.packet_bytes_max.and_then(NonZeroU32::new);
        client.send(&Packet::Connect(Box::new(connect)))?;
        match client.receive()? {
            Incoming::ConnAck { session_present, reason: ReasonCode::Success } => {
                client.session_present = session_present;
                Ok(client)
            }
            other => Err(io::Error::other(format!("expected CONNACK, got {other:?}"))),
        }
    }

    /// Connects TCP only.
    pub fn open(address: SocketAddr, version: Version) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self {
            stream,
            version,
            input: Vec::new(),
            start: 0,
            next_id: 0,
            unreleased: HashSet::new(),
            session_present: false,
        })
    }

    /// The socket, for what is not MQTT.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends one packet.
    pub fn send(&mut self, packet: &Packet<'_>) -> io::Result<()> {
        let mut bytes = Vec::new();
        packet.encode(self.version, &mut bytes);
        self.send_bytes(&bytes)
    }

    /// Sends bytes as they are.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next packet; an error at the end of the stream, at garbage, or when nothing comes for long.
    pub fn receive(&mut self) -> io::Result<Incoming> {
        loop {
            if let Some(packet) = self.take()? {
                return Ok(packet);
            }
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                bytes => self.input.extend_from_slice(&chunk[..bytes]),
            }
        }
    }

    /// The next packet that is here already.
    fn take(&mut self) -> io::Result<Option<Incoming>> {
        match decode(&self.input[self.start..], Some(self.version), PACKET_SIZE_MAX).map_err(io::Error::other)? {
            Decoded::Incomplete { .. } => {
                self.input.drain(..self.start);
                self.start = 0;
                Ok(None)
            }
            Decoded::Packet { packet, size } => {
                let incoming = incoming(&packet);
                self.start += size;
                Ok(Some(incoming))
            }
        }
    }

    /// Subscribes and waits for the SUBACK, which must grant `qos`.
    pub fn subscribe(&mut self, filter: &str, qos: Qos) -> io::Result<()> {
        let tag = self.new_tag();
        let options = SubscriptionOptions { qos, ..SubscriptionOptions::default() };
        let user_properties = UserProperties::NONE;
        let filters = vec![(filter, options)];
        self.send(&Packet::Subscribe(Subscribe { tag, identifier: None, user_properties, filters }))?;
        match self.receive()? {
            Incoming::SubAck(reasons) if reasons.len() == 1 && (reasons[0] as u8) == qos.number() => Ok(()),
            other => Err(io::Error::other(format!("expected SUBACK {}, got {other:?}", qos.number()))),
        }
    }

    /// Sends a PUBLISH with a packet id of the caller's.
    pub fn send_publish(&mut self, message: &Message) -> io::Result<()> {
        self.send(&Packet::Publish(publish_packet(message)))
    }

    /// Publishes and completes the handshake; nothing else may come meanwhile.
    pub fn publish(&mut self, topic: &str, payload: &[u8], qos: Qos, retain: bool) -> io::Result<()> {
        let id = if qos.is_acknowledged() { self.new_tag().get() } else { 0 };
        let (topic, payload) = (topic.to_owned(), payload.to_owned());
        self.send_publish(&Message { topic, payload, qos, dup: false, retain, id })?;
        match qos {
            Qos::AtMostOnce => Ok(()),
            Qos::AtLeastOnce => self.expect("PUBACK", |got| matches!(got, Incoming::PubAck(got, _) if *got == id)),
            Qos::ExactlyOnce => {
                self.expect("PUBREC", |got| matches!(got, Incoming::PubRec(got, _) if *got == id))?;
                self.acknowledge(Packet::PubRel, id)?;
                self.expect("PUBCOMP", |got| matches!(got, Incoming::PubComp(got) if *got == id))
            }
        }
    }

    /// Sends PUBACK, PUBREC, PUBREL or PUBCOMP: `acknowledge(Packet::PubAck, id)`.
    pub fn acknowledge<'a>(&mut self, kind: impl FnOnce(Ack<'a>) -> Packet<'a>, id: u16) -> io::Result<()> {
        let tag = Tag::new(id).expect("acknowledged messages have an id");
        self.send(&kind(Ack::new(tag, ReasonCode::Success)))
    }

    /// The next message. It is acknowledged at once; PUBRELs that come before it are answered, and a repeat of a
    /// QoS 2 transfer that was not released yet is no second message (method B of section 4.3.3).
    pub fn next_message(&mut self) -> io::Result<Message> {
        loop {
            match self.receive()? {
                Incoming::Publish(message) => match message.qos {
                    Qos::AtMostOnce => return Ok(message),
                    Qos::AtLeastOnce => {
                        self.acknowledge(Packet::PubAck, message.id)?;
                        return Ok(message);
                    }
                    Qos::ExactlyOnce => {
                        self.acknowledge(Packet::PubRec, message.id)?;
                        if self.unreleased.insert(message.id) {
                            return Ok(message);
                        }
                    }
                },
                Incoming::PubRel(id) => {
                    self.unreleased.remove(&id);
                    self.acknowledge(Packet::PubComp, id)?;
                }
                _ => {}
            }
        }
    }

    /// Says goodbye.
    pub fn disconnect(mut self) -> io::Result<()> {
        self.send(&Packet::Disconnect(Disconnect::new(ReasonCode::Success)))
    }

    fn expect(&mut self, what: &str, fits: impl Fn(&Incoming) -> bool) -> io::Result<()> {
        let got = self.receive()?;
        if fits(&got) { Ok(()) } else { Err(io::Error::other(format!("expected {what}, got {got:?}"))) }
    }

    fn new_tag(&mut self) -> Tag {
        self.next_id = self.next_id % u16::MAX + 1;
        Tag::new(self.next_id).expect("1..=65535")
    }
}

/// The PUBLISH packet of a message.
pub fn publish_packet(message: &Message) -> Publish<'_> {
    Publish {
        dup: message.dup,
        qos: message.qos,
        retain: message.retain,
        topic: &message.topic,
        tag: Tag::new(message.id),
        payload: &message.payload,
        properties: PublishProperties::default(),
    }
}

fn incoming(packet: &Packet<'_>) -> Incoming {
    match packet {
        Packet::ConnAck(connack) => {
            Incoming::ConnAck { session_present: connack.session_present, reason: connack.reason }
        }
        Packet::Publish(publish) => Incoming::Publish(Message {
            topic: publish.topic.to_owned(),
            payload: publish.payload.to_owned(),
            qos: publish.qos,
            dup: publish.dup,
            retain: publish.retain,
            id: publish.tag.map_or(0, Tag::get),
        }),
        Packet::PubAck(ack) => Incoming::PubAck(ack.tag.get(), ack.reason),
        Packet::PubRec(ack) => Incoming::PubRec(ack.tag.get(), ack.reason),
        Packet::PubRel(ack) => Incoming::PubRel(ack.tag.get()),
        Packet::PubComp(ack) => Incoming::PubComp(ack.tag.get()),
        Packet::SubAck(suback) => Incoming::SubAck(suback.reasons.to_vec()),
        Packet::Disconnect(disconnect) => Incoming::Disconnect(disconnect.reason),
        Packet::PingResp => Incoming::PingResp,
        _ => Incoming::Other,
    }
}
