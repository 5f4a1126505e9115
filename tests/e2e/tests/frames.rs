//! Devices that speak in frames of their own, made of bytes here, beside mosquitto's clients [INT-1..5].

#![allow(clippy::unwrap_used, reason = "a failed step of the test is a failed test")]

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use postroad_e2e::PATIENCE;
use postroad_e2e::daemon::{Daemon, wait_until};
use postroad_e2e::http;
use postroad_e2e::tools::{Subscriber, mosquitto_pub};
use tempfile::TempDir;

const CONFIGURATION: &str = r#"
[[listener]]
name = "trackers"
address = "127.0.0.1:0"
codec = "gt06"

[[listener]]
name = "vehicles"
address = "127.0.0.1:0"
codec = "vehicle40"

[[listener]]
name = "lines"
address = "127.0.0.1:0"
codec = "crlf_lines"

[[listener]]
name = "padded"
address = "127.0.0.1:0"
codec = "padded1024"
"#;
const RULES: &str = "[[rule]]\nprincipal = \"*\"\naction = \"*\"\neffect = \"allow\"\n";
const TRACKER: &str = "tracker-0123456789012345";

struct Fleet {
    daemon: Daemon,
    /// Holds `acl.toml`.
    _folder: TempDir,
}

impl Fleet {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let acl = folder.path().join("acl.toml");
        fs::write(&acl, RULES).unwrap();
        let acl = format!("acl.file={}", acl.display());
        let mut daemon = Daemon::prepared(&["shards=3", "registrations.unknown_client=queue", &acl]);
        daemon.configure(CONFIGURATION);
        daemon.restart();
        Self { daemon, _folder: folder }
    }

    fn open(&self, listener: &str) -> Device {
        let ports = fs::read(self.daemon.data().join("ports.json")).unwrap();
        let ports: serde_json::Value = serde_json::from_slice(&ports).unwrap();
        let port = u16::try_from(ports[listener].as_u64().unwrap()).unwrap();
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Device(stream)
    }

    /// A tracker that has logged in.
    fn tracker(&self) -> Device {
        let mut device = self.open("trackers");
        device.send(&gt06(0x01, &[0x01, 0x23, 0x45, 0x67, 0x89, 0x01, 0x23, 0x45], 1));
        device.hears(&gt06(0x01, &[], 1));
        device
    }

    fn push(&self, topic: &str, payload: &str) {
        mosquitto_pub(self.daemon.mqtt(), &["-q", "1", "-t", topic, "-m", payload]);
    }

    /// Sends in two pieces, the second one when a shard has read the first.
    fn send_cut(&self, device: &mut Device, bytes: &[u8], at: usize) {
        let (front, back) = bytes.split_at(at);
        let received = || self.daemon.metric("postroad_interface_received_bytes_total", "interface=\"trackers\"");
        let expected = received() + front.len() as f64;
        device.send(front);
        wait_until("the front is read", || received() >= expected);
        device.send(back);
    }

    fn broken(&self, listener: &str, reason: &str) -> f64 {
        let label = format!("interface=\"{listener}\",reason=\"{reason}\"");
        self.daemon.metric("postroad_interface_broken_frames_total", &label)
    }
}

struct Device(TcpStream);

impl Device {
    fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    fn receive(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.0.read_exact(&mut bytes).unwrap();
        bytes
    }

    fn hears(&mut self, bytes: &[u8]) {
        assert_eq!(self.receive(bytes.len()), bytes);
    }

    fn line(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.extend(self.receive(1));
        }
        String::from_utf8(line).unwrap().trim_end().to_owned()
    }

    fn is_closed(&mut self) -> bool {
        matches!(self.0.read(&mut [0]), Ok(0))
    }
}

/// A frame as a tracker sends it; its checksum is made here, bit by bit.
fn gt06(protocol: u8, content: &[u8], serial: u16) -> Vec<u8> {
    let mut frame = vec![0x78, 0x78, u8::try_from(content.len() + 5).unwrap(), protocol];
    frame.extend(content);
    frame.extend(serial.to_be_bytes());
    let crc = frame[2..].iter().fold(0xffff_u16, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x8408 } else { crc >> 1 })
    });
    frame.extend((!crc).to_be_bytes());
    frame.extend(b"\r\n");
    frame
}

/// Hello, a location that mosquitto sees, a push that is acknowledged and comes once, over a kill -9.
#[test]
fn a_tracker_publishes_and_is_pushed_to() {
    let mut fleet = Fleet::start();
    let subscriber = Subscriber::start(fleet.daemon.mqtt(), &["-q", "1", "-t", "trackers/#", "-C", "2"]);
    let mut tracker = fleet.tracker();
    tracker.send(&gt06(0x13, &[], 2));
    tracker.hears(&gt06(0x13, &[], 2));
    tracker.send(&[gt06(0x12, b"52.5 13.4", 3), gt06(0x12, b"xx\rxx", 4)].concat());
    tracker.hears(&gt06(0x12, &[], 3));
    tracker.hears(&gt06(0x12, &[], 4));
    let location = |text: &str| format!("trackers/{TRACKER}/location {text}");
    assert_eq!(subscriber.messages(), [location("52.5 13.4"), location("xx\rxx")]);

    fleet.push(&format!("$client/{TRACKER}/do"), "RELAY,1#");
    let push = tracker.receive(18);
    let serial = u16::from_be_bytes([push[12], push[13]]);
    assert_eq!(push, gt06(0x80, b"RELAY,1#", serial));
    drop(tracker); // not acknowledged: it comes again
    fleet.daemon.kill();
    fleet.daemon.restart();
    let mut tracker = fleet.tracker();
    let again = tracker.receive(18);
    let serial = u16::from_be_bytes([again[12], again[13]]);
    assert_eq!(again, gt06(0x80, b"RELAY,1#", serial));
    tracker.send(&gt06(0x15, &[], serial));
    tracker.send(&gt06(0x13, &[], 5)); // answered behind the acknowledgement
    tracker.hears(&gt06(0x13, &[], 5));
    drop(tracker);
    let mut tracker = fleet.tracker();
    tracker.send(&gt06(0x13, &[], 6));
    tracker.hears(&gt06(0x13, &[], 6));
}

/// [INT-5], through sockets and hand-over: login and heartbeat, cut at every byte.
#[test]
fn a_stream_may_be_cut_anywhere() {
    let fleet = Fleet::start();
    let login = gt06(0x01, &[0x01, 0x23, 0x45, 0x67, 0x89, 0x01, 0x23, 0x45], 1);
    let stream = [login, gt06(0x13, &[], 2), gt06(0x12, b"here", 3)].concat();
    for cut in 1..stream.len() {
        let mut tracker = fleet.open("trackers");
        fleet.send_cut(&mut tracker, &stream, cut);
        for (protocol, serial) in [(0x01, 1), (0x13, 2), (0x12, 3)] {
            tracker.hears(&gt06(protocol, &[], serial));
        }
    }
    let mut tracker = fleet.open("trackers");
    stream.iter().for_each(|byte| tracker.send(&[*byte]));
    for (protocol, serial) in [(0x01, 1), (0x13, 2), (0x12, 3)] {
        tracker.hears(&gt06(protocol, &[], serial));
    }
}

/// Each fault is counted with its name, where it came in, and ends the one connection.
#[test]
fn what_is_broken_closes_its_connection_and_is_counted() {
    let fleet = Fleet::start();
    let mut good = fleet.tracker();
    let broken = |frame: &[u8]| {
        let mut bad = fleet.open("trackers");
        bad.send(frame);
        assert!(bad.is_closed());
    };
    broken(b"GET / HTTP/1.1\r\n\r\n");
    broken(b"\x78\x78\x05\x13\x00\x02\xdb\x6b\r\n"); // the last bit of the checksum
    broken(b"\x78\x78\x01");
    broken(&gt06(0x99, &[], 1));
    broken(&gt06(0x13, &[], 1)); // no hello
    broken(&gt06(0x01, &[0xab; 8], 1)); // no BCD
    for reason in ["constant", "checksum", "length", "command", "order", "value"] {
        wait_until("it is counted", || fleet.broken("trackers", reason) == 1.0);
    }
    good.send(&gt06(0x13, &[], 2));
    good.hears(&gt06(0x13, &[], 2));
    good.send(b"nonsense");
    assert!(good.is_closed());
    wait_until("it is counted", || fleet.broken("trackers", "constant") == 2.0);
    assert_eq!((fleet.broken("vehicles", ""), fleet.broken("lines", "")), (0.0, 0.0));
}

/// [INT-1], [INT-2], [INT-4] on listeners of one server, and a push from one to the other.
#[test]
fn each_of_the_shipped_frames_is_spoken() {
    let fleet = Fleet::start();
    let subscriber = Subscriber::start(fleet.daemon.mqtt(), &["-q", "1", "-t", "vehicles/+/position", "-C", "1"]);
    let mut vehicle = fleet.open("vehicles");
    vehicle.send(&[0x00, 0, 0, 0x12, 0x67]);
    vehicle.hears(&[0x80, 0, 0, 0, 0]);
    vehicle.send(&[0x21, 0x23, 0x45, 0x67, 0x89]);
    vehicle.hears(&[0xa0, 0, 0, 0, 0]);
    assert_eq!(subscriber.messages(), ["vehicles/vehicle-4711/position 4886718345"]);

    let mut lines = fleet.open("lines");
    lines.send(b"HELLO d1\r\nPUB 1 $client/vehicle-4711/limit 50\r\n");
    assert_eq!([lines.line(), lines.line()], ["WELCOME", "OK 1"]);
    vehicle.hears(&[0xb0, 0, 0, 0, 50]);
    vehicle.send(&[0x40, 0, 0, 0, 0]);

    let mut padded = fleet.open("padded");
    let text = |line: &str| format!("{line:1024}").into_bytes();
    padded.send(&[text("HELLO d2"), text("PUB 2 $client/d1/say hello there")].concat());
    padded.hears(&text("WELCOME"));
    padded.hears(&text("OK 2"));
    let push = lines.line();
    assert!(push.starts_with("MSG ") && push.ends_with(" say hello there"), "{push}");
}

/// A codec of functions, which count what they have seen: a plugin as any other.
const COUNTING: &str = r#"
local seen = 0
return {
  codec = {
    longest = 64, acknowledge = "in_turn", answers = { "welcome", "push", "accepted" },
    decode = function(bytes, client)
      local line, size = bytes:match("^([^\n]*)()\n")
      if not line then return nil end
      if line:sub(1, 1) == "!" then return false, "that was a shout" end
      seen = seen + 1
      if client == "" then return { kind = "hello", client = line }, size end
      if line == "got it" then return { kind = "ack" }, size end
      return { kind = "publish", topic = "said/" .. client, payload = line .. " VERSION " .. seen }, size
    end,
    encode = function(frame)
      return frame.kind .. " " .. frame.payload .. "\n"
    end,
  },
}
"#;

/// Frames of a plugin: spoken, replaced while its connection lives, and not taken away while a listener needs them.
#[test]
fn a_plugin_s_codec_is_replaced_while_its_devices_are_connected() {
    let scripts = tempfile::tempdir().unwrap();
    let script = scripts.path().join("own.lua");
    fs::write(&script, COUNTING.replace("VERSION", "first")).unwrap();
    let acl = scripts.path().join("acl.toml");
    fs::write(&acl, RULES).unwrap();
    let settings = [format!("plugins.dir={}", scripts.path().display()), format!("acl.file={}", acl.display())];
    // One shard: each has a VM of its own, so that the hello may be counted in another one than what follows.
    let settings = [&settings[0], &settings[1], "shards=1", "registrations.unknown_client=queue"];
    let mut daemon = Daemon::prepared(&settings);
    daemon.configure("[[listener]]\nname = \"trackers\"\naddress = \"127.0.0.1:0\"\ncodec = \"own\"\n");
    daemon.restart();
    let fleet = Fleet { daemon, _folder: scripts };
    let subscriber = Subscriber::start(fleet.daemon.mqtt(), &["-q", "1", "-t", "said/#", "-C", "3"]);
    let mut device = fleet.open("trackers");
    device.send(b"parrot\nhello\n");
    device.hears(b"welcome \naccepted \n");
    fleet.push("$client/parrot/say", "seed");
    device.hears(b"push seed\n");
    device.send(b"got it\nhal");

    let reload = || {
        let address = fleet.daemon.http_address();
        http::request(address, "POST /v1/plugins/reload", &[], b"{}").unwrap()
    };
    fs::write(&script, COUNTING.replace("VERSION", "second")).unwrap();
    assert_eq!(reload().code, 200);
    device.send(b"f\n"); // a frame of which the old codec has seen the front
    device.hears(b"accepted \n");

    fs::write(&script, "return { description = \"no codec any more\" }").unwrap();
    let refused = reload();
    assert!(refused.code != 200 && refused.body.contains("listener trackers: there is no codec"), "{}", refused.body);
    device.send(b"still here\n");
    device.hears(b"accepted \n");
    let said = subscriber.messages();
    assert_eq!(said[0], "said/parrot hello first 2");
    // The second version began to count at the reload, and the third one has changed nothing.
    assert_eq!(said[1..], ["said/parrot half second 1", "said/parrot still here second 2"]);

    device.send(b"!\n");
    assert!(device.is_closed());
    wait_until("it is counted", || fleet.broken("trackers", "value") == 1.0);
}
