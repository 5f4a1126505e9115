//! `cargo run --release -p postroad-broker --example cost`: nanoseconds of broker time per delivery.

use std::time::Instant;

use base::{
    ConnectionId, Message, MessageId, MonoMillis, Now, Placement, Qos, QueueId, ReasonCode, Sequence, SessionExpiry,
    ShardId, SubscriptionOptions, Tag, TopicFilter, TopicName, WallMillis,
};
use postroad_base as base;
use postroad_broker::api::{ClientName, Connect, Effect, Event, Inbound, Principal, Subscribe};
use postroad_broker::{Broker, Config};

const NOW: Now = Now { mono: MonoMillis(1), wall: WallMillis(1_000_000) };

struct Case {
    name: &'static str,
    subscribers: u64,
    qos: Qos,
    durable: bool,
}

fn main() {
    let case = |name, subscribers, qos, durable| Case { name, subscribers, qos, durable };
    for case in [
        case("qos 0, 1:1", 1, Qos::AtMostOnce, false),
        case("qos 0, 1:1000", 1000, Qos::AtMostOnce, false),
        case("qos 1, 1:1, memory", 1, Qos::AtLeastOnce, false),
        case("qos 1, 1:1, durable", 1, Qos::AtLeastOnce, true),
        case("qos 1, 1:1000, durable", 1000, Qos::AtLeastOnce, true),
        case("qos 2, 1:1, durable", 1, Qos::ExactlyOnce, true),
    ] {
        measure(&case);
    }
}

fn connect(number: u64, durable: bool) -> Event {
    Event::Connect(Box::new(Connect {
        connection: ConnectionId(number),
        name: ClientName::Chosen,
        client: format!("client-{number}").as_str().into(),
        principal: Principal::default(),
        clean_start: false,
        expiry: if durable { SessionExpiry::NEVER } else { SessionExpiry(0) },
        receive_maximum: 100,
        will: None,
        hears_refusals: true,
    }))
}

fn measure(case: &Case) {
    let placement = Placement::new(256, 1, [0; 16]);
    let mut broker = Broker::new(Config::new(ShardId(0), placement, case.durable, 1), Sequence(1));
    let mut appended = 0;
    for number in 0..=case.subscribers {
        drive(&mut broker, connect(number, case.durable), &mut appended);
        let options = SubscriptionOptions { qos: Qos::ExactlyOnce, ..SubscriptionOptions::default() };
        let filters = vec![Subscribe { filter: Ok(TopicFilter::new("a/b").expect("a filter")), options }];
        if number > 0 {
            let (connection, tag) = (ConnectionId(number), Tag::new(1).expect("not 0"));
            drive(&mut broker, Event::Subscribe { connection, tag, filters }, &mut appended);
        }
    }
    let message = Message {
        id: MessageId(0),
        topic: TopicName::new("a/b").expect("a topic"),
        payload: vec![7; 64].into(),
        properties: Default::default(),
        qos: case.qos,
        retain: false,
        expires_at: None,
        publisher: QueueId::NONE,
    };
    let rounds = 2_000_000 / case.subscribers.max(4);
    let mut delivered = 0;
    let begin = Instant::now();
    for round in 0..rounds {
        let tag = case.qos.is_acknowledged().then(|| Tag::new((round % 1000 + 1) as u16).expect("not 0"));
        let message = Inbound { message: message.clone(), tag, dup: false };
        delivered += drive(&mut broker, Event::Publish { connection: ConnectionId(0), message }, &mut appended);
    }
    let nanos = begin.elapsed().as_nanos() as f64;
    println!(
        "{:24} {:7.0} ns per message, {:6.1} ns per delivery",
        case.name,
        nanos / rounds as f64,
        nanos / delivered as f64
    );
}

/// Handles an event, commits, acknowledges what is delivered; how much that was.
fn drive(broker: &mut Broker, event: Event, appended: &mut u64) -> u64 {
    let exactly_once = matches!(&event, Event::Publish { message, .. } if message.message.qos == Qos::ExactlyOnce);
    broker.handle(NOW, event);
    let mut delivered = 0;
    let reason = ReasonCode::Success;
    loop {
        let before = *appended;
        while let Some(effect) = broker.poll() {
            match effect {
                Effect::Append { record } => {
                    drop(std::hint::black_box(record));
                    *appended += 1;
                }
                Effect::Deliver { connection, delivery } => {
                    delivered += 1;
                    match (delivery.tag, delivery.qos) {
                        (Some(tag), Qos::AtLeastOnce) => {
                            broker.handle(NOW, Event::Acknowledge { connection, tag, reason });
                        }
                        (Some(tag), _) => broker.handle(NOW, Event::Receive { connection, tag, reason }),
                        _ => drop(std::hint::black_box(delivery)),
                    }
                }
                Effect::ReleaseDelivery { connection, tag, .. } => {
                    broker.handle(NOW, Event::Complete { connection, tag });
                }
                Effect::Published { connection, tag, .. } if exactly_once => {
                    broker.handle(NOW, Event::Release { connection, tag });
                }
                _ => {}
            }
        }
        if *appended == before {
            return delivered;
        }
        broker.handle(NOW, Event::Committed { upto: Sequence(*appended) });
    }
}
