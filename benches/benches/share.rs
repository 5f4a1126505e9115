//! What does it cost to bring a share group's message to its member (ADR 6)? QoS 1, durable, 256 B, acknowledged, 64
//! messages a commit; through the brokers of all shards involved and through the log's encoding and layout, without disk.
//!
//! - `one shard`: publisher and member together; `two shards`: one crossing, as share groups do it.
//! - `home queue`: what a queue of the group on a third shard comes to, put together of the same code: the message is
//!   stored on the group's shard, sent on from there, and settled there when the member's shard has it.
//! - `records`: a `Publish` and its `Settle` through encoding and layout alone.

use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::Arc;

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use postroad_base::{
    ClientId, ConnectionId, Message, MessageId, MonoMillis, Now, Outcome, PartitionId, Placement, Qos, QueueId,
    ReasonCode, Recipient, Record, Sequence, SessionExpiry, ShardId, SubscriptionOptions, Tag, TopicFilter, TopicName,
    WallMillis,
};
use postroad_broker::api::{ClientName, Connect, Effect, Event, Inbound, MeshMessage, Principal, Subscribe};
use postroad_broker::{Broker, Config, Resend};
use postroad_storage::young::{LogId, Position, Writer, WriterConfig};

const BATCH: u16 = 64;
const NOW: Now = Now { mono: MonoMillis(1), wall: WallMillis(1_700_000_000_000) };

struct Shard {
    broker: Broker,
    log: Log,
}

/// A log without a disk.
struct Log {
    writer: Writer,
    appended: u64,
    committed: u64,
    retired: u64,
}

impl Log {
    fn new() -> Self {
        let config = WriterConfig::new(LogId(1), 8 << 20, 64 << 20);
        Self { writer: Writer::new(config, Position::fresh(Sequence(1))), appended: 0, committed: 0, retired: 0 }
    }

    fn append(&mut self, record: &Record) {
        self.writer.append(record);
        self.appended += 1;
    }

    fn commit(&mut self) {
        while let Some(commit) = self.writer.begin_commit() {
            black_box(&commit.bytes);
            self.writer.finish_commit(commit);
        }
        while let Some((segment, _)) = self.writer.oldest_segment_last_sequence() {
            self.writer.retire(segment);
        }
        self.committed = self.appended;
    }
}

/// Shards, and one client on each: a publisher on the first, a member on the last, a relay on the one between.
struct World {
    shards: Vec<Shard>,
    mesh: VecDeque<(usize, ShardId, MeshMessage)>,
    events: VecDeque<(usize, Event)>,
    /// Publishes of the relay, each with the delivery that it acknowledges when its own is answered.
    relayed: VecDeque<(ConnectionId, Tag)>,
    relay: Option<usize>,
    delivered: u64,
}

impl World {
    fn new(shards: u16, filters: &[&'static str], relay: Option<usize>) -> Self {
        let placement = Placement::new(256, shards, [1; 16]);
        let shard = |number| {
            let mut broker = Broker::new(Config::new(ShardId(number), placement.clone(), true, 1), Sequence(1));
            broker.recovered(NOW, Sequence(1));
            Shard { broker, log: Log::new() }
        };
        let mut world = Self {
            shards: (0..shards).map(shard).collect(),
            mesh: VecDeque::new(),
            events: VecDeque::new(),
            relayed: VecDeque::new(),
            relay,
            delivered: 0,
        };
        for place in 0..usize::from(shards) {
            world.connect(place, place, "client", &placement);
        }
        // One shard holds publisher and member.
        let member = filters.len() + usize::from(shards) - 1;
        if shards == 1 {
            world.connect(0, member, "member", &placement);
        }
        for (place, filter) in filters.iter().enumerate() {
            let home = (usize::from(shards) + place).saturating_sub(filters.len());
            let connection = ConnectionId(if shards == 1 { member } else { home } as u64);
            let options = SubscriptionOptions { qos: Qos::AtLeastOnce, ..SubscriptionOptions::default() };
            let filters = vec![Subscribe { filter: Ok(TopicFilter::new(*filter).expect("a filter")), options }];
            world.events.push_back((home, Event::Subscribe { connection, tag: tag(1), filters }));
        }
        world.settle();
        world
    }

    /// A client that lives there.
    fn connect(&mut self, shard: usize, connection: usize, kind: &str, placement: &Placement) {
        let names = (0..).map(|n| format!("{kind}-{n}"));
        let client = names.into_iter().find(|name| usize::from(placement.home(name.as_bytes()).0) == shard);
        let connect = Connect {
            connection: ConnectionId(connection as u64),
            name: ClientName::Chosen,
            client: ClientId::from(client.expect("some name lives there").as_str()),
            principal: Principal::default(),
            clean_start: true,
            expiry: SessionExpiry(3600),
            receive_maximum: 1000,
            delivery: None,
            will: None,
            hears_refusals: true,
            resend: Resend::Reconnect,
        };
        self.events.push_back((shard, Event::Connect(Box::new(connect))));
        self.settle();
    }

    fn publish_batch(&mut self, message: &Message) {
        for number in 1..=BATCH {
            let message = Inbound { message: message.clone().into(), tag: Some(tag(number)), dup: false, flaw: None };
            self.events.push_back((0, Event::Publish { connection: ConnectionId(0), message }));
        }
        self.settle();
    }

    /// Until nothing happens any more; each log commits what has gathered when there is nothing else to do.
    fn settle(&mut self) {
        loop {
            if let Some((shard, event)) = self.events.pop_front() {
                self.handle(shard, event);
            } else if let Some((from, to, message)) = self.mesh.pop_front() {
                self.handle(usize::from(to.0), Event::Mesh { from: ShardId(from as u16), message });
            } else if let Some(shard) = self.shards.iter().position(|shard| shard.broker.has_steps()) {
                self.handle(shard, Event::Tick);
            } else if let Some(shard) = self.shards.iter().position(|shard| shard.log.committed < shard.log.appended) {
                self.shards[shard].log.commit();
                let upto = Sequence(self.shards[shard].log.committed);
                self.handle(shard, Event::Committed { upto });
                self.retire(shard);
            } else {
                return;
            }
        }
    }

    fn retire(&mut self, shard: usize) {
        let log = &mut self.shards[shard].log;
        if log.committed > log.retired + 10_000 {
            log.retired = log.committed;
            let upto = Sequence(log.retired);
            self.handle(shard, Event::Retire { upto });
        }
    }

    fn handle(&mut self, shard: usize, event: Event) {
        self.shards[shard].broker.handle(NOW, event);
        while let Some(effect) = self.shards[shard].broker.poll() {
            match effect {
                Effect::Append { record } => self.shards[shard].log.append(&record),
                Effect::Mesh { to, message } => self.mesh.push_back((shard, to, message)),
                Effect::Deliver { connection, delivery } => {
                    let Some(tag) = delivery.tag else { continue };
                    if self.relay == Some(shard) {
                        self.relay(shard, connection, tag, &delivery.message);
                    } else {
                        self.delivered += 1;
                        self.acknowledge(shard, connection, tag);
                    }
                }
                Effect::Published { connection, .. } if self.relay == Some(connection.0 as usize) => {
                    if let Some((connection, tag)) = self.relayed.pop_front() {
                        self.acknowledge(shard, connection, tag);
                    }
                }
                Effect::Ingest { .. } => {
                    self.events.push_back((shard, Event::Ingested));
                }
                other => drop(black_box(other)),
            }
        }
    }

    fn acknowledge(&mut self, shard: usize, connection: ConnectionId, tag: Tag) {
        self.events.push_back((shard, Event::Acknowledge { connection, tag, reason: ReasonCode::Success }));
    }

    fn relay(&mut self, shard: usize, connection: ConnectionId, tag: Tag, message: &Message) {
        self.relayed.push_back((connection, tag));
        let message = Message { topic: topic("group/out"), ..message.clone() };
        let message = Inbound { message: message.into(), tag: Some(tag), dup: false, flaw: None };
        self.events.push_back((shard, Event::Publish { connection, message }));
    }
}

fn tag(number: u16) -> Tag {
    Tag::new(number).expect("not 0")
}

fn topic(text: &'static str) -> TopicName {
    TopicName::new(text).expect("a topic")
}

fn message() -> Message {
    Message {
        id: MessageId(0),
        topic: topic("group/in"),
        payload: Bytes::from_static(&[0x5A; 256]),
        properties: Bytes::new(),
        qos: Qos::AtLeastOnce,
        retain: false,
        expires_at: None,
        publisher: QueueId::NONE,
        extras: None,
    }
}

fn deliveries(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("share");
    group.throughput(Throughput::Elements(u64::from(BATCH)));
    let cases: [(&str, u16, &[&'static str], Option<usize>); 3] = [
        ("one shard", 1, &["$share/g/group/in"], None),
        ("two shards", 2, &["$share/g/group/in"], None),
        ("home queue", 3, &["group/in", "group/out"], Some(1)),
    ];
    for (name, shards, filters, relay) in cases {
        let mut world = World::new(shards, filters, relay);
        let message = message();
        world.publish_batch(&message);
        assert_eq!(world.delivered, u64::from(BATCH), "{name}: every message comes once");
        group.bench_function(name, |bencher| bencher.iter(|| world.publish_batch(&message)));
        assert!(world.shards.iter().all(|shard| shard.broker.stats().inflight == 0), "all is acknowledged");
    }
    let (mut log, message, queue) = (Log::new(), Arc::new(message()), QueueId::new(PartitionId(17), 4711));
    let (qos, retain, identifiers, group_name) = (Qos::AtLeastOnce, false, Default::default(), None);
    let recipient = Recipient { queue, qos, retain, given: false, identifiers, group: group_name };
    let publish = Record::Publish { message, recipients: vec![recipient] };
    group.bench_function("records", |bencher| {
        bencher.iter(|| {
            (0..BATCH).for_each(|_| log.append(black_box(&publish)));
            log.commit();
            let settle = |sequence| Record::Settle { queue, sequence, outcome: Outcome::Acknowledged };
            (0..BATCH).for_each(|n| log.append(black_box(&settle(Sequence(log.committed - u64::from(n))))));
            log.commit();
        });
    });
}

criterion_group!(benches, deliveries);
criterion_main!(benches);
