//! The world fails: a crash at each step of a message's way, a disk that breaks, fills up or is full, no file descriptor
//! left. Nothing acknowledged is lost, and the end, where there is one, is clear.

#![allow(clippy::unwrap_used, reason = "a failed step of the test is a failed test")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use postroad_base::{Qos, ReasonCode};
use postroad_e2e::daemon::{Daemon, Endpoint, wait_until};
use postroad_e2e::mqtt::{Client, Incoming, Message, Options};
use postroad_e2e::random::Random;
use postroad_e2e::storm;
use postroad_protocol::mqtt::{Connect, Packet, Version};

fn connect(daemon: &Daemon, options: &Options) -> Client {
    Client::connect(daemon.mqtt(), options).unwrap()
}

/// One life after the other ends at one of these points, under traffic.
fn end_lives_at(seed: &str, points: &[(&str, u64)], exit_code: Option<i32>) {
    let mut random = Random::seeded(seed);
    let mut daemon = Daemon::with_faults("", &["shards=2"]);
    let mut points = points.iter().cycle();
    let (endpoint, over) = (daemon.endpoint(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| come_and_go(&endpoint, &over));
        // Also if the storm fails: the scope waits for the other thread.
        let _end = OnDrop(|| over.store(true, Ordering::Release));
        storm::run(&mut daemon, 8, |daemon, traffic| {
            traffic.wait_for(100);
            daemon.kill();
            let (point, most) = points.next().unwrap();
            daemon.set_fault(&format!("{point}@{}", 1 + random.below(*most)));
            let status = daemon.start_and_end();
            assert_eq!(status.code(), exit_code, "{point}: {status}");
            daemon.set_fault("");
            daemon.restart();
        });
    });
}

/// Connects and subscribes again and again: sooner or later a connection has to be handed over, and the other shard has to
/// be told. (All clients of the storm have had one home once, and once they were accepted by their homes; then the test
/// waited in vain for a crash at that step.)
fn come_and_go(endpoint: &Endpoint, over: &AtomicBool) {
    let visit = || -> std::io::Result<()> {
        let mut client = Client::connect(endpoint.address(), &Options::transient("passer-by"))?;
        client.subscribe("passing/by", Qos::AtMostOnce)?;
        client.disconnect()
    };
    while !over.load(Ordering::Acquire) {
        if visit().is_err() {
            std::thread::park_timeout(Duration::from_millis(2)); // nobody listens at the moment
        }
    }
}

struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// [PER-1..5]
#[test]
fn a_crash_at_any_step_loses_nothing() {
    // Few connections are handed over in a life, and many messages.
    end_lives_at("steps", &[("mesh", 200), ("hand-over", 2), ("commit-before", 100), ("commit-after", 100)], None);
}

/// A write or a sync that fails poisons the log: exit code 1, and what was acknowledged is there.
#[test]
fn a_disk_that_breaks_ends_the_server_and_loses_nothing() {
    end_lives_at("disk", &[("fsync-fails", 100), ("write-fails", 100)], Some(1));
}

/// After a failed sync nobody is told that a message is safe, and the log says why the server went.
#[test]
fn a_failed_sync_is_not_acknowledged() {
    let mut daemon = Daemon::with_faults("fsync-fails@30", &["shards=1"]);
    absent_receiver(&daemon);
    let mut sender = connect(&daemon, &Options::transient("sender"));
    let acknowledged = publish_until_the_end(&mut sender);
    assert!(!acknowledged.is_empty());
    assert_eq!(daemon.wait_for_end().code(), Some(1));
    let log = daemon.log();
    assert!(log.contains("the log is poisoned") && log.contains("a planted fault: fsync-fails"), "{log}");
    daemon.set_fault("");
    daemon.restart();
    receive_all(&daemon, &acknowledged);
}

/// Publishes until the connection ends; what was acknowledged.
fn publish_until_the_end(sender: &mut Client) -> Vec<u32> {
    let mut acknowledged = Vec::new();
    for number in 0.. {
        match publish(sender, number, 4096) {
            Ok(ReasonCode::Success) => acknowledged.push(number),
            Ok(other) => panic!("refused: {}", other.name()),
            Err(_) => break,
        }
    }
    acknowledged
}

/// The answer to a QoS 1 publish of `number`, padded to this length; an error at the end of the connection.
fn publish(client: &mut Client, number: u32, length: usize) -> std::io::Result<ReasonCode> {
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(length, b'.');
    let id = (number % 60_000) as u16 + 1;
    let message = Message { topic: "t".into(), payload, qos: Qos::AtLeastOnce, dup: false, retain: false, id };
    client.send_publish(&message)?;
    match client.receive()? {
        Incoming::PubAck(got, reason) if got == id => Ok(reason),
        Incoming::Disconnect(reason) => Err(std::io::Error::other(reason.name())),
        other => panic!("expected PUBACK, got {other:?}"),
    }
}

fn number_of(message: &Message) -> u32 {
    u32::from_be_bytes(message.payload[..4].try_into().unwrap())
}

/// A session that is away and gets everything.
fn absent_receiver(daemon: &Daemon) {
    let mut receiver = connect(daemon, &Options::persistent("receiver"));
    receiver.subscribe("t", Qos::AtLeastOnce).unwrap();
    receiver.disconnect().unwrap();
}

/// Comes for these messages, in their order.
fn receive_all(daemon: &Daemon, numbers: &[u32]) {
    let mut receiver = connect(daemon, &Options::persistent("receiver"));
    assert!(receiver.session_present);
    for number in numbers {
        assert_eq!(number_of(&receiver.next_message().unwrap()), *number);
    }
    // DISCONNECT comes behind the acknowledgements: with the next CONNACK they are safe.
    receiver.disconnect().unwrap();
}

/// Below `storage.free_bytes_min` publishes get 0x97, deliveries and acknowledgements go on, and it ends when there is
/// room.
#[test]
fn a_disk_that_fills_up_refuses_publishes_only() {
    let daemon = Daemon::prepared(&["shards=1"]);
    refuse_until_there_is_room(daemon, 0, |daemon| {
        daemon.configure("[storage]\nfree_bytes_min = \"0B\"\n");
        daemon.reload();
    });
}

/// As above, where the room really goes: on a file system of 24 MiB.
#[test]
fn a_small_disk_that_fills_up_refuses_publishes_only() {
    let settings = ["shards=1", "log.segment_bytes=1MiB", "log.young_bytes=4MiB"];
    let mut daemon = Daemon::prepared(&settings);
    if let Err(why) = daemon.shrink_disk(24 << 20) {
        println!("no small file system can be mounted here ({why}): the other test shows the same by its option alone");
        return;
    }
    refuse_until_there_is_room(daemon, 8 << 20, |daemon| daemon.grow_disk(64 << 20));
}

/// The first publish after a start is judged by what is free then, also where the log was there before.
#[test]
fn a_disk_that_is_full_at_the_start_refuses_the_first_publish() {
    let mut daemon = Daemon::start_with(&["shards=2", "storage.free_bytes_min=1024GiB"]);
    for _ in 0..3 {
        let mut sender = connect(&daemon, &Options::transient("sender"));
        assert_eq!(publish(&mut sender, 0, 64).unwrap(), ReasonCode::QuotaExceeded);
        daemon.kill();
        daemon.restart();
    }
}

/// `least`: free bytes at which publishes are refused; 0: more than any disk has.
fn refuse_until_there_is_room(mut daemon: Daemon, least: u64, make_room: impl FnOnce(&Daemon)) {
    daemon.configure(&format!("[storage]\nfree_bytes_min = \"{least}B\"\n"));
    daemon.restart();
    absent_receiver(&daemon);
    let mut sender = connect(&daemon, &Options::transient("sender"));
    let mut taken: Vec<u32> = (0..3).collect();
    for number in &taken {
        assert_eq!(publish(&mut sender, *number, 4096).unwrap(), ReasonCode::Success);
    }
    if least == 0 {
        daemon.configure("[storage]\nfree_bytes_min = \"1024GiB\"\n");
        daemon.reload();
    }
    let mut next = 3;
    wait_until("publishes are refused", || {
        let reason = publish(&mut sender, next, 4096).unwrap();
        if reason == ReasonCode::Success {
            taken.push(next);
        } else {
            assert_eq!(reason, ReasonCode::QuotaExceeded);
        }
        next += 1;
        reason != ReasonCode::Success
    });
    assert!(daemon.metric("postroad_counted_total", "reason=\"disk_full\"") >= 1.0);
    receive_all(&daemon, &taken);
    make_room(&daemon);
    wait_until("publishes are taken again", || {
        next += 1;
        publish(&mut sender, next, 4096).unwrap() == ReasonCode::Success
    });
    receive_all(&daemon, &[next]);
    assert!(daemon.terminate().success());
    daemon.restart();
    // What was acknowledged while the disk was full does not come again: the next message is the first.
    let mut sender = connect(&daemon, &Options::transient("sender"));
    next += 1;
    assert_eq!(publish(&mut sender, next, 4096).unwrap(), ReasonCode::Success);
    receive_all(&daemon, &[next]);
}

/// No room at all, and nothing that warns of it: the server ends and says why, and once there is room again it has all
/// that it acknowledged.
#[test]
fn a_disk_without_room_ends_the_server_clearly() {
    let settings = ["shards=1", "log.segment_bytes=1MiB", "log.young_bytes=4MiB", "storage.free_bytes_min=0B"];
    let mut daemon = Daemon::prepared(&settings);
    if let Err(why) = daemon.shrink_disk(12 << 20) {
        println!("no small file system can be mounted here ({why}): the end is tried by a write that is made to fail");
        daemon = Daemon::with_faults("write-fails@50", &settings[..1]);
    } else {
        daemon.restart();
    }
    absent_receiver(&daemon);
    let mut sender = connect(&daemon, &Options::transient("sender"));
    let taken = publish_until_the_end(&mut sender);
    assert_eq!(daemon.wait_for_end().code(), Some(1));
    let log = daemon.log();
    assert!(log.contains("the log is poisoned"), "{log}");
    assert!(log.contains("No space left on device") || log.contains("write-fails"), "{log}");
    println!("{} messages were acknowledged", taken.len());
    if daemon.has_small_disk() {
        daemon.grow_disk(64 << 20);
    } else {
        daemon.set_fault("");
    }
    daemon.restart();
    receive_all(&daemon, &taken);
}

/// A limit of open files bounds the connections below it: who comes in addition is refused and counted.
#[test]
fn connections_are_capped_below_the_limit_of_files() {
    const FIT: usize = 48;
    let mut daemon = Daemon::prepared(&["shards=1"]);
    daemon.limit_files_at_start(postroad_engine::files_besides_connections(1, 1) + FIT as u64);
    daemon.restart();
    let mut inside: Vec<Client> = Vec::new();
    let refused = loop {
        match Client::connect(daemon.mqtt(), &Options::transient(&format!("c-{}", inside.len()))) {
            Ok(client) => inside.push(client),
            Err(error) => break error,
        }
        assert!(inside.len() <= FIT, "no limit is felt");
    };
    println!("{} connections fit, then: {refused}", inside.len());
    assert_eq!(inside.len(), FIT);
    assert!(daemon.metric("postroad_interface_errors_total", "reason=\"connections_max\"") >= 1.0);
    inside[0].publish("a", b"x", Qos::AtLeastOnce, false).unwrap();
    inside.pop().unwrap().disconnect().unwrap();
    wait_until("a place is free", || Client::connect(daemon.mqtt(), &Options::transient("late")).is_ok());
    inside[0].publish("a", b"x", Qos::AtLeastOnce, false).unwrap();
}

/// No descriptor is left (EMFILE): accepting pauses, who is inside goes on, and who waits gets in later.
#[test]
fn accepting_pauses_without_file_descriptors() {
    const SPARE: u64 = 8;
    const CROWD: usize = 14;
    let daemon = Daemon::start_with(&["shards=1"]);
    if daemon.is_foreign() {
        return;
    }
    let mut inside = connect(&daemon, &Options::persistent("inside"));
    inside.subscribe("a", Qos::AtLeastOnce).unwrap();
    daemon.limit_files(daemon.open_files() + SPARE);
    let mut crowd: Vec<Client> = (0..CROWD)
        .map(|number| {
            let mut client = Client::open(daemon.mqtt(), Version::V5).unwrap();
            let name = format!("crowd-{number}");
            client.send(&Packet::Connect(Box::new(Connect::new(Version::V5, &name)))).unwrap();
            client
        })
        .collect();
    wait_until("accepting pauses", || daemon.log().contains("accepting pauses"));
    inside
        .send_publish(&Message {
            topic: "a".into(),
            payload: b"x".to_vec(),
            qos: Qos::AtLeastOnce,
            dup: false,
            retain: false,
            id: 1,
        })
        .unwrap();
    assert_eq!(inside.next_message().unwrap().payload, b"x", "who is inside is not served");
    crowd.drain(..usize::try_from(SPARE).unwrap());
    for client in &mut crowd {
        let answer = client.receive().unwrap();
        assert!(matches!(answer, Incoming::ConnAck { reason: ReasonCode::Success, .. }), "{answer:?}");
    }
    drop(crowd);
    assert!(daemon.metric("postroad_accept_pauses_total", "") >= 1.0);
}
