//! The connection: CONNECT, packets out, packets in, keep alive.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use postroad_base::{Qos, ReasonCode, Tag};
use postroad_protocol::mqtt::{
    Connect, Decoded, Disconnect, Forwarded, PACKET_SIZE_MAX, Packet, Publish, Version, WillPacket, decode,
};

use crate::cli::{ConnectionArgs, WireVersion};

/// Time for the server to answer CONNECT and the like.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The connection is gone through no fault of ours: `sub` connects again.
#[derive(Debug)]
pub struct Lost(pub &'static str);

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Lost {}

/// A connected client.
pub struct Client {
    stream: TcpStream,
    version: Version,
    input: Vec<u8>,
    /// Bytes of `input` that earlier packets took.
    taken: usize,
    output: Vec<u8>,
    keep_alive: Option<Duration>,
    last_sent: Instant,
    /// When the ping went out that nothing has come in since.
    pinged: Option<Instant>,
    last_tag: u16,
    receive_maximum: u16,
    debug: bool,
}

/// A packet from the server, owned: what `pub` and `sub` need of it.
#[derive(Debug)]
pub enum Incoming {
    Publish(Message),
    /// PUBACK, PUBREC, PUBCOMP: of this tag, with this reason.
    PubAck(Tag, ReasonCode),
    PubRec(Tag, ReasonCode),
    PubRel(Tag),
    PubComp(Tag, ReasonCode),
    SubAck(Vec<ReasonCode>),
    Disconnect(ReasonCode, Option<String>),
}

/// A message that came.
#[derive(Clone, Debug, Default)]
pub struct Message {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: Qos,
    pub retain: bool,
    pub dup: bool,
    pub tag: Option<Tag>,
    pub content_type: Option<String>,
    pub response_topic: Option<String>,
    pub expiry: Option<u32>,
    pub user_properties: Vec<(String, String)>,
}

impl Client {
    /// Connects and waits for CONNACK.
    pub fn connect(args: &ConnectionArgs) -> Result<Self> {
        let version = version(args.version);
        let keep_alive = Some(Duration::from_secs(args.keepalive.into())).filter(|time| !time.is_zero());
        let mut client = Self {
            stream: dial(&args.host, args.port)?,
            version,
            input: Vec::new(),
            taken: 0,
            output: Vec::new(),
            keep_alive,
            last_sent: Instant::now(),
            pinged: None,
            last_tag: 0,
            receive_maximum: u16::MAX,
            debug: args.debug,
        };
        let id = args.id.clone().unwrap_or_else(random_id);
        client.send(&Packet::Connect(Box::new(connect_packet(args, version, &id))))?;
        client.await_connack()?;
        Ok(client)
    }

    /// Publishes of QoS 1 and 2 that the server takes before it has answered.
    pub fn receive_maximum(&self) -> usize {
        self.receive_maximum.into()
    }

    /// The next packet identifier; wraps, never 0. The window of `pub` is far smaller than the range.
    pub fn tag(&mut self) -> Tag {
        self.last_tag = self.last_tag.checked_add(1).unwrap_or(1);
        Tag::new(self.last_tag).expect("counted from 1")
    }

    /// Sends one packet.
    pub fn send(&mut self, packet: &Packet<'_>) -> Result<()> {
        self.trace("sent", packet);
        self.output.clear();
        packet.encode(self.version, &mut self.output);
        self.stream.write_all(&self.output).context(Lost("the connection broke while sending"))?;
        self.last_sent = Instant::now();
        Ok(())
    }

    /// Says goodbye; what goes wrong now changes nothing any more.
    pub fn disconnect(mut self) {
        let goodbye = Packet::Disconnect(Disconnect::new(ReasonCode::Success));
        if self.send(&goodbye).is_ok() {
            let _gone = self.stream.shutdown(std::net::Shutdown::Write);
        }
    }

    /// The next packet, or `None` when `deadline` has passed without one.
    pub fn next(&mut self, deadline: Instant) -> Result<Option<Incoming>> {
        loop {
            if let Some(incoming) = self.decode()? {
                return Ok(Some(incoming));
            }
            self.ping_if_due()?;
            if self.fill(deadline)? {
                continue;
            }
            if self.is_dead() {
                bail!(Lost("the server does not answer any more"));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
        }
    }

    /// Takes packets off the input until one that a caller wants.
    fn decode(&mut self) -> Result<Option<Incoming>> {
        loop {
            let decoded = decode(&self.input[self.taken..], Some(self.version), PACKET_SIZE_MAX);
            match decoded.context("the server sent what is no MQTT")? {
                Decoded::Incomplete { .. } => {
                    self.input.drain(..self.taken);
                    self.taken = 0;
                    return Ok(None);
                }
                Decoded::Packet { packet, size } => {
                    self.trace("received", &packet);
                    let incoming = owned(&packet)?;
                    self.taken += size;
                    if incoming.is_some() {
                        return Ok(incoming);
                    }
                }
            }
        }
    }

    /// Reads once, no longer than to `deadline` or the next ping; whether something came.
    fn fill(&mut self, deadline: Instant) -> Result<bool> {
        let until = self.ping_due().map_or(deadline, |ping| ping.min(deadline));
        let wait = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(wait))?;
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => bail!(Lost("the server closed the connection")),
            Ok(size) => {
                self.input.extend_from_slice(&chunk[..size]);
                self.pinged = None;
                Ok(true)
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) =>
            {
                Ok(false)
            }
            Err(error) => Err(error).context(Lost("the connection broke")),
        }
    }

    fn ping_due(&self) -> Option<Instant> {
        self.keep_alive.map(|keep_alive| self.last_sent + keep_alive.mul_f32(0.75))
    }

    fn ping_if_due(&mut self) -> Result<()> {
        if self.ping_due().is_some_and(|due| Instant::now() >= due) {
            self.send(&Packet::PingReq)?;
            self.pinged.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    /// A ping without any answer for a whole keep alive: a dead road.
    fn is_dead(&self) -> bool {
        self.pinged.zip(self.keep_alive).is_some_and(|(pinged, keep_alive)| pinged.elapsed() > keep_alive)
    }

    fn await_connack(&mut self) -> Result<()> {
        let deadline = Instant::now() + ANSWER_TIMEOUT;
        loop {
            match decode(&self.input, Some(self.version), PACKET_SIZE_MAX).context("the server does not speak MQTT")? {
                Decoded::Packet { packet: Packet::ConnAck(ack), size } => {
                    self.trace("received", &Packet::ConnAck(ack.clone()));
                    refuse("the server refused the connection", ack.reason, ack.properties.reason_string)?;
                    self.receive_maximum = ack.properties.receive_maximum.map_or(u16::MAX, |maximum| maximum.get());
                    if let Some(seconds) = ack.properties.server_keep_alive {
                        self.keep_alive = Some(Duration::from_secs(seconds.into())).filter(|time| !time.is_zero());
                    }
                    self.taken = size;
                    return Ok(());
                }
                Decoded::Packet { packet, .. } => bail!("{} came instead of CONNACK", packet.packet_type()),
                Decoded::Incomplete { .. } if Instant::now() >= deadline => bail!("no CONNACK came within 30 s"),
                Decoded::Incomplete { .. } => self.fill(deadline)?,
            };
        }
    }

    fn trace(&self, direction: &str, packet: &Packet<'_>) {
        if self.debug {
            eprintln!("{direction} {}", packet.packet_type());
        }
    }
}

/// An error if `reason` is one.
pub fn refuse(what: &str, reason: ReasonCode, text: Option<&str>) -> Result<()> {
    if !reason.is_error() {
        return Ok(());
    }
    let text = text.map_or_else(String::new, |text| format!(": {text}"));
    bail!("{what}: {} (0x{:02x}){text}", reason.name(), reason.number())
}

/// An identifier that no other client has: the keys of the standard hasher are random.
fn random_id() -> String {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    format!("postroad-{:016x}", hasher.finish())
}

fn version(version: WireVersion) -> Version {
    match version {
        WireVersion::V31 => Version::V3_1,
        WireVersion::V311 => Version::V3_1_1,
        WireVersion::V5 => Version::V5,
    }
}

/// Tries every address of the name: `localhost` may be `::1` first while the server listens on 127.0.0.1.
fn dial(host: &str, port: u16) -> Result<TcpStream> {
    let addresses = (host, port).to_socket_addrs().with_context(|| format!("can't resolve {host}"))?;
    let mut last = None;
    for address in addresses {
        match TcpStream::connect_timeout(&address, ANSWER_TIMEOUT) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) => Err(error).with_context(|| format!("can't connect to {host}:{port}")),
        None => bail!("{host} has no address"),
    }
}

fn connect_packet<'a>(args: &'a ConnectionArgs, version: Version, id: &'a str) -> Connect<'a> {
    let mut connect = Connect::new(version, id);
    connect.clean_start = !args.persistent;
    connect.keep_alive = args.keepalive;
    connect.username = args.username.as_deref();
    connect.password = args.password.as_deref().map(str::as_bytes);
    connect.will = will(args);
    let kept = args.persistent.then_some(u32::MAX);
    connect.properties.session_expiry = args.session_expiry.or(kept).filter(|_| version.is_v5());
    connect
}

fn will(args: &ConnectionArgs) -> Option<WillPacket<'_>> {
    let topic = args.will_topic.as_deref()?;
    Some(WillPacket {
        topic,
        payload: args.will_payload.as_bytes(),
        qos: Qos::from_number(args.will_qos).expect("the command line allows 0 to 2"),
        retain: args.will_retain,
        delay_seconds: args.will_delay,
        message_expiry: None,
        forwarded: Forwarded::NONE,
    })
}

/// What a caller wants of a packet; `None` for what only keeps the connection alive.
fn owned(packet: &Packet<'_>) -> Result<Option<Incoming>> {
    Ok(Some(match packet {
        Packet::Publish(publish) => Incoming::Publish(message(publish)),
        Packet::PubAck(ack) => Incoming::PubAck(ack.tag, ack.reason),
        Packet::PubRec(ack) => Incoming::PubRec(ack.tag, ack.reason),
        Packet::PubRel(ack) => Incoming::PubRel(ack.tag),
        Packet::PubComp(ack) => Incoming::PubComp(ack.tag, ack.reason),
        Packet::SubAck(ack) => Incoming::SubAck(ack.reasons.to_vec()),
        Packet::Disconnect(disconnect) => {
            Incoming::Disconnect(disconnect.reason, disconnect.reason_string.map(str::to_owned))
        }
        Packet::PingResp | Packet::UnsubAck(_) => return Ok(None),
        other => bail!("the server sent {}, which only clients send", other.packet_type()),
    }))
}

fn message(publish: &Publish<'_>) -> Message {
    let forwarded = publish.properties.forwarded;
    let pairs = forwarded.user_properties();
    Message {
        topic: publish.topic.to_owned(),
        payload: publish.payload.to_vec(),
        qos: publish.qos,
        retain: publish.retain,
        dup: publish.dup,
        tag: publish.tag,
        content_type: forwarded.content_type().map(str::to_owned),
        response_topic: forwarded.response_topic().map(str::to_owned),
        expiry: publish.properties.message_expiry,
        user_properties: pairs.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
    }
}
