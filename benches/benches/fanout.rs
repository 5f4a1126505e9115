//! What does one delivery cost inside the broker? One publisher to one and to 1,000 sessions, QoS 0 and 1, through
//! `handle` and `poll`.
//!
//! "log" is a broker whose records are committed at the end of each turn and retired every [`RETIRE_EVERY`] of them,
//! without a disk: it shows what persistence costs in this crate. Every QoS 1 delivery is acknowledged.

use std::hint::black_box;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use postroad_base::{
    ClientId, ConnectionId, Message, MessageId, MonoMillis, Now, Placement, Qos, QueueId, ReasonCode, Sequence,
    SessionExpiry, ShardId, SubscriptionOptions, Tag, TopicFilter, TopicName, WallMillis,
};
use postroad_broker::api::{ClientName, Connect, Effect, Event, Inbound, Principal, Subscribe};
use postroad_broker::{Broker, Config, Resend};

const PUBLISHER: ConnectionId = ConnectionId(0);
const RETIRE_EVERY: u64 = 10_000;
const PAYLOAD: &[u8] = &[7; 64];

/// A broker with its surroundings: every delivery is acknowledged, every record committed.
struct Shard {
    broker: Broker,
    now: Now,
    appended: Sequence,
    committed: Sequence,
    retired: Sequence,
    delivered: u64,
    acknowledgements: Vec<(ConnectionId, Tag)>,
}

impl Shard {
    fn new(durable: bool, subscribers: u64, qos: Qos) -> Self {
        let config = Config::new(ShardId(0), Placement::new(16, 1, [1; 16]), durable, 1);
        let mut shard = Self {
            broker: Broker::new(config, Sequence(1)),
            now: Now { mono: MonoMillis(1), wall: WallMillis(1_700_000_000_000) },
            appended: Sequence(0),
            committed: Sequence(0),
            retired: Sequence(0),
            delivered: 0,
            acknowledgements: Vec::new(),
        };
        let expiry = if durable { SessionExpiry(3600) } else { SessionExpiry(0) };
        shard.connect(PUBLISHER, SessionExpiry(0));
        for number in 1..=subscribers {
            let connection = ConnectionId(number);
            shard.connect(connection, expiry);
            let filter = TopicFilter::new("fleet/position").map_err(|_| ReasonCode::TopicFilterInvalid);
            let subscribe = Subscribe { filter, options: SubscriptionOptions { qos, ..Default::default() } };
            shard.turn(Event::Subscribe { connection, tag: tag(), filters: vec![subscribe] });
        }
        shard
    }

    fn connect(&mut self, connection: ConnectionId, expiry: SessionExpiry) {
        let connect = Connect {
            connection,
            name: ClientName::Chosen,
            client: ClientId::from(&*format!("client-{}", connection.0)),
            principal: Principal::default(),
            clean_start: true,
            expiry,
            receive_maximum: 100,
            delivery: None,
            will: None,
            hears_refusals: true,
            resend: Resend::Reconnect,
        };
        self.turn(Event::Connect(Box::new(connect)));
    }

    fn publish(&mut self, message: &Message) {
        let tag = message.qos.is_acknowledged().then(tag);
        let message = Inbound { message: message.clone().into(), tag, dup: false, flaw: None };
        self.turn(Event::Publish { connection: PUBLISHER, message });
    }

    /// One event and all that follows from it.
    fn turn(&mut self, event: Event) {
        self.handle(event);
        loop {
            if let Some((connection, tag)) = self.acknowledgements.pop() {
                self.handle(Event::Acknowledge { connection, tag, reason: ReasonCode::Success });
            } else if self.committed < self.appended {
                self.committed = self.appended;
                self.handle(Event::Committed { upto: self.committed });
            } else if self.broker.has_steps() {
                self.handle(Event::Tick);
            } else if self.committed.0 > self.retired.0 + RETIRE_EVERY {
                self.retired = self.committed;
                self.handle(Event::Retire { upto: self.retired });
            } else {
                return;
            }
        }
    }

    fn handle(&mut self, event: Event) {
        self.broker.handle(self.now, event);
        while let Some(effect) = self.broker.poll() {
            match effect {
                Effect::Deliver { connection, delivery } => {
                    self.delivered += 1;
                    self.acknowledgements.extend(delivery.tag.map(|tag| (connection, tag)));
                    black_box(delivery);
                }
                Effect::Append { record } => {
                    self.appended = self.appended.next();
                    black_box(record);
                }
                Effect::Ingest { batch } => {
                    black_box(batch);
                    self.broker.handle(self.now, Event::Ingested);
                }
                other => drop(black_box(other)),
            }
        }
    }
}

fn tag() -> Tag {
    Tag::new(1).expect("not 0")
}

fn message(qos: Qos) -> Message {
    Message {
        id: MessageId(0),
        topic: TopicName::new("fleet/position").expect("a valid topic"),
        payload: Bytes::from_static(PAYLOAD),
        properties: Bytes::new(),
        qos,
        retain: false,
        expires_at: None,
        publisher: QueueId::NONE,
        extras: None,
    }
}

fn fan_out(c: &mut Criterion) {
    for (durable, name) in [(false, "memory"), (true, "log")] {
        for qos in [Qos::AtMostOnce, Qos::AtLeastOnce] {
            let mut group = c.benchmark_group(format!("{name}/qos {}", qos.number()));
            for subscribers in [1, 1_000] {
                let mut shard = Shard::new(durable, subscribers, qos);
                let message = message(qos);
                shard.publish(&message);
                assert_eq!(shard.delivered, subscribers, "everybody gets it");
                group.throughput(Throughput::Elements(subscribers));
                group.bench_function(BenchmarkId::from_parameter(subscribers), |b| b.iter(|| shard.publish(&message)));
                let stats = shard.broker.stats();
                assert_eq!((stats.inflight, stats.queued_messages), (0, 0), "all is acknowledged");
            }
        }
    }
}

criterion_group!(benches, fan_out);
criterion_main!(benches);
