//! Traffic over a daemon that dies again and again, with an exact oracle.
//!
//! Publishers (QoS 1 and 2, each on a topic of its own, sessions that outlive their connections) send numbered
//! messages, and after each death resume what the specification makes them resume: unacknowledged PUBLISHes with
//! DUP, PUBRELs whose PUBCOMP did not come `[MQTT-4.4.0-1]`. What was acknowledged they never send again. So:
//!
//! 1. every message reaches every persistent subscriber: the acknowledged ones from the log alone [PER-1, REL-1];
//! 2. at QoS 2 each reaches the application exactly once (section 4.3.3);
//! 3. first arrivals of one publisher are in order at every subscriber `[MQTT-4.6.0-5]`;
//! 4. at QoS 1 a copy without DUP comes at most as often as the publisher has sent the message: a repeat that the
//!    server makes by itself carries DUP `[MQTT-3.3.1-1]`;
//! 5. sessions are there after each start, since their CONNACK or SUBACK waited for the log.
//!
//! One subscriber keeps up, one acknowledges late (so that each death finds deliveries in flight), one is away
//! until the end.

#![allow(clippy::unwrap_used, reason = "a failed step of the test is a failed test")]

use std::collections::{HashMap, HashSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use postroad_base::{Qos, ReasonCode};
use postroad_protocol::mqtt::Packet;

use crate::daemon::{Daemon, Endpoint};
use crate::mqtt::{Client, Incoming, Message, Options};

const PUBLISHERS: u64 = 4;
/// Unacknowledged messages of one publisher.
const WINDOW: usize = 40;
/// Acknowledged messages after the last life was ended.
const MESSAGES_AT_THE_END: u64 = 400;
/// The whole test; a stuck one fails instead of hanging.
const DEADLINE: Duration = Duration::from_secs(120);

/// What all threads share.
struct Shared {
    endpoint: Endpoint,
    /// Messages acknowledged to publishers.
    acknowledged: AtomicU64,
    /// Publishers start no new message.
    stop: AtomicBool,
    /// Publishers that have finished.
    finished: AtomicU64,
    /// Messages sent, when all have finished.
    total: AtomicU64,
    deadline: Instant,
}

impl Shared {
    fn check_deadline(&self, who: &str) {
        assert!(Instant::now() < self.deadline, "{who} has not finished within {DEADLINE:?}");
    }

    /// Connects as soon as somebody listens.
    fn connect(&self, options: &Options) -> Client {
        loop {
            self.check_deadline(&options.client_id);
            match Client::connect(self.endpoint.address(), options) {
                Ok(client) => return client,
                Err(_) => thread::park_timeout(Duration::from_millis(2)),
            }
        }
    }
}

/// How far a message of a publisher has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Step {
    Sent,
    Received,
}

/// A publisher's session: what is unfinished, oldest first.
struct Publisher {
    number: u64,
    qos: Qos,
    next: u64,
    unfinished: VecDeque<(u16, u64, Step)>,
    /// How often each message was sent.
    sent: HashMap<u64, u64>,
}

impl Publisher {
    fn new(number: u64) -> Self {
        let qos = qos_of(number);
        Self { number, qos, next: 0, unfinished: VecDeque::new(), sent: HashMap::new() }
    }

    /// Sends until told to stop and all is acknowledged; gives how often each message was sent.
    fn run(mut self, shared: &Shared) -> HashMap<u64, u64> {
        let options = Options::persistent(&format!("publisher-{}", self.number));
        let mut known = false;
        while !(shared.stop.load(Ordering::Acquire) && self.unfinished.is_empty()) {
            let mut client = shared.connect(&options);
            assert!(client.session_present || !known, "{}: the session is gone", options.client_id);
            known = true;
            let _broken_by_the_end = self.talk(&mut client, shared);
        }
        shared.finished.fetch_add(1, Ordering::AcqRel);
        shared.total.fetch_add(self.next, Ordering::AcqRel);
        self.sent
    }

    fn talk(&mut self, client: &mut Client, shared: &Shared) -> io::Result<()> {
        self.resume(client)?;
        loop {
            let stop = shared.stop.load(Ordering::Acquire);
            while !stop && self.unfinished.len() < WINDOW {
                let id = (self.next % 1_000) as u16 + 1;
                self.unfinished.push_back((id, self.next, Step::Sent));
                self.next += 1;
                self.send(client, id, self.next - 1, false)?;
            }
            if self.unfinished.is_empty() {
                return Ok(());
            }
            let incoming = client.receive()?;
            shared.check_deadline("a publisher");
            self.take(client, incoming, shared)?;
        }
    }

    /// What the specification asks of a client that comes back, in the order of the first sending.
    fn resume(&mut self, client: &mut Client) -> io::Result<()> {
        let unfinished: Vec<_> = self.unfinished.iter().copied().collect();
        for (id, sequence, step) in unfinished {
            match step {
                Step::Sent => self.send(client, id, sequence, true)?,
                Step::Received => client.acknowledge(Packet::PubRel, id)?,
            }
        }
        Ok(())
    }

    fn send(&mut self, client: &mut Client, id: u16, sequence: u64, dup: bool) -> io::Result<()> {
        *self.sent.entry(sequence).or_default() += 1;
        let payload = format!("{}:{sequence}", self.number).into_bytes();
        let topic = format!("kill/{}", self.number);
        client.send_publish(&Message { topic, payload, qos: self.qos, dup, retain: false, id })
    }

    fn take(&mut self, client: &mut Client, incoming: Incoming, shared: &Shared) -> io::Result<()> {
        match incoming {
            Incoming::PubAck(id, reason) => {
                accepted(reason);
                self.finish(id, Step::Sent);
                shared.acknowledged.fetch_add(1, Ordering::AcqRel);
            }
            Incoming::PubRec(id, reason) => {
                accepted(reason);
                let entry = self.unfinished.iter_mut().find(|(other, ..)| *other == id);
                let entry = entry.unwrap_or_else(|| panic!("PUBREC {id} for nothing"));
                if entry.2 == Step::Sent {
                    entry.2 = Step::Received;
                    shared.acknowledged.fetch_add(1, Ordering::AcqRel);
                }
                client.acknowledge(Packet::PubRel, id)?;
            }
            Incoming::PubComp(id) => self.finish(id, Step::Received),
            Incoming::Disconnect(reason) => return Err(io::Error::other(reason.name())),
            other => panic!("a publisher got {other:?}"),
        }
        Ok(())
    }

    fn finish(&mut self, id: u16, step: Step) {
        let place = self.unfinished.iter().position(|&(other, _, at)| other == id && at == step);
        let place = place.unwrap_or_else(|| panic!("publisher {}: {id} acknowledged out of turn", self.number));
        self.unfinished.remove(place);
    }
}

/// One arrival at a subscriber's application.
#[derive(Clone, Copy, Debug)]
struct Arrival {
    publisher: u64,
    sequence: u64,
    dup: bool,
}

/// A subscriber's session and all that reached its application.
struct Subscriber {
    name: &'static str,
    /// Acknowledgements that it holds back.
    lag: usize,
    unreleased: HashSet<u16>,
    arrivals: Vec<Arrival>,
    distinct: HashSet<(u64, u64)>,
}

impl Subscriber {
    fn new(name: &'static str, lag: usize) -> Self {
        Self { name, lag, unreleased: HashSet::new(), arrivals: Vec::new(), distinct: HashSet::new() }
    }

    /// Receives until it has every message there is.
    fn run(mut self, shared: &Shared) -> Vec<Arrival> {
        while !self.complete(shared) {
            let mut client = shared.connect(&Options::persistent(self.name));
            assert!(client.session_present, "{}: the session is gone", self.name);
            let _broken_by_the_end = self.talk(&mut client, shared);
        }
        self.arrivals
    }

    fn complete(&self, shared: &Shared) -> bool {
        let finished = shared.finished.load(Ordering::Acquire) == PUBLISHERS;
        finished && self.distinct.len() as u64 >= shared.total.load(Ordering::Acquire)
    }

    fn talk(&mut self, client: &mut Client, shared: &Shared) -> io::Result<()> {
        // What is held back is acknowledged once more has come, or when nothing more will.
        let mut held = VecDeque::new();
        let short = Duration::from_millis(200);
        client.stream().set_read_timeout(Some(short))?;
        while !self.complete(shared) {
            shared.check_deadline(self.name);
            match client.receive() {
                Ok(Incoming::Publish(message)) => held.extend(self.take(&message)),
                Ok(Incoming::PubRel(id)) => {
                    self.unreleased.remove(&id);
                    client.acknowledge(Packet::PubComp, id)?;
                }
                Ok(Incoming::Disconnect(reason)) => return Err(io::Error::other(reason.name())),
                Ok(other) => panic!("{} got {other:?}", self.name),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    acknowledge(client, &mut held, 0)?;
                }
                Err(error) => return Err(error),
            }
            acknowledge(client, &mut held, self.lag)?;
        }
        acknowledge(client, &mut held, 0)
    }

    /// Hands a message to the application, unless it is the same QoS 2 transfer again; what to acknowledge.
    fn take(&mut self, message: &Message) -> Option<(Qos, u16)> {
        let answer = Some((message.qos, message.id));
        if message.qos == Qos::ExactlyOnce && !self.unreleased.insert(message.id) {
            return answer;
        }
        let text = std::str::from_utf8(&message.payload).expect("payloads are text");
        let (publisher, sequence) = text.split_once(':').expect("publisher:sequence");
        let number = |text: &str| text.parse().expect("payloads hold numbers");
        let (publisher, sequence) = (number(publisher), number(sequence));
        assert_eq!(message.topic, format!("kill/{publisher}"));
        assert_eq!(message.qos, qos_of(publisher), "delivered at another level than published and granted");
        self.arrivals.push(Arrival { publisher, sequence, dup: message.dup });
        self.distinct.insert((publisher, sequence));
        answer
    }
}

/// Acknowledges, oldest first, until `keep` are left.
fn acknowledge(client: &mut Client, held: &mut VecDeque<(Qos, u16)>, keep: usize) -> io::Result<()> {
    while held.len() > keep {
        match held.pop_front() {
            Some((Qos::AtLeastOnce, id)) => client.acknowledge(Packet::PubAck, id)?,
            Some((Qos::ExactlyOnce, id)) => client.acknowledge(Packet::PubRec, id)?,
            _ => {}
        }
    }
    Ok(())
}

fn qos_of(publisher: u64) -> Qos {
    if publisher.is_multiple_of(2) { Qos::AtLeastOnce } else { Qos::ExactlyOnce }
}

fn accepted(reason: ReasonCode) {
    assert!((reason as u8) < 0x80, "a publish was refused: {}", reason.name());
}

/// The oracle; see the head of this file.
fn judge(name: &str, arrivals: &[Arrival], sent: &[HashMap<u64, u64>]) {
    for (publisher, sent) in sent.iter().enumerate() {
        let publisher = publisher as u64;
        let of_publisher: Vec<&Arrival> = arrivals.iter().filter(|arrival| arrival.publisher == publisher).collect();
        let mut count: HashMap<u64, u64> = HashMap::new();
        let mut fresh: HashMap<u64, u64> = HashMap::new();
        let mut next = 0;
        for arrival in &of_publisher {
            let seen = count.entry(arrival.sequence).or_default();
            *seen += 1;
            if *seen == 1 {
                assert_eq!(arrival.sequence, next, "{name}: publisher {publisher} lost or out of order");
                next += 1;
            }
            *fresh.entry(arrival.sequence).or_default() += u64::from(!arrival.dup);
        }
        assert_eq!(next, sent.len() as u64, "{name}: publisher {publisher}'s last messages are missing");
        for (sequence, times) in sent {
            if qos_of(publisher) == Qos::ExactlyOnce {
                assert_eq!(count[sequence], 1, "{name}: {publisher}:{sequence} of QoS 2 came more than once");
            }
            assert!(fresh[sequence] <= *times, "{name}: {publisher}:{sequence} came again without DUP");
        }
    }
}

/// Traffic that goes on while the daemon comes and goes.
pub struct Traffic(Arc<Shared>);

impl Traffic {
    /// Waits until so many more messages are acknowledged to publishers.
    pub fn wait_for(&self, messages: u64) {
        let target = self.0.acknowledged.load(Ordering::Acquire) + messages;
        while self.0.acknowledged.load(Ordering::Acquire) < target {
            self.0.check_deadline("publishing");
            thread::park_timeout(Duration::from_millis(1));
        }
    }
}

/// Lets publishers and subscribers loose on a running daemon and ends so many of its lives: `end_life` is to leave a
/// running one again. Then everybody finishes, and all that came is judged.
pub fn run(daemon: &mut Daemon, lives: usize, mut end_life: impl FnMut(&mut Daemon, &Traffic)) {
    let shared = Arc::new(Shared {
        endpoint: daemon.endpoint(),
        acknowledged: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        finished: AtomicU64::new(0),
        total: AtomicU64::new(0),
        deadline: Instant::now() + DEADLINE,
    });
    let subscribers = [("prompt", 0), ("late", 15), ("away", 0)];
    for (name, _) in subscribers {
        let mut client = shared.connect(&Options::persistent(name));
        client.subscribe("kill/+", Qos::ExactlyOnce).unwrap();
        client.disconnect().unwrap();
    }
    let spawn_subscriber = |(name, lag)| {
        let shared = Arc::clone(&shared);
        thread::spawn(move || Subscriber::new(name, lag).run(&shared))
    };
    let mut receiving = vec![spawn_subscriber(subscribers[0]), spawn_subscriber(subscribers[1])];
    let publishing: Vec<_> = (0..PUBLISHERS)
        .map(|number| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || Publisher::new(number).run(&shared))
        })
        .collect();
    let traffic = Traffic(Arc::clone(&shared));
    for _ in 0..lives {
        end_life(daemon, &traffic);
    }
    traffic.wait_for(MESSAGES_AT_THE_END);
    shared.stop.store(true, Ordering::Release);
    let sent: Vec<_> = publishing.into_iter().map(|thread| thread.join().unwrap()).collect();
    receiving.push(spawn_subscriber(subscribers[2]));
    for ((name, _), thread) in subscribers.into_iter().zip(receiving) {
        judge(name, &thread.join().unwrap(), &sent);
    }
    println!("{} messages, {lives} lives ended", shared.total.load(Ordering::Acquire));
}

#[cfg(test)]
mod oracle {
    use super::*;

    fn arrivals(list: &[(u64, bool)]) -> Vec<Arrival> {
        list.iter().map(|&(sequence, dup)| Arrival { publisher: 0, sequence, dup }).collect()
    }

    fn sent(times: &[u64]) -> Vec<HashMap<u64, u64>> {
        vec![times.iter().enumerate().map(|(sequence, &times)| (sequence as u64, times)).collect()]
    }

    #[test]
    fn repeats_with_dup_or_of_the_publisher_are_allowed() {
        judge("t", &arrivals(&[(0, false), (1, false), (0, true), (1, true), (2, false)]), &sent(&[1, 1, 1]));
        judge("t", &arrivals(&[(0, false), (0, false)]), &sent(&[2]));
    }

    #[test]
    #[should_panic(expected = "lost or out of order")]
    fn a_gap_is_found() {
        judge("t", &arrivals(&[(0, false), (2, false)]), &sent(&[1, 1, 1]));
    }

    #[test]
    #[should_panic(expected = "last messages are missing")]
    fn a_missing_end_is_found() {
        judge("t", &arrivals(&[(0, false)]), &sent(&[1, 1]));
    }

    #[test]
    #[should_panic(expected = "came again without DUP")]
    fn a_repeat_without_dup_is_found() {
        judge("t", &arrivals(&[(0, false), (0, false)]), &sent(&[1]));
    }

    #[test]
    #[should_panic(expected = "more than once")]
    fn a_second_copy_at_qos_2_is_found() {
        let mut twice = arrivals(&[(0, false), (0, true)]);
        twice.iter_mut().for_each(|arrival| arrival.publisher = 1);
        judge("t", &twice, &[HashMap::new(), sent(&[1]).remove(0)]);
    }
}
