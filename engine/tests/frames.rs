//! Devices that speak in frames, on a real engine with real sockets: from hello to push, across shards.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use postroad_engine::codecs::Plans;
use postroad_engine::config::{Durability, Listener, ListenerProtocol, Shards, UnknownClient};
use postroad_engine::{Config, Engine, Running};
use postroad_protocol::frame::{Plan, examples};

/// So long that only a hang is cut by it.
const PATIENCE: Duration = Duration::from_secs(30);

fn listener(codec: &str) -> Listener {
    let protocol = ListenerProtocol::Frames { codec: codec.to_owned() };
    Listener { name: codec.to_owned(), address: SocketAddr::from(([127, 0, 0, 1], 0)), protocol }
}

/// Everybody may publish to everybody, also to clients that are not known.
fn config(shards: u16, folder: &std::path::Path) -> Config {
    let acl = folder.join("acl.toml");
    let rules = "[[rule]]\nprincipal = \"*\"\naction = \"*\"\neffect = \"allow\"\n";
    std::fs::write(&acl, rules).expect("the folder is writable");
    let mut config = Config {
        shards: Shards::Count(NonZeroU16::new(shards).expect("not 0")),
        durability: Durability::Memory,
        sys_interval: Duration::ZERO,
        storage_free_bytes_min: 0,
        acl_file: Some(acl),
        listeners: vec![listener("lines"), listener("vehicle")],
        ..Config::default()
    };
    config.registrations.unknown_client = UnknownClient::Queue;
    config
}

struct Server(Running);

impl Server {
    fn start(config: Config) -> Self {
        let plans = [("lines", examples::crlf_lines()), ("vehicle", examples::vehicle40())];
        let plan = |(name, spec): (&str, _)| (name.to_owned(), Plan::compile(&spec).expect("it can be"));
        let plans = Plans::new(plans.into_iter().map(plan));
        Self(Engine::start_recorded(config, None, Arc::new(plans)).expect("the engine starts"))
    }

    fn open(&self, listener: usize) -> Device {
        let stream = TcpStream::connect(self.0.ports()[listener].address).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        stream.set_nodelay(true).expect("set");
        Device(stream)
    }

    fn line_device(&self, name: &str) -> Device {
        let mut device = self.open(0);
        device.say(&format!("HELLO {name}"));
        device.hears("WELCOME");
        device
    }

    fn stop(self) {
        self.0.handle().drain();
        self.0.wait().expect("a drain ends well");
    }
}

struct Device(TcpStream);

impl Device {
    fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("sent");
    }

    fn say(&mut self, line: &str) {
        self.send(format!("{line}\r\n").as_bytes());
    }

    fn line(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.extend(self.receive::<1>());
        }
        String::from_utf8(line).expect("text").trim_end().to_owned()
    }

    fn hears(&mut self, line: &str) {
        assert_eq!(self.line(), line);
    }

    fn receive<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes).expect("it comes");
        bytes
    }

    /// Nothing comes any more, and the connection is closed.
    fn is_closed(&mut self) -> bool {
        matches!(self.0.read(&mut [0]), Ok(0))
    }
}

/// Whatever their home shards are: with four shards most are handed over.
#[test]
fn devices_push_to_each_other_across_shards() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(config(4, folder.path()));
    let names: Vec<String> = (0..8).map(|n| format!("d{n}")).collect();
    let mut sender = server.line_device("sender");
    for (n, name) in names.iter().enumerate() {
        // It waits until the device comes: the push has made it known.
        sender.say(&format!("PUB {n} $client/{name}/do wait for me"));
        sender.hears(&format!("OK {n}"));
    }
    for name in &names {
        let mut device = server.line_device(name);
        let push = device.line();
        let (tag, rest) = push.strip_prefix("MSG ").and_then(|rest| rest.split_once(' ')).expect("a push");
        assert_eq!(rest, "do wait for me");
        device.say(&format!("ACK {tag}"));
        device.say("PING");
        device.hears("PONG");
        device.say("BYE");
        assert!(device.is_closed());
        let mut again = server.line_device(name);
        again.say("PING");
        again.hears("PONG"); // and nothing before it: what was acknowledged does not come again
    }
    drop(sender); // who stays open would be given time to read its goodbye
    server.stop();
}

/// What comes behind the hello in the same segment goes with the connection to its home shard.
#[test]
fn what_is_pipelined_behind_the_hello_is_handled_after_the_welcome() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(config(4, folder.path()));
    for n in 0..8 {
        let mut device = server.open(0);
        device.send(format!("HELLO p{n}\r\nPING\r\nPUB 7 a/b c\r\nPI").as_bytes());
        ["WELCOME", "PONG", "OK 7"].iter().for_each(|line| device.hears(line));
        device.send(b"NG\r\n");
        device.hears("PONG");
    }
    server.stop();
}

/// [INT-4], one at a time: the second push leaves when the first is acknowledged.
#[test]
fn without_tags_pushes_come_one_at_a_time() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(config(2, folder.path()));
    let mut sender = server.line_device("sender");
    for (n, payload) in ["1", "not a number", "2"].iter().enumerate() {
        sender.say(&format!("PUB {n} $client/vehicle-7/do {payload}"));
        sender.hears(&format!("OK {n}"));
    }
    let mut vehicle = server.open(1);
    vehicle.send(&[0, 0, 0, 0, 7]);
    assert_eq!(vehicle.receive(), [0x80, 0, 0, 0, 0], "welcome");
    assert_eq!(vehicle.receive(), [0xb0, 0, 0, 0, 1]);
    vehicle.send(&[0x10, 0, 0, 0, 0]);
    assert_eq!(vehicle.receive(), [0x90, 0, 0, 0, 0], "pong, and no second push");
    vehicle.send(&[0x40, 0, 0, 0, 0]);
    assert_eq!(vehicle.receive(), [0xb0, 0, 0, 0, 2], "what is no number is refused, and does not stop the line");
    drop(vehicle);

    // Not acknowledged, so it comes again.
    let mut vehicle = server.open(1);
    vehicle.send(&[0, 0, 0, 0, 7]);
    assert_eq!([vehicle.receive(), vehicle.receive()], [[0x80, 0, 0, 0, 0], [0xb0, 0, 0, 0, 2]]);
    drop((sender, vehicle));
    server.stop();
}

#[test]
fn garbage_closes_its_connection_only() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(config(2, folder.path()));
    let mut good = server.line_device("good");
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[b'x'; 5000], b"PING\r\n", b"HELLO \xff\r\n"] {
        let mut bad = server.open(0);
        bad.send(garbage);
        assert!(bad.is_closed());
        let mut bad = server.line_device("bad");
        bad.send(&[b"HELLO bad\r\n", garbage].concat());
        assert!(bad.is_closed(), "a second hello");
    }
    good.say("PING");
    good.hears("PONG");
    drop(good);
    server.stop();
}

#[test]
fn a_codec_that_is_not_there_is_an_error_at_the_start() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let mut config = config(1, folder.path());
    config.listeners[1] = listener("nothing");
    let error = Engine::start(config.clone()).err().expect("there is none of the shipped that is called so");
    assert_eq!(error.to_string(), "listener lines: there is no codec \"lines\"");
    config.listeners[0] = listener("gt06");
    let error = Engine::start(config).err().expect("still one");
    assert_eq!(error.to_string(), "listener nothing: there is no codec \"nothing\"");
}
