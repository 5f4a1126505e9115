//! A real engine, real sockets, and a client made of bytes: what only the whole can show.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::num::NonZeroU16;
use std::path::Path;
use std::time::Duration;

use postroad_engine::config::{Durability, Shards};
use postroad_engine::{Config, Engine, Running};

/// So long that only a hang is cut by it.
const PATIENCE: Duration = Duration::from_secs(30);

fn config(shards: u16) -> Config {
    let mut config = Config {
        shards: Shards::Count(NonZeroU16::new(shards).expect("not 0")),
        durability: Durability::Memory,
        sys_interval: Duration::ZERO,
        storage_free_bytes_min: 0,
        ..Config::default()
    };
    config.listeners[0].address = SocketAddr::from(([127, 0, 0, 1], 0));
    config.log.segment_bytes = 256 << 10;
    config.log.young_bytes = 1 << 20;
    config
}

fn durable(shards: u16, data_dir: &Path) -> Config {
    Config { durability: Durability::Fsync, data_dir: data_dir.to_owned(), ..config(shards) }
}

struct Server(Running);

impl Server {
    fn start(config: Config) -> Self {
        Self(Engine::start(config).expect("the engine starts"))
    }

    fn address(&self) -> SocketAddr {
        self.0.ports()[0].address
    }

    fn stop(self) {
        self.0.handle().drain();
        self.0.wait().expect("a drain ends well");
    }

    fn connect(&self, client: &str, clean: Clean) -> Client {
        let mut connection = Client::open(self.address());
        connection.connect(client, clean);
        connection
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Clean {
    Yes,
    No,
}

/// MQTT 3.1.1, just enough.
struct Client {
    stream: TcpStream,
    session_present: bool,
}

#[derive(Debug, PartialEq, Eq)]
struct Publish {
    topic: String,
    payload: Vec<u8>,
    id: Option<u16>,
}

fn text(text: &str) -> Vec<u8> {
    let len = u16::try_from(text.len()).expect("short");
    [&len.to_be_bytes(), text.as_bytes()].concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut left = body.len();
    loop {
        let more = if left > 127 { 0x80 } else { 0 };
        out.push((left & 0x7f) as u8 | more);
        left >>= 7;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

impl Client {
    fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("connected");
        stream.set_read_timeout(Some(PATIENCE)).expect("set");
        stream.set_write_timeout(Some(PATIENCE)).expect("set");
        stream.set_nodelay(true).expect("set");
        Self { stream, session_present: false }
    }

    fn connect(&mut self, client: &str, clean: Clean) {
        let flags = if clean == Clean::Yes { 2 } else { 0 };
        let body = [text("MQTT"), vec![4, flags, 0, 0], text(client)].concat();
        self.send(&packet(0x10, &body));
        let (first, body) = self.receive();
        assert_eq!((first, body[1]), (0x20, 0), "CONNACK, accepted");
        self.session_present = body[0] == 1;
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("sent");
    }

    fn try_receive(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut first = [0];
        self.stream.read_exact(&mut first).ok()?;
        let (mut len, mut shift) = (0_usize, 0);
        loop {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).ok()?;
            len |= usize::from(byte[0] & 0x7f) << shift;
            shift += 7;
            if byte[0] < 0x80 {
                break;
            }
        }
        let mut body = vec![0; len];
        self.stream.read_exact(&mut body).ok()?;
        Some((first[0], body))
    }

    fn receive(&mut self) -> (u8, Vec<u8>) {
        self.try_receive().expect("a packet")
    }

    fn subscribe(&mut self, filter: &str, qos: u8) {
        let body = [vec![0, 9], text(filter), vec![qos]].concat();
        self.send(&packet(0x82, &body));
        assert_eq!(self.receive(), (0x90, vec![0, 9, qos]), "SUBACK");
    }

    fn publish_bytes(topic: &str, payload: &[u8], id: Option<u16>) -> Vec<u8> {
        let id_bytes = id.map(u16::to_be_bytes);
        let id_bytes = id_bytes.as_ref().map_or(&[][..], |bytes| bytes);
        let first = if id.is_some() { 0x32 } else { 0x30 };
        packet(first, &[&text(topic), id_bytes, payload].concat())
    }

    fn publish(&mut self, topic: &str, payload: &[u8]) {
        self.send(&Self::publish_bytes(topic, payload, None));
    }

    /// QoS 1, and waits for the PUBACK.
    fn publish_acknowledged(&mut self, topic: &str, payload: &[u8], id: u16) {
        self.send(&Self::publish_bytes(topic, payload, Some(id)));
        assert_eq!(self.receive(), (0x40, id.to_be_bytes().to_vec()), "PUBACK");
    }

    /// The next PUBLISH; acknowledges it.
    fn delivery(&mut self) -> Publish {
        let (first, body) = self.receive();
        assert_eq!(first >> 4, 3, "PUBLISH");
        let topic_len = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let topic = String::from_utf8(body[2..2 + topic_len].to_vec()).expect("UTF-8");
        let mut rest = &body[2 + topic_len..];
        let mut id = None;
        if first & 6 != 0 {
            id = Some(u16::from_be_bytes([rest[0], rest[1]]));
            rest = &rest[2..];
        }
        if let Some(id) = id {
            self.send(&packet(0x40, &id.to_be_bytes()));
        }
        Publish { topic, payload: rest.to_vec(), id }
    }

    /// Everything that was sent before has been handled once the answer is there.
    fn ping(&mut self) {
        self.send(&[0xC0, 0]);
        assert_eq!(self.receive(), (0xD0, vec![]));
    }

    fn disconnect(mut self) {
        self.send(&[0xE0, 0]);
        // The server closes when it has handled it.
        assert_eq!(self.try_receive(), None);
    }
}

/// Every client gets every message in order, wherever their homes are.
fn publish_and_subscribe(shards: u16) {
    let server = Server::start(config(shards));
    let mut subscribers: Vec<_> = (0..8).map(|n| server.connect(&format!("subscriber-{n}"), Clean::Yes)).collect();
    subscribers.iter_mut().for_each(|subscriber| subscriber.subscribe("news/#", 1));
    let mut publishers: Vec<_> = (0..8).map(|n| server.connect(&format!("publisher-{n}"), Clean::Yes)).collect();
    for (n, publisher) in publishers.iter_mut().enumerate() {
        for m in 0..20_u16 {
            publisher.publish_acknowledged(&format!("news/{n}"), &[n as u8, m as u8], m + 1);
        }
    }
    for subscriber in &mut subscribers {
        let mut seen = [0_u8; 8];
        for _ in 0..8 * 20 {
            let publish = subscriber.delivery();
            let n = usize::from(publish.payload[0]);
            assert_eq!(publish.topic, format!("news/{n}"));
            assert_eq!(publish.payload[1], seen[n], "in order per publisher [MQTT-4.6.0-6]");
            seen[n] += 1;
        }
        subscriber.ping();
    }
    drop((subscribers, publishers)); // who stays open would be given time to read its goodbye
    server.stop();
}

#[test]
fn publish_and_subscribe_on_one_shard() {
    publish_and_subscribe(1);
}

#[test]
fn publish_and_subscribe_on_more_shards_than_cores() {
    publish_and_subscribe(8);
}

#[test]
fn a_packet_in_pieces_and_many_packets_in_one_piece() {
    let server = Server::start(config(1));
    let mut subscriber = server.connect("s", Clean::Yes);
    subscriber.subscribe("t", 0);
    let mut publisher = server.connect("p", Clean::Yes);
    let large: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
    let mut bytes = Client::publish_bytes("t", b"first", None);
    bytes.extend(Client::publish_bytes("t", &large, None));
    bytes.extend((0..100).flat_map(|n| Client::publish_bytes("t", &[n], None)));
    let (head, tail) = bytes.split_at(3);
    publisher.send(head);
    publisher.ping_between_nothing();
    publisher.send(tail);
    assert_eq!(subscriber.delivery().payload, b"first");
    assert!(subscriber.delivery().payload == large, "the long one is whole");
    for n in 0..100 {
        assert_eq!(subscriber.delivery().payload, [n]);
    }
    server.stop();
}

/// Whatever the borders of segments are: in the fixed header, in a payload, behind a packet.
#[test]
fn a_stream_in_tiny_segments() {
    let server = Server::start(config(1));
    let mut subscriber = server.connect("s", Clean::Yes);
    subscriber.subscribe("t", 0);
    let mut publisher = server.connect("p", Clean::Yes);
    let payload = |n: u32| -> Vec<u8> { (0..n * 997).map(|m| (m % 251) as u8).collect() };
    let bytes: Vec<u8> = (0..12).flat_map(|n| Client::publish_bytes("t", &payload(n), None)).collect();
    for segment in bytes.chunks(7) {
        publisher.send(segment);
    }
    for n in 0..12 {
        assert!(subscriber.delivery().payload == payload(n), "message {n}");
    }
    server.stop();
}

impl Client {
    /// The pieces must not become one on the way: TCP_NODELAY is on, and this makes the first leave.
    fn ping_between_nothing(&mut self) {
        self.stream.flush().expect("flushed");
        std::thread::yield_now();
    }
}

#[test]
fn garbage_closes_only_its_connection() {
    let server = Server::start(config(2));
    let mut good = server.connect("good", Clean::Yes);
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 64], &[0x10, 0xff, 0xff, 0xff, 0xff, 0x7f], &[0x00]] {
        let mut bad = Client::open(server.address());
        bad.send(garbage);
        assert_eq!(bad.try_receive(), None, "closed without a word");
    }
    let mut liar = server.connect("liar", Clean::Yes);
    liar.send(&[0xff, 0x00]);
    assert_eq!(liar.try_receive(), None);
    good.ping();
    server.stop();
}

#[test]
fn a_session_and_its_messages_survive_a_restart_on_another_number_of_shards() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(durable(1, dir.path()));
    let mut subscriber = server.connect("sleeper", Clean::No);
    assert!(!subscriber.session_present);
    subscriber.subscribe("keep/+", 1);
    subscriber.disconnect();
    let mut publisher = server.connect("publisher", Clean::Yes);
    for n in 0..50_u16 {
        publisher.publish_acknowledged("keep/it", &n.to_be_bytes(), n + 1);
    }
    publisher.disconnect();
    server.stop();

    let server = Server::start(durable(4, dir.path()));
    let mut subscriber = server.connect("sleeper", Clean::No);
    assert!(subscriber.session_present, "the session is there");
    for n in 0..50_u16 {
        assert_eq!(subscriber.delivery().payload, n.to_be_bytes());
    }
    subscriber.ping();
    server.stop();
}

/// What a member had that is in memory only goes to another member before a graceful stop is over. (A shard left as soon
/// as its connections had, with the rest of what it was giving back.)
#[test]
fn a_graceful_stop_gives_back_what_a_member_in_memory_had() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(durable(4, dir.path()));
    let mut keeper = server.connect("keeper", Clean::No);
    keeper.subscribe("$share/group/work", 1);
    keeper.disconnect();
    let mut member = server.connect("member", Clean::Yes);
    member.subscribe("$share/group/work", 1);
    let mut publisher = server.connect("publisher", Clean::Yes);
    for n in 0..3_000_u16 {
        publisher.publish_acknowledged("work", &n.to_be_bytes(), n + 1);
    }
    publisher.disconnect();
    // It acknowledges nothing, reads the goodbye and closes: it is not what keeps the shard from its end.
    let reading = std::thread::spawn(move || while member.try_receive().is_some() {});
    server.stop();
    reading.join().expect("it has read to the end");

    let server = Server::start(durable(4, dir.path()));
    let mut keeper = server.connect("keeper", Clean::No);
    let mut payloads: Vec<_> = (0..3_000).map(|_| keeper.delivery().payload).collect();
    payloads.sort();
    assert!(payloads.into_iter().eq((0..3_000_u16).map(|n| n.to_be_bytes().to_vec())), "each once");
    keeper.ping();
    keeper.disconnect();
    server.stop();
}

#[test]
fn segments_are_retired_and_a_laggard_gets_everything_from_the_old_generation() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(durable(1, dir.path()));
    let mut subscriber = server.connect("laggard", Clean::No);
    subscriber.subscribe("bulk", 1);
    subscriber.disconnect();
    let mut publisher = server.connect("publisher", Clean::Yes);
    let payload = |n: u16| [&n.to_be_bytes()[..], &[7; 16_000]].concat();
    for n in 0..400_u16 {
        publisher.publish_acknowledged("bulk", &payload(n), n + 1);
    }
    publisher.disconnect();
    server.stop();
    let server = Server::start(durable(1, dir.path()));
    let mut subscriber = server.connect("laggard", Clean::No);
    for n in 0..400_u16 {
        assert!(subscriber.delivery().payload == payload(n), "message {n}");
    }
    server.stop();
}

/// After a restart only what was in memory counted against a queue's limit: as much again could be stored for the same
/// absent client after each one.
#[test]
fn what_is_stored_counts_against_the_queue_after_a_restart() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let limited = || {
        let mut config = durable(1, dir.path());
        config.queue.messages_max = 200;
        config
    };
    let server = Server::start(limited());
    let mut subscriber = server.connect("laggard", Clean::No);
    subscriber.subscribe("bulk", 1);
    subscriber.disconnect();
    let mut publisher = server.connect("publisher", Clean::Yes);
    for n in 0..200_u16 {
        publisher.publish_acknowledged("bulk", &[7; 16_000], n + 1); // 3 MB, of which the young log holds 1
    }
    publisher.disconnect();
    server.stop();
    let server = Server::start(limited());
    let mut publisher = server.connect("publisher", Clean::Yes);
    publisher.send(&Client::publish_bytes("bulk", b"too much", Some(1)));
    assert_eq!(publisher.try_receive(), None, "MQTT 3 is told by the end of the connection");
    let mut subscriber = server.connect("laggard", Clean::No);
    for _ in 0..200 {
        assert_eq!(subscriber.delivery().payload.len(), 16_000);
    }
    subscriber.ping();
    let mut publisher = server.connect("publisher", Clean::Yes);
    publisher.publish_acknowledged("bulk", b"fits again", 1);
    assert_eq!(subscriber.delivery().payload, b"fits again");
    server.stop();
}

/// New access rules end what they no longer allow, without a word from the client.
#[test]
fn a_reload_ends_subscriptions_that_are_no_longer_allowed() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let rules = |topics: &str| {
        let path = dir.path().join("acl.toml");
        let text = format!(
            "[[rule]]\nprincipal = \"*\"\naction = [\"connect\", \"publish\"]\neffect = \"allow\"\n\
             [[rule]]\nprincipal = \"*\"\naction = \"subscribe\"\ntopic = {topics}\neffect = \"allow\"\n"
        );
        std::fs::write(&path, text).expect("written");
        Config { acl_file: Some(path), ..config(2) }
    };
    let server = Server::start(rules(r#"["old", "both"]"#));
    let mut subscriber = server.connect("subscriber", Clean::Yes);
    subscriber.subscribe("old", 0);
    subscriber.subscribe("both", 0);
    let mut publisher = server.connect("publisher", Clean::Yes);
    publisher.publish_acknowledged("old", b"1", 1);
    assert_eq!(subscriber.delivery().payload, b"1");
    assert_eq!(server.0.handle().reload(rules(r#"["both"]"#)).expect("reloaded"), Vec::<&str>::new());
    // The order was given; a turn that reads this takes it, at the latest the one that reads the second.
    subscriber.ping();
    subscriber.ping();
    publisher.publish_acknowledged("old", b"2", 2);
    publisher.publish_acknowledged("both", b"3", 3);
    assert_eq!(subscriber.delivery(), Publish { topic: "both".to_owned(), payload: b"3".to_vec(), id: None });
    server.stop();
}

/// A subscriber that stops reading costs bounded memory, and others go on.
#[test]
fn a_slow_reader_is_held_at_its_limit() {
    let mut limited = config(1);
    limited.output_bytes_max = 64 << 10;
    let server = Server::start(limited);
    let mut slow = server.connect("slow", Clean::Yes);
    slow.subscribe("flood", 0);
    let mut fast = server.connect("fast", Clean::Yes);
    fast.subscribe("flood", 0);
    let mut publisher = server.connect("publisher", Clean::Yes);
    let payload = vec![1; 8_000];
    for _ in 0..4_000 {
        publisher.publish("flood", &payload);
        assert_eq!(fast.delivery().payload.len(), payload.len());
    }
    // 32 MB were published; kernel buffers and our limit hold a part of them, the rest was dropped for `slow`.
    publisher.publish("flood", b"end");
    assert_eq!(fast.delivery().payload, b"end");
    slow.send(&[0xE0, 0]);
    slow.stream.shutdown(Shutdown::Write).expect("shut down");
    let mut received = 0;
    while let Some((_, body)) = slow.try_receive() {
        received += body.len();
    }
    assert!(received < 32_000_000, "{received} bytes waited for a reader that did not read");
    server.stop();
}

/// A client that asks and never reads is read from no further; once it reads, every question has its answer.
#[test]
fn who_asks_without_reading_is_held_back() {
    let mut limited = config(1);
    limited.output_bytes_max = 64 << 10;
    let server = Server::start(limited);
    let mut client = server.connect("asker", Clean::Yes);
    client.stream.set_write_timeout(Some(std::time::Duration::from_millis(500))).expect("set");
    let questions = [0xC0, 0].repeat(32 << 10);
    let mut asked = 0;
    // Far more than the kernel's buffers of both sides take; the write that gets nowhere ends the loop.
    while asked < 256 << 20 {
        match client.stream.write(&questions) {
            Ok(count) => asked += count,
            Err(_) => break,
        }
    }
    assert!(asked < 256 << 20, "{asked} bytes of questions were taken from a client that reads no answer");
    let mut answers = vec![0; asked / 2 * 2];
    client.stream.read_exact(&mut answers).expect("all answers come");
    assert!(answers.chunks_exact(2).all(|answer| answer == [0xD0, 0]));
    server.stop();
}

#[test]
fn a_taken_port_is_refused_with_its_name() {
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let mut taken = config(2);
    taken.listeners[0].address = other.local_addr().expect("bound");
    let error = Engine::start(taken).err().expect("it is taken").to_string();
    assert!(error.contains("listener mqtt"), "{error}");
}

#[test]
fn a_drain_says_goodbye_to_clients_of_version_5() {
    let server = Server::start(config(2));
    let mut client = Client::open(server.address());
    let body = [text("MQTT"), vec![5, 2, 0, 0, 0], text("five")].concat();
    client.send(&packet(0x10, &body));
    assert_eq!(client.receive().0, 0x20);
    server.0.handle().drain();
    let (first, body) = client.receive();
    assert_eq!((first, body[0]), (0xE0, 0x8B), "DISCONNECT, server shutting down");
    assert_eq!(client.try_receive(), None);
    drop(client);
    server.0.wait().expect("a drain ends well");
}

#[test]
fn the_server_tells_about_itself_whatever_shard_asks() {
    let mut telling = config(3);
    telling.sys_interval = Duration::from_secs(1);
    let server = Server::start(telling);
    let mut clients: Vec<_> = (0..6).map(|n| server.connect(&format!("client-{n}"), Clean::Yes)).collect();
    for client in &mut clients {
        client.subscribe("$SYS/broker/clients/connected", 0);
        loop {
            // Figures of shards that have not told theirs yet are missing at first.
            let publish = client.delivery();
            assert_eq!(publish.topic, "$SYS/broker/clients/connected");
            if publish.payload == b"6" {
                break;
            }
        }
    }
    drop(clients);
    server.stop();
}

/// Answers of 40 00 are PUBACKs of MQTT 3; of MQTT 5 they hold a reason.
fn publish_v5(client: &mut Client, topic: &str, id: u16) -> u8 {
    let body = [text(topic), id.to_be_bytes().to_vec(), vec![0], b"x".to_vec()].concat();
    client.send(&packet(0x32, &body));
    let (first, body) = client.receive();
    assert_eq!(first, 0x40, "PUBACK");
    body.get(2).copied().unwrap_or(0)
}

fn connect_v5(server: &Server, client: &str) -> Client {
    let mut connection = Client::open(server.address());
    let body = [text("MQTT"), vec![5, 2, 0, 0, 0], text(client)].concat();
    connection.send(&packet(0x10, &body));
    assert_eq!(connection.receive().0, 0x20, "CONNACK");
    connection
}

/// The documentation said that these are live, and the broker never heard of a reload.
#[test]
fn a_reload_changes_the_limits_of_the_broker() {
    let mut before = config(1);
    before.queue.messages_max = 1_000;
    let server = Server::start(before.clone());
    let mut sleeper = server.connect("sleeper", Clean::No);
    sleeper.subscribe("q", 1);
    sleeper.disconnect();
    let mut publisher = connect_v5(&server, "publisher");
    for id in 1..=3 {
        assert_eq!(publish_v5(&mut publisher, "q", id), 0, "there is room");
    }
    let mut after = before.clone();
    after.queue.messages_max = 3;
    assert!(server.0.handle().reload(after.clone()).expect("applies").is_empty());
    // A client that connects after the order was given is let in after it was taken.
    let mut publisher = connect_v5(&server, "publisher-2");
    assert_eq!(publish_v5(&mut publisher, "q", 4), 0x97, "quota exceeded");
    after.queue.messages_max = 4;
    after.mqtt.subscriptions_max = 1;
    after.retained_max = 0;
    server.0.handle().reload(after).expect("applies");
    let mut publisher = connect_v5(&server, "publisher-3");
    assert_eq!(publish_v5(&mut publisher, "q", 5), 0);
    publisher.send(&packet(0x82, &[vec![0, 9, 0], text("a"), vec![0]].concat()));
    assert_eq!(publisher.receive().1[3..], [0], "the first subscription");
    publisher.send(&packet(0x82, &[vec![0, 9, 0], text("b"), vec![0]].concat()));
    assert_eq!(publisher.receive().1[3..], [0x97], "one is the most");
    drop(publisher);
    server.stop();
}

fn reports(server: &Server) -> Vec<postroad_control::ShardReport> {
    let lines = server.0.handle().shards().lines;
    let (answer, answers) = flume::bounded(lines.len());
    for line in lines {
        assert!(line.ask(postroad_control::Request::Report(answer.clone())), "the shard lives");
    }
    drop(answer);
    answers.iter().collect()
}

/// Every figure that the operator guide tells to watch moves with what it counts.
#[test]
fn the_figures_of_a_report_follow_the_traffic() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(durable(1, dir.path()));
    let before = reports(&server).remove(0);
    let mut subscriber = server.connect("subscriber", Clean::No);
    subscriber.subscribe("t", 1);
    let mut sleeper = server.connect("sleeper", Clean::No);
    sleeper.subscribe("s", 1);
    sleeper.disconnect();
    let mut publisher = server.connect("publisher", Clean::Yes);
    for id in 1..=10 {
        publisher.publish_acknowledged("t", b"x", id);
        publisher.publish_acknowledged("s", b"x", id + 100);
        subscriber.delivery();
    }
    publisher.publish("nobody", b"x");
    publisher.ping();
    subscriber.ping(); // its last PUBACK is handled
    let mut bad = Client::open(server.address());
    bad.send(&[0xff; 8]);
    assert_eq!(bad.try_receive(), None);

    let after = reports(&server).remove(0);
    let counted = |name: &str| after.counted.iter().find(|(known, _)| *known == name).map(|(_, count)| *count);
    assert_eq!((after.published, after.delivered, after.acknowledged), (21, 10, 10));
    assert_eq!((after.sessions, after.subscriptions), (3, 2));
    assert_eq!(after.connections, 3, "the bad one has not closed its side");
    assert_eq!((after.queued_messages, after.in_flight), (10, 0), "what waits for the sleeper");
    assert_eq!((after.times.count(), after.ended[0]), (10, ("acknowledged", 10)));
    assert!(after.memory_bytes > 0 && after.cpu_micros > before.cpu_micros && after.turns > before.turns);
    assert_eq!(counted("no_subscriber"), Some(1));
    assert!(after.log.commits > 20 && after.log.records > after.log.commits / 2 && after.log.bytes > 0);
    assert_eq!(after.log.commit.count(), after.log.commits, "each commit is in the histogram");
    assert!(after.log.commit.sum_micros > 0 && after.log.young_bytes > 0);
    assert!(after.stall_max_micros >= before.stall_max_micros && after.stalls == 0);
    let interface = &after.interfaces[0];
    assert_eq!((interface.accepted, interface.open), (4, 3));
    assert!(interface.received_bytes > 200 && interface.sent_bytes > 150);
    assert!(interface.received_packets > 30 && interface.sent_packets > 30, "{interface:?}");
    let malformed = interface.errors.iter().find(|(name, _)| *name == "malformed_connect").map(|(_, count)| *count);
    assert_eq!(malformed, Some(1));
    drop((subscriber, publisher, bad));
    server.stop();
}

/// The timer that the kernel runs for the server's side of the connection: 0 none, 2 keepalive (proc(5), `net/tcp`).
fn kernel_timer(server: SocketAddr, client: SocketAddr) -> u8 {
    let table = std::fs::read_to_string("/proc/self/net/tcp").expect("Linux");
    let port = |address: &str| u16::from_str_radix(address.rsplit(':').next().unwrap_or_default(), 16).ok();
    let timer = |line: &str| -> Option<u8> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_it = port(fields.get(1)?) == Some(server.port()) && port(fields.get(2)?) == Some(client.port());
        if is_it { fields.get(5)?.get(..2)?.parse().ok() } else { None }
    };
    table.lines().find_map(timer).expect("the connection is there")
}

/// `[CON-4]`: who promised no sign of life is probed by the kernel, others are left in peace.
#[test]
fn only_a_client_without_keep_alive_is_probed() {
    let server = Server::start(config(2));
    for n in 0..4 {
        for (keep_alive, timer) in [(0, 2), (60, 0)] {
            let mut client = Client::open(server.address());
            // Names of both shards: a handed-over socket is probed, too.
            let body = [text("MQTT"), vec![4, 2, 0, keep_alive], text(&format!("client-{n}-{keep_alive}"))].concat();
            client.send(&packet(0x10, &body));
            assert_eq!(client.receive(), (0x20, vec![0, 0]));
            let address = client.stream.local_addr().expect("connected");
            let mut seen = 1;
            while seen == 1 {
                // That of the CONNACK, which the client's kernel acknowledges with some delay.
                seen = kernel_timer(server.address(), address);
            }
            assert_eq!(seen, timer, "keep alive {keep_alive}");
            client.disconnect();
        }
    }
    server.stop();
}
