//! Clients that misbehave, to see what others suffer from them: run beside a load of another process.
//!
//! | kind | what it does |
//! |---|---|
//! | garbage | opens connections at a rate and sends what is no MQTT, or begins well and goes wrong; closes after a second |
//! | half-open | holds connections that say nothing, or half a CONNECT; opens again what the server closes |
//! | stalled-reader | subscribes, with a session that stays, and never reads a byte |
//! | flood | publishes at QoS 0 as fast as the sockets take it, to one subscriber that reads slowly |
//!
//! One thread, `poll`, and a random source with a seed: the same seed sends the same garbage.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;

use crate::clock::{self, seconds};
use crate::links::connect_socket;
use crate::options::resolve;
use crate::payload::STAMP_BYTES;
use crate::probe;
use crate::wire::{self, Connect, Template, Version};

/// Longest wait between two looks at all clients.
const TICK_NS: i64 = 5_000_000;
/// Messages that a flooder hands to the kernel at a time.
const FLOOD_CHUNK: u64 = 64;
/// How long a garbage client waits to be thrown out.
const GARBAGE_LIFE: f64 = 1.0;
/// Receive buffer of those who don't read or read slowly: small, so that the server notices soon.
const SMALL_RECEIVE_BYTES: usize = 4096;
/// Connections per second that are opened again, unless `--rate` says otherwise.
const REOPEN_RATE: f64 = 500.0;

/// Misbehave towards a broker, beside a load of another process.
#[derive(Args, Clone, Debug)]
pub struct DisturbOptions {
    /// How.
    #[arg(value_enum)]
    pub kind: Kind,
    /// Address of the broker; from 127.x.x.x, connections spread over 127.0.0.1, 127.0.0.2, …
    #[arg(long, default_value = "127.0.0.1")]
    pub host: String,
    #[arg(long, default_value_t = 1883)]
    pub port: u16,
    /// Clients at a time.
    #[arg(long, default_value_t = 50)]
    pub count: u32,
    /// garbage: connections per second; flood: messages per second. Without it: 500, and all that the sockets take.
    #[arg(long)]
    pub rate: Option<f64>,
    /// Seconds.
    #[arg(long, default_value_t = 10.0)]
    pub duration: f64,
    /// stalled-reader: what they subscribe to.
    #[arg(long, default_value = "bench/#")]
    pub filter: String,
    /// stalled-reader: QoS of the subscription.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(0..=2))]
    pub qos: u8,
    /// flood: bytes of a payload.
    #[arg(long, default_value_t = 256)]
    pub payload: usize,
    /// flood: bytes per second that the subscriber reads.
    #[arg(long, default_value_t = 1_000_000)]
    pub read_rate: u64,
    /// Client ids and topics begin so.
    #[arg(long, default_value = "disturb")]
    pub client_prefix: String,
    /// Of the random source.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Also write the findings here.
    #[arg(long)]
    pub json: Option<std::path::PathBuf>,
}

/// Ways to misbehave.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// What is no MQTT.
    Garbage,
    /// Connections that never become clients.
    HalfOpen,
    /// Subscribers that stop reading.
    StalledReader,
    /// Publishers that overwhelm one subscriber.
    Flood,
}

impl DisturbOptions {
    /// Refuses what makes no sense.
    pub fn check(&self) -> Result<()> {
        if self.count == 0 {
            bail!("--count must be at least 1");
        }
        if self.rate.is_some_and(|rate| !(rate > 0.0 && rate.is_finite())) {
            bail!("--rate must be above 0");
        }
        if !(self.duration > 0.0 && self.duration <= 1e6) {
            bail!("--duration {} is outside 0..=1000000 seconds", self.duration);
        }
        if !(STAMP_BYTES..=1_000_000).contains(&self.payload) {
            bail!("--payload {} is outside {STAMP_BYTES}..=1000000", self.payload);
        }
        if self.filter.len() > 1_000 || self.client_prefix.len() > 1_000 || self.client_prefix.contains(['+', '#']) {
            bail!("--filter and --client-prefix are at most 1000 bytes, and the prefix begins a topic");
        }
        Ok(())
    }
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct DisturbReport {
    /// How it misbehaved.
    pub kind: Kind,
    /// Seconds that it took.
    pub seconds: f64,
    /// Connections that came up.
    pub opened: u64,
    /// Connections that did not.
    pub connect_failed: u64,
    /// Closed by the server.
    pub closed_by_server: u64,
    /// Closed here, since the server had not.
    pub closed_here: u64,
    /// Open at the end.
    pub open_at_end: u64,
    /// Whole messages handed to the kernel (flood).
    pub messages: u64,
    /// Bytes handed to the kernel.
    pub written_bytes: u64,
    /// Bytes read.
    pub read_bytes: u64,
}

impl fmt::Display for DisturbReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:?} for {:.1} s: opened {}, failed to connect {}, closed by the server {}, closed here {}, open {}",
            self.kind,
            self.seconds,
            self.opened,
            self.connect_failed,
            self.closed_by_server,
            self.closed_here,
            self.open_at_end
        )?;
        writeln!(f, "  messages {}, bytes written {}, read {}", self.messages, self.written_bytes, self.read_bytes)
    }
}

/// Misbehaves for the time asked.
pub fn run(options: &DisturbOptions) -> Result<DisturbReport> {
    let address = resolve(&options.host, options.port)?;
    probe::raise_file_limit();
    let mut gang = Gang::new(options, address, clock::now());
    let end = gang.start + seconds(options.duration);
    while clock::now() < end {
        gang.turn().context("poll")?;
    }
    gang.report.seconds = (clock::now() - gang.start) as f64 / 1e9;
    gang.report.open_at_end = gang.clients.iter().filter(|client| client.connected).count() as u64;
    Ok(gang.report)
}

/// What one client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Garbage,
    HalfOpen,
    Stalled,
    Flooder,
    SlowReader,
}

impl Role {
    fn receive_bytes(self) -> Option<usize> {
        matches!(self, Self::Stalled | Self::SlowReader).then_some(SMALL_RECEIVE_BYTES)
    }
}

struct Client {
    role: Role,
    stream: Option<TcpStream>,
    connected: bool,
    opened_at: u64,
    out: Vec<u8>,
    out_at: usize,
    /// Messages in `out`.
    messages: u64,
}

impl Client {
    fn new(role: Role) -> Self {
        Self { role, stream: None, connected: false, opened_at: 0, out: Vec::new(), out_at: 0, messages: 0 }
    }

    fn has_output(&self) -> bool {
        self.out_at < self.out.len()
    }

    fn say(&mut self, bytes: Vec<u8>, messages: u64) {
        (self.out, self.out_at, self.messages) = (bytes, 0, messages);
    }
}

/// So much per second, from `start` on; what is not used is not lost.
struct Allowance {
    rate: f64,
    start: u64,
    used: u64,
}

impl Allowance {
    fn available(&self, now: u64) -> u64 {
        let earned = now.saturating_sub(self.start) as f64 / 1e9 * self.rate;
        (earned as u64).saturating_sub(self.used)
    }
}

struct Gang<'a> {
    options: &'a DisturbOptions,
    address: SocketAddr,
    start: u64,
    clients: Vec<Client>,
    openings: Allowance,
    messages: Allowance,
    reading: Allowance,
    chunk: Vec<u8>,
    scratch: Vec<u8>,
    random: Random,
    report: DisturbReport,
}

impl<'a> Gang<'a> {
    fn new(options: &'a DisturbOptions, address: SocketAddr, start: u64) -> Self {
        let role = match options.kind {
            Kind::Garbage => Role::Garbage,
            Kind::HalfOpen => Role::HalfOpen,
            Kind::StalledReader => Role::Stalled,
            Kind::Flood => Role::Flooder,
        };
        let mut clients: Vec<Client> = (0..options.count).map(|_| Client::new(role)).collect();
        if role == Role::Flooder {
            clients.insert(0, Client::new(Role::SlowReader));
        }
        let allowance = |rate| Allowance { rate, start, used: 0 };
        let opening_rate = options.rate.filter(|_| options.kind == Kind::Garbage).unwrap_or(REOPEN_RATE);
        let report = DisturbReport {
            kind: options.kind,
            seconds: 0.0,
            opened: 0,
            connect_failed: 0,
            closed_by_server: 0,
            closed_here: 0,
            open_at_end: 0,
            messages: 0,
            written_bytes: 0,
            read_bytes: 0,
        };
        Self {
            options,
            address,
            start,
            clients,
            openings: allowance(opening_rate),
            messages: allowance(options.rate.unwrap_or(f64::INFINITY)),
            reading: allowance(options.read_rate as f64),
            chunk: flood_chunk(options),
            scratch: vec![0; 64 << 10],
            random: Random::new(options.seed),
            report,
        }
    }

    /// Opens who is to be opened, waits for what each waits for, and handles it.
    fn turn(&mut self) -> io::Result<()> {
        let now = clock::now();
        for number in 0..self.clients.len() {
            self.prepare(number, now);
        }
        let ready = self.wait(now)?;
        let now = clock::now();
        for (number, flags) in ready {
            if let Some(end) = self.ready(number, flags, now) {
                self.end(number, end);
            }
        }
        Ok(())
    }

    fn prepare(&mut self, number: usize, now: u64) {
        let client = &self.clients[number];
        if client.stream.is_none() {
            if self.openings.available(now) > 0 {
                self.openings.used += 1;
                self.open(number, now);
            }
        } else if client.role == Role::Garbage && now > client.opened_at + seconds(GARBAGE_LIFE) {
            self.end(number, End::Here);
        } else if client.role == Role::Flooder && !client.has_output() && self.messages.available(now) > 0 {
            self.messages.used += FLOOD_CHUNK;
            self.clients[number].say(self.chunk.clone(), FLOOD_CHUNK);
        }
    }

    fn open(&mut self, number: usize, now: u64) {
        let role = self.clients[number].role;
        match connect_socket(self.address, number, role.receive_bytes()) {
            Ok(socket) => {
                let opening = self.opening(role, number);
                let client = &mut self.clients[number];
                *client = Client { stream: Some(socket.into()), opened_at: now, ..Client::new(role) };
                client.say(opening, 0);
            }
            Err(_) => self.report.connect_failed += 1,
        }
    }

    /// What a client says first.
    fn opening(&mut self, role: Role, number: usize) -> Vec<u8> {
        let client = format!("{}-{number}", self.options.client_prefix);
        let topic = &self.options.client_prefix;
        match role {
            Role::Garbage => garbage(&mut self.random, &client),
            Role::HalfOpen => half_open(number, &client),
            Role::Stalled => subscriber(&client, &self.options.filter, self.options.qos, true),
            Role::SlowReader => subscriber(&client, topic, 0, false),
            Role::Flooder => connect(&client, false),
        }
    }

    /// Numbers and events of those for whom something has happened.
    fn wait(&self, now: u64) -> io::Result<Vec<(usize, PollFlags)>> {
        let may_read = self.reading.available(now) > 0;
        let open =
            self.clients.iter().enumerate().filter_map(|(number, client)| Some((number, client.stream.as_ref()?)));
        let (numbers, mut descriptors): (Vec<usize>, Vec<PollFd<'_>>) = open
            .map(|(number, stream)| (number, PollFd::new(stream, interest(&self.clients[number], may_read))))
            .unzip();
        match poll(&mut descriptors, Some(&Timespec { tv_sec: 0, tv_nsec: TICK_NS })) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let events = numbers.iter().zip(&descriptors).map(|(&number, descriptor)| (number, descriptor.revents()));
        Ok(events.filter(|(_, flags)| !flags.is_empty()).collect())
    }

    /// Reads and writes; says how the connection has ended, if it has.
    fn ready(&mut self, number: usize, flags: PollFlags, now: u64) -> Option<End> {
        let client = &mut self.clients[number];
        if !client.connected {
            if flags.contains(PollFlags::ERR) {
                return Some(End::Failed);
            }
            client.connected = true;
            self.report.opened += 1;
        }
        if flags.contains(PollFlags::IN) && self.read(number, now).is_err() {
            return Some(End::Server);
        }
        if flags.contains(PollFlags::OUT) && self.write(number).is_err() {
            return Some(End::Server);
        }
        flags.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::RDHUP).then_some(End::Server)
    }

    fn read(&mut self, number: usize, now: u64) -> io::Result<()> {
        let client = &mut self.clients[number];
        let Some(stream) = client.stream.as_mut() else { return Ok(()) };
        let slow = client.role == Role::SlowReader;
        let most = if slow { self.reading.available(now) as usize } else { usize::MAX };
        let room = most.min(self.scratch.len());
        match stream.read(&mut self.scratch[..room]) {
            Ok(0) if room > 0 => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => {
                self.report.read_bytes += bytes as u64;
                self.reading.used += if slow { bytes as u64 } else { 0 };
                Ok(())
            }
            Err(error) => passing(error),
        }
    }

    fn write(&mut self, number: usize) -> io::Result<()> {
        let client = &mut self.clients[number];
        let Some(stream) = client.stream.as_mut() else { return Ok(()) };
        if client.out_at == client.out.len() {
            return Ok(());
        }
        match stream.write(&client.out[client.out_at..]) {
            Ok(bytes) => {
                client.out_at += bytes;
                self.report.written_bytes += bytes as u64;
                if !client.has_output() {
                    self.report.messages += client.messages;
                }
                Ok(())
            }
            Err(error) => passing(error),
        }
    }

    fn end(&mut self, number: usize, end: End) {
        let role = self.clients[number].role;
        self.clients[number] = Client::new(role);
        match end {
            End::Failed => self.report.connect_failed += 1,
            End::Server => self.report.closed_by_server += 1,
            End::Here => self.report.closed_here += 1,
        }
    }
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Failed,
    Server,
    Here,
}

/// An error that a later try may not meet is none.
fn passing(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(()),
        _ => Err(error),
    }
}

/// What a client waits for. Those who don't read hear of the other side's end all the same.
fn interest(client: &Client, may_read: bool) -> PollFlags {
    let reads = match client.role {
        Role::Stalled => false,
        Role::SlowReader => may_read,
        Role::Garbage | Role::HalfOpen | Role::Flooder => true,
    };
    let mut flags = PollFlags::RDHUP;
    flags.set(PollFlags::IN, reads);
    flags.set(PollFlags::OUT, client.has_output() || !client.connected);
    flags
}

fn connect(client: &str, persistent: bool) -> Vec<u8> {
    let mut out = Vec::new();
    let version = Version::V5;
    Connect { version, client, clean_start: !persistent, persistent, keep_alive: 0, login: None }.encode(&mut out);
    out
}

/// CONNECT and SUBSCRIBE at once: the specification lets a client send before it has read CONNACK.
fn subscriber(client: &str, filter: &str, qos: u8, persistent: bool) -> Vec<u8> {
    let mut out = connect(client, persistent);
    wire::subscribe(&mut out, Version::V5, filter, qos);
    out
}

/// Nothing, or half a CONNECT, in turn.
fn half_open(number: usize, client: &str) -> Vec<u8> {
    let mut bytes = connect(client, false);
    bytes.truncate(if number.is_multiple_of(2) { 0 } else { bytes.len() / 2 });
    bytes
}

fn flood_chunk(options: &DisturbOptions) -> Vec<u8> {
    let template = Template::new(Version::V5, &options.client_prefix, 0, options.payload);
    let mut chunk = Vec::new();
    for _ in 0..FLOOD_CHUNK {
        template.append(&mut chunk, 0, 0, |_| {});
    }
    chunk
}

/// One of eight ways to go wrong.
fn garbage(random: &mut Random, client: &str) -> Vec<u8> {
    let mut good = subscriber(client, "garbage/#", 1, false);
    Template::new(Version::V5, "garbage/x", 1, 64).append(&mut good, 1, 0, |_| {});
    match random.below(8) {
        0 => random.bytes(4_000),
        1 => b"GET / HTTP/1.1\r\nHost: nobody\r\n\r\n".to_vec(),
        2 => [good, random.bytes(1_000)].concat(),
        3 => [&b"\x10\x0d\x00\x05MQTTX\x05\x02\x00\x00\x00"[..], client.as_bytes()].concat(),
        4 => [&b"\x10\xff\xff\xff\x7f"[..], &random.bytes(1_000)].concat(), // announces 256 MiB
        5 => [&connect(client, false)[..], b"\x36\x05\x00\x01#\x00\x01"].concat(), // QoS 3, to a filter
        6 => good[..random.below(good.len())].to_vec(),
        _ => {
            let at = random.below(good.len());
            good[at] ^= 1 << random.below(8);
            good
        }
    }
}

/// Xorshift: small, with a seed, and random enough for nonsense.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed ^ 0x9E37_79B9_7F4A_7C15 | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// 0 up to `limit`, without it.
    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// Up to `most` bytes, at least one.
    fn bytes(&mut self, most: usize) -> Vec<u8> {
        (0..=self.below(most)).map(|_| self.next() as u8).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use clap::Parser;

    use super::*;
    use crate::options::{Cli, Tool};

    fn options(line: &str, port: u16) -> DisturbOptions {
        let port = port.to_string();
        let words = ["postroad-bench", "disturb", "--port", &port].into_iter().chain(line.split_whitespace());
        match Cli::try_parse_from(words).unwrap().tool {
            Some(Tool::Disturb(options)) => options,
            other => panic!("{other:?}"),
        }
    }

    /// A gang, turned until `done`, against a listener that nobody serves.
    fn turned<'a>(options: &'a DisturbOptions, listener: &TcpListener, done: impl Fn(&Gang<'_>) -> bool) -> Gang<'a> {
        let mut gang = Gang::new(options, listener.local_addr().unwrap(), clock::now());
        while !done(&gang) {
            gang.turn().unwrap();
        }
        gang
    }

    fn listener() -> (TcpListener, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    #[test]
    fn one_seed_is_one_garbage() {
        let sequence = |seed| {
            let mut random = Random::new(seed);
            (0..50).map(|_| garbage(&mut random, "c")).collect::<Vec<_>>()
        };
        assert_eq!(sequence(7), sequence(7));
        assert_ne!(sequence(7), sequence(8));
    }

    #[test]
    fn half_of_the_half_open_say_nothing() {
        assert!(half_open(0, "c").is_empty());
        let half = half_open(1, "c");
        assert!(!half.is_empty() && connect("c", false).starts_with(&half) && half.len() < connect("c", false).len());
    }

    #[test]
    fn an_allowance_is_earned_by_time() {
        let mut allowance = Allowance { rate: 10.0, start: 1_000_000_000, used: 0 };
        assert_eq!(allowance.available(0), 0);
        assert_eq!(allowance.available(2_000_000_000), 10);
        allowance.used = 4;
        assert_eq!(allowance.available(2_000_000_000), 6);
    }

    /// The flood's rate is messages, though they go out by the chunk; and its reader comes up before it.
    #[test]
    fn a_flood_keeps_to_its_rate() {
        let (listener, port) = listener();
        let options = options("flood --count 1 --rate 1000", port);
        let gang = turned(&options, &listener, |gang| gang.report.messages >= 2 * FLOOD_CHUNK);
        let earned = (clock::now() - gang.start) as f64 / 1e9 * 1_000.0;
        assert!(gang.report.messages as f64 <= earned + FLOOD_CHUNK as f64, "{} {earned}", gang.report.messages);
        assert_eq!(gang.report.opened, 2);
    }

    #[test]
    fn what_the_server_closes_is_counted_and_opened_again() {
        let (listener, port) = listener();
        let options = options("half-open --count 1", port);
        let mut gang = turned(&options, &listener, |gang| gang.report.opened == 1);
        drop(listener.accept().unwrap());
        while gang.report.opened < 2 {
            gang.turn().unwrap();
        }
        assert_eq!((gang.report.closed_by_server, gang.report.closed_here), (1, 0));
    }

    /// A stalled reader must not read: that the server's end is noticed all the same is `poll`'s merit.
    #[test]
    fn a_stalled_reader_reads_nothing_and_notices_the_end() {
        let (listener, port) = listener();
        let options = options("stalled-reader --count 1", port);
        let mut gang = turned(&options, &listener, |gang| gang.report.written_bytes > 0);
        let (mut server, _) = listener.accept().unwrap();
        server.write_all(b"unread").unwrap();
        drop(server);
        while gang.report.closed_by_server == 0 {
            gang.turn().unwrap();
        }
        assert_eq!(gang.report.read_bytes, 0);
    }

    #[test]
    fn a_closed_port_fails_to_connect() {
        let (listener, port) = listener();
        let options = options("garbage --count 1", port);
        let address = listener.local_addr().unwrap();
        drop(listener);
        let mut gang = Gang::new(&options, address, clock::now());
        while gang.report.connect_failed == 0 {
            gang.turn().unwrap();
        }
        assert_eq!(gang.report.opened, 0);
    }
}
