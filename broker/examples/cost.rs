//! `cargo run --release -p postroad-broker --example cost`: nanoseconds of broker time per delivery.

use std::time::Instant;

use base::{ConnectionId, Placement, Qos, Sequence, SessionExpiry, ShardId, SubscriptionOptions, Tag, TopicFilter};
use postroad_base as base;
use postroad_broker::api::{Event, Inbound, Subscribe};
use postroad_broker::{Broker, Config};
use support::{NOW, connect, message, settle};

mod support;

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

fn measure(case: &Case) {
    let placement = Placement::new(256, 1, [0; 16]);
    let mut broker = Broker::new(Config::new(ShardId(0), placement, case.durable, 1), Sequence(1));
    let mut appended = 0;
    let expiry = if case.durable { SessionExpiry::NEVER } else { SessionExpiry(0) };
    for number in 0..=case.subscribers {
        drive(&mut broker, connect(number, expiry), &mut appended);
        let options = SubscriptionOptions { qos: Qos::ExactlyOnce, ..SubscriptionOptions::default() };
        let filters = vec![Subscribe { filter: Ok(TopicFilter::new("a/b").expect("a filter")), options }];
        if number > 0 {
            let (connection, tag) = (ConnectionId(number), Tag::new(1).expect("not 0"));
            drive(&mut broker, Event::Subscribe { connection, tag, filters }, &mut appended);
        }
    }
    let message = message("a/b", case.qos);
    let rounds = 2_000_000 / case.subscribers.max(4);
    let mut delivered = 0;
    let begin = Instant::now();
    for round in 0..rounds {
        let tag = case.qos.is_acknowledged().then(|| Tag::new((round % 1000 + 1) as u16).expect("not 0"));
        let message = Inbound { message: message.clone().into(), tag, dup: false, flaw: None };
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

/// Handles an event and all that follows; how much was delivered.
fn drive(broker: &mut Broker, event: Event, appended: &mut u64) -> u64 {
    let releases = matches!(&event, Event::Publish { message, .. } if message.message.qos == Qos::ExactlyOnce);
    broker.handle(NOW, event);
    settle(broker, appended, releases)
}
